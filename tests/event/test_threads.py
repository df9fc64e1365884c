"""A base in a thread of its own, and calls from other threads: `in_thread` and `call`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    ClosedError,
    Event,
    EventBase,
    EventBaseFlag,
    EventConfig,
    LoopFlag,
    ThreadError,
)
from tests.kit.flags import READ
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import PATIENCE, run_python


@pytest.fixture
def base() -> Iterator[EventBase]:
    with EventBase() as base:
        yield base


def fails() -> None:
    raise ValueError("no")


def me() -> int:
    return threading.get_ident()


def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


# Calls.


def test_a_call_runs_on_the_base_s_thread_and_its_result_comes_back(base: EventBase) -> None:
    with base.in_thread() as thread:
        assert base.call(me).result(PATIENCE) == thread.ident != me()
        assert base.call(divmod, 17, 5).result(PATIENCE) == (3, 2)
        made = base.call(BufferEvent.pair, base).result(PATIENCE)
        with pytest.raises(ThreadError):
            made[0].write(b"x")
    assert base.call(me).done() is False
    made[0].close()
    made[1].close()


def test_what_a_call_raises_is_the_future_s_alone(base: EventBase) -> None:
    told: list[object] = []
    base.on_error = lambda error, _: told.append(error)
    with base.in_thread():
        future = base.call(fails)
        assert isinstance(future.exception(PATIENCE), ValueError)
        with pytest.raises(ValueError, match="no"):
            future.result(PATIENCE)
        with pytest.raises(asyncio.CancelledError):
            base.call(lambda: exec("raise E", {"E": asyncio.CancelledError})).result(PATIENCE)
        assert base.call(me).result(PATIENCE)
    assert not told


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_reaches_the_future_and_the_loop_once(
    base: EventBase, kind: type[BaseException]
) -> None:
    def ends() -> None:
        raise kind("enough")

    future = base.call(ends)
    after = base.call(me)
    with pytest.raises(kind, match="enough"):
        base.dispatch()
    assert isinstance(future.exception(0), kind)
    assert not after.done()
    base.dispatch()
    assert after.result(0) == me()


def test_the_order_is_that_of_the_calls_and_of_defer(base: EventBase) -> None:
    order: list[int] = []
    with base.in_thread():
        for number in range(0, 300, 2):
            base.call(order.append, number)
            base.defer(order.append, number + 1)
    assert order == list(range(300))


def test_a_call_can_be_cancelled_until_it_is_made(base: EventBase) -> None:
    began, goes_on, made = threading.Event(), threading.Event(), list[int]()

    def waits() -> None:
        began.set()
        assert goes_on.wait(PATIENCE)

    with base.in_thread():
        first, second, third = base.call(waits), base.call(made.append, 2), base.call(me)
        assert began.wait(PATIENCE)
        assert second.cancel() and not first.cancel()
        goes_on.set()
        assert third.result(PATIENCE)
        with pytest.raises(concurrent.futures.CancelledError):
            second.result(PATIENCE)
        done, _ = concurrent.futures.wait([first, second], PATIENCE)
    assert done == {first, second} and not made


def test_a_call_from_the_base_s_own_thread_is_made_later_and_cannot_be_waited_for(
    base: EventBase,
) -> None:
    def asks() -> concurrent.futures.Future[int]:
        future = base.call(me)
        assert not future.done()
        for wait in (future.result, future.exception):
            with pytest.raises(RuntimeError, match=r"loop of this very thread.*add_done_callback"):
                wait(PATIENCE)
        cancelled = base.call(me)
        cancelled.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            cancelled.result()
        return future

    with base.in_thread() as thread:
        assert base.call(asks).result(PATIENCE).result(PATIENCE) == thread.ident


def test_a_base_that_its_owner_runs_makes_calls_too(base: EventBase) -> None:
    results: list[object] = []

    def ask() -> None:
        results.append(base.call(me).result(PATIENCE))
        base.loopexit()

    thread = threading.Thread(target=ask)
    thread.start()
    base.loop(LoopFlag.NO_EXIT_ON_EMPTY)
    thread.join(PATIENCE)
    assert results == [me()]


def test_a_call_may_be_awaited_on_another_loop(base: EventBase) -> None:
    async def ask() -> int:
        return await asyncio.wait_for(asyncio.wrap_future(base.call(me)), PATIENCE)

    with base.in_thread() as thread:
        assert asyncio.run(ask()) == thread.ident


def test_what_a_call_was_made_with_is_freed_when_it_is_over(base: EventBase) -> None:
    class Thing:
        def method(self) -> None:
            raise ValueError

    thing = Thing()
    gone = weakref.ref(thing)
    gc.collect()
    gc.disable()
    try:
        with base.in_thread():
            future = base.call(thing.method)
            concurrent.futures.wait([future], PATIENCE)
            base.call(int).result(PATIENCE)
        del thing
        assert gone() is not None  # the traceback has it
        future_gone = weakref.ref(future)
        del future
        assert gone() is None and future_gone() is None
    finally:
        gc.enable()


def test_a_call_needs_a_function_and_an_open_base(base: EventBase) -> None:
    with pytest.raises(TypeError, match="function must be callable"):
        base.call(1)  # type: ignore[arg-type]
    base.close()
    with pytest.raises(ClosedError):
        base.call(me)


def test_after_a_break_the_rest_of_what_waits_is_left_for_the_next_loop(base: EventBase) -> None:
    base.call(base.loopbreak)
    after = base.call(me)
    deferred: list[int] = []
    base.defer(deferred.append, 1)
    base.dispatch()
    assert not after.done() and not deferred
    base.dispatch()
    assert after.done() and deferred


# The end of a base on which calls wait.


@pytest.mark.parametrize("end", ["close", "drop"])
def test_calls_that_wait_fail_when_the_base_ends(end: str) -> None:
    base = EventBase()
    told: list[object] = []
    calls = [base.call(me) for _ in range(3)]
    calls[1].cancel()
    for call in calls:
        call.add_done_callback(told.append)
    if end == "close":
        base.close()
    del base
    gc.collect()
    assert sorted(map(id, told)) == sorted(map(id, calls))
    with pytest.raises(ClosedError, match="closed before its loop came to this call"):
        calls[0].result(0)
    assert calls[1].cancelled()
    assert concurrent.futures.wait(calls, 0).not_done == set()


def test_whoever_is_told_of_the_end_may_use_the_base(base: EventBase) -> None:
    refused: list[object] = []

    def told(_: object) -> None:
        with pytest.raises(ClosedError) as caught:
            base.call(me)
        refused.append(caught.value)
        base.close()

    for _ in range(3):
        base.call(me).add_done_callback(told)
    base.defer(me)
    base.close()
    assert len(refused) == 3


def test_an_interrupt_while_calls_are_told_of_the_end_leaves_none_untold() -> None:
    base = EventBase()
    calls = [base.call(me) for _ in range(3)]

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    calls[1].add_done_callback(interrupted)
    with pytest.raises(KeyboardInterrupt):
        base.close()
    base.close()
    assert base.closed and all(isinstance(call.exception(0), ClosedError) for call in calls)


def test_what_a_done_callback_raises_beyond_exceptions_comes_out_of_the_loop(
    base: EventBase,
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    future = base.call(me)
    future.add_done_callback(interrupted)
    with pytest.raises(KeyboardInterrupt):
        base.dispatch()
    assert future.result(0) == me()


# The thread.


def test_the_base_is_the_thread_s_in_the_block_and_the_block_s_own_afterwards(
    base: EventBase,
) -> None:
    with base.in_thread() as thread:
        for use in (base.events, base.dispatch, base.take_over):
            with pytest.raises(ThreadError):
                use()
        assert thread.is_alive() and "running in another thread" in repr(base)
    assert not thread.is_alive()
    assert base.events() == []
    with base.in_thread() as second:
        assert base.call(me).result(PATIENCE) == second.ident


def test_what_is_on_the_base_runs_in_the_thread(base: EventBase) -> None:
    fired: list[int] = []
    Event.timer(base, lambda *_: fired.append(me())).add(0.001)
    here, there = socket.socketpair()
    with here, there, base.in_thread() as thread:
        reads = base.call(lambda: Event(base, here, READ, lambda *_: fired.append(me())).add())
        reads.result(PATIENCE)
        there.send(b"x")
        until(lambda: len(fired) == 2)
    assert fired == [thread.ident] * 2


def test_a_signal_event_made_before_fires_in_the_thread(base: EventBase) -> None:
    fired = threading.Event()
    with Event.signal(base, signal.SIGUSR1, lambda *_: fired.set()).add(), base.in_thread():
        signal.raise_signal(signal.SIGUSR1)
        assert fired.wait(PATIENCE)


def test_calls_made_before_the_end_of_the_block_are_made(base: EventBase) -> None:
    with base.in_thread():
        futures = [base.call(time.sleep, 0.001) for _ in range(20)]
    assert all(future.done() for future in futures)


def test_an_exception_in_the_block_does_not_wait_for_calls(base: EventBase) -> None:
    began, goes_on = threading.Event(), threading.Event()

    def waits() -> None:
        began.set()
        assert goes_on.wait(PATIENCE)

    base.defer(waits)
    with pytest.raises(ZeroDivisionError), base.in_thread():
        late = base.call(me)
        assert began.wait(PATIENCE)
        threading.Timer(0.05, goes_on.set).start()
        raise ZeroDivisionError
    assert not late.done()
    base.dispatch()
    assert late.result(0) == me()


def test_what_comes_out_of_the_loop_comes_out_of_the_block(base: EventBase) -> None:
    with pytest.raises(ValueError, match="no"), base.in_thread():
        base.defer(fails)
    with pytest.raises(ValueError, match="no") as caught, base.in_thread() as thread:
        base.defer(fails)
        thread.join(PATIENCE)
        with pytest.raises(ThreadError, match=r"own thread has ended with ValueError\('no'\)"):
            base.call(me)
        raise ZeroDivisionError
    assert isinstance(caught.value.__context__, ZeroDivisionError)
    with pytest.raises(KeyboardInterrupt) as interrupt, base.in_thread() as thread:
        base.defer(fails)
        thread.join(PATIENCE)
        raise KeyboardInterrupt
    assert isinstance(interrupt.value.__context__, ValueError)


def test_what_reaches_the_block_by_a_future_is_raised_once(base: EventBase) -> None:
    def ends() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught, base.in_thread():
        base.call(ends).result(PATIENCE)
    assert caught.value.code == 3 and caught.value.__context__ is None


@pytest.mark.parametrize("how", ["an exception", "a break"])
def test_calls_that_wait_when_the_loop_ends_by_itself_fail(base: EventBase, how: str) -> None:
    began, goes_on = threading.Event(), threading.Event()

    def ends() -> None:
        began.set()
        assert goes_on.wait(PATIENCE)
        if how == "an exception":
            raise ValueError
        base.loopbreak()

    expected = pytest.raises(ValueError) if how == "an exception" else contextlib.nullcontext()
    with expected, base.in_thread() as thread:
        base.defer(ends)
        assert began.wait(PATIENCE)
        waiting = base.call(me)
        goes_on.set()
        with pytest.raises(ThreadError, match="own thread has ended"):
            waiting.result(PATIENCE)
        thread.join(PATIENCE)
        with pytest.raises(ThreadError, match="own thread has ended"):
            base.call(me)
        base.defer(me)  # which waits for the next loop, whoever runs it
    again = base.call(me)
    base.dispatch()
    assert again.result(0) == me()


def test_with_an_on_error_the_thread_goes_on(base: EventBase) -> None:
    told: list[object] = []
    base.on_error = lambda error, _: told.append(type(error))
    with base.in_thread() as thread:
        base.defer(fails)
        assert base.call(me).result(PATIENCE) == thread.ident
    assert told == [ValueError]


def test_a_second_thread_is_refused(base: EventBase) -> None:
    refused: list[object] = []

    def again() -> None:
        with pytest.raises(RuntimeError, match="runs in a thread of its own already"):
            base.in_thread().__enter__()
        refused.append(1)

    with base.in_thread():
        again()
        base.call(again).result(PATIENCE)
        threads = [threading.Thread(target=again) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert len(refused) == 5


def test_a_block_that_its_own_thread_leaves_ends_without_waiting_for_itself(
    base: EventBase,
) -> None:
    """That thread waited for its own end, for ever."""
    block = base.in_thread()
    thread = block.__enter__()

    def leave() -> concurrent.futures.Future[int]:
        future = base.call(me)
        block.__exit__(None, None, None)
        return future

    assert base.call(leave).result(PATIENCE).result(PATIENCE) == thread.ident
    thread.join(PATIENCE)
    assert not thread.is_alive()
    with base.in_thread() as second:
        assert base.call(me).result(PATIENCE) == second.ident


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_block_that_is_collected_in_its_own_thread_ends(base: EventBase) -> None:
    """What comes out of the loop after that goes where a thread's exceptions go."""
    kept: list[Any] = []
    hooks: list[Any] = []

    def holding() -> Iterator[threading.Thread]:
        with base.in_thread() as thread:
            kept.append(held)
            yield thread

    held = holding()
    thread = next(held)
    held = kept  # type: ignore[assignment]

    def collect() -> None:
        kept.clear()
        raise KeyError("told")

    before, threading.excepthook = threading.excepthook, hooks.append
    try:
        base.defer(collect)
        thread.join(PATIENCE)
        assert not thread.is_alive()
    finally:
        threading.excepthook = before
    assert [hook.exc_type for hook in hooks] == [KeyError]
    assert base._threaded is None
    base.once(lambda *_: kept.append(me()))
    base.dispatch()
    assert kept == [me()]


