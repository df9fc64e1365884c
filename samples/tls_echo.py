"""A TLS server that sends back what it gets, and a client that joins it with stdin and stdout.

The client trusts the authorities in a file, or the system's, and only a server whose certificate is
for the given name. Both send TLS's closing notice when they have finished: an end without it is an
error, because the connection may have been cut.

Made of bufferevent_openssl_socket_new, bufferevent_socket_connect, evconnlistener_new_bind,
bufferevent_setcb, bufferevent_enable, bufferevent_disable, bufferevent_read, bufferevent_write,
bufferevent_write_buffer, bufferevent_free and evsignal_new.

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
        bev = BufferEvent.tls(base, fd, context)
        bev.setcb(on_read, lambda bev: bev.enable(EventFlag.READ), on_event)
        bev.enable(EventFlag.READ)

    def on_read(bev: BufferEvent) -> None:
        bev.write_buffer(bev.input)
        if len(bev.output) > MOST:
            bev.disable(EventFlag.READ)

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        if what & BufferEventFlag.CONNECTED:
            print(bev.tls_version, *(bev.cipher or ())[:1], flush=True)
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

    def on_read(bev: BufferEvent) -> None:
        sys.stdout.buffer.write(bev.read())
        sys.stdout.buffer.flush()

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        if what & BufferEventFlag.CONNECTED:
            stdin.add()
        elif what & BufferEventFlag.EOF:
            bev.close()
        else:
            sys.exit(f"{host}:{port}: {bev.error}")

    context = TlsContext(cafile=cafile)
    bev = BufferEvent.tls(base, -1, context, server_hostname=name)
    bev.setcb(on_read, lambda bev: stdin.add(), on_event)  # all is sent: the next piece
    stdin = Event(base, sys.stdin.fileno(), EventFlag.READ, on_stdin)
    bev.enable(EventFlag.READ)
    bev.connect((host, port))
    base.dispatch()


def main(host: str = "127.0.0.1", port: int | str = 8888, mode: str = "serve", *names: str) -> None:
    needed, optional = (*names, None, None)[:2]
    if mode not in ("serve", "talk") or needed is None:
        sys.exit(__doc__)
    features = libevent_py.EventFeature.FDS  # stdin may be a file, which epoll refuses
    base = EventBase(libevent_py.EventConfig(require=features))
    with base, contextlib.suppress(KeyboardInterrupt):
        (serve if mode == "serve" else talk)(base, host, int(port), needed, optional)


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
