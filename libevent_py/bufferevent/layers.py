"""Bufferevents on top of one another, and the filters that bytes pass through between them.

C's filter takes a reference to the bufferevent below it, and takes over its callbacks. It never
gets CLOSE_ON_FREE: libevent would free the one below by a rule of its own, and once too often when
somebody else frees it too (H1). Instead, the upper Python object closes the lower one.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.dispatch import NOT_CALLED, keep_late, live
from libevent_py._core.handle import WithoutPointer, slot
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.buffer import Buffer
from libevent_py.enums import EventFlag, FilterResult, FlushMode
from libevent_py.event.descriptor import UNNAMED, peer_address

if TYPE_CHECKING:
    from libevent_py._ffi import CData
    from libevent_py.bufferevent.bufferevent import BufferEvent

#: What passes bytes on, as ``filter(source, destination, limit, mode)``: ``bufferevent_filter_cb``.
FilterCallback: TypeAlias = Callable[[Buffer, Buffer, "int | None", FlushMode], FilterResult]

#: `FlushMode` by C's number.
MODES = {int(mode): mode for mode in FlushMode}

ERROR = int(FilterResult.ERROR)


class Layers:
    """The layers below and above one bufferevent, or the other half of its pair."""

    __slots__ = ("_held", "_input_filter", "_output_filter", "_partner", "above", "below")

    # C calls only those that there are.
    _input_filter: FilterCallback
    _output_filter: FilterCallback

    def __init__(
        self,
        below: BufferEvent | None = None,
        filters: tuple[FilterCallback | None, FilterCallback | None] = (None, None),
        partner: BufferEvent | None = None,
    ) -> None:
        #: The bufferevent below it, or None.
        self.below: BufferEvent | None = below
        #: The one on top of it, which takes over its callbacks meanwhile, or None.
        self.above: BufferEvent | None = None
        self._input_filter, self._output_filter = filters  # type: ignore[assignment]  # as above
        self._partner = None if partner is None else weakref.ref(partner)
        #: The bufferevent's pointer while it is unusable, else None.
        self._held: Any = None

    @classmethod
    def filtering(
        cls, below: BufferEvent, inward: FilterCallback | None, outward: FilterCallback | None
    ) -> Layers:
        """Make the layers of a filter on *below*; raise `TypeError` if a filter isn't callable."""
        filters = ("input_filter", inward), ("output_filter", outward)
        for name, function in filters:
            if function is not None:
                convert.callback(function, name)
        return cls(below, (inward, outward))

    @property
    def paired(self) -> bool:
        """Whether it is half of a pair, even if the other half is closed."""
        return self._partner is not None

    def partner(self) -> BufferEvent | None:
        """Return the other half of the pair; None without one, or once that half is closed."""
        partner = None if self._partner is None else self._partner()
        return None if partner is None or partner.closed else partner

    def check_socket(self, why: str) -> None:
        """Raise ``ValueError(why)`` for a pair and for a bufferevent on top of another one."""
        if self._partner is not None or self.below is not None:
            raise ValueError(why)

    def check_unmanaged(self, bev: BufferEvent) -> None:
        """Raise `ValueError` if *bev* belongs to the layer on top of it (F10)."""
        above = self.above
        if above is not None and not above.closed:
            raise ValueError(
                f"this {type(bev).__name__} is the underlying one of {above!r}, which owns its "
                "callbacks and its descriptor: use that one, or close it first"
            )

    def stand(self, bev: BufferEvent) -> None:
        """Note *bev* in the layer below it; raise `ValueError` if another one is there already."""
        if self.below is None:
            return
        layers = self.below._own_layers()
        while (above := layers.above) is not bev:
            self.below._check_unmanaged()
            if layers.above is above:  # no call from here on: other code may put its own there
                layers.above = bev

    def step_down(self, bev: BufferEvent) -> None:
        """Undo `stand` for *bev*, which could not be made."""
        if self.below is not None and self.below._layers.above is bev:
            _belong_to_itself(self.below)

    def give_back(self) -> BufferEvent | None:
        """Let the layer below belong to itself again, and return it."""
        below = self.below
        if below is not None:
            _belong_to_itself(below)
        return below

    # Unusable while a lower layer calls back.

    def hold(self, bev: BufferEvent) -> None:
        """Make *bev* unusable, because a lower layer calls back, perhaps called by OpenSSL.

        Meanwhile its buffers must stay as they are, and nothing may call OpenSSL for it (I5).
        """
        taken: list[CData] = []
        try:
            bev._take_into(taken)
        finally:  # even after an interrupt
            if taken:
                self._held = taken[0]

    def let_go(self, bev: BufferEvent) -> None:
        """Make *bev* usable again; a second time does nothing."""
        if self._held is not None:
            if isinstance(bev, WithoutPointer):  # or an interrupt came after it was put back
                bev.base._put_back(bev, self._held)
            self._held = None

    def check_within_reach(self, bev: BufferEvent) -> None:
        """Raise what `unusable` returns."""
        if held := self.unusable(bev):
            raise held

    def unusable(self, bev: BufferEvent) -> Exception | None:
        """Return the exception to raise if *bev* is unusable, else None."""
        if self._held is None:
            return None
        return RuntimeError(
            f"this {type(bev).__name__} can't be used in a callback of the one that it stands on"
        )

    # Filters.

    def filter(
        self, bev: BufferEvent, outward: int, limit: int, mode: int, verdict: list[int]
    ) -> None:
        """Call the filter of one direction for the bytes between *bev* and the layer below.

        *verdict* gets what C is to get. What is raised has come before the filter was called.
        """
        most, below, begun = None if limit < 0 else limit, self.below, False
        assert below is not None
        try:
            with holding_tls(bev):
                if outward:
                    function, source, target = self._output_filter, bev.output, below.output
                else:
                    function, source, target = self._input_filter, below.input, bev.input
                begun = True  # no call from here to the filter's own
                result: Any = function(source, target, most, MODES[mode])
                if result.__class__ is not FilterResult:
                    raise TypeError(f"a filter must return a FilterResult, not {result!r}")
                verdict[0] = result  # no call since the filter's own
        except BaseException as error:
            if not begun:
                raise
            try:
                bev.base._report(error, bev)
            except BaseException as interrupt:
                errors.keep(interrupt)


