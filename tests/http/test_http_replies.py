"""What a server's requests are answered with, and that each is answered exactly once."""

from __future__ import annotations

import functools
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEventFlag,
    ClosedError,
    EventBase,
    EventFlag,
    HttpCommand,
    HttpConnection,
    HttpServer,
    HttpServerConnection,
    HttpServerRequest,
    LibeventError,
    TlsContext,
)
from tests.kit.certificates import HOST
from tests.kit.http_peers import Asked
from tests.kit.peers import connected, run_until, settle
from tests.kit.web import Client, ask, curl, get, parsed, where

Handler = Callable[[HttpServerRequest], object]


def answer(server: HttpServer, handler: Handler, request: bytes = b"") -> Any:
    """Return the status, the headers and the body of what *handler* answers."""
    server.set_gencb(handler)
    return ask(server.base, where(server), request or get())


class Reports(list[Exception]):
    """What was reported instead of stopping the loop."""

    def __init__(self, base: EventBase) -> None:
        super().__init__()
        base.on_error = lambda error, _source: self.append(error)


@pytest.fixture
def reports(base: EventBase) -> Reports:
    """What callbacks raise."""
    return Reports(base)


# Whole replies.


@pytest.mark.parametrize(
    "body",
    [b"body", bytearray(b"body"), memoryview(b"the body")[4:], Buffer(b"body")],
    ids=lambda body: type(body).__name__,
)
def test_a_body_is_bytes_or_what_has_the_buffer_protocol_or_a_buffer(
    server: HttpServer, body: Any
) -> None:
    status, headers, got = answer(server, lambda request: request.send_reply(200, "Fine", body))
    assert (status, got) == ("HTTP/1.1 200 Fine", b"body")
    assert headers["Content-Length"] == "4"
    assert not isinstance(body, Buffer) or len(body) == 0  # it has been moved


def test_without_a_reason_libevent_has_one_and_without_a_body_there_is_none(
    server: HttpServer,
) -> None:
    status, headers, body = answer(server, lambda request: request.send_reply(404))
    assert (status, body) == ("HTTP/1.1 404 Not Found", b"")
    assert headers["Content-Length"] == "0"


@pytest.mark.parametrize("reason", ["a\r\nb", "a\nb", "a\0b", "\x7f", "€", "\x85"])
def test_a_reason_is_one_line(server: HttpServer, reason: str) -> None:
    def handler(request: HttpServerRequest) -> None:
        for reply in (request.send_reply, request.send_error, request.send_reply_start):
            with pytest.raises(ValueError, match="reason must be one line of Latin-1"):
                reply(200, reason)
        with pytest.raises(TypeError, match="reason must be str"):
            request.send_reply(200, b"OK")  # type: ignore[arg-type]
        request.send_reply(200, "très bien")

    assert answer(server, handler)[0] == "HTTP/1.1 200 très bien"


@pytest.mark.parametrize("code", [99, 100, 101, 103, 199, 1000, -1, "200", None, 200.0])
def test_a_code_is_that_of_a_final_answer(server: HttpServer, code: Any) -> None:
    def handler(request: HttpServerRequest) -> None:
        for reply in (request.send_reply, request.send_error, request.send_reply_start):
            with pytest.raises((ValueError, TypeError), match="code must be"):
                reply(code)
        request.send_reply(299)

    assert answer(server, handler)[0].startswith("HTTP/1.1 299")


def test_text_is_no_body(server: HttpServer) -> None:
    def handler(request: HttpServerRequest) -> None:
        with pytest.raises(TypeError, match="body must be bytes"):
            request.send_reply(200, body="text")  # type: ignore[arg-type]
        request.send_reply(200)

    assert answer(server, handler)[0] == "HTTP/1.1 200 OK"


