"""Framing: how a message says how long its body is, and errors for headers that get it wrong.

If the length is wrong, the peer takes the rest of the body for the next message. libevent sends
headers as they are, so it only gets headers that fit the body (`_c/http_framing.c`).
"""

from __future__ import annotations

from libevent_py._ffi import lib
from libevent_py.http.headers import Headers

#: What C returns for headers that don't fit the body.
MISFRAMED = lib.EVPY_MISFRAMED

#: How the body of a request is framed, by C's numbers; WHOLE is one that isn't sent in parts.
WHOLE, LENGTH, CHUNKED = range(3)

#: What is wrong with headers by themselves, by C's number.
PROBLEMS = {
    lib.EVPY_FRAMING_LENGTHS: "Content-Length must be there once, not as {lengths}",
    lib.EVPY_FRAMING_NUMBER: "Content-Length must be a number of bytes, not {lengths}",
    lib.EVPY_FRAMING_CODING: (
        "Transfer-Encoding must be 'chunked', once, not {codings}: say by Content-Encoding how the "
        "body is encoded"
    ),
    lib.EVPY_FRAMING_BOTH: (
        "Content-Length and Transfer-Encoding can't be there together: a peer could take either"
    ),
}


def misframed(headers: Headers, size: int) -> ValueError:
    """Return the exception that says why *headers* don't fit a body of *size* bytes."""
    lengths, codings = headers.get_all("Content-Length"), headers.get_all("Transfer-Encoding")
    text = PROBLEMS.get(lib.evpy_http_frame_problem(headers.pointer))
    if text is not None:
        return ValueError(text.format(lengths=_listed(lengths), codings=_listed(codings)))
    return ValueError(
        f"Content-Length must be {size}, the length of the body, not {_listed(lengths)}: leave it "
        "out, and it is added"
    )


def _listed(values: list[str]) -> str:
    return " and ".join(map(repr, values))


def in_parts(headers: Headers) -> tuple[int, int | None]:
    """Return how *headers* frame a body that is sent in parts, and its length if that is known.

    If they don't say, the header Transfer-Encoding is added. Raises `ValueError` for headers that
    don't fit such a body.
    """
    if "Expect" in headers:
        raise ValueError("output_headers must have no Expect when the body is sent in on_write")
    lengths, codings = headers.get_all("Content-Length"), headers.get_all("Transfer-Encoding")
    if lengths and codings:
        raise ValueError("output_headers must not have both Content-Length and Transfer-Encoding")
    if lengths:
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise ValueError(f"Content-Length must be one number of bytes, not {lengths!r}")
        return LENGTH, int(lengths[0])
    if not codings:
        headers["Transfer-Encoding"] = "chunked"
    elif [coding.lower() for coding in codings] != ["chunked"]:
        raise ValueError(f"Transfer-Encoding must be chunked, not {codings!r}")
    return CHUNKED, None
