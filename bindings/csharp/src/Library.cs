using System;
using System.IO;

namespace Dsv {

/// <summary>The library as a whole.</summary>
public static class Library {
  /// <summary>major * 1000000 + minor * 1000 + patch.</summary>
  public static int Version {
    get { return Native.Version(); }
  }

  /// <summary>One line: version, compiler, build type, CPU targets.</summary>
  public static string BuildInfo {
    get { return Native.BuildInfo(); }
  }

  /// <summary>CPU targets that this machine can run, best first.</summary>
  public static string[] CpuTargets {
    get { return Native.CpuTargets().Split(' '); }
  }

  /// <summary>Whether this build has "backend.cpu", "mtp", "cpu.avx2", ...</summary>
  public static bool HasFeature(string name) {
    return Native.HasFeature(name);
  }

  /// <summary>Native objects not yet closed: all zero when you have disposed of everything.</summary>
  public static HandleCounts LiveHandles() {
    return Native.LiveHandles();
  }

  /// <summary>The prompt text of a request, BOS included.</summary>
  public static string ChatEncode(string request, bool thinking = false, bool keepThinking = false) {
    return Native.ChatEncode(request, Flags(thinking, keepThinking));
  }

  /// <summary>A completion as an assistant message (JSON).</summary>
  public static string ChatParse(string completion, bool thinking = false) {
    return Native.ChatParse(completion, Flags(thinking, false));
  }

  /// <summary>The folder of the small checkpoint that comes beside Dsv.dll.</summary>
  public static string BundledCheckpoint() {
    string folder = Path.Combine(Path.GetDirectoryName(typeof(Library).Assembly.Location) ?? "", "nano");
    if (!File.Exists(Path.Combine(folder, "config.json"))) {
      throw new DsvException(Status.Io,
          folder + " holds no checkpoint: this copy of dsv came without one, give a path of your own");
    }
    return folder;
  }

  private static int Flags(bool thinking, bool keepThinking) {
    return (thinking ? Native.CHAT_THINKING : 0) | (keepThinking ? Native.CHAT_KEEP_THINKING : 0);
  }
}

}
