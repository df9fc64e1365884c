"""ASGI: what an application is told, and what becomes of what it sends."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py.serve import ClientDisconnected, StartupError
from tests.kit.certificates import Authority
from tests.kit.serving import GET, rest_of, serving, statuses, until, wait_until

CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})


def test_the_scope_says_what_was_asked() -> None:
    scopes: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await hello(scope, receive, send)

    with serving(app, root_path="/at") as site, site.connect() as sock:
        client = sock.getsockname()
        sock.sendall(
            b"PUT /caf%C3%A9%2Fx/?q=%20&r HTTP/1.1\r\nHost: a:1\r\nX-One: 1\r\nX-one:  2 \r\n"
            b"Connection: close\r\n\r\n"
        )
        assert statuses(rest_of(sock)) == [200]
    assert scopes == [
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "PUT",
            "scheme": "http",
            "path": "/at/café/x/",
            "raw_path": b"/at/caf%C3%A9%2Fx/",
            "query_string": b"q=%20&r",
            "root_path": "/at",
            "headers": [
                (b"host", b"a:1"),
                (b"x-one", b"1"),
                (b"x-one", b"2"),
                (b"connection", b"close"),
            ],
            "client": client,
            "server": (site.host, site.port),
        }
    ]


def test_an_absolute_uri_replaces_the_host() -> None:
    scopes: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await hello(scope, receive, send)

    with serving(app) as site:
        site.talk(CLOSE.replace(b" /", b" http://example.org:80?q", 1))
    assert scopes[0]["headers"][0] == (b"host", b"example.org:80")
    assert [name for name, _ in scopes[0]["headers"]].count(b"host") == 1
    assert (scopes[0]["raw_path"], scopes[0]["query_string"]) == (b"/", b"q")


def test_a_body_is_received_in_parts_and_then_a_disconnect() -> None:
    messages: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages.append(await receive())
        messages.append(await receive())
        await hello(scope, receive, send)
        messages.append(await receive())

    with serving(app) as site, site.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none")
        wait_until(lambda: messages)
        sock.sendall(b"two")
        assert until(sock, b"hello")
        wait_until(lambda: len(messages) == 3)
    assert messages == [
        {"type": "http.request", "body": b"one", "more_body": True},
        {"type": "http.request", "body": b"two", "more_body": False},
        {"type": "http.disconnect"},
    ]


@pytest.mark.parametrize("part", [b"", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"])
def test_a_client_that_leaves_is_told_at_once(part: bytes) -> None:
    told: list[tuple[str, float]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            told.append((message["type"], time.monotonic()))
        told.append((message["type"], time.monotonic()))

    with serving(app) as site:
        with site.connect() as sock:
            sock.sendall(part or GET)
            wait_until(lambda: told)
            left = time.monotonic()
        wait_until(lambda: len(told) == 2)
    assert told[1][0] == "http.disconnect"
    assert told[1][1] - left < 5


@pytest.mark.parametrize("end", ["half", "close", "reset"])
def test_a_client_that_leaves_is_told_though_requests_of_its_wait(end: str) -> None:
    told: list[str] = []
    paths: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        if scope["path"] == "/":
            while (message := await receive())["type"] == "http.request":
                told.append(message["type"])
            told.append(message["type"])
        await hello(scope, receive, send)

    with serving(app) as site, site.connect() as sock:
        sock.sendall(GET)
        wait_until(lambda: told)
        sock.sendall(GET.replace(b"/", b"/2", 1) + GET.replace(b"/", b"/3", 1))
        time.sleep(0.1)  # until they have been read, and reading has stopped
        if end == "half":
            sock.shutdown(socket.SHUT_WR)
            assert statuses(rest_of(sock)) == [200] * 3
        elif end == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        wait_until(lambda: len(told) == 2)
    assert told[1] == "http.disconnect"
    if end != "close":
        assert paths == (["/"] if end == "reset" else ["/", "/2", "/3"])


@pytest.mark.parametrize("apart", [False, True])
def test_requests_before_the_end_of_a_client_s_output_are_all_answered(apart: bool) -> None:
    begun: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["path"])
        await asyncio.sleep(0.2)  # until the server could see the end
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    parts = [GET.replace(b"/", path, 1) for path in (b"/1", b"/2", b"/3")]
    parts.append(b"GET /torn HTTP/1.1\r\n")
    with serving(app) as site, site.connect() as sock:
        for part in parts if apart else [b"".join(parts)]:
            sock.sendall(part)
            wait_until(lambda: begun)
        sock.shutdown(socket.SHUT_WR)
        got = rest_of(sock)
    assert statuses(got) == [200] * 3
    assert begun == ["/1", "/2", "/3"]


def test_an_answer_is_sent_to_its_end_though_the_client_sends_no_more() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": bytes(20_000_000)})

    with serving(app) as site, site.connect() as sock:
        sock.sendall(GET)
        head = sock.recv(1000)
        sock.shutdown(socket.SHUT_WR)
        time.sleep(0.2)  # until the server has seen that
        got = head + rest_of(sock)
    assert len(got.partition(b"\r\n\r\n")[2]) == 20_000_000


def test_an_answer_by_tls_is_sent_to_its_end_though_the_client_sends_no_more(
    authority: Authority,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": bytes(20_000_000)})

    server = authority.server
    names = {"tls_cert": str(server.certfile), "tls_key": str(server.keyfile)}
    context = ssl.create_default_context(cafile=str(authority.ca.certfile))
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(serving(app, write_timeout=5.0, **names))
        sock = context.wrap_socket(site.connect(), server_hostname="localhost")
        stack.enter_context(sock)
        sock.sendall(GET)
        assert sock.recv(1000)
        sock.shutdown(socket.SHUT_WR)  # from here on it reads as it is, encrypted
        time.sleep(0.2)  # until the server has seen that
        assert len(rest_of(sock)) > 19_900_000


def test_sending_to_a_client_that_has_left_raises() -> None:
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                part = {"type": "http.response.body", "body": bytes(100000), "more_body": True}
                await send(part)
        except OSError as error:
            raised.append(error)
            raise

    with serving(app) as site:
        with site.connect() as sock:
            sock.sendall(GET)
            sock.recv(1000)
        wait_until(lambda: raised)
    assert isinstance(raised[0], ClientDisconnected)


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_application_that_raises_is_500_or_the_end(
    after: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if after > 0:
            await send({"type": "http.response.start", "status": 200})
        if after == 2:
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
        if after == 3:
            await send({"type": "http.response.body", "body": b"whole"})
        raise ZeroDivisionError("oh")

    with serving(app) as site:
        got = site.talk(CLOSE)
    assert statuses(got) == [500 if after < 2 else 200]
    assert got.endswith(
        [b"Internal Server Error", b"Internal Server Error", b"part\r\n", b"whole"][after]
    )
    assert "ZeroDivisionError: oh" in caplog.text


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"type": "http.response.start", "status": 200}],
        [{"type": "http.response.body", "body": b"x"}],
        [{"type": "http.response.start", "status": 99}, {"type": "http.response.body"}],
        [{"type": "http.response.start", "status": 200}] * 2,
        [{"type": "nonsense"}],
        [{}],
    ],
)
def test_messages_out_of_order_are_500(messages: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    with serving(app) as site:
        assert statuses(site.talk(CLOSE)) == [500]
    assert len(caplog.records) == 1


def test_what_is_no_coroutine_function_is_served_if_said_to_be_asgi() -> None:
    class Answer:
        def __init__(self, scope: Any, receive: Any, send: Any) -> None:
            self.arguments = scope, receive, send

        def __await__(self) -> Any:
            return hello(*self.arguments).__await__()

    def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    with serving(Answer, interface="asgi") as site:
        assert statuses(site.talk(CLOSE)) == [200]
    for app in broken, lambda *_: None:
        with serving(app, interface="asgi") as site:
            assert statuses(site.talk(CLOSE)) == [500]


def test_a_request_has_a_task_and_a_context_of_its_own() -> None:
    seen: list[Any] = []
    variable = contextvars.ContextVar("variable", default=0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((asyncio.current_task(), variable.get()))
        variable.set(1)
        async with asyncio.timeout(10) if hasattr(asyncio, "timeout") else asyncio.Lock():
            await hello(scope, receive, send)

    with serving(app) as site:
        assert statuses(site.talk(GET + GET + CLOSE)) == [200, 200, 200]
    assert len({task for task, _ in seen}) == 3
    assert [value for _, value in seen] == [0, 0, 0]
    assert None not in dict(seen)


def test_answers_end_in_another_request_s_task() -> None:
    """The next request on a connection then begins inside a running task."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        assert asyncio.current_task() is not None
        await hello(scope, receive, send)

    with serving(app) as site:
        assert statuses(site.talk(GET * 20 + CLOSE)) == [200] * 21


