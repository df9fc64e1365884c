"""What docs/porting.md shows is what is there, and what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit.peers import exactly
from tests.kit.pytests import pytest_of
from tests.kit.samples import Server
from tests.kit.support import PATIENCE, ROOT, program_of

PAGE = (ROOT / "docs" / "porting.md").read_text()
SOURCES = {"python": "samples/upper_delimited.py", "c": "samples/c/upper_delimited.c"}


def printed(*arguments: str, status: int, cwd: Path = ROOT) -> str:
    """Return what ``python -m libevent_py`` prints."""
    command = [sys.executable, "-m", "libevent_py", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (status, "")
    return done.stdout


def shown(command: str) -> str:
    """Return what the page shows that *command* prints."""
    found = re.search(rf"```\n\$ python -m libevent_py {re.escape(command)}\n(.*?)```", PAGE, re.S)
    assert found is not None, command
    return found[1]


def test_the_code_is_that_of_the_sample_and_its_twin() -> None:
    for language, source in SOURCES.items():
        text = (ROOT / source).read_text()
        pieces = re.findall(rf"```{language}\n(?!# test_server)(.*?)```", PAGE, re.DOTALL)
        assert len(pieces) == 5
        for piece in pieces:
            assert piece in text, piece


def test_what_names_are_in_c_is_printed_so() -> None:
    command = "c BufferEvent.disable on_accept"
    assert printed(*command.split(), status=0) == shown(command)


@pytest.mark.more
def test_the_same_tests_run_for_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(# test_server\.py\n.*?)```", PAGE, re.DOTALL)
    source = (ROOT / SOURCES["c"]).read_text()
    program_of(source, tmp_path, f"-I{ROOT}/samples/c").rename(tmp_path / "upper_delimited")
    faulty = source.replace("capitalize(packet, size);", "")
    assert faulty != source
    program_of(faulty, tmp_path, f"-I{ROOT}/samples/c").rename(tmp_path / "faulty")
    monkeypatch.delenv("SERVER", raising=False)
    for server, outcome in ("", "passed"), ("upper_delimited", "passed"), ("faulty", "failed"):
        if server:
            monkeypatch.setenv("SERVER", str(tmp_path / server))
        ran = pytest_of(tmp_path, code)
        expected = {"test_packets_in_pieces": outcome, "test_it_stops_when_told": "passed"}
        assert ran.outcomes == expected, ran.said


def traced(place: Path, name: str, **how: Any) -> None:
    """Trace the server while a client says what the page has it say."""
    under = [sys.executable, "-m", "libevent_py", "trace", "-o", str(place / name)]
    with Server("upper_delimited", under=under, **how) as server, server.connect() as sock:
        sock.sendall(b"noise 1hello2 noise\n")
        assert exactly(sock, 7) == b"1HELLO2"
        server.interrupt()


@pytest.mark.more
def test_the_port_is_compared_as_shown(tmp_path: Path) -> None:
    traced(tmp_path, "python.trace")
    traced(tmp_path, "c.trace", language="c")
    line = re.search(r"lacked the line `(.*?)`", PAGE)
    assert line is not None
    source = (ROOT / SOURCES["c"]).read_text()
    faulty = source.replace(f"\t{line[1]}\n", "")
    assert faulty != source
    program = program_of(faulty, tmp_path, f"-I{ROOT}/samples/c")
    traced(tmp_path, "faulty.trace", language="c", file=program)
    for name, status in ("c.trace", 0), ("faulty.trace", 1):
        command = f"compare --port python.trace {name}"
        assert printed(*command.split(), status=status, cwd=tmp_path) == shown(command)
