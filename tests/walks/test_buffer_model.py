"""Random walks through buffers: each does what a bytearray beside it does, whatever came before.

The model knows each buffer's bytes, what must be refused, what each callback must have been told,
what the views that were taken showed, and which memory nobody needs any more.
"""

from __future__ import annotations

import array
import contextlib
import gc
import random
import socket
import tempfile
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from libevent_py import (
    Buffer,
    BufferEvent,
    ClosedError,
    EolStyle,
    EventBase,
    EventFlag,
    FileSegment,
    FileSegmentFlag,
    LibeventError,
    LoopFlag,
)
from tests.kit.support import run_python

#: How long one walk is.
WALK = 50
#: How many buffers there are, and how much each of them should hold at most.
BUFFERS, FULL = 4, 150_000

#: What buffers are filled with: few different bytes, so that searches find something.
PATTERN = bytes(random.Random(1).choices(b"ab\r\n\0xyz", k=100_000))
#: Around the sizes of libevent's chains, of its reads, and of the memory that copies go through.
EDGES = [0, 1, 207, 208, 463, 464, 1023, 1024, 4095, 4096, 4097, 9000, 65536, 65537]

numbers = st.integers(0, BUFFERS - 1)
sizes = st.one_of(st.integers(0, 40), st.sampled_from(EDGES), st.integers(0, 10_000))
offsets = st.integers(0, 1000)
parts = st.integers(0, 2**20)  # of whatever length there is: taken modulo
styles = st.sampled_from(list(EolStyle))
kinds = st.sampled_from([bytes, bytearray, memoryview, lambda data: array.array("B", data)])

CHANGES = ["enable", "disable", "remove", "raise", "raise", "raise"]

DISABLE_MMAP, DISABLE_SENDFILE = FileSegmentFlag.DISABLE_MMAP, FileSegmentFlag.DISABLE_SENDFILE
WAYS = st.sampled_from([DISABLE_MMAP, DISABLE_SENDFILE, DISABLE_MMAP | DISABLE_SENDFILE])

#: To make a failure smaller takes minutes, and as it is it can be read.
PHASES = [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.shrink]

LOST = object()  # the result of a call whose callbacks raised


class Boom(Exception):
    """What callbacks raise now and then."""


class Memory(bytearray):
    """Bytes that tell, by a weak reference, when nobody needs them any more."""


class Reference:
    """Memory that a buffer refers to, until the last byte that is marked so is gone."""

    def __init__(self, mark: int, memory: Memory) -> None:
        self.mark = mark
        self.alive = weakref.ref(memory)
        #: Whether it must be let go with its last byte: not once views or copies may keep it.
        self.exact = True


class Watch:
    """A callback, what it has been told, and what it should have been."""

    def __init__(self, twin: Twin) -> None:
        self.twin = weakref.ref(twin)
        self.seen: list[tuple[int, int, int]] = []
        self.expected: list[tuple[int, int, int]] = []
        self.enabled = True
        self.raises = self.will_raise = False  # in fact, and in the model
        self.entry = twin.buffer.add_cb(self)

    def __call__(self, buffer: Buffer, info: Any) -> None:
        twin = self.twin()
        assert twin is not None and buffer is twin.buffer
        self.seen.append((info.orig_size, info.n_added, info.n_deleted))
        assert len(buffer) == info.orig_size + info.n_added - info.n_deleted
        if self.raises:
            self.raises = False
            raise Boom


