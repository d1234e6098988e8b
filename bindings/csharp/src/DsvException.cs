using System;

namespace Dsv {

/// <summary>The one exception of the library: a status, and as Message one sentence that names what failed, where, and
/// the remedy.</summary>
public sealed class DsvException : Exception {
  internal DsvException(Status status, string sentence) : base(sentence) {
    Status = status;
  }

  public Status Status { get; }
}

}
