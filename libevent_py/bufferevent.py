"""``struct bufferevent``: a socket with an input and an output buffer, and callbacks for both."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

from libevent_py import _convert, errors
from libevent_py._convert import Timeout
from libevent_py._ffi import ffi, lib
from libevent_py._lifetime import Child, live, next_key
from libevent_py.base import EventBase
from libevent_py.buffer import BorrowedBuffer, Buffer, arena, checked
from libevent_py.enums import BufferEventFlag, BufferEventOption, EventFlag

DataCallback = Callable[[Any], object]
EventCallback = Callable[[Any, BufferEventFlag], object]

#: What can happen to a bufferevent, by C's number.
FLAGS = tuple(BufferEventFlag(number) for number in range(2 * BufferEventFlag.CONNECTED))

_BOTH = EventFlag.READ | EventFlag.WRITE
get_length = lib.evbuffer_get_length
remove = lib.evbuffer_remove
write = lib.bufferevent_write


class BufferEvent(Child):
    """A stream socket that libevent reads from and writes to; usable in ``with``, which closes it.

    It lives until it is closed, or its base is: nobody has to keep it.
    """

    __slots__ = (
        "_connected_by_us",
        "_input",
        "_lent",
        "_on_event",
        "_on_read",
        "_on_write",
        "_options",
        "_socket",
        "error",
    )

    rank = 2

    #: Why the last event was an error, as an `OSError`, or None; set before `on_event` is called.
    error: OSError | None

    def __init__(
        self,
        base: EventBase,
        fd: Any = -1,
        options: int = BufferEventOption.CLOSE_ON_FREE,
        *,
        on_read: DataCallback | None = None,
        on_write: DataCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> None:
        """Make a bufferevent for the stream socket *fd*, or with -1 for one that `connect` makes.

        *fd* is a descriptor or a socket object; it is set not to block. With CLOSE_ON_FREE it
        belongs to the bufferevent, and a socket object is detached from it; without, a socket
        object is kept alive. Writing is enabled from the start, reading is not. The callbacks are
        as in `setcb`. Wraps ``bufferevent_socket_new``.
        """
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        base.check_thread()
        options = _checked(options)
        callbacks = _callbacks(on_read, on_write, on_event)
        number = -1 if isinstance(fd, int) and fd == -1 else _convert.descriptor(fd)
        if number >= 0:
            if options & BufferEventOption.CLOSE_ON_FREE:
                _convert.surrendered(fd)
            errors.call(lib.evutil_make_socket_nonblocking, number)
        key = next_key()
        pointer = errors.new(lib.bufferevent_socket_new, base.pointer, number, options)
        super().__init__(base, key, pointer)
        self._options = options
        self._connected_by_us = False
        self._socket = None
        self._lent: list[weakref.ref[Buffer]] = []
        self._input = lib.bufferevent_get_input(pointer)
        self.error = None
        if not isinstance(fd, int):
            if options & BufferEventOption.CLOSE_ON_FREE:
                fd.detach()
            else:
                self._socket = fd
        self._on_read, self._on_write, self._on_event = callbacks
        self._set_callbacks()
        base.live[key] = self

    # Callbacks.

    def setcb(
        self,
        on_read: DataCallback | None,
        on_write: DataCallback | None,
        on_event: EventCallback | None,
    ) -> None:
        """Set all three callbacks at once; None means that nobody is called.

        ``on_read(bev)`` when there is more input than the low watermark, ``on_write(bev)`` when
        there is no more output than it, ``on_event(bev, what)`` at the end, an error, a timeout or
        a connection.
        Wraps ``bufferevent_setcb``.
        """
        callbacks = _callbacks(on_read, on_write, on_event)
        self._on_read, self._on_write, self._on_event = callbacks
        self._set_callbacks()

    def _set_callbacks(self) -> None:
        self.base.check_thread()
        lib.evpy_bufferevent_setcb(
            self.pointer,
            self._on_read is not None,
            self._on_write is not None,
            self._on_event is not None,
            self.key,
        )

    @property
    def on_read(self) -> DataCallback | None:
        """What is called as ``on_read(bev)`` when there is input to read, or None."""
        return self._on_read

    @on_read.setter
    def on_read(self, callback: DataCallback | None) -> None:
        self._on_read = None if callback is None else _convert.callback(callback, "on_read")
        self._set_callbacks()

    @property
    def on_write(self) -> DataCallback | None:
        """What is called as ``on_write(bev)`` when the output has been written, or None."""
        return self._on_write

    @on_write.setter
    def on_write(self, callback: DataCallback | None) -> None:
        self._on_write = None if callback is None else _convert.callback(callback, "on_write")
        self._set_callbacks()

    @property
    def on_event(self) -> EventCallback | None:
        """What is called as ``on_event(bev, what)`` when something happens, or None."""
        return self._on_event

    @on_event.setter
    def on_event(self, callback: EventCallback | None) -> None:
        self._on_event = None if callback is None else _convert.callback(callback, "on_event")
        self._set_callbacks()

    # Data.

    def read(self, size: int | None = None) -> bytes:
        """Take up to *size* bytes of the input, or with None all of it.

        Wraps ``bufferevent_read``.
        """
        self.base.check_thread()
        self.pointer  # noqa: B018  (with it, the input would be gone)
        if size is None:
            size = get_length(self._input)
            if size <= arena.size:
                return bytes(arena.bytes[: remove(self._input, arena.memory, size)])
        return self.input.remove(size)

    def write(self, data: Any) -> None:
        """Append *data*, bytes or any object with the buffer protocol, to the output.

        Wraps ``bufferevent_write``.
        """
        self.base.check_thread()
        octets, size = (data, len(data)) if type(data) is bytes else _convert.octets(data)
        if write(self.pointer, octets, size):
            raise errors.failed(lib.bufferevent_write)

    def read_buffer(self, buffer: Buffer) -> None:
        """Move all of the input to the end of *buffer*. Wraps ``bufferevent_read_buffer``."""
        self.base.check_thread()
        errors.call(lib.bufferevent_read_buffer, self.pointer, checked(buffer).pointer)

    def write_buffer(self, buffer: Buffer) -> None:
        """Move all of *buffer* to the end of the output. Wraps ``bufferevent_write_buffer``."""
        self.base.check_thread()
        errors.call(lib.bufferevent_write_buffer, self.pointer, checked(buffer).pointer)

    @property
    def input(self) -> Buffer:
        """What has been read: a buffer that ends with the bufferevent, and can't be added to.

        Wraps ``bufferevent_get_input``.
        """
        return self._lend(lib.bufferevent_get_input(self.pointer))

    @property
    def output(self) -> Buffer:
        """What is to be written: a buffer that ends with the bufferevent, and can't be taken from.

        Wraps ``bufferevent_get_output``.
        """
        return self._lend(lib.bufferevent_get_output(self.pointer))

    def _lend(self, pointer: Any) -> Buffer:
        self.base.check_thread()
        for buffer in self.lent():
            if buffer.pointer == pointer:
                return buffer
        buffer = BorrowedBuffer.borrowed(pointer, self)
        self._lent = [ref for ref in self._lent if ref() is not None]
        self._lent.append(weakref.ref(buffer))
        return buffer

    def lent(self) -> list[Buffer]:  # type: ignore[override]
        """Return the buffers that have been borrowed and are still held."""
        return [buffer for ref in self._lent if (buffer := ref()) is not None]

    # What it waits for.

    def enable(self, what: int) -> None:
        """Read, write or both from now on, as *what* says. Wraps ``bufferevent_enable``."""
        what = self._directions(what)
        errors.call(lib.bufferevent_enable, self.pointer, what)

    def disable(self, what: int) -> None:
        """Stop to read, write or both, as *what* says. Wraps ``bufferevent_disable``."""
        what = self._directions(what)
        errors.call(lib.bufferevent_disable, self.pointer, what)

    @property
    def enabled(self) -> EventFlag:
        """Which of READ and WRITE are enabled. Wraps ``bufferevent_get_enabled``."""
        return EventFlag(lib.bufferevent_get_enabled(self.pointer))

    def setwatermark(self, what: int, low: int, high: int) -> None:
        """Set the watermarks in bytes of the input, the output or both, as *what* says.

        `on_read` waits for *low* bytes of input, and reading stops at *high*; `on_write` waits
        until no more than *low* bytes of output are left. 0 stands for no limit. While reading is
        enabled, `on_read` is called again and again until it leaves less than *high*.
        Wraps ``bufferevent_setwatermark``.
        """
        what = self._directions(what)
        low = _convert.integer(low, "low", 0, lib.EV_SSIZE_MAX)
        high = _convert.integer(high, "high", 0, lib.EV_SSIZE_MAX)
        errors.call(lib.bufferevent_setwatermark, self.pointer, what, low, high)

    def getwatermark(self, what: int) -> tuple[int, int]:
        """Return the watermarks ``(low, high)`` in bytes of the input, or of the output.

        Wraps ``bufferevent_getwatermark``.
        """
        what = self._directions(what)
        if what == _BOTH:
            raise ValueError(f"what must be READ or WRITE, not {what!r}")
        marks = ffi.new("size_t[2]")
        errors.call(lib.bufferevent_getwatermark, self.pointer, what, marks, marks + 1)
        return int(marks[0]), int(marks[1])

    def set_timeouts(self, read: Timeout, write: Timeout) -> None:
        """Have `on_event` called with TIMEOUT after *read* seconds without input, *write* of
        blocked output.

        None means never. Unlike in C, 0 is the shortest time and not none.
        Wraps ``bufferevent_set_timeouts``.
        """
        self.base.check_thread()
        reading = _convert.optional_seconds(read, "read")
        writing = _convert.optional_seconds(write, "write")
        errors.call(lib.evpy_bufferevent_set_timeouts, self.pointer, reading, writing)

    def _directions(self, what: int) -> EventFlag:
        self.base.check_thread()
        flags = _convert.flags(EventFlag, what, "what")
        if not flags or flags & ~_BOTH:
            raise ValueError(f"what must be of READ and WRITE, not {flags!r}")
        return flags

    # The socket.

    def connect(self, address: _convert.Address) -> None:
        """Begin to connect to *address*; `on_event` will say CONNECTED or ERROR.

        Raises `ValueError` for what is no numeric address. Wraps ``bufferevent_socket_connect``.
        """
        self.base.check_thread()
        target = _convert.sockaddr(address)
        if self.fd < 0:
            self._connected_by_us = True
        errors.call(lib.bufferevent_socket_connect, self.pointer, target.pointer, target.length)

    @property
    def fd(self) -> int:
        """The descriptor, or -1. Wraps ``bufferevent_getfd``."""
        return int(lib.bufferevent_getfd(self.pointer))

    def owns(self, fd: int) -> bool:
        """Tell whether closing the bufferevent closes the descriptor *fd*."""
        owner = self._connected_by_us or self._options & BufferEventOption.CLOSE_ON_FREE
        return bool(owner) and self.fd == fd

    @property
    def free(self) -> Callable[[Any], object]:  # type: ignore[override]
        """What frees the bufferevent and what it owns. Wraps ``bufferevent_free``."""
        if self._options & BufferEventOption.CLOSE_ON_FREE:
            return lib.evpy_bufferevent_free  # type: ignore[no-any-return]
        if self._connected_by_us:
            return lib.evpy_bufferevent_free_with_fd  # type: ignore[no-any-return]
        return lib.evpy_bufferevent_free_without_fd  # type: ignore[no-any-return]


def _callbacks(
    on_read: DataCallback | None, on_write: DataCallback | None, on_event: EventCallback | None
) -> tuple[DataCallback | None, DataCallback | None, EventCallback | None]:
    """Return the callbacks, or raise `TypeError` if one of them is neither None nor callable."""
    for name, callback in (("on_read", on_read), ("on_write", on_write), ("on_event", on_event)):
        if callback is not None:
            _convert.callback(callback, name)
    return on_read, on_write, on_event


def _checked(options: int) -> BufferEventOption:
    """Return *options*, or raise an error for a combination that libevent can't do (F1)."""
    flags = _convert.flags(BufferEventOption, options, "options")
    if flags & BufferEventOption.UNLOCK_CALLBACKS and not flags & BufferEventOption.DEFER_CALLBACKS:
        raise ValueError("options can have UNLOCK_CALLBACKS only with DEFER_CALLBACKS")
    return flags


@ffi.def_extern(onerror=errors.kept)
def evpy_bufferevent_read(key: int) -> None:
    for base in live.bases:
        bev = base.live.get(key)
        if bev is not None and bev._on_read is not None:
            try:
                bev._on_read(bev)
            except BaseException as error:
                base.report(error, bev)


@ffi.def_extern(onerror=errors.kept)
def evpy_bufferevent_write(key: int) -> None:
    for base in live.bases:
        bev = base.live.get(key)
        if bev is not None and bev._on_write is not None:
            try:
                bev._on_write(bev)
            except BaseException as error:
                base.report(error, bev)


@ffi.def_extern(onerror=errors.kept)
def evpy_bufferevent_event(key: int, what: int, error: int) -> None:
    for base in live.bases:
        bev = base.live.get(key)
        if bev is not None and bev._on_event is not None:
            failed = what & BufferEventFlag.ERROR and error
            bev.error = OSError(error, os.strerror(error)) if failed else None
            try:
                bev._on_event(bev, FLAGS[what])
            except BaseException as raised:
                base.report(raised, bev)
