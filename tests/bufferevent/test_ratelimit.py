"""RateLimit and RateLimitGroup: how much bufferevents may read and write, alone and together."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import pickle
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    ClosedError,
    EventBase,
    EventConfig,
    FilterResult,
    ForkError,
    LoopFlag,
    RateLimit,
    RateLimitGroup,
    ThreadError,
    lib,
)
from tests.kit.certificates import HOST, Authority
from tests.kit.flags import CLOSE, READ
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import Pair, run_until, settle
from tests.kit.processes import in_child
from tests.kit.support import PATIENCE, run_python
from tests.kit.tls_peers import End, client_context, connected_ends, server_context

UNLIMITED = lib.EV_RATE_LIMIT_MAX

#: A limit that is not reached again before the test is over, once it is.
TIGHT = RateLimit(100, 100, 100, 100, tick=1000)


OPTIONS = [
    CLOSE,
    CLOSE | BufferEventOption.EAGER,
    CLOSE | BufferEventOption.DEFER_CALLBACKS,
    CLOSE | BufferEventOption.THREADSAFE,
]


@pytest.fixture
def bev(base: EventBase, pair: Pair) -> BufferEvent:
    """A bufferevent that reads; what is sent by pair[1] arrives there."""
    bev = BufferEvent(base, pair[0])
    bev.enable(READ)
    return bev


@pytest.fixture
def group(base: EventBase) -> RateLimitGroup:
    return RateLimitGroup(base, TIGHT)


def several(base: EventBase, number: int) -> tuple[list[BufferEvent], list[socket.socket]]:
    """Return bufferevents that read, and the sockets at their other ends."""
    bevs, socks = [], []
    for _ in range(number):
        one, other = socket.socketpair()
        other.setblocking(False)
        bevs.append(BufferEvent(base, one))
        bevs[-1].enable(READ)
        socks.append(other)
    return bevs, socks


def arrived(base: EventBase, *bevs: BufferEvent) -> list[int]:
    """Return how much each has read by now."""
    settle(base)
    return [len(bev.input) for bev in bevs]


def received(sock: socket.socket) -> int:
    """Return how much comes out of *sock* now."""
    try:
        return len(sock.recv(2**20))
    except BlockingIOError:
        return 0


# The value.


def test_a_limit_is_a_value() -> None:
    limit = RateLimit(1000, 4000, 500, 600, tick=0.1)
    assert limit == RateLimit(1000, 4000, write_rate=500, write_burst=600, tick=0.1)
    assert len({limit, RateLimit(1000, 4000, 500, 600, tick=0.1), RateLimit(1000)}) == 2
    for other in (copy.copy(limit), copy.deepcopy(limit), pickle.loads(pickle.dumps(limit))):
        assert other == limit
    with pytest.raises(AttributeError):
        limit.tick = 0.0  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"^tick must be"):
        dataclasses.replace(limit, tick=0.0)


def test_what_is_not_given_is_not_limited_and_a_burst_is_the_rate() -> None:
    limit = RateLimit(read_rate=1000)
    assert dataclasses.astuple(limit) == (1000, 1000, UNLIMITED, UNLIMITED, 1.0)
    assert limit == RateLimit(1000, 1000, UNLIMITED, UNLIMITED, tick=1)
    assert dataclasses.astuple(RateLimit())[:4] == (UNLIMITED,) * 4
    assert RateLimit(read_rate=1000, read_burst=UNLIMITED).read_burst == UNLIMITED


def test_a_limit_shows_what_it_limits() -> None:
    assert repr(RateLimit(write_rate=5)) == "RateLimit(write_rate=5, write_burst=5, tick=1.0)"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"read_rate": 0}, "read_rate must be from 1"),
        ({"read_rate": -1}, "read_rate must be from 1"),
        ({"write_rate": 0}, "write_rate must be from 1"),
        ({"write_rate": UNLIMITED + 1}, "write_rate must be from 1"),
        ({"read_rate": 2**32}, "read_rate must be from 1 to 4294967295, or None"),
        ({"read_rate": 1, "read_burst": 2**40}, "read_burst must be from 1 to 4294967295"),
        ({"read_rate": 10, "read_burst": 9}, "read_burst must be at least read_rate, not 9"),
        ({"read_burst": 9}, "read_burst must be at least read_rate, not 9"),
        ({"write_rate": 10, "write_burst": 9}, "write_burst must be at least write_rate"),
        ({"tick": 0.0009}, "tick must be from 0.001 to 4294967 seconds, not 0.0009"),
        ({"tick": 4294967.296}, "tick must be from 0.001"),
        ({"tick": 0}, "tick must be from 0.001"),
        ({"tick": -1}, "tick must be from 0 "),
        ({"tick": float("nan")}, "tick must be from 0 "),
    ],
)
def test_a_limit_that_libevent_can_not_keep_is_refused(
    arguments: dict[str, Any], complaint: str
) -> None:
    """J2, and what else would divide by zero or end a connection."""
    with pytest.raises(ValueError, match=f"^{complaint}"):
        RateLimit(**arguments)


@pytest.mark.parametrize("name", ["read_rate", "read_burst", "write_rate", "write_burst", "tick"])
def test_a_limit_consists_of_numbers(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be"):
        RateLimit(**{name: "1"})  # type: ignore[arg-type]


# What it does.


def test_reading_is_no_faster_than_the_limit(base: EventBase, bev: BufferEvent, pair: Pair) -> None:
    rate, burst, tick = 1000, 3000, 0.05
    bev.rate_limit = RateLimit(rate, burst, tick=tick)
    pair[1].send(b"x" * 100_000)
    begun = time.monotonic()
    while (got := len(bev.input)) < 8 * rate:
        base.loop(LoopFlag.ONCE)
        elapsed = time.monotonic() - begun
        assert len(bev.input) <= burst + rate * (elapsed / tick + 2)
        assert elapsed < PATIENCE
    assert got < 100_000


def test_writing_is_no_faster_than_the_limit(base: EventBase, bev: BufferEvent, pair: Pair) -> None:
    rate, burst, tick = 1000, 3000, 0.05
    bev.rate_limit = RateLimit(write_rate=rate, write_burst=burst, tick=tick)
    bev.write(b"x" * 100_000)
    begun, got = time.monotonic(), 0
    while got < 8 * rate:
        base.loop(LoopFlag.ONCE)
        got += received(pair[1])
        elapsed = time.monotonic() - begun
        assert got <= burst + rate * (elapsed / tick + 2)
        assert elapsed < PATIENCE
    assert bev.output


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("how", ["alone", "in a group"])
@pytest.mark.parametrize("when", ["before", "in its callback"])
def test_whoever_calls_back_and_how_is_limited(
    base: EventBase, pair: Pair, options: BufferEventOption, how: str, when: str
) -> None:
    group = RateLimitGroup(base, TIGHT)
    got = []

    def limit(bev: BufferEvent) -> None:
        if how == "alone":
            bev.rate_limit = TIGHT
        else:
            bev.add_to_rate_limit_group(group)

    def on_read(bev: BufferEvent) -> None:
        got.append(bev.read())
        if when == "in its callback" and len(got) == 1:
            bev.write(b"y" * 30)
            limit(bev)
        bev.write(b"y" * 1000)

    bev = BufferEvent(base, pair[0], options, on_read=on_read)
    bev.enable(READ)
    if when == "before":
        limit(bev)
    else:
        pair[1].send(b"x")
        settle(base)
        assert received(pair[1]) == 100
    pair[1].send(b"x" * 1000)
    settle(base)
    assert len(b"".join(got[-1:])) == 100
    assert received(pair[1]) == (100 if when == "before" else 0)
    bev.rate_limit = None
    bev.remove_from_rate_limit_group()
    settle(base)
    assert sum(map(len, got)) == 1000 + (when != "before")
    assert received(pair[1]) == 1000 * len(got) - (100 if when == "before" else 70)


def test_one_direction_may_be_limited_alone(base: EventBase, bev: BufferEvent, pair: Pair) -> None:
    bev.rate_limit = RateLimit(write_rate=100, tick=1000)
    bev.write(b"x" * 1000)
    pair[1].send(b"y" * 1000)
    assert arrived(base, bev) == [1000]
    assert received(pair[1]) == 100


def test_it_begins_with_the_rate_and_can_save_up_to_the_burst(base: EventBase, pair: Pair) -> None:
    bev = BufferEvent(base, pair[0])
    bev.rate_limit = RateLimit(100, 500, 200, 1000, tick=0.01)
    assert bev.read_limit <= 500
    run_until(base, lambda: (bev.read_limit, bev.write_limit) == (500, 1000))
    time.sleep(0.05)
    assert (bev.read_limit, bev.write_limit) == (500, 1000)


def test_what_is_given_back_to_no_limit_is_no_limit(base: EventBase, bev: BufferEvent) -> None:
    """As libevent does for a TLS connection that follows another one, whose bytes it takes off."""
    bev.rate_limit = RateLimit(read_rate=1000)
    assert lib.bufferevent_decrement_write_limit(bev.pointer, -1000) == 0
    assert bev.write_limit == UNLIMITED
    with RateLimitGroup(base, RateLimit(read_rate=1000)) as group:
        assert lib.bufferevent_rate_limit_group_decrement_write(group.pointer, -1000) == 0
        assert group.write_limit == UNLIMITED


def test_no_more_is_given_back_than_c_has_room_for(base: EventBase, bev: BufferEvent) -> None:
    """Beyond its burst libevent would refill the bucket to less than nothing."""
    bev.rate_limit = RateLimit(100, 200)
    bev.rate_limit = RateLimit()
    with pytest.raises(ValueError, match="n must be from"):
        bev.decrement_read_limit(-(UNLIMITED - 100))
    assert bev.read_limit > 0


def test_the_levels_can_be_read(base: EventBase, bev: BufferEvent, pair: Pair) -> None:
    assert (bev.read_limit, bev.write_limit) == (UNLIMITED, UNLIMITED)
    bev.rate_limit = TIGHT
    assert bev.rate_limit is TIGHT
    assert (bev.read_limit, bev.write_limit) == (100, 100)
    assert (bev.max_to_read, bev.max_to_write) == (100, 100)
    pair[1].send(b"x" * 30)
    bev.write(b"y" * 40)
    settle(base)
    assert (bev.read_limit, bev.write_limit) == (70, 60)
    assert (bev.max_to_read, bev.max_to_write) == (70, 60)


def test_one_limit_serves_many(base: EventBase) -> None:
    bevs, socks = several(base, 3)
    for bev, sock in zip(bevs, socks, strict=True):
        bev.rate_limit = TIGHT
        sock.send(b"x" * 1000)
    bevs[1].close()
    assert arrived(base, bevs[0], bevs[2]) == [100, 100]
    for sock in socks:
        sock.close()


def test_without_its_limit_it_reads_at_once(base: EventBase, bev: BufferEvent, pair: Pair) -> None:
    bev.rate_limit = TIGHT
    bev.write(b"y" * 1000)
    pair[1].send(b"x" * 1000)
    assert arrived(base, bev) == [100]
    bev.rate_limit = None
    assert bev.rate_limit is None
    assert arrived(base, bev) == [1000]
    assert received(pair[1]) == 1000
    bev.rate_limit = None
    assert (bev.max_to_read, bev.read_limit) == (bev.max_single_read, UNLIMITED)


def test_its_limit_can_be_taken_away_in_its_callback(
    base: EventBase, bev: BufferEvent, pair: Pair
) -> None:
    bev.rate_limit = TIGHT
    bev.on_read = lambda bev: setattr(bev, "rate_limit", None)
    pair[1].send(b"x" * 1000)
    assert arrived(base, bev) == [1000]
    assert bev.max_to_read == bev.max_single_read  # nothing stands in for it any more


def test_a_limit_set_in_the_same_callback_again_stays(
    base: EventBase, bev: BufferEvent, pair: Pair
) -> None:
    def on_read(bev: BufferEvent) -> None:
        bev.rate_limit = None
        bev.rate_limit = RateLimit(50, tick=1000)
        bev.on_read = None

    bev.rate_limit = TIGHT
    bev.on_read = on_read
    pair[1].send(b"x" * 1000)
    assert arrived(base, bev) == [150]
    assert bev.read_limit == 0


def test_another_limit_takes_over_what_is_left(
    base: EventBase, bev: BufferEvent, pair: Pair
) -> None:
    bev.rate_limit = TIGHT
    pair[1].send(b"x" * 30)
    settle(base)
    for limit, left in [
        (RateLimit(100, 1000, 1, tick=1000), 70),
        (RateLimit(10, 60, tick=500), 60),
        (RateLimit(1000, tick=2000), 60),
    ]:
        bev.rate_limit = limit
        assert bev.rate_limit == limit
        assert bev.read_limit == left
    bev.decrement_read_limit(300)
    bev.rate_limit = TIGHT
    assert (bev.read_limit, bev.write_limit) == (-240, 1)
    bev.rate_limit = RateLimit(tick=500)  # the sanitizers see if a number doesn't fit
    assert bev.read_limit == -240
    bev.rate_limit = TIGHT
    assert (bev.read_limit, bev.write_limit) == (-240, 1)
    pair[1].send(b"x")
    assert arrived(base, bev) == [30]


@pytest.mark.slow
@pytest.mark.parametrize("tick", [0.01, 0.015, 0.02, 0.03, 0.05, 0.1])
def test_the_bucket_is_refilled_though_the_tick_has_changed(
    base: EventBase, bev: BufferEvent, pair: Pair, tick: float
) -> None:
    bev.rate_limit = RateLimit(100, tick=0.02)
    pair[1].send(b"x" * 1000)
    settle(base)
    bev.rate_limit = RateLimit(100, tick=tick)
    run_until(base, lambda: len(bev.input) == 1000)


def test_bytes_can_be_counted_by_hand_and_given_back(
    base: EventBase, bev: BufferEvent, pair: Pair
) -> None:
    bev.rate_limit = TIGHT
    bev.decrement_read_limit(250)
    bev.decrement_write_limit(250)
    assert (bev.read_limit, bev.write_limit) == (-150, -150)
    assert (bev.max_to_read, bev.max_to_write) == (0, 0)
    bev.write(b"y" * 1000)
    pair[1].send(b"x" * 1000)
    assert arrived(base, bev) == [0]
    assert received(pair[1]) == 0
    bev.decrement_read_limit(-200)
    bev.decrement_write_limit(-220)
    assert arrived(base, bev) == [50]
    assert received(pair[1]) == 70
    bev.decrement_read_limit(-100)
    bev.decrement_read_limit(0)
    with pytest.raises(ValueError, match=r"^n must be from "):
        bev.decrement_write_limit(-101)
    with pytest.raises(ValueError, match=r"^n must be from "):
        bev.decrement_read_limit(2**32)
    with pytest.raises(TypeError, match=r"^n must be an integer"):
        bev.decrement_read_limit(1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("unlimited", [False, True])
def test_nothing_is_counted_by_hand_without_a_limit(bev: BufferEvent, unlimited: bool) -> None:
    """J6."""
    if unlimited:
        bev.rate_limit = TIGHT
        bev.rate_limit = None
    for count in (bev.decrement_read_limit, bev.decrement_write_limit):
        with pytest.raises(ValueError, match=r"^this bufferevent has no rate limit$"):
            count(1)


def test_a_tick_of_a_part_of_a_millisecond_lets_no_more_through(
    base: EventBase, bev: BufferEvent, pair: Pair
) -> None:
    """libevent waits for all of the tick, but counts 1 ms of it: it would add 1.9 times as much."""
    got, tick = 0, 0.0019
    bev.rate_limit = RateLimit(100, 10_000, tick=tick)
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < 0.3:
        with contextlib.suppress(BlockingIOError):
            pair[1].send(bytes(4096))
        base.loop(LoopFlag.ONCE)
        got += len(bev.read())
    assert 0 < got < 1.2 * 100 * elapsed / tick + 200
    assert bev.rate_limit.tick == tick


@pytest.mark.parametrize("count", ["decrement_read_limit", "decrement_write_limit"])
def test_a_limit_that_goes_while_it_is_counted_is_no_limit(count: str) -> None:
    """As a signal handler, or the number's own code, may remove it: C would end the process."""
    run_python(
        f"""
        import socket
        from libevent_py import BufferEvent, EventBase, RateLimit

        class Removing:
            def __index__(self):
                bev.rate_limit = None
                return 5

        here, far = socket.socketpair()
        with EventBase() as base, far:
            bev = BufferEvent(base, here)
            bev.rate_limit = RateLimit(100)
            try:
                bev.{count}(Removing())
            except ValueError as error:
                assert str(error) == "this bufferevent has no rate limit", error
            else:
                raise AssertionError("nothing was raised")
        """
    )


