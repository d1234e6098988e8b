"""overhead.py C_PROGRAM [TOKENS [ROUNDS]]: what an event costs in Python beyond C.

Streaming makes three calls a token: a poll that gives the event, one that gives none, and a step. Each is measured by
itself, the model's own work apart, in C and in Python by turns; the medians over the rounds are compared.
"""

import statistics
import subprocess
import sys
import time

import dsv
from support import random_checkpoint

CALLS = ("poll, an event", "poll, none", "step, idle")


def measure(path: str, tokens: int) -> list:
    with dsv.Engine(threads=1) as engine, dsv.Model(engine, path) as model, dsv.Session(model) as session:
        session.complete([1, 2, 3], max_tokens=tokens, ignore_eos=True, logprobs=0)
        engine.run()
        clock = time.perf_counter_ns
        events = 0
        text = []
        start = clock()
        while True:
            event = session.poll()
            events += 1
            if event.kind == dsv.EventKind.CONTENT:
                text.append(event.text)
            elif event.kind == dsv.EventKind.FINISHED:
                break
        results = [(clock() - start) / events]
        for call in (session.poll, lambda: engine.step(1000)):
            start = clock()
            for _ in range(tokens):
                call()
            results.append((clock() - start) / tokens)
        return results


def main() -> None:
    program = sys.argv[1]
    tokens = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 9
    path = random_checkpoint()
    python, c = [], []
    for _ in range(rounds):
        run = subprocess.run([program, path, str(tokens)], check=True, capture_output=True, text=True)
        c.append([float(line) for line in run.stdout.split()])
        python.append(measure(path, tokens))
    print(f"{dsv.build_info()}; {rounds} rounds of {tokens} tokens; microseconds a call, median (lowest to highest)")
    total = 0.0
    for index, call in enumerate(CALLS):
        row = f"{call:<16}"
        for name, rounds_of in (("C", c), ("Python", python)):
            values = sorted(results[index] / 1000 for results in rounds_of)
            row += f"  {name} {statistics.median(values):6.2f} ({values[0]:.2f} to {values[-1]:.2f})"
        total += statistics.median(results[index] for results in python) - statistics.median(results[index] for results in c)
        print(row)
    print(f"Python beyond C, an event with its step: {total / 1000:.2f} us")


main()