@pytest.mark.parametrize(("method", "code"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_where_a_reply_has_no_body_none_is_sent(
    base: EventBase, server: HttpServer, method: str, code: int
) -> None:
    replies = iter([code, 200])

    def handler(request: HttpServerRequest) -> None:
        request.output_buffer.add(b"some")
        request.send_reply(next(replies), None, b"body")

    server.set_gencb(handler)
    client = Client(base, where(server))
    client.send(f"{method} / HTTP/1.1\r\n\r\n".encode()).until(lambda got: b"\r\n\r\n" in got)
    client.received = b""
    client.send(get()).rest()
    assert parsed(client.received)[::2] == ("HTTP/1.1 200 OK", b"somebody")


@pytest.mark.parametrize(
    ("kind", "own", "length"), [(bytes, None, "8"), (bytes, "99", "99"), (Buffer, None, "8")]
)
def test_head_is_told_how_long_the_body_would_be(
    server: HttpServer, kind: Callable[[bytes], Any], own: str | None, length: str
) -> None:
    def handler(request: HttpServerRequest) -> None:
        if own is not None:
            request.output_headers["Content-Length"] = own
        request.output_buffer.add(b"some")
        request.send_reply(200, None, kind(b"body"))

    _, headers, got = answer(server, handler, get(method="HEAD"))
    assert (headers["Content-Length"], got) == (length, b"")


def test_head_is_told_no_length_where_there_is_no_body(server: HttpServer) -> None:
    headers = answer(server, lambda request: request.send_reply(200), get(method="HEAD"))[1]
    assert "Content-Length" not in headers


def test_a_request_that_is_closed_is_answered_with_500(server: HttpServer) -> None:
    def handler(request: HttpServerRequest) -> None:
        for _ in range(2):
            request.close()
        assert request.closed

    assert answer(server, handler)[0] == "HTTP/1.1 500 Internal Server Error"


def test_a_request_that_is_closed_after_it_was_answered_in_part_has_its_connection_cut(
    server: HttpServer,
) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.send_reply_start(200)
        request.send_reply_chunk(b"some")
        request.close()

    assert b"0\r\n\r\n" not in answer(server, handler)[2]
    server.set_gencb(lambda request: request.send_reply(200))
    assert ask(server.base, where(server), get())[0] == "HTTP/1.1 200 OK"


def test_an_error_page_is_libevents_own_and_ends_the_connection(server: HttpServer) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.output_headers["X-Mine"] = "1"
        request.output_buffer.add(b"half a page")
        request.send_error(403, "No way")

    request = b"GET / HTTP/1.1\r\n\r\n"
    status, headers, body = answer(server, handler, request)
    assert status == "HTTP/1.1 403 No way"
    assert headers["Connection"] == "close"
    assert "X-Mine" not in headers
    assert b"<H1>No way</H1>" in body
    assert b"half" not in body


def test_what_has_come_can_be_sent_back_without_copying(server: HttpServer) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.send_reply(200, body=request.input_buffer)

    request = get(method="PUT", more="Content-Length: 4\r\n") + b"back"
    assert answer(server, handler, request)[2] == b"back"


def test_a_buffer_that_is_frozen_is_no_answer(server: HttpServer) -> None:
    frozen = Buffer(b"frozen")
    frozen.freeze(True)

    def handler(request: HttpServerRequest) -> None:
        with pytest.raises(LibeventError, match="frozen at its front"):
            request.send_reply(200, body=frozen)
        assert not request.closed
        request.output_headers["X-Still"] = "open"
        request.send_reply_start(200)
        with pytest.raises(LibeventError, match="frozen at its front"):
            request.send_reply_chunk(frozen)
        request.send_reply_chunk(b"x")
        request.send_reply_end()

    headers, body = answer(server, handler)[1:]
    assert headers["X-Still"] == "open"
    assert body == b"1\r\nx\r\n0\r\n\r\n"


def test_a_held_request_that_could_not_be_answered_is_still_answered_for(
    base: EventBase, server: HttpServer
) -> None:
    held: list[HttpServerRequest] = []
    server.set_gencb(held.append)
    client = Client(base, where(server)).send(get())
    run_until(base, lambda: held)
    frozen = Buffer(b"frozen")
    frozen.freeze(True)
    held[0].on_complete = lambda _request: None
    with pytest.raises(LibeventError):
        held[0].send_reply(200, body=frozen)
    held.clear()
    assert client.rest().startswith(b"HTTP/1.1 500")


def test_only_a_server_makes_its_requests() -> None:
    with pytest.raises(TypeError, match="an HttpServer makes"):
        HttpServerRequest()


# Exactly one.


def replies(request: HttpServerRequest) -> list[Callable[[], object]]:
    return [
        lambda: request.send_reply(200),
        lambda: request.send_error(500),
        lambda: request.send_reply_start(200),
        lambda: request.send_reply_chunk(b"more"),
        request.send_reply_end,
        lambda: request.uri,
        lambda: request.connection,
        lambda: request.peer,
        lambda: request.output_buffer,
        lambda: request.input_headers["X"],
    ]


@pytest.mark.parametrize("how", ["reply", "error", "chunks"])
def test_after_an_answer_the_request_is_closed_and_what_was_borrowed_from_it(
    server: HttpServer, how: str
) -> None:
    def handler(request: HttpServerRequest) -> None:
        output, headers = request.output_buffer, request.output_headers
        assert not request.closed
        if how == "reply":
            request.send_reply(200)
        elif how == "error":
            request.send_error(404)
        else:
            request.send_reply_start(200)
            request.send_reply_end()
        assert request.closed
        assert "closed" in repr(request)
        for use in replies(request):
            with pytest.raises(ClosedError, match="has been answered"):
                use()
        for borrowed in output, headers:
            with pytest.raises(ClosedError):
                len(borrowed)

    answer(server, handler)


def test_chunks_come_between_a_start_and_an_end(server: HttpServer) -> None:
    def handler(request: HttpServerRequest) -> None:
        for use in (lambda: request.send_reply_chunk(b"x"), request.send_reply_end):
            with pytest.raises(RuntimeError, match="before send_reply_start"):
                use()
        request.send_reply_start(200)
        for use in (
            lambda: request.send_reply(200),
            lambda: request.send_error(500),
            lambda: request.send_reply_start(200),
        ):
            with pytest.raises(RuntimeError, match="after send_reply_start"):
                use()
        assert request.send_reply_chunk(b"one") is True
        request.send_reply_end()

    assert answer(server, handler)[2] == b"3\r\none\r\n0\r\n\r\n"


@pytest.mark.parametrize("held", [False, True])
def test_a_handler_that_raises_is_answered_for_with_500(
    server: HttpServer, reports: Reports, held: bool
) -> None:
    kept = []

    def handler(request: HttpServerRequest) -> None:
        request.output_buffer.add(b"half")
        if held:
            kept.append(request)
        raise LookupError("in the handler")

    status, _, body = answer(server, handler)
    assert status == "HTTP/1.1 500 Internal Server Error"
    assert b"half" not in body
    assert [str(error) for error in reports] == ["in the handler"]
    assert all(request.closed for request in kept)


def test_without_a_hook_what_a_handler_raises_comes_out_of_the_loop(
    base: EventBase, server: HttpServer
) -> None:
    server.set_gencb(lambda _request: 1 / 0)
    client = Client(base, where(server)).send(get())
    with pytest.raises(ZeroDivisionError):
        client.rest()
    assert client.rest().startswith(b"HTTP/1.1 500")


def test_what_a_handler_raises_after_its_answer_changes_nothing_of_that(
    server: HttpServer, reports: Reports
) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.send_reply(200, body=b"done")
        raise LookupError

    assert answer(server, handler)[2] == b"done"
    assert len(reports) == 1


def test_a_request_that_is_dropped_is_answered_with_500(server: HttpServer) -> None:
    assert answer(server, lambda request: None)[0] == "HTTP/1.1 500 Internal Server Error"


def test_a_request_in_a_cycle_is_answered_when_the_collector_finds_it(
    base: EventBase, server: HttpServer
) -> None:
    seen = []

    def handler(request: HttpServerRequest) -> None:
        cycle: list[Any] = [request]
        cycle.append(cycle)
        seen.append(True)

    server.set_gencb(handler)
    gc.disable()
    try:
        client = Client(base, where(server)).send(get())
        run_until(base, lambda: seen)
        settle(base)
        assert client.poll() == b""
    finally:
        gc.enable()
    gc.collect()
    assert client.rest().startswith(b"HTTP/1.1 500")


def test_a_request_that_is_held_can_be_answered_later(base: EventBase, server: HttpServer) -> None:
    held: list[HttpServerRequest] = []
    server.set_gencb(held.append)
    clients = [Client(base, where(server)).send(get(f"/{number}")) for number in range(3)]
    run_until(base, lambda: len(held) == 3)
    assert [request.closed for request in held] == [False] * 3
    first = held.pop(0)
    base.once(lambda _fd, _what: first.send_reply(200, body=first.uri.encode()), timeout=0.01)
    assert first.uri == "/0"
    answered = clients[int(first.uri[1:])]
    assert parsed(answered.rest())[2] == b"/0"
    for request in held:  # while the loop doesn't run
        request.send_reply(200, body=request.uri.encode())
        assert request.closed
    assert {parsed(client.rest())[2] for client in clients} == {b"/0", b"/1", b"/2"}


# In chunks.


def test_chunks_reach_curl(base: EventBase, server: HttpServer) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.output_buffer.add(b"first,")
        request.send_reply_start(200)
        request.send_reply_chunk(b"one,")
        request.send_reply_chunk(Buffer(b"two,"))
        request.send_reply_chunk(b"")
        request.send_reply_chunk(bytearray(b"three"))
        request.send_reply_end()

    server.set_gencb(handler)
    host, port = where(server)
    url = f"http://{host}:{port}/"
    assert curl(base, url, url) == b"first,one,two,three" * 2
    assert curl(base, "--http1.0", url) == b"first,one,two,three"


@pytest.mark.slow
def test_a_chunks_callback_lets_the_reply_keep_pace_with_the_client(
    base: EventBase, server: HttpServer
) -> None:
    piece, sent = b"#" * 300_000, 0

    def more(request: HttpServerRequest) -> None:
        nonlocal sent
        if sent == 50:
            request.send_reply_end()
        else:
            sent += 1
            request.send_reply_chunk(piece, more)

    def handler(request: HttpServerRequest) -> None:  # nobody else keeps the request
        request.send_reply_start(200)
        more(request)

    server.set_gencb(handler)
    client = Client(base, where(server)).send(get())
    run_until(base, lambda: sent)
    settle(base)
    assert sent < 50  # the client has read nothing
    answer = client.rest()
    assert sent == 50
    assert answer.count(b"#") == 50 * len(piece)
    assert answer.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_callback_of_a_chunk_that_is_not_sent_is_called_too(
    base: EventBase, server: HttpServer, method: str
) -> None:
    data = b"" if method == "GET" else b"some"

    def handler(request: HttpServerRequest) -> None:
        request.send_reply_start(200)
        assert request.send_reply_chunk(data, HttpServerRequest.send_reply_end) is True
        assert not request.closed

    status, _, body = answer(server, handler, get(method=method))
    assert status == "HTTP/1.1 200 OK"
    assert body == (b"0\r\n\r\n" if method == "GET" else b"")


def test_a_chunk_that_is_not_sent_leaves_the_callback_of_the_one_before(
    base: EventBase, server: HttpServer
) -> None:
    told: list[str] = []

    def handler(request: HttpServerRequest) -> None:
        request.send_reply_start(200)
        request.send_reply_chunk(b"one", lambda _: told.append("never"))
        request.send_reply_chunk(b"two", lambda _: told.append("two"))
        request.send_reply_chunk(b"", lambda _: told.append("none"))
        base.once(lambda _fd, _what: request.send_reply_end(), timeout=0.05)

    answer(server, handler)
    assert sorted(told) == ["none", "two"]


def test_a_chunks_callback_keeps_nothing_after_the_end(base: EventBase, server: HttpServer) -> None:
    gone = []

    def handler(request: HttpServerRequest) -> None:
        request.send_reply_start(200)
        request.send_reply_chunk(b"x", lambda _: pytest.fail("the end came first"))
        request.send_reply_end()
        gone.append(weakref.ref(request))

    server.set_gencb(handler)
    client = Client(base, where(server)).send(b"GET / HTTP/1.1\r\n\r\n")
    client.until(lambda received: received.endswith(b"0\r\n\r\n"))
    assert gone[0]() is None
    client.close()


def test_a_chunk_and_its_callback_are_checked(server: HttpServer) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.send_reply_start(200)
        with pytest.raises(TypeError, match="data must be bytes"):
            request.send_reply_chunk("text")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="callback must be callable"):
            request.send_reply_chunk(b"x", 3)  # type: ignore[arg-type]
        request.send_reply_end()

    assert answer(server, handler)[2] == b"0\r\n\r\n"


@pytest.mark.parametrize("raises", [False, True])
def test_a_reply_that_is_dropped_half_way_does_not_look_complete(
    server: HttpServer, reports: Reports, raises: bool
) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.send_reply_start(200)
        request.send_reply_chunk(b"one")
        if raises:
            raise LookupError

    body = answer(server, handler)[2]
    assert not body.endswith(b"0\r\n\r\n")
    assert len(reports) == raises


def test_a_client_that_goes_during_chunks_is_not_sent_any_more(
    base: EventBase, server: HttpServer
) -> None:
    held: list[HttpServerRequest] = []

    def handler(request: HttpServerRequest) -> None:
        request.send_reply_start(200)
        assert request.connection is not None
        held.append(request)

    server.set_gencb(handler)
    client = Client(base, where(server)).send(get())
    run_until(base, lambda: held)
    client.close()
    (request,) = held
    run_until(base, lambda: request.connection is None)
    assert request.uri == "/"
    assert request.send_reply_chunk(b"x", lambda _: pytest.fail("called")) is False
    request.send_reply_end()
    assert request.closed
    settle(base)


# What becomes of it.


def test_on_complete_is_called_when_the_answer_has_been_written(
    base: EventBase, server: HttpServer
) -> None:
    told: list[Any] = []

    def complete(request: HttpServerRequest) -> None:
        told.extend((request.uri, request.response_code, request.input_headers["Host"]))
        for use in replies(request)[:5]:
            with pytest.raises((ClosedError, RuntimeError)):
                use()

    def handler(request: HttpServerRequest) -> None:
        assert request.on_complete is None
        request.on_complete = complete
        assert request.on_complete is complete
        base.once(lambda _fd, _what: request.closed and told.append("closed"))
        request.send_reply(201)

    answer(server, handler)
    run_until(base, lambda: len(told) == 4)
    assert told == ["closed", "/", 201, "a.test"] or told == ["/", 201, "a.test", "closed"]


def test_on_complete_may_be_called_inside_send_reply_end(
    base: EventBase, server: HttpServer
) -> None:
    held: list[HttpServerRequest] = []
    told: list[str] = []

    def handler(request: HttpServerRequest) -> None:
        request.on_complete = lambda request: told.append(request.uri)
        request.send_reply_start(200)
        held.append(request)

    server.set_gencb(handler)
    client = Client(base, where(server)).send(b"GET /x HTTP/1.0\r\n\r\n")
    client.until(lambda received: received)
    held[0].send_reply_end()  # nothing waits to be written: C frees all of it in there
    assert told == ["/x"]
    assert held[0].closed
    client.rest()


@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "closed"])
def test_a_reply_that_has_been_written_ends_at_once_in_the_loop(
    base: EventBase, server: HttpServer, context: dict[str, TlsContext] | None, keeps: bool
) -> None:
    told: list[object] = []
    connections: set[object] = set()

    def end_when_written(request: HttpServerRequest) -> None:
        connection = request.connection
        assert connection is not None
        if connection.bufferevent.output:
            base.once(functools.partial(wait, request), timeout=0.001)
            return
        request.on_complete = lambda request: told.append(request.uri)
        request.send_reply_end()
        told.append("ended")
        assert request.closed
        assert connection.closed == (not keeps)

    def wait(request: HttpServerRequest, _fd: int, _what: EventFlag) -> None:
        end_when_written(request)

    def handler(request: HttpServerRequest) -> None:
        assert request.connection is not None
        connections.add(request.connection.peer)
        request.output_headers["Content-Length"] = "4"
        if not keeps:
            request.output_headers["Connection"] = "close"
        request.send_reply_start(200)
        request.send_reply_chunk(b"body", end_when_written)

    server.set_gencb(handler)
    tls: Any = {}
    if context is not None:
        server.tls = context["server"]
        tls = {"tls": context["client"], "server_hostname": HOST}
    client = HttpConnection(base, *where(server), **tls)
    asked = [Asked(), Asked()]
    for one, uri in zip(asked, ("/a", "/b"), strict=True):
        client.make_request(one.request, HttpCommand.GET, uri)
    run_until(base, lambda: len(told) == 4)
    assert [one.body for one in asked] == [b"body", b"body"]
    assert told == ["/a", "ended", "/b", "ended"]
    assert len(connections) == (1 if keeps else 2)


