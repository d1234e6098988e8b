package ai.dsv;

import java.nio.file.Path;

/** The machine: threads and the clock of all work. One per program is usual. */
public final class Engine extends Handle {
  /** How long one step of a blocking call may take, and so for how long another thread may have to wait. */
  static final long STEP_US = 10_000;

  public Engine() {
    this(null);
  }

  /** options: null for the defaults. */
  public Engine(EngineOptions options) {
    super(Native.engineCreate(options), Native::engineClose);
  }

  /** Advances every running request by as much as fits; returns how many can still advance. */
  public int step(long budgetUs) {
    return Native.engineStep(number, budgetUs);
  }

  /** Steps until no request can advance. Events wait to be polled. */
  public void run() {
    while (step(STEP_US) > 0) {
      // step does the work
    }
  }

  /** The memory that new Model(this, path, options) would take; loads nothing. options: null for the defaults. */
  public MemoryPlan plan(Path path, ModelOptions options) {
    return Native.modelPlan(number, path.toString(), options);
  }

  /** A checkpoint's config, tensors and plan as JSON. options: null for the defaults. */
  public String inspect(Path path, ModelOptions options) {
    return Native.modelInspect(number, path.toString(), options);
  }
}
