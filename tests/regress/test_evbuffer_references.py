"""Group ``evbuffer``: memory that is only referred to, and callbacks."""

from __future__ import annotations

import sys
import weakref

import pytest

from libevent_py import Buffer, EventBase, LoopFlag
from libevent_py.buffer import BufferCallback, BufferInfo
from tests.kit.buffers import pulled

EVERYTHING = sys.maxsize

FIRST = b"Whoever has come upon a way out of this forest"  # 46 bytes, as there
SECOND = b"should leave a trail of bread that shines"


class Data(bytearray):
    """Bytes that tell, by a weak reference, when nobody needs them any more."""


def test_reference() -> None:
    """Memory that is only referred to is never written to, and is let go once it has been read."""
    text = b"these forty bytes may be only read, ever"
    memory = Data(text)
    alive = weakref.ref(memory)
    source, target = Buffer(), Buffer()
    source.add_reference(memory)
    target.add(source.remove(10))
    source.prepend(b"aaaaa")
    assert memory == text  # type: ignore[comparison-overlap]
    del memory
    source.drain(5)
    assert alive() is not None
    target.add(source.remove(len(text) - 10))
    assert alive() is None
    assert target.pullup(len(text)) == text


def test_add_reference() -> None:
    """References may stand among copies, be moved, and are let go when their last byte is."""
    memory = [Data(FIRST), Data(SECOND)]
    alive = [weakref.ref(data) for data in memory]
    buffer = Buffer()
    buffer.add_reference(memory[0])
    buffer.add(b", ")
    buffer.add_reference(memory[1])
    assert len(buffer) == len(FIRST) + 2 + len(SECOND)
    assert buffer.remove(6) == FIRST[:6]
    assert buffer.remove(5) == FIRST[6:11]
    buffer.prepend(b"I have ")
    assert memory[0] == FIRST  # type: ignore[comparison-overlap]
    memory.clear()
    buffer.drain(7)
    buffer.drain(len(FIRST) - 11 - 1)
    assert alive[0]() is not None
    assert buffer.remove(1) == FIRST[-1:]
    assert alive[0]() is None

    buffer.drain(2 + 7)
    other = Buffer(b"I ")
    other.add_buffer(buffer)
    assert alive[1]() is not None
    assert other.remove(16) == b"I " + SECOND[7:21]
    other.drain(len(other))
    assert alive[1]() is None

    buffer.add(b"Shake it once, and ")
    last = Data(b"once more")
    alive.append(weakref.ref(last))
    buffer.add_reference(last)
    del last
    buffer.add(b": nothing comes.")
    assert alive[2]() is not None
    buffer.close()
    assert alive[2]() is None


def test_multicast() -> None:
    """Two buffers may have the same bytes, and each may be changed or closed without the other.

    A buffer can't be added to itself; unlike in C, what is shared may be shared once more.
    """
    source = Buffer(FIRST)
    source.add(b", ")
    source.add(SECOND)
    whole = bytes(source)
    other = Buffer()
    other.add_buffer_reference(source)
    with pytest.raises(ValueError, match="another"):
        other.add_buffer_reference(other)
    with Buffer() as third:
        third.add_buffer_reference(other)
        assert bytes(third) == whole
    assert bytes(source) == bytes(other) == whole

    for buffer in source, other:
        assert buffer.remove(6) == whole[:6]
        assert buffer.remove(5) == whole[6:11]
        buffer.prepend(b"I have ")
    source.close()
    assert other.remove(7) == b"I have "
    assert other.remove() == whole[11:]


def test_multicast_drain() -> None:
    """What two buffers share can be drained from one and then from the other."""
    source = Buffer(FIRST)
    source.add(b", ")
    source.add(SECOND)
    size = len(source)
    other = Buffer()
    other.add_buffer_reference(source)
    assert len(other) == size
    source.drain(size)
    assert (len(source), len(other)) == (0, size)
    other.drain(size)
    assert (len(source), len(other)) == (0, 0)


def test_callbacks(base: EventBase) -> None:
    """Callbacks tell of each change, unless disabled or removed; deferred, of all at once."""
    first: list[tuple[int, int]] = []
    second: list[tuple[int, int]] = []

    def note(log: list[tuple[int, int]], buffer: Buffer) -> BufferCallback:
        def called(where: Buffer, info: BufferInfo) -> None:
            assert where is buffer
            now = info.orig_size + info.n_added - info.n_deleted
            log.append((info.orig_size, now))
            assert len(buffer) == now

        return buffer.add_cb(called)

    buffer = Buffer()
    one, two = note(first, buffer), note(second, buffer)
    buffer.add(b"There are two old magic words within")
    two.enabled = False
    buffer.drain(10)
    buffer.prepend(b"Hello")
    two.enabled = True
    buffer.add_reference(b"Goodbye")
    one.remove()
    buffer.drain(len(buffer))
    buffer.add(b"X")
    two.remove()
    buffer.add(b"Y")
    assert first == [(0, 36), (36, 26), (26, 31), (31, 38)]
    assert second == [(0, 36), (31, 38), (38, 0), (0, 1)]
    buffer.drain(EVERYTHING)

    def drain(where: Buffer, info: BufferInfo) -> None:
        if info.n_added > info.n_deleted:
            where.drain(len(where))

    draining = buffer.add_cb(drain)
    buffer.add(b"This is gone as soon as it has come")
    assert len(buffer) == 0
    draining.remove()
    buffer.add(b"This is not.")
    assert pulled(buffer) == b"This is not."

    first.clear()
    with Buffer() as later:
        note(first, later)
        later.defer_callbacks(base)
        later.add(b"0123456789")
        later.drain(3)
        assert first == []
        base.loop(LoopFlag.NONBLOCK)
        assert first == [(0, 7)]
