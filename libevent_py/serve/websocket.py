"""WebSocket for ASGI, by `wsproto`."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, TypeAlias

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from libevent_py.serve.config import Config
from libevent_py.serve.engine import ClientDisconnected, Exchange, logger
from libevent_py.serve.framing import as_bytes

#: How much is decoded at once: compressed, it can become a thousand times as much.
SLICE = 8192
#: How many bytes of messages wait for the application before no more are decoded, and how many
#: messages.
WAITING, MESSAGES = 65536, 32
#: How long, in seconds, the client may take to answer a closing frame.
CLOSING = 5.0

#: What an application may raise without its being logged: all but the first end the worker.
UNTOLD = asyncio.CancelledError, KeyboardInterrupt, SystemExit

#: What is between the two sides: a request, an answer to it in parts, messages, our closing frame.
REQUESTED, DENYING, OPEN, CLOSED = range(4)

#: A message of ASGI's.
Said: TypeAlias = dict[str, Any]


class WebSocket:
    """One WebSocket, as ASGI sees it: what `receive` and `send` do."""

    def __init__(self, exchange: Exchange, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        """Take *exchange*, a request to upgrade. See `begin`."""
        self._exchange = exchange
        self._config = config
        self._loop = loop
        self._wire = WSConnection(ConnectionType.SERVER)
        self._state = REQUESTED
        self._denial: tuple[int, list[tuple[bytes, bytes]]] = 403, []
        #: What the application will receive.
        self._inbox: deque[Said] = deque()
        self._waiting = 0
        #: The parts of a message so far.
        self._parts: list[Any] = []
        self._size = 0
        self._disconnected: Said | None = None
        #: Whether the application has said all that it may.
        self._done = False
        self._waiter: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard = True
        self._extensions: list[PerMessageDeflate] = []

    def begin(self) -> list[str] | None:
        """Check the request; return the subprotocols, or None if it has been refused."""
        exchange = self._exchange
        try:
            self._wire.initiate_upgrade_connection(
                exchange.headers, exchange.target.decode("ascii")
            )
            request = next(self._wire.events())
        except RemoteProtocolError as error:
            hint = error.event_hint
            status, headers = 400, [(b"content-type", b"text/plain")]
            if isinstance(hint, RejectConnection):
                status = hint.status_code
                headers += [(bytes(name), bytes(value)) for name, value in hint.headers]
            exchange.respond(status, headers, f"{error}\n".encode())
            return None
        assert isinstance(request, Request)
        self._inbox.append({"type": "websocket.connect"})
        self._extensions = [PerMessageDeflate()] if request.extensions else []
        return [str(name) for name in request.subprotocols]

    # What the engine tells.

    def on_body(self) -> None:
        """Decode what has come, unless the application is behind."""
        self._heard = True
        exchange = self._exchange
        while not self._is_behind():
            data = exchange.take()
            if not data:
                exchange.want()
                return
            view = memoryview(data)
            for start in range(0, len(data), SLICE):
                if not self._decode(bytes(view[start : start + SLICE])):
                    return

    def on_writable(self) -> None:
        wake(self._writer)

    def on_gone(self) -> None:
        self._disconnect(1006, "")
        wake(self._writer)

    def on_finish(self) -> None:
        """Ask the client to close, as the worker ends."""
        if self._state == OPEN:
            self._close(1012, "")
        elif self._state == REQUESTED:
            self._exchange.respond(503, [], b"")
            self._state = CLOSED
            self._disconnect(1006, "")

    def _is_behind(self) -> bool:
        return self._waiting >= WAITING or len(self._inbox) >= MESSAGES

    def _decode(self, data: bytes) -> bool:
        """Decode *data*; return whether anything may follow."""
        try:
            self._wire.receive_data(data)
            for event in self._wire.events():
                if not self._take_event(event):
                    return False
        except RemoteProtocolError as error:
            hint = error.event_hint
            code = hint.code if isinstance(hint, CloseConnection) else 1002
            self._close(int(code), str(error)[:100])
            self._disconnect(int(code), str(error))
            self._end()
            return False
        return True

    def _take_event(self, event: Event) -> bool:
        """Take what the client has sent; return whether anything may follow."""
        if isinstance(event, Message):
            return self._take_part(event)
        if isinstance(event, Ping):
            if self._state == OPEN:
                self._write(self._wire.send(event.response()))
        elif isinstance(event, CloseConnection):
            # Also for what makes no sense, which wsproto takes for a close with the code for that.
            if self._wire.state in (ConnectionState.REMOTE_CLOSING, ConnectionState.OPEN):
                self._write(self._wire.send(event.response()))
            self._disconnect(event.code or 1005, event.reason or "")
            self._end()
            return False
        return True

    def _take_part(self, part: Message[Any]) -> bool:
        """Take a part of a message; return whether anything may follow."""
        data = part.data
        self._size += len(data.encode()) if isinstance(data, str) else len(data)
        if self._size > self._config.ws_max_size:
            self._close(1009, f"a message has more than {self._config.ws_max_size} bytes")
            self._disconnect(1009, "the message is too large")
            self._parts.clear()
            return False
        self._parts.append(data if isinstance(data, str) else bytes(data))
        if not part.message_finished:
            return True
        parts = self._parts
        text = "".join(parts) if isinstance(part, TextMessage) else None
        whole = b"".join(parts) if isinstance(part, BytesMessage) else None
        self._parts, self._waiting, self._size = [], self._waiting + self._size, 0
        if self._state == OPEN:
            self._put({"type": "websocket.receive", "text": text, "bytes": whole})
        return True

    def _put(self, message: Said) -> None:
        self._inbox.append(message)
        wake(self._waiter)

    def _disconnect(self, code: int, reason: str) -> None:
        """Tell the application that the client has left, once."""
        if self._disconnected is None:
            self._disconnected = {
                "type": "websocket.disconnect",
                "code": code,
                "reason": reason,
            }
            wake(self._waiter)

    # What the application calls.

    async def receive(self) -> Said:
        """Return the next message."""
        while not self._inbox:
            if self._disconnected is not None:
                return self._disconnected
            if self._waiter is not None:
                raise RuntimeError("another coroutine waits for this WebSocket in receive()")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._inbox.popleft()
        behind = self._is_behind()
        if message["type"] == "websocket.receive":
            data = message["bytes"]
            size = len(message["text"].encode()) if data is None else len(data)
            self._waiting -= size
        if (behind or not self._inbox) and self._state == OPEN and not self._exchange.ended:
            self.on_body()
        return message

    async def send(self, message: Said) -> None:
        """Send a message, or an answer to the request."""
        kind = message["type"]
        if not self._done and (self._state == CLOSED or self._disconnected is not None):
            raise ClientDisconnected("the WebSocket is closed, and not by the application")
        if self._state == REQUESTED and kind == "websocket.accept":
            self._accept(message)
        elif self._state == REQUESTED and kind == "websocket.http.response.start":
            self._denial = message["status"], list(message.get("headers", ()))
            self._exchange.start(*self._denial)
            self._state = DENYING
        elif self._state == REQUESTED and kind == "websocket.close":
            self._state, self._done = CLOSED, True
            self._exchange.respond(403, [], b"")
            self._disconnect(1006, "")
        elif self._state == DENYING and kind == "websocket.http.response.body":
            more = message.get("more_body", False)
            room = self._exchange.send(as_bytes(message.get("body", b"")), more)
            if not more:  # only now: an application can go on after what those raise
                self._state, self._done = CLOSED, True
                self._disconnect(1006, "")
            await self._drained(room)
        elif self._state == OPEN and kind == "websocket.send":
            await self._drained(self._write(self._wire.send(encoded(message))))
        elif self._state == OPEN and kind == "websocket.close":
            code = message.get("code", 1000)
            self._close(1000 if code is None else code, message.get("reason") or "")
            self._done = True
        else:
            raise RuntimeError(f"the message {kind!r} was sent, but expected is {self._expected()}")

    def _expected(self) -> str:
        return {
            REQUESTED: "websocket.accept, websocket.close or websocket.http.response.start",
            DENYING: "websocket.http.response.body",
            OPEN: "websocket.send or websocket.close",
            CLOSED: "nothing, as the WebSocket is closed",
        }[self._state]

    def _accept(self, message: Said) -> None:
        headers = [
            (as_bytes(name).lower(), as_bytes(value)) for name, value in message.get("headers", ())
        ]
        for name, value in headers:
            if any(byte in name + value for byte in b"\r\n\0"):
                raise ValueError(f"a header must be one line without NUL, not {name + value!r}")
        accepted = AcceptConnection(
            subprotocol=message.get("subprotocol"),
            extra_headers=headers,
            extensions=list(self._extensions),
        )
        head = self._wire.send(accepted)
        self._state = OPEN
        self._exchange.upgrade(head)
        self._exchange.want()
        interval = self._config.ws_ping_interval
        if interval is not None and not self._exchange.ended:
            self._timer = self._loop.call_later(interval, self._ping)

    async def _drained(self, room: bool) -> None:
        """Wait until the output is sent, or never will be, unless there is room for more."""
        if room or self._exchange.ended:
            return
        if self._writer is None or self._writer.done():
            self._writer = self._loop.create_future()
        await asyncio.shield(self._writer)

    def _write(self, data: bytes) -> bool:
        return self._exchange.send(data, True)

    # Pings, and the end.

    def _ping(self) -> None:
        """Ask whether the client is there."""
        if self._state != OPEN or self._exchange.ended:
            return
        assert self._config.ws_ping_interval is not None
        if self._heard:
            self._heard = False
            self._write(self._wire.send(Ping(b"")))
            self._timer = self._loop.call_later(self._config.ws_ping_timeout, self._ping_late)

    def _ping_late(self) -> None:
        if not self._heard and self._state == OPEN:
            self._give_up()
            self._disconnect(1006, "the client has not answered a ping")
            return
        assert self._config.ws_ping_interval is not None
        self._timer = self._loop.call_later(self._config.ws_ping_interval, self._ping)

    def _close(self, code: int, reason: str) -> None:
        """Send a closing frame, and give the client some time to answer it."""
        if self._state != OPEN:
            return
        try:
            data = self._wire.send(CloseConnection(code=code, reason=reason))
        except LocalProtocolError:  # the client has sent one
            data = b""
        self._state = CLOSED
        self._stop_timer()
        if not self._exchange.ended:
            self._write(data)
            self._timer = self._loop.call_later(CLOSING, self._give_up)

    def _give_up(self) -> None:
        """Close the connection, as the client is late; nobody waits any more to send."""
        self._exchange.abort()
        wake(self._writer)

    def _end(self) -> None:
        """Close the connection when what was written is sent."""
        self._state = CLOSED
        self._stop_timer()
        if not self._exchange.ended:
            self._exchange.send(b"", False)
        wake(self._writer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self, error: BaseException | None) -> None:
        """The application has returned, or raised *error*."""
        expected = isinstance(error, ClientDisconnected) and (
            self._state == CLOSED or self._disconnected is not None
        )
        if error is not None and not expected and not isinstance(error, UNTOLD):
            logger.error("the application has raised an exception", exc_info=error)
        if self._exchange.ended:
            self._stop_timer()
        elif self._state == REQUESTED:
            if error is None:
                logger.error("the application has neither accepted nor closed the WebSocket")
            self._state = CLOSED
            self._exchange.respond(500, [], b"Internal Server Error")
        elif self._state == DENYING:
            self._exchange.abort()
        else:
            self._close(1000 if error is None or expected else 1011, "")


def encoded(message: Said) -> Event:
    """Return what "websocket.send" sends."""
    data, text = message.get("bytes"), message.get("text")
    if (data is None) == (text is None):
        raise ValueError('"websocket.send" must have either bytes or text')
    if data is not None:
        return BytesMessage(data=as_bytes(data))
    if not isinstance(text, str):
        raise TypeError(f"the text must be a str, not {text!r}")
    return TextMessage(data=str(text))


def wake(waiter: asyncio.Future[None] | None) -> None:
    """Let a coroutine go on that waits."""
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
