"""What libevent's own tests of HTTP share: the server with its handlers, and clients.

libevent's tests count all successful checks in one number; these check each by itself. Replies that
are read from a socket are parsed in Python, as libevent's own parser is not public.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    DnsBase,
    DnsBaseFlag,
    DnsServer,
    DnsServerRequest,
    DnsType,
    EventBase,
    EventFlag,
    HttpCommand,
    HttpConnection,
    HttpConnectionFlag,
    HttpError,
    HttpServer,
    HttpServerRequest,
    TlsContext,
)
from libevent_py._ffi import ffi, lib
from tests.kit.flags import CLOSE, DEFER
from tests.kit.http_peers import Asked
from tests.kit.peers import connected
from tests.kit.web import parsed

if TYPE_CHECKING:
    from tests.kit.tls_peers import Contexts

FINE = "Everything is fine"
BODY = b"This is funny"
CHUNKS = (b"This is funny", b"but not hilarious.", b"bwv 1052")
DISPATCHED = b"DISPATCHER_TEST"
POST_DATA = b"Okay.  Not really printf"
PUT_DATA = b"Hi, I'm some PUT data"
PUT_ANSWER = b"That ain't funny"

#: More bytes than a connection takes at once.
LONG = (3 << 20) - 1


def request(path: str, *headers: str, method: str = "GET", host: str = "somehost") -> bytes:
    """Return a request after which the server closes the connection."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


class Site:
    """The server of all tests, of HTTPS if there are *contexts*, and what its handlers see."""

    def __init__(
        self,
        base: EventBase,
        contexts: Contexts | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        gencb: Callable[[HttpServerRequest], object] | None = None,
    ) -> None:
        self.base = base
        self.host = host
        self.client_context = None if contexts is None else contexts.client
        #: The headers of the last request that `basic` has answered.
        self.headers: dict[str, str] = {}
        #: How many late replies have been sent, and how many replies have been written.
        self.replied = self.completed = 0
        #: What is called while a reply of /largedelay is awaited.
        self.meanwhile: Callable[[], object] = lambda: None
        self.server = HttpServer(base)
        self.port = self.bind(port)
        if contexts is not None:
            self.server.set_bevcb(lambda base: bufferevent(base, -1, contexts.server))
        self.server.set_gencb(gencb)
        for path, handler in {
            "/test": self.basic,
            "/test nonconformant": self.basic,
            "/timeout": self.timeout,
            "/large": self.large,
            "/chunked": self.chunked,
            "/streamed": self.chunked,
            "/postit": self.post,
            "/putit": self.put,
            "/deleteit": self.delete,
            "/delay": self.delay,
            "/largedelay": self.large_delay,
            "/badrequest": self.greet,
            "/oncomplete": self.on_complete,
            "/": self.dispatcher,
        }.items():
            self.server.set_cb(path, handler)

    def bind(self, port: int = 0) -> int:
        """Listen on one *port* more, and return it."""
        return self.server.bind_socket(self.host, port).port

    def basic(self, request: HttpServerRequest) -> None:
        self.headers = dict(request.input_headers.items())
        connection = request.connection
        assert connection is not None
        assert connection.server is self.server
        assert connection.address[0] == self.host
        if "X-Negative" in self.headers:
            request.output_headers["Content-Length"] = "-100"
            request.output_buffer.add(BODY)

            def send(pointer: Any) -> int:
                lib.evhttp_send_reply(pointer, 200, FINE.encode(), ffi.NULL)
                return 0

            request._sent(None, send)
            return
        request.send_reply(200, FINE, b"" if "Empty" in self.headers else BODY)

    def _later(self, request: HttpServerRequest, wait: float) -> None:
        def reply(_fd: int, _what: int) -> None:
            self.replied += 1
            request.send_reply(200, FINE)

        self.base.once(reply, timeout=wait)

    def timeout(self, request: HttpServerRequest) -> None:
        self._later(request, 0.0001)

    def delay(self, request: HttpServerRequest) -> None:
        self._later(request, 0.2)

    def large_delay(self, request: HttpServerRequest) -> None:
        self._later(request, 0.5)
        self.meanwhile()

    def large(self, request: HttpServerRequest) -> None:
        request.send_reply(200, FINE, BODY * (1 << 20))

    def chunked(self, request: HttpServerRequest) -> None:
        if request.uri == "/streamed":
            request.output_headers["Content-Length"] = str(len(b"".join(CHUNKS)))
        request.send_reply_start(200, FINE)
        chunks = list(CHUNKS)

        def trickle(_fd: int, _what: int) -> None:
            request.send_reply_chunk(chunks.pop(0))
            if chunks:
                self.base.once(trickle, timeout=0)
            else:
                request.send_reply_end()

        self.base.once(trickle, timeout=0)

    def post(self, request: HttpServerRequest) -> None:
        assert request.command == HttpCommand.POST
        assert bytes(request.input_buffer) == POST_DATA
        request.send_reply(200, FINE, BODY)

    def put(self, request: HttpServerRequest) -> None:
        assert request.command == HttpCommand.PUT
        assert bytes(request.input_buffer) == PUT_DATA
        request.send_reply(200, "Everything is great", PUT_ANSWER)

    def delete(self, request: HttpServerRequest) -> None:
        assert request.command == HttpCommand.DELETE
        request.send_reply(200, FINE, b"" if "Empty" in request.input_headers else BODY)

    def greet(self, request: HttpServerRequest) -> None:
        request.output_headers["Content-Type"] = "text/xml; charset=UTF-8"
        request.send_reply(200, "OK", b"Hello, 127.0.0.1!")

    def on_complete(self, request: HttpServerRequest) -> None:
        def sent(request: HttpServerRequest) -> None:
            assert len(request.output_buffer) == 0
            self.completed += 1

        request.on_complete = sent
        request.send_reply(200, FINE, BODY)

    def dispatcher(self, request: HttpServerRequest) -> None:
        request.send_reply(200, FINE, DISPATCHED)


