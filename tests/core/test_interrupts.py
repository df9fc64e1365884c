"""KeyboardInterrupt at each step of each method, and what else ends one midway: nothing is left.

`tests/kit/sweep.py` tries it, and looks for descriptors, bases and pointers that are still there.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventOption,
    DnsBase,
    DnsServer,
    DnsServerRequest,
    Event,
    EventBase,
    EventFlag,
    FilterResult,
    HttpConnection,
    HttpServer,
    HttpServerRequest,
    Listener,
    ListenerOption,
    LoopFlag,
    RpcPool,
    RpcServer,
    TriggerOption,
    errors,
    lib,
)
from libevent_py._core.dispatch import live, roots
from libevent_py._core.handle import WithoutPointer
from libevent_py._core.wakeup import wakeup
from tests.kit.certificates import HOST
from tests.kit.interposing import Interposer, Within, interrupt
from tests.kit.operations import OPERATIONS
from tests.kit.peers import ANYWHERE, is_open
from tests.kit.rpc_messages import REQUEST, Kill
from tests.kit.scenes import ignore
from tests.kit.support import PATIENCE, run_python, swept
from tests.kit.tls_peers import tls_contexts

#: How many steps of each method are tried at most, where all of them would take too long.
MOST = {"BufferEvent": 1}

#: How many steps `make more` tries of what takes some seconds (0: all), and `make test`.
LONG = {
    "Buffer": 16,
    "BufferEvent": 16,
    "DnsBase": 0,
    "EventBase": 0,
    "Headers": 0,
    "HttpConnection": 16,
    "HttpRequest": 16,
    "HttpServer": 16,
    "HttpServerConnection": 0,
    "HttpServerRequest": 16,
    "Rpc": 0,
    "RpcCall": 0,
    "RpcPool": 0,
}
SAMPLE = 2
#: And one of so many of a class's operations.
SHARES = {"BufferEvent": 3}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OPERATIONS)
def test_an_interrupt_leaves_nothing_wherever_it_comes(kind: str, tmp_path: Path) -> None:
    some = ["--most", str(MOST.get(kind, SAMPLE))] if kind in LONG else []
    share = str(SHARES.get(kind, 1))
    swept(tmp_path, kind, "--act", "interrupt", *some, "--share", share)


@pytest.mark.more
@pytest.mark.parametrize("kind", LONG)
def test_an_interrupt_leaves_nothing_at_more_steps(kind: str, tmp_path: Path) -> None:
    swept(tmp_path, kind, "--act", "interrupt", "--most", str(LONG[kind]))


@pytest.fixture(autouse=True)
def _uncollected() -> Iterator[None]:
    """Let no finalizer of what another test has left get the interrupt."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def interrupted(function: Callable[[], object]) -> int:
    """Interrupt *function* at each instruction where a signal handler can run; count them."""
    number = 0
    while True:
        interposer = Interposer(interrupt, number, signals=True)
        try:
            interposer.run(function)
        except KeyboardInterrupt:
            number += 1
            continue
        return number


def test_steps_are_counted_from_the_first_run_in_a_process_on() -> None:
    """Pythons differ in when they begin to tell of instructions."""
    told = run_python(
        """
        from libevent_py import EventBase
        from tests.kit.interposing import Interposer

        def once(function):
            # Have all that is made for the first base made.
            function()

        def steps(function):
            interposer = Interposer(int, -1, signals=True)
            interposer.run(function)
            return interposer.steps

        for by in once, steps, steps:
            with EventBase() as base:
                base.defer(int)
                print(by(base.dispatch))
        """
    )
    _, first, second = told.split()
    assert int(first) == int(second) > 20


def test_a_base_that_is_interrupted_while_it_is_made_leaves_no_descriptor() -> None:
    EventBase().close()
    gc.collect()
    before, bases = descriptors(), len(roots)

    made: list[EventBase] = []

    def make() -> None:
        made.append(EventBase(method="poll", priorities=3))

    assert interrupted(make) > 50
    for base in made:
        base.close()
    made.clear()
    del base
    gc.collect()
    assert (descriptors(), len(roots), live.bases) == (before, bases, ())


