"""HTTP bodies in parts: what a server reads of a request, and what a client sends of one."""

from __future__ import annotations

import socket
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    EventBase,
    EventFlag,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    HttpRequestError,
    HttpServer,
    HttpServerConnection,
    HttpServerRequest,
    TlsContext,
)
from tests.kit.certificates import HOST, Authority
from tests.kit.http_flows import (
    AT_ONCE,
    BIG,
    ENDS,
    TOO_MUCH,
    UPLOADS,
    Bev,
    both,
    nothing,
    pump,
    run_until,
    turns,
    upload,
)
from tests.kit.http_peers import Asked, Server, client, response
from tests.kit.peers import settle
from tests.kit.support import run_python
from tests.kit.web import Client, get, where

# What a server reads.


@pytest.mark.parametrize("kind", UPLOADS)
def test_an_upload_comes_in_parts_and_waits_while_it_is_paused(
    base: EventBase, server: HttpServer, kind: str
) -> None:
    size = parts = 0
    pauses = True
    seen: list[HttpServerRequest] = []

    def on_headers(request: HttpServerRequest) -> None:
        seen.append(request)
        assert (request.uri, request.command) == ("/up", HttpCommand.POST)
        assert request.input_headers["Host"] == "a"
        request.on_chunk = on_chunk
        assert request.on_chunk is on_chunk

    def on_chunk(request: HttpServerRequest) -> None:
        nonlocal size, parts
        assert request is seen[0]
        size += len(request.input_buffer)
        parts += 1
        if pauses:
            assert request.connection is not None
            request.connection.pause()

    def handler(request: HttpServerRequest) -> None:
        assert request is seen[0]
        assert not request.input_buffer
        request.send_reply(200, "OK", b"%d" % size)

    server.on_headers = on_headers
    assert server.on_headers is on_headers
    server.set_gencb(handler)
    head, body = upload(size=BIG, chunk=UPLOADS[kind])
    client = Client(base, where(server)).send(head)
    left = pump(base, client, body, lambda: parts)
    connection = seen[0].connection
    assert connection is not None
    assert connection.paused
    started = time.monotonic()
    left = pump(base, client, left, lambda: time.monotonic() > started + 0.3)
    assert size <= 65536 + AT_ONCE
    pauses = False
    connection.resume()
    pump(base, client, left, lambda: client.ended)
    assert client.received.endswith(b"\r\n\r\n%d" % BIG)
    assert size == BIG
    client.close()


def test_each_request_of_a_connection_comes_in_parts(base: EventBase, server: HttpServer) -> None:
    """Also those that have come before the one before them was answered."""
    log: list[Any] = []

    def on_headers(request: HttpServerRequest) -> None:
        log.append(("headers", request.uri))
        request.on_chunk = lambda request: log.append(bytes(request.input_buffer))

    def handler(request: HttpServerRequest) -> None:
        log.append(("handler", bytes(request.input_buffer)))
        request.send_reply(200, "OK", b".")

    server.on_headers = on_headers
    server.set_gencb(handler)
    head = "POST /%s HTTP/1.1\r\nHost: a\r\n"
    many = b"".join(
        (head % n).encode() + b"Content-Length: 1\r\n\r\n" + n.encode() for n in "abcdefg"
    )
    client = Client(base, where(server)).send(many)
    client.until(lambda received: received.count(b"HTTP/1.1 200") == 7)
    expected = [x for n in "abcdefg" for x in (("headers", f"/{n}"), n.encode(), ("handler", b""))]
    assert log == expected
    log.clear()
    client.send((head % "late").encode() + b"Content-Length: 4\r\n\r\n12")
    run_until(base, lambda: len(log) == 2)
    client.send(b"34" + get("/none"))
    client.rest()
    assert log[:4] == [("headers", "/late"), b"12", b"34", ("handler", b"")]
    assert log[4:] == [("headers", "/none"), ("handler", b"")]


def test_a_connection_that_came_before_tells_late_but_tells(
    base: EventBase, server: HttpServer
) -> None:
    log: list[Any] = []

    def on_headers(request: HttpServerRequest) -> None:
        log.append("headers")
        request.on_chunk = lambda request: log.append(bytes(request.input_buffer))

    def handler(request: HttpServerRequest) -> None:
        log.append(bytes(request.input_buffer))
        request.send_reply(200)

    server.set_gencb(handler)
    client = Client(base, where(server))
    settle(base)
    server.on_headers = on_headers
    client.send(get("/", method="POST", more="Content-Length: 5\r\n") + b"hello")
    client.rest()
    assert log == ["headers", b"hello", b""]


