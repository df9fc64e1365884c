"""Each request of a client's gets the answer to it, whatever else a server says."""

from __future__ import annotations

import functools
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventOption,
    EventBase,
    Headers,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    HttpRequestError,
)
from tests.kit.certificates import Authority
from tests.kit.http_peers import OK, Asked, Server, ask, client, response, then_close
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import run_until, settle
from tests.kit.support import PATIENCE, run_python
from tests.kit.tls_peers import client_context, server_context

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nContent-Length: 99\r\n\r\n"


def info(code: int, *headers: str) -> bytes:
    """Return an informational response."""
    return "\r\n".join([f"HTTP/1.1 {code} Info", *headers, "", ""]).encode()


def numbered() -> Callable[[BufferEvent, bytes], None]:
    """Return what answers each request by its number, behind other bytes."""
    count = iter(range(1, 100))

    def answer(bev: BufferEvent, before: bytes) -> None:
        bev.write(before + response(b"answer %d" % next(count)))

    return answer


def exchanged(connection: HttpConnection, count: int = 3, **named: Any) -> list[bytes]:
    """Return what the server answers to requests that are all made at once."""
    asked = [Asked(**named).on(connection, f"/{number}") for number in range(count)]
    run_until(connection.base, lambda: all(one.ended for one in asked))
    assert [one.error for one in asked] == [None] * count
    return [one.body for one in asked]


# Informational responses.

