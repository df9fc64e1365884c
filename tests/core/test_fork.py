"""A forked child: it can't harm its parent, says so when it tries, and can go its own way (A8)."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    ClosedError,
    Event,
    EventBase,
    EventBaseCount,
    EventBaseFlag,
    EventConfig,
    EventFlag,
    ForkError,
    Listener,
    LoopFlag,
    ThreadError,
)
from tests.kit.flags import PERSIST, READ
from tests.kit.peers import Pair
from tests.kit.processes import in_child
from tests.kit.support import PATIENCE, only, run_python
from tests.kit.uses import USES

ADDED = EventBaseCount.ADDED


def turn(base: EventBase) -> bool:
    """Run one round of callbacks, and tell whether there was any in time."""
    base.loopexit(PATIENCE)
    return base.loop(LoopFlag.ONCE) and not base.got_exit


def fires(base: EventBase, pair: Pair, received: list[bytes]) -> bool:
    """Tell whether what is sent into *pair* still reaches the event that fills *received*."""
    before = len(received)
    pair[1].send(b"parent")
    while len(received) == before and turn(base):
        pass
    return received[before:] == [b"parent"]


@pytest.fixture
def received() -> list[bytes]:
    return []


@pytest.fixture
def reader(backend_base: EventBase, pair: Pair, received: list[bytes]) -> Event:
    """A persistent event on each backend, which puts what arrives into *received*."""

    def receive(event: Event, fd: int, what: int) -> None:
        received.append(pair[0].recv(100))

    return Event(backend_base, pair[0], READ | PERSIST, receive).add()


# Without reinit.


@pytest.mark.parametrize("name", USES)
def test_every_use_of_a_parent_s_base_raises(base: EventBase, name: str) -> None:
    """A8: all calls raise until reinit()."""

    def child() -> None:
        with pytest.raises(ForkError, match="call reinit"):
            USES[name](base)
        assert not base.closed

    in_child(child)


def test_every_use_of_what_was_made_on_it_raises_too(base: EventBase, pair: Pair) -> None:
    """A8: events, bufferevents, their buffers, and listeners."""
    event = Event(base, pair[0], READ, print).add()
    bev = BufferEvent(base, pair[1])
    output = bev.output
    listener = Listener(base, ("127.0.0.1", 0), print)

    def child() -> None:
        for function in (
            event.add,
            event.delete,
            event.active,
            event.remove_timer,
            lambda: event.pending,
            event.__enter__,
            lambda: event.pointer,
            lambda: event.expires,
            lambda: event.priority,
            lambda: bev.write(b"x"),
            bev.read,
            lambda: bev.enable(READ),
            lambda: bev.fd,
            lambda: output.add(b"x"),
            lambda: len(output),
            listener.disable,
            lambda: listener.address,
        ):
            with pytest.raises(ForkError):
                function()
        assert not event.closed
        assert not bev.closed
        assert not listener.closed

    in_child(child)
    event.close()
    bev.close()
    listener.close()


def test_closing_in_the_child_leaves_the_parent_alone(
    backend_base: EventBase, pair: Pair, reader: Event, received: list[bytes]
) -> None:
    """A8: to delete an event would take it out of the parent's epoll set."""

    def child() -> None:
        reader.close()
        assert reader.closed
        with pytest.raises(ClosedError):
            reader.add()
        backend_base.close()
        assert backend_base.closed
        backend_base.close()
        with pytest.raises(ClosedError):
            backend_base.dispatch()
        with pytest.raises(ClosedError):
            backend_base.reinit()

    in_child(child)
    assert fires(backend_base, pair, received)


