"""What other code does in the middle of a method: a signal handler, a finalizer, an argument's own.

Python runs it between any two steps of a method, and it may close the very object whose pointer the
method is about to give to C. `python -m tests.kit.sweep CLASS` does so at each step of every
method; here are the ways in which it comes about.
"""

from __future__ import annotations

import contextlib
import gc
import socket
import sys
import time
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
    HttpServer,
    HttpServerRequest,
    LoopFlag,
)
from libevent_py.util import MonotonicTimer
from tests.kit.support import PATIENCE, run_python

ONCE_NOW = LoopFlag.ONCE | LoopFlag.NONBLOCK


@pytest.mark.slow
def test_a_signal_handler_may_close_an_event_that_is_being_added_or_deleted() -> None:
    run_python(
        """
        import signal
        from libevent_py import ClosedError, Event, EventBase
        from libevent_py._core.dispatch import live

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
        assert not base._live
        event.close()
        assert not base._ledger
        base.close()
        """,
    )


@pytest.mark.slow
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
    assert not base._live
    assert not base._ledger
    base.close()
    there.close()


#: Ways to answer a request with an argument that is asked what it is worth.
ANSWERS: dict[str, Callable[[HttpServerRequest, Any], object]] = {
    "send_reply": lambda request, evil: request.send_reply(evil),
    "send_reply with a body": lambda request, evil: request.send_reply(evil, None, bytearray(1)),
    "send_error": lambda request, evil: request.send_error(evil),
    "send_reply_start": lambda request, evil: request.send_reply_start(evil),
}


class Code(Evil):
    """A status code that does something when it is asked what it is worth."""

    def __index__(self) -> int:
        self.act()
        return 200


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize(
    ("meanwhile", "error"), [("send_reply", ClosedError), ("send_reply_start", RuntimeError)]
)
def test_an_argument_may_answer_the_request_first(
    base: EventBase, name: str, meanwhile: str, error: type[Exception]
) -> None:
    """And then it isn't answered, or begun, a second time."""
    refused: list[str] = []

    def handler(request: HttpServerRequest) -> None:
        with pytest.raises(error) as caught:
            ANSWERS[name](request, Code(lambda: getattr(request, meanwhile)(204)))
        refused.append(str(caught.value))
        if not request.closed:
            request.send_reply_end()

    server = HttpServer(base)
    server.set_gencb(handler)
    where = "127.0.0.1", server.bind_socket("127.0.0.1", 0).port
    with socket.create_connection(where) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        client.settimeout(0.001)
        received, end = b"", time.monotonic() + PATIENCE
        while not received.endswith(b"\r\n\r\n"):
            assert time.monotonic() < end
            base.loop(ONCE_NOW)
            with contextlib.suppress(TimeoutError):
                received += client.recv(4096)
    assert len(refused) == 1
    assert received.count(b"HTTP/1.1 204") == received.count(b"HTTP/1.1 ") == 1
    server.close()


@pytest.mark.parametrize("act", ["loop", "close"])
def test_a_base_is_neither_run_nor_closed_by_an_argument(base: EventBase, act: str) -> None:
    """What C itself frees in the loop would be gone when the method goes on."""
    event = Event.timer(base, print)
    function = base.close if act == "close" else lambda: base.loop(ONCE_NOW)
    with pytest.raises(RuntimeError, match="in the middle of another call"):
        event.add(Evil(function))  # type: ignore[arg-type]
    assert not event.pending
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
    assert event.pending


@pytest.mark.parametrize("make", [Buffer, MonotonicTimer, lambda: HttpRequest(print)])
def test_what_has_no_base_is_freed_when_the_method_returns(make: Callable[[], Any]) -> None:
    made = make()
    held = made.pointer
    made.close()
    assert made.closed
    del held
    gc.collect()
