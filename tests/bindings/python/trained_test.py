"""A trained model asks for a tool, gets the result and answers from it."""

import unittest

import dsv
from dsv import EventKind, FinishReason
from support import ModelTest, needs_trained

QUESTION = "What is the weather in Lisbon on 2026-11-24?"


@needs_trained
class TrainedTest(ModelTest):
    def weather_chat(self, function):
        chat = dsv.Chat(self.session, system="You are a helpful assistant.")
        string = {"type": "string"}
        properties = {
            "city": {**string, "description": "The city name"},
            "date": {**string, "description": "The date in YYYY-MM-DD format"},
        }
        schema = {"type": "object", "properties": properties, "required": ["city", "date"]}
        chat.add_tool(function, name="get_weather", description="Get the weather for a city and date", schema=schema)
        return chat

    def test_tool_loop(self):
        asked = []

        def get_weather(city, date):
            asked.append((city, date))
            return {"sky": "rainy", "temperature": 14}

        chat = self.weather_chat(get_weather)
        events = list(chat.send(QUESTION, temperature=0, max_tokens=100))
        self.assertEqual(asked, [("Lisbon", "2026-11-24")])
        kinds = [event.kind for event in events]
        for kind in (EventKind.TOOL_BEGIN, EventKind.TOOL_DELTA, EventKind.TOOL_END):
            self.assertIn(kind, kinds)
        reasons = [event.finish_reason for event in events if event.kind == EventKind.FINISHED]
        self.assertEqual(reasons, [FinishReason.TOOL_CALLS, FinishReason.STOP])
        answer = chat.messages[-1]["content"]
        self.assertIn("rainy", answer)
        self.assertIn("14", answer)
        self.assertGreater(events[-1].cached_tokens, events[-1].prompt_tokens // 2)  # the second round is short

    def test_what_the_tool_raises_comes_back(self):
        def get_weather(city, date):
            raise OSError("no satellite")

        chat = self.weather_chat(get_weather)
        with self.assertRaisesRegex(OSError, "no satellite"):
            chat.ask(QUESTION, temperature=0, max_tokens=100)
        self.assertEqual([message["role"] for message in chat.messages], ["system"])
        self.assertTrue(chat.ask("Hello!", temperature=0, max_tokens=40))

    def test_thinking_comes_apart_from_the_answer(self):
        chat = dsv.Chat(self.session)
        events = list(chat.send("What is 12 + 30?", thinking=True, temperature=0, max_tokens=200))
        kinds = [event.kind for event in events]
        self.assertLess(kinds.index(EventKind.REASONING), kinds.index(EventKind.CONTENT))
        self.assertNotIn("think>", chat.messages[-1]["content"])
        self.assertGreater(events[-1].reasoning_tokens, 0)


if __name__ == "__main__":
    unittest.main()
