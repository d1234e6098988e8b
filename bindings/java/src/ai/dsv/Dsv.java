package ai.dsv;

import java.nio.file.Path;
import java.util.List;

/** The library as a whole, and the constants of dsv.h that options take. */
public final class Dsv implements NativeConstants {
  private Dsv() {}

  /** major * 1000000 + minor * 1000 + patch. */
  public static int version() {
    return Native.version();
  }

  /** One line: version, compiler, build type, CPU targets. */
  public static String buildInfo() {
    return Native.buildInfo();
  }

  /** CPU targets that this machine can run, best first. */
  public static List<String> cpuTargets() {
    return List.of(Native.cpuTargets().split(" "));
  }

  /** Whether this build has "backend.cpu", "mtp", "cpu.avx2", ... */
  public static boolean hasFeature(String name) {
    return Native.hasFeature(name);
  }

  /** Native objects not yet closed: all zero when you have closed everything. */
  public static HandleCounts liveHandles() {
    return Native.liveHandles();
  }

  /** The prompt text of a request, BOS included. flags: CHAT_THINKING, CHAT_KEEP_THINKING. */
  public static String chatEncode(String request, int flags) {
    return Native.chatEncode(request, flags);
  }

  /** A completion as an assistant message (JSON). */
  public static String chatParse(String completion, int flags) {
    return Native.chatParse(completion, flags);
  }

  /** The folder of the small checkpoint that comes with the jar. */
  public static Path bundledCheckpoint() {
    return NativeLoader.checkpoint();
  }
}
