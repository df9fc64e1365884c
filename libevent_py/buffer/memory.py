"""What a buffer does without copying: it shows its memory, and refers to that of others.

A view may outlive anything: what it was taken from, the buffer that has it now, the base. So memory
that somebody looks at moves to a keeper (`_c/shared.c`), which goes with the last who looks at it.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from libevent_py._core import convert
from libevent_py._core.dispatch import next_key
from libevent_py._core.handle import empty, fill
from libevent_py._core.pointers import owned, shared
from libevent_py._core.references import references, release
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.callbacks import Watched
from libevent_py.buffer.octets import END, SIZE_MAX, failure
from libevent_py.buffer.segment import FileSegment
from libevent_py.enums import FileSegmentFlag

if TYPE_CHECKING:
    from libevent_py.buffer.buffer import Buffer

drop = lib.evpy_keeper_drop

#: What comes before a user's class must not have slots of its own: its objects become `Reserved`.
if TYPE_CHECKING:
    Mixin = Watched
else:
    Mixin = object


class Shared(Watched):
    """The part of `Buffer` that doesn't copy."""

    __slots__ = ("_space",)

    def __init__(self, data: Any = b"") -> None:
        self._space: Space | None = None
        super().__init__(data)

    # Looking at what is there.

    def peek(self, size: int = -1, start: int = 0) -> list[memoryview]:
        """Return read-only views of up to *size* bytes from *start* on, or with -1 of all.

        There is one for each piece of memory that the bytes lie in. They stay as they are whatever
        becomes of the buffer, and keep the memory. Of a bufferevent's buffer they show a copy.
        Wraps ``evbuffer_peek``.
        """
        size = convert.integer(size, "size", -1, sys.maxsize)
        start = convert.integer(start, "start", 0, sys.maxsize)
        if start > len(self):
            self._check_positions(start)
        if self._unshared():
            stop = None if size < 0 else start + size
            copy = memoryview(bytes(self))[start:stop]
            return [copy] if copy else []
        shown = lib.evpy_peek(self.pointer, start, SIZE_MAX if size < 0 else size)
        return views(shown, lib.evbuffer_peek)

    def pullup(self, size: int = -1) -> memoryview:
        """Put the first *size* bytes, or with -1 all, into one piece of memory, and show it.

        The view is as those of `peek`. Raises `ValueError` if there are less bytes.
        Wraps ``evbuffer_pullup``.
        """
        length = len(self)
        size = convert.integer(size, "size", -1, length)
        if size < 0:
            size = length
        if self._unshared():
            return memoryview(bytes(self))[:size]
        shown = views(lib.evpy_pullup(self.pointer, size), lib.evbuffer_pullup)
        if references:
            release()
        return shown[0] if shown else memoryview(b"")

    def _unshared(self) -> bool:
        """Tell whether the buffer's memory must stay where it is, as others change it."""
        return self._owner is not None

    # Referring to what is elsewhere.

    def add_reference(self, data: Any) -> None:
        """Append *data* without copying it: any object with the buffer protocol.

        It is kept alive, and can't be resized, until no buffer contains any of it; then it is
        released, by the loop that has sent the last of it or at the end of an operation of any
        buffer. What is written to it meanwhile may or may not be sent.
        Wraps ``evbuffer_add_reference``.
        """
        octets, size = convert.octets(data)
        view = ffi.from_buffer(octets) if type(octets) is bytes else octets
        if references:
            release()
        pointer = self.pointer  # the last, for what comes before may close the buffer
        if not size:  # which older versions of libevent stumble over (D6)
            return
        if self._call(refer, pointer, view, size):
            release()
            raise failure(lib.evbuffer_add_reference, (self, END))

    def add_buffer_reference(self, other: Buffer) -> None:
        """Append what *other* contains now, which keeps it; both refer to the same memory.

        Unlike in C, *other* may contain files and references, any buffer may be closed or changed
        in any thread, and no bytes are written through to the other (D10). Of a bufferevent's
        buffer a copy is added. Raises `ValueError` if *other* is this buffer.
        Wraps ``evbuffer_add_buffer_reference``.
        """
        if not isinstance(other, Watched):
            raise TypeError(f"other must be a Buffer, not {other!r}")
        if other.pointer == self.pointer:
            raise ValueError("other must be another buffer")
        if other._unshared():
            self.add(bytes(other))
        elif self._call(lib.evpy_add_buffer_reference, self.pointer, other.pointer):
            raise failure(lib.evbuffer_add_buffer_reference, (self, END))

    def add_file_segment(self, segment: FileSegment, offset: int = 0, length: int = -1) -> None:
        """Append *length* bytes of *segment* from *offset* on, or with -1 all that follow there.

        The output of a bufferevent that has a socket, and no TLS, sends them straight from the
        file, without regard to rate limits, and can't be looked into from then on (D9). There,
        `on_event` tells WRITING and EOF when the file has become shorter. Raises `ValueError` for
        bytes that the segment doesn't have. Wraps ``evbuffer_add_file_segment``.
        """
        if not isinstance(segment, FileSegment):
            raise TypeError(f"segment must be a FileSegment, not {segment!r}")
        offset = convert.integer(offset, "offset", 0, segment.length)
        length = convert.integer(length, "length", -1, segment.length - offset)
        if length < 0:
            length = segment.length - offset
        pointer = self.pointer
        segment.pointer  # noqa: B018  (a closed segment has no bytes)
        if not length:
            return
        sends = self._sends_files()
        part = segment.part(sends)
        if sends:
            owner: Any = self._owner
            owner._sends_files = True
        if self._call(lib.evpy_segment_add, part, pointer, offset, length):
            raise failure(lib.evbuffer_add_file_segment, (self, END))

    def add_file(self, file: Any, offset: int = 0, length: int = -1) -> None:
        """Append *length* bytes of *file* from *offset* on, or with -1 all that follow there.

        *file* is as for `FileSegment`, and is not mapped into memory; unlike in C, it is the
        caller's to close. Wraps ``evbuffer_add_file``.
        """
        self.pointer  # noqa: B018  (there is no point in reading the file for a closed buffer)
        flags = FileSegmentFlag.DISABLE_MMAP
        if not self._sends_files():
            flags |= FileSegmentFlag.DISABLE_SENDFILE
        with FileSegment(file, offset, length, flags) as segment:
            self.add_file_segment(segment)

    def _sends_files(self) -> bool:
        """Tell whether the kernel may take the bytes of a file that is added from the file."""
        return False

    # Room for what is to come.

    @contextlib.contextmanager
    def reserve(self, size: int) -> Iterator[memoryview]:
        """Give *size* bytes of memory to write to, as a memoryview, inside a ``with`` block.

        `commit` appends what has been written to it, and ends the view; without it nothing is
        added. Until then every other use of the buffer raises `RuntimeError`, also in another
        thread (D7). Wraps ``evbuffer_reserve_space``.
        """
        if lib.evpy_buffer_frozen(self.pointer, END):
            raise failure(lib.evbuffer_reserve_space, (self, END))
        space = Space(convert.integer(size, "size", 1, sys.maxsize))
        while self.__class__ is not space.kind:  # or another thread has changed it meanwhile
            self.pointer  # noqa: B018  (there may be other memory reserved now)
            space.kind = type(self)
            space.reserved = reserving(space.kind)
        try:
            self._space, self.__class__ = space, space.reserved
            yield space.view
        finally:
            space.end()
            self._unreserve(space)

    def _unreserve(self, space: Space) -> bool:
        """Allow other uses again, and return whether it was *space* that forbade them."""
        if self._space is not space:  # no call from here to the end: only one thread sees it so
            return False
        self._space = None
        if self.__class__ is space.reserved:
            self.__class__ = space.kind
        return True

    def commit(self, size: int) -> None:
        """Append the first *size* bytes of what `reserve` gave, inside its block.

        No byte is copied, unless parts of the view are still held. From then on the buffer may be
        used again. Raises `RuntimeError` outside, and a second time.
        Wraps ``evbuffer_commit_space``.
        """
        space = self._space
        if space is not None:
            size = convert.integer(size, "size", 0, space.size)
        if space is None or not self._unreserve(space):
            self.pointer  # noqa: B018  (a closed buffer says so first)
            raise RuntimeError("commit() is for once inside a block of reserve()")
        pointer = self.pointer
        if space.end():
            result = self._call(lib.evpy_commit, pointer, space.views.views, size)
        else:
            result = self._call(lib.evbuffer_add, pointer, space.views.views.base, size)
        if result:
            raise failure(lib.evbuffer_commit_space, (self, END))


