"""Targets without a loop: URIs, queries, headers, addresses, tags, messages and buffers."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable
from typing import Any

from libevent_py import (
    Buffer,
    EolStyle,
    Headers,
    TagError,
    Uri,
    UriFlag,
    decode_uri,
    encode_uri,
    htmlescape,
    parse_query,
    parse_query_str,
    tag,
    uridecode,
    uriencode,
    util,
)
from tests.kit.parsers.checked import Fault
from tests.kit.parsers.inputs import Choices
from tests.kit.rpc_messages import Msg


def must(holds: object, what: str) -> None:
    """Raise a `Fault` unless it *holds*."""
    if not holds:
        raise Fault(what)


def uris(data: bytes) -> None:
    """Parse a URI, a query and escapes; what has been taken can be written and taken again."""
    choices = Choices(data)
    flags = UriFlag(choices.byte() & 1)
    text = choices.left
    with contextlib.suppress(ValueError), Uri.parse(text, flags) as uri:
        _again(uri, flags)
    for parse in (parse_query, parse_query_str):
        with contextlib.suppress(ValueError):
            _check_headers(parse(text))
    must(uridecode(uriencode(text)) == text, "an escaped text is not the same")
    must(uridecode(uriencode(text, space_to_plus=True), decode_plus=True) == text, "with plus")
    with contextlib.suppress(ValueError):
        decoded = uridecode(text)
        must(len(decoded) <= len(text), "a decoded text is longer")
        must(len(decode_uri(text)) == len(decoded), "two ways to decode differ in length")
        must(decode_uri(encode_uri(text)) == text, "encode_uri")
        escaped = htmlescape(text)
        must(not re.search(rb"[<>\"']", escaped), "htmlescape leaves something")


def _again(uri: Uri, flags: UriFlag) -> None:
    with uri.copy() as same:
        must(same == uri, "a copy differs")
    for part in ("scheme", "userinfo", "host", "port", "path", "query", "fragment"):
        value = getattr(uri, part)
        setattr(uri, part, value)  # what has been parsed may be set
        must(getattr(uri, part) == value, f"{part} is not what was set")
    text = str(uri)
    if uri.host is not None:
        with Uri.parse(text, flags) as other:
            must(other == uri, f"{text!r} is parsed to {other!r}, not {uri!r}")


def _check_headers(headers: Headers) -> None:
    items = headers.items()
    must(len(headers) == len(items), "as many as there are")
    for name in headers:
        must(headers.get(name) == headers.get_all(name)[0], "the first of a name")
        must(name in headers, "a name is there")
    for name in [*headers]:
        headers.pop(name, None)
    must(not headers, "all are gone")


def headers(data: bytes) -> None:
    """Put names and values into headers, line by line; what is taken is there as it was."""
    taken: list[tuple[str, str]] = []
    with Headers() as found:
        for line in data.split(b"\n"):
            name, _, value = line.partition(b":")
            try:
                found.add(name, value)
            except ValueError:
                continue
            taken.append((name.decode("latin-1"), value.decode("latin-1")))
        must(found.items() == taken, "what was added is there")
        with Headers(taken) as same:
            must(same == found, "the same twice")
        for name in data.split(b":"):
            for use in (found.get, found.get_all, found.__contains__):
                with contextlib.suppress(ValueError):
                    use(name)
        _check_headers(found)


def addresses(data: bytes) -> None:
    """Parse addresses, with and without a port or a scope; what is taken can be written."""
    for text in data.split(b"\n")[:20]:
        for family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(ValueError):
                packed = util.inet_pton(family, text)
                shown = util.inet_ntop(family, packed)
                must(util.inet_pton(family, shown) == packed, f"{shown!r} is another address")
                must(socket.inet_pton(family, shown) == packed, f"{shown!r} to the C library")
            with contextlib.suppress(ValueError):
                util.inet_pton_scope(family, text)
        try:
            address = util.parse_sockaddr_port(text)
        except ValueError:
            continue
        must(util.sockaddr_cmp(address, address) == 0, f"{address!r} is not itself")


STYLES: dict[EolStyle, re.Pattern[bytes]] = {
    EolStyle.ANY: re.compile(rb"[\r\n]+"),
    EolStyle.CRLF: re.compile(rb"\r?\n"),
    EolStyle.CRLF_STRICT: re.compile(rb"\r\n"),
    EolStyle.LF: re.compile(rb"\n"),
    EolStyle.NUL: re.compile(rb"\0"),
}


def _filled(pieces: list[bytes], how: int) -> Buffer:
    """Return a buffer of *pieces*, each in a chain of its own unless they are copied."""
    buffer = Buffer()
    for number, piece in enumerate(pieces):
        if how & 1 and number % 2:
            with Buffer(piece) as other:
                buffer.add_buffer(other)
        elif how & 2:
            buffer.add(piece)
        else:
            buffer.add_reference(piece)
        if how & 4:
            buffer.prepend(b"xy")
            buffer.drain(2)
    return buffer


def buffers(data: bytes) -> None:
    """Search and read lines in a buffer of many chains, and compare with what `re` finds."""
    choices = Choices(data)
    how, size, start = choices.byte(), choices.byte() % 8, choices.byte()
    pieces = choices.pieces()
    whole = b"".join(pieces)
    start = min(start, len(whole))
    style = list(STYLES)[how % len(STYLES)]
    with _filled(pieces, how >> 4) as buffer:
        needle = whole[-size:] if how & 8 else whole[:size]
        at = buffer.search(needle, start)
        if needle:
            must(at == whole.find(needle, start), f"search finds {needle!r} at {at}")
            end = len(whole) - len(whole) // 3
            if start <= end:
                at = buffer.search(needle, start, end)
                must(at == whole.find(needle, start, end), f"{needle!r} before {end} at {at}")
        found = STYLES[style].search(whole, start)
        expected = (found.start(), len(found[0])) if found else (-1, 0)
        must(buffer.search_eol(start, style) == expected, f"search_eol, not {expected}")
        left = whole
        while (line := buffer.readln(style)) is not None:
            match = STYLES[style].search(left)
            must(match and left[: match.start()] == line, f"readln returns {line!r}")
            assert match is not None
            left = left[match.end() :]
        must(not STYLES[style].search(left), "a line is left")
        must(bytes(buffer) == left, "the rest is left")


#: How each kind of item is taken.
TAKERS: list[Callable[[Buffer, int], Any]] = [
    lambda buffer, _: tag.unmarshal(buffer),
    lambda buffer, _: tag.unmarshal_header(buffer),
    lambda buffer, _: tag.consume(buffer),
    tag.unmarshal_int,
    tag.unmarshal_int64,
    tag.unmarshal_string,
    lambda buffer, number: tag.unmarshal_fixed(buffer, number, 4),
    tag.unmarshal_timeval,
    lambda buffer, _: tag.peek(buffer),
    lambda buffer, _: tag.peek_length(buffer),
    lambda buffer, _: tag.payload_length(buffer),
]


def tags(data: bytes) -> None:
    """Take items one after another; one that isn't taken leaves the buffer as it was."""
    choices = Choices(data)
    how, kinds = choices.byte(), [choices.byte() for _ in range(4)]
    with _filled(choices.pieces(), how) as buffer:
        for kind in kinds * 4:
            before = bytes(buffer)
            number = 1
            with contextlib.suppress(TagError):
                number = tag.peek(buffer)
            take = TAKERS[kind % len(TAKERS)]
            try:
                take(buffer, number if kind < 128 else 1)
            except TagError:
                must(bytes(buffer) == before, "an item that wasn't taken has gone")
                continue
            must(before.endswith(bytes(buffer)), "what is left was there")


def messages(data: bytes) -> None:
    """Decode a message; one that is taken can be written and taken again."""
    choices = Choices(data)
    how = choices.byte()
    with _filled(choices.pieces(), how) as buffer:
        try:
            message = Msg.unmarshal(buffer)
        except TagError:
            return
        must(not buffer, "nothing is left of a message")
    must(Msg.unmarshal(bytes(message)) == message, f"{message!r} is another")
    repr(message)
