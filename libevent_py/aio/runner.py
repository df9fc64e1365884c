"""`run`: what `asyncio.run` does, on a base."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, cast

from libevent_py._core.frames import tells
from libevent_py.aio.loop import EventLoop

if TYPE_CHECKING:
    from libevent_py.event.base import EventBase

Result = TypeVar("Result")


@tells
def run(
    main: Coroutine[Any, Any, Result],
    *,
    base: EventBase | None = None,
    debug: bool | None = None,
) -> Result:
    """Run the coroutine *main* on an `EventLoop`, and return its result or raise what it raises.

    As `asyncio.run` does, it makes the loop, and in the end cancels what tasks are left, shuts down
    asynchronous generators and the default executor, and closes the loop. With *base*, the loop
    runs on that base, which stays open; without, on one of its own. *debug* switches asyncio's
    debug mode on or off; None leaves that to Python. Raises `RuntimeError` inside another asyncio
    loop.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("aio.run() cannot be called from a running event loop")
    factory = functools.partial(EventLoop, base)
    if sys.version_info >= (3, 11):
        with asyncio.Runner(debug=debug, loop_factory=factory) as runner:
            return runner.run(main)
    return cast("Result", _run(main, factory, debug))


if sys.version_info < (3, 11):

    def _run(main: Any, factory: Any, debug: bool | None) -> Any:
        """Do as `asyncio.run` of Python 3.10, which takes no factory."""
        if not asyncio.iscoroutine(main):
            raise ValueError(f"a coroutine was expected, got {main!r}")
        loop = factory()
        try:
            asyncio.set_event_loop(loop)
            if debug is not None:
                loop.set_debug(debug)
            return loop.run_until_complete(main)
        finally:
            try:
                _cancel_all(loop)
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.run_until_complete(loop.shutdown_default_executor())
            finally:
                asyncio.set_event_loop(None)
                loop.close()

    def _cancel_all(loop: EventLoop) -> None:
        """Cancel the tasks that are left, and tell of what they raise."""
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        for task in left:
            if not task.cancelled() and task.exception() is not None:
                loop.call_exception_handler(
                    {
                        "message": "unhandled exception during aio.run() shutdown",
                        "exception": task.exception(),
                        "task": task,
                    }
                )
