"""HTTP connections that are paused, on both sides and in every state, or limited."""

from __future__ import annotations

import gc
import hashlib
import threading
import time
import weakref
from typing import Any

import pytest

from libevent_py import (
    ClosedError,
    DnsBase,
    EventBase,
    ForkError,
    HttpCommand,
    HttpConnection,
    HttpError,
    HttpRequest,
    HttpRequestError,
    HttpServer,
    HttpServerConnection,
    HttpServerRequest,
    LoopFlag,
    RateLimit,
    RateLimitGroup,
    ThreadError,
    TlsContext,
)
from tests.kit.certificates import Authority
from tests.kit.http_flows import (
    AT_ONCE,
    BIG,
    BODIES,
    ENDS,
    LENGTH,
    Bev,
    Download,
    both,
    nothing,
    run_until,
    turns,
)
from tests.kit.http_peers import Asked, ask, chunked, response, then_close
from tests.kit.peers import settle
from tests.kit.processes import in_child
from tests.kit.tls_peers import client_context, server_context
from tests.kit.web import Client, get, where

# Pausing a client's connection.


@pytest.mark.parametrize("kind", BODIES)
def test_a_paused_download_waits_and_goes_on(
    base: EventBase, context: dict[str, TlsContext] | None, kind: str
) -> None:
    server, connection = both(base, context, BODIES[kind])
    asked = Download().on(connection)
    run_until(base, lambda: asked.parts)
    assert connection.paused
    turns(base)
    before = asked.size
    assert before <= 2 * AT_ONCE + 65536
    turns(base)
    assert asked.size == before, "paused, it goes on reading"
    asked.pauses = False
    connection.resume()
    assert not connection.paused
    assert asked.size == before, "what has come is handed out by the loop"
    run_until(base, lambda: asked.ended)
    assert asked.error is None
    assert asked.size == BIG
    server.close()


def test_a_download_that_pauses_at_each_part_gets_all(
    base: EventBase, context: dict[str, TlsContext] | None
) -> None:
    body = bytes(range(256)) * 4000
    server, connection = both(
        base, context, chunked(*[body[i : i + 999] for i in range(0, len(body), 999)])
    )
    got = hashlib.sha256()

    def on_chunk(request: HttpRequest) -> None:
        got.update(request.input_buffer.remove())
        connection.pause()
        base.defer(connection.resume)

    asked = Asked(on_chunk=on_chunk).on(connection)
    run_until(base, lambda: asked.ended)
    assert asked.error is None
    assert got.digest() == hashlib.sha256(body).digest()
    server.close()


def test_pausing_and_resuming_inside_on_chunk_is_as_if_nothing_were(base: EventBase) -> None:
    server, connection = both(base, None, LENGTH)
    size = 0

    def on_chunk(request: HttpRequest) -> None:
        nonlocal size
        size += len(request.input_buffer)
        connection.pause()
        connection.pause()
        connection.resume()
        connection.resume()

    asked = Asked(on_chunk=on_chunk).on(connection)
    run_until(base, lambda: asked.ended)
    assert size == BIG
    server.close()


def test_before_anything_comes(base: EventBase, context: dict[str, TlsContext] | None) -> None:
    """Paused before it connects: it connects and sends, and reads nothing."""
    server, connection = both(base, context, response(b"hello"))
    connection.pause()
    asked = Download(pauses=False).on(connection)
    run_until(base, lambda: server.requests)
    turns(base)
    assert (asked.heads, asked.ended) == (0, 0)
    connection.resume()
    run_until(base, lambda: asked.ended)
    assert (asked.heads, asked.size) == (1, 5)
    server.close()


