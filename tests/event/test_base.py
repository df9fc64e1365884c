"""EventBase: what it promises, what it knows of its events, and the rules B7 to B13."""

from __future__ import annotations

import copy
import gc
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import libevent_py
from libevent_py import (
    BufferEvent,
    ClosedError,
    CommonTimeout,
    Event,
    EventBase,
    EventBaseCount,
    EventFeature,
    EventFlag,
    LibeventError,
    Listener,
    lib,
    libevent_version,
    libevent_version_number,
    log,
)
from libevent_py._core.convert import MAX_SECONDS
from tests.kit.flags import NONBLOCK, ONCE, PERSIST, READ, WRITE
from tests.kit.peers import Pair
from tests.kit.support import only, run_python
from tests.kit.uses import USES

ADDED, ACTIVE = EventBaseCount.ADDED, EventBaseCount.ACTIVE


def use(name: str) -> Any:
    return pytest.param(USES[name], id=name)


# What a base is.


def test_a_base_says_what_it_runs_on(backend: str, backend_base: EventBase) -> None:
    assert backend_base.method == backend
    assert EventFeature.ET in backend_base.features or backend != "epoll"
    assert backend_base.n_priorities == 1


def test_the_version_is_the_library_s() -> None:
    assert libevent_version.startswith("2.1.")
    assert libevent_version_number >> 16 == 0x0201


def test_a_base_is_closed_at_the_end_of_with_and_may_be_closed_again() -> None:
    with EventBase() as base:
        assert not base.closed
    assert base.closed
    base.close()
    assert repr(base) == "<EventBase closed>"


@pytest.mark.parametrize("function", [use(name) for name in USES])
def test_a_closed_base_says_so(function: Callable[[EventBase], object]) -> None:
    base = EventBase()
    base.close()
    with pytest.raises(ClosedError, match="this EventBase is closed"):
        function(base)
    with pytest.raises(ClosedError):
        base.reinit()


def test_a_base_is_made_once_and_never_copied(base: EventBase) -> None:
    pointer = base.pointer
    with pytest.raises(RuntimeError, match="has been made already"):
        base.__init__()  # type: ignore[misc]
    with pytest.raises(TypeError, match="can't be copied"):
        copy.copy(base)
    assert base.pointer == pointer
    base.close()
    with pytest.raises(ClosedError):
        base.__init__()  # type: ignore[misc]


def test_a_class_of_the_user_s_own_may_be_derived() -> None:
    class Server(EventBase):
        def __init__(self, name: str) -> None:
            super().__init__(priorities=2)
            self.name = name

    with Server("s") as server:
        server.once(lambda fd, what: None)
        assert server.dispatch() is False
    assert server.closed
    assert server.name == "s"
    assert type(server).__name__ == "Server"


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "named"),
    [
        (("epoll",), {}, TypeError, "config"),
        ((0,), {}, TypeError, "config"),
        ((), {"priorities": 0}, ValueError, "priorities"),
        ((), {"priorities": -1}, ValueError, "priorities"),
        ((), {"priorities": 256}, ValueError, "priorities"),
        ((), {"priorities": 2**64}, ValueError, "priorities"),
        ((), {"priorities": "2"}, TypeError, "priorities"),
        ((), {"priorities": 2.0}, TypeError, "priorities"),
    ],
)
def test_a_base_can_t_be_made_with_bad_arguments(
    arguments: tuple[Any, ...], options: dict[str, Any], kind: type[Exception], named: str
) -> None:
    with pytest.raises(kind, match=named):
        EventBase(*arguments, **options)


# B7, B8: what is there.


def test_events_may_be_added_and_deleted_while_they_are_walked(base: EventBase) -> None:
    """B7: the list is a snapshot; C's walk forbids it."""
    events = [Event.timer(base, print).add(1000 + number) for number in range(100)]
    for event in base.events():
        event.delete()
        Event.timer(base, print).add(2000)
    assert not any(event.pending for event in events)
    assert len(base.events()) == 100


def test_events_are_the_user_s_own_and_not_the_library_s(base: EventBase, pair: Pair) -> None:
    """B7: neither what libevent's objects have inside, nor what the base waits with itself."""
    timer = Event.timer(base, print).add(1000)
    reader = Event(base, pair[0], READ, print).add()
    active = Event.user(base, print)
    active.active()
    idle = Event.timer(base, print)
    bev = BufferEvent(base, pair[1])
    bev.enable(READ)
    base.once(print, timeout=1000)
    base.defer(print)
    base.loopexit(1000)
    assert set(base.events()) == {timer, reader, active}
    assert idle not in base.events()
    timer.delete()
    active.delete()
    assert base.events() == [reader]


