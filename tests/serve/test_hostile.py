"""Malformed requests: what an application sees is never ambiguous, and others are served."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.kit import hostile_http as hostile
from tests.kit.serving import GET, Site, rest_of, serving, statuses, until

RAW: dict[str, bytes] = {
    **{name: raw for group in hostile.REFUSED.values() for name, raw in group.items()},
    **{name: served.raw for name, served in hostile.SERVED.items()},
    **hostile.UNFINISHED,
    **hostile.EITHER,
    "RTSP": hostile.line(b"GET / RTSP/1.0"),
    "RTSP by OPTIONS": hostile.line(b"OPTIONS / RTSP/1.1"),
    "ICE": hostile.line(b"SOURCE / ICE/1.0"),
    "a Host with a space": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a Host with a user": b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "a Host with a path alone": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a Host with a port of letters": b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "Host twice by HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
}

#: What isn't refused with 400, by what it gets: the statuses of the answers.
OTHERWISE: dict[str, list[str]] = {
    "408": [
        *("nothing but an empty line", "a hundred empty lines"),
        *("headers that do not end", "headers cut within a name", "headers cut after CR"),
        *("a request line cut", "one byte", "a Content-Length that is too large"),
        *("a chunk cut", "a chunk size cut", "a last chunk alone", "a trailer cut"),
        *("a chunk size of 2**31", "a chunk size of 2**32 and 5", "a chunk size of 2**63 - 1"),
        *("a chunk size of 2**63", "a chunk size of 2**64 - 1", "a trailer without end"),
    ],
    "413": [
        *("a Content-Length of 2**31", "a Content-Length of 2**32 and 5"),
        *("a Content-Length of 2**63 - 1", "a Content-Length of 2**63"),
        *("a Content-Length just too much", "a Content-Length that is too much, with the body"),
        *("chunks too many in sum", "100-continue of too much"),
    ],
    "417": ["an unknown expectation", "an empty expectation"],
    "431": [
        *("a URI too long", "a request line without end", "headers too long in sum"),
        *("a hundred thousand short headers", "a header line without end"),
    ],
    "501": [
        *("chunked with letters behind", "chunked in quotes", "an unknown coding"),
        *("another coding before chunked", "chunked with a parameter"),
        *("CONNECT to a path", "CONNECT to an authority", "ICE"),
    ],
    "505": [
        *("HTTP/0.9 with a path alone", "HTTP/0.9 by name", "HTTP/2.0", "RTSP", "RTSP by OPTIONS"),
    ],
    "400 400": ["an upgrade to WebSocket"],
    "200": [
        *("two empty lines before the request", "a chunk extension", "trailers too many"),
        *("a method that is not allowed", "PATCH, which is not allowed at first"),
        *("three spaces between", "a URI with broken escapes", "a URI with an escaped NUL"),
        *("a URI with escaped line breaks", "a URI that climbs", "an absolute URI"),
        *("two slashes", "three slashes", "a header without a value"),
        *("bytes beyond ASCII in the value", "a name of 8000 letters"),
        *("a Content-Length with spaces before", "a Content-Length with a space after"),
        *("an octal Content-Length", "a POST without a length", "a GET with a body"),
        *("a GET with a request for a body", "a HEAD with a body", "chunked in capitals"),
        *("chunked by a GET", "chunks of a byte, ten thousand", "a last chunk of many zeros"),
        *("a trailer", "a trailer that is a host", "100-continue without a length"),
        *("100-continue with the body there", "100-continue in capitals", "100-continue twice"),
        *("100-continue by HTTP/1.0", "100-continue by GET", "an upgrade to h2c"),
        *("garbage after a request to close", "a request after one to close"),
        *("a request after HTTP/1.0", "chunked with a tab before"),
    ],
    "200 200": [
        *("a request in the body's place", "a smuggled request behind a GET"),
        "empty lines between requests",
    ],
    "200 400": [
        *("a Content-Length that is too small", "a POST without a length, with a body"),
        "garbage after a request",
    ],
    "200 408": ["half a request after a whole one"],
    " ".join(["200"] * 100): ["a hundred requests at once"],
}

#: The bodies of those that are served with one.
BODIES: dict[str, bytes] = {
    **{name: served.body for name, served in hostile.SERVED.items()},
    "a HEAD with a body": b"hello",
    "a chunk extension": b"hello",
    "chunked with a tab before": b"hello",
}


class Seen:
    """An application that answers whatever is a request with 200, and remembers it."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, Any], bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError(scope["type"])
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.requests.append((scope, body))
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"fine"})


@pytest.fixture
def seen() -> Seen:
    return Seen()


LIMITS = {"max_header_size": hostile.HEADERS, "max_body": hostile.BODY}


