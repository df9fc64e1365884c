"""Whatever the loop calls is called once, though a KeyboardInterrupt comes just before or after.

C calls a function of the package's first, and an interrupt may come where that begins, before any
of it has run: then C calls once more. `test_interrupts.py` has the ends of requests and the like.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventOption,
    DnsServer,
    Event,
    EventBase,
    EventFlag,
    FilterResult,
    ForkError,
    HttpCommand,
    HttpRequest,
    HttpRequestError,
    HttpServer,
    Listener,
    LoopFlag,
    errors,
)
from tests.kit.http_peers import OK, Answer, Server, client, then_close
from tests.kit.interposing import Within, interrupt
from tests.kit.peers import ANYWHERE

#: How long a try may take, in seconds: if something is lost, it takes that long.
LONGEST = 5

Call = Callable[..., None]
Done = Callable[[], object]
#: What makes the world of a try: given a base, what ends it, and what the callback is to call.
Make = Callable[[EventBase, contextlib.ExitStack, Call], Done]


def asks(stack: contextlib.ExitStack, server: HttpServer, message: bytes) -> Callable[[], bytes]:
    """Send *message* to *server*; return what returns all that the server has answered."""
    bound = server.bind_socket("127.0.0.1", 0)
    peer = stack.enter_context(socket.create_connection(("127.0.0.1", bound.port)))
    peer.sendall(message)
    peer.setblocking(False)
    came = bytearray()

    def answer() -> bytes:
        with contextlib.suppress(BlockingIOError):
            came.extend(peer.recv(4096))
        return bytes(came)

    return answer


# Worlds, each with one callback.


def accepting(base: EventBase, stack: contextlib.ExitStack, call: Call) -> Done:
    taken: list[int] = []

    def callback(_listener: Listener, fd: int, address: object) -> None:
        assert address == peer.getsockname()
        call()
        taken.append(fd)

        def close() -> None:  # unless it looks as if the callback had been interrupted
            with contextlib.suppress(OSError):
                os.close(fd)

        stack.callback(close)

    listener = Listener(base, ANYWHERE, callback)
    peer = stack.enter_context(socket.create_connection(listener.address))
    return lambda: taken


def refusing(base: EventBase, stack: contextlib.ExitStack, call: Call) -> Done:
    """There is no descriptor for the connection."""
    told: list[OSError] = []

    def on_error(listener: Listener, error: OSError) -> None:
        told.append(error)
        listener.disable()
        call()

    listener = Listener(base, ANYWHERE, print)
    listener.on_error = on_error
    return out_of_descriptors(stack, listener, told)


def refusing_http(base: EventBase, stack: contextlib.ExitStack, call: Call) -> Done:
    told: list[OSError] = []

    def on_error(listener: Listener, error: OSError) -> None:
        told.append(error)
        listener.disable()
        call()

    listener = HttpServer(base).bind_socket("127.0.0.1", 0).listener
    listener.on_error = on_error
    return out_of_descriptors(stack, listener, told)


def out_of_descriptors(
    stack: contextlib.ExitStack, listener: Listener, told: list[OSError]
) -> Done:
    listener.base.loop(LoopFlag.NONBLOCK)  # what it opens for itself is open
    stack.enter_context(socket.create_connection(listener.address))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    return lambda: told


def filtering(inward: bool) -> Make:
    def make(base: EventBase, _stack: contextlib.ExitStack, call: Call) -> Done:
        def moved(source: Buffer, target: Buffer, limit: int | None, _mode: object) -> FilterResult:
            if source:
                told.append(limit)
                call()
            target.add(source.remove(limit))
            return FilterResult.OK

        got, told = bytearray(), list[object]()
        below, peer = BufferEvent.pair(base)
        upper = BufferEvent.filter(below, *((moved, None) if inward else (None, moved)))
        receives, sends = (upper, peer) if inward else (peer, upper)
        receives.setcb(lambda bev: got.extend(bev.read()), None, lambda bev, what: None)
        for each in (upper, peer):
            each.enable(EventFlag.READ | EventFlag.WRITE)
        base.defer(sends.write, b"hello")  # an output filter is called at once
        return lambda: got == b"hello" or told

    return make


EAGER = BufferEventOption.EAGER


def reading(options: int, which: str) -> Make:
    def make(base: EventBase, stack: contextlib.ExitStack, call: Call) -> Done:
        here, there = socket.socketpair()
        here.setblocking(False)
        stack.callback(there.close)
        bev = BufferEvent(base, here, options | BufferEventOption.CLOSE_ON_FREE)
        told: list[object] = []

        def callback(*_: object) -> None:
            told.append(bev.read())
            call()

        setattr(bev, which, callback)
        bev.enable(EventFlag.READ | EventFlag.WRITE)
        if which == "on_write":
            bev.write(b"x")
        elif which == "on_read":
            there.send(b"x")
        else:
            there.close()
        return lambda: told

    return make


def nested(base: EventBase, stack: contextlib.ExitStack, call: Call) -> Done:
    """One EAGER bufferevent is triggered in the callback of another."""
    bevs = []
    told: list[object] = []
    for _ in range(2):
        here, there = socket.socketpair()
        here.setblocking(False)
        stack.callback(there.close)
        bevs.append(BufferEvent(base, here, EAGER | BufferEventOption.CLOSE_ON_FREE))
    there.send(b"x")
    one, other = bevs
    one.on_read = lambda bev: (told.append(None), call())
    other.on_read = lambda bev: (bev.read(), one.trigger(EventFlag.READ))
    other.enable(EventFlag.READ)
    return lambda: told


CHUNKS = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def serving(which: str, message: bytes, answer: bytes = b"HTTP/1.1 ") -> Make:
    """A server's callback for *message*, whose parts come in one, or one after the other."""

    def make(base: EventBase, stack: contextlib.ExitStack, call: Call) -> Done:
        server = HttpServer(base)
        server.allowed_methods |= HttpCommand.HEAD

        def on_headers(request: Any) -> None:
            if which == "on_headers":
                call()
            if which == "on_chunk":
                request.on_chunk = lambda request: call(request.input_buffer.copyout())

        def handler(request: Any) -> None:
            if which == "handler":
                call()
            request.send_reply(200, "OK", b"x")

        called: list[object] = []

        def bevcb(base: EventBase) -> BufferEvent:
            called.append(base)
            call()
            return BufferEvent(base)

        if which in ("on_headers", "on_chunk"):
            server.on_headers = on_headers
        if which == "bevcb":
            server.set_bevcb(bevcb)
        server.set_gencb(handler)
        answered = asks(stack, server, message)
        return lambda: answered().startswith(answer) or (which == "bevcb" and called)

    return make


