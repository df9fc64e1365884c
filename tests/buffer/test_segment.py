"""FileSegment: parts of files, in memory, mapped, or sent straight from the file."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    Buffer,
    BufferEvent,
    BufferEventFlag,
    ClosedError,
    EventBase,
    EventFlag,
    FileSegment,
    FileSegmentFlag,
    LibeventError,
    LoopFlag,
)
from libevent_py._core.references import references
from tests.kit.peers import Pair, is_open, run_until, tcp_pair
from tests.kit.support import PATIENCE, run_python, shown

MMAP = FileSegmentFlag(0)
NO_MMAP = FileSegmentFlag.DISABLE_MMAP
NO_SENDFILE = FileSegmentFlag.DISABLE_SENDFILE
CONTENT = bytes(range(256)) * 100  # more than a page


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def tcp() -> Iterator[Pair]:
    """Two connected TCP sockets."""
    left, right = tcp_pair()
    with left, right:
        right.settimeout(PATIENCE)
        yield left, right


def received(peer: socket.socket, size: int) -> bytearray:
    """Receive *size* bytes from *peer*, or less if there are no more."""
    data = bytearray()
    while len(data) < size and (part := peer.recv(size - len(data))):
        data += part
    return data


def opened_by(path: Path) -> int:
    """Return how many of this process's descriptors are open on *path*."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:  # the directory's own
            continue
    return links.count(str(path))


FLAGS = pytest.mark.parametrize(
    "flags",
    [NO_MMAP, NO_MMAP | NO_SENDFILE, MMAP, NO_SENDFILE, FileSegmentFlag.DISABLE_LOCKING],
    ids=shown,
)


@FLAGS
def test_a_segment_brings_a_file_s_bytes_into_a_buffer(path: Path, flags: FileSegmentFlag) -> None:
    with path.open("rb") as file:
        segment = FileSegment(file, flags=flags)
    assert segment.length == len(CONTENT)
    buffer = Buffer(b"> ")
    buffer.add_file_segment(segment)
    assert bytes(buffer) == b"> " + CONTENT
    assert buffer.search(CONTENT[-300:]) >= 0
    buffer.add_file_segment(segment, 3, 5)
    segment.close()
    assert buffer.pullup() == b"> " + CONTENT + CONTENT[3:8]
    assert buffer.remove(100) == (b"> " + CONTENT)[:100]


@FLAGS
@pytest.mark.parametrize("offset", [0, 1, 4096, 5000, len(CONTENT) - 1, len(CONTENT)])
@pytest.mark.parametrize("length", [None, 0, 1])
def test_a_segment_has_the_bytes_that_were_asked_for(
    path: Path, offset: int, length: int | None, flags: FileSegmentFlag
) -> None:
    if offset + (length or 0) > len(CONTENT):
        return
    expected = CONTENT[offset:][:length]
    with path.open("rb") as file, FileSegment(file, offset, length, flags) as segment:
        assert segment.length == len(expected)
        buffer = Buffer()
        buffer.add_file_segment(segment)
        buffer.add_file(file, offset, length)
    assert bytes(buffer) == 2 * expected


def test_a_part_of_a_segment_is_counted_from_its_own_beginning(path: Path) -> None:
    buffer = Buffer()
    with path.open("rb") as file, FileSegment(file, 100, 50) as segment:
        buffer.add_file_segment(segment, 10, 5)
        buffer.add_file_segment(segment, 45)
        buffer.add_file_segment(segment, 50)
        buffer.add_file_segment(segment, 0, 0)
    assert bytes(buffer) == CONTENT[110:115] + CONTENT[145:150]


@pytest.mark.parametrize(
    ("offset", "length", "message"),
    [
        (-1, None, "offset must be from 0 to 25600, not -1"),
        (25601, None, "offset must be from 0 to 25600, not 25601"),
        (25601, 0, "offset must be"),
        (sys.maxsize, None, "offset must be"),
        (0, 25601, "length must be from 0 to 25600, not 25601"),
        (25600, 1, "length must be from 0 to 0, not 1"),
        (0, -1, "length must be from 0 to 25600, not -1"),
        (0, -2, "length must be"),
    ],
)
def test_a_segment_has_no_bytes_that_the_file_has_not(
    path: Path, offset: int, length: int | None, message: str
) -> None:
    buffer = Buffer()
    with path.open("rb") as file:
        with pytest.raises(ValueError, match=message):
            FileSegment(file, offset, length)
        with pytest.raises(ValueError, match=message):
            buffer.add_file(file, offset, length)
        with FileSegment(file) as segment, pytest.raises(ValueError, match=message):
            buffer.add_file_segment(segment, offset, length)
    assert not buffer


