using System;

namespace Dsv {

/// <summary>A checkpoint on an engine.</summary>
public sealed class Model : Handle {
  /// <summary>Loads and waits. path: the checkpoint's folder.</summary>
  public Model(Engine engine, string path, ModelOptions options = null) : this(Load(engine, path, options), engine) {
    try {
      Native.ModelWait(Number, -1);
    } catch {
      Dispose();
      throw;
    }
  }

  private Model(long number, Engine engine) : base(number) {
    Engine = engine;
  }

  /// <summary>Starts loading and returns at once: ask Progress() every frame, or Wait().</summary>
  public static Model Start(Engine engine, string path, ModelOptions options = null) {
    return new Model(Load(engine, path, options), engine);
  }

  public Engine Engine { get; }

  /// <summary>False if the time ran out first. Throws if the load failed or was cancelled.</summary>
  public bool Wait(TimeSpan timeout) {
    return Native.ModelWait(Number, Math.Max(0, (long)timeout.TotalMilliseconds));
  }

  /// <summary>State, done and total bytes. Throws if the load failed or was cancelled.</summary>
  public LoadProgress Progress() {
    return Native.ModelProgress(Number);
  }

  public void CancelLoad() {
    Native.ModelCancelLoad(Number);
  }

  public ModelInfo Info() {
    return Native.ModelInfo(Number);
  }

  public MemoryUse Memory() {
    return Native.ModelMemory(Number);
  }

  public Tokenizer Tokenizer() {
    return new Tokenizer(Native.ModelTokenizer(Number));
  }

  internal override void Close(long number) {
    Native.ModelClose(number);
  }

  private static long Load(Engine engine, string path, ModelOptions options) {
    if (engine == null) throw new ArgumentNullException("engine");
    return Native.ModelLoad(engine.Number, path, options);
  }
}

}
