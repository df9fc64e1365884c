"""``python -m benchmarks.tracing``: what a traced call costs, in Python and in C.

samples/upper_listener and its twin in C answer messages, untraced and traced in turn. Starting and
ending cost the same for few messages as for many, so what more messages cost more is divided by how
many calls more the trace has.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

FEW, MANY = 1_000, 11_000
MESSAGE = b"0123456789" * 5
ROUNDS = 7

PROGRAMS = {"Python": "samples/upper_listener.py", "C": "build/samples/upper_listener"}


def main() -> None:
    subprocess.run(["make", "--silent", "samples-c"], check=True)
    with tempfile.TemporaryDirectory() as place:
        trace = Path(place, "trace")
        for name, program in PROGRAMS.items():
            costs = [cost(program, trace) for _ in range(ROUNDS)]
            microseconds = sorted(1e6 * seconds / calls for seconds, calls in costs)
            median = statistics.median(microseconds)
            calls = costs[0][1] / (MANY - FEW)
            print(
                f"{name}: {median:.2f} us a traced call (median of {ROUNDS}; "
                f"{microseconds[0]:.2f} to {microseconds[-1]:.2f}), {calls:g} calls a message"
            )


def cost(program: str, trace: Path) -> tuple[float, int]:
    """Return what tracing costs, in seconds, and for how many calls: `MANY` less `FEW`."""
    added, calls = [], []
    for messages in (FEW, MANY):
        plain = run(command(program), messages)
        traced = run(tracer(trace) + command(program)[-1:], messages, traced=True)
        added.append(traced - plain)
        calls.append(len(re.findall(r"^ *\w+\(", trace.read_text(), re.MULTILINE)))
    return added[1] - added[0], calls[1] - calls[0]


def command(program: str) -> list[str]:
    return [sys.executable, program] if program.endswith(".py") else [program]


def tracer(trace: Path) -> list[str]:
    return [sys.executable, "-m", "libevent_py", "trace", "-o", str(trace)]


def run(program: list[str], messages: int, traced: bool = False) -> float:
    """Have *program* answer *messages*; return how much processor time it took, in seconds."""
    with subprocess.Popen([*program, "127.0.0.1", "0"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        port = re.search(rb", serving [\d.]+:(\d+)", first)
        assert port is not None, first
        with socket.create_connection(("127.0.0.1", int(port[1])), timeout=60) as client:
            for _ in range(messages):
                client.sendall(MESSAGE)
                left = len(MESSAGE)
                while left:
                    left -= len(client.recv(left))
        pid = process.pid
        if traced:  # the tracer waits for it
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            os.kill(int(children.split()[0]), signal.SIGINT)
        else:
            os.kill(pid, signal.SIGINT)
        process.stdout.read()
        used = os.wait4(pid, 0)[2]
        process.returncode = 0
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
