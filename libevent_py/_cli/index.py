"""``libevent-py find evbuffer_add``: which objects wrap a C function, and where they are."""

from __future__ import annotations

import argparse
import difflib
import fnmatch
import json
from collections.abc import Sequence
from typing import Any

from libevent_py._cli.find import Place, absent, constant, declared, is_constant, places, public
from libevent_py._cli.in_c import callable_in_c, exists, known_as, lines_of, own, said
from libevent_py._cli.program import complain, program


def parser() -> argparse.ArgumentParser:
    """Return what reads the command's arguments."""
    made = argparse.ArgumentParser(
        prog=program("find"),
        description="Say which objects of libevent_py wrap a C function of libevent's, or stand "
        "for it, and where. Of a name of Python's, say what it is in C, as the command c does.",
        epilog="Exit status: 0 when it is wrapped, 1 when it isn't, 2 when libevent has no such "
        f"name. For example: {program('find event_add')}",
    )
    made.add_argument(
        "function",
        nargs="*",
        help="C functions, macros or constants, such as event_add, EV_READ or 'evbuffer_*'",
    )
    made.add_argument("--all", action="store_true", help="a table of all functions")
    made.add_argument("--json", action="store_true", help="what is found as JSON")
    return made


def main(arguments: Sequence[str]) -> int:
    """Run the command; return 0, 1 when a name is not wrapped, 2 when there is no such name."""
    made = parser()
    given = made.parse_args(arguments)
    names = sorted(callable_in_c()) if given.all else given.function
    if not names:
        made.error("give a name, such as event_add; or --all")
    if given.json:
        return show_json(names)
    if given.all:
        for name in names:
            print(*table_of(name), sep="\n")
        return 0
    return max(show_all(function) for function in names)


def show_json(patterns: Sequence[str]) -> int:
    """Print what is known of each name as JSON; return the exit status."""
    found: dict[str, dict[str, Any]] = {}
    status = 0
    for pattern in patterns:
        names = matching(pattern) if is_pattern(pattern) else [pattern]
        status = max(status, 0 if names else 2)
        for name in names:
            known = absent(name)
            found[name] = {
                "python": [
                    {
                        "names": public(place.name),
                        "path": place.path,
                        "line": place.line,
                        "stands_for": place.stands,
                        "calls": list(place.calls),
                    }
                    for place in places().get(name, [])
                ],
                "members": list(constant(name)),
                "why_not": known.why if known else None,
                "instead": list(known.instead) if known else [],
                "in_lib": declared(name) or is_constant(name),
            }
            if not found[name]["python"] and not found[name]["members"]:
                status = max(status, 1 if known or found[name]["in_lib"] else 2)
    print(json.dumps(found, indent=2))
    return status


def is_pattern(name: str) -> bool:
    """Tell whether *name* has wildcards."""
    return any(letter in name for letter in "*?[")


def matching(pattern: str) -> list[str]:
    """Return the functions that *pattern* names."""
    return fnmatch.filter(sorted(places().keys() | set(callable_in_c())), pattern)


def show_all(pattern: str) -> int:
    """Print where the functions that *pattern* names are wrapped; return the exit status."""
    if not is_pattern(pattern):
        return show(pattern)
    found = matching(pattern)
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
            instead = f", and calls {', '.join(place.calls)}" if place.calls else ""
            print(line.replace("  ", f" stands for it{instead}  ") if place.stands else line)
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
    if known is None and not declared(function):
        return show_python(function)
    because = f": {known.why}" if known else ""
    if declared(function):
        complain(f"{function} is not wrapped{because}.")
    else:
        what = "a macro" if known is not None and known.kind == "macro" else "not declared"
        complain(f"{function} is {what}{because}.")
    for name in known.instead if known else ():
        complain(f"Use {name} instead{':' if name in wrapped else '.'}")
        for line in listed(wrapped.get(name, [])):
            complain(line)
    if declared(function):
        complain(f"It can be called as libevent_py.lib.{function}.")
    return 1


def show_python(name: str) -> int:
    """Print what a name of Python's is in C, or that there is none such; return the exit status."""
    if in_c := lines_of(name):
        print(*in_c, sep="\n")
        return 0
    if exists(known_as(name)):
        complain(own(name))
        return 1
    meant = difflib.get_close_matches(name, [*callable_in_c(), *said()], n=3)
    if name.startswith("evpy_"):
        meant = []
    hint = f" Did you mean {', '.join(meant)}?" if meant else ""
    complain(f"libevent has no function, macro or constant {name}.{hint}")
    return 2


def listed(found: Sequence[Place]) -> list[str]:
    """Return a line for each place, with the names that a program has it by."""
    return [f"{', '.join(public(place.name))}  {place.path}:{place.line}" for place in found]
