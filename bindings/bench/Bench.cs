using System;
using System.Diagnostics;
using System.Globalization;
using Dsv;

/// <summary>As bench.c. The first rounds warm the runtime up.</summary>
internal static class Bench {
  private const int Rounds = 20;
  private const int WarmUp = 20;

  private static void Main(string[] args) {
    var options = new GenerateOptions { MaxTokens = 200, IgnoreEos = true, Seed = 1 };
    var ns = new double[Rounds];
    long events = 0;
    using (var engine = new Engine())
    using (var model = new Model(engine, args[0]))
    using (var session = new Session(model)) {
      for (int round = -WarmUp; round < Rounds; round++) {
        session.Complete(new[] { 5 }, options);
        engine.Run();
        events = 0;
        long chars = 0;
        long start = Stopwatch.GetTimestamp();
        foreach (Event e in session.Events()) {
          chars += e.Text.Length;
          events++;
        }
        double seconds = (Stopwatch.GetTimestamp() - start) / (double)Stopwatch.Frequency;
        if (round >= 0) ns[round] = seconds * 1e9 / events;
        if (chars == 0) throw new InvalidOperationException("no text");
      }
    }
    Array.Sort(ns);
    Console.WriteLine(string.Format(CultureInfo.InvariantCulture, "{0} {1:F1}", events, ns[Rounds / 2]));
  }
}
