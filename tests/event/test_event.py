"""`Event`: what makes it fire and how, and rules C1 to C12 of what libevent does with events.

Signals are in ``test_event_signals``, lifetimes in ``test_event_lifetime``, bad input in
``test_event_misuse``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    ClosedError,
    Event,
    EventBase,
    EventBaseCount,
    EventFeature,
    EventFlag,
    LibeventError,
    ThreadError,
)
from libevent_py._core.convert import MAX_SECONDS
from tests.kit.flags import CLOSED, ET, NONBLOCK, ONCE, PERSIST, READ, SIGNAL, TIMEOUT, WRITE
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import Pair
from tests.kit.support import PATIENCE, run_python


class Fired(list[tuple[Event, int, EventFlag]]):
    """A callback that notes how it was called."""

    def __call__(self, event: Event, fd: int, what: EventFlag) -> None:
        self.append((event, fd, what))

    @property
    def what(self) -> list[EventFlag]:
        return [what for _, _, what in self]


def ignore(event: Event, fd: int, what: EventFlag) -> None:
    pass


# What makes an event fire, and how often.


def test_a_timer_fires_once_after_its_timeout(base: EventBase) -> None:
    fired = Fired()
    began = time.monotonic()
    event = Event.timer(base, fired).add(0.02)
    assert not base.dispatch()
    assert time.monotonic() - began >= 0.01  # its clock is a coarse one
    assert fired == [(event, -1, TIMEOUT)]
    assert event.pending == 0
    assert event.expires is None


def test_a_persistent_timer_fires_until_it_is_deleted(base: EventBase) -> None:
    fired = []

    def fire(event: Event, fd: int, what: EventFlag) -> None:
        fired.append(what)
        assert event.pending == TIMEOUT
        if len(fired) == 3:
            event.delete()

    Event.timer(base, fire, persist=True).add(0.001)
    assert not base.dispatch()
    assert fired == [TIMEOUT] * 3


def test_a_timeout_of_none_does_not_make_a_timer_wait(base: EventBase) -> None:
    event = Event.timer(base, ignore, persist=True)
    assert event.add() is event
    assert event.pending == 0
    assert not base.dispatch()


def test_a_descriptor_fires_for_what_it_is_ready_for(backend_base: EventBase, pair: Pair) -> None:
    left, right = pair
    fired = Fired()
    reads = Event(backend_base, left, READ, fired).add()
    writes = Event(backend_base, left.fileno(), WRITE, fired).add()
    backend_base.loop(NONBLOCK)
    assert fired == [(writes, left.fileno(), WRITE)]
    right.send(b"x")
    backend_base.loop(NONBLOCK)
    assert fired[1:] == [(reads, left.fileno(), READ)]
    assert not backend_base.dispatch()


def test_an_event_for_reading_and_writing_fires_for_both_at_once(
    backend_base: EventBase, pair: Pair
) -> None:
    fired = Fired()
    Event(backend_base, pair[0], READ | WRITE, fired).add()
    pair[1].send(b"x")
    backend_base.loop(NONBLOCK)
    assert fired.what == [READ | WRITE]


def test_a_descriptor_that_is_not_ready_fires_for_its_timeout(
    backend_base: EventBase, pair: Pair
) -> None:
    fired = Fired()
    event = Event(backend_base, pair[0], READ, fired).add(0.001)
    assert event.pending == READ | TIMEOUT
    assert not backend_base.dispatch()
    assert fired.what == [TIMEOUT]


def test_a_persistent_event_on_a_descriptor_starts_its_timeout_anew(
    base: EventBase, pair: Pair
) -> None:
    fired = Fired()
    event = Event(base, pair[0], READ | PERSIST, fired).add(0.001)
    while len(fired) < 3:
        base.loop(ONCE)
    assert set(fired.what) == {TIMEOUT}
    assert event.pending == READ | TIMEOUT


def test_an_edge_triggered_event_fires_once_for_each_arrival(base: EventBase, pair: Pair) -> None:
    fired = Fired()
    Event(base, pair[0], READ | ET | PERSIST, fired).add()
    pair[1].send(b"x")
    base.loop(NONBLOCK)
    base.loop(NONBLOCK)
    assert fired.what == [READ | ET]
    pair[1].send(b"y")
    base.loop(NONBLOCK)
    assert fired.what == [READ | ET] * 2


def test_a_non_persistent_event_may_be_added_again_in_its_callback(
    base: EventBase, pair: Pair
) -> None:
    fired = []

    def fire(event: Event, fd: int, what: EventFlag) -> None:
        assert event.pending == 0
        fired.append(what)
        if len(fired) < 3:
            event.add()

    Event(base, pair[0], WRITE, fire).add()
    assert not base.dispatch()
    assert fired == [WRITE] * 3


def test_a_callback_that_raises_leaves_its_persistent_event_pending(
    base: EventBase, pair: Pair
) -> None:
    def fail(event: Event, fd: int, what: EventFlag) -> None:
        raise LookupError

    event = Event(base, pair[0], WRITE | PERSIST, fail).add()
    for _ in range(3):
        with pytest.raises(LookupError):
            base.dispatch()
        assert event.pending == WRITE
    event.delete()
    assert not base.dispatch()


def test_a_callback_may_be_replaced_while_its_event_is_pending(base: EventBase) -> None:
    first, second = Fired(), Fired()
    event = Event.timer(base, first, persist=True).add(0.001)
    base.loop(ONCE)
    event.callback = second
    assert event.callback is second
    base.loop(ONCE)
    assert len(first) == len(second) == 1


def test_a_callback_may_replace_itself(base: EventBase) -> None:
    second = Fired()

    def first(event: Event, fd: int, what: EventFlag) -> None:
        event.callback = second
        event.active(READ)

    Event.user(base, first).active()
    base.dispatch()
    assert second.what == [READ]


def test_a_user_event_fires_when_it_is_made_active(base: EventBase) -> None:
    fired = Fired()
    event = Event.user(base, fired)
    event.active()
    assert event.pending == TIMEOUT
    assert not base.dispatch()
    assert fired == [(event, -1, TIMEOUT)]
    assert event.pending == 0


def test_several_activations_before_the_loop_are_one(base: EventBase) -> None:
    fired = Fired()
    event = Event.user(base, fired)
    event.active(READ)
    event.active(WRITE)
    assert event.pending == READ | WRITE
    base.dispatch()
    assert fired.what == [READ | WRITE]


def test_more_urgent_events_fire_first(base: EventBase) -> None:
    fired = []
    with EventBase(priorities=3) as base:
        for priority in (2, 0, 1):
            Event(base, -1, 0, lambda ev, *_: fired.append(ev.priority), priority=priority).active()
        base.dispatch()
    assert fired == [0, 1, 2]


def test_the_priority_cannot_be_changed_while_the_event_is_active() -> None:
    with EventBase(priorities=3) as base:
        event = Event.user(base, ignore)
        assert event.priority == 1
        event.priority = 2
        event.active()
        with pytest.raises(LibeventError, match="event_priority_set"):
            event.priority = 0
        assert event.priority == 2
        event.callback = lambda event, *_: setattr(event, "priority", 0)
        base.dispatch()
        assert event.priority == 0


def test_an_event_says_what_it_is(base: EventBase, pair: Pair) -> None:
    event = Event(base, pair[0], READ | PERSIST | ET, ignore)
    assert event.fd == pair[0].fileno()
    assert event.signum is None
    assert event.what == READ | PERSIST | ET
    assert event.base is base
    assert event.callback is ignore
    assert event.priority == 0
    assert event.initialized
    assert event.pending == 0
    assert not event.closed


def test_expires_is_the_unix_time_of_the_timeout(base: EventBase) -> None:
    event = Event.timer(base, ignore)
    assert event.expires is None
    event.add(1000)
    assert event.expires == pytest.approx(time.time() + 1000, abs=60)
    event.delete()
    assert event.expires is None


def test_removing_the_timer_leaves_an_event_waiting_for_its_descriptor(
    base: EventBase, pair: Pair
) -> None:
    fired = Fired()
    event = Event(base, pair[0], READ | PERSIST, fired).add(0.001)
    event.remove_timer()
    assert event.pending == READ
    assert event.expires is None
    base.loopexit(0.02)
    base.dispatch()
    assert fired == []
    pair[1].send(b"x")
    base.loop(ONCE)
    assert fired.what == [READ]


def test_removing_the_timer_of_a_timer_deletes_it(base: EventBase) -> None:
    event = Event.timer(base, ignore, persist=True).add(60)
    event.remove_timer()
    assert event.pending == 0
    assert base._live == {}
    event.remove_timer()


@pytest.mark.parametrize(
    "other", [object(), 7, EventBase.__new__(EventBase)], ids=["object", "int", "unmade"]
)
def test_a_base_that_is_replaced_by_something_else_is_told(base: EventBase, other: Any) -> None:
    def replace(event: Event, fd: int, what: int) -> None:
        event.base = other

    event = Event.timer(base, replace).add(0.0001)
    with pytest.raises(TypeError, match="an event's base must be an EventBase, not an object of"):
        base.dispatch()
    event.base = base


def test_the_longest_timeout_waits(base: EventBase) -> None:
    fired = Fired()
    event = Event.timer(base, fired).add(MAX_SECONDS)
    base.loopexit(0.02)
    assert base.dispatch()
    assert fired == []
    assert event.expires is not None and event.expires > time.time() + MAX_SECONDS - 100


def test_events_of_a_base_can_be_listed_and_changed_in_a_callback(
    base: EventBase, pair: Pair
) -> None:
    seen = []

    def fire(event: Event, fd: int, what: EventFlag) -> None:
        seen.append(set(base.events()))
        assert base.running_event is event
        assert f" {pair[0].fileno()}] Read" in base.dump_events()
        for other in base.events():
            other.delete()
        seen.append(set(base.events()))
        assert f" {pair[0].fileno()}] Read" not in base.dump_events()

    waiting = Event(base, pair[0], READ, fire).add()
    ticking = Event.timer(base, fire, persist=True).add(0.001)
    assert set(base.events()) == {waiting, ticking}
    assert not base.dispatch()
    assert seen == [{waiting, ticking}, set()]
    assert base.running_event is None


def test_an_event_that_fires_for_the_last_time_is_not_listed(base: EventBase) -> None:
    seen = []
    Event.timer(base, lambda *_: seen.append(base.events())).add(0)
    base.dispatch()
    assert seen == [[]]


def test_an_event_is_closed_at_the_end_of_a_with_statement(base: EventBase) -> None:
    with Event.timer(base, ignore).add(60) as event:
        assert event.pending == TIMEOUT
    assert event.closed
    with pytest.raises(ClosedError), event:
        pass
    assert base._live == base._ledger == {}


# The rules.


@pytest.mark.parametrize("io", [READ, WRITE, CLOSED, READ | WRITE | CLOSED], ids=str)
def test_a_signal_event_cannot_wait_for_a_descriptor(base: EventBase, io: EventFlag) -> None:
    """C1: SIGNAL beside READ, WRITE or CLOSED is refused."""
    with pytest.raises(ValueError, match="what can't have SIGNAL beside"):
        Event(base, 1, SIGNAL | io, ignore)
    assert base._ledger == {}


@pytest.mark.parametrize("what", [READ, WRITE, CLOSED, READ | PERSIST | ET], ids=str)
def test_a_negative_descriptor_is_refused_when_the_event_is_made(
    base: EventBase, what: EventFlag
) -> None:
    """C1: C takes -1 with READ and never fires."""
    with pytest.raises(ValueError, match="fd must be an open file descriptor, not -1"):
        Event(base, -1, what, ignore)
    assert base._ledger == {}


def test_a_bad_signal_or_a_huge_descriptor_is_refused_when_the_event_is_made(
    base: EventBase,
) -> None:
    """C1: C finds out in event_add, which reserves memory for each number up to the huge one."""
    with pytest.raises(ValueError, match="signum must be a signal"):
        Event(base, 10_000, SIGNAL, ignore)
    with pytest.raises(OSError, match=f"fd {2**31 - 1}: Bad file descriptor"):
        Event(base, 2**31 - 1, READ, ignore)
    assert base._ledger == {}


@VALGRIND_TAKES_LONG
def test_events_and_their_base_may_be_closed_in_any_order(valgrind: bool) -> None:
    """C2: event_free dereferences the base, and a second event_free the event."""
    run_python(
        """
        import gc, itertools, signal
        from libevent_py import Event, EventBase

        def make(base):
            return [
                Event.timer(base, print).add(60),
                Event.timer(base, print),
                Event.signal(base, signal.SIGUSR1, print).add(),
                Event.user(base, print),
            ]

        for order in itertools.permutations(range(5)):
            base = EventBase()
            for number in (4, *order, *order):
                if number == 4:
                    events = make(base) if not base._ledger else events
                    continue
                events[number].close()
            base.close()

        base = EventBase()
        events = make(base)
        base.close()
        for event in events:
            assert event.closed
            event.close()
        del base, events, event
        gc.collect()

        base = EventBase()
        events = make(base)
        del base
        gc.collect()
        events[0].close()
        events[0].base.close()
        del events
        gc.collect()

        events = make(EventBase())
        del events  # and the base with them
        gc.collect()
        """,
        valgrind=valgrind,
    )


@pytest.mark.parametrize("persist", [False, True])
def test_a_pending_event_keeps_itself_alive(base: EventBase, pair: Pair, persist: bool) -> None:
    """C3: an event that nobody holds fires, and goes when it can't fire any more."""
    fired = []

    def fire(event: Event, fd: int, what: EventFlag) -> None:
        fired.append(what)
        if persist:
            event.delete()

    stay = PERSIST if persist else 0
    Event(base, pair[0], WRITE | stay, fire).add()
    Event(base, -1, stay, fire).add(0.001)
    Event(base, -1, stay, fire).add(base.init_common_timeout(0.001))
    Event(base, pair[1], READ | stay, fire).active(READ)
    assert len(base._live) == 4
    while base.loop(ONCE):
        pass
    assert sorted(fired) == sorted([WRITE, TIMEOUT, TIMEOUT, READ])
    assert base._live == base._ledger == {}


