"""What `EventBase.explain` says of everything that a loop can wait for, in every state."""

from __future__ import annotations

import functools
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventOption,
    ClosedError,
    DnsBase,
    DnsServer,
    Event,
    EventBase,
    FilterResult,
    FlushMode,
    ForkError,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    HttpServer,
    HttpServerRequest,
    Listener,
    LoopFlag,
    Message,
    RateLimit,
    RateLimitGroup,
    Rpc,
    RpcPool,
    RpcServer,
    ThreadError,
    TlsContext,
    ffi,
    lib,
)
from libevent_py.rpc.message import Int
from tests.kit.flags import PERSIST, READ, WRITE
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import ANYWHERE, Pair, run_until, settle, tcp_pair
from tests.kit.support import ROOT, run_python

HERE = re.escape(__file__)


class Number(Message):
    """What a procedure takes and returns."""

    value = Int(1)


def nothing(*_: object) -> None:
    """Do nothing."""


class Spiteful:
    """A callable object that can't be looked at."""

    def __call__(self, *_: object) -> None:
        pass

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    __str__ = __repr__

    def __bool__(self) -> bool:
        raise RuntimeError("bool")


def first(text: str) -> str:
    """Return the line that sums up."""
    return text.splitlines()[0]


def about(text: str, name: str) -> list[str]:
    """Return the lines on the object whose line begins with *name*."""
    lines = iter(text.splitlines())
    found = [line for line in lines if line.startswith(f"  {name}")][:1]
    assert found, f"nothing about {name} in:\n{text}"
    lines = iter(text.splitlines())
    for line in lines:
        if line == found[0]:
            break
    for line in lines:
        if not line.startswith("    "):
            break
        found.append(line.strip())
    return found


def keeps(text: str, name: str) -> bool:
    """Tell whether the object of that *name* is among those that keep the loop alive."""
    kept, _, _ = text.partition("\nthese don't keep it alive:\n")
    return f"\n  {name}" in kept


# What it waits for.


def test_nothing_keeps_an_empty_loop_alive(base: EventBase) -> None:
    text = base.explain()
    assert first(text) == "nothing keeps the loop alive"
    assert "it doesn't run" in text and text.endswith("\n")
    assert not base.dispatch()


def test_each_event_is_told_with_what_it_waits_for_and_whom_it_calls() -> None:
    with EventBase(priorities=3) as base, Event.user(base, nothing) as user:
        one, other = tcp_pair()
        read, write = os.pipe()
        Event(base, one, READ | PERSIST, nothing, priority=0).add(2.5)
        Event(base, read, READ, functools.partial(functools.partial(nothing, 1), 2)).add()
        Event.timer(base, Spiteful(), persist=True).add(1000)
        Event.signal(base, signal.SIGUSR2, print).add()
        Event(base, other, WRITE, "".format).add()
        user.active()
        text = base.explain()
        near, far = (":".join(map(str, end.getsockname())) for end in (one, other))
        assert first(text) == "the loop goes on: 6 events keep it alive"
        assert "something is due now" in text
        place = rf"\({HERE}:\d+\)"
        for said in (
            rf"Event #\d+ waits to read fd {one.fileno()}, a TCP socket, {near} to {far} "
            rf"\(persistent, priority 0\); times out in 2\.\d+ s; calls nothing {place}",
            rf"Event #\d+ waits to read fd {read}, the reading end of pipe:\[\d+\] "
            rf"\(priority 1\); calls partial of nothing {place}",
            rf"Event #\d+, timer \(persistent, priority 1\); due in \d+.* s; "
            rf"calls an object of Spiteful {place}",
            r"Event #\d+ waits for SIGUSR2 \(persistent, priority 1\); calls print",
            rf"Event #\d+ waits to write fd {other.fileno()}, .*; calls str.format",
            rf"Event #{user._key}, user event .*active: its callback waits to run; calls nothing",
        ):
            assert re.search(f"^  {said}", text, re.MULTILINE), text
        os.close(read)
        os.close(write)
        one.close()
        other.close()


def test_an_object_keeps_its_number_and_later_ones_have_higher_ones(base: EventBase) -> None:
    early, late = (Event.timer(base, nothing).add(1000) for _ in range(2))
    numbers = re.findall(r"Event #(\d+)", base.explain())
    assert numbers == re.findall(r"Event #(\d+)", base.explain())
    late.close()
    assert re.findall(r"Event #(\d+)", base.explain()) == [min(numbers, key=int)]
    early.close()


