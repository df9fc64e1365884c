"""Whole requests by `snapshot`, and the headers that `send_reply` takes, each in one call of C."""

from __future__ import annotations

import contextlib
import functools
import operator
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    ClosedError,
    EventBase,
    Headers,
    HttpCommand,
    HttpRequestSnapshot,
    HttpServer,
    HttpServerRequest,
    LibeventError,
)
from tests.kit.support import ROOT, run_python
from tests.kit.web import Client, ask, get, parsed, where

PAIRS = [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
LINES = [f"{name}: {value}" for name, value in PAIRS]


def lines_of(server: HttpServer, request: bytes = b"") -> list[str]:
    """Return the lines of the answer's head."""
    answer = Client(server.base, where(server)).send(request or get()).rest()
    return answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")


def pairs() -> Iterator[tuple[str, str]]:
    yield from PAIRS


# Headers of a reply.


@pytest.mark.parametrize(
    "headers",
    [
        PAIRS,
        tuple(PAIRS),
        pairs,
        Headers(PAIRS),
        [(name.encode(), value.encode()) for name, value in PAIRS],
        [("Content-Type", b"text/plain"), (b"Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
    ],
    ids=["list", "tuple", "generator", "Headers", "bytes", "both"],
)
@pytest.mark.parametrize("body", [b"body", bytearray(b"body"), Buffer], ids=repr)
def test_headers_are_sent_in_order_as_often_as_they_are_there(
    server: HttpServer, headers: Any, body: Any
) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.output_headers.add("Before", "there")
        given = Buffer(b"body") if body is Buffer else body
        request.send_reply(200, "OK", given, headers() if callable(headers) else headers)

    server.set_gencb(handler)
    got = lines_of(server)
    assert got[:5] == ["HTTP/1.1 200 OK", "Before: there", *LINES]
    assert got.count("Content-Length: 4") == 1


def test_headers_may_be_a_mapping_and_empty(server: HttpServer) -> None:
    server.set_gencb(lambda request: request.send_reply(200, "OK", b"", headers={"Name": "\xe9"}))
    assert "Name: \xe9" in lines_of(server)
    server.set_gencb(lambda request: request.send_reply(200, "OK", b"", headers=iter(())))
    assert lines_of(server)[0] == "HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("headers", "error", "text"),
    [
        ([("Na me", "value")], ValueError, "name must consist of letters.* not 'Na me'"),
        ([("", "value")], ValueError, "name must consist of"),
        ([("Name:", "value")], ValueError, "name must consist of"),
        ([("Näme", "value")], ValueError, "name must consist of"),
        ([("Name\0", "value")], ValueError, "name must consist of"),
        ([("Name", "a\r\nb")], ValueError, r"value of 'Name' must not contain b'\\r', as at 1"),
        ([(b"Name", b"a\nb")], ValueError, r"must not contain b'\\n', as at 1"),
        ([("Name", "a\0b")], ValueError, r"must not contain b'\\x00', as at 1"),
        # As many texts as two headers have.
        ([("Name", "a\0Other\0b")], ValueError, r"must not contain b'\\x00', as at 1"),
        ([("Name", "a\0Other"), ("b", "c")], ValueError, r"must not contain b'\\x00'"),
        ([("Name", "€")], ValueError, "value of 'Name' must be text that latin-1 can encode"),
        ([("Name", 1)], TypeError, "value of 'Name' must be str or bytes, not 1"),
        ([(b"Name", bytearray(b"value"))], TypeError, "must be str or bytes, not bytearray"),
        ([(None, "value")], TypeError, "name must be str or bytes, not None"),
        ([("Name",)], TypeError, r"headers must be pairs of name and value, not \('Name',\)"),
        ([("Name", "a", "b")], TypeError, "headers must be pairs of name and value"),
        ([7], TypeError, "headers must be pairs of name and value, not 7"),
        (7, TypeError, "headers must be a mapping or pairs of name and value, not 7"),
        ([("Content-Length", "5")], ValueError, "Content-Length must be 4, the length of the body"),
        ([("Content-Length", "x")], ValueError, "Content-Length must be a number of bytes"),
        ([("Content-Length", "4")] * 2, ValueError, "must be there once, not as '4' and '4'"),
        ([("Transfer-Encoding", "gzip")], ValueError, "must be 'chunked', once, not 'gzip'"),
    ],
)
def test_what_cannot_be_sent_is_refused_and_nothing_of_it_is_added(
    server: HttpServer, headers: Any, error: type[Exception], text: str
) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.output_headers.add("Before", "there")
        if isinstance(headers, list):
            headers.insert(0, ("Fine", "value"))
        for body in (b"body", bytearray(b"body"), Buffer(b"body")):
            with pytest.raises(error, match=text):
                request.send_reply(200, "OK", body, headers)
            assert len(body) == 4
        assert request.output_headers.items() == [("Before", "there")]
        assert len(request.output_buffer) == 0
        request.send_reply(200, "OK", b"body", PAIRS)

    server.set_gencb(handler)
    got = lines_of(server)
    assert got[:5] == ["HTTP/1.1 200 OK", "Before: there", *LINES]


@pytest.mark.parametrize("name", ["!#$%&'*+-.^_`|~", "azAZ09", "a"])
def test_every_token_is_a_name(server: HttpServer, name: str) -> None:
    server.set_gencb(lambda request: request.send_reply(200, headers=[(name, "value")]))
    assert f"{name}: value" in lines_of(server)


def test_no_other_ascii_character_is_in_a_name(server: HttpServer) -> None:
    def handler(request: HttpServerRequest) -> None:
        for code in range(256):
            if chr(code).isascii() and (chr(code).isalnum() or chr(code) in "!#$%&'*+-.^_`|~"):
                continue
            with pytest.raises(ValueError, match="name must consist of"):
                request.send_reply(200, headers=[(f"a{chr(code)}", "value")])
        request.send_reply(200)

    server.set_gencb(handler)
    assert lines_of(server)[0] == "HTTP/1.1 200 OK"


def test_headers_of_a_body_frame_it(server: HttpServer) -> None:
    chunked = [("Transfer-Encoding", "chunked")]
    server.set_gencb(lambda request: request.send_reply(200, None, b"body", chunked))
    _, headers, body = ask(server.base, where(server), get())
    assert (headers["Transfer-Encoding"], body) == ("chunked", b"4\r\nbody\r\n0\r\n\r\n")
    _, headers, body = ask(server.base, where(server), get(version="1.0"))
    assert ("Transfer-Encoding" in headers, body) == (False, b"body")
    length = [("Content-Length", "4")]
    server.set_gencb(lambda request: request.send_reply(200, None, b"body", length))
    assert "Content-Length: 4" in lines_of(server, get(method="HEAD"))


@pytest.mark.parametrize("given", ["bytes", "Buffer"])
def test_without_memory_for_a_header_none_is_added(given: str) -> None:
    printed = run_python(
        f"""
        from libevent_py import Buffer, EventBase, HttpServer, debug
        from tests.kit.web import Client, get, where

        debug.count_memory()
        PAIRS = {PAIRS!r}
        failed = []

        def handler(request):
            for nth in range(1, 100):
                body = {given}(b"body")
                try:
                    with debug.FailingMemory(nth):
                        request.send_reply(200, "OK", body, PAIRS)
                    return
                except MemoryError:
                    failed.append(nth)
                    assert request.output_headers.items() == []

        server = HttpServer(EventBase())
        server.bind_socket("127.0.0.1", 0)
        server.set_gencb(handler)
        answer = Client(server.base, where(server)).send(get()).rest().decode()
        assert answer.split("\\r\\n")[1:4] == [": ".join(pair) for pair in PAIRS], answer
        print(len(failed))
        """
    )
    assert int(printed) >= 3 * len(PAIRS)  # a header has a struct and two texts


def test_headers_whose_code_closes_the_request_find_it_closed(server: HttpServer) -> None:
    def handler(request: HttpServerRequest) -> None:
        def meanwhile() -> Iterator[tuple[str, str]]:
            yield "Name", "value"
            request.send_reply(204)

        with pytest.raises(ClosedError, match="has been answered"):
            request.send_reply(200, None, b"body", meanwhile())
        with pytest.raises(ClosedError, match="has been answered"):
            request.send_reply(200, None, b"body", PAIRS)
        with pytest.raises(ClosedError, match="has been answered"):
            request.snapshot()

    server.set_gencb(handler)
    assert lines_of(server)[0] == "HTTP/1.1 204 No Content"


def test_headers_are_refused_after_the_start(server: HttpServer) -> None:
    def handler(request: HttpServerRequest) -> None:
        request.send_reply_start(200)
        with pytest.raises(RuntimeError, match=r"send_reply\(\) was called after send_reply_start"):
            request.send_reply(200, None, b"body", PAIRS)
        request.send_reply_end()

    server.set_gencb(handler)
    assert lines_of(server)[0] == "HTTP/1.1 200 OK"


def test_a_client_that_has_gone_gets_no_headers(server: HttpServer) -> None:
    kept: list[HttpServerRequest] = []
    server.set_gencb(kept.append)
    client = Client(server.base, where(server))
    client.send(get())
    client.until(lambda _: kept)
    connection = kept[0].connection
    assert connection is not None
    connection.close()
    client.close()
    with pytest.raises(LibeventError):
        kept[0].send_reply(200, None, b"body", PAIRS)


# Snapshots.


def asked(server: HttpServer, request: bytes) -> HttpRequestSnapshot:
    """Return the snapshot of what a client has sent."""
    found: list[HttpRequestSnapshot] = []

    def handler(request: HttpServerRequest) -> None:
        assert request.snapshot() == request.snapshot()
        found.append(request.snapshot())
        request.send_reply(200, "OK", request.input_buffer)  # the body is still there

    server.set_gencb(handler)
    answer = Client(server.base, where(server)).send(request).rest()
    assert parsed(answer)[2] == (found[0].body if b"HEAD" not in request else b"")
    return found[0]


def test_a_snapshot_is_all_that_has_been_sent(server: HttpServer) -> None:
    head = b"POST /p\xe9%41?q=a&b HTTP/1.1\r\nHost: a.test\r\nX:  \xe9 \r\nx: 2\r\nEmpty:\r\n"
    got = asked(server, head + b"Connection: close\r\nContent-Length: 5\r\n\r\nb\0dy\xff")
    assert (got.command, got.method) == (HttpCommand.POST, "POST")
    assert (got.uri, got.version, got.body) == ("/p\xe9%41?q=a&b", (1, 1), b"b\0dy\xff")
    assert got.headers[:4] == [("Host", "a.test"), ("X", "\xe9"), ("x", "2"), ("Empty", "")]
    assert (got.peer[0], type(got.peer[1])) == ("127.0.0.1", int)


@pytest.mark.parametrize("command", list(HttpCommand))
def test_a_snapshot_says_what_the_single_calls_say(
    server: HttpServer, command: HttpCommand
) -> None:
    found: list[str] = []

    def handler(request: HttpServerRequest) -> None:
        got = request.snapshot()
        assert got.command == request.command
        assert (got.uri, got.version, got.peer) == (request.uri, request.version, request.peer)
        assert got.headers == request.input_headers.items()
        assert got.body == request.input_buffer.copyout()
        found.append(got.method)
        request.send_reply(404)

    server.allowed_methods = functools.reduce(operator.or_, HttpCommand)
    server.set_gencb(handler)
    path = "a.test:80" if command is HttpCommand.CONNECT else "/path"
    Client(server.base, where(server)).send(get(path, method=str(command.name))).rest()
    assert found == [command.name]


@pytest.mark.parametrize("size", [1, 65_400, 65_536, 65_537, 1_000_000])
def test_a_snapshot_has_a_body_of_any_size(server: HttpServer, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    more = f"Content-Length: {size}\r\n"
    found: list[bytes] = []

    def handler(request: HttpServerRequest) -> None:
        found.append(request.snapshot().body)
        request.send_reply(200)

    server.set_gencb(handler)
    client = Client(server.base, where(server))
    client.send(get(method="PUT", more=more))
    rest = memoryview(body)[:size]

    def sent_and_found(_: bytes) -> bool:
        nonlocal rest
        with contextlib.suppress(BlockingIOError):
            rest = rest[client.sock.send(rest) :]
        return bool(found)

    client.until(sent_and_found)
    assert found == [body[:size]]
    client.close()


def test_a_snapshot_has_headers_of_any_size(server: HttpServer) -> None:
    value = "v" * 100_000
    got = asked(server, get(more=f"Long: {value}\r\n"))
    assert dict(got.headers)["Long"] == value


def test_a_snapshot_stays_valid_and_is_immutable(base: EventBase, server: HttpServer) -> None:
    got = asked(server, get("/kept"))
    server.close()
    base.close()
    assert (got.uri, got.method) == ("/kept", "GET")
    with pytest.raises(AttributeError):
        got.uri = "/other"  # type: ignore[misc]


def test_a_snapshot_can_be_taken_while_the_body_comes_and_at_the_end(server: HttpServer) -> None:
    bodies: list[bytes] = []

    def on_headers(request: HttpServerRequest) -> None:
        bodies.append(request.snapshot().body)
        request.on_chunk = lambda request: bodies.append(request.snapshot().body)
        request.on_end = lambda request: bodies.append(request.snapshot().uri.encode())

    server.on_headers = on_headers
    server.set_gencb(lambda request: request.send_reply(200))
    chunks = b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    request = get(method="POST", more="Transfer-Encoding: chunked\r\n") + chunks
    assert ask(server.base, where(server), request)[0] == "HTTP/1.1 200 OK"
    assert bodies == [b"", b"one", b"two", b"/"]


def test_the_page_on_whole_requests_shows_what_happens() -> None:
    code = re.findall("```python\n(.*?)```", (ROOT / "docs" / "http.md").read_text(), re.DOTALL)
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code[0]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}/path?q"
            curl = ["curl", "-si", "--max-time", "10", "--data", "body", url]
            answer = subprocess.run(curl, stdout=subprocess.PIPE, text=True, check=True).stdout
        finally:
            server.kill()
    assert answer.splitlines()[1:4] == [
        "Content-Type: text/plain",
        "Set-Cookie: a=1",
        "Set-Cookie: b=2",
    ]
    assert answer.endswith("\n\nPOST /path?q with 4 bytes\n")
