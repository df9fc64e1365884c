"""An echo server of add_reader and Python's own sockets."""

import socket

from benchmarks.asyncio.loop import loop
from benchmarks.contender import say_port


class Connection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unsent = b""
        loop.add_reader(sock, self.on_readable)

    def on_readable(self) -> None:
        try:
            data = self.sock.recv(65536)
            sent = self.send(data)
        except OSError:
            return self.close()
        if not data:
            self.close()
        elif sent < len(data):
            self.unsent = data[sent:]
            loop.remove_reader(self.sock)
            loop.add_writer(self.sock, self.on_writable)

    def on_writable(self) -> None:
        try:
            self.unsent = self.unsent[self.send(self.unsent) :]
        except OSError:
            return self.close()
        if not self.unsent:
            loop.remove_writer(self.sock)
            loop.add_reader(self.sock, self.on_readable)

    def send(self, data: bytes) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        loop.remove_reader(self.sock)
        loop.remove_writer(self.sock)
        self.sock.close()


def on_accept() -> None:
    sock, _ = listener.accept()
    Connection(sock)


listener = socket.create_server(("127.0.0.1", 0))
listener.setblocking(False)
loop.add_reader(listener, on_accept)
say_port(listener.getsockname()[1])
loop.run_forever()
