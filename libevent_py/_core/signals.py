"""Signal events: libevent's signal handlers beside Python's (C10).

In libevent, one base per process gets signals: the first base to add a signal event, until its last
signal event is gone. While an event waits for a signal, libevent's handler replaces Python's. When
the event is deleted, libevent restores the handler that it found, even if `signal.signal` has set
another one meanwhile. So we then set Python's present handler again.

In a forked child, libevent's handlers would report the child's signals to the parent (A8). So
Python's handlers are restored there, too, until `reinit` makes the base the child's own.
"""

from __future__ import annotations

import os
import signal
import time
import weakref
from typing import TYPE_CHECKING, SupportsIndex

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.wakeup import in_main_thread
from libevent_py._ffi import ffi, lib

if TYPE_CHECKING:
    from libevent_py._core.owner import Root

VALID = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}

#: The base that gets signals.
_owner: weakref.ref[Root] | None = None

#: The keys of the events that wait for a signal, by its number.
_waiting: dict[int, set[int]] = {}


def number(signum: SupportsIndex) -> int:
    """Return *signum* as an int, or raise an error if it is no signal that can be caught."""
    signum = convert.c_int(signum, "signum")
    if signum not in VALID:
        raise ValueError(f"signum must be a signal that can be caught, not {signum}")
    return int(signum)


def check_thread() -> None:
    """Raise `ThreadError` unless this thread may set Python's handlers."""
    if not in_main_thread():
        raise errors.ThreadError("signal events can only be added and deleted in the main thread")


def check_deletable(signum: int, key: int) -> None:
    """Raise `ThreadError` if the event with *key* waits and this thread may not delete it."""
    if key in _waiting.get(signum, ()):
        check_thread()


def check_closable(base: Root) -> None:
    """Raise `ThreadError` if *base* has signal events that this thread may not delete."""
    if _waiting and _owner is not None and _owner() is base:
        check_thread()


def claim(base: Root) -> None:
    """Make *base* the one that gets signals, or raise an error if that is impossible now."""
    global _owner
    check_thread()
    owner = None if _owner is None else _owner()
    if owner is not base:
        if owner is not None and _waiting and not owner.closed and owner._parked is None:
            raise errors.LibeventError(
                "another event base has signal events pending: only one per process can have them"
            )
        _waiting.clear()
        _owner = weakref.ref(base)


def added(signum: int, key: int) -> None:
    """Note that the event with *key* waits for *signum*."""
    if signum in _waiting:
        _waiting[signum].add(key)
    else:
        _waiting[signum] = {key}  # never empty, even after an interrupt


def removed(signum: int, key: int) -> None:
    """Note that the event with *key* no longer waits, and restore Python's handler."""
    keys = _waiting.get(signum)
    if keys is None or key not in keys:
        return
    if len(keys) > 1:
        keys.discard(key)
    else:
        restore(signum)  # first: after an interrupt, this is called again
        _waiting.pop(signum, None)


def restore(signum: int) -> None:
    """Set Python's handler for *signum* again, if it has one and this thread may set it."""
    handler = signal.getsignal(signum)
    if handler is not None and in_main_thread():
        signal.signal(signum, handler)


def reclaim(base: Root) -> None:
    """Add *base*'s signal events once more: some backends lose them in `event_reinit`."""
    if _owner is None or _owner() is not base:
        return
    tv = ffi.new("struct timeval *")
    for key in [key for keys in list(_waiting.values()) for key in list(keys)]:
        event = base._called_by(key)
        if event is None or event.closed:  # in a forked child, and not freed yet
            continue
        pointer = event.pointer
        timeout = -1.0
        if lib.event_pending(pointer, lib.EV_TIMEOUT, tv):
            timeout = max(0.0, convert.from_unix_time(tv) - time.time())
        lib.evpy_event_del(pointer, -1)
        errors.call(lib.evpy_event_add, pointer, timeout)


def forget(base: Root) -> None:
    """Note that *base* is freed, so that libevent has restored all handlers that it replaced."""
    global _owner
    if _owner is not None and _owner() in (base, None):
        _owner = None
        for signum in list(_waiting):
            del _waiting[signum]
            restore(signum)


def _after_fork() -> None:
    for signum in list(_waiting):
        restore(signum)


os.register_at_fork(after_in_child=_after_fork)
