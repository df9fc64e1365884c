"""The ways to take one sample from a contender."""

import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from shutil import which
from typing import Protocol

from benchmarks.build import PROGRAMS
from benchmarks.process import LOAD_CPU, TIMEOUT, Process, Sample, pinned

HOST = "127.0.0.1"
#: How many times as long as planned a sample may have to be until anything is done in it.
LONGER = [1, 2, 4, 8, 16, 32, 64, 128]

#: How many connections are enough to see that all works.
FEW = 50

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def not_empty(take: Callable[[int], Sample]) -> Sample:
    """Return the first sample in which anything was done: on a busy machine that may take longer.

    *take* is told how many times as long.
    """
    for longer in LONGER:
        sample = take(longer)
        if sample.operations:
            return sample
    raise TimeoutError("nothing was done, however long it was waited for")


class Measure(Protocol):
    @property
    def tool(self) -> str | None:
        """The program without which there is no sample."""
        return None

    def sample(self, process: Process, quick: bool) -> Sample: ...


@dataclass(frozen=True)
class Ask(Measure):
    """The contender does *count* operations when told, and says itself what they took."""

    count: int
    quick_count: int

    def sample(self, process: Process, quick: bool) -> Sample:
        process.ask(self.quick_count if quick else self.count)
        return process.answer()


@dataclass(frozen=True)
class Load(Measure):
    """The load generator plays ping-pong with a server, and reads the server's clock."""

    size: int
    connections: int = 50
    warm: int = 30  # ms
    length: int = 100

    def sample(self, process: Process, quick: bool) -> Sample:
        warm, length = (20, 50) if quick else (self.warm, self.length)
        connections = min(self.connections, FEW) if quick else self.connections

        def take(longer: int) -> Sample:
            times = warm * longer, length * longer
            taken, echoed = play("load", process, connections, self.size, *times)
            return Sample(taken, echoed / self.size)

        return not_empty(take)


@dataclass(frozen=True)
class Stream(Measure):
    """A server takes *size* bytes (sink), sends them back (relay), or sends them (source)."""

    what: str
    size: int
    quick_size: int

    def sample(self, process: Process, quick: bool) -> Sample:
        taken, moved = play("stream", process, self.what, self.quick_size if quick else self.size)
        return Sample(taken, moved / 1024)


def play(program: str, process: Process, *arguments: object) -> list[int]:
    """Have *program* play with the server; return its processor time (ns), and the bytes."""
    command = (str(PROGRAMS / program), *map(str, (process.port, process.pid, *arguments)))
    said = subprocess.run(
        pinned(LOAD_CPU, *command), stdout=subprocess.PIPE, timeout=TIMEOUT, check=True
    ).stdout
    return [int(number) for number in said.split()]


@dataclass(frozen=True)
class Hold(Measure):
    """The runner connects, and does no more; the server says what the connections take.

    With *served*, each connection is answered one request before the next is made.
    """

    connections: int
    quick_connections: int
    served: bool = False

    def sample(self, process: Process, quick: bool) -> Sample:
        address = (HOST, process.port)
        with ExitStack() as held:
            count = self.quick_connections if quick else self.connections
            for _ in range(2):  # the first half takes what memory is free, and isn't counted
                process.ask(count)
                for _ in range(count):
                    sock = held.enter_context(socket.create_connection(address, TIMEOUT))
                    if self.served:
                        request(sock)
                sample = process.answer()
        return sample


def request(sock: socket.socket) -> None:
    sock.sendall(REQUEST)
    answer = sock.recv(4096)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"a request was answered by {answer!r}")


