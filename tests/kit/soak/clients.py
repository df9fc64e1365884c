"""The clients: those that behave, who account for every byte, and those that don't.

``python -m tests.kit.soak.clients PORTS CAFILE`` reads commands: ``hold COUNT`` opens connections
that stay, ``round SECONDS NUMBER`` has that number of clients of each sort come for so long. After
each it prints a line of JSON. It ends when its input does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import socket
import ssl
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from tests.kit.certificates import HOST as NAME
from tests.kit.soak.servers import HOST, LARGEST_BODY, LARGEST_HEADERS, body

Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

#: How long one exchange may take, in seconds, on however busy a machine.
PATIENCE = 120.0
#: How large a body or an echo is at most, in bytes.
LARGEST = 200_000
#: How many connections are opened at once that then stay.
AT_ONCE = 200
#: How long those who misbehave do so, in seconds.
WHILE = 1.0


class Wrong(Exception):
    """A client that behaves didn't get what it should have got."""


class Clients:
    """What the clients know of the servers, and what they have done."""

    def __init__(self, ports: dict[str, int], cafile: str) -> None:
        self.ports = ports
        self.context = ssl.create_default_context(cafile=cafile)
        self.done: Counter[str] = Counter()
        self.bytes = 0
        self.held: list[Stream] = []

    async def connect(self, port: str, tls: bool = False) -> Stream:
        secured = {"ssl": self.context, "server_hostname": NAME} if tls else {}
        return await asyncio.open_connection(HOST, self.ports[port], **secured)  # type: ignore[arg-type]

    # Those that behave.

    async def web(self, port: str, tls: bool) -> None:
        """Ask for bodies and send some, a few on each connection."""
        reader, writer = await self.connect(port, tls)
        try:
            for _ in range(random.randint(1, 5)):
                await self.ask(reader, writer)
        finally:
            await close(writer)

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = random.randrange(LARGEST) >> random.choice([0, 4, 16])
        if random.random() < 0.5:
            sent = random.randbytes(size)
            head = f"POST /digest HTTP/1.1\r\nHost: soak\r\nContent-Length: {size}\r\n\r\n"
            expected = hashlib.sha256(sent).hexdigest().encode()
        else:
            sent = b""
            head, expected = f"GET /bytes/{size} HTTP/1.1\r\nHost: soak\r\n\r\n", body(size)
        writer.write(head.encode() + sent)
        await writer.drain()
        got = await response(reader)
        if got != expected:
            raise Wrong(f"{head.splitlines()[0]}: {len(got)} bytes for {len(expected)}, or others")
        self.bytes += len(sent) + len(got)

    async def echo(self, port: str) -> None:
        """Send bytes by TLS, and get them back."""
        reader, writer = await self.connect(port, tls=True)
        try:
            for _ in range(random.randint(1, 5)):
                sent = random.randbytes(
                    random.randrange(1, LARGEST) >> random.choice([0, 4, 16]) or 1
                )
                writer.write(sent)
                got = await reader.readexactly(len(sent))
                if got != sent:
                    raise Wrong(f"{port}: others than the {len(sent)} bytes sent came back")
                self.bytes += 2 * len(sent)
        finally:
            await close(writer)

    async def name(self) -> None:
        """Ask for an address, again if the datagram is lost."""
        number = random.randrange(1 << 24)
        wanted = (127 << 24 | number).to_bytes(4, "big")
        ident, query = question(f"{number}.soak.test")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect((HOST, self.ports["dns"]))
            loop = asyncio.get_running_loop()
            for patience in 0.5, 1, 2, 4, 8, 16:
                await loop.sock_sendall(sock, query)
                answer = b""
                try:
                    while answer[:2] != ident:  # it may be for who had the port before
                        answer = await asyncio.wait_for(loop.sock_recv(sock, 512), patience)
                except asyncio.TimeoutError:
                    self.done["asked again"] += 1
                    continue
                if answer[-4:] != wanted:
                    raise Wrong(f"{number}.soak.test: the answer is {answer!r}")
                self.bytes += len(query) + len(answer)
                return
        raise Wrong(f"{number}.soak.test: no answer")

    # Those that don't. Whatever becomes of them is all right with them.

    async def dribble(self, stream: Stream) -> None:
        """Send a request byte by byte, and give up somewhere."""
        for byte in b"GET /bytes/100 HTTP/1.1\r\nHost: soak\r\n\r\n"[: random.randrange(50)]:
            stream[1].write(bytes([byte]))
            await asyncio.sleep(0.02)

    async def reset(self, stream: Stream) -> None:
        """Leave in the middle of a request by a reset."""
        stream[1].write(b"POST /digest HTTP/1.1\r\nContent-Length: 1000\r\n\r\n" + bytes(500))
        reset_at_close(stream[1])

    async def half_close(self, stream: Stream) -> None:
        """Say that nothing more will come, and read on."""
        stream[1].write(b"GET /bytes/100000 HTTP/1.1\r\nHost: soak\r\n\r\n")
        if stream[1].can_write_eof():
            stream[1].write_eof()
        await stream[0].read()

    async def garbage(self, stream: Stream) -> None:
        """Send what means nothing."""
        stream[1].write(random.randbytes(random.randrange(1, 5000)))
        await stream[0].read()

    async def oversized(self, stream: Stream) -> None:
        """Send a header, a URI or a body that is too large."""
        many, post = b"x" * (10 * LARGEST_HEADERS), b"POST /digest HTTP/1.1\r\n"
        requests = [
            b"GET / HTTP/1.1\r\nX: " + many + b"\r\n\r\n",
            b"GET /" + many + b" HTTP/1.1\r\n\r\n",
            post + b"Content-Length: %d\r\n\r\n" % (10 * LARGEST_BODY) + many,
            post + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n" + many,
        ]
        stream[1].write(random.choice(requests))
        await stream[0].read()

    async def deaf(self, stream: Stream) -> None:
        """Ask for much, read nothing of it, and leave by a reset."""
        request = b"GET /bytes/%d HTTP/1.1\r\nHost: soak\r\n\r\n" % LARGEST_BODY
        stream[1].write(5 * request)
        stream[1].transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(WHILE / 2)
        reset_at_close(stream[1])

    async def silent(self, stream: Stream) -> None:
        """Say nothing until the server has had enough."""
        await stream[0].read()

    async def misbehave(self) -> None:
        """Do one of all that to one of the servers."""
        if random.random() < 0.1:
            return self.datagrams()
        how = random.choice(
            [
                self.dribble,
                self.reset,
                self.half_close,
                self.garbage,
                self.oversized,
                self.deaf,
                self.silent,
            ]
        )
        port = random.choice(["http", "https", "echo", "proxy"])
        tls = port != "http" and random.random() < 0.5
        longest = PATIENCE if how == self.silent else WHILE
        try:
            stream = await asyncio.wait_for(self.connect(port, tls), PATIENCE)
        except ssl.SSLError as error:  # the handshake of nobody but a client fails here
            raise Wrong(f"{port}: no handshake: {error}") from error
        try:
            await asyncio.wait_for(how(stream), longest)
        except (OSError, asyncio.TimeoutError):
            self.done["cut short"] += 1
        finally:
            stream[1].transport.abort() if random.random() < 0.5 else await close(stream[1])

    def datagrams(self) -> None:
        """Send the name server what it can't read."""
        _, query = question("1.soak.test")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((HOST, self.ports["dns"]))
            for _ in range(5):
                cut = query[: random.randrange(len(query))]
                sock.send(random.choice([random.randbytes(random.randrange(512)), cut, 20 * query]))

    # Rounds.

    async def hold(self, count: int) -> None:
        """Open *count* connections that stay; each has been served once."""

        async def one() -> Stream:
            reader, writer = await self.connect("held")
            writer.write(b"GET /bytes/10 HTTP/1.1\r\nHost: soak\r\n\r\n")
            if await response(reader) != body(10):
                raise Wrong("a connection to be held was not served")
            return reader, writer

        while len(self.held) < count:
            some = min(AT_ONCE, count - len(self.held))
            self.held += await asyncio.gather(*(one() for _ in range(some)))

    async def round(self, seconds: float, number: int) -> None:
        """Have *number* clients of each sort come again and again for *seconds*."""
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "http": lambda: self.web("http", False),
            "https": lambda: self.web("https", True),
            "echo": lambda: self.echo("echo"),
            "proxy": lambda: self.echo("proxy"),
            "dns": self.name,
            "misbehaved": self.misbehave,
        }
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds

        async def again(kind: str, act: Callable[[], Awaitable[None]]) -> None:
            while loop.time() < end:
                await asyncio.wait_for(act(), PATIENCE)
                self.done[kind] += 1

        each = {kind: number * (4 if kind == "misbehaved" else 1) for kind in kinds}
        await asyncio.gather(
            *(again(kind, kinds[kind]) for kind in kinds for _ in range(each[kind]))
        )
        for reader, writer in self.held:
            if reader.at_eof() or writer.is_closing():
                raise Wrong("a connection that is held was closed")


async def response(reader: asyncio.StreamReader) -> bytes:
    """Return the body of the next response, which must be 200."""
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    if not status.startswith("HTTP/1.1 200 "):
        raise Wrong(f"the response is {status!r}")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers["content-length"]))
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(parts)


def question(name: str) -> tuple[bytes, bytes]:
    """Return the identifier of a query for the address of *name*, and the query."""
    ident = random.randbytes(2)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return ident, ident + struct.pack("!5H", 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def reset_at_close(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), WHILE)
    except (OSError, asyncio.TimeoutError):  # the server has left first, or doesn't say goodbye
        writer.transport.abort()


async def main(ports: str, cafile: str) -> None:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of writing to who has gone
    clients = Clients(json.loads(ports), cafile)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, *numbers = line.split()
        if command == "hold":
            await clients.hold(int(numbers[0]))
        else:
            await clients.round(float(numbers[0]), int(numbers[1]))
        print(json.dumps({"done": clients.done, "bytes": clients.bytes}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
