"""Packets between delimiters: each begins with "1" and ends with "2", and the rest is noise.

Each packet is answered in capitals, with its delimiters, as in the C program of the same purpose:
"1abc2" with "1ABC2". Bytes outside of packets are dropped. A client that sends "1" and then no "2"
is disconnected in the end.

Made of bufferevent_get_input, evbuffer_get_length, evbuffer_search, evbuffer_drain and
evbuffer_remove; the rest is as in upper_listener.py.

    python samples/upper_delimited.py [host [port]]
    echo 'noise 1hello2 noise' | nc -N 127.0.0.1 8888
"""

from __future__ import annotations

import signal
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

#: How long a packet may be, and how many bytes of answers a client may leave waiting.
MOST = 65536


def next_packet(data: Buffer) -> bytes | None:
    """Take the next packet from *data*, with what is before it; None if it is not complete."""
    start = data.search(b"1")
    data.drain(len(data) if start < 0 else start)
    end = data.search(b"2")
    return data.remove(end + 1) if end > 0 else None


def on_read(bev: BufferEvent) -> None:
    while packet := next_packet(bev.input):
        bev.write(packet.upper())
    if len(bev.input) > MOST:
        print("a packet is too long: its client is disconnected")
        bev.close()
    elif len(bev.output) > MOST:
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
        bev.enable(EventFlag.READ)

    with EventBase() as base:
        listener = Listener(base, (host, int(port)), on_accept)
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        print("serving {}:{}, Ctrl-C to stop".format(*listener.address), flush=True)
        base.dispatch()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
