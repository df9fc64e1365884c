"""Objects that Python keeps alive for libevent, until no buffer refers to them any more.

libevent drops its reference in the middle of changing a buffer, when no Python may run (D4). So C
puts the object's key on a list, and Python releases the object at the next clean moment: after an
operation on a `Buffer`, or in the loop, which C wakes for that.
"""

from __future__ import annotations

from collections.abc import Callable

from libevent_py import errors
from libevent_py._ffi import lib

#: The objects that libevent refers to, by key. While it isn't empty, operations that may change
#: buffers call `release` afterwards.
references: dict[int, object] = {}

released = lib.evpy_released


class Cleanup:
    """A callback to be called when libevent has dropped all references that it waits for."""

    __slots__ = ("callback", "waits")

    def __init__(self) -> None:
        self.callback: Callable[[], object] | None = None
        #: How many keys in `references` it waits for.
        self.waits = 0

    def call(self, callback: Callable[[], object] | None) -> None:
        """Call *callback* at last, or nothing."""
        self.callback = callback

    def wait_for(self, key: int) -> None:
        """Wait for libevent to let go of *key*, too."""
        self.waits += 1
        references[key] = self


def release() -> None:
    """Release the objects that libevent has dropped; raises what a `Cleanup` raised."""
    if key := released():  # mostly there is none, and nothing to do
        errors.call(release_to, errors.keep, key)


def release_to(report: Callable[[BaseException], object], key: int = 0) -> None:
    """Release the objects that libevent has dropped; pass to *report* what a `Cleanup` raises.

    *key* is the first key, if the caller has already taken it from C's list.
    """
    while key := key or released():
        kept = references.get(key)
        cleanup = kept if isinstance(kept, Cleanup) else None
        if key in references:  # no call from here on: an interrupt must not release it twice
            del references[key]
            if cleanup is not None:
                cleanup.waits -= 1
        else:
            cleanup = None
        del kept
        try:
            lib.evpy_released_done(key)
            key = 0
        finally:  # even after an interrupt
            if cleanup is not None and not cleanup.waits and cleanup.callback is not None:
                try:
                    cleanup.callback()
                except BaseException as error:
                    report(error)
