"""What docs/testing.md shows is what happens."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest_libevent
from libevent_py import testing
from tests.kit.pytests import pytest_of
from tests.kit.support import PATIENCE, ROOT

PAGE = (ROOT / "docs" / "testing.md").read_text()


def test_the_examples_pass(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 11
    for number, block in enumerate(blocks):
        (tmp_path / f"test_{number}.py").write_text(block)
    ran = pytest_of(tmp_path, "", str(tmp_path))
    tests = re.findall(r"^def (test_\w+)", PAGE, re.MULTILINE)
    outcomes = {name.partition("[")[0]: outcome for name, outcome in ran.outcomes.items()}
    assert outcomes.pop("test_no_way_to_the_net") == "failed"  # as the page says
    assert outcomes == dict.fromkeys(set(tests) - {"test_no_way_to_the_net"}, "passed"), ran.said


def test_a_function_fails_in_a_test(tmp_path: Path) -> None:
    (test,) = re.findall(r"```python\n((?:(?!```).)*no_way_to_the_net.*?)```", PAGE, re.DOTALL)
    (tmp_path / "test_refused.py").write_text(test)
    apart = test.replace("(event_base, listener)", "(event_base, listener, libevent_trace)")
    (tmp_path / "test_apart.py").write_text(apart)
    (command,) = re.findall(r"^libevent-py (trace .* test_refused.py)$", PAGE, re.MULTILINE)
    whole = (
        f"{sys.executable} -m libevent_py {command} test_apart.py -p no:asyncio -p no:cacheprovider"
    )
    done = subprocess.run(
        whole, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert "= -1 ENETUNREACH (INJECTED)" in done.stderr


def test_openssl_can_be_counted(tmp_path: Path) -> None:
    (command,) = re.findall(r"^(LIBEVENT_PY_COUNT_MEMORY=1 .*)$", PAGE, re.MULTILINE)
    (tmp_path / "test_it.py").write_text(
        "from libevent_py import MemorySource, TlsContext\n"
        "def test_it(fail_allocation):\n"
        "    with fail_allocation(10**6, source=MemorySource.OPENSSL) as failure:\n"
        "        with TlsContext():\n"
        "            assert failure.after.blocks > failure.before.blocks\n"
    )
    command = command.replace("python", sys.executable)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, timeout=PATIENCE)


def test_each_fixture_and_option_is_explained() -> None:
    fixtures = {
        name
        for name, thing in vars(pytest_libevent).items()
        if type(thing).__name__ == "FixtureFunctionDefinition"
    }
    assert "event_base" in fixtures
    assert {name for name in fixtures if f"| `{name}` |" not in PAGE} == set()
    options = set(re.findall(r'"(--libevent[\w-]*)"', inspect.getsource(pytest_libevent)))
    hidden = {"--libevent-child", "--libevent-results"}
    assert {option for option in options - hidden if option not in PAGE} == set()
    parts = testing.Faults.__dataclass_fields__
    assert {part for part in parts if f"| `{part}` |" not in PAGE} == set()
