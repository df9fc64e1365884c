"""Group ``evbuffer`` through the raw layer: shared bytes, callbacks, frozen ends, and files.

`Buffer` has code of its own for these functions of libevent, so that the tests of the same names
in test_evbuffer_references.py and test_evbuffer_files.py don't call them.
"""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest

from libevent_py import EventBase, ffi, lib
from tests.kit.flags import PERSIST, READ, WRITE
from tests.kit.peers import Pair
from tests.kit.raw import (
    ALL,
    FromC,
    add,
    add_reference,
    copied,
    evbuffer,
    length,
    prepend,
    pulled,
    readln,
    remove,
    shown,
)

FIRST = b"Whoever has come upon a way out of this forest"
SECOND = b"should leave a trail of bread that shines"
WHOLE = FIRST + b", " + SECOND


# Shared and referred to.


def test_add_reference(from_c: FromC) -> None:
    """Memory is told of once, with its size, when its last byte is gone, wherever that was."""
    told: list[tuple[Any, int, int]] = []

    @from_c("evbuffer_ref_cleanup_cb")
    def let_go(data: Any, size: int, arg: Any) -> None:
        told.append((data, size, int(ffi.cast("intptr_t", arg))))

    memory = [ffi.new("char[]", text) for text in (FIRST, SECOND, b"once more")]

    def refer(buffer: Any, number: int, size: int) -> None:
        arg = ffi.cast("void *", 111 * number)
        assert lib.evbuffer_add_reference(buffer, memory[number], size, let_go, arg) == 0

    buffer = evbuffer()
    refer(buffer, 0, len(FIRST))
    add(buffer, b", ")
    refer(buffer, 1, len(SECOND))
    assert length(buffer) == len(WHOLE)
    assert remove(buffer, 6) == FIRST[:6]
    assert remove(buffer, 5) == FIRST[6:11]
    prepend(buffer, b"I have ")
    assert ffi.string(memory[0]) == FIRST
    assert lib.evbuffer_drain(buffer, 7) == 0
    assert lib.evbuffer_drain(buffer, len(FIRST) - 11 - 1) == 0
    assert told == []
    assert remove(buffer, 1) == FIRST[-1:]
    assert told == [(memory[0], len(FIRST), 0)]

    assert lib.evbuffer_drain(buffer, 2 + 7) == 0
    other = evbuffer()
    add(other, b"I ")
    assert lib.evbuffer_add_buffer(other, buffer) == 0
    assert len(told) == 1
    assert remove(other, 16) == b"I " + SECOND[7:21]
    assert lib.evbuffer_drain(other, length(other)) == 0
    assert told[1:] == [(memory[1], len(SECOND), 111)]

    add(buffer, b"Shake it once, and ")
    refer(buffer, 2, 9)
    add(buffer, b": nothing comes.")
    assert len(told) == 2
    ffi.release(buffer)
    assert told[2:] == [(memory[2], 9, 222)]


def test_multicast() -> None:
    """Two buffers have the same bytes; a buffer that refers to another can't be referred to."""
    source, other = evbuffer(), evbuffer()
    for piece in FIRST, b", ", SECOND:
        add(source, piece)
    assert lib.evbuffer_add_buffer_reference(source, source) == -1
    assert lib.evbuffer_add_buffer_reference(other, source) == 0
    assert lib.evbuffer_add_buffer_reference(other, other) == -1
    assert lib.evbuffer_add_buffer_reference(source, other) == -1
    assert copied(source) == copied(other) == WHOLE

    for buffer in source, other:
        assert remove(buffer, 6) == WHOLE[:6]
        assert remove(buffer, 5) == WHOLE[6:11]
        prepend(buffer, b"I have ")
        assert copied(buffer) == b"I have " + WHOLE[11:]
    ffi.release(source)
    assert remove(other, 6) == b"I have"
    assert remove(other, 6) == b" " + WHOLE[11:16]
    assert copied(other) == WHOLE[16:]


def test_multicast_is_not_written_to() -> None:
    """What is added to the one that is referred to isn't in the other, nor the other way round."""
    source, other = evbuffer(FIRST), evbuffer()
    assert lib.evbuffer_add_buffer_reference(other, source) == 0
    add(source, b" one")
    add(other, b" two")
    assert copied(source) == FIRST + b" one"
    assert copied(other) == FIRST + b" two"
    assert pulled(other) == FIRST + b" two"
    assert copied(source) == FIRST + b" one"


def test_multicast_drain() -> None:
    """What two buffers share can be drained from one and then from the other."""
    source, other = evbuffer(), evbuffer()
    for piece in FIRST, b", ", SECOND:
        add(source, piece)
    assert lib.evbuffer_add_buffer_reference(other, source) == 0
    assert length(other) == len(WHOLE)
    assert lib.evbuffer_drain(source, length(source)) == 0
    assert (copied(source), copied(other)) == (b"", WHOLE)
    assert lib.evbuffer_drain(other, length(other)) == 0
    assert (copied(source), copied(other)) == (b"", b"")


