"""Conversions between Python's values and C's: seconds, flags, descriptors, addresses."""

from __future__ import annotations

import enum
import errno
import functools
import math
import operator
import os
import re
import socket
import stat
from typing import (
    TYPE_CHECKING,
    Any,
    NamedTuple,
    Protocol,
    SupportsFloat,
    SupportsIndex,
    TypeAlias,
    TypeVar,
)

from libevent_py._ffi import ffi, lib

if TYPE_CHECKING:
    from libevent_py._core.handle import Handle
    from libevent_py._ffi import CData

#: Python's own form of an address: ``(host, port)``, ``(host, port, flowinfo, scope)``, a path.
#: What a property says of a socket's is Any, as for `socket.socket.getsockname`: whoever has made
#: the socket knows which of them it is.
Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | str | bytes

#: What may be given as the address of a host's port.
HostAndPort: TypeAlias = tuple[str, int] | tuple[str, int, int] | tuple[str, int, int, int]

#: What may be given as an address.
AddressLike: TypeAlias = Address | HostAndPort | os.PathLike[str] | os.PathLike[bytes]

#: Seconds that must be given.
Seconds: TypeAlias = SupportsFloat | SupportsIndex

#: Seconds, or None for no timeout.
Timeout: TypeAlias = float | None


class Octets(Protocol):
    """Stand for what may be given as bytes: any object with the buffer protocol.

    Such as bytes, bytearray, memoryview, `array.array` and `mmap.mmap`.
    """

    def __buffer__(self, flags: int, /) -> memoryview: ...


class HasFileno(Protocol):
    """Stand for what has a descriptor: a socket or an open file."""

    def fileno(self) -> int: ...


#: What may be given as a descriptor: its number, or what has it.
FileDescriptor: TypeAlias = int | HasFileno

#: The longest timeout in seconds: 68 years, or 34 where a `time_t` has 32 bits, as libevent adds
#: the time since the machine has started.
MAX_SECONDS = 2**31 - 1 if ffi.sizeof("time_t") > 4 else 2**30

Flags = TypeVar("Flags", bound=enum.IntFlag)
Value = TypeVar("Value")


def seconds(value: Seconds, name: str = "timeout") -> float:
    """Return *value* as seconds that fit a timeval, or raise an error that names the argument."""
    try:
        number = math.fsum((value,))  # float() would read text, too
    except TypeError:
        raise TypeError(f"{name} must be a number of seconds, not {value!r}") from None
    except OverflowError:
        number = float("inf")
    if not 0 <= number <= MAX_SECONDS:
        raise ValueError(f"{name} must be from 0 to {MAX_SECONDS} seconds, not {value!r}")
    return number


def optional_seconds(value: Seconds | None, name: str = "timeout") -> float:
    """Return *value* as `seconds` does, or -1 for None: C's "no timeout" in our helpers."""
    return -1.0 if value is None else seconds(value, name)


def timeval(value: Seconds, name: str = "timeout") -> CData:
    """Return seconds as a new ``struct timeval *`` with 0 <= tv_usec < 1000000 (B10)."""
    number = seconds(value, name)
    whole, micro = divmod(round(number * 1_000_000), 1_000_000)
    return ffi.new("struct timeval *", (whole, micro))


def from_timeval(tv: CData) -> float:
    """Return the seconds in a ``struct timeval``."""
    return float(tv.tv_sec + tv.tv_usec / 1e6)


def from_unix_time(tv: CData) -> float:
    """Return the Unix time in a ``struct timeval``: one after 2038 is negative in 32 bits."""
    time = from_timeval(tv)
    return time if time >= 0 else time + 2**32


#: All named bits of each class of flags, cached: walking through the members is slow.
_known: dict[type[enum.IntFlag], int] = {}


