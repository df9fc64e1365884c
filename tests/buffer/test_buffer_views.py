"""Views of a buffer's memory: peek, pullup and shared references."""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    ClosedError,
    EventBase,
    LibeventError,
    ffi,
)
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import PATIENCE, run_python


def pieces(*contents: bytes) -> Buffer:
    """Return a buffer that has each of *contents* in a piece of memory of its own."""
    buffer = Buffer()
    for content in contents:
        with Buffer(content) as piece:
            buffer.add_buffer(piece)
    return buffer


def joined(views: list[memoryview]) -> bytes:
    return b"".join(views)


# Looking.


def test_peek_shows_each_piece_of_memory() -> None:
    buffer = pieces(b"one", b"two", b"three")
    views = buffer.peek()
    assert [view.tobytes() for view in views] == [b"one", b"two", b"three"]
    assert bytes(buffer) == b"onetwothree"


@pytest.mark.parametrize("start", range(12))
@pytest.mark.parametrize("size", [None, 0, 1, 2, 3, 4, 6, 11, 12, sys.maxsize])
def test_peek_shows_what_was_asked_for(start: int, size: int | None) -> None:
    buffer = pieces(b"one", b"two", b"three")
    content = b"onetwothree"
    views = buffer.peek(size, start)
    assert joined(views) == content[start:][:size]
    assert all(views)
    assert bytes(buffer) == content


def test_peek_copies_nothing() -> None:
    data = b"x" * 100_000
    buffer = Buffer()
    buffer.add_reference(data)
    with memoryview(data) as one, buffer.peek()[0] as other:
        assert address(one) == address(other)


def address(view: memoryview) -> int:
    return int(ffi.cast("uintptr_t", ffi.from_buffer(view)))


def test_a_view_can_not_be_written_to() -> None:
    buffer = Buffer(b"hello")
    for view in [*buffer.peek(), buffer.pullup()]:
        assert view.readonly
        with pytest.raises(TypeError):
            view[0] = 0


def test_an_empty_buffer_has_nothing_to_show() -> None:
    buffer = Buffer()
    assert buffer.peek() == buffer.peek(10) == []
    assert buffer.pullup() == buffer.pullup(0) == b""  # type: ignore[comparison-overlap]
    assert Buffer(b"hello").peek(None, 5) == []


@pytest.mark.parametrize(
    ("size", "start"), [(-1, 0), (-2, 0), (1, -1), (1, 6), (sys.maxsize + 1, 0)]
)
def test_peek_refuses_what_the_buffer_can_not_have(size: int, start: int) -> None:
    with pytest.raises(ValueError, match="must be from"):
        Buffer(b"hello").peek(size, start)


def test_peek_takes_nothing_but_integers() -> None:
    with pytest.raises(TypeError, match="size must be an integer"):
        Buffer(b"hello").peek("1")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 3, 4, 6, 7, 11, None])
def test_pullup_puts_what_was_asked_for_into_one_piece(size: int | None) -> None:
    buffer = pieces(b"one", b"two", b"three")
    view = buffer.pullup(size)
    assert view == b"onetwothree"[:size]
    assert buffer.contiguous_space >= len(view)
    assert bytes(buffer) == b"onetwothree"


def test_pullup_refuses_more_than_there_is() -> None:
    for size in (6, -1):
        with pytest.raises(ValueError, match=f"size must be from 0 to 5, not {size}"):
            Buffer(b"hello").pullup(size)


CHANGES = {
    "drain": lambda buffer: buffer.drain(3),
    "drain all": lambda buffer: buffer.drain(1000),
    "remove": lambda buffer: buffer.remove(2),
    "add": lambda buffer: buffer.add(b"x" * 5000),
    "prepend": lambda buffer: buffer.prepend(b"x" * 5000),
    "prepend little": lambda buffer: buffer.prepend(b"x"),
    "pullup": lambda buffer: buffer.pullup(),
    "expand": lambda buffer: buffer.expand(10000),
    "move": lambda buffer: Buffer().add_buffer(buffer),
    "move a part": lambda buffer: buffer.remove_buffer(Buffer(b"before"), 4),
    "peek again": lambda buffer: buffer.peek(),
    "close": lambda buffer: buffer.close(),
}


