"""The sockets that an HTTP server listens on.

However they come about, each is a `Listener` that has been given to the server.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Iterator
from typing import Any

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.described import described
from libevent_py._core.dispatch import live
from libevent_py._core.handle import Handle, slot, take
from libevent_py._core.owner import askable
from libevent_py._core.pointers import copied, when_let_go
from libevent_py._ffi import ffi, lib
from libevent_py.enums import ListenerOption
from libevent_py.http.settings import Settings
from libevent_py.listener import Listener
from libevent_py.vulnerabilities.known import known_vulnerabilities

#: How many connections may wait to be accepted, as in evhttp itself.
BACKLOG = 128

#: How evhttp itself listens: no program that is started later gets its connections.
OPTIONS = ListenerOption.REUSEABLE | ListenerOption.CLOSE_ON_EXEC | ListenerOption.CLOSE_ON_FREE

#: The hole by which a client of AF_UNIX ends the process.
LONG_ADDRESS = "CVE-2026-63388"


@described(
    server="The `HttpServer` that accepts the connections.",
)
class BoundSocket(Handle):
    """A socket that a server accepts connections on; it ends with the server at the latest."""

    __slots__ = ("_listener", "server")

    def __init__(self, server: Any, listener: Listener) -> None:
        self.server = server
        self._listener = listener

    def _may_ask(self) -> bool:
        return askable(self.server.base)

    def _facts(self, ask: bool) -> Iterator[str]:
        if ask:
            fd = int(lib.evhttp_bound_socket_get_fd(self.pointer))
            yield f"fd {fd}"
            yield convert.told_socket_name(fd)

    def _unusable(self) -> Exception:
        return self.server.base.why_unusable(self) or super()._unusable()

    @property
    def listener(self) -> Listener:
        """The `Listener`, which can be asked, disabled and enabled, and has `Listener.on_error`.

        Wraps ``evhttp_bound_socket_get_listener``.
        """
        self.pointer  # noqa: B018  (it ends with this)
        return self._listener

    @property
    def fd(self) -> int:
        """The descriptor. Wraps ``evhttp_bound_socket_get_fd``."""
        return int(lib.evhttp_bound_socket_get_fd(self.pointer))

    @property
    def address(self) -> Any:
        """The address that the socket is bound to."""
        return self.listener.address

    @property
    def port(self) -> int:
        """The port that the socket is bound to; raises `ValueError` where it has none."""
        address = self.address
        if not isinstance(address, tuple):
            raise ValueError(f"a socket bound to {address!r} has no port")
        return int(address[1])

    def close(self) -> None:
        """Accept no more connections here, and close the socket; a second time does nothing.

        Connections that have been accepted go on. Wraps ``evhttp_del_accept_socket``.
        """
        if self.closed:
            return
        server = self.server
        server.base.check_thread()
        try:
            http, pointer = copied(server.pointer), copied(self.pointer)
        except AttributeError:
            raise RuntimeError("this BoundSocket is still being made") from None
        held = self.end()
        if self not in server.bound:  # other code has closed it in between
            return
        server.bound.remove(self)
        when_let_go(held, functools.partial(lib.evhttp_del_accept_socket, http, pointer))

    def end(self) -> list[Any]:
        """Be closed, as C closes the socket; return the pointers that a method is about to use."""
        held = take((self, self._listener))
        self._listener.taken_back()
        return held


class Listening(Settings):
    """What `HttpServer` has of listening."""

    __slots__ = ("_parent", "bound")

    def __init__(self, base: Any, key: int, pointer: Any) -> None:
        #: The server that this one is a virtual host of, or None.
        self._parent: Any = None
        #: The sockets that it accepts connections on.
        self.bound: list[BoundSocket] = []
        super().__init__(base, key, pointer)

    def bind_socket(self, host: str | None, port: int) -> BoundSocket:
        """Accept connections on *host* and *port*; return the socket, which knows its address.

        None for *host* stands for all addresses, 0 for *port* for any that is free. A name is
        looked up, while the loop waits. Raises `OSError` when the address can't be had.
        Wraps ``evhttp_bind_socket``, ``evhttp_bind_socket_with_handle``.
        """
        port = convert.integer(port, "port", 0, 65535)
        try:
            address = convert.sockaddr((host or "", port)) and (host or "", port)
        except ValueError:
            if host is not None:
                convert.host_alone(host)
            kind, passive = socket.SOCK_STREAM, socket.AI_PASSIVE
            address = socket.getaddrinfo(host, port, type=kind, flags=passive)[0][4]  # type: ignore[assignment]
        return self._take_over(
            lambda: Listener(self.base, address, None, backlog=BACKLOG, options=OPTIONS)
        )

    def accept_socket(self, fd: Any) -> BoundSocket:
        """Accept connections on the socket *fd*, which listens already, and belongs to the server.

        *fd* is a descriptor, or a socket object, which is detached. Unlike in C, it is set not to
        block (K2). Wraps ``evhttp_accept_socket``, ``evhttp_accept_socket_with_handle``.
        """
        return self._take_over(lambda: Listener.from_fd(self.base, fd, None, options=OPTIONS))

    def _take_over(self, listen: Callable[[], Listener]) -> BoundSocket:
        self.pointer  # noqa: B018  (a closed server takes nothing)
        listener = listen()
        try:
            return self.bind_listener(listener)
        except BaseException:
            listener.close()
            raise

    def bind_listener(self, listener: Listener) -> BoundSocket:
        """Accept the connections of *listener*, which belongs to the server from now on.

        Closing it closes the `BoundSocket`. Raises `ValueError` when it belongs to a server
        already, or has another base, and for a virtual host; `LibeventError` for one of AF_UNIX
        unless libevent is known to be mended: else any client could end the process (O12).
        Wraps ``evhttp_bind_listener``.
        """
        if not isinstance(listener, Listener):
            raise TypeError(f"listener must be a Listener, not {listener!r}")
        self.base.check_thread()
        pointer = self.pointer
        if listener.base is not self.base:
            raise ValueError("listener must be on the server's own base")
        if listener._bound is not None:
            raise ValueError("listener belongs to a server already")
        if self._parent is not None:
            raise ValueError("a virtual host can't listen: its parent does")
        if not isinstance(listener.address, tuple):
            _check_mended()
        bound, callback = BoundSocket(self, listener), listener._callback
        place = ffi.new("struct evhttp_bound_socket **")
        try:
            listener.give(bound)
            errors.call(lib.evpy_http_bind, pointer, listener.pointer, place)
        finally:
            if place[0]:
                bound.pointer = place[0]
                self.bound.append(bound)
            else:
                listener._bound, listener._callback = None, callback
        if self.closed:  # other code has closed it: C frees this with it
            bound.end()
            raise self._unusable()
        return bound

    @property
    def bound_sockets(self) -> list[BoundSocket]:
        """The sockets that it accepts connections on.

        A copy, so that unlike in C they may be closed meanwhile (O9).
        Wraps ``evhttp_foreach_bound_socket``.
        """
        self.pointer  # noqa: B018  (a closed server has none)
        return list(self.bound)


def _check_mended() -> None:
    """Raise `LibeventError` unless a client's long path does libevent no harm."""
    hole = next(hole for hole in known_vulnerabilities() if hole.id == LONG_ADDRESS)
    if hole.state != "fixed":
        raise errors.LibeventError(
            f"HTTP can't be served on AF_UNIX by this libevent: {hole.id} is {hole.state} in it "
            f"({hole.detail})"
        )


@ffi.def_extern(onerror=errors.kept)
def evpy_http_accept_error(pointer: Any, code: int) -> None:
    for base in live.bases:
        for thing in list(base.live.values()):
            if isinstance(thing, Listener) and not thing.closed and slot(thing) == pointer:
                try:
                    thing.accept_failed(code)
                except BaseException as error:
                    base.report(error, thing)
                return
