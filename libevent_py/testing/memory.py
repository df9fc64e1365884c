"""Allocations that fail, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import TracebackType

from libevent_py import debug
from libevent_py._core.described import described
from libevent_py.enums import MemorySource


@described(
    before="The memory of its source in use when the block began: a `debug.MemoryUse`.",
    nth="Which allocation fails, the first being 1.",
)
class AllocationFailure:
    """Make one allocation inside a ``with`` block fail; tell how much memory was in use."""

    __slots__ = ("_failing", "_source", "before", "nth")

    before: debug.MemoryUse
    nth: int

    def __init__(self, nth: int, onwards: bool, source: MemorySource, put_aside: bool) -> None:
        self.nth = nth
        self._source = source
        self._failing = debug.FailingMemory(
            nth, onwards=onwards, source=source, put_aside=put_aside
        )

    @property
    def _used(self) -> bool:
        return hasattr(self, "before")

    @property
    def after(self) -> debug.MemoryUse:
        """The memory of its source in use now: when the block ends, its exception keeps objects."""
        return debug.memory(self._source)

    @property
    def refused(self) -> int:
        """How many allocations have failed inside the block: 0 if it had fewer than the n-th."""
        return self._failing.refused

    def __enter__(self) -> AllocationFailure:
        self.before = debug.memory(self._source)
        self._failing.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._failing.__exit__(kind, error, tb)


class Allocations:
    """Make allocations fail: called with *n*, it returns the block in which the n-th does.

    Memory is counted from the first use on (`debug.count_memory`).
    """

    def __init__(self) -> None:
        debug.count_memory()

    def __call__(
        self,
        nth: int = 1,
        *,
        onwards: bool = False,
        source: int = MemorySource.LIBEVENT,
        put_aside: bool = True,
    ) -> AllocationFailure:
        """Return a block in which the *nth* allocation of *source* fails, the first being 1.

        With *onwards*, so do all later ones. With *put_aside* false, the memory that the package
        has put aside is not there to help, as in `debug.FailingMemory`. Raises `ValueError` for a
        number below 1.
        """
        return AllocationFailure(nth, onwards, MemorySource(source), put_aside)

    def each(
        self,
        *,
        onwards: bool = False,
        source: int = MemorySource.LIBEVENT,
        put_aside: bool = True,
    ) -> Iterator[AllocationFailure]:
        """Yield blocks in which the first, second, third … allocation fails, as many as there are.

        The last block is the first in which nothing has failed. *onwards*, *source* and *put_aside*
        are those of a call. Raises `RuntimeError` if one was not used in ``with``.
        """
        for nth in itertools.count(1):
            failure = self(nth, onwards=onwards, source=source, put_aside=put_aside)
            yield failure
            if not failure._used:
                raise RuntimeError(f"what is to fail must be in a with block: allocation {nth}")
            if not failure.refused:
                return
