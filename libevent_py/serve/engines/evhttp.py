"""The engine that is libevent's own evhttp, as faithful as can be, within safe limits.

evhttp collects a request's whole body before anybody is asked, notices that a client has left only
while it reads or writes, and can't hand a connection over. `check` refuses what it takes in and
could mean two things; what it changes before we see it is listed in docs/serving.md.

A request's head is taken when it is complete, not with its body: evhttp would add the trailers to
the headers.
"""

from __future__ import annotations

import functools
import operator
import os
import re
import socket
import time
from collections.abc import Callable

from libevent_py._core import convert
from libevent_py.enums import HttpCommand, ListenerOption
from libevent_py.errors import ClosedError
from libevent_py.event.base import EventBase
from libevent_py.event.event import Event
from libevent_py.http.packed import HttpRequestSnapshot
from libevent_py.http.server import HttpServer
from libevent_py.http.server_connection import HttpServerConnection
from libevent_py.http.server_request import HttpServerRequest
from libevent_py.listener import Listener
from libevent_py.serve.config import Config
from libevent_py.serve.engine import Application, Engine, Exchange, Headers, logger
from libevent_py.serve.framing import ABSOLUTE, HOST, length_in

#: The largest body if nothing else is said: all of it is in memory.
MAX_BODY = 16 * 1024 * 1024
#: How much output is kept before `Exchange.send` returns False.
UNSENT = 65536
#: How long a client may take for its first request when the worker ends.
FIRST = 0.5

FOREVER = float("inf")
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
TARGET = re.compile(rb"[!-\"$-~]+")
CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
#: Of these evhttp reads no body.
BODILESS = frozenset({"HEAD", "TRACE"})
#: Headers of an answer that are the engine's.
OWN = frozenset({b"transfer-encoding", b"connection", b"keep-alive", b"content-length"})

METHODS = functools.reduce(operator.or_, HttpCommand) & ~HttpCommand.CONNECT


class RefusedError(Exception):
    """A request is refused with a status."""

    def __init__(self, status: int) -> None:
        self.status = status


class Head:
    """What a request's head says, checked: nothing of it could mean two things."""

    __slots__ = ("headers", "length", "method", "target", "version")

    def __init__(self, asked: HttpRequestSnapshot, config: Config) -> None:
        """Check what a client has *asked*; raise `RefusedError`."""
        self.method = asked.method
        self.version = ".".join(map(str, asked.version))
        self.target = asked.uri.encode("latin-1")
        #: What Content-Length says, or None.
        self.length: int | None = None
        if self.version not in ("1.0", "1.1"):
            raise RefusedError(505)
        if len(asked.headers) > config.max_headers:
            raise RefusedError(431)
        self.headers = [
            (name.encode("latin-1").lower(), value.encode("latin-1").strip(b" \t"))
            for name, value in asked.headers
        ]
        hosts = []
        coded = False
        for (name, value), (_, raw) in zip(self.headers, asked.headers, strict=True):
            if TOKEN.fullmatch(name) is None or CONTROLS.search(value) is not None:
                raise RefusedError(400)
            if name == b"host":
                hosts.append(value)
            elif name == b"content-length":
                if self.length is not None or not (raw.isascii() and raw.isdigit()):
                    raise RefusedError(400)
                self.length = int(raw)
            elif name == b"transfer-encoding":
                if coded or raw.lower() != "chunked":  # with a blank, evhttp doesn't know it
                    raise RefusedError(400)
                coded = True
        if coded and (self.length is not None or self.version == "1.0"):
            raise RefusedError(400)
        if self.method in BODILESS and (coded or self.length):
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
            name, value = item
            kind = name.lower()
            if kind not in OWN:
                kept.append(item)
            elif kind == b"content-length":
                number = length_in(value)
                if length is not None and number != length:
                    raise ValueError(f"Content-Length is both {length} and {number}")
                length = number
            elif kind == b"connection" and b"close" in value.lower():
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
        if self._waiting and not self.ended:
            self._waiting = False
            self.handler.on_writable()

    def upgrade(self, head: bytes) -> None:
        raise RuntimeError("this connection can't be upgraded")

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self._state.engine.ended(self)

    def abort(self) -> None:
        if not self.ended:
            self.gone = True
            self._end()
            connection = self._request.connection
            if connection is None:
                self._request.close()
            else:
                connection.close()
                self._state.closed()

    def request_ended(self, request: HttpServerRequest) -> None:
        """Take note that the answer has been written, or that the connection has failed."""
        if request.error is None:
            self._state.answered()
        elif not self.ended:
            self.gone = True
            self._end()
            self.handler.on_gone()


