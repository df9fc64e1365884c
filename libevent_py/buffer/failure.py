"""Why a call on a buffer has failed."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from libevent_py import errors
from libevent_py._core.handle import Handle
from libevent_py._ffi import ffi, lib

if TYPE_CHECKING:
    pass

END, FRONT = range(2)
WHERE = "end", "front"


def failure(
    function: Callable[..., object], *ends: tuple[Handle, int], fd: int | None = None
) -> Exception:
    """Return the exception that says why *function* failed.

    Either one of *ends* is frozen, or there is no memory; with *fd*, errno says why.
    """
    reason = ffi.errno
    for owner, (buffer, end) in zip(("the", "the other"), ends, strict=False):
        if lib.evpy_buffer_frozen(buffer.pointer, end):
            return errors.LibeventError(
                f"{errors.name_of(function)} failed: {owner} buffer is frozen at its {WHERE[end]}"
            )
    ffi.errno = errno.ENOMEM if fd is None else reason
    return errors.failed(function, "" if fd is None else f"fd {fd}")


def result_of(function: Callable[..., int], *arguments: object) -> int:
    """Call *function*; return -2 instead of -1, for which `errors.call` would look at errno."""
    result = function(*arguments)
    return -2 if result == -1 else result
