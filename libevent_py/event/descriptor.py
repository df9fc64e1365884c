"""What a descriptor is: for texts, so nothing here raises because of the descriptor."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from typing import TYPE_CHECKING

from libevent_py._core import convert
from libevent_py._ffi import ffi, lib

if TYPE_CHECKING:
    from libevent_py._core.convert import Address

#: The names of files that are no sockets, by their types.
FILES = {
    stat.S_IFREG: "the file",
    stat.S_IFDIR: "the directory",
    stat.S_IFCHR: "the character device",
    stat.S_IFBLK: "the block device",
    stat.S_IFIFO: "a pipe",
}

#: The names of sockets, by their families and types.
SOCKETS: dict[tuple[int, int], str] = {
    (socket.AF_INET, socket.SOCK_STREAM): "a TCP socket",
    (socket.AF_INET6, socket.SOCK_STREAM): "a TCP socket",
    (socket.AF_INET, socket.SOCK_DGRAM): "a UDP socket",
    (socket.AF_INET6, socket.SOCK_DGRAM): "a UDP socket",
    (socket.AF_UNIX, socket.SOCK_STREAM): "a UNIX stream socket",
    (socket.AF_UNIX, socket.SOCK_DGRAM): "a UNIX datagram socket",
}

#: What is said of a UNIX socket that is bound to no path.
UNNAMED = "unnamed"


def what_is(fd: int) -> str:
    """Return what *fd* is, such as "a TCP socket, 127.0.0.1:1 to 127.0.0.1:2"."""
    try:
        mode = os.fstat(fd).st_mode
        return _socket(fd) if stat.S_ISSOCK(mode) else _file(fd, stat.S_IFMT(mode))
    except OSError as error:  # also if other code has just closed it
        return f"not open ({error.strerror})"


def address_text(address: Address) -> str:
    """Return *address* as one writes it: ``127.0.0.1:80``, ``[::1]:80``, or a path."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return repr(address) if address else UNNAMED


def own_address(fd: int) -> str | None:
    """Return the text of the address that the socket *fd* is bound to, or None."""
    return _address(fd, False)[1]


def peer_address(fd: int) -> str | None:
    """Return the text of the address that the socket *fd* is connected to, or None."""
    return _address(fd, True)[1]


def _address(fd: int, peer: bool) -> tuple[int, str | None]:
    """Return the family of the address of *fd*, or of its *peer*, and its text."""
    storage = ffi.new("struct sockaddr_storage *")
    address = ffi.cast("struct sockaddr *", storage)
    length = lib.evpy_socket_name(fd, peer, address, ffi.sizeof(storage[0]))
    if length < 0:
        return socket.AF_UNSPEC, None
    family = int(storage.ss_family) if length else socket.AF_UNSPEC
    try:
        return family, address_text(convert.unpack_address(address, length))
    except ValueError:  # of a family without a form in Python
        return family, None


def _socket(fd: int) -> str:
    family, own = _address(fd, False)
    kind = lib.evpy_socket_option(fd, socket.SO_TYPE)
    name = SOCKETS.get((family, kind), f"a socket of family {family}")
    if lib.evpy_socket_option(fd, socket.SO_ACCEPTCONN) > 0:
        return f"{name} that listens on {own}"
    peer = peer_address(fd)
    if peer is None:
        return f"{name}, not connected" if own is None else f"{name} at {own}, not connected"
    if own == peer == UNNAMED:
        return f"{name} of a pair"
    return f"{name}, {own} to {peer}"


def _file(fd: int, kind: int) -> str:
    try:
        link = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # there is no /proc, or nothing in it
        return FILES.get(kind, "a descriptor of another kind").replace("the ", "a ")
    if link.startswith("anon_inode:"):
        return link.removeprefix("anon_inode:").strip("[]")
    if kind == stat.S_IFIFO:
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        end = {os.O_RDONLY: "the reading end of ", os.O_WRONLY: "the writing end of "}.get(mode, "")
        return f"{end}{link if link.startswith('pipe:') else f'the FIFO {link!r}'}"
    return f"{FILES.get(kind, 'a descriptor of another kind')} {link!r}"
