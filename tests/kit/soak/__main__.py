"""Run the servers and the clients, and say whether anything grew: ``python -m tests.kit.soak``."""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks.progress import Progress
from tests.kit.certificates import Authority
from tests.kit.support import ROOT

#: How long the servers may take to notice that all clients have gone, in seconds.
SETTLED = 30.0
#: What must be the same at each rest once all is warm.
SAME = ("descriptors", "objects", "blocks of libevent")
#: By how much memory may grow from the first rests to the last, in bytes and as a part of it.
SPARE, PART = 1 << 20, 0.02

#: After how many seconds memory must not grow any longer.
LONG = 600.0


#: How many descriptors the servers have at most beside the connections that are held.
MOST_OTHERS = 2000


class Failed(Exception):
    """Something grew, was wrong or was said that shouldn't be."""


class Process:
    """A Python process that reads commands and prints lines of JSON."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.module = module
        command = [sys.executable, "-X", "faulthandler", "-m", module, *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.stdin: IO[str] = self.process.stdin
        self.stdout: IO[str] = self.process.stdout

    def tell(self, *words: object) -> None:
        print(*words, file=self.stdin, flush=True)

    def read(self) -> Any:
        line = self.stdout.readline()
        if not line:
            raise Failed(f"{self.module} has ended with status {self.process.wait(SETTLED)}")
        return json.loads(line)

    def end(self) -> None:
        """Close its input, at which it ends, and check that it ended well."""
        self.stdin.close()
        status = self.process.wait(SETTLED)
        if status != 0:
            raise Failed(f"{self.module} has ended with status {status}")

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End it by force, if need be."""
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.stdout.close()


class Watched:
    """The servers, and all that they have said."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.ports = process.read()
        self.samples: list[dict[str, Any]] = []
        self.last: dict[str, Any] = {}
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            with self._more:
                said = json.loads(line)
                if "seconds" in said:
                    self.samples.append(said)
                else:
                    self.last = said
                self._more.notify_all()

    def rest(self) -> dict[str, Any]:
        """Return what the servers have once they have noticed that all clients have gone."""
        end = time.monotonic() + SETTLED
        before: dict[str, Any] = {}
        while True:
            now = self._ask()
            if before and all(now[name] == before[name] for name in SAME):
                return now
            if time.monotonic() > end:
                raise Failed(f"after {SETTLED} s of rest the servers still change: {before}, {now}")
            before = now
            time.sleep(0.5)

    def _ask(self) -> dict[str, Any]:
        with self._more:
            known = len(self.samples)
            self.process.tell("rest")
            while True:
                if not self._more.wait(SETTLED):
                    raise Failed("the servers don't answer")
                for sample in self.samples[known:]:
                    if sample["resting"]:
                        return sample

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Have nobody read what is about to be closed."""
        self.process.process.kill()
        self._thread.join(SETTLED)

    def end(self) -> dict[str, Any]:
        """End the servers, and return what they said last."""
        self.process.end()
        self._thread.join(SETTLED)
        return self.last


def check(rests: list[dict[str, Any]], same: Sequence[str] = SAME) -> None:
    """Raise `Failed` if anything is not as it was at the first rest once all was warm."""
    first, *later = rests
    for rest in later:
        for name in same:
            if rest[name] != first[name]:
                raise Failed(f"{name}: {first[name]}, then {rest[name]} after {rest['seconds']} s")
    # With few of them chance decides, and at first pages that are used for the first time.
    if len(rests) >= 8 and rests[-1]["seconds"] >= LONG:
        quarter = len(rests) // 4
        for name in "memory", "blocks of Python":
            begin = statistics.median(rest[name] for rest in rests[:quarter])
            end = statistics.median(rest[name] for rest in rests[-quarter:])
            spare = SPARE if name == "memory" else 1000
            if end > begin * (1 + PART) + spare:
                raise Failed(f"{name}: {begin:,.0f} at the beginning, {end:,.0f} at the end")


def allow_descriptors(number: int) -> None:
    """Let this process, and those that it starts, have *number* descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        raise Failed(f"{number:,} descriptors are needed, but only {hard:,} are allowed")
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


def soak(seconds: float, length: float, held: int, number: int, warm: int) -> dict[str, Any]:
    """Run rounds of *length* seconds for *seconds*, after *warm* others; return what happened."""
    allow_descriptors(held + 2 * MOST_OTHERS)
    rests: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        server = Authority(Path(directory)).server
        arguments = str(server.certfile), str(server.keyfile), str(held + MOST_OTHERS)
        process = stack.enter_context(Process("tests.kit.soak.servers", *arguments))
        servers = stack.enter_context(Watched(process))
        ports, cafile = json.dumps(servers.ports), f"{directory}/ca.pem"
        clients = stack.enter_context(Process("tests.kit.soak.clients", ports, cafile))
        clients.tell("hold", held)
        clients.read()
        begin = time.monotonic()
        # Each round says how it went; that is enough where there is no bar.
        with Progress("soak", max(seconds, (warm + 2) * length), every=None) as progress:
            while len(rests) < warm + 2 or time.monotonic() < begin + seconds:
                clients.tell("round", length, number)
                done = clients.read()
                rests.append(servers.rest())
                progress.say(told(rests[-1]))
                progress.reach(time.monotonic() - begin, f"{rests[-1]['served']:,} served")
        check(rests[warm:])
        clients.end()
        end = servers.end()
    if end["objects left"] or end["done"].get("errors"):
        raise Failed(f"the servers ended with {end}")
    return {"held": held, "clients": done, "servers": end, "samples": servers.samples, "warm": warm}


def told(rest: dict[str, Any]) -> str:
    return (
        f"{rest['seconds']:8.1f} s: {rest['memory'] >> 10:,} KiB,"
        f" {rest['descriptors']} descriptors, {rest['objects']} objects,"
        f" {rest['blocks of libevent']} blocks of libevent,"
        f" {rest['served']:,} served"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long it goes on")
    parser.add_argument("--round", type=float, default=10.0, help="the seconds of a round")
    parser.add_argument("--held", type=int, default=10_000, help="connections held all the time")
    parser.add_argument("--clients", type=int, default=5, help="how many of each sort at once")
    parser.add_argument("--warm", type=int, default=3, help="rounds before anything is compared")
    parser.add_argument("--json", type=Path, help="write what happened to this file")
    parser.add_argument("--svg", type=Path, help="draw it into this file")
    chosen = parser.parse_args()
    try:
        report = soak(60 * chosen.minutes, chosen.round, chosen.held, chosen.clients, chosen.warm)
    except Failed as error:
        sys.exit(f"soak: {error}")
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1))
    if chosen.svg:
        from tests.kit.soak.plot import draw  # needs a package that nothing else does

        draw(report, chosen.svg)
    done = ", ".join(f"{count:,} {kind}" for kind, count in report["clients"]["done"].items())
    print(f"{done}; {report['clients']['bytes']:,} bytes accounted for; nothing grew")


if __name__ == "__main__":
    main()