def test_a_request_whose_connection_is_closed_as_it_tells_late_is_let_go(
    base: EventBase, server: HttpServer
) -> None:
    """The server kept it until the next request."""
    told: list[weakref.ref[HttpServerRequest]] = []

    def on_headers(request: HttpServerRequest) -> None:
        told.append(weakref.ref(request))
        connection = request.connection
        assert connection is not None
        connection.close()

    client = Client(base, where(server))
    settle(base)
    server.set_gencb(print)
    server.on_headers = on_headers
    client.send(get())
    client.rest()
    assert [ref() for ref in told] == [None]


def test_without_on_chunk_the_body_is_collected(base: EventBase, server: HttpServer) -> None:
    seen: list[HttpServerRequest] = []
    server.on_headers = seen.append

    def handler(request: HttpServerRequest) -> None:
        assert request is seen[0]
        request.send_reply(200, "OK", request.input_buffer)

    server.set_gencb(handler)
    client = Client(base, where(server))
    client.send(get("/", method="POST", more="Content-Length: 5\r\n") + b"hello")
    assert client.rest().endswith(b"\r\n\r\nhello")


def test_a_request_can_not_be_answered_before_its_body_has_come(
    base: EventBase, server: HttpServer
) -> None:
    refused: list[object] = []

    def early(request: HttpServerRequest) -> None:
        for use in (
            lambda: request.send_reply(200),
            lambda: request.send_error(500),
            lambda: request.send_reply_start(200),
            lambda: request.send_reply_chunk(b"x"),
            lambda: request.send_reply_end(),
        ):
            with pytest.raises(RuntimeError, match="before the whole body has come"):
                use()
            refused.append(use)

    def on_headers(request: HttpServerRequest) -> None:
        early(request)
        request.on_chunk = early

    def handler(request: HttpServerRequest) -> None:
        with pytest.raises(RuntimeError, match="the body has come"):
            request.on_chunk = print
        request.send_reply(200)

    server.on_headers = on_headers
    server.set_gencb(handler)
    client = Client(base, where(server))
    client.send(get("/", method="POST", more="Content-Length: 5\r\n") + b"hello")
    assert client.rest().startswith(b"HTTP/1.1 200 ")
    assert len(refused) == 10


@pytest.mark.parametrize("who", ["on_headers", "on_chunk"])
@pytest.mark.parametrize("late", [False, True])
def test_a_body_that_can_not_be_read_is_thrown_away_and_answered_with_500(
    base: EventBase, server: HttpServer, who: str, late: bool
) -> None:
    raised: list[Exception] = []
    sources: list[Any] = []

    def on_error(error: Exception, source: Any) -> None:
        raised.append(error)
        sources.append(source)

    base.on_error = on_error
    ends: list[Any] = []

    def fails(request: HttpServerRequest) -> None:
        raise LookupError(who)

    def on_headers(request: HttpServerRequest) -> None:
        request.on_end = lambda request: ends.append(request.error)
        request.on_chunk = fails
        if who == "on_headers":
            fails(request)

    if not late:
        server.on_headers = on_headers
    server.set_gencb(lambda request: pytest.fail("its handler has been called"))
    client = Client(base, where(server))
    settle(base)
    server.on_headers = on_headers
    client.send(get("/", method="POST", more="Content-Length: 9\r\n") + b"hell")
    settle(base)
    assert client.poll() == b""
    client.send(b"ooooo")
    assert client.rest().startswith(b"HTTP/1.1 500 ")
    assert [str(error) for error in raised] == [f"{who}" if who == "on_chunk" else "on_headers"]
    assert isinstance(sources[0], HttpServerRequest)
    [error] = ends
    assert f"{who} raised LookupError" in str(error)
    assert error.__cause__ is raised[0]


def test_libevents_own_answers_end_a_request_that_no_handler_has_got(
    base: EventBase, server: HttpServer
) -> None:
    server.max_body_size = 100
    ends: list[Any] = []
    seen: list[HttpServerRequest] = []

    def on_headers(request: HttpServerRequest) -> None:
        seen.append(request)
        request.on_end = lambda request: ends.append(request.error)
        request.on_chunk = nothing

    server.on_headers = on_headers
    for length, code in (101, b"413"), (5, b"404"):  # there is no handler
        client = Client(base, where(server))
        more = f"Content-Length: {length}\r\n"
        client.send(get("/", method="POST", more=more) + bytes(length))
        assert client.rest().split()[1] == code
        assert f"libevent has answered it with {code.decode()}" in str(ends[-1])
        assert seen[-1].closed