def flags(kind: type[Flags], value: int, name: str) -> Flags:
    """Return *value* as a member of *kind*, or raise an error that names the argument."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be of {kind.__name__}, not {value!r}")
    known = _known.get(kind)
    if known is None:
        known = _known[kind] = functools.reduce(operator.or_, map(int, kind), 0)
    number = operator.index(value)  # not int(), which a user's class may have as it likes
    if number & ~known:  # a flag's own ~ stays within the flag's bits
        raise ValueError(f"{name} has bits that {kind.__name__} does not know: {number:#x}")
    return value if type(value) is kind else kind(number)


def integer(value: SupportsIndex, name: str, low: int, high: int) -> int:
    """Return *value* as an int from *low* to *high*, or raise an error that names the argument."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if not low <= number <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {number}")
    return number


def c_int(value: SupportsIndex, name: str) -> int:
    """Return *value* as C's int, or raise an error that names the argument."""
    return integer(value, name, -(2**31), 2**31 - 1)


def octets(data: object, name: str = "data") -> tuple[bytes | CData, int]:
    """Return *data*, any object with the buffer protocol, in a form for C, and its length."""
    if type(data) is bytes:
        return data, len(data)
    try:
        view = ffi.from_buffer(data)
    except TypeError:
        raise TypeError(f"{name} must be bytes or have the buffer protocol, not {data!r}") from None
    except (ValueError, BufferError) as error:
        raise ValueError(f"{name} must be contiguous: {error}") from None
    return view, len(view)


def string(value: object, name: str) -> bytes:
    """Return *value* as bytes for C; raise `ValueError` for a NUL, which would end it."""
    if not isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be str or bytes, not {value!r}")
    try:
        string = value.encode() if isinstance(value, str) else value
    except UnicodeEncodeError:
        raise ValueError(f"{name} must be text that UTF-8 can encode, not {value!r}") from None
    if b"\0" in string:
        raise ValueError(f"{name} must not contain a NUL: {value!r}")
    return string


def host_name(host: str | bytes) -> bytes:
    """Return *host* as bytes for C; a name outside ASCII is encoded by IDNA."""
    if isinstance(host, str) and not host.isascii():
        try:
            return host.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"host must be a name for IDNA, not {host!r}: {error}") from None
    return string(host, "host")


#: A host with its port, as others write the two: "127.0.0.1:80", "[::1]:80", "name:80", ":80".
_HOST_AND_PORT = re.compile(r"(\[[^\]/\0]*\]|[^/\0]*):([0-9]{1,5})")


def _is_numeric(host: str) -> bool:
    host, _, scope = host.partition("%")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return ":" not in scope
    return False


def host_and_port(text: str) -> tuple[str, str] | None:
    """Return the host and port that *text* looks like, "port" standing for no port; or None."""
    bare = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    if _is_numeric(bare):
        return bare, "port"
    found = _HOST_AND_PORT.fullmatch(text)
    return None if found is None else (found[1].strip("[]"), found[2])


def host_alone(host: str | bytes) -> bytes:
    """Return *host* as `host_name` does, or raise `ValueError` if it contains a port."""
    name = host_name(host)
    found = host_and_port(name.decode("latin-1"))
    if found is not None and found[1] != "port":
        raise ValueError(
            f"host must have no port in it, not {host!r}: give {found[0]!r}, and {found[1]} as port"
        )
    return name


def callback(value: Value, name: str = "callback") -> Value:
    """Return *value*, or raise `TypeError` if it can't be called."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {value!r}")
    return value


def descriptor(value: FileDescriptor, name: str = "fd") -> int:
    """Return the open file descriptor that *value* is or has, or raise an error that names it."""
    if isinstance(value, int) and not isinstance(value, bool):
        fd = value
    else:
        try:
            fd = value.fileno()  # type: ignore[union-attr]  # a bool hasn't: that is refused
        except AttributeError:
            raise TypeError(
                f"{name} must be a file descriptor or have a fileno(), not {value!r}"
            ) from None
        except ValueError as error:  # for instance a closed file
            raise ValueError(f"{name} must be an open file descriptor: {error}") from None
        if not isinstance(fd, int):
            raise TypeError(f"{name}'s fileno() must return an integer, not {fd!r}")
    fd = operator.index(fd)  # not int(), which a user's class may have as it likes
    if not 0 <= fd <= MAX_FD:
        raise ValueError(f"{name} must be an open file descriptor, not {fd}")
    try:
        os.get_inheritable(fd)  # the cheapest call that fails for a closed descriptor
    except OSError as error:
        raise OSError(error.errno, f"{name} {fd}: {error.strerror}") from None
    return fd


def fd_with(fd: int, base: CData) -> str:
    """Return the text for *fd* in an error: the backend of C's *base* has refused it by errno."""
    code = ffi.errno
    said = f"fd {fd} with {text(lib.event_base_get_method(base))}"
    ffi.errno = code
    if code != errno.EPERM:
        return said
    mode = os.fstat(fd).st_mode
    kind = "a device of that kind"
    if stat.S_ISDIR(mode):
        kind = "a directory"
    elif stat.S_ISREG(mode):
        kind = "a regular file"
    return (
        f"{said}, which can wait for a socket, a pipe or a terminal, but not for {kind}; "
        'EventBase(method="poll") takes any'
    )


