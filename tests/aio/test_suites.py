"""The suites of anyio and pytest-asyncio, on `aio.EventLoop`."""

from __future__ import annotations

import pytest

from tests.kit.suites import SUITES, passes, run

#: How many tests of each pass at least.
PASSED = {"anyio": 1000, "pytest-asyncio": 90}


@pytest.mark.more
@pytest.mark.parametrize("package", SUITES)
def test_the_suite_of_another_package_passes_on_the_loop(package: str) -> None:
    """What fails on asyncio's own loop, too, is about this machine: its names and networks."""
    suite = SUITES[package]
    ran = run(suite)
    assert ran.passed > PASSED[package], ran.said
    ours = [test for test in ran.failed if passes(suite, test, "none")]
    assert all(passes(suite, test, "loop") for test in ours), f"{ours}\n{ran.said}"
