"""The configurations in docs/deployment.md: nginx and HAProxy before two servers, under load."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.masters import Served, mastered
from tests.kit.serving import rest_of, until, wait_until
from tests.kit.support import PATIENCE, ROOT

#: Each starts several processes.
pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "deployment.md").read_text()

#: Says what it has been asked, and echoes by WebSocket.
APP = """
import json, os

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        await send({"type": "websocket.send", "text": message["text"].upper()})
        await send({"type": "websocket.close"})
        return
    assert scope["type"] == "http"
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    body = json.dumps({"pid": os.getpid(), "size": size, "headers": headers}).encode()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})
"""


def configuration(kind: str) -> str:
    """Return the page's configuration of that *kind*."""
    (found,) = re.findall(f"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Proxy:
    """A proxy before two servers."""

    def __init__(self, port: int, servers: list[Served]) -> None:
        self.port = port
        self.servers = servers

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)


@contextlib.contextmanager
def proxied(kind: str, place: Path) -> Iterator[Proxy]:
    """Start a proxy by the page's configuration of that *kind*, and two servers behind it."""
    if shutil.which(kind) is None and not Path(f"/usr/sbin/{kind}").exists():
        package = {"nginx": "nginx-light"}.get(kind, kind)
        pytest.fail(f"{kind} is missing: apt-get install {package}")
    program = shutil.which(kind) or f"/usr/sbin/{kind}"
    with contextlib.ExitStack() as stack:
        servers = []
        for name in "one", "two":
            (place / name).mkdir()
            command = mastered(place / name, "--workers", "2", app=APP)
            servers.append(stack.enter_context(command))
        port = free_port()
        text = configuration(kind)
        places = [(8080, port), (8000, servers[0].port), (8001, servers[1].port)]
        for before, after in places:
            assert f"127.0.0.1:{before}" in text
            text = text.replace(f"127.0.0.1:{before}", f"127.0.0.1:{after}")
        path = place / f"{kind}.conf"
        if kind == "nginx":
            kinds = "client_body", "proxy", "fastcgi", "uwsgi", "scgi"
            temporary = "".join(f"{name}_temp_path {place}/{name};\n" for name in kinds)
            text = text.replace("http {", f"http {{\n{temporary}access_log off;\n", 1)
            if not os.geteuid():  # else its workers could not write there
                text = f"user root;\n{text}"
            options = f"daemon off; pid {place}/pid; error_log {place}/error.log;"
            arguments = [program, "-e", f"{place}/error.log", "-c", str(path), "-g", options]
        else:
            arguments = [program, "-db", "-f", str(path)]  # in the foreground
        path.write_text(text)
        with (place / "proxy.log").open("wb") as log:
            process = subprocess.Popen(arguments, stdout=log, stderr=log, cwd=place)
        try:
            proxy = Proxy(port, servers)
            wait_until(lambda: answers(proxy) or process.poll() is not None)
            assert process.poll() is None, (place / "proxy.log").read_text()
            yield proxy
        finally:
            process.terminate()
            process.wait(PATIENCE)


def answers(proxy: Proxy) -> bool:
    """Tell whether the proxy answers with 200."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = proxy.connect()
        with contextlib.closing(connection):
            connection.request("GET", "/")
            return connection.getresponse().status == 200
    return False


@pytest.mark.parametrize("kind", ["nginx", pytest.param("haproxy", marks=pytest.mark.more)])
def test_the_configuration_serves_under_load_while_servers_come_and_go(
    tmp_path: Path, kind: str
) -> None:
    with proxied(kind, tmp_path) as proxy:
        # What is asked, and by whom.
        connection = proxy.connect()
        with contextlib.closing(connection):
            forged = {"Host": "a.test", "X-Forwarded-Proto": "https"}
            connection.request("POST", "/a?b", b"x" * 1_000_000, forged)
            answer = connection.getresponse()
            got = json.loads(answer.read())
        assert (answer.status, got["size"]) == (200, 1_000_000)
        assert got["headers"]["host"] == "a.test"
        assert got["headers"]["x-forwarded-for"] == "127.0.0.1"
        assert got["headers"]["x-forwarded-proto"] == "http"
        # WebSocket goes through.
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as sock:
            sock.sendall(
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            assert until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
            sock.sendall(b"\x81\x85\0\0\0\0hello")  # masked by zeros
            assert rest_of(sock).startswith(b"\x81\x05HELLO")
        # Load, while a server reloads, and the other one ends.
        end, seen = time.monotonic() + 2.5, set()

        def ask() -> int:
            asked = 0
            connection = proxy.connect()
            with contextlib.closing(connection):
                while time.monotonic() < end:
                    connection.request("GET", "/")
                    answer = connection.getresponse()
                    body = answer.read()
                    assert answer.status == 200, (answer.status, body)
                    seen.add(json.loads(body)["pid"])
                    asked += 1
            return asked

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask) for _ in range(4)]
            first, second = proxy.servers
            wait_until(lambda: seen & set(first.workers()) and seen & set(second.workers()))
            first.send(signal.SIGHUP)
            first.until("2 new workers serve")
            wait_until(lambda: seen & set(first.workers()))
            wait_until(lambda: len(first.workers()) == 2)  # the old ones have ended
            second.send(signal.SIGTERM)
            assert second.wait() == 0
            assert sum(one.result() for one in asked) > 100