# Callbacks.


def test_callbacks(from_c: FromC) -> None:
    """Callbacks are enabled, removed by what they are, or all replaced by one of libevent 1.x."""
    logs: dict[Any, list[str]] = {}

    @from_c("evbuffer_cb_func")
    def log_change(_buffer: Any, info: Any, arg: Any) -> None:
        size = info.orig_size
        logs[arg].append(f"{size}->{size + info.n_added - info.n_deleted}")

    args = [ffi.cast("void *", number) for number in (1, 2)]
    logs.update({arg: [] for arg in args})
    buffer = evbuffer()
    one, two = (lib.evbuffer_add_cb(buffer, log_change, arg) for arg in args)
    two_words = ffi.cast("int", 2)
    assert lib.evbuffer_add_printf(buffer, b"There are %d magic words within", two_words) == 30
    assert lib.evbuffer_cb_clear_flags(buffer, two, lib.EVBUFFER_CB_ENABLED) == 0
    assert lib.evbuffer_drain(buffer, 10) == 0
    prepend(buffer, b"Hello")
    assert lib.evbuffer_cb_set_flags(buffer, two, lib.EVBUFFER_CB_ENABLED) == 0
    goodbye = ffi.new("char[]", b"Goodbye")
    add_reference(buffer, goodbye, 7)
    assert lib.evbuffer_remove_cb_entry(buffer, one) == 0
    assert lib.evbuffer_drain(buffer, length(buffer)) == 0
    assert lib.evbuffer_remove_cb(buffer, log_change, ffi.NULL) == -1
    add(buffer, b"X")
    assert lib.evbuffer_remove_cb(buffer, log_change, args[1]) == 0
    assert lib.evbuffer_remove_cb(buffer, log_change, args[1]) == -1
    add(buffer, b"Y")
    assert logs[args[0]] == ["0->30", "30->20", "20->25", "25->32"]
    assert logs[args[1]] == ["0->30", "25->32", "32->0", "0->1"]
    assert lib.evbuffer_drain(buffer, length(buffer)) == 0

    drained: list[tuple[int, int]] = []

    @from_c("evbuffer_cb")
    def drain(changed: Any, before: int, now: int, _arg: Any) -> None:
        drained.append((before, now))
        if now > before:
            assert lib.evbuffer_drain(changed, now) == 0

    for log in logs.values():
        log.clear()
    for arg in args:
        assert lib.evbuffer_add_cb(buffer, log_change, arg)
    assert lib.evbuffer_setcb(buffer, drain, ffi.NULL) == 0
    add(buffer, b"This is gone as soon as it has come")
    assert length(buffer) == 0
    assert (0, 35) in drained
    assert [*logs.values()] == [[], []]
    assert lib.evbuffer_setcb(buffer, ffi.NULL, ffi.NULL) == 0
    add(buffer, b"This is not.")
    assert pulled(buffer) == b"This is not."


# Frozen ends.

TEXT = b"""The wind that shook the leaves along the shore
laid them upon the water where it froze
and there they lie in ranks, as in a dance,
until the thaw lets go of them again..."""


