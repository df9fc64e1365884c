"""``struct evhttp_connection`` at a server: a connection that it has accepted.

libevent frees a connection whenever it has to, and then calls its close callback. So the callback
is set for each connection that somebody has asked for, and its object is live until then. For
nearly all connections no object is ever made: C's request says whether its connection still exists.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.described import described
from libevent_py._core.dispatch import from_c, next_key
from libevent_py._core.frames import came_at_entry
from libevent_py._core.handle import Handle
from libevent_py._core.owner import askable
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.event.base import EventBase
from libevent_py.http.end import GONE
from libevent_py.http.flow import Flow, Pace

if TYPE_CHECKING:
    from libevent_py._ffi import Arguments, CData, Unpack
    from libevent_py.http.end import Ending
    from libevent_py.http.receiving import Requests
    from libevent_py.http.server import HttpServer
    from libevent_py.http.server_request import HttpHandler, HttpServerRequest


#: What is told that a server's connection has ended: ``on_close(connection)``.
HttpServerConnectionCallback: TypeAlias = Callable[["HttpServerConnection"], object]

T = TypeVar("T")


def address_of(pointer: CData) -> int:
    """Return the address that C's *pointer* points to."""
    return int(ffi.cast("uintptr_t", pointer))


@described(
    base="The event base whose loop serves the connection.",
)
class HttpServerConnection(Flow):
    """A connection that a server has accepted; it carries one request after another.

    It ends when libevent frees it: after the last reply, or when the client has gone.
    """

    __slots__ = (
        "_awaiting",
        "_bev",
        "_ending",
        "_key",
        "_on_close",
        "_pace",
        "_place",
        "_reading",
        "_server",
        "_where",
        "_writing",
        "base",
    )

    _server: HttpServer

    # hot: `receiving` and `server_request` set these as the request goes on; so does `_end`.

    #: The request whose headers have come, but not yet all of its body, or None.
    _reading: HttpServerRequest | None
    #: The `on_end` of its request, to be called when that ends, or None.
    _ending: Ending | None
    #: The answered request whose `on_complete` waits to be called, or None.
    _awaiting: HttpServerRequest | None
    #: The callback to call when the last chunk has been written, and its request, or None.
    _writing: tuple[HttpHandler, HttpServerRequest] | None

    def __init__(self) -> None:
        """Raise `TypeError`: only an `HttpServer` makes connections."""
        raise TypeError("an HttpServer makes its connections: see HttpServerRequest.connection")

    @classmethod
    def _of(
        cls, server: HttpServer, pointer: CData, bev: BufferEvent | None = None
    ) -> HttpServerConnection:
        """Return the object for *server*'s connection *pointer*, which goes through *bev*.

        That is another one if other code has made one meanwhile.
        """
        made, known = cls.__new__(cls), server._connections.known
        made._begin(server, pointer, bev)
        try:
            connection = known.setdefault(made._where, made)
            if connection is not made:
                made._take()
                if bev is not None:
                    connection._adopt(bev)
            connection._watched()
        except BaseException:  # C won't tell of the end
            if not made._place[0] and known.get(made._where) is made:
                del known[made._where]
                made.base._may_not_call(made._key)
                made._take()
            raise
        if server.closed:  # by other code, before it knew this connection
            connection.base._may_not_call(connection._key)
            connection._end()
        return connection

    def _begin(self, server: HttpServer, pointer: CData, bev: BufferEvent | None) -> None:
        self.base: EventBase = server.base
        self._server = server
        self._key = next_key()
        self._bev = bev
        self._pace = Pace()
        self._on_close: HttpServerConnectionCallback | None = None
        self._reading = self._ending = self._awaiting = self._writing = None
        super().__init__(pointer)
        #: The address of C's object, by which the server finds this one.
        self._where = address_of(pointer)
        self._place = ffi.new("struct evpy_http_flow **")

    def _watched(self) -> CData:
        """Return what C keeps about the connection, until it ends; made now if it isn't there."""
        place = self._place
        if not place[0] and not self.closed:
            self.base._may_call(self._key, self)
            errors.call(lib.evpy_http_watch, self.pointer, self._key, place)
        flow: CData = place[0]
        return flow

    @property
    def server(self) -> HttpServer:
        """The `HttpServer` that has accepted the connection."""
        return self._server

    def _may_ask(self) -> bool:
        return askable(self.base)

    def _facts(self, ask: bool) -> Iterator[str]:
        if ask:
            yield f"fd {lib.bufferevent_getfd(lib.evhttp_connection_get_bufferevent(self.pointer))}"
            host, port = self.peer
            yield f"from {host}:{port}"

    def _unusable(self) -> Exception:
        return self.base._why_unusable(self) or super()._unusable()

    def _lent(self) -> list[Handle]:
        """Return the objects that end with it: the bufferevent, if it has been asked for, with its
        buffers, and the request that is being read.
        """
        reading = self._reading
        request = [] if reading is None else [*reading._lent(), reading]
        return request if self._bev is None else [self._bev, *self._bev._lent(), *request]

    @property
    def peer(self) -> tuple[str, int]:
        """The client's address as libevent knows it: a numeric host and a port.

        Wraps ``evhttp_connection_get_peer``.
        """
        host, port = ffi.new("char **"), ffi.new("ev_uint16_t *")
        self.base._check_thread()
        lib.evhttp_connection_get_peer(self.pointer, host, port)
        return convert.text(host[0]), int(port[0])

    @property
    def address(self) -> convert.Address:
        """The client's address as in `socket`; "" for a client without one, as with AF_UNIX.

        Wraps ``evhttp_connection_get_addr``.
        """
        self.base._check_thread()
        address = lib.evhttp_connection_get_addr(self.pointer)
        if not address or address.sa_family not in (socket.AF_INET, socket.AF_INET6):
            return ""
        return convert.unpack_address(address, ffi.sizeof("struct sockaddr_in6"))

    @property
    def bufferevent(self) -> BufferEvent:
        """The connection's `BufferEvent`, to be asked but not used; it ends with the connection.

        Methods that would use it or its buffers raise `ValueError`. Answer with
        `HttpServerRequest.send_reply` and the like, and set `HttpServer.timeout`.
        Wraps ``evhttp_connection_get_bufferevent``.
        """
        self.base._check_thread()
        pointer = self.pointer
        if self._bev is None:
            bev = lib.evhttp_connection_get_bufferevent(pointer)
            made = BufferEvent._borrowed(self.base, bev, self)
            if self._bev is None:  # no call from here to the next line
                self._bev = made
                return self._if_open(made)
            made._taken_back()  # other code has made one meanwhile
        return self._bev

    @property
    def on_close(self) -> HttpServerConnectionCallback | None:
        """The function called as ``on_close(connection)`` when libevent has closed it, or None.

        By then the object is closed. It isn't called when you close the connection or the server.
        Wraps ``evhttp_connection_set_closecb``.
        """
        return self._on_close

    @on_close.setter
    def on_close(self, callback: HttpServerConnectionCallback | None) -> None:
        self._check_usable()  # a closed connection won't call it
        self._on_close = None if callback is None else convert.callback(callback, "on_close")

    def close(self) -> None:
        """Close the connection; a second time does nothing.

        A reply that has not been written is lost. Requests that wait for an answer are closed,
        after their `HttpServerRequest.on_end`. Unlike in C, you may close it inside any callback;
        C's object is then freed later. Wraps ``evhttp_connection_free``.
        """
        if self.closed:
            return
        base = self.base
        base._check_thread()
        self._check_usable()  # raises in a forked child
        pointer = None
        try:
            pointer = self._end()
        finally:
            if pointer is not None:  # None if other code has closed it in between (O6, O7)
                ending, self._ending = self._ending, None
                self._server._connections.doom(self._server, pointer, ending)

    def _adopt(self, bev: BufferEvent) -> None:
        """Use *bev* as its bufferevent, in place of another object for the same one."""
        limit = group = None
        if self._pace.limited is not None:
            limit, group = self.rate_limit, self.rate_limit_group
            self._pace.forget_limits()
        if self._bev is not None:
            self._bev._taken_back()
        self._bev = bev
        if limit is not None:
            self.rate_limit = limit
        if group is not None:
            self.rate_limit_group = group

    def _end(self) -> CData | None:
        """Become closed, with all that it has lent; the first call returns the pointer."""
        self._pace.forget_limits()
        for handle in self._lent():
            handle._take()
        if self._bev is not None:
            self._bev._taken_back()
        self._awaiting = self._writing = self._reading = None
        return self._take()

    def _gone(self) -> None:
        """Call `on_end` and `on_close` while C frees its object."""
        told = not self.closed
        ending, self._ending = self._ending, None
        self._end()
        if ending is not None and not self.base._collected:
            ending.tell(GONE)
        if told and self._on_close is not None and not self.base._collected:
            self._on_close(self)  # not if collected: what it would use may be finalized


