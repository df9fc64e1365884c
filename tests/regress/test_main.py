"""Group ``main`` of libevent's regression suite: the loop, and every kind of event but signals.

Where the original waits for a moment to pass, the test asks for the order and the lower bound.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from libevent_py import (
    Event,
    EventBase,
    EventBaseCount,
    EventBaseFlag,
    EventConfig,
    EventFeature,
    EventFlag,
    LibeventError,
    ffi,
    lib,
    version,
    version_number,
)
from tests.kit.flags import (
    CLOSED,
    ET,
    NONBLOCK,
    ONCE,
    PERSIST,
    READ,
    SIGNAL,
    TIMEOUT,
    WRITE,
    NewBase,
)
from tests.kit.peers import Pair
from tests.kit.support import PATIENCE
from tests.kit.variants import TICK, Variant, bounded

ACTIVE, VIRTUAL, ADDED = EventBaseCount.ACTIVE, EventBaseCount.VIRTUAL, EventBaseCount.ADDED

TEXT = b"this is a test\0"


def ignore(event: Event, fd: int, what: EventFlag) -> None:
    pass


def fail(event: Event, fd: int, what: EventFlag) -> None:
    pytest.fail(f"{event} fired for {what!r}")


def test_methods() -> None:
    """A base avoids the backend that it is told to avoid, and can't be made without any."""
    methods = EventBase.supported_methods()
    flags = EventBaseFlag.IGNORE_ENV
    with EventConfig(avoid=methods[:1], flags=flags) as config, EventBase(config) as base:
        assert base.method in methods[1:]
    with EventConfig(avoid=methods, flags=flags) as config, pytest.raises(LibeventError):
        EventBase(config)


def test_version() -> None:
    """The version as text and as a number agree with the headers and with each other."""
    assert version == ffi.string(lib.LIBEVENT_VERSION).decode()
    assert version_number == lib.LIBEVENT_VERSION_NUMBER
    major, minor, patch = version.split("-")[0].split(".")
    assert version_number >> 8 == int(major) << 16 | int(minor) << 8 | int(patch)


def test_base_features(new_base: NewBase) -> None:
    """A base made to be edge triggered is, or can't be had, and then a plain one says so too."""
    try:
        base = new_base(require=EventFeature.ET)
    except LibeventError:
        assert EventFeature.ET not in new_base().features
    else:
        assert EventFeature.ET in base.features


def test_base_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """EVENT_NO… in the environment rules a backend out, unless the environment is to be ignored."""
    for method in EventBase.supported_methods():
        monkeypatch.delenv(f"EVENT_NO{method.upper()}", raising=False)
    monkeypatch.delenv("EVENT_EPOLL_USE_CHANGELIST", raising=False)
    with EventBase() as base:
        default = base.method
    monkeypatch.setenv(f"EVENT_NO{default.upper()}", "1")
    with EventBase() as base:
        assert base.method != default
    with EventConfig(flags=EventBaseFlag.IGNORE_ENV) as config, EventBase(config) as base:
        assert base.method == default


def test_event_base_new(backend_base: EventBase, pair: Pair) -> None:
    """A fresh base reads all data, then the end, through one persistent event."""
    left, right = pair
    left.sendall(TEXT)
    left.shutdown(socket.SHUT_WR)
    read: list[bytes] = []

    def on_read(event: Event, fd: int, what: EventFlag) -> None:
        read.append(right.recv(256))
        if not read[-1]:
            event.delete()
            backend_base.loopexit()

    Event(backend_base, right, READ | PERSIST, on_read).add()
    assert backend_base.loop()
    assert read == [TEXT, b""]


def test_free_active_base(new_base: NewBase, pair: Pair) -> None:
    """A base can be closed while an event on it is pending, or active."""
    left, right = pair
    base = new_base()
    pending = Event(base, right, READ, fail).add()
    base.close()
    assert pending.closed

    base = new_base()
    active = Event(base, left, READ, fail)
    active.active(READ)
    base.close()
    assert active.closed


def test_manipulate_active_events(backend_base: EventBase) -> None:
    """An active event is pending for what made it so, and for both when it was twice."""
    event = Event.timer(backend_base, fail)
    event.active(READ)
    assert event.pending(READ | TIMEOUT | WRITE) == READ
    event.active(WRITE)
    assert event.pending(READ | TIMEOUT | WRITE) == READ | WRITE
    event.delete()
    assert not event.pending()
    assert backend_base.loop(NONBLOCK) is False


def selfarg_callback() -> tuple[Any, list[tuple[Any, Any]]]:
    """Return a callback for C, and what it notes: its argument, and the event that runs."""
    seen = []

    @ffi.callback("event_callback_fn")  # type: ignore[untyped-decorator]
    def callback(fd: int, what: int, arg: Any) -> None:
        base = lib.event_get_base(ffi.cast("struct event *", arg))
        seen.append((arg, lib.event_base_get_running_event(base)))
        lib.event_base_loopexit(base, ffi.NULL)

    return callback, seen


