"""libevent's own checks of how it is used, and how much memory it uses.

Each check must be switched on before the first event base. Memory is counted from `count_memory`
on, which may come at any time: all that libevent and this package take, and with the environment
variable ``LIBEVENT_PY_COUNT_MEMORY`` all that OpenSSL takes, too. What is not counted is Python's
own memory and the C library's. While it is counted, `FailingMemory` has an allocation fail.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import NamedTuple

from libevent_py import errors
from libevent_py._ffi import ffi, lib
from libevent_py.enums import MemorySource

_on: set[str] = set()
_made: list[str] = []


def _note_made(what: str) -> None:
    """Note that *what* has been made, after which no check can be switched on."""
    if not _made:
        _made.append(what)


def enabled(check: str) -> bool:
    """Tell whether *check*, ``debug_mode`` or ``lock_debugging``, is switched on."""
    return check in _on


def _check_nonblocking(fd: int) -> None:
    """Raise `ValueError` for a descriptor that blocks, where debug mode would end the process."""
    if enabled("debug_mode") and os.get_blocking(fd):
        raise ValueError(f"fd {fd} must not block when libevent's debug mode is on")


def _switch_on(check: str) -> bool:
    """Note that *check* is switched on; tell whether it was off. libevent would exit (A4)."""
    if _made:
        raise RuntimeError(f"enable_{check}() must come before the first {_made[0]}")
    if check in _on:
        return False
    _on.add(check)
    return True


def enable_debug_mode() -> None:
    """Have libevent check that events are used in a legal order, and that their sockets don't
    block.

    It ends the process when they aren't; from Python's objects it gets no reason to. A second call
    does nothing, where C exits. Raises `RuntimeError` after the first event base.
    Wraps ``event_enable_debug_mode``.
    """
    if _switch_on("debug_mode"):
        lib.event_enable_debug_mode()


def enable_lock_debugging() -> None:
    """Have libevent check that its locks are taken and released in pairs.

    Raises `RuntimeError` after the first event base. Wraps ``evthread_enable_lock_debugging``.
    """
    if _switch_on("lock_debugging"):
        lib.evthread_enable_lock_debugging()


class MemoryUse(NamedTuple):
    """How much memory is in use, as `memory` tells."""

    #: How many blocks have been allocated and not freed.
    blocks: int
    #: How many bytes they have, as they were asked for.
    bytes: int
    #: The largest number of blocks that there was at any time.
    peak_blocks: int
    #: The largest number of bytes.
    peak_bytes: int
    #: How many allocations there were, the refused ones among them.
    allocations: int
    #: How many of them `FailingMemory` has refused.
    refused: int


class MemoryBlock(NamedTuple):
    """A block of memory that is in use, as `memory_blocks` tells."""

    #: Which allocation it comes from, the first being 1: the same in each run of the same program.
    number: int
    #: How many bytes it has.
    size: int
    source: MemorySource
    address: int


def count_memory() -> None:
    """Count the memory that libevent and this package allocate from now on.

    What was allocated before is not counted, and may be freed as well. It can't be switched off
    again; a second call does nothing. Each allocation takes a tenth of a microsecond longer.

    OpenSSL's memory is counted only where the environment variable ``LIBEVENT_PY_COUNT_MEMORY`` is
    set to any text when the package is imported, and before `ssl` and `hashlib` are: it must come
    before the first thing that OpenSSL does. With it all is counted from the import on.
    """
    errors.call(lib.evpy_count_memory)


def counts_memory(source: int = MemorySource.LIBEVENT) -> bool:
    """Tell whether the memory of *source*, a `MemorySource`, is counted."""
    return bool(lib.evpy_counts(MemorySource(source)))


def memory(source: int = MemorySource.ANY) -> MemoryUse:
    """Return how much memory of *source*, a `MemorySource`, is in use.

    Raises `RuntimeError` unless it is counted.
    """
    usage = ffi.new("struct evpy_usage *")
    lib.evpy_usage(_counted(source), usage)
    return MemoryUse(*(int(getattr(usage, name)) for name in MemoryUse._fields))


def memory_blocks(source: int = MemorySource.ANY) -> list[MemoryBlock]:
    """Return the blocks of *source*, a `MemorySource`, that are in use, the oldest first.

    Raises `RuntimeError` unless they are counted.
    """
    source, room = _counted(source), 256
    while True:
        found = ffi.new("struct evpy_block[]", room)
        length = lib.evpy_live_blocks(source, found, room)
        if length <= room:
            return sorted(
                MemoryBlock(
                    int(block.number), int(block.size), MemorySource(block.source), block.address
                )
                for block in found[0:length]
            )
        room = length + 256


class FailingMemory:
    """Have an allocation fail, as when the system has no more memory: for a ``with`` block.

    The *nth* allocation of *source*, a `MemorySource`, inside the block fails, the first being 1;
    with *onwards* all that follow as well. They are those of all threads. To try each in turn::

        for nth in itertools.count(1):
            with debug.FailingMemory(nth) as failing:
                ...  # what is tried, which raises MemoryError
            if not failing.refused:
                break

    A call for which memory has been put aside, because libevent would not survive its failure, goes
    on with that, takes back what it has made, and then fails.
    """

    __slots__ = ("_before", "_nth", "_onwards", "_source", "_until")

    #: The block that there is: two would take the other's allocations.
    _current: FailingMemory | None = None

    def __init__(
        self, nth: int = 1, *, onwards: bool = False, source: int = MemorySource.ANY
    ) -> None:
        """Choose which allocation is to fail.

        Raises `ValueError` for a number below 1, `RuntimeError` unless memory is counted.
        """
        if not isinstance(nth, int) or isinstance(nth, bool):
            raise TypeError(f"nth must be an integer, not {nth!r}")
        if not 1 <= nth <= lib.EV_SSIZE_MAX:
            raise ValueError(f"nth must be at least 1, not {nth}")
        self._source = _counted(source)
        self._nth = nth
        self._onwards = bool(onwards)
        self._before = 0
        self._until: int | None = None

    @property
    def refused(self) -> int:
        """How many allocations have failed in the block so far."""
        now = memory().refused if self._until is None else self._until
        return now - self._before

    def __enter__(self) -> FailingMemory:
        if FailingMemory._current is not None:
            raise RuntimeError("memory fails already: one block of FailingMemory at a time")
        FailingMemory._current = self
        self._before, self._until = memory().refused, None
        lib.evpy_refuse(self._source, self._nth, self._onwards)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        lib.evpy_refuse(MemorySource.ANY, 0, False)
        self._until = memory().refused
        FailingMemory._current = None


def _counted(source: int) -> MemorySource:
    """Return *source* as a `MemorySource`, or raise `RuntimeError` unless it is counted."""
    which = MemorySource(source)
    if which is MemorySource.OPENSSL and not lib.evpy_counts(which):
        raise RuntimeError(
            "OpenSSL's memory is not counted: set LIBEVENT_PY_COUNT_MEMORY in the environment, and "
            "import libevent_py before ssl and hashlib"
        )
    if not lib.evpy_counts(which):
        raise RuntimeError("memory is not counted: call debug.count_memory() first")
    return which
