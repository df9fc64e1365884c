"""The backends on which libevent's own test script runs its suite.

With the environment variable EVENT_DEBUG_MODE set, as there, libevent also checks how it and its
locks are used, on the preferred backend alone; test_debug_mode.py runs all tests so.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libevent_py import EventBase, EventBaseFlag, EventFeature, debug
from tests.kit.raw import FromC
from tests.kit.variants import METHODS, VARIANTS, Variant, bounded

if os.environ.get("EVENT_DEBUG_MODE"):
    debug.enable_lock_debugging()
    debug.enable_debug_mode()


def pytest_report_header() -> str:
    """Say whether libevent checks how it is used."""
    mode, locks = (debug.enabled(check) for check in ("debug_mode", "lock_debugging"))
    return f"libevent's debug mode: {mode}, lock debugging: {locks}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as slow what runs on another backend than the preferred one, or in its other ways.

    With debug mode, leave out what runs a Python of its own: without it, it runs as ever.
    """
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and isinstance(item, pytest.Function):
            chosen = item.callspec.params if hasattr(item, "callspec") else {}
            if (
                chosen.get("variant", VARIANTS[0]) != VARIANTS[0]
                or chosen.get("method", METHODS[0]) != METHODS[0]
            ):
                item.add_marker("slow")
    if not os.environ.get("EVENT_DEBUG_MODE"):
        return
    own = [
        item
        for item in items
        if isinstance(item, pytest.Function)
        if "run_python(" in inspect.getsource(item.function)
    ]
    items[:] = [item for item in items if item not in own]
    config.hook.pytest_deselected(items=own)


@pytest.fixture(params=VARIANTS, ids=lambda variant: variant.name)
def variant(request: pytest.FixtureRequest) -> Variant:
    """Each backend in turn, epoll also with its change list and its precise timer."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def new_base(variant: Variant) -> Iterator[Callable[..., EventBase]]:
    """A function that makes event bases on each variant in turn; they are closed after the test."""
    with contextlib.ExitStack() as bases:

        def new_base(
            *,
            require: int = EventFeature(0),
            flags: int = EventBaseFlag(0),
            priorities: int | None = None,
        ) -> EventBase:
            with variant.config(require, flags) as config:
                base = EventBase(config, priorities=priorities)
            return bases.enter_context(bounded(base))

        yield new_base


@pytest.fixture
def backend_base(new_base: Callable[..., EventBase]) -> EventBase:
    """An event base on each variant in turn."""
    return new_base()


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of each backend in turn, the only one that new bases have."""
    for other in EventBase.supported_methods():
        if other != request.param:
            monkeypatch.setenv(f"EVENT_NO{other.upper()}", "1")
    return str(request.param)


@pytest.fixture
def base(method: str) -> Iterator[EventBase]:
    """An event base on each backend in turn, without the variants of epoll."""
    with bounded(EventBase()) as base:
        assert base.method == method
        yield base


@pytest.fixture
def from_c() -> Iterator[FromC]:
    """A decorator that makes a function callable by C; what it raises comes out of the test."""
    functions = FromC()
    yield functions
    functions.check()
