"""Pointers that free what they point to with the last who holds them, and what depends on that.

Who calls C with a pointer holds it until C returns: so nothing is freed below a call, whoever
closes it meanwhile. `owner` tells where that matters.
"""

from __future__ import annotations

import functools
import itertools
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libevent_py import errors
from libevent_py._ffi import ffi

if TYPE_CHECKING:
    from libevent_py._ffi import Arguments, CData, Unpack


def _alone() -> int:
    pointer = object()
    return sys.getrefcount(pointer)


#: What `sys.getrefcount` says of what only one variable holds.
ALONE = _alone()

#: For each `shared` pointer, by a number: a weak reference to it, and another pointer to the same,
#: which cffi frees when it goes. C alone takes it from here when the first is let go: no interrupt
#: comes between.
_held: dict[int, list[Any]] = {}

# Looked up once, for what is called for each buffer made.
_next_number = itertools.count(1).__next__
_pop = _held.pop
_gc, _cast, _typeof = ffi.gc, ffi.cast, ffi.typeof
_ref, _partial = weakref.ref, functools.partial


def _numbers(pointer: CData) -> list[int]:
    """Return the numbers in `_held` of a pointer."""
    found = [getattr(ref.__callback__, "args", ()) for ref in weakref.getweakrefs(pointer)]
    return [arguments[0] for arguments in found if arguments and arguments[0] in _held]


def shared(pointer: CData, free: Callable[[CData], object]) -> CData:
    """Return *pointer* after arranging for *free* of it when nobody holds it any longer.

    Who calls C with it holds it, too: so it is not freed below a callback, or another thread, that
    is inside such a call. A pointer is nothing that the collector would finalize (as it would one
    of ``ffi.gc``'s own): so finalizers find what it points to alive, and may keep it so. *free* is
    called wherever that is, as a finalizer would be.
    """
    number = _next_number()
    copy = _cast(_typeof(pointer), pointer)
    entry: list[Any] = [_ref(pointer, _partial(_pop, number))]
    _held[number] = entry  # no call from here to the next line: from here on it is freed with that
    entry.append(_gc(copy, free))
    return pointer


def unshare(pointer: CData) -> None:
    """Undo `shared`: from now on somebody else frees *pointer*."""
    for number in _numbers(pointer):
        ffi.gc(_held[number][1], None)
        del _held[number]


def keep_for(pointers: list[CData | None], owner: CData | None) -> None:
    """Keep *owner*, a `shared` pointer, for as long as anybody holds one of *pointers*.

    They are to parts of what it points to.
    """
    for pointer in filter(None, pointers):
        shared(pointer, lambda _pointer: owner)


class Countdown:
    """Calls *function* as soon as nobody holds any of some pointers."""

    __slots__ = ("_function", "_left", "began")

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._left = 0
        #: Whether it does: an interrupt may keep `begin` from that.
        self.began = False

    def begin(self, pointers: list[CData]) -> None:
        """Wait for all of *pointers*."""
        self._left = len(pointers)
        for pointer in pointers:
            shared(pointer, self._gone)
        self.began = True

    def _gone(self, _pointer: CData) -> None:
        self._left -= 1
        if self.began and not self._left:
            self._function()


def when_let_go(pointers: list[CData], function: Callable[[], object]) -> None:
    """Call *function* as soon as nobody holds any of *pointers*, with none at once."""
    if pointers:
        Countdown(function).begin(pointers)
    else:
        function()


def owned(
    free: Callable[[CData], object],
    function: Callable[[Unpack[Arguments]], CData],
    *arguments: Unpack[Arguments],
) -> CData:
    """Enter C by *function*, which calls nobody back, for a new object; return its pointer or NULL.

    It is `shared`, and an interrupt loses it nowhere on the way.
    """
    made: list[CData] = []
    ffi.errno = 0
    try:
        list(map(made.append, itertools.starmap(function, (arguments,))))
        return shared(made[0], free) if made[0] else made[0]
    except BaseException:
        if made and made[0] and not is_shared(made[0]):
            free(made[0])
        raise


def new_owned(
    free: Callable[[CData], object],
    function: Callable[[Unpack[Arguments]], CData],
    *arguments: Unpack[Arguments],
) -> CData:
    """Do what `owned` does, and raise why there is none."""
    pointer = owned(free, function, *arguments)
    if not pointer:
        raise errors.failed(function)
    return pointer


def is_shared(pointer: CData) -> bool:
    """Tell whether *pointer* is one that `shared` has returned, or has been about to."""
    return bool(_numbers(pointer))


def copied(pointer: CData) -> CData:
    """Return another pointer to the same, for who frees it when *pointer* is let go."""
    return _cast(_typeof(pointer), pointer)


def forget_all() -> None:
    """Free nothing any more: at its end a process leaves that to the system."""
    for entry in list(_held.values()):
        ffi.gc(entry[1], None)


def lose(address: int) -> bool:
    """Have nobody free the pointer to *address*, and tell whether it was a `shared` one."""
    for number, (_, pointer) in _held.copy().items():
        if int(ffi.cast("uintptr_t", pointer)) == address:
            ffi.gc(pointer, None)
            del _held[number]
            return True
    return False
