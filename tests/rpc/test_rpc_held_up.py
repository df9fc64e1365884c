"""RPCs that hooks hold up: whoever lets one go on may find it, or anything else, ended by that."""

from __future__ import annotations

import gc
import itertools
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from libevent_py import (
    ClosedError,
    EventBase,
    HttpConnection,
    LoopFlag,
    Rpc,
    RpcHook,
    RpcHookResult,
    RpcStatus,
)
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import connected, nobody_listens, run_until, settle
from tests.kit.rpc_messages import REPLY, REQUEST, Kill, Msg, World, answer, new_world
from tests.kit.support import run_python

INPUT, OUTPUT = RpcHook.INPUT, RpcHook.OUTPUT
CONTINUE, PAUSE, TERMINATE = RpcHookResult.CONTINUE, RpcHookResult.PAUSE, RpcHookResult.TERMINATE
NONE, TIMEOUT, BADPAYLOAD = RpcStatus.NONE, RpcStatus.TIMEOUT, RpcStatus.BADPAYLOAD
UNSTARTED, HOOKABORTED = RpcStatus.UNSTARTED, RpcStatus.HOOKABORTED

CALL = b"POST /.rpc.Act HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
MALFORMED = b"\xff\xff\xff"


class Oops(Exception):
    """What handlers and callbacks raise."""


class Holding:
    """A world whose hooks hold calls up, until `resume` lets them go on."""

    def __init__(self, hooks: tuple[RpcHook, ...], at: str, when: str) -> None:
        self.base = EventBase()
        self.base.on_error = self.take
        self.world: World = new_world(self.base)
        self.when = when
        self.held: list[Any] = []
        self.kept: list[Any] = []
        for hook in hooks:
            getattr(self.world, at).add_hook(hook, self.hold)

    def take(self, error: Exception, _source: object) -> None:
        if not isinstance(error, Oops):
            raise error

    def hold(self, context: Any, *_: object) -> RpcHookResult:
        self.held.append(context)
        with pytest.raises(RuntimeError, match="a hook must have returned PAUSE"):
            context.resume()
        return PAUSE

    def resume(self, result: RpcHookResult = CONTINUE) -> None:
        """Let go on whatever is held up, in the loop or outside it."""
        while self.held:
            context = self.held.pop(0)
            if self.when == "in the loop":
                self.base.once(lambda *_, context=context: self.let_go_on(context, result))
                del context
                self.turn()
            else:
                self.let_go_on(context, result)

    def let_go_on(self, context: Any, result: RpcHookResult = CONTINUE) -> None:
        with suppress(ClosedError):  # what came before it has ended it
            context.resume(result)

    def turn(self) -> None:
        for _ in range(5):
            self.base.loop(LoopFlag.NONBLOCK)

    def go_on_until(self, condition: Callable[[], object]) -> None:
        def reached() -> bool:
            self.resume()
            self.turn()
            return bool(condition())

        run_until(self.base, reached)


# A server's.


def done_incomplete(holding: Holding, rpc: Rpc) -> None:
    with suppress(ValueError):
        rpc.done()


def done(holding: Holding, rpc: Rpc) -> None:
    answer(rpc)
    with pytest.raises((ClosedError, RuntimeError)):
        rpc.done()


def done_and_resumed(result: RpcHookResult) -> Callable[[Holding, Rpc], None]:
    def deed(holding: Holding, rpc: Rpc) -> None:
        answer(rpc)
        if rpc in holding.held:
            holding.held.remove(rpc)
            assert rpc.paused
            rpc.resume(result)

    return deed


def raises(holding: Holding, _: object) -> None:
    raise Oops


def resumes_others(holding: Holding, rpc: Rpc) -> None:
    while holding.held:
        holding.let_go_on(holding.held.pop())
    if not rpc.closed:
        answer(rpc)


def fails(holding: Holding, rpc: Rpc) -> None:
    rpc.fail()
    with pytest.raises(ClosedError):
        answer(rpc)


def unregisters(holding: Holding, rpc: Rpc) -> None:
    holding.world.server.unregister("Act")
    holding.world.server.add_hook(INPUT, lambda *_: CONTINUE)


def closes_the_base(holding: Holding, rpc: Rpc) -> None:
    with pytest.raises(RuntimeError):
        holding.base.close()
    answer(rpc)


