"""Random walks through the objects: no order of calls crashes, leaks, or loses an exception."""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventOption,
    Event,
    EventBase,
    EventFlag,
    FilterResult,
    FlushMode,
    LibeventError,
    Listener,
    LoopFlag,
    errors,
)
from libevent_py._core.dispatch import live, roots
from libevent_py.bufferevent.end import close_all
from tests.kit.accounts import Oops
from tests.kit.flags import PERSIST, READ, WRITE

ONE_ROUND = LoopFlag.ONCE | LoopFlag.NONBLOCK

#: What calls are refused with, where they make no sense.
REFUSALS = (LibeventError, ValueError, RuntimeError, OSError)


Socket = socket.socket  # a world has a method of that name


class World:
    """Some of each object; each step does something to one of them, and so do the callbacks."""

    #: How much callbacks may do, altogether and inside one another.
    BUDGET, DEPTH = 400, 4

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.bases: list[EventBase] = []
        self.events: list[Event] = []
        self.bevs: list[BufferEvent] = []
        self.buffers: list[Buffer] = []
        self.listeners: list[Listener] = []
        self.sockets: list[socket.socket] = []
        self.depth = self.called = 0

    def step(self) -> None:
        kind, operation = self.random.choice(self.OPERATIONS)
        things = getattr(self, kind) if kind else [None]
        if not things:
            return
        thing = self.random.choice(things)
        self.attempt(lambda: operation(self, thing))

    def attempt(self, function: Callable[[], object]) -> None:
        try:
            function()
        except REFUSALS:
            pass
        except Oops:
            if self.depth and self.random.random() < 0.5:
                raise
        except Exception as error:
            if not type(error).__name__.endswith("Group"):
                raise

    def note(self, error: BaseException, source: object = None) -> None:
        """Take what a callback has raised."""

    def check(self) -> None:
        """Check what is to be so at the end."""

    def callback(self, *_: object) -> None:
        self.depth += 1
        try:
            if self.depth < self.DEPTH and self.called < self.BUDGET:
                self.called += 1
                for _number in range(self.random.randrange(3)):
                    self.step()
            if self.random.random() < 0.08:
                raise self.problem()
        finally:
            self.depth -= 1

    def problem(self) -> BaseException:
        """Return what a callback raises."""
        return Oops()

    def socket(self) -> socket.socket:
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        self.sockets.append(right)
        return left

    def seconds(self) -> float | None:
        return self.random.choice([None, 0, 0.0001, 0.001, 100])

    # What is made.

    def new_base(self, _: None) -> None:
        if len(self.bases) < 4:
            self.bases.append(EventBase())
            if self.random.random() < 0.3:
                self.bases[-1].on_error = self.note

    def new_event(self, base: EventBase) -> None:
        what = self.random.choice(
            [READ, WRITE, READ | PERSIST, WRITE | PERSIST, READ | EventFlag.ET]
        )
        make: Callable[[], Event] = self.random.choice(
            [
                lambda: Event(base, self.socket(), what, self.callback),
                lambda: Event.timer(base, self.callback, persist=self.random.random() < 0.3),
                lambda: Event.signal(base, signal.SIGUSR1, self.callback),
                lambda: Event.user(base, self.callback),
            ]
        )
        self.events.append(make())
        self.events[-1].add(self.seconds())

    def new_bev(self, base: EventBase) -> None:
        self.keep(BufferEvent(base, self.socket(), self.options()))

    def new_pair(self, base: EventBase) -> None:
        for half in BufferEvent.pair(base, self.options()):
            self.keep(half)

    def new_filter(self, bev: BufferEvent) -> None:
        inward, outward = (self.random.choice([None, self.filter]) for _ in range(2))
        self.keep(BufferEvent.filter(bev, inward, outward, self.options()))

    def filter(self, source: Buffer, target: Buffer, limit: int | None, _: object) -> FilterResult:
        self.callback()
        if self.random.random() < 0.8:
            target.add(source.remove(limit))
        self.callback()
        return self.random.choice([FilterResult.OK] * 5 + list(FilterResult))

    def options(self) -> BufferEventOption:
        close, defer = BufferEventOption.CLOSE_ON_FREE, BufferEventOption.DEFER_CALLBACKS
        safe = BufferEventOption.THREADSAFE
        return self.random.choice([BufferEventOption(0), close, close | defer, close | safe])

    def keep(self, bev: BufferEvent) -> None:
        bev.setcb(self.callback, self.callback, self.callback)
        bev.enable(READ)
        self.bevs.append(bev)

    def new_listener(self, base: EventBase) -> None:
        def accept(listener: Listener, fd: int, address: object) -> None:
            self.callback()
            os.close(fd)

        if len(self.listeners) < 5:
            self.listeners.append(Listener(base, ("127.0.0.1", 0), accept))

    # What is done to it.

    def loop(self, base: EventBase) -> None:
        if self.depth < 2:
            base.loopexit(0.002)
            base.loop(self.random.choice([ONE_ROUND, LoopFlag(0), LoopFlag.NO_EXIT_ON_EMPTY]))

    def connect(self, listener: Listener) -> None:
        client = socket.socket()
        client.setblocking(False)
        self.sockets.append(client)
        client.connect(listener.address)

    def send(self, sock: Socket) -> None:
        if self.random.random() < 0.2:
            sock.close()
        else:
            sock.send(b"hello" * self.random.randrange(1, 10))

    def close_base(self, base: EventBase) -> None:
        if self.random.random() < 0.3:
            self.bases.remove(base)
            base.close()

    def drop(self, _: None) -> None:
        kinds: list[list[Any]] = [self.events, self.bevs, self.buffers, self.listeners]
        if self.random.random() < 0.05:
            kinds = [self.bases]
        things = self.random.choice(kinds)
        if things:
            del things[self.random.randrange(len(things))]

    #: What can be done, and to which kind of thing; what is there twice is done twice as often.
    OPERATIONS: ClassVar[list[tuple[str, Callable[[World, Any], object]]]] = [
        ("", new_base),
        ("bases", new_event),
        ("bases", new_event),
        ("bases", new_bev),
        ("bases", new_pair),
        ("bases", new_listener),
        ("bases", loop),
        ("bases", loop),
        ("bases", close_base),
        ("bases", lambda world, base: base.once(world.callback, timeout=world.seconds())),
        ("bases", lambda world, base: base.once(world.callback, fd=world.socket(), what=WRITE)),
        ("bases", lambda world, base: base.defer(world.callback)),
        ("bases", lambda world, base: world.random.choice([base.loopbreak, base.loopexit])()),
        ("bases", lambda world, base: (base.events(), base.dump_events(), base.running_event)),
        ("bases", lambda world, base: base.explain()),
        ("bases", lambda world, base: base.reinit()),
        ("bases", lambda world, base: base.active_by_signal(signal.SIGUSR1)),
        ("events", lambda world, event: event.add(world.seconds())),
        ("events", lambda world, event: event.add(world.seconds())),
        ("events", lambda world, event: event.add(event.base.init_common_timeout(0.001))),
        ("events", lambda world, event: event.delete()),
        ("events", lambda world, event: event.remove_timer()),
        ("events", lambda world, event: event.active()),
        ("events", lambda world, event: event.active(READ, ncalls=3)),
        ("events", lambda world, event: event.close()),
        ("events", lambda world, event: event.close(finalize=world.callback)),
        ("bevs", new_filter),
        ("bevs", new_filter),
        ("bevs", lambda world, bev: bev.close()),
        ("bevs", lambda world, bev: close_all(bev)),
        ("bevs", lambda world, bev: bev.flush(READ, world.random.choice(list(FlushMode)))),
        ("bevs", lambda world, bev: bev.flush(WRITE, world.random.choice(list(FlushMode)))),
        ("bevs", lambda world, bev: bev.trigger(READ | WRITE)),
        ("bevs", lambda world, bev: bev.setcb(None, world.callback, None)),
        ("bevs", lambda world, bev: bev.setwatermark(READ | WRITE, 0, world.random.choice([0, 9]))),
        (
            "bevs",
            lambda world, bev: bev.write_buffer(world.random.choice(world.buffers or [Buffer()])),
        ),
        ("bevs", lambda world, bev: bev.read()),
        ("bevs", lambda world, bev: bev.write(b"x" * world.random.randrange(5000))),
        (
            "bevs",
            lambda world, bev: world.buffers.append(world.random.choice([bev.input, bev.output])),
        ),
        ("bevs", lambda world, bev: bev.disable(READ)),
        ("bevs", lambda world, bev: bev.enable(READ | WRITE)),
        ("bevs", lambda world, bev: bev.set_timeouts(world.seconds(), world.seconds())),
        ("buffers", lambda world, buffer: buffer.add(b"y" * 100)),
        ("buffers", lambda world, buffer: buffer.remove(50)),
        ("buffers", lambda world, buffer: buffer.add_buffer(world.random.choice(world.buffers))),
        ("buffers", lambda world, buffer: world.buffers.append(Buffer(bytes(buffer)))),
        ("listeners", connect),
        ("listeners", connect),
        ("listeners", lambda world, listener: listener.disable()),
        ("listeners", lambda world, listener: listener.enable()),
        ("listeners", lambda world, listener: listener.close()),
        ("sockets", send),
        ("sockets", send),
        ("", lambda world, _: os.kill(os.getpid(), signal.SIGUSR1)),
        ("", lambda world, _: world.random.random() < 0.1 and gc.collect()),
        ("", drop),
        ("", drop),
    ]


def walk(kind: type[World], seed: int, steps: int) -> None:
    """Take *steps* in a new world, and leave it with half of the bases closed, half dropped."""
    world = kind(seed)
    for _ in range(steps):
        world.step()
        assert live.bases == ()
        assert errors.waiting() == 0
    for sock in world.sockets:
        sock.close()
    for base in world.bases:
        base.on_error = lambda error, source: None
    for base in world.bases[::2]:
        base.close()
    world.check()


def walks(seeds: range, steps: int, kind: type[World] = World) -> None:
    """Take a walk for each of *seeds*, and check that nothing is left of them."""
    warnings.simplefilter("ignore", ResourceWarning)  # sockets are dropped, too
    signal.signal(signal.SIGUSR1, lambda *_: None)
    EventBase().loop(ONE_ROUND)
    gc.collect()
    gc.freeze()  # there are hundreds of collections
    before, bases = len(os.listdir("/proc/self/fd")), len(roots)
    for seed in seeds:
        walk(kind, seed, steps)
    for _ in range(3):  # finalizers of events may have kept something for the next time
        gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(roots) == bases