def requesting(which: str, *answers: Answer, uri: str = "/") -> Make:
    """A request's callback *which*, and then its answer; `on_close` is its connection's."""

    def make(base: EventBase, stack: contextlib.ExitStack, call: Call) -> Done:
        ended: list[HttpRequest] = []
        closed: list[object] = []
        server = Server(base, *answers)
        connection = client(base, server)
        stack.callback(connection.close)
        named: dict[str, Any] = {}
        if which == "on_write":
            named = {which: lambda request: (call(), request.send_request_end())}
        elif which not in ("on_close", "code"):
            named = {which: lambda *_: call()}

        def ends(request: HttpRequest) -> None:
            ended.append(request)
            if which == "code" and code_is(request, HttpRequestError.EOF):
                call()

        request = HttpRequest(ends, **named)
        request.output_headers["Host"] = "a"
        if which == "on_close":
            connection.on_close = lambda connection: (closed.append(connection), call())
        connection.make_request(request, HttpCommand.GET, uri)
        return lambda: closed if which == "on_close" else ended

    return make


def code_is(request: HttpRequest, code: HttpRequestError) -> bool:
    assert request.error is not None
    return request.error.code == code


def resolving(base: EventBase, stack: contextlib.ExitStack, call: Call) -> Done:
    def serve(request: Any) -> None:
        call(request.questions)
        request.add_a_reply(request.questions[0].name, "127.0.0.1", 5)
        request.respond()

    server = DnsServer(base, ANYWHERE, serve)
    peer = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    peer.connect(server.address)
    peer.setblocking(False)
    peer.send(b"\0\1\1\0\0\1\0\0\0\0\0\0\1a\4test\0\0\1\0\1")
    came: list[bytes] = []

    def answered() -> bool:
        with contextlib.suppress(BlockingIOError):
            came.append(peer.recv(1000))
        return bool(came) and came[0][3] & 15 == 0

    return answered


