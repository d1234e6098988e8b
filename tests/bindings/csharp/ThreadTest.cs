using System;
using System.Linq;
using System.Threading;
using Dsv;

/// <summary>Several threads on one engine.</summary>
internal static class ThreadTest {
  /// <summary>What the thread's action threw, or null.</summary>
  private static Exception OnThread(Action action) {
    Exception thrown = null;
    var thread = new Thread(() => {
      try {
        action();
      } catch (Exception e) {
        thrown = e;
      }
    });
    thread.Start();
    thread.Join();
    return thrown;
  }

  internal static void Run(string checkpoint) {
    Check.Test("cancel from another thread", checkpoint, model => {
      var chat = new Chat(new Session(model));
      var speaking = new ManualResetEvent(false);
      var other = new Thread(() => {
        speaking.WaitOne();
        chat.Cancel();
      });
      other.Start();
      Event last = null;
      foreach (Event e in chat.Send("#spin")) {
        if (e.Kind == EventKind.Content) speaking.Set();
        last = e;
      }
      other.Join();
      Check.Equal(FinishReason.Cancelled, last.FinishReason);
      Check.That(((string)chat.Messages[1]["content"]).StartsWith("and on "), "what there was is lost");
      Check.Equal("Hello there!", chat.Ask("#hello"));
    });

    Check.Test("the wrong thread uses a chat", checkpoint, model => {
      var chat = new Chat(new Session(model));
      chat.AddTool("calculator", "Compute", "{}", arguments => {
        var refused = OnThread(() => chat.Poll()) as DsvException;
        Check.That(refused != null && refused.Status == Status.Busy, "not refused: " + refused);
        return "42";
      });
      Check.Equal("That is all I know.", chat.Ask("#calculator"));
    });

    Check.Test("failures stay with their threads", checkpoint, model => {
      var session = new Session(model);
      var threads = Enumerable.Range(0, 4).Select(number => new Thread(() => {
        for (int i = 0; i < 200; i++) {
          Check.Refuses(Status.InvalidArgument, () => session.Complete(new[] { -1000 - number }), (-1000 - number).ToString());
        }
      })).ToList();
      threads.ForEach(thread => thread.Start());
      threads.ForEach(thread => thread.Join());
    });

    Check.Test("eight threads ask, one engine", checkpoint, model => {
      var thrown = new Exception[8];
      var threads = Enumerable.Range(0, 8).Select(number => new Thread(() => {
        try {
          using (var session = new Session(model)) {
            for (int i = 0; i < 10; i++) Check.Equal("Hello there!", new Chat(session).Ask("#hello"));
          }
        } catch (Exception e) {
          thrown[number] = e;
        }
      })).ToList();
      threads.ForEach(thread => thread.Start());
      threads.ForEach(thread => thread.Join());
      Check.Equal(new Exception[8], thrown);
    });

    Check.Test("disposing of everything under a thread that asks", () => {
      for (int i = 0; i < 20; i++) {
        var engine = new Engine();
        var model = new Model(engine, checkpoint);
        var session = new Session(model);
        var speaking = new ManualResetEvent(false);
        Exception thrown = null;
        var asking = new Thread(() => {
          try {
            new Chat(session).Ask("#spin", null, e => speaking.Set());
          } catch (Exception e) {
            thrown = e;
          }
        });
        asking.Start();
        speaking.WaitOne();
        var first = new IDisposable[] { engine, model, session }[i % 3];
        first.Dispose();
        session.Dispose();
        model.Dispose();
        engine.Dispose();
        asking.Join();
        Check.That(thrown is DsvException && thrown.Message.Contains("is closed"), "thrown: " + thrown);
      }
    });
  }
}
