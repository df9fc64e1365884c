"""Two bufferevents that talk to each other in memory, without a socket.

The server's callbacks are the same as for a socket. What one half of a pair writes, the other half
reads in the loop's next turn. Closing one half does not notify the other, so the client flushes
with FINISHED when it is done, and the server gets EOF.

Made of bufferevent_pair_new, bufferevent_pair_get_partner, bufferevent_setcb, bufferevent_enable,
bufferevent_read, bufferevent_write, bufferevent_flush and bufferevent_free.

    python samples/pair.py [line ...]
"""

from __future__ import annotations

import sys

from libevent_py import BufferEvent, BufferEventFlag, EolStyle, EventBase, EventFlag, FlushMode


def serve(bev: BufferEvent) -> None:
    """Answer each line in capitals."""

    def on_read(bev: BufferEvent) -> None:
        while (line := bev.input.readln(EolStyle.LF)) is not None:
            bev.write(line.upper() + b"\n")

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        if what & BufferEventFlag.EOF:
            print("server: the client has finished")
            bev.close()

    bev.setcb(on_read, None, on_event)
    bev.enable(EventFlag.READ)


def talk(bev: BufferEvent, lines: list[str]) -> None:
    """Say each of *lines*, the next one when the last has been answered."""
    waiting = list(reversed(lines))

    def say_next() -> None:
        if waiting:
            line = waiting.pop()
            print(f"client: {line}")
            bev.write(line.encode())
            bev.write(b"\n")
        else:
            bev.flush(EventFlag.WRITE, FlushMode.FINISHED)
            bev.close()

    def on_read(bev: BufferEvent) -> None:
        while not bev.closed and (answer := bev.input.readln(EolStyle.LF)) is not None:
            print(f"server: {answer.decode()}")
            say_next()

    bev.on_read = on_read
    bev.enable(EventFlag.READ)
    say_next()


def main(*lines: str) -> None:
    with EventBase() as base:
        client, server = BufferEvent.pair(base)
        assert client.partner is server
        serve(server)
        talk(client, list(lines) or ["hello, world", "nobody else is listening", "goodbye"])
        base.dispatch()  # until both are closed
    print("stopped")


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
