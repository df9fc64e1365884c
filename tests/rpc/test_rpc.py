"""RPC servers and pools: calls, replies, failures, and hooks."""

from __future__ import annotations

from typing import Any

import pytest

from libevent_py import (
    ClosedError,
    EventBase,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    HttpServer,
    Message,
    Rpc,
    RpcCall,
    RpcHook,
    RpcHookResult,
    RpcPool,
    RpcServer,
    RpcStatus,
)
from tests.kit.peers import nobody_listens, run_until, settle
from tests.kit.rpc_messages import REPLY, REQUEST, Kill, Msg, World, answer, new_world

CONTINUE, TERMINATE, PAUSE = RpcHookResult.CONTINUE, RpcHookResult.TERMINATE, RpcHookResult.PAUSE
INPUT, OUTPUT = RpcHook.INPUT, RpcHook.OUTPUT


@pytest.fixture
def world(base: EventBase) -> World:
    """A server that answers calls of Message, and a pool with one connection to it."""
    return new_world(base)


def ended(world: World, name: str = "Message") -> RpcCall:
    """Return a call of *name* once it has ended."""
    call: RpcCall = world.call(name)
    run_until(world.base, lambda: call.status is not None)
    return call


# Calls.


def test_a_call_is_answered(world: World, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[Rpc] = []

    def handler(rpc: Rpc) -> None:
        asked.append(rpc)
        assert (rpc.name, rpc.server) == ("Other", world.server)
        assert rpc.request == REQUEST
        assert rpc.reply == Kill()
        assert rpc.http_request.uri == "/.rpc.Other"
        assert rpc.http_request.command == HttpCommand.POST
        rpc.http_request.output_headers["X-Sign"] = "yes"
        rpc.reply.weapon = "feather"
        rpc.reply.action = "tickle"
        rpc.done()

    told: list[Any] = []

    def replied(call: RpcCall) -> None:
        assert call.http_request is not None
        headers = call.http_request.input_headers
        told.append((call, headers["X-Sign"], headers["Content-Type"]))

    world.server.register("Other", Msg, Kill, handler)
    call = world.call("Other", replied)
    assert (call.name, call.status, call.pool) == ("Other", None, world.pool)
    assert call.request is REQUEST
    run_until(world.base, lambda: told)
    assert told == [(call, "yes", "application/octet-stream")]
    assert call.status is RpcStatus.NONE
    assert call.reply == Kill(weapon="feather", action="tickle")
    assert call.http_request is None
    assert call.closed
    assert asked[0].closed
    assert not caplog.records  # C warns of the timer that a pool without a base has not (R1)


def test_a_call_may_be_answered_later(world: World) -> None:
    held: list[Rpc] = []
    world.server.register("Later", Msg, Kill, held.append)
    call = world.call("Later")
    run_until(world.base, lambda: held)
    assert call.status is None
    answer(held[0])
    run_until(world.base, lambda: call.status is not None)
    assert call.reply == REPLY


def test_more_calls_than_connections_wait_for_their_turn(world: World) -> None:
    world.pool.add_connection(world.connect())
    order: list[tuple[int, Any]] = []
    for number in range(5):
        world.call("Message", lambda call, number=number: order.append((number, call.reply)))  # type: ignore[misc]
    run_until(world.base, lambda: len(order) == 5)
    assert sorted(order) == [(number, REPLY) for number in range(5)]


def test_a_callback_may_call_again(world: World) -> None:
    again: list[RpcCall] = []

    def first(_call: RpcCall) -> None:
        world.call("Message", again.append)

    world.call("Message", first)
    run_until(world.base, lambda: again)
    assert again[0].reply == REPLY


def test_a_call_is_answered_once(world: World) -> None:
    errors: list[str] = []

    def handler(rpc: Rpc) -> None:
        answer(rpc)
        for again in rpc.done, rpc.fail, lambda: rpc.add_meta("a", b"b"), lambda: rpc.http_request:
            with pytest.raises(ClosedError) as caught:
                again()
            errors.append(str(caught.value))
        rpc.close()

    world.server.register("Twice", Msg, Kill, handler)
    assert ended(world, "Twice").reply == REPLY
    assert errors == ["this Rpc is closed"] * 4


# What goes wrong.


def test_a_reply_in_which_something_is_missing_is_not_sent(world: World) -> None:
    def handler(rpc: Rpc) -> None:
        rpc.reply.weapon = "feather"
        with pytest.raises(ValueError, match="Kill is incomplete: action not set"):
            rpc.done()
        rpc.reply.action = "tickle"
        rpc.done()

    world.server.register("Half", Msg, Kill, handler)
    assert ended(world, "Half").reply == Kill(weapon="feather", action="tickle")


def refused(world: World, name: str) -> None:
    """Check that a call of *name* is answered by 503."""
    codes: list[int] = []

    def replied(call: RpcCall) -> None:
        assert call.http_request is not None
        codes.append(call.http_request.response_code)

    call = world.call(name, replied)
    run_until(world.base, lambda: codes)
    assert codes == [503]
    assert call.status is RpcStatus.BADPAYLOAD
    assert call.reply is None


def test_a_handler_that_drops_its_call_has_refused_it(world: World) -> None:
    world.server.register("Drop", Msg, Kill, lambda rpc: None)
    refused(world, "Drop")


def test_a_handler_may_refuse_its_call(world: World) -> None:
    world.server.register("Fail", Msg, Kill, Rpc.fail)
    refused(world, "Fail")
    world.server.register("Close", Msg, Kill, Rpc.close)
    refused(world, "Close")


def test_what_a_handler_raises_comes_out_and_its_call_is_refused(world: World) -> None:
    def handler(rpc: Rpc) -> None:
        raise ZeroDivisionError

    world.server.register("Raise", Msg, Kill, handler)
    reported: list[Any] = []
    world.base.on_error = lambda error, rpc: reported.append((type(error), rpc.name, rpc.server))
    refused(world, "Raise")
    assert reported == [(ZeroDivisionError, "Raise", world.server)]
    world.base.on_error = None
    call = world.call("Raise")
    with pytest.raises(ZeroDivisionError):
        run_until(world.base, lambda: call.status is not None)
    run_until(world.base, lambda: call.status is not None)


def test_on_error_may_answer_a_call_whose_handler_has_raised(world: World) -> None:
    def handler(rpc: Rpc) -> None:
        raise ZeroDivisionError

    world.server.register("Raise", Msg, Kill, handler)
    world.base.on_error = lambda error, rpc: answer(rpc)
    assert ended(world, "Raise").reply == REPLY


def test_a_handler_that_raises_after_its_reply_has_replied(world: World) -> None:
    def handler(rpc: Rpc) -> None:
        answer(rpc)
        raise ZeroDivisionError

    world.server.register("Raise", Msg, Kill, handler)
    world.base.on_error = lambda error, source: None
    assert ended(world, "Raise").reply == REPLY


def test_what_a_call_s_callback_raises_comes_out(world: World) -> None:
    def replied(call: RpcCall) -> None:
        raise ZeroDivisionError

    call = world.call("Message", replied)
    with pytest.raises(ZeroDivisionError):
        run_until(world.base, lambda: call.status is not None)
    assert ended(world).reply == REPLY


def posted(world: World, body: bytes, command: HttpCommand = HttpCommand.POST) -> int:
    """Return the code that a request with *body* is answered by."""
    done: list[int] = []
    request = HttpRequest(lambda request: done.append(request.response_code))
    request.output_headers["Host"] = "localhost"
    request.output_buffer.add(body)
    with world.connect() as connection:
        connection.make_request(request, command, "/.rpc.Message")
        run_until(world.base, lambda: done)
    return done[0]


def test_what_is_no_call_is_refused(world: World) -> None:
    assert posted(world, bytes(REQUEST)) == 200
    assert posted(world, b"Some Nonsense") == 503
    assert posted(world, bytes(REQUEST)[:-1]) == 503
    assert posted(world, b"") == 503
    assert posted(world, b"", HttpCommand.GET) == 503
    assert posted(world, bytes(REQUEST)) == 200


def test_a_reply_that_is_no_such_message_is_a_bad_payload(base: EventBase) -> None:
    bodies = [b"", b"Some Nonsense", bytes(REPLY)[:-1]]
    with HttpServer(base) as http, RpcPool(base) as pool:
        http.set_gencb(lambda request: request.send_reply(200, "OK", bodies[0]))
        port = http.bind_socket("127.0.0.1", 0).port
        pool.add_connection(HttpConnection(base, "127.0.0.1", port))
        while bodies:
            call = pool.call("Message", REQUEST, Kill, lambda call: None)
            run_until(base, lambda: call.status is not None)  # noqa: B023
            assert (call.status, call.reply) == (RpcStatus.BADPAYLOAD, None)
            del bodies[0]


def test_what_making_a_reply_raises_comes_out_and_the_call_is_told(world: World) -> None:
    class Odd(Kill):
        def __init__(self) -> None:
            raise ZeroDivisionError

    call = world.pool.call("Message", REQUEST, Odd, lambda call: None)
    with pytest.raises(ZeroDivisionError):
        run_until(world.base, lambda: call.status is not None)
    assert call.status is RpcStatus.BADPAYLOAD


def test_a_connection_that_is_refused_is_told(base: EventBase) -> None:
    told: list[Any] = []
    with RpcPool(base) as pool:
        pool.add_connection(HttpConnection(base, *nobody_listens()))
        for _ in range(3):
            pool.call("Message", REQUEST, Kill, lambda call: told.append((call.status, call.reply)))
        run_until(base, lambda: len(told) == 3)
    assert told == [(RpcStatus.BADPAYLOAD, None)] * 3


def test_a_connection_s_timeout_is_that_of_its_calls(world: World) -> None:
    held: list[Rpc] = []
    world.server.register("Never", Msg, Kill, held.append)
    with RpcPool(world.base) as pool:
        connection = world.connect()
        connection.timeout = 0.05
        pool.add_connection(connection)
        calls = [pool.call("Never", REQUEST, Kill, lambda call: None) for _ in range(2)]
        run_until(world.base, lambda: all(call.status is not None for call in calls))
        assert [call.status for call in calls] == [RpcStatus.TIMEOUT] * 2
    for rpc in held:  # whose callers have gone
        answer(rpc)
    assert ended(world).reply == REPLY


# Names.


def test_a_name_is_registered_once_and_its_path_is_free(world: World) -> None:
    with pytest.raises(ValueError, match=r"'Message' is taken: the HTTP server has /.rpc.Message"):
        world.server.register("Message", Msg, Kill, answer)
    world.http.set_cb("/.rpc.Mine", lambda request: request.send_error(410, None))
    with pytest.raises(ValueError, match="taken"):
        world.server.register("Mine", Msg, Kill, answer)
    with pytest.raises(ValueError, match="taken"), RpcServer(world.http) as second:
        second.register("Message", Msg, Kill, answer)
    assert ended(world).reply == REPLY


def test_what_is_unregistered_is_not_found(world: World) -> None:
    codes: list[int] = []
    world.server.unregister("Message")
    with pytest.raises(KeyError, match="Message"):
        world.server.unregister("Message")
    call = world.call(callback=lambda call: codes.append(call.http_request.response_code))
    run_until(world.base, lambda: codes)
    assert codes == [404]
    assert call.status is RpcStatus.BADPAYLOAD
    world.server.register("Message", Msg, Kill, answer)
    assert ended(world).reply == REPLY


@pytest.mark.parametrize("name", ["", "a b", "a#b", "a?b", "a%41", "\u00e6", "a\0b", "a\r\nb"])
def test_a_name_is_one_that_a_request_line_can_have(world: World, name: str) -> None:
    with pytest.raises(ValueError, match="name must"):
        world.server.register(name, Msg, Kill, answer)
    with pytest.raises(ValueError, match="name must"):
        world.call(name)


def test_wrong_arguments_are_named(world: World) -> None:
    base, server, pool = world.base, world.server, world.pool
    other: Any
    with pytest.raises(TypeError, match="request must be a subclass of Message"):
        server.register("A", int, Kill, answer)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callback must be callable"):
        server.register("A", Msg, Kill, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="request must be a Message"):
        pool.call("A", b"", Kill, print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reply must be a subclass"):
        pool.call("A", REQUEST, Message(), print)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Msg is incomplete"):
        pool.call("A", Msg(), Kill, print)
    with pytest.raises(TypeError, match="http must be an HttpServer"):
        RpcServer(base)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="base must be an EventBase"):
        RpcPool(world.http)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="connection must be an HttpConnection"):
        pool.add_connection(base)  # type: ignore[arg-type]
    with EventBase() as other, pytest.raises(ValueError, match="same base"):
        pool.add_connection(HttpConnection(other, "127.0.0.1", 1))
    assert not pool._made.calls


