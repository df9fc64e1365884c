"""An upper-casing TCP server of bufferevents: libevent reads and writes, callbacks see only bytes.

A client is answered when it has sent ten bytes, the low watermark, or has closed its half. The
callbacks are deferred: the loop calls them by themselves, not while it reads or writes.

Made of bufferevent_socket_new with BEV_OPT_DEFER_CALLBACKS, bufferevent_setcb,
bufferevent_setwatermark, bufferevent_enable, bufferevent_disable, bufferevent_read,
bufferevent_write, bufferevent_get_output, bufferevent_free, and of events as in upper_event.py.

    python samples/upper_bufferevent.py [host [port]]
    nc 127.0.0.1 8888
"""

from __future__ import annotations

import signal
import socket
import sys

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    Event,
    EventBase,
    EventFlag,
)

OPTIONS = BufferEventOption.CLOSE_ON_FREE | BufferEventOption.DEFER_CALLBACKS

#: A client that leaves more bytes of its answers waiting is not read from meanwhile.
MOST_UNSENT = 65536


def on_read(bev: BufferEvent) -> None:
    bev.write(bev.read().upper())
    if len(bev.output) > MOST_UNSENT:
        bev.disable(EventFlag.READ)


def on_write(bev: BufferEvent) -> None:
    bev.enable(EventFlag.READ)


def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
    if what & BufferEventFlag.EOF:
        bev.write(bev.read().upper())  # what has not reached the watermark
        if bev.output:
            bev.on_write = BufferEvent.close  # when the last answer is sent
            return
    bev.close()


def main(host: str = "127.0.0.1", port: int | str = 8888) -> None:
    def on_accept(event: Event, fd: int, what: EventFlag) -> None:
        try:
            sock, _ = server.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the client is gone already
            return
        except OSError as error:  # such as: too many open files
            print(f"can't accept, trying again in a second: {error}")
            event.delete()
            base.once(lambda fd, what: event.add(), timeout=1.0)
            return
        bev = BufferEvent(
            base, sock, OPTIONS, on_read=on_read, on_write=on_write, on_event=on_event
        )
        bev.setwatermark(EventFlag.READ, low=10, high=0)
        bev.enable(EventFlag.READ)

    with socket.create_server((host, int(port))) as server, EventBase() as base:
        server.setblocking(False)
        Event(base, server, EventFlag.READ | EventFlag.PERSIST, on_accept).add()
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        print("serving {}:{}, Ctrl-C to stop".format(*server.getsockname()), flush=True)
        base.dispatch()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
