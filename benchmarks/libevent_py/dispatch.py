"""A user event that re-activates itself."""

from benchmarks.contender import processor_time, serve
from libevent_py import Event, EventBase, EventFlag

base = EventBase()


def sample(count: int) -> tuple[int, int]:
    left = count

    def callback(event: Event, fd: int, what: EventFlag) -> None:
        nonlocal left
        left -= 1
        if left:
            event.active()

    event = Event.user(base, callback)
    start = processor_time()
    event.active()
    base.dispatch()
    return processor_time() - start, count - left


serve(sample)
