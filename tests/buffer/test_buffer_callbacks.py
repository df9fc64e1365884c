"""Who is told when a buffer changes, and what they may do then."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferCallback,
    BufferEvent,
    BufferEventOption,
    BufferInfo,
    ClosedError,
    EventBase,
    LoopFlag,
    errors,
    lib,
)
from libevent_py._core.dispatch import live
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import Pair, settle
from tests.kit.support import PATIENCE, run_python, shown


def recorded(buffer: Buffer) -> list[BufferInfo]:
    """Return a list that fills with what the buffer's callbacks are told."""
    told: list[BufferInfo] = []
    buffer.add_cb(lambda _, info: told.append(info))
    return told


def test_a_callback_is_told_of_every_change() -> None:
    buffer, other = Buffer(b"start"), Buffer(b"other")
    told = recorded(buffer)
    changes: list[tuple[Callable[[], object], BufferInfo]] = [
        (lambda: buffer.add(b"12"), BufferInfo(5, 2, 0)),
        (lambda: buffer.prepend(b"123"), BufferInfo(7, 3, 0)),
        (lambda: buffer.drain(4), BufferInfo(10, 0, 4)),
        (lambda: buffer.remove(1), BufferInfo(6, 0, 1)),
        (lambda: buffer.remove_into(bytearray(2)), BufferInfo(5, 0, 2)),
        (lambda: buffer.add_buffer(other), BufferInfo(3, 5, 0)),
        (lambda: buffer.remove_buffer(other, 6), BufferInfo(8, 0, 6)),
        (lambda: other.remove_buffer(buffer, 4), BufferInfo(2, 4, 0)),
        (lambda: buffer.prepend_buffer(other), BufferInfo(6, 2, 0)),
        (lambda: other.add_buffer(buffer), BufferInfo(8, 0, 8)),
        (lambda: buffer.add(b"line\r\nrest"), BufferInfo(0, 10, 0)),
        (buffer.readln, BufferInfo(10, 0, 6)),
    ]
    for change, info in changes:
        change()
        assert told == [info]
        told.clear()


def test_a_callback_is_not_told_where_nothing_changes() -> None:
    buffer, empty = Buffer(b"hello"), Buffer()
    told = recorded(buffer)
    buffer.add(b"")
    buffer.prepend(b"")
    buffer.drain(0)
    buffer.remove(0)
    buffer.remove_into(bytearray())
    buffer.add_buffer(empty)
    buffer.add_buffer(buffer)
    buffer.remove_buffer(empty, 0)
    buffer.readln()
    buffer.search(b"l")
    buffer.copyout()
    buffer.expand(100_000)
    assert told == []


def test_each_piece_of_a_vector_is_a_change() -> None:
    buffer = Buffer()
    told = recorded(buffer)
    buffer.add_iovec([b"one", b"", b"four"])
    assert told == [BufferInfo(0, 3, 0), BufferInfo(3, 4, 0)]


def test_a_callback_is_given_its_buffer_as_it_is_now() -> None:
    buffer = Buffer()
    seen: list[tuple[Buffer, bytes]] = []
    added = buffer.add_cb(lambda given, _: seen.append((given, bytes(given))))
    assert isinstance(added, BufferCallback)
    assert added.buffer is buffer
    buffer.add(b"hello")
    assert len(seen) == 1
    assert seen[0][0] is buffer
    assert seen[0][1] == b"hello"


def test_the_last_to_be_added_is_called_first() -> None:
    buffer = Buffer()
    order: list[int] = []
    for number in range(3):
        buffer.add_cb(lambda *_, number=number: order.append(number))
    buffer.add(b"x")
    assert order == [2, 1, 0]


def test_only_what_is_enabled_is_called() -> None:
    buffer = Buffer()
    calls: list[str] = []
    one = buffer.add_cb(lambda *_: calls.append("one"))
    other = buffer.add_cb(lambda *_: calls.append("other"))
    assert one.enabled
    one.enabled = False
    buffer.add(b"x")
    other.enabled = False
    buffer.add(b"x")
    one.enabled = True
    buffer.add(b"x")
    assert calls == ["other", "one"]
    assert (one.enabled, other.enabled) == (True, False)


