"""``python -m libevent_py c NAME``: what a name of Python's is in C, and what C leaves to you.

The prototypes are those of the cdefs, which equal libevent's headers token by token. What there is
to take care of comes from the docstrings and, in a clone, from the rules in docs/lifetimes.md. A
class with many methods is a table, unless all is asked for.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import fnmatch
import functools
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import libevent_py
from libevent_py import enums
from libevent_py._cli.find import (
    PACKAGE,
    constants,
    definitions_in,
    places,
    public,
    stood_for,
    wrapped,
)
from libevent_py._cli.program import complain, program
from libevent_py._ffi import lib

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
FUNCTION = re.compile(r"^(?!typedef|extern|#)(\w[\w\s*]*?\b(\w+)\s*\([^;{]*\));", re.MULTILINE)
CONSTANT = re.compile(r"^#define (\w+) \.\.\.$|^\s+(\w+)(?: = [^,}]*)?,?$", re.MULTILINE)
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


#: The macros that a name of Python's stands for, and the header that has them.
MACROS = {
    "evsignal_new": "(b, x, cb, arg) event_new((b), (x), EV_SIGNAL|EV_PERSIST, (cb), (arg))",
    "evtimer_new": "(b, cb, arg) event_new((b), -1, 0, (cb), (arg))",
    "evuser_new": "(b, cb, arg) event_new((b), -1, 0, (cb), (arg))",
    "event_get_signal": "(ev) ((int)event_get_fd(ev))",
}
MACROS_HEADER = "event2/event.h"

#: What variables are called in programs and in the documentation.
VARIABLES = {
    "base": "EventBase",
    "bev": "BufferEvent",
    "buffer": "Buffer",
    "ev": "Event",
    "event": "Event",
    "input": "Buffer",
    "listener": "Listener",
    "output": "Buffer",
    "timer": "Event",
}

#: The modules that a program uses by their name.
MODULES = ("debug", "log", "tag", "util")


#: A class with more methods than so many is a table.
FEW = 6


class Prototype(NamedTuple):
    """A declaration of libevent's, and the header that has it."""

    header: str
    text: str


@functools.cache
def prototypes() -> dict[str, Prototype]:
    """Return what libevent's headers have: functions, types of callbacks, macros, constants."""
    found: dict[str, Prototype] = {}
    for path in sorted(PACKAGE.glob("_c/*.h")):
        theirs = COMMENT.sub("", path.read_text().partition(OURS)[0])
        for declared in FUNCTION, CALLBACK:
            for text, name in declared.findall(theirs):
                if name.startswith(("ev", "bufferevent_", "libevent_")):
                    whole = " ".join(text.split())
                    found.setdefault(name, Prototype(f"event2/{path.stem}.h", f"{whole};"))
        for pair in CONSTANT.findall(theirs):
            name = "".join(pair)
            if any(name in listed for listed in constants().values()):
                found.setdefault(name, Prototype(f"event2/{path.stem}.h", name))
    for listed in constants().values():
        for name in listed:
            found.setdefault(name, Prototype("openssl/ssl.h", name))
    for name, text in MACROS.items():
        found[name] = Prototype(MACROS_HEADER, f"#define {name}{text}")
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
    return [
        name
        for name, one in prototypes().items()
        if one.text.endswith(";") and not one.text.startswith("typedef")
    ]


def functions_of(name: str) -> list[str]:
    """Return what *name*, of Python's or of C's, is in C; [] for nothing.

    What it stands for comes first: that is what a program in C calls.
    """
    if name in prototypes():
        return [name]
    if name in CALLBACKS:
        return CALLBACKS[name]
    behind = [
        (not stands, function)
        for stands, function, known in by_place()
        if fnmatch.fnmatchcase(known, name) or known.startswith(f"{name}.")
    ]
    found = [function for _, function in sorted(behind, key=lambda each: each[0])]
    for member, listed in constants().items():
        if fnmatch.fnmatchcase(member, name) or member.startswith(f"{name}."):
            found += listed
    found += fnmatch.filter(prototypes(), name)
    if found:
        here = [(stands, function) for stands, function, known in by_place() if known == name]
        stood_for = {function for stands, function in here if stands}
        makes = {function for _, function in here}
        found.sort(key=lambda each: (each not in stood_for, rank(each, makes)))
    member = name.rpartition(".")[2]
    if member in CALLBACKS and exists(name):
        found += CALLBACKS[member]
    return [function for function in dict.fromkeys(found) if function in prototypes()]


def known_as(name: str) -> str:
    """Return the public name for one such as ``base.once`` or ``util.socketpair``."""
    before, _, member = name.partition(".")
    if before in MODULES:
        return member
    return f"{VARIABLES[before]}.{member}" if before in VARIABLES else name


@functools.cache
def by_place() -> list[tuple[bool, str, str]]:
    """Return whether it stands for it, each function of C's, and each public name that has it."""
    return [
        (place.stands, function, known)
        for function, where in places().items()
        for place in where
        for known in public(place.name)
    ]