MAKE_DESCRIPTORS = {
    "pair": "[sock.close() for sock in util.socketpair()]",
    "server": "DnsServer(base, bound, print).close()",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", MAKE_DESCRIPTORS)
def test_a_descriptor_that_has_just_been_made_is_closed_though_an_interrupt_comes(
    what: str,
) -> None:
    run_python(f"""
    import contextlib, gc, os, socket
    from libevent_py import DnsServer, EventBase, LoopFlag, util
    from tests.kit.interposing import Interposer, interrupt

    def once(number):
        with EventBase() as base, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
            bound.bind(("127.0.0.1", 0))
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(lambda: {MAKE_DESCRIPTORS[what]})
        return interposer.where

    once(-1)
    before, number = len(os.listdir("/proc/self/fd")), 0
    while where := once(number):
        number += 1
        gc.collect()  # traced frames are in cycles
        assert len(os.listdir("/proc/self/fd")) == before, where
    assert number > 5
    """)


def test_a_loop_that_is_interrupted_leaves_nothing_to_be_called() -> None:
    with EventBase() as base:
        base.dispatch()

        def run() -> None:
            base.once(lambda fd, what: None)
            base.dispatch()

        assert interrupted(run) > 30
        assert not base._running
        assert live.bases == ()
        run()


def test_an_interrupted_loop_puts_the_wakeup_descriptor_back() -> None:
    with EventBase() as base, socket.socket() as user_s:
        user_s.setblocking(False)
        base.dispatch()
        signal.set_wakeup_fd(user_s.fileno())
        found: set[int] = set()

        def run() -> None:
            try:
                base.dispatch()
            finally:
                found.add(signal.set_wakeup_fd(user_s.fileno()))

        try:
            assert interrupted(run) > 30
            assert found == {user_s.fileno()}
            assert wakeup().previous == -1
        finally:
            signal.set_wakeup_fd(-1)


@pytest.mark.slow
def test_a_close_that_is_interrupted_is_ended_by_the_next() -> None:
    gc.collect()
    before, bases = descriptors(), len(roots)
    number = 0
    while True:
        base = EventBase()
        event = Event.timer(base, print).add(1000)
        pair = BufferEvent.pair(base)
        listener = Listener(base, ("127.0.0.1", 0), None)
        interposer = Interposer(interrupt, number, signals=True)
        try:
            interposer.run(base.close)
        except KeyboardInterrupt:
            number += 1
        ended = interposer.where is None
        base.close()
        assert base.closed
        assert all(each.closed for each in (event, listener, *pair))
        del base, event, pair, listener
        gc.collect()
        assert (descriptors(), len(roots), live.bases) == (before, bases, ())
        if ended:
            break
    assert number > 100


# What else ends a close midway.


def deep(levels: int, function: Callable[[], object]) -> object:
    return deep(levels - 1, function) if levels else function()


def test_a_close_near_the_recursion_limit_is_refused_or_done() -> None:
    """Else the base was half closed, and never freed."""
    gc.collect()
    before, bases, refused = descriptors(), len(roots), 0
    for levels in range(sys.getrecursionlimit() - 150, sys.getrecursionlimit()):
        base = EventBase()
        Event.timer(base, print).add(5)
        BufferEvent.pair(base)
        try:
            deep(levels, base.close)
        except RecursionError:
            refused += 1
        base.close()
        del base
    gc.collect()
    assert 0 < refused < 150
    assert (descriptors(), len(roots)) == (before, bases)


def test_a_base_is_freed_though_a_user_s_close_raises() -> None:
    class Mine(Event):
        def close(self, finalize: Callable[[object], object] | None = None) -> None:  # type: ignore[override]
            raise ZeroDivisionError

    gc.collect()
    before = descriptors()
    base = EventBase()
    mine = Mine.timer(base, print).add(5)
    other = Event.timer(base, print).add(5)
    with pytest.raises(ZeroDivisionError):
        base.close()
    assert base.closed
    assert mine.closed
    assert other.closed
    del base, mine, other
    gc.collect()
    assert descriptors() == before


@pytest.mark.parametrize("calls", [True, False], ids=["calls super", "doesn't"])
def test_a_user_s_finalizer_is_followed_by_the_one_that_frees(calls: bool) -> None:
    seen: list[str] = []

    class Mine(Event):
        def __del__(self) -> None:
            seen.append("mine")
            if calls:
                super().__del__()

    class Heir(Mine):
        pass

    class Base(EventBase):
        def __del__(self) -> None:
            seen.append("base")

    gc.collect()
    before = descriptors()
    base = Base()
    for kind in (Mine, Heir):
        event = kind.timer(base, print).add(5)
        event.delete()
        del event
    assert seen == ["mine", "mine"]
    base.close()
    assert not base._ledger
    del base
    gc.collect()
    assert seen[2:] == ["base"]
    base = Base()
    base.once(lambda fd, what: None)
    del base
    gc.collect()
    assert seen[3:] == ["base"]
    assert descriptors() == before


def test_a_base_waits_for_what_an_exception_keeps_from_being_let_go() -> None:
    """Freed before, it would be used by what is freed when the traceback goes."""
    code = """
    from libevent_py import *
    base = EventBase()
    def on_event(bev, what):
        bev.close()
        raise ZeroDivisionError
    bev = BufferEvent(base, on_event=on_event)
    try:
        bev.connect_hostname(None, "." * 300, 80)
    except ZeroDivisionError as error:
        kept = error
    base.close()
    assert base.closed and base._condemned is not None
    del kept
    assert base._condemned is None
    """
    run_python(code, valgrind=True)


# What C calls.


def dispatch(base: EventBase, names: str, number: int, told: list[Any]) -> bool:
    """Run the loop until it is *told*, interrupting *names* at *number*; tell whether that came."""
    interposer = Within(interrupt, number, signals=True)
    interposer.names = tuple(names.split())
    base.loopexit(PATIENCE)
    with contextlib.suppress(KeyboardInterrupt):
        interposer.run(base.dispatch)
    if not told:
        base.loopexit(PATIENCE)
        base.dispatch()
    return interposer.where is not None


@pytest.mark.parametrize("asks", ["resolve_ipv4", "getaddrinfo"])
def test_a_lookup_is_told_once_though_its_answer_is_interrupted(asks: str) -> None:
    """C frees what the lookup has a handle of."""
    number, interrupts = 0, True
    while interrupts:
        told: list[object] = []

        def serve(request: DnsServerRequest) -> None:
            request.add_a_reply(request.questions[0].name, "127.0.0.1", ttl=5)
            request.respond()

        with EventBase() as base:

            def answered(
                *answer: object, base: EventBase = base, told: list[object] = told
            ) -> None:
                told.append(answer)
                base.loopexit()

            server = DnsServer(base, ("127.0.0.1", 0), serve)
            dns = DnsBase(base, 0)
            dns.nameserver_sockaddr_add(server.address)
            if asks == "getaddrinfo":
                dns.getaddrinfo("a.test", "80", answered)
            else:
                dns.resolve_ipv4("a.test", answered)
            names = "evpy_dns_resolved evpy_dns_addrinfo called _answer _ends _read _tell"
            interrupts = dispatch(base, names, number, told)
            dns.close()
            server.close()
        assert len(told) == 1, number
        number += 1
    assert number > 8


def test_a_query_that_an_interrupt_leaves_nobody_s_keeps_no_socket_open() -> None:
    """N2: libevent waits with the socket for each request that is neither answered nor dropped."""
    before, number = descriptors(), 0
    query = b"\0\1\1\0\0\1\0\0\0\0\0\0\1a\4test\0\0\1\0\1"
    interposer = None
    while interposer is None or interposer.where is not None:
        interposer = Within(interrupt, number, signals=True)
        interposer.names = (
            "evpy_dns_query",
            "_begin",
            "__init__",
            "_question",
            "respond",
            "_answer",
            "_fail",
        )
        with EventBase() as base, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            server = DnsServer(base, ("127.0.0.1", 0), lambda request: request.respond())
            client.sendto(query, server.address)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(base.loop, LoopFlag.ONCE)
            base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)
            server.close()
        assert descriptors() == before, interposer.where
        number += 1
    assert number > 20


