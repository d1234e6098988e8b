using System;
using System.IO;

/// <summary>Tests.exe NAME CHECKPOINT [CYCLES]</summary>
internal static class Program {
  private static int Main(string[] args) {
    // Text goes to CTest as UTF-8 whatever the locale.
    Console.SetOut(new StreamWriter(Console.OpenStandardOutput()) { AutoFlush = true });
    switch (args[0]) {
      case "chat": ChatTest.Run(args[1]); break;
      case "tool": ToolTest.Run(args[1]); break;
      case "text": TextTest.Run(args[1]); break;
      case "error": ErrorTest.Run(args[1]); break;
      case "life": LifeTest.Run(args[1]); break;
      case "thread": ThreadTest.Run(args[1]); break;
      case "cycles": CycleTest.Run(args[1], int.Parse(args[2])); break;
      default: throw new ArgumentException("there is no test " + args[0]);
    }
    return Check.Failures == 0 ? 0 : 1;
  }
}
