"""The filters that bytes pass through between a bufferevent and the one that it stands on.

C's filter takes a reference to what it stands on, and that one's callbacks. It never gets
CLOSE_ON_FREE: libevent would free the one below by a rule of its own, and once too often when
somebody else frees it too (H1). So who is on top closes the one below here, by closing its object.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, cast

from libevent_py import _convert, errors
from libevent_py._ffi import ffi, lib
from libevent_py._lifetime import live, slot
from libevent_py._stream import Stream
from libevent_py.buffer import Buffer
from libevent_py.enums import BufferEventOption, FilterResult, FlushMode

Filter = Callable[[Buffer, Buffer, "int | None", FlushMode], FilterResult]

#: How much a filter is to let pass, by C's number.
MODES = {int(mode): mode for mode in FlushMode}

ERROR = int(FilterResult.ERROR)


class Layered(Stream):
    """What `BufferEvent` has of standing on another one, or below it."""

    __slots__ = ("_input_filter", "_output_filter", "_partner")

    _input_filter: Any
    _output_filter: Any
    _partner: weakref.ref[Any] | None

    @property
    def underlying(self) -> Any:
        """The `BufferEvent` that this one stands on, or None.

        Wraps ``bufferevent_get_underlying``.
        """
        self.pointer  # noqa: B018  (a closed one stands on nothing)
        return self._underlying

    def close(self) -> None:
        """Free the bufferevent and, with CLOSE_ON_FREE, what it stands on or its descriptor.

        A second time does nothing. Without CLOSE_ON_FREE what it stood on gets its own callbacks
        back, and goes on reading. The other half of a pair is not told: `flush` with FINISHED tells
        it. Raises `ValueError` when another bufferevent stands on this one.
        Wraps ``bufferevent_free``.
        """
        if self.closed:
            return
        self._check_unmanaged()
        super().close()
        underlying = self._underlying
        if underlying is not None:
            underlying._managed_by = None
            if self._options & BufferEventOption.CLOSE_ON_FREE:
                underlying.close()

    def close_all(self) -> None:
        """Close what stands on this bufferevent, from the top, and then this one."""
        if self._managed_by is not None:
            cast("Layered", self._managed_by).close_all()
        self.close()

    def _filter(self, outward: int, limit: int, mode: int) -> int:
        most, below = None if limit < 0 else limit, cast("Stream", self._underlying)
        pointer = self.pointer
        lib.bufferevent_incref(pointer)  # or a loop that the filter runs could free it
        try:
            if outward:
                result = self._output_filter(self.output, below.output, most, MODES[mode])
            else:
                result = self._input_filter(below.input, self.input, most, MODES[mode])
        finally:
            lib.bufferevent_decref(pointer)
        if not isinstance(result, FilterResult):
            raise TypeError(f"a filter must return a FilterResult, not {result!r}")
        return result


def free_upper(underlying: Stream, pointer: Any) -> None:
    """Free what stood on *underlying*, and give that its own callbacks back."""
    lib.evpy_bufferevent_free(pointer)
    underlying._managed_by = None
    try:
        slot(underlying)
    except AttributeError:  # it is closed, or finalized, and has no callbacks
        return
    underlying._set_callbacks()


def checked_filter(function: Any, name: str) -> Any:
    """Return a filter, or raise `TypeError` if it is neither None nor callable."""
    return None if function is None else _convert.callback(function, name)


@ffi.def_extern(onerror=errors.kept, error=ERROR)
def evpy_filter(key: int, outward: int, limit: int, mode: int) -> int:
    for base in live.bases:
        bev = base.live.get(key)
        if bev is not None:
            try:
                return int(bev._filter(outward, limit, mode))
            except BaseException as error:
                base.report(error, bev)
    return ERROR
