"""docs/departures.md names what departs from C, each docstring that says so, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import pytest

import libevent_py
from libevent_py import lib
from libevent_py._cli import find
from tests.kit.support import ROOT

PAGE = (ROOT / "docs" / "departures.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]
NAMES = [row[0].strip(" `") for row in ROWS]

#: The modules that a program uses by their name.
HOLDERS = {f"{name}.py": name for name in ("debug", "log", "tag", "util")}
HOLDERS["rpc/message.py"] = "rpc_message"

#: What a docstring says of C where Python does something else.
DEPARTS = re.compile(
    r"\b[Uu]nlike in C\b"
    r"|(?<![Aa]s )\b[Ii]n C,? (?:it|nothing|nobody|the|a|libevent|after|would)\b"
    r"|\bC(?:'s own function)? (?:would|does not|doesn't|accepts)\b"
    r"|\blibevent itself (?:never|sends|doesn't)\b"
)


def departs(docstring: str) -> bool:
    """Tell whether a docstring says that C does something else."""
    return DEPARTS.search(" ".join(docstring.split())) is not None


def resolved(name: str) -> Any:
    """Return the object that has the public *name*."""
    holder: Any = libevent_py
    for part in name.split("."):
        holder = getattr(holder, part)
    return holder


def public_names(module: str, name: str) -> list[str]:
    """Return the names that a program may call a definition by; none if it isn't public."""
    names = [known for known in find.public(name) if known.split(".")[0] in libevent_py.__all__]
    if holder := HOLDERS.get(module):
        names.append(f"{holder}.{name}")
    return [known for known in names if not re.search(r"\b_", known)]


def departing() -> Iterator[list[str]]:
    """Yield the public names of each definition whose docstring says that it departs from C."""
    for path in sorted(find.PACKAGE.rglob("*.py")):
        module = path.relative_to(find.PACKAGE).as_posix()
        if module.startswith("_"):
            continue
        tree = ast.parse(path.read_bytes())
        if departs(ast.get_docstring(tree) or ""):
            yield [module.removesuffix(".py")]
        for name, node in find.definitions_in(tree):
            names = public_names(module, name)
            if names and departs(ast.get_docstring(node) or ""):
                yield names


def test_each_docstring_that_says_it_departs_from_c_is_listed() -> None:
    found = [*departing()]
    assert len(found) > 60
    missing = [names for names in found if not set(names) & set(NAMES)]
    assert missing == [], "see docs/departures.md"


def test_each_name_that_is_listed_says_so_in_its_docstring() -> None:
    said = {name for names in departing() for name in names}
    assert [name for name in NAMES if name not in said] == []


def test_each_name_is_listed_once_and_exists() -> None:
    assert len(NAMES) == len(set(NAMES))
    for name in NAMES:
        resolved(name)


def test_each_row_says_what_c_does_what_is_done_here_and_the_way_to_c() -> None:
    for row in ROWS:
        assert len(row) == 4 and all(row), row


def test_each_way_to_c_exists() -> None:
    named = re.findall(r"`lib\.(\w+)`", PAGE)
    assert len(set(named)) > 50
    for name in named:
        if lib.LIBEVENT_PY_HAVE_OPENSSL or "ssl" not in name.lower():
            assert callable(getattr(lib, name)), name
    for *_, way in ROWS:
        assert "`lib." in way or way in ("leave it out", "C's generated code"), way


@pytest.mark.parametrize(
    ("docstring", "said"),
    [
        ("Do it. Unlike in C, it works.", True),
        ("A list: unlike\nin C, it may change.", True),
        ("Raises `ValueError` where C would abort.", True),
        ("In C, after that nothing is sent.", True),
        ("As in C, it works.", False),
        ("As in C, a name is none; as in C it is.", False),
        ("Give C its pointer, in C's form.", False),
    ],
)
def test_what_says_that_c_does_something_else_is_seen(docstring: str, said: bool) -> None:
    assert departs(docstring) is said
