"""docs/departures.md names what departs from C, each docstring that says so, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest

import libevent_py
from libevent_py import lib
from tests.kit.departures import departing, departs
from tests.kit.support import ROOT

PAGE = (ROOT / "docs" / "departures.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]
NAMES = [row[0].strip(" `") for row in ROWS]


def resolved(name: str) -> Any:
    """Return the object that has the public *name*."""
    holder: Any = libevent_py
    for part in name.split("."):
        holder = getattr(holder, part)
    return holder


def test_each_docstring_that_says_it_departs_from_c_is_listed() -> None:
    found = [names for names, _ in departing()]
    assert len(found) > 60
    missing = [names for names in found if not set(names) & set(NAMES)]
    assert missing == [], "see docs/departures.md"


def test_each_name_that_is_listed_says_so_in_its_docstring() -> None:
    said = {name for names, _ in departing() for name in names}
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
