"""What there is to say of bufferevents and rate limit groups in `EventBase.explain`.

libevent keeps it to itself why a bufferevent is suspended, so the reasons are found in what it does
tell. In any state of a bufferevent this only reads, even inside a callback of a lower layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.connect import is_looking_up
from libevent_py.bufferevent.limits import RateLimitGroup
from libevent_py.enums import EventFlag
from libevent_py.event.descriptor import peer_address
from libevent_py.event.explain import Holder, callback_text, counted, explains

if TYPE_CHECKING:
    from libevent_py._ffi import CData

READ, WRITE = EventFlag.READ, EventFlag.WRITE


def pointer_of(bev: BufferEvent) -> CData:
    """Return C's object, even while a lower layer calls back."""
    held = bev._layers._held
    return bev.pointer if held is None else held


@explains(BufferEvent)
def bufferevent(bev: BufferEvent) -> Iterator[Holder]:
    """Yield *bev* with what it waits for, and what it is suspended for."""
    pointer = pointer_of(bev)
    yield Holder(
        "bufferevent",
        ", ".join([f"BufferEvent #{bev._key}{_peer(bev)}", *_sizes(bev, pointer)]),
        places=(pointer,),
        notes=[*_reasons(bev, pointer), *_callbacks(bev)],
        timer="timer of its own, for a timeout or its rate limit",
    )


@explains(RateLimitGroup)
def group(group: RateLimitGroup) -> Iterator[Holder]:
    """Yield *group*, whose timer keeps the loop alive for as long as it is open."""
    name = f"RateLimitGroup #{group._key}, {counted(len(group._members), 'member')}"
    note = "it keeps the loop alive until it is closed"
    yield Holder(
        "rate limit group",
        name,
        places=(group.pointer,),
        notes=[note],
        timer="timer that refills its bucket",
    )


def _peer(bev: BufferEvent) -> str:
    layers = bev._layers
    if layers.below is not None:
        return f" on BufferEvent #{layers.below._key}"
    if layers.paired:
        partner = layers.partner()
        return f", half of a pair{'' if partner is None else f' with BufferEvent #{partner._key}'}"
    peer = peer_address(lib.bufferevent_getfd(pointer_of(bev)))
    return "" if peer is None else f" to {peer}"


def _sizes(bev: BufferEvent, pointer: CData) -> Iterator[str]:
    unread, unsent = _waiting(bev, pointer)
    if unread:
        yield f"{unread} bytes to be read from it"
    if unsent:
        yield f"{unsent} bytes to write"
    if bev._tls is not None:
        yield "TLS"


def _waiting(bev: BufferEvent, pointer: CData) -> tuple[int, int]:
    """Return how many bytes are to be read from it, and to be written."""
    arena = bev.base._arena
    unread, unsent = (arena.unread, arena.unwritten) if arena.bev is bev else (0, 0)
    return (
        unread + int(lib.evbuffer_get_length(pointer.input)),
        unsent + int(lib.evbuffer_get_length(pointer.output)),
    )


def _callbacks(bev: BufferEvent) -> Iterator[str]:
    names = (
        ("on_read", bev.on_data or bev._on_read),
        ("on_write", bev._on_write),
        ("on_event", bev._on_event),
    )
    told = [f"{name} {callback_text(callback)}" for name, callback in names if callback is not None]
    if told:
        yield f"calls {', '.join(told)}"


def _reasons(bev: BufferEvent, pointer: CData) -> Iterator[str]:
    """Yield why *bev* doesn't read or write, and what would change that."""
    above = bev._layers.above
    if above is not None:
        yield f"used by BufferEvent #{above._key} on top of it"
    if bev._given_to is not None:
        yield f"used by its {type(bev._given_to).__name__}"
    if bev._layers.below is None and not bev._layers.paired:
        place = _nowhere(bev, pointer)
        if place is not None:
            yield place
            return
    if bev._tls is not None and not bev._tls.agreed(pointer):
        yield "its TLS handshake is not done: nothing is read or written before"
    yield from _reading(bev, pointer)
    yield from _writing(bev, pointer)
    yield from _not_called(bev, pointer)


def _nowhere(bev: BufferEvent, pointer: CData) -> str | None:
    """Return why the socket can't be used yet; None if it can."""
    lookup = bev._connection.lookup
    if lookup is not None and is_looking_up(bev):
        return f"looks up {lookup.host!r}: goes on when the lookup ends"
    fd = lib.bufferevent_getfd(pointer)
    if fd < 0:
        return "suspended, as it has no descriptor: connect() or setfd() gives it one"
    connecting = bev._connection.made_here and peer_address(fd) is None
    if connecting and lib.event_pending(ffi.addressof(pointer, "ev_write"), WRITE, ffi.NULL):
        return "suspended while it connects: goes on when the peer answers"
    return None


