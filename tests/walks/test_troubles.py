"""Random programs in trouble: nothing crashes, hangs or leaks, and no exception is lost.

Longer ones, and others, are run by `make fuzz`, and by .ci/rest.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kit.support import PATIENCE, ROOT


def run(*arguments: str) -> str:
    command = [sys.executable, "-X", "dev", "-m", "tests.kit.fuzz", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=10 * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("first", [1, 501, 1001, 1501])
def test_programs_in_trouble_end_as_they_must(first: int) -> None:
    told = run("--first", str(first), "--programs", "500", "--steps", "40", "--jobs", "1")
    assert "500 programs, 0 failures" in told
