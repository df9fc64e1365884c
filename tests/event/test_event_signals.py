"""Signal events: rule C10, what C8 says of their calls, and Python's own handlers beside them."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from libevent_py import (
    ClosedError,
    Event,
    EventBase,
    EventFlag,
    LibeventError,
    ThreadError,
)
from tests.kit.flags import NONBLOCK, ONCE, PERSIST, READ, SIGNAL, TIMEOUT
from tests.kit.support import PATIENCE, run_python

USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


def ignore(event: Event, signum: int, what: EventFlag) -> None:
    pass


class Handled(list[int]):
    """A handler of Python's that notes what it got."""

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.append(signum)


@pytest.fixture(autouse=True)
def handled() -> Iterator[Handled]:
    """What arrives at Python's handlers for SIGUSR1 and SIGUSR2."""
    handled = Handled()
    before = {number: signal.signal(number, handled) for number in (USR1, USR2)}
    yield handled
    for number, handler in before.items():
        signal.signal(number, handler)


def in_thread(function: Callable[[], object]) -> BaseException | None:
    """Run *function* in a thread, and return what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    return raised[0] if raised else None


def disposition(signum: int) -> signal.Handlers | None:
    """Return what the system itself does with *signum*, or None when it is caught."""
    with open("/proc/self/status") as status:
        masks = dict(line.split(":") for line in status)
    if int(masks["SigCgt"], 16) >> (signum - 1) & 1:
        return None
    return signal.Handlers(int(masks["SigIgn"], 16) >> (signum - 1) & 1)


# What fires them.


def test_a_signal_event_fires_instead_of_pythons_handler(
    backend_base: EventBase, handled: Handled
) -> None:
    fired: list[tuple[Event, int, EventFlag]] = []
    event = Event.signal(backend_base, USR1, lambda *call: fired.append(call)).add()
    for _ in range(2):
        signal.raise_signal(USR1)
        backend_base.loop(ONCE)
    assert fired == [(event, USR1, SIGNAL)] * 2
    assert event.pending == SIGNAL
    assert handled == []
    event.delete()
    assert not backend_base.dispatch()


def test_a_signal_event_says_what_it_is(base: EventBase) -> None:
    event = Event.signal(base, USR1, ignore)
    assert (event.signum, event.fd, event.what) == (USR1, -1, SIGNAL | PERSIST)
    assert Event.signal(base, USR1, ignore, persist=False).what == SIGNAL
    assert Event(base, USR1, SIGNAL, ignore).signum == USR1


def test_a_signal_that_comes_twice_before_the_loop_calls_twice(base: EventBase) -> None:
    fired = []
    event = Event.signal(base, USR1, lambda *_: fired.append(1)).add()
    signal.raise_signal(USR1)
    signal.raise_signal(USR1)
    base.loop(NONBLOCK)
    assert len(fired) == 2
    event.delete()


def test_a_signal_event_may_have_a_timeout_which_ends_it(base: EventBase, handled: Handled) -> None:
    """As in C, where the timeout deletes even a persistent one."""
    fired: list[EventFlag] = []
    for persist in (False, True):
        Event.signal(base, USR1, lambda *call: fired.append(call[2]), persist=persist).add(0.001)
        assert not base.dispatch()
        assert base._live == base._ledger == {}
    assert fired == [TIMEOUT, TIMEOUT]
    signal.raise_signal(USR1)
    assert handled == [USR1]


def test_a_non_persistent_signal_event_gives_the_signal_back_when_it_fires(
    base: EventBase, handled: Handled
) -> None:
    fired = []

    def fire(event: Event, signum: int, what: EventFlag) -> None:
        fired.append(what)
        if len(fired) == 1:
            event.add()

    event = Event.signal(base, USR1, fire, persist=False).add()
    for _ in range(2):
        signal.raise_signal(USR1)
        base.loop(ONCE)
    assert fired == [SIGNAL, SIGNAL]
    assert event.pending == 0
    signal.raise_signal(USR1)
    assert handled == [USR1]


def test_sigint_goes_to_its_event(base: EventBase) -> None:
    fired = []
    event = Event.signal(base, signal.SIGINT, lambda *_: fired.append(1)).add()
    signal.raise_signal(signal.SIGINT)
    base.loop(ONCE)
    assert fired == [1]
    event.delete()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_wakes_an_idle_loop(base: EventBase) -> None:
    event = Event.signal(base, USR1, lambda event, *_: event.delete()).add()
    timer = threading.Timer(0.05, os.kill, (os.getpid(), USR1))
    timer.start()
    assert not base.dispatch()
    timer.join()
    assert event.pending == 0


# C8: how often they are called.


@pytest.mark.parametrize("persist", [False, True])
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("ncalls", [1, 2, 5])
def test_a_signal_event_is_called_as_often_as_was_asked(
    base: EventBase, persist: bool, added: bool, ncalls: int
) -> None:
    """C8: ncalls is the number of times that the callback runs."""
    fired: list[EventFlag] = []
    event = Event.signal(base, USR1, lambda *call: fired.append(call[2]), persist=persist)
    if added:
        event.add()
    event.active(SIGNAL, ncalls)
    del event
    base.loop(NONBLOCK)
    assert fired == [SIGNAL] * ncalls
    assert len(base._live) == (added and persist)


def test_ncalls_means_nothing_to_other_events(base: EventBase) -> None:
    """C8: only signal events are called several times."""
    fired = []
    Event.user(base, lambda *_: fired.append(1)).active(READ, 5)
    base.loop(NONBLOCK)
    assert fired == [1]


#: What to do in the second of four calls, how many calls there are then, and whether a persistent
#: event still waits.
MIDWAY: dict[str, tuple[Callable[[Event], object], int, bool]] = {
    "delete": (lambda event: event.delete(), 2, False),
    "close": (lambda event: event.close(), 2, False),
    "finalize": (lambda event: event.close(finalize=id), 2, False),
    "loopbreak": (lambda event: event.base.loopbreak(), 2, True),
    "remove_timer": (lambda event: event.remove_timer(), 4, True),
    "remove_timer, delete": (lambda event: (event.remove_timer(), event.delete()), 2, False),
    "active": (lambda event: event.active(), 5, True),
    "active thrice": (lambda event: event.active(SIGNAL, 3), 7, True),
    "active, delete": (lambda event: (event.active(), event.delete()), 2, False),
    "active, loopbreak": (lambda event: (event.active(), event.base.loopbreak()), 2, True),
    "delete, active": (lambda event: (event.delete(), event.active(SIGNAL, 2)), 4, False),
    "too many": (lambda event: (event.active(SIGNAL, 2**15 - 1), event.delete()), 2, False),
}


@pytest.mark.parametrize("change", MIDWAY)
@pytest.mark.parametrize("persist", [False, True])
def test_what_is_done_in_the_middle_of_its_calls_counts(
    base: EventBase, change: str, persist: bool
) -> None:
    """C8: deleting stops the calls to come, making active adds to them."""
    do, expected, stays = MIDWAY[change]
    calls = 0

    def fire(event: Event, signum: int, what: EventFlag) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            do(event)

    events = [Event.signal(base, USR1, fire, persist=persist).add(60)]
    events[0].active(SIGNAL, 4)
    base.loop(NONBLOCK)
    base.loop(NONBLOCK)
    assert calls == expected
    event = events.pop()
    if not event.closed:
        assert bool(event.pending) == (event._key in base._live) == (persist and stays)
        event.delete()
        event.active(SIGNAL, 2)
        base.loop(NONBLOCK)
        assert calls == expected + 2
    del event
    assert base._live == base._ledger == {}


def test_a_signal_event_may_be_added_again_in_the_middle_of_its_calls(base: EventBase) -> None:
    """C8: deleting stops the calls, and adding has it wait for the signal."""
    fired = []

    def fire(event: Event, signum: int, what: EventFlag) -> None:
        fired.append(what)
        event.delete()
        event.add()

    event = Event.signal(base, USR1, fire).add()
    event.active(READ, 4)
    base.loop(NONBLOCK)
    signal.raise_signal(USR1)
    base.loop(NONBLOCK)
    assert fired == [READ, SIGNAL]
    event.delete()


@pytest.mark.parametrize("persist", [False, True])
def test_all_events_of_a_signal_may_be_made_active_in_the_middle_of_calls(
    base: EventBase, persist: bool
) -> None:
    """C8: libevent would forget the calls to come of the event whose callback runs."""
    fired: list[int] = []

    def fire(event: Event, signum: int, what: EventFlag) -> None:
        if not fired:
            base.active_by_signal(USR1)
            if not persist:
                event.add()
        fired.append(signum)

    event = Event.signal(base, USR1, fire, persist=persist).add()
    other = Event.signal(base, USR1, lambda *_: fired.append(0)).add()
    event.active(SIGNAL, 3)
    base.loop(NONBLOCK)
    assert sorted(fired) == [0] + [USR1] * 4
    event.delete()
    other.delete()


@pytest.mark.parametrize("persist", [False, True])
def test_a_callback_that_raises_ends_the_calls(
    base: EventBase, handled: Handled, persist: bool
) -> None:
    """C8: as loopbreak does; what is not pending any more goes."""

    def fail(event: Event, signum: int, what: EventFlag) -> None:
        raise LookupError

    event = Event.signal(base, USR1, fail, persist=persist).add()
    event.active(SIGNAL, 3)
    with pytest.raises(LookupError):
        base.loop(NONBLOCK)
    assert event.pending == (SIGNAL if persist else 0)
    assert (event._key in base._live) == persist
    base.loop(NONBLOCK)
    event.delete()
    signal.raise_signal(USR1)
    assert handled == [USR1]


def test_deleting_in_the_middle_of_its_calls_leaves_no_pointer_into_the_stack(
    base: EventBase,
) -> None:
    """C11: libevent would write through it when the event is next deleted."""
    event = Event.signal(base, USR1, lambda event, *_: event.delete()).add()
    event.active(SIGNAL, 3)
    base.loop(NONBLOCK)
    calls = event.pointer.ev_.ev_signal
    assert calls.ev_ncalls == 0
    assert not calls.ev_pncalls


def test_reinit_in_the_middle_of_its_calls_leaves_none_either() -> None:
    run_python("""
        import os, signal
        from libevent_py import Event, EventBase, EventFlag, LoopFlag

        def fork(event, signum, what):
            if not children:
                children.append(os.fork())
                if not children[0]:
                    base.reinit()

        children = []
        with EventBase() as base:
            event = Event.signal(base, signal.SIGUSR1, fork).add()
            event.active(EventFlag.SIGNAL, 3)
            base.loop(LoopFlag.NONBLOCK)
            calls = event.pointer.ev_.ev_signal
            assert calls.ev_ncalls == 0
            assert not calls.ev_pncalls
        if children[0]:
            assert os.waitpid(*children, 0)[1] == 0
    """)


def test_removing_the_timer_leaves_the_calls_to_come(base: EventBase) -> None:
    """C8: in C it clears their number, so that the event would go without a call."""
    fired = []
    Event.signal(base, USR1, lambda *_: fired.append(1), persist=False).add(60).active(SIGNAL, 3)
    (event,) = base.events()
    event.remove_timer()
    del event
    base.loop(NONBLOCK)
    assert fired == [1, 1, 1]
    assert base._live == {}


# C10: one base, Python's handlers, the main thread.


def test_only_one_base_has_signal_events(base: EventBase) -> None:
    """C10: adding to a second base would steal all signals from the first."""
    fired = []
    event = Event.signal(base, USR1, lambda *_: fired.append(1)).add()
    with EventBase() as other:
        second = Event.signal(other, USR2, ignore)
        with pytest.raises(LibeventError, match="another event base has signal events pending"):
            second.add()
        assert second.pending == 0
        assert other._live == {}
        signal.raise_signal(USR1)
        base.loop(ONCE)
        assert fired == [1]
        event.delete()
        second.add()
        with pytest.raises(LibeventError):
            event.add()
    event.add().delete()


def test_a_second_base_may_have_signal_events_that_do_not_wait(base: EventBase) -> None:
    """C10: to be active, deleted and closed an event needs no signal handler."""
    event = Event.signal(base, USR1, ignore).add()
    fired: list[Any] = []
    with EventBase() as other:
        idle = Event.signal(other, USR1, lambda *_: fired.append(1))
        idle.active(SIGNAL)
        other.loop(NONBLOCK)
        idle.active(SIGNAL)
        idle.delete()
        idle.active(SIGNAL)
        idle.close()
        idle = Event.signal(other, USR1, ignore)
        idle.active(SIGNAL)
        idle.close(finalize=fired.append)
        Event.signal(other, USR1, ignore).active(SIGNAL)
    assert len(fired) == 2
    assert event.pending == SIGNAL
    event.delete()


def test_pythons_handler_is_back_when_the_last_event_is_deleted(
    base: EventBase, handled: Handled
) -> None:
    """C10: libevent's handler stays until nobody waits for the signal."""
    events = [Event.signal(base, USR1, ignore).add() for _ in range(2)]
    events[0].delete()
    signal.raise_signal(USR1)
    assert handled == []
    base.loop(NONBLOCK)
    events[1].delete()
    signal.raise_signal(USR1)
    assert handled == [USR1]
    assert signal.getsignal(USR1) is handled


