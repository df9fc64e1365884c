"""RPC servers, pools and calls: closed and dropped at every moment."""

from __future__ import annotations

import functools
import gc
import threading
import weakref
from typing import Any

import pytest

from libevent_py import (
    ClosedError,
    DnsBase,
    DnsBaseFlag,
    EventBase,
    ForkError,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    Rpc,
    RpcCall,
    RpcHook,
    RpcHookResult,
    RpcPool,
    RpcServer,
    RpcStatus,
    ThreadError,
)
from tests.kit.interposing import Asking
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import connected, run_until, settle
from tests.kit.processes import in_child
from tests.kit.rpc_messages import REPLY, REQUEST, Kill, Msg, World, answer, new_world
from tests.kit.support import run_python


@pytest.fixture
def world(base: EventBase) -> World:
    """A server that answers calls of Message, and a pool with one connection to it."""
    return new_world(base)


def holding(world: World) -> list[Rpc]:
    """Return a list in which calls of Hold are kept, unanswered."""
    held: list[Rpc] = []
    world.server.register("Hold", Msg, Kill, held.append)
    return held


# Closing.


def test_closing_a_pool_tells_its_calls_once(world: World) -> None:
    held = holding(world)
    told: list[RpcCall] = []
    calls = [world.call("Hold", told.append) for _ in range(3)]
    run_until(world.base, lambda: held)
    connections = world.pool.connections
    world.pool.close()
    timeout, unstarted = RpcStatus.TIMEOUT, RpcStatus.UNSTARTED
    assert told == calls
    assert [call.status for call in calls] == [timeout, unstarted, unstarted]
    assert world.pool.closed
    assert all(connection.closed for connection in connections)
    world.pool.close()
    answer(held[0])
    settle(world.base)
    assert len(told) == 3
    with pytest.raises(ClosedError):
        world.call()
    with pytest.raises(ClosedError):
        world.pool.add_connection(world.connect())


def test_closing_the_base_tells_a_pool_s_calls(base: EventBase) -> None:
    world: World
    told: list[RpcCall] = []

    def replied(call: RpcCall) -> None:
        told.append(call)
        with pytest.raises(ClosedError):
            world.call()

    with EventBase() as mine:
        world = new_world(mine)
        held = holding(world)
        calls = [world.call("Hold", replied) for _ in range(2)]
        run_until(mine, lambda: held)
    assert told == calls
    assert world.server.closed
    assert held[0].closed
    with pytest.raises(ClosedError):
        held[0].done()


def test_what_a_callback_raises_while_a_pool_is_closed_comes_out(world: World) -> None:
    def replied(call: RpcCall) -> None:
        raise ZeroDivisionError

    world.call("Message", replied)
    with pytest.raises(ZeroDivisionError):
        world.pool.close()
    assert world.pool.closed
    settle(world.base)


def test_closing_a_server_answers_its_calls(world: World) -> None:
    held = holding(world)
    call = world.call("Hold")
    run_until(world.base, lambda: held)
    world.server.close()
    world.server.close()
    assert held[0].closed
    run_until(world.base, lambda: call.status is not None)
    assert call.status is RpcStatus.BADPAYLOAD
    for use in (
        lambda: answer(held[0]),
        lambda: world.server.register("A", Msg, Kill, answer),
        lambda: world.server.unregister("Message"),
        lambda: world.server.add_hook(RpcHook.INPUT, print),  # type: ignore[arg-type]
    ):
        with pytest.raises(ClosedError):
            use()  # type: ignore[no-untyped-call]
    second = RpcServer(world.http)
    second.register("Message", Msg, Kill, answer)
    call = world.call()
    run_until(world.base, lambda: call.status is not None)
    assert call.reply == REPLY


def test_unregistering_answers_the_calls_of_that_name_alone(world: World) -> None:
    held = holding(world)
    world.server.register("Other", Msg, Kill, held.append)
    world.pool.add_connection(world.connect())
    calls = [world.call("Hold"), world.call("Other")]
    run_until(world.base, lambda: len(held) == 2)
    world.server.unregister("Hold")
    by_name = {str(rpc.name): rpc for rpc in held}
    assert [by_name["Hold"].closed, by_name["Other"].closed] == [True, False]
    answer(by_name["Other"])
    run_until(world.base, lambda: all(call.status is not None for call in calls))
    assert [call.status for call in calls] == [RpcStatus.BADPAYLOAD, RpcStatus.NONE]


