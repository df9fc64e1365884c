"""libevent's own checks of how it is used, and how much memory it uses.

Each check must be switched on before the first event base is made. `count_memory`, which may be
called at any time, counts the memory that libevent and this package allocate; with the environment
variable ``LIBEVENT_PY_COUNT_MEMORY``, OpenSSL's too. Python's own memory and the C library's are
not counted. While memory is counted, `FailingMemory` can make an allocation fail.
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
    """Raise `ValueError` for a blocking descriptor, if debug mode would end the process."""
    if enabled("debug_mode") and os.get_blocking(fd):
        raise ValueError(f"fd {fd} must not block when libevent's debug mode is on")


def _switch_on(check: str) -> bool:
    """Note that *check* is switched on; return whether it was off. libevent would exit (A4)."""
    if _made:
        raise RuntimeError(f"enable_{check}() must come before the first {_made[0]}")
    if check in _on:
        return False
    _on.add(check)
    return True


def enable_debug_mode() -> None:
    """Make libevent check that events are used in a legal order, and that no socket blocks.

    If a check fails, libevent ends the process; correct use of Python's objects never causes that.
    A second call does nothing; in C it exits. Raises `RuntimeError` after the first event base.
    Wraps ``event_enable_debug_mode``.
    """
    if _switch_on("debug_mode"):
        lib.event_enable_debug_mode()


def enable_lock_debugging() -> None:
    """Make libevent check that its locks are taken and released in pairs.

    Raises `RuntimeError` after the first event base. Wraps ``evthread_enable_lock_debugging``.
    """
    if _switch_on("lock_debugging"):
        lib.evthread_enable_lock_debugging()


class MemoryUse(NamedTuple):
    """How much memory is in use, as `memory` returns it."""

    #: How many blocks have been allocated and not freed.
    blocks: int
    #: How many bytes were asked for in these blocks.
    bytes: int
    #: The largest number of blocks in use at any time.
    peak_blocks: int
    #: The largest number of bytes in use at any time.
    peak_bytes: int
    #: How many allocations there were, including refused ones.
    allocations: int
    #: How many allocations `FailingMemory` has refused.
    refused: int


class MemoryBlock(NamedTuple):
    """A block of memory that is in use, as `memory_blocks` returns it."""

    #: The number of its allocation, the first being 1: the same in each run of the same program.
    number: int
    #: Its size in bytes.
    size: int
    #: Who has asked for it.
    source: MemorySource
    #: Where it is.
    address: int


def count_memory() -> None:
    """Count the memory that libevent and this package allocate from now on.

    Memory that was allocated before is not counted, and may still be freed. Counting can't be
    switched off; a second call does nothing. Each allocation takes a tenth of a microsecond longer.

    OpenSSL's memory is counted only if the environment variable ``LIBEVENT_PY_COUNT_MEMORY`` is set
    to any text when the package is imported, and `ssl` and `hashlib` are not imported before it:
    counting must begin before OpenSSL is used. With it, all memory is counted from the import on.
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
    """Make an allocation fail inside a ``with`` block, as when the system has no more memory.

    The *nth* allocation of *source*, a `MemorySource`, inside the block fails, the first being 1;
    with *onwards* all later ones fail as well. Allocations of all threads count. To try each in
    turn::

        for nth in itertools.count(1):
            with debug.FailingMemory(nth) as failing:
                ...  # the code under test, which raises MemoryError
            if not failing.refused:
                break

    If libevent would not survive the failure, the call goes on with memory that was put aside,
    undoes what it has done, and then fails. With *put_aside* false that memory is freed before the
    block; it is put aside again unless all allocations fail.
    """

    __slots__ = ("_before", "_nth", "_onwards", "_put_aside", "_source", "_until")

    #: The present block: a second one would count the first one's allocations.
    _current: FailingMemory | None = None

    def __init__(
        self,
        nth: int = 1,
        *,
        onwards: bool = False,
        source: int = MemorySource.ANY,
        put_aside: bool = True,
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
        self._put_aside = bool(put_aside)
        self._before = 0
        self._until: int | None = None

    @property
    def refused(self) -> int:
        """How many allocations have failed inside the block so far.

        What could not be put aside for a call, as all allocations fail, is one of this package's.
        """
        now = memory().refused if self._until is None else self._until
        return now - self._before

    def __enter__(self) -> FailingMemory:
        if FailingMemory._current is not None:
            raise RuntimeError("memory fails already: use one block of FailingMemory at a time")
        FailingMemory._current = self
        self._before, self._until = memory().refused, None
        if not self._put_aside:
            lib.evpy_asides_forget()
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
