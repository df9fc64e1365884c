"""A fast path through Python and the kernel for plain socket bufferevents: EAGER.

libevent 2.1 asks the kernel each time how much input there is, and reads at most 4096 bytes (D13).
What a callback writes it sends only in the loop's next turn, and for that it asks the kernel to
report when the socket is writable, and afterwards to stop reporting. An EAGER bufferevent avoids
this. Around each call of its read callback, `_c/eager.c`

- reads what the kernel has, up to `max_single_read`, into the base's arena instead of the input, so
  that `BufferEvent.read` finds it without entering C;
- holds writing back while `BufferEvent.write` copies to the arena, and sends it all at once when
  the callback returns. What the socket doesn't take goes to the output, and is sent the usual way.

Users need not notice. When they ask for the input or the output as a buffer, bytes in the arena are
moved there first. Before they change what the bufferevent waits for, libevent's usual state is
restored. Each base has one arena, and one bufferevent uses it at a time: if a callback causes
another bufferevent's callback meanwhile, that one goes the usual way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libevent_py import errors
from libevent_py._core.dispatch import live
from libevent_py._core.handle import Handle
from libevent_py._core.pointers import new_owned
from libevent_py._ffi import ffi, lib
from libevent_py.enums import BufferEventOption

if TYPE_CHECKING:
    from libevent_py._ffi import CData, Memory
    from libevent_py.bufferevent.bufferevent import BufferEvent


class Arena(Handle):
    """The memory that the bufferevents of a base read and write through."""

    __slots__ = ("bev", "input", "output", "room", "unread", "unsent")

    def __init__(self) -> None:
        super().__init__(new_owned(lib.evpy_arena_free, lib.evpy_arena_new))
        self.input: Memory = ffi.buffer(self.pointer.input)
        self.output: Memory = ffi.buffer(self.pointer.output)
        #: The eager bufferevent whose read callback runs.
        self.bev: Any = None
        #: How many bytes in `input` that bufferevent has not read yet.
        self.unread: int = 0
        #: How many bytes in `output` it has written.
        self.unsent: int = 0
        #: How many bytes it may write to `output`: 0 if writing is not held back.
        self.room: int = 0

    # For the bufferevent whose read callback runs.

    def reclaim(self) -> None:
        """Move its bytes to its own buffers, where users of those expect them."""
        bev = self.bev
        hook = bev._eager.hook
        hook.direct = True
        unread, self.unread = self.unread, 0
        if unread and lib.evpy_eager_put_back(bev.pointer, hook, unread):
            raise MemoryError(f"{unread} bytes of input are lost")
        self.spill()

    def spill(self) -> None:
        """Move the bytes that it has written to libevent's output."""
        bev = self.bev
        unsent, self.unsent = self.unsent, 0
        if unsent and lib.evpy_eager_spill(bev.pointer, bev._eager.hook, unsent):
            raise MemoryError(f"{unsent} bytes of output are lost")

    def settle(self) -> None:
        """Return to libevent's usual way, before something changes that EAGER relies on."""
        self.reclaim()
        self.room = 0
        bev = self.bev
        errors.call(lib.evpy_eager_uncork, bev.pointer, bev._eager.hook)


class Eager:
    """The fast path of one bufferevent that was made EAGER."""

    __slots__ = ("_deferred", "hook")

    @classmethod
    def of(cls, options: BufferEventOption) -> Eager | None:
        """Make a fast path if *options* ask for it and don't rule it out, or return None."""
        if BufferEventOption.EAGER not in options or BufferEventOption.THREADSAFE in options:
            return None
        return cls(BufferEventOption.DEFER_CALLBACKS in options)

    def __init__(self, deferred: bool) -> None:
        self._deferred = deferred
        #: What C keeps for the fast path, made on first use, or None.
        self.hook: CData | None = None

    def may_go(self, bev: BufferEvent) -> bool:
        """Tell whether *bev* may take the fast path."""
        if bev._limits.any or bev._calls_back:
            return False
        marks = bev.pointer.wm_read, bev.pointer.wm_write
        return not any(mark.low or mark.high for mark in marks)

    def hooked(self, bev: BufferEvent) -> CData:
        """Return C's part for *bev*, made when first needed."""
        if self.hook is None:
            arena = bev.base._arena.pointer
            store = functools.partial(setattr, self, "hook")
            errors.put(store, lib.evpy_eager_new, arena, bev._key, self._deferred)
        hook = self.hook
        assert hook is not None  # or `put` would have raised
        return hook

    def freed_after(self, free: Callable[[CData], object]) -> Callable[[CData], object]:
        """Return a function that frees the bufferevent by *free*, and then C's part."""
        hook = self.hook
        if hook is None:
            return free

        def both(pointer: CData) -> None:
            try:
                free(pointer)
            finally:  # even after an interrupt
                lib.evpy_eager_free(hook)

        return both


# hot: called for every message.
@ffi.def_extern(onerror=errors.kept, error=-1)
def evpy_eager_read(key: int, unread: int, room: int) -> int:
    bev = live.objects.get(key)  # a signal handler may raise here: with -1 C keeps the input
    if bev is None:
        return -1
    arena = bev.base._arena
    arena.unread = unread
    arena.unsent = 0
    arena.room = room
    arena.bev = bev
    try:
        try:
            on_read = bev._on_read
            on_read(bev)
        finally:
            if arena.unread and bev.base._parked is None and not bev.closed:
                bev._reclaim()
    except BaseException as error:
        try:
            bev.base._report(error, bev)
        except BaseException as interrupt:  # from a signal handler; the input has been read by now
            errors.keep(interrupt)
    finally:
        arena.bev = None
    return arena.unsent if bev.base._parked is None else -2
