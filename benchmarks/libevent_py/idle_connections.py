"""The memory of accepted bufferevents with nothing to do: ``idle_connections KIND [OPTION]``."""

import sys

from benchmarks.contender import meter, say_port, serve
from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    EventBase,
    EventFlag,
    Listener,
)

left = 0


def on_read(bev: BufferEvent) -> None:
    bev.input.drain(len(bev.input))


def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
    bev.close()


def on_accept(listener: Listener, fd: int, address: object) -> None:
    global left
    BufferEvent(base, fd, options, on_read=on_read, on_event=on_event).enable(EventFlag.READ)
    left -= 1
    if not left:
        base.loopexit()


def sample(count: int) -> tuple[int, int]:
    global left
    left = count
    before = used()
    base.dispatch()
    return used() - before, count


used = meter(sys.argv[1])
options = BufferEventOption.CLOSE_ON_FREE
for name in sys.argv[2:]:
    options |= BufferEventOption[name]
base = EventBase()
listener = Listener(base, ("127.0.0.1", 0), on_accept, backlog=1024)
say_port(listener.address[1])
serve(sample)
