"""The filters that bytes pass through between a bufferevent and the one that it stands on.

C's filter takes a reference to what it stands on, and that one's callbacks. It never gets
CLOSE_ON_FREE: libevent would free the one below by a rule of its own, and once too often when
somebody else frees it too (H1). So who is on top closes the one below here, by closing its object.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, ClassVar, cast

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.dispatch import live
from libevent_py._core.handle import slot
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.buffer import Buffer
from libevent_py.bufferevent.stream import Stream
from libevent_py.enums import (
    BufferEventFlag,
    BufferEventOption,
    EventFlag,
    FilterResult,
    FlushMode,
)

Filter = Callable[[Buffer, Buffer, "int | None", FlushMode], FilterResult]

#: How much a filter is to let pass, by C's number.
MODES = {int(mode): mode for mode in FlushMode}

ERROR = int(FilterResult.ERROR)


class Layered(Stream):
    """What `BufferEvent` has of standing on another one, or below it."""

    __slots__ = ("_input_filter", "_output_filter", "_partner")

    #: The class of the object that closes what this one has left behind.
    _heir: ClassVar[type[Layered]]

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

    def close(self, *, flush: bool = False) -> None:
        """Free the bufferevent and, with CLOSE_ON_FREE, what it stands on or its descriptor.

        Output that hasn't been written is lost. With *flush* it is written first, by the loop,
        until it has been or has failed; nothing more is read, and nobody is called back. A peer
        that doesn't read then holds the descriptor for as long as `set_timeouts` lets it. What a
        filter raises, or still holds back when told FINISHED, is no reason not to close.

        A second time does nothing. Without CLOSE_ON_FREE what it stood on gets its own callbacks
        back, and goes on reading. The other half of a pair is not told, but with *flush*: it gets
        EOF. Raises `ValueError` when another bufferevent stands on this one.
        Wraps ``bufferevent_free``.
        """
        if self.closed:
            return
        self._check_unmanaged()
        if not (flush and self._leave_to_heir()):
            self._end(flush)

    def _end(self, flush: bool) -> None:
        super().close()
        underlying = cast("Layered | None", self._underlying)
        if underlying is not None:
            underlying._managed_by = None
            if self._options & BufferEventOption.CLOSE_ON_FREE:
                underlying.close(flush=flush)

    def _leave_to_heir(self) -> bool:
        """Have an object that nobody knows close the C object once the output is written.

        Return whether there is one: none is needed where nothing waits to be written.
        """
        self.base.check_thread()
        self._settle()
        if self.base.closed or self._leads_nowhere():  # a callback may be told of the base's end
            return False
        if self._partner is not None or self._underlying is not None:
            try:
                self.flush(EventFlag.WRITE, FlushMode.FINISHED)
            except BaseException:
                if not self.closed:
                    self._end(False)
                raise
        if self.closed:  # a filter has closed it
            return True
        if self._underlying is not None and self._tls is None and self._unwritten():
            return False  # the filter lets no more pass, though it is told that this is the end
        if not self._unwritten():
            self._say_goodbye()
            return False
        heir = Layered.__new__(self._heir)
        for kind in self._heir.__mro__[:-1]:
            for name in vars(kind).get("__slots__", ()):
                if name not in ("__weakref__", "pointer"):
                    setattr(heir, name, getattr(self, name, None))
        for handle in self.lent():
            handle._take()
        heir._lent_input = heir._lent_output = None
        pointer = self._take()
        if pointer is not None:  # or other code has closed it in between
            heir._inherit(pointer)
        return True

    def _leads_nowhere(self) -> bool:
        """Tell whether there is nothing that the output could be written to."""
        bottom: Any = self
        while bottom._underlying is not None:
            bottom = bottom._underlying
        pointer = bottom.pointer
        if bottom._partner is not None:
            return not lib.bufferevent_pair_get_partner(pointer)
        return lib.bufferevent_getfd(pointer) < 0 and not bottom._is_looking_up()

    def _inherit(self, pointer: Any) -> None:
        base = self.base
        self.pointer = pointer
        base.ledger[self.key] = weakref.ref(self)
        base.live[self.key] = self
        if self._underlying is not None:
            self._underlying._managed_by = self
        bev: Any = self
        self._limits.pass_to(bev)
        self.disable(EventFlag.READ)
        self.setwatermark(EventFlag.WRITE, 0, 0)
        self.setcb(None, Layered._written, Layered._ended)
        self.enable(EventFlag.WRITE)

    def _unwritten(self) -> bool:
        return bool(lib.evbuffer_get_length(lib.bufferevent_get_output(self.pointer)))

    def _written(self) -> None:
        if not self._unwritten():
            self._say_goodbye()
            self._end(True)

    def _ended(self, what: BufferEventFlag) -> None:
        if what & ~(BufferEventFlag.CONNECTED | BufferEventFlag.READING | BufferEventFlag.WRITING):
            self._end(False)

    def _say_goodbye(self) -> None:
        """Tell a peer that speaks TLS that this is the end, as it expects to be told."""
        if self._tls is not None:
            self.shutdown()

    def _check_limitable(self) -> None:
        """Raise `ValueError` where libevent can't do with a limit.

        Asked to write before the handshake is done, OpenSSL waits to read; and then libevent, which
        may not write, asks it again and again.
        """
        if self._given_to is not None:
            self._check_unmanaged()  # who frees it would not take the limit away before (J1)
        if self._tls is not None and self._underlying is not None and not self._agreed():
            raise ValueError(
                "TLS through another bufferevent can't be limited until its handshake is done: "
                "limit what it stands on, or wait for CONNECTED"
            )

    def close_all(self) -> None:
        """Close what stands on this bufferevent, from the top, and then this one."""
        if self._managed_by is not None:
            cast("Layered", self._managed_by).close_all()
        self.close()

    def _filter(self, outward: int, limit: int, mode: int) -> int:
        most, below = None if limit < 0 else limit, cast("Stream", self._underlying)
        with self.holding_tls():
            if outward:
                result = self._output_filter(self.output, below.output, most, MODES[mode])
            else:
                result = self._input_filter(below.input, self.input, most, MODES[mode])
        if not isinstance(result, FilterResult):
            raise TypeError(f"a filter must return a FilterResult, not {result!r}")
        return result


def free_upper(underlying: Stream, free: Callable[[Any], object], pointer: Any) -> None:
    """Free by *free* what stood on *underlying*, and give that its own callbacks back."""
    free(pointer)
    underlying._managed_by = None
    try:
        slot(underlying)
    except AttributeError:  # it is closed, or finalized, and has no callbacks
        return
    underlying._set_callbacks()


def checked_filter(function: Any, name: str) -> Any:
    """Return a filter, or raise `TypeError` if it is neither None nor callable."""
    return None if function is None else convert.callback(function, name)


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