@pytest.mark.parametrize("inside", [False, True])
def test_closing_the_http_server_closes_its_rpcs_first(world: World, inside: bool) -> None:
    held = holding(world)
    world.server.register("Close", Msg, Kill, lambda rpc: world.http.close())
    world.pool.add_connection(world.connect())
    calls = [world.call("Hold")]
    run_until(world.base, lambda: held)
    if inside:
        calls.append(world.call("Close"))
    else:
        world.http.close()
    run_until(world.base, lambda: all(call.status is not None for call in calls))
    settle(world.base)
    assert world.server.closed
    assert held[0].closed
    world.server.close()


def test_closing_a_connection_of_the_http_server_ends_its_rpcs(world: World) -> None:
    held = holding(world)
    connections: list[Any] = []

    def keep(request: Any) -> None:
        connections.append(request.connection)
        request.send_reply(200, "OK")

    world.http.set_gencb(keep)
    [connection] = world.pool.connections
    world.pool.remove_connection(connection)
    done: list[HttpRequest] = []
    request = HttpRequest(done.append)
    connection.make_request(request, HttpCommand.GET, "/")
    run_until(world.base, lambda: done)
    world.pool.add_connection(connection)
    call = world.call("Hold")
    run_until(world.base, lambda: held)
    connections[0].close()
    run_until(world.base, lambda: held[0].closed and call.status is not None)
    assert call.status in (RpcStatus.TIMEOUT, RpcStatus.BADPAYLOAD)


@pytest.mark.parametrize("place", ["handler", "input hook", "output hook"])
def test_an_rpc_s_connection_may_be_closed_anywhere(world: World, place: str) -> None:
    def close(rpc: Rpc, *_: Any) -> RpcHookResult:
        assert rpc.connection is not None
        assert rpc.connection.peer[0] == "127.0.0.1"
        rpc.connection.close()
        return RpcHookResult.CONTINUE

    def handler(rpc: Rpc) -> None:
        if place == "handler":
            close(rpc)
        answer(rpc)

    world.server.register("Close", Msg, Kill, handler)
    if place != "handler":
        when = RpcHook.INPUT if place == "input hook" else RpcHook.OUTPUT
        world.server.add_hook(when, close)
    call = world.call("Close")
    run_until(world.base, lambda: call.status is not None)
    settle(world.base)
    assert not world.server._served.calls


def test_a_caller_that_leaves_is_answered_all_the_same(world: World) -> None:
    held = holding(world)
    body = bytes(REQUEST)
    header = f"POST /.rpc.Hold HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    for end in Rpc.done, Rpc.fail, lambda rpc: held.clear():
        client = connected(("127.0.0.1", world.port))
        client.sendall(header.encode() + body)
        run_until(world.base, lambda: held)
        client.close()
        settle(world.base)
        rpc = held.pop()
        rpc.reply = REPLY
        end(rpc)
        del rpc
        settle(world.base)
    call = world.call()
    run_until(world.base, lambda: call.status is not None)
    assert call.reply == REPLY


def test_closing_what_looks_the_host_up_closes_the_pool(world: World) -> None:
    resolver = DnsBase(world.base, DnsBaseFlag(0))
    world.pool.add_connection(
        HttpConnection(world.base, "a.example", world.port, dns_base=resolver)
    )
    calls = [world.call() for _ in range(3)]
    resolver.close()
    assert world.pool.closed
    assert all(call.status is not None for call in calls)
    settle(world.base)


# Dropping.


def test_a_call_keeps_its_pool_alive_until_it_is_over(world: World) -> None:
    pool = RpcPool(world.base)
    pool.add_connection(world.connect())
    told: list[RpcStatus | None] = []
    pool.call("Message", REQUEST, Kill, lambda call: told.append(call.status))
    ref = weakref.ref(pool)
    del pool
    gc.collect()
    assert ref() is not None
    run_until(world.base, lambda: told)
    assert told == [RpcStatus.NONE]
    assert ref() is None


def test_a_server_that_nobody_holds_serves(base: EventBase) -> None:
    world = new_world(base)
    ref = weakref.ref(world.server)
    base, pool = world.base, world.pool
    del world
    gc.collect()
    assert ref() is not None
    call = pool.call("Message", REQUEST, Kill, lambda call: None)
    run_until(base, lambda: call.status is not None)
    assert call.reply == REPLY


def test_an_http_request_keeps_its_rpc_unanswered(world: World) -> None:
    requests: list[Any] = []
    world.server.register("Keep", Msg, Kill, lambda rpc: requests.append(rpc.http_request))
    call = world.call("Keep")
    run_until(world.base, lambda: requests)
    settle(world.base)
    assert call.status is None
    assert requests[0].uri == "/.rpc.Keep"
    requests.clear()
    run_until(world.base, lambda: call.status is not None)
    assert call.status is RpcStatus.BADPAYLOAD


