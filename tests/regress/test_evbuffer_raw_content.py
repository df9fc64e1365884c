"""Group ``evbuffer`` through the raw layer: what is put into a buffer, and how it is found.

`Buffer` has code of its own for these functions of libevent, so that the tests of the same names
in test_evbuffer.py don't call them.
"""

from __future__ import annotations

from typing import Any

import pytest

from libevent_py import ffi, lib
from tests.kit.raw import (
    ALL,
    FromC,
    add,
    add_reference,
    copied,
    evbuffer,
    length,
    peek,
    position,
    prepend,
    pulled,
    readln,
    remove,
)

ANY, CRLF = lib.EVBUFFER_EOL_ANY, lib.EVBUFFER_EOL_CRLF
CRLF_STRICT, LF, NUL = lib.EVBUFFER_EOL_CRLF_STRICT, lib.EVBUFFER_EOL_LF, lib.EVBUFFER_EOL_NUL

#: As C takes -1 for a size_t: more than there ever is.
EVERYTHING = 2**64 - 1


def add_empty_chain(buffer: Any) -> None:
    add_reference(buffer, ffi.NULL, 0)


# The memory of the references; their buffers refer to it for as long as they have it.
AA, FOO = ffi.new("char[]", b"AA"), ffi.new("char[]", b"foo")


# Chains without bytes.


def test_remove_buffer_with_empty() -> None:
    """Bytes can be moved to a buffer that ends with an empty chain."""
    source, target = evbuffer(), evbuffer(b"AA")
    for _ in range(2):
        add_reference(source, AA, 2)
    add_reference(target, AA, 0)
    assert (copied(source), copied(target)) == (b"AAAA", b"AA")
    assert pulled(source) == b"AAAA"
    assert pulled(target) == b"AA"
    assert lib.evbuffer_remove_buffer(source, target, 3) == 3
    assert pulled(source) == b"A"
    assert pulled(target) == b"AAAAA"


def test_remove_buffer_with_empty2() -> None:
    """Bytes can be moved across an empty chain, to a buffer with one in its middle."""
    between, source, target = evbuffer(), evbuffer(), evbuffer()
    for buffer in source, target:
        add(between, b"foo")
        add_reference(between, FOO, 3)
        add_reference(buffer, FOO, 3)
        add_empty_chain(buffer)
        assert lib.evbuffer_add_buffer(buffer, between) == 0
    assert length(source) == length(target) == 9
    assert pulled(source) == pulled(target) == b"foofoofoo"
    assert lib.evbuffer_remove_buffer(source, target, 8) == 8
    assert (copied(source), copied(target)) == (b"o", b"foofoofoofoofoofo")
    assert pulled(source) == b"o"
    assert pulled(target) == b"foofoofoofoofoofo"


def test_remove_buffer_with_empty3() -> None:
    """Bytes can be moved between buffers that have empty chains before and after others."""
    between, source, target = evbuffer(), evbuffer(), evbuffer()
    for buffer in source, target:
        add(between, b"foo")
        add_empty_chain(between)
        add_reference(buffer, FOO, 3)
        add_empty_chain(buffer)
        assert lib.evbuffer_prepend_buffer(buffer, between) == 0
    assert length(source) == length(target) == 6
    assert pulled(source) == pulled(target) == b"foofoo"
    assert lib.evbuffer_remove_buffer(source, target, 5) == 5
    assert pulled(source) == b"o"
    assert pulled(target) == b"foofoofoofo"


def test_remove_buffer_with_empty_front() -> None:
    """Bytes can be moved after nothing was prepended."""
    source, target = evbuffer(), evbuffer()
    add_reference(source, FOO, 3)
    prepend(source, b"")
    assert lib.evbuffer_remove_buffer(source, target, 1) == 1
    add(source, b"bar")
    assert pulled(source) == b"oobar"
    assert copied(target) == b"f"


def test_add_buffer_with_empty() -> None:
    """A buffer can be appended after an empty chain, also where there is nothing else."""
    for content in b"foo", b"":
        source, other = evbuffer(), evbuffer(b"foo")
        if content:
            add_reference(source, FOO, 3)
        add_empty_chain(source)
        assert lib.evbuffer_add_buffer(source, other) == 0
        assert length(other) == 0
        assert pulled(source) == content + b"foo"


