"""Suspended reading goes on, and with it every byte that waits in a layer above a socket."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    EventBase,
    FilterResult,
    FlushMode,
    RateLimit,
    RateLimitGroup,
    TlsVersion,
)
from tests.kit.certificates import HOST, Authority
from tests.kit.flags import EAGER, READ
from tests.kit.peers import run_until, settle
from tests.kit.support import run_python
from tests.kit.tls_peers import client_context, connected_ends, ends, server_context

OWNED = BufferEventOption.CLOSE_ON_FREE
DEFERRED = BufferEventOption.DEFER_CALLBACKS

#: What a TLS record may hold at most.
RECORD = 16384

Ends = tuple[BufferEvent, BufferEvent]


# What reads, and what writes to it.


def over_sockets(base: EventBase, authority: Authority, options: int = OWNED) -> Ends:
    left, right = socket.socketpair()
    return BufferEvent(base, left, options), BufferEvent(base, right)


def over_deferred_sockets(base: EventBase, authority: Authority) -> Ends:
    return over_sockets(base, authority, OWNED | DEFERRED)


def over_eager_sockets(base: EventBase, authority: Authority) -> Ends:
    return over_sockets(base, authority, OWNED | EAGER)


def over_a_pair(base: EventBase, authority: Authority) -> Ends:
    return BufferEvent.pair(base)


def over_tls(base: EventBase, authority: Authority, **named: Any) -> Ends:
    client, server = connected_ends(base, authority, **named)
    for end in (client, server):
        end.bev.setcb(None, None, None)
        end.bev.disable(READ)
    return server.bev, client.bev


#: Each byte as `scrambled` passes it on, and back.
SCRAMBLED = bytes(byte ^ 0x55 for byte in range(256))


def over_tls_at_once(base: EventBase, authority: Authority) -> Ends:
    return over_tls(base, authority, options=OWNED)


def scrambled(
    source: Buffer, destination: Buffer, limit: int | None, mode: FlushMode
) -> FilterResult:
    destination.add(source.remove(limit).translate(SCRAMBLED))
    return FilterResult.OK


def filtered(below: Ends, **named: Any) -> Ends:
    return (
        BufferEvent.filter(below[0], scrambled, scrambled, **named),
        BufferEvent.filter(below[1], scrambled, scrambled),
    )


def filters_over_sockets(base: EventBase, authority: Authority) -> Ends:
    return filtered(over_sockets(base, authority))


def filters_at_once(base: EventBase, authority: Authority) -> Ends:
    return filtered(over_sockets(base, authority), options=OWNED)


def filters_over_deferred_sockets(base: EventBase, authority: Authority) -> Ends:
    return filtered(over_deferred_sockets(base, authority))


def filters_over_a_pair(base: EventBase, authority: Authority) -> Ends:
    return filtered(over_a_pair(base, authority))


def filters_over_tls(base: EventBase, authority: Authority) -> Ends:
    return filtered(over_tls(base, authority))


def filters_over_filters(base: EventBase, authority: Authority) -> Ends:
    return filtered(filtered(over_deferred_sockets(base, authority)))


def tls_through(below: Ends, authority: Authority, **named: Any) -> Ends:
    server = BufferEvent.tls_filter(below[0], server_context(authority), **named)
    context = client_context(authority)
    client = BufferEvent.tls_filter(below[1], context, server_hostname=HOST)
    events: list[BufferEventFlag] = []
    for bev in (server, client):
        bev.on_event = lambda bev, what: events.append(what)
    run_until(server.base, lambda: len(events) == 2)
    assert events == [BufferEventFlag.CONNECTED] * 2
    return server, client


def tls_over_sockets(base: EventBase, authority: Authority) -> Ends:
    return tls_through(over_sockets(base, authority), authority)


def tls_over_sockets_at_once(base: EventBase, authority: Authority) -> Ends:
    return tls_through(over_sockets(base, authority), authority, options=OWNED)


def tls_over_a_pair(base: EventBase, authority: Authority) -> Ends:
    return tls_through(over_a_pair(base, authority), authority)


def tls_over_filters(base: EventBase, authority: Authority) -> Ends:
    return tls_through(filters_over_sockets(base, authority), authority)


def tls_over_tls(base: EventBase, authority: Authority) -> Ends:
    return tls_through(over_tls(base, authority), authority)


NOUNS = [
    over_sockets,
    over_deferred_sockets,
    over_eager_sockets,
    over_a_pair,
    over_tls,
    over_tls_at_once,
    filters_over_sockets,
    filters_at_once,
    filters_over_deferred_sockets,
    filters_over_a_pair,
    filters_over_tls,
    filters_over_filters,
    tls_over_sockets,
    tls_over_sockets_at_once,
    tls_over_a_pair,
    tls_over_filters,
    tls_over_tls,
]


# How reading is suspended, and goes on.


class Reader:
    """Takes what comes, and notes it in the order in which it is told."""

    def __init__(self, bev: BufferEvent) -> None:
        self.bev = bev
        self.received = b""
        self.after_the_end = b""
        self.events: list[BufferEventFlag] = []
        self.turns = 0
        bev.setcb(self.on_read, None, self.on_event)

    def on_read(self, bev: BufferEvent) -> None:
        self.take(None)

    def on_event(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        self.take(None)
        self.events.append(what)

    def take(self, size: int | None) -> None:
        bev = self.bev
        if bev.underlying is None:
            self.note(bev.read(size))
        else:  # one that doesn't defer callbacks tells of what comes next before read() returns
            size = len(bev.input) if size is None else min(size, len(bev.input))
            self.note(bev.input.copyout(size))
            bev.input.drain(size)

    def note(self, data: bytes) -> None:
        if self.events:
            self.after_the_end += data
        self.received += data

    def begin(self) -> None:
        self.bev.enable(READ)

    def goes_on(self) -> None:
        """Do what has reading go on; called in each turn of the loop."""


class ByHighWatermark(Reader):
    """Leaves some of the input each time."""

    def begin(self) -> None:
        self.bev.setwatermark(READ, 0, 1000)
        super().begin()

    def on_read(self, bev: BufferEvent) -> None:
        self.take(700)

    def goes_on(self) -> None:
        if len(self.bev.input) < 1000:
            self.take(None)


class ByRaisedWatermark(Reader):
    """Takes nothing, and raises the watermark after it has been told some times."""

    def begin(self) -> None:
        self.bev.setwatermark(READ, 0, 1000)
        super().begin()

    def on_read(self, bev: BufferEvent) -> None:
        self.turns += 1
        if self.turns % 3 == 0:
            bev.setwatermark(READ, 0, len(bev.input) + 1500)


class ByLiftedWatermark(Reader):
    """Takes nothing until there is no watermark any more."""

    def begin(self) -> None:
        self.bev.setwatermark(READ, 0, 1000)
        super().begin()

    def on_read(self, bev: BufferEvent) -> None:
        self.turns += 1
        if self.turns == 5:
            bev.setwatermark(READ, 0, 0)
        if self.turns >= 5:
            self.take(None)


class ByLowWatermark(Reader):
    """Is told of nothing until the low watermark sinks to what there may be."""

    def begin(self) -> None:
        self.bev.setwatermark(READ, 200_000, 0)
        super().begin()

    def goes_on(self) -> None:
        self.turns += 1
        if self.turns == 10:
            self.bev.setwatermark(READ, 0, 0)


class ByLimit(Reader):
    def begin(self) -> None:
        self.bev.rate_limit = RateLimit(5000, tick=0.002)
        super().begin()


class ByLiftedLimit(Reader):
    def begin(self) -> None:
        self.bev.rate_limit = RateLimit(100, tick=1000)
        super().begin()

    def goes_on(self) -> None:
        self.turns += 1
        if self.turns == 10:
            self.bev.rate_limit = None


class ByGroup(Reader):
    def begin(self) -> None:
        self.bev.add_to_rate_limit_group(RateLimitGroup(self.bev.base, RateLimit(5000, tick=0.002)))
        super().begin()


class ByGroupThatIsLeft(Reader):
    def begin(self) -> None:
        self.bev.add_to_rate_limit_group(RateLimitGroup(self.bev.base, RateLimit(100, tick=1000)))
        super().begin()

    def goes_on(self) -> None:
        self.turns += 1
        if self.turns == 10:
            self.bev.remove_from_rate_limit_group()


class ByDisabling(Reader):
    """Takes some, and waits a while each time."""

    def on_read(self, bev: BufferEvent) -> None:
        self.take(1000)
        bev.disable(READ)

    def goes_on(self) -> None:
        self.turns += 1
        if self.turns % 2 == 0:
            self.bev.enable(READ)


class InTheMidst(Reader):
    """Disables as soon as there is anything, in the midst of a record."""

    def begin(self) -> None:
        self.bev.input.add_cb(self.on_change)
        super().begin()

    def on_change(self, buffer: Buffer, info: Any) -> None:
        if info.n_added:
            self.bev.disable(READ)

    def goes_on(self) -> None:
        self.take(None)
        self.bev.enable(READ)


class FromTheBeginning(Reader):
    """Begins only once all has been sent that finds room."""

    def begin(self) -> None:
        pass

    def goes_on(self) -> None:
        self.turns += 1
        if self.turns == 20:
            self.bev.enable(READ)


SUSPENSIONS = [
    Reader,
    ByHighWatermark,
    ByRaisedWatermark,
    ByLiftedWatermark,
    ByLowWatermark,
    ByLimit,
    ByLiftedLimit,
    ByGroup,
    ByGroupThatIsLeft,
    ByDisabling,
    InTheMidst,
    FromTheBeginning,
]


def run(reader: Reader, condition: Callable[[], object]) -> None:
    def step() -> bool:
        if condition():
            return True
        reader.goes_on()
        return bool(condition())

    run_until(reader.bev.base, step)


def hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()  # nobody wants to see where 80 KiB differ


def more(value: Any) -> Any:
    return pytest.param(value, marks=pytest.mark.more)


def name(value: Any) -> str:
    return str(getattr(value, "__name__", value))


@pytest.mark.parametrize("size", [*map(more, (100, 1000)), RECORD, 5 * RECORD + 100], ids=name)
@pytest.mark.parametrize("suspension", SUSPENSIONS, ids=name)
@pytest.mark.parametrize("make", NOUNS, ids=name)
def test_no_byte_is_stranded(
    base: EventBase,
    authority: Authority,
    make: Callable[[EventBase, Authority], Ends],
    suspension: type[Reader],
    size: int,
) -> None:
    bev, peer = make(base, authority)
    reader = suspension(bev)
    reader.begin()
    data = os.urandom(size)
    peer.write(data)

    def came() -> bool:
        return len(reader.received) + len(bev.input) == size

    run(reader, came)
    reader.take(None)
    assert len(reader.received) == size
    assert hashed(reader.received) == hashed(data)
    assert reader.events == []


@pytest.mark.parametrize("size", [more(100), RECORD, more(2 * RECORD)], ids=name)
@pytest.mark.parametrize("suspension", SUSPENSIONS, ids=name)
@pytest.mark.parametrize("make", NOUNS, ids=name)
def test_the_end_directly_behind_the_data_is_told_after_it(
    base: EventBase,
    authority: Authority,
    make: Callable[[EventBase, Authority], Ends],
    suspension: type[Reader],
    size: int,
) -> None:
    bev, peer = make(base, authority)
    reader = suspension(bev)
    reader.begin()
    data = os.urandom(size)
    peer.write(data)
    peer.close(flush=True)
    run(reader, lambda: reader.events and len(reader.received) == size)
    assert hashed(reader.received) == hashed(data)
    late = len(reader.after_the_end)
    assert late == 0
    assert BufferEventFlag.EOF in reader.events[0]


# What else it must not disturb.


def test_a_buffer_of_a_bufferevent_can_not_be_frozen(base: EventBase, authority: Authority) -> None:
    bev, _ = over_tls(base, authority)
    for buffer in (bev.input, bev.output):
        with pytest.raises(ValueError, match="freezes and unfreezes its own buffers"):
            buffer.freeze(True)


def half_read(base: EventBase, authority: Authority, **named: Any) -> Ends:
    """Return a reader that OpenSSL holds the rest of a record for."""
    bev, peer = over_tls(base, authority, **named)
    bev.setwatermark(READ, 0, 1000)
    bev.enable(READ)
    peer.write(bytes(RECORD))
    run_until(base, lambda: len(bev.input) >= 1000)
    return bev, peer


@pytest.mark.parametrize("set_while_suspended", [False, True])
def test_a_reader_that_was_suspended_keeps_its_timeout(
    base: EventBase, authority: Authority, set_while_suspended: bool
) -> None:
    events: list[BufferEventFlag] = []
    if set_while_suspended:
        bev, _ = half_read(base, authority)
        bev.set_timeouts(0.05, None)
    else:
        bev, peer = over_tls(base, authority)
        bev.set_timeouts(0.05, None)
        bev.setwatermark(READ, 0, 1000)
        bev.enable(READ)
        peer.write(bytes(RECORD))
        run_until(base, lambda: len(bev.input) >= 1000)
    bev.on_event = lambda bev, what: events.append(what)
    received = 0
    begun = time.monotonic()
    while received < RECORD:
        run_until(base, lambda: len(bev.input))
        received += len(bev.read())
        assert events == [] or time.monotonic() - begun > 0.05
    begun = time.monotonic()
    run_until(base, lambda: events)
    assert time.monotonic() - begun > 0.02
    assert events == [BufferEventFlag.TIMEOUT | BufferEventFlag.READING]
    assert bev.pointer.timeout_read.tv_usec == 50_000


def test_a_reader_that_is_suspended_has_no_timeout_of_its_own_taken_for_another(
    base: EventBase, authority: Authority
) -> None:
    bev, _ = half_read(base, authority)
    events: list[BufferEventFlag] = []
    bev.on_event = lambda bev, what: events.append(what)
    bev.set_timeouts(None, None)
    for _ in range(20):
        bev.read(100)
        settle(base)
    assert events == []


def test_another_socket_begins_anew(base: EventBase, authority: Authority) -> None:
    bev, _ = half_read(base, authority)
    bev.read()
    bev.setwatermark(READ, 0, 0)
    left, right = socket.socketpair()
    reader = Reader(bev)
    bev.fd = left
    context = client_context(authority)
    peer = BufferEvent.tls(base, right, context, server_hostname=HOST)
    peer.write(b"x" * RECORD)
    run_until(base, lambda: len(reader.received) >= RECORD)
    assert reader.received.lstrip(b"\0") == b"x" * RECORD
    assert BufferEventFlag.CONNECTED in reader.events


def test_nothing_is_asked_of_a_reader_that_waits(base: EventBase, authority: Authority) -> None:
    bev, _ = half_read(base, authority)
    before = time.process_time()
    base.loopexit(0.3)
    base.dispatch()
    assert time.process_time() - before < 0.2  # it doesn't ask again and again
    assert len(bev.input) < RECORD


def test_a_renegotiation_in_the_midst_of_a_record_loses_nothing(
    base: EventBase, authority: Authority
) -> None:
    old = TlsVersion.TLSv1_2
    client = client_context(authority, maximum_version=old)
    one, other = ends(base, client, server_context(authority, maximum_version=old))
    run_until(base, lambda: one.connected and other.connected)
    bev = one.bev
    bev.setwatermark(READ, 0, 1000)
    bev.on_read = None
    data = os.urandom(3 * RECORD)
    other.bev.write(data)
    run_until(base, lambda: len(bev.input) >= 1000)
    received = b""
    while len(received) < len(data):
        run_until(base, lambda: len(bev.input))
        received += bev.read(700)
    assert hashed(received) == hashed(data)


MISUSE = """
    import os, socket, sys, tempfile
    from pathlib import Path
    from libevent_py import *
    from tests.kit.certificates import Authority, HOST
    from tests.kit.peers import run_until, settle
    from tests.bufferevent.test_suspended import over_tls, RECORD
    from tests.kit.tls_peers import client_context, connected_ends, server_context
    READ = EventFlag.READ
    what = sys.argv[1]
    with tempfile.TemporaryDirectory() as place, EventBase() as base:
        authority = Authority(Path(place))
        for options in (BufferEventOption.CLOSE_ON_FREE, BufferEventOption(0)):
            sockets = socket.socketpair()
            bev, peer = over_tls(base, authority, sockets=sockets, options=options)
            peer.write(bytes(3 * RECORD))
            bev.setwatermark(READ, 0, 1000)

            def on_read(bev):
                bev.read(10)
                if what == "in its callback":
                    bev.close()
                elif what == "the base":
                    base.loopbreak()

            def on_change(buffer, info):
                if what == "in its buffer's" and info.n_added:
                    bev.close()

            bev.on_read = on_read
            bev.input.add_cb(on_change)
            bev.enable(READ)
            for _ in range(5):
                settle(base)
            if what == "suspended":
                assert not bev.closed
                bev.close()
            elif what == "going on":
                bev.read()
                bev.close()
            elif what == "dropped":
                del bev
            elif what == "detached":
                os.close(bev.detach())
                bev.close()
            elif what == "forked":
                child = os.fork()
                if child == 0:
                    base.reinit()
                    bev.setwatermark(READ, 0, 0)
                    settle(base)
                    bev.close()
                    base.close()
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
            settle(base)
            peer.close()
            for sock in sockets:
                sock.close()
    print("done")
"""


@pytest.mark.parametrize(
    "what",
    [
        "in its callback",
        "in its buffer's",
        "suspended",
        "going on",
        "dropped",
        "detached",
        "the base",
        "forked",
    ],
)
def test_a_suspended_reader_may_end_anywhere(what: str) -> None:
    assert run_python(MISUSE, what) == "done\n"


@pytest.mark.more
@pytest.mark.parametrize("what", ["in its callback", "in its buffer's", "going on"])
def test_where_a_suspended_reader_ends_no_freed_memory_is_touched(what: str) -> None:
    assert run_python(MISUSE, what, valgrind=True) == "done\n"
