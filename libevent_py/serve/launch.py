"""`run`: serve an application in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libevent_py._core.frames import tells
from libevent_py.serve import sockets
from libevent_py.serve.config import Config
from libevent_py.serve.worker import serve


@tells
def run(
    app: Any,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    unix: str | None = None,
    fd: int | None = None,
    ready: Callable[[], None] | None = None,
    **settings: Any,
) -> None:
    """Serve *app* until SIGTERM, SIGINT or ``shutdown.set()``, in this process.

    *app* is a WSGI or ASGI application, or "module:attribute". It is served on *host* and *port*,
    or else at the path *unix* of a UNIX socket, which is removed in the end, or on the listening
    socket *fd*, which is closed. *ready* and *settings* are as for `serve` and `Config`.
    Raises what they raise, and `OSError` if nothing can be bound there.
    """
    config = Config(app, **settings)
    if unix is not None and fd is not None:
        raise ValueError("unix and fd can't both be given")
    if unix is not None:
        listening = [sockets.at_path(unix)]
    elif fd is not None:
        listening = [sockets.inherited(fd)]
    else:
        listening = sockets.bound(host, port)
    with sockets.removed_after(unix):
        serve(config, listening, ready=ready)
