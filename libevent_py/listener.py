"""``struct evconnlistener``: a listening socket that accepts connections."""

from __future__ import annotations

import errno
import gc
import io
import os
import socket
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from libevent_py import errors, log
from libevent_py._core import convert
from libevent_py._core.child import Child, Rank
from libevent_py._core.convert import Address, AddressLike, FileDescriptor, HasFileno
from libevent_py._core.dispatch import NOT_CALLED, callable_here, from_c, keep_late, live, next_key
from libevent_py._core.handle import Making, came_to_be
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.end import close_all
from libevent_py.enums import ListenerOption
from libevent_py.event.base import EventBase
from libevent_py.event.descriptor import own_address
from libevent_py.event.event import Event
from libevent_py.event.explain import Holder, callback_text, explains

if TYPE_CHECKING:
    from libevent_py._ffi import CData
    from libevent_py.http.bound_socket import BoundSocket

#: What gets each connection, as ``callback(listener, fd, address)``: ``evconnlistener_cb``.
ListenerCallback: TypeAlias = Callable[["Listener", int, Address], object]

#: What is told that a connection could not be accepted, as ``on_error(listener, error)``:
#: ``evconnlistener_errorcb``.
ListenerErrorCallback: TypeAlias = Callable[["Listener", OSError], object]

_DEFAULT = ListenerOption.REUSEABLE | ListenerOption.CLOSE_ON_EXEC | ListenerOption.CLOSE_ON_FREE

#: How long a listener without `on_error` rests after a failure, in seconds.
REST = 1.0


