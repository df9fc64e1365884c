"""Group ``listener`` through the raw layer: `Listener` binds its socket, and pauses, by itself."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from libevent_py import EventBase, ffi, lib
from libevent_py._core import convert
from tests.kit.peers import Pair, connected, rest
from tests.kit.raw import FromC

CLOSE, REUSEABLE = lib.LEV_OPT_CLOSE_ON_FREE, lib.LEV_OPT_REUSEABLE
THREADSAFE = lib.LEV_OPT_THREADSAFE

with_and_without_lock = pytest.mark.parametrize("lock", [0, THREADSAFE], ids=["", "ts"])


class Counted:
    """A listener on any port that closes what it gets, and is disabled after *count*, or freed."""

    def __init__(
        self, base: Any, from_c: FromC, count: int, flags: int, *, free: bool = False
    ) -> None:
        self.left = count
        self.addresses: list[Any] = []

        def accept(listener: Any, fd: int, address: Any, size: int, _arg: Any) -> None:
            self.left -= 1
            self.addresses.append(convert.unpack_address(address, size))
            os.close(fd)
            if self.left == 0:
                if free:
                    lib.evconnlistener_free(listener)
                else:
                    assert lib.evconnlistener_disable(listener) == 0

        self.callback = from_c("evconnlistener_cb")(accept)
        pointer, size, _memory = convert.sockaddr(("127.0.0.1", 0))
        self.listener = lib.evconnlistener_new_bind(
            base, self.callback, ffi.NULL, flags, -1, pointer, size
        )
        assert self.listener
        self.fd = lib.evconnlistener_get_fd(self.listener)
        with socket.socket(fileno=os.dup(self.fd)) as sock:
            self.address = sock.getsockname()
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            reuse = sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            assert bool(reuse) is bool(flags & REUSEABLE)
        assert os.get_blocking(self.fd) is False


@with_and_without_lock
def test_randport(backend_base: EventBase, from_c: FromC, lock: int) -> None:
    """evconnlistener_new_bind() binds to a port that is free, and listens there."""
    base = backend_base.pointer
    flags = CLOSE | REUSEABLE | lib.LEV_OPT_CLOSE_ON_EXEC | lock
    two, one = (Counted(base, from_c, count, flags) for count in (2, 1))
    assert two.address[0] == one.address[0] == "127.0.0.1"
    assert two.address[1] != one.address[1]
    for each in two, one:
        assert lib.evconnlistener_get_base(each.listener) == base
        assert os.get_inheritable(each.fd) is False
    with connected(two.address) as a, connected(two.address) as b, connected(one.address) as c:
        names = [[a.getsockname(), b.getsockname()], [c.getsockname()]]
        assert backend_base.dispatch() is False
    assert (two.left, one.left) == (0, 0)
    assert [sorted(two.addresses), one.addresses] == [sorted(names[0]), names[1]]
    for each in two, one:
        lib.evconnlistener_free(each.listener)
        with pytest.raises(OSError):
            os.fstat(each.fd)


def test_flags(backend_base: EventBase, from_c: FromC) -> None:
    """What isn't asked for isn't so: no reuse, inherited by what is executed, left open."""
    other = Counted(backend_base.pointer, from_c, 1, lib.LEV_OPT_DISABLED)
    assert os.get_inheritable(other.fd) is True
    with connected(other.address) as sock:
        assert backend_base.loop(lib.EVLOOP_NONBLOCK) is False
        assert other.left == 1
        assert lib.evconnlistener_enable(other.listener) == 0
        assert backend_base.dispatch() is False
        assert other.addresses == [sock.getsockname()]
    lib.evconnlistener_free(other.listener)
    os.close(other.fd)


@with_and_without_lock
def test_error(backend_base: EventBase, pair: Pair, from_c: FromC, lock: int) -> None:
    """A socket that doesn't listen, but has something to read, is an error, told while it is so."""
    told: list[Any] = []

    @from_c("evconnlistener_cb")
    def never(*_arguments: Any) -> None:
        raise AssertionError("called")

    @from_c("evconnlistener_errorcb")
    def failed(listener: Any, arg: Any) -> None:
        told.append((ffi.errno, arg))
        if len(told) == 3:
            assert lib.evconnlistener_disable(listener) == 0

    pair[1].send(b"hello")
    fd = pair[0].detach()
    token = ffi.new("int *")
    listener = lib.evconnlistener_new(
        backend_base.pointer, never, token, CLOSE | REUSEABLE | lock, 0, fd
    )
    assert listener
    lib.evconnlistener_set_error_cb(listener, failed)
    assert backend_base.dispatch() is False
    assert [arg for _, arg in told] == [token] * 3
    lib.evconnlistener_free(listener)


@with_and_without_lock
def test_close_accepted_fd(backend_base: EventBase, from_c: FromC, lock: int) -> None:
    """A listener may be freed in its own callback."""
    counted = Counted(backend_base.pointer, from_c, 1, CLOSE | REUSEABLE | lock, free=True)
    with connected(counted.address) as sock:
        assert backend_base.dispatch() is False
        assert rest(sock) == b""
    assert counted.left == 0


@with_and_without_lock
def test_immediate_close(backend_base: EventBase, from_c: FromC, lock: int) -> None:
    """Who disables a listener in its callback gets no more connections that wait already."""
    counted = Counted(backend_base.pointer, from_c, 1, CLOSE | REUSEABLE | lock)
    with connected(counted.address), connected(counted.address):
        assert backend_base.dispatch() is False
        assert counted.left == 0
        lib.evconnlistener_free(counted.listener)


def test_set_cb(backend_base: EventBase, from_c: FromC) -> None:
    """Without a callback connections are closed as they come; another one gets the next ones."""
    counted = Counted(backend_base.pointer, from_c, 1, CLOSE | REUSEABLE)
    called: list[Any] = []

    @from_c("evconnlistener_cb")
    def other(listener: Any, fd: int, _address: Any, _size: int, arg: Any) -> None:
        called.append(arg)
        os.close(fd)
        assert lib.evconnlistener_disable(listener) == 0

    token = ffi.new("int *")
    lib.evconnlistener_set_cb(counted.listener, ffi.NULL, ffi.NULL)
    with connected(counted.address) as sock:
        backend_base.loop(lib.EVLOOP_ONCE)
        assert rest(sock) == b""
    lib.evconnlistener_set_cb(counted.listener, other, token)
    with connected(counted.address):
        assert backend_base.dispatch() is False
    assert (called, counted.left) == ([token], 1)
    lib.evconnlistener_free(counted.listener)
