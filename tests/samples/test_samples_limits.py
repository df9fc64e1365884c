"""The samples of limits and watermarks: how fast they send, and how much they keep."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from samples import rate_limit, watermarks
from tests.kit.peers import exactly, reset, rest
from tests.kit.samples import MOMENT, TOO_MUCH, Server, running, silent
from tests.kit.support import PATIENCE

# rate_limit

DOWNLOAD = (rate_limit.PIECE * (rate_limit.SIZE // len(rate_limit.PIECE) + 1))[: rate_limit.SIZE]

#: What may come at once, and what has come before the first look at the clock, in ticks.
SLACK = 3


def least(size: int, rate: int) -> float:
    """Return how long *size* bytes take at least at *rate* bytes per second."""
    return size / rate - SLACK / rate_limit.TICKS


def test_a_client_gets_no_more_than_its_rate(language: str) -> None:
    with running(Server("rate_limit", 2_000_000, 10_000_000, language=language)) as server:
        begun = time.monotonic()
        with server.connect() as sock:
            assert rest(sock) == DOWNLOAD
        assert least(rate_limit.SIZE, 2_000_000) <= time.monotonic() - begun < PATIENCE


def test_all_clients_together_get_no_more_than_theirs(language: str) -> None:
    with (
        Server("rate_limit", 100_000_000, 4_000_000, language=language) as server,
        ExitStack() as stack,
    ):
        begun = time.monotonic()
        socks = [stack.enter_context(server.connect()) for _ in range(4)]
        waiting = dict.fromkeys(socks, 0)
        while waiting:
            ready = select.select(list(waiting), [], [], PATIENCE)[0]
            assert ready
            for sock in ready:
                size = len(sock.recv(65536))
                waiting[sock] += size
                if not size:
                    assert waiting.pop(sock) == rate_limit.SIZE
        assert least(4 * rate_limit.SIZE, 4_000_000) <= time.monotonic() - begun
        assert server.interrupt().endswith(b"\nsent %d bytes\n" % (4 * rate_limit.SIZE))


def test_a_client_that_leaves_leaves_its_share_to_the_others(language: str) -> None:
    with running(Server("rate_limit", 10_000_000, 4_000_000, language=language)) as server:
        for _ in range(5):
            sock = server.connect()
            exactly(sock, 1000)
            reset(sock)
        with server.connect() as sock:
            sock.sendall(b"what I say is not listened to\n" * 1000)
            sock.shutdown(socket.SHUT_WR)
            assert rest(sock) == DOWNLOAD


# watermarks

RECORD = b"0123456789abcde\n"
ANSWER = RECORD * watermarks.ANSWER


@pytest.fixture
def server(language: str) -> Iterator[Server]:
    with running(Server("watermarks", language=language)) as server:
        yield server


def test_a_record_is_answered_when_it_is_whole(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(RECORD[:15])
        assert silent(sock)
        sock.sendall(RECORD[15:] + RECORD[:4])
        assert exactly(sock, len(ANSWER)) == ANSWER
        assert silent(sock)
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == b""


def test_the_last_answers_come_though_the_client_has_ended(server: Server) -> None:
    assert server.answer(RECORD * 100) == ANSWER * 100


def test_a_client_that_takes_no_answers_is_not_read_from(server: Server) -> None:
    with socket.socket() as sock:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.setblocking(False)
        before, sent = resident(server), 0
        pieces = RECORD * 256
        while select.select([], [sock], [], MOMENT)[1]:
            sent += sock.send(pieces[sent % len(RECORD) :])
            assert sent < TOO_MUCH
        server.prints(r"\d+: \d{6} bytes are unsent, reading stops\n")
        assert resident(server) - before < 16 * watermarks.TOO_MUCH
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        sock.settimeout(PATIENCE)
        expected = sent // len(RECORD) * len(ANSWER)
        assert expected > watermarks.TOO_MUCH
        sock.shutdown(socket.SHUT_WR)
        while expected:
            data = sock.recv(min(expected, 2**20))
            assert data
            expected -= len(data)
        assert rest(sock) == b""
        server.prints(r"\d+: \d{1,5} bytes are unsent, reading goes on\n")


def resident(server: Server) -> int:
    """Return how much memory the server has, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024
