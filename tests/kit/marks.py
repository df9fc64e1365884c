"""Marks that many tests have; apart from what else they share, which programs import, too."""

from __future__ import annotations

import pytest

#: For a test with ``valgrind=valgrind``: `make test` runs it plain, `make more` under valgrind.
VALGRIND_TAKES_LONG = pytest.mark.parametrize(
    "valgrind",
    [pytest.param(False, id="plain"), pytest.param(True, id="valgrind", marks=pytest.mark.more)],
)