def test_events_and_dumps_can_be_asked_for_in_a_callback(base: EventBase, pair: Pair) -> None:
    """B7: also while an event is being called."""
    found: list[Any] = []

    def callback(event: Event, fd: int, what: int) -> None:
        found.append(base.events())
        found.append(base.dump_events())
        for other in base.events():
            other.close()

    events = [Event(base, pair[0], READ | PERSIST, callback).add(), Event.timer(base, print)]
    events[1].add(1000)
    pair[1].send(b".")
    assert base.dispatch() is False
    assert set(found[0]) == set(events)
    assert "Inserted" in found[1]


def test_the_dump_is_libevent_s_text(base: EventBase, pair: Pair) -> None:
    """B7: one line for each event, inserted or active."""
    event = Event(base, pair[0], READ | PERSIST, print).add(1000)
    active = Event.user(base, print)
    active.active()
    dump = base.dump_events()
    inserted, _, activated = dump.partition("Active events:")
    assert re.search(rf"fd +{pair[0].fileno()}\b.*Read.*Persist.*Timeout", inserted)
    assert "[fd" in activated
    assert event.pending


def test_the_running_event_is_the_one_whose_callback_runs(base: EventBase) -> None:
    """B8: C crashes where there is none."""
    seen: list[Any] = []
    assert base.running_event is None
    event = Event.timer(base, lambda *_: seen.append(base.running_event)).add(0)
    base.once(lambda fd, what: seen.append(base.running_event), timeout=0.01)
    base.once(lambda fd, what: base.defer(lambda: seen.append(base.running_event)), timeout=0.02)
    finalized = Event.timer(base, print)
    finalized.close(finalize=lambda event: seen.append(base.running_event))
    base.dispatch()
    assert seen == [None, event, None, None]
    assert base.running_event is None


def test_each_base_has_its_own_running_event(base: EventBase) -> None:
    """B8: also when one's loop runs inside the other's callback."""
    seen: list[Any] = []
    with EventBase() as inner:

        def in_inner(*_: object) -> None:
            seen.append((base.running_event, inner.running_event))

        def in_outer(*_: object) -> None:
            inner.dispatch()
            seen.append((base.running_event, inner.running_event))

        outer_event = Event.timer(base, in_outer).add(0)
        inner_event = Event.timer(inner, in_inner).add(0)
        base.dispatch()
    assert seen == [(outer_event, inner_event), (outer_event, None)]


def test_after_an_exception_no_event_is_running(base: EventBase) -> None:
    """B8: the callback is over, however it ended."""
    Event.timer(base, lambda *_: 1 / 0).add(0)
    with pytest.raises(ZeroDivisionError):
        base.dispatch()
    assert base.running_event is None


def test_a_running_event_that_is_closed_is_none(base: EventBase) -> None:
    """B8: it is freed in C."""
    seen: list[Any] = []

    def callback(event: Event, fd: int, what: int) -> None:
        event.close()
        seen.append(base.running_event)

    Event.timer(base, callback).add(0)
    base.dispatch()
    assert seen == [None]


def test_events_are_counted(base: EventBase) -> None:
    base.loop(NONBLOCK)
    added, active = base.num_events(ADDED), base.num_events(ACTIVE)
    events = [Event.timer(base, lambda *_: None).add(1000) for _ in range(10)]
    assert base.num_events(ADDED) == added + 10
    for event in events[:4]:
        event.active()
    assert base.num_events(ACTIVE) == active + 4
    # Each of these is in two queues, and counts once for each.
    assert base.num_events(ADDED) == added + 14
    assert base.num_events(ADDED | ACTIVE) == added + active + 18
    for event in events:
        event.close()
    assert base.num_events(ADDED) == added
    assert base.max_events(ADDED) >= added + 10
    assert base.max_events(ADDED, clear=True) >= added + 10
    assert base.max_events(ADDED) <= added
    assert base.num_events(EventBaseCount.VIRTUAL) == 0
    for function in (base.num_events, base.max_events):
        with pytest.raises(ValueError, match="flags"):
            function(64)
        with pytest.raises(TypeError, match="flags"):
            function("ADDED")  # type: ignore[arg-type]


