"""How long an `Event` lives: while it is pending by itself, else as long as somebody holds it.

And what Python takes for pending is what libevent does, whatever is done to the event, and from where.
"""

from __future__ import annotations

import gc
import random
import signal
import socket
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from libevent_py import ClosedError, Event, EventBase, EventFlag, LoopFlag
from tests.support import run_python

Pair = tuple[socket.socket, socket.socket]

TIMEOUT, READ, WRITE = EventFlag.TIMEOUT, EventFlag.READ, EventFlag.WRITE
SIGNAL, PERSIST = EventFlag.SIGNAL, EventFlag.PERSIST
NONBLOCK, ONCE = LoopFlag.NONBLOCK, LoopFlag.ONCE


def ignore(event: Event, fd: int, what: EventFlag) -> None:
    pass


@contextmanager
def without_collector() -> Iterator[None]:
    """Let only the last reference free an object."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def assert_live_is_pending(base: EventBase, events: list[Event]) -> None:
    """Assert that Python keeps exactly those alive that libevent may call."""
    for event in events:
        if not event.closed:
            assert (event.key in base.live) == bool(event.pending()), base.dump_events()


Make = Callable[[EventBase, socket.socket, Callable[..., object]], Event]

KINDS: dict[str, Make] = {
    "timer": lambda base, sock, call: Event.timer(base, call),
    "persistent timer": lambda base, sock, call: Event.timer(base, call, persist=True),
    "writable": lambda base, sock, call: Event(base, sock, WRITE, call),
    "persistent writable": lambda base, sock, call: Event(base, sock, WRITE | PERSIST, call),
    "signal": lambda base, sock, call: Event.signal(base, signal.SIGUSR1, call, persist=False),
    "persistent signal": lambda base, sock, call: Event.signal(base, signal.SIGUSR1, call),
    "user": lambda base, sock, call: Event.user(base, call),
}

CHANGES: dict[str, Callable[[Event], object]] = {
    "add": lambda event: event.add(),
    "add at once": lambda event: event.add(0),
    "add shorter than libevent can": lambda event: event.add(1e-7),
    "add for later": lambda event: event.add(60),
    "add for a common timeout": lambda event: event.add(event.base.init_common_timeout(60)),
    "add twice": lambda event: event.add(60).add(),
    "delete": lambda event: event.delete(),
    "delete and add": lambda event: (event.delete(), event.add(60)),
    "active": lambda event: event.active(),
    "active three times": lambda event: event.active(WRITE, 3),
    "active and added": lambda event: (event.active(WRITE), event.add()),
    "added and active": lambda event: (event.add(0), event.active(WRITE)),
    "active and deleted": lambda event: (event.active(), event.delete()),
    "deleted and active": lambda event: (event.delete(), event.active(WRITE)),
    "remove_timer": lambda event: event.remove_timer(),
    "active without timer": lambda event: (event.active(WRITE), event.remove_timer()),
    "added without timer": lambda event: (event.add(60), event.remove_timer()),
    "priority": lambda event: setattr(event, "priority", 0),
    "replaced": lambda event: setattr(event, "callback", ignore),
    "listed": lambda event: (event.base.events(), event.base.dump_events()),
    "close": lambda event: event.close(),
    "finalize": lambda event: event.close(finalize=id),
    "nothing": lambda event: None,
}


def fire_first(event: Event, how: str) -> None:
    if how == "added":
        event.add(0)
    elif how == "added for later":
        event.add(60)
    elif how == "ticking":
        event.add(0.0001)
        event.active(WRITE)
    elif how == "active":
        event.active()
    elif how == "active three times":
        event.active(SIGNAL, 3)


def settles(base: EventBase, events: list[Event]) -> None:
    """Run the loop, and assert that the only one of *events* is as live as libevent says."""
    for _ in range(4):
        base.loop(NONBLOCK)
        assert_live_is_pending(base, events)


def goes(base: EventBase, events: list[Event]) -> None:
    """Drop the only one of *events*, and assert that it is gone as soon as it isn't pending."""
    with without_collector():
        (event,) = events
        if not event.closed:
            event.delete()
        reference = weakref.ref(event)
        del event
        events.clear()
        assert reference() is None
        assert base.live == base.ledger == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", ["added", "ticking", "active", "active three times"])
