"""A shorter way through Python and the kernel for plain socket bufferevents: EAGER.

libevent 2.1 asks the kernel each time how much there is, and reads at most 4096 bytes of it (D13).
And it writes what a callback has written only in the loop's next turn, for which it asks the kernel
to tell it when the socket is writable, and then not to. An EAGER bufferevent departs from that.
Around each call of its read callback, `_c/eager.c`

- reads what the kernel has, as far as `max_single_read` lets it, to where `BufferEvent.read` finds
  it without another way into C: the base's arena, and not the input;
- holds writing back, while `BufferEvent.write` copies to the arena; and when the callback returns,
  it sends all of that at once. What the socket doesn't take goes to the output, and from there its
  usual way.

Nobody need notice. Who asks for the input as a buffer finds there what has not been read; who asks
for the output, what has been written; who changes what the bufferevent waits for has it all back in
libevent's hands first. There is one arena for each base, and one bufferevent at a time that uses
it: a callback that makes another one's be called meanwhile has that go its usual way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libevent_py import errors
from libevent_py._core.dispatch import live
from libevent_py._core.handle import Handle
from libevent_py._core.pointers import new_owned
from libevent_py._ffi import ffi, lib
from libevent_py.enums import BufferEventOption

if TYPE_CHECKING:
    from libevent_py.bufferevent.bufferevent import BufferEvent


class Arena(Handle):
    """The memory that the bufferevents of a base read and write through."""

    __slots__ = ("bev", "input", "output", "room", "unread", "unsent")

    def __init__(self) -> None:
        super().__init__(new_owned(lib.evpy_arena_free, lib.evpy_arena_new))
        self.input = ffi.buffer(self.pointer.input)
        self.output = ffi.buffer(self.pointer.output)
        #: The eager bufferevent whose read callback runs.
        self.bev: Any = None
        #: How many bytes of the input are its own and not yet read.
        self.unread = 0
        #: How many bytes of the output it has written.
        self.unsent = 0
        #: How many it may write: 0 where writing is not held back.
        self.room = 0

    # For the bufferevent whose read callback runs.

    def reclaim(self) -> None:
        """Move what is here to its buffers, where a reader of them expects it."""
        bev = self.bev
        hook = bev._eager.hook
        hook.direct = True
        unread, self.unread = self.unread, 0
        if unread and lib.evpy_eager_put_back(bev.pointer, hook, unread):
            raise MemoryError(f"{unread} bytes of input are lost")
        self.spill()

    def spill(self) -> None:
        """Move what it has written to libevent's output."""
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
    """The shorter way of one bufferevent that was made EAGER."""

    __slots__ = ("_deferred", "hook")

    @classmethod
    def of(cls, options: BufferEventOption) -> Eager | None:
        """Make one where *options* ask for it, and nothing keeps it from ever being of use."""
        if BufferEventOption.EAGER not in options or BufferEventOption.THREADSAFE in options:
            return None
        return cls(BufferEventOption.DEFER_CALLBACKS in options)

    def __init__(self, deferred: bool) -> None:
        self._deferred = deferred
        #: What C keeps of it, once it has gone that way, or None.
        self.hook: Any = None

    def may_go(self, bev: BufferEvent) -> bool:
        """Tell whether nothing keeps *bev* from going the shorter way."""
        if bev._limits.any or bev._calls_back:
            return False
        marks = bev.pointer.wm_read, bev.pointer.wm_write
        return not any(mark.low or mark.high for mark in marks)

    def hooked(self, bev: BufferEvent) -> Any:
        """Return what C keeps of *bev*, made when first needed."""
        if self.hook is None:
            arena = bev.base._arena.pointer
            self.hook = errors.new(lib.evpy_eager_new, arena, bev._key, self._deferred)
        return self.hook

    def freed_after(self, free: Callable[[Any], object]) -> Callable[[Any], object]:
        """Return what frees the bufferevent by *free*, and then what C keeps of it."""
        hook = self.hook
        if hook is None:
            return free

        def both(pointer: Any) -> None:
            free(pointer)
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
        except BaseException as interrupt:  # a signal handler's: the input has been read by now
            errors.keep(interrupt)
    finally:
        arena.bev = None
    return arena.unsent if bev.base._parked is None else -2
