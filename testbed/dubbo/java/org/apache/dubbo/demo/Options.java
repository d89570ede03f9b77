package org.apache.dubbo.demo;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.RegistryConfig;

/** Arguments of the form NAME=VALUE, and what both programs make of them. */
final class Options {
    private static final String PARAMETER = "parameter.";

    private final Map<String, String> values = new HashMap<>();

    Options(String[] arguments) {
        for (String argument : arguments) {
            int end = argument.indexOf('=');
            values.put(argument.substring(0, end), argument.substring(end + 1));
        }
    }

    /** The value, or null. */
    String get(String name) {
        return values.get(name);
    }

    String get(String name, String otherwise) {
        return values.getOrDefault(name, otherwise);
    }

    /** What is given as parameter.NAME=VALUE. */
    Map<String, String> parameters() {
        Map<String, String> found = new HashMap<>();
        values.forEach((name, value) -> {
            if (name.startsWith(PARAMETER)) {
                found.put(name.substring(PARAMETER.length()), value);
            }
        });
        return found;
    }

    ApplicationConfig application(String otherwise) {
        ApplicationConfig application = new ApplicationConfig(get("application", otherwise));
        // Else each program opens port 22222.
        application.setQosEnable(false);
        if (get("metadata-type") != null) {
            application.setMetadataType(get("metadata-type"));
        }
        return application;
    }

    /** One for each address, which commas separate; without any, consumers may call an address directly. */
    List<RegistryConfig> registries() {
        List<RegistryConfig> registries = new ArrayList<>();
        for (String address : get("registry", RegistryConfig.NO_AVAILABLE).split(",")) {
            RegistryConfig registry = new RegistryConfig(address);
            // Else 2.7 takes the first one only.
            registry.setId("registry-" + registries.size());
            if (get("session") != null) {
                // The time-out in milliseconds of a ZooKeeper session, as 3 and as 2.7 call it, and of a lease in
                // etcd. Else it is a minute or half of one.
                registry.setParameters(Map.of("session", get("session"), "zk.session.expire", get("session")));
            }
            registries.add(registry);
        }
        return registries;
    }
}
