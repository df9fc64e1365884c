"""What becomes of lookups, and of a DnsBase, when something ends in the midst of them."""

from __future__ import annotations

import gc
import os
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libevent_py import (
    AddrInfoError,
    BufferEvent,
    BufferEventFlag,
    ClosedError,
    DnsBase,
    DnsBaseFlag,
    DnsQueryFlag,
    DnsResult,
    DnsType,
    Event,
    EventBase,
    Listener,
    ThreadError,
    lib,
)
from libevent_py._core.dispatch import live
from tests.kit.dns_peers import SILENCE, NameServer, Told, client_of
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import run_until, settle
from tests.kit.support import run_python

NO_FLAG = DnsQueryFlag(0)


def half(question: Any) -> Any:
    """Answer the first of two questions only."""
    return ["192.0.2.5"] if question.type == DnsType.A else SILENCE


ZONE = {"host.example": ["192.0.2.1"], "silent.example": SILENCE, "half.example": half}


@pytest.fixture
def server(base: EventBase) -> Iterator[NameServer]:
    with NameServer(base, dict(ZONE)) as server:
        yield server


def begin(dns: DnsBase, told: Told) -> list[Any]:
    """Begin a lookup of each kind, of which none will be answered."""
    return [
        dns.resolve_ipv4("silent.example", told),
        dns.getaddrinfo("silent.example", 80, told),
        dns.getaddrinfo("half.example", 80, told),
    ]


def heard(told: Told) -> list[Any]:
    """Return the result or the error's number of each that was told."""
    return [getattr(answer[0], "errno", answer[0]) for answer in told.told]


CLOSED = [DnsResult.SHUTDOWN, AddrInfoError.FAIL, AddrInfoError.FAIL]


def test_close_tells_every_callback_later_and_once(base: EventBase, server: NameServer) -> None:
    told = Told()
    dns = client_of(server)
    lookups = begin(dns, told)
    run_until(base, lambda: len(server.asked) == 5)
    settle(base)
    dns.close()
    assert told.told == []
    assert all(lookup.pending for lookup in lookups)
    for lookup in lookups:
        lookup.cancel()
    told.wait(base, 3)
    settle(base)
    assert sorted(heard(told)) == sorted(CLOSED)
    assert not any(lookup.pending for lookup in lookups)


def test_who_had_cancelled_is_told_of_that(base: EventBase, server: NameServer) -> None:
    told = Told()
    dns = client_of(server)
    lookup = dns.resolve_ipv4("silent.example", told)
    lookup.cancel()
    dns.close()
    assert told.wait(base) == [(DnsResult.CANCEL, 0, [])]


def test_lookups_that_wait_for_their_turn_are_told(base: EventBase, server: NameServer) -> None:
    told = Told()
    dns = client_of(server, max_inflight=1)
    for _ in range(100):
        dns.resolve_ipv4("silent.example", told)
    settle(base)
    dns.close()
    told.wait(base, 100)
    assert set(heard(told)) == {DnsResult.SHUTDOWN}


def test_lookups_without_servers_are_told(base: EventBase) -> None:
    told = Told()
    dns = DnsBase(base, DnsBaseFlag(0))
    begin(dns, told)
    dns.close()
    told.wait(base, 3)
    assert sorted(heard(told)) == sorted(CLOSED)


def test_the_base_closed_first_tells_them_all(server: NameServer) -> None:
    told = Told()
    with EventBase() as other:
        dns = DnsBase(other, DnsBaseFlag(0))
        dns.nameserver_sockaddr_add(server.address)
        lookups = begin(dns, told)
        settle(other)
    assert sorted(heard(told)) == sorted(CLOSED)
    assert dns.closed
    for lookup in lookups:
        lookup.cancel()
    with pytest.raises(ClosedError):
        dns.resume()


def test_what_a_callback_raises_comes_out_of_the_base(server: NameServer) -> None:
    def callback(*_: object) -> None:
        raise KeyError("the end")

    other = EventBase()
    DnsBase(other, DnsBaseFlag(0)).resolve_ipv4("silent.example", callback)
    with pytest.raises(KeyError, match="the end"):
        other.close()
    assert other.closed


