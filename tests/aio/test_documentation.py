"""What the pages about coroutines and threads show is what happens."""

from __future__ import annotations

import re
import sys

import pytest

from tests.kit.support import ROOT, run_python

#: What each example of a page prints.
PRINTED = {
    "asyncio": [
        "hello\n0\n",
        "answered by a coroutine\nTrue\n",
        "b'from the other end'\n",
        "",  # as `test_a_precise_base_makes_short_timers_exact` does
        "b'HELLO, WORLD\\n'\n200 b'an answer'\n",
        "b'HELLO\\n'\nb'no answer in time'\n",
        "b'SLOW\\n'\n",
        *("", "", ""),  # tests/aio/test_plugins.py has them
        "['left']\n",
        "[1, 1, 1]\n",
    ],
    "in-thread": [
        "b'HELLO FROM A THREAD THAT MAY BLOCK\\n'\n",
        "[b'One', b'Two']\n",
    ],
    "trio": ["the timer has fired\nTrue\nTrue\n"],
}


def examples(page: str) -> list[str]:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("page", PRINTED)
def test_every_example_is_tested(page: str) -> None:
    assert len(examples(page)) == len(PRINTED[page])


@pytest.mark.parametrize(
    ("page", "number"),
    [(page, n) for page, printed in PRINTED.items() for n in range(len(printed))],
)
def test_an_example_does_what_it_says(page: str, number: int) -> None:
    # Python 3.10 has no asyncio.timeout; the example beside it, by wait_for, runs there, too.
    if "asyncio.timeout(" in examples(page)[number] and sys.version_info < (3, 11):
        pytest.skip("the page says that this needs Python 3.11")
    assert run_python(examples(page)[number], stderr=None) == PRINTED[page][number]
