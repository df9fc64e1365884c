"""What `Event` refuses, with nothing left of it; other threads, forked children, bad files."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    ClosedError,
    Event,
    EventBase,
    EventBaseFlag,
    EventConfig,
    EventFlag,
    LibeventError,
    ThreadError,
    log,
)
from tests.kit.flags import CLOSED, ET, NONBLOCK, ONCE, PERSIST, READ, SIGNAL, TIMEOUT, WRITE
from tests.kit.peers import Pair
from tests.kit.support import PATIENCE, run_python, shown


def ignore(event: Event, fd: int, what: EventFlag) -> None:
    pass


class BadFile:
    """Has a descriptor that isn't one."""

    def __init__(self, fd: Any) -> None:
        self.fd = fd

    def fileno(self) -> Any:
        return self.fd


def closed_socket() -> socket.socket:
    sock = socket.socket()
    sock.close()
    return sock


def closed_fd() -> int:
    with socket.socket() as sock:
        return sock.fileno()


def closed_file() -> Any:
    with open(os.devnull, "rb") as file:
        return file


def closed_base() -> EventBase:
    with EventBase() as base:
        return base


# Bad input.

MAKE_BADLY: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no base": ({"base": None}, TypeError, "base must be an EventBase, not None"),
    "a closed base": ({"base": closed_base}, ClosedError, "this EventBase is closed"),
    "no callback": ({"callback": None}, TypeError, "callback must be callable, not None"),
    "text as callback": ({"callback": "f"}, TypeError, "callback must be callable, not 'f'"),
    "an unknown flag": ({"what": 1 << 20}, ValueError, "what has bits that EventFlag does not"),
    "a negative flag": ({"what": -1}, ValueError, "what has bits that EventFlag does not"),
    "a flag's name": ({"what": "READ"}, TypeError, "what must be of EventFlag, not 'READ'"),
    "True as flag": ({"what": True}, TypeError, "what must be of EventFlag, not True"),
    "no flag": ({"what": None}, TypeError, "what must be of EventFlag, not None"),
    "no descriptor": ({"fd": None}, TypeError, "fd must be a file descriptor or have a fileno"),
    "True as descriptor": ({"fd": True}, TypeError, "fd must be a file descriptor"),
    "text as descriptor": ({"fd": "0"}, TypeError, "fd must be a file descriptor"),
    "a float as descriptor": ({"fd": 0.0}, TypeError, "fd must be a file descriptor"),
    "a negative descriptor": ({"fd": -1}, ValueError, "fd must be an open file descriptor, not -1"),
    "a huge descriptor": ({"fd": 2**40}, ValueError, "fd must be an open file descriptor"),
    "a closed descriptor": ({"fd": closed_fd}, OSError, r"fd \d+: Bad file descriptor"),
    "a closed socket": ({"fd": closed_socket}, ValueError, "fd must be an open file descriptor"),
    "a closed file": ({"fd": closed_file}, ValueError, "fd must be an open file descriptor: I/O"),
    "a file without number": ({"fd": BadFile(None)}, TypeError, r"fd's fileno\(\) must return"),
    "a file with text": ({"fd": BadFile("0")}, TypeError, r"fd's fileno\(\) must return an int"),
    "a file with a bad number": ({"fd": BadFile(2**40)}, ValueError, "fd must be an open file"),
    "a descriptor for a timer": ({"fd": 0, "what": PERSIST}, ValueError, r"fd \(without READ"),
    "a file for a timer": ({"fd": BadFile(0), "what": 0}, TypeError, r"fd \(without READ"),
    "signal 0": ({"fd": 0, "what": SIGNAL}, ValueError, "signum must be a signal"),
    "a negative signal": ({"fd": -1, "what": SIGNAL}, ValueError, "signum must be a signal"),
    "signal 65": ({"fd": 65, "what": SIGNAL}, ValueError, "signum must be a signal"),
    "a huge signal": ({"fd": 2**40, "what": SIGNAL}, ValueError, "signum must be from"),
    "SIGKILL": ({"fd": signal.SIGKILL, "what": SIGNAL}, ValueError, "signum must be a signal"),
    "SIGSTOP": ({"fd": signal.SIGSTOP, "what": SIGNAL}, ValueError, "signum must be a signal"),
    "a signal's name": ({"fd": "USR1", "what": SIGNAL}, TypeError, "signum must be an integer"),
    "SIGNAL with READ": ({"what": SIGNAL | READ}, ValueError, "what can't have SIGNAL beside"),
    "SIGNAL with CLOSED": ({"what": SIGNAL | CLOSED}, ValueError, "what can't have SIGNAL"),
    "SIGNAL with ET": ({"what": SIGNAL | ET}, ValueError, "what can't have SIGNAL beside"),
    "a negative priority": ({"priority": -1}, ValueError, "priority must be from 0 to 2, not -1"),
    "too high a priority": ({"priority": 3}, ValueError, "priority must be from 0 to 2, not 3"),
    "a huge priority": ({"priority": 2**40}, ValueError, "priority must be from 0 to 2"),
    "half a priority": ({"priority": 0.5}, TypeError, "priority must be an integer, not 0.5"),
}