def test_dropping_in_the_child_leaves_the_parent_alone(received: list[bytes]) -> None:
    """A8: nor does the child's garbage collector touch what is the parent's."""
    run_python(
        """
        import gc
        import os
        import socket
        from libevent_py import *

        left, right = socket.socketpair()
        base = EventBase()
        received = []
        event = Event(base, left, EventFlag.READ | EventFlag.PERSIST,
                      lambda *_: received.append(left.recv(10))).add()
        near, far = socket.socketpair()
        bev = BufferEvent(base, near, on_read=lambda bev: received.append(bev.read()))
        bev.enable(EventFlag.READ)
        accepted = []
        listener = Listener(base, ("127.0.0.1", 0), lambda l, fd, a: accepted.append(fd))
        address = listener.address
        base.loop(LoopFlag.NONBLOCK)
        for ending in ("drop", "exit", "raise"):
            child = os.fork()
            if child == 0:
                for sock in (left, right, far):
                    sock.close()
                if ending == "drop":
                    del base, event, bev, listener
                    gc.collect()
                    os._exit(0)
                raise SystemExit(0 if ending == "exit" else 3)
            assert os.waitpid(child, 0)[1] >> 8 == (3 if ending == "raise" else 0)
        right.send(b"event")
        far.send(b"bev")
        client = socket.create_connection(address)
        while len(received) + len(accepted) < 3:
            base.loopexit(60)
            base.loop(LoopFlag.ONCE)
            assert not base.got_exit
        assert sorted(received) == [b"bev", b"event"]
        os.close(accepted[0])
        base.close()
        for sock in (left, right, far, client):
            sock.close()
        """
    )


def test_leaving_with_in_the_child_leaves_the_parent_alone(
    pair: Pair, received: list[bytes]
) -> None:
    """A8: nor can the parent's base be entered there."""
    parent = os.getpid()
    try:
        with EventBase() as base:
            receive = lambda *_: received.append(pair[0].recv(100))  # noqa: E731
            with Event(base, pair[0], READ | PERSIST, receive).add() as event:
                child = os.fork()
                if child == 0:
                    with pytest.raises(ForkError), base:
                        os._exit(1)
                    raise ZeroDivisionError
                assert os.waitpid(child, 0)[1] == 0
                assert fires(base, pair, received)
                assert not event.closed
    except ZeroDivisionError:
        os._exit(0)
    finally:
        if os.getpid() != parent:
            os._exit(1)


def test_what_fired_in_the_child_s_copy_of_the_loop_ends_it(
    backend_base: EventBase, pair: Pair, received: list[bytes]
) -> None:
    """A8: back in C, the child would wait on its parent's epoll set."""
    base = backend_base
    parent = os.getpid()
    reader, writer = os.pipe()
    finished = Event.timer(base, print)

    def forking(*_: object) -> None:
        if os.getpid() == parent and os.fork() == 0:
            signal.alarm(int(PATIENCE))

    # One after the other: each forks, and its child goes on into the loop.
    later = 0.0
    for start in (
        lambda timeout: Event.timer(base, forking).add(timeout),
        lambda timeout: base.once(forking, timeout=timeout),
        lambda timeout: base.once(lambda fd, what: base.defer(forking), timeout=timeout),
        lambda timeout: base.once(lambda fd, what: finished.close(forking), timeout=timeout),
    ):
        start(later)
        later += 0.02
    try:
        stopped = base.dispatch()
    except ForkError as error:
        os.write(writer, b"F" if "call reinit" in str(error) else b"?")
        os._exit(0)
    except BaseException:
        os.write(writer, traceback.format_exc().encode())
        os._exit(1)
    if os.getpid() != parent:
        os.write(writer, b"N")
        os._exit(1)
    assert stopped is False
    os.close(writer)
    for _ in range(4):
        assert os.wait()[1] == 0
    assert os.read(reader, 100_000) == b"FFFF"
    os.close(reader)


def test_the_parent_s_events_fire_on_after_a_child_left_its_loop(
    backend_base: EventBase, pair: Pair, reader: Event, received: list[bytes]
) -> None:
    """A8: also when the child forked inside the callback of a persistent event."""
    parent = os.getpid()
    children: list[int] = []

    def forking(event: Event, fd: int, what: int) -> None:
        pair[0].recv(100)
        children.append(os.fork())

    reader.callback, receive = forking, reader.callback
    pair[1].send(b"fork")
    try:
        backend_base.loop(LoopFlag.ONCE)
    except ForkError:
        backend_base.close()
        os._exit(0)
    finally:
        if os.getpid() != parent:
            os._exit(1)
    assert os.waitpid(children[0], 0)[1] == 0
    reader.callback = receive
    assert fires(backend_base, pair, received)


