"""What goes into a buffer and out of it in other ways than one by one."""

from __future__ import annotations

import array
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libevent_py import Buffer, BufferEvent, ClosedError, EventBase, LibeventError, ffi, lib
from libevent_py.buffer.buffer import ROOM, spares
from tests.kit.peers import Pair
from tests.kit.support import PATIENCE, run_python


def in_pieces(*pieces: bytes) -> Buffer:
    """Return a buffer whose content lies in *pieces*."""
    buffer = Buffer()
    for data in pieces:
        with Buffer(data) as piece:
            buffer.add_buffer(piece)
    return buffer


# As Python has it.


def test_a_buffer_equals_what_has_its_bytes() -> None:
    buffer = in_pieces(b"hel", b"lo")
    assert buffer == b"hello"
    assert b"hello" == buffer
    assert buffer == bytearray(b"hello")
    assert buffer == memoryview(b"hello")
    assert buffer == Buffer(b"hello")
    assert buffer == buffer
    assert buffer != b"hellO"
    assert buffer != b"hello!"
    assert buffer != Buffer(b"hell")
    assert buffer != "hello"
    assert buffer != 5
    assert buffer != None  # noqa: E711
    assert Buffer() == b""
    assert Buffer(array.array("i", [1, 2])) == array.array("i", [1, 2])


def test_what_can_change_has_no_hash() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Buffer())


def test_plus_adds_bytes_or_moves_a_buffer() -> None:
    buffer = same = Buffer(b"a")
    buffer += b"b"
    buffer += bytearray(b"c")
    other = Buffer(b"d")
    buffer += other
    assert buffer is same
    assert bytes(buffer) == b"abcd"
    assert not other
    with pytest.raises(TypeError, match="data must be bytes"):
        buffer += "e"  # type: ignore[arg-type]


def test_iteration_gives_the_pieces() -> None:
    pieces = [b"one", b"x" * 5000, b"y" * (2 * ROOM), b"z"]
    buffer = in_pieces(*pieces)
    assert list(buffer) == pieces
    assert list(Buffer()) == []
    buffer.drain(1)
    assert next(iter(buffer)) == b"ne"


def test_iteration_goes_on_by_position_when_the_buffer_changes() -> None:
    buffer = in_pieces(b"one", b"two", b"three")
    seen = []
    for piece in buffer:
        seen.append(piece)
        if len(seen) == 1:
            buffer.drain(1)
        if len(seen) == 2:
            buffer.drain(100)
    assert seen == [b"one", b"wo"]


def test_the_content_is_seen_where_the_front_is_frozen_too(base: EventBase, pair: Pair) -> None:
    with BufferEvent(base, pair[0].detach()) as bev:
        bev.write(b"hello")
        output = bev.output
        assert bytes(output) == b"hello"
        assert output == b"hello"
        assert list(output) == [b"hello"]
        assert b"ell" in output
        assert output.search(b"l") == 2
        with pytest.raises(LibeventError, match="evbuffer_copyout failed: the buffer is frozen"):
            output.copyout()


# Bytes in and out.


def test_prepend_puts_in_front() -> None:
    buffer = Buffer(b"world")
    buffer.prepend(bytearray(b"hello, "))
    buffer.prepend(b"")
    buffer.prepend(b"x" * 5000)
    assert bytes(buffer) == b"x" * 5000 + b"hello, world"


def test_prepend_buffer_moves_everything_to_the_front() -> None:
    buffer, other = Buffer(b"world"), in_pieces(b"hello", b", ")
    buffer.prepend_buffer(other)
    buffer.prepend_buffer(buffer)
    buffer.prepend_buffer(other)
    assert bytes(buffer) == b"hello, world"
    assert not other


@pytest.mark.parametrize("size", [0, 1, 5, 6, 100])
def test_remove_into_fills_what_it_is_given(size: int) -> None:
    buffer, target = in_pieces(b"he", b"llo"), bytearray(b"." * size)
    expected = b"hello"[:size]
    assert buffer.remove_into(target) == len(expected)
    assert target == expected + b"." * (size - len(expected))
    assert bytes(buffer) == b"hello"[size:]
    target.clear()  # nobody looks at it any more


