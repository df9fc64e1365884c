"""TLS that has to write before it can read on, while reading is suspended."""

from __future__ import annotations

import pytest

from tests.kit.certificates import Authority
from tests.kit.support import run_python

#: A server renegotiates when its client can't write, and has as much input as its watermark says.
HELD_UP = """
import faulthandler, socket, sys, time
from libevent_py import *

faulthandler.dump_traceback_later(60, exit=True)
READ, WRITE = EventFlag.READ, EventFlag.WRITE
kind, certfile, keyfile = sys.argv[1:]
old = TlsVersion.TLSv1_2
ours = TlsContext(server_side=True, certfile=certfile, keyfile=keyfile, maximum_version=old)
theirs = TlsContext(verify=False, maximum_version=old)


def turn(base):
    for _ in range(20):
        base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)


with EventBase() as base:
    here, there = socket.socketpair()
    arrived, beside = here.dup(), there.dup()
    arrived.setblocking(False)
    beside.setblocking(False)
    server = BufferEvent.tls(base, here, ours)
    if kind == "socket":
        client = BufferEvent.tls(base, there, theirs)
    else:
        below = BufferEvent(base, there)
        client = BufferEvent.tls_filter(below, theirs)
    events = []
    client.on_event = lambda bev, what: events.append(what)
    client.enable(READ | WRITE)
    server.enable(READ | WRITE)
    turn(base)
    server.write(b"hello")
    turn(base)
    assert bytes(client.input) == b"hello", events
    server.disable(READ)
    turn(base)
    if kind == "socket":
        try:
            while True:
                beside.send(bytes(1000))
        except BlockingIOError:
            pass
    else:
        below.setwatermark(WRITE, 0, 1)
        below.disable(WRITE)
        client.write(b"x")
    server.renegotiate()
    turn(base)
    client.setwatermark(READ, 0, 1)  # it has more than that
    client.write(b"y")
    client.disable(WRITE)
    client.enable(WRITE)
    received = bytearray()
    try:
        while True:
            received += arrived.recv(1 << 20)
    except BlockingIOError:
        pass
    turn(base)  # where libevent looped for ever
    base.loopexit(0.5)
    used = time.process_time()
    base.dispatch()
    assert time.process_time() - used < 0.3, "the loop is busy"
    client.setwatermark(READ, 0, 0)
    if kind != "socket":
        below.setwatermark(WRITE, 0, 0)
        below.enable(WRITE)
    turn(base)
    try:
        while True:
            received += arrived.recv(1 << 20)
    except BlockingIOError:
        pass
    records = bytes(received).lstrip(bytes(1))
    assert b"\\x16\\x03\\x03" in records, records[:99]  # a handshake's
    arrived.close()
    beside.close()
print("went on", events)
"""


@pytest.mark.parametrize("kind", ["socket", "filter"])
def test_tls_that_has_to_write_to_read_on_waits_while_reading_is_suspended(
    kind: str, authority: Authority
) -> None:
    certificate = authority.server
    told = run_python(HELD_UP, kind, str(certificate.certfile), str(certificate.keyfile))
    assert told == "went on [<BufferEventFlag.CONNECTED: 128>]\n"
