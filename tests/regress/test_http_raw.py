"""Group ``http`` through the raw layer: what `HttpServer` and `HttpConnection` do by themselves.

They listen, try again, keep requests in a queue and find out a server by code of their own, and
refuse what evhttp takes; so the tests of the same names don't call these functions of libevent.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from libevent_py import EventBase, ffi, lib
from tests.kit.certificates import Authority
from tests.kit.peers import connected, is_open, rest, run_until
from tests.kit.raw import FromC, timeval
from tests.kit.raw_http import (
    LOCALHOST,
    REQUEST_CALLBACK,
    Asked,
    Site,
    connection,
    exchanged,
    tls,
    until,
)
from tests.kit.regress_http import BODY, CHUNKS, FINE, request
from tests.kit.tls_peers import Contexts
from tests.kit.variants import TICK
from tests.kit.web import parsed

FINE_ANSWER = (200, BODY)


@pytest.fixture
def site(backend_base: EventBase, from_c: FromC) -> Iterator[Site]:
    site = Site(backend_base.pointer, from_c)
    yield site
    if not backend_base.closed:
        site.close()


@pytest.fixture
def contexts(authority: Authority) -> Contexts:
    return Contexts(authority)


def fine(asked: Asked, body: bytes = BODY) -> None:
    """Have the answer be one of the server's, told once, with *body*."""
    ((code, received, headers),) = asked.done
    assert (code, received, asked.errors) == (200, body, [])
    assert "Content-Type" in headers


def test_primitives() -> None:
    """evhttp_set_cb() refuses a path that has a callback, evhttp_del_cb() one that hasn't."""
    http = lib.evhttp_new(ffi.NULL)
    callback = ffi.callback(REQUEST_CALLBACK, lambda *_: None)
    assert lib.evhttp_set_cb(http, b"/test", callback, http) == 0
    assert lib.evhttp_set_cb(http, b"/test", callback, http) == -1
    assert lib.evhttp_del_cb(http, b"/test") == 0
    assert lib.evhttp_del_cb(http, b"/test") == -1
    assert lib.evhttp_set_cb(http, b"/test", callback, http) == 0
    lib.evhttp_free(http)


# Listening.


def test_basic(backend_base: EventBase, site: Site, from_c: FromC) -> None:
    """evhttp_bind_socket_with_handle() listens on several ports, each of which is answered by."""
    second_bound, second = site.bind(0)
    assert second != site.port
    bound: list[Any] = []

    @from_c("evhttp_bound_socket_foreach_fn *")
    def note(each: Any, _arg: Any) -> None:
        bound.append(each)

    lib.evhttp_foreach_bound_socket(site.http, note, ffi.NULL)
    assert bound == [site.bound, second_bound]
    for port in site.port, second:
        status, headers, body = parsed(
            exchanged(backend_base.pointer, from_c, port, request("/test"))
        )
        assert status == f"HTTP/1.1 200 {FINE}"
        assert "Content-Type" in headers
        assert body == BODY
    assert site.told == [(site.http, "127.0.0.1")] * 2  # evhttp_connection_get_server()

    fd = lib.evhttp_bound_socket_get_fd(second_bound)
    lib.evhttp_del_accept_socket(site.http, second_bound)
    with pytest.raises(OSError):
        os.fstat(fd)
    with pytest.raises(ConnectionRefusedError):
        connected(("127.0.0.1", second))


def test_randport(backend_base: EventBase) -> None:
    """evhttp_bind_socket() with 0 takes a port that is free, and a used one is refused."""
    base = backend_base.pointer
    one, other = (lib.evhttp_new(base) for _ in range(2))
    bound = lib.evhttp_bind_socket_with_handle(one, LOCALHOST, 0)
    fd = lib.evhttp_bound_socket_get_fd(bound)
    assert fd == lib.evconnlistener_get_fd(lib.evhttp_bound_socket_get_listener(bound))
    with socket.socket(fileno=os.dup(fd)) as sock:
        address = sock.getsockname()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert address[0] == "127.0.0.1"
    assert lib.evhttp_bind_socket(other, LOCALHOST, address[1]) == -1
    assert ffi.errno == errno.EADDRINUSE
    assert lib.evhttp_bind_socket(other, b"no address at all", 0) == -1
    for http in one, other:
        lib.evhttp_free(http)


def test_highport(backend_base: EventBase) -> None:
    """evhttp_bind_socket() can have one of the highest ports."""
    for port in range(65535, 65485, -1):
        http = lib.evhttp_new(backend_base.pointer)
        result = lib.evhttp_bind_socket(http, LOCALHOST, port)
        if result == 0:
            connected(("127.0.0.1", port)).close()
        lib.evhttp_free(http)
        if result == 0:
            return
    pytest.fail("no high port could be had")


