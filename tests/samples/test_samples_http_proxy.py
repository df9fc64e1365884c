"""The sample http_reverse_proxy.py, run as a process between clients and servers of ours."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.peers import exactly, nobody_listens, rest
from tests.kit.samples import Server, running
from tests.kit.samples_web import GET, Origin, answered, code, curl, originating, peak
from tests.kit.support import PATIENCE

#: Where bodies of requests come in parts, for which libevent 2.1 has no way of its own.
STREAMS = "python"

#: More than the kernel holds for both connections.
MUCH = 100 * 2**20


@pytest.fixture
def origin() -> Iterator[Origin]:
    with originating() as origin:
        yield origin


@contextlib.contextmanager
def proxy(language: str, where: tuple[str, int], *timeout: float) -> Iterator[Server]:
    """Run the proxy in front of the server *where*."""
    with running(Server("http_reverse_proxy", *where, *timeout, language=language)) as server:
        yield server


@pytest.fixture
def front(language: str, origin: Origin) -> Iterator[Server]:
    """A proxy in front of *origin*."""
    with proxy(language, ("127.0.0.1", origin.server_address[1])) as server:
        yield server


@contextlib.contextmanager
def listening(language: str, *timeout: float) -> Iterator[tuple[socket.socket, Server]]:
    """Return a socket that listens, and a proxy in front of it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        proxy(language, sock.getsockname(), *timeout) as front,
    ):
        sock.settimeout(PATIENCE)
        yield sock, front


def checksum(data: bytes) -> str:
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


def test_what_is_asked_and_answered_goes_through(front: Server, origin: Origin) -> None:
    said = curl(front, "/path?it=is", "-i", "-H", "X-Mine: yes").decode()
    head, _, body = said.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 201 Made up\r\n")
    assert "X-Behind: yes" in head
    assert body == f"GET /path?it=is {checksum(b'')}"
    [(_, _, headers)] = origin.asked
    assert ("X-Mine", "yes") in headers
    assert ("Host", f"localhost:{front.port}") in headers
    assert ("X-Forwarded-For", "127.0.0.1") in headers


