"""Malformed tagged items: each is an error by name, and the buffer stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import Buffer, TagError, tag
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import run_python

#: How each kind of item is taken, when one of tag 1 is asked for.
TAKERS: dict[str, Callable[[Buffer], Any]] = {
    "any": tag.unmarshal,
    "header": tag.unmarshal_header,
    "consume": tag.consume,
    "int": lambda buffer: tag.unmarshal_int(buffer, 1),
    "int64": lambda buffer: tag.unmarshal_int64(buffer, 1),
    "string": lambda buffer: tag.unmarshal_string(buffer, 1),
    "fixed": lambda buffer: tag.unmarshal_fixed(buffer, 1, 4),
    "timeval": lambda buffer: tag.unmarshal_timeval(buffer, 1),
}

#: No item at all, however it is taken.
HEADERS: dict[str, bytes] = {
    "nothing": b"",
    "a tag without end": b"\x80",
    "two bytes of a tag": b"\xff\xff",
    "three bytes of a tag": b"\x80\x80\x80",
    "four bytes of a tag": b"\x80\x80\x80\x80",
    "five bytes of a tag that goes on": b"\x80\x80\x80\x80\x80",
    "five bytes of a tag that goes on, with a length": b"\x81\x80\x80\x80\x80\x00\x11a",
    "six bytes of a tag": b"\x80\x80\x80\x80\x80\x00\x00",
    "six bytes of a tag with small bits": b"\x81\x80\x80\x80\x8f\x01\x01a",
    "seven bytes of a tag": b"\x80\x80\x80\x80\x80\x80\x00\x00",
    "ten bytes of a tag": b"\x80" * 9 + b"\x00\x00",
    "a tag of nothing but continuation": b"\x80" * 100,
    "a tag of all bits": b"\xff" * 100,
    "a tag of a chain's length": b"\x80" * 4096,
    "a tag of 33 bits": b"\x80\x80\x80\x80\x10\x00",
    "a tag of 35 bits": b"\xff\xff\xff\xff\x7f\x00",
    "a tag without a length": b"\x01",
    "a long tag without a length": b"\xff\xff\xff\xff\x0f",
    "a tag of zero without a length": b"\x00",
    "a length of two nibbles without the second": b"\x01\x11",
    "a length of three nibbles without two": b"\x01\x2f",
    "a length of four nibbles, two there": b"\x01\x34\x12",
    "a length of five nibbles, three there": b"\x01\x4f\xff",
    "a length of six nibbles, four there": b"\x01\x5f\xff\xff",
    "a length of seven nibbles, five there": b"\x01\x60\x00\x00",
    "a length of eight nibbles, seven there": b"\x01\x70\x00\x00\x00",
    "a length of eight nibbles, one there": b"\x01\x7f",
    "a length of nine nibbles": b"\x01\x80\x00\x00\x00\x00a",
    "a length of ten nibbles": b"\x01\x90\x00\x00\x00\x00\x00a",
    "a length of twelve nibbles": b"\x01\xb1" + b"\x00" * 20,
    "a length of sixteen nibbles": b"\x01\xf0" + b"\x00" * 20,
    "a length of sixteen set nibbles": b"\x01" + b"\xff" * 20,
    "a length of sixteen nibbles, cut": b"\x01\xff",
    "a long tag and a length cut": b"\xff\xff\xff\xff\x0f\x7f\xff\xff\xff",
    "a long tag and nine nibbles": b"\xff\xff\xff\xff\x0f\x8f\xff\xff\xff\xff",
}


def length(nibbles: int, value: int) -> bytes:
    """Return *value* as a length of so many nibbles, the lowest first as libevent has them."""
    digits = [nibbles - 1, *(value >> 4 * i & 15 for i in range(nibbles))]
    digits += [0] * (len(digits) % 2)
    return bytes(high << 4 | low for high, low in zip(digits[::2], digits[1::2], strict=True))


#: Items whose payload is not all there.
PAYLOADS: dict[str, bytes] = {
    "one byte, none there": b"\x01" + length(1, 1),
    "two bytes, one there": b"\x01" + length(1, 2) + b"a",
    "fifteen bytes, fourteen there": b"\x01" + length(1, 15) + b"a" * 14,
    "sixteen bytes, fifteen there": b"\x01" + length(2, 16) + b"a" * 15,
    "a page, a byte less there": b"\x01" + length(4, 4096) + b"a" * 4095,
    "64 KiB": b"\x01" + length(5, 2**16) + b"a" * 100,
    "1 MiB": b"\x01" + length(6, 2**20) + b"a" * 100,
    "16 MiB less one": b"\x01" + length(6, 2**24 - 1) + b"a" * 100,
    "1 GiB": b"\x01" + length(8, 2**30) + b"a" * 100,
    "2 GiB less two": b"\x01" + length(8, 2**31 - 2) + b"a" * 100,
    "the largest int": b"\x01" + length(8, 2**31 - 1) + b"a" * 100,
    "the smallest int": b"\x01" + length(8, 2**31) + b"a" * 100,
    "an int a little below": b"\x01" + length(8, 2**31 + 1) + b"a" * 100,
    "3 GiB": b"\x01" + length(8, 3 * 2**30) + b"a" * 100,
    "minus five": b"\x01" + length(8, 2**32 - 5) + b"a" * 100,
    "minus two": b"\x01" + length(8, 2**32 - 2) + b"a" * 100,
    "minus one": b"\x01" + length(8, 2**32 - 1) + b"a" * 100,
    "minus one, and nothing": b"\x01" + length(8, 2**32 - 1),
    "a sum with its header beyond 32 bits": b"\x01" + length(8, 2**32 - 6) + b"a" * 100,
    "a length with needless nibbles": b"\x01" + length(8, 5) + b"aaaa",
    "a tag with needless bytes": b"\x81\x80\x80\x80\x00" + length(1, 5) + b"aaaa",
    "the largest tag": b"\xff\xff\xff\xff\x0f" + length(1, 1),
    "tag zero": b"\x00" + length(1, 1),
}


def item(payload: bytes, number: int = 1) -> bytes:
    buffer = Buffer()
    tag.marshal(buffer, number, payload)
    return bytes(buffer)


#: Items that are whole, but not what is asked for: how each is taken, and the item.
KINDS: dict[str, tuple[str, bytes]] = {
    "a number of no bytes": ("int", item(b"")),
    "a number of no bytes before another item": ("int", item(b"") + item(b"\x01")),
    "a number of three nibbles in a byte": ("int", item(b"\x2f")),
    "a number of eight nibbles in four bytes": ("int", item(b"\x7f\xff\xff\xff")),
    "a number of eight nibbles, the rest in the next item": ("int", item(b"\x7f") + b"\xff" * 9),
    "a number of nine nibbles": ("int", item(b"\x8f\xff\xff\xff\xff")),
    "a number of sixteen nibbles": ("int", item(b"\xff" * 9)),
    "a number of another tag": ("int", item(b"\x01", 2)),
    "a number of tag zero": ("int", item(b"\x01", 0)),
    "a long number of no bytes": ("int64", item(b"")),
    "a long number of sixteen nibbles in eight bytes": ("int64", item(b"\xff" * 8)),
    "a long number of sixteen nibbles in a byte": ("int64", item(b"\xff")),
    "a long number, the rest in the next item": ("int64", item(b"\xff") + b"\xff" * 20),
    "a long number of another tag": ("int64", item(b"\x01", 2**32 - 1)),
    "a string of another tag": ("string", item(b"abc", 129)),
    "four bytes, three there": ("fixed", item(b"abc")),
    "four bytes, five there": ("fixed", item(b"abcde")),
    "four bytes, none there": ("fixed", item(b"")),
    "four bytes, a megabyte there": ("fixed", item(b"a" * 2**20)),
    "four bytes of another tag": ("fixed", item(b"abcd", 3)),
    "a time of no bytes": ("timeval", item(b"")),
    "a time without microseconds": ("timeval", item(b"\x05")),
    "a time without all of its microseconds": ("timeval", item(b"\x05\x7f")),
    "a time of nine nibbles": ("timeval", item(b"\x8f\xff\xff\xff\xff\x00")),
    "a time and nine nibbles of microseconds": ("timeval", item(b"\x00\x8f\xff\xff\xff\xff")),
    "a time, its microseconds in the next item": ("timeval", item(b"\x05") + b"\x05" * 9),
    "a time, all of it in the next item": ("timeval", item(b"") + b"\x05" * 9),
    "a time of another tag": ("timeval", item(b"\x05\x05", 7)),
}

#: Each case: how it is taken, and what the buffer contains.
CASES: dict[str, tuple[str, bytes]] = {
    **{name: ("any", octets) for name, octets in (HEADERS | PAYLOADS).items()},
    **KINDS,
}


def scattered(octets: bytes) -> Buffer:
    """Return a buffer with each of the first bytes in memory of its own."""
    buffer = Buffer()
    for i in range(0, min(len(octets), 16)):
        buffer.add_reference(octets[i : i + 1])
    buffer.add(octets[16:])
    return buffer


def test_there_are_more_than_eighty_and_each_is_another() -> None:
    assert len(CASES) >= 80
    assert len({octets for _, octets in CASES.values()}) >= 80


@pytest.mark.parametrize("name", CASES)
def test_what_is_malformed_is_an_error_and_stays(name: str) -> None:
    kind, octets = CASES[name]
    for make in (Buffer, scattered):
        for taker in TAKERS if kind == "any" else [kind]:
            buffer = make(octets)
            with pytest.raises(TagError, match=r"^evtag_\w+: "):
                TAKERS[taker](buffer)
            assert bytes(buffer) == octets


@pytest.mark.parametrize("name", HEADERS)
def test_what_has_no_header_has_no_length(name: str) -> None:
    for look in (tag.payload_length, tag.peek_length):
        with pytest.raises(TagError):
            look(scattered(HEADERS[name]))


@pytest.mark.parametrize("name", PAYLOADS)
def test_what_is_announced_can_be_told_before_it_is_there(name: str) -> None:
    buffer = scattered(PAYLOADS[name])
    assert tag.peek_length(buffer) > tag.payload_length(buffer)
    assert tag.peek_length(buffer) > len(buffer)


@pytest.mark.parametrize("name", CASES)
def test_a_good_item_is_read_after_a_bad_one_was_dropped(name: str) -> None:
    kind, octets = CASES[name]
    buffer = scattered(octets)
    with pytest.raises(TagError):
        TAKERS[kind](buffer)
    buffer.drain(len(octets))
    tag.marshal_int(buffer, 1, 5)
    assert tag.unmarshal_int(buffer, 1) == 5


@VALGRIND_TAKES_LONG
def test_none_of_them_reads_what_is_not_there(valgrind: bool) -> None:
    refused = run_python(
        """
        from libevent_py import TagError, tag
        from tests.hostile.test_tags import CASES, TAKERS, Buffer, scattered

        refused = 0
        for kind, octets in CASES.values():
            for taker in TAKERS if kind == "any" else [kind]:
                for buffer in (Buffer(octets), scattered(octets)):
                    try:
                        TAKERS[taker](buffer)
                    except TagError:
                        refused += 1
                    try:
                        tag.peek(buffer)
                        tag.peek_length(buffer)
                    except TagError:
                        pass
        print(refused)
        """,
        valgrind=valgrind,
    )
    kinds = [kind for kind, _ in CASES.values()]
    assert int(refused) == 2 * (kinds.count("any") * len(TAKERS) + len(KINDS))