@pytest.mark.parametrize("how", MAKE_BADLY)
def test_what_an_event_cannot_be_made_from_is_named(how: str, capfd: Any) -> None:
    bad, error, message = MAKE_BADLY[how]
    left, right = socket.socketpair()
    with left, right, EventBase(priorities=3) as base:
        good: dict[str, Any] = {
            "base": base,
            "fd": left,
            "what": READ,
            "callback": ignore,
            "priority": 1,
        }
        if how.startswith(("signal", "SIG")):
            good.update(fd=signal.SIGUSR1, what=SIGNAL)
        arguments = good | {
            name: value() if callable(value) and not isinstance(value, type) else value
            for name, value in bad.items()
        }
        with pytest.raises(error, match=message):
            Event(**arguments)
        gc.collect()
        assert base._live == base._ledger == {}
        assert not base.loop(NONBLOCK)
        Event(**good).close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("make", [Event.timer, Event.user])
@pytest.mark.parametrize("how", ["no base", "a closed base", "no callback", "text as callback"])
def test_what_a_timer_cannot_be_made_from_is_named(
    base: EventBase, make: Callable[..., Event], how: str
) -> None:
    bad, error, message = MAKE_BADLY[how]
    good = {"base": base, "callback": ignore}
    bad = {name: value() if value is closed_base else value for name, value in bad.items()}
    with pytest.raises(error, match=message):
        make(**good | bad)
    assert base._ledger == {}


@pytest.mark.parametrize("signum", [0, -1, 65, 2**40, signal.SIGKILL, "USR1", None, 1.5])
def test_a_bad_signal_number_is_named(base: EventBase, signum: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="signum must be"):
        Event.signal(base, signum, ignore)
    assert base._ledger == {}


BAD_TIMEOUTS: dict[str, tuple[Any, type[Exception]]] = {
    "negative": (-1, ValueError),
    "negative and small": (-1e-9, ValueError),
    "not a number": (float("nan"), ValueError),
    "infinite": (float("inf"), ValueError),
    "negative and infinite": (float("-inf"), ValueError),
    "beyond a timeval": (2**31, ValueError),
    "beyond a time_t": (2**70, ValueError),
    "beyond a double": (10**400, ValueError),
    "text": ("1", TypeError),
    "bytes": (b"1", TypeError),
    "a list": ([1], TypeError),
    "a complex number": (1j, TypeError),
}


