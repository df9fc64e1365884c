"""Many events and many turns: what they cost, and that none of it grows."""

from __future__ import annotations

import gc
import os
import random
import resource
import signal
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventOption,
    Event,
    EventBase,
    EventFlag,
    Listener,
    LoopFlag,
)
from tests.kit.flags import PERSIST, READ, WRITE
from tests.kit.processes import resident
from tests.kit.support import PATIENCE

TURN = LoopFlag.NONBLOCK | LoopFlag.ONCE

MANY = 10_000


def ignore(event: Event, fd: int, what: EventFlag) -> None:
    pass


@contextmanager
def descriptors(number: int) -> Iterator[list[socket.socket]]:
    """Give *number* sockets, in connected pairs, whatever the process's limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = number + 200
    allowed = hard == resource.RLIM_INFINITY or hard >= needed or not os.geteuid()
    assert allowed, f"only {hard} descriptors are allowed here: {needed} are needed (ulimit -Hn)"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), max(hard, needed)))
    try:
        with ExitStack() as stack:
            sockets: list[socket.socket] = []
            while len(sockets) < number:
                sockets += [stack.enter_context(sock) for sock in socket.socketpair()]
            yield sockets
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


CYCLES: dict[str, Callable[[EventBase, socket.socket], Callable[[], object]]] = {}


def cycle(
    make: Callable[[EventBase, socket.socket], Callable[[], object]],
) -> Callable[[EventBase, socket.socket], Callable[[], object]]:
    CYCLES[make.__name__] = make
    return make


@cycle
def timer(base: EventBase, sock: socket.socket) -> Callable[[], object]:
    event = Event.timer(base, ignore)
    return lambda: event.add(60.0).delete()


@cycle
def descriptor(base: EventBase, sock: socket.socket) -> Callable[[], object]:
    event = Event(base, sock, READ | PERSIST, ignore)
    return lambda: event.add(60).delete()


@cycle
def common_timeout(base: EventBase, sock: socket.socket) -> Callable[[], object]:
    timeout = base.init_common_timeout(60)
    event = Event(base, sock, READ, ignore)
    return lambda: event.add(timeout).delete()


@cycle
def active_and_deleted(base: EventBase, sock: socket.socket) -> Callable[[], object]:
    event = Event.user(base, ignore)
    return lambda: (event.active(), event.delete())


@cycle
def fired(base: EventBase, sock: socket.socket) -> Callable[[], object]:
    event = Event(base, sock, WRITE, ignore)

    def once() -> None:
        event.add()
        base.loop(TURN)

    return once


@cycle
def made_and_dropped(base: EventBase, sock: socket.socket) -> Callable[[], object]:
    return lambda: Event.timer(base, ignore)


@cycle
def made_and_closed(base: EventBase, sock: socket.socket) -> Callable[[], object]:
    return lambda: Event(base, sock, READ, ignore).add(60).close()


@cycle
def finalized(base: EventBase, sock: socket.socket) -> Callable[[], object]:
    def once() -> None:
        Event.timer(base, ignore).add(60).close(finalize=id)
        base.loop(TURN)

    return once


@cycle
def signalled(base: EventBase, sock: socket.socket) -> Callable[[], object]:
    event = Event.signal(base, signal.SIGUSR1, ignore)
    return lambda: event.add().delete()


@pytest.mark.more
@pytest.mark.parametrize("name", CYCLES)
def test_two_hundred_thousand_cycles_leave_no_growth_in_memory(base: EventBase, name: str) -> None:
    turns = 20_000 if name in {"fired", "finalized", "signalled"} else 200_000
    left, right = socket.socketpair()
    with left, right:
        do = CYCLES[name](base, left)
        for _ in range(turns // 20):  # as much as it ever takes
            do()
        gc.collect()
        before = resident()
        for _ in range(turns):
            do()
        gc.collect()
        assert resident() - before < 2**20  # 5 bytes a turn: less than any one object
        tracemalloc.start()
        try:
            do()
            traced = tracemalloc.get_traced_memory()[0]
            for _ in range(1000):
                do()
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] - traced < 2000
        finally:
            tracemalloc.stop()


def test_ten_thousand_events_on_as_many_descriptors_work_or_are_refused(
    backend_base: EventBase,
) -> None:
    """Select's sets end at 1024, where a fortified libevent would end the process."""
    fired: list[int] = []
    refused: list[int] = []
    method = backend_base.method
    with descriptors(MANY) as sockets:
        for sock in sockets:
            event = Event(backend_base, sock, READ, lambda event, fd, what: fired.append(fd))
            try:
                event.add()
            except OSError as error:
                assert f"event_add: fd {sock.fileno()} with {method}: Invalid" in str(error)
                refused.append(sock.fileno())
        numbers = sorted(sock.fileno() for sock in sockets)
        assert refused == [number for number in numbers if number >= 1024 and method == "select"]
        assert len(backend_base._live) == len(backend_base.events()) == MANY - len(refused)
        for sock in sockets:
            sock.send(b"x")
        backend_base.loopexit(PATIENCE)
        while backend_base._live and not backend_base.got_exit:
            backend_base.loop(LoopFlag.ONCE)
        assert sorted(fired + refused) == numbers
        del event
    assert backend_base._ledger == {}


