"""Looking for something in a buffer: positions, ends of lines, and the lines themselves."""

from __future__ import annotations

import re
import timeit
from typing import Any

import pytest

from libevent_py import Buffer, EolStyle, LibeventError
from libevent_py.buffer.buffer import ROOM
from tests.kit.support import shown

#: What each style takes for the end of a line.
ENDS = {
    EolStyle.ANY: rb"[\r\n]+",
    EolStyle.CRLF: rb"\r?\n",
    EolStyle.CRLF_STRICT: rb"\r\n",
    EolStyle.LF: rb"\n",
    EolStyle.NUL: rb"\0",
}

TEXTS = [
    b"",
    b"no end",
    b"\n",
    b"\r\n",
    b"\r",
    b"\0",
    b"one\ntwo\r\nthree\rfour\n\rfive\r\r\nsix\0seven\n\nend",
    b"\n\n\r\n\r\n\0\0",
    b"ends\r\n",
    b"ends\r",
]


def in_pieces(data: bytes, size: int) -> Buffer:
    """Return a buffer whose content lies in pieces of *size* bytes."""
    buffer = Buffer()
    for start in range(0, len(data), size):
        with Buffer(data[start : start + size]) as piece:
            buffer.add_buffer(piece)
    return buffer


@pytest.mark.parametrize("eol", EolStyle)
@pytest.mark.parametrize("data", TEXTS, ids=shown)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_lines_end_where_the_style_says(data: bytes, eol: EolStyle, size: int) -> None:
    buffer = in_pieces(data, size)
    rest = data
    while found := re.search(ENDS[eol], rest):
        assert buffer.search_eol(0, eol) == (found.start(), len(found[0]))
        assert buffer.readln(eol) == rest[: found.start()]
        rest = rest[found.end() :]
        assert bytes(buffer) == rest
    assert buffer.search_eol(eol=eol) == (-1, 0)
    assert buffer.readln(eol) is None
    assert bytes(buffer) == rest


@pytest.mark.parametrize("eol", EolStyle)
@pytest.mark.parametrize("data", TEXTS, ids=shown)
def test_the_search_for_an_end_may_begin_anywhere(data: bytes, eol: EolStyle) -> None:
    buffer = in_pieces(data, 2)
    for start in range(len(data) + 1):
        found = re.compile(ENDS[eol]).search(data, start)
        expected = (found.start(), len(found[0])) if found else (-1, 0)
        assert buffer.search_eol(start, eol) == expected


def test_crlf_is_what_ends_a_line_unless_told_otherwise() -> None:
    buffer = Buffer(b"GET / HTTP/1.1\r\nHost: x\n\r\nbody")
    lines = []
    while (line := buffer.readln()) is not None:
        lines.append(line)
    assert lines == [b"GET / HTTP/1.1", b"Host: x", b""]
    assert bytes(buffer) == b"body"


@pytest.mark.parametrize("size", [0, 1, ROOM - 1, ROOM, ROOM + 1, 5 * ROOM])
def test_a_line_may_be_of_any_length(size: int) -> None:
    line = b"x" * size
    for buffer in (Buffer(line + b"\r\nrest"), in_pieces(line + b"\r\nrest", 1000)):
        assert buffer.readln() == line
        assert bytes(buffer) == b"rest"


@pytest.mark.parametrize("bad", [-1, 5, "\n", None, b"\n"], ids=shown)
def test_a_style_is_an_eol_style(bad: Any) -> None:
    buffer = Buffer(b"hello\n")
    with pytest.raises(ValueError, match="eol must be an EolStyle"):
        buffer.readln(bad)
    with pytest.raises(ValueError, match="eol must be an EolStyle"):
        buffer.search_eol(0, bad)
    assert bytes(buffer) == b"hello\n"


def test_a_style_may_be_cs_number() -> None:
    buffer = Buffer(b"a\0b\0")
    assert buffer.readln(int(EolStyle.NUL)) == b"a"


