"""Single turns of a base's loop, for a program with a loop of its own.

Each run of a loop checks who runs it, sets the wakeup descriptor and makes the base's callbacks
known. `Turns` does that once for all turns in its block. What can change between two turns is
checked each time: the thread, a fork, a close, and whether the caller is in the middle of another
call about the base. For the last, it would have to walk the stack; it needn't in the frame that has
begun the block, whose callers can't have changed.

A block may be left where its end can't be made: in a callback, in the middle of a call about the
base, or after another thread has taken the base over. A generator with such a block is closed
wherever it is dropped. Then whoever runs the loop makes what is left of that end.
"""

from __future__ import annotations

import errno
import sys
from types import FrameType
from typing import TYPE_CHECKING, Final

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.dispatch import live
from libevent_py._core.frames import in_the_middle
from libevent_py._core.owner import get_ident
from libevent_py._core.wakeup import in_main_thread, wakeup
from libevent_py._ffi import ffi, lib
from libevent_py.event.exits import forget_exit

if TYPE_CHECKING:
    from libevent_py._core.convert import Timeout
    from libevent_py.event.base import EventBase

# Looked up once: an attribute of lib costs as much as a short call.
turn: Final = lib.evpy_turn

#: Code whose frame can go on with another caller than it began with: inspect's CO_GENERATOR,
#: CO_COROUTINE and CO_ASYNC_GENERATOR, without importing it.
RESUMED = 0x20 | 0x80 | 0x200


class Turns:
    """A block in which turns of *base*'s loop are cheap: see `EventBase.turns`.

    One inside another on the same base does nothing. Without *waits*, the turns never wait, and so
    need no wakeup descriptor.
    """

    __slots__ = ("_base", "_before", "_caller", "_frame", "_left", "_waits")

    def __init__(self, base: EventBase, caller: FrameType, *, waits: bool = True) -> None:
        self._base = base
        self._caller: FrameType | None = caller
        self._frame: FrameType | None = None
        self._before: list[int] = []
        #: Whether it has been left amid a run of the loop, at whose end it ends.
        self._left = False
        self._waits = waits

    def __enter__(self) -> Turns:
        base, caller = self._base, self._caller
        self._caller = None  # a frame keeps all that it refers to alive
        base._check_usable()
        if base._thread != get_ident():
            base._claim()
        base._check_runnable(sys._getframe(1))  # which *caller* need not have led to
        if base._opened is not None:
            return self
        if caller is not None and not caller.f_code.co_flags & RESUMED:
            self._frame = caller
        try:
            base._opened = self
            base._begin_callbacks()
            if self._waits:
                base._watch_pipes(self._before)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        base = self._base
        self._frame = None
        if base._opened is not self:
            self._unwatch()  # another thread has taken the base over
            return
        if base._running:
            self._left = True
            return
        self._left = False
        if base._calls or in_the_middle(base, sys._getframe(1)):
            self._end_amid()
            return
        try:
            base._end_run(self._before)
        except BaseException:  # an interrupt
            base._end_run(self._before)
            raise
        finally:
            self._before = []
            base._opened = None

    def _end_amid(self) -> None:
        """End the block where nothing can be freed: the base does that later."""
        base = self._base
        base._opened = None
        self._unwatch()
        forget_exit(base)
        if not base._calls:
            base._end_callbacks()

    def _unwatch(self) -> None:
        """Restore the wakeup descriptor, which another thread than the main one can't."""
        if self._before and in_main_thread():
            wakeup().unwatch(self._before)
            self._before = []

    # hot: a program with a loop of its own calls it all the time.
    def run(self, timeout: Timeout, caller: FrameType | None) -> bool:
        """Run a turn, as `EventBase.turn` says, for *caller*: None if it has begun this block."""
        base = self._base
        pointer = base.pointer
        if base._thread != get_ident():
            raise base._wrong_thread()
        if caller is not None and (
            base._running
            or base._calls
            or (caller is not self._frame and in_the_middle(base, caller, self._frame))
        ):
            base._check_runnable(caller)
        if type(timeout) is not float or not 0.0 <= timeout <= convert.MAX_SECONDS:
            timeout = convert.optional_seconds(timeout)
        if base not in live.bases:  # another loop has looked after them, or this is a forked child
            base._begin_callbacks()
        here = errors.entered.here
        outer, before = here.loop, len(here.raised)
        try:
            base._running, here.loop = True, pointer
            result = turn(pointer, timeout, base._waker)
            if result:
                result = base._told(result)
            if len(here.raised) > before:
                errors.settle(before)
        except BaseException as error:
            errors.take_along(before, error)
            raise
        finally:
            base._running, here.loop = False, outer
            if self._left:
                self.__exit__()
        if result < 0:
            raise errors.failed(lib.event_base_loop)
        base._exhume()
        if base._quiet:
            base._use_quiet(pointer)
        return result == 0


def refused() -> Exception:
    """Return the error of a loop that is not begun, or has ended, as there is no memory."""
    ffi.errno = errno.ENOMEM
    return errors.failed(lib.event_base_loop)


def short() -> MemoryError:
    """Return the error of a turn in which libevent lacked memory."""
    return MemoryError("libevent got no memory in the loop, and has used what was put aside")