def test_events_are_made_active_by_descriptor_and_by_signal(base: EventBase, pair: Pair) -> None:
    fired: list[EventFlag] = []
    reader = Event(base, pair[0], READ | PERSIST, lambda ev, fd, what: fired.append(what)).add()
    caught = Event.signal(base, signal.SIGUSR1, lambda ev, fd, what: fired.append(what)).add()
    base.active_by_fd(pair[0], READ)
    base.active_by_fd(pair[0].fileno(), WRITE)
    base.active_by_signal(signal.SIGUSR1)
    base.loop(NONBLOCK)
    assert sorted(fired) == [READ, EventFlag.SIGNAL]
    base.active_by_fd(pair[1], READ)
    base.active_by_signal(signal.SIGUSR2)
    base.loop(NONBLOCK)
    assert len(fired) == 2
    reader.close()
    caught.close()


# B9: reinit without a fork.


def test_a_base_may_be_reinitialized_without_a_fork(backend_base: EventBase, pair: Pair) -> None:
    """B9: everything goes on as before, on each backend."""
    base, fired = backend_base, list[Any]()
    reader = Event(
        base, pair[0], READ | PERSIST, lambda ev, fd, what: fired.append(pair[0].recv(9))
    )
    reader.add()
    caught = Event.signal(base, signal.SIGUSR1, lambda ev, fd, what: fired.append(fd)).add()
    held = os.open(os.devnull, os.O_RDONLY)
    base.loop(NONBLOCK)
    os.close(held)  # a lower number than those that the base gives back
    base.reinit()
    pair[1].send(b"first")
    base.loop(ONCE)
    assert fired == [b"first"]
    os.kill(os.getpid(), signal.SIGUSR1)
    base.loop(ONCE)
    assert fired == [b"first", signal.SIGUSR1]
    woken = threading.Thread(target=base.defer, args=(base.loopexit,))
    woken.start()
    assert base.dispatch() is True
    woken.join()
    reader.close()
    caught.close()


def test_a_base_may_be_reinitialized_inside_a_callback(backend_base: EventBase, pair: Pair) -> None:
    """B9: and the loop below goes on."""
    fired: list[str] = []

    def callback(event: Event, fd: int, what: int) -> None:
        pair[0].recv(10)
        backend_base.reinit()
        fired.append("reader")
        event.delete()

    Event(backend_base, pair[0], READ | PERSIST, callback).add()
    backend_base.once(lambda fd, what: fired.append("timer"), timeout=0.02)
    pair[1].send(b".")
    assert backend_base.dispatch() is False
    assert fired == ["reader", "timer"]


def test_an_event_that_can_t_be_added_again_is_an_error_and_the_others_go_on() -> None:
    """B9: here its descriptor has been closed under it."""
    with only("epoll") as base:
        left, right = socket.socketpair()
        other, fired = os.pipe(), []
        gone = Event(base, left.fileno(), READ, print).add()
        reader = Event(base, other[0], READ, lambda ev, fd, what: fired.append(fd)).add()
        left.close()
        with pytest.raises(OSError, match="event_reinit"):
            base.reinit()
        os.write(other[1], b".")
        gone.close()
        base.dispatch()
        assert fired == [other[0]]
        reader.close()
        right.close()
        os.close(other[0])
        os.close(other[1])


def wakes(base: EventBase) -> bool:
    """Tell whether another thread can wake the loop, which would else wait for seconds."""
    late = Event.timer(base, lambda *_: None).add(5)
    thread = threading.Thread(target=lambda: time.sleep(0.05) or base.defer(base.loopbreak))
    thread.start()
    began = time.monotonic()
    base.dispatch()
    thread.join()
    late.close()
    return time.monotonic() - began < 4


def test_reinit_leaves_a_base_that_other_threads_can_wake_though_one_just_did(
    backend_base: EventBase,
) -> None:
    """B9: C closes what was to tell the loop, and counts on it for ever; in a forked child, too."""
    woken: list[bool] = []

    def callback(fd: int, what: int) -> None:
        thread = threading.Thread(target=backend_base.loopcontinue)
        thread.start()
        thread.join()
        pid = os.fork()
        backend_base.reinit()
        woken.append(not pid or os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0)
        backend_base.loopbreak()

    parent = os.getpid()
    backend_base.once(callback, timeout=0)
    backend_base.dispatch()
    if os.getpid() != parent:
        os._exit(0 if wakes(backend_base) else 1)
    assert woken == [True]
    assert wakes(backend_base)


