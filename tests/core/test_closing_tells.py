"""Closing tells those who wait: they may close or make whatever they like, at that very moment."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    ClosedError,
    DnsBase,
    DnsBaseFlag,
    DnsServer,
    Event,
    EventBase,
    EventFlag,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    HttpServer,
    Listener,
    LoopFlag,
    RateLimit,
    RateLimitGroup,
    RpcPool,
    RpcServer,
    TlsContext,
)
from libevent_py._core.dispatch import roots
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.rpc_messages import REQUEST, Kill, Msg, answer
from tests.kit.support import run_python

GET = HttpCommand.GET


class Scene:
    """One of each noun on a base; who waits is told by `told`."""

    def __init__(self) -> None:
        base = self.base = EventBase()
        self.did: list[str] = []
        self.deed: Callable[[Scene], object] = lambda scene: None
        self.kept: list[Any] = []
        self.sockets = [*socket.socketpair(), *socket.socketpair()]
        for sock in self.sockets:
            sock.setblocking(False)
        self.event = Event.timer(base, self.told).add(100)
        self.bev = BufferEvent(base, self.sockets[0].detach())
        self.unconnected = BufferEvent(base)
        self.pair = BufferEvent.pair(base)
        self.buffer = Buffer()
        self.listener = Listener(base, ("127.0.0.1", 0), None)
        self.listener2 = Listener(base, ("127.0.0.1", 0), None)
        self.http = HttpServer(base)
        self.http2 = HttpServer(base)
        self.port = self.http.bind_socket("127.0.0.1", 0).port
        self.rpc = RpcServer(self.http2)
        self.dns = DnsBase(base, DnsBaseFlag(0))
        self.dns.nameserver_ip_add("127.0.0.1:9")
        self.names = DnsServer(base, ("127.0.0.1", 0), self.kept.append)
        self.group = RateLimitGroup(base, RateLimit(1000, 1000, 1000, 1000))
        self.connection = self.connect(None)
        self.by_name = self.connect(self.dns)
        self.idle_pool, self.pool = RpcPool(base), RpcPool(base)
        self.pool.add_connection(self.connect(None))
        self.idle = self.connect(None)
        self.idle_pool.add_connection(self.idle)

    def connect(self, dns: DnsBase | None) -> HttpConnection:
        host = "127.0.0.1" if dns is None else "host.example"
        return HttpConnection(self.base, host, self.port, dns_base=dns)

    def told(self, *_: object) -> None:
        self.did.append("told")
        if len(self.did) > 4:  # what is made may tell, too
            return
        with suppress(ValueError, RuntimeError, FileExistsError):  # ClosedError, too
            self.kept.append(self.deed(self))

    def leave(self) -> None:
        for sock in self.sockets:
            sock.close()


def waits_for_a_response(scene: Scene) -> Callable[[], object]:
    for _ in range(2):
        scene.connection.make_request(HttpRequest(scene.told), GET, "/")
    return scene.connection.close


def waits_for_a_lookup_of_a_host(scene: Scene) -> Callable[[], object]:
    scene.by_name.make_request(HttpRequest(scene.told), GET, "/")
    return scene.dns.close


def waits_for_a_reply(scene: Scene) -> Callable[[], object]:
    for _ in range(2):
        scene.pool.call("Name", REQUEST, Kill, scene.told)
    return scene.pool.close


def waits_for_a_reply_by_a_resolver(scene: Scene) -> Callable[[], object]:
    connection = scene.connect(scene.dns)
    scene.pool.remove_connection(scene.pool.connections[0])
    scene.pool.add_connection(connection)
    for _ in range(2):
        scene.pool.call("Name", REQUEST, Kill, scene.told)
    return scene.dns.close


def cancels(scene: Scene) -> Callable[[], object]:
    request = HttpRequest(scene.told)
    scene.connection.make_request(request, GET, "/")
    scene.connection.make_request(HttpRequest(scene.told), GET, "/")
    return request.cancel


def cancels_what_waits(scene: Scene) -> Callable[[], object]:
    scene.connection.make_request(HttpRequest(scene.told), GET, "/")
    request = HttpRequest(scene.told)
    scene.connection.make_request(request, GET, "/")
    return request.close


def waits_for_an_answer(scene: Scene) -> Callable[[], object]:
    scene.dns.resolve_ipv4("host.example", scene.told)
    scene.dns.getaddrinfo("host.example", 80, scene.told)
    return scene.dns.close


def finalizes(scene: Scene) -> Callable[[], object]:
    return lambda: scene.event.close(finalize=scene.told)


#: What waits to be told, and what tells it.
TELLERS = [
    waits_for_a_response,
    waits_for_a_lookup_of_a_host,
    waits_for_a_reply,
    waits_for_a_reply_by_a_resolver,
    cancels,
    cancels_what_waits,
    waits_for_an_answer,
    finalizes,
]

#: What is made, on what may not be closed yet while the base closes.
MAKERS: dict[str, Callable[[Scene], object]] = {
    "Event": lambda s: Event(s.base, s.sockets[2], EventFlag.READ, s.told),
    "Event.timer": lambda s: Event.timer(s.base, s.told),
    "Event.signal": lambda s: Event.signal(s.base, 10, s.told),
    "Event.user": lambda s: Event.user(s.base, s.told),
    "event.add": lambda s: s.event.add(1),
    "once": lambda s: s.base.once(s.told),
    "once on a descriptor": lambda s: s.base.once(s.told, fd=s.sockets[2], what=EventFlag.READ),
    "defer": lambda s: s.base.defer(s.told),
    "loopexit": lambda s: s.base.loopexit(1),
    "loop": lambda s: s.base.loop(LoopFlag.NONBLOCK),
    "common timeout": lambda s: s.base.init_common_timeout(1),
    "defer_callbacks": lambda s: s.buffer.defer_callbacks(s.base),
    "BufferEvent": lambda s: BufferEvent(s.base),
    "pair": lambda s: BufferEvent.pair(s.base),
    "filter": lambda s: BufferEvent.filter(s.bev, None, None),
    "filter on a pair": lambda s: BufferEvent.filter(s.pair[0], None, None),
    "tls": lambda s: BufferEvent.tls(s.base, -1, TlsContext(verify=False)),
    "tls_filter": lambda s: BufferEvent.tls_filter(s.bev, TlsContext(verify=False)),
    "connect_hostname": lambda s: s.unconnected.connect_hostname(s.dns, "host.example", 80),
    "bev.input": lambda s: s.bev.input,
    "RateLimitGroup": lambda s: RateLimitGroup(s.base, RateLimit(10, 10, 10, 10)),
    "rate limit group": lambda s: s.bev.add_to_rate_limit_group(s.group),
    "Listener": lambda s: Listener(s.base, ("127.0.0.1", 0), None),
    "DnsBase": lambda s: DnsBase(s.base, DnsBaseFlag(0)),
    "resolve": lambda s: s.dns.resolve_ipv4("a.example", lambda *_: None),
    "getaddrinfo": lambda s: s.dns.getaddrinfo("a.example", 80, lambda *_: None),
    "nameserver": lambda s: s.dns.nameserver_ip_add("127.0.0.1:11"),
    "DnsServer": lambda s: DnsServer(s.base, ("127.0.0.1", 0), s.told),
    "HttpServer": lambda s: HttpServer(s.base),
    "bind_socket": lambda s: s.http.bind_socket("127.0.0.1", 0),
    "bind_listener": lambda s: s.http.bind_listener(s.listener2),
    "add_virtual_host": lambda s: s.http.add_virtual_host("*", HttpServer(s.base)),
    "HttpConnection": lambda s: s.connect(None),
    "HttpConnection by name": lambda s: s.connect(s.dns),
    "make_request": lambda s: s.by_name.make_request(HttpRequest(lambda _: None), GET, "/"),
    "RpcServer": lambda s: RpcServer(s.http),
    "register": lambda s: s.rpc.register("Name", Msg, Kill, answer),
    "RpcPool": lambda s: RpcPool(s.base),
    "add_connection": lambda s: s.idle_pool.add_connection(s.connection),
    "remove_connection": lambda s: s.idle_pool.remove_connection(s.idle),
    "call": lambda s: s.idle_pool.call("Name", REQUEST, Kill, lambda _: None),
}

#: What is closed by those who are told.
CLOSERS: dict[str, Callable[[Scene], object]] = {
    "base": lambda s: s.base.close(),
    "all at once": lambda s: [
        thing.close()
        for thing in (s.base, s.pool, s.dns, s.connection, s.by_name, s.http, s.event, s.bev)
    ],
    "the other way round": lambda s: [
        thing.close()
        for thing in (s.bev, s.event, s.http, s.by_name, s.connection, s.dns, s.pool, s.base)
    ],
    "pool": lambda s: s.pool.close(),
    "resolver": lambda s: s.dns.close(),
    "connection": lambda s: (s.connection.close(), s.by_name.close()),
    "HTTP server": lambda s: (s.http.close(), s.http2.close()),
    "event": lambda s: s.event.close(),
}


def act(teller: Callable[[Scene], Callable[[], object]], deed: Any, tell: str, held: bool) -> None:
    """Have *deed* done by all who are told of a close."""
    scene = Scene()
    scene.deed = deed
    close = teller(scene)
    if tell == "base":
        if teller is finalizes:
            close()
        scene.base.close()
    else:
        close()
        if not scene.base.closed:
            for _ in range(5):
                scene.base.loop(LoopFlag.NONBLOCK)
            scene.base.close()
    assert scene.did
    assert scene.base.closed
    left = [child for ref in scene.base._ledger.values() if (child := ref()) is not None]
    assert not left
    made = [thing for thing in scene.kept if hasattr(thing, "closed")]
    assert all(thing.closed for thing in made), made
    scene.leave()
    if held:  # to be used, and closed, once more
        for thing in made:
            with suppress(ValueError):
                thing.close()
    del made, left


def sweep(deeds: dict[str, Any], tells: tuple[str, ...], step: int) -> None:
    """Do each of *deeds* whenever somebody is told, and check that nothing is left."""
    EventBase().loop(LoopFlag.NONBLOCK)
    gc.collect()
    before, bases = len(os.listdir("/proc/self/fd")), len(roots)
    cases = [(t, name, tell) for t in TELLERS for name in deeds for tell in tells]
    for number, (teller, name, tell) in list(enumerate(cases))[::step]:
        try:
            act(teller, deeds[name], tell, bool(number % 2))
        except BaseException as error:
            raise AssertionError(f"{teller.__name__}, {name}, {tell}") from error
        gc.collect()
        left = len(os.listdir("/proc/self/fd")) - before
        assert (left, len(roots)) == (0, bases), f"{teller.__name__}, {name}, {tell}: {left} left"


RUN = "from tests.core.test_closing_tells import *; sweep({}, {}, {})"


@VALGRIND_TAKES_LONG
def test_whatever_is_made_while_the_base_closes_is_refused_or_closed(valgrind: bool) -> None:
    run_python(RUN.format("MAKERS", ("base",), 1))
    run_python(RUN.format("MAKERS", ("base",), 17), valgrind=valgrind)


@VALGRIND_TAKES_LONG
def test_whatever_is_made_by_those_who_are_told_of_a_close_is_there_or_refused(
    valgrind: bool,
) -> None:
    run_python(RUN.format("MAKERS", ("owner",), 1))
    run_python(RUN.format("MAKERS", ("owner",), 19), valgrind=valgrind)


@VALGRIND_TAKES_LONG
def test_those_who_are_told_of_a_close_may_close_anything(valgrind: bool) -> None:
    run_python(RUN.format("CLOSERS", ("base", "owner"), 1))
    run_python(RUN.format("CLOSERS", ("base", "owner"), 3), valgrind=valgrind)


def test_an_rpc_server_is_not_made_while_the_base_closes() -> None:
    base = EventBase()
    http = HttpServer(base)
    port = http.bind_socket("127.0.0.1", 0).port
    connection = HttpConnection(base, "127.0.0.1", port)
    connection.make_request(HttpRequest(lambda _: RpcServer(http)), GET, "/")
    with pytest.raises(ClosedError, match="this EventBase is closed"):
        base.close()
    assert base.closed


def test_a_pool_is_freed_before_its_base_though_a_callback_that_it_tells_closes_that() -> None:
    run_python(
        """
        import gc, weakref
        from libevent_py import *
        from tests.kit.rpc_messages import REQUEST, Kill

        base = EventBase()
        pool = RpcPool(base)
        pool.add_connection(HttpConnection(base, "127.0.0.1", 9))
        told = []

        def tell(call):
            told.append(call.status)
            base.close()
            pool.close()
            assert base.closed and pool.closed

        for _ in range(2):
            pool.call("Name", REQUEST, Kill, tell)
        pool.close()
        assert len(told) == 2
        assert not base._ledger and not base._graveyard and base._condemned is None
        """,
        valgrind=True,
    )


def test_a_child_forked_by_who_is_told_of_a_close_finds_it_closed() -> None:
    run_python(
        """
        import os
        from libevent_py import *
        from tests.kit.rpc_messages import REQUEST, Kill

        base = EventBase()
        pool = RpcPool(base)
        pool.add_connection(HttpConnection(base, "127.0.0.1", 9))
        parent, children = os.getpid(), []
        pool.call("Name", REQUEST, Kill, lambda call: children.append(os.fork()))
        try:
            pool.close()
        except ForkError:
            assert os.getpid() != parent
        if os.getpid() != parent:
            base.reinit()
            assert pool.closed
            try:
                pool.call("Name", REQUEST, Kill, print)
            except ClosedError:
                pool.close()
                base.close()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(children[0], 0)[1] == 0
        base.close()
        """
    )
