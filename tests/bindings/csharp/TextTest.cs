using System.Collections.Generic;
using System.Linq;
using System.Text;
using Dsv;

/// <summary>Text both ways: emoji, NUL, lone surrogates, huge strings, JSON.</summary>
internal static class TextTest {
  private const string Grin = "\uD83D\uDE00";

  internal static void Run(string checkpoint) {
    Check.Test("emoji and NUL come out of a stream whole", checkpoint, model => {
      var chat = new Chat(new Session(model));
      foreach (Event e in chat.Send("#emoji")) Check.That(e.Text.IndexOf('\uFFFD') < 0, "a cut character: " + e);
      Check.Equal("A hand: \uD83D\uDC4D and that is all.", chat.Messages[1]["content"]);
      Check.Equal("before\0after", chat.Ask("#nul"));
    });

    Check.Test("emoji and NUL go in", checkpoint, model => {
      var session = new Session(model);
      using (var tokenizer = model.Tokenizer()) {
        foreach (string text in new[] { "", "a\0b", Grin, "x" + Grin + "\0", "\u00e4\u6f22\uFFFF", "\uD83D\uDC4D\uD83C\uDFFD" }) {
          int[] ids = tokenizer.Encode(text);
          Check.Equal(Encoding.UTF8.GetByteCount(text), ids.Length);  // a token for each byte
          Check.Equal(text, Encoding.UTF8.GetString(tokenizer.Decode(ids)));
          new Chat(session).Ask(text + " #hello");
          string held = Encoding.UTF8.GetString(tokenizer.Decode(session.Tokens()));
          Check.That(held.Contains("<｜User｜>" + text + " #hello"), "the session holds " + held);
        }
        byte[] cut = tokenizer.Decode(new[] { tokenizer.Encode(Grin)[0] });
        Check.Equal(new byte[] { 0xF0 }, cut);
      }
    });

    Check.Test("lone surrogates are refused", checkpoint, model => {
      var session = new Session(model);
      var chat = new Chat(session);
      Tokenizer tokenizer = model.Tokenizer();
      foreach (string text in new[] { "\uD83D", "\uDC4D", "ab\uD83D", "\uD83D\uD83D\uDC4D", "\uDC4D\uD83D" }) {
        Check.Refuses(Status.InvalidArgument, () => tokenizer.Encode(text), "text has a lone surrogate (U+D", "at index");
        Check.Refuses(Status.InvalidArgument, () => chat.Ask(text), "lone surrogate");
        Check.Equal(0, chat.Messages.Count);
        Check.Refuses(Status.InvalidArgument, () => new GenerateOptions().AddStop(text), "lone surrogate");
        Check.Refuses(Status.InvalidArgument, () => Library.ChatParse(text), "lone surrogate");
        Check.Refuses(Status.InvalidArgument, () => new EngineOptions { Backend = text }, "lone surrogate");
      }
      Check.Refuses(Status.InvalidArgument, () => tokenizer.Encode("ab\uD83D"), "U+D83D", "index 2");
      // Escaped in JSON it is refused by the library.
      Check.Refuses(Status.InvalidArgument,
          () => session.Chat("{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud83d\"}]}"));
      Check.Equal("Hello there!", chat.Ask("#hello"));
    });

    Check.Test("huge strings", checkpoint, model => {
      string huge = string.Concat(Enumerable.Repeat(Grin, 500000));  // 2 MB as UTF-8
      Tokenizer tokenizer = model.Tokenizer();
      int[] ids = tokenizer.Encode(huge);
      Check.Equal(2000000, ids.Length);
      Check.That(huge == Encoding.UTF8.GetString(tokenizer.Decode(ids)), "the text changed");
      var chat = new Chat(new Session(model));
      var e = Check.Thrown<DsvException>(() => chat.Ask(huge));
      Check.That(e.Message.Contains("context"), e.Message);
      Check.Equal(0, chat.Messages.Count);
      var parsed = (Dictionary<string, object>)Json.Parse(Library.ChatParse(huge));
      Check.That(huge == (string)parsed["content"], "the text changed");
      Check.Equal("Hello there!", chat.Ask("#hello"));
    });

    Check.Test("JSON both ways", () => {
      foreach (string text in new[] { "null", "true", "0", "-12", "1.5", "1E+300", "\"\"", "[]", "{}",
                                      "\"\\\"\\\\\\u0008\\u0000\\u001f" + Grin + "\"", "[1,[\"a\"],{\"k\":null,\"l\":{\"m\":2}}]" }) {
        Check.Equal(text, Json.Write(Json.Parse(text)));
      }
      Check.Equal("\b\f\n\r\t", Json.Parse("\"\\b\\f\\n\\r\\t\""));
      Check.Equal("\uD83D\uDE00/", Json.Parse("\"\\uD83D\\ude00\\/\""));
      Check.Equal(12345678901234567890.0, Json.Parse("12345678901234567890"));
      foreach (string text in new[] { "", "{", "[1,]", "{\"a\" 1}", "{a: 1}", "\"\\x\"", "\"\\u12g4\"", "\"\\u 123\"", "\"\n\"", "01",
                                      "1.", "+1", "--1", "nul", "1 2", "\"open", new string('[', 5000), "NaN", "{\"a\":1,}", "1\n2" }) {
        Check.Refuses(Status.InvalidArgument, () => Json.Parse(text), "this is not JSON, because at index");
      }
      Check.Refuses(Status.InvalidArgument, () => Json.Write(double.NaN), "no NaN");
      var itself = new List<object>();
      itself.Add(itself);
      Check.Refuses(Status.InvalidArgument, () => Json.Write(itself), "nested too deeply");
      Check.RefusesNull("text", () => Json.Parse(null));
    });

    Check.Test("numbers in every culture", () => {
      System.Globalization.CultureInfo before = System.Globalization.CultureInfo.CurrentCulture;
      try {
        var comma = (System.Globalization.CultureInfo)System.Globalization.CultureInfo.InvariantCulture.Clone();
        comma.NumberFormat.NumberDecimalSeparator = ",";
        comma.NumberFormat.NegativeSign = "~";
        System.Globalization.CultureInfo.CurrentCulture = comma;
        Check.Equal("[-1.5,-2,0.1]", Json.Write(Json.Parse("[-1.5,-2,0.1]")));
        Check.Equal("[-1,-0.5]", Json.Write(new object[] { -1, -0.5m }));
      } finally {
        System.Globalization.CultureInfo.CurrentCulture = before;
      }
    });
  }
}
