"""A TCP server that answers each record of 16 bytes with 4 KiB, and never keeps much in memory.

Watermarks say when to call back. For the input: not before there is a whole record (low), and no
more than a few records are read (high). For the output: as soon as little of it is unsent (low), so
that the socket has something to send while the next answers are made.

The server itself does the back-pressure: it doesn't read from a client that doesn't take its
answers. What the client sends meanwhile fills the kernel's buffers; then the client has to wait.

Made of bufferevent_setwatermark, bufferevent_enable, bufferevent_disable, bufferevent_get_input,
bufferevent_get_output, bufferevent_read, bufferevent_write, bufferevent_socket_new,
bufferevent_setcb, bufferevent_free, evconnlistener_new_bind and evsignal_new.

    python samples/watermarks.py [host [port]]
    yes 0123456789abcde | nc 127.0.0.1 8888 | (sleep 5; head -c 30000000 | wc -c)
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from libevent_py import BufferEvent, BufferEventFlag, Event, EventBase, EventFlag, Listener

RECORD = 16
ANSWER = 256  #: times the record
MOST_INPUT = 8 * RECORD
ENOUGH, TOO_MUCH = 2**16, 2**18  #: bytes of unsent output: when to read on, and when to stop


def on_read(bev: BufferEvent) -> None:
    # All whole records go: with the input left at its high watermark libevent would call again
    # and again.
    while len(bev.input) >= RECORD:
        bev.write(bev.read(RECORD) * ANSWER)
    if len(bev.output) >= TOO_MUCH:
        bev.disable(EventFlag.READ)
        print(f"{bev.fd}: {len(bev.output)} bytes are unsent, reading stops", flush=True)


def on_write(bev: BufferEvent) -> None:
    if not bev.enabled & EventFlag.READ:
        print(f"{bev.fd}: {len(bev.output)} bytes are unsent, reading goes on", flush=True)
        bev.enable(EventFlag.READ)


def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
    if what & BufferEventFlag.EOF and bev.output:  # the last answers go out first
        bev.setwatermark(EventFlag.WRITE, low=0, high=0)
        bev.on_write = BufferEvent.close
    else:
        bev.close()


def main(host: str = "127.0.0.1", port: int | str = 8888) -> None:
    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        bev = BufferEvent(base, fd, on_read=on_read, on_write=on_write, on_event=on_event)
        bev.setwatermark(EventFlag.READ, low=RECORD, high=MOST_INPUT)
        bev.setwatermark(EventFlag.WRITE, low=ENOUGH, high=0)
        bev.enable(EventFlag.READ)

    with EventBase() as base:
        listener = Listener(base, (host, int(port)), on_accept)
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        print("serving {}:{}, Ctrl-C to stop".format(*listener.address), flush=True)
        base.dispatch()
    print("stopped")


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
