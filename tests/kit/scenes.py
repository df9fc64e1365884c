"""The scenes that operations are tried in: fresh objects, and others that may be closed meanwhile.

A scene is made for one operation. `Scene.it` is the object of the operation; the others are its
owners, its arguments, or objects that belong to it.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import socket
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventOption,
    DnsBase,
    DnsBaseFlag,
    DnsServer,
    Event,
    EventBase,
    EventConfig,
    EventFlag,
    FileSegment,
    FilterResult,
    Headers,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    HttpServer,
    Listener,
    LoopFlag,
    Query,
    RateLimit,
    RateLimitGroup,
    RpcHook,
    RpcHookResult,
    RpcPool,
    RpcServer,
    TlsContext,
    Uri,
)
from libevent_py.util import MonotonicTimer
from tests.kit.certificates import Authority
from tests.kit.dns_packets import query
from tests.kit.flags import DEFER, READ, THREADSAFE, WRITE
from tests.kit.rpc_messages import REQUEST, Kill, Msg, answer

ONCE_NOW = LoopFlag.ONCE | LoopFlag.NONBLOCK

#: The most turns of a loop in which what takes no time has happened.
TURNS = 10_000


def ignore(*_arguments: object) -> None:
    """Do nothing, in the place of any callback."""


def nothing() -> None:
    """Do nothing."""


class Scene:
    """The objects of one try; an attribute for each, and how those are closed that can be."""

    #: The base, once there is one, and until the operation has dropped it.
    base: Any = None

    if TYPE_CHECKING:  # of what class each attribute is only the scene knows

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def __init__(self) -> None:
        self.it: Any = None
        #: How each is closed, by the name of the attribute, in the order in which they are made.
        self.closes: dict[str, str] = {}
        #: What closes itself at the end of the try.
        self.stack = contextlib.ExitStack()
        #: What calls the function that it is given at the moment for which the scene is made.
        self.enter: Callable[[Callable[[], None]], None] = lambda call: call()

    def add(self, name: str, thing: Any, close: str = "close") -> Any:
        """Have *thing* as the attribute *name*, to be closed by its method *close*."""
        setattr(self, name, thing)
        self.closes[name] = close
        return thing

    def based(self) -> EventBase:
        """Make the scene's event base."""
        base = self.base = EventBase(priorities=2)
        return base

    def pair(self) -> socket.socket:
        """Return one end of a pair of sockets; the other is `far`."""
        here, self.far = socket.socketpair()
        here.setblocking(False)
        self.far.setblocking(False)
        self.stack.callback(self.far.close)
        self.stack.callback(here.close)
        return here

    def run_until(self, condition: Callable[[], object]) -> None:
        """Run the loop until *condition* holds."""
        for _ in range(TURNS):
            if condition():
                return
            self.base.loop(ONCE_NOW)
        raise AssertionError("it has not come to that")

    def entered_by(self, arrange: Callable[[], object], slot: list[Callable[..., None]]) -> None:
        """Have `enter` arrange that the function in *slot* is called by the loop, and run it.

        The scene's own name for what is called must be set by that function.
        """

        def enter(call: Callable[[], None]) -> None:
            called: list[bool] = []

            def once() -> None:
                if not called:
                    called.append(True)
                    call()

            slot[0] = once
            base = self.base
            arrange()
            for _ in range(TURNS):
                if called:
                    return
                base.loop(ONCE_NOW)
            raise AssertionError("the callback has not been called")

        self.enter = enter


SCENES: dict[str, dict[str, Callable[[Scene], None]]] = {}

Maker = Callable[[Scene], None]


def scene(kind: str, name: str = "", *others: str) -> Callable[[Maker], Maker]:
    """Note a function that makes the scene *name* of the class *kind*, and of *others*."""

    def note(make: Maker) -> Maker:
        for each in (kind, *others):
            SCENES.setdefault(each, {})[name] = make
        return make

    return note


def unlingering(sock: socket.socket) -> socket.socket:
    """Have no port wait for what may still come when *sock* is closed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return sock


def client_of(s: Scene, port: int, data: bytes = b"") -> socket.socket:
    """Return a socket that is connected to *port* and has said *data*."""
    sock = unlingering(socket.create_connection(("127.0.0.1", port)))
    s.stack.callback(sock.close)
    sock.setblocking(False)
    sock.send(data)
    return sock


@functools.cache
def listening() -> socket.socket:
    """Return a socket of the process that listens, for scenes that connect to it."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=100)
    sock.setblocking(False)
    return sock


def accept(s: Scene) -> socket.socket:
    """Return a socket that has been accepted from `listening`."""
    accepted = unlingering(listening().accept()[0])
    accepted.setblocking(False)
    s.stack.callback(accepted.close)
    return accepted


