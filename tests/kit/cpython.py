"""Run CPython's own tests of asyncio and selectors on `libevent_py.aio`.

``python -m tests.kit.cpython loop test.test_asyncio.test_tasks`` puts `aio.EventLoop` in the place
of asyncio's loop before the tests are loaded, ``selector`` in place of `selectors.DefaultSelector`
`aio.Selector`, and ``none`` nothing. What follows are tests as `unittest` names them; those after
``--without`` are left out.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import unittest
from asyncio import unix_events
from collections.abc import Iterator, Sequence
from typing import Any

from libevent_py import EventBase, aio

#: The backend that waits as a selector does.
METHODS = {"EpollSelector": "epoll", "PollSelector": "poll", "SelectSelector": "select"}


class SelectorEventLoop(aio.EventLoop):
    """The loop as the tests make it, some of them with a selector."""

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        """Make a loop that waits as *selector* would."""
        if selector is None:
            super().__init__()
            return
        selector.close()
        super().__init__(EventBase(method=METHODS[type(selector).__name__]))
        self._owns_base = True


def put_loop() -> None:
    """Have asyncio, and its tests, make our loops."""
    for module in (asyncio, unix_events):
        vars(module)["SelectorEventLoop"] = vars(module)["EventLoop"] = SelectorEventLoop
    # From Python 3.14 on, the public name is deprecated, for which warnings are errors.
    names = vars(unix_events)
    policy: Any = names.get("_DefaultEventLoopPolicy") or names["DefaultEventLoopPolicy"]
    policy._loop_factory = SelectorEventLoop


def put_selector() -> None:
    """Have selectors, and so asyncio, make our selectors."""
    vars(selectors)["DefaultSelector"] = aio.Selector


def put_nothing() -> None:
    """Leave asyncio as it is, to compare."""


PLACES = {"loop": put_loop, "selector": put_selector, "none": put_nothing}


def tests_in(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Yield the tests of *suite*."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests_in(test)
        else:
            yield test  # type: ignore[misc,unused-ignore]


def main(arguments: Sequence[str]) -> int:
    """Run the tests, and return the exit status: 0 if all have passed."""
    place, *names = arguments
    without: list[str] = []
    if "--without" in names:
        at = names.index("--without")
        names, without = names[:at], names[at + 1 :]
    PLACES[place]()
    loaded = unittest.defaultTestLoader.loadTestsFromNames(names)
    suite = unittest.TestSuite(test for test in tests_in(loaded) if test.id() not in without)
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
