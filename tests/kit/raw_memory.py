"""What tests of libevent's memory share: functions that allocate it, in Python, on C's own.

They are for a process of its own, with one thread: libevent calls them with locks held. Each block
is a plain one of malloc()'s, unless it is `Guarded`.
"""

from __future__ import annotations

import ctypes
from typing import Any

from libevent_py import ffi, lib

MALLOC, REALLOC, FREE = "void *(*)(size_t)", "void *(*)(void *, size_t)", "void(*)(void *)"
_libc = ctypes.CDLL(None)


def _c(name: str, kind: str) -> Any:
    address = ctypes.cast(getattr(_libc, name), ctypes.c_void_p).value
    return ffi.cast(kind, address)


malloc, realloc, free = _c("malloc", MALLOC), _c("realloc", REALLOC), _c("free", FREE)


def restore() -> None:
    """Have libevent use C's own functions."""
    lib.event_set_mem_functions(malloc, realloc, free)


class Counted:
    """Counts the blocks that are in use; *failing* makes the next allocations fail."""

    def __init__(self) -> None:
        self.blocks = 0
        self.failing = False
        self.freed: list[Any] = []
        self._kept = [
            ffi.callback(MALLOC, self.malloc, error=ffi.NULL),
            ffi.callback(REALLOC, self.realloc, error=ffi.NULL),
            ffi.callback(FREE, self.free),
        ]
        lib.event_set_mem_functions(*self._kept)

    def malloc(self, size: int) -> Any:
        if self.failing:
            return ffi.NULL
        self.blocks += 1
        return malloc(size)

    def realloc(self, memory: Any, size: int) -> Any:
        if self.failing:
            return ffi.NULL
        self.blocks += (not memory) - (not size)
        return realloc(memory, size)

    def free(self, memory: Any) -> None:
        self.blocks -= 1
        self.freed.append(memory)
        free(memory)


class Guarded:
    """Puts sixteen bytes before each block, and looks at them when it is freed."""

    GUARD = b"{[<guardedram>]}"

    def __init__(self) -> None:
        self.wrong: list[Any] = []
        self._kept = [
            ffi.callback(MALLOC, self.malloc, error=ffi.NULL),
            ffi.callback(REALLOC, self.realloc, error=ffi.NULL),
            ffi.callback(FREE, self.free),
        ]
        lib.event_set_mem_functions(*self._kept)

    def malloc(self, size: int) -> Any:
        memory = ffi.cast("char *", malloc(size + 16))
        ffi.memmove(memory, self.GUARD, 16)
        return ffi.cast("void *", memory + 16)

    def realloc(self, memory: Any, size: int) -> Any:
        if not memory:
            return self.malloc(size)
        self.check(memory)
        moved = ffi.cast("char *", realloc(ffi.cast("char *", memory) - 16, size + 16))
        return ffi.cast("void *", moved + 16)

    def free(self, memory: Any) -> None:
        self.check(memory)
        free(ffi.cast("char *", memory) - 16)

    def check(self, memory: Any) -> None:
        """Note *memory* if it isn't guarded."""
        if bytes(ffi.buffer(ffi.cast("char *", memory) - 16, 16)) != self.GUARD:
            self.wrong.append(memory)


class Filled:
    """Fills each new block, and what lies behind it, with what nobody should read."""

    def __init__(self) -> None:
        self._kept = ffi.callback(MALLOC, self.malloc, error=ffi.NULL)
        lib.event_set_mem_functions(self._kept, realloc, free)

    def malloc(self, size: int) -> Any:
        memory = malloc(size + 16)
        ffi.memmove(memory, b"\xa5" * (size + 16), size + 16)
        return memory
