"""``struct bufferevent``: a socket with an input and an output buffer, and callbacks for both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libevent_py import _convert, errors
from libevent_py._ffi import lib
from libevent_py._lifetime import next_key
from libevent_py._stream import (
    DataCallback,
    EventCallback,
    Stream,
    checked_callbacks,
    checked_options,
)
from libevent_py.base import EventBase
from libevent_py.enums import BufferEventOption


class BufferEvent(Stream):
    """A stream socket that libevent reads from and writes to; usable in ``with``, which closes it.

    It lives until it is closed, or its base is: nobody has to keep it.
    """

    __slots__ = ("_connected_by_us", "_socket")

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
        self._check_unmade()
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        base.check_thread()
        options = checked_options(options)
        callbacks = checked_callbacks(on_read, on_write, on_event)
        number = _usable(fd, options)
        for_c = options & ~BufferEventOption.EAGER
        pointer = errors.new(lib.bufferevent_socket_new, base.pointer, number, for_c)
        if BufferEventOption.EAGER in options:
            lib.bufferevent_set_max_single_read(pointer, lib.EVPY_ARENA)
        self._connected_by_us = False
        self._socket: Any = None
        self._start(base, next_key(), pointer, options, callbacks)
        self._adopt(fd)

    def _adopt(self, fd: Any) -> None:
        """Take the socket object *fd* from who made it, or keep it for them."""
        self._socket = None
        if not isinstance(fd, int):
            if self._options & BufferEventOption.CLOSE_ON_FREE:
                fd.detach()
            else:
                self._socket = fd

    def connect(self, address: _convert.Address) -> None:
        """Begin to connect to *address*; `on_event` will say CONNECTED or ERROR.

        Raises `ValueError` for what is no numeric address. Wraps ``bufferevent_socket_connect``.
        """
        self.base.check_thread()
        self._settle()
        target = _convert.sockaddr(address)
        if self.fd < 0:
            self._connected_by_us = True
        errors.call(lib.bufferevent_socket_connect, self.pointer, target.pointer, target.length)

    @property
    def fd(self) -> int:
        """The descriptor, or -1.

        Setting it to another, or a socket object, has that read and written from now on; it is
        taken or kept as when the bufferevent is made. The old one, if it belonged to the
        bufferevent, is closed; unlike in C, where nobody would close it.
        Wraps ``bufferevent_getfd``, ``bufferevent_setfd``.
        """
        return int(lib.bufferevent_getfd(self.pointer))

    @fd.setter
    def fd(self, fd: Any) -> None:
        self.base.check_thread()
        self._settle()
        number = _usable(fd, self._options)
        old, owned = self.fd, self.owns(self.fd)
        if number == old >= 0:
            raise ValueError(f"fd {number} is the bufferevent's already")
        errors.call(lib.bufferevent_setfd, self.pointer, number)
        self._connected_by_us = False
        self._adopt(fd)
        self._set_callbacks()
        if owned:
            errors.call(lib.evutil_closesocket, old)

    def detach(self) -> int:
        """Leave the descriptor to the caller, who closes it, and return it; or -1.

        The bufferevent goes on without one. Wraps ``bufferevent_setfd``.
        """
        self.base.check_thread()
        self._settle()
        fd = self.fd
        errors.call(lib.bufferevent_setfd, self.pointer, -1)
        self._connected_by_us = False
        if self._socket is not None:
            self._socket.detach()
            self._socket = None
        return fd

    def owns(self, fd: int) -> bool:
        """Tell whether closing the bufferevent closes the descriptor *fd*."""
        owner = self._connected_by_us or self._options & BufferEventOption.CLOSE_ON_FREE
        return bool(owner) and self.fd == fd >= 0

    @property
    def free(self) -> Callable[[Any], object]:  # type: ignore[override]
        """What frees the bufferevent and what it owns. Wraps ``bufferevent_free``."""
        if self._options & BufferEventOption.CLOSE_ON_FREE:
            free = lib.evpy_bufferevent_free
        elif self._connected_by_us:
            free = lib.evpy_bufferevent_free_with_fd
        else:
            free = lib.evpy_bufferevent_free_without_fd
        eager = self._eager
        if eager is None:
            return free  # type: ignore[no-any-return]

        def both(pointer: Any) -> None:
            free(pointer)
            lib.evpy_eager_free(eager)

        return both


def _usable(fd: Any, options: BufferEventOption) -> int:
    """Return the descriptor that *fd* is or has, set not to block, or -1 for none."""
    if isinstance(fd, int) and fd == -1:
        return -1
    number = _convert.descriptor(fd)
    if options & BufferEventOption.CLOSE_ON_FREE:
        _convert.surrendered(fd)
    errors.call(lib.evutil_make_socket_nonblocking, number)
    return number
