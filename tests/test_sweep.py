"""Close things at some steps of the methods of some classes: `tests/sweep.py` knows all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.support import PATIENCE

#: Those that are swept here, by a sample of their lines, because it takes them only seconds.
KINDS = ["Event", "CommonTimeout", "EventConfig", "MonotonicTimer", "BufferCallback", "FileSegment"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_crashes_or_is_left_when_something_is_closed_at_a_step(
    kind: str, tmp_path: Path
) -> None:
    Authority(tmp_path)
    state = tmp_path / "state"
    state.write_bytes(bytes(4096))
    environment = {
        **os.environ,
        "LIBEVENT_PY_CERTIFICATES": str(tmp_path),
        "LIBEVENT_PY_SWEEP_STATE": str(state),
        "MALLOC_PERTURB_": "165",
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.sweep", kind]
    done = subprocess.run(
        [*command, "--lines", "--most", "1"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
    )
    at = state.read_bytes().rstrip(b"\0").decode()
    assert done.returncode == 0, f"at {at}:\n{done.stdout}{done.stderr}"
    assert f"{kind}: " in done.stdout