def test_what_a_callback_is_refused_in_the_child_comes_out_once(base: EventBase) -> None:
    """A8: the loop would have ended anyway, and raised the same, as a group of two."""
    parent = os.getpid()

    def forking(event: Event, fd: int, what: int) -> None:
        if os.fork() == 0:
            event.add(1)

    Event.timer(base, forking).add(0)
    try:
        base.dispatch()
    except ForkError as error:
        os._exit(0 if "call reinit" in str(error) else 2)
    finally:
        if os.getpid() != parent:
            os._exit(1)
    assert os.wait()[1] == 0


def test_a_deferred_function_that_forks_is_the_child_s_last(base: EventBase) -> None:
    """A8: what was deferred after it is the parent's to run."""
    reader, writer = os.pipe()
    parent = os.getpid()
    base.defer(os.fork)
    base.defer(lambda: os.write(writer, b"parent" if os.getpid() == parent else b"child"))
    try:
        base.dispatch()
    except ForkError:
        os._exit(0)
    finally:
        if os.getpid() != parent:
            os._exit(1)
    assert os.wait()[1] == 0
    assert os.read(reader, 100) == b"parent"
    os.close(reader)
    os.close(writer)


# With reinit.


def test_after_reinit_the_child_has_events_of_its_own(
    backend_base: EventBase, pair: Pair, reader: Event, received: list[bytes]
) -> None:
    """A8: they fire there, and what the child deletes stays in the parent."""

    def child() -> None:
        backend_base.reinit()
        assert fires(backend_base, pair, received)
        timer = Event.timer(backend_base, lambda *_: backend_base.loopbreak()).add(0.01)
        assert backend_base.dispatch() is True
        timer.close()
        reader.close()
        assert backend_base.dispatch() is False
        backend_base.close()

    in_child(child)
    assert fires(backend_base, pair, received)


def test_what_is_not_an_event_works_after_reinit_too(base: EventBase, pair: Pair) -> None:
    """A8: bufferevents, borrowed buffers, listeners and what waits for the loop."""
    got: list[Any] = []
    bev = BufferEvent(base, pair[0], on_read=lambda bev: got.append(bev.read()))
    bev.enable(READ)
    output = bev.output
    listener = Listener(base, ("127.0.0.1", 0), lambda listener, fd, address: got.append(fd))
    base.once(lambda fd, what: got.append("once"), timeout=0.01)
    base.defer(got.append, "deferred")

    def child() -> None:
        base.reinit()
        bev.write(b"from the child")
        assert len(output) == len(b"from the child")
        pair[1].send(b"to the child")
        client = socket.create_connection(listener.address)
        while len(got) < 4 and turn(base):
            pass
        assert {"once", "deferred", b"to the child"} < set(got)
        client.close()
        base.close()
        with pytest.raises(ClosedError):
            len(output)

    in_child(child)
    readable, _, _ = select.select([pair[1]], [], [], PATIENCE)
    assert readable
    assert pair[1].recv(100) == b"from the child"
    base.loop(LoopFlag.NONBLOCK)
    assert "deferred" in got