@pytest.mark.parametrize("first", CHANGES)
@pytest.mark.parametrize("second", CHANGES)
def test_views_stay_as_they_are_whatever_becomes_of_the_buffer(first: str, second: str) -> None:
    buffer = pieces(b"one", b"two", b"three")
    views = buffer.peek()
    CHANGES[first](buffer)  # type: ignore[no-untyped-call]
    if not buffer.closed:
        more = buffer.peek(), bytes(buffer)
        CHANGES[second](buffer)  # type: ignore[no-untyped-call]
        assert joined(more[0]) == more[1]
    assert joined(views) == b"onetwothree"


def test_looking_changes_nothing_that_can_be_seen() -> None:
    """Not the content, not what callbacks are told, not what is frozen."""
    told: list[Any] = []
    buffer = pieces(b"one", b"two", b"three")
    buffer.add_cb(lambda _buffer, info: told.append(tuple(info)))
    for _ in range(2):
        buffer.peek(4)
        buffer.pullup(7)
        Buffer().add_buffer_reference(buffer)
    assert told == []
    buffer.freeze(True)
    buffer.freeze(False)
    assert joined(buffer.peek()) == buffer.pullup() == b"onetwothree"  # type: ignore[comparison-overlap]
    with pytest.raises(LibeventError, match="frozen at its front"):
        buffer.drain(1)
    with pytest.raises(LibeventError, match="frozen at its end"):
        buffer.add(b"more")
    buffer.unfreeze(True)
    buffer.unfreeze(False)
    buffer.add(b"more")
    buffer.drain(1)
    assert told == [(11, 4, 0), (15, 0, 1)]
    assert bytes(buffer) == b"netwothreemore"


def test_a_callback_may_look_at_its_buffer() -> None:
    seen: list[bytes] = []
    buffer = Buffer()
    buffer.add_cb(lambda buffer, _info: seen.append(joined(buffer.peek())))
    buffer.add(b"one")
    buffer.add(b"two")
    buffer.drain(2)
    assert seen == [b"one", b"onetwo", b"etwo"]


def test_looking_again_shows_the_same_memory_and_takes_no_more() -> None:
    """Who looks at a message until it is complete must not pay for it with memory."""
    buffer = Buffer()
    addresses = []
    for number in range(50):
        buffer.add(b"%07d " % number * 1000)
        with buffer.peek(8)[0] as view:
            addresses.append(address(view))
        assert joined(buffer.peek()) == bytes(buffer)
    assert len(set(addresses)) == 1


@pytest.mark.slow
def test_memory_goes_with_the_last_who_looks_at_it() -> None:
    code = """
        import gc, resource
        from libevent_py import Buffer

        def most():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        def round():
            buffer = Buffer()
            views = []
            for _ in range(100):
                buffer.add(b"x" * 50_000)
                views += buffer.peek(10, len(buffer) - 10)
            other = Buffer()
            other.add_buffer_reference(buffer)
            buffer.pullup()
            views += buffer.peek(1000)
            return views[::7]

        def grow(add):
            buffer = Buffer()
            for _ in range(500):
                add(buffer, b"y" * 1000)
                buffer.peek()

        for _ in range(5):
            round()
        before = most()
        for _ in range(50):
            round()
        for add in Buffer.add, Buffer.prepend, Buffer.add_reference:
            grow(add)
        assert most() - before < 20_000, most() - before
    """
    run_python(code)


def test_what_a_bufferevent_has_is_shown_as_a_copy(base: EventBase) -> None:
    with BufferEvent(base) as bev:
        bev.write(b"hello")
        views = bev.output.peek(4, 1)
        assert joined(views) == b"ello"
        pulled = bev.output.pullup(3)
        with pytest.raises(ValueError, match="size must be"):
            bev.output.pullup(6)
    assert joined(views) == b"ello"
    assert pulled == b"hel"  # type: ignore[comparison-overlap]


def test_what_is_deferred_is_shown_as_a_copy(base: EventBase) -> None:
    told: list[Any] = []
    buffer = Buffer(b"hello")
    buffer.defer_callbacks(base)
    buffer.add_cb(lambda _buffer, info: told.append(tuple(info)))
    buffer.add(b", world")
    views = buffer.peek()
    assert buffer.pullup(5) == b"hello"  # type: ignore[comparison-overlap]
    base.loop()
    assert told == [(5, 7, 0)]
    buffer.close()
    assert joined(views) == b"hello, world"


