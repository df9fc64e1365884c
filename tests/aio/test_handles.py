"""What `call_soon`, `call_later` and `call_at` of `aio.EventLoop` take, and what they return."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import socket
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import pytest

from libevent_py import EventBase, EventBaseFlag, EventConfig, aio
from tests.kit.support import PATIENCE

#: How each is called so that it calls back soon, as a function of the loop and the rest.
WAYS: dict[str, Callable[..., asyncio.Handle]] = {
    "call_soon": lambda loop, *rest, **more: loop.call_soon(*rest, **more),
    "call_later": lambda loop, *rest, **more: loop.call_later(0.001, *rest, **more),
    "call_at": lambda loop, *rest, **more: loop.call_at(loop.time(), *rest, **more),
}


@pytest.fixture(params=[False, True], ids=["", "debug"])
def loop(request: pytest.FixtureRequest) -> Iterator[aio.EventLoop]:
    with contextlib.closing(aio.EventLoop()) as loop:
        loop.set_debug(request.param)
        yield loop


def run(loop: aio.EventLoop) -> None:
    """Run the loop for as long as all that waits takes."""
    loop.run_until_complete(asyncio.sleep(0.01))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("args", [(), (1,), (1, 2), tuple(range(20))])
def test_the_callback_gets_its_arguments(
    loop: aio.EventLoop, way: str, args: tuple[int, ...]
) -> None:
    got: list[Any] = []
    handle = WAYS[way](loop, lambda *args: got.append(args), *args)
    assert isinstance(handle, asyncio.Handle)
    assert isinstance(handle, asyncio.TimerHandle) == (way != "call_soon")
    assert handle._args == args
    assert not handle.cancelled()
    assert "lambda" in repr(handle)
    run(loop)
    assert got == [args]


@pytest.mark.parametrize("way", WAYS)
def test_the_callback_runs_in_its_context(loop: aio.EventLoop, way: str) -> None:
    name = contextvars.ContextVar("name", default="")
    context, seen = contextvars.copy_context(), []

    def note() -> None:
        seen.append(name.get())
        name.set("changed")

    context.run(name.set, "given")
    name.set("now")
    WAYS[way](loop, note)
    WAYS[way](loop, note, context=None)
    WAYS[way](loop, note, context=context)
    run(loop)
    assert seen == ["now", "now", "given"]
    assert name.get() == "now"
    assert context[name] == "changed"


def test_arguments_may_be_named(loop: aio.EventLoop) -> None:
    got: list[str] = []
    loop.call_soon(callback=lambda: got.append("soon"))
    loop.call_later(callback=lambda: got.append("later"), delay=0.001)
    loop.call_at(loop.time(), callback=lambda: got.append("at"))
    run(loop)
    assert sorted(got) == ["at", "later", "soon"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda loop: loop.call_soon(), "missing the argument 'callback'"),
        (lambda loop: loop.call_later(1), "missing the argument 'callback'"),
        (lambda loop: loop.call_at(callback=print), "missing the argument 'when'"),
        (lambda loop: loop.call_soon(print, what=1), "unexpected or a second argument 'what'"),
        (lambda loop: loop.call_soon(print, callback=print), "second argument 'callback'"),
        (lambda loop: loop.call_later(None, print), "delay must not be None"),
        (lambda loop: loop.call_at(None, print), "when cannot be None"),
        (lambda loop: loop.call_later("1", print), "'float' and 'str'"),
    ],
)
def test_what_they_do_not_take_is_refused(
    loop: aio.EventLoop, call: Callable[[aio.EventLoop], object], says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        call(loop)
    run(loop)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("way", ["call_later", "call_at"])
@pytest.mark.parametrize(
    "when",
    [10**400, -(10**400), Fraction(10**400), "1", 1j],
    ids=["huge", "negative", "fraction", "text", "complex"],
)
def test_a_time_that_is_no_float_is_refused_and_does_not_stay(
    loop: aio.EventLoop, when: Any, way: str, debug: bool
) -> None:
    got: list[str] = []
    loop.set_debug(debug)
    loop.call_later(0.001, got.append, "before")
    with pytest.raises((OverflowError, TypeError)):
        getattr(loop, way)(when, got.append, "never")
    loop.call_later(0.002, got.append, "after")
    loop.run_until_complete(asyncio.sleep(0.01))
    assert got == ["before", "after"]


@pytest.mark.parametrize("way", WAYS)
def test_a_handle_is_cancelled_before_it_runs_and_by_itself(loop: aio.EventLoop, way: str) -> None:
    got: list[int] = []
    handle = WAYS[way](loop, got.append, 1)
    handle.cancel()
    assert handle.cancelled()
    again: asyncio.Handle = WAYS[way](loop, lambda: (again.cancel(), got.append(2)))
    run(loop)
    assert got == [2]
    assert again.cancelled()


def test_timers_are_ordered_and_hashed_by_their_time(loop: aio.EventLoop) -> None:
    first, second, whole = (loop.call_at(when, print) for when in (1e9, 2e9, 1_500_000_000))
    assert first < second and second > first and first <= second and second >= first
    assert first < whole < second
    assert first == first and first != second
    assert hash(first) == hash(1e9)
    assert sorted([second, whole, first]) == [first, whole, second]
    assert whole.when() == 1_500_000_000
    loop.set_debug(not loop.get_debug())
    other = loop.call_at(1.7e9, print)  # the other kind
    assert whole < other < second and second > other > whole
    with pytest.raises(TypeError):
        first < 5  # type: ignore[operator]  # noqa: B015
    for timer in (first, second, whole, other):
        timer.cancel()


def test_kinds_of_handles_mix_as_debug_mode_is_switched(loop: aio.EventLoop) -> None:
    got: list[int] = []
    for n in range(10):
        loop.set_debug(n % 2 == 0)
        loop.call_later(0.001 * n, got.append, n)
        loop.call_soon(got.append, -1)
    run(loop)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert got == [-1] * 10 + list(range(10)) or sorted(got) == [-1] * 10 + list(range(10))


def test_a_callback_s_exception_goes_to_the_handler_as_asyncio_tells_it(
    loop: aio.EventLoop,
) -> None:
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    def fail(_: int) -> None:
        raise ValueError("because")

    handle = loop.call_soon(fail, 7)
    run(loop)
    [context] = contexts
    assert "fail(" in context["message"] and context["handle"] is handle
    assert str(context["exception"]) == "because"
    assert context["exception"].__traceback__.tb_next is not None or not loop.get_debug()


class Failing(asyncio.Protocol):
    """A protocol that can do nothing with data."""

    def data_received(self, data: bytes) -> None:
        raise ValueError(data)


@pytest.mark.parametrize("make", [asyncio.SelectorEventLoop, aio.EventLoop])
@pytest.mark.parametrize("what", ["call_soon", "call_later", "data_received"])
def test_the_exception_handler_is_called_while_the_error_is_handled(
    what: str, make: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """As by asyncio's loops: so `logging.exception` finds it."""
    handled: list[bool] = []

    def fail() -> None:
        raise ValueError

    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        handled.append(sys.exc_info()[1] is context["exception"])
        loop.stop()

    one, peer = socket.socketpair()
    one.setblocking(False)
    with peer, contextlib.closing(make()) as loop:
        loop.set_exception_handler(handler)
        transport, _ = loop.run_until_complete(loop.connect_accepted_socket(Failing, one))
        if what == "call_soon":
            loop.call_soon(fail)
        elif what == "call_later":
            loop.call_later(0.001, fail)
        else:
            peer.send(b"x")
        late = loop.call_later(PATIENCE, loop.stop)
        loop.run_forever()
        late.cancel()
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0))
    assert handled == [True]


