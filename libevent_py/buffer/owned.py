"""Buffers that belong to something else, which frees them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from libevent_py._core.described import known_as
from libevent_py._core.handle import empty, fill, slot
from libevent_py._core.owner import get_ident
from libevent_py._ffi import lib
from libevent_py.buffer.buffer import Buffer
from libevent_py.buffer.callbacks import BufferCallback, BufferInfo
from libevent_py.buffer.deferral import Attached


@known_as("Buffer")
class BorrowedBuffer(Attached, Buffer):
    """A bufferevent's own buffer, which is used only in the thread that runs the loop."""

    __slots__ = ()

    def _get_pointer(self) -> Any:
        """The C object, complete; raises what the pointer of `Attached` raises."""
        # hot: does what that does, with no call that it doesn't need.
        owner = self._owner
        base = owner.base
        if base._thread != get_ident():
            base._check_thread()
        owner.pointer  # noqa: B018  (hot: the collector may have finalized it with this)
        if base._arena.bev is owner:
            owner._reclaim()
        try:
            return slot(self)
        except AttributeError:  # other code has closed it since
            raise self._unusable() from None

    pointer = property(_get_pointer, fill, empty)

    def _told_length(self) -> int:
        owner, length = self._owner, super()._told_length()
        arena = owner.base._arena
        if arena.bev is owner:  # some bytes are in the arena, and to print must not move them
            is_input = slot(self) == lib.bufferevent_get_input(owner.pointer)
            length += arena.unread if is_input else arena.unsent
        return length

    def close(self) -> None:
        """Raise `ValueError`: the bufferevent frees it."""
        raise ValueError("a bufferevent's own buffer is closed by closing the bufferevent")

    def _watch(self, callbacks: tuple[BufferCallback, ...]) -> None:
        with self._callable():  # C's entry stays for as long as the bufferevent
            self._owner._expect_callbacks()
            super()._watch(callbacks)

    def _changed(self, info: BufferInfo) -> None:
        with self._owner._holding_tls():
            super()._changed(info)

    def freeze(self, at_front: bool) -> None:
        """Raise `ValueError`: libevent relies on what it has frozen itself."""  # D15
        raise ValueError("a bufferevent freezes and unfreezes its own buffers by itself")

    unfreeze = freeze

    # Files, whose bytes the kernel may send without ever loading them into memory (D9).

    def _sends_files(self) -> bool:
        owner = self._owner
        output = lib.bufferevent_get_output(owner.pointer)
        return owner._sends_files is not None and self.pointer == output

    def _check_seen(self) -> None:
        """Raise `RuntimeError` if some of the bytes may not be in memory."""
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