#: What a handler does, and what a caller is told of it, unless its connection is closed.
DEEDS: dict[str, tuple[Callable[[Holding, Any], object], RpcStatus]] = {
    "done": (done, NONE),
    "done and resumed": (done_and_resumed(CONTINUE), NONE),
    "done and terminated": (done_and_resumed(TERMINATE), NONE),
    "done, incomplete": (done_incomplete, BADPAYLOAD),
    "fails": (fails, BADPAYLOAD),
    "closes": (lambda holding, rpc: rpc.close(), BADPAYLOAD),
    "raises": (raises, BADPAYLOAD),
    "drops": (lambda holding, rpc: None, BADPAYLOAD),
    "keeps": (lambda holding, rpc: holding.kept.append(rpc), BADPAYLOAD),
    "no reply": (lambda holding, rpc: setattr(rpc, "reply", None), BADPAYLOAD),
    "resumes others": (resumes_others, NONE),
    "unregisters": (unregisters, BADPAYLOAD),
    "closes the base": (closes_the_base, NONE),
    "closes the server": (lambda holding, rpc: holding.world.server.close(), BADPAYLOAD),
    "closes the connection": (lambda holding, rpc: rpc.connection.close(), TIMEOUT),
    "closes the HTTP server": (lambda holding, rpc: holding.world.http.close(), TIMEOUT),
    "closes the pool": (lambda holding, rpc: holding.world.pool.close(), TIMEOUT),
}


def serve(
    hooks: tuple[RpcHook, ...], when: str, result: RpcHookResult, kind: str, deed: str
) -> None:
    """Have a call of *kind* held up by *hooks*, let it go on with *result*, and handle it."""
    act, status = DEEDS[deed]
    holding = Holding(hooks, "server", when)
    world, handled = holding.world, list[Any]()
    told: list[Any] = []

    def handler(rpc: Rpc) -> None:
        handled.append(deed)
        act(holding, rpc)

    world.server.register("Act", Msg, Kill, handler)
    world.pool.add_connection(world.connect())
    calls, peers = [], []
    for _ in range(2):
        if kind == "valid":
            calls.append(world.call("Act", told.append))
        else:
            body = MALFORMED if kind == "malformed" else bytes(REQUEST)
            peers.append(connected(("127.0.0.1", world.port)))
            peers[-1].sendall(CALL % (len(body), body))
    if kind != "malformed" or INPUT in hooks:
        run_until(holding.base, lambda: holding.held or handled or told)
        holding.turn()
    if kind == "gone":
        for peer in peers:
            peer.close()
        holding.turn()
    holding.resume(result)
    if kind == "gone":
        holding.turn()
    elif kind == "malformed":
        holding.go_on_until(lambda: answers(peers))
        assert not handled
    else:
        expected = {status}
        if deed == "done and terminated" and OUTPUT in hooks:
            expected = {BADPAYLOAD}
        if result is TERMINATE:  # a handler may have let its reply go on by itself
            expected = {BADPAYLOAD} if INPUT in hooks else {BADPAYLOAD, *expected}
        if status is TIMEOUT or "closes the " in deed or deed == "unregisters":
            expected |= {BADPAYLOAD, TIMEOUT}  # it may be the other's deed
        if deed in ("keeps", "no reply"):
            holding.turn()
            holding.kept.clear()
        if deed == "done" and INPUT not in hooks and result is TERMINATE:
            assert handled
        holding.go_on_until(lambda: len(told) == 2)
        assert {call.status for call in told} <= expected, (told, expected)
        if result is TERMINATE and INPUT in hooks:
            assert not handled
    holding.turn()
    assert len(told) == len(calls)
    finish(holding, peers)
    assert len(told) == len(calls)


def answers(peers: list[socket.socket]) -> bool:
    """Tell whether each of *peers* has been told that its call has failed, once."""
    for peer in peers:
        peer.setblocking(False)
        with suppress(BlockingIOError):
            said = peer.recv(65536, socket.MSG_PEEK)
            assert said.startswith(b"HTTP/1.1 503 ")
            assert said.count(b"HTTP/1.1") == 1
            continue
        return False
    return True


def finish(holding: Holding, peers: list[socket.socket] = []) -> None:  # noqa: B006
    holding.held.clear()
    holding.kept.clear()
    holding.base.close()
    for peer in peers:
        peer.close()


# A client's.


def callback_resumes_others(holding: Holding, _: object) -> None:
    while holding.held:
        holding.let_go_on(holding.held.pop())


def refused(holding: Holding, _: object) -> None:
    with pytest.raises(RuntimeError):
        holding.base.close()


