import ai.dsv.DsvException;
import ai.dsv.Engine;
import ai.dsv.Model;
import ai.dsv.Status;
import java.nio.file.Path;
import java.util.Objects;

/** What the tests share: named cases, and expectations that say what they saw. */
final class Check {
  interface Action {
    void run() throws Exception;
  }

  interface ModelAction {
    void run(Model model) throws Exception;
  }

  private static int failures;

  private Check() {}

  static void test(String name, Action action) {
    try {
      action.run();
      System.out.println("ok " + name);
    } catch (Throwable e) {
      failures++;
      System.out.println("FAILED " + name);
      e.printStackTrace(System.out);
    }
  }

  /** A case with an engine and the checkpoint of its own. */
  static void test(String name, Path checkpoint, ModelAction action) {
    test(name, () -> {
      try (Engine engine = new Engine(); Model model = new Model(engine, checkpoint)) {
        action.run(model);
      }
    });
  }

  static void finish() {
    System.exit(failures == 0 ? 0 : 1);
  }

  static void that(boolean holds, String what) {
    if (!holds) throw new AssertionError(what);
  }

  static void equal(Object expected, Object actual) {
    if (!Objects.equals(expected, actual)) throw new AssertionError("expected <" + expected + "> but saw <" + actual + ">");
  }

  /** Returns what the action threw. */
  static <T extends Throwable> T thrown(Class<T> type, Action action) {
    try {
      action.run();
    } catch (Throwable e) {
      if (type.isInstance(e)) return type.cast(e);
      throw new AssertionError("expected " + type.getSimpleName() + " but saw " + e, e);
    }
    throw new AssertionError("expected " + type.getSimpleName() + ", but nothing was thrown");
  }

  /** The sentence must contain every part. */
  static void refuses(Status status, Action action, String... parts) {
    DsvException e = thrown(DsvException.class, action);
    equal(status, e.status());
    for (String part : parts) that(e.getMessage().contains(part), "\"" + e.getMessage() + "\" does not say " + part);
  }

  static void refusesNull(String part, Action action) {
    NullPointerException e = thrown(NullPointerException.class, action);
    that(e.getMessage() != null && e.getMessage().contains(part), "\"" + e.getMessage() + "\" does not say " + part);
  }
}
