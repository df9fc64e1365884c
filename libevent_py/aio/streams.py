"""Bufferevents for coroutines: `Stream`, and what makes and accepts them.

A stream has its bufferevent's three callbacks. A coroutine that waits has a future here: one at a
time for input, any number for output. Callbacks only wake what waits: all state is in libevent's
buffers, but for the end of the input and the first error. So a coroutine that is cancelled while it
waits has taken nothing, and leaves nothing behind.

Input is kept within a limit by the high watermark, which a single long read raises for its time.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from libevent_py._core import convert
from libevent_py._core.sockets import lent
from libevent_py._ffi import lib
from libevent_py.aio.waits import can_go_on, waiter_on
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.given import mark
from libevent_py.enums import BufferEventFlag, EolStyle, EventFlag
from libevent_py.errors import ClosedError

if TYPE_CHECKING:
    from types import TracebackType

    from libevent_py._core.convert import Octets

#: How many bytes of input are kept, unless a stream is made with another limit.
LIMIT = 65536

READ, WRITE, BOTH = EventFlag.READ, EventFlag.WRITE, EventFlag.READ | EventFlag.WRITE
FAILED = BufferEventFlag.ERROR | BufferEventFlag.TIMEOUT


#: The longest piece that is waited for: the high watermark is twice as much meanwhile.
MOST = int(lib.EV_SSIZE_MAX) // 2


class Stream:
    """A bufferevent that coroutines read and write: a socket's, a pair's half, a filter or TLS.

    Use it in the loop that its base runs. ``async with`` closes it, and ``async for`` yields its
    lines. Only one coroutine at a time may wait for input.
    """

    def __init__(self, bev: BufferEvent, *, limit: int = LIMIT) -> None:
        """Take over the callbacks and the watermarks of *bev*, which the stream owns from now on.

        Reading from the peer stops while there are *limit* bytes of input, and `drain` waits while
        there are more than that of output. Raises `ValueError` for a limit below 1, and if the
        bufferevent has a stream already.
        """
        if not isinstance(bev, BufferEvent):
            raise TypeError(f"bev must be a BufferEvent, not {bev!r}")
        self._bev = bev
        self._limit = checked_limit(limit)
        self._ended = False
        self._error: BaseException | None = None
        self._connected = False
        self._opener: asyncio.Future[None] | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writers: set[asyncio.Future[None]] = set()
        bev.setcb(self._on_read, self._on_write, self._on_event)
        bev.base._when_closed(bev._key, self._wake)  # by whomever
        mark(bev, READ, 0, self._limit)
        mark(bev, WRITE, self._limit // 2, 0)
        bev.enable(BOTH)
        bev._kept_by = self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._bev!r}>"

    @property
    def bufferevent(self) -> BufferEvent:
        """The bufferevent; its callbacks and its watermarks are the stream's: it refuses others."""
        return self._bev

    # What the bufferevent tells.

    def _on_read(self, _bev: BufferEvent) -> None:
        wake(self._reader)

    def _on_write(self, _bev: BufferEvent) -> None:
        for writer in self._writers:
            wake(writer)

    def _on_event(self, _bev: BufferEvent, what: BufferEventFlag) -> None:
        # Several may come at once, as callbacks are deferred: an error comes last.
        if what & FAILED:
            self._error = self._error or reason(self._bev, what)
        elif what & BufferEventFlag.EOF:
            self._ended = True
        if what & BufferEventFlag.CONNECTED:
            self._connected = True
        self._wake()

    async def _connects(self) -> None:
        """Wait until it is connected, or raise why it can't be."""
        while not self._connected:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise ConnectionResetError(f"the peer has closed {self._bev!r}")
            if self._bev.closed:
                raise ClosedError("the stream was closed while it was being connected")
            self._opener = waiter_on(self._bev.base)
            await self._opener

    # Input.

    def at_eof(self) -> bool:
        """Tell whether all input has been read, and no more will come."""
        return self._ended and not self._bev.input

    async def _more(self, length: int) -> bool:
        """Wait until there are more than *length* bytes; False at the end of the input."""
        if self._reader is not None:
            raise RuntimeError("another coroutine waits for input of this stream already")
        bev = self._bev
        while len(bev.input) <= length:
            if self._ended:
                return False
            if self._error is not None:
                raise self._error
            self._reader = waiter_on(bev.base)
            if length >= self._limit:
                mark(bev, READ, 0, 2 * length)
            try:
                await self._reader
            finally:
                self._reader = None
                if length >= self._limit and self._is_ours():
                    mark(bev, READ, 0, self._limit)
            if bev.closed:
                raise ClosedError("the stream was closed while a coroutine waited for its input")
        return True

    async def read(self, size: int = -1) -> bytes:
        """Wait for input, and return up to *size* bytes of it; all up to its end for -1.

        Returns b"" at the end. Raises `OSError` or `TimeoutError` when the connection fails.
        """
        size = convert.integer(size, "size", -lib.EV_SSIZE_MAX, lib.EV_SSIZE_MAX)
        if size == 0:
            return b""
        if size > 0:
            await self._more(0)
            return self._bev.input.remove(size)
        pieces = []
        while await self._more(0):
            pieces.append(self._bev.input.remove())
        return b"".join(pieces)

    async def readexactly(self, size: int) -> bytes:
        """Wait for *size* bytes of input and return them.

        Raises `asyncio.IncompleteReadError`, which has the rest, if the input ends before that;
        `ValueError` for a negative size; `OSError` or `TimeoutError` when the connection fails.
        """
        size = convert.integer(size, "size", 0, MOST)
        while len(self._bev.input) < size:
            if not await self._more(max(len(self._bev.input), size - 1)):
                raise asyncio.IncompleteReadError(self._bev.input.remove(), size)
        return self._bev.input.remove(size)

    async def readuntil(self, separator: Octets = b"\n") -> bytes:
        """Wait for *separator*; return the input up to it, with the separator.

        Raises `asyncio.IncompleteReadError` if the input ends before that, and
        `asyncio.LimitOverrunError`, which leaves the input as it is, if there are more bytes than
        the limit before it. Raises `OSError` or `TimeoutError` when the connection fails.
        """
        size, start = convert.octets(separator, "separator")[1], 0
        if not size:
            raise ValueError("separator must have at least one byte")
        input = self._bev.input
        while (found := input.search(separator, start)) < 0 or found > self._limit:
            length = len(input)
            if length > self._limit:
                text = f"there is no separator within the limit, {self._limit} bytes"
                raise asyncio.LimitOverrunError(text, found if found >= 0 else length)
            start = max(0, length - size + 1)
            if not await self._more(length):
                raise asyncio.IncompleteReadError(input.remove(), None)
        return input.remove(found + size)

    async def readline(self) -> bytes:
        """Wait for a line, and return it with its line feed; the rest at the end of the input.

        Returns b"" at the end. Raises `ValueError` for a line that is longer than the limit.
        """
        try:
            return await self.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            return error.partial
        except asyncio.LimitOverrunError as error:
            raise ValueError(f"a line is longer than the limit, {self._limit} bytes") from error

    async def readln(self, eol: EolStyle = EolStyle.CRLF) -> bytes | None:
        """Wait for a line that ends as *eol* says, and return it without its ending.

        Returns None at the end of the input; what has come there without a line ending stays, for
        `read`. Raises `ValueError` for a line that is longer than the limit.
        """
        input = self._bev.input
        while (found := input.search_eol(0, eol)[0]) < 0 or found > self._limit:
            length = len(input)
            if length > self._limit:
                raise ValueError(f"a line is longer than the limit, {self._limit} bytes")
            if not await self._more(length):
                return None
        return input.readln(eol)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if line := await self.readline():
            return line
        raise StopAsyncIteration

    def _is_ours(self) -> bool:
        """Tell whether the bufferevent can be set back: neither closed nor the parent process's."""
        return not self._bev.closed and not self._bev.base._forked

    # Output.

    def write(self, data: Octets) -> None:
        """Write *data* as soon as the peer takes it; wait for `drain` after much of it.

        Raises the error by which the connection has failed, if it has.
        """
        if self._error is not None:
            raise self._error
        self._bev.write(data)

    async def drain(self) -> None:
        """Wait until at most half of the limit is left to write, if there is more than the limit.

        Raises `OSError` or `TimeoutError` when the connection fails.
        """
        if len(self._bev.output) > self._limit:
            await self._written(self._limit // 2)

    async def _written(self, most: int) -> None:
        """Wait until at most *most* bytes are left to write."""
        bev = self._bev
        mark(bev, WRITE, most, 0)
        try:
            while not bev.closed and len(bev.output) > most:
                if self._error is not None:
                    raise self._error
                writer = waiter_on(bev.base)
                self._writers.add(writer)
                try:
                    await writer
                finally:
                    self._writers.discard(writer)
        finally:
            if self._is_ours():
                mark(bev, WRITE, self._limit // 2, 0)
        if bev.closed:
            raise ClosedError("the stream was closed while a coroutine waited for its output")

    async def write_eof(self) -> None:
        """Wait until all is written, and tell the peer that nothing more will come.

        Raises `ValueError` for a bufferevent that isn't a socket's own.
        """
        if self._bev.fd < 0 or self._bev.underlying is not None:
            raise ValueError("only a socket can be ended in one direction")
        await self._written(0)
        with lent(self._bev.fd) as own:
            own.shutdown(socket.SHUT_WR)

    # The end.

    def close(self) -> None:
        """Close it at once; what has not been written is lost. A second time does nothing."""
        if not self._bev.closed:
            self._bev.close()

    def _wake(self) -> None:
        """Let all go on that wait, to find that it is closed."""
        wake(self._opener)
        wake(self._reader)
        for writer in self._writers:
            wake(writer)

    async def aclose(self) -> None:
        """Wait until all is written, then close it; after a cancellation or an error, too."""
        try:
            if not self._bev.closed and self._error is None:
                await self._written(0)
        except (OSError, TimeoutError):
            pass  # who reads or writes has been told, or doesn't want to know
        finally:
            self.close()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.aclose()
        else:
            self.close()


def checked_limit(limit: int) -> int:
    """Return *limit*, or raise an error unless it is a number of bytes."""
    return convert.integer(limit, "limit", 1, MOST)


def wake(waiter: asyncio.Future[None] | None) -> None:
    """Let the coroutine go on that waits, if it still can."""
    if waiter is not None and can_go_on(waiter):
        waiter.set_result(None)


def reason(bev: BufferEvent, what: BufferEventFlag) -> BaseException:
    """Return why the bufferevent has failed, as *what* says."""
    if what & BufferEventFlag.TIMEOUT:
        direction = "read" if what & BufferEventFlag.READING else "written"
        return TimeoutError(f"nothing could be {direction} within the timeout of {bev!r}")
    return bev.error or ConnectionError(f"{bev!r} has failed")