@pytest.mark.parametrize("how", BAD_TIMEOUTS)
@pytest.mark.parametrize("kind", ["timer", "file", "signal"])
def test_a_bad_timeout_is_named_and_nothing_is_half_added(
    base: EventBase, pair: Pair, how: str, kind: str, capfd: Any
) -> None:
    timeout, error = BAD_TIMEOUTS[how]
    event = {
        "timer": lambda: Event.timer(base, ignore, persist=True),
        "file": lambda: Event(base, pair[0], READ | PERSIST, ignore),
        "signal": lambda: Event.signal(base, signal.SIGUSR1, ignore),
    }[kind]()
    with pytest.raises(error, match="timeout must be"):
        event.add(timeout)
    assert event.pending == 0
    assert base._live == {}
    event.add(1000)
    expires = event.expires
    with pytest.raises(error, match="timeout must be"):
        event.add(timeout)
    assert event.expires == pytest.approx(expires, abs=1)
    event.delete()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("timeout", [0, 0.001, True, Fraction(1, 1000)], ids=shown)
def test_every_kind_of_number_is_a_timeout(base: EventBase, timeout: Any) -> None:
    event = Event.timer(base, ignore).add(timeout)
    assert event.pending == TIMEOUT


def test_a_common_timeout_of_another_base_is_refused(base: EventBase) -> None:
    with EventBase() as other:
        timeout = other.init_common_timeout(1)
        event = Event.timer(base, ignore)
        with pytest.raises(ValueError, match="timeout must be a CommonTimeout of the event's own"):
            event.add(timeout)
        assert event.pending == 0
        assert base._live == {}


@pytest.mark.parametrize(
    ("what", "ncalls", "error", "message"),
    [
        (1 << 20, 1, ValueError, "what has bits"),
        (PERSIST, 1, ValueError, "what must be of"),
        (READ | ET, 1, ValueError, "what must be of"),
        ("READ", 1, TypeError, "what must be of EventFlag"),
        (None, 1, TypeError, "what must be of EventFlag"),
        (READ, 0, ValueError, "ncalls must be from 1 to 32767, not 0"),
        (TIMEOUT, -1, ValueError, "ncalls must be from 1 to 32767, not -1"),
        (TIMEOUT, 2**15, ValueError, "ncalls must be from 1 to 32767"),
        (TIMEOUT, 1.5, TypeError, "ncalls must be an integer"),
        (TIMEOUT, None, TypeError, "ncalls must be an integer"),
    ],
)
def test_what_cannot_be_activated_is_named(
    base: EventBase, what: Any, ncalls: Any, error: type[Exception], message: str
) -> None:
    event = Event.timer(base, ignore)
    with pytest.raises(error, match=message):
        event.active(what, ncalls)
    assert event.pending == 0
    assert base._live == {}

    def other_thread() -> None:
        with pytest.raises(error, match=message):
            event.active(what, ncalls)

    with ThreadPoolExecutor(1) as pool:
        Event.user(base, lambda *_: pool.submit(other_thread).result(PATIENCE)).active()
        base.dispatch()


def test_other_bad_values_are_named(base: EventBase) -> None:
    event = Event.timer(base, ignore)
    for priority in (-1, 1, 256, None, "0"):
        with pytest.raises((TypeError, ValueError), match="priority must be"):
            event.priority = priority  # type: ignore[assignment]
    with pytest.raises(TypeError, match="callback must be callable"):
        event.callback = None  # type: ignore[assignment]
    with pytest.raises(TypeError, match="finalize must be callable"):
        event.close(finalize=1)  # type: ignore[arg-type]
    assert not event.closed
    assert event.callback is ignore


class MallInfo(ctypes.Structure):
    """A ``struct mallinfo2``."""

    _fields_ = [("others", ctypes.c_size_t * 7), ("uordblks", ctypes.c_size_t * 3)]


