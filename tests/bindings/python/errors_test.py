"""Errors are exceptions with a status and a sentence; wrong types say what is right."""

import json
import os
import pickle
import shutil
import tempfile
import unittest

import dsv
from dsv import Status
from support import ModelTest, checkpoint


class StatusTest(ModelTest):
    def expect(self, status, pattern, call, *arguments, **options):
        with self.assertRaisesRegex(dsv.DsvError, pattern) as caught:
            call(*arguments, **options)
        self.assertIs(caught.exception.status, status)
        self.assertEqual(caught.exception.sentence, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def test_statuses(self):
        self.expect(Status.INVALID_ARGUMENT, "budget", self.engine.step, -1)
        self.expect(Status.INVALID_ARGUMENT, "messages|JSON", self.session.chat, "{")
        self.expect(Status.INVALID_ARGUMENT, "temperature", self.session.complete, [1], temperature=-1.0)
        self.expect(Status.UNSUPPORTED, "nothing", dsv.Engine, backend="nothing")
        self.expect(Status.INVALID_ARGUMENT, "NUL", dsv.Engine, backend="cpu\0")
        self.expect(Status.INVALID_ARGUMENT, "token", self.session.complete, [10**6])
        self.expect(Status.IO, "/no/such/folder", dsv.Model, self.engine, "/no/such/folder")
        self.expect(Status.BUDGET, "weight_budget", dsv.Model, self.engine, self.path, weight_budget_bytes=1)

    def test_busy(self):
        self.session.complete([1, 2], max_tokens=3)
        self.expect(Status.BUSY, "request", self.session.complete, [1, 2])
        list(self.session.events())
        self.session.complete([1, 2], max_tokens=1)

    def test_stop_strings_have_a_limit(self):
        self.expect(Status.INVALID_ARGUMENT, "stop", self.session.complete, [1], stop=["x"] * 17)

    def test_a_damaged_checkpoint(self):
        with tempfile.TemporaryDirectory() as folder:
            broken = os.path.join(folder, "broken")
            shutil.copytree(checkpoint(), broken)
            file = os.path.join(broken, "config.json")
            with open(file) as config:
                values = json.load(config)
            values["hidden_size"] = -3
            os.chmod(broken, 0o755)
            os.remove(file)
            with open(file, "w") as config:
                json.dump(values, config)
            self.expect(Status.INVALID_FILE, "config.json.*hidden_size", dsv.Model, self.engine, broken)

    def test_a_cancelled_load(self):
        for _ in range(20):
            with dsv.Model(self.engine, self.path, wait=False) as model:
                model.cancel_load()
                try:
                    model.wait()  # it was quicker
                    self.assertEqual(model.progress().state, dsv.LoadState.READY)
                except dsv.DsvError as error:
                    self.assertIs(error.status, Status.CANCELLED)
                    self.expect(Status.NOT_READY, "load", lambda: model.info)
                    self.expect(Status.NOT_READY, "load", dsv.Session, model)

    def test_loading_without_waiting(self):
        with dsv.Model(self.engine, self.path, wait=False) as model:
            while not model.wait(0.01):
                pass
            progress = model.progress()
            self.assertEqual((progress.state, progress.done), (dsv.LoadState.READY, progress.total))

    def test_the_exception_can_be_pickled(self):
        error = dsv.DsvError(2, "busy")
        again = pickle.loads(pickle.dumps(error))
        self.assertEqual((again.status, again.sentence), (Status.BUSY, "busy"))
        self.assertEqual(dsv.DsvError(12345, "newer").status, 12345)


class WrongTypeTest(ModelTest):
    def expect(self, kind, pattern, call, *arguments, **options):
        with self.assertRaisesRegex(kind, pattern):
            call(*arguments, **options)

    def test_handles(self):
        self.expect(TypeError, "needs a dsv.Engine", dsv.Model, None, self.path)
        self.expect(TypeError, "needs a dsv.Engine", dsv.Model, self.path, self.engine)
        self.expect(TypeError, "needs a dsv.Model", dsv.Session, self.engine)
        self.expect(TypeError, "needs a dsv.Session", dsv.Chat, self.model)

    def test_options(self):
        self.expect(TypeError, "threads must be int", dsv.Engine, threads="4")
        self.expect(TypeError, "there is no option 'thread'.*threads", dsv.Engine, thread=4)
        self.expect(TypeError, "there is no option 'hooks'", dsv.Engine, hooks=None)
        self.expect(TypeError, "there is no option 'this'", dsv.Engine, this=None)
        self.expect(TypeError, "temperature must be float", self.session.complete, [1], temperature="hot")
        self.expect(TypeError, "max_tokens must be int", self.session.complete, [1], max_tokens=1.5)
        self.expect(TypeError, "thinking must be bool", self.session.complete, [1], thinking="yes")
        self.expect(TypeError, "text must be str", self.session.complete, [1], stop=[5])
        self.expect(TypeError, "backend must be str", dsv.Engine, backend=5)
        self.expect(OverflowError, "seed", self.session.complete, [1], seed=-1)
        self.expect(OverflowError, "top_k", self.session.complete, [1], top_k=2**40)

    def test_text(self):
        for wrong in (None, 5, ["x"], bytearray(b"{}")):
            self.expect(TypeError, "text must be str or bytes", self.session.chat, wrong)
        self.expect(TypeError, "", dsv.Model, self.engine, 5)

    def test_ids(self):
        self.expect(TypeError, "sequence of int", self.session.complete, 5)
        self.expect(TypeError, "integer", self.session.complete, [1.5])
        self.expect(TypeError, "integer", self.session.complete, "ab")
        self.expect(OverflowError, "index 1", self.session.complete, [1, 2**31])
        self.expect(OverflowError, "", self.session.complete, [2**80])
        self.session.complete(iter((1, 2)), max_tokens=1)  # any iterable of int

    def test_numbers(self):
        self.expect(TypeError, "", self.engine.step, "1")
        self.expect(TypeError, "", self.engine.step, None)
        self.expect(OverflowError, "", self.engine.step, 2**70)


class LibraryTest(unittest.TestCase):
    def test_what_it_says_of_itself(self):
        self.assertRegex(dsv.__version__, r"^\d+\.\d+\.\d+$")
        self.assertIn(dsv.__version__, dsv.build_info())
        self.assertTrue(dsv.has_feature("backend.cpu"))
        self.assertFalse(dsv.has_feature("no.such"))
        for target in dsv.cpu_targets():
            self.assertTrue(dsv.has_feature(f"cpu.{target}"))

    def test_plan_and_inspect(self):
        with dsv.Engine() as engine:
            plan = engine.plan(checkpoint(), context_tokens=256)
            self.assertGreater(plan.weight_bytes, 0)
            self.assertEqual(json.loads(engine.inspect(checkpoint()))["config"]["model_type"], "deepseek_v32")

    def test_no_native_name_leaks(self):
        for name in dsv.__all__:
            self.assertTrue(hasattr(dsv, name), name)


if __name__ == "__main__":
    unittest.main()
