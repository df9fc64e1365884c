"""Targets over HTTP: requests to a server, responses to a client, and RPCs both ways."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

from libevent_py import (
    ClosedError,
    EventBase,
    HttpCommand,
    HttpConnection,
    HttpError,
    HttpRequest,
    HttpServer,
    HttpServerFlag,
    HttpServerRequest,
    LoopFlag,
    Rpc,
    RpcPool,
    RpcServer,
)
from tests.kit.parsers.checked import Ends, Fault, based
from tests.kit.parsers.inputs import Choices
from tests.kit.peers import reset
from tests.kit.rpc_messages import REPLY, REQUEST, Kill, Msg

STATUS = re.compile(rb"HTTP/\d\.\d (\d{3}) ")

#: Hosts on loopback, one for each connection: none finds the remains of an earlier one.
hosts = (
    f"127.{a}.{b}.{c}"
    for a, b, c in itertools.cycle(itertools.product(range(1, 250), range(250), range(1, 250)))
)


def turn(base: EventBase, times: int = 3) -> None:
    """Run the loop until it has done what there is to do."""
    for _ in range(times):
        base.loop(LoopFlag.NONBLOCK)


class Told:
    """What a server's handlers have been told of a request."""

    def __init__(self) -> None:
        self.head: tuple[Any, ...] = ()
        self.body = b""
        self.handled = 0

    def told(self) -> tuple[Any, ...]:
        return (*self.head, self.body, self.handled)


class Server:
    """A server that looks at everything there is of a request, and answers as *mode* says."""

    def __init__(self, base: EventBase, mode: int) -> None:
        self.base, self.mode = base, mode
        self.ends = Ends()
        self.requests: list[Told] = []
        #: Those that still wait for an answer.
        self.waiting: list[HttpServerRequest] = []
        self._begun: dict[HttpServerRequest, Told] = {}
        self.http = HttpServer(base)
        self.http.set_gencb(self.handle)
        self.http.set_cb("/one", self.handle)
        self.http.allowed_methods = HttpCommand(0x1FF)
        other = HttpServer(base)
        other.set_gencb(self.handle)
        self.http.add_virtual_host("*.example", other)
        other.add_server_alias("Other")
        self.http.on_headers = self.begin
        if mode & 8:
            self.http.max_headers_size = 300
            self.http.max_body_size = 40
        if mode & 16:
            self.http.flags = HttpServerFlag.LINGERING_CLOSE
        self.host = next(hosts)
        self.port = self.http.bind_socket(self.host, 0).port

    def begin(self, request: HttpServerRequest) -> None:
        """Note that a request's headers have come."""
        told = Told()
        told.head = look_at(request)
        self.requests.append(told)
        self._begun[request] = told
        request.on_end = self.ends.begin()
        if self.mode & 1:
            request.on_chunk = self.take

    def take(self, request: HttpServerRequest) -> None:
        self._begun[request].body += bytes(request.input_buffer)

    def handle(self, request: HttpServerRequest) -> None:
        """Answer, now or later."""
        told = self._begun.pop(request, None)
        if told is None:
            raise Fault("on_headers has not been called for a request")
        if told.head != look_at(request):
            raise Fault("a request has changed since its headers came")
        told.body += bytes(request.input_buffer)
        told.handled += 1
        self.waiting.append(request)
        if not self.mode & 2:
            self.answer()

    def answer(self) -> None:
        """Answer all that wait."""
        while self.waiting:
            request = self.waiting.pop()
            how = self.mode >> 5
            if request.closed:
                continue
            if how == 1:
                request.send_reply_start(200)
                request.send_reply_chunk(b"a part")
                request.send_reply_end()
            elif how == 2:
                request.send_error(404)
            elif how == 3:
                request.close()
            elif how == 4:
                raise LookupError("no answer")
            elif how == 5:
                request.send_reply(204)
            elif how == 6:
                connection = request.connection
                if connection is not None:
                    connection.close()
            else:
                request.output_headers["X-Long"] = "x" * 100
                request.send_reply(200, "Fine", b"an answer")


def look_at(request: HttpServerRequest) -> tuple[Any, ...]:
    """Return all that a request says of itself."""
    items = request.input_headers.items()
    for name, _ in items:
        if name not in request.input_headers:
            raise Fault(f"{name!r} is not there")
    uri = request.evhttp_uri
    if uri is not None:
        repr(uri)
    return request.command, request.uri, request.host, request.version, items


