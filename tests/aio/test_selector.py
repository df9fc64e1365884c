"""`aio.Selector`: a base as a selector. CPython's own tests of selectors are in test_cpython.py."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from libevent_py import ClosedError, Event, EventBase, aio
from libevent_py._core.dispatch import live
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import PATIENCE, run_python

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


@pytest.fixture
def selector(backend_base: EventBase) -> Iterator[aio.Selector]:
    """A selector on a base of the user's."""
    with aio.Selector(backend_base) as selector:
        yield selector


def test_a_selector_without_a_base_closes_its_own(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    selector = aio.Selector()
    base = selector.base
    selector.register(pair[0], WRITE)
    assert len(selector.select(PATIENCE)) == 1
    selector.close()
    selector.close()
    assert base.closed


def test_a_user_s_base_stays_open(
    base: EventBase, pair: tuple[socket.socket, socket.socket]
) -> None:
    selector = aio.Selector(base)
    assert selector.base is base
    selector.register(pair[0], WRITE)
    selector.close()
    assert not base.closed
    assert base.events() == []
    with pytest.raises(TypeError, match="base must be an EventBase"):
        aio.Selector(1)  # type: ignore[arg-type]


def test_it_tells_as_long_as_something_is_ready(
    selector: aio.Selector, pair: tuple[socket.socket, socket.socket]
) -> None:
    key = selector.register(pair[0], READ, "data")
    assert selector.select(0) == []
    pair[1].send(b"x")
    for timeout in (0, -1, PATIENCE, None):
        assert selector.select(timeout) == [(key, READ)]
    both = selector.modify(pair[0], READ | WRITE, "more")
    assert selector.select(0) == [(both, READ | WRITE)]
    pair[0].recv(1)
    assert selector.select() == [(both, WRITE)]
    assert selector.unregister(pair[0]) == both
    begun = time.monotonic()
    assert selector.select(0.02) == []
    assert time.monotonic() - begun >= 0.015


def test_the_base_s_other_events_run_while_it_waits(
    selector: aio.Selector, pair: tuple[socket.socket, socket.socket]
) -> None:
    base = selector.base
    ticks: list[int] = []

    def ticked(*_: object) -> None:
        ticks.append(1)
        if len(ticks) == 3:
            pair[1].send(b"x")

    tick = Event.timer(base, ticked, persist=True).add(0.001)
    selector.register(pair[0], READ)
    assert len(selector.select()) == 1
    assert len(ticks) >= 3
    base.once(lambda *_: [][0])
    selector.unregister(pair[0])
    with pytest.raises(IndexError):
        selector.select(PATIENCE)
    tick.close()
    assert selector.select(0) == []


def test_it_rests_while_something_else_runs_the_base(
    selector: aio.Selector, pair: tuple[socket.socket, socket.socket]
) -> None:
    key = selector.register(pair[0], WRITE)
    other = selector.register(pair[1], WRITE)
    assert selector.base.dispatch() is False
    selector.unregister(pair[1])
    assert other.fd == pair[1].fileno()
    assert selector.select(PATIENCE) == [(key, WRITE)]
    assert selector.select(PATIENCE) == [(key, WRITE)]


def test_a_select_inside_a_callback_is_refused(selector: aio.Selector) -> None:
    selector.base.once(lambda *_: selector.select(0))
    with pytest.raises(RuntimeError, match="runs already"):
        selector.base.dispatch()
    selector.base.once(lambda *_: selector.select(0))
    with pytest.raises(RuntimeError, match="runs already"):
        selector.select()
    assert live.bases == ()


def test_a_select_that_is_refused_takes_nothing_from_the_one_around_it(
    selector: aio.Selector,
) -> None:
    left, right = socket.socketpair()
    refused: list[str] = []

    def inside(*_: object) -> None:
        try:
            selector.select(0)
        except RuntimeError as error:
            refused.append(str(error))
        right.send(b"x")

    with left, right:
        selector.register(left, READ, "left")
        selector.base.once(inside, timeout=0.001)
        assert [key.data for key, _ in selector.select(PATIENCE)] == ["left"]
        assert refused
        selector.unregister(left)


def test_what_the_backend_refuses_is_not_registered(base: EventBase) -> None:
    with aio.Selector(base) as selector, open(os.devnull) as null:
        with pytest.raises(PermissionError):
            selector.register(null, READ)
        assert len(selector.get_map()) == 0
        with pytest.raises(ValueError):
            selector.register(0, 8)
        with pytest.raises(KeyError):
            selector.modify(null, READ)


def test_a_change_that_is_refused_leaves_nothing_half_done(
    selector: aio.Selector, pair: tuple[socket.socket, socket.socket]
) -> None:
    key = selector.register(pair[0], WRITE)
    with pytest.raises(ValueError):
        selector.modify(pair[0], 8)
    for _ in range(2):
        if pair[0] in selector.get_map():
            assert selector.select(PATIENCE) == [(key, WRITE)]
            selector.unregister(pair[0])
        else:
            assert selector.select(0) == []


def test_ctrl_c_wakes_a_select_that_waits(selector: aio.Selector) -> None:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    begun = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            selector.select()
    finally:
        timer.join()
        signal.signal(signal.SIGINT, handler)
    assert time.monotonic() - begun < PATIENCE


def test_the_base_may_be_closed_first(pair: tuple[socket.socket, socket.socket]) -> None:
    base = EventBase()
    selector = aio.Selector(base)
    selector.register(pair[0], WRITE)
    base.close()
    with pytest.raises(ClosedError):
        selector.select(0)
    selector.unregister(pair[0])
    selector.close()


def test_asyncio_s_own_loop_runs_on_it(base: EventBase) -> None:
    ran: list[Any] = []
    loop = asyncio.SelectorEventLoop(aio.Selector(base))
    base.once(lambda *_: ran.append("event"), timeout=0.001)
    loop.run_until_complete(asyncio.sleep(0.02))
    loop.close()
    assert ran == ["event"]


@VALGRIND_TAKES_LONG
def test_the_selector_misuses_no_memory(valgrind: bool) -> None:
    run_python(
        """
        import selectors, socket
        from libevent_py import EventBase, aio

        left, right = socket.socketpair()
        base = EventBase()
        selector = aio.Selector(base)
        for events in (1, 2, 3):
            selector.register(left, events)
            selector.select(0)
            selector.modify(left, events ^ 3 or 1)
            selector.select(0.001)
            selector.unregister(left)
        selector.register(left, 2)
        base.dispatch()
        base.close()
        selector.close()
        left.close()
        right.close()
        """,
        valgrind=valgrind,
    )
