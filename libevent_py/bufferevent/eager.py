"""A fast path through Python and the kernel for plain socket bufferevents: EAGER.

libevent 2.1 asks the kernel each time how much input there is, and reads at most 4096 bytes (D13).
What a callback writes it sends only in the loop's next turn, and for that it asks the kernel to
report when the socket is writable, and afterwards to stop reporting. An EAGER bufferevent avoids
this. Around each call of its read callback, `_c/eager.c`

- reads what the kernel has, up to `max_single_read`, into the base's arena instead of the input,
  where `BufferEvent.read` finds it;
- holds writing back while `BufferEvent.write` copies to the arena, or keeps a large `bytes` object
  as it is, and sends it all at once when the callback returns. What the socket doesn't take goes to
  the output, and is sent the usual way.

Users need not notice. When they ask for the input or the output as a buffer, bytes in the arena are
moved there first. Before they change what the bufferevent waits for, libevent's usual state is
restored. Each base has one arena, and one bufferevent uses it at a time: if a callback causes
another bufferevent's callback meanwhile, that one goes the usual way.

C does all that comes with every message, by Python's own API: what surrounds the callback would
take longer in Python than the callback itself (``_c/python.c``). With `BufferEvent.on_data` it also
makes the bytes, and sends what the callback returns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from libevent_py import errors
from libevent_py._core import convert, for_c
from libevent_py._core.called import ON_DATA, ON_READ, explained_as
from libevent_py._core.convert import Octets
from libevent_py._core.frames import at_beginning
from libevent_py._core.handle import Handle
from libevent_py._core.pointers import new_owned
from libevent_py._ffi import ffi, lib
from libevent_py.enums import BufferEventOption, EventFlag, TriggerOption

if TYPE_CHECKING:
    from libevent_py._ffi import CData, Memory
    from libevent_py.bufferevent.bufferevent import BufferEvent

#: What a bufferevent has called with what it has read: ``callback(bev, data)``; what it returns is
#: written, unless it is None.
OnDataCallback: TypeAlias = Callable[["BufferEvent", bytes], "Octets | None"]


if TYPE_CHECKING:

    class ArenaState(Handle):
        """What C reads and sets of an arena."""

        #: Where it is in C.
        address: int
        #: The eager bufferevent whose read callback runs.
        bev: Any
        #: The bytes that it has written, to be sent from where they are.
        held: bytes | None
        #: How many bytes it may write: 0 if writing is not held back.
        room: int
        #: How many bytes in `input` it has not read yet.
        unread: int
        #: How many bytes it has written that are not sent yet, without those.
        unsent: int

else:
    ArenaState = for_c.extended("ArenaState", Handle)


of_c = for_c.functions(lib.evpy_arena_functions)
#: Return the input of the bufferevent whose read callback runs; None where it isn't in the arena.
read_arena: Callable[[BufferEvent], bytes | None] = of_c["read"]
#: Keep bytes until its callback returns, and then send them; return False where that can't be.
write_arena: Callable[[BufferEvent, Octets], bool] = of_c["write"]


class Arena(ArenaState):
    """The memory that the bufferevents of a base read and write through."""

    __slots__ = ("input",)

    def __init__(self) -> None:
        super().__init__(new_owned(lib.evpy_arena_free, lib.evpy_arena_new, id(self)))
        self.input: Memory = ffi.buffer(self.pointer.input)
        self.address = int(ffi.cast("uintptr_t", self.pointer))
        self.bev = self.held = None
        self.room = self.unread = self.unsent = 0

    # For the bufferevent whose read callback runs.

    @property
    def unwritten(self) -> int:
        """How many bytes it has written that are not in its output."""
        return self.unsent + (0 if self.held is None else len(self.held))

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
        size = self.unwritten
        data = self.pointer.output if self.held is None else self.held
        self.unsent, self.held = 0, None
        if size and lib.evpy_eager_spill(self.bev.pointer, data, size):
            raise MemoryError(f"{size} bytes of output are lost")

    def settle(self) -> None:
        """Return to libevent's usual way, before something changes that EAGER relies on."""
        self.reclaim()
        self.room = 0
        bev = self.bev
        errors.call(lib.evpy_eager_uncork, bev.pointer, bev._eager.hook)


def reclaim(bev: BufferEvent) -> None:
    """Move *bev*'s bytes from the arena to its buffers, where users of those expect them."""
    arena = bev.base._arena
    if arena.bev is bev:
        arena.reclaim()


def settle(bev: BufferEvent) -> None:
    """Return to libevent's usual way, before something changes that EAGER relies on."""
    arena = bev.base._arena
    if arena.bev is bev:
        arena.settle()


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


def answered(bev: BufferEvent, answer: Octets) -> None:
    """Write what the function given as `BufferEvent.on_data` has returned."""
    if not isinstance(answer, (bytes, bytearray, memoryview)):
        raise TypeError(f"on_data must return bytes or None, not {answer!r}")
    bev.write(answer)


class OnData:
    """A function given as `BufferEvent.on_data`, called as an ``on_read``."""

    __slots__ = ("callback",)

    def __init__(self, callback: OnDataCallback) -> None:
        self.callback = callback

    @classmethod
    def calling(cls, callback: OnDataCallback | None) -> OnData | None:
        """Return what calls *callback*, or None; `TypeError` if it can't be called."""
        if callback is None:
            return None
        convert.callback(callback, "on_data")
        return cls(callback)

    @staticmethod
    def of(on_read: object) -> OnDataCallback | None:
        """Return the function that *on_read* calls if it is of this class, else None."""
        return on_read.callback if isinstance(on_read, OnData) else None

    def _with_data(self, bev: BufferEvent) -> None:
        """Do what C does for an EAGER one."""
        if data := bev.read():
            answer = self.callback(bev, data)
            if answer is not None:
                answered(bev, answer)

    __call__ = _with_data


# C calls these, too.


def _unread(bev: BufferEvent) -> None:
    """Put back what *bev*'s callback has not read."""
    if not bev.base._forked and not bev.closed:
        bev._reclaim()


def _read_raised(bev: BufferEvent, error: BaseException) -> None:
    """Report what *bev*'s read callback has raised."""
    on_data, at = isinstance(bev._on_read, OnData), error.__traceback__
    if (
        on_data
        and at is not None
        and at.tb_frame.f_code is OnData._with_data.__code__
        and at_beginning(at)
        and not bev.closed
    ):  # an interrupt, before anything is read
        bev.trigger(EventFlag.READ, TriggerOption.DEFER_CALLBACKS)
    bev.base._report(explained_as(error, ON_DATA if on_data else ON_READ), bev)


def _parked(bev: BufferEvent) -> bool:
    """Tell whether *bev* is that of a forked child's parent."""
    return bev.base._forked


for_c.give(
    OnData=OnData,
    read_raised=_read_raised,
    eager_parked=_parked,
    eager_unread=_unread,
    eager_write=answered,
)
