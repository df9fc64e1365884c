"""Where each C function is wrapped: in the object whose docstring says ``Wraps``.

Where it says ``Stands for``, the package has code of its own in the place of the function, which it
doesn't call, or calls by another one.

The docstrings are read from the source, so no module has to be imported.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import libevent_py
from libevent_py import enums
from libevent_py._ffi import lib

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(__file__).parent.parent
NAMES = r"\s+(``\w+``(?:,\s+``\w+``)*)\."
WRAPS = re.compile(rf"\bWraps{NAMES}")
STANDS_FOR = re.compile(rf"\bStands\s+for{NAMES}")


class Place(NamedTuple):
    """A class, method or function, and where its definition begins.

    *stands* tells whether it stands for the C function, without calling it, and *calls* has the
    functions that it calls instead.
    """

    name: str
    path: str
    line: int
    stands: bool = False
    calls: tuple[str, ...] = ()


def places() -> dict[str, list[Place]]:
    """Return the places that wrap each C function, or stand for it, by its name."""
    return _places(PACKAGE)


@functools.cache
def _places(package: Path) -> dict[str, list[Place]]:
    modules = {
        path.relative_to(package).as_posix(): ast.parse(path.read_bytes())
        for path in sorted(package.rglob("*.py"))
    }
    found: dict[str, list[Place]] = {}
    for file, module in modules.items():
        for name, node in definitions_in(module):
            docstring = ast.get_docstring(node) or ""
            place = Place(name, f"{package.name}/{file}", node.lineno)
            for function in wrapped(docstring):
                found.setdefault(function, []).append(place)
            for function in stood_for(docstring):
                instead = place._replace(stands=True, calls=tuple(wrapped(docstring)))
                found.setdefault(function, []).append(instead)
    return found


def wrapped(docstring: str) -> list[str]:
    """Return the C functions that a docstring says it wraps."""
    return _named(WRAPS, docstring)


def stood_for(docstring: str) -> list[str]:
    """Return the C functions and macros that a docstring says it stands for."""
    return _named(STANDS_FOR, docstring)


def _named(said: re.Pattern[str], docstring: str) -> list[str]:
    return [name for names in said.findall(docstring) for name in re.findall(r"\w+", names)]


def definitions_in(module: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Yield each function, class and method, with its name."""
    for node in module.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, ast.FunctionDef):
                    made = member.name == "__init__"
                    yield node.name if made else f"{node.name}.{member.name}", member


def public(name: str) -> list[str]:
    """Return the public names of the object *name*, such as ``Class.method``.

    What a class that isn't public has, its public subclasses have; others keep their name.
    """
    kind, dot, member = name.partition(".")
    if kind in libevent_py.__all__ or not kind[0].isupper():
        return [name]
    things = ((known, getattr(libevent_py, known)) for known in libevent_py.__all__)
    heirs = [
        known
        for known, thing in things
        if isinstance(thing, type) and kind in [cls.__name__ for cls in thing.__mro__]
    ]
    return [f"{heir}{dot}{member}" for heir in heirs] or [name]


@functools.cache
def constants() -> dict[str, list[str]]:
    """Return the C constants that each member of an enumeration is, by names as ``Kind.MEMBER``."""
    found: dict[str, list[str]] = {}
    for kind in ast.parse(inspect.getsource(enums)).body:
        for node in kind.body if isinstance(kind, ast.ClassDef) else ():
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                texts = [ast.unparse(part) for part in ast.walk(node.value)]
                names = [text.removeprefix("lib.").strip("'") for text in texts]
                member = f"{kind.name}.{node.targets[0].id}"  # type: ignore[attr-defined]
                if listed := [name for name in names if is_constant(name)]:
                    found[member] = listed
    return found


def constant(name: str) -> list[str]:
    """Return the members of enumerations that are the C constant *name*."""
    return [member for member, listed in constants().items() if name in listed]


def is_constant(name: str) -> bool:
    """Tell whether `lib` has libevent's constant *name*."""
    return not name.startswith("EVPY_") and isinstance(getattr(lib, name, None), int)


def declared(name: str) -> bool:
    """Tell whether `lib` has libevent's function *name*, wrapped or not."""
    ours = not name.startswith(("ev", "bufferevent_", "libevent_")) or name.startswith("evpy_")
    return not ours and callable(getattr(lib, name, None))


class Absent(NamedTuple):
    """Why a function or macro isn't wrapped or declared.

    *instead* has the functions, or Python's own names, that do the same.
    """

    kind: str
    why: str
    instead: list[str]


def absent(name: str) -> Absent | None:
    """Return why *name* is not wrapped or declared; None if the tables don't have it."""
    for path in sorted(PACKAGE.glob("_c/not_*.toml")):
        table: dict[str, Any] = tomllib.loads(path.read_text())
        for kind in ("functions", "macros"):
            for group in table.get(kind, ()):
                if name in group["names"]:
                    return Absent(kind.removesuffix("s"), group["why"], instead(table, name))
    return None


def instead(table: dict[str, Any], name: str) -> list[str]:
    """Return the names that a table gives to use instead of *name*."""
    return list(table.get("instead", {}).get(name, ()))
