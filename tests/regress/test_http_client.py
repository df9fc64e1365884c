"""Group ``http`` of libevent's regression suite, the client's half, but for the rows of cancelling.

The rows that libevent hangs on pass here, as the layer tries again itself (P9).
"""

from __future__ import annotations

import errno
import select
import socket
import time
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventOption,
    EventBase,
    EventFlag,
    HttpCommand,
    HttpConnection,
    HttpConnectionFlag,
    HttpError,
    HttpRequest,
    HttpRequestError,
    LoopFlag,
)
from tests.kit.certificates import Authority
from tests.kit.http_peers import Asked
from tests.kit.peers import connected, run_until, settle
from tests.kit.regress_http import (
    BODY,
    CHUNKS,
    DISPATCHED,
    FINE,
    POST_DATA,
    PUT_ANSWER,
    PUT_DATA,
    Names,
    Raw,
    Site,
    ask,
    bufferevent,
    connection,
    data_length_constraints,
    empty,
    failed,
    funny,
    request,
)
from tests.kit.tls_peers import Contexts

CANCEL, EOF = HttpRequestError.REQUEST_CANCEL, HttpRequestError.EOF


@pytest.fixture
def contexts(authority: Authority) -> Contexts:
    return Contexts(authority)


# Simple requests.


def simple(
    base: EventBase,
    contexts: Contexts | None = None,
    *,
    dirty: bool = False,
) -> None:
    """Ask by a bufferevent made before."""
    site = Site(base, contexts)
    bev = bufferevent(base, -1, site.client_context)
    if contexts is not None:
        bev.allow_dirty_shutdown = dirty
    with connection(site, bev) as evcon:
        evcon.local_address = "127.0.0.1"
        funny(ask(evcon, "/test"))


def test_simple(backend_base: EventBase) -> None:
    """A bufferevent made before serves a connection."""
    simple(backend_base)


def test_simple_nonconformant(backend_base: EventBase) -> None:
    """A space within the URI is refused by the client (Q4), but not by the server."""
    site = Site(backend_base)
    with connection(site) as evcon:
        with pytest.raises(ValueError, match="no spaces"):
            evcon.make_request(HttpRequest(print), HttpCommand.GET, "/test nonconformant")
        funny(ask(evcon, "/test%20nonconformant"))
    raw = Raw(site, request("/test nonconformant"), until=BODY).run()
    assert raw.answer[2] == BODY


def test_https_simple(backend_base: EventBase, contexts: Contexts) -> None:
    """A TLS bufferevent made before serves a connection."""
    simple(backend_base, contexts)


def test_https_simple_dirty(backend_base: EventBase, contexts: Contexts) -> None:
    """An end without notice may be just an end."""
    simple(backend_base, contexts, dirty=True)


def test_post(backend_base: EventBase) -> None:
    """A POST is answered, at once or after "100 Continue"."""
    with connection(Site(backend_base)) as evcon:
        funny(ask(evcon, "/postit", HttpCommand.POST, POST_DATA))
        funny(ask(evcon, "/postit", HttpCommand.POST, POST_DATA, Expect="100-continue"))


def test_put(backend_base: EventBase) -> None:
    """A PUT is answered."""
    with connection(Site(backend_base)) as evcon:
        asked = ask(evcon, "/putit", HttpCommand.PUT, PUT_DATA, Host="someotherhost")
        funny(asked, PUT_ANSWER)


# One request after the other.


def requests(
    base: EventBase,
    contexts: Contexts | None = None,
    *,
    persistent: bool = False,
    host: str = "127.0.0.1",
    names: Names | None = None,
    family: int = socket.AF_UNSPEC,
) -> None:
    """Make three requests on one connection, which ends with the second unless *persistent*."""
    site = Site(base, contexts, host="127.0.0.1" if names is None else names.address)
    bev = None if contexts is None else bufferevent(base, -1, contexts.client)
    dns = None if names is None else names.dns
    ended: list[HttpConnection] = []
    with HttpConnection(base, host, site.port, dns_base=dns, bufferevent=bev) as evcon:
        assert evcon.base is base
        evcon.family = family
        evcon.on_close = ended.append
        funny(ask(evcon, "/test"))
        headers: dict[str, Any] = {} if persistent else {"Connection": "close"}
        funny(ask(evcon, "/test", **headers))
        empty(ask(evcon, "/test", Empty="itis"))
        assert evcon.address is not None
        assert evcon.address[:2] == (site.host, site.port)
        base.loop(LoopFlag.NONBLOCK)
        assert ended == ([] if persistent else [evcon])


def test_connection(backend_base: EventBase) -> None:
    """A request after one with which the connection ended makes it anew."""
    requests(backend_base)


def test_persist_connection(backend_base: EventBase) -> None:
    """Several requests go by one connection."""
    requests(backend_base, persistent=True)


def test_https_connection(backend_base: EventBase, contexts: Contexts) -> None:
    """A request after one with which a TLS connection ended makes it anew."""
    requests(backend_base, contexts)


