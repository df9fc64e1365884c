"""A server's handler raises: its client is told, `EventBase.on_error` gets the request."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libevent_py import EventBase, HttpCommand, HttpServer, HttpServerRequest, Rpc, RpcServer
from tests.kit.certificates import Authority
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import connected, rest, run_until, settle
from tests.kit.rpc_messages import REQUEST, Kill, Msg
from tests.kit.support import PATIENCE, run_python
from tests.kit.tls_peers import server_context
from tests.kit.web import Client, get, parsed, where

Handler = Callable[[HttpServerRequest], object]


def raises(_request: Any) -> None:
    raise ZeroDivisionError("oops")


def raised_by(base: EventBase, error: type[BaseException] = ZeroDivisionError) -> None:
    """Run the loop, out of which *error* comes."""
    base.loopexit(PATIENCE)
    with pytest.raises(error):
        base.dispatch()


@contextlib.contextmanager
def asked(server: HttpServer, request: bytes) -> Iterator[socket.socket]:
    """Have *request* sent by a socket that reads only what has been sent by then."""
    with connected(where(server)) as sock:
        sock.sendall(request)
        yield sock


# Without on_error.


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("by", ["gencb", "path", "virtual host"])
def test_the_client_has_got_500_when_the_exception_comes_out(
    base: EventBase, server: HttpServer, method: str, version: str, by: str
) -> None:
    if by == "gencb":
        server.set_gencb(raises)
    elif by == "path":
        server.set_cb("/", raises)
    else:
        upper = HttpServer(base)
        upper.set_gencb(raises)
        server.add_virtual_host("a.test", upper)
    request = f"{method} / HTTP/{version}\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n"
    with asked(server, request.encode()) as sock:
        raised_by(base)
        status, headers, body = parsed(rest(sock))  # the loop doesn't run any more
    assert status.endswith(" 500 Internal Server Error")
    assert headers["Connection"] == "close"
    assert bool(body) is (method != "HEAD")
    assert method == "HEAD" or int(headers["Content-Length"]) == len(body)


def test_so_it_is_over_tls(base: EventBase, server: HttpServer, authority: Authority) -> None:
    server.tls = server_context(authority)
    server.set_gencb(raises)
    context = ssl.create_default_context(cafile=str(authority.ca.certfile))
    got: list[bytes] = []
    address = where(server)

    def ask() -> None:
        with (
            socket.create_connection(address, timeout=PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            secure.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            received = b""
            while b"</HTML>" not in received:
                data = secure.recv(65536)
                assert data
                received += data
            got.append(received)

    thread = threading.Thread(target=ask)
    thread.start()
    raised_by(base)
    thread.join(PATIENCE)  # meanwhile the loop doesn't run
    assert got[0].startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_so_it_is_where_the_program_is_to_end(
    base: EventBase, server: HttpServer, error: type[BaseException]
) -> None:
    def handler(request: HttpServerRequest) -> None:
        raise error

    base.on_error = lambda error, source: pytest.fail("it is no Exception")
    server.set_gencb(handler)
    with asked(server, get()) as sock:
        raised_by(base, error)
        assert rest(sock).startswith(b"HTTP/1.1 500 ")


def test_the_server_can_go_on(base: EventBase, server: HttpServer) -> None:
    server.set_cb("/bad", raises)
    server.set_gencb(lambda request: request.send_reply(200))
    for _ in range(3):
        with asked(server, b"GET /bad HTTP/1.1\r\n\r\n") as sock:
            raised_by(base)
            assert rest(sock).startswith(b"HTTP/1.1 500 ")
        client = Client(base, where(server)).send(get())
        assert client.rest().startswith(b"HTTP/1.1 200 ")


def test_what_waits_behind_it_is_not_answered(base: EventBase, server: HttpServer) -> None:
    called: list[str] = []

    def handler(request: HttpServerRequest) -> None:
        called.append(request.uri)
        raise ZeroDivisionError

    server.set_gencb(handler)
    with asked(server, b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n") as sock:
        raised_by(base)
        with contextlib.suppress(ConnectionResetError):
            assert rest(sock).count(b"HTTP/1.1") == 1
    settle(base)
    assert called == ["/1"]


def test_callbacks_of_the_end_are_called_and_what_they_raise_comes_along(
    base: EventBase, server: HttpServer
) -> None:
    told: list[str] = []

    def closed(connection: Any) -> None:
        told.append("closed")
        raise LookupError

    def handler(request: HttpServerRequest) -> None:
        assert request.connection is not None
        request.connection.on_close = closed
        request.on_complete = lambda request: told.append(request.uri)
        raise ZeroDivisionError

    server.set_gencb(handler)
    with asked(server, get("/x")) as sock:
        base.loopexit(PATIENCE)
        with pytest.raises(Exception) as caught:
            base.dispatch()
        assert rest(sock).startswith(b"HTTP/1.1 500 ")
    assert told == ["/x", "closed"]
    every = getattr(caught.value, "exceptions", None)
    if every is None:  # before Python 3.11 they hang together
        every = [caught.value, caught.value.__context__]
    assert {type(error) for error in every} == {ZeroDivisionError, LookupError}


def begun(request: HttpServerRequest) -> None:
    request.send_reply_start(200)
    request.send_reply_chunk(b"chunk")
    raise ZeroDivisionError


def begun_with_a_length(request: HttpServerRequest) -> None:
    request.output_headers["Content-Length"] = "100"
    begun(request)


def raises_when_the_chunk_is_written(request: HttpServerRequest) -> None:
    request.send_reply_start(200)
    request.send_reply_chunk(b"chunk", raises)


@pytest.mark.parametrize("handler", [begun, begun_with_a_length, raises_when_the_chunk_is_written])
@pytest.mark.parametrize("hooked", [False, True])
def test_a_reply_that_has_been_begun_is_cut_off(
    base: EventBase, server: HttpServer, handler: Handler, hooked: bool
) -> None:
    told: list[tuple[type[Exception], bool]] = []
    if hooked:
        base.on_error = lambda error, request: told.append((type(error), request.uri == "/x"))
    server.set_gencb(handler)
    with asked(server, get("/x")) as sock:
        if hooked:
            run_until(base, lambda: told)
        else:
            raised_by(base)
        got = rest(sock)
    assert b"\r\n0\r\n" not in got
    assert b"500" not in got
    assert told == [(ZeroDivisionError, True)] * hooked


def test_a_reply_that_was_complete_stays_so(base: EventBase, server: HttpServer) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.send_reply(200, None, b"whole")
        raise ZeroDivisionError

    server.set_gencb(handler)
    with asked(server, get()) as sock:
        raised_by(base)
        settle(base)
        assert rest(sock).endswith(b"\r\n\r\nwhole")


def test_what_on_complete_raises_has_its_request_for_its_source(
    base: EventBase, server: HttpServer
) -> None:
    told: list[tuple[type[Exception], str]] = []
    base.on_error = lambda error, request: told.append((type(error), request.uri))

    def handler(request: HttpServerRequest) -> None:
        request.on_complete = raises
        request.send_reply(200)

    server.set_gencb(handler)
    assert Client(base, where(server)).send(get("/x")).rest().startswith(b"HTTP/1.1 200")
    assert told == [(ZeroDivisionError, "/x")]


# With on_error.


def test_on_error_gets_the_request_which_can_be_asked(base: EventBase, server: HttpServer) -> None:
    told: list[Any] = []

    def on_error(error: Exception, request: HttpServerRequest) -> None:
        assert isinstance(request.command, HttpCommand)
        told.append((str(error), request.uri, request.command.name, request.server, request.peer))
        told.append(request)

    base.on_error = on_error
    server.set_gencb(raises)
    client = Client(base, where(server)).send(get("/bad?x=1"))
    assert client.rest().startswith(b"HTTP/1.1 500 ")
    assert told[0][:4] == ("oops", "/bad?x=1", "GET", server)
    assert told[0][4][0] == "127.0.0.1"
    assert told[1].closed


@pytest.mark.parametrize("how", ["whole", "error", "chunks"])
def test_on_error_may_answer(base: EventBase, server: HttpServer, how: str) -> None:
    def on_error(error: Exception, request: HttpServerRequest) -> None:
        if how == "whole":
            request.send_reply(502, None, b"my own page")
        elif how == "error":
            request.send_error(502)
        else:
            request.send_reply_start(502)
            request.send_reply_chunk(b"my own page")
            request.send_reply_end()

    base.on_error = on_error
    server.set_gencb(raises)
    got = Client(base, where(server)).send(get()).rest()
    assert got.startswith(b"HTTP/1.1 502 ")
    assert how == "error" or b"my own page" in got
    assert got.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("what", ["close", "connection", "server"])
def test_on_error_may_close(base: EventBase, server: HttpServer, what: str) -> None:
    def on_error(error: Exception, request: HttpServerRequest) -> None:
        assert request.connection is not None
        {"close": request, "connection": request.connection, "server": server}[what].close()

    base.on_error = on_error
    server.set_gencb(raises)
    got = Client(base, where(server)).send(get()).rest()
    assert got.startswith(b"HTTP/1.1 500 ") if what == "close" else got == b""


def test_what_on_error_raises_comes_out_and_the_client_gets_500(
    base: EventBase, server: HttpServer
) -> None:
    def on_error(error: Exception, request: HttpServerRequest) -> None:
        raise LookupError

    base.on_error = on_error
    server.set_gencb(raises)
    with asked(server, get()) as sock:
        raised_by(base, LookupError)
        assert rest(sock).startswith(b"HTTP/1.1 500 ")


def test_an_rpcs_caller_has_got_503_when_the_exception_comes_out(
    base: EventBase, server: HttpServer
) -> None:
    def handler(rpc: Rpc) -> None:
        raise ZeroDivisionError

    RpcServer(server).register("Raise", Msg, Kill, handler)
    body = bytes(REQUEST)
    head = b"POST /.rpc.Raise HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n" % len(body)
    with asked(server, head + body) as sock:
        raised_by(base)
        assert rest(sock).startswith(b"HTTP/1.1 503 ")


# Memory.


@VALGRIND_TAKES_LONG
def test_raising_touches_no_memory_that_is_freed_and_a_child_answers_for_nobody(
    valgrind: bool,
) -> None:
    run_python(
        """
        import os, socket
        from libevent_py import *
        def ask(port):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n" * 3)
            return client
        def handler(request):
            if mode == "close": server.close()
            if mode == "connection": request.connection.close()
            if mode == "begun": request.send_reply_start(200); request.send_reply_chunk(b"x")
            if mode == "fork" and os.fork() == 0: os._exit(0)
            if mode == "fork and raise": os.fork()
            raise ValueError
        parent = os.getpid()
        for mode in "plain", "close", "connection", "begun", "fork", "fork and raise", "base":
            base = EventBase()
            server = HttpServer(base)
            server.set_gencb(handler)
            client = ask(server.bind_socket("127.0.0.1", 0).port)
            base.loopexit(5)
            try:
                base.dispatch()
            except Exception as error:
                if os.getpid() != parent: os._exit(0)
                assert type(error) is ValueError, error
            else:
                raise AssertionError(mode)
            if mode == "base": base.close()
            client.settimeout(5)
            got = b""
            try:
                while mode not in ("close", "connection", "base"):
                    data = client.recv(9999)
                    got += data
                    if not data: break
            except ConnectionResetError:
                pass
            assert got.count(b"HTTP/1.1 500") == (mode in ("plain", "fork", "fork and raise")), mode
            base.close()
            client.close()
            if "fork" in mode: os.wait()
        """,
        valgrind=valgrind,
    )
