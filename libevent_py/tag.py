"""``evtag_``: items in a buffer, each with a tag, a number that says what it is, and a length.

Unlike in C, an item is added or removed as a whole, with one call of the buffer's callbacks, or
nothing is changed. What isn't well-formed raises `TagError`, even where libevent has a
vulnerability (R7). Tags and lengths are numbers of 32 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, SupportsFloat

from libevent_py._core import convert
from libevent_py._core.convert import Octets
from libevent_py._core.names import name_of
from libevent_py._core.references import references, release
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.buffer import INT_MAX, Buffer, checked
from libevent_py.buffer.failure import END, FRONT, failure
from libevent_py.errors import TagError

if TYPE_CHECKING:
    from libevent_py._ffi import CData

LARGEST = 2**32 - 1
LARGEST64 = 2**64 - 1

#: Stands for any length.
ANY = LARGEST


def init() -> None:
    """Do nothing, as in C; old programs call it. Wraps ``evtag_init``."""
    lib.evtag_init()


# Adding items.


def marshal(buffer: Buffer, tag: int, data: Octets) -> None:
    """Append *data*, up to 2 GiB of bytes, as an item. Wraps ``evtag_marshal``."""
    octets, size = convert.octets(data)
    if size >= INT_MAX:
        raise ValueError(f"data must be shorter than {INT_MAX} bytes, not {size}")
    _put(buffer, lib.evtag_marshal, lib.EVPY_TAG_BYTES, octets, tag=_tag(tag), length=size)


def marshal_buffer(buffer: Buffer, tag: int, data: Buffer) -> None:
    """Move all bytes of *data*, another buffer, to the end as one item, without copying.

    Wraps ``evtag_marshal_buffer``.
    """
    target, source, tag = checked(buffer), checked(data, "data"), _tag(tag)
    if source.pointer == target.pointer:
        raise ValueError("data must be another buffer")
    result = target._with(source, lib.evpy_tag_marshal_buffer, tag)
    if result == lib.EVPY_TAG_PAYLOAD:
        raise ValueError(f"data must be shorter than {INT_MAX} bytes, not {len(source)}")
    if result:
        raise failure(lib.evtag_marshal_buffer, (target, END), (source, FRONT))


def marshal_int(buffer: Buffer, tag: int, number: int) -> None:
    """Append *number*, unsigned with 32 bits, as an item. Wraps ``evtag_marshal_int``."""
    number = convert.integer(number, "number", 0, LARGEST)
    _put(buffer, lib.evtag_marshal_int, lib.EVPY_TAG_INT, tag=_tag(tag), number=number)


def marshal_int64(buffer: Buffer, tag: int, number: int) -> None:
    """Append *number*, unsigned with 64 bits, as an item. Wraps ``evtag_marshal_int64``."""
    number = convert.integer(number, "number", 0, LARGEST64)
    _put(buffer, lib.evtag_marshal_int64, lib.EVPY_TAG_INT64, tag=_tag(tag), number=number)


def marshal_string(buffer: Buffer, tag: int, string: str | bytes) -> None:
    """Append *string*, text in UTF-8 or bytes, as an item.

    Raises `ValueError` for a NUL, at which C would end the string. Lone surrogates become the bytes
    that `unmarshal_string` made them of. Wraps ``evtag_marshal``. Stands for
    ``evtag_marshal_string``.
    """
    marshal(buffer, tag, convert.string(_encoded(string), "string"))


def marshal_timeval(buffer: Buffer, tag: int, seconds: SupportsFloat) -> None:
    """Append *seconds*, from 0 to 2**31 - 1, as an item with microseconds.

    Wraps ``evtag_marshal_timeval``.
    """
    time = convert.timeval(seconds, "seconds")
    _put(buffer, lib.evtag_marshal_timeval, lib.EVPY_TAG_TIMEVAL, tag=_tag(tag), time=time[0])


def encode_int(buffer: Buffer, number: int) -> None:
    """Append *number*, unsigned with 32 bits, without a tag. Wraps ``evtag_encode_int``."""
    number = convert.integer(number, "number", 0, LARGEST)
    _put(buffer, lib.evtag_encode_int, lib.EVPY_TAG_BARE_INT, number=number)


def encode_int64(buffer: Buffer, number: int) -> None:
    """Append *number*, unsigned with 64 bits, without a tag. Wraps ``evtag_encode_int64``."""
    number = convert.integer(number, "number", 0, LARGEST64)
    _put(buffer, lib.evtag_encode_int64, lib.EVPY_TAG_BARE_INT64, number=number)


# Looking at the first item.


def peek(buffer: Buffer) -> int:
    """Return the tag of the first item; only the tag has to be in *buffer* already.

    Wraps ``evtag_peek``.
    """
    return int(_look(buffer, lib.evtag_peek, False)[1].tag)


def peek_length(buffer: Buffer) -> int:
    """Return the length in bytes of the whole first item: tag, length and payload.

    The payload need not be there yet. Wraps ``evtag_peek_length``.
    """
    header, item = _look(buffer, lib.evtag_peek_length, True)
    return int(header + item.length)


def payload_length(buffer: Buffer) -> int:
    """Return the length in bytes of the first item's payload, which need not be there yet.

    Wraps ``evtag_payload_length``.
    """
    return int(_look(buffer, lib.evtag_payload_length, True)[1].length)


# Removing items.


def unmarshal(buffer: Buffer) -> tuple[int, bytes]:
    """Remove the first item, and return its tag and payload. Wraps ``evtag_unmarshal``."""
    return _payload(buffer, lib.evtag_unmarshal, -1)


def unmarshal_header(buffer: Buffer) -> tuple[int, int]:
    """Remove and return the tag and length of the first item, and leave its payload.

    Wraps ``evtag_unmarshal_header``.
    """
    item = _take(buffer, lib.evtag_unmarshal_header, lib.EVPY_TAG_HEADER, -1)
    return int(item.tag), int(item.length)


def consume(buffer: Buffer) -> None:
    """Discard the first item. Wraps ``evtag_consume``."""
    _take(buffer, lib.evtag_consume, lib.EVPY_TAG_WHOLE, -1)


def unmarshal_int(buffer: Buffer, need_tag: int) -> int:
    """Remove the first item, a number of 32 bits with the tag *need_tag*, and return the number.

    Wraps ``evtag_unmarshal_int``.
    """
    return int(_take(buffer, lib.evtag_unmarshal_int, lib.EVPY_TAG_INT, _need(need_tag)).number)


def unmarshal_int64(buffer: Buffer, need_tag: int) -> int:
    """Remove the first item, a number of 64 bits with the tag *need_tag*, and return the number.

    Wraps ``evtag_unmarshal_int64``.
    """
    return int(_take(buffer, lib.evtag_unmarshal_int64, lib.EVPY_TAG_INT64, _need(need_tag)).number)


def unmarshal_fixed(buffer: Buffer, need_tag: int, length: int) -> bytes:
    """Remove the first item, with the tag *need_tag*, and return its payload of *length* bytes.

    Wraps ``evtag_unmarshal_fixed``.
    """
    length = convert.integer(length, "length", 0, INT_MAX)
    return _payload(buffer, lib.evtag_unmarshal_fixed, _need(need_tag), length)[1]


def unmarshal_string(buffer: Buffer, need_tag: int) -> str:
    """Remove the first item, with the tag *need_tag*, and return its payload as text in UTF-8.

    Bytes that are not valid UTF-8 become lone surrogates, as in `os.fsdecode`. NULs are kept; C's
    string would end there. Wraps ``evtag_unmarshal_string``.
    """
    payload = _payload(buffer, lib.evtag_unmarshal_string, _need(need_tag))[1]
    return payload.decode("utf-8", "surrogateescape")


def unmarshal_timeval(buffer: Buffer, need_tag: int) -> float:
    """Remove the first item, a time with the tag *need_tag*, and return it in seconds.

    Wraps ``evtag_unmarshal_timeval``.
    """
    item = _take(buffer, lib.evtag_unmarshal_timeval, lib.EVPY_TAG_TIMEVAL, _need(need_tag))
    return convert.from_timeval(item.time)


def _tag(tag: int) -> int:
    return convert.integer(tag, "tag", 0, LARGEST)


def _need(need_tag: int) -> int:
    return convert.integer(need_tag, "need_tag", 0, LARGEST)


def _encoded(string: str | bytes) -> str | bytes:
    try:
        return string.encode("utf-8", "surrogateescape") if isinstance(string, str) else string
    except UnicodeEncodeError:
        return string  # `convert.string` will say what is wrong


def _put(
    buffer: Buffer,
    function: Callable[..., object],
    kind: int,
    payload: CData | bytes = ffi.NULL,
    **item: object,
) -> None:
    """Append an item as *function* does."""
    target = checked(buffer)
    made = ffi.new("struct evpy_item *", item)
    if target._call(lib.evpy_tag_marshal, target.pointer, kind, made, payload):
        raise failure(function, (target, END))


def _look(buffer: Buffer, function: Callable[..., object], lengths: bool) -> tuple[int, CData]:
    """Return the size of the first item's header, and its content."""
    source = _readable(buffer)
    item = ffi.new("struct evpy_item *")
    header = lib.evpy_tag_peek(source.pointer, lengths, item)
    if header < 0:
        raise _failed(function, source, header, item)
    return header, item


