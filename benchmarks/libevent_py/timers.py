"""One-shot timers, scheduled and fired: ``timers once|timer``, by EventBase.once or by Event."""

import sys

from benchmarks.contender import delays, processor_time, serve
from libevent_py import Event, EventBase, EventFlag

base = EventBase()


def once(count: int) -> tuple[int, int]:
    fired = 0

    def callback(fd: int, what: EventFlag) -> None:
        nonlocal fired
        fired += 1

    start = processor_time()
    for delay in delays(count):
        base.once(callback, timeout=delay)
    base.dispatch()
    return processor_time() - start, fired


def timer(count: int) -> tuple[int, int]:
    fired = 0

    def callback(event: Event, fd: int, what: EventFlag) -> None:
        nonlocal fired
        fired += 1

    start = processor_time()
    for delay in delays(count):
        Event.timer(base, callback).add(delay)
    base.dispatch()
    return processor_time() - start, fired


serve({"once": once, "timer": timer}[sys.argv[1]])
