"""`BufferEvent.on_data`: a callback that gets bytes, and whose bytes are written."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
import weakref
from collections.abc import Callable, Iterator

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventOption,
    ClosedError,
    EventBase,
    LoopFlag,
)
from tests.kit.certificates import Authority
from tests.kit.flags import READ, WRITE
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import run_until, settle
from tests.kit.support import run_python
from tests.kit.tls_peers import connected_ends

PLAIN = BufferEventOption.CLOSE_ON_FREE
EAGER = PLAIN | BufferEventOption.EAGER
DEFERRED = BufferEventOption.DEFER_CALLBACKS
KINDS = [PLAIN, EAGER, PLAIN | DEFERRED, EAGER | DEFERRED]
LARGE = bytes(range(256)) * 4096  # a megabyte: more than goes at once

#: A bufferevent, and how its peer sends, and gets what has come.
Ends = tuple[BufferEvent, Callable[[bytes], object], Callable[[], bytes]]


#: Makes a bufferevent with options, reading, with a socket as its peer.
Make = Callable[[EventBase, int], Ends]


@pytest.fixture
def ends() -> Iterator[Make]:
    with contextlib.ExitStack() as stack:

        def make(base: EventBase, options: int) -> Ends:
            one, other = socket.socketpair()
            stack.enter_context(other)
            other.setblocking(False)
            bev = BufferEvent(base, one, options)
            bev.enable(READ)

            def come() -> bytes:
                try:
                    return other.recv(1 << 20)
                except BlockingIOError:
                    return b""

            return bev, other.send, come

        yield make


def received(base: EventBase, come: Callable[[], bytes], size: int) -> bytes:
    """Run the loop until *size* bytes have come."""
    got = bytearray()

    def enough() -> bool:
        got.extend(come())
        return len(got) >= size

    run_until(base, enough)
    return bytes(got)


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_it_returns_is_written(base: EventBase, options: int, kind: type, ends: Make) -> None:
    bev, send, come = ends(base, options)
    bev.on_data = lambda bev, data: kind(data.upper())
    for message in b"one", b"two":
        send(message)
        assert received(base, come, 3) == message.upper()
    assert not bev.input


@pytest.mark.parametrize("options", KINDS)
def test_nothing_is_written_when_it_returns_none_or_nothing(
    base: EventBase, options: int, ends: Make
) -> None:
    got = []
    bev, send, come = ends(base, options)
    bev.on_data = lambda bev, data: got.append(data) or (b"" if len(got) > 1 else None)
    send(b"one")
    run_until(base, lambda: got)
    send(b"two")
    run_until(base, lambda: len(got) > 1)
    settle(base)
    assert got == [b"one", b"two"]
    assert come() == b""


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("size", [1, 8_000, 9_000, 300_000, len(LARGE)])
def test_all_of_it_comes_whatever_its_size(
    base: EventBase, options: int, size: int, ends: Make
) -> None:
    bev, send, come = ends(base, options)
    bev.on_data = lambda bev, data: LARGE[:size]
    send(b"?")
    assert received(base, come, size) == LARGE[:size]


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("first", [b"", b"first", LARGE[:20_000], LARGE])
@pytest.mark.parametrize("then", [b"", b"then", LARGE[:20_000]])
@pytest.mark.parametrize("last", [None, b"last", LARGE[:20_000]])
def test_what_was_written_before_goes_before(
    base: EventBase, options: int, first: bytes, then: bytes, last: bytes | None, ends: Make
) -> None:
    def on_data(bev: BufferEvent, data: bytes) -> bytes | None:
        bev.write(first)
        bev.write(then)
        return last

    bev, send, come = ends(base, options)
    bev.on_data = on_data
    send(b"?")
    wanted = first + then + (last or b"")
    got = received(base, come, len(wanted))
    assert (len(got), got == wanted) == (len(wanted), True)
    send(b"?")
    assert received(base, come, len(wanted)) == wanted


@pytest.mark.parametrize("options", KINDS)
def test_what_is_not_bytes_is_refused(base: EventBase, options: int, ends: Make) -> None:
    bev, send, come = ends(base, options)
    bev.on_data = lambda bev, data: "text"  # type: ignore[assignment,return-value]
    send(b"?")
    with pytest.raises(TypeError, match="on_data must return bytes or None, not 'text'"):
        base.dispatch()
    assert come() == b""
    assert not bev.input


@pytest.mark.parametrize("options", KINDS)
def test_with_other_parameters_it_is_told_how_it_is_called(
    base: EventBase, options: int, ends: Make
) -> None:
    bev, send, _ = ends(base, options)
    bev.on_data = lambda bev: None  # type: ignore[assignment]
    send(b"?")
    with pytest.raises(TypeError, match=r"it is called as on_data\(bev, data\)"):
        base.dispatch()


@pytest.mark.parametrize("options", KINDS)
def test_a_read_callback_with_other_parameters_is_told_too(
    base: EventBase, options: int, ends: Make
) -> None:
    bev, send, _ = ends(base, options)
    bev.on_read = lambda: None  # type: ignore[assignment]
    send(b"?")
    with pytest.raises(TypeError, match=r"it is called as on_read\(bev\)"):
        base.dispatch()


@pytest.mark.parametrize("options", KINDS)
def test_it_stands_in_the_place_of_on_read(base: EventBase, options: int, ends: Make) -> None:
    def on_data(bev: BufferEvent, data: bytes) -> None: ...

    bev, _, _ = ends(base, options)
    assert bev.on_data is None
    bev.on_data = on_data
    assert bev.on_data is on_data
    assert bev.on_read is not None
    bev.on_read = print
    assert bev.on_data is None
    bev.on_data = on_data
    bev.on_data = None
    assert bev.on_read is None
    with pytest.raises(TypeError, match="on_data must be callable, not 1"):
        bev.on_data = 1


@pytest.mark.parametrize("options", KINDS)
def test_it_is_not_called_without_input(base: EventBase, options: int, ends: Make) -> None:
    calls = []
    bev, _, _ = ends(base, options)
    bev.on_data = lambda bev, data: calls.append(data)
    bev.trigger(READ)
    settle(base)
    assert calls == []


@pytest.mark.parametrize("options", KINDS)
def test_it_gets_what_was_there_before_it(base: EventBase, options: int, ends: Make) -> None:
    calls: list[bytes] = []
    bev, send, come = ends(base, options)
    send(b"before")
    run_until(base, lambda: bev.input)
    bev.on_data = lambda bev, data: calls.append(data) or data
    bev.trigger(READ)
    send(b" and after")
    assert received(base, come, 16) == b"before and after"
    assert b"".join(calls) == b"before and after"


@pytest.mark.parametrize("options", KINDS)
def test_the_input_is_empty_inside_it(base: EventBase, options: int, ends: Make) -> None:
    def on_data(bev: BufferEvent, data: bytes) -> bytes:
        seen.append((len(bev.input), bev.read(), bytes(bev.output)))
        return data

    seen: list[tuple[int, bytes, bytes]] = []
    bev, send, come = ends(base, options)
    bev.on_data = on_data
    send(b"?")
    assert received(base, come, 1) == b"?"
    assert seen == [(0, b"", b"")]


@pytest.mark.parametrize("options", KINDS)
def test_what_is_written_while_writing_is_disabled_waits(
    base: EventBase, options: int, ends: Make
) -> None:
    def on_data(bev: BufferEvent, data: bytes) -> bytes:
        bev.write(b"written ")
        bev.disable(WRITE)
        return b"returned"

    bev, send, come = ends(base, options)
    bev.on_data = on_data
    send(b"?")
    run_until(base, lambda: bev.output)
    settle(base)
    assert (come(), bytes(bev.output)) == (b"", b"written returned")
    bev.enable(WRITE)
    assert received(base, come, 16) == b"written returned"


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("answer", [b"small", LARGE])
def test_bytes_of_one_that_it_has_closed_can_not_be_written(
    base: EventBase, options: int, answer: bytes, ends: Make
) -> None:
    def on_data(bev: BufferEvent, data: bytes) -> bytes:
        bev.close()
        return answer

    bev, send, _ = ends(base, options)
    bev.on_data = on_data
    send(b"?")
    with pytest.raises(ClosedError):
        base.dispatch()
    assert bev.closed


@pytest.mark.parametrize("options", KINDS)
def test_what_it_raises_comes_out_of_the_loop_and_the_data_is_its_own(
    base: EventBase, options: int, ends: Make
) -> None:
    def on_data(bev: BufferEvent, data: bytes) -> bytes:
        bev.write(b"written")
        raise KeyError(data)

    bev, send, come = ends(base, options)
    bev.on_data = on_data
    send(b"message")
    with pytest.raises(KeyError, match="message"):
        base.dispatch()
    assert received(base, come, 7) == b"written"
    assert not bev.input


@pytest.mark.parametrize("options", KINDS)
def test_it_may_be_replaced_inside_itself(base: EventBase, options: int, ends: Make) -> None:
    def first(bev: BufferEvent, data: bytes) -> bytes:
        bev.on_data = lambda bev, data: b"second " + data
        return b"first " + data

    bev, send, come = ends(base, options)
    bev.on_data = first
    send(b"a")
    assert received(base, come, 7) == b"first a"
    send(b"b")
    assert received(base, come, 8) == b"second b"


@pytest.mark.parametrize("options", KINDS)
def test_it_may_run_the_loop(base: EventBase, options: int, ends: Make) -> None:
    """Another one's data comes meanwhile, and each has its own."""

    def on_data(bev: BufferEvent, data: bytes) -> bytes:
        send(b"inner")
        with EventBase() as inside:
            other, to_other, from_other = ends(inside, options)
            other.on_data = lambda bev, data: data.upper()
            to_other(data)
            return b"<" + received(inside, from_other, len(data)) + b">"

    _, send, _ = ends(base, options)
    bev, to_bev, from_bev = ends(base, options)
    bev.on_data = on_data
    to_bev(b"outer")
    assert received(base, from_bev, 7) == b"<OUTER>"


