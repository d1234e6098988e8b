"""A model that says what it is told to (scripted_checkpoint.cpp): every event of an answer is known beforehand."""

import os
import threading
import unittest

import dsv
from dsv import EventKind, FinishReason, Status


def calculator(expression: str) -> str:
    """Compute an arithmetic expression."""
    return {"6 * 7": "42", "1 + 1": "again", "2 + 2": "again"}[expression]


class ScriptedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.engine = dsv.Engine(threads=1)
        cls.model = dsv.Model(cls.engine, os.environ["DSV_SCRIPTED"])

    @classmethod
    def tearDownClass(cls):
        cls.model.close()
        cls.engine.close()

    def setUp(self):
        self.session = dsv.Session(self.model)
        self.addCleanup(self.session.close)
        self.chat = dsv.Chat(self.session, tools=[calculator])

    def answer(self, text, **options):
        return [event for event in self.chat.send(text, **options) if event.kind != EventKind.PREFILL]

    def test_pieces(self):
        for key, pieces in (
            ("#hello", ["Hello", " there", "!"]),
            ("#emoji", ["A hand: ", "👍", " and that is all."]),  # the emoji is four tokens
            ("#nul", ["before", "\0", "after"]),
        ):
            events = self.answer(key)
            self.assertEqual([event.text for event in events[:-1]], pieces)
            self.assertEqual({event.kind for event in events[:-1]}, {EventKind.CONTENT})
            self.assertEqual(events[-1].finish_reason, FinishReason.STOP)

    def test_thinking(self):
        events = self.answer("#think", thinking=True)
        self.assertEqual(
            [(event.kind, event.text) for event in events[:-1]],
            [(EventKind.REASONING, "Hmm, "), (EventKind.REASONING, "hmm."), (EventKind.CONTENT, "So be it.")],
        )
        self.assertEqual(self.chat.messages[-1]["reasoning_content"], "Hmm, hmm.")

    def test_tool_loop(self):
        events = self.answer("#calculator")
        kinds = [event.kind for event in events]
        self.assertEqual(kinds[0], EventKind.TOOL_BEGIN)
        self.assertEqual(
            [kind for kind in kinds if kind in (EventKind.TOOL_END, EventKind.CONTENT, EventKind.FINISHED)],
            [EventKind.TOOL_END, EventKind.FINISHED, EventKind.CONTENT, EventKind.CONTENT, EventKind.FINISHED],
        )
        end = events[kinds.index(EventKind.TOOL_END)]
        self.assertEqual((end.tool_name, end.text), ("calculator", '{"expression": "6 * 7"}'))
        deltas = "".join(event.text for event in events if event.kind == EventKind.TOOL_DELTA)
        self.assertEqual(deltas, end.text)
        self.assertEqual(self.chat.messages[-2]["content"], "42")
        self.assertEqual(self.chat.messages[-1]["content"], "That is all I know.")

    def test_an_unknown_tool(self):
        self.assertEqual(self.chat.ask("#ghost"), "That is all I know.")
        self.assertEqual(self.chat.messages[-2]["content"], "error: there is no tool ghost")

    def test_rounds_are_bounded(self):
        with self.assertRaisesRegex(dsv.DsvError, "8 rounds"):
            self.chat.ask("#loop")
        self.assertEqual(self.chat.messages, [])
        self.assertEqual(self.chat.ask("#hello"), "Hello there!")

    def test_what_a_tool_raises_comes_back(self):
        class Mine(BaseException):
            pass

        def calculator(expression: str) -> str:
            raise Mine(expression)

        self.chat.add_tool(calculator)
        with self.assertRaisesRegex(Mine, "6 \\* 7"):
            self.answer("#calculator")
        self.assertEqual(self.chat.messages, [])
        self.assertEqual(self.chat.ask("#hello"), "Hello there!")

    def test_a_tool_closes_the_session(self):
        def calculator(expression: str) -> str:
            self.session.close()
            return "42"

        self.chat.add_tool(calculator)
        with self.assertRaisesRegex(dsv.DsvError, "this session is closed") as caught:
            self.answer("#calculator")
        self.assertIs(caught.exception.status, Status.INVALID_ARGUMENT)

    def test_a_tool_talks_to_another_session(self):
        def calculator(expression: str) -> str:
            with dsv.Session(self.model) as other:
                return dsv.Chat(other).ask("#hello")

        self.chat.add_tool(calculator)
        self.assertEqual(self.chat.ask("#calculator"), "That is all I know.")
        self.assertEqual(self.chat.messages[-2]["content"], "Hello there!")

    def test_another_thread_is_told_that_the_chat_is_in_use(self):
        refused = []

        def meddle():
            for use in (self.chat.poll, self.chat.stop, lambda: self.chat.start("#hello")):
                try:
                    use()
                except dsv.DsvError as error:
                    refused.append(error.status)

        def calculator(expression: str) -> str:
            thread = threading.Thread(target=meddle)
            thread.start()
            thread.join()
            return "42"

        self.chat.add_tool(calculator)
        self.assertEqual(self.chat.ask("#calculator"), "That is all I know.")
        self.assertEqual(refused, [Status.BUSY] * 3)

    def test_cancelled_from_a_thread(self):
        said = threading.Event()
        thread = threading.Thread(target=lambda: (said.wait(), self.chat.cancel()))
        thread.start()
        for event in self.chat.send("#spin"):
            if event.kind == EventKind.CONTENT:
                said.set()
        thread.join()
        self.assertEqual(event.finish_reason, FinishReason.CANCELLED)
        self.assertTrue(self.chat.messages[-1]["content"].startswith("and on "))


if __name__ == "__main__":
    unittest.main()