Closes = Callable[[HttpServerRequest], object]


def close_connection(request: HttpServerRequest) -> None:
    assert request.connection is not None
    request.connection.close()


CLOSES: dict[str, Closes] = {
    "request": lambda request: request.close(),
    "connection": close_connection,
    "server": lambda request: request.server.close(),
}


@pytest.mark.parametrize(
    ("where_", "late"),
    [(name, late) for name in ("on_headers", "on_chunk") for late in (False, True)]
    + [("loop", False)],
)
@pytest.mark.parametrize("what", CLOSES)
def test_what_it_comes_by_may_be_closed_meanwhile(
    base: EventBase, server: HttpServer, what: str, where_: str, late: bool
) -> None:
    ends: list[Any] = []
    seen: list[HttpServerRequest] = []

    def on_headers(request: HttpServerRequest) -> None:
        seen.append(request)
        request.on_end = lambda request: ends.append(str(request.error))
        request.on_chunk = on_chunk
        if where_ == "on_headers":
            CLOSES[what](request)

    def on_chunk(request: HttpServerRequest) -> None:
        if where_ == "on_chunk":
            CLOSES[what](request)

    if not late:
        server.on_headers = on_headers
    server.set_gencb(lambda request: request.send_reply(200))
    client = Client(base, where(server))
    settle(base)
    server.on_headers = on_headers
    client.send(get("/", method="POST", more="Content-Length: 9\r\n") + b"hell")
    if late:
        client.send(b"ooooo")
    if where_ == "loop":
        run_until(base, lambda: seen)
        base.defer(CLOSES[what], seen[0])
    assert client.rest() == b""
    assert len(ends) == 1
    assert seen[0].closed


def test_a_client_that_leaves_in_the_middle_of_its_body_ends_its_request(
    base: EventBase, server: HttpServer
) -> None:
    ends: list[Any] = []

    def on_headers(request: HttpServerRequest) -> None:
        request.on_chunk = nothing
        request.on_end = lambda request: ends.append((request.uri, request.error))

    server.on_headers = on_headers
    server.set_gencb(nothing)
    client = Client(base, where(server))
    client.send(get("/left", method="POST", more="Content-Length: 9\r\n") + b"hell")
    settle(base)
    client.close()
    run_until(base, lambda: ends)
    [(uri, error)] = ends
    assert uri == "/left"
    assert "its client has gone" in str(error)


def test_on_headers_is_for_who_has_accepted_the_connection(
    base: EventBase, server: HttpServer
) -> None:
    vhost = HttpServer(base)
    server.add_virtual_host("a.test", vhost)
    with pytest.raises(ValueError, match="on_headers must be set on the server"):
        vhost.on_headers = print
    with pytest.raises(TypeError, match="on_headers must be callable"):
        server.on_headers = 5  # type: ignore[assignment]
    seen: list[Any] = []
    server.on_headers = lambda request: seen.append(request.server)

    def handler(request: HttpServerRequest) -> None:
        seen.append(request.server)
        request.send_reply(200)

    vhost.set_gencb(handler)
    Client(base, where(server)).send(get()).rest()
    assert seen == [server, vhost]
    server.on_headers = None
    Client(base, where(server)).send(get()).rest()
    assert seen == [server, vhost, vhost]


def test_a_bevcb_and_tls_go_with_on_headers(
    base: EventBase, server: HttpServer, context: dict[str, TlsContext] | None
) -> None:
    parts: list[bytes] = []

    def on_headers(request: HttpServerRequest) -> None:
        request.on_chunk = on_chunk

    def on_chunk(request: HttpServerRequest) -> None:
        parts.append(bytes(request.input_buffer))
        assert request.connection is not None
        request.connection.pause()
        base.defer(request.connection.resume)

    server.on_headers = on_headers
    if context is None:
        server.set_bevcb(BufferEvent)
        connection = HttpConnection(base, *where(server))
    else:
        server.tls = context["server"]
        tls = context["client"]
        connection = HttpConnection(base, *where(server), tls=tls, server_hostname=HOST)
    server.set_gencb(lambda request: request.send_reply(200))
    asked = Asked().on(connection, command=HttpCommand.POST, body=bytes(100_000))
    run_until(base, lambda: asked.ended)
    assert asked.code == 200
    assert b"".join(parts) == bytes(100_000)
    assert len(parts) > 1
    connection.close()


