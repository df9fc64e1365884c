"""``libevent-py samples``: lists the samples, runs one, or copies it to start from."""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from libevent_py._cli.program import complain, program

PACKAGE = Path(__file__).parent.parent
#: Where a wheel has them, and where the source tree has.
PLACES = (PACKAGE / "_samples", PACKAGE.parent / "samples")


def parser() -> argparse.ArgumentParser:
    """Return what reads the command's arguments."""
    made = argparse.ArgumentParser(
        prog=program("samples"),
        description="List the samples; run one, show it, or copy it to start from.",
        epilog=f"For example: {program('samples run upper_listener 9995')}",
    )
    made.add_argument("--json", action="store_true", help="the list as JSON")
    below = made.add_subparsers(dest="action", metavar="{run,show,copy}")
    run = below.add_parser("run", help="run a sample with arguments of its own")
    run.add_argument("name")
    run.add_argument("arguments", nargs=argparse.REMAINDER)
    show = below.add_parser("show", help="print a sample")
    show.add_argument("name")
    copy = below.add_parser("copy", help="copy a sample into a folder")
    copy.add_argument("name")
    copy.add_argument("folder", nargs="?", default=Path(), type=Path, help="by default this one")
    for each in (show, copy):
        each.add_argument("--c", action="store_true", help="its twin in C")
    return made


def place() -> Path:
    """Return where the samples are."""
    return next(each for each in PLACES if each.is_dir())


def samples() -> dict[str, str]:
    """Return what each sample is, by its name."""
    found = {}
    for path in sorted(place().glob("*.py")):
        if path.stem != "__init__":
            told = ast.get_docstring(ast.parse(path.read_text())) or ""
            found[path.stem] = told.splitlines()[0]
    return found


def files(name: str, in_c: bool) -> list[Path]:
    """Return what *name* is made of; raise `LookupError` if there is no such sample."""
    known = samples()
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, n=3))
        hint = f"did you mean {near}?" if near else f"{program('samples')} lists them"
        raise LookupError(f"there is no sample {name}; {hint}")
    if not in_c:
        return [place() / f"{name}.py"]
    if not (twin := place() / "c" / f"{name}.c").exists():
        raise LookupError(f"{name} has no twin in C")
    return [twin, *sorted(place().joinpath("c").glob("*.h"))]


def main(arguments: Sequence[str]) -> int:
    """Run the command; return 0, 2 for bad arguments, or what a sample that ran returned."""
    given = parser().parse_args(arguments)
    if given.action is None:
        listed(given.json)
        return 0
    try:
        found = files(given.name, getattr(given, "c", False))
    except LookupError as error:
        complain(f"libevent_py: samples: {error}")
        return 2
    if given.action == "run":
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, str(found[0]), *given.arguments])
    if given.action == "show":
        print(found[0].read_text(), end="")
        return 0
    return copied(found, given.folder)


def listed(as_json: bool) -> None:
    """Print what there is."""
    found = samples()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    wide = max(map(len, found))
    for name, told in found.items():
        print(f"{name.ljust(wide)}  {told}")


def copied(found: Sequence[Path], folder: Path) -> int:
    """Copy the files, unless one is there already; return the exit status."""
    there = [folder / each.name for each in found if (folder / each.name).exists()]
    if there and there[0].name == found[0].name:
        complain(f"libevent_py: samples: {there[0]} is there already: move it out of the way first")
        return 2
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for each in found:
            shutil.copyfile(each, folder / each.name)
            print(folder / each.name)
    except OSError as error:
        complain(f"libevent_py: samples: {error}")
        return 2
    return 0
