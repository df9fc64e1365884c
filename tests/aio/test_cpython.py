"""CPython's own tests of asyncio and selectors, on `aio.EventLoop` and `aio.Selector`.

Each module runs in a process of its own, by `tests.kit.cpython`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.support import PATIENCE, ROOT

#: The tests that are left out, each with the reason.
LEFT_OUT: dict[str, str] = {}

#: The modules that take longest.
LONGEST = {
    "test_events",
    "test_futures",
    "test_ssl",
    "test_sslproto",
    "test_taskgroups",
    "test_tasks",
}

#: What `make test` runs of them, too.
SAMPLE = ["test_events.EPollEventLoopTests"]

#: Those of the modules in which a loop waits for descriptors, timers, signals and processes.
WAITING = {"test_base_events", "test_events", "test_sendfile", "test_streams", "test_unix_events"}


def modules() -> list[str]:
    """Return the modules of `test.test_asyncio` that are for this system."""
    found = (
        importlib.util.find_spec("test.test_asyncio") if importlib.util.find_spec("test") else None
    )
    if found is None or not found.submodule_search_locations:
        return []
    names = {path.stem for path in Path(found.submodule_search_locations[0]).glob("test_*.py")}
    return sorted(name for name in names if not name.startswith("test_windows"))


MODULES = modules()


def run(place: str, *names: str) -> str:
    """Return what the tests *names* print with *place* in place; all must pass."""
    if not MODULES:
        pytest.fail("this Python has no test package: on Debian it is in libpython3-testsuite")
    command = [sys.executable, "-m", "tests.kit.cpython", place, *names]
    if LEFT_OUT:
        command += ["--without", *LEFT_OUT]
    environment = {key: os.environ[key] for key in os.environ if not key.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=5 * PATIENCE
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    ran = re.search(r"^Ran (\d+) test", done.stderr, re.MULTILINE)
    assert ran and int(ran[1]) > 0
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("module", [*SAMPLE, *(m for m in MODULES if m not in LONGEST)])
def test_asyncio_s_own_tests_pass_on_the_loop(module: str) -> None:
    run("loop", f"test.test_asyncio.{module}")


@pytest.mark.more
@pytest.mark.parametrize("module", sorted(LONGEST & {*MODULES}))
def test_asyncio_s_longest_tests_pass_on_the_loop(module: str) -> None:
    run("loop", f"test.test_asyncio.{module}")


@pytest.mark.slow
def test_the_selectors_own_tests_pass_on_the_selector() -> None:
    run("selector", "test.test_selectors")


@pytest.mark.more
@pytest.mark.parametrize("module", sorted(WAITING & {*MODULES}))
def test_asyncio_s_own_tests_pass_on_its_own_loop_with_the_selector(module: str) -> None:
    run("selector", f"test.test_asyncio.{module}")


def test_the_modules_are_there() -> None:
    assert not MODULES or {*MODULES} > WAITING


def test_few_tests_are_left_out_and_none_without_a_reason() -> None:
    assert len(LEFT_OUT) <= 5
    assert all(LEFT_OUT.values())


@pytest.mark.slow
def test_a_test_that_fails_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(
        "import asyncio, unittest\n"
        "from libevent_py import aio\n"
        "class T(unittest.TestCase):\n"
        "    def test_fails(self):\n"
        "        loop = asyncio.new_event_loop()\n"
        "        loop.close()\n"
        "        self.assertNotIsInstance(loop, aio.EventLoop)\n"
    )
    command = [sys.executable, "-m", "tests.kit.cpython", "loop", "failing"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert "is an instance of" in done.stderr
    command += ["--without", "failing.T.test_fails"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, timeout=PATIENCE
    )
    assert "Ran 0 tests" in done.stderr
