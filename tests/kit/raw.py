"""What tests of the raw layer share: functions that C calls, and what a buffer of C's has in it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from libevent_py import ffi, lib

#: As in C: all that there is.
ALL = -1


class FromC:
    """Makes functions callable by C, and keeps them; `check` raises what one of them has raised."""

    def __init__(self) -> None:
        self._kept: list[Any] = []
        self._raised: list[BaseException] = []

    def __call__(self, kind: str, error: Any = None) -> Callable[[Callable[..., Any]], Any]:
        """Return a decorator for a function of C's type *kind*; C gets *error* if it raises."""

        def decorate(function: Callable[..., Any]) -> Any:
            callback = ffi.callback(kind, function, error=error, onerror=self._note)
            self._kept.append(callback)
            return callback

        return decorate

    def _note(self, kind: type[BaseException], error: BaseException, where: Any) -> None:
        traceback.print_exception(kind, error, where)
        self._raised.append(error)

    def check(self) -> None:
        """Raise what was raised first, if anything was."""
        if self._raised:
            raise self._raised[0]


def evbuffer(*pieces: bytes) -> Any:
    """Return a ``struct evbuffer *`` that has each of *pieces* in a chain of its own."""
    buffer = ffi.gc(lib.evbuffer_new(), lib.evbuffer_free)
    for piece in pieces:
        other = ffi.gc(lib.evbuffer_new(), lib.evbuffer_free)
        add(other, piece)
        assert lib.evbuffer_add_buffer(buffer, other) == 0
    return buffer


def add(buffer: Any, data: bytes) -> None:
    """Append *data*."""
    assert lib.evbuffer_add(buffer, data, len(data)) == 0


def prepend(buffer: Any, data: bytes) -> None:
    """Put *data* before what is there."""
    assert lib.evbuffer_prepend(buffer, data, len(data)) == 0


def add_reference(buffer: Any, data: Any, size: int | None = None) -> None:
    """Append *data*, which must stay alive, as a chain of its own: also if it has no bytes."""
    length = len(data) if size is None else size
    assert lib.evbuffer_add_reference(buffer, data, length, ffi.NULL, ffi.NULL) == 0


def length(buffer: Any) -> int:
    """Return how many bytes there are."""
    return int(lib.evbuffer_get_length(buffer))


def remove(buffer: Any, size: int) -> bytes:
    """Remove up to *size* bytes from the front, and return them."""
    memory = ffi.new("char[]", size)
    count = lib.evbuffer_remove(buffer, memory, size)
    assert count >= 0
    return bytes(ffi.buffer(memory, count))


def peek(buffer: Any, size: int = ALL, start: Any = ffi.NULL, room: int = 20) -> list[Any]:
    """Return the number of pieces of memory that *size* bytes need, and as many as have *room*."""
    vector = ffi.new("struct evbuffer_iovec[]", max(room, 1))
    count = lib.evbuffer_peek(buffer, size, start, vector if room else ffi.NULL, room)
    filled = vector[0 : max(min(count, room), 0)]
    assert not any(piece.iov_base for piece in vector[len(filled) : max(room, 1)])
    pieces = [
        piece.iov_len and bytes(ffi.buffer(piece.iov_base, piece.iov_len)) for piece in filled
    ]
    return [count, *(piece or b"" for piece in pieces)]


def copied(buffer: Any) -> bytes:
    """Return a copy of all bytes, which must be those of the chains as well."""
    size = length(buffer)
    memory = ffi.new("char[]", size + 1)
    assert lib.evbuffer_copyout(buffer, memory, size + 1) == size
    content = bytes(ffi.buffer(memory, size))
    assert shown(buffer) == content
    return content


def shown(buffer: Any) -> bytes:
    """Return the bytes of the chains, also of a buffer that is frozen at its start."""
    count, *pieces = peek(buffer, room=length(buffer) + 20)
    assert count == len(pieces)
    content = b"".join(pieces)
    assert len(content) == length(buffer)
    return content


def pulled(buffer: Any, size: int = ALL) -> bytes | None:
    """Return the first *size* bytes, now in one piece of memory; None for NULL."""
    before = copied(buffer)
    memory = lib.evbuffer_pullup(buffer, size)
    assert copied(buffer) == before
    if not memory:
        return None
    return bytes(ffi.buffer(memory, length(buffer) if size == ALL else size))


def position(buffer: Any, where: int) -> Any:
    """Return a ``struct evbuffer_ptr *`` that is at *where*."""
    pointer = ffi.new("struct evbuffer_ptr *")
    assert lib.evbuffer_ptr_set(buffer, pointer, where, lib.EVBUFFER_PTR_SET) == 0
    return pointer


def readln(buffer: Any, style: int) -> bytes | None:
    """Remove a line and return it, or None if there is none; C ends it with a NUL."""
    size = ffi.new("size_t *")
    line = lib.evbuffer_readln(buffer, size, style)
    if not line:
        return None
    try:
        assert line[size[0]] == b"\0"
        return bytes(ffi.buffer(line, size[0]))
    finally:
        lib.free(line)


def timeval(seconds: float) -> Any:
    """Return a ``struct timeval *``."""
    return ffi.new("struct timeval *", (int(seconds), int(seconds % 1 * 1e6)))


def has_assertions() -> bool:
    """Tell whether the libevent in use was built with its assertions."""
    maps = Path("/proc/self/maps").read_text()
    library = re.search(r"/\S*/libevent_core\S*", maps)
    assert library, maps
    return b"Assertion %s failed" in Path(library[0]).read_bytes()
