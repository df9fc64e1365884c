"""The types for annotations: each is told of, can be resolved, and is what the signatures say."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, get_type_hints

import pytest

import libevent_py
from libevent_py import debug, dns, log, rpc, tag, types, util
from tests.kit.support import ROOT
from tests.kit.tutorial import programs

PROGRAM = Path(__file__).with_name("users_program.py")

#: What takes a function of any kind, with its arguments.
ANY_FUNCTION = {"EventBase.call", "EventBase.defer"}

#: What takes values of any type: those of fields, which check them.
ANY_VALUE = {"Message.__init__"}


def test_the_docstring_tells_of_each_type_once() -> None:
    told = re.findall(r"^    (\w+)  ", types.__doc__ or "", re.MULTILINE)
    assert sorted(told) == sorted(types.__all__)


@pytest.mark.parametrize("name", types.__all__)
def test_each_type_can_be_resolved_where_the_package_s_names_are_known(name: str) -> None:
    def function(given: object) -> None: ...

    function.__annotations__["given"] = getattr(types, name)
    assert get_type_hints(function, vars(libevent_py))["given"] is not None


def written() -> Iterator[tuple[str, inspect.Parameter]]:
    """Yield the parameters of public functions and methods, each with whose it is."""
    given = {kind for kind in vars(libevent_py).values() if isinstance(kind, type)}
    kinds = {base for kind in given for base in kind.__mro__}
    holders: list[Any] = [dns, debug, log, rpc, tag, util, libevent_py, *kinds]
    for holder in holders:
        for name, thing in vars(holder).items():
            function = thing.fset if isinstance(thing, property) else thing
            function = getattr(function, "__func__", function)
            if not isinstance(function, FunctionType) or name.startswith("evpy_"):
                continue
            within = holder.__module__ if isinstance(holder, type) else holder.__name__
            ours = function.__module__.startswith(within) and within.startswith("libevent_py")
            if ours and (not name.startswith("_") or (name == "__init__" and holder in given)):
                for parameter in inspect.signature(function).parameters.values():
                    yield f"{holder.__name__}.{name}", parameter


def test_callbacks_have_the_names_that_types_has() -> None:
    named = 0
    for name, parameter in written():
        said = str(parameter.annotation)
        assert "Callable" not in said or name in ANY_FUNCTION, f"{name}: {parameter}"
        named += any(part in types.__all__ for part in re.findall(r"\w+", said))
    assert named > 80


def test_what_a_program_gives_is_not_of_any_type() -> None:
    for name, parameter in written():
        if name not in ANY_VALUE:
            said = re.findall(r"\w+", str(parameter.annotation))
            assert "Any" not in said, f"{name}: {parameter}"


# How much is of any type.

PACKAGE = Path(libevent_py.__file__).parent

#: What looks at the compiled module itself, of whose stub the rest knows.
RAW = {"_core/load.py", "_core/names.py"}

#: How often in a thousand lines.
MOST = 5


def count_any(tree: ast.AST) -> int:
    """Count where *tree* says that something is of any type; to import the word says nothing."""
    nodes = list(ast.walk(tree))
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    names += [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    return names.count("Any")


@pytest.mark.slow
def test_little_is_of_any_type() -> None:
    paths = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    assert paths.keys() >= RAW
    sources = {name: path.read_text() for name, path in paths.items() if name not in RAW}
    counts = {name: count_any(ast.parse(source)) for name, source in sources.items()}
    lines = sum(source.count("\n") for source in sources.values())
    assert sum(counts.values()) * 1000 <= MOST * lines, {n: c for n, c in counts.items() if c}


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("from typing import Any", 0),
        ("a: Any = 'Any'  # Any", 1),
        ("def f(a: typing.Any, *b: int) -> dict[str, Any]: ...", 2),
        ("C = Callable[[Any], object]", 1),
        ('"""Any of them."""\nAnyStr', 0),
    ],
)
def test_what_is_of_any_type_is_counted(source: str, count: int) -> None:
    assert count_any(ast.parse(source)) == count


# A user's program.


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_user_s_program_runs(tmp_path: Path) -> None:
    options = "-X", "dev", "-W", "error"
    assert run(*options, PROGRAM, cwd=tmp_path) == "lines: 3 1 True\n"


@pytest.mark.slow
def test_a_user_s_program_passes_mypy_with_all_its_checks(tmp_path: Path) -> None:
    checks = "--strict", "--extra-checks", "--warn-unreachable", "--cache-dir", tmp_path / "cache"
    shown = []
    for program in programs(ROOT / "docs" / "examples" / "types.md"):
        shown.append(tmp_path / f"shown_{program.line}.py")
        shown[-1].write_text(program.code)
    assert len(shown) == 2
    for version in ("3.10", "3.13"):
        run("-m", "mypy", *checks, "--python-version", version, PROGRAM, *shown, cwd=tmp_path)


@pytest.mark.slow
def test_a_user_s_program_passes_pyright_in_its_strict_mode(tmp_path: Path) -> None:
    (tmp_path / PROGRAM.name).write_bytes(PROGRAM.read_bytes())
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.10"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    run("-m", "pyright", "--pythonpath", sys.executable, cwd=tmp_path)


def test_a_user_s_program_is_not_helped_by_casts() -> None:
    assert not re.search(r"\bcast\b\(|\bAny\b|#\s*(type|pyright|mypy)\s*:", PROGRAM.read_text())
