"""A plugin for pytest: asyncio makes `aio.EventLoop`s in place of its own loops.

It imports nothing of the tests, because it is loaded beside suites that have a package of that
name. ``LIBEVENT_PY_PLACE=none`` leaves asyncio as it is, to compare.
"""

from __future__ import annotations

import asyncio
import os
from asyncio import unix_events
from typing import Any

from libevent_py import aio

if os.environ.get("LIBEVENT_PY_PLACE") != "none":
    for module in (asyncio, unix_events):
        vars(module)["SelectorEventLoop"] = vars(module)["EventLoop"] = aio.EventLoop
    # From Python 3.14 on, the public name is deprecated, for which warnings are errors.
    names = vars(unix_events)
    policy: Any = names.get("_DefaultEventLoopPolicy") or names["DefaultEventLoopPolicy"]
    policy._loop_factory = aio.EventLoop


def pytest_report_header() -> str:
    """Say which loop asyncio makes."""
    loop = asyncio.new_event_loop()
    loop.close()
    return f"loop: {type(loop).__module__}"
