"""Group ``bufferevent``, first part: what passes, by sockets, pairs and filters.

The second part, of connecting, timeouts and triggers, is in test_bufferevent_connect.py.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    EventBase,
    FilterResult,
    FlushMode,
    LoopFlag,
    ffi,
    lib,
)
from tests.kit.flags import CLOSE, DEFER, NO_OPTION, READ, WRITE
from tests.kit.peers import Pair

OK, NEED_MORE, ERROR = FilterResult.OK, FilterResult.NEED_MORE, FilterResult.ERROR
NORMAL, FLUSH, FINISHED = FlushMode.NORMAL, FlushMode.FLUSH, FlushMode.FINISHED

Halves = tuple[BufferEvent, BufferEvent]

#: As many bytes as libevent's own tests send.
DATA = (bytes(range(256)) * 33)[:8333]


class Talk:
    """What two bufferevents are told while one of them gets `DATA` from the other."""

    def __init__(self) -> None:
        self.story: list[object] = []

    def on_read(self, bev: BufferEvent) -> None:
        if len(bev.input) == len(DATA):
            received = Buffer()
            bev.read_buffer(received)
            bev.disable(READ)
            assert bytes(received) == DATA
            self.story.append("read")

    def on_write(self, bev: BufferEvent) -> None:
        if not bev.output:
            self.story.append("written")

    def on_event(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        self.story.append(what)


@pytest.fixture
def sockets(backend_base: EventBase, pair: Pair) -> Halves:
    """Two bufferevents on the ends of a socket pair."""
    one, other = (BufferEvent(backend_base, sock, NO_OPTION) for sock in pair)
    return one, other


@pytest.fixture
def halves(backend_base: EventBase) -> Halves:
    """The two halves of a pair."""
    return BufferEvent.pair(backend_base)


def exchange(bevs: Halves, mode: FlushMode | None = None) -> list[object]:
    """Send `DATA` from one to the other, with a flush in *mode*; return what they are told."""
    one, other = bevs
    talk = Talk()
    for bev in bevs:
        bev.setcb(talk.on_read, talk.on_write, talk.on_event)
        assert bev.underlying is None
        assert (bev.on_read, bev.on_write) == (talk.on_read, talk.on_write)
        assert bev.on_event == talk.on_event
    one.disable(READ)
    other.enable(READ)
    assert one.enabled == WRITE
    assert other.enabled == READ | WRITE
    one.write(DATA)
    if mode is not None:
        one.flush(WRITE, mode)
    assert one.base.dispatch() is False
    other.close()
    assert one.partner is None
    one.close()
    return talk.story


def test_bufferevent(sockets: Halves, pair: Pair) -> None:
    """Data pass from one socket to another, and both sides are told."""
    assert [bev.fd for bev in sockets] == [sock.fileno() for sock in pair]
    assert [bev.partner for bev in sockets] == [None, None]
    assert sorted(map(str, exchange(sockets))) == ["read", "written"]


def test_bufferevent_pair(halves: Halves) -> None:
    """The same over a pair."""
    one, other = halves
    assert (one.fd, one.partner, other.partner) == (-1, other, one)
    assert exchange(halves) == ["read", "written"]


def test_bufferevent_flush_normal(sockets: Halves) -> None:
    """A socket has nothing to flush."""
    assert sorted(map(str, exchange(sockets, NORMAL))) == ["read", "written"]


def test_bufferevent_flush_flush(sockets: Halves) -> None:
    """The same with FLUSH."""
    assert sorted(map(str, exchange(sockets, FLUSH))) == ["read", "written"]


def test_bufferevent_flush_finished(sockets: Halves) -> None:
    """The same with FINISHED: a socket's peer is not told of an end."""
    assert sorted(map(str, exchange(sockets, FINISHED))) == ["read", "written"]


def test_bufferevent_pair_flush_normal(halves: Halves) -> None:
    """NORMAL does nothing more for a pair."""
    assert exchange(halves, NORMAL) == ["read", "written"]


