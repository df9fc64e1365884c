"""The evhttp engine: applications run on it, and what it can't know is as documented."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from libevent_py import libevent_version_number
from tests.kit import hostile_http as hostile
from tests.kit.certificates import Authority
from tests.kit.hostile_serving import EXPECTED as BY_LLHTTP
from tests.kit.hostile_serving import RAW, Seen, check
from tests.kit.serving import GET, rest_of, serving, statuses, until, wait_until

CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"

#: From this version on evhttp wants CR and LF after the size of a chunk.
BEFORE_2_1_13 = 0x02010D00

#: What llhttp refuses and evhttp takes, with what the application sees of it; by kinds, which
#: docs/deployment.md lists.
TAKEN: dict[str, tuple[str, ...]] = {
    "versions": ("a space after the version", "HTTP/4294967297.1", "HTTP/+1.1"),
    "lines that end in LF": ("bare LF throughout", "a bare LF between headers"),
    "folded values": (
        "a folded value",
        "a value folded by a tab",
        "a value folded into nothing",
        "a fold a hundred times over",
    ),
    "texts cut at a NUL": (
        "a NUL in the value",
        "a Content-Length with a NUL",
        "chunked with a NUL behind",
        "a chunk size with a NUL",
    ),
    "sizes of chunks": (
        "a chunk size with a plus",
        "a chunk size with 0x",
        "a chunk size with a space before",
        "a chunk size with a tab before",
        "a chunk size with a space after",
        "a chunk size with words after",
        "a chunk size of minus zero",
        "a chunk size of 100000 zeros",
        "a chunk that ends in LF",
        "a chunk that does not end",
        "a chunk extension after a space",
    ),
    "trailers, which nobody sees": ("a trailer that is a coding", "a trailer that is a length"),
    "upgrades, which are ignored": ("an upgrade to WebSocket",),
}


# Hostile requests.


def test_what_an_application_sees_of_a_malformed_request_has_one_meaning() -> None:
    taken = {name for names in TAKEN.values() for name in names}
    if libevent_version_number < BEFORE_2_1_13:
        taken.add("a chunk size that ends in LF")
    assert taken <= RAW.keys()
    seen = Seen()
    names = "header_timeout", "body_timeout", "keep_alive_timeout", "write_timeout"
    limits = {"max_header_size": hostile.HEADERS, "max_body": hostile.BODY}
    with serving(seen, http="evhttp", **limits, **dict.fromkeys(names, 0.1)) as site:
        found = set()
        for name, raw in RAW.items():
            site.talk(raw)
            for scope, body in seen.requests:
                check(scope)
                length = dict(scope["headers"]).get(b"content-length")
                coded = b"transfer-encoding" in dict(scope["headers"])
                assert len(body) == int(length or 0) or coded, name
            if seen.requests and "200" not in BY_LLHTTP.get(name, "400"):
                found.add(name)
                assert len(seen.requests) == 1, name
                assert seen.requests[0][1] in (b"", b"hello"), name
            seen.requests.clear()
        assert found == taken
        assert statuses(site.talk(CLOSE)) == [200]


def test_a_trailer_is_no_header() -> None:
    seen = Seen()
    raw = POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Admin: yes\r\n\r\n"
    with serving(seen, http="evhttp") as site:
        assert statuses(site.talk(raw)) == [200]
    ((scope, body),) = seen.requests
    assert body == b"hello"
    assert b"x-admin" not in dict(scope["headers"])


def test_an_absolute_uri_is_taken_apart() -> None:
    seen = Seen()
    raw = b"GET http://real.test/path?q HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with serving(seen, http="evhttp") as site:
        assert statuses(site.talk(raw)) == [200]
    scope = seen.requests[0][0]
    assert (scope["raw_path"], scope["query_string"]) == (b"/path", b"q")
    assert dict(scope["headers"])[b"host"] == b"real.test"


# Applications.


@validator
def upper(environ: Any, start_response: Any) -> Iterator[bytes]:
    """Send back the body in capitals, as `wsgiref.validate` watches."""
    start_response("200 Fine", [("Content-Type", "text/plain")])
    return iter([line.upper() for line in environ["wsgi.input"]])


@pytest.mark.parametrize("threads", [0, 2])
def test_a_validated_wsgi_application_gets_and_sends_bodies(threads: int) -> None:
    with serving(upper, http="evhttp", threads=threads) as site:
        got = site.talk(POST + b"Content-Length: 8\r\n\r\none\ntwo\n")
        assert got.startswith(b"HTTP/1.1 200 Fine\r\n")
        assert b"ONE\n" in got and b"TWO\n" in got
        raw = POST + b"Transfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n0\r\n\r\n"
        assert b"ONE\n" in site.talk(raw)


def test_the_environment_says_who_and_where() -> None:
    seen: dict[str, Any] = {}

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.update(environ)
        start_response("200 OK", [])
        return [b""]

    with serving(app, http="evhttp", threads=0) as site, site.connect() as sock:
        sock.sendall(b"GET /a%20b?c HTTP/1.0\r\nX-Name: \xe9\r\n\r\n")
        assert rest_of(sock).startswith(b"HTTP/1.0 200 OK")
        assert (seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/a b", "c")
        assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == (site.host, str(site.port))
        assert (seen["REMOTE_ADDR"], seen["REMOTE_PORT"]) == (
            sock.getsockname()[0],
            str(sock.getsockname()[1]),
        )
        assert (seen["SERVER_PROTOCOL"], seen["HTTP_X_NAME"]) == ("HTTP/1.0", "\xe9")


def answering(*parts: bytes, status: int = 200, headers: Any = ()) -> Any:
    """Return an application that answers with *parts*."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for part in parts[:-1]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": parts[-1]})

    return app


