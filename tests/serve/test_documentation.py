"""What docs/serving.md shows is what happens."""

from __future__ import annotations

import re
import socket

import pytest

from libevent_py.serve import Config
from tests.kit.support import ROOT, run_python

PAGE = (ROOT / "docs" / "serving.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

#: What each of them prints.
PRINTED = [
    "b'hello, /world'\n",
    "b'hello, /world'\nshut down\n",
    "b'HTTP/1.1 431 Request Header Fields Too Large'\n",
]


def test_every_example_is_tested() -> None:
    assert len(EXAMPLES) == len(PRINTED)


@pytest.mark.parametrize("number", range(len(PRINTED)))
def test_an_example_does_what_it_says(number: int) -> None:
    with socket.socket() as sock:  # a port that is free, in place of the page's
        sock.bind(("127.0.0.1", 0))
        port = str(sock.getsockname()[1])
    code = re.sub(r"876\d", port, EXAMPLES[number])
    assert run_python(code, stderr=None) == PRINTED[number]


def test_the_table_has_the_defaults() -> None:
    units = {"KiB": 1024, "MiB": 1024**2, "s": 1, "": 1}
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", PAGE, re.MULTILINE)
    told = {}
    for names, values in rows:
        for name, value in zip(re.findall(r"`(\w+)`", names), values.split(", "), strict=True):
            number, _, unit = value.partition(" ")
            told[name] = None if value == "no limit" else int(number) * units[unit]
    config = Config(print)
    assert {name: getattr(config, name) for name in told} == told
    limits = {name for name in vars(config) if re.search("max_|_timeout|_interval", name)}
    assert told.keys() == limits
