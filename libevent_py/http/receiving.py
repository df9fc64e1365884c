"""How a server receives requests: each becomes an object, and is known until it is answered.

C calls when headers have come, when a part of a body has, when the whole request has, and when its
answer has been written.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final, Protocol

from libevent_py import errors
from libevent_py._core.dispatch import from_c, keep_late, live
from libevent_py._core.frames import came_at_entry, goes_on
from libevent_py._core.handle import Handle
from libevent_py._ffi import ffi, lib
from libevent_py.event.base import EventBase
from libevent_py.http.at_last import free_orphan
from libevent_py.http.server_connection import (
    Connections,
    HttpServerConnection,
    address_of,
    free_all,
)
from libevent_py.http.server_request import (
    ANSWERED,
    READING,
    UNANSWERED,
    HttpHandler,
    HttpServerRequest,
    made,
)

if TYPE_CHECKING:
    from libevent_py._ffi import CData
    from libevent_py.http.server import HttpServer


class Guest(Protocol):
    """An object with its own requests on a server, which must end before the server does."""

    def requests(self) -> list[CData]:
        """Return C's pointers to its requests that are not answered yet."""

    def end(self, evcon: CData) -> None:
        """End its requests on the connection *evcon*, which is about to be freed."""

    def free(self) -> None:
        """Free the requests of a server that is about to be freed."""


class Requests:
    """The requests of a server: the one that is being handled, and those that wait for an answer.

    The server doesn't keep waiting requests alive: their user does. A dropped request is answered
    by us, as its client would wait for ever (O3).
    """

    __slots__ = ("_base", "_connections", "current", "guests", "waiting")

    def __init__(self, base: EventBase, connections: Connections) -> None:
        self._base = base
        self._connections = connections
        #: The request whose handler or other callback is running, or None.
        self.current: HttpServerRequest | None = None
        #: RPC servers, whose own requests must end before the server does (R2).
        self.guests: list[Guest] = []
        #: Weak references to the requests that wait for an answer, and their pointers, by key.
        self.waiting: dict[int, tuple[weakref.ref[HttpServerRequest], CData]] = {}

    def dropped(self, key: int, _ref: object) -> None:
        """Answer the request *key*, which its user has dropped."""
        if key in self.waiting:
            try:
                self._base._bury(key, self._abandon, key)
            except BaseException as error:
                if came_at_entry(error):
                    self._base._bury(key, self._abandon, key)
                raise

    @goes_on
    def _abandon(self, key: int) -> None:
        # Its connection may have been freed meanwhile; with the base, nobody can answer.
        if key not in self.waiting or self._base.closed:
            return
        pointer, abandon = self.waiting[key][1], lib.evpy_http_abandon
        evcon = lib.evhttp_request_get_connection(pointer)
        connection = self._connections.known.get(address_of(evcon)) if evcon else None
        if connection is not None and connection._ending is not None:
            connection._ending.fails("it was dropped before its answer was complete")
        if key in self.waiting:  # other code may have ended it
            try:
                del self.waiting[key]  # no call from here to the next line
                abandon(pointer)
                free_orphan(self._base, pointer)
            except BaseException:  # an interrupt
                free_orphan(self._base, pointer)
                raise

    def _lent(self) -> list[Handle]:
        """Return the requests that still exist, with the buffers borrowed from them."""
        found = [ref() for ref, _ in list(self.waiting.values())]
        alive = [request for request in (*found, self.current) if request is not None]
        return [handle for request in alive for handle in (*request._lent(), request)]

    def end_current(self, evcon: CData) -> None:
        """End the request that is being handled if it came by the connection *evcon*."""
        current = self.current
        if current is not None and not current.closed and current._is_on(evcon):
            current._end()

    def end(self, evcon: CData) -> None:
        """End the requests of the connection *evcon*, which is about to be freed with them."""
        for guest in list(self.guests):
            guest.end(evcon)
        for key, (ref, pointer) in self.waiting.copy().items():
            if key not in self.waiting:  # other code has answered it meanwhile
                continue
            if lib.evhttp_request_get_connection(pointer) == evcon:
                self.waiting.pop(key, None)
                request = ref()
                if request is not None:
                    request._end()

    def mute(self) -> None:
        """Stop sending to the clients of unanswered requests."""
        pointers = [pointer for _, pointer in list(self.waiting.values())]
        if self.current is not None and not self.current.closed:
            pointers.append(self.current.pointer)
        for guest in self.guests:
            pointers += guest.requests()
        for pointer in pointers:
            evcon = lib.evhttp_request_get_connection(pointer)
            if evcon:
                lib.evpy_http_mute(evcon)

    def free_orphans(self) -> None:
        """Free the requests whose clients have gone; C frees the others with the server."""
        for guest in list(self.guests):
            guest.free()
        free_all(self.waiting, lib.evpy_http_free_orphan)


# What C calls.


class Route:
    """The handler that C calls for a path, or for all other paths."""

    __slots__ = ("handler", "on_end", "server")

    def __init__(
        self, server: HttpServer, handler: HttpHandler, on_end: HttpHandler | None
    ) -> None:
        self.server: HttpServer = server
        self.handler: HttpHandler = handler
        self.on_end: HttpHandler | None = on_end


