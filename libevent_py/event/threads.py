"""A base in a thread of its own, and calls that other threads have its loop make.

*A call* is a future of `concurrent.futures` among the functions that wait for the loop, as those
given to `EventBase.defer` do. Whoever waits for one must be told, once, whatever happens: the loop
makes the call; an interrupt comes at any step of that; the base is closed, dropped or freed; the
loop of its thread ends. So a call that can't be made any more is told why, before it is removed
from what waits. In a forked child nobody could be told who would make it: the parent makes it.

*The thread.* `InThread` starts it, and it claims the base before the block begins. To end it, the
block leaves a function to the loop, which breaks it: an exit from here could come when the loop has
just ended by itself, and would then end the next one. The base's gate is held where one looks
whether the loop has ended, and where that is noted.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, PENDING, RUNNING
from types import FrameType, MethodType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from libevent_py import errors
from libevent_py._core.frames import any_thread, came_at_entry, in_the_middle
from libevent_py._core.owner import get_ident
from libevent_py.enums import LoopFlag
from libevent_py.errors import ForkError, ThreadError

if TYPE_CHECKING:
    from types import TracebackType

    from libevent_py.event.base import EventBase

Result = TypeVar("Result")

#: A function that waits for a loop, with its arguments.
Job: TypeAlias = tuple[Callable[..., object], tuple[object, ...]]
Jobs: TypeAlias = deque[Job]

#: What comes out of the loop, too, when a call raises it.
URGENT = (KeyboardInterrupt, SystemExit)


class Call(Future[Result]):
    """What `EventBase.call` returns: the future of a call that the loop makes.

    It doesn't keep the base alive, which tells it when it is freed.
    """

    def __init__(
        self, base: EventBase, function: Callable[..., Result], args: tuple[object, ...]
    ) -> None:
        super().__init__()
        self._base = weakref.ref(base)
        #: What to call; None afterwards.
        self._job: tuple[Callable[..., Result], tuple[object, ...]] | None = (function, args)
        self._process = os.getpid()

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the call, at most *timeout* seconds, and return its result, or raise its error.

        Raises `RuntimeError` in the thread whose loop is to make it, where it would wait for
        itself, and `ForkError` in a forked child.
        """
        self._check_made_elsewhere()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait as `result` does, and return what the call has raised, or None."""
        self._check_made_elsewhere()
        return super().exception(timeout)

    def _check_made_elsewhere(self) -> None:
        """Raise an error if this thread would wait for what can't happen meanwhile."""
        if self._state not in (PENDING, RUNNING):
            return
        if os.getpid() != self._process:
            raise ForkError("the process that this one was forked from makes this call, if any")
        base = self._base()
        if base is not None and base._running and base._thread == get_ident():
            raise RuntimeError(
                "the loop of this very thread is to make the call, so it can't be waited for here: "
                "use add_done_callback()"
            )

    def _starts(self) -> bool:
        """Note that it begins; return False if it has been cancelled, or told already."""
        # By the state itself, as Python has no other way to tell whether those who wait know of a
        # cancellation: an interrupt may have come right after they were told.
        if self._state == RUNNING:
            return True
        return self._state in (PENDING, CANCELLED) and self.set_running_or_notify_cancel()

    # The loop runs this, as one of the functions that wait for it.
    def _make(self) -> None:
        """Make the call, unless it has been cancelled or is the parent process's."""
        try:
            if os.getpid() == self._process and self._starts() and self._job is not None:
                function, args = self._job
                result = function(*args)
                if os.getpid() == self._process:  # the other threads aren't here
                    self.set_result(result)
        except BaseException as error:
            try:
                told = self._tell(error)
            except BaseException:  # an interrupt
                self._tell(error)
                raise
            if not told or isinstance(error, URGENT):
                raise
        finally:
            self._job = None  # what it is called with may be freed
            del self  # what it has raised refers to this frame

    def _tell(self, error: BaseException) -> bool:
        """Tell of *error*; return False if there is nobody to tell, or all has been told."""
        if os.getpid() != self._process:
            return False
        tells = self._starts()
        if tells:
            self.set_exception(error)
        return tells


def call_of(job: Job) -> Call[Any] | None:
    """Return the call that *job* makes, if it is that of one."""
    function = job[0]
    return (
        function.__self__
        if type(function) is MethodType and type(function.__self__) is Call
        else None
    )


def was_lost(job: Job | None, error: BaseException) -> bool:
    """Tell whether the interrupt *error* came right where *job* was begun.

    What a function raises at its very first step, such as NameError, looks like that, too; a call
    raises nothing there.
    """
    if job is None or (isinstance(error, Exception) and call_of(job) is None):
        return False
    return came_at_entry(error)


def fail_calls(jobs: Jobs, why: Callable[[], Exception]) -> None:
    """Have all calls among *jobs* fail, each with what *why* makes; leave other functions there.

    Interrupted and called once more, it goes on where it was.
    """
    at = 0
    while at < len(jobs):
        job = jobs[at]
        call = call_of(job)
        if call is not None:
            call._tell(why())
            if at < len(jobs) and jobs[at] is job:  # whoever is told may do anything
                del jobs[at]
        else:
            at += 1


