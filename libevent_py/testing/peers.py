"""Listeners and servers on free ports of this machine, and certificates for them."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from libevent_py._core.described import described
from libevent_py._core.handle import came_to_be
from libevent_py._core.sockets import lent
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.end import close_all
from libevent_py.bufferevent.tls import TlsContext
from libevent_py.dns.base import DnsBase
from libevent_py.dns.server import DnsServer
from libevent_py.dns.server_request import DnsServerRequest
from libevent_py.enums import BufferEventOption, DnsBaseFlag, DnsResult, DnsType, EventFlag
from libevent_py.event.base import EventBase
from libevent_py.http.server import HttpServer
from libevent_py.listener import Listener

HOST = "127.0.0.1"

#: How long an answer may be kept, in seconds.
TTL = 60


def bufferevent_pair(base: EventBase) -> Iterator[tuple[BufferEvent, BufferEvent]]:
    """Yield two bufferevents that read what the other writes, and close them."""
    one, other = BufferEvent.pair(base)
    with ExitStack() as stack:
        stack.callback(close_all, other)
        stack.callback(close_all, one)
        yield one, other


@described(
    accepted="A bufferevent for each connection so far, the oldest first; reading is enabled.",
)
class LocalListener(Listener):
    """A listener on a free port of 127.0.0.1 that makes a bufferevent of each connection.

    With *tls*, a server's context, the connections speak TLS. Closing the listener closes them.
    """

    __slots__ = ("_tls", "accepted")

    accepted: list[BufferEvent]

    def __init__(self, base: EventBase, *, tls: TlsContext | None = None) -> None:
        self._check_unmade()
        self.accepted = []
        self._tls = tls
        try:
            super().__init__(base, (HOST, 0), LocalListener._accept)
        except BaseException:
            self._unmade()
            raise

    @staticmethod
    def _accept(listener: Listener, fd: int, _address: Any) -> None:
        assert isinstance(listener, LocalListener)
        options = BufferEventOption.CLOSE_ON_FREE | BufferEventOption.DEFER_CALLBACKS
        if listener._tls is None:
            bev = BufferEvent(listener.base, fd, options)
        else:
            bev = BufferEvent.tls(listener.base, fd, listener._tls, options=options)
        listener.accepted.append(bev)
        bev.enable(EventFlag.READ | EventFlag.WRITE)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.address[1])

    def close(self) -> None:
        """Close the listener and the bufferevents that it has made, with all layers on top."""
        with ExitStack() as stack:
            stack.callback(super().close)
            for bev in reversed(self.accepted):
                stack.callback(close_all, bev)


@described(
    port="The port that it listens on.",
)
class LocalHttpServer(HttpServer):
    """An HTTP server on a free port of 127.0.0.1; with *tls*, a server's context, of HTTPS."""

    __slots__ = ("port",)

    port: int

    def __init__(self, base: EventBase, *, tls: TlsContext | None = None) -> None:
        self._check_unmade()
        try:
            super().__init__(base)
            if tls is not None:
                self.tls = tls
            self.port = self.bind_socket(HOST, 0).port
        except BaseException:  # else it would live on the base, though nobody has it
            if came_to_be(self):
                self.close()
            raise

    def url(self, path: str = "/") -> str:
        """Return the address of *path*, such as "http://127.0.0.1:40123/"."""
        return f"{'http' if self.tls is None else 'https'}://{HOST}:{self.port}{path}"


