"""Listener: a listening socket that accepts connections."""

from __future__ import annotations

import errno
import gc
import logging
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventOption,
    ClosedError,
    Event,
    EventBase,
    EventFlag,
    LibeventError,
    Listener,
    ListenerOption,
    LoopFlag,
    ThreadError,
    lib,
    listener,
)
from tests.kit.peers import ANYWHERE, connected, is_open, reset, rest, run_until, settle
from tests.kit.support import PATIENCE, ROOT, run_python

NO_OPTION = ListenerOption(0)
CLOSE = ListenerOption.CLOSE_ON_FREE
REUSEABLE = ListenerOption.REUSEABLE


class Accepted:
    """A callback that keeps what it gets, as sockets."""

    def __init__(self) -> None:
        self.calls: list[tuple[Listener, int, Any]] = []
        self.socks: list[socket.socket] = []

    def __call__(self, listener: Listener, fd: int, address: Any) -> None:
        self.calls.append((listener, fd, address))
        self.socks.append(socket.socket(fileno=fd))

    def __len__(self) -> int:
        return len(self.calls)


@pytest.fixture
def accepted() -> Iterator[Accepted]:
    callback = Accepted()
    yield callback
    for sock in callback.socks:
        sock.close()


@contextmanager
def no_free_descriptors() -> Iterator[None]:
    """Let nobody in this process open anything meanwhile."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# Accepting.


def test_each_connection_is_handed_to_the_callback(
    backend_base: EventBase, accepted: Accepted
) -> None:
    server = Listener(backend_base, ANYWHERE, accepted)
    with connected(server.address) as one, connected(server.address) as other:
        run_until(backend_base, lambda: len(accepted) == 2)
        assert [listener for listener, _, _ in accepted.calls] == [server, server]
        assert [address for _, _, address in accepted.calls] == [
            one.getsockname(),
            other.getsockname(),
        ]
        accepted.socks[0].send(b"hello")
        assert one.recv(100) == b"hello"


def test_an_ipv6_address_has_four_parts(base: EventBase, accepted: Accepted) -> None:
    server = Listener(base, ("::1", 0), accepted)
    host, port, *_ = server.address
    assert host == "::1"
    with socket.create_connection((host, port)) as sock:
        run_until(base, lambda: accepted)
        assert accepted.calls[0][2] == sock.getsockname() == ("::1", sock.getsockname()[1], 0, 0)


def test_a_path_is_an_address_too(base: EventBase, accepted: Accepted, tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "socket")
    server = Listener(base, path, accepted)
    assert server.address == path
    with socket.socket(socket.AF_UNIX) as unnamed, socket.socket(socket.AF_UNIX) as named:
        unnamed.connect(path)
        named.bind(os.fspath(tmp_path / "client"))
        named.connect(path)
        run_until(base, lambda: len(accepted) == 2)
    addresses = [address for _, _, address in accepted.calls]
    assert addresses == ["", os.fspath(tmp_path / "client")]


def test_a_name_outside_of_the_file_system_is_an_address_too(
    base: EventBase, accepted: Accepted
) -> None:
    name = b"\0libevent_py test %d" % os.getpid()
    server = Listener(base, name, accepted)
    assert server.address == name
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(name)
        run_until(base, lambda: accepted)


def test_the_accepted_socket_does_not_block_unless_asked(
    base: EventBase, accepted: Accepted
) -> None:
    for options, blocking in (
        (CLOSE, False),
        (CLOSE | ListenerOption.LEAVE_SOCKETS_BLOCKING, True),
    ):
        with Listener(base, ANYWHERE, accepted, options=options) as server:
            with connected(server.address):
                before = len(accepted)
                run_until(base, lambda before=before: len(accepted) > before)  # type: ignore[misc]
            assert os.get_blocking(accepted.calls[-1][1]) == blocking


def test_no_child_process_inherits_the_accepted_socket_unless_told_otherwise(
    base: EventBase, accepted: Accepted
) -> None:
    own: tuple[dict[str, Any], ...] = (
        {},
        {"options": CLOSE | ListenerOption.CLOSE_ON_EXEC},
        {"options": CLOSE},
    )
    for options, inheritable in zip(own, (False, False, True), strict=True):
        with Listener(base, ANYWHERE, accepted, **options) as server:
            assert not os.get_inheritable(server.fd)
            with connected(server.address):
                before = len(accepted)
                run_until(base, lambda before=before: len(accepted) > before)  # type: ignore[misc]
            assert os.get_inheritable(accepted.calls[-1][1]) == inheritable


def test_a_disabled_listener_lets_connections_wait(base: EventBase, accepted: Accepted) -> None:
    server = Listener(base, ANYWHERE, accepted, options=CLOSE | ListenerOption.DISABLED)
    with connected(server.address):
        settle(base)
        assert not accepted
        server.enable()
        run_until(base, lambda: accepted)
        server.disable()
        with connected(server.address):
            settle(base)
            assert len(accepted) == 1
            server.enable()
            run_until(base, lambda: len(accepted) == 2)


def test_the_callback_may_disable_its_listener(base: EventBase, accepted: Accepted) -> None:
    def one_at_a_time(listener: Listener, fd: int, address: Any) -> None:
        listener.disable()
        accepted(listener, fd, address)

    server = Listener(base, ANYWHERE, one_at_a_time)
    with connected(server.address), connected(server.address):
        settle(base)
        assert len(accepted) == 1
        server.enable()
        settle(base)
        assert len(accepted) == 2


def test_the_callback_may_be_replaced(base: EventBase, accepted: Accepted) -> None:
    def first(listener: Listener, fd: int, address: Any) -> None:
        os.close(fd)
        listener.callback = accepted

    server = Listener(base, ANYWHERE, first)
    assert server.callback is first
    with connected(server.address) as one, connected(server.address):
        run_until(base, lambda: accepted)
        assert rest(one) == b""
    with pytest.raises(TypeError, match=r"^callback must be callable, not 5"):
        server.callback = 5  # type: ignore[assignment]
    assert server.callback is accepted


def test_without_a_callback_connections_wait(base: EventBase, accepted: Accepted) -> None:
    server = Listener(base, ANYWHERE, None)
    assert server.callback is None
    with connected(server.address):
        settle(base)
        server.callback = accepted
        run_until(base, lambda: accepted)


def test_once_there_has_been_a_callback_nobody_means_that_connections_are_closed(
    base: EventBase, accepted: Accepted
) -> None:
    def once(listener: Listener, fd: int, address: Any) -> None:
        accepted(listener, fd, address)
        listener.callback = None

    server = Listener(base, ANYWHERE, once)
    with connected(server.address), connected(server.address) as other:
        run_until(base, lambda: accepted)
        settle(base)
        assert rest(other) == b""
        assert len(accepted) == 1
        server.callback = accepted
        with connected(server.address):
            run_until(base, lambda: len(accepted) == 2)


def test_a_disabled_listener_stays_so_when_it_gets_a_callback(
    base: EventBase, accepted: Accepted
) -> None:
    server = Listener(base, ANYWHERE, None, options=CLOSE | ListenerOption.DISABLED)
    server.callback = accepted
    with connected(server.address):
        settle(base)
        assert not accepted
        server.enable()
        run_until(base, lambda: accepted)


def test_nobody_has_to_keep_a_listener(base: EventBase, accepted: Accepted) -> None:
    address = Listener(base, ANYWHERE, accepted).address
    gc.collect()
    with connected(address):
        run_until(base, lambda: accepted)


def test_an_address_can_be_listened_on_again_at_once(base: EventBase, accepted: Accepted) -> None:
    server = Listener(base, ANYWHERE, accepted)
    address = server.address
    with connected(address):
        run_until(base, lambda: accepted)
        accepted.socks[0].close()  # this end closes first, and so lingers in TIME_WAIT
    server.close()
    with Listener(base, address, accepted) as again:
        assert again.address == address


def test_two_listeners_may_share_a_port_when_both_want_to(
    base: EventBase, accepted: Accepted
) -> None:
    options = CLOSE | ListenerOption.REUSEABLE_PORT
    server = Listener(base, ANYWHERE, accepted, options=options)
    with Listener(base, server.address, accepted, options=options) as other, ExitStack() as clients:
        assert other.address == server.address
        for _ in range(64):
            clients.enter_context(connected(server.address))
        run_until(base, lambda: len(accepted) == 64)
        assert {listener for listener, _, _ in accepted.calls} == {server, other}


def test_an_ipv6_listener_takes_ipv4_too_unless_told_otherwise(
    base: EventBase, accepted: Accepted
) -> None:
    both = Listener(base, ("::", 0), accepted)
    with connected(("127.0.0.1", both.address[1])) as sock:
        run_until(base, lambda: accepted)
        assert accepted.calls[0][2][0] == "::ffff:127.0.0.1"
        assert sock.getpeername()[1] == both.address[1]
    only = Listener(base, ("::", 0), accepted, options=CLOSE | ListenerOption.BIND_IPV6ONLY)
    with pytest.raises(ConnectionRefusedError):
        connected(("127.0.0.1", only.address[1]))


@pytest.mark.parametrize(
    "option", [ListenerOption.THREADSAFE, ListenerOption.DEFERRED_ACCEPT, ListenerOption.REUSEABLE]
)
def test_other_options_change_nothing_else(
    base: EventBase, accepted: Accepted, option: ListenerOption
) -> None:
    server = Listener(base, ANYWHERE, accepted, options=CLOSE | option)
    with connected(server.address) as sock:
        sock.send(b"hello")
        run_until(base, lambda: accepted)
        assert accepted.socks[0].recv(100) == b"hello"


def test_with_deferred_accept_who_says_nothing_is_not_accepted(
    base: EventBase, accepted: Accepted
) -> None:
    server = Listener(base, ANYWHERE, accepted, options=CLOSE | ListenerOption.DEFERRED_ACCEPT)
    with connected(server.address) as sock:
        settle(base)
        assert not accepted
        sock.send(b"hello")
        run_until(base, lambda: accepted)


@pytest.mark.parametrize(("backlog", "kept"), [(-1, 128), (7, 7)])
def test_as_many_connections_wait_as_the_backlog_says(
    base: EventBase, accepted: Accepted, backlog: int, kept: int
) -> None:
    server = Listener(base, ANYWHERE, accepted, backlog=backlog)
    with socket.socket(fileno=os.dup(server.fd)) as sock:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    assert struct.unpack_from("I", info, 28) == (kept,)  # tcpi_sacked; of a listener, the backlog


# What goes wrong.


def test_it_can_not_be_made_twice(base: EventBase, accepted: Accepted) -> None:
    server = Listener(base, ANYWHERE, accepted)
    with pytest.raises(RuntimeError, match=r"^this Listener has been made already$"):
        server.__init__(base, ANYWHERE, accepted)  # type: ignore[misc]


@pytest.mark.slow
def test_what_the_backend_refuses_is_an_error(base: EventBase, accepted: Accepted) -> None:
    """In C, the listener would be made and never accept anything."""
    with socket.create_server(ANYWHERE) as sock:
        fd = sock.fileno()
        most = [Event(base, fd, EventFlag.READ, print).add() for _ in range(65535)]  # (C12)
        with pytest.raises(LibeventError, match=rf"^evconnlistener_new: fd {fd} with epoll failed"):
            Listener.from_fd(base, sock, accepted)
        assert sock.fileno() == fd
        assert len(base._live) == len(most)
        most[0].delete()
        server = Listener.from_fd(base, sock, None)
        most[0].add()
        with pytest.raises(LibeventError, match=rf"^evconnlistener_set_cb: fd {fd} failed"):
            server.callback = accepted
        assert server.callback is None
        for event in most:
            event.close()
        server.callback = accepted
        with connected(server.address):
            run_until(base, lambda: accepted)


def test_a_path_that_is_there_already_is_an_error_that_says_what_to_do(
    base: EventBase, accepted: Accepted, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    Listener(base, path, accepted).close()
    assert path.is_socket()
    with pytest.raises(OSError, match=r"/socket'.*already in use \(if no server .* remove it"):
        Listener(base, os.fspath(path), accepted)
    path.unlink()
    with Listener(base, os.fsencode(path), accepted) as server:
        assert server.address == os.fspath(path)


def test_an_address_in_use_is_an_error_that_names_it(base: EventBase, accepted: Accepted) -> None:
    server = Listener(base, ANYWHERE, accepted)
    with pytest.raises(OSError, match=r"address \('127.0.0.1', \d+\): Address already") as raised:
        Listener(base, server.address, accepted)
    assert raised.value.errno == errno.EADDRINUSE


def test_an_address_that_is_not_ours_is_an_error(base: EventBase, accepted: Accepted) -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1") as raised:
        Listener(base, ("192.0.2.1", 0), accepted)
    assert raised.value.errno == errno.EADDRNOTAVAIL
    with pytest.raises(FileNotFoundError, match="/nowhere/socket"):
        Listener(base, "/nowhere/socket", accepted)


@pytest.mark.parametrize("hook", [False, True])
def test_when_the_callback_raises_the_descriptor_is_closed(base: EventBase, hook: bool) -> None:
    taken: list[tuple[Exception, object]] = []
    fds: list[int] = []

    def callback(listener: Listener, fd: int, address: Any) -> None:
        fds.append(fd)
        raise ZeroDivisionError

    server = Listener(base, ANYWHERE, callback)
    if hook:
        base.on_error = lambda error, source: taken.append((error, source))
    with connected(server.address) as sock:
        if hook:
            run_until(base, lambda: taken)
            [(error, source)] = taken
            assert isinstance(error, ZeroDivisionError)
            assert source is server
        else:
            with pytest.raises(ZeroDivisionError):
                base.dispatch()
        assert not is_open(fds[0])
        assert rest(sock) == b""
    assert not server.closed


@pytest.mark.parametrize("options", [BufferEventOption.CLOSE_ON_FREE, BufferEventOption(0)])
def test_when_the_callback_raises_a_bufferevent_does_not_keep_the_descriptor(
    base: EventBase, options: BufferEventOption
) -> None:
    """Or it would go on with whatever gets the same number next."""
    bevs: list[BufferEvent] = []
    raised: list[Exception] = []
    base.on_error = lambda error, source: raised.append(error)

    def callback(listener: Listener, fd: int, address: Any) -> None:
        bevs.append(BufferEvent(base, fd, options, on_read=lambda bev: pytest.fail("read")))
        bevs[-1].enable(EventFlag.READ)
        raise ZeroDivisionError

    other = BufferEvent(base)
    server = Listener(base, ANYWHERE, callback)
    with connected(server.address) as sock:
        sock.send(b"hello")
        run_until(base, lambda: raised)
        settle(base)
        assert bevs[0].closed
        assert not other.closed
        with pytest.raises(ConnectionResetError):
            rest(sock)


def test_when_the_callback_raises_nothing_waits_for_the_descriptor_any_longer(
    base: EventBase,
) -> None:
    """Or what gets the same number next would never be heard of."""
    numbers: list[int] = []
    made: list[Any] = []

    def callback(listener: Listener, fd: int, address: Any) -> None:
        numbers.append(fd)
        if len(numbers) == 1:
            made.append(BufferEvent(elsewhere, fd))
            made.append(BufferEvent.filter(made[0], None, None, options=BufferEventOption(0)))
            made.append(Event(base, fd, EventFlag.READ | EventFlag.PERSIST, print).add())
            raise ZeroDivisionError
        made.append(BufferEvent(base, fd, on_read=lambda bev: bev.write(bev.read())))
        made[-1].enable(EventFlag.READ)

    raised: list[Exception] = []
    base.on_error = lambda error, source: raised.append(error)
    with EventBase() as elsewhere:
        server = Listener(base, ANYWHERE, callback)
        with connected(server.address) as sock:
            run_until(base, lambda: raised)
            assert made[0].closed
            assert made[1].closed
            assert not made[2].pending
            settle(elsewhere)  # only there the descriptor is closed
            assert rest(sock) == b""
        with connected(server.address) as sock:
            run_until(base, lambda: len(numbers) == 2)
            assert numbers[0] == numbers[1]
            sock.send(b"hello")
            run_until(base, lambda: select.select([sock], [], [], 0)[0])
            assert sock.recv(100) == b"hello"


@pytest.mark.parametrize("adopt", [lambda fd: socket.socket(fileno=fd), os.fdopen])
def test_when_the_callback_raises_a_python_object_that_has_the_descriptor_keeps_it(
    base: EventBase, adopt: Callable[[int], Any]
) -> None:
    """It closes it with its own end, when the number could be somebody else's by then."""
    adopted: dict[str, Any] = {}

    def callback(listener: Listener, fd: int, address: Any) -> None:
        adopted["it"] = adopt(fd)
        raise ZeroDivisionError

    server = Listener(base, ANYWHERE, callback)
    with connected(server.address) as sock:
        with pytest.raises(ZeroDivisionError):
            base.dispatch()
        assert is_open(adopted["it"].fileno())
        adopted["it"].close()
        assert rest(sock) == b""


