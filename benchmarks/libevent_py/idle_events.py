"""The memory of pending events: ``idle_events timer|read python|resident``."""

import socket
import sys

from benchmarks.contender import HOUR, meter, serve
from libevent_py import Event, EventBase, EventFlag

base = EventBase()
sock, peer = socket.socketpair()
what, used = sys.argv[1], meter(sys.argv[2])


def callback(event: Event, fd: int, what: EventFlag) -> None:
    pass


def add() -> None:
    if what == "timer":
        Event.timer(base, callback).add(HOUR)
    else:
        Event(base, sock, EventFlag.READ | EventFlag.PERSIST, callback).add()


def sample(count: int) -> tuple[int, int]:
    add()
    before = used()
    for _ in range(count):
        add()
    return used() - before, count


serve(sample)
