"""Single turns of a base's loop: `EventBase.turn`, alone and in a block of `EventBase.turns`."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from libevent_py import (
    ClosedError,
    Event,
    EventBase,
    EventBaseCount,
    LibeventError,
    ThreadError,
    lib,
    log,
)
from libevent_py._core.dispatch import live
from libevent_py._core.wakeup import wakeup
from tests.kit.flags import PERSIST, READ
from tests.kit.support import PATIENCE, run_python

Block = Callable[[EventBase], contextlib.AbstractContextManager[object]]


@pytest.fixture(params=["alone", "in a block"])
def block(request: pytest.FixtureRequest) -> Block:
    """What turns are run in."""
    if request.param == "alone":
        return lambda base: contextlib.nullcontext()
    return EventBase.turns


def wakeup_fd() -> int:
    """Return the wakeup descriptor that is set."""
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    return fd


@contextlib.contextmanager
def alarm(handler: Callable[..., object], after: float) -> Iterator[None]:
    """Have SIGALRM handled by *handler*, *after* some seconds."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# What a turn does.


def test_a_turn_runs_what_is_ready_once_and_returns(
    backend_base: EventBase, block: Block, pair: tuple[socket.socket, socket.socket]
) -> None:
    """A descriptor that stays ready doesn't keep it."""
    fired: list[int] = []
    event = Event(backend_base, pair[0], READ | PERSIST, lambda _, fd, what: fired.append(fd))
    event.add()
    pair[1].send(b"x")
    with block(backend_base):
        for number in range(1, 4):
            assert backend_base.turn(0) is True
            assert len(fired) == number
        assert backend_base.turn(PATIENCE) is True
        assert backend_base.turn() is True
    assert len(fired) == 5
    event.close()


@pytest.mark.parametrize("timeout", [0, 0.0, False])
def test_a_turn_of_0_does_not_wait(base: EventBase, block: Block, timeout: float) -> None:
    event = Event.timer(base, print).add(1000)
    begun = time.monotonic()
    with block(base):
        assert base.turn(timeout) is True
    assert time.monotonic() - begun < PATIENCE
    event.close()


def test_a_turn_waits_no_longer_than_it_is_told(base: EventBase, block: Block) -> None:
    """Also with no event at all, which would end a loop at once."""
    with block(base):
        begun = time.monotonic()
        assert base.turn(0.05) is True
        assert 0.04 <= time.monotonic() - begun < PATIENCE
        with Event.timer(base, print).add(1000):
            begun = time.monotonic()
            assert base.turn(0.05) is True
            assert 0.04 <= time.monotonic() - begun < PATIENCE
    assert base.num_events(EventBaseCount.ADDED) == 0


def test_a_turn_ends_with_the_first_callback(base: EventBase, block: Block) -> None:
    fired: list[str] = []
    with block(base), Event.timer(base, lambda *_: fired.append("late")).add(PATIENCE):
        base.once(lambda *_: fired.append("soon"), timeout=0.01)
        assert base.turn(PATIENCE) is True
        base.once(lambda *_: fired.append("without end"), timeout=0.01)
        assert base.turn(None) is True
    assert fired == ["soon", "without end"]


def test_a_turn_without_events_and_timeout_has_nothing_to_wait_for(
    base: EventBase, block: Block
) -> None:
    with block(base):
        assert base.turn() is False
        assert base.turn(0) is False


@pytest.mark.parametrize(
    ("timeout", "error"), [(-1, ValueError), ("1", TypeError), (float("nan"), ValueError)]
)
def test_what_is_no_timeout_is_refused_by_its_name(
    base: EventBase, block: Block, timeout: Any, error: type[Exception]
) -> None:
    with block(base):
        with pytest.raises(error, match="timeout must be"):
            base.turn(timeout)
        assert base.turn(0) is False


def test_what_others_defer_wakes_a_turn(base: EventBase, block: Block) -> None:
    ran: list[int] = []
    timer = threading.Timer(0.05, base.defer, (ran.append, 1))
    timer.start()
    with block(base), Event.timer(base, print).add(1000):
        while not ran:
            assert base.turn(PATIENCE) is True
    timer.join()


