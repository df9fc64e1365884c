"""Packets with their length in front: two bytes in host byte order, then that many of payload.

Each packet is answered with its payload in capitals. While one is incomplete, the low watermark is
raised to its size: so the callback comes once for it, however few bytes arrive at a time.

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

#: How many bytes of input and of answers may wait for a client: more than its longest packet.
MOST = 2 * 65536


def packet_size(data: Buffer) -> int:
    """Return the size of the packet that *data* begins with, as far as it is known."""
    if len(data) < LENGTH.size:
        return LENGTH.size
    (length,) = LENGTH.unpack(data.copyout(LENGTH.size))
    return LENGTH.size + int(length)


def answer(bev: BufferEvent) -> None:
    """Answer all whole packets, but no more of them than the client takes the answers of."""
    while len(bev.output) < MOST:
        size = packet_size(bev.input)
        if len(bev.input) < size:
            bev.setwatermark(EventFlag.READ, low=size, high=MOST)
            return
        packet = bev.input.remove(size)
        bev.write(packet[LENGTH.size :].upper())


def finish(bev: BufferEvent) -> None:
    """Close the connection once there is nothing left to answer and to send."""
    answer(bev)
    if not bev.output:
        bev.close()


def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
    if what & BufferEventFlag.EOF:
        bev.on_write = finish
        finish(bev)
    else:
        bev.close()


def main(host: str = "127.0.0.1", port: int | str = 8888) -> None:
    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        bev = BufferEvent(base, fd, on_read=answer, on_write=answer, on_event=on_event)
        bev.setwatermark(EventFlag.READ, low=LENGTH.size, high=MOST)
        bev.enable(EventFlag.READ)

    with EventBase() as base:
        listener = Listener(base, (host, int(port)), on_accept)
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        print("serving {}:{}, Ctrl-C to stop".format(*listener.address), flush=True)
        base.dispatch()


if __name__ == "__main__":
    main(*sys.argv[1:])
