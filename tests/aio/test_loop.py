"""`aio.EventLoop`: coroutines on a base, and what else is on it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import signal
import socket
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    ClosedError,
    DnsBase,
    DnsResult,
    DnsServer,
    DnsServerRequest,
    DnsType,
    Event,
    EventBase,
    EventBaseCount,
    HttpServer,
    HttpServerRequest,
    Listener,
    aio,
)
from libevent_py._core.wakeup import wakeup
from tests.kit.flags import CLOSE, PERSIST, READ, WRITE
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import PATIENCE, run_python


@pytest.fixture(params=[False, True], ids=["", "debug"])
def loop(base: EventBase, request: pytest.FixtureRequest) -> Iterator[aio.EventLoop]:
    """A loop on a base of the user's, in debug mode and out of it."""
    with contextlib.closing(aio.EventLoop(base)) as loop:
        loop.set_debug(request.param)
        yield loop


def pending(base: EventBase) -> int:
    """Return how many events are added on *base*."""
    return base.num_events(EventBaseCount.ADDED)


def interrupting(seconds: float) -> threading.Timer:
    """Return a thread that will interrupt this process by Ctrl-C, *seconds* after its start."""
    return threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))


def later(seconds: float, function: Callable[..., object], *args: object) -> threading.Timer:
    """Have another thread call *function* in some *seconds*."""
    timer = threading.Timer(seconds, function, args)
    timer.start()
    return timer


# Whose base it is.


def test_a_loop_without_a_base_closes_its_own() -> None:
    loop = aio.EventLoop()
    base = loop.base
    loop.run_until_complete(asyncio.sleep(0))
    assert not base.closed
    loop.close()
    loop.close()
    assert base.closed
    assert loop.is_closed()


def test_a_user_s_base_stays_open_and_nothing_is_left_on_it(base: EventBase) -> None:
    loop = aio.EventLoop(base)
    assert loop.base is base
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert not base.closed
    assert base.events() == []
    assert pending(base) == 0


def test_names_are_looked_up_by_evdns_if_the_loop_has_one(base: EventBase) -> None:
    def answer(request: DnsServerRequest) -> None:
        [question] = request.questions
        known = question.name.lower() == "name.example"  # evdns mixes the case
        if known and question.type is DnsType.A:
            request.add_a_reply(question.name, "127.0.0.1", ttl=60)
        request.respond(DnsResult.NONE if known else DnsResult.NOTEXIST)

    async def main() -> bytes:
        loop = asyncio.get_running_loop()

        async def greet(_reader: Any, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            found = await loop.getaddrinfo("name.example", b"80", type=socket.SOCK_STREAM)
            assert found == [
                (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 80))
            ]
            with pytest.raises(socket.gaierror):
                await loop.getaddrinfo("no.example", 80)
            reader, writer = await asyncio.open_connection("name.example", port)
            said = await reader.read()
            writer.close()
            return said

    server = DnsServer(base, ("127.0.0.1", 0), answer)
    dns = DnsBase(base, 0)
    dns.nameserver_sockaddr_add(server.address)
    own = aio.EventLoop(base, dns_base=dns)
    try:
        assert own.run_until_complete(main()) == b"hello"
    finally:
        own.close()


def test_a_resolver_must_be_one_on_the_same_base(base: EventBase) -> None:
    with pytest.raises(TypeError, match="dns_base must be a DnsBase, not 'evdns'"):
        aio.EventLoop(base, dns_base="evdns")  # type: ignore[arg-type]
    with DnsBase(base, 0) as dns, EventBase() as other:
        for wrong in (other, None):
            with pytest.raises(ValueError, match="dns_base must be made on"):
                aio.EventLoop(wrong, dns_base=dns)


def test_a_base_must_be_one() -> None:
    with pytest.raises(TypeError, match="base must be an EventBase"):
        aio.EventLoop("base")  # type: ignore[arg-type]


