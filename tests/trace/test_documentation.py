"""What docs/tracing.md shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from libevent_py._cli import known
from libevent_py._cli.trace import chosen, traced
from tests.kit.support import PATIENCE, ROOT, program_of
from tests.kit.tracing import run

PAGE = (ROOT / "docs" / "tracing.md").read_text()


def test_the_examples_print_what_they_say(tmp_path: Path) -> None:
    program = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    (tmp_path / "pair.py").write_text(program)
    shown = re.findall(r"```\n\$ python -m libevent_py trace (.*?)\n(.*?)```", PAGE, re.DOTALL)
    small = re.findall(r"```c\n(.*?)```", PAGE, re.DOTALL)[0]
    program_of(small, tmp_path).rename(tmp_path / "small")
    assert len(shown) == 3
    for arguments, printed in shown:
        options = [
            str(tmp_path / part) if (tmp_path / part).is_file() else part
            for part in arguments.split()
        ]
        said = run(*options, status=None).stderr
        pattern = ".*".join(map(re.escape, printed.split("...\n")))
        assert re.fullmatch(pattern, said, re.DOTALL), said


def test_the_number_of_an_allocation_is_found_by_trying(tmp_path: Path) -> None:
    (script,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    (printed,) = re.findall(r"```\n(1:\n.*?)```", PAGE, re.DOTALL)
    small = re.findall(r"```c\n(.*?)```", PAGE, re.DOTALL)[0]
    program_of(small, tmp_path).rename(tmp_path / "small")
    script = script.replace("python ", f"{sys.executable} ")
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stdout, done.stderr) == (printed, "")


def test_no_large_family_is_missing() -> None:
    (told,) = re.findall(r"The large ones are (.*?)\. Quote", PAGE, re.DOTALL)
    names = re.findall(r"`(\w\w+)`", told)
    assert len(names) == 18
    for name in names:
        assert len(chosen(name)) > 1
    sizes = Counter(name.partition("_")[0] for name in traced())
    large = {name for name, size in sizes.items() if size > 4}
    assert large == {name for name in names if "_" not in name}


def test_the_table_of_a_known_difference_is_one_of_the_package_s() -> None:
    tables = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert len(tables) == 1
    assert tables[0] in known.PORT.read_text()
    keys = re.findall(r"^\| (`.*?) \|", PAGE.partition(tables[0])[2], re.MULTILINE)
    told = {key for row in keys for key in re.findall(r"`(\w+)`", row)}
    assert told == {"why", "as", "also", *known.WHERE}


def test_each_option_is_explained() -> None:
    usage = run("--help").stdout
    usage += subprocess.run(
        [sys.executable, "-m", "libevent_py", "compare", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout
    options = set(re.findall(r"(?<![\w-])--?[a-z]+\b", usage)) - {"-h", "--help"}
    assert {option for option in options if f"`{option}" not in PAGE} == set()
