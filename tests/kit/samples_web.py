"""What tests of the HTTP samples share: a server that isn't ours, and curl."""

from __future__ import annotations

import hashlib
import http.server
import random
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def serving(wrap: Callable[[socket.socket], socket.socket] = lambda sock: sock) -> Iterator[int]:
    """Run a web server that isn't ours; give its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        server.socket = wrap(server.socket)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(PATIENCE)


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
