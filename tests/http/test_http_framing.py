"""Where a message of HTTP ends: h11 is the judge of what the server and the client send."""

from __future__ import annotations

import dataclasses
import itertools
import socket
from collections.abc import Callable
from typing import Any

import h11
import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    EventBase,
    HttpCommand,
    HttpServer,
    HttpServerRequest,
)
from tests.kit.http_peers import OK, Asked, Server, ask, client
from tests.kit.peers import connected, run_until, settle
from tests.kit.web import Client, where

ALL = HttpCommand(0)
for _command in HttpCommand:
    ALL |= _command

PIECES = [b"hello, ", b"world"]
BODY = b"".join(PIECES)


@pytest.fixture
def server(base: EventBase) -> HttpServer:
    """A server that listens, and has a handler for each method."""
    server = HttpServer(base)
    server.allowed_methods = ALL
    server.bind_socket("127.0.0.1", 0)
    return server


# The server's replies.

VERSIONS = ["1.0", "1.1"]
CONNECTIONS = ["", "keep-alive", "close"]
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"]
STATUSES = [200, 204, 304, 404, 500]
HOWS = ["whole", "chunks", "one chunk", "nothing in chunks", "asked to be chunked"]
HAS_BODY = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@dataclasses.dataclass
class Case:
    """A request, and how it is answered."""

    version: str
    connection: str
    method: str
    status: int
    how: str
    #: Whether the handler says Content-Length itself.
    length: bool

    @property
    def tunnels(self) -> bool:
        return self.method == "CONNECT" and self.status < 300

    @property
    def bare(self) -> bool:
        """Whether the reply has no body."""
        return self.method == "HEAD" or self.status in (204, 304) or self.tunnels

    @property
    def body(self) -> bytes:
        return b"" if self.bare or self.how == "nothing in chunks" else BODY

    @property
    def closes(self) -> bool:
        """Whether the connection has to be closed after the reply."""
        if self.tunnels and self.version == "1.1":  # libevent goes on with HTTP
            return False
        if self.connection == "close" or (self.version == "1.0" and not self.connection):
            return True
        streamed = self.how not in ("whole", "asked to be chunked") and not self.length
        return self.version == "1.0" and streamed and not self.bare

    @property
    def request(self) -> bytes:
        target = "a.test:1" if self.method == "CONNECT" else "/"
        lines = [f"{self.method} {target} HTTP/{self.version}", "Host: a.test"]
        lines += [f"X-How: {self.status},{self.how},{self.length}"]
        lines += [f"Connection: {self.connection}"] if self.connection else []
        content = b""
        if self.method in HAS_BODY:
            content = b"abc"
            lines.append("Content-Length: 3")
        return "\r\n".join([*lines, "", ""]).encode() + content


CASES = [
    Case(*case)
    for case in itertools.product(VERSIONS, CONNECTIONS, METHODS, STATUSES, HOWS, [False, True])
    if not (case[4] == "asked to be chunked" and case[5])
]


def answer_as_asked(request: HttpServerRequest) -> None:
    status, how, length = request.input_headers["X-How"].split(",")
    assert isinstance(request.command, HttpCommand)
    assert bytes(request.input_buffer) == (b"abc" if request.command.name in HAS_BODY else b"")
    pieces = {"nothing in chunks": [], "one chunk": [BODY]}.get(how, PIECES)
    if length == "True":
        request.output_headers["Content-Length"] = str(len(b"".join(pieces)))
    if how == "asked to be chunked":
        request.output_headers["Transfer-Encoding"] = "chunked"
    if how in ("whole", "asked to be chunked"):
        request.send_reply(int(status), None, BODY)
        return
    request.send_reply_start(int(status))
    for piece in pieces:
        request.send_reply_chunk(piece)
    request.send_reply_end()


