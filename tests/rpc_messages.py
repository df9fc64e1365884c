"""What tests of RPCs share: messages, and a server with a pool of connections to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from libevent_py import EventBase, HttpConnection, HttpServer, Message, Rpc, RpcPool, RpcServer
from libevent_py.rpc.message import Array, Bytes, Int, Int64, String, Struct


class Kill(Message):
    """What libevent's own tests reply with."""

    weapon = String(0x10121)
    action = String(2)
    how_often = Array(Int(3))


class Run(Message):
    """What libevent's own tests have many of."""

    how = String(1)
    some_bytes = Bytes(2, optional=True)
    fixed_bytes = Bytes(3, 24)
    notes = Array(String(4))
    large_number = Int64(5, optional=True)
    other_numbers = Array(Int(6))


class Msg(Message):
    """What libevent's own tests ask with."""

    from_name = String(1)
    to_name = String(2)
    attack = Struct(3, Kill, optional=True)
    run = Array(Struct(4, Run))


REQUEST = Msg(from_name="niels", to_name="tester")
REPLY = Kill(weapon="dagger", action="wave around like an idiot")


def answer(rpc: Rpc) -> None:
    """Reply to *rpc* with `REPLY`."""
    rpc.reply = REPLY
    rpc.done()


class World(NamedTuple):
    """A server, and a pool with one connection to it."""

    base: EventBase
    http: HttpServer
    server: RpcServer
    pool: RpcPool
    port: int

    def call(
        self, name: str = "Message", callback: Callable[[Any], object] = lambda _: None
    ) -> Any:
        """Call *name* with `REQUEST`, and return the call."""
        return self.pool.call(name, REQUEST, Kill, callback)

    def connect(self) -> HttpConnection:
        """Return one more connection to the server."""
        return HttpConnection(self.base, "127.0.0.1", self.port)


def new_world(base: EventBase) -> World:
    """Make a server that answers calls of Message, and a pool with one connection to it."""
    http = HttpServer(base)
    port = http.bind_socket("127.0.0.1", 0).port
    server, pool = RpcServer(http), RpcPool(base)
    server.register("Message", Msg, Kill, answer)
    world = World(base, http, server, pool, port)
    pool.add_connection(world.connect())
    return world