def rank(function: str, makes: set[str]) -> tuple[bool, bool, int]:
    """Return what puts those first that make an object, and the plainest of these before others."""
    if function not in makes:
        return True, False, 0
    return False, "_new" not in function, len(function)


def exists(name: str) -> bool:
    """Tell whether *name* is a public name of Python's, such as ``EventBase.defer``."""
    kind, _, member = name.partition(".")
    thing = getattr(libevent_py, kind, None) if kind in libevent_py.__all__ else None
    return thing is not None and (not member or hasattr(thing, member))


def to_free(function: str) -> Iterator[str]:
    """Yield what is to be said of the result of *function*, if it makes something."""
    if function in MACROS:
        match = re.fullmatch(r"ev\w+?()_new", function)
        ends = ["event_free"]
    else:
        match = re.fullmatch(r"(\w+?)_new(_\w+)?", function)
        name = match[1] if match else ""
        ends = [f"{name}_free", f"{name.removesuffix('_socket').removesuffix('_base')}_free"]
    if match:
        for end in ends:
            if hasattr(lib, end):
                yield f"It returns NULL on failure. What it makes is yours: free it by {end}()."
                break


def to_take_care_of(function: str) -> Iterator[str]:
    """Yield what a C programmer has to know of *function*, in paragraphs."""
    yield from to_free(function)
    for place in places().get(function, ()):
        for known in public(place.name)[:1]:
            yield f"{known}: {' '.join(said().get(known, '').split())}"
    for member, listed in constants().items():
        if function in listed:
            kind, _, short = member.partition(".")
            yield f"{member}: {getattr(enums, kind)[short].__doc__}"
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


def own(name: str) -> str:
    """Return what is said of a *name* of Python's that is nothing in C."""
    return f"Nothing in C stands behind {name}: it is the package's own."


def table(name: str) -> Iterator[str]:
    """Yield the lines for the class *name*: what makes it, and a line for each of its methods."""
    places = sorted(by_place(), key=lambda each: not each[0])
    pairs = [(function, known) for _, function, known in places]
    for function in functions_of(name):
        if (function, name) in pairs:
            known = prototypes()[function]
            yield f"#include <{known.header}>"
            yield known.text
            for free in to_free(function):
                yield f"    {free}"
    rows: dict[str, list[str]] = {}
    for function, method in sorted(pairs, key=lambda pair: pair[1]):
        if method.startswith(f"{name}."):
            rows.setdefault(method, []).append(function)
    wide = max(map(len, rows))
    yield ""
    for method, listed in rows.items():
        yield f"{method.ljust(wide)}  {', '.join(listed)}"
    yield ""
    yield f"{program(f'c {name}.METHOD')} says what C leaves to you; --all says it of all of them."


def lines_of(name: str, whole: bool = False) -> list[str]:
    """Return the lines for a name; [] if it is nothing in C. A class is a table unless *whole*."""
    name = known_as(name)
    found = functions_of(name)
    if not whole and sum(known.startswith(f"{name}.") for *_, known in by_place()) > FEW:
        return [*table(name)]
    told: list[str] = []
    before: list[str] = []
    for function in found:
        lines = [*shown(function)]
        # What has been said of one function of a method need not be said of the next.
        told += ["", *lines[:2], *(line for line in lines[2:] if line not in before)]
        before = lines[2:]
    return told[1:]


def near(name: str) -> list[str]:
    """Return the names that *name* may have been meant to be."""
    names = [*prototypes(), *said(), *constants(), *CALLBACKS]
    return difflib.get_close_matches(name, names, n=3)


def parser() -> argparse.ArgumentParser:
    """Return what reads the command's arguments."""
    made = argparse.ArgumentParser(
        prog=program("c"),
        description="Print the prototypes behind names of Python's, and what C leaves to you.",
        epilog="Exit status: 1 when nothing in C stands behind a name, 2 when it is unknown. For "
        f"example: {program('c on_read')}",
    )
    made.add_argument("--all", action="store_true", help="of a class, all that its methods say")
    made.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="as BufferEvent.setwatermark, bev.setwatermark, Listener, on_read or EventFlag.READ",
    )
    return made


def main(arguments: Sequence[str]) -> int:
    """Print what each of the names is in C; return 1 if one is nothing, 2 if one is unknown."""
    given = parser().parse_args(arguments)
    status, said_before = 0, False
    for name in given.names:
        lines = lines_of(name, given.all)
        if not lines and exists(known_as(name)):
            complain(own(name))
            status = max(status, 1)
        elif not lines:
            meant = near(name)
            hint = f"; did you mean {', '.join(meant)}?" if meant else ""
            complain(f"Nothing in C is called {name} or stands behind it{hint}")
            status = 2
        if lines and said_before:
            print()
        said_before |= bool(lines)
        if lines:
            print(*lines, sep="\n")
    return status
