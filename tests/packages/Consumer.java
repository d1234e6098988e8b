import ai.dsv.Dsv;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;

/** Consumer JAR: what the jar puts on the disk is private, and several class loaders may load it, as servers do. */
public class Consumer {
  public static void main(String[] args) throws Exception {
    Path nano = Dsv.bundledCheckpoint();
    String permissions = PosixFilePermissions.toString(Files.getPosixFilePermissions(nano));
    if (!permissions.equals("rwx------")) throw new AssertionError(nano + " is " + permissions);
    if (!nano.equals(Dsv.bundledCheckpoint())) throw new AssertionError("copied twice");
    URL[] jar = {Path.of(args[0]).toUri().toURL()};
    for (int i = 0; i < 2; i++) {
      try (URLClassLoader loader = new URLClassLoader(jar, ClassLoader.getPlatformClassLoader())) {
        Object info = loader.loadClass("ai.dsv.Dsv").getMethod("buildInfo").invoke(null);
        if (!info.equals(Dsv.buildInfo())) throw new AssertionError(info);
      }
    }
  }
}
