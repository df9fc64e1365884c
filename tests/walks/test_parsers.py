"""What reads bytes from others neither crashes, hangs nor leaks, and raises only what it says.

The inputs are changed at random here; `make fuzz-parsers` has them led by what they reach.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kit.support import PATIENCE, ROOT

#: How many inputs each target gets: in all some seconds.
INPUTS = {
    "requests": 150,
    "responses": 150,
    "answers": 500,
    "questions": 500,
    "calls": 250,
    "replies": 250,
    "messages": 1000,
    "tags": 1000,
    "uris": 1000,
    "headers": 1000,
    "addresses": 750,
    "resolv_conf": 500,
    "hosts": 500,
    "buffers": 1000,
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
