"""BufferEventOption.EAGER: fewer ways through the kernel, and otherwise nobody notices."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    ClosedError,
    EventBase,
    LoopFlag,
    RateLimit,
    ThreadError,
)
from tests.kit.flags import READ, WRITE
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import Pair, exactly, reset, rest, run_until, settle, tcp_pair
from tests.kit.support import PATIENCE, run_python

EAGER = BufferEventOption.CLOSE_ON_FREE | BufferEventOption.EAGER
DEFERRED = EAGER | BufferEventOption.DEFER_CALLBACKS
LARGE = bytes(range(256)) * 4096  # a megabyte: more than goes at once


@pytest.fixture
def packets() -> Iterator[Pair]:
    """Two connected sockets that keep what is sent at once apart from what is sent after it."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        other.setblocking(False)
        yield one, other


def talk(base: EventBase, pair: Pair, on_read: Callable[[BufferEvent], object]) -> list[bytes]:
    """Send one message to an eager bufferevent; return the packets that come back in that turn."""
    bev = BufferEvent(base, pair[0], EAGER, on_read=on_read)
    bev.enable(READ)
    pair[1].send(b"message")
    base.loop(LoopFlag.ONCE)
    packets = []
    with contextlib.suppress(BlockingIOError):
        while packet := pair[1].recv(1 << 20):
            packets.append(packet)
    return packets


def test_what_a_callback_writes_is_sent_at_once_when_it_returns(
    base: EventBase, packets: Pair
) -> None:
    def on_read(bev: BufferEvent) -> None:
        assert bev.read() == b"message"
        for part in (b"one ", bytearray(b"two "), memoryview(b"three "), b"", b"four"):
            bev.write(part)
        with pytest.raises(BlockingIOError):
            packets[1].recv(100)

    assert talk(base, packets, on_read) == [b"one two three four"]


def test_all_kinds_of_bytes_are_sent_together_in_the_order_of_writing(
    base: EventBase, packets: Pair
) -> None:
    class Mine(bytes):
        pass

    def on_read(bev: BufferEvent) -> None:
        bev.read()
        for data in (b"a", bytearray(b"b"), b"c", memoryview(b"d"), Mine(b"e"), b"", b"f"):
            bev.write(data)

    assert talk(base, packets, on_read) == [b"abcdef"]


def test_an_object_whose_class_is_changed_meanwhile_reads_and_writes_on(
    base: EventBase, packets: Pair
) -> None:
    class Mine(BufferEvent):
        __slots__ = ()

    def on_read(bev: BufferEvent) -> None:
        bev.write(b"before, ")
        bev.__class__ = Mine
        bev.write(bev.read())

    assert talk(base, packets, on_read) == [b"before, message"]


def test_what_is_no_bufferevent_neither_reads_nor_writes() -> None:
    other: Any
    for other in (object(), 7, "text", EventBase):
        with pytest.raises(AttributeError, match="has no attribute"):
            BufferEvent.read(other)
        with pytest.raises(AttributeError, match="has no attribute"):
            BufferEvent.write(other, b"x")


def test_without_the_option_it_is_sent_in_the_next_turn(base: EventBase, packets: Pair) -> None:
    bev = BufferEvent(base, packets[0], on_read=lambda bev: bev.write(bev.read()))
    bev.enable(READ)
    packets[1].send(b"message")
    base.loop(LoopFlag.ONCE)
    with pytest.raises(BlockingIOError):
        packets[1].recv(100)