def check_freeze(pair: Pair, path: Path, *, start: bool) -> None:
    """Freeze the start or the end of a buffer, and try whatever changes either."""
    left, right = (end.fileno() for end in pair)
    buffer, two, other = evbuffer(TEXT), evbuffer(b"abc"), evbuffer(b"xyz")
    text = ffi.new("char[]", TEXT)
    for frozen in buffer, two:
        assert lib.evbuffer_freeze(frozen, start) == 0

    def at_end(result: int) -> int:
        """Return what a function that changes the end returns, if it isn't frozen *result*."""
        return result if start else -1

    def at_start(result: int) -> int:
        """Return what a function that changes the start returns, if it isn't frozen *result*."""
        return -1 if start else result

    assert lib.evbuffer_add(buffer, b"abc", 0) == at_end(0)
    vector = ffi.new("struct evbuffer_iovec[1]")
    assert lib.evbuffer_reserve_space(buffer, 10, vector, 1) == at_end(1)
    if start:
        ffi.memmove(vector[0].iov_base, b"X" * 10, 10)
        vector[0].iov_len = 10
    assert lib.evbuffer_commit_space(buffer, vector, 1) == at_end(0)
    assert lib.evbuffer_add_reference(buffer, text, 5, ffi.NULL, ffi.NULL) == at_end(0)
    world = ffi.new("char[]", b"world")
    assert lib.evbuffer_add_printf(buffer, b"Hello %s", world) == at_end(11)
    assert lib.evbuffer_add_buffer(buffer, other) == at_end(0)
    path.write_bytes(b"the content of a file")
    with path.open("rb") as file:
        fd = os.dup(file.fileno())
    assert lib.evbuffer_add_file(buffer, fd, 0, 21) == at_end(0)
    added = TEXT + b"X" * 10 + TEXT[:5] + b"Hello worldxyz" + b"the content of a file"
    if start:
        add(other, b"xyz")
    else:
        with pytest.raises(OSError):
            os.fstat(fd)  # closed all the same
    assert lib.evbuffer_write(other, left) == 3
    assert lib.evbuffer_read(buffer, right, ALL) == at_end(3)
    assert shown(buffer) == (added + b"xyz" if start else TEXT)
    if not start:
        assert pair[1].recv(10) == b"xyz"

    size = length(buffer)
    memory = ffi.new("char[128]")
    assert lib.evbuffer_remove(buffer, memory, 1) == at_start(1)
    assert lib.evbuffer_drain(buffer, 3) == at_start(0)
    assert lib.evbuffer_prepend(buffer, b"dummy", 5) == at_start(0)
    line = readln(buffer, lib.EVBUFFER_EOL_LF)
    assert line == (None if start else b"dummy" + TEXT.split(b"\n")[0][4:])
    add(other, b"xyz")
    assert lib.evbuffer_remove_buffer(buffer, other, 3) == at_start(3)
    assert lib.evbuffer_drain(buffer, 3) == at_start(0)
    assert lib.evbuffer_prepend_buffer(buffer, other) == at_start(0)
    if start:
        assert length(buffer) == size

    content = shown(buffer)
    assert lib.evbuffer_write(buffer, left) == at_start(len(content))
    assert lib.evbuffer_write_atmost(two, left, ALL) == at_start(3)
    if start:
        assert (shown(buffer), shown(two)) == (content, b"abc")
    else:
        assert pair[1].recv(1000) == content + b"abc"
        assert length(buffer) == length(two) == 0
    for frozen in buffer, two:
        assert lib.evbuffer_unfreeze(frozen, start) == 0
        add(frozen, b"end")
        prepend(frozen, b"start")
        assert copied(frozen)[-3:] == b"end"
        assert copied(frozen)[:5] == b"start"


def test_freeze_start(pair: Pair, tmp_path: Path) -> None:
    """A buffer that is frozen at its front gives nothing away there, and takes at its end."""
    check_freeze(pair, tmp_path / "file", start=True)


def test_freeze_end(pair: Pair, tmp_path: Path) -> None:
    """A buffer that is frozen at its end takes nothing there, and gives away at its front."""
    check_freeze(pair, tmp_path / "file", start=False)


# Files, which a buffer sends as they are that is said to drain to a descriptor.

SMALL = b"a file of rather few bytes, in all"  # 34, as there
BIG = random.Random(123456789).randbytes(512 * 1024)

FLAGS = {
    "sendfile": lib.EVBUF_FS_DISABLE_MMAP,
    "mmap": lib.EVBUF_FS_DISABLE_SENDFILE,
    "linear": lib.EVBUF_FS_DISABLE_SENDFILE | lib.EVBUF_FS_DISABLE_MMAP,
}

