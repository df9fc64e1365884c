"""Memory that is reserved in a buffer, and what may be done meanwhile: nothing (D7)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    ClosedError,
    EventBase,
    FileSegment,
    LibeventError,
)
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import PATIENCE, run_python


def test_what_is_committed_is_appended() -> None:
    buffer = Buffer(b"> ")
    with buffer.reserve(10_000) as view:
        assert len(view) == 10_000
        assert not view.readonly
        view[:5] = b"hello"
        buffer.commit(5)
        with pytest.raises(ValueError, match="released"):
            view[0] = 0
    assert bytes(buffer) == b"> hello"
    with buffer.reserve(1) as view:
        view[0] = 33
        buffer.commit(1)
    assert bytes(buffer) == b"> hello!"


def test_what_is_not_committed_is_not_appended() -> None:
    buffer = Buffer()
    with buffer.reserve(100) as view:
        view[:5] = b"hello"
    with pytest.raises(ValueError, match="released"):
        view[0] = 0
    with pytest.raises(KeyError), buffer.reserve(100):
        raise KeyError
    with buffer.reserve(100):
        buffer.commit(0)
    assert not buffer


def test_memory_is_reserved_once_at_a_time_and_committed_once() -> None:
    buffer = Buffer()
    with pytest.raises(RuntimeError, match="inside a block of reserve"):
        buffer.commit(0)
    with buffer.reserve(10):
        with pytest.raises(RuntimeError, match="memory is reserved in this buffer"):
            buffer.reserve(10).__enter__()
        buffer.commit(1)
        with pytest.raises(RuntimeError, match="inside a block of reserve"):
            buffer.commit(1)
    with pytest.raises(RuntimeError, match="inside a block of reserve"):
        buffer.commit(1)
    assert len(buffer) == 1


@pytest.mark.parametrize("size", [0, -1, sys.maxsize + 1])
def test_reserve_refuses_what_is_no_size(size: int) -> None:
    with pytest.raises(ValueError, match="size must be from 1"):
        Buffer().reserve(size).__enter__()


def test_what_does_not_fit_into_memory_is_not_reserved() -> None:
    buffer = Buffer()
    with pytest.raises(MemoryError):
        buffer.reserve(sys.maxsize).__enter__()
    with buffer.reserve(10):
        buffer.commit(10)
    assert len(buffer) == 10


def test_commit_refuses_more_than_was_reserved() -> None:
    buffer = Buffer()
    with buffer.reserve(10):
        with pytest.raises(ValueError, match="size must be from 0 to 10, not 11"):
            buffer.commit(11)
        buffer.commit(10)
    assert len(buffer) == 10


def add_segment(buffer: Buffer) -> None:
    with open(__file__, "rb") as file, FileSegment(file) as segment:
        buffer.add_file_segment(segment)


#: A use of a buffer by each of its names, and by Python's own.
USES: dict[str, Callable[[Buffer], object]] = {
    "add": lambda buffer: buffer.add(b""),
    "add_buffer": lambda buffer: buffer.add_buffer(Buffer()),
    "add_buffer_reference": lambda buffer: buffer.add_buffer_reference(Buffer()),
    "add_cb": lambda buffer: buffer.add_cb(print),
    "add_file": lambda buffer: buffer.add_file(0),
    "add_file_segment": add_segment,
    "add_iovec": lambda buffer: buffer.add_iovec([]),
    "add_reference": lambda buffer: buffer.add_reference(b""),
    "close": lambda buffer: buffer.close(),
    "contiguous_space": lambda buffer: buffer.contiguous_space,
    "copyout": lambda buffer: buffer.copyout(0),
    "defer_callbacks": lambda buffer: buffer.defer_callbacks(EventBase()),
    "drain": lambda buffer: buffer.drain(0),
    "enable_locking": lambda buffer: buffer.enable_locking(),
    "expand": lambda buffer: buffer.expand(0),
    "freeze": lambda buffer: buffer.freeze(True),
    "lock": lambda buffer: buffer.lock().__enter__(),
    "peek": lambda buffer: buffer.peek(),
    "pointer": lambda buffer: buffer.pointer,
    "prepend": lambda buffer: buffer.prepend(b""),
    "prepend_buffer": lambda buffer: buffer.prepend_buffer(Buffer()),
    "pullup": lambda buffer: buffer.pullup(0),
    "read": lambda buffer: buffer.read(0),
    "readln": lambda buffer: buffer.readln(),
    "remove": lambda buffer: buffer.remove(0),
    "remove_buffer": lambda buffer: buffer.remove_buffer(Buffer(), 0),
    "remove_into": lambda buffer: buffer.remove_into(bytearray(1)),
    "reserve": lambda buffer: buffer.reserve(1).__enter__(),
    "search": lambda buffer: buffer.search(b"x"),
    "search_eol": lambda buffer: buffer.search_eol(),
    "unfreeze": lambda buffer: buffer.unfreeze(True),
    "write": lambda buffer: buffer.write(0),
    "another's": lambda buffer: Buffer().add_buffer(buffer),
    "bool": bool,
    "bytes": bytes,
    "+=": lambda buffer: buffer.__iadd__(b""),
    "==": lambda buffer: buffer == b"one ",
    "in": lambda buffer: b"" in buffer,
    "iteration": list,
    "len": len,
    "with": lambda buffer: buffer.__enter__(),
}


def test_uses_are_all_that_a_buffer_can_be_used_for() -> None:
    names = {name for name in dir(Buffer) if not name.startswith("_")}
    assert names - USES.keys() == {"closed", "commit"}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_buffer_is_good_for_nothing_else_while_memory_is_reserved(
    use: Callable[[Buffer], object],
) -> None:
    buffer = Buffer(b"one ")
    with buffer.reserve(10) as view:
        view[:3] = b"two"
        for _ in range(2):
            with pytest.raises(RuntimeError, match="memory is reserved in this buffer"):
                use(buffer)
        assert not buffer.closed
        buffer.commit(3)
        assert bytes(buffer) == b"one two"
    assert bytes(buffer) == b"one two"
    assert type(buffer) is Buffer


def test_another_thread_is_refused_too_while_memory_is_reserved() -> None:
    buffer, told = Buffer(b"one "), []

    def use() -> None:
        try:
            buffer.add(b"more")
        except RuntimeError as error:
            told.append(str(error))

    for _ in range(2):
        with buffer.reserve(10):
            thread = threading.Thread(target=use)
            thread.start()
            thread.join(PATIENCE)
    assert len(told) == 2
    buffer.add(b"more")
    assert bytes(buffer) == b"one more"


def test_a_buffer_can_be_used_again_whatever_ends_the_block() -> None:
    buffer = Buffer()
    blocks: SimpleQueue[Any] = SimpleQueue()

    def leave() -> None:
        blocks.get(timeout=PATIENCE).__exit__(None, None, None)

    with pytest.raises(KeyboardInterrupt), buffer.reserve(10):
        raise KeyboardInterrupt
    buffer.add(b"1")

    block = buffer.reserve(10)
    block.__enter__()
    del block
    buffer.add(b"2")

    thread = threading.Thread(target=leave)
    thread.start()
    block = buffer.reserve(10)
    block.__enter__()
    blocks.put(block)
    thread.join(PATIENCE)
    buffer.add(b"3")

    one, other = buffer.reserve(10), buffer.reserve(10)
    one.__enter__()
    buffer.commit(0)
    other.__enter__()
    one.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="memory is reserved"):
        buffer.add(b"4")
    other.__exit__(None, None, None)
    buffer.add(b"4")
    assert bytes(buffer) == b"1234"


def test_memory_is_reserved_for_one_of_many_threads() -> None:
    buffer = Buffer()
    failures: list[BaseException] = []

    def work(mark: bytes) -> None:
        done = 0
        try:
            while done < 300:
                try:
                    with buffer.reserve(100) as view:
                        view[:] = mark * 100
                        buffer.commit(100)
                except RuntimeError as error:
                    assert "memory is reserved" in str(error)
                else:
                    done += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not failures
    assert len(buffer) == 60_000
    while buffer:
        assert buffer.remove(100) in (b"a" * 100, b"b" * 100)


def test_one_of_many_threads_commits() -> None:
    results: SimpleQueue[str] = SimpleQueue()

    def commit(start: threading.Barrier) -> None:
        start.wait(PATIENCE)
        try:
            buffer.commit(100_000)
            results.put("done")
        except RuntimeError as error:
            results.put(str(error))

    for _ in range(50):
        buffer, start = Buffer(), threading.Barrier(3)
        with buffer.reserve(100_000):
            threads = [threading.Thread(target=commit, args=(start,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
        assert len(buffer) == 100_000
        told = sorted(results.get(timeout=PATIENCE) for _ in threads)
        assert told[0] == told[1] == "commit() must be called once, inside a block of reserve()"
        assert told[2] == "done"


def test_callbacks_told_of_what_is_committed_may_use_the_buffer() -> None:
    seen = []
    buffer = Buffer()
    callback = buffer.add_cb(lambda buffer, _info: seen.append(bytes(buffer)))
    with buffer.reserve(3) as view:
        for change in (callback.remove, lambda: setattr(callback, "enabled", False)):
            with pytest.raises(RuntimeError, match="memory is reserved"):
                change()
        view[:] = b"abc"
        buffer.commit(3)
    assert seen == [b"abc"]
    callback.remove()
    buffer.add(b"more")
    assert seen == [b"abc"]


class Counted(Buffer):
    """What a user makes of a Buffer."""

    made = 0

    def __init_subclass__(cls) -> None:
        Counted.made += 1


def test_memory_is_reserved_in_any_kind_of_buffer(base: EventBase) -> None:
    for _ in range(2):
        buffer = Counted()
        with buffer.reserve(3) as view:
            view[:] = b"abc"
            assert isinstance(buffer, Counted)
            with pytest.raises(RuntimeError, match="memory is reserved"):
                buffer.defer_callbacks(base)
            buffer.commit(3)
            buffer.defer_callbacks(base)
        with buffer.reserve(3) as view:
            view[:] = b"def"
            with pytest.raises(RuntimeError, match="memory is reserved"):
                buffer.close()
            buffer.commit(3)
        assert bytes(buffer) == b"abcdef"
        buffer.close()
        assert buffer.closed
    assert Counted.made == 0


def test_a_buffer_may_end_with_what_it_belongs_to_while_memory_is_reserved() -> None:
    base = EventBase()
    bev, deferred = BufferEvent(base), Buffer()
    deferred.defer_callbacks(base)
    output = bev.output
    with output.reserve(3) as view, deferred.reserve(3) as other:
        view[:] = b"abc"
        bev.close()
        base.close()
        view[:] = other[:] = b"def"
        for buffer in output, deferred:
            assert buffer.closed
            with pytest.raises(ClosedError):
                buffer.commit(3)
            with pytest.raises(ClosedError):
                len(buffer)
        deferred.close()
    for buffer in output, deferred:
        assert buffer.closed
        with pytest.raises(ClosedError):
            len(buffer)


@VALGRIND_TAKES_LONG
def test_memory_is_reserved_over_a_fork(valgrind: bool) -> None:
    code = """
        import os
        from libevent_py import Buffer, BufferEvent, EventBase, ForkError

        def check(inside):
            base, plain = EventBase(), Buffer()
            bev = BufferEvent(base)
            blocks = [buffer.reserve(3) for buffer in (bev.output, plain)]
            for block in blocks:
                block.__enter__()[:] = b"abc"
            if pid := os.fork():
                assert os.waitpid(pid, 0)[1] == 0
            else:
                plain.commit(3)
                if inside:
                    base.reinit()
                    try:
                        len(bev.output)
                    except RuntimeError as error:
                        assert "memory is reserved" in str(error)
                    else:
                        raise AssertionError
                    bev.output.commit(3)
            for block in blocks:
                block.__exit__(None, None, None)
            if not pid and not inside:
                try:
                    len(bev.output)
                except ForkError:
                    base.reinit()
                else:
                    raise AssertionError
            for _ in range(2):
                with bev.output.reserve(3) as view:
                    view[:] = b"def"
                    bev.output.commit(3)
            assert bytes(bev.output) == b"abc" * (not pid and inside) + b"def" * 2
            assert bytes(plain) == b"abc" * (not pid)
            bev.close()
            base.close()
            if not pid:
                os._exit(0)

        check(True)
        check(False)
    """
    run_python(code, valgrind=valgrind)


def test_what_is_kept_of_the_view_does_not_write_to_the_buffer() -> None:
    buffer = Buffer()
    with buffer.reserve(10) as view:
        view[:3] = b"abc"
        kept = view[1:]
        buffer.commit(3)
    kept[:] = b"!" * 9
    assert bytes(buffer) == b"abc"
    with buffer.reserve(10) as view:
        view[:3] = b"def"
        kept = memoryview(view)
        with kept:
            buffer.commit(3)
            kept[:] = b"!" * 10
    assert bytes(buffer) == b"abcdef"


def test_no_memory_is_reserved_in_a_buffer_that_is_frozen_at_its_end() -> None:
    buffer = Buffer()
    buffer.freeze(False)
    with pytest.raises(LibeventError, match=r"reserve_space failed: .* frozen at its end"):
        buffer.reserve(10).__enter__()
    buffer.unfreeze(False)
    buffer.freeze(True)
    with buffer.reserve(10) as view:
        view[:3] = b"abc"
        buffer.commit(3)
    assert len(buffer) == 3


def test_no_memory_is_reserved_in_a_closed_buffer() -> None:
    buffer = Buffer()
    buffer.close()
    with pytest.raises(ClosedError):
        buffer.reserve(10).__enter__()
    with pytest.raises(ClosedError):
        buffer.commit(10)


def test_what_is_committed_to_a_bufferevent_s_output_is_written(base: EventBase) -> None:
    with BufferEvent(base) as bev:
        with bev.output.reserve(10) as view:
            view[:3] = b"abc"
            bev.output.commit(3)
        assert len(bev.output) == 3
        with pytest.raises(LibeventError, match="frozen at its end"):
            bev.input.reserve(10).__enter__()


def test_callbacks_are_told_of_what_is_committed() -> None:
    told: list[Any] = []
    buffer = Buffer(b"> ")
    buffer.add_cb(lambda _buffer, info: told.append(tuple(info)))
    for _ in range(2):
        with buffer.reserve(10) as view:
            kept = view[:]
            buffer.commit(3)
    assert kept is not None
    assert told == [(2, 3, 0), (5, 3, 0)]
