"""Long runs show how far they are: by a bar on a terminal, and by lines elsewhere."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from benchmarks.progress import Progress
from benchmarks.report import table
from tests.kit.support import PATIENCE, ROOT

FUZZ = ["-m", "tests.kit.fuzz", "--programs", "6", "--steps", "5", "--jobs", "2"]
#: A bar of tqdm's, with its part in percent and what it counts.
BAR = re.compile(r"\r(\w+): +(\d+)%\|[^|\r]*\| ([^\r]*)")


def on_a_terminal(*arguments: str, columns: int = 100) -> str:
    """Return what Python prints with *arguments* on a terminal, as the terminal gets it."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
    ) as process:
        os.close(follower)
        timer = threading.Timer(10 * PATIENCE, process.kill)
        timer.start()
        said = b""
        try:
            while True:
                said += os.read(leader, 65536)
        except OSError:  # it has ended
            pass
        finally:
            timer.cancel()
            os.close(leader)
    assert process.returncode == 0, said.decode()
    return said.decode()


def elsewhere(*arguments: str) -> tuple[str, str]:
    """Return what Python prints with *arguments* to its two outputs, which are pipes."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=10 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def seen(said: str) -> list[str]:
    """Return the lines that stand on the terminal in the end."""
    lines = said.replace("\r\n", "\n").split("\n")
    shown = []
    for line in lines:
        cells: list[str] = []
        for part in re.sub(r"\x1b\[[A-Z]", "", line).split("\r"):
            cells[: len(part)] = part
        shown.append("".join(cells).rstrip())
    return shown


def test_random_programs_are_counted_on_a_terminal() -> None:
    said = on_a_terminal(*FUZZ)
    bars = BAR.findall(said)
    assert {name for name, _, _ in bars} == {"fuzz"}
    assert bars[0][1] == "0"
    assert [int(part) for _, part, _ in bars] == sorted(int(part) for _, part, _ in bars)
    assert any("/6 [" in more and more.rstrip().endswith("0 failures") for _, _, more in bars)
    (line,) = filter(None, seen(said))  # the bar is gone
    assert "6 programs, 0 failures" in line


def test_a_run_of_some_time_shows_its_seconds() -> None:
    said = on_a_terminal("-m", "tests.kit.fuzz", "--minutes", "0.03", "--steps", "5", "--jobs", "1")
    assert re.search(r"/2 s, [\d,]+ programs, 0 failures", said)


def test_elsewhere_a_short_run_only_says_its_end() -> None:
    out, err = elsewhere(*FUZZ)
    assert "6 programs, 0 failures" in out
    assert len(out.splitlines()) == 1
    assert err == ""


def test_elsewhere_a_long_run_says_a_line_now_and_then(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress("run", 2000, "programs") as run:
        for _ in range(4):
            now[0] += 20
            run.add(400, "1 failure")
        run.say("found")
    out, err = capfd.readouterr()
    assert out == "found\n"
    assert err == (
        "run: 800 of 2,000 programs, 1 failure\nrun: 1,600 of 2,000 programs, 1 failure\n"
    )


def test_what_says_lines_by_itself_gets_no_others(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress("run", 10, every=None) as run:
        run.reach(5)
        run.say("half")
        run.reach(20)
        assert run.done == 10
    assert capfd.readouterr() == ("half\n", "")


WITHOUT_TQDM = """
import sys
sys.modules["tqdm"] = None
from benchmarks.progress import Progress
with Progress("run", 10, every=0) as run:
    run.add(5)
"""


def test_without_tqdm_there_are_lines_on_a_terminal_too() -> None:
    assert on_a_terminal("-c", WITHOUT_TQDM) == "run: 5 of 10 s\r\n"


@pytest.mark.parametrize("columns", [0, 40])
def test_a_terminal_may_have_few_columns_or_not_know_them(columns: int) -> None:
    code = WITHOUT_TQDM.replace('sys.modules["tqdm"] = None', "")
    said = on_a_terminal("-c", code, columns=columns)
    assert "run:  50%|" in said
    assert max(map(len, re.split("[\r\n]", said))) <= (columns or 80)


SAYS = """
import sys
from benchmarks.progress import Progress
with Progress("run", 10) as run:
    run.add(5)
    run.say("one\\ntwo")
    run.add(5)
"""


def test_what_is_said_stands_above_the_bar_and_not_in_it() -> None:
    said = on_a_terminal("-c", SAYS)
    assert [line for line in seen(said) if line] == ["one", "two"]
    assert "\rone\r\ntwo\r\n" in said
    assert "100%" in said.partition("two")[2]


@pytest.mark.slow
def test_the_benchmarks_show_which_sample_they_take(tmp_path: Path) -> None:
    options = ["--quick", "--job", "raw-echo-64B", "--json", str(tmp_path / "result.json")]
    said = on_a_terminal("-m", "benchmarks", *options)
    (result,) = json.loads((tmp_path / "result.json").read_text())["jobs"]
    assert table(result).replace("\n", "\r\n") in said
    number = len(result["contenders"])
    assert any(f"| 1/{number} [" in bar and "raw-echo-64B: " in bar for bar in said.split("\r"))
    assert not [line for line in seen(said) if "%|" in line]


@pytest.mark.more
@pytest.mark.parametrize("module", ["tests.kit.soak", "tests.kit.soak.coroutines"])
def test_a_soak_shows_how_far_it_is(module: str) -> None:
    options = ["--minutes", "0.05", "--round", "1", "--clients", "1", "--warm", "1"]
    options += ["--held", "50"] if module == "tests.kit.soak" else []
    said = on_a_terminal("-m", module, *options)
    assert re.search(r"\rsoak: +\d+%\|[^|]*\| \d+/3 s, [\d,]+ (served|clients)", said)
    lines = [line for line in seen(said) if line]
    assert not [line for line in lines if "%|" in line]
    assert lines[-1].endswith("nothing grew")
    out, err = elsewhere("-m", module, *options)
    assert len(out.splitlines()) >= 4
    assert err == "" and "\r" not in out
