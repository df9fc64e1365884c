"""An upper-casing TCP server of bare events: libevent only reports which descriptors are ready.

One event accepts. Each client has an event for reading and one for writing, and only one of them is
pending at a time: so a client that doesn't take its answers is not read from.

Made of event_base_new, event_base_dispatch, event_base_loopexit, event_base_once, event_new,
event_add, event_del, event_free and evsignal_new.

    python samples/upper_event.py [host [port]]
    nc 127.0.0.1 8888
"""

from __future__ import annotations

import signal
import socket
import sys

from libevent_py import Event, EventBase, EventFlag

clients: set[Client] = set()


class Client:
    def __init__(self, base: EventBase, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.unsent = b""
        self.readable = Event(base, sock, EventFlag.READ, self.on_readable).add()
        self.writable = Event(base, sock, EventFlag.WRITE, self.on_writable)
        clients.add(self)

    def on_readable(self, event: Event, fd: int, what: EventFlag) -> None:
        try:
            self.unsent = self.sock.recv(65536).upper()
        except BlockingIOError:  # it was a false alarm
            event.add()
        except OSError:
            self.close()
        else:
            if self.unsent:
                self.send()
            else:
                self.close()

    def on_writable(self, event: Event, fd: int, what: EventFlag) -> None:
        self.send()

    def send(self) -> None:
        """Send what the socket takes; then wait until it takes the rest, or for more to read."""
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            return self.close()
        (self.writable if self.unsent else self.readable).add()

    def close(self) -> None:
        self.readable.close()
        self.writable.close()
        self.sock.close()
        clients.discard(self)


def main(host: str = "127.0.0.1", port: int | str = 8888) -> None:
    def on_accept(event: Event, fd: int, what: EventFlag) -> None:
        try:
            sock, _ = server.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the client is gone already
            return
        except OSError as error:  # such as: too many open files
            print(f"can't accept, trying again in a second: {error}")
            event.delete()
            base.once(lambda fd, what: event.add(), timeout=1.0)
        else:
            Client(base, sock)

    with socket.create_server((host, int(port))) as server, EventBase() as base:
        server.setblocking(False)
        Event(base, server, EventFlag.READ | EventFlag.PERSIST, on_accept).add()
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        print("serving {}:{}, Ctrl-C to stop".format(*server.getsockname()), flush=True)
        base.dispatch()
        for client in tuple(clients):
            client.close()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
