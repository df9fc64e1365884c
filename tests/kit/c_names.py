"""Every name of libevent's headers, and where it went: what the C index of the site shows.

The names come from the headers in vendor/include. Where they went say the docstrings, the tables
in libevent_py/_c and, for what is neither function nor macro, docs/c_names.toml.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
from dataclasses import dataclass, field

import libevent_py
from libevent_py import enums
from libevent_py._cli import find
from tests.kit.cdefs import without_comments
from tests.kit.support import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HEADERS = ROOT / "vendor" / "include" / "event2"
TABLE = ROOT / "docs" / "c_names.toml"

#: How libevent was built: no program is to use any of it.
BUILT = ("event-config", "visibility")

DEFINE = re.compile(r"^#[ \t]*define[ \t]+(\w+)(\([^)]*\))?[ \t]*(.*)$", re.MULTILINE)
DIRECTIVE = re.compile(r"^[ \t]*#(?:.*\\\n)*.*", re.MULTILINE)
EXPORTED = re.compile(r"EVENT2_EXPORT_SYMBOL\s*([^;(]*?\b(\w+)\s*\([^;{]*\))\s*(?:EV_\w+[^;]*)?;")
ENUM = re.compile(r"\benum (\w+)\s*\{([^}]*)\}")
STRUCT = re.compile(r"\bstruct (\w+)\s*(\{|;|\*|\w|\b)")
TYPEDEF = re.compile(r"\btypedef\b([^;{]*?);")

#: What a name is, in the index.
FUNCTION, MACRO, CONSTANT, STRUCTURE = "function", "macro", "constant", "struct"
ENUMERATION, CALLBACK = "enum", "callback"


@dataclass
class Name:
    """A name of C's: what it is, which header has it, and where it went."""

    name: str
    kind: str
    header: str
    text: str = ""  # its declaration, if it has one
    wrapped: list[str] = field(default_factory=list)
    stood_for: list[str] = field(default_factory=list)
    instead: list[str] = field(default_factory=list)
    instead_in_c: list[str] = field(default_factory=list)
    why: str = ""

    @property
    def known(self) -> bool:
        """Whether anything says where it went."""
        return bool(self.wrapped or self.stood_for or self.instead or self.why)

    @property
    def id(self) -> str:
        """The anchor in the index, which tells apart a struct and a function of one name."""
        return f"{'struct' if self.kind == STRUCTURE else 'c'}-{self.name}"


def _one_line(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"\(\s+", "(", text).replace("* ", "*") + ";"


def _read(header: str, text: str) -> list[Name]:
    text = without_comments(text)
    names = [
        Name(name, MACRO if arguments else CONSTANT, header, f"#define {name}{arguments}")
        for name, arguments, _ in DEFINE.findall(text)
        if not name.endswith("_")
    ]
    body = DIRECTIVE.sub("", text)
    for declaration, name in EXPORTED.findall(body):
        names.append(Name(name, FUNCTION, header, _one_line(declaration)))
    for name, members in ENUM.findall(body):
        names.append(Name(name, ENUMERATION, header, f"enum {name};"))
        found = [member.split()[0] for member in members.split(",") if member.split()]
        names += [Name(member, CONSTANT, header) for member in found]
    for name, _ in sorted(STRUCT.findall(body), key=lambda one: one[1] != "{"):
        names.append(Name(name, STRUCTURE, header, f"struct {name};"))
    for declaration in TYPEDEF.findall(body):
        pointer = re.search(r"\(\s*\*\s*(\w+)\s*\)\s*\(", declaration)
        if called := pointer or re.search(r"(\w+)\s*\([^()]*\)\s*$", declaration):
            whole = _one_line(f"typedef {declaration.strip()}")
            names.append(Name(called[1], CALLBACK, header, whole))
    return names


@functools.cache
def names() -> dict[str, Name]:
    """Return each name of the headers by its anchor, in alphabetical order."""
    found: dict[str, Name] = {}
    where: dict[str, bool] = {}
    for path in sorted(HEADERS.glob("*.h")):
        if not path.name.startswith(BUILT):
            text = path.read_text()
            for one in _read(f"event2/{path.name}", text):
                whole = f"struct {one.name} {{" in text
                if one.id not in found or (whole and not where[one.id]):
                    if one.id in found and found[one.id].kind == FUNCTION:
                        continue  # a macro of that name is for systems without the function
                    found[one.id], where[one.id] = one, whole
    for one in found.values():
        _fill(one)
    return dict(sorted(found.items(), key=lambda item: (item[1].name.lower(), item[0])))


@functools.cache
def table() -> dict[str, tuple[list[str], str]]:
    """Return what docs/c_names.toml says of each name: the names in Python, and why."""
    groups = tomllib.loads(TABLE.read_text())["names"]
    return {
        name: (group.get("to", []), group.get("why", ""))
        for group in groups
        for name in group["names"]
    }


def _fill(one: Name) -> None:
    """Say where a name went."""
    if one.kind in (STRUCTURE, ENUMERATION, CALLBACK):
        one.instead, one.why = table().get(one.name, ([], ""))
        return
    for place in find.places().get(one.name, ()):
        (one.stood_for if place.stands else one.wrapped).extend(public(place))
    if one.wrapped or one.stood_for:
        return
    if absent := _absent().get(one.name):
        one.why = absent.why
        for other in absent.instead:
            (one.instead_in_c if other in find.places() else one.instead).append(other)
        return
    one.instead = _constants().get(one.name, [])
    if not one.instead:
        one.instead, one.why = table().get(one.name, ([], ""))


@functools.cache
def _absent() -> dict[str, find.Absent]:
    """Return what the tables of libevent_py/_c say, as `find.absent` does of one name."""
    found: dict[str, find.Absent] = {}
    for path in sorted(find.PACKAGE.glob("_c/not_*.toml")):
        read = tomllib.loads(path.read_text())
        for kind in ("functions", "macros"):
            for group in read.get(kind, ()):
                for name in group["names"]:
                    why = find.Absent(
                        kind.removesuffix("s"), group["why"], find.instead(read, name)
                    )
                    found.setdefault(name, why)
    return found


@functools.cache
def _constants() -> dict[str, list[str]]:
    """Return the members of enumerations that each constant is, as `find.constant` does of one."""
    found: dict[str, list[str]] = {}
    for kind in ast.parse(inspect.getsource(enums)).body:
        for node in kind.body if isinstance(kind, ast.ClassDef) else ():
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                parts = {ast.unparse(part) for part in ast.walk(node.value)}
                for name in {part.removeprefix("lib.").strip("'") for part in parts}:
                    members = found.setdefault(name, [])
                    members.append(f"{kind.name}.{node.targets[0].id}")  # type: ignore[attr-defined]
    return found


def public(place: find.Place) -> list[str]:
    """Return the public names of a place, without ``libevent_py``."""
    kind = place.name.partition(".")[0]
    heirs = find.public(place.name)
    if kind in libevent_py.__all__ or heirs != [place.name]:
        return heirs
    module = place.path.removeprefix("libevent_py/").removesuffix(".py").replace("/", ".")
    parent, _, last = module.rpartition(".")
    holder = getattr(libevent_py, parent, None) if last else None
    return [f"{parent if hasattr(holder, kind) else module}.{place.name}"]


def python(name: str) -> list[Name]:
    """Return what of C the public *name* of Python's stands in the place of."""
    return [one for one in names().values() if name in (*one.wrapped, *one.stood_for, *one.instead)]
