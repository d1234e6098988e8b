package ai.dsv;

import java.nio.file.Path;
import java.time.Duration;

/** A checkpoint on an engine. */
public final class Model extends Handle {
  private final Engine engine;

  /** Loads and waits. path: the checkpoint's folder. */
  public Model(Engine engine, Path path) {
    this(engine, path, null);
  }

  /** Loads and waits. options: null for the defaults. */
  public Model(Engine engine, Path path, ModelOptions options) {
    this(Native.modelLoad(engine.number, path.toString(), options), engine);
    try {
      Native.modelWait(number, -1);
    } catch (RuntimeException e) {
      close();
      throw e;
    }
  }

  private Model(long number, Engine engine) {
    super(number, Native::modelClose);
    this.engine = engine;
  }

  /** Starts loading and returns at once: ask progress(), or waitFor(). options: null for the defaults. */
  public static Model start(Engine engine, Path path, ModelOptions options) {
    return new Model(Native.modelLoad(engine.number, path.toString(), options), engine);
  }

  public Engine engine() {
    return engine;
  }

  /** False if the time ran out first. Throws if the load failed or was cancelled. */
  public boolean waitFor(Duration timeout) {
    return Native.modelWait(number, Math.max(0, timeout.toMillis()));
  }

  /** State (Dsv.LOAD_*), done and total bytes. Throws if the load failed or was cancelled. */
  public LoadProgress progress() {
    return Native.modelProgress(number);
  }

  public void cancelLoad() {
    Native.modelCancelLoad(number);
  }

  public ModelInfo info() {
    return Native.modelInfo(number);
  }

  public MemoryUse memory() {
    return Native.modelMemory(number);
  }

  public Tokenizer tokenizer() {
    return new Tokenizer(Native.modelTokenizer(number));
  }
}
