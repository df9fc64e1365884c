"""HTTP/1 as the engine speaks it, by raw bytes: framing, keep-alive, limits, the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import Any

import pytest

from libevent_py.serve.engines.llhttp_connection import Connection
from tests.kit.serving import GET, Site, rest_of, serving, statuses, until, wait_until

CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


def answering(*parts: bytes, status: int = 200, headers: Any = ()) -> Any:
    """Return an application that answers with *parts*."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for part in parts[:-1]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": parts[-1]})

    return app


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send back what comes, part by part, behind the path."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    path = scope["raw_path"] + b" "
    await send({"type": "http.response.body", "body": path, "more_body": True})
    while (message := await receive())["type"] == "http.request":
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})
        if not more:
            break


def head_of(raw: bytes) -> dict[str, str]:
    """Return the headers of the answer *raw*, and its status as "status"."""
    lines = raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = {
        name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])
    }
    return {"status": lines[0].split()[1], **headers}


# Framing.


def test_a_body_that_is_known_has_its_length() -> None:
    with serving(answering(b"hello")) as site:
        got = site.talk(CLOSE)
    assert got.endswith(b"\r\n\r\nhello")
    head = head_of(got)
    assert head["content-length"] == "5"
    assert head["connection"] == "close"
    assert head["date"].endswith(" GMT")


