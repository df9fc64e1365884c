"""What a buffer does by copying: bytes in and out, lines, searching, reading and writing.

Python's positions are numbers; C's pointers into a buffer last only as long as its lock is held
(D5), so they stay in C.

Most calls can't run any Python: then they go to C by the shortest way. Where callbacks may run,
because the buffer has some or belongs to something that has (`Octets._plain` is false), calls go
through `Octets._call`, and what the callbacks raise comes out of them.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.fork import lost_buffers
from libevent_py._core.handle import Handle, empty, fill, slot
from libevent_py._core.owner import Child
from libevent_py._core.pointers import owned
from libevent_py._core.references import references, release
from libevent_py._ffi import ffi, lib
from libevent_py.enums import EolStyle

if TYPE_CHECKING:
    from libevent_py.buffer.buffer import Buffer
    from libevent_py.buffer.callbacks import BufferCallback

#: The most that one call takes: evbuffer_remove counts in an int (D13).
MOST = 2**31 - 1

#: The largest size or position.
LARGEST = sys.maxsize

#: No position: C's largest size_t.
SIZE_MAX = lib.EV_SIZE_MAX

#: How many bytes go through memory that is there already.
ROOM = 65536

#: Such memory, each piece with its ``ffi.buffer``. Who copies takes a piece away meanwhile, because
#: another thread, a signal handler or a callback may copy, too.
spares: list[tuple[Any, Any]] = []

# Looked up once: an attribute of lib costs as much as a short call.
new = lib.evpy_buffer_new
get_length = lib.evbuffer_get_length
add = lib.evbuffer_add
remove = lib.evbuffer_remove
drain = lib.evbuffer_drain
search = lib.evpy_buffer_search
readln = lib.evpy_buffer_readln
copyout = lib.evpy_buffer_copyout
free = lib.evbuffer_free

BEYOND = lib.EVPY_BEYOND
FROZEN = lib.EVPY_FROZEN
CRLF = EolStyle.CRLF
END, FRONT = range(2)
WHERE = "end", "front"


def spare() -> tuple[Any, Any]:
    """Return `ROOM` bytes of memory for C, and for Python: to be given back to `spares`."""
    try:
        return spares.pop()
    except IndexError:
        memory = ffi.new("char[]", ROOM)
        return memory, ffi.buffer(memory)


class Octets(Handle):
    """The part of `Buffer` that copies."""

    __slots__ = ("_callbacks", "_entry", "_key", "_owner", "_plain")

    #: What the buffer belongs to, and is freed with; None for one of its own.
    _owner: Child | None

    #: Whether no call to C can run any Python.
    _plain: bool

    #: The ``struct evbuffer_cb_entry *`` that runs the callbacks, once there has been one.
    _entry: Any

    #: What C knows the buffer by, there and where callbacks are deferred; 0 until then.
    _key: int

    #: The callbacks, in their order; replaced and never changed, because C may be running them.
    _callbacks: tuple[BufferCallback, ...]

    def __init__(self, data: Any = b"") -> None:
        """Make a buffer that contains a copy of *data*.

        It has a lock of libevent's own. Wraps ``evbuffer_new``, ``evbuffer_enable_locking``.
        """
        self._check_unmade()
        self._owner = self._entry = None
        self._key, self._callbacks = 0, ()
        self._plain = True
        self.pointer = owned(free, new)
        if not self.pointer:
            del self.pointer
            raise failure(lib.evbuffer_new)
        if type(data) is not bytes or data:  # of no bytes C makes a piece of memory, too
            self.add(data)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Enter C by *function* where callbacks may run; return its result, also when it fails."""
        if self._callbacks:
            errors.headroom()
        before = errors.waiting()
        result = errors.enter(None, function, *arguments)
        errors.settle(before)
        return result

    def _with(self, other: Octets, function: Callable[..., Any], *arguments: Any) -> Any:
        """Enter C by *function* for this buffer and *other*, either of which may have callbacks."""
        if self._plain and other._plain:
            return function(self.pointer, other.pointer, *arguments)
        return self._call(other._call, function, self.pointer, other.pointer, *arguments)

    def _check_changeable(self) -> None:
        """Raise `ValueError` where the buffer is one that can only be looked at."""

    def _unusable(self) -> Exception:
        return super()._unusable() if self._owner is None else self._owner._unusable()

    def _facts(self, ask: bool) -> Iterator[str]:
        if ask:
            yield f"{self._told_length()} bytes"
        if self._callbacks:
            yield f"{len(self._callbacks)} callbacks"

    def _told_length(self) -> int:
        return int(get_length(slot(self)))  # also where memory is reserved

    # As Python has it.

    def __len__(self) -> int:
        """Return the number of bytes. Wraps ``evbuffer_get_length``."""
        return get_length(self.pointer)

    def __bool__(self) -> bool:
        return len(self) > 0

    def __bytes__(self) -> bytes:
        """Return a copy of the whole content, also where the front is frozen."""
        return b"".join(self)

    def __iter__(self) -> Iterator[bytes]:
        """Yield copies of the pieces in which libevent holds the content, from the front on."""
        start = 0
        while chunk := self._chunk(start):
            start += len(chunk)
            yield chunk

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

    def __contains__(self, what: Any) -> bool:
        """Tell whether *what*, a byte's number or bytes, is in the buffer."""
        return self.search(bytes((what,)) if isinstance(what, int) else what) >= 0

    def __eq__(self, other: object) -> bool:
        """Compare the content with that of another buffer, or with any bytes-like object."""
        if not isinstance(other, Octets):
            try:
                with memoryview(other) as view:  # type: ignore[arg-type]
                    return len(self) == view.nbytes and bytes(self) == view.tobytes()
            except TypeError:
                return NotImplemented
        return self is other or (len(self) == len(other) and bytes(self) == bytes(other))

    def __iadd__(self, data: Any) -> Any:
        """Append *data* as `add` does, or the content of another buffer as `add_buffer` does."""
        (self.add_buffer if isinstance(data, Octets) else self.add)(data)
        return self

    # Bytes in.

    def add(self, data: Any) -> None:
        """Append a copy of *data*, bytes or any object with the buffer protocol.

        Wraps ``evbuffer_add``.
        """
        octets, size = (data, len(data)) if type(data) is bytes else convert.octets(data)
        if (
            add(self.pointer, octets, size)
            if self._plain
            else self._call(add, self.pointer, octets, size)
        ):
            raise failure(add, (self, END))

    def prepend(self, data: Any) -> None:
        """Put a copy of *data* in front. Wraps ``evbuffer_prepend``."""
        octets, size = convert.octets(data)
        if self._call(lib.evbuffer_prepend, self.pointer, octets, size):
            raise failure(lib.evbuffer_prepend, (self, FRONT))

    def add_iovec(self, pieces: Any) -> None:
        """Append copies of *pieces*, an iterable of what `add` takes, with room for all made first.

        Wraps ``evbuffer_add_iovec``.
        """
        taken = [convert.octets(piece, "each of pieces") for piece in pieces]
        # Kept here until C has copied from them.
        views = [
            ffi.from_buffer(octets) if type(octets) is bytes else octets for octets, _ in taken
        ]
        vector = ffi.new("struct evbuffer_iovec[]", len(taken))
        for place, view in zip(vector, views, strict=True):
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
        """Make room for *size* bytes more in one piece. Wraps ``evbuffer_expand``."""
        size = convert.integer(size, "size", 0, LARGEST)
        if lib.evbuffer_expand(self.pointer, size):
            raise failure(lib.evbuffer_expand)

    @property
    def contiguous_space(self) -> int:
        """How many bytes lie in one piece at the front. Wraps ``evbuffer_get_contiguous_space``."""
        return int(lib.evbuffer_get_contiguous_space(self.pointer))

    # Bytes out.

    def remove(self, size: int | None = None) -> bytes:
        """Take up to *size* bytes from the front, or with None all. Wraps ``evbuffer_remove``."""
        if size is None:
            size = get_length(self.pointer)
        if type(size) is not int or not 0 <= size <= ROOM:
            size = convert.integer(size, "size", 0, LARGEST)
            if (size := min(size, get_length(self.pointer))) > ROOM:
                memory = bytearray(size)
                del memory[self.remove_into(memory) :]
                return bytes(memory)
        memory, octets = kept = spares.pop() if spares else spare()
        if self._plain:
            size = remove(self.pointer, memory, size)
        else:
            size = self._call(remove, self.pointer, memory, size)
        if references:
            release()
        if size < 0:
            raise failure(remove, (self, FRONT))
        taken: bytes = octets[:size]
        spares.append(kept)
        return taken

    def remove_into(self, writable: Any) -> int:
        """Take bytes from the front into *writable*, as many as fit; return how many.

        *writable* is any object with the buffer protocol that can be written to, as a bytearray.
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
                part = self._call(remove, self.pointer, view + done, min(len(view) - done, MOST))
                if part < 0:
                    raise failure(remove, (self, FRONT))
                if part == 0:
                    break
                done += part
        if references:
            release()
        return done

    def remove_buffer(self, other: Buffer, size: int) -> int:
        """Move up to *size* bytes from the front to the end of *other*; return how many.

        Unlike in C, its callbacks run before those of *other*, and both find the buffers whole.
        Wraps ``evbuffer_remove_buffer``.
        """
        size = convert.integer(size, "size", 0, MOST)
        moved = self._with(checked(other, "other"), lib.evpy_buffer_remove_buffer, size)
        if moved < 0:
            raise failure(lib.evbuffer_remove_buffer, (self, FRONT), (other, END))
        return int(moved)

    def copyout(self, size: int | None = None, start: int = 0) -> bytes:
        """Return a copy of up to *size* bytes from *start* on, or with None of all from there.

        Wraps ``evbuffer_copyout``, ``evbuffer_copyout_from``.
        """
        if type(start) is not int or not 0 <= start <= LARGEST:
            start = convert.integer(start, "start", 0, LARGEST)
        if size is None:
            size = LARGEST
        elif type(size) is not int or not 0 <= size <= LARGEST:
            size = convert.integer(size, "size", 0, LARGEST)
        memory, octets = kept = spare()
        if size > ROOM and (size := min(size, max(len(self) - start, 0))) > ROOM:
            memory = ffi.new("char[]", size)
            octets = ffi.buffer(memory)
        size = copyout(self.pointer, start, memory, size)
        if size == BEYOND:
            self._check_positions(start)
        if size < 0:
            raise failure(lib.evbuffer_copyout, (self, FRONT))
        copied: bytes = octets[:size]
        spares.append(kept)
        return copied

    def drain(self, size: int) -> None:
        """Drop up to *size* bytes from the front. Wraps ``evbuffer_drain``."""
        if type(size) is not int or not 0 <= size <= LARGEST:
            size = convert.integer(size, "size", 0, LARGEST)
        if drain(self.pointer, size) if self._plain else self._call(drain, self.pointer, size):
            raise failure(drain, (self, FRONT))
        if references:
            release()

    def readln(self, eol: int = CRLF) -> bytes | None:
        """Take the first line, and return it without what ends it, or None where no line ends.

        Unlike in C, the callbacks are told of the line and of its end at once.
        Wraps ``evbuffer_readln``.
        """
        if eol is not CRLF:
            eol = style(eol)
        room = ROOM
        memory, octets = kept = spares.pop() if spares else spare()
        while True:
            if self._plain:
                size = readln(self.pointer, eol, memory, room)
            else:
                size = self._call(readln, self.pointer, eol, memory, room)
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

    # Looking for something.

    def search(self, what: Any, start: int = 0, end: int | None = None) -> int:
        """Return the position of the first *what* that lies between *start* and *end*, or -1.

        *end* None is the buffer's own. Raises `ValueError` for positions that it doesn't have.
        Wraps ``evbuffer_search``, ``evbuffer_search_range``, ``evbuffer_ptr_set``.
        """
        octets, size = (what, len(what)) if type(what) is bytes else convert.octets(what, "what")
        if type(start) is not int or not 0 <= start <= LARGEST:
            start = convert.integer(start, "start", 0, LARGEST)
        last = SIZE_MAX if end is None else convert.integer(end, "end", 0, LARGEST)
        found: int = search(self.pointer, octets, size, start, last)
        if found == BEYOND:
            self._check_positions(start, end)
        return found

    def search_eol(self, start: int = 0, eol: int = CRLF) -> tuple[int, int]:
        """Return the position of the first end of a line from *start* on, and its length in bytes.

        ``(-1, 0)`` if no line ends. Wraps ``evbuffer_search_eol``.
        """
        start = convert.integer(start, "start", 0, LARGEST)
        length = ffi.new("size_t *")
        found = int(lib.evpy_buffer_search_eol(self.pointer, start, length, style(eol)))
        if found == BEYOND:
            self._check_positions(start)
        return found, int(length[0])

    def _check_positions(self, start: int, end: int | None = None) -> None:
        """Raise `ValueError`, since C has found that there are no such positions."""
        size = len(self)
        convert.integer(start, "start", 0, size if end is None else min(size, end))
        raise ValueError(f"end must be from {start} to {size}, not {end}")

    # Descriptors.

    def read(self, fd: Any, size: int = -1) -> int:
        """Read up to *size* bytes from *fd* to the end; return how many, at the end of file 0.

        libevent reads at most 4096 bytes at a time (D13), with -1 as many as there are up to that.
        Raises `OSError`: `BlockingIOError` where there is nothing to read yet.
        Wraps ``evbuffer_read``.
        """
        number = convert.descriptor(fd)
        size = convert.integer(size, "size", -1, MOST)
        if size == 0:  # which libevent asserts on, or takes for the end of file
            raise ValueError("size must be from 1, or -1 for what there is, not 0")
        got = self._call(lib.evbuffer_read, self.pointer, number, size)
        if got < 0:
            raise failure(lib.evbuffer_read, (self, END), fd=number)
        return int(got)

    def write(self, fd: Any, size: int = -1) -> int:
        """Write up to *size* bytes from the front to *fd*, with -1 all; return how many it took.

        That may be 0, for which C has an error. Raises `OSError`:
        `BlockingIOError` where *fd* takes nothing yet.
        Wraps ``evbuffer_write``, ``evbuffer_write_atmost``.
        """
        number = convert.descriptor(fd)
        size = convert.integer(size, "size", -1, LARGEST)
        written = self._call(lib.evpy_buffer_write, self.pointer, number, size)
        if written < 0:
            raise failure(lib.evbuffer_write, (self, FRONT), fd=number)
        if references:
            release()
        return int(written)


def style(eol: int) -> EolStyle:
    """Return *eol* as an `EolStyle`, or raise an error that names the argument."""
    try:
        return EolStyle(eol)
    except ValueError:
        raise ValueError(f"eol must be an EolStyle, not {eol!r}") from None


def failure(
    function: Callable[..., Any], *ends: tuple[Octets, int], fd: int | None = None
) -> Exception:
    """Return the exception that tells why *function* failed: one of *ends* is frozen, or memory.

    Where it used *fd*, errno says why.
    """
    reason = ffi.errno
    for owner, (buffer, end) in zip(("the", "the other"), ends, strict=False):
        if lib.evpy_buffer_frozen(buffer.pointer, end):
            return errors.LibeventError(
                f"{errors.name_of(function)} failed: {owner} buffer is frozen at its {WHERE[end]}"
            )
    ffi.errno = errno.ENOMEM if fd is None else reason
    return errors.failed(function, "" if fd is None else f"fd {fd}")


def result_of(function: Callable[..., Any], *arguments: Any) -> int:
    """Call *function*, and return -2 where it fails with -1: `errors.call` would ask errno why."""
    result = int(function(*arguments))
    return -2 if result == -1 else result


def checked(buffer: Any, name: str = "buffer") -> Octets:
    """Return *buffer*, which is to be changed, or raise `TypeError` unless it is a `Buffer`."""
    if not isinstance(buffer, Octets):
        raise TypeError(f"{name} must be a Buffer, not {buffer!r}")
    buffer._check_changeable()
    return buffer


# A forked child that has lost a buffer asks at each use of any; other processes don't pay for it.


def _found(buffer: Octets) -> Any:
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
        Octets.pointer = property(_found, fill, empty)  # type: ignore[misc]


os.register_at_fork(after_in_child=_after_fork)
