"""The tests are in order: where each is, what they share, and that what checks them does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from xdist.scheduler import WorkStealingScheduling  # type: ignore[import-untyped]

from tests.kit.dealing import in_order, shares
from tests.kit.support import ROOT, run_python

TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("*.py"))
MODULES = [path for path in FILES if path.name != "__init__.py" and path.parent.name != "kit"]
KIT = [path for path in FILES if path.parent.name == "kit"]

#: The folders that are no noun of the package's.
OTHERS = {
    "core": "what holds for every object",
    "hostile": "what nobody well-meaning sends",
    "house": "the project itself",
    "kit": "what tests share",
    "regress": "libevent's own tests",
    "samples": "the samples",
    "trace": "python -m libevent_py trace",
    "walks": "random walks",
}


def name_of(path: Path) -> str:
    """Return the name of the module that is in the file *path*."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imported(source: str) -> Iterator[str]:
    """Yield what *source* imports of the tests, also in the programs that it has as text.

    A program may be cut in pieces by what is put in, so it is looked at line by line.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import hides what is imported"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = re.findall(r"(?:^|[\n;]) *(?:from|import) +(tests\b[.\w]*)", node.value)
        else:
            continue
        yield from (name for name in names if re.match(r"tests\b", name))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_a_test_shares_is_in_the_kit(path: Path) -> None:
    own = name_of(path)
    for name in imported(path.read_text()):
        assert name.startswith(("tests.kit", own)), f"{own} imports {name}"


@pytest.mark.parametrize("path", KIT, ids=name_of)
def test_the_kit_takes_nothing_from_the_tests(path: Path) -> None:
    for name in imported(path.read_text()):
        assert name.startswith("tests.kit"), f"{name_of(path)} imports {name}"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from T.kit.peers import settle", ["T.kit.peers.settle"]),
        ("from T import kit, conftest", ["T.kit", "T.conftest"]),
        ("import T.core.test_fork, os", ["T.core.test_fork"]),
        ("def f():\n    from T.http.test_http_uri import BAD", ["T.http.test_http_uri.BAD"]),
        ('run("import os; from T.kit.worlds import *")', ["T.kit.worlds"]),
        ('CODE = f"""\n    from T.core.test_fork import {name}\n"""', ["T.core.test_fork"]),
        ("import Tsuite", []),
    ],
)
def test_every_way_to_import_is_seen(source: str, found: list[str]) -> None:
    assert [name.replace("tests", "T") for name in imported(source.replace("T", "tests"))] == found


def test_a_relative_import_is_refused() -> None:
    with pytest.raises(AssertionError, match="line 1: a relative import"):
        list(imported("from . import conftest"))


def test_every_folder_is_a_noun_of_the_package_or_says_what_it_is() -> None:
    package = ROOT / "libevent_py"
    nouns = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    folders = {path.relative_to(TESTS).parts[0] for path in MODULES if path.parent != TESTS}
    assert folders <= {noun for noun in nouns if not noun.startswith("_")} | OTHERS.keys()
    assert OTHERS.keys() <= {path.parent.name for path in FILES}
    assert [path.name for path in MODULES if path.parent == TESTS] == ["conftest.py"]


def test_every_folder_is_a_package_with_a_docstring() -> None:
    for folder in {path.parent for path in FILES}:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_bytes())), folder


# What runs under valgrind.

MISUSE = """
    import ctypes
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    address = libc.malloc(16)
    memory = ctypes.cast(address, ctypes.POINTER(ctypes.c_ubyte))
    {}
    {}
    libc._exit(0)
