"""Events by generator and by polling."""

import json
import unittest

import dsv
from dsv import EventKind, FinishReason
from support import TRAINED, ModelTest

HELLO = json.dumps({"messages": [{"role": "user", "content": "Hello! Who are you?"}]})
OPTIONS = {"temperature": 0, "max_tokens": 20}


class SessionTest(ModelTest):
    def polled(self):
        events = []
        while not events or events[-1].kind != EventKind.FINISHED:
            event = self.session.poll()
            if event is None:
                self.engine.step(1000)
            else:
                events.append(event)
        return events

    def test_the_generator_yields_what_polling_gives(self):
        request = self.session.chat(HELLO, **OPTIONS)
        streamed = list(self.session.events())
        self.session = dsv.Session(self.model)
        self.assertEqual(self.session.chat(HELLO, **OPTIONS), request)
        polled = self.polled()
        text = "".join(event.text for event in streamed if event.kind == EventKind.CONTENT)
        self.assertEqual(text, "".join(event.text for event in polled if event.kind == EventKind.CONTENT))
        self.assertTrue(text)
        self.assertEqual(streamed[-1], polled[-1])
        self.assertIsNone(self.session.poll())

    def test_fields(self):
        request = self.session.chat(HELLO, **OPTIONS)
        events = list(self.session.events())
        self.assertEqual({event.request for event in events}, {request})
        self.assertIs(events[0].kind, EventKind.PREFILL)
        self.assertIs(events[-1].kind, EventKind.FINISHED)
        self.assertEqual([event.kind for event in events].count(EventKind.FINISHED), 1)
        prefill = [event for event in events if event.kind == EventKind.PREFILL][-1]
        self.assertEqual(prefill.done, prefill.total)
        self.assertEqual(events[-1].prompt_tokens, prefill.total)
        self.assertIn(events[-1].finish_reason, (FinishReason.STOP, FinishReason.LENGTH))
        self.assertEqual(events[-1].status, dsv.Status.OK)
        self.assertGreater(events[-1].completion_tokens, 0)

    def test_the_same_seed_gives_the_same_text(self):
        def text(seed):
            with dsv.Session(self.model) as session:
                session.chat(HELLO, temperature=1.0, max_tokens=12, seed=seed, ignore_eos=True)
                return "".join(event.text for event in session.events() if event.kind == EventKind.CONTENT)

        self.assertEqual(text(7), text(7))
        self.assertNotEqual(text(7), text(8))

    def test_tokens_with_log_probabilities(self):
        ids = self.model.tokenizer().encode("Hello")
        self.session.complete(ids, max_tokens=5, temperature=0, logprobs=3, ignore_eos=True)
        tokens = [event for event in self.session.events() if event.kind == EventKind.TOKEN]
        self.assertEqual(len(tokens), 5)
        for event in tokens:
            self.assertEqual(len(event.top), 3)
            # The likeliest of all; greedy, too, takes only ids that have a token, which the random checkpoint's may lack.
            self.assertGreaterEqual(event.top[0][1], event.logprob)
            if TRAINED:
                self.assertEqual(event.top[0], (event.token, event.logprob))
            self.assertEqual(sorted(event.top, key=lambda pair: -pair[1]), list(event.top))
        self.assertEqual(self.session.tokens()[: len(ids)], ids)

    def test_a_bias_forces_a_token(self):
        self.session.complete([1, 2], max_tokens=3, logit_bias={70: 1e9}, logprobs=0, ignore_eos=True)
        self.assertEqual([event.token for event in self.session.events() if event.kind == EventKind.TOKEN], [70] * 3)

    def test_a_stop_string_ends_the_answer(self):
        tokenizer = self.model.tokenizer()
        (a,) = tokenizer.encode("a")
        for stop in ("aa", ["zz", "aa"]):
            self.session.complete([a], max_tokens=9, logit_bias={a: 1e9}, stop=stop, ignore_eos=True)
            events = list(self.session.events())
            self.assertEqual(events[-1].finish_reason, FinishReason.STOP_STRING)
            self.assertNotIn("aa", "".join(event.text for event in events))

    def test_leaving_the_loop_cancels_the_request(self):
        self.session.complete([1, 2], ignore_eos=True)
        for event in self.session.events():
            if event.kind == EventKind.CONTENT:
                break
        self.session.complete([1, 2], max_tokens=1)  # not busy
        self.assertEqual(list(self.session.events())[-1].finish_reason, FinishReason.LENGTH)

    def test_what_the_loop_raises_stops_the_request_and_comes_out(self):
        self.session.complete([1, 2], ignore_eos=True)
        try:
            for event in self.session.events():
                raise KeyError("mine")
        except KeyError as error:
            self.assertEqual(error.args, ("mine",))
            self.session.complete([1, 2], max_tokens=1)  # not busy, even here
        self.assertEqual(list(self.session.events())[-1].finish_reason, FinishReason.LENGTH)

    def test_a_loop_that_was_left_long_ago_leaves_the_next_request_alone(self):
        self.session.complete([1, 2], ignore_eos=True)
        old = self.session.events()
        next(old)
        self.session.cancel()
        self.assertEqual(self.polled()[-1].finish_reason, FinishReason.CANCELLED)
        self.session.complete([1, 2], max_tokens=3, ignore_eos=True)
        self.assertEqual(list(old), [])
        del old
        self.assertEqual(list(self.session.events())[-1].finish_reason, FinishReason.LENGTH)

    def test_no_request_has_no_events(self):
        self.assertEqual(list(self.session.events()), [])
        self.session.complete([1, 2], max_tokens=1)
        self.assertTrue(list(self.session.events()))
        self.assertEqual(list(self.session.events()), [])

    def test_two_sessions_share_the_steps(self):
        with dsv.Session(self.model) as other:
            for session in (self.session, other):
                session.complete([1, 2, 3], max_tokens=6, temperature=0, ignore_eos=True)
            self.engine.run()
            queued = [[], []]
            for session, events in zip((self.session, other), queued):
                while (event := session.poll()) is not None:
                    events.append(event)
            self.assertEqual([event.text for event in queued[0]], [event.text for event in queued[1]])
            self.assertEqual(queued[0][-1].kind, EventKind.FINISHED)


