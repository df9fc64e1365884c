"""What asyncio's own loop does, and `aio.EventLoop` has to do as well: each test runs on both."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from libevent_py import aio
from tests.kit.support import PATIENCE

Run = Callable[[Coroutine[Any, Any, Any]], Any]

RUNS: tuple[Run, ...] = (asyncio.run, aio.run)


@pytest.fixture(params=RUNS, ids=["asyncio", "aio"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.param  # type: ignore[no-any-return]


async def soon(what: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(what, PATIENCE)


def drained(sock: socket.socket) -> bytes:
    """Return what has come to *sock*, which does not block."""
    parts = []
    with contextlib.suppress(BlockingIOError, ConnectionResetError):
        while part := sock.recv(1 << 20):
            parts.append(part)
    return b"".join(parts)


class Noting(asyncio.Protocol):
    """A protocol that notes what comes; its transport and that of a socket are connected."""

    def __init__(self) -> None:
        self.data = b""
        self.came = asyncio.Event()
        self.lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.came.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


async def connected(kind: Callable[[], Any] = Noting) -> tuple[Any, Any, socket.socket]:
    """Return a transport, its protocol, and the socket at the other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(kind, sock=ours)
    return transport, protocol, theirs


# Writing.


def test_limits_that_are_set_after_a_write_leave_nothing_to_wait_for(run: Run) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=ours)
        writer.write(b"x" * 1000)
        writer.transport.set_write_buffer_limits(high=0)
        await soon(writer.drain())
        assert theirs.recv(2000) == b"x" * 1000
        theirs.close()
        writer.close()

    run(main())


@pytest.mark.parametrize("where", ["step", "elsewhere"])
def test_what_pause_writing_writes_comes_after_what_made_it_pause(run: Run, where: str) -> None:
    first, then = b"A" * 1_000_000, b"B" * 100_000
    got: list[bytes] = []
    others: list[socket.socket] = []

    class Pausing(Noting):
        def pause_writing(self) -> None:
            got.append(drained(others[0]))  # so that the socket has room
            self.transport.write(then)

    async def main() -> None:
        transport, _, theirs = await connected(Pausing)
        others.append(theirs)

        def write() -> None:
            transport.write(first)
            transport.close()

        if where == "step":
            write()
        else:  # in the callback of a descriptor
            loop = asyncio.get_running_loop()
            one, other = socket.socketpair()
            done = loop.create_future()
            loop.add_reader(one, lambda: (loop.remove_reader(one), write(), done.set_result(0)))
            other.send(b"x")
            await soon(done)
            one.close()
            other.close()

        async def all_of_it() -> None:
            while sum(map(len, got)) < len(first + then):
                await asyncio.sleep(0)
                got.append(drained(theirs))

        await soon(all_of_it())
        theirs.close()

    run(main())
    assert b"".join(got) == first + then


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_what_a_dropped_transport_has_written_is_sent(run: Run) -> None:
    async def main() -> None:
        transport, _, theirs = await connected()
        await asyncio.sleep(0.01)  # it reads
        transport.pause_reading()  # and so nothing but this keeps it
        transport.write(b"bye")
        del transport, _
        gc.collect()
        await asyncio.sleep(0)
        assert drained(theirs) == b"bye"
        theirs.close()

    run(main())


# Reading.


@pytest.mark.parametrize("way", ["resumed", "protocol"])
def test_reading_stops_that_was_begun_in_connection_made(run: Run, way: str) -> None:
    class Early(Noting):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if way == "resumed":
                transport.pause_reading()
                transport.resume_reading()
            else:
                transport.set_protocol(asyncio.BufferedProtocol())
                transport.set_protocol(self)

    async def main() -> None:
        transport, protocol, theirs = await connected(Early)
        theirs.send(b"one")
        await soon(protocol.came.wait())
        transport.pause_reading()
        theirs.send(b"two")
        await asyncio.sleep(0.02)
        assert protocol.data == b"one"
        transport.resume_reading()
        protocol.came.clear()
        await soon(protocol.came.wait())
        assert protocol.data == b"onetwo"
        transport.abort()
        assert await soon(protocol.lost) is None
        theirs.close()

    run(main())


def test_data_received_may_be_replaced(run: Run) -> None:
    async def main() -> None:
        transport, protocol, theirs = await connected()
        theirs.send(b"one")
        await soon(protocol.came.wait())
        later = asyncio.get_running_loop().create_future()
        protocol.data_received = later.set_result
        theirs.send(b"two")
        assert await soon(later) == b"two"
        transport.close()
        await soon(protocol.lost)
        theirs.close()

    run(main())


def test_a_protocol_without_data_received_fails_when_data_come(run: Run) -> None:
    class Lacking(asyncio.BaseProtocol):
        def __init__(self) -> None:
            self.lost = asyncio.get_running_loop().create_future()

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set_result(exc)

    async def main() -> None:
        told: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: told.append(context))
        _, protocol, theirs = await connected(Lacking)
        await asyncio.sleep(0.01)
        assert told == []
        theirs.send(b"x")
        error = await soon(protocol.lost)
        assert isinstance(error, AttributeError)
        assert [one["exception"] for one in told] == [error]
        assert told[0]["message"] == "Fatal error: protocol.data_received() call failed."
        theirs.close()

    run(main())


# Timers and descriptors.


def test_a_timer_for_no_number_is_due_at_once(run: Run) -> None:
    if run is asyncio.run and sys.version_info >= (3, 12):
        pytest.skip("the selector of later releases refuses it")

    async def main() -> None:
        fired = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.call_at(float("nan"), fired.set)
        await soon(fired.wait())
        await soon(asyncio.sleep(0.01))  # and holds back no other

    run(main())


