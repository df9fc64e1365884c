"""BufferEvent: a stream socket with buffers and callbacks."""

from __future__ import annotations

import array
import contextlib
import errno
import gc
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    ClosedError,
    EventBase,
    EventFlag,
    FlushMode,
    LoopFlag,
    TriggerOption,
    lib,
)
from tests.kit.bufferevents import OPTIONS
from tests.kit.flags import CLOSE, DEFER, NO_OPTION, READ, THREADSAFE, UNLOCK, WRITE
from tests.kit.peers import Pair, nobody_listens, reset, run_until, settle, tcp_pair
from tests.kit.support import PATIENCE, shown

# Reading and writing.


def test_it_reads_what_comes_and_writes_what_it_is_told(backend_base: EventBase) -> None:
    one, other = socket.socketpair()
    received = []

    def on_read(bev: BufferEvent) -> None:
        received.append(bev.read())
        bev.write(received[-1].upper())

    with other:
        bev = BufferEvent(backend_base, one, on_read=on_read)
        bev.enable(READ)
        for text in (b"hello", b"world"):
            other.send(text)
            run_until(backend_base, lambda text=text: received and received[-1] == text)  # type: ignore[misc]
            settle(backend_base)
            assert other.recv(100) == text.upper()


def test_writing_is_enabled_from_the_start_and_reading_is_not(base: EventBase, pair: Pair) -> None:
    one, other = pair
    bev = BufferEvent(base, one, on_read=lambda bev: pytest.fail("it has read"))
    assert bev.enabled == WRITE
    other.send(b"hello")
    bev.write(b"world")
    settle(base)
    assert other.recv(100) == b"world"
    assert len(bev.input) == 0


def test_what_is_disabled_waits(base: EventBase, pair: Pair) -> None:
    one, other = pair
    received: list[bytes] = []
    bev = BufferEvent(base, one, on_read=lambda bev: received.append(bev.read()))
    bev.enable(READ)
    bev.disable(READ | WRITE)
    assert not bev.enabled
    bev.write(b"hello")
    other.send(b"world")
    settle(base)
    assert received == []
    with pytest.raises(BlockingIOError):
        other.recv(100)
    bev.enable(READ | WRITE)
    assert bev.enabled == READ | WRITE
    settle(base)
    assert received == [b"world"]
    assert other.recv(100) == b"hello"


def test_much_data_goes_both_ways(base: EventBase, pair: Pair) -> None:
    left, right = (BufferEvent(base, sock) for sock in pair)
    received = {left: Buffer(), right: Buffer()}
    data = os.urandom(2**20) * 3
    for bev in (left, right):
        bev.on_read = lambda bev: bev.read_buffer(received[bev])
        bev.enable(READ)
        bev.write(data)
    run_until(base, lambda: all(len(buffer) == len(data) for buffer in received.values()))
    assert bytes(received[left]) == bytes(received[right]) == data


def test_read_takes_as_much_as_it_is_told(base: EventBase, pair: Pair) -> None:
    one, other = pair
    bev = BufferEvent(base, one)
    bev.enable(READ)
    other.send(b"hello, world")
    run_until(base, lambda: len(bev.input) == 12)
    assert bev.read(0) == b""
    assert bev.read(5) == b"hello"
    assert bev.read(2) == b", "
    assert bev.read(100) == b"world"
    assert bev.read() == bev.read(1) == b""


def test_read_takes_more_than_fits_into_the_memory_for_small_reads(
    base: EventBase, pair: Pair
) -> None:
    one, other = pair
    data = os.urandom(200_000)
    bev = BufferEvent(base, one)
    bev.enable(READ)
    sender = BufferEvent(base, other)
    sender.write(data)
    run_until(base, lambda: len(bev.input) == len(data))
    assert bev.read(100_000) + bev.read() == data


@pytest.mark.parametrize(
    "data", [b"hello", bytearray(b"hello"), memoryview(b"hello"), array.array("b", b"hello")]
)
def test_anything_with_the_buffer_protocol_may_be_written(
    base: EventBase, pair: Pair, data: Any
) -> None:
    one, other = pair
    bev = BufferEvent(base, one)
    bev.write(data)
    bev.write(b"")
    assert len(bev.output) == 5
    settle(base)
    assert other.recv(100) == b"hello"