def test_bufferevent_pair_flush_flush(halves: Halves) -> None:
    """Nor does FLUSH, when all has passed already."""
    assert exchange(halves, FLUSH) == ["read", "written"]


def test_bufferevent_pair_flush_finished(halves: Halves) -> None:
    """FINISHED tells a pair's other half of the end."""
    end = BufferEventFlag.EOF | BufferEventFlag.READING
    assert exchange(halves, FINISHED) == ["read", end, "written"]


def test_bufferevent_pair_flush(halves: Halves) -> None:
    """FINISHED tells it also when nothing has been written."""
    one, other = halves
    told: list[BufferEventFlag] = []
    one.enable(WRITE)
    other.enable(READ)
    other.on_event = lambda bev, what: told.append(what)
    one.flush(WRITE, FINISHED)
    one.base.loop(LoopFlag.ONCE)
    assert told == [BufferEventFlag.READING | BufferEventFlag.EOF]


# Watermarks.


def watermarks(bevs: Halves) -> None:
    """Have 65000 bytes pass while the receiver is called for 10 to 20 bytes at a time."""
    one, other = bevs
    story: list[str] = []
    received = 0

    def on_read(bev: BufferEvent) -> None:
        nonlocal received
        length = len(bev.input)
        assert 10 <= length <= 20
        bev.read_buffer(Buffer())
        received += length
        if received == 65000:
            bev.disable(READ)
            story.append("read")

    def on_write(bev: BufferEvent) -> None:
        assert len(bev.output) <= 100
        if not bev.output:
            story.append("written")

    one.setcb(None, on_write, lambda bev, what: pytest.fail(str(what)))
    other.setcb(on_read, None, lambda bev, what: pytest.fail(str(what)))
    one.disable(READ)
    other.enable(READ)
    assert one.getwatermark(READ) == other.getwatermark(WRITE) == (0, 0)
    other.setwatermark(READ, 10, 20)
    assert other.getwatermark(READ) == (10, 20)
    one.setwatermark(WRITE, 100, 2000)
    assert one.getwatermark(WRITE) == (100, 2000)
    with pytest.raises(ValueError, match="what must be READ or WRITE"):
        one.getwatermark(READ | WRITE)
    one.write(bytes(65000))
    assert one.base.dispatch() is False
    assert sorted(story) == ["read", "written"]
    ev_write = ffi.addressof(other.pointer, "ev_write")
    assert not lib.event_pending(ev_write, WRITE, ffi.NULL)


def test_bufferevent_watermarks(sockets: Halves) -> None:
    """High and low watermarks hold for sockets. Adapted: the last look is by the raw layer."""
    watermarks(sockets)


def test_bufferevent_pair_watermarks(halves: Halves) -> None:
    """And for pairs."""
    watermarks(halves)


# Filters.


