"""Group ``bufferevent``, second part: connecting, timeouts and triggers."""

from __future__ import annotations

import functools
import operator
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    Event,
    EventBase,
    Listener,
    TriggerOption,
)
from tests.kit.flags import CLOSE, DEFER, NO_OPTION, READ, THREADSAFE, UNLOCK, WRITE
from tests.kit.support import PATIENCE

NOW, IGNORE = TriggerOption(0), TriggerOption.IGNORE_WATERMARKS
CONNECTED, TIMEOUT = BufferEventFlag.CONNECTED, BufferEventFlag.TIMEOUT
READING, WRITING = BufferEventFlag.READING, BufferEventFlag.WRITING

TEXT = b"Now is the time for all good events to signal for the good of their protocol"

#: Every flag at once.
ALL = functools.reduce(operator.or_, BufferEventFlag)


def serve(base: EventBase, options: BufferEventOption) -> Listener:
    """Listen for clients, each of which gets `TEXT` and then the end."""

    def on_write(bev: BufferEvent) -> None:
        if not bev.output:
            bev.disable(READ | WRITE)
            bev.close()

    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        bev = BufferEvent(base, fd, options)
        bev.setcb(None, on_write, lambda bev, what: pytest.fail(str(what)))
        bev.write(TEXT)

    return Listener(base, ("127.0.0.1", 0), on_accept, backlog=16)


def connect_two(base: EventBase, options: BufferEventOption) -> None:
    """Have two clients connect to a listener and read to the end."""
    reads: list[BufferEvent] = []
    texts: list[bytes] = []

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        assert not what & BufferEventFlag.ERROR
        if what & CONNECTED:
            bev.enable(READ)
        if what & BufferEventFlag.EOF:
            texts.append(bev.read())
            if len(texts) == 2:
                base.loopexit()

    with serve(base, options) as listener:
        listener.enable()
        bevs = [BufferEvent(base, -1, options) for _ in range(2)]
        for bev in bevs:
            bev.setcb(reads.append, None, on_event)
            bev.enable(READ)
            bev.connect(listener.address)
        assert base.dispatch() is True
    assert texts == [TEXT, TEXT]
    assert set(reads) == set(bevs)


def test_bufferevent_connect(backend_base: EventBase) -> None:
    """Two clients connect to a listener, and read until the end."""
    connect_two(backend_base, CLOSE)


def test_bufferevent_connect_defer(backend_base: EventBase) -> None:
    """The same with deferred callbacks."""
    connect_two(backend_base, CLOSE | DEFER)


def test_bufferevent_connect_lock(backend_base: EventBase) -> None:
    """The same with locks."""
    connect_two(backend_base, CLOSE | THREADSAFE)


def test_bufferevent_connect_lock_defer(backend_base: EventBase) -> None:
    """The same with both."""
    connect_two(backend_base, CLOSE | THREADSAFE | DEFER)


def test_bufferevent_connect_unlocked_cbs(backend_base: EventBase) -> None:
    """The same with callbacks that don't hold the lock."""
    connect_two(backend_base, CLOSE | THREADSAFE | DEFER | UNLOCK)


