"""The head of an answer, and how its body is framed."""

from __future__ import annotations

import http
import re
from email.utils import formatdate
from time import time

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
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


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
    parts = [status_line(status, reason) if line is None else line]
    declared = None
    lines = 2
    dated = False
    for name, value in headers:
        kind = KINDS.get(name)
        if kind is None:
            kind = kind_of(name)
        if kind:
            if kind == CONTENT_LENGTH:
                declared = length_in(value, declared)
                continue
            if kind == CONNECTION:
                if b"close" in value.lower():
                    keep_alive = False
                continue
            if kind == TRANSFER_ENCODING:
                continue
            dated = True
        parts += (name, b": ", value, b"\r\n")
        lines += 1
    if not dated:
        parts.append(_date if _dated == int(time()) else date())
        lines += 1
    if length is not None and method != "HEAD" and status not in BODILESS:
        mode = LENGTH
        if declared is not None and declared != length:
            raise ValueError(f"Content-Length is {declared}, but the body has {length} bytes")
        declared = length
    else:
        mode, declared = framed(method, version, status, declared, length)
        keep_alive = keep_alive and mode != UNTIL_CLOSE
    if declared is not None:
        parts.append(b"Content-Length: %d\r\n" % declared)
        lines += 1
    elif mode == CHUNKED:
        parts.append(b"Transfer-Encoding: chunked\r\n")
        lines += 1
    if not keep_alive:
        parts.append(b"Connection: close\r\n\r\n")
        lines += 1
    elif version != "1.1":
        parts.append(b"Connection: keep-alive\r\n\r\n")
        lines += 1
    else:
        parts.append(b"\r\n")
    data = b"".join(parts)
    # Any other CR, LF or NUL was in a value, and would forge a header.
    if not data.count(b"\n") == data.count(b"\r") == lines or b"\0" in data:
        check_values(headers, reason)
    return data, mode, declared or 0, keep_alive


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


def check_values(headers: Headers, reason: bytes | None) -> None:
    """Raise `ValueError` for what has a line's end in it."""
    for name, value in headers:
        if any(byte in value for byte in b"\r\n\0"):
            raise ValueError(f"the header {name!r} must be one line without NUL, not {value!r}")
    raise ValueError(f"the reason must be one line without NUL, not {reason!r}")
