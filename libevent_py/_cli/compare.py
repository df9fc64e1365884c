"""``python -m libevent_py compare A B``: how two traces differ.

Each is a file that ``trace`` has written, or a program, which is traced now. Objects are matched by
the order in which they are made: two calls that are alike bind the objects that they name to each
other. Addresses, descriptors, processes and times of day differ each time, and are left out, as is
what callbacks get as their own data; so are the sizes of what is read, which depend on the network,
unless they are asked for. Differences that are known are left out, too: see `known`.

A server has to be talked to while it is traced: by a client that starts it, and ends it.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import functools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from libevent_py._cli import known
from libevent_py._cli.find import PACKAGE
from libevent_py._cli.known import Known
from libevent_py._cli.program import painted, program
from libevent_py._cli.trace import TraceError, add_where, chosen, parsed, python, split

ADDRESS = re.compile(r"\b0x[0-9a-f]+\b")
OBJECT = re.compile(r"\b([a-z_]+)#(\d+)")

#: A line of `told`: whether a callback begins, its name or that of a call, arguments and result.
TOLD = re.compile(r"(?P<begins><- )?(?P<name>\w+)\((?P<args>.*?)\)(?: = (?P<result>.*))?")
PROTOTYPE = re.compile(r"^(?!typedef|extern|#)(\w[\w\s*]*?)\b(\w+)\s*\(([^;{]*)\);", re.MULTILINE)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)

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


def made(what: str, options: Sequence[str], client: str | None) -> list[dict[str, object]]:
    """Return the trace *what*, or that of the program *what* with the *options* of ``trace``.

    With a *client* it is that which runs the program.
    """
    program, *arguments = shlex.split(what)
    path = Path(program)
    is_trace = path.is_file() and not os.access(path, os.X_OK) and path.suffix != ".py"
    if is_trace and not arguments and not options:
        return read(path)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "trace")
        command = [sys.executable, "-m", "libevent_py", "trace", "-o", str(file)]
        command += [*options, *(["--pass-interrupts"] if client else []), program, *arguments]
        if client is None:
            status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        else:
            status = talk(client, command)
        if client is not None and status:
            raise TraceError(f"the client {client} has ended with status {status}, for {what}")
        if not file.exists():
            why = "is neither a trace nor a program" if client is None else f"isn't run by {client}"
            raise TraceError(f"{what} {why} (status {status})")
        if client is not None and "\n+++ " not in file.read_text(errors="replace"):
            raise TraceError(f"the client {client} has ended before {what}: end that by a signal")
        return read(file)


def talk(client: str, command: Sequence[str]) -> int:
    """Have *client* run *command*, to which it talks; return its exit status.

    What it leaves running is ended.
    """
    own = shlex.split(client)
    if own[0].endswith(".py"):
        own = [*python(), *own]
    with subprocess.Popen([*own, *command], stdout=sys.stderr, start_new_session=True) as process:
        try:
            return process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def differing(a: Path, b: Path, leaving_out: Sequence[Known] = ()) -> Iterator[str]:
    """Yield the differences of the traces in the files *a* and *b* but those that are known."""
    sides = ((a, "a"), (b, "b"))
    lines = (known.without(told(read(path)), leaving_out, side) for path, side in sides)
    for _, line in differences(*(list(entries(each, None, False)) for each in lines)):
        yield line


def told(trace: Sequence[dict[str, object]]) -> Iterator[str]:
    """Yield the calls and callbacks of a trace as lines, in the order in which they begin."""
    ends = resumed(trace)
    for place, line in enumerate(trace):
        name, args = line.get("call") or line.get("begins"), line.get("args")
        if not name or not isinstance(args, list):
            continue
        end = ends.get(place, line)
        if end is not line and isinstance(end["args"], list):
            args = [*args, *end["args"]]
        begins = "<- " if "begins" in line else ""
        result = f" = {end['result']}" if end.get("result") is not None else ""
        yield f"{begins}{name}({', '.join(args)}){result}"


def entries(lines: Sequence[str], only: set[str] | None, sizes: bool) -> Iterator[Entry]:
    """Yield the calls and callbacks that *lines* tell."""
    for line in lines:
        match = TOLD.fullmatch(line)
        assert match is not None, line
        name, begins = match["name"], match["begins"] or ""
        if only is not None and not begins and name not in only:
            continue
        args = split(match["args"])
        if begins:
            plain = [callbacks_own(args, place) for place in range(len(args))]
        elif name in READS and not sizes:
            plain = args[:1]
        else:
            plain = [arguments_own(name, args, place) for place in range(len(args))]
        what = f"{begins}{name}({', '.join(plain)})"
        if match["result"] is not None and (begins or sizes or name not in READS):
            what += f" = {match['result']}"
        what = ADDRESS.sub("0x", what)
        objects = OBJECT.findall(what)
        yield Entry(name, line, OBJECT.sub(r"\1#", what), objects)


def arguments_own(name: str, args: Sequence[str], place: int) -> str:
    """Return what is compared of an argument of the function *name*."""
    kinds = parameters().get(name, [])
    kind, text = kinds[place] if place < len(kinds) else "", args[place]
    if kind == "void *" and (text == "NULL" or text.startswith("0x")):
        return "0x"
    if kind == "evutil_socket_t" and text.isdecimal() and not is_signal(args):
        return "fd"
    return text


def callbacks_own(args: Sequence[str], place: int) -> str:
    """Return what is compared of an argument of a callback: no descriptor, and no peer's port."""
    text = args[place]
    if text.isdecimal() and place < 2 and not is_signal(args):
        return "fd"
    return re.sub(r"^([\d.]+|\[[\da-f:]+\]):\d+$", r"\1", text)


