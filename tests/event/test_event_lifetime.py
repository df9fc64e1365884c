"""How long an `Event` lives: while it is pending by itself, else as long as somebody holds it.

And what Python takes for pending is what libevent does, whatever is done to it, and from where.
"""

from __future__ import annotations

import gc
import random
import re
import signal
import socket
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from libevent_py import ClosedError, Event, EventBase, EventFlag, LoopFlag, debug, errors, ffi, lib
from tests.kit.flags import PERSIST, READ, SIGNAL, TIMEOUT, WRITE
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import Pair
from tests.kit.support import run_python

TURN = LoopFlag.NONBLOCK | LoopFlag.ONCE  # without ONCE a descriptor that is ready goes on for ever


def ignore(event: Event, fd: int, what: EventFlag) -> None:
    pass


@contextmanager
def without_collector() -> Iterator[None]:
    """Let only the last reference free an object."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def assert_live_is_pending(base: EventBase, events: list[Event], after: str = "") -> None:
    """Assert that Python keeps exactly those alive that libevent may call."""
    for event in events:
        if not event.closed:
            assert (event._key in base._live) == bool(event.pending), (after, base.dump_events())


Make = Callable[[EventBase, socket.socket, Callable[..., object]], Event]

KINDS: dict[str, Make] = {
    "timer": lambda base, sock, call: Event.timer(base, call),
    "persistent timer": lambda base, sock, call: Event.timer(base, call, persist=True),
    "writable": lambda base, sock, call: Event(base, sock, WRITE, call),
    "persistent writable": lambda base, sock, call: Event(base, sock, WRITE | PERSIST, call),
    "signal": lambda base, sock, call: Event.signal(base, signal.SIGUSR1, call, persist=False),
    "persistent signal": lambda base, sock, call: Event.signal(base, signal.SIGUSR1, call),
    "user": lambda base, sock, call: Event.user(base, call),
}

CHANGES: dict[str, Callable[[Event], object]] = {
    "add": lambda event: event.add(),
    "add at once": lambda event: event.add(0),
    "add shorter than libevent can": lambda event: event.add(1e-7),
    "add for later": lambda event: event.add(60),
    "add for a common timeout": lambda event: event.add(event.base.init_common_timeout(60)),
    "add twice": lambda event: event.add(60).add(),
    "delete": lambda event: event.delete(),
    "delete and add": lambda event: (event.delete(), event.add(60)),
    "active": lambda event: event.active(),
    "active three times": lambda event: event.active(WRITE, 3),
    "active and added": lambda event: (event.active(WRITE), event.add()),
    "added and active": lambda event: (event.add(0), event.active(WRITE)),
    "active and deleted": lambda event: (event.active(), event.delete()),
    "deleted and active": lambda event: (event.delete(), event.active(WRITE)),
    "remove_timer": lambda event: event.remove_timer(),
    "active without timer": lambda event: (event.active(WRITE), event.remove_timer()),
    "added without timer": lambda event: (event.add(60), event.remove_timer()),
    "priority": lambda event: event.pending or setattr(event, "priority", 0),
    "replaced": lambda event: setattr(event, "callback", ignore),
    "listed": lambda event: (event.base.events(), event.base.dump_events()),
    "close": lambda event: event.close(),
    "finalize": lambda event: event.close(finalize=id),
    "nothing": lambda event: None,
}


def fire_first(event: Event, how: str) -> None:
    if how == "added":
        event.add(0)
    elif how == "added for later":
        event.add(60)
    elif how == "ticking":
        event.add(0.0001)
        event.active(WRITE)
    elif how == "active":
        event.active()
    elif how == "active three times":
        event.active(SIGNAL, 3)


def settles(base: EventBase, events: list[Event], after: str) -> None:
    """Run the loop, and assert that the only one of *events* is as live as libevent says."""
    for _ in range(4):
        base.loop(TURN)
        assert_live_is_pending(base, events, after)


def goes(base: EventBase, events: list[Event]) -> None:
    """Drop the only one of *events*, and assert that it is gone as soon as it isn't pending."""
    with without_collector():
        (event,) = events
        if not event.closed:
            event.delete()
        reference = weakref.ref(event)
        del event
        events.clear()
        assert reference() is None
        assert base._live == base._ledger == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", ["added", "ticking", "active", "active three times"])
