"""Bufferevents for coroutines: what streams read and write, how they wait, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    ClosedError,
    DnsBase,
    DnsError,
    EolStyle,
    Event,
    EventBase,
    EventFlag,
    FilterResult,
    FlushMode,
    TlsError,
    aio,
)
from libevent_py.testing import LocalDnsServer, TlsAuthority
from tests.kit.coroutines import here, runs, soon

READ = EventFlag.READ


def pair(limit: int = 65536) -> tuple[aio.Stream, aio.Stream]:
    one, other = BufferEvent.pair(here())
    return aio.Stream(one, limit=limit), aio.Stream(other, limit=limit)


@runs
async def test_what_is_written_is_read() -> None:
    one, other = pair()
    async with one, other:
        one.write(b"hello, world")
        assert await other.read(5) == b"hello"
        assert await other.readexactly(3) == b", w"
        assert await other.read(100) == b"orld"
        assert await other.read(0) == b""
        waiting = await soon(other.readexactly(4))
        one.write(b"abc")
        await asyncio.sleep(0.01)
        assert not waiting.done()
        one.write(b"de")
        assert await waiting == b"abcd"
        assert await other.read(9) == b"e"


@runs
async def test_the_end_of_the_input_is_told_by_each_way_to_read() -> None:
    one, other = pair()
    async with other:
        one.write(b"line\nrest")
        one.bufferevent.flush(EventFlag.WRITE, FlushMode.FINISHED)
        assert await other.readline() == b"line\n"
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await other.readexactly(5)
        assert (caught.value.partial, caught.value.expected) == (b"rest", 5)
        assert other.at_eof()
        assert await other.read(5) == await other.read() == await other.readline() == b""
        assert await other.readln() is None
        with pytest.raises(asyncio.IncompleteReadError):
            await other.readuntil(b"x")
        assert [line async for line in other] == []
        one.close()


@runs
async def test_all_is_read_up_to_the_end() -> None:
    one, other = pair(limit=100)
    reading = await soon(other.read())
    for _ in range(50):
        one.write(b"0123456789" * 10)
        await one.drain()
    one.bufferevent.flush(EventFlag.WRITE, FlushMode.FINISHED)
    assert await reading == b"0123456789" * 500
    one.close()
    other.close()


@runs
async def test_lines_of_each_style() -> None:
    one, other = pair()
    async with one, other:
        for eol, data, lines in (
            (EolStyle.CRLF, b"a\r\nb\n\n", [b"a", b"b", b""]),
            (EolStyle.CRLF_STRICT, b"a\nb\r\n", [b"a\nb"]),
            (EolStyle.LF, b"a\r\n", [b"a\r"]),
            (EolStyle.ANY, b"a\r\n\r\nb\n", [b"a", b"b"]),
            (EolStyle.NUL, b"a\0b\0", [b"a", b"b"]),
        ):
            one.write(data)
            assert [await other.readln(eol) for _ in lines] == lines
        waiting = await soon(other.readln())
        one.write(b"in two ")
        await asyncio.sleep(0.01)
        one.write(b"parts\r\n")
        assert await waiting == b"in two parts"


@runs
async def test_separators_may_come_in_parts() -> None:
    one, other = pair()
    async with one, other:
        waiting = await soon(other.readuntil(b"--end--"))
        for part in (b"data-", b"-en", b"d--more"):
            one.write(part)
            await asyncio.sleep(0.005)
        assert await waiting == b"data--end--"
        assert await other.read(9) == b"more"
        with pytest.raises(ValueError, match="at least one byte"):
            await other.readuntil(b"")


@runs
async def test_more_than_the_limit_is_refused_and_stays() -> None:
    one, other = pair(limit=10)
    async with one, other:
        one.write(b"0123456789abcdef\n")
        with pytest.raises(asyncio.LimitOverrunError, match="within the limit, 10 bytes"):
            await other.readuntil(b"\n")
        with pytest.raises(ValueError, match="longer than the limit, 10 bytes"):
            await other.readline()
        with pytest.raises(ValueError, match="longer than the limit, 10 bytes"):
            await other.readln()
        assert await other.readexactly(17) == b"0123456789abcdef\n"


@runs
async def test_a_reader_that_is_slow_stops_the_writer() -> None:
    left, right = socket.socketpair()
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    one, other = (aio.Stream(BufferEvent(here(), end, 1), limit=1000) for end in (left, right))
    async with other:
        wrote = 0

        async def write() -> None:
            nonlocal wrote
            while wrote < 1_000_000:
                one.write(bytes(1000))
                await one.drain()
                wrote += 1000
            await one.aclose()

        writing = asyncio.ensure_future(write())
        await asyncio.sleep(0.1)
        stopped = wrote
        assert stopped < 500_000
        assert len(other.bufferevent.input) <= 1000
        await asyncio.sleep(0.05)
        assert wrote == stopped
        assert len(await other.read()) == 1_000_000
        await writing


@runs
async def test_a_cancelled_read_has_taken_nothing() -> None:
    one, other = pair(limit=10)
    async with one, other:
        for wait in (
            other.read(5),
            other.readexactly(30),
            other.readline(),
            other.readln(),
            other.read(),
        ):
            waiting = await soon(wait)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            one.write(b"x\n")
            assert await other.readline() == b"x\n"
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(other.read(1), 0.01)
        assert other.bufferevent.getwatermark(READ) == (0, 10)


@runs
async def test_only_one_coroutine_waits_for_input() -> None:
    one, other = pair()
    async with one, other:
        first = await soon(other.read(1))
        with pytest.raises(RuntimeError, match="another coroutine waits for input"):
            await other.read(1)
        one.write(b"x")
        assert await first == b"x"


@runs
async def test_closing_ends_what_waits() -> None:
    one, other = pair(limit=10)
    reading = await soon(other.read(1))
    other.close()
    other.close()
    with pytest.raises(ClosedError, match="while a coroutine waited for its input"):
        await reading
    one.write(bytes(1000))
    writing = await soon(one.drain())
    one.close()
    with pytest.raises(ClosedError, match="while a coroutine waited for its output"):
        await writing
    with pytest.raises(ClosedError):
        await one.read(1)


@runs
async def test_closing_writes_what_is_left_unless_something_was_raised() -> None:
    async with aio.listen("127.0.0.1") as streams:
        async with await aio.connect(*streams.address) as client:
            client.write(bytes(5_000_000))
            server = await streams.accept()
            reading = asyncio.ensure_future(server.read())
        assert client.bufferevent.closed
        assert len(await reading) == 5_000_000
        await server.aclose()
        with contextlib.suppress(KeyError):
            async with await aio.connect(*streams.address) as client:
                server = await streams.accept()
                client.write(bytes(50_000_000))
                raise KeyError
        assert len(await server.read()) < 50_000_000
        await server.aclose()


@runs
async def test_a_socket_can_be_ended_in_one_direction() -> None:
    async with (
        aio.listen("127.0.0.1") as streams,
        await aio.connect(*streams.address) as client,
        await streams.accept() as server,
    ):
        client.write(b"question")
        await client.write_eof()
        assert await server.read() == b"question"
        server.write(b"answer")
        assert await client.readexactly(6) == b"answer"
    one, other = pair()
    async with one, other:
        with pytest.raises(ValueError, match="only a socket"):
            await one.write_eof()


@runs
async def test_a_connection_that_breaks_is_an_error_for_all_that_wait() -> None:
    async with (
        aio.listen("127.0.0.1") as streams,
        await aio.connect(*streams.address) as client,
    ):
        server = await streams.accept()
        server.write(b"x")
        assert await client.read(1) == b"x"
        client.write(bytes(10_000_000))
        draining = await soon(client.drain())
        await asyncio.sleep(0.02)
        server.close()  # with input that has not been read: a reset
        with pytest.raises(ConnectionError):
            await draining
        with pytest.raises(ConnectionError):
            await client.read(1)
        with pytest.raises(ConnectionError):
            client.write(b"x")


@runs
async def test_timeouts_of_the_bufferevent_are_errors() -> None:
    one, other = pair()
    async with one, other:
        other.bufferevent.set_timeouts(read=0.01, write=None)
        with pytest.raises(TimeoutError, match="nothing could be read within the timeout"):
            await other.read(1)


@runs
async def test_a_filter_is_a_stream_like_others() -> None:
    packer, unpacker = zlib.compressobj(), zlib.decompressobj()

    def pack(source: Buffer, to: Buffer, limit: int | None, mode: FlushMode) -> FilterResult:
        to.add(packer.compress(source.remove()) + packer.flush(zlib.Z_SYNC_FLUSH))
        return FilterResult.OK

    def unpack(source: Buffer, to: Buffer, limit: int | None, mode: FlushMode) -> FilterResult:
        to.add(unpacker.decompress(source.remove()))
        return FilterResult.OK

    left, right = BufferEvent.pair(here())
    one = aio.Stream(BufferEvent.filter(left, None, pack))
    other = aio.Stream(BufferEvent.filter(right, unpack, None))
    async with one, other:
        one.write(b"squeeze\n" * 100)
        assert await other.readexactly(800) == b"squeeze\n" * 100


@runs
async def test_tls_is_ready_when_connect_returns(tls_authority: TlsAuthority) -> None:
    with tls_authority.server_context() as server, tls_authority.client_context() as client:
        async with aio.listen("127.0.0.1", tls=server) as streams:
            async with (
                await aio.connect(
                    "localhost", streams.address[1], tls=client, family=socket.AF_INET
                ) as one,
                await streams.accept() as other,
            ):
                assert one.bufferevent.tls_version is not None
                one.write(b"secret\n")
                assert await other.readline() == b"secret\n"
            with pytest.raises(TlsError, match="hostname mismatch"):
                await aio.connect(*streams.address, tls=client, server_hostname="other.test")


@runs
async def test_unix_sockets_have_paths(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with aio.listen(path=path) as streams:
        assert streams.address == path
        async with await aio.connect(path=path) as one, await streams.accept() as other:
            one.write(b"x")
            assert await other.read(1) == b"x"


@runs
async def test_connecting_fails_as_the_last_address_does() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await aio.connect(*closed.getsockname())
        with pytest.raises(ConnectionRefusedError):
            await aio.connect("localhost", closed.getsockname()[1], family=socket.AF_INET)
    with pytest.raises(socket.gaierror):
        await aio.connect("name.invalid", 1)
    both: list[dict[str, Any]] = [{}, {"host": "127.0.0.1", "path": "x"}]
    for arguments in both:
        with pytest.raises(ValueError, match="either a host and a port, or a path"):
            await aio.connect(**arguments)
        with pytest.raises(ValueError, match="either a host and a port, or a path"):
            aio.listen(**arguments)


@runs
async def test_a_cancelled_connect_leaves_nothing() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with contextlib.ExitStack() as stack:
            for _ in range(4):  # more than wait to be accepted: the next one isn't answered
                taken = stack.enter_context(socket.socket())
                taken.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    taken.connect(full.getsockname())
            connecting = await soon(aio.connect(*full.getsockname()))
            await asyncio.sleep(0.02)
            assert not connecting.done()
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting


@runs
async def test_accepting_waits_until_streams_are_taken() -> None:
    async with aio.listen("127.0.0.1") as streams:
        clients = [await aio.connect(*streams.address) for _ in range(110)]
        await asyncio.sleep(0.05)
        assert len(streams._waiting) == 100
        servers = [await streams.accept() for _ in range(110)]
        for stream in clients + servers:
            stream.close()
        taking = await soon(streams.accept())
        with pytest.raises(RuntimeError, match="another coroutine waits for connections"):
            await streams.accept()
        streams.close()
        with pytest.raises(ClosedError, match="the listener is closed"):
            await taking


@runs
async def test_a_loop_over_connections_ends_when_they_are_closed() -> None:
    streams = aio.listen("127.0.0.1")
    served = []

    async def serve() -> None:
        async for stream in streams:
            served.append(await stream.readline())
            stream.close()

    serving = asyncio.ensure_future(serve())
    async with await aio.connect(*streams.address) as client:
        client.write(b"x\n")
        assert await client.read() == b""
    streams.close()
    streams.close()
    await serving
    assert served == [b"x\n"]


@runs
async def test_streams_that_nobody_takes_are_closed() -> None:
    async with aio.listen("127.0.0.1") as streams:
        client = await aio.connect(*streams.address)
        await asyncio.sleep(0.02)
    assert await client.read() == b""
    client.close()


@runs
async def test_names_are_looked_up_by_a_dns_base() -> None:
    with LocalDnsServer(here()) as server, server.dns_base() as dns:
        server.names = {"a.test": "127.0.0.1"}
        found = await aio.getaddrinfo(dns, "a.test", 80, type=socket.SOCK_STREAM)
        assert [entry[4] for entry in found] == [("127.0.0.1", 80)]
        with pytest.raises(DnsError):
            await aio.getaddrinfo(dns, "b.test", 80)
        async with (
            aio.listen("127.0.0.1") as streams,
            await aio.connect("a.test", streams.address[1], dns=dns),
        ):
            (await streams.accept()).close()


@runs
async def test_a_cancelled_lookup_is_cancelled() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, DnsBase(here(), 0) as dns:
        silent.bind(("127.0.0.1", 0))
        dns.nameserver_sockaddr_add(silent.getsockname())
        asking = await soon(aio.getaddrinfo(dns, "a.test", 80))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


@runs
async def test_an_event_is_waited_for() -> None:
    called = []
    with Event.timer(here(), lambda *arguments: called.append(arguments[2])) as timer:
        assert await aio.wait(timer, 0.01) == EventFlag.TIMEOUT
        assert called == [EventFlag.TIMEOUT]
        callback = timer.callback
        waiting = await soon(aio.wait(timer, 50))
        with pytest.raises(RuntimeError, match="another coroutine waits for"):
            await aio.wait(timer)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not timer.pending
        assert timer.callback is callback
        timer.add(0.01)
        assert await aio.wait(timer) == EventFlag.TIMEOUT


def test_a_loop_without_a_base_is_refused() -> None:
    async def connect() -> None:
        with pytest.raises(RuntimeError, match=r"not one of libevent_py\.aio, so it has no base"):
            await aio.connect("127.0.0.1", 1)

    asyncio.run(connect())


def test_limits_must_make_sense(event_base: EventBase) -> None:
    one, other = BufferEvent.pair(event_base)
    with one, other, pytest.raises(ValueError, match=r"limit must be from 1 to \d+, not 0"):
        aio.Stream(one, limit=0)


@runs
async def test_a_stream_s_bufferevent_keeps_its_callbacks_and_watermarks() -> None:
    """With a low watermark of somebody else's, what is read would never be told."""
    ours, theirs = BufferEvent.pair(here())
    async with aio.Stream(ours) as stream, aio.Stream(theirs) as other:
        bev = stream.bufferevent
        refused = (
            "this BufferEvent belongs to a Stream, which owns its callbacks and its watermarks"
        )
        uses: list[Callable[[], object]] = [
            lambda: bev.setwatermark(READ, 10, 0),
            lambda: bev.setcb(None, None, None),
            lambda: setattr(bev, "on_read", print),
            lambda: setattr(bev, "on_write", None),
            lambda: setattr(bev, "on_event", None),
            lambda: aio.Stream(bev),
        ]
        for use in uses:
            with pytest.raises(ValueError, match=refused):
                use()
        assert bev.getwatermark(READ)[0] == 0
        other.write(b"123456789")
        assert await asyncio.wait_for(stream.read(4), 5) == b"1234"
        other.write(b"0" * 200_000)  # it sets its own meanwhile
        assert len(await asyncio.wait_for(stream.readexactly(150_000), 5)) == 150_000


@runs
async def test_a_stream_s_bufferevent_may_be_closed_with_what_is_left_to_write() -> None:
    near, far = socket.socketpair()
    far.setblocking(False)
    with far:
        stream = aio.Stream(BufferEvent(here(), near))
        stream.write(b"the last words")
        stream.bufferevent.close(flush=True)
        loop = asyncio.get_running_loop()
        assert await asyncio.wait_for(loop.sock_recv(far, 100), 5) == b"the last words"


@runs
async def test_a_layer_may_be_put_on_a_stream_s_bufferevent() -> None:
    ours, theirs = BufferEvent.pair(here())
    below = aio.Stream(ours)
    async with aio.Stream(BufferEvent.filter(below.bufferevent, None, None)) as stream:
        aio.Stream(theirs).write(b"through both\n")
        assert await asyncio.wait_for(stream.readline(), 5) == b"through both\n"
