"""What tests of the HTTP client share: a scripted server, and requests that record their calls."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from libevent_py import (
    BufferEvent,
    BufferEventOption,
    EventBase,
    EventFlag,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    Listener,
    TlsContext,
)
from tests.kit.peers import run_until

#: What a server does with a request: say this, or this function; with None, close the connection.
Answer = bytes | Callable[[BufferEvent], object] | None

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
NOTHING = b""


def response(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return a response with *body*."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def chunked(*chunks: bytes) -> bytes:
    """Return a chunked response."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body


class Server:
    """A server on the same base, which answers each request by the next of *answers*.

    The last is for all that follow.
    """

    def __init__(
        self, base: EventBase, *answers: Answer, context: TlsContext | None = None, port: int = 0
    ) -> None:
        self.answers = list(answers)
        self.context = context
        #: The requests, each as it came.
        self.requests: list[bytes] = []
        self.connections: list[BufferEvent] = []
        self.listener = Listener(base, ("127.0.0.1", port), self._accept)
        self.port: int = self.listener.address[1]

    def _accept(self, listener: Listener, fd: int, _address: object) -> None:
        options = BufferEventOption.CLOSE_ON_FREE | BufferEventOption.DEFER_CALLBACKS
        if self.context is None:
            bev = BufferEvent(listener.base, fd, options)
        else:
            bev = BufferEvent.tls(listener.base, fd, self.context, options=options)
        bev.setcb(self._read, None, lambda bev, what: None)
        bev.enable(EventFlag.READ)
        self.connections.append(bev)

    def _read(self, bev: BufferEvent) -> None:
        head, found, rest = bev.input.copyout().partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        size = int(length.group(1)) if length else 0
        if not found or (len(rest) < size and b"100-continue" not in head):
            return
        self.requests.append(bev.read())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            bev.close()
        elif callable(answer):
            answer(bev)
        else:
            bev.write(answer)

    def close(self) -> None:
        """Close all of it."""
        self.listener.close()
        for bev in self.connections:
            bev.close()


def then_close(data: bytes) -> Callable[[BufferEvent], object]:
    """Return what says *data* and closes the connection."""

    def answer(bev: BufferEvent) -> None:
        bev.write(data)
        bev.close(flush=True)

    return answer


Self = TypeVar("Self", bound="Asked")


class Asked:
    """A request that notes what becomes of it, with its response."""

    def __init__(self, **callbacks: Any) -> None:
        #: How often its callback has been called.
        self.ended = 0
        self.code: int | None = None
        self.body = b""
        self.headers: list[tuple[str, str]] = []
        self.then: Callable[[HttpRequest], object] = lambda request: None
        self.request = HttpRequest(self._done, **callbacks)

    def _done(self, request: HttpRequest) -> None:
        assert request is self.request
        self.ended += 1
        if not request.closed:
            self.code = request.response_code
            self.body += bytes(request.input_buffer)
            self.headers = request.input_headers.items()
        self.then(request)

    @property
    def error(self) -> Any:
        return self.request.error

    def on(
        self: Self,
        connection: HttpConnection,
        uri: str = "/",
        command: HttpCommand = HttpCommand.GET,
        body: bytes = b"",
    ) -> Self:
        """Make the request on *connection*."""
        if not self.request.output_headers:
            self.request.output_headers["Host"] = "server.test"
        if body:
            self.request.output_buffer.add(body)
        connection.make_request(self.request, command, uri)
        return self


def ask(connection: HttpConnection, uri: str = "/", **named: Any) -> Asked:
    """Make a request on *connection* and wait for its end."""
    asked = Asked().on(connection, uri, **named)
    run_until(connection.base, lambda: asked.ended)
    return asked


def client(base: EventBase, server: Server, **named: Any) -> HttpConnection:
    """Return a connection to *server*, to be made."""
    return HttpConnection(base, "127.0.0.1", server.port, **named)
