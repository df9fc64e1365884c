"""Running a loop until something holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from libevent_py.enums import EventBaseCount, EventFlag, LoopFlag
from libevent_py.event.base import EventBase
from libevent_py.event.event import Event
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


class Settle:
    """Run the loop of *base* until nothing is left to do: then a test can say what didn't happen.

    What is left may still be due later: timers, and what others send.
    """

    #: For how many seconds the loop is run, if it never comes to rest.
    timeout: float = 5.0

    def __init__(self, base: EventBase) -> None:
        self._base = base
        self._rung = 0

    def __call__(self, quiet: float = 0.0) -> None:
        """Run what is due, and what that makes due: events, timers, deferred callbacks.

        Returns after the first turn of the loop in which nothing was to be run; with *quiet*, once
        nothing has been run for so many seconds. Between objects of the base 0 will do. What
        another thread or process sends takes its time, so give one. What callbacks raise comes out.
        Raises `AssertionError` if something is still run in each turn after `timeout` seconds. It
        uses and resets ``max_events(EventBaseCount.ACTIVE)``.
        """
        __tracebackhide__ = True
        if not quiet >= 0:
            raise ValueError(f"quiet must be a number of seconds, not {quiet}")
        end = time.monotonic() + self.timeout
        if quiet:
            with Event(self._base, -1, EventFlag(0), self._ring) as bell:
                self._run(end, bell, quiet)
        else:  # without memory for an event, as it may be tested what happens without
            self._run(end)

    def _ring(self, *_: object) -> None:
        self._rung = 1

    def _run(self, end: float, bell: Event | None = None, quiet: float = 0.0) -> None:
        __tracebackhide__ = True
        active = EventBaseCount.ACTIVE
        flags = LoopFlag.ONCE if bell is not None else LoopFlag.ONCE | LoopFlag.NONBLOCK
        while True:
            waiting = self._base.num_events(active)
            self._base.max_events(active, clear=True)
            self._rung = 0
            if bell is not None:
                bell.add(quiet)
            self._base.loop(flags)
            # Deferred calls wait for the next turn, and so does what has been sent in this one.
            nothing = not waiting and self._base.max_events(active) == self._rung
            if nothing and (self._rung or bell is None):
                return
            if time.monotonic() >= end:
                if bell is not None:
                    bell.delete()
                raise AssertionError(
                    f"the loop still has something to do after {self.timeout} seconds\n"
                    f"{self._base.explain()}".rstrip("\n")
                )
