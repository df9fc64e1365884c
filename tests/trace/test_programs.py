"""Programs that nobody here has written: the trace parses, and they do what they always do."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from libevent_py._cli.trace import parsed
from tests.kit.support import PATIENCE, ROOT
from tests.kit.tracing import command


def program(name: str) -> str:
    """Return where the program *name* is, or fail with the package that has it."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    assert found, f"{name} is missing: apt-get install {name}"
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def started(place: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start ``trace`` with *arguments*; the trace is written to a file in *place*."""
    return subprocess.Popen(
        command("-o", str(place / "trace"), *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def connected(port: int) -> socket.socket:
    """Return a connection to *port*, once somebody listens there."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), PATIENCE)
        except ConnectionRefusedError:
            assert time.monotonic() < until
            time.sleep(0.02)


def told(place: Path) -> list[dict[str, object]]:
    """Return what the trace says, each line of which must be understood."""
    found = [parsed(line) for line in (place / "trace").read_text(errors="replace").splitlines()]
    assert not [one for one in found if "text" in one]
    return found


def calls(found: list[dict[str, object]]) -> set[object]:
    return {one.get("call") for one in found}


@pytest.mark.slow
def test_memcached(tmp_path: Path) -> None:
    port = free_port()
    options = ["-u", "nobody", "-l", "127.0.0.1", "-p", str(port), "-t", "2"]
    process = started(tmp_path, program("memcached"), *options)
    try:
        with connected(port) as client, client.makefile("rb") as answers:
            for number in range(50):
                client.sendall(b"set key%d 0 0 3\r\nabc\r\nget key%d\r\n" % (number, number))
                lines = [answers.readline() for _ in range(4)]
                assert lines[0] == b"STORED\r\n" and lines[2:] == [b"abc\r\n", b"END\r\n"]
            client.sendall(b"shutdown\r\n")
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    found = told(tmp_path)
    assert {"event_base_new_with_config", "event_base_set", "event_add"} <= calls(found)
    assert any("begins" in one for one in found)
    assert not errors


@pytest.mark.slow
def test_tmux(tmp_path: Path) -> None:
    name = f"libevent-py-{free_port()}"
    tmux = [program("tmux"), "-L", name, "-f", "/dev/null"]
    process = started(tmp_path, "-f", *tmux, "new-session", "-d", "cat")
    out, errors = process.communicate(timeout=PATIENCE)
    try:
        assert (process.returncode, out, errors) == (0, b"", b"")
        sessions = subprocess.run(
            [*tmux, "list-sessions"], capture_output=True, text=True, check=True, timeout=PATIENCE
        ).stdout
        assert sessions.startswith("0: 1 windows")
    finally:
        subprocess.run([*tmux, "kill-server"], check=True, timeout=PATIENCE)
    until = time.monotonic() + PATIENCE
    while subprocess.run([*tmux, "has-session"], capture_output=True, check=False).returncode == 0:
        assert time.monotonic() < until
    found = told(tmp_path)
    assert {"event_init", "event_reinit", "bufferevent_new"} & calls(found)
    assert len({one["pid"] for one in found if "pid" in one}) >= 2


@pytest.mark.slow
def test_pgbouncer(tmp_path: Path) -> None:
    port = free_port()
    settings = tmp_path / "pgbouncer.ini"
    settings.write_text(
        "[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\nunix_socket_dir =\nauth_type = any\n"
        f"listen_port = {port}\n"
    )
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    process = started(tmp_path, program("pgbouncer"), "-u", "nobody", str(settings))
    try:
        connected(port).close()
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    assert b"process up: PgBouncer" in errors
    assert {"event_base_loop", "event_assign", "event_add"} & calls(told(tmp_path))
