"""``struct evbuffer``: a queue of bytes.

In Python a position is a number. C's pointers into a buffer are valid only while its lock is held
(D5), so they stay in C.

Most calls can't run any Python, and go straight to C. If the buffer or its owner has callbacks,
`Buffer._plain` is false, and calls go through `Buffer._call`, which raises what the callbacks have
raised.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.child import Child
from libevent_py._core.convert import FileDescriptor, Octets
from libevent_py._core.dispatch import next_key
from libevent_py._core.fork import lost_buffers
from libevent_py._core.handle import Handle, empty, fill, slot, subclass_of
from libevent_py._core.locks import Held
from libevent_py._core.owner import get_ident
from libevent_py._core.pointers import owned, shared, unshare
from libevent_py._core.references import references, release
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.callbacks import (
    BufferCallback,
    BufferChangeCallback,
    BufferInfo,
    running,
    watched,
)
from libevent_py.buffer.deferral import Deferral, Deferring
from libevent_py.buffer.failure import END, FRONT, failure
from libevent_py.buffer.memory import Space, refer, views
from libevent_py.buffer.segment import FileSegment
from libevent_py.enums import EolStyle, FileSegmentFlag
from libevent_py.event.base import EventBase

if TYPE_CHECKING:
    from libevent_py._ffi import Arguments, CData, Memory, Unpack
    from libevent_py.bufferevent.bufferevent import BufferEvent
    from libevent_py.http.request import Request

Self = TypeVar("Self", bound="Buffer")

#: The most that one call takes: evbuffer_remove counts in an int (D13).
INT_MAX = 2**31 - 1

#: The largest size or position.
LARGEST = sys.maxsize

#: C's largest size_t, which means "no position".
SIZE_MAX = lib.EV_SIZE_MAX

#: How many bytes a `spare` piece of memory has.
ROOM = 65536

#: Memory to copy through, each piece with its ``ffi.buffer``. A method that copies takes a piece
#: off the list meanwhile, as another thread, a signal handler or a callback may copy too. The list
#: is made here because CPython calls the methods of an imported name more slowly.
spares: list[tuple[CData, Memory]] = []

# Looked up once: an attribute of lib costs as much as a short call.
evbuffer_add: Final = lib.evbuffer_add
evbuffer_drain: Final = lib.evbuffer_drain
evbuffer_free: Final = lib.evbuffer_free
evbuffer_get_length: Final = lib.evbuffer_get_length
evbuffer_remove: Final = lib.evbuffer_remove
evpy_buffer_copyout: Final = lib.evpy_buffer_copyout
evpy_buffer_new: Final = lib.evpy_buffer_new
evpy_buffer_readln: Final = lib.evpy_buffer_readln
evpy_buffer_search: Final = lib.evpy_buffer_search

BEYOND = lib.EVPY_BEYOND
FROZEN = lib.EVPY_FROZEN
CRLF = EolStyle.CRLF


def spare() -> tuple[CData, Memory]:
    """Return `ROOM` bytes of memory, for C and for Python; the caller puts them into `spares`."""
    try:
        return spares.pop()
    except IndexError:
        memory = ffi.new("char[]", ROOM)
        return memory, ffi.buffer(memory)


class Buffer(Handle):
    """A queue of bytes that grows at one end and shrinks at the other; usable in ``with``.

    Where a method takes bytes, it takes any object with the buffer protocol. Each buffer has a
    lock, so several threads may use it. A buffer that belongs to a bufferevent is closed with it,
    keeps it alive, and may be used only in the thread that runs its loop.
    """

    __slots__ = ("_callbacks", "_entry", "_key", "_owner", "_plain", "_space")

    #: The object that the buffer belongs to and is freed with, or None.
    _owner: Child | Request | None

    #: Whether no call to C can run any Python.
    _plain: bool

    #: The ``struct evbuffer_cb_entry *`` that runs the callbacks, or None before the first.
    _entry: CData | None

    #: The key by which C calls the buffer's callbacks; 0 until it has any.
    _key: int

    #: The callbacks, in the order of the calls. Replaced, never changed: C may be running them.
    _callbacks: tuple[BufferCallback, ...]

    #: The memory that is reserved, until it is committed.
    _space: Space | None

    def __init__(self, data: Octets = b"") -> None:
        """Make a buffer that contains a copy of *data*.

        Each buffer has a lock of its own. Wraps ``evbuffer_new``, ``evbuffer_enable_locking``.
        """
        self._check_unmade()
        self._owner = self._entry = None
        self._key, self._callbacks = 0, ()
        self._plain = True
        self._space = None
        self.pointer: CData = owned(evbuffer_free, evpy_buffer_new)
        if not self.pointer:
            del self.pointer
            raise failure(lib.evbuffer_new)
        if type(data) is not bytes or data:  # C would allocate memory even for no bytes
            self.add(data)

    @classmethod
    def _borrowed(cls, pointer: CData, owner: BufferEvent | Request) -> Buffer:
        """Return a handle for the buffer at *pointer*, which *owner* frees."""
        buffer = cls.__new__(cls)
        buffer._owner = owner
        buffer._plain = not owner._calls_back
        buffer._callbacks, buffer._entry, buffer._key = (), None, 0
        buffer._space = None
        buffer.pointer = pointer
        return buffer

    def close(self) -> None:
        """Free the buffer; a second time does nothing.

        Calls under way, here or in another thread, finish first, but no callback starts any more.
        Raises `ValueError` for a buffer that belongs to a bufferevent, which frees it.
        Wraps ``evbuffer_free``.
        """
        self._take()  # C frees it when the last call into it has returned (D2)
        if references:
            release()

    # Python's own operations.

    def __len__(self) -> int:
        """Return the number of bytes. Wraps ``evbuffer_get_length``."""
        # hot: written out, with no call that C doesn't need.
        return evbuffer_get_length(self.pointer)

    def __bool__(self) -> bool:
        return len(self) > 0

    def __bytes__(self) -> bytes:
        """Return a copy of the whole content, even if the front is frozen."""
        return b"".join(self)

    def __iter__(self) -> Iterator[bytes]:
        """Yield copies of the pieces in which libevent holds the content, front first."""
        start = 0
        while chunk := self._chunk(start):
            start += len(chunk)
            yield chunk

    def __contains__(self, what: Octets | int) -> bool:
        """Tell whether *what*, bytes or the number of one byte, is in the buffer."""
        return self.search(bytes((what,)) if isinstance(what, int) else what) >= 0

    def __eq__(self, other: object) -> bool:
        """Compare the content with that of another buffer or of any bytes-like object."""
        if not isinstance(other, Buffer):
            try:
                with memoryview(other) as view:  # type: ignore[arg-type]
                    return len(self) == view.nbytes and bytes(self) == view.tobytes()
            except TypeError:
                return NotImplemented
        return self is other or (len(self) == len(other) and bytes(self) == bytes(other))

    def __iadd__(self: Self, data: Octets | Buffer) -> Self:
        """Append *data* as `add` does, or move in another buffer as `add_buffer` does."""
        if isinstance(data, Buffer):
            self.add_buffer(data)
        else:
            self.add(data)
        return self

    # Bytes in.

    def add(self, data: Octets) -> None:
        """Append a copy of *data*, which is bytes or any object with the buffer protocol.

        Wraps ``evbuffer_add``.
        """
        # hot: written out, with no call that C doesn't need.
        octets, size = (data, len(data)) if type(data) is bytes else convert.octets(data)
        if (
            evbuffer_add(self.pointer, octets, size)
            if self._plain
            else self._call(evbuffer_add, self.pointer, octets, size)
        ):
            raise failure(evbuffer_add, (self, END))

    def prepend(self, data: Octets) -> None:
        """Put a copy of *data* in front. Wraps ``evbuffer_prepend``."""
        octets, size = convert.octets(data)
        if self._call(lib.evbuffer_prepend, self.pointer, octets, size):
            raise failure(lib.evbuffer_prepend, (self, FRONT))

    def add_iovec(self, pieces: Iterable[Octets]) -> None:
        """Append copies of all *pieces*, after making room for all of them.

        *pieces* is an iterable of what `add` takes. Wraps ``evbuffer_add_iovec``.
        """
        taken = [convert.octets(piece, "each of pieces") for piece in pieces]
        # Keeps the memory alive until C has copied it.
        kept = [ffi.from_buffer(octets) if type(octets) is bytes else octets for octets, _ in taken]
        vector = ffi.new("struct evbuffer_iovec[]", len(taken))
        for place, view in zip(vector, kept, strict=True):
            place.iov_base, place.iov_len = view, len(view)
        total = sum(size for _, size in taken)
        added = self._call(lib.evbuffer_add_iovec, self.pointer, vector, len(taken))
        if added != total:
            raise failure(lib.evbuffer_add_iovec, (self, END))

    def add_buffer(self, other: Buffer) -> None:
        """Move all bytes of *other* to the end of this buffer, without copying.

        Wraps ``evbuffer_add_buffer``.
        """
        if self._with(checked(other, "other"), lib.evbuffer_add_buffer):
            raise failure(lib.evbuffer_add_buffer, (self, END), (other, FRONT))

    def prepend_buffer(self, other: Buffer) -> None:
        """Move all bytes of *other* to the front of this buffer, without copying.

        Wraps ``evbuffer_prepend_buffer``.
        """
        if self._with(checked(other, "other"), lib.evbuffer_prepend_buffer):
            raise failure(lib.evbuffer_prepend_buffer, (self, FRONT), (other, FRONT))

    def expand(self, size: int) -> None:
        """Make room for *size* more bytes in one piece of memory. Wraps ``evbuffer_expand``."""
        size = convert.integer(size, "size", 0, LARGEST)
        if lib.evbuffer_expand(self.pointer, size):
            raise failure(lib.evbuffer_expand)

    @property
    def contiguous_space(self) -> int:
        """The number of bytes in the first piece. Wraps ``evbuffer_get_contiguous_space``."""
        return int(lib.evbuffer_get_contiguous_space(self.pointer))

    # Bytes out.

    def remove(self, size: int | None = None) -> bytes:
        """Remove and return up to *size* bytes, or all for None. Wraps ``evbuffer_remove``."""
        # hot: written out, with no call that C doesn't need.
        if size is None:
            size = evbuffer_get_length(self.pointer)
        if type(size) is not int or not 0 <= size <= ROOM:
            size = convert.integer(size, "size", 0, LARGEST)
            if (size := min(size, evbuffer_get_length(self.pointer))) > ROOM:
                large = bytearray(size)
                del large[self.remove_into(large) :]
                return bytes(large)
        memory, octets = kept = spares.pop() if spares else spare()
        if self._plain:
            size = evbuffer_remove(self.pointer, memory, size)
        else:
            size = self._call(evbuffer_remove, self.pointer, memory, size)
        if references:
            release()
        if size < 0:
            raise failure(evbuffer_remove, (self, FRONT))
        taken: bytes = octets[:size]
        spares.append(kept)
        return taken

    def remove_into(self, writable: Octets) -> int:
        """Move bytes from the front into *writable*, as many as fit, and return how many.

        *writable* is any object with a writable buffer, such as a bytearray.
        Wraps ``evbuffer_remove``.
        """
        try:
            view = ffi.from_buffer(writable, require_writable=True)
        except TypeError:
            raise TypeError(f"writable must be a writable buffer, not {writable!r}") from None
        except (ValueError, BufferError) as error:
            raise ValueError(f"writable must be writable and contiguous: {error}") from None
        with view:
            done = 0
            while done < len(view):
                most = min(len(view) - done, INT_MAX)
                part = self._call(evbuffer_remove, self.pointer, view + done, most)
                if part < 0:
                    raise failure(evbuffer_remove, (self, FRONT))
                if part == 0:
                    break
                done += part
        if references:
            release()
        return done

    def remove_buffer(self, other: Buffer, size: int) -> int:
        """Move up to *size* bytes from the front to the end of *other*, and return how many.

        Unlike in C, this buffer's callbacks are called before those of *other*, and all of them
        after the bytes have been moved. Wraps ``evbuffer_remove_buffer``.
        """
        size = convert.integer(size, "size", 0, INT_MAX)
        moved = self._with(checked(other, "other"), lib.evpy_buffer_remove_buffer, size)
        if moved < 0:
            raise failure(lib.evbuffer_remove_buffer, (self, FRONT), (other, END))
        return int(moved)

    def copyout(self, size: int | None = None, start: int = 0) -> bytes:
        """Return a copy of up to *size* bytes from *start* on, or for None of all that follow.

        Wraps ``evbuffer_copyout``, ``evbuffer_copyout_from``.
        """
        # hot: written out, with no call that C doesn't need.
        if type(start) is not int or not 0 <= start <= LARGEST:
            start = convert.integer(start, "start", 0, LARGEST)
        if size is None:
            size = LARGEST
        elif type(size) is not int or not 0 <= size <= LARGEST:
            size = convert.integer(size, "size", 0, LARGEST)
        memory, octets = kept = spares.pop() if spares else spare()
        if size > ROOM and (size := min(size, max(len(self) - start, 0))) > ROOM:
            memory = ffi.new("char[]", size)
            octets = ffi.buffer(memory)
        size = evpy_buffer_copyout(self.pointer, start, memory, size)
        if size == BEYOND:
            self._check_positions(start)
        if size < 0:
            raise failure(lib.evbuffer_copyout, (self, FRONT))
        copied: bytes = octets[:size]
        spares.append(kept)
        return copied

    def drain(self, size: int) -> None:
        """Discard up to *size* bytes from the front. Wraps ``evbuffer_drain``."""
        # hot: written out, with no call that C doesn't need.
        if type(size) is not int or not 0 <= size <= LARGEST:
            size = convert.integer(size, "size", 0, LARGEST)
        if (
            evbuffer_drain(self.pointer, size)
            if self._plain
            else self._call(evbuffer_drain, self.pointer, size)
        ):
            raise failure(evbuffer_drain, (self, FRONT))
        if references:
            release()

    def readln(self, eol: int = CRLF) -> bytes | None:
        """Remove the first line, and return it without its ending; None if no line ends yet.

        Unlike in C, the callbacks are called once for the line and its ending. Wraps
        ``evbuffer_search_eol``, ``evbuffer_copyout``, ``evbuffer_drain``. Stands for
        ``evbuffer_readln``.
        """
        # hot: written out, with no call that C doesn't need.
        if eol is not CRLF:
            eol = _style(eol)
        room = ROOM
        memory, octets = kept = spares.pop() if spares else spare()
        while True:
            if self._plain:
                size = evpy_buffer_readln(self.pointer, eol, memory, room)
            else:
                size = self._call(evpy_buffer_readln, self.pointer, eol, memory, room)
            if size <= room:
                break
            room, memory = size, ffi.new("char[]", size)
            octets = ffi.buffer(memory)
        if references:
            release()
        if size == FROZEN:
            raise failure(lib.evbuffer_readln, (self, FRONT))
        line: bytes | None = None if size < 0 else octets[:size]
        spares.append(kept)
        return line

    # Searching.

    def search(self, what: Octets, start: int = 0, end: int | None = None) -> int:
        """Return the position of the first *what* between *start* and *end*, or -1.

        With *end* None it searches to the end of the buffer. Raises `ValueError` for positions
        beyond the end. Wraps ``evbuffer_search_range``, ``evbuffer_ptr_set``. Stands for
        ``evbuffer_search``.
        """
        # hot: written out, with no call that C doesn't need.
        octets, size = (what, len(what)) if type(what) is bytes else convert.octets(what, "what")
        if type(start) is not int or not 0 <= start <= LARGEST:
            start = convert.integer(start, "start", 0, LARGEST)
        last = SIZE_MAX if end is None else convert.integer(end, "end", 0, LARGEST)
        found: int = evpy_buffer_search(self.pointer, octets, size, start, last)
        if found == BEYOND:
            self._check_positions(start, end)
        return found

    def search_eol(self, start: int = 0, eol: int = CRLF) -> tuple[int, int]:
        """Return the position and the length of the first line ending from *start* on.

        If no line ends there, return ``(-1, 0)``. Wraps ``evbuffer_search_eol``.
        """
        start = convert.integer(start, "start", 0, LARGEST)
        length = ffi.new("size_t *")
        found = int(lib.evpy_buffer_search_eol(self.pointer, start, length, _style(eol)))
        if found == BEYOND:
            self._check_positions(start)
        return found, int(length[0])

    # Descriptors.

    def read(self, fd: FileDescriptor, size: int | None = None) -> int:
        """Read up to *size* bytes from *fd* and append them; return how many, 0 at end of file.

        libevent reads at most 4096 bytes at a time, and with None as many as it can up to that.
        Raises `OSError`: `BlockingIOError` if there is nothing to read yet. Wraps
        ``evbuffer_read``.
        """
        number = convert.descriptor(fd)
        # A size of 0 makes libevent fail an assertion, or report the end of file (D13).
        most = -1 if size is None else convert.integer(size, "size", 1, INT_MAX)
        got = self._call(lib.evbuffer_read, self.pointer, number, most)
        if got < 0:
            raise failure(lib.evbuffer_read, (self, END), fd=number)
        return int(got)

    def write(self, fd: FileDescriptor, size: int | None = None) -> int:
        """Write up to *size* bytes from the front to *fd*, or all for None; return how many.

        Unlike in C, writing 0 bytes is no error. Raises `OSError`: `BlockingIOError` if *fd* takes
        nothing yet. Wraps ``evbuffer_write_atmost``. Stands for ``evbuffer_write``.
        """
        number = convert.descriptor(fd)
        most = -1 if size is None else convert.integer(size, "size", 0, LARGEST)
        written = self._call(lib.evpy_buffer_write, self.pointer, number, most)
        if written < 0:
            raise failure(lib.evbuffer_write, (self, FRONT), fd=number)
        if references:
            release()
        return int(written)

    # Views.

    def peek(self, size: int | None = None, start: int = 0) -> list[memoryview]:
        """Return read-only views of up to *size* bytes from *start* on, or for None of all.

        There is one view for each piece of memory. Views keep the memory alive, and what they show
        never changes, whatever happens to the buffer. Those of a bufferevent's buffer show a copy.
        Unlike in C, the buffer only refers to the memory from then on, so that the next bytes go
        elsewhere.
        Wraps ``evbuffer_peek``.
        """
        if size is not None:
            size = convert.integer(size, "size", 0, LARGEST)
        start = convert.integer(start, "start", 0, LARGEST)
        if start > len(self):
            self._check_positions(start)
        if self._unshared():
            stop = None if size is None else start + size
            copy = memoryview(bytes(self))[start:stop]
            return [copy] if copy else []
        most = SIZE_MAX if size is None else size
        return views(lib.evbuffer_peek, lib.evpy_peek, self.pointer, start, most)

    def pullup(self, size: int | None = None) -> memoryview:
        """Move the first *size* bytes, or all for None, into one piece; return a view of it.

        The view is like those of `peek`, and unlike in C the buffer only refers to what it shows.
        Raises `ValueError` if there are fewer bytes.
        Wraps ``evbuffer_pullup``.
        """
        length = len(self)
        size = length if size is None else convert.integer(size, "size", 0, length)
        if self._unshared():
            return memoryview(bytes(self))[:size]
        shown = views(lib.evbuffer_pullup, lib.evpy_pullup, self.pointer, size)
        if references:
            release()
        return shown[0] if shown else memoryview(b"")

    # References to memory and files.

    def add_reference(self, data: Octets) -> None:
        """Append *data*, any object with the buffer protocol, without copying it.

        *data* is kept alive, and can't be resized, until no buffer contains any of it. It is
        released by the loop that has sent the last of it, or at the end of an operation on any
        buffer. If you change *data* meanwhile, the old or the new bytes may be sent. Wraps
        ``evbuffer_add_reference``.
        """
        octets, size = convert.octets(data)
        view = ffi.from_buffer(octets) if type(octets) is bytes else octets
        if references:
            release()
        pointer = self.pointer  # taken last: the code above may close the buffer
        if not size:  # older versions of libevent stumble over an empty reference (D6)
            return
        if self._call(refer, pointer, view, size):
            release()
            raise failure(lib.evbuffer_add_reference, (self, END))

    def add_buffer_reference(self, other: Buffer) -> None:
        """Append what *other* contains now, without copying it or removing it from *other*.

        Both buffers refer to the same memory. Unlike in C, *other* may contain files and
        references, either buffer may be closed or changed in any thread, and a change to one never
        shows in the other. If *other* is a bufferevent's buffer, its content is copied. Raises
        `ValueError` if *other* is this buffer. Wraps ``evbuffer_add_reference``. Stands for
        ``evbuffer_add_buffer_reference``.
        """
        if not isinstance(other, Buffer):
            raise TypeError(f"other must be a Buffer, not {other!r}")
        if other.pointer == self.pointer:
            raise ValueError("other must be another buffer")
        if other._unshared():
            self.add(bytes(other))
        elif self._call(lib.evpy_add_buffer_reference, self.pointer, other.pointer):
            raise failure(lib.evbuffer_add_buffer_reference, (self, END))

    def add_file_segment(
        self, segment: FileSegment, offset: int = 0, length: int | None = None
    ) -> None:
        """Append *length* bytes of *segment* from *offset* on, or for None all that follow.

        The output of a bufferevent with a socket and without TLS sends them straight from the file.
        It then ignores rate limits, and its content can't be looked at any more. If the file has
        become shorter, the bufferevent's ``on_event`` is called with WRITING and EOF. Raises
        `ValueError` for bytes that the segment doesn't have. Wraps ``evbuffer_add_file_segment``.
        """
        if not isinstance(segment, FileSegment):
            raise TypeError(f"segment must be a FileSegment, not {segment!r}")
        offset = convert.integer(offset, "offset", 0, segment.length)
        rest = segment.length - offset
        length = rest if length is None else convert.integer(length, "length", 0, rest)
        pointer = self.pointer
        segment._check_usable()
        if not length:
            return
        sends = self._sends_files()
        part = segment._part_for(sends)
        if sends:
            owner: Any = self._owner
            owner._note_file()
        if self._call(lib.evpy_segment_add, part, pointer, offset, length):
            raise failure(lib.evbuffer_add_file_segment, (self, END))

    def add_file(self, file: FileDescriptor, offset: int = 0, length: int | None = None) -> None:
        """Append *length* bytes of *file* from *offset* on, or for None all that follow.

        *file* is as for `FileSegment`, and is not mapped into memory. Unlike in C, the caller has
        to close it. Wraps ``evbuffer_file_segment_new``, ``evbuffer_add_file_segment``. Stands for
        ``evbuffer_add_file``.
        """
        self._check_usable()  # before the file is read
        flags = FileSegmentFlag.DISABLE_MMAP
        if not self._sends_files():
            flags |= FileSegmentFlag.DISABLE_SENDFILE
        with FileSegment(file, offset, length, flags) as segment:
            self.add_file_segment(segment)

    # Reserved space.

    @contextlib.contextmanager
    def reserve(self, size: int) -> Iterator[memoryview]:
        """Provide *size* bytes of memory to write to, as a memoryview, inside a ``with`` block.

        `commit` appends what has been written there, and ends the view; without it nothing is
        added. Until then any other use of the buffer raises `RuntimeError`, in other threads too.
        Wraps ``evbuffer_reserve_space``.
        """
        # C's own reserved space is lost once the buffer is used in any other way (D7).
        if lib.evpy_buffer_frozen(self.pointer, END):
            raise failure(lib.evbuffer_reserve_space, (self, END))
        space = Space(convert.integer(size, "size", 1, LARGEST))
        while self.__class__ is not space.kind:  # or another thread has changed it meanwhile
            self._check_usable()  # the other thread may have reserved memory
            space.be_of(type(self))
        try:
            self._space, self.__class__ = space, space.reserved
            yield space.view
        finally:
            space.end()
            self._unreserve(space)

    def commit(self, size: int) -> None:
        """Append the first *size* bytes of the memory that `reserve` gave, inside its block.

        The bytes are copied only if slices of the view still exist. From then on the buffer may be
        used again. Raises `RuntimeError` outside such a block, and the second time. Wraps
        ``evbuffer_commit_space``.
        """
        space = self._space
        if space is not None:
            size = convert.integer(size, "size", 0, space.size)
        if space is None or not self._unreserve(space):
            self._check_usable()
            raise RuntimeError("commit() must be called once, inside a block of reserve()")
        pointer = self.pointer
        if space.end():
            result = self._call(lib.evpy_commit, pointer, space.views.views, size)
        else:
            result = self._call(lib.evbuffer_add, pointer, space.views.views.base, size)
        if result:
            raise failure(lib.evbuffer_commit_space, (self, END))

    # Freezing and locking.

    def freeze(self, at_front: bool) -> None:
        """Make all calls fail that change the front, or the end if *at_front* is false.

        Wraps ``evbuffer_freeze``.
        """
        lib.evbuffer_freeze(self.pointer, bool(at_front))

    def unfreeze(self, at_front: bool) -> None:
        """Allow changes at the front again, or at the end if *at_front* is false.

        Wraps ``evbuffer_unfreeze``.
        """
        lib.evbuffer_unfreeze(self.pointer, bool(at_front))

    def enable_locking(self) -> None:
        """Do nothing: each buffer has a lock from the start. Wraps ``evbuffer_enable_locking``."""
        self._check_usable()

    def lock(self) -> AbstractContextManager[None]:
        """Keep other threads from using the buffer inside a ``with`` block.

        Don't wait in the block for another thread that uses the buffer: both would wait for ever.
        A bufferevent's buffer has the lock of its bufferevent, `BufferEvent.lock`.
        Wraps ``evbuffer_lock``, ``evbuffer_unlock``.
        """
        return Held(self._locked(), "buffer")

    # Callbacks.

    def add_cb(self, callback: BufferChangeCallback) -> BufferCallback:
        """Call ``callback(buffer, info)`` from now on whenever the buffer has changed.

        *info* is a `BufferInfo`. Return a `BufferCallback`, which can disable or remove the
        callback. The callback added last is called first. What it raises comes out of the method
        that changed the buffer; for a bufferevent's buffer it goes to the loop, as with the
        bufferevent's own callbacks. One method call may be several changes. A callback that changes
        the buffer itself is called again for that, recursively. Unlike in C, all callbacks of a
        buffer have one entry there, which calls them. Wraps ``evbuffer_add_cb``.
        """
        added = BufferCallback(self, convert.callback(callback))
        with self.lock():
            if self._entry is None:
                key = next_key()
                self._key = self._key or key  # a signal handler may have come before
                watched[self._key] = self
                entry = lib.evpy_buffer_add_cb(self.pointer, self._key)
                if not entry:
                    raise failure(lib.evbuffer_add_cb)
                if self._entry is None:
                    self._entry = entry
                else:  # or have added one meanwhile, which is enough
                    lib.evbuffer_cb_clear_flags(self.pointer, entry, lib.EVBUFFER_CB_ENABLED)
            self._watch((added, *self._callbacks))
        return added

    def defer_callbacks(self, base: EventBase) -> None:
        """Let *base*'s loop call the callbacks, once for all changes since the last time.

        From now on the buffer is closed with *base*, and may be used only in the thread that runs
        its loop. Raises `RuntimeError` if the callbacks are deferred already, for a bufferevent's
        buffer, and inside a callback of any buffer. Wraps ``evbuffer_defer_callbacks``.
        """
        if not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        if self._owner is not None:
            raise RuntimeError("the callbacks of this buffer are deferred already, or can't be")
        if running.depth:
            raise RuntimeError("defer_callbacks() was called inside a buffer's callback")
        self._check_usable()
        base._check_thread()
        kind = type(self)
        deferred, key = subclass_of(kind, Deferring), self._key or next_key()
        base_pointer, pointer = base.pointer, self.pointer
        made: list[Deferral] = []  # where an interrupt can't lose it
        try:
            unshare(pointer)
            list(map(made.append, itertools.starmap(Deferral, ((base, key, pointer, self),))))
        except BaseException:
            Deferral.undo(base, key)
            unshare(pointer)  # all of it: it may have been cut short
            shared(pointer, evbuffer_free)
            raise
        owner = made[0]
        if self.__class__ is kind:  # no call from here on: nobody sees the half of it
            self._key, self._owner, self._plain = key, owner, False
            self.__class__ = deferred
        elif self._owner is None:  # other code has closed it
            owner.close()
            raise self._unusable()
        else:
            owner.leave()
            raise RuntimeError("other code has deferred the callbacks of this buffer meanwhile")
        lib.evbuffer_defer_callbacks(pointer, base_pointer)

    # For the package alone.

    def _call(
        self, function: Callable[[Unpack[Arguments]], int], *arguments: Unpack[Arguments]
    ) -> int:
        """Call C's *function* where callbacks may run; return its result, even if it fails."""
        if self._callbacks:
            errors.headroom()
        return errors.run(function, *arguments)

    def _with(
        self,
        other: Buffer,
        function: Callable[[CData, CData, Unpack[Arguments]], int],
        *arguments: Unpack[Arguments],
    ) -> int:
        """Call C's *function* with this buffer and *other*, either of which may have callbacks."""
        if self._plain and other._plain:
            return function(self.pointer, other.pointer, *arguments)
        return self._call(other._call, function, self.pointer, other.pointer, *arguments)

    def _expect_callbacks(self) -> None:
        """Enter C by `_call` from now on, since callbacks may run."""
        self._plain = False

    def _check_changeable(self) -> None:
        """Raise `ValueError` if the buffer is read-only."""

    def _unusable(self) -> Exception:
        return super()._unusable() if self._owner is None else self._owner._unusable()

    def _facts(self, ask: bool) -> Iterator[str]:
        if ask:
            yield f"{self._told_length()} bytes"
        if self._callbacks:
            yield f"{len(self._callbacks)} callbacks"

    def _told_length(self) -> int:
        return int(evbuffer_get_length(slot(self)))  # works while memory is reserved, too

    def _check_positions(self, start: int, end: int | None = None) -> None:
        """Raise the `ValueError` for positions that C says are beyond the end."""
        size = len(self)
        convert.integer(start, "start", 0, size if end is None else min(size, end))
        raise ValueError(f"end must be from {start} to {size}, not {end}")

    def _chunk(self, start: int) -> bytes:
        room = ROOM
        memory, octets = kept = spare()
        while True:
            size = lib.evpy_buffer_chunk(self.pointer, start, memory, room)
            if size <= room:
                break
            room, memory = size, ffi.new("char[]", size)
            octets = ffi.buffer(memory)
        chunk: bytes = octets[:size]
        spares.append(kept)
        return chunk

    def _unshared(self) -> bool:
        """Tell whether the memory must stay where it is, because libevent changes it."""
        return self._owner is not None

    def _sends_files(self) -> bool:
        """Tell whether the kernel may send added files straight from the file."""
        return False

    def _unreserve(self, space: Space) -> bool:
        """Allow other uses again; return whether *space* was what blocked them."""
        if self._space is not space:  # no call from here to the end: one thread alone gets past
            return False
        self._space = None
        if self.__class__ is space.reserved:
            self.__class__ = space.kind
        return True

    def _watch(self, callbacks: tuple[BufferCallback, ...]) -> None:
        """Call *callbacks* from now on, as far as they are enabled."""
        self._callbacks = callbacks
        called = self._called()
        change = lib.evbuffer_cb_set_flags if called else lib.evbuffer_cb_clear_flags
        change(self.pointer, self._entry, lib.EVBUFFER_CB_ENABLED)
        self._plain = self._owner is None and not called

    def _called(self) -> bool:
        """Tell whether any callback is enabled."""
        return any(callback._enabled for callback in self._callbacks)

    def _changed(self, info: BufferInfo, left: list[BufferCallback]) -> None:
        """Call the callbacks that are *left*, each once; after an interrupt, go on."""
        running.depth += 1
        try:
            while left:
                callback = left[0]
                enabled = callback.enabled and not self.closed
                del left[0]  # no call from here to the callback's own
                if enabled:
                    try:
                        callback._callback(self, info)
                    except BaseException as error:
                        self._report(error)
        finally:
            running.depth -= 1

    def _report(self, error: BaseException) -> None:
        errors.keep(errors.explained(error, self))

    def _locked(self) -> Generator[None, None, None]:
        pointer, thread = self.pointer, get_ident()
        try:  # an interrupt can come only after the call of C, not before
            lib.evbuffer_lock(pointer)
            yield
        finally:
            try:
                gone = self._owner is not None and self.closed  # then nobody waits for the lock
            except BaseException:  # an interrupt
                if self._owner is None or not self.closed:
                    lib.evbuffer_unlock(pointer)
                raise
            if not gone:  # no call before C's, which does nothing in another thread
                lib.evbuffer_unlock(pointer)
            if thread != get_ident():  # it has been dropped there
                raise RuntimeError("another thread has taken the lock of this buffer")


def _style(eol: int) -> EolStyle:
    """Return *eol* as an `EolStyle`, or raise an error that names the argument."""
    try:
        return EolStyle(eol)
    except ValueError:
        raise ValueError(f"eol must be an EolStyle, not {eol!r}") from None


def checked(buffer: Buffer, name: str = "buffer") -> Buffer:
    """Return *buffer*, or raise an error unless it is a `Buffer` that may be changed."""
    if not isinstance(buffer, Buffer):
        raise TypeError(f"{name} must be a Buffer, not {buffer!r}")
    buffer._check_changeable()
    return buffer


# Only a forked child that has lost a buffer checks each use: no other process pays for it.


def _found(buffer: Buffer) -> CData:
    """The C object; raises `ForkError` if it was lost when this process was forked."""
    pointer = slot(buffer)
    if int(ffi.cast("uintptr_t", pointer)) in lost_buffers:
        raise errors.ForkError(
            "another thread was in the middle of using this Buffer when the process was forked, so "
            "it can't be used here: make another one"
        )
    return pointer


def _after_fork() -> None:
    if lost_buffers:
        Buffer.pointer = property(_found, fill, empty)  # type: ignore[assignment,misc]


os.register_at_fork(after_in_child=_after_fork)
