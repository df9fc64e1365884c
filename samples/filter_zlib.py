"""A TCP server and its client that compress what they send, by filters that use Python's zlib.

Above the filters both talk as if nothing were compressed: the server answers in capitals. A filter
takes bytes from one buffer and adds the compressed ones to another. The end of the stream passes
through, too, as the end of the compressed data. So does back-pressure: a watermark below the filter
makes it wait for slow clients, and the server reads on when all answers have passed.

Made of bufferevent_filter_new, bufferevent_get_underlying, bufferevent_flush, bufferevent_enable,
bufferevent_disable, bufferevent_setwatermark, evbuffer_remove, evbuffer_add and evsignal_new.

    python samples/filter_zlib.py [host [port]]
    python samples/filter_zlib.py 127.0.0.1 8888 send < file
"""

from __future__ import annotations

import contextlib
import signal
import sys
import zlib
from typing import Any

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    Event,
    EventBase,
    EventFlag,
    FilterResult,
    FlushMode,
    Listener,
)


class Server:
    """What a server does with a connection, and the filters with their state."""

    def __init__(self, below: BufferEvent) -> None:
        self.packer, self.unpacker = zlib.compressobj(), zlib.decompressobj()
        below.setwatermark(EventFlag.WRITE, low=0, high=65536)
        self.bev = BufferEvent.filter(below, self.unpack, self.pack)
        self.bev.setcb(self.on_read, lambda bev: bev.enable(EventFlag.READ), self.on_event)
        self.bev.enable(EventFlag.READ)

    def unpack(self, source: Any, target: Any, limit: int | None, mode: FlushMode) -> FilterResult:
        target.add(self.unpacker.decompress(source.remove()))
        return FilterResult.OK

    def pack(self, source: Any, target: Any, limit: int | None, mode: FlushMode) -> FilterResult:
        end = zlib.Z_FINISH if mode == FlushMode.FINISHED else zlib.Z_SYNC_FLUSH
        target.add(self.packer.compress(source.remove(limit)) + self.packer.flush(end))
        return FilterResult.OK

    def on_read(self, bev: BufferEvent) -> None:
        bev.write(bev.read().upper())
        if self.unpacker.eof:
            bev.flush(EventFlag.WRITE, FlushMode.FINISHED)
        elif bev.output:
            bev.disable(EventFlag.READ)

    def on_event(self, bev: BufferEvent, what: int) -> None:
        bev.close()


class Client(Server):
    def on_read(self, bev: BufferEvent) -> None:
        sys.stdout.buffer.write(bev.read())
        if self.unpacker.eof:
            bev.close()

    def on_event(self, bev: BufferEvent, what: int) -> None:
        if what != BufferEventFlag.CONNECTED:
            sys.exit(f"the answer is not complete: {bev.error or 'the server has ended'}")


def main(host: str = "127.0.0.1", port: int | str = 8888, mode: str = "serve") -> None:
    def on_accept(listener: object, fd: int, address: Any) -> None:
        Server(BufferEvent(base, fd))

    def on_error(error: Exception, source: BufferEvent) -> None:  # a filter's, as a rule
        print(error, flush=True)
        source.close()

    with EventBase() as base, contextlib.suppress(KeyboardInterrupt):
        if mode == "send":
            bev = Client(BufferEvent(base)).bev
            assert bev.underlying is not None  # a filter has one
            bev.underlying.connect((host, int(port)))
            bev.write(sys.stdin.buffer.read())
            bev.flush(EventFlag.WRITE, FlushMode.FINISHED)
        else:
            listener = Listener(base, (host, int(port)), on_accept)
            base.on_error = on_error
            Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
            print("serving {}:{}, Ctrl-C to stop".format(*listener.address), flush=True)
        base.dispatch()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