def test_close_frees_at_once_where_nothing_is_due(base: EventBase, server: NameServer) -> None:
    before = len(os.listdir("/proc/self/fd"))
    dns = client_of(server)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    dns.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_dropped_and_idle_it_is_freed(base: EventBase, server: NameServer) -> None:
    before = len(os.listdir("/proc/self/fd"))
    dns = client_of(server)
    gone = weakref.ref(dns)
    del dns
    assert gone() is None
    settle(base)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_lookup_that_nobody_holds_is_told(base: EventBase, server: NameServer) -> None:
    told = Told()
    client_of(server).resolve_ipv4("host.example", told)
    gc.collect()
    assert told.wait(base) == [(DnsResult.NONE, 42, ["192.0.2.1"])]
    gone = weakref.ref(told._lookups.pop().dns_base)
    settle(base)
    gc.collect()
    assert gone() is None


def test_a_cycle_with_its_base_is_collected_and_nobody_told() -> None:
    told = Told()

    def make() -> Any:
        base = EventBase()
        server = NameServer(base, dict(ZONE))
        dns = client_of(server)
        begin(dns, told)
        settle(base)
        server.socket.close()
        return weakref.ref(base)

    gone = make()
    gc.collect()
    assert gone() is None
    assert told.told == []


@pytest.mark.parametrize("kind", ["own", "other", "half"])
def test_it_may_be_closed_in_a_callback(base: EventBase, server: NameServer, kind: str) -> None:
    told = Told()
    ended = Told(lambda *_: dns.close())
    dns = client_of(server, getaddrinfo_allow_skew=0.01)
    begin(dns, told)
    for _ in range(40):
        dns.resolve_ipv4("host.example", told)
        if kind != "half":
            dns.getaddrinfo("host.example", 80, told, family=socket.AF_INET)
    if kind == "half":
        dns.getaddrinfo("half.example", 80, ended)
    else:
        dns.resolve_ipv4("host.example", ended)
    if kind == "other":
        Event.timer(base, lambda *_: dns.close()).add(0)
    count = len(dns._lookups)
    told.wait(base, count - 1)
    ended.wait(base)
    settle(base)
    assert (len(told.told), len(ended.told)) == (count - 1, 1)


def test_it_may_be_closed_by_an_answer_at_once(base: EventBase, server: NameServer) -> None:
    told = Told()
    dns = client_of(server)
    begin(dns, told)
    at_once = Told(lambda *_: dns.close())
    dns.getaddrinfo("192.0.2.1", 80, at_once)
    assert len(at_once.told) == 1
    assert dns.closed
    told.wait(base, 3)
    assert sorted(heard(told)) == sorted(CLOSED)


def test_a_callback_may_begin_another_lookup(base: EventBase, server: NameServer) -> None:
    def again(lookup: Any, *_: object) -> None:
        if len(told.told) < 100:
            lookup.dns_base.resolve_ipv4("host.example", told)

    closed: list[bool] = []
    told = Told(again)
    with client_of(server) as dns:
        at_end = Told(lambda lookup, *_: closed.append(lookup.dns_base.closed))
        dns.resolve_ipv4("host.example", told)
        told.wait(base, 100)
        dns.resolve_ipv4("silent.example", at_end)
    at_end.wait(base)
    assert closed == [True]


# What else looks names up.


class Story:
    """An `on_event` that keeps what it is told, and why."""

    def __init__(self) -> None:
        self.told: list[tuple[BufferEventFlag, Any, Any]] = []

    def __call__(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        code = bev.dns_error.errno if bev.dns_error else None
        self.told.append((what, code, type(bev.error)))


def test_connecting_by_a_name_fails_when_its_resolver_is_closed(
    base: EventBase, server: NameServer
) -> None:
    story = Story()
    dns = client_of(server)
    bevs = [BufferEvent(base, on_event=story) for _ in range(3)]
    for bev, name in zip(bevs, ("silent.example", "half.example", "host.example"), strict=True):
        bev.connect_hostname(dns, name, 80, socket.AF_UNSPEC)
    run_until(base, lambda: len(server.asked) == 6)
    dns.close()
    run_until(base, lambda: len(story.told) == 3)
    settle(base)
    failed = [one for one in story.told if one[1] == AddrInfoError.FAIL]
    assert len(failed) >= 2
    assert len(story.told) == 3
    assert all(one[0] == BufferEventFlag.ERROR for one in failed)
    for bev in bevs:
        bev.close()


def test_a_bufferevent_lives_on_without_its_resolver(base: EventBase, server: NameServer) -> None:
    story = Story()
    dns = client_of(server)
    bev = BufferEvent(base, on_event=story)
    bev.connect_hostname(dns, "silent.example", 80)
    dns.close()
    run_until(base, lambda: story.told)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        client_of(server) as dns,
    ):
        server.zone["here.example"] = ["127.0.0.1"]
        bev.connect_hostname(dns, "here.example", listening.getsockname()[1])
        run_until(base, lambda: len(story.told) == 2)
        assert story.told[1] == (BufferEventFlag.CONNECTED, None, type(None))
        assert bev.dns_error is None
    settle(base)
    assert len(story.told) == 2
    bev.close()


