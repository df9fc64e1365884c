"""Group ``evtag`` through the raw layer: the module ``tag`` never takes half an item, as C does."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import ffi, lib
from tests.kit.raw import add, copied, evbuffer, length

INTEGERS = [0xAF0, 0x1000, 0x1, 0xDEADBEEF, 0x00, 0xBEF000]
BILLION = 10**9


def told(function: Callable[..., int], buffer: Any, kind: str = "ev_uint32_t") -> tuple[int, int]:
    """Return what C returns, and what it has written."""
    number = ffi.new(f"{kind} *")
    return function(buffer, number), int(number[0])


def octets(number: int) -> int:
    """Return how many bytes an integer needs: half a byte for each four bits, and one more half."""
    return 1 + max(1, -(-number.bit_length() // 4)) // 2


def test_int() -> None:
    """Integers of both sizes come back as they were, each by its tag."""
    buffer = evbuffer()
    for number in INTEGERS:
        lib.evtag_marshal_int(buffer, 1, number)
        lib.evtag_marshal_int64(buffer, 2, number * BILLION)
        for encode, value in (
            (lib.evtag_encode_int, number),
            (lib.evtag_encode_int64, number * BILLION),
        ):
            bare = evbuffer()
            encode(bare, value)
            assert length(bare) == octets(value)
            lib.evtag_marshal_buffer(buffer, 3, bare)
    small, big = ffi.new("ev_uint32_t *"), ffi.new("ev_uint64_t *")
    for number in INTEGERS:
        sizes = [octets(number), octets(number * BILLION)]
        for tags in (1, 2), (3, 3):
            assert lib.evtag_unmarshal_int(buffer, tags[0], small) == sizes[0]
            assert lib.evtag_unmarshal_int64(buffer, tags[1], big) == sizes[1]
            assert (small[0], big[0]) == (number, number * BILLION)
    assert length(buffer) == 0


def test_fuzz() -> None:
    """What is random is mostly no time; a time whose length is wrong never is."""
    chance = random.Random(1)
    moment = ffi.new("struct timeval *")
    times = 0
    for _ in range(100):
        noise = chance.randbytes(4096)
        times += lib.evtag_unmarshal_timeval(evbuffer(noise), 0, moment) != -1
    assert times < 10

    buffer = evbuffer()
    moment.tv_sec, moment.tv_usec = 1, 7
    lib.evtag_marshal_timeval(buffer, 0, moment)
    good = copied(buffer)
    add(buffer, noise)
    again = ffi.new("struct timeval *")
    assert lib.evtag_unmarshal_timeval(evbuffer(good), 0, again) == 0
    assert (again.tv_sec, again.tv_usec) == (1, 7)
    corrupted = bytearray(copied(buffer))
    corrupted[1] = 0xFF
    assert lib.evtag_unmarshal_timeval(evbuffer(bytes(corrupted)), 0, moment) == -1
    # A length that ends within the second of the two numbers.
    lib.evtag_encode_int(numbers := evbuffer(), 1)
    lib.evtag_encode_int(numbers, 100_000)
    assert length(numbers) == 4
    lib.evtag_marshal(whole := evbuffer(), 0, copied(numbers), 4)
    assert lib.evtag_unmarshal_timeval(whole, 0, moment) == 0
    assert (moment.tv_sec, moment.tv_usec) == (1, 100_000)
    shortened = evbuffer()
    lib.evtag_marshal(shortened, 0, copied(numbers)[:2], 2)
    add(shortened, copied(numbers)[2:])
    assert lib.evtag_unmarshal_timeval(shortened, 0, moment) == -1


@pytest.mark.parametrize("tag", [*INTEGERS, 0x7F, 0x80, 2**32 - 1])
def test_tag_encoding(tag: int) -> None:
    """A tag of any size is read as it was written, and needs a byte for each seven bits."""
    buffer = evbuffer()
    lib.evtag_marshal(buffer, tag, b"", 0)
    assert length(buffer) == max(1, -(-tag.bit_length() // 7)) + 1
    assert told(lib.evtag_peek, buffer)[1] == tag
    assert told(lib.evtag_unmarshal_header, buffer) == (0, tag)
    assert length(buffer) == 0


def test_peek() -> None:
    """Tags and lengths can be looked at, and what is not wanted dropped."""
    buffer = evbuffer()
    lib.evtag_marshal_int(buffer, 30, 0)
    lib.evtag_marshal_string(buffer, 40, b"Hello world")
    assert told(lib.evtag_peek, buffer) == (1, 30)
    assert told(lib.evtag_peek_length, buffer) == (0, 1 + 1 + 1)
    assert lib.evtag_consume(buffer) == 0

    assert told(lib.evtag_peek, buffer) == (1, 40)
    assert told(lib.evtag_peek_length, buffer) == (0, 1 + 1 + 11)
    assert told(lib.evtag_payload_length, buffer) == (0, 11)
    assert lib.evtag_consume(buffer) == 0
    assert length(buffer) == 0
    assert told(lib.evtag_peek, buffer)[0] == -1
    assert lib.evtag_consume(buffer) == -1


def test_unmarshal() -> None:
    """What was marshalled in each way is unmarshalled: whole, of a fixed size, or as text."""
    buffer, target = evbuffer(), evbuffer()
    lib.evtag_marshal(buffer, 5, b"any bytes\0", 10)
    tag = ffi.new("ev_uint32_t *")
    assert lib.evtag_unmarshal(buffer, tag, target) == 10
    assert (tag[0], copied(target), length(buffer)) == (5, b"any bytes\0", 0)

    lib.evtag_marshal(buffer, 6, b"four", 4)
    lib.evtag_marshal(buffer, 7, b"four", 4)
    fixed = ffi.new("char[5]")
    assert lib.evtag_unmarshal_fixed(buffer, 6, fixed, 4) == 0
    assert ffi.string(fixed) == b"four"
    assert lib.evtag_unmarshal_fixed(buffer, 6, fixed, 4) == -1  # it has another tag

    buffer = evbuffer()
    lib.evtag_marshal(buffer, 7, b"four", 4)
    assert lib.evtag_unmarshal_fixed(buffer, 7, fixed, 3) == -1  # it has another length

    buffer = evbuffer()
    lib.evtag_marshal_string(buffer, 8, b"some text")
    lib.evtag_marshal_string(buffer, 9, b"some text")
    text = ffi.new("char **")
    assert lib.evtag_unmarshal_string(buffer, 8, text) == 0
    assert ffi.string(text[0]) == b"some text"
    lib.free(text[0])
    assert lib.evtag_unmarshal_string(buffer, 8, text) == -1

    buffer = evbuffer()
    lib.evtag_marshal(buffer, 10, b"x" * 300, 300)
    assert told(lib.evtag_unmarshal_header, buffer) == (300, 10)
    assert copied(buffer) == b"x" * 300
    short = evbuffer(copied(buffer)[:0])
    assert told(lib.evtag_unmarshal_header, short)[0] == -1


def test_half_an_item() -> None:
    """What fails has taken what it has read, which is why ``tag`` looks at an item first."""
    buffer = evbuffer()
    lib.evtag_marshal_int(buffer, 1, 7)
    number = ffi.new("ev_uint32_t *")
    assert lib.evtag_unmarshal_int(buffer, 2, number) == -1
    assert length(buffer) < 3