def kinds_of_descriptors(path: Path) -> dict[str, list[int]]:
    """Return descriptors of each kind, opened anew, by what is said of them."""
    unix, peer = socket.socketpair()
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(path / "socket"))
    bound.listen()
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path / "socket"))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(ANYWHERE)
    six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    os.mkfifo(path / "fifo")
    fifo = os.open(path / "fifo", os.O_RDWR)
    made = {
        "a UNIX stream socket of a pair": [unix.detach(), peer.detach()],
        f"a UNIX stream socket that listens on '{path}/socket'": [bound.detach()],
        f"a UNIX stream socket, unnamed to '{path}/socket'": [client.detach()],
        f"a UDP socket at 127.0.0.1:{udp.getsockname()[1]}, not connected": [udp.detach()],
        "a UDP socket at [::]:0, not connected": [six.detach()],
        f"the FIFO '{path}/fifo'": [fifo],
    }
    if hasattr(os, "eventfd"):
        made["eventfd"] = [os.eventfd(0)]
    return made


def test_descriptors_are_told_by_what_they_are_of(base: EventBase, tmp_path: Path) -> None:
    made = kinds_of_descriptors(tmp_path)
    for said, numbers in made.items():
        with Event(base, numbers[0], READ, nothing) as event:
            event.add()
            assert f"waits to read fd {numbers[0]}, {said};" in base.explain()
        for number in numbers:
            os.close(number)


def test_a_descriptor_that_was_closed_behind_the_event_s_back_is_told_so(base: EventBase) -> None:
    one, other = socket.socketpair()
    number = one.fileno()
    with Event(base, number, READ, nothing) as event:
        event.add()
        one.close()
        assert f"fd {number}, not open (Bad file descriptor)" in base.explain()
    other.close()


def test_calls_of_once_and_loopexit_and_deferred_functions(base: EventBase, pair: Pair) -> None:
    base.once(nothing, timeout=1000)
    base.once(nothing, fd=pair[0], what=READ)
    base.once(nothing)
    base.loopexit(2000)
    for _ in range(7):
        base.defer(nothing)
    base.loopexit()
    text = base.explain()
    assert first(text) == (
        "the loop goes on: 3 calls of once(), 1 function of defer(), 1 timer of loopexit(), "
        "1 call of loopexit() keep it alive"
    )
    assert "once(): timer; due in" in text
    assert f"once(): waits to read fd {pair[0].fileno()}, a UNIX stream socket" in text
    assert "once(): in the loop's next turn; calls nothing (" in text
    assert "loopexit(): stops the loop; due in" in text
    assert "loopexit(): stops the loop in its next turn" in text
    assert "defer(): 7 wait to run: nothing (" in text and ", and 2 more" in text
    assert text.count(f"calls nothing ({__file__}:") == 3
    base.dispatch()


def test_deferred_callbacks_that_wait_are_counted(base: EventBase) -> None:
    buffer = Buffer()
    buffer.defer_callbacks(base)
    buffer.add_cb(nothing)
    buffer.add(b"x")
    text = base.explain()
    assert first(text) == "the loop goes on: 1 deferred callback keeps it alive"
    assert "1 deferred callback of buffers and bufferevents" in text
    settle(base)
    assert first(base.explain()) == "nothing keeps the loop alive"


def test_events_that_keep_no_loop_alive_are_told_apart(base: EventBase) -> None:
    base.loop(LoopFlag.NONBLOCK)
    base.init_common_timeout(100)
    text = base.explain()
    assert first(text) == "nothing keeps the loop alive"
    assert not keeps(text, "this package's own")
    assert "\n  this package's own, for signals: waits to read fd" in text
    assert "\n  this package's own, for the log: waits to read fd" in text
    assert "\n  libevent's own: waits to read fd" in text


def test_a_common_timeout_is_told_in_seconds_from_now(base: EventBase) -> None:
    event = Event.timer(base, nothing).add(base.init_common_timeout(100))
    assert re.search(r"Event #\d+, timer; due in (100|99\.\d+) s", base.explain())
    event.close()


def test_a_finalizer_that_waits_to_run_is_told(base: EventBase) -> None:
    event = Event.timer(base, nothing).add(1000)
    event.close(finalize=nothing)
    assert f"Event #{event._key} is closed; its finalizer waits to run" in base.explain()
    settle(base)


