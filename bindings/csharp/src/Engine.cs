namespace Dsv {

/// <summary>The machine: threads and the clock of all work. One per program is usual.</summary>
public sealed class Engine : Handle {
  /// <summary>How long one step of a blocking call may take, and so for how long another thread may have to wait.</summary>
  internal const long StepUs = 10000;

  public Engine(EngineOptions options = null) : base(Native.EngineCreate(options)) {}

  /// <summary>Advances every running request by as much as fits; returns how many can still advance.</summary>
  public int Step(long budgetUs) {
    return Native.EngineStep(Number, budgetUs);
  }

  /// <summary>Steps until no request can advance. Events wait to be polled.</summary>
  public void Run() {
    while (Step(StepUs) > 0) {}
  }

  /// <summary>The memory that new Model(this, path, options) would take; loads nothing.</summary>
  public MemoryPlan Plan(string path, ModelOptions options = null) {
    return Native.ModelPlan(Number, path, options);
  }

  /// <summary>A checkpoint's config, tensors and plan as JSON.</summary>
  public string Inspect(string path, ModelOptions options = null) {
    return Native.ModelInspect(Number, path, options);
  }

  internal override void Close(long number) {
    Native.EngineClose(number);
  }
}

}
