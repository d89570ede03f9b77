package io.diolkos.testbed.eureka;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Map;

import com.netflix.discovery.shared.transport.jersey.TransportClientFactories;
import com.netflix.discovery.shared.transport.jersey3.Jersey3TransportClientFactories;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import org.glassfish.jersey.server.ResourceConfig;
import org.glassfish.jersey.server.ServerProperties;
import org.springframework.beans.factory.config.BeanPostProcessor;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.ImportAutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.boot.autoconfigure.context.ConfigurationPropertiesAutoConfiguration;
import org.springframework.boot.autoconfigure.context.PropertyPlaceholderAutoConfiguration;
import org.springframework.boot.autoconfigure.ssl.SslAutoConfiguration;
import org.springframework.boot.autoconfigure.web.servlet.ServletWebServerFactoryAutoConfiguration;
import org.springframework.cloud.commons.util.UtilAutoConfiguration;
import org.springframework.cloud.netflix.eureka.EurekaClientAutoConfiguration;
import org.springframework.cloud.netflix.eureka.server.EnableEurekaServer;
import org.springframework.cloud.netflix.eureka.server.EurekaServerAutoConfiguration;
import org.springframework.cloud.netflix.eureka.server.EurekaServerJerseyClientAutoConfiguration;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.core.Ordered;
import org.springframework.core.env.Environment;
import org.springframework.web.filter.OncePerRequestFilter;

/**
 * Spring Cloud's Eureka server, with no more of Spring than it needs. Options are Spring's (--server.port=8761),
 * and testbed.user with testbed.password.
 */
@Configuration(proxyBeanMethods = false)
@ImportAutoConfiguration({
    ConfigurationPropertiesAutoConfiguration.class,
    EurekaClientAutoConfiguration.class,
    EurekaServerAutoConfiguration.class,
    EurekaServerJerseyClientAutoConfiguration.class,
    PropertyPlaceholderAutoConfiguration.class,
    ServletWebServerFactoryAutoConfiguration.class,
    SslAutoConfiguration.class,
    UtilAutoConfiguration.class
})
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
                // Without any servlet no filter is asked, and the server's resources are behind one.
                Map.entry("server.servlet.register-default-servlet", "true"),
                // What follows makes the start shorter.
                Map.entry("spring.main.banner-mode", "off"),
                Map.entry("spring.main.lazy-initialization", "true")));
        return application.run(arguments);
    }

    /** The server has a client, which has nothing to do here. */
    @Bean
    TransportClientFactories<?> transport() {
        return Jersey3TransportClientFactories.getInstance();
    }

    /** Errors have no body: clients that are not known would not understand that from Tomcat's pages. */
    @Bean
    static BeanPostProcessor bare() {
        return new BeanPostProcessor() {
            @Override
            public Object postProcessBeforeInitialization(Object bean, String name) {
                if (bean instanceof ResourceConfig resources) {
                    resources.property(ServerProperties.RESPONSE_SET_STATUS_OVER_SEND_ERROR, true);
                }
                return bean;
            }
        };
    }

    /** Basic authentication as a proxy in front of the server would ask for. */
    @Bean
    @ConditionalOnProperty("testbed.user")
    OncePerRequestFilter basic(Environment environment) {
        String pair = environment.getProperty("testbed.user") + ":" + environment.getProperty("testbed.password");
        String wanted = "Basic " + Base64.getEncoder().encodeToString(pair.getBytes(StandardCharsets.UTF_8));
        return new First() {
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

    /** Asked before the server's resources, which are behind a filter too. */
    private abstract static class First extends OncePerRequestFilter implements Ordered {
        @Override
        public int getOrder() {
            return HIGHEST_PRECEDENCE;
        }
    }
}
