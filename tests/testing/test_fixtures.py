"""The fixtures of the pytest plugin, used as its users do."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventOption,
    DnsResult,
    Event,
    EventBase,
    EventFlag,
    LogSeverity,
    LoopFlag,
    MemorySource,
    TlsContext,
    TlsError,
    lib,
    log,
)
from libevent_py.testing import (
    Allocations,
    BadNetwork,
    LibeventLog,
    LocalDnsServer,
    LocalHttpServer,
    LocalListener,
    Settle,
    Snapshot,
    TlsAuthority,
    Until,
)
from libevent_py.testing.peers import HOST, bufferevent_pair
from tests.kit.support import PATIENCE

READ = EventFlag.READ


def test_until_runs_the_loop_and_returns_what_its_condition_does(
    event_base: EventBase, until: Until
) -> None:
    fired: list[int] = []
    with Event.timer(event_base, lambda *_: fired.append(1)) as timer:
        timer.add(0.02)
        assert until(lambda: fired and "done") == "done"
        assert until(lambda: 3) == 3


def test_until_notices_what_happens_outside_of_the_loop(until: Until) -> None:
    end = time.monotonic() + 0.05
    assert until(lambda: time.monotonic() > end)


def test_until_lets_out_what_a_callback_raises(event_base: EventBase, until: Until) -> None:
    def fail(*_: object) -> None:
        raise ValueError("from the callback")

    with Event.timer(event_base, fail) as timer:
        timer.add(0)
        with pytest.raises(ValueError, match="from the callback"):
            until(lambda: False)


def test_settle_runs_what_is_due_and_what_that_makes_due(
    event_base: EventBase, socket_pair: tuple[socket.socket, socket.socket], settle: Settle
) -> None:
    ran: list[str] = []
    near, far = (sock.detach() for sock in socket_pair)
    deferred = BufferEventOption.CLOSE_ON_FREE | BufferEventOption.DEFER_CALLBACKS
    with (
        BufferEvent(event_base, near) as left,
        BufferEvent(event_base, far, deferred, on_read=lambda bev: ran.append("read")) as right,
        Event.timer(event_base, lambda *_: ran.append("timer")) as timer,
        Event.timer(event_base, lambda *_: ran.append("later")) as later,
    ):
        right.enable(READ)
        timer.add(0)
        later.add(3600)
        event_base.defer(lambda: event_base.defer(left.write, b"sent in the second turn"))
        settle()
        assert sorted(ran) == ["read", "timer"]
        settle()
        assert len(ran) == 2


def test_settle_runs_all_priorities(settle: Settle, event_base: EventBase) -> None:
    with EventBase(priorities=3) as base:
        ran: list[int] = []
        for priority in (2, 0, 1):
            event = Event(base, -1, EventFlag(0), lambda *_, p=priority: ran.append(p))
            event.priority = priority
            event.active(EventFlag.TIMEOUT)
        Settle(base)()
        assert ran == [0, 1, 2]


def test_settle_waits_until_others_have_been_quiet(
    event_base: EventBase, socket_pair: tuple[socket.socket, socket.socket], settle: Settle
) -> None:
    near, far = socket_pair
    got: list[bytes] = []

    def send() -> None:
        for _ in range(3):
            time.sleep(0.05)
            near.send(b"x")

    sender = threading.Thread(target=send)
    with Event(
        event_base, far, READ | EventFlag.PERSIST, lambda *_: got.append(far.recv(9))
    ) as event:
        event.add()
        sender.start()
        settle(0.5)
        assert got == [b"x"] * 3
        sender.join()
        begun = time.monotonic()
        settle(0.02)
        assert time.monotonic() - begun >= 0.01  # by a coarse clock
        settle()


def test_settle_fails_where_there_is_no_end(event_base: EventBase, settle: Settle) -> None:
    settle.timeout = 0.05
    with Event.timer(event_base, lambda event, *_: event.add(0)) as timer:
        timer.add(0)
        for quiet in (0.0, 0.01):
            with pytest.raises(AssertionError, match=r"to do after 0\.05 seconds") as caught:
                settle(quiet)
            assert "1 event keeps it alive" in str(caught.value)
    with pytest.raises(ValueError, match="quiet must be a number of seconds, not -1"):
        settle(-1)


def test_settle_lets_out_what_a_callback_raises(event_base: EventBase, settle: Settle) -> None:
    for quiet in (0.0, 0.01):
        event_base.defer(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            settle(quiet)
        settle()


def test_until_fails_with_what_the_base_has(event_base: EventBase, until: Until) -> None:
    with Event.timer(event_base, print) as timer:
        timer.add(50)
        begun = time.monotonic()
        with pytest.raises(AssertionError) as caught:
            until(lambda: False, timeout=0.1)
    assert time.monotonic() - begun < PATIENCE
    said = str(caught.value)
    assert "<lambda> (" in said
    assert "did not hold within 0.1 seconds" in said
    assert "the loop goes on: 1 event keeps it alive" in said
    assert "Inserted events:" in said


def test_until_has_a_timeout_of_its_own(until: Until) -> None:
    until.timeout = 0.05
    with pytest.raises(AssertionError, match=r"within 0\.05 seconds"):
        until(lambda: False)


def test_sockets_are_a_pair(socket_pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = socket_pair
    left.send(b"x")
    assert right.recv(2) == b"x"
    with pytest.raises(BlockingIOError):
        right.recv(1)


def test_bufferevents_are_a_pair(
    bufferevent_pair: tuple[BufferEvent, BufferEvent], until: Until
) -> None:
    left, right = bufferevent_pair
    assert left.partner is right
    right.enable(READ)
    left.write(b"x")
    assert until(right.read) == b"x"


def test_the_listener_keeps_its_connections(
    event_base: EventBase, listener: LocalListener, until: Until
) -> None:
    assert listener.address == ("127.0.0.1", listener.port)
    with BufferEvent(event_base) as one, BufferEvent(event_base) as other:
        for client in (one, other):
            client.connect(listener.address)
            client.write(b"hello")
        until(lambda: len(listener.accepted) == 2)
        until(lambda: all(len(bev.input) == 5 for bev in listener.accepted))
        accepted = list(listener.accepted)
        listener.close()
        assert all(bev.closed for bev in accepted)


def test_the_http_server_answers(
    http_server: LocalHttpServer, until: Until, tls_authority: TlsAuthority
) -> None:
    http_server.set_cb("/a", lambda request: request.send_reply(200, "OK", b"an answer"))
    url = http_server.url("/a")
    assert url == f"http://127.0.0.1:{http_server.port}/a"
    with subprocess.Popen(["curl", "--silent", url], stdout=subprocess.PIPE) as curl:
        until(lambda: curl.poll() is not None)
        assert curl.stdout is not None
        assert curl.stdout.read() == b"an answer"


def test_an_https_server_has_a_certificate_that_curl_accepts(
    event_base: EventBase, tls_context: TlsContext, tls_authority: TlsAuthority, until: Until
) -> None:
    with LocalHttpServer(event_base, tls=tls_context) as server:
        server.set_gencb(lambda request: request.send_reply(200, "OK", b"an answer"))
        url = server.url()
        assert urllib.parse.urlsplit(url).scheme == "https"
        command = ["curl", "--silent", "--cacert", str(tls_authority.cafile), url]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
            until(lambda: curl.poll() is not None)
            assert curl.stdout is not None
            assert curl.stdout.read() == b"an answer"


def test_the_dns_server_answers_from_its_names(dns_server: LocalDnsServer, until: Until) -> None:
    dns_server.names = {"a.test": ["192.0.2.1", "2001:db8::1"], "b.test": "192.0.2.2"}
    answers: list[Any] = []

    def note(*answer: object) -> None:
        answers.append((answer[1], answer[3]))

    with dns_server.dns_base() as dns:
        for ask, name in (
            (dns.resolve_ipv4, "a.test"),
            (dns.resolve_ipv6, "a.test"),
            (dns.resolve_ipv4, "B.TEST"),
            (dns.resolve_ipv4, "c.test"),
        ):
            answers.clear()
            ask(name, note)
            until(lambda: answers)
            expected = {
                "resolve_ipv4 a.test": (DnsResult.NONE, ["192.0.2.1"]),
                "resolve_ipv6 a.test": (DnsResult.NONE, ["2001:db8::1"]),
                "resolve_ipv4 B.TEST": (DnsResult.NONE, ["192.0.2.2"]),
                "resolve_ipv4 c.test": (DnsResult.NOTEXIST, []),
            }[f"{ask.__name__} {name}"]
            assert answers[0][0] == expected[0]
            assert list(answers[0][1] or []) == expected[1]
    assert [name.lower() for name, _ in dns_server.queries] == [
        "a.test",
        "a.test",
        "b.test",
        "c.test",
    ]


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_contexts_fit(
    event_base: EventBase,
    tls_context: TlsContext,
    tls_client_context: TlsContext,
    until: Until,
    trusted: bool,
) -> None:
    context = tls_client_context if trusted else TlsContext()
    events: list[Any] = []
    with (
        context,
        LocalListener(event_base, tls=tls_context) as listener,
        BufferEvent.tls(event_base, -1, context, server_hostname="localhost") as client,
    ):
        client.on_event = lambda _, what: events.append(what)
        client.connect(listener.address)
        client.write(b"secret")
        if trusted:
            until(lambda: listener.accepted and listener.accepted[0].input)
            assert listener.accepted[0].read() == b"secret"
        else:
            until(lambda: events)
            assert isinstance(client.tls_errors()[0], TlsError)


def test_an_authority_signs_for_other_hosts(
    event_base: EventBase, tls_authority: TlsAuthority, until: Until
) -> None:
    events: list[Any] = []
    with (
        tls_authority.server_context("other.test") as server,
        tls_authority.client_context() as client_context,
        LocalListener(event_base, tls=server) as listener,
        BufferEvent.tls(event_base, -1, client_context, server_hostname="localhost") as client,
    ):
        client.on_event = lambda _, what: events.append(what)
        client.connect(listener.address)
        until(lambda: events)
        assert "hostname mismatch" in str(client.tls_errors()[0])


def reenter(base: EventBase) -> None:
    """Make libevent log a warning."""
    with Event.timer(base, lambda *_: lib.event_base_loop(base.pointer, 0)) as timer:
        timer.add(0)
        base.loop()


def test_what_libevent_logs_is_kept_by_severity(
    event_base: EventBase, libevent_log: LibeventLog, caplog: pytest.LogCaptureFixture
) -> None:
    assert libevent_log.messages == []
    reenter(event_base)
    (message,) = libevent_log.messages
    assert message.severity is LogSeverity.WARN
    assert libevent_log.warnings == [message.text]
    assert "reentrant invocation" in message.text
    assert libevent_log.errors == []
    assert [record.getMessage() for record in caplog.records] == [message.text]
    libevent_log.clear()
    assert libevent_log.messages == []


def test_a_log_callback_is_there_again_after_the_block(event_base: EventBase) -> None:
    got: list[str] = []
    log.set_log_callback(lambda _, text: got.append(text))
    try:
        with LibeventLog() as kept:
            reenter(event_base)
            assert len(kept.warnings) == 1
        assert got == []
        reenter(event_base)
        log.flush()
        assert len(got) == 1
        assert len(kept.warnings) == 1
    finally:
        log.set_log_callback(None)


def test_the_nth_allocation_fails(fail_allocation: Allocations) -> None:
    buffer = Buffer()
    with fail_allocation(1) as failure, pytest.raises(MemoryError):
        buffer.add(b"hello")
    assert failure.refused == 1
    assert failure.after.blocks == failure.before.blocks
    with fail_allocation(2) as failure:
        buffer.add(b"hello")
    assert failure.refused == 0
    assert failure.after.blocks == failure.before.blocks + 1
    assert failure.after.bytes > failure.before.bytes
    with pytest.raises(ValueError, match="nth must be at least 1"):
        fail_allocation(0)


def test_each_allocation_fails_until_there_are_no_more(fail_allocation: Allocations) -> None:
    failed = []
    for failure in fail_allocation.each():
        with failure, contextlib.suppress(MemoryError):
            Buffer().add(b"hello")
        failed.append((failure.nth, failure.refused))
        assert failure.after.blocks == failure.before.blocks
    assert failed == [(1, 1), (2, 1), (3, 0)]


def test_later_allocations_fail_as_well(fail_allocation: Allocations) -> None:
    with fail_allocation(1, onwards=True, source=MemorySource.LIBEVENT) as failure:
        for _ in range(3):
            with pytest.raises(MemoryError):
                Buffer()
    assert failure.refused == 3


def test_nothing_that_was_put_aside_helps(
    event_base: EventBase, listener: LocalListener, fail_allocation: Allocations
) -> None:
    with BufferEvent(event_base) as client:
        with fail_allocation(1, source=MemorySource.ANY) as helped:
            client.connect(listener.address)
        assert helped.refused == 1
    anything: dict[str, Any] = {"onwards": True, "source": MemorySource.ANY, "put_aside": False}
    for block in (fail_allocation(1, **anything), next(fail_allocation.each(**anything))):
        with BufferEvent(event_base) as client, block, pytest.raises(MemoryError):
            client.connect(listener.address)


def test_blocks_must_be_entered(fail_allocation: Allocations) -> None:
    with pytest.raises(RuntimeError, match="must be in a with block: allocation 1"):
        for _ in fail_allocation.each():
            pass


def test_snapshots_tell_what_has_changed(
    event_base: EventBase,
    event_snapshot: Callable[[], Snapshot],
    socket_pair: tuple[socket.socket, socket.socket],
) -> None:
    before = event_snapshot()
    assert str(before) == ""
    fd = socket_pair[0].fileno()
    with (
        Event(event_base, fd, READ | EventFlag.PERSIST, print) as reads,
        Event.timer(event_base, print) as timer,
    ):
        reads.add()
        timer.add(5)
        between = event_snapshot()
        assert between != before
        lines = (between - before).split("\n")
        assert [line.partition(": ")[2] for line in lines] == [
            f"fd {fd}, READ|PERSIST, calls print",
            "timer, with a timeout, calls print",
        ]
        assert all(line.startswith("+ Event #") for line in lines)
        assert (before - between).replace("-", "+") == between - before
        reads.add(5)
        timer.delete()
        changed = (event_snapshot() - between).split("\n")
        assert [line[0] for line in changed] == ["-", "+", "-"]
        assert "with a timeout" in changed[1]
    assert event_snapshot() == before
    assert event_snapshot() - before == ""


@pytest.mark.backends("poll", "select")
def test_a_mark_chooses_backends(event_base: EventBase, libevent_backend: str) -> None:
    assert event_base.method == libevent_backend
    event_base.loop(LoopFlag.NONBLOCK)


def test_what_is_closed_after_a_test_is_closed_with_its_layers() -> None:
    """As after STARTTLS: the bufferevent below can't be closed before the one on top."""
    with EventBase() as base, BufferEvent(base) as client:
        listener = LocalListener(base)
        client.connect((HOST, listener.port))
        Until(base)(lambda: listener.accepted)
        pairs = bufferevent_pair(base)
        network = BadNetwork(base)
        one, other = next(pairs)
        mine = network(BufferEvent.pair(base)[0])
        tops = [BufferEvent.filter(bev, None, None) for bev in (listener.accepted[0], one, mine)]
        listener.close()
        assert next(pairs, None) is None
        network.close()
        assert all(bev.closed for bev in (listener.accepted[0], one, other, mine, *tops))
        assert listener.closed
