"""``struct bufferevent``: a socket with an input and an output buffer, and callbacks for both."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.dispatch import next_key
from libevent_py._core.handle import Making, came_to_be
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.buffer import BorrowedBuffer
from libevent_py.bufferevent.connect import Connecting
from libevent_py.bufferevent.eager import Arena
from libevent_py.bufferevent.given import GivenBuffer, given
from libevent_py.bufferevent.layers import Filter, checked_filter, free_upper
from libevent_py.bufferevent.stream import (
    Callbacks,
    DataCallback,
    EventCallback,
    checked_callbacks,
    checked_options,
)
from libevent_py.bufferevent.tls import Connection, TlsContext
from libevent_py.enums import BufferEventOption
from libevent_py.event.base import EventBase

#: What filters and TLS are made with unless their user says otherwise. Without DEFER_CALLBACKS
#: libevent leaves below a filter what a watermark has held back, until more comes; and TLS tells of
#: the end before it has given out what came with it (I9).
LAYER_OPTIONS = BufferEventOption.CLOSE_ON_FREE | BufferEventOption.DEFER_CALLBACKS

Self = TypeVar("Self", bound="BufferEvent")


class BufferEvent(Connecting):
    """A stream socket that libevent reads from and writes to; usable in ``with``, which closes it.

    It lives until it is closed, or its base is: nobody has to keep it.
    """

    __slots__ = ("_socket",)

    def __init__(
        self,
        base: EventBase,
        fd: Any = -1,
        options: int = BufferEventOption.CLOSE_ON_FREE,
        *,
        on_read: DataCallback | None = None,
        on_write: DataCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> None:
        """Make a bufferevent for the stream socket *fd*, or with -1 for one that `connect` makes.

        *fd* is a descriptor or a socket object; it is set not to block. With CLOSE_ON_FREE it
        belongs to the bufferevent, and a socket object is detached from it; without, a socket
        object is kept alive. Writing is enabled from the start, reading is not. The callbacks are
        as in `setcb`. Unlike in C, where nothing would ever be read or written, it raises `OSError`
        when the backend can't wait for *fd*, as epoll can't for a regular file.
        Wraps ``bufferevent_socket_new``.
        """
        self._check_unmade()
        _check_base(base)
        options = checked_options(options)
        callbacks = checked_callbacks(on_read, on_write, on_event)
        number = _usable(base, fd, options)
        for_c = options & ~BufferEventOption.EAGER
        making = Making(lib.evpy_bufferevent_socket_new, base.pointer, number, for_c)
        self._begin()
        try:
            self._start(base, next_key(), making, options, callbacks)
            if BufferEventOption.EAGER in options:
                lib.bufferevent_set_max_single_read(self.pointer, lib.EVPY_ARENA)
            self._sends_files = False
            self._adopt(fd)
        except BaseException:
            if isinstance(fd, int) or fd.fileno() >= 0:  # it is still who gave it's to close
                self._options = options & ~BufferEventOption.CLOSE_ON_FREE
            raise

    def _begin(self) -> None:
        self._connected_by_us = False
        self._partner = None
        self._socket: Any = None

    @classmethod
    def pair(
        cls: type[Self], base: EventBase, options: int = BufferEventOption.DEFER_CALLBACKS
    ) -> tuple[Self, Self]:
        """Make two bufferevents of which each reads what the other writes, without a socket.

        Their callbacks are always deferred. Closing one tells the other nothing: before,
        `flush` it with FINISHED, and the other gets EOF. Wraps ``bufferevent_pair_new``.
        """
        _check_base(base)
        flags = convert.flags(BufferEventOption, options, "options")
        flags = checked_options(flags | BufferEventOption.DEFER_CALLBACKS)
        flags &= ~BufferEventOption.EAGER
        pointers = ffi.new("struct bufferevent *[2]")
        one, other = cls.__new__(cls), cls.__new__(cls)
        try:
            errors.call(lib.evpy_bufferevent_pair_new, base.pointer, flags, pointers)
            for bev, pointer, partner in (one, pointers[0], other), (other, pointers[1], one):
                bev._begin()
                bev._partner = weakref.ref(partner)
                bev._start(base, next_key(), pointer, flags, (None, None, None), calls_back=True)
        except BaseException:
            for bev, pointer in zip((one, other), pointers, strict=True):
                if pointer and not came_to_be(bev):
                    lib.evpy_bufferevent_free(pointer)
            raise
        return one, other

    @classmethod
    def filter(
        cls: type[Self],
        underlying: BufferEvent,
        input_filter: Filter | None,
        output_filter: Filter | None,
        options: int = LAYER_OPTIONS,
        *,
        on_read: DataCallback | None = None,
        on_write: DataCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> Self:
        """Make a bufferevent on top of *underlying*, whose bytes pass through two functions.

        What is read from *underlying* passes through *input_filter*, what is written to it through
        *output_filter*; with None, unchanged. A filter is called as ``filter(source, destination,
        limit, mode)``: it takes bytes from the `Buffer` *source*, adds up to *limit* bytes (None:
        any number) to *destination*, and returns a `FilterResult`: OK when it has done something,
        and then is called again for what it has left; NEED_MORE when it waits for more; ERROR to
        stop. Unlike in C, OK from one that has done nothing counts as NEED_MORE. *mode* is of
        `FlushMode`. What a filter raises comes out of the call or the loop that led to it, and
        libevent is told ERROR.

        The callbacks and the descriptor of *underlying*, whose reading and writing are enabled,
        belong to the filter until it is closed; with CLOSE_ON_FREE, *underlying* is closed with it.
        Unlike in C, what *underlying* holds already, or gets while the filter's reading is
        disabled, passes when reading is enabled.
        Raises `ValueError` if something stands on *underlying* already.
        Wraps ``bufferevent_filter_new``.
        """
        if not isinstance(underlying, BufferEvent):
            raise TypeError(f"underlying must be a BufferEvent, not {underlying!r}")
        base = underlying.base
        base.check_thread()
        flags = checked_options(options) & ~BufferEventOption.EAGER
        callbacks = checked_callbacks(on_read, on_write, on_event)
        bev = cls.__new__(cls)
        bev._begin()
        bev._input_filter = checked_filter(input_filter, "input_filter")
        bev._output_filter = checked_filter(output_filter, "output_filter")
        below, key = underlying._give_up(), next_key()
        making = Making(
            lib.evpy_filter_new,
            below,
            input_filter is not None,
            output_filter is not None,
            flags & ~BufferEventOption.CLOSE_ON_FREE,
            key,
        )
        bev._start(base, key, making, flags, callbacks, underlying)
        return bev

    @classmethod
    def tls(
        cls: type[Self],
        base: EventBase,
        fd: Any,
        context: TlsContext | Any,
        state: int | None = None,
        *,
        server_hostname: str | None = None,
        options: int = LAYER_OPTIONS,
        on_read: DataCallback | None = None,
        on_write: DataCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> Self:
        """Make a bufferevent that speaks TLS through the socket *fd*, or with -1 one to `connect`.

        *fd*, *options* and the callbacks are as when it is made without TLS; EAGER changes nothing.
        A client's *server_hostname* is told to the server, whose certificate must be for it, as
        *context* says. *state* is of `TlsState`, by default what goes with the context. The loop
        begins the handshake once there is a connection, and `on_event` will say CONNECTED, or ERROR
        with a `TlsError` as `error`. That the peer has closed in TLS's own way is EOF; libevent
        itself doesn't tell the peer when it closes: see `shutdown`.

        Instead of a `TlsContext` an ``SSL *`` of the raw layer can be given, which nothing else may
        use meanwhile; state OPEN is for one whose handshake is done.

        Raises `TlsError`, `ValueError` where a server is to be verified and *server_hostname* is
        missing, and `LibeventError` where this module was built without TLS. Wraps
        ``bufferevent_openssl_socket_new``.
        """
        _check_base(base)
        flags = checked_options(options) & ~BufferEventOption.EAGER
        callbacks = checked_callbacks(on_read, on_write, on_event)
        number = _usable(base, fd, flags)
        connection = Connection.of(context, state, server_hostname)
        bev = cls._secured_by(connection, base, None, number, flags, callbacks)
        bev._adopt(fd)
        return bev

    @classmethod
    def tls_filter(
        cls: type[Self],
        underlying: BufferEvent,
        context: TlsContext | Any,
        state: int | None = None,
        *,
        server_hostname: str | None = None,
        options: int = LAYER_OPTIONS,
        on_read: DataCallback | None = None,
        on_write: DataCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> Self:
        """Make a bufferevent that speaks TLS through *underlying*, whatever kind that is.

        Such as one whose peer has agreed in the clear to begin with TLS now. *underlying* is used
        as `filter` does, the rest is as in `tls`. That *underlying* is at its end without TLS's own
        notice is an ERROR here, too, unless `allow_dirty_shutdown` is set; after that notice it is
        one as well, whose `error` is None. Raises what those two raise, and `ValueError` for a
        filter that was made without DEFER_CALLBACKS: it would call
        OpenSSL again inside OpenSSL's own call (I5). THREADSAFE asks for the same below, which
        otherwise would be left with a lock that has ended. Wraps
        ``bufferevent_openssl_filter_new``.
        """
        if not isinstance(underlying, BufferEvent):
            raise TypeError(f"underlying must be a BufferEvent, not {underlying!r}")
        base = underlying.base
        base.check_thread()
        flags = checked_options(options) & ~BufferEventOption.EAGER
        callbacks = checked_callbacks(on_read, on_write, on_event)
        underlying._give_up()
        below = underlying._options
        if underlying._underlying is not None and not below & BufferEventOption.DEFER_CALLBACKS:
            raise ValueError("underlying must be made with DEFER_CALLBACKS where it is a filter")
        if flags & ~below & BufferEventOption.THREADSAFE:
            raise ValueError("underlying must be THREADSAFE where TLS through it is to be so")
        connection = Connection.of(context, state, server_hostname)
        return cls._secured_by(connection, base, underlying, -1, flags, callbacks)

    @classmethod
    def _secured_by(
        cls: type[Self],
        connection: Connection,
        base: EventBase,
        underlying: BufferEvent | None,
        fd: int,
        options: BufferEventOption,
        callbacks: Callbacks,
    ) -> Self:
        """Make one that *connection* is for, through *underlying* or else *fd*."""
        for_c = options
        if underlying is not None:  # by libevent's own rule it would be freed with this one (H1)
            for_c &= ~BufferEventOption.CLOSE_ON_FREE
        bev = cls.__new__(cls)
        bev._begin()
        making = Making(
            lib.evpy_tls_new,
            base.pointer,
            ffi.NULL if underlying is None else underlying.pointer,
            fd,
            connection.ssl,
            connection.state,
            for_c,
            enter=base.call,  # what is below may be a filter, which is called
            failure=functools.partial(errors.failed, lib.bufferevent_openssl_socket_new),
        )
        try:
            bev._start(
                *(base, next_key(), making, options, callbacks, underlying),
                calls_back=True,
                tls=connection,
            )
        finally:
            connection.release()
        return bev

    def _give_up(self) -> Any:
        """Return the pointer for C to put something on, or raise `ValueError` if it has already."""
        pointer = self.pointer
        self.base.pointer  # noqa: B018  (nothing is made while the base closes what there is)
        self._check_unmanaged()
        self._settle()
        return pointer

    @property
    def partner(self) -> BufferEvent | None:
        """The other half of a pair, or None; None also once that is closed.

        Wraps ``bufferevent_pair_get_partner``.
        """
        self.pointer  # noqa: B018  (a closed one has no partner)
        partner = None if self._partner is None else self._partner()
        return None if partner is None or partner.closed else partner

    def _adopt(self, fd: Any) -> None:
        """Take the socket object *fd* from who made it, or keep it for them."""
        self._socket = None
        if not isinstance(fd, int):
            if self._options & BufferEventOption.CLOSE_ON_FREE:
                fd.detach()
            else:
                self._socket = fd

    def connect(self, address: convert.Address) -> None:
        """Begin to connect to *address*; `on_event` will say CONNECTED or ERROR.

        It is ``(host, port)``, or the path of a UNIX socket. Raises `ValueError` for what is no
        numeric address, such as "127.0.0.1:80", and for a pair or a filter; `OSError`
        for what fails at once, as connecting twice, of which libevent would report that it has been
        done.
        Wraps ``bufferevent_socket_connect``.
        """
        self.base.check_thread()
        self._settle()
        target = convert.sockaddr(address)
        self._prepare(self.pointer)
        self._stop_looking_up(self.pointer)
        self._lookup = None
        errors.call(lib.bufferevent_socket_connect, self.pointer, target.pointer, target.length)
        self.look()

    @property
    def fd(self) -> int:
        """The descriptor, for a filter that of what it stands on, or -1.

        Setting it to another, or a socket object, has that read and written from now on; it is
        taken or kept as when the bufferevent is made. The old one, if it belonged to the
        bufferevent, is closed; unlike in C, where nobody would close it.
        Wraps ``bufferevent_getfd``, ``bufferevent_setfd``.
        """
        self.pointer  # noqa: B018  (a closed one has none)
        # libevent doesn't find what is below a filter that TLS stands on.
        return int(lib.bufferevent_getfd(self._bottom().pointer))

    @fd.setter
    def fd(self, fd: Any) -> None:
        self.base.check_thread()
        self._check_unmanaged()
        self._bottom()._set_fd(fd)
        self.forget_failure()
        if self._tls is not None and self._underlying is not None:  # begin anew
            errors.call(lib.bufferevent_setfd, self.pointer, -1)

    def _set_fd(self, fd: Any) -> None:
        self._settle()
        number = _usable(self.base, fd, self._options)
        old, owned = self.fd, self.owns(self.fd)
        if number == old >= 0:
            raise ValueError(f"fd {number} is the bufferevent's already")
        self._stop_looking_up(self.pointer)
        errors.call(lib.bufferevent_setfd, self.pointer, number)
        self.look()
        self._connected_by_us = False
        self._adopt(fd)
        self._set_callbacks()
        if owned:
            errors.call(lib.evutil_closesocket, old)

    def detach(self) -> int:
        """Leave the descriptor to the caller, who closes it, and return it; or -1.

        The bufferevent goes on without one. Wraps ``bufferevent_setfd``.
        """
        self.base.check_thread()
        self._check_unmanaged()
        self._settle()
        fd, bottom = self.fd, self._bottom()
        bottom._stop_looking_up(bottom.pointer)
        errors.call(lib.bufferevent_setfd, bottom.pointer, -1)
        bottom.look()
        bottom._connected_by_us = False
        if bottom._socket is not None:
            bottom._socket.detach()
            bottom._socket = None
        return fd

    def _bottom(self) -> Any:
        """Return what has the descriptor: this one, or what all stand on."""
        bev: Any = self
        while bev._underlying is not None:
            bev = bev._underlying
        return bev

    def owns(self, fd: int) -> bool:
        """Tell whether closing the bufferevent closes the descriptor *fd*."""
        owner = self._connected_by_us or self._options & BufferEventOption.CLOSE_ON_FREE
        return bool(owner) and self._underlying is None and self.fd == fd >= 0

    # What HTTP takes, and frees by itself (F10, O11, P8).

    def give(self, owner: Any) -> Any:
        """Give C's object to *owner*, whose C object will free it, and return its pointer.

        Until `taken_back` it can be asked, but belongs to *owner*, which lists it among what it has
        `lent`. Raises `ValueError` for what evhttp could not use or free.
        """
        self.base.check_thread()
        pointer = self._give_up()
        if self._partner is not None or self._underlying is not None:
            raise ValueError("a pair can't be used, nor what stands on another bufferevent")
        if not self._options & BufferEventOption.CLOSE_ON_FREE:
            raise ValueError("the bufferevent must be made with CLOSE_ON_FREE")
        if self._options & BufferEventOption.EAGER:
            raise ValueError("the bufferevent must be made without EAGER")
        if self._rate_limit is not None or self._group is not None:
            raise ValueError("the bufferevent must not have a rate limit")
        if any(type(buffer) is not BorrowedBuffer for buffer in self.lent()):
            raise ValueError("the bufferevent must not have memory reserved in its output")
        self._given_to = owner
        self.pointer  # noqa: B018  (other code may have closed it until here)
        self.__class__ = given(type(self))
        for buffer in self.lent():
            buffer.__class__ = GivenBuffer
        lib.evpy_bufferevent_setcb(pointer, False, False, False, self.key)
        self._on_read = self._on_write = self._on_event = None
        self.base.live.pop(self.key, None)
        self.base.ledger.pop(self.key, None)
        return pointer

    @classmethod
    def borrowed(cls, base: EventBase, pointer: Any, owner: Any) -> BufferEvent:
        """Make the object of a bufferevent that C has made for *owner*, which frees it."""
        bev: BufferEvent = cls.__new__(given(cls))
        bev._begin()
        options = BufferEventOption.CLOSE_ON_FREE
        bev._start(base, next_key(), pointer, options, (None, None, None), given_to=owner)
        return bev

    def taken_back(self) -> None:
        """Be closed, as C has freed what has been given."""
        for handle in self.lent():
            handle._take()
        self._take()
        self.base.live.pop(self.key, None)
        self.base.ledger.pop(self.key, None)
        self._leave()

    @property
    def free(self) -> Callable[[Any], object]:  # type: ignore[override]
        """What frees the bufferevent and what it owns."""
        if self._given_to is not None:
            grouped = self._group is not None  # who has it may end after the group
            return lib.bufferevent_remove_from_rate_limit_group if grouped else _leave
        secured = self._tls is not None
        if self._underlying is not None:
            upper = lib.evpy_tls_free if secured else lib.evpy_bufferevent_free
            return functools.partial(free_upper, self._underlying, upper)
        if self._partner is not None or self._options & BufferEventOption.CLOSE_ON_FREE:
            free = lib.evpy_bufferevent_free
        elif self._connected_by_us:
            free = lib.evpy_tls_free_with_fd if secured else lib.evpy_bufferevent_free_with_fd
        else:
            free = lib.evpy_tls_free if secured else lib.evpy_bufferevent_free_without_fd
        eager = self._eager
        if eager is None:
            return free  # type: ignore[no-any-return]

        def both(pointer: Any) -> None:
            free(pointer)
            lib.evpy_eager_free(eager)

        return both


BufferEvent._heir = BufferEvent


def _leave(_pointer: Any) -> None:
    """Leave it to the one that it has been given to."""


def _check_base(base: EventBase) -> None:
    """Raise an error unless *base* is one that this thread may use now, with memory for it."""
    if not isinstance(base, EventBase):
        raise TypeError(f"base must be an EventBase, not {base!r}")
    base.check_thread()
    if base.arena is None:  # before C's object is there, which would have to be freed
        base.arena = Arena()


def _usable(base: EventBase, fd: Any, options: BufferEventOption) -> int:
    """Return the descriptor that *fd* is or has, set not to block, or -1 for none."""
    if isinstance(fd, int) and fd == -1:
        return -1
    number = convert.descriptor(fd)
    base.check_selectable(number)
    if lib.evpy_check_waitable(base.pointer, number):
        raise errors.failed(lib.bufferevent_socket_new, convert.fd_with(number, base.pointer))
    if options & BufferEventOption.CLOSE_ON_FREE:
        convert.surrendered(fd)
    errors.call(lib.evutil_make_socket_nonblocking, number)
    return number