def test_what_a_callback_raises_comes_out_of_its_turn(base: EventBase, block: Block) -> None:
    with block(base):
        for _ in range(2):
            base.once(lambda *_: [][0])
            with pytest.raises(IndexError):
                base.turn(0)
        assert base.turn(0) is False
        seen: list[Exception] = []
        base.on_error = lambda error, source: seen.append(error)
        base.once(lambda *_: [][0])
        assert base.turn(0) is True
        assert type(seen[0]) is IndexError


def test_a_callback_may_stop_its_turn(base: EventBase, block: Block) -> None:
    with block(base):
        base.once(lambda *_: base.loopbreak())
        assert base.turn(PATIENCE) is True
        assert base.got_break
        base.once(lambda *_: base.loopexit())
        assert base.turn(PATIENCE) is True


def test_a_later_exit_is_forgotten_with_the_block(base: EventBase) -> None:
    with base.turns():
        base.loopexit(0.0)
        base.loopexit(1000)
    assert base.turn(0.05) is True
    assert base.num_events(EventBaseCount.ADDED) == 0


def test_objects_may_be_made_and_closed_between_turns(base: EventBase) -> None:
    ran: list[int] = []
    with base.turns():
        with Event.timer(base, lambda *_: ran.append(1)).add(0.0) as closed:
            pass
        assert closed.closed
        base.once(lambda *_: ran.append(2))
        base.turn(0)
        other = EventBase()
        other.once(lambda *_: ran.append(3))
        other.dispatch()  # looks after its own callbacks only
        base.once(lambda *_: ran.append(4))
        base.turn(0)
        base.once(lambda *_: ran.append(5))
        base.dispatch()
        base.once(lambda *_: ran.append(6))
        base.turn(0)
        other.close()
    assert ran == [2, 3, 4, 5, 6]
    assert live.bases == ()


def test_one_block_inside_another_changes_nothing(base: EventBase) -> None:
    before = wakeup_fd()
    with base.turns():
        inner = wakeup_fd()
        with base.turns():
            assert base.turn(0) is False
        assert wakeup_fd() == inner != before
        assert base in live.bases
        assert base.turn(0) is False
    assert wakeup_fd() == before


def test_a_message_in_a_turn_is_delivered(base: EventBase) -> None:
    got: list[str] = []
    log.set_log_callback(lambda severity, text: got.append(text))
    try:
        with base.turns():
            base.once(lambda *_: lib.event_base_loop(base.pointer, 0))
            base.turn(PATIENCE)
            end = time.monotonic() + PATIENCE
            while not got and time.monotonic() < end:
                base.turn(0.01)
    finally:
        log.set_log_callback(None)
    assert len(got) == 1 and "reentrant" in got[0]


# Signals.


def test_ctrl_c_ends_a_turn_that_waits(backend_base: EventBase, block: Block) -> None:
    begun = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),  # first: the alarm may ring early
        alarm(signal.default_int_handler, 0.05),
        block(backend_base),
        Event.timer(backend_base, print).add(1000),
    ):
        backend_base.turn()
    assert time.monotonic() - begun < PATIENCE
    assert not backend_base.closed


def test_a_handler_that_raises_nothing_runs_at_once_and_the_turn_waits_on(
    base: EventBase, block: Block
) -> None:
    rang: list[float] = []
    begun = time.monotonic()
    with alarm(lambda *_: rang.append(time.monotonic()), 0.02), block(base):
        base.turn(0.3)
    assert rang[0] - begun < 0.25
    assert time.monotonic() - begun > 0.28


def test_the_wakeup_descriptor_is_as_before_after_the_block(
    base: EventBase, pair: tuple[socket.socket, socket.socket]
) -> None:
    """What comes meanwhile reaches it in the next turn."""
    found = signal.set_wakeup_fd(pair[0].fileno())
    try:
        with base.turns():
            assert wakeup_fd() == wakeup().signals.writer.fileno()
            with alarm(lambda *_: None, 0.01):
                base.turn(0.1)
            assert pair[1].recv(10) == bytes([signal.SIGALRM])
        assert wakeup_fd() == pair[0].fileno()
        base.turn(0.001)
        assert wakeup_fd() == pair[0].fileno()
    finally:
        signal.set_wakeup_fd(found)