# A client's upload, in parts.


class Upload(Asked):
    """A request that sends *parts* as the server takes them."""

    def __init__(self, *parts: bytes, length: bool = False, **callbacks: Any) -> None:
        super().__init__(on_write=self.on_write, **callbacks)
        self.parts = list(parts)
        self.written = 0
        if length:
            self.request.output_headers["Content-Length"] = str(sum(map(len, parts)))

    def on_write(self, request: HttpRequest) -> None:
        self.written += 1
        if self.parts:
            assert request.send_request_chunk(self.parts.pop(0))
        else:
            request.send_request_end()


def echoing(server: HttpServer) -> list[tuple[str, list[tuple[str, str]], bytes]]:
    """Have *server* answer with how much it has got; return what it has."""
    got: list[tuple[str, list[tuple[str, str]], bytes]] = []

    def handler(request: HttpServerRequest) -> None:
        command = request.command
        assert isinstance(command, HttpCommand)
        body = bytes(request.input_buffer)
        got.append((command.name or "", request.input_headers.items(), body))
        request.send_reply(200, "OK", b"%d" % len(body))

    server.allowed_methods = HttpCommand(sum(HttpCommand))
    server.set_gencb(handler)
    return got


@pytest.mark.parametrize("length", [False, True])
@pytest.mark.parametrize("command", [HttpCommand.POST, HttpCommand.PUT, HttpCommand.PATCH])
def test_a_body_is_sent_in_parts(
    base: EventBase,
    server: HttpServer,
    context: dict[str, TlsContext] | None,
    command: HttpCommand,
    length: bool,
) -> None:
    got = echoing(server)
    named: dict[str, Any] = {}
    if context is not None:
        server.tls = context["server"]
        named = {"tls": context["client"], "server_hostname": HOST}
    connection = HttpConnection(base, *where(server), **named)
    uploads = [
        Upload(b"one, ", b"two, ", bytes(500_000), length=length).on(connection, "/", command)
        for _ in range(2)
    ]
    run_until(base, lambda: all(one.ended for one in uploads))
    assert [one.error for one in uploads] == [None, None]
    assert [(one.body, one.written) for one in uploads] == [(b"500010", 4)] * 2
    whole = b"one, two, " + bytes(500_000)
    framing = ("Content-Length", "500010") if length else ("Transfer-Encoding", "chunked")
    assert [(name, body == whole) for name, _, body in got] == [(command.name, True)] * 2
    for _, headers, _ in got:
        kinds = [(n, v) for n, v in headers if n in ("Content-Length", "Transfer-Encoding")]
        assert kinds == [framing]
    connection.close()


def test_parts_may_be_sent_before_there_is_a_connection(
    base: EventBase, server: HttpServer
) -> None:
    got = echoing(server)
    connection = HttpConnection(base, *where(server))
    first, second = (
        HttpRequest(lambda request: done.append(request), on_write=nothing) for _ in "12"
    )
    done: list[HttpRequest] = []
    for request in first, second:  # the second waits for the first
        request.output_headers["Host"] = "a"
        connection.make_request(request, HttpCommand.POST, "/")
        assert request.send_request_chunk(b"\r\nContent-Length: 5\r\n")
        buffer = Buffer(b"buffer")
        assert request.send_request_chunk(buffer)
        assert not buffer
        assert not request.send_request_chunk(b"")
    second.send_request_end()
    settle(base)
    first.send_request_end()
    run_until(base, lambda: len(done) == 2)
    assert [request.error for request in done] == [None, None]
    assert [body for _, _, body in got] == [b"\r\nContent-Length: 5\r\nbuffer"] * 2
    connection.close()


def test_an_upload_waits_for_the_server(base: EventBase, server: HttpServer) -> None:
    paused: list[HttpServerConnection] = []
    size = 0

    def on_headers(request: HttpServerRequest) -> None:
        connection = request.connection
        assert connection is not None
        connection.pause()
        paused.append(connection)
        request.on_chunk = on_chunk

    def on_chunk(request: HttpServerRequest) -> None:
        nonlocal size
        size += len(request.input_buffer)

    server.on_headers = on_headers
    server.set_gencb(lambda request: request.send_reply(200))
    connection = HttpConnection(base, *where(server))
    asked = Upload(*[bytes(1_000_000)] * 30).on(connection, "/", HttpCommand.PUT)
    run_until(base, lambda: paused)
    turns(base, 100)
    assert len(asked.parts) > 5, "it sends although nobody reads"
    waits = len(asked.parts)
    turns(base, 100)
    assert len(asked.parts) == waits
    assert len(connection.bufferevent.output) <= 1_000_100
    paused[0].resume()
    run_until(base, lambda: asked.ended)
    assert asked.code == 200
    assert size == 30_000_000
    connection.close()


