"""Buffer: a queue of bytes."""

from __future__ import annotations

import array
import contextlib
import gc
import socket
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import Buffer, BufferEvent, ClosedError, EventBase, LibeventError, lib
from libevent_py.buffer.buffer import ROOM
from tests.kit.support import run_python, shown

#: Around the size of the memory that small reads are copied through.
SIZES = [0, 1, 4095, 4096, ROOM - 1, ROOM, ROOM + 1, 3 * ROOM + 7]


def pattern(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


def scattered(data: bytes) -> Buffer:
    """Return a buffer whose content lies in several pieces of memory."""
    buffer = Buffer()
    third = len(data) // 3 + 1
    for start in range(0, len(data), third):
        with Buffer(data[start : start + third]) as piece:
            buffer.add_buffer(piece)
    return buffer


def test_what_is_added_at_the_end_comes_out_at_the_front() -> None:
    buffer = Buffer(b"one ")
    buffer.add(b"two ")
    buffer.add(b"three")
    assert len(buffer) == 13
    assert bytes(buffer) == b"one two three"
    assert buffer.remove(4) == b"one "
    buffer.add(b" four")
    assert buffer.remove() == b"two three four"
    assert len(buffer) == 0


def test_only_an_empty_buffer_is_false() -> None:
    buffer = Buffer()
    assert not buffer
    buffer.add(b"\0")
    assert buffer
    buffer.add(b"")
    assert len(buffer) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        bytearray(b"hello"),
        memoryview(b"hello"),
        memoryview(b"--hello--")[2:7],
        array.array("b", b"hello"),
        memoryview(b"hello").cast("B", (5, 1)),
    ],
    ids=shown,
)
def test_anything_with_the_buffer_protocol_may_be_added(data: Any) -> None:
    assert bytes(Buffer(data)) == b"hello"
    buffer = Buffer(b"> ")
    buffer.add(data)
    assert bytes(buffer) == b"> hello"


def test_items_of_several_bytes_are_added_whole() -> None:
    numbers = array.array("i", [1, 2, 3])
    assert bytes(Buffer(numbers)) == numbers.tobytes()


def test_what_is_added_is_copied_at_once() -> None:
    data = bytearray(b"hello")
    buffer = Buffer(data)
    data[0] = 0
    data.clear()  # which raises BufferError while anybody still looks at it
    assert bytes(buffer) == b"hello"


@pytest.mark.parametrize("size", SIZES)
def test_a_buffer_of_any_size_gives_back_what_it_got(size: int) -> None:
    data = pattern(size)
    buffer = scattered(data)
    assert len(buffer) == size
    assert buffer.copyout() == bytes(buffer) == data
    assert buffer.remove() == data
    assert buffer.remove() == buffer.copyout() == b""


@pytest.mark.parametrize("size", SIZES)
def test_remove_and_copyout_give_at_most_what_was_asked_for(size: int) -> None:
    data = pattern(2 * ROOM)
    buffer = scattered(data)
    assert buffer.copyout(size) == data[:size]
    assert len(buffer) == len(data)
    assert buffer.remove(size) == data[:size]
    assert bytes(buffer) == data[size:]
    assert buffer.copyout(sys.maxsize) == data[size:]
    assert buffer.remove(sys.maxsize) == data[size:]


@pytest.mark.parametrize("size", SIZES)
def test_drain_drops_what_is_at_the_front(size: int) -> None:
    data = pattern(2 * ROOM)
    buffer = scattered(data)
    buffer.drain(size)
    assert bytes(buffer) == data[size:]
    buffer.drain(sys.maxsize)
    assert not buffer


def test_add_buffer_moves_everything() -> None:
    one, other = Buffer(b"hello, "), Buffer(b"world")
    one.add_buffer(other)
    assert bytes(one) == b"hello, world"
    assert bytes(other) == b""
    one.add_buffer(other)
    one.add_buffer(one)
    assert bytes(one) == b"hello, world"


