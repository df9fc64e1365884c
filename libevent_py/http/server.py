"""``struct evhttp``: a server of HTTP and HTTPS."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.dispatch import live, next_key
from libevent_py._core.handle import Handle, Making
from libevent_py._core.owner import Rank
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.tls import TlsContext
from libevent_py.event.base import EventBase
from libevent_py.http.bound_socket import Listening
from libevent_py.http.end import Ending
from libevent_py.http.server_connection import Held, HttpServerConnection, address_of, taken_out
from libevent_py.http.server_request import ANSWERED, READING, UNANSWERED, HttpServerRequest, made
from libevent_py.http.settings import ASKED, METHODS

Handler: TypeAlias = Callable[[HttpServerRequest], object]
BevCallback: TypeAlias = Callable[[EventBase], "BufferEvent | None"]


class Route:
    """What C calls for a path, or for all others."""

    __slots__ = ("handler", "on_end", "server")

    def __init__(self, server: HttpServer, handler: Handler, on_end: Handler | None) -> None:
        self.server = server
        self.handler = handler
        self.on_end = on_end


class HttpServer(Listening):
    """A server of HTTP, and with `tls` of HTTPS; usable in ``with``, which closes it.

    It lives until it is closed, or its base is: nobody has to keep it. A handler is called as
    ``handler(request)`` with an `HttpServerRequest`. When it raises before it has answered,
    `EventBase.on_error` gets the request, and may answer it; else the client gets 500, before the
    exception comes out of the loop. A reply that has been begun is cut off.

    A request that isn't clear about where its body ends is answered with 400, and its connection
    closed. As in C, one whose chunks have extensions, as in ``5;name=value``, is answered with 413,
    and trailer fields are dropped.
    """

    __slots__ = (
        "_given",
        "_on_headers",
        "_routes",
        "_streams",
        "_tls",
        "_vhosts",
        "connections",
        "current",
        "doomed",
        "held",
        "plain",
    )

    rank = Rank.HTTP

    def __init__(self, base: EventBase) -> None:
        """Make a server that doesn't listen yet. Wraps ``evhttp_new``."""
        self._check_unmade()
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        base.check_thread()
        #: The routes, by path; None stands for all others.
        self._routes: dict[bytes | None, int] = {}
        self._tls: TlsContext | None = None
        #: The bufferevents that are about to become connections' own, each with a reference of
        #: its own in C.
        self._given: dict[int, tuple[Any, BufferEvent]] = {}
        self._vhosts: dict[HttpServer, str] = {}
        #: The connections that somebody has asked for, by where they are in C.
        self.connections: dict[int, HttpServerConnection] = {}
        #: The request whose handler runs, or None.
        self.current: HttpServerRequest | None = None
        #: The connections that are to be freed at the next clean moment, by where they are.
        self.doomed: dict[int, Any] = {}
        #: The requests that wait for an answer.
        self.held = Held(base, self.connections)
        self._on_headers: Handler | None = None
        # Whether requests have told of their headers, and some may still.
        self._streams = False
        #: Whether all its connections go straight to a socket.
        self.plain = True
        super().__init__(base, next_key(), Making(lib.evhttp_new, base.pointer))
        base.live[self.key] = self
        pointer = self.pointer
        lib.evhttp_set_allowed_methods(pointer, METHODS | ASKED)
        lib.evpy_http_set_gencb(pointer, False, self.key)

    def lent(self) -> list[Handle]:
        """Return whatever ends with it."""
        requests = self.held.alive()
        if self.current is not None:
            requests.append(self.current)
        connections, given = list(self.connections.values()), list(self._given.values())
        return [
            *(handle for request in requests for handle in (*request.lent(), request)),
            *(handle for one in connections for handle in (*one.lent(), one)),
            *(handle for _, bev in given for handle in (*bev.lent(), bev)),
            *self.bound,
        ]

    def _facts(self, ask: bool) -> Iterator[str]:
        if self._parent is not None:
            yield f"for {self._parent._vhosts.get(self)!r}"
        if ask:
            for bound in self.bound:
                fd = lib.evhttp_bound_socket_get_fd(bound.pointer)
                yield f"on {convert.told_socket_name(fd)}"
        elif self.bound:
            yield f"{len(self.bound)} sockets"
        yield f"{len(self._routes)} routes"
        if self.held.requests:
            yield f"{len(self.held.requests)} requests await an answer"

    # Who answers.

    def set_cb(self, path: str | bytes, handler: Handler, *, on_end: Handler | None = None) -> None:
        """Have ``handler(request)`` called for requests of *path*, as it is once decoded.

        *on_end* is what their `HttpServerRequest.on_end` is when the handler is called. Raises
        `ValueError` when *path* has a handler already. Wraps ``evhttp_set_cb``.
        """
        what = convert.string(path, "path")
        convert.callback(handler, "handler")
        if on_end is not None:
            convert.callback(on_end, "on_end")
        self.base.check_thread()
        pointer = self.pointer
        if what in self._routes:
            raise ValueError(f"path {path!r} has a handler already: del_cb() it first")
        key = next_key()
        if lib.evpy_http_set_cb(pointer, what, key):
            raise MemoryError("evhttp_set_cb: there is no memory for it")
        self._routes[what] = key
        self._route(key, Route(self, handler, on_end))

    def _route(self, key: int, route: Route) -> None:
        """Have C find *route*, unless other code has closed the server since."""
        self.base.live[key] = route
        if self.closed:
            self.base.live.pop(key, None)
            raise self._unusable()

    def del_cb(self, path: str | bytes) -> None:
        """Call *path*'s handler no longer, also inside itself.

        Raises `ValueError` when it has none. Wraps ``evhttp_del_cb``.
        """
        what = convert.string(path, "path")
        self.base.check_thread()
        pointer = self.pointer
        if what not in self._routes:
            raise ValueError(f"path {path!r} has no handler")
        lib.evhttp_del_cb(pointer, what)
        self.base.live.pop(self._routes.pop(what), None)

    def set_gencb(self, handler: Handler | None, *, on_end: Handler | None = None) -> None:
        """Have ``handler(request)`` called for requests of paths that have none of their own.

        With None libevent answers them with 404. *on_end* is as in `set_cb`.
        Wraps ``evhttp_set_gencb``.
        """
        for name, callback in {"handler": handler, "on_end": on_end}.items():
            if callback is not None:
                convert.callback(callback, name)
        self.base.check_thread()
        pointer = self.pointer
        old = self._routes.pop(None, None)
        key = self.key if handler is None else next_key()
        lib.evpy_http_set_gencb(pointer, handler is not None, key)
        if old is not None:
            self.base.live.pop(old, None)
        if handler is not None:
            self._routes[None] = key
            self._route(key, Route(self, handler, on_end))

    @property
    def on_headers(self) -> Handler | None:
        """What is called as ``on_headers(request)`` when the headers of a request have come, or
        None.

        By then its body has not, which `HttpServerRequest.on_chunk`, set here, gets in parts; and
        `HttpServerConnection.pause` has the client wait with it. It can't be answered before its
        handler is called, which is once all of the body has come: libevent would take the rest for
        the next request. Before that, its connection can be closed. It is for connections that are
        accepted from now on; a request of another, or one that libevent answers by itself, has it
        called just before the handler, or not at all. Of virtual hosts, that of the server that
        has accepted the connection is called, and only the handler learns whose request it is.
        When it raises, the body is thrown away, and the client gets 500. Raises `ValueError` for a
        virtual host. C has nothing like it before libevent 2.2.
        """
        return self._on_headers

    @on_headers.setter
    def on_headers(self, callback: Handler | None) -> None:
        if callback is not None:
            convert.callback(callback, "on_headers")
        self.base.check_thread()
        self.pointer  # noqa: B018  (a closed server has no requests)
        if callback is not None and self._parent is not None:
            raise ValueError("on_headers must be set on the server that this is a virtual host of")
        self._on_headers = callback
        self._streams = self._streams or callback is not None
        self._set_bevcb()

    # What connections go through.

    def set_bevcb(self, callback: BevCallback | None) -> None:
        """Have ``callback(base)`` called for each connection: it returns what that goes through.

        A new `BufferEvent` of *base* without a descriptor, also one of `BufferEvent.tls`, which
        belongs to the connection then; or None for what libevent makes itself. Unlike in C, where
        it raises, or returns something else, the connection is closed, and nothing is read from it.
        With None for *callback*, libevent makes all. It takes the place of `tls`.
        Wraps ``evhttp_set_bevcb``.
        """
        if callback is not None:
            convert.callback(callback)
        self.base.check_thread()
        self.pointer  # noqa: B018  (a closed server has no connections)
        self._bevcb = callback
        self._set_bevcb()
        self._tls = None
        self.plain = self.plain and callback is None

    @property
    def tls(self) -> TlsContext | None:
        """The context of connections that are accepted from now on, which then speak HTTPS; or
        None.

        It takes the place of what `set_bevcb` has set.
        """
        return self._tls

    @tls.setter
    def tls(self, context: TlsContext | None) -> None:
        if context is not None and not isinstance(context, TlsContext):
            raise TypeError(f"tls must be a TlsContext, not {context!r}")
        if context is not None and not context.server_side:
            raise ValueError("tls must be a TlsContext for servers: make it with server_side=True")

        def secured(base: EventBase) -> BufferEvent:
            return BufferEvent.tls(base, -1, context)

        self.set_bevcb(None if context is None else secured)
        self._tls = context

    def new_bev(self) -> Any:
        """Return C's bufferevent for a new connection, or NULL for one of libevent's own."""
        bev = None if self._bevcb is None else self._bevcb(self.base)
        self.pointer  # noqa: B018  (the callback may have closed it)
        most = self._most
        if bev is None and self._greets():
            bev = BufferEvent(self.base)
        if bev is None:
            base, bound = self.base.pointer, ffi.cast("void *", most)
            return lib.evpy_http_bounded(base, bound) if most else ffi.NULL
        # Active from now on, and so before anything of the connection, which isn't there yet.
        self.base.once(functools.partial(self._adopt, key := next_key()))
        pointer = self._checked(bev)._give(self)
        lib.bufferevent_incref(pointer)
        self._given[key] = pointer, bev
        if most:
            lib.evpy_http_bound(pointer, most)
        return pointer

    def _checked(self, bev: Any) -> BufferEvent:
        """Return *bev*, or raise an error for what evhttp could not use (O11)."""
        if not isinstance(bev, BufferEvent):
            raise TypeError(f"the callback of set_bevcb() must return a BufferEvent, not {bev!r}")
        if bev.base is not self.base:
            raise ValueError("the BufferEvent must be on the server's own base")
        if bev.underlying is not None:
            raise ValueError("the BufferEvent must be one of a socket itself, with TLS or without")
        if bev.fd >= 0:
            raise ValueError("the BufferEvent must be a new one, without a descriptor")
        return bev

    def _adopt(self, key: int, _fd: int, _what: int) -> None:
        """Find the connection that C has made of what `new_bev` gave it."""
        if self.closed or key not in self._given:  # C frees it with all connections, or has none
            return
        pointer, bev = self._given.pop(key)
        evcon = lib.evpy_http_connection_of(pointer)
        lib.bufferevent_decref(pointer)
        if not evcon:
            bev._taken_back()
            return
        connection = self.connections.get(address_of(evcon))
        if connection is not None:
            connection.adopt(bev)  # a bufferevent of a more urgent priority has been ahead of this
        else:
            connection = HttpServerConnection(self, evcon, bev)
        if self._greets():
            self._greet(connection)

    def _greets(self) -> bool:
        """Tell whether it does something to each of its connections when that is new."""
        group = self._rate_limit_group
        limited = self._rate_limit is not None or (group is not None and not group.closed)
        return limited or self._on_headers is not None

    def _greet(self, connection: HttpServerConnection) -> None:
        """Do to *connection*, which is new, what is asked for each."""
        if self._rate_limit is not None:
            connection.rate_limit = self._rate_limit
        group = self._rate_limit_group
        if group is not None and not group.closed:
            connection.rate_limit_group = group
        if self._on_headers is not None:
            errors.call(lib.evpy_http_stream, connection._flow)

    def headers_came(self, connection: HttpServerConnection, pointer: Any) -> None:
        """Tell of C's request *pointer*, the body of which is still to come."""
        request = made(self.base, self, self, pointer)
        request._state = READING
        connection.reading = request
        self._tell_headers(request)

    def _tell_headers(self, request: HttpServerRequest) -> None:
        if self._on_headers is not None:
            try:
                self._on_headers(request)
            except BaseException as error:
                request.cannot_read("on_headers", error)

    def _read(self, pointer: Any) -> HttpServerRequest | None:
        """Return the request that C's *pointer* is of, if it is still to be handled.

        Its body has come; and if it could not tell of its headers before, it does so now.
        """
        where = address_of(lib.evhttp_request_get_connection(pointer))
        connection = self.connections.get(where)
        request = None if connection is None else connection.reading
        if request is None and (connection is None or not connection.closed):
            request = self._read_late(pointer)
            connection = self.connections.get(where)
        if connection is not None:
            connection.reading = None
        if request is None or request.closed:
            return None
        if connection is not None and connection.closed:
            request._end()
            return None
        request._state = UNANSWERED
        return request

    def _read_late(self, pointer: Any) -> HttpServerRequest:
        """Tell of C's request *pointer*, all of which has come already."""
        request = self.current = made(self.base, self, self, pointer)
        request._state = READING
        self._tell_headers(request)
        if request._on_chunk is not None and not request._is_cut():
            request.part_came()
            if not request._is_cut():
                request.input_buffer.drain(len(request.input_buffer))
        return request

    # Virtual hosts.

    def add_virtual_host(self, pattern: str, vhost: HttpServer) -> None:
        """Have *vhost* answer requests of hosts that match *pattern*.

        A * in it stands for any characters, but at the end for none that there are, as in C.
        It is closed with this server, and can't listen itself. Raises `ValueError` when it does, is
        a virtual host already, has another base, or is this server's own parent (O8).
        Wraps ``evhttp_add_virtual_host``.
        """
        if not isinstance(vhost, HttpServer):
            raise TypeError(f"vhost must be an HttpServer, not {vhost!r}")
        what = convert.string(pattern, "pattern")
        self.base.check_thread()
        pointer, upper = self.pointer, vhost.pointer
        if vhost.base is not self.base:
            raise ValueError("vhost must be on the server's own base")
        if vhost._parent is not None:
            raise ValueError("vhost is a virtual host already")
        if vhost.bound or vhost.connections or vhost.current or vhost.held.requests:
            raise ValueError("vhost listens itself, or has connections")
        if vhost.held.guests:
            raise ValueError("vhost serves RPCs, which only what is no virtual host can")
        above: HttpServer | None = self
        while above is not None:
            if above is vhost:
                raise ValueError("vhost is this server, or what this server is a virtual host of")
            above = above._parent
        added = True
        try:  # an interrupt comes after C's call, not before it
            added = not lib.evhttp_add_virtual_host(pointer, what, upper)
        finally:
            if added:
                vhost._parent = self
                self._vhosts[vhost] = pattern
        if not added:
            raise errors.failed(lib.evhttp_add_virtual_host)
        if self.closed or vhost.closed:  # by other code, and so freed each by itself
            self._part_from(pointer, vhost, upper)
            raise (self if self.closed else vhost)._unusable()

    def remove_virtual_host(self, vhost: HttpServer) -> None:
        """Make *vhost* a server of its own again.

        Raises `ValueError` when it is none of this server's virtual hosts.
        Wraps ``evhttp_remove_virtual_host``.
        """
        self.base.check_thread()
        pointer = self.pointer
        if vhost not in self._vhosts:
            raise ValueError(f"{vhost!r} is no virtual host of this server")
        self._part_from(pointer, vhost, vhost.pointer)

    def _part_from(self, pointer: Any, vhost: HttpServer, upper: Any) -> None:
        try:  # an interrupt comes after C's call, not before it
            lib.evhttp_remove_virtual_host(pointer, upper)
        finally:
            vhost._parent = None
            self._vhosts.pop(vhost, None)

    @property
    def virtual_hosts(self) -> dict[HttpServer, str]:
        """Its virtual hosts, each with the pattern of its names, in a copy."""
        self.pointer  # noqa: B018  (a closed server has none)
        return dict(self._vhosts)

    # The end.

    def doom(self, pointer: Any, ending: Ending | None) -> None:
        """Free the connection *pointer*, now or at a clean moment, with its requests.

        Who waits for the end of one is told so first.
        """
        lib.evpy_http_mute(pointer)
        where = address_of(pointer)
        self.doomed[where] = pointer
        if self.closed:  # by other code: it frees this with the rest
            self.doomed.clear()
        try:
            if ending is not None:
                _outside(self.base, ending.end, "its connection was closed")
        finally:
            if where in self.doomed:  # or the server has been closed meanwhile
                self._free_soon(where, pointer)

    def _free_soon(self, where: int, pointer: Any) -> None:
        base, current = self.base, self.current
        if current is not None and not current.closed and current._is_on(pointer):
            current._end()
        self.held.end(pointer)
        if base.busy():
            base.graveyard.append((self._free_doomed, where))
            base.wake()
        else:
            self._free_doomed(where)

    def _free_doomed(self, where: int) -> None:
        pointer = self.doomed.get(where)
        if pointer is not None:  # C may have freed it meanwhile
            self.held.end(pointer)  # what a handler has left unanswered since
            try:
                errors.call(lib.evhttp_connection_free, pointer)
            finally:
                connection = self.connections.get(where)
                if connection is not None:  # C's callback finds it only where the loop runs
                    self.base.live.pop(connection.key, None)
                    connection.end()
                    self.forget(connection)

    def forget(self, connection: HttpServerConnection) -> None:
        """Know no longer of *connection*, which C frees."""
        self.connections.pop(connection.where, None)
        self.doomed.pop(connection.where, None)

    def close(self) -> None:
        """Listen no longer, and close all connections, answered or not; a second time does nothing.

        Requests that wait for an answer are closed, and so are virtual hosts. Unlike in C, it may
        be called anywhere: inside callbacks C's object is freed later (O1). Raises `ThreadError` in
        a wrong thread. Wraps ``evhttp_free``.
        """
        if self.closed:
            return
        base = self.base
        base.check_thread()
        if base.parked is None:
            for bound in self.bound_sockets:
                bound.close()
        try:
            if base.parked is None:
                _outside(base, self._tell_ends)
        finally:
            if not self.closed:
                self._close()

    def _tell_ends(self) -> None:
        """Tell who waits for the end of a request that the server is closed."""
        text = f"its {'base' if self.base.closed else 'server'} was closed"
        told = True
        while told:  # who is told may have another one wait
            told = False
            for connection in list(self.connections.values()):
                ending, connection.ending = connection.ending, None
                if ending is not None:
                    told = True
                    ending.end(text)

    def _close(self) -> None:
        base = self.base
        if base.parked is None:
            for vhost in list(self._vhosts):
                vhost.close()
            if self._parent is not None:
                self._parent.remove_virtual_host(self)
            self._mute()
            for connection in list(self.connections.values()):
                if not connection.closed:
                    lib.evpy_http_mute(connection.pointer)
                base.live.pop(connection.key, None)
                connection.end()
            for _, bev in list(self._given.values()):
                bev._taken_back()
            for key in list(self._routes.values()):
                base.live.pop(key, None)
        else:  # freed, if at all, after reinit()
            for bound in self.bound:
                bound.end()
        try:
            super().close()
        finally:
            self.connections.clear()
            self.doomed.clear()

    def _mute(self) -> None:
        """Have nothing more sent for those whose requests are not answered."""
        requests = [pointer for _, pointer in list(self.held.requests.values())]
        if self.current is not None and not self.current.closed:
            requests.append(self.current.pointer)
        for guest in self.held.guests:
            requests += guest.requests()
        for pointer in requests:
            evcon = lib.evhttp_request_get_connection(pointer)
            if evcon:
                lib.evpy_http_mute(evcon)

    def _take_lent(self) -> list[Any]:
        super()._take_lent()
        return []  # what frees the server waits for all methods that are under way

    @property
    def free(self) -> Callable[[Any], object]:  # type: ignore[override]
        """What frees the server, once no callback of it can be below."""
        if self._parent is not None:
            return _leave
        for connection in list(self.connections.values()):  # where it was dropped with them
            connection._forget_limits()
        return functools.partial(_free_soon, self.base, self.held, self._given, self._kept)


