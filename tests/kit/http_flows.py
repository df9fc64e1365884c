"""What tests of pausing HTTP share: long bodies, and peers that take them bit by bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from libevent_py import (
    BufferEvent,
    EventBase,
    HttpConnection,
    HttpRequest,
    LoopFlag,
    TlsContext,
)
from tests.kit.certificates import HOST
from tests.kit.http_peers import Asked, Server, chunked, client, response, then_close
from tests.kit.support import PATIENCE
from tests.kit.web import Client

BIG = 3_000_000

#: More than the kernel takes for one connection.
TOO_MUCH = 30_000_000

#: As much as has been read at once may come after pausing: libevent's 4096 bytes, or a TLS record.
AT_ONCE = 1 << 15

Bev = BufferEvent


def turns(base: EventBase, times: int = 50) -> None:
    """Run the loop for a moment in which all would happen that could."""
    for _ in range(times):
        base.loop(LoopFlag.NONBLOCK)
        time.sleep(0.001)


def run_until(base: EventBase, condition: Callable[[], object]) -> None:
    """Run the loop until *condition* holds, without a rest where much is to go through."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it has not come to that"
        for _ in range(50):
            base.loop(LoopFlag.NONBLOCK)
            if condition():
                return
        time.sleep(0.001)


def nothing(_request: object) -> None:
    """Leave it to nobody."""


LENGTH = response(bytes(BIG))
CHUNKS = chunked(*[bytes(50_000)] * (BIG // 50_000))
ONE_CHUNK = chunked(bytes(BIG))
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n" + bytes(BIG)

BODIES = {
    "length": LENGTH,
    "chunks": CHUNKS,
    "one-chunk": ONE_CHUNK,
    "until-close": then_close(UNTIL_CLOSE),
}


class Download(Asked):
    """A request that counts what it gets, and pauses its connection after each part."""

    def __init__(self, pauses: bool = True, **callbacks: Any) -> None:
        super().__init__(on_chunk=self.on_chunk, on_header=self.on_header, **callbacks)
        self.pauses = pauses
        self.size = self.parts = self.heads = 0

    def on_header(self, request: HttpRequest) -> None:
        self.heads += 1

    def on_chunk(self, request: HttpRequest) -> None:
        self.size += len(request.input_buffer)
        self.parts += 1
        if self.pauses:
            assert request.connection is not None
            request.connection.pause()


def both(
    base: EventBase, context: dict[str, TlsContext] | None, *answers: Any
) -> tuple[Server, HttpConnection]:
    """Return a server that gives *answers*, and a connection to it."""
    if context is None:
        server = Server(base, *answers)
        return server, client(base, server)
    server = Server(base, *answers, context=context["server"])
    return server, client(base, server, tls=context["client"], server_hostname=HOST)


Ends = Callable[[EventBase, HttpConnection, HttpRequest], object]

ENDS: dict[str, Ends] = {
    "cancelled": lambda base, connection, request: request.cancel(),
    "request-closed": lambda base, connection, request: request.close(),
    "closed": lambda base, connection, request: connection.close(),
    "closed-in-the-loop": lambda base, connection, request: base.defer(connection.close),
    "base-closed": lambda base, connection, request: base.close(),
}


def upload(*, size: int, chunk: int = 0) -> tuple[bytes, bytes]:
    """Return the head and the body of a request; in chunks of *chunk* bytes if that is given."""
    head = b"POST /up HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    if not chunk:
        return head + b"Content-Length: %d\r\n\r\n" % size, bytes(size)
    whole, rest = divmod(size, chunk)
    sizes = [chunk] * whole + [rest] * bool(rest)
    body = b"".join(b"%x\r\n%s\r\n" % (n, bytes(n)) for n in sizes) + b"0\r\n\r\n"
    return head + b"Transfer-Encoding: chunked\r\n\r\n", body


UPLOADS = {"length": 0, "chunks": 10_000, "one-chunk": BIG}


def pump(base: EventBase, client: Client, data: bytes, until: Callable[[], object]) -> bytes:
    """Send *data* as far as it is taken until something holds; return the rest."""
    view = memoryview(data)

    def sent() -> object:
        nonlocal view
        try:
            while view:
                view = view[client.sock.send(view[: 1 << 20]) :]
        except BlockingIOError:
            pass
        client.poll()
        return until()

    run_until(base, sent)
    return bytes(view)