@pytest.mark.parametrize("size", SIZES)
def test_remove_buffer_moves_at_most_what_was_asked_for(size: int) -> None:
    data = pattern(2 * ROOM)
    one, other = scattered(data), Buffer(b"> ")
    assert one.remove_buffer(other, size) == len(data[:size])
    assert bytes(one) == data[size:]
    assert bytes(other) == b"> " + data[:size]


def test_search_finds_the_first_place_at_or_after_the_start() -> None:
    buffer = Buffer(b"hello, hello")
    assert buffer.search(b"hello") == 0
    assert buffer.search(b"hello", 1) == 7
    assert buffer.search(b"hello", 7) == 7
    assert buffer.search(b"hello", 8) == -1
    assert buffer.search(b"o", 12) == -1
    assert buffer.search(bytearray(b"o, h")) == 4
    assert buffer.search(b"hello, hello, hello") == -1
    assert Buffer().search(b"x") == -1


def test_search_finds_what_lies_in_several_pieces_of_memory() -> None:
    data = b"." * 1000 + b"needle" + b"." * 1000
    for cut in range(1000, 1007):
        buffer = Buffer(data[:cut])
        with Buffer(data[cut:]) as rest:
            buffer.add_buffer(rest)
        assert buffer.search(b"needle") == 1000
        assert buffer.search(b"needle", 1001) == -1


def test_nothing_is_found_where_the_search_starts() -> None:
    buffer = Buffer(b"hello")
    assert [buffer.search(b"", start) for start in range(6)] == list(range(6))


def test_search_knows_nothing_of_nul() -> None:
    assert Buffer(b"a\0b\0\0c").search(b"\0\0c") == 3


@pytest.mark.parametrize("bad", ["text", 5, None, [1, 2], object()], ids=shown)
def test_what_is_not_bytes_is_refused(bad: Any) -> None:
    buffer = Buffer(b"hello")
    with pytest.raises(TypeError, match=r"^data must be bytes"):
        buffer.add(bad)
    with pytest.raises(TypeError, match=r"^data must be bytes"):
        Buffer(bad)
    with pytest.raises(TypeError, match=r"^what must be bytes"):
        buffer.search(bad)
    assert bytes(buffer) == b"hello"


def test_scattered_memory_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^data must be contiguous"):
        Buffer(memoryview(b"hello")[::2])


@pytest.mark.parametrize(
    ("bad", "error"),
    [(-1, ValueError), (2**64, ValueError), (1.0, TypeError), ("1", TypeError), (b"", TypeError)],
)
def test_a_bad_size_is_refused(bad: Any, error: type[Exception]) -> None:
    buffer, other = Buffer(b"hello"), Buffer()
    calls: list[Callable[[], object]] = [
        lambda: buffer.remove(bad),
        lambda: buffer.copyout(bad),
        lambda: buffer.drain(bad),
        lambda: buffer.remove_buffer(other, bad),
    ]
    for call in calls:
        with pytest.raises(error, match=r"^size must be"):
            call()
    with pytest.raises(error, match=r"^start must be"):
        buffer.search(b"l", bad)
    assert bytes(buffer) == b"hello"
    assert not other


@pytest.mark.parametrize("call", [Buffer.drain, lambda b, _: b.remove_buffer(Buffer(), None)])
def test_only_remove_and_copyout_take_none_for_everything(call: Any) -> None:
    with pytest.raises(TypeError, match=r"^size must be an integer"):
        call(Buffer(b"hello"), None)


def test_a_search_starts_within_the_buffer() -> None:
    with pytest.raises(ValueError, match=r"^start must be from 0 to 5, not 6"):
        Buffer(b"hello").search(b"o", 6)


@pytest.mark.parametrize("bad", [b"bytes", None, 5, lib.evbuffer_new], ids=shown)
def test_only_a_buffer_is_moved_to_and_from(bad: Any) -> None:
    buffer = Buffer(b"hello")
    with pytest.raises(TypeError, match=r"^other must be a Buffer, not "):
        buffer.add_buffer(bad)
    with pytest.raises(TypeError, match=r"^other must be a Buffer, not "):
        buffer.remove_buffer(bad, 1)
    assert bytes(buffer) == b"hello"


