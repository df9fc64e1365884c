"""The transports of `aio.EventLoop`: what C reads and writes, and what may be done in between."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import functools
import gc
import os
import socket
import struct
import threading
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from libevent_py import EventBase, MemorySource, aio
from libevent_py.aio.transports import SocketTransport
from libevent_py.testing import Allocations
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import PATIENCE, run_python

LARGE = os.urandom(3 << 20)


class Peer(asyncio.Protocol):
    """A protocol that notes what it is told, and does what it is asked to."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.data = bytearray()
        self.told: list[Any] = []
        self.received: Callable[[Peer, bytes], object] = lambda peer, data: None
        self.keeps_open = False
        self.lost = asyncio.get_running_loop().create_future()
        self.arrived = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.arrived.set()
        self.received(self, data)

    def eof_received(self) -> bool:
        self.told.append("eof")
        self.arrived.set()
        return self.keeps_open

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        if not self.lost.done():
            self.lost.set_result(exc)

    async def holds(self, data: bytes) -> None:
        """Wait until exactly *data* has come."""
        while len(self.data) < len(data):
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), PATIENCE)
        assert self.data == data


@contextlib.asynccontextmanager
async def pair(**options: Any) -> Any:
    """Two peers that are connected: each is the other's."""
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair(**options)
    _, one = await loop.create_connection(Peer, sock=left)
    _, other = await loop.create_connection(Peer, sock=right)
    try:
        yield one, other
    finally:
        for peer in one, other:
            peer.transport.abort()
        await asyncio.wait_for(asyncio.gather(one.lost, other.lost), PATIENCE)


async def abort_all() -> None:
    """Abort the running loop's transports, and wait until they have gone."""
    transports: Any = asyncio.get_running_loop()._transports  # type: ignore[attr-defined]
    for transport in list(transports.values()):
        transport.abort()
    while any(transport._sock is not None for transport in transports.values()):
        await asyncio.sleep(0)


Test = Callable[..., Coroutine[Any, Any, None]]


def in_loop(test: Test) -> Callable[..., None]:
    """Run a test, a coroutine, on a loop of its own; abort the transports that are left."""

    async def whole(*args: Any, **arguments: Any) -> None:
        try:
            await asyncio.wait_for(test(*args, **arguments), PATIENCE)
        finally:
            await abort_all()

    @functools.wraps(test)
    def run(*args: Any, **arguments: Any) -> None:
        aio.run(whole(*args, **arguments))

    return run


@contextlib.contextmanager
def told() -> Iterator[list[dict[str, Any]]]:
    """What the running loop's exception handler is told in the block."""
    contexts: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    yield contexts
    loop.set_exception_handler(None)


def then(**does: Callable[[Peer], object]) -> Callable[[Peer, bytes], object]:
    """Return what calls the only one of *does* with the peer that has got data."""
    [action] = does.values()
    return lambda peer, data: action(peer)


# Which transport it is.


@in_loop
async def test_tcp_and_unix_sockets_get_it_and_others_asyncio_s(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    accepted: asyncio.Queue[Peer] = asyncio.Queue()

    class Accepted(Peer):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            accepted.put_nowait(self)

    path = str(tmp_path / "socket")
    for server, connect in (
        (
            await loop.create_unix_server(Accepted, path),
            functools.partial(loop.create_unix_connection, Peer, path),
        ),
        (
            tcp := await loop.create_server(Accepted, "127.0.0.1", 0),
            functools.partial(loop.create_connection, Peer, *tcp.sockets[0].getsockname()),
        ),
    ):
        transport, _ = await connect()
        assert type(transport) is SocketTransport
        peer = await accepted.get()
        assert type(peer.transport) is SocketTransport
        assert transport.get_extra_info("peername") == server.sockets[0].getsockname()
        transport.close()
        await peer.lost
        server.close()
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0) as pipe:
        piped, _ = await loop.connect_read_pipe(Peer, pipe)
        assert type(piped) is not SocketTransport
        piped.close()
        await asyncio.sleep(0)
    os.close(writing)


# Writing.


@in_loop
async def test_what_a_callback_writes_is_sent_in_one_and_in_its_order() -> None:
    pieces: list[Any] = [
        b"a",
        bytearray(b"b"),
        memoryview(b"cc"),
        b"",
        *[b"%d" % n for n in range(40)],
    ]
    pieces += [b"x" * 70_000, b"y", b"z" * 65_536, b"end"]
    expected = b"".join(pieces)

    def write(peer: Peer, data: bytes) -> None:
        for piece in pieces:
            peer.transport.write(piece)

    async with pair() as (one, other):
        other.received = write
        one.transport.write(b"?")
        await one.holds(expected)
        one.data.clear()
        other.received = lambda peer, data: peer.transport.writelines(pieces)
        one.transport.write(b"?")
        await one.holds(expected)


