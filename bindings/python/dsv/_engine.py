"""Engine, Model, Session and Tokenizer: dsv.h with Python's manners.

Every object closes itself at the end of a `with` block, by close(), or when it is collected, in any order. Every
method may be called from any thread; threads that step and poll one engine take turns.
"""

from __future__ import annotations

import functools
import os
import weakref
from typing import (
    Any,
    Callable,
    Dict,
    Hashable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
    Union,
    cast,
)

from . import _dsv
from ._enums import EventKind, Logits
from ._error import DsvError

STEP_US = 10_000
"""How long one step of a blocking call may take: so long may another thread or Ctrl-C have to wait."""

Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
_Self = TypeVar("_Self", bound="_Handle")


class _Handle:
    """A number that stands for a native object, which lives until close()."""

    def __init__(self, number: int, close: Callable[[int], None]) -> None:
        self._number = number
        self._close = weakref.finalize(self, close, number)

    def close(self) -> None:
        """Any use after it raises DsvError. Closing twice is fine."""
        self._close()

    @property
    def closed(self) -> bool:
        return not self._close.alive

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _number(handle: object, kind: Type[_Handle], user: str) -> int:
    if not isinstance(handle, kind):
        raise TypeError(f"a {user} needs a dsv.{kind.__name__}, not {handle!r}")
    return handle._number


@functools.lru_cache(maxsize=None)
def _fields(options: Hashable) -> Tuple[str, ...]:
    names = (name for name in dir(options) if name[0] != "_" and name not in ("this", "thisown"))
    return tuple(name for name in names if not callable(getattr(options, name)))


def _options(options: Any, values: Mapping[str, Any]) -> Any:
    """Fills a native option struct by field names; None leaves the default."""
    known = _fields(type(options))
    for name, value in values.items():
        if name not in known:
            raise TypeError(f"there is no option {name!r}: there are {', '.join(known)}")
        if value is None:
            continue
        try:
            setattr(options, name, value)
        except (TypeError, OverflowError) as error:
            kind = type(getattr(options, name)).__name__
            raise type(error)(f"{name} must be {kind}, not {value!r}") from None
    return options


def generate_options(
    stop: Union[None, str, Sequence[str]] = None, logit_bias: Optional[Mapping[int, float]] = None, **fields: Any
) -> Any:
    """The keywords of Session.chat, Session.complete and Chat.send as dsv_generate_options:

    thinking, keep_thinking, tool_choice, temperature, top_p, min_p, top_k, seed, max_tokens, logprobs, ignore_eos,
    stop (a string or several) and logit_bias ({token: bias}).
    """
    options = _options(_dsv.GenerateOptions(), fields)
    for text in [stop] if isinstance(stop, str) else stop or ():
        options.add_stop(text)
    for token, bias in (logit_bias or {}).items():
        options.add_logit_bias(token, bias)
    return options


class Engine(_Handle):
    """The machine: threads and the clock of all work. One per program is usual.

    Keywords: threads (0 = one per core), backend ("cpu" or "reference"), cpu_target (one of dsv.cpu_targets()).
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(_dsv.engine_create(_options(_dsv.EngineOptions(), options)), _dsv.engine_close)

    def step(self, budget_us: int) -> int:
        """Advances every running request by as much as fits; returns how many can still advance."""
        return _dsv.engine_step(self._number, budget_us)

    def run(self) -> None:
        """Steps until no request can advance. Events wait to be polled."""
        while self.step(STEP_US):
            pass

    def plan(self, path: Path, **options: Any) -> _dsv.MemoryPlan:
        """The memory that Model(engine, path, **options) would take (dsv_memory_plan); loads nothing."""
        return _dsv.model_plan(self._number, os.fsencode(path), _options(_dsv.ModelOptions(), options))

    def inspect(self, path: Path, **options: Any) -> str:
        """A checkpoint's config, tensors and plan as JSON."""
        return _dsv.model_inspect(self._number, os.fsencode(path), _options(_dsv.ModelOptions(), options))


class Model(_Handle):
    """A checkpoint on an engine. Loads and waits; with wait=False, ask progress() or wait().

    Keywords: precision, context_tokens, kv_budget_bytes, weight_budget_bytes, batch_rows, load_mtp, chat_profile,
    schedule, gpu_stream_priority.
    """

    def __init__(self, engine: Engine, path: Path, *, wait: bool = True, **options: Any) -> None:
        self.engine = engine
        number = _number(engine, Engine, "Model")
        native = _options(_dsv.ModelOptions(), options)
        super().__init__(_dsv.model_load(number, os.fsencode(path), native), _dsv.model_close)
        if wait:
            try:
                self.wait()
            except BaseException:
                self.close()
                raise

    def wait(self, timeout: Optional[float] = None) -> bool:
        """False if `timeout` seconds ran out first. Raises if the load failed or was cancelled."""
        if timeout is not None:
            return _dsv.model_wait(self._number, max(0, int(timeout * 1000)))
        while not _dsv.model_wait(self._number, 100):  # in slices, for Ctrl-C
            pass
        return True

    def progress(self) -> _dsv.LoadProgress:
        """dsv_load_progress: state (LoadState), done and total bytes."""
        return _dsv.model_progress(self._number)

    def cancel_load(self) -> None:
        _dsv.model_cancel_load(self._number)

    @property
    def info(self) -> _dsv.ModelInfo:
        """dsv_model_info: vocab_size, context_tokens, has_chat, ..."""
        return _dsv.model_info(self._number)

    @property
    def memory(self) -> _dsv.MemoryUse:
        """dsv_memory_use: bytes by purpose, KV pages used and in all."""
        return _dsv.model_memory(self._number)

    def tokenizer(self) -> Tokenizer:
        return Tokenizer._of(_dsv.model_tokenizer(self._number))