def test_a_body_in_parts_comes_in_chunks_and_to_http_1_0_up_to_the_end() -> None:
    with serving(answering(b"one", b"", b"two", b"")) as site:
        assert site.talk(CLOSE).endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        got = site.talk(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert got.endswith(b"\r\n\r\nonetwo")
    assert "transfer-encoding" not in head_of(got)
    assert head_of(got)["connection"] == "close"


def test_a_length_that_the_application_gives_is_kept() -> None:
    with serving(answering(b"one", b"two", headers=[(b"content-length", b"6")])) as site:
        got = site.talk(CLOSE)
    assert got.endswith(b"\r\n\r\nonetwo")
    assert head_of(got)["content-length"] == "6"


@pytest.mark.parametrize("length", [b"5", b"7"])
def test_a_body_that_does_not_fit_its_length_is_cut_off(
    length: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(answering(b"one", b"two", headers=[(b"content-length", length)])) as site:
        got = site.talk(GET)
    assert not got.endswith(b"onetwo")
    assert "Content-Length says that" in caplog.text


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_has_none(status: int) -> None:
    with serving(answering(b"body", status=status)) as site:
        got = site.talk(CLOSE)
    assert got.endswith(b"\r\n\r\n")
    assert not {"content-length", "transfer-encoding"} & head_of(got).keys()


def test_head_gets_the_head_alone_and_the_connection_stays() -> None:
    ask = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
    for app, name in (answering(b"hello"), "content-length"), (answering(b"a", b"b"), "date"):
        with serving(app) as site:
            got = site.talk(ask + CLOSE.replace(b"GET", b"HEAD"))
        assert statuses(got) == [200, 200]
        assert got.endswith(b"\r\n\r\n")
        assert b"hello" not in got and b"\r\n\r\n1" not in got
        assert name in head_of(got)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"name", b"value\r\nforged: yes")],
        [(b"name", b"value\nforged: yes")],
        [(b"name", b"a\0b")],
        [(b"na me", b"value")],
        [(b"", b"value")],
        [(b"name:", b"value")],
        [("name", b"value")],
        [(b"name", "value")],
        [(b"content-length", b"five")],
        [(b"content-length", b"4"), (b"content-length", b"5")],
    ],
)
def test_headers_that_would_forge_something_are_an_error(
    headers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(answering(b"hello", headers=headers)) as site:
        got = site.talk(CLOSE)
    assert statuses(got) == [500]
    assert b"forged" not in got
    assert "has raised" in caplog.text


def test_the_application_frames_nothing_itself() -> None:
    headers = [(b"Transfer-Encoding", b"chunked"), (b"Connection", b"keep-alive"), (b"X", b"y")]
    with serving(answering(b"hello", headers=headers)) as site:
        head = head_of(site.talk(CLOSE))
    assert "transfer-encoding" not in head
    assert (head["connection"], head["x"]) == ("close", "y")


def test_the_application_may_close() -> None:
    with serving(answering(b"hello", headers=[(b"connection", b"close")])) as site:
        assert statuses(site.talk(GET + GET)) == [200]


# One connection, several requests.


def test_a_connection_stays_for_further_requests() -> None:
    with serving(answering(b"hello")) as site, site.connect() as sock:
        for _ in range(3):
            sock.sendall(GET)
            assert until(sock, b"hello").startswith(b"HTTP/1.1 200 OK\r\n")
        sock.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert head_of(until(sock, b"hello"))["connection"] == "keep-alive"
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert head_of(rest_of(sock))["connection"] == "close"


def test_pipelined_requests_are_answered_in_order_whoever_is_quicker() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await asyncio.sleep(0.05 if scope["path"] == "/1" else 0)
        await answering(scope["raw_path"])(scope, receive, send)

    asks = [b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(300)]
    with serving(app) as site:
        got = site.talk(b"".join(asks) + CLOSE)
    bodies = [part.partition(b"\r\n\r\n")[2] for part in got.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [b"/%d" % number for number in range(300)] + [b"/"]


def test_a_body_nobody_has_taken_is_no_request() -> None:
    body = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n" * 3
    with serving(echo_path) as site:
        got = site.talk(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body + CLOSE)
    assert statuses(got) == [200, 200]
    assert b"smuggled" not in got


def test_another_protocol_is_refused_wherever_it_comes() -> None:
    ask = b"OPTIONS /rtsp RTSP/1.1\r\nHost: a\r\n\r\n"
    for before in (0, 1, 700):  # more than is parsed at once
        with serving(echo_path) as site:
            got = site.talk(GET * before + ask)
        assert statuses(got) == [200] * before + [505]
        assert b"/rtsp" not in got


def test_a_fault_of_the_engine_is_logged_and_no_fault_of_the_client(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fault(*_: object) -> None:
        raise LookupError("in the engine")

    monkeypatch.setattr(Connection, "on_message_complete", fault)
    with serving(echo_path) as site:
        assert statuses(site.talk(GET)) == [500]
    assert "LookupError: in the engine" in caplog.text


def test_an_interrupt_while_a_request_is_parsed_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("on_url", "on_header", "on_headers_complete", "on_message_complete"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Connection, name, interrupted)
            with serving(echo_path) as site:
                site.talk(GET)


async def echo_path(scope: Any, receive: Any, send: Any) -> None:
    await answering(scope["raw_path"])(scope, receive, send)


def test_a_connection_ends_when_too_much_comes_that_nobody_takes() -> None:
    with serving(echo_path) as site, site.connect() as sock:
        sock.sendall(POST + b"Content-Length: 100000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                sock.sendall(bytes(100000))
        assert statuses(rest_of(sock)) in ([200], [])


def test_100_continue_is_sent_when_the_body_is_wanted_and_not_before() -> None:
    with serving(echo) as site, site.connect() as sock:
        sock.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        # The answer has been begun: nobody who waits for the body needs to be told.
        assert statuses(until(sock, b"2\r\n/ \r\n")) == [200]

    async def reads_first(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await answering(b"done")(scope, receive, send)

    with serving(reads_first) as site, site.connect() as sock:
        sock.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello" + CLOSE)
        assert statuses(rest_of(sock)) == [200, 200]


def test_a_body_that_is_not_asked_for_ends_the_connection() -> None:
    with serving(answering(b"no")) as site, site.connect() as sock:
        sock.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        got = rest_of(sock)
    assert statuses(got) == [200]
    assert head_of(got)["connection"] == "close"


# Back-pressure.


def test_a_client_that_does_not_read_holds_the_application_back() -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        for _ in range(2000):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            sent += 65536
        await send({"type": "http.response.body"})

    with serving(app) as site, site.connect() as sock:
        sock.sendall(CLOSE)
        wait_until(lambda: sent)
        before = -1
        while before != sent:
            before = sent
            time.sleep(0.1)
        assert sent < 20e6
        total = 0
        while part := sock.recv(1 << 20):
            total += len(part)
        assert total > 2000 * 65536


def test_a_client_that_asks_and_does_not_read_is_answered_no_more() -> None:
    served = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal served
        served += 1
        await answering(bytes(5000))(scope, receive, send)

    answers = 8_000
    with serving(app) as site, site.connect() as sock:
        sender = threading.Thread(target=sock.sendall, args=(GET * answers + CLOSE,))
        sender.start()
        wait_until(lambda: served)
        before = 0
        while before != served:
            before = served
            time.sleep(0.3)
        assert served < answers // 2
        total = 0
        while part := sock.recv(1 << 20):
            total += len(part)
        sender.join(20)
        assert total > answers * 5000
    assert served == answers + 1


def test_an_application_that_does_not_receive_holds_the_client_back() -> None:
    go = asyncio.Event()
    received = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal received
        await go.wait()
        more = True
        while more:
            message = await receive()
            received += len(message["body"])
            more = message["more_body"]
        await answering(b"done")(scope, receive, send)

    with serving(app) as site, site.connect() as sock:
        sock.settimeout(0.3)
        sock.sendall(POST + b"Content-Length: 100000000\r\nConnection: close\r\n\r\n")
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 100000000:
                sent += sock.send(bytes(100000))
        assert sent < 20e6
        loop_of(go)
        sock.settimeout(20)
        while sent < 100000000:
            sent += sock.send(bytes(min(100000, 100000000 - sent)))
        assert statuses(rest_of(sock)) == [200]
    assert received == 100000000


def loop_of(event: asyncio.Event) -> None:
    """Set *event* in the thread that serves."""
    event._loop.call_soon_threadsafe(event.set)  # type: ignore[attr-defined]


# Limits.


def test_a_client_that_is_slow_with_a_head_is_told_and_left() -> None:
    with serving(echo, header_timeout=0.2) as site:
        with site.connect() as sock:
            assert sock.recv(10) == b""
        assert statuses(site.talk(b"GET / HT")) == [408]
        with site.connect() as sock:  # each byte doesn't prolong it
            sock.sendall(b"GET /")
            sock.settimeout(0.02)
            got, letters = b"", 0
            while not got:
                sock.sendall(b"a")
                letters += 1
                with contextlib.suppress(TimeoutError):
                    got = sock.recv(1000)
        assert statuses(got) == [408]
        assert 3 < letters < 200


def test_an_idle_connection_is_closed_in_time() -> None:
    with serving(answering(b"hello"), keep_alive_timeout=0.2) as site:
        began = time.monotonic()
        assert statuses(site.talk(GET)) == [200]
        assert 0.1 < time.monotonic() - began < 5


def test_a_body_that_stops_coming_is_an_end() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            told.append(message["body"].decode())
        told.append(message["type"])

    with serving(app, body_timeout=0.2) as site:
        assert statuses(site.talk(POST + b"Content-Length: 50\r\n\r\nhello")) == [408]
        wait_until(lambda: "http.disconnect" in told)
    assert told == ["hello", "http.disconnect"]


def test_a_client_that_takes_nothing_of_an_answer_is_left() -> None:
    raised: list[OSError] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                part = {"type": "http.response.body", "body": bytes(1000000), "more_body": True}
                await send(part)
        except OSError as error:
            raised.append(error)

    with serving(app, write_timeout=0.2) as site, site.connect() as sock:
        sock.sendall(CLOSE)
        wait_until(lambda: raised)


def test_a_whole_answer_that_nobody_takes_is_given_up() -> None:
    with serving(answering(bytes(50_000_000)), write_timeout=0.2) as site, site.connect() as sock:
        sock.sendall(CLOSE)
        site.config.shutdown.set()  # waits for it no longer than that, instead of 20 s
        began = time.monotonic()
        wait_until(lambda: is_refused(site))
        assert time.monotonic() - began < 15


def is_refused(site: Site) -> bool:
    """Tell whether nobody serves *site* any more."""
    return not any(thread.name == f"serving {site.port}" for thread in threading.enumerate())


def test_a_client_that_is_slow_but_takes_something_is_served() -> None:
    body = bytes(8_000_000)
    with serving(answering(body), write_timeout=0.4) as site, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.connect((site.host, site.port))
        sock.sendall(CLOSE)
        total, began = 0, time.monotonic()
        while part := sock.recv(400_000):
            total += len(part)
            time.sleep(0.01 if time.monotonic() - began < 2 else 0)
    assert total > len(body)


def test_headers_are_limited_in_number() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    with serving(answering(b"hello"), max_headers=10) as site:
        assert statuses(site.talk(head + b"N: v\r\n" * 8 + b"\r\n")) == [200]
        assert statuses(site.talk(head + b"N: v\r\n" * 9 + b"\r\n")) == [431]


def test_more_requests_than_allowed_at_once_are_refused() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            await go.wait()
        await answering(b"hello")(scope, receive, send)

    with serving(app, max_requests=2) as site:
        with site.connect() as one, site.connect() as other:
            for sock in one, other:
                sock.sendall(CLOSE.replace(b"/", b"/wait", 1))
            wait_until(lambda: statuses(site.talk(CLOSE)) == [503])
            loop_of(go)
            for sock in one, other:
                assert statuses(rest_of(sock)) == [200]
        assert statuses(site.talk(CLOSE)) == [200]


def test_a_client_may_end_its_output_and_read_the_answer() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        await answering(b"still there?")(scope, receive, send)

    with serving(app) as site, site.connect() as sock:
        sock.sendall(GET)
        sock.shutdown(socket.SHUT_WR)
        assert rest_of(sock).endswith(b"still there?")
