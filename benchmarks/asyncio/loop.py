"""The loop that the first argument names: of asyncio, uvloop or libevent_py."""

import asyncio
import importlib
import sys

#: What makes a loop, in the package that the argument names.
MAKERS = {
    "asyncio": ("asyncio", "new_event_loop"),
    "uvloop": ("uvloop", "new_event_loop"),
    "libevent_py": ("libevent_py.aio", "EventLoop"),
}

package, maker = MAKERS[sys.argv[1]]
loop: asyncio.AbstractEventLoop = getattr(importlib.import_module(package), maker)()