def test_pullup_with_empty() -> None:
    """A buffer with an empty chain can be pulled up; one without any bytes has no memory."""
    for size in ALL, 3:
        buffer = evbuffer(b"foo")
        add_empty_chain(buffer)
        assert length(buffer) == 3
        assert pulled(buffer, size) == b"foo"
    assert pulled(evbuffer()) is None
    assert pulled(evbuffer(b"foo"), 4) is None


def test_multicast_empty_chain() -> None:
    """A buffer can be referred to after an empty chain."""
    source, target = evbuffer(b"the content of one chain"), evbuffer()
    add_empty_chain(target)
    assert length(target) == 0
    assert lib.evbuffer_add_buffer_reference(target, source) == 0
    assert pulled(target) == b"the content of one chain"


# Prepending.


def test_prepend(from_c: FromC) -> None:
    """What is prepended comes first, in a new chain, in the first, or in part in both."""
    buffer = evbuffer()
    prepend(buffer, b"This line has 28 characters.")
    prepend(buffer, b"Short.")
    assert copied(buffer) == b"Short.This line has 28 characters."
    assert lib.evbuffer_drain(buffer, 6 + 9) == 0
    prepend(buffer, b"it")
    _, first, *_ = peek(buffer)
    assert first[:6] == b"it has"
    prepend(buffer, b"It is not true to say that ")
    assert remove(buffer, 127) == b"It is not true to say that it has 28 characters."

    other = evbuffer()
    add(buffer, b"This is line 999. ")
    assert lib.evbuffer_prepend_buffer(other, buffer) == 0
    assert (copied(other), length(buffer)) == (b"This is line 999. ", 0)
    add(buffer, b"This is line 1000. ")
    assert lib.evbuffer_prepend_buffer(other, buffer) == 0
    assert length(buffer) == 0
    assert remove(other, 127) == b"This is line 1000. This is line 999. "

    told: list[tuple[int, int, int]] = []

    @from_c("evbuffer_cb_func")
    def note(_buffer: Any, info: Any, _arg: Any) -> None:
        told.append((info.orig_size, info.n_added, info.n_deleted))

    other = evbuffer()
    prepend(other, b"foo")
    assert lib.evbuffer_add_cb(other, note, ffi.NULL)
    prepend(other, b"A" * 8096)
    assert lib.evbuffer_remove_cb(other, note, ffi.NULL) == 0
    assert told == [(3, 8096, 0)]
    assert pulled(other, 8096) == b"A" * 8096
    assert lib.evbuffer_drain(other, 8096) == 0
    assert pulled(other, 3) == b"foo"


# Lines.


def test_readln() -> None:
    """Lines end where each style says, also where what ends them is scattered over chains."""
    buffer = evbuffer()

    def lines(style: int, data: bytes, *expected: bytes | None) -> None:
        add(buffer, data)
        for line in expected:
            assert readln(buffer, style) == line
            copied(buffer)

    lines(ANY, b"quite a silly line\r\n\n\r\n\n\rmore\0\0\n", b"quite a silly line", b"more\0\0")
    assert length(buffer) == 0
    lines(ANY, b"\nunended", b"", None)
    assert lib.evbuffer_drain(buffer, length(buffer)) == 0
    assert length(buffer) == 0

    text = b"it has a\rin the middle\nit ends as it should\r\n\nlast\n"
    lines(CRLF, text, b"it has a\rin the middle", b"it ends as it should", b"", b"last")
    lines(CRLF, b"x", None)

    text = b" has a wrong end\nand a right one\r\n\r\nMore\r"
    lines(CRLF_STRICT, text, b"x has a wrong end\nand a right one", b"", None)
    lines(CRLF_STRICT, b"\n", b"More")
    assert length(buffer) == 0
    text = b"A CR\r alone ends nothing\r\nNor does none"
    lines(CRLF_STRICT, text, b"A CR\r alone ends nothing", None)
    lines(CRLF_STRICT, b"\r\n", b"Nor does none")
    assert length(buffer) == 0

    lines(LF, b"A\rand an LF\n\nText", b"A\rand an LF", b"", None)
    lines(LF, b"\n", b"Text")
    assert length(buffer) == 0

    text = b"NUL\n\0\0The byte that ends text in C\0and that is no part of it\0and the rest"
    lines(NUL, text, b"NUL\n", b"", b"The byte that ends text in C", b"and that is no part of it")
    lines(NUL, b"", None)
    assert lib.evbuffer_drain(buffer, EVERYTHING) == 0

    buffer = evbuffer(b" has a wrong end\nand a right one\r", b"\n\r", b"\nMore\r")
    lines(CRLF_STRICT, b"", b" has a wrong end\nand a right one", b"", None)
    lines(CRLF_STRICT, b"\n", b"More")
    assert length(buffer) == 0

    buffer = evbuffer(b"one line\ntwo lines\nred line")
    lines(LF, b"", b"one line", b"two lines", None)
    assert copied(buffer) == b"red line"
    assert lib.evbuffer_readln(buffer, ffi.NULL, LF) == ffi.NULL


