"""What tests of sockets share: the other ends of connections, and loops that run long enough."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator

from libevent_py import EventBase, LoopFlag
from tests.kit.support import PATIENCE

Pair = tuple[socket.socket, socket.socket]

#: A free port of this machine alone.
ANYWHERE = ("127.0.0.1", 0)


def run_until(base: EventBase, condition: Callable[[], object]) -> None:
    """Run the loop until *condition* holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it has not come to that"
        base.loop(LoopFlag.NONBLOCK)
        time.sleep(0.001)


def settle(base: EventBase) -> None:
    """Run the loop until it has done what there is to do now."""
    for _ in range(5):
        base.loop(LoopFlag.NONBLOCK)


def is_open(fd: int) -> bool:
    """Tell whether the descriptor *fd* is open."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def connected(address: tuple[str, int]) -> socket.socket:
    """Return a TCP socket that is connected to *address*."""
    return socket.create_connection(address, timeout=PATIENCE)


def tcp_pair() -> Pair:
    """Return the two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = connected(server.getsockname())
        return one, server.accept()[0]


def nobody_listens() -> tuple[str, int]:
    """Return an address where connections are refused."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        return host, port


@contextlib.contextmanager
def nobody_accepts() -> Iterator[tuple[str, int]]:
    """Give an address where connections are neither made nor refused: too many wait already."""
    with contextlib.ExitStack() as waiting:
        server = waiting.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()


def reset(sock: socket.socket) -> None:
    """Close a TCP socket so that the other end gets an error instead of the end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def rest(sock: socket.socket) -> bytes:
    """Return all that comes until the other end closes."""
    received = b""
    while data := sock.recv(65536):
        received += data
    return received


def exactly(sock: socket.socket, size: int) -> bytes:
    """Return the next *size* bytes."""
    received = b""
    while len(received) < size:
        data = sock.recv(size - len(received))
        assert data, f"the connection ended after {received!r}"
        received += data
    return received
