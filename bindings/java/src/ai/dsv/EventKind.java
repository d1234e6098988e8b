package ai.dsv;

/** What an event says; dsv.h tells which fields each kind has. */
public enum EventKind {
  PREFILL(NativeConstants.EVENT_PREFILL),
  REASONING(NativeConstants.EVENT_REASONING),
  CONTENT(NativeConstants.EVENT_CONTENT),
  TOOL_BEGIN(NativeConstants.EVENT_TOOL_BEGIN),
  TOOL_DELTA(NativeConstants.EVENT_TOOL_DELTA),
  TOOL_END(NativeConstants.EVENT_TOOL_END),
  TOKEN(NativeConstants.EVENT_TOKEN),
  MALFORMED(NativeConstants.EVENT_MALFORMED),
  FINISHED(NativeConstants.EVENT_FINISHED),
  /** One that a newer library knows. */
  UNKNOWN(-1);

  private static final EventKind[] ALL = values();

  private final int code;

  EventKind(int code) {
    this.code = code;
  }

  static EventKind of(int code) {
    for (EventKind kind : ALL) {
      if (kind.code == code) return kind;
    }
    return UNKNOWN;
  }
}
