"""Running a loop until something holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from libevent_py.enums import LoopFlag
from libevent_py.event.base import EventBase
from libevent_py.event.explain import callback_text
from libevent_py.testing.traces import LibeventTrace, OwnCalls

T = TypeVar("T")

#: How many of the last lines of a trace are shown.
LINES = 30


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
        own = OwnCalls(self._trace)
        if value := own.asked(condition):
            return value
        with own.timer(self._base) as tick:
            while not (value := own.asked(condition)):
                if time.monotonic() >= end:
                    with own.calls():
                        tick.delete()
                    raise AssertionError(self._told(condition, seconds))
                with own.loop():
                    self._base.loop(LoopFlag.ONCE)
        return value

    def _told(self, condition: Callable[[], object], seconds: float) -> str:
        # First of all, as what is asked below is traced, too.
        last = [] if self._trace is None else self._trace._last(LINES)
        calls = ["the last calls:", *last] if last else []
        parts = [
            f"{callback_text(condition)} did not hold within {seconds} seconds",
            self._base.explain(),
            self._base.dump_events(),
            *calls,
        ]
        return "\n".join(part.rstrip("\n") for part in parts)
