"""``python -m libevent_py c NAME``: what a name of Python's is in C, and what C leaves to you.

The prototypes are those of the cdefs, which equal libevent's headers token by token. What there is
to take care of comes from the docstrings and, in a clone, from the rules in docs/lifetimes.md.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import fnmatch
import functools
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from libevent_py._cli.find import PACKAGE, definitions_in, places, public, stood_for, wrapped
from libevent_py._cli.program import program
from libevent_py._ffi import lib

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
FUNCTION = re.compile(r"^(?!typedef|extern|#)(\w[\w\s*]*?\b(\w+)\s*\([^;{]*\));", re.MULTILINE)
CALLBACK = re.compile(r"^(typedef\b[^;{]*?\(\s*\*\s*(\w+)\s*\)\s*\([^;{]*\));", re.MULTILINE)
OURS = "/* Ours. */"
SAID = re.compile(r"\s*\b(?:Wraps|Stands\s+for)\s+(?:``\w+``(?:,\s+)?)+\.?")
RULE = re.compile(r"^### (\w+)\. ([^\n]*)\n(.*?)(?=^#|\Z)", re.MULTILINE | re.DOTALL)

#: The types in C of the callbacks that go by a name of Python's.
CALLBACKS = {
    "on_read": ["bufferevent_data_cb"],
    "on_write": ["bufferevent_data_cb"],
    "on_event": ["bufferevent_event_cb"],
    "on_accept": ["evconnlistener_cb"],
    "on_error": ["evconnlistener_errorcb"],
    "input_filter": ["bufferevent_filter_cb"],
    "output_filter": ["bufferevent_filter_cb"],
    "finalize": ["event_finalize_callback_fn"],
}


class Prototype(NamedTuple):
    """A declaration of libevent's, and the header that has it."""

    header: str
    text: str


@functools.cache
def prototypes() -> dict[str, Prototype]:
    """Return the functions and the types of callbacks that libevent's headers declare."""
    found: dict[str, Prototype] = {}
    for path in sorted(PACKAGE.glob("_c/*.h")):
        theirs = COMMENT.sub("", path.read_text().partition(OURS)[0])
        for declared in FUNCTION, CALLBACK:
            for text, name in declared.findall(theirs):
                if name.startswith(("ev", "bufferevent_", "libevent_")):
                    whole = " ".join(text.split())
                    found.setdefault(name, Prototype(f"event2/{path.stem}.h", f"{whole};"))
    return found


@functools.cache
def said() -> dict[str, str]:
    """Return what the docstrings say of each public name, without the C functions' names."""
    found: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, node in definitions_in(ast.parse(path.read_bytes())):
            text = ast.get_docstring(node) or ""
            if wrapped(text) or stood_for(text):
                for known in public(name):
                    found[known] = SAID.sub("", text).strip()
    return found


@functools.cache
def rules() -> list[tuple[str, str, str]]:
    """Return id, title and text of each rule in docs/lifetimes.md, if it is there."""
    file = PACKAGE.parent / "docs" / "lifetimes.md"
    return RULE.findall(file.read_text()) if file.exists() else []


def callable_in_c() -> list[str]:
    """Return the functions that libevent's headers declare."""
    return [name for name, one in prototypes().items() if not one.text.startswith("typedef")]


def functions_of(name: str) -> list[str]:
    """Return the C functions and types that *name* is, in Python or in C; [] for none.

    What it stands for comes first: that is what a program in C calls.
    """
    if name in prototypes():
        return [name]
    if name in CALLBACKS:
        return CALLBACKS[name]
    behind = [
        (not place.stands, function)
        for function, where in places().items()
        for place in where
        if any(
            fnmatch.fnmatchcase(known, name) or known.startswith(f"{name}.")
            for known in public(place.name)
        )
    ]
    found = [function for _, function in sorted(behind, key=lambda each: each[0])]
    found += fnmatch.filter(prototypes(), name)
    return [function for function in dict.fromkeys(found) if function in prototypes()]


def to_take_care_of(function: str) -> Iterator[str]:
    """Yield what a C programmer has to know of *function*, in paragraphs."""
    if match := re.fullmatch(r"(\w+?)_new(_\w+)?", function):
        free = f"{match[1].removesuffix('_socket').removesuffix('_base')}_free"
        for end in (f"{match[1]}_free", free):
            if hasattr(lib, end):
                yield f"It returns NULL on failure. What it makes is yours: free it by {end}()."
                break
    for place in places().get(function, ()):
        for known in public(place.name)[:1]:
            yield f"{known}: {' '.join(said().get(known, '').split())}"
    for number, title, text in rules():
        if re.search(rf"\b{function}\b", text):
            yield f"{number}. {title} (docs/lifetimes.md)"


def shown(function: str) -> Iterator[str]:
    """Yield the lines for *function*."""
    known = prototypes()[function]
    yield f"#include <{known.header}>"
    yield known.text
    for paragraph in to_take_care_of(function):
        yield textwrap.fill(paragraph, 100, initial_indent="    ", subsequent_indent="    ")


def near(name: str) -> list[str]:
    """Return the names that *name* may have been meant to be."""
    names = [*prototypes(), *said(), *CALLBACKS]
    return difflib.get_close_matches(name, names, n=3)


def parser() -> argparse.ArgumentParser:
    """Return what reads the command's arguments."""
    made = argparse.ArgumentParser(
        prog=program("c"),
        description="Print the prototypes behind names of Python's, and what C leaves to you.",
        epilog=f"Exit status: 2 when a name is unknown. For example: {program('c on_read')}",
    )
    made.add_argument(
        "names", nargs="+", metavar="NAME", help="as BufferEvent.setwatermark, Listener or on_read"
    )
    return made


def main(arguments: Sequence[str]) -> int:
    """Print what each of the names is in C; return 2 if one is unknown."""
    names = parser().parse_args(arguments).names
    status, said_before = 0, False
    for name in names:
        found = functions_of(name)
        if not found:
            meant = near(name)
            hint = f"; did you mean {', '.join(meant)}?" if meant else ""
            print(f"Nothing in C is called {name} or stands behind it{hint}", file=sys.stderr)
            status = 2
        for function in found:
            if said_before:
                print()
            print(*shown(function), sep="\n")
            said_before = True
    return status
