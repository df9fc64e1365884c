"""What lies between the engines, which speak HTTP, and ASGI and WSGI, which run applications.

An `Engine` accepts connections and parses requests. For each it makes an `Exchange`, the request
and the way to answer it, and gives it to an `Application`, which puts a `Handler` on it. Everything
happens in the thread that runs the base.

    engine                                application (asgi.py, wsgi.py)
    ------                                ------------------------------
    Application.begin(exchange)     ->    exchange.handler = …, and starts to answer
    handler.on_body()               ->    exchange.take(), exchange.complete
    handler.on_writable()           ->    goes on after send() has returned False
    handler.on_gone()               ->    the client has left, or the exchange has failed
                                    <-    exchange.want(): the body, or more of it, is wanted
                                    <-    exchange.respond(…): a whole answer
                                    <-    exchange.start(…), exchange.send(…): an answer in parts
                                    <-    exchange.upgrade(…): the connection itself, as bytes
                                    <-    exchange.abort(): close the connection

`begin` is called when the request's head is complete, and not before the answers to the requests
before it on the same connection are: an engine has one exchange of each connection in flight. The
body, or what has come of it, may be there already; `exchange.complete` then says whether it is all.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from libevent_py.bufferevent.tls import TlsContext

if TYPE_CHECKING:
    import socket

    from libevent_py.event.base import EventBase
    from libevent_py.serve.config import Config

#: Headers as both sides have them: names and values as bytes, in order.
Headers = Sequence[tuple[bytes, bytes]]

logger: Final = logging.getLogger("libevent_py.serve")


class ClientDisconnected(ConnectionError):
    """The client has left, so that its request can't be answered any more."""


class Handler(Protocol):
    """What answers one exchange. Its methods don't raise, and may end the exchange."""

    def on_finish(self) -> None:
        """Note that the worker ends; only called for an exchange that is upgraded."""

    def on_body(self) -> None:
        """Note that there is more of the body to take, or that it is complete."""

    def on_writable(self) -> None:
        """Note that the output is sent: called once each time that `Exchange.send` is False."""

    def on_gone(self) -> None:
        """Note that the client has left, or that the connection has failed: `gone` is True.

        Not called after the answer is complete. An answer may still be tried, since a client may
        end its own output and go on to read: it is dropped if nobody is there. Then it is called a
        second time when the connection has ended, and `ended` is True: nobody must wait any more.
        """


class Application(Protocol):
    """What runs an application."""

    def begin(self, exchange: Exchange) -> None:
        """Answer *exchange*, now or later. Doesn't raise."""


