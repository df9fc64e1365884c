"""What every test is held to: nothing left alive, no exception kept back, no descriptor leaked."""

from __future__ import annotations

import gc
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import cache, partial
from pathlib import Path
from types import CodeType

import pytest

from libevent_py import EventBase, EventConfig, errors
from libevent_py._core.dispatch import live, roots
from libevent_py._core.wakeup import wakeup
from tests.kit import dealing, debian
from tests.kit.certificates import Authority
from tests.kit.once import once
from tests.kit.processes import descriptors
from tests.kit.support import PATIENCE, end_forking
from vendor import builds

BACKENDS = EventBase.supported_methods()

# A shell has what it starts in the background ignore SIGINT, and so would all that waits for one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the length of the model test."""
    parser.addoption(
        "--model-steps",
        type=int,
        metavar="N",
        help="take N steps, at random, in walks/test_buffer_model.py; else always the same",
    )


#: Folders in which tests take long, or run a Python or two for each.
SLOW = {"samples", "walks"}

#: Fixtures that build or download something, or have all that there is measured.
LONG = {"dist", "patched", "quick", "source", "unpatched"}


@cache
def needs_valgrind(test: Callable[..., object]) -> bool:
    """Tell whether *test* has something run under valgrind."""
    return mentions(test.__code__, "valgrind")


def mentions(part: object, word: str) -> bool:
    """Tell whether *word* is in a name or a constant of *part*, a function's code or part of it."""
    if isinstance(part, str):
        return word in part
    if isinstance(part, CodeType):
        part = (*part.co_names, *part.co_varnames, *part.co_consts)
    return isinstance(part, tuple) and any(mentions(each, word) for each in part)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, None, None]:
    """Mark as slow what takes long by its folder, fixtures or valgrind, and begin with that."""
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        if in_slow_folder(item) or needs_valgrind(item.function) or needs_long(item):
            item.add_marker("slow")
        if in_c(item):
            item.add_marker("more")
    yield  # what is not asked for is left out
    long = [item for item in items if item.get_closest_marker("slow")]
    rest = [item for item in items if not item.get_closest_marker("slow")]
    long.sort(key=lambda item: (not under_valgrind(item), not needs_long(item), at_last(item)))
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = dealing.in_order(dealing.shares(long, workers, needed), rest)


def in_c(item: pytest.Function) -> bool:
    """Tell whether the test *item* has a sample in C do what that in Python does."""
    params = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return item.path.parent.name == "samples" and "c" in params


def under_valgrind(item: pytest.Item) -> bool:
    """Tell whether the test *item* has something run under valgrind, and does so here."""
    if not isinstance(item, pytest.Function) or not needs_valgrind(item.function):
        return False
    return not hasattr(item, "callspec") or item.callspec.params.get("valgrind") is not False


def needed(item: pytest.Item) -> str | None:
    """Return what the test *item* needs that is made once for each process, or for all of them."""
    return "valgrind" if under_valgrind(item) else needs_long(item)


def needs_long(item: pytest.Item) -> str | None:
    """Return which of `LONG` the test *item* needs, if any."""
    if not isinstance(item, pytest.Function):
        return None
    own = item.callspec.params if hasattr(item, "callspec") else {}  # may be called the same
    return min(LONG.intersection({*item.fixturenames} - {*own}), default=None)


def at_last(item: pytest.Item) -> bool:
    """Tell whether the test *item* is slow only beside most others: by its folder, as samples."""
    return item.path.parent.name == "samples"


def in_slow_folder(item: pytest.Item) -> bool:
    """Tell whether the test *item* is in one of the folders `SLOW`."""
    return item.path.parent.name in SLOW


@pytest.fixture(scope="session", autouse=True)
def _end() -> Iterator[None]:
    """End the processes that have forked for scripts; leave the collector as it was."""
    yield
    end_forking()
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    wakeup()  # the process's pipes stay open from here on
    gc.collect()
    gc.freeze()  # or each collection would go through what is kept of all tests before
    open_before = descriptors()
    bases_before = set(roots)
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    yield
    gc.collect()
    assert live.bases == ()
    assert errors.entered.here.raised == []
    left = [root for root in roots if root not in bases_before and not root.closed]
    assert not left, f"left open: {left}, with {[root._live for root in left]}"
    end = time.monotonic() + PATIENCE
    while leaked := {fd: what for fd, what in descriptors().items() if open_before.get(fd) != what}:
        # A module's server that isn't ours closes its end of a connection in a thread of its own.
        assert threading.active_count() > 1, f"descriptors leaked: {leaked}"
        assert time.monotonic() < end, f"descriptors leaked: {leaked}"
        time.sleep(0.001)
    changed = {n for n, handler in handlers.items() if signal.getsignal(n) is not handler}
    assert not changed, f"signal handlers changed: {changed}"


@pytest.fixture
def base() -> Iterator[EventBase]:
    """An event base on the preferred backend."""
    with EventBase() as base:
        yield base


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend in turn."""
    return str(request.param)


@pytest.fixture
def backend_base(backend: str) -> Iterator[EventBase]:
    """An event base on each backend in turn."""
    with EventConfig(avoid=[name for name in BACKENDS if name != backend]) as config:
        base = EventBase(config)
    with base:
        assert base.method == backend
        yield base


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets that don't block."""
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that certifies what tests of TLS need."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def unpatched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where libraries are that have the published holes."""
    bring = partial(debian.bring, debian.UNPATCHED)
    return debian.libraries(once(tmp_path_factory, "unpatched", bring))


@pytest.fixture(scope="session")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where libraries are of the same version number in which they are mended."""
    bring = partial(debian.bring, debian.PATCHED)
    return debian.libraries(once(tmp_path_factory, "patched", bring))


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where libevent's source is, as Debian builds it."""
    unpack = partial(builds.unpack, builds.DEBIAN)
    return once(tmp_path_factory, "source", unpack) / builds.UNPACKED
