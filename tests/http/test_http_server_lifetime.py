"""HttpServer in every wrong moment: closed, dropped, forked, used elsewhere; no memory is lost."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    ClosedError,
    EventBase,
    EventConfig,
    ForkError,
    HttpConnection,
    HttpServer,
    HttpServerRequest,
    LoopFlag,
    ThreadError,
)
from tests.kit.certificates import Authority
from tests.kit.interposing import Asking, Interposer
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import connected, reset, run_until, settle
from tests.kit.support import run_python
from tests.kit.web import Client, get, where


def held_by(server: HttpServer) -> tuple[Client, HttpServerRequest]:
    """Return a client that waits, and its request."""
    held: list[HttpServerRequest] = []
    server.set_gencb(held.append)
    client = Client(server.base, where(server)).send(get("/held"))
    run_until(server.base, lambda: held)
    return client, held.pop()


def fails(error: type[Exception], *uses: Callable[[], object]) -> None:
    """Assert that all *uses* raise *error*."""
    for use in uses:
        with pytest.raises(error):
            use()


def uses_of(server: HttpServer) -> list[Callable[[], object]]:
    """Return ways to use a server."""

    def setting(name: str, value: Any) -> Callable[[], object]:
        return lambda: setattr(server, name, value)

    return [
        lambda: server.bind_socket("127.0.0.1", 0),
        lambda: server.set_cb("/new", print),
        lambda: server.set_gencb(print),
        lambda: server.set_gencb(None),
        lambda: server.set_bevcb(None),
        lambda: server.add_server_alias("x"),
        lambda: server.remove_server_alias("x"),
        setting("timeout", 1),
        setting("max_body_size", 1),
        setting("max_headers_size", 1),
        setting("allowed_methods", 1),
        setting("default_content_type", "x"),
        setting("flags", 0),
        setting("tls", None),
    ]


# Closed.


def test_a_closed_server_says_so(base: EventBase, server: HttpServer) -> None:
    address = where(server)
    server.set_cb("/path", print)
    server.close()
    server.close()
    assert server.closed
    fails(ClosedError, *uses_of(server), lambda: server.bound_sockets, lambda: server.virtual_hosts)
    with pytest.raises(ConnectionRefusedError):
        connected(address)
    assert base._live == {}


def test_a_server_is_closed_with_its_base_and_keeps_nothing_alive() -> None:
    base = EventBase()
    server = HttpServer(base)
    server.bind_socket("127.0.0.1", 0)
    client, request = held_by(server)
    connection = request.connection
    base.close()
    assert server.closed
    assert request.closed
    assert connection is not None
    assert connection.closed
    fails(ClosedError, lambda: request.send_reply(200), lambda: request.uri)
    server.close()
    client.close()


def test_closing_a_server_closes_the_requests_that_wait(server: HttpServer) -> None:
    client, request = held_by(server)
    output = request.output_buffer
    server.close()
    assert request.closed
    fails(ClosedError, lambda: request.send_reply(200), lambda: len(output))
    assert client.rest() == b""


@pytest.mark.parametrize("what", ["server", "connection"])
@pytest.mark.parametrize("started", [False, True])
def test_a_handler_may_close_what_has_called_it(
    base: EventBase, server: HttpServer, what: str, started: bool
) -> None:
    called = []

    def handler(request: HttpServerRequest) -> None:
        if started:
            request.send_reply_start(200)
        called.append(request)
        (request.connection if what == "connection" else server).close()  # type: ignore[union-attr]
        assert request.closed

    server.set_gencb(handler)
    client = Client(base, where(server)).send(get())
    assert client.rest() == b""
    assert called
    settle(base)
    assert server.closed is (what == "server")


def test_closing_a_connection_ends_its_request_and_no_other(
    base: EventBase, server: HttpServer
) -> None:
    client, request = held_by(server)
    other_client, other = held_by(server)
    connection = request.connection
    assert connection is not None
    connection.on_close = lambda _: pytest.fail("it was closed here")
    connection.close()
    connection.close()
    assert connection.closed
    assert request.closed
    assert not other.closed
    assert client.rest() == b""
    other.send_reply(200)
    assert other_client.rest().startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("what", ["server", "connection", "bound"])
@pytest.mark.parametrize("when", ["on_complete", "on_close", "chunk"])
def test_other_callbacks_may_close_everything_too(
    base: EventBase, server: HttpServer, when: str, what: str
) -> None:
    done = []

    def handler(request: HttpServerRequest) -> None:
        connection = request.connection
        assert connection is not None
        bound = server.bound_sockets[0]

        def close(_: Any) -> None:
            {"server": server, "connection": connection, "bound": bound}[what].close()
            done.append(True)

        if when == "on_complete":
            request.on_complete = close
        elif when == "on_close":
            connection.on_close = close
        if when == "chunk":
            request.send_reply_start(200)
            request.send_reply_chunk(b"x", close)
        else:
            request.send_reply(200)

    server.set_gencb(handler)
    client = Client(base, where(server)).send(get())
    client.rest()
    run_until(base, lambda: done)
    settle(base)


def test_a_bevcb_may_close_the_server(base: EventBase, server: HttpServer) -> None:
    told: list[Exception] = []
    base.on_error = lambda error, _source: told.append(error)

    def make(base: EventBase) -> BufferEvent:
        server.close()
        return BufferEvent(base)

    server.set_bevcb(make)
    assert Client(base, where(server)).send(get()).rest() == b""
    assert [type(error) for error in told] == [ClosedError]


def test_a_server_that_was_closed_between_accepting_and_the_first_byte(
    base: EventBase, server: HttpServer
) -> None:
    made: list[BufferEvent] = []

    def make(base: EventBase) -> BufferEvent:
        base.once(lambda _fd, _what: server.close())  # before the connection is known
        made.append(BufferEvent(base))
        return made[-1]

    server.set_bevcb(make)
    client = Client(base, where(server)).send(get())
    assert client.rest() == b""
    assert made[0].closed


def test_an_urgent_bufferevent_may_be_ahead_of_its_connection() -> None:
    seen: list[BufferEvent] = []
    made: list[BufferEvent] = []

    def make(base: EventBase) -> BufferEvent:
        made.append(BufferEvent(base))
        made[-1].priority = 0
        return made[-1]

    def handler(request: HttpServerRequest) -> None:
        assert request.connection is not None
        seen.append(request.connection.bufferevent)
        request.send_reply(200)

    with EventConfig(max_dispatch_callbacks=1, min_priority=0) as config:
        base = EventBase(config, priorities=3)
    with base:
        server = HttpServer(base)
        server.bind_socket("127.0.0.1", 0)
        server.set_bevcb(make)
        server.set_gencb(handler)
        clients = [Client(base, where(server)) for _ in range(5)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
        for client in clients:
            client.until(lambda received: received.startswith(b"HTTP/1.1 200"))
        settle(base)
        assert len(seen) == 5
        assert all(bev in made or bev.closed for bev in seen)
        assert not any(bev.closed for bev in made)
        for client in clients:
            client.close()
        run_until(base, lambda: all(bev.closed for bev in made))


# Dropped.


def test_everything_dropped_at_once_is_collected() -> None:
    base = EventBase()
    server = HttpServer(base)
    server.bind_socket("127.0.0.1", 0)
    vhost = HttpServer(base)
    server.add_virtual_host("a.b", vhost)
    client, request = held_by(server)
    connection = request.connection
    assert connection is not None
    borrowed = connection.bufferevent, request.output_buffer, request.input_headers
    gone = weakref.ref(base)
    del base, server, vhost, request, connection, borrowed
    client.base = None  # type: ignore[assignment]
    gc.collect()
    assert gone() is None
    assert client.sock.recv(1) == b""
    client.close()


def test_a_request_dropped_in_another_thread_is_answered(
    base: EventBase, server: HttpServer
) -> None:
    client, request = held_by(server)
    box = [request]
    del request
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    assert client.rest().startswith(b"HTTP/1.1 500")


def test_a_request_dropped_in_another_thread_while_the_loop_runs_is_answered(
    base: EventBase, server: HttpServer
) -> None:
    client, request = held_by(server)
    box = [request]
    del request
    thread = threading.Thread(target=box.clear)
    base.once(lambda _fd, _what: (thread.start(), thread.join()))
    assert client.rest().startswith(b"HTTP/1.1 500")


# From elsewhere.


def test_another_thread_is_refused_while_the_loop_runs(server: HttpServer) -> None:
    base = server.base
    client, request = held_by(server)
    connection = request.connection
    assert connection is not None
    raised: list[BaseException] = []

    def elsewhere() -> None:
        fails(
            ThreadError,
            *uses_of(server),
            server.close,
            server.bound_sockets[0].close,
            connection.close,
            lambda: request.connection,
            lambda: request.send_reply(200),
            lambda: request.send_error(500),
            lambda: request.send_reply_start(200),
            lambda: request.output_buffer,
        )

    def run() -> None:
        try:
            elsewhere()
        except BaseException as error:
            raised.append(error)

    def during(_fd: int, _what: int) -> None:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    base.once(during)
    base.loop(LoopFlag.NONBLOCK)
    assert raised == []
    request.send_reply(200)
    client.rest()


def test_a_forked_child_touches_nothing_of_the_parents(server: HttpServer) -> None:
    base = server.base
    client, request = held_by(server)
    connection = request.connection
    output = request.output_buffer
    bound = server.bound_sockets[0]
    assert connection is not None
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            fails(
                ForkError,
                *uses_of(server),
                lambda: request.send_reply(200),
                lambda: request.uri,
                lambda: connection.peer,
                connection.close,
                lambda: len(output),
                lambda: bound.fd,
                bound.close,
            )
            server.close()
            del request
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    request.send_reply(200, body=b"from the parent")
    assert client.rest().endswith(b"from the parent")
    assert base._live


def test_a_child_that_forks_in_a_handler_does_not_answer(server: HttpServer) -> None:
    base = server.base
    statuses: list[int] = []

    def handler(request: HttpServerRequest) -> None:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                fails(ForkError, lambda: request.send_reply(200), lambda: request.uri)
                status = 0
            finally:
                os._exit(status)
        statuses.append(os.waitpid(pid, 0)[1])
        request.send_reply(200, body=b"once")

    server.set_gencb(handler)
    client = Client(base, where(server)).send(get())
    assert client.rest().endswith(b"once")
    assert statuses == [0]


def test_a_child_goes_on_after_reinit(server: HttpServer) -> None:
    base = server.base
    client, request = held_by(server)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            base.reinit()
            request.send_reply(200, body=b"from the child")
            settle(base)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    client.until(lambda received: b"from the child" in received)
    server.close()
    client.close()


def test_a_server_closed_in_a_child_is_freed_after_reinit(server: HttpServer) -> None:
    base = server.base
    client, request = held_by(server)
    connection = request.connection
    listener = server.bound_sockets[0].listener
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            server.close()
            base.reinit()
            settle(base)
            fails(
                ClosedError,
                lambda: listener.fd,
                lambda: request.send_reply(200),
                lambda: connection.peer,  # type: ignore[union-attr]
                *uses_of(server),
            )
            listener.close()
            base.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    request.send_reply(200, body=b"from the parent")
    # The child has shut the connection down: the two share it.
    client.rest()
    server.set_gencb(lambda request: request.send_reply(200))
    assert Client(base, listener.address).send(get()).rest().startswith(b"HTTP/1.1 200")


# Clients that go.


@pytest.mark.parametrize("how", [Client.close, lambda client: reset(client.sock)])
@pytest.mark.parametrize("when", ["before", "line", "headers", "body", "held", "chunks", "done"])
def test_a_client_may_go_at_any_moment(
    base: EventBase, server: HttpServer, when: str, how: Callable[[Client], None]
) -> None:
    held: list[HttpServerRequest] = []

    def handler(request: HttpServerRequest) -> None:
        if when == "chunks":
            request.send_reply_start(200)
            request.send_reply_chunk(b"x" * 1000)
        if when == "done":
            request.send_reply(200, body=bytes(10 << 20))
        else:
            held.append(request)

    server.set_gencb(handler)
    head = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"
    sent = {"before": b"", "line": b"PO", "headers": head[:20], "body": head + b"bo"}
    client = Client(base, where(server))
    client.send(sent.get(when, head + b"body."))
    if when in ("held", "chunks"):
        run_until(base, lambda: held)
    else:
        settle(base)
    how(client)
    for _ in range(3):
        settle(base)
    for request in held:
        if when == "held":
            request.send_reply(200, body=b"too late")
        else:
            run_until(base, lambda request=request: request.connection is None)  # type: ignore[misc]
            request.send_reply_end()
    del held[:]
    settle(base)
    Client(base, where(server)).close()
    settle(base)


MISUSES = """
    import gc, socket
    from libevent_py import *

    def client(server, data=b"GET / HTTP/1.1\\r\\n\\r\\n"):
        sock = socket.create_connection(server.bound_sockets[0].address)
        sock.sendall(data)
        sock.setblocking(False)
        return sock

    def settle(base):
        for _ in range(6):
            base.loop(LoopFlag.NONBLOCK)

    def fresh(handler):
        base = EventBase()
        base.on_error = lambda error, source: None
        server = HttpServer(base)
        server.bind_socket("127.0.0.1", 0)
        server.set_gencb(handler)
        return base, server

    def run(handler, *, data=b"GET / HTTP/1.1\\r\\n\\r\\n", close=False, end="base"):
        base, server = fresh(handler)
        sock = client(server, data)
        settle(base)
        if close:
            sock.close()
            settle(base)
        held.clear()
        settle(base)
        if end == "base":
            base.close()
        elif end == "server":
            server.close()
            base.close()
        del base, server
        if end == "dropped":
            gc.collect()
        sock.close()

    held = []
