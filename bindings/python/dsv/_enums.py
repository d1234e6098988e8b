"""The constants of dsv.h by name; their values come from the header."""

from __future__ import annotations

from enum import IntEnum

from . import _dsv


class Status(IntEnum):
    OK = _dsv.OK
    INVALID_ARGUMENT = _dsv.ERROR_INVALID_ARGUMENT
    BUSY = _dsv.ERROR_BUSY
    NOT_READY = _dsv.ERROR_NOT_READY
    BUFFER_TOO_SMALL = _dsv.ERROR_BUFFER_TOO_SMALL
    INVALID_FILE = _dsv.ERROR_INVALID_FILE
    IO = _dsv.ERROR_IO
    UNSUPPORTED = _dsv.ERROR_UNSUPPORTED
    OUT_OF_MEMORY = _dsv.ERROR_OUT_OF_MEMORY
    BUDGET = _dsv.ERROR_BUDGET
    CANCELLED = _dsv.ERROR_CANCELLED
    DEVICE_LOST = _dsv.ERROR_DEVICE_LOST
    INTERNAL = _dsv.ERROR_INTERNAL


class EventKind(IntEnum):
    PREFILL = _dsv.EVENT_PREFILL
    REASONING = _dsv.EVENT_REASONING
    CONTENT = _dsv.EVENT_CONTENT
    TOOL_BEGIN = _dsv.EVENT_TOOL_BEGIN
    TOOL_DELTA = _dsv.EVENT_TOOL_DELTA
    TOOL_END = _dsv.EVENT_TOOL_END
    TOKEN = _dsv.EVENT_TOKEN
    MALFORMED = _dsv.EVENT_MALFORMED
    FINISHED = _dsv.EVENT_FINISHED


class FinishReason(IntEnum):
    STOP = _dsv.FINISH_STOP
    TOOL_CALLS = _dsv.FINISH_TOOL_CALLS
    STOP_STRING = _dsv.FINISH_STOP_STRING
    LENGTH = _dsv.FINISH_LENGTH
    CONTEXT_FULL = _dsv.FINISH_CONTEXT_FULL
    KV_BUDGET = _dsv.FINISH_KV_BUDGET
    CANCELLED = _dsv.FINISH_CANCELLED
    ERROR = _dsv.FINISH_ERROR


class Precision(IntEnum):
    OFFICIAL = _dsv.PRECISION_OFFICIAL
    EXACT = _dsv.PRECISION_EXACT


class Schedule(IntEnum):
    DETERMINISTIC = _dsv.SCHEDULE_DETERMINISTIC
    FAST = _dsv.SCHEDULE_FAST


class LoadState(IntEnum):
    RUNNING = _dsv.LOAD_RUNNING
    READY = _dsv.LOAD_READY
    FAILED = _dsv.LOAD_FAILED
    CANCELLED = _dsv.LOAD_CANCELLED


class ToolChoice(IntEnum):
    AUTO = _dsv.TOOL_CHOICE_AUTO
    NONE = _dsv.TOOL_CHOICE_NONE


class Logits(IntEnum):
    MAIN = _dsv.LOGITS_MAIN
    DRAFT = _dsv.LOGITS_DRAFT