def changing(base: EventBase, _stack: contextlib.ExitStack, call: Call) -> Done:
    """Each of two callbacks of a buffer is called."""
    buffer, told = Buffer(), list[str]()
    for name in "ab":
        buffer.add_cb(functools.partial(changed, told, name, call))
    base.defer(buffer.add, b"x")
    return lambda: sorted(told) == ["a", "b"]


def changed(told: list[str], name: str, call: Call, _buffer: Buffer, _info: object) -> None:
    told.append(name)
    call()


def finalizing(base: EventBase, _stack: contextlib.ExitStack, call: Call) -> Done:
    told: list[object] = []
    Event.timer(base, print).add(100).close(lambda event: (told.append(event), call()))
    return lambda: told


POSTED = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
EARLY = b"HTTP/1.1 103 Early\r\n\r\n"

#: Each world, how often its callback is called, and the functions that an interrupt comes in.
WORLDS: dict[str, tuple[Make, int, str]] = {
    "accept": (accepting, 1, "evpy_accept unpack_address"),
    "accept error": (refusing, 1, "evpy_accept_error _accept_failed"),
    "accept error of HTTP": (refusing_http, 1, "evpy_http_accept_error _accept_failed"),
    "input filter": (filtering(True), 1, "evpy_filter filter holding_tls _let_go"),
    "output filter": (filtering(False), 1, "evpy_filter filter holding_tls _let_go"),
    "read": (reading(0, "on_read"), 1, "evpy_bufferevent_read"),
    "written": (reading(0, "on_write"), 1, "evpy_bufferevent_write"),
    "event": (reading(0, "on_event"), 1, "evpy_bufferevent_event why_failed"),
    "eager written": (reading(BufferEventOption.EAGER, "on_write"), 1, "evpy_bufferevent_write"),
    "eager event": (reading(BufferEventOption.EAGER, "on_event"), 1, "evpy_bufferevent_event"),
    "eager in another": (nested, 1, "evpy_bufferevent_read"),
    "handler": (serving("handler", GET), 1, "evpy_http_request made"),
    "HEAD": (
        serving("handler", GET.replace(b"GET", b"HEAD")),
        1,
        "evpy_http_allowed evpy_http_request",
    ),
    "bevcb": (serving("bevcb", GET), 1, "evpy_http_bev"),
    "on_headers": (
        serving("on_headers", CHUNKS + b"1\r\nx\r\n0\r\n\r\n"),
        1,
        "evpy_http_headers _tell_headers made",
    ),
    "on_headers of all": (
        serving("on_headers", GET),
        1,
        "evpy_http_request _all_read _read_late _tell_headers made _is_cut",
    ),
    "on_chunk": (
        serving("on_chunk", CHUNKS + b"1\r\nx\r\n0\r\n\r\n"),
        1,
        "evpy_http_part _part_came",
    ),
    "on_chunk of all": (
        serving("on_chunk", POSTED),
        1,
        "evpy_http_part evpy_http_request _all_read _read_late _part_came _is_cut",
    ),
    "on_header": (requesting("on_header", OK), 1, "evpy_client_header headers_came"),
    "client's on_chunk": (
        requesting("on_chunk", OK),
        1,
        "evpy_client_chunk",
    ),
    "on_informational": (
        requesting("on_informational", EARLY + OK),
        1,
        "evpy_client_informed _has_informed _received",
    ),
    "client's on_write": (requesting("on_write", OK), 1, "evpy_client_ready"),
    "on_close": (
        requesting("on_close", then_close(OK)),
        1,
        "evpy_client_closed _was_closed defer _rouse",
    ),
    "code": (requesting("code", None), 1, "evpy_client_error"),
    "query": (resolving, 1, "evpy_dns_query _begin _question"),
    "change": (changing, 2, "evpy_buffer_changed _changed enabled"),
    "finalizer": (finalizing, 1, "evpy_finalize"),
}


#: What C itself calls: nothing of Python's comes before the callback.
CALLED_BY_C = {"read", "written", "eager written", "eager in another"}


def run(base: EventBase, done: Done, where: str | None = None) -> None:
    end = time.monotonic() + LONGEST
    while not done():
        assert time.monotonic() < end, f"it has not come to that after an interrupt at {where}"
        base.loop(LoopFlag.NONBLOCK)
        time.sleep(0.0002)


