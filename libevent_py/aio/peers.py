"""Connections for coroutines: to a peer, from peers, and what names stand for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from libevent_py._core import convert
from libevent_py.aio.lookups import getaddrinfo
from libevent_py.aio.streams import LIMIT, Stream, checked_limit, wake
from libevent_py.aio.waits import can_go_on, forget, waiter_on
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.connect import FAMILIES
from libevent_py.bufferevent.tls import TlsContext
from libevent_py.dns.base import DnsBase
from libevent_py.enums import BufferEventOption
from libevent_py.errors import ClosedError, ForkError
from libevent_py.event.base import EventBase
from libevent_py.event.event import Event
from libevent_py.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from libevent_py.enums import EventFlag

OPTIONS = BufferEventOption.CLOSE_ON_FREE | BufferEventOption.DEFER_CALLBACKS

#: How many connections are accepted before somebody takes them.
BACKLOG = 100


def base_here() -> EventBase:
    """Return the base of the running loop; raise `RuntimeError` if the loop has none."""
    base = getattr(asyncio.get_running_loop(), "base", None)
    if not isinstance(base, EventBase):
        raise RuntimeError("the running loop is not one of libevent_py.aio, so it has no base")
    return base


def check_where(
    host: str | None,
    path: str | bytes | os.PathLike[str] | None,
    tls: TlsContext | None,
    context: str,
) -> None:
    """Raise an error unless there is either a host, without a port in it, or a path."""
    if (host is None) == (path is None):
        raise ValueError("give either a host and a port, or a path")
    if host is not None:
        convert.host_alone(host)
    elif not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"path must be str, bytes or os.PathLike, not {path!r}")
    if tls is not None and not isinstance(tls, TlsContext):
        raise TypeError(f"tls must be a TlsContext, {context}, not {tls!r}")


async def connect(
    host: str | None = None,
    port: int = 0,
    *,
    path: str | bytes | os.PathLike[str] | None = None,
    tls: TlsContext | None = None,
    server_hostname: str | None = None,
    dns: DnsBase | None = None,
    family: int = socket.AF_UNSPEC,
    limit: int = LIMIT,
) -> Stream:
    """Connect to *host* and *port*, or to the UNIX socket *path*, and return the stream.

    With *tls*, a client's context, the handshake is over when this returns; *server_hostname* is
    *host* unless it is given. *dns* looks the host up; without it, a thread does. The addresses are
    tried one after the other. *limit* is that of `Stream`. Raises the `OSError` of the last address
    that was tried, `DnsError` or `socket.gaierror` if there is none, `TlsError` if TLS fails.
    Cancelled, it leaves nothing behind.
    """
    base = base_here()
    check_where(host, path, tls, "a client's")
    limit = checked_limit(limit)
    if host is not None:
        port = convert.integer(port, "port", 1, 65535)
    if family not in FAMILIES:
        raise ValueError(f"family must be AF_UNSPEC, AF_INET or AF_INET6, not {family!r}")
    name = server_hostname if server_hostname is not None else host
    addresses: Iterable[Any] = [path]
    if host is not None:
        if dns is not None:
            found = await getaddrinfo(dns, host, port, family=family, type=socket.SOCK_STREAM)
        else:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, family=family, type=socket.SOCK_STREAM
            )
        addresses = [address for *_, address in found]
    failure: BaseException | None = None
    for address in addresses:
        try:
            return await connected(base, address, tls, name, limit)
        except OSError as error:
            failure = error
    assert failure is not None  # whoever finds no address has raised
    raise failure


async def connected(
    base: EventBase, address: Any, tls: TlsContext | None, name: str | None, limit: int
) -> Stream:
    """Connect to *address*, and return the stream."""
    if tls is None:
        bev = BufferEvent(base, -1, OPTIONS)
    else:
        bev = BufferEvent.tls(base, -1, tls, options=OPTIONS, server_hostname=name)
    stream = Stream(bev, limit=limit)
    try:
        bev.connect(address)
        await stream._connects()
        return stream
    except BaseException:
        stream.close()
        raise


class Streams:
    """A listening socket whose connections are streams: ``async for stream in streams``.

    It stops accepting while ``BACKLOG`` streams wait to be taken. ``async with`` closes it, and the
    streams that nobody has taken.
    """

    def __init__(
        self,
        base: EventBase,
        address: convert.AddressLike,
        tls: TlsContext | None,
        limit: int,
    ) -> None:
        self._tls = tls
        self._limit = limit
        self._waiting: deque[Stream] = deque()
        self._error: OSError | None = None
        self._taker: asyncio.Future[None] | None = None
        self._listener = Listener(base, address, self._accept)
        self._listener.on_error = self._failed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._listener!r}>"

    @property
    def address(self) -> Any:
        """The address that it listens on: ``(host, port)``, or the path of a UNIX socket."""
        return self._listener.address

    def _accept(self, listener: Listener, fd: int, _address: Any) -> None:
        if self._tls is None:
            bev = BufferEvent(listener.base, fd, OPTIONS)
        else:
            bev = BufferEvent.tls(listener.base, fd, self._tls, options=OPTIONS)
        self._waiting.append(Stream(bev, limit=self._limit))
        if len(self._waiting) >= BACKLOG:
            listener.disable()
        wake(self._taker)

    def _failed(self, _listener: Listener, error: OSError) -> None:
        self._error = error
        wake(self._taker)

    def __aiter__(self) -> Streams:
        return self

    async def __anext__(self) -> Stream:
        try:
            return await self.accept()
        except ClosedError:
            raise StopAsyncIteration from None

    async def accept(self) -> Stream:
        """Wait for a connection, and return its stream.

        With TLS, the handshake goes on meanwhile: its failure is that of the first read. Raises
        `ClosedError` once it is closed, and the `OSError` by which accepting has failed.
        """
        if self._taker is not None:
            raise RuntimeError("another coroutine waits for connections of this listener already")
        while not self._waiting:
            if self._listener.closed:
                raise ClosedError("the listener is closed")
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            self._taker = waiter_on(self._listener.base)
            try:
                await self._taker
            finally:
                self._taker = None
        if not self._listener.closed and len(self._waiting) >= BACKLOG:
            self._listener.enable()
        return self._waiting.popleft()

    def close(self) -> None:
        """Close the socket, and the streams that nobody has taken; a second time does nothing."""
        self._listener.close()
        while self._waiting:
            self._waiting.pop().close()
        wake(self._taker)

    async def __aenter__(self) -> Streams:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def listen(
    host: str | None = None,
    port: int = 0,
    *,
    path: str | bytes | os.PathLike[str] | None = None,
    tls: TlsContext | None = None,
    limit: int = LIMIT,
) -> Streams:
    """Listen on *host* and *port*, or at the UNIX socket *path*; iterate over the result.

    *host* is a numeric address, "" for all; 0 for *port* is any free one. With *tls*, a server's
    context, the streams speak TLS. *limit* is that of `Stream`. Raises `OSError` when the address
    can't be bound.
    """
    check_where(host, path, tls, "a server's")
    limit = checked_limit(limit)
    if host is not None:
        address: convert.AddressLike = host, convert.integer(port, "port", 0, 65535)
    else:
        assert path is not None
        address = path
    return Streams(base_here(), address, tls, limit)


async def wait(event: Event, timeout: float | None = None) -> EventFlag:
    """Wait until *event* fires, and return what for; its callback is called as well.

    It is added first, with *timeout* in seconds, unless it is pending. Cancelled, it is deleted if
    it was added here. Raises `RuntimeError` if another coroutine waits for it.
    """
    if not isinstance(event, Event):
        raise TypeError(f"event must be an Event, not {event!r}")
    convert.optional_seconds(timeout)
    base = event.base
    done: asyncio.Future[EventFlag] = waiter_on(base)
    callback = event.callback
    if getattr(callback, "waits", False):
        raise RuntimeError(f"another coroutine waits for {event!r} already")

    def fired(event: Event, fd: int, what: EventFlag) -> None:
        if can_go_on(done):
            done.set_result(what)
        callback(event, fd, what)

    def closed() -> None:
        if can_go_on(done):
            done.set_exception(ClosedError("the event was closed while a coroutine waited for it"))

    fired.waits = True  # type: ignore[attr-defined]
    event.callback = fired
    added = False
    try:
        base._when_closed(event._key, closed)
        added = not event.pending
        if added:
            event.add(timeout)
        return await done
    except BaseException:
        if added and not event.closed and not base._forked:
            event.delete()
        raise
    finally:
        forget(done)
        base._when_closed(event._key, None)
        with contextlib.suppress(ClosedError, ForkError):
            event.callback = callback
