"""Who is in the middle of a method of this package, as the frames of its threads tell.

A signal handler, a finalizer or an argument of its own may run between any two steps of a method,
and another thread while one is inside C. `owner` asks here before it frees, hands over or runs
what such a method is about.
"""

from __future__ import annotations

import contextlib
import dis
import itertools
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])

#: The class of what stands for something of C's: `handle.Handle`, which is above this module.
handles: list[type] = []

#: What this package's modules begin with; `libevent_py` itself has no functions.
PACKAGE = "libevent_py."


#: The code of what any thread may call: see `any_thread`.
_exempt: set[CodeType] = set()


def any_thread(function: Function) -> Function:
    """Note that any thread may call *function*, which takes care of itself."""
    _exempt.add(function.__code__)
    return function


#: The code of what tells the user something: see `tells`.
_telling: set[CodeType] = set()


def tells(function: Function) -> Function:
    """Note that *function* calls the user back where a method can stand whatever is done there."""
    _telling.add(function.__code__)
    return function


def frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield *frame* and those below it, down to where the thread began."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def is_ours(frame: FrameType) -> bool:
    """Tell whether it is this package that runs in *frame*."""
    name = frame.f_globals.get("__name__")
    return type(name) is str and name.startswith(PACKAGE)


def outside(frame: FrameType | None) -> FrameType | None:
    """Return the frame that has called this package, whose *frame* belongs to that call."""
    while frame is not None and is_ours(frame):
        frame = frame.f_back
    return frame


def mentions(frame: FrameType, handle: object) -> bool:
    """Tell whether one of *frame*'s variables is *handle*."""
    return any(value is handle for value in frame.f_locals.values())


def in_the_middle(base: object, frame: FrameType | None) -> bool:
    """Tell whether the caller *frame* runs inside a method that is about *base* or what is on it.

    Such as a signal handler that comes while the method is under way.
    """
    # In one piece, without `outside` and `is_ours`: this is asked at each start of a loop.
    within = True
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if type(name) is not str or not name.startswith(PACKAGE):
            within = False
        elif not within:
            if frame.f_code in _telling:
                return False
            if _is_about(base, frame):
                return True
        frame = frame.f_back
    return False


def at_work(base: object, frame: FrameType | None) -> bool:
    """Tell whether another thread, at *frame*, is in a method about *base* or what is on it.

    What any thread may call isn't counted.
    """
    exempt = False
    for outer in reversed(list(frames(frame))):  # from the outside: what it calls is exempt, too
        if not is_ours(outer):
            exempt = exempt and outer.f_globals is vars(contextlib)
        elif outer.f_code in _exempt:
            exempt = True
        elif not exempt and _is_about(base, outer):
            return True
    return False


def _is_about(base: object, frame: FrameType) -> bool:
    return any(_is_of(base, value) for value in frame.f_locals.values())


def _is_of(base: object, value: object) -> bool:
    """Tell whether *value* is *base*, or a handle that belongs to it."""
    if value is base:
        return True
    if not issubclass(type(value), tuple(handles)):  # isinstance() would ask the value itself
        return False
    return getattr(value, "base", None) is base or _is_of(base, getattr(value, "_owner", None))


def came_at_entry(error: BaseException) -> bool:
    """Tell whether *error* came just where the function began that the one catching it has called.

    So an interrupt has kept that function from doing anything.
    """
    inner = error.__traceback__ and error.__traceback__.tb_next
    if inner is None:  # it came after a call, or that was one of C's
        return False
    return inner.tb_lasti <= _beginning(inner.tb_frame.f_code)


def _beginning(code: CodeType) -> int:
    """Return where what *code* does begins, behind what CPython itself needs there."""
    for before, one in itertools.pairwise(dis.get_instructions(code)):
        if before.opname == "RESUME":
            return one.offset
    return 0
