"""``struct evconnlistener``: a listening socket that accepts connections."""

from __future__ import annotations

import errno
import gc
import io
import os
import socket
import stat
from collections.abc import Callable, Iterator
from typing import Any

from libevent_py import errors, log
from libevent_py._core import convert
from libevent_py._core.dispatch import from_c, live, next_key
from libevent_py._core.handle import Making, came_to_be
from libevent_py._core.owner import Child, Rank, callable_here
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.end import close_all
from libevent_py.enums import ListenerOption
from libevent_py.event.base import EventBase
from libevent_py.event.event import Event

ListenerCallback = Callable[[Any, int, convert.Address], object]
ErrorCallback = Callable[[Any, OSError], object]

_DEFAULT = ListenerOption.REUSEABLE | ListenerOption.CLOSE_ON_FREE

#: How long a listener without `on_error` rests after a failure, in seconds.
REST = 1.0


class Listener(Child):
    """A socket that listens, with a callback for each connection; usable in ``with``, which closes
    it.

    It lives until it is closed, or its base is: nobody has to keep it.
    """

    __slots__ = ("_bound", "_callback", "_on_error", "_resting", "_socket")

    _callback: ListenerCallback | None

    _rank = Rank.LISTENER

    def __init__(
        self,
        base: EventBase,
        address: convert.Address,
        callback: ListenerCallback | None,
        *,
        backlog: int = -1,
        options: int = _DEFAULT,
    ) -> None:
        """Listen on *address*, with up to *backlog* connections waiting (-1: libevent's default).

        Each is handed to ``callback(listener, fd, address)``, which owns the descriptor. When the
        callback raises, the descriptor is closed, and so is a bufferevent that has taken it; a
        Python socket or file that has is left to close it. With None for *callback* connections
        wait until there is one. *address* is ``(host, port)`` with a numeric host, "" for all, or
        the path of a UNIX socket, which is not removed from the file system, here or at the end.
        Text that looks like a host, such as "127.0.0.1:80", is refused with `ValueError`: write
        "./127.0.0.1:80" for a file of that name.
        Unlike in C, the socket is closed with the listener also without CLOSE_ON_FREE, and no child
        process inherits it. Raises `OSError` when the address can't be had, or when the backend
        can't wait for the socket.
        Wraps ``evconnlistener_new_bind``.
        """
        self._check_unmade()
        flags = convert.flags(ListenerOption, options, "options")
        if backlog == 0:
            raise ValueError("backlog must not be 0: the socket doesn't listen yet")
        bound = _bound(address, flags)
        try:
            flags |= ListenerOption.CLOSE_ON_FREE
            self._start(base, bound.fileno(), callback, backlog, flags)
        finally:
            if came_to_be(self):  # then C closes it, whatever comes between
                bound.detach()
            else:
                bound.close()

    @classmethod
    def from_fd(
        cls,
        base: EventBase,
        fd: Any,
        callback: ListenerCallback | None,
        *,
        backlog: int = 0,
        options: int = _DEFAULT,
    ) -> Listener:
        """Accept connections on the bound socket *fd*; with *backlog* 0 it must listen already.

        *fd* is a descriptor or a socket object; it is set not to block (K2). With CLOSE_ON_FREE it
        belongs to the listener, and a socket object is detached from it; without, a socket object
        is kept alive. The callback is as in `Listener`. systemd hands over the descriptors 3, 4 and
        so on, as many as LISTEN_FDS in the environment says, if LISTEN_PID is this process.
        Wraps ``evconnlistener_new``.
        """
        flags = convert.flags(ListenerOption, options, "options")
        number = convert.descriptor(fd)
        if not stat.S_ISSOCK(os.fstat(number).st_mode):  # C would not say that it can't wait for it
            raise ValueError(f"fd must be a socket, not {fd!r}")
        if flags & ListenerOption.CLOSE_ON_FREE:
            convert.surrendered(fd)
        listener = cls.__new__(cls)
        listener._start(base, number, callback, backlog, flags)
        if not isinstance(fd, int):
            if flags & ListenerOption.CLOSE_ON_FREE:
                fd.detach()
            else:
                listener._socket = fd
        return listener

    def _start(
        self, base: EventBase, fd: int, callback: ListenerCallback | None, backlog: int, flags: int
    ) -> None:
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        base._check_thread()
        self._callback = None if callback is None else convert.callback(callback)
        self._on_error: ErrorCallback | None = None
        self._resting = False
        self._socket: Any = None
        #: The `BoundSocket` of the HTTP server that accepts its connections and frees it, or None.
        self._bound: Any = None
        backlog = convert.integer(backlog, "backlog", -1, 2**31 - 1)
        errors.call(lib.evutil_make_socket_nonblocking, fd)
        key, called, below = next_key(), callback is not None, base.pointer
        making = Making(
            lib.evpy_listener_new,
            *(below, fd, flags, backlog, called, key),
            failure=lambda: errors.failed(lib.evconnlistener_new, convert.fd_with(fd, below)),
        )
        super().__init__(base, key, making)
        base._may_call(key, self)

    @property
    def callback(self) -> ListenerCallback | None:
        """What is called as ``callback(listener, fd, address)``, or None.

        Once there has been one, setting it to None has each connection accepted and closed, as in
        C. Wraps ``evconnlistener_set_cb``.
        """
        return self._callback

    @callback.setter
    def callback(self, callback: ListenerCallback | None) -> None:
        self.base._check_thread()
        if self._bound is not None:
            raise ValueError(f"this Listener belongs to {self._bound!r}, which has its connections")
        called = callback is not None
        if called:
            convert.callback(callback)
        if errors.enter(None, lib.evpy_listener_set_cb, self.pointer, called, self._key):
            raise errors.failed(lib.evconnlistener_set_cb, f"fd {self.fd}")
        self._callback = callback

    @property
    def on_error(self) -> ErrorCallback | None:
        """What is called as ``on_error(listener, error)`` when a connection can't be accepted.

        Without it, the error is logged, and the listener rests for a second: a process without free
        descriptors would else be busy failing. Wraps ``evconnlistener_set_error_cb``.
        """
        return self._on_error

    @on_error.setter
    def on_error(self, callback: ErrorCallback | None) -> None:
        self._on_error = None if callback is None else convert.callback(callback, "on_error")

    def enable(self) -> None:
        """Accept connections. Wraps ``evconnlistener_enable``."""
        self.base._check_thread()
        errors.call(lib.evconnlistener_enable, self.pointer)

    def disable(self) -> None:
        """Accept no connections for now; they wait in the kernel.

        Wraps ``evconnlistener_disable``.
        """
        self.base._check_thread()
        self._resting = False
        errors.call(lib.evconnlistener_disable, self.pointer)

    def _facts(self, ask: bool) -> Iterator[str]:
        if ask:
            fd = int(lib.evconnlistener_get_fd(self.pointer))
            yield f"fd {fd}"
            yield convert.told_socket_name(fd)
        if self._resting:
            yield "resting"

    @property
    def fd(self) -> int:
        """The listening socket's descriptor. Wraps ``evconnlistener_get_fd``."""
        return int(lib.evconnlistener_get_fd(self.pointer))

    @property
    def address(self) -> Any:
        """The address that the socket is bound to."""
        return convert.name_of(self, self.fd)

    def _accept_failed(self, code: int) -> None:
        """Tell who wants to know that a connection could not be accepted, and why."""
        error = OSError(code, f"accept: {os.strerror(code)}")
        if self._on_error is not None:
            self._on_error(self, error)
            return
        log.logger.warning("listener on %s rests for %s s: %s", self.address, REST, error)
        self.disable()
        self._resting = True
        self.base.once(self._rested, timeout=REST)

    def _rested(self, _fd: int, _what: int) -> None:
        if self._resting and not self.closed:
            self._resting = False
            self.enable()

    def close(self) -> None:
        """Listen no longer, and close the socket if it belongs to the listener; once.

        The listener's own callbacks may do so. Raises `ThreadError` in a wrong thread.
        Wraps ``evconnlistener_free``.
        """
        if self._bound is None:
            super().close()
        else:
            self._bound.close()

    def _give(self, bound: Any, bind: Callable[[Any, Any], object], place: Any) -> None:
        """Leave it to *bound*, a `BoundSocket`, to accept connections and to free C's object.

        *bind* gives that to C, and puts what C has made of it into *place*, if anything.
        """
        callback = self._callback
        try:
            self._bound, self._callback = bound, None
            bind(self.pointer, place)
        finally:
            if not place[0]:  # no call: an interrupt would leave it given to what there isn't
                self._bound, self._callback = None, callback

    def _taken_back(self) -> None:
        """Be closed, as C has freed, or will free, what has been given."""
        base = self.base
        self._take()
        base._forget(self._key)
        base._unpark_never(self)

    @property
    def _free(self) -> Callable[[Any], object]:  # type: ignore[override]
        """What frees the listener, unless it has been given away."""
        return lib.evconnlistener_free if self._bound is None else _leave


