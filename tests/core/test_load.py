"""Importing the package: what it says when a library is missing, and what it doesn't load."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import libevent_py
from tests.kit.support import PATIENCE, run_python

PACKAGE = Path(libevent_py.__file__).parent


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A copy of the package, without its C part."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(PACKAGE, tmp_path / "libevent_py", ignore=ignored)
    return tmp_path


def failure(place: Path, *arguments: str) -> str:
    """Return the last line that Python says where importing the package at *place* fails."""
    done = subprocess.run(
        [sys.executable, *(arguments or ("-c", "import libevent_py"))],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1, done
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("arguments", [(), ("-m", "libevent_py", "doctor")])
def test_without_libevent_the_error_says_what_to_install(
    elsewhere: Path, arguments: tuple[str, ...]
) -> None:
    (built,) = PACKAGE.glob("_ffi.*.so")
    module = built.read_bytes().replace(b"libevent_core-", b"libevent_gone-")
    (elsewhere / "libevent_py" / built.name).write_bytes(module)
    said = failure(elsewhere, *arguments)
    assert said.startswith("ImportError: libevent_py can't be loaded: libevent_gone-")
    assert "apt-get install libevent-2.1-7 " in said


def test_what_has_not_been_built_says_so(elsewhere: Path) -> None:
    said = failure(elsewhere)
    assert said.startswith("ModuleNotFoundError: libevent_py has not been built here")
    assert "pip install ." in said


def test_a_python_that_counts_no_references_is_told_so() -> None:
    """PyPy, which builds it; CPython without the function stands in for it."""
    code = "import sys; del sys.getrefcount; sys.implementation.name = 'pypy'; import libevent_py"
    said = failure(PACKAGE.parent, "-c", code)
    assert said.startswith("ImportError: libevent_py needs CPython: ")
    assert said.endswith("and pypy doesn't count them")


def test_importing_loads_nothing_that_takes_long_and_is_seldom_needed() -> None:
    code = """
    import sys
    import libevent_py
    seldom = {"asyncio", "email", "http", "multiprocessing", "ssl"}
    seldom |= {"subprocess", "tempfile", "unittest", "urllib"}
    assert seldom.isdisjoint(sys.modules), seldom & set(sys.modules)
    """
    run_python(code, fresh=True)


def test_another_interpreter_is_refused_and_leaves_the_main_one_alone() -> None:
    """C refers to the objects of one: those of another took their place, and nothing was called."""
    pytest.importorskip("_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters")
    code = """
    import sys
    from libevent_py import Event, EventBase
    if sys.version_info < (3, 13):
        import _xxsubinterpreters as interpreters
        other = interpreters.create(isolated=False)
    else:
        import _interpreters as interpreters
        other = interpreters.create("legacy")
    interpreters.run_string(other, '''if True:
        try:
            import libevent_py
        except ImportError as error:
            print("refused:", error, flush=True)
    ''')
    fired = []
    with EventBase() as base:
        Event.timer(base, lambda *_: fired.append(1)).add(0.01)
        base.dispatch()
    print(fired)
    interpreters.destroy(other)
    """
    said = run_python(code, fresh=True)
    assert said.startswith("refused: libevent_py can be used in the main interpreter only")
    assert said.endswith("[1]\n")