@pytest.mark.parametrize("how", ["accept_socket", "accept_socket_with_handle", "bind_listener"])
def test_accept(backend_base: EventBase, from_c: FromC, how: str) -> None:
    """evhttp answers on a socket, or a listener, that it is given, and closes it in the end."""
    base = backend_base.pointer
    site = Site(base, from_c)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        port = sock.getsockname()[1]
        fd = sock.detach()
    if how == "bind_listener":
        flags = lib.LEV_OPT_CLOSE_ON_FREE
        listener = lib.evconnlistener_new(base, ffi.NULL, ffi.NULL, flags, 0, fd)
        bound = lib.evhttp_bind_listener(site.http, listener)
        assert lib.evhttp_bound_socket_get_listener(bound) == listener
    elif how == "accept_socket":
        assert lib.evhttp_accept_socket(site.http, fd) == 0
    else:
        bound = lib.evhttp_accept_socket_with_handle(site.http, fd)
        assert lib.evhttp_bound_socket_get_fd(bound) == fd
    answer = exchanged(base, from_c, port, request("/test"))
    assert parsed(answer)[2] == BODY
    site.close()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_simple_nonconformant(backend_base: EventBase, site: Site, from_c: FromC) -> None:
    """A space in the URI is sent by the client, and found by the server."""
    evcon = connection(backend_base.pointer, site.port)
    asked = Asked(backend_base, from_c).make(evcon, b"/test nonconformant")
    until(backend_base, lambda: asked.done)
    fine(asked)
    assert site.asked == ["/test nonconformant"]
    lib.evhttp_connection_free(evcon)


# The client.


def test_persist_connection(backend_base: EventBase, site: Site, from_c: FromC) -> None:
    """Requests that wait on one connection are answered in turn; get_server() has none for it."""
    evcon = connection(backend_base.pointer, site.port)
    assert lib.evhttp_connection_get_server(evcon) == ffi.NULL
    assert lib.evhttp_connection_get_base(evcon) == backend_base.pointer
    asked = [Asked(backend_base, from_c).make(evcon) for _ in range(2)]
    asked.append(Asked(backend_base, from_c, Empty="itis").make(evcon))
    until(backend_base, lambda: asked[-1].done)
    for each in asked[:2]:
        fine(each)
    ((code, body, headers),) = asked[-1].done
    assert (code, body, headers["Content-Length"]) == (200, b"", "0")
    assert "Date" in headers
    lib.evhttp_connection_free(evcon)


@pytest.mark.parametrize("kept_alive", [False, True], ids=["", "kept alive"])
def test_autofree_connection(
    backend_base: EventBase, site: Site, from_c: FromC, kept_alive: bool
) -> None:
    """evhttp_connection_free_on_completion() frees a connection once all its requests are done.

    One that is kept alive is freed when the server ends it. What frees a connection lets go of its
    bufferevent, of which the last reference is that of the test then.
    """
    evcon = connection(backend_base.pointer, site.port)
    bev = lib.evhttp_connection_get_bufferevent(evcon)
    lib.bufferevent_incref(bev)
    lib.evhttp_set_timeout_tv(site.http, timeval(0.05))
    headers = {"Empty": "itis"} | ({} if kept_alive else {"Connection": "close"})
    asked = [Asked(backend_base, from_c, **headers) for _ in range(2)]
    for each in asked:
        each.make(evcon)
    lib.evhttp_connection_free_on_completion(evcon)
    until(backend_base, lambda: asked[0].done)
    until(backend_base, lambda: asked[1].done)
    if kept_alive:
        fd = lib.bufferevent_getfd(bev)
        assert fd >= 0
        until(backend_base, lambda: not is_open(fd))
    for _ in range(5):
        backend_base.loop(lib.EVLOOP_NONBLOCK)
    for each in asked:
        ((code, body, _headers),) = each.done
        assert (code, body) == (200, b"")
    assert site.asked == ["/test"] * 2
    assert lib.bufferevent_decref(bev) == 1
    backend_base.loop(lib.EVLOOP_NONBLOCK)


def refused(port: int, base: EventBase, from_c: FromC, evcon: Any) -> float:
    """Ask where nobody listens; return how long it took until that was told, once."""
    asked = Asked(base, from_c).make(evcon, b"/?arg=val")
    begun = time.monotonic()
    until(base, lambda: asked.done)
    took = time.monotonic() - begun
    ((code, body, headers),) = asked.done
    assert (code, body, headers) == (0, b"", {})
    return took


