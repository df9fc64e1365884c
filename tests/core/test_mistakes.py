"""What a beginner does wrong, and what the error says to do instead."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    ClosedError,
    DnsBase,
    DnsServer,
    Event,
    EventBase,
    EventFlag,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    HttpServer,
    Listener,
    Message,
    RpcPool,
    RpcServer,
    ThreadError,
    TlsContext,
)
from libevent_py.errors import ForkError
from libevent_py.rpc import Int
from tests.kit.peers import ANYWHERE, run_until
from tests.kit.support import PATIENCE

#: A mistake is made with a base, and something to be used up.
Mistake = Callable[[EventBase], object]


@pytest.fixture
def taken() -> Iterator[tuple[str, int]]:
    """An address where somebody listens already."""
    with socket.create_server(ANYWHERE) as server:
        yield server.getsockname()


# Callbacks with the wrong number of parameters.


def nothing() -> None:
    """Take no arguments."""


class Number(Message):
    value = Int(1)


def timer(base: EventBase) -> object:
    return Event.timer(base, nothing).add(0)  # type: ignore[arg-type]


def once(base: EventBase) -> object:
    return base.once(nothing, timeout=0)  # type: ignore[arg-type]


def bufferevent(base: EventBase, name: str) -> object:
    one, other = BufferEvent.pair(base)
    setattr(one, name, nothing)
    one.enable(EventFlag.READ | EventFlag.WRITE)
    other.enable(EventFlag.READ | EventFlag.WRITE)
    one.write(b"out")
    other.write(b"in")
    one.trigger_event(BufferEventFlag.EOF)
    return one, other


def listener(base: EventBase) -> object:
    made = Listener(base, ANYWHERE, nothing)  # type: ignore[arg-type]
    client = BufferEvent(base)
    client.connect(made.address)
    return made, client


def refusing(base: EventBase) -> object:
    listener = Listener(base, ANYWHERE, print)
    listener.on_error = nothing  # type: ignore[assignment]
    with socket.socket(fileno=os.dup(listener.fd)) as same:
        same.shutdown(socket.SHUT_RDWR)  # so that accept() fails
    return listener


def changed(base: EventBase) -> object:
    buffer = Buffer()
    buffer.add_cb(nothing)  # type: ignore[arg-type]
    base.defer(buffer.add, b"x")
    return buffer


def asked(base: EventBase, handler: Any, callback: Any) -> object:
    server = HttpServer(base)
    server.set_gencb(handler)
    port = server.bind_socket(*ANYWHERE).port
    connection = HttpConnection(base, "127.0.0.1", port)
    request = HttpRequest(callback)
    connection.make_request(request, HttpCommand.GET, "/")
    return server, connection, request


def answer(request: Any) -> None:
    request.send_reply(200, "OK", b"")


def handler(base: EventBase) -> object:
    return asked(base, nothing, lambda request: None)


def on_end(base: EventBase) -> object:
    def answered(request: Any) -> None:
        request.on_end = nothing
        answer(request)

    return asked(base, answered, lambda request: None)


def done(base: EventBase) -> object:
    return asked(base, answer, nothing)


def looked_up(base: EventBase, callback: Any, serve: Any) -> object:
    server = DnsServer(base, ANYWHERE, serve)
    dns = DnsBase(base, 0)
    dns.nameserver_sockaddr_add(server.address)
    dns.resolve_ipv4("name.example", callback)
    return server, dns


def refuse(request: Any) -> None:
    request.respond(3)


def resolved(base: EventBase) -> object:
    return looked_up(base, nothing, refuse)


def query(base: EventBase) -> object:
    return looked_up(base, lambda *_: None, nothing)


def addrinfo(base: EventBase) -> object:
    dns = DnsBase(base, 0)
    base.defer(dns.getaddrinfo, "127.0.0.1", "80", nothing)  # type: ignore[arg-type]
    return dns


def called(base: EventBase, handler: Any, callback: Any) -> object:
    http = HttpServer(base)
    rpc = RpcServer(http)
    rpc.register("Echo", Number, Number, handler)
    pool = RpcPool(base)
    port = http.bind_socket(*ANYWHERE).port
    pool.add_connection(HttpConnection(base, "127.0.0.1", port))
    pool.call("Echo", Number(value=1), Number, callback)
    return http, rpc, pool


def procedure(base: EventBase) -> object:
    return called(base, nothing, lambda call: None)


def reply(base: EventBase) -> object:
    return called(base, lambda rpc: rpc.fail(), nothing)


@pytest.mark.parametrize(
    ("make", "called"),
    [
        (timer, "callback(event, fd, what)"),
        (once, "callback(fd, what)"),
        (lambda base: bufferevent(base, "on_read"), "on_read(bev)"),
        (lambda base: bufferevent(base, "on_write"), "on_write(bev)"),
        (lambda base: bufferevent(base, "on_event"), "on_event(bev, what)"),
        (listener, "callback(listener, fd, address)"),
        (refusing, "on_error(listener, error)"),
        (changed, "callback(buffer, info)"),
        (handler, "handler(request)"),
        (on_end, "on_end(request)"),
        (done, "callback(request)"),
        (resolved, "callback(lookup, result, ttl, found)"),
        (addrinfo, "callback(lookup, error, found)"),
        (query, "callback(request)"),
        (procedure, "handler(rpc)"),
        (reply, "callback(call)"),
    ],
)
def test_a_callback_with_other_parameters_is_told_how_it_is_called(
    base: EventBase, make: Mistake, called: str
) -> None:
    kept = make(base)
    base.loopexit(PATIENCE)
    with pytest.raises(TypeError) as raised:
        base.dispatch()
    assert str(raised.value).startswith("nothing() takes 0 positional arguments but ")
    assert str(raised.value).endswith(f": it is called as {called}")
    del kept


def test_what_the_callback_itself_calls_wrongly_is_left_as_it_is(base: EventBase) -> None:
    def wrong(*_: object) -> None:
        nothing(1)  # type: ignore[call-arg]

    Event.timer(base, wrong).add(0)
    with pytest.raises(TypeError) as raised:
        base.dispatch()
    assert str(raised.value) == "nothing() takes 0 positional arguments but 1 was given"


# All others.


def used_when_closed(base: EventBase) -> None:
    event = Event.timer(base, print)
    event.close()
    event.close()  # a second time does nothing
    event.add(1)


def used_in_another_thread(base: EventBase) -> None:
    event, errors = Event.timer(base, print), []

    def use() -> None:
        try:
            event.add(1)
        except ThreadError as error:
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(PATIENCE)
    event.close()
    raise errors[0]


def used_in_a_child(base: EventBase) -> None:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            base.dispatch()
        except ForkError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as said:
        message = said.read()
    os.waitpid(child, 0)
    raise ForkError(message)


def run_within(base: EventBase) -> None:
    base.defer(base.dispatch)
    base.dispatch()


def with_text(base: EventBase) -> None:
    one, other = BufferEvent.pair(base)
    with one, other:
        one.write("text")  # type: ignore[arg-type]


def answered_twice(base: EventBase) -> None:
    def twice(request: Any) -> None:
        answer(request)
        answer(request)

    kept = asked(base, twice, lambda request: None)
    base.loopexit(PATIENCE)
    base.dispatch()
    del kept


def on_a_regular_file(base: EventBase) -> None:
    with open(__file__) as file, Event(base, file, EventFlag.READ, print) as event:
        event.add()


@pytest.mark.parametrize(
    ("mistake", "error", "says"),
    [
        (used_when_closed, ClosedError, "this Event is closed"),
        (
            used_in_another_thread,
            ThreadError,
            "this event base belongs to another thread: use base.defer() from here, or "
            "base.take_over() when that thread doesn't use it",
        ),
        (used_in_a_child, ForkError, "call reinit() first"),
        (run_within, RuntimeError, "the loop of this event base runs already"),
        (with_text, TypeError, "data must be bytes or have the buffer protocol, not 'text'"),
        (answered_twice, ClosedError, "this HttpServerRequest has been answered"),
        (
            on_a_regular_file,
            PermissionError,
            'a regular file; EventBase(method="poll") takes any',
        ),
        (lambda base: Listener(base, "127.0.0.1:80", print), ValueError, "give ('127.0.0.1', 80)"),
        (lambda base: Listener(base, ("127.0.0.1", "80"), print), TypeError, "port must be an"),  # type: ignore[arg-type]
        (
            lambda base: BufferEvent(base).connect(("localhost", 80)),
            ValueError,
            "must have a numeric IPv4 or IPv6 host, not 'localhost': names are looked up by "
            "connect_hostname()",
        ),
        (lambda base: Event.timer(base, None), TypeError, "callback must be callable, not None"),  # type: ignore[arg-type]
        (lambda base: Event.timer(base, print).add("1"), TypeError, "a number of seconds, not '1'"),  # type: ignore[arg-type]
        (lambda base: Event.timer(base, print).add(-1), ValueError, "seconds, not -1"),
        (
            lambda base: Event(base, "x", EventFlag.READ, print),  # type: ignore[arg-type]
            TypeError,
            "or have a fileno(), not",
        ),
        (lambda base: Event.signal(base, "INT", print), TypeError, "signum must be an integer"),  # type: ignore[arg-type]
        (
            lambda base: Event.signal(base, signal.SIGKILL, print),
            ValueError,
            "signum must be a signal that can be caught, not",
        ),
        (lambda base: TlsContext(certfile="/no.pem"), FileNotFoundError, "'/no.pem'"),
        (lambda base: Listener(base, "/no/such/folder", print), FileNotFoundError, "'/no/such/"),
        (lambda base: HttpServer(base).bind_socket("::1", 99999), ValueError, "from 0 to 65535"),
        (lambda base: Buffer(b"a\n").readln(b"\n"), ValueError, "eol must be an EolStyle, not b"),  # type: ignore[arg-type]
    ],
)
@pytest.mark.filterwarnings("ignore:.* has been dropped:ResourceWarning")
def test_the_error_says_what_to_do(
    base: EventBase, mistake: Mistake, error: type[BaseException], says: str
) -> None:
    with pytest.raises(error, match=re.escape(says)):
        mistake(base)


@pytest.mark.parametrize("listen", [Listener, lambda *_: None])
def test_a_port_in_use_is_named(base: EventBase, taken: tuple[str, int], listen: object) -> None:
    with pytest.raises(OSError, match=re.escape(f"address {taken}: Address already in use")):
        if listen is Listener:
            Listener(base, taken, print)
        else:
            HttpServer(base).bind_socket(*taken)


def test_a_name_that_is_not_found_is_named(base: EventBase) -> None:
    told: list[Exception | None] = []
    server = DnsServer(base, ANYWHERE, refuse)
    dns = DnsBase(base, 0)
    dns.nameserver_sockaddr_add(server.address)
    bev = BufferEvent(base, on_event=lambda bev, what: told.append(bev.error))
    bev.connect_hostname(dns, "no.example", 80)
    run_until(base, lambda: told)
    assert "no.example" in str(told[0])


def test_a_refused_connection_is_named(base: EventBase) -> None:
    told: list[Exception | None] = []
    bev = BufferEvent(base, on_event=lambda bev, what: told.append(bev.error))
    with socket.create_server(ANYWHERE) as server:
        address = server.getsockname()
    bev.connect(address)
    run_until(base, lambda: told)
    assert isinstance(told[0], ConnectionRefusedError)


def test_a_forgotten_enable_is_explained(base: EventBase) -> None:
    one, other = socket.socketpair()
    with one, other, BufferEvent(base, one, on_read=print) as bev:
        other.send(b"nobody reads it")
        assert "reading is suspended, as it isn't enabled: enable(READ)" in base.explain()
        assert "enabled WRITE," in repr(bev)