@pytest.mark.parametrize("option", ["THREADSAFE", "a watermark", "a limit", "a buffer's callback"])
def test_some_things_make_it_as_if_the_option_were_not_there(
    base: EventBase, packets: Pair, option: str
) -> None:
    threadsafe = BufferEventOption.THREADSAFE if option == "THREADSAFE" else 0

    def on_read(bev: BufferEvent) -> None:
        bev.write(bev.read())
        base.loopbreak()

    bev = BufferEvent(base, packets[0], EAGER | threadsafe, on_read=on_read)
    if option == "a watermark":
        bev.setwatermark(READ, 1, 0)
    elif option == "a limit":
        bev.rate_limit = RateLimit(1000, 1000, 1000, 1000)
    elif option == "a buffer's callback":
        bev.output.add_cb(lambda *_: None)
    bev.enable(READ)
    packets[1].send(b"message")
    base.dispatch()
    with pytest.raises(BlockingIOError):
        packets[1].recv(100)
    run_until(base, lambda: not bev.output)
    assert packets[1].recv(100) == b"message"


def test_all_that_the_kernel_has_comes_in_one_call(base: EventBase) -> None:
    calls = []
    one, other = socket.socketpair()
    with other:
        bev = BufferEvent(base, one, EAGER, on_read=lambda bev: calls.append(bev.read()))
        bev.enable(READ)
        other.send(LARGE[:100_000])
        base.loop(LoopFlag.ONCE)
        assert calls == [LARGE[:100_000]]
        bev.max_single_read = 10_000
        other.send(LARGE[:100_000])
        run_until(base, lambda: b"".join(calls) == LARGE[:100_000] * 2)
        assert {len(call) for call in calls[1:]} == {10_000}


@pytest.mark.parametrize("options", [EAGER, DEFERRED], ids=["eager", "deferred"])
def test_nothing_is_lost_or_swapped_in_a_long_talk(base: EventBase, options: int) -> None:
    one, other = tcp_pair()
    received = bytearray()

    def send() -> None:
        for start in range(0, len(LARGE), 7001):
            other.sendall(LARGE[start : start + 7001])
        other.shutdown(socket.SHUT_WR)

    def receive() -> None:
        received.extend(rest(other))

    with other:
        threads = [threading.Thread(target=send), threading.Thread(target=receive)]
        bev = BufferEvent(base, one, options, on_read=lambda bev: bev.write(bev.read()))
        bev.on_event = lambda bev, what: bev.close(flush=True)
        bev.enable(READ)
        for thread in threads:
            thread.start()
        run_until(base, lambda: not threads[1].is_alive())
        for thread in threads:
            thread.join(PATIENCE)
    assert received == LARGE


@pytest.mark.parametrize("options", [EAGER, DEFERRED], ids=["eager", "deferred"])
def test_what_a_callback_does_not_read_stays(base: EventBase, pair: Pair, options: int) -> None:
    seen: list[Any] = []

    def on_read(bev: BufferEvent) -> None:
        assert bev.read(0) == b""
        seen.append((bev.read(2), len(bev.input), bytes(bev.input)))

    bev = BufferEvent(base, pair[0].detach(), options, on_read=on_read)
    bev.enable(READ)
    pair[1].send(b"abcdef")
    run_until(base, lambda: len(seen) == 1)
    pair[1].send(b"ghi")
    run_until(base, lambda: len(seen) == 2)
    assert seen == [(b"ab", 4, b"cdef"), (b"cd", 5, b"efghi")]
    bev.on_read = lambda bev: seen.append(bev.read())
    pair[1].send(b"!")
    run_until(base, lambda: len(seen) == 3)
    assert seen[2] == b"efghi!"
    bev.on_read = None
    pair[1].send(b"for nobody")
    run_until(base, lambda: len(bev.input) == 10)
    assert bev.read() == b"for nobody"


def test_a_callback_that_reads_nothing_finds_it_later(base: EventBase, pair: Pair) -> None:
    calls: list[BufferEvent] = []
    bev = BufferEvent(base, pair[0].detach(), EAGER, on_read=calls.append)
    bev.enable(READ)
    for part in (b"one ", b"two ", b"three"):
        pair[1].send(part)
        before = len(calls)
        run_until(base, lambda before=before: len(calls) > before)  # type: ignore[misc]
    assert bytes(bev.input) == bev.read() == b"one two three"


