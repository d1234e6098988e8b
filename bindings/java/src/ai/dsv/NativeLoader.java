package ai.dsv;

import java.io.IOException;
import java.io.InputStream;
import java.lang.ref.Cleaner;
import java.net.URISyntaxException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystemNotFoundException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.CodeSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * Finds the native half and the bundled checkpoint: in the jar, else beside it; the native half else on
 * java.library.path. What the jar holds is copied into a folder that only this user can read: a library until it is
 * loaded, a checkpoint until the program ends.
 */
final class NativeLoader {
  /** Frees native memory of objects that have become unreachable. */
  static final Cleaner CLEANER = Cleaner.create();

  private static final String INSIDE = "/META-INF/dsv/";
  private static Path checkpoint;

  private NativeLoader() {}

  static void load() {
    String name = System.mapLibraryName("dsv_java");
    String inside = INSIDE + platform() + "/" + name;
    Path beside = folder().resolve(name);
    if (NativeLoader.class.getResource(inside) != null) {
      loadCopy(inside, name);
    } else if (Files.isRegularFile(beside)) {
      System.load(beside.toString());
    } else {
      System.loadLibrary("dsv_java");
    }
  }

  /** The bundled checkpoint's folder. */
  static synchronized Path checkpoint() {
    if (checkpoint != null) return checkpoint;
    String nano = INSIDE + "nano/";
    if (NativeLoader.class.getResource(nano + "files") != null) {
      List<String> names = List.of(new String(bytes(nano + "files"), StandardCharsets.UTF_8).split("\n"));
      List<Path> copies = new ArrayList<>();
      Path folder = temporaryFolder();
      Runtime.getRuntime().addShutdownHook(new Thread(() -> remove(folder, copies)));
      for (String name : names) copies.add(copy(nano + name, folder.resolve(name)));
      return checkpoint = folder;
    }
    Path beside = folder().resolve("nano");
    if (!Files.isRegularFile(beside.resolve("config.json"))) {
      throw new DsvException(Status.IO,
          beside + " holds no checkpoint: this copy of dsv came without one, give a path of your own");
    }
    return checkpoint = beside;
  }

  /** As package.cmake names it: "linux-x86_64". */
  private static String platform() {
    String processor = System.getProperty("os.arch");
    return System.getProperty("os.name").toLowerCase(Locale.ROOT) + "-" + (processor.equals("amd64") ? "x86_64" : processor);
  }

  private static void loadCopy(String inside, String name) {
    Path folder = temporaryFolder();
    Path library = folder.resolve(name);
    try {
      copy(inside, library);
      System.load(library.toString());
    } catch (UnsatisfiedLinkError e) {
      throw (Error) new UnsatisfiedLinkError(e.getMessage() + ": if programs may not run from there, choose another "
          + "folder with -Djava.io.tmpdir=").initCause(e);
    } finally {
      remove(folder, List.of(library)); // the process keeps what it has mapped
    }
  }

  /** The folder that the jar or the classes lie in; the current one if they do not come from a disk. */
  private static Path folder() {
    CodeSource source = NativeLoader.class.getProtectionDomain().getCodeSource();
    if (source == null) return Path.of("");
    try {
      Path folder = Path.of(source.getLocation().toURI()).toAbsolutePath().getParent();
      return folder == null ? Path.of("") : folder;
    } catch (URISyntaxException | IllegalArgumentException | FileSystemNotFoundException e) {
      return Path.of("");
    }
  }

  private static Path temporaryFolder() {
    try {
      return Files.createTempDirectory("dsv-");
    } catch (IOException e) {
      throw new DsvException(Status.IO, "no folder can be made in " + System.getProperty("java.io.tmpdir") + " (" + e
          + "): choose another with -Djava.io.tmpdir=");
    }
  }

  private static byte[] bytes(String inside) {
    try (InputStream in = NativeLoader.class.getResourceAsStream(inside)) {
      return in.readAllBytes();
    } catch (IOException e) {
      throw new DsvException(Status.IO, inside + " cannot be read from the jar (" + e + "): is it damaged?");
    }
  }

  private static Path copy(String inside, Path to) {
    try (InputStream in = NativeLoader.class.getResourceAsStream(inside)) {
      Files.copy(in, to);
      return to;
    } catch (IOException e) {
      throw new DsvException(Status.IO, inside + " cannot be copied from the jar to " + to + " (" + e
          + "): make room, or choose another folder with -Djava.io.tmpdir=");
    }
  }

  private static void remove(Path folder, List<Path> files) {
    try {
      for (Path file : files) Files.deleteIfExists(file);
      Files.deleteIfExists(folder);
    } catch (IOException e) {
      // Only a temporary file stays behind.
    }
  }
}
