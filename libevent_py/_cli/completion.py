"""``libevent-py completion bash``: what a shell needs to complete the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from libevent_py._cli.commands import COMMANDS
from libevent_py._cli.program import complain, program

SHELLS = ("bash", "zsh")


def parser() -> argparse.ArgumentParser:
    """Return what reads the command's arguments."""
    made = argparse.ArgumentParser(
        prog=program("completion"),
        description="Print a script that completes the commands and options of libevent-py.",
        epilog='For bash: eval "$(libevent-py completion bash)" in ~/.bashrc. For zsh: '
        "libevent-py completion zsh > _libevent-py in a folder of $fpath.",
    )
    made.add_argument("shell", choices=SHELLS)
    return made


def whole() -> argparse.ArgumentParser:
    """Return a parser that has those of all commands below it."""
    made = argparse.ArgumentParser(prog="libevent-py")
    made.add_argument("--version", action="store_true", help="tell the versions")
    below = made.add_subparsers()
    for each in COMMANDS:
        own = each.load().parser()
        below.add_parser(each.name, parents=[own], add_help=False, help=each.does)
    return made


def main(arguments: Sequence[str]) -> int:
    """Print the script; return 0, or 1 when the package shtab is missing."""
    given = parser().parse_args(arguments)
    try:
        import shtab
    except ModuleNotFoundError:
        complain("There is no package shtab: pip install 'libevent_py[completion]'")
        return 1
    print(shtab.complete(whole(), given.shell))
    return 0
