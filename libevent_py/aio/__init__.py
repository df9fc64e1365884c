"""asyncio on an event base: coroutines beside libevent's own objects, in one loop and one thread.

`EventLoop` is asyncio's loop whose waiting is libevent's. `run` runs a coroutine on one, as
`asyncio.run` does. `Selector` is for programs that need no more than a selector of `selectors`.
"""

from __future__ import annotations

from libevent_py.aio.loop import EventLoop as EventLoop
from libevent_py.aio.runner import run as run
from libevent_py.aio.selector import Selector as Selector

__all__ = ["EventLoop", "Selector", "run"]
