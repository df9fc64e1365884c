"""Group ``bufferevent`` through the raw layer, where `BufferEvent` has code of its own or refuses.

It keeps a pair's other half, reads through memory of its own, can't be moved to another base, and
takes no more flags for a triggered event than there are.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import EventBase, ffi, lib
from libevent_py._core import convert
from tests.kit.flags import NewBase
from tests.kit.peers import Pair
from tests.kit.raw import FromC, add, copied, timeval

READ, WRITE = lib.EV_READ, lib.EV_WRITE
CLOSE, DEFER = lib.BEV_OPT_CLOSE_ON_FREE, lib.BEV_OPT_DEFER_CALLBACKS
CONNECTED, EOF, ERROR = lib.BEV_EVENT_CONNECTED, lib.BEV_EVENT_EOF, lib.BEV_EVENT_ERROR
READING, WRITING, TIMEOUT = lib.BEV_EVENT_READING, lib.BEV_EVENT_WRITING, lib.BEV_EVENT_TIMEOUT

TEXT = b"Now is the time for all good events to signal for the good of their protocol"


def pair_of(base: EventBase, options: int = 0) -> tuple[Any, Any]:
    """Return the halves of a pair."""
    halves = ffi.new("struct bufferevent *[2]")
    assert lib.bufferevent_pair_new(base.pointer, options, halves) == 0
    return halves[0], halves[1]


def write(bev: Any, data: bytes) -> None:
    assert lib.bufferevent_write(bev, data, len(data)) == 0


def read(bev: Any, size: int) -> bytes:
    """Return up to *size* bytes, by bufferevent_read()."""
    memory = ffi.new("char[]", size)
    count = lib.bufferevent_read(bev, memory, size)
    assert 0 <= count <= size
    return bytes(ffi.buffer(memory, count))


def set_callbacks(
    bev: Any,
    from_c: FromC,
    on_read: Callable[[Any], object] | None = None,
    on_write: Callable[[Any], object] | None = None,
    on_event: Callable[[Any, int], object] | None = None,
) -> None:
    """Have *bev* call functions that take no argument of C's."""

    def data(function: Callable[[Any], object] | None) -> Any:
        if function is None:
            return ffi.NULL
        callback = function
        return from_c("bufferevent_data_cb")(lambda bev, _arg: (callback(bev), None)[1])

    if on_event is None:
        event = ffi.NULL
    else:
        event_callback = on_event
        event = from_c("bufferevent_event_cb")(
            lambda bev, what, _arg: (event_callback(bev, what), None)[1]
        )
    lib.bufferevent_setcb(bev, data(on_read), data(on_write), event, ffi.NULL)


# Pairs.


def test_bufferevent_pair(backend_base: EventBase, from_c: FromC) -> None:
    """Each half of a pair has the other as its partner, until one is freed; a socket has none."""
    one, other = pair_of(backend_base)
    assert lib.bufferevent_pair_get_partner(one) == other
    assert lib.bufferevent_pair_get_partner(other) == one
    assert lib.bufferevent_getfd(one) == -1
    alone = lib.bufferevent_socket_new(backend_base.pointer, -1, 0)
    assert lib.bufferevent_pair_get_partner(alone) == ffi.NULL

    received: list[bytes] = []
    set_callbacks(other, from_c, lambda bev: received.append(read(bev, 4)))
    assert lib.bufferevent_enable(other, READ) == 0
    write(one, b"hello world")
    assert backend_base.dispatch() is False
    assert received == [b"hell"]
    assert [read(other, size) for size in (1, 100, 100)] == [b"o", b" world", b""]

    lib.bufferevent_free(other)
    assert lib.bufferevent_pair_get_partner(one) == ffi.NULL
    write(one, b"to nobody")
    backend_base.loop(lib.EVLOOP_NONBLOCK)
    for bev in one, alone:
        lib.bufferevent_free(bev)


# Reading.