def _take(buffer: Buffer, function: Callable[..., object], kind: int, need: int) -> CData:
    """Remove the first item as *function* does, and return it."""
    item = ffi.new("struct evpy_item *")
    _unmarshal(buffer, function, kind, need, item)
    return item


def _payload(
    buffer: Buffer, function: Callable[..., object], need: int, length: int = ANY
) -> tuple[int, bytes]:
    """Remove the first item as *function* does, and return its tag and payload."""
    item = ffi.new("struct evpy_item *", {"length": length})
    try:
        _unmarshal(buffer, function, lib.EVPY_TAG_BYTES, need, item)
        return int(item.tag), bytes(ffi.buffer(item.payload, item.length))
    finally:
        lib.free(item.payload)


def _unmarshal(
    buffer: Buffer, function: Callable[..., object], kind: int, need: int, item: CData
) -> None:
    source = _readable(buffer)
    result = source._call(lib.evpy_tag_unmarshal, source.pointer, kind, need, item)
    if references:
        release()
    if result:
        raise _failed(function, source, result, item, need)


def _readable(buffer: Buffer) -> Buffer:
    source = checked(buffer)
    if not source._plain:
        source.copyout(0)  # raises if some of the bytes may not be in memory (D9)
    return source


def _failed(
    function: Callable[..., object], source: Buffer, result: int, item: CData, need: int = -1
) -> Exception:
    """Return the exception for C's *result*."""
    why = {
        lib.EVPY_TAG_MALFORMED: "the buffer doesn't begin with a tag and a length",
        lib.EVPY_TAG_INCOMPLETE: f"the buffer ends within a payload of {item.length} bytes",
        lib.EVPY_TAG_OTHER: f"the tag is {item.tag}, not {need}",
        lib.EVPY_TAG_PAYLOAD: f"the payload of {item.length} bytes is not what was asked for",
    }.get(result)
    return TagError(f"{name_of(function)}: {why}") if why else failure(function, (source, FRONT))
