"""The command line: ``libevent-py COMMAND``, or ``python -m libevent_py COMMAND``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from libevent_py._cli.commands import COMMANDS, command, overview, versions


def main(arguments: Sequence[str]) -> int:
    """Run the command line, and return its exit status; names alone are looked up."""
    if not arguments:
        print(versions(), "", *overview(), sep="\n")
        return 0
    first = arguments[0]
    if first in ("-h", "--help"):
        print(*overview(), sep="\n")
        return 0
    if first == "--version":
        print(versions())
        return 0
    known = command(first)
    if known is not None:
        return known.load().main(arguments[1:])
    return COMMANDS[0].load().main(arguments)


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


def script() -> int:
    """Run ``libevent-py``."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(script())
