"""The samples that stand between others, or speak to what isn't ours: real clients and servers."""

from __future__ import annotations

import hashlib
import os
import select
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from libevent_py import BufferEvent, BufferEventFlag, EventBase, LoopFlag
from samples.le_proxy import Relay
from tests.kit.certificates import Authority
from tests.kit.peers import exactly, nobody_listens, reset, rest
from tests.kit.samples import MOMENT, TOO_MUCH, Sample, Server, running, silent
from tests.kit.samples_web import BIG, serving
from tests.kit.support import PATIENCE


@pytest.fixture(scope="module")
def web() -> Iterator[int]:
    with serving() as port:
        yield port


# http_v0_client.py.


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_http_client_prints_the_answer(language: str, web: int, host: str) -> None:
    with Sample("http_v0_client", host, web, "/some/where", language=language) as client:
        head, _, body = client.ends().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert body == b"GET /some/where HTTP/1.0"


def test_the_http_client_takes_much(language: str, web: int) -> None:
    with Sample("http_v0_client", "localhost", web, "/big", language=language) as client:
        assert client.ends().partition(b"\r\n\r\n")[2] == BIG


def test_the_http_client_names_what_goes_wrong(language: str) -> None:
    impossible = "x" * 64 + ".invalid"
    with Sample("http_v0_client", impossible, 80, language=language) as client:
        client.ends(1, rf"DNS error: (\[Errno -\d+\] )?'{impossible}': [\w, ]+")
    port = nobody_listens()[1]
    with Sample("http_v0_client", "127.0.0.1", port, language=language) as client:
        client.ends(1, rf"127\.0\.0\.1:{port}: (\[Errno 111\] )?Connection refused")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Sample("http_v0_client", "127.0.0.1", server.getsockname()[1], language=language) as client,
    ):
        sock, _ = server.accept()
        exactly(sock, 16)
        sock.send(b"HTTP")
        client.prints("HTTP")
        reset(sock)
        client.ends(1, r"127\.0\.0\.1:\d+: (\[Errno 104\] )?Connection reset by peer")


# le_proxy.py.


def curl(port: int, path: str, *arguments: str, scheme: str = "http") -> bytes:
    """Return what curl gets."""
    command = ["curl", "-sS", "--max-time", str(PATIENCE), *arguments]
    command.append(f"{scheme}://127.0.0.1:{port}{path}")
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=PATIENCE).stdout


@contextmanager
def relaying(
    to_port: int, *options: str, host: str = "127.0.0.1", language: str, **more: object
) -> Iterator[Server]:
    with running(Server("le_proxy", host, to_port, *options, language=language, **more)) as proxy:
        yield proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that echoes what it is told, once it has been told all."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    sock, _ = server.accept()
                except OSError:
                    return
                with sock:
                    sock.settimeout(PATIENCE)
                    sock.sendall(rest(sock))

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)