def test_another_thread_cannot_delete_an_event_whose_callback_runs(base: EventBase) -> None:
    """C4: C would block until the callback ends, here for ever: it waits for that thread."""
    raised = []
    done = threading.Event()

    def fire(event: Event, fd: int, what: EventFlag) -> None:
        def delete() -> None:
            for block in (None, True, False):
                try:
                    event.delete(block=block)
                except ThreadError as error:
                    raised.append(error)
            done.set()

        thread = threading.Thread(target=delete)
        thread.start()
        assert done.wait(PATIENCE)
        thread.join()
        event.delete()

    Event.timer(base, fire, persist=True).add(0)
    assert not base.dispatch()
    assert len(raised) == 3


@pytest.mark.parametrize("block", [None, True, False])
def test_an_active_event_that_is_deleted_does_not_fire(base: EventBase, block: bool | None) -> None:
    """C4: once event_del has returned, the callback is not called."""
    events: list[Event] = []

    def fire(event: Event, fd: int, what: EventFlag) -> None:
        events.remove(event)
        for other in events:
            other.delete(block=block)

    events += [Event.timer(base, fire, persist=True).add(0) for _ in range(3)]
    for event in events:
        event.active()
    base.loop(NONBLOCK)
    assert len(events) == 2
    assert not base.dispatch()


