"""How a bufferevent ends: who frees C's object, and when.

With *flush*, an internal object, the heir, takes over C's object, writes the remaining output, and
then closes it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from libevent_py import errors
from libevent_py._core.handle import came_to_be
from libevent_py._ffi import lib
from libevent_py.bufferevent.connect import is_looking_up
from libevent_py.bufferevent.layers import bottom, free_upper
from libevent_py.bufferevent.plans import CLOSE_ON_FREE
from libevent_py.enums import BufferEventFlag, EventFlag, FlushMode

if TYPE_CHECKING:
    from libevent_py._ffi import CData
    from libevent_py.bufferevent.bufferevent import BufferEvent

#: Events that don't end a bufferevent.
GOES_ON = BufferEventFlag.CONNECTED | BufferEventFlag.READING | BufferEventFlag.WRITING


def freed_by(bev: BufferEvent) -> Callable[[CData], object]:
    """Return the function that frees the pointer of *bev* and what *bev* owns."""
    below, secured = bev._layers.below, bev._tls is not None
    if bev._given_to is not None:
        grouped = bev._limits.group is not None  # its owner may outlive the group
        leave: Callable[[CData], object] = lib.bufferevent_remove_from_rate_limit_group
        return leave if grouped else _leave
    if below is not None:
        upper = lib.evpy_tls_free if secured else lib.evpy_bufferevent_free
        return functools.partial(free_upper, below, upper)
    free: Callable[[CData], object]
    if secured and bev._connection.disowned and CLOSE_ON_FREE in bev._options:
        return lib.evpy_tls_free_without_fd
    if bev._layers.paired or CLOSE_ON_FREE in bev._options:
        free = lib.evpy_bufferevent_free
    elif bev._connection.made_here:
        free = lib.evpy_tls_free_with_fd if secured else lib.evpy_bufferevent_free_with_fd
    else:
        free = lib.evpy_tls_free if secured else lib.evpy_bufferevent_free_without_fd
    return free if bev._eager is None else bev._eager.freed_after(free)


def _leave(_pointer: CData) -> None:
    """Do nothing: the owner that the bufferevent was given to frees it."""


def close_with_below(bev: BufferEvent, close: Callable[[], object], flush: bool) -> None:
    """Close *bev* by *close*, and what it owns; what a callback raises keeps nothing open."""
    try:
        close()
    except BaseException as error:  # perhaps an interrupt
        if not bev.closed:
            raise
        errors.keep(error)
    bev._limits.forget_group(bev._key)
    below = bev._layers.give_back()
    if below is not None and CLOSE_ON_FREE in bev._options:
        below.close(flush=flush)


def close(bev: BufferEvent, flush: bool) -> None:
    """Close *bev*, as its method of that name, and tell who waits for that."""
    try:
        if not (flush and leave_to_heir(bev)):
            bev._end(flush)
    finally:
        if bev.base._closings and bev.closed:
            bev.base._note_closed(bev._key)


def close_all(bev: BufferEvent) -> None:
    """Close all layers on top of *bev*, from the top, and then *bev*."""
    if bev._layers.above is not None:
        close_all(bev._layers.above)
    bev.close()


def leave_to_heir(bev: BufferEvent) -> bool:
    """Leave the C object to an heir, which closes it once the output is written.

    Return False if the caller must close *bev* now, because nothing waits to be written.
    """
    base, layers = bev.base, bev._layers
    base._check_thread()
    bev._settle()
    if base.closed or _leads_nowhere(bev):  # a callback may run while the base is closing
        return False
    if layers.paired or layers.below is not None:
        try:
            bev.flush(EventFlag.WRITE, FlushMode.FINISHED)
        except BaseException:
            if not bev.closed:
                bev._end(False)
            raise
    if bev.closed:  # a filter has closed it
        return True
    if layers.below is not None and bev._tls is None and _unwritten(bev):
        return False  # the filter has held bytes back although it was called with FINISHED
    if not _unwritten(bev):
        _say_goodbye(bev)
        return False
    heir = bev._copied()
    taken: list[CData] = []
    try:
        for handle in bev._lent():
            handle._take()
        bev._take_into(taken)
        if taken:  # else other code has closed it in between
            heir._inherit(taken[0])
            heir.disable(EventFlag.READ)
            heir.setwatermark(EventFlag.WRITE, 0, 0)
            heir.setcb(None, _written, _ended)
            heir.enable(EventFlag.WRITE)
    except BaseException:  # an interrupt; or without memory it would wait for ever
        if taken and not came_to_be(heir):
            heir._inherit(taken[0])
        if taken:
            heir._end(False)
        raise
    return True


def _leads_nowhere(bev: BufferEvent) -> bool:
    """Tell whether there is nothing that the output could be written to."""
    lowest = bottom(bev)
    pointer = lowest.pointer
    if lowest._layers.paired:
        return not lib.bufferevent_pair_get_partner(pointer)
    return lib.bufferevent_getfd(pointer) < 0 and not is_looking_up(lowest)


def _unwritten(bev: BufferEvent) -> bool:
    return bool(lib.evbuffer_get_length(lib.bufferevent_get_output(bev.pointer)))


def _written(heir: BufferEvent) -> None:
    if not _unwritten(heir):
        _say_goodbye(heir)
        heir._end(True)


def _ended(heir: BufferEvent, what: BufferEventFlag) -> None:
    if what & ~GOES_ON:
        heir._end(False)


def _say_goodbye(bev: BufferEvent) -> None:
    """Send the closing notice to a peer that speaks TLS."""
    if bev._tls is not None:
        bev.shutdown()
