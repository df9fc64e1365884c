"""``python -m libevent_py compare A B``: how two traces differ.

Each is a file that ``trace`` has written, or a program, which is traced now. Objects are matched by
the order in which they are made: two calls that are alike bind the objects that they name to each
other. Addresses, processes and times of day differ each time, and are left out; so are the sizes of
what is read, which depend on the network, unless they are asked for.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from libevent_py._cli.trace import TraceError, add_where, chosen, parsed

ADDRESS = re.compile(r"\b0x[0-9a-f]+\b")
OBJECT = re.compile(r"\b([a-z_]+)#(\d+)")

#: Functions whose sizes and data depend on how much has arrived.
READS = {
    *("evbuffer_remove", "evbuffer_copyout", "evbuffer_copyout_from", "evbuffer_drain"),
    *("evbuffer_get_length", "evbuffer_get_contiguous_space", "evbuffer_pullup", "evbuffer_read"),
    *("bufferevent_read", "evbuffer_peek"),
}

#: How many calls that are alike are shown before the first that differs.
LED_TO_IT = 5


class Entry(NamedTuple):
    """A call, or the beginning of a callback."""

    name: str
    text: str
    #: What must be the same, without the numbers of objects.
    key: str
    #: The objects that it names, by kind and number.
    objects: list[tuple[str, str]]


def read(path: Path) -> list[dict[str, object]]:
    """Return the lines of the trace in the file *path*."""
    lines = path.read_text(errors="replace").splitlines()
    if lines and lines[0].startswith("{"):
        return [json.loads(line) for line in lines]
    return [parsed(line) for line in lines]


def made(what: str, options: Sequence[str]) -> list[dict[str, object]]:
    """Return the trace *what*, or that of the program *what* with the *options* of ``trace``."""
    program, *arguments = shlex.split(what)
    path = Path(program)
    is_trace = path.is_file() and not os.access(path, os.X_OK) and path.suffix != ".py"
    if is_trace and not arguments and not options:
        return read(path)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "trace")
        command = [sys.executable, "-m", "libevent_py", "trace", "-o", str(file)]
        done = subprocess.run(
            [*command, *options, program, *arguments], stdout=subprocess.DEVNULL, check=False
        )
        if not file.exists():
            raise TraceError(f"{what} is neither a trace nor a program (status {done.returncode})")
        return read(file)


def entries(
    trace: Sequence[dict[str, object]], only: set[str] | None, sizes: bool
) -> Iterator[Entry]:
    """Yield the calls and callbacks of a trace, in the order in which they begin."""
    results = resumed(trace)
    for place, line in enumerate(trace):
        name, args = str(line.get("call") or line.get("begins") or ""), line.get("args")
        if not name or not isinstance(args, list):
            continue
        if only is not None and "call" in line and name not in only:
            continue
        result = line.get("result", results.get(place))
        told = f"{name}({', '.join(args)})"
        if "begins" in line:
            told = f"<- {told}"
        elif result is not None:
            told += f" = {result}"
        what = told
        if name in READS and not sizes:
            what = f"{name}({args[0] if args else ''})"
        what = ADDRESS.sub("0x", what)
        objects = OBJECT.findall(what)
        yield Entry(name, told, OBJECT.sub(r"\1#", what), objects)


def resumed(trace: Sequence[dict[str, object]]) -> dict[int, object]:
    """Return the results of unfinished calls, by where they begin."""
    results: dict[int, object] = {}
    waiting: dict[object, list[int]] = {}
    for place, line in enumerate(trace):
        stack = waiting.setdefault(line.get("pid"), [])
        if line.get("unfinished"):
            stack.append(place)
        elif "resumed" in line:
            for begun in reversed(stack):
                if trace[begun]["call"] == line["resumed"]:
                    stack.remove(begun)
                    results[begun] = line.get("result")
                    break
    return results


def differences(a: Sequence[Entry], b: Sequence[Entry]) -> Iterator[tuple[int, str]]:
    """Yield each difference, as a line, with the place in *a* where it is."""
    matcher = difflib.SequenceMatcher(
        None, [one.key for one in a], [one.key for one in b], autojunk=False
    )
    there: dict[tuple[str, str], tuple[str, str]] = {}
    back: dict[tuple[str, str], tuple[str, str]] = {}
    for tag, a_from, a_to, b_from, b_to in matcher.get_opcodes():
        if tag == "equal":
            for n in range(a_to - a_from):
                one, other = a[a_from + n], b[b_from + n]
                pairs = list(zip(one.objects, other.objects, strict=True))
                if any(there.setdefault(x, y) != y or back.setdefault(y, x) != x for x, y in pairs):
                    yield a_from + n, f"! {one.text} | {other.text}"
            continue
        left, right = list(a[a_from:a_to]), list(b[b_from:b_to])
        for n, one in enumerate(left):
            match = next((other for other in right if other.name == one.name), None)
            if match is None:
                yield a_from + n, f"- {one.text}"
            else:
                for other in right[: right.index(match)]:
                    yield a_from + n, f"+ {other.text}"
                del right[: right.index(match) + 1]
                yield a_from + n, f"! {one.text} | {match.text}"
                for x, y in zip(one.objects, match.objects, strict=False):
                    there.setdefault(x, y)
                    back.setdefault(y, x)
        for other in right:
            yield a_to, f"+ {other.text}"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m libevent_py compare",
        description="Tell how two traces differ. Exit with 0 when they are the same, else with 1.",
        epilog="Lines begin with -: only in A, +: only in B, !: A | B.",
    )
    made.add_argument("a", metavar="A", help="a trace, or a program with its arguments in quotes")
    made.add_argument("b", metavar="B", nargs="?", help="the other one; left out, it is A with "
        "--libevent or --backend")  # fmt: skip
    made.add_argument("-e", dest="only", action="append", default=[], metavar="NAMES",
        help="only these functions, as for trace")  # fmt: skip
    made.add_argument("--sizes", action="store_true", help="also sizes and data of what is read")
    add_where(made)
    return made


def main(arguments: Sequence[str]) -> int:
    """Run ``compare``; return 0 when the traces are the same, 1 when not, 2 for bad input."""
    given = parser().parse_args(arguments)
    try:
        return compare(given)
    except (TraceError, OSError, ValueError) as error:
        print(f"libevent_py: compare: {error}", file=sys.stderr)
        return 2


def compare(given: argparse.Namespace) -> int:
    where = [f"--{name}={value}" for name in ("libevent", "backend")
             if (value := getattr(given, name)) is not None]  # fmt: skip
    if given.b is None and not where:
        raise TraceError("say what to compare it with: B, --libevent DIR or --backend NAME")
    only = set(chosen(",".join(given.only))) if given.only else None
    traces = [made(given.a, []), made(given.b or given.a, where)]
    a, b = (list(entries(trace, only, given.sizes)) for trace in traces)
    found = list(differences(a, b))
    if not found:
        return 0
    for one in a[max(0, found[0][0] - LED_TO_IT) : found[0][0]]:
        print(f"  {one.text}")
    for _, line in found:
        print(line)
    return 1
