"""``libevent-py samples``: lists the samples, runs one, or copies it to start from."""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from libevent_py._cli.program import complain, program

PACKAGE = Path(__file__).parent.parent
#: Where a wheel has them, and where the source tree has.
PLACES = (PACKAGE / "_samples", PACKAGE.parent / "samples")

INCLUDED = re.compile(r'^#include "(.*)"$', re.MULTILINE)
#: What a file includes, and the library that it needs for that, in the linker's order.
LIBRARIES = (
    (r"#include <event2/bufferevent_ssl\.h>", "-levent_openssl"),
    (r"#include <event2/(?:dns|http|rpc|tag)\w*\.h>", "-levent_extra"),
    (r"#include <event2/", "-levent_core"),
    (r"#include <openssl/", "-lssl"),
    (r"#include <openssl/", "-lcrypto"),
    (r"#include <zlib\.h>", "-lz"),
)


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
    show = below.add_parser("show", help="print samples")
    show.add_argument("names", nargs="+", metavar="name")
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
    found = [twin]
    for file in found:  # which grows
        for header in INCLUDED.findall(file.read_text()):
            if (beside := file.with_name(header)) not in found:
                found.append(beside)
    return found


def compiling(found: Sequence[Path], folder: Path) -> str:
    """Return the command that compiles the copy of a twin in *folder*."""
    text = "".join(file.read_text() for file in found)
    libraries = [library for pattern, library in LIBRARIES if re.search(pattern, text)]
    twin = folder / found[0].name
    return shlex.join(["cc", "-o", str(twin.with_suffix("")), str(twin), *libraries])


def main(arguments: Sequence[str]) -> int:
    """Run the command; return 0, 2 for bad arguments, or what a sample that ran returned."""
    given = parser().parse_args(arguments)
    if given.action is None:
        listed(given.json)
        return 0
    names = given.names if given.action == "show" else [given.name]
    try:
        each = [files(name, getattr(given, "c", False)) for name in names]
    except LookupError as error:
        complain(f"libevent_py: samples: {error}")
        return 2
    if given.action == "run":
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, str(each[0][0]), *given.arguments])
    if given.action == "show":
        print("\n".join(found[0].read_text() for found in each), end="")
        return 0
    return copied(each[0], given.folder)


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
    """Copy the files; return the exit status. A sample that is there is not replaced by its like.

    Nor are the headers of a twin: they may have been changed.
    """
    first = folder / found[0].name
    if first.exists():
        complain(f"libevent_py: samples: {first} is there already: move it out of the way first")
        return 2
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for each in found:
            copy = folder / each.name
            if not copy.exists():
                shutil.copyfile(each, copy)
                print(copy)
            elif copy.read_bytes() != each.read_bytes():
                complain(f"libevent_py: samples: {copy} is another one, and is left as it is")
    except OSError as error:
        complain(f"libevent_py: samples: {error}")
        return 2
    if found[0].suffix == ".c":
        print(f"Compile it by: {compiling(found, folder)}")
    return 0