def test_what_is_removed_is_called_no_more() -> None:
    buffer = Buffer()
    calls: list[str] = []
    one = buffer.add_cb(lambda *_: calls.append("one"))
    buffer.add_cb(lambda *_: calls.append("other"))
    one.remove()
    one.remove()
    assert one.buffer is None
    assert not one.enabled
    buffer.add(b"x")
    assert calls == ["other"]
    with pytest.raises(ClosedError, match="has been removed"):
        one.enabled = True


@pytest.mark.parametrize("bad", [None, 5, "text"], ids=shown)
def test_a_callback_must_be_callable(bad: Any) -> None:
    with pytest.raises(TypeError, match="callback must be callable"):
        Buffer().add_cb(bad)


def test_a_closed_buffer_takes_no_callback_and_ends_those_it_has() -> None:
    buffer = Buffer()
    callback = buffer.add_cb(print)
    buffer.close()
    with pytest.raises(ClosedError):
        buffer.add_cb(print)
    with pytest.raises(ClosedError):
        callback.enabled = False
    callback.remove()


def test_a_buffer_with_callbacks_goes_with_its_last_reference() -> None:
    class Callback:
        def __call__(self, *_: object) -> None:
            raise AssertionError

    gc.disable()
    try:
        callback = Callback()
        gone = weakref.ref(callback)
        buffer = Buffer()
        handle = buffer.add_cb(callback)
        del buffer, callback
        assert handle.buffer is None
        assert not handle.enabled
        handle.remove()
        del handle
        assert gone() is None
    finally:
        gc.enable()


def test_a_callback_may_be_a_cycle_with_its_buffer() -> None:
    class Counting(Buffer):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0
            self.add_cb(self.on_change)

        def on_change(self, _: Buffer, info: BufferInfo) -> None:
            self.count += info.n_added

    buffer = Counting()
    buffer += b"hello"
    assert buffer.count == 5
    gone = weakref.ref(buffer)
    del buffer
    gc.collect()
    assert gone() is None


# What callbacks raise.


@pytest.mark.parametrize(
    "change",
    [
        lambda buffer: buffer.add(b"x"),
        lambda buffer: buffer.prepend(b"x"),
        lambda buffer: buffer.drain(1),
        lambda buffer: buffer.remove(1),
        lambda buffer: buffer.remove_into(bytearray(1)),
        lambda buffer: buffer.remove_buffer(Buffer(), 1),
        lambda buffer: Buffer(b"xy").remove_buffer(buffer, 1),
        lambda buffer: Buffer().add_buffer(buffer),
        lambda buffer: buffer.add_buffer(Buffer(b"x")),
        lambda buffer: Buffer().prepend_buffer(buffer),
        lambda buffer: buffer.prepend_buffer(Buffer(b"x")),
        lambda buffer: buffer.add_iovec([b"x"]),
        lambda buffer: buffer.readln(),
        lambda buffer: buffer.__iadd__(b"x"),
    ],
)
def test_what_a_callback_raises_comes_out_of_what_was_called(change: Any) -> None:
    buffer = Buffer(b"hello\nworld")

    def fail(changed: Buffer, _: BufferInfo) -> None:
        assert bytes(changed) != b"hello\nworld"  # it has happened
        raise ZeroDivisionError

    callback = buffer.add_cb(fail)
    with pytest.raises(ZeroDivisionError):
        change(buffer)
    callback.remove()
    change(Buffer(b"hello\nworld"))


def test_the_others_are_called_when_one_has_raised() -> None:
    buffer = Buffer()

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    buffer.add_cb(fail)
    told = recorded(buffer)
    buffer.add_cb(fail)
    with pytest.raises(BaseException) as caught:
        buffer.add(b"x")
    assert told == [BufferInfo(0, 1, 0)]
    raised: Any = caught.value
    if sys.version_info >= (3, 11):
        assert [type(error) for error in raised.exceptions] == [ZeroDivisionError] * 2
    assert errors.entered.here.raised == []


