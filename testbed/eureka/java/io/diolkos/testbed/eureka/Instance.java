package io.diolkos.testbed.eureka;

import java.util.HashMap;
import java.util.Map;

import com.netflix.appinfo.AbstractInstanceConfig;

/**
 * What is registered. Options: app, id, ip, host, port, secure (a port), vip, secure-vip, renewal and lease (seconds),
 * plain (false: the port is not enabled), enabled (false: it stays in status STARTING), metadata.KEY.
 */
final class Instance extends AbstractInstanceConfig {
    private static final String METADATA = "metadata.";

    private final Map<String, String> options;
    private final Map<String, String> metadata = new HashMap<>();

    Instance(Map<String, String> options) {
        this.options = options;
        options.forEach((name, value) -> {
            if (name.startsWith(METADATA)) {
                metadata.put(name.substring(METADATA.length()), value);
            }
        });
    }

    private String get(String name, String otherwise) {
        return options.getOrDefault(name, otherwise);
    }

    private int number(String name, int otherwise) {
        return Integer.parseInt(get(name, Integer.toString(otherwise)));
    }

    @Override
    public String getInstanceId() {
        return get("id", getHostName(false) + ":" + getAppname() + ":" + getNonSecurePort());
    }

    @Override
    public String getAppname() {
        return options.get("app");
    }

    @Override
    public String getAppGroupName() {
        return null;
    }

    @Override
    public String getIpAddress() {
        return options.get("ip");
    }

    @Override
    public String getHostName(boolean refresh) {
        return get("host", getIpAddress());
    }

    @Override
    public int getNonSecurePort() {
        return number("port", 8080);
    }

    @Override
    public boolean isNonSecurePortEnabled() {
        return Boolean.parseBoolean(get("plain", "true"));
    }

    @Override
    public int getSecurePort() {
        return number("secure", 443);
    }

    @Override
    public boolean getSecurePortEnabled() {
        return options.containsKey("secure");
    }

    @Override
    public String getVirtualHostName() {
        return get("vip", getAppname());
    }

    @Override
    public String getSecureVirtualHostName() {
        return get("secure-vip", getAppname());
    }

    @Override
    public boolean isInstanceEnabledOnit() {
        return Boolean.parseBoolean(get("enabled", "true"));
    }

    @Override
    public int getLeaseRenewalIntervalInSeconds() {
        return number("renewal", 1);
    }

    @Override
    public int getLeaseExpirationDurationInSeconds() {
        return number("lease", 3);
    }

    @Override
    public Map<String, String> getMetadataMap() {
        return metadata;
    }

    @Override
    public String getStatusPageUrlPath() {
        return "/actuator/info";
    }

    @Override
    public String getStatusPageUrl() {
        return null;
    }

    @Override
    public String getHomePageUrlPath() {
        return "/";
    }

    @Override
    public String getHomePageUrl() {
        return null;
    }

    @Override
    public String getHealthCheckUrlPath() {
        return "/actuator/health";
    }

    @Override
    public String getHealthCheckUrl() {
        return null;
    }

    @Override
    public String getSecureHealthCheckUrl() {
        return null;
    }

    @Override
    public String[] getDefaultAddressResolutionOrder() {
        return new String[0];
    }

    @Override
    public String getNamespace() {
        return "eureka.";
    }
}
