"""Random walks through the objects: no order of calls crashes, leaks, or loses an exception."""

from __future__ import annotations

import pytest

from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import run_python


@pytest.mark.parametrize("first", [1, 21])
def test_no_order_of_calls_crashes_or_leaks(first: int) -> None:
    code = f"from tests.kit.worlds import walks; walks(range({first}, {first + 20}), 300)"
    run_python(code, stderr=None)


@VALGRIND_TAKES_LONG
def test_no_order_of_calls_touches_memory_that_is_not_its_own(valgrind: bool) -> None:
    code = "from tests.kit.worlds import walks; walks(range(101, 105), 200)"
    run_python(code, stderr=None, valgrind=valgrind)
