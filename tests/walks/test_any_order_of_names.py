"""Random walks through resolvers, their lookups, and what connects by names."""

from __future__ import annotations

from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import run_python


def test_no_order_of_calls_on_names_crashes_or_leaks() -> None:
    code = "from tests.kit.worlds_of_names import walks; walks(range(40), 300)"
    run_python(code, stderr=None)


@VALGRIND_TAKES_LONG
def test_no_order_of_calls_on_names_touches_memory_that_is_not_its_own(valgrind: bool) -> None:
    code = "from tests.kit.worlds_of_names import walks; walks(range(100, 104), 200)"
    run_python(code, stderr=None, valgrind=valgrind)
