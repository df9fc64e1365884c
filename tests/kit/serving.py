"""Serving applications to tests, and talking to them as bytes."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from libevent_py.serve import Config, serve
from tests.kit.support import PATIENCE

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Site(NamedTuple):
    """Where an application is served."""

    host: str
    port: int
    config: Config

    @property
    def url(self) -> str:
        """The URL of its root."""
        scheme = "http" if self.config.tls_cert is None else "https"
        return f"{scheme}://{self.host}:{self.port}"

    def connect(self) -> socket.socket:
        """Return a connected socket."""
        return socket.create_connection((self.host, self.port), timeout=PATIENCE)

    def talk(self, raw: bytes, end: bool = False) -> bytes:
        """Send *raw*, and with *end* no more; return all that comes until the server closes."""
        with self.connect() as sock:
            with contextlib.suppress(OSError):
                sock.sendall(raw)
                if end:
                    sock.shutdown(socket.SHUT_WR)
            return rest_of(sock)


def rest_of(sock: socket.socket) -> bytes:
    """Return all that comes until the peer closes."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


def until(sock: socket.socket, end: bytes) -> bytes:
    """Return what comes, at least up to *end*."""
    got = b""
    while end not in got:
        part = sock.recv(65536)
        assert part, f"the peer has closed after {got!r}"
        got += part
    return got


def statuses(raw: bytes) -> list[int]:
    """Return the statuses of the answers in *raw*."""
    return [int(number) for number in STATUS.findall(raw)]


def wait_until(true: Any) -> None:
    """Wait until ``true()`` is, but not for ever."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"{true} is still false"
        time.sleep(0.002)


@contextlib.contextmanager
def serving(app: Any, **settings: Any) -> Iterator[Site]:
    """Serve *app* in a thread inside a ``with`` block; afterwards all is closed."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=256)
    host, port = sock.getsockname()
    settings = {"graceful_timeout": 20.0, "lifespan": "off", **settings}
    config = Config(app, **settings)
    started = threading.Event()
    raised: list[BaseException] = []

    def work() -> None:
        try:
            serve(config, [sock], ready=started.set)
        except BaseException as error:
            raised.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=work, name=f"serving {port}")
    thread.start()
    try:
        assert started.wait(PATIENCE)
        if not raised:
            yield Site(host, port, config)
    finally:
        config.shutdown.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        if raised:
            raise raised[0]
