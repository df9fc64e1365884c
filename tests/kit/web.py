"""What tests of the HTTP server share: clients that the same thread's loop serves."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable

from libevent_py import EventBase, HttpServer
from tests.kit.peers import connected, run_until
from tests.kit.support import PATIENCE

Where = tuple[str, int]


def get(path: str = "/", *, version: str = "1.1", method: str = "GET", more: str = "") -> bytes:
    """Return a request after which the server closes the connection."""
    return (
        f"{method} {path} HTTP/{version}\r\nHost: a.test\r\nConnection: close\r\n{more}\r\n"
    ).encode("latin-1")


def where(server: HttpServer) -> Where:
    """Return the address that *server* listens on."""
    address: Where = server.bound_sockets[0].address
    return address


class Client:
    """A connection to a server of this very thread."""

    def __init__(self, base: EventBase, where: Where) -> None:
        self.base = base
        self.sock = connected(where)
        self.sock.setblocking(False)
        self.received = b""
        self.ended = False

    def send(self, data: bytes) -> Client:
        """Send *data*, which the socket must take at once."""
        assert self.sock.send(data) == len(data)
        return self

    def poll(self) -> bytes:
        """Take what has come, and return all that ever has."""
        try:
            while not self.ended:
                data = self.sock.recv(65536)
                self.received += data
                self.ended = not data
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.ended = True
        return self.received

    def until(self, condition: Callable[[bytes], object]) -> bytes:
        """Run the loop until what has come fulfils *condition*; return it."""
        run_until(self.base, lambda: condition(self.poll()))
        return self.received

    def rest(self) -> bytes:
        """Run the loop until the server closes the connection; return all that has come."""
        run_until(self.base, lambda: self.poll() is None or self.ended)
        self.sock.close()
        return self.received

    def close(self) -> None:
        """Close this end."""
        self.sock.close()


def ask(base: EventBase, where: Where, request: bytes) -> tuple[str, dict[str, str], bytes]:
    """Return the status line, the headers and the body of the answer, for which it closes."""
    return parsed(Client(base, where).send(request).rest())


def parsed(answer: bytes) -> tuple[str, dict[str, str], bytes]:
    """Return the status line, the headers and the body of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return status, {name: value for name, _, value in pairs}, body


def curl(base: EventBase, *arguments: str) -> bytes:
    """Return what curl prints, while *base* serves it."""
    command = ["curl", "--silent", "--show-error", "--max-time", str(int(PATIENCE)), *arguments]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            run_until(base, lambda: process.poll() is not None)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        return output.read()