@pytest.mark.parametrize("at", range(8))
def test_while_it_connects(base: EventBase, context: dict[str, TlsContext] | None, at: int) -> None:
    """Paused after any number of the loop's turns, as in the middle of TLS's handshake."""
    answers: list[Bev] = []
    server, connection = both(base, context, answers.append)
    asked = Download(pauses=False).on(connection)
    for _ in range(at):
        base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)
    connection.pause()
    base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)
    connection.resume()
    connection.pause()
    run_until(base, lambda: answers)
    answers[0].write(response(b"hello"))
    turns(base)
    assert asked.heads == 0
    connection.resume()
    run_until(base, lambda: asked.ended)
    assert asked.size == 5
    server.close()


def test_in_on_header(base: EventBase) -> None:
    server, connection = both(base, None, LENGTH)
    size = 0

    def on_chunk(request: HttpRequest) -> None:
        nonlocal size
        size += len(request.input_buffer)

    asked = Asked(on_header=lambda request: connection.pause(), on_chunk=on_chunk).on(connection)
    run_until(base, lambda: connection.paused)
    turns(base)
    assert size <= AT_ONCE
    connection.resume()
    run_until(base, lambda: asked.ended)
    assert size == BIG
    server.close()


def test_between_requests_and_for_those_that_follow(base: EventBase) -> None:
    """A pause holds from one request to the next, and over a new connection."""
    server, connection = both(
        base, None, response(b"one"), response(b"two"), then_close(response(b"3"))
    )
    first = Download(pauses=False).on(connection)
    run_until(base, lambda: first.ended)
    connection.pause()
    second = Download(pauses=False).on(connection)
    run_until(base, lambda: len(server.requests) == 2)
    turns(base)
    assert second.heads == 0
    connection.resume()
    run_until(base, lambda: second.ended)
    connection.pause()
    server.connections[0].close()
    turns(base)
    third = Download(pauses=False).on(connection)
    turns(base)
    assert (third.heads, third.ended) == (0, 0)
    connection.resume()
    run_until(base, lambda: third.ended)  # the end that came before the request was sent
    fourth = Download(pauses=False).on(connection)
    run_until(base, lambda: fourth.ended)
    assert fourth.size == 1
    server.close()


def test_the_end_of_the_connection_waits_too(base: EventBase) -> None:
    server, connection = both(base, None, then_close(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(9000)))
    asked = Download().on(connection)
    run_until(base, lambda: asked.parts)
    turns(base)
    assert asked.ended == 0
    asked.pauses = False
    connection.resume()
    run_until(base, lambda: asked.ended)
    assert asked.error is None
    assert asked.size == 9000
    server.close()