def test_a_frozen_front_keeps_its_lines() -> None:
    buffer = Buffer(b"hello\nworld")
    buffer.freeze(True)
    with pytest.raises(
        LibeventError, match="evbuffer_readln failed: the buffer is frozen at its f"
    ):
        buffer.readln()
    buffer.unfreeze(True)
    assert buffer.readln() == b"hello"
    buffer.freeze(True)
    assert buffer.readln() is None


def test_search_looks_between_start_and_end() -> None:
    data = b"abcabcabc" * 300
    for buffer in (Buffer(data), in_pieces(data, 4)):
        for what in (b"abc", b"c", b"ca", b"x", b"abcabcabcabc"):
            for start in (0, 1, 3, 8, 1500, len(data) - 3, len(data)):
                for end in (None, start, start + 2, start + 3, start + 12, len(data)):
                    if end is None or end <= len(data):
                        assert buffer.search(what, start, end) == data.find(what, start, end)


def test_positions_are_within_the_buffer() -> None:
    buffer = Buffer(b"hello")
    assert buffer.search(b"", 5) == 5
    assert buffer.search(b"", 2, 4) == 2
    assert buffer.search(b"l", 5) == -1
    assert buffer.search_eol(5) == (-1, 0)
    assert buffer.copyout(5, 5) == b""
    for call in (
        lambda start: buffer.search(b"l", start),
        lambda start: buffer.search(b"l", start, 5),
        lambda start: buffer.search(b"", start),
        buffer.search_eol,
        lambda start: buffer.copyout(1, start),
        lambda start: buffer.copyout(0, start),
        lambda start: buffer.copyout(None, start),
    ):
        for start in (6, 2**40, 2**63 - 1, 2**64, -1):
            with pytest.raises(ValueError, match=r"^start must be from 0 to "):
                call(start)
    with pytest.raises(ValueError, match=r"^start must be from 0 to 2, not 3"):
        buffer.search(b"l", 3, 2)
    for end in (6, 2**63 - 1, 2**64):
        with pytest.raises(ValueError, match=r"^end must be from "):
            buffer.search(b"l", 3, end)
    for bad in ("1", 1.0, b"", [0]):
        with pytest.raises(TypeError, match=r"^start must be an integer"):
            buffer.search(b"l", bad)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^end must be an integer"):
            buffer.search(b"l", 0, bad)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^start must be an integer"):
            buffer.copyout(1, bad)  # type: ignore[arg-type]


def test_copyout_copies_from_anywhere() -> None:
    data = bytes(range(256)) * 40
    for buffer in (Buffer(data), in_pieces(data, 700)):
        for start in (0, 1, 699, 700, 701, 5000, len(data) - 1, len(data)):
            for size in (0, 1, 700, 3000, len(data), 2**62, None):
                end = len(data) if size is None else start + size
                assert buffer.copyout(size, start) == data[start:end]
        assert len(buffer) == len(data)
    big = b"x" * (3 * ROOM) + b"y"
    assert in_pieces(big, 10_000).copyout(None, 1) == big[1:]
    assert in_pieces(big, 10_000).copyout(2 * ROOM, ROOM) == big[ROOM : 3 * ROOM]


def test_a_search_costs_no_walk_to_the_end() -> None:
    def cost(buffer: Buffer) -> float:
        return min(timeit.repeat(lambda: buffer.search(b"x"), number=100, repeat=5))

    assert cost(in_pieces(b"x" * 20_000, 1)) < 20 * cost(Buffer(b"x"))


def test_contains_asks_for_bytes_or_a_byte() -> None:
    buffer = in_pieces(b"hello\xff", 2)
    assert b"llo" in buffer
    assert b"" in buffer
    assert bytearray(b"lo\xff") in buffer
    assert b"x" not in buffer
    assert 255 in buffer
    assert 0 not in buffer
    with pytest.raises(ValueError, match="256"):
        256 in buffer  # noqa: B015
    with pytest.raises(TypeError, match="what must be bytes"):
        "hello" in buffer  # type: ignore[operator]  # noqa: B015