class State:
    """A connection, as the engine knows it."""

    __slots__ = ("asked", "client", "connection", "deadline", "engine", "head", "server")

    def __init__(self, engine: EvhttpEngine, connection: HttpServerConnection) -> None:
        self.engine = engine
        self.connection = connection
        host, port = connection.peer
        #: None for a UNIX socket.
        self.client = None if connection.address == "" else (host, port)
        self.server = engine.server_of(connection)
        #: The head of the request that is being read, what it is refused with, or None.
        self.head: Head | int | None = None
        #: Whether there has been a request.
        self.asked = False
        #: When the client has to have sent the next request's head.
        self.deadline = time.monotonic() + engine.config.header_timeout

    def answered(self) -> None:
        """Wait for the next request, after an answer has been written."""
        if self.connection.closed:
            return
        if self.engine.finishing:
            self.close()
        elif self.head is None:
            self.deadline = time.monotonic() + self.engine.config.keep_alive_timeout

    def finish(self) -> None:
        """Close when nothing is in flight, as the worker ends."""
        if self.deadline == FOREVER:
            return
        if self.asked:
            self.close()
        else:
            self.deadline = min(self.deadline, time.monotonic() + FIRST)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
        self.closed()

    def closed(self) -> None:
        """Take note that the connection has been closed."""
        self.engine.closed(self)


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
        self.finishing = False
        self._done: Callable[[], object] | None = None
        self._servers: list[Server] = []
        self._states: dict[HttpServerConnection, State] = {}
        #: What connections of a server are connected to, if it is the same for all.
        self._places: dict[HttpServer, tuple[str, int | None] | None] = {}
        self._most = FOREVER if config.max_requests is None else config.max_requests
        times = config.header_timeout, config.keep_alive_timeout
        self._period = min(1.0, *(seconds / 4 for seconds in times))
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
        now = time.monotonic()
        for state in [one for one in self._states.values() if one.deadline < now]:
            state.close()
        event.add(self._period)

    # Requests.

    def _state_of(self, request: HttpServerRequest) -> State | None:
        connection = request.connection
        return None if connection is None else self._states.get(connection)

    def _read_head(self, request: HttpServerRequest) -> None:
        """Check a request's head; it can be refused only when its body has come."""
        state = self._state_of(request)
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
        state = self._state_of(request)
        if state is None or state.head is None:  # its connection has just been closed
            request.close()
            return
        head, state.head = state.head, None
        body = request.input_buffer.remove()
        if isinstance(head, Head) and head.length is not None and head.length != len(body):
            head = 400  # evhttp has read its length in another way
        if isinstance(head, int):
            self.refused += 1
            request.send_error(head)
            return
        exchange = EvhttpExchange(state, request, head, body)
        request.on_end = exchange.request_ended
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
        for state in list(self._states.values()):
            state.finish()
        self._check_done()

    def close(self) -> None:
        self._sweeper.close()
        while self._servers:
            server = self._servers.pop()
            if not server.closed:
                try:
                    server.close()  # calls `request_ended` of what is in flight
                except ClosedError:
                    logger.debug("the base was closed before its server")
        self.connections = 0
        self._states.clear()


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
