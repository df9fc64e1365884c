"""Python's signals while a loop runs: Ctrl-C at any moment, and the wakeup descriptor (A10)."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from libevent_py import Event, EventBase, EventFlag, LoopFlag
from libevent_py._core.dispatch import live
from libevent_py._core.wakeup import wakeup
from tests.kit.flags import NONBLOCK, ONCE
from tests.kit.support import PATIENCE, run_python

NO_EXIT_ON_EMPTY = LoopFlag.NO_EXIT_ON_EMPTY


class Rang(Exception):
    """What the handler here raises."""


@pytest.fixture
def alarm() -> Iterator[Callable[[Callable[[], object], float], None]]:
    """Set a function as SIGALRM's handler, and have it called after some seconds."""

    def ring(function: Callable[[], object], after: float) -> None:
        signal.signal(signal.SIGALRM, lambda number, frame: function())
        signal.setitimer(signal.ITIMER_REAL, after)

    before = signal.getsignal(signal.SIGALRM)
    yield ring
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


Alarm = Callable[[Callable[[], object], float], None]


def rang() -> None:
    raise Rang


# Ctrl-C and other signals.


@pytest.mark.parametrize("waits", ["for nothing", "for a timer"])
def test_ctrl_c_ends_an_idle_loop(backend_base: EventBase, alarm: Alarm, waits: str) -> None:
    """A10: libevent goes on waiting after EINTR, so it has to be woken."""
    interrupted: list[float] = []

    def interrupt() -> None:
        interrupted.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    event = Event.timer(backend_base, print)
    if waits == "for a timer":
        event.add(100_000)
    alarm(interrupt, 0.05)
    with pytest.raises(KeyboardInterrupt):
        backend_base.loop(NO_EXIT_ON_EMPTY)
    assert time.monotonic() - interrupted[0] < 1
    assert backend_base.got_break
    event.close()


def test_ctrl_c_ends_a_process_as_python_does() -> None:
    """A10: with a traceback, and by the signal itself."""
    run_python(
        """
        import os
        import signal
        import threading
        from libevent_py import EventBase, LoopFlag

        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with EventBase() as base:
            base.loop(LoopFlag.NO_EXIT_ON_EMPTY)
        """,
        status=-signal.SIGINT,
        stderr=None,
    )


def test_what_a_signal_handler_raises_comes_out_of_an_idle_loop(
    base: EventBase, alarm: Alarm
) -> None:
    """A10: and the base is as good as before."""
    alarm(rang, 0.02)
    with pytest.raises(Rang):
        base.loop(NO_EXIT_ON_EMPTY)
    called: list[int] = []
    base.once(lambda fd, what: called.append(1))
    assert base.dispatch() is False
    assert called == [1]


def test_a_signal_handler_that_returns_lets_the_loop_go_on(base: EventBase, alarm: Alarm) -> None:
    """A10: it runs at once, in the loop."""
    order: list[str] = []
    base.once(lambda fd, what: order.append("timer"), timeout=0.1)
    alarm(lambda: order.append("handler"), 0.02)
    assert base.dispatch() is False
    assert order == ["handler", "timer"]


@pytest.mark.parametrize("name", ["loopbreak", "loopexit"])
def test_a_signal_handler_may_stop_the_loop(base: EventBase, alarm: Alarm, name: str) -> None:
    """A10: at once."""
    alarm(getattr(base, name), 0.02)
    assert base.loop(NO_EXIT_ON_EMPTY) is True
    assert base.got_break is (name == "loopbreak")
    assert base.got_exit is (name == "loopexit")


def test_a_signal_handler_may_use_the_base_like_any_callback(base: EventBase, alarm: Alarm) -> None:
    """A10: it defers, it adds events, and it runs another base's loop."""
    ran: list[str] = []

    def handler() -> None:
        base.defer(ran.append, "deferred")
        base.once(lambda fd, what: ran.append("once"))
        Event.timer(base, lambda *_: base.loopexit()).add(0.02)
        with EventBase() as other:
            other.once(lambda fd, what: ran.append("other"))
            other.dispatch()

    alarm(handler, 0.02)
    assert base.loop(NO_EXIT_ON_EMPTY) is True
    assert sorted(ran) == ["deferred", "once", "other"]


def test_a_signal_during_a_callback_is_handled_there(base: EventBase, alarm: Alarm) -> None:
    """A10: as in any other Python code; what it raises stops the loop."""
    later: list[int] = []

    def callback(fd: int, what: int) -> None:
        os.kill(os.getpid(), signal.SIGALRM)

    alarm(rang, 1000)
    base.once(callback)
    base.once(lambda fd, what: later.append(1))
    with pytest.raises(Rang):
        base.dispatch()
    assert later == []
    base.dispatch()
    assert later == [1]


