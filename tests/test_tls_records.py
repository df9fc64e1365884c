"""What is written together goes out together: as one record of TLS, and without waiting."""

from __future__ import annotations

import os
import random
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    EventBase,
    EventFlag,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    HttpServer,
    HttpServerRequest,
)
from tests.certificates import HOST, Authority
from tests.peers import run_until, settle, tcp_pair
from tests.tls_peers import client_context, connected_ends, server_context
from tests.web import where

READ = EventFlag.READ
APPLICATION_DATA = 0x17
RECORD = 16384
REQUEST = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"

#: What the acknowledgement of a lone packet takes on Linux at least, in seconds.
DELAYED_ACK = 0.04


class Peer:
    """A client that counts the records that it gets, served by the loop of this very thread."""

    def __init__(self, base: EventBase, sock: socket.socket, authority: Authority) -> None:
        sock.setblocking(False)
        self.base, self.sock = base, sock
        self.into, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=str(authority.ca.certfile))
        self.tls = context.wrap_bio(self.into, self.out, server_hostname=HOST)
        self.rest = self.received = b""
        self.records: list[int] = []
        self.secured = False

    def pump(self) -> None:
        """Take what has come, and send what there is to be sent."""
        try:
            while data := self.sock.recv(65536):
                self.into.write(data)
                self.count(data)
        except BlockingIOError:
            pass
        try:
            if not self.secured:
                self.tls.do_handshake()
                self.secured = True
            while data := self.tls.read(65536):
                self.received += data
        except ssl.SSLWantReadError:
            pass
        if self.out.pending:
            self.sock.sendall(self.out.read())

    def count(self, data: bytes) -> None:
        self.rest += data
        while len(self.rest) >= 5:
            size = int.from_bytes(self.rest[3:5], "big")
            if len(self.rest) < 5 + size:
                return
            if self.rest[0] == APPLICATION_DATA:
                self.records.append(size)
            self.rest = self.rest[5 + size :]

    def until(self, condition: Callable[[], object]) -> None:
        def step() -> object:
            self.pump()
            return condition()

        run_until(self.base, step)

    def begin(self) -> Peer:
        """Do the handshake, and count anew after whatever of it has the looks of data."""
        self.until(lambda: self.secured)
        for _ in range(20):
            settle(self.base)
            self.pump()
        self.records.clear()
        return self

    def answer(self, request: bytes, end: bytes) -> bytes:
        """Return what comes for *request*, up to *end*."""
        self.received = b""
        self.records.clear()
        self.tls.write(request)
        self.until(lambda: self.received.endswith(end))
        return self.received


def server_of(base: EventBase, authority: Authority, handler: Any) -> HttpServer:
    server = HttpServer(base)
    server.tls = server_context(authority)
    server.set_gencb(handler)
    server.bind_socket("127.0.0.1", 0)
    return server


def peer_of(base: EventBase, server: HttpServer, authority: Authority) -> Peer:
    return Peer(base, socket.create_connection(where(server)), authority).begin()


# Pieces.


def pieces_of(bev: BufferEvent) -> bytes:
    """Write what libevent keeps in several pieces; return all of it."""
    for data in (b"head ", b"body ", b"trailer"):
        piece = Buffer(data)
        bev.write_buffer(piece)
    bev.output.add_reference(b" and more")
    return b"head body trailer and more"


def test_short_pieces_become_one_record(base: EventBase, authority: Authority) -> None:
    left, right = socket.socketpair()
    with left:
        bev = BufferEvent.tls(base, right, server_context(authority))
        peer = Peer(base, left, authority).begin()
        data = pieces_of(bev)
        peer.until(lambda: len(peer.received) == len(data))
        assert peer.received == data
        assert len(peer.records) == 1
        bev.close()


def test_a_long_piece_fills_up_the_record_of_the_short_one_before_it(
    base: EventBase, authority: Authority
) -> None:
    left, right = socket.socketpair()
    with left:
        bev = BufferEvent.tls(base, right, server_context(authority))
        peer = Peer(base, left, authority).begin()
        body = os.urandom(5 * RECORD)
        bev.write(b"head")
        bev.output.add_reference(body)
        peer.until(lambda: len(peer.received) == len(body) + 4)
        assert peer.received == b"head" + body
        assert len(peer.records) == 6  # and not 7
        bev.close()


