"""A connection to an HTTP server, and the requests that wait for an answer.

libevent frees a connection whenever it has to, and then calls its close callback. So that is set
for each connection that somebody has asked for, and its object is live until then. For the others,
nearly all, nothing is made: a request can be asked whether its connection is still there.
"""

from __future__ import annotations

import functools
import os
import socket
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.described import described
from libevent_py._core.dispatch import live, next_key
from libevent_py._core.handle import Handle
from libevent_py._core.owner import askable
from libevent_py._core.pointers import copied
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.http.end import GONE
from libevent_py.http.flow import Flow

if TYPE_CHECKING:
    from libevent_py.http.end import Ending
    from libevent_py.http.server_request import HttpServerRequest


#: What C returns for a request that nobody in C has any more.
ORPHAN = lib.EVPY_ORPHAN


class Held:
    """The requests of a server that have been left unanswered for now.

    Nobody has to keep the server's requests for it, but their user does: one that is dropped is
    answered for them, or its client would wait for ever (O3).
    """

    __slots__ = ("base", "connections", "guests", "requests")

    def __init__(self, base: Any, connections: dict[int, HttpServerConnection]) -> None:
        self.base = base
        #: The connections that somebody has asked for, by where they are in C.
        self.connections = connections
        #: What has requests of its own here, which must end before: RPC servers (R2).
        self.guests: list[Any] = []
        self.requests: dict[int, tuple[weakref.ref[HttpServerRequest], Any]] = {}

    def add(self, request: HttpServerRequest, pointer: Any) -> None:
        """Answer *request* when its user drops it."""
        key = next_key()
        ref = weakref.ref(request, functools.partial(self._dropped, key))
        self.requests[key] = ref, copied(pointer)  # which is nobody's on the way to C
        request.key = key

    def _dropped(self, key: int, _ref: Any) -> None:
        if key in self.requests:
            self.base.bury(key, self._abandon, key)

    def _abandon(self, key: int) -> None:
        # Its connection may have been freed meanwhile; with the base, nobody can answer.
        if key in self.requests and not self.base.closed:
            pointer = self.requests.pop(key)[1]
            evcon = lib.evhttp_request_get_connection(pointer)
            connection = self.connections.get(address_of(evcon)) if evcon else None
            if connection is not None and connection.ending is not None:
                connection.ending.fails("it was dropped before its answer was complete")
            if lib.evpy_http_abandon(pointer) == ORPHAN:
                free_orphan(self.base, pointer)

    def alive(self) -> list[HttpServerRequest]:
        """Return those that somebody holds."""
        found = [ref() for ref, _ in list(self.requests.values())]
        return [request for request in found if request is not None]

    def end(self, evcon: Any) -> None:
        """End those of the connection *evcon*, which is about to be freed with them."""
        for guest in list(self.guests):
            guest.end(evcon)
        for key, (ref, pointer) in self.requests.copy().items():
            if key not in self.requests:  # other code has answered it meanwhile
                continue
            if lib.evhttp_request_get_connection(pointer) == evcon:
                self.requests.pop(key, None)
                request = ref()
                if request is not None:
                    request._end()

    def free_orphans(self) -> None:
        """Free those whose clients have gone, as the rest is freed with the server."""
        for guest in list(self.guests):
            guest.free()
        for _, (_, pointer) in taken_out(self.requests):
            lib.evpy_http_free_orphan(pointer)


