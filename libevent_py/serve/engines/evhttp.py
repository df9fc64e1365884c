"""The engine that is libevent's own evhttp, as faithful as can be, within safe limits.

evhttp collects a request's whole body before anybody is asked, notices that a client has left only
while it reads or writes, and can't hand a connection over. `check` refuses what it takes in and
could mean two things; what it changes before we see it is listed in docs/serving.md.

A request's head is taken when it is complete, not with its body: so a client's time for it can be
limited, and ends there.
"""

from __future__ import annotations

import functools
import operator
import os
import re
import socket
import time
from collections.abc import Callable
from typing import Any

from libevent_py._core import convert
from libevent_py.enums import HttpCommand, ListenerOption
from libevent_py.event.base import EventBase
from libevent_py.event.event import Event
from libevent_py.http.packed import HttpRequestSnapshot
from libevent_py.http.server import HttpServer
from libevent_py.http.server_connection import HttpServerConnection
from libevent_py.http.server_request import HttpServerRequest
from libevent_py.listener import Listener
from libevent_py.serve.config import Config
from libevent_py.serve.engine import Application, Engine, Exchange, Headers
from libevent_py.serve.framing import (
    ABSOLUTE,
    CONNECTION,
    CONTENT_LENGTH,
    DATE,
    HOST,
    KINDS,
    PLAIN,
    kind_of,
    length_in,
)

#: The largest body if nothing else is said: all of it is in memory.
MAX_BODY = 16 * 1024 * 1024
#: How much output is kept before `Exchange.send` returns False.
UNSENT = 65536
#: How long a client may take for its first request when the worker ends.
FIRST = 0.5

FOREVER = float("inf")
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
TARGET = re.compile(rb"[!-\"$-~]+")
CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
#: The names of headers so far, checked and in lower case: a client may make up as many as it likes.
NAMES: dict[str, bytes] = {}
MOST_NAMES = 1024
#: The headers that frame a request, or say whose it is.
NOTED = frozenset({b"host", b"content-length", b"transfer-encoding"})
#: Of these evhttp reads no body.
BODILESS = frozenset({"HEAD", "TRACE"})

METHODS = functools.reduce(operator.or_, HttpCommand) & ~HttpCommand.CONNECT


class RefusedError(Exception):
    """A request is refused with a status."""

    def __init__(self, status: int) -> None:
        self.status = status


def name_of(text: str) -> bytes:
    """Check a header's name, remember it, and return it in lower case."""
    name = text.encode("latin-1").lower()
    if TOKEN.fullmatch(name) is None:
        raise RefusedError(400)
    if len(NAMES) < MOST_NAMES:
        NAMES[text] = name
    return name


class Head:
    """What a request's head says, checked: nothing of it could mean two things."""

    __slots__ = ("bodied", "headers", "length", "method", "target", "version")

    def __init__(self, asked: HttpRequestSnapshot, config: Config) -> None:
        """Check what a client has *asked*; raise `RefusedError`."""
        self.method: str = asked.method
        self.version: str = ".".join(map(str, asked.version))
        self.target: bytes = asked.uri.encode("latin-1")
        #: What Content-Length says, or None.
        self.length: int | None = None
        if self.version not in ("1.0", "1.1"):
            raise RefusedError(505)
        if len(asked.headers) > config.max_headers:
            raise RefusedError(431)
        headers: list[tuple[bytes, bytes]] = []
        self.headers: list[tuple[bytes, bytes]] = headers
        hosts = []
        coded = False
        for text, raw in asked.headers:
            name = NAMES.get(text) or name_of(text)
            if not raw.isprintable() and CONTROLS.search(raw) is not None:
                raise RefusedError(400)
            value = raw.encode("latin-1").strip(b" \t")
            headers.append((name, value))
            if name not in NOTED:
                continue
            if name == b"host":
                hosts.append(value)
            elif name == b"content-length":
                if self.length is not None or not (raw.isascii() and raw.isdigit()):
                    raise RefusedError(400)
                self.length = int(raw)
            else:
                if coded or raw.lower() != "chunked":  # with a blank, evhttp doesn't know it
                    raise RefusedError(400)
                coded = True
        #: Whether there is a body, perhaps an empty one.
        self.bodied: bool = coded or bool(self.length)
        if coded and (self.length is not None or self.version == "1.0"):
            raise RefusedError(400)
        if self.method in BODILESS and self.bodied:
            raise RefusedError(400)  # its body would be taken for the next request
        if len(hosts) > 1 or (not hosts and self.version == "1.1"):
            raise RefusedError(400)
        if hosts and HOST.fullmatch(hosts[0]) is None:
            raise RefusedError(400)
        if TARGET.fullmatch(self.target) is None:
            raise RefusedError(400)
        if not self.target.startswith(b"/"):
            self._split_target()

    def _split_target(self) -> None:
        """Take an absolute URI apart, or refuse a target that is none."""
        if self.target == b"*" and self.method == "OPTIONS":
            return
        match = ABSOLUTE.fullmatch(self.target)
        if match is None or HOST.fullmatch(match[1]) is None:
            raise RefusedError(400)
        path = match[2] or b""
        self.target = path if path.startswith(b"/") else b"/" + path
        # RFC 9112, 3.2.2: the authority of an absolute URI replaces Host.
        others = [item for item in self.headers if item[0] != b"host"]
        self.headers = [(b"host", match[1]), *others]