# Connections.


def test_a_pool_without_a_connection_makes_no_calls(base: EventBase) -> None:
    with RpcPool(base) as pool, pytest.raises(RuntimeError, match="no connection"):
        pool.call("Message", REQUEST, Kill, print)


def test_a_connection_is_the_pool_s_until_it_is_removed(world: World) -> None:
    connection = world.connect()
    world.pool.add_connection(connection)
    assert connection in world.pool.connections
    with pytest.raises(ClosedError):
        connection.timeout = 1
    world.pool.remove_connection(connection)
    assert connection not in world.pool.connections
    with pytest.raises(ValueError, match="not one of this pool's"):
        world.pool.remove_connection(connection)
    done: list[Any] = []
    request = HttpRequest(done.append)
    connection.make_request(request, HttpCommand.GET, "/")
    with pytest.raises(ValueError, match="no request under way"):
        world.pool.add_connection(connection)
    run_until(world.base, lambda: done)
    world.pool.add_connection(connection)
    world.pool.close()
    assert connection.closed


def test_a_connection_with_a_call_under_way_can_not_be_removed(world: World) -> None:
    [connection] = world.pool.connections
    call = world.call()
    assert call.connection is connection
    with pytest.raises(RuntimeError, match="a call is under way"):
        world.pool.remove_connection(connection)
    run_until(world.base, lambda: call.status is not None)
    world.pool.remove_connection(connection)
    connection.close()


