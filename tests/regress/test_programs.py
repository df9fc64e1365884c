"""libevent's other test programs, but for test-ratelim; each is one test here."""

from __future__ import annotations

import random
import re
import signal
import socket
import time

import pytest

from libevent_py import (
    Event,
    EventBase,
    EventFeature,
    EventFlag,
    LibeventError,
    ffi,
)
from tests.kit.flags import CLOSED, PERSIST, READ, TIMEOUT, WRITE, NewBase
from tests.kit.peers import Pair
from tests.kit.support import PATIENCE, run_python


def test_init(method: str) -> None:
    """test-init: a base can be made and left to itself."""
    assert EventBase().method == method


def test_eof(backend_base: EventBase, pair: Pair) -> None:
    """test-eof: a read event with a timeout sees data, then their end, then nothing."""
    left, right = pair
    left.sendall(b"test string")
    left.shutdown(socket.SHUT_WR)
    read: list[bytes] = []

    def on_read(event: Event, fd: int, what: EventFlag) -> None:
        assert what == READ
        read.append(right.recv(256))
        if len(read) == 1:
            event.add(PATIENCE)

    Event(backend_base, right, READ | TIMEOUT, on_read).add(PATIENCE)
    assert backend_base.dispatch() is False
    assert read == [b"test string", b""]


def test_weof(backend_base: EventBase, pair: Pair) -> None:
    """test-weof: a write event also fires for the write that fails because the peer has closed."""
    left, right = pair
    written: list[int | None] = []

    def on_write(event: Event, fd: int, what: EventFlag) -> None:
        assert what == WRITE
        if not written:
            written.append(right.send(b"test string"))
            event.add()
            left.close()
            return
        with pytest.raises(BrokenPipeError):
            right.send(b"test string")
        written.append(None)

    Event(backend_base, right, WRITE, on_write).add()
    assert backend_base.dispatch() is False
    assert written == [len(b"test string"), None]


def test_closed(new_base: NewBase, pair: Pair) -> None:
    """test-closed: CLOSED is reported before the data that the peer has sent are read."""
    try:
        base = new_base(require=EventFeature.EARLY_CLOSE)
    except LibeventError:
        assert EventFeature.EARLY_CLOSE not in new_base().features
        return
    left, right = pair
    left.sendall(b"test string")
    left.shutdown(socket.SHUT_WR)
    got = []
    Event(base, right, CLOSED | TIMEOUT, lambda event, fd, what: got.append(what)).add(PATIENCE)
    assert base.dispatch() is False
    assert got == [CLOSED]
    assert right.recv(256) == b"test string"


def test_time(backend_base: EventBase) -> None:
    """test-time: timers that set and delete each other at random leave a loop that ends by itself.

    There are 1,000 of them instead of 20,000, with delays a fifth as long.
    """
    chance = random.Random(0)
    called = 0

    def on_timeout(event: Event, fd: int, what: EventFlag) -> None:
        nonlocal called
        called += 1
        if called >= 10 * len(timers):
            return
        for other in chance.choices(timers, k=10):
            delay = chance.randrange(10_000)
            if delay % 2 or called < len(timers):
                other.add(delay / 1e6)
            else:
                other.delete()

    timers = [Event.timer(backend_base, on_timeout) for _ in range(1000)]
    for timer in timers:
        timer.add(chance.randrange(10_000) / 1e6)
    assert backend_base.dispatch() is False
    assert called >= len(timers)
    assert backend_base.events() == []


def test_changelist(backend_base: EventBase, pair: Pair) -> None:
    """test-changelist: an event deleted, added and deleted in its callback leaves the loop idle.

    A loop that doesn't wait takes all the processor time that it can get, this one next to none.
    """
    fired = 0

    def on_write(event: Event, fd: int, what: EventFlag) -> None:
        nonlocal fired
        fired += 1
        event.delete()
        event.add()
        event.delete()

    Event(backend_base, pair[1], WRITE | PERSIST, on_write).add()
    Event.timer(backend_base, lambda event, fd, what: event.delete()).add(0.2)
    started, used = time.monotonic(), time.thread_time()
    assert backend_base.dispatch() is False
    assert fired == 1
    assert time.thread_time() - used < (time.monotonic() - started) / 2