def test_a_child_may_reinitialize_inside_a_callback_and_go_on(
    backend_base: EventBase, pair: Pair
) -> None:
    """A8: its loop goes on, with everything that is pending."""
    base = backend_base
    reader, writer = os.pipe()
    parent = os.getpid()

    def report(text: str) -> None:
        who = "parent" if os.getpid() == parent else "child"
        os.write(writer, f"{who} {text}\n".encode())

    def forking(event: Event, fd: int, what: int) -> None:
        if os.fork() == 0:
            signal.alarm(int(PATIENCE))
            base.reinit()
            report("reinitialized")

    Event.timer(base, forking).add(0)
    base.once(lambda fd, what: report("once"), timeout=0.03)
    try:
        assert base.dispatch() is False
        report("done")
    finally:
        if os.getpid() != parent:
            base.close()
            os._exit(0)
    assert os.wait()[1] == 0
    os.close(writer)
    with open(reader) as lines:
        said = lines.read().splitlines()
    assert [line for line in said if line.startswith("parent")] == ["parent once", "parent done"]
    assert [line for line in said if line.startswith("child")] == [
        "child reinitialized",
        "child once",
        "child done",
    ]


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "in its callback"])
@pytest.mark.parametrize("how", ["close", "drop"])
def test_what_a_child_gave_up_before_reinit_is_freed_by_it(
    backend_base: EventBase, pair: Pair, how: str, inside: bool
) -> None:
    """A8: or it would be ready for ever, with nobody there to be called."""
    base, called = backend_base, []
    before = base.num_events(ADDED)
    events = [Event(base, pair[0], READ | PERSIST, lambda *_: called.append(1)).add()]

    def child() -> None:
        pair[1].send(b".")
        if how == "close":
            events[0].close()
        events.clear()
        base.reinit()
        if how == "drop":
            gc.collect()
            for event in base.events():
                event.close()
        assert base.num_events(ADDED) - before <= inside
        base.loopexit(0.05)
        start = time.process_time()
        base.loop()
        assert time.process_time() - start < 0.04
        assert not called

    if inside:
        base.once(lambda fd, what: in_child(lambda: (events[0].close(), base.reinit())))
        base.loop(LoopFlag.ONCE)
    else:
        in_child(child)
    events[0].close()


def test_what_a_child_closed_before_reinit_is_not_used_after_it() -> None:
    """A8: a buffer that was borrowed from it is closed, too."""
    run_python(
        """
        import os
        import socket
        from libevent_py import *

        near, far = socket.socketpair()
        base = EventBase()
        bev = BufferEvent(base, near)
        bev.enable(EventFlag.READ)
        output, other = bev.output, Event.timer(base, print).add(1000)
        child = os.fork()
        if child == 0:
            bev.close()
            base.reinit()
            for function in (lambda: output.add(b"x"), lambda: bev.write(b"x")):
                try:
                    function()
                except ClosedError:
                    continue
                os._exit(1)
            base.loop(LoopFlag.NONBLOCK)
            other.close()
            base.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        bev.write(b"parent")
        base.close()
        far.close()
        """,
        valgrind=True,
    )


def test_an_event_that_can_t_be_added_in_the_child_is_an_error(base: EventBase) -> None:
    """A8: reinit() says so, and the rest works."""
    # Where there is no epoll (macOS), C has no error to tell: nobody asks the descriptor.
    if base.method != "epoll":
        pytest.skip("only epoll asks the descriptor")
    left, right = socket.socketpair()
    event = Event(base, left.fileno(), READ, print).add()

    def child() -> None:
        fired: list[int] = []
        left.close()
        with pytest.raises(OSError, match="event_reinit"):
            base.reinit()
        base.once(lambda fd, what: fired.append(1))
        event.close()
        assert base.dispatch() is False
        assert fired == [1]

    in_child(child)
    event.close()
    left.close()
    right.close()


def test_other_threads_of_the_child_wake_the_child(backend_base: EventBase) -> None:
    """A8: and not the parent, whose descriptor for that they shared before."""

    def child() -> None:
        backend_base.reinit()
        ran: list[int] = []
        for wake in (
            lambda: backend_base.defer(lambda: (ran.append(1), backend_base.loopexit())),
            backend_base.loopbreak,
            backend_base.loopexit,
        ):
            timer = threading.Timer(0.02, wake)
            timer.start()
            assert backend_base.loop(LoopFlag.NO_EXIT_ON_EMPTY) is True
            timer.join()
        assert ran == [1]

    in_child(child)
    assert backend_base.dispatch() is False


# Generations, threads, signals.


def test_a_grandchild_may_reinitialize_what_its_parent_did_not(
    backend_base: EventBase, pair: Pair, reader: Event, received: list[bytes]
) -> None:
    """A8: two generations later the base is still the first one's."""

    def grandchild() -> None:
        with pytest.raises(ForkError):
            backend_base.dispatch()
        backend_base.reinit()
        assert fires(backend_base, pair, received)
        reader.close()
        backend_base.close()

    def child() -> None:
        in_child(grandchild)
        with pytest.raises(ForkError):
            backend_base.dispatch()
        in_child(lambda: (reader.close(), backend_base.close()))
        backend_base.reinit()
        assert fires(backend_base, pair, received)

    in_child(child)
    assert fires(backend_base, pair, received)


