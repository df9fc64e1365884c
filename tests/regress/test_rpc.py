"""Group ``rpc`` of libevent's regression suite, with messages described in Python.

Its test ``test`` is of C macros alone.
"""

from __future__ import annotations

from typing import Any

import pytest

from libevent_py import (
    EventBase,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    HttpServer,
    Rpc,
    RpcCall,
    RpcHook,
    RpcHookResult,
    RpcPool,
    RpcServer,
    RpcStatus,
    lib,
    log,
)
from tests.kit.flags import NewBase
from tests.kit.rpc_messages import REPLY, REQUEST, Kill, Msg, answer

INPUT, OUTPUT = RpcHook.INPUT, RpcHook.OUTPUT
CONTINUE, PAUSE = RpcHookResult.CONTINUE, RpcHookResult.PAUSE


class Setup:
    """A server of Message and NeverReply."""

    def __init__(self, base: EventBase) -> None:
        self.base = base
        self.http = HttpServer(base)
        self.port = self.http.bind_socket("127.0.0.1", 0).port
        self.server = RpcServer(self.http)
        self.saved: list[Rpc] = []
        self.server.register("Message", Msg, Kill, self.message)
        self.server.register("NeverReply", Msg, Kill, self.saved.append)
        self.need_input_hook = False

    def message(self, rpc: Rpc) -> None:
        """Reply, once the hook has been there."""
        if self.need_input_hook:
            assert rpc.http_request.input_headers["X-Hook"] == "input"
        answer(rpc)

    def connection(self) -> HttpConnection:
        """Return a connection to the server."""
        return HttpConnection(self.base, "127.0.0.1", self.port)

    def pool(self) -> RpcPool:
        """Return a pool with a connection to the server."""
        pool = RpcPool(self.base)
        pool.add_connection(self.connection())
        return pool

    def post(self, command: HttpCommand, body: bytes) -> tuple[int, bytes]:
        """Return the code and the body that a request of Message is answered by."""
        done: list[tuple[int, bytes]] = []

        def callback(request: HttpRequest) -> None:
            done.append((request.response_code, bytes(request.input_buffer)))
            self.base.loopexit()

        request = HttpRequest(callback)
        request.output_headers["Host"] = "somehost"
        request.output_buffer.add(body)
        with self.connection() as connection:
            connection.make_request(request, command, "/.rpc.Message")
            self.base.dispatch()
        return done[0]

    def teardown(self) -> None:
        """Unregister what `__init__` has registered."""
        self.server.unregister("Message")
        self.server.unregister("NeverReply")
        self.server.close()
        self.http.close()


@pytest.fixture
def setup(new_base: NewBase) -> Setup:
    return Setup(new_base())


def test_basic_test(setup: Setup) -> None:
    code, _ = setup.post(HttpCommand.POST, b"Some Nonsense")
    assert code == 503
    setup.teardown()


def test_basic_message(setup: Setup) -> None:
    code, body = setup.post(HttpCommand.POST, bytes(REQUEST))
    assert code == 200
    assert Kill.unmarshal(body) == REPLY
    setup.teardown()


def test_basic_client(setup: Setup) -> None:
    def add_header(name: str) -> Any:
        def hook(context: Any, request: Any, _buffer: Any) -> RpcHookResult:
            headers = request.input_headers if name == "input" else request.output_headers
            headers.add("X-Hook", name)
            assert context.connection is not None
            return CONTINUE

        return hook

    def add_meta(call: RpcCall, _request: Any, _buffer: Any) -> RpcHookResult:
        call.add_meta("meta", b"test\0")
        assert call.connection is not None
        return CONTINUE

    def remove_header(call: RpcCall, request: Any, _buffer: Any) -> RpcHookResult:
        assert request.input_headers["X-Hook"] == "output"
        del request.input_headers["X-Hook"]
        request.input_headers.add("X-Pool-Hook", "ran")
        assert call.find_meta("meta") == b"test\0"
        assert call.connection is not None
        return CONTINUE

    replies: list[RpcCall] = []

    def got_kill(call: RpcCall) -> None:
        assert call.http_request is not None
        assert call.http_request.input_headers["X-Pool-Hook"] == "ran"
        replies.append(call)
        setup.base.loopexit()

    setup.need_input_hook = True
    setup.server.add_hook(INPUT, add_header("input"))
    setup.server.add_hook(OUTPUT, add_header("output"))
    pool = setup.pool()
    pool.add_hook(OUTPUT, add_meta)
    pool.add_hook(INPUT, remove_header)
    for _ in range(3):
        pool.call("Message", REQUEST, Kill, got_kill)
        setup.base.dispatch()
    setup.teardown()
    assert [call.reply for call in replies] == [REPLY] * 3
    pool.close()


def test_basic_queued_client(setup: Setup) -> None:
    pool = setup.pool()
    replies: list[RpcCall] = []

    def got_kill(call: RpcCall) -> None:
        replies.append(call)
        setup.base.loopexit()

    one = pool.call("Message", REQUEST, Kill, replies.append)
    two = pool.call("Message", REQUEST, Kill, got_kill)
    setup.base.dispatch()
    setup.teardown()
    assert replies == [one, two]
    assert [call.reply for call in replies] == [REPLY] * 2
    pool.close()


def test_basic_client_with_pause(setup: Setup) -> None:
    called: list[Any] = []

    def pause(context: Any, _request: Any, _buffer: Any) -> RpcHookResult:
        def resume(_fd: int, _what: int) -> None:
            called.append(context)
            context.resume()

        setup.base.once(resume)
        return PAUSE

    replies: list[RpcCall] = []

    def got_kill(call: RpcCall) -> None:
        replies.append(call)
        setup.base.loopexit()

    pool = setup.pool()
    for when in RpcHook:
        setup.server.add_hook(when, pause)
        pool.add_hook(when, pause)
    pool.call("Message", REQUEST, Kill, got_kill)
    setup.base.dispatch()
    assert [call.reply for call in replies] == [REPLY]
    assert len(called) == 4
    setup.teardown()
    pool.close()


def test_invalid_type(setup: Setup) -> None:
    code, _ = setup.post(HttpCommand.GET, b"Some Nonsense")
    assert code == 503
    setup.teardown()


@pytest.mark.slow
def test_client_timeout(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    """A pool's timeout fails its calls; without a base, only by being its connections' (R1)."""
    pool = setup.pool()
    lib.evrpc_pool_set_timeout(pool.pointer, 1)
    statuses: list[RpcStatus | None] = []

    def got_error(call: RpcCall) -> None:
        statuses.append(call.status)
        setup.base.loopexit()

    pool.call("NeverReply", REQUEST, Kill, got_error)
    setup.base.dispatch()
    log.flush()
    assert statuses == [RpcStatus.TIMEOUT]
    assert [record.message for record in caplog.records] == [
        "event_add: event has no event_base set."
    ]
    [saved] = setup.saved
    answer(saved)
    setup.teardown()
    pool.close()
