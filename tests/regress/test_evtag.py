"""Group ``evtag``: tagged items."""

from __future__ import annotations

import random

import pytest

from libevent_py import Buffer, TagError, tag

INTEGERS = [0xAF0, 0x1000, 0x1, 0xDEADBEEF, 0x00, 0xBEF000]


def test_int() -> None:
    """Integers come back as they were; given a tag, because C declares no decoder of others."""
    buffer = Buffer()
    for number in INTEGERS:
        for encode, value in ((tag.encode_int, number), (tag.encode_int64, number * 10**9)):
            bare = Buffer()
            encode(bare, value)
            assert 1 <= len(bare) <= 9
            tag.marshal_buffer(buffer, 1, bare)
    for number in INTEGERS:
        assert tag.unmarshal_int(buffer, 1) == number
        assert tag.unmarshal_int64(buffer, 1) == number * 10**9
    assert len(buffer) == 0


def test_fuzz() -> None:
    """What is random is mostly no time, and a time with a wrong length never is."""
    chance = random.Random(1)
    octets = b""
    times = 0
    for _ in range(100):
        octets = chance.randbytes(4096)
        try:
            tag.unmarshal_timeval(Buffer(octets), 0)
            times += 1
        except TagError:
            pass
    assert times < 10

    buffer = Buffer()
    tag.marshal_timeval(buffer, 0, 1)
    corrupted = bytearray(bytes(buffer) + octets)
    corrupted[1] = 0xFF
    with pytest.raises(TagError):
        tag.unmarshal_timeval(Buffer(corrupted), 0)


def test_peek() -> None:
    """Tags and lengths can be looked at, and what is not wanted dropped."""
    buffer = Buffer()
    tag.marshal_int(buffer, 30, 0)
    tag.marshal_string(buffer, 40, "Hello world")
    assert tag.peek(buffer) == 30
    assert tag.peek_length(buffer) == 1 + 1 + 1
    tag.consume(buffer)
    assert tag.peek(buffer) == 40
    assert tag.peek_length(buffer) == 1 + 1 + 11
    assert tag.payload_length(buffer) == 11