def test_other_threads_can_wake_a_base_though_an_event_was_not_added_again() -> None:
    """B9: C makes anew what a base is woken by only if all events could be added."""
    with only("epoll") as base:
        left, right = socket.socketpair()
        gone = Event(base, left.fileno(), READ, print).add()
        caught = list[int]()
        signals = Event.signal(base, signal.SIGUSR1, lambda ev, fd, what: caught.append(fd)).add()
        left.close()
        with pytest.raises(OSError, match="event_reinit"):
            base.reinit()
        gone.close()
        right.close()
        assert wakes(base)
        os.kill(os.getpid(), signal.SIGUSR1)
        base.loop(ONCE)
        assert caught == [signal.SIGUSR1]
        signals.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a base is not woken by an eventfd")
def test_a_base_that_threads_can_t_wake_is_an_error_and_reinit_may_be_called_again() -> None:
    """B9: here the number of the eventfd, the base's highest, is beyond the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = set(os.listdir("/proc/self/fd"))
    with only("epoll") as base:
        own = set(os.listdir("/proc/self/fd")) - before
        own = {fd for fd in own if os.path.lexists(f"/proc/self/fd/{fd}")}
        woken_by = [fd for fd in own if "eventfd" in os.readlink(f"/proc/self/fd/{fd}")]
        assert len(woken_by) == 1
        taken: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(woken_by[0]), hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    taken.append(os.dup(0))
            with pytest.raises(OSError, match="event_reinit: Too many open files"):
                base.reinit()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in taken:
                os.close(fd)
        base.reinit()
        assert wakes(base)


# B10: common timeouts.


def test_events_that_share_a_timeout_fire_in_the_order_in_which_they_were_added(
    base: EventBase,
) -> None:
    """B10: the timeout lives as long as its base."""
    timeout = base.init_common_timeout(0.03)
    assert timeout.seconds == 0.03
    assert repr(timeout).endswith(", 0.03 s>")
    order: list[int] = []
    for number in range(20):
        Event.timer(base, lambda *_, number=number: order.append(number)).add(timeout)
    start = time.monotonic()
    del timeout
    gc.collect()
    base.dispatch()
    assert order == list(range(20))
    assert time.monotonic() - start >= 0.025


def test_a_common_timeout_belongs_to_its_base(base: EventBase) -> None:
    """B10: on another base it would be some twenty minutes longer."""
    with EventBase() as other:
        timeout = other.init_common_timeout(0.01)
        event = Event.timer(base, print)
        with pytest.raises(ValueError, match="timeout"):
            event.add(timeout)
        assert not event.pending
        assert timeout.pointer
    with pytest.raises(ClosedError):
        timeout.pointer  # noqa: B018
    with pytest.raises(ClosedError):
        Event.timer(other, print)


def test_a_base_has_room_for_256_common_timeouts(base: EventBase) -> None:
    """B10: C returns NULL for one more."""
    timeouts = [base.init_common_timeout(1 + number / 1000) for number in range(256)]
    assert isinstance(timeouts[0], CommonTimeout)
    with pytest.raises(LibeventError, match="event_base_init_common_timeout"):
        base.init_common_timeout(2)
    assert base.init_common_timeout(1.0).pointer == timeouts[0].pointer
    Event.timer(base, print).add(timeouts[255])


@pytest.mark.parametrize("seconds", [0.9999996, 1.9999999, MAX_SECONDS - 0.0000001, 1e-9])
def test_no_timeout_of_the_user_s_looks_like_a_common_one(base: EventBase, seconds: float) -> None:
    """B10: microseconds that round up to a million would carry the mark."""
    base.init_common_timeout(5)
    event = Event.timer(base, print).add(seconds)
    expires = event.expires
    assert expires is not None
    assert abs(expires - time.time() - seconds) < 2
    assert base.init_common_timeout(seconds).seconds == round(seconds, 6)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e12])
def test_a_common_timeout_must_be_a_time(base: EventBase, seconds: float) -> None:
    """B10: reject negative, NaN and huge."""
    with pytest.raises(ValueError, match="seconds"):
        base.init_common_timeout(seconds)
    with pytest.raises(TypeError, match="seconds"):
        base.init_common_timeout("1")  # type: ignore[arg-type]


# B11 to B13.


def test_the_list_of_backends_is_a_copy() -> None:
    """B11: each further call of C's frees the array of the one before."""
    run_python(
        """
        from libevent_py import EventBase, EventConfig, lib

        methods = EventBase.supported_methods()
        for _ in range(3):
            lib.event_get_supported_methods()
        EventBase.supported_methods().clear()
        assert EventBase.supported_methods() == methods
        assert "select" in methods
        EventConfig(avoid=methods[1:]).close()
        """,
        valgrind=True,
    )


