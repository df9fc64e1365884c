"""Pointers that free their C object with the last reference to them.

A call of C keeps a reference to the pointer until C returns. So nothing is freed while C uses it,
even if other code closes the object meanwhile. `owner` explains when that matters.
"""

from __future__ import annotations

import functools
import itertools
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libevent_py import errors
from libevent_py._ffi import ffi, lib

if TYPE_CHECKING:
    from libevent_py._ffi import Arguments, CData, Unpack


def _alone() -> int:
    pointer = object()
    return sys.getrefcount(pointer)


#: What `sys.getrefcount` returns for an object with one reference, a local variable.
ALONE = _alone()

#: For each `shared` pointer, by a number: a weak reference to it, and a second pointer to the same
#: object, which cffi frees when it is dropped. The weak reference's callback, which is C code,
#: removes the entry; so no interrupt can come in between.
_held: dict[int, list[Any]] = {}

# Looked up once, for code that runs for each buffer made.
_next_number = itertools.count(1).__next__
_pop = _held.pop
_gc, _cast, _typeof = ffi.gc, ffi.cast, ffi.typeof
_ref, _partial = weakref.ref, functools.partial


def _numbers(pointer: CData) -> list[int]:
    """Return the numbers in `_held` of *pointer*."""
    found = [getattr(ref.__callback__, "args", ()) for ref in weakref.getweakrefs(pointer)]
    return [arguments[0] for arguments in found if arguments and arguments[0] in _held]


def shared(pointer: CData, free: Callable[[CData], object]) -> CData:
    """Arrange for *free* to be called when the last reference to *pointer* is dropped; return it.

    A call of C has such a reference, too: so the object is not freed while a callback or another
    thread is inside such a call. The garbage collector doesn't finalize the pointer itself (as it
    would one from ``ffi.gc``): so finalizers still find its object alive, and may keep it alive.
    Like a finalizer, *free* may run at any place.
    """
    number = _next_number()
    copy = _cast(_typeof(pointer), pointer)
    entry: list[Any] = [_ref(pointer, _partial(_pop, number))]
    _held[number] = entry  # no call from here to the next line: now the entry frees it
    entry.append(_gc(copy, free))
    return pointer


def unshare(pointer: CData) -> None:
    """Undo `shared`: from now on another owner frees *pointer*."""
    for number in _numbers(pointer):
        ffi.gc(_held[number][1], None)
        del _held[number]


def keep_for(pointers: list[CData | None], owner: CData | None) -> None:
    """Keep *owner*, a `shared` pointer, alive as long as any of *pointers*, which point into it."""
    for pointer in filter(None, pointers):
        shared(pointer, lambda _pointer: owner)


class Countdown:
    """Calls *function* as soon as the last reference to a group of pointers is dropped."""

    __slots__ = ("_function", "_left", "began")

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._left = 0
        #: Whether `begin` is complete: an interrupt may cut it short.
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
    """Call *function* when the last reference to *pointers* is dropped; with none, at once."""
    if pointers:
        Countdown(function).begin(pointers)
    else:
        function()


def owned(
    free: Callable[[CData], object],
    function: Callable[[Unpack[Arguments]], CData],
    *arguments: Unpack[Arguments],
) -> CData:
    """Make a new object by C's *function*, which doesn't call back; return its pointer or NULL.

    The pointer is `shared`, and no interrupt can lose it.
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
    """Do what `owned` does, but instead of NULL raise why there is no object."""
    pointer = owned(free, function, *arguments)
    if not pointer:
        raise errors.failed(function)
    return pointer


def text_from(
    function: Callable[[Unpack[Arguments]], CData],
    *arguments: Unpack[Arguments],
    size: CData | list[int] | None = None,
) -> bytes | None:
    """Return the text that C's *function* returns, up to *size* or a NUL, or None for NULL.

    C has malloc()ed it, and it is freed.
    """
    made: list[CData] = []
    try:
        ffi.errno = 0
        if not errors.handed(made.append, function, arguments):
            return None
        return bytes(ffi.buffer(made[0], size[0]) if size else ffi.string(made[0]))
    finally:
        if made:
            lib.free(made[0])


def is_shared(pointer: CData) -> bool:
    """Tell whether `shared` has been called for *pointer*, even if an interrupt cut it short."""
    return bool(_numbers(pointer))


def copied(pointer: CData) -> CData:
    """Return another pointer to the same object, which is no reference to *pointer* itself."""
    return _cast(_typeof(pointer), pointer)


def forget_all() -> None:
    """Free nothing from now on: when the process ends, the system does it."""
    for entry in list(_held.values()):
        ffi.gc(entry[1], None)


def lose(address: int) -> bool:
    """Never free the `shared` pointer to *address*; return False if there is none."""
    for number, (_, pointer) in _held.copy().items():
        if int(ffi.cast("uintptr_t", pointer)) == address:
            ffi.gc(pointer, None)
            del _held[number]
            return True
    return False
