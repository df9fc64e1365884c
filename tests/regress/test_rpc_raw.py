"""Group ``rpc`` through the raw layer: an `RpcPool` makes calls, and keeps its hooks, by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from libevent_py import EventBase, HttpServer, RpcServer, ffi, lib
from tests.kit.raw import FromC, add, copied
from tests.kit.rpc_messages import REPLY, REQUEST, Kill, Msg, answer

HOOK = "int(void *, struct evhttp_request *, struct evbuffer *, void *)"
CONTINUE, PAUSE, TERMINATE = lib.EVRPC_CONTINUE, lib.EVRPC_PAUSE, lib.EVRPC_TERMINATE


class Pool:
    """A ``struct evrpc_pool *`` with one connection to a server of Message; calls made with it."""

    def __init__(self, base: EventBase, from_c: FromC) -> None:
        self.base = base
        self.http = HttpServer(base)
        self.port = self.http.bind_socket("127.0.0.1", 0).port
        self.server = RpcServer(self.http)
        self.server.register("Message", Msg, Kill, answer)
        self.pool = lib.evrpc_pool_new(ffi.NULL)  # with a base, it takes no connection that has one
        self.connection = lib.evhttp_connection_base_new(
            base.pointer, ffi.NULL, b"127.0.0.1", self.port
        )
        lib.evrpc_pool_add_connection(self.pool, self.connection)
        #: The status of each call and the reply to it, by the number that it was made with.
        self.told: dict[int, tuple[int, bytes]] = {}
        self.replies: dict[Any, bytes] = {}
        self.marshal = from_c("void(struct evbuffer *, void *)")(self._marshal)
        self.clear = from_c("void(void *)")(self._clear)
        self.unmarshal = from_c("int(void *, struct evbuffer *)", -1)(self._unmarshal)
        self.done = from_c("void(struct evrpc_status *, void *, void *, void *)")(self._done)
        self.kept: list[Any] = []

    def _marshal(self, buffer: Any, _request: Any) -> None:
        add(buffer, bytes(REQUEST))

    def _clear(self, reply: Any) -> None:
        self.replies.pop(reply, None)

    def _unmarshal(self, reply: Any, buffer: Any) -> int:
        data = copied(buffer)
        if data != bytes(REPLY):
            return -1
        self.replies[reply] = data
        return 0

    def _done(self, status: Any, _request: Any, reply: Any, arg: Any) -> None:
        number = int(ffi.cast("intptr_t", arg))
        assert number not in self.told
        self.told[number] = status.error, self.replies.get(reply, b"")

    def call(self, number: int, name: bytes = b"Message") -> int:
        """Make a call."""
        request, reply = ffi.new("char *"), ffi.new("char *")
        self.kept += [request, reply]
        return int(
            lib.evrpc_send_request_generic(
                self.pool,
                ffi.cast("void *", request),
                ffi.cast("void *", reply),
                self.done,
                ffi.cast("void *", number),
                name,
                self.marshal,
                self.clear,
                self.unmarshal,
            )
        )

    def wait(self, count: int) -> None:
        """Run the loop until so many calls have ended."""
        while len(self.told) < count:
            self.base.loop(lib.EVLOOP_ONCE)


@pytest.fixture
def pool(backend_base: EventBase, from_c: FromC) -> Iterator[Pool]:
    pool = Pool(backend_base, from_c)
    yield pool
    lib.evrpc_pool_free(pool.pool)


def test_basic_client(pool: Pool, from_c: FromC) -> None:
    """evrpc_send_request_generic() gets replies; hooks are called in turn, until removed."""
    story: list[str] = []

    def hook(name: str) -> Any:
        @from_c(HOOK, TERMINATE)
        def hook(context: Any, _request: Any, _buffer: Any, arg: Any) -> int:
            story.append(name)
            assert arg == token
            assert lib.evrpc_hook_get_connection(context) == pool.connection
            found, size = ffi.new("void **"), ffi.new("size_t *")
            if name == "output":
                lib.evrpc_hook_add_meta(context, b"meta", b"test\0", 5)
                assert lib.evrpc_hook_find_meta(context, b"other", found, size) == -1
            else:
                assert lib.evrpc_hook_find_meta(context, b"meta", found, size) == 0
                assert bytes(ffi.buffer(found[0], size[0])) == b"test\0"
            return CONTINUE

        return hook

    token = ffi.new("int *")
    kinds = {"output": lib.EVRPC_OUTPUT, "input": lib.EVRPC_INPUT, "input again": lib.EVRPC_INPUT}
    handles = {
        name: lib.evrpc_add_hook(pool.pool, kind, hook(name), token) for name, kind in kinds.items()
    }
    assert all(handles.values())
    for number in range(2):
        assert pool.call(number) == 0
    pool.wait(2)
    assert pool.told == {number: (lib.EVRPC_STATUS_ERR_NONE, bytes(REPLY)) for number in range(2)}
    assert story == ["output", "input", "input again"] * 2

    assert lib.evrpc_remove_hook(pool.pool, lib.EVRPC_INPUT, handles["input"]) == 1
    assert lib.evrpc_remove_hook(pool.pool, lib.EVRPC_INPUT, handles["input"]) == 0
    assert lib.evrpc_remove_hook(pool.pool, lib.EVRPC_INPUT, handles["output"]) == 0
    story.clear()
    assert pool.call(2) == 0
    pool.wait(3)
    assert story == ["output", "input again"]


def test_basic_client_with_pause(pool: Pool, from_c: FromC) -> None:
    """A call goes on when its hook's context is resumed, and not before."""
    paused: list[Any] = []

    @from_c(HOOK, TERMINATE)
    def pause(context: Any, _request: Any, _buffer: Any, _arg: Any) -> int:
        paused.append(context)
        return PAUSE

    for kind in lib.EVRPC_INPUT, lib.EVRPC_OUTPUT:
        assert lib.evrpc_add_hook(pool.pool, kind, pause, ffi.NULL)
    assert pool.call(0) == 0
    for count in 1, 2:
        while len(paused) < count:
            pool.base.loop(lib.EVLOOP_ONCE)
        for _ in range(5):
            pool.base.loop(lib.EVLOOP_NONBLOCK)
        assert (len(paused), pool.told) == (count, {})
        assert lib.evrpc_resume_request(pool.pool, paused[-1], CONTINUE) == 0
    pool.wait(1)
    assert pool.told == {0: (lib.EVRPC_STATUS_ERR_NONE, bytes(REPLY))}