def test_a_loop_that_does_not_run_keeps_nobody_waiting(
    base: EventBase, loop: aio.EventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Its readers would keep the base's own loop from ending, or keep it spinning."""
    called: list[int] = []
    loop.add_reader(pair[0], called.append, 1)
    loop.call_soon(called.append, 2)
    loop.call_later(0, called.append, 3)
    pair[1].send(b"x")
    assert pending(base) == 0
    assert base.dispatch() is False
    assert called == []
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert called == [2, 1, 3] or called == [2, 3, 1]
    assert pending(base) == 0
    assert base.dispatch() is False
    assert loop.remove_reader(pair[0]) is True
    assert loop.remove_reader(pair[0]) is False


def test_a_second_loop_can_run_on_a_base_after_the_first(base: EventBase) -> None:
    for _ in range(2):
        assert aio.run(asyncio.sleep(0, "done"), base=base) == "done"
    first, second = aio.EventLoop(base), aio.EventLoop(base)
    assert first.run_until_complete(asyncio.sleep(0, 1)) == 1
    assert second.run_until_complete(asyncio.sleep(0, 2)) == 2
    assert first.run_until_complete(asyncio.sleep(0, 3)) == 3
    first.close()
    second.close()


# In between.


def test_the_base_s_other_events_run_in_between(
    base: EventBase, loop: aio.EventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ticks: list[str] = []
    tick = Event.timer(base, lambda *_: ticks.append("timer"), persist=True).add(0.001)
    reads = Event(base, pair[0], READ | PERSIST, lambda *_: ticks.append("descriptor")).add()
    pair[1].send(b"x")

    async def main() -> None:
        while ticks.count("timer") < 3 or ticks.count("descriptor") < 3:
            await asyncio.sleep(0)
        ticks.clear()
        while ticks.count("timer") < 3:
            await asyncio.sleep(0.001)

    loop.run_until_complete(asyncio.wait_for(main(), PATIENCE))
    tick.close()
    reads.close()


def test_a_callback_of_the_base_s_may_use_the_loop(base: EventBase, loop: aio.EventLoop) -> None:
    """It wakes the loop by itself, which has nothing else to do."""

    async def main(what: str) -> float:
        future = loop.create_future()
        callbacks: dict[str, Callable[[], object]] = {
            "result": lambda: future.set_result(None),
            "soon": lambda: loop.call_soon(future.set_result, None),
            "later": lambda: loop.call_later(0.001, future.set_result, None),
            "task": lambda: loop.create_task(finish(future)),
            "stop": loop.stop,
        }
        base.once(lambda *_: callbacks[what](), timeout=0.01)
        begun = time.monotonic()
        await future
        return time.monotonic() - begun

    async def finish(future: asyncio.Future[None]) -> None:
        future.set_result(None)

    for what in ("result", "soon", "later", "task"):
        assert 0.005 < loop.run_until_complete(main(what)) < PATIENCE
    with pytest.raises(RuntimeError, match="stopped before"):
        loop.run_until_complete(main("stop"))
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))


def test_a_callback_may_hurry_a_loop_that_waits_for_a_timer(
    base: EventBase, loop: aio.EventLoop
) -> None:
    order: list[str] = []
    loop.call_later(0.2, lambda: (order.append("late"), loop.stop()))
    base.once(lambda *_: loop.call_later(0.02, order.append, "sooner"), timeout=0.01)
    base.once(lambda *_: loop.call_later(1000, order.append, "never"), timeout=0.02)
    loop.run_forever()
    assert order == ["sooner", "late"]


def test_bufferevents_and_coroutines_share_a_base(base: EventBase, loop: aio.EventLoop) -> None:
    """A server of libevent's answers a stream of asyncio's, and the other way round."""
    served: list[BufferEvent] = []

    def accepted(listener: Listener, fd: int, address: Any) -> None:
        bev = BufferEvent(base, fd, CLOSE)
        bev.on_read = lambda bev: bev.write(bev.read().upper())
        bev.enable(READ | WRITE)
        served.append(bev)

    async def main() -> None:
        reader, writer = await asyncio.open_connection(*listener.address[:2])
        for text in (b"hello", b"x" * 100_000):
            writer.write(text)
            assert await reader.readexactly(len(text)) == text.upper()
        writer.close()
        await writer.wait_closed()

    with Listener(base, ("127.0.0.1", 0), accepted) as listener:
        loop.run_until_complete(asyncio.wait_for(main(), PATIENCE))
    for bev in served:
        bev.close()


def test_a_handler_of_evhttp_s_answers_from_a_coroutine(
    base: EventBase, loop: aio.EventLoop
) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def answer(request: HttpServerRequest) -> None:
        await asyncio.sleep(0.001)
        request.send_reply(200, "OK", b"from a coroutine")

    async def main(address: Any) -> bytes:
        reader, writer = await asyncio.open_connection(*address[:2])
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    with HttpServer(base) as server:
        server.set_gencb(lambda request: tasks.append(loop.create_task(answer(request))))
        bound = server.bind_socket("127.0.0.1", 0)
        answered = loop.run_until_complete(asyncio.wait_for(main(bound.address), PATIENCE))
    assert answered.endswith(b"from a coroutine")
    assert tasks[0].done()