def test_what_content_length_says_is_held_to(base: EventBase, server: HttpServer) -> None:
    got = echoing(server)
    connection = HttpConnection(base, *where(server))
    asked = Asked(on_write=nothing)
    asked.request.output_headers["Content-Length"] = "5"
    asked.on(connection, "/", HttpCommand.POST)
    request = asked.request
    assert request.send_request_chunk(b"1234")
    with pytest.raises(ValueError, match="at most the 1 bytes left, not 2"):
        request.send_request_chunk(b"56")
    with pytest.raises(ValueError, match="1 bytes shorter than its Content-Length"):
        request.send_request_end()
    assert request.send_request_chunk(b"5")
    request.send_request_end()
    with pytest.raises(RuntimeError, match="after send_request_end"):
        request.send_request_chunk(b"6")
    with pytest.raises(RuntimeError, match="after send_request_end"):
        request.send_request_end()
    run_until(base, lambda: asked.ended)
    assert [body for _, _, body in got] == [b"12345"]
    connection.close()


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"Expect": "100-continue"}, "no Expect"),
        ({"Content-Length": "5", "Transfer-Encoding": "chunked"}, "must not have"),
        ({"Content-Length": "five"}, "must be one number"),
        ({"Content-Length": "-5"}, "must be one number"),
        ({"Transfer-Encoding": "gzip"}, "must be chunked"),
    ],
)
def test_headers_that_do_not_go_with_parts_are_refused(
    base: EventBase, headers: dict[str, str], why: str
) -> None:
    connection = HttpConnection(base, "127.0.0.1", 1)
    request = HttpRequest(print, on_write=print)
    request.output_headers.update(headers)
    with pytest.raises(ValueError, match=why):
        connection.make_request(request, HttpCommand.POST, "/")
    whole = HttpRequest(print, on_write=print)
    whole.output_buffer.add(b"x")
    with pytest.raises(ValueError, match="must be empty"):
        connection.make_request(whole, HttpCommand.POST, "/")
    with pytest.raises(TypeError, match="on_write must be callable"):
        HttpRequest(print, on_write=5)  # type: ignore[arg-type]


def test_parts_are_for_requests_made_with_on_write_and_under_way(base: EventBase) -> None:
    plain, early = HttpRequest(print), HttpRequest(print, on_write=print)
    for use in plain.send_request_end, lambda: plain.send_request_chunk(b"x"):
        with pytest.raises(RuntimeError, match="made with on_write"):
            use()
    for use in early.send_request_end, lambda: early.send_request_chunk(b"x"):
        with pytest.raises(RuntimeError, match="before make_request"):
            use()
    server = Server(base, None)
    connection = client(base, server)
    asked = Asked(on_write=nothing).on(connection, "/", HttpCommand.POST)
    asked.request.cancel()
    run_until(base, lambda: asked.ended)
    assert not asked.request.send_request_chunk(b"x")
    asked.request.send_request_end()
    connection.close()
    server.close()


def early(answer: bytes) -> Callable[[Bev], object]:
    return lambda bev: bev.write(answer)


def test_a_server_that_refuses_early_gets_no_more_and_is_heard(base: EventBase) -> None:
    refusal = response(b"no!", status="413 Too much")
    server, connection = both(base, None, early(refusal), response(b"hello"))
    asked = Asked(on_write=nothing).on(connection, "/", HttpCommand.POST)
    assert asked.request.send_request_chunk(bytes(1000))
    run_until(base, lambda: not asked.request.send_request_chunk(b"."))
    run_until(base, lambda: asked.ended)
    assert (asked.error, asked.code, asked.body) == (None, 413, b"no!")
    again = Asked().on(connection)
    run_until(base, lambda: again.ended)
    assert again.body == b"hello"
    assert len(server.connections) == 2, "a request that isn't whole must not be followed by one"
    server.close()


def test_a_server_that_agrees_early_gets_all_first(base: EventBase) -> None:
    """Also one that says 100 though it wasn't asked to."""
    answers = b"HTTP/1.1 100 Continue\r\n\r\n" + response(b"fine")
    server, connection = both(base, None, early(answers))
    asked = Asked(on_write=nothing).on(connection, "/", HttpCommand.POST)
    asked.request.send_request_chunk(b"1")
    run_until(base, lambda: server.requests)
    turns(base)
    assert asked.ended == 0
    assert asked.request.send_request_chunk(b"2")
    asked.request.send_request_end()
    run_until(base, lambda: asked.ended)
    assert (asked.code, asked.body) == (200, b"fine")
    server.close()


