"""Buffers that belong to an object on an event base: to a bufferevent or a `Deferral`.

`Buffer.defer_callbacks` makes a `Deferral`. The buffer may then be used only in the thread that
runs the loop, and what its callbacks raise goes to the base.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from libevent_py import errors
from libevent_py._core.child import Child, Rank
from libevent_py._core.handle import Handle, Role, empty, fill, slot
from libevent_py._ffi import lib
from libevent_py.buffer.callbacks import BufferCallback, BufferInfo

if TYPE_CHECKING:
    from libevent_py._ffi import Arguments, CData, Result, Unpack
    from libevent_py.buffer.buffer import Buffer
    from libevent_py.event.base import EventBase


class Attached(Role):
    """The role of a buffer that belongs to an object on an event base."""

    __slots__ = ()

    _owner: Any

    def _get_pointer(self) -> CData:
        """The C object; raises `ClosedError` once closed, `ThreadError` in the wrong thread."""
        owner = self._owner
        owner.base._check_thread()
        owner.pointer  # noqa: B018  (hot: the garbage collector may have finalized the owner first)
        try:
            return slot(self)
        except AttributeError:  # other code has closed it since
            raise self._unusable() from None

    if not TYPE_CHECKING:
        pointer = property(_get_pointer, fill, empty)

    def _call(
        self, function: Callable[[Unpack[Arguments]], int], *arguments: Unpack[Arguments]
    ) -> int:
        """Call C's *function* by the owner's base, which gets what callbacks raise."""
        if self._callbacks:
            errors.headroom()
        result = self._owner.base._call(_without_failing, function, *arguments)
        return -1 if result is None else result

    def _may_ask(self) -> bool:
        return bool(self._owner._may_ask())

    def _why_absent(self) -> str | None:
        why: str | None = super()._why_absent() or self._owner._why_absent()
        return why

    @contextlib.contextmanager
    def _callable(self) -> Iterator[None]:
        """Make the buffer live in its base, unless it is closed inside the block."""
        base = self._owner.base
        base._may_call(self._key, self)
        try:
            yield
        except errors.ClosedError:
            base._may_not_call(self._key)
            raise

    def _take(self) -> CData | None:
        base = self._owner.base
        if not base.closed:  # a base parked after a fork isn't closed: C may call again
            base._may_not_call(self._key)
        pointer: CData | None = super()._take()
        return pointer

    def _report(self, error: BaseException) -> None:
        self._owner.base._report(error, self)


class Deferring(Attached):
    """The role of a buffer whose callbacks an event base runs."""

    __slots__ = ()

    def close(self) -> None:
        self._owner.close()

    def _call(
        self, function: Callable[[Unpack[Arguments]], int], *arguments: Unpack[Arguments]
    ) -> int:
        before = len(self)
        try:
            return super()._call(function, *arguments)
        finally:
            if self._called() and not self.closed and len(self) != before:
                self._owner.base._may_call(self._key, self)  # the callbacks are in C's queue

    def _watch(self, callbacks: tuple[BufferCallback, ...]) -> None:
        super()._watch(callbacks)
        if not self._called():
            self._owner.base._may_not_call(self._key)

    def _changed(self, info: BufferInfo, left: list[BufferCallback]) -> None:
        self._owner.base._may_not_call(self._key)
        super()._changed(info, left)


class Deferral(Child):
    """The owner, on an event base, of a buffer whose callbacks the base's loop runs."""

    __slots__ = ("_buffer",)

    _rank = Rank.DEFERRAL

    def __init__(self, base: EventBase, key: int, pointer: CData, buffer: Buffer) -> None:
        self._buffer = weakref.ref(buffer)
        super().__init__(base, key, pointer)

    def _unusable(self) -> Exception:
        return self.base._why_unusable(self) or errors.ClosedError("this Buffer is closed")

    def _lent(self) -> list[Handle]:
        """Return the buffer, if it still exists."""
        buffer = self._buffer()
        return [] if buffer is None else [buffer]

    @staticmethod
    def undo(base: EventBase, key: int) -> None:
        """Give up the buffer of the one with that key, if there is one."""
        deferral = base._child(key) if base._knows(key) else None
        if isinstance(deferral, Deferral):
            deferral.leave()

    def leave(self) -> None:
        """Give up the buffer without freeing it: another owner frees it."""
        self.base._forget(self._key)
        self._take()

    @property
    def _free(self) -> Callable[[CData], object]:
        """The function that frees the buffer once no call can be using it any more."""
        return functools.partial(self.base._free_when_clean, lib.evbuffer_free)


def _without_failing(
    function: Callable[[Unpack[Arguments]], Result], *arguments: Unpack[Arguments]
) -> Result | None:
    """Call *function*, and return None instead of -1, for which `errors.call` would raise."""
    result = function(*arguments)
    return None if result == -1 else result