def resident(sample: Sample) -> int:
    """Return how many bytes of memory the sample has."""
    pages = int(Path(f"/proc/{sample.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_curl_gets_through_the_relay_what_it_asks_for(
    web: int, tmp_path: Path, language: str
) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(BIG)
    with relaying(web, language=language) as proxy:
        assert curl(proxy.port, "/hello") == b"GET /hello HTTP/1.1"
        assert curl(proxy.port, "/big") == BIG
        digest = curl(proxy.port, "/", "--data-binary", f"@{upload}")
        assert digest.decode() == hashlib.sha256(BIG).hexdigest()
        assert b"404" in curl(proxy.port, "/nothing", "--head", "-X", "GET")


def test_curl_gets_it_by_way_of_tls(authority: Authority, language: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server.certfile, authority.server.keyfile)
    trust = {"SSL_CERT_FILE": str(authority.ca.certfile)}
    wrap = lambda sock: context.wrap_socket(sock, server_side=True)  # noqa: E731
    with serving(wrap) as port:
        with relaying(port, "--tls", env=trust, language=language) as proxy:
            assert curl(proxy.port, "/hello") == b"GET /hello HTTP/1.1"
            assert curl(proxy.port, "/big") == BIG
        with Server("le_proxy", "127.0.0.1", port, "--tls", language=language) as proxy:
            with proxy.connect() as sock:
                assert rest(sock) == b""
            proxy.prints("server: .*certificate verify failed")
            proxy.interrupt()


def test_who_has_said_all_still_gets_the_answer(echo: int, language: str) -> None:
    with relaying(echo, language=language) as proxy:
        assert proxy.answer(b"") == b""
        assert proxy.answer(b"hello") == b"hello"
        done: list[bytes] = []
        with proxy.connect() as sock:
            reader = threading.Thread(target=lambda: done.append(rest(sock)))
            reader.start()
            sock.sendall(BIG)
            sock.shutdown(socket.SHUT_WR)
            reader.join(PATIENCE)
        assert done == [BIG]


def test_when_the_server_has_said_all_the_client_may_go_on(language: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        relaying(server.getsockname()[1], language=language) as proxy,
        proxy.connect() as client,
    ):
        sock, _ = server.accept()
        with sock:
            sock.settimeout(PATIENCE)
            sock.sendall(b"hello")
            sock.shutdown(socket.SHUT_WR)
            assert rest(client) == b"hello"
            client.sendall(b"world")
            assert exactly(sock, 5) == b"world"
            client.close()
            assert rest(sock) == b""


@pytest.mark.parametrize("slow", ["client", "server"])
def test_who_takes_nothing_is_sent_no_more_than_fits(slow: str, language: str) -> None:
    """Then the relay's memory has a bound, and all that was said still comes through."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        relaying(server.getsockname()[1], language=language) as proxy,
        proxy.connect() as client,
    ):
        sock, _ = server.accept()
        with sock:
            before = resident(proxy)
            says, takes = (sock, client) if slow == "client" else (client, sock)
            says.setblocking(False)
            sent = 0
            while select.select([], [says], [], MOMENT)[1]:
                sent += says.send(BIG[sent % len(BIG) :])
                assert sent < TOO_MUCH
            assert resident(proxy) - before < 2**21  # 512 KiB wait, and something more comes
            idle = proxy.processor_time()
            time.sleep(MOMENT)
            assert proxy.processor_time() - idle < MOMENT / 2

            says.setblocking(True)
            says.settimeout(PATIENCE)
            says.shutdown(socket.SHUT_WR)
            takes.settimeout(PATIENCE)
            got = rest(takes)
            assert len(got) == sent
            assert got == (BIG * (sent // len(BIG) + 1))[:sent]
            takes.close()
            assert rest(says) == b""


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_ends_both_once_the_other_has_what_was_said(who: str, language: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        relaying(server.getsockname()[1], language=language) as proxy,
        proxy.connect() as client,
    ):
        sock, _ = server.accept()
        sock.settimeout(PATIENCE)
        gone, other = (client, sock) if who == "client" else (sock, client)
        gone.sendall(b"hello")
        assert exactly(other, 5) == b"hello"
        reset(gone)
        proxy.prints(rf"{who}: (\[Errno 104\] )?Connection reset by peer")
        with other:
            assert rest(other) == b""


def test_without_a_server_the_client_is_let_go(echo: int, language: str) -> None:
    with relaying(nobody_listens()[1], language=language) as proxy:
        with proxy.connect() as sock:
            assert rest(sock) == b""
        proxy.prints("server: .*Connection refused")
    with relaying(80, host="x" * 64 + ".invalid", language=language) as proxy:
        with proxy.connect() as sock:
            assert rest(sock) == b""
        proxy.prints("server: .*x{64}.invalid")


def test_nothing_is_left_of_a_connection(echo: int, language: str) -> None:
    with relaying(echo, language=language) as proxy:
        opened = Path(f"/proc/{proxy.process.pid}/fd")
        assert proxy.answer(b"hello") == b"hello"
        before = len(list(opened.iterdir()))
        for _ in range(50):
            assert proxy.answer(b"hello") == b"hello"
            proxy.connect().close()
            reset(proxy.connect())
        with proxy.connect() as idle:
            assert silent(idle)
        end = time.monotonic() + PATIENCE
        while len(list(opened.iterdir())) > before:
            assert time.monotonic() < end, list(map(os.readlink, opened.iterdir()))
            time.sleep(0.01)


def test_what_comes_from_one_once_the_other_has_failed_is_dropped(base: EventBase) -> None:
    """Both may be called for in one turn of the loop: the failure first, and then the data."""
    client, peer = BufferEvent.pair(base)
    server, _ = BufferEvent.pair(base)
    relay = Relay(client, server, tls=False)
    relay.on_event(server, BufferEventFlag.CONNECTED)
    client.write(b"what the client, who doesn't read, is still to get")
    peer.write(b"too late")
    client.on_read = None  # it is called below
    base.loop(LoopFlag.NONBLOCK)
    relay.on_event(server, BufferEventFlag.READING | BufferEventFlag.ERROR)
    assert (server.closed, client.closed) == (True, False)
    assert len(client.input) == len(b"too late")
    relay.on_read(client)
    assert not client.input
