"""The ``with`` block in which a thread holds a lock of C's."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager

from libevent_py._core.owner import get_ident


class Held(AbstractContextManager[None]):
    """A block that only the thread that has begun it can end.

    If the generator raised there, it would be finished, and the thread that holds the lock could
    not end it any more. It unlocks where it is dropped, too.
    """

    __slots__ = ("_begun", "_block", "_thread", "_what")

    def __init__(self, block: Generator[None, None, None], what: str) -> None:
        """Make a block that locks *what*, as *block* does at its only ``yield``."""
        self._block = block
        self._what = what
        self._begun = False
        self._thread: int | None = None

    def __enter__(self) -> None:
        if self._begun:
            raise RuntimeError("such a block can be begun only once: call lock() again")
        self._begun = True
        try:
            next(self._block)
            self._thread = get_ident()
        except BaseException:  # perhaps an interrupt, whose traceback keeps this object alive
            self._block.close()
            raise

    def __exit__(self, *error: object) -> None:
        if self._thread is None:  # it has not been begun
            return
        if self._thread != get_ident():
            raise RuntimeError(f"another thread has taken the lock of this {self._what}")
        next(self._block, None)
