"""Bytes without end over one Protocol: ``transfer LOOP sink|relay|source``."""

import asyncio
import sys

from benchmarks.asyncio.loop import loop
from benchmarks.contender import CHUNK, say_port


class Sink(asyncio.Protocol):
    def data_received(self, data):
        pass


class Relay(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Source(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=0)
        self.resume_writing()

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False
        loop.call_soon(self.give)  # a write that fails in here would have asyncio close twice

    def give(self):
        while not self.paused and not self.transport.is_closing():
            self.transport.write(CHUNK)


protocol = {"sink": Sink, "relay": Relay, "source": Source}[sys.argv[2]]
server = loop.run_until_complete(loop.create_server(protocol, "127.0.0.1", 0))
say_port(server.sockets[0].getsockname()[1])
loop.run_forever()