def _all_read(
    root: HttpServer, server: HttpServer, pointer: CData, begun: CData
) -> tuple[HttpServerConnection | None, HttpServerRequest | None]:
    """Return the connection, if known, and the request *pointer* if *server* has to handle it.

    The whole body has come. If `on_headers` has not been called for it, it is called now. *begun*
    says how far an earlier call has come that an interrupt has ended.
    """
    where = address_of(lib.evhttp_request_get_connection(pointer))
    known = root._connections.known
    connection = known.get(where)
    request = None if connection is None else connection._reading
    if request is None and (connection is None or not connection.closed):
        request = _read_late(root, pointer, begun)
        connection = known.get(where)
    cut = connection is not None and connection.closed
    if request is not None and request.closed:
        request = None
    elif request is not None and cut:
        request._end()
        request = None
    if request is not None:
        request._state = UNANSWERED
        request.server = server
    return connection, request


def _read_late(root: HttpServer, pointer: CData, begun: CData) -> HttpServerRequest:
    """Call `on_headers` and `on_chunk` for C's request *pointer*, which has come as a whole.

    *begun* gets `HEARD` and `DELIVERED`, so that each is called once in spite of an interrupt.
    """
    request = root._requests.current
    if request is None or begun[0] == 0:
        request = root._requests.current = made(root.base, root, root, pointer)
        request._state = READING
        try:
            request._tell_headers()
        except BaseException as interrupt:
            keep_late(interrupt, HttpServerRequest._tell_headers)
        begun[0] = HEARD
    if request._on_chunk is not None and not request._is_cut():
        if begun[0] == HEARD:
            try:
                request._part_came()
            except BaseException as interrupt:
                keep_late(interrupt, HttpServerRequest._part_came)
            begun[0] = DELIVERED
        if not request._is_cut():
            request.input_buffer.drain(len(request.input_buffer))
    return request


#: What `evpy_http_request` says of a request: it is taken; its headers are told; its body is, too.
TAKEN: Final = int(lib.EVPY_TAKEN)
HEARD, DELIVERED = TAKEN + 1, TAKEN + 2


# hot: called for every request; and of a `Route`, which has no base to tell.
@ffi.def_extern(onerror=errors.kept)
def evpy_http_request(key: int, pointer: CData, begun: CData) -> None:
    """Handle the request; set *begun* to `TAKEN`, or C calls once more, and then answers it."""
    route = live.objects.get(key)
    if route is None:  # the server is closed, and about to be freed with its requests
        begun[0] = TAKEN
        return
    server = root = route.server
    while root._parent is not None:
        root = root._parent
    doomed, requests = root._connections.doomed, root._requests
    if doomed and address_of(lib.evhttp_request_get_connection(pointer)) in doomed:
        begun[0] = TAKEN
        return  # the connection is closed, too, and about to be freed
    if root._streams:
        connection, request = _all_read(root, server, pointer, begun)
        begun[0] = TAKEN
        if connection is not None:
            connection._reading = None
        if request is None:  # on_headers or on_chunk has closed the connection
            requests.current = None
            return
    else:
        request = made(server.base, server, root, pointer)
        begun[0] = TAKEN  # no call from here to the try, which answers for a handler that raises
    requests.current = request
    try:
        if request.error is not None:
            request._fail(request.error)
            return
        if route.on_end is not None:
            request.on_end = route.on_end
        route.handler(request)
        if request._state != ANSWERED and request._is_waiting():
            request._wait(pointer)
    except BaseException as error:
        try:
            request._raised(error)
        except BaseException as interrupt:
            request._raised(interrupt)
    finally:
        requests.current = None


@from_c(late=1, raised=0)
def evpy_http_headers(connection: HttpServerConnection, pointer: CData) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    if not connection.closed:
        server = connection.server
        request = connection._reading = made(server.base, server, server, pointer)
        request._state = READING
        try:
            request._tell_headers()
        except BaseException as interrupt:
            keep_late(interrupt, HttpServerRequest._tell_headers)
    return 1


@from_c(late=1, raised=0)
def evpy_http_part(connection: HttpServerConnection) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    if connection._reading is not None:
        try:
            connection._reading._part_came()
        except BaseException as interrupt:
            keep_late(interrupt, HttpServerRequest._part_came)
    return 1


# hot: called for every request whose end somebody is told of.
@ffi.def_extern(onerror=errors.kept)
def evpy_http_completed(key: int, pointer: CData) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    connection = live.objects.get(key)
    if connection is None:
        return 1
    reading = connection._reading
    if reading is not None:  # no handler got the request
        code = int(pointer.response_code)
        reading._ends(f"libevent has answered it with {code}")
    if connection._awaiting is not None:
        request, connection._awaiting = connection._awaiting, None
        if request._on_complete is not None:  # other code may have taken it back
            request._told(pointer, request._on_complete)
    ending = connection._ending
    if ending is not None:
        ending.tell(None)
        if connection._ending is ending:
            connection._ending = None
    if reading is not None:
        if connection._reading is reading:
            connection._reading = None
        reading._end()
    return 1