def test_what_cannot_be_run_by_another_thread_is_refused(base: EventBase) -> None:
    refused = pytest.raises(ThreadError, match="made with NOLOCK")
    with EventConfig(flags=EventBaseFlag.NOLOCK) as config, EventBase(config) as nolock, refused:
        nolock.in_thread().__enter__()
    with base.turns(), pytest.raises(RuntimeError, match=r"in a block of turns\(\)"):
        base.in_thread().__enter__()
    base.defer(base.in_thread().__enter__)
    with pytest.raises(RuntimeError, match="runs already"):
        base.dispatch()
    block = base.in_thread()
    with block:
        pass
    with pytest.raises(RuntimeError, match=r"call in_thread\(\) once more"):
        block.__enter__()
    base.close()
    with pytest.raises(ClosedError):
        base.in_thread().__enter__()


def test_a_base_that_another_thread_runs_is_refused_when_the_block_begins(base: EventBase) -> None:
    thread = threading.Thread(target=base.loop, args=(LoopFlag.NO_EXIT_ON_EMPTY,))
    thread.start()
    base.call(me).result(PATIENCE)
    with pytest.raises(RuntimeError, match="runs already"):
        base.in_thread().__enter__()
    base.loopexit()
    thread.join(PATIENCE)
    with base.in_thread() as own:
        assert base.call(me).result(PATIENCE) == own.ident


