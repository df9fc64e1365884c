"""Memory of Python's own in buffers: kept as long as C needs it, and no longer."""

from __future__ import annotations

import array
import gc
import mmap
import socket
import sys
import threading
import time
import weakref
from typing import Any

import pytest

from libevent_py import Buffer, BufferEvent, ClosedError, EventBase, EventFlag, LibeventError
from libevent_py._core.references import references
from tests.kit.peers import Pair, run_until
from tests.kit.support import PATIENCE, run_python, shown


class Kept(bytearray):
    """Memory that can be watched."""


def watched(content: bytes) -> tuple[Kept, weakref.ref[Kept]]:
    kept = Kept(content)
    return kept, weakref.ref(kept)


def forget() -> None:
    """Have released what C has let go of, as any operation does that may have taken bytes."""
    Buffer(b"x").drain(1)


def test_what_is_referred_to_is_in_the_buffer_and_not_copied() -> None:
    data = bytearray(b"hello")
    buffer = Buffer(b"> ")
    buffer.add_reference(data)
    data[0] = ord("j")
    assert bytes(buffer) == b"> jello"
    with pytest.raises(BufferError):
        data.clear()
    buffer.drain(7)
    data.clear()


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        bytearray(b"hello"),
        memoryview(b"--hello--")[2:7],
        array.array("b", b"hello"),
    ],
    ids=shown,
)
def test_anything_with_the_buffer_protocol_may_be_referred_to(data: Any) -> None:
    buffer = Buffer()
    buffer.add_reference(data)
    del data
    gc.collect()
    assert buffer.remove() == b"hello"


def test_a_mapped_file_may_be_referred_to() -> None:
    with mmap.mmap(-1, 100_000) as memory:
        memory[:5] = b"hello"
        buffer = Buffer()
        buffer.add_reference(memory)
        assert buffer.search(b"hello") == 0
        assert len(buffer) == 100_000
        with pytest.raises(BufferError):
            memory.close()
        buffer.close()
        memory.close()


@pytest.mark.parametrize(
    ("data", "error"),
    [("text", TypeError), (5, TypeError), (memoryview(b"hello")[::2], ValueError)],
)
def test_what_is_no_memory_is_refused(data: Any, error: type[Exception]) -> None:
    buffer = Buffer()
    with pytest.raises(error, match="data must"):
        buffer.add_reference(data)
    assert not buffer


def test_nothing_is_added_for_nothing() -> None:
    told: list[Any] = []
    buffer = Buffer()
    buffer.add_cb(lambda *what: told.append(what))
    buffer.add_reference(b"")
    assert not buffer
    assert not told
    other = Buffer()
    other.add_buffer_reference(buffer)
    assert not references


