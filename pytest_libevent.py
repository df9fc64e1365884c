"""The pytest plugin of libevent_py: fixtures, markers and options for tests that use libevent.

pytest imports this module in every run, also for projects that have nothing to do with libevent. So
it stands outside the package, which would load libevent, and imports nothing of it before a test
asks for a fixture or somebody gives an option. `libevent_py.testing` holds what is behind.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import socket

    from libevent_py import BufferEvent, EventBase, TlsContext
    from libevent_py.testing import (
        Allocations,
        BadNetwork,
        LibeventLog,
        LibeventTrace,
        LocalDnsServer,
        LocalHttpServer,
        LocalListener,
        Settle,
        Snapshot,
        TlsAuthority,
        Until,
    )

__all__ = ()  # users need no name of it: pytest finds the fixtures

#: Fixtures that only another process can have.
APART = {"libevent_debug_mode": "debug", "libevent_trace": "trace"}

cut_short = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this plugin."""
    group = parser.getgroup("libevent", "libevent")
    group.addoption(
        "--libevent-backends",
        metavar="NAMES",
        help="run each test that uses event_base on each of these backends: all, or epoll,poll",
    )
    group.addoption(
        "--libevent-table",
        action="store_true",
        help="show a table of tests and backends at the end",
    )
    group.addoption(
        "--libevent",
        metavar="DIR",
        help="run the tests in a child process on the build of libevent in this directory",
    )
    group.addoption(
        "--libevent-compare",
        metavar="DIR",
        help="run the tests on the libevent in use and on the one in this directory, and tell what "
        "differs",
    )
    # What a run says to the children that it starts.
    group.addoption("--libevent-child", help=argparse_suppress())
    group.addoption("--libevent-results", help=argparse_suppress())


def argparse_suppress() -> str:
    """Return what keeps an option out of the help."""
    import argparse

    return argparse.SUPPRESS


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and what an option needs."""
    config.addinivalue_line(
        "markers",
        "backends(*names): run the test on an event_base of each of these backends of libevent",
    )
    option = config.option
    if option.libevent_backends:
        from libevent_py.testing import backends

        backends.named(option.libevent_backends)
    if option.libevent_child or option.libevent_results or option.libevent_table:
        from libevent_py.testing import runs

        runs.configure(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist's this run's arguments, which it doesn't know."""
    node.workerinput["libevent_arguments"] = [
        str(each) for each in node.config.invocation_params.args
    ]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run the tests in children, if they are to have another libevent."""
    if config.option.libevent or config.option.libevent_compare or config.option.libevent_child:
        from libevent_py.testing import runs

        return runs.main(config)
    return None


def pytest_report_header(config: pytest.Config) -> str | None:
    """Tell which libevent the tests run on, if that was chosen."""
    if not (config.option.libevent or config.option.libevent_results):
        return None
    from libevent_py.testing import runs

    return runs.header()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once per backend, if that is asked for."""
    marked = metafunc.definition.get_closest_marker("backends")
    option = metafunc.config.option
    wanted = option.libevent_backends or ("all" if option.libevent_table else None)
    if "libevent_backend" in metafunc.fixturenames and (marked or wanted):
        from libevent_py.testing import backends

        backends.parametrize(metafunc, marked, wanted)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test in a process of its own, if one of its fixtures needs that."""
    if item.config.option.libevent_child:
        return None
    needs = [APART[name] for name in getattr(item, "fixturenames", ()) if name in APART]
    if not needs:
        return None
    from libevent_py.testing import runs

    runs.apart(item, nextitem, needs)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a test whose own mark would do nothing: it would run on any backend."""
    marked = any(mark.name == "backends" for mark in item.own_markers)
    if marked and "libevent_backend" not in getattr(item, "fixturenames", ()):
        pytest.fail(
            "the mark backends needs a test that asks for event_base or libevent_backend, as an "
            "argument or by a fixture: a base of its own is EventBase(method=libevent_backend)",
            pytrace=False,
        )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Note whether a test has not come to its end: its objects are still in the traceback."""
    outcome = yield
    report = outcome.get_result()
    item.stash[cut_short] = item.stash.get(cut_short, False) or not report.passed


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Tell how two snapshots differ."""
    if op == "==" and all(
        type(each).__module__ == "libevent_py.testing.snapshots" for each in (left, right)
    ):
        from libevent_py.testing import snapshots

        return snapshots.compared(left, right)
    return None