class EvhttpExchange(Exchange):
    """A request that evhttp has read as a whole."""

    __slots__ = ("_body", "_request", "_state", "_waiting")

    # As in the base class, where not all type checkers look for what is set here.
    method: str
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    scheme: str
    memo: dict[str, Any]
    handler: Any
    complete: bool
    gone: bool
    ended: bool
    started: bool
    upgrades: bool
    status: int
    sent: int

    def __init__(self, state: State, request: HttpServerRequest, head: Head, body: bytes) -> None:
        self._state = state
        self._request = request
        self._body = body
        #: Whether the handler waits for `on_writable`.
        self._waiting = False
        self.method = head.method
        self.target = head.target
        self.version = head.version
        self.headers = head.headers
        self.client = state.client
        self.server = state.server
        self.scheme = state.engine.scheme
        self.memo = state.memo
        self.handler = None
        self.complete = True
        self.gone = self.ended = self.started = self.upgrades = False
        self.status = self.sent = 0

    # The request's body.

    def want(self) -> None:
        """Do nothing: all of it is there, and evhttp has sent "100 Continue"."""

    def take(self) -> bytes:
        body, self._body = self._body, b""
        return body

    # The answer.

    def respond(
        self, status: int, headers: Headers, body: bytes, reason: bytes | None = None
    ) -> None:
        self._check_unstarted()
        sent = self._framed(headers, status, len(body))
        if not self.ended:
            self._request.send_reply(status, phrase(reason), body, sent)
        self.started = True
        self.status = status
        if self.method != "HEAD" and status not in (204, 304):
            self.sent = len(body)
        self._end()

    def start(self, status: int, headers: Headers, reason: bytes | None = None) -> None:
        self._check_unstarted()
        sent = self._framed(headers, status, None)
        if not self.ended:
            output = self._request.output_headers
            try:
                for name, value in sent:
                    output.add(name, value)
                self._request.send_reply_start(status, phrase(reason))
            except (ValueError, TypeError):
                output.clear()
                raise
        self.started = True
        self.status = status

    def _check_unstarted(self) -> None:
        if self.started:
            raise RuntimeError("this request has an answer already")

    def _framed(self, headers: Headers, status: int, size: int | None) -> Headers:
        """Return *headers* as evhttp is to send them, which frames a body of *size* itself."""
        kept, length, closes = [], None, self._state.engine.finishing
        for item in headers:
            name = item[0]
            kind = KINDS.get(name)
            if kind is None:
                kind = kind_of(name)
            if kind in (PLAIN, DATE):
                kept.append(item)
            elif kind == CONTENT_LENGTH:
                length = length_in(item[1], length)
            elif kind == CONNECTION and b"close" in item[1].lower():
                closes = True
        if length is not None and status != 204:
            bare = self.method == "HEAD" or status == 304
            if size is not None and size != length and not bare:
                raise ValueError(f"Content-Length is {length}, but the body has {size} bytes")
            kept.append((b"Content-Length", b"%d" % length))
        if closes:
            kept.append((b"Connection", b"close"))
        return kept

    def send(self, data: bytes, more: bool) -> bool:
        if self.ended:
            return True
        if not self.started:
            raise RuntimeError("the answer must be started before its body is sent")
        request = self._request
        try:
            if data:
                request.send_reply_chunk(data, self._written)
                if self.method != "HEAD" and self.status not in (204, 304):
                    self.sent += len(data)
            if not more and not self.ended:
                request.send_reply_end()
        except ValueError:
            self.abort()
            raise
        if not more:
            if not self.ended:
                self._end()
            return True
        connection = None if self.ended else request.connection
        if connection is None or len(connection.bufferevent.output) <= UNSENT:
            return True
        self._waiting = True
        return False

    def _written(self, _request: HttpServerRequest) -> None:
        """Go on after all output has been written."""
        if self._state.parting:
            self._state.close()
        elif self._waiting and not self.ended:
            self._waiting = False
            self.handler.on_writable()

    def upgrade(self, head: bytes) -> None:
        raise RuntimeError("this connection can't be upgraded")

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self._state.ended(self)

    def abort(self) -> None:
        if not self.ended:
            self.gone = True
            self._end()
            self._state.part()

    def fail(self) -> None:
        """Take note that the connection has been closed before the answer was complete."""
        if not self.ended:
            self.gone = True
            self._end()
            handler, self.handler = self.handler, None
            handler.on_gone()


