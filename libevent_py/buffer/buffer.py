"""``struct evbuffer``: a queue of bytes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from libevent_py._core.described import known_as
from libevent_py._core.dispatch import next_key
from libevent_py._core.handle import empty, fill, slot
from libevent_py._core.owner import get_ident
from libevent_py._core.pointers import unshare
from libevent_py._core.references import references, release
from libevent_py._ffi import lib
from libevent_py.buffer.callbacks import BufferCallback as BufferCallback
from libevent_py.buffer.callbacks import BufferInfo as BufferInfo
from libevent_py.buffer.callbacks import running
from libevent_py.buffer.memory import Shared
from libevent_py.buffer.octets import checked as checked
from libevent_py.buffer.owned import Attached, Deferral, deferring
from libevent_py.event.base import EventBase


class Buffer(Shared):
    """A queue of bytes that grows at one end and shrinks at the other; usable in ``with``.

    Everything that takes bytes takes any object with the buffer protocol. Several threads may use
    one, as it has a lock. One that belongs to a bufferevent is closed with it, keeps it alive, and
    is used only in the thread that runs its loop.
    """

    __slots__ = ()

    @classmethod
    def borrowed(cls, pointer: Any, owner: Any) -> Buffer:
        """Make the handle of a buffer that *owner*, a bufferevent, frees."""
        buffer = cls.__new__(cls)
        buffer._owner = owner
        buffer._plain = not owner._calls_back
        buffer._callbacks, buffer._entry, buffer._key = (), None, 0
        buffer._space = None
        buffer.pointer = pointer
        return buffer

    def close(self) -> None:
        """Free the buffer; a second time does nothing.

        Calls that are under way, here or in another thread, end first (D2), but no callback of it
        begins any more. Raises `ValueError` when it belongs to a bufferevent, which frees it.
        Wraps ``evbuffer_free``.
        """
        self._take()
        if references:
            release()

    # Freezing and locking.

    def freeze(self, at_front: bool) -> None:
        """Have every call fail that changes the front, or with False the end.

        Wraps ``evbuffer_freeze``.
        """
        lib.evbuffer_freeze(self.pointer, bool(at_front))

    def unfreeze(self, at_front: bool) -> None:
        """Allow changes at the front again, or with False at the end.

        Wraps ``evbuffer_unfreeze``.
        """
        lib.evbuffer_unfreeze(self.pointer, bool(at_front))

    def enable_locking(self) -> None:
        """Do nothing: each buffer has had its lock from the start.

        Wraps ``evbuffer_enable_locking``.
        """
        self.pointer  # noqa: B018  (a closed one can't)

    # Callbacks.

    def defer_callbacks(self, base: EventBase) -> None:
        """Have the callbacks called by *base*'s loop, once for all changes since they last were.

        From now on the buffer is closed with *base*, and used only in the thread that runs its
        loop. Raises `RuntimeError` when they are deferred already, for a bufferevent's buffer, and
        inside the callbacks of any buffer. Wraps ``evbuffer_defer_callbacks``.
        """
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        if self._owner is not None:
            raise RuntimeError("the callbacks of this buffer are deferred already, or can't be")
        if running.depth:
            raise RuntimeError("defer_callbacks() was called inside a buffer's callback")
        self.pointer  # noqa: B018  (a closed one says so first)
        base.check_thread()
        kind = type(self)
        deferred, key = deferring(kind), self._key or next_key()
        base_pointer, pointer = base.pointer, self.pointer
        unshare(pointer)
        owner = Deferral(base, key, pointer, self)
        if self.__class__ is kind:  # no call from here on: nobody sees the half of it
            self._key, self._owner, self._plain = key, owner, False
            self.__class__ = deferred
        elif self._owner is None:  # other code has closed it
            owner.close()
            raise self._unusable()
        else:
            owner.leave()
            raise RuntimeError("the callbacks of this buffer have been deferred meanwhile")
        lib.evbuffer_defer_callbacks(pointer, base_pointer)


@known_as("Buffer")
class BorrowedBuffer(Attached, Buffer):
    """A bufferevent's own buffer, which only the thread that runs the loop may use meanwhile."""

    __slots__ = ()

    @property
    def pointer(self) -> Any:
        """The C object, with all in it that belongs there; raises errors as `Attached` does."""
        # What that does, and no more calls than needed: it is asked for at each use.
        owner = self._owner
        base = owner.base
        if base.thread != get_ident():
            base.check_thread()
        owner.pointer  # noqa: B018  (the collector may have finalized it, in a cycle with this one)
        if base.arena.bev is owner:
            owner.reclaim()
        try:
            return slot(self)
        except AttributeError:  # other code has closed it since
            raise self._unusable() from None

    @pointer.setter
    def pointer(self, pointer: Any) -> None:
        fill(self, pointer)

    @pointer.deleter
    def pointer(self) -> None:
        empty(self)

    def _told_length(self) -> int:
        owner, length = self._owner, super()._told_length()
        arena = owner.base.arena
        if arena.bev is owner:  # some of it is elsewhere for now, and nothing is to be moved here
            is_input = slot(self) == lib.bufferevent_get_input(owner.pointer)
            length += arena.unread if is_input else arena.unsent
        return length

    def close(self) -> None:
        """Raise `ValueError`: the bufferevent frees it."""
        raise ValueError("a bufferevent's own buffer is closed by closing the bufferevent")

    def _watch(self, callbacks: tuple[BufferCallback, ...]) -> None:
        with self._callable():  # C's entry stays for as long as the bufferevent
            self._owner.expect_callbacks()
            super()._watch(callbacks)

    def _changed(self, info: BufferInfo) -> None:
        with self._owner.holding_tls():
            super()._changed(info)

    def freeze(self, at_front: bool) -> None:
        """Raise `ValueError`: libevent counts on what it has frozen and what not (D15)."""
        raise ValueError("a bufferevent freezes and unfreezes its own buffers by itself")

    unfreeze = freeze

    # Files, whose bytes the kernel may send without that they ever come into memory (D9).

    def _sends_files(self) -> bool:
        owner = self._owner
        output = lib.bufferevent_get_output(owner.pointer)
        return owner._sends_files is not None and self.pointer == output

    def _check_seen(self) -> None:
        """Raise `RuntimeError` where there may be no memory behind the bytes."""
        if self and self._owner._sends_files and self._sends_files():
            raise RuntimeError(
                "an output that files have been added to can't be looked into: their bytes are "
                "sent straight from the file"
            )

    def _chunk(self, start: int) -> bytes:
        self._check_seen()
        return super()._chunk(start)

    def copyout(self, *arguments: Any, **named: Any) -> bytes:
        self._check_seen()
        return super().copyout(*arguments, **named)

    def readln(self, *arguments: Any, **named: Any) -> bytes | None:
        self._check_seen()
        return super().readln(*arguments, **named)

    def search(self, *arguments: Any, **named: Any) -> int:
        self._check_seen()
        return super().search(*arguments, **named)

    def search_eol(self, *arguments: Any, **named: Any) -> tuple[int, int]:
        self._check_seen()
        return super().search_eol(*arguments, **named)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the lock of a THREADSAFE bufferevent inside a ``with`` block."""
        return self._owner.lock()  # type: ignore[no-any-return]