"""


@VALGRIND_TAKES_LONG
def test_what_is_answered_twice_or_late_or_never_touches_no_freed_memory(valgrind: bool) -> None:
    run_python(
        MISUSES
        + """
    def twice(request):
        request.send_reply(200, body=b"x")
        try:
            request.send_reply(200)
        except ClosedError:
            pass

    def chunks(request):
        request.send_reply_start(200)
        request.send_reply_chunk(b"x", lambda request: request.send_reply_end())

    def half(request):
        request.send_reply_start(200)
        request.send_reply_chunk(b"x")
        held.append(request)

    def completes(request):
        request.on_complete = lambda request: (request.uri, request.connection)
        request.connection.on_close = lambda connection: None
        request.connection.bufferevent
        request.send_reply(200, body=b"x")

    def watched(request):
        def again(buffer, info):
            try:
                request.send_reply(200)
            except ClosedError:
                pass
        request.output_buffer.add_cb(again)
        request.send_reply(200, body=b"x")

    def nothing(request):
        pass

    def raises(request):
        1 / 0

    for handler in twice, chunks, half, completes, watched, nothing, raises, held.append:
        for close in False, True:
            for end in "base", "server", "dropped":
                run(handler, close=close, end=end)
                run(handler, close=close, end=end, data=b"GET / HTTP/1.0\\r\\n\\r\\n")
    """,
        valgrind=valgrind,
    )


@VALGRIND_TAKES_LONG
def test_what_is_closed_inside_its_callbacks_touches_no_freed_memory(valgrind: bool) -> None:
    run_python(
        MISUSES
        + """
    def closing(when, what):
        def handler(request):
            server = request.server
            close = server.close if what == "server" else request.connection.close
            if when == "now":
                close()
                held.append(request)
                return
            if when == "complete":
                request.on_complete = lambda request: close()
            if when == "closed":
                request.connection.on_close = lambda connection: close()
            if when in ("started", "chunk"):
                request.send_reply_start(200)
                called = (lambda request: close()) if when == "chunk" else None
                request.send_reply_chunk(b"x", called)
                held.append(request)
                if when == "started":
                    close()
                return
            request.send_reply(200, body=b"x")
            if when == "after":
                close()
        return handler

    for when in "now", "complete", "closed", "started", "chunk", "after":
        for what in "server", "connection":
            for close in False, True:
                run(closing(when, what), close=close)

    # Closed outside the loop, with requests that wait, whose clients are there or have gone.
    for started in False, True:
        for close in False, True:
            def handler(request):
                if started:
                    request.send_reply_start(200)
                held.append(request)
            base, server = fresh(handler)
            sock = client(server)
            settle(base)
            connection = held[0].connection
            if close:
                sock.close()
                settle(base)
            else:
                connection.close()
            server.close()
            for request in held:
                try:
                    request.send_reply_end()
                except ClosedError:
                    pass
            held.clear()
            base.close()
            sock.close()

    # Virtual hosts in any order.
    for first in range(3):
        base, server = fresh(held.append)
        vhost = HttpServer(base)
        server.add_virtual_host("a.b", vhost)
        vhost.set_gencb(lambda request: (vhost.close(), held.append(request)))
        sock = client(server, b"GET / HTTP/1.1\\r\\nHost: a.b\\r\\n\\r\\n")
        settle(base)
        held[0].send_reply(200)
        held.clear()
        (server.close, vhost.close, base.close)[first]()
        base.close()
        sock.close()
    """,
        valgrind=valgrind,
    )


@VALGRIND_TAKES_LONG
def test_bufferevents_given_to_connections_touch_no_freed_memory(valgrind: bool) -> None:
    run_python(
        MISUSES
        + """
    def replied(request):
        request.connection.bufferevent.output
        request.send_reply(200, body=b"x")

    def make_raise(base):
        raise LookupError

    def make_pair(base):
        return BufferEvent.pair(base)[0]

    kept = []
    def make(base):
        kept.append(BufferEvent(base))
        return kept[-1]

    for maker in make, make_raise, make_pair, BufferEvent:
        for handler in replied, held.append:
            for close in False, True:
                for end in "base", "dropped", "loop":
                    base, server = fresh(handler)
                    server.set_bevcb(maker)
                    sock = client(server)
                    if end == "loop":
                        base.defer(server.close)
                    settle(base)
                    if close:
                        sock.close()
                        settle(base)
                    held.clear()
                    if end == "base":
                        base.close()
                    elif end == "server":
                        server.close()
                        base.close()
                    del base, server
                    kept.clear()
                    gc.collect()
                    sock.close()
    """,
        valgrind=valgrind,
    )


@VALGRIND_TAKES_LONG
def test_https_touches_no_freed_memory_whatever_ends_first(
    valgrind: bool, authority: Authority
) -> None:
    run_python(
        MISUSES
        + """
    import ssl, sys, threading

    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE

    def speak(address, received):
        with socket.create_connection(address) as sock:
            try:
                with trusting.wrap_socket(sock) as secure:
                    secure.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
                    received.append(secure.recv(100))
            except OSError:
                received.append(b"")

    def replied(request):
        request.connection.bufferevent.ssl
        request.on_complete = lambda request: None
        request.send_reply(200, body=b"x" * 100000)

    def half(request):
        request.send_reply_start(200)
        request.send_reply_chunk(b"x" * 100000)
        held.append(request)

    def closing(request):
        request.send_reply(200)
        request.server.close()

    for handler in replied, held.append, half, closing:
        base, server = fresh(handler)
        with TlsContext(server_side=True, certfile=sys.argv[1], keyfile=sys.argv[2]) as context:
            server.tls = context
        server.tls = TlsContext(server_side=True, certfile=sys.argv[1], keyfile=sys.argv[2])
        plain, gone = client(server), client(server, b"")
        gone.close()
        received = []
        thread = threading.Thread(
            target=speak, args=(server.bound_sockets[0].address, received)
        )
        thread.start()
        base.once(lambda fd, what: base.loopbreak(), timeout=60)
        deferred = Event.timer(
            base, lambda *_: (received or held) and base.loopbreak(), persist=True
        )
        deferred.add(0.01)
        base.dispatch()
        assert handler is not replied or received[0].startswith(b"HTTP/1.1 200")
        held.clear()
        settle(base)
        base.close()
        thread.join()
        plain.close()
        del base, server
    """,
        str(authority.server.certfile),
        str(authority.server.keyfile),
        valgrind=valgrind,
    )


@pytest.mark.parametrize(
    "what",
    [
        "connection",
        "its bufferevent",
        "a client's bufferevent",
        "input_buffer",
        "output_buffer",
        "input",
        "output",
    ],
)
def test_what_a_signal_handler_asks_for_in_the_middle_is_the_same_object(what: str) -> None:
    """It is made when it is first asked for: of two, only one would be closed."""
    asking, number = None, 0
    while asking is None or not asking.done:
        with EventBase() as base, HttpServer(base) as server:
            server.bind_socket("127.0.0.1", 0)
            client, request = held_by(server)
            connection = None if what == "connection" else request.connection
            other = HttpConnection(base, *where(server))
            whose, name = {
                "its bufferevent": (connection, "bufferevent"),
                "a client's bufferevent": (other, "bufferevent"),
                "input": (bev := BufferEvent(base), "input"),
                "output": (bev, "output"),
            }.get(what, (request, what))
            asking = Asking(functools.partial(getattr, whose, name), number)
            other.close()
            bev.close()
        client.sock.close()
        assert all(one is asking.got[0] and one.closed for one in asking.got), number
        number += 1
    assert number > 5


def test_on_complete_may_be_taken_back_in_the_middle_of_an_answer() -> None:
    number, done = 0, False
    while not done:
        with EventBase() as base, HttpServer(base) as server:
            server.bind_socket("127.0.0.1", 0)
            client, request = held_by(server)
            request.on_complete = lambda request: None
            interposer = Interposer(
                functools.partial(request.send_reply, 200), number, signals=True
            )
            with contextlib.suppress(ClosedError):
                interposer.run(functools.partial(setattr, request, "on_complete", None))
            done = interposer.where is None
            if not done:
                client.until(lambda received: b"\r\n\r\n" in received)
                settle(base)
        client.sock.close()
        number += 1
    assert number > 2


@VALGRIND_TAKES_LONG
@pytest.mark.parametrize("how", ["memory", "interrupt"])
def test_a_connection_that_is_not_made_to_its_end_is_not_known(how: str, valgrind: bool) -> None:
    """C doesn't tell of its end, after which the server would use it."""
    run_python(
        f"""
        from libevent_py import *
        from libevent_py import debug
        debug.count_memory()
        from tests.kit.interposing import Interposer, interrupt
        from tests.kit.peers import run_until, settle
        from tests.kit.web import Client, where

        def once(number):
            with EventBase() as base, HttpServer(base) as server:
                server.bind_socket("127.0.0.1", 0)
                held = []
                server.set_gencb(held.append)
                client = Client(base, where(server)).send(b"GET / HTTP/1.0\\r\\n\\r\\n")
                run_until(base, lambda: held)
                request = held.pop()
                interposer = Interposer(interrupt, number, signals=True)
                try:
                    if {how!r} == "memory":
                        with debug.FailingMemory(number + 1, source=debug.MemorySource.OURS):
                            request.connection
                    else:
                        interposer.run(lambda: request.connection)
                    ended = True
                except (KeyboardInterrupt, MemoryError):
                    ended = False
                request.send_reply(200)
                client.rest()
                settle(base)
                assert "HttpServerConnection" not in base.explain(), number
            client.sock.close()
            return ended

        number = 0
        while not once(number):
            number += 1
        assert number > 0
        """,
        valgrind=valgrind,
    )