def _leave(_pointer: Any) -> None:
    """Leave it to the one that it has been given to."""


def _bound(address: convert.Address, flags: ListenerOption) -> socket.socket:
    """Return a new socket that is bound to *address* with what *flags* ask for.

    Made here rather than in C, which loses errno on the way.
    """
    target = convert.sockaddr(address)
    family = target.pointer.sa_family
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        fd = made.fileno()
        if family != socket.AF_UNIX:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if flags & ListenerOption.REUSEABLE:
                errors.call(lib.evutil_make_listen_socket_reuseable, fd)
            if flags & ListenerOption.REUSEABLE_PORT:
                errors.call(lib.evutil_make_listen_socket_reuseable_port, fd)
        if family == socket.AF_INET6 and flags & ListenerOption.BIND_IPV6ONLY:
            errors.call(lib.evutil_make_listen_socket_ipv6only, fd)
        if flags & ListenerOption.DEFERRED_ACCEPT:
            errors.call(lib.evutil_make_tcp_listen_socket_deferred, fd)
        try:
            made.bind(address if isinstance(address, tuple) else os.fsencode(address))
        except OSError as error:
            reason = error.strerror
            if error.errno == errno.EADDRINUSE and family == socket.AF_UNIX:
                reason = f"{reason} (when no server has it any longer, remove it first)"
            raise OSError(error.errno, f"address {address!r}: {reason}") from None
    except BaseException:
        made.close()
        raise
    return made


