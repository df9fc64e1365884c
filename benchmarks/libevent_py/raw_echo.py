"""An echo server of plain events and Python's own sockets."""

import socket

from benchmarks.contender import say_port
from libevent_py import Event, EventBase, EventFlag

READ = EventFlag.READ | EventFlag.PERSIST
WRITE = EventFlag.WRITE | EventFlag.PERSIST


class Connection:
    def __init__(self, base: EventBase, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unsent = b""
        self.readable = Event(base, sock, READ, self.on_readable).add()
        self.writable = Event(base, sock, WRITE, self.on_writable)

    def on_readable(self, event: Event, fd: int, what: EventFlag) -> None:
        try:
            data = self.sock.recv(65536)
            sent = self.send(data)
        except OSError:
            return self.close()
        if not data:
            self.close()
        elif sent < len(data):
            self.unsent = data[sent:]
            self.readable.delete()
            self.writable.add()

    def on_writable(self, event: Event, fd: int, what: EventFlag) -> None:
        try:
            self.unsent = self.unsent[self.send(self.unsent) :]
        except OSError:
            return self.close()
        if not self.unsent:
            self.writable.delete()
            self.readable.add()

    def send(self, data: bytes) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        self.readable.close()
        self.writable.close()
        self.sock.close()


def on_accept(event: Event, fd: int, what: EventFlag) -> None:
    sock, _ = listener.accept()
    Connection(base, sock)


base = EventBase()
listener = socket.create_server(("127.0.0.1", 0))
listener.setblocking(False)
Event(base, listener, READ, on_accept).add()
say_port(listener.getsockname()[1])
base.dispatch()