def port() -> int:
    """Return the port of `listening`."""
    return int(listening().getsockname()[1])


def accept_all() -> None:
    """Take and close what is still connected to `listening`."""
    with contextlib.suppress(BlockingIOError):
        while True:
            unlingering(listening().accept()[0]).close()


@functools.cache
def file() -> Any:
    """Return a file of the process with 1000 bytes."""
    made = tempfile.TemporaryFile()  # noqa: SIM115  (the scene closes it)
    made.write(b"0123456789" * 100)
    made.flush()
    return made


@functools.cache
def server_context() -> TlsContext:
    """Return the process's context of servers."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        Authority(directory)
        return TlsContext(
            server_side=True,
            certfile=directory / "server.pem",
            keyfile=directory / "server.key",
        )


# The base, its events and what it is configured by.


@scene("EventBase")
def _(s: Scene) -> None:
    s.it = s.based()
    s.it.on_error = None
    s.here = s.pair()
    s.add("event", Event(s.base, s.here, WRITE | EventFlag.PERSIST, ignore).add(60))
    s.add("config", EventConfig())
    s.base.once(ignore, timeout=60)


@scene("Event", "of a descriptor")
def _(s: Scene) -> None:
    s.based()
    s.here = s.pair()
    s.common = s.base.init_common_timeout(60)
    s.add("it", Event(s.base, s.here, READ | EventFlag.PERSIST, ignore))


@scene("Event", "pending")
def _(s: Scene) -> None:
    s.based()
    s.here = s.pair()
    s.common = s.base.init_common_timeout(60)
    s.add("it", Event(s.base, s.here, READ, ignore).add(60))


@scene("Event", "of a signal")
def _(s: Scene) -> None:
    s.based()
    s.here = s.pair()
    s.common = s.base.init_common_timeout(60)
    s.add("it", Event.signal(s.base, signal.SIGUSR1, ignore))


@scene("Event", "in its callback")
def _(s: Scene) -> None:
    s.based()
    s.here = s.pair()
    s.common = s.base.init_common_timeout(60)
    slot: list[Callable[..., None]] = [ignore]
    s.add("it", Event.timer(s.base, lambda *_: slot[0](), persist=True))
    s.entered_by(lambda: s.it.add(0), slot)


@scene("CommonTimeout")
def _(s: Scene) -> None:
    s.it = s.based().init_common_timeout(60)
    s.add("event", Event.timer(s.base, ignore).add(s.it))


@scene("EventConfig")
def _(s: Scene) -> None:
    s.add("it", EventConfig(avoid=["poll"]))


@scene("MonotonicTimer")
def _(s: Scene) -> None:
    s.add("it", MonotonicTimer())


# Buffers.


def filled(s: Scene, buffer: Buffer) -> None:
    buffer.add(b"one\r\ntwo\r\n" + b"x" * 5000)
    s.add("other", Buffer(b"other"))
    s.add("target", Buffer())
    s.add("segment", FileSegment(file(), 0, 100))
    s.callback = None


@scene("Buffer", "", "tag")
def _(s: Scene) -> None:
    s.based()
    filled(s, s.add("it", Buffer()))


@scene("Buffer", "watched", "tag")
def _(s: Scene) -> None:
    s.based()
    filled(s, s.add("it", Buffer()))
    s.callback = s.it.add_cb(ignore)
    s.other.add_cb(ignore)


@scene("Buffer", "deferred")
def _(s: Scene) -> None:
    s.based()
    filled(s, s.add("it", Buffer()))
    s.callback = s.it.add_cb(ignore)
    s.it.defer_callbacks(s.base)


@scene("Buffer", "output of a socket")
def _(s: Scene) -> None:
    s.add("bev", BufferEvent(s.based(), s.pair()))
    s.bev.disable(WRITE)
    filled(s, s.bev.output)
    s.it = s.bev.output


@scene("Buffer", "input of a socket", "tag")
def _(s: Scene) -> None:
    s.add("bev", BufferEvent(s.based(), s.pair()))
    s.bev.enable(READ)
    s.far.send(b"one\r\ntwo\r\n" * 100)
    s.run_until(lambda: len(s.bev.input) == 1000)
    s.it = s.bev.input
    s.add("other", Buffer(b"other"))
    s.add("target", Buffer())
    s.add("segment", FileSegment(file(), 0, 100))
    s.callback = None


@scene("Buffer", "watched output of TLS")
def _(s: Scene) -> None:
    secured(s)
    filled(s, s.bev.output)
    s.callback = s.bev.output.add_cb(ignore)
    s.it = s.bev.output


@scene("Buffer", "of a client's request")
def _(s: Scene) -> None:
    s.based()
    s.add("request", HttpRequest(ignore))
    filled(s, s.request.output_buffer)
    s.it = s.request.output_buffer


@scene("Buffer", "of a server's request")
def _(s: Scene) -> None:
    asked(s)
    filled(s, s.request.output_buffer)
    s.it = s.request.output_buffer


@scene("Buffer", "of a server's request in its handler")
def _(s: Scene) -> None:
    in_handler(s, lambda request: filled(s, request.output_buffer))
    enter = s.enter

    def enter_with_buffer(call: Callable[[], None]) -> None:
        def with_buffer() -> None:
            s.it = s.request.output_buffer
            call()

        enter(with_buffer)

    s.enter = enter_with_buffer


@scene("BufferCallback")
def _(s: Scene) -> None:
    s.add("buffer", Buffer(b"data"))
    s.add("it", s.buffer.add_cb(ignore), "remove")


@scene("BufferCallback", "of an output")
def _(s: Scene) -> None:
    s.add("bev", BufferEvent(s.based(), s.pair()))
    s.buffer = s.bev.output
    s.add("it", s.buffer.add_cb(ignore), "remove")


@scene("FileSegment")
def _(s: Scene) -> None:
    s.add("it", FileSegment(file(), 0, 100))
    s.it.on_cleanup = ignore
    s.add("buffer", Buffer())
    s.buffer.add_file_segment(s.it)


# Bufferevents.


def around(s: Scene) -> None:
    """Make what a bufferevent's methods are given."""
    s.add("buffer", Buffer(b"data"))
    s.add("group", RateLimitGroup(s.base, RateLimit(1000, 1000, 1000, 1000)))
    s.add("context", TlsContext(verify=False, check_hostname=False))
    s.add("dns", DnsBase(s.base, DnsBaseFlag(0)))


