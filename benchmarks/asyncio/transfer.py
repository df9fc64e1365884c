"""Bytes without end over one Protocol: ``transfer LOOP sink|relay|source``."""

import asyncio
import sys
from typing import Any

from benchmarks.asyncio.loop import loop
from benchmarks.contender import CHUNK, say_port


class Sink(asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        pass


class Relay(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Source(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport
        transport.set_write_buffer_limits(high=0)
        self.resume_writing()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        loop.call_soon(self.give)  # a write that fails in here would have asyncio close twice

    def give(self) -> None:
        while not self.paused and not self.transport.is_closing():
            self.transport.write(CHUNK)


protocol = {"sink": Sink, "relay": Relay, "source": Source}[sys.argv[2]]
server = loop.run_until_complete(loop.create_server(protocol, "127.0.0.1", 0))
say_port(server.sockets[0].getsockname()[1])
loop.run_forever()
