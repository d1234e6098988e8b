"""Threads: cancel from another one, the interpreter's lock, many threads on one engine, Ctrl-C."""

import _thread
import threading
import time
import unittest

import dsv
from dsv import EventKind, FinishReason
from support import ModelTest


class ThreadsTest(ModelTest):
    RANDOM = True  # it talks on until its context is full: some seconds

    def test_others_run_and_cancel_while_one_steps(self):
        # One long call. Were the interpreter's lock held in it, this thread could cancel only after its end.
        self.session.complete([1, 2, 3], ignore_eos=True)
        worker = threading.Thread(target=self.engine.step, args=(600_000_000,))
        worker.start()
        time.sleep(0.1)
        self.session.cancel()
        worker.join()
        *_, finished = self.session.events()
        self.assertEqual(finished.finish_reason, FinishReason.CANCELLED)
        self.assertGreater(finished.completion_tokens, 0)

    def test_loading_lets_others_run(self):
        models = []
        loader = threading.Thread(target=lambda: models.append(dsv.Model(self.engine, self.path)))
        loader.start()
        loader.join()
        models[0].close()

    def test_cancelling_a_chat_from_another_thread(self):
        chat = dsv.Chat(self.session)
        said = threading.Event()

        def cancel():
            said.wait()
            chat.cancel()

        other = threading.Thread(target=cancel)
        other.start()
        for event in chat.send("Hello!", ignore_eos=True):
            if event.kind == EventKind.CONTENT:
                said.set()
        other.join()
        self.assertEqual(event.finish_reason, FinishReason.CANCELLED)
        self.assertEqual(chat.messages[-1]["role"], "assistant")

    def test_threads_take_turns_on_one_engine(self):
        wanted = self.answer(self.session)
        answers, failures = [], []

        def talk():
            try:
                with dsv.Session(self.model) as session:
                    for _ in range(3):
                        answers.append(self.answer(session))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=talk) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(answers, [wanted] * 18)

    def answer(self, session):
        session.complete([1, 2, 3], temperature=0, max_tokens=8, ignore_eos=True)
        return [event.text for event in session.events() if event.kind == EventKind.CONTENT]

    def test_engines_are_independent(self):
        def work():
            with dsv.Engine(threads=1) as engine, dsv.Model(engine, self.path) as model, dsv.Session(model) as session:
                answers.append(self.answer(session))

        answers = []
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(answers, [self.answer(self.session)] * 4)

    def test_ctrl_c_stops_an_answer_and_leaves_the_session_usable(self):
        chat = dsv.Chat(self.session)
        with self.assertRaises(KeyboardInterrupt):
            for event in chat.send("Hello!", ignore_eos=True):
                if event.kind == EventKind.CONTENT:
                    _thread.interrupt_main()
        self.assertFalse(chat.running)
        chat.ask("Again!", max_tokens=2)

    def test_a_chat_moves_between_threads(self):
        chat = dsv.Chat(self.session)
        for _ in range(3):
            thread = threading.Thread(target=chat.ask, args=("Hello!",), kwargs={"max_tokens": 2})
            thread.start()
            thread.join()
        self.assertEqual(len(chat.messages), 6)


if __name__ == "__main__":
    unittest.main()
