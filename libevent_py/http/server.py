"""``struct evhttp``: an HTTP and HTTPS server."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.child import Child, Rank
from libevent_py._core.convert import FileDescriptor, Timeout
from libevent_py._core.dispatch import NOT_CALLED, from_c, live, next_key
from libevent_py._core.frames import came_at_entry
from libevent_py._core.handle import Handle, Making
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.limits import RateLimit, RateLimitGroup
from libevent_py.bufferevent.tls import TlsContext
from libevent_py.enums import HttpCommand, HttpServerFlag
from libevent_py.event.base import EventBase
from libevent_py.http.bound_socket import OPTIONS, BoundSocket, bind, listen_at
from libevent_py.http.receiving import Requests, Route
from libevent_py.http.server_connection import Connections, HttpServerConnection, outside
from libevent_py.http.server_request import HttpHandler
from libevent_py.listener import Listener

if TYPE_CHECKING:
    from libevent_py._ffi import CData

#: What makes the bufferevent of each new connection, as ``callback(base)``; None leaves it to
#: libevent.
BevCallback: TypeAlias = Callable[[EventBase], "BufferEvent | None"]

#: The methods that evhttp allows at first.
METHODS = (
    HttpCommand.GET | HttpCommand.POST | HttpCommand.HEAD | HttpCommand.PUT | HttpCommand.DELETE
)

#: The methods that evhttp always has to allow, because it asks us (`_c/http_server.c`).
ASKED = HttpCommand.HEAD | HttpCommand.CONNECT

#: The largest size that can be set as a limit: C's ev_ssize_t.
LARGEST = lib.EV_SSIZE_MAX

#: How many bytes may wait to be parsed beyond headers and body: those of the next request, and the
#: lines with the sizes of chunks.
AHEAD = 1 << 16


class HttpServer(Child):
    """An HTTP server, or with `tls` an HTTPS server; usable in ``with``, which closes it.

    It stays alive until it or its base is closed, even if nothing refers to it. A handler is called
    as ``handler(request)`` with an `HttpServerRequest`. If it raises before it has answered,
    `EventBase.on_error` gets the request, and may answer it; otherwise the client gets 500 before
    the exception comes out of the loop. A reply that has begun is cut off.

    Unlike in C, a request whose headers leave it unclear where the body ends is answered with 400,
    and its connection is closed. As in C, a request whose chunks have extensions, as in
    ``5;name=value``, is answered with 413, and trailer fields are dropped.
    """

    __slots__ = (
        "_bevcb",
        "_bound",
        "_connections",
        "_content_type",
        "_ends",
        "_flags",
        "_kept",
        "_max_body_size",
        "_max_headers_size",
        "_methods",
        "_on_headers",
        "_parent",
        "_plain",
        "_rate_limit",
        "_rate_limit_group",
        "_requests",
        "_routes",
        "_streams",
        "_timeout",
        "_tls",
        "_vhosts",
    )

    _rank = Rank.HTTP

    base: EventBase

    def __init__(self, base: EventBase) -> None:
        """Make a server that doesn't listen yet. Wraps ``evhttp_new``."""
        self._check_unmade()
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        base._check_thread()
        #: The sockets that the server accepts connections on.
        self._bound: list[BoundSocket] = []
        #: Its connections, and its requests that are not answered yet.
        self._connections = Connections(base)
        self._requests = Requests(base, self._connections)
        #: The keys of the routes, by path; None stands for all others.
        self._routes: dict[bytes | None, int] = {}
        #: The server that this one is a virtual host of, or None, and its own virtual hosts.
        self._parent: HttpServer | None = None
        self._vhosts: dict[HttpServer, str] = {}
        #: Whether `on_headers` has ever been set, so that connections may still call it.
        self._streams = False
        #: Whether all its connections go straight to a socket.
        self._plain = True
        #: Whether `close` has begun, so that nothing more can be added to it.
        self._ends = False
        #: Memory that C has pointers to.
        self._kept: list[object] = []
        # The settings, kept here because C has no getters for them.
        self._bevcb: BevCallback | None = None
        self._content_type: str | None = "text/html; charset=ISO-8859-1"
        self._flags = HttpServerFlag(0)
        self._max_body_size: int | None = None
        self._max_headers_size: int | None = None
        self._methods = METHODS
        self._on_headers: HttpHandler | None = None
        self._rate_limit: RateLimit | None = None
        self._rate_limit_group: RateLimitGroup | None = None
        self._timeout: Timeout = None
        self._tls: TlsContext | None = None
        super().__init__(base, next_key(), Making(lib.evhttp_new, base.pointer))
        try:
            base._may_call(self._key, self)
            pointer = self.pointer
            lib.evhttp_set_allowed_methods(pointer, METHODS | ASKED)
            lib.evpy_http_set_gencb(pointer, False, self._key)
            self._set_bevcb()
        except BaseException:
            self._unmade()
            raise

    def _facts(self, ask: bool) -> Iterator[str]:
        if self._parent is not None:
            yield f"for {self._parent._vhosts.get(self)!r}"
        if ask:
            for bound in self._bound:
                fd = lib.evhttp_bound_socket_get_fd(bound.pointer)
                yield f"on {convert.told_socket_name(fd)}"
        elif self._bound:
            yield f"{len(self._bound)} sockets"
        yield f"{len(self._routes)} routes"
        waiting = len(self._requests.waiting)
        if waiting:
            yield f"{waiting} requests await an answer"

    def _lent(self) -> list[Handle]:
        """Return all objects that end with the server."""
        return [*self._requests._lent(), *self._connections._lent(), *self._bound]

    # Listening sockets.

    def bind_socket(self, host: str | None, port: int) -> BoundSocket:
        """Accept connections on *host* and *port*; return the socket, which knows its address.

        None for *host* means all addresses, 0 for *port* any free port. A name is looked up at
        once, and the loop waits meanwhile. Raises `OSError` when the address can't be bound. Wraps
        ``evconnlistener_new``, ``evhttp_bind_listener``. Stands for ``evhttp_bind_socket``,
        ``evhttp_bind_socket_with_handle``.
        """
        number = convert.integer(port, "port", 0, 65535)
        self._check_usable()  # a closed server can't listen
        listener = Listener.__new__(Listener)
        try:
            listen_at(listener, self.base, host, number)
            bound = self.bind_listener(listener)
        except BaseException:
            listener._give_up()
            raise
        return bound

    def accept_socket(self, fd: FileDescriptor) -> BoundSocket:
        """Accept connections on the socket *fd*, which must be listening; the server closes it.

        *fd* is a descriptor, or a socket object, which is detached; if this raises, it still is the
        caller's. Unlike in C, it is set to non-blocking. Wraps ``evconnlistener_new``,
        ``evhttp_bind_listener``. Stands for ``evhttp_accept_socket``,
        ``evhttp_accept_socket_with_handle``.
        """
        self._check_usable()  # a closed server can't listen
        listener = Listener.__new__(Listener)
        try:
            listener._accept_on(self.base, fd, OPTIONS)
            bound = self.bind_listener(listener)
            listener._adopt(fd)
        except BaseException:
            listener._give_up(fd)
            raise
        return bound

    def bind_listener(self, listener: Listener) -> BoundSocket:
        """Accept the connections of *listener*, which belongs to the server from now on.

        Closing it closes the `BoundSocket`. Raises `ValueError` if it belongs to a server already
        or has another base, and if this server is a virtual host. Raises `LibeventError` for a
        listener of AF_UNIX unless this libevent is known to be fixed: otherwise any client could
        end the process. Wraps ``evhttp_bind_listener``.
        """
        bound = BoundSocket(self, listener)
        try:
            bind(self, listener, bound)
        except BaseException:
            bound._unmade()
            raise
        return bound

    @property
    def bound_sockets(self) -> list[BoundSocket]:
        """The sockets that the server accepts connections on.

        The list is a copy: unlike in C, you may close sockets while you walk it. Stands for
        ``evhttp_foreach_bound_socket``.
        """
        self._check_usable()  # a closed server has none
        return list(self._bound)

    # Handlers.

    def set_cb(
        self, path: str | bytes, handler: HttpHandler, *, on_end: HttpHandler | None = None
    ) -> None:
        """Call ``handler(request)`` for requests whose decoded path is *path*.

        *on_end* becomes the `HttpServerRequest.on_end` of each request before the handler is
        called. Raises `ValueError` when *path* has a handler already. Wraps ``evhttp_set_cb``.
        """
        what = convert.string(path, "path")
        convert.callback(handler, "handler")
        if on_end is not None:
            convert.callback(on_end, "on_end")
        self.base._check_thread()
        pointer = self.pointer
        if what in self._routes:
            raise ValueError(f"path {path!r} has a handler already: del_cb() it first")
        key, route, failed = next_key(), Route(self, handler, on_end), None
        routes, set_cb = self._routes, lib.evpy_http_set_cb
        try:
            self.base._may_call(key, route)  # first, as C may call it from then on
            if what not in routes:  # else other code has set one
                routes[what] = key  # no call from here to the next line
                failed = set_cb(pointer, what, key)
        finally:
            if routes.get(what) != key:
                self.base._may_not_call(key)
        if failed is None:
            raise ValueError(f"path {path!r} has a handler already: del_cb() it first")
        if failed:
            self.base._may_not_call(routes.pop(what))
            raise MemoryError("evhttp_set_cb: there is no memory for it")
        self._check_routed(key)

    def _check_routed(self, key: int) -> None:
        """Raise `ClosedError` if other code has closed the server since it was asked."""
        if self._ends or self.closed:
            self.base._may_not_call(key)
            raise self._unusable()

    def del_cb(self, path: str | bytes) -> None:
        """Stop calling the handler of *path*; the handler itself may do so.

        Raises `KeyError` when the path has no handler. Wraps ``evhttp_del_cb``.
        """
        what = convert.string(path, "path")
        self.base._check_thread()
        pointer = self.pointer
        if what not in self._routes:
            raise KeyError(f"path {path!r} has no handler")
        lib.evhttp_del_cb(pointer, what)
        self.base._may_not_call(self._routes.pop(what))

    def set_gencb(self, handler: HttpHandler | None, *, on_end: HttpHandler | None = None) -> None:
        """Call ``handler(request)`` for requests whose path has no handler of its own.

        With None libevent answers them with 404. *on_end* is as in `set_cb`.
        Wraps ``evhttp_set_gencb``.
        """
        for name, callback in {"handler": handler, "on_end": on_end}.items():
            if callback is not None:
                convert.callback(callback, name)
        self.base._check_thread()
        pointer = self.pointer
        key = self._key if handler is None else next_key()
        routes, set_gencb, old = self._routes, lib.evpy_http_set_gencb, None
        try:
            if handler is not None:
                self.base._may_call(key, Route(self, handler, on_end))  # as in `set_cb`
            if None in routes:  # no call from here to C's
                old = routes[None]
                del routes[None]
            if handler is not None:
                routes[None] = key
            set_gencb(pointer, handler is not None, key)
        finally:
            if old is not None:
                self.base._may_not_call(old)
            if handler is not None and routes.get(None) != key:
                self.base._may_not_call(key)
        if handler is not None:
            self._check_routed(key)

    @property
    def on_headers(self) -> HttpHandler | None:
        """The function called as ``on_headers(request)`` when the headers have come, or None.

        Set `HttpServerRequest.on_chunk` there to get the body in parts, and use
        `HttpServerConnection.pause` to make the client wait. The request can't be answered yet, as
        libevent would take the rest of the body for the next request; but its connection can be
        closed. The handler is called once the whole body has come. If the callback raises, the body
        is discarded, and the client gets 500.

        It applies to connections that are accepted from now on. For a request on an older one, it
        is called just before the handler; for a request that libevent itself answers, perhaps not
        at all. With virtual hosts, only the `on_headers` of the server that accepted the connection
        is called; it can't know yet which virtual host the request is for. Setting it on a virtual
        host raises `ValueError`. C has no such callback before libevent 2.2.
        """
        return self._on_headers

    @on_headers.setter
    def on_headers(self, callback: HttpHandler | None) -> None:
        if callback is not None:
            convert.callback(callback, "on_headers")
        self.base._check_thread()
        self._check_usable()  # a closed server has no requests
        if callback is not None and self._parent is not None:
            raise ValueError("on_headers must be set on the server that this is a virtual host of")
        self._on_headers = callback
        self._streams = self._streams or callback is not None
        self._set_bevcb()

    # Limits.

    @property
    def allowed_methods(self) -> HttpCommand:
        """The methods that reach a handler; requests with others are answered with 501.

        Default: GET, POST, HEAD, PUT and DELETE. Wraps ``evhttp_set_allowed_methods``.
        """
        return self._methods

    @allowed_methods.setter
    def allowed_methods(self, methods: int) -> None:
        flags = convert.flags(HttpCommand, methods, "allowed_methods")
        self.base._check_thread()
        lib.evhttp_set_allowed_methods(self.pointer, flags | ASKED)
        self._methods = flags

    @property
    def max_headers_size(self) -> int | None:
        """The most bytes that the first line and the headers of a request may have, or None.

        None, the default, is no limit. It applies to connections that are accepted from now on. A
        request with more is answered with 400. Wraps ``evhttp_set_max_headers_size``.
        """
        return self._max_headers_size

    @max_headers_size.setter
    def max_headers_size(self, size: int | None) -> None:
        most = -1 if size is None else convert.integer(size, "max_headers_size", 0, LARGEST)
        self.base._check_thread()
        lib.evhttp_set_max_headers_size(self.pointer, most)
        self._max_headers_size = None if size is None else most
        self._set_bevcb()

    @property
    def max_body_size(self) -> int | None:
        """The most bytes that the body of a request may have, or None.

        None, the default, is no limit. It applies to connections that are accepted from now on. A
        request with more is answered with 413, and so is one whose chunks have extensions, however
        short. If `max_headers_size` is set too, a connection fails when more bytes wait to be
        parsed than both limits and 64 KiB together; unlike in C, where the line with a chunk's size
        may grow for ever. Wraps ``evhttp_set_max_body_size``.
        """
        return self._max_body_size

    @max_body_size.setter
    def max_body_size(self, size: int | None) -> None:
        most = -1 if size is None else convert.integer(size, "max_body_size", 0, LARGEST)
        self.base._check_thread()
        lib.evhttp_set_max_body_size(self.pointer, most)
        self._max_body_size = None if size is None else most
        self._set_bevcb()

    @property
    def _most(self) -> int:
        """How many bytes of a connection may wait to be parsed, or 0 for any number."""
        headers, body = self._max_headers_size, self._max_body_size
        if headers is None or body is None or headers + body + AHEAD > LARGEST:
            return 0
        return headers + body + AHEAD

    @property
    def rate_limit(self) -> RateLimit | None:
        """How fast each connection may read and write, or None for no limit. Default: None.

        It becomes the `HttpServerConnection.rate_limit` of connections that are accepted from now
        on: each gets a limit of its own. Wraps ``bufferevent_set_rate_limit``.
        """
        self._check_usable()  # a closed server has no connections
        return self._rate_limit

    @rate_limit.setter
    def rate_limit(self, limit: RateLimit | None) -> None:
        if limit is not None and not isinstance(limit, RateLimit):
            raise TypeError(f"rate_limit must be a RateLimit, not {limit!r}")
        self.base._check_thread()
        self._check_usable()  # a closed server has no connections
        self._rate_limit = limit
        self._set_bevcb()

    @property
    def rate_limit_group(self) -> RateLimitGroup | None:
        """The `RateLimitGroup` whose limit all connections share, or None. Default: None.

        It becomes the `HttpServerConnection.rate_limit_group` of connections that are accepted from
        now on, until the group is closed. Raises `ValueError` for a group of another event base.
        Wraps ``bufferevent_add_to_rate_limit_group``.
        """
        self._check_usable()  # a closed server has no connections
        return self._rate_limit_group

    @rate_limit_group.setter
    def rate_limit_group(self, group: RateLimitGroup | None) -> None:
        if group is not None:
            if not isinstance(group, RateLimitGroup):
                raise TypeError(f"rate_limit_group must be a RateLimitGroup, not {group!r}")
            if group.base is not self.base:
                raise ValueError("rate_limit_group must be of the server's own event base")
            group._check_usable()  # a closed one has no members
        self.base._check_thread()
        self._check_usable()  # a closed server has no connections
        self._rate_limit_group = group
        self._set_bevcb()

    @property
    def timeout(self) -> Timeout:
        """Idle timeout in seconds. None, the default, is no timeout.

        A connection is closed when nothing has been read or written for that time. The time doesn't
        count while the server waits for a handler's answer nor, for reading, while the connection
        is paused. It applies to connections that are accepted from now on. Unlike in C, 0 means the
        shortest timeout, not none. Wraps ``evhttp_set_timeout_tv``. Stands for
        ``evhttp_set_timeout``.
        """
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: Timeout) -> None:
        seconds = convert.optional_seconds(timeout)
        self.base._check_thread()
        lib.evpy_http_set_timeout(self.pointer, seconds)
        self._timeout = None if timeout is None else seconds

    @property
    def default_content_type(self) -> str | None:
        """The Content-Type that is added to replies with a body if they have none, or None.

        Default: "text/html; charset=ISO-8859-1". Wraps ``evhttp_set_default_content_type``.
        """
        return self._content_type

    @default_content_type.setter
    def default_content_type(self, kind: str | None) -> None:
        text = ffi.NULL
        if kind is not None:
            value = convert.string(kind, "default_content_type")
            if b"\r" in value or b"\n" in value:
                raise ValueError(f"default_content_type must be one line, not {kind!r}")
            text = ffi.new("char[]", value)
        self.base._check_thread()
        lib.evhttp_set_default_content_type(self.pointer, text)
        self._kept[:] = [text]  # C has the pointer only (O10)
        self._content_type = kind

    @property
    def flags(self) -> HttpServerFlag:
        """How the server behaves. Wraps ``evhttp_set_flags``."""
        return self._flags

    @flags.setter
    def flags(self, flags: int) -> None:
        flags = convert.flags(HttpServerFlag, flags, "flags")
        self.base._check_thread()
        lib.evhttp_set_flags(self.pointer, flags)
        self._flags = flags

    # The bufferevents of connections.

    def set_bevcb(self, callback: BevCallback | None) -> None:
        """Call ``callback(base)`` for each new connection: it returns the bufferevent to use.

        The callback returns a new `BufferEvent` of *base* without a descriptor, such as one made by
        `BufferEvent.tls`, which then belongs to the connection; or None, and libevent makes one.
        With None for *callback*, libevent makes all of them. Setting it replaces `tls`. Unlike in
        C, if the callback raises or returns something else, the connection is closed, and nothing
        is read from it. Wraps ``evhttp_set_bevcb``.
        """
        if callback is not None:
            convert.callback(callback)
        self.base._check_thread()
        self._check_usable()  # a closed server has no connections
        self._bevcb = callback
        self._set_bevcb()
        self._tls = None
        self._plain = self._plain and callback is None

    @property
    def tls(self) -> TlsContext | None:
        """The TLS context for connections that are accepted from now on, or None for plain HTTP.

        Setting it replaces the callback of `set_bevcb`. Default: None.
        """
        return self._tls

    @tls.setter
    def tls(self, context: TlsContext | None) -> None:
        if context is not None and not isinstance(context, TlsContext):
            raise TypeError(f"tls must be a TlsContext, not {context!r}")
        if context is not None and not context.server_side:
            raise ValueError("tls must be a TlsContext for servers: make it with server_side=True")

        def secured(base: EventBase) -> BufferEvent:
            assert context is not None
            return BufferEvent.tls(base, -1, context)

        self.set_bevcb(None if context is None else secured)
        self._tls = context

    def _set_bevcb(self) -> None:
        """Make C ask for a bufferevent for each new connection, if there is a reason to."""
        called = self._bevcb is not None or self._greets()
        lib.evpy_http_set_bevcb(self.pointer, called, self._key, self._most)

    def _new_bev(self, bev: BufferEvent | None, place: CData) -> None:
        """Store C's bufferevent for a new connection in *place*: *bev*'s, or one of its own."""
        self._check_usable()  # the callback may have closed the server
        most = self._most
        if bev is None and self._greets():
            bev = BufferEvent(self.base)
        if bev is None:
            lib.evpy_http_make_bev(self.base.pointer, most, place)
        else:
            self._connections.give(self, self._checked(bev), most, place)

    def _checked(self, bev: BufferEvent) -> BufferEvent:
        """Return *bev*, or raise an error if evhttp could not use it (O11)."""
        if not isinstance(bev, BufferEvent):
            raise TypeError(f"the callback of set_bevcb() must return a BufferEvent, not {bev!r}")
        if bev.base is not self.base:
            raise ValueError("the BufferEvent must be on the server's own base")
        if bev.underlying is not None:
            raise ValueError("the BufferEvent must not be on top of another one")
        if bev.fd >= 0:
            raise ValueError("the BufferEvent must be a new one, without a descriptor")
        return bev

    def _greets(self) -> bool:
        """Tell whether the server has settings to apply to each new connection."""
        group = self._rate_limit_group
        limited = self._rate_limit is not None or (group is not None and not group.closed)
        return limited or self._on_headers is not None

    def _greet(self, connection: HttpServerConnection) -> None:
        """Apply the server's settings to the new *connection*."""
        if self._rate_limit is not None:
            connection.rate_limit = self._rate_limit
        group = self._rate_limit_group
        if group is not None and not group.closed:
            connection.rate_limit_group = group
        if self._on_headers is not None:
            errors.call(lib.evpy_http_stream, connection._watched())

    # Virtual hosts.

    def add_virtual_host(self, pattern: str, vhost: HttpServer) -> None:
        """Let *vhost* answer requests whose host matches *pattern*.

        A * in the pattern matches any characters; as in C, a * at its end matches nothing at all.
        *vhost* is closed with this server, and can't listen itself. Raises `ValueError` if *vhost*
        listens, is a virtual host already, has another base, or is this server or one that this
        server is a virtual host of. Wraps ``evhttp_add_virtual_host``.
        """
        if not isinstance(vhost, HttpServer):
            raise TypeError(f"vhost must be an HttpServer, not {vhost!r}")
        what = convert.string(pattern, "pattern")
        self.base._check_thread()
        pointer, upper = self.pointer, vhost.pointer
        if vhost.base is not self.base:
            raise ValueError("vhost must be on the server's own base")
        if vhost._parent is not None:
            raise ValueError("vhost is a virtual host already")
        requests = vhost._requests
        if vhost._bound or vhost._connections.known or requests.current or requests.waiting:
            raise ValueError("vhost listens itself, or has connections")
        if requests.guests:
            raise ValueError("vhost serves RPCs, which a virtual host can't do")
        if vhost is self or vhost in self._parents():
            raise ValueError("vhost must not be this server or one of its parents")
        if self._ends or vhost._ends:  # by what this comes in the middle of
            raise (self if self._ends else vhost)._unusable()
        if vhost._parent is not None:  # since it was looked at
            raise ValueError("vhost is a virtual host already")
        added = True
        try:  # an interrupt can come only after the call of C, not before
            added = not lib.evhttp_add_virtual_host(pointer, what, upper)
        finally:
            if added:
                vhost._parent = self
                self._vhosts[vhost] = pattern
        if not added:
            raise errors.failed(lib.evhttp_add_virtual_host)
        if self.closed or vhost.closed:  # other code has closed one, so each is freed by itself
            self._part_from(pointer, vhost, upper)
            raise (self if self.closed else vhost)._unusable()
        if vhost in self._parents():  # by other code, meanwhile
            self._part_from(pointer, vhost, upper)
            raise ValueError("vhost must not be this server or one of its parents")

    def _parents(self) -> list[HttpServer]:
        """Return the servers that this one is a virtual host of, from the nearest on."""
        found: list[HttpServer] = []
        above = self._parent
        while above is not None and above not in found:
            found.append(above)
            above = above._parent
        return found

    def remove_virtual_host(self, vhost: HttpServer) -> None:
        """Make *vhost* an independent server again.

        Raises `ValueError` when it isn't one of this server's virtual hosts.
        Wraps ``evhttp_remove_virtual_host``.
        """
        self.base._check_thread()
        pointer = self.pointer
        if vhost not in self._vhosts:
            raise ValueError(f"{vhost!r} is no virtual host of this server")
        self._part_from(pointer, vhost, vhost.pointer)

    def _part_from(self, pointer: CData, vhost: HttpServer, upper: CData) -> None:
        try:  # an interrupt can come only after the call of C, not before
            lib.evhttp_remove_virtual_host(pointer, upper)
        finally:
            vhost._parent = None
            self._vhosts.pop(vhost, None)

    @property
    def virtual_hosts(self) -> dict[HttpServer, str]:
        """A copy of the virtual hosts, each with the pattern of its host names."""
        self._check_usable()  # a closed server has none
        return dict(self._vhosts)

    def add_server_alias(self, alias: str) -> None:
        """Answer requests for the host *alias* too; it takes precedence over virtual hosts.

        Wraps ``evhttp_add_server_alias``.
        """
        name = convert.string(alias, "alias")
        self.base._check_thread()
        if lib.evhttp_add_server_alias(self.pointer, name):
            raise MemoryError("evhttp_add_server_alias: there is no memory for it")

    def remove_server_alias(self, alias: str) -> None:
        """Undo `add_server_alias`; raise `KeyError` when there is no such *alias*.

        Wraps ``evhttp_remove_server_alias``.
        """
        name = convert.string(alias, "alias")
        self.base._check_thread()
        if lib.evhttp_remove_server_alias(self.pointer, name):
            raise KeyError(f"this server has no alias {alias!r}")

    # The end.

    def close(self) -> None:
        """Stop listening, and close all connections, answered or not; a second time does nothing.

        Requests that wait for an answer are closed, and so are virtual hosts. Unlike in C, you may
        close it inside any callback; C's object is then freed later. If it is interrupted, the
        server refuses what would be added to it: call it again, and it goes on where it was. Raises
        `ThreadError` in the wrong thread. Wraps ``evhttp_free``.
        """
        if self.closed:
            return
        base = self.base
        base._check_thread()
        self._ends = True
        if not base._forked:
            for bound in self.bound_sockets:
                bound.close()
        try:
            if not base._forked:
                text = f"its {'base' if base.closed else 'server'} was closed"
                outside(base, self._connections.tell_ends, text)
        finally:
            if not self.closed:
                self._close()

    def _close(self) -> None:
        base = self.base
        if not base._forked:
            for vhost in list(self._vhosts):
                vhost.close()
            if self._parent is not None:
                self._parent.remove_virtual_host(self)
            self._requests.mute()
            self._connections.end()
            for key in list(self._routes.values()):
                base._may_not_call(key)
        else:  # freed, if at all, after reinit()
            for bound in self._bound:
                bound._end()
        try:
            super().close()
        finally:
            self._connections.doomed.clear()  # C frees them with the server

    def _take_lent(self) -> list[CData]:
        super()._take_lent()
        return []  # the function that frees the server waits for all methods under way

    @property
    def _free(self) -> Callable[[CData], object]:
        """The function that frees the server, once none of its callbacks can be on the stack."""
        if self._parent is not None:
            return _leave
        self._connections.forget_limits()  # needed if the server was dropped with them
        free = functools.partial(_free, self._requests, self._connections, self._kept)
        return functools.partial(self.base._free_when_clean, free)


