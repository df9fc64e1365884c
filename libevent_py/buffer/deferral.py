"""Buffers that belong to something on an event base: to a bufferevent, or to a `Deferral`.

A `Deferral` is made when a buffer's callbacks are deferred to the base's loop. Such a buffer is
used in the thread that runs the loop, and what its callbacks raise goes to the base.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from libevent_py import errors
from libevent_py._core.handle import Handle, Role, empty, fill, slot
from libevent_py._core.owner import Child, Rank, Root
from libevent_py._ffi import lib
from libevent_py.buffer.callbacks import BufferCallback, BufferInfo

if TYPE_CHECKING:
    from libevent_py.buffer.buffer import Buffer


class Attached(Role):
    """The role of a buffer that belongs to something on an event base."""

    __slots__ = ()

    _owner: Any

    def _get_pointer(self) -> Any:
        """The C object; raises `ClosedError` once it is closed, `ThreadError` in a wrong thread."""
        owner = self._owner
        owner.base._check_thread()
        owner.pointer  # noqa: B018  (hot: the collector may have finalized it with this)
        try:
            return slot(self)
        except AttributeError:  # other code has closed it since
            raise self._unusable() from None

    pointer = property(_get_pointer, fill, empty)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Enter C where what it calls back belongs to the owner's base; also return failures."""
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
        """Tell the base that C may call from now on, unless the buffer is closed meanwhile."""
        base = self._owner.base
        base._may_call(self._key, self)
        try:
            yield
        except errors.ClosedError:
            base._may_not_call(self._key)
            raise

    def _take(self) -> Any:
        base = self._owner.base
        if not base.closed:  # or only parked, after a fork: then C may call again
            base._may_not_call(self._key)
        return super()._take()

    def _report(self, error: BaseException) -> None:
        self._owner.base._report(error, self)


class Deferring(Attached):
    """The role of a buffer whose callbacks an event base runs."""

    __slots__ = ()

    def close(self) -> None:
        self._owner.close()

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        before = len(self)
        try:
            return super()._call(function, *arguments)
        finally:
            if self._called() and not self.closed and len(self) != before:
                self._owner.base._may_call(self._key, self)  # C has the callbacks in its queue

    def _watch(self, callbacks: tuple[BufferCallback, ...]) -> None:
        super()._watch(callbacks)
        if not self._called():
            self._owner.base._may_not_call(self._key)

    def _changed(self, info: BufferInfo) -> None:
        self._owner.base._may_not_call(self._key)
        super()._changed(info)


class Deferral(Child):
    """What an event base knows of a buffer whose callbacks it runs."""

    __slots__ = ("_buffer",)

    _rank = Rank.DEFERRAL

    def __init__(self, base: Root, key: int, pointer: Any, buffer: Buffer) -> None:
        self._buffer = weakref.ref(buffer)
        super().__init__(base, key, pointer)

    def _unusable(self) -> Exception:
        return self.base._why_unusable(self) or errors.ClosedError("this Buffer is closed")

    def _lent(self) -> list[Handle]:
        """Return the buffer, if it is still held."""
        buffer = self._buffer()
        return [] if buffer is None else [buffer]

    def leave(self) -> None:
        """Leave the buffer to what else it belongs to."""
        self.base._forget(self._key)
        self._take()

    @property
    def _free(self) -> Callable[[Any], object]:  # type: ignore[override]
        """The function that frees the buffer once no call can be using it."""
        return functools.partial(self.base._free_when_clean, lib.evbuffer_free)


def _without_failing(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call *function*, and return None where it fails."""
    result = function(*arguments)
    return None if result == -1 else result