def test_adding_a_pending_event_replaces_its_timeout(base: EventBase) -> None:
    """C5: a new timeout replaces the old one."""
    event = Event.timer(base, ignore).add(1000)
    assert event.add(5000).expires == pytest.approx(time.time() + 5000, abs=60)
    event.add(0.001)
    assert not base.dispatch()


def test_adding_a_pending_event_without_a_timeout_leaves_the_old_one(
    base: EventBase, pair: Pair
) -> None:
    """C5: None leaves the old timeout."""
    timer = Event.timer(base, ignore).add(1000)
    assert timer.add().pending == TIMEOUT
    event = Event(base, pair[0], READ, ignore).add(1000)
    expires = event.expires
    assert event.add().pending == READ | TIMEOUT
    assert event.expires == pytest.approx(expires, abs=1)


def test_a_new_timeout_takes_an_event_back_that_is_active_for_its_timeout(base: EventBase) -> None:
    """C5: it leaves the active queue, and fires when the new timeout ends."""
    fired = Fired()
    event = Event.timer(base, fired)
    event.active(TIMEOUT)
    event.add(60)
    base.loop(NONBLOCK)
    assert fired == []
    assert event.pending == TIMEOUT
    event.active(READ)
    event.add(60)
    base.loop(NONBLOCK)
    assert fired.what == [READ]


