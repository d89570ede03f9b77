package io.diolkos.testbed.eureka;

import java.util.HashMap;
import java.util.Map;

import com.netflix.appinfo.ApplicationInfoManager;
import com.netflix.appinfo.EurekaInstanceConfig;
import com.netflix.appinfo.InstanceInfo.InstanceStatus;
import com.netflix.appinfo.providers.EurekaConfigBasedInstanceInfoProvider;
import com.netflix.discovery.DiscoveryClient;
import com.netflix.discovery.shared.transport.jersey3.Jersey3TransportClientFactories;
import org.springframework.cloud.netflix.eureka.EurekaClientConfigBean;

/**
 * Registers one instance with Netflix' own client, and keeps it until it is ended. Options, as NAME=VALUE: eureka
 * (comma-separated URLs), control (the port of its {@link Control}), and those of {@link Instance}.
 */
public final class Client {
    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = new HashMap<>();
        for (String argument : arguments) {
            int end = argument.indexOf('=');
            options.put(argument.substring(0, end), argument.substring(end + 1));
        }
        EurekaInstanceConfig instance = new Instance(options);
        ApplicationInfoManager manager =
                new ApplicationInfoManager(instance, new EurekaConfigBasedInstanceInfoProvider(instance).get());
        if (instance.isInstanceEnabledOnit()) {
            manager.setInstanceStatus(InstanceStatus.UP);
        }
        EurekaClientConfigBean config = new EurekaClientConfigBean();
        config.setServiceUrl(Map.of(EurekaClientConfigBean.DEFAULT_ZONE, options.get("eureka")));
        config.setFetchRegistry(false);
        config.setShouldEnforceRegistrationAtInit(true);
        // A change is sent within a second, and as many a minute as tests make.
        config.setInstanceInfoReplicationIntervalSeconds(1);
        config.setInitialInstanceInfoReplicationIntervalSeconds(1);
        config.setEurekaServerConnectTimeoutSeconds(2);
        config.setEurekaServerReadTimeoutSeconds(2);
        DiscoveryClient client = new DiscoveryClient(manager, config, Jersey3TransportClientFactories.getInstance());
        // It deregisters.
        Runtime.getRuntime().addShutdownHook(new Thread(client::shutdown));
        Control.serve(Integer.parseInt(options.get("control")), manager);
        System.out.println("CLIENT STARTED");
    }

    private Client() {
    }
}