def test_what_never_ends_leaves_time_for_descriptors_and_timers(
    base: EventBase, loop: aio.EventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    turns = [0]

    async def spin() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    async def main() -> bytes:
        task = loop.create_task(spin())
        base.once(lambda *_: pair[1].send(b"x"), timeout=0.01)
        got = await loop.sock_recv(pair[0], 10)
        await asyncio.sleep(0.001)
        task.cancel()
        return got

    assert loop.run_until_complete(asyncio.wait_for(main(), PATIENCE)) == b"x"
    assert turns[0] > 1


# Timers.


def test_timers_run_in_their_order(loop: aio.EventLoop) -> None:
    order: list[float] = []
    now = loop.time()
    delays = [0.03, 0.01, 0.0, 0.02, 0.0101, -1.0]
    for delay in delays:
        loop.call_at(now + delay, order.append, delay)
    loop.call_at(now + 0.05, loop.stop)
    loop.run_forever()
    assert order == sorted(delays)
    assert loop.time() - now >= 0.05


def test_a_timer_never_runs_too_early(loop: aio.EventLoop) -> None:
    async def main() -> None:
        for _ in range(30):
            due = loop.time() + 0.0013
            await asyncio.sleep(0.0013)
            assert loop.time() >= due - 1e-6

    loop.run_until_complete(main())


def test_cancelled_timers_are_forgotten(loop: aio.EventLoop) -> None:
    """Those at the head when others are due, and all of them when they are the most."""
    ran: list[int] = []
    timers = [loop.call_later(1000, ran.append, n) for n in range(300)]
    for timer in timers[:250]:
        timer.cancel()
    loop.call_later(0.01, loop.stop)
    first = loop.call_later(0.001, ran.append, -1)
    first.cancel()
    begun = time.monotonic()
    loop.run_forever()
    assert time.monotonic() - begun < PATIENCE
    assert ran == []
    assert len(loop._scheduled) == 50
    assert loop._timer_cancelled_count == 0
    for timer in timers[250:]:
        timer.cancel()


@pytest.mark.parametrize("delay", [float("inf"), 1e300, 1e6])
def test_a_timer_may_be_too_far_away_for_libevent(loop: aio.EventLoop, delay: float) -> None:
    timer = loop.call_later(delay, print)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert not timer.cancelled()
    assert loop.run_until_complete(asyncio.sleep(0, "goes on")) == "goes on"


# Exceptions, and the end of a run.


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_comes_out_and_the_loop_goes_on_later(
    loop: aio.EventLoop, kind: type[BaseException]
) -> None:
    ran: list[int] = []

    def end() -> None:
        raise kind

    loop.call_soon(end)
    loop.call_soon(ran.append, 1)
    with pytest.raises(kind):
        loop.run_forever()
    assert not loop.is_running()
    assert ran == []
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == [1]


def test_other_exceptions_of_asyncio_s_go_to_its_handler(loop: aio.EventLoop) -> None:
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: told.append(context))
    loop.call_soon(lambda: [][0])
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert type(told[0]["exception"]) is IndexError


def test_what_the_base_s_callbacks_raise_comes_out(base: EventBase, loop: aio.EventLoop) -> None:
    base.once(lambda *_: [][0])
    with pytest.raises(IndexError):
        loop.run_forever()
    seen: list[Exception] = []
    base.on_error = lambda error, source: seen.append(error)
    base.once(lambda *_: [][0])
    loop.run_until_complete(asyncio.sleep(0.001))
    assert type(seen[0]) is IndexError


@pytest.mark.parametrize("how", ["loopbreak", "loopexit"])
def test_what_stops_the_base_stops_the_loop(base: EventBase, loop: aio.EventLoop, how: str) -> None:
    base.once(lambda *_: getattr(base, how)(), timeout=0.001)
    loop.run_forever()
    base.once(lambda *_: getattr(base, how)(), timeout=0.001)
    with pytest.raises(RuntimeError, match="stopped before"):
        loop.run_until_complete(asyncio.sleep(1000))
    for task in asyncio.all_tasks(loop):
        task.cancel()
    assert loop.run_until_complete(asyncio.sleep(0, "goes on")) == "goes on"


