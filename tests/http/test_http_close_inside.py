"""Nothing is sent, read or called any more for what is closed inside its own callback.

C's half of it still is there then, and in the middle of something.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventOption,
    ClosedError,
    DnsServer,
    DnsServerRequest,
    EventBase,
    EventFlag,
    HttpServer,
    HttpServerConnection,
    HttpServerRequest,
    Listener,
    Rpc,
    RpcServer,
)
from tests.kit.certificates import Authority
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import connected, run_until, settle
from tests.kit.rpc_messages import REQUEST, Kill, Msg, answer
from tests.kit.support import run_python
from tests.kit.tls_peers import client_context, server_context
from tests.kit.web import Client, get, where

Close = Callable[[HttpServerRequest], object]

PIPELINED = b"GET /1 HTTP/1.1\r\n\r\n" + b"GET /2 HTTP/1.1\r\n\r\n" + get("/3")


def connection_of(request: HttpServerRequest) -> HttpServerConnection:
    connection = request.connection
    assert connection is not None
    return connection


def close_connection(request: HttpServerRequest) -> None:
    connection_of(request).close()


def close_server(request: HttpServerRequest) -> None:
    request._root.close()


# HTTP: each place where a handler can close what has called it. Each gets the way to close.


def in_the_handler(request: HttpServerRequest, close: Close) -> None:
    close(request)


def before_a_deferred_reply(request: HttpServerRequest, close: Close) -> None:
    def later(_fd: int, _what: int) -> None:
        close(request)
        with pytest.raises(ClosedError):
            request.send_reply(200)

    request.server.base.once(later)


def before_a_reply(request: HttpServerRequest, close: Close) -> None:
    close(request)
    for reply in (request.send_reply, request.send_error, request.send_reply_start):
        with pytest.raises(ClosedError):
            reply(200)


def behind_a_reply_that_has_been_begun(request: HttpServerRequest, close: Close) -> None:
    request.send_reply_start(200)
    request.send_reply_chunk(b"chunk")
    close(request)
    with pytest.raises(ClosedError):
        request.send_reply_chunk(b"chunk")
    with pytest.raises(ClosedError):
        request.send_reply_end()


def where_the_handler_raises(request: HttpServerRequest, close: Close) -> None:
    close(request)
    raise ZeroDivisionError


SILENT = [
    in_the_handler,
    before_a_deferred_reply,
    before_a_reply,
    behind_a_reply_that_has_been_begun,
    where_the_handler_raises,
]


@pytest.mark.parametrize("close", [close_connection, close_server])
@pytest.mark.parametrize("place", SILENT)
@pytest.mark.parametrize("by", ["gencb", "path", "virtual host"])
def test_nothing_is_sent_after_close(
    base: EventBase, server: HttpServer, close: Close, place: Any, by: str
) -> None:
    called: list[str] = []
    base.on_error = lambda error, source: called.append(type(error).__name__)

    def handler(request: HttpServerRequest) -> None:
        called.append(request.uri)
        place(request, close)

    if by == "path":
        server.set_cb("/1", handler)
    elif by == "gencb":
        server.set_gencb(handler)
    else:
        upper = HttpServer(base)
        upper.set_gencb(handler)
        server.add_virtual_host("a.test", upper)
    head = PIPELINED.replace(b"\r\n\r\n", b"\r\nHost: a.test\r\n\r\n")
    client = Client(base, where(server)).send(head)
    assert client.rest() == b""
    settle(base)
    assert called == ["/1", "ZeroDivisionError"][: 1 + (place is where_the_handler_raises)]
    assert server.closed is (close is close_server)


@pytest.mark.parametrize("close", ["connection", "server"])
def test_nothing_is_sent_behind_a_whole_reply_either(
    base: EventBase, server: HttpServer, close: str
) -> None:
    def handler(request: HttpServerRequest) -> None:
        connection = connection_of(request)
        request.send_reply(200)
        (connection if close == "connection" else server).close()

    server.set_gencb(handler)
    assert Client(base, where(server)).send(PIPELINED).rest() == b""


@pytest.mark.parametrize("close", [close_connection, close_server])
def test_nothing_is_sent_after_close_over_tls(
    base: EventBase, server: HttpServer, close: Close, authority: Authority
) -> None:
    server.tls = server_context(authority)
    server.set_gencb(lambda request: behind_a_reply_that_has_been_begun(request, close))
    got: list[bytes] = []
    ended: list[int] = []
    peer = BufferEvent.tls(
        base,
        connected(where(server)),
        client_context(authority),
        server_hostname="127.0.0.1",
        on_read=lambda bev: got.append(bev.read()),
        on_event=lambda bev, what: ended.append(what),
    )
    peer.enable(EventFlag.READ)
    peer.write(PIPELINED)
    run_until(base, lambda: len(ended) > 1)
    assert got == []
    peer.close()


@pytest.mark.parametrize("close", ["connection", "server"])
@pytest.mark.parametrize("when", ["on_complete", "chunk"])
def test_no_further_request_is_served_after_close_in_a_later_callback(
    base: EventBase, server: HttpServer, close: str, when: str
) -> None:
    asked: list[str] = []

    def handler(request: HttpServerRequest) -> None:
        asked.append(request.uri)
        connection = connection_of(request)

        def end(_: Any) -> None:
            (connection if close == "connection" else server).close()

        if when == "on_complete":
            request.on_complete = end
            request.send_reply(200)
        else:
            request.send_reply_start(200)
            request.send_reply_chunk(b"chunk", end)

    server.set_gencb(handler)
    client = Client(base, where(server)).send(PIPELINED)
    got = client.rest()
    assert got.count(b"HTTP/1.1 200") == 1
    assert got.endswith(b"\r\n\r\n" if when == "on_complete" else b"chunk\r\n")
    assert asked == ["/1"]


def test_a_server_closed_in_a_handler_tells_other_clients_nothing(
    base: EventBase, server: HttpServer
) -> None:
    asked: list[str] = []

    def handler(request: HttpServerRequest) -> None:
        asked.append(request.uri)
        server.close()

    server.set_gencb(handler)
    clients = [Client(base, where(server)) for _ in range(5)]
    settle(base)
    for client in clients:
        client.send(get())
    assert [client.rest() for client in clients] == [b""] * 5
    assert len(asked) == 1


# RPC.


@pytest.mark.parametrize("what", ["connection", "HTTP server"])
@pytest.mark.parametrize("then", ["drops it", "is done", "raises"])
def test_an_rpc_whose_connection_or_server_is_closed_is_not_answered(
    base: EventBase, server: HttpServer, what: str, then: str
) -> None:
    called: list[Rpc] = []
    base.on_error = lambda error, source: None

    def handler(rpc: Rpc) -> None:
        called.append(rpc)
        if what == "connection":
            connection = rpc.connection
            assert connection is not None
            connection.close()
        else:
            server.close()
        if then == "is done" and not rpc.closed:
            answer(rpc)
        if then == "raises":
            raise ZeroDivisionError

    RpcServer(server).register("Close", Msg, Kill, handler)
    body = bytes(REQUEST)
    head = b"POST /.rpc.Close HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert Client(base, where(server)).send(head + body + PIPELINED).rest() == b""
    assert len(called) == 1


# Below HTTP.


def test_a_listener_closed_in_its_callback_accepts_none_of_those_that_wait(
    base: EventBase,
) -> None:
    accepted: list[int] = []

    def accept(listener: Listener, fd: int, _address: object) -> None:
        accepted.append(fd)
        socket.socket(fileno=fd).close()
        listener.close()

    listener = Listener(base, ("127.0.0.1", 0), accept)
    clients = [connected(listener.address) for _ in range(5)]
    settle(base)
    assert len(accepted) == 1
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    "options",
    [BufferEventOption(0), BufferEventOption.EAGER, BufferEventOption.DEFER_CALLBACKS],
    ids=lambda options: options.name or "none",
)
def test_a_bufferevent_closed_in_on_read_writes_no_more(
    base: EventBase, options: BufferEventOption
) -> None:
    left, right = socket.socketpair()
    called: list[bytes] = []

    def on_read(bev: BufferEvent) -> None:
        called.append(bev.read(1))
        bev.write(b"lost")
        bev.close()

    bev = BufferEvent(base, left, BufferEventOption.CLOSE_ON_FREE | options, on_read=on_read)
    bev.enable(EventFlag.READ)
    with right:
        right.sendall(b"12")
        settle(base)
        right.settimeout(60)
        assert called == [b"1"]
        with contextlib.suppress(ConnectionResetError):  # as what it has not read is lost
            assert right.recv(10) == b""


def test_a_dns_server_closed_in_its_callback_answers_and_takes_no_more(base: EventBase) -> None:
    server: DnsServer
    asked: list[DnsServerRequest] = []

    def on_query(request: DnsServerRequest) -> None:
        asked.append(request)
        server.close()
        with pytest.raises(ClosedError):
            request.respond()

    server = DnsServer(base, ("127.0.0.1", 0), on_query)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(server.address)
        client.setblocking(False)
        for number in range(3):
            client.send(b"\0%c\1\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1" % number)
        run_until(base, lambda: asked)
        settle(base)
        with pytest.raises((BlockingIOError, ConnectionRefusedError)):
            client.recv(512)
    assert len(asked) == 1


@VALGRIND_TAKES_LONG
def test_closing_inside_touches_no_memory_that_is_freed(valgrind: bool) -> None:
    run_python(
        """
        import itertools, socket
        from libevent_py import *
        from libevent_py.rpc.message import Int
        class One(Message):
            n = Int(1)
        def run(what, how):
            base = EventBase()
            base.on_error = lambda error, source: None
            server = HttpServer(base)
            def handler(request):
                connection = request.connection
                close = connection.close if what == "connection" else server.close
                def later(_): close()
                if how == "begun": request.send_reply_start(200); request.send_reply_chunk(b"x")
                if how == "later": base.once(lambda fd, what: close()); return kept.append(request)
                if how == "complete":
                    request.on_complete = later; return request.send_reply(200)
                if how == "chunk":
                    request.send_reply_start(200)
                    request.send_reply_chunk(b"x", later); return kept.append(request)
                close()
                if how == "raise": raise ValueError
            kept = []
            server.set_gencb(handler)
            RpcServer(server).register("N", One, One, handler)
            port = server.bind_socket("127.0.0.1", 0).port
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
            body = bytes(One(n=1)) if how == "rpc" else b""
            path = b"/.rpc.N" if how == "rpc" else b"/"
            asked = b"POST %s HTTP/1.1\\r\\nHost: h\\r\\nContent-Length: %d\\r\\n\\r\\n%s"
            for client in clients:
                client.sendall(asked % (path, len(body), body) * 3)
            base.loopexit(0.1)
            base.dispatch()
            base.close()
            for client in clients:
                client.close()
        hows = "handler", "begun", "later", "complete", "chunk", "raise", "rpc"
        for what, how in itertools.product(("connection", "server"), hows):
            run(what, how)
        """,
        valgrind=valgrind,
    )