def test_bufferevent(backend_base: EventBase, pair: Pair, from_c: FromC) -> None:
    """Data pass from one socket to another; what is read by one call or several is all of it."""
    data = bytes(range(256)) * 33
    left, right = (
        lib.bufferevent_socket_new(backend_base.pointer, os.dup(end.fileno()), CLOSE)
        for end in pair
    )
    received: list[bytes] = []
    written: list[bool] = []

    def on_read(bev: Any) -> None:
        received.append(read(bev, 100))
        target = ffi.gc(lib.evbuffer_new(), lib.evbuffer_free)
        assert lib.bufferevent_read_buffer(bev, target) == 0
        received.append(copied(target))
        if sum(map(len, received)) == len(data):
            assert lib.bufferevent_disable(bev, READ) == 0

    set_callbacks(right, from_c, on_read)
    set_callbacks(left, from_c, None, lambda _bev: written.append(True))
    assert lib.bufferevent_enable(right, READ) == 0
    write(left, data[:5000])
    source = ffi.gc(lib.evbuffer_new(), lib.evbuffer_free)
    add(source, data[5000:])
    assert lib.bufferevent_write_buffer(left, source) == 0
    assert lib.evbuffer_get_length(source) == 0
    assert backend_base.dispatch() is False
    assert b"".join(received) == data
    assert written == [True]
    for bev in left, right:
        lib.bufferevent_free(bev)


# Another base.


@pytest.mark.parametrize("kind", ["socket", "pair"])
def test_base_set(new_base: NewBase, pair: Pair, from_c: FromC, kind: str) -> None:
    """bufferevent_base_set() moves a socket to another base, and refuses a half of a pair."""
    one, other = new_base(), new_base()
    if kind == "pair":
        halves = pair_of(one)
        assert lib.bufferevent_base_set(other.pointer, halves[0]) == -1
        for half in halves:
            lib.bufferevent_free(half)
        return
    bev = lib.bufferevent_socket_new(one.pointer, pair[0].fileno(), 0)
    # What it waits for is taken back first: an event that has been added can't be moved.
    assert lib.bufferevent_disable(bev, READ | WRITE) == 0
    assert lib.bufferevent_base_set(other.pointer, bev) == 0
    assert lib.bufferevent_get_base(bev) == other.pointer
    received: list[bytes] = []

    def on_read(bev: Any) -> None:
        received.append(read(bev, 100))
        assert lib.bufferevent_disable(bev, READ) == 0

    set_callbacks(bev, from_c, on_read)
    assert lib.bufferevent_enable(bev, READ) == 0
    pair[1].send(b"hello")
    assert one.dispatch() is False
    assert received == []
    assert other.dispatch() is False
    assert received == [b"hello"]
    lib.bufferevent_free(bev)


# Timeouts.


@pytest.mark.parametrize("use_filter", [False, True], ids=["", "filter"])
@pytest.mark.parametrize("use_pair", [False, True], ids=["", "pair"])
def test_bufferevent_timeout(
    backend_base: EventBase, from_c: FromC, use_pair: bool, use_filter: bool
) -> None:
    """Reading and writing time out, each once; the other has neither read nor written anything.

    What is written is only told by a filter, which has given it to what is below it.
    """
    base = backend_base.pointer
    if use_pair:
        bevs = list(pair_of(backend_base))
    else:
        bevs = [lib.bufferevent_socket_new(base, -1, 0) for _ in range(2)]
    if use_filter:
        bevs = [
            lib.bufferevent_filter_new(bev, ffi.NULL, ffi.NULL, CLOSE, ffi.NULL, ffi.NULL)
            for bev in bevs
        ]
        assert all(bevs)
    one, other = bevs
    assert lib.bufferevent_disable(other, READ) == 0
    stories: list[list[tuple[str | int, float]]] = [[], []]
    begun = time.monotonic()

    def tell(bev: Any, story: list[tuple[str | int, float]]) -> None:
        def note(what: str | int) -> None:
            story.append((what, time.monotonic() - begun))

        set_callbacks(
            bev,
            from_c,
            lambda _bev: note("read"),
            lambda _bev: note("written"),
            lambda _bev, what: note(what),
        )

    tell(one, stories[0])
    tell(other, stories[1])
    lib.bufferevent_set_timeouts(one, timeval(0.15), timeval(0.1))
    write(one, b"ABCDEFG")
    assert lib.bufferevent_enable(one, READ | WRITE) == 0
    lib.bufferevent_set_timeouts(other, timeval(0.1), timeval(0.2))
    assert lib.bufferevent_enable(other, WRITE) == 0
    assert lib.event_base_loopexit(base, timeval(0.3)) == 0
    assert lib.event_base_dispatch(base) == 0

    if use_filter:
        assert stories[0].pop(0)[0] == "written"
    assert [what for what, _ in stories[0]] == [TIMEOUT | WRITING, TIMEOUT | READING]
    assert stories[0][0][1] > 0.09
    assert stories[0][1][1] > 0.14
    expected = [] if use_pair and not use_filter else [TIMEOUT | WRITING]
    assert [what for what, _ in stories[1]] == expected
    assert all(moment > 0.19 for _, moment in stories[1])
    for bev in bevs:
        lib.bufferevent_free(bev)
    backend_base.loop(lib.EVLOOP_NONBLOCK)


