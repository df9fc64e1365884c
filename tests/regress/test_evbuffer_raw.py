"""Group ``evbuffer``, what only the raw layer can say: memory reserved in several pieces at once.

`Buffer.reserve` gives one piece, in which nothing can go wrong.
"""

from __future__ import annotations

from typing import Any

import pytest

from libevent_py import Buffer, ffi, lib


def reserve(buffer: Buffer, size: int, most: int) -> Any:
    """Return the pieces of memory that have room for *size* bytes, at most so many."""
    vector = ffi.new("struct evbuffer_iovec[]", most)
    count = lib.evbuffer_reserve_space(buffer.pointer, size, vector, most)
    assert 1 <= count <= most
    assert sum(piece.iov_len for piece in vector[0:count]) >= size
    # Of its own, because a slice doesn't keep the memory that it is of.
    return ffi.new("struct evbuffer_iovec[]", [vector[i] for i in range(count)])


def commit(buffer: Buffer, pieces: Any, *contents: bytes) -> None:
    """Fill *pieces* with *contents*, and add them."""
    for piece, content in zip(pieces, contents, strict=False):
        ffi.memmove(piece.iov_base, content, len(content))
        piece.iov_len = len(content)
    assert lib.evbuffer_commit_space(buffer.pointer, pieces, len(contents)) == 0


def test_remove_buffer_adjust_last_with_datap_with_empty() -> None:
    """Bytes are moved in order from a buffer whose last chain but one is its last with any."""
    one, two = Buffer(b"aaaaaa"), Buffer(b"cc")
    pieces = reserve(one, 971, 2)
    assert len(pieces) == 2
    commit(one, pieces, b"b")
    assert bytes(one) == b"aaaaaab"
    two.prepend(b"ddd")
    two.prepend_buffer(one)
    one.add_buffer(two)
    assert bytes(one) == b"aaaaaabdddcc"
    pointers = one.pointer, two.pointer
    assert lib.evbuffer_remove_buffer(*pointers, 11) == 11
    assert bytes(two) == b"aaaaaabdddc"
    assert bytes(one) == b"c"


def test_reserve2() -> None:
    """Room goes on where the last chain ends, and into a second one; any of it may be used."""
    buffer = Buffer()
    pieces = reserve(buffer, 1024, 2)
    assert len(pieces) == 1
    assert len(buffer) == 0
    start = ffi.cast("char *", pieces[0].iov_base)
    left = pieces[0].iov_len - 512
    commit(buffer, pieces, b"X" * 512)
    assert len(buffer) == 512

    pieces = reserve(buffer, 32, 2)
    assert len(pieces) == 1
    assert (pieces[0].iov_base, pieces[0].iov_len) == (start + 512, left)
    commit(buffer, pieces, b"Y" * 8)
    assert len(buffer) == 520

    pieces = reserve(buffer, left - 8 + 64, 2)
    assert len(pieces) == 2
    assert (pieces[0].iov_base, pieces[0].iov_len) == (start + 520, left - 8)
    second = pieces[1].iov_base
    commit(buffer, pieces, b"Z")
    assert len(buffer) == 521

    pieces = reserve(buffer, left - 9 + 64, 2)
    assert len(pieces) == 2
    assert (pieces[0].iov_base, pieces[0].iov_len) == (start + 521, left - 9)
    assert pieces[1].iov_base == second
    commit(buffer, pieces, b"W" * 400, b"x" * 60)
    assert len(buffer) == 981

    vector = ffi.new("struct evbuffer_iovec[2]")
    assert lib.evbuffer_peek(buffer.pointer, -1, ffi.NULL, vector, 2) == 2
    first, last = (bytes(ffi.buffer(piece.iov_base, piece.iov_len)) for piece in vector)
    assert first == b"X" * 512 + b"Y" * 8 + b"Z" + b"W" * 400
    assert last == b"x" * 60


@pytest.mark.parametrize("first", ["empty", "add", "fill"])
def test_reserve_many(first: str) -> None:
    """More room takes more chains, and fewer chains where fewer are asked for.

    The original's reserve_many, reserve_many2 and reserve_many3.
    """
    buffer = Buffer()
    pieces = reserve(buffer, 128, 2)
    assert len(pieces) == 1
    start, size = ffi.cast("char *", pieces[0].iov_base), pieces[0].iov_len
    if first == "add":
        commit(buffer, pieces, b"X")
        start += 1
    elif first == "fill":
        commit(buffer, pieces, b"X" * pieces[0].iov_len)
        pieces = reserve(buffer, 128, 2)
        assert len(pieces) == 1
        assert pieces[0].iov_base != start
        start, size = pieces[0].iov_base, pieces[0].iov_len
    used = len(buffer)

    pieces = reserve(buffer, size + 128, 2)
    assert len(pieces) == 2
    assert pieces[0].iov_base == start
    second = pieces[1].iov_base

    pieces = reserve(buffer, pieces[0].iov_len + pieces[1].iov_len + 128, 3)
    assert len(pieces) == 3
    assert (pieces[0].iov_base, pieces[1].iov_base) == (start, second)

    pieces = reserve(buffer, sum(piece.iov_len for piece in pieces) + 128, 2)
    assert len(pieces) == (2 if first == "add" else 1)
    if first == "add":
        assert pieces[0].iov_base == start
    assert len(buffer) == used
    assert bytes(buffer) == b"X" * used


def test_reserve_with_empty() -> None:
    """What is added after part of a first piece was used comes right after it."""
    buffer = Buffer(b"a")
    pieces = reserve(buffer, 1 << 12, 2)
    assert len(pieces) == 2
    commit(buffer, pieces, b"b")
    buffer.add(b"c")
    assert bytes(buffer) == b"abc"


def test_reserve_invalid_last_with_datap() -> None:
    """Room can be made after bytes were put before a chain that has none."""
    buffer = Buffer()
    assert lib.evbuffer_add_reference(buffer.pointer, ffi.NULL, 0, ffi.NULL, ffi.NULL) == 0
    buffer.prepend(b"foo")
    buffer.add(b"")
    pieces = reserve(buffer, 1 << 12, 2)
    commit(buffer, pieces, *[b""] * len(pieces))
    reserve(buffer, 1 << 13, 2)
    assert bytes(buffer) == b"foo"
