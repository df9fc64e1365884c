"""Group ``signal`` of libevent's regression suite: events that wait for signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from libevent_py import Event, EventBase, EventFlag, LibeventError, ffi, lib
from tests.kit.flags import NONBLOCK, SIGNAL, NewBase
from tests.kit.support import PATIENCE


def fail(event: Event, fd: int, what: EventFlag) -> None:
    pytest.fail(f"{event} fired for {what!r}")


def kill(signum: int) -> None:
    os.kill(os.getpid(), signum)


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Have the process get SIGALRM after so many seconds."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def wait_for_alarm(base: EventBase, *, count: int, find_reorder: bool = False) -> None:
    """Check that as many events get SIGALRM and, deleting themselves, end the loop."""
    got = []

    def on_signal(event: Event, fd: int, what: EventFlag) -> None:
        got.append((event, what))
        event.delete()

    events = [Event.signal(base, signal.SIGALRM, on_signal).add() for _ in range(count)]
    if find_reorder:
        for event in events:
            event.delete()
            event.add()
    with alarm(0.02):
        assert base.dispatch() is False
    assert len(got) == count
    assert set(got) == {(event, SIGNAL) for event in events}


def test_simplestsignal(backend_base: EventBase) -> None:
    """A signal event fires for its signal."""
    wait_for_alarm(backend_base, count=1)


def test_simplesignal(backend_base: EventBase) -> None:
    """A signal event fires after it was deleted and added again."""
    wait_for_alarm(backend_base, count=1, find_reorder=True)


def test_multiplesignal(backend_base: EventBase) -> None:
    """Two events for one signal both fire."""
    wait_for_alarm(backend_base, count=2)


def test_immediatesignal(backend_base: EventBase) -> None:
    """A signal that came before the loop is delivered by a loop that doesn't wait."""
    got = []
    event = Event.signal(
        backend_base, signal.SIGUSR1, lambda event, fd, what: got.append(what)
    ).add()
    kill(signal.SIGUSR1)
    assert backend_base.loop(NONBLOCK)
    assert got == [SIGNAL]
    event.delete()


def test_signal_dealloc(backend_base: EventBase) -> None:
    """A base can be closed after its signal event was deleted."""
    Event.signal(backend_base, signal.SIGUSR1, fail).add().delete()
    backend_base.close()
    assert backend_base.closed


def test_signal_switchbase(new_base: NewBase) -> None:
    """Signals go to the base that added an event for one last, or looped last.

    Through the raw layer, because the object layer refuses a second base with signal events.
    """
    first, second = new_base(), new_base()
    owner = Event.signal(first, signal.SIGUSR1, fail).add()
    with pytest.raises(LibeventError, match="another event base"):
        Event.signal(second, signal.SIGUSR1, fail).add()
    owner.close()

    got = []

    @ffi.callback("event_callback_fn")  # type: ignore[untyped-decorator]
    def on_signal(signum: int, what: int, ev: Any) -> None:
        got.append(ev)
        lib.event_del(ffi.cast("struct event *", ev))

    what, self_cbarg = lib.EV_SIGNAL | lib.EV_PERSIST, lib.event_self_cbarg()
    ev1, ev2 = (
        lib.event_new(base.pointer, signal.SIGUSR1, what, on_signal, self_cbarg)
        for base in (first, second)
    )
    assert lib.event_add(ev1, ffi.NULL) == 0
    assert lib.event_add(ev2, ffi.NULL) == 0

    kill(signal.SIGUSR1)
    second.loop(NONBLOCK)
    assert got == [ev2]

    first.loop(NONBLOCK)  # which makes it the one that gets signals
    kill(signal.SIGUSR1)
    second.loop(NONBLOCK)
    assert got == [ev2]
    first.loop(NONBLOCK)
    assert got == [ev2, ev1]
    lib.event_free(ev1)
    lib.event_free(ev2)


@contextmanager
def handled(signum: int) -> Iterator[list[int]]:
    """Have a Python handler for *signum* note what it gets."""
    got: list[int] = []
    before = signal.signal(signum, lambda number, frame: got.append(number))
    try:
        yield got
    finally:
        signal.signal(signum, before)


def test_signal_restore(backend_base: EventBase) -> None:
    """After the event was deleted, the handler from before is back: here one of Python's."""
    with handled(signal.SIGUSR1) as got:
        event = Event.signal(backend_base, signal.SIGUSR1, fail).add()
        event.delete()
        kill(signal.SIGUSR1)
        assert got == [signal.SIGUSR1]


def test_signal_assert(backend_base: EventBase) -> None:
    """A signal is not delivered to an event that was deleted, nor to the loop.

    Instead of libevent's own books, which are private, it looks at what the loop does.
    """
    Event.signal(backend_base, signal.SIGCONT, fail).add().delete()
    kill(signal.SIGCONT)  # which does no harm when nobody takes it
    assert backend_base.loop(NONBLOCK) is False


def test_signal_while_processing(backend_base: EventBase) -> None:
    """A signal that comes while its own callback runs is delivered again."""
    got = 0

    def on_signal(event: Event, fd: int, what: EventFlag) -> None:
        nonlocal got
        got += 1
        if got < 5:
            kill(signal.SIGUSR1)
        else:
            backend_base.loopexit()

    Event.signal(backend_base, signal.SIGUSR1, on_signal).add()
    Event.timer(backend_base, lambda event, fd, what: kill(signal.SIGUSR1)).add(0)
    Event.timer(backend_base, fail).add(PATIENCE)
    assert backend_base.dispatch()
    assert got == 5