class Twin:
    """A buffer and its model."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.buffer = Buffer()
        self.data = bytearray()
        #: For each byte the mark of the reference that it came in with, or 0.
        self.marks: list[int] = []
        self.frozen = {True: False, False: False}  # at the front, at the end
        self.watches: list[Watch] = []
        self.watched = False  # C has a callback from the first on, whatever becomes of it
        self.deferred = False
        self.waiting = [0, 0]  # added and deleted, of which deferred callbacks have yet to hear

    def watch(self) -> None:
        self.watches.insert(0, Watch(self))  # the last to come is called first
        self.watched = True

    def put(self, data: bytes, marks: list[int] | None = None, *, front: bool = False) -> None:
        """Insert at an end, and expect the callbacks to be told."""
        where = 0 if front else len(self.data)
        self.data[where:where] = data
        self.marks[where:where] = [0] * len(data) if marks is None else marks
        self.changed(len(data), 0)

    def cut(self, size: int) -> tuple[bytes, list[int]]:
        """Take from the front, and expect the callbacks to be told."""
        data, marks = bytes(self.data[:size]), self.marks[:size]
        del self.data[:size], self.marks[:size]
        self.changed(0, len(data))
        return data, marks

    def changed(self, added: int, deleted: int) -> None:
        if not self.watched:
            return
        self.waiting[0] += added
        self.waiting[1] += deleted
        if not self.deferred:
            self.tell()

    def tell(self) -> None:
        """Expect the callbacks to be told now."""
        (added, deleted), self.waiting = self.waiting, [0, 0]
        if not added and not deleted:
            return
        before = len(self.data) - added + deleted
        for watch in self.watches:
            if watch.enabled:
                watch.expected.append((before, added, deleted))
                self.machine.booms += watch.will_raise
                watch.will_raise = False

    def blur(self) -> None:
        """No longer expect references in here to be let go with their last byte."""
        marks = set(self.marks)
        for reference in self.machine.references:
            reference.exact = reference.exact and reference.mark not in marks


class Machine(RuleBasedStateMachine):
    """Buffers, and all that can be done to them."""

    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.booms = 0  # how many exceptions of callbacks the model expects
        self.references: list[Reference] = []
        self.views: list[tuple[memoryview, bytes]] = []
        self.segments: list[tuple[FileSegment, bytes]] = []
        self.gone: list[Watch] = []  # callbacks that must not be called again
        self.closing = closing = contextlib.ExitStack()
        self.base = closing.enter_context(EventBase())
        self.file = closing.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self.file.write(PATTERN)
        self.file.flush()
        self.left, self.right = map(closing.enter_context, socket.socketpair())
        self.left.setblocking(False)
        self.right.setblocking(False)
        self.twins = [Twin(self) for _ in range(BUFFERS)]
        for twin in self.twins[:2]:  # the others may get some later
            twin.watch()

    def teardown(self) -> None:
        for segment, _ in self.segments:
            segment.close()
        for twin in self.twins[::2]:
            twin.buffer.close()
        self.twins.clear()
        self.views.clear()
        self.closing.close()
        gc.collect()
        Buffer().close()  # what finalizers let go of is released by the next call
        assert [reference.alive() for reference in self.references if reference.alive()] == []

    # What each step is held to.

    def run(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        """Return what *operation* does, or LOST if a callback is expected to raise and does."""
        expected, self.booms = self.booms, 0
        try:
            result = operation(*arguments)
        except Exception as error:
            if not isinstance(error, Boom) and not type(error).__name__.endswith("Group"):
                raise
            assert expected, "a callback was called that should not have been"
            return LOST
        assert not expected, "what a callback raised is lost"
        return result

    def refused(self, frozen: bool, operation: Callable[..., Any], *arguments: Any) -> bool:
        """Tell whether an end is *frozen*; then *operation* must be refused."""
        if frozen:
            with pytest.raises(LibeventError, match="frozen"):
                operation(*arguments)
        return frozen

    @invariant()
    def holds(self) -> None:
        """Compare what there is with the model."""
        Machine.steps += 1
        self.contents_are_the_same()
        self.views_show_what_they_showed()
        self.callbacks_have_been_told()
        self.references_are_let_go()

    def contents_are_the_same(self) -> None:
        for twin in self.twins:
            assert len(twin.buffer) == len(twin.data)
            assert bool(twin.buffer) is bool(twin.data)
            assert bytes(twin.buffer) == twin.data

    def views_show_what_they_showed(self) -> None:
        for view, content in self.views:
            assert view == content

    def callbacks_have_been_told(self) -> None:
        for watch in self.gone:
            assert watch.seen == watch.expected
        for twin in self.twins:
            for watch in twin.watches:
                assert watch.seen == watch.expected

    def references_are_let_go(self) -> None:
        self.references = [ref for ref in self.references if ref.alive() is not None]
        if not self.references:
            return
        used = {mark for twin in self.twins for mark in set(twin.marks)}
        for reference in self.references:
            assert reference.mark in used or not reference.exact
        if not used and not self.views and not any(twin.data for twin in self.twins):
            Buffer().close()  # what views let go of is released by the next call
            assert not any(reference.alive() for reference in self.references)

    # Bytes in.

    def piece(self, twin: Twin, size: int, offset: int) -> bytes:
        """Return bytes to be added, few when there are many already."""
        return PATTERN[offset : offset + (size if len(twin.data) < FULL else size % 10)]

    @rule(i=numbers, size=sizes, offset=offsets, kind=kinds, how=st.sampled_from(["add", "+="]))
    def add(self, i: int, size: int, offset: int, kind: Any, how: str) -> None:
        twin = self.twins[i]
        data = self.piece(twin, size, offset)
        add = twin.buffer.add if how == "add" else twin.buffer.__iadd__
        if not self.refused(twin.frozen[False], add, kind(data)):
            twin.put(data)
            assert self.run(add, kind(data)) in (None, twin.buffer, LOST)

    @rule(i=numbers, size=sizes, offset=offsets, kind=kinds)
    def prepend(self, i: int, size: int, offset: int, kind: Any) -> None:
        twin = self.twins[i]
        data = self.piece(twin, size, offset)
        if not self.refused(twin.frozen[True] and data != b"", twin.buffer.prepend, kind(data)):
            twin.put(data, front=True)
            self.run(twin.buffer.prepend, kind(data))

    @rule(i=numbers, each=st.lists(st.tuples(sizes, offsets), max_size=5), kind=kinds)
    def add_iovec(self, i: int, each: list[tuple[int, int]], kind: Any) -> None:
        twin = self.twins[i]
        pieces = [self.piece(twin, size, offset) for size, offset in each]
        # Of pieces that are all empty, C adds none, and does not say that it would not.
        refused = twin.frozen[False] and any(pieces)
        if not self.refused(refused, twin.buffer.add_iovec, list(map(kind, pieces))):
            for data in pieces:
                twin.put(data)
            self.run(twin.buffer.add_iovec, list(map(kind, pieces)))

    @rule(i=numbers, size=sizes, offset=offsets, how=st.sampled_from(["all", "slice", "array"]))
    def add_reference(self, i: int, size: int, offset: int, how: str) -> None:
        twin = self.twins[i]
        data = self.piece(twin, size, offset)
        memory = Memory(b"--" + data + b"--" if how == "slice" else data)
        given = memoryview(memory)[2:-2] if how == "slice" else memory
        if how == "array":
            given = memoryview(memory).cast("B")
        reference = Reference(len(self.references) + random.getrandbits(40) + 1, memory)
        del memory
        frozen = twin.frozen[False] and data != b""
        if not self.refused(frozen, twin.buffer.add_reference, given):
            self.references.append(reference)
            twin.put(data, [reference.mark] * len(data))
            self.run(twin.buffer.add_reference, given)
        del given
        if twin.frozen[False] or not data:
            assert reference.alive() is None

    @rule(
        i=numbers, size=sizes, used=parts, offset=offsets, commit=st.booleans(), keep=st.booleans()
    )
    def reserve(self, i: int, size: int, used: int, offset: int, commit: bool, keep: bool) -> None:
        twin = self.twins[i]
        size = max(1, size)
        data = self.piece(twin, used % (size + 1), offset)

        def fill() -> memoryview | None:
            with twin.buffer.reserve(size) as view:
                assert len(view) >= size and not view.readonly
                view[: len(data)] = data
                with pytest.raises(RuntimeError, match="reserved"):
                    twin.buffer.add(b"more")
                kept = view[: len(data)] if keep else None
                if commit:
                    twin.buffer.commit(len(data))
                return kept

        if not self.refused(twin.frozen[False], fill):
            if commit:
                twin.put(data)
            kept = self.run(fill)
            if kept is not LOST and kept is not None and kept.nbytes:
                kept[:] = bytes(len(kept))  # which nobody else sees

    @rule(i=numbers, size=sizes)
    def expand(self, i: int, size: int) -> None:
        buffer = self.twins[i].buffer
        self.run(buffer.expand, size)
        assert buffer.contiguous_space <= len(buffer)

    # Bytes out.

    @rule(i=numbers, size=st.none() | sizes)
    def remove(self, i: int, size: int | None) -> None:
        twin = self.twins[i]
        size = len(twin.data) if size is None else min(size, len(twin.data))
        if not self.refused(twin.frozen[True] and size > 0, twin.buffer.remove, size):
            data, _ = twin.cut(size)
            assert self.run(twin.buffer.remove, size) in (data, LOST)

    @rule(i=numbers, size=sizes)
    def remove_into(self, i: int, size: int) -> None:
        twin = self.twins[i]
        room = bytearray(size)
        frozen = twin.frozen[True] and bool(twin.data) and size > 0
        if not self.refused(frozen, twin.buffer.remove_into, room):
            data, _ = twin.cut(size)
            assert self.run(twin.buffer.remove_into, room) in (len(data), LOST)
            assert room == data.ljust(size, b"\0")

    @rule(i=numbers, size=sizes | parts)
    def drain(self, i: int, size: int) -> None:
        twin = self.twins[i]
        if not self.refused(twin.frozen[True] and bool(twin.data), twin.buffer.drain, size):
            twin.cut(size)
            self.run(twin.buffer.drain, size)

    @rule(i=numbers, style=styles)
    def readln(self, i: int, style: EolStyle) -> None:
        twin = self.twins[i]
        position, length = eol(twin.data, 0, style)
        if not self.refused(twin.frozen[True] and length > 0, twin.buffer.readln, style):
            line = None
            if length:
                line = bytes(twin.cut(position + length)[0][:position])
            assert self.run(twin.buffer.readln, style) in (line, LOST)

    # Bytes from buffer to buffer.

    @rule(i=numbers, j=numbers, front=st.booleans())
    def add_buffer(self, i: int, j: int, front: bool) -> None:
        twin, other = self.twins[i], self.twins[j]
        move = twin.buffer.prepend_buffer if front else twin.buffer.add_buffer
        if twin is other or not other.data:
            self.run(move, other.buffer)
        elif not self.refused(twin.frozen[front] or other.frozen[True], move, other.buffer):
            twin.put(*other.cut(FULL * 9), front=front)
            self.run(move, other.buffer)

    @rule(i=numbers, j=numbers, size=sizes | parts)
    def remove_buffer(self, i: int, j: int, size: int) -> None:
        twin, other = self.twins[i], self.twins[j]
        move = twin.buffer.remove_buffer
        if twin is other or not size:
            assert self.run(move, other.buffer, size) == 0
        elif not self.refused(twin.frozen[True] or other.frozen[False], move, other.buffer, size):
            data, marks = twin.cut(size)
            other.put(data, marks)
            assert self.run(move, other.buffer, size) in (len(data), LOST)

    @rule(i=numbers, j=numbers)
    def add_buffer_reference(self, i: int, j: int) -> None:
        twin, other = self.twins[i], self.twins[j]
        refer = twin.buffer.add_buffer_reference
        if len(twin.data) + len(other.data) > 2 * FULL:
            return
        if twin is other:
            with pytest.raises(ValueError, match="another"):
                refer(other.buffer)
        elif not other.data:
            if not twin.frozen[False]:  # which may or may not matter, when nothing is added
                self.run(refer, other.buffer)
        elif not self.refused(twin.frozen[False], refer, other.buffer):
            other.blur()
            twin.put(bytes(other.data), list(other.marks))
            self.run(refer, other.buffer)

    @rule(i=numbers, j=numbers, size=sizes)
    def write_and_read(self, i: int, j: int, size: int) -> None:
        twin, other = self.twins[i], self.twins[j]
        size = min(size, len(twin.data))
        if size and not self.refused(twin.frozen[True], twin.buffer.write, self.left, size):
            before = len(twin.buffer)
            data = bytes(twin.data[:size])
            twin.cut(size)
            assert self.run(twin.buffer.write, self.left, size) in (size, LOST)
            assert before - len(twin.buffer) == size
            if self.refused(other.frozen[False], other.buffer.read, self.right):
                assert self.right.recv(2 * size) == data
            while data and not other.frozen[False]:
                other.put(data[:4096])  # no more at a time (D13)
                assert self.run(other.buffer.read, self.right) in (len(data[:4096]), LOST)
                data = data[4096:]

    @rule(i=numbers, j=numbers)
    def send_through_a_pair(self, i: int, j: int) -> None:
        twin, other = self.twins[i], self.twins[j]
        if not twin.data or twin.frozen[True] or other.frozen[False]:
            return
        one, two = BufferEvent.pair(self.base)
        with one, two:
            two.enable(EventFlag.READ)
            moved = twin.cut(len(twin.data))
            self.run(one.write_buffer, twin.buffer)
            while len(two.input) < len(moved[0]):
                self.loop()
            other.put(*moved)
            self.run(two.read_buffer, other.buffer)

    # Looking.

    @rule(i=numbers, size=st.none() | sizes | parts, start=parts)
    def copyout(self, i: int, size: int | None, start: int) -> None:
        twin = self.twins[i]
        start %= len(twin.data) + 1
        expected = bytes(twin.data[start:] if size is None else twin.data[start : start + size])
        frozen = twin.frozen[True] and expected != b""
        if not self.refused(frozen, twin.buffer.copyout, size, start):
            assert twin.buffer.copyout(size, start) == expected
        with pytest.raises(ValueError, match="start"):
            twin.buffer.copyout(size, len(twin.data) + 1)

    def keep(self, view: memoryview, content: bytes) -> None:
        assert view.readonly and view == content
        self.views = [*self.views[-15:], (view, content)]

    @rule(i=numbers, size=st.none() | sizes, start=parts)
    def peek(self, i: int, size: int | None, start: int) -> None:
        twin = self.twins[i]
        twin.blur()
        start %= len(twin.data) + 1
        end = len(twin.data) if size is None else start + size
        views = twin.buffer.peek(size, start)
        assert all(views)
        assert b"".join(views) == twin.data[start:end]
        for view in views[:4]:
            self.keep(view, bytes(view))

    @rule(i=numbers, size=parts, all_of_it=st.booleans())
    def pullup(self, i: int, size: int, all_of_it: bool) -> None:
        twin = self.twins[i]
        twin.blur()
        wanted = None if all_of_it else size % (len(twin.data) + 1)
        expected = bytes(twin.data[:wanted])
        view = self.run(twin.buffer.pullup, wanted)
        self.keep(view, expected)

    @rule(first=st.booleans())
    def forget_a_view(self, first: bool) -> None:
        if self.views:
            self.views.pop(0 if first else -1)

    @rule()
    def forget_all_views(self) -> None:
        self.views.clear()

    @rule(i=numbers)
    def iterate(self, i: int) -> None:
        twin = self.twins[i]
        twin.blur()
        if not twin.frozen[True]:
            assert b"".join(twin.buffer) == twin.data

    @rule(i=numbers, j=numbers)
    def compare(self, i: int, j: int) -> None:
        twin, other = self.twins[i], self.twins[j]
        if not twin.frozen[True] and not other.frozen[True]:
            assert (twin.buffer == other.buffer) is (twin.data == other.data)
            assert twin.buffer == bytes(twin.data)
            assert twin.buffer != bytes(twin.data) + b"."

    @rule(i=numbers, offset=parts, size=st.integers(0, 6), start=parts, end=st.none() | parts)
    def search(self, i: int, offset: int, size: int, start: int, end: int | None) -> None:
        twin = self.twins[i]
        content = bytes(twin.data) or PATTERN
        offset %= len(content)
        start %= len(twin.data) + 1
        end = end if end is None else start + end % (len(twin.data) + 1 - start)
        what = content[offset : offset + size]
        assert twin.buffer.search(what, start, end) == twin.data.find(what, start, end)
        assert (what in twin.buffer) is (what in twin.data)

    @rule(i=numbers, start=parts, style=styles)
    def search_eol(self, i: int, start: int, style: EolStyle) -> None:
        twin = self.twins[i]
        start %= len(twin.data) + 1
        assert twin.buffer.search_eol(start, style) == eol(twin.data, start, style)

    # Files.

    @rule(offset=st.integers(0, 30_000), size=sizes, flags=WAYS)
    def make_segment(self, offset: int, size: int, flags: FileSegmentFlag) -> None:
        segment = FileSegment(self.file, offset, size, flags)
        self.segments.append((segment, PATTERN[offset : offset + size]))

    @rule(i=numbers, k=parts, offset=parts, size=st.none() | parts)
    def add_file_segment(self, i: int, k: int, offset: int, size: int | None) -> None:
        if not self.segments:
            return
        twin = self.twins[i]
        segment, content = self.segments[k % len(self.segments)]
        offset %= len(content) + 1
        if size is not None:
            size %= len(content) - offset + 1
        data = content[offset:] if size is None else content[offset : offset + size]
        if len(twin.data) > FULL:
            return
        frozen = twin.frozen[False] and data != b""
        if not self.refused(frozen, twin.buffer.add_file_segment, segment, offset, size):
            twin.put(data)
            self.run(twin.buffer.add_file_segment, segment, offset, size)

    @rule(i=numbers, offset=offsets, size=sizes)
    def add_file(self, i: int, offset: int, size: int) -> None:
        twin = self.twins[i]
        data = self.piece(twin, size, offset)
        add = twin.buffer.add_file
        frozen = twin.frozen[False] and data != b""
        if not self.refused(frozen, add, self.file, offset, len(data)):
            twin.put(data)
            self.run(add, self.file, offset, len(data))

    @rule(k=parts)
    def close_segment(self, k: int) -> None:
        if self.segments:
            segment, _ = self.segments.pop(k % len(self.segments))
            if k & 1:
                segment.close()
                with pytest.raises(ClosedError):
                    self.twins[0].buffer.add_file_segment(segment)

    # Frozen ends, callbacks, ends.

    @rule(i=numbers, front=st.booleans())
    def freeze(self, i: int, front: bool) -> None:
        self.twins[i].buffer.freeze(front)
        self.twins[i].frozen[front] = True

    @rule()
    def unfreeze(self) -> None:
        for twin in self.twins:
            for front in True, False:
                twin.buffer.unfreeze(front)
                twin.frozen[front] = False

    @rule(i=numbers)
    def add_cb(self, i: int) -> None:
        twin = self.twins[i]
        if len(twin.watches) < 3:
            twin.watch()

    @rule(i=numbers, k=parts, what=st.sampled_from(CHANGES))
    def change_cb(self, i: int, k: int, what: str) -> None:
        twin = self.twins[i]
        if not twin.watches:
            return
        watch = twin.watches[k % len(twin.watches)]
        if what == "remove":
            watch.entry.remove()
            twin.watches.remove(watch)
            self.gone.append(watch)
        elif what == "raise":
            watch.raises = watch.will_raise = True
        else:
            watch.enabled = watch.entry.enabled = what == "enable"

    @rule(i=numbers)
    def defer_callbacks(self, i: int) -> None:
        twin = self.twins[i]
        if not twin.deferred:
            twin.deferred = True
            twin.buffer.defer_callbacks(self.base)

    @rule()
    def loop(self) -> None:
        for twin in self.twins:
            if twin.deferred:
                twin.tell()
        self.run(self.base.loop, LoopFlag.NONBLOCK)

    @rule(i=numbers, how=st.sampled_from(["close", "drop", "drop a cycle"]))
    def end(self, i: int, how: str) -> None:
        twin = self.twins[i]
        self.twins[i] = Twin(self)
        if twin.watches:
            self.twins[i].watch()
        self.gone += twin.watches
        if twin.deferred:
            how = "close"  # a loop still calls what is waiting when its buffer is only dropped
        if how == "close":
            twin.buffer.close()
            twin.buffer.close()
            with pytest.raises(ClosedError):
                twin.buffer.add(b"more")
        elif how == "drop a cycle":
            twin.watches.append(twin)  # type: ignore[arg-type]
        if twin.deferred:
            self.loop()  # whose queue has kept the memory of the buffer
        del twin
        if how == "drop a cycle":
            gc.collect()
        Buffer().close()


def eol(data: bytearray, start: int, style: EolStyle) -> tuple[int, int]:
    """Return where the first line from *start* on ends and how long its end is, or (-1, 0)."""
    if style == EolStyle.ANY:
        ends = [at for at in (data.find(b"\r", start), data.find(b"\n", start)) if at >= 0]
        if not ends:
            return -1, 0
        at = min(ends)
        length = 1
        while bytes(data[at + length : at + length + 1]) in (b"\r", b"\n"):
            length += 1
        return at, length
    if style == EolStyle.CRLF:
        at = data.find(b"\n", start)
        return (at - 1, 2) if at > start and data[at - 1 : at] == b"\r" else (at, int(at >= 0))
    what = {EolStyle.CRLF_STRICT: b"\r\n", EolStyle.LF: b"\n", EolStyle.NUL: b"\0"}[style]
    at = data.find(what, start)
    return at, len(what) if at >= 0 else 0


def walk(steps: int, seed: int | None = None) -> None:
    """Take about *steps* steps, always the same ones if there is no *seed*."""
    settings = hypothesis.settings(
        max_examples=max(1, steps // WALK),
        stateful_step_count=WALK,
        phases=PHASES,
        deadline=None,
        database=None,
        derandomize=seed is None,
        print_blob=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    machine = Machine if seed is None else hypothesis.seed(seed)(Machine)
    with tempfile.TemporaryDirectory() as directory:
        set_hypothesis_home_dir(directory)  # it keeps more than a database
        run_state_machine_as_test(machine, settings=settings)


@pytest.mark.parametrize("least", [3_000, pytest.param(10_000, marks=pytest.mark.more)])
def test_buffers_do_what_a_bytearray_does(request: pytest.FixtureRequest, least: int) -> None:
    chosen = request.config.getoption("--model-steps")
    before = Machine.steps
    walk(chosen or least, random.getrandbits(32) if chosen else None)
    assert Machine.steps - before >= 0.8 * (chosen or least)


@pytest.mark.more
def test_no_step_touches_memory_that_is_not_its_own() -> None:
    code = "from tests.walks.test_buffer_model import walk; walk(1000, 2)"
    run_python(code, valgrind=True, stderr=None)
