"""How a bufferevent gets its socket: one that the user gives it, or one that libevent connects.

libevent looks a host's name up and connects to the first address that it finds. Without an
evdns_base the lookup is done, or has failed, when the call returns (F5). With one the loop does the
lookup, and C keeps the bufferevent until the answer comes, even if it is closed (F9); so closing
the bufferevent cancels the lookup.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, NamedTuple

from libevent_py import errors, util
from libevent_py._core import convert
from libevent_py._core.child import Child
from libevent_py._core.convert import FileDescriptor, HasFileno
from libevent_py._core.handle import came_to_be
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.given import check_not_given
from libevent_py.bufferevent.layers import bottom
from libevent_py.bufferevent.tls import look
from libevent_py.enums import AddrInfoError, BufferEventFlag, BufferEventOption, TriggerOption
from libevent_py.event.base import EventBase

if TYPE_CHECKING:
    from libevent_py._ffi import CData
    from libevent_py.bufferevent.bufferevent import BufferEvent
    from libevent_py.dns.base import DnsBase

FAMILIES = (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6)


class Lookup(NamedTuple):
    """The arguments of the last `BufferEvent.connect_hostname`, and how it failed."""

    host: str | bytes
    #: Kept alive here, because the lookup uses it.
    dns_base: DnsBase | None
    #: The reason for a failure that C doesn't report.
    code: int = 0


class Connection:
    """Where the socket of one bufferevent comes from, and who owns it."""

    __slots__ = ("_kept", "disowned", "lookup", "made_here")

    def __init__(self) -> None:
        #: The socket object whose descriptor it uses but doesn't own, kept alive here, or None.
        self._kept: HasFileno | None = None
        #: The last lookup of a host's name, or None.
        self.lookup: Lookup | None = None
        #: Whether libevent has made the socket, to connect it.
        self.made_here: bool = False
        #: Whether the caller still has to close it, as the bufferevent was not completed.
        self.disowned: bool = False

    # Connecting. Only a bufferevent's own object does it, never the shared one.

    def connect(self, bev: BufferEvent, target: convert.SockAddr) -> None:
        """Begin to connect *bev* to *target*."""
        self._prepare(bev, bev.pointer)
        self.cancel(bev.pointer)
        self.lookup = None
        # Without memory, C would connect the socket and then not wait for it.
        errors.guarded(lib.bufferevent_socket_connect, bev.pointer, target.pointer, target.length)
        look(bev)

    def connect_hostname(
        self, bev: BufferEvent, dns_base: DnsBase | None, host: str | bytes, port: int, family: int
    ) -> None:
        """Look *host* up for *bev*, and begin to connect to it."""
        base = bev.base
        resolver = ffi.NULL if dns_base is None else _resolver(dns_base, base)
        name = convert.host_alone(host)
        port = convert.integer(port, "port", 1, 65535)
        if family not in FAMILIES:
            raise ValueError(f"family must be AF_UNSPEC, AF_INET or AF_INET6, not {family!r}")
        pointer = bev.pointer
        if is_looking_up(bev):
            raise RuntimeError("connect_hostname() was called while an earlier lookup goes on")
        self._prepare(bev, pointer)
        self.lookup = Lookup(host, dns_base)
        base._call(lib.bufferevent_socket_connect_hostname, pointer, resolver, family, name, port)
        if not bev.closed:
            if getattr(dns_base, "closed", False):  # other code has closed it meanwhile
                self._do_without(bev, dns_base)
            look(bev)

    def _prepare(self, bev: BufferEvent, pointer: CData) -> None:
        """Raise an error unless a new socket can be made, or the present one can connect.

        Linux lets a socket connect for a second time, and does nothing.
        """
        check_not_given(bev)
        bev._layers.check_socket(
            "a pair can't connect, nor a filter: connect the bufferevent at the bottom"
        )
        bev._forget_failure()
        fd = lib.bufferevent_getfd(pointer)
        if fd < 0:
            bev.base._check_selectable(-1)
            self.made_here = True
            return
        if lib.evpy_socket_name(fd, True, ffi.NULL, 0) >= 0:
            raise OSError(errno.EISCONN, f"fd {fd}: it is already connected")

    # Lookups.

    def cancel(self, pointer: CData) -> None:
        """Cancel a lookup that is under way; libevent itself doesn't cancel all of them."""
        if self.lookup is not None:
            lib.evpy_lookup_cancel(pointer)

    def dns_error(self, pointer: CData) -> errors.DnsError | None:
        """Return why the last lookup of the bufferevent at *pointer* failed, or None."""
        code = int(lib.bufferevent_socket_get_dns_error(pointer))
        if self.lookup is None:
            return None
        code = self.lookup.code or code
        if code == 0:
            return None
        return errors.DnsError(code, f"{self.lookup.host!r}: {util.gai_strerror(code)}")

    def _do_without(self, bev: BufferEvent, other: Child | None) -> None:
        """Report an error if the lookup still needs *other*, which is about to be closed."""
        lookup = self.lookup
        if lookup is None or lookup.dns_base is not other or bev.closed:
            return
        if not is_looking_up(bev):
            return
        self.lookup = lookup._replace(code=AddrInfoError.FAIL)
        self.cancel(bev.pointer)
        defer = TriggerOption.DEFER_CALLBACKS
        errors.call(lib.bufferevent_trigger_event, bev.pointer, BufferEventFlag.ERROR, defer)