class State:
    """A connection, as the engine knows it."""

    __slots__ = (
        "asked",
        "client",
        "connection",
        "deadline",
        "engine",
        "exchange",
        "head",
        "memo",
        "parting",
        "server",
    )

    def __init__(self, engine: EvhttpEngine, connection: HttpServerConnection) -> None:
        self.engine: EvhttpEngine = engine
        self.connection: HttpServerConnection = connection
        host, port = connection.peer
        #: None for a UNIX socket.
        self.client: tuple[str, int] | None = None if connection.address == "" else (host, port)
        self.server: tuple[str, int | None] | None = engine.server_of(connection)
        self.memo: dict[str, Any] = {}
        #: The head of the request that is being read, what it is refused with, or None.
        self.head: Head | int | None = None
        #: The exchange in flight, or None.
        self.exchange: EvhttpExchange | None = None
        #: Whether there has been a request.
        self.asked: bool = False
        #: Whether it is to be closed as soon as all is written.
        self.parting: bool = False
        #: When the client has to have sent the next request's head, and taken the answer before it.
        self.deadline: float = time.monotonic() + engine.config.header_timeout

    def ended(self, exchange: EvhttpExchange) -> None:
        """Wait for the next request, as an answer is complete, if not yet written."""
        self.exchange = None
        engine = self.engine
        self.deadline = engine.now + engine.config.keep_alive_timeout
        engine.ended(exchange)
        if not exchange.gone:  # else the two would be garbage in a circle, and so all requests
            exchange.handler = None

    def is_writing(self) -> bool:
        """Tell whether an answer is still being written."""
        return len(self.connection.bufferevent.output) > 0

    def late(self) -> None:
        """Close the connection, as its time is over, but not if only the client is slow to read."""
        if self.is_writing():  # `HttpServer.timeout` has an eye on that
            self.deadline = self.engine.now + self.engine.config.keep_alive_timeout
        else:
            self.close()

    def finish(self) -> None:
        """Close when nothing is in flight, as the worker ends."""
        if self.deadline == FOREVER or self.is_writing():
            return
        if self.asked:
            self.close()
        else:
            self.deadline = min(self.deadline, time.monotonic() + FIRST)

    def part(self) -> None:
        """Close the connection when what was sent is written; no request may follow.

        After a part of a body `EvhttpExchange._written` tells of that, after a mere head nobody
        does, and the engine's sweep looks.
        """
        if self.connection.closed or not self.is_writing():
            self.close()
        else:
            self.parting = True

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
        self.closed()

    def closed(self) -> None:
        """Take note that the connection has been closed."""
        exchange = self.exchange
        self.engine.closed(self)
        if exchange is not None:
            exchange.fail()


class Server(HttpServer):
    """A server that tells its engine of each connection as soon as it is there."""

    __slots__ = ("engine",)

    engine: EvhttpEngine

    def _greets(self) -> bool:
        return True

    def _greet(self, connection: HttpServerConnection) -> None:
        super()._greet(connection)
        self.engine.opened(connection)