def test_when_the_callback_raises_what_has_the_same_number_by_then_stays_open(
    base: EventBase,
) -> None:
    reader, writer = os.pipe()

    def closing(listener: Listener, fd: int, address: Any) -> None:
        os.close(fd)
        assert os.dup(reader) == fd
        numbers.append(fd)
        raise ZeroDivisionError

    numbers: list[int] = []
    server = Listener(base, ANYWHERE, closing)
    with connected(server.address) as sock:
        with pytest.raises(ZeroDivisionError):
            base.dispatch()
        assert rest(sock) == b""
        for fd in (reader, writer, *numbers):
            os.close(fd)  # all three are open


@pytest.mark.parametrize("options", [BufferEventOption.CLOSE_ON_FREE, BufferEventOption(0)])
def test_when_the_callback_has_closed_its_bufferevent_the_descriptor_is_closed_once(
    base: EventBase, options: BufferEventOption
) -> None:
    """libevent itself closes it only in the loop's next turn (F2), when it could be another's."""
    fds: list[int] = []

    def callback(listener: Listener, fd: int, address: Any) -> None:
        fds.append(fd)
        if len(fds) == 2:
            BufferEvent(base, fd).write(b"hello")
            return
        with BufferEvent(base, fd, options):
            raise ZeroDivisionError

    base.on_error = lambda error, source: None
    server = Listener(base, ANYWHERE, callback)
    with connected(server.address) as one, connected(server.address) as other:
        run_until(base, lambda: len(fds) == 2)
        settle(base)
        assert rest(one) == b""
        assert other.recv(100) == b"hello"
        assert is_open(fds[1])
        assert (fds[0] == fds[1]) == (not options)


