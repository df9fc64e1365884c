"""A buffer whose callbacks an event base runs: it lives and ends with that base."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferInfo,
    ClosedError,
    EventBase,
    EventBaseFlag,
    EventConfig,
    LoopFlag,
    ThreadError,
    lib,
)
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import Pair, settle
from tests.kit.support import PATIENCE, run_python


def deferring(base: EventBase, data: bytes = b"") -> tuple[Buffer, list[BufferInfo]]:
    """Return a buffer that defers its callbacks to *base*, and a list of what they are told."""
    told: list[BufferInfo] = []
    buffer = Buffer(data)
    buffer.add_cb(lambda _, info: told.append(info))
    buffer.defer_callbacks(base)
    return buffer, told


def test_several_changes_are_told_at_once_and_in_the_loop(base: EventBase) -> None:
    buffer, told = deferring(base)
    buffer.add(b"hello")
    buffer.drain(2)
    buffer.add(b"!")
    assert told == []
    assert base.dispatch() is False
    assert told == [BufferInfo(0, 6, 2)]
    settle(base)
    assert len(told) == 1
    assert bytes(buffer) == b"llo!"


def test_it_is_still_the_buffer_that_it_was(base: EventBase) -> None:
    class Named(Buffer):
        def __init__(self, name: str) -> None:
            super().__init__(b"hello")
            self.name = name

    buffer = Named("x")
    buffer.defer_callbacks(base)
    assert isinstance(buffer, Named)
    assert (type(buffer).__name__, buffer.name, bytes(buffer)) == ("Named", "x", b"hello")
    assert repr(buffer).startswith("<Named at")
    with Buffer(b"!") as other:
        buffer.add_buffer(other)
        buffer.remove_buffer(other, 1)
        other.add_buffer(buffer)
        buffer.prepend_buffer(other)
    buffer.freeze(True)
    buffer.unfreeze(True)
    with buffer.lock():
        buffer.prepend(b"> ")
    assert bytes(buffer) == b"> hello!"
    buffer.close()
    buffer.close()
    assert buffer.closed
    with pytest.raises(ClosedError, match=r"^this Buffer is closed$"):
        len(buffer)


def test_callbacks_may_be_added_and_removed_later_too(base: EventBase) -> None:
    buffer = Buffer()
    buffer.defer_callbacks(base)
    buffer.add(b"before")
    told: list[BufferInfo] = []
    callback = buffer.add_cb(lambda _, info: told.append(info))
    buffer.add(b"x")
    settle(base)
    assert told == [BufferInfo(6, 1, 0)]
    callback.enabled = False
    buffer.add(b"x")
    settle(base)
    callback.enabled = True
    settle(base)
    assert len(told) == 1
    callback.remove()
    buffer.add(b"x")
    settle(base)
    assert len(told) == 1


def test_what_is_due_is_told_though_nobody_holds_the_buffer(base: EventBase) -> None:
    buffer, told = deferring(base)
    gone = weakref.ref(buffer)
    buffer.add(b"hello")
    del buffer
    gc.collect()
    assert gone() is not None
    base.dispatch()
    assert told == [BufferInfo(0, 5, 0)]
    gc.collect()
    assert gone() is None


def test_a_buffer_with_nothing_due_goes_with_its_last_reference(base: EventBase) -> None:
    gc.disable()
    try:
        buffer, told = deferring(base)
        buffer.add(b"hello")
        base.dispatch()
        buffer.drain(0)
        gone = weakref.ref(buffer)
        del buffer
        assert gone() is None
        assert len(told) == 1
    finally:
        gc.enable()


@pytest.mark.parametrize("how", ["none", "disabled", "removed", "disabled when due", "closed"])
def test_a_buffer_that_nobody_is_told_of_goes_at_once(base: EventBase, how: str) -> None:
    gc.disable()
    try:
        buffer = Buffer()
        callback = buffer.add_cb(print) if how != "none" else None
        buffer.defer_callbacks(base)
        if how == "disabled when due":
            buffer.add(b"hello")
        if callback is not None and how == "removed":
            callback.remove()
        elif callback is not None and how != "closed":
            callback.enabled = False
        buffer.add(b"hello")
        if how == "closed":
            buffer.close()
        gone = weakref.ref(buffer)
        del buffer
        assert gone() is None
        assert not base._live
    finally:
        gc.enable()


def test_what_a_callback_raises_comes_out_of_the_loop(base: EventBase) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    buffer = Buffer()
    buffer.add_cb(fail)
    buffer.defer_callbacks(base)
    buffer.add(b"x")
    with pytest.raises(ZeroDivisionError):
        base.dispatch()
    taken: list[Any] = []
    base.on_error = lambda error, source: taken.append((type(error), source is buffer))
    buffer.add(b"x")
    base.dispatch()
    assert taken == [(ZeroDivisionError, True)]


def test_a_callback_may_change_its_buffer_and_is_called_again(base: EventBase) -> None:
    told = []

    def more(buffer: Buffer, info: BufferInfo) -> None:
        told.append(info)
        if len(buffer) < 3:
            buffer.add(b"x")

    buffer = Buffer()
    buffer.add_cb(more)
    buffer.defer_callbacks(base)
    buffer.add(b"x")
    base.dispatch()
    assert told == [BufferInfo(n, 1, 0) for n in range(3)]


def test_the_buffer_ends_with_its_base() -> None:
    base = EventBase()
    buffer, told = deferring(base)
    buffer.add(b"hello")
    base.close()
    assert buffer.closed
    assert told == []
    with pytest.raises(ClosedError):
        buffer.add(b"x")
    buffer.close()


def test_callbacks_are_deferred_once_and_not_a_bufferevents(base: EventBase, pair: Pair) -> None:
    buffer, _ = deferring(base)
    with pytest.raises(RuntimeError, match="deferred already"):
        buffer.defer_callbacks(base)
    with BufferEvent(base, pair[0].detach()) as bev:
        with pytest.raises(RuntimeError, match="can't be"):
            bev.output.defer_callbacks(base)
        for change in (bev.input.freeze, bev.input.unfreeze):
            with pytest.raises(ValueError, match="by itself"):
                change(True)
    with pytest.raises(TypeError, match="base must be an EventBase"):
        Buffer().defer_callbacks(5)  # type: ignore[arg-type]
    closed = EventBase()
    closed.close()
    with pytest.raises(ClosedError, match="EventBase"):
        Buffer().defer_callbacks(closed)


def test_callbacks_are_not_deferred_where_any_run(base: EventBase) -> None:
    one, other = Buffer(), Buffer(b"x")
    one.add_cb(lambda *_: other.defer_callbacks(base))
    with pytest.raises(RuntimeError, match="inside a buffer's callback"):
        one.add_buffer(other)
    assert other._owner is None


def test_another_thread_may_not_use_it_while_the_loop_runs(base: EventBase) -> None:
    buffer, _ = deferring(base)
    raised: list[BaseException] = []

    def use() -> None:
        for call in (lambda: buffer.add(b"x"), lambda: len(buffer), buffer.close):
            try:
                call()
            except ThreadError as error:
                raised.append(error)

    def meanwhile(*_: object) -> None:
        thread = threading.Thread(target=use)
        thread.start()
        thread.join(PATIENCE)

    base.once(meanwhile)
    base.dispatch()
    assert len(raised) == 3
    use()  # now this thread is as good as any
    assert buffer.closed


@VALGRIND_TAKES_LONG
def test_another_thread_may_drop_it_while_the_loop_runs(valgrind: bool) -> None:
    run_python(
        """
        import gc, threading
        from libevent_py import Buffer, EventBase

        base = EventBase()
        told = []
        box = []
        for _ in range(50):
            buffer = Buffer(b"hello")
            buffer.add_cb(lambda _, info: told.append(info))
            buffer.defer_callbacks(base)
            box.append(buffer)
        del buffer
        for buffer in box[::2]:
            buffer.add(b"x")
        del buffer

        def drop():
            box.clear()
            gc.collect()
            base.loopexit(0.05)

        def begin(*_):
            threading.Thread(target=drop).start()

        base.once(begin)
        from libevent_py import LoopFlag
        base.loop(LoopFlag.NO_EXIT_ON_EMPTY)
        assert len(told) == 25
        assert not base._ledger, base._ledger
        base.close()
        """,
        valgrind=valgrind,
    )


def test_its_end_may_come_at_any_time() -> None:
    run_python(
        """
        import gc
        from libevent_py import Buffer, BufferEvent, ClosedError, EventBase, LoopFlag

        def made(base):
            buffer = Buffer(b"hello" * 1000)
            buffer.defer_callbacks(base)
            return buffer

        def refused(call):
            try:
                call()
            except RuntimeError:
                return
            raise AssertionError

        def in_its_callback(base, buffer):
            buffer.add_cb(lambda *_: None)
            buffer.add_cb(lambda b, _: (b.close(), b.close()))
            buffer.add(b"x")

        def in_its_callback_for_good(base, buffer):
            buffer.add_cb(lambda b, _: (b.close(), gc.collect()))
            buffer.add(b"x")
            del buffer

        def while_due(base, buffer):
            buffer.add_cb(print)
            buffer.add(b"x")
            buffer.close()

        def dropped_while_due(base, buffer):
            buffer.add_cb(lambda *_: None)
            buffer.add(b"x")

        def as_target(base, buffer):
            plain = Buffer(b"hello")
            plain.add_cb(lambda *_: (buffer.close(), refused(base.close)))
            buffer.add_buffer(plain)

        def as_source(base, buffer):
            plain = Buffer(b"hello")
            plain.add_cb(lambda *_: (buffer.close(), refused(base.close)))
            assert buffer.remove_buffer(plain, 777) == 777

        def as_source_of_all(base, buffer):
            plain = Buffer(b"hello")
            plain.add_cb(lambda *_: (buffer.close(), refused(base.close)))
            plain.add_buffer(buffer)

        def in_the_loop(base, buffer):
            plain = Buffer(b"hello")
            plain.add_cb(lambda *_: (buffer.close(), refused(base.close)))
            base.once(lambda *_: buffer.add_buffer(plain))
            base.once(lambda *_: plain.close())

        def locked(base, buffer):
            with buffer.lock():
                buffer.close()

        def base_locked(base, buffer):
            with buffer.lock():
                base.close()

        def removing(base, buffer):
            handles = [buffer.add_cb(lambda *_: [h.remove() for h in handles]) for _ in range(3)]
            buffer.add(b"x")

        def of_a_cycle(base, buffer):
            buffer.add_cb(lambda *_: base)
            buffer.add(b"x")
            cycle = [base, buffer]
            cycle.append(cycle)

        TRIES = [
            in_its_callback, in_its_callback_for_good, while_due, dropped_while_due, as_target,
            as_source, as_source_of_all, in_the_loop, locked, base_locked, removing, of_a_cycle,
        ]
        for attempt in TRIES:
            for end in ("run", "close", "drop", "run and close"):
                base = EventBase()
                attempt(base, made(base))
                if "run" in end and not base.closed:
                    for _ in range(3):
                        base.loop(LoopFlag.NONBLOCK)
                    assert not base._live, (attempt, base._live)
                if "close" in end:
                    base.close()
                del base
                gc.collect()
        """,
        valgrind=True,
    )


def test_in_a_forked_child_it_waits_for_reinit() -> None:
    run_python(
        """
        import os
        from libevent_py import Buffer, EventBase, ForkError

        base = EventBase()
        told = []
        buffer = Buffer(b"hello")
        buffer.add_cb(lambda _, info: told.append(info))
        buffer.defer_callbacks(base)
        plain = Buffer(b"plain")
        other = Buffer(b"other")
        other.defer_callbacks(base)
        buffer.add(b"!")
        for reinit in (False, True):
            child = os.fork()
            if not child:
                assert plain.remove() == b"plain"
                try:
                    len(buffer)
                except ForkError:
                    pass
                else:
                    os._exit(1)
                other.close()
                if reinit:
                    base.reinit()
                    buffer.add(b"?")
                    base.dispatch()
                    assert bytes(buffer) == b"hello!?", bytes(buffer)
                    assert len(told) == 1, told
                else:
                    buffer.close()
                base.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        base.dispatch()
        assert len(told) == 1
        """
    )


def test_a_base_without_locks_has_it_in_its_own_thread() -> None:
    with EventConfig(flags=EventBaseFlag.NOLOCK) as config:
        base = EventBase(config)
    with base:
        buffer, told = deferring(base)
        buffer.add(b"x")
        raised = []

        def use() -> None:
            try:
                buffer.add(b"x")
            except ThreadError as error:
                raised.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join(PATIENCE)
        assert len(raised) == 1
        base.dispatch()
        assert told == [BufferInfo(0, 1, 0)]


def test_the_pointer_is_for_the_raw_layer_here_too(base: EventBase) -> None:
    buffer, told = deferring(base)
    assert lib.evbuffer_add(buffer.pointer, b"raw", 3) == 0
    base.loop(LoopFlag.NONBLOCK)
    assert told == [BufferInfo(0, 3, 0)]