def test_the_block_s_own_thread_may_close_the_base(base: EventBase) -> None:
    with base.in_thread() as thread:
        with pytest.raises(RuntimeError, match="close"):
            base.call(base.close).result(PATIENCE)
        with concurrent.futures.ThreadPoolExecutor(1) as other, pytest.raises(ThreadError):
            other.submit(base.close).result(PATIENCE)
        assert not base.closed
        base.close()
        assert not thread.is_alive()
        with pytest.raises(ClosedError):
            base.call(me)


def test_a_base_may_be_closed_when_its_loop_has_ended(base: EventBase) -> None:
    with base.in_thread() as thread:
        base.loopexit()
        thread.join(PATIENCE)
        with pytest.raises(ThreadError, match=r"own thread has ended$"):
            base.call(me)
        base.close()
    assert base.closed


def test_no_exit_is_left_for_the_next_loop(base: EventBase) -> None:
    for _ in range(200):
        with base.in_thread():
            base.defer(base.loopbreak)  # comes when the block ends, or before, or after
        with contextlib.suppress(ZeroDivisionError), base.in_thread():
            raise ZeroDivisionError
    base.call(me)
    assert base.loop() is False
    fired: list[int] = []
    Event.timer(base, lambda *_: fired.append(1)).add(0.01)
    base.dispatch()
    assert fired