def c_memory() -> int:
    """Return how many bytes malloc() has given out."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = MallInfo
    return int(mallinfo().uordblks[0])


FAIL: dict[str, Callable[[EventBase, Any], object]] = {
    "bad priority": lambda base, file: Event(base, -1, 0, ignore, priority=9),
    "bad descriptor": lambda base, file: Event(base, -1, READ, ignore),
    "bad callback": lambda base, file: Event.timer(base, None),  # type: ignore[arg-type]
    "bad timeout": lambda base, file: Event.timer(base, ignore).add(-1),
    "refused": lambda base, file: Event(base, file, READ, ignore).add(),
    "refused with a timeout": lambda base, file: Event(base, file, READ, ignore).add(5),
    "made twice": lambda base, file: Event.__init__(Event.timer(base, ignore), base, -1, 0, ignore),
}


@pytest.mark.parametrize("fail", FAIL.values(), ids=FAIL)
def test_what_fails_leaks_nothing(
    base: EventBase,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    fail: Callable[[EventBase, Any], object],
) -> None:
    def fail_often(times: int) -> None:
        for _ in range(times):
            with pytest.raises((ValueError, TypeError, OSError, RuntimeError)):
                fail(base, file)

    log.set_log_callback(lambda severity, message: None)  # pytest keeps what is logged
    request.addfinalizer(lambda: log.set_log_callback(None))
    with open(tmp_path / "file", "wb") as file:
        fail_often(100)
        gc.collect()
        before = c_memory()
        fail_often(1000)
        gc.collect()
        assert c_memory() - before < 50_000  # an event is 128 bytes in C
        assert base._live == base._ledger == {}


# Files.


def test_a_descriptor_closed_before_the_event_is_added_is_named() -> None:
    with EventBase() as base:
        assert base.method == "epoll"
        left, right = socket.socketpair()
        event = Event(base, left, READ, ignore)
        number = left.fileno()
        left.close()
        right.close()
        with pytest.raises(OSError, match=f"event_add: fd {number} with epoll: Bad file descr"):
            event.add()
        assert event.pending == 0
        assert base._live == {}
        assert not base.loop(NONBLOCK)


def test_a_descriptor_closed_while_its_event_waits_ends_neither_process_nor_base(
    backend_base: EventBase,
) -> None:
    """Select fails, poll fires, epoll forgets it; deleting the event is all that is needed."""
    left, right = socket.socketpair()
    fired: list[EventFlag] = []
    event = Event(backend_base, left, READ, lambda *call: fired.append(call[2])).add()
    left.close()
    right.close()
    if backend_base.method == "select":
        with pytest.raises(OSError, match="Bad file descriptor"):
            backend_base.loop(NONBLOCK)
    else:
        backend_base.loop(NONBLOCK)
    assert fired == ([READ] if backend_base.method == "poll" else [])
    event.delete()
    assert backend_base._live == {}
    assert not backend_base.loop(NONBLOCK)


def test_a_descriptor_may_be_used_again_once_its_event_is_deleted(backend_base: EventBase) -> None:
    """A9: delete the event before its descriptor is closed."""
    fired: list[EventFlag] = []
    numbers = set()

    def fire(event: Event, fd: int, what: EventFlag) -> None:
        fired.append(what)

    for _ in range(3):
        left, right = socket.socketpair()
        with left, right:
            numbers.add(left.fileno())
            with Event(backend_base, left, READ | PERSIST, fire).add():
                right.send(b"x")
                backend_base.loop(ONCE | NONBLOCK)
    assert fired == [READ] * 3
    assert len(numbers) == 1


def test_a_descriptor_used_again_under_a_waiting_event_does_no_harm(
    backend_base: EventBase,
) -> None:
    """A9: what epoll makes of it is libevent's; the events can be deleted and all is well."""
    left, right = socket.socketpair()
    first = Event(backend_base, left.fileno(), READ | PERSIST, ignore).add()
    number = left.fileno()
    left.close()
    right.close()
    left, right = socket.socketpair()
    with left, right:
        assert left.fileno() == number
        second = Event(backend_base, left, READ | PERSIST, ignore).add()
        right.send(b"x")
        backend_base.loop(ONCE | NONBLOCK)
        second.delete()
        first.delete()
        fired: list[EventFlag] = []
        Event(backend_base, left, READ, lambda *call: fired.append(call[2])).add()
        backend_base.loop(ONCE | NONBLOCK)
        assert fired == [READ]


