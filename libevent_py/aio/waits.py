"""Futures by which a coroutine waits for what happens on a base."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from libevent_py.event.base import EventBase


def can_go_on(waiter: asyncio.Future[Any]) -> bool:
    """Tell whether a coroutine waits for *waiter*: not if it is cancelled, or its loop closed."""
    return not waiter.done() and not waiter.get_loop().is_closed()


def forget(waiter: asyncio.Future[Any]) -> None:
    """Note that nobody waits any more, and so nobody needs to be told of an exception."""
    if not waiter.cancel() and not waiter.cancelled():
        waiter.exception()


def waiter_on(base: EventBase) -> asyncio.Future[Any]:
    """Return a future to wait for, which something on *base* sets.

    Raises `RuntimeError` in another loop than that of the base: it would wait for ever.
    """
    loop = asyncio.get_running_loop()
    runs = getattr(loop, "base", None) or getattr(getattr(loop, "_selector", None), "base", None)
    if runs is not base:
        raise RuntimeError(f"the running loop, {loop!r}, is not that of {base!r}")
    return loop.create_future()