def test_https_persist_connection(backend_base: EventBase, contexts: Contexts) -> None:
    """Several requests go by one TLS connection."""
    requests(backend_base, contexts, persistent=True)


def test_connection_async(backend_base: EventBase) -> None:
    """A numeric address is asked no name server."""
    names = Names(backend_base)
    site = Site(backend_base)
    with HttpConnection(backend_base, "127.0.0.1", site.port, dns_base=names.dns) as evcon:
        funny(ask(evcon, "/test"))
        funny(ask(evcon, "/test", Connection="close"))
        empty(ask(evcon, "/test", Empty="itis"))
    assert names.asked == 0


def test_ipv6_for_domain(backend_base: EventBase) -> None:
    """A name that has only an IPv6 address is connected to."""
    requests(backend_base, host="localhost", names=Names(backend_base, "::1"))


def test_set_family(backend_base: EventBase) -> None:
    """Any family will do."""
    requests(backend_base, family=socket.AF_UNSPEC)


def test_set_family_ipv4(backend_base: EventBase) -> None:
    """IPv4 may be asked for."""
    requests(backend_base, family=socket.AF_INET)


def test_set_family_ipv6(backend_base: EventBase) -> None:
    """With AF_INET6 a name is looked up for that alone."""
    names = Names(backend_base, "::1")
    requests(backend_base, host="localhost", names=names, family=socket.AF_INET6)
    assert names.asked == 2  # once for each connection


def test_autofree_connection(backend_base: EventBase) -> None:
    """A connection to be closed on completion first ends what waits (P6)."""
    site = Site(backend_base)
    evcon = connection(site)
    asked = [Asked(), Asked()]
    for each in asked:
        headers = each.request.output_headers
        headers["Host"], headers["Connection"], headers["Empty"] = "somehost", "close", "itis"
        each.on(evcon, "/test")
    evcon.free_on_completion()
    run_until(backend_base, lambda: evcon.closed)
    for each in asked:
        empty(each)
    run_until(backend_base, lambda: not site.server._connections.known)


def test_request_own(backend_base: EventBase) -> None:
    """A request is its user's own, also once its connection is closed."""
    site = Site(backend_base)
    site.server.close()
    with connection(site) as evcon:
        asked = ask(evcon, "/test")
    failed(asked)
    assert asked.request.uri == "/test"
    assert asked.request.response_code == 0
    asked.request.close()
    assert asked.request.closed


# Connections that end.


def close_detection(base: EventBase, *, delay: bool = False) -> None:
    """Make a request after the server, or with *delay* something else, has ended a connection."""
    site = Site(base)
    site.server.timeout = 0.1
    ended: list[HttpConnection] = []
    with connection(site) as evcon:
        evcon.on_close = ended.append

        def fail() -> None:
            sock = socket.socket(fileno=evcon.bufferevent.fd)
            sock.shutdown(socket.SHUT_RD)
            sock.detach()

        site.meanwhile = fail
        asked = ask(evcon, "/largedelay" if delay else "/test")
        if delay:
            assert asked.error.code == EOF
        else:
            funny(asked)
        run_until(base, lambda: ended and (not delay or site.replied))
        funny(ask(evcon, "/test"))
        run_until(base, lambda: not site.server._connections.known)


def test_close_detection(backend_base: EventBase) -> None:
    """A connection that the server has closed meanwhile is made anew."""
    close_detection(backend_base)


def test_close_detection_delay(backend_base: EventBase) -> None:
    """So is one that has failed before the answer came."""
    close_detection(backend_base, delay=True)


def connection_fail(base: EventBase, contexts: Contexts | None = None) -> None:
    """Close a connection in the callback of a request for which none could be made."""
    bev = bufferevent(base, -1, None if contexts is None else contexts.client)
    evcon = HttpConnection(base, "239.10.20.30", 80, bufferevent=bev)  # no host of TCP's
    asked = Asked()
    asked.then = lambda request: evcon.close()
    asked.on(evcon)
    run_until(base, lambda: asked.ended)
    assert isinstance(asked.error, HttpError)
    assert isinstance(asked.error.__cause__, OSError)
    assert asked.error.__cause__.errno == errno.ENETUNREACH
    assert evcon.closed
    base.loop(LoopFlag.NONBLOCK)
    assert asked.ended == 1


def test_connection_fail(backend_base: EventBase) -> None:
    """A connection that can't be made is closed in the callback that says so."""
    connection_fail(backend_base)


def test_https_connection_fail(backend_base: EventBase, contexts: Contexts) -> None:
    """A TLS connection that can't be made is closed in the callback that says so."""
    connection_fail(backend_base, contexts)


