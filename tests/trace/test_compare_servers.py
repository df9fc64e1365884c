"""``python -m libevent_py compare --client``: servers, which a client talks to."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.kit.support import ROOT, program_of
from tests.kit.tracing import compared

PAGE = (ROOT / "docs" / "tracing.md").read_text()


@pytest.fixture
def sample(tmp_path: Path) -> str:
    """A server, at a place of its own, so that its processes can be told from others."""
    copy = shutil.copy(ROOT / "samples" / "upper_delimited.py", tmp_path)
    return f"{copy} 127.0.0.1 0"


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """The client that the page shows."""
    (code,) = re.findall(r"```python\n(# talk\.py\n.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "talk.py"
    file.write_text(code)
    return file


def test_a_client_talks_to_both(tmp_path: Path, sample: str, client: Path) -> None:
    source = (ROOT / "samples" / "c" / "upper_delimited.c").read_text()
    port = program_of(source, tmp_path, f"-I{ROOT}/samples/c")
    twin = f"{port} 127.0.0.1 0"
    assert compared("--port", "--client", str(client), sample, twin) == (0, [])
    code = client.read_text()
    client.write_text(code.replace("SIGINT", "SIGTERM"))  # which ends the programs in the loop
    assert compared("--port", "--client", str(client), sample, twin) == (0, [])
    assert code.count("1hello2") == 1
    only_python = 'b"1hello2" if "upper_delimited.py" in str(sys.argv) else b"1hello2" * 2'
    client.write_text(code.replace('b"1hello2"', only_python))
    status, lines = compared("--port", "--client", str(client), sample, twin)
    assert status == 1
    assert any("1HELLO2" in line for line in lines if line[0] == "+"), lines


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(3)", "talk.py has ended with status 3, for "),
        ("pass", "isn't run by "),
        (
            "import subprocess, sys\n"
            "done = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)\n"
            "done.stdout.readline()\ndone.terminate()\ndone.wait()\nraise SystemExit(3)",
            "talk.py has ended with status 3, for ",
        ),
        (
            "import os, subprocess, sys\n"
            "done = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)\n"
            "done.stdout.readline()\nos._exit(0)",
            "talk.py has ended before ",
        ),
    ],
)
def test_a_client_that_fails_or_leaves_the_server_is_told(
    sample: str, client: Path, code: str, said: str
) -> None:
    client.write_text(code)
    status, lines = compared("--client", str(client), sample, sample)
    assert status == 2
    assert said in lines[-1]
    processes = [
        place.read_bytes()
        for place in Path("/proc").glob("[0-9]*/cmdline")
        if place.exists() and sample.split()[0].encode() in place.read_bytes()
    ]
    assert processes == []


def test_a_client_that_is_not_there_is_told(tmp_path: Path, sample: str) -> None:
    status, lines = compared("--client", str(tmp_path / "nobody"), sample, sample)
    assert status == 2
    assert "nobody" in lines[-1]
