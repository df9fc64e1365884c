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
    assert len(blocks) == 7
    for number, block in enumerate(blocks):
        (tmp_path / f"test_{number}.py").write_text(block)
    ran = pytest_of(tmp_path, "", str(tmp_path))
    assert ran.status == 0, ran.said
    tests = re.findall(r"^def (test_\w+)", PAGE, re.MULTILINE)
    assert {name.partition("[")[0] for name in ran.outcomes} == set(tests)


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
    assert {name for name in fixtures if f"`{name}`" not in PAGE} == set()
    options = set(re.findall(r'"(--libevent[\w-]*)"', inspect.getsource(pytest_libevent)))
    hidden = {"--libevent-child", "--libevent-results"}
    assert {option for option in options - hidden if option not in PAGE} == set()
    parts = testing.Faults.__dataclass_fields__
    assert {part for part in parts if f"| `{part}` |" not in PAGE} == set()
