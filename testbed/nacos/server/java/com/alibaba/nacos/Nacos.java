package com.alibaba.nacos;

import java.util.List;
import javax.annotation.PostConstruct;

import com.alibaba.nacos.core.code.ControllerMethodsCache;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.web.servlet.ServletComponentScan;
import org.springframework.scheduling.annotation.EnableScheduling;
import org.springframework.stereotype.Component;

/**
 * A server of the modules that Maven Central has: all but the console. With the argument train it ends as soon as it
 * has started.
 */
@SpringBootApplication(scanBasePackages = "com.alibaba.nacos")
@ServletComponentScan
@EnableScheduling
public class Nacos {
    public static void main(String[] arguments) {
        SpringApplication.run(Nacos.class, arguments);
        if (List.of(arguments).contains("train")) {
            System.exit(0);
        }
    }

    /** Paths are answered by "no such api" until the packages of their controllers are named here. */
    @Component
    static class Routes {
        private final ControllerMethodsCache routes;

        Routes(ControllerMethodsCache routes) {
            this.routes = routes;
        }

        @PostConstruct
        void name() {
            routes.initClassMethod("com.alibaba.nacos.core.controller");
            routes.initClassMethod("com.alibaba.nacos.naming.controllers");
            routes.initClassMethod("com.alibaba.nacos.config.server.controller");
        }
    }
}
