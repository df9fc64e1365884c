"""WebSocket, with the client of `websockets` and with raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from libevent_py.serve import ClientDisconnected, websocket
from tests.kit.serving import Site, rest_of, serving, statuses, until, wait_until

UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send back each message; close when told to, with the code in it."""
    assert scope["type"] == "websocket"
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message["text"]
        if text is not None and text.startswith("close "):
            await send({"type": "websocket.close", "code": int(text[6:]), "reason": "as told"})
            return
        await send({"type": "websocket.send", "text": text, "bytes": message["bytes"]})


def client(site: Site, path: str = "/", **options: Any) -> ClientConnection:
    """Return a connected client."""
    options.setdefault("close_timeout", 5)
    connected: ClientConnection = connect(f"ws://{site.host}:{site.port}{path}", **options)
    return connected


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_go_both_ways(compression: Any) -> None:
    messages: list[str | bytes] = ["text", b"bytes", "ä" * 70000, bytes(300000), "", b""]
    with serving(echo) as site, client(site, compression=compression, max_size=None) as ws:
        for message in messages:
            ws.send(message)
            assert ws.recv(20) == message
        for message in messages:
            ws.send(message)
        assert [ws.recv(20) for _ in messages] == messages
        ws.send(["a message ", "in ", "parts"])
        assert ws.recv(20) == "a message in parts"


def test_the_scope_says_what_was_asked() -> None:
    scopes: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await receive()
        headers = [(b"X-Who", b"me"), (b"set-cookie", b"a=b")]
        await send({"type": "websocket.accept", "subprotocol": "two", "headers": headers})
        await send({"type": "websocket.send", "text": "hello"})

    with serving(app) as site:
        protocols = [Subprotocol("one"), Subprotocol("two")]
        with client(site, "/a%20b?q", subprotocols=protocols) as ws:
            assert ws.recv(20) == "hello"
            assert ws.subprotocol == "two"
            assert ws.response is not None
            assert ws.response.headers["x-who"] == "me"
            assert ws.response.headers["set-cookie"] == "a=b"
            with pytest.raises(ConnectionClosed):
                ws.recv(20)
            assert ws.close_code == 1000
    (scope,) = scopes
    assert (scope["type"], scope["scheme"]) == ("websocket", "ws")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b", b"/a%20b", b"q")
    assert scope["subprotocols"] == ["one", "two"]
    assert scope["extensions"] == {"websocket.http.response": {}}
    assert "method" not in scope


def test_each_side_may_close_with_a_code() -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)
        told.append(await receive())

    with serving(app) as site:
        with client(site) as ws:
            ws.send("close 4001")
            with pytest.raises(ConnectionClosed):
                ws.recv(20)
            assert (ws.close_code, ws.close_reason) == (4001, "as told")
        wait_until(lambda: told)
        with client(site) as ws:
            ws.close(4002, "enough")
        wait_until(lambda: len(told) == 2)
    assert [message["code"] for message in told] == [4001, 4002]
    assert told[1] == {"type": "websocket.disconnect", "code": 4002, "reason": "enough"}


def test_a_client_that_leaves_without_a_word_is_told_and_sending_raises() -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        told.append(await receive())
        try:
            await send({"type": "websocket.send", "text": "anyone?"})
        except ClientDisconnected as error:
            told.append(error)
            raise

    with serving(app) as site:
        with site.connect() as sock:
            sock.sendall(UPGRADE)
            until(sock, b"\r\n\r\n")
        wait_until(lambda: len(told) == 2)
    assert told[0] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


def test_an_application_may_refuse() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/why":
            headers = [(b"x-why", b"because")]
            await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
            part = {"type": "websocket.http.response.body", "body": b"who ", "more_body": True}
            await send(part)
            await send({"type": "websocket.http.response.body", "body": b"are you?"})
        elif scope["path"] == "/raise":
            raise ZeroDivisionError
        elif scope["path"] == "/no":
            await send({"type": "websocket.close"})
        assert (await receive())["type"] == "websocket.disconnect"

    with serving(app) as site:
        for path, status in ("/no", 403), ("/why", 401), ("/raise", 500):
            with pytest.raises(InvalidStatus) as refused, client(site, path):
                pass
            assert refused.value.response.status_code == status
            if path == "/why":
                assert refused.value.response.headers["x-why"] == "because"
                assert refused.value.response.body == b"who are you?"