def test_an_event_base_is_no_buffer(base: EventBase) -> None:
    with pytest.raises(TypeError, match=r"^other must be a Buffer, not <EventBase"):
        Buffer().add_buffer(base)  # type: ignore[arg-type]


def test_every_use_of_a_closed_buffer_says_so() -> None:
    buffer = Buffer(b"hello")
    assert not buffer.closed
    buffer.close()
    buffer.close()
    assert buffer.closed
    assert repr(buffer).startswith("<Buffer closed")
    uses: list[Callable[[], object]] = [
        lambda: len(buffer),
        lambda: bool(buffer),
        lambda: bytes(buffer),
        lambda: buffer.pointer,
        lambda: buffer.add(b""),
        lambda: buffer.add_buffer(Buffer()),
        lambda: Buffer().add_buffer(buffer),
        lambda: buffer.remove(),
        lambda: buffer.copyout(0),
        lambda: buffer.drain(0),
        lambda: buffer.remove_buffer(Buffer(), 1),
        lambda: Buffer(b"x").remove_buffer(buffer, 1),
        lambda: buffer.search(b"x"),
        lambda: buffer.__enter__(),
    ]
    for use in uses:
        with pytest.raises(ClosedError, match=r"^this Buffer is closed$"):
            use()


def test_with_closes_the_buffer_whatever_happens_in_it() -> None:
    with contextlib.suppress(ZeroDivisionError), Buffer(b"hello") as buffer:
        raise ZeroDivisionError
    assert buffer.closed


def test_the_pointer_is_for_the_raw_layer() -> None:
    buffer = Buffer(b"hello")
    assert lib.evbuffer_get_length(buffer.pointer) == 5
    assert lib.evbuffer_add(buffer.pointer, b", world", 7) == 0
    assert bytes(buffer) == b"hello, world"


def test_a_failure_in_c_names_the_function_and_changes_nothing() -> None:
    buffer, other = Buffer(b"hello"), Buffer(b"other")
    at_end: list[tuple[str, Callable[[], object]]] = [
        ("evbuffer_add", lambda: buffer.add(b"x")),
        ("evbuffer_add_buffer", lambda: buffer.add_buffer(other)),
        ("evbuffer_remove_buffer", lambda: other.remove_buffer(buffer, 1)),
    ]
    at_front: list[tuple[str, Callable[[], object]]] = [
        ("evbuffer_drain", lambda: buffer.drain(1)),
        ("evbuffer_remove", lambda: buffer.remove(1)),
        ("evbuffer_copyout", lambda: buffer.copyout(1)),
    ]
    for front, calls in enumerate((at_end, at_front)):
        lib.evbuffer_freeze(buffer.pointer, front)
        for name, call in calls:
            with pytest.raises(LibeventError, match=f"^{name} failed: the (other )?buffer is froz"):
                call()
        lib.evbuffer_unfreeze(buffer.pointer, front)
    assert (bytes(buffer), bytes(other)) == (b"hello", b"other")


def test_a_buffer_goes_with_its_last_reference() -> None:
    gc.disable()
    try:
        buffer = Buffer(b"hello")
        gone = weakref.ref(buffer)
        del buffer
        assert gone() is None
    finally:
        gc.enable()


def test_a_subclass_may_have_more() -> None:
    class Lines(Buffer):
        def __init__(self, name: str) -> None:
            super().__init__(b"a\nb\n")
            self.name = name

        def count(self) -> int:
            return bytes(self).count(b"\n")

    lines = Lines("x")
    assert (lines.count(), lines.name) == (2, "x")
    lines.close()
    assert lines.name == "x"
    assert isinstance(lines, Lines)
    with pytest.raises(ClosedError, match="this Lines is closed"):
        lines.count()


