"""What there is to say of HTTP servers, their connections and clients' in `EventBase.explain`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from libevent_py._ffi import ffi, lib
from libevent_py.event.descriptor import own_address, peer_address
from libevent_py.event.explain import Holder, Sight, counted, explains
from libevent_py.http.client import HttpConnection
from libevent_py.http.server import HttpServer

if TYPE_CHECKING:
    from libevent_py._ffi import CData
    from libevent_py.http.request import HttpRequest
    from libevent_py.http.server_connection import HttpServerConnection

TIMER = "timer for a timeout, or to try again"


@explains(HttpServer)
def http_server(server: HttpServer) -> Iterator[Holder]:
    """Yield *server* with its listening sockets, and each of its connections."""
    name = f"HttpServer #{server._key}"
    listeners = [bound._listener.pointer for bound in server._bound]
    ports = [own_address(lib.evconnlistener_get_fd(listener)) for listener in listeners]
    waiting = len(server._requests.waiting)
    notes = [f"{counted(waiting, 'request')} to be answered: send_reply()"] if waiting else []

    def claims(sight: Sight) -> Holder | None:
        """Return a holder for a connection that nobody has asked for: C alone knows it."""
        if sight.kind != lib.EVPY_OF_BUFFEREVENT or sight.fd < 0 or not _is_at(sight.fd, ports):
            return None
        place = ffi.cast("void *", sight.arg)
        told = f"HttpServerConnection from {peer_address(sight.fd)} of {name}"
        return Holder("HTTP server connection", told, places=(place,), timer=TIMER)

    on = f" on {', '.join(map(str, ports))}" if ports else ""
    yield Holder("HTTP server", f"{name}{on}", places=listeners, notes=notes, claims=claims)
    for connection in sorted(server._connections.known.values(), key=lambda one: one._key):
        if not connection.closed:
            yield _accepted(connection, name)


def _is_at(fd: int, ports: list[str | None]) -> bool:
    """Tell whether the socket *fd* was accepted at one of *ports*, also one for all addresses."""
    own = own_address(fd) or ""
    host, _, number = own.rpartition(":")
    everywhere = {f"0.0.0.0:{number}", f"[::]:{number}"} if host else set()
    return own in ports or not everywhere.isdisjoint(map(str, ports))


def _accepted(connection: HttpServerConnection, server: str) -> Holder:
    evcon = connection.pointer
    bev = lib.evhttp_connection_get_bufferevent(evcon)
    name = f"HttpServerConnection #{connection._key}"
    if bev:
        name += f" from {peer_address(lib.bufferevent_getfd(bev))}"
    notes = list(_buffers(bev))
    if connection._reading is not None:
        notes.append("reads a request")
    return Holder(
        "HTTP server connection",
        f"{name} of {server}",
        places=(evcon, bev),
        notes=notes,
        timer=TIMER,
    )


@explains(HttpConnection)
def http_connection(connection: HttpConnection) -> Iterator[Holder]:
    """Yield *connection* with its queue."""
    yield client(connection, connection.pointer)


def client(connection: HttpConnection, evcon: CData, owner: str = "") -> Holder:
    """Return what holds the events of *connection*, which is *evcon* in C."""
    bev = lib.evhttp_connection_get_bufferevent(evcon)
    queue = connection._queue
    host, port = connection._address
    told = [f"HttpConnection #{connection._key} to {host}:{port}{owner}"]
    if connection._tls is not None:
        told.append("TLS")
    told.append(f"{counted(len(queue.waiting), 'request')} queued")
    notes = list(_buffers(bev))
    if queue.current is not None:
        notes.insert(0, f"under way: {_asked(queue.current)}")
    timer = queue.timer
    if timer is not None:
        notes.append(f"connecting is tried again: {queue.tries} times so far")
    keys = () if timer is None else (timer._key,)
    return Holder(
        "HTTP connection",
        ", ".join(told),
        places=(evcon, bev),
        keys=keys,
        notes=notes,
        timer=TIMER,
    )


def _asked(request: HttpRequest) -> str:
    if request._asked is None:
        return f"HttpRequest #{request._key}"
    command, uri = request._asked
    return f"HttpRequest #{request._key}, {command.names} {uri.decode('latin-1')!r}"


def _buffers(bev: CData) -> Iterator[str]:
    """Yield what waits in the buffers of C's *bev*, if there is one."""
    if bev and (size := lib.evbuffer_get_length(bev.output)):
        yield f"{size} bytes to write"
    if bev and (size := lib.evbuffer_get_length(bev.input)):
        yield f"{size} bytes that have been read wait: it is paused, or its request isn't complete"