def test_a_stopped_loop_runs_what_is_ready_and_no_more(loop: aio.EventLoop) -> None:
    ran: list[str] = []
    loop.stop()
    loop.call_soon(lambda: (ran.append("first"), loop.call_soon(ran.append, "next")))
    loop.run_forever()
    assert ran == ["first"]
    loop.stop()
    loop.run_forever()
    assert ran == ["first", "next"]


@pytest.mark.parametrize("ready", [False, True], ids=["", "with something ready"])
def test_a_reader_that_stops_the_loop_ends_its_turn(
    loop: aio.EventLoop, pair: tuple[socket.socket, socket.socket], ready: bool
) -> None:
    """What it has called itself waits for the next run."""
    ran: list[str] = []

    def read() -> None:
        ran.append("read")
        loop.call_soon(ran.append, "next")
        loop.stop()

    loop.add_reader(pair[0], read)
    loop.add_writer(pair[0], ran.append, "write")
    loop.add_writer(pair[1], ran.append, "write")
    pair[1].send(b"x")
    if ready:
        loop.call_soon(ran.append, "ready")
    loop.run_forever()
    assert "read" in ran and "next" not in ran
    assert ("ready" in ran) is ready
    loop.remove_reader(pair[0])
    loop.remove_writer(pair[0])
    loop.remove_writer(pair[1])
    ran.clear()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == ["next"]


def test_a_reader_that_ends_the_program_comes_out(
    loop: aio.EventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    told: list[dict[str, Any]] = []
    errors: list[type[BaseException]] = [KeyboardInterrupt, ValueError]
    loop.set_exception_handler(lambda loop, context: (told.append(context), loop.stop()))

    def read() -> None:
        pair[0].recv(1)
        raise errors.pop(0)

    loop.add_reader(pair[0], read)
    pair[1].send(b"xy")
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.run_forever()
    assert type(told[0]["exception"]) is ValueError


def test_a_reader_can_be_cancelled_by_its_handle(
    loop: aio.EventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    handle = loop._add_reader(pair[0], print)
    pair[1].send(b"x")
    loop.call_soon(handle.cancel)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert loop.remove_reader(pair[0]) is False


def test_a_user_who_closes_the_loop_s_own_events_only_breaks_it(base: EventBase) -> None:
    loop = aio.EventLoop(base)

    def meddle() -> None:
        for event in base.events():
            event.close()

    for meddles in (loop.call_soon, lambda f: base.once(lambda *_: f(), timeout=0.001)):
        meddles(meddle)
        loop.call_later(0.01, loop.stop)
        with pytest.raises(ClosedError):
            loop.run_forever()
            loop.run_forever()
    loop.close()


def test_ctrl_c_wakes_a_loop_that_waits(loop: aio.EventLoop) -> None:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = interrupting(0.05)
    begun = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            loop.run_until_complete(asyncio.sleep(PATIENCE))
    finally:
        timer.join()
        signal.signal(signal.SIGINT, handler)
    assert time.monotonic() - begun < PATIENCE / 2
    with contextlib.suppress(asyncio.CancelledError):
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))


# Python 3.10's run() handles no SIGINT itself: KeyboardInterrupt is raised wherever it comes.
@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio itself cancels by it from 3.11 on")
def test_ctrl_c_cancels_what_run_runs(base: EventBase) -> None:
    ended: list[str] = []

    async def main() -> None:
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = interrupting(0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            aio.run(main(), base=base)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, handler)
    assert ended == ["cancelled"]


# Signals.


def wakeup_fd() -> int:
    """Return the wakeup descriptor that is set."""
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    return fd


@pytest.mark.parametrize("added", ["before", "meanwhile"])
def test_a_signal_handler_runs_in_each_run_of_the_loop(loop: aio.EventLoop, added: str) -> None:
    got: list[int] = []

    async def main() -> None:
        if added == "meanwhile" and not got:
            loop.add_signal_handler(signal.SIGUSR1, got.append, 1)
        before = len(got)
        timer = later(0.01, os.kill, os.getpid(), signal.SIGUSR1)
        end = time.monotonic() + PATIENCE
        while len(got) == before:
            assert time.monotonic() < end
            await asyncio.sleep(0.2)
        timer.join()

    if added == "before":
        loop.add_signal_handler(signal.SIGUSR1, got.append, 1)
    for _ in range(3):
        loop.run_until_complete(main())
    assert got == [1, 1, 1]
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False
    assert wakeup_fd() == -1