def test_what_is_about_a_connection_stays_there(front: Server, origin: Origin) -> None:
    mine = ("-H", "Connection: X-Mine, keep-alive", "-H", "X-Mine: 1", "-H", "TE: trailers")
    said = curl(front, "/", "-i", *mine, "-H", "Proxy-Authorization: secret")
    assert b"X-Secret" not in said
    [(_, _, headers)] = origin.asked
    names = {name.lower() for name, _ in headers}
    assert not names & {"connection", "x-mine", "te", "proxy-authorization", "keep-alive"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("framing", [(), ("-H", "Transfer-Encoding: chunked")])
def test_bodies_go_through(
    front: Server, origin: Origin, tmp_path: Path, method: str, framing: tuple[str, ...]
) -> None:
    for data in (b"x", bytes(range(256)) * 4000):
        (tmp_path / "body").write_bytes(data)
        said = curl(front, "/up", "-X", method, "--data-binary", f"@{tmp_path}/body", *framing)
        assert said.decode() == f"{method} /up {checksum(data)}"


@pytest.mark.parametrize("path", ["/?size=5000000", "/chunked?size=5000000"])
def test_answers_of_any_framing_go_through(front: Server, path: str) -> None:
    assert len(curl(front, path)) == 5_000_000
    assert len(curl(front, path, "--http1.0")) == 5_000_000
    head = curl(front, path, "--head")
    assert head.startswith(b"HTTP/1.1 201 ")
    assert b"X-Behind: yes" in head


def test_connections_are_used_again_on_both_sides(front: Server, origin: Origin) -> None:
    with front.connect() as sock:
        for n in range(5):
            sock.sendall(GET % f"/{n}".encode())
            _, body = answered(sock)
            assert body.decode() == f"GET /{n} {checksum(b'')}"
        sock.sendall(b"".join(GET % f"/{n}".encode() for n in range(5)))  # all at once
        for n in range(5):
            assert answered(sock)[1].decode() == f"GET /{n} {checksum(b'')}"
    assert len(origin.asked) == 10
    assert origin.accepted == 1


def test_a_server_that_can_not_be_reached_is_502(language: str) -> None:
    with proxy(language, nobody_listens()) as front:
        assert code(front, "/") == 502
        assert code(front, "/", "-d", "a body") == 502
        with front.connect() as sock:  # and the connection goes on
            for _ in range(2):
                sock.sendall(GET % b"/")
                assert answered(sock)[0].startswith(b"HTTP/1.1 502 ")


def test_a_server_that_says_nothing_is_504(language: str) -> None:
    with listening(language, 0.5) as (_, front):
        assert code(front, "/") == 504
        assert code(front, "/", "-d", "a body") == 504


def scripted(behind: socket.socket, *answers: bytes) -> threading.Thread:
    """Answer each connection with the next of *answers*, and close it."""

    def serve() -> None:
        for answer in answers:
            sock = behind.accept()[0]
            with sock:
                while b"\r\n\r\n" not in sock.recv(65536):
                    pass
                sock.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_what_is_no_answer_is_502(language: str) -> None:
    with listening(language) as (behind, front):
        thread = scripted(behind, b"what?\r\n\r\n", b"")
        assert code(front, "/") == 502
        assert code(front, "/") == 502
        thread.join(PATIENCE)


def test_an_answer_that_breaks_off_is_cut(language: str, tmp_path: Path) -> None:
    with listening(language) as (behind, front):
        thread = scripted(behind, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nonly this")
        with front.connect() as sock:
            sock.sendall(GET % b"/")
            received = rest(sock)
        thread.join(PATIENCE)
        assert received.endswith(b"only this")
        assert b"Content-Length: 99" in received


def test_a_server_that_has_closed_its_connection_meanwhile_is_asked_anew(language: str) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with listening(language) as (behind, front):
        thread = scripted(behind, answer, answer, answer)
        with front.connect() as sock:
            for _ in range(3):
                sock.sendall(GET % b"/")
                assert answered(sock)[1] == b"ok"
        thread.join(PATIENCE)


def test_a_server_that_refuses_a_body_early_is_heard() -> None:
    refusal = b"HTTP/1.1 413 Too much\r\nContent-Length: 3\r\n\r\nno!"
    with listening(STREAMS) as (behind, front):

        def serve() -> None:
            sock = behind.accept()[0]
            with sock:
                exactly(sock, 1000)
                sock.sendall(refusal)
                rest(sock)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with front.connect() as sock:
            size = 20_000_000
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            sock.sendall(bytes(size))
            head, body = answered(sock)
        assert head.startswith(b"HTTP/1.1 413 Too much\r\n")
        assert body == b"no!"
        thread.join(PATIENCE)


@pytest.mark.parametrize(
    ("language", "uploads"), [("python", False), ("c", False), (STREAMS, True)]
)
def test_when_a_client_goes_the_server_is_left_too(language: str, uploads: bool) -> None:
    with listening(language) as (behind, front):
        with front.connect() as client:
            if uploads:
                client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\npart")
            else:
                client.sendall(GET % b"/")
            sock = behind.accept()[0]
            sock.settimeout(PATIENCE)
            if not uploads:
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\npart")
                while b"part" not in client.recv(9999):
                    pass
        with sock, contextlib.suppress(ConnectionResetError):
            rest(sock)


def passes(front: Server, forward: Any) -> int:
    """Run *forward* until it has not gone on for a while; return how many bytes it has passed."""
    total, last = 0, time.monotonic()
    while time.monotonic() < last + 2:
        sent = forward()
        total += sent
        if sent:
            last = time.monotonic()
        else:
            time.sleep(0.01)
        assert total < MUCH, "all has gone to somebody who takes nothing"
    return total


def send(sock: socket.socket, part: bytes) -> int:
    try:
        return sock.send(part)
    except BlockingIOError:
        return 0


def test_a_download_to_who_takes_nothing_costs_little_memory(language: str) -> None:
    with listening(language) as (behind, front), front.connect() as client:
        client.sendall(GET % b"/")
        sock = behind.accept()[0]
        with sock:
            before = peak(front)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MUCH)
            sock.setblocking(False)
            assert passes(front, lambda: send(sock, bytes(65536))) > 65536
            assert peak(front) - before < 4 * 2**20


def test_an_upload_to_who_takes_nothing_costs_little_memory() -> None:
    with listening(STREAMS) as (behind, front), front.connect() as client:
        client.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % MUCH)
        with behind.accept()[0]:
            before = peak(front)
            client.setblocking(False)
            assert passes(front, lambda: send(client, bytes(65536))) > 65536
            assert peak(front) - before < 4 * 2**20


def test_who_says_more_before_he_has_the_answer_costs_little_memory(language: str) -> None:
    with listening(language) as (behind, front), front.connect() as client:
        client.sendall(GET % b"/")
        sock = behind.accept()[0]
        with sock:
            sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

            def forward() -> int:
                sock.sendall(b".")
                return send(client, bytes(65536))

            client.setblocking(False)
            before = peak(front)
            total = 0
            for _ in range(1000):
                total += forward()
                time.sleep(0.001)
            assert total > 65536
            assert peak(front) - before < 4 * 2**20


def test_much_goes_through_with_little_memory(front: Server) -> None:
    curl(front, "/?size=1000000", "-o/dev/null")
    before = peak(front)
    assert curl(front, f"/?size={MUCH}", "-o/dev/null", "-w%{size_download}") == b"%d" % MUCH
    assert peak(front) - before < 4 * 2**20