def test_rpcs_are_not_served_by_a_virtual_host(base: EventBase) -> None:
    with HttpServer(base) as parent, HttpServer(base) as child, HttpServer(base) as serving:
        parent.add_virtual_host("*.example", child)
        with pytest.raises(ValueError, match="virtual host"):
            RpcServer(child)
        RpcServer(serving)
        with pytest.raises(ValueError, match="RPC"):
            parent.add_virtual_host("*.test", serving)


# Hooks.


def test_hooks_see_and_change_each_message(world: World) -> None:
    seen: list[tuple[str, RpcHook, bytes]] = []

    def hooked(end: str, when: RpcHook) -> Any:
        def hook(context: Any, request: Any, buffer: Any) -> RpcHookResult:
            seen.append((end, when, bytes(buffer)))
            headers = request.output_headers if when is OUTPUT else request.input_headers
            headers.add("X-Seen", end)
            data = bytes(buffer)
            buffer.drain(len(buffer))
            buffer.add(data)
            return CONTINUE

        return hook

    asked: list[list[str]] = []

    def handler(rpc: Rpc) -> None:
        asked.append(rpc.http_request.input_headers.get_all("X-Seen"))
        answer(rpc)

    world.server.register("Hooked", Msg, Kill, handler)
    for when in RpcHook:
        world.server.add_hook(when, hooked("server", when))
        world.pool.add_hook(when, hooked("pool", when))
    told: list[list[str]] = []
    call = world.call(
        "Hooked", lambda call: told.append(call.http_request.input_headers.get_all("X-Seen"))
    )
    run_until(world.base, lambda: told)
    there, back = bytes(REQUEST), bytes(REPLY)
    assert seen == [
        ("pool", OUTPUT, there),
        ("server", INPUT, there),
        ("server", OUTPUT, back),
        ("pool", INPUT, back),
    ]
    assert asked == [["pool", "server"]]
    assert told == [["server", "pool"]]
    assert call.reply == REPLY