def test_event_new_selfarg(backend_base: EventBase) -> None:
    """event_self_cbarg() hands an event to its own callback, while it is the running one.

    Through the raw layer; the object layer hands each event to its callback anyway.
    """
    callback, seen = selfarg_callback()
    ev = lib.event_new(backend_base.pointer, -1, lib.EV_READ, callback, lib.event_self_cbarg())
    lib.event_active(ev, lib.EV_READ, 1)
    assert backend_base.dispatch()
    assert seen == [(ev, ev)]
    lib.event_free(ev)

    base, running = backend_base, []
    event = Event.user(base, lambda event, fd, what: running.append((event, base.running_event)))
    event.active()
    assert base.dispatch() is False
    assert running == [(event, event)]
    assert base.running_event is None


def test_event_assign_selfarg(backend_base: EventBase) -> None:
    """The same by event_assign(): through the raw layer, the only one with events of one's own."""
    callback, seen = selfarg_callback()
    ev = ffi.new("struct event *")
    base, self_cbarg = backend_base.pointer, lib.event_self_cbarg()
    assert lib.event_assign(ev, base, -1, lib.EV_READ, callback, self_cbarg) == 0
    lib.event_active(ev, lib.EV_READ, 1)
    assert backend_base.dispatch()
    assert seen == [(ev, ev)]
    lib.event_debug_unassign(ev)


def test_event_base_get_num_events(backend_base: EventBase, pair: Pair) -> None:
    """The events of each kind are counted from the first add of one to the end of the loop.

    On a real descriptor, because READ without one is refused. Only libevent itself can add a
    virtual event, so there are none here.
    """

    def counts() -> list[int]:
        return [backend_base.num_events(flags) for flags in COMBINATIONS]

    event = Event(backend_base, pair[0], READ, lambda event, fd, what: backend_base.loopexit())
    assert counts() == [0, 0, 0, 0, 0, 0, 0]
    event.add(PATIENCE)  # counted twice: for the descriptor, and for the timeout
    assert counts() == [0, 0, 2, 0, 2, 2, 2]
    event.active(READ)
    assert counts() == [1, 0, 3, 1, 4, 3, 4]
    assert backend_base.loop()
    assert counts() == [0, 0, 0, 0, 0, 0, 0]


#: In the order of the lists in the tests of the counters.
COMBINATIONS = (
    ACTIVE,
    VIRTUAL,
    ADDED,
    ACTIVE | VIRTUAL,
    ACTIVE | ADDED,
    VIRTUAL | ADDED,
    ACTIVE | ADDED | VIRTUAL,
)


def test_event_base_get_max_events(backend_base: EventBase, pair: Pair) -> None:
    """The most events of each kind that there were are remembered until they are cleared.

    On a real descriptor and without virtual events, as above.
    """

    def maxima() -> list[int]:
        return [backend_base.max_events(flags) for flags in COMBINATIONS]

    def on_read(event: Event, fd: int, what: EventFlag) -> None:
        backend_base.loopexit()

    first = Event(backend_base, pair[0], READ, on_read).add(PATIENCE)
    second = Event(backend_base, pair[0], READ, on_read).add(PATIENCE)
    second.delete()
    assert maxima() == [0, 0, 4, 0, 4, 4, 4]
    first.active(READ)
    assert maxima() == [1, 0, 4, 1, 5, 4, 5]
    assert backend_base.loop()
    assert maxima() == [1, 0, 4, 1, 5, 4, 5]
    assert [backend_base.max_events(kind, clear=True) for kind in (ACTIVE, VIRTUAL, ADDED)] == [
        1,
        0,
        4,
    ]
    assert maxima() == [0, 0, 0, 0, 0, 0, 0]


def test_evmap_invalid_slots(backend_base: EventBase) -> None:
    """Signals and descriptors that can't be are refused, by the object layer and by libevent."""
    for signum in (-1, signal.NSIG):
        with pytest.raises(ValueError):
            Event.signal(backend_base, signum, fail)
        ev = lib.event_new(backend_base.pointer, signum, lib.EV_SIGNAL, NO_CALLBACK, ffi.NULL)
        assert lib.event_add(ev, ffi.NULL) == -1
        lib.event_free(ev)
    for fd in (2**31 - 1, 2**30 - 1):
        with pytest.raises(OSError):
            Event(backend_base, fd, READ, fail)
        ev = lib.event_new(backend_base.pointer, fd, lib.EV_READ, NO_CALLBACK, ffi.NULL)
        assert lib.event_add(ev, ffi.NULL) == -1
        lib.event_free(ev)


@ffi.callback("event_callback_fn")  # type: ignore[untyped-decorator]
def NO_CALLBACK(fd: int, what: int, arg: Any) -> None:
    raise AssertionError("it was never to be called")


def test_bad_assign(backend_base: EventBase) -> None:
    """An event can't wait for a signal and a descriptor; event_new() instead of event_assign()."""
    what = SIGNAL | READ
    with pytest.raises(ValueError, match="SIGNAL"):
        Event(backend_base, signal.SIGUSR1, what, fail)
    assert lib.event_new(backend_base.pointer, -1, what, NO_CALLBACK, ffi.NULL) == ffi.NULL


def test_bad_reentrant(backend_base: EventBase) -> None:
    """A callback can't run the loop that runs it."""
    refused = []

    def run_loop(event: Event, fd: int, what: EventFlag) -> None:
        with pytest.raises(RuntimeError):
            backend_base.loop()
        refused.append(lib.event_base_loop(backend_base.pointer, 0))

    Event.user(backend_base, run_loop).active(WRITE)
    assert backend_base.loop() is False
    assert refused == [-1]