@pytest.mark.parametrize("what", WORLDS)
def test_what_the_loop_calls_is_called_once_though_an_interrupt_comes(what: str) -> None:
    make, times, names = WORLDS[what]
    number = 0
    while True:
        called: list[object] = []

        def call(*arguments: object, called: list[object] = called) -> None:
            called.append(arguments)

        interposer = Within(interrupt, number, signals=True)
        interposer.names = ("called", *names.split())
        with contextlib.ExitStack() as stack:
            base = stack.enter_context(EventBase())
            done = make(base, stack, call)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(run, base, done)
            run(base, done, interposer.where)
            assert len(called) == times, (interposer.where, called)
        assert len(called) == times, (interposer.where, called)
        if interposer.where is None:
            break
        number += 1
    assert (number == 0) == (what in CALLED_BY_C)


def turns(base: EventBase, called: list[object], told: list[BaseException]) -> None:
    """Run the loop until something is *called*, and some turns more; keep what comes out."""
    end, more = time.monotonic() + LONGEST, 8
    while more:
        assert time.monotonic() < end, "it has not come to that"
        try:
            base.loop(LoopFlag.NONBLOCK)
        except BaseException as error:
            told.append(error)
        more -= bool(called)
        time.sleep(0.0002)


#: What is called for a callback that has raised.
REPORTING = "_report explained keep _cannot_read _interrupted _raised _fail _ended_by _ending"


def within(error: BaseException) -> list[BaseException]:
    """Return *error* with what it was raised amid, and what is in groups."""
    found = list(errors._contexts(error).values())
    groups = [each.exceptions for each in found if hasattr(each, "exceptions")]
    return found + [one for group in groups for each in group for one in within(each)]


@pytest.mark.parametrize("what", [what for what in WORLDS if what not in ("HEAD", "code")])
def test_what_has_raised_is_not_called_again_though_an_interrupt_comes(what: str) -> None:
    """Nor is what it has raised lost."""
    make, times, names = WORLDS[what]
    number = 0
    while True:
        called: list[object] = []
        told: list[BaseException] = []

        def call(*arguments: object, called: list[object] = called) -> None:
            called.append(arguments)
            raise ZeroDivisionError

        interposer = Within(interrupt, number, signals=True)
        interposer.names = ("called", *names.split(), *REPORTING.split())
        with contextlib.ExitStack() as stack:
            base = stack.enter_context(EventBase())
            make(base, stack, call)

            interposer.run(turns, base, called, told)
        raised = [each for error in told for each in within(error)]
        assert len(called) == times, (interposer.where, called)
        assert any(isinstance(one, ZeroDivisionError) for one in raised), interposer.where
        if interposer.where is None:
            break
        assert any(isinstance(one, KeyboardInterrupt) for one in raised), interposer.where
        number += 1
    assert number > 0


@pytest.mark.parametrize("options", [0, EAGER], ids=str)
def test_on_data_is_called_though_an_interrupt_comes_just_before(options: int) -> None:
    """A function of ours reads what is not EAGER, or too much for that, and may be interrupted."""
    got = bytearray()
    sent = bytes(1_000_000)
    with EventBase() as base:
        bev = BufferEvent(base, options=options)
        bev.on_data = lambda _bev, data: got.extend(data)
        bev.input.prepend(sent)
        base.defer(bev.trigger, EventFlag.READ)
        interposer = Within(interrupt, 0, signals=True)
        interposer.names = ("_with_data",)
        with contextlib.suppress(KeyboardInterrupt):
            interposer.run(run, base, lambda: got == sent)
        assert interposer.where is not None
        run(base, lambda: got == sent, interposer.where)


def test_a_child_that_does_without_reinit_is_told_though_an_interrupt_comes() -> None:
    """Its loop would wait on its parent's epoll set."""
    number, told = 0, 1
    while told == 1:
        with EventBase() as base:
            children: list[int] = []

            def fork(*_: object, children: list[int] = children) -> None:
                children.append(os.fork())

            interposer = Within(interrupt, number, signals=True)
            interposer.names = ("evpy_forked",)
            base.once(fork)
            raised: BaseException | None = None
            try:
                interposer.run(base.loop, LoopFlag.ONCE)
            except BaseException as error:
                raised = error
            if not children[0]:
                links = errors._contexts(raised).values() if raised is not None else ()
                refused = any(isinstance(link, ForkError) for link in links)
                os._exit(2 if not refused else 0 if interposer.where is None else 1)
            told = os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])
        number += 1
    assert told == 0
    assert number > 2