class Listener(Child):
    """A listening socket with a callback for each connection; usable in ``with``, which closes it.

    It stays alive until it or its base is closed, even if nothing refers to it.
    """

    __slots__ = ("_bound", "_callback", "_disowned", "_on_error", "_resting", "_socket")

    _callback: ListenerCallback | None

    _rank = Rank.LISTENER

    def __init__(
        self,
        base: EventBase,
        address: AddressLike,
        callback: ListenerCallback | None,
        *,
        backlog: int = -1,
        options: int = _DEFAULT,
    ) -> None:
        """Listen on *address*, with up to *backlog* connections waiting (-1: libevent's default).

        For each connection ``callback(listener, fd, address)`` is called; it owns the descriptor.
        When the callback raises, the descriptor is closed, together with a bufferevent that has
        taken it; if a Python socket or file has taken it, that one closes it. With None for
        *callback*, connections wait until there is a callback. *address* is ``(host, port)`` with a
        numeric host, "" for all addresses, or the path of a UNIX socket, which is never removed
        from the file system. Text that looks like a host, such as "127.0.0.1:80", raises
        `ValueError`: write "./127.0.0.1:80" for a file of that name.

        Unlike in C, closing the listener always closes the socket, even without CLOSE_ON_FREE, and
        no child process inherits it, nor, without *options* of your own, its connections. Raises
        `OSError` when the address can't be bound, or when the backend can't wait for the socket.
        Wraps ``evconnlistener_new``. Stands for ``evconnlistener_new_bind``.
        """
        self._check_unmade()
        flags = convert.flags(ListenerOption, options, "options")
        backlog = convert.integer(backlog, "backlog", -1, 2**31 - 1)
        if backlog == 0:
            raise ValueError("backlog must not be 0: the socket doesn't listen yet")
        bound = _bound(address, flags)
        try:
            self._check_unmade()  # an argument's own method may have made it meanwhile
        except BaseException:
            bound.close()
            raise
        try:
            try:
                flags |= ListenerOption.CLOSE_ON_FREE
                self._start(base, bound.fileno(), callback, backlog, flags)
            finally:
                if came_to_be(self):  # then C closes the socket, even after an interrupt
                    bound.detach()
                else:
                    bound.close()
        except BaseException:
            self._unmade()
            raise

    @classmethod
    def from_fd(
        cls,
        base: EventBase,
        fd: FileDescriptor,
        callback: ListenerCallback | None,
        *,
        backlog: int = 0,
        options: int = _DEFAULT,
    ) -> Listener:
        """Accept connections on the bound socket *fd*; with *backlog* 0 it must listen already.

        *fd* is a descriptor or a socket object, and becomes non-blocking. With CLOSE_ON_FREE the
        listener owns the descriptor, and a socket object is detached from it; without, a socket
        object is kept alive. The callback is as in `Listener`. systemd hands over the descriptors
        3, 4 and so on, as many as LISTEN_FDS in the environment says, if LISTEN_PID is this
        process. Wraps ``evconnlistener_new``.
        """
        flags = convert.flags(ListenerOption, options, "options")
        number = _checked(fd, flags)
        listener = cls.__new__(cls)
        try:
            listener._start(base, number, callback, backlog, flags)
            if not isinstance(fd, int):
                if flags & ListenerOption.CLOSE_ON_FREE:
                    fd.detach()  # type: ignore[attr-defined]  # a socket: see `surrendered`
                else:
                    listener._socket = fd
        except BaseException:  # an interrupt: the caller still has to close the descriptor
            listener._unmade()
            if came_to_be(listener) and (isinstance(fd, int) or fd.fileno() >= 0):
                listener._disowned = True
            raise
        return listener

    def _accept_on(self, base: EventBase, fd: FileDescriptor, flags: int) -> None:
        """Be made for *fd*, which the caller still has to close until `_adopt`."""
        self._start(base, _checked(fd, flags), None, 0, flags, disowned=True)

    def _adopt(self, fd: FileDescriptor) -> None:
        """Own *fd* from now on."""
        if isinstance(fd, socket.socket):
            fd.detach()
        self._disowned = False

    def _give_up(self, fd: FileDescriptor | None = None) -> None:
        """Be closed, as what it was made for has failed; *fd* is its caller's again."""
        if came_to_be(self):
            if fd is not None:
                self._disowned = isinstance(fd, int) or fd.fileno() >= 0
            self.close()

    def _start(
        self,
        base: EventBase,
        fd: int,
        callback: ListenerCallback | None,
        backlog: int,
        flags: int,
        *,
        disowned: bool = False,
    ) -> None:
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        base._check_thread()
        self._callback = None if callback is None else convert.callback(callback)
        self._on_error: ListenerErrorCallback | None = None
        self._resting = False
        #: Whether the caller still has to close the descriptor, as the object is not completed.
        self._disowned = disowned
        self._socket: HasFileno | None = None
        #: The `BoundSocket` of the HTTP server that accepts its connections and frees it, or None.
        self._bound: BoundSocket | None = None
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
        """The function called as ``callback(listener, fd, address)``, or None.

        After it has been set, setting it to None makes each connection be accepted and closed, as
        in C. Wraps ``evconnlistener_set_cb``.
        """
        return self._callback

    @callback.setter
    def callback(self, callback: ListenerCallback | None) -> None:
        self.base._check_thread()
        self._check_usable()
        if self._bound is not None:
            raise ValueError(f"this Listener belongs to {self._bound!r}, which has its connections")
        called = callback is not None
        if called:
            convert.callback(callback)
        if errors.enter(None, lib.evpy_listener_set_cb, self.pointer, called, self._key):
            raise errors.failed(lib.evconnlistener_set_cb, f"fd {self.fd}")
        self._callback = callback

    @property
    def on_error(self) -> ListenerErrorCallback | None:
        """The function called as ``on_error(listener, error)`` when accepting fails, or None.

        Without it, the error is logged and, unlike in C, the listener rests for a second: a process
        without free descriptors would otherwise spin on the error.
        Wraps ``evconnlistener_set_error_cb``.
        """
        return self._on_error

    @on_error.setter
    def on_error(self, callback: ListenerErrorCallback | None) -> None:
        self._on_error = None if callback is None else convert.callback(callback, "on_error")

    def enable(self) -> None:
        """Accept connections. Wraps ``evconnlistener_enable``."""
        self.base._check_thread()
        errors.call(lib.evconnlistener_enable, self.pointer)

    def disable(self) -> None:
        """Stop accepting connections for now; they wait in the kernel.

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
        if self._callback is not None and not self.closed:
            yield f"calls {callback_text(self._callback)}"

    @property
    def fd(self) -> int:
        """The listening socket's descriptor. Wraps ``evconnlistener_get_fd``."""
        return int(lib.evconnlistener_get_fd(self._pointer_here()))

    @property
    def address(self) -> Any:
        """The address that the socket is bound to.

        It is asked for each time: another thread gets `ThreadError`, and has to be told it.
        """
        return convert.name_of(self, self.fd)

    def _accept_failed(self, code: int) -> None:
        """Call `on_error` for the errno *code*; without it, log the error and rest."""
        failure = OSError(code, f"accept: {os.strerror(code)}")
        on_error = self._on_error
        if on_error is not None:
            try:
                on_error(self, failure)
            except BaseException as error:
                try:
                    self.base._report(error, self)
                except BaseException as interrupt:  # it must not have C call once more
                    errors.keep(interrupt)
            return
        log.logger.warning("listener on %s rests for %s s: %s", self.address, REST, failure)
        self.disable()
        self._resting = True
        self.base.once(self._rested, timeout=REST)

    def _rested(self, _fd: int, _what: int) -> None:
        if self._resting and not self.closed:
            self._resting = False
            self.enable()

    def close(self) -> None:
        """Stop listening, and close the socket if the listener owns it; a second time does nothing.

        The listener's own callbacks may call it. Raises `ThreadError` in the wrong thread.
        Wraps ``evconnlistener_free``.
        """
        if self._bound is None:
            super().close()
        else:
            self._bound.close()

    def _give(
        self, bound: BoundSocket, bind: Callable[[CData, CData], object], place: CData
    ) -> None:
        """Let *bound*, a `BoundSocket`, accept connections and free C's object from now on.

        *bind* gives the object to C, and puts what C makes of it, if anything, into *place*.
        """
        callback = self._callback
        if self._bound is not None:  # by other code, since it was asked
            self._check_unbound()
        try:  # no call before this
            self._bound, self._callback = bound, None
            bind(self.pointer, place)
        finally:
            if not place[0]:  # no call: an interrupt would leave it given to nobody
                self._bound, self._callback = None, callback

    def _check_unbound(self) -> None:
        """Raise `ClosedError` if it is closed, and `ValueError` if it belongs to a server."""
        self._check_usable()
        if self._bound is not None:
            raise ValueError("listener belongs to a server already")

    def _taken_back(self) -> None:
        """Become closed, because C has freed, or will free, the object that was given to it."""
        base = self.base
        self._take()
        base._forget(self._key)
        base._unpark_never(self)

    @property
    def _free(self) -> Callable[[CData], object]:
        """The function that frees the listener, unless it has been given away."""
        if self._bound is not None:
            return _leave
        return lib.evpy_listener_free_without_fd if self._disowned else lib.evconnlistener_free


