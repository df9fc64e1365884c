"""Group ``evbuffer`` of libevent's regression suite: what goes into a buffer and comes out of it.

Where the original validates a buffer's chains, the test compares its length with its content. Empty
chains, which `Buffer` never makes, are put in through the raw layer.
"""

from __future__ import annotations

import sys

import pytest

from libevent_py import Buffer, EolStyle, LibeventError, ffi, lib
from tests.kit.buffers import pulled

EVERYTHING = sys.maxsize
ANY, CRLF, CRLF_STRICT = EolStyle.ANY, EolStyle.CRLF, EolStyle.CRLF_STRICT
LF, NUL = EolStyle.LF, EolStyle.NUL


def add_empty_chain(buffer: Buffer) -> None:
    """Append a chain without bytes, as C does for a reference to nothing."""
    assert lib.evbuffer_add_reference(buffer.pointer, ffi.NULL, 0, ffi.NULL, ffi.NULL) == 0


def of_pieces(*pieces: bytes) -> Buffer:
    """Return a buffer that has each of *pieces* in memory of its own."""
    buffer = Buffer()
    for piece in pieces:
        with Buffer(piece) as other:
            buffer.add_buffer(other)
    return buffer


def test_evbuffer() -> None:
    """Bytes are added, moved, prepended, drained, pulled up and filled in, always in order."""
    buffer, other = Buffer(), Buffer()
    zeros = bytes(512)
    buffer.add(b"hello/1")
    assert len(buffer) == 7
    assert pulled(buffer) == b"hello/1"
    buffer.add_buffer(other)
    buffer.drain(6)
    assert pulled(buffer) == b"1"
    other.add(b"/hello")
    buffer.add_buffer(other)
    assert len(other) == 0
    assert pulled(buffer) == b"1/hello"
    buffer.add(zeros)
    assert len(buffer) == 7 + 512
    assert buffer.pullup(7 + 512) == b"1/hello" + zeros
    buffer.prepend(b"something")
    buffer.prepend(b"else")
    assert buffer.pullup(4 + 9 + 7)[:20] == b"elsesomething1/hello"  # type: ignore[comparison-overlap]
    assert pulled(buffer) == b"elsesomething1/hello" + zeros
    buffer.drain(EVERYTHING)
    other.drain(EVERYTHING)
    assert len(buffer) == len(other) == 0

    for _ in range(3):
        other.add(zeros)
        buffer.add_buffer(other)
    assert len(other) == 0
    assert len(buffer) == 3 * 512
    assert buffer.remove_buffer(other, 1280) == 1280
    assert len(other) == 1280
    assert len(buffer) == 256
    assert pulled(buffer) == bytes(256)
    assert pulled(other) == bytes(1280)

    data = (bytes(range(256)) * 40)[:10000]
    for _ in range(3):
        with buffer.reserve(10000) as view:
            assert len(view) >= 10000
            view[:10000] = data
            buffer.commit(10000)
        assert buffer.copyout(10000, len(buffer) - 10000) == data
        buffer.drain(10000 * 5000)
        assert len(buffer) == 0


def test_remove_buffer_with_empty() -> None:
    """Bytes can be moved to a buffer that ends with an empty chain."""
    source, target = Buffer(), Buffer()
    source.add_reference(b"AA")
    source.add_reference(b"AA")
    target.add(b"AA")
    add_empty_chain(target)
    assert pulled(source) == b"AAAA"
    assert pulled(target) == b"AA"
    assert source.remove_buffer(target, 3) == 3
    assert pulled(source) == b"A"
    assert pulled(target) == b"AAAAA"


def test_remove_buffer_with_empty2() -> None:
    """Bytes can be moved across an empty chain, to a buffer with one in its middle."""
    between, source, target = Buffer(), Buffer(), Buffer()
    for buffer in source, target:
        between.add(b"foo")
        between.add_reference(b"foo")
        buffer.add_reference(b"foo")
        add_empty_chain(buffer)
        buffer.add_buffer(between)
    assert pulled(source) == pulled(target) == b"foofoofoo"
    assert source.remove_buffer(target, 8) == 8
    assert pulled(source) == b"o"
    assert pulled(target) == b"foofoofoofoofoofo"


