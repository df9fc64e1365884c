"""How TLS connections end, and what becomes of their descriptors."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    EventBase,
    LoopFlag,
    TlsError,
    TlsVersion,
    ffi,
    lib,
)
from tests.kit.certificates import HOST, Authority
from tests.kit.peers import (
    is_open,
    nobody_listens,
    rest,
    run_until,
    settle,
    tcp_pair,
)
from tests.kit.support import run_python
from tests.kit.tls_peers import (
    End,
    Relay,
    client_context,
    connected_ends,
    ends,
    server_context,
)

Ends = tuple[End, End]
DEFERRED = BufferEventOption.DEFER_CALLBACKS
OWNED = BufferEventOption.CLOSE_ON_FREE


@pytest.fixture
def both(base: EventBase, authority: Authority) -> Ends:
    """The two ends of a connection whose handshake is done."""
    return connected_ends(base, authority)


# Ends.


def test_the_end_by_tls_own_notice_is_eof(base: EventBase, both: Ends) -> None:
    one, other = both
    assert one.bev.shutdown() is True
    run_until(base, lambda: other.over)
    assert other.events[1:] == [BufferEventFlag.READING | BufferEventFlag.EOF]
    assert other.error is None
    other.bev.write(b"still")  # the other direction is open
    run_until(base, lambda: one.received)
    assert other.bev.shutdown() is True
    run_until(base, lambda: one.over)
    assert one.events[1:] == [BufferEventFlag.READING | BufferEventFlag.EOF]


@pytest.mark.parametrize("sockets", [socket.socketpair, tcp_pair])
def test_an_end_without_notice_is_an_error_unless_allowed(
    base: EventBase, authority: Authority, sockets: Callable[[], Any]
) -> None:
    one, other = connected_ends(base, authority, sockets())
    one.bev.close()
    run_until(base, lambda: other.over)
    assert other.events[1:] == [BufferEventFlag.READING | BufferEventFlag.ERROR]
    assert isinstance(other.error, TlsError)
    assert other.error.reason == "UNEXPECTED_EOF_WHILE_READING"
    assert other.bev.error is other.error
    assert other.bev.tls_errors() == [other.error]
    assert other.bev.tls_errors() == []

    one, other = connected_ends(base, authority, sockets())
    other.bev.allow_dirty_shutdown = True
    assert other.bev.allow_dirty_shutdown is True
    one.bev.close()
    run_until(base, lambda: other.over)
    assert other.events[1:] == [BufferEventFlag.READING | BufferEventFlag.EOF]
    assert other.bev.error is None

    one, other = connected_ends(base, authority, sockets())
    other.bev.allow_dirty_shutdown = True
    other.bev.allow_dirty_shutdown = False
    assert other.bev.allow_dirty_shutdown is False
    one.bev.close()
    run_until(base, lambda: other.over)
    assert BufferEventFlag.ERROR in other.happened


def test_shutdown_waits_for_the_output(base: EventBase, both: Ends) -> None:
    one, other = both
    one.bev.write(b"x" * 2**20)
    with pytest.raises(ValueError, match="must wait until all output is written"):
        one.bev.shutdown()
    run_until(base, lambda: not one.bev.output)
    assert one.bev.shutdown() is True
    run_until(base, lambda: other.over)
    assert len(other.received) == 2**20
    assert other.error is None


def test_shutdown_after_a_failure_is_no_error(base: EventBase, both: Ends) -> None:
    one, other = both
    one.bev.close()
    run_until(base, lambda: other.over)
    other.bev.shutdown()
    assert lib.ERR_get_error() == 0


def test_a_reset_is_the_sockets_error(base: EventBase, authority: Authority) -> None:
    left, right = tcp_pair()
    one, other = connected_ends(base, authority, (left, right), options=OWNED | DEFERRED)
    linger = ffi.new("int[2]", (1, 0))
    duplicate = socket.socket(fileno=os.dup(one.bev.fd))
    duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes(ffi.buffer(linger)))
    one.bev.close()
    settle(base)
    duplicate.close()
    run_until(base, lambda: other.over)
    assert isinstance(other.error, ConnectionResetError)
    assert not isinstance(other.error, TlsError)


def test_what_is_no_tls_is_told_as_such(base: EventBase, authority: Authority) -> None:
    left, right = socket.socketpair()
    end = End(BufferEvent.tls, base, right, server_context(authority))
    with left:
        left.sendall(b"GET / HTTP/1.0\r\n\r\n")
        run_until(base, lambda: end.over)
    assert isinstance(end.error, TlsError)
    assert end.error.reason == "HTTP_REQUEST"


def test_a_connection_that_is_refused_says_so(base: EventBase, authority: Authority) -> None:
    end = End(BufferEvent.tls, base, -1, client_context(authority), server_hostname=HOST)
    end.bev.connect(nobody_listens())
    run_until(base, lambda: end.over)
    assert isinstance(end.error, ConnectionRefusedError)
    assert end.error.errno == errno.ECONNREFUSED


def test_a_peer_that_says_nothing_times_out(base: EventBase, authority: Authority) -> None:
    left, right = socket.socketpair()
    end = End(BufferEvent.tls, base, left, client_context(authority), server_hostname=HOST)
    end.bev.set_timeouts(0.02, 0.02)
    with right:
        run_until(base, lambda: end.events)
    assert BufferEventFlag.TIMEOUT in end.happened
    assert end.error is None


@pytest.mark.parametrize("version", [TlsVersion.TLSv1_2, TlsVersion.TLSv1_3])
@pytest.mark.parametrize("dirty", [False, True])
def test_a_handshake_cut_off_at_any_moment_ends_both_sides(
    base: EventBase, authority: Authority, version: TlsVersion, dirty: bool
) -> None:
    client = client_context(authority, maximum_version=version)
    server = server_context(authority)
    relay = Relay(10**9)
    both = ends(base, client, server, relay.outer)
    run_until(base, lambda: relay.pump() or all(end.connected for end in both))
    relay.cut()
    for most in range(0, relay.passed - 20, 79):  # the length of a signature varies
        relay = Relay(most)
        both = ends(base, client, server, relay.outer)
        for end in both:
            end.bev.allow_dirty_shutdown = dirty

        turns = 0
        while not all(end.over for end in both):
            relay.pump()
            base.loop(LoopFlag.NONBLOCK)
            turns += 1
            assert turns < 1000
        for end in both:
            assert end.received == b""
            assert end.error is not None or dirty or BufferEventFlag.EOF in end.happened
            end.bev.close()


def test_a_failed_one_can_connect_again(base: EventBase, authority: Authority) -> None:
    one, other = connected_ends(base, authority)
    other.bev.close()
    run_until(base, lambda: one.over)
    left, right = socket.socketpair()
    again = End(BufferEvent.tls, base, right, server_context(authority))
    one.events.clear()
    one.bev.fd = left
    one.bev.write(b"once more")
    run_until(base, lambda: again.received)
    assert one.events == [BufferEventFlag.CONNECTED]
    assert again.received == b"once more"


# Descriptors.


def test_without_close_on_free_the_socket_stays_its_owners(
    base: EventBase, authority: Authority
) -> None:
    left, right = socket.socketpair()
    with left, right:
        one, other = connected_ends(base, authority, (left, right), options=DEFERRED)
        one.bev.close()
        other.bev.close()
        left.sendall(b"in the clear")  # at once, before libevent has freed anything
        assert right.recv(100) == b"in the clear"
        settle(base)
        left.sendall(b"and later")
        assert right.recv(100) == b"and later"


def test_without_close_on_free_what_connect_makes_is_closed(
    base: EventBase, authority: Authority
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        context = client_context(authority)
        bev = BufferEvent.tls(base, -1, context, server_hostname=HOST, options=DEFERRED)
        bev.connect(server.getsockname())
        fd = bev.fd
        with server.accept()[0] as peer:
            settle(base)
            bev.close()
            assert not is_open(fd)
            assert rest(peer)[:1] == b"\x16"  # a handshake's first byte


def test_a_descriptor_can_be_taken_back(base: EventBase, both: Ends) -> None:
    one, other = both
    with socket.socket(fileno=one.bev.detach()) as sock:
        assert one.bev.fd == -1
        one.bev.close()
        settle(base)
        sock.sendall(b"no TLS record")
        run_until(base, lambda: other.over)
    assert isinstance(other.error, TlsError)


@pytest.mark.more
def test_a_thousand_handshakes_leave_no_descriptor_and_no_memory(authority: Authority) -> None:
    run_python(
        f"""
        import os, re
        from pathlib import Path
        from tests.kit.certificates import Authority, Certificate
        from libevent_py import BufferEvent, BufferEventOption, EventBase, TlsContext
        from tests.kit.peers import run_until, settle
        from tests.kit.tls_peers import ends
        certificates = Path({str(authority.directory)!r})
        client = TlsContext(cafile=certificates / "ca.pem")
        own = certificates / "server.pem", certificates / "server.key"
        server = TlsContext(server_side=True, certfile=own[0], keyfile=own[1])

        def memory():
            rollup = Path("/proc/self/smaps_rollup").read_text()
            return int(re.search("Private_Dirty: *([0-9]+)", rollup)[1])

        with EventBase() as base:
            def handshakes(count):
                for number in range(count):
                    one, other = ends(base, client, server)
                    run_until(base, lambda: one.connected and other.connected)
                    if number % 2:
                        one.bev.shutdown()
                    one.bev.close()
                    other.bev.close()
                settle(base)

            handshakes(200)
            before, open_before = memory(), len(os.listdir("/proc/self/fd"))
            handshakes(1000)
            assert len(os.listdir("/proc/self/fd")) == open_before
            grown = memory() - before
            assert grown < 1024, f"{{grown}} KiB more"
        """
    )


# Closing with what is left to write.


@pytest.mark.parametrize("through", ["socket", "pair"])
@pytest.mark.parametrize("when", ["before the handshake", "after it"])
def test_close_with_flush_writes_all_and_ends_as_tls_does(
    base: EventBase, authority: Authority, through: str, when: str
) -> None:
    client, server = client_context(authority), server_context(authority)
    if through == "socket":
        one, other = ends(base, client, server)
    else:
        below = BufferEvent.pair(base)
        one = End(BufferEvent.tls_filter, below[0], client, server_hostname=HOST)
        other = End(BufferEvent.tls_filter, below[1], server)
    if when == "after it":
        run_until(base, lambda: one.connected and other.connected)
    data = os.urandom(1_000_000)
    one.bev.write(data)
    one.bev.close(flush=True)
    assert one.bev.closed
    run_until(base, lambda: other.over)
    assert other.received == data
    assert other.error is None
    assert other.happened & BufferEventFlag.EOF
    other.bev.close()
    settle(base)
    assert not base._live