def test_a_resolver_may_be_closed_by_what_it_connects(base: EventBase, server: NameServer) -> None:
    closers: list[Callable[[], None]] = []
    heard: list[Any] = []

    def on_event(_bev: BufferEvent, what: BufferEventFlag) -> None:
        heard.append(what)
        while closers:
            closers.pop()()

    dns = client_of(server)
    server.zone["no.example"] = 3
    bevs = [BufferEvent(base, on_event=on_event) for _ in range(50)]
    for number, bev in enumerate(bevs):
        bev.connect_hostname(dns, "no.example" if number % 2 else "half.example", 80)
    closers += [dns.close, *[bev.close for bev in bevs[::5]]]
    run_until(base, lambda: dns.closed)
    settle(base)
    assert BufferEventFlag.ERROR in heard
    for bev in bevs:
        bev.close()
    settle(base)


@VALGRIND_TAKES_LONG
def test_an_http_connection_is_closed_with_its_resolver(valgrind: bool) -> None:
    run_python(
        """
        from libevent_py import *
        from tests.kit.dns_peers import *
        from tests.kit.peers import run_until, settle

        def ask(connection):
            request = HttpRequest(lambda request: ended.append((request, request.error)))
            connection.make_request(request, HttpCommand.GET, "/")

        zone = {"here.example": ["127.0.0.1"], "silent.example": SILENCE}
        for inside in (False, True):
            ended = []
            with EventBase() as base, NameServer(base, zone) as server:
                http = HttpServer(base)
                bound = http.bind_socket("127.0.0.1", 0)
                http.set_gencb(lambda request: request.send_reply(200, "OK", b"here"))
                dns = client_of(server)
                fast = HttpConnection(base, "here.example", bound.address[1], dns_base=dns)
                slow = HttpConnection(base, "silent.example", 80, dns_base=dns)
                other = HttpConnection(base, "127.0.0.1", bound.address[1])
                ask(fast)
                ask(slow)
                run_until(base, lambda: len(ended) == 1)
                assert ended[0][1] is None
                if inside:
                    base.once(lambda *_: dns.close())
                    run_until(base, lambda: dns.closed)
                else:
                    dns.close()
                assert fast.closed and slow.closed and not other.closed
                assert len(ended) == 2 and ended[1][1] is not None
                ask(other)
                run_until(base, lambda: len(ended) == 3)
                assert ended[2][1] is None
        """,
        valgrind=valgrind,
    )


def test_an_accept_callback_may_raise_while_a_name_is_looked_up(
    base: EventBase, server: NameServer
) -> None:
    def on_accept(*_: object) -> None:
        raise KeyError("not you")

    with client_of(server) as dns, Listener(base, ("127.0.0.1", 0), on_accept) as listener:
        told = Told()
        dns.resolve_ipv4("silent.example", told)
        with socket.create_connection(listener.address), pytest.raises(KeyError, match="not you"):
            base.dispatch()
    told.wait(base)


# Fork and threads.