@described(
    base="The event base in whose loop it is served.",
    server="The `HttpServer` that has accepted it.",
)
class HttpServerConnection(Flow):
    """A connection that a server has accepted, with one request after the other.

    It ends when libevent frees it: after the last reply, or when the client has gone.
    """

    __slots__ = (
        "_bev",
        "_flow",
        "_limited",
        "_on_close",
        "_paused",
        "awaiting",
        "base",
        "ending",
        "key",
        "reading",
        "server",
        "where",
        "writing",
    )

    def __init__(self, server: Any, pointer: Any, bev: BufferEvent | None = None) -> None:
        self.base = server.base
        self.server = server
        self.key = next_key()
        self._bev = bev
        self._limited: BufferEvent | None = None
        self._paused = False
        self._on_close: Callable[[Any], object] | None = None
        #: The request whose headers have come, but not yet all of its body, or None.
        self.reading: HttpServerRequest | None = None
        #: Who is to be told how its request ends, or None.
        self.ending: Ending | None = None
        #: The request that has been answered and waits to be told so, or None.
        self.awaiting: HttpServerRequest | None = None
        #: What to call when the last chunk has been written, and of which request, or None.
        self.writing: tuple[Callable[[Any], object], HttpServerRequest] | None = None
        super().__init__(pointer)
        #: Where C's object is: what the server knows it by.
        self.where = address_of(pointer)
        #: What C keeps of it until its end.
        self._flow = errors.new(lib.evpy_http_watch, pointer, self.key)
        server.connections[self.where] = self
        self.base.live[self.key] = self
        if server.closed:  # by other code, which did not know of this
            self.base.live.pop(self.key, None)
            server.connections.pop(self.where, None)
            self.end()

    def _may_ask(self) -> bool:
        return askable(self.base)

    def _facts(self, ask: bool) -> Iterator[str]:
        if ask:
            yield f"fd {lib.bufferevent_getfd(lib.evhttp_connection_get_bufferevent(self.pointer))}"
            host, port = self.peer
            yield f"from {host}:{port}"

    def _unusable(self) -> Exception:
        return self.base.why_unusable(self) or super()._unusable()

    def lent(self) -> list[Handle]:
        """Return what ends with it: the bufferevent, once it has been asked for, its buffers, and
        the request that is being read.
        """
        reading = self.reading
        request = [] if reading is None else [*reading.lent(), reading]
        return request if self._bev is None else [self._bev, *self._bev.lent(), *request]

    @property
    def peer(self) -> tuple[str, int]:
        """The client's address as libevent knows it: a numeric host, and a port.

        Wraps ``evhttp_connection_get_peer``.
        """
        host, port = ffi.new("char **"), ffi.new("ev_uint16_t *")
        lib.evhttp_connection_get_peer(self.pointer, host, port)
        return convert.text(host[0]), int(port[0])

    @property
    def address(self) -> convert.Address:
        """The client's address as Python writes it, "" for a client without one, as by AF_UNIX.

        Wraps ``evhttp_connection_get_addr``.
        """
        address = lib.evhttp_connection_get_addr(self.pointer)
        if not address or address.sa_family not in (socket.AF_INET, socket.AF_INET6):
            return ""
        return convert.unpack_address(address, ffi.sizeof("struct sockaddr_in6"))

    @property
    def bufferevent(self) -> BufferEvent:
        """The `BufferEvent` that it goes through, which ends with it, and is for asking only.

        Whatever would use it, or its buffers, raises `ValueError`: answer by
        `HttpServerRequest.send_reply` and its kind, and set `HttpServer.timeout`.
        Wraps ``evhttp_connection_get_bufferevent``.
        """
        self.base.check_thread()
        pointer = self.pointer
        if self._bev is None:
            bev = lib.evhttp_connection_get_bufferevent(pointer)
            self._bev = BufferEvent._borrowed(self.base, bev, self)
        return self._bev

    @property
    def on_close(self) -> Callable[[Any], object] | None:
        """What is called as ``on_close(connection)`` when libevent has closed it, or None.

        By then it is closed. It isn't called where you close the connection or the server.
        Wraps ``evhttp_connection_set_closecb``.
        """
        return self._on_close

    @on_close.setter
    def on_close(self, callback: Callable[[Any], object] | None) -> None:
        self.pointer  # noqa: B018  (a closed one will not call)
        self._on_close = None if callback is None else convert.callback(callback, "on_close")

    def close(self) -> None:
        """Close the connection; a reply that has not been written is lost. A second time does
        nothing.

        Unlike in C, it may be called anywhere: inside callbacks C's object is freed later (O6, O7).
        Requests of it that wait for an answer are closed, after their `HttpServerRequest.on_end`.
        Wraps ``evhttp_connection_free``.
        """
        if self.closed:
            return
        base = self.base
        base.check_thread()
        self.pointer  # noqa: B018  (in a forked child it is the parent's)
        pointer = None
        try:
            pointer = self.end()
        finally:
            if pointer is not None:  # or other code has closed it in between
                ending, self.ending = self.ending, None
                self.server.doom(pointer, ending)

    def adopt(self, bev: BufferEvent) -> None:
        """Have *bev* for its bufferevent, instead of an object of its own for the same."""
        limit = group = None
        if self._limited is not None:
            limit, group = self.rate_limit, self.rate_limit_group
            self._forget_limits()
        if self._bev is not None:
            self._bev._taken_back()
        self._bev = bev
        if limit is not None:
            self.rate_limit = limit
        if group is not None:
            self.rate_limit_group = group

    def end(self) -> Any:
        """Be closed, and whatever belongs to it; return the pointer to the first who calls it."""
        self._forget_limits()
        for handle in self.lent():
            handle._take()
        if self._bev is not None:
            self._bev._taken_back()
        self.awaiting = self.writing = self.reading = self._limited = None
        return self._take()

    def gone(self) -> None:
        """Know that C frees its object now."""
        told = not self.closed
        ending, self.ending = self.ending, None
        self.end()
        if ending is not None and not self.base.collected:
            ending.tell(GONE)
        if told and self._on_close is not None and not self.base.collected:
            self._on_close(self)  # the collector may have finalized what it would use