def test_pairs_and_filters_have_it(base: EventBase) -> None:
    left, right = BufferEvent.pair(base)
    top = BufferEvent.filter(right, None, None)
    for bev in left, top:
        bev.enable(READ)
    got: list[bytes] = []
    top.on_data = lambda bev, data: data.upper()
    left.on_data = lambda bev, data: got.append(data)
    left.write(b"through both")
    run_until(base, lambda: got)
    assert got == [b"THROUGH BOTH"]


def test_tls_has_it(base: EventBase, authority: Authority) -> None:
    one, other = connected_ends(base, authority)
    got: list[bytes] = []
    one.bev.on_data = lambda bev, data: got.append(data)
    other.bev.on_data = lambda bev, data: data.upper()
    one.bev.write(b"secret")
    run_until(base, lambda: got)
    assert got == [b"SECRET"]


@pytest.mark.parametrize("options", KINDS)
def test_one_that_is_dropped_with_its_callback_goes(options: int, ends: Make) -> None:
    class Kept: ...

    base = EventBase()
    bev, _, _ = ends(base, options)
    kept = Kept()
    gone = weakref.ref(kept)
    bev.on_data = lambda _, data, kept=kept, bev=bev: data
    del kept, bev, base
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("options", KINDS)
def test_a_large_answer_is_not_kept(base: EventBase, options: int, ends: Make) -> None:
    answer = LARGE[:20_000]
    before = sys.getrefcount(answer)
    bev, send, come = ends(base, options)
    bev.on_data = lambda bev, data: answer
    send(b"?")
    received(base, come, 20_000)
    bev.on_data = None
    assert sys.getrefcount(answer) == before


