"""The loop of a base: how it runs, how it is stopped, and what it is given to do (B4 to B6, C7)."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import socket
import threading
import time
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    Event,
    EventBase,
    EventBaseCount,
    EventFlag,
    LoopFlag,
)
from tests.kit.flags import NONBLOCK, ONCE, PERSIST, READ, TIMEOUT, WRITE
from tests.kit.interposing import Within
from tests.kit.peers import Pair
from tests.kit.support import PATIENCE, only, run_c

NO_EXIT_ON_EMPTY = LoopFlag.NO_EXIT_ON_EMPTY
ADDED = EventBaseCount.ADDED


# B4, B5: the loop.


def test_one_loop_runs_a_base_at_a_time(base: EventBase) -> None:
    """B4: a nested loop is refused, and the one below goes on."""
    refused: list[str] = []
    ran: list[int] = []

    def callback(fd: int, what: int) -> None:
        for function in (base.dispatch, base.loop, base.close):
            with pytest.raises(RuntimeError) as caught:
                function()
            refused.append(str(caught.value))

    base.once(callback)
    base.once(lambda fd, what: ran.append(1))
    assert base.dispatch() is False
    assert len(refused) == 3
    assert "runs already" in refused[0]
    assert "while the loop runs" in refused[2]
    assert ran == [1]
    assert not base.closed


def test_a_base_can_t_be_closed_inside_its_with_block_s_loop() -> None:
    """B4: the exception that says so comes out, and the base is closed at the end."""
    with pytest.raises(RuntimeError, match="while the loop runs"), EventBase() as base:
        base.once(lambda fd, what: base.close())
        base.dispatch()
    assert base.closed


def test_another_base_s_loop_may_run_and_be_closed_inside_a_callback(base: EventBase) -> None:
    """B4: only one loop per base, but any number of bases."""
    order: list[str] = []

    def callback(fd: int, what: int) -> None:
        with EventBase() as other:
            other.once(lambda fd, what: order.append("inner"))
            other.dispatch()
        order.append("outer")

    base.once(callback)
    base.dispatch()
    assert order == ["inner", "outer"]


def test_the_loop_s_result_says_whether_there_were_events(base: EventBase) -> None:
    """B5: only -1 is an error; 1 is False, 0 is True."""
    assert base.dispatch() is False
    assert base.loop(NONBLOCK) is False
    event = Event.timer(base, lambda *_: None).add(1000)
    assert base.loop(NONBLOCK) is True
    base.once(lambda fd, what: None)
    assert base.loop(ONCE) is True
    base.once(lambda fd, what: base.loopexit())
    assert base.dispatch() is True
    base.once(lambda fd, what: base.loopbreak())
    assert base.dispatch() is True
    event.delete()
    assert base.dispatch() is False


def test_a_backend_that_fails_is_an_os_error() -> None:
    """B5: the descriptor under the backend's feet is replaced by another."""
    with only("epoll") as base:
        epoll = [
            int(name)
            for name in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{name}")
            and "eventpoll" in os.readlink(f"/proc/self/fd/{name}")
        ]
        base.once(print, timeout=1000)
        base.loop(NONBLOCK)
        with open(os.devnull) as null:
            os.dup2(null.fileno(), max(epoll), inheritable=False)
        with pytest.raises(OSError) as caught:
            base.dispatch()
        assert caught.value.errno in (errno.EBADF, errno.EINVAL)
        assert "event_base_loop" in str(caught.value)


def test_a_loop_told_so_waits_for_what_is_not_there_yet(base: EventBase) -> None:
    timer = threading.Timer(0.05, base.loopexit)
    timer.start()
    assert base.loop(NO_EXIT_ON_EMPTY) is True
    timer.join()
    assert base.got_exit


NONBLOCK_IN_C = r"""
    #include <stdio.h>
    #include <event2/event.h>
    #include <event2/util.h>

    static struct event_base *base;
    static int calls;

    static void on_ready(evutil_socket_t fd, short what, void *arg)
    {
        if (++calls == 1000)
            event_base_loopbreak(base);
    }

    static void run(evutil_socket_t fd, short what, int flags)
    {
        struct event *ev = event_new(base, fd, what, on_ready, NULL);
        int result;

        event_add(ev, NULL);
        calls = 0;
        result = event_base_loop(base, flags);
        printf("%d %d %d\n", result, calls, event_base_got_break(base));
        event_free(ev);
    }

    int main(void)
    {
        evutil_socket_t pair[2];

        base = event_base_new();
        if (evutil_socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 || send(pair[0], "x", 1, 0) != 1)
            return 1;
        run(pair[1], EV_READ | EV_PERSIST, EVLOOP_NONBLOCK);
        run(pair[1], EV_WRITE | EV_PERSIST, EVLOOP_NONBLOCK);
        run(pair[1], EV_READ | EV_PERSIST, EVLOOP_ONCE | EVLOOP_NONBLOCK);
        run(pair[1], EV_READ | EV_PERSIST | EV_ET, EVLOOP_NONBLOCK);
        run(pair[1], EV_READ, EVLOOP_NONBLOCK);
        return 0;
    }
"""


