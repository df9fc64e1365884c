"""Python's sockets of descriptors that others use, too: how these wait stays as it is.

A new socket object sets the mode of its descriptor: PyPy makes it blocking, CPython non-blocking if
there is a default timeout. But the mode is that of the open file, which a loop, another process or
the caller may have as well. A loop whose descriptor has become blocking waits in one read.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Iterator

from libevent_py import errors


def adopted(fd: int) -> socket.socket:
    """Return a socket that owns *fd* and blocks as *fd* does; `OSError` if that is no socket."""
    blocking = os.get_blocking(fd)
    try:
        made = socket.socket(fileno=fd)
    finally:
        os.set_blocking(fd, blocking)
    made.setblocking(blocking)  # the object must know, too
    return made


@contextlib.contextmanager
def lent(fd: int) -> Iterator[socket.SocketType]:
    """Lend a socket for *fd*, which blocks as *fd* does, and closes only a copy of that.

    It is of C's type, so that nothing comes between making it and noting that it is there. Raises
    `OSError` if *fd* is no socket.
    """
    blocking = os.get_blocking(fd)
    copies: list[int] = []  # an interrupt may close the copy, not what others use
    sockets: list[socket.SocketType] = []
    try:
        errors.noted(copies.append, os.dup, fd)
        try:
            make = functools.partial(socket.SocketType, fileno=copies[0])
            errors.noted(sockets.append, make)
        finally:
            os.set_blocking(fd, blocking)
        sockets[0].setblocking(blocking)
        yield sockets[0]
    finally:
        if sockets:
            sockets[0].close()
        elif copies:
            os.close(copies[0])
