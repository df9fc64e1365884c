"""Bufferevents that stand on one another, and the filters that bytes pass through between them.

C's filter takes a reference to what it stands on, and that one's callbacks. It never gets
CLOSE_ON_FREE: libevent would free the one below by a rule of its own, and once too often when
somebody else frees it too (H1). So who is on top closes the one below here, by closing its object.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.dispatch import live
from libevent_py._core.handle import slot
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.buffer import Buffer
from libevent_py.enums import EventFlag, FilterResult, FlushMode

if TYPE_CHECKING:
    from libevent_py.bufferevent.bufferevent import BufferEvent

Filter = Callable[[Buffer, Buffer, "int | None", FlushMode], FilterResult]

#: How much a filter is to let pass, by C's number.
MODES = {int(mode): mode for mode in FlushMode}

ERROR = int(FilterResult.ERROR)


class Layers:
    """What one bufferevent stands on and what stands on it, or the other half of its pair."""

    __slots__ = ("_held", "_input_filter", "_output_filter", "_partner", "above", "below")

    def __init__(
        self,
        below: BufferEvent | None = None,
        filters: tuple[Any, Any] = (None, None),
        partner: BufferEvent | None = None,
    ) -> None:
        #: What it stands on, or None.
        self.below = below
        #: What stands on it, and has its callbacks meanwhile, or None.
        self.above: BufferEvent | None = None
        self._input_filter, self._output_filter = filters
        self._partner = None if partner is None else weakref.ref(partner)
        #: Its pointer while it is out of reach, else None.
        self._held: Any = None

    @classmethod
    def filtering(cls, below: BufferEvent, inward: Any, outward: Any) -> Layers:
        """Make those of a filter on *below*, or raise `TypeError` for what is none."""
        filters = ("input_filter", inward), ("output_filter", outward)
        for name, function in filters:
            if function is not None:
                convert.callback(function, name)
        return cls(below, (inward, outward))

    @property
    def paired(self) -> bool:
        """Whether it is half of a pair, whatever has become of the other half."""
        return self._partner is not None

    def partner(self) -> BufferEvent | None:
        """Return the other half of the pair, or None; None also once that is closed."""
        partner = None if self._partner is None else self._partner()
        return None if partner is None or partner.closed else partner

    def check_socket(self, why: str) -> None:
        """Raise `ValueError`, which says *why*, for a pair and what stands on another one."""
        if self._partner is not None or self.below is not None:
            raise ValueError(why)

    def check_unmanaged(self, bev: BufferEvent) -> None:
        """Raise `ValueError` where *bev* belongs to what stands on it (F10)."""
        above = self.above
        if above is not None and not above.closed:
            raise ValueError(
                f"this {type(bev).__name__} is the underlying one of {above!r}, which has its "
                "callbacks and its descriptor: use that, or close it first"
            )

    def stand(self, bev: BufferEvent) -> None:
        """Tell what *bev* stands on that it does."""
        if self.below is not None:
            self.below._own_layers().above = bev

    def give_back(self) -> BufferEvent | None:
        """Let what it stands on belong to itself again, and return that."""
        below = self.below
        if below is not None:
            _belong_to_itself(below)
        return below

    # Out of reach.

    def hold(self, bev: BufferEvent) -> bool:
        """Put *bev* out of reach: what it stands on has called back, perhaps called by OpenSSL.

        Meanwhile its buffers must stay as they are, and nothing may call OpenSSL for it (I5).
        Return whether it has been within reach.
        """
        if self._held is not None:
            return False
        self._held = bev._take()
        return self._held is not None

    def let_go(self, bev: BufferEvent) -> None:
        """Put *bev* within reach again."""
        pointer, self._held = self._held, None
        bev.base._put_back(bev, pointer)

    def check_within_reach(self, bev: BufferEvent) -> None:
        """Raise what `unusable` returns."""
        if held := self.unusable(bev):
            raise held

    def unusable(self, bev: BufferEvent) -> Exception | None:
        """Return what to raise where *bev* can't be used because it is out of reach, or None."""
        if self._held is None:
            return None
        return RuntimeError(
            f"this {type(bev).__name__} can't be used in a callback of what it stands on"
        )

    # Filters.

    def filter(self, bev: BufferEvent, outward: int, limit: int, mode: int) -> int:
        """Call the filter of one direction for the bytes between *bev* and what is below."""
        most, below = None if limit < 0 else limit, self.below
        assert below is not None
        with holding_tls(bev):
            if outward:
                result = self._output_filter(bev.output, below.output, most, MODES[mode])
            else:
                result = self._input_filter(below.input, bev.input, most, MODES[mode])
        if not isinstance(result, FilterResult):
            raise TypeError(f"a filter must return a FilterResult, not {result!r}")
        return result


class Alone(Layers):
    """What stands for the layers of all bufferevents that have none: nothing sets it."""

    __slots__ = ()

    below = above = _partner = _held = None

    def __init__(self) -> None:
        pass


ALONE = Alone()


def bottom(bev: BufferEvent) -> BufferEvent:
    """Return what has the descriptor: *bev*, or what all of it stands on."""
    while bev._layers.below is not None:
        bev = bev._layers.below
    return bev


@contextlib.contextmanager
def holding_tls(bev: BufferEvent) -> Iterator[None]:
    """Keep TLS that stands on *bev*, and what stands on that, out of reach meanwhile."""
    held: list[BufferEvent] = []
    upper = bev._layers.above
    while upper is not None:
        if (held or upper._tls is not None) and upper._layers.hold(upper):
            held.append(upper)
        upper = upper._layers.above
    try:
        yield
    finally:
        for upper in held:
            upper._layers.let_go(upper)


def free_upper(underlying: BufferEvent, free: Callable[[Any], object], pointer: Any) -> None:
    """Free by *free* what stood on *underlying*, and give that its own callbacks back."""
    free(pointer)
    _belong_to_itself(underlying)
    try:
        slot(underlying)
    except AttributeError:  # it is closed, or finalized, and has no callbacks
        return
    underlying._set_callbacks()


def _belong_to_itself(bev: BufferEvent) -> None:
    layers = bev._layers
    if layers.above is not None:
        layers.above = None


def facts(bev: BufferEvent, ask: bool) -> Iterator[str]:
    """Yield what there is to tell of *bev*, with *ask* also what C knows."""
    if ask:
        pointer = bev.pointer
        arena = bev.base._arena
        unread, unsent = (arena.unread, arena.unsent) if arena.bev is bev else (0, 0)
        size = lib.evbuffer_get_length
        yield f"fd {lib.bufferevent_getfd(pointer)}"
        yield f"enabled {EventFlag(lib.bufferevent_get_enabled(bev.pointer)).names}"
        yield f"input {size(lib.bufferevent_get_input(bev.pointer)) + unread} bytes"
        yield f"output {size(lib.bufferevent_get_output(bev.pointer)) + unsent} bytes"
    if bev._tls is not None:
        yield "TLS"
    if bev._layers.below is not None:
        yield "on another one"
    if bev._layers.above is not None:
        yield "below another one"


# hot: called for every message that passes a filter.
@ffi.def_extern(onerror=errors.kept, error=ERROR)
def evpy_filter(key: int, outward: int, limit: int, mode: int) -> int:
    bev = live.objects.get(key)
    if bev is not None:
        try:
            return int(bev._layers.filter(bev, outward, limit, mode))
        except BaseException as error:
            bev.base._report(error, bev)
    return ERROR
