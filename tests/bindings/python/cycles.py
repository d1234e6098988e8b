"""cycles.py N: N create-generate-close cycles leave memory flat.

The first fifth warms up; from then on the resident memory may grow by what the allocator's arenas move, a page now and
then, and not with the number of cycles: at most 1 MiB, and in 10,000 cycles that is 130 bytes for each. A leaked session
would be thousands. Measured with 10,000 cycles: 16 KiB (2026-11-26).
"""

import gc
import resource
import sys

import dsv
from support import random_checkpoint


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def cycle(path: str) -> None:
    with dsv.Engine(threads=1) as engine, dsv.Model(engine, path, context_tokens=128) as model:
        with dsv.Session(model) as session, model.tokenizer() as tokenizer:
            session.complete(tokenizer.encode("Hi 👍"), max_tokens=2, logprobs=2, stop=["never"], logit_bias={5: 1.0})
            for event in session.events():
                pass
            assert event.kind == dsv.EventKind.FINISHED
            try:
                session.chat("{")
            except dsv.DsvError:
                pass
            # One that is not finished, and one left to the collector.
            session.complete([1, 2, 3])
            dsv.Chat(dsv.Session(model)).start("Hello!")


def main() -> None:
    count = int(sys.argv[1])
    path = random_checkpoint()
    readings = []
    for index in range(count):
        cycle(path)
        if index % max(1, count // 10) == 0:
            gc.collect()
            readings.append(resident())
    gc.collect()
    readings.append(resident())
    left = dsv.live_handles()
    print(f"{count} cycles; resident KiB: {[reading // 1024 for reading in readings]}; live handles: {left}")
    if any(left.values()):
        sys.exit("handles are left open")
    grown = readings[-1] - readings[len(readings) // 5]
    if grown > 1 << 20:
        sys.exit(f"the resident memory has grown by {grown // 1024} KiB")


main()