def test_event_remove_timeout(backend_base: EventBase, pair: Pair) -> None:
    """remove_timer() takes back a timeout, and leaves the event waiting for its descriptor.

    The timeouts begin in the callback that removes them: so a stall can't let them pass before.
    """
    left, right = pair
    read: list[EventFlag] = []

    def on_read(event: Event, fd: int, what: EventFlag) -> None:
        assert len(left.recv(1)) == 1
        read.append(what)
        if len(read) == 2:
            event.delete()

    def remove_timers(event: Event, fd: int, what: EventFlag) -> None:
        for other in (reader, timer):
            other.add(0.03)
            other.remove_timer()
        assert reader.pending() == READ
        assert not timer.pending()

    def send_a_byte(event: Event, fd: int, what: EventFlag) -> None:
        right.send(b"A")

    reader = Event(backend_base, left, READ | PERSIST, on_read)
    timer = Event.timer(backend_base, fail)
    Event.timer(backend_base, remove_timers).add(0.0)
    Event.timer(backend_base, send_a_byte).add(0.04)
    Event.timer(backend_base, send_a_byte).add(0.07)
    assert backend_base.dispatch() is False
    assert read == [READ, READ]


def test_persistent_timeout(backend_base: EventBase) -> None:
    """A persistent timer fires again and again."""
    count = 0

    def on_timeout(event: Event, fd: int, what: EventFlag) -> None:
        nonlocal count
        count += 1
        if count == 6:
            backend_base.loopexit()

    timer = Event(backend_base, -1, TIMEOUT | PERSIST, on_timeout).add(0.01)
    started = time.monotonic()
    assert backend_base.dispatch()
    assert time.monotonic() - started >= 6 * 0.01 - TICK
    assert count == 6
    assert timer.pending() == TIMEOUT
    timer.delete()


def test_persistent_timeout_jump(backend_base: EventBase) -> None:
    """After a stall of several periods a periodic timer fires once, and then a period from now."""
    period = 0.05
    fired = []
    timer = Event.timer(backend_base, lambda *args: fired.append(args), persist=True).add(period)
    time.sleep(3 * period)
    now = time.time()
    assert backend_base.loop(ONCE)
    assert len(fired) == 1
    assert timer.expires is not None
    assert timer.expires >= now + period - TICK
    timer.delete()


def test_persistent_active_timeout(backend_base: EventBase) -> None:
    """A periodic timer that is made active begins its period anew.

    The first period is too long to wait for: that it began anew is seen in when it ends.
    """
    fired: list[EventFlag] = []
    timer = Event(
        backend_base, -1, TIMEOUT | PERSIST, lambda event, fd, what: fired.append(what)
    ).add(PATIENCE)
    time.sleep(0.1)
    now = time.time()
    timer.active(READ)
    assert backend_base.loop(ONCE)
    assert timer.expires is not None
    assert timer.expires >= now + PATIENCE - TICK

    timer.add(0.01)
    while len(fired) < 3:
        backend_base.loop(ONCE)
    assert fired == [READ, TIMEOUT, TIMEOUT]
    timer.delete()


@pytest.mark.parametrize(("priorities", "urgent", "other"), [(1, 3, 3), (2, 3, 1), (3, 3, 0)])
def test_priorities(new_base: NewBase, priorities: int, urgent: int, other: int) -> None:
    """An urgent event that re-adds itself keeps less urgent ones from running.

    Of two levels, the less urgent is also that of the loop's exit, and comes to run once.
    """
    base = new_base(priorities=priorities)
    counts: dict[Event, int] = {}

    def on_timeout(event: Event, fd: int, what: EventFlag) -> None:
        if counts[event] == 3:
            base.loopexit()
            return
        counts[event] += 1
        event.add(0)

    one, two = Event.timer(base, on_timeout), Event.timer(base, on_timeout)
    one.priority, two.priority = 0, priorities - 1
    counts = {one: 0, two: 0}
    one.add(0)
    two.add(0)
    assert base.dispatch()
    assert (counts[one], counts[two]) == (urgent, other)


def test_priority_active_inversion(new_base: NewBase) -> None:
    """An urgent event made active by a callback runs before one that was made so earlier."""
    base = new_base(priorities=8)
    order = []

    def on_active(event: Event, fd: int, what: EventFlag) -> None:
        order.append((event, what))
        if len(order) == 1:
            same.active(READ)
            urgent.active(TIMEOUT)

    first, same, urgent = (Event.user(base, on_active) for _ in range(3))
    first.priority, same.priority, urgent.priority = 4, 4, 0
    first.active(WRITE)
    assert base.dispatch() is False
    assert order == [(first, WRITE), (urgent, TIMEOUT), (same, READ)]


