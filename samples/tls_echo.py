"""A TLS server that sends back what it gets, and a client that joins it with stdin and stdout.

The client trusts the authorities in a file, or the system's, and only a server whose certificate is
for the given name. Both send TLS's closing notice when they have finished: an end without it is an
error, because the connection may have been cut.

Made of bufferevent_openssl_socket_new, bufferevent_socket_connect, evconnlistener_new_bind,
bufferevent_setcb, bufferevent_enable, bufferevent_disable, bufferevent_read, bufferevent_write and
bufferevent_free.

    python samples/tls_echo.py 127.0.0.1 8888 serve certificate.pem [key.pem]
    python samples/tls_echo.py 127.0.0.1 8888 talk localhost [authorities.pem]
    openssl s_client -connect 127.0.0.1:8888
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any

import libevent_py
from libevent_py import BufferEvent, BufferEventFlag, Event, EventBase, EventFlag, TlsContext

#: How many bytes of answers may wait for a client.
MOST = 65536


def serve(base: EventBase, host: str, port: int, certfile: str, keyfile: str | None) -> None:
    def on_accept(listener: object, fd: int, address: Any) -> None:
        bev = BufferEvent.tls(base, fd, context, on_read=on_read, on_event=on_event)
        bev.on_write = lambda bev: bev.enable(EventFlag.READ)
        bev.enable(EventFlag.READ)

    def on_read(bev: BufferEvent) -> None:
        bev.write(bev.read())
        if len(bev.output) > MOST:
            bev.disable(EventFlag.READ)

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        if what & BufferEventFlag.CONNECTED:
            print(bev.tls_version, *(bev.cipher or ()), flush=True)
        else:
            print(bev.error or "a client has finished", flush=True)
            bev.close(flush=True)

    context = TlsContext(server_side=True, certfile=certfile, keyfile=keyfile)
    listener = libevent_py.Listener(base, (host, port), on_accept)
    Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
    print("serving {}:{}, Ctrl-C to stop".format(*listener.address), flush=True)
    base.dispatch()


def talk(base: EventBase, host: str, port: int, name: str, cafile: str | None) -> None:
    def on_stdin(event: Event, fd: int, what: EventFlag) -> None:
        if data := os.read(fd, MOST):
            bev.write(data)
        else:
            bev.shutdown()

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        if what & BufferEventFlag.CONNECTED:
            stdin.add()
        elif what & BufferEventFlag.EOF:
            bev.close()
        else:
            sys.exit(f"{host}:{port}: {bev.error}")

    context = TlsContext(cafile=cafile)
    bev = BufferEvent.tls(base, -1, context, server_hostname=name, on_event=on_event)
    bev.on_read = lambda bev: os.write(sys.stdout.fileno(), bev.read())
    stdin = Event(base, sys.stdin.fileno(), EventFlag.READ, on_stdin)
    bev.on_write = lambda bev: stdin.add()  # all is sent: the next piece
    bev.enable(EventFlag.READ)
    bev.connect((host, port))
    base.dispatch()


def main(host: str = "127.0.0.1", port: int | str = 8888, mode: str = "serve", *names: str) -> None:
    needed, optional = (*names, None, None)[:2]
    if mode not in ("serve", "talk") or needed is None:
        sys.exit(__doc__)
    config = libevent_py.EventConfig(require=libevent_py.EventFeature.FDS)  # stdin may be a file
    with EventBase(config) as base, contextlib.suppress(KeyboardInterrupt):
        (serve if mode == "serve" else talk)(base, host, int(port), needed, optional)


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