def test_what_both_buffers_raise_comes_out() -> None:
    source, target = Buffer(b"hello"), Buffer()

    def fail_in_source(*_: object) -> None:
        raise ZeroDivisionError

    def fail_in_target(*_: object) -> None:
        raise LookupError

    source.add_cb(fail_in_source)
    target.add_cb(fail_in_target)
    with pytest.raises(BaseException) as caught:
        target.add_buffer(source)
    if sys.version_info >= (3, 11):
        raised: Any = caught.value
        kinds = {type(error) for error in raised.exceptions}
        assert kinds == {ZeroDivisionError, LookupError}
    assert bytes(target) == b"hello"
    assert not source


def test_what_a_callback_raises_in_the_loop_comes_out_of_its_own_call(base: EventBase) -> None:
    buffer = Buffer()

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    buffer.add_cb(fail)
    caught = []

    def ready(_fd: int, _what: int) -> None:
        try:
            buffer.add(b"x")
        except ZeroDivisionError as error:
            caught.append(error)

    base.once(ready)
    base.once(lambda *_: caught.append(None))  # type: ignore[arg-type]
    base.dispatch()
    assert len(caught) == 2


# What callbacks do to the buffer.


def test_a_callback_that_changes_the_buffer_is_called_for_that() -> None:
    buffer = Buffer()
    told = []

    def double(changed: Buffer, info: BufferInfo) -> None:
        told.append(info)
        if len(changed) < 4:
            changed.add(b"x")

    buffer.add_cb(double)
    buffer.add(b"x")
    assert told == [BufferInfo(n, 1, 0) for n in range(4)]


def test_a_callback_without_end_ends_where_python_does() -> None:
    run_python(
        """
        import threading
        from libevent_py import Buffer, EventBase, errors

        def endless(limit):
            buffer = Buffer()
            buffer.add_cb(lambda changed, _: changed.add(b"x"))
            try:
                buffer.add(b"x")
            except RecursionError:
                pass
            else:
                raise AssertionError
            assert len(buffer) > 50, len(buffer)
            assert errors.entered.here.raised == []

        def chained():
            one, other = Buffer(), Buffer()
            one.add_cb(lambda *_: other.add_buffer(one))
            other.add_cb(lambda *_: one.add_buffer(other))
            try:
                one.add(b"x")
            except Exception as error:  # with a callback of both in each turn, many of them
                assert isinstance(error, RecursionError) or hasattr(error, "exceptions")
            else:
                raise AssertionError
            assert len(one) + len(other) == 1
            assert errors.entered.here.raised == []

        endless(1000)
        chained()
        thread = threading.Thread(target=endless, args=(1000,))
        thread.start()
        thread.join()
        import sys
        sys.setrecursionlimit(3000)
        endless(3000)
        """
    )


def test_close_inside_a_callback_ends_the_others() -> None:
    buffer = Buffer(b"hello")
    calls = []

    def close(changed: Buffer, _: BufferInfo) -> None:
        calls.append(len(changed))
        changed.close()
        with pytest.raises(ClosedError):
            len(changed)

    buffer.add_cb(lambda *_: calls.append(-1))
    buffer.add_cb(close)
    buffer.add(b"x")
    assert calls == [6]
    assert buffer.closed


def test_the_result_is_that_of_the_call_whatever_the_callback_does() -> None:
    buffer = Buffer(b"one\ntwo\nthree\nfour")

    def greedy(changed: Buffer, _: BufferInfo) -> None:
        if changed:
            changed.remove(1)

    buffer.add_cb(greedy)
    assert buffer.readln() == b"one"
    assert not buffer


