using System;
using System.IO;
using System.Linq;
using Dsv;

/// <summary>Create, generate and dispose, over and over, while memory stays flat.</summary>
internal static class CycleTest {
  /// <summary>Resident memory may grow by this much: mono's heap grows in blocks of 4 MB. A leak of 1 KB a cycle would be
  /// 7.5 MB of 10,000. Measured with 10,000 cycles: 380 KB (2026-11-26).</summary>
  private const long SlackKb = 6 << 10;

  private static void Cycle(string checkpoint, int number) {
    using (var engine = new Engine(new EngineOptions { Threads = 1 }))
    using (var model = new Model(engine, checkpoint, new ModelOptions { ContextTokens = 2048 }))
    using (var session = new Session(model))
    using (var tokenizer = model.Tokenizer()) {
      var chat = new Chat(session);
      var options = new GenerateOptions { Logprobs = 1 };
      options.AddStop("never");
      Check.Equal("Hello there!", chat.Ask("#hello", options));
      if (number % 10 == 0) {  // the prompt with tools is long
        chat.AddTool("calculator", "Compute", "{}", arguments => "42");
        Check.Equal("That is all I know.", chat.Ask("#calculator", options));
      }
      Check.Equal(5, tokenizer.Encode("12345").Length);
    }
  }

  private static long ResidentKb() {
    GC.Collect();
    GC.WaitForPendingFinalizers();
    string line = File.ReadLines("/proc/self/status").First(text => text.StartsWith("RssAnon:"));
    return long.Parse(new string(line.Where(char.IsDigit).ToArray()));
  }

  internal static void Run(string checkpoint, int cycles) {
    Check.Test(cycles + " cycles", () => {
      for (int i = 0; i < cycles / 4; i++) Cycle(checkpoint, i);
      long before = ResidentKb();
      for (int i = cycles / 4; i < cycles; i++) Cycle(checkpoint, i);
      long growth = ResidentKb() - before;
      Console.WriteLine("resident memory: {0} KB after a quarter, then {1} KB more", before, growth);
      HandleCounts counts = Library.LiveHandles();
      Check.Equal(0, counts.Engines + counts.Models + counts.Sessions + counts.Tokenizers);
      Check.That(growth < SlackKb, "memory grew by " + growth + " KB");
    });
  }
}