def _outside(base: Any, function: Callable[..., object], *arguments: Any) -> None:
    """Call what tells users something: what they free is freed afterwards, as in C's callbacks.

    What they raise comes out afterwards; of the loop, or of closing the base, while that runs.
    """
    if base.running:
        function(*arguments)
    else:
        base.call(function, *arguments)


def _leave(_pointer: Any) -> None:
    """Leave it to the server that it is a virtual host of (O8)."""


def _free_soon(base: Any, held: Held, given: dict[int, Any], kept: Any, pointer: Any) -> None:
    if base.busy():
        base.graveyard.append((functools.partial(_free, held, given, kept), pointer))
        base.wake()
    else:
        _free(held, given, kept, pointer)


def _free(held: Held, given: dict[int, tuple[Any, Any]], _kept: Any, pointer: Any) -> None:
    try:
        held.free_orphans()
    finally:  # though an interrupt has come
        try:
            errors.call(lib.evhttp_free, pointer)
        finally:
            for _, (bev, _) in taken_out(given):
                lib.bufferevent_decref(bev)


@ffi.def_extern(onerror=errors.kept, error=0)
def evpy_http_allowed(key: int, method: int) -> int:
    found = live.objects.get(key)
    if found is None:
        return 0
    root = found if isinstance(found, HttpServer) else found.server
    while root._parent is not None:
        root = root._parent
    return method & root._methods