def test_remove_into_takes_any_writable_memory() -> None:
    buffer = Buffer(b"hello" * 10)
    numbers = array.array("i", [0] * 5)
    assert buffer.remove_into(numbers) == 5 * numbers.itemsize
    view = memoryview(bytearray(10))[2:5]
    assert buffer.remove_into(view) == 3
    for bad in (b"bytes", memoryview(b"bytes"), "text", None, 5):
        with pytest.raises((TypeError, ValueError), match="writable must be"):
            buffer.remove_into(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="contiguous"):
        buffer.remove_into(memoryview(bytearray(10))[::2])
    assert len(buffer) == 50 - 5 * numbers.itemsize - 3


def test_add_iovec_adds_each_piece() -> None:
    buffer = Buffer(b"> ")
    buffer.add_iovec([b"one", bytearray(b", "), memoryview(b"two"), b"", array.array("b", b"!")])
    buffer.add_iovec([])
    buffer.add_iovec(iter([b"?"]))
    assert bytes(buffer) == b"> one, two!?"
    for bad in ([b"x", "text"], [5], 5, None):
        with pytest.raises(TypeError):
            buffer.add_iovec(bad)  # type: ignore[arg-type]
    assert bytes(buffer) == b"> one, two!?"
    buffer.freeze(False)
    with pytest.raises(LibeventError, match="evbuffer_add_iovec failed: the buffer is frozen at"):
        buffer.add_iovec([b"x"])


def test_expand_makes_room_in_one_piece() -> None:
    buffer = Buffer()
    buffer.expand(10_000)
    for _ in range(10):
        buffer.add(b"x" * 1000)
    assert buffer.contiguous_space == 10_000
    assert list(buffer) == [b"x" * 10_000]
    assert Buffer().contiguous_space == 0
    assert in_pieces(b"one", b"three").contiguous_space == 3
    with pytest.raises(ValueError, match="size must be from 0"):
        buffer.expand(-1)
    with pytest.raises(MemoryError, match="evbuffer_expand"):
        buffer.expand(2**63 - 1)
    with pytest.raises(MemoryError, match="evbuffer_expand"):
        buffer.expand(2**61)
    assert len(buffer) == 10_000


# Descriptors.


def test_read_takes_what_a_descriptor_has(pair: Pair) -> None:
    one, other = pair
    buffer = Buffer(b"> ")
    other.send(b"hello")
    assert buffer.read(one) == 5
    other.send(b"x" * 10_000)
    assert buffer.read(one.fileno(), 3) == 3
    assert buffer.read(one) == 4096  # as much as libevent reads at a time
    assert buffer.read(one, 10_000) == 4096
    assert buffer.read(one) == 10_000 - 3 - 2 * 4096
    with pytest.raises(BlockingIOError, match="evbuffer_read: fd "):
        buffer.read(one)
    other.close()
    assert buffer.read(one) == 0
    assert bytes(buffer) == b"> hello" + b"x" * 10_000


