"""The servers: HTTP, HTTPS, an echo by TLS, a proxy in front of that, and a name server.

``python -m tests.kit.soak.servers CERTFILE KEYFILE DESCRIPTORS`` prints the ports, and then a line
of JSON each second, and one for each line ``rest`` that it reads. It ends when its input does.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    DnsServer,
    DnsServerRequest,
    Event,
    EventBase,
    EventFlag,
    HttpServer,
    HttpServerRequest,
    Listener,
    MemorySource,
    TlsContext,
    debug,
)
from libevent_py._core.dispatch import live
from samples.le_proxy import Relay
from tests.kit.processes import descriptors

READ = EventFlag.READ
OPTIONS = BufferEventOption.CLOSE_ON_FREE | BufferEventOption.DEFER_CALLBACKS
HOST = "127.0.0.1"
BACKLOG = 4096

#: How long a client may be silent, in seconds; those that are held are never timed out.
SILENCE = 3.0
#: How much may wait for a client, in bytes.
MOST = 65536
#: How much of a body is sent at once, in bytes.
PART = 16384
LARGEST_BODY, LARGEST_HEADERS = 1 << 20, 8192


def body(size: int) -> bytes:
    """Return the body of *size* bytes, which both ends know."""
    block = hashlib.sha256(str(size).encode()).digest()
    return (block * (size // len(block) + 1))[:size]


class Servers:
    """All servers on one base, and what they have done."""

    def __init__(self, certfile: str, keyfile: str, highest: int) -> None:
        self.base = EventBase()
        wait_for_each(self.base, highest)
        self.base.on_error = self.on_error
        self.done: Counter[str] = Counter()
        context = TlsContext(server_side=True, certfile=certfile, keyfile=keyfile)
        self.ports = {
            "http": self.web("http", SILENCE),
            "held": self.web("held", None),
            "https": self.web("https", SILENCE, context),
            "echo": self.echo(context),
        }
        self.ports["proxy"] = self.proxy(self.ports["echo"])
        self.ports["dns"] = self.names()
        Event(self.base, 0, READ | EventFlag.PERSIST, self.on_command).add()
        self.begin = time.monotonic()
        Event.timer(self.base, lambda *_: self.tell(False), persist=True).add(1.0)

    def on_error(self, error: BaseException, source: object) -> None:
        print(f"{type(error).__name__} in {source!r}: {error}", file=sys.stderr)
        self.done["errors"] += 1

    # The servers.

    def web(self, kind: str, timeout: float | None, context: TlsContext | None = None) -> int:
        """Serve HTTP, with *context* by TLS; return the port."""
        server = HttpServer(self.base)
        server.timeout = timeout
        server.max_body_size, server.max_headers_size = LARGEST_BODY, LARGEST_HEADERS
        server.tls = context

        def on_request(request: HttpServerRequest) -> None:
            self.done[kind] += 1
            path, _, size = request.uri.lstrip("/").partition("/")
            if path == "digest":
                digest = hashlib.sha256(request.input_buffer.remove()).hexdigest()
                request.send_reply(200, "OK", digest.encode())
            elif path == "bytes" and size.isdigit() and int(size) <= LARGEST_BODY:
                self.send(request, int(size))
            else:
                request.send_error(404)

        server.set_gencb(on_request)
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((HOST, 0))
            listening.listen(BACKLOG)
            port = int(listening.getsockname()[1])
            server.accept_socket(listening)
        return port

    def send(self, request: HttpServerRequest, size: int) -> None:
        """Send the body of *size* bytes, the next part when the last one is through."""
        left = memoryview(body(size))
        request.send_reply_start(200, "OK")

        def more(_: object = None) -> None:
            nonlocal left
            if left:
                part, left = left[:PART], left[PART:]
                request.send_reply_chunk(part, more)
            else:
                request.send_reply_end()

        more()

    def echo(self, context: TlsContext) -> int:
        """Send back what comes by TLS; return the port."""

        def on_accept(listener: Listener, fd: int, address: Any) -> None:
            self.done["echo"] += 1
            bev = BufferEvent.tls(self.base, fd, context, on_read=on_read, on_event=on_event)
            bev.on_write = lambda bev: bev.enable(READ)
            bev.set_timeouts(SILENCE, SILENCE)
            bev.enable(READ)

        def on_read(bev: BufferEvent) -> None:
            bev.write(bev.read())
            if len(bev.output) > MOST:
                bev.disable(READ)

        def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
            if what & BufferEventFlag.EOF:
                bev.close(flush=True)
            elif not what & BufferEventFlag.CONNECTED:
                bev.close()

        return int(Listener(self.base, (HOST, 0), on_accept, backlog=BACKLOG).address[1])

    def proxy(self, port: int) -> int:
        """Pass on what comes to *port*, and back; return the port."""

        def on_accept(listener: Listener, fd: int, address: Any) -> None:
            self.done["proxy"] += 1
            client, server = (
                BufferEvent(self.base, fd, OPTIONS),
                BufferEvent(self.base, -1, OPTIONS),
            )
            Relay(client, server, tls=False)
            server.connect((HOST, port))

        return int(Listener(self.base, (HOST, 0), on_accept, backlog=BACKLOG).address[1])

    def names(self) -> int:
        """Answer each name that begins with a number by an address; return the port."""

        def on_query(request: DnsServerRequest) -> None:
            self.done["dns"] += 1
            for question in request.questions:
                number = question.name.partition(".")[0]
                if number.isdigit() and int(number) < 1 << 24:
                    packed = (127 << 24 | int(number)).to_bytes(4, "big")
                    request.add_a_reply(question.name, [socket.inet_ntoa(packed)], ttl=60)
            request.respond()

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((HOST, 0))
            port = int(sock.getsockname()[1])
            DnsServer(self.base, sock, on_query)
        return port

    # What is said of them.

    def on_command(self, event: Event, fd: int, what: EventFlag) -> None:
        if os.read(fd, 4096):
            self.tell(True)
        else:
            self.base.loopexit()

    def tell(self, resting: bool) -> None:
        """Print what the process has now; *resting* tells that no client is active."""
        gc.collect()
        status = Path("/proc/self/status").read_text()
        [memory] = (line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))
        print(
            json.dumps(
                {
                    "resting": resting,
                    "seconds": round(time.monotonic() - self.begin, 2),
                    "memory": int(memory) * 1024,
                    "blocks of libevent": debug.memory(MemorySource.LIBEVENT).blocks,
                    "blocks of Python": sys.getallocatedblocks(),
                    "descriptors": len(descriptors()),
                    "objects": len(live.objects),
                    "served": sum(self.done.values()),
                    "errors": self.done["errors"],
                }
            ),
            file=sys.__stdout__,
            flush=True,
        )


def wait_for_each(base: EventBase, highest: int) -> None:
    """Wait once for each descriptor up to *highest*: libevent has a block for each, for good."""
    with socket.socket() as sock, contextlib.ExitStack() as opened:
        fd = sock.fileno()
        while fd < highest:
            fd = os.dup(fd)
            opened.callback(os.close, fd)
            with Event(base, fd, READ, print) as event:
                event.add()


def main(certfile: str, keyfile: str, highest: str) -> None:
    debug.count_memory()
    servers = Servers(certfile, keyfile, int(highest))
    print(json.dumps(servers.ports), flush=True)
    # The proxy says of each connection why it ended.
    with open(os.devnull, "w") as unread, contextlib.redirect_stdout(unread):
        servers.base.dispatch()
    servers.base.close()
    left = debug.memory(MemorySource.LIBEVENT).blocks
    print(json.dumps({"done": servers.done, "objects left": len(live.objects), "left": left}))


if __name__ == "__main__":
    main(*sys.argv[1:])
