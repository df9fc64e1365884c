"""The README's examples, each run as it stands there, but on a free port."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.kit.peers import connected, exactly, nobody_listens
from tests.kit.support import PATIENCE, ROOT

EXAMPLES = dict(
    re.findall(
        r"^## ([^\n]+)\n+(?:(?!##|```).*\n)*(```python\n(?:(?!^## ).*\n)*)",
        (ROOT / "README.md").read_text(),
        re.MULTILINE,
    )
)


def example(section: str, number: int = 0, port: int = 8888) -> list[str]:
    """Return the command that runs an example of the README, on *port*."""
    code = re.findall(r"```python\n(.*?)```", EXAMPLES[section], re.DOTALL)[number]
    return [sys.executable, "-X", "dev", "-W", "error", "-c", code.replace("8888", str(port))]


@contextlib.contextmanager
def serving(section: str) -> Iterator[tuple[str, int]]:
    """Run a section's server meanwhile, and give its address."""
    address = nobody_listens()
    with subprocess.Popen(example(section, port=address[1]), cwd=ROOT) as server:
        try:
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    connected(address).close()
                    break
                except ConnectionRefusedError:
                    assert server.poll() is None
                    assert time.monotonic() < end
                    time.sleep(0.01)
            yield address
        finally:
            server.kill()


def printed(command: list[str]) -> str:
    return subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=True
    ).stdout


def test_every_section_with_examples_is_tested() -> None:
    assert list(EXAMPLES) == ["An echo server", "HTTP"]


def test_it_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def test_the_echo_server_echoes() -> None:
    with serving("An echo server") as address, connected(address) as sock:
        sock.sendall(b"hello")
        assert exactly(sock, 5) == b"hello"


@pytest.mark.slow
def test_the_http_server_answers_curl() -> None:
    with serving("HTTP") as (host, port):
        assert printed(["curl", "-sS", f"http://{host}:{port}/"]) == "Hello, 127.0.0.1\n"