def test_nonblock_alone_goes_on_while_a_descriptor_stays_ready_as_in_c(
    pair: Pair, tmp_path: Path
) -> None:
    """Only loopbreak() ends it; with ONCE besides it is one round of callbacks."""
    left, right = pair
    left.send(b"x")
    lines: list[str] = []
    with only("epoll") as base:

        def run(what: EventFlag, flags: LoopFlag) -> None:
            calls = itertools.count(1)
            last = 0

            def on_ready(event: Event, fd: int, what: EventFlag) -> None:
                nonlocal last
                last = next(calls)
                if last == 1000:
                    base.loopbreak()

            with Event(base, right, what, on_ready) as event:
                event.add()
                result = base.loop(flags)
                lines.append(f"{int(not result)} {last} {int(base.got_break)}")

        run(READ | PERSIST, NONBLOCK)
        run(WRITE | PERSIST, NONBLOCK)
        run(READ | PERSIST, ONCE | NONBLOCK)
        run(READ | PERSIST | EventFlag.ET, NONBLOCK)
        run(READ, NONBLOCK)
    assert lines == ["0 1000 1", "0 1000 1", "0 1 0", "0 1 0", "1 1 0"]
    assert run_c(NONBLOCK_IN_C, tmp_path).splitlines() == lines


@pytest.mark.parametrize("flags", [8, -1, 1 << 40])
def test_unknown_loop_flags_are_refused(base: EventBase, flags: int) -> None:
    with pytest.raises(ValueError, match="flags"):
        base.loop(flags)
    with pytest.raises(TypeError, match="flags"):
        base.loop(True)


# B6: loopexit, loopbreak, loopcontinue.


def test_a_loopexit_is_over_with_the_loop_it_was_meant_for(base: EventBase) -> None:
    """B6: C's timer would stop the second loop."""
    base.loopexit(0.05)
    base.once(lambda fd, what: base.loopbreak())
    assert base.dispatch() is True
    assert base.got_break
    assert base.num_events(ADDED) == base.num_events(ADDED)
    fired: list[int] = []
    base.once(lambda fd, what: fired.append(1), timeout=0.15)
    assert base.dispatch() is False
    assert fired == [1]


def test_a_loopexit_that_is_over_keeps_no_loop_waiting(base: EventBase) -> None:
    """B6: nor does it keep an empty loop from ending."""
    base.once(lambda fd, what: base.loopexit(1000))
    base.once(lambda fd, what: base.loopbreak())
    assert base.dispatch() is True
    assert base.dispatch() is False


@pytest.mark.parametrize("timeout", [None, 0, 0.01])
def test_a_loopexit_before_the_loop_stops_it(base: EventBase, timeout: float | None) -> None:
    """B6: unlike a loopbreak, which is forgotten when a loop begins."""
    event = Event.timer(base, print).add(1000)
    base.loopexit(timeout)
    assert base.dispatch() is True
    assert base.got_exit
    base.loopbreak()
    event.delete()
    assert base.dispatch() is False
    assert not base.got_exit
    assert not base.got_break


@pytest.mark.parametrize("order", [(0.02, 1000), (1000, 0.02), (0.02, 0.02)])
def test_of_several_loopexits_the_first_counts(base: EventBase, order: tuple[float, ...]) -> None:
    Event.timer(base, print).add(2000)
    for timeout in order:
        base.loopexit(timeout)
    assert base.dispatch() is True
    assert base.got_exit


class InExits(Within):
    names = ("loopexit", "exit_after", "_exit", "evpy_wake")


def test_a_loopexit_amid_another_one_is_not_lost() -> None:
    """The later time of the outer one replaced that of a signal handler."""
    for number in itertools.count():
        with EventBase() as base:
            interposer = InExits(partial(base.loopexit, 0.001), number, signals=True)
            interposer.run(base.loopexit, 1000)
            if interposer.where is None:
                break
            base.once(lambda *_: base.loopbreak(), timeout=1)
            base.dispatch()
            assert base.got_exit, interposer.where
    assert number > 3


def test_a_loopexit_amid_the_end_of_an_earlier_one_stops_no_later_loop() -> None:
    for number in itertools.count():
        with EventBase() as base:
            base.loopexit(0.0)
            interposer = InExits(partial(base.loopexit, 0.02), number, signals=True)
            interposer.run(base.loop, NO_EXIT_ON_EMPTY)
            if interposer.where is None:
                break
            base.once(lambda *_: None, timeout=0.05)
            base.dispatch()
            assert not base.got_exit, interposer.where
    assert number > 3


