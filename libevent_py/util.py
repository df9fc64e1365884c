"""``evutil_``: descriptors, addresses, name lookups, random bytes, clocks and dates."""

from __future__ import annotations

import datetime
import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.addrinfo import AddrInfo, question, unpacked
from libevent_py._core.convert import Address, FileDescriptor, Octets
from libevent_py._core.handle import Handle
from libevent_py._core.pointers import new_owned
from libevent_py._ffi import ffi, lib
from libevent_py.enums import AddrInfoError, AddrInfoFlag, MonotonicFlag

if TYPE_CHECKING:
    from libevent_py._ffi import CData

#: The number of bytes in a packed address, and in the longest text for one.
PACKED: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
LONGEST_TEXT = 64

#: "Thu, 01 Jan 1970 00:00:00 GMT" and its NUL.
DATE_SIZE = 30


# Descriptors.


def socketpair(
    family: int = socket.AF_UNIX, type: int = socket.SOCK_STREAM, proto: int = 0
) -> tuple[socket.socket, socket.socket]:
    """Make two connected Python sockets.

    Unlike in C they are close-on-exec. Raises `OSError` when the system has no such pair.
    Wraps ``evutil_socketpair``.
    """
    family, type, proto = (
        convert.c_int(family, "family"),
        convert.c_int(type, "type"),
        convert.c_int(proto, "proto"),
    )
    pair, results = ffi.new("evutil_socket_t[2]"), list[int]()
    one, other = (socket.socket.__new__(socket.socket) for _ in pair)
    try:
        ffi.errno = 0
        errors.noted(results.append, lib.evutil_socketpair, family, type, proto, pair)
        if results[0]:
            raise errors.failed(lib.evutil_socketpair)
        for sock, fd in zip((one, other), pair, strict=True):
            os.set_inheritable(fd, False)
            socket.socket.__init__(sock, fileno=fd)
            if type & getattr(socket, "SOCK_NONBLOCK", 0):
                sock.setblocking(False)  # an object doesn't see it by itself
    except BaseException:  # perhaps an interrupt, and a socket has no descriptor yet
        for sock, fd in zip((one, other), pair, strict=True):
            if results == [0] and socket.SocketType.fileno(sock) != fd:
                os.close(fd)
            socket.SocketType.close(sock)
        raise
    return one, other


def make_socket_nonblocking(fd: FileDescriptor) -> None:
    """Make *fd*, a descriptor or anything with a ``fileno``, non-blocking.

    A Python socket doesn't notice this; use its own `setblocking` instead. Raises `OSError`.
    Wraps ``evutil_make_socket_nonblocking``.
    """
    errors.call(lib.evutil_make_socket_nonblocking, convert.descriptor(fd))


def make_socket_closeonexec(fd: FileDescriptor) -> None:
    """Set the close-on-exec flag on *fd*. Raises `OSError`.

    Wraps ``evutil_make_socket_closeonexec``.
    """
    errors.call(lib.evutil_make_socket_closeonexec, convert.descriptor(fd))


def make_listen_socket_reuseable(fd: FileDescriptor) -> None:
    """Allow *fd* to be bound to an address that connections of an earlier listener still use.

    Raises `OSError`. Wraps ``evutil_make_listen_socket_reuseable``.
    """
    errors.call(lib.evutil_make_listen_socket_reuseable, convert.descriptor(fd))


def make_listen_socket_reuseable_port(fd: FileDescriptor) -> None:
    """Allow several sockets to be bound to one address, if this is called for each of them.

    Only Linux supports it; elsewhere it does nothing. Raises `OSError`.
    Wraps ``evutil_make_listen_socket_reuseable_port``.
    """
    errors.call(lib.evutil_make_listen_socket_reuseable_port, convert.descriptor(fd))


def make_listen_socket_ipv6only(fd: FileDescriptor) -> None:
    """Make *fd*, an IPv6 socket, refuse IPv4 connections. Raises `OSError`.

    Wraps ``evutil_make_listen_socket_ipv6only``.
    """
    errors.call(lib.evutil_make_listen_socket_ipv6only, convert.descriptor(fd))


def make_tcp_listen_socket_deferred(fd: FileDescriptor) -> None:
    """Make *fd*, a TCP socket, accept a connection only when data has arrived on it.

    Does nothing if the system doesn't support it. Raises `OSError`.
    Wraps ``evutil_make_tcp_listen_socket_deferred``.
    """
    errors.call(lib.evutil_make_tcp_listen_socket_deferred, convert.descriptor(fd))


def closesocket(fd: int | socket.socket) -> None:
    """Close *fd*, a descriptor or a Python socket, which then counts as closed, too.

    Delete events that wait for it first. Raises `OSError`. Wraps ``evutil_closesocket``.
    """
    number = convert.descriptor(fd)
    if isinstance(fd, socket.socket):
        fd.detach()  # otherwise it would later close the next descriptor of that number (A9)
    elif not isinstance(fd, int):
        raise TypeError(f"fd must be a descriptor or a socket, not {fd!r}")
    errors.call(lib.evutil_closesocket, number)