def _reading(bev: BufferEvent, pointer: CData) -> Iterator[str]:
    if not pointer.enabled & READ:
        yield "reading is suspended, as it isn't enabled: enable(READ)"
        return
    high, size = pointer.wm_read.high, lib.evbuffer_get_length(pointer.input)
    if 0 < high <= size:
        yield f"reading is suspended by the high watermark, {high} bytes: read some of its input"
    elif why := _limited(bev, pointer, "read"):
        yield f"reading is suspended by {why}"
    elif _stopped(bev, pointer, READ):
        yield "reading is suspended by libevent: its group's turn, or a layer, has to come first"


def _writing(bev: BufferEvent, pointer: CData) -> Iterator[str]:
    if not pointer.enabled & WRITE:
        yield "writing is suspended, as it isn't enabled: enable(WRITE)"
    elif why := _limited(bev, pointer, "write"):
        yield f"writing is suspended by {why}"
    elif not lib.evbuffer_get_length(pointer.output):
        return
    elif bev._layers.below is not None:
        yield _held_up(bev._layers.below)
    elif bev._layers.paired:
        yield "writing waits for the other half to be enabled to read, or to read what it has"
    elif _stopped(bev, pointer, WRITE):
        yield "writing is suspended by libevent: its group's turn, or a layer, has to come first"


def _held_up(below: BufferEvent) -> str:
    """Return why the output of the bufferevent on top of *below* stays where it is."""
    pointer = pointer_of(below)
    high = pointer.wm_write.high
    if 0 < high <= lib.evbuffer_get_length(pointer.output):
        mark = f"the high watermark of BufferEvent #{below._key} below it, {high} bytes"
        return f"writing is suspended by {mark}: it goes on when that has written some"
    return "writing is suspended by the layer below, or by its filter: it goes on when those do"


def _not_called(bev: BufferEvent, pointer: CData) -> Iterator[str]:
    """Yield why a callback isn't called, whatever is read and written."""
    unread, unsent = _waiting(bev, pointer)
    low, high, above = pointer.wm_read.low, pointer.wm_read.high, bev._layers.above
    if above is not None:
        reader = f"BufferEvent #{above._key}"
    elif bev._given_to is not None:
        reader = f"its {type(bev._given_to).__name__}"
    else:
        reader = "on_read"
    if reader == "on_read" and bev._on_read is None:
        if unread:
            yield "nothing is called for the bytes to be read: it has no on_read"
    elif 0 < high < low:
        marks = f"its low watermark, {low} bytes, is above its high one, {high}"
        yield f"{reader} waits for ever: {marks}"
    elif unread < low:
        awaited = f"{low} bytes to be read from it (low watermark)"
        yield f"{reader} waits for {awaited}: {unread} are there"
    low = pointer.wm_write.low
    if bev._on_write is not None and 0 < low < unsent:
        yield f"on_write waits until {low} bytes or less are to be written (low watermark)"


def _stopped(bev: BufferEvent, pointer: CData, what: int) -> bool:
    """Tell whether the event of a socket's bufferevent doesn't wait, although it is enabled."""
    if bev._layers.below is not None or bev._layers.paired or bev._tls is not None:
        return False  # events of theirs are but timers, or wait for what OpenSSL needs
    event = "ev_read" if what == READ else "ev_write"
    return not lib.event_pending(ffi.addressof(pointer, event), what, ffi.NULL)


def _limited(bev: BufferEvent, pointer: CData, what: str) -> str | None:
    """Return the limit that keeps *bev* from doing *what*, and when it ends."""
    own, group = bev._limits.own, bev._limits.group
    left = getattr(lib, f"bufferevent_get_{what}_limit")
    if own is not None and lib.bufferevent_get_token_bucket_cfg(pointer) and left(pointer) <= 0:
        return f"its rate limit: it is refilled every {own.tick:g} s"
    if group is None or group.closed:
        return None
    shared = getattr(lib, f"bufferevent_rate_limit_group_get_{what}_limit")
    if shared(group.pointer) > 0:
        return None
    every = f"it is refilled every {group._limit.tick:g} s"
    return f"the limit of RateLimitGroup #{group._key}: {every}"