def test_terminated(pool: Pool, from_c: FromC) -> None:
    """A hook can end a call, and a server can lack it; the pool goes on to the next one."""
    ends: list[int] = [TERMINATE]

    @from_c(HOOK, TERMINATE)
    def end(_context: Any, _request: Any, _buffer: Any, _arg: Any) -> int:
        return ends.pop() if ends else CONTINUE

    assert lib.evrpc_add_hook(pool.pool, lib.EVRPC_OUTPUT, end, ffi.NULL)
    assert pool.call(0) == 0
    assert pool.call(1, b"Unknown") == 0
    assert pool.call(2) == 0
    pool.wait(3)
    assert pool.told == {
        0: (lib.EVRPC_STATUS_ERR_UNSTARTED, b""),
        1: (lib.EVRPC_STATUS_ERR_BADPAYLOAD, b""),
        2: (lib.EVRPC_STATUS_ERR_NONE, bytes(REPLY)),
    }


@pytest.mark.slow
def test_client_timeout(pool: Pool) -> None:
    """A call fails after the timeout of its pool's connection."""
    pool.server.register("NeverReply", Msg, Kill, kept.append)
    lib.evhttp_connection_set_timeout(pool.connection, 1)
    assert pool.call(0, b"NeverReply") == 0
    pool.wait(1)
    assert pool.told == {0: (lib.EVRPC_STATUS_ERR_TIMEOUT, b"")}
    kept.clear()


#: What is never replied to.
kept: list[Any] = []