class Client:
    """A socket that a server of ours or a peer of its client's has, with what has come."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)
        self.received = b""

    def send(self, piece: bytes) -> None:
        """Send what the other end takes."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self.sock.send(piece)

    def take(self) -> None:
        """Take what has come."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while data := self.sock.recv(65536):
                self.received += data


def _serve(mode: int, pieces: list[bytes]) -> tuple[list[tuple[Any, ...]], list[bytes]]:
    """Give a server a request in *pieces*; return what it was told, and what it has answered."""
    with based(LookupError) as base:
        server = Server(base, mode)
        client = Client(socket.create_connection((server.host, server.port)))
        try:
            turn(base)
            for piece in pieces:
                client.send(piece)
                turn(base)
                client.take()
            for _ in range(20):  # of those that came together each is told once the last is done
                if not server.waiting:
                    break
                with contextlib.suppress(LookupError):
                    server.answer()
                turn(base)
                client.take()
            with contextlib.suppress(OSError):
                client.sock.shutdown(socket.SHUT_WR)
            turn(base)
            client.take()
            if mode & 4:
                server.http.close()
                turn(base)
        finally:
            reset(client.sock)
        turn(base)
    server.ends.check()
    return [told.told() for told in server.requests], STATUS.findall(client.received)


def requests(data: bytes) -> None:
    """Give a server the bytes of requests: it is told the same in pieces as in one."""
    choices = Choices(data)
    mode = choices.byte()
    pieces = choices.pieces()
    told = _serve(mode, pieces)
    if len(pieces) > 1:
        whole = _serve(mode, [b"".join(pieces)])
        if told[0] != whole[0]:
            raise Fault(f"in pieces it is {told}, and in one {whole}")


COMMANDS = [
    *(HttpCommand.GET, HttpCommand.HEAD, HttpCommand.POST, HttpCommand.CONNECT),
    *(HttpCommand.OPTIONS, HttpCommand.PUT, HttpCommand.TRACE, HttpCommand.DELETE),
]


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    """Yield a socket that accepts connections, and does not wait for any."""
    with socket.create_server((next(hosts), 0)) as listener:
        listener.setblocking(False)
        yield listener


class Peer:
    """What a client takes for a server: it says whatever it is given."""

    def __init__(self, base: EventBase, listener: socket.socket) -> None:
        self.base, self.listener = base, listener
        self.clients: list[Client] = []

    def accept(self) -> None:
        """Accept who has come."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.clients.append(Client(self.listener.accept()[0]))

    def say(self, pieces: list[bytes]) -> None:
        """Send *pieces* to who has come last."""
        for piece in pieces:
            turn(self.base)
            self.accept()
            if self.clients:
                self.clients[-1].send(piece)
                turn(self.base)
                self.clients[-1].take()

    def close(self, hard: bool) -> None:
        """Close all connections, or *hard* reset them."""
        while self.clients:
            client = self.clients.pop()
            if not hard:
                with contextlib.suppress(OSError):
                    client.sock.shutdown(socket.SHUT_WR)
                turn(self.base)
            reset(client.sock)
        turn(self.base)


class Asked:
    """A request of a client that notes what it is told."""

    def __init__(self, ends: Ends, mode: int) -> None:
        self.parts = b""
        self.body: bytes | None = None
        self.failures = 0
        self._end = ends.begin()
        self.request = HttpRequest(
            self.done,
            on_header=self.look if mode & 16 else None,
            on_chunk=self.take if mode & 8 else None,
            on_error=self.fail,
            on_informational=self.inform if mode & 16 else None,
        )

    def look(self, request: HttpRequest) -> None:
        _ = request.response_code, request.response_code_line, request.version
        request.input_headers.items()

    def inform(self, _request: HttpRequest, _code: int, headers: Any) -> None:
        headers.items()

    def take(self, request: HttpRequest) -> None:
        self.parts += bytes(request.input_buffer)

    def fail(self, _request: HttpRequest, _code: int) -> None:
        self.failures += 1

    def done(self, request: HttpRequest) -> None:
        self._end()
        if request.error is None:
            self.look(request)
            self.body = self.parts + bytes(request.input_buffer)
        elif not isinstance(request.error, HttpError):
            raise Fault(f"a request ends with {request.error!r}")

    def told(self) -> tuple[Any, ...]:
        if self.failures > 1:
            raise Fault("on_error was called twice")
        error = self.request.error
        return self.body, error is None


