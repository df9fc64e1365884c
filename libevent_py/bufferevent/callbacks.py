"""The callbacks of a bufferevent: their types, and how C comes to call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.dispatch import live
from libevent_py._ffi import ffi
from libevent_py.bufferevent.tls import os_error
from libevent_py.enums import BufferEventFlag

if TYPE_CHECKING:
    from libevent_py.bufferevent.bufferevent import BufferEvent

DataCallback = Callable[[Any], object]
EventCallback = Callable[[Any, BufferEventFlag], object]

Callbacks = tuple[DataCallback | None, DataCallback | None, EventCallback | None]

#: What can happen to a bufferevent, by C's number.
FLAGS = tuple(BufferEventFlag(number) for number in range(2 * BufferEventFlag.CONNECTED))


def checked_callbacks(
    on_read: DataCallback | None, on_write: DataCallback | None, on_event: EventCallback | None
) -> Callbacks:
    """Return the callbacks, or raise `TypeError` if one of them is neither None nor callable."""
    for name, callback in (("on_read", on_read), ("on_write", on_write), ("on_event", on_event)):
        if callback is not None:
            convert.callback(callback, name)
    return on_read, on_write, on_event


def why_failed(bev: BufferEvent, what: int, code: int) -> OSError | None:
    """Return why the event *what* of *bev* came about; *code* is the errno that came with it."""
    failed = what & BufferEventFlag.ERROR
    if bev._tls is not None:
        failure = bev._session().why_failed(bev.pointer, what, code)
    else:
        failure = os_error(code) if failed else None
    if not failed or bev._connection.lookup is None:
        return failure
    return bev.dns_error or failure


# hot: called for every message.
@ffi.def_extern(onerror=errors.kept)
def evpy_bufferevent_read(key: int) -> None:
    bev = live.objects.get(key)
    if bev is not None:
        try:
            on_read = bev._on_read
            if on_read is not None:
                on_read(bev)
        except BaseException as error:
            bev.base._report(error, bev)


# hot: called for every message that has been written.
@ffi.def_extern(onerror=errors.kept)
def evpy_bufferevent_write(key: int) -> None:
    bev = live.objects.get(key)
    if bev is not None:
        try:
            on_write = bev._on_write
            if on_write is not None:
                on_write(bev)
        except BaseException as error:
            bev.base._report(error, bev)


# hot: called for every connection, once it is made and once it ends.
@ffi.def_extern(onerror=errors.kept)
def evpy_bufferevent_event(key: int, what: int, error: int) -> None:
    bev = live.objects.get(key)
    if bev is not None and bev._on_event is not None:
        bev.error = why_failed(bev, what, error)
        try:
            bev._on_event(bev, FLAGS[what])
        except BaseException as raised:
            bev.base._report(raised, bev)
