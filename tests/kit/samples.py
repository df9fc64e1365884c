"""What tests of the samples share: each runs as a process, and a real client talks to it.

A sample is in Python, and most have a twin in C, which does the same: tests drive both alike.
"""

from __future__ import annotations

import fcntl
import functools
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from tests.kit.peers import connected, exactly, rest
from tests.kit.support import PATIENCE, ROOT

#: How long something that must not happen is waited for, in seconds.
MOMENT = 0.2

#: More than the kernel holds for a connection, both ways and at both ends.
TOO_MUCH = 128 * 2**20

#: The samples that have a twin in C.
TWINS = sorted(file.stem for file in (ROOT / "samples" / "c").glob("*.c"))

Self = TypeVar("Self", bound="Sample")


@functools.cache
def twins() -> Path:
    """Return where the twins are, after ``make samples-c``, which builds only what has changed."""
    (ROOT / "build").mkdir(exist_ok=True)
    own = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}  # of the make that runs the tests
    environ = {name: value for name, value in os.environ.items() if name not in own}
    with open(ROOT / "build" / "samples.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # for another process does the same
        done = subprocess.run(
            ["make", "--silent", "samples-c"],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=5 * PATIENCE,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return ROOT / "build" / "samples"


def program(name: str, language: str) -> str:
    """Return the file of the sample *name* that is run."""
    return f"{ROOT}/samples/{name}.py" if language == "python" else str(twins() / name)


class Sample:
    """A sample that runs as a process, in Python or in C, or by another program that it is *under*.

    A *file* is run in its place, which is another version of it.
    It leads its own group of processes, as a command does that is typed at a terminal.
    """

    def __init__(
        self,
        name: str,
        *arguments: object,
        language: str = "python",
        under: Sequence[str] = (),
        file: Path | None = None,
        as_module: bool = False,
        cwd: Path = ROOT,
        descriptors: int = 0,
        stdin: Any = subprocess.PIPE,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name, self.language = name, language
        run = ["-m", f"samples.{name}"] if as_module else [str(file or program(name, language))]
        if language == "python" and not under:
            run = [sys.executable, "-X", "dev", "-W", "error", *run]
        self.process = subprocess.Popen(
            [*under, *run, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "MALLOC_PERTURB_": "165", **env},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.printed = b""
        if descriptors:
            resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (descriptors, descriptors))

    def prints(self, pattern: str) -> re.Match[bytes]:
        """Wait until the sample has printed *pattern*."""
        assert self.process.stdout is not None
        end = time.monotonic() + PATIENCE
        while not (match := re.search(pattern.encode(), self.printed)):
            left = end - time.monotonic()
            ready = select.select([self.process.stdout], [], [], max(0, left))[0]
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            self.printed += data
            if not data:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.ends(stderr=f"(it has not printed {pattern!r})")
        return match

    def waits(self) -> None:
        """Wait until the sample waits for something, as its loop does."""
        status, end = Path(f"/proc/{self.process.pid}/status"), time.monotonic() + PATIENCE
        while not re.search(r"^State:\s*S", status.read_text(), re.MULTILINE):
            assert time.monotonic() < end, f"{self.name} is not waiting"
            time.sleep(0.001)

    def say(self, data: bytes) -> None:
        """Write *data* to the sample's stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end_stdin(self) -> None:
        """Close the sample's stdin, which is then at its end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None

    def ends(self, status: int = 0, stderr: str = "") -> bytes:
        """Wait for the end, with *status* and *stderr*; return all that was printed."""
        printed, complaints = self.process.communicate(timeout=PATIENCE)
        self.printed += printed
        complaint = complaints.decode().strip()
        ended = self.process.returncode == status and re.fullmatch(stderr, complaint)
        assert ended, f"status {self.process.returncode}, {self.printed!r}\n{complaint}"
        return self.printed

    def interrupt(self) -> bytes:
        """Press Ctrl-C; return all that was printed."""
        self.press_ctrl_c()
        return self.ends()

    def press_ctrl_c(self) -> None:
        """Send SIGINT as a terminal does, to the whole group, if it has not ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)

    def processor_time(self) -> float:
        """Return how long the sample has kept a processor busy, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


class Server(Sample):
    """A sample that serves on a port of its own choice."""

    def __init__(self, name: str, *arguments: object, **options: Any) -> None:
        super().__init__(name, "127.0.0.1", 0, *arguments, **options)
        self.port = int(self.prints(r"serving 127\.0\.0\.1:(\d+)")[1])

    def connect(self) -> socket.socket:
        return connected(("127.0.0.1", self.port))

    def answer(self, data: bytes) -> bytes:
        """Return what a client gets that sends *data* and then says that this is all."""
        with self.connect() as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return rest(sock)

    def works(self) -> bool:
        """Tell whether a new client is served."""
        expected = answered(self.name, b"hello, world!\n")
        with self.connect() as sock:
            if self.name != "hello_world":
                sock.sendall(framed(self.name, b"hello, world!\n"))
            return exactly(sock, len(expected)).upper() == expected


def silent(sock: socket.socket) -> bool:
    """Tell whether nothing comes for a moment."""
    return not select.select([sock], [], [], MOMENT)[0]


@contextmanager
def running(server: Server) -> Iterator[Server]:
    with server:
        yield server
        server.interrupt()


def packet(payload: bytes) -> bytes:
    """Return *payload* as upper_length_prefixed.py wants it."""
    return struct.pack("=H", len(payload)) + payload


def framed(name: str, payload: bytes) -> bytes:
    """Return *payload* as the server *name* wants it."""
    if name == "upper_length_prefixed":
        return packet(payload)
    return b"1" + payload + b"2" if name == "upper_delimited" else payload


def answered(name: str, payload: bytes) -> bytes:
    """Return what the server *name* answers to *payload*."""
    return framed(name, payload).upper() if name == "upper_delimited" else payload.upper()
