"""``struct event_base``: the loop, what a base knows of its events, and work for the loop.

*The loop.* A base has events of its own. Two watch the process's pipes (`wakeup`) and are internal:
they don't keep the loop alive. Two are timers: one is due when there is work from `EventBase.defer`
or in the graveyard, the other when the time of `EventBase.loopexit` has come.

`owner` explains how a base ends.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from libevent_py import debug, errors, log
from libevent_py._core import convert, signals
from libevent_py._core import fork as fork  # registers what is done at a fork
from libevent_py._core.convert import FileDescriptor, Timeout
from libevent_py._core.dispatch import live, next_key
from libevent_py._core.frames import any_thread, came_at_entry, in_the_middle, is_alive, outside
from libevent_py._core.handle import Making
from libevent_py._core.owner import Root, get_ident
from libevent_py._core.pointers import text_from
from libevent_py._core.wakeup import in_main_thread, wakeup
from libevent_py._ffi import ffi, lib
from libevent_py.enums import EventBaseCount, EventBaseFlag, EventFeature, EventFlag, LoopFlag
from libevent_py.event.common_timeout import CommonTimeout
from libevent_py.event.config import (
    SUPPORTED_METHODS,
    EventConfig,
    beyond_select,
    check_method,
    checked_method,
    highest_reserved,
    unmakable,
)
from libevent_py.event.exits import exit_after, exit_now, forget_exit
from libevent_py.event.explain import account
from libevent_py.event.threads import Call, InThread, Jobs, closed_first, fail_calls, was_lost
from libevent_py.event.turns import Turns, refused, short

if TYPE_CHECKING:
    import concurrent.futures
    import threading

    from libevent_py._ffi import Arguments, CData, Result, Unpack
    from libevent_py.event.event import Event

#: What `EventBase.once` calls, as ``callback(fd, what)``: ``event_callback_fn``.
OnceCallback: TypeAlias = Callable[[int, EventFlag], object]

#: What `EventBase.on_error` is, called as ``on_error(exception, source)``: the source may be an
#: object of any class that has callbacks.
ErrorCallback: TypeAlias = Callable[[Exception, Any], object]

#: What an event can fire for, by C's number: `EventFlag` itself takes ten times as long.
FLAGS = tuple(EventFlag(number) for number in range(2 * EventFlag.CLOSED))

# Looked up once: an attribute of lib or of an enumeration costs as much as a short call.
TIMEOUT = EventFlag.TIMEOUT
once_timer: Final = lib.evpy_once_timer
got_break: Final = lib.event_base_got_break

#: How many turns in a row to look for a quiet moment, and how many seconds to rest after that.
TURNS = 16
REST = 0.01

#: An event for any of these watches a descriptor.
IO = EventFlag.READ | EventFlag.WRITE | EventFlag.CLOSED


class EventBase(Root):
    """A loop that waits for events and runs their callbacks; usable in ``with``.

    Closing a base closes everything made on it. A base that is dropped is closed too, as soon as
    nothing made on it is left.

    A base, with everything made on it, belongs to one thread at a time: the one that made it, then
    whichever last ran its loop, closed it or called `take_over`. In other threads its methods raise
    `ThreadError`, except `defer`, `loopexit`, `loopbreak`, `loopcontinue` and `Event.active`, which
    wake the loop. When its thread has ended, the base goes to the next thread that uses it.
    """

    __slots__ = (
        "_arena",
        "_exit_at",
        "_exiter",
        "_jobs",
        "_loop_flags",
        "_nolock",
        "_on_error",
        "_once_callbacks",
        "_onces",
        "_opened",
        "_pipes",
        "_quiet",
        "_reactions",
        "_threaded",
        "_turns",
        "_waker",
    )

    def __init__(
        self,
        config: EventConfig | None = None,
        *,
        method: str | None = None,
        priorities: int | None = None,
    ) -> None:
        """Make a base as *config* asks, with *priorities* levels from 0, the most urgent.

        With *method*, one of `supported_methods`, the base uses that backend or none. Without it,
        the base uses the first backend that *config* doesn't avoid, that has the features *config*
        requires, and that no environment variable such as ``EVENT_NOEPOLL`` disables. An event gets
        the middle level by default. Raises `ValueError` for an unknown *method*, `LibeventError`
        when no backend will do: the message gives the reason for each. Unlike in C, the number of
        levels can't be changed later, when events could depend on it. Wraps
        ``event_base_new_with_config``, ``event_base_priority_init``. Stands for ``event_base_new``.
        """
        self._check_unmade()
        if config is not None and not isinstance(config, EventConfig):
            raise TypeError(f"config must be an EventConfig, not {config!r}")
        if priorities is not None:
            priorities = convert.integer(priorities, "priorities", 1, lib.EVENT_MAX_PRIORITIES - 1)
        if config is not None:
            config._check_usable()  # a closed one asks for nothing
        if method is not None:
            config = (config or EventConfig())._like(method=checked_method(method))
        nolock = config is not None and EventBaseFlag.NOLOCK in config.flags
        debug._note_made("event base")
        if highest_reserved() >= lib.FD_SETSIZE:
            check_method(config)
        what = ffi.NULL if config is None else config.pointer
        failure = functools.partial(unmakable, config, method)
        make = lib.evpy_event_base_new_with_config
        self._check_unmade()  # an argument's own method may have made it meanwhile
        self._begin(Making(make, what, failure=failure), nolock)
        if priorities is not None:
            errors.call(lib.event_base_priority_init, self.pointer, priorities)
        self._equip()

    def _begin(self, making: Making, nolock: bool) -> None:
        """Set the Python attributes that the loop needs, then make the base in C."""
        #: The callbacks given to `once`, by key.
        self._once_callbacks: dict[int, OnceCallback] = {}
        #: What the base's own events call when they fire, by key.
        self._reactions: dict[int, Callable[[EventBase], None]] = {}
        self._jobs: Jobs = deque()
        #: What `_when_quiet` was given, and how many turns in a row were not quiet.
        self._quiet: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._turns = 0
        self._pipes: dict[str, tuple[int, CData]] = {}
        self._on_error: ErrorCallback | None = None
        self._nolock = nolock
        #: What the loop was begun with, while it runs.
        self._loop_flags = LoopFlag(0)
        self._onces: CData | None = None
        #: The block of `turns` that is under way, and that of `in_thread`.
        self._opened: Turns | None = None
        self._threaded: InThread | None = None
        self._waker: CData | None = None
        self._exiter: CData | None = None
        self._exit_at: float | None = None
        #: What the bufferevents of this base read through, once there are any.
        self._arena: Any = None
        super().__init__(making)

    def _use_arena(self, arena: Any) -> None:
        """Have the bufferevents of this base read through *arena*."""
        self._arena = arena

    def _facts(self, ask: bool) -> Iterator[str]:
        if ask:
            yield convert.text(lib.event_base_get_method(self.pointer))
            count = lib.event_base_get_num_events
            yield f"{count(self.pointer, EventBaseCount.ADDED)} events added"
            yield f"{count(self.pointer, EventBaseCount.ACTIVE)} active"
        if self._running:
            yield "running" if self._thread == get_ident() else "running in another thread"

    # Facts about the base.

    @property
    def method(self) -> str:
        """The name of the base's backend. Wraps ``event_base_get_method``."""
        with self._gate:
            return convert.text(lib.event_base_get_method(self.pointer))

    @property
    def features(self) -> EventFeature:
        """What the backend can do. Wraps ``event_base_get_features``."""
        with self._gate:
            return EventFeature(lib.event_base_get_features(self.pointer))

    @property
    def n_priorities(self) -> int:
        """The number of priority levels. Wraps ``event_base_get_npriorities``."""
        with self._gate:
            return int(lib.event_base_get_npriorities(self.pointer))

    @staticmethod
    def supported_methods() -> list[str]:
        """Return the names of all backends on this machine, the preferred one first.

        Wraps ``event_get_supported_methods``.
        """
        return list(SUPPORTED_METHODS)

    # Pending events.

    def num_events(self, flags: int) -> int:
        """Return how many events there are of the kinds in *flags*, a set of `EventBaseCount`.

        An event counts once for each queue it is in. Wraps ``event_base_get_num_events``.
        """
        flags = convert.flags(EventBaseCount, flags, "flags")
        self._check_thread()
        return int(lib.event_base_get_num_events(self.pointer, flags))

    def max_events(self, flags: int, clear: bool = False) -> int:
        """Return the highest number of events of the kinds in *flags*; *clear* resets it.

        Wraps ``event_base_get_max_events``.
        """
        flags = convert.flags(EventBaseCount, flags, "flags")
        self._check_thread()
        return int(lib.event_base_get_max_events(self.pointer, flags, bool(clear)))

    def events(self) -> list[Event]:
        """Return the events that are pending or active.

        The list is a copy: unlike in C, events may be added and deleted while you walk it. It
        leaves out the events inside libevent's own objects. Wraps ``event_base_foreach_event``.
        """
        self._check_thread()
        pointer, room = self.pointer, 64
        while True:
            keys = ffi.new("uintptr_t[]", room)
            found = lib.evpy_event_keys(pointer, keys, room)
            if found <= room:
                events = map(self._called_by, ffi.unpack(keys, found))
                return [event for event in events if event is not None]
            room = found

    def dump_events(self) -> str:
        """Return libevent's own list of all events as text, one line for each.

        Unlike in C, it has the events that this package makes for each base, too.
        Wraps ``event_base_dump_events``.
        """
        self._check_thread()
        dump = text_from(lib.evpy_dump_events, self.pointer)
        if dump is None:
            raise errors.failed(lib.event_base_dump_events)
        return dump.decode("utf-8", "backslashreplace")

    def explain(self) -> str:
        """Return what keeps the loop from ending, and what is due when, as text.

        The first line sums up. Then comes each object that keeps the loop alive, with its
        descriptors, peers, callbacks, timeouts and, for a bufferevent, why it doesn't read or
        write; then those that don't keep it alive. An object's number is its own for good: later
        objects have higher ones. The text is for people: later releases may word it differently.

        If the environment variable ``LIBEVENT_PY_EXPLAIN`` is 1 when this package is imported,
        SIGUSR1 makes the process write this to standard error for all its bases. In place of 1, it
        may be the name of another signal. `dump_events` returns libevent's own list.
        """
        self._check_thread()
        return account(self)

    @property
    def running_event(self) -> Event | None:
        """The event whose callback runs in this thread; None without one, or if it is closed.

        Unlike in C, it may be asked at any time. Stands for ``event_base_get_running_event``.
        """
        self._check_usable()  # raises once the base is closed
        depth = 0
        while key := lib.evpy_event_running(depth):
            if self._knows(key):
                return cast("Event | None", self._child(key))
            depth += 1
        return None

    def active_by_fd(self, fd: FileDescriptor, what: int) -> None:
        """Make the events added for *fd* and *what* active. Wraps ``event_base_active_by_fd``."""
        fd = fd if isinstance(fd, int) else convert.descriptor(fd)
        fd = convert.integer(fd, "fd", -1, convert.MAX_FD)
        what = convert.flags(EventFlag, what, "what")
        self._check_thread()
        lib.event_base_active_by_fd(self.pointer, fd, what)

    def active_by_signal(self, signum: int) -> None:
        """Make the events added for *signum* active. Wraps ``event_base_active_by_signal``."""
        signum = signals.number(signum)
        self._check_thread()
        running = self.running_event
        if running is not None and running.signum is not None:
            # Here libevent would drop the calls that it has yet to make, the new ones included.
            self.defer(self.active_by_signal, signum)
        else:
            lib.event_base_active_by_signal(self.pointer, signum)

    # Time.

    @property
    def gettimeofday_cached(self) -> float:
        """The Unix time in seconds when this round of callbacks began; outside the loop, now.

        Wraps ``event_base_gettimeofday_cached``.
        """
        self._check_thread()
        tv = ffi.new("struct timeval *")
        errors.call(lib.event_base_gettimeofday_cached, self.pointer, tv)
        return convert.from_timeval(tv)

    def update_cache_time(self) -> None:
        """Set the cached time to the time now, after a long callback.

        Wraps ``event_base_update_cache_time``.
        """
        self._check_thread()
        errors.call(lib.event_base_update_cache_time, self.pointer)

    @property
    def gettime_monotonic(self) -> float:
        """The time in seconds on the monotonic clock that the base's timers use.

        Wraps ``event_gettime_monotonic``.
        """
        self._check_thread()
        tv = ffi.new("struct timeval *")
        errors.call(lib.event_gettime_monotonic, self.pointer, tv)
        return convert.from_timeval(tv)

    def init_common_timeout(self, seconds: float) -> CommonTimeout:
        """Return a timeout of *seconds* that many events of this base can share cheaply.

        A base has room for 256 of them. Wraps ``event_base_init_common_timeout``.
        """
        tv = convert.timeval(seconds, "seconds")
        self._check_thread()
        pointer = errors.new(lib.event_base_init_common_timeout, self.pointer, tv)
        timeout = CommonTimeout.__new__(CommonTimeout)
        timeout.base, timeout._pointer, timeout.seconds = self, pointer, convert.from_timeval(tv)
        return timeout

    # Threads and processes.

    def make_notifiable(self) -> None:
        """Let other threads wake the loop; only a base made with NOLOCK needs this.

        Wraps ``evthread_make_base_notifiable``.
        """
        self._check_thread()
        errors.call(lib.evthread_make_base_notifiable, self.pointer)

    def reinit(self) -> None:
        """Make the base and everything on it usable in a forked child.

        Until then they raise `ForkError`, because a child's changes would reach the parent's
        events. It may be called inside a callback. Raises `OSError` when an event could not be
        added again, or when there is no descriptor for other threads to wake the base by: the rest
        goes on, and it can be called again. Raises `ForkError` when at the time of the fork another
        thread ran the loop or was in the middle of a call: then the base can only be closed.
        Unlike in C, other threads can wake the base even if an event could not be added again, or
        if one had woken it just before. Wraps ``event_reinit``.
        """
        self._check_found()
        self._check_thread()
        pointer = self._pointer_though_forked()
        result = 0
        try:
            result = errors.call(lib.evpy_event_reinit, pointer, self._nolock)
        finally:
            if result != lib.EVPY_NOT_BEGUN:
                self._unpark()
                signals.reclaim(self)
        if result == lib.EVPY_NOT_BEGUN:
            raise errors.failed(lib.event_reinit)

    def _check_selectable(self, fd: int) -> None:
        """Raise `OSError` if the backend is select and can't wait for *fd*; -1: the next one made.

        A fortified libevent would end the process.
        """
        if fd >= lib.FD_SETSIZE and lib.evpy_beyond_select(self.pointer, fd):
            raise beyond_select(f"fd {fd}")
        if fd < 0 and lib.evpy_next_beyond_select(self.pointer):
            raise beyond_select("the next descriptor")

    # The loop.

    def _equip(self) -> None:
        """Make the base's own events and timers, once it has its priorities."""
        errors.put(functools.partial(setattr, self, "_onces"), lib.evpy_onces_new, self.pointer)
        self._make_timer("_waker", EventBase._work)
        self._make_timer("_exiter", exit_now)

    def dispatch(self) -> bool:
        """Run the loop until something stops it or no events are left.

        Return True when `loopexit` or `loopbreak` stopped it, False when there were no events.
        Raises what a callback raised. Wraps ``event_base_loop``. Stands for
        ``event_base_dispatch``.
        """
        return self.loop()

    def loop(self, flags: int = LoopFlag(0)) -> bool:
        """Run the loop as *flags*, a set of `LoopFlag`, say; without any, until no events are left.

        ONCE waits for events and returns after one round of their callbacks. NONBLOCK doesn't wait,
        but as in C it goes on for as long as anything is ready: alone it never returns while a
        descriptor that an event with PERSIST waits for stays readable or writable. To run what is
        ready now and return, give ``ONCE | NONBLOCK``.

        Return False when there were no events. Raises what a callback raised, several exceptions as
        an `ExceptionGroup`; `RuntimeError` when the loop runs already, or inside a callback that a
        call outside the loop led to; `OSError` when the backend fails. Unlike in C, Python's signal
        handlers run at once when the loop runs in the main thread.
        Wraps ``event_base_loop``.
        """
        flags = convert.flags(LoopFlag, flags, "flags")
        pointer = self.pointer
        if self._thread != get_ident():
            self._claim()
        result = errors.run(self._run, pointer, flags, sys._getframe(1))
        if result < 0:
            raise errors.failed(lib.event_base_loop)
        return bool(result == 0)

    def turn(self, timeout: Timeout = None) -> bool:
        """Run one turn of the loop: wait at most *timeout* seconds, run what is ready, and return.

        0 doesn't wait; None waits without end. As with ``loop(ONCE)``, it goes on until an event's
        callback has run or the time is over, and callbacks that others make active meanwhile run,
        too. Return False when there were no events to wait for, nor a timeout. Raises as `loop`
        does. A program of its own loop puts it into ``with base.turns()``, which makes it several
        times as fast. In the block a `loopexit` with a time ends the turn that it comes in, and the
        block forgets it at its end. Wraps ``event_base_loop``.
        """
        if self._opened is None:
            with Turns(self, sys._getframe(1), waits=timeout != 0) as turns:
                return turns.run(timeout, None)
        return self._opened.run(timeout, sys._getframe(1))

    def turns(self) -> contextlib.AbstractContextManager[object]:
        """Return a context manager that sets up once what each `turn` in its block needs.

        In the main thread, the block has Python's signals wake a turn that waits, by
        `signal.set_wakeup_fd`; bytes meant for a descriptor that was set before reach it in the
        next turn. The base belongs to the block's thread. Entering it raises as `loop` does.
        """
        return Turns(self, sys._getframe(1))

    def in_thread(self) -> contextlib.AbstractContextManager[threading.Thread]:
        """Return a context manager in whose block a thread of its own runs the loop.

        The block gets the thread, to which the base belongs meanwhile: it makes `call` and `defer`.
        The loop goes on when no events are left. At the end of the block it makes the calls that
        wait, and stops; if something was raised in the block, it stops after the callback that runs
        now. Then the base belongs to the thread that has left the block, which raises what came out
        of the loop. If the loop ends before the block, calls that wait, and later ones, fail.

        Entering it raises as `loop` does; `RuntimeError` in such a block, and `ThreadError` for a
        base made with NOLOCK. Wraps ``event_base_loop``.
        """
        return InThread(self)

    def _run(self, pointer: CData, flags: LoopFlag, caller: FrameType) -> int:
        self._check_runnable(caller)
        before: list[int] = []
        self._running, self._loop_flags = True, flags
        try:
            self._begin_callbacks()
            self._watch_pipes(before)
            return self._told(errors.enter(pointer, lib.evpy_loop, pointer, flags, self._waker))
        finally:
            self._running = False
            try:
                self._end_run(before)
            except BaseException:  # an interrupt
                self._end_run(before)
                raise

    def _check_runnable(self, caller: FrameType | None) -> None:
        """Raise `RuntimeError` unless *caller* may run the loop."""
        if self._running:
            raise RuntimeError("the loop of this event base runs already")
        if self._calls:  # the loop could free what C is using
            raise RuntimeError("the loop was run inside a callback that a call outside it led to")
        if in_the_middle(self, caller):
            raise RuntimeError("the loop was run in the middle of another call about its base")

    def _told(self, result: int) -> int:
        """Return what the loop in C has returned, and report what it has added to that.

        Raises `MemoryError` if there was no memory to begin it, or to go on.
        """
        if result == lib.EVPY_NOT_BEGUN:
            raise refused()
        if result >= lib.EVPY_RAN_SHORT - 1:
            result -= lib.EVPY_RAN_SHORT
            self._report(_unwatched() or short(), self)
        return result

    def _end_run(self, before: list[int]) -> None:
        """Undo what a run of the loop has begun; a second time goes on where the first ended."""
        wakeup().unwatch(before)
        self._end_callbacks()
        self._clean_up()
        if self._opened is not None and self._opened._left:
            self._opened.__exit__()

    def _watch_pipes(self, before: list[int]) -> None:
        """Watch the pipes that wake the loop: the log's, and in the main thread the signals'.

        *before* gets what `Wakeup.unwatch` needs.
        """
        pipes = wakeup()
        log.flush()  # a message that came before there was a pipe has woken nobody
        if "log" not in self._pipes:
            self._watch("log", pipes.log.fd, EventBase._logged)
        if not in_main_thread():
            self._unwatch("signals")  # the bytes in that pipe are for the main thread
            return
        if "signals" not in self._pipes:
            self._watch("signals", pipes.signals.fd, EventBase._signalled)
        pipes.watch(before)

    def _watch(self, name: str, fd: int, react: Callable[[EventBase], None]) -> None:
        """Call *react* when *fd* is ready, by an event that doesn't keep the loop alive."""
        key = next_key()
        made: list[CData] = []
        what = EventFlag.READ | EventFlag.PERSIST
        self._reactions[key] = react
        try:
            errors.put(made.append, lib.evpy_wake_new, self.pointer, fd, what, key, True)
            errors.call(lib.evpy_event_add, made[0], -1.0)
            self._pipes[name] = key, made[0]
        finally:
            if name not in self._pipes:
                self._reactions.pop(key, None)
                if made:
                    lib.event_free(made[0])

    def _unwatch(self, name: str) -> None:
        if name in self._pipes:
            key, ev = self._pipes[name]
            self._reactions.pop(key, None)
            del self._pipes[name]  # no call from here to the next line: nobody interrupts
            lib.event_free(ev)

    def _make_timer(self, name: str, react: Callable[[EventBase], None]) -> None:
        """Make a timer of the base's own, with an event's default priority."""
        key, pointer = next_key(), self.pointer
        self._reactions[key] = react
        store = functools.partial(setattr, self, name)
        errors.put(store, lib.evpy_wake_new, pointer, -1, 0, key, False)
        lib.event_priority_set(getattr(self, name), lib.event_base_get_npriorities(pointer) // 2)

    def _logged(self) -> None:
        wakeup().log.take()
        if lib.evpy_loop_missed():
            self._report(short(), self)
        if unwatched := _unwatched():
            self._report(unwatched, self)
        log.flush()

    def _signalled(self) -> None:
        wakeup().signalled()  # Python's own handlers have run by now

    def _clean_up(self) -> None:
        """Put the base into the state that the next run of the loop expects."""
        if not self._forked and not self.closed:
            forget_exit(self)
            self._exhume()
            self._use_quiet(self.pointer)
        log.flush()

    @any_thread
    def loopexit(self, timeout: Timeout = None) -> None:
        """Stop the loop after this round of callbacks, or *timeout* seconds from now.

        It may be called from any thread. Called before the loop runs, it stops the next run. Unlike
        in C, a timeout that is still waiting when the loop ends does not stop the next one.
        Wraps ``event_base_loopexit``.
        """
        if timeout is None:
            with self._from_any_thread():
                errors.call(lib.event_base_loopexit, self.pointer, ffi.NULL)
            return
        timeout = convert.seconds(timeout)
        with self._from_any_thread():
            self._check_usable()  # a closed base has no timer
            exit_after(self, timeout)

    @any_thread
    def loopbreak(self) -> None:
        """Stop the loop after the callback that runs now; may be called from any thread.

        As in C, a loop that has not begun ignores it. Wraps ``event_base_loopbreak``.
        """
        with self._from_any_thread():
            errors.call(lib.event_base_loopbreak, self.pointer)

    @any_thread
    def loopcontinue(self) -> None:
        """Look for new events after the callback that runs now; may be called from any thread.

        Wraps ``event_base_loopcontinue``.
        """
        with self._from_any_thread():
            errors.call(lib.event_base_loopcontinue, self.pointer)

    def _claim(self) -> None:
        if self._nolock and self._thread != get_ident() and is_alive(self._thread):
            raise self._wrong_thread()
        super()._claim()

    def _taken_over(self) -> None:
        if self._opened is not None:  # a block of the other thread
            self._opened = None
            forget_exit(self)

    def _from_any_thread(self) -> contextlib.AbstractContextManager[object]:
        """Return what keeps other threads from closing the base inside its ``with`` block."""
        if self._nolock:
            self._check_thread()
        return self._gate

    @property
    def got_exit(self) -> bool:
        """Whether `loopexit` stopped the last loop. Wraps ``event_base_got_exit``."""
        with self._gate:
            return bool(lib.event_base_got_exit(self.pointer))

    @property
    def got_break(self) -> bool:
        """Whether `loopbreak`, or an exception, stopped the last loop.

        Wraps ``event_base_got_break``.
        """
        with self._gate:
            return bool(lib.event_base_got_break(self.pointer))

    # Work for the loop.

    def once(
        self,
        callback: OnceCallback,
        *,
        fd: FileDescriptor = -1,
        what: int = TIMEOUT,
        timeout: Timeout = None,
    ) -> None:
        """Call ``callback(fd, what)`` once: after *timeout* seconds, or when *fd* is ready.

        Without either, it is called in the loop's next turn. With both, whichever comes first
        counts. *fd* is kept alive but not closed. The call can't be cancelled: for that, make an
        `Event`. Raises `ValueError` for SIGNAL and PERSIST, `OSError` when the backend refuses
        *fd*. Unlike in C, the base is not left locked when it fails. Stands for
        ``event_base_once``.
        """
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {callback!r}")
        if self._thread != get_ident():
            self._check_thread()
        if type(timeout) is not float or not 0 <= timeout <= convert.MAX_SECONDS:
            timeout = convert.optional_seconds(timeout)
        key = next_key()
        if what is TIMEOUT:
            self.pointer  # noqa: B018  (hot: a closed base has no list to put the callback on)
            self._once_callbacks[key] = callback
            failed = once_timer(self._onces, key, timeout)
        else:
            what = self._once_what(what)
            number = -1
            if what:
                number = convert.descriptor(fd)
                debug._check_nonblocking(number)

            def ready(_fd: int, fired: EventFlag, _kept: object = fd) -> object:
                return callback(number, fired)

            self._check_usable()  # as where it is hot
            self._once_callbacks[key] = ready
            failed = lib.evpy_once_add(self._onces, key, timeout, number, what)
        if failed:
            del self._once_callbacks[key]
            where = "" if what is TIMEOUT else convert.fd_with(number, self.pointer)
            raise errors.failed(lib.event_base_once, where)

    @staticmethod
    def _once_what(what: int) -> int:
        what = convert.flags(EventFlag, what, "what")
        if what & ~(TIMEOUT | IO) or not what:
            raise ValueError(f"what must be TIMEOUT, or of READ, WRITE and CLOSED, not {what!r}")
        return what & IO

    @any_thread
    def defer(
        self, function: Callable[[Unpack[Arguments]], object], *args: Unpack[Arguments]
    ) -> None:
        """Wake the loop to run ``function(*args)`` soon; may be called from any thread.

        Functions run in the order in which they came. When the loop doesn't run, they wait for it.
        """
        job = convert.callback(function, "function"), args
        with self._from_any_thread():
            self.pointer  # noqa: B018  (hot: a closed base would never run it)
            self._jobs.append(job)
            self._rouse()

    @any_thread
    def call(
        self, function: Callable[[Unpack[Arguments]], Result], *args: Unpack[Arguments]
    ) -> concurrent.futures.Future[Result]:
        """Have the loop make ``function(*args)`` soon, and return the future of its result.

        It may be called from any thread, and is as `defer`, but that what *function* raises is the
        future's: it reaches `on_error` or comes out of the loop only if it is KeyboardInterrupt or
        SystemExit. Until the loop comes to it, the future can be cancelled. If the base is closed
        before that, the future's exception is `ClosedError`. The thread that runs the loop can't
        wait for it: there, ``result()`` raises `RuntimeError`.
        """
        call = Call(self, convert.callback(function, "function"), args)
        with self._from_any_thread():
            self._check_usable()
            if self._threaded is not None:
                self._threaded._check_serves()
            self._jobs.append((call._make, ()))
            self._rouse()
        return call

    @any_thread
    def _wake(self) -> None:
        """Make the loop reach a clean moment soon; may be called from any thread."""
        if self._nolock and self._thread != get_ident():
            return  # what waits for a clean moment then waits for the end of the loop
        with self._gate:
            if not self.closed:
                self._rouse()

    def _rouse(self) -> None:
        # A timer, not event_active(), so that a function that defers itself lets other events run.
        # A timer that is due already would only be put off.
        if not lib.event_pending(self._waker, TIMEOUT, ffi.NULL):
            lib.evpy_event_rouse(self._waker, 0.0)

    def _work(self) -> None:
        job = None
        try:
            self._exhume()
            for _ in range(len(self._jobs)):
                job = self._jobs[0]
                del self._jobs[0]  # no call from here to the function
                job[0](*job[1])
                job = None
                # In a forked child, the rest belongs to the parent process.
                if self._forked or got_break(self.pointer):
                    return
        except BaseException as error:
            if job is not None and was_lost(job, error):
                self._jobs.appendleft(job)
            self._report(error, self)
        finally:
            if not self._forked:
                self._await_quiet()
                if self._jobs:
                    self._rouse()

    def _when_quiet(
        self,
        function: Callable[[Unpack[Arguments]], object],
        *args: Unpack[Arguments],
        now: bool = True,
    ) -> None:
        """Run ``function(*args)`` when libevent has nothing more to call: *now*, or in the loop.

        It runs at the latest when the base is closed. It is meant for functions that free what
        callbacks in libevent's queue still use (L3).
        """
        self._quiet.append((function, args))  # first: an interrupt can't lose it
        if now and len(self._quiet) == 1 and not self._busy() and not self.closed:
            self._use_quiet(self.pointer)
        if self._quiet and self._waker is not None:
            self._rouse()

    def _use_quiet(self, pointer: CData) -> bool:
        """Run what waits for a quiet moment if this is one; return whether anything has run."""
        ran, active = False, lib.event_base_get_num_events
        while self._quiet and self._is_clean() and not active(pointer, EventBaseCount.ACTIVE):
            waiting = self._quiet[0]
            try:
                del self._quiet[0]  # no call from here to the function
                waiting[0](*waiting[1])
            except BaseException as error:
                if came_at_entry(error):
                    self._quiet.appendleft(waiting)
                raise
            ran = True
        return ran

    def _await_quiet(self) -> None:
        """Try again after what is in libevent's queue, or rest to let less urgent callbacks run."""
        if self._quiet:
            self._use_quiet(lib.event_get_base(self._waker))
        if not self._quiet:
            self._turns = 0
            return
        self._turns += 1
        if self._turns % TURNS:
            lib.event_active(self._waker, EventFlag.TIMEOUT, 0)
        else:
            lib.evpy_event_rouse(self._waker, REST)

    @property
    def on_error(self) -> ErrorCallback | None:
        """The function that gets each exception a callback raised, with that callback's object.

        ``on_error(exception, source)`` handles the exception, and the loop goes on. *source* is the
        object whose callback raised; for a handler of an HTTP, RPC or DNS server it is the request,
        which the function may answer. With None, the exception stops the loop and comes out of it;
        a server's client first gets an answer saying that its request failed. KeyboardInterrupt and
        SystemExit always stop the loop.
        """
        return self._on_error

    @on_error.setter
    def on_error(self, hook: ErrorCallback | None) -> None:
        self._on_error = None if hook is None else convert.callback(hook, "on_error")

    def _report(self, error: BaseException, source: object) -> None:
        """Hand what *source*'s callback raised to `on_error`, or keep it for the caller of C."""
        error = errors.explained(error, source)
        if self._on_error is None or not isinstance(error, Exception):
            errors.keep(error)
            return
        try:
            self._on_error(error, source)
        except BaseException as worse:
            errors.keep(worse)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Raise at the end of the block what callbacks called in it, without C, have raised.

        While the loop runs, the loop raises it.
        """
        before = errors.waiting()
        try:
            yield
            if not self._running:
                errors.settle(before)
        except BaseException as error:
            if not self._running:
                errors.take_along(before, error)
            raise

    # The end.

    def close(self) -> None:
        """Close everything made on the base, then free the base itself; a second time does nothing.

        Finalizers given to `Event.close` that have not run yet run now. Raises `RuntimeError`
        while the loop runs; but the thread that has begun a block of `in_thread` stops the loop
        first. In a forked child that has not called `reinit`, it closes only the child's own
        objects and leaves alone what they share with the parent.
        Wraps ``event_base_free``.
        """
        super().close()

    def _check_closable(self) -> None:
        """Raise an error unless this thread can close everything made on the base."""
        signals.check_closable(self)
        if (threaded := self._threaded) is not None:
            threaded._end_for_close(outside(sys._getframe(1)))

    def _free(self, pointer: CData) -> None:
        """Free what `_equip` and the loop have made, drain the loop, and free the base (B2)."""
        self._once_callbacks.clear()
        fail_calls(self._jobs, closed_first)
        self._jobs.clear()
        # An interrupt may come after each call; then this method runs once more.
        if self._onces is not None:
            onces, self._onces = self._onces, None
            lib.evpy_onces_free(onces)
        if self._waker is not None:
            waker, self._waker = self._waker, None
            lib.event_free(waker)
        if self._exiter is not None:
            exiter, self._exiter = self._exiter, None
            lib.event_free(exiter)
        for name in list(self._pipes):
            self._unwatch(name)
        self._drain(pointer)
        if not self._forked:
            errors.enter(pointer, self._free_base, pointer)
            self._exhume()
        log.flush()
        signals.forget(self)

    def _free_base(self, pointer: CData) -> None:
        self._condemned = None
        lib.event_base_free(pointer)

    def _drain(self, pointer: CData) -> None:
        """Let libevent free what it frees only in the loop (B3, F2)."""
        for _ in range(1000):
            if self._forked:  # a callback has forked: the rest belongs to the parent process
                return
            self._exhume()
            active = lib.event_base_get_num_events(pointer, EventBaseCount.ACTIVE)
            if not active and not self._use_quiet(pointer):
                break
            # With NONBLOCK alone C goes on for as long as anything is ready.
            once = LoopFlag.NONBLOCK | LoopFlag.ONCE
            errors.enter(pointer, lib.evpy_loop, pointer, once, ffi.NULL)


def _unwatched() -> OSError | None:
    """Return the error if the kernel has refused to watch something, and nobody was told."""
    code = lib.evpy_loop_unwatched()
    return OSError(code, f"event_base_loop: {os.strerror(code)}") if code else None


# hot: called for every turn of the loop that something wakes; and its key is a base's own.
@ffi.def_extern(onerror=errors.kept, error=0)
def evpy_wake(key: int) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    for base in live.bases:
        react = base._reactions.get(key)  # type: ignore[attr-defined]
        if react is not None:
            react(base)
            return 1
    return 1


# hot: called for each use of `EventBase.once`, by which much is put off; its key is a function's.
@ffi.def_extern(onerror=errors.kept, error=0)
def evpy_once_fired(key: int, what: int) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    base: EventBase
    for base in live.bases:  # type: ignore[assignment]
        callback = base._once_callbacks.get(key)
        if callback is not None:
            flags, callbacks = FLAGS[what], base._once_callbacks
            try:
                if key in callbacks:
                    del callbacks[key]  # no call from here to the callback's own
                callback(-1, flags)
            except BaseException as error:
                base._report(error, base)
            break
    return 1
