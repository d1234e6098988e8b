package ai.dsv;

/** Why a call failed: dsv_status. */
public enum Status {
  OK(NativeConstants.OK),
  INVALID_ARGUMENT(NativeConstants.ERROR_INVALID_ARGUMENT),
  BUSY(NativeConstants.ERROR_BUSY),
  NOT_READY(NativeConstants.ERROR_NOT_READY),
  BUFFER_TOO_SMALL(NativeConstants.ERROR_BUFFER_TOO_SMALL),
  INVALID_FILE(NativeConstants.ERROR_INVALID_FILE),
  IO(NativeConstants.ERROR_IO),
  UNSUPPORTED(NativeConstants.ERROR_UNSUPPORTED),
  OUT_OF_MEMORY(NativeConstants.ERROR_OUT_OF_MEMORY),
  BUDGET(NativeConstants.ERROR_BUDGET),
  CANCELLED(NativeConstants.ERROR_CANCELLED),
  DEVICE_LOST(NativeConstants.ERROR_DEVICE_LOST),
  INTERNAL(NativeConstants.ERROR_INTERNAL),
  /** One that a newer library knows. */
  UNKNOWN(-1);

  private final int code;

  Status(int code) {
    this.code = code;
  }

  static Status of(int code) {
    for (Status status : values()) {
      if (status.code == code) return status;
    }
    return UNKNOWN;
  }
}