def test_hooks_are_called_in_order_until_one_does_not_continue(world: World) -> None:
    called: list[int] = []

    def hook(number: int, result: RpcHookResult) -> Any:
        return lambda *_: called.append(number) or result

    third = hook(3, TERMINATE)
    for each in hook(1, CONTINUE), hook(2, CONTINUE), third, hook(4, CONTINUE):
        world.server.add_hook(INPUT, each)
    refused(world, "Message")
    assert called == [1, 2, 3]
    world.server.remove_hook(INPUT, third)
    with pytest.raises(ValueError):
        world.server.remove_hook(INPUT, third)
    with pytest.raises(ValueError):
        world.server.remove_hook(OUTPUT, called.append)  # type: ignore[arg-type]
    assert ended(world).reply == REPLY
    assert called == [1, 2, 3, 1, 2, 4]


def test_a_hook_may_take_itself_back(world: World) -> None:
    called: list[Any] = []

    def hook(*_: Any) -> RpcHookResult:
        called.append(1)
        world.pool.remove_hook(OUTPUT, hook)
        return CONTINUE

    world.pool.add_hook(OUTPUT, hook)
    assert ended(world).reply == ended(world).reply == REPLY
    assert called == [1]


@pytest.mark.parametrize(
    ("end", "when", "status"),
    [
        ("pool", OUTPUT, RpcStatus.UNSTARTED),
        ("server", INPUT, RpcStatus.BADPAYLOAD),
        ("server", OUTPUT, RpcStatus.BADPAYLOAD),
        ("pool", INPUT, RpcStatus.HOOKABORTED),
    ],
)
@pytest.mark.parametrize("how", ["returns", "raises", "returns what is none"])
def test_a_hook_terminates_a_call(
    world: World, end: str, when: RpcHook, status: RpcStatus, how: str
) -> None:
    def hook(*_: Any) -> Any:
        if how == "raises":
            raise ZeroDivisionError
        return TERMINATE if how == "returns" else None

    reported: list[Any] = []
    world.base.on_error = lambda error, source: reported.append((type(error), source))
    it: Any = getattr(world, end)
    it.add_hook(when, hook)
    call = ended(world)
    assert (call.status, call.reply) == (status, None)
    expected = {"returns": [], "raises": [(ZeroDivisionError, it)]}.get(how, [(TypeError, it)])
    assert reported == expected
    it.remove_hook(when, hook)
    assert ended(world).reply == REPLY