class Odd:
    """Something that can be neither a number nor compared."""

    def __float__(self) -> float:
        raise TypeError("it is odd")


@pytest.mark.parametrize("when", ["abc", Odd(), 10**400], ids=["text", "odd", "huge"])
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("kind", [asyncio.SelectorEventLoop, aio.EventLoop])
def test_a_timer_for_what_is_no_time_is_an_error_and_ours_tells_at_once(
    kind: Any, when: Any
) -> None:
    error = OverflowError if isinstance(when, int) else TypeError
    with contextlib.closing(kind()) as loop:
        if kind is aio.EventLoop:
            with pytest.raises(error):
                loop.call_at(when, print)
            assert not loop._scheduled
        else:
            loop.call_at(when, print)
            with pytest.raises(error):
                loop.run_until_complete(
                    asyncio.Event().wait() if isinstance(when, int) else asyncio.sleep(0.01)
                )
            loop._scheduled.clear()  # which can't be undone otherwise
        loop.run_until_complete(asyncio.sleep(0.01))


@pytest.mark.parametrize("becomes", ["closed", "a file"])
def test_a_descriptor_that_was_closed_ends_no_later_run(
    run: Run, becomes: str, tmp_path: Any
) -> None:
    cancelled: list[Any] = []

    async def other() -> None:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            cancelled.append(1)

    async def main() -> str:
        loop = asyncio.get_running_loop()
        task = loop.create_task(other())
        await asyncio.sleep(0)
        one, two = socket.socketpair()
        loop.add_reader(one, print)
        loop.add_writer(two, loop.remove_writer, two)
        number = one.fileno()
        one.close()
        two.close()
        if becomes == "a file":
            fd = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
            if fd != number:
                os.dup2(fd, number)
                os.close(fd)
            files.append(number)
        assert not task.done()
        return "result"

    files: list[int] = []
    try:
        assert run(main()) == "result"
        assert cancelled == [1]
    finally:
        for fd in files:
            os.close(fd)


def test_a_loop_that_is_made_twice_works() -> None:
    class Twice(aio.EventLoop):
        def __init__(self) -> None:
            super().__init__()
            first = self._csock, self._ssock  # type: ignore[attr-defined]
            super().__init__()
            for sock in first:
                sock.close()

    with contextlib.closing(Twice()) as loop:
        assert loop.run_until_complete(asyncio.wait_for(asyncio.sleep(0.01, 5), PATIENCE)) == 5


# All that can be done to a transport, at random.


#: What the protocol's side may do, and its peer's.
OURS = (
    *("write", "write", "write", "large", "lines", "limits", "eof", "close", "abort"),
    *("pause", "resume", "protocol", "raise"),
)
THEIRS = ("send", "send", "drain", "act", "act", "end")


class Acting(Noting):
    """A protocol that does something at random each time that it is told something."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.log: list[Any] = []
        self.left = 60

    def note(self, what: Any) -> None:
        self.log.append(what)
        for _ in range(self.random.choice([0, 1, 1, 2, 3])):
            if self.transport._loop is not None and self.left:
                self.left -= 1
                self.act(self.transport, self.random.random())

    def act(self, transport: Any, chance: float) -> None:
        kind = self.random.choice(OURS)
        mark = b"%d;" % self.left
        try:
            if kind == "write":
                transport.write(mark if chance < 0.7 else bytearray(mark))
            elif kind == "large":
                transport.write(mark * self.random.choice([500, 30_000, 100_000]))
            elif kind == "lines" and not transport.is_closing():  # where 3.13.0 has a fault
                transport.writelines([mark, bytearray(mark)])
            elif kind == "close" and chance < 0.3:
                transport.close()
            elif kind == "abort" and chance < 0.1:
                transport.abort()
            elif kind == "eof" and chance < 0.3:
                transport.write_eof()
            elif kind == "limits":
                transport.set_write_buffer_limits(self.random.choice([0, 10, 100_000]))
            elif kind == "pause":
                transport.pause_reading()
            elif kind == "resume":
                transport.resume_reading()
            elif kind == "protocol":
                transport.set_protocol(self)
            elif kind == "raise" and chance < 0.1:
                raise ZeroDivisionError
        except RuntimeError:  # whose text is not the same in all releases
            self.log.append(f"refused {kind}")

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.note("made")

    def data_received(self, data: bytes) -> None:
        self.note(data)

    def eof_received(self) -> bool:
        self.note("eof")
        return self.random.random() < 0.5

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.note(f"lost {exc!r}")


async def played(seed: int) -> tuple[list[Any], bytes]:
    """Return what a protocol was told, and what its peer got, as *seed* has it."""
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: protocol.log.append(f"failed {context['exception']!r}")
    )
    transport, protocol, theirs = await connected(lambda: Acting(seed))
    dice, got = random.Random(-seed), b""
    for turn in range(42):
        kind = dice.choice(THEIRS) if turn < 12 else "drain"
        with contextlib.suppress(OSError, ZeroDivisionError):
            if kind == "send":
                theirs.send(b"from them %d" % turn)
            elif kind == "drain":
                got += drained(theirs)
            elif kind == "act":
                protocol.note("asked")
            elif dice.random() < 0.3:
                theirs.shutdown(socket.SHUT_WR)
        for _ in range(4):
            await asyncio.sleep(0)
    if transport._loop is not None:
        transport.abort()
    await asyncio.sleep(0)
    got += drained(theirs)
    theirs.close()
    return protocol.log, got


@pytest.mark.parametrize("seeds", [range(60), range(60, 120)], ids=["", "more"])
def test_a_transport_does_what_asyncio_does(seeds: range) -> None:
    for seed in seeds:
        expected, here = (run(played(seed)) for run in RUNS)
        assert here == expected, f"seed {seed}"