def test_ctrl_c_wakes_a_loop_whose_signal_handlers_have_come_and_gone(loop: aio.EventLoop) -> None:
    """asyncio sets the wakeup descriptor, and unsets it, while the base's loop needs it."""

    async def main(removes: bool) -> None:
        loop.add_signal_handler(signal.SIGUSR1, print)
        if removes:
            loop.remove_signal_handler(signal.SIGUSR1)
        await asyncio.sleep(PATIENCE)

    for removes in (True, False):
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        timer = interrupting(0.05)
        begun = time.monotonic()
        try:
            with pytest.raises(KeyboardInterrupt):
                timer.start()
                loop.run_until_complete(main(removes))
        finally:
            timer.join()
            signal.signal(signal.SIGINT, handler)
        assert time.monotonic() - begun < PATIENCE / 2
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
    loop.remove_signal_handler(signal.SIGUSR1)
    assert wakeup_fd() == -1


# Threads.


def test_another_thread_wakes_the_loop(loop: aio.EventLoop) -> None:
    timer = later(0.02, loop.call_soon_threadsafe, loop.stop)
    loop.run_forever()
    timer.join()
    assert loop.run_until_complete(asyncio.wait_for(asyncio.to_thread(lambda: 5), PATIENCE)) == 5
    loop.run_until_complete(loop.shutdown_default_executor())


def test_many_calls_of_many_threads_all_come(loop: aio.EventLoop) -> None:
    came: list[int] = []

    def calls(number: int) -> None:
        for _ in range(500):
            loop.call_soon_threadsafe(came.append, number)
        loop.call_soon_threadsafe(ended)

    def ended() -> None:
        left.pop()
        if not left:
            loop.stop()

    left = [1, 2, 3]
    threads = [threading.Thread(target=calls, args=(n,)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    loop.run_forever()
    for thread in threads:
        thread.join()
    assert len(came) == 1500


def test_the_calls_that_are_for_one_thread_wake_the_loop_from_another(loop: aio.EventLoop) -> None:
    """asyncio's own loop would go on waiting; in debug mode it refuses them."""
    loop.set_debug(False)
    for call in (
        lambda: loop.call_soon(loop.stop),
        lambda: loop.call_later(0.001, loop.stop),
        loop.stop,
    ):
        timer = later(0.02, call)
        loop.run_forever()
        timer.join()


def test_a_loop_runs_in_the_thread_that_runs_it(base: EventBase) -> None:
    """And is closed in the one that has made it."""
    loop = aio.EventLoop(base)
    result: list[str] = []
    ran, go = threading.Event(), threading.Event()

    def run() -> None:
        result.append(loop.run_until_complete(asyncio.sleep(0.001, "there")))
        ran.set()
        go.wait(PATIENCE)

    for ends in (True, False):
        ran.clear()
        if ends:
            go.set()
        else:
            go.clear()
        thread = threading.Thread(target=run)
        thread.start()
        assert ran.wait(PATIENCE)
        if ends:
            thread.join()
            assert loop.run_until_complete(asyncio.sleep(0.001, "here")) == "here"
    loop.close()  # while the thread lives
    go.set()
    thread.join()
    assert result == ["there", "there"]
    assert base.events() == []


def test_a_loop_can_not_be_closed_while_another_thread_runs_it(base: EventBase) -> None:
    loop = aio.EventLoop(base)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    end = time.monotonic() + PATIENCE
    while not loop.is_running() and time.monotonic() < end:
        time.sleep(0.001)
    with pytest.raises(RuntimeError, match="running event loop"):
        loop.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


# The end, in every order.


def test_the_base_may_be_closed_before_the_loop() -> None:
    base = EventBase()
    loop = aio.EventLoop(base)
    left, right = socket.socketpair()
    loop.add_reader(left, print)
    base.close()
    loop.call_soon(print)
    with pytest.raises(ClosedError):
        loop.run_forever()
    assert not loop.is_running()
    loop.close()
    assert loop.is_closed()
    left.close()
    right.close()


def test_neither_is_closed_while_the_loop_runs(base: EventBase, loop: aio.EventLoop) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="running event loop"):
            loop.close()
        with pytest.raises(RuntimeError, match="while the loop runs"):
            base.close()

    loop.run_until_complete(main())
    assert not base.closed


def test_a_loop_may_be_closed_in_a_callback_of_its_base(base: EventBase) -> None:
    loop = aio.EventLoop(base)
    base.once(lambda *_: loop.close())
    base.dispatch()
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="is closed"):
        loop.run_forever()


def test_a_loop_of_its_own_base_may_be_made_run_and_closed_in_a_callback(base: EventBase) -> None:
    done: list[str] = []
    base.once(lambda *_: done.append(aio.run(asyncio.sleep(0.001, "inside"))))
    base.dispatch()
    assert done == ["inside"]