@in_loop
async def test_what_is_held_back_counts_as_not_sent_and_leaves_when_the_callback_returns() -> None:
    async with pair() as (one, other):
        seen: list[int] = []

        def write(peer: Peer, data: bytes) -> None:
            peer.transport.write(b"abc")
            peer.transport.write(b"de")
            seen.append(peer.transport.get_write_buffer_size())

        other.received = write
        one.transport.write(b"?")
        await one.holds(b"abcde")
        assert seen == [5]
        assert other.transport.get_write_buffer_size() == 0


@in_loop
async def test_a_callback_that_writes_much_sends_it_without_waiting() -> None:
    async with pair() as (one, other):
        sizes: list[int] = []

        def write(peer: Peer, data: bytes) -> None:
            for _ in range(20):
                peer.transport.write(b"x" * 4096)
                sizes.append(peer.transport.get_write_buffer_size())

        other.received = write
        one.transport.write(b"?")
        await one.holds(b"x" * 20 * 4096)
        assert max(sizes) == 16 * 4096


@pytest.mark.parametrize("pieces", [1, 50])
@in_loop
async def test_what_the_socket_does_not_take_follows_and_the_protocol_is_paused(
    pieces: int,
) -> None:
    async with pair() as (one, other):
        size = len(LARGE) // pieces

        def write(peer: Peer, data: bytes) -> None:
            if data == b"?":
                for start in range(0, len(LARGE), size):
                    peer.transport.write(LARGE[start : start + size])

        other.received = write
        one.transport.write(b"?")
        await one.holds(LARGE)
        assert other.told == ["pause", "resume"]
        one.data.clear()
        other.transport.write(b"after")  # the usual way again
        await one.holds(b"after")


@in_loop
async def test_write_limits_hold() -> None:
    async with pair() as (one, other):
        one.transport.pause_reading()
        other.transport.set_write_buffer_limits(high=10, low=0)
        while other.told != ["pause"]:
            other.transport.write(b"x" * 50_000)
        assert other.transport.get_write_buffer_size() > 10
        assert other.transport.get_write_buffer_limits() == (0, 10)
        one.transport.resume_reading()
        while other.told == ["pause"]:
            await asyncio.sleep(0)
        assert other.told == ["pause", "resume"]
        assert other.transport.get_write_buffer_size() == 0


@in_loop
async def test_what_is_no_bytes_is_refused() -> None:
    async with pair() as (one, _):
        for data in ("text", None, 5):
            with pytest.raises(TypeError, match="bytes-like"):
                one.transport.write(data)
        with pytest.raises(TypeError, match="exactly one argument"):
            one.transport.write()


@in_loop
async def test_a_sent_file_comes_after_what_was_written_and_before_what_follows(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    loop = asyncio.get_running_loop()
    async with pair() as (one, other):
        with path.open("rb") as file:
            other.transport.write(b"head")
            sending = loop.create_task(loop.sendfile(other.transport, file))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="sendfile is in progress"):
                other.transport.write(b"no")
            assert await sending == len(LARGE)
        other.transport.write(b"tail")
        await one.holds(b"head" + LARGE + b"tail")


# Reading.


@in_loop
async def test_a_large_message_is_read_in_large_parts() -> None:
    async with pair() as (one, other):
        parts: list[int] = []
        one.received = lambda peer, data: parts.append(len(data))
        other.transport.write(LARGE)
        await one.holds(LARGE)
        assert max(parts) > 65536


@in_loop
async def test_nothing_comes_while_reading_is_paused() -> None:
    async with pair() as (one, other):
        one.received = then(pauses=lambda peer: peer.transport.pause_reading())
        other.transport.write(b"first")
        await one.holds(b"first")
        assert not one.transport.is_reading()
        other.transport.write(b"second")
        await asyncio.sleep(0.01)
        assert one.data == b"first"
        one.transport.resume_reading()
        await one.holds(b"firstsecond")