def test_only_a_regular_file_that_can_be_read_has_segments(path: Path, tmp_path: Path) -> None:
    with path.open("ab") as file:
        with pytest.raises(OSError, match="Bad file descriptor"):
            FileSegment(file, flags=NO_MMAP | NO_SENDFILE)
        with FileSegment(file) as segment, pytest.raises(OSError, match="Bad file descriptor"):
            Buffer().add_file_segment(segment)
    left, right = socket.socketpair()
    with left, right, pytest.raises(ValueError, match="file must be a regular file"):
        FileSegment(left)
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(ValueError, match="file must be a regular file"):
        Buffer().add_file(directory)
    os.close(directory)
    with pytest.raises(OSError, match="file 99999"):
        FileSegment(99999)
    with pytest.raises(TypeError, match="file must be a file descriptor"):
        FileSegment(str(path))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="segment must be a FileSegment"):
        Buffer().add_file_segment(b"bytes")  # type: ignore[arg-type]
    with path.open("rb") as file:
        with pytest.raises(ValueError, match="FileSegmentFlag does not know"):
            FileSegment(file, flags=1024)
        with pytest.raises(TypeError, match="on_cleanup must be callable"):
            FileSegment(file, on_cleanup=5)  # type: ignore[arg-type]


def test_reading_leaves_the_file_s_position_where_it_was(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        file.seek(7)
        buffer = Buffer()
        buffer.add_file(file)
        assert file.tell() == 7
        with FileSegment(file) as segment:
            buffer.add_file_segment(segment)
        assert file.tell() == 7


def test_the_file_is_open_until_nothing_of_it_is_in_any_buffer(path: Path) -> None:
    one, other = Buffer(), Buffer()
    segment = FileSegment(os.open(path, os.O_RDONLY), flags=FileSegmentFlag.CLOSE_ON_FREE | NO_MMAP)
    one.add_file_segment(segment, 0, 10)
    other.add_file_segment(segment, 0, 10)
    segment.close()
    segment.close()
    one.close()
    assert opened_by(path) > 0
    (view,) = other.peek()
    other.drain(10)
    assert opened_by(path) > 0
    assert view == CONTENT[:10]
    del view
    assert opened_by(path) == 0


def test_close_on_free_takes_a_descriptor_and_nothing_else(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    with FileSegment(fd, flags=FileSegmentFlag.CLOSE_ON_FREE) as segment:
        assert not is_open(fd)
        assert segment.length == len(CONTENT)
    assert opened_by(path) == 0
    with path.open("rb") as file:
        with pytest.raises(TypeError, match="file must be a descriptor with CLOSE_ON_FREE"):
            FileSegment(file, flags=FileSegmentFlag.CLOSE_ON_FREE)
        with pytest.raises(ValueError, match="length must be"):
            FileSegment(file.fileno(), 0, 10**9, FileSegmentFlag.CLOSE_ON_FREE)
        assert file.read() == CONTENT  # a failure leaves it to the caller


def test_a_dropped_segment_is_closed(path: Path) -> None:
    buffer = Buffer()
    with path.open("rb") as file:
        buffer.add_file_segment(FileSegment(file))
    gc.collect()
    assert opened_by(path) > 0
    assert buffer.remove() == CONTENT
    assert opened_by(path) == 0


def test_a_closed_segment_is_of_no_use(path: Path) -> None:
    with path.open("rb") as file:
        segment = FileSegment(file)
    segment.close()
    assert segment.closed
    with pytest.raises(ClosedError):
        Buffer().add_file_segment(segment)
    with pytest.raises(ClosedError):
        segment.on_cleanup = print
    buffer = Buffer()
    buffer.close()
    with path.open("rb") as file, pytest.raises(ClosedError):
        buffer.add_file(file)
    assert opened_by(path) == 0


def test_nothing_of_a_file_is_added_to_a_frozen_end(path: Path) -> None:
    buffer = Buffer()
    buffer.freeze(False)
    with path.open("rb") as file, FileSegment(file) as segment:
        for _ in range(3):
            with pytest.raises(LibeventError, match="frozen at its end"):
                buffer.add_file_segment(segment)
        with pytest.raises(LibeventError, match="frozen at its end"):
            buffer.add_file(file)
        buffer.unfreeze(False)
        buffer.add_file_segment(segment)
    assert bytes(buffer) == CONTENT


def test_a_file_that_has_become_shorter_is_noticed_when_it_is_read(path: Path) -> None:
    with path.open("r+b") as file, FileSegment(file) as segment:
        file.truncate(100)
        with pytest.raises(ValueError, match="file has become shorter"):
            Buffer().add_file_segment(segment)
        file.truncate(len(CONTENT))
        buffer = Buffer()
        buffer.add_file_segment(segment)
        file.truncate(0)
        assert bytes(buffer) == CONTENT[:100].ljust(len(CONTENT), b"\0")


# What is called at last.


def test_on_cleanup_is_called_when_nobody_needs_the_segment(path: Path) -> None:
    called: list[bool] = []
    buffer = Buffer()
    with path.open("rb") as file:
        segment = FileSegment(file, on_cleanup=lambda: called.append(segment.closed))
        assert segment.on_cleanup is not None
        buffer.add_file_segment(segment)
    segment.close()
    assert not called
    buffer.drain(10**6)
    assert called == [True]
    assert not references


@FLAGS
@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_on_cleanup_may_be_set_at_any_time(path: Path, flags: FileSegmentFlag, when: str) -> None:
    called: list[str] = []
    buffer = Buffer()
    with path.open("rb") as file:
        segment = FileSegment(file, flags=flags)
    if when == "before":
        segment.on_cleanup = lambda: called.append("other")
    elif when == "between":
        segment.on_cleanup = lambda: called.append("one")
    buffer.add_file_segment(segment)
    if when != "between":
        segment.on_cleanup = lambda: called.append("one")
    buffer.close()
    segment.close()
    assert called == ["one"]
    assert not references


def test_on_cleanup_may_be_taken_back(path: Path) -> None:
    called: list[str] = []
    with path.open("rb") as file, FileSegment(file) as segment:
        assert segment.on_cleanup is None
        segment.on_cleanup = lambda: called.append("called")
        segment.on_cleanup = None
    assert not called
    assert not references


def test_what_on_cleanup_raises_comes_out_of_what_led_to_it(path: Path, base: EventBase) -> None:
    def raises() -> None:
        raise KeyError("cleaned up")

    buffer = Buffer()
    with path.open("rb") as file:
        with pytest.raises(KeyError, match="cleaned up"):
            FileSegment(file, on_cleanup=raises).close()
        buffer.add_file_segment(FileSegment(file, on_cleanup=raises))
        with pytest.raises(KeyError, match="cleaned up"):
            buffer.drain(10**6)
        assert not buffer
        one, other = BufferEvent.pair(base)
        one.output.add_file_segment(FileSegment(file, on_cleanup=raises))
        other.on_read = lambda _bev: one.close()
        other.enable(EventFlag.READ)
        run_until(base, lambda: one.closed)
        assert len(other.input) == len(CONTENT)
        other.close()
        with pytest.raises(KeyError, match="cleaned up"):
            run_until(base, lambda: not references)
    assert not references


# Sockets.


@FLAGS
def test_a_socket_s_output_sends_files_between_other_bytes(
    base: EventBase, path: Path, tcp: Pair, flags: FileSegmentFlag
) -> None:
    with path.open("rb") as file, FileSegment(file, flags=flags) as segment:
        bev = BufferEvent(base, tcp[0])
        bev.write(b"before ")
        bev.output.add_file_segment(segment, 1000, 2000)
        bev.write(b" between ")
        bev.output.add_file_segment(segment)
        bev.output.add_file(file, 5, 5)
        bev.write(b" after")
    expected = b"before " + CONTENT[1000:3000] + b" between " + CONTENT + CONTENT[5:10] + b" after"
    assert len(bev.output) == len(expected)
    reader = threading.Thread(target=lambda: got.extend(received(tcp[1], len(expected))))
    got = bytearray()
    reader.start()
    run_until(base, lambda: not bev.output)
    reader.join(PATIENCE)
    assert got == expected
    assert opened_by(path) == 0
    bev.close()


def test_one_segment_goes_to_many_sockets_by_one_descriptor(base: EventBase, path: Path) -> None:
    pairs = [socket.socketpair() for _ in range(20)]
    bevs = [BufferEvent(base, left) for left, _ in pairs]
    with path.open("rb") as file:
        segment = FileSegment(file)
    for bev in bevs:
        bev.output.add_file_segment(segment)
    segment.close()
    assert opened_by(path) == 1
    for _, right in pairs:
        right.settimeout(PATIENCE)
    got: list[bytearray] = []

    def read() -> None:
        got.extend(received(right, len(CONTENT)) for _, right in pairs)

    reader = threading.Thread(target=read)
    reader.start()
    run_until(base, lambda: not any(bev.output for bev in bevs))
    reader.join(PATIENCE)
    assert got == [CONTENT] * 20
    assert opened_by(path) == 0
    for bev, (_, right) in zip(bevs, pairs, strict=True):
        bev.close()
        right.close()


@pytest.mark.slow
def test_a_socket_sends_a_file_larger_than_what_it_may_ever_have_in_memory(
    base: EventBase, tmp_path: Path, tcp: Pair
) -> None:
    size = 200 << 20
    with (tmp_path / "large").open("w+b") as file:
        file.truncate(size)
        bev = BufferEvent(base, tcp[0])
        bev.output.add_file(file)
    got = 0

    def read() -> None:
        nonlocal got
        while got < size and (part := tcp[1].recv(1 << 20)):
            got += len(part)

    reader = threading.Thread(target=read)
    reader.start()
    before = memory()
    bev.on_write = lambda _bev: base.loopexit() if not bev.output else None
    base.dispatch()
    reader.join(PATIENCE)
    assert got == size
    assert memory() - before < size // 4
    bev.close()


def memory() -> int:
    """Return how many bytes of this process are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_nobody_looks_into_an_output_that_files_were_added_to(
    base: EventBase, path: Path, pair: Pair
) -> None:
    """There is no memory behind their bytes (D9)."""
    bev = BufferEvent(base, pair[0].detach())
    output = bev.output
    with path.open("rb") as file:
        output.add_file(file, 0, 100)
    bev.write(b"more")
    held = bev.output
    del output
    looks: list[Callable[[Buffer], object]] = [
        bytes,
        list,
        lambda output: output == b"x" * 104,
        lambda output: b"x" in output,
        lambda output: output.copyout(10),
        lambda output: output.peek(),
        lambda output: output.pullup(5),
        lambda output: output.readln(),
        lambda output: output.search(b"x", start=3),
        lambda output: output.search_eol(),
        lambda output: Buffer().add_buffer_reference(output),
        lambda output: Buffer(b"x" * 104) == output,
    ]
    for look in looks:
        with pytest.raises(RuntimeError, match="can't be looked into"):
            look(held)
    for take in (
        lambda: held.remove(1),
        lambda: held.drain(1),
        lambda: Buffer().add_buffer(held),
        lambda: held.remove_buffer(Buffer(), 1),
        lambda: held.write(pair[1]),
        lambda: held.prepend(b"x"),
    ):
        with pytest.raises(LibeventError, match="frozen at its front"):
            take()
    assert len(held) == 104
    run_until(base, lambda: not held)
    assert received(pair[1], 104) == CONTENT[:100] + b"more"
    assert bytes(held) == b""
    assert held.search(b"x") == -1
    bev.close()


def test_other_outputs_have_the_file_in_memory(base: EventBase, path: Path) -> None:
    one, other = BufferEvent.pair(base)
    with path.open("rb") as file:
        one.output.add_file(file, 0, 100)
        with FileSegment(file, 100, 100) as segment:
            one.output.add_file_segment(segment)
    assert one.output.search(CONTENT[50:150]) == 50
    other.enable(EventFlag.READ)
    run_until(base, lambda: len(other.input) == 200)
    assert bytes(other.input) == CONTENT[:200]
    with path.open("rb") as file, pytest.raises(LibeventError, match="frozen at its end"):
        other.input.add_file(file)


def test_what_stands_on_a_socket_never_reads_its_output(
    base: EventBase, path: Path, tcp: Pair
) -> None:
    """A filter adds to it, behind the file."""
    below = BufferEvent(base, tcp[0])
    with path.open("rb") as file:
        below.output.add_file(file, 0, 5000)
        filtered = BufferEvent.filter(below, None, None)
        filtered.write(b"filtered")
        filtered.output.add_file(file, 0, 10)
        below.output.add_file(file, 0, 10)
    expected = 5008 + 20
    got = bytearray()
    reader = threading.Thread(target=lambda: got.extend(received(tcp[1], expected)))
    reader.start()
    run_until(base, lambda: not filtered.output and not below.output)
    reader.join(PATIENCE)
    assert got[:5008] == CONTENT[:5000] + b"filtered"
    assert got[5008:] == CONTENT[:10] * 2
    filtered.close()


def test_a_file_that_becomes_shorter_while_it_is_sent_ends_the_writing(
    base: EventBase, path: Path, tcp: Pair
) -> None:
    events: list[BufferEventFlag] = []
    bev = BufferEvent(base, tcp[0], on_event=lambda _bev, what: events.append(what))
    with path.open("r+b") as file:
        bev.output.add_file(file)
        file.truncate(100)
        run_until(base, lambda: events)
    assert events == [BufferEventFlag.WRITING | BufferEventFlag.EOF]
    assert EventFlag.WRITE not in bev.enabled
    assert len(bev.output) == len(CONTENT) - 100
    bev.close()
    run_until(base, lambda: opened_by(path) == 0)
    assert received(tcp[1], len(CONTENT)) == CONTENT[:100]


def test_a_file_waits_for_a_reader_that_is_slow(base: EventBase, tmp_path: Path, tcp: Pair) -> None:
    events: list[Any] = []
    size = 20 << 20
    bev = BufferEvent(base, tcp[0], on_event=lambda *what: events.append(what))
    with (tmp_path / "large").open("w+b") as file:
        file.truncate(size)
        bev.output.add_file(file)
    for _ in range(20):
        base.loop(LoopFlag.NONBLOCK)
    assert 0 < len(bev.output) < size
    got = 0
    while got < size:
        base.loop(LoopFlag.NONBLOCK)
        got += len(tcp[1].recv(1 << 20))
    assert not events
    bev.close()


def test_a_peer_that_goes_away_lets_the_file_go(base: EventBase, path: Path, tcp: Pair) -> None:
    events: list[BufferEventFlag] = []
    bev = BufferEvent(base, tcp[0], on_event=lambda _bev, what: events.append(what))
    tcp[1].close()
    with path.open("rb") as file, FileSegment(file) as segment:
        for _ in range(1000):
            bev.output.add_file_segment(segment)
    run_until(base, lambda: events)
    assert events == [BufferEventFlag.WRITING | BufferEventFlag.ERROR]
    assert isinstance(bev.error, (BrokenPipeError, ConnectionResetError))
    bev.close()
    run_until(base, lambda: opened_by(path) == 0)


def test_closing_a_base_lets_the_file_go(path: Path) -> None:
    called: list[str] = []
    base = EventBase()
    left, right = socket.socketpair()
    with right, path.open("rb") as file:
        bev = BufferEvent(base, left)
        bev.output.add_file_segment(FileSegment(file, on_cleanup=lambda: called.append("gone")))
        base.close()
    assert opened_by(path) == 0
    assert called == ["gone"]


def test_a_segment_may_be_shared_by_threads(path: Path) -> None:
    failures: list[BaseException] = []
    with path.open("rb") as file, FileSegment(file) as segment:

        def work() -> None:
            try:
                for _ in range(300):
                    buffer = Buffer()
                    for _ in range(5):
                        buffer.add_file_segment(segment, 10, 20)
                    views = buffer.peek()
                    buffer.close()
                    assert b"".join(views) == 5 * CONTENT[10:30]
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert not failures
    assert opened_by(path) == 0


def test_misuse_touches_no_memory_that_is_not_there(path: Path) -> None:
    code = """
        import os, socket, sys
        from libevent_py import *

        path = sys.argv[1]
        content = open(path, "rb", closefd=True).read() if False else os.read(
            os.open(path, os.O_RDONLY), 10**6)

        # A segment that is closed while buffers, sockets and views have it.
        for flags in FileSegmentFlag(0), FileSegmentFlag.DISABLE_MMAP, FileSegmentFlag(6):
            base = EventBase()
            left, right = socket.socketpair()
            bev = BufferEvent(base, left)
            segment = FileSegment(os.open(path, os.O_RDONLY), flags=flags)
            buffer = Buffer(b"x")
            buffer.add_file_segment(segment, 10, 10000)
            views = buffer.peek()
            bev.output.add_file_segment(segment)
            bev.output.add_buffer(buffer)
            segment.close()
            base.loop(LoopFlag.NONBLOCK)
            bev.close()
            assert b"".join(views) == b"x" + content[10:10010]
            base.close()
            right.close()
            del segment, buffer
            assert b"".join(views) == b"x" + content[10:10010]

        # One that ends inside a callback of the buffer it is added to.
        def close(buffer, info):
            segment.close()
            buffer.close()

        segment = FileSegment(os.open(path, os.O_RDONLY), on_cleanup=lambda: None)
        buffer = Buffer()
        buffer.add_cb(close)
        buffer.add_file_segment(segment)

        # One that is frozen out again and again: nobody has taken its last reference (E5).
        segment = FileSegment(os.open(path, os.O_RDONLY))
        buffer = Buffer()
        buffer.freeze(False)
        for _ in range(5):
            try:
                buffer.add_file_segment(segment)
            except LibeventError:
                pass
        segment.close()

        # A child of the process has its own.
        buffer = Buffer()
        segment = FileSegment(os.open(path, os.O_RDONLY))
        buffer.add_file_segment(segment)
        child = os.fork()
        segment.close()
        assert buffer.remove() == content
        if not child:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """
    run_python(code, str(path), valgrind=True)
