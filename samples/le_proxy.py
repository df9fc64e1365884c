"""A TCP relay: it passes a client's bytes on to a server, and the server's bytes to the client.

If one side sends faster than the other takes, it is not read from until half of the waiting bytes
are sent. When one side has closed, the other one is closed as soon as it has got everything; an
error ends both. With --tls the relay speaks TLS to the server, whose certificate must be for its
host.

Made of evconnlistener_new_bind, bufferevent_socket_new, bufferevent_openssl_socket_new,
bufferevent_socket_connect_hostname, bufferevent_setcb, bufferevent_get_input,
bufferevent_get_output, evbuffer_add_buffer, evbuffer_get_length, bufferevent_setwatermark,
bufferevent_enable, bufferevent_disable, bufferevent_getfd and bufferevent_free.

    python samples/le_proxy.py [--tls] [host [port [server's host [server's port]]]]
    curl http://127.0.0.1:8888/
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from typing import Any

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    Event,
    EventBase,
    EventFlag,
    Listener,
    TlsContext,
)

READ, WRITE = EventFlag.READ, EventFlag.WRITE
OPTIONS = BufferEventOption.CLOSE_ON_FREE | BufferEventOption.DEFER_CALLBACKS

#: How many bytes may wait for either.
MOST = 512 * 1024


class Relay:
    """A client's connection, and the one to the server that goes with it."""

    def __init__(self, client: BufferEvent, server: BufferEvent, tls: bool) -> None:
        self.other = {client: server, server: client}
        self.server, self.connected, self.tls = server, False, tls
        self.said_all: set[BufferEvent] = set()
        for bev in self.other:
            bev.setcb(self.on_read, None, self.on_event)
            bev.enable(READ | WRITE)

    def on_read(self, bev: BufferEvent) -> None:
        other = self.other[bev]
        if other.closed:  # by its error; this one is still writing what it had said before
            bev.input.drain(len(bev.input))
            return
        other.output.add_buffer(bev.input)
        if len(other.output) >= MOST:
            bev.disable(READ)
            other.setwatermark(WRITE, MOST // 2, 0)
            other.on_write = self.on_half_taken

    def on_half_taken(self, bev: BufferEvent) -> None:
        bev.on_write = None
        bev.setwatermark(WRITE, 0, 0)
        self.other[bev].enable(READ)

    def on_event(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        other = self.other[bev]
        if what & BufferEventFlag.CONNECTED:
            self.connected = True
            if other in self.said_all:
                self.finish(bev)
            return
        if what & BufferEventFlag.ERROR:
            print(f"{'server' if bev is self.server else 'client'}: {bev.error}")
            bev.close()
            if other.closed:
                return
            other.disable(READ)
        else:
            self.on_read(bev)
        self.said_all.add(bev)
        other.setwatermark(WRITE, 0, 0)
        other.on_write = self.finish
        self.finish(other)

    def finish(self, bev: BufferEvent) -> None:
        """Tell *bev* that the other has said all, once all that is through."""
        other = self.other[bev]
        if bev.output or (bev is self.server and not self.connected):
            return
        if other.closed:
            bev.close()
        elif bev in self.said_all and not other.output:
            bev.close()
            other.close()
        elif bev is self.server and self.tls:
            bev.shutdown()
        else:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(bev.fd)) as sock:
                sock.shutdown(socket.SHUT_WR)


def main(
    host: str = "127.0.0.1",
    port: int | str = 8888,
    to_host: str = "127.0.0.1",
    to_port: int | str = 80,
    *,
    tls: bool = False,
) -> None:
    context = TlsContext() if tls else None

    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        client = BufferEvent(base, fd, OPTIONS)
        if context is None:
            server = BufferEvent(base, -1, OPTIONS)
        else:
            server = BufferEvent.tls(base, -1, context, server_hostname=to_host, options=OPTIONS)
        Relay(client, server, tls)
        server.connect_hostname(None, to_host, int(to_port))

    with EventBase() as base:
        listener = Listener(base, (host, int(port)), on_accept)
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        host, port = listener.address[:2]
        print(f"serving {host}:{port} by {to_host}:{to_port}", flush=True)
        base.dispatch()


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--tls"]
    print(__doc__) if "--help" in words else main(*words, tls="--tls" in sys.argv)