def test_a_client_is_answered_though_an_interrupt_keeps_its_request_from_the_handler() -> None:
    number, interposer = 0, None
    while interposer is None or interposer.where is not None:
        interposer = Within(interrupt, number, signals=True)
        interposer.names = ("evpy_http_request", "made")
        with EventBase() as base, socket.socket() as client:
            server = HttpServer(base)
            server.set_gencb(lambda request: request.send_reply(200, "OK", b"x"))
            bound = server.bind_socket("127.0.0.1", 0)
            client.connect(("127.0.0.1", bound.port))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.setblocking(False)
            answered: list[bytes] = []

            def came(
                event: Event, fd: int, what: EventFlag, answered: list[bytes] = answered
            ) -> None:
                answered.append(os.read(fd, 1000))
                event.base.loopexit()

            Event(base, client, EventFlag.READ, came).add(PATIENCE)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(base.dispatch)
            if not answered:
                base.dispatch()
            server.close()
        assert answered[0][:12] in (b"HTTP/1.1 200", b"HTTP/1.1 500"), interposer.where
        number += 1
    assert number > 3


def test_the_end_of_a_request_is_told_once_though_that_is_interrupted() -> None:
    """C frees the request then."""
    number, interrupts = 0, True
    while interrupts:
        told: list[tuple[str, object]] = []

        def on_end(request: HttpServerRequest, told: list[tuple[str, object]] = told) -> None:
            told.append((request.uri, request.error))
            request.input_headers.items()
            request.base.loopexit()

        def handler(request: HttpServerRequest) -> None:
            request.on_end = on_end
            request.send_reply(200, None, b"x")

        with EventBase() as base:
            server = HttpServer(base)
            server.set_gencb(handler)
            port = server.bind_socket("127.0.0.1", 0).port
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n")
                interrupts = dispatch(base, "evpy_http_completed tell", number, told)
            server.close()
        assert told == [("/one", None)], number
        number += 1
    assert number > 5


def test_connecting_is_tried_again_once_though_the_end_of_a_try_is_interrupted() -> None:
    """C tells of the end once more then; evhttp would loop for ever over a request added twice."""
    run_python(
        """
    import contextlib
    from libevent_py import EventBase, HttpCommand, HttpConnection, HttpRequest
    from tests.kit.interposing import Within, interrupt
    from tests.kit.peers import nobody_accepts

    def once(number):
        told = []
        with EventBase() as base:
            connection = HttpConnection(base, *address)
            connection.timeout = 0.005
            connection.retries, connection.initial_retry = 2, 0.001
            connection.make_request(HttpRequest(told.append), HttpCommand.GET, "/")
            interposer = Within(interrupt, number, signals=True)
            interposer.names = ("_could_not_connect", "_may_not_call", "_forget_ending")
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(base.dispatch)
            base.dispatch()
            assert len(told) == 1, (told, number, interposer.where)
            assert told[0].error.__cause__.errno == 110, (told, number, interposer.where)
            connection.close()
        return interposer.where is not None

    number = 0
    with nobody_accepts() as address:
        while once(number):
            number += 1
    assert number > 20, number
    """
    )


@pytest.mark.slow
def test_a_base_closes_though_the_collector_frees_what_is_on_it_meanwhile() -> None:
    class Node:
        pass

    for round in range(30):
        gc.disable()
        base = EventBase()
        kept = [Event.timer(base, print).add(99) for _ in range(2000)]
        for _ in range(20):
            node = Node()
            node.event, node.node = Event.timer(base, print).add(99), node  # type: ignore[attr-defined]
            node.event.delete()  # type: ignore[attr-defined]
        del node
        pairs = [(n, n) for n in range(30_000)]  # so that new ones are really allocated
        thresholds = gc.get_threshold()
        gc.set_threshold(gc.get_count()[0] + 100 * round + 1, 1000, 1000)
        gc.enable()
        base.close()
        gc.set_threshold(*thresholds)
        assert base.closed
        del kept, pairs
        gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["filter", "tls_filter"])
def test_a_layer_whose_close_is_interrupted_is_not_called_any_more(layer: str) -> None:
    code = f"""
    from libevent_py import BufferEvent, BufferEventOption, EventBase, EventFlag, LoopFlag
    from tests.core.test_interrupts import interrupted_close
    from tests.kit.tls_peers import tls_contexts

    given = [tls_contexts()[1]] if {layer!r} == "tls_filter" else [None, None]
    number = 0
    while True:
        with EventBase() as base:
            below, peer = BufferEvent.pair(base, BufferEventOption.DEFER_CALLBACKS)
            got = []
            below.setcb(lambda bev: got.append(bytes(bev.read())), None, None)
            upper = BufferEvent.{layer}(below, *given, options=BufferEventOption(0))
            peer.write(b"hello")
            ended = interrupted_close(upper, number)
            upper.close()
            base.loop(LoopFlag.NONBLOCK)  # frees it
            below.enable(EventFlag.READ)
            peer.write(b"hello")
            base.loop(LoopFlag.NONBLOCK)
            assert got, number
        if ended:
            break
        number += 1
    assert number > 10
    """
    run_python(code)


def interrupted_close(bev: BufferEvent, number: int) -> bool:
    """Interrupt the close of *bev* at its *number*-th step; tell whether it has no such step."""
    interposer = Interposer(interrupt, number, signals=True)
    with contextlib.suppress(KeyboardInterrupt):
        interposer.run(bev.close)
    return interposer.where is None