class Exchange(ABC):
    """A request, and the way to answer it.

    What has a default here has it in the class, so that a request only sets what differs: making
    one is most of what an engine does.
    """

    #: Such as "GET"; always upper case.
    method: str
    #: As in the request line, ASCII: a path with its query, or "*" for OPTIONS. Of an absolute URI,
    #: only path and query are left, and its authority has become the header "host".
    target: bytes
    #: "1.1" or "1.0".
    version: str
    #: Names are in lower case. No name is empty, no value begins or ends with blanks.
    headers: list[tuple[bytes, bytes]]
    #: The client's host and port; None for a UNIX socket.
    client: tuple[str, int] | None
    #: The server's host and port; for a UNIX socket its path and None.
    server: tuple[str, int | None] | None
    #: "http" or "https".
    scheme: str
    #: What a runner keeps for the requests of one connection; an engine that can't tell which are
    #: makes a new one for each.
    memo: dict[str, Any]
    #: What is told of the exchange; set by `Application.begin`, and by the engine to None
    #: when the exchange has ended.
    handler: Any = None
    #: Whether all of the body has come. There may still be some to take.
    complete: bool = False
    #: Whether it is complete, and there is nothing of it.
    empty: bool = False
    #: Whether the client has left.
    gone: bool = False
    #: Whether it has ended: the answer is complete, or the connection is closed.
    ended: bool = False
    #: Whether an answer has been begun.
    started: bool = False
    #: Whether the client asks to `upgrade` to WebSocket, and the engine can.
    upgrades: bool = False
    #: For logs: the answer's status, and how many bytes of its body there were; 0 before that.
    status: int = 0
    sent: int = 0

    @abstractmethod
    def want(self) -> None:
        """Ask for more of the body: the handler's `on_body` will tell when there is some.

        Sends "100 Continue" to a client that waits for it. Until this is called the first time, and
        while there is much to take, the engine need not read.
        """

    @abstractmethod
    def take(self) -> bytes:
        """Remove and return what has come of the body, or b""; doesn't call the handler."""

    @abstractmethod
    def respond(
        self, status: int, headers: Headers, body: bytes, reason: bytes | None = None
    ) -> None:
        """Answer with all of *body*; ends the exchange. Content-Length is added.

        The engine frames the answer: it drops Transfer-Encoding, and no body is sent to HEAD or
        with 204 and 304. Raises `ValueError` for headers that can't be sent, and for a
        Content-Length that doesn't fit; then nothing has been sent.
        """

    @abstractmethod
    def start(self, status: int, headers: Headers, reason: bytes | None = None) -> None:
        """Begin an answer whose body comes by `send`. Raises as `respond` does.

        Without Content-Length among *headers* the body is sent in chunks, or to HTTP/1.0 until the
        connection is closed. The head may wait for the first `send`.
        """

    @abstractmethod
    def send(self, data: bytes, more: bool) -> bool:
        """Send *data*, after `start`; the exchange ends with *more* False.

        Return whether more may be sent at once. With False, the handler's `on_writable` tells when;
        what is sent before that is kept in memory. Raises `ValueError` for more or, at the end,
        less than Content-Length; the connection is then closed. When `ended` it does nothing.
        """

    @abstractmethod
    def upgrade(self, head: bytes) -> None:
        """Send *head*, bytes, and leave the connection to the handler from now on.

        `take` then returns what the client sends, `complete` says that it sends no more, and `send`
        sends bytes as they are; with *more* False it closes the connection after them. `want` is
        to be called for more. Only if `upgrades` is True.
        """

    @abstractmethod
    def abort(self) -> None:
        """End the exchange by closing the connection, so that the client sees a torn answer.

        What was sent before is still written. A second time does nothing.
        """


class Engine(ABC):
    """Serves connections on a base.

    A subclass calls `Application.begin` for each request, keeps to the limits of *config*, and
    keeps the counters. It doesn't handle signals, and doesn't close the listening sockets.
    """

    #: As `Config.http` has it.
    name: ClassVar[str]

    def __init__(self, base: EventBase, config: Config, application: Application) -> None:
        """Make an engine on *base* whose requests *application* answers."""
        self.base = base
        self.config = config
        self.application = application
        #: For HTTPS, else None.
        self.tls: TlsContext | None = None
        if config.tls_cert is not None:
            # As C's own error for a file that is missing doesn't say which.
            for name in config.tls_cert, config.tls_key:
                if name is not None:
                    open(name, "rb").close()
            self.tls = TlsContext(
                server_side=True, certfile=config.tls_cert, keyfile=config.tls_key
            )
        #: How many connections are open, and how many exchanges have begun and not ended.
        self.connections = 0
        self.in_flight = 0
        #: How many connections have been accepted, requests begun, and requests refused.
        self.accepted = 0
        self.requests = 0
        self.refused = 0
        #: Called with each exchange when it ends, for the access log; or None.
        self.on_end: Callable[[Exchange], object] | None = None

    @abstractmethod
    def listen(self, sock: socket.socket) -> None:
        """Accept connections on *sock*, which listens already; the caller closes it later."""

    @abstractmethod
    def stop_listening(self) -> None:
        """Accept no more connections; those that are open go on."""

    @abstractmethod
    def finish(self, done: Callable[[], object]) -> None:
        """Close each connection as soon as its request is answered, the idle ones now.

        Calls *done* once, when no connection is left; perhaps at once.
        """

    @abstractmethod
    def close(self) -> None:
        """Close all connections, and what the engine has on the base; a second time does nothing.

        The handlers of exchanges in flight get `on_gone`.
        """
