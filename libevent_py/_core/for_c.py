"""What C refers to, reads and sets of Python's objects, by Python's own API: ``_c/python.c``.

cffi knows nothing of Python's objects, and its callbacks cost more than many callbacks do. So where
it matters C calls Python itself. For that it needs some functions and classes, and members of
objects that it can reach without asking for attributes by their names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from libevent_py._ffi import lib

Kind = TypeVar("Kind")


def give(**objects: object) -> None:
    """Have C refer to *objects*, for good, by names that ``_c/python.c`` lists."""
    if lib.evpy_python_set(id(objects)):  # it has printed why, unless it doesn't know one
        raise ImportError(f"libevent_py can't give C what it needs: {', '.join(objects)}")


def functions(put: Callable[[int], int]) -> dict[str, Any]:
    """Return the functions that *put*, a function of C's, puts into a dictionary by their names."""
    made: dict[str, Any] = {}
    if put(id(made)):  # it has printed why
        raise ImportError("libevent_py can't make functions of C's")
    return made


def finalizing(kind: type[Kind]) -> type[Kind]:
    """Have C finalize *kind* by calling its `_finalize`: no interrupt keeps it from that."""
    if lib.evpy_python_finalize(id(kind)):  # it has printed why
        raise ImportError(f"libevent_py can't finalize {kind.__name__}")
    return kind


def extended(name: str, base: type) -> type:
    """Return the class *name*, which C derives from *base*, with the members that C lists."""
    classes = {name: base}
    if lib.evpy_python_extend(id(classes)):  # it has printed why, unless it doesn't know the name
        raise ImportError(f"libevent_py can't make its class {name}")
    return classes[name]
