"""What a signal handler does to a call in the middle of a method of the same call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from libevent_py import EventBase, LibeventError, Rpc
from tests.kit.interposing import Within
from tests.kit.peers import run_until
from tests.kit.rpc_messages import Kill, Msg, answer, new_world
from tests.kit.support import run_python

#: Each way to end a call, in the middle of each use of it.
ENDS = """
import contextlib, itertools
from libevent_py import *
from tests.kit.interposing import Interposer
from tests.kit.peers import run_until, settle
from tests.kit.rpc_messages import Kill, Msg, answer, new_world

uses = {
    "done": answer,
    "fail": Rpc.fail,
    "resume": Rpc.resume,
    "add_meta": lambda rpc: rpc.add_meta("key", b"data"),
    "find_meta": lambda rpc: rpc.find_meta("key"),
    "connection": lambda rpc: rpc.connection,
    "headers": lambda rpc: rpc.http_request.input_headers.get("Host"),
}

def once(number, paused, first, second):
    with EventBase() as base:
        world = new_world(base)
        held, told = [], []

        def hold(rpc, *_):
            held.append(rpc)
            return RpcHookResult.PAUSE

        world.server.register("Hold", Msg, Kill, answer if paused else held.append)
        if paused:
            world.server.add_hook(RpcHook.INPUT, hold)
        world.call("Hold", told.append)
        run_until(base, lambda: held)
        rpc = held.pop()

        def refused(way):
            with contextlib.suppress(LibeventError, RuntimeError):
                way(rpc)

        interposer = Interposer(lambda: refused(uses[second]), number, signals=True)
        refused(lambda rpc: interposer.run(uses[first], rpc))
        settle(base)
        refused(Rpc.resume if paused else answer)
        run_until(base, lambda: told)
        settle(base)
        assert len(told) == 1, (number, first, second, interposer.where)
        if "fail" not in (first, second):
            assert told[0].status is RpcStatus.NONE, (first, second, interposer.where)
        return interposer.where

for paused, ends in ((True, ["resume"]), (False, ["done", "fail"])):
    for first, second in itertools.product(uses, ends):
        number = 0
        while once(number, paused, first, second):
            number += 1
"""


def test_a_call_that_is_ended_in_the_middle_of_a_method_ends_once() -> None:
    """C freed it under the method, or between its end in C and its end in Python."""
    run_python(ENDS)


class AtLast(Within):
    """Acts where a call fails at last whose handler has raised."""

    names = ("_fail_at_last", "_fail", "fail", "_check_open", "write_at_last", "_is_in_use")


@pytest.mark.parametrize("end", [answer, Rpc.fail, Rpc.close])
def test_a_call_that_is_ended_while_it_fails_at_last_raises_nothing_more(
    end: Callable[[Rpc], object],
) -> None:
    number = 0
    where: str | None = ""
    while where is not None:
        told: list[tuple[str, object]] = []
        calls: list[Rpc] = []
        ended: list[object] = []

        def act(calls: list[Rpc] = calls) -> None:
            with contextlib.suppress(LibeventError, RuntimeError):  # it is over, or answered
                end(calls[0])

        def handle(rpc: Rpc, calls: list[Rpc] = calls) -> None:
            calls.append(rpc)
            raise ZeroDivisionError

        with EventBase() as base:
            base.on_error = lambda error, source, told=told: told.append(
                (type(error).__name__, source)
            )
            world = new_world(base)
            world.server.register("Raise", Msg, Kill, handle)
            call = world.call("Raise", ended.append)
            interposer = AtLast(act, number, signals=True)
            interposer.run(run_until, base, lambda ended=ended: ended)
            where = interposer.where
            assert [name for name, _ in told] == ["ZeroDivisionError"], where
            assert ended == [call], where
            del told[:], calls[:]
        number += 1
    assert number > 5
