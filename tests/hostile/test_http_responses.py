"""Malformed HTTP responses: each request fails or is answered, once, and the next is served.

What libevent takes and shouldn't is here, too, as it is. The server closes after each response, as
what would be waited for ends then; and twice it doesn't, to have more than a response in the way.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from libevent_py import (
    EventBase,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    HttpRequestError,
    LoopFlag,
)
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import PATIENCE, run_python

#: What the client takes at most, in bytes.
HEADERS, BODY = 8192, 65536

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"
GOOD = OK + b"Content-Length: 4\r\n\r\ngood"
END = b"0\r\n\r\n"


#: How a request has ended, by a status or an error, and with which body.
Outcome = tuple[int | HttpRequestError | None, bytes]


class Answer(NamedTuple):
    """A response that is taken for one: what the client makes of it."""

    raw: bytes
    status: int = 200
    body: bytes = b"hello"


def line(text: bytes) -> bytes:
    """Return a response with a status line of *text*."""
    return text + b"\r\nContent-Length: 5\r\n\r\nhello"


def header(text: bytes) -> bytes:
    """Return a response with a first header of *text*."""
    return OK + text + b"\r\nContent-Length: 5\r\n\r\nhello"


def length(text: bytes, body: bytes = b"hello") -> bytes:
    """Return a response whose Content-Length is *text*."""
    return OK + b"Content-Length: " + text + b"\r\n\r\n" + body


def coded(headers: bytes, body: bytes = b"5\r\nhello\r\n" + END) -> bytes:
    """Return a response with *headers*, and by default a body in chunks."""
    return OK + headers + b"\r\n\r\n" + body


def chunks(body: bytes) -> bytes:
    """Return a response in chunks, which *body* is said to be."""
    return CHUNKED + body


#: By how the request fails: what is no response to libevent, or none that is whole.
FAILED: dict[HttpRequestError, dict[str, bytes]] = {
    HttpRequestError.EOF: {
        "nothing at all": b"",
        "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x50",
        "frames of HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\0" * 18,
        "a body alone": b"<html>hello</html>",
        "a status line cut": b"HTTP/1.1 2",
        "bare CR throughout": b"HTTP/1.1 200 OK\rContent-Length: 5\r\rhello",
        "headers that do not end": OK + b"Name: value\r\n",
        "headers cut within a name": OK + b"Na",
        "a Content-Length that is too large": length(b"9"),
        "a chunk size without end": chunks(b"1" * 70000),
        "a chunk cut": chunks(b"5\r\nhel"),
        "a chunk size cut": chunks(b"5"),
        "no last chunk": chunks(b"5\r\nhello\r\n"),
        "a last chunk alone": chunks(b"5\r\nhello\r\n0\r\n"),
        "a trailer cut": chunks(b"5\r\nhello\r\n0\r\nX-Tra"),
        "100 and no more": CONTINUE,
    },
    HttpRequestError.INVALID_HEADER: {
        "a negative code": line(b"HTTP/1.1 -200 OK"),
        "a code of two digits": line(b"HTTP/1.1 20 OK"),
        "a code of four digits": line(b"HTTP/1.1 2000 OK"),
        "a code of 2**31": line(b"HTTP/1.1 2147483648 OK"),
        "a code of a hundred digits": line(b"HTTP/1.1 " + b"2" * 100 + b" OK"),
        "the same Content-Length twice": OK
        + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "two Content-Lengths that differ": OK
        + b"Content-Length: 5\r\nContent-Length: 2\r\n\r\nhello",
        "101 that nobody asked for": (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\x81\x05hello"
        ),
        "an empty line": b"\r\n",
        "a hundred empty lines": b"\r\n" * 100,
        "a NUL": b"\0\r\n\r\n",
        "all bytes there are": bytes(range(256)) * 4 + b"\r\n\r\n",
        "an ICY stream": b"ICY 200 OK\r\n\r\nmusic",
        "a greeting of mail": b"220 example.org ESMTP\r\n",
        "a request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "a status line of a version alone": line(b"HTTP/1.1"),
        "a status line without a code": line(b"HTTP/1.1 "),
        "a code of letters": line(b"HTTP/1.1 two OK"),
        "a code of 0": line(b"HTTP/1.1 0 OK"),
        "a code of 000": line(b"HTTP/1.1 000 OK"),
        "two spaces before the code": line(b"HTTP/1.1  200 OK"),
        "tabs between": line(b"HTTP/1.1\t200\tOK"),
        "a space before the version": line(b" HTTP/1.1 200 OK"),
        "HTTP/2.0": line(b"HTTP/2.0 200 OK"),
        "HTTP/9.9": line(b"HTTP/9.9 200 OK"),
        "HTTP/1": line(b"HTTP/1 200 OK"),
        "HTTP/ and nothing": line(b"HTTP/ 200 OK"),
        "http/1.1 in lower case": line(b"http/1.1 200 OK"),
        "a reason too long": line(b"HTTP/1.1 200 " + b"K" * 9000),
        "a status line without end": b"HTTP/1.1 200 " + b"K" * 9000,
        "CR CR LF throughout": b"HTTP/1.1 200 OK\r\r\nContent-Length: 5\r\r\n\r\r\nhello",
        "a header without a colon": header(b"Name value"),
        "a space before the name": header(b" Name: value"),
        "a NUL in the name": header(b"Na\0me: value"),
        "a bare CR in the value": header(b"Name: va\rX-Injected: yes"),
        "a header too long": header(b"Name: " + b"v" * 20000),
        "headers too long in sum": header(b"\r\n".join([b"Name: " + b"v" * 100] * 100)),
        "a hundred thousand short headers": header(b"\r\n".join([b"a:b"] * 100000)),
        "a header line without end": OK + b"Name: " + b"v" * 20000,
        "a fold before any header": OK + b" folded: yes\r\nContent-Length: 5\r\n\r\nhello",
        "a negative Content-Length": length(b"-1"),
        "a hexadecimal Content-Length": length(b"0x5"),
        "a Content-Length with letters behind": length(b"5abc"),
        "a Content-Length of letters": length(b"five"),
        "an empty Content-Length": length(b""),
        "a Content-Length with a comma": length(b"5, 5"),
        "100 with a body": b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello" + HELLO,
    },
    HttpRequestError.DATA_TOO_LONG: {
        "a Content-Length of 2**31": length(b"2147483648"),
        "a Content-Length of 2**32 and 5": length(b"4294967301"),
        "a Content-Length of 2**63 - 1": length(b"9223372036854775807"),
        "a Content-Length of 2**63": length(b"9223372036854775808"),
        "a Content-Length of 2**64 and 5": length(b"18446744073709551621"),
        "a Content-Length of a hundred digits": length(b"9" * 100),
        "a Content-Length just too much": length(b"65537"),
        "a Content-Length that is too much, with the body": length(b"70000", b"x" * 70000),
        "no length at all, and too much": OK + b"\r\n" + b"x" * 100000,
        "a negative chunk size": chunks(b"-5\r\nhello\r\n" + END),
        "a chunk size of letters": chunks(b"xyz\r\nhello\r\n" + END),
        "no chunk size": chunks(b"\r\nhello\r\n" + END),
        "a chunk size with letters behind": chunks(b"5x\r\nhello\r\n" + END),
        "a chunk size of 2**31": chunks(b"80000000\r\nhello"),
        "a chunk size of 2**32 and 5": chunks(b"100000005\r\nhello\r\n" + END),
        "a chunk size of 2**63 - 1": chunks(b"7fffffffffffffff\r\nhello"),
        "a chunk size of 2**64 and 5": chunks(b"10000000000000005\r\nhello\r\n" + END),
        "a chunk size of a hundred digits": chunks(b"f" * 100 + b"\r\nhello"),
        "a chunk longer than its size": chunks(b"2\r\nhello\r\n" + END),
        "chunks too many in sum": chunks((b"1000\r\n" + b"x" * 4096 + b"\r\n") * 20 + END),
        "a trailer without a colon": chunks(b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n"),
        "a trailer without end": chunks(b"5\r\nhello\r\n0\r\nX: " + b"x" * 20000),
    },
}

#: What libevent takes for a response.
ANSWERED: dict[str, Answer] = {
    "a status line without a reason": Answer(line(b"HTTP/1.1 200")),
    "a status line with an empty reason": Answer(line(b"HTTP/1.1 200 ")),
    "a code with letters behind": Answer(line(b"HTTP/1.1 200x OK")),
    "a code with a plus": Answer(line(b"HTTP/1.1 +200 OK")),
    "a code of 999": Answer(line(b"HTTP/1.1 999 OK"), status=999),
    "a code of 2**32 and 200": Answer(line(b"HTTP/1.1 4294967496 OK")),
    "HTTP/0.9": Answer(line(b"HTTP/0.9 200 OK")),
    "HTTP/1.10": Answer(line(b"HTTP/1.10 200 OK")),
    "HTTP/-1.1": Answer(line(b"HTTP/-1.1 200 OK")),
    "HTTP/1.99999999999": Answer(line(b"HTTP/1.99999999999 200 OK")),
    "HTTP/4294967297.1": Answer(line(b"HTTP/4294967297.1 200 OK")),
    "a reason with a NUL": Answer(line(b"HTTP/1.1 200 O\0K")),
    "a reason with control characters": Answer(line(b"HTTP/1.1 200 \x01\x1b\x7f")),
    "a reason with bytes beyond ASCII": Answer(line(b"HTTP/1.1 200 \xff\xfe")),
    "a reason with a bare CR": Answer(line(b"HTTP/1.1 200 O\rK")),
    "bare LF throughout": Answer(b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"),
    "a header of a colon alone": Answer(header(b":")),
    "a header without a name": Answer(header(b": value")),
    "a header without a value": Answer(header(b"Name:")),
    "a space before the colon": Answer(header(b"Name : value")),
    "a NUL in the value": Answer(header(b"Name: va\0lue")),
    "a control character in the name": Answer(header(b"Na\x01me: value")),
    "bytes beyond ASCII in the name": Answer(header(b"N\xe4me: value")),
    "a bare LF between headers": Answer(header(b"Name: value\nX-Injected: yes")),
    "a folded value": Answer(header(b"Name: value\r\n folded")),
    "a fold a hundred times over": Answer(header(b"Name: value" + b"\r\n x" * 100)),
    "Connection of nonsense": Answer(header(b"Connection: ,,;\x01keep-alive;close")),
    "a Content-Length of minus zero": Answer(length(b"-0", b""), body=b""),
    "a Content-Length with a plus": Answer(length(b"+5")),
    "a Content-Length with a NUL": Answer(length(b"5\x005")),
    "a Content-Length that is too small": Answer(length(b"2"), body=b"he"),
    "no length at all": Answer(OK + b"\r\nhello"),
    "no length, but kept alive": Answer(OK + b"Connection: keep-alive\r\n\r\nhello"),
    "an unknown coding": Answer(
        coded(b"Transfer-Encoding: wombat"), body=b"5\r\nhello\r\n0\r\n\r\n"
    ),
    "chunked with letters behind": Answer(
        coded(b"Transfer-Encoding: chunkedx"), body=b"5\r\nhello\r\n0\r\n\r\n"
    ),
    "an empty Transfer-Encoding": Answer(
        coded(b"Transfer-Encoding:"), body=b"5\r\nhello\r\n0\r\n\r\n"
    ),
    "chunked by HTTP/1.0": Answer(
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + END
    ),
    "a chunk size with a plus": Answer(chunks(b"+5\r\nhello\r\n" + END)),
    "a chunk size with 0x": Answer(chunks(b"0x5\r\nhello\r\n" + END)),
    "a chunk size with a space before": Answer(chunks(b" 5\r\nhello\r\n" + END)),
    "a chunk size with a NUL": Answer(chunks(b"5\0\r\nhello\r\n" + END)),
    "a chunk that ends in LF": Answer(chunks(b"5\r\nhello\n" + END)),
    "a chunk that does not end": Answer(chunks(b"5\r\nhello" + END)),
    "a trailer": Answer(chunks(b"5\r\nhello\r\n0\r\nX-Trailer: late\r\n\r\n")),
    "a trailer that is a length": Answer(chunks(b"5\r\nhello\r\n0\r\nContent-Length: 2\r\n\r\n")),
    "a whole response, and garbage behind": Answer(OK + b"Content-Length: 5\r\n\r\nhello\0garbage"),
    "two responses to one request": Answer(HELLO * 2),
    "a hundred responses to one request": Answer(HELLO * 100),
    "100 that nobody waited for": Answer(CONTINUE + HELLO),
    "100 a hundred times": Answer(CONTINUE * 100 + HELLO),
    "a chunk extension": Answer(chunks(b"5;name=value\r\nhello\r\n" + END)),
    "103 before the response": Answer(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + HELLO),
    "204 with a body": Answer(
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", status=204, body=b""
    ),
    "304 with a body": Answer(
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", status=304, body=b""
    ),
    "204 in chunks": Answer(
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + END,
        status=204,
        body=b"",
    ),
    "a redirect to nowhere": Answer(
        b"HTTP/1.1 302 Found\r\nLocation: \r\nContent-Length: 0\r\n\r\n", status=302, body=b""
    ),
}

#: What a library takes that has one of the published holes, and one without refuses, or refuses as
#: something else.
EITHER: dict[str, bytes] = {
    "both lengths": coded(b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
    "both lengths the other way round": coded(b"Transfer-Encoding: chunked\r\nContent-Length: 2"),
    "chunked twice": coded(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    "chunked before another coding": coded(b"Transfer-Encoding: chunked, identity"),
    "a chunk size that ends in LF": chunks(b"5\nhello\r\n" + END),
    "a chunk shorter than its size": chunks(b"9\r\nhello\r\n" + END),
}


FAILURES = {name: (raw, error) for error, group in FAILED.items() for name, raw in group.items()}


class Server:
    """Answers each request with what it is told to, and then closes unless it is told not to."""

    def __init__(self, base: EventBase) -> None:
        self.base = base
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.connection = HttpConnection(base, "127.0.0.1", self.listener.getsockname()[1])
        self.connection.max_headers_size = HEADERS
        self.connection.max_body_size = BODY
        self.peer: socket.socket | None = None

    def close(self) -> None:
        self.connection.close()
        self.hang_up()
        self.listener.close()

    def hang_up(self) -> None:
        if self.peer is not None:
            self.peer.close()
            self.peer = None

    def ask(
        self, raw: bytes, *, command: HttpCommand = HttpCommand.GET, closing: bool = True
    ) -> Outcome:
        """Make a request, answer it with *raw*, and return how it has ended."""
        outcomes: list[Outcome] = []

        def end(request: HttpRequest) -> None:
            error = request.error
            for name in request.input_headers:
                assert request.input_headers.get_all(name)
            _ = request.response_code_line, request.version
            status = request.response_code if error is None else error.code
            outcomes.append((status, bytes(request.input_buffer)))

        request = HttpRequest(end)
        request.output_headers["Host"] = "a"
        self.connection.make_request(request, command, "/")
        asked, left = b"", memoryview(raw)
        limit = time.monotonic() + PATIENCE
        while not outcomes:
            assert time.monotonic() < limit, f"nothing has come of {raw[:100]!r}"
            self.base.loop(LoopFlag.NONBLOCK)
            time.sleep(0.0005)
            with suppress(BlockingIOError):
                if self.peer is None:
                    self.peer, _ = self.listener.accept()
                    self.peer.setblocking(False)
                if not asked.endswith(b"\r\n\r\n"):
                    received = self.peer.recv(65536)
                    if not received:  # of a connection before: there is going to be another
                        self.hang_up()
                        continue
                    asked += received
                elif left:
                    try:
                        left = left[self.peer.send(left) :]
                    except ConnectionError:  # what it has got is enough for the client
                        left = memoryview(b"")
                elif closing:
                    self.hang_up()
                    closing = False
        if closing:
            self.hang_up()
        self.base.loop(LoopFlag.NONBLOCK)
        assert request.connection is None
        (outcome,) = outcomes
        return outcome


@pytest.fixture
def server(base: EventBase) -> Iterator[Server]:
    """A server on loopback, and a client that asks it."""
    server = Server(base)
    yield server
    server.close()


def talk(server: Server, raw: bytes) -> Outcome:
    """Return what becomes of a request that *raw* answers, once the next has been served."""
    outcome = server.ask(raw)
    assert server.ask(GOOD) == (200, b"good")
    return outcome


@pytest.mark.parametrize("name", FAILURES)
def test_what_is_no_whole_response_is_an_error(server: Server, name: str) -> None:
    raw, error = FAILURES[name]
    assert talk(server, raw)[0] is error


@pytest.mark.parametrize("name", ANSWERED)
def test_what_libevent_takes_for_a_response_ends_the_request(server: Server, name: str) -> None:
    raw, status, body = ANSWERED[name]
    assert talk(server, raw) == (status, body)


@pytest.mark.parametrize("name", EITHER)
def test_what_a_hole_lets_through_is_an_error_or_harms_nothing(server: Server, name: str) -> None:
    assert talk(server, EITHER[name])[0] in ANY


#: What may become of that.
ANY = (200, HttpRequestError.INVALID_HEADER, HttpRequestError.DATA_TOO_LONG, HttpRequestError.EOF)


@pytest.mark.parametrize("more", [HELLO, b"\0garbage"], ids=["a response", "garbage"])
def test_what_follows_a_response_is_not_taken_for_the_next(server: Server, more: bytes) -> None:
    assert server.ask(HELLO + more, closing=False) == (200, b"hello")
    assert server.ask(GOOD) == (200, b"good")


def test_a_body_where_there_must_be_none_is_not_taken_for_the_next_response(
    server: Server,
) -> None:
    raw = OK + b"Content-Length: %d\r\n\r\n" % len(HELLO) + HELLO
    assert server.ask(raw, command=HttpCommand.HEAD, closing=False) == (200, b"")
    assert server.ask(GOOD) == (200, b"good")


ALL = """
from libevent_py import EventBase
from tests.hostile.test_http_responses import ANSWERED, ANY, EITHER, FAILURES, GOOD, Server