"""


def test_valgrind_tells_which_script_has_misused_memory_and_goes_on() -> None:
    for before, misuse in ("libc.free(address)", "print(memory[0])"), ("", "memory[16] = 0"):
        with pytest.raises(AssertionError) as failure:
            run_python(MISUSE.format(before, misuse), valgrind=True)
        assert "exit status 99" in str(failure.value)
        assert re.search(r"Invalid (read|write) of size 1", str(failure.value))
        run_python(MISUSE.format("memory[15] = 0", "libc.free(address)"), valgrind=True)


def test_a_script_that_crashes_under_valgrind_takes_no_other_with_it() -> None:
    code = "import os, sys; os.environ.get('PYTHONMALLOC') == 'malloc' and {}"
    for end, status in ("os.abort()", -6), ("os._exit(3)", 3), ("sys.exit(4)", 4):
        with pytest.raises(AssertionError, match=f"exit status {status}\n"):
            run_python(code.format(end), valgrind=True)
    with pytest.raises(AssertionError, match=r"exit status 1\n(?s:.*)ZeroDivisionError"):
        run_python(code.format("1 / 0"), valgrind=True)
    run_python(code.format("sys.exit()"), valgrind=True)


def test_a_script_under_valgrind_finds_what_one_of_a_new_python_does() -> None:
    code = """
        import os, sys, warnings
        assert sys.argv == ["-c", "one", "two"], sys.argv
        assert os.environ["MALLOC_PERTURB_"] == "165"
        assert sorted(os.listdir("/proc/self/fd")) <= ["0", "1", "2", "3"]
        assert __name__ == "__main__" and sys.modules["__main__"].__dict__ is globals()
        assert sys.path[0] == "" and os.read(0, 1) == b""
        from libevent_py import EventBase
        from libevent_py._core.dispatch import roots
        assert not roots
        try:
            warnings.warn("all of them are errors")
        except UserWarning:
            pass
        else:
            raise AssertionError("it was only a warning")
        assert "LEFT_BEHIND" not in os.environ
        os.environ["LEFT_BEHIND"] = "1"
        print("done")
    """
    for _ in range(2):
        assert run_python(code, "one", "two", valgrind=True) == "done\n"


# In which order they run.


class Worker:
    """What pytest-xdist's scheduler knows of a worker, and what it has been given."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.shutting_down = False
        self.given: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        """Take what is to be run."""
        self.given += indices

    def send_steal(self, indices: list[int]) -> None:
        """Give nothing back."""

    def shutdown(self) -> None:
        """End when all is done."""
        self.shutting_down = True


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_each_worker_begins_with_its_own_share_of_what_takes_long(number: int) -> None:
    long = [*("valgrind" for _ in range(9)), "dist", "dist", *(f"long {n}" for n in range(12))]
    begun_with = shares(long, number, lambda name: None if name.startswith("long") else name)
    order = in_order(begun_with, [f"fast {n}" for n in range(100)])
    assert len(order) == len({*order}) + 9 and sorted(order)[:3] == ["dist", "dist", "fast 0"]
    config: Any = SimpleNamespace(getvalue=lambda name: [f"{number}*popen"])
    scheduler = WorkStealingScheduling(config)
    workers: list[Any] = [Worker(f"gw{n}") for n in range(number)]
    for worker in workers:
        scheduler.add_node(worker)
        scheduler.add_node_collection(worker, [f"{n} {name}" for n, name in enumerate(order)])
    scheduler.schedule()
    for worker, own in zip(workers, begun_with, strict=True):
        assert [order[index] for index in worker.given[: len(own)]] == own
        assert all(order[index].startswith("fast") for index in worker.given[len(own) :])
    assert [own.count("valgrind") for own in begun_with] == [9] + [0] * (number - 1)
    assert sorted(own.count("dist") for own in begun_with) == [0] * (number - 1) + [2]
    if number > 1:
        assert set(begun_with[0]) == {"valgrind"}
        others = [len(own) for own in begun_with[1:]]
        assert max(others) - min(others) <= 1


def test_more_that_takes_long_than_a_worker_gets_at_first_is_not_lost() -> None:
    assert in_order([[1, 2, 3, 4], []], [5, 6]) == [1, 2, 3, 4, 5, 6]
    assert in_order([[], [1, 2]], [3]) == [3, 1, 2]
    assert in_order([[1], [2]], []) == [1, 2]
