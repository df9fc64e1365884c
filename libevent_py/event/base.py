"""``struct event_base``: what everything is made on, and what can be asked of it.

How its loop runs is told in `loop`, how it ends in `owner`.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from libevent_py import debug, errors
from libevent_py._core import convert, signals
from libevent_py._core import fork as fork  # registers what is done at a fork
from libevent_py._core.described import described
from libevent_py._core.handle import Making
from libevent_py._core.owner import get_ident
from libevent_py._ffi import ffi, lib
from libevent_py.enums import EventBaseCount, EventBaseFlag, EventFeature, EventFlag
from libevent_py.event.config import SUPPORTED_METHODS, EventConfig, checked_method
from libevent_py.event.loop import Loop

if TYPE_CHECKING:
    from libevent_py.event.event import Event


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
        self.base.pointer  # noqa: B018  (it ends with its base)
        return self._pointer

    def __repr__(self) -> str:
        where = (
            "closed" if self.base.closed else f"at {int(ffi.cast('uintptr_t', self._pointer)):#x}"
        )
        return f"<CommonTimeout {where}, {self.seconds} s>"


class EventBase(Loop):
    """A loop that waits for events and calls back; usable in ``with``.

    Closing it closes everything made on it. A base that is dropped is closed too, as soon as
    nothing made on it is left.

    It belongs to one thread at a time, with everything made on it: the one that made it, then
    whoever last ran its loop, closed it or called `take_over`. Other threads get `ThreadError`, but
    for `defer`, `loopexit`, `loopbreak`, `loopcontinue` and `Event.active`, which wake the loop.
    When its thread has ended, it goes to the next one that uses it.
    """

    __slots__ = ()

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
            config.pointer  # noqa: B018  (a closed one asks for nothing)
        if method is not None:
            config = (config or EventConfig()).like(method=checked_method(method))
        nolock = config is not None and EventBaseFlag.NOLOCK in config.flags
        debug.too_late("event base")
        if _highest_reserved() >= lib.FD_SETSIZE:
            _check_method(config)
        what = ffi.NULL if config is None else config.pointer
        failure = functools.partial(_unmakable, config, method)
        make = lib.evpy_event_base_new_with_config
        super().__init__(Making(make, what, failure=failure), nolock)
        if priorities is not None:
            errors.call(lib.event_base_priority_init, self.pointer, priorities)
        self._equip()

    def _facts(self, ask: bool) -> Iterator[str]:
        if ask:
            yield convert.text(lib.event_base_get_method(self.pointer))
            count = lib.event_base_get_num_events
            yield f"{count(self.pointer, EventBaseCount.ADDED)} events added"
            yield f"{count(self.pointer, EventBaseCount.ACTIVE)} active"
        if self.running:
            yield "running" if self.thread == get_ident() else "running in another thread"

    # What it is.

    @property
    def method(self) -> str:
        """The name of the backend. Wraps ``event_base_get_method``."""
        with self.gate:
            return convert.text(lib.event_base_get_method(self.pointer))

    @property
    def features(self) -> EventFeature:
        """What the backend can do. Wraps ``event_base_get_features``."""
        with self.gate:
            return EventFeature(lib.event_base_get_features(self.pointer))

    @property
    def n_priorities(self) -> int:
        """The number of priority levels. Wraps ``event_base_get_npriorities``."""
        with self.gate:
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
        self.check_thread()
        return int(lib.event_base_get_num_events(self.pointer, flags))

    def max_events(self, flags: int, clear: bool = False) -> int:
        """Return how many events of the kinds in *flags* there were at most; *clear* starts anew.

        Wraps ``event_base_get_max_events``.
        """
        flags = convert.flags(EventBaseCount, flags, "flags")
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
                events = map(self.called_by, ffi.unpack(keys, found))
                return [event for event in events if event is not None]
            room = found

    def dump_events(self) -> str:
        """Return libevent's own list of all events, a line each.

        Wraps ``event_base_dump_events``.
        """
        self.check_thread()
        dump = lib.evpy_dump_events(self.pointer)
        if dump == ffi.NULL:
            raise errors.failed(lib.event_base_dump_events)
        return convert.taken_text(dump)

    @property
    def running_event(self) -> Event | None:
        """The event whose callback runs in this thread, or None, also when it has been closed.

        Unlike in C, it may be asked at any time (B8). Wraps ``event_base_get_running_event``.
        """
        self.pointer  # noqa: B018  (closed is closed)
        depth = 0
        while key := lib.evpy_event_running(depth):
            if self.knows(key):
                return cast("Event | None", self.child(key))
            depth += 1
        return None

    def active_by_fd(self, fd: Any, what: int) -> None:
        """Make the events added for *fd* and *what* active. Wraps ``event_base_active_by_fd``."""
        fd = fd if isinstance(fd, int) else convert.descriptor(fd)
        fd = convert.integer(fd, "fd", -1, convert.MAX_FD)
        what = convert.flags(EventFlag, what, "what")
        self.check_thread()
        lib.event_base_active_by_fd(self.pointer, fd, what)

    def active_by_signal(self, signum: int) -> None:
        """Make the events added for *signum* active. Wraps ``event_base_active_by_signal``."""
        signum = signals.number(signum)
        self.check_thread()
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
        self.check_thread()
        tv = ffi.new("struct timeval *")
        errors.call(lib.event_base_gettimeofday_cached, self.pointer, tv)
        return convert.from_timeval(tv)

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
        return convert.from_timeval(tv)

    def init_common_timeout(self, seconds: float) -> CommonTimeout:
        """Return a timeout of *seconds* that is cheap to share by many events of this base.

        A base has room for 256 of them. Wraps ``event_base_init_common_timeout``.
        """
        tv = convert.timeval(seconds, "seconds")
        self.check_thread()
        pointer = errors.new(lib.event_base_init_common_timeout, self.pointer, tv)
        return CommonTimeout(self, pointer, convert.from_timeval(tv))

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
        again, `ForkError` when another thread ran the loop, or was in the middle of a call, at the
        time of the fork: then the base can only be closed. Wraps ``event_reinit``.
        """
        self.check_found()
        self.check_thread()
        try:
            errors.call(lib.event_reinit, self.pointer_though_forked())
        finally:
            self.unpark()
        signals.reclaim(self)

    def check_selectable(self, fd: int) -> None:
        """Raise `OSError` if select is used, and can't wait for *fd* or with -1 for the next one.

        A fortified libevent would end the process.
        """
        if fd >= lib.FD_SETSIZE and lib.evpy_beyond_select(self.pointer, fd):
            raise _beyond_select(f"fd {fd}")
        if fd < 0 and lib.evpy_next_beyond_select(self.pointer):
            raise _beyond_select("the next descriptor")

    # The end.

    def check_closable(self) -> None:
        """Raise an error unless this thread can close everything made on the base."""
        signals.check_closable(self)

    def _free(self, pointer: Any) -> None:
        super()._free(pointer)
        signals.forget(self)


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
    refusals = (config or EventConfig()).refusals(asked)
    if refusals is None:
        return failure
    return errors.LibeventError(
        f"event_base_new_with_config: no backend will do: {'; '.join(refusals)}"
    )


def _check_method(config: EventConfig | None) -> None:
    """Raise `OSError` if a base of *config* would use select."""
    # Without locks it watches nothing yet: so one can be made to see.
    with (config or EventConfig()).like(EventBaseFlag.NOLOCK) as nolock:
        uses_select = lib.evpy_config_uses_select(nolock.pointer)
        if uses_select < 0:
            raise _unmakable(nolock)
    if uses_select:
        raise _beyond_select("the base's own descriptors")


def _beyond_select(what: str) -> OSError:
    """Return the exception that tells of *what* select can't wait for."""
    return OSError(errno.EINVAL, f"{what} with select: {os.strerror(errno.EINVAL)}")
