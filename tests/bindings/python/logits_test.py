"""Logits come as a buffer: memoryview, array, and numpy where it is installed."""

import array
import math
import unittest

import dsv
from support import ModelTest

try:
    import numpy
except ImportError:
    numpy = None

IDS = [5, 6, 7, 8, 9, 10]


class LogitsTest(ModelTest):
    def test_the_view(self):
        view = self.session.logits(IDS, 1, 3)
        self.assertEqual((view.format, view.shape), ("f", (3, self.model.info.vocab_size)))
        self.assertTrue(all(math.isfinite(value) for row in view.tolist() for value in row))
        last = self.session.logits(IDS, 3, 1)
        self.assertEqual(view[2, 7], last[0, 7])
        self.assertEqual(view.tolist()[2], last.tolist()[0])
        self.assertEqual(self.session.tokens(), IDS)

    def test_they_are_those_of_the_log_probabilities(self):
        self.session.complete(IDS, max_tokens=1, temperature=0, logprobs=5, ignore_eos=True)
        (token,) = [event for event in self.session.events() if event.kind == dsv.EventKind.TOKEN]
        row = self.session.logits(IDS, len(IDS) - 1, 1).tolist()[0]
        highest = max(row)
        total = highest + math.log(math.fsum(math.exp(value - highest) for value in row))
        for one, logprob in token.top:
            # fp32: the sum over the vocabulary, and a difference of numbers near `highest`.
            self.assertAlmostEqual(row[one] - total, logprob, delta=2**-23 * len(row) ** 0.5 * max(1, abs(total)))

    def test_an_array_takes_it(self):
        view = self.session.logits(IDS, 0, 1)
        floats = array.array("f", view.tobytes())
        self.assertEqual(floats[3], view[0, 3])

    def test_bad_ranges(self):
        for first, rows in ((0, 7), (6, 1), (-1, 1), (2, 5), (0, -1), (2**40, 1), (0, 2**40)):
            with self.assertRaises(dsv.DsvError):
                self.session.logits(IDS, first, rows)
        with self.assertRaises(dsv.DsvError):
            self.session.logits([], 0, 1)

    @unittest.skipUnless(numpy, "numpy is not installed")
    def test_numpy_takes_it_without_a_copy(self):
        view = self.session.logits(IDS, 0, len(IDS))
        table = numpy.asarray(view)
        self.assertEqual((table.dtype, table.shape), (numpy.float32, view.shape))
        self.assertTrue(numpy.shares_memory(table, numpy.frombuffer(view, dtype=numpy.float32)))
        self.assertEqual(float(table[4, 2]), view[4, 2])
        ids = numpy.array(IDS, dtype=numpy.int64)
        self.assertTrue(numpy.array_equal(table, numpy.asarray(self.session.logits(ids, 0, len(ids)))))

    def test_draft_logits_need_the_layer(self):
        if self.model.info.has_mtp:
            self.skipTest("this model has loaded it")
        with self.assertRaises(dsv.DsvError):
            self.session.logits(IDS, 0, 2, dsv.Logits.DRAFT)
        with dsv.Model(self.engine, self.path, load_mtp=True) as model, dsv.Session(model) as session:
            if not model.info.has_mtp:
                self.skipTest("the checkpoint has no such layer")
            self.assertEqual(session.logits(IDS, 0, 2, dsv.Logits.DRAFT).shape, (2, model.info.vocab_size))


if __name__ == "__main__":
    unittest.main()