def test_buffers_that_are_held_show_all_that_belongs_there(base: EventBase, packets: Pair) -> None:
    bev = BufferEvent(base, packets[0], EAGER)
    got, put = bev.input, bev.output
    target = Buffer()

    def on_read(bev: BufferEvent) -> None:
        assert len(got) == 7
        assert got.readln() is None
        bev.write(b"one ")
        assert bytes(put) == b"one "
        bev.write(b"two ")
        put.add(b"three ")
        bev.write(b"four ")
        bev.write_buffer(Buffer(b"five "))
        bev.read_buffer(target)
        bev.write(target.remove())
        assert bytes(put) == b"one two three four five message"

    bev.on_read = on_read
    bev.enable(READ)
    packets[1].send(b"message")
    base.loop(LoopFlag.ONCE)
    assert packets[1].recv(100) == b"one two three four five message"
    assert not put


def test_more_than_the_arena_holds_goes_out_in_order(base: EventBase) -> None:
    one, other = tcp_pair()

    def on_read(bev: BufferEvent) -> None:
        bev.read()
        for part in (b"before", LARGE, b"between", LARGE, b"after"):
            bev.write(part)
        bev.on_write = BufferEvent.close

    with other:
        bev = BufferEvent(base, one, EAGER, on_read=on_read)
        bev.enable(READ)
        other.send(b"go")
        received = []
        reader = threading.Thread(target=lambda: received.append(rest(other)))
        reader.start()
        run_until(base, lambda: not reader.is_alive())
        reader.join(PATIENCE)
    assert received == [b"before" + LARGE + b"between" + LARGE + b"after"]


@pytest.mark.parametrize("options", [EAGER, DEFERRED], ids=["eager", "deferred"])
def test_the_write_callback_comes_when_all_is_sent(base: EventBase, options: int) -> None:
    told = []
    one, other = socket.socketpair()
    with other:
        bev = BufferEvent(base, one, options, on_write=lambda _: told.append("written"))
        bev.on_read = lambda bev: (told.append("read"), bev.write(bev.read()))
        bev.enable(READ)
        settle(base)
        told.clear()
        other.send(b"short")
        run_until(base, lambda: len(told) == 2)
        assert told == ["read", "written"]
        bev.on_read = lambda bev: (bev.read(), bev.write(LARGE))
        other.send(b"go")
        settle(base)
        assert told == ["read", "written"]
        assert bev.output
        received = exactly(other, 5)
        while len(received) < 5 + len(LARGE):
            received += other.recv(1 << 20)
            base.loop(LoopFlag.NONBLOCK)
        settle(base)
        assert received == b"short" + LARGE
        assert told == ["read", "written", "written"]


def test_what_is_written_before_closing_is_dropped_as_libevent_does(
    base: EventBase, packets: Pair
) -> None:
    def on_read(bev: BufferEvent) -> None:
        bev.write(b"dropped")
        bev.close()
        with pytest.raises(ClosedError):
            bev.write(b"refused")
        with pytest.raises(ClosedError):
            bev.read()

    assert talk(base, packets, on_read) == []
    settle(base)
    assert packets[1].recv(10) == b""


def test_what_a_callback_raises_loses_neither_input_nor_output(
    base: EventBase, packets: Pair
) -> None:
    def on_read(bev: BufferEvent) -> None:
        bev.write(b"written")
        raise KeyError("on_read")

    bev = BufferEvent(base, packets[0], EAGER, on_read=on_read)
    bev.enable(READ)
    packets[1].send(b"message")
    with pytest.raises(KeyError, match="on_read"):
        base.dispatch()
    assert packets[1].recv(100) == b"written"
    assert bev.read() == b"message"
    bev.write(b"later")
    settle(base)
    assert packets[1].recv(100) == b"later"