def test_a_forked_child_has_to_reinit_first() -> None:
    run_python(
        """
        import os
        from libevent_py import *
        from tests.kit.dns_peers import *

        with EventBase() as base, NameServer(base, {"*": ["192.0.2.1"]}) as server:
            told = Told()
            dns = client_of(server)
            lookup = dns.resolve_ipv4("host.example", told)
            pid = os.fork()
            if pid == 0:
                for use in (lookup.cancel, dns.resume, dns.clear_nameservers_and_suspend):
                    try:
                        use()
                    except ForkError:
                        pass
                    else:
                        os._exit(1)
                base.reinit()
                lookup.cancel()
                told.wait(base)
                dns.close()
                base.loop(LoopFlag.NONBLOCK)
                assert told.told[0][0] in (DnsResult.CANCEL, DnsResult.NONE), told.told
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            lookup.cancel()
            told.wait(base)
            pid = os.fork()
            if pid == 0:
                dns.close()
                base.close()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            dns.resolve_ipv4("host.example", told)
            assert told.wait(base, 2)[1][0] == DnsResult.NONE
        """
    )


def test_another_thread_is_refused(base: EventBase, server: NameServer) -> None:
    refused: list[Any] = []

    def elsewhere() -> None:
        for use in (
            lambda: dns.resolve_ipv4("host.example", print),
            lambda: dns.resolve_reverse("192.0.2.1", print),
            lambda: dns.getaddrinfo("192.0.2.1", 80, print),
            lambda: dns.nameserver_ip_add("127.0.0.1"),
            lambda: dns.set_option("timeout", 1),
            lambda: dns.load_hosts(None),
            dns.search_clear,
            dns.clear_nameservers_and_suspend,
            dns.resume,
            dns.close,
            lookup.cancel,
        ):
            try:
                use()
            except ThreadError:
                refused.append(True)
        base.defer(base.loopexit)

    told = Told()
    with client_of(server) as dns:
        lookup = dns.resolve_ipv4("silent.example", told)
        thread = threading.Thread(target=elsewhere)
        base.once(lambda *_: thread.start())
        base.dispatch()
        thread.join()
        assert len(refused) == 11
        assert told.told == []
    told.wait(base)


