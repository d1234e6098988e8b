"""What the tests share. DSV_TOOL is the dsv program, DSV_NANO the folder of the bundled checkpoint, DSV_SCRIPTED that of
the one that says what it is told to.

Without a bundled one a random checkpoint stands in: it says anything, for as long as it may.
"""

import atexit
import os
import shutil
import subprocess
import tempfile
import unittest

import dsv

NANO = os.environ.get("DSV_NANO", "")
TRAINED = os.path.isfile(os.path.join(NANO, "config.json"))
needs_trained = unittest.skipUnless(TRAINED, f"there is no trained checkpoint in {NANO or 'DSV_NANO'}")

_made = []


def random_checkpoint() -> str:
    """Made once a process: 512 tokens, a context of 2048."""
    if not _made:
        folder = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, folder, True)
        path = os.path.join(folder, "model")
        subprocess.run(
            [os.environ["DSV_TOOL"], "synth", "--preset", "tiny", "--out", path], check=True, capture_output=True
        )
        _made.append(path)
    return _made[0]


def checkpoint() -> str:
    return NANO if TRAINED else random_checkpoint()


class ModelTest(unittest.TestCase):
    """A test with `engine` and `model` open, on the bundled checkpoint if there is one, and a new `session` for each."""

    RANDOM = False  # True: always the random one, which does not end its answers

    @classmethod
    def setUpClass(cls):
        cls.path = random_checkpoint() if cls.RANDOM else checkpoint()
        cls.engine = dsv.Engine(threads=2)
        cls.model = dsv.Model(cls.engine, cls.path)

    @classmethod
    def tearDownClass(cls):
        cls.model.close()
        cls.engine.close()

    def setUp(self):
        self.session = dsv.Session(self.model)
        self.addCleanup(self.session.close)
