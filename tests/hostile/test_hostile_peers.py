"""Peers that reset, half-close, never read, dribble and leave cost nothing but a word to on_event.

The server greets each connection with nothing, or with more than the sockets between hold: then
each of these finds it with output that waits.
"""

from __future__ import annotations

import gc
import socket
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    EventBase,
    EventBaseCount,
    Listener,
    LoopFlag,
)
from tests.kit.flags import CLOSE, DEFER, READ, THREADSAFE, UNLOCK
from tests.kit.peers import reset, settle
from tests.kit.processes import descriptors, resident
from tests.kit.support import PATIENCE

ADDED = EventBaseCount.ADDED
EOF, ERROR, TIMEOUT = BufferEventFlag.EOF, BufferEventFlag.ERROR, BufferEventFlag.TIMEOUT
OPTIONS = [CLOSE, CLOSE | DEFER | UNLOCK | THREADSAFE, CLOSE | BufferEventOption.EAGER]

#: What a socket is told to hold, in bytes; it takes some more.
ROOM = 4096
#: More than two of them hold.
MUCH = b"x" * 100_000
#: How much output may wait before the server reads no more, in bytes.
MOST = 65536
#: How long output may wait without anything being taken of it, in seconds.
SILENCE = 0.3

#: Whatever a connection may end by.
EXPECTED: set[tuple[str, type[Exception] | None]] = {
    ("EOF", None),
    ("TIMEOUT", None),
    ("ERROR", ConnectionResetError),
    ("ERROR", BrokenPipeError),
}

Behaviour = Callable[[socket.socket], Iterator[None]]