ENDS: dict[str, Callable[[Event], object]] = {
    "delete": lambda event: event.delete(),
    "delete without blocking": lambda event: event.delete(block=False),
    "close": lambda event: event.close(),
    "finalize": lambda event: event.close(finalize=id),
    "close the base": lambda event: event.base.close(),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_handler_that_was_set_meanwhile_is_not_lost(end: Callable[[Event], object]) -> None:
    """C10: libevent would restore what was there when the event was added."""
    signal.signal(USR1, signal.SIG_IGN)
    with EventBase() as base:
        event = Event.signal(base, USR1, ignore).add()
        later = Handled()
        signal.signal(USR1, later)
        end(event)
        signal.raise_signal(USR1)
        assert later == [USR1]
        assert signal.getsignal(USR1) is later
        if not base.closed:
            base.loop(NONBLOCK)
    signal.raise_signal(USR1)
    assert later == [USR1, USR1]  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_signal_that_was_ignored_meanwhile_is_ignored(
    handled: Handled, end: Callable[[Event], object]
) -> None:
    """C10: libevent would restore the handler that was there when the event was added."""
    with EventBase() as base:
        event = Event.signal(base, USR1, ignore).add()
        signal.signal(USR1, signal.SIG_IGN)
        end(event)
        assert disposition(USR1) is signal.SIG_IGN
    assert disposition(USR1) is signal.SIG_IGN
    assert handled == []


@pytest.mark.parametrize("ending", ["fires", "raises", "times out"])
def test_a_handler_that_was_set_meanwhile_is_not_lost_when_the_event_ends_by_itself(
    base: EventBase, ending: str
) -> None:
    """C10: a non-persistent event is deleted by libevent, before its callback is called."""
    later = Handled()
    signal.signal(USR1, signal.SIG_IGN)

    def fire(event: Event, signum: int, what: EventFlag) -> None:
        signal.signal(USR1, later)
        if ending == "raises":
            raise LookupError

    event = Event.signal(base, USR1, fire, persist=ending == "times out")
    event.add(0.001 if ending == "times out" else None)
    signal.signal(USR1, later)
    if ending != "times out":
        event.active(SIGNAL)
    try:
        base.dispatch()
    except LookupError:
        assert ending == "raises"
    signal.raise_signal(USR1)
    assert later == [USR1]


def test_pythons_handlers_are_back_when_the_base_is_closed(handled: Handled) -> None:
    """C10: freeing the base restores them."""
    with EventBase() as base:
        for signum in (USR1, USR2):
            Event.signal(base, signum, ignore).add()
    signal.raise_signal(USR1)
    signal.raise_signal(USR2)
    assert handled == [USR1, USR2]


def test_pythons_handlers_are_back_when_the_base_is_dropped() -> None:
    """C10: a base that the collector frees restores them, and lets another have signals."""
    signal.signal(USR1, signal.SIG_IGN)
    base = EventBase()
    Event.signal(base, USR1, ignore).add()
    signal.signal(USR1, later := Handled())
    del base
    gc.collect()
    signal.raise_signal(USR1)
    assert later == [USR1]
    with EventBase() as base:
        Event.signal(base, USR1, ignore).add()


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_disposition_without_a_handler_is_back_too(base: EventBase, handler: Any) -> None:
    """C10: SIG_IGN and SIG_DFL are handlers like any other."""
    signal.signal(USR1, handler)
    event = Event.signal(base, USR1, ignore).add()
    assert signal.getsignal(USR1) == handler
    assert disposition(USR1) is None
    event.delete()
    assert disposition(USR1) is handler


def test_another_thread_cannot_add_or_end_a_signal_event(base: EventBase, handled: Handled) -> None:
    """C10: only the main thread may set Python's handlers."""
    waiting, idle = Event.signal(base, USR1, ignore).add(), Event.signal(base, USR1, ignore)
    for use in (
        idle.add,
        lambda: idle.add(1),
        lambda: idle.add(base.init_common_timeout(1)),
        waiting.delete,
        waiting.close,
        lambda: waiting.close(finalize=id),
    ):
        error = in_thread(lambda use=use: (base.take_over(), use()))  # type: ignore[misc]
        assert isinstance(error, ThreadError), use
        assert "main thread" in str(error)
    assert idle.pending == 0
    assert waiting.pending == SIGNAL
    assert not waiting.closed
    assert in_thread(lambda: (base.take_over(), idle.delete(), idle.close())) is None
    waiting.delete()
    signal.raise_signal(USR1)
    assert handled == [USR1]


def test_another_thread_cannot_close_a_base_that_has_signal_events() -> None:
    """C10: it is refused before anything is closed."""
    base = EventBase()
    event = Event.signal(base, USR1, ignore).add()
    timer = Event.timer(base, ignore).add(60)
    assert isinstance(in_thread(base.close), ThreadError)
    assert not base.closed
    assert event.pending == SIGNAL
    assert timer.pending == TIMEOUT
    event.delete()
    assert in_thread(base.close) is None
    assert base.closed
    with pytest.raises(ClosedError):
        timer.pending  # noqa: B018


def test_a_signal_event_fires_in_a_loop_of_another_thread(
    base: EventBase, handled: Handled
) -> None:
    """C10: added in the main thread, it may be called elsewhere, and fires for the last time."""
    fired: list[threading.Thread] = []
    Event.signal(
        base, USR1, lambda *_: fired.append(threading.current_thread()), persist=False
    ).add()
    signal.raise_signal(USR1)
    assert in_thread(base.dispatch) is None
    assert len(fired) == 1 and fired[0] is not threading.main_thread()
    assert base._live == {}
    signal.raise_signal(USR1)
    assert handled == [USR1]


def test_pythons_handlers_go_on_for_other_signals_while_the_loop_runs(
    base: EventBase, handled: Handled
) -> None:
    """C10: Python's own handlers run beside libevent's."""
    fired = []
    Event.signal(base, USR1, lambda *_: fired.append(1)).add()

    def fire(event: Event, fd: int, what: EventFlag) -> None:
        signal.raise_signal(USR2)
        signal.raise_signal(USR1)

    Event.timer(base, fire).add(0)
    base.loopexit(0.05)
    base.dispatch()
    assert fired == [1]
    assert handled == [USR2]
    base.events()[0].delete()


def test_a_signal_event_in_a_forked_child_is_the_childs_own() -> None:
    """C10: after reinit() it gets the child's signals, and not the parent's."""
    run_python(
        """
        import os, signal
        from libevent_py import Event, EventBase, ForkError, LoopFlag

        base = EventBase()
        fired = []
        event = Event.signal(base, signal.SIGUSR1, lambda *_: fired.append(1)).add()
        child = os.fork()
        if child == 0:
            for use in (lambda: event.pending), event.add, event.delete, event.active:
                try:
                    use()
                except ForkError:
                    pass
                else:
                    os._exit(1)
            base.reinit()
            signal.raise_signal(signal.SIGUSR1)
            base.loop(LoopFlag.ONCE)
            event.delete()
            base.close()
            os._exit(fired != [1])
        assert os.waitpid(child, 0)[1] == 0
        base.loop(LoopFlag.NONBLOCK)
        assert fired == []
        signal.raise_signal(signal.SIGUSR1)
        base.loop(LoopFlag.ONCE)
        assert fired == [1]
        child = os.fork()
        if child == 0:
            event.close()  # leaves the parent's alone
            base.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        signal.raise_signal(signal.SIGUSR1)
        base.loop(LoopFlag.ONCE)
        assert fired == [1, 1]
        base.close()
        """
    )


@pytest.mark.parametrize("closing", [False, True])
@pytest.mark.parametrize("what", [SIGNAL, SIGNAL | PERSIST])
def test_a_child_takes_the_base_where_a_signal_event_calls_back(
    base: EventBase, what: int, closing: bool
) -> None:
    """A8: reinit() adds those that are pending."""
    other = Event.signal(base, signal.SIGUSR2, print).add()
    statuses: list[int] = []

    def fork(event: Event, fd: int, what: int) -> None:
        pid = os.fork()
        if pid:
            statuses.append(os.waitpid(pid, 0)[1])
            return
        status = 1
        try:
            if closing:
                event.close()
            base.reinit()
            status = 0 if other.pending else 2
        finally:
            os._exit(status)

    calling = Event(base, signal.SIGUSR1, what, fork).add()
    calling.active(SIGNAL)
    base.loop(ONCE)
    calling.close()
    other.close()
    assert statuses == [0]