def test_work_goes_on_after_the_answer_until_the_worker_ends() -> None:
    done: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        await asyncio.sleep(0.2)
        done.append("done")

    with serving(app) as site:
        assert statuses(site.talk(CLOSE)) == [200]
        assert not done
    assert done == ["done"]


# Lifespan.


def lifespan(told: list[str], **answers: Any) -> Callable[..., Any]:
    """Return an application that answers to lifespan with *answers*."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            told.append(scope["state"]["who"])
            await hello(scope, receive, send)
            return
        scope["state"]["who"] = "shared"
        while True:
            message = await receive()
            told.append(message["type"])
            phase = message["type"].partition(".")[2]
            answer = answers.get(phase, "complete")
            if isinstance(answer, Exception):
                raise answer
            await send({"type": f"lifespan.{phase}.{answer}", "message": "no luck"})
            if phase == "shutdown":
                return

    return app


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_startup_and_shutdown_are_told_and_state_is_shared(mode: str) -> None:
    told: list[str] = []
    with serving(lifespan(told), lifespan=mode) as site:
        assert statuses(site.talk(GET + CLOSE)) == [200, 200]
    assert told == ["lifespan.startup", "shared", "shared", "lifespan.shutdown"]


def test_an_application_that_fails_to_start_is_not_served() -> None:
    told: list[str] = []
    app = lifespan(told, startup="failed")
    with pytest.raises(StartupError, match="no luck"), serving(app, lifespan="auto"):
        pass
    assert told == ["lifespan.startup"]


def test_an_application_without_lifespan_is_served_unless_it_has_to_have_it() -> None:
    app = lifespan([], startup=ValueError("what?"))

    async def returns(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await hello(scope, receive, send)

    for each in returns, hello:
        with serving(each, lifespan="auto") as site:
            assert statuses(site.talk(CLOSE)) == [200]
    for each, why in (app, "ValueError"), (returns, "has returned"):
        with pytest.raises(StartupError, match=why), serving(each, lifespan="on"):
            pass


def test_a_failure_to_shut_down_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    for answer in "failed", ZeroDivisionError("oh"):
        with serving(lifespan([], shutdown=answer), lifespan="on"):
            pass
    assert caplog.text.count("has failed to shut down") == 2


# What an application shouldn't do.


def test_an_application_that_stops_its_loop_is_served_nevertheless(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)
        await hello(scope, receive, send)

    with serving(app) as site:
        assert statuses(site.talk(GET + CLOSE)) == [200, 200]
    assert "has stopped its loop" in caplog.text


def test_an_application_that_closes_its_loop_gets_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        asyncio.get_running_loop().close()

    with serving(app) as site:
        assert statuses(site.talk(CLOSE)) == [500]
        assert statuses(site.talk(CLOSE)) == [500]
    assert "Cannot close a running event loop" in caplog.text


def test_an_application_that_exits_ends_the_worker() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit, match="3"), serving(app) as site:
        assert site.talk(GET) == b""


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("when", ["at once", "later", "at startup", "at shutdown"])
def test_what_ends_the_worker_is_told_once(when: str, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            if when != "at startup":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
        elif when == "later":
            await asyncio.sleep(0.01)
        raise SystemExit(3)

    mode = "on" if when.startswith("at s") else "off"
    with pytest.raises(SystemExit, match="3"), serving(app, lifespan=mode) as site:
        if mode == "off":
            assert site.talk(GET) == b""
    gc.collect()
    assert "exception" not in caplog.text


def test_an_answer_to_another_question_is_none() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    refused = pytest.raises(StartupError, match=r"must be lifespan\.startup\.complete")
    with refused, serving(app, lifespan="on"):
        pass


@pytest.mark.parametrize("body", [3, "text", [1, 2], None])
def test_a_body_that_is_no_bytes_is_refused(body: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})

    with serving(app) as site:
        assert statuses(site.talk(CLOSE)) == [500]
    assert "what is sent must be bytes" in caplog.text


def test_tasks_that_do_not_end_are_cancelled_in_time(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
            await asyncio.sleep(1000)
        finally:
            ended.append("cancelled")

    caplog.set_level(logging.WARNING)
    with serving(app, graceful_timeout=0.2) as site, site.connect() as sock:
        sock.sendall(GET)
        until(sock, b"part\r\n")
        site.config.shutdown.set()
        assert not rest_of(sock)
    assert ended == ["cancelled"]
    assert "closing 1 connections with 1 requests in flight" in caplog.text


@pytest.mark.parametrize("http", ["httptools", "evhttp"])
@pytest.mark.parametrize(
    "header", [(b"X", b"two\nlines"), (b"Content-Length", b"9")], ids=["line", "length"]
)
def test_an_answer_that_could_not_be_sent_is_not_complete(
    http: str, header: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [header]})
        with pytest.raises(ValueError, match=r"one line|must not contain|Content-Length"):
            await send({"type": "http.response.body", "body": b"hello"})

    with serving(app, http=http) as site:
        assert statuses(site.talk(CLOSE)) == [500]
    assert "the application has returned without a complete answer" in caplog.text


def test_who_sends_is_told_when_a_client_leaves_that_had_ended_its_output() -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            pass
        told.append(message)
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                body = {"type": "http.response.body", "body": b"x" * 65536, "more_body": True}
                await send(body)
        except ClientDisconnected as error:
            told.append(error)

    with serving(app) as site:
        with site.connect() as sock:
            sock.sendall(GET)
            sock.shutdown(socket.SHUT_WR)
            until(sock, b"x")
            time.sleep(0.1)  # until send() waits
        wait_until(lambda: len(told) == 2)


@pytest.mark.parametrize("end", ["return", "body", "raise"])
def test_another_task_of_a_request_that_has_ended_waits_no_longer(end: str) -> None:
    done: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        part = {"type": "http.response.body", "body": b"x" * 65536, "more_body": True}

        async def flood() -> None:
            try:
                while True:
                    await send(part)
            except (ClientDisconnected, RuntimeError) as error:
                done.append(error)

        await receive()
        await send({"type": "http.response.start", "status": 200})
        task = asyncio.create_task(flood())
        done.append(task)  # so that it isn't collected
        await asyncio.sleep(0.1)  # until it waits
        if end == "body":
            await send({"type": "http.response.body"})
        if end == "raise":
            raise ZeroDivisionError

    with serving(app) as site, site.connect() as sock:
        sock.sendall(GET)
        wait_until(lambda: len(done) == 2)