def test_a_closed_buffer_shows_nothing() -> None:
    buffer = Buffer(b"hello")
    buffer.close()
    for look in (buffer.peek, buffer.pullup, lambda: Buffer().add_buffer_reference(buffer)):
        with pytest.raises(ClosedError):
            look()


# The same memory in two buffers.


def test_add_buffer_reference_leaves_the_other_its_content() -> None:
    one, other = Buffer(b"> "), pieces(b"hello", b", ", b"world")
    one.add_buffer_reference(other)
    one.add_buffer_reference(other)
    assert bytes(one) == b"> hello, worldhello, world"
    assert bytes(other) == b"hello, world"


def test_buffers_that_share_memory_don_not_write_to_each_other() -> None:
    """As they do in C: D10."""
    source = Buffer(b"abc")
    one, other = Buffer(), Buffer()
    one.add_buffer_reference(source)
    other.add_buffer_reference(source)
    one.add(b"XXX")
    other.add(b"YYY")
    source.add(b"ZZZ")
    assert one.pullup() == b"abcXXX"  # type: ignore[comparison-overlap]
    assert other.pullup() == b"abcYYY"  # type: ignore[comparison-overlap]
    assert source.pullup() == b"abcZZZ"  # type: ignore[comparison-overlap]
    source.prepend(b"-")
    source.close()
    one.drain(1)
    assert (bytes(one), bytes(other)) == (b"bcXXX", b"abcYYY")


def test_references_of_references_and_files_can_be_shared_too() -> None:
    source = Buffer(b"first ")
    source.add_reference(b"second ")
    with open(__file__, "rb") as file:
        source.add_file(file, 3, 10)
    again, last = Buffer(), Buffer()
    again.add_buffer_reference(source)
    again.add(b" more")
    last.add_buffer_reference(again)
    expected = bytes(source) + b" more"
    source.close()
    again.close()
    assert bytes(last) == expected


def test_one_change_is_told_when_another_s_memory_is_added() -> None:
    told: list[Any] = []
    buffer = Buffer(b"> ")
    buffer.add_cb(lambda _buffer, info: told.append(tuple(info)))
    buffer.add_buffer_reference(pieces(b"one", b"two"))
    assert told == [(2, 6, 0)]
    buffer.add_buffer_reference(Buffer())
    assert told == [(2, 6, 0)]


def test_what_a_bufferevent_has_is_added_as_a_copy(base: EventBase) -> None:
    buffer = Buffer()
    with BufferEvent(base) as bev:
        bev.write(b"hello")
        buffer.add_buffer_reference(bev.output)
        bev.output.add_buffer_reference(buffer)
        assert len(bev.output) == 10
        with pytest.raises(ValueError, match="other must be another buffer"):
            bev.output.add_buffer_reference(bev.output)
    assert bytes(buffer) == b"hello"


def test_a_buffer_is_not_added_to_itself_as_a_reference() -> None:
    buffer = Buffer(b"hello")
    with pytest.raises(ValueError, match="other must be another buffer"):
        buffer.add_buffer_reference(buffer)
    with pytest.raises(TypeError, match="other must be a Buffer"):
        buffer.add_buffer_reference(b"hello")  # type: ignore[arg-type]


def test_nothing_is_added_as_a_reference_to_a_frozen_end() -> None:
    buffer = Buffer(b"hello")
    buffer.freeze(False)
    with pytest.raises(LibeventError, match="frozen at its end"):
        buffer.add_buffer_reference(Buffer(b"x"))
    assert bytes(buffer) == b"hello"


# Threads, and memory that would not be there.