@described(
    names="The addresses of each name, which is in lower case; change it at will.",
    queries="The names and types that were asked for so far.",
)
class LocalDnsServer(DnsServer):
    """A DNS server on a free port of 127.0.0.1 that answers from a dictionary.

    A name that is not in `names` does not exist (NOTEXIST).
    """

    __slots__ = ("names", "queries")

    names: dict[str, str | Iterable[str]]
    queries: list[tuple[str, int]]

    def __init__(self, base: EventBase) -> None:
        self._check_unmade()
        self.names = {}
        self.queries = []
        try:
            super().__init__(base, (HOST, 0), LocalDnsServer._answer)
        except BaseException:
            self._unmade()
            raise

    @property
    def port(self) -> int:
        """The UDP port that it listens on."""
        return int(self.address[1])

    def dns_base(self) -> DnsBase:
        """Return a new `DnsBase` that asks this server alone; you close it."""
        dns = DnsBase(self.base, DnsBaseFlag(0))
        try:
            dns.nameserver_sockaddr_add((HOST, self.port))
        except BaseException:
            dns.close()
            raise
        return dns

    @staticmethod
    def _answer(request: DnsServerRequest) -> None:
        server = request.server
        assert isinstance(server, LocalDnsServer)
        for question in request.questions:
            name = question.name
            server.queries.append((name, question.type))
            found = server.names.get(name.lower())
            if found is None:
                request.respond(DnsResult.NOTEXIST)
                return
            addresses = [found] if isinstance(found, str) else list(found)
            four = [each for each in addresses if ipaddress.ip_address(each).version == 4]
            six = [each for each in addresses if ipaddress.ip_address(each).version == 6]
            if four and question.type in (DnsType.A, DnsType.ALL):
                request.add_a_reply(name, four, TTL)
            if six and question.type in (DnsType.AAAA, DnsType.ALL):
                request.add_aaaa_reply(name, six, TTL)
        request.respond()


@described(
    cafile="The authority's own certificate, a PEM file: what a client has to trust.",
)
class TlsAuthority:
    """An authority of its own, which signs certificates; its files are in *directory*.

    Needs the package trustme, which ``pip install 'libevent_py[testing]'`` brings.
    """

    __slots__ = ("_authority", "_directory", "_made", "cafile")

    cafile: Path

    def __init__(self, directory: Path) -> None:
        try:
            import trustme
        except ImportError as error:
            raise RuntimeError(
                "certificates need the package trustme: pip install 'libevent_py[testing]'"
            ) from error
        self._directory = directory
        self._authority = trustme.CA()
        self._made = 0
        self.cafile = directory / "ca.pem"
        self._authority.cert_pem.write_to_path(self.cafile)

    def certificate(self, *hosts: str) -> Path:
        """Return a new PEM file with a key and the certificate for *hosts*, names or addresses.

        Without hosts, it is for localhost, 127.0.0.1 and ::1.
        """
        made = self._authority.issue_cert(*(hosts or ("localhost", HOST, "::1")))
        self._made += 1
        file = self._directory / f"{self._made}.pem"
        made.private_key_and_cert_chain_pem.write_to_path(file)
        return file

    def server_context(self, *hosts: str, **settings: Any) -> TlsContext:
        """Return a server's context with a new certificate for *hosts*, as in `certificate`.

        The *settings* are those of `TlsContext`.
        """
        return TlsContext(server_side=True, certfile=self.certificate(*hosts), **settings)

    def client_context(self, **settings: Any) -> TlsContext:
        """Return a client's context that trusts this authority alone, with these *settings*."""
        return TlsContext(cafile=self.cafile, **settings)


def local(address: Any) -> str | tuple[str, int]:
    """Return *address*, a port of this machine, or (host, port), or a UNIX socket's path."""
    return (HOST, address) if isinstance(address, int) else address


@contextmanager
def socket_of(bev: BufferEvent) -> Iterator[socket.SocketType]:
    """Lend the socket of *bev*, which may be closed by its peer already."""
    with lent(bev.fd) as peer, suppress(OSError):
        yield peer


def shut_down(bev: BufferEvent) -> None:
    """Tell the peer of *bev*, a socket, that nothing comes any more."""
    with socket_of(bev) as peer:
        peer.shutdown(socket.SHUT_WR)


def discard(bev: BufferEvent) -> None:
    """Have the connection of *bev*, a socket, reset when it is closed."""
    with socket_of(bev) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