class Unconnected(Connection):
    """The connection that all bufferevents without their own share; it never changes."""

    __slots__ = ()

    _kept = None
    lookup: None = None
    made_here: bool = False
    disowned: bool = False

    def __init__(self) -> None:
        pass


UNCONNECTED = Unconnected()


def own(bev: BufferEvent) -> Connection:
    """Return what *bev* has of its own, made now if it has shared `UNCONNECTED` so far."""
    made = Connection()
    if bev._connection is UNCONNECTED:  # no call from here on: other code may have made some
        bev._connection = made
    return bev._connection


def owns(bev: BufferEvent, fd: int) -> bool:
    """Tell whether closing *bev* closes the descriptor *fd*."""
    owner = bev._connection.made_here or BufferEventOption.CLOSE_ON_FREE in bev._options
    return owner and bev._layers.below is None and bev.fd == fd >= 0


def adopt(bev: BufferEvent, fd: FileDescriptor) -> None:
    """Detach the socket object *fd*, or keep it alive, as the options of *bev* say."""
    connection = bev._connection
    if connection._kept is not None:
        connection._kept = None
    if not isinstance(fd, int):
        if BufferEventOption.CLOSE_ON_FREE in bev._options:
            fd.detach()  # type: ignore[attr-defined]  # a socket, or `usable` has refused it
        else:
            bev._own_connection()._kept = fd


def disown(bev: BufferEvent, fd: FileDescriptor) -> None:
    """Leave *fd* to the caller, who still has to close it, as *bev* was not completed."""
    if came_to_be(bev) and (isinstance(fd, int) or fd.fileno() >= 0):
        bev._own_connection().disowned = True


def set_fd(bev: BufferEvent, fd: FileDescriptor) -> None:
    """Set the descriptor of the lowest layer of *bev*; close the old one if that layer owns it."""
    bev._check_usable()  # the lowest layer may be, though this one is closed
    lowest = bottom(bev)
    _change_fd(lowest, fd)
    bev._forget_failure()
    if bev._tls is not None and lowest is not bev:  # begin anew
        errors.call(lib.bufferevent_setfd, bev.pointer, -1)


def _change_fd(bev: BufferEvent, fd: FileDescriptor) -> None:
    bev._settle()
    number = usable(bev.base, fd, bev._options)
    old, owned = bev.fd, owns(bev, bev.fd)
    if number == old >= 0:
        raise ValueError(f"the bufferevent has fd {number} already")
    taken = ffi.new("int [2]")
    try:
        _replace(bev, number, owned, taken)
        adopt(bev, fd)
        bev._set_callbacks()
    except BaseException:  # an interrupt
        if taken[0]:
            adopt(bev, fd)
            bev._set_callbacks()
        raise


def detach(bev: BufferEvent) -> int:
    """Take the descriptor away from the lowest layer of *bev*, and return it."""
    bev.base._check_thread()
    bev._check_usable()  # the lowest layer may be, though this one is closed
    lowest, taken = bottom(bev), ffi.new("int [2]")
    try:
        _replace(lowest, -1, False, taken)
    except BaseException:  # an interrupt, after which nobody would know the descriptor
        if taken[0]:
            errors.call(lib.evpy_bufferevent_setfd, lowest.pointer, taken[1], False, taken)
        raise
    connection = lowest._connection
    if connection._kept is not None:
        connection._kept.detach()  # type: ignore[attr-defined]  # as in C, for what is a socket
        connection._kept = None
    return int(taken[1])


def _replace(bev: BufferEvent, fd: int, owned: bool, taken: CData) -> None:
    """Have libevent use *fd* instead, and close the old one if *owned*; *taken* tells of it."""
    bev._connection.cancel(bev.pointer)
    result = errors.call(lib.evpy_bufferevent_setfd, bev.pointer, fd, owned, taken)
    if result == lib.EVPY_RENEGOTIATES:
        raise RuntimeError("the descriptor can't be replaced in the middle of a renegotiation")
    connection = bev._connection
    if connection.made_here:
        connection.made_here = False


def is_looking_up(bev: BufferEvent) -> bool:
    """Tell whether a lookup for *bev* is under way."""
    return bool(lib.evpy_lookup_under_way(bev.pointer))


def usable(base: EventBase, fd: FileDescriptor, options: BufferEventOption) -> int:
    """Return the descriptor that *fd* is or has, made non-blocking, or -1 for none."""
    if isinstance(fd, int) and fd == -1:
        return -1
    number = convert.descriptor(fd)
    base._check_selectable(number)
    if lib.evpy_check_waitable(base.pointer, number):
        raise errors.failed(lib.bufferevent_socket_new, convert.fd_with(number, base.pointer))
    if BufferEventOption.CLOSE_ON_FREE in options:
        convert.surrendered(fd)
    errors.call(lib.evutil_make_socket_nonblocking, number)
    return number


def _resolver(dns_base: DnsBase, base: EventBase) -> CData | None:
    """Return the evdns_base of *dns_base*, or raise an error that names the argument."""
    pointer = getattr(dns_base, "pointer", None)
    kind = ffi.typeof(pointer).cname if isinstance(pointer, ffi.CData) else None
    if kind != "struct evdns_base *":
        raise TypeError(f"dns_base must be a DnsBase or None, not {dns_base!r}")
    if dns_base.base is not base:
        raise ValueError("dns_base must be of the bufferevent's own event base")
    return pointer