def calls_and_resumes(holding: Holding, _: object) -> None:
    holding.world.call("Act")
    callback_resumes_others(holding, _)


def removes_the_connection(holding: Holding, _: object) -> None:
    for connection in holding.world.pool.connections:
        with suppress(RuntimeError):
            holding.world.pool.remove_connection(connection)
            holding.kept.append(connection)
    for connection in holding.kept:
        holding.world.pool.add_connection(connection)
    holding.kept.clear()


CALLBACKS: dict[str, Callable[[Holding, Any], object]] = {
    "nothing": lambda holding, call: None,
    "raises": raises,
    "calls": lambda holding, call: holding.world.call("Act"),
    "calls and resumes": calls_and_resumes,
    "resumes others": callback_resumes_others,
    "closes the base": refused,
    "closes the pool": lambda holding, call: holding.world.pool.close(),
    "closes the server": lambda holding, call: holding.world.server.close(),
    "closes the HTTP server": lambda holding, call: holding.world.http.close(),
    "removes the connection": removes_the_connection,
}


def call(
    hooks: tuple[RpcHook, ...], when: str, result: RpcHookResult, kind: str, deed: str
) -> None:
    """Have calls held up by *hooks* of a pool, let them go on, and do *deed* in their callbacks."""
    holding = Holding(hooks, "pool", when)
    world, told = holding.world, []

    def replied(call: Any) -> None:
        told.append(call)
        assert call.status is not None
        if call.status in (NONE, HOOKABORTED) and not world.pool.closed:
            http = call.http_request  # of a connection that is refused, there is no response
            assert (http.response_code > 0) == (len(http.input_headers) > 0)
            assert http.uri == "/.rpc.Act"
        with suppress(ClosedError):
            CALLBACKS[deed](holding, call)

    def handler(rpc: Rpc) -> None:
        if kind == "valid":
            answer(rpc)
        else:
            rpc.http_request.output_headers["X"] = "y"
            rpc.fail()

    world.server.register("Act", Msg, Kill, handler)
    if kind == "refused":
        [connection] = world.pool.connections
        world.pool.remove_connection(connection)
        connection.close()
        world.pool.add_connection(HttpConnection(holding.base, *nobody_listens()))
    calls = [world.call("Act", replied) for _ in range(3)]
    run_until(holding.base, lambda: holding.held or told)
    holding.resume(result)
    holding.go_on_until(lambda: len(told) == 3)
    good = {NONE} if kind == "valid" else {BADPAYLOAD, TIMEOUT}
    if result is TERMINATE:
        good |= {UNSTARTED for _ in hooks if OUTPUT in hooks}
        good |= {HOOKABORTED for _ in hooks if INPUT in hooks}
    if "closes the" in deed:
        good |= {TIMEOUT, UNSTARTED, BADPAYLOAD}
    assert {call.status for call in calls} <= good, (calls[0].status, good)
    assert sorted(map(id, told)) == sorted(map(id, calls))
    holding.turn()
    finish(holding)
    assert len(told) == 3


# All of it.

HOOKS = [(INPUT,), (OUTPUT,), (INPUT, OUTPUT)]
WHEN = ["in the loop", "outside"]


def cases(at: str) -> Iterator[tuple[Callable[..., None], str, RpcHookResult, str, str]]:
    """Yield whatever may happen to an RPC that is held up at the end *at*."""
    act, kinds, deeds = serve, ["valid", "malformed", "gone"], list(DEEDS)
    if at == "pool":
        act, kinds, deeds = call, ["valid", "failing", "refused"], list(CALLBACKS)
    for when, result, kind, deed in itertools.product(WHEN, (CONTINUE, TERMINATE), kinds, deeds):
        if kind != "malformed" or deed == "done":
            yield act, when, result, kind, deed


def sweep(at: str, number: int, step: int = 1) -> None:
    """Have all of it happen, and check that nothing is left."""
    EventBase().loop(LoopFlag.NONBLOCK)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for act, *case in list(cases(at))[::step]:
        try:
            act(HOOKS[number], *case)
        except BaseException as error:
            raise AssertionError(f"{at}, {HOOKS[number]}, {case}") from error
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before, case


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3), ids=["input", "output", "both"])
@pytest.mark.parametrize("at", ["server", "pool"])
def test_what_is_held_up_ends_once_whatever_is_done_when_it_goes_on(at: str, number: int) -> None:
    run_python(f"from tests.rpc.test_rpc_held_up import sweep; sweep({at!r}, {number})")


