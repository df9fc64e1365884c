"""HTTP requests for coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from libevent_py import HttpCommand, HttpConnection, HttpError, HttpServerRequest, aio
from libevent_py.testing import LocalHttpServer
from tests.kit.coroutines import here, runs, soon

GET, POST = HttpCommand.GET, HttpCommand.POST


class Web:
    """A server and a connection to it, on the running loop's base."""

    def __enter__(self) -> Web:
        self.server = LocalHttpServer(here())
        self.connection = HttpConnection(here(), "127.0.0.1", self.server.port)
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.server.close()

    async def request(self, *arguments: Any, **settings: Any) -> aio.Response:
        return await aio.request(self.connection, *arguments, **settings)


@runs
async def test_a_response_has_its_status_headers_and_body() -> None:
    with Web() as web:
        asked: list[object] = []

        def answer(request: HttpServerRequest) -> None:
            asked.append(request.input_headers.get("host"))
            request.output_headers.add("X-Answer", "yes")
            request.send_reply(201, "Made", bytes(request.input_buffer)[::-1])

        web.server.set_gencb(answer)
        async with await web.request(POST, "/", body=b"abc", headers={"X-A": "b"}) as response:
            assert (response.status, response.reason) == (201, "Made")
            assert response.headers["x-answer"] == "yes"
            assert await response.read() == b"cba"
            assert await response.read() == b""
        assert asked == [f"127.0.0.1:{web.server.port}"]
        async with await web.request(GET, "/", headers=[("Host", "other.test")]) as response:
            assert await response.read() == b""
        assert asked[1:] == ["other.test"]


@runs
async def test_a_body_is_sent_in_parts() -> None:
    with Web() as web:
        web.server.set_gencb(
            lambda request: request.send_reply(200, "OK", bytes(request.input_buffer))
        )

        async def body() -> AsyncIterator[bytes]:
            for part in (b"one ", b"", b"two ", b"three"):
                await asyncio.sleep(0.005)
                yield part

        async with await web.request(POST, "/", body=body()) as response:
            assert await response.read() == b"one two three"
        sized = {"Content-Length": "13"}
        async with await web.request(POST, "/", body=body(), headers=sized) as response:
            assert await response.read() == b"one two three"


@runs
async def test_what_a_body_raises_comes_out_of_the_request() -> None:
    with Web() as web:
        web.server.set_gencb(lambda request: request.send_reply(200, "OK", b""))

        async def body() -> AsyncIterator[bytes]:
            yield b"x"
            raise KeyError("from the body")

        with pytest.raises(KeyError, match="from the body"):
            await web.request(POST, "/", body=body())
        async with await web.request(GET, "/") as response:
            assert response.status == 200


@runs
async def test_a_server_waits_for_a_slow_reader() -> None:
    with Web() as web:
        sent = 0

        def begin(request: HttpServerRequest) -> None:
            def more(request: HttpServerRequest) -> None:
                nonlocal sent
                if sent < 20_000_000:
                    sent += 100_000
                    request.send_reply_chunk(bytes(100_000), more)
                else:
                    request.send_reply_end()

            request.send_reply_start(200, "OK")
            more(request)

        web.server.set_gencb(begin)
        async with await web.request(GET, "/", limit=1000) as response:
            stopped = -1
            while stopped != sent:  # on a busy machine it takes a while
                stopped = sent
                await asyncio.sleep(0.2)
            assert 0 < stopped < 15_000_000
            assert len(await response.read()) == 20_000_000


@runs
async def test_a_response_that_is_left_is_cancelled() -> None:
    with Web() as web:
        web.server.set_gencb(lambda request: request.send_reply(200, "OK", bytes(5_000_000)))
        async with await web.request(GET, "/", limit=1000) as response:
            assert await response.__anext__()
        async with await web.request(GET, "/") as response:
            assert len(await response.read()) == 5_000_000


@runs
async def test_a_cancelled_request_is_cancelled() -> None:
    with Web() as web:
        kept: list[HttpServerRequest] = []
        web.server.set_gencb(kept.append)
        asking = await soon(web.request(GET, "/"))
        while not kept:
            await asyncio.sleep(0.001)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        web.server.set_gencb(lambda request: request.send_reply(200, "OK", b"next"))
        async with await web.request(GET, "/") as response:
            assert await response.read() == b"next"
        kept.clear()


@runs
async def test_a_request_without_an_answer_is_an_error() -> None:
    with Web() as web:
        web.server.close()
        with pytest.raises(HttpError):
            await web.request(GET, "/")


@runs
async def test_a_connection_that_ends_in_a_body_is_an_error() -> None:
    async with aio.listen("127.0.0.1") as streams:
        connection = HttpConnection(here(), *streams.address)
        asking = asyncio.ensure_future(aio.request(connection, GET, "/"))
        server = await streams.accept()
        await server.readuntil(b"\r\n\r\n")
        server.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        response = await asking
        await server.aclose()
        with pytest.raises(HttpError):
            await response.read()
        connection.close()
