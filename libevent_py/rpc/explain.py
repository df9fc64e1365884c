"""What there is to say of RPC pools and servers in `EventBase.explain`."""

from __future__ import annotations

from collections.abc import Iterator

from libevent_py.event.explain import Holder, callback_text, counted, explains
from libevent_py.http.explain import client
from libevent_py.rpc.pool import RpcPool
from libevent_py.rpc.server import RpcServer


@explains(RpcPool)
def pool(pool: RpcPool) -> Iterator[Holder]:
    """Yield *pool* with its calls, and each of its connections."""
    name, made = f"RpcPool #{pool._key}", pool._made
    calls = sorted(made.calls.copy().items())
    notes = [
        f"call #{key} of {call.name!r}"
        f"{', held up by a hook' if call._paused else ''}"
        f"{'' if call._connection else ', waits for a connection'}"
        f"; calls {callback_text(call._callback)}"
        for key, call in calls
    ]
    yield Holder("RPC pool", f"{name}, {counted(len(calls), 'call')} under way", notes=notes)
    for connection, here in made.connections.copy().values():
        for evcon in here:  # it is empty as the connection is given back
            yield client(connection, evcon, f" of {name}")


@explains(RpcServer)
def server(server: RpcServer) -> Iterator[Holder]:
    """Yield *server* with the calls that it has yet to answer."""
    waiting = counted(len(server._served.calls), "call")
    yield Holder("RPC server", f"RpcServer #{server._key}, {waiting} to be answered")
