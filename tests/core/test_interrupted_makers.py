"""An interrupt in the middle of making something on a base: nothing of it is left there."""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import socket
from collections.abc import Callable
from typing import Any

import pytest

import libevent_py
from libevent_py import (
    BufferEvent,
    BufferEventOption,
    DnsBase,
    DnsBaseFlag,
    DnsServer,
    Event,
    EventBase,
    FilterResult,
    HttpConnection,
    HttpServer,
    Listener,
    RateLimit,
    RateLimitGroup,
    RpcPool,
    RpcServer,
    TlsContext,
    aio,
    testing,
)
from libevent_py._core.child import Child
from tests.kit.interposing import Interposer, interrupt
from tests.kit.peers import ANYWHERE, is_open
from tests.kit.scenes import ignore
from tests.kit.tls_peers import tls_contexts

#: What a maker is called with: what there has to be before.
Given = Any

Maker = tuple[Callable[[EventBase], Given], Callable[[Given], object]]


def passes(*_: object) -> FilterResult:
    return FilterResult.OK


def itself(base: EventBase) -> EventBase:
    return base


def on_a_server(base: EventBase) -> HttpServer:
    return HttpServer(base)


def bound(kind: int) -> socket.socket:
    sock = socket.socket(type=kind)
    sock.bind(ANYWHERE)
    return sock


def with_a_socket(base: EventBase) -> tuple[HttpServer, socket.socket]:
    return HttpServer(base), socket.create_server(ANYWHERE)


def with_a_listener(base: EventBase) -> tuple[HttpServer, Listener]:
    return HttpServer(base), Listener(base, ANYWHERE, None)


def bind_listener(given: tuple[HttpServer, Listener]) -> object:
    server, listener = given
    return server.bind_listener(listener)


@functools.cache
def context() -> TlsContext:
    return tls_contexts()[1]


def ready_for_tls(base: EventBase) -> EventBase:
    context()  # takes long, and is no part of what is tried
    return base


def unlooked(base: EventBase) -> tuple[EventBase, BufferEvent]:
    return base, BufferEvent(base)


#: What there has to be, and what makes an object of it, by the class and, after a space, the way.
MAKERS: dict[str, Maker] = {
    "BoundSocket bind": (on_a_server, lambda server: server.bind_socket(*ANYWHERE)),
    "BoundSocket by name": (on_a_server, lambda server: server.bind_socket("localhost", 0)),
    "BoundSocket accept": (with_a_socket, lambda given: given[0].accept_socket(given[1])),
    "BoundSocket number": (with_a_socket, lambda given: given[0].accept_socket(given[1].fileno())),
    "BoundSocket listener": (with_a_listener, bind_listener),
    "BufferEvent": (itself, BufferEvent),
    "BufferEvent pair": (itself, BufferEvent.pair),
    "BufferEvent tls": (ready_for_tls, lambda base: BufferEvent.tls(base, -1, context())),
    "BufferEvent filter": (BufferEvent, lambda below: BufferEvent.filter(below, passes, passes)),
    "BufferEvent tls_filter": (
        lambda base: BufferEvent(ready_for_tls(base)),
        lambda below: BufferEvent.tls_filter(below, context()),
    ),
    "DnsBase": (itself, lambda base: DnsBase(base, DnsBaseFlag(0))),
    "DnsServer": (itself, lambda base: DnsServer(base, ANYWHERE, ignore)),
    "Event": (itself, lambda base: Event(base, -1, 0, ignore)),
    "Event timer": (itself, lambda base: Event.timer(base, ignore)),
    "Event signal": (itself, lambda base: Event.signal(base, 10, ignore)),
    "Event user": (itself, lambda base: Event.user(base, ignore)),
    "EventLoop": (itself, aio.EventLoop),
    "HttpConnection": (itself, lambda base: HttpConnection(base, "127.0.0.1", 9)),
    "HttpConnection bufferevent": (
        unlooked,
        lambda given: HttpConnection(given[0], "127.0.0.1", 9, bufferevent=given[1]),
    ),
    "HttpServer": (itself, HttpServer),
    "Listener": (itself, lambda base: Listener(base, ANYWHERE, ignore)),
    "LocalDnsServer": (itself, testing.LocalDnsServer),
    "LocalHttpServer": (itself, testing.LocalHttpServer),
    "LocalListener": (itself, testing.LocalListener),
    "RateLimitGroup": (itself, lambda base: RateLimitGroup(base, RateLimit(5))),
    "RpcPool": (itself, RpcPool),
    "RpcServer": (on_a_server, RpcServer),
}

#: What only C makes.
OF_C = {"DnsServerRequest", "Rpc"}


def test_all_that_is_made_on_a_base_is_tried() -> None:
    made = {
        name
        for module in (libevent_py, testing, aio)
        for name, kind in vars(module).items()
        if name in module.__all__ and inspect.isclass(kind) and issubclass(kind, Child)
    }
    assert made - OF_C <= {name.partition(" ")[0] for name in MAKERS}


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # a socket that is just being made
@pytest.mark.filterwarnings("ignore:.*dropped:ResourceWarning")
@pytest.mark.parametrize("what", MAKERS)
def test_what_an_interrupt_keeps_from_being_made_is_not_on_the_base(what: str) -> None:
    """And a descriptor that it was to have still is the caller's."""
    prepare, make = MAKERS[what]
    number = 0
    where: str | None = ""
    while where is not None:
        base = EventBase()
        given = prepare(base)
        sock = given[1] if prepare is with_a_socket else None
        fd = -1 if sock is None else sock.fileno()
        before, known = set(base._live), set(base._ledger)
        interposer = Interposer(interrupt, number, signals=True)
        made: Any = None
        with contextlib.suppress(KeyboardInterrupt):
            made = interposer.run(make, given)
        where = interposer.where
        if where is not None:
            assert made is None
            gc.collect()
            assert set(base._live) <= before, where
            assert set(base._ledger) <= known, where
            if isinstance(given, tuple) and isinstance(given[0], HttpServer):
                assert not given[0].bound_sockets, where
        if sock is not None and where is not None:
            assert is_open(fd) == (sock.fileno() >= 0), where
        elif what == "BoundSocket number":
            assert sock is not None
            sock.detach()
        if isinstance(made, aio.EventLoop):
            made.close()
        base.close()
        if sock is not None:
            sock.close()
        number += 1
    assert number > 5


def test_a_bufferevent_whose_filter_was_interrupted_is_its_caller_s_again() -> None:
    number = 0
    where: str | None = ""
    while where is not None:
        with EventBase() as base:
            one, other = BufferEvent.pair(base)
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(BufferEvent.filter, one, passes, passes)
            where = interposer.where
            if where is not None:
                assert not one.closed, where
                options = BufferEventOption.DEFER_CALLBACKS
                BufferEvent.filter(one, None, None, options).close()
                assert not one.closed, where
            other.close()
        number += 1
    assert number > 50


@pytest.mark.parametrize("number", [False, True])
def test_a_socket_that_a_server_refuses_is_still_its_caller_s(number: bool) -> None:
    with EventBase() as base, socket.create_server(ANYWHERE) as sock:
        server, host = HttpServer(base), HttpServer(base)
        server.add_virtual_host("host", host)
        with pytest.raises(ValueError, match="a virtual host can't listen"):
            host.accept_socket(sock.fileno() if number else sock)
        assert is_open(sock.fileno())
        bound = server.accept_socket(sock)
        assert sock.fileno() < 0
        fd = bound.fd
        bound.close()
        assert not is_open(fd)