def free_orphan(base: Any, pointer: Any) -> None:
    """Free C's request *pointer*, which is an `ORPHAN`, as soon as no method can be about it."""
    if base.busy():
        base.graveyard.append((lib.evpy_http_free_orphan, pointer))
        base.wake()
    else:
        lib.evpy_http_free_orphan(pointer)


def taken_out(things: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the items of *things*, each out of it by then, whatever other code does meanwhile."""
    while True:
        try:
            item = things.popitem()
        except KeyError:
            return
        yield item


def write_at_last(base: Any, evcon: Any) -> None:
    """Have what C's connection *evcon* is about to be given written, even if the loop ends before.

    As far as its socket takes it, which is not waited for.
    """
    if evcon:
        bev = lib.evhttp_connection_get_bufferevent(evcon)
        lib.bufferevent_incref(bev)
        base.graveyard.append((functools.partial(_push, base, os.getpid()), bev))


def _push(base: Any, process: int, bev: Any) -> None:
    if process == os.getpid() and not base.closed:
        base.tell(lib.evpy_http_push, bev)
    else:  # it is the parent's to be written, or there is nothing left to write
        lib.bufferevent_decref(bev)


def address_of(pointer: Any) -> int:
    """Return where C's *pointer* points to."""
    return int(ffi.cast("uintptr_t", pointer))


@ffi.def_extern(onerror=errors.kept)
def evpy_http_closed(key: int) -> int:
    """Return 1 when it is known: with 0, which an interrupt returns, C calls once more."""
    for base in live.bases:
        connection = base.live.get(key)
        if connection is not None:
            server = connection.server
            server.doomed.pop(connection.where, None)
            try:
                connection.gone()  # known till then, or its request would make another for the same
            except BaseException as error:
                base.report(error, connection)
                connection.end()  # that may have come from anywhere
            server.forget(connection)
            base.live.pop(key, None)
            break
    return 1


@ffi.def_extern(onerror=errors.kept)
def evpy_http_written(key: int) -> int:
    """Return 1 when it is told: with 0, which an interrupt returns, C calls once more."""
    for base in live.bases:
        connection = base.live.get(key)
        if connection is not None and connection.writing is not None:
            (callback, request), connection.writing = connection.writing, None
            try:
                callback(request)
            except BaseException as error:
                request.raised(error, "the callback of send_reply_chunk()")
            break
    return 1
