"""HTTP requests for coroutines: bodies are streamed both ways, and the reader sets the pace."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING

from libevent_py.aio.streams import LIMIT, checked_limit, wake
from libevent_py.aio.waits import waiter_on
from libevent_py.enums import HttpCommand
from libevent_py.errors import HttpError
from libevent_py.http.client import HttpConnection
from libevent_py.http.headers import Headers, checked_pairs
from libevent_py.http.request import HttpRequest

if TYPE_CHECKING:
    from types import TracebackType


class Response:
    """A response whose body comes as it is read: ``async for``, or `read`.

    Leaving ``async with`` before its end cancels the request, which closes the connection: the next
    request on it connects anew.
    """

    def __init__(self, connection: HttpConnection, limit: int) -> None:
        self._limit = limit
        self._base = connection.base
        self._connection: HttpConnection | None = connection
        self._request: HttpRequest | None = None
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._begun = self._ended = False
        self._error: BaseException | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        #: Whether all that was sent has been taken, so that the next part can be.
        self._writable = False
        self._sending: asyncio.Task[None] | None = None
        #: The status, 200 for instance, and what the server calls it, or "".
        self.status: int = 0
        self.reason: str = ""
        self.headers: Headers

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status} {self.reason}>"

    # What the request tells.

    def _on_header(self, request: HttpRequest) -> None:
        self.status = request.response_code
        self.reason = request.response_code_line or ""
        self.headers = Headers._received(request.input_headers)
        self._begun = True
        wake(self._reader)

    def _on_chunk(self, request: HttpRequest) -> None:
        part = request.input_buffer.remove()
        self._parts.append(part)
        self._size += len(part)
        if self._size > self._limit and not self._paused and self._connection is not None:
            self._paused = True
            self._connection.pause()
        wake(self._reader)

    def _on_write(self, _request: HttpRequest) -> None:
        self._writable = True
        wake(self._writer)

    def _on_end(self, request: HttpRequest) -> None:
        self._error, self._ended = self._error or request.error, True
        wake(self._reader)
        wake(self._writer)

    def _on_sent(self, task: asyncio.Task[None]) -> None:
        """End the request with what its body has raised."""
        if not task.cancelled() and (error := task.exception()) and not self._ended:
            self._error = error
            self.close()
            self._ended = True
            wake(self._reader)

    # What coroutines do.

    async def _wait(self) -> None:
        if self._reader is not None:
            raise RuntimeError("another coroutine waits for this response already")
        self._reader = waiter_on(self._base)
        try:
            await self._reader
        finally:
            self._reader = None

    async def _begins(self) -> None:
        while not self._begun:
            if self._ended:
                raise self._error or HttpError("the request has ended without a response")
            await self._wait()

    async def _send(self, body: AsyncIterable[bytes]) -> None:
        """Send *body* in parts, each once the server has taken the one before."""
        request = self._request
        assert request is not None
        async for part in body:
            while not (self._writable or self._ended):
                self._writer = waiter_on(self._base)
                try:
                    await self._writer
                finally:
                    self._writer = None
            if self._ended:
                return
            if part:
                self._writable = False
                if not request.send_request_chunk(part):
                    return  # the server has answered, or has gone
        if not self._ended:
            request.send_request_end()

    async def read(self) -> bytes:
        """Wait for the rest of the body and return it; raises `HttpError` if it doesn't come."""
        return b"".join([part async for part in self])

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._parts:
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            await self._wait()
        part = self._parts.popleft()
        self._size -= len(part)
        if self._paused and self._size <= self._limit // 2:
            self._paused = False
            if self._connection is not None and not self._connection.closed:
                self._connection.resume()
        return part

    def close(self) -> None:
        """Cancel the request if its response has not ended; a second time does nothing."""
        request, self._connection = self._request, None
        if self._sending is not None:
            self._sending.cancel()
        if request is not None and not self._ended:
            request.cancel()

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


async def request(
    connection: HttpConnection,
    command: HttpCommand,
    uri: str,
    *,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    body: bytes | bytearray | memoryview | AsyncIterable[bytes] | None = None,
    limit: int = LIMIT,
) -> Response:
    """Make a request on *connection*, and return its response once its headers have come.

    The header Host is added unless it is among *headers*. A *body* of bytes is sent at once; one
    that is an asynchronous iterable is sent in parts, at the pace of the server, in chunks unless
    Content-Length is given. The server waits while more than *limit* bytes of the response have not
    been read. Raises `HttpError` if there is no response. Cancelled, it cancels the request.
    """
    if not isinstance(connection, HttpConnection):
        raise TypeError(f"connection must be an HttpConnection, not {connection!r}")
    whole = body if isinstance(body, (bytes, bytearray, memoryview)) else None
    streamed = body if isinstance(body, AsyncIterable) else None
    if body is not None and whole is None and streamed is None:
        raise TypeError(f"body must be bytes or an asynchronous iterable of bytes, not {body!r}")
    response = Response(connection, checked_limit(limit))
    made = HttpRequest(
        response._on_end,
        on_header=response._on_header,
        on_chunk=response._on_chunk,
        on_write=response._on_write if streamed is not None else None,
    )
    response._request = made
    given = Headers(checked_pairs(headers, "headers"))
    if "Host" not in given:
        host, port = connection._address
        made.output_headers.add("Host", host if port == 80 else f"{host}:{port}")
    for name, value in given.items():
        made.output_headers.add(name, value)
    if whole is not None:
        made.output_buffer.add(whole)
    connection.make_request(made, command, uri)
    try:
        if streamed is not None:
            response._sending = asyncio.ensure_future(response._send(streamed))
            response._sending.add_done_callback(response._on_sent)
        await response._begins()
        return response
    except BaseException:
        response.close()
        raise
