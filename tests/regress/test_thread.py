"""Group ``thread`` of libevent's regression suite: other threads than the one that runs the loop.

The object layer lets them in by defer(), active(), loopexit() and loopbreak() only.
"""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from libevent_py import Event, EventBase, EventFlag, LoopFlag, ffi, lib
from tests.kit.raw import has_assertions
from tests.kit.support import PATIENCE, run_python
from tests.kit.variants import TICK

if TYPE_CHECKING:
    from libevent_py._ffi import CData

#: As many as in C.
THREADS = 100
ITERATIONS = 100


@pytest.mark.slow
def test_basic(backend_base: EventBase) -> None:
    """Timers that many threads ask for all fire, and wake the thread that waits for each.

    By defer(), with Python's own locks in the place of libevent's private ones.
    """
    base = backend_base
    done = 0
    counting = threading.Lock()

    def work() -> None:
        nonlocal done
        fired = threading.Semaphore(0)
        timer: list[Event] = []

        def make() -> None:
            timer.append(Event.timer(base, lambda event, fd, what: fired.release()))
            timer[0].add(0.001)

        base.defer(make)
        for i in range(ITERATIONS):
            if i:
                base.defer(timer[0].add, 0.001)
            assert fired.acquire(timeout=PATIENCE)
            with counting:
                done += 1
                if done == THREADS * ITERATIONS:
                    base.loopexit()

    Event.timer(base, lambda event, fd, what: None).add(1000)
    with ThreadPoolExecutor(THREADS) as pool:
        threads = [pool.submit(work) for _ in range(THREADS)]
        assert base.dispatch()
        for thread in threads:
            thread.result(PATIENCE)
    assert done == THREADS * ITERATIONS


@pytest.mark.slow
def test_basic_raw(backend_base: EventBase) -> None:
    """The same with the timers added by the threads themselves: through the raw layer.

    So it is libevent's locks that hold, and libevent that wakes the loop.
    """
    done = 0
    counting = threading.Lock()
    millisecond = ffi.new("struct timeval *", (0, 1000))

    @ffi.callback("event_callback_fn")  # type: ignore[untyped-decorator]
    def on_timeout(fd: int, what: int, arg: CData) -> None:
        ffi.from_handle(arg).release()

    def work() -> None:
        nonlocal done
        fired = threading.Semaphore(0)
        arg = ffi.new_handle(fired)
        ev = lib.event_new(backend_base.pointer, -1, 0, on_timeout, arg)
        for _ in range(ITERATIONS):
            assert lib.event_add(ev, millisecond) == 0
            assert fired.acquire(timeout=PATIENCE)
        lib.event_free(ev)
        with counting:
            done += 1
            if done == THREADS:
                backend_base.loopexit()

    Event.timer(backend_base, lambda event, fd, what: None).add(1000)
    with ThreadPoolExecutor(THREADS) as pool:
        threads = [pool.submit(work) for _ in range(THREADS)]
        assert backend_base.dispatch()
        for thread in threads:
            thread.result(PATIENCE)
    assert done == THREADS


def test_no_events(backend_base: EventBase) -> None:
    """A loop without events waits for those that another thread adds or makes active.

    The last comes when the others have fired, instead of at a time when they should have.
    """
    base = backend_base
    fired: dict[Event, float] = {}
    both_timers = threading.Semaphore(0)

    def note_time(event: Event, fd: int, what: EventFlag) -> None:
        fired[event] = time.monotonic() - started
        if event in timers:
            both_timers.release()
        if event is last:
            base.loopbreak()

    one, two, *timers, last = (Event.timer(base, note_time) for _ in range(5))

    def act() -> None:
        time.sleep(0.03)
        one.active()
        time.sleep(0.03)
        two.active()
        time.sleep(0.03)
        base.defer(timers[0].add, 0.03)
        base.defer(timers[1].add, 0.05)
        for _ in timers:
            assert both_timers.acquire(timeout=PATIENCE)
        last.active()

    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(act)
        assert base.loop(LoopFlag.NO_EXIT_ON_EMPTY)
        assert base.got_break
        thread.result(PATIENCE)
    assert fired[one] >= 0.03
    assert fired[two] >= 0.06
    assert fired[timers[0]] >= 0.12 - TICK
    assert fired[timers[1]] >= 0.14 - TICK
    assert list(fired)[-1] is last
    assert len(fired) == 5


@pytest.mark.parametrize("mistake", ["", "unlock", "lock twice"])
def test_lock_debugging(mistake: str) -> None:
    """evthread_enable_lock_debugging() ends a process that frees a lock which it doesn't hold.

    libevent's suite has it on all the while; here as libevent's own functions need it, in a process
    of its own. What a thread holds it may take again, if the lock is made for that. A libevent that
    was built without assertions says nothing.
    """
    aborts = mistake == "unlock" and has_assertions()
    run_python(
        """
        import sys, threading
        from libevent_py import ffi, lib

        lib.evthread_enable_lock_debugging()
        base = lib.event_base_new()
        buffer = lib.evbuffer_new()
        assert lib.evbuffer_enable_locking(buffer, ffi.NULL) == 0
        assert lib.evbuffer_add(buffer, b"x", 1) == 0
        lib.evbuffer_lock(buffer)
        if sys.argv[1] == "lock twice":
            lib.evbuffer_lock(buffer)
            lib.evbuffer_unlock(buffer)
        lib.evbuffer_unlock(buffer)
        if sys.argv[1] == "unlock":
            lib.evbuffer_unlock(buffer)

        @ffi.callback("event_callback_fn")
        def callback(fd, what, arg):
            lib.event_base_loopbreak(base)

        event = lib.event_new(base, -1, 0, callback, ffi.NULL)
        loop = threading.Thread(target=lib.event_base_loop, args=(base, 4))
        loop.start()
        lib.event_active(event, lib.EV_TIMEOUT, 0)
        loop.join()
        lib.event_free(event)
        lib.evbuffer_free(buffer)
        lib.event_base_free(base)
        """,
        mistake,
        status=-signal.SIGABRT if aborts else 0,
        stderr=None if aborts else "",
    )