def test_an_application_that_raises_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        raise ZeroDivisionError("oh")

    with serving(app) as site, client(site) as ws:
        with pytest.raises(ConnectionClosed):
            ws.recv(20)
        assert ws.close_code == 1011
    assert "ZeroDivisionError: oh" in caplog.text


def test_a_message_beyond_the_limit_closes_with_1009() -> None:
    with serving(echo, ws_max_size=1000) as site:
        for compression in None, "deflate":
            with client(site, compression=compression) as ws:
                ws.send("x" * 1000)
                assert ws.recv(20) == "x" * 1000
                with contextlib.suppress(ConnectionClosed):
                    ws.send("x" * 1001)
                with pytest.raises(ConnectionClosed):
                    ws.recv(20)
                assert ws.close_code == 1009


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (b"\x83\x80\0\0\0\0", 1002),  # of an unknown kind
        (b"\x80\x80\0\0\0\0", 1002),  # goes on, and nothing has begun
        (b"\x89\xfe\0\x80\0\0\0\0" + bytes(128), 1002),  # a ping that is too long
        (b"\x81\x81\0\0\0\0\xff", 1007),  # not UTF-8
    ],
)
def test_frames_that_make_no_sense_close_with_a_code(frames: bytes, code: int) -> None:
    with serving(echo) as site, site.connect() as sock:
        sock.sendall(UPGRADE)
        until(sock, b"\r\n\r\n")
        sock.sendall(frames)
        got = rest_of(sock)
    assert got[0] == 0x88
    assert int.from_bytes(got[2:4], "big") == code


@pytest.mark.parametrize(
    ("line", "status"),
    [(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 400), (b"Sec-WebSocket-Version: 13", 426)],
)
def test_a_handshake_without_what_it_needs_is_refused(line: bytes, status: int) -> None:
    with serving(echo) as site, site.connect() as sock:
        sock.sendall(UPGRADE.replace(line + b"\r\n", b""))
        assert statuses(until(sock, b"\n")) in ([status], [400])


def test_frames_may_come_with_the_handshake() -> None:
    with serving(echo) as site, site.connect() as sock:
        sock.sendall(UPGRADE + b"\x81\x82\0\0\0\0hi" + b"\x89\x80\0\0\0\0")
        got = until(sock, b"\x81\x02hi")
        assert statuses(got) == [101]
        assert b"\x8a\x00" in got  # a pong


def test_an_idle_client_is_asked_and_left_if_it_does_not_answer() -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        told.append(await receive())

    with serving(app, ws_ping_interval=0.1, ws_ping_timeout=0.2) as site:
        with client(site):
            time.sleep(0.6)  # it answers in a thread of its own
            assert not told
        wait_until(lambda: told)
        with site.connect() as sock:
            sock.sendall(UPGRADE)
            assert b"\x89\x00" in until(sock, b"\x89\x00")
            assert rest_of(sock) == b""
        wait_until(lambda: len(told) == 2)
    assert told[1]["code"] == 1006


def test_a_client_that_sends_without_end_is_held_back() -> None:
    go = asyncio.Event()
    received = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal received
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        while (message := await receive())["type"] == "websocket.receive":
            received += len(message["bytes"])

    part = b"\x82\xfe\xff\xff\0\0\0\0" + bytes(65535)
    with serving(app) as site, site.connect() as sock:
        sock.sendall(UPGRADE)
        until(sock, b"\r\n\r\n")
        sock.settimeout(0.3)
        left, sent = memoryview(b""), 0
        with pytest.raises(TimeoutError):
            while sent < 1000:
                left = left or memoryview(part)
                left = left[sock.send(left) :]
                sent += not left
        assert sent < 500
        go._loop.call_soon_threadsafe(go.set)  # type: ignore[attr-defined]
        sock.settimeout(20)
        sock.sendall(left)
        wait_until(lambda: received == (sent + bool(left)) * 65535)


def test_the_worker_s_end_closes_with_1012() -> None:
    with serving(echo) as site, client(site) as ws:
        ws.send("hello")
        assert ws.recv(20) == "hello"
        site.config.shutdown.set()
        with pytest.raises(ConnectionClosed):
            ws.recv(20)
        assert ws.close_code == 1012