def test_answers_are_framed() -> None:
    with serving(answering(b"hello"), http="evhttp") as site:
        got = site.talk(CLOSE)
        assert b"\r\nContent-Length: 5\r\n" in got and got.endswith(b"\r\n\r\nhello")
        assert b"Content-Type" not in got
        assert site.talk(CLOSE.replace(b"GET", b"HEAD")).endswith(b"\r\n\r\n")
    with serving(answering(b"one", b"", b"two", b""), http="evhttp") as site:
        assert site.talk(CLOSE).endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        assert site.talk(b"GET / HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nonetwo")
        assert site.talk(CLOSE.replace(b"GET", b"HEAD")).endswith(b"\r\n\r\n")
    length = [(b"content-length", b"6"), (b"Transfer-Encoding", b"gzip")]
    with serving(answering(b"one", b"two", headers=length), http="evhttp") as site:
        got = site.talk(CLOSE)
        assert got.endswith(b"\r\n\r\nonetwo")
        assert got.lower().count(b"content-length") == 1 and b"ransfer" not in got
    for status in 204, 304:
        with serving(answering(b"body", status=status), http="evhttp") as site:
            assert site.talk(CLOSE).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "header",
    [(b"na me", b"a"), (b"name", b"a\r\nb: c"), (b"name", b"a\nb"), (b"name", b"a\0b")],
)
def test_a_header_that_cannot_be_sent_is_an_error_of_the_application(
    header: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    for parts in ((b"whole",), (b"in", b"parts")):
        app = answering(*parts, headers=[(b"fine", b"yes"), header])
        with serving(app, http="evhttp") as site:
            got = site.talk(CLOSE)
        assert statuses(got) == [500]
        assert b"fine" not in got
    assert "ValueError" in caplog.text


@pytest.mark.parametrize("length", [b"5", b"7"])
def test_a_body_that_does_not_fit_its_length_is_cut_off(
    length: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    app = answering(b"one", b"two", headers=[(b"content-length", length)])
    with serving(app, http="evhttp") as site:
        body = site.talk(GET).partition(b"\r\n\r\n")[2]  # until the connection is closed
        assert len(body) < int(length)
    assert "Content-Length" in caplog.text


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
@pytest.mark.parametrize("http", ["evhttp", "httptools"])
def test_what_was_sent_before_an_answer_is_torn_is_written(http: str, size: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        part = {"type": "http.response.body", "body": b"x" * size, "more_body": True}
        if size < 1000:
            await send(part)
        else:  # it waits for the client to read
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(send(part), 0.05)
        raise ZeroDivisionError

    with serving(app, http=http) as site, site.connect() as sock:
        sock.sendall(GET)
        time.sleep(0.2)
        got = rest_of(sock)
    head, _, body = got.partition(b"\r\n\r\n")
    assert statuses(head) == [200]
    assert body.count(b"x") == size
    assert not body.endswith(b"0\r\n\r\n")


def test_a_client_that_reads_slowly_makes_the_application_wait() -> None:
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for number in range(400):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            sent.append(number)
        await send({"type": "http.response.body"})

    with serving(app, http="evhttp") as site, site.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.sendall(CLOSE)
        wait_until(lambda: sent)
        before = -1
        while before != len(sent):  # until it has stopped
            before = len(sent)
            time.sleep(0.1)
        assert before < 300
        assert rest_of(sock).count(b"x") == 400 * 65536
        assert len(sent) == 400


def test_a_client_that_leaves_is_seen_once_something_is_sent() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                body = {"type": "http.response.body", "body": b"x" * 1000, "more_body": True}
                await send(body)
                await asyncio.sleep(0.001)
        except OSError:
            told.append((await receive())["type"])
            raise

    with serving(app, http="evhttp") as site:
        with site.connect() as sock:
            sock.sendall(GET)
            until(sock, b"x")
        wait_until(lambda: told == ["http.disconnect"])
        assert told == ["http.disconnect"]


def test_answers_to_pipelined_requests_keep_their_order() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [environ["PATH_INFO"].encode()]

    raw = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(9))
    with serving(app, http="evhttp") as site:
        got = site.talk(raw + CLOSE.replace(b"/ ", b"/9 "))
    assert [part[:2] for part in got.split(b"\r\n\r\n")[1:]] == [b"/%d" % n for n in range(10)]


# Limits.


def test_what_is_too_large_is_refused_before_anybody_is_asked() -> None:
    seen = Seen()
    limits = {"max_header_size": 1000, "max_body": 10, "max_headers": 5}
    with serving(seen, http="evhttp", **limits) as site:
        many = b"".join(b"X%d: y\r\n" % number for number in range(10))
        assert statuses(site.talk(POST + b"X: " + b"y" * 2000 + b"\r\n\r\n")) == [400]
        assert statuses(site.talk(POST + many + b"\r\n")) == [431]
        assert statuses(site.talk(POST + b"Content-Length: 11\r\n\r\n" + b"x" * 11)) == [413]
        assert not seen.requests
        assert statuses(site.talk(POST + b"Content-Length: 10\r\n\r\n" + b"x" * 10)) == [200]


def test_without_a_limit_a_body_has_the_engines_own() -> None:
    with serving(Seen(), http="evhttp") as site:
        raw = POST + b"Content-Length: %d\r\n\r\n" % (16 * 1024 * 1024 + 1)
        assert statuses(site.talk(raw)) == [413]


def test_a_client_that_is_slow_with_its_head_is_let_go() -> None:
    with serving(Seen(), http="evhttp", header_timeout=0.2, keep_alive_timeout=0.2) as site:
        with site.connect() as sock:
            began = time.monotonic()
            assert rest_of(sock) == b""
            assert 0.15 < time.monotonic() - began < 5
        with site.connect() as sock:  # a byte from time to time doesn't help
            end = time.monotonic() + 5
            with pytest.raises(ConnectionError):
                while time.monotonic() < end:
                    sock.sendall(b"G")
                    time.sleep(0.02)
        with site.connect() as sock:
            sock.sendall(GET)
            until(sock, b"fine")
            assert rest_of(sock) == b""


def test_a_request_too_many_gets_503() -> None:
    go = threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        go.wait(10)
        start_response("200 OK", [])
        return [b""]

    settings = {"max_requests": 1, "threads": 2}
    with serving(app, http="evhttp", **settings) as site, site.connect() as first:
        first.sendall(CLOSE)
        time.sleep(0.1)
        got = site.talk(CLOSE)
        assert statuses(got) == [503] and b"Retry-After: 1" in got
        go.set()
        assert statuses(rest_of(first)) == [200]


# The end.


def test_a_request_in_flight_is_finished_and_idle_connections_are_closed() -> None:
    started = threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/slow":
            started.set()
            time.sleep(0.3)
        start_response("200 OK", [])
        return [b"fine"]

    with serving(app, http="evhttp") as site:
        idle, busy, new = site.connect(), site.connect(), site.connect()
        with idle, busy, new:
            idle.sendall(GET)
            until(idle, b"fine")
            busy.sendall(GET.replace(b"/ ", b"/slow "))
            assert started.wait(5)
            site.config.shutdown.set()
            assert rest_of(idle) == b""
            new.sendall(GET)  # was accepted, perhaps, before that
            got = rest_of(busy)
            assert statuses(got) == [200] and b"Connection: close" in got


def test_what_is_logged_says_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "libevent_py.serve.access")
    with serving(answering(b"one", b"two"), http="evhttp", access_log=True) as site:
        site.talk(CLOSE)
        site.talk(CLOSE.replace(b"GET", b"HEAD"))
    assert '"GET / HTTP/1.1" 200 6' in caplog.text
    assert '"HEAD / HTTP/1.1" 200 0' in caplog.text


def test_it_speaks_tls(authority: Authority) -> None:
    server = authority.server
    names = {"tls_cert": str(server.certfile), "tls_key": str(server.keyfile)}
    with serving(Seen(), http="evhttp", **names) as site:
        context = ssl.create_default_context(cafile=str(authority.ca.certfile))
        with context.wrap_socket(site.connect(), server_hostname="localhost") as sock:
            sock.sendall(CLOSE)
            assert b"fine" in rest_of(sock)