def test_a_refused_event_is_not_half_added(tmp_path: Path) -> None:
    """C5: epoll refuses a regular file; the error names the descriptor, and nothing is pending."""
    with EventBase() as base, open(tmp_path / "file", "wb") as file:
        assert base.method == "epoll"
        event = Event(base, file, READ | PERSIST, ignore)
        for timeout in (None, 1, base.init_common_timeout(5)):
            with pytest.raises(PermissionError, match=f"event_add: fd {file.fileno()} with epoll"):
                event.add(timeout)
            assert event.pending == 0
            assert base._live == {}
            assert base.events() == []
            assert f" {file.fileno()}] Read" not in base.dump_events()
        assert base.num_events(EventBaseCount.ADDED) == 0
        assert not base.loop(NONBLOCK)


@pytest.mark.parametrize("method", ["poll", "select"])
def test_a_regular_file_is_always_ready_without_epoll(method: str, tmp_path: Path) -> None:
    """C5: only epoll refuses it."""
    run_python(
        """
        import sys
        from libevent_py import Event, EventBase, EventConfig, EventFlag

        method, path = sys.argv[1:]
        avoid = [name for name in EventBase.supported_methods() if name != method]
        with EventBase(EventConfig(avoid=avoid)) as base, open(path, "w+b") as file:
            both = EventFlag.READ | EventFlag.WRITE
            fired = []
            Event(base, file, both, lambda event, fd, what: fired.append(what)).add()
            assert not base.dispatch()
            assert fired == [both]
        """,
        method,
        str(tmp_path / "file"),
    )