def test_dumpevents(backend_base: EventBase) -> None:
    """test-dumpevents: dump_events() lists what was added and what is active.

    The pipes are socket pairs, and the timeouts a thousand times as long: so a stall is no matter.
    """
    base = backend_base
    short, long = 1000, 2500
    common_short, common_long = base.init_common_timeout(short), base.init_common_timeout(long)
    pairs = [socket.socketpair() for _ in range(2)]
    ends = [end for pair in pairs for end in pair]
    for end in ends:
        end.setblocking(False)

    def ignore(event: Event, fd: int, what: EventFlag) -> None:
        pass

    def timer(*, persist: bool = False) -> Event:
        return Event.timer(base, ignore, persist=persist)

    ev = [
        Event(base, ends[0], WRITE, ignore).add(),
        Event(base, ends[1], READ | PERSIST, ignore).add(short),
        Event(base, ends[2], WRITE | PERSIST, ignore).add(common_short),
        Event(base, ends[3], READ, ignore).add(common_long),
        timer().add(common_short),
        timer().add(common_short),
        timer().add(short),
        timer(persist=True).add(common_long),
        timer(persist=True).add(common_short),
        timer(persist=True).add(long),
        timer(),
        timer(),
        Event.signal(base, signal.SIGINT, ignore).add(),
    ]
    ev[10].active(READ)
    ev[11].active(READ | WRITE | TIMEOUT)
    ev[1].active(READ)

    at = [f"{int(ffi.cast('uintptr_t', event.pointer)):#x}" for event in ev]
    fds = [end.fileno() for end in ends]
    now = time.time()
    inserted, active = base.dump_events().split("Active events:\n")
    assert inserted.startswith("Inserted events:\n")

    def relative(match: re.Match[str]) -> str:
        left = float(match[1]) - now
        (timeout,) = (limit for limit in (short, long) if limit - PATIENCE < left <= limit + 1)
        return f"Timeout=T+{timeout}"

    inserted = re.sub(r"Timeout=([0-9.]+)", relative, inserted)
    assert {line for line in inserted.splitlines()[1:] if "Internal" not in line} == {
        f"  {at[0]} [fd  {fds[0]}] Write",
        f"  {at[1]} [fd  {fds[1]}] Read Persist Timeout=T+1000",
        f"  {at[2]} [fd  {fds[2]}] Write Persist Timeout=T+1000",
        f"  {at[3]} [fd  {fds[3]}] Read Timeout=T+2500",
        f"  {at[4]} [fd  -1] Timeout=T+1000",
        f"  {at[5]} [fd  -1] Timeout=T+1000",
        f"  {at[6]} [fd  -1] Timeout=T+1000",
        f"  {at[7]} [fd  -1] Persist Timeout=T+2500",
        f"  {at[8]} [fd  -1] Persist Timeout=T+1000",
        f"  {at[9]} [fd  -1] Persist Timeout=T+2500",
        f"  {at[12]} [sig {signal.SIGINT:d}] Signal Persist",
    }
    assert set(active.splitlines()) == {
        f"  {at[10]} [fd  -1, priority=0] Read active",
        f"  {at[11]} [fd  -1, priority=0] Read Write Timeout active",
        f"  {at[1]} [fd  {fds[1]}, priority=0] Read active",
    }
    base.close()
    for end in ends:
        end.close()


@pytest.mark.slow
@pytest.mark.parametrize("method", EventBase.supported_methods())
def test_fdleak(method: str) -> None:
    """test-fdleak: two thousand connections, one after the other, with few descriptors to be had.

    Of ten that may be opened one that is left open at either end is missed soon.
    """
    output = run_python(
        """
        import os, resource, sys
        from libevent_py import *
        from tests.kit.support import only

        CONNECTED, EOF, ERROR = (
            getattr(BufferEventFlag, name) for name in ("CONNECTED", "EOF", "ERROR")
        )
        CLOSE, READ, WRITE = BufferEventOption.CLOSE_ON_FREE, EventFlag.READ, EventFlag.WRITE
        MANY = 2000
        done = 0

        def accept(listener, fd, address):
            BufferEvent(base, fd, CLOSE, on_read=echo, on_event=end).enable(READ | WRITE)

        def echo(bev):
            while bev.input:
                bev.write(bev.read(1))

        def end(bev, what):
            assert what & EOF and not what & ERROR, what
            bev.close()
            if done == MANY:
                base.loopbreak()

        def connect():
            bev = BufferEvent(base, -1, CLOSE, on_read=answered, on_event=connected)
            bev.connect(listener.address)

        def connected(bev, what):
            assert what == CONNECTED, what
            bev.write(b"A")
            bev.enable(READ)

        def answered(bev):
            global done
            assert bev.read(1) == b"A"
            bev.close()
            done += 1
            if done < MANY:
                connect()

        with only(sys.argv[1]) as base, Listener(base, ("127.0.0.1", 0), accept) as listener:
            base.loop(LoopFlag.NONBLOCK)
            room = os.dup(0)
            os.close(room)
            resource.setrlimit(resource.RLIMIT_NOFILE, (room + 10, room + 10))
            connect()
            base.dispatch()
            print(done)
        """,
        method,
    )
    assert output == "2000\n"