class Names:
    """A name server that knows one *address* of localhost, and a resolver that asks it alone."""

    def __init__(self, base: EventBase, address: str = "127.0.0.1") -> None:
        self.address = address
        self.asked = 0
        self.server = DnsServer(base, ("127.0.0.1", 0), self._answer)
        self.dns = DnsBase(base, DnsBaseFlag(0))
        self.dns.nameserver_sockaddr_add(self.server.address)

    def _answer(self, request: DnsServerRequest) -> None:
        (question,) = request.questions
        assert question.name.lower() == "localhost"
        self.asked += 1
        if ":" in self.address and question.type == DnsType.AAAA:
            request.add_aaaa_reply(question.name, self.address, 100)
        elif ":" not in self.address and question.type == DnsType.A:
            request.add_a_reply(question.name, self.address, 100)
        request.respond()

    def time_out(self, seconds: float) -> None:
        """Ask once, and wait for an answer no longer than *seconds*."""
        self.dns.set_option("timeout", seconds)
        self.dns.set_option("initial-probe-timeout", seconds)
        self.dns.set_option("attempts", 1)


class Raw:
    """A client of *site* that writes each of *said* once the one before is written, then reads.

    It ends the loop, or does whatever `then` is, when *until* has come; or ends it when the
    connection ends. When *filtering*, it speaks TLS on another bufferevent.
    """

    def __init__(
        self,
        site: Site,
        *said: bytes,
        port: int | None = None,
        until: bytes | None = None,
        filtering: bool = False,
    ) -> None:
        self.base = site.base
        self.said = list(said)
        self.until = until
        self.then: Callable[[], object] = self.stop
        #: What is called when all has been written.
        self.after: Callable[[], object] = lambda: None
        self.received = b""
        #: How often all that was said had been written.
        self.written = 0
        #: How the connection has ended, or None.
        self.ended: BufferEventFlag | None = None
        sock = connected((site.host, site.port if port is None else port))
        self._sock = sock.dup()
        self.bev = bufferevent(site.base, sock.detach(), site.client_context, filtering)
        self.bev.setcb(self._read, self._write, self._event)
        if self.said:
            self.bev.write(self.said.pop(0))
        else:
            self.bev.enable(EventFlag.READ)

    def _write(self, bev: BufferEvent) -> None:
        if len(bev.output) == 0:
            self.written += 1
            if self.said:
                bev.write(self.said.pop(0))
            else:
                self.after()
            bev.enable(EventFlag.READ)

    def _read(self, bev: BufferEvent) -> None:
        self.received += bev.read()
        if self.until is not None and self.until in self.received:
            self.until = None
            self.then()

    def _event(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        if what & BufferEventFlag.CONNECTED:
            return
        self.received += bev.read()
        self.ended = what
        self.base.loopexit()

    def stop(self) -> None:
        """Read no more, and end the loop."""
        self.bev.disable(EventFlag.READ)
        self.base.loopexit()

    def shut(self) -> None:
        """Say no more."""
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()
        self.bev.close()

    def run(self) -> Raw:
        """Run the loop, and close the connection when it has ended."""
        try:
            self.base.dispatch()
        finally:
            self.close()
        return self

    @property
    def answer(self) -> tuple[str, dict[str, str], bytes]:
        """The status line, the headers and the body of the reply."""
        return parsed(self.received)


def bufferevent(
    base: EventBase, fd: int, context: TlsContext | None, filtering: bool = False
) -> BufferEvent:
    """Return a bufferevent of either side, to which an end without notice is just an end (I6)."""
    options = CLOSE | DEFER
    if context is None:
        return BufferEvent(base, fd, options)
    if filtering:
        bev = BufferEvent.tls_filter(BufferEvent(base, fd, options), context, options=options)
    else:
        bev = BufferEvent.tls(base, fd, context, options=options)
    bev.allow_dirty_shutdown = True
    return bev


def connection(site: Site, bev: BufferEvent | None = None) -> HttpConnection:
    """Return a client's connection to *site*, to be made, by *bev* if there is one."""
    if bev is None and site.client_context is not None:
        bev = bufferevent(site.base, -1, site.client_context)
    return HttpConnection(site.base, site.host, site.port, bufferevent=bev)


def ask(
    connection: HttpConnection,
    uri: str,
    command: HttpCommand = HttpCommand.GET,
    body: bytes = b"",
    **headers: str,
) -> Asked:
    """Make a request on *connection*, with *headers* and a Host, and run the loop to its end.

    The names of headers have underscores for what are hyphens in them.
    """
    asked = Asked()
    asked.then = lambda request: connection.base.loopexit()
    for name, value in {"Host": "somehost", **headers}.items():
        asked.request.output_headers[name.replace("_", "-")] = value
    asked.on(connection, uri, command, body)
    assert connection.base.dispatch()
    assert asked.ended == 1
    return asked


def funny(asked: Asked, body: bytes = BODY) -> None:
    """Have the answer be one of the server's, with *body*."""
    assert asked.error is None
    assert asked.code == 200
    assert "Content-Type" in dict(asked.headers)
    assert asked.body == body


def empty(asked: Asked) -> None:
    """Have the answer be one of the server's, without a body."""
    assert asked.error is None
    assert asked.code == 200
    headers = dict(asked.headers)
    assert "Date" in headers
    assert headers["Content-Length"] == "0"
    assert asked.body == b""


def failed(asked: Asked) -> None:
    """Have there be no whole answer."""
    assert isinstance(asked.error, HttpError)


def refused(code: int) -> Callable[[Asked], None]:
    """Return what has an answer be one with the status *code*."""

    def check(asked: Asked) -> None:
        assert asked.error is None
        assert asked.code == code

    return check


def data_length_constraints(base: EventBase, *, read_on_write_error: bool) -> None:
    """Send what the server finds too long, part by part.

    A client that can't write all, as the server has closed the connection, hears why only with
    *read_on_write_error*.
    """
    long = b"a" * LONG
    site = Site(base)

    def unheard(code: int) -> Callable[[Asked], None]:
        return refused(code) if read_on_write_error else failed

    with connection(site) as evcon:
        if read_on_write_error:
            evcon.flags = HttpConnectionFlag.READ_ON_WRITE_ERROR
        evcon.local_address = "127.0.0.1"
        site.server.max_headers_size = LONG
        refused(400)(ask(evcon, "/?arg=val", Longheader=long.decode()))
        refused(400)(ask(evcon, long.decode()))

        site.server.max_body_size = LONG - 1
        post = HttpCommand.POST
        unheard(413)(ask(evcon, "/", post, long))
        refused(413)(ask(evcon, "/", post, long, Expect="100-continue"))
        funny(ask(evcon, "/", post, long[: 1 << 20], Expect="100-continue"), DISPATCHED)
        unheard(417)(ask(evcon, "/", post, long[: 1 << 20], Expect="101-continue"))