def test_an_error_names_a_signal_as_such(base: EventBase) -> None:
    event = Event.signal(base, signal.SIGUSR1, ignore)
    with EventBase() as other:
        Event.signal(other, signal.SIGUSR2, ignore).add()
        with pytest.raises(LibeventError, match="signal"):
            event.add()


# Threads.


def test_active_from_other_threads_wakes_an_idle_loop_at_once(base: EventBase) -> None:
    fired: list[int] = []
    delays: list[float] = []

    def fire(event: Event, fd: int, what: EventFlag) -> None:
        delays.append(time.monotonic() - sent[0])
        fired.append(what)
        woken.set()
        if len(fired) == 20:
            keeper.delete()

    def wake() -> None:
        for number in range(20):
            woken.clear()
            sent[0] = time.monotonic()
            event.active(READ if number % 2 else WRITE)
            assert woken.wait(PATIENCE)

    sent, woken = [0.0], threading.Event()
    keeper = Event.timer(base, ignore).add(600)
    event = Event.user(base, fire)
    with ThreadPoolExecutor(1) as pool:
        Event.user(base, lambda *_: futures.append(pool.submit(wake))).active()
        futures: list[Any] = []
        base.dispatch()
        futures[0].result(PATIENCE)
    assert fired == [WRITE, READ] * 10
    assert sorted(delays)[10] < 1.0


def test_activations_from_many_threads_are_not_lost(base: EventBase) -> None:
    """Each thread waits for its own event's callback before it activates it again."""
    times, threads = 200, 4
    left = threads

    def churn(event: Event, answered: threading.Semaphore) -> None:
        for _ in range(times):
            event.active()
            assert answered.acquire(timeout=PATIENCE)

    def finished(_future: object) -> None:
        base.defer(one_less)

    def one_less() -> None:
        nonlocal left
        left -= 1
        if not left:
            keeper.delete()

    def start(*_: object) -> None:
        for _number in range(threads):
            answered = threading.Semaphore(0)
            event = Event.user(base, lambda *_, answered=answered: answered.release())
            futures.append(pool.submit(churn, event, answered))
            futures[-1].add_done_callback(finished)

    keeper = Event.timer(base, ignore).add(600)
    futures: list[Any] = []
    with ThreadPoolExecutor(threads) as pool:
        Event.user(base, start).active()
        base.dispatch()
        for future in futures:
            future.result(PATIENCE)
    assert base._live == {}


@pytest.mark.slow
def test_an_activation_is_not_lost_between_two_turns_of_the_loop(
    base: EventBase,
) -> None:
    """Whether the loop runs or not when another thread calls active(), the callback is called."""
    fired = threading.Semaphore(0)
    event = Event.timer(base, lambda *_: fired.release(), persist=True)
    done = threading.Event()

    def churn() -> None:
        try:
            for _ in range(5000):
                event.active()
                assert fired.acquire(timeout=PATIENCE)
        finally:
            done.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(churn)
            while not done.is_set():
                base.loop(NONBLOCK)
            future.result()
    finally:
        sys.setswitchinterval(interval)


def test_another_thread_leaves_an_idle_loop_alone(base: EventBase) -> None:
    """An activation waits for the loop of the base's own thread, or for the event's end."""
    fired = []
    event, closed = (Event.user(base, lambda *call: fired.append(call[2])) for _ in range(2))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(event.active, READ).result()
        pool.submit(closed.active).result()
    assert base._live == {}
    closed.close()
    base.loop(NONBLOCK)
    assert fired == [READ]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(base.loop, NONBLOCK).result()  # which makes that thread the base's own
    event.active(WRITE)
    assert event.pending == 0
    base.loop(NONBLOCK)
    assert fired == [READ, WRITE]