def test_a_loopexit_lets_the_other_active_events_finish_and_a_loopbreak_does_not(
    base: EventBase,
) -> None:
    called: list[int] = []

    def callback(event: Event, fd: int, what: int) -> None:
        called.append(1)
        base.loopexit() if exits else base.loopbreak()

    events = [Event.user(base, callback) for _ in range(3)]
    for exits, expected in ((True, 3), (False, 1)):
        called.clear()
        for event in events:
            event.active()
        assert base.dispatch() is True
        assert len(called) == expected
        assert (base.got_exit, base.got_break) == (exits, not exits)


def test_a_loopcontinue_has_the_loop_look_for_more_urgent_events(pair: Pair) -> None:
    order: list[str] = []
    with EventBase(priorities=2) as base:
        urgent = Event(base, pair[0], READ, lambda *_: order.append("urgent"), priority=0).add()

        def callback(event: Event, fd: int, what: int) -> None:
            order.append("event")
            pair[1].send(b".")
            base.loopcontinue()

        events = [Event(base, -1, 0, callback, priority=1) for _ in range(3)]
        for event in events:
            event.active()
        base.dispatch()
        assert order[:2] == ["event", "urgent"]
        assert order.count("event") == 3
        urgent.close()


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), 1e12])
def test_a_loopexit_at_no_time_is_refused(base: EventBase, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        base.loopexit(timeout)
    with pytest.raises(TypeError, match="timeout"):
        base.loopexit("later")  # type: ignore[arg-type]
    assert base.dispatch() is False


# once.


def test_once_calls_once_at_the_next_turn_in_order(base: EventBase) -> None:
    called: list[tuple[int, int, EventFlag]] = []
    for number in range(3):
        base.once(lambda fd, what, number=number: called.append((number, fd, what)))  # type: ignore[misc]
    assert base.dispatch() is False
    assert called == [(number, -1, TIMEOUT) for number in range(3)]
    assert base.dispatch() is False
    assert len(called) == 3


@pytest.mark.parametrize("what", [TIMEOUT, int(TIMEOUT)])
def test_once_calls_after_the_timeout(base: EventBase, what: int) -> None:
    called: list[float] = []
    start = time.monotonic()
    base.once(lambda fd, what: called.append(time.monotonic()), what=what, timeout=0.05)
    base.once(lambda fd, what: called.append(0), timeout=0)
    base.dispatch()
    assert called[0] == 0
    assert called[1] - start >= 0.045


def test_once_calls_when_a_descriptor_is_ready(backend_base: EventBase, pair: Pair) -> None:
    called: list[tuple[int, EventFlag]] = []
    callback = lambda fd, what: called.append((fd, what))  # noqa: E731
    backend_base.once(callback, fd=pair[0], what=READ)
    backend_base.once(callback, fd=pair[0].fileno(), what=WRITE)
    backend_base.loop(ONCE)
    assert called == [(pair[0].fileno(), WRITE)]
    pair[1].send(b".")
    assert backend_base.dispatch() is False
    assert called[1:] == [(pair[0].fileno(), READ)]


def test_once_calls_for_whichever_comes_first(base: EventBase, pair: Pair) -> None:
    called: list[EventFlag] = []
    base.once(lambda fd, what: called.append(what), fd=pair[0], what=READ | TIMEOUT, timeout=0.02)
    base.dispatch()
    assert called == [TIMEOUT]
    pair[1].send(b".")
    base.once(lambda fd, what: called.append(what), fd=pair[0], what=READ, timeout=1000)
    base.dispatch()
    assert called == [TIMEOUT, READ]


def test_once_may_be_called_in_its_own_callback(base: EventBase) -> None:
    called: list[int] = []

    def callback(fd: int, what: int) -> None:
        called.append(1)
        if len(called) < 5:
            base.once(callback)

    base.once(callback)
    base.dispatch()
    assert len(called) == 5


def test_once_keeps_a_socket_alive_until_it_is_ready(base: EventBase) -> None:
    left, right = socket.socketpair()
    gone = weakref.ref(left)
    number = left.fileno()
    called: list[int] = []
    base.once(lambda fd, what: called.append(fd), fd=left, what=READ)
    left.settimeout(1)
    del left
    gc.collect()
    kept = gone()
    assert kept is not None
    right.send(b".")
    assert base.dispatch() is False
    assert called == [number]
    kept.close()
    del kept
    assert gone() is None
    right.close()


def test_once_lets_its_callback_go_when_it_has_fired_or_never_can(base: EventBase) -> None:
    class Callback:
        def __call__(self, fd: int, what: int) -> None:
            pass

    fired, closed = Callback(), Callback()
    gone = [weakref.ref(fired), weakref.ref(closed)]
    base.once(fired)
    other = EventBase()
    other.once(closed, timeout=1000)
    del fired, closed
    base.dispatch()
    other.close()
    assert [ref() for ref in gone] == [None, None]


@pytest.mark.parametrize(
    ("options", "kind", "named"),
    [
        ({"what": EventFlag.SIGNAL, "fd": 10}, ValueError, "what"),
        ({"what": READ | PERSIST, "fd": 0}, ValueError, "what"),
        ({"what": READ | EventFlag.ET, "fd": 0}, ValueError, "what"),
        ({"what": EventFlag(0), "fd": 0}, ValueError, "what"),
        ({"what": 1 << 20, "fd": 0}, ValueError, "what"),
        ({"what": "READ", "fd": 0}, TypeError, "what"),
        ({"what": READ}, ValueError, "fd"),
        ({"what": READ, "fd": -7}, ValueError, "fd"),
        ({"what": READ, "fd": 10**6}, OSError, "fd 1000000"),
        ({"what": READ, "fd": "stdin"}, TypeError, "fd"),
        ({"timeout": -1}, ValueError, "timeout"),
        ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"timeout": 1e12}, ValueError, "timeout"),
        ({"timeout": "1"}, TypeError, "timeout"),
    ],
)
def test_once_refuses_what_c_would_not_do(
    base: EventBase, options: dict[str, Any], kind: type[Exception], named: str
) -> None:
    with pytest.raises(kind, match=named):
        base.once(print, **options)
    assert base._once_callbacks == {}
    assert base.dispatch() is False


