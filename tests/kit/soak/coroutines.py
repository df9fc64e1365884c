"""Coroutines that are cancelled anywhere, for as long as one likes.

``python -m tests.kit.soak.coroutines --minutes N`` has servers and clients on one
`aio.EventLoop`, in rounds. A client connects, writes, reads, asks for names and pages, waits for
events, or has another thread call; most are cancelled after a random time. Those that aren't check
every byte. After each round all rest, and what the process has then must stay the same:
descriptors, libevent's blocks, objects, tasks, and after a while its memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.progress import Progress
from libevent_py import (
    BufferEvent,
    DnsBase,
    Event,
    EventBase,
    EventFlag,
    HttpCommand,
    HttpConnection,
    HttpServerRequest,
    MemorySource,
    TlsContext,
    aio,
    debug,
)
from libevent_py.testing import LocalDnsServer, LocalHttpServer
from tests.kit.certificates import HOST as NAME
from tests.kit.certificates import Authority
from tests.kit.processes import descriptors
from tests.kit.soak.__main__ import Failed, check
from tests.kit.soak.servers import wait_for_each

HOST = "127.0.0.1"
#: How much is sent at most, in bytes.
LARGEST = 300_000
#: After how many seconds at most a client is cancelled, if it is, and how many of them are.
SOON, CANCELLED = 0.05, 0.7
#: How long all may take to come to rest, in seconds.
SETTLED = 30.0
#: A descriptor that is higher than any that is opened.
HIGHEST = 900
#: What must be the same at each rest once all is warm.
SAME = ("descriptors", "objects", "blocks of libevent", "tasks")


class Wrong(Exception):
    """A client got something else than it should have got."""


class Company:
    """The servers and the clients."""

    def __init__(self, stack: contextlib.AsyncExitStack, directory: Path) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, aio.EventLoop)
        self.loop, self.base, self.stack = loop, loop.base, stack
        self.begin = time.monotonic()
        self.done: Counter[str] = Counter()
        self.bytes = 0
        self.serving: set[asyncio.Task[None]] = set()
        authority = Authority(directory)
        own = authority.server
        self.server_tls = stack.enter_context(
            TlsContext(server_side=True, certfile=own.certfile, keyfile=own.keyfile)
        )
        self.client_tls = stack.enter_context(TlsContext(cafile=directory / "ca.pem"))
        self.path = str(directory / "socket")

    async def serve(self) -> None:
        """Start all servers."""
        wait_for_each(self.base, HIGHEST)
        enter = self.stack.enter_context
        self.plain = await self.stack.enter_async_context(aio.listen(HOST))
        self.secured = await self.stack.enter_async_context(aio.listen(HOST, tls=self.server_tls))
        self.local = await self.stack.enter_async_context(aio.listen(path=self.path))
        for streams in self.plain, self.secured, self.local:
            self.task(self.accept(streams))
        asyncio_s = await asyncio.start_server(self.echo_by_asyncio, HOST, 0)
        await self.stack.enter_async_context(asyncio_s)
        self.asyncio_s = asyncio_s.sockets[0].getsockname()
        self.web = enter(LocalHttpServer(self.base))
        self.web.set_gencb(self.answer)
        self.names = enter(LocalDnsServer(self.base))
        self.names.names = {"known.test": HOST}
        self.dns = enter(self.names.dns_base())
        silent = enter(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        silent.bind((HOST, 0))
        self.silent_dns = enter(DnsBase(self.base, 0))
        self.silent_dns.nameserver_sockaddr_add(silent.getsockname())

    def task(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self.serving.add(task)
        task.add_done_callback(self.serving.discard)

    async def accept(self, streams: aio.Streams) -> None:
        async for stream in streams:
            self.task(self.echo(stream))

    async def echo(self, stream: aio.Stream) -> None:
        """Send back what comes, until the peer has had enough or has gone."""
        with contextlib.suppress(OSError):
            async with stream:
                while data := await stream.read(65536):
                    stream.write(data)
                    await stream.drain()

    async def echo_by_asyncio(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    def answer(self, request: HttpServerRequest) -> None:
        """Send back the body of a request in some parts, some time later."""
        content = bytes(request.input_buffer)
        parts = [content[at : at + 30_000] for at in range(0, len(content), 30_000)]

        def more(request: HttpServerRequest) -> None:
            if parts:
                request.send_reply_chunk(parts.pop(0), more)
            else:
                request.send_reply_end()

        request.send_reply_start(200, "OK")
        more(request)

    # Clients.

    async def echoed(self, stream: aio.Stream) -> None:
        async with stream:
            for _ in range(random.randint(1, 3)):
                sent = some()
                stream.write(sent)
                if await stream.readexactly(len(sent)) != sent:
                    raise Wrong("others than the bytes sent came back")
                self.bytes += 2 * len(sent)

    async def talk(self) -> None:
        await self.echoed(await aio.connect(*self.plain.address))

    async def talk_by_tls(self) -> None:
        address = self.secured.address
        await self.echoed(await aio.connect(*address, tls=self.client_tls, server_hostname=NAME))

    async def talk_locally(self) -> None:
        await self.echoed(await aio.connect(path=self.path))

    async def talk_by_name(self) -> None:
        port = self.plain.address[1]
        await self.echoed(await aio.connect("known.test", port, dns=self.dns))

    async def listen(self) -> None:
        """Wait for what never comes, in each way there is."""
        async with await aio.connect(*self.plain.address) as stream:
            waits: list[Callable[[], Awaitable[object]]]
            waits = [stream.readline, stream.readln, stream.read, stream.__anext__]
            await asyncio.wait_for(random.choice(waits)(), SOON)

    async def flood(self) -> None:
        """Write more than the peer takes, as what it sends back isn't read."""
        async with await aio.connect(*self.plain.address, limit=1000) as stream:
            while True:
                stream.write(bytes(50_000))
                await asyncio.wait_for(stream.drain(), SOON)

    async def talk_by_asyncio(self) -> None:
        reader, writer = await asyncio.open_connection(*self.asyncio_s)
        try:
            sent = random.randbytes(random.randrange(1, LARGEST))
            writer.write(sent)
            if await reader.readexactly(len(sent)) != sent:
                raise Wrong("others than the bytes sent came back from asyncio's server")
            self.bytes += 2 * len(sent)
        finally:
            writer.close()

    async def ask(self) -> None:
        """Make some requests on a connection, with bodies of both kinds."""
        with HttpConnection(self.base, HOST, self.web.port) as connection:
            for _ in range(random.randint(1, 3)):
                sent = some()
                body: Any = sent if random.random() < 0.5 else in_parts(sent)
                response = await aio.request(
                    connection, HttpCommand.POST, "/", body=body, limit=10_000
                )
                async with response:
                    if await response.read() != sent:
                        raise Wrong("another body than that sent came back")
                self.bytes += 2 * len(sent)

    async def look_up(self) -> None:
        await aio.getaddrinfo(self.dns, "known.test", 80)
        await asyncio.wait_for(aio.getaddrinfo(self.silent_dns, "unknown.test", 80), SOON)

    async def wait(self) -> None:
        with Event.timer(self.base, nothing) as timer:
            await aio.wait(timer, random.random() * SOON / 5)
        left, right = socket.socketpair()
        with left, right, Event(self.base, left, EventFlag.READ, nothing) as event:
            await asyncio.wait_for(aio.wait(event), SOON / 2)

    async def call(self) -> None:
        """Have the loop make calls that another thread asks for."""

        def from_there() -> int:
            return self.base.call(divmod, 17, 5).result()[1]

        if await self.loop.run_in_executor(None, from_there) != 2:
            raise Wrong("a call has another result")
        await asyncio.wrap_future(self.base.call(int))

    async def pair(self) -> None:
        one, other = map(aio.Stream, BufferEvent.pair(self.base))
        async with one, other:
            one.write(b"x" * 1000)
            await other.readexactly(1000)
            await asyncio.wait_for(other.read(1), SOON)

    # Rounds.

    async def client(self, act: Callable[[], Awaitable[None]]) -> None:
        """Have a client *act*, and cancel it somewhere, perhaps."""
        task = asyncio.ensure_future(act())
        if random.random() < CANCELLED:
            for _ in range(random.choice([0, 0, 1, 2, 5])):
                await asyncio.sleep(0)
            if random.random() < 0.7:
                await asyncio.sleep(random.random() * SOON)
            task.cancel()
        try:
            await task
            self.done[act.__name__] += 1
        except asyncio.CancelledError:
            self.done["cancelled"] += 1
        except asyncio.TimeoutError:
            self.done["timed out"] += 1

    async def round(self, seconds: float, number: int) -> None:
        end = self.loop.time() + seconds
        kinds = [
            *(self.talk, self.talk_by_tls, self.talk_locally, self.talk_by_name, self.listen),
            *(self.flood, self.talk_by_asyncio, self.ask, self.look_up, self.wait, self.call),
            self.pair,
        ]

        async def again(act: Callable[[], Awaitable[None]]) -> None:
            while self.loop.time() < end:
                await self.client(act)

        await asyncio.gather(*(again(act) for act in kinds for _ in range(number)))

    async def rest(self) -> dict[str, Any]:
        """Return what the process has once all clients have gone, and what they have left."""
        self.names.queries.clear()  # which a test may want to see
        before: dict[str, Any] = {}
        end = time.monotonic() + SETTLED
        while True:
            await asyncio.sleep(0.3)
            now = self.facts()
            if before and all(now[name] == before[name] for name in SAME):
                return now
            if time.monotonic() > end:
                raise Failed(f"after {SETTLED} s of rest it still changes: {before}, {now}")
            before = now

    def facts(self) -> dict[str, Any]:
        gc.collect()
        status = Path("/proc/self/status").read_text()
        [memory] = (line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))
        return {
            "seconds": round(time.monotonic() - self.begin, 1),
            "memory": int(memory) * 1024,
            "blocks of libevent": debug.memory(MemorySource.LIBEVENT).blocks,
            "blocks of Python": sys.getallocatedblocks(),
            "descriptors": len(descriptors()),
            "objects": len(self.base._ledger) + len(self.base._live) + len(self.base._closings),
            "tasks": len(asyncio.all_tasks()),
        }