def test_common_timeout(backend_base: EventBase) -> None:
    """Events on common timeouts fire on time, also when they move between them and the heap."""
    base = backend_base
    fast, slow, long = (base.init_common_timeout(seconds) for seconds in (0.02, 0.04, 5))
    assert base.init_common_timeout(0.04).pointer == slow.pointer
    assert lib.event_base_init_common_timeout(base.pointer, slow.pointer) == slow.pointer
    in_microseconds = ffi.new("struct timeval *", (0, 5_000_000))
    assert lib.event_base_init_common_timeout(base.pointer, in_microseconds) == long.pointer
    parts = [(common.pointer.tv_sec, common.pointer.tv_usec) for common in (fast, slow, long)]
    assert parts == [(0, 20_000 | 0x50000000), (0, 40_000 | 0x50100000), (5, 0 | 0x50200000)]

    fired: dict[Event, list[float]] = {}

    def on_timeout(event: Event, fd: int, what: EventFlag) -> None:
        fired[event].append(time.monotonic())
        if len(fired[event]) == 4:
            event.delete()

    moves: dict[int, tuple[Any, ...]] = {
        1: (slow, 0.02),  # from a common timeout to the heap
        3: (0.04, fast),  # from the heap to a common timeout
        5: (slow, fast),
    }
    started = time.monotonic()
    events = [Event(base, -1, TIMEOUT | PERSIST, on_timeout) for _ in range(100)]
    for i, event in enumerate(events):
        fired[event] = []
        for timeout in moves.get(i % 20, (fast if i % 2 else slow,)):
            event.add(timeout)
    assert base.dispatch() is False
    for i, event in enumerate(events):
        assert len(fired[event]) == 4
        assert fired[event][-1] - started >= 4 * (0.02 if i % 2 else 0.04) - TICK

    # The base can be closed with some events in its queues.
    for i, event in enumerate(events):
        event.add(fast if i % 2 else slow)
    base.close()


def test_simpleread(backend_base: EventBase, pair: Pair) -> None:
    """A read event fires for data, and once added again for their end."""
    left, right = pair
    left.sendall(TEXT)
    left.shutdown(socket.SHUT_WR)
    read: list[bytes] = []

    def on_read(event: Event, fd: int, what: EventFlag) -> None:
        assert what == READ
        read.append(right.recv(256))
        if read[-1]:
            event.add()

    Event(backend_base, right, READ, on_read).add()
    assert backend_base.dispatch() is False
    assert read == [TEXT, b""]


def test_simpleread_multiple(backend_base: EventBase, pair: Pair) -> None:
    """Two read events on one descriptor both fire."""
    left, right = pair
    left.sendall(TEXT)
    left.shutdown(socket.SHUT_WR)
    fired: list[Event] = []
    one, two = (
        Event(backend_base, right, READ, lambda event, fd, what: fired.append(event)).add()
        for _ in range(2)
    )
    assert backend_base.dispatch() is False
    assert len(fired) == 2
    assert set(fired) == {one, two}


def test_simplewrite(backend_base: EventBase, pair: Pair) -> None:
    """A write event fires while there is room."""
    left, right = pair
    Event(backend_base, left, WRITE, lambda event, fd, what: left.sendall(TEXT)).add()
    assert backend_base.dispatch() is False
    assert right.recv(256) == TEXT


def test_simpleclose_rw(backend_base: EventBase) -> None:
    """The peer's close wakes an event that waits to read, and one that waits to write."""
    reader, read_peer = socket.socketpair()
    writer, write_peer = socket.socketpair()
    with reader, writer, read_peer, write_peer:
        reader.setblocking(False)
        writer.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                writer.send(bytes(1024))
        got: list[tuple[int, EventFlag]] = []

        def close_peers(event: Event, fd: int, what: EventFlag) -> None:
            assert not got
            read_peer.close()
            write_peer.close()

        def record(event: Event, fd: int, what: EventFlag) -> None:
            assert read_peer.fileno() == -1
            got.append((fd, what))

        Event.timer(backend_base, close_peers).add(0.02)
        Event(backend_base, reader, READ, record).add()
        Event(backend_base, writer, WRITE, record).add()
        expected = {(reader.fileno(), READ), (writer.fileno(), WRITE)}
        assert backend_base.dispatch() is False
        assert len(got) == 2
        assert set(got) == expected


def simpleclose(base: EventBase, pair: Pair, how: str, flags: EventFlag) -> None:
    """Check that CLOSED is reported at once, though nobody reads."""
    # libevent's suite leaves out what a backend can't tell, too; `features` has its own tests.
    if EventFeature.EARLY_CLOSE not in base.features:
        pytest.skip(f"{base.method} does not report CLOSED")
    if flags & ET and EventFeature.ET not in base.features:
        pytest.skip(f"{base.method} is not edge triggered")
    left, right = pair
    got: set[EventFlag] = set()
    event = Event(base, left, CLOSED | flags, lambda event, fd, what: got.add(what)).add()
    if how == "close":
        right.close()
    else:
        right.shutdown(socket.SHUT_WR)
    if flags == PERSIST:  # then it is reported again and again
        base.loopexit(0.01)
    assert base.loop(NONBLOCK) is bool(flags & PERSIST)
    assert got == {CLOSED | flags & ET}
    event.close()


def test_simpleclose_close(backend_base: EventBase, pair: Pair) -> None:
    """CLOSED is reported when the peer closes."""
    simpleclose(backend_base, pair, "close", EventFlag(0))


def test_simpleclose_shutdown(backend_base: EventBase, pair: Pair) -> None:
    """CLOSED is reported when the peer shuts its sending side down."""
    simpleclose(backend_base, pair, "shutdown", EventFlag(0))


def test_simpleclose_close_persist(backend_base: EventBase, pair: Pair) -> None:
    """The peer's close is reported to a persistent event."""
    simpleclose(backend_base, pair, "close", PERSIST)


