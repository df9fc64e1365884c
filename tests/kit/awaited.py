"""Whatever coroutines wait for on an `aio.EventLoop`, each in a scene of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from libevent_py import BufferEvent, DnsBase, Event, HttpCommand, HttpConnection, aio
from libevent_py.testing import LocalHttpServer
from tests.kit.coroutines import here


class Scene:
    """What is waited for: the awaitable, and what can be closed."""

    def __init__(self, wait: Callable[[], Awaitable[object]], **closes: Any) -> None:
        self.wait = wait
        self.closes = closes


Maker = Callable[[contextlib.AsyncExitStack], Awaitable[Scene]]


def stream_that(wait: Callable[[aio.Stream], Awaitable[object]], full: bool = False) -> Maker:
    """Return what makes a stream that *wait* waits for; with *full*, much is left to write."""

    async def make(stack: contextlib.AsyncExitStack) -> Scene:
        left, right = socket.socketpair()
        stack.callback(right.close)
        stream = aio.Stream(BufferEvent(here(), left, 1), limit=1000)
        stack.callback(stream.close)
        if full:
            stream.write(bytes(10_000_000))
        return Scene(lambda: wait(stream), stream=stream, bufferevent=stream.bufferevent)

    return make


async def listening(stack: contextlib.AsyncExitStack) -> Scene:
    streams = await stack.enter_async_context(aio.listen("127.0.0.1"))
    return Scene(streams.accept, streams=streams)


def silent(stack: contextlib.AsyncExitStack) -> DnsBase:
    """Return a DNS base whose server doesn't answer."""
    server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind(("127.0.0.1", 0))
    dns = stack.enter_context(DnsBase(here(), 0))
    dns.nameserver_sockaddr_add(server.getsockname())
    return dns


async def looking_up(stack: contextlib.AsyncExitStack) -> Scene:
    dns = silent(stack)
    return Scene(lambda: aio.getaddrinfo(dns, "a.test", 80), dns=dns)


async def connecting_by_name(stack: contextlib.AsyncExitStack) -> Scene:
    dns = silent(stack)
    return Scene(lambda: aio.connect("a.test", 80, dns=dns), dns=dns)


async def requesting(stack: contextlib.AsyncExitStack) -> Scene:
    server = stack.enter_context(LocalHttpServer(here()))
    kept: list[object] = []
    server.set_gencb(kept.append)
    connection = stack.enter_context(HttpConnection(here(), "127.0.0.1", server.port))
    return Scene(
        lambda: aio.request(connection, HttpCommand.GET, "/"), connection=connection, server=server
    )


async def sending(stack: contextlib.AsyncExitStack) -> Scene:
    scene = await requesting(stack)

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.001)

    connection = scene.closes["connection"]
    scene.wait = lambda: aio.request(connection, HttpCommand.POST, "/", body=body())
    return scene


async def receiving(stack: contextlib.AsyncExitStack) -> Scene:
    streams = await stack.enter_async_context(aio.listen("127.0.0.1"))
    connection = stack.enter_context(HttpConnection(here(), *streams.address))
    asking = asyncio.ensure_future(aio.request(connection, HttpCommand.GET, "/"))
    server = await streams.accept()
    stack.callback(server.close)
    await server.readuntil(b"\r\n\r\n")
    server.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    response = await asking
    await response.__anext__()
    return Scene(response.read, response=response, connection=connection, server=server)


async def an_event(stack: contextlib.AsyncExitStack) -> Scene:
    event = stack.enter_context(Event.user(here(), print))
    return Scene(lambda: aio.wait(event), event=event)


SCENES: dict[str, Maker] = {
    "read": stream_that(lambda stream: stream.read(1)),
    "readexactly": stream_that(lambda stream: stream.readexactly(5000)),
    "readline": stream_that(aio.Stream.readline),
    "readln": stream_that(aio.Stream.readln),
    "drain": stream_that(aio.Stream.drain, full=True),
    "write_eof": stream_that(aio.Stream.write_eof, full=True),
    "accept": listening,
    "getaddrinfo": looking_up,
    "connect by name": connecting_by_name,
    "request": requesting,
    "request with a body": sending,
    "read a response": receiving,
    "wait": an_event,
}
