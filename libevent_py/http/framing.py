"""How a message says how long its body is, and what is wrong where it says so itself.

Whoever gets that wrong has the rest of the body taken for the next message. So libevent, which
sends headers as they are, is asked to send only those that fit the body (`_c/http_framing.c`).
"""

from __future__ import annotations

from libevent_py._ffi import lib
from libevent_py.http.headers import Headers

#: What C returns for headers that don't fit the body.
MISFRAMED = lib.EVPY_MISFRAMED

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
    """Return the exception that tells why *headers* don't fit a body of *size* bytes."""
    lengths, codings = headers.get_all("Content-Length"), headers.get_all("Transfer-Encoding")
    text = PROBLEMS.get(lib.evpy_http_frame_problem(headers.pointer))
    if text is not None:
        return ValueError(text.format(lengths=_listed(lengths), codings=_listed(codings)))
    return ValueError(
        f"Content-Length must be {size}, as the body is, not {_listed(lengths)}: it is right where "
        "it is left out"
    )


def _listed(values: list[str]) -> str:
    return " and ".join(map(repr, values))
