"""``struct evhttp_connection``: a client's connection to a server, and the requests made on it."""

from __future__ import annotations

import functools
import re
import socket
import weakref
from collections.abc import Callable, Iterator
from typing import Any, SupportsIndex

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.convert import Timeout
from libevent_py._core.dispatch import next_key
from libevent_py._core.handle import Handle, Making, came_to_be
from libevent_py._core.owner import Child
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.connect import FAMILIES, _resolver, is_looking_up
from libevent_py.bufferevent.tls import TlsContext
from libevent_py.enums import BufferEventOption, HttpCommand, HttpConnectionFlag
from libevent_py.event.base import EventBase
from libevent_py.http.request import HttpRequest, frame_whole, framed
from libevent_py.http.request_queue import Exchange

#: What would end the request line's URI, or the line.
_FORBIDDEN = re.compile(rb"[\x00-\x20\x7f]")

_DEFERRED = BufferEventOption.DEFER_CALLBACKS


class HttpConnection(Exchange):
    """A connection to an HTTP server, made when a request needs it; usable in ``with``.

    While a request waits it stays alive by itself; else it goes with the last reference to it. One
    that is open keeps the loop going, for further requests, until either end closes it.
    """

    __slots__ = ("_lent_bev", "_settings")

    _lent_bev: weakref.ref[BufferEvent] | None

    def __init__(
        self,
        base: EventBase,
        dns_base: Any,
        host: str | bytes,
        port: int,
        *,
        bufferevent: BufferEvent | None = None,
        tls: TlsContext | None = None,
        server_hostname: str | None = None,
    ) -> None:
        """Make a connection to *host*, a name or a numeric address, and *port*; it connects later.

        With None for *dns_base* a name is looked up without the loop, which waits meanwhile; a
        `DnsBase` does it in the loop, and closes the connection when it is closed itself.

        With *tls* it is HTTPS, and the server's certificate must be for *server_hostname*, by
        default *host*, as the context says. Instead, *bufferevent* can be a `BufferEvent` without a
        descriptor that evhttp is to use and free: its callbacks are taken from it. Raises
        `ValueError` for a pair, a filter, one without CLOSE_ON_FREE, and one that has a descriptor.
        Wraps ``evhttp_connection_base_new``, ``evhttp_connection_base_bufferevent_new``.
        """
        self._check_unmade()
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        base.check_thread()
        base.pointer  # noqa: B018  (a closed base has no connections)
        name = convert.host_alone(host)
        if not name:
            raise ValueError("host must not be empty")
        port = convert.integer(port, "port", 1, 65535)
        if dns_base is not None:
            _resolver(dns_base, base)
        self._address = name.decode("latin-1"), port
        self._begin()
        self._resolver = dns_base
        self._settings: dict[str, Any] = {}
        key = next_key()
        bev = self._chosen(base, bufferevent, tls, server_hostname)
        self._make_with(base, key, bev)
        if dns_base is not None and dns_base.closed:  # by other code, which did not know of this
            self.close()
            raise dns_base._unusable()

    def _make_with(self, base: EventBase, key: int, bev: BufferEvent | None) -> None:
        """Have C make its object, which takes *bev*."""
        dns = ffi.NULL if self._resolver is None else self._resolver.pointer
        host, port = self._address
        name, make = host.encode("latin-1"), lib.evpy_client_connection_new
        self._tls = None if bev is None else bev._tls
        self._defers = bev is not None and bool(bev._options & _DEFERRED)
        self._lent_bev = None if bev is None else weakref.ref(bev)
        self._place = ffi.new("struct evpy_client **")
        below = ffi.NULL if bev is None else bev.pointer
        try:
            if bev is not None:
                bev._give(self)
            failure = functools.partial(errors.failed, lib.evhttp_connection_base_new)
            what = base.pointer, dns, below, name, port, key, self._place
            super().__init__(base, key, Making(make, *what, failure=failure))
            self._link = self._place[0]
        finally:
            if bev is not None and bev._given_to is self and not came_to_be(self):
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
            raise ValueError(  # evhttp closes the descriptor, and again whatever has it next
                "bufferevent must not stand on another one: that would keep a closed descriptor"
            )
        return bev

    def _facts(self, ask: bool) -> Iterator[str]:
        yield "to {}:{}".format(*self._address)
        if ask:
            yield f"fd {lib.bufferevent_getfd(self._below())}"
        if self._tls is not None:
            yield "TLS"
        requests = len(self._waiting) + (self._current is not None)
        if requests:
            yield f"{requests} requests under way"

    # Requests.

    def make_request(self, request: HttpRequest, command: int, uri: str | bytes) -> None:
        """Send *request*, once those made before it have ended, and connect first if need be.

        *command* is of `HttpCommand`. *uri* is what the request line asks for: a path, for a proxy
        a whole URI, for CONNECT a host and a port. Each request is made once. Where a name is
        looked up at once, the callback may be called before this returns.

        The body is what the request's `output_buffer` holds now, which can't be changed any more; a
        `FileSegment` there that is mapped is sent without being read into memory. Its header
        Content-Length is added, unlike in C for every method, unless there is a header
        Transfer-Encoding, which can only be "chunked": then it is sent as a chunk. Or it is sent in
        parts, for which see `HttpRequest`.

        Raises `ValueError` for a URI with spaces or control characters, for headers that are wrong
        about the body, as a Content-Length of another length, and for a body of CONNECT or TRACE.
        Wraps ``evhttp_make_request``.
        """
        if not isinstance(request, HttpRequest):
            raise TypeError(f"request must be an HttpRequest, not {request!r}")
        request._tried = True
        self.base.check_thread()
        self.pointer  # noqa: B018  (nothing can be sent by a closed one)
        self.base.pointer  # noqa: B018  (nor while the base closes it)
        request.pointer  # noqa: B018  (a closed one can't be sent)
        if request._asked is not None:
            raise RuntimeError("this HttpRequest has been made already: each is made once")
        asked = _command(command), _target(uri)
        if request._on_write is None:
            frame_whole(request, asked[0])
        else:
            request._framing, request._left = framed(request, asked[0])
        request._asked, request._connection, request.base = asked, self, self.base
        self._waiting.append(request)
        with self.base.telling():
            self._go_on()

    # The connection.

    @property
    def bufferevent(self) -> BufferEvent:
        """The bufferevent that it uses, which belongs to it, and can be asked but not used.

        Such as for what TLS has agreed on. Whatever would use it, or its buffers, raises
        `ValueError`: send by `make_request`, and set `timeout`.
        Wraps ``evhttp_connection_get_bufferevent``.
        """
        self.base.check_thread()
        pointer, lent = self._below(), self._lent_bev
        bev = None if lent is None else lent()
        if bev is None:
            bev = BufferEvent._borrowed(self.base, pointer, self, self._tls)
            self._lent_bev = weakref.ref(bev)
        return bev

    def lent(self) -> list[Handle]:
        """Return the bufferevent, if it is still held, and its buffers."""
        bev = None if self._lent_bev is None else self._lent_bev()
        return [] if bev is None else [bev, *bev.lent()]

    @property
    def peer(self) -> tuple[str, int]:
        """The host and the port that it was made for. Wraps ``evhttp_connection_get_peer``."""
        host, port = ffi.new("char **"), ffi.new("ev_uint16_t *")
        lib.evhttp_connection_get_peer(self.pointer, host, port)
        return convert.text(host[0]), int(port[0])

    @property
    def address(self) -> convert.Address | None:
        """The address that it has connected to last, or None.

        Wraps ``evhttp_connection_get_addr``.
        """
        address = lib.evhttp_connection_get_addr(self.pointer)
        if not address or address.sa_family not in (socket.AF_INET, socket.AF_INET6):
            return None
        return convert.unpack_address(address, ffi.sizeof("struct sockaddr_in6"))

    def _set(self, name: str, value: Any, function: Callable[..., Any], *arguments: Any) -> None:
        self.base.check_thread()
        errors.call(function, self.pointer, *arguments)
        self._settings[name] = value

    @property
    def timeout(self) -> Timeout:
        """How long connecting may take, and then each read or write, in seconds.

        None, as at first, is libevent's own: 45 s to connect, then 50 s. Unlike in C, 0 is the
        shortest time and not libevent's own.
        Wraps ``evhttp_connection_set_timeout``, ``evhttp_connection_set_timeout_tv``.
        """
        return self._settings.get("timeout")

    @timeout.setter
    def timeout(self, timeout: Timeout) -> None:
        wait = convert.optional_seconds(timeout)
        self._set("timeout", timeout, lib.evpy_client_connection_set_timeout, wait)

    @property
    def family(self) -> int:
        """The family that the host is looked up for: AF_UNSPEC, AF_INET or AF_INET6.

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
        """How it behaves: REUSE_CONNECTED_ADDR looks the host up once; READ_ON_WRITE_ERROR reads a
        response though the request could not be written.

        LINGERING_CLOSE is for servers, and raises `ValueError`.
        Wraps ``evhttp_connection_set_flags``.
        """
        return HttpConnectionFlag(self._settings.get("flags", 0))

    @flags.setter
    def flags(self, flags: int) -> None:
        self.base.check_thread()
        known = convert.flags(HttpConnectionFlag, flags, "flags")
        if known & HttpConnectionFlag.LINGERING_CLOSE:
            raise ValueError(f"flags can't have {known!r} for a client")
        self._set("flags", known, lib.evhttp_connection_set_flags, known)

    @property
    def max_headers_size(self) -> int | None:
        """The most bytes of headers that a response may have, or None, as at first, for any.

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
        """The most bytes of body that a response may have, or None, as at first, for any.

        As in C, a line that tells a chunk's size doesn't count, and may have any length.
        Wraps ``evhttp_connection_set_max_body_size``.
        """
        return self._settings.get("max_body_size")

    @max_body_size.setter
    def max_body_size(self, size: SupportsIndex | None) -> None:
        most = _size(size, "max_body_size")
        self._set("max_body_size", size, lib.evhttp_connection_set_max_body_size, most)

    @property
    def local_address(self) -> str | None:
        """The numeric address to connect from, or None, as at first, for any.

        Setting it raises `RuntimeError` once a request has been made (P7).
        Wraps ``evhttp_connection_set_local_address``.
        """
        return self._settings.get("local_address")

    @local_address.setter
    def local_address(self, address: str) -> None:
        self._check_unused("local_address")
        convert.sockaddr((address, 0))
        function = lib.evpy_client_connection_set_local_address
        self._set("local_address", address, function, address.encode())

    @property
    def local_port(self) -> int:
        """The port to connect from, or 0, as at first, for any.

        Setting it raises `RuntimeError` once a request has been made (P7).
        Wraps ``evhttp_connection_set_local_port``.
        """
        return int(self._settings.get("local_port", 0))

    @local_port.setter
    def local_port(self, port: int) -> None:
        self._check_unused("local_port")
        port = convert.integer(port, "local_port", 0, 65535)
        self._set("local_port", port, lib.evhttp_connection_set_local_port, port)

    def _check_unused(self, name: str) -> None:
        if self._used:
            raise RuntimeError(f"{name} must be set before the first request is made")

    @property
    def retries(self) -> int:
        """How often a connection that can't be made is tried again; -1 for ever, 0, as at first.

        When none is left, all requests that wait fail. Does what
        ``evhttp_connection_set_retries`` does, which in C leaves a connection that sends nothing
        any more, and may end the process (P9). Wraps ``evhttp_connection_set_retries``.
        """
        return self._retries

    @retries.setter
    def retries(self, retries: int) -> None:
        self.base.check_thread()
        self.pointer  # noqa: B018  (a closed one doesn't connect)
        self._retries = convert.integer(retries, "retries", -1, 2**31 - 1)

    @property
    def initial_retry(self) -> float:
        """How long to wait before the first retry, in seconds: 2 at first, twice that before each
        further one, but an hour at most.

        Wraps ``evhttp_connection_set_initial_retry_tv``.
        """
        return self._initial_retry

    @initial_retry.setter
    def initial_retry(self, wait: Timeout) -> None:
        self.base.check_thread()
        self.pointer  # noqa: B018  (a closed one doesn't connect)
        self._initial_retry = 2.0 if wait is None else convert.seconds(wait, "initial_retry")

    @property
    def on_close(self) -> Callable[[Any], object] | None:
        """What is called as ``on_close(connection)`` soon after a connection that was made has
        ended, by the server or for a request's sake; not for `close`.

        Wraps ``evhttp_connection_set_closecb``.
        """
        return self._on_close

    @on_close.setter
    def on_close(self, callback: Callable[[Any], object] | None) -> None:
        self._on_close = None if callback is None else convert.callback(callback, "on_close")

    def free_on_completion(self) -> None:
        """Have the connection closed once the last of its requests has ended.

        libevent's own would free it too early or never (P6).
        Wraps ``evhttp_connection_free_on_completion``.
        """
        self.pointer  # noqa: B018  (it is closed already)
        self._ends_itself = True

    def do_without(self, other: Child) -> None:
        """Close if *other*, which is about to be closed, is what the host is looked up by (L3)."""
        if other is self._resolver:
            self.close()

    def close(self) -> None:
        """Close the connection; the callbacks of its requests are called first, with `error` set.

        A second time does nothing. Any callback may do so. Raises `ThreadError` in a wrong thread.
        Wraps ``evhttp_connection_free``.
        """
        super().close()


def _command(command: int) -> HttpCommand:
    known = convert.flags(HttpCommand, command, "command")
    if known not in tuple(HttpCommand):
        raise ValueError(f"command must be one of HttpCommand, not {known!r}")
    return known


def _target(uri: str | bytes) -> bytes:
    """Return *uri* as the request line has it, or raise an error that says what is wrong (Q4)."""
    target = convert.string(uri, "uri")
    if not target or _FORBIDDEN.search(target):
        raise ValueError(f"uri must have no spaces or control characters, not {uri!r}")
    return target


def _size(size: SupportsIndex | None, name: str) -> int:
    return -1 if size is None else convert.integer(size, name, 0, lib.EV_SSIZE_MAX)
