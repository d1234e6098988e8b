import ai.dsv.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/** Text both ways: emoji, NUL, lone surrogates, huge strings, JSON. */
public final class TextTest {
  private static final String GRIN = "\uD83D\uDE00";

  public static void main(String[] args) {
    Path checkpoint = Path.of(args[0]);

    Check.test("emoji and NUL come out of a stream whole", checkpoint, model -> {
      Chat chat = new Chat(new Session(model));
      for (Event event : chat.send("#emoji")) {
        Check.that(event.text().indexOf('\uFFFD') < 0, "a cut character: " + event);
      }
      Check.equal("A hand: \uD83D\uDC4D and that is all.", chat.messages().get(1).get("content"));
      Check.equal("before\0after", chat.ask("#nul"));
    });

    Check.test("emoji and NUL go in", checkpoint, model -> {
      Session session = new Session(model);
      try (Tokenizer tokenizer = model.tokenizer()) {
        for (String text : new String[] {"", "a\0b", GRIN, "x" + GRIN + "\0", "\u00e4\u6f22\uFFFF", "\uD83D\uDC4D\uD83C\uDFFD"}) {
          int[] ids = tokenizer.encode(text);
          Check.equal(text.getBytes(StandardCharsets.UTF_8).length, ids.length); // a token for each byte
          Check.equal(text, new String(tokenizer.decode(ids), StandardCharsets.UTF_8));
          new Chat(session).ask(text + " #hello");
          String held = new String(tokenizer.decode(session.tokens()), StandardCharsets.UTF_8);
          Check.that(held.contains("<｜User｜>" + text + " #hello"), "the session holds " + held);
        }
        byte[] cut = tokenizer.decode(new int[] {tokenizer.encode(GRIN)[0]});
        Check.equal(1, cut.length);
        Check.equal((byte) 0xF0, cut[0]);
      }
    });

    Check.test("lone surrogates are refused", checkpoint, model -> {
      Session session = new Session(model);
      Chat chat = new Chat(session);
      Tokenizer tokenizer = model.tokenizer();
      for (String text : new String[] {"\uD83D", "\uDC4D", "ab\uD83D", "\uD83D\uD83D\uDC4D", "\uDC4D\uD83D"}) {
        Check.refuses(Status.INVALID_ARGUMENT, () -> tokenizer.encode(text), "text has a lone surrogate (U+D", "at index");
        Check.refuses(Status.INVALID_ARGUMENT, () -> chat.ask(text), "lone surrogate");
        Check.equal(List.of(), chat.messages());
        Check.refuses(Status.INVALID_ARGUMENT, () -> new GenerateOptions().addStop(text), "lone surrogate");
        Check.refuses(Status.INVALID_ARGUMENT, () -> Dsv.chatParse(text, 0), "lone surrogate");
      }
      Check.refuses(Status.INVALID_ARGUMENT, () -> tokenizer.encode("ab\uD83D"), "U+D83D", "index 2");
      // Escaped in JSON it is refused by the library.
      Check.refuses(Status.INVALID_ARGUMENT,
          () -> session.chat("{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud83d\"}]}", null));
      Check.equal("Hello there!", chat.ask("#hello"));
    });

    Check.test("huge strings", checkpoint, model -> {
      String huge = GRIN.repeat(500_000); // 2 MB as UTF-8
      Tokenizer tokenizer = model.tokenizer();
      int[] ids = tokenizer.encode(huge);
      Check.equal(2_000_000, ids.length);
      Check.equal(huge, new String(tokenizer.decode(ids), StandardCharsets.UTF_8));
      Chat chat = new Chat(new Session(model));
      DsvException e = Check.thrown(DsvException.class, () -> chat.ask(huge));
      Check.that(e.getMessage().contains("context"), e.getMessage());
      Check.equal(List.of(), chat.messages());
      String parsed = Dsv.chatParse(huge, 0);
      Check.equal(huge, ((Map<?, ?>) Json.parse(parsed)).get("content"));
      Check.equal("Hello there!", chat.ask("#hello"));
    });

    Check.test("JSON both ways", () -> {
      Object[] values = {null, true, 0L, -12L, 1.5, 1e300, "", "\"\\\b\f\n\r\t\0\u001f" + GRIN, List.of(), Map.of(),
          List.of(1L, List.of("a"), Json.object("k", null, "l", Map.of("m", 2L)))};
      for (Object value : values) Check.equal(value, Json.parse(Json.write(value)));
      Check.equal("\uD83D\uDE00/", Json.parse("\"\\uD83D\\ude00\\/\""));
      Check.equal(12345678901234567890.0, Json.parse("12345678901234567890"));
      String[] bad = {"", "{", "[1,]", "{\"a\" 1}", "{a: 1}", "\"\\x\"", "\"\\u12g4\"", "\"\n\"", "01", "1.", "+1", "--1", "nul", "1 2",
          "\"open", "[".repeat(5000), "NaN", "{\"a\":1,}"};
      for (String text : bad) Check.refuses(Status.INVALID_ARGUMENT, () -> Json.parse(text), "this is not JSON, because at index");
      Check.refuses(Status.INVALID_ARGUMENT, () -> Json.write(Double.NaN), "JSON has no NaN");
      Object itself = new java.util.ArrayList<Object>() {
        {
          add(this);
        }
      };
      Check.refuses(Status.INVALID_ARGUMENT, () -> Json.write(itself), "nested too deeply");
      Check.refusesNull("text is null", () -> Json.parse(null));
      Check.refuses(Status.INVALID_ARGUMENT, () -> Json.object("a", 1, "b"), "the last key has no value");
    });

    Check.finish();
  }
}
