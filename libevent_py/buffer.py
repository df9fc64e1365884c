"""``struct evbuffer``: a queue of bytes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from libevent_py import _convert, errors
from libevent_py._ffi import ffi, lib
from libevent_py._lifetime import Child, Handle, fill, slot

#: Empties the slot that `slot` and `fill` are about.
empty: Callable[[Handle], None] = Handle.__dict__["pointer"].__delete__

#: The most that one call takes: evbuffer_remove counts in an int (D13).
MOST = 2**31 - 1


class _Arena(threading.local):
    """Memory that a thread copies through, so that small reads need not allocate any."""

    size = 65536

    def __init__(self) -> None:
        self.memory = ffi.new("char[]", self.size)
        self.bytes = ffi.buffer(self.memory)


arena = _Arena()


class Buffer(Handle):
    """A queue of bytes that grows at one end and shrinks at the other; usable in ``with``.

    One that belongs to a bufferevent is closed with it, and keeps it alive.
    """

    __slots__ = ("_owner",)

    def __init__(self, data: Any = b"") -> None:
        """Make a buffer that contains *data*. Wraps ``evbuffer_new``."""
        self._owner: Child | None = None
        super().__init__(errors.new(lib.evbuffer_new))
        self.add(data)

    @classmethod
    def borrowed(cls, pointer: Any, owner: Child) -> Buffer:
        """Make the handle of a buffer that *owner* frees."""
        buffer = cls.__new__(cls)
        buffer._owner = owner
        buffer.pointer = pointer
        return buffer

    def _unusable(self) -> Exception:
        return super()._unusable() if self._owner is None else self._owner._unusable()

    def __len__(self) -> int:
        """Return the number of bytes. Wraps ``evbuffer_get_length``."""
        return int(lib.evbuffer_get_length(self.pointer))

    def __bool__(self) -> bool:
        return len(self) > 0

    def __bytes__(self) -> bytes:
        """Return a copy of the whole content."""
        return self.copyout()

    def add(self, data: Any) -> None:
        """Append a copy of *data*, bytes or any object with the buffer protocol.

        Wraps ``evbuffer_add``.
        """
        octets, size = _convert.octets(data)
        errors.call(lib.evbuffer_add, self.pointer, octets, size)

    def add_buffer(self, other: Buffer) -> None:
        """Move all bytes of *other* to the end of this buffer, without copying.

        Wraps ``evbuffer_add_buffer``.
        """
        errors.call(lib.evbuffer_add_buffer, self.pointer, checked(other, "other").pointer)

    def remove(self, size: int | None = None) -> bytes:
        """Take up to *size* bytes from the front, or with None all. Wraps ``evbuffer_remove``."""
        return self._copy(lib.evbuffer_remove, size)

    def copyout(self, size: int | None = None) -> bytes:
        """Return a copy of up to *size* bytes from the front, or with None of all.

        Wraps ``evbuffer_copyout``.
        """
        return self._copy(lib.evbuffer_copyout, size)

    def _copy(self, function: Any, size: int | None) -> bytes:
        pointer = self.pointer
        wanted = lib.evbuffer_get_length(pointer)
        if size is not None:
            wanted = min(wanted, _convert.integer(size, "size", 0, sys.maxsize))
        if wanted <= arena.size:
            copied = errors.call(function, pointer, arena.memory, wanted)
            return bytes(arena.bytes[:copied])
        memory = bytearray(wanted)
        view, done = ffi.from_buffer(memory), 0
        if function is lib.evbuffer_remove:
            while done < wanted and (
                part := errors.call(function, pointer, view + done, min(wanted - done, MOST))
            ):
                done += part
        else:
            done = errors.call(function, pointer, view, wanted)
        ffi.release(view)
        del memory[done:]
        return bytes(memory)

    def drain(self, size: int) -> None:
        """Drop up to *size* bytes from the front. Wraps ``evbuffer_drain``."""
        size = _convert.integer(size, "size", 0, sys.maxsize)
        errors.call(lib.evbuffer_drain, self.pointer, size)

    def remove_buffer(self, other: Buffer, size: int) -> int:
        """Move up to *size* bytes from the front to the end of *other*; return how many.

        Wraps ``evbuffer_remove_buffer``.
        """
        size = _convert.integer(size, "size", 0, MOST)
        target = checked(other, "other").pointer
        return int(errors.call(lib.evbuffer_remove_buffer, self.pointer, target, size))

    def search(self, what: Any, start: int = 0) -> int:
        """Return the position of the first *what* at or after *start*, or -1.

        Wraps ``evbuffer_search``, ``evbuffer_ptr_set``.
        """
        octets, size = _convert.octets(what, "what")
        pointer = self.pointer
        start = _convert.integer(start, "start", 0, len(self))
        if not size:
            return start
        position = ffi.new("struct evbuffer_ptr *")
        errors.call(lib.evbuffer_ptr_set, pointer, position, start, lib.EVBUFFER_PTR_SET)
        return int(lib.evbuffer_search(pointer, octets, size, position).pos)

    def close(self) -> None:
        """Free the buffer; a second time does nothing.

        Raises `ValueError` when it belongs to a bufferevent, which frees it.
        Wraps ``evbuffer_free``.
        """
        if self._owner is not None:
            raise ValueError("a bufferevent's own buffer is closed by closing the bufferevent")
        pointer = self._take()
        if pointer is not None:
            lib.evbuffer_free(pointer)

    def __del__(self) -> None:
        try:
            pointer = slot(self)
            empty(self)  # a finalizer of the user's, in the same cycle, may come later
        except AttributeError:
            return
        if self._owner is None and not sys.is_finalizing():
            lib.evbuffer_free(pointer)


class BorrowedBuffer(Buffer):
    """A bufferevent's own buffer, which only the thread that runs the loop may use meanwhile."""

    __slots__ = ()

    @property
    def pointer(self) -> Any:
        """The C object; raises `ClosedError` once it is closed, `ThreadError` in a wrong thread."""
        owner: Any = self._owner
        owner.base.check_thread()
        owner.pointer  # noqa: B018  (the collector may have finalized it, in a cycle with this one)
        owner.reclaim()
        return slot(self)

    @pointer.setter
    def pointer(self, pointer: Any) -> None:
        fill(self, pointer)

    @pointer.deleter
    def pointer(self) -> None:
        empty(self)


def checked(buffer: Any, name: str = "buffer") -> Buffer:
    """Return *buffer*, or raise `TypeError` unless it is a `Buffer`."""
    if not isinstance(buffer, Buffer):
        raise TypeError(f"{name} must be a Buffer, not {buffer!r}")
    return buffer