@VALGRIND_TAKES_LONG
def test_callbacks_may_do_anything_to_the_buffers_they_are_called_for(valgrind: bool) -> None:
    run_python(
        """
        import gc
        from libevent_py import Buffer, ClosedError, LibeventError

        SIZES = [5, 900, 5000]

        def content(size):
            return bytes(range(97, 123)) * (size // 26) + b"x" * (size % 26)

        def scattered(size):
            buffer = Buffer()
            for start in range(0, size, 700):
                with Buffer(content(min(700, size - start))) as piece:
                    buffer.add_buffer(piece)
            return buffer

        state, depth = {}, [0]

        def shallow(action):
            def act(b, i):
                if depth[0] < 3:
                    depth[0] += 1
                    try:
                        action(b, i)
                    finally:
                        depth[0] -= 1
            return act

        def drain(b, i):
            for name in "one", "other":
                if not state[name].closed:
                    state[name].drain(7)

        def drain_all(b, i):
            for name in "one", "other":
                if not state[name].closed:
                    state[name].drain(1_000_000)

        def copy(b, i):
            for name in "one", "other":
                if not state[name].closed:
                    size = len(state[name])
                    assert len(state[name].copyout()) == len(bytes(state[name])) == size

        def close(b, i):
            state["one"].close()
            state["other"].close()

        def drop(b, i):
            state.clear()
            state.update(one=Buffer(), other=Buffer())
            gc.collect()

        def swap(b, i):
            if not (state["one"].closed or state["other"].closed):
                state["one"].add_buffer(state["other"])

        def freeze(b, i):
            for name in "one", "other":
                if not state[name].closed:
                    state[name].freeze(True)
                    state[name].freeze(False)

        def remove(b, i):
            for callback in handles:
                callback.remove()

        def more(b, i):
            if not b.closed and len(handles) < 20:
                handles.append(b.add_cb(lambda *_: None))

        def enable(b, i):
            for callback in handles:
                if callback.buffer is not None and not callback.buffer.closed:
                    callback.enabled = not callback.enabled

        ACTIONS = [drain, drain_all, copy, close, drop, swap, freeze, remove, more, enable]

        CALLS = [
            lambda one, other: one.add(b"x" * 5000),
            lambda one, other: one.prepend(b"x" * 5000),
            lambda one, other: one.add_iovec([b"x" * 300] * 20),
            lambda one, other: one.remove_buffer(other, 3),
            lambda one, other: one.remove_buffer(other, 900),
            lambda one, other: one.remove_buffer(other, 100_000),
            lambda one, other: one.add_buffer(other),
            lambda one, other: one.prepend_buffer(other),
            lambda one, other: one.remove(3),
            lambda one, other: one.remove(100_000),
            lambda one, other: one.remove_into(bytearray(100)),
            lambda one, other: one.drain(900),
            lambda one, other: one.readln(),
        ]

        for size in SIZES:
            for call in CALLS:
                for first in ACTIONS:
                    one, other = scattered(size), scattered(size)
                    one.add(b"line\\n")
                    state.update(one=one, other=other)
                    handles = [
                        buffer.add_cb(shallow(action))
                        for action in (first, copy) for buffer in (one, other)
                    ]
                    del one, other
                    try:
                        call(state["one"], state["other"])
                    except ClosedError:
                        pass
                    except LibeventError as error:
                        assert "frozen" in str(error), error
                    except Exception as error:  # several of them
                        assert hasattr(error, "exceptions"), error
        """,
        valgrind=valgrind,
    )


def test_what_a_frozen_target_refuses_stays_where_it_was() -> None:
    source, target = Buffer(b"hello"), Buffer()

    def freeze(*_: object) -> None:
        target.freeze(False)
        source.freeze(True)

    source.add_cb(freeze)
    with pytest.raises(errors.LibeventError, match="frozen at its"):
        source.remove_buffer(target, 3)
    assert bytes(source) == b"hello"
    assert not target
    with pytest.raises(errors.LibeventError, match="the buffer is frozen at its front"):
        source.drain(1)


def test_a_callback_of_the_target_finds_the_source_whole() -> None:
    source, target = Buffer(b"hello"), Buffer()
    with Buffer(b", world") as rest:
        source.add_buffer(rest)
    seen = []

    def look(changed: Buffer, _: BufferInfo) -> None:
        seen.append((len(source), bytes(source), bytes(changed)))
        source.drain(1)

    target.add_cb(look)
    assert source.remove_buffer(target, 8) == 8
    assert seen == [(4, b"orld", b"hello, w")]
    assert bytes(source) == b"rld"


