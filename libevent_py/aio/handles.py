"""asyncio's handles, made in one step.

asyncio's own ask the loop whether it is in debug mode, and run another method for what both kinds
have. Most of what `call_soon` costs is making its handle. In debug mode the loop makes asyncio's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any


class Handle(asyncio.Handle):
    """What `call_soon` returns."""

    __slots__ = ()

    # hot: called by each `call_soon`.
    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class TimerHandle(asyncio.TimerHandle):
    """What `call_later` and `call_at` return."""

    __slots__ = ()

    # hot: called by each `call_later`.
    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = True
