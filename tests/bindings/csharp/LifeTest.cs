using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using Dsv;

/// <summary>Disposing in any order, using after it, leaving it to the collector.</summary>
internal static class LifeTest {
  private const string Spin = "{\"messages\": [{\"role\": \"user\", \"content\": \"#spin\"}]}";

  private static string Live() {
    HandleCounts counts = Library.LiveHandles();
    return string.Join(" ", counts.Engines, counts.Models, counts.Sessions, counts.Tokenizers);
  }

  internal static void Run(string checkpoint) {
    Check.Test("use after disposal", () => {
      var engine = new Engine();
      var model = new Model(engine, checkpoint);
      var session = new Session(model);
      Tokenizer tokenizer = model.Tokenizer();
      var chat = new Chat(session);
      for (int i = 0; i < 2; i++) session.Dispose();  // twice is fine
      Check.That(session.IsClosed, "not closed");
      Check.Refuses(Status.InvalidArgument, () => session.Poll(), "this session is closed");
      Check.Refuses(Status.InvalidArgument, () => session.Tokens(), "this session is closed");
      Check.Refuses(Status.InvalidArgument, session.Cancel, "this session is closed");
      Check.Refuses(Status.InvalidArgument, () => chat.Ask("Hi"), "this session is closed");
      Check.Refuses(Status.InvalidArgument, chat.Cancel, "this session is closed");
      Check.Equal(0, chat.Messages.Count);
      tokenizer.Dispose();
      Check.Refuses(Status.InvalidArgument, () => tokenizer.Encode("a"), "this tokenizer is closed");
      model.Dispose();
      Check.Refuses(Status.InvalidArgument, () => model.Info(), "this model is closed");
      Check.Refuses(Status.InvalidArgument, () => new Session(model), "this model is closed");
      engine.Dispose();
      Check.Refuses(Status.InvalidArgument, () => engine.Step(1), "this engine is closed");
      Check.Refuses(Status.InvalidArgument, () => new Model(engine, checkpoint), "this engine is closed");
      Check.Equal("0 0 0 0", Live());
    });

    Check.Test("every order of disposal, with a request running", () => {
      var random = new Random(1);
      for (int i = 0; i < 40; i++) {
        var engine = new Engine();
        var model = new Model(engine, checkpoint);
        var session = new Session(model);
        session.Chat(Spin);
        engine.Step(1000);
        var handles = new List<IDisposable> { engine, model, session, model.Tokenizer() };
        foreach (IDisposable handle in handles.OrderBy(handle => random.Next()).ToList()) handle.Dispose();
        Check.Equal("0 0 0 0", Live());
      }
    });

    Check.Test("disposed in its own loop and by its own tool", checkpoint, model => {
      var session = new Session(model);
      Check.Refuses(Status.InvalidArgument, () => new Chat(session).Ask("#spin", null, e => session.Dispose()),
          "this session is closed");
      var second = new Session(model);
      var chat = new Chat(second);
      chat.AddTool("calculator", "Compute", "{}", arguments => {
        second.Dispose();
        return "42";
      });
      Check.Refuses(Status.InvalidArgument, () => chat.Ask("#calculator"), "this session is closed");
      Check.That(!chat.IsRunning, "the answer still runs");
    });

    Check.Test("the collector closes what nobody disposed of", () => {
      // On a thread of its own: mono's collector takes what lies on a stack for references.
      var forgetful = new Thread(() => {
        for (int i = 0; i < 10; i++) {
          var model = new Model(new Engine(), checkpoint);
          model.Tokenizer();
          foreach (Event e in new Chat(new Session(model)).Send("#spin")) {
            if (e.Kind == EventKind.Content) break;
          }
        }
      });
      forgetful.Start();
      forgetful.Join();
      for (int i = 0; i < 500 && Live() != "0 0 0 0"; i++) {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        Thread.Sleep(10);
      }
      Check.Equal("0 0 0 0", Live());
    });

    Check.Test("options are collected while others are made", () => {
      for (int i = 0; i < 50000; i++) {
        var options = new GenerateOptions { Seed = (ulong)i };
        options.AddStop("stop " + i);
        Check.That(options.Seed == (ulong)i, "another seed");
      }
    });
  }
}
