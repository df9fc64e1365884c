"""What has been checked is checked again where other code may have changed it meanwhile.

An argument's own method, an overridden property or a signal handler does the same thing that is
under way: only one of the two may succeed.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from libevent_py import (
    AddrInfoLookup,
    BufferCallback,
    BufferEvent,
    ClosedError,
    CommonTimeout,
    DnsLookup,
    DnsServerRequest,
    Event,
    EventBase,
    EventFlag,
    HttpConnection,
    HttpRequest,
    HttpServer,
    HttpServerConnection,
    HttpServerRequest,
    Listener,
    LoopFlag,
    RateLimit,
    RateLimitGroup,
    Rpc,
    RpcPool,
    TlsContext,
)
from libevent_py._core.child import Child
from tests.kit.interposing import Interposer
from tests.kit.rpc_messages import REQUEST, Kill, Msg
from tests.kit.support import run_python
from tests.kit.web import Client, get, where

Pair = tuple[socket.socket, socket.socket]


def served(base: EventBase) -> HttpServer:
    server = HttpServer(base)
    server.bind_socket("127.0.0.1", 0)
    return server


def test_a_request_that_its_uri_makes_elsewhere_is_made_once(base: EventBase) -> None:
    server = served(base)
    server.set_gencb(lambda request: request.send_reply(200))
    one, other = (HttpConnection(base, *where(server)) for _ in range(2))
    told: list[HttpRequest] = []

    class Uri(str):
        def encode(self, *arguments: Any) -> bytes:
            if not told and request.connection is None:
                other.make_request(request, 1, "/")
            return super().encode(*arguments)

    request = HttpRequest(told.append)
    request.output_headers["Host"] = "a"
    with pytest.raises(RuntimeError, match="made already"):
        one.make_request(request, 1, Uri("/"))
    assert request.connection is other
    while not told:
        base.loop(1)
    assert request.response_code == 200
    one.close()
    other.close()


def test_a_listener_that_its_address_gives_away_has_one_server(base: EventBase) -> None:
    one, other = HttpServer(base), HttpServer(base)

    class Giving(Listener):
        armed = False

        @property
        def address(self) -> Any:
            if self.armed:
                self.armed = False
                other.bind_listener(self)
            return super().address

    listener = Giving(base, ("127.0.0.1", 0), None)
    listener.armed = True
    with pytest.raises(ValueError, match="belongs to a server already"):
        one.bind_listener(listener)
    assert (len(one.bound_sockets), len(other.bound_sockets)) == (0, 1)
    one.close()
    base.loop(3)
    other.close()


def test_a_server_that_becomes_a_virtual_host_meanwhile_does_not_listen(base: EventBase) -> None:
    one, other = HttpServer(base), HttpServer(base)

    class Adding(Listener):
        @property
        def address(self) -> Any:
            if one not in other.virtual_hosts:
                other.add_virtual_host("x", one)
            return super().address

    with Adding(base, ("127.0.0.1", 0), None) as listener:
        with pytest.raises(ValueError, match="a virtual host can't listen"):
            one.bind_listener(listener)
        assert one.bound_sockets == []


def test_a_closed_listener_says_so_though_it_was_bound(base: EventBase) -> None:
    server = HttpServer(base)
    listener = Listener(base, ("127.0.0.1", 0), None)
    server.bind_listener(listener)
    listener.close()
    with pytest.raises(ClosedError):
        server.bind_listener(listener)
    with pytest.raises(ClosedError):
        listener.callback = None


def test_a_part_of_a_body_is_not_taken_from_what_http_has(base: EventBase) -> None:
    server, taken = served(base), list[object]()
    upstream = served(base)
    upstream.set_gencb(lambda request: request.send_reply(200))
    connection = HttpConnection(base, *where(upstream))

    def handler(request: Any) -> None:
        got = request.connection.bufferevent.input

        def write(part: HttpRequest) -> None:
            try:
                part.send_request_chunk(got)
            except Exception as error:
                taken.append(error)
            part.send_request_end()

        sent = HttpRequest(lambda _: request.send_reply(200), on_write=write)
        sent.output_headers["Host"] = "a"
        connection.make_request(sent, 2, "/")

    server.set_gencb(handler)
    client = Client(base, where(server)).send(get())
    assert client.rest().startswith(b"HTTP/1.1 200 ")
    (error,) = taken
    assert isinstance(error, ValueError)
    connection.close()


class Lying(RateLimit):
    """A limit whose tick is what it likes."""

    told: Any = 0.0

    @property
    def tick(self) -> Any:
        return self.told

    @tick.setter
    def tick(self, value: Any) -> None:
        """Take no notice."""


@pytest.mark.parametrize("tick", [0.0, 1e-9, float("nan"), 1e300])
def test_a_limit_of_a_user_s_class_is_looked_at(base: EventBase, pair: Pair, tick: float) -> None:
    limit, bev = Lying(10, 10, 10, 10), BufferEvent(base, pair[0])
    Lying.told = tick
    bev.rate_limit = before = RateLimit(1000)
    with pytest.raises(ValueError, match="tick"):
        bev.rate_limit = limit
    assert bev.rate_limit is before
    with pytest.raises(ValueError, match="tick"):
        RateLimitGroup(base, limit)


@pytest.mark.parametrize(
    "kind", [CommonTimeout, DnsServerRequest, HttpServerConnection, HttpServerRequest, Rpc]
)
def test_what_only_the_package_can_make_says_so(kind: Any) -> None:
    """Two objects for one thing in C would free it twice."""
    with pytest.raises(TypeError, match=r"makes its|is made by"):
        kind()
    assert "not made" in repr(kind.__new__(kind))


@pytest.mark.parametrize(
    "kind", [AddrInfoLookup, BufferCallback, CommonTimeout, DnsLookup, RateLimit]
)
def test_what_has_not_been_made_can_be_printed(kind: Any) -> None:
    assert repr(kind.__new__(kind)) == f"<{kind.__name__} not made>"


@pytest.mark.parametrize("kind", ["BufferEvent", "Listener", "HttpConnection"])
def test_what_says_that_it_is_closed_is_closed_with_its_base_all_the_same(kind: str) -> None:
    script = """
        import socket, sys
        import libevent_py
        one, other = socket.socketpair()
        kind = sys.argv[1]
        closed = type("Closed", (getattr(libevent_py, kind),), {"closed": True})
        base = libevent_py.EventBase()
        thing = {
            "BufferEvent": lambda: closed(base, one),
            "Listener": lambda: closed(base, ("127.0.0.1", 0), None),
            "HttpConnection": lambda: closed(base, "127.0.0.1", 1),
        }[kind]()
        pointer = thing.pointer
        base.close()
        try:
            thing.pointer
        except Exception as error:
            print(type(error).__name__)
        del thing, base
        one.close()
        other.close()
    """
    assert run_python(script, kind, valgrind=True) == "ClosedError\n"


def test_a_bufferevent_that_is_given_meanwhile_has_one_owner(base: EventBase, pair: Pair) -> None:
    server = HttpServer(base)
    server.bind_socket("127.0.0.1", 0)

    class Giving(BufferEvent):
        armed = False

        @property
        def enabled(self) -> EventFlag:
            return super().enabled

        def _settle(self) -> None:  # stands for a signal handler in the middle
            if self.armed:
                self.armed = False
                others.append(HttpConnection(base, *where(server), bufferevent=self))
            super()._settle()

    others: list[HttpConnection] = []
    bev = Giving(base)
    bev.armed = True
    with pytest.raises(ValueError, match="belongs to"):
        HttpConnection(base, *where(server), bufferevent=bev)
    (other,) = others
    other.close()


def filtered(base: EventBase, below: BufferEvent) -> BufferEvent:
    return BufferEvent.filter(below, None, None)


def secured(base: EventBase, below: BufferEvent) -> BufferEvent:
    return BufferEvent.tls_filter(below, TlsContext(verify=False))


def given(base: EventBase, below: BufferEvent) -> HttpConnection:
    return HttpConnection(base, "127.0.0.1", 1, bufferevent=below)


@pytest.mark.parametrize("other", [filtered, secured, given])
@pytest.mark.parametrize("mine", [filtered, secured])
def test_two_layers_put_on_one_bufferevent_at_once_are_one(
    base: EventBase, pair: Pair, mine: Callable[..., Any], other: Callable[..., Any]
) -> None:
    class Busy(BufferEvent):
        armed = False

        def _settle(self) -> None:  # stands for a signal handler in the middle
            if self.armed:
                self.armed = False
                others.append(other(base, self))
            super()._settle()

    others: list[Any] = []
    bev = Busy(base)
    bev.armed = True
    with pytest.raises(ValueError, match=r"belongs to|the underlying one of"):
        mine(base, bev)
    (layer,) = others
    layer.close()


@pytest.mark.parametrize("make", [filtered, secured])
def test_a_layer_that_can_not_be_made_leaves_its_place(
    base: EventBase, make: Callable[..., BufferEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    bev = BufferEvent(base)

    def fail(self: object, *arguments: object) -> None:
        raise MemoryError("no C object")

    with monkeypatch.context() as patch, pytest.raises(MemoryError, match="no C object"):
        patch.setattr(Child, "__init__", fail)
        make(base, bev)
    upper = make(base, bev)
    with pytest.raises(ValueError, match="the underlying one of"):
        make(base, bev)
    upper.close()
    assert bev.closed


def test_a_call_is_refused_whose_pool_has_lost_its_last_connection_meanwhile(
    base: EventBase,
) -> None:
    class Sly(Msg):
        def __bytes__(self) -> bytes:
            pool.remove_connection(connection)
            return bytes(REQUEST)

    with RpcPool(base) as pool:
        connection = HttpConnection(base, "127.0.0.1", 9)
        pool.add_connection(connection)
        with pytest.raises(RuntimeError, match="the pool has no connection"):
            pool.call("Message", Sly(), Kill, print)
        connection.close()


class Elsewhere:
    """An argument whose own methods make what it is an argument for."""

    def __init__(self, value: int, make: Callable[[], None]) -> None:
        self.value, self.make = value, make

    def __index__(self) -> int:
        self.make()
        return self.value

    fileno = __index__


def test_what_an_argument_makes_is_not_made_once_more() -> None:
    """The first C object was lost: a base with its descriptors, or an event that nobody freed."""
    code = """
    import gc, os, socket
    from libevent_py import (
        BufferEvent, BufferEventOption, DnsServer, Event, EventBase, EventFlag, Listener, debug,
    )
    from tests.core.test_meanwhile import Elsewhere

    HERE = "127.0.0.1", 0
    NONE = BufferEventOption(0)

    def of_a_base(base, fd):
        made = EventBase.__new__(EventBase)
        return made, dict(priorities=Elsewhere(3, made.__init__))

    def of_an_event(base, fd):
        made = Event.__new__(Event)
        again = lambda: made.__init__(base, fd, EventFlag.READ, print)
        return made, dict(
            base=base, fd=Elsewhere(fd, again), what=EventFlag.READ, callback=print
        )

    def of_a_bufferevent(base, fd):
        made = BufferEvent.__new__(BufferEvent)
        again = lambda: made.__init__(base, fd, options=NONE)
        return made, dict(base=base, fd=Elsewhere(fd, again), options=NONE)

    def of_a_listener(base, fd):
        made = Listener.__new__(Listener)
        again = lambda: made.__init__(base, HERE, print)
        return made, dict(base=base, address=HERE, callback=print, backlog=Elsewhere(5, again))

    def of_a_dns_server(base, fd):
        made = DnsServer.__new__(DnsServer)
        def again():  # the number is asked for twice
            if not hasattr(made, "pointer"):
                made.__init__(base, HERE, print)
        return made, dict(base=base, address=("127.0.0.1", Elsewhere(0, again)), callback=print)

    def left():
        gc.collect()
        return debug.memory().blocks, sorted(os.listdir("/proc/self/fd"))

    debug.count_memory()
    with EventBase() as base:
        base.loop()  # makes what the process keeps
    one, other = socket.socketpair()
    one.setblocking(False)
    for kind in of_a_base, of_an_event, of_a_bufferevent, of_a_listener, of_a_dns_server:
        for again in range(2):
            before = left()
            with EventBase() as base:
                made, arguments = kind(base, one.fileno())
                try:
                    made.__init__(**arguments)
                except RuntimeError as error:
                    assert "has been made already" in str(error), error
                else:
                    raise AssertionError(kind)
                assert not made.closed
                made.close()
            del made, arguments, base
        assert left() == before, (kind, before, left())
    one.close(); other.close()
    """
    run_python(code)


#: What may be asked of an event in the middle of something else that is asked of it.
ASKED: dict[str, Callable[[Event], object]] = {
    "add": lambda event: event.add(0.001),
    "active": Event.active,
    "delete": Event.delete,
    "remove_timer": Event.remove_timer,
}


@pytest.mark.parametrize("kind", ["timer", "signal"])
@pytest.mark.parametrize("inner", ASKED)
@pytest.mark.parametrize("outer", ASKED)
def test_an_event_that_a_signal_handler_changes_meanwhile_is_not_lost(
    outer: str, inner: str, kind: str
) -> None:
    """It was pending or active, and nobody was called: the outer call had noted the contrary."""
    for number in itertools.count():
        called: list[Event] = []

        def callback(event: Event, *_: object, called: list[Event] = called) -> None:
            called.append(event)

        with EventBase() as base:
            if kind == "timer":
                event = Event.timer(base, callback)
            else:
                event = Event.signal(base, signal.SIGUSR1, callback)
            event.add(1000)
            interposer = Interposer(partial(ASKED[inner], event), number, signals=True)
            interposer.run(ASKED[outer], event)
            if interposer.where is None:
                break
            pending = event.pending
            if EventFlag.SIGNAL in pending:
                os.kill(os.getpid(), signal.SIGUSR1)
            if pending:
                base.once(lambda *_: base.loopbreak(), timeout=1)
                while not called and not base.got_break:
                    base.loop(LoopFlag.ONCE)
            if event.expires is None:
                assert bool(called) == bool(pending), (interposer.where, pending)
    assert number > 2