# Other processes, and interrupts.


def test_an_interrupt_in_the_block_ends_the_thread() -> None:
    assert (
        run_python("""
        import os, signal, threading, time
        from libevent_py import EventBase

        with EventBase() as base:
            try:
                with base.in_thread() as thread:
                    slow = base.call(time.sleep, 0.3)
                    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
                    slow.result()
            except KeyboardInterrupt:
                print("interrupted", thread.is_alive(), slow.done())
            with base.in_thread():
                print(base.call(int).result())
    """)
        == "interrupted False True\n0\n"
    )


def test_an_interrupt_while_the_block_ends_still_waits_for_the_thread() -> None:
    assert (
        run_python("""
        import os, signal, threading, time
        from libevent_py import EventBase

        with EventBase() as base:
            try:
                with base.in_thread() as thread:
                    base.call(time.sleep, 0.3)
                    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            except KeyboardInterrupt:
                print("interrupted", thread.is_alive())
    """)
        == "interrupted False\n"
    )


def test_a_forked_child_leaves_the_thread_and_its_calls_to_the_parent() -> None:
    assert (
        run_python("""
        import os, time
        from libevent_py import EventBase, ForkError

        base = EventBase()
        with base.in_thread():
            slow = base.call(time.sleep, 0.2)
            over = base.call(int)
            child = os.fork()
            if not child:
                for use in (slow.result, lambda: base.call(int)):
                    try:
                        use()
                    except ForkError as error:
                        print("refused", flush=True)
        if child:
            print(os.waitpid(child, 0)[1], slow.result(), over.result())
            base.close()
    """)
        == "refused\nrefused\n0 None 0\n"
    )


