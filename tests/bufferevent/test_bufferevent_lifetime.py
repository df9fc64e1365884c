"""Whose descriptor a BufferEvent has, and how it ends: closed, dropped, or with its base."""

from __future__ import annotations

import gc
import os
import socket
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    ClosedError,
    EventBase,
    LoopFlag,
    RateLimit,
    ThreadError,
    lib,
)
from tests.kit.bufferevents import OPTIONS
from tests.kit.flags import CLOSE, DEFER, NO_OPTION, READ
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import Pair, is_open, nobody_listens, run_until, settle
from tests.kit.support import PATIENCE, run_python

# Whose descriptor it is.


def test_with_close_on_free_the_descriptor_is_closed_in_the_next_turn(base: EventBase) -> None:
    one, other = socket.socketpair()
    with other:
        fd = one.detach()
        bev = BufferEvent(base, fd)
        assert bev.fd == fd
        bev.close()
        settle(base)
        assert not is_open(fd)
        assert other.recv(1) == b""


def test_with_close_on_free_a_socket_is_detached_from_its_object(base: EventBase) -> None:
    one, other = socket.socketpair()
    with other:
        fd = one.fileno()
        bev = BufferEvent(base, one)
        assert (one.fileno(), bev.fd) == (-1, fd)
        bev.close()
        settle(base)
        assert not is_open(fd)


def test_without_close_on_free_the_descriptor_stays_with_who_has_it(base: EventBase) -> None:
    one, other = socket.socketpair()
    with one, other:
        bev = BufferEvent(base, one.fileno(), NO_OPTION)
        bev.enable(READ)
        bev.close()
        one.send(b"at once")  # nobody else uses it from here on
        assert other.recv(100) == b"at once"
        other.send(b"hello")
        settle(base)
        assert one.recv(100) == b"hello"


def test_without_close_on_free_a_socket_object_is_kept_alive(base: EventBase) -> None:
    one, other = socket.socketpair()
    with other:
        kept = weakref.ref(one)
        bev = BufferEvent(base, one, NO_OPTION)
        del one
        gc.collect()
        bev.write(b"hello")
        settle(base)
        assert other.recv(100) == b"hello"
        bev.close()
        sock = kept()
        assert sock is not None
        del bev
        sock.close()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("owned", [True, False])
def test_a_socket_that_libevent_made_is_closed_in_any_case(
    base: EventBase, options: BufferEventOption, owned: bool
) -> None:
    options = options if owned else options & ~CLOSE
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bev = BufferEvent(base, -1, options)
        bev.connect(listener.getsockname())
        sock, _ = listener.accept()
        fd = bev.fd
        with sock:
            bev.close()
            settle(base)
            assert not is_open(fd)
            assert sock.recv(1) == b""


def test_a_socket_that_libevent_made_is_closed_though_it_has_failed(base: EventBase) -> None:
    address = nobody_listens()
    bev = BufferEvent(base, -1, NO_OPTION)
    bev.connect(address)
    settle(base)
    fd = bev.fd
    with pytest.raises(ConnectionAbortedError):  # Linux says so after a refusal
        bev.connect(address)
    bev.connect(address)
    settle(base)
    assert bev.fd == fd
    bev.close()
    assert not is_open(fd)


def test_a_file_that_closes_itself_is_not_taken(base: EventBase) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as file, open(writer, "wb"):
        with pytest.raises(TypeError, match=r"^fd must be a descriptor or a socket when CLOSE_ON"):
            BufferEvent(base, file)
        with BufferEvent(base, file, NO_OPTION) as bev:
            assert bev.fd == reader
        assert is_open(reader)


def test_the_descriptor_is_set_not_to_block(base: EventBase) -> None:
    one, other = socket.socketpair()
    with other:
        assert os.get_blocking(one.fileno())
        with BufferEvent(base, one) as bev:
            assert not os.get_blocking(bev.fd)


def test_what_the_backend_cannot_wait_for_is_an_error(base: EventBase, tmp_path: Path) -> None:
    assert base.method == "epoll"
    with (
        open(tmp_path / "file", "w+b") as file,
        pytest.raises(PermissionError, match=r"bufferevent_socket_new.*regular file"),
    ):
        BufferEvent(base, file, NO_OPTION)