@in_loop
async def test_each_protocol_gets_what_comes_while_it_is_set() -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.memory, self.got = bytearray(4), bytearray()

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.memory

        def buffer_updated(self, nbytes: int) -> None:
            self.got += self.memory[:nbytes]
            if self.got == b"buffered":
                one.transport.set_protocol(one)

    buffered = Buffered()
    async with pair() as (one, other):
        second = Peer()

        def goes_on(peer: Peer, data: bytes) -> None:
            peer.transport.set_protocol(second)

        def buffers(peer: Peer, data: bytes) -> None:
            one.transport.set_protocol(buffered)

        one.received, second.received = goes_on, buffers
        other.transport.write(b"one")
        await one.holds(b"one")
        other.transport.write(b"two")
        await second.holds(b"two")
        one.received = then(stays=lambda peer: None)
        other.transport.write(b"buffered")
        while buffered.got != b"buffered":
            await asyncio.sleep(0)
        other.transport.write(b"one")
        await one.holds(b"oneone")


@in_loop
async def test_what_data_makes_ready_runs_before_the_next_turn_but_not_before_what_was() -> None:
    loop = asyncio.get_running_loop()
    async with pair() as (one, other):
        order: list[str] = []

        def received(peer: Peer, data: bytes) -> None:
            order.append("data")
            loop.call_soon(order.append, "soon")

        one.received = received
        other.transport.write(b"x")
        await one.holds(b"x")
        await asyncio.sleep(0)
        assert order == ["data", "soon"]


class Refusing(Exception):
    pass


def refuse(*_: object) -> None:
    raise Refusing


@in_loop
async def test_a_protocol_that_raises_loses_its_connection_and_the_handler_is_told() -> None:
    async with pair() as (one, other):
        one.received = refuse
        with told() as contexts:
            other.transport.write(b"x")
            assert isinstance(await one.lost, Refusing)
        [context] = contexts
        assert context["message"] == "Fatal error: protocol.data_received() call failed."
        assert context["transport"] is one.transport and context["protocol"] is one
        assert isinstance(context["exception"], Refusing)
        await other.lost


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_comes_out_and_the_connection_stays(
    error: type[BaseException],
) -> None:
    def end(peer: Peer, data: bytes) -> None:
        peer.received = lambda peer, data: None
        raise error

    async def begin() -> tuple[Peer, Peer]:
        connected = contextlib.AsyncExitStack()
        one, other = await connected.enter_async_context(pair())
        stacks.append(connected)
        one.received = end
        return one, other

    stacks: list[contextlib.AsyncExitStack] = []
    with contextlib.closing(aio.EventLoop()) as loop:
        one, other = loop.run_until_complete(begin())
        other.transport.write(b"first")
        with pytest.raises(error):
            loop.run_until_complete(asyncio.sleep(PATIENCE))
        other.transport.write(b"second")
        loop.run_until_complete(one.holds(b"firstsecond"))
        loop.run_until_complete(stacks[0].aclose())


def test_data_that_stops_the_loop_ends_its_turn_and_what_it_made_ready_waits() -> None:
    order: list[str] = []
    stacks: list[contextlib.AsyncExitStack] = []

    async def begin() -> Peer:
        loop = asyncio.get_running_loop()
        connected = contextlib.AsyncExitStack()
        one, other = await connected.enter_async_context(pair())
        stacks.append(connected)
        peer: Peer = other

        def stop(peer: Peer, data: bytes) -> None:
            order.append("data")
            loop.call_soon(order.append, "soon")
            loop.stop()

        one.received = stop
        return peer

    with contextlib.closing(aio.EventLoop()) as loop:
        other: Peer = loop.run_until_complete(begin())
        other.transport.write(b"x")
        loop.run_forever()
        assert order == ["data"]
        loop.run_until_complete(stacks[0].aclose())
        assert order == ["data", "soon"]


NAME = contextvars.ContextVar("NAME", default="")


@in_loop
async def test_each_connection_keeps_the_context_that_it_began_in() -> None:
    class Named(Peer):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.told.append(NAME.get())

        def data_received(self, data: bytes) -> None:
            self.told.append(NAME.get())
            NAME.set(NAME.get() + "!")
            super().data_received(data)

        def eof_received(self) -> bool:
            self.told.append(NAME.get())
            return False

        def connection_lost(self, exc: Exception | None) -> None:
            self.told.append(NAME.get())
            super().connection_lost(exc)

    async def connect(name: str) -> tuple[Named, socket.socket]:
        NAME.set(name)
        left, right = socket.socketpair()
        _, named = await asyncio.get_running_loop().create_connection(Named, sock=left)
        return named, right

    for name in ("a", "b"):
        named, peer = await asyncio.create_task(connect(name))
        assert NAME.get() == ""
        for sent in (b"x", b"xx"):
            peer.send(b"x")
            await named.holds(sent)
        peer.close()
        await named.lost
        assert named.told == [name, name, name + "!", name + "!!", name + "!!", "lost"]


# The end.


