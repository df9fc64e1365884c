"""Threads: what may be called from another than the loop's, and what becomes of the rest (A2)."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    ClosedError,
    Event,
    EventBase,
    EventBaseFlag,
    EventConfig,
    EventFlag,
    LoopFlag,
    ThreadError,
    lib,
)
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import Pair
from tests.kit.support import PATIENCE, run_python
from tests.kit.uses import USES

NO_EXIT_ON_EMPTY = LoopFlag.NO_EXIT_ON_EMPTY


#: Uses of a base that wake its loop, from whichever thread they come.
WAKING = {"loopexit", "loopexit later", "loopbreak", "loopcontinue", "defer"}

#: Uses that only ask for what doesn't change, or can't go wrong.
ASKING = {"method", "features", "n_priorities", "pointer", "with", "got_exit", "got_break"}
ASKING |= {"running_event"}


class Thread(threading.Thread):
    """A thread whose function's exception comes out of `join`, which is bounded."""

    def __init__(self, function: Callable[..., object], *args: Any) -> None:
        super().__init__(daemon=True)
        self.function, self.args = function, args
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.function(*self.args)
        except BaseException as error:
            self.error = error

    def join(self, timeout: float | None = PATIENCE) -> None:
        super().join(timeout)
        assert not self.is_alive(), "the thread is stuck"
        if self.error is not None:
            raise self.error


class Running:
    """A base whose loop runs in another thread, in ``with``."""

    def __init__(self, base: EventBase) -> None:
        self.base = base

    def __enter__(self) -> Thread:
        started = threading.Event()
        self.base.defer(started.set)
        self.thread = Thread(self.base.loop, NO_EXIT_ON_EMPTY)
        assert started.wait(PATIENCE)
        return self.thread

    def __exit__(self, *_: object) -> None:
        while self.thread.is_alive():  # a loopbreak may come before it has begun
            self.base.loopbreak()
            time.sleep(0.001)
        self.thread.join()


