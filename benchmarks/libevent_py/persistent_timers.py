"""A thousand persistent timers of 10 ms each; an operation is one of them firing."""

from benchmarks.contender import processor_time, serve
from libevent_py import Event, EventBase, EventFlag

TIMERS = 1000
INTERVAL = 0.010

base = EventBase()


def sample(count: int) -> tuple[int, int]:
    fired = 0

    def callback(event: Event, fd: int, what: EventFlag) -> None:
        nonlocal fired
        fired += 1

    timers = [Event.timer(base, callback, persist=True).add(INTERVAL) for _ in range(TIMERS)]
    base.loopexit(count / TIMERS * INTERVAL)
    start = processor_time()
    base.dispatch()
    taken = processor_time() - start
    for timer in timers:
        timer.close()
    return taken, fired


serve(sample)
