"""The backends on which libevent's own test script runs its suite.

With the environment variable EVENT_DEBUG_MODE set, as there, libevent also checks how it is used.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from libevent_py import EventBase, EventBaseFlag, EventConfig, EventFeature, debug
from tests.kit.support import PATIENCE

if os.environ.get("EVENT_DEBUG_MODE"):
    debug.enable_debug_mode()


class Variant(NamedTuple):
    """A backend, and how it is to work."""

    name: str
    method: str
    flags: EventBaseFlag

    def config(self, require: int = 0, flags: int = 0) -> EventConfig:
        """Return a configuration that leaves only this backend."""
        others = [name for name in EventBase.supported_methods() if name != self.method]
        flags |= self.flags | EventBaseFlag.IGNORE_ENV
        return EventConfig(avoid=others, require=require, flags=flags)


VARIANTS = [
    Variant(method + suffix, method, flags)
    for method in EventBase.supported_methods()
    for suffix, flags in {
        "": EventBaseFlag(0),
        "+changelist": EventBaseFlag.EPOLL_USE_CHANGELIST,
        "+timerfd": EventBaseFlag.PRECISE_TIMER,
        "+timerfd+changelist": EventBaseFlag.PRECISE_TIMER | EventBaseFlag.EPOLL_USE_CHANGELIST,
    }.items()
    if method == "epoll" or not flags
]


@contextlib.contextmanager
def bounded(base: EventBase) -> Iterator[EventBase]:
    """Have a loop that should have ended long ago raise, and close the base."""

    def give_up() -> None:
        raise TimeoutError(f"the loop has not ended in {PATIENCE} seconds")

    watchdog = threading.Timer(PATIENCE, base.defer, [give_up])
    watchdog.start()
    try:
        with base:
            yield base
    finally:
        watchdog.cancel()
        watchdog.join()


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
