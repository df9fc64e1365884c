"""An echo server of a Protocol: ``protocol_echo LOOP echo|four_writes``."""

import asyncio
import sys
from typing import Any

from benchmarks.asyncio.loop import loop
from benchmarks.contender import pieces, say_port


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class FourWrites(Echo):
    def data_received(self, data: bytes) -> None:
        for piece in pieces(data):
            self.transport.write(piece)


protocol = {"echo": Echo, "four_writes": FourWrites}[sys.argv[2]]
server = loop.run_until_complete(loop.create_server(protocol, "127.0.0.1", 0))
say_port(server.sockets[0].getsockname()[1])
loop.run_forever()
