"""A complete upper-casing TCP server: a listener accepts, a bufferevent serves each client.

It reports why each connection ends: the client has closed it, was silent for ten seconds, or there
was an error. A client that doesn't take its answers is not read from until it does.

Made of evconnlistener_new_bind, bufferevent_socket_new, bufferevent_setcb,
bufferevent_set_timeouts, bufferevent_setwatermark, bufferevent_enable, bufferevent_disable,
bufferevent_read, bufferevent_write, bufferevent_get_output, bufferevent_free, evsignal_new,
event_base_dispatch and event_base_loopexit.

    python samples/upper_listener.py [host [port [read timeout in seconds]]]
    nc 127.0.0.1 8888
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import libevent_py
from libevent_py import BufferEvent, BufferEventFlag, Event, EventBase, EventFlag, Listener

#: How many bytes are read at once, and how many of answers may wait for a client.
MOST = 65536


def on_read(bev: BufferEvent) -> None:
    bev.write(bev.read().upper())
    if len(bev.output) > MOST:
        bev.disable(EventFlag.READ)


def on_write(bev: BufferEvent) -> None:
    bev.enable(EventFlag.READ)


def main(host: str = "127.0.0.1", port: int | str = 8888, read_timeout: float | str = 10.0) -> None:
    timeout = float(read_timeout)

    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        client = "{}:{}".format(*address)

        def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
            if what & BufferEventFlag.EOF:
                print(f"{client}: end of file")
                if bev.output:  # the last answers go out first
                    bev.on_write = BufferEvent.close
                    return
            elif what & BufferEventFlag.TIMEOUT:
                print(f"{client}: timed out after {timeout:g} s")
            else:
                print(f"{client}: {bev.error}")
            bev.close()

        print(f"{client}: connected")
        bev = BufferEvent(base, fd, on_read=on_read, on_write=on_write, on_event=on_event)
        bev.set_timeouts(read=timeout, write=timeout)
        bev.setwatermark(EventFlag.READ, low=0, high=MOST)
        bev.enable(EventFlag.READ)

    with EventBase() as base:
        listener = Listener(base, (host, int(port)), on_accept)
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        host, port = listener.address[:2]
        print(f"libevent {libevent_py.libevent_version} with {base.method}, serving {host}:{port}")
        print(f"In another terminal: nc {host} {port}        Ctrl-C here stops it", flush=True)
        base.dispatch()
    print("stopped")


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
