"""A client of bare events: one loop waits for stdin and for the socket, as nc does.

The next piece of stdin is read when the last one has been sent. At the end of stdin the client
closes its half of the connection, and prints what the server still sends. The backend must be one
that can wait for any descriptor, because stdin may be a file, which epoll refuses.

Made of event_config_new, event_config_require_features, event_base_new_with_config, event_new,
event_add, event_base_dispatch and event_base_loopexit.

    python samples/client_event.py [host [port]]
"""

from __future__ import annotations

import os
import socket
import sys

from libevent_py import Event, EventBase, EventConfig, EventFeature, EventFlag

STDIN = 0


def converse(sock: socket.socket, base: EventBase) -> None:
    """Send stdin to *sock* and print what comes from it, until that ends."""
    unsent = b""

    def on_stdin(event: Event, fd: int, what: EventFlag) -> None:
        nonlocal unsent
        unsent = os.read(fd, 65536)
        if unsent:
            writable.add()
        else:
            sock.shutdown(socket.SHUT_WR)

    def on_writable(event: Event, fd: int, what: EventFlag) -> None:
        nonlocal unsent
        unsent = unsent[sock.send(unsent) :]
        (writable if unsent else stdin).add()

    def on_readable(event: Event, fd: int, what: EventFlag) -> None:
        if data := sock.recv(65536):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            base.loopexit()

    sock.setblocking(False)
    stdin = Event(base, STDIN, EventFlag.READ, on_stdin).add()
    writable = Event(base, sock, EventFlag.WRITE, on_writable)
    Event(base, sock, EventFlag.READ | EventFlag.PERSIST, on_readable).add()
    base.dispatch()


def main(host: str = "127.0.0.1", port: int | str = 8888) -> None:
    config = EventConfig(require=EventFeature.FDS)
    try:
        with socket.create_connection((host, int(port))) as sock, EventBase(config) as base:
            converse(sock, base)
    except KeyboardInterrupt:
        pass
    except OSError as error:
        sys.exit(f"{host}:{port}: {error}")


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