with EventBase() as base:
    server = Server(base)
    for raw, error in FAILURES.values():
        assert server.ask(raw)[0] is error
    for raw, *outcome in ANSWERED.values():
        assert server.ask(raw) == tuple(outcome)
    for raw in EITHER.values():
        assert server.ask(raw)[0] in ANY
    assert server.ask(GOOD) == (200, b"good")
    server.close()
print("all")
"""


@VALGRIND_TAKES_LONG
def test_none_of_them_touches_memory_that_is_not_the_clients(valgrind: bool) -> None:
    assert run_python(ALL, valgrind=valgrind, stderr=None) == "all\n"


def test_a_library_that_has_all_holes_goes_on_as_well(unpatched: Path) -> None:
    assert run_python(ALL, env={"LD_LIBRARY_PATH": str(unpatched)}) == "all\n"


@pytest.mark.parametrize("how", ["HTTP", "RPC"])
def test_bytes_on_an_idle_connection_don_t_end_the_process_when_the_next_fails(how: str) -> None:
    """Libevent asserts that the connection is idle, if its name can't be looked up once more."""
    run_python(
        f"""
        from libevent_py import (
            BufferEvent, DnsBase, DnsResult, DnsServer, EventBase, HttpCommand, HttpConnection,
            HttpRequest, Listener, RpcPool
        )
        from tests.kit.flags import READ
        from tests.kit.peers import run_until
        from tests.kit.rpc_messages import REQUEST, Kill

        def look_up(request):
            if not told:
                request.add_a_reply(request.questions[0].name, "127.0.0.1", 0)
            request.respond(DnsResult.NOTEXIST if told else DnsResult.NONE)

        def accept(listener, fd, address):
            def answer(bev):
                bev.read()
                bev.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 1\\r\\n\\r\\nx")
                base.once(lambda *_: sent.append(bev.write(b"unasked")), timeout=0.02)

            bevs.append(BufferEvent(base, fd))
            bevs[-1].setcb(answer, None, lambda bev, what: sent.append(what))
            bevs[-1].enable(READ)

        def ask():
            if {how!r} == "RPC":
                pool.call("Message", REQUEST, Kill, told.append)
            else:
                connection.make_request(HttpRequest(told.append), HttpCommand.GET, "/")

        told, sent, bevs = [], [], []
        with EventBase() as base:
            server = DnsServer(base, ("127.0.0.1", 0), look_up)
            dns = DnsBase(base, 0)
            dns.nameserver_sockaddr_add(server.address)
            port = Listener(base, ("127.0.0.1", 0), accept).address[1]
            connection = HttpConnection(base, "a.test", port, dns_base=dns)
            if {how!r} == "RPC":
                pool = RpcPool(base)
                pool.add_connection(connection)
            ask()
            run_until(base, lambda: len(sent) == 2)  # the client has closed the connection
            ask()
            run_until(base, lambda: len(told) == 2)
        """
    )
