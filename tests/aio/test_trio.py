"""trio as the guest of a base, by the function that docs/trio.md shows."""

from __future__ import annotations

import re
import signal
import socket
from typing import Any

import pytest
import trio

from libevent_py import BufferEvent, Event, EventBase, EventFlag, Listener, LoopFlag
from libevent_py._core.wakeup import wakeup
from tests.kit.support import PATIENCE, ROOT, run_python

PAGE = (ROOT / "docs" / "trio.md").read_text()
EXAMPLE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
#: What it defines, without what it runs.
DEFINED = EXAMPLE[: EXAMPLE.index("\nwith EventBase()")]

shown: dict[str, Any] = {}
exec(DEFINED, shown)
run, fires = shown["run"], shown["fires"]


def bounded(base: EventBase, main: Any, *args: Any) -> Any:
    """Run *main* as shown, with an end."""

    async def within() -> Any:
        with trio.fail_after(PATIENCE):
            return await main(*args)

    return run(base, within)


def test_what_main_returns_or_raises_comes_out() -> None:
    async def returns() -> int:
        await trio.sleep(0.001)
        return 7

    async def fails() -> None:
        await trio.sleep(0)
        raise ValueError("no")

    with EventBase() as base:
        assert bounded(base, returns) == 7
        with pytest.raises(ValueError, match="no"):
            bounded(base, fails)
        assert base.events() == []
        assert bounded(base, returns) == 7


def test_trio_s_sockets_talk_to_bufferevents_on_the_same_base() -> None:
    async def asks(address: tuple[str, int]) -> bytes:
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(b"x" * 100_000)
            got = b""
            while len(got) < 100_000:
                got += await stream.receive_some()
            return got

    def accept(listener: Listener, fd: int, _: object) -> None:
        bev = BufferEvent(
            listener.base,
            fd,
            on_read=lambda bev: bev.write(bev.read()),
            on_event=lambda bev, _: bev.close(),
        )
        bev.enable(EventFlag.READ)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(asks, listener.address)

    with EventBase() as base, Listener(base, ("127.0.0.1", 0), accept) as listener:
        bounded(base, main)
        assert bounded(base, asks, listener.address) == b"x" * 100_000


def test_a_task_that_is_cancelled_leaves_nothing_on_the_base() -> None:
    left, right = socket.socketpair()

    async def waits(base: EventBase) -> None:
        token, ready = trio.lowlevel.current_trio_token(), trio.Event()
        with Event(base, left, EventFlag.READ, lambda *_: token.run_sync_soon(ready.set)).add():
            await ready.wait()

    async def main(base: EventBase) -> None:
        with trio.move_on_after(0.01) as scope:
            await waits(base)
        assert scope.cancelled_caught and base.events() == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits, base)
            await trio.sleep(0.01)
            right.send(b"x")

    with left, right, EventBase() as base:
        bounded(base, main, base)


def test_what_a_callback_of_the_base_raises_comes_out_and_trio_goes_on() -> None:
    """The run is ended by another run of the loop, as the page says."""
    outcomes: list[Any] = []

    def fails(*_: object) -> None:
        raise ValueError("no")

    async def main(base: EventBase) -> int:
        with Event.timer(base, fails).add(0.001):
            await trio.sleep(0.05)
        return 7

    def done(outcome: Any) -> None:
        outcomes.append(outcome)
        base.loopbreak()

    with EventBase() as base:
        trio.lowlevel.start_guest_run(
            main,
            base,
            run_sync_soon_threadsafe=base.defer,
            done_callback=done,
            host_uses_signal_set_wakeup_fd=True,
        )
        with pytest.raises(ValueError, match="no"):
            base.loop(LoopFlag.NO_EXIT_ON_EMPTY)
        while not outcomes:
            base.loop(LoopFlag.NO_EXIT_ON_EMPTY)
        assert outcomes[0].unwrap() == 7


def test_an_interrupt_reaches_trio_s_main_task() -> None:
    printed = run_python(
        DEFINED
        + """
import os, signal, threading

async def waits():
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        await trio.sleep(60)
    finally:
        print("ended")

with EventBase() as base:
    try:
        run(base, waits)
    except KeyboardInterrupt:
        print("interrupted")
"""
    )
    assert printed == "ended\ninterrupted\n"


def test_the_wakeup_descriptor_is_as_before() -> None:
    async def main() -> int:
        await trio.sleep(0)
        fd = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(fd)
        return fd

    with EventBase() as base:
        assert bounded(base, main) == wakeup().signals.writer.fileno()
    assert signal.set_wakeup_fd(-1) == -1