def test_turns_in_another_thread_leave_the_signals_alone() -> None:
    before = wakeup_fd()
    found: list[bool] = []

    def turns() -> None:
        with EventBase() as base, base.turns():
            base.once(lambda *_: None)
            found.append(base.turn(PATIENCE))

    thread = threading.Thread(target=turns)
    thread.start()
    thread.join()
    assert found == [True]
    assert wakeup_fd() == before


# Misuse.


def test_a_turn_inside_a_callback_is_refused(base: EventBase, block: Block) -> None:
    refused: list[str] = []

    def callback(*_: object) -> None:
        for function in (lambda: base.turn(0), base.dispatch, base.close, lambda: enter(base)):
            with pytest.raises(RuntimeError) as caught:
                function()
            refused.append(str(caught.value))

    with block(base):
        base.once(callback)
        assert base.turn(PATIENCE) is True
        assert base.turn(0) is False
    assert ["runs already" in text for text in refused] == [True, True, False, True]
    assert "while the loop runs" in refused[2]


def enter(base: EventBase) -> None:
    with base.turns():
        raise AssertionError("it began")


def test_a_turn_inside_a_dispatched_callback_is_refused(base: EventBase) -> None:
    base.once(lambda *_: base.turn(0))
    with pytest.raises(RuntimeError, match="runs already"):
        base.dispatch()


@pytest.mark.parametrize("where", ["here", "deeper"])
def test_a_turn_in_the_middle_of_another_call_is_refused(
    base: EventBase, block: Block, where: str
) -> None:
    """As a signal handler may try, or an argument's own method."""

    class Number:
        def __float__(self) -> float:
            base.turn(0)
            return 1.0

    def add() -> None:
        event.add(Number())  # type: ignore[arg-type]

    event = Event.timer(base, print).add(1000)
    with block(base), pytest.raises(RuntimeError, match="in the middle of another call"):
        if where == "here":
            event.add(Number())  # type: ignore[arg-type]
        else:
            add()
    event.close()


def test_a_closed_base_has_no_turns(block: Block) -> None:
    base = EventBase()
    with block(base):
        base.close()
        with pytest.raises(ClosedError):
            base.turn(0)
    with pytest.raises(ClosedError):
        enter(base)
    assert live.bases == ()


def test_another_thread_can_not_run_turns_of_a_block(base: EventBase) -> None:
    refused: list[BaseException] = []

    def turn() -> None:
        try:
            base.turn(0)
        except LibeventError as error:
            refused.append(error)

    with base.turns():
        thread = threading.Thread(target=turn)
        thread.start()
        thread.join()
        assert base.turn(0) is False
    assert [type(error) for error in refused] == [ThreadError]
    thread = threading.Thread(target=turn)  # but take the base over, as loop() does
    thread.start()
    thread.join()
    assert len(refused) == 1
    assert base.turn(0) is False


def test_a_block_in_a_generator_knows_its_caller_anew(base: EventBase) -> None:
    """Its frame goes on with another caller each time, who may be in the middle of a call."""

    def turning() -> Iterator[bool]:
        with base.turns():
            while True:
                yield base.turn(0)

    class Number:
        def __float__(self) -> float:
            next(turns)
            return 1.0

    turns = turning()
    assert next(turns) is False
    event = Event.timer(base, print).add(1000)
    with pytest.raises(RuntimeError, match="in the middle of another call"):
        event.add(Number())  # type: ignore[arg-type]
    event.close()


# A block that is left somewhere else.


def in_a_generator(base: EventBase) -> Generator[None, None, None]:
    """Hold a block of *base* until it is closed or dropped."""
    with base.turns():
        yield


