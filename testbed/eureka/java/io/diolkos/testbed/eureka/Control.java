package io.diolkos.testbed.eureka;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.Map;

import com.netflix.appinfo.ApplicationInfoManager;
import com.netflix.appinfo.InstanceInfo.InstanceStatus;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;

/**
 * Takes orders on a port of 127.0.0.1: PUT /status/STATUS, PUT /metadata/KEY/VALUE. The answer comes when the client
 * knows; it tells the registry soon after.
 */
final class Control {
    static void serve(int port, ApplicationInfoManager manager) throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 0);
        server.createContext("/status/", exchange -> {
            manager.setInstanceStatus(InstanceStatus.valueOf(words(exchange)[2]));
            done(exchange);
        });
        server.createContext("/metadata/", exchange -> {
            String[] words = words(exchange);
            manager.registerAppMetadata(Map.of(words[2], words[3]));
            done(exchange);
        });
        server.start();
    }

    /** The parts of the path; the first is empty. */
    private static String[] words(HttpExchange exchange) {
        return exchange.getRequestURI().getPath().split("/");
    }

    private static void done(HttpExchange exchange) throws IOException {
        exchange.sendResponseHeaders(204, -1);
        exchange.close();
    }

    private Control() {
    }
}