def test_a_grandchild_is_a_child_like_any(
    backend_base: EventBase, pair: Pair, reader: Event, received: list[bytes]
) -> None:
    """A8: of a child that has made the base its own."""

    def grandchild() -> None:
        with pytest.raises(ForkError):
            reader.delete()
        reader.close()
        backend_base.close()

    def child() -> None:
        backend_base.reinit()
        in_child(grandchild)
        assert fires(backend_base, pair, received)
        backend_base.close()

    in_child(child)
    assert fires(backend_base, pair, received)


def test_a_base_whose_loop_ran_in_another_thread_is_lost(pair: Pair) -> None:
    """A8: that thread may have held its lock, and there is nobody left to release it."""
    base = EventBase()
    received: list[bytes] = []
    event = Event(base, pair[0], READ | PERSIST, lambda *_: received.append(pair[0].recv(9))).add()
    idle = Event.timer(base, print)
    started = threading.Event()
    base.defer(started.set)
    thread = threading.Thread(target=base.dispatch, daemon=True)
    thread.start()
    assert started.wait(PATIENCE)

    def child() -> None:
        for function in (base.dispatch, base.loopbreak, event.delete, lambda: base.defer(print)):
            with pytest.raises(ForkError):
                function()
        with pytest.raises(RuntimeError, match="another thread ran"):
            base.reinit()
        with EventBase() as own:
            own.once(lambda fd, what: None)
            own.dispatch()
        in_child(base.close)
        event.close()
        base.close()
        assert base.closed
        assert idle.closed

    in_child(child)
    pair[1].send(b"parent")
    pair[1].settimeout(PATIENCE)
    while not received:
        time.sleep(0.01)
    base.loopexit()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert received == [b"parent"]
    base.close()


def test_a_base_without_locks_goes_to_the_thread_that_forked() -> None:
    """A8: the one that it was pinned to is gone in the child."""
    with EventConfig(flags=EventBaseFlag.NOLOCK) as config, EventBase(config) as base:
        raised: list[BaseException] = []

        def child() -> None:
            with pytest.raises(ForkError):
                base.dispatch()
            base.reinit()
            base.once(lambda fd, what: None)
            assert base.dispatch() is False
            base.close()

        def run() -> None:
            try:
                with pytest.raises(ThreadError):
                    base.dispatch()
                in_child(child)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(2 * PATIENCE)
        assert raised == []


def test_a_child_s_signals_are_its_own(backend_base: EventBase) -> None:
    """A8: libevent's handler would write them into the parent's socket pair."""
    caught: list[int] = []
    event = Event.signal(backend_base, signal.SIGUSR1, lambda ev, fd, what: caught.append(fd))
    event.add()
    before = signal.signal(signal.SIGUSR2, lambda *_: caught.append(-1))
    other = Event.signal(backend_base, signal.SIGUSR2, lambda ev, fd, what: caught.append(fd))
    other.add()

    def child() -> None:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert caught == [-1]
        signal.signal(signal.SIGUSR1, lambda *_: caught.append(-2))
        os.kill(os.getpid(), signal.SIGUSR1)
        assert caught == [-1, -2]

    in_child(child)
    assert backend_base.loop(LoopFlag.NONBLOCK) is True
    assert caught == []
    os.kill(os.getpid(), signal.SIGUSR2)
    assert turn(backend_base)
    assert caught == [signal.SIGUSR2]
    event.close()
    other.close()
    signal.signal(signal.SIGUSR2, before)