def test_what_on_complete_raises_is_reported(server: HttpServer, reports: Reports) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.on_complete = lambda _request: 1 / 0
        request.send_reply(200)

    assert answer(server, handler)[0] == "HTTP/1.1 200 OK"
    assert [type(error) for error in reports] == [ZeroDivisionError]


def test_on_close_is_called_once_when_libevent_closes_the_connection(
    base: EventBase, server: HttpServer
) -> None:
    closed: list[HttpServerConnection] = []

    def handler(request: HttpServerRequest) -> None:
        connection = request.connection
        assert connection is not None
        assert connection.on_close is None
        connection.on_close = closed.append
        assert connection.on_close is not None
        request.send_reply(200)

    server.set_gencb(handler)
    client = Client(base, where(server))
    client.send(b"GET / HTTP/1.1\r\n\r\n").until(lambda received: received)
    assert closed == []
    client.close()
    run_until(base, lambda: closed)
    (connection,) = closed
    assert connection.closed
    for use in (lambda: connection.peer, lambda: connection.bufferevent):
        with pytest.raises(ClosedError):
            use()
    connection.close()


def test_a_connection_keeps_its_object_from_one_request_to_the_next(
    base: EventBase, server: HttpServer
) -> None:
    seen: list[HttpServerConnection | None] = []

    def handler(request: HttpServerRequest) -> None:
        seen.append(request.connection)
        request.send_reply(200, body=request.uri.encode())

    server.set_gencb(handler)
    client = Client(base, where(server))
    client.send(b"GET /one HTTP/1.1\r\n\r\n").until(lambda received: b"/one" in received)
    client.send(b"GET /two HTTP/1.1\r\n\r\n").until(lambda received: b"/two" in received)
    assert seen[0] is seen[1] is not None
    client.close()