def test_buffers_are_moved_without_copying(base: EventBase, pair: Pair) -> None:
    one, other = pair
    bev = BufferEvent(base, one, on_read=lambda bev: bev.write_buffer(bev.input))
    bev.enable(READ)
    other.send(b"echo")
    settle(base)
    assert other.recv(100) == b"echo"
    with Buffer(b"hello") as buffer:
        bev.write_buffer(buffer)
        assert not buffer
        settle(base)
        assert other.recv(100) == b"hello"
        bev.on_read = None
        other.send(b"world")
        settle(base)
        bev.read_buffer(buffer)
        assert bytes(buffer) == b"world"
        assert not bev.input


def test_on_write_is_called_when_all_is_sent(base: EventBase, pair: Pair) -> None:
    one, other = pair
    left = []
    bev = BufferEvent(base, one, on_write=lambda bev: left.append(len(bev.output)))
    settle(base)
    assert left == []
    bev.write(b"hello")
    settle(base)
    assert left == [0]
    assert other.recv(100) == b"hello"


def test_on_write_waits_for_the_low_watermark(base: EventBase, pair: Pair) -> None:
    one, other = pair
    left: list[int] = []
    bev = BufferEvent(base, one, on_write=lambda bev: left.append(len(bev.output)))
    bev.setwatermark(WRITE, 1_000_000, 0)
    bev.write(bytes(3_000_000))
    settle(base)
    assert left == []  # the socket's own buffer is full
    received = 0
    while received < 2_500_000:
        received += len(other.recv(65536))
        settle(base)
    assert 0 < left[0] <= 1_000_000


def test_on_read_waits_for_the_low_watermark(base: EventBase, pair: Pair) -> None:
    one, other = pair
    received = []
    bev = BufferEvent(base, one, on_read=lambda bev: received.append(bev.read()))
    bev.setwatermark(READ, 5, 0)
    bev.enable(READ)
    other.send(b"hell")
    settle(base)
    assert received == []
    assert len(bev.input) == 4
    other.send(b"o, world")
    settle(base)
    assert received == [b"hello, world"]


def test_reading_stops_at_the_high_watermark(base: EventBase, pair: Pair) -> None:
    one, other = pair
    bev = BufferEvent(base, one)
    bev.setwatermark(READ, 0, 5)
    bev.enable(READ)
    other.send(b"hello, world")
    settle(base)
    assert bev.read(3) == b"hel"
    settle(base)
    assert bev.read() == b"lo, w"
    settle(base)
    assert bev.read() == b"orld"


def test_on_read_is_called_again_while_it_leaves_the_high_watermark(
    base: EventBase, pair: Pair
) -> None:
    one, other = pair
    lengths: list[int] = []

    def on_read(bev: BufferEvent) -> None:
        lengths.append(len(bev.input))
        if len(lengths) == 3:
            bev.read(1)
        if len(lengths) == 5:
            bev.disable(READ)

    bev = BufferEvent(base, one, on_read=on_read)
    bev.setwatermark(READ, 0, 5)
    bev.enable(READ)
    other.send(b"hello!")
    settle(base)
    assert lengths == [5, 5, 5, 5, 5]
    assert bev.read() == b"ello!"


def test_watermarks_are_what_they_were_set_to(base: EventBase, pair: Pair) -> None:
    bev = BufferEvent(base, pair[0])
    assert bev.getwatermark(READ) == bev.getwatermark(WRITE) == (0, 0)
    bev.setwatermark(READ | WRITE, 1, 2)
    bev.setwatermark(WRITE, 3, lib.EV_SSIZE_MAX)
    assert bev.getwatermark(READ) == (1, 2)
    assert bev.getwatermark(WRITE) == (3, lib.EV_SSIZE_MAX)


# What happens to the connection.


def test_the_end_comes_after_the_last_data(base: EventBase, pair: Pair) -> None:
    one, other = pair
    story: list[object] = []
    bev = BufferEvent(
        base,
        one,
        on_read=lambda bev: story.append(bev.read()),
        on_event=lambda bev, what: story.append(what),
    )
    bev.enable(READ)
    other.send(b"hello")
    other.close()
    settle(base)
    assert story == [b"hello", BufferEventFlag.READING | BufferEventFlag.EOF]
    assert bev.error is None
    assert bev.enabled == WRITE


def test_a_reset_is_an_error_with_its_reason(base: EventBase) -> None:
    one, other = tcp_pair()
    story = []
    bev = BufferEvent(base, one, on_event=lambda bev, what: story.append((what, bev.error)))
    assert bev.error is None
    bev.enable(READ)
    reset(other)
    run_until(base, lambda: story)
    what, error = story[0]
    assert what == BufferEventFlag.READING | BufferEventFlag.ERROR
    assert isinstance(error, ConnectionResetError)
    assert error.errno == errno.ECONNRESET
    assert bev.error is error


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_writing_to_nobody_is_an_error_too(base: EventBase, options: BufferEventOption) -> None:
    one, other = socket.socketpair()
    story = []
    bev = BufferEvent(
        base, one, options, on_event=lambda bev, what: story.append((what, bev.error))
    )
    other.close()
    bev.write(b"hello")
    run_until(base, lambda: story)
    assert story[0][0] == BufferEventFlag.WRITING | BufferEventFlag.ERROR
    assert isinstance(story[0][1], BrokenPipeError)


