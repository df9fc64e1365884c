"""Who is told when a buffer changes.

libevent keeps a list of callbacks for each buffer, and walks it without looking out for who frees
an entry meanwhile (D3). So it gets one entry per buffer, which stays until the buffer ends, and
which calls Python's list. Nobody frees a buffer below its own callbacks either, as the call into C
that they come from holds it (`pointers.shared`).
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.described import described
from libevent_py._core.dispatch import next_key
from libevent_py._core.owner import get_ident
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.octets import Octets, failure

#: The buffers that have, or had, callbacks, by the key that C has.
watched: weakref.WeakValueDictionary[int, Watched] = weakref.WeakValueDictionary()


class _Running(threading.local):
    """How many buffers' callbacks this thread runs, one inside the other."""

    depth = 0


running = _Running()


@described(
    orig_size="How many bytes there were before.",
    n_added="How many bytes have been added.",
    n_deleted="How many bytes have been taken.",
)
class BufferInfo(NamedTuple):
    """What has happened to a buffer, in bytes. Stands for ``struct evbuffer_cb_info``."""

    orig_size: int
    n_added: int
    n_deleted: int


class BufferCallback:
    """A callback of a buffer's, made by `Watched.add_cb`. It ends with the buffer."""

    __slots__ = ("__weakref__", "_buffer", "_callback", "_enabled")

    def __init__(self, buffer: Watched, callback: Callable[[Any, BufferInfo], object]) -> None:
        self._buffer: weakref.ref[Watched] | None = weakref.ref(buffer)
        self._callback = callback
        self._enabled = True

    def __repr__(self) -> str:
        buffer = self.buffer
        if buffer is None or buffer.closed:
            return "<BufferCallback removed>"
        return f"<BufferCallback {'enabled' if self._enabled else 'disabled'}, of {buffer!r}>"

    @property
    def callback(self) -> Callable[[Any, BufferInfo], object]:
        """What is called as ``callback(buffer, info)``."""
        return self._callback

    @property
    def buffer(self) -> Watched | None:
        """The buffer, or None once the callback has been removed or the buffer is gone."""
        return None if self._buffer is None else self._buffer()

    @property
    def enabled(self) -> bool:
        """Whether it is called. Wraps ``evbuffer_cb_set_flags``, ``evbuffer_cb_clear_flags``."""
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
        """Call it no more, from now on, also where the callbacks of its buffer run.

        A second time does nothing. Wraps ``evbuffer_remove_cb_entry``.
        """
        buffer = self.buffer
        if buffer is not None and not buffer.closed:
            with buffer.lock():
                self._buffer = None
                buffer._watch(tuple(other for other in buffer._callbacks if other is not self))
        self._buffer = None


class Watched(Octets):
    """The part of `Buffer` that calls back, and what keeps other threads away meanwhile."""

    __slots__ = ()

    # Callbacks.

    def add_cb(self, callback: Callable[[Any, BufferInfo], object]) -> BufferCallback:
        """Have *callback* called as ``callback(buffer, info)`` whenever the buffer has changed.

        *info* is a `BufferInfo`. The last to be added is called first. What it raises comes out of
        the call that has changed the buffer; for a bufferevent's buffer it goes to the loop, as
        with the bufferevent's own callbacks. Bytes that C adds inside one call may come in several
        changes, and a callback that changes the buffer is called again for that, inside itself.
        Wraps ``evbuffer_add_cb``.
        """
        added = BufferCallback(self, convert.callback(callback))
        with self.lock():
            if self._entry is None:
                self._key = self._key or next_key()
                watched[self._key] = self
                entry = lib.evpy_buffer_add_cb(self.pointer, self._key)
                if not entry:
                    raise failure(lib.evbuffer_add_cb)
                self._entry = entry
            self._watch((added, *self._callbacks))
        return added

    def _watch(self, callbacks: tuple[BufferCallback, ...]) -> None:
        """Have *callbacks* called from now on, those of them that are enabled."""
        self._callbacks = callbacks
        called = self._called()
        change = lib.evbuffer_cb_set_flags if called else lib.evbuffer_cb_clear_flags
        change(self.pointer, self._entry, lib.EVBUFFER_CB_ENABLED)
        self._plain = self._owner is None and not called

    def _called(self) -> bool:
        """Tell whether any callback is enabled."""
        return any(callback._enabled for callback in self._callbacks)

    def _changed(self, info: BufferInfo) -> None:
        running.depth += 1
        try:
            for callback in self._callbacks:
                if callback.enabled and not self.closed:
                    try:
                        callback.callback(self, info)
                    except BaseException as error:
                        self._report(error)
        finally:
            running.depth -= 1

    def _report(self, error: BaseException) -> None:
        errors.keep(error)

    def lock(self) -> AbstractContextManager[None]:
        """Keep other threads from using the buffer inside a ``with`` block.

        Whoever waits there for another thread that uses the buffer waits for ever. For a
        bufferevent's buffer it is `BufferEvent.lock`.
        Wraps ``evbuffer_lock``, ``evbuffer_unlock``.
        """
        return self._locked()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        pointer, thread = self.pointer, get_ident()
        try:  # an interrupt comes after C's call, not before it
            lib.evbuffer_lock(pointer)
            yield
        finally:
            if thread != get_ident():
                raise RuntimeError("another thread has taken the lock of this buffer")
            if self._owner is None or not self.closed:  # nobody waits for it any more
                lib.evbuffer_unlock(pointer)


@ffi.def_extern(onerror=errors.kept)
def evpy_buffer_changed(key: int, orig_size: int, n_added: int, n_deleted: int) -> None:
    buffer = watched.get(key)
    if buffer is not None:
        buffer._changed(BufferInfo(orig_size, n_added, n_deleted))