# hot: called for every connection; also, what is kept is asked for when the error has gone.
@ffi.def_extern(onerror=errors.kept)
def evpy_accept(key: int, fd: int, address: Any, length: int) -> bool:
    listener = live.objects.get(key)
    if listener is None:
        return False
    try:
        listener._callback(listener, fd, convert.unpack_address(address, length))
    except BaseException as error:
        listener.base._report(error, listener)
    else:
        return True
    return _kept(fd)  # with the error gone, and with it what it alone has kept


def _kept(fd: int) -> bool:
    """Have nothing wait for *fd* any longer; tell whether a Python object will close it.

    Or they would go on with whatever gets the same number next. What another thread has made of it
    is out of reach.
    """
    for child in callable_here():
        if not isinstance(child, (BufferEvent, Event)) or child.closed or child.fd != fd:
            continue
        if isinstance(child, Event):
            child.delete()
        else:
            close_all(child)  # C notes it if that closes fd
    return any(_closes(fd, thing) for thing in gc.get_objects())


def _closes(fd: int, thing: Any) -> bool:
    """Tell whether *thing* is a Python socket or file that closes *fd*."""
    kind = type(thing)  # isinstance() would ask the thing itself
    if issubclass(kind, socket.socket):
        return socket.socket.fileno(thing) == fd
    if issubclass(kind, io.FileIO):
        return not thing.closed and thing.closefd and io.FileIO.fileno(thing) == fd
    return False


@from_c()
def evpy_accept_error(listener: Any, code: int) -> None:
    listener._accept_failed(code)