WAYS = {
    "drained": lambda buffer: buffer.drain(5),
    "removed": lambda buffer: buffer.remove(),
    "removed by parts": lambda buffer: [buffer.remove(3), buffer.remove(2)],
    "removed into": lambda buffer: buffer.remove_into(bytearray(5)),
    "read as a line": lambda buffer: [buffer.add(b"\n"), buffer.readln()],
    "closed": lambda buffer: buffer.close(),
    "pulled up": lambda buffer: [buffer.add(b"more"), buffer.pullup()],
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_released_as_soon_as_it_is_not_needed(way: str) -> None:
    data, ref = watched(b"hello")
    buffer = Buffer()
    buffer.add_reference(data)
    del data
    gc.collect()
    assert ref() is not None
    WAYS[way](buffer)  # type: ignore[no-untyped-call]
    assert ref() is None
    assert not references


def test_it_is_released_when_it_has_been_written(pair: Pair) -> None:
    data, ref = watched(b"hello")
    buffer = Buffer()
    buffer.add_reference(data)
    del data
    assert buffer.write(pair[0]) == 5
    assert pair[1].recv(10) == b"hello"
    assert ref() is None


def test_what_a_dropped_buffer_had_is_released_by_the_next_operation_of_any() -> None:
    data, ref = watched(b"hello")
    buffer = Buffer()
    buffer.add_reference(data)
    del data, buffer
    forget()
    assert ref() is None


def test_it_is_kept_while_it_is_in_another_buffer_or_looked_at() -> None:
    data, ref = watched(b"hello")
    buffer, other, third = Buffer(), Buffer(), Buffer()
    buffer.add_reference(data)
    del data
    other.add_buffer(buffer)
    third.add_buffer_reference(other)
    buffer.close()
    (view,) = other.peek()
    other.close()
    assert third.remove() == b"hello"
    assert ref() is not None
    assert view == b"hello"  # type: ignore[comparison-overlap]
    del view
    forget()
    assert ref() is None


def test_one_object_may_be_referred_to_many_times() -> None:
    data, ref = watched(b"ab")
    buffer = Buffer()
    for _ in range(100):
        buffer.add_reference(data)
    del data
    assert buffer.remove(199) == b"ab" * 99 + b"a"
    assert ref() is not None
    buffer.drain(1)
    assert ref() is None
    assert not references


def test_a_frozen_buffer_refuses_it_and_releases_it() -> None:
    data, ref = watched(b"hello")
    buffer = Buffer()
    buffer.freeze(False)
    with pytest.raises(LibeventError, match=r"evbuffer_add_reference failed: .* frozen at"):
        buffer.add_reference(data)
    del data
    assert ref() is None
    buffer.close()
    with pytest.raises(ClosedError):
        buffer.add_reference(b"hello")
    assert not references


def test_it_stays_when_a_callback_raises_that_was_told_of_it() -> None:
    data, ref = watched(b"hello")
    buffer = Buffer()

    def told(_buffer: Buffer, _info: Any) -> None:
        raise KeyError("told")

    callback = buffer.add_cb(told)
    with pytest.raises(KeyError, match="told"):
        buffer.add_reference(data)
    callback.remove()
    del data
    gc.collect()
    assert ref() is not None
    assert buffer.remove() == b"hello"
    assert ref() is None


def test_what_is_released_may_use_the_buffer_it_was_in() -> None:
    """No Python runs in the middle of C's changing it (D4)."""
    seen: list[bytes] = []
    buffer = Buffer()

    class Last(bytearray):
        def __del__(self) -> None:
            seen.append(bytes(buffer))
            buffer.add(b"!")
            buffer.drain(1)

    for _ in range(3):
        buffer.add_reference(Last(b"ab"))
    buffer.drain(2)
    assert seen == [b"abab"]
    buffer.drain(100)
    assert seen == [b"abab", b"", b""]
    assert not buffer


def test_a_loop_releases_what_it_has_sent_though_nothing_else_happens(
    base: EventBase, pair: Pair
) -> None:
    data, ref = watched(b"x" * 100_000)
    with BufferEvent(base, pair[0].detach()) as bev:
        bev.output.add_reference(data)
        del data
        received = 0
        released: list[float] = []
        weakref.finalize(ref(), lambda: (released.append(received), base.loopexit()))

        def read() -> None:
            nonlocal received
            while received < 100_000:
                received += len(pair[1].recv(1000))

        pair[1].settimeout(PATIENCE)
        reader = threading.Thread(target=read)
        reader.start()
        bev.enable(EventFlag.READ)  # so that the loop goes on waiting
        base.loopexit(PATIENCE)
        begun = time.monotonic()
        base.dispatch()
        assert time.monotonic() - begun < PATIENCE / 2
        assert released
        reader.join(PATIENCE)
    assert ref() is None


def test_a_pair_s_reader_releases_what_its_writer_has_referred_to(base: EventBase) -> None:
    data, ref = watched(b"hello")
    one, other = BufferEvent.pair(base)
    other.enable(EventFlag.READ)
    one.output.add_reference(data)
    del data
    run_until(base, lambda: len(other.input))
    assert ref() is not None
    assert other.input.remove() == b"hello"
    assert ref() is None


@pytest.mark.parametrize("first", ["bufferevent", "base"])
def test_closing_releases_what_has_not_been_sent(first: str) -> None:
    data, ref = watched(b"x" * 1_000_000)
    base = EventBase()
    left, right = socket.socketpair()
    with right:
        bev = BufferEvent(base, left)
        bev.output.add_reference(data)
        del data
        if first == "bufferevent":
            bev.close()
        base.close()
    assert ref() is None
    assert not references


def test_a_deferred_buffer_that_its_base_closes_releases_it() -> None:
    data, ref = watched(b"hello")
    with EventBase() as base:
        buffer = Buffer()
        buffer.defer_callbacks(base)
        buffer.add_reference(data)
        del data
    assert ref() is None


def test_what_another_thread_drains_is_released_there() -> None:
    data, ref = watched(b"hello")
    where: list[threading.Thread] = []
    weakref.finalize(data, lambda: where.append(threading.current_thread()))
    buffer = Buffer()
    buffer.add_reference(data)
    del data
    thread = threading.Thread(target=buffer.drain, args=(5,))
    thread.start()
    thread.join(PATIENCE)
    assert where == [thread]
    assert ref() is None


def test_two_threads_may_add_and_drain_references() -> None:
    buffer = Buffer()
    added = [bytearray(b"x" * 100) for _ in range(3000)]

    def add() -> None:
        for data in added:
            buffer.add_reference(data)

    def drain() -> None:
        taken = 0
        while taken < 100 * len(added):
            taken += len(buffer.remove(777))

    threads = [threading.Thread(target=add), threading.Thread(target=drain)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    forget()
    assert not references
    for data in added:
        data.clear()


def test_parent_and_child_each_release_their_own() -> None:
    code = """
        import os
        from libevent_py import Buffer
        from libevent_py._core.references import references

        buffer = Buffer()
        buffer.add_reference(bytearray(b"hello"))
        view = buffer.peek()[0]
        child = os.fork()
        assert buffer.remove() == b"hello"
        assert references  # somebody looks
        del view
        Buffer(b"x").drain(1)
        assert not references
        buffer.add_reference(b"more")
        buffer.close()
        assert not references
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        else:
            os._exit(0)
    """
    run_python(code)


@pytest.mark.slow
def test_a_fork_while_another_thread_shares_memory_leaves_nothing_locked() -> None:
    code = """
        import os, signal, threading
        from libevent_py import Buffer

        signal.alarm(60)
        stop = threading.Event()

        def work():
            source, other = Buffer(), Buffer()
            for _ in range(5000):
                source.add_reference(b"y")
            while not stop.is_set():
                other.add_buffer_reference(source)  # takes the lock 5000 times, outside of Python
                other.drain(5000)

        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(100):
            child = os.fork()
            if not child:
                signal.alarm(60)
                buffer = Buffer(b"x")
                buffer.add_reference(b"y")
                buffer.peek()
                buffer.close()
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stop.set()
        thread.join()
    """
    run_python(code)


def test_what_is_left_at_the_end_harms_nobody() -> None:
    code = """
        import os
        from libevent_py import *

        class Last(bytearray):
            def __del__(self):
                pass

        base = EventBase()
        one, other = BufferEvent.pair(base)
        one.output.add_reference(Last(b"hello"))
        buffer = Buffer()
        buffer.add_reference(Last(b"hello"))
        segment = FileSegment(os.open("/proc/self/exe", os.O_RDONLY), 0, 10)
        buffer.add_file_segment(segment)
        views = buffer.peek()
        dropped = Buffer()
        dropped.add_reference(Last(b"hello"))
        del dropped
        with buffer.reserve(10) as view:
            kept = view[:]
    """
    run_python(code, valgrind=True)


def test_what_there_was_no_room_to_add_is_not_kept() -> None:
    def add(depth: int) -> None:
        if depth:
            add(depth - 1)
        else:
            buffer.add_reference(bytearray(100))

    buffer = Buffer()
    buffer.add_cb(lambda *_: None)
    refused = 0
    for depth in range(sys.getrecursionlimit()):
        try:
            add(depth)
        except RecursionError:
            refused += 1
    assert refused
    added = len(buffer) // 100
    assert len(references) == added
    buffer.drain(len(buffer))
    assert not references