def test_a_connections_bufferevent_can_be_asked_but_not_used(
    base: EventBase, server: HttpServer
) -> None:
    kept: list[Any] = []

    def handler(request: HttpServerRequest) -> None:
        connection = request.connection
        assert connection is not None
        bev = connection.bufferevent
        assert bev is connection.bufferevent
        assert bev.fd >= 0
        assert len(bev.output) == 0
        for use in (
            bev.close,
            bev.detach,
            lambda: bev.setcb(None, None, None),
            lambda: bev.enable(EventFlag.READ),  # libevent would end the process
            lambda: bev.disable(EventFlag.READ),
            lambda: bev.setwatermark(EventFlag.READ, 1, 0),
            lambda: bev.flush(EventFlag.WRITE),
            lambda: bev.trigger(EventFlag.READ),
            lambda: bev.trigger_event(BufferEventFlag.READING),
            lambda: bev.connect(("127.0.0.1", 1)),
        ):
            with pytest.raises(ValueError, match="belongs to <HttpServerConnection"):
                use()
        kept.extend((bev, bev.output))
        request.send_reply(200)

    answer(server, handler)
    run_until(base, lambda: all(thing.closed for thing in kept))


def test_pipelined_requests_are_answered_in_turn(base: EventBase, server: HttpServer) -> None:
    held: list[HttpServerRequest] = []
    server.set_gencb(held.append)
    client = Client(base, where(server))
    client.send(b"GET /1 HTTP/1.1\r\n\r\n" + get("/2"))
    run_until(base, lambda: held)
    settle(base)
    assert [request.uri for request in held] == ["/1"]
    held.pop().send_reply(200, body=b"first")
    run_until(base, lambda: held)
    held.pop().send_reply(200, body=b"second")
    assert client.rest().index(b"first") < client.received.index(b"second")


def test_a_written_reply_is_complete_though_its_client_closes_at_once(
    base: EventBase, server: HttpServer
) -> None:
    told: list[Any] = []

    def handler(request: HttpServerRequest) -> None:
        request.on_complete = lambda request: told.append(request.uri)
        request.on_end = lambda request: told.append(request.error)
        request.output_headers["Content-Length"] = "4"
        request.send_reply_start(200)
        request.send_reply_chunk(b"body", lambda request: request.send_reply_end())

    address = where(server)

    def client() -> None:
        with connected(address) as sock:
            sock.sendall(get())
            received = b""
            while not received.endswith(b"body"):
                received += sock.recv(4096)

    server.set_gencb(handler)
    count = 100
    thread = threading.Thread(target=lambda: [client() for _ in range(count)])
    thread.start()
    run_until(base, lambda: len(told) == 2 * count)
    thread.join()
    assert told == ["/", None] * count