@pytest.mark.parametrize("seed", range(5))
def test_pieces_of_any_size_come_in_order(base: EventBase, authority: Authority, seed: int) -> None:
    one, other = connected_ends(base, authority)
    rng = random.Random(seed)
    sent = b""
    for _ in range(200):
        data = rng.randbytes(rng.choice([1, 10, 100, 5000, RECORD, 40_000]))
        sent += data
        kind = rng.randrange(3)
        if kind == 0:
            one.bev.write(data)
        elif kind == 1:
            one.bev.write_buffer(Buffer(data))
        else:
            one.bev.output.add_reference(data)
        if rng.random() < 0.2:
            settle(base)
        if rng.random() < 0.1:  # the socket takes no more meanwhile
            other.bev.disable(READ)
            for _ in range(5):
                settle(base)
            other.bev.enable(READ)
    run_until(base, lambda: len(other.received) == len(sent))
    assert (other.received == sent) is True


# HTTP.


def test_head_and_body_of_a_reply_are_one_record(base: EventBase, authority: Authority) -> None:
    server = server_of(base, authority, lambda request: request.send_reply(200, None, b"hello"))
    peer = peer_of(base, server, authority)
    for _ in range(3):
        assert peer.answer(REQUEST, b"hello").startswith(b"HTTP/1.1 200 OK")
        assert len(peer.records) == 1
    peer.sock.close()


def test_what_one_chunk_consists_of_is_one_record(base: EventBase, authority: Authority) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.send_reply_start(200)
        base.defer(base.defer, chunk, request, 3)

    def chunk(request: HttpServerRequest, left: int) -> None:
        if left:
            request.send_reply_chunk(b"x" * 100)
            base.defer(base.defer, chunk, request, left - 1)
        else:
            request.send_reply_end()

    peer = peer_of(base, server_of(base, authority, handler), authority)
    peer.answer(REQUEST, b"\r\n0\r\n\r\n")
    assert len(peer.records) <= 5, peer.records  # the head, three chunks and the end
    peer.sock.close()


def test_a_request_over_https_waits_for_no_acknowledgement(
    base: EventBase, authority: Authority
) -> None:
    server = server_of(base, authority, lambda request: request.send_reply(200, None, b"hello"))
    context = client_context(authority)
    address = where(server)
    connection = HttpConnection(base, *address, tls=context, server_hostname=HOST)
    taken: list[float] = []

    def done(request: HttpRequest) -> None:
        assert request.error is None
        taken.append(time.monotonic() - begun[0])
        if len(taken) == 20:
            base.loopexit()
        else:
            ask()

    begun = [0.0]

    def ask() -> None:
        begun[0] = time.monotonic()
        request = HttpRequest(done)
        request.output_buffer.add(b"body")
        connection.make_request(request, HttpCommand.POST, "/")

    ask()
    base.dispatch()
    assert min(taken) < DELAYED_ACK / 2
    connection.close()
    server.close()


def is_hurried(bev: BufferEvent) -> bool:
    with socket.socket(fileno=os.dup(bev.fd)) as sock:
        return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


@pytest.mark.parametrize("secured", [False, True])
def test_both_sides_of_http_send_at_once(
    base: EventBase, authority: Authority, secured: bool
) -> None:
    hurried: list[bool] = []

    def handler(request: HttpServerRequest) -> None:
        connection = request.connection
        assert connection is not None
        hurried.append(is_hurried(connection.bufferevent))
        request.send_reply(200)

    server = HttpServer(base)
    if secured:
        server.tls = server_context(authority)
    server.set_gencb(handler)
    server.bind_socket("127.0.0.1", 0)
    named: dict[str, Any] = {"tls": client_context(authority), "server_hostname": HOST}
    connection = HttpConnection(base, *where(server), **(named if secured else {}))

    def done(request: HttpRequest) -> None:
        assert request.error is None
        hurried.append(is_hurried(connection.bufferevent))
        base.loopexit()

    connection.make_request(HttpRequest(done), HttpCommand.GET, "/")
    base.dispatch()
    assert hurried == [True, True]
    connection.close()
    server.close()


def test_what_can_not_hurry_listens_all_the_same(base: EventBase, authority: Authority) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        server = HttpServer(base)
        bound = server.accept_socket(listening)
        with socket.socket(fileno=os.dup(bound.fd)) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        server.close()


# Its end.


def test_closing_in_the_midst_of_pieces_frees_them(base: EventBase, authority: Authority) -> None:
    one, other = connected_ends(base, authority)
    one.bev.write(b"x" * (4 << 20))
    pieces_of(one.bev)
    run_until(base, lambda: other.received)
    one.bev.close()
    run_until(base, lambda: other.over)
    assert BufferEventFlag.READING in other.events[-1]


def test_pieces_written_before_there_is_a_connection_wait_for_it(
    base: EventBase, authority: Authority
) -> None:
    left, right = tcp_pair()
    with left:
        bev = BufferEvent.tls(base, right, server_context(authority))
        data = pieces_of(bev)
        peer = Peer(base, left, authority)
        peer.until(lambda: len(peer.received) == len(data))
        assert peer.received == data
        bev.close()
