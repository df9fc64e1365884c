"""A TCP server of long downloads, with a rate limit for each client and one for all together.

Each connection has its own limit, and all are members of one group. The other clients get those of
the group's bytes that a slow client leaves. On Ctrl-C the server says how much it has sent.

Made of bufferevent_set_rate_limit, bufferevent_rate_limit_group_new,
bufferevent_add_to_rate_limit_group, bufferevent_rate_limit_group_get_totals,
bufferevent_socket_new, bufferevent_setcb, bufferevent_setwatermark, bufferevent_enable,
bufferevent_write, bufferevent_free, evconnlistener_new_bind and evsignal_new.

    python samples/rate_limit.py [host [port [bytes per second for each client [for all]]]]
    nc 127.0.0.1 8888 | dd of=/dev/null
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    Event,
    EventBase,
    EventFlag,
    Listener,
    RateLimit,
    RateLimitGroup,
)

SIZE = 2**20  #: bytes of a download
PIECE = b"All work and no play makes Jack a dull boy.\n" * 400
TICKS = 10  #: a second: the more there are, the more evenly the bytes flow


def limit(rate: float | str) -> RateLimit:
    """Allow *rate* bytes per second to be written, and read what little clients have to say."""
    return RateLimit(write_rate=max(1, int(rate) // TICKS), tick=1 / TICKS)


class Download:
    """What one client gets."""

    def __init__(self, base: EventBase, fd: int) -> None:
        self.left = SIZE
        self.bev = BufferEvent(
            base, fd, on_read=BufferEvent.read, on_write=self.on_write, on_event=self.on_event
        )
        self.bev.setwatermark(EventFlag.WRITE, low=len(PIECE), high=0)
        self.bev.enable(EventFlag.READ)  # or nobody notices that the client has gone

    def on_write(self, bev: BufferEvent) -> None:
        if self.left:
            bev.write(PIECE[: self.left])
            self.left -= min(self.left, len(PIECE))
            bev.setwatermark(EventFlag.WRITE, low=len(PIECE) if self.left else 0, high=0)
        else:
            bev.close()

    def on_event(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        if what & BufferEventFlag.ERROR:
            bev.close()


def main(
    host: str = "127.0.0.1",
    port: int | str = 8888,
    each: float | str = 200_000,
    all_together: float | str = 500_000,
) -> None:
    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        download = Download(base, fd)
        download.bev.rate_limit = limit(each)
        download.bev.add_to_rate_limit_group(group)
        download.on_write(download.bev)

    with EventBase() as base:
        group = RateLimitGroup(base, limit(all_together))
        listener = Listener(base, (host, int(port)), on_accept)
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        print("serving {}:{}, Ctrl-C to stop".format(*listener.address), flush=True)
        base.dispatch()
        print(f"sent {group.totals().written} bytes")


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
