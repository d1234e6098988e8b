using System;
using System.Threading;

namespace Dsv {

/// <summary>A number that stands for a native object, which lives until Dispose() or until its managed object is
/// collected, in any order. Every method of the subclasses may be called from any thread; threads that step and poll one
/// engine take turns.</summary>
public abstract class Handle : IDisposable {
  private int closed;

  internal Handle(long number) {
    Number = number;
  }

  ~Handle() {
    Close(Number);
  }

  internal long Number { get; }

  public bool IsClosed {
    get { return Volatile.Read(ref closed) != 0; }
  }

  /// <summary>Any use after it throws DsvException. Disposing twice is fine.</summary>
  public void Dispose() {
    if (Interlocked.Exchange(ref closed, 1) != 0) return;
    Close(Number);
    GC.SuppressFinalize(this);
  }

  /// <summary>0 is no object: closing it does nothing.</summary>
  internal abstract void Close(long number);
}

}
