"""Tests that are coroutines, on a loop of `libevent_py.aio`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from libevent_py import EventBase, aio
from tests.kit.support import PATIENCE


def here() -> EventBase:
    """The base of the running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, aio.EventLoop)
    return loop.base


def runs(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test that is a coroutine on an `aio.EventLoop`, with an end."""

    def run(**fixtures: Any) -> None:
        async def bounded() -> None:
            await asyncio.wait_for(test(**fixtures), PATIENCE)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left

        aio.run(bounded())

    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]  # for its fixtures
    run.__doc__, run.__name__ = test.__doc__, test.__name__
    return run


async def soon(awaitable: Any) -> Any:
    """Start *awaitable* as a task, let it wait, and return it."""
    task = asyncio.ensure_future(awaitable)
    for _ in range(5):
        await asyncio.sleep(0)
    return task
