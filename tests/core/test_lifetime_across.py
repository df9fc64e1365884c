"""What becomes of HTTP, RPC and DNS when what they stand on ends, or is closed by one another."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    ClosedError,
    DnsBase,
    EventBase,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    Listener,
    RpcPool,
    RpcStatus,
)
from tests.kit.dns_peers import SILENCE, NameServer, Told, client_of
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import run_until, settle
from tests.kit.rpc_messages import REQUEST, Kill, new_world
from tests.kit.support import run_python


@pytest.fixture
def server(base: EventBase) -> Iterator[NameServer]:
    """A name server that knows one host, and says nothing of another."""
    with NameServer(base, {"here.example": ["127.0.0.1"], "silent.example": SILENCE}) as server:
        yield server


def asking(base: EventBase, dns: DnsBase | None, callback: Any) -> HttpConnection:
    """Return a connection whose request waits, for a name or for a server that accepts nobody."""
    host, port = "silent.example", 80
    if dns is None:
        host, port = Listener(base, ("127.0.0.1", 0), None).address
    connection = HttpConnection(base, host, port, dns_base=dns)
    connection.make_request(HttpRequest(callback), HttpCommand.GET, "/")
    return connection


def test_nothing_begins_with_a_resolver_that_is_being_closed(
    base: EventBase, server: NameServer
) -> None:
    dns, refused = client_of(server), []

    def again(_request: HttpRequest) -> None:
        for begin in (
            lambda: asking(base, dns, again),
            lambda: dns.resolve_ipv4("here.example", Told()),
            dns.close,
        ):
            try:
                begin()
            except ClosedError:
                refused.append(begin)

    asking(base, dns, again)
    dns.close()
    assert dns.closed
    assert len(refused) == 2
    settle(base)


@pytest.mark.parametrize("under_way", [False, True])
def test_a_pool_is_closed_with_the_resolver_of_a_connection(
    base: EventBase, server: NameServer, under_way: bool
) -> None:
    world = new_world(base)
    dns, told = client_of(server), list[Any]()
    pool = RpcPool(base)
    pool.add_connection(connection := HttpConnection(base, "silent.example", 80, dns_base=dns))
    if under_way:
        pool.call("Message", REQUEST, Kill, told.append)
    dns.close()
    assert pool.closed
    assert connection.closed
    assert [call.status for call in told] == [RpcStatus.TIMEOUT] * under_way
    assert not world.pool.closed
    settle(base)


@VALGRIND_TAKES_LONG
def test_no_connection_of_a_pool_uses_a_resolver_that_is_freed(valgrind: bool) -> None:
    run_python(
        """
        from libevent_py import *
        from tests.kit.dns_peers import *
        from tests.kit.peers import run_until, settle
        from tests.kit.rpc_messages import *

        for inside in (False, True):
            told = []
            with EventBase() as base, NameServer(base, {"here.example": ["127.0.0.1"]}) as server:
                port = new_world(base).port
                dns = client_of(server)
                pool = RpcPool(base)
                for _ in range(2):
                    pool.add_connection(HttpConnection(base, "here.example", port, dns_base=dns))
                pool.call("Message", REQUEST, Kill, told.append)
                run_until(base, lambda: told)
                for _ in range(3):
                    pool.call("Message", REQUEST, Kill, told.append)
                if inside:
                    base.once(lambda *_: dns.close())
                    run_until(base, lambda: pool.closed)
                else:
                    dns.close()
                assert len(told) == 4
                settle(base)
        """,
        valgrind=valgrind,
    )


def test_a_connection_that_a_pool_has_used_is_used(base: EventBase) -> None:
    world = new_world(base)
    told: list[Any] = []
    (connection,) = world.pool.connections
    world.call(callback=told.append)
    run_until(base, lambda: told)
    world.pool.remove_connection(connection)
    with pytest.raises(RuntimeError, match="local_port must be set before the first request"):
        connection.local_port = 1  # where C would abort
    with pytest.raises(RuntimeError, match="local_address must be set before the first request"):
        connection.local_address = "127.0.0.1"


class Oops(Exception):
    """What callbacks raise."""


def oops(_request: HttpRequest) -> None:
    raise Oops


ENDS: dict[str, Callable[[HttpConnection, HttpRequest], object]] = {
    "close": lambda connection, request: connection.close(),
    "cancel": lambda connection, request: request.cancel(),
    "request": lambda connection, request: request.close(),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("waiting", [False, True])
def test_what_a_request_s_callback_raises_comes_out_of_its_end(
    base: EventBase, end: str, waiting: bool
) -> None:
    connection = asking(base, None, (lambda _: None) if waiting else oops)
    request = HttpRequest(oops)
    if waiting:
        connection.make_request(request, HttpCommand.GET, "/")
    else:
        assert connection._queue.current is not None
        request = connection._queue.current
    with pytest.raises(Oops):
        ENDS[end](connection, request)


def test_what_callbacks_raise_comes_out_of_a_resolver_s_close_once_all_are_told(
    base: EventBase, server: NameServer
) -> None:
    dns = client_of(server)
    connections = [asking(base, dns, oops) for _ in range(2)]
    with pytest.raises(Exception) as raised:
        dns.close()
    found = getattr(raised.value, "exceptions", (raised.value, raised.value.__context__))
    assert [type(error) for error in found] == [Oops, Oops]
    assert dns.closed
    assert all(connection.closed for connection in connections)
    settle(base)


def test_nothing_is_left_of_what_begins_while_the_base_is_closed() -> None:
    base, refused = EventBase(), list[Any]()
    left, right = socket.socketpair()
    left.setblocking(False)
    bev, other = BufferEvent(base, left), BufferEvent(base)
    bev.write(b"more than the socket takes" * 100_000)

    def late(_request: HttpRequest) -> None:
        bev.close(flush=True)
        with pytest.raises(ClosedError):
            BufferEvent.filter(other, None, None)
        with pytest.raises(ClosedError):
            connection.make_request(request, HttpCommand.GET, "/")
        refused.append(request.connection)

    connection, request = HttpConnection(base, "127.0.0.1", 9), HttpRequest(late)
    asking(base, None, late)
    base.close()
    right.close()
    assert refused == [None]
    assert bev.closed
    assert other.closed
    assert not base._ledger
    assert not base._live


def test_name_servers_are_added_later_at_their_own_addresses(
    base: EventBase, server: NameServer
) -> None:
    dns, addresses = client_of(server), [(f"127.0.0.{number}", 53) for number in range(2, 9)]

    def change(_fd: int, _what: int) -> None:
        dns.clear_nameservers_and_suspend()  # which waits for a quiet moment
        for address in addresses:
            dns.nameserver_sockaddr_add(address)

    base.once(change)
    settle(base)
    assert sorted(dns.nameservers) == addresses


@VALGRIND_TAKES_LONG
def test_what_connects_by_a_name_may_be_collected_after_its_resolver(valgrind: bool) -> None:
    run_python(
        """
        import gc
        from libevent_py import *
        from tests.kit.dns_peers import *

        silence = NameServer(other := EventBase(), {})
        told = []
        for connects in (True, False) * 4:
            for first in (True, False):
                base = EventBase()
                if first:
                    bev = BufferEvent(base)
                dns = DnsBase(base, DnsBaseFlag(0))
                dns.nameserver_sockaddr_add(silence.address)
                if not first:
                    bev = BufferEvent(base)
                if connects:
                    bev.connect_hostname(dns, "silent.example", 80)
                else:
                    http = HttpConnection(base, "silent.example", 80, dns_base=dns)
                    http.make_request(HttpRequest(told.append), HttpCommand.GET, "/")
                    closed = DnsBase(base, DnsBaseFlag(0))
                    closed.resolve_ipv4("silent.example", lambda *answer: told.append(answer))
                    base.once(lambda *_, closed=closed: closed.close())
                    base.once(lambda *_, base=base: base.loopbreak())
                base.loop(LoopFlag.NONBLOCK)
                base = dns = bev = http = closed = None
                gc.collect()
        silence.socket.close()
        """,
        valgrind=valgrind,
    )