def test_once_needs_something_to_call(base: EventBase) -> None:
    with pytest.raises(TypeError, match="callback must be callable, not 3"):
        base.once(3)  # type: ignore[arg-type]


def test_a_once_that_fails_leaves_nothing_and_the_base_unlocked(
    base: EventBase, tmp_path: Path
) -> None:
    """C7: event_base_once() would leave the base locked for every other thread."""
    with open(tmp_path / "file", "w") as file:
        # Where there is no epoll (macOS), there is no way to have C fail here.
        if base.method != "epoll":
            pytest.skip("only epoll refuses regular files")
        with pytest.raises(PermissionError, match=f"fd {file.fileno()}"):
            base.once(print, fd=file.fileno(), what=READ)
        unlocked = threading.Thread(target=base.loopbreak, daemon=True)
        unlocked.start()
        unlocked.join(PATIENCE)
        assert not unlocked.is_alive()
    assert base._once_callbacks == {}
    assert base.dispatch() is False


# defer.


def test_deferred_functions_run_in_the_loop_in_order(base: EventBase) -> None:
    ran: list[tuple[Any, ...]] = []
    base.defer(lambda: ran.append(()))
    base.defer(lambda *args: ran.append(args), 1, "two")
    assert ran == []
    assert base.dispatch() is False
    assert ran == [(), (1, "two")]


@pytest.mark.parametrize("priorities", [1, 3])
def test_a_function_that_defers_itself_lets_others_in(pair: Pair, priorities: int) -> None:
    ran: list[int] = []
    with EventBase(priorities=priorities) as base:

        def again() -> None:
            ran.append(1)
            if len(ran) < 1000:
                base.defer(again)

        ready_at: list[int] = []
        pair[1].send(b".")
        event = Event(base, pair[0], READ, lambda *_: ready_at.append(len(ran))).add()
        timer = Event.timer(base, lambda *_: ready_at.append(len(ran))).add(0)
        base.defer(again)
        base.dispatch()
        assert len(ran) == 1000
        assert max(ready_at) < 10
        assert len(ready_at) == 2
        event.close()
        timer.close()


def test_a_callback_that_defers_in_every_turn_does_not_put_off_what_it_defers(pair: Pair) -> None:
    turns, ran = itertools.count(1), list[Any]()
    with EventBase() as base:

        def ready(*_: object) -> None:
            base.defer(ran.append, turn := next(turns))
            if turn == 1000:
                base.loopbreak()

        pair[1].send(b".")
        event = Event(base, pair[0], READ | PERSIST, ready).add()
        base.dispatch()
        assert len(ran) > 900
        event.close()


def test_what_was_deferred_on_a_base_that_is_closed_goes(base: EventBase) -> None:
    class Function:
        def __call__(self) -> None:
            raise AssertionError

    function = Function()
    gone = weakref.ref(function)
    other = EventBase()
    other.defer(function)
    del function
    other.close()
    assert gone() is None


def test_only_what_can_be_called_is_deferred(base: EventBase) -> None:
    with pytest.raises(TypeError, match="function must be callable, not 3"):
        base.defer(3)  # type: ignore[arg-type]