# Triggers.


@pytest.mark.parametrize("postpone", [0, lib.BEV_TRIG_DEFER_CALLBACKS], ids=["", "postpone"])
@pytest.mark.parametrize("defer", [0, DEFER], ids=["", "defer"])
def test_bufferevent_trigger(
    backend_base: EventBase, from_c: FromC, defer: int, postpone: int
) -> None:
    """A trigger heeds the watermarks unless told not to; an event is told as it is, with all bits.

    Once the callback for what was read has been called twice, there is one event, which is ~0.
    """
    base = backend_base.pointer
    reads = 0
    events: list[int] = []

    def serve(_listener: Any, fd: int, _address: Any, _size: int, _arg: Any) -> None:
        bev = lib.bufferevent_socket_new(base, fd, CLOSE | defer)

        def flushed(bev: Any) -> None:
            if not lib.evbuffer_get_length(lib.bufferevent_get_output(bev)):
                lib.bufferevent_disable(bev, READ | WRITE)
                lib.bufferevent_free(bev)

        set_callbacks(bev, from_c, None, flushed)
        write(bev, TEXT)

    def on_event(bev: Any, what: int) -> None:
        if what == ~0:
            events.append(what)
            assert lib.event_base_loopexit(base, ffi.NULL) == 0
            return
        assert not what & ERROR
        if what & CONNECTED:
            assert lib.bufferevent_enable(bev, READ) == 0

    def on_triggered_read(bev: Any) -> None:
        nonlocal reads
        reads += 1
        lib.bufferevent_trigger_event(bev, ~0, postpone)

    def on_read(bev: Any) -> None:
        nonlocal reads
        reads += 1
        set_callbacks(bev, from_c, on_triggered_read, None, on_event)
        low, high = ffi.new("size_t *"), ffi.new("size_t *")
        assert lib.bufferevent_getwatermark(bev, READ, low, high) == 0
        size = lib.evbuffer_get_length(lib.bufferevent_get_input(bev))
        lib.bufferevent_setwatermark(bev, READ, size + 1, 0)
        lib.bufferevent_trigger(bev, READ, postpone)
        assert reads == 1
        lib.bufferevent_trigger(bev, READ, postpone | lib.BEV_TRIG_IGNORE_WATERMARKS)
        assert reads == (1 if defer or postpone else 2)
        lib.bufferevent_setwatermark(bev, READ, low[0], high[0])

    pointer, size, _memory = convert.sockaddr(("127.0.0.1", 0))
    listener = lib.evconnlistener_new_bind(
        base,
        from_c("evconnlistener_cb")(serve),
        ffi.NULL,
        lib.LEV_OPT_CLOSE_ON_FREE,
        16,
        pointer,
        size,
    )
    with socket.socket(fileno=os.dup(lib.evconnlistener_get_fd(listener))) as sock:
        address, size, _memory = convert.sockaddr(sock.getsockname())
    bev = lib.bufferevent_socket_new(base, -1, CLOSE | defer)
    set_callbacks(bev, from_c, on_read, None, on_event)
    assert lib.bufferevent_enable(bev, READ) == 0
    assert lib.bufferevent_socket_connect(bev, address, size) == 0
    assert lib.event_base_dispatch(base) == 0
    assert lib.event_base_got_exit(base)
    assert (reads, events) == (2, [~0])
    lib.bufferevent_free(bev)
    lib.evconnlistener_free(listener)