# Addresses.


def _packed_size(family: int) -> int:
    family = convert.c_int(family, "family")
    if family not in PACKED:
        raise ValueError(f"family must be AF_INET or AF_INET6, not {family}")
    return PACKED[family]


def inet_ntop(family: int, packed: Octets) -> str:
    """Return *packed*, the 4 bytes of an AF_INET address or 16 of an AF_INET6 one, as text.

    Wraps ``evutil_inet_ntop``.
    """
    size = _packed_size(family)
    memory, length = convert.octets(packed, "packed")
    if length != size:
        raise ValueError(f"packed must be {size} bytes for this family, not {length}")
    out = ffi.new("char[]", LONGEST_TEXT)
    return convert.text(errors.new(lib.evutil_inet_ntop, family, memory, out, LONGEST_TEXT))


def inet_pton(family: int, text: str | bytes) -> bytes:
    """Return the address in *text* as the 4 bytes of AF_INET, or 16 of AF_INET6.

    Raises `ValueError` when *text* is no address. Wraps ``evutil_inet_pton``.
    """
    return _parsed(lib.evutil_inet_pton, family, text)


def inet_pton_scope(family: int, text: str | bytes) -> tuple[bytes, int]:
    """Return the address in *text* as `inet_pton` does, and its scope id, or 0 without one.

    A scope such as ``%eth0`` or ``%2`` is the name or number of an interface. Raises `ValueError`
    when *text* is no address, or there is no such interface. Wraps ``evutil_inet_pton_scope``.
    """
    scope = ffi.new("unsigned *")

    # libevent doesn't ask whether it got the memory for a copy without the scope.
    def parse(family: int, text: bytes, out: CData) -> int:
        return errors.guarded(lib.evutil_inet_pton_scope, family, text, out, scope)

    return _parsed(parse, family, text), int(scope[0])


def _parsed(
    function: Callable[[int, bytes, CData], int],
    family: int,
    text: str | bytes,
    name: str = "text",
) -> bytes:
    memory = ffi.new("unsigned char[]", _packed_size(family))
    if function(family, convert.string(text, name), memory) != 1:
        kind = "an IPv4" if family == socket.AF_INET else "an IPv6"
        raise ValueError(f"{name} must be {kind} address, not {text!r}")
    return bytes(ffi.buffer(memory))


def parse_sockaddr_port(text: str | bytes) -> Address:
    """Return the address in *text*, such as ``1.2.3.4:80``, ``[::1]:80`` or ``::1``.

    The port is 0 if *text* has none. Raises `ValueError` when *text* is no address, or its port is
    not from 1 to 65535. Wraps ``evutil_parse_sockaddr_port``.
    """
    return _address(text, "text")


def _address(text: str | bytes, name: str) -> Address:
    out = ffi.new("struct sockaddr_storage *")
    length = ffi.new("int *", ffi.sizeof(out[0]))
    pointer = ffi.cast("struct sockaddr *", out)
    if errors.guarded(lib.evpy_parse_sockaddr_port, convert.string(text, name), pointer, length):
        raise ValueError(f"{name} must be an address, with or without a port, not {text!r}")
    return convert.unpack_address(pointer, length[0])


def sockaddr_cmp(sa1: Address, sa2: Address, include_port: bool = True) -> int:
    """Return a negative number, 0 or a positive one: *sa1* comes before, equals or follows *sa2*.

    With *include_port* the ports are compared, too; flow and scope never are. As in C, two paths
    are never equal. Wraps ``evutil_sockaddr_cmp``.
    """
    one, other = convert.sockaddr(sa1), convert.sockaddr(sa2)
    return int(lib.evutil_sockaddr_cmp(one.pointer, other.pointer, bool(include_port)))


# Name lookups.


def getaddrinfo(
    host: str | bytes | None,
    port: int | str | bytes | None,
    family: int = socket.AF_UNSPEC,
    type: int = 0,
    proto: int = 0,
    flags: int = AddrInfoFlag(0),
) -> list[AddrInfo]:
    """Look up *host* and *port*, a number or a service's name, and wait for the answer.

    Return what `socket.getaddrinfo` does: a list of ``(family, type, proto, canonname, address)``.
    *flags* is a set of `AddrInfoFlag`; a *host* outside ASCII is encoded by IDNA. Raises
    `DnsError`, whose ``errno`` is one of `AddrInfoError`, or `OSError` if the system failed. Other
    threads run meanwhile, this thread's loop does not. Wraps ``evutil_getaddrinfo``.
    """
    asked = question(host, port, "port", family, type, proto, flags)
    found = ffi.new("struct evutil_addrinfo **")
    try:
        code = errors.enter(None, lib.evutil_getaddrinfo, *asked, found)
        if code == AddrInfoError.SYSTEM:
            raise errors.failed(lib.evutil_getaddrinfo, repr(host))
        if code != 0:
            raise errors.DnsError(code, f"evutil_getaddrinfo: {host!r}: {gai_strerror(code)}")
        return unpacked(found[0])
    finally:
        if found[0] != ffi.NULL:
            lib.evutil_freeaddrinfo(found[0])


