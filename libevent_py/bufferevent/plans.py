"""The arguments that a bufferevent is made with, and the checks on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from libevent_py._core import convert
from libevent_py._core.handle import Handle
from libevent_py.bufferevent.callbacks import (
    BufferEventCallback,
    Callbacks,
    DataCallback,
    checked_callbacks,
)
from libevent_py.bufferevent.eager import Arena
from libevent_py.enums import BufferEventOption
from libevent_py.event.base import EventBase

if TYPE_CHECKING:
    from libevent_py.bufferevent.bufferevent import BufferEvent

CLOSE_ON_FREE = BufferEventOption.CLOSE_ON_FREE
DEFER_CALLBACKS = BufferEventOption.DEFER_CALLBACKS
EAGER = BufferEventOption.EAGER
THREADSAFE = BufferEventOption.THREADSAFE
UNLOCK_CALLBACKS = BufferEventOption.UNLOCK_CALLBACKS

#: The default options of filters and TLS. Without DEFER_CALLBACKS, libevent leaves bytes that a
#: watermark has held back below a filter until more come, and TLS reports the end before the data
#: that came with it (I9).
LAYER_OPTIONS = CLOSE_ON_FREE | DEFER_CALLBACKS


class Plan(NamedTuple):
    """The arguments that every bufferevent is made with."""

    base: EventBase
    options: BufferEventOption
    callbacks: Callbacks = (None, None, None)
    #: The HTTP connection or server that uses and frees the bufferevent, or None.
    owner: Handle | None = None

    @property
    def for_c(self) -> int:
        """The options that C knows."""
        return int(self.options) & ~int(EAGER)

    @property
    def alone(self) -> BufferEventOption:
        """The options for a C object that must not free its descriptor or the layer below."""
        return self.options & ~CLOSE_ON_FREE


def on(
    base: EventBase,
    options: int,
    on_read: DataCallback | None = None,
    on_write: DataCallback | None = None,
    on_event: BufferEventCallback | None = None,
    *,
    deferred: bool = False,
    eager: bool = False,
) -> Plan:
    """Return the plan for a bufferevent on *base*; raise an error for what libevent can't do (F1).

    *deferred* adds DEFER_CALLBACKS; without *eager*, EAGER is removed.
    """
    if not isinstance(base, EventBase):
        raise TypeError(f"base must be an EventBase, not {base!r}")
    base._check_thread()
    with_arena(base)
    flags = convert.flags(BufferEventOption, options, "options")
    if deferred and DEFER_CALLBACKS not in flags:  # looking costs less than changing
        flags |= DEFER_CALLBACKS
    if UNLOCK_CALLBACKS in flags and DEFER_CALLBACKS not in flags:
        raise ValueError("options can have UNLOCK_CALLBACKS only with DEFER_CALLBACKS")
    if EAGER in flags and not eager:
        flags &= ~EAGER
    return Plan(base, flags, checked_callbacks(on_read, on_write, on_event))


def above(
    underlying: BufferEvent,
    kind: type[BufferEvent],
    options: int,
    on_read: DataCallback | None,
    on_write: DataCallback | None,
    on_event: BufferEventCallback | None,
) -> Plan:
    """Return the plan for a bufferevent on top of *underlying*, which must be of *kind*."""
    if not isinstance(underlying, kind):
        raise TypeError(f"underlying must be a BufferEvent, not {underlying!r}")
    return on(underlying.base, options, on_read, on_write, on_event)


def with_arena(base: EventBase) -> EventBase:
    """Return *base* with an arena, made before there is a C object that a failure would leak."""
    if base._arena is None:
        base._use_arena(Arena())
    return base
