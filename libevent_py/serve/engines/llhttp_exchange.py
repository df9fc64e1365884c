"""A request that llhttp has parsed, and the answer to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libevent_py.serve.engine import Exchange, Headers
from libevent_py.serve.framing import CHUNKED, LENGTH, NOTHING, head

if TYPE_CHECKING:
    from typing import Any

    from libevent_py.serve.engines.llhttp_connection import Connection

#: How much of a body is kept for an application that doesn't take it.
HELD = 65536

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class LlhttpExchange(Exchange):
    """A request that llhttp has parsed."""

    #: Whether the application has it.
    _begun = False
    #: Whether the client waits for "100 Continue".
    _waits = False
    #: How much there is of the body to take, and how much there has been in all.
    _held = _total = 0
    #: A head that waits for the body's first bytes, or b"".
    _head = b""
    _mode = _left = 0

    # As in the base class, where not all type checkers look for what is set here.
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    scheme: str
    memo: dict[str, Any]
    ended: bool
    started: bool
    status: int
    sent: int

    # hot: once for each request.
    def __init__(
        self,
        connection: Connection,
        method: str,
        target: bytes,
        version: str,
        headers: list[tuple[bytes, bytes]],
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self.method = method
        self.target = target
        self.version = version
        self.headers = headers
        self.client = connection.client
        self.server = connection.server
        self.scheme = connection.scheme
        self.memo = connection.memo
        self._keep_alive = keep_alive
        #: The body so far; None before it begins.
        self._pieces: list[bytes] | None = None

    # The request's body.

    def want(self) -> None:
        if self._waits:
            self._waits = False
            if not self.started and not self.complete:
                self._connection.write(CONTINUE)
                self._connection.set_deadline()

    def _add(self, data: bytes, size: int) -> None:
        """Keep *data* until it is taken."""
        if self._pieces is None:
            self._pieces = [data]
        else:
            self._pieces.append(data)
        self._held += size

    def take(self) -> bytes:
        pieces = self._pieces
        if pieces is None:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = None
        held, self._held = self._held, 0
        if held > HELD and not self.ended:
            self._connection.advance_soon()
        return data

    # The answer.

    # hot: once for each request that is answered at once.
    def respond(
        self, status: int, headers: Headers, body: bytes, reason: bytes | None = None
    ) -> None:
        if self.started:
            raise self._answered()
        data, mode, _, keep_alive = head(
            self.method,
            self.version,
            self._keep_alive and not self._waits,
            status,
            headers,
            reason,
            len(body),
        )
        if mode:
            data += body
            self.sent = len(body)
        self.started = self.ended = True
        self.status = status
        self._keep_alive = keep_alive
        connection = self._connection
        if connection._inside and connection._answer is None and not connection._closed:
            connection._unsent += len(data)  # as `write` does
            connection._answer = data
        else:
            connection.write(data)
        connection.ended(self)

    def start(self, status: int, headers: Headers, reason: bytes | None = None) -> None:
        if self.started:
            raise self._answered()
        self._head, self._mode, self._left, self._keep_alive = head(
            self.method,
            self.version,
            self._keep_alive and not self._waits,
            status,
            headers,
            reason,
            None,
        )
        self.started = True
        self.status = status

    def _answered(self) -> Exception:
        return RuntimeError("this request has an answer already")

    def send(self, data: bytes, more: bool) -> bool:
        if self.ended:
            return True
        if not self.started:
            raise RuntimeError("the answer must be started before its body is sent")
        size = len(data)
        connection = self._connection
        if self._connection._raw:
            connection.write(data)
        else:
            mode = self._mode
            if mode == LENGTH:
                self._left -= size
                if self._left < 0 or (self._left and not more):
                    self._misfit(size)
            elif mode == CHUNKED:
                data = b"%x\r\n%b\r\n" % (size, data) if size else b""
                if not more:
                    data += b"0\r\n\r\n"
            elif mode == NOTHING:
                data, size = b"", 0
            self.sent += size
            if self._head:
                data, self._head = self._head + data, b""
            if data:
                connection.write(data)
        if more:
            return connection.has_room()
        self._end()
        return True

    def _misfit(self, size: int) -> None:
        """Raise `ValueError` for a body that isn't as long as was said."""
        left = self._left + size
        self.abort()
        raise ValueError(
            f"Content-Length says that {left} more bytes of the body come, but there are {size}"
        )

    def upgrade(self, head: bytes) -> None:
        if not self.upgrades:
            raise RuntimeError("this connection can't be upgraded")
        if self.started:
            raise self._answered()
        self.started, self.status = True, 101
        self.complete = False
        self._connection.go_raw(head)

    def _end(self) -> None:
        self.ended = True
        self._connection.ended(self)

    def abort(self) -> None:
        if not self.ended:
            self.ended = self.gone = True
            self._keep_alive = False
            self._connection.ended(self)
