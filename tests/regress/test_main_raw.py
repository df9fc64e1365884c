"""Group ``main`` through the raw layer: how a loop ends, events for once, and what is global.

The object layer has code of its own for these functions of libevent, so that the tests of the same
names in test_main.py don't call them.
"""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from libevent_py import EventBase, ffi, lib
from tests.kit.flags import READ, TIMEOUT
from tests.kit.peers import Pair
from tests.kit.raw import FromC, timeval
from tests.kit.support import PATIENCE, run_python
from tests.kit.variants import TICK

TEXT = b"this is a test\0"


def never(from_c: FromC) -> Any:
    """Return a callback of events that fails."""

    @from_c("event_callback_fn")
    def never(_fd: int, what: int, _arg: Any) -> None:
        raise AssertionError(f"it fired for {what}")

    return never


def dispatch(base: Any) -> tuple[int, float]:
    """Run the loop; return what C returns, and how many seconds it took."""
    begun = time.monotonic()
    return lib.event_base_dispatch(base), time.monotonic() - begun


def test_loopexit(backend_base: EventBase, from_c: FromC) -> None:
    """event_base_loopexit() ends the loop at a time, or after this turn without one."""
    base = backend_base.pointer
    tomorrow = lib.event_new(base, -1, 0, never(from_c), ffi.NULL)
    assert lib.event_add(tomorrow, timeval(24 * 60 * 60)) == 0
    assert lib.event_base_loopexit(base, timeval(0.1)) == 0
    result, took = dispatch(base)
    assert result == 0
    assert 0.1 - TICK <= took < PATIENCE
    assert lib.event_base_got_exit(base)
    assert not lib.event_base_got_break(base)

    ran: list[str] = []

    @from_c("event_callback_fn")
    def exit_now(_fd: int, _what: int, _arg: Any) -> None:
        ran.append("exit")
        assert lib.event_base_loopexit(base, ffi.NULL) == 0

    @from_c("event_callback_fn")
    def note(_fd: int, _what: int, _arg: Any) -> None:
        ran.append("other")

    events = [lib.event_new(base, -1, 0, callback, ffi.NULL) for callback in (exit_now, note)]
    for event in events:
        assert lib.event_add(event, timeval(0)) == 0
    assert dispatch(base)[0] == 0
    assert ran == ["exit", "other"]
    assert lib.event_base_got_exit(base)
    for event in (tomorrow, *events):
        lib.event_free(event)


def test_loopexit_multiple(backend_base: EventBase) -> None:
    """Of several times given to event_base_loopexit() the earliest ends the loop; none is lost."""
    base = backend_base.pointer
    for seconds in (0.05, 0.2, PATIENCE):
        assert lib.event_base_loopexit(base, timeval(seconds)) == 0
    begun = time.monotonic()
    for seconds in (0.05, 0.2):
        assert dispatch(base)[0] == 0
        assert seconds - TICK <= time.monotonic() - begun < PATIENCE
        assert lib.event_base_got_exit(base)
        assert not lib.event_base_got_break(base)


def test_loopbreak(backend_base: EventBase, from_c: FromC) -> None:
    """event_base_loopbreak() ends the loop before the next callback."""
    base = backend_base.pointer

    @from_c("event_callback_fn")
    def break_loop(_fd: int, _what: int, _arg: Any) -> None:
        assert lib.event_base_loopbreak(base) == 0

    events = [
        lib.event_new(base, -1, 0, callback, ffi.NULL) for callback in (break_loop, never(from_c))
    ]
    for event in events:
        assert lib.event_add(event, timeval(0)) == 0
    assert dispatch(base)[0] == 0
    assert lib.event_base_got_break(base)
    assert not lib.event_base_got_exit(base)
    for event in events:
        lib.event_free(event)


def test_want_only_once(backend_base: EventBase, pair: Pair, from_c: FromC) -> None:
    """A one-shot event fires once, though data keep arriving."""
    left, right = pair
    left.sendall(TEXT)
    read: list[bytes] = []

    @from_c("event_callback_fn")
    def on_read(_fd: int, _what: int, _arg: Any) -> None:
        read.append(right.recv(256))
        left.sendall(TEXT)

    base = backend_base.pointer
    event = lib.event_new(base, right.fileno(), READ, on_read, ffi.NULL)
    assert lib.event_add(event, ffi.NULL) == 0
    assert lib.event_base_loopexit(base, timeval(0.05)) == 0
    assert dispatch(base)[0] == 0
    assert read == [TEXT]
    lib.event_free(event)


