"""Group ``http`` of libevent's regression suite, the rows of cancelling.

Where libevent drops a cancelled request without a word, its callback is called here, once. Times
are a tenth of libevent's own.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from enum import Flag, auto

import pytest

from libevent_py import Buffer, DnsError, EventBase, HttpConnection, HttpRequestError, LoopFlag
from libevent_py.buffer import BufferInfo
from tests.kit.http_peers import Asked
from tests.kit.peers import run_until
from tests.kit.regress_http import Names, Site, ask, empty, failed, funny

CANCEL, TIMEOUT = HttpRequestError.REQUEST_CANCEL, HttpRequestError.TIMEOUT


class How(Flag):
    """What is in the way of a request in the tests of cancelling."""

    BASIC = 0
    BY_HOST = auto()
    NO_NS = auto()
    INACTIVE_SERVER = auto()
    SERVER_TIMEOUT = auto()
    NS_TIMEOUT = auto()


BY_HOST, NO_NS, INACTIVE_SERVER = How.BY_HOST, How.NO_NS, How.INACTIVE_SERVER
SERVER_TIMEOUT, NS_TIMEOUT = How.SERVER_TIMEOUT, How.NS_TIMEOUT

#: More connections than a server keeps for later.
BACKLOG = 256


def nothing_is_written(buffer: Buffer, info: BufferInfo) -> None:
    """Fail: where connections aren't accepted, a request is cancelled while connecting."""
    pytest.fail(f"{info} has been written")


def cancel(base: EventBase, how: How) -> None:
    """Cancel a request of a tenth of a second, and make two more on the same connection."""
    with contextlib.ExitStack() as stack:
        names = None
        if BY_HOST in how:
            names = Names(base)
            names.time_out(0.6 if NS_TIMEOUT in how else 0.3)
            if NO_NS in how:
                names.server.close()
        inactive = INACTIVE_SERVER in how
        site = Site(stack.enter_context(EventBase()) if inactive else base)
        if SERVER_TIMEOUT in how:  # so that further ones are not even refused
            for _ in range(BACKLOG):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                assert sock.connect_ex((site.host, site.port)) in (0, errno.EINPROGRESS)
        dns, host = (None, site.host) if names is None else (names.dns, "localhost")
        evcon = stack.enter_context(HttpConnection(base, host, site.port, dns_base=dns))
        if inactive:
            evcon.timeout = 0.5
        if SERVER_TIMEOUT in how:
            evcon.bufferevent.output.add_cb(nothing_is_written)
        codes: list[HttpRequestError] = []
        cancelled = Asked(on_error=lambda request, code: codes.append(code)).on(evcon, "/delay")
        base.once(lambda fd, what: cancelled.request.cancel(), timeout=0.1)
        answered = NO_NS not in how and not inactive
        run_until(base, lambda: cancelled.ended and site.replied == answered)
        assert cancelled.error.code == CANCEL
        assert codes == [CANCEL]
        if answered:
            funny(ask(evcon, "/test"))
            empty(ask(evcon, "/test", Empty="itis"))
        else:
            for asked in ask(evcon, "/test"), ask(evcon, "/test", Empty="itis"):
                failed(asked)
                if NO_NS in how:
                    assert isinstance(asked.error.__cause__, DnsError)
                elif SERVER_TIMEOUT in how:
                    assert asked.error.__cause__.errno == errno.ETIMEDOUT
                else:
                    assert asked.error.code == TIMEOUT
        base.loop(LoopFlag.NONBLOCK)
        assert cancelled.ended == 1


def test_cancel(backend_base: EventBase) -> None:
    """After a request that is cancelled the connection is made anew."""
    cancel(backend_base, How.BASIC)


def test_cancel_by_host(backend_base: EventBase) -> None:
    """So it is where the server's name is looked up."""
    cancel(backend_base, BY_HOST)


@pytest.mark.slow
def test_cancel_by_host_inactive_server(base: EventBase) -> None:
    """A request is cancelled that the server doesn't answer."""
    cancel(base, BY_HOST | INACTIVE_SERVER)


@pytest.mark.slow
def test_cancel_by_host_no_ns(base: EventBase) -> None:
    """A request is cancelled whose server's name is still looked up."""
    cancel(base, BY_HOST | NO_NS)


@pytest.mark.slow
def test_cancel_inactive_server(base: EventBase) -> None:
    """A request is cancelled that the server at an address doesn't answer."""
    cancel(base, INACTIVE_SERVER)


@pytest.mark.slow
def test_cancel_by_host_no_ns_inactive_server(base: EventBase) -> None:
    """The name isn't found, and the server wouldn't answer."""
    cancel(base, BY_HOST | NO_NS | INACTIVE_SERVER)


@pytest.mark.slow
def test_cancel_by_host_server_timeout(base: EventBase) -> None:
    """A request is cancelled whose connection isn't accepted."""
    cancel(base, BY_HOST | INACTIVE_SERVER | SERVER_TIMEOUT)


@pytest.mark.slow
def test_cancel_server_timeout(base: EventBase) -> None:
    """A request is cancelled whose connection to an address isn't accepted."""
    cancel(base, INACTIVE_SERVER | SERVER_TIMEOUT)


@pytest.mark.slow
def test_cancel_by_host_no_ns_server_timeout(base: EventBase) -> None:
    """The name isn't found, and the connection wouldn't be accepted."""
    cancel(base, BY_HOST | NO_NS | INACTIVE_SERVER | SERVER_TIMEOUT)


@pytest.mark.slow
def test_cancel_by_host_ns_timeout_server_timeout(base: EventBase) -> None:
    """Looking the name up takes longer than connecting may, which wouldn't be accepted."""
    cancel(base, BY_HOST | NO_NS | NS_TIMEOUT | INACTIVE_SERVER | SERVER_TIMEOUT)


@pytest.mark.slow
def test_cancel_by_host_ns_timeout(base: EventBase) -> None:
    """The name isn't found for longer."""
    cancel(base, BY_HOST | NO_NS | NS_TIMEOUT)


@pytest.mark.slow
def test_cancel_by_host_ns_timeout_inactive_server(base: EventBase) -> None:
    """Looking the name up takes longer than connecting may."""
    cancel(base, BY_HOST | NO_NS | NS_TIMEOUT | INACTIVE_SERVER)