def test_calls_that_wait_go_on_after_one_that_a_hook_has_terminated(world: World) -> None:
    results = [CONTINUE, TERMINATE, TERMINATE, CONTINUE]
    world.pool.add_hook(OUTPUT, lambda *_: results.pop(0))
    calls = [world.call() for _ in range(4)]
    run_until(world.base, lambda: all(call.status is not None for call in calls))
    none, unstarted = RpcStatus.NONE, RpcStatus.UNSTARTED
    assert [call.status for call in calls] == [none, unstarted, unstarted, none]


@pytest.mark.parametrize("result", [CONTINUE, TERMINATE])
@pytest.mark.parametrize(
    ("end", "when", "status"),
    [
        ("pool", OUTPUT, RpcStatus.UNSTARTED),
        ("server", INPUT, RpcStatus.BADPAYLOAD),
        ("server", OUTPUT, RpcStatus.BADPAYLOAD),
        ("pool", INPUT, RpcStatus.HOOKABORTED),
    ],
)
def test_a_call_that_a_hook_holds_up_is_resumed_once(
    world: World, end: str, when: RpcHook, status: RpcStatus, result: RpcHookResult
) -> None:
    paused: list[Any] = []

    def hook(context: Any, request: Any, buffer: Any) -> RpcHookResult:
        with pytest.raises(RuntimeError, match="this RPC isn't paused"):
            context.resume()
        paused.append((context, request, buffer))
        return PAUSE

    it: Any = getattr(world, end)
    it.add_hook(when, hook)
    call = world.call()
    run_until(world.base, lambda: paused)
    settle(world.base)
    assert call.status is None
    context, request, buffer = paused[0]
    assert context.paused
    for ended_with_the_hook in lambda: request.uri, lambda: len(buffer):
        with pytest.raises(ClosedError):
            ended_with_the_hook()
    with pytest.raises(ValueError, match="result must be CONTINUE or TERMINATE"):
        context.resume(PAUSE)
    context.resume(result)
    with pytest.raises((RuntimeError, ClosedError)):
        context.resume(result)
    run_until(world.base, lambda: call.status is not None)
    assert call.status is (RpcStatus.NONE if result is CONTINUE else status)
    assert len(paused) == 1


