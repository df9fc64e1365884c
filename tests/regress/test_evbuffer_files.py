"""Group ``evbuffer``, the rest: what a frozen end refuses, and files as a buffer's content."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventOption,
    EolStyle,
    Event,
    EventBase,
    EventFlag,
    FileSegment,
    FileSegmentFlag,
    LibeventError,
)
from tests.kit.flags import PERSIST, READ, WRITE
from tests.kit.peers import Pair

DISABLE_MMAP, DISABLE_SENDFILE = FileSegmentFlag.DISABLE_MMAP, FileSegmentFlag.DISABLE_SENDFILE

TEXT = b"""The wind that shook the leaves along the shore
laid them upon the water where it froze
and there they lie in ranks, as in a dance,
until the thaw lets go of them again..."""


def refused(operation: Callable[..., object], *arguments: Any) -> bool:
    """Tell whether *operation* is refused because an end is frozen."""
    try:
        operation(*arguments)
    except LibeventError as error:
        assert "frozen" in str(error)
        return True
    return False


def fill(buffer: Buffer) -> None:
    """Append ten bytes by writing them into the buffer's own memory."""
    with buffer.reserve(10) as view:
        view[:10] = b"X" * 10
        buffer.commit(10)


def check_freeze(pair: Pair, path: Path, *, start: bool) -> None:
    """Freeze the start or the end of a buffer, and try whatever changes either."""
    left, right = pair
    end = not start
    buffer, two, other = Buffer(TEXT), Buffer(b"abc"), Buffer(b"xyz")
    buffer.freeze(start)
    two.freeze(start)

    before = bytes(buffer) if end else b""
    assert refused(buffer.add, b"") is end
    assert refused(fill, buffer) is end
    assert refused(buffer.add_reference, TEXT[:5]) is end
    assert refused(buffer.add, b"Hello world") is end
    assert refused(buffer.add_iovec, [b"Hello", b"world"]) is end
    assert refused(buffer.add_buffer, other) is end
    path.write_bytes(b"the content of a file")
    with path.open("rb") as file:
        assert refused(buffer.add_file, file, 0, 21) is end
    if start:
        assert len(buffer) == len(TEXT) + 10 + 5 + 11 + 10 + 3 + 21
        other.add(b"xyz")
    assert other.write(left) == 3
    assert refused(buffer.read, right) is end
    if end:
        assert bytes(buffer) == before
        assert right.recv(10) == b"xyz"

    length = len(buffer)
    assert refused(buffer.remove, 1) is start
    assert refused(buffer.remove_into, bytearray(1)) is start
    assert refused(buffer.drain, 3) is start
    assert refused(buffer.prepend, b"dummy") is start
    assert refused(buffer.readln, EolStyle.LF) is start
    other.add(b"xyz")
    assert refused(buffer.remove_buffer, other, 3) is start
    assert refused(buffer.drain, 3) is start
    assert refused(buffer.prepend_buffer, other) is start
    for full in buffer, two:
        size = len(full)
        assert refused(full.write, left) is start
        if start:
            assert len(full) == size
        else:
            assert len(full) == 0
            assert len(right.recv(1000)) == size
    if start:
        assert len(buffer) == length

    buffer.unfreeze(start)
    buffer.prepend(b"> ")
    buffer.add(b" <")
    assert buffer.remove()[-2:] == b" <"


def test_freeze_start(pair: Pair, tmp_path: Path) -> None:
    """A buffer that is frozen at its front gives nothing away there, and takes at its end."""
    check_freeze(pair, tmp_path / "file", start=True)


def test_freeze_end(pair: Pair, tmp_path: Path) -> None:
    """A buffer that is frozen at its end takes nothing there, and gives away at its front."""
    check_freeze(pair, tmp_path / "file", start=False)


def test_file_segment_add_cleanup_cb(tmp_path: Path) -> None:
    """A segment's cleanup is called once, when the last that needs it is gone."""
    path = tmp_path / "file"
    path.write_bytes(b"the content of a file")
    called = []
    with path.open("rb") as file:
        segment = FileSegment(file)
    segment.on_cleanup = lambda: called.append(True)
    buffer = Buffer()
    buffer.add_file_segment(segment)
    assert bytes(buffer) == b"the content of a file"
    segment.close()
    assert not called
    buffer.close()
    assert called == [True]


SMALL = b"a file of rather few bytes, in all"  # 34, as there
BIG = random.Random(123456789).randbytes(512 * 1024)