def test_an_exhausted_bufferevent_is_refilled_though_it_owes_several_ticks(
    base: EventBase, bev: BufferEvent, pair: Pair
) -> None:
    bev.rate_limit = RateLimit(100, tick=0.005)
    bev.decrement_read_limit(1000)
    pair[1].send(b"x")
    run_until(base, lambda: bev.input)


def test_the_largest_limit_does_not_end_the_input(
    base: EventBase, bev: BufferEvent, pair: Pair
) -> None:
    bev.on_event = lambda bev, what: pytest.fail(str(what))
    for limit in (RateLimit(2**32 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1), RateLimit()):
        bev.rate_limit = limit
        pair[1].send(b"x" * 10)
        bev.write(b"y" * 10)
        assert arrived(base, bev) == [10]
        bev.read()
        assert received(pair[1]) == 10


def test_a_connection_waits_though_the_other_end_has_closed(
    base: EventBase, bev: BufferEvent, pair: Pair
) -> None:
    events = []
    bev.on_event = lambda bev, what: events.append(what)
    bev.rate_limit = TIGHT
    pair[1].send(b"x" * 150)
    pair[1].shutdown(socket.SHUT_WR)
    assert arrived(base, bev) == [100]
    assert not events
    bev.decrement_read_limit(-100)
    assert arrived(base, bev) == [150]
    assert events == [BufferEventFlag.READING | BufferEventFlag.EOF]