def some() -> bytes:
    """Return something to send."""
    return random.randbytes((random.randrange(LARGEST) >> random.choice([0, 4, 12])) + 1)


def nothing(*_: object) -> None:
    """Do nothing."""


async def in_parts(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), 20_000):
        yield content[at : at + 20_000]
        await asyncio.sleep(0)


async def soak(seconds: float, length: float, number: int, warm: int) -> dict[str, Any]:
    """Run rounds of *length* seconds for *seconds*, after *warm* others; return what happened."""
    rests: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory:
        async with contextlib.AsyncExitStack() as stack:
            company = Company(stack, Path(directory))
            await company.serve()
            # Each round says how it went; that is enough where there is no bar.
            with Progress("soak", max(seconds, (warm + 2) * length), every=None) as progress:
                while len(rests) < warm + 2 or time.monotonic() < company.begin + seconds:
                    await company.round(length, number)
                    rests.append(await company.rest())
                    said = ", ".join(f"{name} {rests[-1][name]:,}" for name in rests[-1])
                    clients = f"{sum(company.done.values()):,} clients"
                    progress.say(f"{said}, {clients}")
                    progress.reach(time.monotonic() - company.begin, clients)
            check(rests[warm:], SAME)
            for task in company.serving:
                task.cancel()
            await asyncio.gather(*company.serving, return_exceptions=True)
    return {"done": company.done, "bytes": company.bytes, "rests": rests}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long it goes on")
    parser.add_argument("--round", type=float, default=10.0, help="the seconds of a round")
    parser.add_argument("--clients", type=int, default=4, help="how many of each sort at once")
    parser.add_argument("--warm", type=int, default=3, help="rounds before anything is compared")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of what is random")
    parser.add_argument("--json", type=Path, help="write what happened to this file")
    chosen = parser.parse_args()
    random.seed(chosen.seed)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of writing to who has gone
    debug.count_memory()
    with EventBase() as base:
        try:
            run = soak(60 * chosen.minutes, chosen.round, chosen.clients, chosen.warm)
            report = aio.run(run, base=base)
        except Failed as error:
            sys.exit(f"soak: {error} (seed {chosen.seed})")
        left = [ref() for ref in base._ledger.values()]
        if left or base._live or base._closings:
            sys.exit(f"soak: left on the base: {left} (seed {chosen.seed})")
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1))
    done = ", ".join(f"{count:,} {kind}" for kind, count in report["done"].items())
    print(f"{done}; {report['bytes']:,} bytes accounted for; nothing grew")


if __name__ == "__main__":
    main()
