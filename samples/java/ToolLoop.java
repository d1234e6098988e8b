// Functions that the model may call: it asks, they run here, and it answers from what they return.
//   java -cp dsv.jar ToolLoop.java "What is 123 times 456?" [CHECKPOINT]
import ai.dsv.*;
import java.io.PrintStream;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.LocalDateTime;

public class ToolLoop {
  /** "number operator number". A failure is a result too: the model reads it and can do something about it. */
  static String calculate(String expression) {
    String[] part = expression.trim().split("\\s+");
    try {
      BigDecimal a = new BigDecimal(part[0]), b = new BigDecimal(part[2]);
      return switch (part[1]) {
        case "+" -> a.add(b).toPlainString();
        case "-" -> a.subtract(b).toPlainString();
        case "*" -> a.multiply(b).toPlainString();
        case "/" -> a.divide(b, java.math.MathContext.DECIMAL32).toPlainString();
        default -> "error: there is no operator " + part[1];
      };
    } catch (RuntimeException e) {
      return "error: write it as number operator number, such as 12 * 3";
    }
  }

  public static void main(String[] args) {
    PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    Path checkpoint = args.length > 1 ? Path.of(args[1]) : Dsv.bundledCheckpoint();
    GenerateOptions options = new GenerateOptions();
    options.setTemperature(0);
    options.setMaxTokens(400);

    try (Engine engine = new Engine(); Model model = new Model(engine, checkpoint); Session session = new Session(model)) {
      Chat chat = new Chat(session)
          .addTool("clock", "Tell the current date and time", "{\"type\": \"object\", \"properties\": {}, \"required\": []}",
              arguments -> LocalDateTime.now().withNano(0).toString())
          .addTool("calculator", "Compute an arithmetic expression", """
              {"type": "object", "required": ["expression"], "properties":
                {"expression": {"type": "string", "description": "The expression, such as 12 * (3 + 4)"}}}""",
              arguments -> calculate(String.valueOf(arguments.get("expression"))));
      for (Event event : chat.send(args.length > 0 ? args[0] : "What is 123 times 456?", options)) {
        if (event.kind() == EventKind.CONTENT) out.print(event.text());
        if (event.kind() == EventKind.TOOL_END) out.println("[" + event.toolName() + " " + event.text() + "]");
      }
      out.println();
    }
  }
}