def test_writing_may_be_disabled_in_the_callback(base: EventBase, packets: Pair) -> None:
    def on_read(bev: BufferEvent) -> None:
        bev.write(b"one")
        assert bev.enabled == READ | WRITE
        bev.write(b" two")
        bev.disable(WRITE)
        assert bev.enabled == READ
        bev.write(b" three" + bev.read())

    bev = BufferEvent(base, packets[0], EAGER, on_read=on_read)
    bev.enable(READ)
    packets[1].send(b"!")
    settle(base)
    assert bytes(bev.output) == b"one two three!"
    with pytest.raises(BlockingIOError):
        packets[1].recv(100)
    bev.enable(WRITE)
    settle(base)
    assert packets[1].recv(100) == b"one two three!"


@pytest.mark.parametrize("change", ["watermark", "limit", "callback", "setcb", "trigger", "flush"])
def test_what_makes_it_less_eager_may_come_in_the_callback(
    base: EventBase, pair: Pair, change: str
) -> None:
    def on_read(bev: BufferEvent) -> None:
        bev.write(b"[")
        if change == "watermark":
            bev.setwatermark(READ, 0, 1000)
        elif change == "limit":
            bev.rate_limit = RateLimit(1000, 1000, 1000, 1000)
        elif change == "callback":
            bev.output.add_cb(lambda *_: None)
        elif change == "setcb":
            bev.setcb(on_read, None, None)
        elif change == "trigger":
            bev.trigger(WRITE)
        else:
            bev.flush(READ | WRITE)
        bev.write(bev.read() + b"]")

    bev = BufferEvent(base, pair[0].detach(), EAGER, on_read=on_read)
    bev.enable(READ)
    received = b""
    for part in (b"one", b"two", b"three"):
        pair[1].send(part)
        run_until(base, lambda: bev.output or not bev.input)
        settle(base)
        received += pair[1].recv(100)
    assert received == b"[one][two][three]"


def test_another_descriptor_may_be_set_in_the_callback(base: EventBase) -> None:
    first, first_peer = socket.socketpair()
    second, second_peer = socket.socketpair()

    def on_read(bev: BufferEvent) -> None:
        bev.write(b"sent to the second: " + bev.read())
        if bev.fd != second_fd:
            bev.fd = second

    second_fd = second.fileno()
    with first_peer, second_peer:
        bev = BufferEvent(base, first, EAGER, on_read=on_read)
        bev.enable(READ)
        first_peer.send(b"one")
        settle(base)
        second_peer.send(b" two")
        settle(base)
        assert second_peer.recv(100) == b"sent to the second: onesent to the second:  two"
        assert first_peer.recv(100) == b""
        bev.close()
        settle(base)


def test_callbacks_inside_callbacks_have_their_own_data(base: EventBase) -> None:
    one, one_peer = socket.socketpair()
    two, two_peer = socket.socketpair()
    far, far_peer = socket.socketpair()
    with one_peer, two_peer, far_peer, EventBase() as other_base:
        inner = BufferEvent(base, two, EAGER)
        distant = BufferEvent(other_base, far, EAGER)

        def on_read(bev: BufferEvent) -> None:
            bev.write(b"<")
            inner.trigger(READ)
            other_base.loop(LoopFlag.ONCE)
            bev.write(bev.read() + b">")

        inner.on_read = lambda bev: bev.write(b"inner" + bev.read())
        distant.on_read = lambda bev: bev.write(b"distant " + bev.read())
        distant.enable(READ)
        outer = BufferEvent(base, one, EAGER, on_read=on_read)
        outer.enable(READ)
        far_peer.send(b"far")
        one_peer.send(b"outer")
        settle(base)
        assert one_peer.recv(100) == b"<outer>"
        assert two_peer.recv(100) == b"inner"
        assert far_peer.recv(100) == b"distant far"
        inner.close()
        outer.close()
        settle(base)


def test_its_own_trigger_inside_its_callback_sees_the_rest(base: EventBase, pair: Pair) -> None:
    seen = []

    def on_read(bev: BufferEvent) -> None:
        seen.append(bev.read(3))
        if len(seen) < 3:
            bev.trigger(READ)
        bev.write(b"%d" % len(seen))

    bev = BufferEvent(base, pair[0].detach(), EAGER, on_read=on_read)
    bev.enable(READ)
    pair[1].send(b"abcdefg")
    settle(base)
    assert seen == [b"abc", b"def", b"g"]
    assert pair[1].recv(10) == b"333"


