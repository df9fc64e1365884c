"""To which thread a base and everything on it belong, and how they come to belong to another."""

from __future__ import annotations

import gc
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventOption,
    Event,
    EventBase,
    EventFlag,
    HttpConnection,
    HttpServer,
    LoopFlag,
    ThreadError,
)
from tests.kit.support import PATIENCE, run_python

ONCE_NOW = LoopFlag.ONCE | LoopFlag.NONBLOCK


@pytest.fixture
def other() -> Iterator[ThreadPoolExecutor]:
    """Another thread, which does not end in between."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result(PATIENCE)
        yield pool


def test_a_base_belongs_to_the_thread_that_has_made_it(
    base: EventBase, other: ThreadPoolExecutor
) -> None:
    event = Event.timer(base, print)
    for use in (event.add, base.events, lambda: base.once(print), lambda: Event.timer(base, print)):
        with pytest.raises(ThreadError, match=r"belongs to another thread.*take_over"):
            other.submit(use).result(PATIENCE)
    assert not base._live


def test_it_belongs_to_whoever_takes_it_over(base: EventBase, other: ThreadPoolExecutor) -> None:
    event = Event.timer(base, print)
    other.submit(base.take_over).result(PATIENCE)
    other.submit(event.add, 60).result(PATIENCE)
    with pytest.raises(ThreadError, match="belongs to another thread"):
        event.delete()
    base.take_over()
    event.delete()
    base.take_over()  # a second time does nothing


def test_it_belongs_to_whoever_has_last_run_its_loop(
    base: EventBase, other: ThreadPoolExecutor
) -> None:
    event = Event.timer(base, print)
    other.submit(base.loop, ONCE_NOW).result(PATIENCE)
    with pytest.raises(ThreadError, match="belongs to another thread"):
        event.add(60)
    base.loop(ONCE_NOW)
    event.add(60)


def test_any_thread_that_finds_it_idle_may_close_it(
    base: EventBase, other: ThreadPoolExecutor
) -> None:
    event = Event.timer(base, print)
    other.submit(base.close).result(PATIENCE)
    assert base.closed
    assert event.closed


def test_who_is_refused_to_close_it_does_not_become_its_owner(
    base: EventBase, other: ThreadPoolExecutor
) -> None:
    event = Event.signal(base, signal.SIGUSR1, print).add()
    with pytest.raises(ThreadError, match="main thread"):
        other.submit(base.close).result(PATIENCE)
    event.delete()
    assert not base.closed


def test_when_its_owner_has_ended_it_goes_to_the_next_who_uses_it(
    other: ThreadPoolExecutor,
) -> None:
    made: list[EventBase] = []
    thread = threading.Thread(target=lambda: made.append(EventBase()))
    thread.start()
    thread.join(PATIENCE)
    (base,) = made
    event = Event.timer(base, print).add(60)
    with pytest.raises(ThreadError, match="belongs to another thread"):
        other.submit(event.delete).result(PATIENCE)
    base.close()


@pytest.mark.parametrize("take", ["take_over", "loop", "close"])
def test_nobody_takes_it_from_one_who_is_in_the_middle_of_a_call(
    base: EventBase, other: ThreadPoolExecutor, take: str
) -> None:
    """A call that has left the interpreter's lock to the other thread, or is about to."""
    event, refused = Event.timer(base, print), []

    class Seconds:
        def __float__(self) -> float:
            with pytest.raises(ThreadError, match="belongs to another thread") as caught:
                other.submit(getattr(base, take)).result(PATIENCE)
            refused.append(caught.value)
            return 60.0

    event.add(Seconds())  # type: ignore[arg-type]
    assert len(refused) == 1
    assert event.pending == EventFlag.TIMEOUT
    other.submit(base.take_over).result(PATIENCE)
    base.take_over()


@pytest.mark.parametrize("take", ["take_over", "loop", "close"])
def test_nobody_takes_it_from_one_who_runs_its_loop(
    base: EventBase, other: ThreadPoolExecutor, take: str
) -> None:
    def fire(*_: object) -> None:
        with pytest.raises(ThreadError, match="another thread runs"):
            other.submit(getattr(base, take)).result(PATIENCE)

    base.once(fire)
    base.dispatch()


def test_nobody_takes_it_from_one_who_holds_the_lock_of_a_bufferevent(
    base: EventBase, other: ThreadPoolExecutor
) -> None:
    here, there = socket.socketpair()
    options = BufferEventOption.THREADSAFE | BufferEventOption.CLOSE_ON_FREE
    bev = BufferEvent(base, here, options)
    with bev.lock(), pytest.raises(ThreadError, match="belongs to another thread"):
        other.submit(base.loop, ONCE_NOW).result(PATIENCE)
    other.submit(base.loop, ONCE_NOW).result(PATIENCE)
    base.take_over()
    bev.close()
    there.close()


