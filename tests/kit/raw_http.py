"""What tests of HTTP through the raw layer share: evhttp's own server, and requests to it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from libevent_py import EventBase, TlsContext, ffi, lib
from tests.kit.raw import FromC, add, copied, evbuffer, timeval
from tests.kit.regress_http import BODY, CHUNKS, FINE
from tests.kit.tls_peers import Contexts

REQUEST_CALLBACK = "void(struct evhttp_request *, void *)"
LOCALHOST = b"127.0.0.1"


class Site:
    """evhttp's server with some of the handlers of libevent's tests, of HTTPS with *contexts*."""

    def __init__(self, base: Any, from_c: FromC, contexts: Contexts | None = None) -> None:
        self.base = base
        self.http = lib.evhttp_new(base)
        assert self.http
        self.bound, self.port = self.bind(0)
        self.asked: list[str] = []
        #: evhttp_connection_get_server(), and the peer's address, for each request.
        self.told: list[tuple[Any, str]] = []
        if contexts is not None:
            context = contexts.server

            @from_c("struct bufferevent *(struct event_base *, void *)", ffi.NULL)
            def make(base: Any, _arg: Any) -> Any:
                return tls(base, -1, context, lib.BUFFEREVENT_SSL_ACCEPTING)

            lib.evhttp_set_bevcb(self.http, make, ffi.NULL)
        self.handler = from_c(REQUEST_CALLBACK)(self._answer)
        for path in (b"/test", b"/test nonconformant", b"/chunked", b"/"):
            assert lib.evhttp_set_cb(self.http, path, self.handler, ffi.NULL) == 0

    def bind(self, port: int) -> tuple[Any, int]:
        """Listen on one *port* more; return the bound socket, and its port."""
        bound = lib.evhttp_bind_socket_with_handle(self.http, LOCALHOST, port)
        assert bound
        with socket.socket(fileno=os.dup(lib.evhttp_bound_socket_get_fd(bound))) as sock:
            return bound, sock.getsockname()[1]

    def _answer(self, request: Any, _arg: Any) -> None:
        uri = ffi.string(lib.evhttp_request_get_uri(request)).decode()
        self.asked.append(uri)
        connection = lib.evhttp_request_get_connection(request)
        address, port = ffi.new("char **"), ffi.new("ev_uint16_t *")
        lib.evhttp_connection_get_peer(connection, address, port)
        peer = ffi.string(address[0]).decode()
        self.told.append((lib.evhttp_connection_get_server(connection), peer))
        if uri == "/chunked":
            lib.evhttp_send_reply_start(request, 200, FINE.encode())
            for chunk in CHUNKS:
                lib.evhttp_send_reply_chunk(request, evbuffer(chunk))
            lib.evhttp_send_reply_end(request)
            return
        headers = lib.evhttp_request_get_input_headers(request)
        empty = lib.evhttp_find_header(headers, b"Empty")
        body = evbuffer(b"" if empty else BODY)
        lib.evhttp_send_reply(request, 200, FINE.encode(), body)

    def close(self) -> None:
        """End the server and its connections."""
        lib.evhttp_free(self.http)


def tls(base: Any, fd: int, context: TlsContext, state: int, *, filtering: bool = False) -> Any:
    """Return a bufferevent for TLS, as a filter or not, whose peer may end without notice."""
    ssl = lib.SSL_new(context.pointer)
    options = lib.BEV_OPT_DEFER_CALLBACKS | lib.BEV_OPT_CLOSE_ON_FREE
    if filtering:
        below = lib.bufferevent_socket_new(base, fd, options)
        bev = lib.bufferevent_openssl_filter_new(base, below, ssl, state, options)
    else:
        bev = lib.bufferevent_openssl_socket_new(base, fd, ssl, state, options)
    assert bev
    lib.bufferevent_openssl_set_allow_dirty_shutdown(bev, 1)
    return bev


class Asked:
    """A request, and what its callback has found: the code, the body and headers by name."""

    def __init__(self, base: EventBase, from_c: FromC, **headers: str) -> None:
        self.base = base
        self.done: list[tuple[int, bytes, dict[str, str]]] = []
        self.errors: list[int] = []
        callback = from_c(REQUEST_CALLBACK)(self._done)
        failed = from_c("void(enum evhttp_request_error, void *)")(self._failed)
        self.request = lib.evhttp_request_new(callback, ffi.NULL)
        assert self.request
        lib.evhttp_request_set_error_cb(self.request, failed)
        given = lib.evhttp_request_get_output_headers(self.request)
        for name, value in {"Host": "somehost", **headers}.items():
            assert lib.evhttp_add_header(given, name.encode(), value.encode()) == 0

    def _done(self, request: Any, _arg: Any) -> None:
        if not request:
            self.done.append((-1, b"", {}))
            return
        headers = lib.evhttp_request_get_input_headers(request)
        found = {}
        for name in (b"Content-Type", b"Date", b"Content-Length", b"Transfer-Encoding"):
            if value := lib.evhttp_find_header(headers, name):
                found[name.decode()] = ffi.string(value).decode()
        body = copied(lib.evhttp_request_get_input_buffer(request))
        self.done.append((lib.evhttp_request_get_response_code(request), body, found))

    def _failed(self, error: int, _arg: Any) -> None:
        self.errors.append(error)

    def make(self, connection: Any, uri: bytes = b"/test") -> Asked:
        """Make the request, which *connection* owns from now on."""
        assert lib.evhttp_make_request(connection, self.request, lib.EVHTTP_REQ_GET, uri) == 0
        return self


def connection(base: Any, port: int, *, bev: Any = ffi.NULL, timeout: float = 10) -> Any:
    """Return an evhttp connection to *port*."""
    made = lib.evhttp_connection_base_bufferevent_new(base, ffi.NULL, bev, LOCALHOST, port)
    assert made
    lib.evhttp_connection_set_timeout_tv(made, timeval(timeout))
    return made


def exchanged(base: Any, from_c: FromC, port: int, said: bytes, *, bev: Any = None) -> bytes:
    """Return what comes back until the other end closes, by a bufferevent of libevent's."""
    if bev is None:
        bev = lib.bufferevent_socket_new(base, -1, lib.BEV_OPT_CLOSE_ON_FREE)
        where = socket.AF_INET, LOCALHOST, port
        assert lib.bufferevent_socket_connect_hostname(bev, ffi.NULL, *where) == 0
    received: list[bytes] = []

    @from_c("bufferevent_event_cb")
    def ended(bev: Any, what: int, _arg: Any) -> None:
        if what & (lib.BEV_EVENT_EOF | lib.BEV_EVENT_ERROR):
            received.append(copied(lib.bufferevent_get_input(bev)))
            assert lib.event_base_loopexit(base, ffi.NULL) == 0

    lib.bufferevent_setcb(bev, ffi.NULL, ffi.NULL, ended, ffi.NULL)
    assert lib.bufferevent_enable(bev, lib.EV_READ | lib.EV_WRITE) == 0
    add(lib.bufferevent_get_output(bev), said)
    assert lib.event_base_dispatch(base) == 0
    lib.bufferevent_free(bev)
    (answer,) = received
    return answer


def until(base: EventBase, condition: Callable[[], object]) -> None:
    """Run the loop until *condition* holds."""
    while not condition():
        base.loop(lib.EVLOOP_ONCE)
