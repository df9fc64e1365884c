"""The default engine: llhttp, by `httptools`, on EAGER bufferevents."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any

from libevent_py._core import convert
from libevent_py.enums import ListenerOption
from libevent_py.event.base import EventBase
from libevent_py.event.event import Event
from libevent_py.listener import Listener
from libevent_py.serve.config import Config
from libevent_py.serve.engine import Application, Engine, logger
from libevent_py.serve.engines.llhttp_connection import FOREVER, Connection
from libevent_py.serve.engines.llhttp_exchange import LlhttpExchange


class LlhttpEngine(Engine):
    """Serves HTTP/1 by llhttp."""

    name = "httptools"

    def __init__(self, base: EventBase, config: Config, application: Application) -> None:
        super().__init__(base, config, application)
        self.scheme = "http" if self.tls is None else "https"
        self.finishing: bool = False
        self.now: float = time.monotonic()
        self._done: Callable[[], object] | None = None
        self._open: set[Connection] = set()
        self._listeners: list[Listener] = []
        times = config.header_timeout, config.keep_alive_timeout, config.body_timeout
        self._period = min(1.0, *(seconds / 4 for seconds in (*times, config.write_timeout)))
        # Looked up once: each request asks for them.
        self.begin: Callable[[LlhttpExchange], None] = application.begin
        self.most: float = FOREVER if config.max_requests is None else config.max_requests
        self.most_head: int = config.max_header_size
        self.most_headers: int = config.max_headers
        self._set_deadlines()
        self._sweeper = Event.timer(base, self._sweep)
        self._sweeper.add(self._period)

    def listen(self, sock: socket.socket) -> None:
        if sock.family != socket.AF_UNIX:  # connections inherit it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = address_of(sock)

        def accepted(_listener: Listener, fd: int, address: Any) -> None:
            self._accept(fd, address, server)

        self._listeners.append(
            Listener.from_fd(self.base, sock, accepted, options=ListenerOption(0))
        )

    def _accept(self, fd: int, address: Any, server: tuple[str, int | None] | None) -> None:
        client = address[:2] if isinstance(address, tuple) else None
        if server is None:
            name: Any = convert._socket_name(fd)
            server = name[0], name[1]
        connection = Connection(self, fd, client, server)
        self.accepted += 1
        self.connections += 1
        self._open.add(connection)

    def stop_listening(self) -> None:
        while self._listeners:
            self._listeners.pop().close()

    def refuse(self, exchange: LlhttpExchange) -> None:
        """Refuse *exchange*, as there are too many."""
        exchange.handler = NOBODY
        self.refused += 1
        headers = [(b"Content-Type", b"text/plain"), (b"Retry-After", b"1")]
        exchange.respond(503, headers, b"503 Service Unavailable\n")

    def count_out(self, exchange: LlhttpExchange) -> None:
        """Count *exchange* out, and log it."""
        self.in_flight -= 1
        if self.on_end is not None:
            self.on_end(exchange)

    def closed(self, connection: Connection) -> None:
        """Forget *connection*."""
        self.connections -= 1
        self._open.discard(connection)
        if not self._open and self._done is not None:
            done, self._done = self._done, None
            done()

    def _sweep(self, event: Event, _fd: int, _what: int) -> None:
        """Close the connections that are late, and look for clients that have left unseen."""
        now = self.now = time.monotonic()
        self._set_deadlines()
        for connection in [one for one in self._open if one.deadline < now or one._paused]:
            try:
                if connection.deadline < now:
                    connection.late()
                else:
                    connection.look()
            except Exception:
                logger.exception("closing a connection that is late, or whose client has left")
                connection.close()
        event.add(self._period)

    def _set_deadlines(self) -> None:
        """Note by when what is begun now has to be done."""
        self.idle_deadline: float = self.now + self.config.keep_alive_timeout
        self.head_deadline: float = self.now + self.config.header_timeout

    def finish(self, done: Callable[[], object]) -> None:
        self.finishing = True
        self._done = done
        for connection in list(self._open):
            connection.finish()
        if not self._open and self._done is not None:
            self._done = None
            done()

    def close(self) -> None:
        self.stop_listening()
        for connection in list(self._open):
            connection.close()
        self._sweeper.close()


class Nobody:
    """The handler of an exchange that no application has."""

    def on_body(self) -> None:
        pass

    def on_writable(self) -> None:
        pass

    def on_gone(self) -> None:
        pass


NOBODY = Nobody()


def address_of(sock: socket.socket) -> tuple[str, int | None] | None:
    """Return what connections to *sock* are connected to; None if each has to be asked."""
    name: Any = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return os.fsdecode(name), None
    if name[0] in ("0.0.0.0", "::"):
        return None
    return name[0], name[1]