def test_tls_is_limited_by_what_goes_through_the_socket(
    base: EventBase, authority: Authority
) -> None:
    one, other = connected_ends(base, authority)
    one.bev.rate_limit = RateLimit(write_rate=5000, tick=1000)
    one.bev.write(b"x" * 100_000)
    run_until(base, lambda: len(other.received) == 100_000)  # libevent does not split it
    assert one.bev.write_limit < 5000 - 100_000
    one.bev.write(b"y")
    settle(base)
    assert len(other.received) == 100_000
    one.bev.rate_limit = None
    run_until(base, lambda: len(other.received) == 100_001)
    other.bev.rate_limit = RateLimit(read_rate=5000, tick=1000)
    one.bev.write(b"x" * 100_000)
    settle(base)
    assert len(other.received) < 100_001 + 5000 + 2**15  # no more than a record or two
    assert other.bev.read_limit <= 0
    other.bev.rate_limit = None
    run_until(base, lambda: len(other.received) == 200_001)


@pytest.mark.parametrize(
    "limit",
    [
        RateLimit(write_rate=1_000_000),
        RateLimit(read_rate=2**31, tick=1000),
    ],
    ids=str,
)
def test_tls_reads_by_a_limit_that_is_beyond_an_int(
    base: EventBase, authority: Authority, limit: RateLimit
) -> None:
    one, other = connected_ends(base, authority)
    one.bev.write(b"x" * 100_000)
    other.bev.rate_limit = limit
    assert other.bev.rate_limit == limit
    with pytest.raises(ValueError, match="n must be from"):
        other.bev.decrement_read_limit(-(2**31))
    assert 0 < other.bev.max_to_read < 2**31

    def on_read(bev: BufferEvent) -> None:
        other.on_read(bev)
        if len(other.received) == 100_000:
            base.loopbreak()

    other.bev.on_read = on_read
    base.loopexit(PATIENCE)
    base.dispatch()
    assert base.got_break


