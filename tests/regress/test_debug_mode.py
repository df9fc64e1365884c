"""All tests of this folder once more with libevent's debug mode, in a few processes.

Debug mode can't be switched on once there is a base. libevent's suite runs so as well, with its
locks checked besides, when EVENT_DEBUG_MODE is set.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.support import PATIENCE, ROOT

MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in Path(__file__).parent.glob("test_*.py")
    if path != Path(__file__)
)

#: Each process has every fourth module.
PROCESSES = 4


@pytest.mark.more
@pytest.mark.parametrize("number", range(PROCESSES))
def test_in_debug_mode(number: int, tmp_path: Path) -> None:
    """The tests of a quarter of the modules pass; conftest.py says that the mode is on."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "pytest"]
    command += ["-p", "no:cacheprovider", f"--basetemp={tmp_path / 'nested'}"]
    own = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    done = subprocess.run(
        [*command, *MODULES[number::PROCESSES]],
        cwd=ROOT,
        env={**own, "EVENT_DEBUG_MODE": "1"},
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "libevent's debug mode: True, lock debugging: True" in done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > 100, done.stdout
