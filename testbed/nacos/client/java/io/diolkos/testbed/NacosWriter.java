package io.diolkos.testbed;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.io.PrintWriter;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;

import com.alibaba.nacos.api.NacosFactory;
import com.alibaba.nacos.api.PropertyKeyConst;
import com.alibaba.nacos.api.exception.NacosException;
import com.alibaba.nacos.api.naming.NamingService;
import com.alibaba.nacos.api.naming.pojo.Instance;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;

/**
 * Registers with Nacos what it is told to, by Nacos' own client. Arguments of the form NAME=VALUE: port (of 127.0.0.1,
 * where it takes orders), server, and perhaps username and password.
 *
 * <p>An order is a JSON object on a line: do, namespace, group, service, instances. It is answered by one, which has
 * error if the order failed. Orders are carried out one after the other.
 */
public final class NacosWriter {
    private static final long CONNECT_MILLIS = 30_000;
    private static final ObjectMapper JSON = new ObjectMapper();

    private final Map<String, String> options;
    private final Map<String, NamingService> clients = new HashMap<>();
    /** What each service has been given by put. */
    private final Map<List<String>, List<Instance>> given = new HashMap<>();

    private NacosWriter(Map<String, String> options) {
        this.options = options;
    }

    public static void main(String[] arguments) throws IOException {
        Map<String, String> options = new HashMap<>();
        for (String argument : arguments) {
            int end = argument.indexOf('=');
            options.put(argument.substring(0, end), argument.substring(end + 1));
        }
        int port = Integer.parseInt(options.get("port"));
        NacosWriter writer = new NacosWriter(options);
        try (ServerSocket listener = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
            while (true) {
                try (Socket socket = listener.accept()) {
                    writer.serve(socket);
                } catch (IOException e) {
                    System.err.println("the connection broke: " + e);
                }
            }
        }
    }

    private void serve(Socket socket) throws IOException {
        socket.setTcpNoDelay(true);
        BufferedReader orders =
                new BufferedReader(new InputStreamReader(socket.getInputStream(), StandardCharsets.UTF_8));
        PrintWriter answers =
                new PrintWriter(new OutputStreamWriter(socket.getOutputStream(), StandardCharsets.UTF_8), true);
        for (String line = orders.readLine(); line != null; line = orders.readLine()) {
            answers.println(answer(line));
        }
    }

    private ObjectNode answer(String line) {
        ObjectNode answer = JSON.createObjectNode();
        try {
            obey(JSON.readTree(line), answer);
        } catch (Exception e) {
            answer.put("error", e.toString());
        }
        return answer;
    }

    private void obey(JsonNode order, ObjectNode answer) throws Exception {
        String namespace = order.path("namespace").asText();
        String group = order.path("group").asText();
        String service = order.path("service").asText();
        NamingService client = client(namespace);
        List<Instance> instances = new ArrayList<>();
        for (JsonNode one : order.path("instances")) {
            instances.add(instance(one));
        }
        switch (order.path("do").asText()) {
            case "put" -> put(client, List.of(namespace, group, service), instances);
            case "register" -> {
                for (Instance one : instances) {
                    client.registerInstance(service, group, one);
                }
            }
            case "deregister" -> {
                for (Instance one : instances) {
                    client.deregisterInstance(service, group, one);
                }
            }
            case "list" -> answer.set("instances", JSON.valueToTree(client.getAllInstances(service, group, false)));
            default -> throw new IllegalArgumentException("an unknown order");
        }
    }

    /** These, and no others, are what this process has registered for the service. */
    private void put(NamingService client, List<String> name, List<Instance> instances) throws NacosException {
        String group = name.get(1);
        String service = name.get(2);
        List<Instance> before = given.getOrDefault(name, List.of());
        if (instances.size() > 1) {
            client.batchRegisterInstance(service, group, instances);
        } else if (instances.size() == 1) {
            client.registerInstance(service, group, instances.get(0));
        } else if (before.size() > 1) {
            client.batchDeregisterInstance(service, group, before);
        } else if (before.size() == 1) {
            client.deregisterInstance(service, group, before.get(0));
        }
        given.put(name, instances);
    }

    /** There is one connection a namespace. */
    private NamingService client(String namespace) throws Exception {
        NamingService found = clients.get(namespace);
        if (found != null) {
            return found;
        }
        Properties properties = new Properties();
        properties.setProperty(PropertyKeyConst.SERVER_ADDR, options.get("server"));
        properties.setProperty(PropertyKeyConst.NAMESPACE, namespace);
        for (String name : List.of(PropertyKeyConst.USERNAME, PropertyKeyConst.PASSWORD)) {
            if (options.containsKey(name)) {
                properties.setProperty(name, options.get(name));
            }
        }
        NamingService made = NacosFactory.createNamingService(properties);
        long end = System.currentTimeMillis() + CONNECT_MILLIS;
        while (!made.getServerStatus().equals("UP")) {
            if (System.currentTimeMillis() > end) {
                made.shutDown();
                throw new IOException("no connection with " + options.get("server"));
            }
            Thread.sleep(10);
        }
        clients.put(namespace, made);
        return made;
    }

    private static Instance instance(JsonNode order) {
        Instance made = new Instance();
        made.setIp(order.path("ip").asText());
        made.setPort(order.path("port").asInt());
        made.setWeight(order.path("weight").asDouble(1));
        made.setHealthy(order.path("healthy").asBoolean(true));
        made.setEnabled(order.path("enabled").asBoolean(true));
        made.setEphemeral(order.path("ephemeral").asBoolean(true));
        made.setClusterName(order.path("clusterName").asText("DEFAULT"));
        order.path("metadata").fields().forEachRemaining(e -> made.addMetadata(e.getKey(), e.getValue().asText()));
        return made;
    }
}