def test_views_may_be_dropped_in_any_thread() -> None:
    buffer, other = Buffer(), Buffer()
    queue: SimpleQueue[Any] = SimpleQueue()
    failures: list[BaseException] = []

    def drop() -> None:
        try:
            while item := queue.get():
                expected, views = item
                assert joined(views) == expected
                del item, views
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=drop) for _ in range(2)]
    for thread in threads:
        thread.start()
    dice = random.Random(7)
    for number in range(1000):
        buffer.add(b"%d," % number * dice.randrange(1, 300))
        if dice.random() < 0.5:
            queue.put((buffer.copyout(), buffer.peek()))
        if dice.random() < 0.3:
            other.add_buffer_reference(buffer)
            queue.put((other.copyout(), other.peek()))
        if dice.random() < 0.3:
            buffer.drain(dice.randrange(5000))
            other.drain(10_000)
        if dice.random() < 0.1:
            buffer.pullup(dice.randrange(len(buffer) + 1))
    for _ in threads:
        queue.put(None)
    for thread in threads:
        thread.join(PATIENCE)
    assert not failures


def test_two_threads_may_look_at_one_buffer_and_change_it() -> None:
    buffer = Buffer()
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        dice = random.Random(seed)
        try:
            for _ in range(300):
                buffer.add(b"abcdefgh" * dice.randrange(1, 100))
                views = buffer.peek()
                assert {part for view in views for part in bytes(view)} <= set(b"abcdefgh")
                if dice.random() < 0.3:
                    buffer.drain(8 * dice.randrange(400))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not failures
    assert buffer.copyout().count(b"abcdefgh") * 8 == len(buffer)


@VALGRIND_TAKES_LONG
def test_no_view_ever_shows_memory_that_is_not_there(valgrind: bool) -> None:
    code = """
        import gc, os, random, threading
        from libevent_py import Buffer, BufferEvent, EventBase, FileSegment
        from libevent_py._core.references import references

        dice = random.Random(3)
        views, buffers = [], [Buffer() for _ in range(4)]
        segment = FileSegment(os.open(__import__("libevent_py").__file__, os.O_RDONLY))

        def one():
            return dice.randrange(len(buffers))

        def step():
            buffer, other = buffers[one()], buffers[one()]
            match dice.randrange(15):
                case 0 | 1: buffer.add(os.urandom(dice.choice([1, 100, 5000])))
                case 2: buffer.prepend(os.urandom(dice.choice([1, 100, 5000])))
                case 3: buffer.add_reference(os.urandom(dice.choice([1, 100, 5000])))
                case 4: buffer.add_file_segment(segment, dice.randrange(100), 50)
                case 5: buffer.drain(dice.choice([1, 500, 5000, 10**6]))
                case 6: buffer.remove(dice.choice([1, 500, 5000]))
                case 7: buffer.pullup(dice.randrange(len(buffer) + 1))
                case 8: other.add_buffer(buffer)
                case 9: buffer.remove_buffer(other, 300)
                case 10 if other is not buffer: buffer.add_buffer_reference(other)
                case 11: buffers[one()] = Buffer(b"fresh")
                case 12:
                    with buffer.reserve(100) as view:
                        view[:] = os.urandom(100)
                        if dice.random() < 0.5:
                            kept = view[:50]
                        buffer.commit(dice.randrange(101))
                case 13 | 14: pass
            size = dice.choice([None, 10, 1000])
            start = dice.randrange(len(buffer) + 1)
            seen = buffer.peek(size, start)
            content = bytes(buffer)[start:][:size]
            assert b"".join(seen) == content
            views.append((seen, content))
            if len(views) > 20:
                seen, content = views.pop(dice.randrange(20))
                assert b"".join(seen) == content

        steps = int(os.environ.get("STEPS", "400"))
        for _ in range(steps):
            step()
        segment.close()
        buffers.clear()
        for seen, content in views:
            assert b"".join(seen) == content
        del seen
        views.clear()
        with Buffer(b"x") as buffer:
            buffer.drain(1)
        assert not references, references
    """
    run_python(code, valgrind=valgrind)
    run_python(code, env={"STEPS": "6000"})


#: Makes one allocation fail, of those that libevent and our own C make.
FAILING = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <errno.h>
    #include <string.h>

    void *__libc_malloc(size_t size);
    void *__libc_calloc(size_t n, size_t size);

    static long left = -1;

    void fail_at(long n) { left = n; }
    long not_failed(void) { return left >= 0; }

    static int fails(void *caller)
    {
        Dl_info from;

        if (left < 0 || !dladdr(caller, &from) ||
            (!strstr(from.dli_fname, "libevent_core") && !strstr(from.dli_fname, "_ffi.abi3")))
            return 0;
        if (left-- > 0)
            return 0;
        errno = ENOMEM;
        return 1;
    }

    void *malloc(size_t size)
    {
        return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
    }

    void *calloc(size_t n, size_t size)
    {
        return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
    }
