"""Packets with their length in front: two bytes in host byte order, then that many of payload.

Each packet is answered with its payload in capitals. While a packet is incomplete, the low
watermark is raised to its size: so the callback is called once for it, even if its bytes arrive one
by one.

Made of bufferevent_get_input, evbuffer_get_length, evbuffer_copyout, evbuffer_remove and
bufferevent_setwatermark; the rest is as in upper_listener.py.

    python samples/upper_length_prefixed.py [host [port]]
    printf '\\005\\000hello' | nc -N 127.0.0.1 8888
"""

from __future__ import annotations

import signal
import struct
import sys
from typing import Any

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    Event,
    EventBase,
    EventFlag,
    Listener,
)

LENGTH = struct.Struct("=H")

#: A client that leaves more bytes of its answers waiting is not read from meanwhile.
MOST_UNSENT = 65536


def packet_size(data: Buffer) -> int:
    """Return the size of the packet that *data* begins with, as far as it is known."""
    if len(data) < LENGTH.size:
        return LENGTH.size
    (length,) = LENGTH.unpack(data.copyout(LENGTH.size))
    return LENGTH.size + int(length)


def on_read(bev: BufferEvent) -> None:
    while len(bev.input) >= (size := packet_size(bev.input)):
        packet = bev.input.remove(size)
        bev.write(packet[LENGTH.size :].upper())
    bev.setwatermark(EventFlag.READ, low=size, high=0)
    if len(bev.output) > MOST_UNSENT:
        bev.disable(EventFlag.READ)


def on_write(bev: BufferEvent) -> None:
    bev.enable(EventFlag.READ)


def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
    if what & BufferEventFlag.EOF and bev.output:
        bev.on_write = BufferEvent.close  # when the last answer is sent
    else:
        bev.close()


def main(host: str = "127.0.0.1", port: int | str = 8888) -> None:
    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        bev = BufferEvent(base, fd, on_read=on_read, on_write=on_write, on_event=on_event)
        bev.setwatermark(EventFlag.READ, low=LENGTH.size, high=0)
        bev.enable(EventFlag.READ)

    with EventBase() as base:
        listener = Listener(base, (host, int(port)), on_accept)
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        print("serving {}:{}, Ctrl-C to stop".format(*listener.address), flush=True)
        base.dispatch()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
