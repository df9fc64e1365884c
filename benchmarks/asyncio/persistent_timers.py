"""A thousand timers of 10 ms that schedule themselves again; an operation is one of them firing."""

import asyncio

from benchmarks.asyncio.loop import loop
from benchmarks.contender import processor_time, serve

TIMERS = 1000
INTERVAL = 0.010


def sample(count: int) -> tuple[int, int]:
    fired = 0
    handles: dict[int, asyncio.TimerHandle] = {}

    def callback(i: int) -> None:
        nonlocal fired
        fired += 1
        handles[i] = loop.call_later(INTERVAL, callback, i)

    for i in range(TIMERS):
        handles[i] = loop.call_later(INTERVAL, callback, i)
    loop.call_later(count / TIMERS * INTERVAL, loop.stop)
    start = processor_time()
    loop.run_forever()
    taken = processor_time() - start
    for handle in handles.values():
        handle.cancel()
    return taken, fired


serve(sample)