class InThread:
    """A block in which a thread of its own runs *base*'s loop: see `EventBase.in_thread`."""

    def __init__(self, base: EventBase) -> None:
        self._base = base
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="event base", daemon=True)
        #: Set when the thread has claimed the base or has failed to, and when it has given it back.
        self._begun, self._ended = threading.Event(), threading.Event()
        #: Whether the thread has claimed the base, and whether it is through with it.
        self._claimed = self._over = False
        #: Whether the block is at its end.
        self._leaving = False
        self._error: BaseException | None = None
        #: Whether the block was left in its own thread, so that nobody has waited for its end.
        self._abandoned = False
        #: The thread that has begun the block.
        self._entered = 0
        #: Why calls are refused, if they are.
        self._refusal = ""
        self._stopper = (self._stop, ())

    # The block.

    @any_thread  # it gives the base to the thread
    def __enter__(self) -> threading.Thread:
        base = self._base
        base._check_usable()
        if base._nolock:
            raise ThreadError("a base made with NOLOCK can't be run in a thread of its own")
        if self._thread.ident is not None:
            raise RuntimeError("this block has been used: call in_thread() once more")
        with base._gate:
            if base._threaded is not None:
                raise RuntimeError("this event base runs in a thread of its own already")
            base._check_runnable(sys._getframe(1))
            if base._opened is not None:
                raise RuntimeError("this event base is in a block of turns()")
            base._threaded, self._entered = self, get_ident()
        try:
            _running.add(self)
            self._thread.start()
            self._begun.wait()
            if not self._claimed:
                raise self._error or RuntimeError("the block was ended while it began")
        except BaseException:
            self._end(hurry=True)
            raise
        return self._thread

    @any_thread
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if os.getpid() != self._process:  # the thread is the parent process's
            return
        if self._thread.ident == get_ident():
            self._end_here(hurry=error is not None)
            return
        try:
            self._end(hurry=error is not None)
        except BaseException:  # an interrupt
            self._end(hurry=True)
            raise
        raised, self._error = self._error, None
        if raised is None or raised is error:
            return
        if error is not None and not isinstance(error, Exception) and isinstance(raised, Exception):
            errors._chain(error, raised)
            return
        try:
            raise raised
        finally:
            del raised, error  # they would refer to this frame

    def _end(self, *, hurry: bool) -> None:
        """End the loop, and wait for its thread to give the base back; a second time goes on.

        In a *hurry*, after the callback that runs now; else after the calls that wait.
        """
        self._ask_to_end(hurry)
        if self._claimed:  # not by join() alone, after which an interrupted thread seems to be over
            self._ended.wait()
            self._thread.join()
        self._forget()

    def _ask_to_end(self, hurry: bool) -> None:
        base = self._base
        with base._gate:
            self._leaving = True
            if self._claimed and not self._over:
                (base._jobs.appendleft if hurry else base._jobs.append)(self._stopper)
                base._rouse()
                if hurry:
                    base.loopbreak()

    def _forget(self) -> None:
        """Leave nothing of the block in the base."""
        base = self._base
        with base._gate:
            for at in reversed(range(len(base._jobs))):  # the loop may not have come to it
                if base._jobs[at] is self._stopper:
                    del base._jobs[at]
            if base._threaded is self:
                base._threaded = None

    def _end_here(self, *, hurry: bool) -> None:
        """End the loop as a callback of its own leaves the block, which can't wait for itself.

        For instance, the garbage collector has closed a generator there.
        """
        with self._base._gate:
            self._abandoned = True
        self._ask_to_end(hurry)

    def _end_for_close(self, caller: FrameType | None) -> None:
        """End the loop as the block's own thread closes the base: if need be, this ends the block.

        An interrupt may have come just when the block was left.
        """
        if self._entered != get_ident() or in_the_middle(self._base, caller):
            return
        self._end(hurry=True)
        amid = sys.exc_info()[1]
        if amid is not None and self._error is not None and amid is not self._error:
            errors._chain(amid, self._error)

    def _stop(self) -> None:
        self._base.loopbreak()

    # The thread.

    def _run(self) -> None:
        base = self._base
        try:
            with base._gate:
                if self._leaving:
                    return
                base.take_over()
                self._claimed = True
            self._begun.set()
            base.loop(LoopFlag.NO_EXIT_ON_EMPTY)
        except BaseException as error:
            # In a forked child, and where the block was left in this thread, nobody asks for it.
            if os.getpid() != self._process or self._abandoned:
                raise
            self._error = error
        finally:
            self._ends()

    def _ends(self) -> None:
        """Note that the loop has ended; if nobody has asked for that, refuse calls from here on."""
        base = self._base
        with base._gate:
            self._over = True
            if not self._leaving and base._threaded is self:
                how = f" with {self._error!r}" if self._error is not None else ""
                self._refusal = f"the loop in the base's own thread has ended{how}"
        try:
            if self._refusal:
                fail_calls(base._jobs, self._refuses)
            if self._abandoned:
                self._forget()
            base._give(self._entered)
        finally:
            self._begun.set()
            self._ended.set()

    def _refuses(self) -> ThreadError:
        return ThreadError(self._refusal)

    def _check_serves(self) -> None:
        """Raise `ThreadError` if nobody would make a call."""
        if self._refusal:
            raise self._refuses()


#: The blocks that are under way.
_running: weakref.WeakSet[InThread] = weakref.WeakSet()


def _end_all() -> None:
    """End the loops that still run at exit: their blocks are never left."""
    for block in list(_running):
        if block._process == os.getpid() and not block._over:
            block._end(hurry=True)


atexit.register(_end_all)


def closed_first() -> errors.ClosedError:
    """Return why a call is never made."""
    return errors.ClosedError("the event base was closed before its loop came to this call")
