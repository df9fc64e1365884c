"""`Selector`: an event base as one of Python's `selectors`."""

from __future__ import annotations

import selectors
import time
from typing import TYPE_CHECKING, Any

from libevent_py.enums import EventFlag
from libevent_py.event.base import EventBase
from libevent_py.event.event import Event

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

#: What an event waits for, by what a selector does. Combined once: it costs a microsecond.
FLAGS = {
    selectors.EVENT_READ: EventFlag.READ | EventFlag.PERSIST,
    selectors.EVENT_WRITE: EventFlag.WRITE | EventFlag.PERSIST,
    selectors.EVENT_READ | selectors.EVENT_WRITE: (
        EventFlag.READ | EventFlag.WRITE | EventFlag.PERSIST
    ),
}

#: What a selector tells, by what an event has fired for.
MASKS = {int(flags & ~EventFlag.PERSIST): mask for mask, flags in FLAGS.items()}

#: How many seconds to wait in one turn if there is no end: with no event at all, None wouldn't.
LONG = 24 * 3600.0


class Selector(selectors._BaseSelectorImpl):
    """A level-triggered selector that waits by an event base; usable in ``with``.

    The callbacks of the base's other events run while `select` waits, and what they raise comes out
    of it.
    """

    if TYPE_CHECKING:  # what the class below has, and its stub doesn't
        _fd_to_key: dict[int, selectors.SelectorKey]

    def __init__(self, base: EventBase | None = None) -> None:
        """Make a selector on *base*; without, on a base of its own, which is closed with it."""
        if base is not None and not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        super().__init__()
        self._owns_base = base is None
        self._base = EventBase() if base is None else base
        self._events: dict[int, Event] = {}
        #: What has fired in this call of `select`, by descriptor; None between the calls.
        self._fired: dict[int, int] | None = None
        #: The events that have fired between the calls, and don't wait until the next one.
        self._resting: list[Event] = []

    @property
    def base(self) -> EventBase:
        """The base that the selector waits by."""
        return self._base

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        """Wait for *events* on *fileobj*, a descriptor or anything with a ``fileno``.

        *events* is EVENT_READ, EVENT_WRITE or both. Return the key that `select` gives. Raises
        `KeyError` if it is registered already, `OSError` when the backend refuses it.
        """
        key = super().register(fileobj, events, data)
        try:
            self._wait(key.fd, events)
        except BaseException:
            super().unregister(fileobj)
            raise
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        """Wait for *fileobj* no longer, and return its key; `KeyError` if there is none."""
        key = super().unregister(fileobj)
        self._events.pop(key.fd).close()
        return key

    def _wait(self, fd: int, events: int) -> None:
        event = Event(self._base, fd, FLAGS[events], self._ready)
        try:
            event.add()
        except BaseException:
            event.close()
            raise
        self._events[fd] = event

    def _ready(self, event: Event, fd: int, what: EventFlag) -> None:
        if self._fired is None:  # somebody else runs the base
            event.delete()
            self._resting.append(event)
        else:
            self._fired[fd] = MASKS[what]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait until something is ready, at most *timeout* seconds; return keys with their events.

        0 or less doesn't wait; None waits without end. A signal whose handler raises nothing
        doesn't end it. Raises what a callback of the base's other events raises; `RuntimeError`
        inside a callback of the base's loop.
        """
        if timeout is not None and not isinstance(timeout, (int, float)):
            raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
        for event in self._resting:
            if not event.closed:
                event.add()
        self._resting.clear()
        fired: dict[int, int] = {}
        # One that is refused, inside a callback, must not take away what the outer one waits for.
        outer, self._fired = self._fired, fired
        try:
            self._turn_until(fired, timeout)
        finally:
            self._fired = outer
        known = self._fd_to_key
        keys = ((known.get(fd), mask) for fd, mask in fired.items())
        return [(key, mask & key.events) for key, mask in keys if key and mask & key.events]

    def _turn_until(self, fired: dict[int, int], timeout: float | None) -> None:
        turn = self._base.turn
        if timeout is not None and timeout <= 0:
            turn(0.0)
            return
        end = None if timeout is None else time.monotonic() + timeout
        left = LONG if timeout is None else timeout
        with self._base.turns():
            while not fired and left > 0:
                turn(min(left, LONG))
                if end is not None:
                    left = end - time.monotonic()

    def close(self) -> None:
        """Forget everything, and close the base if it is the selector's own."""
        super().close()
        while self._events:
            self._events.popitem()[1].close()
        if self._owns_base:
            self._base.close()
