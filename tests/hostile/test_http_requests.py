"""Malformed HTTP requests: each is refused, or answered as what libevent takes it for.

The server goes on, keeps nothing, and serves the next good request. What libevent takes and
shouldn't is here, too, as it is: it does no harm to the process, but a proxy in front may have
taken it for something else.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libevent_py import EventBase, HttpServer, LoopFlag
from libevent_py.http.server_request import HttpServerRequest
from tests.kit.hostile_http import (
    BODY,
    EITHER,
    HEADERS,
    REFUSED,
    SERVED,
    STATUS,
    UNFINISHED,
    coded,
)
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import PATIENCE, run_python

REFUSALS = {name: (raw, status) for status, group in REFUSED.items() for name, raw in group.items()}


class Server:
    """Answers whatever is a request with 200, and remembers it."""

    def __init__(self, base: EventBase) -> None:
        self.base = base
        self.seen: list[tuple[str, bytes]] = []
        self.http = HttpServer(base)
        self.http.max_headers_size = HEADERS
        self.http.max_body_size = BODY
        self.http.set_gencb(self.answer)
        self.port = self.http.bind_socket("127.0.0.1", 0).port

    def answer(self, request: HttpServerRequest) -> None:
        self.seen.append((request.uri, bytes(request.input_buffer)))
        for name in request.input_headers:
            assert request.input_headers.get_all(name)
        _ = request.peer, request.host, request.version, request.command
        request.send_reply(200, None, b"fine")

    def turn(self) -> None:
        self.base.loop(LoopFlag.NONBLOCK)
        time.sleep(0.0005)


class Client:
    """Sends *raw*, and takes in what comes."""

    def __init__(self, server: Server, raw: bytes) -> None:
        self.server = server
        self.left = memoryview(raw)
        self.received = b""
        self.end = ""
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        self.socket.setblocking(False)

    @property
    def outcome(self) -> str:
        statuses = [status.decode() for status in STATUS.findall(self.received)]
        return " ".join([*statuses, *filter(None, [self.end])])

    def turn(self) -> None:
        try:
            if self.left:
                self.left = self.left[self.socket.send(self.left) :]
        except BlockingIOError:
            pass
        except ConnectionError:  # what has come may be read nevertheless
            self.left = memoryview(b"")
        self.server.turn()
        try:
            received = self.socket.recv(65536)
        except BlockingIOError:
            return
        except ConnectionError:
            self.end = "reset"
            return
        self.received += received
        if not received:
            self.end = "closed"

    def run_until(self, *outcomes: str) -> None:
        """Run the loop until all is sent, and it has come to one of *outcomes*."""
        end = time.monotonic() + PATIENCE
        while self.left or self.outcome not in outcomes:
            assert time.monotonic() < end, f"{self.outcome!r} instead of {outcomes!r}"
            if self.end:
                assert self.outcome in outcomes
                return
            self.turn()


def talk(server: Server, raw: bytes, *outcomes: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Send *raw*; return what became of it, and what the handler got, once all is well again."""
    client = Client(server, raw)
    with client.socket:
        client.run_until(*outcomes)
        seen = server.seen[:]
        good(server)
        if not client.end:  # nothing else was to come
            client.turn()
        assert client.outcome in outcomes
        server.seen.clear()
    good(server)
    return client.outcome, seen


def good(server: Server) -> None:
    """See to it that a good request is served."""
    server.seen.clear()
    client = Client(server, coded(b"Content-Length: 4\r\nConnection: close", b"good"))
    with client.socket:
        client.run_until("200 closed")
    assert server.seen == [("/", b"good")]
    assert client.received.endswith(b"\r\n\r\nfine")
    server.seen.clear()


def refused(status: int) -> list[str]:
    """Return what a refusal looks like: the answer is lost where much was sent in vain."""
    return [f"{status} closed", f"{status} reset", "reset", f"{status}"]


@pytest.fixture
def server(base: EventBase) -> Iterator[Server]:
    """A server on loopback."""
    server = Server(base)
    yield server
    server.http.close()


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_no_request_is_refused_and_nobody_is_asked(server: Server, name: str) -> None:
    raw, status = REFUSALS[name]
    _, seen = talk(server, raw, *refused(status))
    assert seen == []


@pytest.mark.parametrize("name", SERVED)
def test_what_libevent_takes_for_a_request_is_answered(server: Server, name: str) -> None:
    raw, outcome, uri, body = SERVED[name]
    _, seen = talk(server, raw, outcome)
    assert seen[0] == (uri, body)
    assert len(seen) == outcome.split().count("200")


@pytest.mark.parametrize("name", UNFINISHED)
def test_what_does_not_end_is_waited_for_until_the_client_goes(server: Server, name: str) -> None:
    _, seen = talk(server, UNFINISHED[name], "")
    assert seen == []


@pytest.mark.parametrize("name", EITHER)
def test_what_a_hole_lets_through_is_refused_or_harms_nothing(server: Server, name: str) -> None:
    outcome, seen = talk(server, EITHER[name], *ANY)
    assert len(seen) == outcome.split().count("200")


#: What may become of that.
ANY = ["400 closed", "413 closed", "200", "200 200", "200 400 closed", ""]


ALL = """
import sys
from libevent_py import EventBase
from tests.hostile.test_http_requests import (
    ANY, EITHER, REFUSALS, SERVED, UNFINISHED, Server, refused, talk
)

with EventBase() as base:
    server = Server(base)
    for raw, status in REFUSALS.values():
        talk(server, raw, *refused(status))
    for raw, outcome, _, _ in SERVED.values():
        talk(server, raw, outcome)
    for raw in UNFINISHED.values():
        talk(server, raw, "")
    for raw in EITHER.values():
        talk(server, raw, *ANY)
print("all")
"""


@VALGRIND_TAKES_LONG
def test_none_of_them_touches_memory_that_is_not_the_servers(valgrind: bool) -> None:
    assert run_python(ALL, valgrind=valgrind, stderr=None) == "all\n"


def test_a_library_that_has_all_holes_goes_on_as_well(unpatched: Path) -> None:
    assert run_python(ALL, env={"LD_LIBRARY_PATH": str(unpatched)}) == "all\n"
