import ai.dsv.*;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;

/** As bench.c. The first rounds warm the JVM up. */
public class Bench {
  private static final int ROUNDS = 20;
  private static final int WARM_UP = 20;

  public static void main(String[] args) {
    GenerateOptions options = new GenerateOptions();
    options.setMaxTokens(200);
    options.setIgnoreEos(true);
    options.setSeed(1);
    double[] ns = new double[ROUNDS];
    long events = 0;
    try (Engine engine = new Engine(); Model model = new Model(engine, Path.of(args[0])); Session session = new Session(model)) {
      for (int round = -WARM_UP; round < ROUNDS; round++) {
        session.complete(new int[] {5}, options);
        engine.run();
        events = 0;
        long chars = 0;
        long start = System.nanoTime();
        for (Event event : session.events()) {
          chars += event.text().length();
          events++;
        }
        if (round >= 0) ns[round] = (System.nanoTime() - start) / (double) events;
        if (chars == 0) throw new AssertionError("no text");
      }
    }
    Arrays.sort(ns);
    System.out.printf(Locale.ROOT, "%d %.1f%n", events, ns[ROUNDS / 2]);
  }
}