def test_simpleclose_shutdown_persist(backend_base: EventBase, pair: Pair) -> None:
    """The peer's shutdown is reported to a persistent event."""
    simpleclose(backend_base, pair, "shutdown", PERSIST)


def test_simpleclose_close_et(backend_base: EventBase, pair: Pair) -> None:
    """The peer's close is reported to an edge-triggered event."""
    simpleclose(backend_base, pair, "close", ET)


def test_simpleclose_shutdown_et(backend_base: EventBase, pair: Pair) -> None:
    """The peer's shutdown is reported to an edge-triggered event."""
    simpleclose(backend_base, pair, "shutdown", ET)


def test_simpleclose_close_persist_et(backend_base: EventBase, pair: Pair) -> None:
    """The peer's close is reported once to a persistent, edge-triggered event."""
    simpleclose(backend_base, pair, "close", PERSIST | ET)


def test_simpleclose_shutdown_persist_et(backend_base: EventBase, pair: Pair) -> None:
    """The peer's shutdown is reported once to a persistent, edge-triggered event."""
    simpleclose(backend_base, pair, "shutdown", PERSIST | ET)


def move_megabytes(base: EventBase, pair: Pair, persist: EventFlag) -> None:
    """Check that what a write event sends is what a read event gets."""
    left, right = pair
    data = memoryview(random.Random(1).randbytes(4 << 20))
    sent, received = 0, bytearray()

    def on_write(event: Event, fd: int, what: EventFlag) -> None:
        nonlocal sent
        sent += left.send(data[sent : sent + 16384])
        if sent < len(data):
            proceed(event)
        else:
            left.shutdown(socket.SHUT_WR)
            end(event)

    def on_read(event: Event, fd: int, what: EventFlag) -> None:
        arrived = right.recv(65536)
        received.extend(arrived)
        if arrived:
            proceed(event)
        else:
            end(event)

    def proceed(event: Event) -> None:
        if not persist:
            event.add()

    def end(event: Event) -> None:
        if persist:
            event.delete()

    Event(base, left, WRITE | persist, on_write).add()
    Event(base, right, READ | persist, on_read).add()
    assert base.dispatch() is False
    assert received == data


def test_multiple(backend_base: EventBase, pair: Pair) -> None:
    """Several megabytes go from a write event to a read event, each added again each time."""
    move_megabytes(backend_base, pair, EventFlag(0))


def test_persistent(backend_base: EventBase, pair: Pair) -> None:
    """Several megabytes go from a persistent write event to a persistent read event."""
    move_megabytes(backend_base, pair, PERSIST)


def test_combined(backend_base: EventBase, pair: Pair) -> None:
    """Reading and writing on both ends of a pair at once don't get in each other's way."""
    to_send = dict(zip(pair, (4096, 8192), strict=True))
    received = dict.fromkeys(pair, 0)

    def watch(end: socket.socket) -> None:
        def on_read(event: Event, fd: int, what: EventFlag) -> None:
            if arrived := end.recv(128):
                received[end] += len(arrived)
                event.add()

        def on_write(event: Event, fd: int, what: EventFlag) -> None:
            if not to_send[end]:
                end.shutdown(socket.SHUT_WR)
                return
            to_send[end] -= end.send(b"q" * min(128, to_send[end]))
            event.add()

        Event(backend_base, end, READ, on_read).add()
        Event(backend_base, end, WRITE, on_write).add()

    left, right = pair
    watch(left)
    watch(right)
    assert backend_base.dispatch() is False
    assert (received[left], received[right]) == (8192, 4096)


def test_simpletimeout(backend_base: EventBase) -> None:
    """A one-shot timer fires once, and not before its time."""
    fired = []
    Event.timer(backend_base, lambda event, fd, what: fired.append((fd, what))).add(0.1)
    started = time.monotonic()
    assert backend_base.dispatch() is False
    assert 0.1 - TICK <= time.monotonic() - started < PATIENCE
    assert fired == [(-1, TIMEOUT)]


def test_loopbreak(backend_base: EventBase) -> None:
    """loopbreak() ends the loop before the next callback."""
    Event.timer(backend_base, lambda event, fd, what: backend_base.loopbreak()).add(0)
    Event.timer(backend_base, fail).add(0)
    assert backend_base.dispatch()
    assert backend_base.got_break
    assert not backend_base.got_exit


def test_loopexit(backend_base: EventBase) -> None:
    """loopexit() with a time ends the loop at that time."""
    Event.timer(backend_base, fail).add(24 * 60 * 60)
    backend_base.loopexit(0.1)
    started = time.monotonic()
    assert backend_base.dispatch()
    assert 0.1 - TICK <= time.monotonic() - started < PATIENCE
    assert backend_base.got_exit
    assert not backend_base.got_break


def test_loopexit_multiple(backend_base: EventBase) -> None:
    """Of several times given to loopexit() the earliest ends the loop."""
    backend_base.loopexit(0.05)
    backend_base.loopexit(PATIENCE)
    started = time.monotonic()
    assert backend_base.dispatch()
    assert 0.05 - TICK <= time.monotonic() - started < PATIENCE
    assert backend_base.got_exit
    assert not backend_base.got_break