def test_calls_that_wait_at_a_fork_are_made_by_the_parent_alone() -> None:
    assert (
        run_python("""
        import os
        from libevent_py import EventBase

        base = EventBase()
        future = base.call(print, "made")
        child = os.fork()
        if not child:
            base.reinit()
            base.dispatch()
            base.close()
            os._exit(0)
        print(os.waitpid(child, 0)[1], flush=True)
        base.dispatch()
        print(future.result(0))
    """)
        == "0\nmade\nNone\n"
    )


def test_a_call_that_forks_tells_the_parent_alone() -> None:
    assert (
        run_python(
            """
        import os, sys
        from libevent_py import EventBase

        def forks():
            return os.fork()

        with EventBase() as base:
            with base.in_thread():
                child = base.call(forks).result(20)
                os.waitpid(child, 0)
                print("parent", child > 0)
        """,
            stderr=None,
        )
        == "parent True\n"
    )


def test_a_block_that_is_never_left_ends_with_the_process() -> None:
    assert (
        run_python("""
        import contextlib, threading, time
        from libevent_py import EventBase

        def sleeps():
            began.set()
            time.sleep(0.05)

        base, began = EventBase(), threading.Event()
        stack = contextlib.ExitStack()
        stack.enter_context(base.in_thread())
        base.call(sleeps).add_done_callback(lambda future: print("done", flush=True))
        began.wait()
    """)
        == "done\n"
    )


@pytest.mark.slow
@VALGRIND_TAKES_LONG
def test_calls_and_closing_from_many_threads_touch_no_freed_memory(valgrind: bool) -> None:
    run_python(
        """
        import threading
        from libevent_py import EventBase, ClosedError, ThreadError

        for turn in range(5):
            base, futures = EventBase(), []

            def ask():
                for _ in range(50):
                    try:
                        futures.append(base.call(divmod, 7, 2))
                    except (ClosedError, ThreadError):
                        return

            threads = [threading.Thread(target=ask) for _ in range(4)]
            with base.in_thread():
                for thread in threads:
                    thread.start()
                if turn % 2:
                    base.loopexit()
            base.close()
            for thread in threads:
                thread.join()
            for future in futures:
                assert future.exception(60) is not None or future.result() == (3, 1)
        """,
        valgrind=valgrind,
    )


def test_an_interrupt_at_any_step_of_a_call_loses_none_of_them() -> None:
    """The loop runs in the main thread, where signal handlers do."""
    from tests.kit.interposing import Interposer, interrupt

    number, steps = 0, 0
    while True:
        with EventBase() as base:
            calls: list[Any] = [base.call(me), base.call(fails), base.call(me)]
            calls[2].cancel()
            calls.append(base.call(me))
            interposer = Interposer(interrupt, number, signals=True)
            interrupted = True
            try:
                interposer.run(base.dispatch)
                interrupted = False
            except KeyboardInterrupt:
                steps += 1
            base.dispatch()
            assert all(call.done() for call in calls), interposer.where
        if not interrupted:
            break
        number += 1
    assert steps > 20


def test_a_function_that_fails_at_its_first_step_is_not_run_again(base: EventBase) -> None:
    told: list[object] = []
    base.on_error = lambda error, _: told.append(type(error))
    base.defer(lambda: nothing_of_that_name)  # type: ignore[name-defined]  # noqa: F821
    for _ in range(3):
        base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)
    assert told == [NameError]