def surrendered(fd: FileDescriptor, name: str = "fd") -> None:
    """Raise `TypeError` unless *fd* is a number, or a socket, which can give its descriptor up."""
    if not isinstance(fd, (int, socket.socket)):
        raise TypeError(
            f"{name} must be a descriptor or a socket when CLOSE_ON_FREE is given, not {fd!r}, "
            "which would close it too"
        )


#: The largest value of an evutil_socket_t.
MAX_FD = 2**31 - 1


class SockAddr(NamedTuple):
    """A ``struct sockaddr *`` with its length in bytes, and the memory that it points to."""

    pointer: CData
    length: int
    memory: CData


def sockaddr(address: AddressLike) -> SockAddr:
    """Return *address* in C's form, or raise an error that says what is wrong with it."""
    if isinstance(address, (str, bytes, os.PathLike)):
        path = os.fsencode(address)
        if not isinstance(address, os.PathLike):
            _check_path(address, path)
        return _unix(path)
    if not isinstance(address, tuple) or len(address) not in (2, 3, 4):
        raise TypeError(f"address must be (host, port) or a path, not {address!r}")
    rest: list[int]
    host, port, *rest = address
    if not isinstance(host, str):
        raise TypeError(f"address must begin with a host in text, not {host!r}")
    port = integer(port, "address's port", 0, 65535)
    try:
        return _ipv4(socket.inet_pton(socket.AF_INET, host or "0.0.0.0"), port)
    except (OSError, ValueError):
        pass  # it may be IPv6
    try:
        full: Any = socket.getaddrinfo(
            host, port, socket.AF_INET6, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST
        )[0][4]
    except (socket.gaierror, UnicodeError, ValueError):
        raise ValueError(
            f"address must have a numeric IPv4 or IPv6 host, not {host!r}: names are looked up by "
            "connect_hostname(), a DnsBase or util.getaddrinfo()"
        ) from None
    flow, scope = int(full[2]), int(full[3])
    if rest:
        flow = integer(rest[0], "address's flowinfo", 0, 2**20 - 1)
    if len(rest) > 1:
        scope = integer(rest[1], "address's scope id", 0, 2**32 - 1)
    packed = socket.inet_pton(socket.AF_INET6, str(full[0]).partition("%")[0])
    return _ipv6(packed, port, flow, scope)


def _ipv4(packed: bytes, port: int) -> SockAddr:
    sin = ffi.new("struct sockaddr_in *")
    sin.sin_family = socket.AF_INET
    sin.sin_port = socket.htons(port)
    ffi.memmove(ffi.addressof(sin, "sin_addr"), packed, len(packed))
    return SockAddr(ffi.cast("struct sockaddr *", sin), ffi.sizeof(sin[0]), sin)


def _ipv6(packed: bytes, port: int, flow: int, scope: int) -> SockAddr:
    sin6 = ffi.new("struct sockaddr_in6 *")
    sin6.sin6_family = socket.AF_INET6
    sin6.sin6_port = socket.htons(port)
    sin6.sin6_flowinfo = socket.htonl(flow)
    sin6.sin6_scope_id = scope
    ffi.memmove(ffi.addressof(sin6, "sin6_addr"), packed, len(packed))
    return SockAddr(ffi.cast("struct sockaddr *", sin6), ffi.sizeof(sin6[0]), sin6)


