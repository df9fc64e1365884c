"""What is done for a reply that has been given, at a clean moment: freed, ended or written.

C frees a request, and maybe its connection, as soon as the reply is written, and somebody may be
using them just then. What waits is in a list, which whoever does it empties right before C is
called: so an interrupt loses nothing, and nothing is done twice.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from libevent_py import errors
from libevent_py._ffi import lib

if TYPE_CHECKING:
    from libevent_py._ffi import CData
    from libevent_py.event.base import EventBase


def free_orphan(base: EventBase, pointer: CData) -> None:
    """Free C's request *pointer*, if it is an orphan, as soon as no method can be using it.

    C says so once, and is asked in one step with noting it: so an interrupt neither loses it nor
    frees it twice.
    """
    note = base._notes_once_clean(lib.evpy_http_free_orphan, pointer)
    asked = map(lib.evpy_http_take_orphan, (pointer,))
    if list(itertools.starmap(note, itertools.compress(((),), asked))) and not base._forked:
        if base._busy():
            base._wake()
        else:
            base._exhume()


def note_end(base: EventBase, kept: list[CData]) -> Callable[[], object]:
    """Return what has the reply to the request in *kept* ended; it is implemented in C."""
    return _notes(base, kept, lib.evpy_http_end_kept, lib.evpy_http_end_kept)


def write_at_last(base: EventBase, evcon: CData) -> None:
    """Make sure that the next reply on *evcon* is written, even if the loop ends before.

    Only as much is written as the socket takes without waiting.
    """
    if evcon:
        held: list[CData] = []
        # In a child the parent process writes it.
        note = _notes(base, held, lib.evpy_http_push, lib.bufferevent_decref)
        try:
            errors.put(held.append, lib.evpy_http_hold, evcon)
        finally:
            note()  # implemented in C: an interrupt can only come later


def _notes(
    base: EventBase,
    held: list[CData],
    end: Callable[[CData], object],
    otherwise: Callable[[CData], object],
) -> Callable[[], object]:
    """Return what notes that *end* is to be called with what is in *held*, once that is clean."""
    do = functools.partial(_do, base, os.getpid(), end, otherwise)
    do.goes_on = True  # type: ignore[attr-defined]  # see `goes_on`
    return base._notes_once_clean(do, held)


def _do(
    base: EventBase,
    process: int,
    end: Callable[[CData], object],
    otherwise: Callable[[CData], object],
    held: list[CData],
) -> None:
    """Call *end*, or *otherwise* where nobody is to be told; after an interrupt, go on."""
    if process == os.getpid() and not base.closed:
        base._tell(_let_go, held, end)
    else:
        _let_go(held, otherwise)


def _let_go(held: list[CData], end: Callable[[CData], object]) -> None:
    if held:
        pointer = held[0]
        del held[0]  # no call from here to the next line
        end(pointer)