def test_a_finalizer_runs_once_from_the_loop(base: EventBase) -> None:
    """C6: the event is closed at once, and finalized when its callback can't run any more."""
    finalized: list[Event] = []
    event = Event.timer(base, ignore, persist=True).add(60)
    event.close(finalize=finalized.append)
    assert event.closed
    assert finalized == []
    event.close(finalize=finalized.append)
    base.loop(NONBLOCK)
    assert finalized == [event]
    base.loop(NONBLOCK)
    assert finalized == [event]
    assert base._live == base._ledger == {}


def test_an_event_that_is_to_be_finalized_cannot_wait_again(base: EventBase, pair: Pair) -> None:
    """C6: it ignores add, delete and active in C; here they raise, in the finalizer too."""

    def finalize(event: Event) -> None:
        finalized.append(event)
        for use in (
            event.add,
            event.delete,
            event.active,
            event.remove_timer,
            lambda: event.pending,
        ):
            with pytest.raises(ClosedError):
                use()

    finalized: list[Event] = []
    event = Event(base, pair[0], WRITE | PERSIST, ignore).add()
    event.close(finalize)
    for use in (event.add, event.delete, event.active, event.remove_timer, lambda: event.pending):
        with pytest.raises(ClosedError):
            use()
    assert not base.dispatch()
    assert finalized == [event]