class Connections:
    """The connections of a server that somebody has asked for; the others are C's alone."""

    __slots__ = ("_given", "base", "doomed", "known")

    def __init__(self, base: EventBase) -> None:
        self.base: EventBase = base
        #: The objects, by their addresses in C; also those that are closed, until C frees them.
        self.known: dict[int, HttpServerConnection] = {}
        #: The pointers that are to be freed at the next clean moment, by their addresses.
        self.doomed: dict[int, CData] = {}
        #: The bufferevents that the next connections will use, each with an extra reference in C.
        self._given: dict[int, tuple[BufferEvent, CData]] = {}

    def _lent(self) -> list[Handle]:
        """Return all objects that end with the server."""
        known, given = list(self.known.values()), list(self._given.values())
        return [
            *(handle for one in known for handle in (*one._lent(), one)),
            *(handle for bev, _ in given for handle in (*bev._lent(), bev)),
        ]

    def at(self, server: HttpServer, evcon: CData) -> HttpServerConnection | None:
        """Return the object for *server*'s C connection *evcon*, made now if need be.

        None if it has ended, as other code may have closed it since.
        """
        known = self.known.get(address_of(evcon))
        connection = HttpServerConnection._of(server, evcon) if known is None else known
        connection._watched()
        return None if connection.closed else connection

    # Their bufferevents.

    def give(self, server: HttpServer, bev: BufferEvent, most: int, place: CData) -> None:
        """Let the next connection of *server* use *bev*, which is stored in *place* for C."""
        # Active from now on, so it runs before all callbacks of the connection to come.
        self.base.once(functools.partial(self._adopt, server, key := next_key()))
        pointer, hand_over = bev.pointer, lib.evpy_http_hand_over
        try:
            bev._give(server)
            self._given[key] = bev, pointer  # no call from here to the next line
            hand_over(pointer, most, place)
        except BaseException:  # perhaps an interrupt
            if bev._given_to is server and key not in self._given and not bev.closed:
                bev._taken_back()
                lib.bufferevent_free(pointer)
            raise

    def _adopt(self, server: HttpServer, key: int, _fd: int, _what: int) -> None:
        """Find the connection of *server* that C has made for the bufferevent *key*.

        If C has made none, C frees the bufferevent.
        """
        if server.closed or key not in self._given:  # C frees it with the server, or has done so
            return
        bev, pointer = self._given[key]
        evcon = lib.evpy_http_connection_of(pointer)
        connection = self.known.get(address_of(evcon)) if evcon else None
        let_go, adopted = lib.bufferevent_decref, False
        if key not in self._given:  # other code has closed the server
            return
        try:
            del self._given[key]  # no call from here to the next line
            let_go(pointer)
            if connection is not None:
                connection._adopt(bev)  # a more urgent callback has run before this one
            elif evcon:
                connection = HttpServerConnection._of(server, evcon, bev)
            adopted = connection is not None
        finally:
            if not adopted:
                bev._taken_back()
        if connection is not None:
            server._greet(connection)

    # The end.

    def doom(self, server: HttpServer, pointer: CData, ending: Ending | None) -> None:
        """Free the connection *pointer* of *server*, now or at a clean moment, with its requests.

        The `on_end` of its request is called first.
        """
        lib.evpy_http_mute(pointer)
        where = address_of(pointer)
        self.doomed[where] = pointer
        if server.closed:  # by other code, which frees this connection with the others
            self.doomed.clear()
        try:
            if ending is not None:
                outside(self.base, ending.end, "its connection was closed")
        finally:
            if where in self.doomed:  # it isn't if the server has been closed meanwhile
                self._free_soon(server._requests, where, pointer)

    def _free_soon(self, requests: Requests, where: int, pointer: CData) -> None:
        requests.end_current(pointer)
        requests.end(pointer)
        self.base._free_when_clean(functools.partial(self._free, requests), where)

    def _free(self, requests: Requests, where: int) -> None:
        pointer = self.doomed.get(where)
        if pointer is not None:  # C may have freed it meanwhile
            requests.end(pointer)  # those that a handler has left unanswered since
            try:
                errors.surely(lib.evhttp_connection_free, pointer)
            except BaseException as error:
                if came_at_entry(error):
                    errors.surely(lib.evhttp_connection_free, pointer)
                raise
            finally:
                connection = self.known.get(where)
                if connection is not None:  # C's callback finds it only while the loop runs
                    self.base._may_not_call(connection._key)
                    connection._end()
                    self.forget(connection)

    def forget(self, connection: HttpServerConnection) -> None:
        """Forget *connection*, which C frees."""
        self.known.pop(connection._where, None)
        self.doomed.pop(connection._where, None)

    def tell_ends(self, text: str) -> None:
        """Call the `on_end` of all requests, which have ended for the reason *text*."""
        told = True
        while told:  # a callback may set the on_end of another request
            told = False
            for connection in list(self.known.values()):
                ending, connection._ending = connection._ending, None
                if ending is not None:
                    told = True
                    ending.end(text)

    def end(self) -> None:
        """Close all connections of a server that is being closed."""
        for connection in list(self.known.values()):
            if not connection.closed:
                lib.evpy_http_mute(connection.pointer)
            self.base._may_not_call(connection._key)
            connection._end()
        for bev, _ in list(self._given.values()):
            bev._taken_back()

    def forget_limits(self) -> None:
        """Leave all rate limit groups before C frees the connections with the server."""
        for connection in list(self.known.values()):
            connection._pace.forget_limits()

    def forget_all(self) -> None:
        """Forget the connections of a server that has been freed.

        Drop the bufferevents, too, that no connection has adopted.
        """
        for connection in list(self.known.values()):  # also those made as it was being closed
            self.base._may_not_call(connection._key)
            connection._end()
        self.known.clear()
        free_all(self._given, lib.bufferevent_decref)


