"""Listening sockets for servers: bound, or inherited."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator

from libevent_py._core.sockets import adopted

#: How many connections may wait to be accepted.
BACKLOG = 1024


def address_in(text: str) -> tuple[str, int]:
    """Return the host and the port that *text* is: "host:port", "[::1]:port", ":port" for all.

    Raises `ValueError` for anything else.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f'an address must be "HOST:PORT", not {text!r}')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'an IPv6 address must be in brackets, as "[::1]:8000", not {text!r}')
    return host, int(port)


def bound(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Return a listening socket for each address of *host*; "" is all addresses.

    With *reuse_port*, other processes may listen on the same port, if they say so, too. Raises
    `OSError`, which says the address.
    """
    made: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as error:  # no IPv6 here, though the resolver knows of it
                if error.errno == errno.EAFNOSUPPORT and len(found) > 1:
                    continue
                raise
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if port == 0 and len(made) > 1:  # the same port for all
                address = (address[0], made[0].getsockname()[1], *address[2:])
            sock.bind(address)
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in made:
            sock.close()
        raise type(error)(error.errno, f"{host}:{port}: {error.strerror}") from None
    return made


def at_path(path: str) -> socket.socket:
    """Return a socket that listens at the *path* of a UNIX socket.

    A socket that is there already is removed if nobody listens on it. Raises `OSError`, which says
    the path.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode) and is_stale(path):
                os.unlink(path)
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise type(error)(error.errno, f"{path}: {error.strerror or error}") from None
    return sock


def is_stale(path: str) -> bool:
    """Tell whether nobody listens on the UNIX socket at *path*."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def inherited(fd: int) -> socket.socket:
    """Return the listening socket that *fd* is; `ValueError` if it is none.

    The socket owns *fd*.
    """
    try:
        sock = adopted(fd)
    except OSError as error:
        raise ValueError(f"fd {fd} is no socket: {error.strerror}") from None
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise ValueError(f"the socket with fd {fd} doesn't listen")
    return sock


@contextlib.contextmanager
def removed_after(path: str | None) -> Iterator[None]:
    """Remove the UNIX socket at *path* after a ``with`` block, if it still is the same."""
    if path is None:
        yield
        return
    before, process = os.stat(path), os.getpid()
    try:
        yield
    finally:
        if os.getpid() == process:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(before, os.stat(path)):
                    os.unlink(path)


def described(sock: socket.socket, scheme: str) -> str:
    """Return the URL, more or less, of what is served on *sock*."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"{scheme}+unix:{os.fsdecode(name)}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{scheme}://{host}:{name[1]}"
