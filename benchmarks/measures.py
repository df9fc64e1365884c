"""The ways to take one sample from a contender."""

import socket
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.build import PROGRAMS
from benchmarks.process import LOAD_CPU, TIMEOUT, Process, Sample, pinned


@dataclass(frozen=True)
class Ask:
    """The contender does *count* operations when told, and says itself what they took."""

    count: int
    quick_count: int

    def sample(self, process: Process, quick: bool) -> Sample:
        process.ask(self.quick_count if quick else self.count)
        return process.answer()


@dataclass(frozen=True)
class Load:
    """The load generator plays ping-pong with a server, and reads the server's clock."""

    size: int
    connections: int = 50

    def sample(self, process: Process, quick: bool) -> Sample:
        warm, length = (20, 50) if quick else (30, 100)  # ms
        taken, echoed = play("load", process, self.connections, self.size, warm, length)
        return Sample(taken, echoed / self.size)


@dataclass(frozen=True)
class Stream:
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
class Hold:
    """The runner connects, and does no more; the server says what the connections take."""

    connections: int
    quick_connections: int

    def sample(self, process: Process, quick: bool) -> Sample:
        address = ("127.0.0.1", process.port)
        with ExitStack() as held:
            count = self.quick_connections if quick else self.connections
            for _ in range(2):  # the first half takes what memory is free, and isn't counted
                process.ask(count)
                for _ in range(count):
                    held.enter_context(socket.create_connection(address, TIMEOUT))
                sample = process.answer()
        return sample
