"""A conversation: messages, tools and the loop between them."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Union

from ._engine import STEP_US, Event, Session
from ._enums import EventKind, FinishReason, Status
from ._error import DsvError
from ._tools import Tool


class Chat:
    """A conversation on a session.

        chat = Chat(session, system="You are brief.")
        for event in chat.send("Hello! Who are you?"):
            if event.kind == EventKind.CONTENT:
                print(event.text, end="", flush=True)

    `messages` is a plain OpenAI-style list, yours to read and change between answers. When the model asks for a tool,
    the function runs inside poll() or the loop, its result goes back, and the answer streams on. What it raises comes
    out of there; then `messages` is as it was before send(). One thread at a time, but for cancel().
    """

    def __init__(
        self,
        session: Session,
        *,
        system: Optional[str] = None,
        tools: Iterable[Union[Tool, Callable[..., Any]]] = (),
        max_rounds: int = 8,
    ) -> None:
        """max_rounds: how often in one answer the model may ask for tools."""
        if not isinstance(session, Session):
            raise TypeError(f"a Chat needs a dsv.Session, not {session!r}")
        self.session = session
        self.max_rounds = max_rounds
        self.messages: List[Dict[str, Any]] = []
        self._tools: Dict[str, Tool] = {}
        self._options: Dict[str, Any] = {}
        self._running = self._stopping = False
        self._in_use = threading.Lock()
        self._mark = self._rounds = self._answer = 0
        self._clear()
        if system is not None:
            self.messages.append({"role": "system", "content": system})
        for tool in tools:
            self.add_tool(tool)

    def add_tool(
        self,
        function: Union[Tool, Callable[..., Any]],
        *,
        name: Optional[str] = None,
        description: Optional[str] = None,
        schema: Optional[Dict[str, Any]] = None,
    ) -> Tool:
        """Name, description and schema come from the function's name, docstring and annotations if not given."""
        tool = function if isinstance(function, Tool) else Tool(function, name, description, schema)
        self._tools[tool.name] = tool
        return tool

    @property
    def running(self) -> bool:
        """True until the answer's last event has been polled."""
        return self._running

    def start(self, text: str, **options: Any) -> None:
        """Starts an answer and returns at once: step the engine and poll(). Stops an answer that still runs.

        Options: see dsv.generate_options.
        """
        with self._used():
            self._stop()
            self._mark = len(self.messages)
            self._rounds = 0
            self._answer += 1
            self._options = options
            self.messages.append({"role": "user", "content": text})
            self._request()
            self._running = True

    def poll(self) -> Optional[Event]:
        """The answer's next event, or None. Tools run in here."""
        with self._used():
            return self._poll()

    def send(self, text: str, **options: Any) -> Iterator[Event]:
        """Starts an answer and yields its events; steps the engine meanwhile. Leaving the loop stops the answer."""
        self.start(text, **options)
        return self._stream(self._answer)

    def ask(self, text: str, listener: Optional[Callable[[Event], Any]] = None, **options: Any) -> str:
        """The answer's text after all tools. The listener is called with every event; what it raises stops the answer
        and comes out."""
        content: List[str] = []
        for event in self.send(text, **options):
            if event.kind == EventKind.CONTENT:
                content.append(event.text)
            elif event.finish_reason == FinishReason.TOOL_CALLS:
                content.clear()
            if listener is not None:
                listener(event)
        return "".join(content)

    def cancel(self) -> None:
        """From any thread: ends the answer soon. What there is of it stays in the messages."""
        self.session.cancel()

    def stop(self) -> None:
        """Ends a running answer now; what there is of it stays in the messages. Nothing happens if none runs."""
        with self._used():
            self._stop()

    @contextlib.contextmanager
    def _used(self) -> Iterator[None]:
        if not self._in_use.acquire(blocking=False):
            raise DsvError(
                Status.BUSY,
                "a tool of this chat or another thread is using it: use the chat again when that has returned",
            )
        try:
            yield
        finally:
            self._in_use.release()

    def _poll(self) -> Optional[Event]:
        event = self.session.poll() if self._running else None
        if event is not None:
            self._take(event)
        return event

    def _stop(self) -> None:
        if not self._running:
            return
        if self.session.closed:
            self._running = False
            return
        self._stopping = True
        try:
            self.session.cancel()
            while self._running:
                if self._poll() is None:
                    self.session.model.engine.step(STEP_US)
        finally:
            self._running = self._stopping = False

    def _stream(self, answer: int) -> Iterator[Event]:
        try:
            while self._running and self._answer == answer:
                event = self.poll()
                if event is None:
                    self.session.model.engine.step(STEP_US)
                else:
                    yield event
        finally:
            if self._answer == answer:
                self.stop()

    def _request(self) -> None:
        request: Dict[str, Any] = {"messages": self.messages}
        if self._tools:
            request["tools"] = [tool.declaration() for tool in self._tools.values()]
        try:
            self.session.chat(json.dumps(request, ensure_ascii=False), **self._options)
        except BaseException:
            self._fail()
            raise

    def _clear(self) -> None:
        self._content: List[str] = []
        self._reasoning: List[str] = []
        self._calls: List[Dict[str, Any]] = []

    def _fail(self) -> None:
        """Back to before send()."""
        try:
            self._stop()
        finally:
            self._running = False
            self._clear()
            del self.messages[self._mark :]

    def _take(self, event: Event) -> None:
        if event.kind == EventKind.CONTENT:
            self._content.append(event.text)
        elif event.kind == EventKind.REASONING:
            self._reasoning.append(event.text)
        elif event.kind == EventKind.TOOL_END:
            function = {"name": event.tool_name, "arguments": event.text}
            self._calls.append({"id": event.tool_id, "type": "function", "function": function})
        elif event.kind == EventKind.FINISHED:
            self._finish(event)

    def _finish(self, event: Event) -> None:
        if event.finish_reason == FinishReason.ERROR:
            self._running = False
            self._fail()
            raise DsvError(event.status, event.text)
        message: Dict[str, Any] = {"role": "assistant", "content": "".join(self._content)}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        calls = self._calls if event.finish_reason == FinishReason.TOOL_CALLS and not self._stopping else []
        if calls:
            message["tool_calls"] = calls
        self.messages.append(message)
        self._clear()
        if not calls:
            self._running = False
            return
        try:
            self._rounds += 1
            if self._rounds > self.max_rounds:
                raise DsvError(
                    Status.UNSUPPORTED,
                    f"the model still asked for tools after {self.max_rounds} rounds: raise max_rounds, or ask for less",
                )
            for call in calls:
                self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": self._call(call)})
        except BaseException:
            self._running = False
            self._fail()
            raise
        self._request()

    def _call(self, call: Dict[str, Any]) -> str:
        name = call["function"]["name"]
        if name not in self._tools:  # the model's mistake: it is told
            return f"error: there is no tool {name}"
        return self._tools[name].call(call["function"]["arguments"])