class Tokenizer(_Handle):
    """A tokenizer by itself, from tokenizer.json."""

    def __init__(self, path: Path) -> None:
        super().__init__(_dsv.tokenizer_open(os.fsencode(path)), _dsv.tokenizer_close)

    @classmethod
    def _of(cls, number: int) -> Tokenizer:
        tokenizer = cls.__new__(cls)
        _Handle.__init__(tokenizer, number, _dsv.tokenizer_close)
        return tokenizer

    def encode(self, text: str) -> List[int]:
        """Ids without a BOS. A lone surrogate in `text` counts as U+FFFD."""
        return _dsv.tokenizer_encode(self._number, text)

    def decode(self, ids: Sequence[int]) -> bytes:
        """Bytes, because ids may cut a character."""
        return _dsv.tokenizer_decode(self._number, ids)


class Event(NamedTuple):
    """As dsv_event: fields that a kind does not name are empty or zero."""

    kind: EventKind
    request: int
    text: str
    tool_name: str
    tool_id: str
    tool_index: int
    finish_reason: int
    status: int
    token: int
    logprob: float
    done: int
    total: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    top: Tuple[Tuple[int, float], ...]
    """(token, logprob) of the most likely tokens, best first."""


_KINDS: Dict[int, EventKind] = {int(kind): kind for kind in EventKind}


def _event(raw: _dsv.RawEvent) -> Event:
    kind = raw.kind
    top: Tuple[Tuple[int, float], ...] = ()
    if kind == _dsv.EVENT_TOKEN:
        top = tuple(zip(raw.top_tokens(), memoryview(raw.top_logprobs()).cast("f")))
    return Event(
        _KINDS.get(kind, cast(EventKind, kind)),  # a newer library may know more kinds
        raw.request,
        raw.text,
        raw.tool_name,
        raw.tool_id,
        raw.tool_index,
        raw.finish_reason,
        raw.status,
        raw.token,
        raw.logprob,
        raw.done,
        raw.total,
        raw.prompt_tokens,
        raw.cached_tokens,
        raw.completion_tokens,
        raw.reasoning_tokens,
        top,
    )


class Session(_Handle):
    """One conversation on a model. Chat is the friendlier way to talk through it."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._request = 0
        self._running = False
        super().__init__(_dsv.session_create(_number(model, Model, "Session")), _dsv.session_close)

    def chat(self, request_json: Union[str, bytes], **options: Any) -> int:
        """Starts {"messages": [...], "tools": [...]?, "response_format": {...}?}; returns the request's number.

        Options: see generate_options.
        """
        return self._start(_dsv.session_chat, request_json, options)

    def complete(self, tokens: Sequence[int], **options: Any) -> int:
        """The same with raw tokens."""
        return self._start(_dsv.session_complete, tokens, options)

    def _start(self, start: Callable[[int, Any, Any], int], prompt: Any, options: Mapping[str, Any]) -> int:
        running, self._running = self._running, True
        try:
            self._request = start(self._number, prompt, generate_options(**options))
        except BaseException:
            self._running = running
            raise
        return self._request

    def poll(self) -> Optional[Event]:
        """The next event that engine.step() produced, or None."""
        raw = _dsv.session_poll(self._number)
        if raw is None:
            return None
        event = _event(raw)
        if event.kind == EventKind.FINISHED:
            self._running = False
        return event

    def events(self) -> Iterator[Event]:
        """Steps the engine and yields the running request's events up to FINISHED; none if none runs. Leaving the loop
        early cancels the request."""
        request = self._request
        try:
            while self._request == request:
                event = self.poll()
                if event is not None:
                    yield event
                elif self._running:
                    self.model.engine.step(STEP_US)
                if not self._running:
                    break
        finally:
            if self._running and self._request == request and not self.closed:
                self.cancel()
                while self._running:
                    if self.poll() is None:
                        self.model.engine.step(STEP_US)

    def cancel(self) -> None:
        """Ends the running request at the next token; its FINISHED says CANCELLED."""
        _dsv.session_cancel(self._number)

    def tokens(self) -> List[int]:
        """The tokens whose keys and values the session holds."""
        return _dsv.session_tokens(self._number)

    def logits(self, tokens: Sequence[int], first: int, rows: int, source: int = Logits.MAIN) -> memoryview:
        """float32 [rows, vocab_size] of positions [first, first + rows); numpy.asarray takes it as it is."""
        data = _dsv.session_logits(self._number, tokens, first, rows, source)
        if rows == 0:
            return memoryview(data).cast("f")
        return memoryview(data).cast("f", (rows, len(data) // 4 // rows))


__all__ = ["DsvError", "Engine", "Event", "Model", "Session", "Tokenizer", "generate_options"]