def test_tls_through_another_one_is_limited_only_after_its_handshake(
    base: EventBase, authority: Authority, group: RateLimitGroup
) -> None:
    below, client = BufferEvent.pair(base), client_context(authority)
    one = End(BufferEvent.tls_filter, below[0], client, server_hostname=HOST)
    other = End(BufferEvent.tls_filter, below[1], server_context(authority))
    one.bev.write(b"x" * 10_000)
    one.bev.rate_limit = None
    with pytest.raises(ValueError, match="can't be limited until its handshake is done"):
        one.bev.rate_limit = TIGHT
    with pytest.raises(ValueError, match="can't be limited until its handshake is done"):
        one.bev.add_to_rate_limit_group(group)
    assert not one.bev._limits.any
    assert group.members == []
    run_until(base, lambda: one.connected and other.connected)
    one.bev.rate_limit = TIGHT
    one.bev.add_to_rate_limit_group(group)
    one.bev.enable(READ)
    run_until(base, lambda: len(other.received) == 10_000)


def test_a_pair_waits_with_its_group_but_counts_nothing(
    base: EventBase, group: RateLimitGroup
) -> None:
    bev, other = BufferEvent.pair(base)
    bev.enable(READ)
    bev.add_to_rate_limit_group(group)
    other.write(b"x" * 1000)
    assert arrived(base, bev) == [1000]
    assert group.totals() == (0, 0)
    group.decrement_read(100)
    other.write(b"x")
    assert arrived(base, bev) == [1000]
    group.close()
    assert arrived(base, bev) == [1001]


# How much at once.


def test_what_is_read_and_written_at_once_can_be_set(
    base: EventBase, bev: BufferEvent, pair: Pair
) -> None:
    pieces = []
    bev.on_read = lambda bev: pieces.append(len(bev.read()))
    bev.max_single_read, bev.max_single_write = 300, 400
    assert (bev.max_single_read, bev.max_single_write) == (300, 400)
    assert (bev.max_to_read, bev.max_to_write) == (300, 400)
    pair[1].send(b"x" * 1000)
    bev.write(b"y" * 1000)
    base.loop(LoopFlag.ONCE)
    assert received(pair[1]) == 400
    run_until(base, lambda: sum(pieces) == 1000)
    assert pieces == [300, 300, 300, 100]


def test_nothing_at_once_is_libevent_s_default(bev: BufferEvent) -> None:
    default = bev.max_single_read, bev.max_single_write
    assert default == (16384, 16384)
    bev.max_single_read = bev.max_single_write = 1
    bev.max_single_read = bev.max_single_write = 0
    assert (bev.max_single_read, bev.max_single_write) == default


@pytest.mark.parametrize("name", ["max_single_read", "max_single_write"])
def test_what_is_no_size_is_refused(bev: BufferEvent, name: str) -> None:
    for wrong in (-1, 2**31, 2**32):
        with pytest.raises(ValueError, match=f"^{name} must be from 0 to 2147483647"):
            setattr(bev, name, wrong)
    with pytest.raises(TypeError, match=f"^{name} must be an integer"):
        setattr(bev, name, 1.5)


# Groups.


def test_the_members_of_a_group_share_its_limit(base: EventBase, group: RateLimitGroup) -> None:
    bevs, socks = several(base, 4)
    for bev, sock in zip(bevs, socks, strict=True):
        bev.add_to_rate_limit_group(group)
        bev.write(b"y" * 1000)
        sock.send(b"x" * 1000)
    # Each may go beyond what is left by its share.
    assert 100 <= sum(arrived(base, *bevs)) <= 100 + 3 * 64
    assert 100 <= sum(map(received, socks)) <= 100 + 3 * 64
    assert group.read_limit <= 0
    assert group.write_limit <= 0
    assert group.members == bevs
    assert all(bev.rate_limit_group is group for bev in bevs)
    for sock in socks:
        sock.close()


def test_a_group_s_bucket_is_refilled_and_no_faster(base: EventBase) -> None:
    rate, burst, tick = 2000, 4000, 0.05
    group = RateLimitGroup(base, RateLimit(rate, burst, tick=tick))
    bevs, socks = several(base, 5)
    for bev, sock in zip(bevs, socks, strict=True):
        bev.add_to_rate_limit_group(group)
        sock.send(b"x" * 50_000)
    begun = time.monotonic()
    while sum(got := [len(bev.input) for bev in bevs]) < 8 * rate or 0 in got:
        base.loop(LoopFlag.ONCE)
        elapsed = time.monotonic() - begun
        assert sum(len(bev.input) for bev in bevs) <= burst + rate * (elapsed / tick + 3)
        assert elapsed < PATIENCE
    for sock in socks:
        sock.close()


