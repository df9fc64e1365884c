"""``struct evhttp_connection`` at a client: a connection to a server."""

from __future__ import annotations

import functools
import os
import socket
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

from libevent_py import errors, util
from libevent_py._core import convert
from libevent_py._core.child import Child, Rank
from libevent_py._core.convert import Timeout
from libevent_py._core.dispatch import from_c, next_key, not_closed
from libevent_py._core.handle import Handle, Making, came_to_be
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.callbacks import why_failed
from libevent_py.bufferevent.connect import FAMILIES, _resolver, is_looking_up
from libevent_py.bufferevent.tls import TlsContext
from libevent_py.dns.base import DnsBase
from libevent_py.enums import (
    BufferEventFlag,
    BufferEventOption,
    HttpConnectionFlag,
    HttpRequestError,
)
from libevent_py.errors import DnsError
from libevent_py.event.base import EventBase
from libevent_py.http.flow import Flow, Pace
from libevent_py.http.request import HttpRequest
from libevent_py.http.request_queue import RequestQueue, forget

if TYPE_CHECKING:
    from libevent_py._ffi import CData

#: What is told that a connection has been closed: ``on_close(connection)``.
HttpConnectionCallback: TypeAlias = Callable[["HttpConnection"], object]

_DEFERRED = BufferEventOption.DEFER_CALLBACKS