def test_a_finalizer_that_the_loop_has_not_run_runs_when_the_base_is_closed() -> None:
    """C6: event_base_free runs it."""
    finalized: list[Event] = []
    with EventBase() as base:
        for _ in range(3):
            Event.timer(base, ignore).add(60).close(finalize=finalized.append)
    assert len(finalized) == 3


def test_failing_to_call_once_leaves_the_base_unlocked(tmp_path: Path) -> None:
    """C7: event_base_once would leave its lock taken, and this thread wait for ever."""
    done = threading.Event()
    with EventBase() as base, open(tmp_path / "file", "wb") as file:
        assert base.method == "epoll"
        with pytest.raises(PermissionError, match=f"event_base_once: fd {file.fileno()}"):
            base.once(print, fd=file, what=READ)

        def use() -> None:
            base.defer(done.set)
            done.set()

        thread = threading.Thread(target=use, daemon=True)
        thread.start()
        assert done.wait(PATIENCE)
        thread.join()
        assert base._once_callbacks == {}


def test_an_event_may_be_active_without_being_added(base: EventBase, pair: Pair) -> None:
    """C8: it fires once for what was said, is alive until then, and goes."""
    fired = Fired()
    Event(base, pair[0], READ | PERSIST, fired).active(WRITE | CLOSED)
    Event.timer(base, fired, persist=True).active()
    base.loop(NONBLOCK)
    assert sorted(fired.what) == sorted([WRITE | CLOSED, TIMEOUT])
    fired.clear()
    assert base._live == base._ledger == {}


def test_an_active_event_is_not_added_but_for_a_timeout(base: EventBase, pair: Pair) -> None:
    """C5, C8: as in C, what is active is not added to what waits; so it goes once it has fired."""
    fired = Fired()
    for timeout in (None, 60):
        event = Event(base, pair[0], READ | PERSIST, fired)
        event.active(READ)
        event.add(timeout)
        base.loop(NONBLOCK)
        assert fired.what == [READ]
        assert event.pending == (READ | TIMEOUT if timeout else 0)
        event.delete()
        fired.clear()
    event = Event(base, pair[0], READ | PERSIST, fired)
    event.active(READ)
    event.add()
    del event
    base.loop(NONBLOCK)
    assert fired.what == [READ]
    fired.clear()
    assert base._live == {}


def test_an_active_event_is_dropped_when_its_base_is_closed() -> None:
    """C8: events made active before the base is closed and not run are dropped."""
    fired = Fired()
    base = EventBase()
    Event.user(base, fired).active()
    Event.timer(base, fired).add(0)
    base.close()
    assert fired == []


def test_what_would_corrupt_the_base_is_not_there() -> None:
    """C9: no event can be assigned anew or moved to another base while it is pending."""
    bound = {name for name in dir(Event) if not name.startswith("_")}
    assert bound.isdisjoint({"assign", "set", "base_set", "debug_unassign", "self_cbarg"})


