"""What servers of bufferevents share: each connection gets one, with these callbacks."""

import socket
from collections.abc import Callable, Sequence

from benchmarks.contender import say_port
from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    EventBase,
    EventFlag,
    Listener,
)

DataCallback = Callable[[BufferEvent], object]


def serve(
    on_read: DataCallback | None = None,
    on_write: DataCallback | None = None,
    on_data: Callable[[BufferEvent, bytes], bytes] | None = None,
    options: Sequence[str] = (),
) -> None:
    """Serve for ever; *options* are names of `BufferEventOption`."""
    chosen = BufferEventOption.CLOSE_ON_FREE
    for name in options:
        chosen |= BufferEventOption[name]

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        bev.close()

    def on_accept(listener: Listener, fd: int, address: object) -> None:
        sock = socket.socket(fileno=fd)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bev = BufferEvent(base, sock, chosen, on_read=on_read, on_write=on_write, on_event=on_event)
        if on_data:
            bev.on_data = on_data
        bev.enable(EventFlag.READ)
        if on_write:
            on_write(bev)

    base = EventBase()
    listener = Listener(base, ("127.0.0.1", 0), on_accept)
    say_port(listener.address[1])
    base.dispatch()
