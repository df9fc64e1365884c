"""``struct evconnlistener``: a listening socket that accepts connections."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from typing import Any

from libevent_py import _convert, errors, log
from libevent_py._ffi import ffi, lib
from libevent_py._lifetime import Child, Root, live, next_key
from libevent_py.base import EventBase
from libevent_py.bufferevent import BufferEvent
from libevent_py.enums import ListenerOption

ListenerCallback = Callable[[Any, int, _convert.Address], object]
ErrorCallback = Callable[[Any, OSError], object]

_DEFAULT = ListenerOption.REUSEABLE | ListenerOption.CLOSE_ON_FREE

#: How long a listener without `on_error` rests after a failure, in seconds.
REST = 1.0


class Listener(Child):
    """A socket that listens, with a callback for each connection; usable in ``with``, which closes
    it.

    It lives until it is closed, or its base is: nobody has to keep it.
    """

    __slots__ = ("_callback", "_on_error", "_options", "_resting", "_socket")

    _callback: ListenerCallback

    rank = 1

    def __init__(
        self,
        base: EventBase,
        address: _convert.Address,
        callback: ListenerCallback,
        *,
        backlog: int = -1,
        options: int = _DEFAULT,
    ) -> None:
        """Listen on *address*, with up to *backlog* connections waiting (-1: libevent's default).

        Each is handed to ``callback(listener, fd, address)``, which owns the descriptor; it is
        closed when the callback raises, and so is a bufferevent that has taken it. Raises `OSError`
        when the address can't be had.
        Wraps ``evconnlistener_new_bind``.
        """
        flags = _convert.flags(ListenerOption, options, "options")
        if backlog == 0:
            raise ValueError("backlog must not be 0: the socket doesn't listen yet")
        bound = _bound(address, flags)
        try:
            self._start(base, bound.fileno(), callback, backlog, flags)
        except BaseException:
            bound.close()
            raise
        self._keep(bound)

    @classmethod
    def from_fd(
        cls,
        base: EventBase,
        fd: Any,
        callback: ListenerCallback,
        *,
        backlog: int = 0,
        options: int = _DEFAULT,
    ) -> Listener:
        """Accept connections on the bound socket *fd*; with *backlog* 0 it must listen already.

        *fd* is a descriptor or a socket object; it is set not to block (K2). With CLOSE_ON_FREE it
        belongs to the listener, and a socket object is detached from it.
        Wraps ``evconnlistener_new``.
        """
        flags = _convert.flags(ListenerOption, options, "options")
        number = _convert.descriptor(fd)
        if not stat.S_ISSOCK(os.fstat(number).st_mode):  # C would not say that it can't wait for it
            raise ValueError(f"fd must be a socket, not {fd!r}")
        if flags & ListenerOption.CLOSE_ON_FREE:
            _convert.surrendered(fd)
        listener = cls.__new__(cls)
        listener._start(base, number, callback, backlog, flags)
        listener._keep(None if isinstance(fd, int) else fd)
        return listener

    def _start(
        self, base: EventBase, fd: int, callback: ListenerCallback, backlog: int, flags: int
    ) -> None:
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        base.check_thread()
        self._callback = _convert.callback(callback)
        self._on_error: ErrorCallback | None = None
        self._options = ListenerOption(flags)
        self._resting = False
        backlog = _convert.integer(backlog, "backlog", -1, 2**31 - 1)
        errors.call(lib.evutil_make_socket_nonblocking, fd)
        key = next_key()
        pointer = errors.new(lib.evpy_listener_new, base.pointer, fd, flags, backlog, key)
        Child.__init__(self, base, key, pointer)
        base.live[key] = self

    def _keep(self, fd: Any) -> None:
        """Give the listener its socket object, or keep it for who made it."""
        self._socket = fd
        if self._options & ListenerOption.CLOSE_ON_FREE and fd is not None:
            fd.detach()
            self._socket = None

    @property
    def callback(self) -> ListenerCallback:
        """What is called as ``callback(listener, fd, address)``.

        Wraps ``evconnlistener_set_cb``.
        """
        return self._callback

    @callback.setter
    def callback(self, callback: ListenerCallback) -> None:
        self._callback = _convert.callback(callback)

    @property
    def on_error(self) -> ErrorCallback | None:
        """What is called as ``on_error(listener, error)`` when a connection can't be accepted.

        Without it, the error is logged, and the listener rests for a second: a process without free
        descriptors would else be busy failing. Wraps ``evconnlistener_set_error_cb``.
        """
        return self._on_error

    @on_error.setter
    def on_error(self, callback: ErrorCallback | None) -> None:
        self._on_error = None if callback is None else _convert.callback(callback, "on_error")

    def enable(self) -> None:
        """Accept connections. Wraps ``evconnlistener_enable``."""
        self.base.check_thread()
        errors.call(lib.evconnlistener_enable, self.pointer)

    def disable(self) -> None:
        """Accept no connections for now; they wait in the kernel.

        Wraps ``evconnlistener_disable``.
        """
        self.base.check_thread()
        self._resting = False
        errors.call(lib.evconnlistener_disable, self.pointer)

    @property
    def fd(self) -> int:
        """The listening socket's descriptor. Wraps ``evconnlistener_get_fd``."""
        return int(lib.evconnlistener_get_fd(self.pointer))

    @property
    def address(self) -> Any:
        """The address that the socket is bound to."""
        # By no copy of the descriptor: the process may have run out of them.
        borrowed = socket.socket(fileno=self.fd)
        try:
            return borrowed.getsockname()
        finally:
            borrowed.detach()

    def _failed(self, error: OSError) -> None:
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

    #: Also closes the socket, with CLOSE_ON_FREE. Wraps ``evconnlistener_free``.
    free = staticmethod(lib.evconnlistener_free)


def _bound(address: _convert.Address, flags: ListenerOption) -> socket.socket:
    """Return a new socket that is bound to *address* with what *flags* ask for.

    Made here rather than in C, which loses errno on the way.
    """
    target = _convert.sockaddr(address)
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
            made.bind(address)
        except OSError as error:
            raise OSError(error.errno, f"address {address!r}: {error.strerror}") from None
    except BaseException:
        made.close()
        raise
    return made


@ffi.def_extern(onerror=errors.kept)
def evpy_accept(key: int, fd: int, address: Any, length: int) -> bool:
    for base in live.bases:
        listener = base.live.get(key)
        if listener is not None:
            try:
                listener._callback(listener, fd, _convert.unpack_address(address, length))
            except BaseException as error:
                base.report(error, listener)
                return _closed(base, fd)
            return True
    return False


def _closed(base: Root, fd: int) -> bool:
    """Close the bufferevent that owns *fd*, and so *fd* itself; tell whether there is one."""
    for child in base.live.values():
        if isinstance(child, BufferEvent) and child.owns(fd):
            child.close()
            return True
    return False


@ffi.def_extern(onerror=errors.kept)
def evpy_accept_error(key: int, code: int) -> None:
    for base in live.bases:
        listener = base.live.get(key)
        if listener is not None:
            try:
                listener._failed(OSError(code, f"accept: {os.strerror(code)}"))
            except BaseException as error:
                base.report(error, listener)
