"""Chunks with what RFC 9112 lets come with them: extensions and trailer fields."""

from __future__ import annotations

import functools
import random

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventOption,
    EventBase,
    HttpCommand,
    HttpRequest,
    HttpRequestError,
    HttpServer,
    HttpServerRequest,
    known_vulnerabilities,
)
from tests.kit.certificates import Authority
from tests.kit.http_peers import OK, Asked, Server, ask, client
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import run_until
from tests.kit.support import run_python
from tests.kit.tls_peers import client_context, server_context
from tests.kit.web import Client, where

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

GOOD = {
    "none": b"5\r\nhello\r\n0\r\n\r\n",
    "a name": b"5;a\r\nhello\r\n0\r\n\r\n",
    "a value": b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "a quoted value": b'5;a="b;c,\xff 9\\"\r\nhello\r\n0\r\n\r\n',
    "several": b"2;a=b;c\r\nhe\r\n3;a\r\nllo\r\n0\r\n\r\n",
    "with spaces": b"5 ; a = b \r\nhello\r\n0\r\n\r\n",
    "spaces only": b"5 \t \r\nhello\r\n0\r\n\r\n",
    "of the last chunk": b"5\r\nhello\r\n0;end=1\r\n\r\n",
    "with a trailer": b"5;a\r\nhello\r\n000;b\r\nX-Trailer: 1;2\r\n\r\n",
    "long": b"5;" + b"x" * 30_000 + b"\r\nhello\r\n0\r\n\r\n",
    "capital digits": b"0005;A\r\nhello\r\n00\r\n\r\n",
    "data that looks like one": b"5;a\r\n5;a\r\n\r\n0;b\r\n\r\n",
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("by", ["", "deferred", "TLS"])
def test_extensions_of_a_response_are_ignored(
    base: EventBase, authority: Authority, name: str, by: str
) -> None:
    context = server_context(authority) if by == "TLS" else None
    tls = client_context(authority) if by == "TLS" else None
    server = Server(base, HEAD + GOOD[name], context=context)
    options = BufferEventOption.CLOSE_ON_FREE | BufferEventOption.DEFER_CALLBACKS
    bev = BufferEvent(base, options=options) if by == "deferred" else None
    connection = client(base, server, tls=tls, bufferevent=bev)
    body = b"5;a\r\n" if "looks" in name else b"hello"
    for _ in range(2):
        asked = ask(connection)
        assert (asked.error, asked.body) == (None, body)
        assert [header for header, _ in asked.headers] == ["Transfer-Encoding"]
    assert len(server.connections) == 1
    connection.close()


@pytest.mark.parametrize("seed", range(5))
def test_they_may_come_in_any_pieces_with_any_data(base: EventBase, seed: int) -> None:
    rng = random.Random(seed)
    body, said = b"", HEAD
    for _ in range(50):
        chunk = rng.choice([b";", b"\r\n", b"0", b"5;a\r\n", b"x"]) * rng.randrange(1, 300)
        extension = rng.choice([b"", b";a", b' ;a="1;2"', b";" + b"y" * 50])
        said += b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk)
        body += chunk
    said += b"0;last\r\nTrailer: 1\r\n\r\n"

    def answer(bev: BufferEvent, at: int = 0) -> None:
        end = at + rng.choice([1, 2, 3, 50, 3000])
        bev.write(said[at:end])
        if end < len(said):
            base.once(lambda fd, what: answer(bev, end))

    server = Server(base, functools.partial(answer))
    connection = client(base, server)
    chunks: list[bytes] = []

    def on_chunk(request: HttpRequest) -> None:
        chunks.append(bytes(request.input_buffer))

    asked = Asked(on_chunk=on_chunk if seed % 2 else None).on(connection)
    again = Asked().on(connection)
    run_until(base, lambda: again.ended)
    assert (asked.error, again.error) == (None, None)
    assert (b"".join(chunks) or asked.body) == again.body == body
    assert len(server.connections) == 1


