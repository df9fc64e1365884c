"""Pairs: two bufferevents of which each reads what the other writes."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    ClosedError,
    EventBase,
    EventFlag,
    FlushMode,
    LibeventError,
    ThreadError,
)
from tests.kit.flags import EAGER, NO_OPTION, READ, THREADSAFE, UNLOCK, WRITE
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import run_until, settle
from tests.kit.support import PATIENCE, run_python

Halves = tuple[BufferEvent, BufferEvent]


@pytest.fixture(params=[NO_OPTION, THREADSAFE, THREADSAFE | UNLOCK | BufferEventOption(4), EAGER])
def halves(request: pytest.FixtureRequest, base: EventBase) -> Iterator[Halves]:
    """The two halves of a pair, with each option in turn that a pair has."""
    yield BufferEvent.pair(base, request.param)


def test_what_one_half_writes_the_other_reads(base: EventBase, halves: Halves) -> None:
    story: list[object] = []
    for one, other in (halves, halves[::-1]):
        one.on_write = lambda bev: story.append("written")
        other.on_read = lambda bev: story.append(bev.read())
        other.enable(READ)
        one.write(b"hello")
        assert story == []  # its callbacks are always deferred
        settle(base)
        assert sorted(map(str, story)) == ["b'hello'", "written"]
        story.clear()


def test_nothing_passes_to_a_half_that_does_not_read(base: EventBase, halves: Halves) -> None:
    one, other = halves
    one.write(b"hello")
    settle(base)
    assert (len(one.output), other.read()) == (5, b"")
    other.enable(READ)
    assert (len(one.output), other.read()) == (0, b"hello")


def test_nothing_passes_from_a_half_that_does_not_write(base: EventBase, halves: Halves) -> None:
    one, other = halves
    other.enable(READ)
    one.disable(WRITE)
    one.write(b"hello")
    assert other.read() == b""
    one.enable(WRITE)
    assert other.read() == b"hello"


def test_a_high_watermark_holds_back_what_is_too_much(base: EventBase, halves: Halves) -> None:
    one, other = halves
    other.setwatermark(READ, 0, 4)
    other.enable(READ)
    one.write(b"too much")
    assert (len(one.output), bytes(other.input)) == (4, b"too ")
    assert other.read() == b"too "
    settle(base)
    assert (len(one.output), other.read()) == (0, b"much")


def test_a_buffer_is_handed_over_without_copying(base: EventBase, halves: Halves) -> None:
    one, other = halves
    other.enable(READ)
    content, received = Buffer(b"x" * 100_000), Buffer()
    one.write_buffer(content)
    other.read_buffer(received)
    assert (len(content), len(received)) == (0, 100_000)


def test_a_pair_has_no_descriptor_and_cannot_connect(base: EventBase, halves: Halves) -> None:
    for half in halves:
        assert half.fd == -1
        with pytest.raises(ValueError, match=r"^a pair can't connect"):
            half.connect(("127.0.0.1", 1))
        with pytest.raises(LibeventError, match="bufferevent_setfd"):
            half.fd = -1
        with pytest.raises(LibeventError, match="bufferevent_priority_set"):
            half.priority = 0
        assert half.underlying is None


def test_timeouts_are_called_back(base: EventBase, halves: Halves) -> None:
    one, _ = halves
    story: list[object] = []
    one.on_event = lambda bev, what: story.append(what)
    one.set_timeouts(read=0.01, write=0.5)  # further apart than a busy machine is late
    one.write(b"nobody reads this")
    one.enable(READ | WRITE)
    run_until(base, lambda: len(story) == 2)
    timeout = BufferEventFlag.TIMEOUT
    assert story == [timeout | BufferEventFlag.READING, timeout | BufferEventFlag.WRITING]


# The partner.


def test_each_half_knows_the_other(base: EventBase, halves: Halves) -> None:
    one, other = halves
    assert one.partner is other
    assert other.partner is one


def test_a_socket_has_no_partner(base: EventBase) -> None:
    assert BufferEvent(base).partner is None


def test_a_half_whose_other_half_is_closed_goes_on_alone(base: EventBase, halves: Halves) -> None:
    one, other = halves
    other.enable(READ)
    one.write(b"hello")  # its deferred callback keeps C's half a little longer
    one.on_event = other.on_event = lambda bev, what: pytest.fail("nobody is told")
    one.close()
    assert other.partner is None
    assert other.read() == b"hello"
    with pytest.raises(ClosedError):
        one.partner  # noqa: B018
    settle(base)
    other.write(b"for nobody")
    settle(base)
    assert len(other.output) == len(b"for nobody")
    with pytest.raises(LibeventError, match="bufferevent_flush"):
        other.flush(WRITE, FlushMode.FINISHED)


@pytest.mark.parametrize(
    ("what", "flags"),
    [
        (WRITE, BufferEventFlag.READING),
        (READ, BufferEventFlag.WRITING),
        (READ | WRITE, BufferEventFlag.READING | BufferEventFlag.WRITING),
    ],
)
def test_flush_with_finished_tells_the_other_half_of_the_end(
    base: EventBase, halves: Halves, what: EventFlag, flags: BufferEventFlag
) -> None:
    one, other = halves
    story: list[object] = []
    other.setcb(lambda bev: story.append(bev.read()), None, lambda bev, what: story.append(what))
    other.enable(READ)
    one.write(b"goodbye")
    one.flush(what, FlushMode.FINISHED)
    one.close()
    settle(base)
    assert story == [b"goodbye", BufferEventFlag.EOF | flags]


@pytest.mark.parametrize("mode", [FlushMode.FLUSH, FlushMode.FINISHED])
def test_flush_passes_on_what_watermarks_and_disabling_hold_back(
    base: EventBase, halves: Halves, mode: FlushMode
) -> None:
    one, other = halves
    one.write(b"hello")
    one.flush(WRITE)  # NORMAL does nothing
    assert len(one.output) == 5
    one.flush(WRITE, mode)
    assert (len(one.output), other.read()) == (0, b"hello")


def test_flush_of_reading_fetches_what_the_other_half_holds(
    base: EventBase, halves: Halves
) -> None:
    one, other = halves
    one.write(b"hello")
    other.flush(READ, FlushMode.FLUSH)
    assert other.read() == b"hello"


# The end.


def test_a_pair_that_nobody_keeps_lives_until_it_is_closed(base: EventBase) -> None:
    received = []

    def start() -> Callable[[], object]:
        one, other = BufferEvent.pair(base)
        other.on_read = lambda bev: received.append(bev.read())
        other.enable(READ)
        one.write(b"hello")
        return weakref.ref(one)

    one = start()
    gc.collect()
    assert one() is not None
    settle(base)
    assert received == [b"hello"]


def test_a_closed_pair_goes_with_its_last_reference(base: EventBase, halves: Halves) -> None:
    refs = [weakref.ref(half) for half in BufferEvent.pair(base)]
    for ref in refs:
        half: Any = ref()
        half.close()
    del half
    assert [ref() for ref in refs] == [None, None]


@pytest.mark.parametrize("first", [0, 1])
def test_each_half_may_be_closed_in_each_callback(
    base: EventBase, halves: Halves, first: int
) -> None:
    for which in ("on_read", "on_write", "on_event"):
        one, other = BufferEvent.pair(base)
        called = []

        def close(bev: BufferEvent, *_: object, pair: Halves = (one, other)) -> None:
            called.append(bev)  # noqa: B023
            pair[first].close()
            pair[1 - first].close()

        setattr(one if which == "on_write" else other, which, close)
        other.enable(READ)
        one.write(b"hello")
        one.flush(WRITE, FlushMode.FINISHED)
        settle(base)
        assert len(called) == 1
        assert one.closed
        assert other.closed


def test_what_a_callback_raises_comes_out_of_the_loop(base: EventBase, halves: Halves) -> None:
    one, other = halves

    def on_read(bev: BufferEvent) -> None:
        raise ZeroDivisionError

    other.on_read = on_read
    other.enable(READ)
    one.write(b"hello")
    with pytest.raises(ZeroDivisionError):
        base.loop()
    assert other.read() == b"hello"


EVERY_USE: list[Callable[[BufferEvent], object]] = [
    lambda bev: bev.partner,
    lambda bev: bev.underlying,
    lambda bev: bev.write(b""),
    lambda bev: bev.read(),
    lambda bev: bev.flush(WRITE),
    lambda bev: bev.fd,
    lambda bev: bev.enable(READ),
]


def test_every_use_of_a_closed_one_says_so(base: EventBase, halves: Halves) -> None:
    base.close()
    for half in halves:
        half.close()
        for use in EVERY_USE:
            with pytest.raises(ClosedError, match=r"^this BufferEvent is closed$"):
                use(half)


def test_another_thread_may_not_use_it_while_the_loop_runs(base: EventBase, halves: Halves) -> None:
    one, other = halves
    errors: list[Exception] = []

    def misuse() -> None:
        for use in (lambda: one.write(b"x"), other.read, one.close, lambda: BufferEvent.pair(base)):
            try:
                use()
            except ThreadError as error:
                errors.append(error)

    def on_read(bev: BufferEvent) -> None:
        thread = threading.Thread(target=misuse)
        thread.start()
        thread.join(PATIENCE)

    other.on_read = on_read
    other.enable(READ)
    one.write(b"hello")
    settle(base)
    assert len(errors) == 4


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None,), TypeError, "base must be an EventBase"),
        (("base", 64), ValueError, "options has bits"),
        (("base", "1"), TypeError, "options must be"),
    ],
)
def test_a_bad_argument_is_named(
    base: EventBase, arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    arguments = tuple(base if argument == "base" else argument for argument in arguments)
    with pytest.raises(error, match=f"^{message}"):
        BufferEvent.pair(*arguments)
    assert not base._ledger


def test_a_subclass_makes_pairs_of_its_own_kind(base: EventBase) -> None:
    class Mine(BufferEvent):
        pass

    one, other = Mine.pair(base)
    assert type(one) is type(other) is Mine
    assert one.partner is other


@VALGRIND_TAKES_LONG
def test_no_order_of_closing_touches_freed_memory(valgrind: bool) -> None:
    run_python(
        """
        import gc, itertools, os
        from libevent_py import *
        READ, WRITE = EventFlag.READ, EventFlag.WRITE
        THREADSAFE = BufferEventOption.THREADSAFE
        UNLOCK = BufferEventOption.UNLOCK_CALLBACKS | BufferEventOption.DEFER_CALLBACKS
        orders = itertools.product((0, THREADSAFE, THREADSAFE | UNLOCK), (0, 1), range(6))
        for options, first, order in orders:
            base = EventBase()
            pair = BufferEvent.pair(base, options)
            one, other = pair[first], pair[1 - first]
            calls = []
            def on_any(bev, *what):
                calls.append(what)
                if order == 0:
                    bev.close()
                elif order == 1 and bev.partner is not None:
                    bev.partner.close()
            for half in pair:
                half.setcb(on_any, on_any, on_any)
                half.enable(READ)
                half.write(b"hello" * 1000)
            one.flush(WRITE, FlushMode.FINISHED)
            if order == 2:
                one.close()
                base.loop(LoopFlag.NONBLOCK)
                other.close()
            elif order == 3:
                one.close()
                other.close()
            elif order == 4:
                base.close()
            elif order == 5:
                del one, other, half, base, pair
                gc.collect()
                continue
            base.loop(LoopFlag.NONBLOCK) if not base.closed else None
            base.close()
            one.close()
            other.close()
        base = EventBase()
        one, other = BufferEvent.pair(base, THREADSAFE)
        other.on_read = lambda bev: print(bev.read().decode())
        other.enable(READ)
        one.write(b"of the parent")
        if not os.fork():
            try:
                one.write(b"?")
            except ForkError:
                one.close()
                base.reinit()
                other.write(b"unread")
                other.close()
                base.close()
            os._exit(0)
        os.wait()
        base.loop(LoopFlag.NONBLOCK)
        """,
        valgrind=valgrind,
    )
