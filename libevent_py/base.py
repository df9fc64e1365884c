"""``struct event_base``: the loop, with everything that is made on it; ``struct event_config``."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from libevent_py import _convert, _lifetime, _signals, debug, errors, log
from libevent_py._ffi import ffi, lib
from libevent_py._lifetime import Owned, Root, get_ident, live, next_key
from libevent_py._wakeup import in_main_thread, wakeup
from libevent_py.enums import (
    EventBaseCount,
    EventBaseFlag,
    EventFeature,
    EventFlag,
    LoopFlag,
)

if TYPE_CHECKING:
    from libevent_py.event import Event

Timeout = float | None

#: What an event can fire for, by C's number: `EventFlag` itself takes ten times as long.
FLAGS = tuple(EventFlag(number) for number in range(2 * EventFlag.CLOSED))

# Looked up once: an attribute of lib or of an enumeration costs as much as a short call.
TIMEOUT = EventFlag.TIMEOUT
once_timer = lib.evpy_once_timer

#: What makes an event a descriptor's.
IO = EventFlag.READ | EventFlag.WRITE | EventFlag.CLOSED


def _supported_methods() -> tuple[str, ...]:
    """Ask once and copy: each further call would free the array of the one before (B11)."""
    methods = lib.event_get_supported_methods()
    names: list[str] = []
    while methods[len(names)] != ffi.NULL:
        names.append(_convert.text(methods[len(names)]))
    return tuple(names)


SUPPORTED_METHODS = _supported_methods()


class EventConfig(Owned):
    """What to ask of an `EventBase`; it may be used for several, and closed at once after."""

    __slots__ = ("_flags",)

    def __init__(
        self,
        *,
        avoid: Iterable[str] = (),
        require: int = EventFeature(0),
        flags: int = EventBaseFlag(0),
        max_dispatch_interval: Timeout = None,
        max_dispatch_callbacks: int = -1,
        min_priority: int = 0,
        cpus_hint: int | None = None,
    ) -> None:
        """Make a configuration, with each argument as the method of its name takes it.

        Wraps ``event_config_new``.
        """
        self._check_unmade()
        self._flags = EventBaseFlag(0)
        if isinstance(avoid, str) or not isinstance(avoid, Iterable):
            raise TypeError(f"avoid must be a collection of names, not {avoid!r}")
        super().__init__(errors.new(lib.event_config_new))
        for name in avoid:
            self.avoid_method(name)
        if require:
            self.require_features(require)
        if flags:
            self.set_flag(flags)
        if max_dispatch_interval is not None or max_dispatch_callbacks != -1 or min_priority != 0:
            self.set_max_dispatch_interval(
                max_dispatch_interval, max_dispatch_callbacks, min_priority
            )
        if cpus_hint is not None:
            self.set_num_cpus_hint(cpus_hint)

    @property
    def flags(self) -> EventBaseFlag:
        """The flags set so far."""
        return self._flags

    def avoid_method(self, name: str) -> None:
        """Never use the backend *name*, one of `EventBase.supported_methods`.

        Raises `ValueError` for an unknown name, which C takes without a word.
        Wraps ``event_config_avoid_method``.
        """
        if name not in SUPPORTED_METHODS:
            raise ValueError(f"name must be one of {', '.join(SUPPORTED_METHODS)}, not {name!r}")
        errors.call(lib.event_config_avoid_method, self.pointer, name.encode())

    def require_features(self, features: int) -> None:
        """Use no backend that lacks one of *features*. Wraps ``event_config_require_features``."""
        features = _convert.flags(EventFeature, features, "features")
        errors.call(lib.event_config_require_features, self.pointer, features)

    def set_flag(self, flag: int) -> None:
        """Set *flag*, one or more of `EventBaseFlag`. Wraps ``event_config_set_flag``."""
        flag = _convert.flags(EventBaseFlag, flag, "flag")
        errors.call(lib.event_config_set_flag, self.pointer, flag)
        self._flags |= flag

    def set_num_cpus_hint(self, cpus: int) -> None:
        """Tell how many processors there are, which only matters to Windows' IOCP.

        Wraps ``event_config_set_num_cpus_hint``.
        """
        cpus = _convert.integer(cpus, "cpus", 0, 2**31 - 1)
        errors.call(lib.event_config_set_num_cpus_hint, self.pointer, cpus)

    def set_max_dispatch_interval(
        self, interval: Timeout, max_callbacks: int = -1, min_priority: int = 0
    ) -> None:
        """Look for new events after *interval* seconds or *max_callbacks* callbacks.

        None and -1 stand for no limit. The limits hold for callbacks of priority *min_priority* and
        less urgent ones. Wraps ``event_config_set_max_dispatch_interval``.
        """
        tv = ffi.NULL if interval is None else _convert.timeval(interval, "interval")
        max_callbacks = _convert.integer(max_callbacks, "max_callbacks", -1, 2**31 - 1)
        min_priority = _convert.integer(min_priority, "min_priority", 0, 255)
        errors.call(
            lib.event_config_set_max_dispatch_interval,
            self.pointer,
            tv,
            max_callbacks,
            min_priority,
        )

    def close(self) -> None:
        """Free the configuration; a second time does nothing. Wraps ``event_config_free``."""
        pointer = self._take()
        if pointer is not None:
            lib.event_config_free(pointer)

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
        self.base.pointer  # noqa: B018  (it ends with its base)
        return self._pointer

    def __repr__(self) -> str:
        return f"<CommonTimeout {self.seconds} s>"


class EventBase(Root):
    """A loop that waits for events and calls back; usable in ``with``.

    Closing it closes everything made on it. A base that is dropped is closed too, as soon as
    nothing made on it is left.
    """

    __slots__ = (
        "_exit_at",
        "_exiter",
        "_jobs",
        "_nolock",
        "_on_error",
        "_onces",
        "_pipes",
        "_waker",
        "onces",
        "wakers",
    )

    def __init__(self, config: EventConfig | None = None, *, priorities: int | None = None) -> None:
        """Make a base as *config* asks, with *priorities* levels from 0, the most urgent.

        An event's default is the middle level. Raises `LibeventError` when no backend will do.
        Unlike in C the number of levels can't be changed later, when events could depend on it
        (B12).
        Wraps ``event_base_new``, ``event_base_new_with_config``, ``event_base_priority_init``.
        """
        self._check_unmade()
        if config is not None and not isinstance(config, EventConfig):
            raise TypeError(f"config must be an EventConfig, not {config!r}")
        if priorities is not None:
            priorities = _convert.integer(priorities, "priorities", 1, lib.EVENT_MAX_PRIORITIES - 1)
        #: The callbacks given to `once`, by key.
        self.onces: dict[int, Callable[[int, EventFlag], object]] = {}
        #: What to do when one of the base's own events fires, by key.
        self.wakers: dict[int, Callable[[EventBase], None]] = {}
        self._jobs: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._pipes: dict[str, tuple[int, Any]] = {}
        self._on_error: Callable[[Exception, Any], object] | None = None
        self._nolock = config is not None and EventBaseFlag.NOLOCK in config.flags
        self._onces: Any = None
        self._waker: Any = None
        self._exiter: Any = None
        self._exit_at: float | None = None
        debug.too_late("event base")
        _descriptors_reserved()
        super().__init__(
            errors.new(
                lib.event_base_new_with_config, ffi.NULL if config is None else config.pointer
            )
        )
        if self._nolock:
            self.thread = get_ident()
        if priorities is not None:
            errors.call(lib.event_base_priority_init, self.pointer, priorities)
        self._onces = errors.new(lib.evpy_onces_new, self.pointer)
        self._waker = self._new_timer(EventBase._work)
        self._exiter = self._new_timer(EventBase._exit)

    # What it is.

    @property
    def method(self) -> str:
        """The name of the backend. Wraps ``event_base_get_method``."""
        return _convert.text(lib.event_base_get_method(self.pointer))

    @property
    def features(self) -> EventFeature:
        """What the backend can do. Wraps ``event_base_get_features``."""
        return EventFeature(lib.event_base_get_features(self.pointer))

    @property
    def n_priorities(self) -> int:
        """The number of priority levels. Wraps ``event_base_get_npriorities``."""
        return int(lib.event_base_get_npriorities(self.pointer))

    @staticmethod
    def supported_methods() -> list[str]:
        """Return the names of all backends on this machine, the preferred one first.

        Wraps ``event_get_supported_methods``.
        """
        return list(SUPPORTED_METHODS)

    # The loop.

    def dispatch(self) -> bool:
        """Run the loop until it is told to stop, or until no events are left.

        Return True when `loopexit` or `loopbreak` stopped it, False when there were no events.
        Raises what a callback raised. Wraps ``event_base_dispatch``.
        """
        return self.loop()

    def loop(self, flags: int = LoopFlag(0)) -> bool:
        """Run the loop as *flags* say: ONCE for one round of callbacks, NONBLOCK without waiting.

        Return False when there were no events. Raises what a callback raised, several of them as an
        `ExceptionGroup`; `RuntimeError` when the loop runs already; `OSError` when the backend
        fails. Unlike in C, Python's signal handlers run at once when it runs in the main thread.
        Wraps ``event_base_loop``.
        """
        pointer = self.pointer
        flags = _convert.flags(LoopFlag, flags, "flags")
        self.check_thread()
        before = errors.waiting()
        result = errors.enter(None, self._run, pointer, flags)
        errors.settle(before)
        if result < 0:
            raise errors.failed(lib.event_base_loop)
        return bool(result == 0)

    def _run(self, pointer: Any, flags: LoopFlag) -> int:
        outer = self.thread
        if self.running:
            raise RuntimeError("the loop of this event base runs already")
        self.running = True
        try:
            self.thread = get_ident()
            live.add(self)
            with self._woken():
                return int(errors.enter(pointer, lib.event_base_loop, pointer, flags))
        finally:
            self.thread = outer
            self.running = False
            live.remove(self)
            self._clean_up()

    @contextlib.contextmanager
    def _woken(self) -> Iterator[None]:
        """Watch the pipes that wake the loop: the log's, and in the main thread that of signals."""
        pipes = wakeup()
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
        what = EventFlag.READ | EventFlag.PERSIST
        ev = errors.new(lib.evpy_wake_new, self.pointer, fd, what, key, True)
        if lib.evpy_event_add(ev, -1.0):
            failure = errors.failed(lib.event_add)
            lib.event_free(ev)
            raise failure
        self.wakers[key] = react
        self._pipes[name] = key, ev

    def _unwatch(self, name: str) -> None:
        if name in self._pipes:
            key, ev = self._pipes.pop(name)
            del self.wakers[key]
            lib.event_free(ev)

    def _new_timer(self, react: Callable[[EventBase], None]) -> Any:
        """Make a timer of the base's own, as urgent as an event is by default."""
        key = next_key()
        ev = errors.new(lib.evpy_wake_new, self.pointer, -1, 0, key, False)
        lib.event_priority_set(ev, self.n_priorities // 2)
        self.wakers[key] = react
        return ev

    def _logged(self) -> None:
        wakeup().log.take()
        log.flush()

    def _signalled(self) -> None:
        wakeup().signalled()  # Python's own handlers have run by now

    def _clean_up(self) -> None:
        """Leave the base as the next loop must find it."""
        if self.parked is None:
            if self._exit_at is not None:
                self._exit_at = None
                lib.event_del(self._exiter)
            self.exhume()
        log.flush()

    def loopexit(self, timeout: Timeout = None) -> None:
        """Stop the loop after this round of callbacks, or *timeout* seconds from now.

        From any thread. Before the loop runs it stops the next one. Unlike in C, what is left of a
        timeout goes with the loop that it was meant for (B6). Wraps ``event_base_loopexit``.
        """
        if timeout is None:
            with self._from_any_thread():
                errors.call(lib.event_base_loopexit, self.pointer, ffi.NULL)
            return
        timeout = _convert.seconds(timeout)
        with self._from_any_thread():
            self.pointer  # noqa: B018  (a closed base has no timer)
            moment = time.monotonic() + timeout
            if self._exit_at is None or moment < self._exit_at:
                errors.call(lib.evpy_event_add, self._exiter, timeout)
                self._exit_at = moment

    def _exit(self) -> None:
        self._exit_at = None
        self.loopexit()

    def loopbreak(self) -> None:
        """Stop the loop after the callback that runs now; from any thread.

        As in C, a loop that has not begun forgets it. Wraps ``event_base_loopbreak``.
        """
        with self._from_any_thread():
            errors.call(lib.event_base_loopbreak, self.pointer)

    def loopcontinue(self) -> None:
        """Look for new events after the callback that runs now.

        Wraps ``event_base_loopcontinue``.
        """
        with self._from_any_thread():
            errors.call(lib.event_base_loopcontinue, self.pointer)

    @contextlib.contextmanager
    def _from_any_thread(self) -> Iterator[None]:
        """Keep the base open meanwhile, whichever thread closes it."""
        if self._nolock:
            self.check_thread()
        with self.gate:
            yield

    @property
    def got_exit(self) -> bool:
        """Whether `loopexit` stopped the last loop. Wraps ``event_base_got_exit``."""
        return bool(lib.event_base_got_exit(self.pointer))

    @property
    def got_break(self) -> bool:
        """Whether `loopbreak`, or an exception, stopped the last loop.

        Wraps ``event_base_got_break``.
        """
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
        thread = self.thread
        if thread is not None and thread != get_ident():
            raise _lifetime.wrong_thread()
        self.pointer  # noqa: B018  (a closed base has no list to put this on)
        if type(timeout) is not float or not 0 <= timeout <= _convert.MAX_SECONDS:
            timeout = _convert.optional_seconds(timeout)
        key = next_key()
        if what is TIMEOUT:
            self.onces[key] = callback
            failed = once_timer(self._onces, key, timeout)
        else:
            what = self._once_what(what)
            number = _convert.descriptor(fd) if what else -1

            def ready(_fd: int, fired: EventFlag, _kept: Any = fd) -> object:
                return callback(number, fired)

            self.onces[key] = ready
            failed = lib.evpy_once_add(self._onces, key, timeout, number, what)
        if failed:
            del self.onces[key]
            raise errors.failed(lib.event_base_once, f"fd {fd}")

    @staticmethod
    def _once_what(what: int) -> int:
        what = _convert.flags(EventFlag, what, "what")
        if what & ~(TIMEOUT | IO) or not what:
            raise ValueError(f"what must be TIMEOUT, or of READ, WRITE and CLOSED, not {what!r}")
        return what & IO

    def defer(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` in the loop, soon; from any thread, which wakes the loop.

        Functions run in the order in which they came. When the loop doesn't run, they wait for it.
        """
        job = _convert.callback(function, "function"), args
        with self._from_any_thread():
            self.pointer  # noqa: B018  (a closed base would never run it)
            self._jobs.append(job)
            self._rouse()

    def wake(self) -> None:
        """Have the loop come to a clean moment soon; from any thread."""
        if self._nolock:
            return  # then what waits for it waits for the end of the loop
        with self.gate:
            if not self.closed:
                self._rouse()

    def _rouse(self) -> None:
        # By a timer that is due, not by event_active(): so a function that defers itself lets
        # others in.
        errors.call(lib.evpy_event_add, self._waker, 0.0)

    def _work(self) -> None:
        self.exhume()
        try:
            for _ in range(len(self._jobs)):
                function, args = self._jobs.popleft()
                function(*args)
                if self.parked is not None:  # the rest is the parent process's
                    return
        except BaseException as error:
            self.report(error, self)
        finally:
            if self._jobs and self.parked is None:
                self._rouse()

    @property
    def on_error(self) -> Callable[[Exception, Any], object] | None:
        """What gets an exception that a callback raised, with the object whose callback it was.

        ``on_error(exception, source)`` takes it instead of the loop, which goes on. None: the
        exception stops the loop and comes out of it. KeyboardInterrupt and SystemExit always do.
        """
        return self._on_error

    @on_error.setter
    def on_error(self, hook: Callable[[Exception, Any], object] | None) -> None:
        self._on_error = None if hook is None else _convert.callback(hook, "on_error")

    def report(self, error: BaseException, source: Any) -> None:
        """Hand what *source*'s callback raised to `on_error`, or keep it for who entered C."""
        if self._on_error is None or not isinstance(error, Exception):
            errors.keep(error)
            return
        try:
            self._on_error(error, source)
        except BaseException as worse:
            errors.keep(worse)

    # What is pending.

    def num_events(self, flags: int) -> int:
        """Return how many events there are of the kinds in *flags*, of `EventBaseCount`.

        An event counts once for each queue it is in. Wraps ``event_base_get_num_events``.
        """
        flags = _convert.flags(EventBaseCount, flags, "flags")
        self.check_thread()
        return int(lib.event_base_get_num_events(self.pointer, flags))

    def max_events(self, flags: int, clear: bool = False) -> int:
        """Return how many events of the kinds in *flags* there were at most; *clear* starts anew.

        Wraps ``event_base_get_max_events``.
        """
        flags = _convert.flags(EventBaseCount, flags, "flags")
        self.check_thread()
        return int(lib.event_base_get_max_events(self.pointer, flags, bool(clear)))

    def events(self) -> list[Event]:
        """Return the events that are pending or active.

        A snapshot, so that unlike in C they may be added and deleted while it is walked. Events
        inside libevent's own objects are left out. Wraps ``event_base_foreach_event``.
        """
        self.check_thread()
        pointer, room = self.pointer, 64
        while True:
            keys = ffi.new("uintptr_t[]", room)
            found = lib.evpy_event_keys(pointer, keys, room)
            if found <= room:
                return [event for key in ffi.unpack(keys, found) if (event := self.live.get(key))]
            room = found

    def dump_events(self) -> str:
        """Return libevent's own list of all events, a line each.

        Wraps ``event_base_dump_events``.
        """
        self.check_thread()
        dump = lib.evpy_dump_events(self.pointer)
        if dump == ffi.NULL:
            raise errors.failed(lib.event_base_dump_events)
        return _convert.taken_text(dump)

    @property
    def running_event(self) -> Event | None:
        """The event whose callback runs in this thread, or None, also when it has been closed.

        Unlike in C, it may be asked at any time (B8). Wraps ``event_base_get_running_event``.
        """
        self.pointer  # noqa: B018  (closed is closed)
        depth = 0
        while key := lib.evpy_event_running(depth):
            if key in self.ledger:
                return cast("Event | None", self.ledger[key]())
            depth += 1
        return None

    def active_by_fd(self, fd: Any, what: int) -> None:
        """Make the events added for *fd* and *what* active. Wraps ``event_base_active_by_fd``."""
        fd = fd if isinstance(fd, int) else _convert.descriptor(fd)
        fd = _convert.integer(fd, "fd", -1, _convert.MAX_FD)
        what = _convert.flags(EventFlag, what, "what")
        self.check_thread()
        lib.event_base_active_by_fd(self.pointer, fd, what)

    def active_by_signal(self, signum: int) -> None:
        """Make the events added for *signum* active. Wraps ``event_base_active_by_signal``."""
        signum = _signals.number(signum)
        self.check_thread()
        lib.event_base_active_by_signal(self.pointer, signum)

    # Time.

    @property
    def gettimeofday_cached(self) -> float:
        """The Unix time in seconds when this round of callbacks began, or outside the loop now.

        Wraps ``event_base_gettimeofday_cached``.
        """
        self.check_thread()
        tv = ffi.new("struct timeval *")
        errors.call(lib.event_base_gettimeofday_cached, self.pointer, tv)
        return _convert.from_timeval(tv)

    def update_cache_time(self) -> None:
        """Set the cached time to the time now, after a long callback.

        Wraps ``event_base_update_cache_time``.
        """
        self.check_thread()
        errors.call(lib.event_base_update_cache_time, self.pointer)

    @property
    def gettime_monotonic(self) -> float:
        """The time in seconds by the clock of the base's timers.

        Wraps ``event_gettime_monotonic``.
        """
        self.check_thread()
        tv = ffi.new("struct timeval *")
        errors.call(lib.event_gettime_monotonic, self.pointer, tv)
        return _convert.from_timeval(tv)

    def init_common_timeout(self, seconds: float) -> CommonTimeout:
        """Return a timeout of *seconds* that is cheap to share by many events of this base.

        A base has room for 256 of them. Wraps ``event_base_init_common_timeout``.
        """
        tv = _convert.timeval(seconds, "seconds")
        self.check_thread()
        pointer = errors.new(lib.event_base_init_common_timeout, self.pointer, tv)
        return CommonTimeout(self, pointer, _convert.from_timeval(tv))

    # Threads and processes.

    def make_notifiable(self) -> None:
        """Let other threads wake the loop, as they can from the start without the flag NOLOCK.

        Wraps ``evthread_make_base_notifiable``.
        """
        self.check_thread()
        errors.call(lib.evthread_make_base_notifiable, self.pointer)

    def reinit(self) -> None:
        """Make the base and everything on it usable in a forked child.

        Until then they raise `ForkError`, because a child's changes would reach the parent's events
        (A8). May be called inside a callback. Raises `OSError` when an event could not be added
        again, `RuntimeError` when another thread ran the loop at the time of the fork.
        Wraps ``event_reinit``.
        """
        if self.lost:
            raise RuntimeError("another thread ran this base's loop when the process was forked")
        self.check_thread()
        try:
            pointer = self.pointer if self.parked is None else self.parked[id(self)][1]
            errors.call(lib.event_reinit, pointer)
        finally:
            self.unpark()
        _signals.reclaim(self)

    # The end.

    def check_closable(self) -> None:
        """Raise an error unless everything made on the base may be closed here and now."""
        self.check_thread()
        _signals.check_closable(self)

    def _free(self, pointer: Any) -> None:
        """Free what the base waits with itself, drain the loop, and free the base (B2)."""
        self.onces.clear()
        if self._onces is not None:
            lib.evpy_onces_free(self._onces)
        for ev in (self._waker, self._exiter, *(ev for _, ev in self._pipes.values())):
            if ev is not None:
                lib.event_free(ev)
        self._waker = self._exiter = None
        self._pipes.clear()
        self._jobs.clear()
        self._drain(pointer)
        errors.enter(pointer, lib.event_base_free, pointer)
        _signals.forget(self)
        log.flush()

    def _drain(self, pointer: Any) -> None:
        """Let libevent free what it frees only in the loop (B3, F2)."""
        self.exhume()
        for _ in range(1000):
            if not lib.event_base_get_num_events(pointer, EventBaseCount.ACTIVE):
                break
            errors.enter(pointer, lib.event_base_loop, pointer, LoopFlag.NONBLOCK)


def _descriptors_reserved() -> None:
    """Raise `OSError` unless a base can have its descriptors: C would end the process (A1)."""
    with contextlib.ExitStack() as reserved:
        for _ in range(3):
            for fd in os.pipe():
                reserved.callback(os.close, fd)


@ffi.def_extern(onerror=errors.kept)
def evpy_wake(key: int) -> None:
    for base in live.bases:
        react = base.wakers.get(key)  # type: ignore[attr-defined]
        if react is not None:
            react(base)
            return


@ffi.def_extern(onerror=errors.kept)
def evpy_once_fired(key: int, what: int) -> None:
    base: EventBase
    for base in live.bases:  # type: ignore[assignment]
        callback = base.onces.pop(key, None)
        if callback is not None:
            try:
                callback(-1, FLAGS[what])
            except BaseException as error:
                base.report(error, base)
            return