@pytest.mark.slow
def test_the_timeout_of_reading_does_not_run_meanwhile(base: EventBase) -> None:
    server, connection = both(base, None, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
    connection.timeout = 0.2
    asked = Download().on(connection)
    run_until(base, lambda: asked.parts)
    time.sleep(0.5)
    turns(base)
    assert asked.ended == 0
    connection.resume()
    turns(base, 5)
    assert asked.ended == 0, "it begins anew"
    run_until(base, lambda: asked.ended)
    assert asked.error.code == HttpRequestError.TIMEOUT
    server.close()


def test_a_paused_connection_does_not_keep_the_loop_going(base: EventBase) -> None:
    server, connection = both(base, None, LENGTH)
    asked = Download().on(connection)
    run_until(base, lambda: asked.parts)
    server.close()
    base.dispatch()
    assert asked.ended == 0
    asked.pauses = False
    connection.resume()
    run_until(base, lambda: asked.ended)
    assert asked.error is not None


@pytest.mark.parametrize("end", ENDS)
def test_it_may_end_in_any_way_while_it_is_paused(
    base: EventBase, context: dict[str, TlsContext] | None, end: str
) -> None:
    server, connection = both(base, context, LENGTH)
    asked = Download().on(connection)
    run_until(base, lambda: asked.parts)
    ENDS[end](base, connection, asked.request)
    if not base.closed:
        run_until(base, lambda: asked.ended)
    assert asked.ended == 1
    assert isinstance(asked.error, HttpError)
    if connection.closed:
        assert not connection.paused
        for use in connection.pause, connection.resume:
            with pytest.raises(ClosedError):
                use()
    else:
        assert connection.paused
        connection.resume()
        again = Download(pauses=False).on(connection)
        run_until(base, lambda: again.ended)
        assert again.size == BIG
    if not base.closed:
        server.close()


def test_a_paused_connection_that_is_dropped_is_collected() -> None:
    def paused() -> weakref.ref[HttpConnection]:
        base = EventBase()
        _, connection = both(base, None, LENGTH)
        asked = Download().on(connection)
        run_until(base, lambda: asked.parts)
        return weakref.ref(connection)

    gone = paused()
    gc.collect()
    assert gone() is None


def test_a_child_can_not_pause_what_is_its_parents(base: EventBase) -> None:
    server, connection = both(base, None, response(b"hello"))
    connection.pause()
    asked = Download(pauses=False).on(connection)
    run_until(base, lambda: server.requests)

    def in_it() -> None:
        for use in connection.pause, connection.resume:
            with pytest.raises(ForkError):
                use()
        base.reinit()
        assert connection.paused
        connection.resume()
        run_until(base, lambda: asked.ended)
        assert asked.size == 5

    in_child(in_it)
    connection.close()
    server.close()


def test_another_thread_is_refused_while_the_loop_runs(base: EventBase, server: HttpServer) -> None:
    refused: list[str] = []
    connection = HttpConnection(base, *where(server))
    limit = RateLimit(10)

    def elsewhere(incoming: HttpServerConnection) -> None:
        for one in connection, incoming:
            for use in (
                one.pause,
                one.resume,
                lambda one=one: setattr(one, "rate_limit", limit),
                lambda one=one: setattr(one, "rate_limit_group", None),
            ):
                with pytest.raises(ThreadError):
                    use()
                refused.append(type(one).__name__)

    def handler(request: HttpServerRequest) -> None:
        thread = threading.Thread(target=elsewhere, args=(request.connection,))
        thread.start()
        thread.join()
        request.send_reply(200)

    server.set_gencb(handler)
    Client(base, where(server)).send(get()).rest()
    assert refused == ["HttpConnection"] * 4 + ["HttpServerConnection"] * 4


def test_an_https_connection_stays_paused_and_limited_when_its_lookup_is_cancelled(
    base: EventBase, authority: Authority
) -> None:
    context = TlsContext()
    limit = RateLimit(1000)
    with DnsBase(base, 0) as dns, RateLimitGroup(base, limit) as group:
        dns.nameserver_ip_add("127.0.0.1:9")
        connection = HttpConnection(base, "nowhere.test", 443, dns_base=dns, tls=context)
        connection.pause()
        connection.rate_limit, connection.rate_limit_group = limit, group
        asked = Asked().on(connection)
        settle(base)
        asked.request.cancel()
        run_until(base, lambda: asked.ended)
        assert connection.paused
        assert (connection.rate_limit, connection.rate_limit_group) == (limit, group)
        assert group.members == [connection.bufferevent]
        connection.close()
        assert group.members == []


# Pausing a server's connection.


def test_a_paused_servers_connection_reads_no_further_request(
    base: EventBase, server: HttpServer
) -> None:
    seen: list[HttpServerConnection] = []

    def handler(request: HttpServerRequest) -> None:
        assert request.connection is not None
        seen.append(request.connection)
        request.connection.pause()
        request.send_reply(200, "OK", b"ok")

    server.set_gencb(handler)
    client = Client(base, where(server)).send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
    client.until(lambda received: b"ok" in received)
    client.send(get("/2"))
    turns(base)
    assert len(seen) == 1
    assert seen[0].paused
    seen[0].resume()
    run_until(base, lambda: len(seen) == 2)
    assert seen[1] is seen[0]
    client.rest()
    with pytest.raises(ClosedError):
        seen[0].resume()
    assert not seen[0].paused


def test_a_paused_connection_can_be_answered(base: EventBase, server: HttpServer) -> None:
    def handler(request: HttpServerRequest) -> None:
        assert request.connection is not None
        request.connection.pause()
        request.send_reply_start(200)
        request.send_reply_chunk(b"one", lambda request: request.send_reply_end())

    server.set_gencb(handler)
    client = Client(base, where(server)).send(get())
    client.until(lambda received: received.endswith(b"0\r\n\r\n"))
    client.rest()


@pytest.mark.parametrize("closes", ["connection", "server", "base"])
def test_a_paused_servers_connection_may_be_closed(
    base: EventBase, server: HttpServer, closes: str
) -> None:
    seen: list[HttpServerRequest] = []

    def handler(request: HttpServerRequest) -> None:
        assert request.connection is not None
        request.connection.pause()
        seen.append(request)

    server.set_gencb(handler)
    client = Client(base, where(server)).send(get())
    run_until(base, lambda: seen)
    connection = seen[0].connection
    assert connection is not None
    {"connection": connection.close, "server": server.close, "base": base.close}[closes]()
    assert connection.closed
    assert not connection.paused
    if not base.closed:
        settle(base)
    client.close()


# Limits.


def test_a_clients_connection_reads_no_faster_than_its_limit(base: EventBase) -> None:
    server, connection = both(base, None, response(bytes(50_000)))
    limit = RateLimit(10_000, 10_000, tick=0.1)
    assert (connection.rate_limit, connection.rate_limit_group) == (None, None)
    connection.rate_limit = limit
    assert connection.rate_limit is limit
    started = time.monotonic()
    asked = Asked().on(connection)
    run_until(base, lambda: asked.ended)
    assert time.monotonic() - started > 0.3
    assert len(asked.body) == 50_000
    connection.rate_limit = None
    assert connection.rate_limit is None
    server.close()


@pytest.mark.slow
def test_a_limit_holds_for_later_connections_and_goes_with_tls(
    base: EventBase, context: dict[str, TlsContext] | None
) -> None:
    server, connection = both(base, context, then_close(response(bytes(70_000))))
    limit = connection.rate_limit = RateLimit(20_000, 20_000, tick=0.1)
    with RateLimitGroup(base, limit) as group:
        connection.rate_limit_group = group
        for times in range(1, 4):
            started = time.monotonic()
            assert len(ask(connection).body) == 70_000
            assert time.monotonic() - started > 0.05
            settle(base)
            assert 70_000 * times < group.totals().read < 80_000 * times
    server.close()


def test_what_a_handshake_that_failed_has_read_counts_for_the_group(
    base: EventBase, authority: Authority
) -> None:
    other = authority.certify("elsewhere", "DNS:elsewhere.test")
    elsewhere = server_context(authority, certfile=other.certfile, keyfile=other.keyfile)
    ends = {"client": client_context(authority), "server": server_context(authority)}
    server, connection = both(base, ends, then_close(response(bytes(70_000))))
    with RateLimitGroup(base, RateLimit(1_000_000, 1_000_000)) as group:
        connection.rate_limit_group = group
        assert len(ask(connection).body) == 70_000
        settle(base)
        whole = group.totals().read
        server.context = elsewhere
        assert ask(connection).error is not None
        settle(base)
        failed = group.totals().read - whole
        assert failed > 300
        server.context = ends["server"]
        assert len(ask(connection).body) == 70_000
        assert group.totals().read > 2 * whole + failed / 2, "it has been given back"
    server.close()


def test_a_servers_connections_keep_to_their_limits(base: EventBase, server: HttpServer) -> None:
    limit = RateLimit(write_rate=10_000, write_burst=10_000, tick=0.1)
    seen: list[Any] = []

    def handler(request: HttpServerRequest) -> None:
        connection = request.connection
        assert connection is not None
        seen.append((connection.rate_limit, connection.rate_limit_group))
        connection.rate_limit = limit
        request.send_reply(200, "OK", bytes(50_000))

    server.set_gencb(handler)
    started = time.monotonic()
    assert len(Client(base, where(server)).send(get()).rest()) > 50_000
    assert time.monotonic() - started > 0.3
    assert seen == [(None, None)]


def test_a_server_limits_each_of_its_connections_and_all_together(
    base: EventBase, server: HttpServer
) -> None:
    limit = RateLimit(10_000, 10_000, tick=0.1)
    with RateLimitGroup(base, limit) as group:
        server.rate_limit, server.rate_limit_group = limit, group
        assert (server.rate_limit, server.rate_limit_group) == (limit, group)
        seen: list[Any] = []

        def handler(request: HttpServerRequest) -> None:
            connection = request.connection
            assert connection is not None
            seen.append((connection.rate_limit, connection.rate_limit_group))
            assert group.members == [connection.bufferevent]
            request.send_reply(200, "OK", b"x")

        server.set_gencb(handler)
        Client(base, where(server)).send(get()).rest()
        run_until(base, lambda: not group.members)
        assert seen == [(limit, group)]
        assert group.totals().read > 50
        server.rate_limit = server.rate_limit_group = None
        server.set_gencb(lambda request: request.send_reply(204))
        Client(base, where(server)).send(get()).rest()
    server.rate_limit_group = None
    with pytest.raises(ClosedError):
        server.rate_limit_group = group


def test_a_group_that_is_closed_limits_nobody(base: EventBase, server: HttpServer) -> None:
    group = RateLimitGroup(base, RateLimit(10))
    server.rate_limit_group = group
    server.set_gencb(lambda request: request.send_reply(200, "OK", bytes(10_000)))
    client = Client(base, where(server)).send(get())
    settle(base)
    assert len(group.members) == 1
    group.close()
    assert len(client.rest()) > 10_000
    assert len(Client(base, where(server)).send(get()).rest()) > 10_000


def test_limits_are_checked(base: EventBase, server: HttpServer) -> None:
    connection = HttpConnection(base, *where(server))
    with EventBase() as other, RateLimitGroup(other, RateLimit(10)) as group:
        for limited in server, connection:
            with pytest.raises(TypeError, match="must be a RateLimit, not 5"):
                limited.rate_limit = 5  # type: ignore[assignment]
            with pytest.raises(TypeError, match="must be a RateLimitGroup, not 5"):
                limited.rate_limit_group = 5  # type: ignore[assignment]
            with pytest.raises(ValueError, match="own event base"):
                limited.rate_limit_group = group
    with pytest.raises(ValueError, match="belongs to"):
        connection.bufferevent.rate_limit = RateLimit(10)
    connection.close()
    server.close()
    for closed in server, connection:
        for name in "rate_limit", "rate_limit_group":
            with pytest.raises(ClosedError):
                getattr(closed, name)
            with pytest.raises(ClosedError):
                setattr(closed, name, None)


@pytest.mark.parametrize("order", ["group", "connection", "server", "base"])
def test_limits_end_in_any_order(base: EventBase, server: HttpServer, order: str) -> None:
    group = RateLimitGroup(base, RateLimit(100))
    server.rate_limit, server.rate_limit_group = RateLimit(50), group
    server.set_gencb(nothing)
    connection = HttpConnection(base, *where(server))
    connection.rate_limit, connection.rate_limit_group = RateLimit(60), group
    asked = Asked().on(connection, body=bytes(10_000), command=HttpCommand.POST)
    run_until(base, lambda: len(group.members) == 2)
    ends: dict[str, Any] = {
        "group": group,
        "connection": connection,
        "server": server,
        "base": base,
    }
    for one in (ends.pop(order), *ends.values()):
        one.close()
        if not base.closed:
            settle(base)
    assert asked.ended == 1