class Judge:
    """A client that sends requests one after the other, and has h11 read the answers."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = connected(address)
        self.sock.setblocking(False)
        self.ended = False

    def ask(self, request: bytes, method: str) -> None:
        self.sock.sendall(request)
        self.reader = h11.Connection(h11.CLIENT)
        target = "a.test:1" if method == "CONNECT" else "/"
        self.reader.send(h11.Request(method=method, target=target, headers=[("Host", "a.test")]))
        self.reader.send(h11.EndOfMessage())
        self.response: Any = None
        self.body = b""
        self.whole = False

    def poll(self) -> bool:
        """Take what has come; tell whether that is the whole answer."""
        try:
            while not self.ended:
                data = self.sock.recv(65536)
                self.ended = not data
                self.reader.receive_data(data)
        except BlockingIOError:
            pass
        while not self.whole:
            event = self.reader.next_event()
            if event is h11.PAUSED:  # as where CONNECT has been answered
                self.whole = True
            if event in (h11.NEED_DATA, h11.PAUSED):
                break
            if isinstance(event, h11.Response):
                self.response = event
            elif isinstance(event, h11.Data):
                self.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.whole = True
        return self.whole

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.response.headers if key == name]

    def left(self) -> bytes:
        return bytes(self.reader.trailing_data[0])


def check_headers(case: Case, judge: Judge) -> None:
    lengths, codings = judge.values(b"content-length"), judge.values(b"transfer-encoding")
    assert len(lengths) + len(codings) <= 1
    if case.version == "1.0" or case.status == 204 or case.tunnels:
        assert not codings
    if case.status == 204 or case.tunnels:
        assert not lengths
    if case.how == "asked to be chunked" and case.version == "1.1" and not case.bare:
        assert codings == [b"chunked"]
    said = [value.lower() for value in judge.values(b"connection")]
    if case.closes and case.version == "1.1":
        assert said == [b"close"]
    elif case.version == "1.0" and not case.closes and not case.tunnels:
        assert said == [b"keep-alive"]
    else:
        assert b"keep-alive" not in said or not case.closes


def served(base: EventBase, address: tuple[str, int], cases: list[Case]) -> None:
    """Ask each of *cases* on a connection of its own, and once more where that stays open."""
    judges = [Judge(address) for _ in cases]
    again = Case("1.1", "close", "GET", 200, "whole", False)
    try:
        for case, judge in zip(cases, judges, strict=True):
            judge.ask(case.request, case.method)
        run_until(base, lambda: all(judge.poll() for judge in judges))
        for case, judge in zip(cases, judges, strict=True):
            assert (judge.response.status_code, judge.body) == (case.status, case.body), case
            assert judge.response.http_version == case.version.encode(), case
            assert judge.left() == b"", case
            check_headers(case, judge)
            if not case.closes:
                assert not judge.ended, case
                judge.ask(again.request, "GET")
        run_until(base, lambda: all(judge.poll() and judge.ended for judge in judges))
        for case, judge in zip(cases, judges, strict=True):
            if not case.closes:
                assert (judge.response.status_code, judge.body) == (200, BODY), case
    finally:
        for judge in judges:
            judge.sock.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_reply_ends_where_an_independent_reader_sees_it_end(
    base: EventBase, server: HttpServer, version: str, connection: str
) -> None:
    server.set_gencb(answer_as_asked)
    cases = [case for case in CASES if (case.version, case.connection) == (version, connection)]
    assert len(cases) == len(METHODS) * len(STATUSES) * (2 * len(HOWS) - 1)
    for start in range(0, len(cases), 60):
        served(base, where(server), cases[start : start + 60])


# Replies that the handler doesn't make itself.


def raises(request: HttpServerRequest) -> None:
    request.output_headers["Content-Length"] = "99"
    raise ZeroDivisionError


PAGES: dict[str, tuple[int, Callable[[HttpServerRequest], object] | None]] = {
    "there is no handler": (404, None),
    "the method is not allowed": (501, answer_as_asked),
    "the handler raises": (500, raises),
    "the handler drops it": (500, lambda request: None),
    "the handler sends an error": (503, lambda request: request.send_error(503)),
    "the handler sends an error without a body": (304, lambda request: request.send_error(304)),
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_page_of_libevents_own_ends_with_the_connection_for_every_method(
    base: EventBase, server: HttpServer, page: str, version: str
) -> None:
    status, handler = PAGES[page]
    base.on_error = lambda error, source: None
    server.set_gencb(handler)
    if status == 501:
        server.allowed_methods = HttpCommand(0)
    for method, connection in itertools.product(METHODS, CONNECTIONS):
        case = Case(version, connection, method, status, "whole", False)
        judge = Judge(where(server))
        judge.ask(case.request, method)
        run_until(base, lambda judge=judge: judge.poll() and judge.ended)  # type: ignore[misc]
        judge.sock.close()
        assert judge.response.status_code == status, case
        assert bool(judge.body) is (method != "HEAD" and status != 304), case
        assert judge.left() == b"", case
        assert [value.lower() for value in judge.values(b"connection")] == [b"close"], case


# What a handler says of the body must be right.

WRONG_REPLIES = {
    "another length": (
        {"Content-Length": "4"},
        "Content-Length must be 5, the length of the body, not '4'",
    ),
    "no number": ({"Content-Length": "5x"}, "must be a number of bytes, not '5x'"),
    "a signed number": ({"Content-Length": "+5"}, "must be a number of bytes"),
    "a huge number": ({"Content-Length": "9" * 40}, "must be a number of bytes"),
    "another coding": ({"Transfer-Encoding": "gzip"}, "must be 'chunked', once, not 'gzip'"),
    "a coding more": ({"Transfer-Encoding": "gzip, chunked"}, "must be 'chunked', once"),
    "both": ({"Content-Length": "5", "Transfer-Encoding": "chunked"}, "can't be there together"),
}


@pytest.mark.parametrize("wrong", WRONG_REPLIES)
@pytest.mark.parametrize("kind", [bytes, bytearray, Buffer])
def test_a_reply_that_says_something_wrong_of_its_body_is_not_sent(
    base: EventBase, server: HttpServer, wrong: str, kind: Any
) -> None:
    headers, text = WRONG_REPLIES[wrong]

    def handler(request: HttpServerRequest) -> None:
        request.output_headers.update(headers)
        with pytest.raises(ValueError, match=text):
            request.send_reply(200, None, kind(b"12345"))
        if "another length" not in wrong:
            with pytest.raises(ValueError, match=text):
                request.send_reply_start(200)
        request.output_headers.clear()
        request.send_reply(200, None, kind(b"right"))

    server.set_gencb(handler)
    got = Client(base, where(server)).send(b"GET / HTTP/1.0\r\n\r\n").rest()
    assert got.endswith(b"\r\n\r\nright")


def test_two_lengths_are_refused_even_where_they_are_the_same(
    base: EventBase, server: HttpServer
) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.output_headers.add("Content-Length", "5")
        request.output_headers.add("content-length", "5")
        with pytest.raises(ValueError, match="must be there once, not as '5' and '5'"):
            request.send_reply(200, None, b"12345")
        del request.output_headers["Content-Length"]
        request.send_reply(200)

    server.set_gencb(handler)
    assert b"200" in Client(base, where(server)).send(b"GET / HTTP/1.0\r\n\r\n").rest()


def test_what_is_in_the_output_buffer_counts_for_the_length(
    base: EventBase, server: HttpServer
) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.output_headers["Content-Length"] = " 5 "
        request.output_buffer.add(b"123")
        with pytest.raises(ValueError, match="must be 4"):
            request.send_reply(200, None, b"4")
        request.send_reply(200, None, b"45")

    server.set_gencb(handler)
    assert Client(base, where(server)).send(b"GET / HTTP/1.0\r\n\r\n").rest().endswith(b"12345")


def test_chunks_must_add_up_to_the_length(base: EventBase, server: HttpServer) -> None:
    told: list[str] = []

    def handler(request: HttpServerRequest) -> None:
        request.output_headers["Content-Length"] = "10"
        request.output_buffer.add(b"12345678901")
        with pytest.raises(ValueError, match="Content-Length must be 11"):
            request.send_reply_start(200)
        request.output_buffer.drain(9)
        request.send_reply_start(200)
        for data in (b"123456789", Buffer(b"123456789")):
            with pytest.raises(ValueError, match="at most the 8 bytes that the reply's Content"):
                request.send_reply_chunk(data)
        request.send_reply_chunk(b"1234567")
        with pytest.raises(ValueError, match="1 bytes shorter than its Content-Length"):
            request.send_reply_end()
        request.send_reply_chunk(b"8")
        request.send_reply_end()
        told.append("sent")

    server.set_gencb(handler)
    got = Client(base, where(server)).send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").rest()
    assert got.endswith(b"\r\n\r\n0112345678")
    assert told == ["sent"]


def test_a_reply_that_stays_shorter_than_its_length_is_cut_off(
    base: EventBase, server: HttpServer
) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.output_headers["Content-Length"] = "10"
        request.send_reply_start(200)
        request.send_reply_chunk(b"12345")
        request.close()

    server.set_gencb(handler)
    got = Client(base, where(server)).send(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n").rest()
    assert got.count(b"HTTP/1.1") <= 1


def test_a_length_for_head_or_not_modified_may_be_any(base: EventBase, server: HttpServer) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.output_headers["Content-Length"] = "1000"
        request.send_reply(304 if request.uri == "/304" else 200)

    server.set_gencb(handler)
    for line in (b"HEAD /", b"GET /304"):
        got = Client(base, where(server)).send(line + b" HTTP/1.0\r\n\r\n").rest()
        assert b"\r\nContent-Length: 1000\r\n" in got
        assert got.endswith(b"\r\n\r\n")


# Requests that a server could take for more or less than they are.

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(SMUGGLED)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
TWO_MINDED = {
    "a method that there is not": b"FOO / HTTP/1.1\r\n" + LENGTH,
    "an unknown coding": b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n",
    "chunks before there were any": b"POST / HTTP/1.0\r\nConnection: keep-alive\r\n" + CHUNKED,
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 0\r\n" + LENGTH,
    "a length and chunks": b"POST / HTTP/1.1\r\nContent-Length: 5\r\n" + CHUNKED,
    "a length and chunks of HEAD": b"HEAD / HTTP/1.1\r\nContent-Length: 0\r\n" + CHUNKED,
}


@pytest.mark.parametrize("head", TWO_MINDED.values(), ids=TWO_MINDED)
def test_a_request_whose_body_could_be_taken_for_the_next_one_is_refused(
    base: EventBase, server: HttpServer, head: bytes
) -> None:
    asked: list[str] = []

    def handler(request: HttpServerRequest) -> None:
        asked.append(request.uri)
        request.send_reply(200)

    server.set_gencb(handler)
    rest = b"0\r\n\r\n" + SMUGGLED if CHUNKED in head else SMUGGLED
    got = Client(base, where(server)).send(head + b"Host: a.test\r\n\r\n" + rest).rest()
    assert got.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501"))
    assert got.count(b"HTTP/1.") == 1
    assert asked == []


@pytest.mark.parametrize("how", ["whole", "chunks", "error"])
@pytest.mark.parametrize("method", ["HEAD", "TRACE"])
@pytest.mark.parametrize("framing", [LENGTH, CHUNKED], ids=["length", "chunks"])
def test_a_body_that_libevent_leaves_unread_is_never_taken_for_the_next_request(
    base: EventBase, server: HttpServer, method: str, framing: bytes, how: str
) -> None:
    asked: list[str] = []

    def handler(request: HttpServerRequest) -> None:
        asked.append(request.uri)
        if how == "whole":
            request.send_reply(200)
        elif how == "error":
            request.send_error(403)
        else:
            request.send_reply_start(200)
            request.send_reply_chunk(b"chunk")
            base.once(lambda fd, what: request.send_reply_end(), timeout=0.01)

    server.set_gencb(handler)
    head = f"{method} /first HTTP/1.1\r\nHost: a.test\r\n".encode() + framing
    got = Client(base, where(server)).send(head + b"\r\n" + SMUGGLED).rest()
    assert got.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in got
    assert asked == ["/first"]


def test_head_without_a_body_may_say_so(base: EventBase, server: HttpServer) -> None:
    server.set_gencb(lambda request: request.send_reply(200))
    client = Client(base, where(server))
    client.send(b"HEAD / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
    assert client.until(lambda got: b"\r\n\r\n" in got).startswith(b"HTTP/1.1 200")
    client.close()


@pytest.mark.parametrize("how", ["at once", "later", "in chunks", "in chunks later"])
def test_all_that_a_client_has_asked_before_it_closed_its_half_is_answered(
    base: EventBase, server: HttpServer, how: str
) -> None:
    # libevent itself answers the first one only.
    def answer(request: HttpServerRequest) -> None:
        if "chunks" not in how:
            request.send_reply(200, None, request.uri.encode())
            return
        request.send_reply_start(200)
        request.send_reply_chunk(request.uri.encode())
        if how == "in chunks":
            request.send_reply_end()
        else:
            base.once(lambda fd, what: request.send_reply_end(), timeout=0.005)

    def handler(request: HttpServerRequest) -> None:
        if how == "at once":
            answer(request)
        else:
            base.once(lambda fd, what: answer(request), timeout=0.005)

    server.set_gencb(handler)
    client = Client(base, where(server))
    client.send(b"".join(b"GET /no%d HTTP/1.1\r\n\r\n" % number for number in range(5)))
    client.sock.shutdown(socket.SHUT_WR)
    got = client.rest()
    assert [got.count(b"/no%d" % number) for number in range(5)] == [1] * 5
    assert got.count(b"HTTP/1.1 200") == 5


# What the client sends.


class Reader:
    """A server that has h11 read the requests on each connection, and answers them."""

    def __init__(self, base: EventBase) -> None:
        self.requests: list[tuple[Any, bytes]] = []
        self.peers: list[BufferEvent] = []
        self.server = Server(base, OK)
        self.server.listener.callback = self._accept
        self.port = self.server.port

    def _accept(self, listener: Any, fd: int, _address: object) -> None:
        reader = h11.Connection(h11.SERVER)
        bev = BufferEvent(listener.base, fd, on_read=lambda bev: self._read(bev, reader))
        bev.on_event = lambda bev, what: None
        bev.enable(2)
        self.peers.append(bev)

    def _read(self, bev: BufferEvent, reader: Any) -> None:
        reader.receive_data(bev.read())
        while (event := reader.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                self.request, self.body = event, b""
                if reader.they_are_waiting_for_100_continue:
                    head = h11.InformationalResponse(status_code=100, headers=[])
                    bev.write(reader.send(head))
            elif isinstance(event, h11.Data):
                self.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.requests.append((self.request, self.body))
                headers = [("Content-Length", "0" if self.request.method == b"HEAD" else "2")]
                bev.write(reader.send(h11.Response(status_code=400, headers=headers)))
                if self.request.method != b"HEAD":
                    bev.write(reader.send(h11.Data(data=b"ok")))
                bev.write(reader.send(h11.EndOfMessage()) or b"")
                reader.start_next_cycle()


SAID = ["nothing", "the length", "chunked", "waits for 100"]


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("body", [b"", b"hello", b"x" * 100_000], ids=["", "short", "long"])
@pytest.mark.parametrize("command", HttpCommand, ids=lambda command: command.name)
def test_a_request_ends_where_an_independent_reader_sees_it_end(
    base: EventBase, command: HttpCommand, body: bytes, said: str
) -> None:
    reader = Reader(base)
    connection = client(base, reader.server)
    uri = "a.test:1" if command is HttpCommand.CONNECT else "/"
    asked = Asked()
    asked.request.output_headers["Host"] = "a.test"
    if said == "the length":
        asked.request.output_headers["Content-Length"] = str(len(body))
    elif said == "chunked":
        asked.request.output_headers["Transfer-Encoding"] = "Chunked"
    elif said == "waits for 100":
        asked.request.output_headers["Expect"] = "100-continue"
    bodiless = command in (HttpCommand.CONNECT, HttpCommand.TRACE)
    if bodiless and (body or said == "chunked"):
        with pytest.raises(ValueError, match=f"{command.name} must have no body"):
            asked.on(connection, uri, command, body)
        assert not asked.ended
        return
    asked.on(connection, uri, command, body)
    again = Asked().on(connection, "/again", HttpCommand.POST, b"again")
    run_until(base, lambda: again.ended)
    (first, content), (second, more) = reader.requests
    assert (first.method.decode(), content) == (command.name, body)
    assert asked.request.command is command
    names = [name for name, _ in first.headers]
    framed = names.count(b"content-length") + names.count(b"transfer-encoding")
    wants = command in (HttpCommand.POST, HttpCommand.PUT, HttpCommand.PATCH)
    assert framed == (1 if body or wants or said in ("the length", "chunked") else 0)
    assert (b"transfer-encoding" in names) is (said == "chunked")
    assert (second.target, more, again.code) == (b"/again", b"again", 400)
    assert len(reader.peers) == 1
    assert (asked.code, asked.body) == (400, b"" if command is HttpCommand.HEAD else b"ok")


@pytest.mark.parametrize("wrong", WRONG_REPLIES)
def test_a_request_that_says_something_wrong_of_its_body_is_refused(
    base: EventBase, wrong: str
) -> None:
    headers, text = WRONG_REPLIES[wrong]
    server = Server(base, OK)
    connection = client(base, server)
    asked = Asked()
    asked.request.output_headers.update(headers)
    with pytest.raises(ValueError, match=text):
        asked.on(connection, command=HttpCommand.POST, body=b"12345")
    asked.request.output_headers.clear()
    asked.request.output_buffer.add(b"6")
    asked.on(connection, command=HttpCommand.PUT)
    run_until(base, lambda: asked.ended)
    assert server.requests[0].endswith(b"Content-Length: 6\r\n\r\n123456")


def test_the_body_of_a_request_is_fixed_once_it_is_made(base: EventBase) -> None:
    server = Server(base, OK)
    connection = client(base, server)
    first, second = Asked(), Asked()
    first.on(connection, command=HttpCommand.PATCH, body=b"first")
    second.on(connection, command=HttpCommand.DELETE, body=b"second")
    for asked in first, second:
        body = asked.request.output_buffer
        for change in (
            lambda body=body: body.add(b"x"),
            lambda body=body: body.prepend(b"x"),
            lambda body=body: body.drain(1),
            lambda body=body: Buffer().add_buffer(body),
        ):
            with pytest.raises(Exception, match="frozen"):
                change()
        assert len(body) in (5, 6)
    run_until(base, lambda: second.ended)
    assert [request[-6:] for request in server.requests] == [b"\nfirst", b"second"]
    first.request.output_buffer.add(b"it is over")


def test_a_cancelled_requests_body_may_be_changed_again(base: EventBase) -> None:
    connection = client(base, Server(base, OK))
    asked = [Asked().on(connection, command=HttpCommand.PUT, body=b"x") for _ in range(2)]
    for one in asked:
        one.request.cancel()
        one.request.output_buffer.add(b"y")
    assert [one.ended for one in asked] == [1, 1]
    settle(base)


def test_a_request_that_is_tried_again_is_chunked_once(base: EventBase) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    connection = client(base, type("Nobody", (), {"port": port})())
    connection.retries, connection.initial_retry = 1000, 0.01
    asked = Asked()
    asked.request.output_headers["Transfer-Encoding"] = "chunked"
    asked.on(connection, command=HttpCommand.POST, body=b"body")
    settle(base)
    server = Server(base, OK, port=port)
    run_until(base, lambda: asked.ended)
    assert server.requests[0].endswith(b"chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n")


def test_a_body_that_the_server_did_not_wait_for_ends_the_connection(base: EventBase) -> None:
    server = Server(base, OK)
    connection = client(base, server)
    asked = Asked()
    asked.request.output_headers["Expect"] = "100-continue"
    asked.on(connection, command=HttpCommand.POST, body=b"never sent")
    run_until(base, lambda: asked.ended)
    assert ask(connection, "/next").body == b"hello"
    assert len(server.connections) == 2
    assert server.requests[1].startswith(b"GET /next ")
