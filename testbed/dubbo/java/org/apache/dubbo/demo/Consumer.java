package org.apache.dubbo.demo;

import org.apache.dubbo.config.ReferenceConfig;
import org.apache.dubbo.config.bootstrap.DubboBootstrap;

/**
 * Calls DemoService and prints a line for each answer. Options: registry or url (calls that address directly),
 * application, version, group, calls (how many; 0: until it is ended), interval (milliseconds between two).
 */
public final class Consumer {
    public static void main(String[] arguments) throws Exception {
        Options options = new Options(arguments);
        ReferenceConfig<DemoService> reference = new ReferenceConfig<>();
        reference.setInterface(DemoService.class);
        reference.setVersion(options.get("version"));
        reference.setGroup(options.get("group"));
        reference.setUrl(options.get("url"));
        reference.setParameters(options.parameters());
        // Each call is tried once, and one that nobody can answer yet is no reason to end.
        reference.setRetries(0);
        reference.setCheck(false);
        reference.setTimeout(5000);
        DubboBootstrap.getInstance()
                .application(options.application("demo-consumer"))
                .registries(options.registries())
                .reference(reference)
                .start();
        int calls = Integer.parseInt(options.get("calls", "1"));
        for (int i = 1; calls == 0 || i <= calls; i++) {
            call(reference, "call " + i);
            Thread.sleep(Long.parseLong(options.get("interval", "0")));
        }
        System.exit(0);
    }

    private static void call(ReferenceConfig<DemoService> reference, String name) {
        try {
            System.out.println("ANSWER " + reference.get().sayHello(name));
        } catch (RuntimeException e) {
            System.out.println("FAILED " + e.getMessage().lines().findFirst().orElse(""));
        }
    }
}
