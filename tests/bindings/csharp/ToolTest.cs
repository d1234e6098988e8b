using System;
using System.Collections.Generic;
using System.Linq;
using System.Text;
using Dsv;

/// <summary>The tool loop, on the scripted checkpoint.</summary>
internal static class ToolTest {
  private const string Schema = "{\"type\": \"object\", \"properties\": {\"expression\": {\"type\": \"string\"}}, " +
                                "\"required\": [\"expression\"]}";

  private static Chat Calculator(Model model, Func<IDictionary<string, object>, object> function) {
    var chat = new Chat(new Session(model));
    chat.AddTool("calculator", "Compute an arithmetic expression", Schema, function);
    return chat;
  }

  internal static void Run(string checkpoint) {
    Check.Test("the function is called, its result goes back, the answer streams on", checkpoint, model => {
      var called = new List<IDictionary<string, object>>();
      Chat chat = Calculator(model, arguments => {
        called.Add(arguments);
        return "42";
      });
      var kinds = new List<EventKind>();
      var deltas = new StringBuilder();
      string answer = chat.Ask("What is 6 times 7? #calculator", null, e => {
        if (kinds.Count == 0 || kinds.Last() != e.Kind) kinds.Add(e.Kind);
        if (e.Kind == EventKind.ToolDelta) deltas.Append(e.Text);
        if (e.Kind == EventKind.ToolEnd) {
          Check.Equal("calculator", e.ToolName);
          Check.That(e.ToolId.Length > 0, "the call has no id");
          Check.Equal(e.Text, deltas.ToString());
        }
      });
      Check.Equal("That is all I know.", answer);
      Check.Equal("[{expression=6 * 7}]", called);
      Check.Equal(new[] { EventKind.Prefill, EventKind.ToolBegin, EventKind.ToolDelta, EventKind.ToolEnd, EventKind.Finished,
                          EventKind.Prefill, EventKind.Content, EventKind.Finished }, kinds);
      Check.Equal("[user, assistant, tool, assistant]", chat.Messages.Select(message => message["role"]));
      Check.Equal("42", chat.Messages[2]["content"]);
      Check.That(Json.Write(chat.Messages).Contains("\"arguments\":\"{\\\"expression\\\": \\\"6 * 7\\\"}\""), Json.Write(chat.Messages));
    });

    Check.Test("polled every frame", checkpoint, model => {
      int calls = 0;
      Chat chat = Calculator(model, arguments => ++calls);
      chat.Start("#calculator");
      var said = new StringBuilder();
      while (chat.IsRunning) {
        model.Engine.Step(500);
        for (Event e; (e = chat.Poll()) != null;) {
          if (e.Kind == EventKind.Content) said.Append(e.Text);
        }
      }
      Check.Equal("That is all I know.", said.ToString());
      Check.Equal(1, calls);
    });

    Check.Test("results of every type", checkpoint, model => {
      var results = new Dictionary<string, object> {
        { "a \"text\" \uD83D\uDC4D", "a \"text\" \uD83D\uDC4D" }, { "42", 42 }, { "1.5", 1.5 }, { "true", true },
        { "[1,\"b\"]", new object[] { 1, "b" } },
        { "{\"a\":[]}", new Dictionary<string, object> { { "a", new int[0] } } }
      };
      foreach (var result in results) {
        Chat chat = Calculator(model, arguments => result.Value);
        chat.Ask("#calculator");
        Check.Equal(result.Key, chat.Messages[2]["content"]);
      }
      Chat nothing = Calculator(model, arguments => null);
      nothing.Ask("#calculator");
      Check.Equal("null", nothing.Messages[2]["content"]);
      Chat strange = Calculator(model, arguments => new object());
      Check.Refuses(Status.InvalidArgument, () => strange.Ask("#calculator"), "JSON has no System.Object");
      Check.Equal(0, strange.Messages.Count);
    });

    Check.Test("what a function throws comes out", checkpoint, model => {
      var mine = new InvalidOperationException("no electricity");
      Chat chat = Calculator(model, arguments => { throw mine; });
      chat.Ask("#hello");
      var thrown = Check.Thrown<InvalidOperationException>(() => chat.Ask("#calculator"));
      Check.That(ReferenceEquals(mine, thrown), "another exception: " + thrown);
      Check.Equal(2, chat.Messages.Count);
      Check.That(!chat.IsRunning, "the answer still runs");
      Check.Equal("Hello there!", chat.Ask("#hello"));
    });

    Check.Test("a function may not use its chat", checkpoint, model => {
      Chat chat = null;
      chat = Calculator(model, arguments => chat.Ask("#hello"));
      Check.Refuses(Status.Busy, () => chat.Ask("#calculator"), "a tool of this chat");
      Check.Equal("Hello there!", chat.Ask("#hello"));
    });

    Check.Test("a function may use another chat of the same engine", checkpoint, model => {
      var helper = new Chat(new Session(model));
      Chat chat = Calculator(model, arguments => helper.Ask("#hello"));
      chat.Ask("#calculator");
      Check.Equal("Hello there!", chat.Messages[2]["content"]);
    });

    Check.Test("a tool that does not exist is the model's mistake", checkpoint, model => {
      Chat chat = Calculator(model, arguments => "42");
      Check.Equal("That is all I know.", chat.Ask("#ghost"));
      Check.Equal("error: there is no tool ghost", chat.Messages[2]["content"]);
    });

    Check.Test("the rounds have an end", checkpoint, model => {
      int calls = 0;
      Chat chat = Calculator(model, arguments => {
        calls++;
        return "again";
      });
      Check.Refuses(Status.Unsupported, () => chat.Ask("#loop"), "after 8 rounds");
      Check.Equal(8, calls);
      Check.Equal(0, chat.Messages.Count);
    });

    Check.Test("stopping at a call does not run it", checkpoint, model => {
      Chat chat = Calculator(model, arguments => { throw new InvalidOperationException("called"); });
      foreach (Event e in chat.Send("#calculator")) {
        if (e.Kind == EventKind.ToolBegin) break;
      }
      Check.Equal("assistant", chat.Messages[1]["role"]);
      Check.Equal("Hello there!", chat.Ask("#hello"));
    });

    Check.Test("the collector may run while a function is registered", checkpoint, model => {
      Chat chat = Calculator(model, new Func<IDictionary<string, object>, object>(new Answer("42").Call));
      for (int i = 0; i < 20; i++) {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        Check.Equal("That is all I know.", chat.Ask("#calculator", null, e => GC.Collect()));
      }
    });

    Check.Test("bad tools", () => {
      Check.RefusesNull("schema", () => new Tool("a", "b", null, arguments => null));
      Check.RefusesNull("name", () => new Tool(null, "b", "{}", arguments => null));
      Check.RefusesNull("function", () => new Tool("a", "b", "{}", null));
      Check.Refuses(Status.InvalidArgument, () => new Tool("a", "b", "{", arguments => null), "this is not JSON");
      Check.Refuses(Status.InvalidArgument, () => new Tool("a", "b", "[]", arguments => null), "not an object");
    });
  }

  private sealed class Answer {
    private readonly string text;

    internal Answer(string text) {
      this.text = text;
    }

    internal object Call(IDictionary<string, object> arguments) {
      return text;
    }
  }
}
