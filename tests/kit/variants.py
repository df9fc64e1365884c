"""What libevent's own tests share: backends, the clock, and loops that end in any case."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

from libevent_py import EventBase, EventBaseFlag, EventConfig, _ffi, ffi
from tests.kit.support import PATIENCE

#: How far the coarse clock that libevent's timers read may lag behind the real one, in seconds.
TICK = 0.02


class Variant(NamedTuple):
    """A backend, and how it is to work."""

    name: str
    method: str
    flags: EventBaseFlag

    def config(self, require: int = 0, flags: int = 0) -> EventConfig:
        """Return a configuration that leaves only this backend."""
        others = [name for name in EventBase.supported_methods() if name != self.method]
        flags |= self.flags | EventBaseFlag.IGNORE_ENV
        return EventConfig(avoid=others, require=require, flags=flags)


#: Each backend, or with debug mode, which is slow, the preferred one.
METHODS = EventBase.supported_methods()[: 1 if os.environ.get("EVENT_DEBUG_MODE") else None]

VARIANTS = [
    Variant(method + suffix, method, flags)
    for method in METHODS
    for suffix, flags in {
        "": EventBaseFlag(0),
        "+changelist": EventBaseFlag.EPOLL_USE_CHANGELIST,
        "+timerfd": EventBaseFlag.PRECISE_TIMER,
        "+timerfd+changelist": EventBaseFlag.PRECISE_TIMER | EventBaseFlag.EPOLL_USE_CHANGELIST,
    }.items()
    if not flags or (method == "epoll" and not os.environ.get("EVENT_DEBUG_MODE"))
]


def assert_ok(base: object) -> None:
    """Abort where what *base*, libevent's, keeps of its events contradicts itself.

    The function is in none of libevent's headers; its own tests call it at the end of each.
    """
    check = ctypes.CDLL(_ffi.__file__).event_base_assert_ok_
    check.argtypes, check.restype = [ctypes.c_void_p], None
    check(int(ffi.cast("uintptr_t", base)))


@contextlib.contextmanager
def bounded(base: EventBase) -> Iterator[EventBase]:
    """Have a loop that should have ended long ago raise; check the base and close it."""

    def give_up() -> None:
        raise TimeoutError(f"the loop has not ended in {PATIENCE} seconds")

    watchdog = threading.Timer(PATIENCE, base.defer, [give_up])
    watchdog.start()
    try:
        with base:
            yield base
            if not base.closed:
                assert_ok(base.pointer)
    finally:
        watchdog.cancel()
        watchdog.join()
