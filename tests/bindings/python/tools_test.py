"""Tools: schemas from annotations, and the loop between model and functions.

The loop's own cases run on a session that says what the test wants; trained_test.py has a model ask for a tool.
"""

import enum
import json
import unittest
from typing import Annotated, Dict, List, Literal, Optional

import dsv
from dsv import EventKind, FinishReason, Status
from support import ModelTest


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


def paint(
    what: Annotated[str, "The thing to paint"],
    color: Color,
    coats: int = 1,
    parts: Optional[List[str]] = None,
    finish: Literal["matt", "gloss"] = "matt",
    price: float = 0.5,
    wet: bool = True,
    more: Dict[str, str] = {},
) -> dict:
    """Paint a thing
    with a brush.

    Takes a while.
    """
    return {"painted": what, "color": color, "coats": coats}


class SchemaTest(unittest.TestCase):
    def test_of_a_function(self):
        self.assertEqual(
            dsv.Tool(paint).declaration(),
            {
                "type": "function",
                "function": {
                    "name": "paint",
                    "description": "Paint a thing with a brush.",
                    "parameters": {
                        "type": "object",
                        "properties": {
                            "what": {"type": "string", "description": "The thing to paint"},
                            "color": {"type": "string", "enum": ["red", "blue"]},
                            "coats": {"type": "integer"},
                            "parts": {"type": "array", "items": {"type": "string"}},
                            "finish": {"type": "string", "enum": ["matt", "gloss"]},
                            "price": {"type": "number"},
                            "wet": {"type": "boolean"},
                            "more": {"type": "object"},
                        },
                        "required": ["what", "color"],
                    },
                },
            },
        )

    def test_what_has_no_schema(self):
        def bare(x):
            pass

        def star(*x: int):
            pass

        def odd(x: complex):
            pass

        for function, pattern in (
            (bare, "x of bare has no annotation"),
            (star, "x of star cannot"),
            (odd, "no JSON schema"),
        ):
            with self.assertRaisesRegex(TypeError, pattern):
                dsv.Tool(function)
            dsv.Tool(function, schema={"type": "object"})

    def test_call(self):
        tool = dsv.Tool(paint)
        self.assertEqual(json.loads(tool.call('{"what": "wall 👍", "color": "red"}')),
                         {"painted": "wall 👍", "color": "red", "coats": 1})  # fmt: skip
        self.assertRegex(tool.call('{"what": "wall"}'), "^error: .*color")
        self.assertRegex(tool.call('{"wall": 1}'), "^error: ")
        self.assertEqual(dsv.Tool(lambda: "as it is", name="f").call("{}"), "as it is")


class Scripted(dsv.Session):
    """A session whose model says what the test wants: a list of events per request."""

    def __init__(self, model, *answers):
        super().__init__(model)
        self.answers = list(answers)
        self.requests = []
        self.queue = []

    def chat(self, request_json, **options):
        self.requests.append(json.loads(request_json))
        self.queue = list(self.answers.pop(0))
        return len(self.requests)

    def poll(self):
        return self.queue.pop(0) if self.queue else None

    def cancel(self):
        self.queue = [event(EventKind.FINISHED, finish_reason=FinishReason.CANCELLED)]


def event(kind, **fields):
    return dsv.Event(
        kind,
        *[fields.get(name, "" if name in ("text", "tool_name", "tool_id") else 0) for name in dsv.Event._fields[1:]],
    )


def calls(*wanted):
    """An answer that calls: (name, arguments as JSON)."""
    events = [
        event(EventKind.TOOL_END, tool_name=name, tool_id=f"call_{index}", tool_index=index, text=arguments)
        for index, (name, arguments) in enumerate(wanted)
    ]
    return events + [event(EventKind.FINISHED, finish_reason=FinishReason.TOOL_CALLS)]


def says(text):
    return [event(EventKind.CONTENT, text=text), event(EventKind.FINISHED, finish_reason=FinishReason.STOP)]


