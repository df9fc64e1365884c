"""What docs/tracing.md shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from libevent_py._cli import known
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
    options = set(re.findall(r"(?<![\w-])--?[a-z]+\b", usage)) - {"-h", "--help", "-m"}
    assert {option for option in options if f"`{option}" not in PAGE} == set()
