"""Group ``et`` of libevent's regression suite: edge-triggered events."""

from __future__ import annotations

import socket

import pytest

from libevent_py import Event, EventBase, EventFeature, EventFlag
from tests.kit.flags import ET, NONBLOCK, ONCE, PERSIST, READ, WRITE
from tests.kit.peers import Pair
from tests.kit.support import run_python


def test_et(backend_base: EventBase, pair: Pair) -> None:
    """What is left unread is reported once when edge triggered, and again and again when not."""
    left, right = pair
    left.sendall(b"test string")
    left.shutdown(socket.SHUT_WR)
    got = []

    def read_a_byte(event: Event, fd: int, what: EventFlag) -> None:
        got.append(what)
        assert right.recv(1)

    event = Event(backend_base, right, READ | ET | PERSIST, read_a_byte).add()
    assert backend_base.loop(NONBLOCK | ONCE)
    assert backend_base.loop(NONBLOCK | ONCE)
    edge_triggered = EventFeature.ET in backend_base.features
    assert got == ([READ | ET] if edge_triggered else [READ, READ])
    event.close()


def test_et_mix_error() -> None:
    """In debug mode an edge-triggered and a level-triggered event can't share a descriptor."""
    run_python(
        """
        import socket
        from libevent_py import Event, EventBase, EventConfig, EventFlag, LibeventError, debug

        def mix(first, second):
            first.add()
            try:
                second.add()
            except LibeventError:
                pass
            else:
                raise SystemExit(f"{first.base.method} mixes them")
            assert first.pending(EventFlag.READ) == EventFlag.READ
            assert not second.pending(EventFlag.READ)
            first.delete()

        debug.enable_debug_mode()
        methods = EventBase.supported_methods()
        left, right = socket.socketpair()
        left.setblocking(False)
        with left, right:
            for method in methods:
                others = [name for name in methods if name != method]
                with EventConfig(avoid=others) as config, EventBase(config) as base:
                    edge = Event(base, left, EventFlag.READ | EventFlag.ET, print)
                    level = Event(base, left, EventFlag.READ, print)
                    mix(edge, level)
                    mix(level, edge)
        """
    )


def test_et_multiple_events(backend_base: EventBase, pair: Pair) -> None:
    """Of two edge-triggered events on one descriptor, the one that is left stays so."""
    # libevent's suite leaves poll and select out as well: they take ET and don't mind it.
    if EventFeature.ET not in backend_base.features:
        pytest.skip(f"{backend_base.method} is not edge triggered")
    left, right = pair
    left.sendall(b"A")
    read: list[EventFlag] = []
    written: list[EventFlag] = []
    reader = Event(
        backend_base, right, READ | ET | PERSIST, lambda event, fd, what: read.append(what)
    ).add()
    writer = Event(
        backend_base, right, WRITE | ET | PERSIST, lambda event, fd, what: written.append(what)
    ).add()

    def run_twice() -> None:
        for _ in range(2):
            assert backend_base.loop(NONBLOCK | ONCE)

    run_twice()
    assert read == [READ | ET]
    assert written == [WRITE | ET]

    reader.delete()
    left.close()  # which is an edge, and the only one
    run_twice()
    assert read == [READ | ET]
    assert written == [WRITE | ET] * 2
    writer.close()
