package ai.dsv;

/** The one exception of the library: a status, and as message one sentence that names what failed, where, and the remedy. */
public final class DsvException extends RuntimeException {
  private static final long serialVersionUID = 1;

  private final Status status;

  DsvException(Status status, String sentence) {
    super(sentence);
    this.status = status;
  }

  /** Called by native code. */
  DsvException(int status, byte[] sentence) {
    this(Status.of(status), Utf8.decode(sentence));
  }

  public Status status() {
    return status;
  }
}
