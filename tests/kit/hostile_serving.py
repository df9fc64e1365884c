"""Malformed requests to servers of applications: what llhttp makes of each; what may be seen."""

from __future__ import annotations

from typing import Any

from tests.kit import hostile_http as hostile

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


EXPECTED = {name: outcome for outcome, names in OTHERWISE.items() for name in names}


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
