"""What tests of HTTP ask."""

from __future__ import annotations

import pytest

from libevent_py import EventBase, HttpServer, TlsContext
from tests.kit.certificates import Authority
from tests.kit.tls_peers import client_context, server_context


@pytest.fixture
def server(base: EventBase) -> HttpServer:
    """A server that listens."""
    server = HttpServer(base)
    server.bind_socket("127.0.0.1", 0)
    return server


@pytest.fixture(params=["plain", "tls"])
def context(request: pytest.FixtureRequest, authority: Authority) -> dict[str, TlsContext] | None:
    """What both ends speak TLS with, or None."""
    if request.param == "plain":
        return None
    return {"client": client_context(authority), "server": server_context(authority)}