# The end.

EVERY_USE: list[Callable[[BufferEvent], object]] = [
    lambda bev: bev.pointer,
    lambda bev: bev.fd,
    lambda bev: bev.input,
    lambda bev: bev.output,
    lambda bev: bev.enabled,
    lambda bev: bev.read(),
    lambda bev: bev.read(0),
    lambda bev: bev.write(b""),
    lambda bev: bev.read_buffer(Buffer()),
    lambda bev: bev.write_buffer(Buffer()),
    lambda bev: bev.enable(READ),
    lambda bev: bev.disable(READ),
    lambda bev: bev.setwatermark(READ, 0, 0),
    lambda bev: bev.getwatermark(READ),
    lambda bev: bev.set_timeouts(None, None),
    lambda bev: bev.setcb(None, None, None),
    lambda bev: setattr(bev, "on_read", None),
    lambda bev: bev.connect(("127.0.0.1", 1)),
    lambda bev: bev.__enter__(),
]


@pytest.mark.parametrize("end", ["close", "base"])
def test_every_use_of_a_closed_one_says_so(base: EventBase, pair: Pair, end: str) -> None:
    bev = BufferEvent(base, pair[0])
    assert not bev.closed
    (bev if end == "close" else base).close()
    assert bev.closed
    assert repr(bev).startswith("<BufferEvent closed")
    for use in EVERY_USE:
        with pytest.raises(ClosedError, match=r"^this BufferEvent is closed$"):
            use(bev)
    bev.close()
    base.close()
    bev.close()


def test_with_closes_it(base: EventBase, pair: Pair) -> None:
    with BufferEvent(base, pair[0]) as bev:
        pass
    assert bev.closed


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("which", ["read", "write", "eof", "timeout", "connected", "refused"])
def test_it_may_be_closed_in_each_of_its_callbacks(
    base: EventBase, options: BufferEventOption, which: str
) -> None:
    calls = []

    def callback(bev: BufferEvent, what: BufferEventFlag | None = None) -> None:
        calls.append(what)
        bev.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        if which in ("connected", "refused"):
            bev = BufferEvent(base, -1, options, on_event=callback)
            bev.connect(listener.getsockname() if which == "connected" else nobody_listens())
        else:
            one, other = socket.socketpair()
            bev = BufferEvent(base, one, options)
            bev.setcb(
                callback if which == "read" else None,
                callback if which == "write" else None,
                callback if which in ("eof", "timeout") else None,
            )
            bev.set_timeouts(0.01 if which == "timeout" else None, None)
            bev.enable(READ)
            bev.write(b"hello" if which == "write" else b"")
            other.send(b"hello" if which == "read" else b"")
            if which != "timeout":
                other.shutdown(socket.SHUT_WR)
        run_until(base, lambda: calls)
        settle(base)
        assert len(calls) == 1
        assert bev.closed
        if which not in ("connected", "refused"):
            other.close()
        else:
            listener.setblocking(False)
            if which == "connected":
                listener.accept()[0].close()


def test_nothing_is_called_once_it_is_closed(base: EventBase, pair: Pair) -> None:
    one, other = pair
    bev = BufferEvent(
        base,
        one,
        CLOSE | DEFER,
        on_read=lambda bev: pytest.fail("read"),
        on_write=lambda bev: pytest.fail("write"),
        on_event=lambda bev, what: pytest.fail("event"),
    )
    bev.enable(READ)
    bev.write(b"hello")
    other.send(b"world")
    other.shutdown(socket.SHUT_WR)
    base.once(lambda fd, what: bev.close())
    run_until(base, lambda: bev.closed)
    settle(base)


def test_one_may_close_the_other(base: EventBase) -> None:
    socks = [socket.socketpair() for _ in range(20)]
    bevs: list[BufferEvent] = []

    def on_read(bev: BufferEvent) -> None:
        for other in bevs:
            if other is not bev:
                other.close()

    for one, other in socks:
        bevs.append(BufferEvent(base, one, on_read=on_read))
        bevs[-1].enable(READ)
        other.send(b"hello")
    settle(base)
    assert len([bev for bev in bevs if not bev.closed]) == 1
    for _, other in socks:
        other.close()