BEFORE = {
    "one": HINTS,
    "102": info(102),
    "100 that nobody has waited for": info(100),
    "unknown ones": info(104) + info(199, "X-Unknown: 1"),
    "several": info(100) + HINTS + info(102) + HINTS + info(100),
    "as many as there may be": HINTS * 100,
    "with another framing": info(103, "Transfer-Encoding: chunked", "Connection: close"),
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("by", ["", "TLS"])
def test_an_informational_response_is_not_the_answer(
    base: EventBase, authority: Authority, before: bytes, by: str
) -> None:
    context, tls = None, None
    if by:
        context, tls = server_context(authority), client_context(authority)
    answer = numbered()
    server = Server(base, lambda bev: answer(bev, before), context=context)
    connection = client(base, server, tls=tls)
    assert exchanged(connection) == [b"answer 1", b"answer 2", b"answer 3"]
    assert len(server.connections) == 1
    headers = ask(connection).headers
    assert ("Link", "</a.css>") not in headers
    assert [name for name, _ in headers] == ["Content-Length"]
    connection.close()


def test_it_may_come_in_any_pieces(base: EventBase) -> None:
    def answer(bev: BufferEvent) -> None:
        said = HINTS + info(100) + response(b"whole")

        def say(_fd: int, _what: int, at: int = 0) -> None:
            bev.write(said[at : at + 1])
            if at + 1 < len(said):
                base.once(functools.partial(say, at=at + 1))

        say(0, 0)

    server = Server(base, answer)
    assert exchanged(client(base, server), 2) == [b"whole"] * 2


def test_on_informational_is_told_of_each_with_its_own_headers(base: EventBase) -> None:
    told: list[Any] = []

    def on_informational(request: HttpRequest, code: int, headers: Headers) -> None:
        told.append((code, headers.items()))

    def on_header(request: HttpRequest) -> None:
        told.append((request.response_code, request.input_headers.items()))

    server = Server(base, info(100) + HINTS + info(102, "X: 1", "x: 2") + OK)
    asked = Asked(on_informational=on_informational, on_header=on_header)
    asked.on(client(base, server))
    run_until(base, lambda: asked.ended)
    assert asked.body == b"hello"
    assert told == [
        (100, []),
        (103, [("Link", "</a.css>"), ("Content-Length", "99")]),
        (102, [("X", "1"), ("x", "2")]),
        (200, [("Content-Length", "5")]),
    ]


@pytest.mark.parametrize(
    ("field", "item"),
    [
        ("L nk: 1", ("L nk", "1")),
        ("L\xefnk: \xe4", ("L\xefnk", "\xe4")),
        (": 1", ("", "1")),
        ("Link: 1\r\n 2\r3", ("Link", "1 2 3")),
    ],
)
def test_on_informational_is_told_of_headers_that_are_none(
    base: EventBase, field: str, item: tuple[str, str]
) -> None:
    told: list[Any] = []
    early = f"HTTP/1.1 103 Early Hints\r\n{field}\r\n\r\n".encode("latin-1")
    server = Server(base, early + OK)
    asked = Asked(on_informational=lambda request, code, headers: told.append(headers.items()))
    asked.on(client(base, server))
    run_until(base, lambda: asked.ended)
    assert asked.body == b"hello"
    assert told == [[item]]


def test_what_waits_for_100_continue_is_not_sent_for_another_one(base: EventBase) -> None:
    codes: list[int] = []

    def go_on(bev: BufferEvent) -> None:
        assert server.requests[-1].endswith(b"\r\n\r\n")
        bev.on_read = lambda bev: pytest.fail("the body came too early")
        bev.write(HINTS)
        base.once(lambda fd, what: allow(bev), timeout=0.05)

    def allow(bev: BufferEvent) -> None:
        bev.on_read = lambda bev: bev.write(OK) if bev.read() == b"the body" else None
        bev.write(info(100))

    server = Server(base, go_on)
    asked = Asked(on_informational=lambda request, code, headers: codes.append(code))
    asked.request.output_headers["Expect"] = "100-continue"
    asked.on(client(base, server), command=HttpCommand.POST, body=b"the body")
    run_until(base, lambda: asked.ended)
    assert (asked.code, codes) == (200, [103, 100])


def test_a_flood_of_them_ends_the_request(base: EventBase) -> None:
    server = Server(base, HINTS * 101 + OK, OK)
    connection = client(base, server)
    codes: list[HttpRequestError] = []
    flooded = Asked(on_error=lambda request, code: codes.append(code)).on(connection)
    after = Asked().on(connection)
    run_until(base, lambda: after.ended)
    assert flooded.error.code == HttpRequestError.INVALID_HEADER
    assert codes == [HttpRequestError.INVALID_HEADER]
    assert "more than 100 informational responses" in str(flooded.error)
    assert (after.body, len(server.connections)) == (b"hello", 2)


@pytest.mark.parametrize("what", ["cancel", "close", "raise", "close the request"])
def test_on_informational_may_end_everything(base: EventBase, what: str) -> None:
    server = Server(base, HINTS + OK)
    connection = client(base, server)
    raised: list[Exception] = []
    base.on_error = lambda error, source: raised.append(error)

    def on_informational(request: HttpRequest, code: int, headers: Headers) -> None:
        if what == "cancel":
            request.cancel()
        elif what == "close":
            connection.close()
        elif what == "close the request":
            request.close()
        else:
            raise ZeroDivisionError

    asked = Asked(on_informational=on_informational).on(connection)
    run_until(base, lambda: asked.ended)
    settle(base)
    assert asked.ended == 1
    assert asked.error is not None
    assert [type(error) for error in raised] == ([ZeroDivisionError] if what == "raise" else [])
    if what != "close":
        assert ask(connection).body == b"hello"


@VALGRIND_TAKES_LONG
@pytest.mark.parametrize("what", ["cancel", "close", "drop", "base"])
def test_ending_in_on_informational_is_safe_under_valgrind(what: str, valgrind: bool) -> None:
    run_python(
        """
        import sys
        from libevent_py import EventBase, HttpCommand, HttpConnection, HttpRequest
        from tests.kit.http_peers import OK, Server
        what = sys.argv[1]
        with EventBase() as base:
            server = Server(base, b"HTTP/1.1 103 Hint\\r\\nA: b\\r\\n\\r\\n" * 3 + OK)
            made = [HttpConnection(base, "127.0.0.1", server.port)]
            def informed(request, code, headers):
                if what == "cancel": request.cancel()
                if what == "close": made[0].close()
                if what == "drop": made.clear(); requests.clear()
                if what == "base": base.loopbreak()
            def done(request): ended.append(request.error is None)
            ended = []
            requests = [HttpRequest(done, on_informational=informed) for _ in range(2)]
            for request in requests:
                request.output_headers["Host"] = "h"
                made[0].make_request(request, HttpCommand.GET, "/")
            del request
            base.loopexit(0.5); base.dispatch()
        print(len(ended))
        """,
        what,
        valgrind=valgrind,
    )


# A switch of protocols.


def test_101_is_an_answer_for_who_has_asked_for_it_and_ends_the_connection(
    base: EventBase,
) -> None:
    server = Server(base, info(101, "Upgrade: other") + b"not HTTP any more", OK)
    connection = client(base, server)
    asked = Asked()
    asked.request.output_headers.update({"Upgrade": "other", "Connection": "Upgrade"})
    asked.on(connection)
    after = Asked().on(connection)
    run_until(base, lambda: after.ended)
    assert (asked.code, asked.error) == (101, None)
    assert (after.body, len(server.connections)) == (b"hello", 2)


def test_101_is_an_error_for_who_has_not_asked_for_it(base: EventBase) -> None:
    server = Server(base, info(101) + OK, OK)
    connection = client(base, server)
    asked = ask(connection)
    assert asked.error.code == HttpRequestError.INVALID_HEADER
    assert "switches to another protocol" in str(asked.error)
    assert ask(connection).body == b"hello"
    assert len(server.connections) == 2


# Responses that are longer, shorter or others than they say.

FORGED = response(b"forged")
MISLEADING = {
    "bytes behind it": OK + b"more",
    "a response behind it": OK + FORGED,
    "204 with a body": b"HTTP/1.1 204 No Content\r\nContent-Length: %d\r\n\r\n" % len(FORGED)
    + FORGED,
    "304 with a body": b"HTTP/1.1 304 Not Modified\r\n\r\n" + FORGED,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "close in a list": b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("first", MISLEADING.values(), ids=MISLEADING)
@pytest.mark.parametrize("deferred", [False, True])
def test_after_a_response_that_may_have_left_something_a_new_connection_is_made(
    base: EventBase, first: bytes, deferred: bool
) -> None:
    server = Server(base, first, OK)
    options = BufferEventOption.CLOSE_ON_FREE
    if deferred:
        options |= BufferEventOption.DEFER_CALLBACKS
    connection = client(base, server, bufferevent=BufferEvent(base, options=options))
    one, two = Asked().on(connection, "/1"), Asked().on(connection, "/2")
    run_until(base, lambda: two.ended)
    assert one.error is None
    assert (two.code, two.body) == (200, b"hello")
    assert len(server.connections) == 2


def test_204_that_announces_a_body_ends_the_connection_before_it_comes(base: EventBase) -> None:
    def late(bev: BufferEvent) -> None:
        bev.write(b"HTTP/1.1 204 No Content\r\nContent-Length: %d\r\n\r\n" % len(FORGED))
        base.once(lambda fd, what: None if bev.closed else bev.write(FORGED), timeout=0.02)

    server = Server(base, late, OK)
    connection = client(base, server)
    assert ask(connection).code == 204
    after = ask(connection)
    assert (after.body, len(server.connections)) == (b"hello", 2)


def test_head_s_length_says_nothing_of_what_follows(base: EventBase) -> None:
    server = Server(base, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", OK)
    connection = client(base, server)
    assert ask(connection, command=HttpCommand.HEAD).error is None
    assert ask(connection).body == b"hello"
    assert len(server.connections) == 1


def test_a_response_that_nobody_has_asked_for_is_nobodys(base: EventBase) -> None:
    server = Server(base, OK)
    connection = client(base, server)
    ask(connection)
    server.connections[0].write(FORGED)
    server.connections[0].flush(2)
    deadline = time.monotonic() + PATIENCE
    while server.connections[0].output:  # the server's end only: the client's has not looked yet
        assert time.monotonic() < deadline
        base.loop(3)
    assert ask(connection).body == b"hello"


def test_what_has_come_is_seen_though_the_loop_has_not_been_there(base: EventBase) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = HttpConnection(base, "127.0.0.1", listening.getsockname()[1])
        first = Asked().on(connection)
        run_until(base, lambda: bool(socket_ready(listening)))
        peer, _ = listening.accept()
        with peer:
            peer.sendall(OK)
            run_until(base, lambda: first.ended)
            peer.sendall(FORGED)
            second = Asked().on(connection)  # sent at once, if it is sent on this connection
            run_until(base, lambda: bool(socket_ready(listening)))
            other, _ = listening.accept()
            with other:
                other.sendall(OK)
                run_until(base, lambda: second.ended)
    assert (first.body, second.body) == (b"hello", b"hello")


def socket_ready(sock: Any) -> list[Any]:
    """Return *sock* in a list if there is something to accept or to read."""
    return select.select([sock], [], [], 0)[0]


REFUSED = {
    "two lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
        "",
    ),
    "a length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nhello",
        "",
    ),
    "a negative length": (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", ""),
    "a code of two digits": (b"HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello", "status code"),
    "a code of four digits": (b"HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello", "status code"),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_a_response_whose_end_could_be_anywhere_is_refused(base: EventBase, refused: str) -> None:
    said, text = REFUSED[refused]
    server = Server(base, said, OK)
    connection = client(base, server)
    one, two = Asked().on(connection), Asked().on(connection)
    run_until(base, lambda: two.ended)
    assert one.error.code == HttpRequestError.INVALID_HEADER
    assert text in str(one.error)
    assert (two.body, len(server.connections)) == (b"hello", 2)


@pytest.mark.parametrize("connection_header", ["keep-alive", "x, close", "close", ""])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_body_without_a_length_ends_with_the_connection(
    base: EventBase, connection_header: str, version: str
) -> None:
    said = f"HTTP/{version} 200 OK\r\nConnection: {connection_header}\r\n\r\nto the end"
    server = Server(base, then_close(said.encode()), OK)
    connection = client(base, server)
    assert ask(connection).body == b"to the end"
    assert ask(connection).body == b"hello"


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-",
        HINTS,
        b"",
    ],
)
def test_a_response_that_ends_early_is_none(base: EventBase, said: bytes) -> None:
    server = Server(base, then_close(said), OK)
    connection = client(base, server)
    one, two = Asked().on(connection), Asked().on(connection)
    run_until(base, lambda: two.ended)
    assert one.error.code == HttpRequestError.EOF
    assert two.body == b"hello"


def test_a_refused_connect_has_its_page(base: EventBase) -> None:
    page = response(b"log in first", status="407 Proxy Authentication Required")
    server = Server(base, page, OK)
    connection = client(base, server)
    asked = ask(connection, "a.test:443", command=HttpCommand.CONNECT)
    assert (asked.code, asked.body) == (407, b"log in first")
    assert asked.request.command is HttpCommand.CONNECT
    assert ask(connection).body == b"hello"
    assert len(server.connections) == 1


def test_after_a_connect_the_same_connection_goes_on(base: EventBase) -> None:
    server = Server(base, b"HTTP/1.0 200 Connection established\r\n\r\n", OK)
    connection = client(base, server)
    assert ask(connection, "a.test:443", command=HttpCommand.CONNECT).code == 200
    assert ask(connection).body == b"hello"
    assert len(server.connections) == 1
