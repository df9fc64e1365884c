"""Random walks through buffers whose callbacks do anything, in threads, and in forked children.

Nobody knows what must come out here; what must not is a crash, a leak, or a lost exception.
"""

from __future__ import annotations

import gc
import os
import random
import socket
import sys
import tempfile
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from libevent_py import (
    Buffer,
    EolStyle,
    EventBase,
    FileSegment,
    FileSegmentFlag,
    LibeventError,
    LoopFlag,
    errors,
)
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.support import run_python

#: What calls are refused with, where they make no sense.
REFUSALS = (LibeventError, ValueError, RuntimeError, OSError)


class Oops(Exception):
    """What callbacks raise now and then."""


class Memory(bytearray):
    """Bytes that tell, by a weak reference, when nobody needs them any more."""


class Untidy(Memory):
    """Memory whose finalizer uses buffers."""

    #: A weak one: what memory refers to is not seen by the collector while a buffer refers to it.
    world: weakref.ref[World]

    def __del__(self) -> None:
        world = self.world()
        if world is not None:
            world.callback()


class World:
    """Some buffers; each step does something to one or two of them, and so do the callbacks."""

    #: How much callbacks may do, altogether and inside one another.
    BUDGET, DEPTH = 400, 4

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.base = EventBase()
        self.buffers = [Buffer() for _ in range(4)]
        self.callbacks: list[Any] = []
        self.segments: list[FileSegment] = []
        self.views: list[tuple[memoryview, bytes]] = []
        self.references: list[weakref.ref[Memory]] = []
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        self.file.write(b"file\r\n" * 5000)
        self.file.flush()
        self.left, self.right = socket.socketpair()
        self.left.setblocking(False)
        self.right.setblocking(False)
        self.depth = self.called = 0

    def buffer(self) -> Buffer:
        return self.random.choice(self.buffers)

    def size(self) -> int:
        return self.random.choice([0, 1, 5, 100, 500, 2000, 5000, 70_000])

    def step(self) -> None:
        operation = self.random.choice(self.OPERATIONS)
        try:
            operation(self, self.buffer())
        except REFUSALS:
            pass
        except Oops:
            if self.depth and self.random.random() < 0.5:
                raise
        except Exception as error:
            if not type(error).__name__.endswith("Group"):
                raise

    def callback(self, *_: object) -> None:
        self.depth += 1
        try:
            if self.depth < self.DEPTH and self.called < self.BUDGET:
                self.called += 1
                for _number in range(self.random.randrange(3)):
                    self.step()
            if self.random.random() < 0.08:
                raise Oops
        finally:
            self.depth -= 1

    # The operations; each is given one of the buffers.

    def grow(self, buffer: Buffer, add: Callable[[Any], object]) -> None:
        if len(buffer) < 300_000:
            add(b"x\r\ny\0" * (self.size() // 5))

    def add_reference(self, buffer: Buffer) -> None:
        memory = self.random.choice([Memory, Memory, Untidy])(b"m\n" * self.size())
        if isinstance(memory, Untidy):
            memory.world = weakref.ref(self)
        self.references.append(weakref.ref(memory))
        buffer.add_reference(memory)

    def add_buffer_reference(self, buffer: Buffer) -> None:
        other = self.buffer()
        if len(buffer) + len(other) < 300_000:
            buffer.add_buffer_reference(other)

    def look(self, buffer: Buffer) -> None:
        for view in (*buffer.peek(self.size()), buffer.pullup(min(self.size(), len(buffer)))):
            self.views.append((view, bytes(view)))

    def forget(self, _: Buffer) -> None:
        for view, content in self.views:
            assert view == content
        self.views.clear()

    def reserve(self, buffer: Buffer) -> None:
        with buffer.reserve(self.size()) as view:
            view[:1] = b"r"
            if self.depth == 0:
                self.callback()
            buffer.commit(1)

    def segment(self, buffer: Buffer) -> None:
        flags = self.random.choice(list(FileSegmentFlag.__members__.values()))
        segment = FileSegment(
            self.file, 0, self.size() // 4, flags & ~FileSegmentFlag.CLOSE_ON_FREE
        )
        world = weakref.ref(self)  # the collector doesn't see who holds what is called back, either
        segment.on_cleanup = lambda: None if (held := world()) is None else held.callback()
        self.segments.append(segment)
        buffer.add_file_segment(segment)

    def add_segment(self, buffer: Buffer) -> None:
        if self.segments:
            segment = self.random.choice(self.segments)
            buffer.add_file_segment(segment)
            if self.random.random() < 0.5:
                self.segments.remove(segment)
                segment.close()

    def write(self, buffer: Buffer) -> None:
        buffer.write(self.left, 1 + self.size())
        self.buffer().read(self.right)

    def watch(self, buffer: Buffer) -> None:
        self.callbacks.append(buffer.add_cb(self.callback))

    def unwatch(self, _: Buffer) -> None:
        if self.callbacks:
            callback = self.random.choice(self.callbacks)
            if self.random.random() < 0.5:
                callback.enabled = not callback.enabled
            else:
                self.callbacks.remove(callback)
                callback.remove()

    def renew(self, buffer: Buffer) -> None:
        self.buffers[self.buffers.index(buffer)] = Buffer(b"new")
        if self.random.random() < 0.7:
            buffer.close()

    def freeze(self, buffer: Buffer) -> None:
        front = self.random.random() < 0.5
        buffer.freeze(front)
        self.callback()
        buffer.unfreeze(front)

    def lock(self, buffer: Buffer) -> None:
        with buffer.lock():
            self.step()

    OPERATIONS: ClassVar[list[Callable[[World, Buffer], object]]] = [
        lambda world, buffer: world.grow(buffer, buffer.add),
        lambda world, buffer: world.grow(buffer, buffer.prepend),
        lambda world, buffer: world.grow(buffer, lambda data: buffer.add_iovec([data, data, b"z"])),
        lambda world, buffer: buffer.remove(world.size()),
        lambda world, buffer: buffer.remove_into(bytearray(world.size())),
        lambda world, buffer: buffer.drain(world.size()),
        lambda world, buffer: buffer.readln(world.random.choice(list(EolStyle))),
        lambda world, buffer: buffer.search(b"\ny", world.size()),
        lambda world, buffer: buffer.search_eol(world.size(), EolStyle.CRLF),
        lambda world, buffer: buffer.copyout(world.size(), world.size()),
        lambda world, buffer: buffer.expand(world.size()),
        lambda world, buffer: buffer.remove_buffer(world.buffer(), world.size()),
        lambda world, buffer: buffer.remove_buffer(world.buffer(), world.size()),
        lambda world, buffer: buffer.add_buffer(world.buffer()),
        lambda world, buffer: buffer.prepend_buffer(world.buffer()),
        lambda world, buffer: buffer == world.buffer(),
        lambda world, buffer: list(buffer),
        lambda world, buffer: buffer.add_file(world.file, 0, world.size() // 4),
        lambda world, buffer: world.random.random() < 0.1 and buffer.defer_callbacks(world.base),
        lambda world, buffer: world.depth == 0 and world.base.loop(LoopFlag.NONBLOCK),
        lambda world, buffer: world.random.random() < 0.1 and gc.collect(),
        add_reference,
        add_reference,
        add_buffer_reference,
        look,
        look,
        forget,
        reserve,
        segment,
        add_segment,
        write,
        watch,
        watch,
        unwatch,
        renew,
        freeze,
        lock,
    ]


def walk(seed: int, steps: int) -> list[weakref.ref[Memory]]:
    """Take *steps* in a new world, leave it, and return what was referred to there."""
    world = World(seed)
    for _ in range(steps):
        world.step()
        assert errors.waiting() == 0
    world.forget(world.buffer())
    world.called = world.BUDGET  # no callback does anything from here on
    for thing in (world.file, world.left, world.right):
        thing.close()
    world.base.on_error = lambda error, source: None
    if seed % 2:
        world.base.close()
    return world.references


def walks(seeds: range, steps: int) -> None:
    """Take a walk for each of *seeds*, and check that nothing is left of them."""
    sys.unraisablehook = unraisable
    EventBase().loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for seed in seeds:
        references = walk(seed, steps)
        for _ in range(3):  # a finalizer may have kept something for the next time
            gc.collect()
            Buffer().close()  # what finalizers let go of is released by the next call
        assert not [None for reference in references if reference() is not None], seed
    assert len(os.listdir("/proc/self/fd")) == before


def unraisable(what: Any) -> None:
    """Let finalizers raise what callbacks raise."""
    if not isinstance(what.exc_value, (Oops, *REFUSALS)):
        sys.__unraisablehook__(what)


@pytest.mark.parametrize("first", [1, 21])
def test_no_order_of_calls_crashes_or_leaks(first: int) -> None:
    seeds = f"range({first}, {first + 20})"
    code = f"from tests.walks.test_buffer_any_order import walks; walks({seeds}, 300)"
    run_python(code)


@VALGRIND_TAKES_LONG
def test_no_order_of_calls_touches_memory_that_is_not_its_own(valgrind: bool) -> None:
    code = "from tests.walks.test_buffer_any_order import walks; walks(range(101, 105), 200)"
    run_python(code, valgrind=valgrind)
