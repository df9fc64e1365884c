"""The master below systemd, and as process 1 of a container."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libevent_py.serve.systemd import Supervisor, passed_on
from tests.kit.masters import APP, Served, children_of, mastered, serve_command, started, state_of
from tests.kit.serving import wait_until
from tests.kit.support import PATIENCE

#: Each starts several processes.
pytestmark = pytest.mark.slow

#: What systemd does before it runs a service: the sockets are the descriptors from 3 on.
ACTIVATE = """
import os, sys

fds = [os.dup(int(fd)) for fd in sys.argv[1].split(",")]
fds = [os.dup2(fd, 100 + place) for place, fd in enumerate(fds)]
for place, fd in enumerate(fds):
    os.dup2(fd, 3 + place)
os.closerange(3 + len(fds), 200)
os.environ["LISTEN_PID"] = sys.argv[2] if sys.argv[2] != "own" else str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(fds))
os.environ["LISTEN_FDNAMES"] = sys.argv[3]
os.execv(sys.argv[4], sys.argv[4:])
"""


def activated(
    sockets: list[socket.socket], *arguments: str, names: str = "web", pid: str = "own"
) -> tuple[list[str], list[int]]:
    """Return the command that serves on *sockets* as systemd passes them on, and what it needs."""
    fds = [sock.fileno() for sock in sockets]
    listed = ",".join(map(str, fds))
    command = [sys.executable, "-c", ACTIVATE, listed, pid, names]
    return [*command, *serve_command("--activated", *arguments)], fds


class Notified:
    """Where a service says how it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.sock.settimeout(PATIENCE)

    def next(self) -> list[str]:
        """Return what it says next, in lines."""
        return self.sock.recv(4096).decode().split("\n")


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[Notified]:
    one = Notified(tmp_path / "notify")
    yield one
    one.sock.close()


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield made
    for sock in made:
        sock.close()


def status_at(sock: socket.socket) -> str:
    """Return the first line of the answer of whoever serves on *sock*."""
    with socket.create_connection(sock.getsockname(), timeout=PATIENCE) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return client.makefile().readline().strip()


def test_a_service_is_activated_by_its_sockets_and_says_how_it_is(
    tmp_path: Path, sockets: list[socket.socket], notified: Notified
) -> None:
    (tmp_path / "app.py").write_text(
        APP + "\nassert not [name for name in os.environ if name.startswith(('LISTEN', 'NOTIFY'))]"
    )
    command, fds = activated(sockets, "--workers", "2", names="web:admin")
    env = {"NOTIFY_SOCKET": str(notified.path)}
    with started(command, tmp_path, pass_fds=fds, env=env) as served:
        assert status_at(sockets[0]) == status_at(sockets[1]) == "HTTP/1.1 200 OK"
        assert notified.next() == ["READY=1", "STATUS=2 workers"]
        served.send(signal.SIGHUP)
        first, second = notified.next()
        assert first == "RELOADING=1"
        assert abs(int(second.partition("=")[2]) / 1e6 - time.monotonic()) < PATIENCE
        assert notified.next()[0] == "READY=1"
        served.send(signal.SIGTERM)
        assert notified.next() == ["STOPPING=1"]
        assert served.wait() == 0
        # The socket is systemd's: clients wait there for the next start.
        socket.create_connection(sockets[0].getsockname(), timeout=PATIENCE).close()


def test_one_of_the_sockets_can_be_chosen_by_its_name(
    tmp_path: Path, sockets: list[socket.socket]
) -> None:
    (tmp_path / "app.py").write_text(APP)
    command, fds = activated(sockets, "--fd", "admin", names="web:admin")
    with started(command, tmp_path, pass_fds=fds) as served:
        assert status_at(sockets[1]) == "HTTP/1.1 200 OK"
        assert served.port == sockets[1].getsockname()[1]


def test_what_is_passed_on_to_another_process_is_left_alone(
    tmp_path: Path, sockets: list[socket.socket]
) -> None:
    (tmp_path / "app.py").write_text(APP)
    command, fds = activated(sockets, "--bind", "127.0.0.1:0", pid="1")
    with started(command, tmp_path, pass_fds=fds) as served:
        assert served.port not in [sock.getsockname()[1] for sock in sockets]


def test_a_socket_that_does_not_listen_is_refused(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        command, fds = activated([sock])
        with started(command, tmp_path, pass_fds=fds) as served:
            assert served.wait() == 2
            assert "the socket with fd 3 doesn't listen" in served.said()


def test_a_supervisor_that_does_not_listen_ends_nothing(tmp_path: Path) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "nobody")}
    with mastered(tmp_path, env=env) as served:
        assert served.get().startswith("200 first")
        served.until("WARNING NOTIFY_SOCKET can't be told READY=1: .*No such file")


def test_a_supervisor_may_have_an_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")  # the kernel chooses
        sock.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + os.fsdecode(sock.getsockname()[1:]))
        supervisor = Supervisor()
        assert "NOTIFY_SOCKET" not in os.environ
        supervisor.tell("READY=1", "STATUS=fine")
        assert sock.recv(100) == b"READY=1\nSTATUS=fine"
    monkeypatch.setenv("NOTIFY_SOCKET", "relative")
    with pytest.raises(ValueError, match="must begin with"):
        Supervisor()


@pytest.mark.parametrize(("pid", "fds"), [("own", "two"), ("own", ""), ("x", "1"), ("own", "-1")])
def test_variables_that_make_no_sense_are_told(
    monkeypatch: pytest.MonkeyPatch, pid: str, fds: str
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()) if pid == "own" else pid)
    monkeypatch.setenv("LISTEN_FDS", fds)
    with pytest.raises(ValueError, match="LISTEN_PID and LISTEN_FDS must be numbers"):
        passed_on()


# Process 1.


@pytest.fixture
def contained(tmp_path: Path) -> Iterator[Served]:
    """A master that is process 1 of a PID namespace of its own."""
    if shutil.which("unshare") is None:
        pytest.fail("unshare is missing: apt-get install util-linux")
    (tmp_path / "app.py").write_text(APP)
    unshare = ["unshare", "--pid", "--fork", "--kill-child"]
    if os.geteuid():
        unshare += ["--user", "--map-root-user"]
    with started([*unshare, *serve_command()], tmp_path) as served:
        served.until("serving")
        assert "[1] INFO serving app:app" in served.said()  # without --workers
        (served.pid,) = children_of(served.process.pid)
        yield served


def test_as_process_1_it_ends_at_sigterm(contained: Served) -> None:
    contained.get()
    contained.send(signal.SIGTERM)
    assert contained.wait() == 0
    assert "SIGTERM: ending" in contained.said()


def test_as_process_1_it_waits_for_orphans(contained: Served) -> None:
    def every() -> list[Any]:
        return Path(f"/proc/{contained.pid}/task/{contained.pid}/children").read_text().split()

    (worker,) = every()
    for _ in range(3):
        assert contained.get("/orphan").startswith("200")
    wait_until(lambda: every() == [worker])  # zombies would be there, too
    assert state_of(contained.pid) != "Z"
    os.kill(int(worker), signal.SIGKILL)
    contained.until("has been killed by SIGKILL")
    assert contained.get().startswith("200 first")


def test_the_test_of_orphans_would_see_them(tmp_path: Path) -> None:
    """A process that doesn't wait for its children has zombies."""
    code = "import os, time\nfor _ in range(2):\n    os.fork() or os._exit(0)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            wait_until(lambda: len(path.read_text().split()) == 2)
        finally:
            process.kill()
