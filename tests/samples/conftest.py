"""In which language the samples are, whose tests ask for it."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", params=["python", "c"])
def language(request: pytest.FixtureRequest) -> str:
    """Each language in turn: a test that asks for it drives the sample and its twin alike."""
    return str(request.param)
