"""Buffers that belong to a bufferevent, which frees them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from libevent_py._core.convert import Octets
from libevent_py._core.described import known_as
from libevent_py._core.handle import empty, fill, slot
from libevent_py._core.owner import get_ident
from libevent_py._ffi import lib
from libevent_py.buffer.buffer import CRLF, Buffer
from libevent_py.buffer.callbacks import BufferCallback, BufferInfo
from libevent_py.buffer.deferral import Attached

if TYPE_CHECKING:
    from libevent_py._ffi import CData


@known_as("Buffer")
class BorrowedBuffer(Attached, Buffer):
    """A bufferevent's own buffer, usable only in the thread that runs the loop."""

    __slots__ = ()

    def _get_pointer(self) -> CData:
        """The C object, with what is in the arena put back; raises what `Attached`'s raises."""
        # hot: does what `Attached`'s does, with no call that it doesn't need.
        owner = self._owner
        base = owner.base
        if base._thread != get_ident():
            base._check_thread()
        owner.pointer  # noqa: B018  (hot: the garbage collector may have finalized the owner first)
        if base._arena.bev is owner:
            owner._reclaim()
        try:
            return slot(self)
        except AttributeError:  # other code has closed it since
            raise self._unusable() from None

    if not TYPE_CHECKING:
        pointer = property(_get_pointer, fill, empty)

    def _told_length(self) -> int:
        owner, length = self._owner, super()._told_length()
        arena = owner.base._arena
        if arena.bev is owner:  # some bytes are in the arena, and printing must not move them
            is_input = slot(self) == lib.bufferevent_get_input(owner.pointer)
            length += arena.unread if is_input else arena.unsent
        return length

    def close(self) -> None:
        """Raise `ValueError`: the bufferevent frees it."""
        raise ValueError("a bufferevent's own buffer is closed by closing the bufferevent")

    def _watch(self, callbacks: tuple[BufferCallback, ...]) -> None:
        with self._callable():  # C's callback entry stays as long as the bufferevent does
            self._owner._expect_callbacks()
            super()._watch(callbacks)

    def _changed(self, info: BufferInfo, left: list[BufferCallback]) -> None:
        with self._owner._holding_tls():
            super()._changed(info, left)

    def freeze(self, at_front: bool) -> None:
        """Raise `ValueError`: libevent freezes a bufferevent's buffers itself."""  # D15
        raise ValueError("a bufferevent freezes and unfreezes its own buffers by itself")

    unfreeze = freeze

    # Files, whose bytes the kernel may send without ever loading them into memory (D9).

    def _sends_files(self) -> bool:
        owner = self._owner
        output = lib.bufferevent_get_output(owner.pointer)
        return owner._sends_files is not None and self.pointer == output

    def _check_seen(self) -> None:
        """Raise `RuntimeError` if some of the bytes may be in a file, not in memory."""
        if self and self._owner._sends_files and self._sends_files():
            raise RuntimeError(
                "an output that files have been added to can't be looked into: their bytes are "
                "sent straight from the file"
            )

    def _chunk(self, start: int) -> bytes:
        self._check_seen()
        return super()._chunk(start)

    def copyout(self, size: int | None = None, start: int = 0) -> bytes:
        self._check_seen()
        return super().copyout(size, start)

    def readln(self, eol: int = CRLF) -> bytes | None:
        self._check_seen()
        return super().readln(eol)

    def search(self, what: Octets, start: int = 0, end: int | None = None) -> int:
        self._check_seen()
        return super().search(what, start, end)

    def search_eol(self, start: int = 0, eol: int = CRLF) -> tuple[int, int]:
        self._check_seen()
        return super().search_eol(start, eol)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the lock of a THREADSAFE bufferevent inside a ``with`` block."""
        return self._owner.lock()  # type: ignore[no-any-return]