@in_loop
async def test_a_peer_that_ends_can_still_be_written_to_if_the_protocol_wants_that() -> None:
    async with pair() as (one, other):
        one.keeps_open = True
        other.transport.write(b"all")
        other.transport.write_eof()
        with pytest.raises(RuntimeError, match="after write_eof"):
            other.transport.write(b"more")
        while "eof" not in one.told:
            await asyncio.sleep(0)
        await one.holds(b"all")
        one.transport.write(b"answer")
        await other.holds(b"answer")
        one.transport.close()
        await one.lost
        assert one.told == ["eof", "lost"]


@pytest.mark.parametrize("end", ["write_eof", "close", "abort"])
@in_loop
async def test_what_a_callback_has_written_before_the_end_arrives(end: str) -> None:
    async with pair() as (one, other):

        def finish(peer: Peer, data: bytes) -> None:
            peer.transport.write(b"one")
            peer.transport.write(b"two")
            getattr(peer.transport, end)()
            if end != "write_eof":
                peer.transport.write(b"late")

        other.received = finish
        one.transport.write(b"?")
        await one.holds(b"onetwo")
        assert await one.lost is None


@in_loop
async def test_a_peer_that_resets_the_connection_is_told_of_as_such() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Peer, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        while not (transports := list(loop._transports.values())):  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer = transports[0].get_protocol()
    error = await peer.lost
    assert isinstance(error, ConnectionResetError) and error.errno == errno.ECONNRESET
    server.close()


@in_loop
async def test_a_write_to_a_peer_that_is_gone_loses_the_connection() -> None:
    left, right = socket.socketpair()
    _, peer = await asyncio.get_running_loop().create_connection(Peer, sock=left)
    peer.transport.pause_reading()
    right.close()
    peer.transport.write(b"x")
    assert isinstance(await peer.lost, BrokenPipeError)


@in_loop
async def test_what_is_written_after_the_end_is_forgotten() -> None:
    async with pair() as (one, other):
        write = one.transport.write
        one.transport.close()
        for _ in range(3):
            one.transport.write(b"lost")
            write(b"lost")
        await one.lost
        one.transport.write(b"lost")
        one.transport.writelines([b"lost"])
        write(b"lost")
        await other.lost
        assert not other.data
        assert one.transport.is_closing() and not one.transport.is_reading()


@in_loop
async def test_a_connection_that_has_ended_leaves_nothing_behind() -> None:
    loop = asyncio.get_running_loop()
    gc.collect()
    gc.disable()
    try:
        async with pair() as (one, other):
            one.transport.write(b"x")
            await other.holds(b"x")
            gone = weakref.ref(one.transport)
            one.transport.close()
            await other.lost
        one.transport = None
        del one, other
        assert gone() is None
    finally:
        gc.enable()
    assert not loop._transports  # type: ignore[attr-defined]


def test_transports_go_with_a_loop_that_is_dropped() -> None:
    loop = aio.EventLoop()
    left, right = socket.socketpair()

    async def begin() -> weakref.ref[Any]:
        for sock in (left, right):
            _, peer = await asyncio.get_running_loop().create_connection(Peer, sock=sock)
            peer.transport.write(b"unread")
        return weakref.ref(peer.transport)

    gone = loop.run_until_complete(begin())
    gc.collect()
    assert gone() is not None  # the loop keeps what reads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del loop
        gc.collect()
        assert gone() is None


def test_transports_go_with_a_loop_whose_last_reference_another_thread_drops() -> None:
    left, right = socket.socketpair()
    loops = [aio.EventLoop()]

    async def begin() -> weakref.ref[Any]:
        _, peer = await asyncio.get_running_loop().create_connection(Peer, sock=left)
        return weakref.ref(peer.transport)

    gone = loops[0].run_until_complete(begin())

    def drop() -> None:
        loops.clear()
        gc.collect()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        thread = threading.Thread(target=drop)
        thread.start()
        thread.join()
    assert gone() is None
    right.close()


def test_the_base_may_be_closed_before_the_transports() -> None:
    base = EventBase()
    loop = aio.EventLoop(base)
    left, right = socket.socketpair()

    async def begin() -> Peer:
        _, peer = await asyncio.get_running_loop().create_connection(Peer, sock=left)
        return peer

    peer = loop.run_until_complete(begin())
    base.close()
    peer.transport.write(b"x")
    assert right.recv(10) == b"x"
    peer.transport.close()
    loop.close()
    del peer.transport
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    right.close()