def test_after_reinit_the_child_s_signal_events_fire(backend_base: EventBase) -> None:
    """A8: on each backend, and never into a descriptor that was not made for that."""
    base, caught = backend_base, []
    event = Event.signal(base, signal.SIGUSR1, lambda ev, fd, what: caught.append(fd)).add()
    timed = Event.signal(base, signal.SIGUSR2, lambda ev, fd, what: caught.append(what)).add(0.05)
    base.loop(LoopFlag.NONBLOCK)

    def child() -> None:
        os.close(0)  # so that the new socket pair gets other numbers than the old one
        base.reinit()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert turn(base)
        assert signal.SIGUSR1 in caught
        assert len(caught) == 2 or turn(base)  # on a busy machine the time may be over at once
        assert sorted(caught) == [EventFlag.TIMEOUT, signal.SIGUSR1]
        event.close()
        timed.close()
        signal.signal(signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        base.close()

    in_child(child)
    event.close()
    timed.close()


def test_a_signal_event_closed_in_the_child_gives_python_its_handler_back(
    backend_base: EventBase,
) -> None:
    """A8: before reinit() as after it."""
    caught: list[str] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: caught.append("python"))
    event = Event.signal(backend_base, signal.SIGUSR1, lambda *_: caught.append("event")).add()

    def closed_first() -> None:
        event.close()
        backend_base.reinit()
        os.kill(os.getpid(), signal.SIGUSR1)
        backend_base.loop(LoopFlag.NONBLOCK)
        assert caught == ["python"]

    def closed_last() -> None:
        backend_base.reinit()
        event.close()
        os.kill(os.getpid(), signal.SIGUSR1)
        backend_base.loop(LoopFlag.NONBLOCK)
        assert caught == ["python"]

    in_child(closed_first)
    in_child(closed_last)
    event.close()
    signal.signal(signal.SIGUSR1, before)


def test_a_child_s_own_base_may_have_signal_events(base: EventBase) -> None:
    """A8: though the parent's base, which the child doesn't use, had them."""
    event = Event.signal(base, signal.SIGUSR1, print).add()

    def child() -> None:
        caught: list[int] = []
        with EventBase() as own:
            Event.signal(own, signal.SIGUSR1, lambda ev, fd, what: caught.append(fd)).add()
            os.kill(os.getpid(), signal.SIGUSR1)
            assert turn(own)
        assert caught == [signal.SIGUSR1]
        base.close()

    in_child(child)
    event.close()


def test_a_signal_wakes_the_child_and_not_the_parent(base: EventBase) -> None:
    """A8: the pipe for Python's signals is renewed."""

    def child() -> None:
        def handler(number: int, frame: object) -> None:
            base.loopexit()

        base.reinit()
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert base.loop(LoopFlag.NO_EXIT_ON_EMPTY) is True

    base.loop(LoopFlag.NONBLOCK)
    in_child(child)
    assert base.loop(LoopFlag.NONBLOCK) is False


# exec.


def test_no_descriptor_of_libevent_s_is_inherited_by_another_program(
    backend: str, pair: Pair
) -> None:
    """A9: all of them are closed on exec."""

    def inherited() -> int:
        code = "import os; print(len(os.listdir('/proc/self/fd')))"
        command = [sys.executable, "-c", code]
        return int(
            subprocess.run(command, close_fds=False, stdout=subprocess.PIPE, check=True).stdout
        )

    before = inherited()
    with only(backend, flags=EventBaseFlag.PRECISE_TIMER) as base:
        Event(base, pair[0], READ, print).add()
        caught = Event.signal(base, signal.SIGUSR1, print).add()
        base.loop(LoopFlag.NONBLOCK)
        assert inherited() == before
        caught.close()


@pytest.mark.parametrize("way", ["the loop", "closing the base"])
def test_a_finalizer_given_in_a_child_is_called_after_reinit(base: EventBase, way: str) -> None:
    """Nobody called it."""
    event = Event.timer(base, print).add(1000)

    def child() -> None:
        told: list[Event] = []

        def finalize(event: Event) -> None:
            told.append(event)
            raise KeyError("told")

        event.close(finalize)
        event.close(finalize)
        base.reinit()
        assert told == []
        with pytest.raises(KeyError, match="told"):
            base.dispatch() if way == "the loop" else base.close()
        assert told == [event]
        base.close()
        assert told == [event]

    in_child(child)
    event.close()