# Threads.


def test_two_threads_may_use_one_buffer_with_callbacks() -> None:
    buffer = Buffer()
    total = [0, 0]

    def count(_: Buffer, info: BufferInfo) -> None:  # below the buffer's lock
        total[0] += info.n_added
        total[1] += info.n_deleted

    buffer.add_cb(count)

    def work() -> None:
        for number in range(2000):
            buffer.add(b"x" * (number % 7))
            buffer.remove(number % 5)
            if number % 100 == 0:  # and another thread may come in between
                buffer.add_cb(lambda _buffer, _info: None).remove()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert total[0] == 3 * sum(number % 7 for number in range(2000))
    assert total[0] - total[1] == len(buffer)


@VALGRIND_TAKES_LONG
def test_close_waits_for_nobody_and_nobody_is_left_without_memory(valgrind: bool) -> None:
    run_python(
        """
        import threading
        from libevent_py import Buffer, ClosedError

        def use(buffer, barrier):
            barrier.wait()
            try:
                while True:
                    buffer.add(b"x" * 600)
                    buffer.search(b"y")
                    buffer.remove(300)
                    bytes(buffer)
                    buffer.readln()
            except ClosedError:
                pass

        for number in range(12):
            buffer = Buffer(b"x" * 10_000)
            if number % 2:
                buffer.add_cb(lambda *_: None)
            barrier = threading.Barrier(3)
            threads = [threading.Thread(target=use, args=(buffer, barrier)) for _ in range(2)]
            for thread in threads:
                thread.start()
            barrier.wait()
            buffer.close()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
        """,
        valgrind=valgrind,
    )


# A bufferevent's buffers.


def test_a_callback_of_a_bufferevents_buffer_stays_while_nobody_holds_it(
    base: EventBase, pair: Pair
) -> None:
    one, other = pair
    told: list[tuple[str, BufferInfo]] = []
    with BufferEvent(base, one.detach()) as bev:
        bev.input.add_cb(lambda _, info: told.append(("input", info)))
        bev.output.add_cb(lambda _, info: told.append(("output", info)))
        bev.enable(lib.EV_READ)
        gc.collect()
        bev.write(b"hello")
        other.send(b"hi")
        settle(base)
        assert told == [
            ("output", BufferInfo(0, 5, 0)),
            *sorted([("input", BufferInfo(0, 2, 0)), ("output", BufferInfo(5, 0, 5))])[::-1],
        ] or sorted(told) == sorted(
            [
                ("input", BufferInfo(0, 2, 0)),
                ("output", BufferInfo(0, 5, 0)),
                ("output", BufferInfo(5, 0, 5)),
            ]
        )
        held = [bev.input, bev.output]
    told.clear()
    settle(base)
    assert told == []
    assert all(buffer.closed for buffer in held)


@pytest.mark.parametrize("options", [0, BufferEventOption.EAGER], ids=["plain", "eager"])
def test_a_callback_sees_what_passes_an_eager_bufferevent_too(
    base: EventBase, pair: Pair, options: int
) -> None:
    one, other = pair
    told: list[int] = []
    options |= BufferEventOption.CLOSE_ON_FREE
    with BufferEvent(base, one.detach(), options) as bev:
        bev.on_read = lambda bev: bev.write(bev.read())
        bev.enable(lib.EV_READ)
        bev.output.add_cb(lambda _, info: told.append(info.n_added - info.n_deleted))
        other.send(b"hello")
        settle(base)
        assert other.recv(10) == b"hello"
    assert told == [5, -5]


def test_what_such_a_callback_raises_goes_where_the_bufferevents_own_goes(
    base: EventBase, pair: Pair
) -> None:
    one, other = pair
    taken: list[tuple[type[BaseException], object]] = []

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with BufferEvent(base, one.detach()) as bev:
        bev.input.add_cb(fail)
        bev.enable(lib.EV_READ)
        other.send(b"hello")
        with pytest.raises(ZeroDivisionError):
            base.dispatch()
        output = bev.output
        output.add_cb(fail)
        with pytest.raises(ZeroDivisionError):
            output.add(b"x")
        with pytest.raises(ZeroDivisionError):
            bev.write(b"x")
        base.on_error = lambda error, source: taken.append((type(error), source))
        bev.write(b"x")
        assert len(taken) == 1
        assert taken[0][0] is ZeroDivisionError
        assert taken[0][1] is output


