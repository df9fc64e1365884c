"""The transport of a socket: asyncio's own, whose reading and writing is done in C.

*Reading.* libevent calls C (`_c/aio_stream.c`), which receives, and calls ``data_received`` with
the bytes, in the context that the transport began to read in. What that makes ready runs at once
afterwards if nothing was ready before. A `BufferedProtocol`, and debug mode, read as asyncio does.

*Writing.* While the loop runs a callback, what is written is held back, and sent when the callback
returns, by one system call for all the pieces; beyond 64 KiB, and outside the loop's callbacks, it
is sent at once. What the socket doesn't take goes asyncio's way, as does everything else: `Stream`
has the flag ``open``, which is off as long as the transport is in any state but the usual one.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import socket
from asyncio import selector_events
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from libevent_py.aio.native import Stream

if TYPE_CHECKING:
    from libevent_py.aio.loop import EventLoop

    class _Transport(asyncio.Transport):
        """asyncio's transport, which its stubs don't know well."""

        _buffer: Any
        _closing: bool
        _conn_lost: int
        _empty_waiter: asyncio.Future[None] | None
        _eof: bool
        _loop: EventLoop
        _paused: bool
        _protocol: asyncio.Protocol
        _read_ready_cb: object
        _sock: socket.socket
        _sock_fd: int

        def __init__(
            self,
            loop: object,
            sock: object,
            protocol: object,
            waiter: object,
            extra: object,
            server: object,
        ) -> None: ...

        def _add_reader(self, fd: int, callback: Callable[..., object], *args: object) -> None: ...
        def _call_connection_lost(self, exc: BaseException | None) -> None: ...
        def _fatal_error(self, exc: BaseException, message: str = "") -> None: ...
        def _force_close(self, exc: BaseException | None) -> None: ...
        def _make_empty_waiter(self) -> asyncio.Future[None]: ...
        def _read_ready__on_eof(self) -> None: ...
        def _reset_empty_waiter(self) -> None: ...
        def _write_ready(self) -> None: ...
        def _write_send(self) -> None: ...
        def _write_sendmsg(self) -> None: ...
else:
    _Transport = selector_events._SelectorSocketTransport


class SocketTransport(_Transport):
    """A transport of a TCP or UNIX socket."""

    _stream: Stream | None = None
    #: Whether C reads, or is to read when reading is resumed.
    _streams = False

    def __init__(
        self,
        loop: EventLoop,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, object] | None = None,
        server: object = None,
    ) -> None:
        super().__init__(loop, sock, protocol, waiter, extra, server)
        self._stream = stream = Stream(loop, self._sock_fd)
        stream.transport = self
        vars(self)["write"] = stream.write
        self._look()

    def _look(self) -> None:
        """Note whether what is written may go to the socket at once."""
        if self._stream is not None:
            self._stream.open = not (
                self._eof
                or self._closing
                or self._conn_lost
                or self._buffer
                or self._empty_waiter is not None
            )

    def _flush(self) -> None:
        """Send what is held back."""
        if self._stream is not None:
            self._stream.flush()

    # Reading.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have *protocol* told of everything from now on."""
        super().set_protocol(protocol)
        streams = not isinstance(protocol, asyncio.BufferedProtocol)
        before, self._streams = self._streams, streams
        if self._stream is None:  # it is being made
            return
        if streams:
            self._stream.protocol = protocol
        if before != streams and self.is_reading():
            self._loop._remove_reader(self._sock_fd)
            self._add_reader(self._sock_fd, self._read_ready)  # type: ignore[attr-defined]

    def _add_reader(self, fd: int, callback: Callable[..., object], *args: object) -> None:
        """Begin to read."""
        stream = self._stream
        if stream is None or not self._streams or self._loop._debug:
            super()._add_reader(fd, callback, *args)
        elif self.is_reading():
            stream.context = contextvars.copy_context()
            stream.protocol = self._protocol
            self._loop._add_stream(self._sock, stream)

    def _ended(self, error: int) -> None:
        """Do what there is to do at the end of the input, or after the *error*."""
        if self._conn_lost:
            return
        if error:
            failure = OSError(error, os.strerror(error))
            self._fatal_error(failure, "Fatal read error on socket transport")
        else:
            self._read_ready__on_eof()

    def _failed(self, error: BaseException) -> None:
        """Do what there is to do when the protocol has raised *error*."""
        self._fatal_error(error, "Fatal error: protocol.data_received() call failed.")

    # Writing.

    def _unsent(self, data: bytes | bytearray | memoryview, error: int) -> None:
        """Write *data* asyncio's way, as C has not: after *error*, or for want of room."""
        if error and error not in RETRIED:
            failure = OSError(error, os.strerror(error))
            self._fatal_error(failure, "Fatal write error on socket transport")
        else:
            if self._stream is not None:  # what pause_writing() writes comes after the data
                self._stream.open = False
            super().write(data)
            self._look()

    def _write_ready(self) -> None:
        super()._write_ready()
        self._look()

    # What Python 3.12 and later have instead.

    def _write_send(self) -> None:
        super()._write_send()
        self._look()

    def _write_sendmsg(self) -> None:
        super()._write_sendmsg()
        self._look()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write all pieces, in one."""
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are yet to be sent."""
        held = self._stream.held if self._stream is not None else 0
        return super().get_write_buffer_size() + held

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set how much may be left to write before the protocol is told to pause."""
        self._flush()  # what is only held back is nothing to wait for
        super().set_write_buffer_limits(high, low)

    def write_eof(self) -> None:
        """Have the peer read the end, after what is written."""
        self._flush()
        super().write_eof()
        self._look()

    def _make_empty_waiter(self) -> asyncio.Future[None]:
        self._flush()
        waiter = super()._make_empty_waiter()
        self._look()
        return waiter

    def _reset_empty_waiter(self) -> None:
        super()._reset_empty_waiter()
        self._look()

    # The end.

    def close(self) -> None:
        """Close it once everything is sent."""
        self._flush()
        super().close()
        self._look()

    def _force_close(self, exc: BaseException | None) -> None:
        self._flush()
        super()._force_close(exc)
        self._look()

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        try:
            super()._call_connection_lost(exc)
        finally:
            self._forget()

    def _forget(self) -> None:
        """Let go of the stream, so that nothing is left that refers to itself."""
        stream, self._stream = self._stream, None
        vars(self).pop("write", None)
        self._read_ready_cb = None
        if stream is not None:
            stream.end()


#: Errors after which the same bytes are sent again.
RETRIED = (errno.EAGAIN,)