def test_an_error_is_forgotten_with_the_next_event(base: EventBase, pair: Pair) -> None:
    one, other = pair
    errors = []
    bev = BufferEvent(base, one, on_event=lambda bev, what: errors.append(bev.error))
    bev.write(b"hello")
    other.close()
    settle(base)
    bev.enable(READ)
    settle(base)
    assert [type(error) for error in errors] == [BrokenPipeError, type(None)]


def test_silence_is_reported_after_the_read_timeout(base: EventBase, pair: Pair) -> None:
    one, _ = pair
    story = []
    bev = BufferEvent(base, one, on_event=lambda bev, what: story.append((what, bev.error)))
    bev.set_timeouts(0.05, None)
    bev.enable(READ)
    begun = time.monotonic()
    run_until(base, lambda: story)
    assert time.monotonic() - begun > 0.045
    assert story == [(BufferEventFlag.READING | BufferEventFlag.TIMEOUT, None)]
    assert not bev.enabled & READ


def test_output_that_nobody_takes_is_reported_after_the_write_timeout(
    base: EventBase, pair: Pair
) -> None:
    one, _ = pair
    story: list[BufferEventFlag] = []
    bev = BufferEvent(base, one, on_event=lambda bev, what: story.append(what))
    bev.set_timeouts(None, 0.05)
    settle(base)
    bev.write(bytes(5_000_000))
    begun = time.monotonic()
    run_until(base, lambda: story)
    assert time.monotonic() - begun > 0.045
    assert story == [BufferEventFlag.WRITING | BufferEventFlag.TIMEOUT]


def timed_out(base: EventBase, bev: BufferEvent, input: Any) -> list[Any]:
    """Return what *bev* is told when nothing comes for a while, and then *input* sends a byte."""
    story: list[Any] = []
    bev.setcb(lambda bev: story.append(bev.read()), None, lambda bev, what: story.append(what))
    bev.set_timeouts(0.05, None)
    bev.enable(READ)
    run_until(base, lambda: story)
    assert not bev.enabled & READ
    input(b"1")
    for _ in range(10):
        settle(base)
        time.sleep(0.01)
    assert story == [BufferEventFlag.READING | BufferEventFlag.TIMEOUT]
    bev.set_timeouts(None, None)
    bev.enable(READ)
    run_until(base, lambda: len(story) > 1)
    return story


def test_after_a_timeout_nothing_is_read_until_reading_is_enabled_again(
    base: EventBase, pair: Pair
) -> None:
    """As in C, whatever the bytes go through; what has come meanwhile is there then."""
    expected = [BufferEventFlag.READING | BufferEventFlag.TIMEOUT, b"1"]
    one, other = pair
    with BufferEvent(base, one) as bev:
        assert timed_out(base, bev, other.send) == expected
    left, right = BufferEvent.pair(base)
    right.enable(WRITE)
    with left, right:
        assert timed_out(base, left, right.write) == expected
    left, right = BufferEvent.pair(base)
    with right, BufferEvent.filter(left, None, None) as above:
        assert timed_out(base, above, right.write) == expected


def test_reading_enabled_in_the_callback_begins_the_timeout_anew(
    base: EventBase, pair: Pair
) -> None:
    story: list[BufferEventFlag] = []

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        story.append(what)
        bev.enable(READ)

    with BufferEvent(base, pair[0], on_event=on_event) as bev:
        bev.set_timeouts(0.02, None)
        bev.enable(READ)
        run_until(base, lambda: len(story) >= 3)
    assert set(story) == {BufferEventFlag.READING | BufferEventFlag.TIMEOUT}


def test_where_output_has_timed_out_it_waits_until_writing_is_enabled_again(
    base: EventBase, pair: Pair
) -> None:
    one, other = pair
    story: list[BufferEventFlag] = []
    with BufferEvent(base, one, on_event=lambda bev, what: story.append(what)) as bev:
        bev.set_timeouts(None, 0.05)
        bev.write(bytes(1_000_000))
        run_until(base, lambda: story)
        assert story == [BufferEventFlag.WRITING | BufferEventFlag.TIMEOUT]
        assert not bev.enabled & WRITE
        bev.set_timeouts(None, None)
        received = 0

        def drain() -> None:
            nonlocal received
            with contextlib.suppress(BlockingIOError):
                while data := other.recv(65536):
                    received += len(data)

        drain()
        before = received
        for _ in range(5):
            settle(base)
            drain()
        assert received == before < 1_000_000
        bev.enable(WRITE)
        run_until(base, lambda: drain() or received == 1_000_000)


