"""Random walks through HTTP, RPC and DNS, at both ends: each may end any other, at any time."""

from __future__ import annotations

from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import run_python


def test_no_order_of_calls_on_http_and_rpc_crashes_leaks_or_leaves_somebody_waiting() -> None:
    code = "from tests.kit.worlds_of_http import walks; walks(range(20), 300)"
    run_python(code, stderr=None)


@VALGRIND_TAKES_LONG
def test_no_order_of_calls_on_http_and_rpc_touches_memory_that_is_not_its_own(
    valgrind: bool,
) -> None:
    code = "from tests.kit.worlds_of_http import walks; walks(range(100, 102), 100)"
    run_python(code, stderr=None, valgrind=valgrind)