def test_closing_the_base_closes_what_was_made_on_it() -> None:
    one, other = socket.socketpair()
    with other:
        base = EventBase()
        bev = BufferEvent(base, one, on_event=lambda bev, what: pytest.fail("called"))
        bev.enable(READ)
        bev.write(b"hello")
        fd = bev.fd
        base.close()
        assert bev.closed
        assert not is_open(fd)


def test_a_dropped_base_frees_what_was_made_on_it() -> None:
    one, other = socket.socketpair()
    with other:
        base = EventBase()
        bev = BufferEvent(base, one, on_read=lambda bev: None)
        bev.enable(READ)
        fd = bev.fd
        del base, bev
        gc.collect()
        assert not is_open(fd)
        assert other.recv(1) == b""


@pytest.mark.parametrize("use", [*EVERY_USE, BufferEvent.close])
def test_another_thread_than_the_loop_s_is_refused(
    base: EventBase, pair: Pair, use: Callable[[BufferEvent], object]
) -> None:
    bev = BufferEvent(base, pair[0])
    held = bev.input
    outcome: list[object] = []

    def work() -> None:
        try:
            outcome.append(use(bev))
        except Exception as error:
            outcome.append(error)
        try:
            len(held)
        except Exception as error:
            outcome.append(error)
        base.loopexit()

    thread = threading.Thread(target=work)
    base.once(lambda fd, what: thread.start())
    base.loop(LoopFlag.NO_EXIT_ON_EMPTY)
    thread.join(PATIENCE)
    first, second = outcome
    if use.__code__.co_names[0] in ("pointer", "__enter__"):
        assert not isinstance(first, Exception)
    else:
        assert isinstance(first, ThreadError)
    assert isinstance(second, ThreadError)
    assert not bev.closed


def test_a_subclass_may_be_a_connection(base: EventBase, pair: Pair) -> None:
    class Connection(BufferEvent):
        def __init__(self, base: EventBase, sock: socket.socket) -> None:
            super().__init__(base, sock, on_read=Connection.greet)  # type: ignore[arg-type]
            self.greeted = 0
            self.enable(READ)

        def greet(self) -> None:
            self.greeted += 1
            self.write(b"hello, " + self.read())

    one, other = pair
    connection = Connection(base, one)
    other.send(b"world")
    settle(base)
    assert other.recv(100) == b"hello, world"
    connection.close()
    assert connection.greeted == 1
    assert isinstance(connection, Connection)


