package ai.dsv;

/** Why a request ended. */
public enum FinishReason {
  /** The event does not end a request. */
  NONE(0),
  STOP(NativeConstants.FINISH_STOP),
  TOOL_CALLS(NativeConstants.FINISH_TOOL_CALLS),
  STOP_STRING(NativeConstants.FINISH_STOP_STRING),
  LENGTH(NativeConstants.FINISH_LENGTH),
  CONTEXT_FULL(NativeConstants.FINISH_CONTEXT_FULL),
  KV_BUDGET(NativeConstants.FINISH_KV_BUDGET),
  CANCELLED(NativeConstants.FINISH_CANCELLED),
  ERROR(NativeConstants.FINISH_ERROR),
  /** One that a newer library knows. */
  UNKNOWN(-1);

  private static final FinishReason[] ALL = values();

  private final int code;

  FinishReason(int code) {
    this.code = code;
  }

  static FinishReason of(int code) {
    for (FinishReason reason : ALL) {
      if (reason.code == code) return reason;
    }
    return UNKNOWN;
  }
}