def test_what_does_not_come_to_be_leaves_nothing() -> None:
    class Refusing(Buffer):
        def __init__(self) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Refusing()
    gc.collect()


@pytest.mark.slow
def test_dropped_and_closed_buffers_free_their_memory() -> None:
    run_python(
        """
        import resource
        from libevent_py import Buffer

        data = bytes(1_000_000)

        def used():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        def work():
            for _ in range(50):
                buffer = Buffer(data)
                buffer.copyout()
                other = Buffer()
                other.add_buffer(buffer)
                cycle = [Buffer(data)]
                cycle.append(cycle)
                buffer.close()
            import gc
            gc.collect()

        work()
        before = used()
        for _ in range(10):
            work()
        assert used() - before < 30_000, used() - before
        """
    )


# A bufferevent's own.


def test_a_borrowed_buffer_is_the_same_for_as_long_as_it_is_held(base: EventBase) -> None:
    one, other = socket.socketpair()
    with BufferEvent(base, one) as bev, other:
        held = bev.input
        assert bev.input is held
        assert bev.output is not held
        assert isinstance(held, Buffer)
        assert repr(held).startswith("<Buffer at 0x")


def test_a_borrowed_buffer_keeps_its_bufferevent(base: EventBase) -> None:
    one, other = socket.socketpair()
    with other:
        bev = BufferEvent(base, one)
        bev.write(b"hello")
        output = bev.output
        gone = weakref.ref(bev)
        base.close()
        del bev
        assert gone() is not None
        with pytest.raises(ClosedError, match="this BufferEvent is closed"):
            len(output)
        del output
        gc.collect()
        assert gone() is None


def test_only_its_owner_closes_a_borrowed_buffer(base: EventBase) -> None:
    one, other = socket.socketpair()
    with other, BufferEvent(base, one) as bev:
        with pytest.raises(ValueError, match="closed by closing the bufferevent"):
            bev.input.close()
        with pytest.raises(ValueError, match="closed by closing the bufferevent"), bev.output:
            pass
        bev.write(b"hello")
        assert len(bev.output) == 5


@pytest.mark.parametrize("end", ["bufferevent", "base"])
def test_a_borrowed_buffer_ends_with_its_owner(base: EventBase, end: str) -> None:
    one, other = socket.socketpair()
    with other:
        bev = BufferEvent(base, one)
        bev.write(b"hello")
        held = [bev.input, bev.output]
        (bev if end == "bufferevent" else base).close()
        for buffer in held:
            assert buffer.closed
            assert "closed" in repr(buffer)
            uses: list[Callable[[], object]] = [
                lambda buffer=buffer: len(buffer),  # type: ignore[misc]
                lambda buffer=buffer: buffer.add(b"x"),  # type: ignore[misc]
                lambda buffer=buffer: Buffer().add_buffer(buffer),  # type: ignore[misc]
                lambda buffer=buffer: buffer.pointer,  # type: ignore[misc]
            ]
            for use in uses:
                with pytest.raises(ClosedError, match=r"^this BufferEvent is closed$"):
                    use()


def test_the_ends_that_belong_to_the_loop_are_frozen(base: EventBase) -> None:
    one, other = socket.socketpair()
    with other, BufferEvent(base, one) as bev:
        with pytest.raises(
            LibeventError, match=r"^evbuffer_add failed: the buffer is frozen at its"
        ):
            bev.input.add(b"x")
        bev.write(b"hello")
        with pytest.raises(
            LibeventError, match=r"^evbuffer_drain failed: the buffer is frozen at its"
        ):
            bev.output.drain(1)
        with pytest.raises(
            LibeventError, match=r"^evbuffer_remove failed: the buffer is frozen at its"
        ):
            bev.output.remove()
        with pytest.raises(
            LibeventError, match=r"^evbuffer_copyout failed: the buffer is frozen at its"
        ):
            bev.output.copyout()
        assert len(bev.output) == 5
