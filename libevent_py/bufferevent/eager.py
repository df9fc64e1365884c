"""A shorter way through Python and the kernel for plain socket bufferevents: EAGER.

libevent 2.1 asks the kernel each time how much there is, and reads at most 4096 bytes of it (D13).
And it writes what a callback has written only in the loop's next turn, for which it asks the kernel
to tell it when the socket is writable, and then not to. An EAGER bufferevent departs from that.
Around each call of its read callback, `_c/eager.c`

- reads what the kernel has, as far as `max_single_read` lets it, to where `Stream.read` finds it
  without another way into C: the base's arena, and not the input;
- holds writing back, while `Stream.write` copies to the arena; and when the callback returns, it
  sends all of that at once. What the socket doesn't take goes to the output, and from there its
  usual way.

Nobody need notice. Who asks for the input as a buffer finds there what has not been read; who asks
for the output, what has been written; who changes what the bufferevent waits for has it all back in
libevent's hands first. There is one arena for each base, and one bufferevent at a time that uses
it: a callback that makes another one's be called meanwhile has that go its usual way.
"""

from __future__ import annotations

from typing import Any

from libevent_py import errors
from libevent_py._core.dispatch import live
from libevent_py._core.handle import Handle
from libevent_py._core.owner import Child
from libevent_py._core.pointers import new_owned
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.limits import Limits
from libevent_py.enums import BufferEventOption


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


class Eager(Child):
    """What `BufferEvent` has of being EAGER, or not."""

    __slots__ = ("_calls_back", "_eager", "_limits", "_options")

    _options: BufferEventOption

    #: Its limits, of which nothing is its own as long as it has none.
    _limits: Limits

    #: Whether `write` itself may call back: a filter, TLS, or a callback of one of its buffers.
    _calls_back: bool

    #: What C keeps of it once it has been EAGER, or None.
    _eager: Any

    def _may_be_eager(self) -> bool:
        """Tell whether it is EAGER, and nothing keeps it from being so."""
        options = self._options
        if not options & BufferEventOption.EAGER or options & BufferEventOption.THREADSAFE:
            return False
        if self._limits.any:
            return False
        marks = self.pointer.wm_read, self.pointer.wm_write
        return not self._calls_back and not any(mark.low or mark.high for mark in marks)

    def _made_eager(self) -> Any:
        """Return what C keeps of it, made when first needed."""
        if self._eager is None:
            arena = self.base.arena.pointer
            deferred = bool(self._options & BufferEventOption.DEFER_CALLBACKS)
            self._eager = errors.new(lib.evpy_eager_new, arena, self.key, deferred)
        return self._eager

    def reclaim(self) -> None:
        """Have the buffers contain what a reader of them expects there."""
        arena = self.base.arena
        if arena.bev is self:
            self._eager.direct = True
            unread, arena.unread = arena.unread, 0
            if unread and lib.evpy_eager_put_back(self.pointer, self._eager, unread):
                raise MemoryError(f"{unread} bytes of input are lost")
            self._spill(arena)

    def _spill(self, arena: Arena) -> None:
        """Have libevent's output contain what has been written of it."""
        unsent, arena.unsent = arena.unsent, 0
        if unsent and lib.evpy_eager_spill(self.pointer, self._eager, unsent):
            raise MemoryError(f"{unsent} bytes of output are lost")

    def _settle(self) -> None:
        """Have all of it in libevent's hands, before something changes that EAGER relies on."""
        arena = self.base.arena
        if arena.bev is self:
            self.reclaim()
            arena.room = 0
            errors.call(lib.evpy_eager_uncork, self.pointer, self._eager)


@ffi.def_extern(onerror=errors.kept, error=-1)
def evpy_eager_read(key: int, unread: int, room: int) -> int:
    bev = live.objects.get(key)  # a signal handler may raise here: with -1 C keeps the input
    if bev is None:
        return -1
    arena = bev.base.arena
    arena.unread = unread
    arena.unsent = 0
    arena.room = room
    arena.bev = bev
    try:
        try:
            on_read = bev._on_read
            on_read(bev)
        finally:
            if arena.unread and bev.base.parked is None and not bev.closed:
                bev.reclaim()
    except BaseException as error:
        try:
            bev.base.report(error, bev)
        except BaseException as interrupt:  # a signal handler's: the input has been read by now
            errors.keep(interrupt)
    finally:
        arena.bev = None
    return arena.unsent if bev.base.parked is None else -2
