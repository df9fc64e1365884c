"""A user's program, typed: it echoes lines, counts them over HTTP, and asks for both by name.

`test_types` runs it, and has mypy and pyright check it in their strict modes: so it has neither a
cast nor anything that they are told to ignore.
"""

from __future__ import annotations

import socket
import sys

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    DnsBase,
    DnsLookup,
    DnsResult,
    DnsServer,
    DnsServerRequest,
    Event,
    EventBase,
    EventFlag,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    HttpServer,
    HttpServerRequest,
    Listener,
)
from libevent_py.types import (
    Address,
    Body,
    BufferEventCallback,
    DataCallback,
    ErrorCallback,
    EventCallback,
    FileDescriptor,
    HttpHandler,
    HttpRequestCallback,
    ListenerCallback,
    Octets,
    OnceCallback,
    ResolveCallback,
    Timeout,
)


class Counter:
    """Counts the lines that clients send, and tells of them over HTTP."""

    def __init__(self, base: EventBase, idle: Timeout = 5.0) -> None:
        self.base, self.idle = base, idle
        self.lines = 0
        accept: ListenerCallback = self.accepted
        self.listener = Listener(base, ("127.0.0.1", 0), accept)
        handler: HttpHandler = self.asked
        self.http = HttpServer(base)
        self.http.set_cb("/lines", handler)
        self.bound = self.http.bind_socket("127.0.0.1", 0)

    def accepted(self, listener: Listener, fd: int, address: Address) -> None:
        on_read: DataCallback = self.came
        on_event: BufferEventCallback = self.ended
        bev = BufferEvent(listener.base, fd, on_read=on_read, on_event=on_event)
        bev.set_timeouts(self.idle, self.idle)
        bev.enable(EventFlag.READ | EventFlag.WRITE)

    def came(self, bev: BufferEvent) -> None:
        while (line := bev.input.readln()) is not None:
            self.lines += 1
            bev.output.add(line + b"\n")

    def ended(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        if what & BufferEventFlag.ERROR and bev.error is not None:
            print("lost:", bev.error.errno, file=sys.stderr)
        bev.close(flush=True)

    def asked(self, request: HttpServerRequest) -> None:
        page = Buffer(b"lines: ")
        page += b"%d" % self.lines
        body: Body = page
        request.output_headers["Content-Type"] = "text/plain"
        request.send_reply(200, body=body)


class Client:
    """Sends lines once it knows the address of a name, and then asks how many came."""

    def __init__(self, counter: Counter, dns: DnsBase, *lines: Octets) -> None:
        self.base, self.counter, self.lines = counter.base, counter, lines
        self.answer = b""
        found: ResolveCallback = self.found
        dns.resolve_ipv4("counter.example", found)

    def found(self, lookup: DnsLookup, result: DnsResult, ttl: int, found: list[str]) -> None:
        if result is not DnsResult.NONE:
            raise OSError(f"{lookup.name!r}: {result.name}")
        self.host = found[0]
        self.link = BufferEvent(self.base, on_read=self.echoed, on_event=self.connected)
        self.link.connect((self.host, self.counter.listener.address[1]))

    def connected(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        if not what & BufferEventFlag.CONNECTED:
            raise bev.error or EOFError("the counter has hung up")
        bev.enable(EventFlag.READ)
        for line in self.lines:
            bev.write(line)

    def echoed(self, bev: BufferEvent) -> None:
        if bytes(bev.input).count(b"\n") == len(self.lines):
            bev.close()
            done: HttpRequestCallback = self.told
            request = HttpRequest(done)
            request.output_headers["Host"] = self.host
            self.connection = HttpConnection(self.base, self.host, self.counter.bound.port)
            self.connection.timeout = 5
            self.connection.make_request(request, HttpCommand.GET, "/lines")

    def told(self, request: HttpRequest) -> None:
        if request.error is not None:
            raise request.error
        self.answer = request.input_buffer.remove()
        self.connection.close()
        self.base.loopexit()


def named(request: DnsServerRequest) -> None:
    for question in request.questions:
        request.add_a_reply(question.name, "127.0.0.1", ttl=60)
    request.respond()


def watch(base: EventBase, fd: FileDescriptor, seen: list[int], timeout: Timeout = None) -> Event:
    def ready(event: Event, fd: int, what: EventFlag) -> None:
        seen.append(fd)
        event.close()

    callback: EventCallback = ready
    return Event(base, fd, EventFlag.READ, callback).add(timeout)


def main() -> None:
    failures: list[str] = []
    fired: list[EventFlag] = []
    seen: list[int] = []

    def failed(error: Exception, source: object) -> None:
        failures.append(f"{type(source).__name__}: {error}")
        base.loopbreak()

    def late(fd: int, what: EventFlag) -> None:
        fired.append(what)

    with EventBase(priorities=2) as base:
        on_error: ErrorCallback = failed
        base.on_error = on_error
        names = DnsServer(base, ("127.0.0.1", 0), named)
        dns = DnsBase(base, 0)
        dns.nameserver_sockaddr_add(names.address)
        client = Client(Counter(base), dns, b"one\n", bytearray(b"two\n"), memoryview(b"three\n"))
        once: OnceCallback = late
        base.once(once, timeout=0.0)
        one, other = socket.socketpair()
        event = watch(base, one, seen, 5)
        event.priority = 0
        other.send(b"x")
        guard = Event.timer(base, lambda event, fd, what: failed(TimeoutError(), event)).add(30)
        base.dispatch()
        guard.close()
        print(client.answer.decode(), len(fired), seen == [one.fileno()], *failures)
    one.close()
    other.close()


if __name__ == "__main__":
    main()