@VALGRIND_TAKES_LONG
def test_closing_everywhere_touches_no_memory_that_is_freed(valgrind: bool) -> None:
    run_python(
        """
        import gc, itertools, os, socket
        from libevent_py import *

        CLOSE, DEFER = BufferEventOption.CLOSE_ON_FREE, BufferEventOption.DEFER_CALLBACKS
        UNLOCK = BufferEventOption.UNLOCK_CALLBACKS | DEFER
        SAFE = BufferEventOption.THREADSAFE
        OPTIONS = [a | b | c for a in (CLOSE, 0) for b in (0, DEFER, UNLOCK) for c in (0, SAFE)]

        def run(base):
            for _ in range(4):
                base.loop(LoopFlag.NONBLOCK)

        VICTIMS = ("self", "peer", "base")

        # Closed in its own callbacks, and in those of its peer on the same base.
        for options, which, victim in itertools.product(OPTIONS, range(3), VICTIMS):
            one, other = socket.socketpair()
            with one, other, EventBase() as base:
                def callback(bev, what=None):
                    held.append(bev.input)
                    if victim == "base":
                        base.loopexit()
                    else:
                        (bev if victim == "self" else peers[bev]).close()

                held, peers = [], {}
                left = BufferEvent(base, one.detach() if options & CLOSE else one, options)
                right = BufferEvent(base, other.detach() if options & CLOSE else other, options)
                peers.update({left: right, right: left})
                for bev in (left, right):
                    callbacks = [None, None, None]
                    callbacks[which] = callback
                    bev.setcb(*callbacks)
                    bev.set_timeouts(0, 0) if which == 2 else None
                    bev.enable(EventFlag.READ)
                    bev.write(b"x" * 100)
                run(base)
            for buffer in held:
                try:
                    len(buffer)
                except ClosedError:
                    pass
                else:
                    raise AssertionError("a borrowed buffer has outlived its base")

        # Connecting, refused, and closed at once.
        with socket.create_server(("127.0.0.1", 0)) as listener, EventBase() as base:
            for options in OPTIONS:
                for address in (listener.getsockname(), ("127.0.0.1", 1)):
                    bev = BufferEvent(base, -1, options, on_event=lambda bev, what: bev.close())
                    bev.connect(address)
                    run(base)
                    bev = BufferEvent(base, -1, options, on_event=lambda bev, what: None)
                    bev.connect(address)
                    bev.close()
                    run(base)

        # A base that is dropped with everything on it, its parts held or not, in either order.
        for order in range(6):
            one, other = socket.socketpair()
            base = EventBase()
            bev = BufferEvent(base, one, DEFER | CLOSE, on_read=lambda bev: None)
            bev.enable(EventFlag.READ)
            other.send(b"hello")
            bev.write(b"hello")
            base.loop(LoopFlag.NONBLOCK)
            buffer = bev.input
            parts = {"base": base, "bev": bev, "buffer": buffer}
            del base, bev, buffer
            for name in list(itertools.permutations(parts))[order]:
                del parts[name]
                gc.collect()
            other.close()

        # An exception in each callback.
        for options in OPTIONS[:6]:
            one, other = socket.socketpair()
            with other, EventBase() as base:
                def callback(bev, what=None):
                    bev.close()
                    raise ZeroDivisionError

                bev = BufferEvent(base, one, options, on_read=callback)
                bev.enable(EventFlag.READ)
                other.send(b"hello")
                try:
                    base.dispatch()
                except ZeroDivisionError:
                    print("raised", end=" ")
        """,
        valgrind=valgrind,
    )


# What is given to something that frees it in C, as HTTP's connections do.


def test_a_bufferevent_that_is_given_away_belongs_to_who_has_it(base: EventBase) -> None:
    bev = BufferEvent(base)
    pointer = bev._give("its owner")  # type: ignore[arg-type]
    for use in (bev.close, bev.detach, lambda: bev.setcb(None, None, None)):
        with pytest.raises(ValueError, match="belongs to 'its owner'"):
            use()
    with pytest.raises(ValueError, match="belongs to"):
        bev.rate_limit = RateLimit(1000, 1000)
    assert len(bev.input) == 0
    lib.bufferevent_free(pointer)
    bev._taken_back()
    assert bev.closed
    base.loop(LoopFlag.NONBLOCK)


def test_what_http_could_not_use_is_not_given_away(base: EventBase) -> None:
    half, other = BufferEvent.pair(base)
    with half, other, pytest.raises(ValueError, match="pair"):
        half._give(None)  # type: ignore[arg-type]
    for options, why in (
        (NO_OPTION, "with CLOSE"),
        (CLOSE | BufferEventOption.EAGER, "without EAGER"),
    ):
        with BufferEvent(base, options=options) as bev, pytest.raises(ValueError, match=why):
            bev._give(None)  # type: ignore[arg-type]
    with BufferEvent(base) as limited:
        limited.rate_limit = RateLimit(1000, 1000)
        with pytest.raises(ValueError, match="rate limit"):
            limited._give(None)  # type: ignore[arg-type]


def test_a_borrowed_bufferevent_is_not_freed_by_its_object(base: EventBase) -> None:
    pointer = lib.bufferevent_socket_new(base.pointer, -1, BufferEventOption.CLOSE_ON_FREE)
    bev = BufferEvent._borrowed(base, pointer, "its owner")  # type: ignore[arg-type]
    assert bev.fd == -1
    del bev
    lib.bufferevent_free(pointer)
    base.loop(LoopFlag.NONBLOCK)
