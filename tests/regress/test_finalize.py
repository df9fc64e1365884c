"""Group ``finalize`` of libevent's regression suite: events that are freed while they are in use.

What the object layer closes with a finalizer is freed after it; finalizers that free the event
themselves exist only in the raw layer.
"""

from __future__ import annotations

from typing import Any

import pytest

from libevent_py import ClosedError, Event, EventBase, EventFlag, ffi, lib
from tests.kit.flags import PERSIST
from tests.kit.support import run_python


def test_cb_invoked(backend_base: EventBase) -> None:
    """A finalizer runs instead of the callback, for an idle, an active and a pending event.

    The half about libevent's private event_callback is left out. The object layer refuses an
    event on which close() was called; that libevent ignores it then is shown by the raw layer.
    """
    base = backend_base
    called: list[Event] = []
    finalized: list[Event] = []

    def on_timeout(event: Event, fd: int, what: EventFlag) -> None:
        called.append(event)

    idle = Event.timer(base, on_timeout)
    idle.close(finalized.append)
    assert finalized == []
    base.dispatch()
    assert (called, finalized) == ([], [idle])

    active = Event.timer(base, on_timeout)
    active.active()
    base.dispatch()
    assert (called, finalized) == ([active], [idle])
    active.active()
    active.close(finalized.append)
    base.dispatch()
    assert (called, finalized) == ([active], [idle, active])

    pending = Event.timer(base, on_timeout).add(10)
    pending.close(finalized.append)
    base.dispatch()
    assert (called, finalized) == ([active], [idle, active, pending])

    late = Event.timer(base, on_timeout).add(10)
    late.close(finalized.append)
    for use in (late.add, late.active, late.delete):
        with pytest.raises(ClosedError):
            use()
    base.dispatch()
    assert (called, finalized) == ([active], [idle, active, pending, late])


@ffi.callback("event_callback_fn")  # type: ignore[untyped-decorator]
def note_call(fd: int, what: int, arg: Any) -> None:
    ffi.from_handle(arg).append("called")


@ffi.callback("event_finalize_callback_fn")  # type: ignore[untyped-decorator]
def note_finalizer(ev: Any, arg: Any) -> None:
    ffi.from_handle(arg).append("finalized")


def test_cb_invoked_raw(backend_base: EventBase) -> None:
    """An event that is being finalized can't be added or made active any more.

    The last part of ``cb_invoked``, through the raw layer.
    """
    notes: list[str] = []
    arg = ffi.new_handle(notes)
    ten_seconds = ffi.new("struct timeval *", (10, 0))
    ev = lib.event_new(backend_base.pointer, -1, 0, note_call, arg)
    assert lib.event_finalize(0, ev, note_finalizer) == 0
    assert lib.event_add(ev, ten_seconds) == -1
    assert lib.event_del(ev) == 0
    lib.event_active(ev, lib.EV_TIMEOUT, 1)
    assert backend_base.dispatch() is False
    assert notes == ["finalized"]
    lib.event_free(ev)


@pytest.mark.parametrize("what", [EventFlag(0), PERSIST])
def test_within_cb(backend_base: EventBase, what: EventFlag) -> None:
    """Of two active events, the first to run finalizes both, and the second runs no more.

    Through the raw layer each finalizer frees its event; in the object layer close() does.
    """
    calls: list[Any] = []
    finalized: list[Any] = []

    @ffi.callback("event_callback_fn")  # type: ignore[untyped-decorator]
    def finalize_both(fd: int, what: int, ev: Any) -> None:
        calls.append(ev)
        for each in evs:
            lib.event_finalize(0, each, finalize)

    @ffi.callback("event_finalize_callback_fn")  # type: ignore[untyped-decorator]
    def finalize(ev: Any, arg: Any) -> None:
        finalized.append(ev)
        lib.event_free(ev)

    self_cbarg = lib.event_self_cbarg()
    evs = [
        lib.event_new(backend_base.pointer, -1, what, finalize_both, self_cbarg) for _ in range(2)
    ]
    for ev in evs:
        lib.event_active(ev, lib.EV_TIMEOUT, 1)
    assert backend_base.dispatch() is False
    assert calls == evs[:1]
    assert finalized == evs

    calls.clear()
    finalized.clear()

    def close_both(event: Event, fd: int, what: EventFlag) -> None:
        calls.append(event)
        for each in events:
            each.close(finalized.append)

    events = [Event(backend_base, -1, what, close_both) for _ in range(2)]
    for event in events:
        event.active()
    assert backend_base.dispatch() is False
    assert calls == events[:1]
    assert finalized == events


def test_debug_use_after_free() -> None:
    """In debug mode an event may be assigned anew in its own finalizer, then added and finalized.

    Through the raw layer, the only one with events of one's own, and in a process of its own.
    """
    run_python(
        """
        from libevent_py import EventBase, debug, ffi, lib

        @ffi.callback("event_callback_fn")
        def callback(fd, what, arg):
            print("called")

        @ffi.callback("event_finalize_callback_fn")
        def finalize(ev, base):
            finalized.append(ev)
            if base != ffi.NULL:
                event_base = ffi.cast("struct event_base *", base)
                assigned.append(lib.event_assign(ev, event_base, -1, 0, callback, ffi.NULL))

        debug.enable_debug_mode()
        finalized, assigned = [], []
        with EventBase() as base:
            ev = ffi.new("struct event *")
            lib.event_assign(ev, base.pointer, -1, 0, callback, base.pointer)
            for _ in range(2):
                assert lib.event_add(ev, ffi.NULL) == 0
                assert lib.event_finalize(0, ev, finalize) == 0
                assert base.dispatch() is False
            assert finalized == [ev, ev]
            assert assigned == [0]
        """
    )
