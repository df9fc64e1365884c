"""``python -m libevent_py trace PROGRAM``: what strace is for system calls, for libevent.

The program runs with `libevent_py._trace.preload` in front of libevent, which writes a line for
each call. What a program has begun and not ended when it dies lies in memory shared with this
process, which tells it last.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import difflib
import errno
import fnmatch
import functools
import importlib.machinery
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from libevent_py import EventBase
from libevent_py._cli.find import places, public
from libevent_py._cli.program import program

#: As in preload.c: how many threads can be traced at once, and what each has.
PENDING, HEAD, TEXT = 256, struct.Struct("iiI"), 4080
COUNT = struct.Struct("QQQ")
#: As there: how many faults can be injected, and what each has counted.
FAULTS, TAKEN = 32, struct.Struct("QQ")
#: Where in the memory that is shared the faults begin, and the functions.
FAULTS_AT = PENDING * (HEAD.size + TEXT)
COUNTS_AT = FAULTS_AT + FAULTS * TAKEN.size


class TraceError(Exception):
    """Say why a program can't be traced, and what to do."""


@functools.cache
def preload() -> Path:
    """Return the library that is put before libevent."""
    place = Path(__file__).resolve().parent.parent / "_trace"
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        if (found := place / f"preload{suffix}").exists():
            return found
    raise TraceError("this build of libevent_py can't trace: it was built without its library")


@functools.cache
def traced() -> list[str]:
    """Return the names of the functions that are traced, by their numbers."""
    name = ctypes.CDLL(str(preload())).libevent_py_traced
    name.restype = ctypes.c_char_p
    names: list[str] = []
    while found := name(len(names)):
        names.append(found.decode())
    return names


def chosen(wanted: str) -> list[str]:
    """Return the functions that *wanted* names: by family, by name, by wildcard; "!" leaves out."""
    found: dict[str, None] = {}
    parts = [part.strip() for part in wanted.split(",") if part.strip()]
    if parts and all(part.startswith("!") for part in parts):
        found.update(dict.fromkeys(traced()))
    for part in parts:
        name = part.lstrip("!")
        names = [one for one in traced() if is_named(one, name)]
        if not names:
            raise TraceError(unknown_family(name))
        for one in names:
            if part.startswith("!"):
                found.pop(one, None)
            else:
                found[one] = None
    return list(found)


def is_named(function: str, name: str) -> bool:
    """Tell whether *name* is the function's, its family's, or a wildcard for it."""
    return (
        function == name or function.startswith(f"{name}_") or fnmatch.fnmatchcase(function, name)
    )


def families() -> list[str]:
    """Return what the names of functions begin with, up to their first underscore."""
    return sorted({name.partition("_")[0] for name in traced()})