@pytest.mark.parametrize("comes_back", [False, True])
@pytest.mark.parametrize("size", [4, 20_000])
def test_a_forked_child_sends_nothing(base: EventBase, comes_back: bool, size: int) -> None:
    run_python(
        f"""
        import os, socket
        from libevent_py import BufferEvent, BufferEventOption, EventBase, EventFlag, ForkError
        one, other = socket.socketpair()
        base = EventBase()
        bev = BufferEvent(base, one, 1 | BufferEventOption.EAGER)
        bev.enable(EventFlag.READ)

        def on_data(bev, data):
            bev.write(b"from one ")
            if os.fork() == 0:
                if not {comes_back}:
                    os._exit(0)
            else:
                assert os.wait()[1] == 0
            return data * ({size} // 4)

        bev.on_data = on_data
        other.send(b"data")
        try:
            base.turn(10)
        except ForkError:
            os._exit(0)
        other.setblocking(False)
        got = b""
        while len(got) < 9 + {size}:
            got += other.recv(1 << 20)
            base.turn(0)
        assert got == b"from one " + b"data" * ({size} // 4)
        try:
            raise AssertionError(other.recv(100))
        except BlockingIOError:
            base.close()
            other.close()
        """
    )


def test_a_child_that_has_made_the_base_its_own_sends(base: EventBase, ends: Make) -> None:
    bev, send, come = ends(base, EAGER)

    def on_data(bev: BufferEvent, data: bytes) -> bytes:
        pid = os.fork()
        if pid == 0:
            base.reinit()
            return b"child "
        os.waitpid(pid, 0)
        return b"parent"

    bev.on_data = on_data
    send(b"?")
    pid = os.getpid()
    try:
        base.loop(LoopFlag.ONCE)
    finally:
        if os.getpid() != pid:
            os._exit(0)
    assert received(base, come, 12) == b"child parent"