def double_and_halve(bevs: Halves, write_inside: bool) -> None:
    """Have one filter put an x before each byte, and the other take them away.

    The first works once, and then says ERROR; with *write_inside* it writes to its own bufferevent
    meanwhile, which must not call it again there.
    """
    talk = Talk()
    calls = 0

    def doubling(source: Buffer, target: Buffer, _: int | None, mode: FlushMode) -> FilterResult:
        nonlocal calls
        calls += 1
        if calls > 1:
            return ERROR
        target.add(b"".join(b"x%c" % byte for byte in source.remove()))
        if write_inside:
            upper.write(b"-")
            assert calls == 1
        return OK

    def halving(source: Buffer, target: Buffer, _: int | None, mode: FlushMode) -> FilterResult:
        doubled = source.remove(len(source) // 2 * 2)
        assert set(doubled[::2]) <= set(b"x")
        target.add(doubled[1::2])
        return OK

    upper = BufferEvent.filter(bevs[0], None, doubling, CLOSE)
    other = BufferEvent.filter(bevs[1], halving, None, CLOSE)
    upper.setcb(None, talk.on_write, talk.on_event)
    other.setcb(talk.on_read, None, talk.on_event)
    for bev, below in zip((upper, other), bevs, strict=True):
        assert bev.underlying is below
        assert bev.fd == below.fd
    upper.disable(READ)
    other.enable(READ)
    upper.write(DATA)
    assert upper.base.dispatch() is False
    if write_inside:
        assert (talk.story, len(upper.output)) == (["read"], 1)
        assert calls > 1
    else:
        assert (sorted(map(str, talk.story)), calls) == (["read", "written"], 1)
    upper.close()
    other.close()


def test_bufferevent_filters(sockets: Halves) -> None:
    """Filters double and halve what passes between sockets."""
    double_and_halve(sockets, write_inside=False)


def test_bufferevent_pair_filters(halves: Halves) -> None:
    """And between the halves of a pair."""
    double_and_halve(halves, write_inside=False)


def test_bufferevent_filters_disable(sockets: Halves) -> None:
    """A filter that writes to its own bufferevent is not called in the middle of its call."""
    double_and_halve(sockets, write_inside=True)


def test_bufferevent_pair_filters_disable(halves: Halves) -> None:
    """The same over a pair."""
    double_and_halve(halves, write_inside=True)


def test_bufferevent_filter_data_stuck(backend_base: EventBase) -> None:
    """What a filter adds beyond the high watermark doesn't keep the rest from passing."""
    one, other = BufferEvent.pair(backend_base, CLOSE | DEFER)
    header = bytes(20)
    total = 0
    for half in (one, other):
        half.setwatermark(READ, 0, 4096)

    def with_header(
        source: Buffer, target: Buffer, limit: int | None, mode: FlushMode
    ) -> FilterResult:
        nonlocal header
        assert limit is not None
        room = limit - len(header)
        target.add(header)
        header = b""
        source.remove_buffer(target, min(len(source), room))
        return OK

    def on_read(bev: BufferEvent) -> None:
        nonlocal total
        size = len(bev.input)
        bev.input.drain(size)
        total += size

    bev = BufferEvent.filter(other, with_header, None, CLOSE | DEFER, on_read=on_read)
    bev.enable(READ | WRITE)
    bev.setwatermark(READ, 0, 4096)
    one.write(bytes(4096))
    backend_base.dispatch()
    assert total == 4096 + 20


def test_bufferevent_socket_filter_inactive(backend_base: EventBase) -> None:
    """A filter on a socket that isn't connected can be made and freed."""
    below = BufferEvent(backend_base, -1, NO_OPTION)
    bev = BufferEvent.filter(below, None, None, NO_OPTION)
    bev.close()
    below.close()


def test_bufferevent_zlib(sockets: Halves) -> None:
    """One end compresses, the other decompresses, by Python's zlib; the pieces come out whole."""
    talk = Talk()
    calls: list[Callable[..., object]] = []
    compressor, decompressor = zlib.compressobj(), zlib.decompressobj()
    flushing = {FLUSH: zlib.Z_SYNC_FLUSH, FINISHED: zlib.Z_FINISH}

    def deflate(source: Buffer, target: Buffer, _: int | None, mode: FlushMode) -> FilterResult:
        calls.append(deflate)
        target.add(compressor.compress(source.remove()))
        if mode in flushing:
            target.add(compressor.flush(flushing[mode]))
        return OK

    def inflate(source: Buffer, target: Buffer, _: int | None, mode: FlushMode) -> FilterResult:
        calls.append(inflate)
        target.add(decompressor.decompress(source.remove()))
        return OK

    one = BufferEvent.filter(sockets[0], None, deflate, CLOSE)
    other = BufferEvent.filter(sockets[1], inflate, None, CLOSE)
    for bev in (one, other):
        bev.setcb(talk.on_read, talk.on_write, talk.on_event)
    one.disable(READ)
    one.enable(WRITE)
    other.enable(READ)
    one.write(DATA[:1800])
    one.write(DATA[1800:])
    assert one.flush(WRITE, FINISHED) is True
    one.base.dispatch()
    assert set(calls) == {deflate, inflate}
    assert talk.story.count("read") == 1
    assert set(talk.story) == {"read", "written"}