def plain(s: Scene, options: BufferEventOption, **callbacks: Any) -> None:
    options |= BufferEventOption.CLOSE_ON_FREE
    s.add("it", BufferEvent(s.based(), s.pair(), options, **callbacks))
    s.it.enable(READ)
    around(s)


@scene("BufferEvent", "of a socket")
def _(s: Scene) -> None:
    plain(s, BufferEventOption(0), on_read=ignore, on_event=ignore)
    s.far.send(b"data")
    s.run_until(lambda: s.it.input)


@scene("BufferEvent", "without a socket")
def _(s: Scene) -> None:
    s.add("it", BufferEvent(s.based()))
    around(s)


@scene("BufferEvent", "THREADSAFE")
def _(s: Scene) -> None:
    plain(s, THREADSAFE | DEFER, on_read=ignore)


@scene("BufferEvent", "EAGER")
def _(s: Scene) -> None:
    plain(s, BufferEventOption.EAGER, on_read=ignore)


@scene("BufferEvent", "EAGER in its read callback")
def _(s: Scene) -> None:
    slot: list[Callable[..., None]] = [ignore]
    plain(s, BufferEventOption.EAGER, on_read=lambda bev: slot[0]())
    s.entered_by(lambda: s.far.send(b"data" * 10), slot)


@scene("BufferEvent", "limited, in a group")
def _(s: Scene) -> None:
    plain(s, BufferEventOption(0))
    s.it.rate_limit = RateLimit(1000, 1000, 1000, 1000)
    s.it.add_to_rate_limit_group(s.group)


@scene("BufferEvent", "half of a pair")
def _(s: Scene) -> None:
    s.based()
    it, other = BufferEvent.pair(s.base)
    s.add("it", it)
    s.add("half", other)
    s.it.enable(READ)
    s.it.write(b"data")
    around(s)


def passing(source: Buffer, destination: Buffer, _limit: object, _mode: object) -> FilterResult:
    """Let all pass."""
    destination.add_buffer(source)
    return FilterResult.OK


@scene("BufferEvent", "a filter")
def _(s: Scene) -> None:
    s.add("below", BufferEvent(s.based(), s.pair()))
    s.add("it", BufferEvent.filter(s.below, passing, passing))
    s.it.enable(READ)
    around(s)


@scene("BufferEvent", "a filter that owns nothing")
def _(s: Scene) -> None:
    s.add("below", BufferEvent(s.based(), s.pair(), on_read=ignore))
    s.add("it", BufferEvent.filter(s.below, passing, None, BufferEventOption(0)))
    around(s)


@scene("BufferEvent", "below a filter")
def _(s: Scene) -> None:
    s.add("it", BufferEvent(s.based(), s.pair()))
    s.add("above", BufferEvent.filter(s.it, passing, passing))
    around(s)


def secured(s: Scene) -> None:
    """Make a bufferevent that speaks TLS, before its handshake."""
    s.add("context", TlsContext(verify=False, check_hostname=False))
    s.add("bev", BufferEvent.tls(s.based(), s.pair(), s.context))


