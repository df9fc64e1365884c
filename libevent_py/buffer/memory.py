"""The memory of buffers: what is shown, referred to, and written to.

A view may outlive the buffer that it was taken from, the one that has the bytes now, and the base.
So memory that a view shows is moved to a keeper (`_c/shared.c`), which is freed with the last view.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from libevent_py._core.dispatch import next_key
from libevent_py._core.handle import Role, empty, fill, subclass_of
from libevent_py._core.pointers import owned, shared
from libevent_py._core.references import references
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.failure import failure

drop = lib.evpy_keeper_drop


def refer(pointer: Any, view: Any, size: int) -> int:
    """Append *view* to C's buffer, and keep it until C no longer needs it."""
    key = next_key()
    references[key] = view
    result = int(lib.evpy_add_reference(pointer, view, size, key))
    if result == -2:  # it won't say so
        del references[key]
    return result


class Reserved(Role):
    """The role of a buffer that has memory reserved in it."""

    __slots__ = ()

    _space: Space | None

    def _get_pointer(self) -> Any:
        """The C object; raises `RuntimeError` until what is reserved has been committed."""
        if self._space is not None:
            raise RuntimeError(
                "memory is reserved in this buffer: commit() it, or leave the block of reserve()"
            )
        return super().pointer

    pointer = property(_get_pointer, fill, empty)

    def lock(self) -> AbstractContextManager[None]:
        self._check_usable()  # a bufferevent's buffer has no lock of its own
        held: AbstractContextManager[None] = super().lock()
        return held

    def close(self) -> None:
        if not self.closed:
            self._check_usable()  # but it may be closed with what it belongs to
        super().close()


class Space:
    """Memory of C's that is written to before it is added to a buffer."""

    __slots__ = ("_seen", "kind", "reserved", "size", "view", "views")

    def __init__(self, size: int) -> None:
        #: The buffer's class, and the one that it has while this is reserved.
        self.kind: Any = None
        self.reserved: Any = None
        self.size = size
        self.views = owned(lib.evpy_views_free, lib.evpy_reserve, size)
        if not self.views:
            raise failure(lib.evbuffer_reserve_space)
        octets = memory(self.views.views)
        self.view = memoryview(octets)
        self._seen = weakref.ref(octets)

    def __repr__(self) -> str:
        return f"<Space of {self.size} bytes>"

    def be_of(self, kind: Any) -> None:
        """Be reserved for a buffer of the class *kind*."""
        self.kind = kind
        self.reserved = subclass_of(kind, Reserved)

    def end(self) -> bool:
        """End the view; return whether nobody holds a part of it to write to."""
        with contextlib.suppress(BufferError):  # somebody uses it right now
            self.view.release()
        return self._seen() is None


def memory(view: Any) -> Any:
    """Return the memory in C's *view*, which it keeps, as a ``ffi.buffer``."""
    return ffi.buffer(shared(lib.evpy_view_hold(view), partial(drop, view.keeper)), view.size)


def views(shown: Any, function: Callable[..., Any]) -> list[memoryview]:
    """Return views of what C shows, and free *shown*; for NULL raise that *function* failed."""
    if shown == ffi.NULL:
        raise failure(function)
    try:
        return [memoryview(memory(shown.views + i)).toreadonly() for i in range(shown.n)]
    finally:
        lib.evpy_views_free(shown)
