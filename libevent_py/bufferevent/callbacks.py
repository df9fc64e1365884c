"""The callbacks of a bufferevent: their types, and the functions by which C calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from libevent_py import errors
from libevent_py._core import convert, for_c
from libevent_py._core.called import ON_WRITE, explained_as
from libevent_py._core.child import Child
from libevent_py._core.dispatch import from_c
from libevent_py._ffi import lib
from libevent_py.bufferevent.tls import os_error
from libevent_py.enums import BufferEventFlag, EventFlag

if TYPE_CHECKING:
    from libevent_py.bufferevent.bufferevent import BufferEvent

#: What a bufferevent has called as it has read, or written, bytes: ``callback(bev)``:
#: ``bufferevent_data_cb``.
DataCallback: TypeAlias = Callable[["BufferEvent"], object]

#: What a bufferevent has called as anything else has happened: ``callback(bev, what)``:
#: ``bufferevent_event_cb``.
BufferEventCallback: TypeAlias = Callable[["BufferEvent", BufferEventFlag], object]

if TYPE_CHECKING:

    class BufferEventState(Child):
        """What C reads of a bufferevent."""

        #: The arena while `on_read` runs, if it may use that.
        _lent_arena: object
        _on_read: DataCallback | None
        _on_write: DataCallback | None

else:
    BufferEventState = for_c.extended("BufferEventState", Child)

Callbacks = tuple[DataCallback | None, DataCallback | None, BufferEventCallback | None]

#: `BufferEventFlag` by C's number.
FLAGS = tuple(BufferEventFlag(number) for number in range(2 * BufferEventFlag.CONNECTED))


#: The directions of a bufferevent.
BOTH = EventFlag.READ | EventFlag.WRITE


def checked_callbacks(
    on_read: DataCallback | None,
    on_write: DataCallback | None,
    on_event: BufferEventCallback | None,
) -> Callbacks:
    """Return the callbacks, or raise `TypeError` if one of them is neither None nor callable."""
    for name, callback in (("on_read", on_read), ("on_write", on_write), ("on_event", on_event)):
        if callback is not None:
            convert.callback(callback, name)
    return on_read, on_write, on_event


def directions(what: int) -> EventFlag:
    """Return *what* as flags, or raise `ValueError` if it isn't of READ and WRITE."""
    flags = convert.flags(EventFlag, what, "what")
    if not flags or flags & ~BOTH:
        raise ValueError(f"what must be of READ and WRITE, not {flags!r}")
    return flags


def why_failed(bev: BufferEvent, what: int, code: int) -> OSError | None:
    """Return the error behind the event *what* of *bev*, or None; *code* is the errno C gave."""
    failed = what & BufferEventFlag.ERROR
    if bev._tls is not None:
        failure = bev._session().why_failed(bev.pointer, what, code)
    else:
        failure = os_error(code) if failed else None
    if not failed or bev._connection.lookup is None:
        return failure
    return bev.dns_error or failure


def set_in_c(bev: BufferEvent) -> None:
    """Set *bev*'s callbacks in C, unless they belong to the layer on top of it, or to HTTP."""
    if bev._layers.above is not None or bev._given_to is not None:
        return
    bev.base._check_thread()
    pointer, eager = bev.pointer, bev._eager
    bev._settle()
    wanted = bev._on_read is not None, bev._on_write is not None, bev._on_event is not None
    if eager is not None and eager.may_go(bev):
        lib.evpy_eager_setcb(pointer, *wanted[:2], eager.hooked(bev))
    else:
        lib.evpy_eager_unhook(pointer)
        lib.evpy_bufferevent_setcb(pointer, *wanted, bev._key)


def expect(bev: BufferEvent) -> None:
    """Enter C by `Root._call` from now on, because one of *bev*'s buffers may call back."""
    bev._calls_back = True
    for buffer in bev._lent():
        buffer._expect_callbacks()
    bev._set_callbacks()


@from_c(late=1, raised=0)
def evpy_bufferevent_event(bev: BufferEvent, what: int, error: int) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    on_event = bev._on_event
    if on_event is not None:
        bev.error = why_failed(bev, what, error)
        flags = FLAGS[what]
        try:
            on_event(bev, flags)
        except BaseException as raised:
            try:
                bev.base._report(raised, bev)
            except BaseException as interrupt:  # it must not have C call once more
                errors.keep(interrupt)
    return 1


def _write_raised(bev: BufferEvent, error: BaseException) -> None:
    """Report what *bev*'s ``on_write`` has raised."""
    bev.base._report(explained_as(error, ON_WRITE), bev)


for_c.give(write_raised=_write_raised)