def test_whatever_is_done_in_its_own_callback_leaves_nothing_behind(
    base: EventBase, pair: Pair, kind: str, first: str
) -> None:
    for name, change in CHANGES.items():
        calls = 0

        def fire(event: Event, fd: int, what: EventFlag) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                change(event)  # noqa: B023

        events = [KINDS[kind](base, pair[0], fire)]
        fire_first(events[0], first)
        settles(base, events, name)
        assert calls, name
        goes(base, events)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", ["idle", "added", "added for later", "ticking", "active"])
def test_whatever_is_done_in_anothers_callback_leaves_nothing_behind(
    base: EventBase, pair: Pair, kind: str, first: str
) -> None:
    for name, change in CHANGES.items():
        events = [KINDS[kind](base, pair[0], ignore)]
        Event.user(base, lambda *_: change(events[0])).active()  # noqa: B023
        fire_first(events[0], first)
        settles(base, events, name)
        goes(base, events)


@pytest.mark.parametrize("change", ["remove_timer", "add at once", "delete"])
def test_a_timer_that_has_ticked_goes_when_it_has_nothing_to_wait_for(
    base: EventBase, change: str
) -> None:
    fired = []
    events = [Event.timer(base, lambda *call: fired.append(call[2]), persist=True).add(0.0001)]
    while len(fired) < 3:
        base.loop(LoopFlag.ONCE)
    events[0].active(READ)
    CHANGES[change](events[0])
    if change == "delete":
        events[0].add(0).active(READ)
    settles(base, events, change)
    assert events[0].pending == 0
    assert len(fired) in (4, 5)
    goes(base, events)


class Boom(Exception):
    """What a callback raises at random."""


