"""What Python keeps alive for libevent, until no buffer refers to it any more.

libevent lets go of it in the middle of changing a buffer, where no Python may run (D4). So C lists
its key, and it is released at the next clean moment: after an operation of a `Buffer`, or by the
loop, which C brings to one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libevent_py import errors
from libevent_py._ffi import lib

#: What libevent refers to, by key. Whoever enters C where buffers may change asks it whether there
#: is anything that may have to be released.
references: dict[int, Any] = {}

released = lib.evpy_released


class Cleanup:
    """A callback to be called when libevent has let go of all that it waits for."""

    __slots__ = ("callback", "waits")

    def __init__(self) -> None:
        self.callback: Callable[[], object] | None = None
        #: For how many keys of `references`.
        self.waits = 0

    def call(self, callback: Callable[[], object] | None) -> None:
        """Call *callback* at last, or nothing."""
        self.callback = callback

    def wait_for(self, key: int) -> None:
        """Wait for libevent to let go of *key*, too."""
        self.waits += 1
        references[key] = self


def release() -> None:
    """Release what libevent has let go of; raises what a `Cleanup` raised."""
    if key := released():  # mostly there is nothing, and nothing more to do
        errors.call(release_to, errors.keep, key)


def release_to(report: Callable[[BaseException], object], key: int = 0) -> None:
    """Release what libevent has let go of, and hand to *report* what a `Cleanup` raises.

    *key* is the first of it, if that has been asked for already.
    """
    while key := key or released():
        kept = references.get(key)
        cleanup = kept if isinstance(kept, Cleanup) else None
        if key in references:  # no call from here on: it is let go of once, whatever interrupts
            del references[key]
            if cleanup is not None:
                cleanup.waits -= 1
        else:
            cleanup = None
        del kept
        try:
            lib.evpy_released_done(key)
            key = 0
        finally:  # though an interrupt has come
            if cleanup is not None and not cleanup.waits and cleanup.callback is not None:
                try:
                    cleanup.callback()
                except BaseException as error:
                    report(error)