@scene("BufferEvent", "TLS")
def _(s: Scene) -> None:
    secured(s)
    del s.closes["bev"]
    s.add("it", s.bev)
    del s.bev
    s.it.enable(READ)
    around(s)


def handshake(s: Scene, ends: list[BufferEvent]) -> None:
    """Run the loop until *ends* are connected by TLS."""
    s.run_until(lambda: all(end.tls_version is not None for end in ends))


@scene("BufferEvent", "TLS after its handshake")
def _(s: Scene) -> None:
    s.based()
    client = TlsContext(verify=False, check_hostname=False)
    here, there = socket.socketpair()
    s.add("it", BufferEvent.tls(s.base, here, client, server_hostname="server.test"))
    s.add("peer", BufferEvent.tls(s.base, there, server_context()))
    handshake(s, [s.it, s.peer])
    s.it.enable(READ)
    around(s)


@scene("BufferEvent", "TLS through another")
def _(s: Scene) -> None:
    s.based()
    client = TlsContext(verify=False, check_hostname=False)
    here, there = socket.socketpair()
    s.add("below", BufferEvent(s.base, here, BufferEventOption.CLOSE_ON_FREE | DEFER))
    s.add("it", BufferEvent.tls_filter(s.below, client))
    s.add("peer", BufferEvent.tls(s.base, there, server_context()))
    handshake(s, [s.it, s.peer])
    s.it.enable(READ)
    around(s)


@scene("BufferEvent", "of a client's connection")
def _(s: Scene) -> None:
    s.add("connection", HttpConnection(s.based(), "127.0.0.1", port()))
    s.it = s.connection.bufferevent
    around(s)


@scene("BufferEvent", "of a server's connection")
def _(s: Scene) -> None:
    asked(s)
    s.it = s.request.connection.bufferevent
    around(s)


@scene("RateLimitGroup")
def _(s: Scene) -> None:
    s.based()
    s.add("it", RateLimitGroup(s.base, RateLimit(1000, 1000, 1000, 1000)))
    s.add("bev", BufferEvent(s.base, s.pair(), on_read=ignore))
    s.bev.add_to_rate_limit_group(s.it)
    s.bev.enable(READ)


@scene("Listener")
def _(s: Scene) -> None:
    s.based()
    s.bound = socket.create_server(("127.0.0.1", 0))
    s.stack.callback(s.bound.close)
    s.add("it", Listener(s.base, ("127.0.0.1", 0), ignore))


@scene("Listener", "in its callback")
def _(s: Scene) -> None:
    s.based()
    s.bound = socket.create_server(("127.0.0.1", 0))
    s.stack.callback(s.bound.close)
    slot: list[Callable[..., None]] = [ignore]

    def accepted(_listener: Listener, fd: int, _address: object) -> None:
        unlingering(socket.socket(fileno=fd)).close()
        slot[0]()

    s.add("it", Listener(s.base, ("127.0.0.1", 0), accepted))
    address = s.it.address
    s.entered_by(lambda: client_of(s, address[1]), slot)


@scene("Listener", "of a server")
def _(s: Scene) -> None:
    s.add("http", HttpServer(s.based()))
    s.bound = socket.create_server(("127.0.0.1", 0))
    s.stack.callback(s.bound.close)
    s.add("bound_socket", s.http.bind_socket("127.0.0.1", 0))
    s.it = s.bound_socket.listener


@scene("TlsContext")
def _(s: Scene) -> None:
    s.add("it", TlsContext(verify=False, check_hostname=False))


# Names.


@scene("DnsBase")
def _(s: Scene) -> None:
    s.add("it", DnsBase(s.based(), DnsBaseFlag(0)))
    s.it.nameserver_ip_add("127.0.0.1:9")
    s.lookup = s.it.resolve_ipv4("example.test", ignore)


@scene("DnsBase", "used by others")
def _(s: Scene) -> None:
    s.add("it", DnsBase(s.based(), DnsBaseFlag(0)))
    s.it.nameserver_ip_add("127.0.0.1:9")
    s.add("bev", BufferEvent(s.base, on_event=ignore))
    s.bev.connect_hostname(s.it, "example.test", 80)
    s.add("connection", HttpConnection(s.base, "example.test", 80, dns_base=s.it))
    s.add("request", HttpRequest(ignore))
    s.connection.make_request(s.request, HttpCommand.GET, "/")
    s.lookup = s.it.getaddrinfo("other.test", 80, ignore)


@scene("DnsLookup")
def _(s: Scene) -> None:
    s.add("dns", DnsBase(s.based(), DnsBaseFlag(0)))
    s.dns.nameserver_ip_add("127.0.0.1:9")
    s.add("it", s.dns.resolve_ipv4("example.test", ignore), "cancel")


