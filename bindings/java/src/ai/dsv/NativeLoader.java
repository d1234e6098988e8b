package ai.dsv;

import java.lang.ref.Cleaner;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.CodeSource;

/** Finds the native half: beside the jar, else on java.library.path. */
final class NativeLoader {
  /** Frees native memory of objects that have become unreachable. */
  static final Cleaner CLEANER = Cleaner.create();

  private NativeLoader() {}

  static void load() {
    Path folder = folder();
    Path file = folder == null ? null : folder.resolve(System.mapLibraryName("dsv_java"));
    if (file != null && Files.isRegularFile(file)) {
      System.load(file.toString());
    } else {
      System.loadLibrary("dsv_java");
    }
  }

  /** The folder that the jar lies in; null if the classes do not come from a jar on disk. */
  static Path folder() {
    CodeSource source = NativeLoader.class.getProtectionDomain().getCodeSource();
    if (source == null) return null;
    try {
      return Path.of(source.getLocation().toURI()).toAbsolutePath().getParent();
    } catch (URISyntaxException | IllegalArgumentException | java.nio.file.FileSystemNotFoundException e) {
      return null;
    }
  }
}
