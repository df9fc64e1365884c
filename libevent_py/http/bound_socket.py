"""``struct evhttp_bound_socket``: a socket that an HTTP server listens on, and how it is bound.

Each bound socket has a `Listener` that has been given to the server.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.described import described
from libevent_py._core.dispatch import callable_here, keep_late
from libevent_py._core.frames import goes_on
from libevent_py._core.handle import Handle, came_to_be, slot, take
from libevent_py._core.owner import askable
from libevent_py._core.pointers import copied, when_let_go
from libevent_py._ffi import ffi, lib
from libevent_py.enums import ListenerOption
from libevent_py.event.base import EventBase
from libevent_py.listener import Listener
from libevent_py.vulnerabilities.known import known_vulnerabilities

if TYPE_CHECKING:
    from libevent_py._ffi import CData
    from libevent_py.http.server import HttpServer

#: How many connections may wait to be accepted, as in evhttp itself.
BACKLOG = 128

#: The options with which evhttp itself listens; close-on-exec, so no later program inherits it.
OPTIONS = ListenerOption.REUSEABLE | ListenerOption.CLOSE_ON_EXEC | ListenerOption.CLOSE_ON_FREE

#: The vulnerability by which an AF_UNIX client can end the process.
LONG_ADDRESS = "CVE-2026-63388"


@described(
    server="The `HttpServer` that accepts the connections.",
)
class BoundSocket(Handle):
    """A socket that a server accepts connections on; it ends with the server at the latest."""

    __slots__ = ("_listener", "server")

    server: HttpServer

    def __init__(self, server: HttpServer, listener: Listener) -> None:
        self.server = server
        self._listener = listener

    @property
    def _owner(self) -> HttpServer:
        """What shows that a method of it uses the server's base."""
        return self.server

    def _may_ask(self) -> bool:
        return askable(self.server.base)

    def _facts(self, ask: bool) -> Iterator[str]:
        if ask:
            fd = int(lib.evhttp_bound_socket_get_fd(self.pointer))
            yield f"fd {fd}"
            yield convert.told_socket_name(fd)

    def _unusable(self) -> Exception:
        return self.server.base._why_unusable(self) or super()._unusable()

    @property
    def listener(self) -> Listener:
        """The `Listener`: you can ask, disable and enable it, and set `Listener.on_error`.

        Stands for ``evhttp_bound_socket_get_listener``.
        """
        self._check_usable()  # the listener ends with the bound socket
        return self._listener

    @property
    def fd(self) -> int:
        """The file descriptor. Wraps ``evhttp_bound_socket_get_fd``."""
        self.server.base._check_thread()
        return int(lib.evhttp_bound_socket_get_fd(self.pointer))

    @property
    def address(self) -> Any:
        """The address that the socket is bound to."""
        return self.listener.address

    @property
    def port(self) -> int:
        """The port that the socket is bound to; raises `ValueError` if it has none."""
        address = self.address
        if not isinstance(address, tuple):
            raise ValueError(f"a socket bound to {address!r} has no port")
        return int(address[1])

    def close(self) -> None:
        """Stop accepting connections here, and close the socket; a second time does nothing.

        Connections that have been accepted go on. Wraps ``evhttp_del_accept_socket``.
        """
        if self.closed:
            return
        server = self.server
        server.base._check_thread()
        try:
            http, pointer = copied(server.pointer), copied(self.pointer)
        except AttributeError:
            raise RuntimeError("this BoundSocket is still being made") from None
        what = server, self, http, [pointer]
        try:
            when_let_go(self._end(), functools.partial(_stop, what))
        except BaseException:  # an interrupt
            server.base._free_later(_stop, what)
            raise

    def _unmade(self) -> None:
        """Be closed with the listener, as an interrupt has cut its making short."""
        if came_to_be(self):
            self.close()

    def _end(self) -> list[CData]:
        """Become closed before C closes the socket; return the pointers in use by a method."""
        held = take((self, self._listener))
        self._listener._taken_back()
        return held


@goes_on
def _stop(what: tuple[HttpServer, BoundSocket, CData, list[CData]]) -> None:
    """Have C's server close its socket, whose pointer is in the list, unless that is done."""
    server, bound, http, taken = what
    bound._end()  # an interrupt may have come amid it
    stop = lib.evhttp_del_accept_socket
    if server.closed or bound not in server._bound:  # other code has closed it in between
        return
    if taken:
        pointer = taken[0]
        if bound._listener._disowned:
            lib.evpy_listener_disown(lib.evhttp_bound_socket_get_listener(pointer))
        if not taken:  # other code has closed it in between
            return
        del taken[0]  # no call from here to the next line
        stop(http, pointer)
    if bound in server._bound:
        server._bound.remove(bound)


def listen_at(listener: Listener, base: EventBase, host: str | None, port: int) -> None:
    """Make *listener*, which is new, listen at *host*, a name or a numeric address, and *port*."""
    try:
        address = convert.sockaddr((host or "", port)) and (host or "", port)
    except ValueError:
        if host is not None:
            convert.host_alone(host)
        kind, passive = socket.SOCK_STREAM, socket.AI_PASSIVE
        address = socket.getaddrinfo(host, port, type=kind, flags=passive)[0][4]  # type: ignore[assignment]
    listener.__init__(base, address, None, backlog=BACKLOG, options=OPTIONS)  # type: ignore[misc]


def _bind(server: HttpServer, pointer: CData, listener: CData, place: CData) -> None:
    """Have C's server, *pointer*, accept by *listener*, unless it has become a virtual host."""
    if server._ends:  # it is being closed, and this comes in the middle
        raise server._unusable()
    if server._parent is not None:
        raise ValueError("a virtual host can't listen: its parent does")
    errors.call(lib.evpy_http_bind, pointer, listener, place)


def bind(server: HttpServer, listener: Listener, bound: BoundSocket) -> None:
    """Give *listener* to *server*, as `HttpServer.bind_listener` does; *bound* is made of it."""
    if not isinstance(listener, Listener):
        raise TypeError(f"listener must be a Listener, not {listener!r}")
    server.base._check_thread()
    pointer = server.pointer
    if listener.base is not server.base:
        raise ValueError("listener must be on the server's own base")
    listener._check_unbound()
    if not isinstance(listener.address, tuple):
        _check_mended()
    place = ffi.new("struct evhttp_bound_socket **")
    try:
        listener._give(bound, functools.partial(_bind, server, pointer), place)
    finally:
        if place[0]:
            bound.pointer = place[0]
            server._bound.append(bound)
    if server.closed:  # by other code: C frees the socket with it
        bound._end()
        raise server._unusable()


def _check_mended() -> None:
    """Raise `LibeventError` unless this libevent survives a client with a long path (O12)."""
    hole = next(hole for hole in known_vulnerabilities() if hole.id == LONG_ADDRESS)
    if hole.state != "fixed":
        raise errors.LibeventError(
            f"HTTP can't be served on AF_UNIX by this libevent: {hole.id} is {hole.state} in it "
            f"({hole.detail})"
        )


# Not `from_c`: evhttp's listener has no key, as its argument is evhttp's own.
@ffi.def_extern(onerror=errors.kept, error=0)
def evpy_http_accept_error(pointer: CData, code: int) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    for thing in callable_here():
        if isinstance(thing, Listener) and not thing.closed and slot(thing) == pointer:
            try:
                thing._accept_failed(code)
            except BaseException as interrupt:
                keep_late(interrupt, Listener._accept_failed)
            break
    return 1
