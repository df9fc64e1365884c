"""What other code does in the middle of a method: a signal handler, a finalizer, an argument's own.

Python runs it between any two steps of a method, and it may close the very object whose pointer the
method is about to give to C. `python -m tests.sweep CLASS` does so at each step of every method;
here are the ways in which it comes about.
"""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    ClosedError,
    Event,
    EventBase,
    EventFlag,
    HttpRequest,
    LoopFlag,
)
from libevent_py.util import MonotonicTimer
from tests.support import run_python

ONCE_NOW = LoopFlag.ONCE | LoopFlag.NONBLOCK


def test_a_signal_handler_may_close_an_event_that_is_being_added_or_deleted() -> None:
    run_python(
        """
        import signal
        from libevent_py import ClosedError, Event, EventBase
        from libevent_py._lifetime import live

        base, box, refused = EventBase(), [], 0

        def handler(*_):
            if box:
                box.pop().close()

        signal.signal(signal.SIGALRM, handler)
        for n in range(10_000):
            event = Event.timer(base, print)
            box[:] = [event]
            signal.setitimer(signal.ITIMER_REAL, 1e-6 + n % 40 * 1e-6)
            try:
                for _ in range(20):
                    event.add(1)
                    event.delete()
            except ClosedError:
                refused += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            box.clear()
        assert refused > 100
        assert not base.live
        event.close()
        assert not base.ledger
        base.close()
        """,
    )


def test_a_signal_handler_may_close_a_request_whose_headers_are_being_set() -> None:
    run_python(
        """
        import signal
        from libevent_py import ClosedError, HttpRequest

        box, refused = [], 0

        def handler(*_):
            if box:
                box.pop().close()

        signal.signal(signal.SIGALRM, handler)
        for n in range(10_000):
            request = HttpRequest(print)
            box[:] = [request]
            signal.setitimer(signal.ITIMER_REAL, 1e-6 + n % 60 * 1e-6)
            try:
                for _ in range(20):
                    request.output_headers["Host"] = "x"
                    request.output_headers.add("A", "b")
                    request.output_buffer.add(b"abc")
            except ClosedError:
                refused += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            box.clear()
        assert refused > 100
        """,
    )


def test_a_finalizer_that_the_collector_calls_may_close_what_is_written_to() -> None:
    run_python(
        """
        import gc, socket
        from libevent_py import BufferEvent, ClosedError, EventBase, LoopFlag

        gc.set_threshold(3)
        base, bev, outcomes = EventBase(), None, set()

        class Session:
            def __init__(self):
                self.me = self

            def __del__(self):
                if bev is not None:
                    bev.close()
                    try:
                        base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)
                    except RuntimeError as error:
                        assert "in the middle of another call" in str(error)
                        outcomes.add("refused")

        for _ in range(1000):
            here, there = socket.socketpair()
            bev = BufferEvent(base, here)
            try:
                for _ in range(3):
                    Session()
                    Session()
                    bev.write(bytearray(b"x"))
                    bev.input.remove(10)
            except ClosedError:
                outcomes.add("closed")
            there.close()
        assert "closed" in outcomes
        gc.set_threshold(700)
        bev.close()
        base.close()
        """,
    )


class Evil:
    """An argument that does something when it is asked what it is worth."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __float__(self) -> float:
        self.act()
        return 1.0

    def __index__(self) -> int:
        self.act()
        return 1

    def __buffer__(self, flags: int) -> memoryview:
        self.act()
        return memoryview(b"x" * 100)

    def fileno(self) -> int:
        self.act()
        return 0


#: Methods of an event, a bufferevent and its buffers that ask an argument what it is worth.
ASKING: dict[str, Callable[[Event, BufferEvent, Any], object]] = {
    "Event.add": lambda event, bev, evil: event.add(evil),
    "Event.priority": lambda event, bev, evil: setattr(event, "priority", evil),
    "Event.active": lambda event, bev, evil: event.active(EventFlag.TIMEOUT, evil),
    "BufferEvent.set_timeouts": lambda event, bev, evil: bev.set_timeouts(evil, evil),
    "BufferEvent.setwatermark": lambda event, bev, evil: bev.setwatermark(
        EventFlag.READ, evil, evil
    ),
    "BufferEvent.priority": lambda event, bev, evil: setattr(bev, "priority", evil),
    "BufferEvent.read": lambda event, bev, evil: bev.read(evil),
    "input.drain": lambda event, bev, evil: bev.input.drain(evil),
    "output.expand": lambda event, bev, evil: bev.output.expand(evil),
    "output.search": lambda event, bev, evil: bev.output.search(b"x", evil, evil),
    "output.peek": lambda event, bev, evil: bev.output.peek(evil, evil),
}

#: What they ask for by the buffer protocol, which Python classes have from 3.12 on.
READING: dict[str, Callable[[Event, BufferEvent, Any], object]] = {
    "BufferEvent.write": lambda event, bev, evil: bev.write(evil),
    "output.add": lambda event, bev, evil: bev.output.add(evil),
    "output.add_iovec": lambda event, bev, evil: bev.output.add_iovec([evil, evil]),
    "output.add_reference": lambda event, bev, evil: bev.output.add_reference(evil),
    "output.search": lambda event, bev, evil: bev.output.search(evil),
}
if sys.version_info >= (3, 12):
    ASKING |= {f"{name} of octets": use for name, use in READING.items()}


@pytest.mark.parametrize("name", ASKING)
def test_an_argument_may_close_what_it_is_given_to(name: str) -> None:
    base = EventBase(priorities=2)
    here, there = socket.socketpair()
    event, bev = Event.timer(base, print), BufferEvent(base, here)
    for buffer in bev.input, bev.output:
        assert not buffer

    def act() -> None:
        event.close()
        bev.close()

    with pytest.raises(ClosedError):
        ASKING[name](event, bev, Evil(act))
    assert event.closed
    assert bev.closed
    assert not base.live
    assert not base.ledger
    base.close()
    there.close()


@pytest.mark.parametrize("act", ["loop", "close"])
def test_a_base_is_neither_run_nor_closed_by_an_argument(base: EventBase, act: str) -> None:
    """What C itself frees in the loop would be gone when the method goes on."""
    event = Event.timer(base, print)
    function = base.close if act == "close" else lambda: base.loop(ONCE_NOW)
    with pytest.raises(RuntimeError, match="in the middle of another call"):
        event.add(Evil(function))  # type: ignore[arg-type]
    assert not event.pending()
    assert base.loop(ONCE_NOW) is False


def test_an_argument_may_run_and_close_another_base(base: EventBase) -> None:
    other, ran = EventBase(), []
    other.once(lambda fd, what: ran.append(fd))

    def act() -> None:
        if not other.closed:
            other.dispatch()
            other.close()

    event = Event.timer(base, print)
    event.add(Evil(act))  # type: ignore[arg-type]
    assert ran == [-1]
    assert event.pending()


@pytest.mark.parametrize("make", [Buffer, MonotonicTimer, lambda: HttpRequest(print)])
def test_what_has_no_base_is_freed_when_the_method_returns(make: Callable[[], Any]) -> None:
    made = make()
    held = made.pointer
    made.close()
    assert made.closed
    del held
    gc.collect()