def test_a_loop_inside_a_callback_of_the_same_base_is_refused(
    base: EventBase, loop: aio.EventLoop
) -> None:
    def callback(*_: object) -> None:
        with pytest.raises(RuntimeError, match="runs already"):
            loop.run_forever()
        loop.call_soon(loop.stop)

    base.once(callback)
    base.dispatch()
    assert not loop.is_running()
    loop.run_forever()


def test_a_loop_inside_another_asyncio_loop_is_refused(loop: aio.EventLoop) -> None:
    async def main() -> None:
        other = aio.EventLoop()
        with pytest.raises(RuntimeError, match="while another loop is running"):
            other.run_forever()
        other.close()

    loop.run_until_complete(main())


def test_a_loop_that_is_dropped_warns_and_is_closed() -> None:
    loop = aio.EventLoop()
    base = loop.base
    loop.run_until_complete(asyncio.sleep(0))
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        gc.collect()
    assert base.closed


def test_nothing_is_left_of_a_loop_on_a_base_that_stays(base: EventBase) -> None:
    """Of tasks that were cancelled in the middle of a wait, either."""
    left, right = socket.socketpair()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiting = [
            asyncio.ensure_future(wait)
            for wait in (loop.sock_recv(left, 1), asyncio.sleep(1000), asyncio.Event().wait())
        ]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting[0]), 0.001)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    left.setblocking(False)
    loops = []
    for _ in range(3):
        loop = aio.EventLoop(base)
        loop.run_until_complete(main())
        assert loop._scheduled == [] or all(timer._cancelled for timer in loop._scheduled)
        loop.close()
        loops.append(weakref.ref(loop))
    del loop
    gc.collect()
    assert [ref() for ref in loops] == [None] * 3
    assert base._ledger == {} and base._live == {}
    left.close()
    right.close()


def test_no_descriptor_is_left_of_a_loop_that_could_not_be_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise OSError("no more descriptors")

    monkeypatch.setattr(socket, "socketpair", lambda *_: refuse())
    with pytest.raises(OSError, match="no more"):
        aio.EventLoop()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()