def test_connection_retry(backend_base: EventBase, from_c: FromC) -> None:
    """A connection is tried again as often, and after as long, as it is told, each time twice that.

    Each on a connection of its own: libevent forgets what is asked on one that has been refused.
    """
    base = backend_base.pointer
    with socket.socket() as holder:  # keeps the port from others
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]

        evcon = connection(base, port)
        lib.evhttp_connection_set_local_address(evcon, LOCALHOST)
        assert refused(port, backend_base, from_c, evcon) < 0.1 + 10 * TICK
        lib.evhttp_connection_free(evcon)

        for retries, waits in (1, 0.05), (2, 0.05 + 0.1):
            evcon = connection(base, port)
            lib.evhttp_connection_set_initial_retry_tv(evcon, timeval(0.05))
            lib.evhttp_connection_set_retries(evcon, retries)
            assert refused(port, backend_base, from_c, evcon) >= waits - TICK
            lib.evhttp_connection_free(evcon)

        evcon = connection(base, port)
        lib.evhttp_connection_set_initial_retry_tv(evcon, timeval(0.05))
        lib.evhttp_connection_set_retries(evcon, 3)
        asked = Asked(backend_base, from_c).make(evcon, b"/?arg=val")
        sites: list[Site] = []

        def begin(_fd: int, _what: int) -> None:
            site = Site(base, from_c)
            lib.evhttp_del_accept_socket(site.http, site.bound)
            site.bind(port)
            sites.append(site)

        backend_base.once(begin, timeout=0.07)
        begun = time.monotonic()
        until(backend_base, lambda: asked.done)
        assert time.monotonic() - begun >= 0.05 + 0.1 - TICK
        fine(asked)
        assert sites[0].asked == ["/?arg=val"]
        lib.evhttp_connection_free(evcon)
        sites[0].close()


def test_cancel(backend_base: EventBase, site: Site, from_c: FromC) -> None:
    """evhttp_cancel_request() has its error told, never its callback called."""
    base = backend_base.pointer
    evcon = connection(base, site.port)
    waiting = [Asked(backend_base, from_c).make(evcon) for _ in range(2)]
    last = Asked(backend_base, from_c).make(evcon)
    lib.evhttp_cancel_request(waiting[1].request)  # while it waits for its turn
    until(backend_base, lambda: last.done)
    fine(waiting[0])
    fine(last)
    lib.evhttp_cancel_request(Asked(backend_base, from_c).make(evcon).request)
    again = Asked(backend_base, from_c).make(evcon)
    until(backend_base, lambda: again.done)
    fine(again)
    assert waiting[1].done == []
    assert waiting[1].errors in ([], [lib.EVREQ_HTTP_REQUEST_CANCEL])
    lib.evhttp_connection_free(evcon)


def test_close_detection(backend_base: EventBase, site: Site, from_c: FromC) -> None:
    """A connection that the server has closed meanwhile is made anew."""
    evcon = connection(backend_base.pointer, site.port)
    lib.evhttp_set_timeout_tv(site.http, timeval(0.05))
    closed: list[Any] = []

    @from_c("void(struct evhttp_connection *, void *)")
    def on_close(connection: Any, _arg: Any) -> None:
        closed.append(connection)

    lib.evhttp_connection_set_closecb(evcon, on_close, ffi.NULL)
    first = Asked(backend_base, from_c).make(evcon)
    until(backend_base, lambda: first.done and closed)
    second = Asked(backend_base, from_c).make(evcon)
    until(backend_base, lambda: second.done)
    fine(first)
    fine(second)
    lib.evhttp_connection_free(evcon)


# TLS.


@pytest.mark.parametrize("filtering", [False, True], ids=["", "filter"])
def test_https_chunk_out(
    backend_base: EventBase, from_c: FromC, contexts: Contexts, filtering: bool
) -> None:
    """An answer in chunks comes by TLS, to a bufferevent and then twice to a connection.

    `HttpConnection` takes no filter, as a connection that has been reset would close its
    descriptor twice; these aren't.
    """
    base = backend_base.pointer
    site = Site(base, from_c, contexts)
    client = connected(("127.0.0.1", site.port))
    client.setblocking(False)
    bev = tls(
        base,
        client.detach(),
        contexts.client,
        lib.BUFFEREVENT_SSL_CONNECTING,
        filtering=filtering,
    )
    status, headers, body = parsed(exchanged(base, from_c, site.port, request("/chunked"), bev=bev))
    assert status == f"HTTP/1.1 200 {FINE}"
    assert headers["Transfer-Encoding"] == "chunked"
    assert body == b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*CHUNKS, b""))

    bev = tls(base, -1, contexts.client, lib.BUFFEREVENT_SSL_CONNECTING, filtering=filtering)
    evcon = connection(base, site.port, bev=bev)
    for _ in range(2):
        asked = Asked(backend_base, from_c).make(evcon, b"/chunked")
        until(backend_base, lambda asked=asked: asked.done)  # type: ignore[misc]
        fine(asked, b"".join(CHUNKS))
        assert asked.done[0][2]["Transfer-Encoding"] == "chunked"
    lib.evhttp_connection_free(evcon)
    site.close()


def test_close_ends_what_is_sent(backend_base: EventBase, site: Site) -> None:
    """evhttp_free() closes the connections that clients have."""
    with connected(("127.0.0.1", site.port)) as sock:
        sock.sendall(request("/test").replace(b"Connection: close\r\n", b""))
        run_until(backend_base, lambda: site.asked)
        site.close()
        backend_base.loop(lib.EVLOOP_NONBLOCK)
        answer = rest(sock)
        backend_base.close()
    assert answer == b"" or parsed(answer)[2] == BODY