def test_a_member_s_own_limit_counts_too(base: EventBase, bev: BufferEvent, pair: Pair) -> None:
    group = RateLimitGroup(base, RateLimit(1000, tick=1000))
    bev.add_to_rate_limit_group(group)
    bev.rate_limit = TIGHT
    assert bev.max_to_read == 100
    pair[1].send(b"x" * 5000)
    assert arrived(base, bev) == [100]
    assert group.read_limit == 900
    bev.rate_limit = None
    assert arrived(base, bev) == [1000]
    assert bev.rate_limit_group is group


def test_who_leaves_a_group_goes_on_at_once(
    base: EventBase, group: RateLimitGroup, bev: BufferEvent, pair: Pair
) -> None:
    bev.add_to_rate_limit_group(group)
    bev.add_to_rate_limit_group(group)
    pair[1].send(b"x" * 1000)
    assert arrived(base, bev) == [100]
    bev.remove_from_rate_limit_group()
    bev.remove_from_rate_limit_group()
    assert bev.rate_limit_group is None
    assert group.members == []
    assert arrived(base, bev) == [1000]


def test_who_comes_to_an_exhausted_group_waits(
    base: EventBase, group: RateLimitGroup, bev: BufferEvent, pair: Pair
) -> None:
    group.decrement_read(100)
    bev.add_to_rate_limit_group(group)
    pair[1].send(b"x" * 1000)
    assert arrived(base, bev) == [0]
    group.decrement_read(-100)
    assert arrived(base, bev) == [100]


def test_a_bufferevent_is_in_one_group_at_most(
    base: EventBase, group: RateLimitGroup, bev: BufferEvent, pair: Pair
) -> None:
    other = RateLimitGroup(base, RateLimit(300, tick=1000))
    group.decrement_read(100)
    bev.add_to_rate_limit_group(group)
    bev.add_to_rate_limit_group(other)
    assert (group.members, other.members) == ([], [bev])
    pair[1].send(b"x" * 1000)
    assert arrived(base, bev) == [300]


def test_a_group_says_how_much_has_gone_through(
    base: EventBase, group: RateLimitGroup, bev: BufferEvent, pair: Pair
) -> None:
    bev.add_to_rate_limit_group(group)
    assert group.totals() == (0, 0)
    pair[1].send(b"x" * 30)
    bev.write(b"y" * 20)
    settle(base)
    assert group.totals() == (30, 20)
    assert (group.totals().read, group.totals().written) == (30, 20)
    assert (group.read_limit, group.write_limit) == (70, 80)
    group.reset_totals()
    assert group.totals() == (0, 0)


def test_a_group_s_bytes_can_be_counted_by_hand_and_given_back(
    base: EventBase, group: RateLimitGroup, bev: BufferEvent, pair: Pair
) -> None:
    bev.add_to_rate_limit_group(group)
    group.decrement_read(150)
    group.decrement_write(150)
    assert (group.read_limit, group.write_limit) == (-50, -50)
    bev.write(b"y" * 1000)
    pair[1].send(b"x" * 1000)
    assert arrived(base, bev) == [0]
    assert received(pair[1]) == 0
    group.decrement_read(-80)
    group.decrement_write(-90)
    assert 30 <= arrived(base, bev)[0] <= 64
    assert 40 <= received(pair[1]) <= 64
    for count in (group.decrement_read, group.decrement_write):
        with pytest.raises(ValueError, match=r"^n must be from "):
            count(-1000)


def test_a_group_s_limit_can_be_replaced_by_one_with_the_same_tick(
    base: EventBase, group: RateLimitGroup
) -> None:
    assert group.limit is TIGHT
    group.limit = RateLimit(50, 60, 70, 1000, tick=1000)
    assert group.limit == RateLimit(50, 60, 70, 1000, tick=1000)
    assert (group.read_limit, group.write_limit) == (60, 100)
    with pytest.raises(ValueError, match=r"^limit must have a tick of 1000.0 s, not 1.0$"):
        group.limit = RateLimit(50)
    with pytest.raises(TypeError, match=r"^limit must be a RateLimit, not None"):
        group.limit = None  # type: ignore[assignment]
    assert group.limit.read_rate == 50


def test_a_member_s_share_has_a_minimum(base: EventBase, bev: BufferEvent) -> None:
    group = RateLimitGroup(base, TIGHT, min_share=20)
    bevs, socks = several(base, 9)
    for member in (bev, *bevs):
        member.add_to_rate_limit_group(group)
    assert (group.min_share, bev.max_to_read) == (20, 20)
    group.min_share = 5
    assert (group.min_share, bev.max_to_read) == (5, 10)
    group.min_share = 1000  # no more than the rate, so that one can go at every tick
    assert (group.min_share, bev.max_to_read) == (1000, 100)
    for wrong in (0, -1, 2**63):
        with pytest.raises(ValueError, match=r"^min_share must be from 1"):
            group.min_share = wrong
        with pytest.raises(ValueError, match=r"^min_share must be from 1"):
            RateLimitGroup(base, TIGHT, min_share=wrong)
    for sock in socks:
        sock.close()


def test_many_members_of_a_tiny_group_are_not_told_that_the_input_has_ended(
    base: EventBase,
) -> None:
    group = RateLimitGroup(base, RateLimit(1, 1, 1, 1, tick=0.001), min_share=1)
    bevs, socks = several(base, 10)
    for bev, sock in zip(bevs, socks, strict=True):
        bev.on_event = lambda bev, what: pytest.fail(str(what))
        bev.add_to_rate_limit_group(group)
        bev.write(b"yy")
        sock.send(b"xx")
    run_until(base, lambda: all(len(bev.input) == 2 and not bev.output for bev in bevs))
    for sock in socks:
        sock.close()


def test_a_group_keeps_dispatch_from_returning(base: EventBase) -> None:
    """J4."""
    group = RateLimitGroup(base, RateLimit(tick=0.001))
    base.loopexit(0.05)
    assert base.dispatch() is True
    base.once(lambda fd, what: group.close(), timeout=0.01)
    assert base.dispatch() is False


def test_a_group_without_members_goes_with_its_last_reference(base: EventBase) -> None:
    group = RateLimitGroup(base, TIGHT)
    gone = weakref.ref(group)
    del group
    gc.collect()
    assert gone() is None
    assert base.dispatch() is False