def connection_retry(
    base: EventBase, contexts: Contexts | None = None, names: Names | None = None
) -> None:
    """Connect where nobody listens: once, twice, and until somebody does."""
    with socket.socket() as holder:  # keeps the port from others
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        bev = bufferevent(base, -1, None if contexts is None else contexts.client)
        dns, host = (None, "127.0.0.1") if names is None else (names.dns, "localhost")
        with HttpConnection(base, host, port, dns_base=dns, bufferevent=bev) as evcon:
            if names is not None:
                evcon.flags = HttpConnectionFlag.REUSE_CONNECTED_ADDR
            evcon.timeout = 10
            evcon.local_address = "127.0.0.1"

            def refused() -> None:
                asked = ask(evcon, "/?arg=val")
                assert isinstance(asked.error.__cause__, ConnectionRefusedError)
                assert asked.code == 0
                assert asked.headers == []
                assert asked.body == b""

            refused()
            if names is not None:
                assert names.asked > 0
                names.server.close()
            evcon.initial_retry = 0.2
            evcon.retries = 1
            start = time.monotonic()
            refused()
            assert time.monotonic() - start >= 0.1

            evcon.retries = 3
            base.once(lambda fd, what: Site(base, contexts, port=port), timeout=0.05)
            start = time.monotonic()
            funny(ask(evcon, "/?arg=val"), DISPATCHED)
            assert time.monotonic() - start >= 0.1


def test_connection_retry(base: EventBase) -> None:
    """Connecting is tried again, and a later request isn't forgotten (P9)."""
    connection_retry(base)


def test_connection_retry_conn_address(base: EventBase) -> None:
    """A name is looked up once, and never again (P9)."""
    connection_retry(base, names=Names(base))


def test_https_connection_retry(base: EventBase, contexts: Contexts) -> None:
    """A TLS connection is tried again, from its handshake on (P9)."""
    connection_retry(base, contexts)


def test_https_connection_retry_conn_address(base: EventBase, contexts: Contexts) -> None:
    """The name is looked up once for a TLS connection, too (P9)."""
    connection_retry(base, contexts, Names(base))


# Responses and bodies.


def test_stream_in(backend_base: EventBase) -> None:
    """A body comes part by part, and isn't there any more in the end."""
    for uri, whole in ("/chunked", b"".join(CHUNKS)), ("/test", BODY):
        received: list[bytes] = []

        def chunk(request: HttpRequest, received: list[bytes] = received) -> None:
            assert request.response_code == 200
            received.append(request.input_buffer.remove())

        with connection(Site(backend_base)) as evcon:
            asked = Asked(on_chunk=chunk)
            asked.on(evcon, uri)
            run_until(backend_base, lambda asked=asked: asked.ended)  # type: ignore[misc]
        assert asked.error is None
        assert asked.body == b""
        assert b"".join(received) == whole


def test_stream_in_cancel(backend_base: EventBase) -> None:
    """A request that is cancelled while its body comes gets no more of it (P5)."""
    received: list[bytes] = []

    def chunk(request: HttpRequest) -> None:
        assert request.response_code == 200
        received.append(bytes(request.input_buffer))
        request.cancel()

    with connection(Site(backend_base)) as evcon:
        asked = Asked(on_chunk=chunk).on(evcon, "/chunked")
        run_until(backend_base, lambda: asked.ended)
        assert asked.error.code == CANCEL
        assert received == [CHUNKS[0]]
        funny(ask(evcon, "/test"))
        assert asked.ended == 1


def test_read_on_write_error(backend_base: EventBase) -> None:
    """A client hears why the server doesn't read on, if it wants to."""
    data_length_constraints(backend_base, read_on_write_error=True)


def write_during_read(base: EventBase, contexts: Contexts | None = None) -> None:
    """Say more while there is an answer that nobody reads; in plain text, also to HTTPS."""
    site = Site(base, contexts)
    sock = connected((site.host, site.port))
    sock.setblocking(False)
    with sock, BufferEvent(base, sock, BufferEventOption.DEFER_CALLBACKS) as bev:
        bev.disable(EventFlag.READ)
        bev.write(b"GET /large HTTP/1.1\r\nHost: somehost\r\n\r\n")
        run_until(base, lambda: select.select([sock], [], [], 0)[0])
        bev.write(b"foobar")
        if contexts is None:
            run_until(base, lambda: not bev.output)
        settle(base)
        with connection(site) as evcon:
            funny(ask(evcon, "/test"))
        answer = sock.recv(12)
        assert answer == b"HTTP/1.1 200" if contexts is None else answer[:4] != b"HTTP"


def test_write_during_read(backend_base: EventBase) -> None:
    """What a client says too early does no harm."""
    write_during_read(backend_base)


def test_https_write_during_read(backend_base: EventBase, contexts: Contexts) -> None:
    """What is not TLS is no request, and does no harm."""
    write_during_read(backend_base, contexts)


def test_request_extra_body(backend_base: EventBase) -> None:
    """A HEAD that has a body is answered, once, without one; or its connection fails first."""
    site = Site(backend_base)
    site.server.set_gencb(site.timeout)
    body = b"this is the body that HEAD should not have" * 10000
    for number, path in enumerate(("/timeout", "/__gencb__")):
        head = request(path, f"Content-Length: {len(body)}", method="HEAD")
        raw = Raw(site, head + body).run()
        assert raw.ended is not None
        assert site.replied == number + 1
        if raw.received:
            status, _, received = raw.answer
            assert status == f"HTTP/1.1 200 {FINE}"
            assert received == b""
