"""A client of a bufferevent: it connects through libevent, then joins stdin and the connection.

It ends when the server closes, when nothing has come for ten seconds, or on an error, which it
prints. What a callback raises comes out of the loop: so a callback can end the program by
`SystemExit`.

Made of bufferevent_socket_new, bufferevent_socket_connect, bufferevent_set_timeouts,
bufferevent_setcb, bufferevent_enable, bufferevent_read, bufferevent_write, bufferevent_getfd and
bufferevent_free, and of events as in client_event.py.

    python samples/client_bufferevent.py [host [port [read timeout in seconds]]]
"""

from __future__ import annotations

import os
import socket
import sys

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    Event,
    EventBase,
    EventConfig,
    EventFeature,
    EventFlag,
)

STDIN = 0


def main(host: str = "127.0.0.1", port: int | str = 8888, read_timeout: float | str = 10.0) -> None:
    timeout = float(read_timeout)

    def on_stdin(event: Event, fd: int, what: EventFlag) -> None:
        if data := os.read(fd, 65536):
            bev.write(data)
        else:
            with socket.socket(fileno=os.dup(bev.fd)) as sock:
                sock.shutdown(socket.SHUT_WR)

    def on_read(bev: BufferEvent) -> None:
        sys.stdout.buffer.write(bev.read())
        sys.stdout.buffer.flush()

    def on_write(bev: BufferEvent) -> None:
        stdin.add()  # all is sent: the next piece

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        if what & BufferEventFlag.CONNECTED:
            bev.enable(EventFlag.READ)
            stdin.add()
        elif what & BufferEventFlag.EOF:
            base.loopexit()
        elif what & BufferEventFlag.TIMEOUT:
            sys.exit(f"{host}:{port}: nothing came for {timeout:g} s")
        else:
            sys.exit(f"{host}:{port}: {bev.error}")

    # stdin may be a file, which epoll refuses.
    with EventBase(EventConfig(require=EventFeature.FDS)) as base:
        stdin = Event(base, STDIN, EventFlag.READ, on_stdin)
        bev = BufferEvent(base, on_read=on_read, on_write=on_write, on_event=on_event)
        bev.set_timeouts(read=timeout, write=None)
        bev.connect((host, int(port)))
        try:
            base.dispatch()
        except KeyboardInterrupt:
            pass
        except OSError as error:
            sys.exit(f"{host}:{port}: {error}")


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
