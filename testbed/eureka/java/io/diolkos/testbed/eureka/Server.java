package io.diolkos.testbed.eureka;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Map;

import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.cloud.netflix.eureka.server.EnableEurekaServer;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.core.env.Environment;
import org.springframework.web.filter.OncePerRequestFilter;

/** Spring Cloud's Eureka server. Options are Spring's (--server.port=8761), and testbed.user with testbed.password. */
@Configuration(proxyBeanMethods = false)
@EnableAutoConfiguration
@EnableEurekaServer
public class Server {
    public static void main(String[] arguments) {
        start(arguments);
    }

    static ConfigurableApplicationContext start(String... arguments) {
        SpringApplication application = new SpringApplication(Server.class);
        application.setDefaultProperties(Map.ofEntries(
                Map.entry("server.address", "127.0.0.1"),
                Map.entry("spring.application.name", "eureka-server"),
                // It registers nowhere: nothing but what tests register is read back.
                Map.entry("eureka.client.register-with-eureka", "false"),
                Map.entry("eureka.client.fetch-registry", "false"),
                Map.entry("eureka.dashboard.enabled", "false"),
                Map.entry("eureka.server.max-threads-for-peer-replication", "2"),
                Map.entry("server.tomcat.threads.min-spare", "2"),
                // What follows makes the start shorter.
                Map.entry("spring.main.banner-mode", "off"),
                Map.entry("spring.main.lazy-initialization", "true"),
                Map.entry("spring.jmx.enabled", "false"),
                Map.entry("spring.cloud.refresh.enabled", "false"),
                Map.entry("spring.cloud.loadbalancer.enabled", "false"),
                Map.entry("spring.cloud.discovery.client.composite-indicator.enabled", "false"),
                Map.entry("management.metrics.enable.all", "false"),
                Map.entry("management.endpoints.enabled-by-default", "false")));
        return application.run(arguments);
    }

    /** Basic authentication as a proxy in front of the server would ask for. */
    @Bean
    @ConditionalOnProperty("testbed.user")
    OncePerRequestFilter basic(Environment environment) {
        String pair = environment.getProperty("testbed.user") + ":" + environment.getProperty("testbed.password");
        String wanted = "Basic " + Base64.getEncoder().encodeToString(pair.getBytes(StandardCharsets.UTF_8));
        return new OncePerRequestFilter() {
            @Override
            protected void doFilterInternal(HttpServletRequest request, HttpServletResponse response,
                    FilterChain next) throws ServletException, IOException {
                if (wanted.equals(request.getHeader("Authorization"))) {
                    next.doFilter(request, response);
                } else {
                    response.setHeader("WWW-Authenticate", "Basic realm=\"eureka\"");
                    response.sendError(HttpServletResponse.SC_UNAUTHORIZED);
                }
            }
        };
    }
}
