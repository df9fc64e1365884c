"""TLS with real peers: Python's own, and openssl's client and server."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    EventBase,
    EventFlag,
    Listener,
    TlsError,
)
from tests.kit.certificates import HOST, Authority
from tests.kit.peers import (
    connected,
    exactly,
    run_until,
    settle,
)
from tests.kit.tls_peers import (
    End,
    client_context,
    ends,
    in_thread,
    openssl_server,
    server_context,
)

# Real peers.


@pytest.fixture
def echo(base: EventBase, authority: Authority) -> tuple[str, int]:
    """The address of a TLS server that echoes, and ends what the client ends."""
    context = server_context(authority, alpn_protocols=["echo"])

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        if what & (BufferEventFlag.EOF | BufferEventFlag.ERROR):
            if not bev.output:
                bev.shutdown()
            bev.close()

    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        bev = BufferEvent.tls(base, fd, context, on_event=on_event)
        bev.on_read = lambda bev: bev.write(bev.read())
        bev.enable(EventFlag.READ)

    host, port = Listener(base, ("127.0.0.1", 0), on_accept).address
    return str(host), int(port)


def test_pythons_client_is_served(
    base: EventBase, authority: Authority, echo: tuple[str, int]
) -> None:
    context = ssl.create_default_context(cafile=str(authority.ca.certfile))
    context.set_alpn_protocols(["other", "echo"])
    data = os.urandom(300_000)

    def talk() -> tuple[bytes, str | None, bytes]:
        with context.wrap_socket(connected(echo), server_hostname=HOST) as sock:
            sock.sendall(data)
            received = exactly(sock, len(data))
            chosen = sock.selected_alpn_protocol()
            raw = sock.unwrap()  # what it waits for is the server's own notice
            return received, chosen, raw.recv(1)

    with in_thread(talk) as results:
        run_until(base, lambda: results)
    assert results == [(data, "echo", b"")]


def test_pythons_server_is_talked_to(base: EventBase, authority: Authority) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.server.certfile, authority.server.keyfile)

    def serve(server: socket.socket) -> bytes:
        with context.wrap_socket(server.accept()[0], server_side=True) as sock:
            data = sock.recv(100)
            sock.sendall(data.upper())
            sock.unwrap().close()
            return data

    with socket.create_server(("127.0.0.1", 0)) as server, in_thread(serve, server) as results:
        context_of_ours = client_context(authority)
        end = End(BufferEvent.tls, base, -1, context_of_ours, server_hostname=HOST)
        end.bev.connect(server.getsockname())
        end.bev.write(b"hello")
        run_until(base, lambda: end.over)
        end.bev.shutdown()
        end.bev.close()
        settle(base)
    assert results == [b"hello"]
    assert end.received == b"HELLO"
    assert end.events == [
        BufferEventFlag.CONNECTED,
        BufferEventFlag.READING | BufferEventFlag.EOF,
    ]


def test_openssls_client_is_served(
    base: EventBase, authority: Authority, echo: tuple[str, int]
) -> None:
    host, port = echo
    command = ["openssl", "s_client", "-connect", f"{host}:{port}", "-servername", HOST]
    command += ["-CAfile", str(authority.ca.certfile), "-verify_hostname", HOST]
    command += ["-verify_return_error", "-quiet", "-no_ign_eof", "-alpn", "echo"]

    def talk() -> str:
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert client.stdin is not None
        assert client.stdout is not None
        with client:
            client.stdin.write(b"to and fro\n")
            client.stdin.flush()
            return client.stdout.readline().decode()

    with in_thread(talk) as results:
        run_until(base, lambda: results)
        settle(base)
    assert results == ["to and fro\n"]


def test_openssls_server_is_talked_to(base: EventBase, authority: Authority) -> None:
    own = authority.server
    with openssl_server("-rev", "-cert", str(own.certfile), "-key", str(own.keyfile)) as address:
        end = End(BufferEvent.tls, base, -1, client_context(authority), server_hostname=HOST)
        end.bev.connect(address)
        end.bev.write(b"stressed\n")
        run_until(base, lambda: end.received or end.over)
        assert end.received == b"desserts\n"
        end.bev.write(b"CLOSE\n")
        run_until(base, lambda: end.over)
        end.bev.close()
        settle(base)
    assert end.error is None


def test_a_session_can_be_resumed(base: EventBase, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=str(authority.ca.certfile))
    context.load_cert_chain(authority.server.certfile, authority.server.keyfile)
    ours = server_context(authority, verify=True, cafile=authority.ca.certfile)
    seen: list[tuple[bool, bytes | None]] = []

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        if what & BufferEventFlag.CONNECTED:
            seen.append((bev.session_reused, bev.peer_certificate))
            bev.write(b"!")  # a ticket comes before it
        else:
            bev.close()

    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        BufferEvent.tls(base, fd, ours, on_event=on_event).enable(EventFlag.READ)

    def twice(address: tuple[str, int]) -> bool:
        session = None
        for _ in range(2):
            sock = context.wrap_socket(connected(address), server_hostname=HOST, session=session)
            with sock:
                assert sock.recv(1) == b"!"
                session, reused = sock.session, sock.session_reused
        return bool(reused)

    host, port = Listener(base, ("127.0.0.1", 0), on_accept).address
    with in_thread(twice, (str(host), int(port))) as results:
        run_until(base, lambda: results)
    assert results == [True]
    assert [reused for reused, _ in seen] == [False, True]
    assert seen[1][1] == seen[0][1] is not None


def test_a_client_must_show_a_certificate_where_the_server_asks(
    base: EventBase, authority: Authority
) -> None:
    server = server_context(authority, verify=True, cafile=authority.ca.certfile)
    one, other = ends(base, client_context(authority), server)
    run_until(base, lambda: one.over and other.over)
    assert isinstance(other.error, TlsError)
    assert other.error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    assert not other.connected
    own = authority.certify("client")
    client = client_context(authority, certfile=own.certfile, keyfile=own.keyfile)
    one, other = ends(base, client, server)
    run_until(base, lambda: one.connected and other.connected)
    shown = ssl.PEM_cert_to_DER_cert(own.certfile.read_text())
    assert other.bev.peer_certificate == shown
    assert other.bev.peer_certificate_chain[0] == shown