class ChatTest(ModelTest):
    def test_send(self):
        chat = dsv.Chat(self.session, system="You are brief.")
        text = "".join(event.text for event in chat.send("Hello!", **OPTIONS) if event.kind == EventKind.CONTENT)
        self.assertEqual([message["role"] for message in chat.messages], ["system", "user", "assistant"])
        self.assertEqual(chat.messages[-1]["content"], text)
        self.assertFalse(chat.running)

    def test_a_turn_computes_only_what_is_new(self):
        chat = dsv.Chat(self.session)
        chat.ask("Hello! Who are you?", **OPTIONS)
        *_, finished = chat.send("Thanks!", **OPTIONS)
        self.assertGreater(finished.cached_tokens, 5)

    def test_frames(self):
        chat = dsv.Chat(self.session)
        chat.start("Hello!", **OPTIONS)
        said, frames = "", 0
        while chat.running:
            self.engine.step(200)
            frames += 1
            while (event := chat.poll()) is not None:
                said += event.text
        self.assertEqual(chat.messages[-1]["content"], said)
        self.assertGreater(frames, 1)
        self.assertIsNone(chat.poll())

    def test_ask_and_the_listener(self):
        chat = dsv.Chat(self.session)
        events = []
        text = chat.ask("Hello!", events.append, **OPTIONS)
        self.assertEqual("".join(event.text for event in events if event.kind == EventKind.CONTENT), text)

        def refuse(event):
            if event.kind == EventKind.CONTENT:
                raise ZeroDivisionError("mine")

        with self.assertRaisesRegex(ZeroDivisionError, "mine"):
            chat.ask("And again!", refuse, **OPTIONS)
        self.assertFalse(chat.running)
        self.assertEqual(chat.messages[-1]["role"], "assistant")  # what there was of it
        chat.ask("And again!", **OPTIONS)

    def test_starting_anew_stops_the_answer(self):
        chat = dsv.Chat(self.session)
        chat.start("Hello!", ignore_eos=True)
        chat.start("No: who are you?", **OPTIONS)
        while chat.running:
            if chat.poll() is None:
                self.engine.step(1000)
        self.assertEqual([message["role"] for message in chat.messages], ["user", "assistant"] * 2)

    def test_a_loop_that_was_left_long_ago_leaves_the_next_answer_alone(self):
        chat = dsv.Chat(self.session)
        old = chat.send("Hello!", ignore_eos=True)
        next(old)
        new = chat.send("No: who are you?", max_tokens=3, ignore_eos=True)
        self.assertEqual(list(old), [])
        del old
        self.assertEqual(list(new)[-1].finish_reason, FinishReason.LENGTH)

    def test_thinking(self):
        chat = dsv.Chat(self.session)
        events = list(chat.send("What is 3 + 4?", thinking=True, temperature=0, max_tokens=20))
        self.assertIn(EventKind.REASONING, {event.kind for event in events})
        self.assertEqual(
            chat.messages[-1].get("reasoning_content", ""),
            "".join(event.text for event in events if event.kind == EventKind.REASONING),
        )


if __name__ == "__main__":
    unittest.main()