def test_libevents_debug_mode_finds_nothing_to_complain_about() -> None:
    """C9: debug mode ends the process when an event is used in an illegal order."""
    run_python(
        """
        import signal, socket
        from libevent_py import Event, EventBase, EventFlag, LoopFlag, debug

        debug.enable_debug_mode()
        base = EventBase()
        left, right = socket.socketpair()
        left.setblocking(False)
        fired = []
        kinds = [
            Event(base, left, EventFlag.WRITE, lambda *_: fired.append("write")),
            Event(base, left, EventFlag.WRITE | EventFlag.PERSIST, lambda ev, *_: ev.delete()),
            Event.timer(base, lambda ev, *_: ev.close()),
            Event.timer(base, lambda ev, *_: ev.close(finalize=lambda ev: fired.append("end"))),
            Event.signal(base, signal.SIGUSR1, lambda ev, *_: ev.delete()),
            Event.user(base, lambda ev, *_: ev.close()),
        ]
        for turn in range(2):
            for event in kinds:
                if not event.closed:
                    event.add(0)
                    event.active(EventFlag.TIMEOUT, 3)
            base.loop(LoopFlag.NONBLOCK)
        for event in kinds:
            event.close()
        base.once(lambda *_: None)
        base.dispatch()
        base.close()
        left.close(), right.close()
        assert fired == ["write", "end", "write"], fired
        """
    )


def test_an_event_may_close_itself_in_its_callback() -> None:
    """C11: normal, persistent and signal events, with more calls to come and without."""
    run_python(
        """
        import itertools, signal, socket
        from libevent_py import Event, EventBase, EventFlag, LoopFlag

        def fire(event, fd, what):
            fired.append(what)
            event.close(finalize=finalized.append if finalize else None)
            bytearray(200)  # where freed memory is used again
            assert event.closed

        for persist, finalize in itertools.product((0, EventFlag.PERSIST), (False, True)):
            fired, finalized = [], []
            left, right = socket.socketpair()
            with EventBase() as base, left, right:
                Event(base, left, EventFlag.WRITE | persist, fire).add()
                Event(base, -1, persist, fire).add(0)
                Event(base, -1, persist, fire).active()
                Event(base, signal.SIGUSR1, EventFlag.SIGNAL | persist, fire).add()
                signal.raise_signal(signal.SIGUSR1)
                for calls in 1, 2, 3:
                    other = Event(base, signal.SIGUSR2, EventFlag.SIGNAL | persist, fire).add()
                    other.active(EventFlag.SIGNAL, calls)
                    del other
                while base.loop(LoopFlag.NONBLOCK):
                    pass
                assert len(fired) == 7, fired
                assert len(finalized) == 7 * finalize, finalized
                finalized.clear()
                assert base._live == base._ledger == {}, base._live
        """,
        valgrind=True,
    )


def test_an_event_may_close_another_in_its_callback() -> None:
    """C11: whether the other is pending, active or neither."""
    run_python(
        """
        import signal, socket
        from libevent_py import Event, EventBase, EventFlag, LoopFlag

        READ, WRITE, PERSIST = EventFlag.READ, EventFlag.WRITE, EventFlag.PERSIST

        def fire(event, fd, what):
            fired.append(what)
            for other in others:
                other.close(finalize=finalized.append if finalize else None)

        for finalize in False, True:
            fired, finalized = [], []
            left, right = socket.socketpair()
            with EventBase(priorities=2) as base, left, right:
                others = [
                    Event(base, left, WRITE, fire).add(),
                    Event(base, left, READ | PERSIST, fire).add(),
                    Event.timer(base, fire).add(0),
                    Event.timer(base, fire, persist=True).add(60),
                    Event.signal(base, signal.SIGUSR1, fire).add(),
                    Event.user(base, fire),
                    Event.user(base, fire),
                ]
                others[4].active(EventFlag.SIGNAL, 3)
                others[5].active()
                Event(base, -1, 0, fire, priority=0).active()
                while base.loop(LoopFlag.NONBLOCK):
                    pass
                assert len(fired) == 1, fired
                assert len(finalized) == len(others) * finalize, finalized
        """,
        valgrind=True,
    )