def refer(pointer: Any, view: Any, size: int) -> int:
    """Append *view* to C's buffer, and keep it until C says that it is no longer needed."""
    key = next_key()
    references[key] = view
    result = int(lib.evpy_add_reference(pointer, view, size, key))
    if result == -2:  # it won't say so
        del references[key]
    return result


class Reserved(Mixin):
    """What a buffer is besides, while memory is reserved in it."""

    __slots__ = ()

    _space: Space | None

    def __init_subclass__(cls) -> None:
        """Keep `reserving` from the ``__init_subclass__`` of a user's class."""

    @property
    def pointer(self) -> Any:
        """The C object; raises `RuntimeError` until what is reserved has been committed."""
        if self._space is not None:
            raise RuntimeError(
                "memory is reserved in this buffer: commit() it, or leave the block of reserve()"
            )
        return super().pointer

    @pointer.setter
    def pointer(self, pointer: Any) -> None:
        fill(self, pointer)

    @pointer.deleter
    def pointer(self) -> None:
        empty(self)

    def lock(self) -> AbstractContextManager[None]:
        self.pointer  # noqa: B018  (a bufferevent's buffer has no lock of its own)
        return super().lock()

    def close(self) -> None:
        if not self.closed:
            self.pointer  # noqa: B018  (but it may be closed with what it belongs to)
        super().close()