def test_remove_buffer_with_empty3() -> None:
    """Bytes can be moved between buffers that have empty chains before and after others."""
    between, source, target = Buffer(), Buffer(), Buffer()
    for buffer in source, target:
        between.add(b"foo")
        add_empty_chain(between)
        buffer.add_reference(b"foo")
        add_empty_chain(buffer)
        buffer.prepend_buffer(between)
    assert pulled(source) == pulled(target) == b"foofoo"
    assert source.remove_buffer(target, 5) == 5
    assert pulled(source) == b"o"
    assert pulled(target) == b"foofoofoofo"


def test_remove_buffer_with_empty_front() -> None:
    """Bytes can be moved after nothing was prepended."""
    source, target = Buffer(), Buffer()
    source.add_reference(b"foo")
    source.prepend(b"")
    assert source.remove_buffer(target, 1) == 1
    source.add(b"bar")
    assert pulled(source) == b"oobar"
    assert pulled(target) == b"f"


def test_add_buffer_with_empty() -> None:
    """A buffer can be appended after an empty chain."""
    source, other = Buffer(), Buffer()
    other.add(b"foo")
    source.add_reference(b"foo")
    add_empty_chain(source)
    source.add_buffer(other)
    assert len(source) == 6
    assert pulled(source) == b"foofoo"


def test_add_buffer_with_empty2() -> None:
    """A buffer can be appended where there is nothing but an empty chain."""
    source, other = Buffer(), Buffer()
    other.add(b"foo")
    add_empty_chain(source)
    source.add_buffer(other)
    assert len(source) == 3
    assert pulled(source) == b"foo"


def room(buffer: Buffer) -> int:
    """Return how many bytes the last chain has left, which only C tells."""
    vector = ffi.new("struct evbuffer_iovec[1]")
    assert lib.evbuffer_reserve_space(buffer.pointer, 1, vector, 1) == 1
    return int(vector[0].iov_len)


def test_expand() -> None:
    """Room is made where there is none, in the same memory if it can be, and no byte changes.

    Of the chains only the room at the end can be seen.
    """
    data = b"X" * 4096
    buffer = Buffer()
    buffer.expand(20000)
    assert len(buffer) == 0
    left = room(buffer)
    assert left >= 20000
    buffer.add(data[:1024])
    buffer.expand(1024)
    assert room(buffer) == left - 1024

    buffer = Buffer(data[:400])
    left = room(buffer)
    assert 1 < left < len(data)
    buffer.add(data[: left - 1])
    assert room(buffer) == 1
    assert buffer.contiguous_space == 400 + left - 1
    buffer.drain(len(buffer) - 1)
    buffer.expand(40)
    assert room(buffer) == 400 + left - 1
    assert bytes(buffer) == b"X"

    buffer = Buffer()
    for _ in range(3):
        buffer.add(data)
    buffer.expand(1024)
    assert pulled(buffer) == 3 * data


@pytest.mark.parametrize("size", [2**63 - 1, 2**63 - 1 - 64, 2**62])
def test_expand_overflow(size: int) -> None:
    """What can't be had is refused, and the buffer is as it was."""
    buffer = Buffer(b"1")
    with pytest.raises((MemoryError, LibeventError)):
        buffer.expand(size)
    assert pulled(buffer) == b"1"
    for beyond in (2**64 - 1, 2**64, -1):
        with pytest.raises(ValueError, match="size"):
            buffer.expand(beyond)
    buffer.add(b"2")
    assert pulled(buffer) == b"12"


def test_add1() -> None:
    """What is added after room was made comes after what was there."""
    buffer = Buffer(b"1")
    buffer.expand(2048)
    buffer.add(b"2")
    buffer.add(b"3")
    assert len(buffer) == 3
    assert pulled(buffer) == b"123"


def nearly_full() -> tuple[Buffer, bytes]:
    """Return a buffer whose one chain has 10 bytes left, and its content."""
    buffer = Buffer(b"P")
    data = b"P" * (room(buffer) - 9)
    buffer.add(data[1:])
    assert room(buffer) == 10
    return buffer, data


def test_add2() -> None:
    """More room than the last chain has goes into another, after it."""
    buffer, data = nearly_full()
    buffer.expand(100)
    buffer.add(b"2")
    buffer.add(b"3")
    assert len(buffer) == len(data) + 2
    assert pulled(buffer) == data + b"23"