def test_a_timeout_of_zero_is_the_shortest_and_none_is_none(base: EventBase, pair: Pair) -> None:
    one, _ = pair
    story: list[BufferEventFlag] = []
    bev = BufferEvent(base, one, on_event=lambda bev, what: story.append(what))
    bev.set_timeouts(None, None)
    bev.enable(READ)
    settle(base)
    assert story == []
    bev.set_timeouts(0, 0)
    run_until(base, lambda: story)
    assert story == [BufferEventFlag.READING | BufferEventFlag.TIMEOUT]


# Callbacks.


def test_callbacks_may_be_replaced_and_taken_away(base: EventBase, pair: Pair) -> None:
    one, other = pair
    calls = []

    def first(bev: BufferEvent) -> None:
        calls.append(("first", bev.read()))
        bev.on_read = second

    def second(bev: BufferEvent) -> None:
        calls.append(("second", bev.read()))
        bev.setcb(None, None, None)

    bev = BufferEvent(base, one)
    assert (bev.on_read, bev.on_write, bev.on_event) == (None, None, None)
    bev.on_read = first
    assert bev.on_read == first
    bev.enable(READ)
    for text in (b"one", b"two", b"three"):
        other.send(text)
        settle(base)
    assert calls == [("first", b"one"), ("second", b"two")]
    assert bev.read() == b"three"


def test_setcb_sets_all_three(base: EventBase, pair: Pair) -> None:
    one, other = pair
    calls: list[str] = []
    bev = BufferEvent(base, one)
    bev.setcb(
        lambda bev: calls.append("read"),
        lambda bev: calls.append("write"),
        lambda bev, what: calls.append("event"),
    )
    bev.enable(READ)
    bev.write(b"hello")
    settle(base)
    other.send(b"world")
    settle(base)
    other.close()
    settle(base)
    assert calls == ["write", "read", "event"]


def test_deferred_callbacks_come_with_the_loop_and_in_order(base: EventBase, pair: Pair) -> None:
    one, other = pair
    calls: list[str] = []
    bev = BufferEvent(
        base,
        one,
        CLOSE | DEFER,
        on_read=lambda bev: calls.append("read"),
        on_write=lambda bev: calls.append("write"),
        on_event=lambda bev, what: calls.append("event"),
    )
    bev.enable(READ)
    bev.write(b"hello")
    other.send(b"world")
    other.shutdown(socket.SHUT_WR)
    run_until(base, lambda: "event" in calls)
    assert calls.index("read") < calls.index("event")
    assert sorted(calls) == ["event", "read", "write"]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("which", ["read", "write", "event"])
def test_what_a_callback_raises_comes_out_of_the_loop(
    base: EventBase, pair: Pair, options: BufferEventOption, which: str
) -> None:
    one, other = pair
    calls = []

    def callback(bev: BufferEvent, what: BufferEventFlag | None = None) -> None:
        calls.append(bev)
        raise ZeroDivisionError(which)

    bev = BufferEvent(base, one, options)
    setattr(bev, f"on_{which}", callback)
    bev.enable(READ)
    bev.write(b"hello")
    other.send(b"world")
    if which == "event":
        other.close()
    with pytest.raises(ZeroDivisionError, match=which):
        base.loop()
    assert calls == [bev]
    assert base.got_break
    bev.setcb(None, None, None)
    settle(base)
    assert bev.read() == b"world"