#: For each kind of thing: how it is made, and how it is closed.
CLOSES = {
    "connection": ("HttpConnection(base, '127.0.0.1', 9)", "thing.close()"),
    "server": ("HttpServer(base)", "thing.close()"),
    "group": ("RateLimitGroup(base, RateLimit(10))", "thing.close()"),
    "event": ("Event.timer(base, print).add(100)", "thing.close()"),
    "finalizer": ("Event.timer(base, print).add(100)", "thing.close(told.append)"),
    "bufferevent": ("BufferEvent(base)", "thing.close()"),
    "flushed": ("BufferEvent(base)", "thing.close(flush=True)"),
    "inherited": ("written(base)", "thing.close(flush=True)"),
    "eager": ("BufferEvent(base, options=BufferEventOption.EAGER)", "thing.close()"),
    "limited": ("limited(base)", "thing.close()"),
    "newly limited": ("BufferEvent(base)", "setattr(thing, 'rate_limit', RateLimit(10))"),
    "limited anew": ("limited(base)", "setattr(thing, 'rate_limit', RateLimit(20))"),
    "limited no more": ("limited(base)", "setattr(thing, 'rate_limit', None)"),
    "limited by the loop": ("limited(base)", "later(setattr, thing, 'rate_limit', RateLimit(20))"),
    "let go by the loop": ("limited(base)", "later(setattr, thing, 'rate_limit', None)"),
    "group's limit": (
        "RateLimitGroup(base, RateLimit(10))",
        "setattr(thing, 'limit', RateLimit(20))",
    ),
    "filter": ("BufferEvent.filter(BufferEvent(base), None, None)", "thing.close()"),
    "TLS": ("BufferEvent.tls(base, -1, tls_contexts()[1])", "thing.close()"),
    "TLS filter": ("BufferEvent.tls_filter(BufferEvent(base), tls_contexts()[1])", "thing.close()"),
    "listener": ("Listener(base, ('127.0.0.1', 0), print)", "thing.close()"),
    "resolver": ("DnsBase(base, 0)", "thing.close()"),
    "DNS server": ("DnsServer(base, ('127.0.0.1', 0), print)", "thing.close()"),
    "DNS request": ("asked(base)", "thing.close()"),
    "DNS request with its server": ("asked(base)", "thing.server.close()"),
    "DNS answer": ("asked(base)", "thing.respond()"),
    "RPC server": ("RpcServer(HttpServer(base))", "thing.close()"),
    "pool": ("pooled(base)", "thing.close()"),
    "filled pool": ("RpcPool(base)", "thing.add_connection(client(base))"),
    "emptied pool": ("pooled(base)", "thing.remove_connection(*keep(thing.connections))"),
    "lookups": ("looking(base)", "thing.close()"),
    "common timeout": ("base.init_common_timeout(1.0)", "base.close()"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLOSES)
def test_what_an_interrupted_close_has_begun_is_freed(kind: str) -> None:
    make, close = CLOSES[kind]
    run_python(f"""
    import contextlib, gc, socket
    from libevent_py import *
    from libevent_py import debug
    from tests.kit.interposing import interrupt
    from tests.kit.interposing import Interposer
    from tests.kit.tls_peers import tls_contexts

    def limited(base):
        bev = BufferEvent(base)
        bev.rate_limit = RateLimit(10)
        return bev

    def asked(base):
        got = []
        server = DnsServer(base, ("127.0.0.1", 0), got.append)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            query = b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\1a\\0\\0\\1\\0\\1"
            client.sendto(query, server.address)
            while not got:
                base.loop(LoopFlag.ONCE)
        return got[0]

    def written(base):
        left, right = socket.socketpair()
        right.close()
        left.setblocking(False)
        bev = BufferEvent(base, left)
        bev.write(b"x")
        return bev

    def pooled(base):
        pool = RpcPool(base)
        pool.add_connection(client(base))
        return pool

    def client(base):
        return HttpConnection(base, "127.0.0.1", 9)

    def looking(base):
        dns = DnsBase(base, 0)
        dns.nameserver_ip_add("127.0.0.1:9")
        for name in "ab":
            dns.getaddrinfo(name, 80, lambda *answer: None)
        return dns

    def once(number):
        told = []
        keep = lambda things: told.extend(things) or things
        later = lambda *job: (base.defer(*job), base.loop(LoopFlag.NONBLOCK))
        base = EventBase()
        thing = {make}
        interposer = Interposer(interrupt, number, signals=True)
        with contextlib.suppress(KeyboardInterrupt):
            interposer.run(lambda: {close})
        if {kind!r} == "finalizer" and thing.closed:
            base.loop()
            assert told == [thing], interposer.where
        getattr(thing, "close", base.close)()
        del thing, told, later  # and so the base is freed
        return interposer.where

    debug.count_memory()
    once(-1)
    gc.collect()
    before, number = debug.memory().blocks, 0
    while where := once(number):
        number += 1
        gc.collect()  # traced frames are in cycles
        assert debug.memory().blocks == before, (number, where, debug.memory_blocks())
    assert number > 5
    """)


#: What C gives something for, with a base, a server's `TlsContext`, an ``SSL *`` and so on.
GIVEN = {
    "event": "Event.timer(base, print).add(5)",
    "TLS": "BufferEvent.tls(base, -1, context, options=0).close()",
    "SSL *": "BufferEvent.tls(base, -1, ssl, TlsState.ACCEPTING, options=0).close()",
    "URI": "Uri.parse('http://a/b').path, str(Uri.parse('//c'))",
    "encoding": "uriencode('/'), uridecode('%20'), htmlescape('<'), encode_uri('/')",
    "view": "buffer.peek()",
    "pulled up": "buffer.pullup()",
    "RPC": "pool.call('Message', REQUEST, Kill, print)",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", GIVEN)
def test_what_c_has_just_given_is_freed_though_an_interrupt_comes(what: str) -> None:
    run_python(
        f"""
    import contextlib, gc
    from libevent_py import *
    from libevent_py import debug
    from tests.kit.interposing import Interposer, interrupt
    from tests.kit.rpc_messages import REQUEST, Kill
    from tests.kit.tls_peers import tls_contexts

    def once(number):
        with EventBase() as base, Buffer(b"x") as buffer:
            ssl = lib.SSL_new(context.pointer)
            pool = RpcPool(base)
            pool.add_connection(HttpConnection(base, "127.0.0.1", 9))
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(lambda: ({GIVEN[what]}))
            lib.SSL_free(ssl)
        return interposer.where

    _, context = tls_contexts()
    once(-1)
    gc.collect()
    before, number = debug.memory().blocks, 0
    while where := once(number):
        number += 1
        gc.collect()  # traced frames are in cycles
        assert debug.memory().blocks == before, (number, where, debug.memory_blocks()[-5:])
    assert number > 5
    """,
        env={"LIBEVENT_PY_COUNT_MEMORY": "1"},
        stderr=None,
    )


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["cancel", "close", "connection.close", "base.loop"])
def test_requests_are_told_once_though_their_end_is_interrupted(ends: str) -> None:
    run_python(
        f"""
    import contextlib, gc
    from libevent_py import EventBase, HttpCommand, HttpConnection, HttpRequest
    from tests.kit.interposing import interrupt
    from tests.kit.interposing import Interposer
    from tests.kit.peers import nobody_listens

    def once(number):
        told = [0, 0, 0]
        def tell(request):
            told[requests.index(request)] += 1
        with EventBase() as base:
            connection = HttpConnection(base, "127.0.0.1", port)
            requests = [HttpRequest(tell) for _ in told]
            for each in requests:
                connection.make_request(each, HttpCommand.GET, "/")
            things = dict(base=base, connection=connection)
            owner, _, name = {ends!r}.rpartition(".")
            end = getattr(things.get(owner, requests[1]), name)
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(end)
            if owner != "connection":  # else it is left to the end of the base
                base.loop()
                assert told[1] == 1, (told, number, interposer.where)
        assert told == [1, 1, 1], (told, number, interposer.where)
        return interposer.where is not None

    port = nobody_listens()[1]
    number = 0
    while once(number):
        number += 1
    assert number > 20
    """,
        stderr=None,
    )  # Python prints what is raised in finalizers


@pytest.mark.slow
def test_a_descriptor_that_is_replaced_belongs_to_somebody_wherever_an_interrupt_comes() -> None:
    number = 0
    with EventBase() as base:
        while True:
            old, new = socket.socketpair()
            one, other = old.fileno(), new.fileno()
            bev = BufferEvent(base, old, BufferEventOption.CLOSE_ON_FREE)
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(setattr, bev, "fd", new)
            taken = bev.fd == other
            assert taken or bev.fd == one
            assert (new.fileno() == -1) is taken  # who doesn't own it closes it
            assert is_open(one) is not taken
            bev.close()
            base.loop(LoopFlag.NONBLOCK)
            assert is_open(other) is not taken
            new.close()
            if interposer.where is None:
                break
            number += 1
    assert number > 10


@pytest.mark.slow
def test_a_call_whose_end_is_interrupted_is_freed_once() -> None:
    run_python(
        """
        import contextlib, gc
        from libevent_py import EventBase, HttpConnection, RpcPool, debug
        from tests.kit.interposing import Interposer, interrupt
        from tests.kit.peers import nobody_listens
        from tests.kit.rpc_messages import REQUEST, Kill

        def once(number):
            told = []
            with EventBase() as base, RpcPool(base) as pool:
                pool.add_connection(HttpConnection(base, "127.0.0.1", port))
                pool.call("Message", REQUEST, Kill, told.append)
                interposer = Interposer(interrupt, number, signals=True)
                with contextlib.suppress(KeyboardInterrupt):
                    interposer.run(base.loop)
                base.loop()
                assert len(told) == 1, interposer.where
                pool.close()
            assert len(told) == 1, number
            return interposer.where is not None

        EventBase().loop()  # what it makes once is made
        port, number = nobody_listens()[1], 0
        while once(number):
            number += 1
            gc.collect()
        assert number > 20
        """,
        stderr=None,
    )


@pytest.mark.parametrize("options", [0, BufferEventOption.CLOSE_ON_FREE], ids=str)
def test_tls_that_is_interrupted_while_it_is_made_leaves_the_descriptor_to_its_owner(
    options: int,
) -> None:
    _, server = tls_contexts()
    number = 0
    while True:
        with EventBase() as base:
            left, right = socket.socketpair()
            left.setblocking(False)
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                make = functools.partial(BufferEvent.tls, base, left, server, options=options)
                interposer.run(make)
            gc.collect()
            base.loop(LoopFlag.NONBLOCK)
            if left.fileno() >= 0:
                assert is_open(left.fileno()), interposer.where
            left.close()
            right.close()
        if interposer.where is None:
            break
        number += 1
    assert number > 50


def bound(kind: int) -> socket.socket:
    sock = socket.socket(type=kind)
    sock.bind(ANYWHERE)
    return sock


def listening() -> socket.socket:
    sock = bound(socket.SOCK_STREAM)
    sock.listen()
    return sock


def of_number(base: EventBase, sock: socket.socket) -> Listener:
    return Listener.from_fd(base, sock.fileno(), ignore)


def of_another_s(base: EventBase, sock: socket.socket) -> Listener:
    return Listener.from_fd(base, sock, ignore, options=ListenerOption(0))


#: What makes an object, and the socket that it is given.
FROM_SOCKETS: dict[str, tuple[Callable[[], socket.socket], Callable[..., Any]]] = {
    "Listener": (listening, lambda base, sock: Listener(base, ANYWHERE, ignore)),
    "Listener.from_fd": (listening, lambda base, sock: Listener.from_fd(base, sock, ignore)),
    "Listener that waits": (listening, lambda base, sock: Listener.from_fd(base, sock, None)),
    "Listener of a number": (listening, of_number),
    "Listener of another's": (listening, of_another_s),
    "DnsServer": (
        lambda: bound(socket.SOCK_DGRAM),
        lambda base, sock: DnsServer(base, sock, ignore),
    ),
    "BufferEvent": (lambda: bound(socket.SOCK_STREAM), BufferEvent),
    "BufferEvent.pair": (listening, lambda base, sock: BufferEvent.pair(base)),
}


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # a socket that is just being made
@pytest.mark.parametrize("what", FROM_SOCKETS)
def test_what_an_interrupt_keeps_from_being_made_is_not_there(what: str) -> None:
    """Nor does it close a descriptor that still is the caller's."""
    open_socket, make = FROM_SOCKETS[what]
    number = 0
    where: str | None = ""
    while where is not None:
        base, sock = EventBase(), open_socket()
        fd, made = sock.fileno(), None
        interposer = Interposer(interrupt, number, signals=True)
        with contextlib.suppress(KeyboardInterrupt):
            made = interposer.run(make, base, sock)
        where = interposer.where
        if made is None:
            gc.collect()
            assert not base._live, where
        elif what == "Listener of a number":
            sock.detach()
        base.close()
        assert made is not None or is_open(fd) == (sock.fileno() >= 0), where
        sock.close()
        number += 1
    assert number > 20


def test_a_pool_whose_close_is_interrupted_tells_its_calls() -> None:
    number = 0
    while True:
        told: list[object] = []
        with EventBase() as base:
            pool = RpcPool(base)
            pool.add_connection(HttpConnection(base, "127.0.0.1", 9))
            for _ in range(2):
                pool.call("Message", REQUEST, Kill, told.append)
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(pool.close)
        assert len(told) == 2, interposer.where
        if interposer.where is None:
            break
        number += 1
    assert number > 50


@pytest.mark.slow
def test_a_connection_whose_beginning_is_interrupted_is_freed_with_its_bufferevent() -> None:
    run_python(
        """
        import contextlib, gc, socket
        from libevent_py import BufferEvent, EventBase, HttpServer, LoopFlag, debug
        from tests.kit.interposing import Interposer, interrupt

        def fail(request):
            raise ArithmeticError

        def once(number):
            def run():
                for _ in range(3):
                    with contextlib.suppress(ArithmeticError):
                        base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)

            with EventBase() as base, HttpServer(base) as server, socket.socket() as peer:
                server.set_bevcb(BufferEvent)
                server.set_gencb(fail)
                peer.connect(server.bind_socket("127.0.0.1", 0).address)
                peer.send(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
                interposer = Interposer(interrupt, number, signals=True)
                with contextlib.suppress(KeyboardInterrupt):
                    interposer.run(run)
                base.on_error = lambda *_: None
            return interposer.where

        debug.count_memory()
        once(-1)
        gc.collect()
        before, number = debug.memory().blocks, 0
        while where := once(number):
            number += 1
            gc.collect()  # traced frames are in cycles
            assert debug.memory().blocks == before, (number, where, debug.memory_blocks())
        assert number > 100
        """,
        stderr=None,
    )


@pytest.mark.slow
def test_tls_above_a_filter_stays_usable_wherever_an_interrupt_comes() -> None:
    (client, *_), server = tls_contexts()
    number = 0
    while True:
        with EventBase() as base:
            layers = [BufferEvent.filter(half, moved, None) for half in BufferEvent.pair(base)]
            uppers = [
                BufferEvent.tls_filter(layer, context, server_hostname=host)
                for layer, context, host in zip(layers, (client, server), (HOST, None), strict=True)
            ]
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(base.loop, LoopFlag.NONBLOCK)
            for upper in uppers:
                assert not isinstance(upper, WithoutPointer), interposer.where
                upper.write(b"still here")
        if interposer.where is None:
            break
        number += 1
    assert number > 100


def moved(source: Buffer, target: Buffer, limit: int | None, _mode: object) -> FilterResult:
    target.add(source.remove(limit))
    return FilterResult.OK


def test_a_signal_event_whose_close_is_interrupted_gives_the_signal_back() -> None:
    with EventBase() as base, EventBase() as other:

        def close() -> None:
            Event.signal(base, signal.SIGUSR1, print).add().close()

        number = 0
        while True:
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(close)
            for each in base._children():
                each.close()
            base.loop(LoopFlag.NONBLOCK | LoopFlag.ONCE)
            Event.signal(other, signal.SIGUSR1, print).add().close()
            if interposer.where is None:
                break
            number += 1
        assert number > 30


def test_what_is_closed_in_a_child_amid_its_own_close_is_closed_once() -> None:
    """Until reinit() it is the parent process's, and another list keeps it."""
    with EventBase() as base:
        made = [Listener(base, ("127.0.0.1", 0), None) for _ in range(80)]
        pid = os.fork()
        if not pid:
            status = 1
            try:
                for number, each in enumerate(made):
                    Interposer(each.close, number, signals=True).run(each.close)
                base.reinit()
                assert all(each.closed for each in made)
                base.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0) == (pid, 0)


