package io.diolkos.testbed.eureka;

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.List;

import org.springframework.context.ConfigurableApplicationContext;

/**
 * Runs a server and a client for a moment, so that the virtual machine can write down the classes that both load
 * (-XX:ArchiveClassesAtExit): with them each starts in about half the time.
 */
public final class Train {
    public static void main(String[] arguments) throws Exception {
        ConfigurableApplicationContext server = Server.start("--server.port=0");
        String eureka = "http://127.0.0.1:" + server.getEnvironment().getProperty("local.server.port") + "/eureka";
        Client.main(new String[] {"eureka=" + eureka, "control=0", "app=train", "ip=127.0.0.1"});
        HttpClient http = HttpClient.newHttpClient();
        for (String path : List.of("/apps", "/apps/delta", "/apps/train")) {
            for (String type : List.of("application/json", "application/xml")) {
                HttpRequest request = HttpRequest.newBuilder(URI.create(eureka + path)).header("Accept", type).build();
                HttpResponse<String> response = http.send(request, HttpResponse.BodyHandlers.ofString());
                if (response.statusCode() != 200) {
                    throw new IllegalStateException(path + " answered " + response.statusCode());
                }
            }
        }
        System.exit(0);
    }

    private Train() {
    }
}
