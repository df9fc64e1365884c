"""An echo server of bufferevents."""

import socket

from benchmarks.contender import say_port
from libevent_py import BufferEvent, EventBase, EventFlag, Listener


def on_read(bev):
    bev.write(bev.read())


def on_event(bev, what):
    bev.close()


def on_accept(listener, fd, address):
    sock = socket.socket(fileno=fd)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bev = BufferEvent(base, sock, on_read=on_read, on_event=on_event)
    bev.enable(EventFlag.READ)


base = EventBase()
listener = Listener(base, ("127.0.0.1", 0), on_accept)
say_port(listener.address[1])
base.dispatch()