def test_a_relay_may_write_to_the_other_one(base: EventBase) -> None:
    left, left_peer = socket.socketpair()
    right, right_peer = socket.socketpair()
    with left_peer, right_peer:
        a = BufferEvent(base, left, EAGER)
        b = BufferEvent(base, right, EAGER)
        a.on_read = lambda bev: b.write(bev.read())
        b.on_read = lambda bev: a.output.add_buffer(bev.input)
        a.enable(READ)
        b.enable(READ)
        left_peer.send(b"to the right")
        right_peer.send(b"to the left")
        settle(base)
        assert right_peer.recv(100) == b"to the right"
        assert left_peer.recv(100) == b"to the left"
        a.close()
        b.close()
        settle(base)


def test_the_end_comes_after_the_data(base: EventBase) -> None:
    told: list[object] = []
    one, other = socket.socketpair()
    bev = BufferEvent(base, one, EAGER, on_read=lambda bev: told.append(len(bev.read())))
    bev.on_event = lambda _, what: told.append(what)
    bev.enable(READ)
    other.sendall(LARGE[:50_000])
    other.close()
    run_until(base, lambda: len(told) == 2)
    assert told == [50_000, BufferEventFlag.EOF | BufferEventFlag.READING]
    assert bev.enabled == WRITE


def test_a_reset_is_told_with_its_reason(base: EventBase) -> None:
    told = []
    one, other = tcp_pair()
    bev = BufferEvent(base, one, EAGER, on_read=lambda bev: bev.read())
    bev.on_event = lambda bev, what: told.append((what, bev.error))
    bev.enable(READ)
    reset(other)
    run_until(base, lambda: told)
    [(what, error)] = told
    assert what == BufferEventFlag.ERROR | BufferEventFlag.READING
    assert isinstance(error, ConnectionResetError)
    assert bev.enabled == WRITE


def test_a_write_that_fails_is_told(base: EventBase) -> None:
    told = []
    one, other = socket.socketpair()

    def on_read(bev: BufferEvent) -> None:
        other.close()
        bev.write(bev.read())

    bev = BufferEvent(base, one, EAGER, on_read=on_read)
    bev.on_event = lambda bev, what: told.append((what, bev.error))
    bev.enable(READ)
    other.send(b"message")
    run_until(base, lambda: any(what & BufferEventFlag.WRITING for what, _ in told))
    error = next(error for what, error in told if what & BufferEventFlag.WRITING)
    assert error is not None
    assert error.errno == errno.EPIPE


def test_a_silent_peer_times_out(base: EventBase, pair: Pair) -> None:
    told = []
    bev = BufferEvent(base, pair[0].detach(), EAGER, on_read=lambda bev: bev.read())
    bev.on_event = lambda _, what: told.append(what)
    bev.set_timeouts(0.01, None)
    bev.enable(READ)
    pair[1].send(b"message")
    run_until(base, lambda: told)
    assert told == [BufferEventFlag.TIMEOUT | BufferEventFlag.READING]


def test_another_thread_is_refused_also_inside_the_callback(base: EventBase, pair: Pair) -> None:
    refused = []

    def intrude(bev: BufferEvent) -> None:
        for call in (bev.read, lambda: bev.write(b"x"), lambda: bev.input, lambda: bev.output):
            try:
                call()
            except ThreadError:
                refused.append(call)

    def on_read(bev: BufferEvent) -> None:
        thread = threading.Thread(target=intrude, args=(bev,))
        thread.start()
        thread.join(PATIENCE)
        bev.write(bev.read())

    bev = BufferEvent(base, pair[0].detach(), EAGER, on_read=on_read)
    bev.enable(READ)
    pair[1].send(b"message")
    settle(base)
    assert len(refused) == 4
    assert pair[1].recv(100) == b"message"


