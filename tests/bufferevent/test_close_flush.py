"""BufferEvent.close(flush=True): what has been written goes out before the end."""

from __future__ import annotations

import gc
import os
import socket
import zlib

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    ClosedError,
    EventBase,
    FilterResult,
    FlushMode,
    RateLimit,
    RateLimitGroup,
)
from tests.kit.certificates import HOST, Authority
from tests.kit.flags import CLOSE, READ
from tests.kit.peers import Pair, is_open, reset, rest, run_until, settle, tcp_pair
from tests.kit.support import run_python
from tests.kit.tls_peers import client_context, server_context

#: More than the kernel takes at once.
MUCH = b"0123456789abcdef" * (1 << 18)

OPTIONS = [
    CLOSE,
    CLOSE | BufferEventOption.DEFER_CALLBACKS,
    CLOSE | BufferEventOption.THREADSAFE,
    CLOSE | BufferEventOption.EAGER,
]


def drained(base: EventBase, peer: socket.socket) -> bytes:
    """Return all that comes to *peer* until the end, while the loop runs."""
    peer.setblocking(False)
    received = []

    def receive() -> bool:
        try:
            received.append(peer.recv(1 << 20))
        except BlockingIOError:
            return False
        return received[-1] == b""

    run_until(base, receive)
    return b"".join(received)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_has_been_written_is_sent_before_the_descriptor_is_closed(
    base: EventBase, options: int
) -> None:
    one, peer = tcp_pair()
    with peer:
        bev = BufferEvent(base, one, options)
        fd = bev.fd
        bev.write(MUCH)
        bev.close(flush=True)
        assert bev.closed
        assert is_open(fd)
        with pytest.raises(ClosedError):
            bev.write(b"more")
        del bev
        gc.collect()
        assert drained(base, peer) == MUCH
        settle(base)
        assert not is_open(fd)
    assert not base._live


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_inside_a_callback_too(base: EventBase, options: int) -> None:
    one, peer = tcp_pair()

    def on_read(bev: BufferEvent) -> None:
        bev.write(bev.read() * (len(MUCH) // 4))
        bev.write(b"the end")
        bev.close(flush=True)
        bev.close()

    with peer:
        BufferEvent(base, one, options, on_read=on_read).enable(READ)
        peer.send(b"echo")
        assert drained(base, peer) == b"echo" * (len(MUCH) // 4) + b"the end"
    settle(base)
    assert not base._live


def test_without_output_it_is_closed_at_once(base: EventBase, pair: Pair) -> None:
    bev = BufferEvent(base, pair[0].detach())
    bev.close(flush=True)
    assert bev.closed
    assert not base._live
    bev.close(flush=True)


def test_nobody_is_called_back_any_more(base: EventBase) -> None:
    def never(*_: object) -> None:
        raise AssertionError("called")

    one, peer = tcp_pair()
    with peer:
        bev = BufferEvent(base, one, on_read=never, on_write=never, on_event=never)
        bev.enable(READ)
        bev.write(MUCH)
        output = bev.output
        bev.close(flush=True)
        assert output.closed
        assert drained(base, peer) == MUCH


def test_a_peer_that_goes_ends_it(base: EventBase) -> None:
    one, peer = tcp_pair()
    bev = BufferEvent(base, one)
    bev.write(MUCH)
    bev.close(flush=True)
    settle(base)
    assert base._live
    reset(peer)
    run_until(base, lambda: not base._live)


def test_a_peer_that_never_reads_holds_it_until_the_timeout(base: EventBase) -> None:
    one, peer = tcp_pair()
    with peer:
        bev = BufferEvent(base, one)
        bev.set_timeouts(None, 0.05)
        bev.write(MUCH)
        bev.close(flush=True)
        assert base._live
        run_until(base, lambda: not base._live)


def test_a_connection_that_is_being_made_gets_the_output(base: EventBase) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        bev = BufferEvent(base)
        bev.connect(server.getsockname())
        bev.write(b"hello")
        bev.close(flush=True)
        base.dispatch()
        with server.accept()[0] as peer:
            assert rest(peer) == b"hello"


def test_a_descriptor_that_is_the_users_stays_open(base: EventBase) -> None:
    one, peer = tcp_pair()
    with one, peer:
        bev = BufferEvent(base, one, BufferEventOption(0))
        bev.write(b"hello")
        bev.close(flush=True)
        base.dispatch()
        one.sendall(b" world")
        assert peer.recv(100, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == b"hello world"


def test_the_other_half_of_a_pair_gets_the_data_and_the_end(base: EventBase) -> None:
    told = []
    one, other = BufferEvent.pair(base)
    other.setcb(None, None, lambda _, what: told.append(what))
    one.write(b"before the other reads")
    one.close(flush=True)
    settle(base)
    assert one.closed
    other.enable(READ)
    settle(base)
    assert other.read() == b"before the other reads"
    assert told == [BufferEventFlag.EOF | BufferEventFlag.READING]
    other.close()
    settle(base)
    assert not base._live


@pytest.mark.parametrize("how", ["never had one", "detached", "TLS", "filter"])
def test_without_a_descriptor_it_is_closed_at_once(
    base: EventBase, authority: Authority, how: str
) -> None:
    one, peer = tcp_pair()
    with one, peer:
        if how == "TLS":
            bev = BufferEvent.tls(base, -1, client_context(authority), server_hostname=HOST)
        else:
            bev = BufferEvent(base, one if how == "detached" else -1, BufferEventOption(0))
        if how == "filter":
            bev = BufferEvent.filter(bev, None, None)
        bev.write(b"for nobody")
        if how == "detached":
            os.close(bev.detach())
        bev.close(flush=True)
        assert bev.closed
        assert not base._live


@pytest.mark.parametrize("result", [FilterResult.NEED_MORE, FilterResult.ERROR])
def test_a_filter_that_lets_nothing_pass_at_the_end_is_closed_all_the_same(
    base: EventBase, result: FilterResult
) -> None:
    def stubborn(source: Buffer, destination: Buffer, *_: object) -> FilterResult:
        destination.add(source.remove(4))
        return result

    one, peer = tcp_pair()
    with peer:
        bev = BufferEvent.filter(BufferEvent(base, one), None, stubborn)
        bev.write(MUCH)
        bev.close(flush=True)
        assert bev.closed
        assert drained(base, peer) == MUCH[:8]
    settle(base)
    assert not base._live


def test_what_a_filter_raises_at_the_end_is_no_reason_to_stay_open(base: EventBase) -> None:
    def failing(source: Buffer, destination: Buffer, _: object, mode: int) -> FilterResult:
        if mode != FlushMode.FINISHED:
            return FilterResult.NEED_MORE
        raise ZeroDivisionError

    one, peer = tcp_pair()
    with peer:
        below = BufferEvent(base, one)
        bev = BufferEvent.filter(below, None, failing)
        bev.write(b"hello")
        with pytest.raises(ZeroDivisionError):
            bev.close(flush=True)
        assert bev.closed
        assert below.closed
        assert drained(base, peer) == b""
    assert not base._live


def test_a_filter_is_told_that_it_is_finished_and_all_goes_through(base: EventBase) -> None:
    packer = zlib.compressobj()

    def compress(source: Buffer, destination: Buffer, _: object, mode: int) -> FilterResult:
        destination.add(packer.compress(source.remove()))
        if mode == FlushMode.FINISHED:
            destination.add(packer.flush())
        return FilterResult.OK

    one, peer = tcp_pair()
    with peer:
        bev = BufferEvent.filter(BufferEvent(base, one), None, compress)
        bev.write(MUCH)
        bev.close(flush=True)
        assert bev.closed
        assert zlib.decompress(drained(base, peer)) == MUCH
    settle(base)
    assert not base._live


def test_what_a_filter_stood_on_writes_all_before_it_is_closed(base: EventBase) -> None:
    def double(source: Buffer, destination: Buffer, *_: object) -> FilterResult:
        destination.add(source.remove() * 2)
        return FilterResult.OK

    one, peer = tcp_pair()
    with peer:
        below = BufferEvent(base, one)
        bev = BufferEvent.filter(below, None, double)
        bev.write(MUCH)
        bev.close(flush=True)
        assert below.closed
        assert drained(base, peer) == MUCH * 2
    settle(base)
    assert not base._live


def test_limits_still_count(base: EventBase) -> None:
    one, peer = tcp_pair()
    with peer, RateLimitGroup(base, RateLimit(write_rate=1 << 22, tick=0.01)) as group:
        bev = BufferEvent(base, one)
        bev.rate_limit = RateLimit(write_rate=1 << 21, tick=0.01)
        bev.add_to_rate_limit_group(group)
        bev.write(MUCH)
        bev.close(flush=True)
        assert drained(base, peer) == MUCH
        settle(base)
        assert group.totals().written == len(MUCH)


def test_tls_ends_as_tls_does(base: EventBase, authority: Authority) -> None:
    told = []
    one, other = tcp_pair()
    server = BufferEvent.tls(base, one, server_context(authority))
    client = BufferEvent.tls(
        base,
        other,
        client_context(authority),
        server_hostname=HOST,
        on_event=lambda _, what: told.append(what),
    )
    client.enable(READ)
    server.write(MUCH)
    server.close(flush=True)
    received = Buffer()
    client.on_read = lambda bev: bev.read_buffer(received)
    run_until(base, lambda: len(told) == 2)
    assert told == [BufferEventFlag.CONNECTED, BufferEventFlag.EOF | BufferEventFlag.READING]
    assert bytes(received) == MUCH
    client.close()
    settle(base)
    assert not base._live


def test_a_base_that_is_closed_first_drops_it(base: EventBase) -> None:
    one, peer = tcp_pair()
    with peer:
        bev = BufferEvent(base, one)
        fd = bev.fd
        bev.write(MUCH)
        bev.close(flush=True)
        base.close()
        assert not is_open(fd)


def test_no_memory_is_misused_in_any_order() -> None:
    run_python(
        """
        import gc, socket
        from libevent_py import *
        MUCH = b"x" * (1 << 22)
        for options in (1, 1 | 4, 1 | 2, 1 | BufferEventOption.EAGER):
            for order in range(4):
                base = EventBase()
                a, b = socket.socketpair()
                bev = BufferEvent(base, a, options)
                top = BufferEvent.filter(bev, None, None) if order % 2 else bev
                top.write(MUCH)
                held = top.output
                top.close(flush=True)
                if order < 2:
                    b.close()
                base.loop(LoopFlag.NONBLOCK)
                if order == 3:
                    del base, bev, top, held
                    gc.collect()
                else:
                    base.close()
                b.close()
        """,
        valgrind=True,
    )


def test_a_half_whose_other_is_closed_has_nobody_to_write_for(base: EventBase) -> None:
    for cover in (lambda bev: bev, lambda bev: BufferEvent.filter(bev, None, None)):
        one, other = BufferEvent.pair(base)
        top = cover(one)
        top.write(b"for nobody")
        other.close()
        top.close(flush=True)
        settle(base)
        assert top.closed
        assert one.closed
        assert not base._live