def test_a_running_loop_takes_readers_and_writers(
    loop: aio.EventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    order: list[str] = []

    def read() -> None:
        order.append(pair[0].recv(10).decode())
        loop.remove_reader(pair[0])
        loop.stop()

    def write() -> None:
        pair[1].send(b"hello")
        loop.remove_writer(pair[1])

    loop.add_reader(pair[0], order.append, "replaced")
    loop.call_soon(lambda: (loop.add_reader(pair[0], read), loop.add_writer(pair[1], write)))
    loop.run_forever()
    assert order == ["hello"]


def test_a_reader_of_what_is_closed_can_be_removed(loop: aio.EventLoop) -> None:
    left, right = socket.socketpair()
    loop.add_reader(left, print)
    loop.add_writer(left, print)
    left.close()
    assert loop.remove_reader(left) is True
    assert loop.remove_writer(left) is True
    with pytest.raises(ValueError, match="Invalid file"):
        loop.remove_reader(left)
    right.close()


def test_a_descriptor_that_the_backend_refuses_is_told_of_at_once(loop: aio.EventLoop) -> None:
    # Where there is no epoll (macOS), other backends take any descriptor, and C reports nothing.
    if loop.base.method != "epoll":
        pytest.skip("only epoll refuses files")
    with open(os.devnull) as null, pytest.raises(PermissionError):
        loop.add_reader(null, print)
    for wrong in ("x", -1, object()):
        with pytest.raises(ValueError):
            loop.add_reader(wrong, print)  # type: ignore[arg-type]


# The rest of asyncio.


def test_run_does_as_asyncio_s() -> None:
    ended: list[str] = []

    async def numbers() -> Any:
        try:
            yield 1
        finally:
            ended.append("generator")

    async def forever() -> None:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            ended.append("task")

    async def main() -> tuple[str, bool]:
        global kept
        asyncio.get_running_loop().create_task(forever())
        await asyncio.sleep(0)
        kept = numbers()
        await kept.__anext__()
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(lambda: None)
        return type(loop).__name__, loop.get_debug()

    assert aio.run(main()) == ("EventLoop", False)
    assert ended == ["task", "generator"]
    assert aio.run(main(), debug=True) == ("EventLoop", True)
    with pytest.raises(ZeroDivisionError):
        aio.run(divide())
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
        aio.run(nested(coroutine))
    coroutine.close()
    with pytest.raises(ValueError, match="a coroutine was expected"):
        aio.run(1)  # type: ignore[arg-type]


kept: Any = None


async def divide() -> None:
    _ = 1 / 0


async def nested(coroutine: Any) -> None:
    aio.run(coroutine)


def test_the_class_is_a_factory_for_asyncio_s_runner() -> None:
    # Python 3.10 has no such class: there is nothing that could take the factory.
    if sys.version_info < (3, 11):
        pytest.skip("asyncio.Runner is of 3.11")
    with asyncio.Runner(loop_factory=aio.EventLoop) as runner:
        assert runner.run(asyncio.sleep(0, 1)) == 1
        assert isinstance(runner.get_loop(), aio.EventLoop)
    if sys.version_info >= (3, 12):
        assert asyncio.run(asyncio.sleep(0, 2), loop_factory=aio.EventLoop) == 2


def test_debug_mode_tells_who_has_called_and_what_is_slow(
    loop: aio.EventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    handle = loop.call_soon(time.sleep, 0.02)
    source = handle._source_traceback  # type: ignore[attr-defined]
    assert source[-1].name == "test_debug_mode_tells_who_has_called_and_what_is_slow"
    timer = loop.call_later(0.001, loop.stop)
    source = timer._source_traceback  # type: ignore[attr-defined]
    assert source[-1].name == "test_debug_mode_tells_who_has_called_and_what_is_slow"
    timer = loop.call_at(loop.time() + 1000, print)
    source = timer._source_traceback  # type: ignore[attr-defined]
    assert source[-1].name == "test_debug_mode_tells_who_has_called_and_what_is_slow"
    timer.cancel()
    loop.run_forever()
    took = re.search(r"Handle sleep.* took (\S+) seconds", caplog.text)
    assert took is not None and float(took[1]) >= 0.02
    refused: list[BaseException] = []

    def call() -> None:
        try:
            loop.call_soon(print)
        except RuntimeError as error:
            refused.append(error)
        loop.call_soon_threadsafe(loop.stop)

    thread = later(0.01, call)
    loop.run_forever()
    thread.join()
    assert "Non-thread-safe" in str(refused[0])


def test_a_process_is_started_talked_to_and_waited_for(loop: aio.EventLoop) -> None:
    async def main() -> tuple[bytes, int | None]:
        process = await asyncio.create_subprocess_exec(
            "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate(b"x" * 200_000)
        return output, process.returncode

    if sys.version_info < (3, 12):
        asyncio.get_child_watcher().attach_loop(loop)
    assert loop.run_until_complete(asyncio.wait_for(main(), PATIENCE)) == (b"x" * 200_000, 0)


def test_what_is_watched_can_be_looked_at(
    loop: aio.EventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    """As some libraries look at asyncio's own selector."""
    selector = loop._selector  # type: ignore[attr-defined]
    loop.add_reader(pair[0], print)
    assert selector.get_key(pair[0]).events == 1
    loop.add_writer(pair[0].fileno(), print)
    assert selector.get_key(pair[0]).events == 3
    with pytest.raises(KeyError):
        selector.get_key(pair[1])
    with pytest.raises(NotImplementedError):
        selector.register(pair[1], 1)
    with pytest.raises(NotImplementedError):
        selector.unregister(pair[0])
    loop.remove_reader(pair[0])
    assert selector.get_key(pair[0]).events == 2
    loop.remove_writer(pair[0])
    assert pair[0] not in selector.get_map()


# Forks and memory.


def test_a_forked_child_makes_a_loop_of_its_own() -> None:
    """A8: the parent's can be closed there, and goes on here."""
    run_python(
        """
        import asyncio, os
        from libevent_py import EventBase, ForkError, aio

        def child(test):
            pid = os.fork()
            if pid == 0:
                try:
                    test()
                except BaseException:
                    import traceback; traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0

        def refused():
            try:
                loop.run_forever()
            except ForkError:
                pass
            else:
                os._exit(2)
            assert aio.run(asyncio.sleep(0.001, 5)) == 5
            loop.close()
            assert loop.is_closed()

        def again():
            base.reinit()
            assert loop.run_until_complete(asyncio.sleep(0.001, 6)) == 6

        def inside():
            asyncio._set_running_loop(None)
            assert aio.run(asyncio.sleep(0.001, 7)) == 7

        async def main():
            child(inside)
            await asyncio.sleep(0.001)
            return await asyncio.to_thread(lambda: 8)

        base = EventBase()
        loop = aio.EventLoop(base)
        loop.slow_callback_duration = 60  # a fork isn't
        a, b = os.pipe()
        loop.add_reader(a, print)
        child(refused)
        child(again)
        assert loop.run_until_complete(main()) == 8
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        base.close()
        """
    )


def test_a_child_that_returns_from_its_fork_leaves_the_loop() -> None:
    run_python(
        """
        import asyncio, os
        from libevent_py import ForkError, aio

        async def main():
            if os.fork() == 0:
                await asyncio.sleep(0.001)
                os._exit(1)
            await asyncio.sleep(0.001)
            return os.wait()[1]

        loop = aio.EventLoop()
        loop.slow_callback_duration = 60  # a fork isn't
        try:
            assert loop.run_until_complete(main()) == 0
        except ForkError:
            os._exit(0)
        loop.close()
        """
    )


@VALGRIND_TAKES_LONG
def test_the_loop_misuses_no_memory(valgrind: bool) -> None:
    run_python(
        """
        import asyncio, os, socket
        from libevent_py import Event, EventBase, aio

        async def echo(reader, writer):
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        async def main():
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for _ in range(3):
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
            writer.close()
            await writer.wait_closed()
            server.close()
            await asyncio.sleep(0.001)

        base = EventBase()
        for debug in (False, True):
            aio.run(main(), base=base, debug=debug)
        loop = aio.EventLoop(base)
        left, right = socket.socketpair()
        loop.add_reader(left, print)
        base.close()
        loop.close()
        left.close()
        right.close()
        loop = aio.EventLoop()
        loop.call_soon(lambda: 1 / 0)
        loop.set_exception_handler(lambda loop, context: loop.stop())
        loop.run_forever()
        loop.close()
        """,
        valgrind=valgrind,
    )


@pytest.mark.parametrize("first", [None, "loop", "base"], ids=["its own base", "loop", "base"])
def test_a_closed_loop_is_freed_with_the_last_reference(first: str | None) -> None:
    """asyncio's is, and the suite of anyio looks for that."""
    base = None if first is None else EventBase()
    loop = aio.EventLoop(base)
    left, right = socket.socketpair()
    with left, right:
        loop.add_reader(left, print)
        loop.run_until_complete(asyncio.sleep(0.001))
        gc.collect()
        gc.disable()
        try:
            if base is not None and first == "base":
                base.close()
            loop.close()
            gone = weakref.ref(loop)
            del loop
            assert gone() is None
        finally:
            gc.enable()
    if base is not None:
        base.close()


def test_turns_are_woken_by_signals_after_a_loop_has_run_in_their_block(base: EventBase) -> None:
    """As asyncio's signal handlers take the wakeup descriptor, and give it back to nobody."""
    got: list[int] = []
    own = wakeup().signals.writer.fileno()
    loop = aio.EventLoop(base)
    with base.turns():
        loop.add_signal_handler(signal.SIGUSR1, got.append, 1)
        assert wakeup_fd() == own
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
        loop.run_until_complete(asyncio.sleep(0.01))
        assert got == [1]
        assert wakeup_fd() == own
        before = signal.signal(signal.SIGALRM, lambda *_: base.loopbreak())
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        begin = time.monotonic()
        base.turn(PATIENCE)
        assert time.monotonic() - begin < PATIENCE / 2
        signal.signal(signal.SIGALRM, before)
        loop.close()
        assert wakeup_fd() == own
    assert wakeup_fd() == -1


def test_a_stop_in_a_descriptor_s_callback_does_not_outlast_a_run_that_raises(
    base: EventBase,
) -> None:
    """Both descriptors are ready in the same turn, that of the loop first."""

    def fails(*_: object) -> None:
        raise ValueError("no")

    with contextlib.ExitStack() as stack:
        stops, fail = ([stack.enter_context(end) for end in socket.socketpair()] for _ in range(2))
        loop = aio.EventLoop(base)
        loop.set_debug(False)  # in which all handles wait for their turn
        loop.add_reader(stops[0], loop.stop)
        stack.enter_context(Event(base, fail[0], READ, fails)).add()

        def both() -> None:
            stops[1].send(b"x")
            fail[1].send(b"x")

        loop.call_soon(both)
        with pytest.raises(ValueError, match="no"):
            loop.run_forever()
        loop.remove_reader(stops[0])
        assert loop.run_until_complete(asyncio.sleep(0.001, 7)) == 7
        loop.close()