class EvhttpEngine(Engine):
    """Serves HTTP/1 by evhttp."""

    name = "evhttp"

    def __init__(self, base: EventBase, config: Config, application: Application) -> None:
        super().__init__(base, config, application)
        self.scheme = "http" if self.tls is None else "https"
        self.finishing: bool = False
        self._done: Callable[[], object] | None = None
        self._servers: list[Server] = []
        self._states: dict[HttpServerConnection, State] = {}
        #: What connections of a server are connected to, if it is the same for all.
        self._places: dict[HttpServer, tuple[str, int | None] | None] = {}
        self._most = FOREVER if config.max_requests is None else config.max_requests
        times = config.header_timeout, config.keep_alive_timeout
        self._period = min(1.0, *(seconds / 4 for seconds in times))
        self.now: float = time.monotonic()
        self._sweeper = Event.timer(base, self._sweep)
        self._sweeper.add(self._period)

    def listen(self, sock: socket.socket) -> None:
        config = self.config
        server = Server(self.base)
        server.engine = self
        self._servers.append(server)
        server.default_content_type = None
        server.allowed_methods = METHODS
        server.max_headers_size = config.max_header_size
        server.max_body_size = MAX_BODY if config.max_body is None else config.max_body
        server.timeout = max(config.body_timeout, config.write_timeout)
        if self.tls is not None:
            server.tls = self.tls
        server.on_headers = self._read_head
        server.set_gencb(self._answer)
        name = sock.getsockname()
        if sock.family == socket.AF_UNIX:
            self._places[server] = os.fsdecode(name), None
        else:
            self._places[server] = None if name[0] in ("0.0.0.0", "::") else (name[0], name[1])
        server.bind_listener(Listener.from_fd(self.base, sock, None, options=ListenerOption(0)))

    def server_of(self, connection: HttpServerConnection) -> tuple[str, int | None] | None:
        """Return what *connection* is connected to."""
        place = self._places[connection.server]
        if place is not None:
            return place
        try:
            name = convert._socket_name(connection.bufferevent.fd)
        except OSError:  # the client has gone already
            return None
        return name[0], name[1]  # type: ignore[return-value]

    # Connections.

    def opened(self, connection: HttpServerConnection) -> None:
        """Take note of a new connection."""
        state = State(self, connection)
        self._states[connection] = state
        self.accepted += 1
        self.connections += 1
        connection.on_close = lambda _connection: state.closed()

    def closed(self, state: State) -> None:
        """Forget a connection that has been closed."""
        if self._states.pop(state.connection, None) is not None:
            self.connections -= 1
            self._check_done()

    def _check_done(self) -> None:
        if not self._states and self._done is not None:
            done, self._done = self._done, None
            done()

    def _sweep(self, event: Event, _fd: int, _what: int) -> None:
        """Close the connections whose next request is late."""
        now = self.now = time.monotonic()
        for state in list(self._states.values()):
            if state.parting and not state.is_writing():
                state.close()
            elif state.deadline < now:
                state.late()
            elif self.finishing:
                state.finish()
        event.add(self._period)

    # Requests.

    # hot: both are called for each request.
    def _read_head(self, request: HttpServerRequest) -> None:
        """Check a request's head; it can be refused only when its body has come."""
        connection = request.connection
        state = None if connection is None else self._states.get(connection)
        if state is None:
            return
        state.asked = True
        state.deadline = FOREVER
        try:
            state.head = Head(request.snapshot(), self.config)
        except RefusedError as refused:
            state.head = refused.status

    def _answer(self, request: HttpServerRequest) -> None:
        """Give a request to the application, or refuse it."""
        connection = request.connection
        state = None if connection is None else self._states.get(connection)
        if state is None or state.head is None:  # its connection has just been closed
            request.close()
            return
        head, state.head = state.head, None
        body = b""
        if isinstance(head, Head) and head.bodied:
            body = request.input_buffer.remove()
            if head.length is not None and head.length != len(body):
                head = 400  # evhttp has read its length in another way
        if isinstance(head, int):
            self.refused += 1
            request.send_error(head)
            return
        exchange = state.exchange = EvhttpExchange(state, request, head, body)
        self.requests += 1
        self.in_flight += 1
        if self.in_flight > self._most:
            exchange.handler = NOBODY
            self.refused += 1
            headers = [(b"Content-Type", b"text/plain"), (b"Retry-After", b"1")]
            exchange.respond(503, headers, b"503 Service Unavailable\n")
        else:
            self.application.begin(exchange)

    def ended(self, exchange: Exchange) -> None:
        """Count *exchange* out, and log it."""
        self.in_flight -= 1
        if self.on_end is not None:
            self.on_end(exchange)

    # The end.

    def stop_listening(self) -> None:
        for server in self._servers:
            if not server.closed:
                for bound in server.bound_sockets:
                    bound.close()

    def finish(self, done: Callable[[], object]) -> None:
        self.finishing = True
        self._done = done
        self._period = min(self._period, FIRST / 10)
        self._sweeper.add(self._period)
        for state in list(self._states.values()):
            state.finish()
        self._check_done()

    def close(self) -> None:
        self._sweeper.close()
        for state in list(self._states.values()):
            state.close()
        while self._servers:
            server = self._servers.pop()
            if not server.closed:
                server.close()


class Nobody:
    """The handler of an exchange that no application has."""

    def on_writable(self) -> None:
        pass

    def on_gone(self) -> None:
        pass


NOBODY = Nobody()


def phrase(reason: bytes | None) -> str | None:
    """Return *reason* as evhttp takes it."""
    return None if reason is None else reason.decode("latin-1")