def test_dropped_in_another_thread_it_is_freed_in_the_loop(
    base: EventBase, server: NameServer
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    kept = [client_of(server)]
    thread = threading.Thread(target=kept.clear)
    base.once(lambda *_: thread.start())
    base.once(lambda *_: base.loopexit(), timeout=0.05)
    base.dispatch()
    thread.join()
    settle(base)
    assert len(os.listdir("/proc/self/fd")) == before


def test_live_holds_only_what_is_looked_up(base: EventBase, server: NameServer) -> None:
    alive = dict(base._live)
    with client_of(server) as dns:
        assert base._live == alive
        told = Told()
        lookup = dns.resolve_ipv4("host.example", told)
        assert lookup in base._live.values()
        told.wait(base)
        assert base._live == alive
    assert live.bases == ()


# Memory.


@VALGRIND_TAKES_LONG
def test_no_order_of_ends_touches_freed_memory(valgrind: bool) -> None:
    run_python(
        """
        import gc, itertools
        from libevent_py import *
        from tests.kit.dns_peers import *
        from tests.dns.test_dns_lifetime import ZONE, begin
        from tests.kit.peers import settle

        def close_in(kind, moment):
            with EventBase() as base, NameServer(base, dict(ZONE)) as server:
                told = Told()
                dns = client_of(server, getaddrinfo_allow_skew=0.001, max_inflight=5)
                lookups = begin(dns, told)
                bevs = [BufferEvent(base) for _ in range(4)]
                for bev, name in zip(bevs, ["silent.example", "half.example"] * 2):
                    bev.connect_hostname(dns, name, 80)

                def end(*_):
                    [bev.close() for bev in bevs[:1]]
                    if kind == "cancel":
                        [lookup.cancel() for lookup in lookups]
                    dns.close()
                    [bev.close() for bev in bevs[1:2]]

                ender = Told(end)
                for _ in range(40):
                    lookups.append(dns.resolve_ipv4("host.example", told))
                    lookups.append(dns.getaddrinfo("half.example", 80, told))
                if kind == "lookup":
                    dns.getaddrinfo("half.example", 80, ender)
                elif kind == "event":
                    bevs[2].on_event = end
                for _ in range(moment):
                    base.loop(LoopFlag.NONBLOCK | LoopFlag.ONCE)
                if kind in ("outside", "cancel"):
                    end()
                elif kind == "timer":
                    base.once(end)
                elif kind == "drop":
                    del dns, lookups, ender
                    [bev.close() for bev in bevs]
                    return
                elif kind == "base":
                    return
                settle(base)
                bevs.clear()
            count = len(told.told)
            assert count == 83 or kind in ("drop", "base"), (kind, count)

        for kind in ("outside", "cancel", "timer", "lookup", "event", "drop", "base"):
            for moment in (0, 1, 2, 5):
                close_in(kind, moment)

        def cycle(moment):
            base = EventBase()
            server = NameServer(base, dict(ZONE))
            dns = client_of(server)
            begin(dns, Told())
            bev = BufferEvent(base)
            bev.connect_hostname(dns, "half.example", 80)
            for _ in range(moment):
                base.loop(LoopFlag.NONBLOCK | LoopFlag.ONCE)
            server.socket.close()

        for moment in range(4):
            cycle(moment)
            gc.collect()
        """,
        valgrind=valgrind,
    )


@VALGRIND_TAKES_LONG
def test_a_probed_server_is_not_cleared_below_its_answer(valgrind: bool) -> None:
    run_python(
        """
        import time
        from libevent_py import *
        from tests.kit.dns_peers import *
        from tests.kit.peers import run_until, settle

        options = dict(
            timeout=0.02, attempts=1, max_timeouts=1, initial_probe_timeout=0.005, max_inflight=3
        )

        def change_in_time(end):
            # The probe times out, and what ends it is due too: in one turn of the loop.
            with EventBase() as base, NameServer(base, {"*": SILENCE}) as server:
                told = Told()
                dns = client_of(server, **options)
                dns.resolve_ipv4("x.example", told)
                run_until(base, lambda: "google.com" in server.names)
                base.once(lambda *_: end(dns), timeout=0.021)
                base.once(lambda *_: time.sleep(0.05), timeout=0.001)
                settle(base)
                time.sleep(0.03)
                settle(base)
                dns.close()
                settle(base)

        def clear(dns):
            dns.clear_nameservers_and_suspend()
            dns.nameserver_ip_add("127.0.0.1:9")

        for _ in range(2):
            change_in_time(clear)
            change_in_time(DnsBase.close)

        # Two servers, of which the second is probed while questions wait for their turn.
        with EventBase() as base, NameServer(base, {"*": SILENCE}) as one:
            with NameServer(base, {"*": SILENCE}) as other:
                told = Told()
                dns = client_of(one, other, **options)
                for number in range(400):
                    dns.resolve_ipv4(f"x{number}.example", told)
                for moment in range(20):
                    end = time.monotonic() + 0.02 + 0.003 * moment
                    while time.monotonic() < end:
                        base.loop(LoopFlag.NONBLOCK)
                    dns.clear_nameservers_and_suspend()
                    for server in (one, other):
                        dns.nameserver_sockaddr_add(server.address)
                    dns.resume()
                dns.close()
                settle(base)
                assert len(told.told) == 400, len(told.told)
        """,
        valgrind=valgrind,
    )


def test_the_loop_goes_on_while_it_waits_for_a_quiet_moment() -> None:
    run_python(
        """
        from libevent_py import *
        from tests.kit.dns_peers import *

        # What is least urgent keeps the moment from being quiet, and has its turn nevertheless.
        with EventBase(priorities=3) as base, NameServer(base, {"*": ["192.0.2.1"]}) as server:
            dns = client_of(server)
            turns = []

            def least(event, *_):
                turns.append(1)
                if len(turns) < 50:
                    event.active()
                else:
                    base.loopexit()

            def end(*_):
                event.active()
                dns.close()

            event = Event.user(base, least)
            event.priority = 2
            dns.resolve_ipv4("host.example", end)
            base.dispatch()
            assert len(turns) == 50
        """
    )


def test_the_pointer_is_libevents(base: EventBase, server: NameServer) -> None:
    with client_of(server) as dns:
        assert lib.evdns_base_count_nameservers(dns.pointer) == 1
        with pytest.raises(TypeError, match="can't be copied or pickled"):
            dns.__reduce_ex__(2)
    with pytest.raises(ClosedError):
        dns.pointer  # noqa: B018