@scene("AddrInfoLookup")
def _(s: Scene) -> None:
    s.add("dns", DnsBase(s.based(), DnsBaseFlag(0)))
    s.dns.nameserver_ip_add("127.0.0.1:9")
    s.add("it", s.dns.getaddrinfo("example.test", 80, ignore), "cancel")


def resolving(s: Scene, callback: Callable[..., None]) -> Callable[[], object]:
    """Make a DNS server; return what sends it a query."""
    s.add("server", DnsServer(s.based(), ("127.0.0.1", 0), callback))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.stack.callback(sock.close)
    sock.connect(s.server.address)
    return lambda: sock.send(query(b"example.test"))


@scene("DnsServer")
def _(s: Scene) -> None:
    resolving(s, ignore)
    s.it = s.server
    s.bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bound.bind(("127.0.0.1", 0))
    s.stack.callback(s.bound.close)


@scene("DnsServerRequest")
def _(s: Scene) -> None:
    asked: list[Any] = []
    resolving(s, asked.append)()
    s.run_until(lambda: asked)
    s.add("it", asked.pop())


@scene("DnsServerRequest", "in its callback")
def _(s: Scene) -> None:
    slot: list[Callable[..., None]] = [ignore]

    def called(request: Any) -> None:
        s.add("it", request)
        del request
        slot[0]()

    s.entered_by(resolving(s, called), slot)


# HTTP servers.

GET = b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\ndata"


def serving(s: Scene, handler: Callable[..., None]) -> int:
    """Make an HTTP server; return its port."""
    s.add("http", HttpServer(s.based()))
    s.http.set_gencb(handler)
    return int(s.add("bound", s.http.bind_socket("127.0.0.1", 0)).port)


def asked(s: Scene, message: bytes = POST) -> None:
    """Have a server that has been asked, and has its connection."""
    held: list[Any] = []
    s.client = client_of(s, serving(s, held.append), message)
    s.run_until(lambda: held)
    s.add("request", held.pop())
    s.add("connection", s.request.connection)


def in_handler(s: Scene, prepare: Callable[[Any], object] = ignore) -> None:
    """Have the operation run in the handler of a request."""
    slot: list[Callable[..., None]] = [ignore]

    def handler(request: Any) -> None:
        s.add("request", request)
        s.add("connection", request.connection)
        prepare(request)
        del request
        slot[0]()

    number = serving(s, handler)
    s.entered_by(lambda: client_of(s, number, POST), slot)


def in_part(s: Scene, name: str, prepare: Callable[[Any], object]) -> None:
    """Have the operation run where the body of a request is still coming, in the callback *name*.

    That is ``on_headers`` of the server, or ``on_chunk`` of the request.
    """
    slot: list[Callable[..., None]] = [ignore]

    def came(request: Any) -> None:
        s.add("request", request)
        s.add("connection", request.connection)
        prepare(request)
        del request
        slot[0]()

    def on_headers(request: Any) -> None:
        if name == "on_chunk":
            request.on_chunk = came
        else:
            came(request)

    number = serving(s, ignore)
    s.http.on_headers = on_headers
    data = POST if name == "on_chunk" else POST.removesuffix(b"data")
    s.entered_by(lambda: client_of(s, number, data), slot)


def in_end(s: Scene) -> None:
    """Have the operation run in the ``on_end`` of a request, whose client has gone."""
    asked(s)
    slot: list[Callable[..., None]] = [ignore]
    s.request.on_end = lambda request: slot[0]()
    s.request.send_reply_start(200)
    s.entered_by(s.client.close, slot)


def given(s: Scene, message: bytes = POST) -> None:
    """Have a server that has been asked, and be that what has been asked."""
    asked(s, message)
    s.it = s.request


def limited(s: Scene) -> None:
    """Have a group of connections that share a limit."""
    s.add("group", RateLimitGroup(s.base, RateLimit(1000, 1000, 1000, 1000)))


@scene("HttpServer")
def _(s: Scene) -> None:
    asked(s)
    s.it = s.http
    limited(s)
    s.it.set_cb("/path", ignore)
    s.it.add_server_alias("alias")
    s.add("vhost", HttpServer(s.base))
    s.add("guest", HttpServer(s.base))
    s.it.add_virtual_host("*.test", s.guest)
    s.listening = socket.create_server(("127.0.0.1", 0))
    s.stack.callback(s.listening.close)
    s.add("listener", Listener(s.base, ("127.0.0.1", 0), None))
    s.add("context", TlsContext(verify=False, check_hostname=False))


