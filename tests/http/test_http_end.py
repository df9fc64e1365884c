"""HttpServerRequest.on_end: called once however a request ends, with why in `error`."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import ClosedError, EventBase, HttpError, HttpServer, HttpServerRequest
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import reset, run_until, settle
from tests.kit.processes import in_child
from tests.kit.support import run_python
from tests.kit.web import Client, get, where


class Told:
    """What `on_end` has been called with, and what the request said then."""

    def __init__(self) -> None:
        self.errors: list[HttpError | None] = []
        self.uris: list[str] = []
        self.codes: list[int] = []
        self.requests: list[HttpServerRequest] = []

    def __call__(self, request: HttpServerRequest) -> None:
        assert isinstance(request, HttpServerRequest)
        self.errors.append(request.error)
        self.uris.append(request.uri)
        self.codes.append(request.response_code)
        self.requests.append(request)


BIG = bytes(30_000_000)  # more than the kernel takes for one connection

Held = list[HttpServerRequest]


def answer_now(request: HttpServerRequest, held: Held) -> None:
    request.send_reply(200, "OK", b"here you are")


def answer_in_chunks(request: HttpServerRequest, held: Held) -> None:
    request.send_reply_start(200)
    request.send_reply_chunk(b"here ")
    request.send_reply_chunk(b"you are")
    request.send_reply_end()


def answer_with_an_error(request: HttpServerRequest, held: Held) -> None:
    request.send_error(404)


def hold(request: HttpServerRequest, held: Held) -> None:
    held.append(request)


def begin(request: HttpServerRequest, held: Held) -> None:
    request.send_reply_start(200)
    request.send_reply_chunk(b"part")
    held.append(request)


def answer_too_much(request: HttpServerRequest, held: Held) -> None:
    request.send_reply(200, "OK", BIG)


def fail(request: HttpServerRequest, held: Held) -> None:
    raise LookupError("no such thing")


def fail_halfway(request: HttpServerRequest, held: Held) -> None:
    begin(request, held)
    held.clear()
    raise LookupError("no such thing")


def drop(request: HttpServerRequest, held: Held) -> None:
    """Leave it to nobody."""


def drop_halfway(request: HttpServerRequest, held: Held) -> None:
    begin(request, held)
    held.clear()


def close_it(request: HttpServerRequest, held: Held) -> None:
    request.close()


def close_its_connection(request: HttpServerRequest, held: Held) -> None:
    assert request.connection is not None
    request.connection.close()


def close_its_server(request: HttpServerRequest, held: Held) -> None:
    request.server.close()


Then = Callable[[EventBase, HttpServer, Client, Held], object]


def nothing(base: EventBase, server: HttpServer, client: Client, held: Held) -> None:
    """Wait."""


def client_goes(base: EventBase, server: HttpServer, client: Client, held: Held) -> None:
    client.close()


def client_goes_and_is_answered(
    base: EventBase, server: HttpServer, client: Client, held: Held
) -> None:
    """libevent learns of it only when it sends."""
    reset(client.sock)
    request = held.pop()
    request.send_reply_start(200)
    run_until(base, lambda: request.error or not request.send_reply_chunk(b"x" * 9999))
    if not request.closed:
        request.send_reply_end()


def answered_later(base: EventBase, server: HttpServer, client: Client, held: Held) -> None:
    held.pop().send_reply(204)


def connection_closed(base: EventBase, server: HttpServer, client: Client, held: Held) -> None:
    next(iter(server._connections.known.values())).close()


def connection_closed_in_the_loop(
    base: EventBase, server: HttpServer, client: Client, held: Held
) -> None:
    base.defer(connection_closed, base, server, client, held)


def server_closed(base: EventBase, server: HttpServer, client: Client, held: Held) -> None:
    server.close()


def base_closed(base: EventBase, server: HttpServer, client: Client, held: Held) -> None:
    base.close()


def dropped(base: EventBase, server: HttpServer, client: Client, held: Held) -> None:
    held.clear()
    gc.collect()


def request_closed(base: EventBase, server: HttpServer, client: Client, held: Held) -> None:
    held[0].close()


CLIENT, DROPPED, CLOSED = "its client has gone", "it was dropped", "it was closed before"
CONNECTION, SERVER, BASE = "its connection was closed", "its server was closed", "its base was"
RAISED = "its handler raised LookupError"

#: What the handler does, what happens then, and what `error` says at the end.
ENDS: list[tuple[Any, Then, str | None]] = [
    (answer_now, nothing, None),
    (answer_in_chunks, nothing, None),
    (answer_with_an_error, nothing, None),
    (hold, answered_later, None),
    (fail, nothing, RAISED),
    (fail_halfway, nothing, RAISED),
    (drop, nothing, DROPPED),
    (drop_halfway, nothing, DROPPED),
    (hold, dropped, DROPPED),
    (begin, dropped, DROPPED),
    (close_it, nothing, CLOSED),
    (hold, request_closed, CLOSED),
    (begin, request_closed, CLOSED),
    (close_its_connection, nothing, CONNECTION),
    (hold, connection_closed, CONNECTION),
    (begin, connection_closed, CONNECTION),
    (answer_too_much, connection_closed, CONNECTION),
    (hold, connection_closed_in_the_loop, CONNECTION),
    (begin, connection_closed_in_the_loop, CONNECTION),
    (close_its_server, nothing, SERVER),
    (hold, server_closed, SERVER),
    (begin, server_closed, SERVER),
    (answer_too_much, server_closed, SERVER),
    (hold, base_closed, BASE),
    (begin, base_closed, BASE),
    (answer_too_much, base_closed, BASE),
    (begin, client_goes, CLIENT),
    (answer_too_much, client_goes, CLIENT),
    (hold, client_goes_and_is_answered, CLIENT),
]


@pytest.mark.parametrize(
    ("handler", "then", "why"), ENDS, ids=[f"{one.__name__}-{two.__name__}" for one, two, _ in ENDS]
)
def test_each_end_is_told_once(
    base: EventBase, server: HttpServer, handler: Any, then: Then, why: str | None
) -> None:
    told, held = Told(), Held()
    handled: list[Exception | None] = []
    base.on_error = lambda error, source: handled.append(error)

    def on_request(request: HttpServerRequest) -> None:
        request.on_end = told
        assert request.on_end is told
        handled.append(None)
        handler(request, held)

    server.set_gencb(on_request)
    client = Client(base, where(server)).send(get("/it?is=this"))
    run_until(base, lambda: handled)
    settle(base)
    if handler is not answer_too_much:
        client.poll()
    then(base, server, client, held)
    if not base.closed:
        run_until(base, lambda: told.errors)
        settle(base)
    server.close()
    base.close()
    client.close()
    [error] = told.errors
    assert told.uris == ["/it?is=this"]
    if why is None:
        assert error is None
    else:
        assert isinstance(error, HttpError)
        assert str(error).startswith("GET /it?is=this from 127.0.0.1:")
        assert why in str(error)
    expected = [LookupError] if why is RAISED else []
    assert [type(one) for one in handled if one is not None] == expected
    if why is RAISED:
        assert error is not None
        assert error.__cause__ is handled[-1]
    assert told.requests[0].closed


def test_an_answered_request_says_by_what(base: EventBase, server: HttpServer) -> None:
    told = Told()
    server.set_cb("/404", lambda request: request.send_error(404), on_end=told)
    server.set_gencb(lambda request: request.send_reply(201), on_end=told)
    for path in ("/404", "/other"):
        Client(base, where(server)).send(get(path)).rest()
    assert told.codes == [404, 201]
    assert told.errors == [None, None]


def test_each_request_of_a_connection_has_an_end_of_its_own(
    base: EventBase, server: HttpServer
) -> None:
    told = Told()
    server.set_gencb(lambda request: request.send_reply(200, "OK", b"."), on_end=told)
    many = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(100))
    client = Client(base, where(server)).send(many + get("/last"))
    client.rest()
    assert told.uris == [*(f"/{n}" for n in range(100)), "/last"]
    assert told.errors == [None] * 101


def test_a_dropped_request_is_told_of_by_another_object(
    base: EventBase, server: HttpServer
) -> None:
    told = Told()
    server.set_gencb(lambda request: None, on_end=told)
    client = Client(base, where(server)).send(get("/dropped"))
    assert client.rest().startswith(b"HTTP/1.1 500 ")
    assert told.uris == ["/dropped"]
    assert told.codes == [500]


def test_on_complete_comes_before_on_end(base: EventBase, server: HttpServer) -> None:
    order: list[str] = []

    def on_request(request: HttpServerRequest) -> None:
        request.on_end = lambda request: order.append("end")
        request.on_complete = lambda request: order.append("complete")
        request.send_reply(200)

    server.set_gencb(on_request)
    Client(base, where(server)).send(get()).rest()
    assert order == ["complete", "end"]


def test_a_request_whose_client_has_gone_is_still_its_users(
    base: EventBase, server: HttpServer
) -> None:
    told, held = Told(), Held()

    def on_request(request: HttpServerRequest) -> None:
        request.on_end = told
        begin(request, held)

    server.set_gencb(on_request)
    client = Client(base, where(server)).send(get())
    client.until(lambda received: b"part" in received)
    client.close()
    run_until(base, lambda: told.errors)
    [request] = held
    assert not request.closed
    assert request.connection is None
    assert not request.send_reply_chunk(b"more")
    with pytest.raises(RuntimeError, match="has ended"):
        request.on_end = told
    request.send_reply_end()
    assert request.closed
    assert len(told.errors) == 1


def test_setting_it_when_the_client_has_gone_tells_at_once(
    base: EventBase, server: HttpServer
) -> None:
    told, held = Told(), Held()
    server.set_gencb(lambda request: begin(request, held))
    client = Client(base, where(server)).send(get())
    client.until(lambda received: b"part" in received)
    client.close()
    run_until(base, lambda: held[0].connection is None)
    held[0].on_end = told
    assert CLIENT in str(told.errors[0])


def test_setting_it_when_it_is_over_is_refused(base: EventBase, server: HttpServer) -> None:
    held = Held()

    def on_request(request: HttpServerRequest) -> None:
        request.on_complete = late
        held.append(request)
        request.send_reply(200)

    def late(request: HttpServerRequest) -> None:
        with pytest.raises(RuntimeError, match="has ended"):
            request.on_end = print
        held.append(request)

    server.set_gencb(on_request)
    Client(base, where(server)).send(get()).rest()
    assert len(held) == 2
    with pytest.raises(ClosedError):
        held[0].on_end = print


def test_it_can_be_taken_back_and_must_be_callable(base: EventBase, server: HttpServer) -> None:
    told = Told()

    def on_request(request: HttpServerRequest) -> None:
        with pytest.raises(TypeError, match="on_end must be callable"):
            request.on_end = 5  # type: ignore[assignment]
        assert request.on_end is None
        request.on_end = told
        request.on_end = None
        request.send_reply(200)

    server.set_gencb(on_request)
    Client(base, where(server)).send(get()).rest()
    assert told.errors == []
    with pytest.raises(TypeError, match="on_end must be callable"):
        server.set_gencb(on_request, on_end=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="on_end must be callable"):
        server.set_cb("/", on_request, on_end=5)  # type: ignore[arg-type]


def test_what_it_raises_comes_out_of_the_loop(base: EventBase, server: HttpServer) -> None:
    def on_end(request: HttpServerRequest) -> None:
        raise LookupError("on_end")

    server.set_gencb(lambda request: request.send_reply(200), on_end=on_end)
    client = Client(base, where(server)).send(get())
    with pytest.raises(LookupError, match="on_end"):
        client.rest()
    client.close()


@pytest.mark.parametrize("closes", [connection_closed, server_closed, base_closed])
def test_what_it_raises_while_something_is_closed_comes_out_of_that(
    base: EventBase, server: HttpServer, closes: Then
) -> None:
    held = Held()

    def on_end(request: HttpServerRequest) -> None:
        raise LookupError("on_end")

    server.set_gencb(held.append, on_end=on_end)
    client = Client(base, where(server)).send(get())
    run_until(base, lambda: held)
    with pytest.raises(LookupError, match="on_end"):
        closes(base, server, client, held)
    assert held[0].closed
    settle(base) if not base.closed else None
    server.close()
    client.close()


def test_it_can_not_be_answered_inside(base: EventBase, server: HttpServer) -> None:
    held, refused = Held(), []

    def on_end(request: HttpServerRequest) -> None:
        for use in (
            lambda: request.send_reply(200),
            lambda: request.send_error(500),
            lambda: request.send_reply_start(200),
            lambda: request.send_reply_chunk(b"x"),
            lambda: request.send_reply_end(),
        ):
            with pytest.raises(RuntimeError, match="after the request has ended"):
                use()
            refused.append(use)
        request.close()

    server.set_gencb(held.append, on_end=on_end)
    client = Client(base, where(server)).send(get())
    run_until(base, lambda: held)
    connection = held[0].connection
    assert connection is not None
    connection.close()
    assert len(refused) == 5
    assert client.rest() == b""


def test_a_child_is_told_of_nothing_before_reinit(base: EventBase, server: HttpServer) -> None:
    told, held = Told(), Held()
    server.set_gencb(held.append, on_end=told)
    client = Client(base, where(server)).send(get())
    run_until(base, lambda: held)

    def in_it() -> None:
        server.close()
        base.close()
        assert told.errors == []

    in_child(in_it)
    held.pop().send_reply(200)
    client.rest()
    assert told.errors == [None]


@VALGRIND_TAKES_LONG
def test_whatever_is_closed_inside_touches_no_freed_memory(valgrind: bool) -> None:
    code = """
        import gc, sys, time
        from libevent_py import EventBase, HttpServer, LoopFlag
        import socket

        def uses(base, server, request):
            connection = request.connection
            return {
                "connection": lambda: connection and connection.close(),
                "server": server.close,
                "request": request.close,
                "everything": lambda: (connection and connection.close(), server.close()),
                "stream": lambda: setattr(server, "on_headers", id) if not server.closed else 0,
            }

        def close_server(server, held): server.close()
        def close_connection(server, held):
            for one in list(server._connections.known.values()): one.close()
        def drop(server, held): held.clear(); gc.collect()
        def answer(server, held): held.pop().send_reply(200, None, b"x")
        def in_loop(server, held): server.base.defer(close_connection, server, held)

        for closes in (close_server, close_connection, drop, answer, in_loop):
            for name in ("connection", "server", "request", "everything", "stream"):
                with EventBase() as base:
                    server = HttpServer(base)
                    where = server.bind_socket("127.0.0.1", 0).address
                    held, ends = [], []
                    def on_end(request):
                        ends.append(1)
                        uses(base, server, request)[name]()
                    server.set_gencb(held.append, on_end=on_end)
                    socks = [socket.create_connection(where) for _ in range(2)]
                    for sock in socks:
                        sock.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" * 2)
                    until = time.monotonic() + 60
                    while len(held) < 2 and time.monotonic() < until:
                        base.loop(LoopFlag.NONBLOCK)
                    closes(server, held)
                    for _ in range(5):
                        base.loop(LoopFlag.NONBLOCK)
                    for sock in socks:
                        sock.close()
                assert len(ends) >= 1, (closes, name)
        print("done")
    """
    assert run_python(code, valgrind=valgrind) == "done\n"


def test_the_connection_of_a_client_that_has_gone_is_none_in_on_end(
    base: EventBase, server: HttpServer
) -> None:
    """Another object for it would be used when C had freed it."""
    seen: list[Any] = []

    def on_headers(request: HttpServerRequest) -> None:
        request.on_end = lambda request: seen.append(request.connection)

    server.on_headers = on_headers
    client = Client(base, where(server))
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
    settle(base)
    client.close()
    run_until(base, lambda: seen)
    assert seen == [None]


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("further", [0, 1])
@pytest.mark.parametrize("how", ["close", "drop", "raise"])
def test_a_begun_reply_that_is_given_up_ends_though_nothing_is_read(
    base: EventBase, server: HttpServer, how: str, further: int, paused: bool
) -> None:
    """A paused connection, or one whose next request had been read, stayed open for ever."""
    held: list[HttpServerRequest] = []
    ended: list[HttpServerRequest] = []
    base.on_error = lambda error, source: None
    server.set_gencb(held.append, on_end=ended.append)
    client = Client(base, where(server)).send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * (1 + further))
    run_until(base, lambda: held)
    request = held.pop()
    request.send_reply_start(200)
    request.send_reply_chunk(b"part")
    client.until(lambda received: b"part" in received)
    if paused:
        connection = request.connection
        assert connection is not None
        connection.pause()
        del connection
    if how == "close":
        request.close()
    elif how == "raise":
        request.send_reply_chunk(b"more", lambda request: 1 / 0)
    del request
    assert b"0\r\n\r\n" not in client.rest()
    run_until(base, lambda: ended)
    assert ended[0].error is not None
    assert held == []