def test_nothing_is_left_of_calls_that_are_over(world: World) -> None:
    refs = []
    for _ in range(3):
        call = world.call()
        run_until(world.base, lambda call=call: call.status is not None)  # type: ignore[misc]
        refs.append(weakref.ref(call))
    del call
    before = len(world.base._live), len(world.base._ledger)
    for _ in range(10):
        world.call()
        settle(world.base)
    run_until(world.base, lambda: not world.pool._made.calls)
    assert (len(world.base._live), len(world.base._ledger)) == before
    assert not world.server._served.calls
    assert not world.server._arriving
    assert [ref() for ref in refs] == [None] * 3


# Elsewhere.


def test_another_thread_may_not_touch_them_while_the_loop_runs(world: World) -> None:
    held = holding(world)
    world.call("Hold")
    run_until(world.base, lambda: held)
    refused: list[type[Exception]] = []

    def elsewhere() -> None:
        for use in (
            world.call,
            world.pool.close,
            world.server.close,
            lambda: answer(held[0]),
            held[0].fail,
            lambda: held[0].add_meta("a", b"b"),
            lambda: world.server.register("A", Msg, Kill, answer),
            lambda: world.server.unregister("Hold"),
            lambda: RpcPool(world.base),
        ):
            try:
                use()
            except ThreadError as error:
                refused.append(type(error))

    def run(_fd: int, _what: int) -> None:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    world.base.once(run)
    run_until(world.base, lambda: refused)
    assert refused == [ThreadError] * 9
    world.pool.close()


def test_another_thread_may_drop_them(world: World) -> None:
    held = holding(world)
    call = world.call("Hold")
    run_until(world.base, lambda: held)

    def run(_fd: int, _what: int) -> None:
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()

    world.base.once(run)
    run_until(world.base, lambda: call.status is not None)
    assert call.status is RpcStatus.BADPAYLOAD


def test_in_a_forked_child_they_are_the_parent_s() -> None:
    run_python(
        """
        import os
        from libevent_py import EventBase, ForkError
        from tests.kit.peers import run_until
        from tests.kit.rpc_messages import REPLY, Kill, Msg, answer, new_world

        base = EventBase()
        world = new_world(base)
        held = []
        world.server.register("Hold", Msg, Kill, held.append)
        call = world.call("Hold")
        run_until(base, lambda: held)
        child = os.fork()
        if child == 0:
            peer = lambda: call.pool.connections[0].peer
            for use in world.call, held[0].done, held[0].fail, peer:
                try:
                    use()
                except (ForkError, ValueError):
                    continue
                os._exit(1)
            held.clear()
            world.pool.close()
            world.server.close()
            base.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        answer(held[0])
        run_until(base, lambda: call.status is not None)
        assert call.reply == REPLY
        base.close()
        """
    )


def test_in_a_forked_child_a_call_is_not_closed_but_the_parent_s(base: EventBase) -> None:
    call = new_world(base).call()

    def child() -> None:
        for _ in range(2):
            assert not call.closed
            with pytest.raises(ForkError):
                call.resume()
            assert "in a forked child" in repr(call)
        base.reinit()
        assert not call.closed
        run_until(base, lambda: call.closed)

    in_child(child)


def test_a_handler_that_raises_in_a_child_it_has_forked_leaves_the_answer_to_the_parent() -> None:
    run_python(
        """
        import os
        from libevent_py import EventBase
        from tests.kit.peers import run_until
        from tests.kit.rpc_messages import REPLY, Kill, Msg, answer, new_world

        def handler(rpc):
            children.append(os.fork())
            if children[0] == 0:
                raise ZeroDivisionError
            assert os.waitpid(children[0], 0)[1] == 0
            answer(rpc)

        children, parent = [], os.getpid()
        base = EventBase()
        world = new_world(base)
        world.server.register("Fork", Msg, Kill, handler)
        call = world.call("Fork")
        try:
            run_until(base, lambda: call.status is not None)
        except BaseException:
            if os.getpid() == parent:
                raise
            os._exit(0)
        assert call.reply == REPLY
        base.close()
        """
    )


# No memory that is freed is touched, and none is lost.

