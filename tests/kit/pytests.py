"""Runs of pytest as users of its plugin have them, each in a folder and a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.kit.support import PATIENCE


class Ran(NamedTuple):
    """What has come of a run."""

    status: int
    said: str

    @property
    def outcomes(self) -> dict[str, str]:
        """Each test's outcome by its name: passed, failed, or error in its fixtures."""
        line = re.compile(r"^(PASSED|FAILED|ERROR) \S+?\.py::(\S+)", re.MULTILINE)
        return {name: outcome.lower() for outcome, name in line.findall(self.said)}


#: The plugins that tests here need, and that say something in each run of pytest.
OTHERS = ("asyncio", "anyio")


def pytest_of(
    place: Path,
    code: str,
    *arguments: str,
    env: dict[str, str] | None = None,
    plugins: Sequence[str] = (),
) -> Ran:
    """Run pytest with *arguments* on a file with *code* in *place*; of `OTHERS` with *plugins*."""
    (place / "test_it.py").write_text(textwrap.dedent(code))
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "pytest", "-rA", "-p"]
    without = [part for name in OTHERS if name not in plugins for part in ("-p", f"no:{name}")]
    done = subprocess.run(
        [*command, "no:cacheprovider", *without, "test_it.py", *arguments],
        cwd=place,
        env={**os.environ, "COLUMNS": "160", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=5 * PATIENCE,
        check=False,
    )
    return Ran(done.returncode, done.stdout)
