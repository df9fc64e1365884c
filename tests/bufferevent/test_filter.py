"""Filters: bufferevents on top of others, and the functions that the bytes pass through."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventOption,
    ClosedError,
    EventBase,
    FilterResult,
    FlushMode,
    LoopFlag,
)
from tests.kit.filters import OPTIONS, Filter, Halves, shift
from tests.kit.flags import CLOSE, DEFER, NO_OPTION, READ, UNLOCK, WRITE
from tests.kit.peers import Pair, run_until, settle

OK, NEED_MORE, ERROR = FilterResult.OK, FilterResult.NEED_MORE, FilterResult.ERROR
NORMAL, FLUSH, FINISHED = FlushMode.NORMAL, FlushMode.FLUSH, FlushMode.FINISHED


def packets(source: Buffer, target: Buffer, limit: int | None, mode: FlushMode) -> FilterResult:
    """Let pass four bytes at a time only, or with FINISHED the rest."""
    size = len(source) if mode == FINISHED else len(source) // 4 * 4
    target.add(source.remove(size))
    return OK if size else NEED_MORE


def raising(source: Buffer, target: Buffer, limit: int | None, mode: FlushMode) -> FilterResult:
    """Take a byte and raise."""
    source.drain(1)
    raise ZeroDivisionError(f"with {mode.name}")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_bytes_pass_through_the_filters_both_ways(
    base: EventBase, below: Halves, options: BufferEventOption
) -> None:
    one = BufferEvent.filter(below[0], shift(-1), shift(1), options)
    other = BufferEvent.filter(below[1], None, None, options)
    for bev in (one, other):
        bev.enable(READ)
    one.write(b"HAL")
    other.write(b"IBM")
    run_until(base, lambda: one.input and other.input)
    assert (one.read(), other.read()) == (b"HAL", b"IBM")


def test_large_data_pass_in_pieces(base: EventBase, below: Halves) -> None:
    data = bytes(range(256)) * 4000
    received = bytearray()
    one = BufferEvent.filter(below[0], None, shift(7))
    other = BufferEvent.filter(below[1], shift(-7), None)
    other.on_read = lambda bev: received.extend(bev.read())
    other.setwatermark(READ, 0, 5000)
    other.enable(READ)
    one.write(data)
    run_until(base, lambda: len(received) == len(data))
    assert bytes(received) == data


def test_filters_stand_on_filters(base: EventBase, below: Halves) -> None:
    bev, other = below
    for distance in (1, 2, 4, 8):
        bev = BufferEvent.filter(bev, shift(-distance), shift(distance))
    received: list[bytes] = []
    bev.on_read = lambda bev: received.append(bev.read())
    bev.enable(READ)
    other.enable(READ)
    bev.write(b"ABC")
    other.write(b"PQR")
    run_until(base, lambda: received and other.input)
    assert (received, other.read()) == ([b"ABC"], b"PQR")


def test_a_filter_gets_the_buffers_below_and_above_it(base: EventBase, below: Halves) -> None:
    calls = []

    def note(source: Buffer, target: Buffer, limit: int | None, mode: FlushMode) -> FilterResult:
        calls.append((source, target, limit, mode))
        target.add_buffer(source)
        return OK

    bev = BufferEvent.filter(below[0], note, note)
    bev.enable(READ)
    bev.write(b"hello")
    below[1].write(b"world")
    run_until(base, lambda: bev.input)
    outward, inward = calls
    assert outward == (bev.output, below[0].output, None, NORMAL)
    assert outward[0] is bev.output
    assert outward[1] is below[0].output
    assert inward[0] is below[0].input
    assert inward[1] is bev.input
    bev.close()
    for buffer in (*outward[:2], *inward[:2]):
        with pytest.raises(ClosedError):
            len(buffer)


def test_the_limit_is_the_room_below_the_high_watermark(base: EventBase, below: Halves) -> None:
    limits: list[int | None] = []

    def note(source: Buffer, target: Buffer, limit: int | None, mode: FlushMode) -> FilterResult:
        limits.append(limit)
        target.add(source.remove(limit))
        return OK

    bev = BufferEvent.filter(below[0], note, note)
    bev.setwatermark(READ, 0, 8)
    below[0].setwatermark(WRITE, 0, 6)
    below[1].disable(READ)
    bev.enable(READ)
    below[1].write(b"0123456789")
    run_until(base, lambda: bev.input)
    assert limits == [8]
    assert bytes(bev.input) == b"01234567"
    limits.clear()
    assert bev.read() == b"01234567"  # which makes room for the rest
    assert limits == [8]
    assert bev.read() == b"89"
    limits.clear()
    bev.write(b"0123456789")
    assert limits == [6]
    assert len(bev.output) == 4


# What a filter returns.


def test_a_filter_that_needs_more_is_called_again_when_there_is(
    base: EventBase, below: Halves
) -> None:
    bev = BufferEvent.filter(below[0], packets, packets)
    bev.enable(READ)
    below[1].enable(READ)
    bev.write(b"123")
    below[1].write(b"123")
    settle(base)
    assert (bev.read(), below[1].read()) == (b"", b"")
    bev.write(b"456")
    below[1].write(b"456")
    run_until(base, lambda: bev.input and below[1].input)
    assert (bev.read(), below[1].read()) == (b"1234", b"1234")
    assert bev.flush(WRITE, FLUSH) is False
    assert bev.flush(READ | WRITE, FINISHED) is True
    run_until(base, lambda: below[1].input)
    assert (bev.read(), below[1].read()) == (b"56", b"56")


def test_flush_tells_the_filters_its_mode(base: EventBase, below: Halves) -> None:
    modes: list[tuple[str, FlushMode]] = []

    def note(direction: str) -> Filter:
        def filter(_1: Buffer, _2: Buffer, _3: int | None, mode: FlushMode) -> FilterResult:
            modes.append((direction, mode))
            return NEED_MORE

        return filter

    bev = BufferEvent.filter(below[0], note("in"), note("out"))
    for mode in (NORMAL, FLUSH, FINISHED):
        assert bev.flush(READ | WRITE, mode) is False
    assert modes == [("in", FLUSH), ("out", FLUSH), ("in", FINISHED), ("out", FINISHED)]


@pytest.mark.parametrize("result", [OK, NEED_MORE, ERROR])
def test_a_filter_that_does_nothing_is_not_called_for_ever(
    base: EventBase, below: Halves, result: FilterResult
) -> None:
    calls: list[FlushMode] = []

    def idle(source: Buffer, target: Buffer, limit: int | None, mode: FlushMode) -> FilterResult:
        calls.append(mode)
        return result

    bev = BufferEvent.filter(below[0], idle, idle, on_read=lambda bev: pytest.fail("nothing"))
    bev.enable(READ)
    settle(base)  # a socket can be written to from now on, of which a filter is told
    bev.write(b"hello")
    assert calls == [NORMAL]
    below[1].write(b"hello")
    run_until(base, lambda: len(calls) == 2)
    assert bev.flush(READ | WRITE, FINISHED) is False
    assert calls == [NORMAL, NORMAL, FINISHED, FINISHED]
    assert (len(bev.output), len(below[0].input)) == (5, 5)


@pytest.mark.parametrize("result", [None, 0, True, "OK", NORMAL])
def test_a_filter_must_return_a_filter_result(
    base: EventBase, below: Halves, result: object
) -> None:
    bev = BufferEvent.filter(below[0], None, lambda *_: result)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^a filter must return a FilterResult, not "):
        bev.write(b"hello")
    assert len(bev.output) == 5


# What a filter raises.


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_an_output_filter_raises_comes_out_of_the_call_that_led_to_it(
    base: EventBase, below: Halves, options: BufferEventOption
) -> None:
    bev = BufferEvent.filter(below[0], None, raising, options)
    settle(base)

    def use() -> None:
        for write in (
            lambda: bev.write(b"hello"),
            lambda: bev.write_buffer(Buffer(b"hello")),
            lambda: bev.output.add(b"hello"),
        ):
            with pytest.raises(ZeroDivisionError, match="with NORMAL"):
                write()  # type: ignore[no-untyped-call]

    use()
    base.defer(use)
    base.loop(LoopFlag.NONBLOCK)
    for mode in (FLUSH, FINISHED):
        with pytest.raises(ZeroDivisionError, match=f"with {mode.name}"):
            bev.flush(WRITE, mode)
    assert len(bev.output) == 6 * 5 - 8  # of which each call has taken a byte


def test_what_an_input_filter_raises_comes_out_of_the_loop(base: EventBase, below: Halves) -> None:
    bev = BufferEvent.filter(below[0], raising, None)
    bev.enable(READ)
    below[1].write(b"hello")
    with pytest.raises(ZeroDivisionError, match="with NORMAL"):
        base.dispatch()
    assert bytes(below[0].input) == b"ello"
    for mode in (FLUSH, FINISHED):
        with pytest.raises(ZeroDivisionError, match=f"with {mode.name}"):
            bev.flush(READ, mode)


def test_what_a_filter_raises_is_for_on_error_where_there_is_one(
    base: EventBase, below: Halves
) -> None:
    story: list[tuple[type[Exception], object]] = []
    base.on_error = lambda error, source: story.append((type(error), source))
    bev = BufferEvent.filter(below[0], raising, raising)
    bev.enable(READ)
    settle(base)
    bev.write(b"hello")
    below[1].write(b"hello")
    run_until(base, lambda: len(story) == 2)
    assert story == [(ZeroDivisionError, bev)] * 2


# What else a filter does.


def test_an_output_filter_may_write_to_its_own_bufferevent(base: EventBase, below: Halves) -> None:
    def echo(source: Buffer, target: Buffer, limit: int | None, mode: FlushMode) -> FilterResult:
        data = source.remove()
        if data == b"ping":
            bev.write(b"pong")
        target.add(data)
        return OK

    bev = BufferEvent.filter(below[0], None, echo)
    below[1].enable(READ)
    bev.write(b"ping")
    run_until(base, lambda: len(below[1].input) == 8)
    assert below[1].read() == b"pingpong"


def test_an_input_filter_may_answer_by_itself(base: EventBase, below: Halves) -> None:
    def answer(source: Buffer, target: Buffer, limit: int | None, mode: FlushMode) -> FilterResult:
        bev.write(b"you said " + source.remove())
        return OK

    bev = BufferEvent.filter(below[0], answer, shift(0), on_read=lambda bev: None)
    bev.enable(READ)
    below[1].enable(READ)
    below[1].write(b"hello")
    run_until(base, lambda: below[1].input)
    assert below[1].read() == b"you said hello"


def test_reading_leaves_alone_what_a_filter_reads_meanwhile(base: EventBase, below: Halves) -> None:
    bev = BufferEvent.filter(below[0], shift(0), None)
    bev.setwatermark(READ, 0, 4)
    bev.enable(READ)
    below[1].write(b"abcdefghijkl")
    run_until(base, lambda: bev.input)
    assert [bev.read(), bev.read(4), bev.input.remove()] == [b"abcd", b"efgh", b"ijkl"]


@pytest.mark.parametrize("options", [CLOSE, CLOSE | DEFER])
def test_on_write_is_called_when_all_has_passed(
    base: EventBase, below: Halves, options: BufferEventOption
) -> None:
    written: list[int] = []
    bev = BufferEvent.filter(
        below[0], None, shift(1), options, on_write=lambda bev: written.append(len(bev.output))
    )
    bev.write(b"hello")
    assert written == ([] if options & DEFER else [0])
    settle(base)
    assert written == [0]


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, None, None), TypeError, "underlying must be a BufferEvent"),
        ((socket.AF_INET, None, None), TypeError, "underlying must be a BufferEvent"),
        (("bev", 5, None), TypeError, "input_filter must be callable"),
        (("bev", None, "x"), TypeError, "output_filter must be callable"),
        (("bev", None, None, 64), ValueError, "options has bits"),
        (("bev", None, None, UNLOCK), ValueError, "options can have UNLOCK_CALLBACKS only"),
    ],
)
def test_a_bad_argument_is_named(
    base: EventBase,
    pair: Pair,
    arguments: tuple[Any, ...],
    error: type[Exception],
    message: str,
) -> None:
    underlying = BufferEvent(base, pair[0], NO_OPTION)
    with pytest.raises(error, match=f"^{message}"):
        BufferEvent.filter(*(underlying if item == "bev" else item for item in arguments))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^on_read must be callable"):
        BufferEvent.filter(underlying, None, None, on_read=5)  # type: ignore[arg-type]
    assert list(base._live.values()) == [underlying]
    underlying.close()  # it is still its own


def test_a_subclass_makes_filters_of_its_own_kind(base: EventBase, below: Halves) -> None:
    class Mine(BufferEvent):
        pass

    assert type(Mine.filter(below[0], None, None)) is Mine