@pytest.mark.parametrize("way", WAYS)
def test_handles_are_freed_and_the_collector_sees_through_them(way: str) -> None:
    class Thing:
        handle: asyncio.Handle

    with contextlib.closing(aio.EventLoop()) as loop:
        thing = Thing()
        thing.handle = WAYS[way](loop, lambda thing: None, thing)
        gone = weakref.ref(thing)
        run(loop)
        del thing
        gc.collect()
        assert gone() is None
        thing = Thing()
        thing.handle = WAYS[way](loop, lambda thing: None, thing)
        gone = weakref.ref(thing)
        thing.handle.cancel()
        gc.disable()
        try:
            del thing
            run(loop)
            assert gone() is None
        finally:
            gc.enable()


def test_a_loop_of_a_user_s_own_class_may_define_the_methods() -> None:
    class Own(aio.EventLoop):
        calls = 0

        def time(self) -> float:
            return super().time() + 1000.0

        def call_soon(  # type: ignore[override]
            self, callback: Any, *args: Any, context: Any = None
        ) -> asyncio.Handle:
            self.calls += 1
            return super().call_soon(callback, *args, context=context)

    with contextlib.closing(Own()) as loop:
        assert loop.run_until_complete(asyncio.sleep(0.001, 5)) == 5
        assert loop.calls >= 3
        assert loop.call_later(5.0, print).when() > aio.EventLoop.time(loop) + 1000.0


def test_a_closed_loop_takes_nothing() -> None:
    loop = aio.EventLoop()
    loop.close()
    for way in WAYS.values():
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            way(loop, print)


def test_what_was_never_begun_is_refused() -> None:
    loop = aio.EventLoop.__new__(aio.EventLoop)
    assert loop.is_closed()
    with pytest.raises(AttributeError):
        loop._begin()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)


def test_a_precise_base_makes_short_timers_exact() -> None:
    """The clock of other bases may move on every 4 ms only, which docs/asyncio.md tells of."""

    async def shortest() -> float:
        took = []
        for _ in range(50):
            start = time.perf_counter()
            await asyncio.sleep(0.0003)
            took.append(time.perf_counter() - start)
        return min(took)

    with EventConfig(flags=EventBaseFlag.PRECISE_TIMER) as config, EventBase(config) as base:
        assert 0.0003 <= aio.run(shortest(), base=base) < 0.002