def outside(
    base: EventBase, function: Callable[[Unpack[Arguments]], object], *arguments: Unpack[Arguments]
) -> None:
    """Call *function*, which calls users' callbacks; what they close is freed afterwards.

    What they raise comes out afterwards, or out of the loop or the closing base while that runs.
    """
    if base._running:
        function(*arguments)
    else:
        base._call(function, *arguments)


def free_all(things: dict[int, tuple[T, CData]], free: Callable[[CData], object]) -> None:
    """Remove all of *things*, and free their pointers by *free*: an interrupt loses none."""
    while things:
        for key in list(things):
            if key in things:  # else other code has removed it
                _, pointer = things[key]
                try:
                    del things[key]  # no call from here to free()
                except KeyError:  # other code has removed it after all
                    continue
                free(pointer)


@from_c(late=1, raised=0)
def evpy_http_closed(connection: HttpServerConnection) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    connections = connection._server._connections
    connections.doomed.pop(connection._where, None)
    try:
        connection._gone()  # still known, or its request would make another object for it
    except BaseException as error:
        connection.base._report(error, connection)
        connection._end()  # the error may have come before `_gone` did so
    connections.forget(connection)
    connection.base._may_not_call(connection._key)
    return 1


@from_c(late=1, raised=0)
def evpy_http_written(connection: HttpServerConnection) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    if connection._writing is not None:
        (callback, request), connection._writing = connection._writing, None
        try:
            callback(request)
        except BaseException as error:
            request._raised(error, "the callback of send_reply_chunk()")
    return 1