def test_a_signal_wakes_the_innermost_of_nested_loops(base: EventBase, alarm: Alarm) -> None:
    """A10: and what the handler raises goes through both."""
    reached: list[str] = []

    def nested(fd: int, what: int) -> None:
        with EventBase() as inner:
            try:
                inner.loop(NO_EXIT_ON_EMPTY)
            finally:
                reached.append("inner")

    base.once(nested)
    alarm(rang, 0.02)
    with pytest.raises(Rang):
        base.loop(NO_EXIT_ON_EMPTY)
    assert reached == ["inner"]


def test_a_loop_in_another_thread_leaves_signals_to_the_main_one(
    base: EventBase, alarm: Alarm
) -> None:
    """A10: Python runs its handlers there."""
    thread = threading.Thread(target=base.loop, args=(NO_EXIT_ON_EMPTY,), daemon=True)
    thread.start()
    alarm(rang, 0.05)
    with pytest.raises(Rang):
        threading.Event().wait(PATIENCE)
    assert thread.is_alive()
    while thread.is_alive():
        base.loopbreak()
        thread.join(0.01)


def test_watching_for_signals_keeps_no_loop_alive(base: EventBase) -> None:
    """A10: nor does it count among the user's events."""
    assert base.loop() is False
    assert base.loop(NONBLOCK) is False
    assert base.events() == []
    event = Event.timer(base, lambda *_: None).add(0)
    assert base.dispatch() is False
    assert not event.pending


def test_a_signal_that_came_between_two_loops_stops_neither(base: EventBase, alarm: Alarm) -> None:
    """A10: one round of ONCE is one round of the user's callbacks."""
    alarm(lambda: None, 1000)
    for _ in range(3):
        base.once(lambda fd, what: os.kill(os.getpid(), signal.SIGALRM))
        base.loop(ONCE)
    called: list[int] = []
    base.once(lambda fd, what: called.append(1), timeout=0.02)
    base.loop(ONCE)
    assert called == [1]


@pytest.mark.slow
def test_an_interrupt_at_any_moment_leaves_everything_usable() -> None:
    """A10: here at thousands of moments, of the loop, of callbacks, and of what is around them."""
    run_python(
        """
        import os
        import random
        import signal
        import socket
        from libevent_py import Event, EventBase, EventFlag, LoopFlag, errors
        from libevent_py._core.dispatch import live

        class Rang(BaseException):
            pass

        def handler(number, frame):
            raise Rang

        def check():
            base.once(lambda fd, what: seen.append("once"))
            base.defer(seen.append, "deferred")
            right.send(b".")
            assert base.loop(LoopFlag.NONBLOCK) is True
            base.loop(LoopFlag.NONBLOCK)
            assert {"once", "deferred", "event"} <= set(seen), seen
            seen.clear()
            assert live.bases == ()
            assert errors.waiting() == 0
            assert errors.entered.here.loop is None
            assert not base._running

        base = EventBase()
        left, right = socket.socketpair()
        left.setblocking(False)
        seen = []

        def receive(event, fd, what):
            try:
                left.recv(100)
            except BlockingIOError:
                return
            seen.append("event")

        event = Event(base, left, EventFlag.READ | EventFlag.PERSIST, receive).add()
        busy = Event.timer(base, lambda *_: [None for _ in range(50)], persist=True).add(0.00002)
        check()
        signal.signal(signal.SIGALRM, handler)
        rings = 0
        for _ in range(4000):
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 2e-4), 0.01)
                    while True:
                        base.loop(LoopFlag.NONBLOCK)
                        base.loop(LoopFlag.ONCE)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Rang:
                rings += 1
            if rings % 50 == 0:
                check()
        assert rings == 4000
        check()
        event.close()
        busy.close()
        base.close()
        left.close()
        right.close()
        """
    )


def test_the_handler_runs_again_and_again_without_losing_a_signal(
    base: EventBase, alarm: Alarm
) -> None:
    """A10: a pipe that is full of them is woken by as well."""
    rings: list[int] = []

    def handler() -> None:
        rings.append(1)
        if len(rings) == 500:
            base.loopexit()

    alarm(handler, 0.001)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    assert base.loop(NO_EXIT_ON_EMPTY) is True
    assert len(rings) >= 500


# The wakeup descriptor.


