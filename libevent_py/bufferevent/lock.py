"""Holding the lock of a THREADSAFE bufferevent."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from libevent_py._core.owner import get_ident
from libevent_py._ffi import lib

if TYPE_CHECKING:
    from libevent_py.bufferevent.bufferevent import BufferEvent


def locked(bev: BufferEvent) -> Generator[None, None, None]:
    """Hold the lock of *bev*, and keep its base from being closed inside the block."""
    bev.base._check_thread()
    pointer, base, thread = bev.pointer, bev.base, get_ident()
    before = base._holds.get(thread, 0)
    try:
        base._holds[thread] = before + 1
        try:  # an interrupt can come only after the call of C, not before
            lib.bufferevent_lock(pointer)
            yield
        finally:
            lib.bufferevent_unlock(pointer)  # does nothing in another thread, where it is dropped
    finally:
        if before:
            base._holds[thread] = before
        else:
            del base._holds[thread]
