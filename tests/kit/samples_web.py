"""What tests of the HTTP samples share: servers and a proxy that aren't ours, and curl."""

from __future__ import annotations

import hashlib
import http.server
import random
import re
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kit.certificates import Certificate
from tests.kit.peers import exactly
from tests.kit.samples import Sample, Server
from tests.kit.support import PATIENCE

#: More than all buffers on the way hold together.
BIG = random.Random(0).randbytes(2**23)


class Files(http.server.BaseHTTPRequestHandler):
    """Serves `BIG` as /big, and the request itself, its first line, as anything else."""

    def do_GET(self) -> None:
        body = BIG if self.path == "/big" else self.requestline.encode()
        self.send_response(200 if self.path != "/nothing" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        digest = hashlib.sha256(body).hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(digest)))
        self.end_headers()
        self.wfile.write(digest)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class InThreads(http.server.ThreadingHTTPServer):
    """A server whose end waits for its threads', which close the connections."""

    daemon_threads = False

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, address = super().get_request()
        sock.settimeout(PATIENCE)  # a client that stays keeps no thread for ever
        return sock, address


@contextmanager
def in_thread(server: http.server.HTTPServer) -> Iterator[None]:
    """Let *server* serve in a thread."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join(PATIENCE)


@contextmanager
def serving(wrap: Callable[[socket.socket], socket.socket] = lambda sock: sock) -> Iterator[int]:
    """Run a web server that isn't ours; give its port."""
    with InThreads(("127.0.0.1", 0), Files) as server:
        server.socket = wrap(server.socket)
        with in_thread(server):
            yield server.server_address[1]


@contextmanager
def secured(own: Certificate) -> Iterator[int]:
    """Run a web server that speaks TLS by Python's own ssl; give its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.certfile, own.keyfile)

    def wrap(sock: socket.socket) -> socket.socket:
        return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    with serving(wrap) as port:
        yield port


class Proxy(http.server.BaseHTTPRequestHandler):
    """Connects to localhost only."""

    def do_CONNECT(self) -> None:
        host, _, port = self.path.partition(":")
        if host != "localhost":
            self.send_error(403)
            return
        self.send_response(200, "Connection established")
        self.end_headers()
        with socket.create_connection((host, int(port)), PATIENCE) as there:
            ends = {self.connection: there, there: self.connection}
            while True:
                for sock in select.select(list(ends), [], [], PATIENCE)[0]:
                    if not (data := sock.recv(65536)):
                        return
                    ends[sock].sendall(data)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def connecting() -> Iterator[int]:
    """Run a proxy that isn't ours; give its port."""
    with InThreads(("127.0.0.1", 0), Proxy) as server, in_thread(server):
        yield server.server_address[1]


class Behind(http.server.BaseHTTPRequestHandler):
    """What the server behind the proxy does with a request: it says what it has got."""

    protocol_version = "HTTP/1.1"
    server: Any

    def setup(self) -> None:
        super().setup()
        self.server.accepted += 1

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet."""

    def parse_request(self) -> bool:
        found = super().parse_request()
        self.do_ANY() if found else None
        return False if found else found

    def do_ANY(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.items()))
        size = int(re.findall(r"size=(\d+)|$", self.path)[0] or 0)
        body = bytes(size) or f"{self.command} {self.path} {self.body()}".encode()
        self.send_response(201, "Made up")
        self.send_header("X-Behind", "yes")
        self.send_header("Connection", "X-Secret")
        self.send_header("X-Secret", "is for the proxy only")
        if "chunked" in self.path:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.answer(body)

    def answer(self, body: bytes) -> None:
        if "chunked" not in self.path:
            self.wfile.write(body)
            return
        for at in range(0, len(body), 70_000):
            part = body[at : at + 70_000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def body(self) -> str:
        """Return how long the body is, and its checksum."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        else:
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                assert self.rfile.readline() == b"\r\n"
            assert self.rfile.readline() == b"\r\n"
        return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


class Origin(InThreads):
    """A server behind the proxy, in threads of this process."""

    def __init__(self) -> None:
        #: How many connections there have been, and what has been asked.
        self.accepted = 0
        self.asked: list[tuple[str, str, list[tuple[str, str]]]] = []
        super().__init__(("127.0.0.1", 0), Behind)


@contextmanager
def originating() -> Iterator[Origin]:
    """Run a server that is to be behind a proxy."""
    with Origin() as origin, in_thread(origin):
        yield origin


GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"


def curl(server: Sample, path: str, *options: str, scheme: str = "http") -> bytes:
    """Return what curl prints that asks *server* for *path* as it stands here."""
    where = f"localhost:{server.port}" if isinstance(server, Server) else "localhost"
    command = ["curl", "-sS", "--path-as-is", "--noproxy", "*", *options]
    done = subprocess.run(
        [*command, f"{scheme}://{where}{path}"], capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def code(server: Sample, path: str, *options: str) -> int:
    """Return the status code of the answer."""
    return int(curl(server, path, "-o/dev/null", "-w%{http_code}", *options))


def peak(server: Sample) -> int:
    """Return the most memory that *server* has had, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) * 1024


def answered(sock: socket.socket) -> tuple[bytes, bytes]:
    """Return the head and the body of one answer with a Content-Length."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += exactly(sock, 1)
    [length] = re.findall(rb"(?im)^content-length: (\d+)", head) or [b"0"]
    return head, exactly(sock, int(length))