@pytest.fixture
def fed() -> Iterator[socket.socket]:
    """The reading end of a wakeup descriptor of the user's."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        yield reader
        assert signal.set_wakeup_fd(before) == writer.fileno()


def test_the_user_s_wakeup_descriptor_is_fed_and_put_back(
    base: EventBase, alarm: Alarm, fed: socket.socket
) -> None:
    """A10: the loop only stands in for it."""
    alarm(base.loopexit, 0.02)
    base.loop(NO_EXIT_ON_EMPTY)
    assert fed.recv(100) == bytes([signal.SIGALRM])
    os.kill(os.getpid(), signal.SIGALRM)
    assert fed.recv(100) == bytes([signal.SIGALRM])


@pytest.mark.parametrize("idle", [True, False])
def test_it_is_fed_although_the_handler_raises(
    base: EventBase, alarm: Alarm, fed: socket.socket, idle: bool
) -> None:
    """A10: the loop is over before it could pass the byte on."""
    if not idle:
        base.once(lambda fd, what: os.kill(os.getpid(), signal.SIGALRM))
    alarm(rang, 0.02 if idle else 1000)
    with pytest.raises(Rang):
        base.loop(NO_EXIT_ON_EMPTY)
    assert fed.recv(100) == bytes([signal.SIGALRM])


def test_it_is_fed_by_nested_loops_once(base: EventBase, alarm: Alarm, fed: socket.socket) -> None:
    """A10: the inner one stands in for the outer one's."""

    def nested(fd: int, what: int) -> None:
        with EventBase() as inner:
            inner.once(lambda fd, what: os.kill(os.getpid(), signal.SIGALRM))
            inner.dispatch()
        assert fed.recv(100) == bytes([signal.SIGALRM])
        os.kill(os.getpid(), signal.SIGALRM)

    alarm(lambda: None, 1000)
    base.once(nested)
    base.dispatch()
    assert fed.recv(100) == bytes([signal.SIGALRM])
    with pytest.raises(BlockingIOError):
        fed.recv(100)


def test_it_is_not_fed_with_what_came_before_it_was_there(base: EventBase, alarm: Alarm) -> None:
    """A10: a byte that a loop left behind would be taken for a second signal."""
    alarm(rang, 1000)
    base.once(lambda fd, what: os.kill(os.getpid(), signal.SIGALRM))
    with pytest.raises(Rang):
        base.dispatch()
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno())
        try:
            base.loop(NONBLOCK)
            base.once(lambda fd, what: None)
            base.dispatch()
        finally:
            signal.set_wakeup_fd(before)
        with pytest.raises(BlockingIOError):
            reader.recv(100)


def test_one_that_was_closed_meanwhile_is_not_put_back(base: EventBase) -> None:
    """The loop raised OSError instead of what it had to, and left ours in its place."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno())
    try:
        base.once(lambda *_: (reader.close(), writer.close()))
        assert base.dispatch() is False
        assert live.bases == ()
    finally:
        assert signal.set_wakeup_fd(before) == -1


def test_without_one_of_the_user_s_there_is_none_afterwards(base: EventBase) -> None:
    """A10: nothing is written to a descriptor nobody reads."""
    inside: list[int] = []

    def callback(fd: int, what: int) -> None:
        number = signal.set_wakeup_fd(-1)
        inside.append(number)
        signal.set_wakeup_fd(number, warn_on_full_buffer=False)

    base.once(callback)
    base.dispatch()
    assert inside == [wakeup().signals.writer.fileno()]
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    assert before == -1


def test_asyncio_s_signal_handlers_work_around_a_loop(base: EventBase) -> None:
    """A10: asyncio relies on its wakeup descriptor for them."""
    run_python(
        """
        import asyncio
        import os
        import signal
        from libevent_py import EventBase

        async def main():
            handled = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, handled.set)
            with EventBase() as base:
                base.once(lambda fd, what: os.kill(os.getpid(), signal.SIGUSR1))
                base.dispatch()
            await asyncio.wait_for(handled.wait(), 60)

        asyncio.run(main())
        """
    )


# The pipes.


def test_the_pipes_are_made_once(base: EventBase) -> None:
    """A10: their numbers never come to belong to something else."""
    base.loop(NONBLOCK)
    pipes = wakeup()
    numbers = pipes.signals.fd, pipes.log.fd
    with EventBase() as other:
        other.loop(NONBLOCK)
    assert wakeup() is pipes
    assert (pipes.signals.fd, pipes.log.fd) == numbers
    assert not os.get_blocking(pipes.signals.fd)
    assert not os.get_inheritable(pipes.signals.fd)


def test_a_renewed_pipe_has_the_same_numbers_and_is_no_longer_shared() -> None:
    """A8: a forked child takes nothing of its parent's out of it."""
    run_python(
        """
        import os
        from libevent_py._core.wakeup import wakeup

        pipe = wakeup().signals
        numbers = pipe.reader.fileno(), pipe.writer.fileno()
        pipe.writer.send(b"parent's")
        child = os.fork()
        if child == 0:
            assert (pipe.reader.fileno(), pipe.writer.fileno()) == numbers
            assert pipe.take() == b""
            pipe.writer.send(b"child's")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert pipe.take() == b"parent's"
        assert pipe.take() == b""
        """
    )


def test_a_signal_event_and_python_s_handlers_work_side_by_side(
    base: EventBase, alarm: Alarm
) -> None:
    """A10: libevent's handler has the one signal, Python's the other."""
    caught: list[str] = []

    def handled() -> None:
        caught.append("python")
        os.kill(os.getpid(), signal.SIGUSR1)

    def fired(event: Event, fd: int, what: EventFlag) -> None:
        caught.append("event")
        event.close()

    Event.signal(base, signal.SIGUSR1, fired).add()
    alarm(handled, 0.02)
    assert base.dispatch() is False
    assert caught == ["python", "event"]