def unknown(name: str, kind: str = "function or family") -> str:
    """Return what to say of a *name* that is none of a function that is traced."""
    near = difflib.get_close_matches(name, traced(), n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    return f"libevent has no {kind} {name} that can be traced{hint}"


def unknown_family(name: str) -> str:
    """Return what to say of a *name* that `is_named` finds nothing by."""
    known = ", ".join(families())
    return f"{unknown(name)} (families are {known}, and longer beginnings such as event_base)"


class Fault(NamedTuple):
    """A call that is to fail, or with ``malloc`` as function what libevent allocates."""

    function: str
    value: int
    errno: int
    first: int
    last: int


def fault(text: str) -> Fault:
    """Read what `--inject` says, such as ``evbuffer_add:error=-1:errno=ENOMEM:when=2+``."""
    name, *parts = text.split(":")
    memory = name == "malloc"
    if not memory and name not in traced():
        raise TraceError(
            f"--inject {text}: {unknown(name, 'function')} (beside them there is malloc; system "
            "calls can't be made to fail)"
        )
    value: int | None = 0 if memory else None
    code, first, last = errno.ENOMEM if memory else 0, 1, 2**63
    for part in parts:
        key, _, given = part.partition("=")
        if key == "error":
            value = value_of(text, given, memory)
        elif key == "errno":
            code = errno_of(text, given)
        elif key == "when":
            first, last = calls_of(text, given)
        else:
            raise TraceError(
                f"--inject {text}: {part!r} is none of error=VALUE or error=NULL, errno=NAME, "
                "when=N, when=N+ and when=N..M"
            )
    if value is None:
        raise TraceError(f"--inject {text}: say what the function is to return, as error=-1")
    return Fault(name, value, code, first, last)


def value_of(text: str, given: str, memory: bool) -> int:
    """Return what is to be returned, as ``error=`` in *text* says."""
    if memory and given not in ("NULL", "0"):
        raise TraceError(f"--inject {text}: malloc() can only return NULL")
    if given != "NULL" and not re.fullmatch(r"-?\d+", given):
        raise TraceError(f"--inject {text}: error={given} is no value: give a number, or NULL")
    return 0 if given == "NULL" else int(given)


def errno_of(text: str, given: str) -> int:
    """Return the number of the errno that *text* names."""
    names: dict[str, int] = {n: code for n, code in vars(errno).items() if n.startswith("E")}
    if given not in names:
        near = difflib.get_close_matches(given, names, n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ", such as ENOMEM"
        raise TraceError(f"--inject {text}: unknown errno {given!r}: give its name{hint}")
    return names[given]


def calls_of(text: str, given: str) -> tuple[int, int]:
    """Return the numbers of the first call and the last one that *text* says."""
    found = re.fullmatch(r"(\d+)(\+)?|(\d+)\.\.(\d+)", given)
    if found is None:
        raise TraceError(
            f"--inject {text}: when={given} says no call: give its number as N, N+ for all from it "
            "on, or N..M"
        )
    if found[3]:
        first, last = int(found[3]), int(found[4])
    else:
        first = int(found[1])
        last = 2**63 if found[2] else first
    if not 0 < first <= last:
        raise TraceError(f"--inject {text}: when={given} is no call: the first one is 1")
    return first, last


def check_linked(program: str) -> None:
    """Raise `TraceError` if *program* is static, or is no program at all."""
    with open(program, "rb") as file:
        if file.read(4) != b"\x7fELF":
            return  # a script: its interpreter may load libevent
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    if "not a dynamic executable" in done.stdout + done.stderr or "statically" in done.stdout:
        raise TraceError(
            f"{program} is linked statically, so nothing can be put before its libevent: link it "
            "with -levent"
        )
    if "libevent" not in done.stdout and not re.search(r"python|libdl", done.stdout):
        print(
            f"libevent_py: {program} is not linked with libevent: only what it loads later is "
            "traced",
            file=sys.stderr,
        )


def python() -> list[str]:
    """Return the command of this Python, with its own options."""
    options = [
        f"-X{name}" if value is True else f"-X{name}={value}"
        for name, value in sys._xoptions.items()
    ]
    return [sys.executable, *options, *(f"-W{option}" for option in sys.warnoptions)]


def command_of(program: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs *program*, a Python file or an executable."""
    if program.endswith(".py"):
        if not os.path.exists(program):
            raise TraceError(f"there is no file {program}")
        return [*python(), program, *arguments]
    found = shutil.which(program)
    if found is None:
        raise TraceError(f"there is no program {program}: give its path, or one that PATH finds")
    check_linked(found)
    return [found, *arguments]


def add_where(parser: argparse.ArgumentParser) -> None:
    """Add the options for the libevent that the program uses."""
    parser.add_argument(
        "--libevent", metavar="DIR", help="the directory of another build of libevent's libraries"
    )
    parser.add_argument("--backend", metavar="NAME", help="the only backend to be used, as poll")


def environment(libevent: str | None, backend: str | None) -> dict[str, str]:
    """Return the environment for a program that uses that libevent and backend."""
    environ = dict(os.environ)
    if libevent is not None:
        if not list(Path(libevent).glob("libevent*.so*")):
            raise TraceError(f"there is no libevent in {libevent}: give the directory of its .so")
        environ["LD_LIBRARY_PATH"] = os.path.abspath(libevent) + (
            f":{environ['LD_LIBRARY_PATH']}" if environ.get("LD_LIBRARY_PATH") else ""
        )
    if backend is not None:
        methods = EventBase.supported_methods()
        if backend not in methods:
            raise TraceError(f"there is no backend {backend}: there are {', '.join(methods)}")
        for method in methods:
            if method != backend:
                environ[f"EVENT_NO{method.upper()}"] = "1"
    return environ


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=program("trace"),
        description="Run a program, and write a line for each call to libevent.",
    )
    add = made.add_argument
    add(
        "-e",
        dest="only",
        action="append",
        default=[],
        metavar="NAMES",
        help="only these functions, families such as evbuffer, or wildcards; !NAME leaves out",
    )
    add("-c", dest="counting", action="store_true", help="only a table of calls, errors and time")
    add("-r", dest="relative", action="store_true", help="the time since the line before")
    add("-t", dest="stamped", action="store_true", help="the time of day")
    add("-o", dest="out", metavar="FILE", help="write to FILE, not to stderr")
    add("-f", dest="follow", action="store_true", help="trace child processes, too")
    add(
        "-s",
        dest="size",
        type=int,
        default=32,
        metavar="N",
        help="how much of a string is written, in bytes (32)",
    )
    add("-k", dest="stack", action="store_true", help="where in Python or C each call comes from")
    add("--inside", action="store_true", help="also the calls that libevent makes to itself")
    add("--json", action="store_true", help="each line as an object of JSON")
    # For `compare --client`: there no terminal sends SIGINT to the program as well.
    add("--pass-interrupts", action="store_true", help=argparse.SUPPRESS)
    add(
        "--inject",
        action="append",
        default=[],
        metavar="FAULT",
        help="let calls fail: FUNCTION:error=VALUE[:errno=NAME][:when=N|N+|N..M], or what libevent "
        "allocates: malloc[:when=N|N+|N..M]",
    )
    add_where(made)
    program_and_arguments = [
        add("program", help="a .py file or an executable"),
        add("arguments", nargs=argparse.REMAINDER),
    ]
    add(
        "-m",
        dest="module",
        action=Module,
        nargs=argparse.REMAINDER,
        instead_of=program_and_arguments,
        help="run a module, as python -m does: its name, and all that follows as its arguments",
    )
    return made


class Module(argparse.Action):
    """The option ``-m``, which takes all that follows, and stands for other arguments."""

    def __init__(self, *args: Any, instead_of: Sequence[argparse.Action], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.instead_of = instead_of

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Keep the module and its arguments; the program is no longer required."""
        if not values:
            parser.error("-m: say which module is to be run, as -m pytest")
        namespace.module = values
        for action in self.instead_of:
            action.required = False


def main(arguments: Sequence[str]) -> int:
    """Run ``trace``; return the program's exit status."""
    given = parser().parse_args(arguments)
    try:
        return trace(given)
    except (TraceError, OSError) as error:
        print(f"libevent_py: trace: {error}", file=sys.stderr)
        return 2


def trace(given: argparse.Namespace) -> int:
    environ = environment(given.libevent, given.backend)
    if "\n" in (given.out or ""):
        raise TraceError(f"-o {given.out!r}: the path must be in one line")
    only = chosen(",".join(given.only)) if given.only else None
    faults = [fault(text) for text in given.inject]
    if len(faults) > FAULTS:
        raise TraceError(f"--inject: there are {len(faults)}, and at most {FAULTS} can be")
    if given.module:
        after = ["--", given.program, *given.arguments] if given.program else []
        command = [*python(), "-m", *given.module, *after]
    else:
        command = command_of(given.program, given.arguments)
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shared = place / "shared"
        shared.write_bytes(bytes(COUNTS_AT + COUNT.size * len(traced())))
        out = os.path.abspath(given.out) if given.out else ""
        if out:
            open(out, "w").close()
        text = str(place / "lines") if given.json else out
        flags = (given.follow, given.inside, given.counting, given.relative, given.stamped)
        environ["LIBEVENT_PY_TRACE_OPTIONS"] = " ".join(
            str(int(flag)) for flag in (*flags, given.stack)
        )
        environ["LD_PRELOAD"] = ":".join(filter(None, [str(preload()), environ.get("LD_PRELOAD")]))
        if only is not None:
            environ["LIBEVENT_PY_TRACE_ONLY"] = ",".join(only)
        if faults:
            environ["LIBEVENT_PY_TRACE_INJECT"] = ";".join(
                f"{each.function} {each.value} {each.errno} {each.first} {each.last}"
                for each in faults
            )
        options = environ.pop("LIBEVENT_PY_TRACE_OPTIONS")
        tail = f"{options} {given.size}\n{shared}\n{text}".rstrip("\n")
        status = run(command, environ, tail, given.pass_interrupts)
        memory = shared.read_bytes()
        missed = list(never(memory, given.inject))
        if given.json:
            sink = stack.enter_context(open(out, "a")) if out else sys.stderr
            with open(text, errors="replace") as lines:
                for line in [*lines, *ends(memory, status, missed)]:
                    print(json.dumps(parsed(line)), file=sink)
        else:
            sink = stack.enter_context(open(out, "a")) if out else sys.stderr
            if given.counting:
                table(memory, sink)
            for line in ends(memory, status, missed):
                print(line, end="", file=sink)
        if out:
            for line in missed:
                print(f"libevent_py: trace: {line}", file=sys.stderr)
    if missed and status == 0:
        return 2
    return 128 - status if status < 0 else status


def run(command: list[str], environ: dict[str, str], tail: str, pass_interrupts: bool) -> int:
    """Run *command* to its end; return its exit status, or minus the signal that has ended it."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        try:
            environ["LIBEVENT_PY_TRACE"] = f"{os.getpid()} {tail}"
            os.execve(command[0], command, environ)
        except OSError as error:
            os.write(2, f"libevent_py: trace: {command[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)
    # Ctrl-C reaches the program as well; what ends this process is passed on to it.
    before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in (signal.SIGINT,)}
    passed_on = signal.SIGTERM, signal.SIGHUP, *[signal.SIGINT][: int(pass_interrupts)]
    for signum in passed_on:
        handler = signal.signal(signum, lambda number, _: os.kill(pid, number))
        before.setdefault(signum, handler)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def never(memory: bytes, injections: Sequence[str]) -> Iterator[str]:
    """Yield a text for each of *injections* that has let no call fail."""
    for number, text in enumerate(injections):
        seen, failed = TAKEN.unpack_from(memory, FAULTS_AT + number * TAKEN.size)
        if failed:
            continue
        function = fault(text).function
        times = f"{seen} time{'' if seen == 1 else 's'}"
        calls = "libevent has allocated" if function == "malloc" else f"{function} was called"
        yield f"--inject {text} never took place: {calls} {times}{called_instead(function, seen)}"


def called_instead(function: str, seen: int) -> str:
    """Return what the package calls in the place of a *function* that was not called."""
    found = [] if seen else [place for place in places().get(function, ()) if place.calls]
    if not found:
        return ""
    names = ", ".join(name for place in found for name in public(place.name))
    return f" (in Python, {names} calls {', '.join(found[0].calls)})"


def ends(memory: bytes, status: int, missed: Sequence[str]) -> Iterator[str]:
    """Yield what calls had told when the program ended, what was *missed*, and how it has ended."""
    for place in range(PENDING):
        at = place * (HEAD.size + TEXT)
        pid, _, length = HEAD.unpack_from(memory, at)
        if pid and length:
            text = memory[at + HEAD.size : at + HEAD.size + length].decode(errors="replace")
            yield f"{text} <unfinished ...>\n"
    for text in missed:
        yield f"+++ {text} +++\n"
    if status < 0:
        yield f"+++ killed by {signal.Signals(-status).name} +++\n"
    else:
        yield f"+++ exited with {status} +++\n"


def table(memory: bytes, sink: TextIO) -> None:
    """Print how often each function was called, how often that failed, and how long it took."""
    rows = []
    for number, name in enumerate(traced()):
        calls, failed, nanoseconds = COUNT.unpack_from(memory, COUNTS_AT + number * COUNT.size)
        if calls:
            rows.append((nanoseconds / 1e9, calls, failed, name))
    total = sum(row[0] for row in rows) or 1.0
    print("% time     seconds  usecs/call     calls    errors function", file=sink)
    print("------ ----------- ----------- --------- --------- ----------------", file=sink)
    for seconds, calls, failed, name in sorted(rows, reverse=True):
        print(
            f"{100 * seconds / total:6.2f} {seconds:11.6f} {1e6 * seconds / calls:11.2f} "
            f"{calls:9d} {failed or '':>9} {name}",
            file=sink,
        )
    print("------ ----------- ----------- --------- --------- ----------------", file=sink)
    calls, failed = sum(row[1] for row in rows), sum(row[2] for row in rows)
    print(f"100.00 {total:11.6f}             {calls:9d} {failed or '':>9} total", file=sink)


LINE = re.compile(
    r"(?:\[(?P<pid>\d+)\] )?(?:(?P<time>\d\d:\d\d:\d\d\.\d+|\d+\.\d{6}) )? *(?P<rest>.*)"
)
CALL = re.compile(
    r"(?P<call>\w+)\((?P<args>.*?)(?:\) = (?P<result>.*)|\))(?P<injected> \(INJECTED\))?"
)
RESUMED = re.compile(r"<\.\.\. (?P<call>\w+) resumed>(?P<args>.*?)\)(?: = (?P<result>.*))?")


def parsed(line: str) -> dict[str, object]:
    """Return what a line of a trace says, as an object of JSON."""
    text = line.rstrip("\n")
    head = LINE.fullmatch(text)
    assert head is not None
    found: dict[str, object] = {}
    rest = head["rest"]
    if head["pid"]:
        found["pid"] = int(head["pid"])
    if head["time"]:
        found["time"] = head["time"]
    if rest.startswith("<- "):
        name, _, args = rest[3:].partition("(")
        found |= {"begins": name, "args": split(args.removesuffix(")"))}
    elif rest.startswith("-> "):
        found["ends"] = rest[3:]
    elif rest.startswith("+++ --inject "):
        found["missed"] = rest.strip("+ ")
    elif rest.startswith("+++ "):
        found["end"] = rest.strip("+ ")
    elif match := RESUMED.fullmatch(rest):
        found |= {"resumed": match["call"], "args": split(match["args"].removeprefix(", "))}
        if match["result"] is not None:
            found["result"] = match["result"]
    elif rest.endswith(" <unfinished ...>"):
        name, _, args = rest.removesuffix(" <unfinished ...>").partition("(")
        found |= {"call": name, "args": split(args), "unfinished": True}
    elif match := CALL.fullmatch(rest):
        found |= {"call": match["call"], "args": split(match["args"])}
        if match["result"] is not None:
            found["result"] = match["result"].removesuffix(" (INJECTED)")
        if rest.endswith("(INJECTED)"):
            found["injected"] = True
    else:
        found["text"] = rest
    return found


def split(args: str) -> list[str]:
    """Return the arguments, which commas are between that are in no string, nor in braces."""
    parts, depth, quoted, start, at = [], 0, False, 0, 0
    while at < len(args):
        letter = args[at]
        if quoted:
            if letter == "\\":
                at += 1
            quoted = letter != '"'
        elif letter == '"':
            quoted = True
        elif letter in "{[(":
            depth += 1
        elif letter in "}])":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(args[start:at].strip())
            start = at + 1
        at += 1
    last = args[start:].strip()
    return [*parts, last] if last or parts else []