def _leave(_pointer: CData) -> None:
    """Do nothing: the owner that the listener was given to frees it."""


def _checked(fd: FileDescriptor, flags: int) -> int:
    """Return the number of *fd*, which must be a socket that *flags* allow to take."""
    number = convert.descriptor(fd)
    if not stat.S_ISSOCK(os.fstat(number).st_mode):  # C would not report that it can't wait
        raise ValueError(f"fd must be a socket, not {fd!r}")
    if flags & ListenerOption.CLOSE_ON_FREE:
        convert.surrendered(fd)
    return number


def _bound(address: AddressLike, flags: ListenerOption) -> socket.socket:
    """Return a new socket, bound to *address*, with the options that *flags* ask for.

    It is made here rather than in C, which loses errno on the way.
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
                reason = f"{reason} (if no server uses the file any more, remove it first)"
            raise OSError(error.errno, f"address {address!r}: {reason}") from None
    except BaseException:
        made.close()
        raise
    return made


# hot: called for every connection; also, `_kept` must run after the error is gone.
@ffi.def_extern(onerror=errors.kept, error=NOT_CALLED)
def evpy_accept(key: int, fd: int, address: CData, length: int) -> int:
    """Return whether Python has taken the connection, or `NOT_CALLED`, as after an interrupt."""
    listener, begun = live.objects.get(key), False
    if listener is None:
        return False
    try:
        peer = convert.unpack_address(address, length)
        begun = True  # no call from here to the callback's own
        listener._callback(listener, fd, peer)
    except BaseException as error:
        if not begun and not isinstance(error, ValueError):
            raise  # an interrupt
        try:
            listener.base._report(error, listener)
        except BaseException as interrupt:
            errors.keep(interrupt)
    else:
        return True
    try:  # the error is gone, and with it the objects that it alone kept alive
        return _kept(fd)
    except BaseException as interrupt:
        errors.keep(interrupt)
    return _kept(fd)


def _kept(fd: int) -> bool:
    """Stop everything that waits for *fd*; return whether a Python object will close it.

    Otherwise events and bufferevents would go on with the next descriptor of the same number. Those
    made in another thread are out of reach.
    """
    for child in callable_here():
        if not isinstance(child, (BufferEvent, Event)) or child.closed or child.fd != fd:
            continue
        if isinstance(child, Event):
            child.delete()
        else:
            close_all(child)  # C notices if that closes fd
    return any(_closes(fd, thing) for thing in gc.get_objects())


def _closes(fd: int, thing: Any) -> bool:
    """Tell whether *thing* is a Python socket or file that closes *fd*."""
    kind = type(thing)  # isinstance() would ask the thing itself
    if issubclass(kind, socket.socket):
        return socket.socket.fileno(thing) == fd
    if issubclass(kind, io.FileIO):
        return not thing.closed and thing.closefd and io.FileIO.fileno(thing) == fd
    return False


@from_c(late=1, raised=0)
def evpy_accept_error(listener: Listener, code: int) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    try:
        listener._accept_failed(code)
    except BaseException as interrupt:
        keep_late(interrupt, Listener._accept_failed)
    return 1


@explains(Listener)
def explained(listener: Listener) -> Iterator[Holder]:
    """Yield *listener* with its address and, if it doesn't accept, why."""
    if listener._bound is not None:
        return  # told of with its server
    pointer, notes = listener.pointer, []
    if listener._resting:
        notes.append("suspended: it rests for a second after an error of accept(), as logged")
    elif listener._callback is None:
        notes.append("without a callback, connections wait: set callback")
    else:
        notes.append(f"calls {callback_text(listener._callback)}")
    name = f"Listener #{listener._key} on {own_address(lib.evconnlistener_get_fd(pointer))}"
    yield Holder("listener", name, places=(pointer,), notes=notes)