class Alone(Layers):
    """The layers of all bufferevents that have none; never changed."""

    __slots__ = ()

    below: None = None
    above: None = None
    _partner = _held = None

    def __init__(self) -> None:
        pass


ALONE = Alone()


def own(bev: BufferEvent) -> Layers:
    """Return what *bev* has of its own, made now if it has shared `ALONE` so far."""
    made = Layers()
    if bev._layers is ALONE:  # no call from here on: other code may have made some
        bev._layers = made
    return bev._layers


def bottom(bev: BufferEvent) -> BufferEvent:
    """Return the lowest layer of *bev*, which has the descriptor; *bev* itself if it has none."""
    while bev._layers.below is not None:
        bev = bev._layers.below
    return bev


@contextlib.contextmanager
def holding_tls(bev: BufferEvent) -> Iterator[None]:
    """Keep TLS on top of *bev*, and all layers on top of that, unusable inside the block."""
    held: list[BufferEvent] = []
    try:
        upper = bev._layers.above
        while upper is not None:
            layers = upper._layers
            if (held or upper._tls is not None) and layers._held is None:
                held.append(upper)  # first: an interrupt must not leave it unusable
                layers.hold(upper)
            upper = layers.above
        yield
    finally:
        try:
            _let_go(held)
        except BaseException:  # an interrupt
            _let_go(held)
            raise


def _let_go(held: list[BufferEvent]) -> None:
    for bev in held:
        bev._layers.let_go(bev)


def free_upper(underlying: BufferEvent, free: Callable[[CData], object], pointer: CData) -> None:
    """Free by *free* the layer on top of *underlying*, which gets its own callbacks back.

    With that the underlying one may go on reading at once, if it is half of a pair, and call back.
    """
    left = [pointer]
    try:
        underlying.base._call(_free_once, free, left)
        _call_itself(underlying)
    except (
        BaseException
    ) as error:  # an interrupt, perhaps right after it was freed; or a callback's
        if left:
            before = errors.waiting()
            underlying.base._tell(_free_once, free, left)
            errors.take_along(before, error)
        below = _pointer(underlying)
        if below is not None and not lib.evpy_bufferevent_calls(below, pointer):
            _call_itself(underlying)
        raise


def _free_once(free: Callable[[CData], object], left: list[CData]) -> None:
    if left:
        pointer = left[0]
        del left[0]  # no call from here to the next line
        free(pointer)


def _call_itself(bev: BufferEvent) -> None:
    """Give *bev*, on which no layer stands any longer, its own callbacks back."""
    _belong_to_itself(bev)
    if _pointer(bev) is not None:
        bev._set_callbacks()


def _pointer(bev: BufferEvent) -> CData | None:
    """Return the pointer of *bev*, or None if it is closed or finalized."""
    try:
        return slot(bev)
    except AttributeError:
        return None


def _belong_to_itself(bev: BufferEvent) -> None:
    layers = bev._layers
    if layers.above is not None:
        layers.above = None


def facts(bev: BufferEvent, ask: bool) -> Iterator[str]:
    """Yield the facts about *bev* for its repr; with *ask*, those that C knows too."""
    if ask:
        pointer = bev.pointer
        arena = bev.base._arena
        unread, unsent = (arena.unread, arena.unwritten) if arena.bev is bev else (0, 0)
        size = lib.evbuffer_get_length
        fd = int(lib.bufferevent_getfd(pointer))
        yield f"fd {fd}"
        peer = peer_address(fd) if fd >= 0 else None
        if peer is not None and peer != UNNAMED:
            yield f"to {peer}"
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
@ffi.def_extern(onerror=errors.kept, error=NOT_CALLED)
def evpy_filter(key: int, outward: int, limit: int, mode: int) -> int:
    """Return what the filter does, or `NOT_CALLED`, as after an interrupt."""
    bev = live.objects.get(key)
    if bev is None:
        return ERROR
    verdict = [ERROR]
    try:
        bev._layers.filter(bev, outward, limit, mode, verdict)
    except (errors.LibeventError, RuntimeError) as error:  # it, or a layer, can't be used
        bev.base._report(error, bev)
    except BaseException as interrupt:
        keep_late(interrupt, Layers.filter)
    return verdict[0]
