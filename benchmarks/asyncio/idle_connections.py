"""The memory of accepted connections with nothing to do: ``… asyncio|uvloop python|resident``."""

import asyncio
import sys

from benchmarks.asyncio.loop import loop
from benchmarks.contender import meter, say_port, serve

left = 0


class Idle(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        global left
        left -= 1
        if not left:
            loop.call_later(0.01, loop.stop)  # after what each new transport still has to do


def sample(count: int) -> tuple[int, int]:
    global left
    left = count
    before = used()
    loop.run_forever()
    return used() - before, count


used = meter(sys.argv[2])
server = loop.run_until_complete(loop.create_server(Idle, "127.0.0.1", 0, backlog=1024))
say_port(server.sockets[0].getsockname()[1])
serve(sample)
