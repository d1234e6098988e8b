"""DeepSeek-V3.2 inside your program.

    import dsv

    with dsv.Engine() as engine, dsv.Model(engine, dsv.bundled_checkpoint()) as model:
        chat = dsv.Chat(dsv.Session(model))
        for event in chat.send("Hello! Who are you?"):
            if event.kind == dsv.EventKind.CONTENT:
                print(event.text, end="", flush=True)

Errors are DsvError with a status and one sentence. Text is str; a lone surrogate goes in as U+FFFD.
"""

from __future__ import annotations

import os

from . import _dsv
from ._chat import Chat
from ._engine import Engine, Event, Model, Session, Tokenizer, generate_options
from ._enums import EventKind, FinishReason, LoadState, Logits, Precision, Schedule, Status, ToolChoice
from ._error import DsvError
from ._tools import Tool

__version__ = f"{_dsv.VERSION_MAJOR}.{_dsv.VERSION_MINOR}.{_dsv.VERSION_PATCH}"


def build_info() -> str:
    """One line: version, compiler, build type, CPU targets."""
    return _dsv.build_info()


def cpu_targets() -> list[str]:
    """CPU targets that this machine can run, best first."""
    return _dsv.cpu_targets().split()


def has_feature(name: str) -> bool:
    """Whether this build has "backend.cpu", "mtp", "cpu.avx2", ..."""
    return _dsv.has_feature(name)


def live_handles() -> dict[str, int]:
    """Native objects not yet closed: all zero when you have closed everything."""
    counts = _dsv.live_handles()
    return {name: getattr(counts, name) for name in ("engines", "models", "sessions", "tokenizers")}


def chat_encode(request_json: str, *, thinking: bool = False, keep_thinking: bool = False) -> str:
    """The prompt text of a request, BOS included."""
    return _dsv.chat_encode(request_json, _chat_flags(thinking, keep_thinking))


def chat_parse(completion: str, *, thinking: bool = False) -> str:
    """A completion as an assistant message (JSON)."""
    return _dsv.chat_parse(completion, _chat_flags(thinking, False))


def _chat_flags(thinking: bool, keep_thinking: bool) -> int:
    return (_dsv.CHAT_THINKING if thinking else 0) | (_dsv.CHAT_KEEP_THINKING if keep_thinking else 0)


def bundled_checkpoint() -> str:
    """The folder of the small checkpoint that comes with the package."""
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nano")
    if not os.path.isfile(os.path.join(folder, "config.json")):
        raise FileNotFoundError(
            f"{folder} holds no checkpoint: this copy of dsv came without one, give a path of your own"
        )
    return folder


__all__ = [
    "Chat",
    "DsvError",
    "Engine",
    "Event",
    "EventKind",
    "FinishReason",
    "LoadState",
    "Logits",
    "Model",
    "Precision",
    "Schedule",
    "Session",
    "Status",
    "Tokenizer",
    "Tool",
    "ToolChoice",
    "build_info",
    "bundled_checkpoint",
    "chat_encode",
    "chat_parse",
    "cpu_targets",
    "generate_options",
    "has_feature",
    "live_handles",
]
