"""A contender that runs: started on its processor, asked for samples line by line, and ended."""

from __future__ import annotations

import ctypes
import os
import re
import select
import subprocess
import time
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from benchmarks.build import PROGRAMS, ROOT

TIMEOUT = 120.0
CPUS = sorted(os.sched_getaffinity(0))
CONTENDER_CPU, LOAD_CPU = CPUS[0], CPUS[-1]

# What a test run sets to find mistakes, and pays for in time.
COSTLY = {"MALLOC_PERTURB_", "PYTHONDEVMODE", "PYTHONMALLOC", "PYTHONTRACEMALLOC", "PYTHONWARNINGS"}


class Sample(NamedTuple):
    """What a number of operations took in all: nanoseconds of processor time, or bytes."""

    amount: int
    operations: float


def pinned(cpu: int, *command: str) -> list[str]:
    return [str(PROGRAMS / "pinned"), str(cpu), *command]


class Process:
    def __init__(self, name: str, command: tuple[str, ...]):
        self.name = name
        self._process = subprocess.Popen(
            pinned(CONTENDER_CPU, *command),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if k not in COSTLY} | {"PYTHONHASHSEED": "0"},
            start_new_session=True,  # Ctrl-C is for the runner, which ends its contenders
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._serving = 0
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()
        self._stdin.close()
        self._stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @cached_property
    def port(self) -> int:
        """Where a server listens: the first thing it says.

        Beside it may be the process that serves, if that is another: its time is what counts.
        """
        port, *pid = self._readline().split()
        if pid:
            self._serving = int(pid[0])
        return int(port)

    def ask(self, *counts: int) -> None:
        self._stdin.write(b"%s\n" % " ".join(map(str, counts)).encode())

    def answer(self) -> Sample:
        amount, operations = self._readline().split()
        return Sample(int(amount), int(operations))

    def processor_time(self) -> int:
        """Return the nanoseconds of processor time that it has taken so far."""
        time.sleep(0.01)  # the clock of a process that runs lags behind
        return time.clock_gettime_ns(self._clock)

    @cached_property
    def _clock(self) -> int:
        clock = ctypes.c_int()
        error = ctypes.CDLL(None).clock_getcpuclockid(
            self._serving or self.pid, ctypes.byref(clock)
        )
        if error:
            raise OSError(error, os.strerror(error))
        return clock.value

    def own_memory(self) -> int:
        """Return the bytes of memory that it has beside what it has mapped of files."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        [kibibytes] = re.findall(r"^RssAnon:\s*(\d+) kB$", status, re.M)
        return int(kibibytes) * 1024

    def _readline(self) -> bytes:
        ready, _, _ = select.select([self._stdout], [], [], TIMEOUT)
        if not ready:
            raise TimeoutError(f"{self.name} said nothing for {TIMEOUT:.0f} s")
        line = self._stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self._process.wait()}")
        return line