#: The offset and length of the segment in the file, and what of the segment is added.
PARTS = {
    "add_file": (SMALL, 0, ALL, 0, ALL),
    "add_big_file": (BIG, 0, ALL, 0, ALL),
    "add_file_offset": (BIG, len(BIG) // 4 + 1, len(BIG) // 2 - 1, 0, ALL),
    "add_file_offset2": (BIG, 0, ALL, len(BIG) // 3, len(BIG) // 2),
    "add_file_offset3": (
        BIG,
        len(BIG) // 4 + 1,
        len(BIG) // 2 - 1,
        (len(BIG) // 2 - 1) // 3,
        (len(BIG) // 2 - 1) // 2,
    ),
}
ROWS = [(part, way) for part in PARTS for way in FLAGS]
ROWS += [(part, "nosegment") for part in ("add_file", "add_big_file", "add_file_offset")]


@pytest.mark.parametrize(("part", "way"), [pytest.param(*row, id="_".join(row)) for row in ROWS])
def test_add_file(
    part: str, way: str, base: EventBase, pair: Pair, tmp_path: Path, from_c: FromC
) -> None:
    """A file, or a part of one, arrives whole, each way.

    Which way it went is seen by changing the file before it is sent: what was read into memory
    stays as it was.
    """
    left, right = (end.fileno() for end in pair)
    content, offset, size, inner, inner_size = PARTS[part]
    path = tmp_path / "file"
    path.write_bytes(content)
    source, target = evbuffer(), evbuffer()
    assert lib.evbuffer_set_flags(source, lib.EVBUFFER_FLAG_DRAINS_TO_FD) == 0
    with path.open("rb") as file:
        fd = os.dup(file.fileno())
    segment = None
    if way == "nosegment":
        assert lib.evbuffer_add_file(source, fd, offset, size) == 0
    else:
        segment = lib.evbuffer_file_segment_new(fd, offset, size, FLAGS[way])
        assert segment
        assert lib.evbuffer_add_file_segment(source, segment, inner, inner_size) == 0
    assert (str(path) in Path("/proc/self/maps").read_text()) is (way == "mmap")

    def chosen(content: bytes) -> bytes:
        inside = content[offset:] if size == ALL else content[offset : offset + size]
        return inside if inner_size == ALL else inside[inner : inner + inner_size]

    expected = chosen(content)
    if way != "mmap":  # the kernel shows what is mapped as it is now; sendfile does so, too
        path.write_bytes(content[::-1])
        if way in ("sendfile", "nosegment"):
            expected = chosen(content[::-1])
    assert length(source) == len(expected)
    written, received = 0, 0

    @from_c("event_callback_fn")
    def write(fd: int, _what: int, event: Any) -> None:
        nonlocal written
        while length(source):
            count = lib.evbuffer_write(source, fd)
            if count <= 0:
                assert ffi.errno == errno.EAGAIN
                return
            written += count
        lib.event_del(ffi.cast("struct event *", event))

    @from_c("event_callback_fn")
    def read(fd: int, _what: int, event: Any) -> None:
        nonlocal received
        while (count := lib.evbuffer_read(target, fd, 1024)) > 0:
            received += count
        assert count < 0 and ffi.errno == errno.EAGAIN
        if received >= len(expected):
            lib.event_del(ffi.cast("struct event *", event))

    events = [
        lib.event_new(base.pointer, fd, what | PERSIST, callback, lib.event_self_cbarg())
        for fd, what, callback in ((left, WRITE, write), (right, READ, read))
    ]
    for event in events:
        assert lib.event_add(event, ffi.NULL) == 0
    assert base.dispatch() is False
    assert (written, received) == (len(expected), len(expected))
    assert length(source) == 0
    assert pulled(target, len(expected)) == expected
    for event in events:
        lib.event_free(event)
    if segment is None:
        with pytest.raises(OSError):
            os.fstat(fd)  # closed with the last of its bytes
    else:
        lib.evbuffer_file_segment_free(segment)
        os.close(fd)
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_file_segment_add_cleanup_cb(tmp_path: Path, from_c: FromC) -> None:
    """A segment's cleanup is called once, with its flags, when the last that needs it is gone."""
    path = tmp_path / "file"
    path.write_bytes(b"the content of a file")
    told: list[tuple[Any, int, Any]] = []

    @from_c("evbuffer_file_segment_cleanup_cb")
    def clean_up(*arguments: Any) -> None:
        told.append(arguments)

    token = ffi.new("char[]", b"token")
    with path.open("rb") as file:
        segment = lib.evbuffer_file_segment_new(file.fileno(), 0, ALL, 0)
        lib.evbuffer_file_segment_add_cleanup_cb(segment, clean_up, token)
        buffer = evbuffer()
        assert lib.evbuffer_add_file_segment(buffer, segment, 0, ALL) == 0
        assert copied(buffer) == b"the content of a file"
        lib.evbuffer_file_segment_free(segment)
        assert told == []
        ffi.release(buffer)
    assert told == [(segment, 0, token)]


def test_write_and_read(pair: Pair) -> None:
    """As much is written and read as is asked for; what can't be is left, and errno says why."""
    left, right = (end.fileno() for end in pair)
    buffer, other = evbuffer(b"hello ", b"world"), evbuffer()
    assert lib.evbuffer_write_atmost(buffer, left, 3) == 3
    assert copied(buffer) == b"lo world"
    assert lib.evbuffer_read(other, right, 2) == 2
    assert lib.evbuffer_read(other, right, ALL) == 1
    assert lib.evbuffer_read(other, right, ALL) == -1
    assert ffi.errno == errno.EAGAIN
    assert lib.evbuffer_write(buffer, left) == 8
    assert length(buffer) == 0
    assert lib.evbuffer_read(other, right, 100) == 8
    assert copied(other) == b"hello world"
    pair[0].close()
    assert lib.evbuffer_read(other, right, ALL) == 0
    assert lib.evbuffer_write(other, right) == -1
    assert ffi.errno == errno.EPIPE
    assert copied(other) == b"hello world"
    assert lib.evbuffer_write(other, -1) == -1
    assert lib.evbuffer_read(other, -1, ALL) == -1
    assert ffi.errno == errno.EBADF