def test_event_once(backend_base: EventBase, pair: Pair, from_c: FromC) -> None:
    """event_base_once() calls back for a descriptor, after a time, or at once, and no more."""
    left, right = pair
    base = backend_base.pointer
    called: list[tuple[int, int, int]] = []

    @from_c("event_callback_fn")
    def note(fd: int, what: int, arg: Any) -> None:
        called.append((int(ffi.cast("intptr_t", arg)), fd, what))

    def once(fd: int, what: int, arg: int, timeout: Any = ffi.NULL, callback: Any = note) -> int:
        return int(lib.event_base_once(base, fd, what, callback, ffi.cast("void *", arg), timeout))

    begun = time.monotonic()
    assert once(left.fileno(), READ, 1) == 0
    assert once(-1, TIMEOUT, 2, timeval(0.05)) == 0
    assert once(-1, 0, 9, callback=ffi.NULL) == -1
    assert once(-1, 0, 9) == -1
    assert once(1, lib.EV_SIGNAL, 9) == -1
    assert once(left.fileno(), READ | lib.EV_PERSIST, 9) == -1
    assert once(-1, TIMEOUT, 3) == 0
    assert once(-1, TIMEOUT, 4, timeval(0)) == 0
    right.sendall(TEXT)
    right.shutdown(socket.SHUT_WR)
    assert dispatch(base)[0] == 1
    assert time.monotonic() - begun >= 0.05 - TICK
    assert sorted(called) == [
        (1, left.fileno(), READ),
        (2, -1, TIMEOUT),
        (3, -1, TIMEOUT),
        (4, -1, TIMEOUT),
    ]
    assert called[-1] == (2, -1, TIMEOUT)
    assert left.recv(256) == TEXT


def test_event_once_of_a_descriptor_with_a_timeout(
    backend_base: EventBase, pair: Pair, from_c: FromC
) -> None:
    """event_base_once() calls once, for a descriptor or for a time, whichever comes first."""
    base = backend_base.pointer
    called: list[int] = []

    @from_c("event_callback_fn")
    def note(_fd: int, what: int, _arg: Any) -> None:
        called.append(what)

    left, right = (end.fileno() for end in pair)
    assert lib.event_base_once(base, left, READ, note, ffi.NULL, timeval(0.02)) == 0
    assert dispatch(base)[0] == 1
    assert called == [TIMEOUT]
    pair[0].send(b"x")
    assert lib.event_base_once(base, right, READ, note, ffi.NULL, timeval(PATIENCE)) == 0
    result, took = dispatch(base)
    assert (result, called[1:]) == (1, [READ])
    assert took < PATIENCE / 2


def test_event_once_never(backend_base: EventBase, from_c: FromC) -> None:
    """What event_base_once() never called goes with its base."""
    base = backend_base.pointer
    callback = never(from_c)
    assert lib.event_base_once(base, -1, TIMEOUT, callback, ffi.NULL, timeval(10)) == 0
    assert lib.event_base_loopexit(base, timeval(0.02)) == 0
    assert dispatch(base)[0] == 0
    backend_base.close()


def test_base_set(new_base: Any, from_c: FromC) -> None:
    """event_base_set() moves an event to another base, unless it has been added."""
    one, other = new_base().pointer, new_base().pointer
    called: list[int] = []

    @from_c("event_callback_fn")
    def note(_fd: int, what: int, _arg: Any) -> None:
        called.append(what)

    event = lib.event_new(one, -1, 0, note, ffi.NULL)
    assert lib.event_base_set(other, event) == 0
    assert lib.event_get_base(event) == other
    assert lib.event_add(event, timeval(0)) == 0
    assert lib.event_base_set(one, event) == -1
    assert lib.event_base_loop(one, lib.EVLOOP_NONBLOCK) == 1
    assert called == []
    assert lib.event_base_dispatch(other) == 1
    assert called == [TIMEOUT]
    lib.event_free(event)


@pytest.mark.parametrize(("program", "status"), [("os._exit(7)", 7), ("pass", 1)])
def test_fatal_callback(program: str, status: int) -> None:
    """event_set_fatal_callback() has a function called before libevent ends the process.

    Here because debug mode comes too late, in a process of its own.
    """
    output = run_python(
        f"""
        import os
        from libevent_py import EventBase, ffi, lib

        @ffi.callback("event_fatal_cb")
        def fatal(code):
            print("fatal", code, flush=True)
            {program}

        lib.event_set_fatal_callback(fatal)
        base = EventBase()
        lib.event_enable_debug_mode()
        """,
        status=status,
        stderr=None,
    )
    assert output == "fatal 1\n"


def test_global_shutdown() -> None:
    """libevent_global_shutdown() frees what no base has: in a process that uses nothing more."""
    run_python(
        """
        import os
        from libevent_py import EventBase, ffi, lib

        base = lib.event_base_new()
        event = lib.event_new(base, 10, lib.EV_SIGNAL, ffi.NULL, ffi.NULL)
        assert lib.event_add(event, ffi.NULL) == 0
        lib.event_free(event)
        lib.event_base_free(base)
        lib.libevent_global_shutdown()
        lib.libevent_global_shutdown()
        os._exit(0)
        """,
        valgrind=True,
    )