def test_a_server_that_goes_ends_the_upload(base: EventBase) -> None:
    server, connection = both(base, None, None)
    asked = Asked(on_write=lambda request: request.send_request_chunk(b"x")).on(
        connection, "/", HttpCommand.POST
    )
    run_until(base, lambda: asked.ended)
    assert asked.error.code == HttpRequestError.EOF
    server.close()


@pytest.mark.slow
def test_an_upload_times_out_when_nothing_goes_on(base: EventBase) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = HttpConnection(base, *listening.getsockname())
        connection.timeout = 0.4
        asked = Asked(on_write=nothing).on(connection, "/", HttpCommand.POST)
        started = time.monotonic()
        while time.monotonic() < started + 0.8:
            asked.request.send_request_chunk(b"x")
            turns(base, 5)
        assert asked.ended == 0, "though it has gone on"
        run_until(base, lambda: asked.ended)
        assert asked.error.code == HttpRequestError.TIMEOUT
        connection.close()


def test_an_upload_that_can_not_be_made_up_is_cancelled(base: EventBase) -> None:
    server, connection = both(base, None, b"")

    def on_write(request: HttpRequest) -> None:
        raise LookupError("on_write")

    raised: list[Any] = []
    base.on_error = lambda error, source: raised.append((error, source))
    asked = Asked(on_write=on_write).on(connection, "/", HttpCommand.POST)
    run_until(base, lambda: asked.ended)
    assert asked.error.code == HttpRequestError.REQUEST_CANCEL
    [(error, source)] = raised
    assert str(error) == "on_write"
    assert source is asked.request
    server.close()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("inside", [False, True])
def test_an_upload_may_end_in_any_way(
    base: EventBase, context: dict[str, TlsContext] | None, end: str, inside: bool
) -> None:
    if inside and end == "base-closed":
        return  # refused inside any callback
    server, connection = both(base, context, lambda bev: bev.disable(EventFlag.READ))
    ready: list[int] = []

    def on_write(request: HttpRequest) -> None:
        ready.append(1)
        request.send_request_chunk(bytes(TOO_MUCH))
        if inside:
            ENDS[end](base, connection, request)

    asked = Asked(on_write=on_write).on(connection, "/", HttpCommand.POST)
    run_until(base, lambda: ready)
    if not inside:
        settle(base)
        ENDS[end](base, connection, asked.request)
    if not base.closed:
        run_until(base, lambda: asked.ended)
        settle(base)
        assert not asked.request.send_request_chunk(b"x") if not asked.request.closed else True
    assert asked.ended == 1
    assert asked.error is not None
    if not base.closed:
        server.close()


def test_a_server_that_refuses_over_tls_while_a_part_is_sent_is_heard_once(
    authority: Authority,
) -> None:
    """The call for what has been written is deferred there; evhttp asserts that it gets no two."""
    run_python(
        """
        import socket, ssl, sys, threading, time
        from libevent_py import *
        listening = socket.create_server(("127.0.0.1", 0))
        answered = threading.Event()
        def serve():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(sys.argv[1], sys.argv[2])
            with context.wrap_socket(listening.accept()[0], server_side=True) as peer:
                peer.recv(1000)
                peer.sendall(b"HTTP/1.1 413 no\\r\\nContent-Length: 0\\r\\n\\r\\n")
                answered.set()
                while peer.recv(1000):
                    pass
        thread = threading.Thread(target=serve)
        thread.start()
        def on_write(request):
            assert answered.wait(60)
            request.send_request_chunk(b"x" * 100)
        codes = []
        with EventBase() as base:
            port = listening.getsockname()[1]
            context = TlsContext(cafile=sys.argv[3])
            connection = HttpConnection(base, "127.0.0.1", port, tls=context)
            def done(request):
                codes.append((request.response_code, request.error))
            request = HttpRequest(done, on_write=on_write)
            request.output_headers["Host"] = "127.0.0.1"
            connection.make_request(request, HttpCommand.POST, "/")
            base.dispatch()
        assert codes == [(413, None)]
        thread.join()
        listening.close()
        """,
        str(authority.server.certfile),
        str(authority.server.keyfile),
        str(authority.ca.certfile),
    )
