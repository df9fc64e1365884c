"""Running a loop until something holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from libevent_py.enums import EventFlag, LoopFlag
from libevent_py.event.base import EventBase
from libevent_py.event.event import Event
from libevent_py.event.explain import callback_text

if TYPE_CHECKING:
    from libevent_py.testing.traces import LibeventTrace

T = TypeVar("T")

#: How often a condition is tried while nothing happens, in seconds.
TICK = 0.01

#: How many of the last lines of a trace are shown.
LINES = 20


class Until:
    """Run the loop of *base* until a condition holds; with *trace*, show its end if it doesn't."""

    #: For how many seconds the loop is run, unless a call says otherwise.
    timeout: float = 5.0

    def __init__(self, base: EventBase, trace: LibeventTrace | None = None) -> None:
        self._base = base
        self._trace = trace

    def __call__(self, condition: Callable[[], T], timeout: float | None = None) -> T:
        """Run the loop until *condition()* is true, and return what it has returned.

        It is called after each turn of the loop, and every hundredth of a second. What callbacks
        raise comes out. Raises `AssertionError` after *timeout* seconds, with what the base says of
        its events.
        """
        __tracebackhide__ = True
        seconds = self.timeout if timeout is None else timeout
        end = time.monotonic() + seconds
        if value := condition():
            return value
        with Event(self._base, -1, EventFlag.PERSIST, lambda *_: None) as tick:
            tick.add(TICK)
            while not (value := condition()):
                if time.monotonic() >= end:
                    tick.delete()
                    raise AssertionError(self._told(condition, seconds))
                self._base.loop(LoopFlag.ONCE)
        return value

    def _told(self, condition: Callable[[], object], seconds: float) -> str:
        # First of all, as what is asked below is traced, too.
        calls = [] if self._trace is None else ["the last calls:", *self._trace.lines[-LINES:]]
        parts = [
            f"{callback_text(condition)} did not hold within {seconds} seconds",
            self._base.explain(),
            self._base.dump_events(),
            *calls,
        ]
        return "\n".join(part.rstrip("\n") for part in parts)