def test_an_event_that_the_program_has_made_in_c_is_told(base: EventBase, pair: Pair) -> None:
    callback = ffi.callback("event_callback_fn", nothing)
    event = lib.event_new(base.pointer, pair[0].fileno(), READ, callback, ffi.NULL)
    lib.event_add(event, ffi.NULL)
    text = base.explain()
    lib.event_free(event)
    assert first(text) == "the loop goes on: 1 event made in C keeps it alive"
    assert f"waits to read fd {pair[0].fileno()}" in text


def test_more_events_than_there_is_room_for_at_first(base: EventBase) -> None:
    events = [Event.timer(base, nothing).add(1000) for _ in range(200)]
    assert first(base.explain()) == "the loop goes on: 200 events keep it alive"
    for event in events:
        event.close()


# The loop.


def test_in_its_callback_the_loop_runs_and_says_which_event_does(base: EventBase) -> None:
    texts: list[str] = []
    event = Event.timer(base, lambda *_: texts.append(base.explain())).add(0)
    base.loop(LoopFlag.NO_EXIT_ON_EMPTY | LoopFlag.ONCE)
    assert first(texts[0]).startswith("nothing keeps the loop alive, but NO_EXIT_ON_EMPTY")
    assert "it runs, with ONCE|NO_EXIT_ON_EMPTY" in texts[0]
    assert f"the callback of Event #{event._key} runs" in texts[0]


@pytest.mark.parametrize("stop", ["loopbreak", "loopexit"])
def test_a_loop_that_is_stopped_says_so(base: EventBase, stop: str) -> None:
    texts: list[str] = []

    def stopped(*_: object) -> None:
        getattr(base, stop)()
        texts.append(base.explain())

    base.once(stopped)
    base.once(nothing, timeout=1000)
    base.dispatch()
    said = {
        "loopbreak": "it ends after this callback: loopbreak() was called",
        "loopexit": "loopexit(): stops the loop in its next turn",
    }
    assert said[stop] in texts[0]


# Bufferevents.


def test_a_bufferevent_is_told_with_its_peer_and_its_bytes(base: EventBase) -> None:
    one, other = tcp_pair()
    with BufferEvent(base, one, on_read=nothing) as bev:
        bev.write(b"x" * 12)
        text = base.explain()
        host, port = other.getsockname()
        assert f", fd {bev.fd}, to {host}:{port}, enabled" in repr(bev)
        assert first(text) == "the loop goes on: 1 bufferevent keeps it alive"
        told = about(text, f"BufferEvent #{bev._key} to {host}:{port}, 12 bytes to write")
        assert told[1].startswith(f"waits to write fd {bev.fd}, a TCP socket, ")
        assert "reading is suspended, as it isn't enabled: enable(READ)" in told
        assert told[-1].startswith(f"calls on_read nothing ({__file__}:")
        bev.enable(READ)
        bev.set_timeouts(5, 6)
        told = about(base.explain(), f"BufferEvent #{bev._key}")
        assert any(re.match(r"waits to read .*; times out in (5|4\.\d+) s", line) for line in told)
        assert not any("suspended" in line for line in told)
    other.close()


def reasons(base: EventBase, bev: BufferEvent) -> str:
    """Return what is said of *bev*."""
    return "\n".join(about(base.explain(), f"BufferEvent #{bev._key}"))


def test_why_a_bufferevent_of_a_socket_is_suspended(base: EventBase) -> None:
    one, other = tcp_pair()
    with BufferEvent(base) as unconnected, BufferEvent(base, one) as bev:
        assert "suspended, as it has no descriptor: connect()" in reasons(base, unconnected)
        assert not keeps(base.explain(), f"BufferEvent #{unconnected._key}")
        bev.enable(READ)
        bev.setwatermark(READ, 0, 4)
        other.send(b"12345678")
        run_until(base, lambda: len(bev.input) >= 4)
        text = reasons(base, bev)
        assert "4 bytes to be read from it" in text
        assert "reading is suspended by the high watermark, 4 bytes" in text
        assert first(base.explain()) == "nothing keeps the loop alive"
        bev.setwatermark(READ, 0, 0)
        bev.write(b"x")
        bev.disable(WRITE)
        assert "writing is suspended, as it isn't enabled: enable(WRITE)" in reasons(base, bev)
    other.close()


def of_a_kind(base: EventBase, kind: str) -> tuple[BufferEvent, BufferEvent]:
    """Return a bufferevent of *kind*, and one that writes to it."""
    if "pair" in kind:
        writer, reader = BufferEvent.pair(base)
    else:
        one, other = tcp_pair()
        writer, reader = BufferEvent(base, one), BufferEvent(base, other)
    if "filter" in kind:
        reader = BufferEvent.filter(reader, None, None)
    return writer, reader


