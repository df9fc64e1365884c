"""The callbacks that run when a buffer changes.

libevent walks a buffer's list of callbacks without expecting that one of them frees an entry (D3).
So each buffer has one entry, which stays until the buffer is freed and calls Python's own list. A
buffer is not freed while its callbacks run: the call into C that runs them keeps a reference to it
(`pointers.shared`).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from libevent_py import errors
from libevent_py._core.described import described, if_made
from libevent_py._ffi import ffi

if TYPE_CHECKING:
    from libevent_py.buffer.buffer import Buffer

#: The buffers that have, or had, callbacks, by the key that C has.
watched: weakref.WeakValueDictionary[int, Buffer] = weakref.WeakValueDictionary()


class _Running(threading.local):
    """The number of nested buffer callbacks that this thread is in."""

    depth = 0


running: Final = _Running()


@described(
    orig_size="The number of bytes before the change.",
    n_added="The number of bytes added.",
    n_deleted="The number of bytes taken away.",
)
class BufferInfo(NamedTuple):
    """How a buffer has changed, in bytes. Stands for ``struct evbuffer_cb_info``."""

    orig_size: int
    n_added: int
    n_deleted: int


#: What `Buffer.add_cb` has called, as ``callback(buffer, info)``: ``evbuffer_cb_func``.
BufferChangeCallback: TypeAlias = Callable[["Buffer", BufferInfo], object]


class BufferCallback:
    """A buffer's callback, made by `Buffer.add_cb`, until it is removed or the buffer closed."""

    __slots__ = ("__weakref__", "_buffer", "_callback", "_enabled")

    def __init__(self, buffer: Buffer, callback: BufferChangeCallback) -> None:
        self._buffer: weakref.ref[Buffer] | None = weakref.ref(buffer)
        self._callback = callback
        self._enabled = True

    @if_made
    def __repr__(self) -> str:
        buffer = self.buffer
        if buffer is None or buffer.closed:
            return "<BufferCallback removed>"
        return f"<BufferCallback {'enabled' if self._enabled else 'disabled'}, of {buffer!r}>"

    @property
    def callback(self) -> BufferChangeCallback:
        """The function that is called as ``callback(buffer, info)``."""
        return self._callback

    @property
    def buffer(self) -> Buffer | None:
        """The buffer, or None once the callback is removed or the buffer is gone."""
        return None if self._buffer is None else self._buffer()

    @property
    def enabled(self) -> bool:
        """Whether the callback is called when the buffer changes; may be set.

        Wraps ``evbuffer_cb_set_flags``, ``evbuffer_cb_clear_flags``.
        """
        return self._enabled and self.buffer is not None

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        buffer = self.buffer
        if buffer is None:
            raise errors.ClosedError("this BufferCallback has been removed, or its buffer is gone")
        with buffer.lock():
            self._enabled = bool(enabled)
            buffer._watch(buffer._callbacks)

    def remove(self) -> None:
        """Remove the callback, so that it is not called again; a second time does nothing.

        It may be removed while its buffer's callbacks run. Wraps ``evbuffer_cb_clear_flags``.
        Stands for ``evbuffer_remove_cb_entry``.
        """
        buffer = self.buffer
        if buffer is not None and not buffer.closed:
            with buffer.lock():
                self._buffer = None
                buffer._watch(tuple(other for other in buffer._callbacks if other is not self))
        self._buffer = None


# hot: called for every change of a buffer; and a buffer has no base to tell.
@ffi.def_extern(onerror=errors.kept, error=0)
def evpy_buffer_changed(key: int, orig_size: int, n_added: int, n_deleted: int) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    buffer = watched.get(key)
    if buffer is not None:
        info, left = BufferInfo(orig_size, n_added, n_deleted), [*buffer._callbacks]
        try:
            buffer._changed(info, left)
        except BaseException as interrupt:
            errors.keep(interrupt)
            buffer._changed(info, left)
    return 1
