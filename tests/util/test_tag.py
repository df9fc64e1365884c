"""Items go in and come out whole, or nothing changes."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventOption,
    BufferInfo,
    ClosedError,
    EventBase,
    LibeventError,
    TagError,
    tag,
)
from libevent_py._ffi import ffi, lib
from tests.kit.support import run_python

TAGS = [0, 1, 127, 128, 300, 2**14, 2**21, 2**28 - 1, 2**28, 2**32 - 1]
NUMBERS = [0, 1, 15, 16, 255, 0xAF0, 0xDEADBEEF, 2**32 - 1]


def item(number: int, data: bytes = b"abc") -> Buffer:
    buffer = Buffer()
    tag.marshal(buffer, number, data)
    return buffer


@pytest.mark.parametrize("number", TAGS)
def test_every_kind_of_item_comes_out_as_it_went_in(number: int) -> None:
    tag.init()
    buffer = Buffer()
    tag.marshal(buffer, number, b"\0data\xff")
    tag.marshal_buffer(buffer, number, Buffer(b"moved"))
    for value in NUMBERS:
        tag.marshal_int(buffer, number, value)
        tag.marshal_int64(buffer, number, value << 32 | value)
    tag.marshal_string(buffer, number, "caf\xe9")
    tag.marshal_timeval(buffer, number, 1234567890.25)
    tag.marshal(buffer, number, b"fixed")
    assert tag.unmarshal(buffer) == (number, b"\0data\xff")
    assert tag.unmarshal(buffer) == (number, b"moved")
    for value in NUMBERS:
        assert tag.unmarshal_int(buffer, number) == value
        assert tag.unmarshal_int64(buffer, number) == value << 32 | value
    assert tag.unmarshal_string(buffer, number) == "caf\xe9"
    assert tag.unmarshal_timeval(buffer, number) == 1234567890.25
    assert tag.unmarshal_fixed(buffer, number, 5) == b"fixed"
    assert not buffer


@pytest.mark.parametrize("size", [0, 1, 15, 16, 2000, 2048, 70_000, 1_000_000])
def test_an_item_of_any_size_is_what_c_itself_makes_and_reads(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    ours, c = item(300, data), Buffer()
    lib.evtag_marshal(c.pointer, 300, data, size)
    assert ours == c
    found, into = ffi.new("ev_uint32_t *"), Buffer()
    assert lib.evtag_unmarshal(ours.pointer, found, into.pointer) == size
    assert (found[0], bytes(into)) == tag.unmarshal(c) == (300, data)


def test_numbers_times_and_strings_are_what_c_itself_makes() -> None:
    ours, c = Buffer(), Buffer()
    for value in NUMBERS:
        tag.marshal_int(ours, 7, value)
        tag.marshal_int64(ours, 7, value)
        tag.encode_int(ours, value)
        tag.encode_int64(ours, value)
        lib.evtag_marshal_int(c.pointer, 7, value)
        lib.evtag_marshal_int64(c.pointer, 7, value)
        lib.evtag_encode_int(c.pointer, value)
        lib.evtag_encode_int64(c.pointer, value)
    tag.marshal_timeval(ours, 8, 5.5)
    tag.marshal_string(ours, 9, "\u20ac")
    lib.evtag_marshal_timeval(c.pointer, 8, ffi.new("struct timeval *", (5, 500_000)))
    lib.evtag_marshal_string(c.pointer, 9, "\u20ac".encode())
    assert ours == c


def test_one_can_look_at_an_item_without_taking_it() -> None:
    buffer = item(300, b"x" * 100)
    assert tag.peek(buffer) == 300
    assert tag.payload_length(buffer) == 100
    assert tag.peek_length(buffer) == len(buffer) == 104
    tag.consume(buffer)
    assert not buffer


def test_lengths_are_known_before_the_payload_is_there() -> None:
    buffer = Buffer(item(300, b"x" * 100).copyout(4))
    assert tag.peek_length(buffer) == 104
    assert tag.payload_length(buffer) == 100
    for take in (tag.unmarshal, tag.unmarshal_header, tag.consume):
        with pytest.raises(TagError, match="the buffer ends within a payload of 100 bytes"):
            take(buffer)
    assert tag.peek(Buffer(buffer.copyout(2))) == 300
    with pytest.raises(TagError, match="doesn't begin with a tag and a length"):
        tag.payload_length(Buffer(buffer.copyout(2)))


def test_the_header_can_be_taken_by_itself() -> None:
    buffer = item(5, b"abc")
    assert tag.unmarshal_header(buffer) == (5, 3)
    assert bytes(buffer) == b"abc"


def test_what_another_tag_has_is_left_alone() -> None:
    buffer = item(5)
    before = bytes(buffer)
    takers: list[Callable[[], Any]] = [
        lambda: tag.unmarshal_int(buffer, 6),
        lambda: tag.unmarshal_int64(buffer, 6),
        lambda: tag.unmarshal_string(buffer, 6),
        lambda: tag.unmarshal_timeval(buffer, 6),
        lambda: tag.unmarshal_fixed(buffer, 6, 3),
    ]
    for take in takers:
        with pytest.raises(TagError, match=r"^evtag_unmarshal_\w+: the tag is 5, not 6$"):
            take()
    assert bytes(buffer) == before


def test_a_payload_that_is_no_number_or_of_another_length_is_left_alone() -> None:
    for data in (b"", b"\x70", b"\xff" + b"x" * 9):
        buffer = item(5, data)
        before = bytes(buffer)
        with pytest.raises(TagError, match=f"payload of {len(data)} bytes is not what was asked"):
            tag.unmarshal_int(buffer, 5)
        with pytest.raises(TagError, match="is not what was asked"):
            tag.unmarshal_timeval(buffer, 5)
        with pytest.raises(TagError, match="is not what was asked"):
            tag.unmarshal_fixed(buffer, 5, len(data) + 1)
        assert bytes(buffer) == before


def test_a_number_is_not_read_beyond_its_payload() -> None:
    buffer = item(5, b"\x70\x11")  # eight nibbles are announced, three are there
    buffer.add(b"\x11\x11\x11\x11\x11")
    with pytest.raises(TagError, match="is not what was asked"):
        tag.unmarshal_int(buffer, 5)


def test_what_follows_a_number_in_its_payload_goes_with_it_as_in_c() -> None:
    buffer = item(5, b"\x0c" + b"junk" * 1000)
    assert tag.unmarshal_int(buffer, 5) == 12
    assert not buffer


def test_a_time_with_a_million_microseconds_is_another_second() -> None:
    scratch = Buffer()
    tag.encode_int(scratch, 3)
    tag.encode_int(scratch, 1_500_000)
    assert tag.unmarshal_timeval(item(1, bytes(scratch)), 1) == 4.5


def test_strings_are_utf_8_or_bytes_and_come_back_as_they_were() -> None:
    buffer = Buffer()
    tag.marshal_string(buffer, 1, b"\xff\x80a")
    text = tag.unmarshal_string(buffer, 1)
    assert text == "\udcff\udc80a"
    tag.marshal_string(buffer, 1, text)
    assert tag.unmarshal(buffer) == (1, b"\xff\x80a")
    tag.marshal_string(buffer, 1, "")
    assert tag.unmarshal_string(buffer, 1) == ""


def test_a_string_with_a_nul_is_not_sent_but_received() -> None:
    buffer = item(1, b"a\0b")
    assert tag.unmarshal_string(buffer, 1) == "a\0b"
    with pytest.raises(ValueError, match="string must not contain a NUL"):
        tag.marshal_string(buffer, 1, "a\0b")
    with pytest.raises(ValueError, match="string must be text that UTF-8 can encode"):
        tag.marshal_string(buffer, 1, "\ud800")
    assert not buffer


def test_arguments_that_c_would_cut_are_refused_by_name() -> None:
    buffer, other = Buffer(), Buffer(b"x")
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: tag.marshal(buffer, -1, b""), "tag must be from 0"),
        (lambda: tag.marshal(buffer, 2**32, b""), "tag must be from 0"),
        (lambda: tag.marshal_buffer(buffer, 2**32, other), "tag must be from 0"),
        (lambda: tag.marshal_buffer(other, 1, other), "data must be another buffer"),
        (lambda: tag.marshal_int(buffer, 1, 2**32), "number must be from 0"),
        (lambda: tag.marshal_int(buffer, 1, -1), "number must be from 0"),
        (lambda: tag.marshal_int64(buffer, 1, 2**64), "number must be from 0"),
        (lambda: tag.encode_int(buffer, 2**32), "number must be from 0"),
        (lambda: tag.encode_int64(buffer, -1), "number must be from 0"),
        (lambda: tag.marshal_timeval(buffer, 1, -1), "seconds must be from 0"),
        (lambda: tag.marshal_timeval(buffer, 1, 2**31), "seconds must be from 0"),
        (lambda: tag.unmarshal_int(other, -1), "need_tag must be from 0"),
        (lambda: tag.unmarshal_fixed(other, 1, -1), "length must be from 0"),
    ]
    for use, message in refused:
        with pytest.raises(ValueError, match=message):
            use()
    mistaken: list[tuple[Callable[[], Any], str]] = [
        (lambda: tag.marshal(b"", 1, b""), "buffer must be a Buffer"),  # type: ignore[arg-type]
        (lambda: tag.marshal(buffer, "a", b""), "tag must be an integer"),  # type: ignore[arg-type]
        (lambda: tag.marshal(buffer, 1, "a"), "data must be bytes"),  # type: ignore[arg-type]
        (lambda: tag.marshal_buffer(buffer, 1, b""), "data must be a Buffer"),  # type: ignore[arg-type]
        (lambda: tag.marshal_string(buffer, 1, 5), "string must be str"),  # type: ignore[arg-type]
        (lambda: tag.unmarshal(None), "buffer must be a Buffer"),  # type: ignore[arg-type]
    ]
    for use, message in mistaken:
        with pytest.raises(TypeError, match=message):
            use()
    assert not buffer
    assert bytes(other) == b"x"


def test_bytes_that_no_item_could_hold_stay_in_their_buffer() -> None:
    """One byte less, and they could be removed again."""
    size = 2**31 - 1
    unused = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with unused as memory, Buffer() as buffer, Buffer() as data:
        data.add_reference(memory)
        with pytest.raises(ValueError, match=f"data must be shorter than {size} bytes"):
            tag.marshal_buffer(buffer, 1, data)
        assert (len(buffer), len(data)) == (0, size)
        data.drain(1)
        tag.marshal_buffer(buffer, 1, data)
        tag.consume(buffer)
        assert not buffer


def test_a_frozen_buffer_is_left_as_it_is_and_says_so() -> None:
    buffer, data = Buffer(), Buffer(b"data")
    buffer.freeze(False)
    for put in (
        lambda: tag.marshal(buffer, 1, b"x"),
        lambda: tag.marshal(buffer, 1, b"x" * 5000),
        lambda: tag.marshal_int(buffer, 1, 2),
        lambda: tag.encode_int64(buffer, 1),
        lambda: tag.marshal_buffer(buffer, 1, data),
    ):
        with pytest.raises(
            LibeventError, match=r"evtag_.* failed: the buffer is frozen at its end"
        ):
            put()  # type: ignore[no-untyped-call]
    assert not buffer
    buffer.unfreeze(False)
    data.freeze(True)
    with pytest.raises(LibeventError, match="the other buffer is frozen at its front"):
        tag.marshal_buffer(buffer, 1, data)
    assert bytes(data) == b"data"
    buffer = item(1)
    buffer.freeze(True)
    before = bytes(buffer)
    for take in (tag.unmarshal, tag.consume, tag.peek, tag.unmarshal_header):
        with pytest.raises(LibeventError, match="frozen at its front"):
            take(buffer)
    assert bytes(buffer) == before


def test_a_callback_sees_each_item_come_and_go_as_a_whole() -> None:
    buffer, seen = Buffer(), []

    def changed(buffer: Buffer, info: BufferInfo) -> None:
        seen.append((info.n_added, info.n_deleted))

    buffer.add_cb(changed)
    tag.marshal(buffer, 300, b"x" * 100)
    tag.marshal_buffer(buffer, 300, Buffer(b"x" * 100))
    tag.marshal_timeval(buffer, 1, 5)
    tag.unmarshal(buffer)
    tag.consume(buffer)
    tag.unmarshal_timeval(buffer, 1)
    assert seen == [(104, 0), (104, 0), (4, 0), (0, 104), (0, 104), (0, 4)]


def test_a_callback_may_take_the_rest_and_close_the_buffer() -> None:
    buffer = item(1, b"one")
    tag.marshal(buffer, 2, b"two")
    rest = []

    def changed(buffer: Buffer, info: BufferInfo) -> None:
        if buffer:
            rest.append(tag.unmarshal(buffer))
        else:
            buffer.close()

    buffer.add_cb(changed)
    assert tag.unmarshal(buffer) == (1, b"one")
    assert rest == [(2, b"two")]
    assert buffer.closed


def test_what_a_callback_raises_comes_out() -> None:
    buffer = Buffer()

    def changed(buffer: Buffer, info: BufferInfo) -> None:
        raise KeyError("raised")

    callback = buffer.add_cb(changed)
    with pytest.raises(KeyError, match="raised"):
        tag.marshal(buffer, 1, b"x")
    with pytest.raises(KeyError, match="raised"):
        tag.unmarshal(buffer)
    callback.remove()
    assert not buffer


def test_a_callback_that_freezes_the_target_costs_no_bytes() -> None:
    buffer, data = Buffer(), Buffer(b"data")

    def changed(source: Buffer, info: BufferInfo) -> None:
        if not source:
            buffer.freeze(False)
            data.freeze(True)

    callback = data.add_cb(changed)
    with pytest.raises(LibeventError, match="frozen"):
        tag.marshal_buffer(buffer, 1, data)
    assert not buffer
    assert bytes(data) == b"data"
    callback.remove()


def test_items_are_put_into_and_taken_from_a_bufferevents_buffers(base: EventBase) -> None:
    one, two = BufferEvent.pair(base, BufferEventOption(0))
    taken: list[Any] = []

    def on_read(bev: BufferEvent) -> None:
        while bev.input:
            taken.append(tag.unmarshal(bev.input))

    two.on_read = on_read
    two.enable(2)
    tag.marshal(one.output, 1, b"one")
    tag.marshal_buffer(one.output, 2, Buffer(b"two"))
    base.loop()
    assert taken == [(1, b"one"), (2, b"two")]
    one.close()
    two.close()
    with pytest.raises(ClosedError):
        tag.unmarshal(two.input)


def test_a_closed_or_reserved_buffer_says_so() -> None:
    buffer = item(1)
    with buffer.reserve(5), pytest.raises(RuntimeError, match="memory is reserved"):
        tag.unmarshal(buffer)
    buffer.close()
    for use in (tag.unmarshal, tag.peek, lambda it: tag.marshal(it, 1, b"")):
        with pytest.raises(ClosedError):
            use(buffer)
    with pytest.raises(ClosedError):
        tag.marshal_buffer(Buffer(), 1, buffer)


def test_each_item_goes_to_one_of_several_threads() -> None:
    buffer, taken = Buffer(), []

    def take() -> None:
        while True:
            try:
                taken.append(tag.unmarshal(buffer)[0])
            except TagError:
                return

    for number in range(3000):
        tag.marshal(buffer, number, bytes([number % 256]) * (number % 50))
    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(3000))


def test_no_misuse_of_items_reads_or_frees_what_is_not_there() -> None:
    run_python(
        """
        from libevent_py import Buffer, LibeventError, tag

        def closing(buffer, info):
            if not buffer.closed:
                buffer.close()

        def draining(buffer, info):
            buffer.drain(1000)

        for change in (closing, draining):
            buffer, data = Buffer(), Buffer(b"x" * 5000)
            for _ in range(3):
                tag.marshal(buffer, 300, b"abc" * 50)
            buffer.add_cb(change)
            data.add_cb(change)
            tag.unmarshal(buffer)
            for use in (
                lambda: tag.marshal_buffer(buffer, 1, data),
                lambda: tag.marshal(buffer, 1, b"x" * 5000),
                lambda: tag.unmarshal_fixed(buffer, 300, 150),
                lambda: tag.unmarshal_int(buffer, 300),
            ):
                try:
                    use()
                except (LibeventError, ValueError):
                    pass
        """,
        valgrind=True,
    )
