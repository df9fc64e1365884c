"""Whatever makes a Python socket of a descriptor leaves it as blocking as it was.

PyPy makes the descriptor blocking. Here a socket that does so stands in for its own; and a default
timeout has CPython do the contrary.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator

import pytest

from libevent_py import BufferEvent, DnsServer, EventBase, aio, util
from libevent_py._core.sockets import adopted, lent
from libevent_py.serve import sockets
from libevent_py.serve.engines.llhttp_writing import half_close
from libevent_py.testing import peers

PAIR = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["CPython", "a default timeout", "as PyPy does"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What a new socket does to its descriptor: nothing, or it sets its mode."""
    if request.param == "as PyPy does":
        plain, whole = socket.SocketType, socket.socket

        class Plain(plain):  # type: ignore[misc, valid-type]
            """C's type of sockets, as PyPy has it."""

            def __init__(self, *, fileno: int) -> None:
                plain.__init__(self, fileno=fileno)
                os.set_blocking(fileno, True)

        class Whole(whole):  # type: ignore[misc, valid-type]
            """Python's own class of sockets, as PyPy has it."""

            def __init__(
                self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
            ) -> None:
                whole.__init__(self, family, type, proto, fileno)
                if fileno is not None:
                    os.set_blocking(fileno, True)

        monkeypatch.setattr(socket, "SocketType", Plain)
        monkeypatch.setattr(socket, "socket", Whole)
    if request.param == "a default timeout":
        socket.setdefaulttimeout(5)
    yield request.param
    socket.setdefaulttimeout(None)


@pytest.fixture
def pair() -> Iterator[PAIR]:
    left, right = socket.socketpair()
    left.settimeout(5)
    right.settimeout(5)
    with left, right:
        yield left, right


@pytest.fixture
def base() -> Iterator[EventBase]:
    with EventBase() as base:
        yield base


@pytest.mark.parametrize("blocking", [False, True])
def test_a_lent_socket_leaves_the_mode_and_knows_it(pair: PAIR, kind: str, blocking: bool) -> None:
    fd = pair[0].fileno()
    os.set_blocking(fd, blocking)
    with lent(fd) as sock:
        assert os.get_blocking(fd) == blocking
        assert sock.getblocking() == blocking
        assert sock.gettimeout() == (None if blocking else 0)
        sock.send(b"x")
    assert os.get_blocking(fd) == blocking
    assert pair[1].recv(1) == b"x"


@pytest.mark.parametrize("blocking", [False, True])
def test_an_adopted_socket_leaves_the_mode_and_knows_it(
    pair: PAIR, kind: str, blocking: bool
) -> None:
    fd = pair[0].detach()
    os.set_blocking(fd, blocking)
    with adopted(fd) as sock:
        assert sock.fileno() == fd
        assert os.get_blocking(fd) == blocking
        assert sock.gettimeout() == (None if blocking else 0)
    assert pair[1].recv(1) == b""


def test_what_is_no_socket_stays_as_it_was(kind: str) -> None:
    reading, writing = os.pipe()
    try:
        os.set_blocking(reading, False)
        with pytest.raises(OSError, match="non-socket"), lent(reading):
            pass
        with pytest.raises(OSError, match="non-socket"):
            adopted(reading)
        assert not os.get_blocking(reading)  # and open
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("use", [half_close, "shut_down", "discard"])
def test_what_is_done_to_a_bufferevents_socket_leaves_it_non_blocking(
    use: Callable[[int], None] | str, base: EventBase, pair: PAIR, kind: str
) -> None:
    with BufferEvent(base, pair[0].fileno()) as bev:
        getattr(peers, use)(bev) if isinstance(use, str) else use(bev.fd)
        assert not os.get_blocking(bev.fd)


def test_the_end_of_a_stream_leaves_its_socket_non_blocking(kind: str) -> None:
    async def main() -> None:
        async with aio.listen("127.0.0.1") as streams:
            client = await aio.connect(*streams.address)
            server = await streams.accept()
            async with client, server:
                await client.write_eof()
                assert not os.get_blocking(client._bev.fd)
                assert await server.read() == b""

    aio.run(asyncio.wait_for(main(), 10))


def test_an_inherited_socket_stays_non_blocking(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)  # as those have it who still accept from it
        with sockets.inherited(os.dup(listening.fileno())):
            assert not os.get_blocking(listening.fileno())


@pytest.mark.parametrize("blocking", [False, True])
def test_a_dns_server_is_made_of_a_socket_at_once(
    base: EventBase, kind: str, blocking: bool
) -> None:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sock,
        socket.create_server(("127.0.0.1", 0)) as stream,
        open(os.devnull) as file,
    ):
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(blocking)
        copy = os.dup(sock.fileno())
        try:
            with pytest.raises(ValueError, match="must be a UDP socket"):
                DnsServer(base, stream, print)
            with pytest.raises(ValueError, match="must be a socket"):
                DnsServer(base, file.fileno(), print)
            with DnsServer(base, sock, print) as server:
                assert not os.get_blocking(server.fd)
        finally:
            os.close(copy)
    with DnsServer(base, ("127.0.0.1", 0), print) as server:
        assert not os.get_blocking(server.fd)


def test_a_pair_that_is_asked_for_as_non_blocking_is(kind: str) -> None:
    left, right = util.socketpair(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with left, right:
        for end in (left, right):
            assert not os.get_blocking(end.fileno())
            assert end.gettimeout() == 0
