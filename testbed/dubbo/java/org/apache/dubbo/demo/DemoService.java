package org.apache.dubbo.demo;

/** The service of Dubbo's own examples. */
public interface DemoService {
    String sayHello(String name);
}