def test_nonpersist_readd(backend_base: EventBase, pair: Pair) -> None:
    """One-shot events that add each other: the one that ran first is pending, the other is not."""
    left, right = pair
    left.sendall(b"Hello")
    right.sendall(b"Hello")
    ran = []

    def add_other(event: Event, fd: int, what: EventFlag) -> None:
        ran.append(event)
        (left if event is one else right).recv(256)
        (two if event is one else one).add()

    one = Event(backend_base, left, READ, add_other).add()
    two = Event(backend_base, right, READ, add_other).add()
    assert backend_base.loop(ONCE)
    first, second = ran
    assert {first, second} == {one, two}
    assert first.pending(READ) == READ
    assert not second.pending(READ)
    first.delete()


def test_multiple_events_for_same_fd(backend_base: EventBase, pair: Pair) -> None:
    """One descriptor can have a read event and a write event of its own."""
    left, right = pair
    fired = []
    reader = Event(backend_base, left, READ, lambda event, fd, what: fired.append(what)).add()
    writer = Event(backend_base, left, WRITE, lambda event, fd, what: fired.append(what)).add()
    assert backend_base.loop(ONCE)
    writer.delete()
    assert fired == [WRITE]
    right.sendall(TEXT)
    assert backend_base.loop(ONCE)
    reader.delete()
    assert fired == [WRITE, READ]


def test_want_only_once(backend_base: EventBase, pair: Pair) -> None:
    """A one-shot event fires once, though data keep arriving."""
    left, right = pair
    left.sendall(TEXT)
    fired = 0

    def on_read(event: Event, fd: int, what: EventFlag) -> None:
        nonlocal fired
        fired += 1
        assert right.recv(256)
        left.sendall(TEXT)

    Event(backend_base, right, READ, on_read).add()
    backend_base.loopexit(0.05)
    assert backend_base.dispatch()
    assert fired == 1


def test_event_once(backend_base: EventBase, pair: Pair) -> None:
    """once() calls back for a descriptor, after a time, or at once, and refuses all else."""
    left, right = pair
    called = []
    base = backend_base
    base.once(lambda *args: called.append(("read", *args)), fd=left, what=READ)
    base.once(lambda *args: called.append(("timeout", *args)), timeout=0.05)
    with pytest.raises(ValueError):
        base.once(lambda fd, what: pytest.fail("it fired"), what=EventFlag(0))
    with pytest.raises(TypeError):
        base.once(None)  # type: ignore[arg-type]
    base.once(lambda *args: called.append(("now", *args)))
    base.once(lambda *args: called.append(("now", *args)), timeout=0)
    right.sendall(TEXT)
    right.shutdown(socket.SHUT_WR)
    assert base.dispatch() is False
    assert len(called) == 4
    assert called.count(("now", -1, TIMEOUT)) == 2
    assert called[-1] == ("timeout", -1, TIMEOUT)
    assert [what for name, _, what in called if name == "read"] == [READ]


def test_event_once_never(backend_base: EventBase) -> None:
    """What was never called goes with its base."""

    def never(fd: int, what: EventFlag) -> None:
        pytest.fail("it fired")

    kept = weakref.ref(never)
    backend_base.once(never, timeout=10)
    del never
    backend_base.loopexit(0.02)
    assert backend_base.dispatch()
    assert kept() is not None
    backend_base.close()
    gc.collect()
    assert kept() is None


def test_event_pending(backend_base: EventBase, pair: Pair) -> None:
    """An event says for what it waits, and when its time will be over."""
    left, right = pair
    reader = Event(backend_base, left, READ, fail).add()
    writer = Event(backend_base, right, WRITE, fail)
    before = time.time()
    timer = Event.timer(backend_base, fail).add(0.5)
    after = time.time()
    assert reader.pending(READ) == READ
    assert not writer.pending(WRITE)
    assert not reader.pending(WRITE)
    assert reader.pending(READ | WRITE) == READ
    assert not reader.pending(TIMEOUT)
    assert reader.expires is None
    assert timer.pending(TIMEOUT) == TIMEOUT
    assert timer.expires is not None
    assert before + 0.5 - TICK <= timer.expires <= after + 0.5 + TICK


def test_event_closed_fd_poll(pair: Pair) -> None:
    """poll() reports a closed descriptor as ready to be read."""
    others = [method for method in EventBase.supported_methods() if method != "poll"]
    got = []
    with EventConfig(avoid=others) as config, EventBase(config) as base:
        event = Event(base, pair[0], READ, lambda event, fd, what: got.append(what)).add(0.5)
        assert event.pending(READ)
        pair[0].close()
        assert base.loop(ONCE)
    assert got == [READ]


def test_dup_fd(backend_base: EventBase, pair: Pair) -> None:
    """A descriptor closed too early and taken by another duplicate of the file gets its events."""
    left, right = pair
    left.sendall(b"Hello world")
    duplicate = os.dup(right.fileno())
    got: dict[Event, EventFlag] = {}

    def record(event: Event, fd: int, what: EventFlag) -> None:
        got[event] = what

    first = Event(backend_base, right, READ | PERSIST, record).add()
    second = Event(backend_base, duplicate, READ | PERSIST, record).add()
    assert backend_base.loop(ONCE)
    assert got == {first: READ, second: READ}

    # The loop runs before it is added again, or there would not seem to have been a delete.
    os.close(duplicate)
    second.delete()
    got.clear()
    assert backend_base.loop(ONCE)
    assert got == {first: READ}

    # WRITE this time, or a read event left over in the kernel would pass for the new one.
    os.dup2(right.fileno(), duplicate)
    second.close()
    second = Event(backend_base, duplicate, WRITE | PERSIST, record).add()
    got.clear()
    assert backend_base.loop(ONCE)
    assert got == {first: READ, second: WRITE}
    first.close()
    second.close()
    os.close(duplicate)


