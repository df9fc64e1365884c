"""Clients and servers of other packages, unmodified on `aio.EventLoop`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import redis.asyncio
from aiohttp import web

from libevent_py import HttpServer
from tests.kit.certificates import Authority
from tests.kit.coroutines import here, runs, soon
from tests.kit.support import PATIENCE

#: What bodies are made of, and how much is more than any buffer takes.
PART = bytes(range(256)) * 256
MUCH = 200


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


class Site:
    """An aiohttp server, and what its handlers have noticed."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []
        self.began = asyncio.Event()
        self.url = ""

    async def echo(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for part in request.content.iter_any():
            await response.write(part)
        return response

    async def slow(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        self.began.set()
        try:
            for _ in range(10 * MUCH):
                await response.write(PART)
            await asyncio.sleep(PATIENCE)
        except (asyncio.CancelledError, ConnectionError) as error:
            self.cancelled.append(type(error).__name__)
            raise
        return response

    async def talk(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data.upper())
        return socket


@contextlib.asynccontextmanager
async def site(**options: Any) -> AsyncIterator[Site]:
    made = Site()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/echo", made.echo)
    app.router.add_get("/slow", made.slow)
    app.router.add_get("/talk", made.talk)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, **options).start()
        secured = "s" if options else ""
        made.url = f"http{secured}://127.0.0.1:{runner.addresses[0][1]}"
        yield made
    finally:
        await runner.cleanup()


async def parts(number: int) -> AsyncIterator[bytes]:
    for _ in range(number):
        yield PART


@runs
async def test_aiohttp_s_client_and_server_stream_bodies_both_ways() -> None:
    async with site() as there, aiohttp.ClientSession(there.url) as client:

        async def echoed(number: int) -> int:
            size = 0
            async with client.post("/echo", data=parts(number)) as response:
                async for part in response.content.iter_any():
                    size += len(part)
            return size

        sizes = await asyncio.gather(*(echoed(n) for n in (0, 1, 7, MUCH)))
        assert sizes == [n * len(PART) for n in (0, 1, 7, MUCH)]


@runs
async def test_a_client_of_aiohttp_s_that_is_cancelled_ends_its_server_s_handler() -> None:
    async with site() as there, aiohttp.ClientSession(there.url) as client:

        async def reads() -> None:
            async with client.get("/slow") as response:
                await response.read()

        reading = await soon(reads())
        await there.began.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        while not there.cancelled:
            await asyncio.sleep(0.001)
        async with client.get("/slow", timeout=aiohttp.ClientTimeout(total=0.1)) as response:
            with pytest.raises(asyncio.TimeoutError):
                await response.read()
        async with client.post("/echo", data=b"still there") as response:
            assert await response.read() == b"still there"


@runs
async def test_websockets_of_aiohttp_s() -> None:
    async with site() as there, aiohttp.ClientSession(there.url) as client:
        async with client.ws_connect("/talk") as socket:
            for text in ("one", "two", "x" * 100_000):
                await socket.send_str(text)
                assert (await socket.receive()).data == text.upper()
        socket = await client.ws_connect("/talk")
        receiving = await soon(socket.receive())
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        await socket.send_str("more")
        assert (await socket.receive()).data == "MORE"
        await socket.close()


def test_https_between_aiohttp_and_httpx(tmp_path: Path) -> None:
    own = Authority(tmp_path).server
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certfile, own.keyfile)
    trusting = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    trusting.check_hostname = False

    @runs
    async def test() -> None:
        async with (
            site(ssl_context=context) as there,
            httpx.AsyncClient(base_url=there.url, verify=trusting) as client,
        ):
            asked = (client.post("/echo", content=parts(n)) for n in (1, 5, 50))
            sizes = [len(response.content) for response in await asyncio.gather(*asked)]
            assert sizes == [n * len(PART) for n in (1, 5, 50)]

    test()


@runs
async def test_httpx_reads_streams_times_out_and_is_cancelled() -> None:
    async with site() as there, httpx.AsyncClient(base_url=there.url) as client:
        async with client.stream("GET", "/slow") as response:
            size = 0
            async for part in response.aiter_bytes():
                size += len(part)
                if size > MUCH * len(PART):
                    break
        while not there.cancelled:  # by what has left in the middle
            await asyncio.sleep(0.001)
        there.cancelled.clear()
        there.began.clear()
        reading = await soon(client.get("/slow"))
        await there.began.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        while not there.cancelled:
            await asyncio.sleep(0.001)
        with pytest.raises(httpx.ConnectError):
            await client.get("http://127.0.0.1:1/")
        with pytest.raises(httpx.TimeoutException):
            await client.get("/talk/none", timeout=1e-9)
        assert (await client.post("/echo", content=b"more")).content == b"more"


@runs
async def test_httpx_and_aiohttp_ask_an_evhttp_server_on_the_same_base() -> None:
    with HttpServer(here()) as server:
        server.set_gencb(lambda request: request.send_reply(200, "OK", request.uri.encode()))
        url = f"http://127.0.0.1:{server.bind_socket('127.0.0.1', 0).port}"
        async with httpx.AsyncClient(base_url=url) as client:
            responses = await asyncio.gather(*(client.get(f"/{n}") for n in range(20)))
            assert [each.text for each in responses] == [f"/{n}" for n in range(20)]
        async with aiohttp.ClientSession(url) as session:
            for n in range(20):
                async with session.get(f"/{n}") as response:
                    assert await response.text() == f"/{n}"


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A server of Debian's, on a UNIX socket, without anything that lasts."""
    path = tmp_path / "socket"
    settings = ("--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path))
    with subprocess.Popen(["redis-server", *settings], stdout=subprocess.DEVNULL) as process:
        try:
            yield f"unix://{path}"
        finally:
            process.terminate()


async def ready(client: redis.asyncio.Redis) -> None:
    for _ in range(int(100 * PATIENCE)):
        with contextlib.suppress(redis.asyncio.ConnectionError):
            await client.ping()
            return
        await asyncio.sleep(0.01)
    raise AssertionError("redis-server doesn't answer")


@runs
async def test_requests_of_redis_s_client_are_pipelined_and_cancelled(redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await ready(client)
        async with client.pipeline(transaction=False) as pipeline:
            for n in range(100):
                pipeline.set(f"key {n}", PART[:n])
                pipeline.get(f"key {n}")
            answers = await pipeline.execute()
        assert answers[1::2] == [PART[:n] for n in range(100)]
        counted = await asyncio.gather(*(client.incr("count") for _ in range(20)))
        assert sorted(counted) == list(range(1, 21))
        waiting = await soon(client.blpop(["nothing"], timeout=60))
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        taking = await soon(client.blpop(["list"], timeout=60))
        await client.rpush("list", "one")
        assert await taking == (b"list", b"one")
        assert await client.get("key 99") == PART[:99]


@runs
async def test_what_redis_publishes_reaches_its_subscribers(redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await ready(client)
        async with client.pubsub() as channel:
            await channel.subscribe("news")
            assert (await channel.get_message(timeout=PATIENCE))["type"] == "subscribe"
            for n in range(20):
                await client.publish("news", n)
            got = [await channel.get_message(timeout=PATIENCE) for _ in range(20)]
            assert [message["data"] for message in got] == [b"%d" % n for n in range(20)]
            assert await channel.get_message(timeout=0.01) is None
