"""``struct evbuffer_file_segment``: a part of a file, for as many buffers as need it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.convert import FileDescriptor
from libevent_py._core.dispatch import next_key
from libevent_py._core.handle import Handle
from libevent_py._core.pointers import owned
from libevent_py._core.references import Cleanup, references, release
from libevent_py._ffi import lib
from libevent_py.enums import FileSegmentFlag

if TYPE_CHECKING:
    from libevent_py._ffi import CData

#: What `FileSegment.on_cleanup` is: ``evbuffer_file_segment_cleanup_cb``.
CleanupCallback: TypeAlias = Callable[[], object]

NO_MMAP = FileSegmentFlag.DISABLE_MMAP
NO_SENDFILE = FileSegmentFlag.DISABLE_SENDFILE


class FileSegment(Handle):
    """A part of a file that any number of buffers may contain; usable in ``with``.

    The file stays open, and what has been read of it stays in memory, until the segment is closed
    and no buffer contains any of it.
    """

    __slots__ = ("_cleanup", "_flags", "_length", "_offset", "_part", "_read")

    def __init__(
        self,
        file: FileDescriptor,
        offset: int = 0,
        length: int | None = None,
        flags: int = NO_MMAP,
        *,
        on_cleanup: CleanupCallback | None = None,
    ) -> None:
        """Make a segment of *length* bytes from *offset* on, or for None of all that follow.

        *file* is a regular file open for reading: a descriptor, or an object with ``fileno()``. The
        descriptor is duplicated, so the caller may close it at once. With CLOSE_ON_FREE, *file*
        must be a descriptor, and is closed here.

        The output of a bufferevent sends straight from the file. For other buffers the file is read
        into memory: when first needed, or with DISABLE_SENDFILE at once. Without DISABLE_MMAP it is
        mapped into memory instead; then reading from a file that has become shorter ends the
        process. DISABLE_LOCKING does nothing, because any thread may free the segment.

        Raises `ValueError` for bytes that the file doesn't have. In C, a length of -1 means the
        size of the whole file, whatever the offset. *on_cleanup* is the attribute's first value.
        Wraps ``evbuffer_file_segment_new``.
        """
        self._check_unmade()
        flags = convert.flags(FileSegmentFlag, flags, "flags")
        fd = convert.descriptor(file, "file")
        if flags & FileSegmentFlag.CLOSE_ON_FREE and not isinstance(file, int):
            raise TypeError(f"file must be a descriptor with CLOSE_ON_FREE, not {file!r}")
        if on_cleanup is not None:
            convert.callback(on_cleanup, "on_cleanup")
        size = size_of(fd)
        self._offset = convert.integer(offset, "offset", 0, size)
        rest = size - self._offset
        self._length = rest if length is None else convert.integer(length, "length", 0, rest)
        self._flags = flags & (NO_MMAP | NO_SENDFILE)
        self._read: CData | None = None
        self._cleanup: Cleanup | None = None
        # libevent can't read or map 0 bytes (E4).
        self._part: CData | None = self._new(fd, self._flags if self._length else NO_MMAP)
        super().__init__(self._part.segment)
        if on_cleanup is not None:
            self.on_cleanup = on_cleanup
        if flags & FileSegmentFlag.CLOSE_ON_FREE:
            os.close(fd)

    def _new(self, fd: int, flags: int) -> CData:
        what = fd, self._offset, self._length, flags
        part = owned(lib.evpy_segment_free, lib.evpy_segment_new, *what)
        if not part:
            raise errors.failed(lib.evbuffer_file_segment_new, f"fd {fd}")
        return part

    def _facts(self, ask: bool) -> Iterator[str]:
        yield f"{self._length} bytes from {self._offset} on"

    @property
    def length(self) -> int:
        """The number of bytes in the segment."""
        return self._length

    @property
    def on_cleanup(self) -> CleanupCallback | None:
        """The function to call once the segment is closed and no buffer contains it, or None.

        It is called soon after that: by the loop that has sent the last of the segment, or at the
        end of an operation on any buffer. The loop or operation raises what the function raises.
        Wraps ``evbuffer_file_segment_add_cleanup_cb``.
        """
        return None if self._cleanup is None else self._cleanup.callback

    @on_cleanup.setter
    def on_cleanup(self, callback: CleanupCallback | None) -> None:
        self._check_usable()  # a closed segment may have been cleaned up already
        if callback is not None:
            convert.callback(callback, "on_cleanup")
        if self._cleanup is None:
            self._cleanup = Cleanup()
            for part in (self._part, self._read):
                if part is not None:
                    self._watch(part, self._cleanup)
        self._cleanup.call(callback)

    @staticmethod
    def _watch(part: CData, cleanup: Cleanup) -> None:
        key = next_key()
        if lib.evpy_segment_on_cleanup(part, key):
            raise errors.failed(lib.evbuffer_file_segment_add_cleanup_cb)
        cleanup.wait_for(key)

    def _part_for(self, sendfile: bool) -> CData | None:
        """Return C's segment for a buffer that can send straight from files, or for any other.

        Other buffers get a second segment of the same bytes, made when first needed: if libevent
        fails to read a segment that it has sent from, nobody knows who has to free it (E5).
        """
        part = self._part
        self._check_usable()
        if sendfile or self._flags & NO_SENDFILE:
            return part
        read = self._read
        if read is None:
            fd = lib.evpy_segment_fd(part)
            if size_of(fd) < self._offset + self._length:
                raise ValueError("the segment's file has become shorter")
            read = self._new(fd, self._flags | NO_SENDFILE)
            if self._cleanup is not None:
                self._watch(read, self._cleanup)
            if not self.closed:
                self._read = read
        return read

    def close(self) -> None:
        """Close the file once no buffer contains any of it; a second time does nothing.

        Wraps ``evbuffer_file_segment_free``.
        """
        if self._take() is not None:
            self._part = self._read = None
            if references:
                release()


def size_of(fd: int) -> int:
    """Return the size of the regular file *fd*; raise `ValueError` for anything else."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"file must be a regular file, which descriptor {fd} is not")
    return status.st_size
