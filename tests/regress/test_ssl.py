"""Group ``ssl`` of libevent's regression suite.

What libevent's own suite fails on OpenSSL 3 passes here: an end without notice is EOF where that is
allowed (I6). Renegotiation is TLS 1.2's, which alone has it (I7).
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    EventBase,
    EventFlag,
    Listener,
    LoopFlag,
    TlsState,
    TlsVersion,
    ffi,
    lib,
)
from tests.kit.certificates import Authority
from tests.kit.flags import CLOSE, DEFER, READ, WRITE
from tests.kit.peers import Pair
from tests.kit.tls_peers import Contexts

CONNECTING, ACCEPTING, OPEN = TlsState.CONNECTING, TlsState.ACCEPTING, TlsState.OPEN

#: The number at which the one that reads it closes.
LAST = 1001


@pytest.fixture
def contexts(authority: Authority) -> Contexts:
    return Contexts(authority)


class Numbers:
    """Two bufferevents of which each answers a number with the next, and what has become of it."""

    def __init__(
        self,
        base: EventBase,
        *,
        client_write: bool = False,
        renegotiate: bool = False,
        check_fd: bool = False,
        check_freed: bool = False,
    ) -> None:
        self.base = base
        self.client_write = client_write
        self.renegotiate_at = 600 if renegotiate else -1
        self.check_fd = check_fd
        self.check_freed = check_freed
        self.clients: list[BufferEvent] = []
        self.done = self.connected = self.eof = self.errors = self.timeouts = 0
        self.stop_when_connected = False

    def begin(self, bev: BufferEvent, client: bool, dirty: bool = False) -> None:
        if client:
            self.clients.append(bev)
        bev.setcb(self.respond, self.written, self.happened)
        bev.allow_dirty_shutdown = dirty

    def respond(self, bev: BufferEvent) -> None:
        line = bev.input.readln()
        if line is None:
            return
        number = int(line)
        assert number > 0
        if number == LAST:
            self.done += 1
            bev.close()
            return
        if bev in self.clients and number == self.renegotiate_at:
            assert lib.SSL_renegotiate(bev.ssl) == 1
        bev.write(b"%d\n" % (number + 1))
        bev.enable(WRITE)
        bev.disable(READ)

    def written(self, bev: BufferEvent) -> None:
        if not bev.output:
            bev.disable(WRITE)
            bev.enable(READ)

    def happened(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        client = bev in self.clients
        if what & BufferEventFlag.CONNECTED:
            self.connected += 1
            assert bev.ssl
            assert (bev.peer_certificate is not None) is client
            if self.stop_when_connected and self.connected == 2:
                self.base.loopexit()
            if self.client_write and client:
                bev.write(b"1\n")
            return
        if what & BufferEventFlag.EOF:
            self.eof += 1
        elif what & BufferEventFlag.ERROR:
            self.errors += 1
        elif what & BufferEventFlag.TIMEOUT:
            self.timeouts += 1
        if self.check_fd:
            the_descriptor_can_be_taken(bev)
        if self.check_freed:
            nothing_is_pending(bev)
        bev.close()


def the_descriptor_can_be_taken(bev: BufferEvent) -> None:
    fd = bev.fd
    assert fd != -1
    if bev.underlying is not None:
        assert lib.bufferevent_setfd(bev.pointer, -1) == 0
        assert bev.fd == fd
    else:
        assert bev.detach() == fd
        assert bev.fd == -1
        os.close(fd)


def nothing_is_pending(bev: BufferEvent) -> None:
    """What C looks at after the bufferevent is freed has to be looked at before."""
    everything = READ | WRITE | EventFlag.TIMEOUT | EventFlag.SIGNAL | EventFlag.CLOSED
    for name in ("ev_read", "ev_write"):
        event = ffi.addressof(bev.pointer, name)
        assert lib.event_pending(event, everything, ffi.NULL) == 0


def run(
    base: EventBase,
    pair: Pair,
    contexts: Contexts,
    *,
    filtering: bool = False,
    startopen: bool = False,
    dirty: bool = False,
    timeout: bool = False,
    **named: Any,
) -> None:
    """Count up to `LAST` between two bufferevents, and see how it ends."""
    numbers = Numbers(base, **named)
    options = DEFER if startopen else DEFER | CLOSE
    below = [BufferEvent(base, sock.detach()) for sock in pair] if filtering else None
    fds = [sock.fileno() for sock in pair]
    both = []
    sides = ((contexts.client, CONNECTING), (contexts.server, ACCEPTING))
    for index, (context, state) in enumerate(sides):
        if below is not None:
            bev = BufferEvent.tls_filter(below[index], context, state, options=options)
            assert bev.underlying is below[index]
        else:
            fd = fds[index] if startopen else pair[index].detach()
            bev = BufferEvent.tls(base, fd, context, state, options=options)
            assert bev.fd == fds[index]
        numbers.begin(bev, index == 0, dirty)
        both.append(bev)

    if startopen:
        numbers.stop_when_connected = True
        assert base.dispatch()
        numbers.clients.clear()
        for index, old in enumerate(both):
            ssl = old.ssl
            lib.SSL_up_ref(ssl)
            old.close()
            if below is not None:
                bev = BufferEvent.tls_filter(below[index], ssl, OPEN, options=DEFER | CLOSE)
            else:
                bev = BufferEvent.tls(base, pair[index].detach(), ssl, OPEN, options=DEFER | CLOSE)
            lib.SSL_free(ssl)
            numbers.begin(bev, index == 0, dirty)
            both[index] = bev

    client, server = both
    client.enable(READ | WRITE)
    if timeout:
        server.disable(READ | WRITE)
        client.set_timeouts(0.1, 0.1)
    else:
        server.enable(READ | WRITE)
    if not numbers.client_write:
        client.write(b"1\n")
    base.dispatch()

    if timeout:
        assert (numbers.done, numbers.connected) == (0, 0)
        assert (numbers.eof, numbers.errors, numbers.timeouts) == (0, 0, 1)
        server.close()
    else:
        assert (numbers.done, numbers.connected, numbers.timeouts) == (1, 2, 0)
        assert (numbers.eof, numbers.errors) == ((1, 0) if dirty else (0, 1))


def test_bufferevent_socketpair(backend_base: EventBase, pair: Pair, contexts: Contexts) -> None:
    run(backend_base, pair, contexts)


def test_bufferevent_socketpair_write_after_connect(
    backend_base: EventBase, pair: Pair, contexts: Contexts
) -> None:
    run(backend_base, pair, contexts, client_write=True)


def test_bufferevent_filter(backend_base: EventBase, pair: Pair, contexts: Contexts) -> None:
    run(backend_base, pair, contexts, filtering=True)


def test_bufferevent_filter_write_after_connect(
    backend_base: EventBase, pair: Pair, contexts: Contexts
) -> None:
    run(backend_base, pair, contexts, filtering=True, client_write=True)


def test_bufferevent_renegotiate_socketpair(
    backend_base: EventBase, pair: Pair, authority: Authority
) -> None:
    run(backend_base, pair, Contexts(authority, TlsVersion.TLSv1_2), renegotiate=True)


def test_bufferevent_renegotiate_filter(
    backend_base: EventBase, pair: Pair, authority: Authority
) -> None:
    contexts = Contexts(authority, TlsVersion.TLSv1_2)
    run(backend_base, pair, contexts, filtering=True, renegotiate=True)


def test_bufferevent_socketpair_startopen(
    backend_base: EventBase, pair: Pair, contexts: Contexts
) -> None:
    run(backend_base, pair, contexts, startopen=True)


def test_bufferevent_filter_startopen(
    backend_base: EventBase, pair: Pair, contexts: Contexts
) -> None:
    run(backend_base, pair, contexts, filtering=True, startopen=True)


def test_bufferevent_socketpair_dirty_shutdown(
    backend_base: EventBase, pair: Pair, contexts: Contexts
) -> None:
    run(backend_base, pair, contexts, dirty=True)


def test_bufferevent_filter_dirty_shutdown(
    backend_base: EventBase, pair: Pair, contexts: Contexts
) -> None:
    run(backend_base, pair, contexts, filtering=True, dirty=True)


def test_bufferevent_renegotiate_socketpair_dirty_shutdown(
    backend_base: EventBase, pair: Pair, authority: Authority
) -> None:
    contexts = Contexts(authority, TlsVersion.TLSv1_2)
    run(backend_base, pair, contexts, renegotiate=True, dirty=True)


def test_bufferevent_renegotiate_filter_dirty_shutdown(
    backend_base: EventBase, pair: Pair, authority: Authority
) -> None:
    contexts = Contexts(authority, TlsVersion.TLSv1_2)
    run(backend_base, pair, contexts, filtering=True, renegotiate=True, dirty=True)


def test_bufferevent_socketpair_startopen_dirty_shutdown(
    backend_base: EventBase, pair: Pair, contexts: Contexts
) -> None:
    run(backend_base, pair, contexts, startopen=True, dirty=True)


def test_bufferevent_filter_startopen_dirty_shutdown(
    backend_base: EventBase, pair: Pair, contexts: Contexts
) -> None:
    run(backend_base, pair, contexts, filtering=True, startopen=True, dirty=True)


def test_bufferevent_socketpair_fd(backend_base: EventBase, pair: Pair, contexts: Contexts) -> None:
    run(backend_base, pair, contexts, check_fd=True)


def test_bufferevent_socketpair_freed(
    backend_base: EventBase, pair: Pair, contexts: Contexts
) -> None:
    run(backend_base, pair, contexts, check_freed=True)


def test_bufferevent_socketpair_freed_fd(
    backend_base: EventBase, pair: Pair, contexts: Contexts
) -> None:
    run(backend_base, pair, contexts, check_fd=True, check_freed=True)


def test_bufferevent_filter_freed_fd(
    backend_base: EventBase, pair: Pair, contexts: Contexts
) -> None:
    run(backend_base, pair, contexts, filtering=True, check_fd=True, check_freed=True)


def test_bufferevent_socketpair_timeout(
    backend_base: EventBase, pair: Pair, contexts: Contexts
) -> None:
    run(backend_base, pair, contexts, timeout=True)


def test_bufferevent_socketpair_timeout_freed_fd(
    backend_base: EventBase, pair: Pair, contexts: Contexts
) -> None:
    run(backend_base, pair, contexts, timeout=True, check_fd=True, check_freed=True)


def connect(base: EventBase, contexts: Contexts, *, sleep: bool = False) -> None:
    """Connect to a server, which with *sleep* takes its time.

    C then counts what the client reads and writes meanwhile, here the turns of the loop are.
    """
    numbers = Numbers(base)

    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        bev = BufferEvent.tls(base, fd, contexts.server, ACCEPTING, options=CLOSE | DEFER)
        bev.setcb(numbers.respond, None, numbers.happened)
        if sleep:
            base.once(lambda fd, what: bev.enable(READ | WRITE), timeout=0.1)
            bev.disable(READ | WRITE)
        else:
            bev.enable(READ | WRITE)
        listener.disable()

    listener = Listener(base, ("127.0.0.1", 0), on_accept)
    client = BufferEvent.tls(base, -1, contexts.client, CONNECTING, options=CLOSE | DEFER)
    numbers.clients.append(client)
    client.setcb(numbers.respond, BufferEvent.close, numbers.happened)
    client.connect(listener.address)
    client.write(b"1\n")
    client.enable(READ | WRITE)
    turns = 0
    while base.loop(LoopFlag.ONCE):
        turns += 1
    assert turns <= 100
    assert numbers.connected == 2
    assert client.closed


def test_bufferevent_connect(backend_base: EventBase, contexts: Contexts) -> None:
    connect(backend_base, contexts)


def test_bufferevent_connect_sleep(backend_base: EventBase, contexts: Contexts) -> None:
    connect(backend_base, contexts, sleep=True)


class Transfer:
    """One side of two that send each other more than their watermarks let in at once."""

    PAYLOAD = 1 << 10
    HIGH = 5 << 10
    LIMIT = HIGH << 3

    def __init__(self) -> None:
        self.data = Buffer(b"A" * self.PAYLOAD)
        self.got = 0
        self.neighbour: Transfer

    def begin(self, bev: BufferEvent) -> None:
        self.bev = bev
        bev.setwatermark(READ, 0, self.HIGH)
        bev.setcb(self.on_read, None, self.on_event)

    def on_read(self, bev: BufferEvent) -> None:
        if self.got >= self.LIMIT:
            bev.setcb(None, None, None)
            bev.disable(READ)
            if self.neighbour.got >= self.neighbour.LIMIT:
                bev.base.loopbreak()
        else:
            drained = min(len(bev.input), self.PAYLOAD >> 1)
            self.got += drained
            bev.input.drain(drained)
        bev.output.add_buffer_reference(self.data)

    def on_event(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        if not what & BufferEventFlag.CONNECTED:
            self.got = 0


def transfer(base: EventBase, contexts: Contexts, options: int, filtering: bool) -> None:
    """Have both sides reach their limit, with *options* and for the client as a filter or not."""
    client, server = Transfer(), Transfer()
    client.neighbour, server.neighbour = server, client

    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        bev = BufferEvent.tls(base, fd, contexts.server, ACCEPTING, options=options)
        server.begin(bev)
        bev.enable(READ | WRITE)
        listener.disable()

    listener = Listener(base, ("127.0.0.1", 0), on_accept)
    if filtering:
        below = BufferEvent(base, -1, options)
        bev = BufferEvent.tls_filter(below, contexts.client, CONNECTING, options=options)
    else:
        bev = below = BufferEvent.tls(base, -1, contexts.client, CONNECTING, options=options)
    client.begin(bev)
    below.connect(listener.address)
    bev.output.add_buffer_reference(client.data)
    bev.enable(READ | WRITE)
    assert base.dispatch()
    assert client.got == client.LIMIT
    assert server.got == server.LIMIT


def test_bufferevent_wm(backend_base: EventBase, contexts: Contexts) -> None:
    transfer(backend_base, contexts, CLOSE, filtering=False)


def test_bufferevent_wm_filter(backend_base: EventBase, contexts: Contexts) -> None:
    transfer(backend_base, contexts, CLOSE, filtering=True)


def test_bufferevent_wm_defer(backend_base: EventBase, contexts: Contexts) -> None:
    transfer(backend_base, contexts, CLOSE | DEFER, filtering=False)


def test_bufferevent_wm_filter_defer(backend_base: EventBase, contexts: Contexts) -> None:
    transfer(backend_base, contexts, CLOSE | DEFER, filtering=True)
