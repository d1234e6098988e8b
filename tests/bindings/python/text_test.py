"""Text both ways: emoji, NUL, lone surrogates, bytes, huge strings."""

import json
import os
import tempfile
import unittest

import dsv
from dsv import EventKind, FinishReason, Status
from support import ModelTest

TRICKY = [
    "",
    "plain",
    "a\0b\0",
    "naïve café",
    "👩‍👩‍👧 🏳️‍🌈 é",
    "\ufffd\uffff\U0010ffff",
    "\r\n\t\x07\x7f",
    "بِسْمِ 漢字 हिन्दी",
]
EOS = "<｜end▁of▁sentence｜>"


class TokenizerTest(ModelTest):
    def setUp(self):
        super().setUp()
        self.tokenizer = self.model.tokenizer()
        self.addCleanup(self.tokenizer.close)

    def test_there_and_back(self):
        for text in TRICKY:
            self.assertEqual(self.tokenizer.decode(self.tokenizer.encode(text)), text.encode(), ascii(text))

    def test_a_lone_surrogate_counts_as_the_replacement_character(self):
        for text, same in (
            ("\ud83d", "\ufffd"),
            ("a\udc80b", "a\ufffdb"),
            ("\ude00\ud83d", "\ufffd\ufffd"),
            ("\ud83d\ude00", "😀"),  # the halves of one character
        ):
            self.assertEqual(self.tokenizer.encode(text), self.tokenizer.encode(same), ascii(text))

    def test_bytes_are_utf8(self):
        self.assertEqual(self.tokenizer.encode("é".encode()), self.tokenizer.encode("é"))
        for wrong in (b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80"):
            with self.assertRaises(dsv.DsvError) as caught:
                self.tokenizer.encode(wrong)
            self.assertIs(caught.exception.status, Status.INVALID_ARGUMENT)
            self.assertIn("UTF-8", str(caught.exception))

    def test_ids_may_cut_a_character(self):
        ids = [self.tokenizer.encode(bytes([byte])) for byte in b"ab"]
        self.assertEqual(self.tokenizer.decode(ids[0] + ids[1]), b"ab")
        whole = self.tokenizer.encode("🜁")  # rare enough to be several tokens
        self.assertGreater(len(whole), 1)
        self.assertEqual(b"".join(self.tokenizer.decode([one]) for one in whole), "🜁".encode())

    def test_megabytes(self):
        text = "Many words, 👍 and more. " * 40_000
        self.assertEqual(self.tokenizer.decode(self.tokenizer.encode(text)), text.encode())

    def test_a_tokenizer_by_itself(self):
        with dsv.Tokenizer(os.path.join(self.path, "tokenizer.json")) as other:
            self.assertEqual(other.encode("Hello, wörld"), self.tokenizer.encode("Hello, wörld"))

    def test_unknown_ids(self):
        for ids in ([-1], [10**6], [2**31 - 1]):
            with self.assertRaises(dsv.DsvError):
                self.tokenizer.decode(ids)


class ChatTextTest(ModelTest):
    def test_encode(self):
        for text in TRICKY:
            for encoded in (json.dumps, lambda value: json.dumps(value, ensure_ascii=False)):
                request = encoded({"messages": [{"role": "user", "content": text}]})
                self.assertIn(text, dsv.chat_encode(request))

    def test_parse(self):
        for text in TRICKY:
            self.assertEqual(json.loads(dsv.chat_parse(text + EOS))["content"], text)

    def test_a_lone_surrogate_in_a_message(self):
        chat = dsv.Chat(self.session)
        chat.ask("half \ud83d of it", max_tokens=2)
        self.assertEqual(chat.messages[0]["content"], "half \ud83d of it")

    def test_every_piece_is_whole_characters(self):
        # Random bytes make for broken sequences; they come out as U+FFFD, never as an exception.
        self.session.complete([1, 2, 3], temperature=2.0, max_tokens=200, ignore_eos=True)
        for event in self.session.events():
            event.text.encode()

    def test_emoji_and_nul_come_out_as_they_are(self):
        tokenizer = self.model.tokenizer()
        for text in ("\0", "👍", "é"):
            ids = tokenizer.encode(text)
            if len(ids) > 1:  # repeat the last byte's token: a bias holds for all positions
                continue
            self.session.complete(ids, max_tokens=2, logit_bias={ids[0]: 1e9}, ignore_eos=True)
            self.assertEqual("".join(event.text for event in self.session.events()), text * 2)

    def test_a_request_longer_than_the_context(self):
        request = json.dumps({"messages": [{"role": "user", "content": "too long " * 300_000}]})
        try:
            self.session.chat(request)
            *_, finished = self.session.events()
            self.assertEqual(finished.finish_reason, FinishReason.CONTEXT_FULL)
        except dsv.DsvError as error:
            self.assertRegex(str(error), "context")
        self.session.complete([1, 2], max_tokens=1)
        self.assertEqual([event.kind for event in self.session.events()][-1], EventKind.FINISHED)

    def test_hostile_requests(self):
        for request in (b"\xff", b"", "null", "[" * 100_000, '{"messages": 1}', '{"messages": [{"role": "\ud800"}]}'):
            with self.assertRaises(dsv.DsvError) as caught:
                self.session.chat(request)
            self.assertIs(caught.exception.status, Status.INVALID_ARGUMENT, request[:20])


class PathTest(ModelTest):
    def test_paths(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("with space", "naïve 🜁"):
                link = os.path.join(folder, name)
                os.symlink(os.path.abspath(self.path), link)
                for path in (link, os.fsencode(link)):
                    dsv.Model(self.engine, path).close()

    def test_a_path_with_nul(self):
        for call in (
            lambda: dsv.Model(self.engine, "a\0b"),
            lambda: self.engine.plan("a\0b"),
            lambda: dsv.Tokenizer("a\0b"),
        ):
            with self.assertRaisesRegex(dsv.DsvError, "NUL"):
                call()

    def test_a_path_that_is_not_utf8(self):
        with self.assertRaises(dsv.DsvError):
            dsv.Model(self.engine, b"/no/such/\xff")


if __name__ == "__main__":
    unittest.main()