def test_what_is_interrupted_as_it_is_made_keeps_no_base() -> None:
    """A base is freed after everything that it knows."""
    gc.collect()
    before = descriptors()
    base = EventBase()
    ledger = base._ledger
    assert interrupted(functools.partial(BufferEvent.pair, base)) > 30
    del base
    gc.collect()
    assert (descriptors(), ledger) == (before, {})


@pytest.mark.parametrize("what", ["close", "asking"])
def test_a_child_may_take_its_base_amid_what_it_does_with_something(what: str) -> None:
    """What is parked until then is found in its place, or not at all."""
    made = EventBase()
    listeners = [Listener(made, ("127.0.0.1", 0), None) for _ in range(60)]
    pid = os.fork()
    if not pid:
        status = 1
        try:
            for number, each in enumerate(listeners):
                one = os.fork()
                if one:
                    assert os.waitpid(one, 0) == (one, 0), number
                    continue
                did = each.close if what == "close" else functools.partial(repr, each)
                Interposer(made.reinit, number, signals=True).run(did)
                if what == "close":
                    assert each.closed
                made.close()
                break
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0) == (pid, 0)
    made.close()


@pytest.mark.parametrize("how", ["loop", "call", "buffer"])
def test_an_interrupt_loses_nothing_that_a_callback_has_raised(how: str) -> None:
    """It becomes the interrupt's context, wherever the exception is on its way out."""
    number = told = 0
    while True:
        raised: list[ValueError] = []

        def callback(*_: object, raised: list[ValueError] = raised) -> None:
            raised.append(ValueError("of the callback"))
            raise raised[0]

        with EventBase() as base, Buffer() as buffer, BufferEvent(base) as bev:
            bev.setcb(callback, None, None)
            if how == "loop":
                base.once(callback)
            if how == "buffer":
                buffer.add_cb(callback)
            ways: dict[str, Callable[[], object]] = {
                "loop": functools.partial(base.loop, LoopFlag.ONCE),
                "call": functools.partial(bev.trigger, EventFlag.READ, TriggerOption(0)),
                "buffer": functools.partial(buffer.add, b"x"),
            }
            interposer = Interposer(interrupt, number, signals=True)
            seen: BaseException | None = None
            try:
                interposer.run(ways[how])
            except BaseException as error:
                seen = error
            if raised:
                told += 1
                assert seen is not None, number
                assert raised[0] in list(errors._contexts(seen).values()), number
            assert errors.waiting() == 0
            base.on_error = lambda *_: None
        if interposer.where is None:
            break
        number += 1
    assert told > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    ["failed", *(pytest.param(how, marks=pytest.mark.more) for how in ("continued", "paused"))],
)
def test_a_call_is_answered_once_wherever_an_interrupt_comes(how: str) -> None:
    """C frees it as soon as it is answered, and each end of the call has something of it."""
    run_python(
        f"""
    import contextlib, gc
    from libevent_py import *
    from libevent_py import debug
    from tests.kit.interposing import Interposer, interrupt
    from tests.kit.rpc_messages import REQUEST, Kill, answer

    def hook(context, request, buffer):
        if {how!r} != "paused":
            return RpcHookResult.CONTINUE
        paused.append(context)
        return RpcHookResult.PAUSE

    def serve(rpc):
        answer(rpc) if {how!r} != "failed" else rpc.fail()

    def run(base, times):
        for _ in range(times):
            base.loop(LoopFlag.NONBLOCK | LoopFlag.ONCE)
            while paused:
                if paused[-1].paused:
                    paused[-1].resume()
                paused.pop()

    def once(number):
        told = []
        with EventBase() as base:
            base.on_error = lambda error, source: None
            http, pool = HttpServer(base), RpcPool(base)
            server = RpcServer(http)
            server.register("Message", type(REQUEST), Kill, serve)
            port = http.bind_socket("127.0.0.1", 0).port
            pool.add_connection(HttpConnection(base, "127.0.0.1", port))
            if {how!r} != "failed":
                for when in RpcHook:
                    server.add_hook(when, hook)
                    pool.add_hook(when, hook)
            for _ in range(2):
                pool.call("Message", REQUEST, Kill, told.append)
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(run, base, 30)
            for _ in range(50):
                if len(told) < 2:
                    run(base, 1)
            assert len(told) == 2, (number, interposer.where)
            paused.clear()
        assert len(told) == 2, (number, interposer.where)
        return interposer.where

    paused = []
    debug.count_memory()
    once(-1)
    gc.collect()
    before, number = debug.memory().blocks, 0
    while where := once(number):
        number += 13
        gc.collect()  # traced frames are in cycles
        assert debug.memory().blocks == before, (number, where, debug.memory_blocks())
    assert number > 500
    """,
        stderr=None,
    )