def turn_at_random(rng: random.Random, base: EventBase, sock: socket.socket) -> None:
    """Do anything to events of every kind, in and out of callbacks, and hold them to the rule."""
    common = [base.init_common_timeout(seconds) for seconds in (0, 0.001, 60)]

    def fire(event: Event, fd: int, what: EventFlag) -> None:
        for _ in range(rng.choice((0, 0, 1, 2))):
            do(rng.choice((event, event, *events)))
        if rng.random() < 0.02:
            raise Boom
        if rng.random() < 0.02:
            base.loopbreak()

    def do(event: Event) -> None:
        with suppress(ClosedError):
            match rng.randrange(12):
                case 0 | 1 | 2:
                    event.add(rng.choice((None, 0, 1e-7, 0.0005, 60, *common)))
                case 3 | 4:
                    event.active(rng.choice((TIMEOUT, READ, SIGNAL)), rng.choice((1, 1, 3)))
                case 5 | 6:
                    event.delete()
                case 7:
                    event.remove_timer()
                case 8:
                    base.active_by_fd(sock, WRITE)
                case 9:
                    base.active_by_signal(signal.SIGUSR1)
                case 10 if rng.random() < 0.1:
                    event.close(rng.choice((None, id)))
                case 11 if rng.random() < 0.3:
                    signal.raise_signal(signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        events = [make(base, sock, fire) for make in KINDS.values()]
        for _ in range(60):
            do(rng.choice(events))
            try:
                base.loop(TURN)
            except Boom:
                pass
            except BaseException as several:
                if {type(one) for one in getattr(several, "exceptions", ())} != {Boom}:
                    raise
            assert_live_is_pending(base, events)
        for event in events:
            if not event.closed:
                event.delete()
        base.loop(TURN)
        del event
        events.clear()
        gc.collect()
        assert base._live == base._ledger == {}
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, previous)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_kept_alive_is_what_libevent_may_call(pair: Pair, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(10):
        with EventBase() as base:
            turn_at_random(rng, base, pair[0])


@VALGRIND_TAKES_LONG
def test_nothing_done_at_random_touches_freed_memory(valgrind: bool) -> None:
    run_python(
        """
        import random, socket
        from libevent_py import EventBase
        from tests.event.test_event_lifetime import turn_at_random

        left, right = socket.socketpair()
        left.setblocking(False)
        rng = random.Random(0)
        with left, right:
            for _ in range(3):
                with EventBase() as base:
                    turn_at_random(rng, base, left)
        """,
        valgrind=valgrind,
    )


# Dropped.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", ["made", "deleted", "fired", "raised", "timer removed"])
def test_an_event_that_is_not_pending_goes_with_its_last_reference(
    base: EventBase, pair: Pair, kind: str, before: str
) -> None:
    def fire(event: Event, fd: int, what: EventFlag) -> None:
        event.delete()
        if before == "raised":
            raise Boom

    event = KINDS[kind](base, pair[0], fire)
    if before == "deleted":
        event.add(60).delete()
    elif before == "timer removed":
        event.add(60).remove_timer()
        event.delete()
    elif before != "made":
        event.add(0)
        event.active()
        with suppress(Boom):
            base.loop(TURN)
    with without_collector():
        reference = weakref.ref(event)
        del event
        assert reference() is None
        assert base._ledger == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_pending_event_that_nobody_holds_fires_and_goes(
    base: EventBase, pair: Pair, kind: str
) -> None:
    fired = []

    def fire(event: Event, fd: int, what: EventFlag) -> None:
        fired.append(weakref.ref(event))
        event.delete()

    with without_collector():
        KINDS[kind](base, pair[0], fire).add(0.001).active()
        gc.collect()
        base.loop(TURN)
        assert [reference() for reference in fired] == [None]
        assert base._live == base._ledger == {}


def test_an_event_goes_while_the_loop_runs(base: EventBase) -> None:
    """Not only when it ends: a server runs for weeks."""
    events: list[Any] = []

    def fire(event: Event, fd: int, what: EventFlag) -> None:
        assert [reference() for reference in events[1:]] == [None] * len(events[1:])
        events.insert(0, weakref.ref(event))
        if len(events) < 5:
            Event.timer(base, fire).add(0)

    with without_collector():
        Event.timer(base, fire).add(0)
        base.dispatch()
    assert len(events) == 5


def test_an_event_that_nobody_holds_is_freed_with_its_callback_wherever_that_runs(
    base: EventBase,
) -> None:
    """C frees it, not a finalizer: none of its memory is left, nor more than its own is freed."""
    kept: list[Event] = []

    def fire(event: Event, fd: int, what: EventFlag) -> None:
        with EventBase() as inner:
            for callback in (ignore, lambda event, fd, what: kept.append(event)):
                Event.timer(inner, callback).add(0)
            inner.dispatch()
            assert not kept[-1].closed
            kept[-1].add(0)
            inner.dispatch()
            assert kept[-2] is kept[-1]

    def held_weakly(event: Event, fd: int, what: EventFlag) -> None:
        references.append(weakref.ref(event))
        base.once(lambda *_: seen.append(references[0]()), timeout=0)

    references: list[weakref.ref[Event]] = []
    seen: list[Event | None] = []
    debug.count_memory()
    with without_collector():
        before = 0
        for _ in range(5):
            for callback in (ignore, fire, held_weakly):
                Event.timer(base, callback).add(0)
            base.dispatch()
            kept.clear()
            before = before or debug.memory().blocks
    assert debug.memory().blocks == before
    assert seen == [None] * 5


def test_a_cycle_through_an_idle_event_is_collected(base: EventBase) -> None:
    class Holder:
        def __init__(self) -> None:
            self.event = Event.timer(base, self.fire)

        def fire(self, event: Event, fd: int, what: EventFlag) -> None:
            pass

    holder = Holder()
    reference = weakref.ref(holder)
    holder.event.add(60)
    del holder
    gc.collect()
    assert reference() is not None
    base.events()[0].delete()
    gc.collect()
    assert reference() is None
    assert base._ledger == {}


def test_a_base_that_is_dropped_with_pending_events_is_collected(pair: Pair) -> None:
    base = EventBase()
    reference = weakref.ref(base)
    events = [weakref.ref(make(base, pair[0], ignore).add(60)) for make in KINDS.values()]
    Event.user(base, ignore).active()
    Event.timer(base, ignore).close(finalize=lambda event: None)
    del base
    gc.collect()
    assert reference() is None
    assert [event() for event in events] == [None] * len(KINDS)


def test_an_event_keeps_its_base() -> None:
    fired = []
    event = Event.timer(EventBase(), lambda *_: fired.append(1)).add(0)
    gc.collect()
    event.base.dispatch()
    assert fired == [1]
    event.base.close()


class File:
    """Has a descriptor."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def fileno(self) -> int:
        return self.sock.fileno()


@pytest.mark.parametrize("pending", [False, True])
def test_an_event_keeps_the_object_that_has_its_descriptor(
    base: EventBase, pair: Pair, pending: bool
) -> None:
    with without_collector():
        file = File(pair[0])
        reference = weakref.ref(file)
        events = [Event(base, file, READ, ignore)]
        del file
        assert events[0].fd == pair[0].fileno()
        if pending:
            events.pop().add()
            assert reference() is not None
            pair[1].send(b"x")
            base.loop(TURN)
        else:
            assert reference() is not None
            events.clear()
        assert reference() is None


@VALGRIND_TAKES_LONG
def test_another_thread_may_drop_the_last_reference_while_the_loop_runs(valgrind: bool) -> None:
    run_python(
        """
        import threading
        from libevent_py import Event, EventBase

        with EventBase() as base:
            events = [Event.timer(base, print) for _ in range(1000)]
            done = threading.Event()

            def drop():
                while events:
                    events.pop()
                done.set()

            def fire(event, fd, what):
                if done.is_set():
                    event.delete()

            Event.timer(base, fire, persist=True).add(0.001)
            thread = threading.Thread(target=drop)
            thread.start()
            assert not base.dispatch()
            thread.join()
            assert base._ledger == {}, base._ledger
            assert not base._graveyard
        """,
        valgrind=valgrind,
    )


# Dropped without ever having been of use.


def said(function: Callable[[], object]) -> list[str]:
    """Return the warnings of *function*, and of collecting what it has left."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
        gc.collect()
    assert {warning.category for warning in caught} <= {ResourceWarning}
    assert {warning.filename for warning in caught} <= {__file__}
    return [str(warning.message) for warning in caught]


FORGOTTEN = r"<\w+ at 0x\w+, {}, not pending, calls [^>]*> has been dropped without ever "
FORGOTTEN += r"having been added: call \.add\(\) or \.active\(\), "
FORGOTTEN += r"or \.close\(\) it where there is no need"


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_that_is_dropped_and_was_never_added_is_told_of(
    base: EventBase, pair: Pair, kind: str
) -> None:
    facts = {"timer": "timer", "user": "timer", "persistent timer": "timer, PERSIST"}.get(
        kind, ".*"
    )
    [text] = said(lambda: KINDS[kind](base, pair[0], ignore) and None)
    assert re.fullmatch(FORGOTTEN.format(facts), text), text


def test_so_is_one_that_only_the_collector_finds(base: EventBase) -> None:
    def forget() -> None:
        kept: list[Any] = [Event.timer(base, ignore)]
        kept.append(kept)

    [text] = said(forget)
    assert re.fullmatch(FORGOTTEN.format("timer"), text)


def test_so_is_one_that_another_thread_drops_of_which_c_is_not_asked(base: EventBase) -> None:
    events = [Event.timer(base, ignore)]

    def forget() -> None:
        thread = threading.Thread(target=lambda: events.clear())
        thread.start()
        thread.join()

    [text] = said(forget)
    assert re.fullmatch(r"<Event at 0x\w+, timer, calls .*> has been dropped without .*", text)


def fails(error: type[Exception], function: Callable[..., object], *arguments: Any) -> None:
    with pytest.raises(error):
        function(*arguments)


USES: dict[str, Callable[[EventBase, Event], object]] = {
    "added": lambda base, event: event.add(1000).delete(),
    "added for ever": lambda base, event: event.add(),
    "added for a common timeout": lambda base, event: event.add(base.init_common_timeout(9.0)),
    "fired": lambda base, event: (event.add(0), base.loop(TURN)),
    "active": lambda base, event: (event.active(), base.loop(TURN)),
    "active for something": lambda base, event: (event.active(READ), base.loop(TURN)),
    "deleted": lambda base, event: event.delete(),
    "closed": lambda base, event: event.close(),
    "finalized": lambda base, event: (event.close(finalize=print), base.loop(TURN)),
    "its base closed": lambda base, event: base.close(),
    "added by the raw layer": lambda base, event: lib.event_add(event.pointer, ffi.NULL),
    "refused a timeout": lambda base, event: fails(ValueError, event.add, -1),
    "refused by the backend": lambda base, event: fails(OSError, event.add),
}


@pytest.mark.parametrize("use", USES)
def test_nothing_is_said_of_one_that_somebody_has_tried_to_use(use: str, pair: Pair) -> None:
    """An error has told of what kept it from being added."""
    fd, what = pair[0].fileno(), READ
    with open(__file__, "rb") as file, EventBase(method="epoll") as base:
        if use == "refused by the backend":
            fd = file.fileno()

        def forget() -> None:
            event = Event(base, fd, what, ignore)
            USES[use](base, event)

        assert said(forget) == []


def test_nothing_is_said_where_the_base_goes_with_its_events() -> None:
    """By its last reference, or found by the collector at once with them."""

    def by_reference() -> None:
        base = EventBase()
        events = []
        for _ in range(3):
            events.append(Event.timer(base, ignore))

    def the_only_one() -> None:
        Event.timer(EventBase(), ignore)

    def in_a_cycle() -> None:
        base = EventBase()
        kept: list[Any] = [base, Event.timer(base, ignore), Event.timer(base, ignore)]
        kept.append(kept)

    def by_its_callback() -> None:
        events: list[Event] = []
        events.append(Event.timer(EventBase(), lambda *_: events.clear()))

    for forget in by_reference, the_only_one, in_a_cycle, by_its_callback:
        assert said(forget) == [], forget.__name__


def test_nothing_is_said_of_what_was_never_made_whole(base: EventBase) -> None:
    """The error that kept it from that has been raised, and nobody has had the event."""

    class Failing(Event):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            raise ZeroDivisionError

    def with_a_wrong_priority() -> None:
        with pytest.raises(ValueError):
            Event(base, -1, 0, ignore, priority=99)

    def with_an_init_that_fails() -> None:
        with pytest.raises(ZeroDivisionError):
            Failing(base, -1, 0, ignore)

    assert said(with_a_wrong_priority) == said(with_an_init_that_fails) == []
    [text] = said(lambda: Event(base, -1, 0, ignore, priority=0) and None)
    assert re.fullmatch(FORGOTTEN.format("timer"), text)


def test_a_subclass_without_an_init_of_its_own_is_told_of(base: EventBase) -> None:
    [text] = said(lambda: WithSlots(base, -1, 0, ignore) and None)
    assert re.fullmatch(FORGOTTEN.format("timer"), text)
    assert text.startswith("<WithSlots ")


def test_nothing_is_said_at_exit_nor_in_a_forked_child() -> None:
    run_python(
        """
        import os
        import warnings
        from libevent_py import Event, EventBase, HttpRequest

        warnings.simplefilter("error")
        base = EventBase()
        event, request = Event.timer(base, print), HttpRequest(print)
        pid = os.fork()
        if not pid:
            del event
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """
    )


def test_what_is_said_may_be_an_error_and_the_event_is_freed_all_the_same() -> None:
    run_python(
        """
        import sys
        import warnings
        from libevent_py import Event, EventBase

        warnings.simplefilter("error")
        seen = []
        sys.unraisablehook = lambda unraisable: seen.append(str(unraisable.exc_value))
        with EventBase() as base:
            Event.timer(base, print)
            assert len(seen) == 1 and "call .add()" in seen[0], seen
            assert base._ledger == {}
            Event.timer(base, print).add(0)
            assert not base.dispatch()
        """,
        valgrind=True,
        stderr=None,
    )


# Subclasses.


class WithDict(Event):
    """Has a ``__dict__``."""


class WithSlots(Event):
    __slots__ = ("name",)


class WithInit(Event):
    def __init__(self, *arguments: Any, name: str = "new", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.name = name


class WithRegistry(Event):
    subclasses: list[type] = []  # noqa: RUF012

    def __init_subclass__(cls, *, tag: str) -> None:
        cls.subclasses.append(cls)


class Registered(WithRegistry, tag="needed"):
    __slots__ = ()


class WithDel(Event):
    deleted = 0

    def __del__(self) -> None:
        WithDel.deleted += 1
        super().__del__()


SUBCLASSES = [WithDict, WithSlots, WithInit, WithRegistry, Registered, WithDel]


@pytest.mark.parametrize("subclass", SUBCLASSES)
@pytest.mark.parametrize("how", ["made", "timer", "signal", "user"])
def test_an_event_of_a_subclass_lives_as_any_other(
    base: EventBase, subclass: type[Event], how: str
) -> None:
    fired = []

    def fire(event: Event, fd: int, what: EventFlag) -> None:
        fired.append(type(event))

    def make() -> Event:
        if how == "made":
            return subclass(base, -1, PERSIST, fire)
        if how == "timer":
            return subclass.timer(base, fire, persist=True)
        if how == "signal":
            return subclass.signal(base, signal.SIGUSR1, fire)
        return subclass.user(base, fire)

    event = make()
    event.add(0.0001)
    assert base.events() == [event]
    event.active()
    base.loop(TURN)
    event.delete()
    assert set(fired) == {subclass}
    with without_collector():
        event.close()
        assert event.closed
        assert isinstance(event, subclass)
        with pytest.raises(ClosedError, match=f"this {subclass.__name__} is closed"):
            event.add()
        reference = weakref.ref(event)
        event = make()
        assert reference() is None
        reference = weakref.ref(event)
        del event
        assert reference() is None
    assert base._ledger == {}
    assert [Registered] == WithRegistry.subclasses


def test_attributes_of_a_subclass_stay_when_it_is_closed(base: EventBase) -> None:
    for subclass in (WithDict, WithSlots, WithInit):
        event: Any = subclass.timer(base, ignore)
        event.name = "kept"
        event.close()
        assert event.name == "kept"


def test_a_subclass_makes_its_timers_by_its_own_init(base: EventBase) -> None:
    assert WithInit(base, -1, 0, ignore, name="given").name == "given"
    assert WithInit.timer(base, ignore).name == "new"
    assert WithInit.user(base, ignore).name == "new"
    assert WithInit.signal(base, signal.SIGUSR1, ignore).name == "new"


def test_an_event_that_python_takes_for_false_is_an_event(base: EventBase) -> None:
    class Falsy(Event):
        def __bool__(self) -> bool:
            return False

        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise AssertionError

    fired = []
    event = Falsy.timer(base, lambda event, *_: fired.append(event)).add(0)
    (found,) = base.events()
    assert found is event
    base.dispatch()
    assert fired[0] is event


def test_a_subclass_may_call_itself_back(base: EventBase) -> None:
    class Ticker(Event):
        ticks = 0

        def __init__(self, base: EventBase, seconds: float) -> None:
            super().__init__(base, -1, PERSIST, type(self).tick)  # type: ignore[arg-type]
            self.add(seconds)

        def tick(self, fd: int, what: EventFlag) -> None:
            self.ticks += 1
            if self.ticks == 3:
                self.close()

    with without_collector():
        ticker = Ticker(base, 0.0001)
        reference = weakref.ref(ticker)
        base.dispatch()
        assert ticker.ticks == 3
        del ticker
        assert reference() is None


def test_an_init_that_fails_leaves_nothing_behind(base: EventBase) -> None:
    class Failing(Event):
        def __init__(self, base: EventBase, early: bool) -> None:
            if early:
                raise Boom
            super().__init__(base, -1, 0, ignore)
            raise Boom

    with without_collector():
        for early in (True, False):
            with suppress(Boom):
                Failing(base, early)
        assert base._ledger == {}


def test_an_event_cannot_be_made_twice(base: EventBase) -> None:
    event = Event.timer(base, ignore)
    pointer = event.pointer
    with pytest.raises(RuntimeError, match="this Event has been made already"):
        event.__init__(base, -1, 0, ignore)  # type: ignore[misc]
    assert event.pointer is pointer
    event.close()
    with pytest.raises(RuntimeError, match="this Event has been made already"):
        event.__init__(base, -1, 0, ignore)  # type: ignore[misc]
    assert base._ledger == {}


def test_an_event_that_was_never_made_can_be_dropped() -> None:
    event = Event.__new__(Event)
    with pytest.raises(AttributeError):
        event.add()
    del event


# Finalizers.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["outside", "own callback", "another's callback"])
def test_a_finalizer_runs_once_wherever_its_event_was_closed(
    base: EventBase, pair: Pair, kind: str, where: str
) -> None:
    finalized: list[weakref.ref[Event]] = []

    def finalize(event: Event) -> None:
        assert event.closed
        finalized.append(weakref.ref(event))

    def close(event: Event, *_: object) -> None:
        event.close(finalize)
        event.close()
        event.close(finalize)

    with without_collector():
        events = [KINDS[kind](base, pair[0], close if where == "own callback" else ignore)]
        if where == "outside":
            events[0].add(0)
            close(events[0])
        elif where == "own callback":
            events[0].add(0)
            events[0].active()
        else:
            Event.user(base, lambda *_: close(events[0])).active()
            events[0].add(0)
        base.loop(TURN)
        base.loop(TURN)
        events.clear()  # a dropped event is finalized too
        base.loop(TURN)
        assert [reference() for reference in finalized] == [None]
        assert base._live == base._ledger == {}


def test_a_dropped_event_is_finalized(base: EventBase) -> None:
    finalized: list[Event] = []
    Event.timer(base, ignore).add(60).close(finalize=finalized.append)
    gc.collect()
    base.loop(TURN)
    assert len(finalized) == 1


def test_what_a_finalizer_raises_comes_out_of_the_loop(base: EventBase) -> None:
    def fail(event: Event) -> None:
        raise Boom

    Event.timer(base, ignore).close(finalize=fail)
    with pytest.raises(Boom):
        base.loop(TURN)
    base.loop(TURN)
    assert base._live == {}
    taken: list[tuple[Exception, Any]] = []
    base.on_error = lambda error, source: taken.append((error, source))
    event = Event.timer(base, ignore)
    event.close(finalize=fail)
    base.loop(TURN)
    assert [(type(error), source) for error, source in taken] == [(Boom, event)]


def test_what_a_finalizer_raises_comes_out_of_close_which_frees_the_base() -> None:
    finalized: list[Event] = []

    def fail(event: Event) -> None:
        finalized.append(event)
        raise Boom

    base = EventBase()
    Event.timer(base, ignore).close(finalize=fail)
    with pytest.raises(Boom):
        base.close()
    assert len(finalized) == 1
    assert base.closed
    for several in (2, 3):
        base = EventBase()
        for _ in range(several):
            Event.timer(base, ignore).close(finalize=fail)
        with pytest.raises(BaseException) as caught:
            base.close()
        group = getattr(caught.value, "exceptions", [caught.value])  # from Python 3.11 on
        assert {type(error) for error in group} == {Boom}
        assert len(group) in (1, several)


def test_a_finalizer_may_make_close_and_finalize_other_events(base: EventBase) -> None:
    finalized: list[Event] = []

    def finalize(event: Event) -> None:
        finalized.append(event)
        other.close()
        if len(finalized) < 3:
            Event.timer(base, ignore).add(0).close(finalize)

    other = Event.timer(base, ignore, persist=True).add(60)
    Event.timer(base, ignore).close(finalize)
    while base.loop(TURN):
        pass
    assert len(finalized) == 3


def test_a_with_statement_does_not_finalize_twice(base: EventBase) -> None:
    finalized: list[Event] = []
    with Event.timer(base, ignore).add(60) as event:
        event.close(finalize=finalized.append)
    base.loop(TURN)
    assert finalized == [event]


def test_a_finalizer_keeps_its_place_from_a_new_callback(base: EventBase) -> None:
    finalized: list[Event] = []
    event = Event.timer(base, ignore)
    event.close(finalize=finalized.append)
    with pytest.raises(ClosedError):
        event.callback = ignore
    base.loop(TURN)
    assert finalized == [event]


@VALGRIND_TAKES_LONG
def test_finalizers_and_closing_in_the_middle_of_calls_touch_no_freed_memory(
    valgrind: bool,
) -> None:
    run_python(
        """
        import gc, signal
        from libevent_py import Event, EventBase, EventFlag, LoopFlag

        def check(change):
            calls = []

            def fire(event, fd, what):
                calls.append(what)
                if len(calls) == 1:
                    change(event)

            for persist in False, True:
                for dropped in False, True:
                    for raised in False, True:
                        calls.clear()
                        with EventBase() as base:
                            def stop(event, fd, what):
                                fire(event, fd, what)
                                if raised:
                                    base.loopbreak()

                            event = Event.signal(base, signal.SIGUSR1, stop, persist=persist)
                            event.add(60)
                            event.active(EventFlag.SIGNAL, 4)
                            if dropped:
                                del event
                            for _ in range(3):
                                base.loop(LoopFlag.NONBLOCK)
                            assert calls
                            event = None
                            gc.collect()

        check(lambda event: event.close())
        check(lambda event: event.close(finalize=id))
        check(lambda event: (event.remove_timer(), event.close()))
        check(lambda event: (event.remove_timer(), event.delete()))
        check(lambda event: event.delete())
        check(lambda event: (event.delete(), event.add(60)))
        check(lambda event: (event.active(), event.close()))
        check(lambda event: (event.active(), event.delete(), event.active()))
        check(lambda event: (event.base.active_by_signal(signal.SIGUSR1), event.close()))

        base = EventBase()  # dropped with finalizers that have not run
        for _ in range(5):
            Event.timer(base, print).add(60).close(finalize=id)
        Event.timer(base, print).add(60)
        del base
        gc.collect()
        """,
        valgrind=valgrind,
    )


def test_a_finalizer_runs_also_when_its_base_is_dropped() -> None:
    finalized: list[Event] = []
    base = EventBase()
    event = Event.timer(base, lambda event, fd, what: None).add(5.0)
    event.close(finalize=finalized.append)
    kept = id(event)
    del base, event
    gc.collect()
    assert [id(event) for event in finalized] == [kept]
    finalized.clear()


def test_what_a_finalizer_raises_in_a_dropped_base_is_told_and_harms_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda hook: told.append(type(hook.exc_value)))

    def finalize(event: Event) -> None:
        raise KeyError

    base = EventBase()
    Event.timer(base, lambda event, fd, what: None).close(finalize=finalize)
    del base
    gc.collect()
    assert told == [KeyError]
    assert errors.waiting() == 0
