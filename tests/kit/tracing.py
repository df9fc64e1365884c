"""Programs that are traced by ``python -m libevent_py trace``, and compared."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

from tests.kit.support import PATIENCE, ROOT

#: The addresses of functions and of users' own data, which differ each time.
ADDRESS = re.compile(r"\b0x[0-9a-f]+\b")


class Traced(NamedTuple):
    """What has come of a traced program."""

    lines: list[str]
    out: str
    status: int

    def calls(self, *names: str) -> list[str]:
        """Return the lines of calls to *names*, without indentation and addresses."""
        found = [ADDRESS.sub("0x", line.strip()) for line in self.lines]
        return [line for line in found if line.partition("(")[0] in names]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "libevent_py", "trace", *arguments]


def run(
    *arguments: str, status: int | None = 0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``trace`` with *arguments*; it must exit with *status*, if that is given."""
    done = subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PATIENCE,
        check=False,
    )
    assert status is None or done.returncode == status, done.stderr[-3000:]
    return done


def compared(*arguments: str) -> tuple[int, list[str]]:
    """Run ``compare`` with *arguments*; return its exit status and the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "libevent_py", "compare", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert not done.stderr or done.returncode == 2, done.stderr
    return done.returncode, (done.stdout or done.stderr).splitlines()


def traced(place: Path, *arguments: str, status: int | None = 0) -> Traced:
    """Run ``trace -o`` a file in *place*; only the program writes to stdout and stderr."""
    file = place / "trace"
    done = run("-o", str(file), *arguments, status=status)
    if status == 0:
        assert not done.stderr
    return Traced(file.read_text(errors="replace").splitlines(), done.stdout, done.returncode)


def written(place: Path, code: str) -> str:
    """Write a Python program of *code*, and return its path."""
    file = place / "program.py"
    file.write_text(textwrap.dedent(code))
    return str(file)
