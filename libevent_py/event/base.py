"""``struct event_base``: what everything is made on, its loop, and what can be asked of it.

*The loop.* A base has events of its own. Two watch the process's pipes (`wakeup`) and are internal:
they don't keep the loop alive. Two are timers: one is due when there is work from `EventBase.defer`
or in the graveyard, the other when the time of `EventBase.loopexit` has come.

How a base ends is told in `owner`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from libevent_py import debug, errors, log
from libevent_py._core import convert, signals
from libevent_py._core import fork as fork  # registers what is done at a fork
from libevent_py._core.convert import Timeout
from libevent_py._core.described import described
from libevent_py._core.dispatch import live, next_key
from libevent_py._core.frames import any_thread, in_the_middle
from libevent_py._core.handle import Making
from libevent_py._core.owner import Root, get_ident, is_alive
from libevent_py._core.wakeup import in_main_thread, wakeup
from libevent_py._ffi import ffi, lib
from libevent_py.enums import EventBaseCount, EventBaseFlag, EventFeature, EventFlag, LoopFlag
from libevent_py.event.config import SUPPORTED_METHODS, EventConfig, checked_method

if TYPE_CHECKING:
    from libevent_py.event.event import Event

#: What an event can fire for, by C's number: `EventFlag` itself takes ten times as long.
FLAGS = tuple(EventFlag(number) for number in range(2 * EventFlag.CLOSED))

# Looked up once: an attribute of lib or of an enumeration costs as much as a short call.
TIMEOUT = EventFlag.TIMEOUT
once_timer = lib.evpy_once_timer

#: How often in a row to look for a quiet moment, and how long to rest then, in seconds.
TURNS = 16
REST = 0.01

#: What makes an event a descriptor's.
IO = EventFlag.READ | EventFlag.WRITE | EventFlag.CLOSED


@described(
    base="The event base that it belongs to.",
    seconds="How long it is.",
)
class CommonTimeout:
    """A duration that an `EventBase` keeps a queue for: cheaper when many events have the same.

    It belongs to its base; `Event.add` of an event on another base refuses it (B10).
    """

    __slots__ = ("_pointer", "base", "seconds")

    def __init__(self, base: EventBase, pointer: Any, seconds: float) -> None:
        self.base = base
        self._pointer = pointer
        self.seconds = seconds

    @property
    def pointer(self) -> Any:
        """The ``struct timeval *``, for calling `libevent_py.lib` with it."""
        self.base.pointer  # noqa: B018  (hot: it ends with its base)
        return self._pointer

    def __repr__(self) -> str:
        where = (
            "closed" if self.base.closed else f"at {int(ffi.cast('uintptr_t', self._pointer)):#x}"
        )
        return f"<CommonTimeout {where}, {self.seconds} s>"


class EventBase(Root):
    """A loop that waits for events and calls back; usable in ``with``.

    Closing it closes everything made on it. A base that is dropped is closed too, as soon as
    nothing made on it is left.

    It belongs to one thread at a time, with everything made on it: the one that made it, then
    whoever last ran its loop, closed it or called `take_over`. Other threads get `ThreadError`, but
    for `defer`, `loopexit`, `loopbreak`, `loopcontinue` and `Event.active`, which wake the loop.
    When its thread has ended, it goes to the next one that uses it.
    """

    __slots__ = (
        "_arena",
        "_exit_at",
        "_exiter",
        "_jobs",
        "_nolock",
        "_on_error",
        "_once_callbacks",
        "_onces",
        "_pipes",
        "_quiet",
        "_reactions",
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

        With *method*, one of `supported_methods`, only that backend will do. Without it the first
        is taken that *config* doesn't avoid, that has the features which it requires, and that
        isn't disabled by a variable of the environment such as ``EVENT_NOEPOLL``. An event's
        default is the middle level. Raises `ValueError` for an unknown *method*, `LibeventError`
        when no backend will do: it says of each why not. Unlike in C the number of levels can't be
        changed later, when events could depend on it (B12).
        Wraps ``event_base_new``, ``event_base_new_with_config``, ``event_base_priority_init``.
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
        debug.too_late("event base")
        if _highest_reserved() >= lib.FD_SETSIZE:
            _check_method(config)
        what = ffi.NULL if config is None else config.pointer
        failure = functools.partial(_unmakable, config, method)
        make = lib.evpy_event_base_new_with_config
        self._begin(Making(make, what, failure=failure), nolock)
        if priorities is not None:
            errors.call(lib.event_base_priority_init, self.pointer, priorities)
        self._equip()

    def _begin(self, making: Making, nolock: bool) -> None:
        """Have what the loop needs of Python before there is a base in C."""
        #: The callbacks given to `once`, by key.
        self._once_callbacks: dict[int, Callable[[int, EventFlag], object]] = {}
        #: What to do when one of the base's own events fires, by key.
        self._reactions: dict[int, Callable[[EventBase], None]] = {}
        self._jobs: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        #: What `_when_quiet` was given, and how often in a row the loop was not.
        self._quiet: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._turns = 0
        self._pipes: dict[str, tuple[int, Any]] = {}
        self._on_error: Callable[[Exception, Any], object] | None = None
        self._nolock = nolock
        self._onces: Any = None
        self._waker: Any = None
        self._exiter: Any = None
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

    # What it is.

    @property
    def method(self) -> str:
        """The name of the backend. Wraps ``event_base_get_method``."""
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

    # What is pending.

    def num_events(self, flags: int) -> int:
        """Return how many events there are of the kinds in *flags*, of `EventBaseCount`.

        An event counts once for each queue it is in. Wraps ``event_base_get_num_events``.
        """
        flags = convert.flags(EventBaseCount, flags, "flags")
        self._check_thread()
        return int(lib.event_base_get_num_events(self.pointer, flags))

    def max_events(self, flags: int, clear: bool = False) -> int:
        """Return how many events of the kinds in *flags* there were at most; *clear* starts anew.

        Wraps ``event_base_get_max_events``.
        """
        flags = convert.flags(EventBaseCount, flags, "flags")
        self._check_thread()
        return int(lib.event_base_get_max_events(self.pointer, flags, bool(clear)))

    def events(self) -> list[Event]:
        """Return the events that are pending or active.

        A snapshot, so that unlike in C they may be added and deleted while it is walked. Events
        inside libevent's own objects are left out. Wraps ``event_base_foreach_event``.
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
        """Return libevent's own list of all events, a line each.

        Wraps ``event_base_dump_events``.
        """
        self._check_thread()
        dump = lib.evpy_dump_events(self.pointer)
        if dump == ffi.NULL:
            raise errors.failed(lib.event_base_dump_events)
        return convert.taken_text(dump)

    @property
    def running_event(self) -> Event | None:
        """The event whose callback runs in this thread, or None, also when it has been closed.

        Unlike in C, it may be asked at any time (B8). Wraps ``event_base_get_running_event``.
        """
        self._check_usable()  # closed is closed
        depth = 0
        while key := lib.evpy_event_running(depth):
            if self._knows(key):
                return cast("Event | None", self._child(key))
            depth += 1
        return None

    def active_by_fd(self, fd: Any, what: int) -> None:
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
            # In the middle of its calls libevent would forget those to come, and then these.
            self.defer(self.active_by_signal, signum)
        else:
            lib.event_base_active_by_signal(self.pointer, signum)

    # Time.

    @property
    def gettimeofday_cached(self) -> float:
        """The Unix time in seconds when this round of callbacks began, or outside the loop now.

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
        """The time in seconds by the clock of the base's timers.

        Wraps ``event_gettime_monotonic``.
        """
        self._check_thread()
        tv = ffi.new("struct timeval *")
        errors.call(lib.event_gettime_monotonic, self.pointer, tv)
        return convert.from_timeval(tv)

    def init_common_timeout(self, seconds: float) -> CommonTimeout:
        """Return a timeout of *seconds* that is cheap to share by many events of this base.

        A base has room for 256 of them. Wraps ``event_base_init_common_timeout``.
        """
        tv = convert.timeval(seconds, "seconds")
        self._check_thread()
        pointer = errors.new(lib.event_base_init_common_timeout, self.pointer, tv)
        return CommonTimeout(self, pointer, convert.from_timeval(tv))

    # Threads and processes.

    def make_notifiable(self) -> None:
        """Let other threads wake the loop, as they can from the start without the flag NOLOCK.

        Wraps ``evthread_make_base_notifiable``.
        """
        self._check_thread()
        errors.call(lib.evthread_make_base_notifiable, self.pointer)

    def reinit(self) -> None:
        """Make the base and everything on it usable in a forked child.

        Until then they raise `ForkError`, because a child's changes would reach the parent's events
        (A8). May be called inside a callback. Raises `OSError` when an event could not be added
        again, `ForkError` when another thread ran the loop, or was in the middle of a call, at the
        time of the fork: then the base can only be closed. Wraps ``event_reinit``.
        """
        self._check_found()
        self._check_thread()
        pointer = self._pointer_though_forked()
        try:
            errors.call(lib.event_reinit, pointer)
        finally:
            self._unpark()
        signals.reclaim(self)

    def _check_selectable(self, fd: int) -> None:
        """Raise `OSError` if select is used, and can't wait for *fd* or with -1 for the next one.

        A fortified libevent would end the process.
        """
        if fd >= lib.FD_SETSIZE and lib.evpy_beyond_select(self.pointer, fd):
            raise _beyond_select(f"fd {fd}")
        if fd < 0 and lib.evpy_next_beyond_select(self.pointer):
            raise _beyond_select("the next descriptor")

    # The loop.

    def _equip(self) -> None:
        """Make what the base itself needs of C, once it has its priorities."""
        errors.put(functools.partial(setattr, self, "_onces"), lib.evpy_onces_new, self.pointer)
        self._make_timer("_waker", EventBase._work)
        self._make_timer("_exiter", EventBase._exit)

    def dispatch(self) -> bool:
        """Run the loop until it is told to stop, or until no events are left.

        Return True when `loopexit` or `loopbreak` stopped it, False when there were no events.
        Raises what a callback raised. Wraps ``event_base_dispatch``.
        """
        return self.loop()

    def loop(self, flags: int = LoopFlag(0)) -> bool:
        """Run the loop as *flags*, of `LoopFlag`, say: without them until no events are left.

        ONCE waits for events and returns after one round of their callbacks. NONBLOCK doesn't wait,
        but as in C it goes on for as long as anything is ready: alone it never returns while a
        descriptor that an event with PERSIST waits for stays readable, or writable. To run what is
        ready now and return, give ``ONCE | NONBLOCK``.

        Return False when there were no events. Raises what a callback raised, several of them as an
        `ExceptionGroup`; `RuntimeError` when the loop runs already, or inside a callback that a
        call outside the loop led to; `OSError` when the backend fails. Unlike in C, Python's signal
        handlers run at once when it runs in the main thread.
        Wraps ``event_base_loop``.
        """
        flags = convert.flags(LoopFlag, flags, "flags")
        pointer = self.pointer
        if self._thread != get_ident():
            self._claim()
        before = errors.waiting()
        result = errors.enter(None, self._run, pointer, flags, sys._getframe(1))
        errors.settle(before)
        if result < 0:
            raise errors.failed(lib.event_base_loop)
        return bool(result == 0)

    def _run(self, pointer: Any, flags: LoopFlag, caller: FrameType) -> int:
        if self._running:
            raise RuntimeError("the loop of this event base runs already")
        if self._calls:  # it could free what C is in the middle of
            raise RuntimeError("the loop was run inside a callback that a call outside it led to")
        if in_the_middle(self, caller):
            raise RuntimeError("the loop was run in the middle of another call about its base")
        self._running = True
        try:
            self._begin_callbacks()
            with self._woken():
                result = int(errors.enter(pointer, lib.evpy_loop, pointer, flags, self._waker))
                if result >= lib.EVPY_RAN_SHORT - 1:
                    result -= lib.EVPY_RAN_SHORT
                    self._report(_short(), self)
                return result
        finally:
            self._running = False
            try:
                self._end_callbacks()
            except BaseException:  # an interrupt has kept it from that
                self._end_callbacks()
                raise
            finally:
                self._clean_up()

    @contextlib.contextmanager
    def _woken(self) -> Iterator[None]:
        """Watch the pipes that wake the loop: the log's, and in the main thread that of signals."""
        pipes = wakeup()
        log.flush()  # what came before there was a pipe has woken nobody
        if "log" not in self._pipes:
            self._watch("log", pipes.log.fd, EventBase._logged)
        if not in_main_thread():
            self._unwatch("signals")  # its bytes are for the main thread
            yield
            return
        if "signals" not in self._pipes:
            self._watch("signals", pipes.signals.fd, EventBase._signalled)
        with pipes.watching():
            yield

    def _watch(self, name: str, fd: int, react: Callable[[EventBase], None]) -> None:
        """Have *react* called when *fd* is ready, by an event that doesn't keep the loop alive."""
        key = next_key()
        made: list[Any] = []
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
        """Make a timer of the base's own, as urgent as an event is by default."""
        key, pointer = next_key(), self.pointer
        self._reactions[key] = react
        store = functools.partial(setattr, self, name)
        errors.put(store, lib.evpy_wake_new, pointer, -1, 0, key, False)
        lib.event_priority_set(getattr(self, name), lib.event_base_get_npriorities(pointer) // 2)

    def _logged(self) -> None:
        wakeup().log.take()
        if lib.evpy_loop_missed():
            self._report(_short(), self)
        log.flush()

    def _signalled(self) -> None:
        wakeup().signalled()  # Python's own handlers have run by now

    def _clean_up(self) -> None:
        """Leave the base as the next loop must find it."""
        if not self._forked:
            if self._exit_at is not None:
                lib.event_del(self._exiter)
                self._exit_at = None
            self._exhume()
            self._use_quiet(self.pointer)
        log.flush()

    @any_thread
    def loopexit(self, timeout: Timeout = None) -> None:
        """Stop the loop after this round of callbacks, or *timeout* seconds from now.

        From any thread. Before the loop runs it stops the next one. Unlike in C, what is left of a
        timeout goes with the loop that it was meant for (B6). Wraps ``event_base_loopexit``.
        """
        if timeout is None:
            with self._from_any_thread():
                errors.call(lib.event_base_loopexit, self.pointer, ffi.NULL)
            return
        timeout = convert.seconds(timeout)
        with self._from_any_thread():
            self._check_usable()  # a closed base has no timer
            moment = time.monotonic() + timeout
            set_at = self._exit_at if lib.event_pending(self._exiter, TIMEOUT, ffi.NULL) else None
            if set_at is None or moment < set_at:
                errors.call(lib.evpy_event_add, self._exiter, timeout)
                self._exit_at = moment

    def _exit(self) -> None:
        self._exit_at = None
        self.loopexit()

    @any_thread
    def loopbreak(self) -> None:
        """Stop the loop after the callback that runs now; from any thread.

        As in C, a loop that has not begun forgets it. Wraps ``event_base_loopbreak``.
        """
        with self._from_any_thread():
            errors.call(lib.event_base_loopbreak, self.pointer)

    @any_thread
    def loopcontinue(self) -> None:
        """Look for new events after the callback that runs now.

        Wraps ``event_base_loopcontinue``.
        """
        with self._from_any_thread():
            errors.call(lib.event_base_loopcontinue, self.pointer)

    def _claim(self) -> None:
        if self._nolock and self._thread != get_ident() and is_alive(self._thread):
            raise self._wrong_thread()
        super()._claim()

    @contextlib.contextmanager
    def _from_any_thread(self) -> Iterator[None]:
        """Keep the base open meanwhile, whichever thread closes it."""
        if self._nolock:
            self._check_thread()
        with self._gate:
            yield

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
        callback: Callable[[int, EventFlag], object],
        *,
        fd: Any = -1,
        what: int = TIMEOUT,
        timeout: Timeout = None,
    ) -> None:
        """Call ``callback(fd, what)`` once: after *timeout* seconds, or when *fd* is ready.

        Without either, at the loop's next turn. With both, whichever comes first. *fd* is kept
        alive but not closed. It can't be taken back: for that, make an `Event`. Raises `ValueError`
        for SIGNAL and PERSIST, `OSError` when the backend refuses *fd*. Does what
        ``event_base_once`` does, which in C leaves its base locked when it fails (C7).
        Wraps ``event_base_once``.
        """
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {callback!r}")
        if self._thread != get_ident():
            self._check_thread()
        if type(timeout) is not float or not 0 <= timeout <= convert.MAX_SECONDS:
            timeout = convert.optional_seconds(timeout)
        key = next_key()
        if what is TIMEOUT:
            self.pointer  # noqa: B018  (hot: a closed base has no list to put this on)
            self._once_callbacks[key] = callback
            failed = once_timer(self._onces, key, timeout)
        else:
            what = self._once_what(what)
            number = -1
            if what:
                number = convert.descriptor(fd)
                debug.check_nonblocking(number)

            def ready(_fd: int, fired: EventFlag, _kept: Any = fd) -> object:
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
    def defer(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` in the loop, soon; from any thread, which wakes the loop.

        Functions run in the order in which they came. When the loop doesn't run, they wait for it.
        """
        job = convert.callback(function, "function"), args
        with self._from_any_thread():
            self.pointer  # noqa: B018  (hot: a closed base would never run it)
            self._jobs.append(job)
            self._rouse()

    @any_thread
    def _wake(self) -> None:
        """Have the loop come to a clean moment soon; from any thread."""
        if self._nolock and self._thread != get_ident():
            return  # then what waits for it waits for the end of the loop
        with self._gate:
            if not self.closed:
                self._rouse()

    def _rouse(self) -> None:
        # By a timer that is due, not by event_active(): so a function that defers itself lets
        # others in. One that is due already would be put off by it.
        if not lib.event_pending(self._waker, TIMEOUT, ffi.NULL):
            lib.evpy_event_rouse(self._waker, 0.0)

    def _work(self) -> None:
        self._exhume()
        try:
            for _ in range(len(self._jobs)):
                function, args = self._jobs.popleft()
                function(*args)
                if self._forked:  # the rest is the parent process's
                    return
        except BaseException as error:
            self._report(error, self)
        finally:
            if not self._forked:
                self._await_quiet()
                if self._jobs:
                    self._rouse()

    def _when_quiet(self, function: Callable[..., object], *args: Any, now: bool = True) -> None:
        """Run ``function(*args)`` when libevent has nothing more to call: *now*, or in the loop.

        At the latest it runs when the base is closed. For what frees things that callbacks which
        libevent has lined up still use (L3).
        """
        waiting = bool(self._quiet)
        self._quiet.append((function, args))
        if now and not waiting and not self._busy() and not self.closed:
            self._use_quiet(self.pointer)
        if self._quiet and self._waker is not None:
            self._rouse()

    def _use_quiet(self, pointer: Any) -> bool:
        """Run what waits for a quiet moment if this is one; tell whether anything has run."""
        ran = False
        while self._quiet and self._is_clean():
            if lib.event_base_get_num_events(pointer, EventBaseCount.ACTIVE):
                break
            function, args = self._quiet.popleft()
            function(*args)
            ran = True
        return ran

    def _await_quiet(self) -> None:
        """Line up behind what libevent has to call, or soon let in what is less urgent."""
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
    def on_error(self) -> Callable[[Exception, Any], object] | None:
        """What gets an exception that a callback raised, with the object whose callback it was.

        ``on_error(exception, source)`` takes it instead of the loop, which goes on. *source* is the
        request where a server's handler has raised, of HTTP, RPC or DNS, which it may answer. None:
        the exception stops the loop and comes out of it, once a server's client has been told that
        its request has failed. KeyboardInterrupt and SystemExit always do.
        """
        return self._on_error

    @on_error.setter
    def on_error(self, hook: Callable[[Exception, Any], object] | None) -> None:
        self._on_error = None if hook is None else convert.callback(hook, "on_error")

    def _report(self, error: BaseException, source: Any) -> None:
        """Hand what *source*'s callback raised to `on_error`, or keep it for who entered C."""
        if self._on_error is None or not isinstance(error, Exception):
            errors.keep(error)
            return
        try:
            self._on_error(error, source)
        except BaseException as worse:
            errors.keep(worse)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Raise in the end what callbacks that are called meanwhile, without C, have raised.

        While the loop runs, it does so.
        """
        before = errors.waiting()
        yield
        if not self._running:
            errors.settle(before)

    # The end.

    def close(self) -> None:
        """Close everything made on the base, then free the base itself; a second time does nothing.

        Finalizers given to `Event.close` that have not run yet run now. Raises `RuntimeError`
        while the loop runs. In a forked child that has not called `reinit`, only the child's own
        objects are closed, and what they share with the parent is left alone.
        Wraps ``event_base_free``.
        """
        super().close()

    def _check_closable(self) -> None:
        """Raise an error unless this thread can close everything made on the base."""
        signals.check_closable(self)

    def _free(self, pointer: Any) -> None:
        """Free what `_equip` and the loop have made, drain the loop, and free the base (B2)."""
        self._once_callbacks.clear()
        self._jobs.clear()
        # An interrupt may come after each call, and this be called once more.
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

    def _free_base(self, pointer: Any) -> None:
        self._condemned = None
        lib.event_base_free(pointer)

    def _drain(self, pointer: Any) -> None:
        """Let libevent free what it frees only in the loop (B3, F2)."""
        for _ in range(1000):
            if self._forked:  # a callback has forked: the rest is the parent process's
                return
            self._exhume()
            active = lib.event_base_get_num_events(pointer, EventBaseCount.ACTIVE)
            if not active and not self._use_quiet(pointer):
                break
            # With NONBLOCK alone C goes on for as long as anything is ready.
            once = LoopFlag.NONBLOCK | LoopFlag.ONCE
            errors.enter(pointer, lib.evpy_loop, pointer, once, ffi.NULL)


def _highest_reserved() -> int:
    """Return the highest descriptor that a new base would get.

    Raises `OSError` unless it can have as many as it needs: C would end the process (A1).
    """
    highest = int(lib.evpy_highest_reserved())
    if highest < 0:
        raise OSError(ffi.errno, os.strerror(ffi.errno))
    return highest


def _unmakable(config: EventConfig | None, method: str | None = None) -> Exception:
    """Return why C could not make a base as *config* asks."""
    failure = errors.failed(lib.event_base_new_with_config)
    if not isinstance(failure, errors.LibeventError):
        return failure
    asked = SUPPORTED_METHODS if method is None else (method,)
    refusals = (config or EventConfig())._refusals(asked)
    if refusals is None:
        return failure
    return errors.LibeventError(
        f"event_base_new_with_config: no backend will do: {'; '.join(refusals)}"
    )


def _check_method(config: EventConfig | None) -> None:
    """Raise `OSError` if a base of *config* would use select."""
    # Without locks it watches nothing yet: so one can be made to see.
    with (config or EventConfig())._like(EventBaseFlag.NOLOCK) as nolock:
        uses_select = lib.evpy_config_uses_select(nolock.pointer)
        if uses_select < 0:
            raise _unmakable(nolock)
    if uses_select:
        raise _beyond_select("the base's own descriptors")


def _beyond_select(what: str) -> OSError:
    """Return the exception that tells of *what* select can't wait for."""
    return OSError(errno.EINVAL, f"{what} with select: {os.strerror(errno.EINVAL)}")


def _short() -> MemoryError:
    return MemoryError("libevent got no memory in the loop, and has used what was put aside")


# hot: called for every turn of the loop that something wakes; and its key is a base's own.
@ffi.def_extern(onerror=errors.kept)
def evpy_wake(key: int) -> None:
    for base in live.bases:
        react = base._reactions.get(key)  # type: ignore[attr-defined]
        if react is not None:
            react(base)
            return


# hot: called for each use of `EventBase.once`, by which much is put off; its key is a function's.
@ffi.def_extern(onerror=errors.kept)
def evpy_once_fired(key: int, what: int) -> None:
    base: EventBase
    for base in live.bases:  # type: ignore[assignment]
        callback = base._once_callbacks.pop(key, None)
        if callback is not None:
            try:
                callback(-1, FLAGS[what])
            except BaseException as error:
                base._report(error, base)
            return