def test_a_client_that_reads_nothing_holds_the_application_back() -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "bytes": bytes(65536)})
            sent += 65536

    with serving(app) as site, site.connect() as sock:
        sock.sendall(UPGRADE)
        before = -1
        while before != sent or not sent:
            before = sent
            time.sleep(0.1)
        assert sent < 20e6


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.send", "text": "too early"},
        {"type": "websocket.accept", "headers": [(b"x", b"a\r\nforged: yes")]},
        {"type": "nonsense"},
    ],
)
def test_messages_that_cannot_be_sent_are_500(
    message: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(message)

    with serving(app) as site, site.connect() as sock:
        sock.sendall(UPGRADE)
        assert statuses(until(sock, b"Error")) == [500]
    assert "has raised an exception" in caplog.text


@pytest.mark.parametrize("message", [{"bytes": 3}, {"bytes": [1]}, {"text": 3}, {"text": b"x"}])
def test_what_is_neither_bytes_nor_text_is_refused(message: Any) -> None:
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await send({"type": "websocket.send", **message})
        except TypeError as error:
            raised.append(error)
        await send({"type": "websocket.close"})

    with serving(app) as site, client(site) as ws, pytest.raises(ConnectionClosed):
        assert ws.recv(20) == ""
    assert raised


def test_a_room_passes_messages_between_its_clients() -> None:
    room: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        room.append(send)
        while (message := await receive())["type"] == "websocket.receive":
            for other in room:
                with contextlib.suppress(ClientDisconnected):
                    await other({"type": "websocket.send", "text": message["text"]})

    with serving(app) as site, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(client(site)) for _ in range(5)]
        wait_until(lambda: len(room) == 5)
        for number, ws in enumerate(sockets):
            ws.send(json.dumps(number))
            assert [json.loads(each.recv(20)) for each in sockets] == [number] * 5


def test_raw_sockets_are_gone_after_the_end() -> None:
    with serving(echo, graceful_timeout=0.2) as site:
        sock = site.connect()
        sock.sendall(UPGRADE)
        until(sock, b"\r\n\r\n")
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
        assert rest_of(sock)[:1] == b"\x88"  # it was asked to close, and hasn't


@pytest.mark.parametrize("swallows", [False, True])
@pytest.mark.parametrize("body", ["text", None, 3])
def test_a_denial_whose_body_is_no_bytes_closes_the_connection(body: Any, swallows: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        try:
            await send({"type": "websocket.http.response.body", "body": body})
        except TypeError:
            if not swallows:
                raise

    with serving(app) as site, pytest.raises(InvalidMessage), client(site):
        pass


@pytest.mark.parametrize("way", ["close", "large", "ping"])
def test_who_sends_waits_no_longer_once_the_websocket_is_closed(
    way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})

        async def flood() -> None:
            try:
                while True:
                    await send({"type": "websocket.send", "bytes": b"x" * 65536})
            except ClientDisconnected as error:
                told.append(error)
                raise

        task = asyncio.create_task(flood())
        await asyncio.sleep(0.1)  # until it waits
        told.append("flooded")
        told.append(await receive())
        await task

    monkeypatch.setattr(websocket, "CLOSING", 0.1)
    settings: dict[str, Any] = {"ws_max_size": 1000}
    if way == "ping":
        settings.update(ws_ping_interval=0.1, ws_ping_timeout=0.1)
    with serving(app, **settings) as site, site.connect() as sock:
        sock.sendall(UPGRADE)
        wait_until(lambda: told)
        if way == "close":
            sock.sendall(b"\x88\x82\0\0\0\0\x03\xe8")
        elif way == "large":
            sock.sendall(b"\x82\xfe\x07\xd0\0\0\0\0" + b"z" * 2000)
        wait_until(lambda: len(told) == 3)
    assert told[1]["type"] == "websocket.disconnect"
    assert not caplog.records


def test_sending_after_the_client_has_closed_is_no_fault_of_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        told.append(await receive())
        try:
            await send({"type": "websocket.send", "text": "too late"})
        except OSError as error:
            told.append(error)
            raise

    with serving(app) as site:
        with client(site) as ws:
            ws.close()
        wait_until(lambda: len(told) == 2)
    assert isinstance(told[1], ClientDisconnected)
    assert not caplog.records
