"""A TCP server that greets each client with a line, and closes when the line has been sent.

On Ctrl-C it goes on for two more seconds: loopexit() can stop a loop later.

Made of evconnlistener_new_bind, bufferevent_socket_new, bufferevent_setcb, bufferevent_write,
bufferevent_free, evsignal_new, event_base_dispatch and event_base_loopexit.

    python samples/hello_world.py [host [port]]
    nc 127.0.0.1 8888
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from libevent_py import BufferEvent, BufferEventFlag, Event, EventBase, EventFlag, Listener

MESSAGE = b"Hello, World!\n"


def on_write(bev: BufferEvent) -> None:
    print("sent the line")
    bev.close()


def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
    print(f"lost a client: {bev.error}")
    bev.close()


def main(host: str = "127.0.0.1", port: int | str = 8888) -> None:
    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        bev = BufferEvent(base, fd, on_write=on_write, on_event=on_event)
        bev.write(MESSAGE)

    def on_interrupt(event: Event, fd: int, what: EventFlag) -> None:
        print("interrupted: exiting in two seconds", flush=True)
        base.loopexit(2.0)

    with EventBase() as base:
        listener = Listener(base, (host, int(port)), on_accept)
        Event.signal(base, signal.SIGINT, on_interrupt).add()
        print("serving {}:{}, Ctrl-C to stop".format(*listener.address), flush=True)
        base.dispatch()
    print("done")


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
