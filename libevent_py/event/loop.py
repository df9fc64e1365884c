"""An event base's loop: how it runs, how it is woken and stopped, and what it is given to do.

A base has events of its own. Two watch the process's pipes (`wakeup`) and are internal: they don't
keep the loop alive. Two are timers: one is due when there is work from `Loop.defer` or in the
graveyard, the other when the time of `Loop.loopexit` has come.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from libevent_py import debug, errors, log
from libevent_py._core import convert
from libevent_py._core.convert import Timeout
from libevent_py._core.dispatch import live, next_key
from libevent_py._core.frames import any_thread, in_the_middle
from libevent_py._core.handle import Making
from libevent_py._core.owner import Root, get_ident, is_alive
from libevent_py._core.wakeup import in_main_thread, wakeup
from libevent_py._ffi import ffi, lib
from libevent_py.enums import EventBaseCount, EventFlag, LoopFlag

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


class Loop(Root):
    """What `EventBase` is besides what can be asked of it: a loop that waits and calls back."""

    __slots__ = (
        "_exit_at",
        "_exiter",
        "_jobs",
        "_nolock",
        "_on_error",
        "_onces",
        "_pipes",
        "_quiet",
        "_turns",
        "_waker",
        "onces",
        "wakers",
    )

    def __init__(self, making: Making, nolock: bool) -> None:
        #: The callbacks given to `once`, by key.
        self.onces: dict[int, Callable[[int, EventFlag], object]] = {}
        #: What to do when one of the base's own events fires, by key.
        self.wakers: dict[int, Callable[[Loop], None]] = {}
        self._jobs: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        #: What `when_quiet` was given, and how often in a row the loop was not.
        self._quiet: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._turns = 0
        self._pipes: dict[str, tuple[int, Any]] = {}
        self._on_error: Callable[[Exception, Any], object] | None = None
        self._nolock = nolock
        self._onces: Any = None
        self._waker: Any = None
        self._exiter: Any = None
        self._exit_at: float | None = None
        super().__init__(making)

    def _equip(self) -> None:
        """Make what the base itself needs of C, once it has its priorities."""
        errors.put(functools.partial(setattr, self, "_onces"), lib.evpy_onces_new, self.pointer)
        self._make_timer("_waker", Loop._work)
        self._make_timer("_exiter", Loop._exit)

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
        if self.thread != get_ident():
            self.claim()
        before = errors.waiting()
        result = errors.enter(None, self._run, pointer, flags, sys._getframe(1))
        errors.settle(before)
        if result < 0:
            raise errors.failed(lib.event_base_loop)
        return bool(result == 0)

    def _run(self, pointer: Any, flags: LoopFlag, caller: FrameType) -> int:
        if self.running:
            raise RuntimeError("the loop of this event base runs already")
        if self.calls:  # it could free what C is in the middle of
            raise RuntimeError("the loop was run inside a callback that a call outside it led to")
        if in_the_middle(self, caller):
            raise RuntimeError("the loop was run in the middle of another call about its base")
        self.running = True
        try:
            live.add(self)
            with self._woken():
                result = int(errors.enter(pointer, lib.evpy_loop, pointer, flags, self._waker))
                if result >= lib.EVPY_RAN_SHORT - 1:
                    result -= lib.EVPY_RAN_SHORT
                    self.report(_short(), self)
                return result
        finally:
            self.running = False
            try:
                live.remove(self)
            except BaseException:  # an interrupt has kept it from that
                live.remove(self)
                raise
            finally:
                self._clean_up()

    @contextlib.contextmanager
    def _woken(self) -> Iterator[None]:
        """Watch the pipes that wake the loop: the log's, and in the main thread that of signals."""
        pipes = wakeup()
        log.flush()  # what came before there was a pipe has woken nobody
        if "log" not in self._pipes:
            self._watch("log", pipes.log.fd, Loop._logged)
        if not in_main_thread():
            self._unwatch("signals")  # its bytes are for the main thread
            yield
            return
        if "signals" not in self._pipes:
            self._watch("signals", pipes.signals.fd, Loop._signalled)
        with pipes.watching():
            yield

    def _watch(self, name: str, fd: int, react: Callable[[Loop], None]) -> None:
        """Have *react* called when *fd* is ready, by an event that doesn't keep the loop alive."""
        key = next_key()
        made: list[Any] = []
        what = EventFlag.READ | EventFlag.PERSIST
        self.wakers[key] = react
        try:
            errors.put(made.append, lib.evpy_wake_new, self.pointer, fd, what, key, True)
            errors.call(lib.evpy_event_add, made[0], -1.0)
            self._pipes[name] = key, made[0]
        finally:
            if name not in self._pipes:
                self.wakers.pop(key, None)
                if made:
                    lib.event_free(made[0])

    def _unwatch(self, name: str) -> None:
        if name in self._pipes:
            key, ev = self._pipes[name]
            self.wakers.pop(key, None)
            del self._pipes[name]  # no call from here to the next line: nobody interrupts
            lib.event_free(ev)

    def _make_timer(self, name: str, react: Callable[[Loop], None]) -> None:
        """Make a timer of the base's own, as urgent as an event is by default."""
        key, pointer = next_key(), self.pointer
        self.wakers[key] = react
        store = functools.partial(setattr, self, name)
        errors.put(store, lib.evpy_wake_new, pointer, -1, 0, key, False)
        lib.event_priority_set(getattr(self, name), lib.event_base_get_npriorities(pointer) // 2)

    def _logged(self) -> None:
        wakeup().log.take()
        if lib.evpy_loop_missed():
            self.report(_short(), self)
        log.flush()

    def _signalled(self) -> None:
        wakeup().signalled()  # Python's own handlers have run by now

    def _clean_up(self) -> None:
        """Leave the base as the next loop must find it."""
        if not self.forked:
            if self._exit_at is not None:
                lib.event_del(self._exiter)
                self._exit_at = None
            self.exhume()
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
            self.pointer  # noqa: B018  (a closed base has no timer)
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

    def claim(self) -> None:
        if self._nolock and self.thread != get_ident() and is_alive(self.thread):
            raise self.wrong_thread()
        super().claim()

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
        with self.gate:
            return bool(lib.event_base_got_exit(self.pointer))

    @property
    def got_break(self) -> bool:
        """Whether `loopbreak`, or an exception, stopped the last loop.

        Wraps ``event_base_got_break``.
        """
        with self.gate:
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
        if self.thread != get_ident():
            self.check_thread()
        if type(timeout) is not float or not 0 <= timeout <= convert.MAX_SECONDS:
            timeout = convert.optional_seconds(timeout)
        key = next_key()
        if what is TIMEOUT:
            self.pointer  # noqa: B018  (a closed base has no list to put this on)
            self.onces[key] = callback
            failed = once_timer(self._onces, key, timeout)
        else:
            what = self._once_what(what)
            number = -1
            if what:
                number = convert.descriptor(fd)
                debug.check_nonblocking(number)

            def ready(_fd: int, fired: EventFlag, _kept: Any = fd) -> object:
                return callback(number, fired)

            self.pointer  # noqa: B018  (as above)
            self.onces[key] = ready
            failed = lib.evpy_once_add(self._onces, key, timeout, number, what)
        if failed:
            del self.onces[key]
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
            self.pointer  # noqa: B018  (a closed base would never run it)
            self._jobs.append(job)
            self._rouse()

    @any_thread
    def wake(self) -> None:
        """Have the loop come to a clean moment soon; from any thread."""
        if self._nolock and self.thread != get_ident():
            return  # then what waits for it waits for the end of the loop
        with self.gate:
            if not self.closed:
                self._rouse()

    def _rouse(self) -> None:
        # By a timer that is due, not by event_active(): so a function that defers itself lets
        # others in. One that is due already would be put off by it.
        if not lib.event_pending(self._waker, TIMEOUT, ffi.NULL):
            lib.evpy_event_rouse(self._waker, 0.0)

    def _work(self) -> None:
        self.exhume()
        try:
            for _ in range(len(self._jobs)):
                function, args = self._jobs.popleft()
                function(*args)
                if self.forked:  # the rest is the parent process's
                    return
        except BaseException as error:
            self.report(error, self)
        finally:
            if not self.forked:
                self._await_quiet()
                if self._jobs:
                    self._rouse()

    def when_quiet(self, function: Callable[..., object], *args: Any, now: bool = True) -> None:
        """Run ``function(*args)`` when libevent has nothing more to call: *now*, or in the loop.

        At the latest it runs when the base is closed. For what frees things that callbacks which
        libevent has lined up still use (L3).
        """
        waiting = bool(self._quiet)
        self._quiet.append((function, args))
        if now and not waiting and not self.busy() and not self.closed:
            self._use_quiet(self.pointer)
        if self._quiet and self._waker is not None:
            self._rouse()

    def _use_quiet(self, pointer: Any) -> bool:
        """Run what waits for a quiet moment if this is one; tell whether anything has run."""
        ran = False
        while self._quiet and not self.graveyard:
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

    def report(self, error: BaseException, source: Any) -> None:
        """Hand what *source*'s callback raised to `on_error`, or keep it for who entered C."""
        if self._on_error is None or not isinstance(error, Exception):
            errors.keep(error)
            return
        try:
            self._on_error(error, source)
        except BaseException as worse:
            errors.keep(worse)

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Raise in the end what callbacks that are called meanwhile, without C, have raised.

        While the loop runs, it does so.
        """
        before = errors.waiting()
        yield
        if not self.running:
            errors.settle(before)

    # The end.

    def _free(self, pointer: Any) -> None:
        """Free what `_equip` and the loop have made, drain the loop, and free the base (B2)."""
        self.onces.clear()
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
        if not self.forked:
            errors.enter(pointer, self._free_base, pointer)
            self.exhume()
        log.flush()

    def _free_base(self, pointer: Any) -> None:
        self.condemned = None
        lib.event_base_free(pointer)

    def _drain(self, pointer: Any) -> None:
        """Let libevent free what it frees only in the loop (B3, F2)."""
        for _ in range(1000):
            if self.forked:  # a callback has forked: the rest is the parent process's
                return
            self.exhume()
            active = lib.event_base_get_num_events(pointer, EventBaseCount.ACTIVE)
            if not active and not self._use_quiet(pointer):
                break
            # With NONBLOCK alone C goes on for as long as anything is ready.
            once = LoopFlag.NONBLOCK | LoopFlag.ONCE
            errors.enter(pointer, lib.evpy_loop, pointer, once, ffi.NULL)


def _short() -> MemoryError:
    return MemoryError("libevent got no memory in the loop, and has used what was put aside")


@ffi.def_extern(onerror=errors.kept)
def evpy_wake(key: int) -> None:
    for base in live.bases:
        react = base.wakers.get(key)  # type: ignore[attr-defined]
        if react is not None:
            react(base)
            return


@ffi.def_extern(onerror=errors.kept)
def evpy_once_fired(key: int, what: int) -> None:
    base: Loop
    for base in live.bases:  # type: ignore[assignment]
        callback = base.onces.pop(key, None)
        if callback is not None:
            try:
                callback(-1, FLAGS[what])
            except BaseException as error:
                base.report(error, base)
            return
