"""What reads bytes from others neither crashes, hangs nor leaks, and raises only what it says.

The inputs are changed at random here; `make fuzz-parsers` has them led by what they reach.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kit.support import PATIENCE, ROOT

#: How many inputs each target gets: in all about six seconds.
INPUTS = {
    "requests": 300,
    "responses": 300,
    "answers": 1000,
    "questions": 1000,
    "calls": 500,
    "replies": 500,
    "messages": 2000,
    "tags": 2000,
    "uris": 2000,
    "headers": 2000,
    "addresses": 1500,
    "resolv_conf": 1000,
    "hosts": 1000,
    "buffers": 2000,
}


@pytest.mark.parametrize("target", INPUTS)
def test_whatever_a_parser_gets_it_does_what_it_must(target: str) -> None:
    command = [sys.executable, "-X", "dev", "-m", "tests.kit.parsers", target]
    command += ["--inputs", str(INPUTS[target])]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout == f"{target}: {INPUTS[target]} inputs\n"