def test_on_error_takes_what_a_callback_raises(base: EventBase, pair: Pair) -> None:
    one, other = pair
    taken: list[tuple[Exception, object]] = []
    base.on_error = lambda error, source: taken.append((error, source))
    bev = BufferEvent(base, one, on_read=lambda bev: 1 // len(bev.read(0)))
    bev.enable(READ)
    other.send(b"hello")
    settle(base)
    [(error, source)] = taken
    assert isinstance(error, ZeroDivisionError)
    assert source is bev


def test_nobody_has_to_keep_a_bufferevent(base: EventBase, pair: Pair) -> None:
    one, other = pair
    BufferEvent(base, one, on_read=lambda bev: bev.write(bev.read())).enable(READ)
    gc.collect()
    other.send(b"hello")
    settle(base)
    assert other.recv(100) == b"hello"


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_closed_one_goes_with_its_last_reference(
    base: EventBase, options: BufferEventOption
) -> None:
    one, other = socket.socketpair()
    with other:
        bev = BufferEvent(base, one, options, on_read=lambda bev: None)
        gone = weakref.ref(bev)
        gc.disable()
        try:
            bev.close()
            del bev
            assert gone() is None
        finally:
            gc.enable()


# Connecting.


def echo_once(listener: socket.socket) -> None:
    sock, _ = listener.accept()
    with sock:
        sock.sendall(sock.recv(100).upper())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("family", ["ipv4", "ipv6", "unix"])
def test_connect_tells_when_it_is_connected(
    base: EventBase, tmp_path: Path, family: str, options: BufferEventOption
) -> None:
    listener = {
        "ipv4": lambda: socket.create_server(("127.0.0.1", 0)),
        "ipv6": lambda: socket.create_server(("::1", 0), family=socket.AF_INET6),
        "unix": lambda: socket.socket(socket.AF_UNIX),
    }[family]()
    story: list[object] = []

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        story.append(what)
        if what & BufferEventFlag.CONNECTED:
            bev.write(b"hello")
            bev.enable(READ)

    with listener:
        if family == "unix":
            listener.bind(os.fspath(tmp_path / "socket"))
            listener.listen()
        thread = threading.Thread(target=echo_once, args=(listener,))
        thread.start()
        bev = BufferEvent(
            base, -1, options, on_read=lambda bev: story.append(bev.read()), on_event=on_event
        )
        assert bev.fd == -1
        bev.connect(listener.getsockname())
        assert bev.fd >= 0
        run_until(base, lambda: len(story) == 3)
        thread.join(PATIENCE)
    assert story == [
        BufferEventFlag.CONNECTED,
        b"HELLO",
        BufferEventFlag.READING | BufferEventFlag.EOF,
    ]


def test_what_is_written_before_it_is_connected_is_sent_then(base: EventBase) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bev = BufferEvent(base)
        bev.write(b"hello")
        bev.connect(listener.getsockname())
        sock, _ = listener.accept()
        with sock:
            settle(base)
            assert sock.recv(100) == b"hello"


@pytest.mark.parametrize("reading", ["later", "before", "after"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_refused_connection_names_the_error(
    backend_base: EventBase, options: BufferEventOption, reading: str
) -> None:
    story = []
    bev = BufferEvent(
        backend_base, -1, options, on_event=lambda bev, what: story.append((what, bev.error))
    )
    if reading == "before":
        bev.enable(READ)
    bev.connect(nobody_listens())
    if reading == "after":
        bev.enable(READ)
    assert story == []
    run_until(backend_base, lambda: story)
    [(what, error)] = story
    assert what == BufferEventFlag.ERROR
    assert isinstance(error, ConnectionRefusedError)
    assert str(error) == "[Errno 111] Connection refused"


def test_connect_raises_what_fails_at_once(base: EventBase, tmp_path: Path) -> None:
    bev = BufferEvent(base, on_event=lambda bev, what: pytest.fail("it is raised already"))
    with pytest.raises(FileNotFoundError, match="bufferevent_socket_connect"):
        bev.connect(os.fspath(tmp_path / "nothing"))
    assert bev.fd == -1
    settle(base)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # it may be tried again
        bev.on_event = None
        bev.connect(listener.getsockname())
        listener.accept()[0].close()


def test_connect_takes_the_socket_that_it_is_given(base: EventBase) -> None:
    story: list[BufferEventFlag] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket() as sock,
        BufferEvent(base, sock, NO_OPTION, on_event=lambda bev, what: story.append(what)) as bev,
    ):
        bev.connect(listener.getsockname())
        run_until(base, lambda: story)
        assert story == [BufferEventFlag.CONNECTED]
        assert bev.fd == sock.fileno()
        accepted, address = listener.accept()
        accepted.close()
        assert address == sock.getsockname()


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (("localhost", 80), ValueError),
        (("127.0.0.1", -1), ValueError),
        (("127.0.0.1", 65536), ValueError),
        (("127.0.0.1", "80"), TypeError),
        (("127.0.0.1",), TypeError),
        ("", ValueError),
        ("/" + "x" * 200, ValueError),
        (None, TypeError),
        (80, TypeError),
    ],
)
def test_a_bad_address_is_refused(base: EventBase, address: Any, error: type[Exception]) -> None:
    bev = BufferEvent(base)
    with pytest.raises(error, match=r"^address"):
        bev.connect(address)
    assert bev.fd == -1


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"fd": -2}, ValueError, "fd must be an open file descriptor, not -2"),
        ({"fd": 2**31}, ValueError, "fd must be an open file descriptor"),
        ({"fd": 10**5}, OSError, "fd 100000"),
        ({"fd": None}, TypeError, "fd must be a file descriptor"),
        ({"fd": True}, TypeError, "fd must be a file descriptor"),
        ({"fd": "1"}, TypeError, "fd must be a file descriptor"),
        ({"options": 64}, ValueError, "options has bits"),
        ({"options": "1"}, TypeError, "options must be"),
        ({"options": UNLOCK}, ValueError, "options can have UNLOCK_CALLBACKS only with"),
        ({"on_read": 5}, TypeError, "on_read must be callable"),
        ({"on_write": 5}, TypeError, "on_write must be callable"),
        ({"on_event": 5}, TypeError, "on_event must be callable"),
    ],
)
def test_a_bad_argument_is_named(
    base: EventBase, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        BufferEvent(base, **arguments)
    assert not base._ledger


@pytest.mark.parametrize("options", [NO_OPTION, CLOSE])
def test_a_socket_remains_whose_it_was_when_no_bufferevent_comes_to_be(
    base: EventBase, pair: Pair, options: BufferEventOption
) -> None:
    with pytest.raises(TypeError):
        BufferEvent(base, pair[0], options, on_read=5)  # type: ignore[arg-type]
    base.close()
    with pytest.raises(ClosedError):
        BufferEvent(base, pair[0], options)
    pair[0].send(b"hello")
    assert pair[1].recv(100) == b"hello"


@pytest.mark.parametrize("bad", [None, 5, "base", EventBase], ids=shown)
def test_it_wants_an_event_base(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"^base must be an EventBase"):
        BufferEvent(bad)


BAD_CALLS: list[tuple[Callable[[BufferEvent], object], type[Exception], str]] = [
    (lambda bev: bev.setcb(5, None, None), TypeError, "on_read must be callable"),  # type: ignore[arg-type]
    (lambda bev: bev.setcb(None, 5, None), TypeError, "on_write must be callable"),  # type: ignore[arg-type]
    (lambda bev: bev.setcb(None, None, 5), TypeError, "on_event must be callable"),  # type: ignore[arg-type]
    (lambda bev: setattr(bev, "on_read", 5), TypeError, "on_read must be callable"),
    (lambda bev: setattr(bev, "on_write", 5), TypeError, "on_write must be callable"),
    (lambda bev: setattr(bev, "on_event", 5), TypeError, "on_event must be callable"),
    (lambda bev: bev.read(-1), ValueError, "size must be from 0"),
    (lambda bev: bev.read(1.5), TypeError, "size must be an integer"),  # type: ignore[arg-type]
    (lambda bev: bev.write("text"), TypeError, "data must be bytes"),  # type: ignore[arg-type]
    (lambda bev: bev.write(5), TypeError, "data must be bytes"),  # type: ignore[arg-type]
    (lambda bev: bev.write(memoryview(b"abc")[::2]), ValueError, "data must be contiguous"),
    (lambda bev: bev.read_buffer(b""), TypeError, "buffer must be a Buffer"),  # type: ignore[arg-type]
    (lambda bev: bev.write_buffer(b""), TypeError, "buffer must be a Buffer"),  # type: ignore[arg-type]
    (lambda bev: bev.enable(0), ValueError, "what must be of READ and WRITE"),
    (lambda bev: bev.enable(EventFlag.SIGNAL), ValueError, "what must be of READ and WRITE"),
    (lambda bev: bev.disable(READ | EventFlag.ET), ValueError, "what must be of READ and WRITE"),
    (lambda bev: bev.enable("r"), TypeError, "what must be"),  # type: ignore[arg-type]
    (lambda bev: bev.setwatermark(0, 1, 2), ValueError, "what must be of READ and WRITE"),
    (lambda bev: bev.setwatermark(READ, -1, 2), ValueError, "low must be from 0"),
    (lambda bev: bev.setwatermark(READ, 1, 2**64), ValueError, "high must be from 0"),
    (lambda bev: bev.setwatermark(READ, 1, None), TypeError, "high must be"),  # type: ignore[arg-type]
    (lambda bev: bev.getwatermark(READ | WRITE), ValueError, "what must be READ or WRITE"),
    (lambda bev: bev.set_timeouts(-1, None), ValueError, "read must be from 0"),
    (lambda bev: bev.set_timeouts(None, float("nan")), ValueError, "write must be from 0"),
    (lambda bev: bev.set_timeouts(None, 1e300), ValueError, "write must be from 0"),
    (lambda bev: bev.set_timeouts("1s", None), TypeError, "read must be a number"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS)
def test_a_bad_argument_of_a_method_is_named_and_changes_nothing(
    base: EventBase,
    pair: Pair,
    call: Callable[[BufferEvent], object],
    error: type[Exception],
    message: str,
) -> None:
    one, other = pair
    bev = BufferEvent(base, one, on_read=lambda bev: bev.write(bev.read()))
    with pytest.raises(error, match=f"^{message}"):
        call(bev)
    assert bev.enabled == WRITE
    assert bev.getwatermark(READ) == (0, 0)
    bev.enable(READ)
    other.send(b"hello")
    settle(base)
    assert other.recv(100) == b"hello"


# Flushing, triggering, priorities, locks.


def test_a_trigger_calls_back_at_once_or_when_deferred_in_the_loop(base: EventBase) -> None:
    called: list[BufferEvent] = []
    with BufferEvent(base, on_read=called.append, on_write=called.append) as bev:
        bev.trigger(READ | WRITE)
        assert called == [bev, bev]
        bev.trigger(READ, TriggerOption.DEFER_CALLBACKS)
        assert len(called) == 2
        settle(base)
        assert len(called) == 3


def test_a_trigger_minds_the_watermarks_unless_told_otherwise(base: EventBase) -> None:
    called: list[BufferEvent] = []
    with BufferEvent(base, on_read=called.append) as bev:
        bev.setwatermark(READ, 10, 0)
        bev.trigger(READ)
        assert not called
        bev.trigger(READ, TriggerOption.IGNORE_WATERMARKS)
        assert called == [bev]


def test_an_event_can_be_triggered(base: EventBase) -> None:
    called: list[BufferEventFlag] = []
    with BufferEvent(base, on_event=lambda _, what: called.append(what)) as bev:
        bev.trigger_event(BufferEventFlag.EOF | BufferEventFlag.READING)
        bev.trigger_event(BufferEventFlag.TIMEOUT, TriggerOption.DEFER_CALLBACKS)
        assert called == [BufferEventFlag.EOF | BufferEventFlag.READING]
        settle(base)
        assert called[1:] == [BufferEventFlag.TIMEOUT]
        with pytest.raises(ValueError, match="what"):
            bev.trigger_event(1 << 12)


def test_what_a_triggered_callback_raises_comes_out_of_the_trigger(base: EventBase) -> None:
    def fail(*_: object) -> None:
        raise KeyError("callback")

    with BufferEvent(base, on_read=fail, on_event=fail) as bev:
        with pytest.raises(KeyError, match="callback"):
            bev.trigger(READ)
        with pytest.raises(KeyError, match="callback"):
            bev.trigger_event(BufferEventFlag.EOF)


def test_a_callback_may_close_what_triggers_it(base: EventBase) -> None:
    for option in (NO_OPTION, THREADSAFE):
        bev = BufferEvent(base, options=CLOSE | option, on_read=BufferEvent.close)
        bev.trigger(READ)
        assert bev.closed
        with pytest.raises(ClosedError):
            bev.trigger(READ)


def test_a_socket_has_nothing_to_flush(base: EventBase) -> None:
    with BufferEvent(base) as bev:
        for mode in FlushMode:
            assert bev.flush(READ | WRITE, mode) is False
        with pytest.raises(ValueError, match="99"):
            bev.flush(WRITE, 99)


def test_its_priority_is_one_of_the_bases() -> None:
    with EventBase(priorities=3) as base, BufferEvent(base) as bev:
        assert bev.priority == 1
        bev.priority = 2
        assert bev.priority == 2
        with pytest.raises(ValueError, match="priority must be from 0 to 2"):
            bev.priority = 3
        assert bev.priority == 2


def test_its_lock_is_held_in_a_with_block_where_the_base_stays_open(base: EventBase) -> None:
    for option in (NO_OPTION, THREADSAFE):
        bev = BufferEvent(base, options=CLOSE | option)
        with bev.lock(), bev.lock():
            bev.close()
            with pytest.raises(RuntimeError, match="lock"):
                base.close()
        assert bev.closed
    assert not base.closed


def test_a_lock_that_is_dropped_is_unlocked(base: EventBase) -> None:
    with BufferEvent(base, options=CLOSE | THREADSAFE) as bev:
        held = bev.lock()
        held.__enter__()
        del held
        with bev.lock():
            pass
    base.close()


def test_another_thread_can_not_give_its_lock_back(base: EventBase) -> None:
    with BufferEvent(base, options=CLOSE | THREADSAFE) as bev:
        held, raised = bev.lock(), []
        held.__enter__()

        def leave() -> None:
            try:
                held.__exit__(None, None, None)
            except RuntimeError as error:
                raised.append(str(error))

        def write() -> None:
            lib.bufferevent_lock(bev.pointer)
            lib.bufferevent_unlock(bev.pointer)

        thread = threading.Thread(target=leave)
        thread.start()
        thread.join(PATIENCE)
        assert raised == ["another thread has taken the lock of this bufferevent"]
        assert base._holds
        held.__exit__(None, None, None)
        assert not base._holds
        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()  # it would wait for ever


# Another descriptor.


def test_another_descriptor_takes_the_place_of_the_old_which_is_closed(base: EventBase) -> None:
    first, first_peer = socket.socketpair()
    second, second_peer = socket.socketpair()
    received = []
    with first_peer, second_peer, BufferEvent(base, first) as bev:
        bev.on_read = lambda bev: received.append(bev.read())
        bev.enable(READ)
        old, new = bev.fd, second.fileno()
        bev.fd = second
        assert bev.fd == new
        assert second.fileno() == -1
        assert first_peer.recv(1) == b""
        second_peer.send(b"hello")
        run_until(base, lambda: received)
        with pytest.raises(ValueError, match="already"):
            bev.fd = new
        assert old != new
    assert received == [b"hello"]


def test_a_descriptor_that_is_not_the_bufferevents_is_left_open(base: EventBase) -> None:
    first, first_peer = socket.socketpair()
    second, second_peer = socket.socketpair()
    with first, first_peer, second, second_peer:
        with BufferEvent(base, first, NO_OPTION) as bev:
            bev.fd = second
            first_peer.send(b"still open")
            assert first.recv(100) == b"still open"
        settle(base)
        second_peer.send(b"still open")
        assert second.recv(100) == b"still open"


def test_a_detached_descriptor_is_the_callers(base: EventBase) -> None:
    one, peer = socket.socketpair()
    with peer:
        bev = BufferEvent(base, one)
        with socket.socket(fileno=bev.detach()) as mine:
            assert bev.fd == -1
            assert bev.detach() == -1
            bev.close()
            settle(base)
            peer.send(b"hello")
            assert mine.recv(5) == b"hello"


def test_the_bufferevent_may_change_its_descriptor_in_its_own_callbacks(base: EventBase) -> None:
    first, first_peer = socket.socketpair()
    second, second_peer = socket.socketpair()
    received = []

    def on_read(bev: BufferEvent) -> None:
        received.append(bev.read())
        if len(received) == 1:
            bev.fd = second
        else:
            os.close(bev.detach())

    with first_peer, second_peer, BufferEvent(base, first, on_read=on_read) as bev:
        bev.enable(READ)
        first_peer.send(b"one")
        second_peer.send(b"two")
        run_until(base, lambda: len(received) == 2)
    assert received == [b"one", b"two"]


def test_the_base_can_not_be_closed_in_a_callback_outside_its_loop(base: EventBase) -> None:
    with BufferEvent(base, on_read=lambda _: base.close()) as bev:
        with pytest.raises(RuntimeError, match="inside a callback"):
            bev.trigger(READ)
        assert not base.closed


def test_callbacks_outside_the_loop_may_trigger_others_and_run_another_bases_loop(
    base: EventBase,
) -> None:
    called = []

    def on_read(bev: BufferEvent) -> None:
        called.append("outer")
        other.trigger(READ)
        with EventBase() as inner:
            inner.once(lambda *_: called.append("inner loop"))
            inner.dispatch()
        with pytest.raises(RuntimeError, match="inside a callback"):
            base.loop(LoopFlag.NONBLOCK)
        other.trigger(READ)
        bev.trigger(WRITE)

    with (
        BufferEvent(base, on_read=on_read, on_write=lambda _: called.append("write")) as bev,
        BufferEvent(base, on_read=lambda _: called.append("other")) as other,
    ):
        bev.trigger(READ)
    assert called == ["outer", "other", "inner loop", "other", "write"]


def test_the_output_can_be_added_to_in_place_but_not_replaced(base: EventBase, pair: Pair) -> None:
    with BufferEvent(base, pair[0].detach()) as bev:
        bev.output += b"hello"
        bev.output += Buffer(b" world")
        with pytest.raises(AttributeError, match="replaced"):
            bev.output = Buffer()
        settle(base)
        assert pair[1].recv(100) == b"hello world"