def reserving(kind: Any) -> Any:
    """Return the subclass of *kind* whose objects are `Reserved`, made when first needed."""
    if issubclass(kind, Reserved):  # since a fork has come inside the block
        return kind
    if "_reserved" not in vars(kind):
        members = {"__slots__": (), "__module__": kind.__module__, "__doc__": kind.__doc__}
        kind._reserved = type(kind)(kind.__name__, (Reserved, kind), members)
    return kind._reserved


class Space:
    """Memory of C's that is written to before it gets into a buffer."""

    __slots__ = ("_seen", "kind", "reserved", "size", "view", "views")

    def __init__(self, size: int) -> None:
        #: The buffer's class, and the one that it has while this is reserved.
        self.kind: Any = None
        self.reserved: Any = None
        self.size = size
        self.views = owned(lib.evpy_views_free, lib.evpy_reserve, size)
        if not self.views:
            raise failure(lib.evbuffer_reserve_space)
        octets = memory(self.views.views)
        self.view = memoryview(octets)
        self._seen = weakref.ref(octets)

    def __repr__(self) -> str:
        return f"<Space of {self.size} bytes>"

    def end(self) -> bool:
        """End the view; tell whether nobody has kept a part of it to write to."""
        with contextlib.suppress(BufferError):  # somebody uses it right now
            self.view.release()
        return self._seen() is None


def memory(view: Any) -> Any:
    """Return the memory in C's *view*, which it keeps, as a ``ffi.buffer``."""
    return ffi.buffer(shared(lib.evpy_view_hold(view), partial(drop, view.keeper)), view.size)


def views(shown: Any, function: Callable[..., Any]) -> list[memoryview]:
    """Return what C shows, and free that; or raise that *function* failed if it is NULL."""
    if shown == ffi.NULL:
        raise failure(function)
    try:
        return [memoryview(memory(shown.views + i)).toreadonly() for i in range(shown.n)]
    finally:
        lib.evpy_views_free(shown)
