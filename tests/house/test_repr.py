"""What each object prints of itself: where C's is, and what it does, in every state."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import libevent_py
from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventOption,
    DnsBase,
    DnsServer,
    Event,
    EventBase,
    EventBaseFlag,
    EventConfig,
    EventFeature,
    FileSegment,
    Headers,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    HttpServer,
    Listener,
    LoopFlag,
    Message,
    RateLimit,
    RateLimitGroup,
    RpcPool,
    RpcServer,
    TlsContext,
    Uri,
    lib,
    util,
)
from libevent_py._core.handle import Handle
from libevent_py.rpc.message import Int
from tests.kit.flags import PERSIST, READ
from tests.kit.peers import Pair
from tests.kit.support import run_python

LOCAL = "127.0.0.1", 0
AT = r"at 0x[0-9a-f]+"
CALLS = rf", calls nothing \({re.escape(__file__)}:\d+\)"
BOUND = r"\('127\.0\.0\.1', \d+\)"

#: Those that are closed by closing what they belong to.
BORROWED = "Headers borrowed", "Buffer body", "Buffer output"


class Number(Message):
    """What a procedure takes and returns."""

    value = Int(1)


def nothing(*_: object) -> None:
    """Do nothing."""


@pytest.fixture
def every(base: EventBase, pair: Pair, tmp_path: Path) -> Iterator[dict[str, tuple[Any, str]]]:
    """An object of each kind with what it prints: one that is open, in its own thread."""
    (tmp_path / "file").write_bytes(b"0123456789")
    fd = pair[0].fileno()
    with ExitStack() as stack:
        enter = stack.enter_context
        made: dict[str, tuple[Any, str]] = {}

        def add(name: str, thing: Any, facts: str) -> Any:
            made[name] = thing, f"<{name.partition(' ')[0]} {AT}{facts}>"
            return thing

        event = enter(Event(base, pair[0], READ | PERSIST, nothing))
        add("Event", event.add(1000), rf", fd {fd}, READ\|PERSIST, pending TIMEOUT\|READ{CALLS}")
        add("Event timer", enter(Event.timer(base, nothing)), f", timer, not pending{CALLS}")
        add(
            "Event signal",
            enter(Event.signal(base, 10, nothing)),
            rf", signal 10, SIGNAL\|PERSIST, not pending{CALLS}",
        )
        add("CommonTimeout", base.init_common_timeout(2.5), r", 2\.5 s")
        config = enter(
            EventConfig(avoid=["poll"], require=EventFeature.O1, flags=EventBaseFlag.PRECISE_TIMER)
        )
        add("EventConfig", config, ", avoids poll, requires O1, PRECISE_TIMER")
        add("Listener", enter(Listener(base, LOCAL, nothing)), rf", fd \d+, {BOUND}{CALLS}")
        bev = enter(BufferEvent(base, pair[1], BufferEventOption(0)))
        bev.write(b"1234")
        add(
            "BufferEvent",
            bev,
            rf", fd {pair[1].fileno()}, enabled WRITE, input 0 bytes, output 4 bytes",
        )
        add("Buffer output", bev.output, ", 4 bytes")
        one, other = BufferEvent.pair(base)
        enter(one)
        above = enter(BufferEvent.filter(enter(other), None, None, BufferEventOption(0)))
        unread = ", input 0 bytes, output 0 bytes"
        add("BufferEvent filter", above, f", fd -1, enabled WRITE{unread}, on another one")
        below = rf", fd -1, enabled READ\|WRITE{unread}, below another one"
        add("BufferEvent below", other, below)
        buffer = Buffer(b"12345")
        buffer.add_cb(nothing)
        add("Buffer", enter(buffer), ", 5 bytes, 1 callbacks")
        add("Buffer deferring", Buffer(b"1"), ", 1 bytes")
        made["Buffer deferring"][0].defer_callbacks(base)
        segment = enter(FileSegment(enter((tmp_path / "file").open("rb")), 2))
        add("FileSegment", segment, ", 8 bytes from 2 on")
        add(
            "RateLimitGroup",
            enter(RateLimitGroup(base, RateLimit(100))),
            ", RateLimit.*, 0 members",
        )
        if lib.LIBEVENT_PY_HAVE_TLS:
            context = enter(TlsContext())
            add("TlsContext", context, ", for clients, verifies, checks host names")
            tls = enter(BufferEvent.tls(base, -1, context, server_hostname="a.example"))
            add("BufferEvent TLS", tls, f", fd -1, enabled WRITE{unread}, TLS")
        add("MonotonicTimer", enter(util.MonotonicTimer()), "")
        server = enter(HttpServer(base))
        add("BoundSocket", server.bind_socket(*LOCAL), rf", fd \d+, {BOUND}")
        add("HttpServer", server, f", on {BOUND}, 0 routes")
        connection = enter(HttpConnection(base, "a.example", 80))
        add("HttpConnection", connection, r", to a\.example:80, fd -1")
        request = enter(HttpRequest(nothing))
        add("HttpRequest", request, ", never made")
        add("Buffer body", request.output_buffer, ", 0 bytes")
        dns = enter(DnsBase(base, 0))
        dns.nameserver_sockaddr_add(("127.0.0.1", 9))
        add("DnsBase", dns, ", 1 name servers, 1 lookups pending")
        lookup = dns.resolve_ipv4("a.example", nothing)
        made["DnsLookup"] = lookup, rf"<DnsLookup of 'a\.example', A, pending {AT}>"
        stack.callback(lookup.cancel)
        add("DnsServer", enter(DnsServer(base, LOCAL, nothing)), rf", fd \d+, {BOUND}")
        add("RpcServer", enter(RpcServer(server)), ", 0 calls await an answer")
        add("RpcPool", enter(RpcPool(base)), ", 0 connections, 0 calls under way")
        add("EventBase", base, rf", {base.method}, \d+ events added, 0 active")
        made["Headers"] = Headers({"a": "b"}), re.escape("Headers([('a', 'b')])")
        made["Headers borrowed"] = request.output_headers, re.escape("Headers([])")
        made["Uri"] = Uri.parse("http://a/"), re.escape("<Uri scheme='http', host='a', path='/'>")
        yield made


def test_each_object_prints_where_it_is_in_c_and_what_it_does(every: dict[str, Any]) -> None:
    for name, (thing, expected) in every.items():
        assert re.fullmatch(expected, repr(thing)), f"{name}: {thing!r}, not {expected}"


def test_the_address_is_that_of_the_c_object(base: EventBase) -> None:
    with Event.timer(base, nothing) as event:
        address = int(libevent_py.ffi.cast("uintptr_t", event.pointer))
        assert f"at {address:#x}," in repr(event)


def test_no_name_of_a_private_class_is_printed(every: dict[str, Any]) -> None:
    public = {name for name in vars(libevent_py) if name[0].isupper()}
    for thing, _ in every.values():
        name = type(thing).__name__
        assert name in public or hasattr(util, name), name
        assert not re.search("Borrowed|Request(?=Buffer)|Client(?=B)|Hooked|Watched", repr(thing))


def test_an_error_names_the_public_class_of_a_private_one(every: dict[str, Any]) -> None:
    output, headers = every["Buffer output"][0], every["Headers borrowed"][0]
    with pytest.raises(AttributeError, match="'Buffer' object has no attribute"):
        output.nothing  # noqa: B018
    every["BufferEvent"][0].close()
    with pytest.raises(libevent_py.ClosedError, match="this BufferEvent is closed"):
        len(output)
    with pytest.raises(TypeError, match="Buffer objects can't be copied"):
        output.__reduce_ex__(2)
    with pytest.raises(TypeError, match="Headers objects can't be copied"):
        headers.__reduce_ex__(2)


def test_in_another_thread_c_is_not_asked_but_for_what_any_thread_may_use(
    every: dict[str, Any],
) -> None:
    """It could be freed meanwhile; what Python knows is printed all the same."""
    printed: dict[str, str] = {}

    def look() -> None:
        for name, (thing, _) in every.items():
            printed[name] = repr(thing)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert re.fullmatch(f"<EventBase {AT}>", printed["EventBase"])
    assert re.fullmatch(rf"<Event {AT}, fd \d+, READ\|PERSIST{CALLS}>", printed["Event"])
    assert re.fullmatch(f"<Listener {AT}{CALLS}>", printed["Listener"])
    assert re.fullmatch(f"<BufferEvent {AT}>", printed["BufferEvent"])
    assert re.fullmatch(f"<Buffer {AT}>", printed["Buffer output"])
    assert re.fullmatch(f"<Buffer {AT}, 5 bytes, 1 callbacks>", printed["Buffer"])
    assert printed["Headers"] == "Headers([('a', 'b')])"
    assert printed["HttpServer"].endswith(", 1 sockets, 0 routes>")
    for name, text in printed.items():
        assert not re.search("Error|not made|closed", text), name


def test_while_another_thread_runs_the_loop_it_says_so() -> None:
    with EventBase() as base:
        began, printed = threading.Event(), []
        base.once(lambda fd, what: began.set())
        base.once(nothing, timeout=1000)
        thread = threading.Thread(target=base.dispatch)
        thread.start()
        began.wait()
        printed.append(repr(base))
        base.loopexit()
        thread.join()
        assert re.fullmatch(f"<EventBase {AT}, running in another thread>", printed[0])


def test_in_its_own_callback_it_says_that_the_loop_runs(base: EventBase) -> None:
    printed: list[str] = []
    base.once(lambda fd, what: printed.append(repr(base)))
    base.dispatch()
    assert printed[0].endswith(", running>")


def test_closed_objects_say_so_and_what_python_knows_of_them(every: dict[str, Any]) -> None:
    base = every["EventBase"][0]
    things = {name: thing for name, (thing, _) in every.items()}
    base.close()
    stays = {"Headers", "Headers borrowed", "Uri", "Buffer", "FileSegment", "TlsContext"}
    stays |= {"MonotonicTimer", "EventConfig", "HttpRequest", "Buffer body", "DnsLookup"}
    for name, thing in things.items():
        text = repr(thing)
        if name not in stays:
            assert re.match(rf"<{name.partition(' ')[0]} closed\b", text), text
        if isinstance(thing, Handle) and name not in BORROWED:
            thing.close()
            assert re.match(rf"<{name.partition(' ')[0]} closed\b", repr(thing)), repr(thing)
    assert re.fullmatch(r"<Event closed, fd \d+, READ\|PERSIST>", repr(things["Event"]))
    for name in ("Headers borrowed", "Buffer body"):  # with their request
        assert re.fullmatch(f"<{name.split()[0]} closed>", repr(things[name]))


def test_what_was_never_made_says_so() -> None:
    kinds = [kind for kind in vars(libevent_py).values() if isinstance(kind, type)]
    handles = [kind for kind in kinds if issubclass(kind, Handle)]
    assert len(handles) > 20
    for kind in handles:
        assert repr(kind.__new__(kind)) == f"<{kind.__name__} not made>"


def test_whom_a_signal_handler_or_a_finalizer_closes_meanwhile_is_closed(
    base: EventBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (Event, BufferEvent):
        thing: Any = Event.timer(base, nothing) if kind is Event else BufferEvent(base)

        def asked(self: Any, thing: Any = thing) -> bool:
            thing.close()
            return True

        monkeypatch.setattr(kind, "_may_ask", asked)
        assert re.match(f"<{kind.__name__} closed", repr(thing))


def test_after_a_fork_nothing_is_asked_until_reinit(every: dict[str, Any]) -> None:
    """A child has no way to what is its parent's, nor may it wait for the locks."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            lines = [repr(thing) for thing, _ in every.values()]
            every["EventBase"][0].reinit()
            lines += [repr(every["Event"][0])]
            os.write(write, "\n".join(lines).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    os.waitpid(pid, 0)
    assert len(lines) == len(every) + 1
    printed = dict(zip(every, lines, strict=False))
    for name in ("Event", "Listener", "BufferEvent", "Buffer output", "HttpServer", "DnsBase"):
        assert re.match(f"<{name.split()[0]} in a forked child\\b", printed[name]), printed[name]
    assert printed["EventBase"] == "<EventBase in a forked child>"
    assert re.fullmatch(every["Event"][1], lines[-1])


def test_a_request_and_its_answer_are_told(base: EventBase) -> None:
    printed: list[str] = []

    def handle(request: Any) -> None:
        printed.append(repr(request))
        printed.append(repr(request.connection))
        printed.append(repr(request.input_headers))
        printed.append(repr(request.output_buffer))
        request.send_reply(200)
        printed.append(repr(request))

    def done(request: Any) -> None:
        printed.append(repr(request))
        connection.close()
        base.loopexit()

    with HttpServer(base) as server:
        server.set_gencb(handle)
        port = server.bind_socket(*LOCAL).port
        connection = HttpConnection(base, "127.0.0.1", port)
        request = HttpRequest(done)
        connection.make_request(request, HttpCommand.GET, "/a?b")
        printed.append(repr(request))
        assert re.fullmatch(
            rf"<HttpConnection {AT}, to 127\.0\.0\.1:{port}, fd \d+, 1 requests under way>",
            repr(connection),
        )
        base.dispatch()
    expected = [
        rf"<HttpRequest {AT}, GET '/a\?b', to 127\.0\.0\.1:\d+, under way>",
        rf"<HttpServerRequest {AT}, GET '/a\?b', from 127\.0\.0\.1:\d+>",
        rf"<HttpServerConnection {AT}, fd \d+, from 127\.0\.0\.1:\d+>",
        r"Headers\(\[.*\]\)",
        rf"<Buffer {AT}, 0 bytes>",
        "<HttpServerRequest closed, answered>",
        rf"<HttpRequest {AT}, GET '/a\?b', answered 200>",
    ]
    assert len(printed) == len(expected)
    for text, pattern in zip(printed, expected, strict=True):
        assert re.fullmatch(pattern, text), text


def test_a_dns_query_and_its_answer_are_told(base: EventBase) -> None:
    printed: list[str] = []

    def on_query(request: Any) -> None:
        printed.append(repr(request))
        request.respond()
        printed.append(repr(request))

    def on_answer(lookup: Any, *_: object) -> None:
        printed.append(repr(lookup))
        base.loopexit()

    with DnsServer(base, LOCAL, on_query) as server, DnsBase(base, 0) as dns:
        dns.nameserver_sockaddr_add(server.address)
        dns.set_option("randomize-case", 0)
        dns.resolve_ipv6("a.example", on_answer)
        base.dispatch()
    expected = [
        rf"<DnsServerRequest {AT}, 'a\.example' AAAA, from {BOUND}>",
        r"<DnsServerRequest closed, answered or dropped, 'a\.example' AAAA>",
        r"<DnsLookup of 'a\.example', AAAA, ended>",
    ]
    for text, pattern in zip(printed, expected, strict=True):
        assert re.fullmatch(pattern, text), text


def test_a_call_of_a_procedure_is_told(base: EventBase) -> None:
    printed: list[str] = []

    def double(rpc: Any) -> None:
        printed.append(repr(rpc))
        rpc.reply.value = 2 * rpc.request.value
        printed.append(repr(rpc.http_request))
        rpc.done()
        printed.append(repr(rpc))

    def replied(call: Any) -> None:
        printed.append(repr(call))
        base.loopexit()

    with HttpServer(base) as http, RpcServer(http) as server, RpcPool(base) as pool:
        server.register("Double", Number, Number, double)
        port = http.bind_socket(*LOCAL).port
        pool.add_connection(HttpConnection(base, "127.0.0.1", port))
        call = pool.call("Double", Number(value=2), Number, replied)
        printed.append(repr(call))
        base.dispatch()
        assert re.fullmatch(f"<RpcPool {AT}, 1 connections, 0 calls under way>", repr(pool))
    expected = [
        rf"<RpcCall {AT}, 'Double'>",
        rf"<Rpc {AT}, 'Double'>",
        rf"<HttpRequest {AT}, POST '/\.rpc\.Double'>",
        "<Rpc closed, 'Double', answered>",
        "<RpcCall closed, 'Double', NONE>",
    ]
    assert len(printed) == len(expected)
    for text, pattern in zip(printed, expected, strict=True):
        assert re.fullmatch(pattern, text), text


def test_a_buffer_callback_and_a_reservation_are_told() -> None:
    buffer = Buffer(b"1")
    callback = buffer.add_cb(nothing)
    assert re.fullmatch(
        f"<BufferCallback enabled, of <Buffer {AT}, 1 bytes, 1 callbacks>>", repr(callback)
    )
    callback.enabled = False
    assert repr(callback).startswith("<BufferCallback disabled, of ")
    callback.remove()
    assert repr(callback) == "<BufferCallback removed>"
    with buffer.reserve(10):
        assert re.fullmatch(f"<Buffer {AT}, 1 bytes>", repr(buffer))


def test_a_listener_whose_socket_somebody_has_closed_says_so(base: EventBase) -> None:
    listener = Listener(base, LOCAL, nothing)
    fd = listener.fd
    kept = os.dup(fd)
    os.close(fd)
    text = repr(listener)
    os.dup2(kept, fd, inheritable=False)
    os.close(kept)
    assert re.fullmatch(
        rf"<Listener {AT}, fd {fd}, no address \(Bad file descriptor\){CALLS}>", text
    )
    listener.close()


def test_what_an_eager_bufferevent_has_elsewhere_is_counted(base: EventBase, pair: Pair) -> None:
    printed: list[str] = []

    def on_read(bev: BufferEvent) -> None:
        bev.write(b"ab")
        printed.extend([repr(bev), repr(bev.input), repr(bev.output)])
        bev.read()
        bev.close()

    pair[0].send(b"12345")
    options = BufferEventOption.EAGER
    bev = BufferEvent(base, pair[1], options, on_read=on_read)
    bev.enable(READ)
    base.loop(LoopFlag.ONCE)
    assert "input 5 bytes, output 2 bytes" in printed[0]
    assert printed[1].endswith(", 5 bytes>")
    assert printed[2].endswith(", 2 bytes>")


def test_printing_reads_no_memory_that_is_not_its_own() -> None:
    run_python(
        """
        import gc, socket
        from libevent_py import *

        one, other = socket.socketpair()
        other.close()
        base = EventBase()
        bev = BufferEvent(base, one)
        event = Event.timer(base, print).add(100)
        server = HttpServer(base)
        request = HttpRequest(print)
        things = [base, bev, bev.input, bev.output, event, server, server.bind_socket(None, 0),
                  request, request.output_headers, request.output_buffer, DnsBase(base, 0),
                  Listener(base, ("127.0.0.1", 0), print), Buffer(b"1"), Uri.parse("/a")]
        assert all(map(repr, things))
        bev.close()
        server.close()
        assert all(map(repr, things))
        base.close()
        request.close()
        assert all(map(repr, things))
        """,
        valgrind=True,
    )