class Server:
    """Greets, then echoes, until a connection ends; and remembers how."""

    def __init__(
        self,
        base: EventBase,
        options: BufferEventOption,
        greeting: bytes,
        silence: float | None,
    ) -> None:
        self.options = options
        self.greeting = greeting
        self.silence = silence
        self.made: deque[weakref.ref[BufferEvent]] = deque()
        self.listener = Listener(base, ("127.0.0.1", 0), self.accept)
        self.accepted = self.ended = self.most = 0
        self.ends: Counter[tuple[str, type[Exception] | None]] = Counter()

    def accept(self, listener: Listener, fd: int, address: Any) -> None:
        self.accepted += 1
        sock = socket.socket(fileno=fd)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        bev = BufferEvent(listener.base, sock, self.options)
        bev.setcb(self.read, self.written, self.event)
        self.made.append(weakref.ref(bev))
        bev.set_timeouts(read=None, write=self.silence)
        if not self.options & BufferEventOption.EAGER:  # which does nothing with a watermark
            bev.setwatermark(READ, 0, MOST)
        if self.greeting:
            bev.write(self.greeting)
        bev.enable(READ)

    def read(self, bev: BufferEvent) -> None:
        bev.write(bev.read())
        waiting = len(bev.output)
        self.most = max(self.most, waiting)
        if waiting > MOST:
            bev.disable(READ)

    def written(self, bev: BufferEvent) -> None:
        bev.enable(READ)

    def event(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        # Deferred, several may come at once.
        for flag in EOF, ERROR, TIMEOUT:
            if what & flag:
                error = bev.error if flag == ERROR else None
                self.ends[str(flag.name), None if error is None else type(error)] += 1
        if not what & (ERROR | TIMEOUT) and bev.output:
            bev.on_write = self.close
        else:
            self.close(bev)

    def close(self, bev: BufferEvent) -> None:
        self.ended += 1
        bev.close()


# How a peer behaves: at each ``yield`` the server may do what it has to.


def resets(sock: socket.socket) -> Iterator[None]:
    yield
    reset(sock)


def leaves(sock: socket.socket) -> Iterator[None]:
    yield
    sock.close()


def speaks_and_resets(sock: socket.socket) -> Iterator[None]:
    sock.send(b"hello")
    yield
    sock.send(b"world")
    reset(sock)


def speaks_and_leaves(sock: socket.socket) -> Iterator[None]:
    sock.send(b"hello")
    yield
    sock.send(b"world")
    sock.close()


def half_closes_and_resets(sock: socket.socket) -> Iterator[None]:
    sock.shutdown(socket.SHUT_WR)
    yield
    yield
    reset(sock)


def half_closes_and_reads(sock: socket.socket) -> Iterator[None]:
    sock.send(b"hello")
    yield
    sock.shutdown(socket.SHUT_WR)
    yield from takes_what_is_said(sock, b"hello")


def speaks_one_byte_at_a_time(sock: socket.socket) -> Iterator[None]:
    said = bytes(range(65, 91)) * 20
    for byte in said:
        sock.send(bytes([byte]))
        yield
    sock.shutdown(socket.SHUT_WR)
    yield from takes_what_is_said(sock, said)


def reads_one_byte_at_a_time(sock: socket.socket) -> Iterator[None]:
    sock.send(b"hello")
    sock.shutdown(socket.SHUT_WR)
    for _ in range(200):
        with suppress(BlockingIOError):
            sock.recv(1)
        yield
    reset(sock)


def half_closes_and_never_reads(sock: socket.socket) -> Iterator[None]:
    sock.send(MUCH[:1000])
    sock.shutdown(socket.SHUT_WR)
    while True:
        yield


def speaks_much_and_never_reads(sock: socket.socket) -> Iterator[None]:
    while True:
        with suppress(BlockingIOError, ConnectionError):
            sock.send(MUCH)
        yield


def takes_what_is_said(sock: socket.socket, said: bytes) -> Iterator[None]:
    """Read to the end, which must be what has been *said*."""
    received = bytearray()
    while True:
        try:
            data = sock.recv(65536)
        except BlockingIOError:
            yield
            continue
        if not data:
            break
        received += data
    assert received.lstrip(b"x") == said
    sock.close()


LEAVING: list[Behaviour] = [
    resets,
    leaves,
    speaks_and_resets,
    speaks_and_leaves,
    half_closes_and_resets,
    half_closes_and_reads,
    speaks_one_byte_at_a_time,
    reads_one_byte_at_a_time,
]
STAYING: list[Behaviour] = [half_closes_and_never_reads, speaks_much_and_never_reads]


def play(base: EventBase, server: Server, behaviours: list[Behaviour], pauses: int) -> None:
    """Have one peer behave as each of *behaviours*, and the server run until it is alone again.

    The loop turns *pauses* times before the peers begin.
    """
    accepted = server.accepted + len(behaviours)
    socks = []
    for _ in behaviours:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        sock.connect(server.listener.address)
        sock.setblocking(False)
        socks.append(sock)
    for _ in range(pauses):
        base.loop(LoopFlag.NONBLOCK)
    peers = [behave(sock) for behave, sock in zip(behaviours, socks, strict=True)]
    leaving = [peer for peer, behave in zip(peers, behaviours, strict=True) if behave in LEAVING]
    end = time.monotonic() + PATIENCE
    while leaving or (server.accepted, server.ended) != (accepted, accepted):
        assert time.monotonic() < end, f"{server.accepted - server.ended} are left: {server.ends}"
        for peer in list(peers):
            try:
                next(peer)
            except StopIteration:
                peers.remove(peer)
                leaving.remove(peer)
        base.loop(LoopFlag.NONBLOCK)
    for sock in socks:
        sock.close()
    settle(base)


@pytest.mark.parametrize("greeting", [b"", MUCH], ids=["plain", "with pending output"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("behave", [*LEAVING, *STAYING], ids=lambda behave: behave.__name__)
def test_nothing_is_left_of_a_peer_that(
    base: EventBase, behave: Behaviour, options: BufferEventOption, greeting: bytes
) -> None:
    server = Server(base, options, greeting, SILENCE if behave in STAYING else None)
    before = base.num_events(ADDED), len(base._ledger), descriptors()
    for pauses in range(1 if behave in STAYING else 4):
        play(base, server, [behave] * 5, pauses)
        assert server.ends.keys() <= EXPECTED
        assert (base.num_events(ADDED), len(base._ledger), descriptors()) == before
    gc.collect()
    assert not [bev for bev in server.made if bev() is not None]
    assert server.most <= MOST + 2 * len(MUCH)


@pytest.mark.slow
def test_all_of_them_at_once_get_what_they_are_owed(base: EventBase) -> None:
    server = Server(base, CLOSE, b"", 2.0)  # or a slow machine makes the patient look silent
    play(base, server, [*LEAVING, *STAYING] * 10, 1)
    assert {kind for kind, _ in server.ends} == {"EOF", "ERROR", "TIMEOUT"}
    assert len(base._ledger) == 1


@pytest.mark.slow
@pytest.mark.parametrize("greeting", [b"", MUCH[:30_000]], ids=["plain", "with pending output"])
@pytest.mark.parametrize("behave", [resets, leaves], ids=lambda behave: behave.__name__)
def test_ten_thousand_that_connect_and_leave_cost_no_memory(
    base: EventBase, behave: Behaviour, greeting: bytes
) -> None:
    server = Server(base, CLOSE, greeting, None)
    server.made = deque(maxlen=100)
    for _ in range(20):
        play(base, server, [behave] * 50, 1)
    gc.collect()
    before = resident()
    for _ in range(180):
        play(base, server, [behave] * 50, 1)
    gc.collect()
    assert server.accepted == server.ended == 10_000
    assert server.ends.keys() <= EXPECTED
    assert len(base._ledger) == 1
    assert resident() - before < 2**21  # some 200 bytes for each: less than a bufferevent
