"""Random walks through HTTP, RPC and DNS, at both ends: each may end any other, at any time."""

from __future__ import annotations

import contextlib
import socket
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from libevent_py import (
    Buffer,
    BufferEvent,
    DnsResult,
    DnsServer,
    EventBase,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    HttpServer,
    Listener,
    RpcHook,
    RpcHookResult,
    RpcPool,
    RpcServer,
)
from tests.kit import worlds
from tests.kit.certificates import HOST
from tests.kit.rpc_messages import REPLY, REQUEST, Kill, Msg
from tests.kit.tls_peers import tls_contexts
from tests.kit.worlds import World
from tests.kit.worlds_of_names import NAMES, Names

CONTINUE, PAUSE, TERMINATE = RpcHookResult.CONTINUE, RpcHookResult.PAUSE, RpcHookResult.TERMINATE

#: What peers that know no HTTP send to a server, and answer a client.
SAID = [
    b"GET / HTTP/1.1\r\n\r\n" * 3,
    b"GET /chunks HTTP/1.0\r\n\r\n",
    b"POST /held HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345",
    b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"POST /.rpc.Hold HTTP/1.1\r\nContent-Length: 1\r\n\r\n\0",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes" * 2,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n",
    b"nonsense\r\n\r\n",
]


class Web(Names):
    """A world with servers and clients; each that waits for an answer is told once at most."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.webs: list[HttpServer] = []
        self.bound: list[Any] = []
        self.held: list[Any] = []
        self.peers: list[Any] = []
        self.requests: list[HttpRequest] = []
        self.rpc_servers: list[RpcServer] = []
        self.pools: list[RpcPool] = []
        self.calls: list[Any] = []
        self.dns_servers: list[DnsServer] = []
        self.questions: list[Any] = []
        #: The base of each that waits to be told, by its number.
        self.waits: dict[int, weakref.ref[EventBase]] = {}
        self.clients, self.server = tls_contexts()

    def step(self) -> None:
        kinds: list[list[Any]] = [self.webs, self.connections, self.pools, self.rpc_servers]
        for things in (*kinds, self.bound):
            if self.random.random() < 0.8:
                things[:] = [thing for thing in things if not thing.closed]
        super().step()

    def new_base(self, _: None) -> None:
        if len(self.bases) < 2:
            super().new_base(None)

    def close_base(self, base: EventBase) -> None:
        if self.random.random() < 0.2:
            super().close_base(base)

    def port(self) -> int:
        """Return a port where somebody listens, or nobody."""
        ports = [bound.address[1] for bound in self.bound if not bound.closed]
        return self.random.choice(ports) if ports else 9

    @contextlib.contextmanager
    def waiting(self, base: EventBase) -> Iterator[Callable[..., None]]:
        """Yield a callback that is to be told once, or *base* goes as nobody closes it.

        What a block raises was not made: nobody needs to be told of it.
        """
        number, told = len(self.told), self.tell()
        self.waits[number] = weakref.ref(base)
        try:
            yield told
        except BaseException:
            if not self.told[number]:
                del self.waits[number]
            raise

    # HTTP servers.

    def new_web(self, base: EventBase) -> None:
        if len(self.webs) > 5:
            return
        web = HttpServer(base)
        self.webs.append(web)
        self.bound.append(web.bind_socket("127.0.0.1", 0))
        for path, handler in (("/held", self.hold), ("/chunks", self.begin), ("/bye", self.bye)):
            web.set_cb(path, handler)
        web.set_gencb(self.serve)
        if self.random.random() < 0.3:
            web.set_bevcb(self.tls_bev)
        web.timeout = self.random.choice([None, 0.005, 5])

    def hold(self, request: Any) -> None:
        self.held.append(request)
        self.callback()

    def serve(self, request: Any) -> None:
        if self.random.random() < 0.3:
            request.on_complete = self.callback
        self.watch(request)
        self.callback()
        body = self.random.choice([b"", b"x" * 9, b"x" * 200_000, Buffer(b"buffer")])
        self.attempt(lambda: request.send_reply(self.random.choice([200, 204, 304]), None, body))
        self.callback()

    def bye(self, request: Any) -> None:
        self.callback()
        if self.random.random() < 0.5:
            request.send_error(self.random.choice([400, 404, 500]))

    def begin(self, request: Any) -> None:
        self.watch(request)
        request.send_reply_start(200)
        self.callback()
        self.held.append(request)
        self.attempt(lambda: self.chunk(request))

    def chunk(self, request: Any) -> None:
        data = self.random.choice([b"", b"y" * 10, b"y" * 100_000])
        request.send_reply_chunk(data, self.random.choice([None, self.written]))

    def written(self, request: Any) -> None:
        self.callback()
        self.attempt(
            self.random.choice([lambda: self.chunk(request), lambda: request.send_reply_end()])
        )

    def answer_held(self, request: Any) -> None:
        answer: Callable[[], object] = self.random.choice(
            [
                lambda: self.serve(request),
                lambda: self.begin(request),
                lambda: self.chunk(request),
                lambda: request.send_reply_end(),
                lambda: self.watch(request),
                lambda: request.send_reply(200, None, request.input_buffer),
            ]
        )
        answer()

    def watch(self, request: Any) -> None:
        if self.random.random() < 0.3 and (peer := request.connection):
            peer.on_close = self.callback
            self.peers.append(peer)
            self.attempt(lambda: self.buffers.append(peer.bufferevent.output))

    def change_web(self, web: HttpServer) -> None:
        change: Callable[[], object] = self.random.choice(
            [
                lambda: web.set_bevcb(self.random.choice([None, self.bev, self.tls_bev])),
                lambda: web.add_virtual_host("*.example", self.random.choice(self.webs)),
                lambda: [web.remove_virtual_host(each) for each in web.virtual_hosts],
                lambda: self.forget(web),
                lambda: web.set_cb("/held", self.hold),
                lambda: web.set_gencb(None),
                lambda: web.set_gencb(self.serve),
                lambda: web.bound_sockets[0].close(),
                lambda: self.bound.append(web.bind_socket("127.0.0.1", 0)),
                lambda: self.listeners.append(Listener(web.base, ("127.0.0.1", 0), None)),
                lambda: web.bind_listener(self.random.choice(self.listeners)),
                lambda: setattr(web, "max_body_size", self.random.choice([5, 10**6])),
            ]
        )
        change()

    def bev(self, base: EventBase) -> BufferEvent | None:
        self.callback()
        if self.random.random() < 0.2:
            return None
        return BufferEvent(base, -1, self.options())

    def tls_bev(self, base: EventBase) -> BufferEvent:
        self.callback()
        return BufferEvent.tls(base, -1, self.server, options=self.options())

    # HTTP clients.

    def new_connection(self, base: EventBase) -> None:
        bev, way = None, self.random.random()
        if way < 0.2:
            bev = BufferEvent(base, -1, self.options())
        elif way < 0.5:
            context = self.random.choice(self.clients)
            options = self.options()
            bev = BufferEvent.tls(base, -1, context, server_hostname=HOST, options=options)
        resolver, host = None, "127.0.0.1"
        if self.resolvers and self.random.random() < 0.4:
            resolver, host = self.random.choice(self.resolvers), self.random.choice(NAMES)
        connection = HttpConnection(base, host, self.port(), dns_base=resolver, bufferevent=bev)
        connection.retries = self.random.choice([0, 0, 2])
        connection.initial_retry = 0.001
        connection.timeout = self.random.choice([0.005, 5, 5])
        connection.on_close = self.callback
        if self.random.random() < 0.2:
            connection.free_on_completion()
        self.connections.append(connection)

    def ask(self, connection: HttpConnection) -> None:
        with self.waiting(connection.base) as told:
            seen: Any = self.random.choice([None, self.seen])
            request = HttpRequest(told, on_header=seen, on_chunk=seen, on_error=seen)
            request.output_headers["Host"] = self.random.choice(["a.example", "b"])
            command = self.random.choice([HttpCommand.GET, HttpCommand.POST, HttpCommand.HEAD])
            if command is HttpCommand.POST:
                request.output_buffer.add(b"z" * self.random.choice([1, 100_000]))
            if self.random.random() < 0.2:
                request.output_headers["Connection"] = "close"
            path = self.random.choice(["/", "/", "/held", "/chunks", "/bye", "/.rpc.Hold"])
            self.requests.append(request)
            connection.make_request(request, command, path)

    def seen(self, *_: object) -> Any:
        self.callback()
        return self.random.random() < 0.9

    # RPC.

    def new_rpc_server(self, web: HttpServer) -> None:
        server = RpcServer(web)
        server.register("Message", Msg, Kill, self.reply)
        server.register("Hold", Msg, Kill, self.hold_rpc)
        if self.random.random() < 0.5:
            server.add_hook(self.random.choice(list(RpcHook)), self.hook)
        self.rpc_servers.append(server)

    def forget(self, web: HttpServer) -> None:
        with contextlib.suppress(KeyError):
            web.del_cb("/held")

    def unregister(self, server: RpcServer) -> None:
        with contextlib.suppress(KeyError):
            server.unregister("Hold")

    def reply(self, rpc: Any) -> None:
        self.callback()
        rpc.reply = REPLY
        self.attempt(rpc.done)
        self.callback()

    def hold_rpc(self, rpc: Any) -> None:
        self.questions.append(rpc)
        self.callback()

    def hook(self, context: Any, request: Any, buffer: Any) -> RpcHookResult:
        self.callback()
        if self.random.random() < 0.2:
            self.questions.append(context)
        if self.random.random() < 0.3:
            self.attempt(lambda: request.connection)
        return self.random.choice([CONTINUE, CONTINUE, CONTINUE, PAUSE, TERMINATE])

    def new_pool(self, base: EventBase) -> None:
        pool = RpcPool(base)
        if self.random.random() < 0.3:
            pool.add_hook(self.random.choice(list(RpcHook)), self.hook)
        self.pools.append(pool)
        self.fill(pool)

    def fill(self, pool: RpcPool) -> None:
        self.new_connection(pool.base)
        pool.add_connection(self.random.choice(self.connections))

    def call(self, pool: RpcPool) -> None:
        name = self.random.choice(["Message", "Message", "Hold", "Nobody"])
        with self.waiting(pool.base) as told:
            self.calls.append(pool.call(name, REQUEST, Kill, told))

    def answer_rpc(self, rpc: Any) -> None:
        answer: Callable[[], object] = self.random.choice(
            [
                lambda: self.reply(rpc),
                lambda: rpc.resume(),
                lambda: rpc.resume(TERMINATE),
                lambda: rpc.close(),
                lambda: rpc.connection.close(),
                lambda: self.callback(rpc.http_request.input_headers),
            ]
        )
        answer()

    # DNS servers.

    def new_dns_server(self, base: EventBase) -> None:
        if len(self.dns_servers) > 5:
            return
        server = DnsServer(base, ("127.0.0.1", 0), self.question)
        self.dns_servers.append(server)
        for dns in self.resolvers:
            self.attempt(lambda dns=dns: dns.nameserver_sockaddr_add(server.address))  # type: ignore[misc]

    def question(self, request: Any) -> None:
        self.questions.append(request)
        self.callback()
        if self.random.random() < 0.6:
            request.add_a_reply(request.questions[0].name, "127.0.0.1", 1)
            request.respond()
        self.callback()

    def respond(self, request: Any) -> None:
        request.respond(self.random.choice(list(DnsResult)[:6]))

    # What peers do that know no HTTP.

    def speak(self, _: None) -> None:
        peer = socket.create_connection(("127.0.0.1", self.port()), 5)
        self.sockets.append(peer)
        peer.setblocking(False)
        peer.send(self.random.choice(SAID))

    def send(self, sock: socket.socket) -> None:
        if self.random.random() < 0.2:
            sock.shutdown(socket.SHUT_WR)
        elif self.random.random() < 0.5 and sock.type == socket.SOCK_STREAM:
            sock.send(self.random.choice(SAID))
        else:
            super().send(sock)

    def new_listener(self, base: EventBase) -> None:
        def accept(listener: Listener, fd: int, _address: object) -> None:
            self.callback()
            bev = BufferEvent(listener.base, fd)
            self.keep(bev)
            bev.write(self.random.choice(SAID))

        if len(self.listeners) < 5:
            self.listeners.append(Listener(base, ("127.0.0.1", 0), accept))
            self.bound.append(self.listeners[-1])

    def drop(self, thing: None) -> None:
        kinds: list[list[Any]] = [
            *(self.webs, self.held, self.held, self.peers, self.requests, self.rpc_servers),
            *(self.pools, self.calls, self.dns_servers, self.questions, self.questions),
        ]
        things = self.random.choice(kinds)
        if things:
            del things[self.random.randrange(len(things))]
        super().drop(thing)

    OPERATIONS: ClassVar[list[tuple[str, Callable[[Any, Any], object]]]] = [
        *[what for what in Names.OPERATIONS if what[1] is not World.close_base],
        ("bases", close_base),
        *[("bases", World.loop)] * 30,
        *[("bases", new_web)] * 3,
        *[("webs", change_web)] * 3,
        ("webs", lambda world, web: world.random.random() < 0.5 and web.close()),
        *[("webs", new_rpc_server)] * 2,
        *[("held", answer_held)] * 8,
        *[("peers", lambda world, peer: world.random.random() < 0.5 and peer.close())] * 2,
        ("peers", lambda world, peer: (peer.peer, peer.address)),
        *[("bases", new_connection)] * 4,
        *[("connections", ask)] * 14,
        ("connections", lambda world, connection: connection.bufferevent.input),
        *[("requests", lambda world, request: request.cancel())] * 2,
        ("requests", lambda world, request: request.close()),
        ("requests", lambda world, request: world.buffers.append(request.input_buffer)),
        ("rpc_servers", lambda world, server: world.random.random() < 0.4 and server.close()),
        ("rpc_servers", unregister),
        ("rpc_servers", lambda world, server: server.register("Hold", Msg, Kill, world.hold_rpc)),
        *[("bases", new_pool)] * 2,
        *[("pools", fill)] * 2,
        *[("pools", call)] * 10,
        ("pools", lambda world, pool: pool.remove_connection(pool.connections[0])),
        ("pools", lambda world, pool: world.random.random() < 0.4 and pool.close()),
        *[("questions", answer_rpc)] * 5,
        *[("calls", answer_rpc)] * 3,
        *[("bases", new_dns_server)] * 2,
        *[("questions", respond)] * 3,
        ("dns_servers", lambda world, server: world.random.random() < 0.4 and server.close()),
        *[("", speak)] * 6,
    ]

    def attempt(self, function: Callable[[], object]) -> None:
        try:
            super().attempt(function)
        except (AttributeError, IndexError) as error:
            if not raised_here(error):
                raise  # else it was a thing of another kind, or there was none

    def check(self) -> None:
        """Check that all have been told whose bases have been closed."""
        for number, ref in self.waits.items():
            base = ref()
            if base is not None and base.closed:
                assert self.told[number] == 1, f"never told: {number}"


def raised_here(error: BaseException) -> bool:
    """Tell whether *error* was raised by what is not libevent_py's."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and "/libevent_py/" not in traceback.tb_frame.f_code.co_filename


def walks(seeds: range, steps: int) -> None:
    """Take a walk for each of *seeds*, and check that nothing is left of them."""
    worlds.walks(seeds, steps, Web)
