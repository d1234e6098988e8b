import ai.dsv.*;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.Function;

/** The tool loop, on the scripted checkpoint. */
public final class ToolTest {
  private static final String SCHEMA = "{\"type\": \"object\", \"properties\": {\"expression\": {\"type\": \"string\"}}, "
      + "\"required\": [\"expression\"]}";

  private static Chat calculator(Model model, Function<Map<String, Object>, Object> function) {
    return new Chat(new Session(model)).addTool("calculator", "Compute an arithmetic expression", SCHEMA, function);
  }

  public static void main(String[] args) {
    Path checkpoint = Path.of(args[0]);

    Check.test("the function is called, its result goes back, the answer streams on", checkpoint, model -> {
      List<Map<String, Object>> called = new ArrayList<>();
      Chat chat = calculator(model, arguments -> {
        called.add(arguments);
        return "42";
      });
      List<EventKind> kinds = new ArrayList<>();
      StringBuilder deltas = new StringBuilder();
      String answer = chat.ask("What is 6 times 7? #calculator", null, event -> {
        if (kinds.isEmpty() || kinds.get(kinds.size() - 1) != event.kind()) kinds.add(event.kind());
        if (event.kind() == EventKind.TOOL_DELTA) deltas.append(event.text());
        if (event.kind() == EventKind.TOOL_END) {
          Check.equal("calculator", event.toolName());
          Check.that(!event.toolId().isEmpty(), "the call has no id");
          Check.equal(event.text(), deltas.toString());
        }
      });
      Check.equal("That is all I know.", answer);
      Check.equal(List.of(Map.of("expression", "6 * 7")), called);
      Check.equal(List.of(EventKind.PREFILL, EventKind.TOOL_BEGIN, EventKind.TOOL_DELTA, EventKind.TOOL_END,
          EventKind.FINISHED, EventKind.PREFILL, EventKind.CONTENT, EventKind.FINISHED), kinds);
      List<Object> roles = new ArrayList<>();
      for (Map<String, Object> message : chat.messages()) roles.add(message.get("role"));
      Check.equal(List.of("user", "assistant", "tool", "assistant"), roles);
      Check.equal("42", chat.messages().get(2).get("content"));
      Check.that(Json.write(chat.messages()).contains("\"arguments\":\"{\\\"expression\\\": \\\"6 * 7\\\"}\""), "" + chat.messages());
    });

    Check.test("polled every frame", checkpoint, model -> {
      int[] calls = new int[1];
      Chat chat = calculator(model, arguments -> ++calls[0]);
      chat.start("#calculator", null);
      StringBuilder said = new StringBuilder();
      while (chat.isRunning()) {
        model.engine().step(500);
        for (Event event; (event = chat.poll()) != null;) {
          if (event.kind() == EventKind.CONTENT) said.append(event.text());
        }
      }
      Check.equal("That is all I know.", said.toString());
      Check.equal(1, calls[0]);
    });

    Check.test("results of every type", checkpoint, model -> {
      Object[][] results = {{"a \"text\" \uD83D\uDC4D", "a \"text\" \uD83D\uDC4D"}, {42, "42"}, {1.5, "1.5"}, {true, "true"},
          {null, "null"}, {List.of(1, "b"), "[1,\"b\"]"}, {Json.object("a", List.of()), "{\"a\":[]}"}};
      for (Object[] result : results) {
        Chat chat = calculator(model, arguments -> result[0]);
        chat.ask("#calculator");
        Check.equal(result[1], chat.messages().get(2).get("content"));
      }
      Chat chat = calculator(model, arguments -> new Object());
      Check.refuses(Status.INVALID_ARGUMENT, () -> chat.ask("#calculator"), "JSON has no java.lang.Object");
      Check.equal(List.of(), chat.messages());
    });

    Check.test("what a function throws comes out", checkpoint, model -> {
      IllegalStateException mine = new IllegalStateException("no electricity");
      Chat chat = calculator(model, arguments -> {
        throw mine;
      });
      chat.ask("#hello");
      Check.equal(mine, Check.thrown(IllegalStateException.class, () -> chat.ask("#calculator")));
      Check.equal(2, chat.messages().size());
      Check.that(!chat.isRunning(), "the answer still runs");
      Check.equal("Hello there!", chat.ask("#hello"));
    });

    Check.test("a function may not use its chat", checkpoint, model -> {
      Chat[] chat = new Chat[1];
      chat[0] = calculator(model, arguments -> chat[0].ask("#hello"));
      Check.refuses(Status.BUSY, () -> chat[0].ask("#calculator"), "a tool of this chat");
      Check.equal("Hello there!", chat[0].ask("#hello"));
    });

    Check.test("a function may use another chat of the same engine", checkpoint, model -> {
      Chat helper = new Chat(new Session(model));
      Chat chat = calculator(model, arguments -> helper.ask("#hello"));
      chat.ask("#calculator");
      Check.equal("Hello there!", chat.messages().get(2).get("content"));
    });

    Check.test("a tool that does not exist is the model's mistake", checkpoint, model -> {
      Chat chat = calculator(model, arguments -> "42");
      Check.equal("That is all I know.", chat.ask("#ghost"));
      Check.equal("error: there is no tool ghost", chat.messages().get(2).get("content"));
    });

    Check.test("the rounds have an end", checkpoint, model -> {
      int[] calls = new int[1];
      Chat chat = calculator(model, arguments -> {
        calls[0]++;
        return "again";
      });
      Check.refuses(Status.UNSUPPORTED, () -> chat.ask("#loop"), "after 8 rounds");
      Check.equal(8, calls[0]);
      Check.equal(List.of(), chat.messages());
    });

    Check.test("stopping at a call does not run it", checkpoint, model -> {
      Chat chat = calculator(model, arguments -> {
        throw new AssertionError("called");
      });
      try (EventStream stream = chat.send("#calculator")) {
        for (Event event : stream) {
          if (event.kind() == EventKind.TOOL_BEGIN) break;
        }
      }
      Check.equal("assistant", chat.messages().get(1).get("role"));
      Check.equal("Hello there!", chat.ask("#hello"));
    });

    Check.test("bad tools", () -> {
      Check.refusesNull("schema is null", () -> new Tool("a", "b", null, arguments -> null));
      Check.refusesNull("name is null", () -> new Tool(null, "b", "{}", arguments -> null));
      Check.refusesNull("function is null", () -> new Tool("a", "b", "{}", null));
      Check.refuses(Status.INVALID_ARGUMENT, () -> new Tool("a", "b", "{", arguments -> null), "this is not JSON");
      Check.refuses(Status.INVALID_ARGUMENT, () -> new Tool("a", "b", "[]", arguments -> null), "not an object");
    });

    Check.finish();
  }
}