def test_active_on_an_event_closed_meanwhile_is_forgotten(base: EventBase) -> None:
    fired = []
    event = Event.user(base, lambda *_: fired.append(1))

    def fire(*_: object) -> None:
        thread = threading.Thread(target=event.active)
        thread.start()
        thread.join()
        event.close()
        with ThreadPoolExecutor(1) as pool, pytest.raises(ClosedError):
            pool.submit(event.active).result()

    Event.user(base, fire).active()
    base.loop(NONBLOCK)
    base.loop(NONBLOCK)
    assert fired == []


def test_a_base_without_locks_lets_no_other_thread_activate_an_event() -> None:
    with EventConfig(flags=EventBaseFlag.NOLOCK) as config, EventBase(config) as base:
        event = Event.user(base, ignore)
        with ThreadPoolExecutor(1) as pool, pytest.raises(ThreadError):
            pool.submit(event.active).result()
        assert event.pending == 0
        event.active()
        assert event.pending == TIMEOUT


def test_a_signal_handler_of_pythons_may_activate_an_event(base: EventBase) -> None:
    fired = []
    event = Event.user(base, lambda event, fd, what: fired.append(what))
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: event.active(READ))
    try:
        Event.timer(base, lambda *_: signal.raise_signal(signal.SIGUSR1)).add(0)
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        base.loopexit(PATIENCE)
        while len(fired) < 2 and not base.got_exit:
            base.loop(ONCE)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert fired == [READ, READ]


OTHER_THREAD: dict[str, Callable[[Event], object]] = {
    "make": lambda event: Event.timer(event.base, ignore),
    "add": lambda event: event.add(),
    "add with a timeout": lambda event: event.add(1),
    "delete": lambda event: event.delete(),
    "remove_timer": lambda event: event.remove_timer(),
    "priority": lambda event: setattr(event, "priority", 0),
    "close": lambda event: event.close(),
    "finalize": lambda event: event.close(finalize=id),
}


@pytest.mark.parametrize("use", OTHER_THREAD.values(), ids=OTHER_THREAD)
def test_another_thread_than_the_loops_is_refused(
    base: EventBase, use: Callable[[Event], object]
) -> None:
    event = Event.timer(base, ignore).add(60)

    def fire(*_: object) -> None:
        with ThreadPoolExecutor(1) as pool, pytest.raises(ThreadError, match="another thread runs"):
            pool.submit(use, event).result(PATIENCE)

    Event.user(base, fire).active()
    base.loop(NONBLOCK)
    assert event.pending == TIMEOUT
    assert list(base._ledger) == [event._key]
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(ThreadError, match="belongs to another thread"):
            pool.submit(use, event).result(PATIENCE)
        pool.submit(base.take_over).result(PATIENCE)
        pool.submit(use, event).result(PATIENCE)


# Forked children.


def test_an_event_in_a_forked_child_is_inert_until_reinit() -> None:
    run_python(
        """
        import gc, os, socket
        from libevent_py import Event, EventBase, EventFlag, ForkError, LoopFlag

        READ, PERSIST = EventFlag.READ, EventFlag.PERSIST
        left, right = socket.socketpair()
        left.setblocking(False)
        fired = []

        def fire(event, fd, what):
            fired.append(what)
            left.recv(10)

        base = EventBase()
        event = Event(base, left, READ | PERSIST, fire).add()
        idle = Event.timer(base, print)
        finalized = []

        def in_child(function):
            child = os.fork()
            if child == 0:
                try:
                    function()
                finally:
                    os._exit(fired != [READ] * expected)
            assert os.waitpid(child, 0)[1] == 0

        def refused():
            for event_ in event, idle:
                for use in (
                    event_.add, event_.delete, event_.active, event_.remove_timer,
                    lambda: event_.pending,
                    lambda: event_.priority, lambda: event_.fd, lambda: event_.what,
                    lambda: Event.timer(base, print), lambda: base.loop(LoopFlag.NONBLOCK),
                ):
                    try:
                        use()
                    except ForkError:
                        continue
                    os._exit(2)

        def closes():
            event.close()
            idle.close(finalize=finalized.append)
            assert event.closed and idle.closed
            base.close()

        def drops():
            global event, idle, base
            del event, idle, base
            gc.collect()

        def goes_on():
            base.reinit()
            right.send(b"child")
            base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)
            idle.active()
            event.close()
            base.close()

        for function, expected in (refused, 0), (closes, 0), (drops, 0), (goes_on, 1):
            in_child(function)
        right.send(b"parent")
        base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)
        assert fired == [READ]
        base.close()
        left.close(), right.close()
        """
    )