def test_reference2() -> None:
    """A reference comes after what was there, and what is added later comes after it."""
    buffer, data = nearly_full()
    buffer.expand(100)
    buffer.add_reference(b"2")
    buffer.add(b"3")
    assert len(buffer) == len(data) + 2
    assert pulled(buffer) == data + b"23"


def test_iterative() -> None:
    """A hundred thousand small additions are all counted."""
    letters = b"abcdefghijklmnopqrstuvwxyz" * 4
    buffer, total = Buffer(), 0
    for _ in range(1000):
        for size in range(1, len(letters)):
            buffer.add(letters[:size])
            total += size
    assert len(buffer) == total
    once = b"".join(letters[:size] for size in range(1, len(letters)))
    assert buffer.remove() == 1000 * once


def test_readln() -> None:
    """Lines end where each style says, also where what ends them is scattered over chains.

    `Buffer.readln` allocates nothing that could fail: the original's failing malloc is in
    test_memory.py.
    """
    buffer = Buffer()

    def lines(style: EolStyle, data: bytes, *expected: bytes | None) -> None:
        buffer.add(data)
        for line in expected:
            assert buffer.readln(style) == line

    lines(ANY, b"quite a silly line\r\n\n\r\n\n\rmore\0\0\n", b"quite a silly line", b"more\0\0")
    assert not buffer
    lines(ANY, b"\nunended", b"", None)
    buffer.drain(len(buffer))

    text = b"it has a\rin the middle\nit ends as it should\r\n\nlast\n"
    lines(CRLF, text, b"it has a\rin the middle", b"it ends as it should", b"", b"last")
    lines(CRLF, b"x", None)

    text = b" has a wrong end\nand a right one\r\n\r\nMore\r"
    lines(CRLF_STRICT, text, b"x has a wrong end\nand a right one", b"", None)
    lines(CRLF_STRICT, b"\n", b"More")
    assert not buffer
    text = b"A CR\r alone ends nothing\r\nNor does none"
    lines(CRLF_STRICT, text, b"A CR\r alone ends nothing", None)
    lines(CRLF_STRICT, b"\r\n", b"Nor does none")
    assert not buffer

    lines(LF, b"A\rand an LF\n\nText", b"A\rand an LF", b"", None)
    lines(LF, b"\n", b"Text")
    assert not buffer

    text = b"NUL\n\0\0The byte that ends text in C\0and that is no part of it\0and the rest"
    lines(NUL, text, b"NUL\n", b"", b"The byte that ends text in C", b"and that is no part of it")
    lines(NUL, b"", None)
    buffer.drain(EVERYTHING)

    for piece in (b" has a wrong end\nand a right one\r", b"\n\r", b"\nMore\r"):
        with Buffer(piece) as other:
            buffer.add_buffer(other)
    lines(CRLF_STRICT, b"", b" has a wrong end\nand a right one", b"", None)
    lines(CRLF_STRICT, b"\n", b"More")
    assert not buffer

    with Buffer(b"one line\ntwo lines\nred line") as other:
        buffer.add_buffer(other)
    lines(LF, b"", b"one line", b"two lines", None)
    assert bytes(buffer) == b"red line"


def test_search_eol() -> None:
    """The end of a line has a position and a length, or none: -1 and 0."""
    buffer = Buffer(b"string! \r\n\r\nx\n")
    assert buffer.search_eol(eol=CRLF) == (8, 2)
    assert buffer.search_eol(8, CRLF) == (8, 2)
    assert buffer.search_eol(9, CRLF) == (9, 1)
    assert buffer.search_eol(9, CRLF_STRICT) == (10, 2)
    assert buffer.search_eol(eol=LF) == (9, 1)
    assert buffer.search_eol(9, LF) == (9, 1)
    assert buffer.search_eol(10, LF) == (11, 1)
    assert buffer.search_eol(len(buffer), LF) == (-1, 0)


def test_find() -> None:
    """Nothing is found beyond the end, where the memory goes on; by search(), as find() is old."""
    buffer = Buffer(b"1234567890\r\n")
    buffer.drain(12)
    buffer.add(b"1234567890\r")
    assert buffer.search(b"\r\n") == -1
    buffer.drain(11)
    buffer.add(b"a" * 255 + b"x")
    assert buffer.search(b"xy") == -1
    assert buffer.search(b"ax") == 254


