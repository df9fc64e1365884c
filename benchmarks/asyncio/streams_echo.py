"""An echo server of asyncio's streams: a coroutine for each connection."""

import asyncio
import contextlib

from benchmarks.asyncio.loop import loop
from benchmarks.contender import say_port


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):  # the load hangs up in the middle
        while data := await reader.read(262144):
            writer.write(data)
            await writer.drain()
    writer.close()


server = loop.run_until_complete(asyncio.start_server(echo, "127.0.0.1", 0, limit=262144))
say_port(server.sockets[0].getsockname()[1])
loop.run_forever()