@scene("HttpServer", "a virtual host")
def _(s: Scene) -> None:
    asked(s)
    limited(s)
    s.add("it", HttpServer(s.base))
    s.it.set_cb("/path", ignore)
    s.it.add_server_alias("alias")
    s.http.add_virtual_host("*.test", s.it)
    s.add("vhost", HttpServer(s.base))
    s.add("guest", HttpServer(s.base))
    s.it.add_virtual_host("*.test", s.guest)
    s.listening = socket.create_server(("127.0.0.1", 0))
    s.stack.callback(s.listening.close)
    s.add("listener", Listener(s.base, ("127.0.0.1", 0), None))
    s.add("context", TlsContext(verify=False, check_hostname=False))


@scene("BoundSocket")
def _(s: Scene) -> None:
    asked(s)
    s.it = s.bound


@scene("HttpServerConnection")
def _(s: Scene) -> None:
    asked(s)
    limited(s)
    s.it = s.connection


@scene("HttpServerConnection", "limited and paused, whose request waits to end")
def _(s: Scene) -> None:
    asked(s)
    limited(s)
    s.request.on_end = ignore
    s.it = s.connection
    s.it.on_close = ignore
    s.it.rate_limit = RateLimit(1000, 1000, 1000, 1000)
    s.it.rate_limit_group = s.group
    s.it.pause()


@scene("HttpServerConnection", "in a handler")
def _(s: Scene) -> None:
    in_handler(s, lambda request: setattr(s, "it", request.connection))
    limited(s)


@scene("HttpServerConnection", "in on_end")
def _(s: Scene) -> None:
    in_end(s)
    limited(s)
    s.it = s.connection


@scene("HttpServerConnection", "in on_headers")
def _(s: Scene) -> None:
    in_part(s, "on_headers", lambda request: setattr(s, "it", request.connection))
    limited(s)


@scene("HttpServerRequest", "waiting")
def _(s: Scene) -> None:
    given(s)
    s.request.on_complete = ignore
    s.add("buffer", Buffer(b"body"))


@scene("HttpServerRequest", "begun")
def _(s: Scene) -> None:
    given(s)
    s.request.send_reply_start(200)
    s.request.send_reply_chunk(b"chunk")
    s.add("buffer", Buffer(b"body"))


@scene("HttpServerRequest", "of a client that has gone")
def _(s: Scene) -> None:
    given(s)
    s.request.send_reply_start(200)
    s.client.close()
    s.run_until(lambda: s.request.connection is None)
    s.add("buffer", Buffer(b"body"))
    s.add("reply", s.request, "send_reply_end")


@scene("HttpServerRequest", "whose connection has been closed")
def _(s: Scene) -> None:
    given(s)
    s.request.send_reply_start(200)
    s.connection.close()
    s.base.loop(ONCE_NOW)
    s.add("buffer", Buffer(b"body"))


@scene("HttpServerRequest", "whose reply has all been written")
def _(s: Scene) -> None:
    given(s, POST.replace(b"1.1", b"1.0"))
    s.request.send_reply_start(200)
    s.run_until(lambda: not s.connection.bufferevent.output)
    s.add("buffer", Buffer(b"body"))
    s.add("reply", s.request, "send_reply_end")


@scene("HttpServerRequest", "in its handler")
def _(s: Scene) -> None:
    in_handler(s, lambda request: setattr(s, "it", request))
    s.add("buffer", Buffer(b"body"))


@scene("HttpServerRequest", "whose end is awaited")
def _(s: Scene) -> None:
    given(s)
    s.request.on_end = s.request.on_complete = ignore
    s.add("buffer", Buffer(b"body"))


@scene("HttpServerRequest", "in on_headers")
def _(s: Scene) -> None:
    in_part(s, "on_headers", lambda request: setattr(s, "it", request))
    s.add("buffer", Buffer(b"body"))


@scene("HttpServerRequest", "in on_chunk")
def _(s: Scene) -> None:
    in_part(s, "on_chunk", lambda request: setattr(s, "it", request))
    s.add("buffer", Buffer(b"body"))


@scene("HttpServerRequest", "in on_end")
def _(s: Scene) -> None:
    in_end(s)
    s.it = s.request
    s.add("buffer", Buffer(b"body"))


# HTTP clients.


def asking(s: Scene) -> None:
    """Have a connection with a request under way, and one that waits."""
    s.add("connection", HttpConnection(s.based(), "127.0.0.1", port()))
    for name in ("first", "second"):
        s.add(name, HttpRequest(ignore, on_header=ignore, on_chunk=ignore, on_error=ignore))
        s.connection.make_request(getattr(s, name), HttpCommand.GET, "/")


def answer_by(s: Scene) -> None:
    """Accept the connection as `server`."""
    for _ in range(TURNS):
        s.base.loop(ONCE_NOW)
        with contextlib.suppress(BlockingIOError):
            s.server = accept(s)
            return
    raise AssertionError("nobody has connected")