@pytest.fixture
def libevent_backend(request: pytest.FixtureRequest) -> str | None:
    """The backend that `event_base` is to have; None if the test doesn't say."""
    backend: str | None = getattr(request, "param", None)
    if backend is None and request.node.get_closest_marker("backends"):
        pytest.fail(
            "the mark backends needs a test that can run more than once, and asks for event_base "
            "as an argument or by a fixture: no unittest.TestCase, no getfixturevalue()",
            pytrace=False,
        )
    if backend is not None:
        request.node.user_properties.append(("libevent_backend", backend))
    return backend


@pytest.fixture
def event_base(request: pytest.FixtureRequest, libevent_backend: str | None) -> Iterator[EventBase]:
    """An event base; after the test it is closed, and nothing must be left on it."""
    from libevent_py.testing import backends

    yield from backends.checked(
        libevent_backend, lambda: bool(request.node.stash.get(cut_short, False))
    )


@pytest.fixture
def socket_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets that don't block; they are closed after the test."""
    import socket

    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right


@pytest.fixture
def bufferevent_pair(event_base: EventBase) -> Iterator[tuple[BufferEvent, BufferEvent]]:
    """Two bufferevents, each of which reads what the other writes, without a socket."""
    from libevent_py.testing import peers

    yield from peers.bufferevent_pair(event_base)


@pytest.fixture
def listener(event_base: EventBase) -> Iterator[LocalListener]:
    """A listener on a free port of 127.0.0.1 that keeps a bufferevent for each connection."""
    from libevent_py.testing import LocalListener

    with LocalListener(event_base) as listener:
        yield listener


@pytest.fixture
def http_server(event_base: EventBase) -> Iterator[LocalHttpServer]:
    """An HTTP server on a free port of 127.0.0.1."""
    from libevent_py.testing import LocalHttpServer

    with LocalHttpServer(event_base) as server:
        yield server


@pytest.fixture
def dns_server(event_base: EventBase) -> Iterator[LocalDnsServer]:
    """A DNS server on a free port of 127.0.0.1 that answers from a dictionary."""
    from libevent_py.testing import LocalDnsServer

    with LocalDnsServer(event_base) as server:
        yield server


@pytest.fixture(scope="session")
def tls_authority(tmp_path_factory: pytest.TempPathFactory) -> TlsAuthority:
    """An authority that signs certificates for tests."""
    from libevent_py.testing import TlsAuthority

    return TlsAuthority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_context(tls_authority: TlsAuthority) -> Iterator[TlsContext]:
    """The context of a server whose certificate is for localhost, 127.0.0.1 and ::1."""
    with tls_authority.server_context() as context:
        yield context


@pytest.fixture
def tls_client_context(tls_authority: TlsAuthority) -> Iterator[TlsContext]:
    """The context of a client that trusts the certificates of `tls_authority`, and no others."""
    with tls_authority.client_context() as context:
        yield context


@pytest.fixture
def libevent_log() -> Iterator[LibeventLog]:
    """What libevent logs during the test."""
    from libevent_py.testing import LibeventLog

    with LibeventLog() as log:
        yield log


@pytest.fixture
def libevent_debug_mode(request: pytest.FixtureRequest) -> None:
    """Have the test run in a process of its own, in which libevent's debug mode is on."""
    from libevent_py.testing import runs

    runs.check_apart(request.config, "debug")


@pytest.fixture
def libevent_trace(request: pytest.FixtureRequest) -> LibeventTrace:
    """The calls to libevent since the test has begun; it runs in a process of its own."""
    from libevent_py.testing import LibeventTrace, runs

    return LibeventTrace(runs.check_apart(request.config, "trace"))


@pytest.fixture
def fail_allocation() -> Allocations:
    """A function that makes the n-th allocation of libevent's in a ``with`` block fail."""
    from libevent_py.testing import Allocations

    return Allocations()


@pytest.fixture
def until(event_base: EventBase, request: pytest.FixtureRequest) -> Until:
    """A function that runs the loop of `event_base` until a condition holds."""
    from libevent_py.testing import Until

    trace = None
    if "libevent_trace" in request.fixturenames:
        trace = request.getfixturevalue("libevent_trace")
    return Until(event_base, trace)


@pytest.fixture
def settle(event_base: EventBase) -> Settle:
    """A function that runs the loop of `event_base` until nothing is left to do."""
    from libevent_py.testing import Settle

    return Settle(event_base)


@pytest.fixture
def bad_network(event_base: EventBase) -> Iterator[BadNetwork]:
    """A function that puts a network with faults between two peers."""
    from libevent_py.testing import BadNetwork

    with BadNetwork(event_base) as network:
        yield network


@pytest.fixture
def event_snapshot(event_base: EventBase) -> Callable[[], Snapshot]:
    """A function that returns what events `event_base` has now."""
    from libevent_py.testing import Snapshot

    return lambda: Snapshot(event_base)