"""


def test_where_there_is_no_memory_everything_stays_as_it_was(tmp_path: Path) -> None:
    source, library = tmp_path / "failing.c", tmp_path / "failing.so"
    source.write_text(FAILING)
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC"))
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    code = """
        import ctypes, logging, socket
        from libevent_py import (
            Buffer, BufferEvent, EventBase, FileSegment, FileSegmentFlag, LoopFlag
        )
        from libevent_py._core.references import references

        logging.disable()  # libevent warns
        failing = ctypes.CDLL(None)

        def filled():
            buffer = Buffer(b"one")
            buffer.peek()
            buffer.add_reference(b"two")
            buffer.add(b"three")
            buffer.add_reference(b"four")
            buffer.prepend(b"zero")
            return buffer

        CONTENT = b"zeroonetwothreefour"
        NOW = FileSegmentFlag.DISABLE_SENDFILE | FileSegmentFlag.DISABLE_MMAP

        def committed(buffer, other):
            with buffer.reserve(100) as view:
                view[:5] = b"hello"
                buffer.commit(5)

        file = open(__import__("libevent_py").__file__, "rb")
        lazy, eager = FileSegment(file), FileSegment(file, flags=NOW)
        operations = [
            (lambda buffer, other: buffer.peek(), b""),
            (lambda buffer, other: buffer.peek(1, 5), b""),
            (lambda buffer, other: buffer.pullup(), b""),
            (lambda buffer, other: buffer.pullup(6), b""),
            (lambda buffer, other: buffer.add_reference(b"hello"), b"hello"),
            (lambda buffer, other: buffer.add_buffer_reference(other), b"other"),
            (committed, b"hello"),
            (lambda buffer, other: buffer.add_file(file, 3, 5), b"The r"),
            (lambda buffer, other: buffer.add_file_segment(lazy, 3, 5), b"The r"),
            (lambda buffer, other: buffer.add_file_segment(eager, 3, 5), b"The r"),
        ]
        for operation, added in operations:
            for n in range(100):
                buffer, other = filled(), Buffer(b"other")
                seen = buffer.peek(4)
                failing.fail_at(n)
                try:
                    operation(buffer, other)
                    failed = False
                except MemoryError:
                    failed = True
                assert failed is not failing.not_failed(), n
                failing.fail_at(-1)
                expected = CONTENT + (b"" if failed else added)
                assert bytes(buffer) == expected, (bytes(buffer), n, failed)
                assert bytes(other) == b"other"
                assert b"".join(buffer.peek()) == bytes(buffer)
                assert b"".join(seen) == b"zero"
                if not failed:
                    break
            assert 0 < n < 99, (n, added, operations.index((operation, added)))
        for opened in lazy, eager:
            opened.close()

        # What a socket sends has nothing in memory to fall back on, but some is put aside (E5).
        base = EventBase()
        left, right = socket.socketpair()
        bev = BufferEvent(base, left)
        called = []
        for n in range(100):
            segment = FileSegment(file, on_cleanup=lambda: called.append(n))
            failing.fail_at(n)
            sent = len(bev.output)
            try:
                bev.output.add_file_segment(segment, 0, 5)
                added = 5
            except MemoryError:
                added = 0
            failed = failing.not_failed() == 0
            failing.fail_at(-1)
            assert failed or added
            assert len(bev.output) == sent + added
            for _ in range(3):
                bev.output.add_file_segment(segment, 0, 5)
            assert len(bev.output) == sent + added + 15
            segment.close()
            base.loop(LoopFlag.NONBLOCK)
            assert not bev.output
            assert called == list(range(n + 1))
            if not failed:
                break
        assert 0 < n < 99, n
        base.close()
        right.close()
        file.close()
        del buffer, other, seen
        Buffer(b"x").drain(1)
        assert not references, references
    """
    run_python(code, env={"LD_PRELOAD": str(library)})