KINDS = pytest.mark.parametrize("kind", ["socket", "pair", "filter", "filter of a pair"])


@KINDS
def test_a_low_watermark_that_isn_t_reached_is_told(base: EventBase, kind: str) -> None:
    writer, bev = of_a_kind(base, kind)
    waits = "on_read waits for 10 bytes to be read from it (low watermark): "
    with writer, bev:
        bev.on_read = nothing
        bev.setwatermark(READ, 10, 0)
        told = reasons(base, bev)
        assert waits + "0 are there" in told
        assert "reading is suspended, as it isn't enabled: enable(READ)" in told
        bev.enable(READ)
        writer.write(b"123456789")
        run_until(base, lambda: len(bev.input) == 9)
        told = reasons(base, bev)
        assert waits + "9 are there" in told and "reading is suspended" not in told
        assert ", 9 bytes to be read from it" in base.explain()
        bev.disable(READ)
        told = reasons(base, bev)
        assert waits + "9 are there" in told and "as it isn't enabled: enable(READ)" in told
        bev.enable(READ)
        writer.write(b"0")
        run_until(base, lambda: len(bev.input) == 10)
        assert "waits for" not in reasons(base, bev)


@KINDS
def test_marks_that_can_never_be_reached_are_told(base: EventBase, kind: str) -> None:
    writer, bev = of_a_kind(base, kind)
    with writer, bev:
        bev.on_read = nothing
        bev.setwatermark(READ, 10, 5)
        bev.enable(READ)
        writer.write(b"123456789")
        run_until(base, lambda: len(bev.input) >= 5)
        told = reasons(base, bev)
        waits = "on_read waits for ever: its low watermark, 10 bytes, is above its high one, 5"
        assert waits in told
        assert "reading is suspended by the high watermark, 5 bytes" in told


@KINDS
def test_bytes_that_nobody_is_called_for_are_told(base: EventBase, kind: str) -> None:
    writer, bev = of_a_kind(base, kind)
    told = "nothing is called for the bytes to be read: it has no on_read"
    with writer, bev:
        bev.setwatermark(READ, 10, 0)
        bev.enable(READ)
        assert told not in base.explain() and "waits for 10" not in base.explain()
        writer.write(b"1")
        run_until(base, lambda: len(bev.input) == 1)
        assert told in reasons(base, bev) and "waits for 10" not in base.explain()
        bev.on_read = nothing
        assert told not in base.explain()


@pytest.mark.parametrize("kind", ["filter", "filter of a pair"])
def test_a_mark_below_a_filter_is_told_as_what_the_filter_waits_for(
    base: EventBase, kind: str
) -> None:
    writer, bev = of_a_kind(base, kind)
    below = bev.underlying
    assert below is not None
    with writer, bev:
        bev.on_read = nothing
        below.setwatermark(READ, 10, 0)
        bev.enable(READ)
        writer.write(b"123456789")
        run_until(base, lambda: len(below.input) == 9)
        expected = f"BufferEvent #{bev._key} waits for 10 bytes to be read from it (low watermark)"
        assert f"{expected}: 9 are there" in reasons(base, below)
        assert "waits for 10" not in reasons(base, bev)
        below.setwatermark(WRITE, 0, 4)
        below.disable(WRITE)
        bev.write(b"123456789")
        expected = f"writing is suspended by the high watermark of BufferEvent #{below._key} below"
        assert expected in reasons(base, bev)


@KINDS
def test_what_on_write_waits_for_is_told(base: EventBase, kind: str) -> None:
    _, bev = of_a_kind(base, kind)
    waits = "on_write waits until 4 bytes or less are to be written (low watermark)"
    with bev:
        bev.disable(WRITE)
        bev.setwatermark(WRITE, 4, 0)
        bev.write(b"12345")
        assert waits not in reasons(base, bev)  # nobody does
        bev.on_write = nothing
        told = reasons(base, bev)
        assert waits in told and "5 bytes to write" in base.explain()
        assert "writing is suspended, as it isn't enabled: enable(WRITE)" in told
        bev.setwatermark(WRITE, 5, 0)
        assert "on_write waits" not in reasons(base, bev)


