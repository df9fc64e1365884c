"""``python -m libevent_py evbuffer_add`` finds a C function; ``doctor`` reports what is in use."""

from __future__ import annotations

import argparse
import difflib
import fnmatch
import importlib.metadata
import os
import signal
import sys
from collections.abc import Sequence

from libevent_py import EventBase, libevent_version
from libevent_py._cli import compare, in_c, trace
from libevent_py._cli.doctor import report
from libevent_py._cli.find import Place, absent, constant, declared, is_constant, places, public
from libevent_py._cli.in_c import callable_in_c


def main(arguments: Sequence[str]) -> int:
    """Run the command line, and return its exit status."""
    if arguments[:1] == ["trace"]:
        return trace.main(arguments[1:])
    if arguments[:1] == ["c"]:
        return in_c.main(arguments[1:])
    if arguments[:1] == ["compare"]:
        return compare.main(arguments[1:])
    if arguments[:1] == ["serve"]:
        # Only now: asyncio takes as long to import as all the rest.
        from libevent_py._cli import serve

        return serve.main(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="python -m libevent_py",
        description="Say which objects of libevent_py wrap a C function of libevent's, or stand "
        "for it, and where; "
        "or what is installed, and which published vulnerabilities it has.",
    )
    parser.add_argument(
        "function",
        nargs="*",
        help="C functions, macros or constants, such as event_add, EV_READ or evbuffer_*; or "
        '"doctor"',
    )
    parser.add_argument("--all", action="store_true", help="a table of all functions")
    parser.epilog = (
        "Other commands: c NAME tells what a name is in C. trace PROGRAM tells what a program "
        "calls of libevent. compare A B tells how two traces differ. serve MODULE:APP "
        "serves a WSGI or ASGI application."
    )
    given = parser.parse_args(arguments)
    if given.function == ["doctor"]:
        for line in report():
            print(line)
        return 0
    if given.all:
        for name in sorted(callable_in_c()):
            print(*table_of(name), sep="\n")
        return 0
    if given.function:
        return max(show_all(function) for function in given.function)
    with EventBase() as base:
        package = importlib.metadata.version("libevent_py")
        print(f"libevent_py {package}, libevent {libevent_version}, backend {base.method}\n")
    parser.print_help()
    return 0


def show_all(pattern: str) -> int:
    """Print where the functions that *pattern* names are wrapped; return the exit status."""
    if not any(letter in pattern for letter in "*?["):
        return show(pattern)
    found = fnmatch.filter(sorted(places().keys() | set(callable_in_c())), pattern)
    for name in found:
        print(*table_of(name), sep="\n")
    if not found:
        complain(f"libevent has no function like {pattern}.")
    return 0 if found else 2


def table_of(function: str) -> list[str]:
    """Return a line for each place that wraps *function*, which begins with its name."""
    where = places().get(function, [])
    lines = [
        f"{function}  {'stands for it: ' if place.stands else ''}{line}"
        for line, place in zip(listed(where), where, strict=True)
    ]
    return lines or [f"{function}  as libevent_py.lib.{function}"]


def show(function: str) -> int:
    """Print where *function* is wrapped, or why it isn't; return the exit status."""
    wrapped = places()
    if function in wrapped:
        for line, place in zip(listed(wrapped[function]), wrapped[function], strict=True):
            print(line.replace("  ", " stands for it  ") if place.stands else line)
        if declared(function) and any(place.stands for place in wrapped[function]):
            print(f"libevent's own can be called as libevent_py.lib.{function}.")
        return 0
    if members := constant(function):
        print(*members, sep="\n")
        return 0
    if is_constant(function):
        complain(f"{function} is in no enumeration. It can be read as libevent_py.lib.{function}.")
        return 1
    known = absent(function)
    because = f": {known.why}" if known else ""
    if declared(function):
        complain(f"{function} is not wrapped{because}.")
    elif known is None:
        meant = difflib.get_close_matches(function, callable_in_c(), n=3)
        if function.startswith("evpy_"):
            meant = []
        hint = f" Did you mean {', '.join(meant)}?" if meant else ""
        complain(f"libevent has no function, macro or constant {function}.{hint}")
        return 2
    elif known.kind == "macro":
        complain(f"{function} is a macro{because}.")
    else:
        complain(f"{function} is not declared{because}.")
    for name in known.instead if known else ():
        complain(f"Use {name} instead{':' if name in wrapped else '.'}")
        for line in listed(wrapped.get(name, [])):
            complain(line)
    if declared(function):
        complain(f"It can be called as libevent_py.lib.{function}.")
    return 1


def listed(found: Sequence[Place]) -> list[str]:
    """Return a line for each place, with the names that a program has it by."""
    return [f"{', '.join(public(place.name))}  {place.path}:{place.line}" for place in found]


def complain(message: str) -> None:
    """Print *message* to stderr."""
    print(message, file=sys.stderr)


def run(arguments: Sequence[str]) -> int:
    """Run the command line as a program, which ends quietly when its output is closed.

    In ``python -m libevent_py doctor | head -1``, for instance, it exits with the status of a
    program that SIGPIPE has ended. SIGPIPE itself must not end it: the program uses sockets, too.
    """
    try:
        try:
            return main(arguments)
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # it was closed from the start
                    stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for fd in (1, 2):  # or Python would complain when it flushes them at exit
            os.dup2(nowhere, fd)
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