@dataclass(frozen=True)
class Wrk(Measure):
    """wrk asks a server again and again, on connections that stay; making them is counted, too."""

    connections: int
    seconds: float = 2.0
    quick_seconds: float = 0.2
    scheme: str = "http"
    tool = "wrk"

    def sample(self, process: Process, quick: bool) -> Sample:
        seconds = self.quick_seconds if quick else self.seconds
        connections = min(self.connections, FEW) if quick else self.connections
        return not_empty(lambda longer: self.take(process, connections, seconds * longer))

    def take(self, process: Process, connections: int, seconds: float) -> Sample:
        """Have wrk ask for so many *seconds*."""
        # On 10,000 connections an answer may take longer than the two seconds that wrk gives it.
        command = [which("wrk") or "wrk", "-t1", f"-c{connections}", "-d60", "--timeout", "30s"]
        command.append(url(process, self.scheme))
        before = process.processor_time()
        with subprocess.Popen(pinned(LOAD_CPU, *command), stdout=subprocess.PIPE) as wrk:
            with suppress(subprocess.TimeoutExpired):
                wrk.wait(seconds)
            said = end_of(wrk)
        taken = process.processor_time() - before
        if not said and wrk.returncode == -signal.SIGINT:  # it had not begun
            return Sample(taken, 0)
        done = re.search(rb"(\d+) requests in", said)
        failed = re.search(rb"errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
        errors = sum(map(int, failed.groups())) if failed else 0
        # A server may close a connection that has just been asked for nothing in a while.
        if not done or 1000 * errors > int(done[1]) or b"Non-2xx" in said:
            raise RuntimeError(f"{process.name}: wrk says {said.decode()}")
        return Sample(taken, int(done[1]))


def end_of(wrk: subprocess.Popen[bytes]) -> bytes:
    """Interrupt *wrk*, and return what it says that it has done, however long that took.

    It ignores the interrupt from its start until all its threads run, and then, before it sleeps,
    takes note of it and sleeps nevertheless: so it is interrupted until it ends.
    """
    deadline = time.monotonic() + TIMEOUT
    while True:
        wrk.send_signal(signal.SIGINT)
        try:
            return wrk.communicate(timeout=0.1)[0]
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise


@dataclass(frozen=True)
class Fetch(Measure):
    """curl gets a file of *size* bytes from a server of files."""

    size: int
    quick_size: int
    tool = "curl"

    def sample(self, process: Process, quick: bool) -> Sample:
        size = self.quick_size if quick else self.size
        before = process.processor_time()
        command = [which("curl") or "curl", "-sSf", "-o/dev/null", "-w%{size_download}"]
        said = subprocess.run(
            pinned(LOAD_CPU, *command, url(process) + str(size)),
            stdout=subprocess.PIPE,
            timeout=TIMEOUT,
            check=True,
        ).stdout
        if int(said) != size:
            raise RuntimeError(f"{process.name}: curl got {int(said):,} bytes, not {size:,}")
        return Sample(process.processor_time() - before, size / 1024)


@dataclass(frozen=True)
class Exchange(Measure):
    """A client sends *size* bytes to a server in C (upload), or gets them in chunks (download)."""

    what: str
    size: int
    quick_size: int

    def sample(self, process: Process, quick: bool) -> Sample:
        size = self.quick_size if quick else self.size
        command = pinned(LOAD_CPU, str(PROGRAMS / "http_peer"), self.what, str(size))
        with subprocess.Popen(command, stdout=subprocess.PIPE) as peer:
            assert peer.stdout is not None
            try:
                process.ask(int(peer.stdout.readline()), size)
                taken, moved = process.answer()
                failed = peer.wait(TIMEOUT)
            except BaseException:  # who has lost its client would wait for ever
                peer.kill()
                raise
            if failed or moved * 1024 != size:
                raise RuntimeError(f"{process.name}: {moved:,} KiB went over, not {size / 1024:,}")
        return Sample(taken, moved)


@dataclass(frozen=True)
class Peak(Measure):
    """What memory of its own a process needs for a large transfer, beyond what a small one left."""

    transfer: Fetch | Exchange

    @property
    def tool(self) -> str | None:
        return self.transfer.tool

    def sample(self, process: Process, quick: bool) -> Sample:
        self.transfer.sample(process, quick=True)
        seen = [process.own_memory()]
        with ThreadPoolExecutor(1) as worker:
            transferring = worker.submit(self.transfer.sample, process, quick)
            while wait([transferring], 0.01).not_done:
                seen.append(process.own_memory())
            transferring.result()
        return Sample(max(seen) - seen[0], 1)


def url(process: Process, scheme: str = "http") -> str:
    return f"{scheme}://{HOST}:{process.port}/"