def test_which_limit_a_bufferevent_is_suspended_by(base: EventBase) -> None:
    one, other = tcp_pair()
    with BufferEvent(base, one) as bev, RateLimitGroup(base, RateLimit(5, 5, tick=50)) as group:
        bev.enable(READ)
        bev.rate_limit = RateLimit(3, 3, tick=100)
        other.send(b"12345678")
        run_until(base, lambda: len(bev.input) >= 3)
        text = reasons(base, bev)
        assert "reading is suspended by its rate limit: it is refilled every 100 s" in text
        assert "timer of its own, for a timeout or its rate limit; due in" in text
        bev.rate_limit = None
        bev.add_to_rate_limit_group(group)
        run_until(base, lambda: len(bev.input) >= 8)
        text = base.explain()
        expected = f"reading is suspended by the limit of RateLimitGroup #{group._key}"
        assert expected in text
        told = about(text, f"RateLimitGroup #{group._key}, 1 member")
        assert told[1].startswith("timer that refills its bucket; due in")
        assert "1 rate limit group" in first(text)
    other.close()


def test_a_bufferevent_that_connects_or_looks_a_name_up_says_so(base: EventBase) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(ANYWHERE)
        dns = DnsBase(base, 0)
        dns.nameserver_sockaddr_add(silent.getsockname())
        with BufferEvent(base) as bev:
            bev.connect_hostname(dns, "a.example", 80)
            assert "looks up 'a.example': goes on when the lookup ends" in reasons(base, bev)
        dns.close()
        settle(base)