def test_what_the_exception_alone_has_kept_goes_with_it(base: EventBase) -> None:
    """A hook that doesn't keep the exception lets the connection end."""
    ends: list[int] = []

    class Closing(socket.socket):
        def __del__(self) -> None:
            ends.append(self.fileno())
            self.close()

    def callback(listener: Listener, fd: int, address: Any) -> None:
        sock = Closing(fileno=fd)
        raise ZeroDivisionError(sock)

    base.on_error = lambda error, source: None
    server = Listener(base, ANYWHERE, callback)
    with connected(server.address) as sock:
        run_until(base, lambda: ends)
        assert not is_open(ends[0])
        assert rest(sock) == b""


def test_a_failing_accept_is_reported_to_on_error(base: EventBase, accepted: Accepted) -> None:
    failures: list[tuple[Listener, OSError]] = []

    def on_error(listener: Listener, error: OSError) -> None:
        failures.append((listener, error))
        listener.disable()

    server = Listener(base, ANYWHERE, accepted)
    assert server.on_error is None
    server.on_error = on_error
    with connected(server.address):
        with no_free_descriptors():
            base.loop(LoopFlag.NONBLOCK)
        [(listener, error)] = failures
        assert listener is server
        assert error.errno == errno.EMFILE
        assert str(error) == "[Errno 24] accept: Too many open files"
        server.enable()
        run_until(base, lambda: accepted)


