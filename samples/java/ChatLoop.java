// A chat in the terminal: type a line, read the answer as it comes; Ctrl-D leaves.
//   java -cp dsv.jar ChatLoop.java [CHECKPOINT]
import ai.dsv.*;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;

public class ChatLoop {
  public static void main(String[] args) throws IOException {
    PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    Path checkpoint = args.length > 0 ? Path.of(args[0]) : Dsv.bundledCheckpoint();
    GenerateOptions options = new GenerateOptions();
    options.setTemperature(0.7f);
    options.setMaxTokens(400);

    try (Engine engine = new Engine(); Model model = new Model(engine, checkpoint); Session session = new Session(model)) {
      Chat chat = new Chat(session).system("You are friendly and brief."); // it remembers the whole conversation
      for (String line; (line = in.readLine()) != null;) {
        try {
          for (Event event : chat.send(line, options)) {
            switch (event.kind()) {
              case CONTENT -> out.print(event.text());
              case FINISHED -> out.printf("%n[%s, %d tokens]%n", event.finishReason(), event.completionTokens());
              default -> {}
            }
          }
        } catch (DsvException e) {
          out.println(e.status() + ": " + e.getMessage()); // the chat is as it was before the line
        }
      }
    }
  }
}
