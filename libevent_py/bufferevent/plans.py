"""What a bufferevent is made with, and what is checked before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from libevent_py._core import convert
from libevent_py.bufferevent.callbacks import (
    Callbacks,
    DataCallback,
    EventCallback,
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

#: What filters and TLS are made with unless their user says otherwise. Without DEFER_CALLBACKS
#: libevent leaves below a filter what a watermark has held back, until more comes; and TLS tells of
#: the end before it has given out what came with it (I9).
LAYER_OPTIONS = CLOSE_ON_FREE | DEFER_CALLBACKS


class Plan(NamedTuple):
    """What any bufferevent is made with."""

    base: EventBase
    options: BufferEventOption
    callbacks: Callbacks = (None, None, None)
    #: The HTTP connection or server that has it and frees it, or None.
    owner: Any = None

    @property
    def for_c(self) -> int:
        """The options that C knows."""
        return int(self.options) & ~int(EAGER)

    @property
    def alone(self) -> BufferEventOption:
        """The options for C's object where it must not free what it stands on."""
        return self.options & ~CLOSE_ON_FREE


def on(
    base: EventBase,
    options: int,
    on_read: DataCallback | None = None,
    on_write: DataCallback | None = None,
    on_event: EventCallback | None = None,
    *,
    deferred: bool = False,
    eager: bool = False,
) -> Plan:
    """Return what is to be made on *base*, or raise an error for what libevent can't do (F1).

    With *deferred* it gets DEFER_CALLBACKS anyway, and only with *eager* it may be EAGER.
    """
    if not isinstance(base, EventBase):
        raise TypeError(f"base must be an EventBase, not {base!r}")
    base._check_thread()
    with_arena(base)
    flags = convert.flags(BufferEventOption, options, "options")
    if deferred and DEFER_CALLBACKS not in flags:  # to look costs less than to change
        flags |= DEFER_CALLBACKS
    if UNLOCK_CALLBACKS in flags and DEFER_CALLBACKS not in flags:
        raise ValueError("options can have UNLOCK_CALLBACKS only with DEFER_CALLBACKS")
    if EAGER in flags and not eager:
        flags &= ~EAGER
    return Plan(base, flags, checked_callbacks(on_read, on_write, on_event))


def above(underlying: Any, kind: type[BufferEvent], options: int, *callbacks: Any) -> Plan:
    """Return what is to be made on top of *underlying*, which must be of *kind*."""
    if not isinstance(underlying, kind):
        raise TypeError(f"underlying must be a BufferEvent, not {underlying!r}")
    return on(underlying.base, options, *callbacks)


def with_arena(base: EventBase) -> EventBase:
    """Return *base* with memory for bufferevents: before there is C's object, to be freed then."""
    if base._arena is None:
        base._use_arena(Arena())
    return base
