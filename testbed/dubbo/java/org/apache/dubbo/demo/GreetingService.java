package org.apache.dubbo.demo;

/** One more service, for programs that provide two. */
public interface GreetingService {
    String greet(String name);
}