def test_a_bufferevent_may_be_closed_in_a_callback_of_its_buffers(base: EventBase) -> None:
    run_python(
        """
        import gc, socket
        from libevent_py import BufferEvent, Buffer, EventBase, EventFlag, LoopFlag, ClosedError

        def attempt(act):
            base = EventBase()
            one, other = socket.socketpair()
            other.setblocking(False)
            bev = BufferEvent(base, one)
            bev.enable(EventFlag.READ)
            act(base, bev, other)
            for _ in range(3):
                base.loop(LoopFlag.NONBLOCK)
            base.close()
            other.close()
            gc.collect()

        def refused(call):
            try:
                call()
            except RuntimeError:
                return
            raise AssertionError

        def output(base, bev, other):
            bev.output.add_cb(lambda *_: bev.close())
            bev.output.add(b"hello" * 1000)

        def write(base, bev, other):
            bev.output.add_cb(lambda *_: bev.close())
            bev.write(b"hello" * 1000)

        def input(base, bev, other):
            bev.input.add_cb(lambda *_: bev.close())
            other.send(b"hello")

        def from_plain(base, bev, other):
            plain = Buffer(b"hello" * 1000)
            plain.add_cb(lambda *_: (bev.close(), refused(base.close)))
            bev.output.add_buffer(plain)

        def write_buffer(base, bev, other):
            plain = Buffer(b"hello" * 1000)
            plain.add_cb(lambda *_: (bev.close(), plain.close(), refused(base.close)))
            bev.write_buffer(plain)

        def to_plain(base, bev, other):
            other.send(b"hello" * 100)
            base.loop(LoopFlag.NONBLOCK)
            plain = Buffer()
            plain.add_cb(lambda *_: (bev.close(), plain.close(), refused(base.close)))
            assert bev.input.remove_buffer(plain, 50) == 50

        def moved(base, bev, other):
            other.send(b"hello" * 100)
            base.loop(LoopFlag.NONBLOCK)
            plain = Buffer()
            plain.add_cb(lambda *_: (bev.close(), refused(base.close)))
            plain.add_buffer(bev.input)
            assert len(plain) == 500

        def removed(base, bev, other):
            for _ in range(3):
                handles = [bev.output.add_cb(lambda *_: [h.remove() for h in handles])] * 3
                bev.write(b"x")

        for act in (output, write, input, from_plain, write_buffer, to_plain, moved, removed):
            attempt(act)
        """,
        valgrind=True,
    )


def test_a_bufferevents_callbacks_are_there_again_after_reinit() -> None:
    run_python(
        """
        import gc, os, socket
        from libevent_py import BufferEvent, EventBase, ForkError

        base = EventBase()
        one, other = socket.socketpair()
        bev = BufferEvent(base, one)
        told = []
        bev.output.add_cb(lambda _, info: told.append(info.n_added))
        child = os.fork()
        if not child:
            gc.collect()
            try:
                bev.output
            except ForkError:
                base.reinit()
            gc.collect()
            bev.write(b"hello")
            assert told == [5], told
            base.close()
            assert not bev._lent() or bev._lent()[0].closed
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        bev.write(b"hi")
        assert told == [2]
        bev.close()
        assert not base._live
        other.close()
        """
    )


def test_callbacks_that_come_and_go_leave_one_entry_in_a_bufferevent(
    base: EventBase, pair: Pair
) -> None:
    with BufferEvent(base, pair[0].detach()) as bev:
        entries = set()
        for _ in range(5):
            bev.output.add_cb(print).remove()
            entries.add(bev.output._entry)
            gc.collect()
        assert len(entries) == 1
    assert live.bases == ()
    base.loop(LoopFlag.NONBLOCK)
