"""Debian's PostgreSQL for a test: a cluster of its own, which is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.certificates import Authority
from tests.kit.support import PATIENCE

#: Who runs the server where root runs the tests, as it refuses root.
NOBODY = "nobody"
#: Nothing has to outlive the test.
QUICK = "fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off"


def program(name: str) -> str:
    """Return where PostgreSQL's program *name* is: its newest version's."""
    found = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4])
    )
    if found:
        return str(found[-1])
    elsewhere = shutil.which(name)
    assert elsewhere, f"PostgreSQL's {name} is missing: apt-get install postgresql"
    return elsewhere


class Server:
    """A server that runs, and how it is reached: everybody is let in."""

    def __init__(self, place: Path, port: int, authority: Path) -> None:
        self.place = place
        self.port = port
        #: The certificate that signs the server's.
        self.authority = authority

    def dsn(self, by: str) -> str:
        """Return what a client connects to *by* "unix", "tcp" or "tls"."""
        if by == "unix":
            return f"postgresql://tests@/postgres?host={self.place}&port={self.port}"
        mode = "require" if by == "tls" else "disable"
        return f"postgresql://tests@127.0.0.1:{self.port}/postgres?sslmode={mode}"


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Start a server on loopback and on a UNIX socket, as somebody who may do nothing else."""
    # Not pytest's temporary folder, in which nobody but its owner may look.
    with tempfile.TemporaryDirectory(prefix="postgresql-", ignore_cleanup_errors=True) as name:
        place = Path(name)
        own = Authority(place).server
        own.keyfile.chmod(0o600)
        user = None if os.geteuid() else NOBODY
        if user is not None:
            for path in (place, own.keyfile, own.certfile):
                shutil.chown(path, user)
        data = place / "data"
        made = subprocess.run(
            [
                *(program("initdb"), "--pgdata", str(data), "--username", "tests"),
                *("--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync"),
            ],
            **_started(user, place),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = int(taken.getsockname()[1])
        settings = [
            *("listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={place}"),
            *("ssl=on", f"ssl_cert_file={own.certfile}", f"ssl_key_file={own.keyfile}", *QUICK),
        ]
        command = [program("postgres"), "-D", str(data)]
        for setting in settings:
            command += ["-c", setting]
        with (
            (place / "log").open("wb") as log,
            subprocess.Popen(command, **_started(user, place), stdout=log, stderr=log) as process,
        ):
            try:
                _wait(port, process, place / "log")
                yield Server(place, port, place / "ca.pem")
            finally:
                process.send_signal(signal.SIGINT)  # else it waits for its clients to go
                process.wait(PATIENCE)


def _started(user: str | None, place: Path) -> dict[str, Any]:
    if user is None:
        return {"cwd": place}
    return {"cwd": place, "user": user, "group": "nogroup", "extra_groups": []}


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server lets clients in."""
    ready = [program("pg_isready"), "--quiet", "--host", "127.0.0.1", "--port", str(port)]
    until = time.monotonic() + PATIENCE
    while subprocess.run([*ready, "--username", "tests"]).returncode:
        if process.poll() is not None or time.monotonic() > until:
            pytest.fail(f"PostgreSQL has not started:\n{log.read_text()}")
        time.sleep(0.02)