def test_what_on_error_raises_comes_out(base: EventBase, accepted: Accepted) -> None:
    def on_error(listener: Listener, error: OSError) -> None:
        raise error

    server = Listener(base, ANYWHERE, accepted)
    server.on_error = on_error
    with (
        connected(server.address),
        no_free_descriptors(),
        pytest.raises(OSError, match="Too many open files"),
    ):
        base.loop(LoopFlag.NONBLOCK)


def test_without_on_error_a_failing_listener_rests(
    base: EventBase,
    accepted: Accepted,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(listener, "REST", 0.1)
    server = Listener(base, ANYWHERE, accepted)
    with connected(server.address), caplog.at_level(logging.WARNING, "libevent"):
        with no_free_descriptors():
            for _ in range(10):
                base.loop(LoopFlag.NONBLOCK)
        assert [record.getMessage() for record in caplog.records] == [
            f"listener on {server.address} rests for 0.1 s: [Errno 24] accept: Too many open files"
        ]
        begun = time.monotonic()
        run_until(base, lambda: accepted)
        assert time.monotonic() - begun > 0.05


def test_a_listener_that_is_disabled_while_it_rests_stays_so(
    base: EventBase, accepted: Accepted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "REST", 0.01)
    server = Listener(base, ANYWHERE, accepted)
    with connected(server.address):
        with no_free_descriptors():
            base.loop(LoopFlag.NONBLOCK)
        server.disable()
        time.sleep(0.02)
        settle(base)
        assert not accepted
        server.enable()
        run_until(base, lambda: accepted)


@pytest.mark.parametrize("end", ["close", "base"])
def test_a_listener_may_end_while_it_rests(base: EventBase, accepted: Accepted, end: str) -> None:
    server = Listener(base, ANYWHERE, accepted)
    with connected(server.address):
        with no_free_descriptors():
            base.loop(LoopFlag.NONBLOCK)
        (server if end == "close" else base).close()
        if end == "close":
            server._rested(-1, 0)
    assert server.closed


def test_a_client_that_is_gone_already_is_accepted_all_the_same(
    base: EventBase, accepted: Accepted
) -> None:
    server = Listener(base, ANYWHERE, accepted)
    reset(connected(server.address))
    connected(server.address).close()
    run_until(base, lambda: len(accepted) == 2)


# Bad input.


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (("localhost", 0), ValueError),
        (("127.0.0.1", -1), ValueError),
        (("127.0.0.1", 65536), ValueError),
        (("127.0.0.1", 80.0), TypeError),
        ((127, 80), TypeError),
        (("127.0.0.1",), TypeError),
        ("", ValueError),
        ("/" + "x" * 200, ValueError),
        ("a\0b", ValueError),
        (None, TypeError),
        (8888, TypeError),
    ],
)
def test_a_bad_address_is_refused(
    base: EventBase, accepted: Accepted, address: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"^address"):
        Listener(base, address, accepted)
    assert not base._ledger


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"callback": 5}, TypeError, "callback must be callable"),
        ({"backlog": 0}, ValueError, "backlog must not be 0"),
        ({"backlog": -2}, ValueError, "backlog must be from -1"),
        ({"backlog": 2**31}, ValueError, "backlog must be from -1"),
        ({"backlog": "5"}, TypeError, "backlog must be an integer"),
        ({"options": 1 << 20}, ValueError, "options has bits"),
        ({"options": "reuse"}, TypeError, "options must be of ListenerOption"),
        ({"base": None}, TypeError, "base must be an EventBase"),
    ],
)
def test_a_bad_argument_is_named(
    base: EventBase, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    good = {"base": base, "address": ANYWHERE, "callback": print}
    with pytest.raises(error, match=f"^{message}"):
        Listener(**{**good, **options})
    assert not base._ledger


@pytest.mark.parametrize(
    ("fd", "error", "message"),
    [
        (-1, ValueError, "fd must be an open file descriptor, not -1"),
        (10**5, OSError, r"\[Errno 9\] fd 100000"),
        (None, TypeError, "fd must be a file descriptor"),
        (1.0, TypeError, "fd must be a file descriptor"),
    ],
)
def test_a_bad_descriptor_is_refused(
    base: EventBase, accepted: Accepted, fd: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        Listener.from_fd(base, fd, accepted)


def test_only_a_socket_is_listened_on(base: EventBase, accepted: Accepted, tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        for fd in (file, file.fileno()):
            with pytest.raises(ValueError, match=r"^fd must be a socket, not "):
                Listener.from_fd(base, fd, accepted, options=NO_OPTION)
    assert not base._ledger


def test_on_error_is_callable_or_none(base: EventBase, accepted: Accepted) -> None:
    server = Listener(base, ANYWHERE, accepted)
    with pytest.raises(TypeError, match=r"^on_error must be callable"):
        server.on_error = 5  # type: ignore[assignment]
    server.on_error = None


# Whose descriptor it is.


def test_a_socket_that_listens_already_is_taken(base: EventBase, accepted: Accepted) -> None:
    sock = socket.create_server(ANYWHERE)
    fd, address = sock.fileno(), sock.getsockname()
    server = Listener.from_fd(base, sock, accepted)
    assert (sock.fileno(), server.fd, server.address) == (-1, fd, address)
    assert not os.get_blocking(fd)  # or the loop would block in accept (K2)
    with connected(address):
        run_until(base, lambda: accepted)
        settle(base)
    server.close()
    assert not is_open(fd)


def test_a_bound_socket_listens_with_the_backlog_it_is_given(
    base: EventBase, accepted: Accepted
) -> None:
    with socket.socket() as sock:
        sock.bind(ANYWHERE)
        server = Listener.from_fd(base, sock.detach(), accepted, backlog=5)
        with connected(server.address):
            run_until(base, lambda: accepted)


def test_without_close_on_free_the_socket_stays_with_who_has_it(
    base: EventBase, accepted: Accepted
) -> None:
    with socket.create_server(ANYWHERE) as sock:
        server = Listener.from_fd(base, sock, accepted, options=NO_OPTION)
        with connected(sock.getsockname()):
            run_until(base, lambda: accepted)
        server.close()
        with connected(sock.getsockname()):
            settle(base)
            assert len(accepted) == 1
            sock.accept()[0].close()


@pytest.mark.parametrize("end", ["close", "base", "collector"])
def test_a_socket_that_it_has_made_is_closed_in_any_case(
    base: EventBase, accepted: Accepted, end: str
) -> None:
    server: Listener | None = Listener(base, ANYWHERE, accepted, options=NO_OPTION)
    assert server is not None
    fd = server.fd
    if end == "collector":
        base = EventBase()
        fd, server = Listener(base, ANYWHERE, accepted, options=NO_OPTION).fd, None
        del base
        gc.collect()
    else:
        (server if end == "close" else base).close()
    assert not is_open(fd)


def test_a_service_may_be_handed_its_sockets_as_systemd_does(tmp_path: Path) -> None:
    """LISTEN_FDS says how many there are, from 3 on."""
    code = """
        import os
        from libevent_py import EventBase, Listener, ListenerOption

        def callback(listener, fd, address):
            os.write(fd, b"%d" % listener.fd)
            os.close(fd)
            served.add(listener.fd)
            if len(served) == 2:
                listener.base.loopexit()

        served = set()
        with EventBase() as base:
            for fd in range(3, 3 + int(os.environ["LISTEN_FDS"])):
                Listener.from_fd(base, fd, callback)
            base.dispatch()
        """
    path = os.fspath(tmp_path / "socket")
    with socket.create_server(ANYWHERE) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(path)
        unix.listen()
        inherit = f'exec 3<&{tcp.fileno()} 4<&{unix.fileno()}; exec "$@"'
        service = subprocess.Popen(
            ["bash", "-c", inherit, "bash", sys.executable, "-W", "error", "-c", dedent(code)],
            pass_fds=(tcp.fileno(), unix.fileno()),
            env={**os.environ, "LISTEN_FDS": "2"},
            cwd=ROOT,
        )
        with service, connected(tcp.getsockname()) as one, socket.socket(socket.AF_UNIX) as other:
            assert rest(one) == b"3"
            other.settimeout(PATIENCE)
            other.connect(path)
            assert rest(other) == b"4"
            assert service.wait(PATIENCE) == 0


def test_without_close_on_free_a_socket_object_is_kept_alive(
    base: EventBase, accepted: Accepted
) -> None:
    sock = socket.create_server(ANYWHERE)
    kept, address = weakref.ref(sock), sock.getsockname()
    server = Listener.from_fd(base, sock, accepted, options=NO_OPTION)
    del sock
    gc.collect()
    with connected(address):
        run_until(base, lambda: accepted)
    server.close()
    alive = kept()
    assert alive is not None
    alive.close()


def test_a_file_that_closes_itself_is_not_taken(base: EventBase, accepted: Accepted) -> None:
    with socket.create_server(ANYWHERE) as sock, sock.makefile("rb") as file:
        with pytest.raises(TypeError, match=r"^fd must be a descriptor or a socket when CLOSE_ON"):
            Listener.from_fd(base, file, accepted)
        with Listener.from_fd(base, file, accepted, options=NO_OPTION):
            pass


def test_a_socket_remains_whose_it_was_when_no_listener_comes_to_be(
    base: EventBase, accepted: Accepted
) -> None:
    with socket.create_server(ANYWHERE) as sock:
        with pytest.raises(TypeError):
            Listener.from_fd(base, sock, 5)  # type: ignore[arg-type]
        base.close()
        with pytest.raises(ClosedError):
            Listener.from_fd(base, sock, accepted)
        assert is_open(sock.fileno())
    with pytest.raises(ClosedError):
        Listener(base, ANYWHERE, accepted)


# The end.

EVERY_USE: list[Callable[[Listener], object]] = [
    lambda server: server.pointer,
    lambda server: server.fd,
    lambda server: server.address,
    lambda server: server.enable(),
    lambda server: server.disable(),
    lambda server: server.__enter__(),
]


@pytest.mark.parametrize("end", ["close", "base"])
def test_every_use_of_a_closed_one_says_so(base: EventBase, accepted: Accepted, end: str) -> None:
    server = Listener(base, ANYWHERE, accepted)
    fd = server.fd
    assert lib.evconnlistener_get_fd(server.pointer) == fd
    assert not server.closed
    (server if end == "close" else base).close()
    assert server.closed
    assert not is_open(fd)
    assert repr(server).startswith("<Listener closed")
    for use in EVERY_USE:
        with pytest.raises(ClosedError, match=r"^this Listener is closed$"):
            use(server)
    server.close()


def test_with_closes_it(base: EventBase, accepted: Accepted) -> None:
    with Listener(base, ANYWHERE, accepted) as server:
        address = server.address
    assert server.closed
    with pytest.raises(ConnectionRefusedError):
        connected(address)


def test_it_may_be_closed_in_its_callback(base: EventBase, accepted: Accepted) -> None:
    def callback(listener: Listener, fd: int, address: Any) -> None:
        accepted(listener, fd, address)
        listener.close()

    server = Listener(base, ANYWHERE, callback)
    with connected(server.address), connected(server.address):
        settle(base)
    assert server.closed
    assert len(accepted) == 1


def test_it_may_be_closed_in_on_error(base: EventBase, accepted: Accepted) -> None:
    server = Listener(base, ANYWHERE, accepted)
    server.on_error = lambda listener, error: listener.close()
    with connected(server.address):
        with no_free_descriptors():
            base.loop(LoopFlag.NONBLOCK)
        assert server.closed


def test_a_closed_one_goes_with_its_last_reference(base: EventBase) -> None:
    server = Listener(base, ANYWHERE, print)
    gone = weakref.ref(server)
    gc.disable()
    try:
        server.close()
        del server
        assert gone() is None
    finally:
        gc.enable()


def test_a_dropped_base_frees_what_was_made_on_it(accepted: Accepted) -> None:
    base = EventBase()
    fd = Listener(base, ANYWHERE, accepted).fd
    del base
    gc.collect()
    assert not is_open(fd)


@pytest.mark.parametrize("use", [Listener.enable, Listener.disable, Listener.close])
def test_another_thread_than_the_loop_s_is_refused(
    base: EventBase, accepted: Accepted, use: Callable[[Listener], object]
) -> None:
    server = Listener(base, ANYWHERE, accepted)
    outcome: list[object] = []

    def work() -> None:
        for call, *arguments in ((use, server), (Listener, base, ANYWHERE, accepted)):
            try:
                outcome.append(call(*arguments))
            except Exception as error:
                outcome.append(error)
        base.loopexit()

    thread = threading.Thread(target=work)
    base.once(lambda fd, what: thread.start())
    base.dispatch()
    thread.join(PATIENCE)
    assert [type(error) for error in outcome] == [ThreadError, ThreadError]
    assert not server.closed


def test_a_child_forked_in_the_callback_closes_its_own_copy_of_the_descriptor_only() -> None:
    run_python(
        """
        import os, socket
        from libevent_py import *

        def callback(listener, fd, address):
            fds.append(fd)
            bevs.append(BufferEvent(listener.base, fd))
            children.append(os.fork())
            if children[0] == 0:
                if reinit:
                    base.reinit()
                raise ZeroDivisionError

        for reinit in False, True:
            fds, bevs, children, parent = [], [], [], os.getpid()
            with EventBase() as base, Listener(base, ("127.0.0.1", 0), callback) as listener:
                with socket.create_connection(listener.address, timeout=60) as client:
                    try:
                        while not fds:
                            base.loop(LoopFlag.ONCE)
                    except BaseException as error:
                        if os.getpid() == parent:
                            raise
                        if reinit:
                            assert isinstance(error, ZeroDivisionError), error
                            assert bevs[0].closed
                            base.loop(LoopFlag.NONBLOCK)
                        try:
                            os.fstat(fds[0])
                        except OSError:
                            os._exit(0)
                        os._exit(1)
                    assert os.waitpid(children[0], 0)[1] == 0
                    bevs[0].write(b"hello")
                    while bevs[0].output:
                        base.loop(LoopFlag.ONCE)
                    assert client.recv(100) == b"hello"
        """
    )


def test_closing_everywhere_touches_no_memory_that_is_freed() -> None:
    run_python(
        """
        import gc, itertools, os, socket
        from libevent_py import *

        def run(base):
            for _ in range(4):
                base.loop(LoopFlag.NONBLOCK)

        def closing(listener, fd, address):
            os.close(fd)
            listener.close()

        def making(listener, fd, address):
            BufferEvent(listener.base, fd).enable(EventFlag.READ)

        def raising(listener, fd, address):
            making(listener, fd, address)
            raise ZeroDivisionError

        def closing_and_raising(listener, fd, address):
            listener.close()
            raise ZeroDivisionError

        def leaving(listener, fd, address):
            with BufferEvent(listener.base, fd):
                listener.callback = None
                raise ZeroDivisionError

        safe = ListenerOption.THREADSAFE | ListenerOption.CLOSE_ON_FREE
        callbacks = (closing, making, raising, closing_and_raising, leaving)
        for callback, options in itertools.product(callbacks, (ListenerOption.CLOSE_ON_FREE, safe)):
            for base_first in (False, True):
                with EventBase() as base:
                    base.on_error = lambda error, source: None
                    listener = Listener(base, ("127.0.0.1", 0), callback, options=options)
                    address = listener.address
                    clients = [socket.create_connection(address) for _ in range(3)]
                    run(base)
                    if base_first:
                        base.close()
                    listener.close()
                for client in clients:
                    client.close()

        # A base that is dropped with everything on it, in either order.
        for order in range(2):
            base = EventBase()
            listener = Listener(base, ("127.0.0.1", 0), making)
            client = socket.create_connection(listener.address)
            run(base)
            if order:
                del base
                gc.collect()
                del listener
            else:
                del listener
                gc.collect()
                del base
            gc.collect()
            client.settimeout(10)
            assert client.recv(1) == b""
            client.close()
        """,
        valgrind=True,
    )


def test_a_host_and_a_port_in_one_text_are_no_path(
    base: EventBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be a file of that name, where nobody connects; with a slash it is meant."""
    monkeypatch.chdir(tmp_path)
    for address in ("127.0.0.1:8080", "localhost:8080", ":8080", "[::1]:8080", "127.0.0.1"):
        with pytest.raises(ValueError, match=r"address must be \(host, port\) or a path"):
            Listener(base, address, print)
        with (
            BufferEvent(base) as bev,
            pytest.raises(ValueError, match=r"looks like a host: give \("),
        ):
            bev.connect(address)
    assert list(tmp_path.iterdir()) == []
    with Listener(base, "./127.0.0.1:8080", print) as listener:
        assert listener.address == "./127.0.0.1:8080"
    assert [path.name for path in tmp_path.iterdir()] == ["127.0.0.1:8080"]
