// Java's HttpClient: reads requests as lines (see cases.py), writes one line per answer. `java Client.java URL VERSION CA`.

import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.Base64;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class Client {
    private static final String BOUNDARY = "dimml-8f14e45fceea167a";

    public static void main(String[] arguments) throws Exception {
        var builder = HttpClient.newBuilder().version(HttpClient.Version.valueOf(arguments[1]));
        if (arguments.length > 2 && !arguments[2].isEmpty()) {
            builder.sslContext(trusting(Path.of(arguments[2])));
        }
        var client = builder.build();
        var lines = new BufferedReader(new InputStreamReader(System.in));
        for (var line = lines.readLine(); line != null; line = lines.readLine()) {
            var parts = line.split("\t", -1);
            var status = 0;
            var version = "";
            byte[] body;
            try {
                var answer = client.send(request(arguments[0], parts), HttpResponse.BodyHandlers.ofByteArray());
                status = answer.statusCode();
                version = answer.version().toString();
                body = answer.body();
            } catch (IOException error) {
                body = error.toString().getBytes();
            }
            System.out.println(String.join(
                "\t", parts[0], String.valueOf(status), version, Base64.getEncoder().encodeToString(body)));
        }
    }

    private static HttpRequest request(String base, String[] parts) throws IOException {
        var request = HttpRequest.newBuilder(URI.create(base + parts[2]));
        if (parts[3].isEmpty()) {
            return request.build();
        }
        var content = form(Path.of(parts[3]), parts[4]);
        // A stream has no length that is known, so that it is sent in chunks.
        request.POST(parts[5].contains("chunked")
            ? BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(content))
            : BodyPublishers.ofByteArray(content));
        request.expectContinue(parts[5].contains("expect"));
        request.timeout(Duration.ofSeconds(20));
        return request.header("Content-Type", "multipart/form-data; boundary=" + BOUNDARY).build();
    }

    private static byte[] form(Path file, String fields) throws IOException {
        var content = new ByteArrayOutputStream();
        var disposition = "--" + BOUNDARY + "\r\nContent-Disposition: form-data; name=\"";
        for (var field : fields.isEmpty() ? new String[0] : fields.split("&")) {
            var pair = field.split("=", 2);
            content.write((disposition + pair[0] + "\"\r\n\r\n" + pair[1] + "\r\n").getBytes());
        }
        content.write((disposition + "media\"; filename=\"" + file.getFileName() + "\"\r\n\r\n").getBytes());
        content.write(Files.readAllBytes(file));
        content.write(("\r\n--" + BOUNDARY + "--\r\n").getBytes());
        return content.toByteArray();
    }

    private static SSLContext trusting(Path authority) throws Exception {
        var store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (var file = Files.newInputStream(authority)) {
            store.setCertificateEntry("authority", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        var managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(store);
        var context = SSLContext.getInstance("TLS");
        context.init(null, managers.getTrustManagers(), null);
        return context;
    }
}
