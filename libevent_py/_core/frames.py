"""Which methods of this package are under way, as the threads' frames show.

A signal handler, a finalizer or an argument's own method may run between any two steps of a method,
and another thread may run while one is inside C. `owner` asks here before it frees an object that a
method is using, gives its base to another thread, or runs the base's loop.
"""

from __future__ import annotations

import contextlib
import dis
import itertools
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, TracebackType
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])

#: The class of all handles, `handle.Handle`, which is in a module above this one.
handles: list[type] = []

#: The prefix of this package's modules; `libevent_py` itself has no functions.
PACKAGE = "libevent_py."


#: The code of methods that any thread may call: see `any_thread`.
_exempt: set[CodeType] = set()


def any_thread(function: Function) -> Function:
    """Mark *function* as safe to call from any thread."""
    _exempt.add(function.__code__)
    return function


#: The code of functions that call the user back: see `tells`.
_telling: set[CodeType] = set()


def goes_on(free: Function) -> Function:
    """Note that *free*, called once more after an interrupt, goes on where it was."""
    free.goes_on = True  # type: ignore[attr-defined]
    return free


def tells(function: Function) -> Function:
    """Mark *function* as calling the user back at a point where anything may be closed."""
    _telling.add(function.__code__)
    return function


def frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield *frame* and its callers, out to where the thread began."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def is_alive(thread: int) -> bool:
    """Tell whether the thread with this number runs."""
    return thread in sys._current_frames()


def is_ours(frame: FrameType) -> bool:
    """Tell whether *frame* runs code of this package."""
    name = frame.f_globals.get("__name__")
    return type(name) is str and name.startswith(PACKAGE)


def outside(frame: FrameType | None) -> FrameType | None:
    """Return the frame that called into this package, from *frame*, which is inside that call."""
    while frame is not None and is_ours(frame):
        frame = frame.f_back
    return frame


def mentions(frame: FrameType, handle: object) -> bool:
    """Tell whether one of *frame*'s variables is *handle*."""
    return any(value is handle for value in frame.f_locals.values())


def in_the_middle(base: object, frame: FrameType | None, until: FrameType | None = None) -> bool:
    """Tell whether *frame* runs inside a method that uses *base* or anything on it.

    For instance, in a signal handler that comes while the method is under way. Only the callers up
    to *until* count.
    """
    # In one piece, without `outside` and `is_ours`, because each start of a loop calls it.
    within = True
    while frame is not until and frame is not None:
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


def is_used(things: list[object], frame: FrameType | None) -> bool:
    """Tell whether *frame* runs inside a method that uses one of *things*, and not called by C.

    What a function of ours does that C calls, whose name begins with evpy_, C is prepared for.
    """
    for outer in frames(outside(frame)):
        if is_ours(outer):
            if outer.f_code.co_name.startswith("evpy_"):
                return False
            if any(mentions(outer, thing) for thing in things):
                return True
    return False


def at_work(base: object, frame: FrameType | None) -> bool:
    """Tell whether another thread, at *frame*, is in a method that uses *base* or anything on it.

    Methods that any thread may call don't count.
    """
    exempt = False
    for outer in reversed(list(frames(frame))):  # outermost first: what such a method calls, too
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
    if not issubclass(type(value), tuple(handles)):  # isinstance() would run the value's own code
        return False
    return getattr(value, "base", None) is base or _is_of(base, getattr(value, "_owner", None))


def came_at_entry(error: BaseException) -> bool:
    """Tell whether the interrupt *error* came before the called function did anything.

    The function that catches *error* has called it.
    """
    inner = error.__traceback__ and error.__traceback__.tb_next
    # Without it the interrupt came after the call, or the call was one of C.
    return inner is not None and at_beginning(inner)


def at_beginning(place: TracebackType) -> bool:
    """Tell whether *place*, of a traceback, is where its function begins."""
    return place.tb_lasti <= _beginning(place.tb_frame.f_code)


def came_within(error: BaseException, function: Callable[..., object]) -> bool:
    """Tell whether *error* came in *function*, and not after that had returned.

    The function that catches *error* has called it.
    """
    inner = error.__traceback__ and error.__traceback__.tb_next
    if inner is None:  # without memory or room for its frame it has not begun
        return isinstance(error, (MemoryError, RecursionError))
    return inner.tb_frame.f_code is function.__code__


def _beginning(code: CodeType) -> int:
    """Return the offset of the first instruction of *code* after CPython's own."""
    for before, one in itertools.pairwise(dis.get_instructions(code)):
        if before.opname == "RESUME":
            return one.offset
    return 0