def test_ten_thousand_timers_fire_in_order(base: EventBase) -> None:
    fired: list[int] = []
    numbers = list(range(MANY))
    random.Random(0).shuffle(numbers)

    def start(*_: object) -> None:  # in a callback, where all are added at the same time
        for number in numbers:
            Event.timer(base, lambda *_, number=number: fired.append(number)).add(number * 1e-5)

    Event.user(base, start).active()
    base.dispatch()
    assert fired == list(range(MANY))
    assert base._live == base._ledger == {}


@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize("persist", [False, True])
def test_an_event_costs_at_most_500_bytes_of_python_memory(
    base: EventBase, pending: bool, persist: bool
) -> None:
    events: list[Event | None] = [None] * MANY
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(MANY):
            event = Event.timer(base, ignore, persist=persist)
            if pending:
                event.add(60.0)
            events[number] = event
        cost = (tracemalloc.get_traced_memory()[0] - before) / MANY
    finally:
        tracemalloc.stop()
    assert cost <= 500, f"{cost:.0f} bytes"


@pytest.mark.parametrize("eager", [0, BufferEventOption.EAGER], ids=["plain", "eager"])
def test_an_idle_connection_costs_at_most_2_kib_of_python_memory(
    base: EventBase, eager: int
) -> None:
    options = BufferEventOption.CLOSE_ON_FREE | eager
    accepted: list[BufferEvent] = []

    def on_accept(listener: Listener, fd: int, address: object) -> None:
        bev = BufferEvent(listener.base, fd, options)
        bev.on_read = lambda bev: bev.write(bev.read())
        bev.on_write = lambda bev: None
        bev.on_event = lambda bev, what: bev.close()
        bev.set_timeouts(60.0, 60.0)
        bev.enable(READ)
        accepted.append(bev)

    def accept(number: int) -> int:
        """Return how much memory *number* more connections have taken, the clients' left out."""
        theirs, before = 0, tracemalloc.get_traced_memory()[0]
        while number:
            own = tracemalloc.get_traced_memory()[0]
            clients.append(stack.enter_context(socket.create_connection(listener.address)))
            theirs += tracemalloc.get_traced_memory()[0] - own
            expected = len(accepted) + 1
            while len(accepted) < expected:
                base.loop(LoopFlag.ONCE)
            number -= 1
        return tracemalloc.get_traced_memory()[0] - before - theirs

    with ExitStack() as stack:
        listener = Listener(base, ("127.0.0.1", 0), on_accept)
        clients: list[socket.socket] = []
        tracemalloc.start()
        try:
            accept(100)  # what is there once, for all
            gc.collect()
            cost = accept(300) / 300
        finally:
            tracemalloc.stop()
    assert cost <= 2048, f"{cost:.0f} bytes"
    assert cost > 100, "it has not been measured"
