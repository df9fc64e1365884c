"""Run random programs, each in a process of its own: ``python -m tests.kit.fuzz [OPTION…]``.

A program is made from its world and its seed, so it can be run again: ``--first SEED --programs 1``
shows what it says. Each failure is printed, with the beginning of what the program has said.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.progress import Progress
from tests.kit.support import PATIENCE
from tests.kit.troubles import WORLDS, prepare, program

#: How much of what a failing program has said is shown, in characters.
SHOWN = 12_000
#: After how many seconds it is looked how far the jobs are.
POLLED = 0.05


class Runner:
    """Runs programs one after another, forked off this process."""

    def __init__(self, steps: int, place: Path) -> None:
        self.steps = steps
        self.said = place / f"said-{os.getpid()}"
        self.did = place / f"did-{os.getpid()}"

    def run(self, world: str, seed: int) -> tuple[str, dict[str, int]]:
        """Return what went wrong in a program, or "", and what it did."""
        self.did.write_text("{}")
        pid = os.fork()
        if not pid:
            self._be(world, seed)
        end = time.monotonic() + PATIENCE
        wrong = ""
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                break
            if time.monotonic() > end and not wrong:
                wrong = f"it hangs\n{stacks(pid)}"
                os.killpg(pid, signal.SIGABRT)  # faulthandler says where
            time.sleep(0.001)
        # What it has forked may still be there.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        if status and not wrong:
            wrong = f"it ended with status {os.waitstatus_to_exitcode(status)}"
        said = self.said.read_text(errors="replace")
        done: dict[str, int] = json.loads(self.did.read_text())
        return (f"{wrong}\n{said[:SHOWN]}" if wrong else ""), done

    def _be(self, world: str, seed: int) -> None:
        os.setsid()
        said = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.close(said)
        try:
            did = program(world, seed, self.steps)
            self.did.write_text(json.dumps(did))
        finally:
            os._exit(0)


def stacks(session: int) -> str:
    """Return where all processes of the session are in C, if there is gdb to tell."""
    if shutil.which("gdb") is None:
        return ""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True
    )
    command = ["gdb", "-batch", "-ex", "thread apply all bt 12", "-p"]
    told = []
    for pid in listed.stdout.split():
        with contextlib.suppress(subprocess.TimeoutExpired):  # gdb itself may wait for ever
            told.append(
                subprocess.run(
                    [*command, pid], capture_output=True, text=True, timeout=PATIENCE
                ).stdout
            )
    frames = [line for text in told for line in text.splitlines() if line.startswith(("#", "Thr"))]
    return "\n".join(frame[:160] for frame in frames)


def programs(
    worlds: list[str], first: int, number: int, job: int, jobs: int
) -> Iterator[tuple[str, int]]:
    """Yield the worlds and seeds that the *job*-th of *jobs* is to run."""
    seeds = itertools.count(first) if number < 0 else range(first, first + number)
    for place, seed in enumerate(seeds):
        if place % jobs == job:
            yield worlds[seed % len(worlds)], seed


class Counts:
    """How many programs a job has run, and how many failed: in memory that all jobs share.

    That takes no descriptor, which the programs would inherit and count.
    """

    FORMAT = struct.Struct("QQ")

    def __init__(self, shared: mmap.mmap, job: int) -> None:
        self._shared, self._at = shared, job * self.FORMAT.size

    def get(self) -> tuple[int, int]:
        programs, failures = self.FORMAT.unpack_from(self._shared, self._at)
        return programs, failures

    def set(self, programs: int, failures: int) -> None:
        self.FORMAT.pack_into(self._shared, self._at, programs, failures)


def work(arguments: argparse.Namespace, job: int, place: Path, shared: mmap.mmap) -> int:
    """Run the programs of one job, tell what they did, and return how many failed."""
    runner = Runner(arguments.steps, place)
    end = time.monotonic() + 60 * arguments.minutes if arguments.minutes else None
    counts = Counts(shared, job)
    number = -1 if end else arguments.programs
    done: Counter[str] = Counter()
    for world, seed in programs(
        arguments.world or list(WORLDS), arguments.first, number, job, arguments.jobs
    ):
        if end and time.monotonic() > end:
            break
        wrong, did = runner.run(world, seed)
        done.update(did)
        done["programs"] += 1
        done["failures"] += bool(wrong)
        if wrong:
            shown = (
                f"--world {world} --first {seed} --programs 1 --steps {arguments.steps}: {wrong}"
            )
            with open(place / "failures", "a") as failures:  # at once, so that none is cut in two
                failures.write(f"{shown}\n")
        counts.set(done["programs"], done["failures"])
    (place / f"job-{job}").write_text(json.dumps(done))
    return done["failures"]


def watch(pids: list[int], arguments: argparse.Namespace, place: Path, shared: mmap.mmap) -> int:
    """Show how far the jobs are, and each failure, until they end; return how many broke off."""
    (place / "failures").touch()
    left, broken, began = set(pids), 0, time.monotonic()
    timed = bool(arguments.minutes)
    total = 60 * arguments.minutes if timed else arguments.programs
    with (
        Progress("fuzz", total, "s" if timed else "programs") as progress,
        open(place / "failures") as failures,
    ):
        while left:
            for pid in sorted(left):
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    left.remove(pid)
                    broken += bool(status)
            if shown := failures.read():
                progress.say(shown.rstrip("\n"))
            counts = [Counts(shared, job).get() for job in range(arguments.jobs)]
            programs, failed = (sum(each) for each in zip(*counts, strict=True))
            done = time.monotonic() - began if timed else programs
            said = f"{programs:,} programs, {failed} failures" if timed else f"{failed} failures"
            progress.reach(done, said)
            time.sleep(POLLED if left else 0)
    return broken


def main() -> None:
    parser = argparse.ArgumentParser(description="Run random programs.")
    parser.add_argument("--world", action="append", choices=WORLDS)
    parser.add_argument("--first", type=int, default=1, metavar="SEED")
    parser.add_argument("--programs", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=0.0, help="as many programs as fit")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # each program must go the same way again
        os.environ["PYTHONHASHSEED"] = "0"
        command = [sys.executable, "-m", "tests.kit.fuzz", *sys.argv[1:]]
        os.execv(sys.executable, command)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        prepare()
        gc.collect()
        gc.freeze()
        pids = []
        shared = mmap.mmap(-1, arguments.jobs * Counts.FORMAT.size)
        for job in range(arguments.jobs):
            pid = os.fork()
            if not pid:
                work(arguments, job, place, shared)
                os._exit(0)
            pids.append(pid)
        broken = watch(pids, arguments, place, shared)
        done: Counter[str] = Counter()
        for job in range(arguments.jobs):
            done.update(json.loads((place / f"job-{job}").read_text()))
    told = ", ".join(f"{number} {what}" for what, number in done.items())
    print(f"{told} in {time.monotonic() - began:.0f} s")
    sys.exit(1 if broken or done["failures"] else 0)


if __name__ == "__main__":
    main()
