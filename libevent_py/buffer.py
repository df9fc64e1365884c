"""``struct evbuffer``: a queue of bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from libevent_py._ffi import ffi
from libevent_py._lifetime import Child, Handle, fill, slot
from libevent_py._octets import Octets
from libevent_py._octets import checked as checked

#: Empties the slot that `slot` and `fill` are about.
empty: Callable[[Handle], None] = Handle.__dict__["pointer"].__delete__


class _Arena(threading.local):
    """Memory that a thread copies through, so that small reads need not allocate any."""

    size = 65536

    def __init__(self) -> None:
        self.memory = ffi.new("char[]", self.size)
        self.bytes = ffi.buffer(self.memory)


arena = _Arena()


class Buffer(Octets):
    """A queue of bytes that grows at one end and shrinks at the other; usable in ``with``.

    Everything that takes bytes takes any object with the buffer protocol. Several threads may use
    one at a time, as it has a lock. One that belongs to a bufferevent is closed with it, keeps it
    alive, and is used only in the thread that runs its loop.
    """

    __slots__ = ()

    @classmethod
    def borrowed(cls, pointer: Any, owner: Child) -> Buffer:
        """Make the handle of a buffer that *owner* frees."""
        buffer = cls.__new__(cls)
        buffer._owner = owner
        buffer._entry = None
        buffer._plain = False
        buffer.pointer = pointer
        return buffer

    def close(self) -> None:
        """Free the buffer; a second time does nothing.

        Whoever is inside a call to it, this thread or another, finishes it first (D2). Raises
        `ValueError` when it belongs to a bufferevent, which frees it. Wraps ``evbuffer_free``.
        """
        if self._owner is not None:
            raise ValueError("a bufferevent's own buffer is closed by closing the bufferevent")
        self._take()


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

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Enter C where what it calls back belongs to the owner's base; also return failures."""
        owner: Any = self._owner
        result = owner.base.call(_without_failing, function, *arguments)
        return -1 if result is None else result


def _without_failing(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call *function*, and return None where it fails."""
    result = function(*arguments)
    return None if result == -1 else result