class HttpConnection(Flow, Child):
    """A connection to an HTTP server, made when a request needs it; usable in ``with``.

    While a request waits, the connection stays alive by itself; otherwise it is freed with the last
    reference to it. An open connection keeps the loop running, for further requests, until either
    end closes it.
    """

    __slots__ = (
        "_address",
        "_close_untold",
        "_defers",
        "_ends_itself",
        "_initial_retry",
        "_lent_bev",
        "_link",
        "_on_close",
        "_pace",
        "_place",
        "_process",
        "_queue",
        "_resolver",
        "_retries",
        "_settings",
        "_tls",
    )

    _rank = Rank.HTTP

    base: EventBase
    _lent_bev: weakref.ref[BufferEvent] | None

    def __init__(
        self,
        base: EventBase,
        host: str | bytes,
        port: int,
        *,
        dns_base: DnsBase | None = None,
        bufferevent: BufferEvent | None = None,
        tls: TlsContext | None = None,
        server_hostname: str | None = None,
    ) -> None:
        """Make a connection to *host*, a name or a numeric address, and *port*; it connects later.

        The `DnsBase` *dns_base* looks a name up in the loop; closing it closes the connection. With
        None a name is looked up at once, and the loop waits meanwhile.

        With *tls* the connection speaks HTTPS. The server's certificate must be for
        *server_hostname*, by default *host*, if the context checks it. Instead of *tls*, you can
        give a *bufferevent* without a descriptor, which evhttp uses and frees; its callbacks are
        removed. Unlike in C, raises `ValueError` for a bufferevent that is half of a pair, a
        filter, made without CLOSE_ON_FREE, or that has a descriptor.
        Wraps ``evhttp_connection_base_new``, ``evhttp_connection_base_bufferevent_new``.
        """
        self._check_unmade()
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        base._check_thread()
        base._check_usable()  # a closed base has no connections
        name = convert.host_alone(host)
        if not name:
            raise ValueError("host must not be empty")
        port = convert.integer(port, "port", 1, 65535)
        if dns_base is not None:
            _resolver(dns_base, base)
        #: The host and the port, and the `DnsBase` that looks the host up, or None.
        self._address = name.decode("latin-1"), port
        self._resolver = dns_base
        #: Our own part in C, and the place where C puts its pointer.
        self._link: CData | None = None
        self._place: Any = None
        self._queue = RequestQueue()
        self._pace = Pace()
        self._ends_itself = False
        self._retries: int | None = 0
        self._initial_retry = 2.0
        self._on_close: HttpConnectionCallback | None = None
        #: Whether `on_close` is to be called for a connection that has ended.
        self._close_untold = False
        self._settings: dict[str, Any] = {}
        #: The process that has made it.
        self._process = os.getpid()
        key = next_key()
        bev = self._chosen(base, bufferevent, tls, server_hostname)
        self._check_unmade()  # an argument's own method may have made it meanwhile
        try:
            self._make_with(base, key, bev)
            if dns_base is not None and dns_base.closed:  # by other code, before it was known to it
                raise dns_base._unusable()
        except BaseException:
            if came_to_be(self):  # the bufferevent may refer to it
                self.close()
            raise

    def _make_with(self, base: EventBase, key: int, bev: BufferEvent | None) -> None:
        """Make the C object, which takes *bev*."""
        dns = ffi.NULL if self._resolver is None else self._resolver.pointer
        host, port = self._address
        name, make = host.encode("latin-1"), lib.evpy_client_connection_new
        #: Its TLS session, or None, and whether its bufferevent defers callbacks.
        self._tls = None if bev is None else bev._tls
        self._defers = bev is not None and bool(bev._options & _DEFERRED)
        self._lent_bev = None if bev is None else weakref.ref(bev)
        self._place = ffi.new("struct evpy_client **")
        below = ffi.NULL if bev is None else bev.pointer
        try:
            if bev is not None:
                errors.call(lib.evpy_put_aside)  # or the bufferevent would be closed in vain
                bev._give(self)
            failure = functools.partial(errors.failed, lib.evhttp_connection_base_new)
            what = base.pointer, dns, below, name, port, key, self._place
            super().__init__(base, key, Making(make, *what, failure=failure))
            self._link = self._place[0]
        finally:
            # If the bufferevent is closed, other code has closed it just before it was given.
            if bev is not None and bev._given_to is self and not (bev.closed or came_to_be(self)):
                bev._taken_back()
                lib.bufferevent_free(below)

    def _chosen(
        self,
        base: EventBase,
        bev: BufferEvent | None,
        tls: TlsContext | None,
        server_hostname: str | None,
    ) -> BufferEvent | None:
        """Return the bufferevent to be used, or None for one of evhttp's own."""
        if tls is not None:
            if bev is not None:
                raise ValueError("tls and bufferevent can't be given together")
            if not isinstance(tls, TlsContext):
                raise TypeError(f"tls must be a TlsContext, not {tls!r}")
            name = self._address[0] if server_hostname is None else server_hostname
            return BufferEvent.tls(base, -1, tls, server_hostname=name)
        if server_hostname is not None:
            raise ValueError("server_hostname is for tls")
        if bev is None:
            return None
        if not isinstance(bev, BufferEvent):
            raise TypeError(f"bufferevent must be a BufferEvent, not {bev!r}")
        if bev.base is not base:
            raise ValueError("bufferevent must be of the connection's own event base")
        if bev.fd >= 0:
            raise ValueError("bufferevent must have no descriptor: the connection makes one")
        if is_looking_up(bev):
            raise ValueError("bufferevent must not be looking a host up already")
        if bev.underlying is not None:
            raise ValueError(  # evhttp closes the descriptor, and later the next one of that number
                "bufferevent must not stand on another one: that would keep a closed descriptor"
            )
        return bev

    def _facts(self, ask: bool) -> Iterator[str]:
        yield "to {}:{}".format(*self._address)
        if ask:
            yield f"fd {lib.bufferevent_getfd(self._below())}"
        if self._tls is not None:
            yield "TLS"
        if requests := len(self._queue):
            yield f"{requests} requests under way"

    # Requests.

    def make_request(self, request: HttpRequest, command: int, uri: str | bytes) -> None:
        """Send *request* once those made before it have ended; connect first if need be.

        *command* is a method of `HttpCommand`. *uri* is what the request line asks for: a path, for
        a proxy a whole URI, for CONNECT a host and a port. Each request is made once. Where a name
        is looked up at once, the callback may be called before this returns.

        The body is what the request's ``output_buffer`` holds now; it can't be changed any more. A
        `FileSegment` in it that is mapped is sent without being read into memory. The header
        Content-Length is added for every method, unlike in C. If there is a header
        Transfer-Encoding, which can only be "chunked", the body is sent as one chunk instead. To
        send a body in parts, see `HttpRequest`.

        Unlike in C, raises `ValueError` for a URI with spaces or control characters, for headers
        that don't fit the body, such as a wrong Content-Length, and for a body of CONNECT or TRACE.
        Wraps ``evhttp_make_request``.
        """
        if not isinstance(request, HttpRequest):
            raise TypeError(f"request must be an HttpRequest, not {request!r}")
        request._enqueue(self, command, uri)
        with self.base._telling():
            self._queue.go_on(self)

    def _cause(self, code: HttpRequestError | None, why: int) -> OSError | None:
        """Return the error that stopped evhttp from connecting, or TLS from going on, or None."""
        unresolved = int(lib.bufferevent_socket_get_dns_error(self._below()))
        if unresolved:
            return DnsError(unresolved, f"{self._address[0]!r}: {util.gai_strerror(unresolved)}")
        if self._tls is not None and code in (None, HttpRequestError.EOF):
            bev = self.bufferevent
            failure = why_failed(bev, BufferEventFlag.ERROR, why)
            bev._forget_failure()
            return failure
        return OSError(why, os.strerror(why)) if why else None

    # The connection.

    @property
    def bufferevent(self) -> BufferEvent:
        """The bufferevent of the connection, to be asked but not used.

        Ask it, for instance, which TLS version is used. Methods that would use it or its buffers
        raise `ValueError`: send with `make_request`, and set `timeout`.
        Wraps ``evhttp_connection_get_bufferevent``.
        """
        self.base._check_thread()
        while True:
            pointer, lent = self._below(), self._lent_bev
            bev = None if lent is None else lent()
            if bev is not None:
                return bev
            made = BufferEvent._borrowed(self.base, pointer, self, self._tls)
            ref = weakref.ref(made)
            if self._lent_bev is lent:  # no call from here to the next line
                self._lent_bev = ref
                return self._if_open(made)
            made._taken_back()  # other code has made one meanwhile

    def _lent(self) -> list[Handle]:
        """Return the bufferevent and its buffers, as far as they still exist."""
        bev = None if self._lent_bev is None else self._lent_bev()
        return [] if bev is None else [bev, *bev._lent()]

    @property
    def peer(self) -> tuple[str, int]:
        """The host and port that the connection is for. Wraps ``evhttp_connection_get_peer``."""
        host, port = ffi.new("char **"), ffi.new("ev_uint16_t *")
        lib.evhttp_connection_get_peer(self._pointer_here(), host, port)
        return convert.text(host[0]), int(port[0])

    @property
    def address(self) -> convert.Address | None:
        """The address that the connection last connected to, or None.

        Wraps ``evhttp_connection_get_addr``.
        """
        address = lib.evhttp_connection_get_addr(self._pointer_here())
        if not address or address.sa_family not in (socket.AF_INET, socket.AF_INET6):
            return None
        return convert.unpack_address(address, ffi.sizeof("struct sockaddr_in6"))

    def _set(
        self, name: str, value: object, function: Callable[..., object], *arguments: object
    ) -> None:
        self.base._check_thread()
        errors.call(function, self.pointer, *arguments)
        self._settings[name] = value

    @property
    def timeout(self) -> Timeout:
        """Timeout for connecting, and then for each read and write, in seconds.

        None, the default, means libevent's own: 45 s for connecting, then 50 s. Unlike in C, 0
        means the shortest timeout, not libevent's own. Wraps ``evhttp_connection_set_timeout_tv``.
        Stands for ``evhttp_connection_set_timeout``.
        """
        return self._settings.get("timeout")

    @timeout.setter
    def timeout(self, timeout: Timeout) -> None:
        wait = convert.optional_seconds(timeout)
        self._set("timeout", timeout, lib.evpy_client_connection_set_timeout, wait)

    @property
    def family(self) -> int:
        """The address family to look the host up for: AF_UNSPEC, AF_INET or AF_INET6.

        Wraps ``evhttp_connection_set_family``.
        """
        return int(self._settings.get("family", socket.AF_UNSPEC))

    @family.setter
    def family(self, family: int) -> None:
        if family not in FAMILIES:
            raise ValueError(f"family must be AF_UNSPEC, AF_INET or AF_INET6, not {family!r}")
        self._set("family", family, lib.evhttp_connection_set_family, family)

    @property
    def flags(self) -> HttpConnectionFlag:
        """How the connection behaves.

        REUSE_CONNECTED_ADDR looks the host up only once. READ_ON_WRITE_ERROR reads a response even
        if the request could not be written. LINGERING_CLOSE is for servers: it raises `ValueError`.
        Wraps ``evhttp_connection_set_flags``.
        """
        return HttpConnectionFlag(self._settings.get("flags", 0))

    @flags.setter
    def flags(self, flags: int) -> None:
        self.base._check_thread()
        known = convert.flags(HttpConnectionFlag, flags, "flags")
        if known & HttpConnectionFlag.LINGERING_CLOSE:
            raise ValueError(f"flags can't have {known!r} for a client")
        self._set("flags", known, lib.evhttp_connection_set_flags, known)

    @property
    def max_headers_size(self) -> int | None:
        """The most bytes that the headers of a response may have; None, the default, is no limit.

        Wraps ``evhttp_connection_set_max_headers_size``.
        """
        return self._settings.get("max_headers_size")

    @max_headers_size.setter
    def max_headers_size(self, size: SupportsIndex | None) -> None:
        most = _size(size, "max_headers_size")
        function = lib.evhttp_connection_set_max_headers_size
        self._set("max_headers_size", size, function, most)

    @property
    def max_body_size(self) -> int | None:
        """The most bytes that the body of a response may have; None, the default, is no limit.

        As in C, the lines with the sizes of chunks don't count, and may have any length.
        Wraps ``evhttp_connection_set_max_body_size``.
        """
        return self._settings.get("max_body_size")

    @max_body_size.setter
    def max_body_size(self, size: SupportsIndex | None) -> None:
        most = _size(size, "max_body_size")
        self._set("max_body_size", size, lib.evhttp_connection_set_max_body_size, most)

    @property
    def local_address(self) -> str | None:
        """The numeric address to connect from, or None for any. Default: None.

        Setting it raises `RuntimeError` once a request has been made.
        Wraps ``evhttp_connection_set_local_address``.
        """
        return self._settings.get("local_address")

    @local_address.setter
    def local_address(self, address: str) -> None:
        self._check_unused("local_address")
        convert.sockaddr((address, 0))
        function = lib.evpy_client_connection_set_local_address
        self._set_unused("local_address", address, function, address.encode())

    @property
    def local_port(self) -> int:
        """The port to connect from, or 0 for any. Default: 0.

        Setting it raises `RuntimeError` once a request has been made.
        Wraps ``evhttp_connection_set_local_port``.
        """
        return int(self._settings.get("local_port", 0))

    @local_port.setter
    def local_port(self, port: int) -> None:
        self._check_unused("local_port")
        port = convert.integer(port, "local_port", 0, 65535)
        self._set_unused("local_port", port, lib.evhttp_connection_set_local_port, port)

    def _check_unused(self, name: str) -> None:
        if self._queue.used:  # (P7)
            raise RuntimeError(f"{name} must be set before the first request is made")

    def _set_unused(
        self, name: str, value: object, function: Callable[..., object], argument: object
    ) -> None:
        """Do as `_set`, unless other code has made a request since it was asked."""
        self.base._check_thread()
        pointer, queue, failed = self.pointer, self._queue, None
        if not queue.used:  # no call from here to the next line
            failed = function(pointer, argument)
        else:
            self._check_unused(name)
        if failed == -1:
            raise errors.failed(function)
        self._settings[name] = value

    @property
    def retries(self) -> int | None:
        """How often to try again when connecting fails, or None for no limit. Default: 0.

        When no retry is left, all waiting requests fail. In C, after retries a connection may send
        nothing any more, or the process may end. Stands for ``evhttp_connection_set_retries``.
        """
        return self._retries

    @retries.setter
    def retries(self, retries: int | None) -> None:
        self.base._check_thread()
        self._check_usable()  # a closed one doesn't connect
        if retries is not None:
            retries = convert.integer(retries, "retries", 0, 2**31 - 1)
        self._retries = retries

    @property
    def initial_retry(self) -> float:
        """How long to wait before the first retry, in seconds. Default: 2.

        The wait doubles with each retry, up to an hour. Stands for
        ``evhttp_connection_set_initial_retry_tv``.
        """
        return self._initial_retry

    @initial_retry.setter
    def initial_retry(self, wait: Timeout) -> None:
        self.base._check_thread()
        self._check_usable()  # a closed one doesn't connect
        self._initial_retry = 2.0 if wait is None else convert.seconds(wait, "initial_retry")

    @property
    def on_close(self) -> HttpConnectionCallback | None:
        """The function called as ``on_close(connection)`` soon after the connection ends, or None.

        It is called when the server has closed an established connection, or when libevent has,
        because of a request. It isn't called for `close`. Wraps ``evhttp_connection_set_closecb``.
        """
        return self._on_close

    @on_close.setter
    def on_close(self, callback: HttpConnectionCallback | None) -> None:
        self._on_close = None if callback is None else convert.callback(callback, "on_close")

    def _was_closed(self) -> None:
        on_close = self._on_close
        try:
            if on_close is not None and self._close_untold and not self.closed:
                self._close_untold = False  # no call from here to the callback's own
                on_close(self)
        except BaseException as error:
            self.base._report(error, self)
            if self._close_untold:  # an interrupt has come before
                self.base.defer(self._was_closed)

    def free_on_completion(self) -> None:
        """Close the connection as soon as the last of its requests has ended.

        C's own function would free it too early or never. Stands for
        ``evhttp_connection_free_on_completion``.
        """
        self._check_usable()  # raises if it is closed already
        self._ends_itself = True  # instead of libevent's own flag (P6)

    def _do_without(self, other: Child) -> None:
        """Close if *other*, which is about to be closed, is the connection's DnsBase (L3)."""
        if other is self._resolver:
            self.close()

    def close(self) -> None:
        """Close the connection, after calling the callbacks of its requests with ``error`` set.

        A second time does nothing. Any callback may close it. Raises `ThreadError` in the wrong
        thread. Wraps ``evhttp_connection_free``.
        """
        if self.closed:
            return
        self.base._check_thread()
        if not self.base._forked:
            self._pace.forget_limits()  # before the bufferevent is closed with the rest
        try:
            super().close()
            self._queue.close(self)
        except BaseException:  # an interrupt; or what callbacks have raised, as all was told
            if self.closed:
                self.base._free_later(self._queue.close, self)
            raise

    @property
    def _free(self) -> Callable[[CData], object]:
        """The function that frees the connection, then its current request, at a clean moment."""
        self._pace.forget_limits()
        link, sent = self._place[0], self._queue.sent
        free = functools.partial(_free, link, sent, self._process)
        # A base that is closed is about to close what the connection looks names up by.
        return functools.partial(self.base._free_when_clean, free, waits=False)


def _size(size: SupportsIndex | None, name: str) -> int:
    return -1 if size is None else convert.integer(size, name, 0, lib.EV_SSIZE_MAX)


def _free(link: CData | None, sent: CData | None, process: int, pointer: CData) -> None:
    """Free a connection made in *process*, and its request *sent*."""
    try:
        lib.evpy_client_connection_free(pointer, link, process)
    finally:  # even after an interrupt
        if sent is not None:
            forget(ffi.NULL, sent)


@from_c(find=not_closed, late=1, raised=0, forked=1)
def evpy_client_closed(connection: HttpConnection) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    if connection._on_close is not None:
        connection._close_untold = True  # it may be deferred twice
        connection.base.defer(connection._was_closed)
    return 1