class LoopTest(ModelTest):
    def chat(self, tools, *answers):
        session = Scripted(self.model, *answers)
        self.addCleanup(session.close)
        return dsv.Chat(session, tools=tools)

    def test_the_result_goes_back_and_the_answer_streams_on(self):
        def add(a: int, b: int) -> int:
            """Add two numbers."""
            return a + b

        chat = self.chat([add], calls(("add", '{"a": 2, "b": 3}'), ("add", '{"a": 4, "b": 5}')), says("5 and 9"))
        kinds = [one.kind for one in chat.send("2 + 3? 4 + 5?")]
        self.assertEqual(kinds, [EventKind.TOOL_END] * 2 + [EventKind.FINISHED, EventKind.CONTENT, EventKind.FINISHED])
        self.assertEqual(
            [message["role"] for message in chat.messages], ["user", "assistant", "tool", "tool", "assistant"]
        )
        self.assertEqual([message["content"] for message in chat.messages[2:4]], ["5", "9"])
        self.assertEqual(chat.messages[2]["tool_call_id"], chat.messages[1]["tool_calls"][0]["id"])
        first, second = chat.session.requests
        self.assertEqual(first["tools"][0]["function"]["name"], "add")
        self.assertEqual(second["messages"], chat.messages[:4])
        self.assertTrue(dsv.chat_encode(json.dumps(second)))  # the library takes it

    def test_ask_gives_the_text_after_all_tools(self):
        chat = self.chat([dsv.Tool(lambda: "x", name="f")], says("first")[:1] + calls(("f", "{}")), says("second"))
        self.assertEqual(chat.ask("?"), "second")

    def test_what_a_tool_raises_stops_the_answer_and_comes_out(self):
        def fail() -> str:
            raise ZeroDivisionError("mine")

        for how in (chat_ask, chat_loop, chat_poll):
            chat = self.chat([fail], calls(("fail", "{}")), says("never mind"))
            with self.assertRaisesRegex(ZeroDivisionError, "mine"):
                how(chat)
            self.assertEqual(chat.messages, [])
            self.assertFalse(chat.running)
            self.assertEqual(chat.ask("Again!"), "never mind")

    def test_the_model_is_told_of_its_mistakes(self):
        def add(a: int, b: int) -> int:
            return a + b

        chat = self.chat([add], calls(("sub", "{}"), ("add", '{"a": 1}')), says("sorry"))
        self.assertEqual(chat.ask("?"), "sorry")
        self.assertEqual(chat.messages[2]["content"], "error: there is no tool sub")
        self.assertRegex(chat.messages[3]["content"], "^error: .*b")

    def test_rounds_are_bounded(self):
        chat = self.chat([dsv.Tool(lambda: "x", name="f")], *[calls(("f", "{}"))] * 9)
        with self.assertRaisesRegex(dsv.DsvError, "8 rounds") as caught:
            chat.ask("?")
        self.assertIs(caught.exception.status, Status.UNSUPPORTED)
        self.assertEqual(chat.messages, [])

    def test_a_tool_cannot_use_its_own_chat(self):
        def meddle() -> str:
            for use in (chat.poll, chat.stop, lambda: chat.start("x")):
                with self.assertRaisesRegex(dsv.DsvError, "a tool of this chat or another thread") as caught:
                    use()
                self.assertIs(caught.exception.status, Status.BUSY)
            return "done"

        chat = self.chat([meddle], calls(("meddle", "{}")), says("good"))
        self.assertEqual(chat.ask("?"), "good")

    def test_leaving_the_loop_stops_before_the_tool(self):
        called = []
        chat = self.chat([dsv.Tool(lambda: called.append(1), name="f")], calls(("f", "{}")), says("good"))
        for one in chat.send("?"):
            break
        self.assertEqual(called, [])
        self.assertFalse(chat.running)
        self.assertEqual(chat.messages[-1]["role"], "assistant")
        self.assertNotIn("tool_calls", chat.messages[-1])

    def test_an_error_of_the_library_comes_out(self):
        failed = [
            event(EventKind.FINISHED, finish_reason=FinishReason.ERROR, status=Status.INTERNAL, text="a sentence")
        ]
        chat = self.chat([], failed)
        with self.assertRaisesRegex(dsv.DsvError, "a sentence"):
            chat.ask("?")
        self.assertEqual(chat.messages, [])


def chat_ask(chat):
    chat.ask("?")


def chat_loop(chat):
    for _ in chat.send("?"):
        pass


def chat_poll(chat):
    chat.start("?")
    while chat.running:
        chat.poll()


if __name__ == "__main__":
    unittest.main()
