namespace Dsv {

/// <summary>Why a call failed: dsv_status. A newer library may know more.</summary>
public enum Status {
  Ok = Native.OK,
  InvalidArgument = Native.ERROR_INVALID_ARGUMENT,
  Busy = Native.ERROR_BUSY,
  NotReady = Native.ERROR_NOT_READY,
  BufferTooSmall = Native.ERROR_BUFFER_TOO_SMALL,
  InvalidFile = Native.ERROR_INVALID_FILE,
  Io = Native.ERROR_IO,
  Unsupported = Native.ERROR_UNSUPPORTED,
  OutOfMemory = Native.ERROR_OUT_OF_MEMORY,
  Budget = Native.ERROR_BUDGET,
  Cancelled = Native.ERROR_CANCELLED,
  DeviceLost = Native.ERROR_DEVICE_LOST,
  Internal = Native.ERROR_INTERNAL
}

/// <summary>What an event says; dsv.h tells which fields each kind has. A newer library may know more.</summary>
public enum EventKind {
  Prefill = Native.EVENT_PREFILL,
  Reasoning = Native.EVENT_REASONING,
  Content = Native.EVENT_CONTENT,
  ToolBegin = Native.EVENT_TOOL_BEGIN,
  ToolDelta = Native.EVENT_TOOL_DELTA,
  ToolEnd = Native.EVENT_TOOL_END,
  Token = Native.EVENT_TOKEN,
  Malformed = Native.EVENT_MALFORMED,
  Finished = Native.EVENT_FINISHED
}

/// <summary>Why a request ended; None for events that do not end one.</summary>
public enum FinishReason {
  None = 0,
  Stop = Native.FINISH_STOP,
  ToolCalls = Native.FINISH_TOOL_CALLS,
  StopString = Native.FINISH_STOP_STRING,
  Length = Native.FINISH_LENGTH,
  ContextFull = Native.FINISH_CONTEXT_FULL,
  KvBudget = Native.FINISH_KV_BUDGET,
  Cancelled = Native.FINISH_CANCELLED,
  Error = Native.FINISH_ERROR
}

public enum Precision {
  Official = Native.PRECISION_OFFICIAL,
  Exact = Native.PRECISION_EXACT
}

public enum Schedule {
  Deterministic = Native.SCHEDULE_DETERMINISTIC,
  Fast = Native.SCHEDULE_FAST
}

public enum LoadState {
  Running = Native.LOAD_RUNNING,
  Ready = Native.LOAD_READY,
  Failed = Native.LOAD_FAILED,
  Cancelled = Native.LOAD_CANCELLED
}

public enum ToolChoice {
  Auto = Native.TOOL_CHOICE_AUTO,
  None = Native.TOOL_CHOICE_NONE
}

public enum LogitsSource {
  Main = Native.LOGITS_MAIN,
  Draft = Native.LOGITS_DRAFT
}

}