def test_a_group_stays_while_it_has_members(base: EventBase, bev: BufferEvent, pair: Pair) -> None:
    group = RateLimitGroup(base, TIGHT)
    gone = weakref.ref(group)
    bev.add_to_rate_limit_group(group)
    del group
    gc.collect()
    assert bev.rate_limit_group is gone() is not None
    pair[1].send(b"x" * 1000)
    assert arrived(base, bev) == [100]
    bev.close()
    gc.collect()
    assert gone() is None
    assert base.dispatch() is False


def test_a_pair_of_other_names_is_refused(base: EventBase, bev: BufferEvent) -> None:
    with pytest.raises(TypeError, match=r"^group must be a RateLimitGroup, not RateLimit\("):
        bev.add_to_rate_limit_group(TIGHT)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^limit must be a RateLimit, not 1000$"):
        bev.rate_limit = 1000  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"^limit must be a RateLimit, not None$"):
        RateLimitGroup(base, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^base must be an EventBase, not None$"):
        RateLimitGroup(None, TIGHT)  # type: ignore[arg-type]


def test_a_group_has_members_of_its_own_base_only(bev: BufferEvent) -> None:
    with EventBase() as other:
        group = RateLimitGroup(other, TIGHT)
        with pytest.raises(ValueError, match=r"^group must be of the bufferevent's own event base"):
            bev.add_to_rate_limit_group(group)
        assert group.members == []
    assert bev.rate_limit_group is None


# The end.

USES_OF_BEV: list[Callable[[BufferEvent], object]] = [
    lambda bev: setattr(bev, "rate_limit", None),
    lambda bev: setattr(bev, "rate_limit", TIGHT),
    lambda bev: bev.remove_from_rate_limit_group(),
    lambda bev: bev.read_limit,
    lambda bev: bev.write_limit,
    lambda bev: bev.decrement_read_limit(1),
    lambda bev: bev.decrement_write_limit(1),
    lambda bev: setattr(bev, "max_single_read", 1),
    lambda bev: setattr(bev, "max_single_write", 1),
    lambda bev: bev.max_to_read,
    lambda bev: bev.max_to_write,
]
UNCHANGED_OF_BEV: list[Callable[[BufferEvent], object]] = [
    lambda bev: bev.rate_limit,
    lambda bev: bev.rate_limit_group,
    lambda bev: bev.max_single_read,
    lambda bev: bev.max_single_write,
]
USES_OF_GROUP: list[Callable[[RateLimitGroup], object]] = [
    lambda group: setattr(group, "limit", TIGHT),
    lambda group: setattr(group, "min_share", 1),
    lambda group: group.read_limit,
    lambda group: group.write_limit,
    lambda group: group.decrement_read(1),
    lambda group: group.decrement_write(1),
    lambda group: group.totals(),
    lambda group: group.reset_totals(),
]
UNCHANGED_OF_GROUP: list[Callable[[RateLimitGroup], object]] = [
    lambda group: group.limit,
    lambda group: group.min_share,
    lambda group: group.members,
    lambda group: group.pointer,
    lambda group: group.__enter__(),
]


@pytest.mark.parametrize("end", ["close", "base"])
def test_every_use_of_what_is_closed_says_so(
    base: EventBase, bev: BufferEvent, group: RateLimitGroup, pair: Pair, end: str
) -> None:
    bev.rate_limit = TIGHT
    bev.add_to_rate_limit_group(group)
    if end == "base":
        base.close()
    bev.close()
    group.close()
    for use in [*USES_OF_BEV, *UNCHANGED_OF_BEV]:
        with pytest.raises(ClosedError, match=r"^this BufferEvent is closed$"):
            use(bev)
    for use_group in [*USES_OF_GROUP, *UNCHANGED_OF_GROUP]:
        with pytest.raises(ClosedError, match=r"^this RateLimitGroup is closed$"):
            use_group(group)
    with BufferEvent(EventBase(), pair[1], BufferEventOption(0)) as other:
        with pytest.raises(ValueError, match="group must be of"):
            other.add_to_rate_limit_group(group)
        other.base.close()
    group.close()


def test_a_closed_group_takes_nobody_in(base: EventBase, bev: BufferEvent, pair: Pair) -> None:
    first, second = RateLimitGroup(base, TIGHT), RateLimitGroup(base, TIGHT)
    bev.add_to_rate_limit_group(first)
    second.close()
    with pytest.raises(ClosedError, match="this RateLimitGroup is closed"):
        bev.add_to_rate_limit_group(second)
    assert bev.rate_limit_group is first


def test_another_thread_than_the_loop_s_is_refused(
    base: EventBase, bev: BufferEvent, group: RateLimitGroup
) -> None:
    bev.rate_limit = TIGHT
    outcome: list[bool] = []

    def refused(use: Callable[[Any], object], handle: Any) -> bool:
        try:
            use(handle)
        except ThreadError:
            return True
        return False

    def work() -> None:
        for use in (*USES_OF_BEV, lambda bev: bev.add_to_rate_limit_group(group)):
            outcome.append(refused(use, bev))
        for use_group in (*USES_OF_GROUP, RateLimitGroup.close):
            outcome.append(refused(use_group, group))
        outcome.append(refused(lambda base: RateLimitGroup(base, TIGHT), base))
        base.loopexit()

    thread = threading.Thread(target=work)
    base.once(lambda fd, what: thread.start())
    base.loop(LoopFlag.NO_EXIT_ON_EMPTY)
    thread.join(PATIENCE)
    assert outcome
    assert all(outcome), outcome


def test_closing_a_group_lets_its_members_go_on(
    base: EventBase, group: RateLimitGroup, bev: BufferEvent, pair: Pair
) -> None:
    """J3."""
    bev.add_to_rate_limit_group(group)
    pair[1].send(b"x" * 1000)
    assert arrived(base, bev) == [100]
    with group:
        pass
    assert bev.rate_limit_group is None
    assert arrived(base, bev) == [1000]


def test_a_closed_member_is_none_any_more(
    base: EventBase, group: RateLimitGroup, bev: BufferEvent
) -> None:
    """J3: it is one in C until the loop has finalized it, unless it is taken out."""
    bev.rate_limit = TIGHT
    bev.add_to_rate_limit_group(group)
    bev.close()
    assert group.members == []
    group.close()
    base.close()


def test_members_that_wait_go_on_when_their_group_is_closed(
    base: EventBase, authority: Authority, pair: Pair
) -> None:
    passed = []

    def counting(source: Buffer, destination: Buffer, *_: object) -> FilterResult:
        passed.append(len(source))
        destination.add_buffer(source)
        return FilterResult.OK

    below = BufferEvent.filter(BufferEvent(base, pair[0]), None, counting)
    client = End(BufferEvent.tls_filter, below, client_context(authority), server_hostname=HOST)
    server = End(BufferEvent.tls, base, pair[1], server_context(authority))
    run_until(base, lambda: client.connected and server.connected)
    group = RateLimitGroup(base, RateLimit(write_rate=100_000, tick=1000))
    client.bev.add_to_rate_limit_group(group)
    group.decrement_write(10**9)
    client.bev.write(b"while the group waits")
    settle(base)
    assert not server.received
    before = len(passed)

    def failing(*_: object) -> None:
        callback.remove()
        raise ZeroDivisionError

    callback = below.output.add_cb(failing)
    with pytest.raises(ZeroDivisionError):
        group.close()
    assert group.closed
    assert len(passed) > before
    assert client.bev.rate_limit_group is None
    run_until(base, lambda: server.received == b"while the group waits")


def test_a_group_may_be_closed_in_a_callback(base: EventBase, pair: Pair) -> None:
    group = RateLimitGroup(base, RateLimit(1000, tick=0.001))
    bev = BufferEvent(base, pair[0], on_read=lambda bev: group.close())
    bev.add_to_rate_limit_group(group)
    bev.enable(READ)
    pair[1].send(b"x" * 5000)
    assert arrived(base, bev) == [5000]
    bev.close()
    assert base.dispatch() is False


def test_a_group_on_a_base_without_locks_can_be_closed_in_a_callback() -> None:
    with EventConfig(flags=lib.EVENT_BASE_FLAG_NOLOCK) as config:
        base = EventBase(config)
    with base:
        group = RateLimitGroup(base, RateLimit(tick=0.001))
        base.once(lambda fd, what: group.close())
        assert base.dispatch() is False


def test_a_dropped_base_goes_with_its_groups_and_members() -> None:
    one, other = socket.socketpair()
    with other:
        base = EventBase()
        gone = weakref.ref(base)
        group = RateLimitGroup(base, TIGHT)
        bev = BufferEvent(base, one)
        bev.rate_limit = TIGHT
        bev.add_to_rate_limit_group(group)
        del base, group, bev
        gc.collect()
        assert gone() is None
        assert other.recv(1) == b""


def test_a_child_process_leaves_the_parent_s_groups_alone(
    base: EventBase, group: RateLimitGroup, bev: BufferEvent, pair: Pair
) -> None:
    """A8."""
    bev.rate_limit = TIGHT
    bev.add_to_rate_limit_group(group)

    def child() -> None:
        for use in (*USES_OF_BEV, *UNCHANGED_OF_BEV):
            with pytest.raises(ForkError):
                use(bev)
        for use_group in (*USES_OF_GROUP, *UNCHANGED_OF_GROUP):
            with pytest.raises(ForkError):
                use_group(group)
        base.close()

    in_child(child)
    pair[1].send(b"x" * 1000)
    assert arrived(base, bev) == [100]


@pytest.mark.parametrize("order", ["group, member", "member, group", "group", "member", ""])
def test_a_child_process_may_share_them_in_the_end(
    base: EventBase, group: RateLimitGroup, bev: BufferEvent, pair: Pair, order: str
) -> None:
    """A8: whatever has been closed before, reinit() frees it in an order that C survives."""
    bev.rate_limit = TIGHT
    bev.add_to_rate_limit_group(group)

    def child() -> None:
        for name in order.split(", "):
            if name:
                (group if name == "group" else bev).close()
        base.reinit()
        settle(base)
        if "member" not in order:
            assert bev.rate_limit_group is (None if order else group)
            pair[1].send(b"x" * 1000)
            assert arrived(base, bev) == [100]
        base.close()

    in_child(child)


@pytest.mark.more
def test_replacing_limits_and_members_leaks_nothing() -> None:
    output = run_python(
        """
        import os, socket
        from libevent_py import *

        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        one, other = socket.socketpair()
        with other, EventBase() as base:
            bev, groups = BufferEvent(base, one), [RateLimitGroup(base, RateLimit())] * 2
            def churn(times):
                for number in range(times):
                    bev.rate_limit = RateLimit(number + 1, tick=1 + number % 2)
                    bev.rate_limit = None
                    bev.rate_limit = RateLimit(number + 1)
                    groups[number % 2] = RateLimitGroup(base, RateLimit(number + 1))
                    bev.add_to_rate_limit_group(groups[number % 2])
                    groups[0].limit = RateLimit(7)
                    with BufferEvent(base) as closed:
                        closed.rate_limit = RateLimit(number + 1)
                        closed.add_to_rate_limit_group(groups[0])
                    base.loop(LoopFlag.NONBLOCK)

            churn(1000)
            before = resident()
            churn(20_000)
            print(resident() - before)
        """
    )
    assert int(output) < 2**18  # 20,000 leaks would be more


@VALGRIND_TAKES_LONG
def test_what_is_called_while_a_limit_changes_may_change_it_or_end_it(valgrind: bool) -> None:
    """libevent lets a pair's bytes pass in the midst, and tells who watches the buffer."""
    run_python(
        """
        from libevent_py import *

        debug.enable_debug_mode()  # libevent looks at its events itself
        TIGHT = RateLimit(100, 100, 100, 100, tick=1000)
        OTHER = RateLimit(50, tick=0.001)

        def wait(base):
            base.loopexit(0.01)
            base.loop(LoopFlag.NO_EXIT_ON_EMPTY)

        def play(outer, inner, where):
            def change(*_):
                calls.append(None)
                inner(bev, group)

            calls = []
            with EventBase() as base:
                bev, other = BufferEvent.pair(base)
                ticks = {refill: (0.005, 1000), group_refill: (1000, 0.005)}
                own, shared = ticks.get(outer, (1000, 1000))
                group = RateLimitGroup(base, RateLimit(100, tick=shared))
                bev.rate_limit = RateLimit(100, tick=own)
                bev.add_to_rate_limit_group(group)
                bev.decrement_read_limit(200)
                bev.decrement_write_limit(1000)
                group.decrement_read(200)
                bev.enable(EventFlag.READ)
                other.write(b"x" * 1000)
                watched = bev.input
                watched.add_cb(change)
                if outer in (group_end, group_refill):
                    bev.rate_limit = None
                else:
                    bev.remove_from_rate_limit_group()
                assert not calls
                if where == "loop":
                    base.once(lambda fd, what: outer(bev, group))
                else:
                    outer(bev, group)
                wait(base)
                while not calls and outer in ticks:
                    wait(base)
                assert calls
                return bev.closed, bev.closed or bev.rate_limit

        def set_to(limit):
            return lambda bev, group: setattr(bev, "rate_limit", limit)

        def give_back(bev, group):
            bev.decrement_read_limit(-150)

        def group_end(bev, group):
            group.close()

        def refill(bev, group):
            pass

        def group_refill(bev, group):
            pass

        def close(bev, group):
            bev.close()

        def close_both(bev, group):
            group.close()
            bev.close()

        def join(bev, group):
            if not group.closed:
                bev.add_to_rate_limit_group(group)

        def all_at_once(bev, group):
            for step in (join, set_to(OTHER), set_to(None), set_to(TIGHT), close_both):
                step(bev, group)

        for where in ("loop", "call"):
            for outer in (
                set_to(None), set_to(RateLimit(100)), give_back, group_end, refill, group_refill
            ):
                for limit in (None, TIGHT, OTHER):
                    assert play(outer, set_to(limit), where) == (False, limit)
                for inner in (close, close_both, all_at_once):
                    assert play(outer, inner, where) == (True, True)
                assert not play(outer, join, where)[0]
        """,
        valgrind=valgrind,
    )


#: Takes random walks through what has limits; its arguments are a range of seeds.
WALKS = """
        import gc, random, socket, sys
        from libevent_py import *

        debug.enable_debug_mode()  # libevent looks at its events itself
        LIMITS = [RateLimit(10, 40, 10, 40, tick=tick) for tick in (0.001, 0.002)]
        LIMITS += [RateLimit(200, tick=100), RateLimit(write_rate=1, tick=0.003), None]
        ONE_ROUND = LoopFlag.ONCE | LoopFlag.NONBLOCK
        REFUSALS = (ClosedError, ValueError, RuntimeError)

        class World:
            def __init__(self, seed):
                self.random = random.Random(seed)
                self.base = EventBase()
                self.socks, self.held, self.depth = [], [], 0
                self.groups = [self.group() for _ in range(3)]
                self.bevs = [self.bev(options) for options in (1, 5, 13, 3)]
                self.bevs += BufferEvent.pair(self.base)
                self.bevs.append(BufferEvent.filter(self.bev(1), None, None))
                for half in BufferEvent.pair(self.base):
                    self.bevs.append(BufferEvent.filter(half, None, None))
                for bev in self.bevs:
                    bev.setcb(self.step, self.step, self.step)
                    # Called in the midst of what the others do.
                    for buffer in (bev.input, bev.output):
                        self.held.append(buffer)
                        buffer.add_cb(self.step)
                    bev.enable(EventFlag.READ)

            def bev(self, options):
                one, other = socket.socketpair()
                other.setblocking(False)
                self.socks.append(other)
                return BufferEvent(self.base, one, options)

            def group(self):
                limit, share = self.random.choice(LIMITS[:-1]), self.random.choice([1, 64])
                return RateLimitGroup(self.base, limit, min_share=share)

            def step(self, *_):
                choose, n = self.random.choice, self.random.randrange(-300, 300)
                bev, group = choose(self.bevs), choose(self.groups)
                operations = [
                    lambda: setattr(bev, "rate_limit", choose(LIMITS)),
                    lambda: setattr(bev, "rate_limit", choose(LIMITS)),
                    lambda: bev.add_to_rate_limit_group(group),
                    lambda: bev.add_to_rate_limit_group(group),
                    lambda: bev.remove_from_rate_limit_group(),
                    lambda: bev.decrement_read_limit(n),
                    lambda: bev.decrement_write_limit(n),
                    lambda: group.decrement_read(n),
                    lambda: group.decrement_write(n),
                    lambda: setattr(group, "limit", choose(LIMITS[:-1])),
                    lambda: bev.write(b"x" * 100),
                    lambda: bev.read(),
                    lambda: choose(self.socks).send(b"y" * 100),
                    lambda: bev.trigger(EventFlag.READ),
                    lambda: group.close() if n % 5 == 0 else None,
                    lambda: bev.close() if n % 7 == 0 else None,
                    lambda: self.groups.__setitem__(n % 3, self.group()),
                    lambda: bev.enable(EventFlag.READ | EventFlag.WRITE),
                    lambda: self.depth > 1 or self.base.loop(ONE_ROUND),
                    lambda: self.depth > 1 or self.base.loop(ONE_ROUND),
                ]
                if self.depth < 5:
                    self.depth += 1
                    try:
                        choose(operations)()
                    except (*REFUSALS, BlockingIOError, BrokenPipeError):
                        pass
                    finally:
                        self.depth -= 1

        for seed in range(int(sys.argv[1]), int(sys.argv[2])):
            world = World(seed)
            for _ in range(200):
                world.step()
            for sock in world.socks:
                sock.close()
            ends = [world.base, *world.groups, *world.bevs][:: world.random.choice([1, -1])]
            if seed % 3 == 0:
                for end in ends:
                    end.close()
            elif seed % 3 == 1:
                world.random.shuffle(ends)
                while ends:
                    ends.pop()
                    gc.collect()
            del world, ends
            gc.collect()
        """


@pytest.mark.slow
def test_no_order_of_calls_crashes() -> None:
    run_python(WALKS, "100", "160")


@VALGRIND_TAKES_LONG
def test_no_order_of_calls_touches_memory_that_is_freed(valgrind: bool) -> None:
    run_python(WALKS, "1", "9", valgrind=valgrind)
