"""Random walks through all kinds of bufferevents: layers, TLS, limits, connections, EAGER."""

from __future__ import annotations

from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import run_python


def test_no_order_of_calls_on_layers_crashes_or_leaks() -> None:
    code = "from tests.kit.worlds_of_layers import walks; walks(range(80, 120), 300)"
    run_python(code, stderr=None)


@VALGRIND_TAKES_LONG
def test_no_order_of_calls_on_layers_touches_memory_that_is_not_its_own(valgrind: bool) -> None:
    code = "from tests.kit.worlds_of_layers import walks; walks(range(1, 5), 200)"
    run_python(code, stderr=None, valgrind=valgrind)