def test_an_rpc_server_whose_close_is_interrupted_is_freed_by_the_loop() -> None:
    """Its paths are free again, though its HTTP server is still open."""
    number = 0
    while True:
        with EventBase() as base, HttpServer(base) as http:
            server = RpcServer(http)
            server.register("Message", Kill, Kill, print)
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(server.close)
            server.close()
            base.loop(LoopFlag.NONBLOCK)
            RpcServer(http).register("Message", Kill, Kill, print)
        if interposer.where is None:
            break
        number += 1
    assert number > 20


@pytest.mark.parametrize("what", ["defer", "once", "on_read", "on_write", "on_event"])
def test_what_the_loop_calls_is_called_once_though_an_interrupt_comes_just_before(
    what: str,
) -> None:
    number = 0
    while True:
        with EventBase() as base:
            called: list[object] = []

            def call(*_: object, called: list[object] = called) -> None:
                called.append(None)

            if what == "defer":
                base.defer(call)
            elif what == "once":
                base.once(call)
            else:
                bev, peer = BufferEvent.pair(base)
                bev.enable(EventFlag.READ)
                peer.enable(EventFlag.READ)
                setattr(bev, what, call)
                (bev if what == "on_write" else peer).write(b"x")
                if what == "on_event":
                    peer.close(flush=True)
            interposer = Within(interrupt, number, signals=True)
            interposer.names = ("called", "evpy_wake", "evpy_once_fired", "_work")
            interposer.names += tuple(f"evpy_bufferevent_{on[3:]}" for on in (what,))
            for run in (functools.partial(interposer.run, base.loop), base.loop):
                with contextlib.suppress(KeyboardInterrupt):
                    run(LoopFlag.NONBLOCK)
            assert called == [None], interposer.where
        if interposer.where is None:
            break
        number += 1
    # Where C itself calls, nothing of Python's comes before the callback.
    assert number == 0 if what in ("on_read", "on_write") else number > 1


