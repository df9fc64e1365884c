"""The tutorial's programs run as they stand there, and print what it says."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from tests.kit.names import sections
from tests.kit.support import ROOT
from tests.kit.tutorial import TUTORIAL, PageError, Program, programs, write

INDEX = TUTORIAL / "index.md"
CHAPTERS = sorted(TUTORIAL.glob("[0-9]*.md"))
PROGRAMS = [program for page in CHAPTERS for program in programs(page)]


@pytest.mark.slow  # all of them together
@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_a_program_prints_what_the_page_says(program: Program) -> None:
    program.check()


def test_the_index_lists_the_chapters_in_order() -> None:
    text = INDEX.read_text()
    (tree,) = re.findall(r"^```\{toctree\}\n(?::\w+:[^\n]*\n)*(.*?)^```$", text, re.M | re.S)
    names = [page.stem for page in CHAPTERS]
    assert len(names) == 16
    assert tree.split() == names
    assert re.findall(r"\]\((\d[\w-]+)\.md\)", text) == names


def test_each_chapter_leads_to_the_next() -> None:
    for page, following in itertools.pairwise(CHAPTERS):
        assert page.read_text().rstrip().endswith(f"({following.name})"), page.name


def test_each_chapter_begins_and_ends_alike() -> None:
    for page in CHAPTERS:
        text = page.read_text()
        number = int(page.name[:2])
        assert text.startswith(f"# {number}. "), page.name
        assert "\nAfter this chapter you can " in text, page.name
        assert re.search(r"^## (What can go wrong|What went wrong)", text, re.M), page.name
        assert re.search(r"^## Exercises$", text, re.M), page.name
        assert "](../" in text, f"{page.name} leads to no other page"


def named_in(text: str) -> set[str]:
    """Return the names such as ``EventBase.loop`` in *text*, outside of its blocks."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return set(re.findall(r"`([A-Z]\w+\.\w+|(?:util|log|debug|tag)\.\w+)`", prose))


def test_the_names_of_the_api_are_there() -> None:
    public = {f"{title.rpartition('.')[2]}.{name}" for title, names in sections() for name in names}
    for page in [INDEX, *CHAPTERS]:
        assert named_in(page.read_text()) - public == set(), page.name


def page_of(tmp_path: Path, text: str) -> Path:
    page = tmp_path / "page.md"
    page.write_text(text)
    return page


RIGHT = "```python\nprint('a')\n```\n\n```text\na\n```\n"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (RIGHT.replace("\na\n", "\nb\n"), r"page:1 prints\na\n"),
        (RIGHT.replace("\na\n", "\na\na\n"), r"page:1 prints\na\n"),
        (RIGHT.replace("\na\n", "\n"), r"page:1 prints\na\n"),
        (RIGHT.replace("print('a')", "print('a'); raise SystemExit(3)"), r"status 3\na\n"),
        (RIGHT.replace("print('a')", "1 / 0"), r"status 1\n(?s:.*)ZeroDivisionError"),
        (RIGHT.replace("print('a')", "open('/dev/null')"), r"prints\n(?s:.*)ResourceWarning"),
        ("```console\n$ echo a\nb\n```\n", r"prints\n\$ echo a\na\n"),
        ("```console\n$ false\n```\n", r"status 1\n"),
    ],
)
def test_a_page_that_says_something_else_fails(tmp_path: Path, text: str, wrong: str) -> None:
    (program,) = programs(page_of(tmp_path, text))
    with pytest.raises(PageError, match=wrong):
        program.check()


def test_a_page_that_is_right_passes(tmp_path: Path) -> None:
    file = "```python\n# file: a.py\nx = 1\n```\n\n```python\n# file: a.py, continued\ny = 2\n```\n"
    program = "```python\nimport a\nprint(a.x, a.y)\n```\n\n```text\n1 2\n```\n"
    console = "```console\n$ python -c 'import a; print(a.y)'\n2\n$ true\n```\n"
    made = programs(page_of(tmp_path, RIGHT + file + program + console))
    assert len(made) == 3
    for each in made:
        each.check()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("```python\nprint(1)\n```\n", "page:1: the page doesn't say what it prints"),
        (RIGHT + RIGHT.partition("\n\n")[2], "page:8: no program prints this"),
        (RIGHT.replace("python", "py"), "page:1: a block of the kind py"),
        (RIGHT.replace("```text", " ```text"), "page: a block has no end, or is indented"),
        ("```python\n# file: a.py, continued\n```\n", "page:1: there is no a.py"),
        ("```console\nsaid\n$ true\n```\n", "page:1: this doesn't begin with a command"),
    ],
)
def test_a_page_with_a_block_that_is_not_run_fails(tmp_path: Path, text: str, wrong: str) -> None:
    with pytest.raises(PageError, match=wrong):
        programs(page_of(tmp_path, text))


def test_what_is_printed_can_be_written_into_the_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, RIGHT.replace("\na\n", "\nb\n") + "```console\n$ echo a\n```\n")
    write(page)
    assert page.read_text() == RIGHT + "```console\n$ echo a\na\n```\n"


def test_the_readme_leads_to_the_tutorial() -> None:
    assert "(docs/tutorial/index.md)" in (ROOT / "README.md").read_text()
