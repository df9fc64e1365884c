"""Each public name has an example, which a test runs, and the reference leads to it."""

from __future__ import annotations

import pytest

from libevent_py import Buffer, Event
from tests.kit import examples
from tests.kit.examples import DOCS, Sections, Use
from tests.kit.tutorial import Program, programs

PAGES = sorted((DOCS / "examples").glob("*.md"))


@pytest.mark.slow  # all of them together
@pytest.mark.parametrize("program", [one for page in PAGES for one in programs(page)], ids=str)
def test_an_example_prints_what_the_page_says(program: Program) -> None:
    program.check()


def test_each_public_name_has_an_example_that_is_there() -> None:
    assert len(examples.public()) > 900
    message = "run python -m tests.kit.examples, and write an example of what has none"
    assert examples.wrong(examples.table()) == [], message


@pytest.mark.more  # all programs of the documentation that have changed, or the samples' tests
def test_each_example_uses_the_name() -> None:
    used = examples.found(examples.all_uses())
    assert [name for name, places in used.items() if not places] == []
    told = {(name, place) for name, places in examples.table().items() for place in places}
    unseen = told - {(name, place) for name, places in used.items() for place in places}
    assert {one for one in unseen if not one[1].startswith("samples/")} == set()
    # A few lines of the samples run only if their peer is quick, or slow.
    assert len(unseen) <= 5, unseen


def test_all_that_the_reference_shows_is_looked_for() -> None:
    names = examples.public()
    for name in ("Buffer.add", "Buffer.__len__", "aio.Stream.readline", "testing.Until.__call__"):
        assert name in names
    for name in ("EventFlag", "types.Timeout", "util.socketpair", "lib", "serve.Config.threads"):
        assert name in names
    assert "EventFlag.READ" not in names


def test_a_table_that_is_wrong_is_told() -> None:
    right = examples.table()
    add = right["Buffer.add"]
    assert examples.wrong({**right, "Buffer.add": []}) == ["Buffer.add: no example"]
    assert examples.wrong({**right, "Buffer.nowhere_at_all": add}) == [
        "Buffer.nowhere_at_all: not public",
        *(f"Buffer.nowhere_at_all: not in {place}" for place in add),
    ]
    gone = {
        **right,
        "Buffer.add": ["tutorial/07-buffers#nowhere", "tutorial/99#x", "samples/no.py"],
    }
    assert examples.wrong(gone) == [
        "Buffer.add: there is no tutorial/07-buffers#nowhere",
        "Buffer.add: there is no tutorial/99#x",
        "Buffer.add: there is no samples/no.py",
    ]
    elsewhere = {**right, "Buffer.add": right["util.gai_strerror"][:1]}
    (told,) = examples.wrong(elsewhere)
    assert told.startswith("Buffer.add: not in examples/util#")


PROGRAM = """\
from libevent_py import Buffer, Event, EventBase


def kept(event: Event) -> None:
    event.delete()


class Mine(Buffer):
    pass


with EventBase() as base:
    mine = Mine()
    mine.add(b"abc")
    print(len(mine), b"b" in mine)
    print(base.method)
"""


def test_what_a_program_uses_is_found_by_its_type() -> None:
    page = DOCS / "index.md"
    start = page.read_text().partition("```python")[0].count("\n") + 1
    lines = {"program.py": [start] * len(PROGRAM.splitlines())}
    uses = [*examples.of_program(page, PROGRAM, lines, {})]
    found = examples.found(uses)
    place = "index#thirty-seconds"
    for name in ("Buffer", "Buffer.add", "Buffer.__len__", "Buffer.__contains__", "EventBase"):
        assert found[name] == [place], name
    # What is not run, or only an annotation, is no use.
    assert found["Event.delete"] == found["Event"] == found["Buffer.read"] == []
    # A block closes: that is worth less than a call of close().
    keys = examples.keys()
    assert {use.weak for use in uses if "EventBase.close" in keys.get(use.key, ())} == {True}


def test_an_example_of_the_same_class_is_better() -> None:
    key = examples.definition(Buffer, "closed")
    assert key == examples.definition(Event, "closed")
    inherited = Use(key, "one", owners=(examples.key_of(Event),))
    own = Use(key, "two", owners=(examples.key_of(Buffer),))
    assert examples.found([inherited, own])["Buffer.closed"] == ["two"]
    assert examples.found([inherited])["Buffer.closed"] == ["one"]


def test_a_program_that_fails_is_no_example() -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        list(examples.of_program(DOCS / "index.md", "1 / 0\n", {"program.py": [1]}, {}))


def test_sections_have_the_anchors_of_the_site() -> None:
    sections = Sections(DOCS / "debugging.md")
    assert [slug for _, slug, _ in sections.starts][:2] == ["debugging", "why-doesnt-my-loop-end"]
    assert sections.title("why-doesnt-my-loop-end") == "Debugging: Why doesn't my loop end?"
    assert sections.title("debugging") == "Debugging"
    assert "## Why doesn't" in sections.text("why-doesnt-my-loop-end")
