"""Attributes that C's calls depend on, and that can't be set to another object therefore."""

from __future__ import annotations

import pytest

from libevent_py import (
    DnsBase,
    DnsBaseFlag,
    EventBase,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    HttpServer,
    HttpServerRequest,
)
from tests.kit.peers import run_until
from tests.kit.scenes import ignore


def test_a_lookup_can_not_be_given_to_another_resolver(base: EventBase) -> None:
    with EventBase() as other:
        dns, another = DnsBase(base, DnsBaseFlag(0)), DnsBase(other, DnsBaseFlag(0))
        for lookup in dns.resolve_ipv4("x", ignore), dns.getaddrinfo("x", "80", ignore):
            with pytest.raises(AttributeError):
                lookup.dns_base = another  # type: ignore[misc]
            assert lookup.dns_base is dns
            assert lookup.base is base
            lookup.cancel()  # which crashed


def test_a_connection_can_not_be_given_to_another_server(base: EventBase) -> None:
    server, held, ended = HttpServer(base), list[HttpServerRequest](), list[HttpRequest]()
    server.set_gencb(held.append)
    client = HttpConnection(base, "127.0.0.1", server.bind_socket("127.0.0.1", 0).port)
    client.make_request(HttpRequest(ended.append), HttpCommand.GET, "/")
    run_until(base, lambda: held)
    connection = held[0].connection
    assert connection is not None
    with pytest.raises(AttributeError):
        connection.server = HttpServer(base)  # type: ignore[misc]
    assert connection.server is server
    connection.close()  # which crashed
    run_until(base, lambda: ended)
    client.close()
