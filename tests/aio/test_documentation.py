"""What docs/asyncio.md shows is what happens."""

from __future__ import annotations

import re

import pytest

from tests.kit.support import ROOT, run_python

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "asyncio.md").read_text(), re.DOTALL)

#: What each of them prints.
PRINTED = [
    "hello\n0\n",
    "answered by a coroutine\nTrue\n",
    "b'from the other end'\n",
    "b'HELLO, WORLD\\n'\n200 b'an answer'\n",
    "['left']\n",
    "[1, 1, 1]\n",
]


def test_every_example_is_tested() -> None:
    assert len(EXAMPLES) == len(PRINTED)


@pytest.mark.parametrize("number", range(len(PRINTED)))
def test_an_example_does_what_it_says(number: int) -> None:
    assert run_python(EXAMPLES[number], stderr=None) == PRINTED[number]
