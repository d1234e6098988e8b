using System;
using System.Collections.Generic;
using System.Linq;
using System.Text;
using Dsv;

/// <summary>Answers by polling, IEnumerable and listener, on the scripted checkpoint.</summary>
internal static class ChatTest {
  internal static void Run(string checkpoint) {
    Check.Test("polling every frame", checkpoint, model => {
      var chat = new Chat(new Session(model));
      chat.Start("Hi #hello");
      var said = new StringBuilder();
      int frames = 0;
      while (chat.IsRunning) {
        model.Engine.Step(1);
        frames++;
        for (Event e; (e = chat.Poll()) != null;) {
          if (e.Kind == EventKind.Content) said.Append(e.Text);
        }
      }
      Check.Equal("Hello there!", said.ToString());
      Check.That(frames > 1, "a budget of 1 us took all in one frame");
      Check.Equal(null, chat.Poll());
      Check.Equal("[{role=user, content=Hi #hello}, {role=assistant, content=Hello there!}]", chat.Messages);
    });

    Check.Test("two chats share the frames", checkpoint, model => {
      var chats = new[] { new Chat(new Session(model)), new Chat(new Session(model)) };
      var said = new[] { new StringBuilder(), new StringBuilder() };
      chats[0].Start("#hello");
      chats[1].Start("#emoji");
      while (chats.Any(chat => chat.IsRunning)) {
        model.Engine.Step(500);
        for (int i = 0; i < 2; i++) {
          for (Event e; (e = chats[i].Poll()) != null;) {
            if (e.Kind == EventKind.Content) said[i].Append(e.Text);
          }
        }
      }
      Check.Equal("Hello there!", said[0].ToString());
      Check.Equal("A hand: \uD83D\uDC4D and that is all.", said[1].ToString());
    });

    Check.Test("a loop belongs to its own request", checkpoint, model => {
      var session = new Session(model);
      Check.Equal(0, session.Events().Count());
      var chat = new Chat(session);
      var left = chat.Send("#hello").GetEnumerator();
      Check.That(left.MoveNext(), "no event");
      var next = chat.Send("#hello");
      left.Dispose();
      var said = string.Concat(next.Where(e => e.Kind == EventKind.Content).Select(e => e.Text));
      Check.Equal("Hello there!", said);
      Check.Equal(0, session.Events().Count());
    });

    Check.Test("IEnumerable: kinds, usage, once", checkpoint, model => {
      var chat = new Chat(new Session(model), "Be brief.");
      var answer = chat.Send("#hello");
      var events = answer.ToList();
      Check.Equal(EventKind.Prefill, events[0].Kind);
      Event last = events.Last();
      Check.Equal(FinishReason.Stop, last.FinishReason);
      Check.Equal(Status.Ok, last.Status);
      Check.Equal(4, last.CompletionTokens);  // three pieces and the end
      Check.That(last.PromptTokens > 10, "few prompt tokens: " + last.PromptTokens);
      Check.Equal(0, answer.Count());
      Event second = chat.Send("#hello").Last();
      Check.That(second.CachedTokens >= last.PromptTokens, "the first turn was computed again: " + second.CachedTokens);
    });

    Check.Test("leaving a loop early, then asking again", checkpoint, model => {
      var chat = new Chat(new Session(model));
      int contents = 0;
      foreach (Event e in chat.Send("#spin")) {
        if (e.Kind == EventKind.Content && ++contents == 3) break;
      }
      Check.That(!chat.IsRunning, "the answer still runs");
      Check.That(((string)chat.Messages[1]["content"]).StartsWith("and on and on "), "what there was is lost");
      Check.Equal("Hello there!", chat.Ask("#hello"));
      chat.Start("#spin");  // never polled: the next question stops it
      Check.Equal("So be it.", chat.Ask("And now?"));
    });

    Check.Test("listener, and what it throws", checkpoint, model => {
      var chat = new Chat(new Session(model));
      var heard = new List<string>();
      Check.Equal("Hello there!", chat.Ask("#hello", null, e => {
        if (e.Kind == EventKind.Content) heard.Add(e.Text);
      }));
      Check.Equal(new[] { "Hello", " there", "!" }, heard);
      var mine = new InvalidOperationException("enough");
      var thrown = Check.Thrown<InvalidOperationException>(() => chat.Ask("#spin", null, e => {
        if (e.Kind == EventKind.Content) throw mine;
      }));
      Check.That(ReferenceEquals(mine, thrown), "another exception: " + thrown);
      Check.That(!chat.IsRunning, "the answer still runs");
      Check.Equal(0, model.Engine.Step(1000));
      Check.Equal("Hello there!", chat.Ask("#hello"));
    });

    Check.Test("a session's events, and what the loop throws", checkpoint, model => {
      var session = new Session(model);
      const string request = "{\"messages\": [{\"role\": \"user\", \"content\": \"#spin\"}]}";
      session.Chat(request);
      var mine = new InvalidOperationException("enough");
      var thrown = Check.Thrown<InvalidOperationException>(() => {
        foreach (Event e in session.Events()) {
          if (e.Kind == EventKind.Content) throw mine;
        }
      });
      Check.That(ReferenceEquals(mine, thrown), "another exception: " + thrown);
      Check.Equal(0, model.Engine.Step(1000));
      long number = session.Chat(request.Replace("#spin", "#hello"));
      var events = session.Events().ToList();
      Check.That(events.All(e => e.Request == number), "events of another request");
      Check.Equal("Hello there!", string.Concat(events.Select(e => e.Text)));
      Check.That(session.Tokens().Length >= 6, "the session holds no tokens");
    });

    Check.Test("thinking", checkpoint, model => {
      var chat = new Chat(new Session(model));
      var events = chat.Send("#think", new GenerateOptions { Thinking = true }).ToList();
      Check.Equal("Hmm, hmm.", string.Concat(events.Where(e => e.Kind == EventKind.Reasoning).Select(e => e.Text)));
      Check.That(events.Last().ReasoningTokens >= 2, "reasoning tokens: " + events.Last().ReasoningTokens);
      Check.Equal("So be it.", chat.Messages[1]["content"]);
      Check.Equal("Hmm, hmm.", chat.Messages[1]["reasoning_content"]);
    });

    Check.Test("options: length, stop strings, bias, log probabilities", checkpoint, model => {
      var session = new Session(model);
      Check.Equal("Hello there", new Chat(session).Ask("#hello", new GenerateOptions { MaxTokens = 2 }, e => {
        if (e.Kind == EventKind.Finished) Check.Equal(FinishReason.Length, e.FinishReason);
      }));
      var stops = new GenerateOptions();
      stops.AddStop("on and");
      stops.AddStop("\uD83D\uDC4D");
      Check.Equal("and ", new Chat(session).Ask("#spin", stops, e => {
        if (e.Kind == EventKind.Finished) Check.Equal(FinishReason.StopString, e.FinishReason);
      }));
      Check.Equal("A hand: ", new Chat(session).Ask("#emoji", stops));

      var counted = new GenerateOptions { Logprobs = 2, Temperature = 0 };
      var tokens = new Chat(session).Send("#hello", counted).Where(e => e.Kind == EventKind.Token).ToList();
      Check.Equal(4, tokens.Count);
      foreach (Event token in tokens) {
        Check.Equal(2, token.Top.Count);
        Check.Equal(token.Token, token.Top[0].Token);
        Check.That(token.Logprob <= 0 && token.Logprob > -0.01f, "log probability " + token.Logprob);
      }
      counted.AddLogitBias(tokens[0].Token, float.NegativeInfinity);
      Check.That(!new Chat(session).Ask("#hello", counted).StartsWith("Hello"), "the bias did nothing");
    });

    Check.Test("raw tokens and logits", checkpoint, model => {
      var session = new Session(model);
      using (var tokenizer = model.Tokenizer()) {
        int[] prompt = tokenizer.Encode("#hello<｜Assistant｜></think>");
        Check.Equal(1, prompt.Length);
        session.Complete(prompt);
        Check.Equal("Hello there!", string.Concat(session.Events().Select(e => e.Text)));
        float[] logits = session.Logits(prompt, 0, 1);
        Check.Equal(model.Info().VocabSize, logits.Length);
        int best = Array.IndexOf(logits, logits.Max());
        Check.Equal("Hello", Encoding.UTF8.GetString(tokenizer.Decode(new[] { best })));
      }
    });

    Check.Test("encode and parse", () => {
      string prompt = Library.ChatEncode("{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}", thinking: true);
      Check.Equal("<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜><think>", prompt);
      var message = (Dictionary<string, object>)Json.Parse(Library.ChatParse("Hmm</think>Yes", thinking: true));
      Check.Equal("Hmm", message["reasoning_content"]);
      Check.That(Library.Version > 0 && Library.HasFeature("backend.cpu") && !Library.HasFeature("flying"), Library.BuildInfo);
      Check.That(Library.CpuTargets.Length > 0, "no CPU targets");
    });
  }
}