@pytest.mark.parametrize("kind", ["persistent", "persistent, at once", "signal", "once"])
@pytest.mark.parametrize("reinit", [False, True])
def test_a_fork_in_a_callback_leaves_parent_and_child_whole(kind: str, reinit: bool) -> None:
    run_python(
        """
        import os, signal, sys
        from libevent_py import Event, EventBase, EventFlag, ForkError, LoopFlag

        kind, reinit = sys.argv[1], sys.argv[2] == "True"
        children, fired = [], []

        def fire(event, fd, what):
            fired.append(what)
            if not children:
                children.append(os.fork())
                if children == [0] and reinit:
                    base.reinit()

        base = EventBase()
        if kind == "signal":
            event = Event.signal(base, signal.SIGUSR1, fire, persist=False).add()
            event.active(EventFlag.SIGNAL, 3)
        else:
            event = Event.timer(base, fire, persist=kind != "once")
            event.add(0 if "once" in kind else 0.001)
        try:
            base.loop(LoopFlag.ONCE)
        except ForkError:
            assert children == [0] and not reinit
            base.reinit()
        else:
            assert children != [0] or reinit
        base.loop(LoopFlag.NONBLOCK)
        event.delete()
        assert not base.loop(LoopFlag.NONBLOCK)
        event.active()
        before = len(fired)
        base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)  # its timeout begins anew
        assert len(fired) == before + 1
        del event
        base.close()
        if children == [0]:
            sys.exit(0)
        assert os.waitpid(children[0], 0)[1] == 0
        """,
        kind,
        str(reinit),
    )


# Select.


def test_select_refuses_a_descriptor_beyond_its_sets() -> None:
    """Debian's libevent is fortified: in C the process ends there, by abort()."""
    run_python(
        """
        import resource, socket
        from fcntl import F_DUPFD, fcntl
        from libevent_py import Event, EventBase, EventConfig, EventFlag, LoopFlag

        READ, PERSIST = EventFlag.READ, EventFlag.PERSIST
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (2000, hard))
        left, right = socket.socketpair()
        right.send(b"x")
        with EventBase(EventConfig(avoid=["epoll", "poll"])) as base, left, right:
            assert base.method == "select"
            fired = []
            last, beyond = fcntl(left, F_DUPFD, 1023), fcntl(left, F_DUPFD, 1500)
            assert (last, beyond) == (1023, 1500)
            note = lambda event, fd, what: fired.append(fd)
            Event(base, last, READ, note).add()
            event = Event(base, beyond, READ | PERSIST, note)
            for timeout in None, 5, 5.0, base.init_common_timeout(5):
                try:
                    event.add(timeout)
                except OSError as error:
                    assert "event_add: fd 1500 with select: Invalid argument" in str(error), error
                else:
                    raise AssertionError("it was added")
                assert event.pending == 0
                assert event._key not in base._live
            try:
                base.once(print, fd=beyond, what=READ)
            except OSError as error:
                assert "1500" in str(error), error
            else:
                raise AssertionError("it was added")
            base.dispatch()
            assert fired == [1023]
            event.active(READ)
            base.loop(LoopFlag.NONBLOCK)
            assert fired == [1023, 1500]
        """
    )
