import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** Java's own HttpClient, which offers HTTP/2 in every request: `java Client.java ORIGIN`. */
class Client {
  public static void main(String[] args) throws Exception {
    String body = "{\"prompt\": \"Once upon a time\", \"length\": 16, \"steps\": 4, \"seed\": 1}";
    HttpRequest request = HttpRequest.newBuilder(URI.create(args[0] + "/generate"))
        .header("Content-Type", "application/json")
        .POST(HttpRequest.BodyPublishers.ofString(body))
        .build();
    HttpClient client = HttpClient.newHttpClient();
    for (int i = 0; i < 2; i++) {
      HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
      if (response.statusCode() != 200) throw new AssertionError(response.body());
    }
    String done = "POST /generate twice, with HTTP/2 offered";
    System.out.println("{\"client\": \"HttpClient\", \"language\": \"Java\", \"version\": \""
        + System.getProperty("java.version") + "\", \"done\": \"" + done + "\"}");
  }
}
