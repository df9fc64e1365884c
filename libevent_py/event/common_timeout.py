"""Timeouts that many events of a base share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libevent_py._core.described import described, if_made
from libevent_py._ffi import ffi

if TYPE_CHECKING:
    from libevent_py._ffi import CData
    from libevent_py.event.base import EventBase


@described(
    base="The event base that the timeout belongs to.",
    seconds="The duration in seconds.",
)
class CommonTimeout:
    """A timeout with a queue of its own on its `EventBase`: cheaper when many events share it.

    It belongs to its base; `Event.add` of an event on another base refuses it.
    """

    __slots__ = ("_pointer", "base", "seconds")

    _pointer: CData
    base: EventBase
    seconds: float

    def __init__(self) -> None:
        """Raise `TypeError`: only an `EventBase` makes them."""
        raise TypeError("a CommonTimeout is made by EventBase.init_common_timeout()")

    @property
    def pointer(self) -> CData:
        """The ``struct timeval *``, for calling `libevent_py.lib` with it."""
        self.base.pointer  # noqa: B018  (hot: raises once the base, and so the timeout, is closed)
        return self._pointer

    @if_made
    def __repr__(self) -> str:
        where = (
            "closed" if self.base.closed else f"at {int(ffi.cast('uintptr_t', self._pointer)):#x}"
        )
        return f"<CommonTimeout {where}, {self.seconds} s>"