@VALGRIND_TAKES_LONG
def test_no_memory_is_misused_whatever_it_does(valgrind: bool) -> None:
    run_python(
        """
        import gc, os, socket
        from libevent_py import *

        def detach(bev):
            os.close(bev.detach())

        def replace(bev):
            bev.on_data = lambda bev, data: data * 2

        def cycle(bev):
            bev.on_data = lambda _, data, bev=bev: data

        def fail(bev):
            raise KeyError

        actions = [
            BufferEvent.close, detach, replace, cycle, fail,
            lambda bev: bev.close(flush=True),
            lambda bev: bev.base.close(),
            lambda bev: bev.base.loopbreak(),
            lambda bev: bev.setcb(None, None, None),
            lambda bev: bev.write(b"x" * 300_000),
            lambda bev: bev.disable(EventFlag.READ | EventFlag.WRITE),
            lambda bev: BufferEvent.filter(bev, None, None),
            lambda bev: bev.trigger(EventFlag.READ | EventFlag.WRITE),
            lambda bev: gc.collect(),
        ]
        answers = None, b"small", b"x" * 20_000, bytearray(b"y" * 20_000), b"z" * 300_000, "text"
        for options in (BufferEventOption.EAGER, BufferEventOption.EAGER | 4):
            for action in actions:
                for answer in answers:
                    base = EventBase()
                    a, b = socket.socketpair()
                    bev = BufferEvent(base, a, 1 | options)

                    def on_data(bev, data):
                        action(bev)
                        return answer

                    bev.on_data = on_data
                    bev.enable(EventFlag.READ)
                    b.sendall(b"x" * 50_000)
                    del bev
                    try:
                        base.loop(LoopFlag.NONBLOCK | LoopFlag.ONCE)
                        b.close()
                        base.loop(LoopFlag.NONBLOCK)
                    except (KeyError, TypeError, ValueError, RuntimeError, ClosedError):
                        pass
                    b.close()
                    base.close()
                    gc.collect()
        """,
        valgrind=valgrind,
    )


@pytest.mark.parametrize("returns", [False, True])
@pytest.mark.parametrize("size", [4_000, 5_000_000])
def test_without_memory_for_what_the_socket_does_not_take_it_is_told(
    size: int, returns: bool
) -> None:
    run_python(f"""
        import socket
        from libevent_py import *
        from libevent_py import debug
        debug.count_memory()
        answer, told = b"x" * {size}, []

        def on_data(bev, data):
            if {returns}:
                return answer
            bev.write(answer)

        one, other = socket.socketpair()
        other.setblocking(False)
        with EventBase() as base, other:
            bev = BufferEvent(base, one, 1 | BufferEventOption.EAGER)
            bev.on_data = on_data
            bev.on_event = lambda bev, what: told.append(what)
            bev.enable(EventFlag.READ)
            base.loop(LoopFlag.NONBLOCK)
            other.send(b"?")
            raised = []
            with debug.FailingMemory(1, onwards=True):
                try:
                    base.loop(LoopFlag.NONBLOCK)
                except MemoryError as error:
                    raised.append(error)
            if {size} > 1_000_000:
                assert told == [BufferEventFlag.WRITING | BufferEventFlag.ERROR], told
                assert "got no memory in the loop" in str(*raised)
            else:
                assert (told, raised) == ([], [])
                assert other.recv(2 * {size}) == answer
    """)
