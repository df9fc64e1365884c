"""The head of an answer, and how its body is framed."""

from __future__ import annotations

import contextlib
import http
import re
from email.utils import formatdate
from time import time
from typing import Any, NamedTuple

from libevent_py.serve.engine import Headers

#: How a body is framed: there is none, so many bytes, chunks, or all up to the end.
NOTHING, LENGTH, CHUNKED, UNTIL_CLOSE = range(4)

#: The statuses of answers without a body.
BODILESS = (204, 304)

#: What the names of some headers mean here; all others, once they have been checked, are PLAIN.
PLAIN, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, DATE = range(5)
SPECIAL = {
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"keep-alive": CONNECTION,
    b"date": DATE,
}
KINDS: dict[bytes, int] = dict(SPECIAL)

#: How many names are remembered: an application may make up as many as it likes.
MOST_KINDS = 1024

#: Headers that were sent lately, by what the application gave; and how many at most.
BLOCKS: dict[Any, Block] = {}
MOST_BLOCKS = 256

#: What would begin a line of its own.
FORGING = re.compile(rb"[\r\n\0]")
NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: What Host may be, and a target that is an absolute URI.
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?")
ABSOLUTE = re.compile(rb"https?://([^/?#@]+)(/[^#]*|\?[^#]*)?", re.IGNORECASE)

LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode())
    for status in http.HTTPStatus
    if status >= 200
}

_dated = -1
_date = b""


def date() -> bytes:
    """Return a Date header for now."""
    global _dated, _date
    now = int(time())
    if now != _dated:
        _date = b"Date: %b\r\n" % formatdate(now, usegmt=True).encode()
        _dated = now
    return _date


def as_bytes(part: Any) -> bytes:
    """Return *part*, which an application sends, as bytes: it must have a buffer, as no int has."""
    try:
        return bytes(memoryview(part))
    except TypeError:
        raise TypeError(f"what is sent must be bytes, not {part!r}") from None


def kind_of(name: bytes) -> int:
    """Check *name*, remember it, and return what it means here."""
    if not isinstance(name, bytes):
        raise TypeError(f"a header's name must be bytes, not {name!r}")
    if NAME.fullmatch(name) is None:
        raise ValueError(f"a header's name can't be {name!r}")
    kind = SPECIAL.get(name.lower(), PLAIN)
    if len(KINDS) < MOST_KINDS:
        KINDS[name] = kind
    return kind


def length_in(value: bytes, before: int | None) -> int:
    """Return the number that a Content-Length is, which has to be the same as one *before*."""
    digits = value.strip(b" \t")
    if not digits.isdigit():
        raise ValueError(f"Content-Length must be a number, not {value!r}")
    number = int(digits)
    if before is not None and number != before:
        raise ValueError(f"Content-Length is both {before} and {number}")
    return number


def status_line(status: int, reason: bytes | None) -> bytes:
    """Return the first line of an answer with *status*, whose usual reason is for None."""
    if not isinstance(status, int) or not 200 <= status <= 999:
        raise ValueError(f"an answer's status must be from 200 to 999, not {status!r}")
    if reason is None:
        return LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    if FORGING.search(reason):
        raise ValueError(f"the reason must be one line without NUL, not {reason!r}")
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


class Block(NamedTuple):
    """An application's headers, checked and joined."""

    #: Those that are sent as they are, a line each.
    lines: bytes
    #: What Content-Length says.
    length: int | None
    #: Whether the connection is to be closed, and whether there is a Date.
    closes: bool
    dated: bool


def block(headers: Headers) -> Block:
    """Check *headers* and join them; raise `ValueError` or `TypeError` for what can't be sent."""
    parts: list[bytes] = []
    length, closes, dated = None, False, False
    for name, value in headers:
        kind = KINDS.get(name)
        if kind is None:
            kind = kind_of(name)
        if FORGING.search(value):
            raise ValueError(f"the header {name!r} must be one line without NUL, not {value!r}")
        if kind == CONTENT_LENGTH:
            length = length_in(value, length)
        elif kind == CONNECTION:
            closes = closes or b"close" in value.lower()
        elif kind != TRANSFER_ENCODING:
            dated = dated or kind == DATE
            parts += (name, b": ", value, b"\r\n")
    return Block(b"".join(parts), length, closes, dated)


def remembered(headers: Headers) -> Block:
    """Return what `block` does: many an answer has the same headers as one before."""
    made = block(headers)
    with contextlib.suppress(TypeError):  # they can't be a key, as a list can't
        key = tuple(headers)
        if len(BLOCKS) >= MOST_BLOCKS:
            BLOCKS.clear()
        BLOCKS[key] = made
    return made


# hot: once for each answer.
def head(
    method: str,
    version: str,
    keep_alive: bool,
    status: int,
    headers: Headers,
    reason: bytes | None,
    length: int | None,
) -> tuple[bytes, int, int, bool]:
    """Return the head of an answer, how its body is framed, its length, and whether to go on.

    *length* is that of the body, or None if it isn't known yet. Raises `ValueError` and `TypeError`
    for what can't be sent.
    """
    line = LINES.get(status) if reason is None else None
    if line is None:
        line = status_line(status, reason)
    try:
        found = BLOCKS.get(tuple(headers))
    except TypeError:
        found = None
    if found is None:
        found = remembered(headers)
    lines, declared, closes, dated = found
    if closes:
        keep_alive = False
    stamp = b"" if dated else _date if _dated == int(time()) else date()
    if length is not None and method != "HEAD" and status not in BODILESS:
        if declared is not None and declared != length:
            raise ValueError(f"Content-Length is {declared}, but the body has {length} bytes")
        if keep_alive and version == "1.1":
            data = b"%b%b%bContent-Length: %d\r\n\r\n" % (line, lines, stamp, length)
            return data, LENGTH, length, True
        mode, declared = LENGTH, length
    else:
        mode, declared = framed(method, version, status, declared, length)
        keep_alive = keep_alive and mode != UNTIL_CLOSE
    parts = [line, lines, stamp]
    if declared is not None:
        parts.append(b"Content-Length: %d\r\n" % declared)
    elif mode == CHUNKED:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    if not keep_alive:
        parts.append(b"Connection: close\r\n")
    elif version != "1.1":
        parts.append(b"Connection: keep-alive\r\n")
    return b"%b\r\n" % b"".join(parts), mode, declared or 0, keep_alive


def framed(
    method: str, version: str, status: int, declared: int | None, length: int | None
) -> tuple[int, int | None]:
    """Return how a body is framed that isn't known yet, or isn't sent; and its Content-Length."""
    if status == 204:
        return NOTHING, None
    if method == "HEAD" or status == 304:
        return NOTHING, declared if declared is not None or status == 304 else length or None
    if declared is not None:
        return LENGTH, declared
    return (CHUNKED if version == "1.1" else UNTIL_CLOSE), None
