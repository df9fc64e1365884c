"""The list of subcommands, and what runs each: a module is loaded when its command is used."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, cast

from libevent_py import EventBase, libevent_version
from libevent_py._cli.program import program


class Module(Protocol):
    """What a subcommand's module has."""

    def parser(self) -> argparse.ArgumentParser:
        """Return what reads the command's arguments."""

    def main(self, arguments: Sequence[str]) -> int:
        """Run the command; return its exit status."""


class Command(NamedTuple):
    """A subcommand: its name, its module, what it does in a few words, and an example."""

    name: str
    module: str
    does: str
    example: str

    def load(self) -> Module:
        """Import the module."""
        return cast(Module, importlib.import_module(f"libevent_py._cli.{self.module}"))


COMMANDS = (
    Command("find", "index", "where a C function has gone in Python", "find evbuffer_add"),
    Command("c", "in_c", "what a name of Python's is in C, and what C leaves to you", "c Listener"),
    Command("doctor", "doctor", "what is installed, what is missing, what is broken", "doctor"),
    Command("samples", "samples", "programs to start from", "samples run hello_world"),
    Command("serve", "serve", "serve a WSGI or ASGI application", "serve module:app"),
    Command("trace", "trace", "a line for each call of libevent's", "trace -c server.py"),
    Command("compare", "compare", "how two traces differ", "compare server.py --backend poll"),
    Command("completion", "completion", "completion for a shell", "completion bash"),
)

#: What a command's exit status means, whichever it is.
STATUSES = (
    "Exit status: 0 when all went well; 1 when the answer is no: it isn't wrapped, the traces "
    "differ, something is broken; 2 when the arguments are wrong or name nothing, or what trace "
    "was to inject never took place; 141 when nobody reads what is printed. trace and samples run "
    "end with the program's own."
)


def command(name: str) -> Command | None:
    """Return the command called *name*, or None."""
    return next((each for each in COMMANDS if each.name == name), None)


def versions() -> str:
    """Return the versions in use, in one line."""
    with EventBase() as base:
        package = importlib.metadata.version("libevent_py")
        return f"libevent_py {package}, libevent {libevent_version}, backend {base.method}"


def overview() -> Iterator[str]:
    """Yield the lines of the help."""
    yield f"usage: {program()} COMMAND [ARGUMENT ...]"
    yield f"       {program()} FUNCTION ..."
    yield ""
    yield "The real libevent 2.1, in Python. A name of C's alone is what find would look up,"
    yield "and one of Python's is what c would."
    yield ""
    wide = max(len(each.name) for each in COMMANDS)
    for each in COMMANDS:
        yield f"  {each.name.ljust(wide)}  {each.does}"
    yield ""
    yield "for example:"
    for each in COMMANDS:
        yield f"  {program(each.example)}"
    yield ""
    yield f"{program('COMMAND --help')} says more about each; --version tells the versions."
    yield from textwrap.wrap(STATUSES, 88)
