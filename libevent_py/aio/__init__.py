"""asyncio on an event base: coroutines beside libevent's own objects, in one loop and one thread.

`EventLoop` is asyncio's loop whose waiting is libevent's. `run` runs a coroutine on one, as
`asyncio.run` does. `Selector` is for programs that need no more than a selector of `selectors`.
On such a loop, `Stream` reads and writes any bufferevent, and `connect`, `listen`, `getaddrinfo`,
`request` and `wait` await what libevent does.
"""

from __future__ import annotations

from libevent_py.aio.lookups import getaddrinfo as getaddrinfo
from libevent_py.aio.loop import EventLoop as EventLoop
from libevent_py.aio.peers import Streams, connect, listen, wait
from libevent_py.aio.requests import Response, request
from libevent_py.aio.runner import run as run
from libevent_py.aio.selector import Selector as Selector
from libevent_py.aio.streams import Stream

__all__ = [
    "EventLoop",
    "Response",
    "Selector",
    "Stream",
    "Streams",
    "connect",
    "getaddrinfo",
    "listen",
    "request",
    "run",
    "wait",
]