MISUSE = """
    import gc, itertools
    from libevent_py import *
    from tests.kit.peers import run_until, settle
    from tests.kit.rpc_messages import REPLY, REQUEST, Kill, Msg, answer, new_world

    CONTINUE, PAUSE = RpcHookResult.CONTINUE, RpcHookResult.PAUSE

    def attempt(function, *arguments):
        try:
            function(*arguments)
        except (ClosedError, KeyError):
            pass

    def act_at(place, deed):
        base = EventBase()
        world = new_world(base)
        did = []
        resolver = DnsBase(base, DnsBaseFlag(0))
        if deed == "closes the resolver":
            connection = HttpConnection(base, "a.example", world.port, dns_base=resolver)
            world.pool.add_connection(connection)

        def act(*arguments):
            if not did:
                did.append(deed)
                {
                    "closes the server": world.server.close,
                    "closes the pool": world.pool.close,
                    "closes the http server": world.http.close,
                    "closes the resolver": resolver.close,
                    "closes the connection": lambda: arguments[0].connection.close(),
                    "unregisters": lambda: world.server.unregister("Act"),
                    "calls": lambda: world.call("Act"),
                }[deed]()
            return CONTINUE

        def handler(rpc):
            if place == "handler":
                act()
            attempt(answer, rpc)

        def replied(call):
            if place.startswith("callback"):
                act()

        if place == "callback resumed":
            def held_up(context, *_):
                base.once(lambda *_: attempt(context.resume))
                return PAUSE
            world.pool.add_hook(RpcHook.INPUT, held_up)

        world.server.register("Act", Msg, Kill, handler)
        for end, when in itertools.product((world.server, world.pool), RpcHook):
            if place == f"{type(end).__name__} {when.name}":
                end.add_hook(when, act)
            if place == f"{type(end).__name__} {when.name} resumed":
                def pause(context, *_):
                    def resume(*_):
                        act()
                        attempt(context.resume)
                    base.once(resume)
                    return PAUSE
                end.add_hook(when, pause)
        calls = []
        for _ in range(3):
            attempt(lambda: calls.append(world.call("Act", replied)))
        run_until(base, lambda: did and all(call.status is not None for call in calls))
        settle(base)
        base.close()

    places = ["handler", "callback", "callback resumed"]
    ends, later = ("RpcServer", "RpcPool"), ("", " resumed")
    for end, when, resumed in itertools.product(ends, RpcHook, later):
        places.append(f"{end} {when.name}{resumed}")
    deeds = ["closes the server", "closes the pool", "closes the http server"]
    deeds += ["closes the resolver", "unregisters", "calls"]
    for place, deed in itertools.product(places, deeds):
        act_at(place, deed)
    for when in RpcHook:
        act_at(f"RpcServer {when.name}", "closes the connection")
"""


@VALGRIND_TAKES_LONG
def test_closing_everywhere_touches_no_memory_that_is_freed(valgrind: bool) -> None:
    run_python(MISUSE, valgrind=valgrind)


LEFT = """
    import gc, itertools
    from libevent_py import *
    from tests.kit.peers import run_until
    from tests.kit.rpc_messages import REPLY, REQUEST, Kill, Msg, answer, new_world

    # A base, and all on it, is dropped with calls held, held up and waiting.
    for how in "closed", "dropped", "http server closed", "pool closed", "called outside the loop":
        for end, when in itertools.product(("server", "pool"), (None, *RpcHook)):
            base = EventBase()
            world = new_world(base)
            held = []
            world.server.register("Hold", Msg, Kill, held.append)

            def hold(context, *_):
                held.append(context)
                return RpcHookResult.PAUSE

            if when is not None:
                getattr(world, end).add_hook(when, hold)
            calls = [world.call("Hold") for _ in range(2)]
            if (end, when) in (("pool", RpcHook.INPUT), ("server", RpcHook.OUTPUT)):
                world.server.register("Message2", Msg, Kill, answer)
                calls = [world.call("Message2") for _ in range(2)]
            run_until(base, lambda: held)
            if how == "closed":
                base.close()
            elif how == "http server closed":
                world.http.close()
            elif how == "pool closed":
                world.pool.close()
            elif how == "called outside the loop":
                for context in held:
                    if context.paused:
                        context.resume()
                    elif isinstance(context, Rpc):
                        context.fail()
            if how != "dropped":
                base.close()
            del base, world, held, hold, calls
            gc.collect()
"""


@VALGRIND_TAKES_LONG
def test_whatever_is_left_of_calls_is_freed_with_them(valgrind: bool) -> None:
    run_python(LEFT, valgrind=valgrind)


@pytest.mark.parametrize("what", ["connection", "http_request"])
def test_what_a_signal_handler_asks_for_in_the_middle_is_the_same_object(what: str) -> None:
    """It is made when it is first asked for: of two, only one would be closed."""
    asking, number = None, 0
    while asking is None or not asking.done:
        with EventBase() as base:
            world = new_world(base)
            held = holding(world)
            world.call("Hold", lambda call: None)
            run_until(base, lambda held=held: held)  # type: ignore[misc]
            asking = Asking(functools.partial(getattr, held[0], what), number)
        assert all(one is asking.got[0] and one.closed for one in asking.got), number
        number += 1
    assert number > 5