@pytest.mark.parametrize("way", ["dispatch", "turn"])
def test_a_block_that_a_callback_leaves_ends_with_the_run(base: EventBase, way: str) -> None:
    """The rest of the run called nothing: C found no objects any more."""
    held = in_a_generator(base)
    before = wakeup_fd()
    next(held)
    called: list[str] = []

    def leave(*_: object) -> None:
        base.loopexit(1000)
        held.close()
        called.append("left")

    for name in "ab":
        base.once(lambda *_, name=name: called.append(name), timeout=0.02)
    base.once(leave, timeout=0.001)
    if way == "dispatch":
        base.loopexit(0.2)
        base.dispatch()
    else:
        while len(called) < 3:
            assert base.turn(PATIENCE)
    assert called == ["left", "a", "b"]
    assert (live.bases, wakeup_fd(), base._exit_at) == ((), before, None)


def test_a_block_that_is_left_in_the_middle_of_a_call_frees_nothing(base: EventBase) -> None:
    held = in_a_generator(base)
    before = wakeup_fd()
    next(held)
    base.loopexit(0.01)
    freed: list[object] = []

    class Number:
        def __float__(self) -> float:
            base._once_clean(freed.append, self)
            held.close()
            assert (freed, live.bases, wakeup_fd()) == ([], (), before)
            return 0.05

    number = Number()
    called: list[object] = []
    event = Event.timer(base, lambda *_: called.append(1)).add(number)  # type: ignore[arg-type]
    base.dispatch()  # which the time given to loopexit() doesn't stop
    assert (freed, called) == ([number], [1])
    event.close()


def test_a_block_made_before_a_call_is_not_begun_in_the_middle_of_it(base: EventBase) -> None:
    block = base.turns()

    class Number:
        def __float__(self) -> float:
            with block:
                raise AssertionError("it began")

    event = Event.timer(base, print)
    with pytest.raises(RuntimeError, match="in the middle of another call"):
        event.add(Number())  # type: ignore[arg-type]
    event.close()


def test_a_block_may_end_while_another_thread_runs_the_loop(base: EventBase) -> None:
    """That thread has taken the base over, and the end of the block made it call nothing more."""
    called: list[str] = []
    begun, left = threading.Event(), threading.Event()

    def run() -> None:
        base.take_over()
        base.once(lambda *_: (begun.set(), left.wait(PATIENCE)))
        base.once(lambda *_: called.append("later"), timeout=0.01)
        base.dispatch()

    before = wakeup_fd()
    thread = threading.Thread(target=run)
    with base.turns():
        thread.start()
        assert begun.wait(PATIENCE)
    assert wakeup_fd() == before
    left.set()
    thread.join()
    assert called == ["later"]
    assert live.bases == ()


def test_a_forked_child_needs_reinit_to_go_on() -> None:
    """A8. Also after a fork inside the block, and inside a callback."""
    run_python(
        """
        import os
        from libevent_py import EventBase, Event, ForkError

        def child(test):
            pid = os.fork()
            if pid == 0:
                test()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0

        def refused():
            try:
                base.turn(0)
            except ForkError:
                base.reinit()
                base.once(lambda *_: ran.append(1))
                assert base.turn(0) is True and ran == [1]
                base.close()
            else:
                os._exit(1)

        ran = []
        base = EventBase()
        child(refused)
        with base.turns():
            child(refused)

            def fork(*_):
                if os.fork() == 0:
                    ran.append("child")

            base.once(fork)
            try:
                base.turn(5)
            except ForkError:
                os._exit(0 if ran == ["child"] else 3)
            assert os.wait()[1] == 0
            assert base.turn(0) is False
        base.close()
        """
    )


def test_turns_misuse_no_memory() -> None:
    run_python(
        """
        from libevent_py import Event, EventBase

        def callback(event, fd, what):
            event.close()
            1 / 0

        for block in range(2):
            base = EventBase()
            if block:
                turns = base.turns()
                turns.__enter__()
            for timeout in (0, 0.01, None):
                Event.timer(base, callback).add(0.0)
                try:
                    base.turn(timeout)
                except ZeroDivisionError:
                    pass
                else:
                    raise AssertionError
            base.turn(0.001)
            base.close()
            if block:
                turns.__exit__()
        """,
        valgrind=True,
    )