BAD = {
    "no size": b";a=b\r\nhello\r\n0\r\n\r\n",
    "no number": b"x;a\r\nhello\r\n0\r\n\r\n",
    "a negative size": b"-5;a\r\nhello\r\n0\r\n\r\n",
    "a control character": b"5;a\x01b\r\nhello\r\n0\r\n\r\n",
    "a NUL": b"5;a\0\r\nhello\r\n0\r\n\r\n",
    "a bare line feed": b"5;a\nhello\r\n0\r\n\r\n",
    "a huge size": b"f" * 16 + b";a\r\nhello\r\n0\r\n\r\n",
    "too much": b"5;" + b"x" * 70_000 + b"\r\nhello\r\n0\r\n\r\n",
    "too much in all": (b"1;" + b"x" * 700 + b"\r\nh\r\n") * 100 + b"0\r\n\r\n",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_is_no_extension_is_refused(base: EventBase, bad: bytes) -> None:
    server = Server(base, HEAD + bad, OK)
    connection = client(base, server)
    refused, after = Asked().on(connection), Asked().on(connection)
    run_until(base, lambda: after.ended)
    assert refused.error.code == HttpRequestError.DATA_TOO_LONG
    assert (after.body, len(server.connections)) == (b"hello", 2)


def test_a_bare_carriage_return_ends_no_extension(base: EventBase) -> None:
    server = Server(base, HEAD + b"5;a\rb\r\nhello\r\n0\r\n\r\n", OK)
    connection = client(base, server)
    refused, after = Asked().on(connection), Asked().on(connection)
    run_until(base, lambda: after.ended)
    assert refused.error is not None
    assert after.body == b"hello"


def test_the_body_s_limit_counts_no_extensions(base: EventBase) -> None:
    server = Server(base, HEAD + GOOD["long"])
    connection = client(base, server)
    connection.max_body_size = 5
    assert ask(connection).body == b"hello"
    connection.max_body_size = 4
    assert ask(connection).error.code == HttpRequestError.DATA_TOO_LONG


def test_a_body_with_a_length_is_left_alone(base: EventBase) -> None:
    body = GOOD["several"]
    said = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    connection = client(base, Server(base, said))
    assert ask(connection).body == body
    server = Server(base, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert ask(client(base, server), command=HttpCommand.HEAD).error is None


def test_extensions_in_a_request_are_refused_as_libevent_does(base: EventBase) -> None:
    server = HttpServer(base)
    server.bind_socket("127.0.0.1", 0)
    server.set_gencb(lambda request: request.send_reply(200))
    head = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = Client(base, where(server)).send(head + GOOD["a value"]).rest()
    assert got.startswith(b"HTTP/1.1 413 ")
    assert got.count(b"HTTP/1.1") == 1


def test_trailer_fields_become_no_headers_where_libevent_is_mended(base: EventBase) -> None:
    server = HttpServer(base)
    server.bind_socket("127.0.0.1", 0)
    seen: list[list[str]] = []

    def handler(request: HttpServerRequest) -> None:
        seen.append(request.input_headers.keys())
        request.send_reply(200)

    server.set_gencb(handler)
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunks = b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"
    Client(base, where(server)).send(head + chunks).rest()
    answered = ask(client(base, Server(base, HEAD + chunks)))
    hole = next(hole for hole in known_vulnerabilities() if hole.id == "CVE-2026-63379")
    trailer = [] if hole.state == "fixed" else ["X-Trailer"]
    assert seen == [["Transfer-Encoding", "Connection", *trailer]]
    assert [name for name, _ in answered.headers] == ["Transfer-Encoding", *trailer]


@VALGRIND_TAKES_LONG
def test_the_filter_touches_no_memory_that_is_not_its_own(valgrind: bool) -> None:
    run_python(
        """
        from libevent_py import *
        from tests.kit.http_peers import *
        from tests.http.test_http_chunks import BAD, GOOD, HEAD
        with EventBase() as base:
            for said in (*GOOD.values(), *BAD.values(), GOOD["several"][:9], b"5;a"):
                server = Server(base, then_close(HEAD + said))
                connection = client(base, server)
                ask(connection)
                def on_chunk(request): request.cancel() if end == "cancel" else connection.close()
                for end in "cancel", "close":
                    asked = Asked(on_chunk=on_chunk).on(connection)
                    run_until(base, lambda: asked.ended)
                server.close()
        """,
        valgrind=valgrind,
    )
