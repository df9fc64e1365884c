"""``python -m libevent_py evbuffer_add``: where a C function is; ``doctor``: what is in use."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence

from libevent_py import EventBase, version
from libevent_py._doctor import report
from libevent_py._index import declared, places, reason


def main(arguments: Sequence[str]) -> int:
    """Run the command line, and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m libevent_py",
        description="Say which objects of libevent_py wrap a C function of libevent's, and where; "
        "or what is installed, and which published security holes it has.",
    )
    parser.add_argument(
        "function", nargs="?", help='the C function, such as event_add, or "doctor"'
    )
    function = parser.parse_args(arguments).function
    if function == "doctor":
        for line in report():
            print(line)
        return 0
    if function is not None:
        return show(function)
    with EventBase() as base:
        package = importlib.metadata.version("libevent_py")
        print(f"libevent_py {package}, libevent {version}, backend {base.method}\n")
    parser.print_help()
    return 0


def show(function: str) -> int:
    """Print where *function* is wrapped, or why it isn't; return the exit status."""
    found = places().get(function, [])
    for place in found:
        print(f"{place.name}  {place.path}:{place.line}")
    if found:
        return 0
    why = reason(function)
    because = f": {why}" if why else ""
    if declared(function):
        complain(f"{function} is not wrapped{because}.")
        complain(f"It can be called as libevent_py.lib.{function}.")
        return 1
    if why:
        complain(f"{function} is not declared{because}.")
        return 1
    complain(f"libevent has no function {function}.")
    return 2


def complain(message: str) -> None:
    """Print *message* where errors go."""
    print(message, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