@pytest.fixture
def site(seen: Seen) -> Any:
    with serving(seen, **LIMITS) as site:
        yield site


EXPECTED = {name: outcome for outcome, names in OTHERWISE.items() for name in names}


def test_every_exception_is_about_a_request_that_there_is() -> None:
    assert EXPECTED.keys() <= RAW.keys()


def is_late(outcome: str) -> bool:
    """Tell whether it takes a timeout to come to *outcome*."""
    return "408" in outcome


def test_a_request_that_does_not_end_is_refused_in_time(seen: Seen) -> None:
    quick = dict.fromkeys(("header_timeout", "body_timeout"), 0.5)
    names = [name for name in RAW if is_late(EXPECTED.get(name, "400"))]
    with serving(seen, **LIMITS, **quick) as site, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(site.connect()) for _ in names]
        for name, sock in zip(names, sockets, strict=True):
            sock.sendall(RAW[name])
        for name, sock in zip(names, sockets, strict=True):
            assert " ".join(map(str, statuses(rest_of(sock)))) == EXPECTED[name], name
    assert [scope["path"] for scope, _ in seen.requests] == ["/next"]


@pytest.mark.parametrize("outcome", ["400", *(each for each in OTHERWISE if not is_late(each))])
def test_a_malformed_request_is_refused_or_has_one_meaning(
    outcome: str, site: Site, seen: Seen
) -> None:
    for name, raw in RAW.items():
        if EXPECTED.get(name, "400") != outcome:
            continue
        got = site.talk(raw, end=True)
        assert " ".join(map(str, statuses(got))) == outcome, name
        assert len(seen.requests) == outcome.count("200"), name
        for scope, _ in seen.requests:
            check(scope)
        assert [body for _, body in seen.requests[:1]] in ([], [BODIES.get(name, b"")]), name
        assert not any(body for _, body in seen.requests[1:]), name
        seen.requests.clear()
    assert statuses(site.talk(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))) == [200]


def check(scope: dict[str, Any]) -> None:
    """See to it that nothing in *scope* could mean two things."""
    names = [name for name, _ in scope["headers"]]
    for name, value in scope["headers"]:
        assert name == name.lower().strip() and name
        assert not set(value) & set(b"\r\n\0")
        assert value == value.strip(b" \t")
    for name in b"host", b"content-length", b"transfer-encoding":
        assert names.count(name) <= 1
    assert not {b"content-length", b"transfer-encoding"} <= set(names)
    assert b"host" in names or scope["http_version"] == "1.0"
    assert scope["raw_path"].startswith(b"/")
    assert scope["path"].startswith("/")


def test_a_head_is_refused_in_whatever_pieces_it_comes(site: Site, seen: Seen) -> None:
    seen.requests.clear()
    for raw in (hostile.header(b"Name : value"), hostile.header(b"Name: value\r\n folded")):
        with site.connect() as sock:
            for byte in raw:
                try:
                    sock.sendall(bytes([byte]))
                except ConnectionError:
                    break
            assert statuses(sock.recv(65536)) == [400]
    assert not seen.requests


def test_a_second_request_is_checked_as_the_first_is(site: Site, seen: Seen) -> None:
    """The engine knows the Host of the first again, and looks at less then."""
    first = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
    for second, status in {
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\nHost: \r\nHost: a\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n": 417,
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n": 501,
        b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n": 400,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi": 200,
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\nHost: a\r\nConnection: close\r\n\r\nhi": 200,
        b"GET / HTTP/1.0\r\n\r\n": 200,
    }.items():
        seen.requests.clear()
        assert statuses(site.talk(first + second)) == [200, status], second
        with site.connect() as sock:
            sock.sendall(first)
            assert statuses(until(sock, b"fine")) == [200]
            sock.sendall(second)
            assert statuses(rest_of(sock)) == [status], second
        assert len(seen.requests) == (4 if status == 200 else 2)


def test_a_request_is_the_same_in_whatever_pieces_it_comes(site: Site, seen: Seen) -> None:
    seen.requests.clear()
    raw = hostile.POST.replace(b"/", b"/a/b?c=d", 1) + (
        b"Name: a value\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: late\r\n\r\n"
    )
    for pieces in [raw], [bytes([byte]) for byte in raw], [raw[:7], raw[7:40], raw[40:]]:
        with site.connect() as sock:
            for piece in pieces:
                sock.sendall(piece)
            assert statuses(sock.recv(65536)) == [200]
    first, *others = [(scope["raw_path"], scope["headers"], body) for scope, body in seen.requests]
    assert first[0] == b"/a/b" and first[2] == b"hello world"
    assert b"trailer" not in dict(first[1])
    assert others == [first, first]