def test_ptr_set() -> None:
    """A position is one from 0 to the length; in Python it is a plain number."""
    position = ffi.new("struct evbuffer_ptr *")

    def put(buffer: Buffer, where: int, how: int = lib.EVBUFFER_PTR_SET) -> int:
        result = lib.evbuffer_ptr_set(buffer.pointer, position, where, how)
        assert (result == 0) is (position.pos != -1)
        return int(position.pos)

    buffer = Buffer()
    assert put(buffer, 0) == 0
    assert put(buffer, 1, lib.EVBUFFER_PTR_ADD) == -1
    assert put(buffer, 1) == -1
    assert buffer.copyout(1, 0) == b""
    with pytest.raises(ValueError, match="start"):
        buffer.copyout(1, 1)

    for number, size in enumerate((5000, 4000, 3000), 1):
        with buffer.reserve(size) as view:
            view[:size] = bytes([number]) * size
            buffer.commit(size)
    assert len(buffer) == 12000
    assert put(buffer, 13000) == -1
    assert put(buffer, 0) == 0
    assert put(buffer, 13000, lib.EVBUFFER_PTR_ADD) == -1
    assert put(buffer, 0) == 0
    for where in (10000, 11000, 12000):
        step = where - max(0, position.pos)
        assert put(buffer, step, lib.EVBUFFER_PTR_ADD) == where
    assert put(buffer, 1000, lib.EVBUFFER_PTR_ADD) == -1

    assert [buffer.copyout(1, where) for where in (0, 4999, 5000, 8999, 9000, 11999, 12000)] == [
        b"\1",
        b"\1",
        b"\2",
        b"\2",
        b"\3",
        b"\3",
        b"",
    ]
    for beyond in (-1, 12001, 13000):
        with pytest.raises(ValueError, match="start"):
            buffer.copyout(1, beyond)
        with pytest.raises(ValueError, match="start"):
            buffer.search(b"\1", beyond)


def test_search() -> None:
    """What lies across chains is found, from a start on and up to an end."""
    buffer = Buffer()
    assert buffer.search(b"x") == -1
    assert buffer.search(b"x", 0) == -1
    assert buffer.search(b"x", 0, 0) == -1

    buffer = of_pieces(b"hello", b"foo", b"cat", b"attack")
    assert buffer.search(b"attack") == 11
    assert buffer.search(b"attacker") == -1
    assert buffer.search(b"oc") == 7
    assert buffer.search(b"cat", 7) == 8
    assert buffer.search(b"tacking", 8) == -1
    assert buffer.search(b"foo", 5) == 5
    assert buffer.search(b"tat", 7) == 10

    first_t = 12
    assert buffer.search(b"foo", 0, first_t) == 5
    assert buffer.search(b"foocata", 0, first_t) == 5
    assert buffer.search(b"foocatat", 0, first_t) == -1
    assert buffer.search(b"ack", 0, first_t) == -1
    assert buffer.search(b"attack", 0, 17) == 11
    assert buffer.search(b"attack", 11, 17) == 11
    assert buffer.search(b"attack", 17, 17) == -1
    assert buffer.search(b"attack", 17) == -1


def test_prepend() -> None:
    """What is prepended comes first, in a new chain, in the first, or in both."""
    buffer = Buffer()
    buffer.prepend(b"This line has 28 characters.")
    buffer.prepend(b"Short.")
    buffer.drain(6 + 9)
    buffer.prepend(b"it")
    assert buffer.copyout(6) == b"it has"
    buffer.prepend(b"It is not true to say that ")
    assert buffer.remove(127) == b"It is not true to say that it has 28 characters."

    other = Buffer()
    buffer.add(b"This is line 999. ")
    other.prepend_buffer(buffer)
    assert bytes(other) == b"This is line 999. "
    buffer.add(b"This is line 1000. ")
    other.prepend_buffer(buffer)
    assert len(buffer) == 0
    assert other.remove(127) == b"This is line 1000. This is line 999. "

    other, seen = Buffer(), []
    other.prepend(b"foo")
    callback = other.add_cb(lambda buffer, info: seen.append(tuple(info)))
    other.prepend(b"A" * 8096)
    callback.remove()
    assert seen == [(3, 8096, 0)]
    assert other.pullup(8096)[:8096] == b"A" * 8096
    other.drain(8096)
    assert other.pullup(3) == b"foo"  # type: ignore[comparison-overlap]