def many_events(base: EventBase, *, slow_add: bool) -> None:
    """Check that 70 sockets that are ready at once are all reported."""
    many = 70
    called = [0] * many

    def watch(i: int, sock: socket.socket) -> None:
        def on_write(event: Event, fd: int, what: EventFlag) -> None:
            called[i] += 1

        Event(base, sock, WRITE | PERSIST if slow_add else WRITE, on_write).add()

    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(many)]
    flags = NONBLOCK | ONCE if slow_add else NONBLOCK
    for i, sock in enumerate(sockets):
        sock.setblocking(False)
        watch(i, sock)
        if slow_add:
            base.loop(flags)
    base.loop(flags)
    assert called == [many - i + 1 if slow_add else 1 for i in range(many)]
    base.close()
    for sock in sockets:
        sock.close()


def test_many_events(backend_base: EventBase) -> None:
    """70 sockets that are ready at once are all reported."""
    many_events(backend_base, slow_add=False)


def test_many_events_slow_add(backend_base: EventBase) -> None:
    """The same while one more comes in each turn of the loop."""
    many_events(backend_base, slow_add=True)


def test_struct_event_size() -> None:
    """The library's struct event fits into that of the headers. Through the raw layer."""
    assert lib.event_get_struct_event_size() <= ffi.sizeof("struct event")


def test_get_assignment(backend_base: EventBase, pair: Pair) -> None:
    """An event knows what it was made with.

    From libevent itself comes what the object layer doesn't keep: its base, callback and argument
    for C, which are only told through the raw layer.
    """
    right = pair[1]
    event = Event(backend_base, right, READ, ignore)
    assert event.base is backend_base
    assert event.fd == right.fileno()
    assert event.what == READ
    assert event.callback is ignore
    assert event.signum is None

    ev = lib.event_new(
        backend_base.pointer, right.fileno(), lib.EV_READ, NO_CALLBACK, event.pointer
    )
    base, fd = ffi.new("struct event_base **"), ffi.new("evutil_socket_t *")
    what, callback, arg = (ffi.new(kind) for kind in ("short *", "event_callback_fn *", "void **"))
    lib.event_get_assignment(ev, base, fd, what, callback, arg)
    assert base[0] == backend_base.pointer
    assert (fd[0], what[0]) == (right.fileno(), lib.EV_READ)
    assert callback[0] == NO_CALLBACK
    assert arg[0] == event.pointer
    lib.event_get_assignment(ev, *[ffi.NULL] * 5)  # nothing asked for, nothing told
    lib.event_free(ev)


def test_event_foreach(backend_base: EventBase) -> None:
    """Each pending or active event is found once. The early stop is shown through the raw layer."""
    base = backend_base
    events = [Event.timer(base, ignore) for _ in range(5)]
    assert base.events() == []
    events[0].add(10)
    events[1].add(10)
    events[1].active()
    events[2].active()
    events[3].add(10)
    found = base.events()
    assert len(found) == 4
    assert set(found) == set(events[:4])

    walked = []

    @ffi.callback("event_base_foreach_event_cb")  # type: ignore[untyped-decorator]
    def stop_at_third(base: Any, ev: Any, arg: Any) -> int:
        walked.append(ev)
        return 101 if ev == events[2].pointer else 0

    assert lib.event_base_foreach_event(ffi.NULL, stop_at_third, ffi.NULL) == -1
    assert lib.event_base_foreach_event(base.pointer, ffi.NULL, ffi.NULL) == -1
    assert walked == []
    assert lib.event_base_foreach_event(base.pointer, stop_at_third, ffi.NULL) == 101
    assert walked[-1] == events[2].pointer


def cached_times(base: EventBase, react: Callable[[], object]) -> list[float]:
    """Return the cached time as three callbacks of one round see it, each of which then reacts."""
    times = []

    def on_active(event: Event, fd: int, what: EventFlag) -> None:
        times.append(base.gettimeofday_cached)
        react()

    for _ in range(3):
        Event.user(base, on_active).active()
    assert base.dispatch() is False
    return times


def nap() -> None:
    time.sleep(0.03)


def test_gettimeofday_cached(backend_base: EventBase) -> None:
    """Outside the loop the cached time is the time; inside it is one time for all callbacks."""
    before = time.time()
    now = ffi.new("struct timeval *")
    assert lib.event_base_gettimeofday_cached(ffi.NULL, now) == 0
    times = [now.tv_sec + now.tv_usec / 1e6, backend_base.gettimeofday_cached]
    after = time.time()
    assert all(before - 1e-5 <= moment <= after + 1e-5 for moment in times)

    before = time.time()
    one, two, three = cached_times(backend_base, lambda: None)
    assert one == two == three
    assert before - TICK <= one <= time.time() + TICK


def test_gettimeofday_cached_sleep(backend_base: EventBase) -> None:
    """The cached time doesn't go on while callbacks sleep."""
    one, two, three = cached_times(backend_base, nap)
    assert one == two == three


