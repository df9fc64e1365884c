"""The flags that tests use all the time, under short names."""

from __future__ import annotations

from collections.abc import Callable

from libevent_py import BufferEventOption, EventBase, EventFlag, LoopFlag

TIMEOUT, READ, WRITE = EventFlag.TIMEOUT, EventFlag.READ, EventFlag.WRITE
SIGNAL, PERSIST, ET, CLOSED = EventFlag.SIGNAL, EventFlag.PERSIST, EventFlag.ET, EventFlag.CLOSED

ONCE, NONBLOCK = LoopFlag.ONCE, LoopFlag.NONBLOCK

NO_OPTION, CLOSE = BufferEventOption(0), BufferEventOption.CLOSE_ON_FREE
DEFER, UNLOCK = BufferEventOption.DEFER_CALLBACKS, BufferEventOption.UNLOCK_CALLBACKS
THREADSAFE, EAGER = BufferEventOption.THREADSAFE, BufferEventOption.EAGER

#: What makes a base, with the options of `EventConfig`.
NewBase = Callable[..., EventBase]