def gai_strerror(code: int) -> str:
    """Return the text for *code*, an `AddrInfoError`. Wraps ``evutil_gai_strerror``."""
    return convert.text(lib.evutil_gai_strerror(convert.c_int(code, "code")))


# Text.


def ascii_strcasecmp(str1: str | bytes, str2: str | bytes) -> int:
    """Return -1, 0 or 1 as *str1* comes before, equals or follows *str2*, ignoring ASCII case.

    Wraps ``evutil_ascii_strcasecmp``.
    """
    one, other = convert.string(str1, "str1"), convert.string(str2, "str2")
    return int(lib.evutil_ascii_strcasecmp(one, other))


def ascii_strncasecmp(str1: str | bytes, str2: str | bytes, n: int) -> int:
    """Compare as `ascii_strcasecmp` does, but only the first *n* bytes.

    Wraps ``evutil_ascii_strncasecmp``.
    """
    one, other = convert.string(str1, "str1"), convert.string(str2, "str2")
    n = convert.integer(n, "n", 0, lib.EV_SIZE_MAX)
    return int(lib.evutil_ascii_strncasecmp(one, other, n))


def date_rfc1123(moment: datetime.datetime | None = None) -> str:
    """Return *moment*, or the time now, in HTTP's form: ``Thu, 01 Jan 1970 00:00:00 GMT``.

    Unlike in C, *moment* may be in any time zone, but must have one. Wraps ``evutil_date_rfc1123``.
    """
    tm = ffi.NULL if moment is None else _utc(moment)
    out = ffi.new("char[]", DATE_SIZE)
    errors.call(lib.evutil_date_rfc1123, out, DATE_SIZE, tm)
    return convert.text(out)


def _utc(moment: datetime.datetime) -> CData:
    """Return *moment* as a ``struct tm *`` with each field in range: C doesn't check (S1)."""
    if not isinstance(moment, datetime.datetime):
        raise TypeError(f"moment must be a datetime, not {moment!r}")
    if moment.utcoffset() is None:
        raise ValueError(f"moment must have a time zone: {moment!r}")
    try:
        fields = moment.astimezone(datetime.timezone.utc).timetuple()
    except OverflowError:
        raise ValueError(f"moment must be from year 1 to 9999 in UTC, not {moment!r}") from None
    tm = ffi.new("struct tm *")
    tm.tm_year, tm.tm_mon, tm.tm_mday = fields.tm_year - 1900, fields.tm_mon - 1, fields.tm_mday
    tm.tm_hour, tm.tm_min, tm.tm_sec = fields.tm_hour, fields.tm_min, fields.tm_sec
    tm.tm_wday, tm.tm_yday = (fields.tm_wday + 1) % 7, fields.tm_yday - 1
    return tm


# Random bytes.


def secure_rng_init() -> None:
    """Seed the random number generator now; otherwise its first use does it.

    Raises `LibeventError` when the system gives no randomness. Wraps ``evutil_secure_rng_init``.
    """
    errors.call(lib.evutil_secure_rng_init)


def secure_rng_get_bytes(n: int) -> bytes:
    """Return *n* cryptographically secure random bytes. Wraps ``evutil_secure_rng_get_bytes``."""
    memory = bytearray(convert.integer(n, "n", 0, lib.EV_SSIZE_MAX))
    lib.evutil_secure_rng_get_bytes(ffi.from_buffer(memory), len(memory))
    return bytes(memory)


# Clocks.

#: Held while a clock is read: libevent itself has no lock for it (S2). Reentrant, as a signal
#: handler may read one, too.
_reading = threading.RLock()


def _after_fork() -> None:
    global _reading
    _reading = threading.RLock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork)


class MonotonicTimer(Handle):
    """A clock that never goes back, like an event base's; usable in ``with``, which closes it.

    Any thread may read it.
    """

    __slots__ = ()

    def __init__(self, flags: int = MonotonicFlag(0)) -> None:
        """Make a clock: with PRECISE an exact one, else a cheap one that may lag by milliseconds.

        With FALLBACK it is made from the wall clock. Wraps ``evutil_monotonic_timer_new``,
        ``evutil_configure_monotonic_time``.
        """
        flags = convert.flags(MonotonicFlag, flags, "flags")
        make, free = lib.evutil_monotonic_timer_new, lib.evutil_monotonic_timer_free
        super().__init__(new_owned(free, make))
        errors.call(lib.evutil_configure_monotonic_time, self.pointer, flags)

    def time(self) -> float:
        """Return the seconds since a moment that stays the same for this clock.

        Wraps ``evutil_gettime_monotonic``.
        """
        tv = ffi.new("struct timeval *")
        with _reading:
            errors.call(lib.evutil_gettime_monotonic, self.pointer, tv)
        return convert.from_timeval(tv)

    def close(self) -> None:
        """Free the clock; a second time does nothing. Wraps ``evutil_monotonic_timer_free``."""
        self._take()