def test_empty_reference_prepend() -> None:
    """Bytes can be prepended to nothing but an empty chain."""
    buffer = Buffer()
    add_empty_chain(buffer)
    buffer.prepend(b"foo")
    assert pulled(buffer) == b"foo"
    buffer.add(b"bar")
    assert pulled(buffer) == b"foobar"


def test_empty_reference_prepend_buffer() -> None:
    """A buffer of nothing but an empty chain can be prepended."""
    source, target = Buffer(), Buffer(b"foo")
    add_empty_chain(source)
    target.prepend_buffer(source)
    assert pulled(target) == b"foo"
    assert pulled(source) == b""


def test_pullup_with_empty() -> None:
    """A buffer with an empty chain can be pulled up, and so can one without any."""
    buffer = Buffer(b"foo")
    add_empty_chain(buffer)
    assert pulled(buffer) == b"foo"
    assert pulled(Buffer()) == b""
    buffer = Buffer(b"foo")
    add_empty_chain(buffer)
    assert buffer.pullup(3) == b"foo"  # type: ignore[comparison-overlap]


def test_add_iovec() -> None:
    """Several pieces are added at once, and their bytes counted."""
    pieces = [
        b"A sword that has two edges cuts both ways.",
        b"One of them is for whoever stands before it, and is feared by those who know it well.",
        b"The other one is not always felt by its owner.",
        b"Each is always ground by the same stone, which is itself not always in its place.",
    ]
    buffer = Buffer()
    buffer.add_iovec(pieces)
    assert len(buffer) == sum(map(len, pieces))
    for piece in pieces:
        assert buffer.remove(len(piece)) == piece
    assert len(buffer) == 0


def test_copyout() -> None:
    """Any part can be copied out of any chains, and stays."""
    text = (bytes(range(ord("!"), ord("~"))) * 3)[:206]
    buffer = Buffer()
    buffer.add_reference(text[:80])
    buffer.add_reference(text[80:160])
    buffer.add(text[160:])
    assert len(buffer) == 206
    assert buffer.copyout(10) == text[:10]
    assert buffer.copyout(100) == text[:100]
    assert buffer.copyout(230) == text
    assert len(buffer) == 206
    for size in (10, 65, 90, 160, 999):
        assert buffer.copyout(size, 15) == text[15 : 15 + size]
    assert len(buffer) == 206


def pieces_of(buffer: Buffer, size: int | None = None, start: int = 0) -> list[bytes]:
    return [bytes(view) for view in buffer.peek(size, start)]


def test_peek() -> None:
    """Looking at a buffer's memory takes as many pieces as it needs and no more.

    The pieces are views, all of them: the original's room for less is the raw layer's. The last one
    ends where asked, not where its chain does.
    """
    chunks = [b"The content of chunk %d\n" % number for number in range(16)]
    ends = [sum(map(len, chunks[:number])) for number in range(17)]
    buffer = of_pieces(*chunks)
    assert pieces_of(buffer) == chunks
    assert pieces_of(buffer, 65536) == chunks
    assert pieces_of(buffer, 40) == [chunks[0], chunks[1][: 40 - ends[1]]]
    assert len(pieces_of(buffer, 100)) == 5
    assert len(pieces_of(buffer, 60)) == 3
    assert pieces_of(Buffer()) == pieces_of(Buffer(), 50) == []

    assert pieces_of(buffer, 50, 30) == [
        chunks[1][30 - ends[1] :],
        chunks[2],
        chunks[3][: 80 - ends[3]],
    ]
    assert pieces_of(buffer, 44, ends[2]) == [chunks[2], chunks[3][: 44 - len(chunks[2])]]
    assert pieces_of(buffer, 44, len(buffer)) == []
    assert bytes(buffer) == b"".join(chunks)


def test_peek_first_gt() -> None:
    """Pieces are counted from where one looks, also where that is the end of a long first one."""
    first, second = b"The content of chunk 100\n", b"The content of chunk 1\n"
    buffer = of_pieces(first, second)
    assert pieces_of(buffer) == [first, second]
    start = len(first) - 2
    assert pieces_of(buffer, None, start) == [first[-2:], second]
    assert pieces_of(buffer, 2, start) == [first[-2:]]
    assert pieces_of(buffer, 3, start) == [first[-2:], second[:1]]
