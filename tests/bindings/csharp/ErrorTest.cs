using System;
using System.IO;
using System.Linq;
using Dsv;

/// <summary>Every failure is an exception with its status and a sentence that says what to do.</summary>
internal static class ErrorTest {
  private const string Hello = "{\"messages\": [{\"role\": \"user\", \"content\": \"#hello\"}]}";

  internal static void Run(string checkpoint) {
    Check.Test("files", () => {
      using (var engine = new Engine()) {
        Check.Refuses(Status.Io, () => new Model(engine, "no-such-folder"), "no-such-folder");
        Check.Refuses(Status.Io, () => engine.Plan("no-such-folder"), "no-such-folder");
        Check.Refuses(Status.Io, () => engine.Inspect("no-such-folder"), "no-such-folder");
        Check.Refuses(Status.Io, () => new Tokenizer("no-such-file"), "no-such-file");
        Check.Refuses(Status.InvalidArgument, () => new Tokenizer("a\0b"), "NUL");
        string broken = Path.Combine(Path.GetTempPath(), "dsv-test-" + Guid.NewGuid());
        Directory.CreateDirectory(broken);
        string config = Path.Combine(broken, "config.json");
        File.WriteAllText(config, "{\"model_type\": ");
        Check.Refuses(Status.InvalidFile, () => new Model(engine, broken), "config.json");
        Check.Refuses(Status.InvalidFile, () => new Tokenizer(config), "config.json");
        Directory.Delete(broken, true);
        using (Model model = Model.Start(engine, "no-such-folder")) {
          Check.Refuses(Status.Io, () => model.Wait(TimeSpan.FromMinutes(1)), "no-such-folder");
          Check.Refuses(Status.Io, () => model.Progress(), "no-such-folder");
          Check.Refuses(Status.NotReady, () => new Session(model));
        }
      }
      Check.Equal(0, Library.LiveHandles().Models);
    });

    Check.Test("loading in the background", () => {
      using (var engine = new Engine())
      using (Model model = Model.Start(engine, checkpoint)) {
        while (!model.Wait(TimeSpan.FromMilliseconds(1))) Check.That(model.Progress().State <= LoadState.Ready, "it failed");
        LoadProgress progress = model.Progress();
        Check.Equal(LoadState.Ready, progress.State);
        Check.Equal(progress.Total, progress.Done);
        model.CancelLoad();  // too late: nothing happens
        Check.Equal("Hello there!", new Chat(new Session(model)).Ask("#hello"));
      }
    });

    Check.Test("plans and numbers", checkpoint, model => {
      Engine engine = model.Engine;
      MemoryPlan plan = engine.Plan(checkpoint);
      Check.Equal(plan.TotalBytes, plan.WeightBytes + plan.WeightCopyBytes + plan.KvPoolBytes + plan.ScratchBytes);
      Check.That(engine.Inspect(checkpoint).Contains("\"lm_head.weight\""), "no lm_head");
      ModelInfo info = model.Info();
      Check.That(info.HasChat && !info.HasMtp && info.EosToken == 1 && info.Precision == Precision.Official, "info");
      Check.That(model.Memory().KvPagesTotal > 0, "no pages");
      Check.Refuses(Status.Budget, () => new Model(engine, checkpoint, new ModelOptions { WeightBudgetBytes = 1000 }),
          "weight_budget_bytes");
      var raw = new ModelOptions { ChatProfile = "none", ContextTokens = 64, Precision = Precision.Exact };
      Check.Equal("none", raw.ChatProfile);
      Check.Equal(Precision.Exact, raw.Precision);
      using (var tokensOnly = new Model(engine, checkpoint, raw)) {
        Check.Equal(64, tokensOnly.Info().ContextTokens);
        Check.Equal(Precision.Exact, tokensOnly.Info().Precision);
        Check.Refuses(Status.Unsupported, () => new Chat(new Session(tokensOnly)).Ask("Hi"));
      }
    });

    Check.Test("options out of range", checkpoint, model => {
      var session = new Session(model);
      Check.Refuses(Status.InvalidArgument, () => session.Chat(Hello, new GenerateOptions { TopP = 2 }), "top_p");
      Check.Refuses(Status.InvalidArgument, () => session.Chat(Hello, new GenerateOptions { Temperature = float.NaN }), "temperature");
      Check.Refuses(Status.InvalidArgument, () => session.Chat(Hello, new GenerateOptions { ToolChoice = (ToolChoice)9 }), "tool_choice");
      var stops = new GenerateOptions();
      for (int i = 0; i < 17; i++) stops.AddStop("x" + i);
      Check.Refuses(Status.InvalidArgument, () => session.Chat(Hello, stops), "stop");
      Check.Refuses(Status.Unsupported, () => new Engine(new EngineOptions { Backend = "abacus" }), "abacus");
      Check.Refuses(Status.InvalidArgument, () => new EngineOptions { Backend = "a\0b" }, "NUL");
      Check.Refuses(Status.InvalidArgument, () => new Engine(new EngineOptions { Threads = -1 }), "threads");
      using (new Engine(new EngineOptions { Backend = "" })) {}
    });

    Check.Test("requests", checkpoint, model => {
      var session = new Session(model);
      foreach (string bad in new[] { "", "{", "[]", "{}", "{\"messages\": 1}", "{\"messages\": [{\"role\": \"king\"}]}", "\0" }) {
        Check.Refuses(Status.InvalidArgument, () => session.Chat(bad));
      }
      Check.Refuses(Status.InvalidArgument, () => session.Complete(new[] { -1 }), "-1");
      Check.Refuses(Status.InvalidArgument, () => session.Complete(new[] { 1 << 30 }));
      Check.Refuses(Status.InvalidArgument, () => session.Complete(new int[0]));
      Check.Refuses(Status.InvalidArgument, () => session.Logits(new[] { 5 }, 0, 2));
      Check.Refuses(Status.InvalidArgument, () => session.Logits(new[] { 5 }, -1, 1));
      Check.Refuses(Status.InvalidArgument, () => session.Logits(new[] { 5 }, 0, long.MaxValue));
      Check.Refuses(Status.InvalidArgument, () => session.Logits(new[] { 5 }, 0, 1, (LogitsSource)7), "source");
      Check.Refuses(Status.InvalidArgument, () => model.Tokenizer().Decode(new[] { -5 }));
      session.Chat(Hello);
      Check.Refuses(Status.Busy, () => session.Chat(Hello));
      Check.Equal(EventKind.Finished, session.Events().Last().Kind);
    });

    Check.Test("null", checkpoint, model => {
      var session = new Session(model);
      var chat = new Chat(session);
      Check.RefusesNull("engine", () => new Model(null, checkpoint));
      Check.RefusesNull("path", () => new Model(model.Engine, null));
      Check.RefusesNull("model", () => new Session(null));
      Check.RefusesNull("path", () => new Tokenizer(null));
      Check.RefusesNull("session", () => new Chat(null));
      Check.RefusesNull("tool", () => chat.AddTool(null));
      Check.RefusesNull("text", () => chat.Ask(null));
      Check.RefusesNull("request", () => session.Chat(null));
      Check.RefusesNull("tokens", () => session.Complete(null));
      Check.RefusesNull("ids", () => model.Tokenizer().Decode(null));
      Check.RefusesNull("text", () => model.Tokenizer().Encode(null));
      Check.RefusesNull("text", () => new GenerateOptions().AddStop(null));
      Check.RefusesNull("name", () => Library.HasFeature(null));
      Check.Thrown<ArgumentNullException>(() => Library.ChatEncode(null));
      Check.Thrown<ArgumentNullException>(() => new EngineOptions { Backend = null });
      Check.Equal("Hello there!", chat.Ask("#hello"));
    });
  }
}