def test_what_has_returned_as_an_interrupt_comes_is_not_called_again() -> None:
    """CPython looks for signals between that and its caller, where no `Interposer` can act."""
    send = ctypes.pythonapi.PyErr_SetInterruptEx
    send.argtypes = [ctypes.c_int, *[ctypes.py_object] * 3]  # those of a trace function

    def traced(frame: FrameType, _event: str, _argument: object) -> Any:
        if frame.f_code.co_name != "evpy_bufferevent_event":
            return None
        frame.f_trace_lines = False  # it is called when the function returns, and in C
        return functools.partial(send, signal.SIGINT)

    with EventBase() as base:
        called: list[int] = []
        bev, peer = BufferEvent.pair(base)
        bev.setcb(None, None, lambda _, what: called.append(what))
        bev.enable(EventFlag.READ)
        peer.close(flush=True)
        sys.settrace(traced)
        try:
            with pytest.raises(KeyboardInterrupt):
                base.loop(LoopFlag.NONBLOCK)
        finally:
            sys.settrace(None)
        base.loop(LoopFlag.NONBLOCK)
        assert len(called) == 1


REPLIES = {
    "send_reply": "request.send_reply(200, None, b'x')",
    "a buffer": "request.send_reply(200, None, Buffer(b'x'))",
    "send_error": "request.send_error(404)",
    "in parts": "(request.send_reply_start(200), request.send_reply_end())",
    "close": "request.close()",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", REPLIES)
def test_a_request_whose_answer_is_interrupted_is_answered_or_can_be(how: str) -> None:
    """Else its client would wait for ever."""
    number = 0
    while True:
        kept: list[HttpServerRequest] = []
        with EventBase() as base, HttpServer(base) as server, socket.socket() as client:

            def keep(request: HttpServerRequest, kept: list[HttpServerRequest] = kept) -> None:
                kept.append(request)
                request.base.loopexit()

            server.set_gencb(keep)
            client.connect(("127.0.0.1", server.bind_socket("127.0.0.1", 0).port))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            base.dispatch()
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(eval, REPLIES[how], {"request": kept[0], "Buffer": Buffer})
            kept.clear()  # one that is unanswered, the server answers
            gc.collect()
            came = Event(base, client, EventFlag.READ, lambda event, *_: event.base.loopexit())
            came.add(PATIENCE)
            base.dispatch()
            client.setblocking(False)
            assert client.recv(9) in (b"HTTP/1.1 ", b""), interposer.where
        if interposer.where is None:
            break
        number += 1
    assert number > 5


@pytest.mark.slow
@pytest.mark.parametrize("how", ["send_reply_end", "close", "dropped"])
def test_a_request_whose_client_has_gone_is_freed_though_its_end_is_interrupted(how: str) -> None:
    """C frees no such request itself."""
    run_python(
        f"""
    import contextlib, gc, socket, struct
    from libevent_py import *
    from libevent_py import debug
    from tests.kit.interposing import Interposer, interrupt

    def begin(request):
        request.send_reply_start(200)
        kept.append(request)
        request.base.loopexit()

    def once(number):
        with EventBase() as base, HttpServer(base) as server, socket.socket() as client:
            server.set_gencb(begin)
            client.connect(server.bind_socket("127.0.0.1", 0).address)
            client.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
            base.dispatch()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            while kept[0].connection is not None:
                kept[0].send_reply_chunk(b"x")
                base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(getattr(kept[0], {how!r}, kept.clear))
            kept.clear()
        return interposer.where

    kept = []
    debug.count_memory()
    once(-1)
    gc.collect()
    before, number = debug.memory().blocks, 0
    while where := once(number):
        number += 1
        gc.collect()  # traced frames are in cycles
        assert debug.memory().blocks == before, (number, where, debug.memory_blocks())
    assert number > 2
    """,
        stderr=None,
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dropped_request_is_answered_though_that_is_interrupted() -> None:
    number = 0
    while True:
        with EventBase() as base, HttpServer(base) as server, socket.socket() as client:
            server.set_gencb(lambda request: request.base.defer(id, request))
            client.connect(("127.0.0.1", server.bind_socket("127.0.0.1", 0).port))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            came = Event(base, client, EventFlag.READ, lambda event, *_: event.base.loopexit())
            came.add(PATIENCE)
            interposer = Within(interrupt, number, signals=True)
            interposer.names = ("_abandon", "_bury", "free_orphan")
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(base.dispatch)
            client.setblocking(False)
            if came.pending:
                base.dispatch()
            assert client.recv(9) == b"HTTP/1.1 ", interposer.where
        if interposer.where is None:
            break
        number += 1
    assert number > 5


def lock_and_unlock(lock: Callable[[Any], None], unlock: Callable[[Any], None], it: Any) -> None:
    """Wait for the lock of C's object *it*."""
    lock(it)
    unlock(it)


def hold(thing: Buffer | BufferEvent) -> None:
    with thing.lock():
        pass


@pytest.mark.parametrize("kind", ["plain", "deferred", "bufferevent"])
def test_a_lock_is_given_back_wherever_its_block_is_interrupted(kind: str) -> None:
    number = 0
    where: str | None = ""
    while where is not None:
        with EventBase() as base, BufferEvent(base, options=BufferEventOption.THREADSAFE) as bev:
            buffer = Buffer()
            if kind == "deferred":
                buffer.defer_callbacks(base)
            thing = bev if kind == "bufferevent" else buffer
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(hold, thing)
            where = interposer.where
            assert not base._holds, where
            both = lib.evbuffer_lock, lib.evbuffer_unlock
            if thing is bev:
                both = lib.bufferevent_lock, lib.bufferevent_unlock
            asked = *both, thing.pointer
            thread = threading.Thread(target=lock_and_unlock, args=asked, daemon=True)
            thread.start()
            thread.join(PATIENCE)
            assert not thread.is_alive(), where  # it would wait for ever
            buffer.close()
        number += 1
    assert number > 5