Part = tuple[int, int | None, int, int | None]

#: The offset and length of the segment in the file, and what of the segment is added.
WHOLE: Part = (0, None, 0, None)
OFFSET = (len(BIG) // 4 + 1, len(BIG) // 2 - 1, 0, None)
IN_SEGMENT: Part = (0, None, len(BIG) // 3, len(BIG) // 2)
BOTH = (*OFFSET[:2], OFFSET[1] // 3, OFFSET[1] // 2)

WAYS = ["sendfile", "mmap", "linear", "nosegment"]
FLAGS = {
    "sendfile": DISABLE_MMAP,
    "mmap": DISABLE_SENDFILE,
    "linear": DISABLE_MMAP | DISABLE_SENDFILE,
}


def check_add_file(
    base: EventBase, way: str, pair: Pair, path: Path, content: bytes, part: Part
) -> None:
    """Send *part* of a file of *content* through a socket, the *way* that it says.

    Which way it went is seen by changing the file before it is sent: what has been read into memory
    stays as it was. Straight from the file goes only the output of a bufferevent.
    """
    left, right = pair
    path.write_bytes(content)
    offset, length, inner, inner_length = part

    def chosen(content: bytes) -> bytes:
        end = len(content) if length is None else offset + length
        inside = content[offset:end]
        return inside if inner_length is None else inside[inner : inner + inner_length]

    expected = chosen(content)
    written = 0

    def write(event: Event, fd: int, what: EventFlag) -> None:
        nonlocal written
        with contextlib.suppress(BlockingIOError):
            while source:
                written += source.write(fd)
            event.delete()

    def read(event: Event, fd: int, what: EventFlag) -> None:
        with contextlib.suppress(BlockingIOError):
            while target.read(fd, 1024):
                pass
        if len(target) >= len(expected):
            event.delete()

    with Buffer() as target:
        if way == "sendfile":
            bev = BufferEvent(base, left.fileno(), BufferEventOption(0))
            source = bev.output
        else:
            source = Buffer()
            Event(base, left, WRITE | PERSIST, write).add()
        Event(base, right, READ | PERSIST, read).add()

        with path.open("r+b") as file:
            if way == "nosegment":
                source.add_file(file, offset, length)
            else:
                with FileSegment(file, offset, length, FLAGS[way]) as segment:
                    source.add_file_segment(segment, inner, inner_length)
            assert len(source) == len(expected)
            mapped = str(path) in Path("/proc/self/maps").read_text()
            assert mapped is (way == "mmap")
            if way in ("sendfile", "linear"):
                file.seek(0)
                file.write(content[::-1])
        if way == "sendfile":
            expected = chosen(content[::-1])

        assert base.dispatch() is False
        assert written == (0 if way == "sendfile" else len(expected))
        assert len(source) == 0
        assert target.pullup(len(expected)) == expected
    assert str(path) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("way", WAYS)
def test_add_file(base: EventBase, way: str, pair: Pair, tmp_path: Path) -> None:
    """A small file arrives whole, each way; by add_file() without a segment, too."""
    check_add_file(base, way, pair, tmp_path / "file", SMALL, WHOLE)


@pytest.mark.parametrize("way", WAYS)
def test_add_big_file(base: EventBase, way: str, pair: Pair, tmp_path: Path) -> None:
    """A file that takes many writes arrives whole."""
    check_add_file(base, way, pair, tmp_path / "file", BIG, WHOLE)


@pytest.mark.parametrize("way", WAYS)
def test_add_file_offset(base: EventBase, way: str, pair: Pair, tmp_path: Path) -> None:
    """A part that begins and ends inside the file, at no page, arrives alone."""
    check_add_file(base, way, pair, tmp_path / "file", BIG, OFFSET)


@pytest.mark.parametrize("way", WAYS[:-1])
def test_add_file_offset2(base: EventBase, way: str, pair: Pair, tmp_path: Path) -> None:
    """A part of a segment arrives alone."""
    check_add_file(base, way, pair, tmp_path / "file", BIG, IN_SEGMENT)


@pytest.mark.parametrize("way", WAYS[:-1])
def test_add_file_offset3(base: EventBase, way: str, pair: Pair, tmp_path: Path) -> None:
    """A part of a segment that is itself a part of the file arrives alone."""
    check_add_file(base, way, pair, tmp_path / "file", BIG, BOTH)