@ffi.def_extern(onerror=errors.kept)
def evpy_http_request(key: int, pointer: Any, begun: Any) -> None:
    """Note in *begun* that the request is somebody's: else C answers it, after an interrupt."""
    route = live.objects.get(key)
    if route is None:  # the server is closed, and about to be freed with its requests
        begun[0] = True
        return
    server = route.server
    root = server
    while root._parent is not None:
        root = root._parent
    if root.doomed and address_of(lib.evhttp_request_get_connection(pointer)) in root.doomed:
        begun[0] = True
        return  # so is the connection
    base = server.base
    if root._streams:
        request = root._read(pointer)
        begun[0] = True
        if request is None:  # what has been told of its headers has closed the connection
            return
        request.server = server
    else:
        request = made(base, server, root, pointer)
        begun[0] = True  # no call from here to what answers for a handler that raises
    root.current = request
    try:
        if request.error is not None:
            request.fail(request.error)
            return
        if route.on_end is not None:
            request.on_end = route.on_end
        route.handler(request)
        if request._state != ANSWERED and request.unanswered():
            root.held.add(request, pointer)
    except BaseException as error:
        request.raised(error)
    finally:
        root.current = None


@ffi.def_extern(onerror=errors.kept)
def evpy_http_headers(key: int, pointer: Any) -> None:
    for base in live.bases:
        connection = base.live.get(key)
        if connection is not None and not connection.closed:
            connection.server.headers_came(connection, pointer)
            return


#: What has C close the connection: with NULL, where TLS has failed, it would go on without.
REFUSED = ffi.cast("struct bufferevent *", -1)


@ffi.def_extern(onerror=errors.kept, error=REFUSED)
def evpy_http_bev(key: int) -> Any:
    for base in live.bases:
        server = base.live.get(key)
        if server is not None:
            try:
                return server.new_bev()
            except BaseException as error:
                base.report(error, server)
    return REFUSED
