"""Scenes that are entered in a callback: each public class while something of its own calls back.

What has no callback of its own is in one of what it serves, such as a group in its member's. Many
are among the scenes that operations are tried in already; those are taken from there.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventOption,
    DnsBase,
    DnsBaseFlag,
    Event,
    FileSegment,
    FilterResult,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    RpcHook,
    RpcHookResult,
    RpcPool,
    TlsContext,
)
from tests.kit.flags import DEFER, EAGER, READ, THREADSAFE
from tests.kit.rpc_messages import REQUEST, Kill, answer
from tests.kit.scenes import (
    GET,
    POST,
    SCENES,
    Maker,
    Scene,
    answer_by,
    asked,
    asking,
    called,
    client_of,
    file,
    ignore,
    in_handler,
    nothing,
    passing,
    plain,
    port,
    procedures,
    resolving,
    secured,
    server_context,
    serving,
    under_way,
)

#: What is in the names of those scenes of operations that are entered in a callback.
INSIDE = re.compile(r"\bin (its|on_|a handler)")

Slot = list[Callable[..., None]]

#: For each class its scenes that are entered in a callback, by name.
BUSY: dict[str, dict[str, Maker]] = {
    kind: {name: make for name, make in scenes.items() if INSIDE.search(name)}
    for kind, scenes in SCENES.items()
    if kind != "tag"
}


def busy(name: str, *kinds: str) -> Callable[[Maker], Maker]:
    """Note a function that makes the scene *name* of the classes *kinds*."""

    def note(make: Maker) -> Maker:
        for kind in kinds:
            BUSY[kind][name] = make
        return make

    return note


def slot() -> Slot:
    """Return what holds the function that is to be called."""
    return [ignore]


def into(slot: Slot, result: Any = None) -> Callable[..., Any]:
    """Return a callback that calls what is in *slot*, and returns *result*."""

    def callback(*_: object) -> Any:
        slot[0]()
        return result

    return callback


def at_once(s: Scene, slot: Slot, arrange: Callable[[], object]) -> None:
    """Have `enter` call *arrange*, which calls back before it returns."""

    def enter(call: Callable[[], None]) -> None:
        called: list[bool] = []

        def once() -> None:
            if not called:
                called.append(True)
                call()

        slot[0] = once
        arrange()
        if not called:
            raise AssertionError("the callback has not been called")

    s.enter = enter


def in_a_base_s(kind: str) -> Maker:
    """Return what makes the first scene of *kind*, to be entered in a callback of a base."""

    def make(s: Scene) -> None:
        next(iter(SCENES[kind].values()))(s)
        base = s.base or s.based()
        called = slot()
        s.entered_by(lambda: base.once(into(called), timeout=0), called)

    return make


# Events.


@busy("in a base's on_error", "EventBase")
def _(s: Scene) -> None:
    def fail(*_: object) -> None:
        raise ValueError("for on_error")

    s.it = s.based()
    called = slot()
    s.it.on_error = into(called)
    s.entered_by(lambda: s.it.once(fail, timeout=0), called)


@busy("in a deferred function", "EventBase")
def _(s: Scene) -> None:
    s.it = s.based()
    called = slot()
    s.entered_by(lambda: s.base.defer(into(called)), called)


@busy("in its callback, of a descriptor", "Event")
def _(s: Scene) -> None:
    s.based()
    s.here = s.pair()
    s.common = s.base.init_common_timeout(60)
    called = slot()
    s.add("it", Event(s.base, s.here, READ, into(called)).add())
    s.entered_by(lambda: s.far.send(b"data"), called)


@busy("in the callback of an event with it", "CommonTimeout")
def _(s: Scene) -> None:
    s.it = s.based().init_common_timeout(0.001)
    called = slot()
    s.add("event", Event.timer(s.base, into(called)))
    s.entered_by(lambda: s.event.add(s.it), called)


# Buffers.


def watched(s: Scene) -> Slot:
    s.based()
    s.add("buffer", Buffer())
    called = slot()
    s.callback = s.buffer.add_cb(into(called))
    s.add("other", Buffer(b"other"))
    s.add("target", Buffer())
    s.add("segment", FileSegment(file(), 0, 100))
    return called


def in_add(s: Scene, called: Slot) -> None:
    buffer = s.buffer
    at_once(s, called, lambda: buffer.add(b"data"))


@busy("in its callback", "Buffer")
def _(s: Scene) -> None:
    in_add(s, watched(s))
    s.add("it", s.buffer)
    s.closes.pop("buffer")
    del s.buffer


@busy("in its callback, deferred", "Buffer")
def _(s: Scene) -> None:
    called = watched(s)
    buffer = s.buffer
    s.add("it", buffer)
    s.closes.pop("buffer")
    del s.buffer
    buffer.defer_callbacks(s.base)
    s.entered_by(lambda: buffer.add(b"data"), called)


@busy("in the callback of a bufferevent's", "Buffer")
def _(s: Scene) -> None:
    watched(s)
    called = slot()
    plain(s, BufferEventOption(0))
    s.add("bev", s.it)
    del s.closes["it"]
    s.it = s.bev.input
    s.it.add_cb(into(called))
    s.entered_by(lambda: s.far.send(b"data"), called)


@busy("in it", "BufferCallback")
def _(s: Scene) -> None:
    in_add(s, watched(s))
    s.add("it", s.callback, "remove")
    del s.callback


@busy("in its on_cleanup", "FileSegment")
def _(s: Scene) -> None:
    s.add("it", FileSegment(file(), 0, 100))
    called = slot()
    s.it.on_cleanup = into(called)
    s.add("buffer", Buffer())
    s.buffer.add_file_segment(s.it)
    s.base = None
    it = [s.it]

    def let_go() -> None:
        it.pop().close()
        s.buffer.drain(100)

    at_once(s, called, let_go)


# Bufferevents.


def of_bufferevent(name: str, options: BufferEventOption, which: str) -> None:
    @busy(name, "BufferEvent")
    def _(s: Scene) -> None:
        called = slot()
        plain(s, options, **{which: into(called)})
        sent: dict[str, Callable[[], object]] = {
            "on_read": lambda: s.far.send(b"data"),
            "on_write": lambda: s.it.write(b"data"),
            "on_event": lambda: s.far.shutdown(socket.SHUT_WR),
        }
        s.entered_by(sent[which], called)


for _which in ("on_read", "on_write", "on_event"):
    of_bufferevent(f"in {_which}", BufferEventOption(0), _which)
    of_bufferevent(f"in {_which}, deferred", DEFER | THREADSAFE, _which)
of_bufferevent("in on_event, EAGER", EAGER, "on_event")


@busy("in on_read, half of a pair", "BufferEvent")
def _(s: Scene) -> None:
    s.based()
    it, half = BufferEvent.pair(s.base)
    called = slot()
    it.on_read = into(called)
    s.add("it", it)
    s.add("half", half)
    it.enable(READ)
    s.entered_by(lambda: half.write(b"data"), called)


@busy("in on_event, connecting", "BufferEvent")
def _(s: Scene) -> None:
    called = slot()
    s.add("it", BufferEvent(s.based(), on_event=into(called)))
    s.entered_by(lambda: s.it.connect(("127.0.0.1", port())), called)


@busy("in a filter's own function", "BufferEvent")
def _(s: Scene) -> None:
    called = slot()

    def inward(source: Buffer, target: Buffer, *_: object) -> FilterResult:
        target.add_buffer(source)
        called[0]()
        return FilterResult.OK

    s.add("below", BufferEvent(s.based(), s.pair()))
    s.add("it", BufferEvent.filter(s.below, inward, passing))
    s.it.enable(READ)
    s.entered_by(lambda: s.far.send(b"data"), called)


@busy("in on_event, TLS", "BufferEvent")
def in_handshake(s: Scene) -> None:
    s.based()
    s.add("context", TlsContext(verify=False, check_hostname=False))
    here, there = socket.socketpair()
    called = slot()
    s.add("it", BufferEvent.tls(s.base, here, s.context, on_event=into(called)))
    s.entered_by(lambda: BufferEvent.tls(s.base, there, server_context()), called)


@busy("in the on_event of a bufferevent with it", "TlsContext")
def _(s: Scene) -> None:
    in_handshake(s)
    s.bev, s.it = s.it, s.context
    s.closes["bev"] = s.closes.pop("it")


@busy("in on_event, TLS that is refused", "BufferEvent")
def _(s: Scene) -> None:
    s.based()
    s.add("context", TlsContext())
    here, there = socket.socketpair()
    called = slot()
    s.add(
        "it",
        BufferEvent.tls(s.base, here, s.context, server_hostname="x.test", on_event=into(called)),
    )
    s.entered_by(lambda: BufferEvent.tls(s.base, there, server_context()), called)


@busy("in on_event, TLS through another", "BufferEvent")
def _(s: Scene) -> None:
    secured(s)
    s.bev.close()
    here, there = socket.socketpair()
    called = slot()
    s.add("below", BufferEvent(s.base, here, BufferEventOption.CLOSE_ON_FREE | DEFER))
    s.add("it", BufferEvent.tls_filter(s.below, s.context, on_event=into(called)))
    s.entered_by(lambda: BufferEvent.tls(s.base, there, server_context()), called)


@busy("in its member's on_read", "RateLimitGroup")
def _(s: Scene) -> None:
    SCENES["RateLimitGroup"][""](s)
    called = slot()
    s.bev.on_read = into(called)
    s.entered_by(lambda: s.far.send(b"data"), called)


# Names.


def answering(s: Scene) -> None:
    """Have a name server that answers, and a resolver that asks it."""

    def answer(request: Any) -> None:
        request.add_a_reply(request.questions[0].name, "127.0.0.1", 60)
        request.respond()

    resolving(s, answer)
    s.add("dns", DnsBase(s.base, DnsBaseFlag(0)))
    s.dns.nameserver_sockaddr_add(s.server.address)


@busy("in a lookup's callback", "DnsBase")
def _(s: Scene) -> None:
    answering(s)
    s.it = s.dns
    called = slot()
    s.entered_by(lambda: s.dns.resolve_ipv4("a.test", into(called)), called)


@busy("in a lookup's callback, at once", "DnsBase")
def _(s: Scene) -> None:
    answering(s)
    s.it = dns = s.dns
    called = slot()
    at_once(s, called, lambda: dns.getaddrinfo("127.0.0.1", 80, into(called)))


@busy("in its callback", "DnsLookup")
def _(s: Scene) -> None:
    answering(s)
    called = slot()
    s.add("it", s.dns.resolve_ipv4("a.test", into(called)), "cancel")
    s.entered_by(nothing, called)


@busy("in its callback", "AddrInfoLookup")
def _(s: Scene) -> None:
    answering(s)
    called = slot()
    s.add("it", s.dns.getaddrinfo("a.test", 80, into(called)), "cancel")
    s.entered_by(nothing, called)


@busy("in its callback", "DnsServer")
def _(s: Scene) -> None:
    called = slot()
    ask = resolving(s, into(called))
    s.it = s.server
    s.entered_by(ask, called)


# HTTP.


@busy("in a handler", "HttpServer")
def _(s: Scene) -> None:
    in_handler(s)
    s.it = s.http


@busy("in a handler", "BoundSocket")
def _(s: Scene) -> None:
    in_handler(s)
    s.it = s.bound


@busy("in on_headers", "HttpServer")
def _(s: Scene) -> None:
    called = slot()
    number = serving(s, ignore)
    s.it = s.http
    s.http.on_headers = into(called)
    s.entered_by(lambda: client_of(s, number, POST), called)


@busy("where it makes a connection's bufferevent", "HttpServer")
def _(s: Scene) -> None:
    called = slot()
    number = serving(s, ignore)
    s.it = s.http
    s.http.set_bevcb(into(called))
    s.entered_by(lambda: client_of(s, number, GET), called)


@busy("in on_close", "HttpServerConnection")
def _(s: Scene) -> None:
    asked(s)
    s.it = s.connection
    called = slot()
    s.it.on_close = into(called)
    s.request.send_reply(200)
    s.entered_by(s.client.close, called)


@busy("in on_complete", "HttpServerRequest")
def in_on_complete(s: Scene) -> None:
    asked(s)
    called = slot()
    s.it = s.request
    s.it.on_complete = into(called)
    request = s.request
    s.entered_by(lambda: request.send_reply(200, None, b"body"), called)


@busy("in on_complete", "HttpServerConnection")
def _(s: Scene) -> None:
    in_on_complete(s)
    s.it = s.connection


@busy("in the callback of a chunk", "HttpServerRequest")
def _(s: Scene) -> None:
    asked(s)
    called = slot()
    s.it = request = s.request
    request.send_reply_start(200)
    s.entered_by(lambda: request.send_reply_chunk(b"chunk", into(called)), called)


RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n1234567890"


@busy("in a request's callback", "HttpConnection")
def _(s: Scene) -> None:
    under_way(s)
    s.it = s.connection
    called = slot()
    s.first._callback = into(called)
    s.entered_by(lambda: s.server.send(b"67890"), called)


@busy("in on_close", "HttpConnection")
def _(s: Scene) -> None:
    under_way(s)
    s.it = s.connection
    called = slot()
    s.it.on_close = into(called)
    s.entered_by(s.server.close, called)


def of_request(s: Scene, **callbacks: Callable[..., Any]) -> None:
    """Have a request on its way, with *callbacks*."""
    s.add("connection", HttpConnection(s.based(), "127.0.0.1", port()))
    s.add("it", HttpRequest(callbacks.pop("callback", ignore), **callbacks))
    s.connection.make_request(s.it, HttpCommand.GET, "/")
    answer_by(s)
    s.add("body", Buffer(b"body"))


@busy("in on_chunk", "HttpRequest")
def _(s: Scene) -> None:
    called = slot()
    of_request(s, on_chunk=into(called))
    s.entered_by(lambda: s.server.send(RESPONSE), called)


@busy("in on_error", "HttpRequest")
def _(s: Scene) -> None:
    called = slot()
    of_request(s, on_error=into(called))
    s.entered_by(s.server.close, called)


@busy("in its callback, failed", "HttpRequest")
def _(s: Scene) -> None:
    asking(s)
    s.it = s.first
    called = slot()
    s.first._callback = into(called)
    answer_by(s)
    s.entered_by(s.server.close, called)


# RPCs.


@busy("in a call's handler", "RpcServer")
def _(s: Scene) -> None:
    called = slot()
    number = procedures(s, into(called))
    s.it = s.server
    s.entered_by(lambda: client_of(s, number, CALL), called)


CALL = called(b"Message")


def in_server_s_hook(s: Scene, note: Callable[[Any], object]) -> None:
    """Have the operation run in a hook of a server, once *note* has got the call."""
    called = slot()
    number = procedures(s, ignore)
    s.it = s.server

    def hook(rpc: Any, *_: object) -> RpcHookResult:
        note(rpc)
        del rpc
        called[0]()
        return RpcHookResult.CONTINUE

    s.server.add_hook(RpcHook.INPUT, hook)
    s.entered_by(lambda: client_of(s, number, CALL), called)


@busy("in a hook", "RpcServer")
def _(s: Scene) -> None:
    in_server_s_hook(s, ignore)


@busy("in a hook", "Rpc")
def _(s: Scene) -> None:
    in_server_s_hook(s, lambda rpc: s.add("it", rpc))


def calling(s: Scene, *, hook: Callable[..., Any], callback: Callable[..., Any]) -> None:
    """Have a pool whose call goes to a server of its own base, with a *hook* and a *callback*."""
    number = procedures(s, answer)
    s.add("pool", RpcPool(s.base))
    s.add("connection", HttpConnection(s.base, "127.0.0.1", number))
    s.pool.add_connection(s.connection)
    s.pool.add_hook(RpcHook.INPUT, hook)
    s.it = s.first = s.pool.call("Message", REQUEST, Kill, callback)


@busy("in a hook", "RpcCall")
def in_pool_s_hook(s: Scene) -> None:
    called = slot()
    calling(s, hook=into(called, RpcHookResult.CONTINUE), callback=ignore)
    s.entered_by(nothing, called)


@busy("in its callback", "RpcCall")
def in_call_s_callback(s: Scene) -> None:
    called = slot()
    calling(s, hook=lambda *_: RpcHookResult.CONTINUE, callback=into(called))
    s.entered_by(nothing, called)


@busy("in a hook", "RpcPool")
def _(s: Scene) -> None:
    in_pool_s_hook(s)
    s.it = s.pool


@busy("in a call's callback", "RpcPool")
def _(s: Scene) -> None:
    in_call_s_callback(s)
    s.it = s.pool


BUSY["EventBase"]["in a callback"] = in_a_base_s("EventBase")

for _kind, _scenes in BUSY.items():
    if not _scenes:  # it has no callback, and serves nothing that has one
        _scenes["in a base's callback"] = in_a_base_s(_kind)