def test_a_full_backlog_leaves_a_bufferevent_connecting(base: EventBase) -> None:
    with socket.socket() as server:
        server.bind(ANYWHERE)
        server.listen(0)
        address = server.getsockname()
        clients = [socket.socket() for _ in range(3)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(address)
        with BufferEvent(base) as bev:
            bev.connect(address)
            text = reasons(base, bev)
            assert "suspended while it connects: goes on when the peer answers" in text
            assert "waits to write fd" in text
        for client in clients:
            client.close()


def test_layers_and_pairs_are_told_by_their_numbers(base: EventBase) -> None:
    one, other = BufferEvent.pair(base)
    upper = BufferEvent.filter(one, None, None)
    text = base.explain()
    assert about(text, f"BufferEvent #{upper._key} on BufferEvent #{one._key}")
    below = about(text, f"BufferEvent #{one._key}, half of a pair with BufferEvent #{other._key}")
    assert f"used by BufferEvent #{upper._key} on top of it" in below
    other.write(b"12")
    assert "writing waits for the other half" in reasons(base, other) or not len(other.output)
    upper.close()
    other.close()


# The build leaves TLS out where there is no OpenSSL for it: then there is no handshake.
@pytest.mark.skipif(not lib.LIBEVENT_PY_HAVE_TLS, reason="built without TLS")
def test_tls_whose_handshake_is_not_done_says_so(base: EventBase) -> None:
    one, other = tcp_pair()
    context = TlsContext()
    with BufferEvent.tls(base, one, context, server_hostname="a.example") as bev:
        bev.write(b"x")
        text = reasons(base, bev)
        assert ", TLS" in text and "its TLS handshake is not done" in text
    other.close()


def test_a_filter_may_ask_in_the_middle(base: EventBase) -> None:
    texts: list[str] = []
    one, other = tcp_pair()

    def inward(source: Buffer, target: Buffer, _limit: object, _mode: FlushMode) -> FilterResult:
        texts.append(base.explain())
        target.add_buffer(source)
        return FilterResult.OK

    with BufferEvent.filter(BufferEvent(base, one), inward, None) as bev:
        bev.enable(READ)
        other.send(b"x")
        run_until(base, lambda: len(bev.input))
    assert all(first(text).startswith("the loop goes on: 1 bufferevent") for text in texts)
    assert texts
    other.close()


def test_eager_bufferevents_are_told_with_what_the_arena_has(base: EventBase) -> None:
    one, other = tcp_pair()
    texts: list[str] = []

    def answer(bev: BufferEvent) -> None:
        bev.write(b"123")
        texts.append(base.explain())

    options = BufferEventOption.CLOSE_ON_FREE | BufferEventOption.EAGER
    with BufferEvent(base, one, options, on_read=answer) as bev:
        bev.enable(READ)
        other.send(b"x")
        run_until(base, lambda: texts)
        assert "1 bytes to be read from it, 3 bytes to write" in texts[0]
        assert f"waits to read fd {bev.fd}" in reasons(base, bev)
    other.close()


# Listeners, DNS, HTTP, RPC.


def test_a_listener_is_told_with_its_address_and_what_it_does(base: EventBase) -> None:
    with Listener(base, ANYWHERE, nothing) as listener:
        name = f"Listener #{listener._key} on 127.0.0.1:{listener.address[1]}"
        text = base.explain()
        assert first(text) == "the loop goes on: 1 listener keeps it alive"
        told = about(text, name)
        assert told[1].startswith(f"waits to read fd {listener.fd}, a TCP socket that listens on")
        assert told[2].startswith("calls nothing (")
        listener.disable()
        assert not keeps(base.explain(), name)
        assert about(base.explain(), name)


def test_a_resolver_is_told_with_its_servers_and_lookups(base: EventBase) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(ANYWHERE)
        port = silent.getsockname()[1]
        with DnsBase(base, 0) as dns, DnsServer(base, ANYWHERE, nothing) as server:
            dns.nameserver_sockaddr_add(("127.0.0.1", port))
            lookup = dns.resolve_ipv4("a.example", nothing)
            text = base.explain()
            assert "1 DnsBase, 1 DNS server keep it alive" in first(text)
            name = f"DnsBase #{dns._key}, 1 name server: 127.0.0.1:{port}, 1 lookup pending"
            told = about(text, name)
            assert any("a UDP socket" in line for line in told)
            assert any("timer for an answer" in line and "due in" in line for line in told)
            assert any("lookup <DnsLookup of 'a.example'" in line for line in told)
            assert about(text, f"DnsServer #{server._key} on 127.0.0.1:")[1].startswith("waits to")
            with DnsBase(base, 0) as other:
                told = about(base.explain(), name)
                assert f"some of these events may be those of DnsBase #{other._key}" in told
            lookup.cancel()
        settle(base)


def test_http_is_told_on_both_sides(base: EventBase) -> None:
    kept: list[HttpServerRequest] = []
    with HttpServer(base) as server:
        server.set_gencb(kept.append)
        port = server.bind_socket(*ANYWHERE).port
        with HttpConnection(base, "127.0.0.1", port) as client:
            request = HttpRequest(nothing)
            client.make_request(request, HttpCommand.GET, "/path")
            client.make_request(HttpRequest(nothing), HttpCommand.GET, "/next")
            unasked = socket.create_connection(("127.0.0.1", port))
            run_until(base, lambda: kept)
            settle(base)
            asked = kept[0].connection
            assert asked is not None
            text = base.explain()
            kinds = "1 HTTP server, 1 HTTP connection, 1 HTTP server connection keep it alive"
            assert first(text) == f"the loop goes on: {kinds}"
            told = about(text, f"HttpServer #{server._key} on 127.0.0.1:{port}")
            assert "1 request to be answered: send_reply()" in told
            name = f"HttpConnection #{client._key} to 127.0.0.1:{port}, 1 request queued"
            told = about(text, name)
            assert f"under way: HttpRequest #{request._key}, GET '/path'" in told
            assert any(line.startswith("waits to read fd") for line in told)
            number = unasked.getsockname()[1]
            assert about(
                text, f"HttpServerConnection from 127.0.0.1:{number} of HttpServer #{server._key}"
            )
            name = f"HttpServerConnection #{asked._key} from 127.0.0.1:"
            assert about(text, name) and not keeps(text, name)  # until it has been answered
            unasked.close()
            kept[0].send_reply(200, "OK")
    settle(base)


def test_an_http_connection_that_tries_again_has_a_timer(base: EventBase) -> None:
    with socket.socket() as taken:
        taken.bind(ANYWHERE)  # nobody listens
        with HttpConnection(base, "127.0.0.1", taken.getsockname()[1]) as client:
            client.retries = 5
            client.make_request(HttpRequest(nothing), HttpCommand.GET, "/")
            run_until(base, lambda: "connecting is tried again" in base.explain())
            told = about(base.explain(), f"HttpConnection #{client._key}")
            assert any(re.match(r"timer for a timeout, or to try again; due in", s) for s in told)


def test_rpc_calls_are_told(base: EventBase) -> None:
    waiting: list[Rpc] = []
    with HttpServer(base) as server, RpcServer(server) as rpc:
        rpc.register("Echo", Number, Number, waiting.append)
        port = server.bind_socket(*ANYWHERE).port
        with RpcPool(base) as pool:
            pool.add_connection(HttpConnection(base, "127.0.0.1", port))
            number = Number()
            number.value = 1
            for _ in range(2):
                pool.call("Echo", number, Number, nothing)
            run_until(base, lambda: waiting)
            text = base.explain()
            told = about(text, f"RpcPool #{pool._key}, 2 calls under way")
            assert any(re.match(r"call #\d+ of 'Echo'; calls nothing", line) for line in told)
            assert any("waits for a connection" in line for line in told)
            assert re.search(rf"HttpConnection #\d+ to 127.0.0.1:{port} of RpcPool #", text)
            assert about(text, f"RpcServer #{rpc._key}, 1 call to be answered")
    settle(base)


# Misuse.


def test_a_closed_base_has_nothing_to_explain() -> None:
    base = EventBase()
    base.close()
    with pytest.raises(ClosedError):
        base.explain()


def test_another_thread_is_refused(base: EventBase) -> None:
    raised: list[BaseException] = []

    def ask() -> None:
        with pytest.raises(ThreadError) as caught:
            base.explain()
        raised.append(caught.value)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert raised


def test_a_forked_child_is_told_to_reinit(base: EventBase, pair: Pair) -> None:
    with Event(base, pair[0], READ, nothing) as event:
        event.add()
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                with pytest.raises(ForkError, match=r"call reinit\(\) first"):
                    base.explain()
                base.reinit()
                os.write(write, base.explain().encode())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            lines = pipe.read().decode().splitlines()
        os.waitpid(pid, 0)
        assert lines[0] == "the loop goes on: 1 event keeps it alive"


def test_while_the_base_or_an_object_is_closed_in_the_middle_nothing_is_wrong() -> None:
    """A callback closes what the account is about to tell of, or its base."""
    with EventBase() as base:
        texts: list[str] = []
        bev = BufferEvent(base)

        def close(*_: object) -> None:
            bev.close()
            texts.append(base.explain())

        base.once(close)
        base.dispatch()
        assert "BufferEvent" not in texts[0]


def test_an_interrupt_at_any_step_leaves_it_as_it_was(base: EventBase, pair: Pair) -> None:
    with Event(base, pair[0], READ, nothing) as event, Listener(base, ANYWHERE, nothing):
        event.add()
        before = re.sub(r"in [\d.]+ s", "", base.explain())

        def interrupted() -> None:
            raise KeyboardInterrupt

        handler: Callable[[], None] = interrupted
        previous = signal.signal(signal.SIGALRM, lambda *_: handler())
        try:
            for step in range(1, 40):
                with pytest.raises(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, step * 2e-5)
                    while True:
                        base.explain()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        assert re.sub(r"in [\d.]+ s", "", base.explain()) == before


EVERYTHING = """
    import os, socket
    from libevent_py import *
    def nothing(*_): pass
    with EventBase() as base:
        one, other = socket.socketpair()
        texts = []
        def ask(*_): texts.append(base.explain())
        event = Event(base, one.fileno(), EventFlag.READ, ask).add(5)
        listener = Listener(base, ("127.0.0.1", 0), ask)
        bev = BufferEvent(base, on_event=ask)
        bev.connect(listener.address)
        low, partner = BufferEvent.pair(base)
        upper = BufferEvent.filter(low, None, None, on_read=ask)
        upper.enable(EventFlag.READ)
        partner.write(b"x")
        dns = DnsBase(base, 0)
        dns.nameserver_sockaddr_add(("127.0.0.1", 9))
        dns.resolve_ipv4("a.example", nothing)
        server = HttpServer(base)
        server.set_gencb(lambda request: (ask(), request.send_reply(200, "OK")))
        port = server.bind_socket("127.0.0.1", 0).port
        client = HttpConnection(base, "127.0.0.1", port)
        done = lambda request: (ask(), base.loopbreak())
        client.make_request(HttpRequest(done), HttpCommand.GET, "/")
        group = RateLimitGroup(base, RateLimit(100))
        base.once(ask)
        base.defer(ask)
        other.send(b"x")
        base.explain()
        os.close(bev.fd)
        base.dispatch()
        assert len(texts) >= 5, texts
        for thing in event, upper, dns, group, client, server, listener:
            thing.close()
            base.explain()
    print("done")
"""


@pytest.mark.slow
@VALGRIND_TAKES_LONG
def test_every_callback_may_ask_and_memory_is_only_read(valgrind: bool) -> None:
    assert "done" in run_python(EVERYTHING, valgrind=valgrind, stderr=None)


# The signal.

ASKED = """
    import os, signal, sys, threading
    from libevent_py import EventBase
    class Mine(EventBase):
        def __repr__(self): raise ValueError
    one, other = Mine(), EventBase()
    asked = signal.{signal}
    def callback(fd, what):
        os.kill(os.getpid(), asked)
        one.once(print, timeout=0.05)
    if {running}:
        one.once(callback)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), asked))
        one.once(lambda fd, what: one.loopbreak(), timeout=1.5)
        timer.start()
        one.dispatch()
        timer.join()
    else:
        os.kill(os.getpid(), asked)
    print("it goes on")
"""


def asked(value: str, name: str, running: bool, status: int = 0) -> tuple[str, str]:
    """Return what a program printed that was asked by a signal: to both streams."""
    code = ASKED.format(signal=name, running=running)
    return run_both(code, {"LIBEVENT_PY_EXPLAIN": value}, status)


def run_both(code: str, env: dict[str, str], status: int = 0) -> tuple[str, str]:
    """Run *code*, and return what it printed to both streams."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize(("value", "name"), [("1", "SIGUSR1"), ("SIGUSR2", "SIGUSR2")])
def test_a_signal_makes_the_process_explain_all_its_bases(value: str, name: str) -> None:
    printed, told = asked(value, name, running=False)
    assert printed == "it goes on\n"
    assert told.count("nothing keeps the loop alive") == 2
    assert told.count("<EventBase at 0x") + told.count("<Mine at 0x") == 2
    assert told.index("<Mine") < told.index("<EventBase")


def test_while_the_loop_runs_the_signal_is_answered_at_once() -> None:
    printed, told = asked("1", "SIGUSR1", running=True)
    assert printed.endswith("it goes on\n")
    assert told.count("it runs") == 2 and "Traceback" not in told
    assert "once(): timer; due in" in told


@pytest.mark.parametrize("value", ["", "0", "SIGKILL", "SIG_DFL", "SIGNOTHING", "path"])
def test_unless_it_is_asked_for_the_signal_is_left_alone(value: str) -> None:
    _, told = asked(value, "SIGUSR1", running=False, status=-signal.SIGUSR1)
    assert told == ""


def test_a_handler_that_somebody_has_set_stays() -> None:
    code = """
        import signal
        def mine(*_): pass
        signal.signal(signal.SIGUSR1, mine)
        import libevent_py
        assert signal.getsignal(signal.SIGUSR1) is mine
    """
    assert run_both(code, {"LIBEVENT_PY_EXPLAIN": "1"}) == ("", "")


def test_a_base_of_another_thread_answers_in_its_loop() -> None:
    code = """
        import os, signal, threading, time
        from libevent_py import EventBase
        began = threading.Event()
        def run():
            with EventBase() as base:
                base.once(lambda fd, what: began.set())
                base.once(print, timeout=1)
                base.dispatch()
        thread = threading.Thread(target=run)
        thread.start()
        began.wait()
        os.kill(os.getpid(), signal.SIGUSR1)
        thread.join()
    """
    _, told = run_both(code, {"LIBEVENT_PY_EXPLAIN": "1"})
    assert "another thread runs this event base's loop" in told
    assert "the loop goes on: 1 call of once() keeps it alive" in told
    assert "Traceback" not in told


def test_in_a_forked_child_the_signal_says_what_to_call() -> None:
    code = """
        import os, signal
        from libevent_py import EventBase
        with EventBase() as base:
            pid = os.fork()
            if not pid:
                os.kill(os.getpid(), signal.SIGUSR1)
                base.reinit()
                os.kill(os.getpid(), signal.SIGUSR1)
                os._exit(0)
            os.waitpid(pid, 0)
    """
    _, told = run_both(code, {"LIBEVENT_PY_EXPLAIN": "1"})
    assert re.search("^<EventBase in a forked child>\nthis process was forked", told)
    assert "call reinit() first" in told and "nothing keeps the loop alive" in told


def test_without_a_base_the_signal_is_answered_too() -> None:
    code = """
        import os, signal
        import libevent_py
        os.kill(os.getpid(), signal.SIGUSR1)
    """
    _, told = run_both(code, {"LIBEVENT_PY_EXPLAIN": "1"})
    assert re.fullmatch(r"process \d+ has no event base\n", told)


def test_the_example_in_the_documentation_prints_what_it_says() -> None:
    text = (ROOT / "docs" / "debugging.md").read_text()
    section = text.partition("## Why doesn't my loop end?")[2]
    program, said = re.findall(r"```(?:python)?\n(.*?)```", section, re.DOTALL)[:2]
    printed = run_python(program + "\nbase.close()\n")

    def alike(text: str) -> str:
        return re.sub(r"#\d+|fd \d+|:\d+|due in [\d.]+|\([^)]*:\d+\)|<string>", "_", text).strip()

    kept = [line for line in printed.splitlines() if line and "pipe:" not in line]
    said = re.sub(r"example\.py(?=:)", "<string>", said)
    assert [alike(line) for line in kept] == [alike(line) for line in said.splitlines()]
