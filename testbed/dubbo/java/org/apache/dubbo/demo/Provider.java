package org.apache.dubbo.demo;

import java.util.ArrayList;
import java.util.List;

import org.apache.dubbo.config.ProtocolConfig;
import org.apache.dubbo.config.ServiceConfig;
import org.apache.dubbo.config.bootstrap.DubboBootstrap;

/**
 * Provides the interfaces until it is ended. Options: registry, session, application, interfaces (comma-separated
 * names of this package), protocols (comma-separated PROTOCOL:PORT), version, group, weight, dynamic, register-mode,
 * metadata-type, name (part of the answers), parameter.KEY.
 */
public final class Provider {
    private record Answers(String name) implements DemoService, GreetingService {
        @Override
        public String sayHello(String caller) {
            return "hello " + caller + " from " + name;
        }

        @Override
        public String greet(String caller) {
            return "greetings " + caller + " from " + name;
        }
    }

    public static void main(String[] arguments) throws Exception {
        Options options = new Options(arguments);
        if (options.get("register-mode") != null) {
            // By name, because 2.7 has no such setting.
            System.setProperty("dubbo.application.register-mode", options.get("register-mode"));
        }
        List<ProtocolConfig> protocols = protocols(options.get("protocols", "dubbo:20880"));
        DubboBootstrap bootstrap = DubboBootstrap.getInstance()
                .application(options.application("demo-provider"))
                .registries(options.registries())
                .protocols(protocols);
        for (String name : options.get("interfaces", "DemoService").split(",")) {
            bootstrap.service(service(options, name, protocols));
        }
        bootstrap.start();
        System.out.println("PROVIDER STARTED");
        bootstrap.await();
    }

    private static List<ProtocolConfig> protocols(String text) {
        List<ProtocolConfig> protocols = new ArrayList<>();
        for (String one : text.split(",")) {
            String[] parts = one.split(":");
            ProtocolConfig protocol = new ProtocolConfig(parts[0], Integer.parseInt(parts[1]));
            protocol.setId(parts[0] + "-" + parts[1]);
            protocols.add(protocol);
        }
        return protocols;
    }

    private static ServiceConfig<Answers> service(Options options, String name, List<ProtocolConfig> protocols) {
        ServiceConfig<Answers> service = new ServiceConfig<>();
        service.setInterface(Provider.class.getPackageName() + "." + name);
        service.setRef(new Answers(options.get("name", "provider")));
        service.setProtocols(protocols);
        service.setVersion(options.get("version"));
        service.setGroup(options.get("group"));
        if (options.get("weight") != null) {
            service.setWeight(Integer.valueOf(options.get("weight")));
        }
        if (options.get("dynamic") != null) {
            service.setDynamic(Boolean.valueOf(options.get("dynamic")));
        }
        service.setParameters(options.parameters());
        return service;
    }
}