@pytest.mark.parametrize("priorities", [1, 2, 255])
def test_priorities_are_for_the_constructor(priorities: int) -> None:
    """B12: they can't shrink below what an event has."""
    with EventBase(priorities=priorities) as base:
        assert base.n_priorities == priorities
        assert not hasattr(base, "priority_init")
        event = Event.timer(base, print)
        assert event.priority == priorities // 2
        for priority in (0, priorities - 1):
            event.priority = priority
        with pytest.raises(ValueError, match="priority"):
            event.priority = priorities
        with pytest.raises(AttributeError):
            base.n_priorities = 1  # type: ignore[misc]


def test_the_most_urgent_events_run_first() -> None:
    """B12: 0 is the most urgent."""
    order: list[int] = []
    with EventBase(priorities=5) as base:
        events = [
            Event(base, -1, 0, lambda ev, fd, what: order.append(ev.priority), priority=priority)
            for priority in (3, 0, 4, 1, 2)
        ]
        for event in events:
            event.active()
        base.dispatch()
    assert order == [0, 1, 2, 3, 4]


def test_there_is_no_global_base(pair: Pair) -> None:
    """B13: no function that falls back to it is reached without a base."""
    for make in (
        lambda: Event(None, -1, 0, print),  # type: ignore[arg-type]
        lambda: Event.timer(None, print),  # type: ignore[arg-type]
        lambda: BufferEvent(None),  # type: ignore[arg-type]
        lambda: Listener(None, ("127.0.0.1", 0), print),  # type: ignore[arg-type]
        lambda: Listener.from_fd(None, pair[0], print),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="base must be an EventBase, not None"):
            make()
    for name in ("event_init", "event_dispatch", "event_loopexit", "event_set"):
        assert hasattr(lib, name)  # the raw layer has libevent 1.x's, and nobody here calls them
        for module in Path(libevent_py.__file__).parent.rglob("*.py"):
            assert f"lib.{name}(" not in module.read_text()


# Time.


def test_the_cached_time_is_that_of_the_round_of_callbacks(base: EventBase) -> None:
    assert abs(base.gettimeofday_cached - time.time()) < 60
    assert abs(base.gettime_monotonic - time.monotonic()) < 60
    times: list[float] = []

    def callback(fd: int, what: int) -> None:
        times.append(base.gettimeofday_cached)
        time.sleep(0.02)
        times.append(base.gettimeofday_cached)
        base.update_cache_time()
        times.append(base.gettimeofday_cached)

    base.once(callback)
    base.dispatch()
    assert times[0] == times[1]
    assert times[2] - times[1] >= 0.015


def test_a_timer_begins_now_after_the_cached_time_was_updated(base: EventBase) -> None:
    fired: list[float] = []

    def callback(fd: int, what: int) -> None:
        time.sleep(0.05)
        base.update_cache_time()
        fired.append(time.monotonic())
        base.once(lambda fd, what: fired.append(time.monotonic()), timeout=0.05)

    base.once(callback)
    base.dispatch()
    assert fired[1] - fired[0] >= 0.045


def test_messages_of_a_base_s_end_are_handed_on(base: EventBase) -> None:
    """What libevent logs while a base is closed doesn't wait for the next one."""
    logged: list[str] = []
    log.set_log_callback(lambda severity, message: logged.append(message))
    try:
        log.enable_debug_logging()
        other = EventBase()
        Event.timer(other, print).add(1000)
        log.flush()
        logged.clear()
        other.close()
        assert logged
    finally:
        log.enable_debug_logging(0)
        log.set_log_callback(None)
