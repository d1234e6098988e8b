"""Closing: context managers, use after close, any order, the collector's included, and the end of the process."""

import gc
import itertools
import subprocess
import sys
import threading
import unittest
import weakref

import dsv
from dsv import EventKind, Status
from support import checkpoint


def handles():
    """An engine, a model, a session that has a request running, and a tokenizer."""
    engine = dsv.Engine(threads=1)
    model = dsv.Model(engine, checkpoint())
    session = dsv.Session(model)
    session.complete([1, 2, 3], max_tokens=4)
    engine.step(1)
    return [engine, model, session, model.tokenizer()]


class LifetimeTest(unittest.TestCase):
    def setUp(self):
        gc.collect()
        self.assertFalse(any(dsv.live_handles().values()), "an earlier test left something open")

    def tearDown(self):
        gc.collect()
        self.assertEqual(set(dsv.live_handles().values()), {0})

    def test_context_managers(self):
        with dsv.Engine() as engine, dsv.Model(engine, checkpoint()) as model, dsv.Session(model) as session:
            with model.tokenizer() as tokenizer:
                session.complete(tokenizer.encode("Hello"), max_tokens=2)
                self.assertEqual([*session.events()][-1].kind, EventKind.FINISHED)
                self.assertFalse(tokenizer.closed)
            self.assertTrue(tokenizer.closed)
        for handle in (engine, model, session):
            self.assertTrue(handle.closed)
            handle.close()  # twice is fine

    def test_a_block_that_raises_closes_too(self):
        with self.assertRaises(ZeroDivisionError):
            with dsv.Engine() as engine, dsv.Model(engine, checkpoint()) as model:
                with dsv.Session(model) as session:
                    raise ZeroDivisionError
        self.assertTrue(session.closed and model.closed and engine.closed)

    def test_closing_in_any_order(self):
        for order in itertools.permutations(range(4)):
            opened = handles()
            for index in order:
                opened[index].close()
            self.assertEqual(set(dsv.live_handles().values()), {0})

    def test_collecting_in_any_order(self):
        for order in itertools.permutations(range(4)):
            opened = handles()
            for index in order:
                opened[index] = None
                gc.collect()
            self.assertEqual(set(dsv.live_handles().values()), {0})

    def test_collecting_a_cycle(self):
        chat = dsv.Chat(handles()[2])
        chat.itself = chat
        chat.add_tool(lambda: chat, name="me", schema={})
        seen = weakref.ref(chat)
        del chat
        gc.collect()
        self.assertIsNone(seen())

    def test_a_session_outlives_the_names_of_its_model_and_engine(self):
        _, _, session, _ = handles()
        gc.collect()
        self.assertEqual([*session.events()][-1].kind, EventKind.FINISHED)

    def test_a_session_outlives_its_closed_model(self):
        engine, model, session, _ = handles()
        model.close()
        self.assertEqual([*session.events()][-1].kind, EventKind.FINISHED)
        engine.close()
        self.assertIsNone(session.poll())
        with self.assertRaisesRegex(dsv.DsvError, "engine is closed"):
            session.complete([1, 2], max_tokens=1)
            list(session.events())

    def test_use_after_close(self):
        engine, model, session, tokenizer = handles()
        chat = dsv.Chat(session)
        for handle in (tokenizer, session, model, engine):
            handle.close()
        for name, call in {
            "engine": lambda: engine.step(1),
            "engine ": engine.run,
            "engine  ": lambda: engine.plan("x"),
            "engine   ": lambda: dsv.Model(engine, checkpoint()),
            "model": lambda: model.info,
            "model ": model.tokenizer,
            "model  ": model.wait,
            "model   ": lambda: dsv.Session(model),
            "session": session.poll,
            "session ": session.tokens,
            "session  ": session.cancel,
            "session   ": lambda: session.chat("{}"),
            "session    ": lambda: list(session.events()),
            "session     ": lambda: chat.ask("Hello!"),
            "tokenizer": lambda: tokenizer.encode("x"),
            "tokenizer ": lambda: tokenizer.decode([1]),
        }.items():
            with self.assertRaisesRegex(dsv.DsvError, f"this {name.strip()} is closed: open") as caught:
                call()
            self.assertIs(caught.exception.status, Status.INVALID_ARGUMENT)
        self.assertEqual(chat.messages, [])

    def test_closing_inside_the_loop(self):
        _, _, session, _ = handles()
        with self.assertRaisesRegex(dsv.DsvError, "this session is closed"):
            for _ in session.events():
                session.close()

    def test_closing_in_another_thread_while_it_steps(self):
        opened = handles()
        engine, _, session, _ = opened
        list(session.events())
        session.complete([1, 2, 3], ignore_eos=True)
        began = threading.Event()

        def step():
            try:
                while True:
                    began.set()
                    engine.step(1_000)
            except dsv.DsvError as error:
                endings.append(str(error))

        endings = []
        thread = threading.Thread(target=step)
        thread.start()
        began.wait()
        for handle in opened:
            handle.close()
        thread.join()
        self.assertEqual(endings, ["this engine is closed: open a new one, or close it later"])

    def test_the_process_ends_with_everything_open(self):
        script = """
import sys, threading, dsv
engine = dsv.Engine(threads=2)
model = dsv.Model(engine, sys.argv[1])
session = dsv.Session(model)
session.complete([1, 2, 3], ignore_eos=True)
stream = session.events()
next(stream)
def forever():
    while True:
        try:
            engine.step(1000)
        except dsv.DsvError:
            return
threading.Thread(target=forever, daemon=True).start()
cycle = [engine, model, session, stream]
cycle.append(cycle)
print("done", flush=True)
"""
        for _ in range(5):
            run = subprocess.run(
                [sys.executable, "-c", script, checkpoint()], capture_output=True, text=True, timeout=60
            )
            self.assertEqual((run.returncode, run.stdout), (0, "done\n"), run.stderr)

    def test_a_failed_load_leaves_nothing(self):
        with dsv.Engine() as engine:
            with self.assertRaises(dsv.DsvError):
                dsv.Model(engine, "/no/such/folder")
            self.assertEqual(dsv.live_handles()["models"], 0)


if __name__ == "__main__":
    unittest.main()