def test_an_owner_who_is_busy_with_another_base_gives_it_up(
    base: EventBase, other: ThreadPoolExecutor
) -> None:
    second = EventBase()
    second.once(lambda fd, what: other.submit(base.take_over).result(PATIENCE))
    second.dispatch()
    with pytest.raises(ThreadError, match="belongs to another thread"):
        base.events()
    base.take_over()
    second.close()


@pytest.mark.slow
def test_what_any_thread_may_call_does_not_keep_it_from_being_taken_over(
    base: EventBase, other: ThreadPoolExecutor
) -> None:
    """A thread that only wakes the loop may be in the middle of it at any time."""
    stop, event = threading.Event(), Event.user(base, lambda *_: None)

    def hammer() -> None:
        while not stop.is_set():
            base.defer(int)
            base.loopexit()
            base.loopbreak()
            event.active()

    pending = other.submit(hammer)
    base.take_over()
    second = ThreadPoolExecutor(1)
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        second.submit(base.take_over).result(PATIENCE)
        base.take_over()
        base.loop(ONCE_NOW)
    stop.set()
    pending.result(PATIENCE)
    second.shutdown()


def test_two_threads_that_write_to_one_bufferevent_are_not_both_let_in() -> None:
    run_python(
        """
        import socket, threading
        from libevent_py import BufferEvent, EventBase, EventFlag, ThreadError

        base, (here, there) = EventBase(), socket.socketpair()
        bev, refused, data = BufferEvent(base, here), [], b"x" * 200_000
        bev.disable(EventFlag.WRITE)

        def work():
            try:
                for _ in range(300):
                    bev.write(data)
            except ThreadError:
                refused.append(threading.current_thread())

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
        assert sorted(refused, key=str) == sorted(threads, key=str)
        assert len(bev.output) == 300 * len(data)
        base.close()
        there.close()
        """
    )


def test_a_server_is_not_closed_by_another_thread_while_the_loop_begins() -> None:
    run_python(
        """
        import socket, threading
        from libevent_py import EventBase, HttpServer, LoopFlag, ThreadError

        NOW, closed, refused = LoopFlag.ONCE | LoopFlag.NONBLOCK, 0, 0
        for n in range(60):
            base = EventBase()
            server = HttpServer(base)
            server.set_gencb(lambda request: request.send_reply(200))
            port = server.bind_socket("127.0.0.1", 0).port
            peers = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
            for _ in range(3):
                base.loop(NOW)
            for peer in peers:
                peer.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")

            def close():
                global closed, refused
                try:
                    if n % 2:
                        base.take_over()
                    server.close()
                    closed += 1
                except ThreadError:
                    refused += 1

            thread = threading.Thread(target=close)
            thread.start()
            for _ in range(10):
                try:
                    base.loop(NOW)
                except ThreadError:
                    pass
            thread.join()
            base.close()
            for peer in peers:
                peer.close()
        assert closed + refused == 60
        assert refused >= 30
        """
    )


#: Each noun that is used where its base is, made on a base, with a use of it.
NOUNS: dict[str, Callable[[EventBase], Callable[[], object]]] = {
    "Event": lambda base: Event.timer(base, print).add,
    "BufferEvent": lambda base: partial(BufferEvent.pair(base)[0].write, b"x"),
    "Buffer": lambda base: partial(_deferred(base).add, b"x"),
    "HttpServer": lambda base: HttpServer(base).close,
    "HttpConnection": lambda base: HttpConnection(base, "127.0.0.1", 1).close,
}


def _deferred(base: EventBase) -> Buffer:
    buffer = Buffer()
    buffer.defer_callbacks(base)
    return buffer


@pytest.mark.parametrize("noun", NOUNS)
def test_what_is_made_on_it_belongs_to_its_owner_too(
    base: EventBase, other: ThreadPoolExecutor, noun: str
) -> None:
    use = NOUNS[noun](base)
    with pytest.raises(ThreadError, match="belongs to another thread"):
        other.submit(use).result(PATIENCE)
    use()


def test_what_is_dropped_in_another_thread_waits_for_the_owner(
    base: EventBase, other: ThreadPoolExecutor
) -> None:
    held: list[Any] = [Event.timer(base, print)]
    other.submit(held.clear).result(PATIENCE)
    gc.collect()
    assert len(base._graveyard) == 1
    base.loop(ONCE_NOW)
    assert not base._graveyard