def test_closed_fires_when_the_peer_closes_where_the_backend_can_tell(
    backend_base: EventBase, pair: Pair
) -> None:
    """C12: on epoll and poll, although there is something to read; on select never."""
    fired = Fired()
    Event(backend_base, pair[0], CLOSED, fired).add()
    pair[1].send(b"unread")
    assert backend_base.loop(NONBLOCK)
    assert fired == []
    pair[1].close()
    backend_base.loop(NONBLOCK)
    early = EventFeature.EARLY_CLOSE in backend_base.features
    assert early == (backend_base.method != "select")
    assert fired.what == ([CLOSED] if early else [])


def test_mixing_edge_and_level_triggered_events_fails_in_debug_mode() -> None:
    """C12: 2.1.12 only looks in debug mode; what is refused there is not half-added."""
    run_python(
        """
        import itertools, socket
        from libevent_py import Event, EventBase, EventFlag, LibeventError, LoopFlag, debug

        debug.enable_debug_mode()
        READ, WRITE, ET = EventFlag.READ, EventFlag.WRITE, EventFlag.ET
        left, right = socket.socketpair()
        left.setblocking(False)
        with EventBase() as base, left, right:
            for first, second in itertools.product((READ, WRITE), repeat=2):
                for one, other in ((ET, 0), (0, ET)):
                    fired = []
                    note = lambda event, fd, what: fired.append(what)
                    good = Event(base, left, first | one, note).add()
                    bad = Event(base, left, second | other, note)
                    for timeout in (None, 0.0, base.init_common_timeout(9)):
                        try:
                            bad.add(timeout)
                        except LibeventError as error:
                            assert f"event_add: fd {left.fileno()}" in str(error), error
                        else:
                            raise AssertionError("it was added")
                        assert bad.pending == 0
                        assert base.events() == [good]
                    good.close()
                    bad.add()
                    assert base.events() == [bad]
                    right.send(b"x")
                    base.loop(LoopFlag.NONBLOCK)
                    left.recv(1)
                    assert fired == [second | other]
        """
    )


@pytest.mark.slow
def test_a_descriptor_takes_no_more_events_than_libevent_can_count(
    base: EventBase, pair: Pair
) -> None:
    """C12: at most 65535 events per descriptor and direction."""
    events = [Event(base, pair[0], READ, ignore).add() for _ in range(65535)]
    one_more = Event(base, pair[0], READ, ignore)
    with pytest.raises(LibeventError, match=f"event_add: fd {pair[0].fileno()}"):
        one_more.add()
    assert one_more.pending == 0
    assert one_more._key not in base._live
    events.pop().close()
    one_more.add()
    assert len(base._live) == 65535


USES: dict[str, Callable[[Event], object]] = {
    "add": lambda event: event.add(),
    "add with a timeout": lambda event: event.add(1),
    "delete": lambda event: event.delete(),
    "delete without blocking": lambda event: event.delete(block=False),
    "remove_timer": lambda event: event.remove_timer(),
    "active": lambda event: event.active(),
    "active for reading": lambda event: event.active(READ),
    "pending": lambda event: event.pending,
    "expires": lambda event: event.expires,
    "initialized": lambda event: event.initialized,
    "fd": lambda event: event.fd,
    "what": lambda event: event.what,
    "priority": lambda event: event.priority,
    "set priority": lambda event: setattr(event, "priority", 0),
    "set callback": lambda event: setattr(event, "callback", ignore),
    "pointer": lambda event: event.pointer,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("how", ["closed", "finalizing", "base closed"])
def test_a_closed_event_says_so(use: Callable[[Event], object], how: str) -> None:
    with EventBase() as base:
        event = Event.timer(base, ignore).add(1)
        if how == "closed":
            event.close()
        elif how == "finalizing":
            event.close(finalize=lambda event: None)
        else:
            base.close()
        with pytest.raises(ClosedError, match=r"this Event(Base)? is closed"):
            use(event)
        assert event.closed
        assert "closed" in repr(event)
        assert event.base is base
        event.close()
