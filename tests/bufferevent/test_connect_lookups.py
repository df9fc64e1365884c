"""A name is looked up for a bufferevent or an HTTP connection: what ends that, and begins anew."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    EventBase,
    HttpConnection,
    HttpRequestError,
    TlsContext,
    lib,
)
from tests.kit.dns_peers import SILENCE, NameServer, client_of
from tests.kit.flags import CLOSE, NO_OPTION
from tests.kit.http_peers import OK, Asked, Server
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import nobody_listens, run_until, settle
from tests.kit.support import run_python

CONNECTED, ERROR = BufferEventFlag.CONNECTED, BufferEventFlag.ERROR
OPTIONS = [NO_OPTION, CLOSE, CLOSE | BufferEventOption.DEFER_CALLBACKS]

NAMES = {"first.example": SILENCE, "second.example": SILENCE}


def made(base: EventBase, tls: bool, options: BufferEventOption, **callbacks: Any) -> BufferEvent:
    if not tls:
        return BufferEvent(base, -1, options, **callbacks)
    context = TlsContext(verify=False)
    return BufferEvent.tls(base, -1, context, options=options, **callbacks)


def unconnected() -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    return sock


def under_way(bev: BufferEvent) -> bool:
    return bool(lib.evpy_lookup_under_way(bev.pointer))


def answer(names: NameServer, name: str, *addresses: str) -> None:
    """Send the answers to all questions for *name*."""
    for question in names.asked:
        if question.name == name:
            names.answer(question, list(addresses))


# BufferEvent.


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("end", ["detach", "fd", "connect", "resolver", "superseded"])
def test_what_ends_a_lookup_lets_the_next_one_connect(
    base: EventBase, tls: bool, options: BufferEventOption, end: str
) -> None:
    told: list[Any] = []
    with (
        NameServer(base, dict(NAMES)) as names,
        client_of(names) as dns,
        socket.create_server(("127.0.0.1", 0)) as wanted,
        socket.create_server(("127.0.0.1", 0)) as unwanted,
    ):
        unwanted.setblocking(False)
        bev = made(base, tls, options, on_event=lambda bev, what: told.append(what))
        first = client_of(names)
        bev.connect_hostname(first, "first.example", unwanted.getsockname()[1])
        run_until(base, lambda: len(names.asked) == 2)
        with pytest.raises(RuntimeError, match="an earlier lookup goes on"):
            bev.connect_hostname(dns, "second.example", wanted.getsockname()[1])
        given = unconnected()
        if end == "detach":
            assert bev.detach() == -1
        elif end == "fd":
            bev.fd = given
        elif end == "connect":
            with socket.create_server(("127.0.0.1", 0)) as other:
                bev.connect(other.getsockname())
                assert not under_way(bev)
                os.close(bev.detach())
        elif end == "resolver":
            first.close()
        else:
            for _ in range(5):  # each takes the place of one that is not told yet
                bev.detach()
                bev.connect_hostname(first, "first.example", 9)
            bev.detach()
        assert not under_way(bev)
        bev.connect_hostname(dns, "second.example", wanted.getsockname()[1])
        assert under_way(bev)
        settle(base)  # the first is told that it was cancelled
        assert under_way(bev)
        answer(names, "first.example", "127.0.0.1")
        settle(base)
        assert under_way(bev)
        run_until(base, lambda: "second.example" in names.names)
        names.zone["second.example"] = ["127.0.0.1"]
        answer(names, "second.example", "127.0.0.1")
        run_until(base, lambda: bev.fd >= 0 and not under_way(bev))
        wanted.settimeout(30)
        wanted.accept()[0].close()
        with pytest.raises(BlockingIOError):
            unwanted.accept()
        if not tls and end != "resolver":
            run_until(base, lambda: told)
            assert told[0] == CONNECTED
        first.close()
        bev.close()
        given.close()
        settle(base)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("outer", ["dns", "none"])
def test_a_lookup_begun_by_the_failure_of_one_that_is_answered_at_once_can_be_ended(
    base: EventBase, tls: bool, outer: str
) -> None:
    with NameServer(base, dict(NAMES)) as names, client_of(names) as dns:

        def again(bev: BufferEvent, what: BufferEventFlag) -> None:
            told.append(what)
            if len(told) == 1:
                bev.connect_hostname(dns, "second.example", 9)

        told: list[Any] = []
        bev = made(base, tls, CLOSE, on_event=again)
        # A name that no server is asked for: the callback is called before this returns.
        resolver = dns if outer == "dns" else None
        bev.connect_hostname(resolver, "x" * 64 + ".example", 9)
        assert told == [ERROR]
        assert under_way(bev)
        run_until(base, lambda: len(names.asked) == 2)
        bev.close()
        settle(base)
        answer(names, "second.example", "127.0.0.1")
        settle(base)
        assert told == [ERROR]


def test_a_lookup_that_is_over_is_no_longer_under_way_though_nobody_is_told(
    base: EventBase,
) -> None:
    bev = BufferEvent(base)
    with NameServer(base, {"here.example": ["127.0.0.1"]}) as names, client_of(names) as dns:
        bev.connect_hostname(dns, "gone.example", 9)
        run_until(base, lambda: not under_way(bev))
        assert bev.dns_error is not None
        bev.connect_hostname(dns, "here.example", nobody_listens()[1])
        run_until(base, lambda: not under_way(bev))
        assert bev.dns_error is None
    bev.close()


# HttpConnection.


@pytest.mark.parametrize("how", ["plain", "local address", "bufferevent"])
def test_a_request_behind_one_that_is_cancelled_during_its_lookup_is_answered(
    base: EventBase, how: str
) -> None:
    server = Server(base, OK)
    with NameServer(base, dict(NAMES)) as names, client_of(names) as dns:
        bev = BufferEvent(base) if how == "bufferevent" else None
        connection = HttpConnection(
            base, "first.example", server.port, dns_base=dns, bufferevent=bev
        )
        connection.family = socket.AF_INET
        if how == "local address":
            connection.local_address = "127.0.0.1"
        asked = [Asked().on(connection) for _ in range(3)]
        run_until(base, lambda: names.asked)
        for one in asked[:2]:
            one.request.cancel()
            assert one.error.code == HttpRequestError.REQUEST_CANCEL
        run_until(base, lambda: len(names.asked) > 2)
        answer(names, "first.example", "127.0.0.1")
        run_until(base, lambda: asked[2].ended)
        assert (asked[2].error, asked[2].body) == (None, b"hello")
        assert len(server.connections) == 1
        assert [one.ended for one in asked] == [1, 1, 1]
        connection.close()


# No socket is left, and no memory that is freed is touched, whatever ends a lookup.

SWEEP = """
    import gc, itertools, os, socket, sys
    from libevent_py import *
    from tests.kit.dns_peers import SILENCE, NameServer, client_of
    from tests.kit.peers import run_until, settle
    from tests.kit.rpc_messages import REQUEST, Kill
    from tests.bufferevent.test_connect_lookups import NAMES, unconnected

    def descriptors():
        return sorted(os.listdir("/proc/self/fd"), key=int)

    def connecting(base, tls, option, sock=-1):
        options = BufferEventOption(option)
        if tls:
            return BufferEvent.tls(base, sock, TlsContext(verify=False), options=options)
        return BufferEvent(base, sock, options)

    def bufferevent(base, dnses, names, told, tls, option):
        # The second lookup begins before it is told that the first has been cancelled.
        bev = connecting(base, tls, option)
        bev.connect_hostname(dnses[0], "first.example", 9)
        run_until(base, lambda: len(names.asked) >= 2)
        bev.detach()
        bev.connect_hostname(dnses[1], "second.example", 9)
        return bev

    def bufferevent_with_a_socket(base, dnses, names, told, tls, option):
        sock = unconnected()
        bev = connecting(base, tls, option, sock)
        if not option:
            told.append(sock)
        bev.connect_hostname(dnses[0], "first.example", 9)
        return bev

    def http(base, dnses, names, told, tls, option):
        how = {"tls": TlsContext(verify=False)} if tls else {}
        if option == 1:
            how = {"bufferevent": connecting(base, tls, 1)}
        connection = HttpConnection(base, "first.example", 9, dns_base=dnses[0], **how)
        if option == 2:
            connection.local_address = "127.0.0.1"
        requests = [HttpRequest(told.append) for _ in range(3)]
        for request in requests:
            connection.make_request(request, HttpCommand.GET, "/")
        run_until(base, lambda: len(names.asked) >= 2)
        requests[0].cancel()
        requests[1].cancel()
        return connection

    def pool(base, dnses, names, told, tls, option):
        how = {"tls": TlsContext(verify=False)} if tls else {}
        pool = RpcPool(base)
        pool.add_connection(HttpConnection(base, "first.example", 9, dns_base=dnses[0], **how))
        for _ in range(3):
            pool.call("Name", REQUEST, Kill, told.append)
        return pool

    def answer(base, names, state):
        for question in names.asked:
            if state == "half answered" and question.type == DnsType.A:
                names.answer(question, ["127.0.0.1"])
            elif state == "answers lined up":
                names.answer(question, ["127.0.0.1"] if question.type == DnsType.A else [])
        if state == "half answered":  # then libevent waits for the other answer, by a timer
            settle(base)

    def end(how, base, thing, dnses):
        if how == "closed":
            thing.close()
        elif how == "resolvers closed":
            for dns in dnses:
                dns.close()
        elif how == "base closed":
            base.close()

    def go_on(base, names):
        settle(base)
        for question in names.asked:
            names.answer(question, ["127.0.0.1"])
        settle(base)
        base.loopexit(0.02)
        base.loop(LoopFlag.NO_EXIT_ON_EMPTY)

    def walk(make, state, how, tls, option):
        base, told = EventBase(), []
        names = NameServer(base, dict(NAMES))
        dnses = [client_of(names, getaddrinfo_allow_skew=0.01) for _ in range(2)]
        thing = make(base, dnses, names, told, tls, option)
        if state != "asked":
            again = make in (bufferevent, http)
            run_until(base, lambda: len(names.asked) >= (4 if again else 2))
            answer(base, names, state)
        end(how, base, thing, dnses)
        if how != "dropped":
            if not base.closed:
                go_on(base, names)
            if make in (http, pool):
                assert len(told) == 3, (state, how, tls, option, told)
            thing.close()
            base.close()
        names.close()
        for sock in told:
            if isinstance(sock, socket.socket):
                sock.close()

    make = globals()[sys.argv[1]]
    options = {http: (0, 1, 2), pool: (0,)}.get(make, (0, 1))
    hows = "closed", "resolvers closed", "base closed", "dropped"
    states = "asked", "half answered", "answers lined up"
    EventBase().loop(LoopFlag.NONBLOCK)
    gc.collect()
    before = descriptors()
    for case in itertools.product(states, hows, (False, True), options):
        walk(make, *case)
        gc.collect()
        assert descriptors() == before, (case, before, descriptors())
"""


@VALGRIND_TAKES_LONG
@pytest.mark.parametrize("part", ["bufferevent", "bufferevent_with_a_socket", "http", "pool"])
def test_nothing_is_left_of_lookups_that_are_ended(part: str, valgrind: bool) -> None:
    run_python(SWEEP, part, valgrind=valgrind)
