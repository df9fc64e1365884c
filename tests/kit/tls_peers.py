"""What tests of TLS share: contexts, ends of connections, a relay between them, other peers."""

from __future__ import annotations

import functools
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    EventBase,
    EventFlag,
    TlsContext,
    TlsVersion,
    lib,
)
from tests.kit.certificates import HOST, Authority
from tests.kit.peers import Pair, connected, nobody_listens, run_until
from tests.kit.support import PATIENCE


def server_context(authority: Authority, **arguments: Any) -> TlsContext:
    """Return a context with the certificate of `HOST`."""
    own = authority.server
    given = {"certfile": own.certfile, "keyfile": own.keyfile, **arguments}
    return TlsContext(server_side=True, **given)


def client_context(authority: Authority, **arguments: Any) -> TlsContext:
    """Return a context that believes the tests' authority."""
    return TlsContext(**{"cafile": authority.ca.certfile, **arguments})


@functools.cache
def tls_contexts() -> tuple[list[TlsContext], TlsContext]:
    """Return the process's contexts: some of clients, and a server's for `HOST`.

    The first client's is as usual, the second's can renegotiate, and the last refuses the server.
    """
    with tempfile.TemporaryDirectory() as name:
        authority = Authority(Path(name))
        server = server_context(authority)
        lib.SSL_CTX_set_options(server.pointer, lib.SSL_OP_ALLOW_CLIENT_RENEGOTIATION)
        older = client_context(authority, maximum_version=TlsVersion.TLSv1_2)
        return [client_context(authority), older, TlsContext()], server


class Contexts:
    """The client's context and the server's, as libevent's tests have them: nothing is verified."""

    def __init__(self, authority: Authority, version: TlsVersion = TlsVersion.TLSv1_3) -> None:
        own = authority.server
        self.client = TlsContext(verify=False, maximum_version=version)
        self.server = TlsContext(
            server_side=True,
            certfile=own.certfile,
            keyfile=own.keyfile,
            maximum_version=version,
        )
        lib.SSL_CTX_set_options(self.server.pointer, lib.SSL_OP_ALLOW_CLIENT_RENEGOTIATION)


class End:
    """One end of a connection, which notes what happens to it."""

    def __init__(self, make: Callable[..., BufferEvent], *arguments: Any, **named: Any) -> None:
        self.events: list[BufferEventFlag] = []
        self.error: OSError | None = None
        self.received = b""
        callbacks = {"on_read": self.on_read, "on_event": self.on_event}
        self.bev = make(*arguments, **callbacks, **named)
        self.bev.enable(EventFlag.READ)

    def on_read(self, bev: BufferEvent) -> None:
        self.received += bev.read()

    def on_event(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        self.events.append(what)
        self.error = bev.error or self.error

    @property
    def happened(self) -> BufferEventFlag:
        """All that has happened so far."""
        happened = BufferEventFlag(0)
        for event in self.events:
            happened |= event
        return happened

    @property
    def connected(self) -> bool:
        """Whether the handshake is done."""
        return BufferEventFlag.CONNECTED in self.happened

    @property
    def over(self) -> bool:
        """Whether the connection has ended, one way or the other."""
        return bool(self.happened & (BufferEventFlag.EOF | BufferEventFlag.ERROR))


def ends(
    base: EventBase,
    client: TlsContext,
    server: TlsContext,
    sockets: Pair | None = None,
    *,
    server_hostname: str | None = HOST,
    **named: Any,
) -> tuple[End, End]:
    """Return the client's and the server's end of a connection."""
    left, right = sockets or socket.socketpair()
    one = End(BufferEvent.tls, base, left, client, server_hostname=server_hostname, **named)
    return one, End(BufferEvent.tls, base, right, server, **named)


def connected_ends(
    base: EventBase, authority: Authority, sockets: Pair | None = None, **named: Any
) -> tuple[End, End]:
    """Return two ends whose handshake is done."""
    client, server = client_context(authority), server_context(authority)
    one, other = ends(base, client, server, sockets, **named)
    run_until(base, lambda: one.connected and other.connected)
    return one, other


class Relay:
    """Two pairs of sockets, of which the outer ends are connected until it cuts them off."""

    def __init__(self, most: int) -> None:
        left, self.left = socket.socketpair()
        right, self.right = socket.socketpair()
        self.outer = left, right
        self.most = most
        self.passed = 0
        for sock in (self.left, self.right):
            sock.setblocking(False)

    def pump(self) -> None:
        """Let pass what there is, up to `most` bytes in all, and cut off then."""
        for source, sink in ((self.left, self.right), (self.right, self.left)):
            room = self.most - self.passed
            if room <= 0:
                self.cut()
                return
            try:
                data = source.recv(min(room, 65536))
            except BlockingIOError:
                continue
            self.passed += len(data)
            sink.sendall(data)

    def cut(self) -> None:
        self.left.close()
        self.right.close()


@contextmanager
def in_thread(function: Callable[..., Any], *arguments: Any) -> Iterator[list[Any]]:
    """Run *function* in a thread meanwhile; what it returns is in the list afterwards."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function(*arguments))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield results
    finally:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextmanager
def openssl_server(*arguments: str) -> Iterator[tuple[str, int]]:
    """Run ``openssl s_server`` meanwhile, at the address given."""
    address = nobody_listens()
    command = ["openssl", "s_server", "-accept", "{}:{}".format(*address), *arguments]
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                connected(address).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < end
                time.sleep(0.01)
        yield address
    finally:
        server.kill()
        server.wait(PATIENCE)
