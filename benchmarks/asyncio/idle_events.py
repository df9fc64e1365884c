"""The memory of pending timers: ``idle_events asyncio|uvloop python|resident``."""

import sys

from benchmarks.asyncio.loop import loop
from benchmarks.contender import HOUR, meter, serve

used = meter(sys.argv[2])


def callback() -> None:
    pass


def sample(count: int) -> tuple[int, int]:
    loop.call_later(HOUR, callback)
    before = used()
    for _ in range(count):
        loop.call_later(HOUR, callback)
    return used() - before, count


serve(sample)