def under_way(s: Scene) -> None:
    """Have the response of the first of two requests begun."""
    asking(s)
    answer_by(s)
    s.server.send(b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 10\r\n\r\n12345")
    s.run_until(lambda: s.first.response_code)


def beside(s: Scene) -> None:
    """Make what a connection's methods are given, unless there is one already."""
    if not hasattr(s, "dns"):
        s.add("dns", DnsBase(s.base, DnsBaseFlag(0)))
    s.add("context", TlsContext(verify=False, check_hostname=False))
    s.add("bev", BufferEvent(s.base))
    s.add("request", HttpRequest(ignore))
    limited(s)


@scene("HttpConnection", "idle")
def _(s: Scene) -> None:
    s.based()
    s.add("dns", DnsBase(s.base, DnsBaseFlag(0)))
    s.add("it", HttpConnection(s.base, "127.0.0.1", port(), dns_base=s.dns))
    beside(s)


@scene("HttpConnection", "with TLS")
def _(s: Scene) -> None:
    s.based()
    tls = TlsContext(verify=False, check_hostname=False)
    s.add("it", HttpConnection(s.base, "127.0.0.1", port(), tls=tls))
    s.add("first", HttpRequest(ignore))
    s.it.make_request(s.first, HttpCommand.GET, "/")
    s.base.loop(ONCE_NOW)
    beside(s)


@scene("HttpConnection", "under way")
def _(s: Scene) -> None:
    under_way(s)
    s.it = s.connection
    beside(s)


@scene("HttpConnection", "limited and paused")
def _(s: Scene) -> None:
    under_way(s)
    s.it = s.connection
    beside(s)
    s.it.rate_limit = RateLimit(1000, 1000, 1000, 1000)
    s.it.rate_limit_group = s.group
    s.it.pause()


@scene("HttpConnection", "looking up")
def _(s: Scene) -> None:
    s.based()
    s.add("dns", DnsBase(s.base, DnsBaseFlag(0)))
    s.dns.nameserver_ip_add("127.0.0.1:9")
    s.add("it", HttpConnection(s.base, "example.test", 80, dns_base=s.dns))
    s.add("first", HttpRequest(ignore))
    s.it.make_request(s.first, HttpCommand.GET, "/")
    beside(s)


@scene("HttpRequest", "unmade")
def _(s: Scene) -> None:
    s.add("it", HttpRequest(ignore))
    s.it.output_headers["A"] = "b"
    s.add("body", Buffer(b"body"))


@scene("HttpRequest", "waiting")
def _(s: Scene) -> None:
    asking(s)
    s.it = s.second
    s.add("body", Buffer(b"body"))


@scene("HttpRequest", "under way")
def _(s: Scene) -> None:
    under_way(s)
    s.it = s.first
    s.add("body", Buffer(b"body"))


@scene("HttpRequest", "in its callback")
def _(s: Scene) -> None:
    under_way(s)
    s.it = s.first
    s.add("body", Buffer(b"body"))
    slot: list[Callable[..., None]] = [ignore]
    s.first._callback = lambda request: slot[0]()
    s.entered_by(lambda: s.server.send(b"67890"), slot)


@scene("HttpRequest", "in its header's callback")
def _(s: Scene) -> None:
    asking(s)
    s.it = s.first
    s.add("body", Buffer(b"body"))
    slot: list[Callable[..., None]] = [ignore]
    s.first._on_header = lambda request: slot[0]()
    answer_by(s)
    data = b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 10\r\n\r\n12345"
    s.entered_by(lambda: s.server.send(data), slot)


def in_parts(s: Scene, on_write: Callable[..., None], length: int | None) -> None:
    """Have a request under way whose body is sent in parts."""
    s.add("connection", HttpConnection(s.based(), "127.0.0.1", port()))
    s.add("it", HttpRequest(ignore, on_write=on_write))
    if length is not None:
        s.it.output_headers["Content-Length"] = str(length)
    s.connection.make_request(s.it, HttpCommand.POST, "/")
    s.add("body", Buffer(b"body"))


@scene("HttpRequest", "in parts, before there is a connection")
def _(s: Scene) -> None:
    in_parts(s, ignore, 4)


@scene("HttpRequest", "in parts")
def _(s: Scene) -> None:
    written: list[Any] = []
    in_parts(s, lambda request: written.append(1), None)
    s.run_until(lambda: written)


@scene("HttpRequest", "in parts, in its callback")
def _(s: Scene) -> None:
    slot: list[Callable[..., None]] = [ignore]
    in_parts(s, lambda request: slot[0](), None)
    s.entered_by(nothing, slot)


@scene("Headers")
def _(s: Scene) -> None:
    s.add("it", Headers([("A", "b"), ("A", "c")]))
    s.add("other", Headers([("D", "e")]))


@scene("Headers", "of a client's request")
def _(s: Scene) -> None:
    s.add("request", HttpRequest(ignore))
    s.it = s.request.output_headers
    s.it.update([("A", "b"), ("A", "c")])
    s.add("other", Headers([("D", "e")]))


@scene("Headers", "of a server's request")
def _(s: Scene) -> None:
    asked(s)
    s.it = s.request.output_headers
    s.it.update([("A", "b"), ("A", "c")])
    s.add("other", Headers([("D", "e")]))


@scene("Headers", "of a server's request in its handler")
def _(s: Scene) -> None:
    in_handler(s, lambda request: setattr(s, "it", request.output_headers))
    s.add("other", Headers([("D", "e")]))


@scene("Query")
def _(s: Scene) -> None:
    s.add("it", Query([("A", "b"), ("A", "c")]))
    s.add("other", Query([("D", "e")]))


@scene("Uri")
def _(s: Scene) -> None:
    s.add("it", Uri.parse("http://me@example.test:80/path?query#fragment"))
    s.add("other", Uri.parse("/path"))


# RPCs.


def called(name: bytes) -> bytes:
    """Return a request that calls *name*."""
    body = bytes(REQUEST)
    return b"POST /.rpc.%s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (name, len(body), body)


def procedures(s: Scene, handler: Callable[..., None]) -> int:
    """Make an RPC server; return its port."""
    number = serving(s, ignore)
    s.add("server", RpcServer(s.http))
    s.server.register("Message", Msg, Kill, handler)
    return number


def rpc_held(s: Scene) -> None:
    """Have a call whose handler has kept it."""
    held: list[Any] = []
    client_of(s, procedures(s, held.append), called(b"Message"))
    s.run_until(lambda: held)
    s.add("rpc", held.pop())
    s.rpc.reply.weapon, s.rpc.reply.action = "dagger", "throw"


@scene("RpcServer")
def _(s: Scene) -> None:
    rpc_held(s)
    s.it = s.server
    s.add("bare", HttpServer(s.base))


@scene("Rpc")
def _(s: Scene) -> None:
    rpc_held(s)
    s.it = s.rpc
    s.add("connection", s.rpc.connection)


@scene("Rpc", "in its handler")
def _(s: Scene) -> None:
    slot: list[Callable[..., None]] = [ignore]

    def handler(rpc: Any) -> None:
        s.add("it", rpc)
        rpc.reply.weapon, rpc.reply.action = "dagger", "throw"
        del rpc
        slot[0]()

    number = procedures(s, handler)
    s.entered_by(lambda: client_of(s, number, called(b"Message")), slot)


@scene("Rpc", "paused")
def _(s: Scene) -> None:
    held: list[Any] = []

    def pause(rpc: Any, _request: object, _buffer: object) -> RpcHookResult:
        held.append(rpc)
        return RpcHookResult.PAUSE

    number = procedures(s, answer)
    s.server.add_hook(RpcHook.INPUT, pause)
    client_of(s, number, called(b"Message"))
    s.run_until(lambda: held and held[0].paused)
    s.add("it", held.pop())


def pool(s: Scene) -> None:
    """Have a pool of one connection with a call under way, and one that waits."""
    s.add("pool", RpcPool(s.based()))
    s.add("connection", HttpConnection(s.base, "127.0.0.1", port()))
    s.pool.add_connection(s.connection)
    s.first = s.pool.call("Message", REQUEST, Kill, ignore)
    s.second = s.pool.call("Message", REQUEST, Kill, ignore)
    s.base.loop(ONCE_NOW)


@scene("RpcPool")
def _(s: Scene) -> None:
    pool(s)
    s.it = s.pool
    s.add("other", HttpConnection(s.base, "127.0.0.1", port()))


@scene("RpcPool", "idle")
def _(s: Scene) -> None:
    s.add("it", RpcPool(s.based()))
    s.add("connection", HttpConnection(s.base, "127.0.0.1", port()))
    s.it.add_connection(s.connection)
    s.add("other", HttpConnection(s.base, "127.0.0.1", port()))


@scene("RpcCall")
def _(s: Scene) -> None:
    pool(s)
    s.it = s.first


@scene("RpcCall", "waiting")
def _(s: Scene) -> None:
    pool(s)
    s.it = s.second


@scene("RpcCall", "paused")
def _(s: Scene) -> None:
    s.add("pool", RpcPool(s.based()))
    s.add("connection", HttpConnection(s.base, "127.0.0.1", port()))
    s.pool.add_connection(s.connection)
    s.pool.add_hook(RpcHook.OUTPUT, lambda *_: RpcHookResult.PAUSE)
    s.it = s.pool.call("Message", REQUEST, Kill, ignore)
    s.run_until(lambda: s.it.paused)


@scene("Message")
def _(s: Scene) -> None:
    s.it = Msg(from_name="niels", to_name="tester", run=[])
    s.add("buffer", Buffer())
