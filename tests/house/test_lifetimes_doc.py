"""docs/lifetimes.md has each rule that is cited, and documents name only what there is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import libevent_py

ROOT = Path(libevent_py.__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "lifetimes.md").read_text()
FOLDERS = ("libevent_py", "tests", "benchmarks", "samples")

ID = re.compile(r"\b[A-S][1-9][0-9]?\b")
RULE = re.compile(r"^### ([A-S][0-9]+)\. (.+)$", re.MULTILINE)
C_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)

_, *PARTS = RULE.split(DOCUMENT.partition("\n## What distributions")[0])
#: The text of each rule, by its id.
RULES = {id: f"{title}.\n{text}" for id, title, text in zip(*[iter(PARTS)] * 3, strict=True)}


def sources(pattern: str) -> list[Path]:
    """Return the files of that kind that comments may be in."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob(pattern)]
    return [path for path in sorted(found) if "__pycache__" not in path.parts]


def told(path: Path) -> Iterator[str]:
    """Yield the comments and docstrings of a file."""
    source = path.read_text()
    if not ID.search(source):
        return
    if path.suffix in (".c", ".h"):
        yield from C_COMMENT.findall(source)
        return
    yield from re.findall(r"(?:^|\s)#.*", source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented):
            yield ast.get_docstring(node) or ""


def known() -> set[str]:
    """Return the names of all test functions."""
    files = [path.read_text() for path in sources("test_*.py")]
    return {name for file in files for name in re.findall(r"^def (test_\w+)\(", file, re.MULTILINE)}


def test_each_rule_is_there_once_and_none_is_left_out() -> None:
    ids = [id for id, _ in RULE.findall(DOCUMENT)]
    assert sorted(RULES) == sorted(ids)
    for letter in {id[0] for id in ids}:
        numbers = [int(id[1:]) for id in ids if id[0] == letter]
        assert numbers == list(range(1, len(numbers) + 1)), letter
    assert len(RULES) > 150


@pytest.mark.slow
def test_each_rule_that_is_cited_is_there() -> None:
    cited = {
        id: path.name
        for pattern in ("*.py", "*.c", "*.h")
        for path in sources(pattern)
        for text in told(path)
        for id in ID.findall(text)
    }
    assert len(cited) > 100
    assert {id: name for id, name in cited.items() if id not in RULES} == {}


def test_each_rule_names_tests_that_there_are() -> None:
    tests = known()
    for id, text in RULES.items():
        told, _, listed = text.partition("\nTests: ")
        named = re.findall(r"`(\w+)`", listed)
        assert named, f"{id} names no test"
        assert [name for name in named if name not in tests] == [], id
        assert [other for other in ID.findall(told) if other not in RULES] == [], id


def rules_of_tests() -> dict[str, set[str]]:
    """Return the rules that the docstring of each test cites."""
    cited: dict[str, set[str]] = {}
    for path in sources("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                ids = ID.findall(ast.get_docstring(node) or "")
                cited[node.name] = cited.get(node.name, set()) | set(ids)
    return cited


@pytest.mark.slow
def test_a_test_that_a_rule_names_is_of_no_other_rule_alone() -> None:
    cited = rules_of_tests()
    for id, text in RULES.items():
        for name in re.findall(r"`(\w+)`", text.partition("\nTests: ")[2]):
            assert not cited[name] or id in cited[name], f"{name}: named by {id}"


DOCUMENTS = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
HISTORY = ROOT / "CHANGELOG.md"  # tells of what has been
LIBEVENTS = {"event_rpcgen.py"}


def test_the_tests_and_files_that_documents_name_are_there() -> None:
    tests, files = known(), [f"/{path.relative_to(ROOT)}" for path in ROOT.glob("*.*")]
    for folder in (*FOLDERS, "docs", "vendor", ".ci"):
        files += [f"/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*")]
    for document in DOCUMENTS:
        text = document.read_text()
        named = re.findall(r"`(test_\w+)`", text)
        assert [name for name in named if name not in tests] == [], document.name
        paths = re.findall(r"`((?:\w+/)*\w+\.(?:py|c|h|toml|md|rpc))`", text)
        absent = {path for path in paths if not any(file.endswith(f"/{path}") for file in files)}
        assert document == HISTORY or absent <= LIBEVENTS, document.name


def test_links_between_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            if "://" not in link:
                assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_each_decision_is_listed() -> None:
    pages = {path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md")}
    listed = re.findall(r"\(([0-9][\w-]+\.md)\)", (ROOT / "docs/decisions/README.md").read_text())
    assert sorted(pages) == listed