@in_loop
async def test_without_memory_a_connection_fails_and_the_next_succeeds() -> None:
    loop = asyncio.get_running_loop()
    with told() as contexts:
        left, right = socket.socketpair()
        _, peer = await loop.create_connection(Peer, sock=left)
        peer.transport.pause_reading()
        for failure in Allocations().each(source=MemorySource.ANY):
            with failure, contextlib.suppress(MemoryError):
                peer.transport.resume_reading()
            peer.transport.pause_reading()
        peer.transport.resume_reading()
        right.send(b"x")
        await peer.holds(b"x")
        assert not contexts
        peer.transport.close()
        right.close()


# Forks and memory.


def test_a_child_forked_while_something_is_held_back_does_not_send_it() -> None:
    run_python(
        """
        import asyncio, os, socket
        from libevent_py import ForkError, aio

        class Forks(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport
            def data_received(self, data):
                self.transport.write(b"once")
                self.pid = os.fork()

        async def main():
            loop = asyncio.get_running_loop()
            left, right = socket.socketpair()
            right.setblocking(False)
            transport, protocol = await loop.create_connection(Forks, sock=left)
            await loop.sock_sendall(right, b"x")
            assert await loop.sock_recv(right, 100) == b"once"
            assert os.waitpid(protocol.pid, 0)[1] == 0
            transport.close()
            assert await loop.sock_recv(right, 100) == b""
            right.close()

        loop = aio.EventLoop()
        try:
            loop.run_until_complete(main())
        except ForkError:
            os._exit(0)
        loop.close()
        """
    )


@pytest.mark.slow
@VALGRIND_TAKES_LONG
def test_the_transports_misuse_no_memory(valgrind: bool) -> None:
    run_python(
        """
        import asyncio, gc, os, socket, warnings
        from libevent_py import EventBase, aio
        warnings.simplefilter("ignore")

        class Does(asyncio.Protocol):
            lost = False
            def __init__(self, action):
                self.action = action
            def connection_made(self, transport):
                self.transport = transport
                self.write = transport.write
            def data_received(self, data):
                for piece in (b"a", bytearray(b"b"), b"c" * 70_000, b"d") * 12:
                    self.write(piece)
                self.action(self)
                self.write(b"after")
            def connection_lost(self, exc):
                self.write(b"late")
                self.lost = True

        actions = [
            lambda self: self.transport.close(),
            lambda self: self.transport.abort(),
            lambda self: self.transport.pause_reading(),
            lambda self: self.transport.write_eof(),
            lambda self: self.transport.set_protocol(Does(lambda self: None)),
            lambda self: 1 / 0,
            lambda self: asyncio.get_running_loop().call_soon(self.transport.abort),
            lambda self: self.transport._loop.stop(),
            lambda self: self.transport._loop.base.loopbreak(),
            lambda self: gc.collect(),
            lambda self: vars(self).clear(),
        ]

        def run(action, base):
            loop = aio.EventLoop(base)
            loop.set_exception_handler(lambda loop, context: None)
            left, right = socket.socketpair()
            right.setblocking(False)
            transport, does = loop.run_until_complete(
                loop.create_connection(lambda: Does(action), sock=left)
            )
            right.send(b"x")
            stopping = loop.call_later(0.05, loop.stop)
            loop.run_forever()
            stopping.cancel()
            loop.run_until_complete(asyncio.sleep(0.02))
            right.close()
            loop.run_until_complete(asyncio.sleep(0.01))
            del does, transport
            gc.collect()
            if base is None or base.closed:
                loop.close()

        for action in actions:
            run(action, None)
        base = EventBase()
        for action in actions:
            run(action, base)
        base.close()
        gc.collect()
        """,
        valgrind=valgrind,
    )


def test_a_connection_has_few_objects_for_the_collector() -> None:
    """With thousands of connections, each full collection goes through what all of them have."""
    count = 50

    async def main() -> int:
        loop = asyncio.get_running_loop()
        accepted: list[asyncio.Protocol] = []

        def accept() -> asyncio.Protocol:
            accepted.append(asyncio.Protocol())
            return accepted[-1]

        server = await loop.create_server(accept, "127.0.0.1", 0)
        clients: list[socket.socket] = []
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(count):
            clients.append(socket.socket())
            clients[-1].setblocking(False)
            await loop.sock_connect(clients[-1], server.sockets[0].getsockname())
        while len(accepted) < count:
            await asyncio.sleep(0.001)
        gc.collect()
        made = len(gc.get_objects()) - before - len(clients)
        for client in clients:
            client.close()
        server.close()
        await asyncio.sleep(0.05)
        return made

    # What asyncio's own transport has differs from one Python to the next.
    assert aio.run(main()) < asyncio.run(main()) + 5 * count