def eventually(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# What wakes the loop.


def test_locks_are_on_before_anybody_can_make_a_base() -> None:
    """A2: a base made before could never be woken; also through the raw layer alone."""
    run_python(
        """
        import threading
        import time
        from libevent_py._ffi import ffi, lib

        base = lib.event_base_new()
        looping = threading.Thread(target=lib.event_base_loop, args=(base, 4), daemon=True)
        looping.start()
        time.sleep(0.1)
        while looping.is_alive():
            lib.event_base_loopbreak(base)
            looping.join(0.1)
        assert lib.evthread_use_pthreads() == 0
        lib.event_base_free(base)
        """
    )


@pytest.mark.parametrize("name", ["loopexit", "loopbreak"])
def test_an_idle_loop_is_stopped_from_another_thread(backend_base: EventBase, name: str) -> None:
    """A2: at once, though it waits for something that is far away."""
    event = Event.timer(backend_base, print).add(100_000)
    with Running(backend_base) as thread:
        getattr(backend_base, name)()
        thread.join()
    assert (backend_base.got_exit, backend_base.got_break) == (
        name == "loopexit",
        name == "loopbreak",
    )
    event.close()


def test_an_idle_loop_is_stopped_after_a_time_given_in_another_thread(base: EventBase) -> None:
    """A2: the loop begins to wait for less than before."""
    event = Event.timer(base, print).add(100_000)
    with Running(base) as thread:
        start = time.monotonic()
        base.loopexit(0.05)
        thread.join()
        assert time.monotonic() - start >= 0.045
    assert base.got_exit
    event.close()


def test_an_event_is_made_active_from_another_thread(base: EventBase) -> None:
    """A2: and runs in the loop's own."""
    ran: list[int] = []
    event = Event.user(base, lambda *_: ran.append(threading.get_ident()))
    with Running(base) as thread:
        event.active()
        eventually(lambda: ran)
        assert ran == [thread.ident]


def test_deferred_functions_run_in_the_loop_s_thread_in_order(base: EventBase) -> None:
    ran: list[tuple[int | None, int]] = []
    with Running(base) as thread:
        for number in range(100):
            base.defer(lambda number=number: ran.append((threading.get_ident(), number)))  # type: ignore[misc]
        eventually(lambda: len(ran) == 100)
        assert ran == [(thread.ident, number) for number in range(100)]


def test_of_ten_thousand_deferred_functions_from_four_threads_none_is_lost(
    backend_base: EventBase,
) -> None:
    ran: list[tuple[int, int]] = []

    def defer_all(thread: int) -> None:
        for number in range(2500):
            backend_base.defer(ran.append, (thread, number))

    with Running(backend_base):
        threads = [Thread(defer_all, thread) for thread in range(4)]
        for thread in threads:
            thread.join()
        eventually(lambda: len(ran) == 10_000)
    for which in range(4):
        assert [number for who, number in ran if who == which] == list(range(2500))


def test_none_is_lost_between_one_loop_and_the_next(base: EventBase) -> None:
    ran: list[int] = []

    def defer_all() -> None:
        for _ in range(2000):
            base.defer(ran.append, 1)

    threads = [Thread(defer_all) for _ in range(2)]
    while len(ran) < 4000:
        base.loopexit(PATIENCE)
        base.loop(LoopFlag.ONCE)
        assert not base.got_exit
    for thread in threads:
        thread.join()
    assert base.dispatch() is False


@pytest.mark.slow
def test_what_wakes_a_loop_may_come_while_it_starts_stops_and_is_closed() -> None:
    """A2: whoever comes too late gets ClosedError, and nobody touches a freed base."""
    run_python(
        """
        import threading
        from libevent_py import ClosedError, EventBase

        stop = False
        bases = [EventBase()]
        errors = []

        def hammer(name, *args):
            while not stop:
                try:
                    getattr(bases[-1], name)(*args)
                except ClosedError:
                    pass
                except BaseException as error:
                    errors.append(error)
                    return

        threads = [
            threading.Thread(target=hammer, args=args)
            for args in [("defer", int), ("loopbreak",), ("loopexit",), ("loopexit", 0.0001)]
        ]
        for thread in threads:
            thread.start()
        for _ in range(300):
            base = EventBase()
            bases.append(base)
            base.dispatch()
            base.once(lambda fd, what: None)
            base.dispatch()
            base.close()
        stop = True
        for thread in threads:
            thread.join()
        assert not errors, errors
        """
    )


# What is refused.


@pytest.mark.parametrize("name", [name for name in USES if name not in WAKING | ASKING])
def test_other_uses_are_refused_while_the_loop_runs_in_another_thread(
    base: EventBase, name: str
) -> None:
    with Running(base), pytest.raises(ThreadError, match="another thread runs"):
        USES[name](base)


@pytest.mark.parametrize("name", sorted(ASKING))
def test_questions_may_be_asked_meanwhile(base: EventBase, name: str) -> None:
    with Running(base):
        USES[name](base)


def test_a_base_can_t_be_closed_while_another_thread_runs_its_loop(base: EventBase) -> None:
    event = Event.timer(base, print)
    with Running(base):
        for function in (base.close, base.reinit, event.close, event.add, event.delete):
            with pytest.raises(ThreadError, match="another thread runs"):
                function()
    assert not base.closed
    assert not event.closed
    closing = Thread(base.close)
    closing.join()
    assert base.closed
    assert event.closed


@pytest.mark.parametrize("name", [name for name in USES if name not in ASKING])
def test_a_base_without_locks_is_its_maker_s_alone(name: str) -> None:
    """A2: nobody could wake it, or even look at it."""
    with EventConfig(flags=EventBaseFlag.NOLOCK) as config, EventBase(config) as base:
        with pytest.raises(ThreadError, match="another thread"):
            Thread(USES[name], base).join()
        with pytest.raises(ThreadError, match="another thread"):
            Thread(base.close).join()
        base.once(lambda fd, what: None)
        assert base.dispatch() is False


def test_one_of_many_threads_gets_the_loop(base: EventBase) -> None:
    """B4: and each of the others an error."""
    outcomes: list[str] = []
    ready = threading.Barrier(8)

    def run() -> None:
        ready.wait(PATIENCE)
        try:
            base.loop(NO_EXIT_ON_EMPTY)
        except (RuntimeError, ThreadError):
            outcomes.append("refused")
        else:
            outcomes.append("ran")

    for _ in range(10):
        outcomes.clear()
        threads = [Thread(run) for _ in range(8)]
        eventually(lambda: len(outcomes) == 7)
        base.loopexit()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["ran"] + ["refused"] * 7


def test_signal_events_are_closed_in_the_main_thread_or_not_at_all(base: EventBase) -> None:
    """C10: only there can Python's handler be set again; nothing is half closed."""
    event = Event.signal(base, signal.SIGUSR1, print).add()
    timer = Event.timer(base, print).add(1000)

    def take_over_and(function: Callable[[], object]) -> None:
        base.take_over()
        function()

    with pytest.raises(ThreadError, match="main thread"):
        Thread(base.close).join()
    for function in (base.close, event.close, event.delete):
        with pytest.raises(ThreadError, match="main thread"):
            Thread(take_over_and, function).join()
    base.take_over()
    assert not base.closed
    assert timer.pending
    assert event.pending
    event.close()
    Thread(base.close).join()
    assert timer.closed


# What is dropped.


def test_an_event_dropped_in_another_thread_is_freed_in_the_loop_s(base: EventBase) -> None:
    freed: list[int] = []

    class Recorded(Event):
        @staticmethod
        def _free(pointer: Any) -> None:
            freed.append(threading.get_ident())
            lib.event_free(pointer)

    events = [Recorded.timer(base, print) for _ in range(100)]
    with Running(base) as thread:
        del events[:50]
        eventually(lambda: len(freed) == 50)
        assert set(freed) == {thread.ident}
    events.clear()
    assert freed[50:] == [threading.get_ident()] * 50


def test_an_event_dropped_in_another_thread_waits_for_a_loop_that_can_t_be_woken() -> None:
    freed: list[int] = []

    class Recorded(Event):
        @staticmethod
        def _free(pointer: Any) -> None:
            freed.append(threading.get_ident())
            lib.event_free(pointer)

    with EventConfig(flags=EventBaseFlag.NOLOCK) as config, EventBase(config) as base:
        events = [Recorded.timer(base, print)]
        Thread(events.clear).join()
        assert freed == []
        base.loop(LoopFlag.NONBLOCK)
        assert freed == [threading.get_ident()]
        events = [Recorded.timer(base, print)]
        Thread(events.clear).join()
    assert freed == [threading.get_ident()] * 2


@VALGRIND_TAKES_LONG
def test_a_base_is_not_freed_while_another_thread_frees_one_of_its_events(valgrind: bool) -> None:
    """C2: an event dereferences its base when it is freed."""
    run_python(
        """
        import threading, warnings
        from libevent_py import Event, EventBase, lib

        warnings.simplefilter("ignore", ResourceWarning)  # it is never added
        made, begun, go_on, order = *(threading.Event() for _ in range(3)), []

        class Slow(Event):
            @staticmethod
            def _free(pointer):
                begun.set()
                assert go_on.wait(60)
                lib.event_free(pointer)
                order.append("event")

        bases, events = [], []

        def make():
            bases.append(EventBase())
            events.append(Slow.timer(bases[0], print))

        def drop():
            assert made.wait(60)
            events.clear()

        making, dropping = threading.Thread(target=make), threading.Thread(target=drop)
        dropping.start()  # first: it must not get the number of a thread that has ended
        making.start()
        making.join(60)  # so that the base has no owner, and whoever drops the event frees it
        base = bases[0]
        made.set()
        assert begun.wait(60)

        def close():
            base.close()
            order.append("base")

        closing = threading.Thread(target=close)
        closing.start()
        closing.join(0.2)
        assert closing.is_alive()
        go_on.set()
        dropping.join(60)
        closing.join(60)
        assert order == ["event", "base"]
        """,
        valgrind=valgrind,
    )


def test_events_dropped_in_many_threads_are_all_freed() -> None:
    """C2: while the loop runs, stops and runs again."""
    run_python(
        """
        import threading
        from libevent_py import Event, EventBase, LoopFlag

        base = EventBase()
        stop = False

        def drop():
            while not stop:
                try:
                    events.pop()
                except IndexError:
                    pass

        events = []
        threads = [threading.Thread(target=drop) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(300):
            events += [Event.timer(base, print) for _ in range(30)]
            base.loop(LoopFlag.NONBLOCK)
        stop = True
        for thread in threads:
            thread.join()
        events.clear()
        base.loop(LoopFlag.NONBLOCK)
        assert not base._ledger, len(base._ledger)
        assert not base._graveyard
        base.close()
        """
    )


def test_a_base_dropped_in_another_thread_is_freed_there(pair: Pair) -> None:
    before = set(os.listdir("/proc/self/fd"))
    base = EventBase()
    Event(base, pair[0], EventFlag.READ, print).add()
    base.loop(LoopFlag.NONBLOCK)
    held = [base]
    del base

    def drop() -> None:
        held.clear()
        gc.collect()

    Thread(drop).join()
    assert set(os.listdir("/proc/self/fd")) == before


# Which thread runs the loop.


def test_a_loop_may_move_from_thread_to_thread(base: EventBase) -> None:
    """A10: and signals reach it whenever it runs in the main thread again."""
    ran: list[int] = []
    for _ in range(3):
        base.once(lambda fd, what: ran.append(threading.get_ident()))
        base.dispatch()
        base.once(lambda fd, what: ran.append(threading.get_ident()))
        Thread(base.dispatch).join()
    assert len(ran) == 6
    assert set(ran[::2]) == {threading.get_ident()}
    assert threading.get_ident() not in ran[1::2]
    handler = signal.signal(signal.SIGALRM, lambda *_: base.loopexit())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert base.loop(NO_EXIT_ON_EMPTY) is True
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert len(base._reactions) <= 4


def test_two_loops_run_in_two_threads_without_disturbing_each_other() -> None:
    counts: list[int] = []

    def run() -> None:
        with EventBase() as base:
            count = 0

            def callback(event: Event, fd: int, what: int) -> None:
                nonlocal count
                count += 1
                if count < 3000:
                    event.active()

            event = Event.user(base, callback)
            event.active()
            base.dispatch()
            counts.append(count)

    threads = [Thread(run) for _ in range(4)]
    for thread in threads:
        thread.join()
    assert counts == [3000] * 4


def test_a_process_may_end_while_a_daemon_thread_runs_a_loop() -> None:
    run_python(
        """
        import threading
        import time
        from libevent_py import Event, EventBase

        base = EventBase()
        event = Event.timer(base, lambda *_: None, persist=True).add(0.0001)
        threading.Thread(target=base.dispatch, daemon=True).start()
        other = EventBase()
        busy = Event.user(other, lambda event, fd, what: event.active())
        busy.active()
        threading.Thread(target=other.dispatch, daemon=True).start()
        time.sleep(0.2)
        """
    )


def test_closed_says_so_in_every_thread(base: EventBase) -> None:
    base.close()
    for name in sorted(WAKING):
        with pytest.raises(ClosedError):
            Thread(USES[name], base).join()