def test_a_child_that_is_forked_in_the_callback_touches_nothing(base: EventBase) -> None:
    one, other = socket.socketpair()

    def on_read(bev: BufferEvent) -> None:
        bev.write(b"parent and not child: ")
        if os.fork() == 0:
            os._exit(0)
        os.wait()
        bev.write(bev.read())

    with other:
        bev = BufferEvent(base, one, EAGER, on_read=on_read)
        bev.enable(READ)
        other.send(b"message")
        settle(base)
        assert other.recv(100) == b"parent and not child: message"
        bev.close()
        settle(base)


@pytest.mark.parametrize("reads", [False, True])
def test_a_child_that_comes_back_from_the_callback_sends_nothing(reads: bool) -> None:
    run_python(
        f"""
        import os, socket
        from libevent_py import *
        base = EventBase()
        one, other = socket.socketpair()
        children = []

        def on_read(bev):
            if {reads}:
                bev.read()
            bev.write(b"once")
            children.append(os.fork())
            if children[-1]:
                assert os.waitpid(children[-1], 0)[1] == 0

        BufferEvent(base, one, 1 | BufferEventOption.EAGER, on_read=on_read).enable(EventFlag.READ)
        other.send(b"message")
        try:
            base.loop(LoopFlag.NONBLOCK)
        except ForkError:
            os._exit(children[-1] != 0)
        other.setblocking(False)
        assert other.recv(100) == b"once"
        base.close()
        other.close()
        """
    )


@VALGRIND_TAKES_LONG
def test_no_memory_is_misused_whatever_the_callback_does(valgrind: bool) -> None:
    run_python(
        """
        import gc, os, socket
        from libevent_py import *

        EAGER = BufferEventOption.CLOSE_ON_FREE | BufferEventOption.EAGER
        DEFER = BufferEventOption.DEFER_CALLBACKS
        told = []

        def filtered(bev):
            told.append(BufferEvent.filter(bev, None, None))
            told[-1].write(b"through the filter")

        def again(bev):
            bev.write(b"x" * 300_000)
            bev.trigger(EventFlag.READ | EventFlag.WRITE)

        def detach(bev):
            bev.write(b"x")
            os.close(bev.detach())

        def fail(bev):
            bev.write(b"x")
            raise KeyError

        actions = [
            BufferEvent.close,
            lambda bev: (bev.write(b"x"), bev.close()),
            lambda bev: (bev.read(), bev.write(b"x" * 1_000_000), bev.close(flush=True)),
            lambda bev: (bev.input, bev.close()),
            lambda bev: (bev.output, bev.write(b"x"), bev.output.add(b"y"), bev.close()),
            lambda bev: bev.setcb(None, None, None),
            lambda bev: bev.base.loopbreak(),
            lambda bev: gc.collect(),
            filtered, detach, fail, again,
        ]
        for options in (EAGER, EAGER | DEFER):
            for end in range(3):
                for action in actions:
                    depth = 0
                    def on_read(bev, action=action):
                        global depth
                        depth += 1
                        if depth < 3:
                            action(bev)
                    base = EventBase()
                    a, b = socket.socketpair()
                    bev = BufferEvent(base, a, options, on_read=on_read)
                    if end == 1:
                        bev.on_write = BufferEvent.close
                    bev.on_event = lambda bev, what: bev.close()
                    bev.enable(EventFlag.READ)
                    b.sendall(b"x" * 50_000)
                    try:
                        base.loop(LoopFlag.NONBLOCK | LoopFlag.ONCE)
                        b.close()
                        base.loop(LoopFlag.NONBLOCK)
                    except (KeyError, ValueError):
                        pass
                    told.clear()
                    if end == 2:
                        del base, bev
                        gc.collect()
                    else:
                        base.close()
                    b.close()
        """,
        valgrind=valgrind,
    )