def test_whatever_is_done_in_its_own_callback_leaves_nothing_behind(
    base: EventBase, pair: Pair, kind: str, first: str
) -> None:
    for name, change in CHANGES.items():
        calls = 0

        def fire(event: Event, fd: int, what: EventFlag) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                change(event)  # noqa: B023

        events = [KINDS[kind](base, pair[0], fire)]
        fire_first(events[0], first)
        settles(base, events)
        assert calls, name
        goes(base, events)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", ["idle", "added", "added for later", "ticking", "active"])
def test_whatever_is_done_in_anothers_callback_leaves_nothing_behind(
    base: EventBase, pair: Pair, kind: str, first: str
) -> None:
    for change in CHANGES.values():
        events = [KINDS[kind](base, pair[0], ignore)]
        Event.user(base, lambda *_: change(events[0])).active()  # noqa: B023
        fire_first(events[0], first)
        settles(base, events)
        goes(base, events)


class Boom(Exception):
    """What a callback raises at random."""


def turn_at_random(rng: random.Random, base: EventBase, sock: socket.socket) -> None:
    """Do anything to events of every kind, in and out of callbacks, and hold them to the rule."""
    common = [base.init_common_timeout(seconds) for seconds in (0, 0.001, 60)]

    def fire(event: Event, fd: int, what: EventFlag) -> None:
        for _ in range(rng.choice((0, 0, 1, 2))):
            do(rng.choice((event, event, *events)))
        if rng.random() < 0.02:
            raise Boom
        if rng.random() < 0.02:
            base.loopbreak()

    def do(event: Event) -> None:
        with suppress(ClosedError):
            match rng.randrange(12):
                case 0 | 1 | 2:
                    event.add(rng.choice((None, 0, 1e-7, 0.0005, 60, *common)))
                case 3 | 4:
                    event.active(rng.choice((TIMEOUT, READ, SIGNAL)), rng.choice((1, 1, 3)))
                case 5 | 6:
                    event.delete()
                case 7:
                    event.remove_timer()
                case 8:
                    base.active_by_fd(sock, WRITE)
                case 9:
                    base.active_by_signal(signal.SIGUSR1)
                case 10 if rng.random() < 0.1:
                    event.close(rng.choice((None, id)))
                case 11 if rng.random() < 0.3:
                    signal.raise_signal(signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        events = [make(base, sock, fire) for make in KINDS.values()]
        for _ in range(40):
            do(rng.choice(events))
            try:
                base.loop(rng.choice((NONBLOCK, ONCE | NONBLOCK)))
            except Boom:
                pass
            except BaseException as several:
                if {type(one) for one in getattr(several, "exceptions", ())} != {Boom}:
                    raise
            assert_live_is_pending(base, events)
        for event in events:
            if not event.closed:
                event.delete()
        base.loop(NONBLOCK)
        del event
        events.clear()
        gc.collect()
        assert base.live == base.ledger == {}
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, previous)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_kept_alive_is_what_libevent_may_call(pair: Pair, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(10):
        with EventBase() as base:
            turn_at_random(rng, base, pair[0])


def test_nothing_done_at_random_touches_freed_memory() -> None:
    run_python(
        """
        import random, socket
        from libevent_py import EventBase
        from tests.test_event_lifetime import turn_at_random

        left, right = socket.socketpair()
        left.setblocking(False)
        rng = random.Random(0)
        with left, right:
            for _ in range(3):
                with EventBase() as base:
                    turn_at_random(rng, base, left)
        """,
        valgrind=True,
    )