def _ask(command: HttpCommand, mode: int, pieces: list[bytes]) -> list[tuple[Any, ...]]:
    """Give a client a response in *pieces*; return what its requests have been told."""
    ends = Ends()
    with based() as base, listening() as listener:
        host, port = listener.getsockname()
        connection = HttpConnection(base, host, port)
        if mode & 128:
            connection.max_headers_size, connection.max_body_size = 200, 40
        asked = [Asked(ends, mode) for _ in range(2 if mode & 64 else 1)]
        for one in asked:
            one.request.output_headers["Host"] = "a"
            uri = "a.example:443" if command == HttpCommand.CONNECT else "/"
            connection.make_request(one.request, command, uri)
        peer = Peer(base, listener)
        turn(base)
        peer.accept()
        peer.say(pieces)
        if mode & 32:
            connection.close()
            turn(base)
        peer.close(hard=False)
        connection.close()
        turn(base)
        peer.accept()
        peer.close(hard=True)
    ends.check()
    return [one.told() for one in asked]


def responses(data: bytes) -> None:
    """Give a client the bytes of a response: it is told the same in pieces as in one."""
    choices = Choices(data)
    mode = choices.byte()
    command = COMMANDS[mode & 7]
    pieces = choices.pieces()
    told = _ask(command, mode, pieces)
    if len(pieces) > 1 and not mode & 64:
        whole = _ask(command, mode, [b"".join(pieces)])
        if told != whole:
            raise Fault(f"in pieces it is {told}, and in one {whole}")


def calls(data: bytes) -> None:
    """Give an RPC server the body of a call, or all that follows the request line."""
    choices = Choices(data)
    mode = choices.byte()
    pieces = choices.pieces()
    waiting: list[Rpc] = []
    begun = 0

    def handle(rpc: Rpc) -> None:
        nonlocal begun
        begun += 1
        if rpc.request != Msg.unmarshal(bytes(rpc.request)):
            raise Fault("a request is not what was sent")
        how = mode >> 4 & 3
        if how == 1:
            rpc.fail()
        elif how == 2:
            waiting.append(rpc)
        elif how == 3:
            raise LookupError("no answer")
        else:
            rpc.reply = REPLY
            rpc.done()

    with based(LookupError) as base:
        http = HttpServer(base)
        server = RpcServer(http)
        server.register("Message", Msg, Kill, handle)
        host = next(hosts)
        port = http.bind_socket(host, 0).port
        client = Client(socket.create_connection((host, port)))
        try:
            turn(base)
            head = b"POST /.rpc.Message HTTP/1.1\r\nHost: a\r\n"
            if not mode & 1:
                head += b"Content-Length: %d\r\n\r\n" % sum(map(len, pieces))
            for piece in [head, *pieces]:
                client.send(piece)
                turn(base)
                client.take()
            for rpc in waiting:
                with contextlib.suppress(ClosedError):
                    rpc.reply = REPLY
                    rpc.done()
            if mode & 4:
                server.close()
            turn(base)
            client.take()
        finally:
            reset(client.sock)
        turn(base)
    statuses = STATUS.findall(client.received)
    if not mode & 5 and statuses not in ([b"200"], [b"503"]):
        raise Fault(f"a call is answered with {statuses}")
    if begun and not mode & 1 and begun != 1:
        raise Fault(f"a call was told {begun} times")


def replies(data: bytes) -> None:
    """Give an RPC client the body of a reply, or the whole response."""
    choices = Choices(data)
    mode = choices.byte()
    pieces = choices.pieces()
    ends = Ends()

    def ended() -> Callable[[Any], None]:
        end = ends.begin()

        def told(call: Any) -> None:
            end()
            if call.reply is not None and call.reply != Kill.unmarshal(bytes(call.reply)):
                raise Fault("a reply is not what was sent")

        return told

    with based() as base, listening() as listener:
        pool = RpcPool(base)
        pool.add_connection(HttpConnection(base, *listener.getsockname()))
        for _ in range(1 + (mode >> 1 & 1)):
            pool.call("Message", REQUEST, Kill, ended())
        peer = Peer(base, listener)
        turn(base)
        peer.accept()
        if not mode & 1:
            size = sum(map(len, pieces))
            pieces.insert(0, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        peer.say(pieces)
        if mode & 4:
            pool.close()
        peer.close(hard=bool(mode & 8))
        peer.accept()
        pool.close()
        turn(base)
        peer.close(hard=True)
    ends.check()