@VALGRIND_TAKES_LONG
@pytest.mark.parametrize("number", range(3), ids=["input", "output", "both"])
@pytest.mark.parametrize("at", ["server", "pool"])
def test_what_is_held_up_touches_no_memory_that_is_freed(
    at: str, number: int, valgrind: bool
) -> None:
    code = f"from tests.rpc.test_rpc_held_up import sweep; sweep({at!r}, {number}, 13)"
    run_python(code, valgrind=valgrind)


# One by one.


@pytest.fixture
def world(base: EventBase) -> World:
    return new_world(base)


def test_a_malformed_call_that_was_held_up_is_answered(world: World) -> None:
    def check(context: Rpc, *_: object) -> RpcHookResult:
        world.base.once(lambda *_: context.resume(), timeout=0.001)  # as after asking somebody
        return PAUSE

    world.server.register("Act", Msg, Kill, answer)
    world.server.add_hook(INPUT, check)
    with connected(("127.0.0.1", world.port)) as peer:
        peer.sendall(CALL % (len(MALFORMED), MALFORMED))
        run_until(world.base, lambda: answers([peer]))
    call = world.call("Act")
    run_until(world.base, lambda: call.status is not None)
    assert call.reply == REPLY


def test_what_a_handler_raises_comes_out_of_the_call_that_lets_it_go_on(world: World) -> None:
    def handler(rpc: Rpc) -> None:
        raise Oops

    held: list[Any] = []
    world.server.add_hook(INPUT, lambda context, *_: held.append(context) or PAUSE)
    world.server.register("Act", Msg, Kill, handler)
    call = world.call("Act")
    run_until(world.base, lambda: held)
    with pytest.raises(Oops):
        held[0].resume()
    assert held[0].closed
    run_until(world.base, lambda: call.status is not None)
    assert call.status is BADPAYLOAD


def test_a_reply_that_is_held_up_inside_the_call_that_let_its_request_go_on_waits(
    world: World,
) -> None:
    held: list[Any] = []

    def hold(context: Rpc, *_: object) -> RpcHookResult:
        held.append(context)
        return PAUSE

    for when in RpcHook:
        world.server.add_hook(when, hold)
    world.server.register("Act", Msg, Kill, answer)
    call = world.call("Act")
    run_until(world.base, lambda: held)
    held[0].resume()
    assert held == [held[0]] * 2
    assert held[0].paused
    settle(world.base)
    assert call.status is None
    held[0].resume()
    assert held[0].closed
    run_until(world.base, lambda: call.status is not None)
    assert call.reply == REPLY


REUSED = """
    import gc
    from libevent_py import *
    from tests.kit.peers import run_until, settle
    from tests.kit.rpc_messages import REQUEST, Kill, Msg, answer, new_world

    CONTINUE, PAUSE = RpcHookResult.CONTINUE, RpcHookResult.PAUSE

    # A call that is made, held up and let go on, where C is still about to forget one that was.
    for rounds in range(3):
        base = EventBase()
        world = new_world(base)
        pool, held, told, more = world.pool, [], [], []
        for _ in range(2):
            pool.add_connection(world.connect())

        def on_reply(context, *_):
            held.append(context)
            return PAUSE

        def on_call(context, *_):
            if not held:
                return CONTINUE
            if context in more:
                return PAUSE
            while len(more) < 8:
                more.append(pool.call("Message", REQUEST, Kill, told.append))
                # It was held up inside call(), if there was a connection for it.
                if more[-1].paused:
                    more[-1].resume()
            return CONTINUE

        class Calls(list):
            def __contains__(self, context):
                return context.name == "Message" and context not in first

        first = [pool.call("Message", REQUEST, Kill, told.append) for _ in range(5)]
        more = Calls()
        pool.add_hook(RpcHook.INPUT, on_reply)
        pool.add_hook(RpcHook.OUTPUT, on_call)
        run_until(base, lambda: len(held) == 3)
        while held:
            held.pop(0).resume()
        def done():
            while held:
                held.pop(0).resume()
            for call in more:
                if call.status is None and call.paused:
                    call.resume()
            return len(told) == len(first) + len(more)
        run_until(base, done)
        assert all(call.status is RpcStatus.NONE for call in told)
        base.close()
        del base, world, pool, held, told, more, first, on_reply, on_call, done
        gc.collect()
"""


def test_a_call_in_the_place_of_one_that_was_just_let_go_on_is_another() -> None:
    run_python(REUSED, valgrind=True)