def test_read_takes_what_a_file_has(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    buffer = Buffer()
    with path.open("rb") as file:
        assert [buffer.read(file) for _ in range(3)] == [4096, 904, 0]
    assert bytes(buffer) == path.read_bytes()


def test_a_full_last_piece_does_not_end_the_process() -> None:
    run_python(
        """
        import os
        from libevent_py import Buffer

        read, write = os.pipe()
        os.write(write, b"hello")
        for size in (0, -1, -2, 2**31):
            buffer = Buffer()
            buffer.expand(100)
            while len(buffer) < 8000:
                buffer.add(b"x")
                try:
                    buffer.read(read, size)
                except ValueError as error:
                    assert "size must be from" in str(error), error
                else:
                    raise AssertionError
        """
    )


def test_write_gives_what_a_descriptor_takes(pair: Pair) -> None:
    one, other = pair
    buffer = in_pieces(b"hel", b"lo, ", b"world")
    assert buffer.write(one, 5) == 5
    assert buffer.write(one, 0) == 0
    assert buffer.write(one.fileno()) == 7
    assert buffer.write(one) == 0
    assert Buffer().write(one) == 0
    assert other.recv(100) == b"hello, world"
    buffer.add(b"x" * 10_000_000)
    written = buffer.write(one)
    assert 0 < written < 10_000_000
    assert len(buffer) == 10_000_000 - written
    with pytest.raises(BlockingIOError, match="evbuffer_write: fd "):
        while True:
            buffer.write(one)
    other.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        buffer.write(one)


@pytest.mark.parametrize("function", [Buffer.read, Buffer.write])
def test_a_descriptor_must_be_open(function: Any) -> None:
    buffer = Buffer(b"hello")
    read, write = os.pipe()
    os.close(read)
    os.close(write)
    with pytest.raises(OSError, match="fd"):
        function(buffer, read)
    for bad in (-1, "1", None, 1.5):
        with pytest.raises((TypeError, ValueError), match=r"^fd must be"):
            function(buffer, bad)
    with open(os.devnull, "r+b") as file:
        for size in ("1", b"", 1.5):
            with pytest.raises(TypeError, match=r"^size must be an integer"):
                function(buffer, file, size)
        for size in (-1, -2, 2**64):
            with pytest.raises(ValueError, match=r"^size must be from"):
                function(buffer, file, size)
    assert bytes(buffer) == b"hello"


def test_reading_waits_without_keeping_the_interpreter(pair: Pair) -> None:
    one, other = pair
    one.setblocking(True)
    buffer, got = Buffer(), []
    thread = threading.Thread(target=lambda: got.append(buffer.read(one)))
    thread.start()
    other.send(b"hello")
    thread.join(PATIENCE)
    assert got == [5]


# Freezing.


def test_a_frozen_end_is_named() -> None:
    buffer, other = Buffer(b"hello"), Buffer(b"other")
    read, write = os.pipe()
    at_end: dict[str, Callable[[], object]] = {
        "evbuffer_add": lambda: buffer.add(b"x"),
        "evbuffer_add_buffer": lambda: buffer.add_buffer(other),
        "evbuffer_read": lambda: buffer.read(read),
        "evbuffer_add_iovec": lambda: buffer.add_iovec([b"x"]),
    }
    at_front: dict[str, Callable[[], object]] = {
        "evbuffer_prepend": lambda: buffer.prepend(b"x"),
        "evbuffer_prepend_buffer": lambda: buffer.prepend_buffer(other),
        "evbuffer_remove_buffer": lambda: buffer.remove_buffer(other, 1),
        "evbuffer_remove": lambda: buffer.remove(),
        "evbuffer_copyout": lambda: buffer.copyout(),
        "evbuffer_drain": lambda: buffer.drain(1),
        "evbuffer_write": lambda: buffer.write(write),
    }
    of_other: dict[str, tuple[bool, Callable[[], object]]] = {
        "evbuffer_add_buffer": (True, lambda: other.add_buffer(buffer)),
        "evbuffer_prepend_buffer": (True, lambda: other.prepend_buffer(buffer)),
        "evbuffer_remove_buffer": (False, lambda: other.remove_buffer(buffer, 1)),
    }
    os.write(write, b"x")
    for front, calls in ((False, at_end), (True, at_front)):
        buffer.freeze(front)
        where = "front" if front else "end"
        for name, call in calls.items():
            with pytest.raises(
                LibeventError, match=f"^{name} failed: the buffer .* at its {where}$"
            ):
                call()
        for name, (end, call) in of_other.items():
            if end == front:
                with pytest.raises(LibeventError, match=f"^{name} failed: the other .* {where}$"):
                    call()
        buffer.unfreeze(front)
    assert (bytes(buffer), bytes(other)) == (b"hello", b"other")
    buffer.drain(5)
    buffer.freeze(True)
    with pytest.raises(LibeventError, match="frozen at its front"):
        buffer.prepend(b"x")
    assert not buffer
    os.close(read)
    os.close(write)


def test_what_touches_no_frozen_end_goes_on() -> None:
    buffer = Buffer(b"hello")
    buffer.freeze(True)
    buffer.add(b"!")
    assert bytes(buffer) == b"hello!"
    assert buffer.search(b"o") == 4
    buffer.unfreeze(True)
    buffer.freeze(False)
    buffer.drain(1)
    buffer.prepend(b"j")
    assert bytes(buffer) == b"jello!"
    buffer.freeze(False)
    buffer.unfreeze(False)
    buffer.add(b"")


# Locking.


def test_the_lock_keeps_other_threads_away(base: EventBase) -> None:
    buffer = Buffer()
    got: list[int] = []

    def work() -> None:
        buffer.add(b"x")
        got.append(len(buffer))

    thread = threading.Thread(target=work)
    with buffer.lock(), buffer.lock():
        thread.start()
        time.sleep(0.05)
        assert got == []
        buffer.add(b"hello")
    thread.join(PATIENCE)
    assert got == [6]
    buffer.enable_locking()
    buffer.close()
    for call in (buffer.enable_locking, lambda: buffer.lock().__enter__()):
        with pytest.raises(ClosedError):
            call()


def test_another_thread_can_not_give_the_lock_back() -> None:
    buffer = Buffer()
    held = buffer.lock()
    held.__enter__()
    raised: list[BaseException] = []

    def leave() -> None:
        try:
            held.__exit__(None, None, None)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join(PATIENCE)
    assert "another thread" in str(raised[0])
    held.__exit__(None, None, None)
    thread = threading.Thread(target=buffer.add, args=(b"x",), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()  # it would wait for ever
    assert len(buffer) == 1


def test_a_buffer_may_be_closed_where_it_is_locked() -> None:
    run_python(
        """
        from libevent_py import Buffer

        buffer = Buffer(b"hello")
        with buffer.lock():
            buffer.close()
        buffer = Buffer(b"hello")
        with buffer.lock():
            del buffer
        """,
        valgrind=True,
    )


def test_a_bufferevents_buffer_has_its_lock(base: EventBase, pair: Pair) -> None:
    with BufferEvent(base, pair[0].detach()) as bev:
        with bev.output.lock():
            assert sum(base._holds.values()) == 1
            bev.output.add(b"x")
        assert not base._holds


def test_four_threads_lose_no_byte() -> None:
    buffer, out = Buffer(), Buffer()
    data = [bytes([letter]) * 50 + b"\n" for letter in b"abcd"]

    def put(line: bytes) -> None:
        for _ in range(500):
            buffer.add(line)

    def take() -> None:
        while len(out) < 4 * 500 * 51:
            with out.lock():
                if (line := buffer.readln()) is not None:
                    out.add(line + b"\n")

    threads = [threading.Thread(target=put, args=(line,)) for line in data]
    threads += [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    lines = bytes(out).splitlines(keepends=True)
    assert sorted(set(lines)) == data
    assert len(lines) == 2000


# The memory that copies go through.


def test_a_signal_handler_may_copy_in_the_middle_of_a_copy() -> None:
    buffer, other = Buffer(), Buffer()
    seen = set()

    def handle(_number: int, _frame: object) -> None:
        other.add(b"other")
        seen.add(other.remove())

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
    try:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            buffer.add(b"hello\n")
            assert buffer.copyout() == b"hello\n"
            assert buffer.remove(3) == b"hel"
            assert buffer.readln() == b"lo"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen  # one handler may run inside another
    assert all(set(found) <= set(b"other") and len(found) % 5 == 0 for found in seen)


def test_copies_leave_one_piece_of_memory_behind() -> None:
    spares.clear()
    buffer = Buffer(b"hello\n" * 100_000)
    buffer.add_cb(lambda changed, _: len(changed.copyout(10)))
    for _ in range(10):
        buffer.remove(10)
        buffer.readln()
        list(buffer)
        buffer.copyout(100_000)
    assert 1 <= len(spares) <= 2


def test_a_failure_leaves_the_memory_to_the_next() -> None:
    buffer = Buffer(b"hello\n")
    buffer.freeze(True)
    for call in (buffer.remove, buffer.copyout, buffer.readln):
        with pytest.raises(LibeventError, match="frozen"):
            call()
    buffer.unfreeze(True)
    assert buffer.remove() == b"hello\n"


def test_a_new_buffer_has_no_piece_of_memory_yet() -> None:
    # An empty one would count.
    assert lib.evbuffer_peek(Buffer().pointer, -1, ffi.NULL, ffi.NULL, 0) == 0