def _check_path(address: str | bytes, path: bytes) -> None:
    """Raise `ValueError` for a path that looks like a host.

    A listener would make a file of that name, and nobody could connect to the port.
    """
    found = None if b"/" in path or path[:1] == b"\0" else host_and_port(os.fsdecode(path))
    if found is not None:
        raise ValueError(
            f"address must be (host, port) or a path, and {address!r} looks like a host: give "
            f"({found[0]!r}, {found[1]}), or for a file of that name {'./' + os.fsdecode(path)!r}"
        )


def _unix(path: bytes) -> SockAddr:
    sun = ffi.new("struct sockaddr_un *")
    abstract = path[:1] == b"\0"
    size = len(path) if abstract else len(path) + 1
    room = ffi.sizeof(sun.sun_path)
    if not path or size > room or (not abstract and b"\0" in path):
        raise ValueError(f"address must be a path of 1 to {room - 1} bytes, not {path!r}")
    sun.sun_family = socket.AF_UNIX
    ffi.memmove(sun.sun_path, path, len(path))
    length = ffi.offsetof("struct sockaddr_un", "sun_path") + size
    return SockAddr(ffi.cast("struct sockaddr *", sun), length, sun)


def unpack_address(pointer: CData, length: int) -> Address:
    """Return the address in C's ``struct sockaddr *`` of *length* bytes in Python's form."""
    offset = ffi.offsetof("struct sockaddr_un", "sun_path")
    family = pointer.sa_family if length else socket.AF_UNSPEC
    if family == socket.AF_INET:
        sin = ffi.cast("struct sockaddr_in *", pointer)
        packed = bytes(ffi.buffer(ffi.addressof(sin, "sin_addr")))
        return socket.inet_ntop(family, packed), socket.ntohs(sin.sin_port)
    if family == socket.AF_INET6:
        sin6 = ffi.cast("struct sockaddr_in6 *", pointer)
        packed = bytes(ffi.buffer(ffi.addressof(sin6, "sin6_addr")))
        return (
            socket.inet_ntop(family, packed),
            socket.ntohs(sin6.sin6_port),
            socket.ntohl(sin6.sin6_flowinfo),
            sin6.sin6_scope_id,
        )
    if family == socket.AF_UNIX:
        sun = ffi.cast("struct sockaddr_un *", pointer)
        path = bytes(ffi.buffer(sun.sun_path, max(0, length - offset)))
        return path if path[:1] == b"\0" else os.fsdecode(path.partition(b"\0")[0])
    raise ValueError(f"address must be of AF_INET, AF_INET6 or AF_UNIX, not of family {family}")


def told_socket_name(fd: int) -> str:
    """Return the address of *fd* as text, or why there is none."""
    try:
        return repr(_socket_name(fd))
    except OSError as error:  # for instance if other code has closed the descriptor
        return f"no address ({os.strerror(error.errno or 0)})"


def name_of(owner: Handle, fd: int) -> Address:
    """Return the address that *owner*'s socket *fd* is bound to."""
    try:
        return _socket_name(fd)
    except OSError:
        owner._check_usable()  # raises if other code has closed the owner
        raise


def _socket_name(fd: int) -> Address:
    # A socket object would close *fd* if an interrupt came before it was detached.
    storage = ffi.new("struct sockaddr_storage *")
    address = ffi.cast("struct sockaddr *", storage)
    length = lib.evpy_socket_name(fd, False, address, ffi.sizeof(storage[0]))
    if length < 0:
        raise OSError(ffi.errno, f"fd {fd}: {os.strerror(ffi.errno)}")
    return unpack_address(address, length)


def text(pointer: CData) -> str:
    """Return C's NUL-terminated *pointer* as text, with undecodable bytes escaped."""
    return str(ffi.string(pointer).decode("utf-8", "backslashreplace"))