def is_signal(args: Sequence[str]) -> bool:
    """Tell whether what would be a descriptor is a signal's number."""
    return any(re.search(r"\bEV_SIGNAL\b", arg) for arg in args)


@functools.cache
def parameters() -> dict[str, list[str]]:
    """Return the types of the parameters of libevent's functions, as far as they matter here."""
    found: dict[str, list[str]] = {}
    for header in sorted(PACKAGE.glob("_c/*.h")):
        for _, name, listed in PROTOTYPE.findall(COMMENT.sub("", header.read_text())):
            kinds = [re.sub(r"(?<=[\s*])\w+$", "", part).strip() for part in split(listed)]
            found[name] = [" ".join(kind.split()) for kind in kinds]
    return found


def resumed(trace: Sequence[dict[str, object]]) -> dict[int, dict[str, object]]:
    """Return the lines that have the ends of unfinished calls, by where these begin."""
    ends: dict[int, dict[str, object]] = {}
    waiting: dict[object, list[int]] = {}
    for place, line in enumerate(trace):
        stack = waiting.setdefault(line.get("pid"), [])
        if line.get("unfinished"):
            stack.append(place)
        elif "resumed" in line:
            for begun in reversed(stack):
                if trace[begun]["call"] == line["resumed"]:
                    stack.remove(begun)
                    ends[begun] = line
                    break
    return ends


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


#: What each kind of line is painted in on a terminal.
COLOURS = {"-": "red", "+": "green", "!": "yellow"}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=program("compare"),
        description="Tell how two traces differ. Exit with 0 when they are the same, else with 1.",
        epilog="Lines begin with -: only in A, +: only in B, !: A | B.",
    )
    made.add_argument("a", metavar="A", help="a trace, or a program with its arguments in quotes")
    made.add_argument("b", metavar="B", nargs="?", help="the other one; left out, it is A with "
        "--libevent or --backend")  # fmt: skip
    made.add_argument("--client", metavar="CMD", help="for servers: what starts the program, which "
        "CMD gets as its last arguments, talks to it, and ends it by a signal")  # fmt: skip
    made.add_argument("-e", dest="only", action="append", default=[], metavar="NAMES",
        help="only these functions, as for trace")  # fmt: skip
    made.add_argument("--sizes", action="store_true", help="also sizes and data of what is read")
    made.add_argument("--port", action="store_true", help="A is in Python, and B its port to C: "
        "leave out what the package does by itself")  # fmt: skip
    made.add_argument("--known", type=Path, action="append", default=[], metavar="FILE",
        help="leave out the differences that the TOML file FILE has")  # fmt: skip
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
    wanted = [each for path in ([known.PORT] if given.port else []) + given.known
              for each in known.read(path)]  # fmt: skip
    a, b = (
        list(entries(known.without(told(trace), wanted, side), only, given.sizes))
        for trace, side in (
            (made(given.a, [], given.client), "a"),
            (made(given.b or given.a, where, given.client), "b"),
        )
    )
    found = list(differences(a, b))
    if not found:
        return 0
    for one in a[max(0, found[0][0] - LED_TO_IT) : found[0][0]]:
        print(f"  {one.text}")
    for _, line in found:
        print(painted(line, COLOURS[line[0]]) if line[:1] in COLOURS else line)
    return 1