def test_search_eol() -> None:
    """The end of a line is looked for from a position that an earlier search has given, too."""
    buffer = evbuffer(b"string! \r\n\r\nx\n")
    size = ffi.new("size_t *")

    def search(start: Any, style: int) -> tuple[Any, tuple[int, int]]:
        size[0] = 2**64 - 1
        found = lib.evbuffer_search_eol(buffer, start, size, style)
        return ffi.new("struct evbuffer_ptr *", found), (found.pos, size[0])

    one, told = search(ffi.NULL, CRLF)
    assert told == (8, 2)
    assert search(one, CRLF)[1] == (8, 2)
    assert lib.evbuffer_ptr_set(buffer, one, 1, lib.EVBUFFER_PTR_ADD) == 0
    assert search(one, CRLF)[1] == (9, 1)
    assert search(one, CRLF_STRICT)[1] == (10, 2)
    one, told = search(ffi.NULL, LF)
    assert told == (9, 1)
    assert search(one, LF)[1] == (9, 1)
    assert lib.evbuffer_ptr_set(buffer, one, 1, lib.EVBUFFER_PTR_ADD) == 0
    assert search(one, LF)[1] == (11, 1)
    assert search(position(buffer, length(buffer)), LF)[1] == (-1, 0)


def test_search_eol_across_chains() -> None:
    """What `test_search_eol` finds is found in chains of one byte each."""
    buffer = evbuffer(*(b"%c" % byte for byte in b"string! \r\n\r\nx\n"))
    size = ffi.new("size_t *")
    for start, style, expected in (
        (0, CRLF, (8, 2)),
        (9, CRLF, (9, 1)),
        (9, CRLF_STRICT, (10, 2)),
        (0, ANY, (8, 4)),
        (10, LF, (11, 1)),
        (12, NUL, (-1, 0)),
    ):
        found = lib.evbuffer_search_eol(buffer, position(buffer, start), size, style)
        assert (found.pos, size[0]) == expected


# Searching.


def test_find() -> None:
    """Nothing is found beyond the end, where the memory goes on."""
    buffer = evbuffer()
    add(buffer, b"1234567890\r\n")
    assert lib.evbuffer_drain(buffer, 12) == 0
    add(buffer, b"1234567890\r")
    assert lib.evbuffer_find(buffer, b"\r\n", 2) == ffi.NULL
    assert lib.evbuffer_drain(buffer, 11) == 0
    add(buffer, b"a" * 255 + b"x")
    assert lib.evbuffer_find(buffer, b"xy", 2) == ffi.NULL
    found = lib.evbuffer_find(buffer, b"ax", 2)
    assert bytes(ffi.buffer(found, 2)) == b"ax"


def test_search() -> None:
    """A search may begin at the position that an earlier one has found, and end at any."""
    buffer = evbuffer()

    def search(what: bytes, start: Any = ffi.NULL) -> Any:
        return ffi.new("struct evbuffer_ptr *", lib.evbuffer_search(buffer, what, len(what), start))

    def bounded(what: bytes, start: Any, end: Any) -> int:
        return int(lib.evbuffer_search_range(buffer, what, len(what), start, end).pos)

    assert search(b"x").pos == -1
    assert search(b"x", position(buffer, 0)).pos == -1
    assert bounded(b"x", position(buffer, 0), position(buffer, 0)) == -1
    assert bounded(b"x", position(buffer, 0), ffi.NULL) == -1

    buffer = evbuffer(b"hello", b"foo", b"cat", b"attack")
    assert search(b"attack").pos == 11
    assert search(b"attacker").pos == -1

    found = search(b"oc")
    assert found.pos == 7
    found = search(b"cat", found)
    assert found.pos == 8
    assert search(b"tacking", found).pos == -1

    found = search(b"foo", position(buffer, 5))
    assert found.pos == 5
    assert lib.evbuffer_ptr_set(buffer, found, 2, lib.EVBUFFER_PTR_ADD) == 0
    assert search(b"tat", found).pos == 10

    first_t = position(buffer, 12)
    assert bounded(b"foo", ffi.NULL, first_t) == 5
    assert bounded(b"foocata", ffi.NULL, first_t) == 5
    assert bounded(b"foocatat", ffi.NULL, first_t) == -1
    assert bounded(b"ack", ffi.NULL, first_t) == -1

    end = position(buffer, 17)
    assert bounded(b"attack", ffi.NULL, end) == 11
    assert bounded(b"attack", position(buffer, 11), end) == 11
    assert bounded(b"attack", position(buffer, 17), end) == -1
    assert bounded(b"attack", position(buffer, 17), ffi.NULL) == -1