def test_gettimeofday_cached_reset(backend_base: EventBase) -> None:
    """update_cache_time() has the next callback see the time that it is by then."""

    def nap_and_update() -> None:
        nap()
        backend_base.update_cache_time()

    one, two, three = cached_times(backend_base, nap_and_update)
    assert two - one > 0.01
    assert three - two > 0.01


def test_gettimeofday_cached_disabled(new_base: NewBase) -> None:
    """With NO_CACHE_TIME each callback sees the time that it is."""
    one, two, three = cached_times(new_base(flags=EventBaseFlag.NO_CACHE_TIME), nap)
    assert two - one > 0.01
    assert three - two > 0.01


def test_gettimeofday_cached_disabled_nosleep(new_base: NewBase) -> None:
    """With NO_CACHE_TIME quick callbacks see the time too."""
    before = time.time()
    one, two, three = cached_times(new_base(flags=EventBaseFlag.NO_CACHE_TIME), lambda: None)
    assert before - 1e-5 <= one <= two <= three <= time.time() + 1e-5


def test_active_by_fd(backend_base: EventBase, pair: Pair) -> None:
    """Events are made active by their descriptor or signal, if there are any."""
    left, right = pair
    base = backend_base
    base.active_by_fd(1000, READ)
    base.active_by_fd(-1, READ)
    for signum in (1000, -1):
        with pytest.raises(ValueError):
            base.active_by_signal(signum)
        lib.event_base_active_by_signal(base.pointer, signum)

    got: dict[Event, EventFlag] = {}

    def record(event: Event, fd: int, what: EventFlag) -> None:
        got[event] = what

    tenmin = 600
    Event(base, left, READ, record).add(tenmin)
    writer = Event(base, left, WRITE, record).add()
    reader = Event(base, right, READ, record).add()
    timed = Event(base, right, READ, record).add(tenmin)
    hangup = Event.signal(base, signal.SIGHUP, record, persist=False).add(tenmin)

    base.active_by_fd(left, WRITE)
    base.active_by_fd(right, READ)
    base.active_by_fd(right, TIMEOUT)
    base.active_by_signal(signal.SIGHUP)
    assert base.loop(ONCE)
    assert got == {writer: WRITE, reader: READ, timed: READ | TIMEOUT, hangup: SIGNAL}


def test_fork(variant: Variant, pair: Pair) -> None:
    """After reinit() in a forked child, descriptors and signals work in both processes."""
    left, right = pair
    told, teller = socket.socketpair()
    with told, teller, variant.config() as config:
        told.settimeout(PATIENCE)
        base = EventBase(config)
        read: list[bytes] = []

        def on_read(event: Event, fd: int, what: EventFlag) -> None:
            read.append(right.recv(256))
            teller.send(b"\0")
            if read[-1] and len(read) == 1:
                event.add()

        def on_signal(event: Event, fd: int, what: EventFlag) -> None:
            event.delete()

        def run(base: EventBase) -> None:
            Event.signal(base, signal.SIGUSR1, on_signal).add()
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR2)
            assert base.dispatch() is False

        left.sendall(TEXT)
        Event(base, right, READ, on_read).add()
        child_ended = Event.signal(base, signal.SIGCHLD, on_signal).add()
        Event.signal(base, signal.SIGUSR2, on_signal).add()

        pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(int(PATIENCE))
                base.reinit()
                child_ended.delete()
                run(base)
                base.close()
                assert read == [TEXT, TEXT]
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)

        told.recv(1)  # the child has read the first text
        left.sendall(TEXT)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert read == []

        left.sendall(TEXT)
        left.shutdown(socket.SHUT_WR)
        with bounded(base):
            run(base)
        assert read == [TEXT, b""]


def in_another_thread(base: EventBase, act: Callable[[], object]) -> bool:
    """Run the loop in another thread; once it runs, act in this one; return how it ended."""
    running = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        loop = pool.submit(base.dispatch)
        base.defer(running.set)
        assert running.wait(PATIENCE)
        act()
        return loop.result(PATIENCE)


def test_del_wait(backend_base: EventBase, pair: Pair) -> None:
    """event_del() in one thread waits until the event's callback in another has returned.

    Through the raw layer: the object layer has an event deleted only in its loop's own thread.
    """
    left, right = pair
    started = threading.Event()
    finished = []

    def on_read(event: Event, fd: int, what: EventFlag) -> None:
        started.set()
        time.sleep(0.1)
        finished.append(what)

    def delete() -> None:
        left.sendall(TEXT)
        assert started.wait(PATIENCE)
        assert lib.event_del(event.pointer) == 0
        assert finished == [READ]

    event = Event(backend_base, right, READ | PERSIST, on_read).add()
    assert in_another_thread(backend_base, delete) is False


def test_del_notify(backend_base: EventBase, pair: Pair) -> None:
    """A loop in another thread ends when its last event is deleted.

    By defer(), because an event is deleted in the thread of its loop; and directly through the raw
    layer.
    """
    right = pair[1]
    event = Event(backend_base, right, READ, fail).add()
    assert in_another_thread(backend_base, lambda: backend_base.defer(event.delete)) is False

    event.add()
    assert in_another_thread(backend_base, lambda: lib.event_del(event.pointer)) is False
