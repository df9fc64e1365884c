"""An echo server of a Protocol."""

import asyncio

from benchmarks.asyncio.loop import loop
from benchmarks.contender import say_port


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


server = loop.run_until_complete(loop.create_server(Echo, "127.0.0.1", 0))
say_port(server.sockets[0].getsockname()[1])
loop.run_forever()
