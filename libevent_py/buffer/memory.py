"""The memory of buffers: views of it, references to Python's, and reserved space.

A view may outlive the buffer that it was taken from, the one that has the bytes now, and the base.
So memory that a view shows is moved to a keeper (`_c/shared.c`), which is freed with the last view.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from libevent_py import errors
from libevent_py._core.dispatch import next_key
from libevent_py._core.handle import Role, empty, fill, subclass_of
from libevent_py._core.pointers import owned
from libevent_py._core.references import references
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.failure import failure

if TYPE_CHECKING:
    from libevent_py._ffi import Arguments, CData, Memory, Unpack

drop: Final = lib.evpy_keeper_drop


def refer(pointer: CData, view: CData | bytes, size: int) -> int:
    """Append *view* to C's buffer, and keep it alive until C no longer needs it."""
    key = next_key()
    references[key] = view
    result = int(lib.evpy_add_reference(pointer, view, size, key))
    if result == -2:  # C has not taken it, so it will never release it
        del references[key]
    return result


class Reserved(Role):
    """The role of a buffer that has memory reserved in it."""

    __slots__ = ()

    _space: Space | None

    def _get_pointer(self) -> CData:
        """The C object; raises `RuntimeError` while memory is reserved."""
        if self._space is not None:
            raise RuntimeError(
                "memory is reserved in this buffer: commit() it, or leave the block of reserve()"
            )
        pointer: CData = super().pointer
        return pointer

    if not TYPE_CHECKING:
        pointer = property(_get_pointer, fill, empty)

    def lock(self) -> AbstractContextManager[None]:
        self._check_usable()  # a bufferevent's buffer has no lock of its own
        held: AbstractContextManager[None] = super().lock()
        return held

    def close(self) -> None:
        if not self.closed:
            self._check_usable()  # raises, unless the owner has been closed
        super().close()


class Space:
    """Memory of C's for a user to write to, before it is added to a buffer."""

    __slots__ = ("_seen", "kind", "reserved", "size", "view", "views")

    def __init__(self, size: int) -> None:
        #: The buffer's own class, and the one that it has while this memory is reserved.
        self.kind: Any = None
        self.reserved: Any = None
        self.size: int = size
        self.views: CData = owned(lib.evpy_views_free, lib.evpy_reserve, size)
        if not self.views:
            raise failure(lib.evbuffer_reserve_space)
        octets = memory(self.views.views)
        self.view: memoryview[int] = memoryview(octets)
        self._seen = weakref.ref(octets)

    def __repr__(self) -> str:
        return f"<Space of {self.size} bytes>"

    def be_of(self, kind: Any) -> None:
        """Be reserved for a buffer of the class *kind*."""
        self.kind = kind
        self.reserved = subclass_of(kind, Reserved)

    def end(self) -> bool:
        """End the view; return whether no slice of it is left through which to write."""
        with contextlib.suppress(BufferError):  # somebody uses it right now
            self.view.release()
        return self._seen() is None


def memory(view: CData) -> Memory:
    """Return C's *view* as a ``ffi.buffer``, which keeps the memory alive."""
    held = owned(partial(drop, view.keeper), lib.evpy_view_hold, view)
    return ffi.buffer(held, view.size)


def views(
    function: Callable[..., object],
    show: Callable[[Unpack[Arguments]], CData],
    *arguments: Unpack[Arguments],
) -> list[memoryview]:
    """Return memoryviews for what C's *show* returns; if NULL, raise why *function* failed."""
    shown: list[CData] = []
    try:
        errors.handed(shown.append, show, arguments)
        if not shown:
            raise failure(function)
        first = shown[0].views
        return [memoryview(memory(first + i)).toreadonly() for i in range(shown[0].n)]
    finally:
        if shown:
            lib.evpy_views_free(shown[0])
