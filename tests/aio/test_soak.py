"""Coroutines that are cancelled anywhere, for some seconds; `make soak` takes longer."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.kit.soak.__main__ import LONG, Failed, check
from tests.kit.soak.coroutines import SAME
from tests.kit.support import PATIENCE, ROOT

REST: dict[str, Any] = {
    "seconds": LONG,
    "memory": 50 << 20,
    "blocks of Python": 100_000,
    **dict.fromkeys(SAME, 20),
}


@pytest.mark.more
def test_nothing_is_left_of_coroutines_that_are_cancelled() -> None:
    command = [sys.executable, "-m", "tests.kit.soak.coroutines"]
    done = subprocess.run(
        [*command, "--minutes", "0.1", "--round", "2", "--warm", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert done.stdout.endswith("nothing grew\n") and not done.stderr
    for kind in ("cancelled", "timed out", "talk", "ask", "call"):
        assert f" {kind}" in done.stdout


@pytest.mark.parametrize("name", SAME)
def test_one_more_at_rest_is_seen(name: str) -> None:
    check([REST, REST], SAME)
    with pytest.raises(Failed, match=name):
        check([REST, {**REST, name: 21}], SAME)
