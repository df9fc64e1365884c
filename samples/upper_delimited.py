"""Packets between delimiters: each begins with "1" and ends with "2", and the rest is noise.

Each packet is answered with what is between the two in capitals; bytes outside of packets are
dropped. A client that sends "1" and then no "2" is not listened to for ever.

Made of bufferevent_get_input, evbuffer_search, evbuffer_drain, evbuffer_remove and
bufferevent_setwatermark; the rest is as in upper_listener.py.

    python samples/upper_delimited.py [host [port]]
    echo 'noise 1hello2 noise' | nc -N 127.0.0.1 8888
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from libevent_py import BufferEvent, BufferEventFlag, Event, EventBase, EventFlag, Listener

#: The longest packet, and how many bytes of answers may wait for a client.
MOST = 65536


def answer(bev: BufferEvent) -> None:
    """Answer all whole packets, but no more of them than the client takes the answers of."""
    while len(bev.output) < MOST:
        start = bev.input.search(b"1")
        bev.input.drain(len(bev.input) if start < 0 else start)
        end = bev.input.search(b"2")
        if end < 0:
            if len(bev.input) >= MOST:
                print("a packet is too long: its client is disconnected")
                bev.close()
            return
        packet = bev.input.remove(end + 1)
        bev.write(packet[1:-1].upper())


def finish(bev: BufferEvent) -> None:
    """Close the connection once there is nothing left to answer and to send."""
    answer(bev)
    if not bev.closed and not bev.output:
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
        bev.setwatermark(EventFlag.READ, low=0, high=MOST)
        bev.enable(EventFlag.READ)

    with EventBase() as base:
        listener = Listener(base, (host, int(port)), on_accept)
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        print("serving {}:{}, Ctrl-C to stop".format(*listener.address), flush=True)
        base.dispatch()


if __name__ == "__main__":
    main(*sys.argv[1:])
