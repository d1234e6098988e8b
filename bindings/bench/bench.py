"""As bench.c."""

import sys
import time

import dsv

ROUNDS, TOKENS = 20, 200


def main():
    ns = []
    with dsv.Engine() as engine, dsv.Model(engine, sys.argv[1]) as model, dsv.Session(model) as session:
        for _ in range(ROUNDS):
            session.complete([5], max_tokens=TOKENS, ignore_eos=True, seed=1)
            engine.run()
            events = chars = 0
            start = time.perf_counter_ns()
            for event in session.events():
                chars += len(event.text)
                events += 1
            ns.append((time.perf_counter_ns() - start) / events)
            assert chars > 0
    print(f"{events} {sorted(ns)[ROUNDS // 2]:.1f}")


main()