@pytest.fixture
def refusing() -> Iterator[socket.socket]:
    """A socket with an address, at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


def close_later(base: EventBase, bound: socket.socket) -> None:
    """Close a socket in 0.3 s, in case that only this has a connection refused."""
    Event.timer(base, lambda event, fd, what: bound.close()).add(0.3)


def test_bufferevent_connect_fail(backend_base: EventBase, refusing: socket.socket) -> None:
    """Connecting where nobody listens is an error event."""
    base = backend_base
    errors: list[OSError | None] = []

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        assert what & BufferEventFlag.ERROR
        errors.append(bev.error)
        base.loopexit()

    bev = BufferEvent(base, -1, CLOSE | DEFER, on_event=on_event)
    bev.connect(refusing.getsockname())
    close_later(base, refusing)
    base.dispatch()
    [error] = errors
    assert isinstance(error, ConnectionRefusedError)
    bev.close()


def fail_once(base: EventBase, options: BufferEventOption, bound: socket.socket) -> None:
    """Have connecting fail, and tell of it once, and of nothing else."""
    events: list[BufferEventFlag] = []
    others: list[BufferEvent] = []
    bev = BufferEvent(base, -1, options)
    bev.setcb(others.append, others.append, lambda bev, what: events.append(what))
    bev.enable(READ | WRITE)
    bev.connect(bound.getsockname())
    assert (events, others) == ([], [])
    close_later(base, bound)
    assert base.dispatch() is False
    assert len(events) == 1
    assert others == []


def test_bufferevent_connect_fail_eventcb(backend_base: EventBase, refusing: socket.socket) -> None:
    """There is one event callback for a connection that fails, and no other."""
    fail_once(backend_base, CLOSE, refusing)


def test_bufferevent_connect_fail_eventcb_defer(
    backend_base: EventBase, refusing: socket.socket
) -> None:
    """The same with deferred callbacks."""
    fail_once(backend_base, CLOSE | DEFER, refusing)


# Timeouts.


def time_out(base: EventBase, use_pair: bool, use_filter: bool) -> None:
    """Have one bufferevent time out reading and writing, the other writing what it hasn't.

    The first waits 0.15 s to read and 0.1 s to write; the other, which isn't reading, 0.1 s to read
    and 0.2 s to write, which as a half of a pair it isn't waiting for either.
    """
    started = time.monotonic()
    stories: list[list[tuple[BufferEventFlag, float]]] = [[], []]
    one, other = (
        BufferEvent.pair(base)
        if use_pair
        else (BufferEvent(base, -1, NO_OPTION), BufferEvent(base, -1, NO_OPTION))
    )
    if use_filter:
        one = BufferEvent.filter(one, None, None, CLOSE)
        other = BufferEvent.filter(other, None, None, CLOSE)
    other.disable(READ)
    for bev, story in zip((one, other), stories, strict=True):

        def note(bev: BufferEvent, what: BufferEventFlag, story: Any = story) -> None:
            story.append((what, time.monotonic() - started))

        def never(bev: BufferEvent) -> None:
            pytest.fail("nothing is read, and by the other nothing written")

        bev.setcb(never, None if bev is one else never, note)
    one.set_timeouts(read=0.15, write=0.1)
    one.write(b"ABCDEFG")
    one.enable(READ | WRITE)
    other.set_timeouts(read=0.1, write=0.2)
    other.enable(WRITE)
    base.loopexit(0.35)
    base.dispatch()
    [(first, first_at), (second, second_at)] = stories[0]
    assert (first, second) == (TIMEOUT | WRITING, TIMEOUT | READING)
    assert 0.09 < first_at <= second_at
    assert second_at > 0.14
    told = [] if use_pair and not use_filter else [TIMEOUT | WRITING]
    assert [what for what, _ in stories[1]] == told


def test_bufferevent_timeout(backend_base: EventBase) -> None:
    """Reading and writing time out."""
    time_out(backend_base, use_pair=False, use_filter=False)


def test_bufferevent_timeout_pair(backend_base: EventBase) -> None:
    """The same for pairs."""
    time_out(backend_base, use_pair=True, use_filter=False)


def test_bufferevent_timeout_filter(backend_base: EventBase) -> None:
    """The same for filters."""
    time_out(backend_base, use_pair=False, use_filter=True)


def test_bufferevent_timeout_filter_pair(backend_base: EventBase) -> None:
    """The same for filters on pairs."""
    time_out(backend_base, use_pair=True, use_filter=True)


# Triggers.


def trigger(base: EventBase, options: BufferEventOption, how: TriggerOption) -> None:
    """Have a client that has read trigger its callbacks by hand: first read, and then event."""
    reads = 0
    told = BufferEventFlag(0)
    triggered = False
    deferred = how & TriggerOption.DEFER_CALLBACKS or options & DEFER

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        nonlocal told
        if triggered:
            told |= what
            if told == ALL:
                base.loopexit()
        elif what & CONNECTED:
            bev.enable(READ)

    def on_triggered_read(bev: BufferEvent) -> None:
        nonlocal reads, triggered
        reads += 1
        triggered = True
        bev.trigger_event(ALL, how)

    def on_read(bev: BufferEvent) -> None:
        nonlocal reads
        reads += 1
        bev.setcb(on_triggered_read, None, on_event)
        low, high = bev.getwatermark(READ)
        bev.setwatermark(READ, len(bev.input) + 1, 0)
        bev.trigger(READ, how)
        assert reads == 1
        bev.trigger(READ, how | IGNORE)
        assert reads == (1 if deferred else 2)
        bev.setwatermark(READ, low, high)

    with serve(base, options) as listener:
        bev = BufferEvent(base, -1, options)
        bev.setcb(on_read, None, on_event)
        bev.enable(READ)
        bev.connect(listener.address)
        base.once(lambda fd, what: pytest.fail("nothing has been triggered"), timeout=PATIENCE)
        assert base.dispatch() is True
    # Unlike in C, the loop tells of what there is when the low watermark sinks to it: once more,
    # or at once with what has been deferred.
    assert reads == (2 if deferred else 3)
    assert told == ALL


def test_bufferevent_trigger(backend_base: EventBase) -> None:
    """A trigger heeds the watermarks unless it is told not to."""
    trigger(backend_base, CLOSE, NOW)


def test_bufferevent_trigger_defer(backend_base: EventBase) -> None:
    """The same with deferred callbacks."""
    trigger(backend_base, CLOSE | DEFER, NOW)


def test_bufferevent_trigger_postpone(backend_base: EventBase) -> None:
    """The same with a trigger that defers."""
    trigger(backend_base, CLOSE, TriggerOption.DEFER_CALLBACKS)


def test_bufferevent_trigger_defer_postpone(backend_base: EventBase) -> None:
    """The same with both."""
    trigger(backend_base, CLOSE | DEFER, TriggerOption.DEFER_CALLBACKS)