@pytest.mark.parametrize("when", RpcHook)
def test_a_held_up_call_that_is_dropped_or_fails_is_refused(world: World, when: RpcHook) -> None:
    world.server.add_hook(when, lambda *_: PAUSE)
    assert ended(world).status is RpcStatus.BADPAYLOAD
    held: list[Rpc] = []

    def hold(rpc: Rpc, *_: Any) -> RpcHookResult:
        held.append(rpc)
        return PAUSE

    world.server._hooks[when] = (hold,)
    call = world.call()
    run_until(world.base, lambda: held)
    settle(world.base)
    held[0].fail()
    run_until(world.base, lambda: call.status is not None)
    assert held[0].closed


def test_a_message_on_its_way_is_not_watched(world: World) -> None:
    raised: list[Exception] = []
    world.base.on_error = lambda error, source: raised.append(error)
    world.pool.add_hook(OUTPUT, lambda context, request, buffer: buffer.add_cb(print))  # type: ignore[arg-type,return-value]
    assert ended(world).status is RpcStatus.UNSTARTED
    assert "can't be watched" in str(raised[0])


def test_meta_data_is_kept_until_the_call_is_over(world: World) -> None:
    found: list[Any] = []

    def put(context: Any, *_: Any) -> RpcHookResult:
        assert context.find_meta("meta") is None
        context.add_meta("meta", b"te\0st")
        context.add_meta("meta", bytearray(b"second"))
        with pytest.raises(ValueError, match="data must have at least one byte"):
            context.add_meta("meta", b"")
        with pytest.raises(ValueError, match="key must not contain a NUL"):
            context.add_meta("a\0b", b"a")
        return CONTINUE

    def get(context: Any, *_: Any) -> RpcHookResult:
        found.append((context.find_meta("meta"), context.find_meta(b"none")))
        return CONTINUE

    for end, first, second in (world.pool, OUTPUT, INPUT), (world.server, INPUT, OUTPUT):
        end.add_hook(first, put)
        end.add_hook(second, get)
    call = ended(world)
    assert found == [(b"te\0st", None)] * 2
    with pytest.raises(ClosedError):
        call.find_meta("meta")


def test_a_call_itself_can_not_be_closed(world: World) -> None:
    call = world.call()
    with pytest.raises(ValueError, match="ends with its reply"):
        call.close()
    run_until(world.base, lambda: call.status is not None)