def _leave(_pointer: CData) -> None:
    """Do nothing: the server that it is a virtual host of frees it (O8)."""


def _free(requests: Requests, connections: Connections, _kept: object, pointer: CData) -> None:
    try:
        requests.free_orphans()
    except BaseException:  # an interrupt
        requests.free_orphans()
        raise
    finally:
        try:
            errors.surely(lib.evhttp_free, pointer)
        except BaseException as error:
            if came_at_entry(error):
                errors.surely(lib.evhttp_free, pointer)
            raise
        finally:
            try:
                connections.forget_all()
            except BaseException:  # as above
                connections.forget_all()
                raise


# hot: called for every request; and of a `Route`, which has no base to tell.
@ffi.def_extern(onerror=errors.kept, error=NOT_CALLED)
def evpy_http_allowed(key: int, method: int) -> int:
    """Return whether the method is allowed, or `NOT_CALLED`, as after an interrupt."""
    found = live.objects.get(key)
    if found is None:
        return 0
    root = found if isinstance(found, HttpServer) else found.server
    while root._parent is not None:
        root = root._parent
    return method & root._methods


@from_c(late=1, raised=NOT_CALLED)
def evpy_http_bev(server: HttpServer, place: CData) -> int:
    """Return 1 to refuse the connection, unless there is a bufferevent in *place*.

    Otherwise it would go on without TLS if making that has failed.
    """
    bevcb = server._bevcb
    try:  # no call before this
        bev = None if bevcb is None else bevcb(server.base)
        server._new_bev(bev, place)
    except BaseException as error:
        try:
            server.base._report(error, server)
        except BaseException as interrupt:  # it must not have C call once more
            errors.keep(interrupt)
        return 1
    return 0
