"""What a signal handler calls in the middle of a method of the same object, or of another."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest

from libevent_py import (
    ClosedError,
    EventBase,
    HttpServer,
    HttpServerRequest,
    LibeventError,
    Listener,
)
from libevent_py import HttpCommand as HttpCommand
from libevent_py import HttpConnection as HttpConnection
from libevent_py import HttpRequest as HttpRequest
from tests.kit.interposing import Interposer, interrupt
from tests.kit.peers import reset as reset
from tests.kit.peers import run_until, settle
from tests.kit.support import run_python
from tests.kit.web import Client, get, where

#: What comes out of a method whose object other code has changed.
REFUSED = (LibeventError, RuntimeError, ValueError)

REPLIES: dict[str, Callable[[HttpServerRequest], object]] = {
    "send_reply": lambda request: request.send_reply(200, None, b"whole"),
    "send_reply, a bytearray": lambda request: request.send_reply(200, None, bytearray(b"whole")),
    "send_error": lambda request: request.send_error(404),
    "send_reply_start": lambda request: request.send_reply_start(200),
    "send_reply_chunk": lambda request: request.send_reply_chunk(b"part"),
    "send_reply_end": lambda request: request.send_reply_end(),
    "close": lambda request: request.close(),
}


def refused(function: Callable[[], object]) -> None:
    with contextlib.suppress(*REFUSED):
        function()


def in_the_middle(
    method: Callable[[], object], act: Callable[[], object], number: int
) -> str | None:
    """Call *method*, and *act* at its step *number*; return where that was, or None."""
    interposer = Interposer(lambda: refused(act), number, signals=True)
    refused(lambda: interposer.run(method))
    return interposer.where


def each_step(once: Callable[[int], str | None]) -> int:
    """Call *once* with each number, until it returns that there is no such step; return it."""
    number = 0
    while once(number) is not None:
        number += 1
    return number


@contextlib.contextmanager
def two_requests() -> Iterator[tuple[list[Client], list[HttpServerRequest]]]:
    """Yield two clients of a new server, and their requests, which wait for an answer."""
    with EventBase() as base, HttpServer(base) as server:
        server.bind_socket("127.0.0.1", 0)
        held: list[HttpServerRequest] = []
        server.set_gencb(held.append)
        clients = [Client(base, where(server)).send(get()) for _ in range(2)]
        run_until(base, lambda: len(held) == 2)
        ports = [client.sock.getsockname()[1] for client in clients]
        held.sort(key=lambda request: ports.index(request.peer[1]))
        try:
            yield clients, held
        finally:
            for client in clients:
                client.close()
            settle(base)
            held.clear()


def answered(number: int, begun: bool, first: str, second: str) -> str | None:
    with two_requests() as (clients, held):
        request, client = held[0], clients[0]
        ended: list[HttpServerRequest] = []
        request.on_end = ended.append
        if begun:
            request.send_reply_start(200)
            request.send_reply_chunk(b"first")
        ways = REPLIES[first], REPLIES[second]
        at = in_the_middle(lambda: ways[0](request), lambda: ways[1](request), number)
        refused(request.send_reply_end)  # if it has only been begun
        refused(lambda: request.send_reply(200))
        run_until(request.base, lambda: client.poll() is None or (ended and client.ended))
        received, cut = client.poll(), "close" in (first, second)
        assert received.count(b"HTTP/1.1 ") == 1 or (cut and not received), (number, at)
        if b"chunked" in received and not cut:
            assert received.endswith(b"0\r\n\r\n"), (number, at, received)
        assert len(ended) == 1, (number, at)
        return at


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("first", REPLIES)
@pytest.mark.parametrize("second", REPLIES)
def test_an_answer_in_the_middle_of_another_is_one_answer(
    begun: bool, first: str, second: str
) -> None:
    """The client got two, or a chunk after the end, and nobody was told of the end."""
    assert each_step(lambda number: answered(number, begun, first, second)) > 1


def test_a_refused_answer_can_be_given_though_another_was_in_the_middle() -> None:
    """C noted only the last request whose answer it could not send."""

    def once(number: int) -> str | None:
        with two_requests() as (clients, (one, other)):
            one.output_headers["Content-Length"] = "3"
            at = in_the_middle(
                lambda: one.send_reply(200, None, b"wrong"), lambda: other.send_reply(200), number
            )
            one.send_reply(200, None, b"fit")
            assert clients[0].rest().endswith(b"fit"), (number, at)
            return at

    assert each_step(once) > 10


def test_a_request_of_a_client_that_has_gone_is_freed_though_another_ends() -> None:
    """C noted only the last request that has to be freed."""
    run_python(
        """
        from libevent_py import debug
        debug.count_memory()
        from tests.http.test_http_in_the_middle import *

        def once(number, interrupted):
            with two_requests() as (clients, (one, other)):
                one.send_reply_start(200)
                one.send_reply_chunk(b"part")
                reset(clients[0].sock)
                run_until(one.base, lambda: one.connection is None)

                def act():
                    other.send_reply(200)
                    if interrupted:
                        raise KeyboardInterrupt

                interposer = Interposer(act, number, signals=True)
                with contextlib.suppress(KeyboardInterrupt):
                    interposer.run(one.send_reply_end)
                refused(one.close)
                return interposer.where

        for interrupted in (False, True):
            once(0, interrupted)
            number, at = 0, "somewhere"
            while at:
                before = debug.memory().blocks
                at = once(number, interrupted)
                assert debug.memory().blocks <= before, (number, at)
                number += 1
            assert number > 10
        """
    )


# Servers and connections.


@pytest.mark.parametrize("what", ["set_cb", "set_gencb"])
def test_a_path_has_its_handler_or_none_after_an_interrupt(what: str) -> None:
    """C had the path, but Python no handler: so its clients waited for ever."""

    def once(number: int) -> str | None:
        with EventBase() as base, HttpServer(base) as server:
            server.bind_socket("127.0.0.1", 0)
            interposer = Interposer(interrupt, number, signals=True)
            path = ("/path",) if what == "set_cb" else ()
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(
                    getattr(server, what), *path, lambda request: request.send_reply(200)
                )
            received = Client(base, where(server)).send(get("/path")).rest()
            known = b" 200 OK" in received
            assert known or b" 404 Not Found" in received, (number, interposer.where)
            if what == "set_cb":
                with pytest.raises(ValueError) if known else contextlib.nullcontext():
                    server.set_cb("/path", print)
            return interposer.where

    assert each_step(once) > 10


@pytest.mark.parametrize("what", ["bind_socket", "add_virtual_host", "set_cb", "set_gencb"])
def test_nothing_is_added_to_a_server_in_the_middle_of_its_close(what: str) -> None:
    """It was not closed with the server, and used what C had freed."""

    def once(number: int) -> str | None:
        with EventBase() as base:
            server, vhost = HttpServer(base), HttpServer(base)
            server.bind_socket("127.0.0.1", 0)
            added: list[Listener] = []
            act: Callable[[], object] = {
                "bind_socket": lambda: added.append(server.bind_socket("127.0.0.1", 0).listener),
                "add_virtual_host": lambda: server.add_virtual_host("*.test", vhost),
                "set_cb": lambda: server.set_cb("/path", print),
                "set_gencb": lambda: server.set_gencb(print),
            }[what]
            at = in_the_middle(server.close, act, number)
            assert server.closed
            settle(base)
            assert all(listener.closed for listener in added), (number, at)
            assert vhost.closed or vhost.set_gencb(print) is None, (number, at)
            vhost.close()
            assert not [*base._live, *base._ledger], (number, at)
            return at

    assert each_step(once) > 10


@pytest.mark.parametrize("name", ["local_address", "local_port"])
def test_a_request_in_the_middle_of_a_setting_that_must_come_before_is_noticed(name: str) -> None:
    """C asserts that there was none, which ended the process."""
    run_python(
        f"""
        from tests.http.test_http_in_the_middle import *

        def once(number):
            with EventBase() as base, HttpServer(base) as server:
                server.bind_socket("127.0.0.1", 0)
                connection = HttpConnection(base, *where(server))
                request = HttpRequest(print)
                at = in_the_middle(
                    lambda: setattr(connection, {name!r}, "127.0.0.1" if "addr" in {name!r} else 0),
                    lambda: connection.make_request(request, HttpCommand.GET, "/"),
                    number,
                )
                request.close()
                return at

        assert each_step(once) > 2
        """
    )


def test_a_bound_socket_whose_close_is_interrupted_is_closed() -> None:
    """It said that it was, but its server went on accepting."""

    def once(number: int) -> str | None:
        with EventBase() as base, HttpServer(base) as server:
            bound = server.bind_socket("127.0.0.1", 0)
            address = bound.address
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(bound.close)
            bound.close()
            settle(base)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, 5)
            assert server.bound_sockets == [], (number, interposer.where)
            return interposer.where

    assert each_step(once) > 10


def test_a_server_whose_close_is_interrupted_takes_nothing_until_it_is_closed() -> None:
    number, refused = 0, 0
    done = False
    while not done:
        with EventBase() as base:
            server = HttpServer(base)
            server.bind_socket("127.0.0.1", 0)
            interposer = Interposer(interrupt, number, signals=True)
            with contextlib.suppress(KeyboardInterrupt):
                interposer.run(server.close)
            done = interposer.where is None
            if server._ends and not server.closed:
                refused += 1
                with pytest.raises(ClosedError):
                    server.set_cb("/", print)
                with pytest.raises(ClosedError):
                    server.set_gencb(print)
                with pytest.raises(ClosedError):
                    server.bind_socket("127.0.0.1", 0)
                server.close()
            assert server.closed or not done
        number += 1
    assert refused > 20
