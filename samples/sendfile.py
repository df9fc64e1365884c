"""A TCP server that sends a file to each client by sendfile(), without loading it into memory.

All clients share one segment of the file, and so one descriptor. A client that takes nothing for
ten seconds is disconnected.

Made of evbuffer_file_segment_new, evbuffer_file_segment_free, evbuffer_add_file_segment,
evbuffer_get_length, evconnlistener_new_bind, bufferevent_socket_new, bufferevent_setcb,
bufferevent_set_timeouts, bufferevent_get_output, bufferevent_free, evsignal_new,
event_base_dispatch and event_base_loopexit.

    python samples/sendfile.py [host [port [file]]]
    nc 127.0.0.1 8888
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from libevent_py import BufferEvent, BufferEventFlag, Event, EventBase, FileSegment, Listener


def main(host: str = "127.0.0.1", port: int | str = 8888, path: str = __file__) -> None:
    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        client = "{}:{}".format(*address)

        def on_write(bev: BufferEvent) -> None:
            print(f"{client}: has the file")
            bev.close()

        def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
            if what & BufferEventFlag.EOF:
                print(f"{client}: {len(bev.output)} bytes are missing, for the file is shorter now")
            elif what & BufferEventFlag.TIMEOUT:
                print(f"{client}: takes nothing")
            else:
                print(f"{client}: {bev.error}")
            bev.close()

        bev = BufferEvent(base, fd, on_write=on_write, on_event=on_event)
        bev.set_timeouts(read=None, write=10.0)
        bev.output.add_file_segment(segment)
        if not bev.output:  # then there is nothing to wait for
            on_write(bev)

    with open(path, "rb") as file:
        segment = FileSegment(file)
    with segment, EventBase() as base:
        listener = Listener(base, (host, int(port)), on_accept)
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        print("serving {}:{}, Ctrl-C to stop".format(*listener.address), flush=True)
        base.dispatch()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
