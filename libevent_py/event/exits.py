"""The time that stops a base's loop: `EventBase.loopexit` with a timeout.

A base has one timer for that, whose time is noted in Python, too: another thread or a signal
handler may ask for an earlier one at any moment.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from libevent_py import errors
from libevent_py._ffi import ffi, lib

if TYPE_CHECKING:
    from libevent_py.event.base import EventBase


def exit_after(base: EventBase, seconds: float) -> None:
    """Have the timer stop *base*'s loop after *seconds*, or before if it is set to that.

    A signal handler may do the same in the middle of this; so the earliest moment is noted first,
    and the timer is set again if it is another one afterwards.
    """
    moment, before = time.monotonic() + seconds, base._exit_at  # no call between the two
    if before is not None and before <= moment:  # or it fires just now
        return
    base._exit_at = moment  # nor until here
    try:
        while (at := base._exit_at) is not None:
            errors.call(lib.evpy_event_add, base._exiter, max(0.0, at - time.monotonic()))
            if base._exit_at == at:
                return
        if _is_set(base):  # the loop has just ended
            base._exit_at = moment
    except BaseException:
        if before is not None or not _is_set(base):
            base._exit_at = before  # never earlier than the timer's own
        raise


def exit_now(base: EventBase) -> None:
    """Stop *base*'s loop, as its timer is due."""
    base._exit_at = None
    base.loopexit()


def _is_set(base: EventBase) -> bool:
    return bool(lib.event_pending(base._exiter, lib.EV_TIMEOUT, ffi.NULL))


def forget_exit(base: EventBase) -> None:
    """Let the time given to `EventBase.loopexit` stop no later run of the loop."""
    if base._exit_at is not None and not base._forked and not base.closed:
        lib.event_del(base._exiter)
        base._exit_at = None