def test_ptr_set() -> None:
    """A position goes on from itself, over chains, and is -1 where there is none."""
    buffer = evbuffer()
    pointer = ffi.new("struct evbuffer_ptr *")

    def put(where: int, how: int) -> int:
        assert lib.evbuffer_ptr_set(buffer, pointer, where, how) == (0 if pointer.pos >= 0 else -1)
        return int(pointer.pos)

    to, on = lib.EVBUFFER_PTR_SET, lib.EVBUFFER_PTR_ADD
    assert put(0, to) == 0
    assert put(1, on) == -1
    assert put(1, to) == -1
    buffer = evbuffer(b"\1" * 5000, b"\2" * 4000, b"\3" * 3000)
    assert put(13000, to) == -1
    assert put(0, to) == 0
    assert put(13000, on) == -1
    for where, expected in ((0, 0), (10000, 10000), (1000, 11000), (1000, 12000), (1000, -1)):
        assert put(where, on if where else to) == expected


# Looking.


def chunk(number: int) -> bytes:
    return b"The content of chunk %d\n" % number


def test_peek() -> None:
    """As many chains are counted as are needed, and as many are told as there is room for."""
    chunks = [chunk(number) for number in range(16)]
    buffer = evbuffer(*chunks)
    first = len(chunks[0])
    assert peek(buffer, room=0) == [16]
    assert peek(buffer) == [16, *chunks]
    assert peek(buffer, room=1) == [1, chunks[0]]
    assert peek(buffer, 40) == [2, *chunks[:2]]
    assert peek(buffer, 100, room=0) == [5]
    assert peek(buffer, 60, room=1) == [3, chunks[0]]
    assert peek(buffer, 65536) == [16, *chunks]
    assert peek(evbuffer()) == peek(evbuffer(), 50) == [0]

    pointer = position(buffer, 30)
    # The last one is told whole, though only a part was asked for.
    assert peek(buffer, 50, pointer) == [3, chunks[1][30 - first :], *chunks[2:4]]
    assert lib.evbuffer_ptr_set(buffer, pointer, 2 * first - 30, lib.EVBUFFER_PTR_ADD) == 0
    assert peek(buffer, 44, pointer) == [2, *chunks[2:4]]
    assert peek(buffer, 44, position(buffer, length(buffer))) == [0]


def test_peek_first_gt() -> None:
    """Chains are counted from a position on, also from one at the end of a long first chain."""
    first, second = chunk(100), chunk(1)
    buffer = evbuffer(first, second)
    pointer = position(buffer, 0)
    assert peek(buffer, ALL, pointer, 0) == [2]
    assert peek(buffer, ALL, pointer, 2) == [2, first, second]
    assert lib.evbuffer_ptr_set(buffer, pointer, len(first) - 2, lib.EVBUFFER_PTR_ADD) == 0
    for size, count in ((ALL, 2), (2, 1), (3, 2)):
        assert peek(buffer, size, pointer, 0) == [count]
        assert peek(buffer, size, pointer, 2) == [count, first[-2:], second][: count + 1]


@pytest.mark.parametrize("size", [0, 15, 79, 80, 81, 160, 206, 207])
def test_copyout(size: int) -> None:
    """Any part can be copied out of any chains, from any position on."""
    text = (bytes(range(ord("!"), ord("~"))) * 3)[:206]
    buffer = evbuffer(text[:80], text[80:160], text[160:])
    memory = ffi.new("char[]", 300)
    for start in (0, 10, 79, 80, 159, 206):
        count = lib.evbuffer_copyout_from(buffer, position(buffer, start), memory, size)
        assert bytes(ffi.buffer(memory, count)) == text[start : start + size]
    assert copied(buffer) == text
