"""Pointers that free what they point to with the last who holds them, and what depends on that.

Who calls C with a pointer holds it until C returns: so nothing is freed below a call, whoever
closes it meanwhile. `_lifetime` tells where that matters.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any

from libevent_py._ffi import ffi


def _alone() -> int:
    pointer = object()
    return sys.getrefcount(pointer)


#: What `sys.getrefcount` says of what only one variable holds.
ALONE = _alone()

#: What `shared` pointers are freed with, and which: by `id` of the weak reference to each.
_held: dict[int, tuple[weakref.ref[Any], Callable[[Any], object], Any]] = {}


def shared(pointer: Any, free: Callable[[Any], object]) -> Any:
    """Return *pointer* after arranging for *free* of it when nobody holds it any longer.

    Who calls C with it holds it, too: so it is not freed below a callback, or another thread, that
    is inside such a call. A pointer is nothing that the collector would finalize (as it would
    ``ffi.gc``'s): so finalizers find what it points to alive, and may keep it so. *free* is called
    wherever that is, as a finalizer would be.
    """
    ref = weakref.ref(pointer, _let_go)
    _held[id(ref)] = ref, free, copied(pointer)
    return pointer


def unshare(pointer: Any) -> None:
    """Undo `shared`: from now on somebody else frees *pointer*."""
    for ref in weakref.getweakrefs(pointer):
        _held.pop(id(ref), None)


def _let_go(ref: weakref.ref[Any]) -> None:
    _, free, pointer = _held.pop(id(ref), (None, _leave, None))  # unshared, or never in it
    free(pointer)


def _leave(_pointer: Any) -> None:
    """Free nothing."""


def keep_for(pointers: list[Any], owner: Any) -> None:
    """Keep *owner*, a `shared` pointer, for as long as anybody holds one of *pointers*.

    They are to parts of what it points to.
    """
    for pointer in filter(None, pointers):
        shared(pointer, lambda _pointer: owner)


def when_let_go(pointers: list[Any], function: Callable[[], object]) -> None:
    """Call *function* as soon as nobody holds any of *pointers*, with none at once."""
    left = len(pointers)
    if not left:
        function()

    def gone(_pointer: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            function()

    for pointer in pointers:
        shared(pointer, gone)


def copied(pointer: Any) -> Any:
    """Return another pointer to the same, for who frees it when *pointer* is let go."""
    return ffi.cast(ffi.typeof(pointer), pointer)


def lose(address: int) -> bool:
    """Have nobody free the pointer to *address*, and tell whether it was a `shared` one."""
    for key, (_, _, pointer) in list(_held.items()):
        if int(ffi.cast("uintptr_t", pointer)) == address:
            del _held[key]
            return True
    return False
