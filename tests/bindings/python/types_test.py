"""A type checker finds the package's hints, accepts right programs and refuses wrong ones."""

import os
import shutil
import subprocess
import tempfile
import unittest

import dsv

RIGHT = """
import dsv
from typing import Optional

def shout(text: str) -> str:
    return text.upper()

with dsv.Engine(threads=1) as engine, dsv.Model(engine, "x") as model, dsv.Session(model) as session:
    chat = dsv.Chat(session, tools=[shout])
    text: str = chat.ask("Hello!", print)
    for event in chat.send("Hello!", temperature=0.5):
        kind: dsv.EventKind = event.kind
        print(event.text.upper(), kind.name, event.top[0][1] + 0.5)
    polled: Optional[dsv.Event] = session.poll()
    view: memoryview = session.logits([1], 0, 1, dsv.Logits.MAIN)
    columns: int = model.info.vocab_size
    has_chat: bool = model.info.has_chat
    ids: list[int] = model.tokenizer().encode("x")
    try:
        engine.step(5)
    except dsv.DsvError as error:
        print(error.status, error.sentence)
"""
WRONG = """
import dsv
with dsv.Engine() as engine, dsv.Model(engine, 5) as model:
    engine.step("x")
    dsv.Session(engine)
    dsv.Session(model).poll().text
    dsv.Chat(model)
    model.tokenizer().decode("x")
    model.info.vocabulary
"""


@unittest.skipUnless(shutil.which("mypy"), "mypy is not installed")
class TypesTest(unittest.TestCase):
    def check(self, **programs):
        """By file, the package's too: the numbers of the lines with errors. And all that mypy says."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in programs.items():
                with open(os.path.join(folder, name + ".py"), "w") as file:
                    file.write(text)
            environment = {**os.environ, "MYPYPATH": os.path.dirname(os.path.dirname(dsv.__file__))}
            command = ["mypy", "--strict", "--no-error-summary", "."]
            run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        errors = [line.split(":")[:2] for line in run.stdout.splitlines() if ": error: " in line]
        lines = {name + ".py": [] for name in programs}
        for file, line in errors:
            lines.setdefault(file, []).append(int(line))
        return lines, run.stdout + run.stderr

    def test_the_marker_is_there(self):
        self.assertTrue(os.path.isfile(os.path.join(os.path.dirname(dsv.__file__), "py.typed")))

    def test_programs(self):
        errors, said = self.check(right=RIGHT, wrong=WRONG)
        self.assertEqual(errors, {"right.py": [], "wrong.py": list(range(3, 10))}, said)


if __name__ == "__main__":
    unittest.main()
