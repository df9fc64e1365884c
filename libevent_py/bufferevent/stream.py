"""What every bufferevent does, whatever its bytes go through: callbacks, data, watermarks.

libevent calls back with the bufferevent's key, as `owner` tells. Without DEFER_CALLBACKS it
does so inside the very call that makes something happen (F5): so what may call back enters C
through `Root.call`, and whatever a callback may have closed is asked for anew.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.convert import Timeout
from libevent_py._core.described import described
from libevent_py._core.dispatch import live
from libevent_py._core.owner import get_ident
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.buffer import BorrowedBuffer, Buffer, checked
from libevent_py.bufferevent.eager import Arena, Eager
from libevent_py.enums import (
    BufferEventFlag,
    BufferEventOption,
    EventFlag,
    FlushMode,
    TriggerOption,
)
from libevent_py.event.base import EventBase

DataCallback = Callable[[Any], object]
EventCallback = Callable[[Any, BufferEventFlag], object]

Callbacks = tuple[DataCallback | None, DataCallback | None, EventCallback | None]

#: What to do instead of using a bufferevent that HTTP has.
INSTEAD = (
    "it can be asked, but not used: send by HttpConnection.make_request() or "
    "HttpServerRequest.send_reply(), set HttpConnection.timeout or HttpServer.timeout, and "
    "pause(), limit and close() the connection"
)

#: What can happen to a bufferevent, by C's number.
FLAGS = tuple(BufferEventFlag(number) for number in range(2 * BufferEventFlag.CONNECTED))

_BOTH = EventFlag.READ | EventFlag.WRITE

# Looked up once, for what is called for every message.
take = lib.evpy_arena_take
write = lib.evpy_bufferevent_write_data


@described(
    error="Why the last event was an error, an `OSError`, or None; set before `on_event` comes.",
)
class Stream(Eager):
    """What `BufferEvent` is besides how it is made: an input and an output with callbacks."""

    __slots__ = (
        "_given_to",
        "_lent_input",
        "_lent_output",
        "_managed_by",
        "_on_event",
        "_on_read",
        "_on_write",
        "_sends_files",
        "_underlying",
        "error",
    )

    rank = 2

    #: What its input and its output are.
    _buffer_kind: type[Buffer] = BorrowedBuffer

    error: OSError | None

    def _start(
        self,
        base: EventBase,
        key: int,
        pointer: Any,
        options: BufferEventOption,
        callbacks: Callbacks,
        underlying: Stream | None = None,
        *,
        calls_back: bool = False,
        given_to: Any = None,
        tls: Any = None,
    ) -> None:
        """Take charge of C's new *pointer*, or make it, and let C call from now on."""
        if base.arena is None:
            base.arena = Arena()
        #: What it stands on, or None.
        self._underlying = underlying
        #: What stands on it, and has its callbacks meanwhile, or None.
        self._managed_by: Stream | None = None
        #: The HTTP connection or server whose C object has it and frees it, or None.
        self._given_to: Any = given_to
        self._options = options
        self._tls, self._held = tls, None
        self._lent_input: weakref.ref[Buffer] | None = None
        self._lent_output: weakref.ref[Buffer] | None = None
        self._calls_back = calls_back or underlying is not None
        self._eager = None
        self.error = None
        #: Whether its output has had files to send, or None where it sends only what is in memory.
        self._sends_files: bool | None = None
        self._on_read, self._on_write, self._on_event = callbacks
        super().__init__(base, key, pointer)
        if underlying is not None:
            underlying._managed_by = self
        if given_to is not None:
            del base.ledger[key]
            return
        self._set_callbacks()
        base.live[key] = self

    # Callbacks.

    def setcb(
        self,
        on_read: DataCallback | None,
        on_write: DataCallback | None,
        on_event: EventCallback | None,
    ) -> None:
        """Set all three callbacks at once; None means that nobody is called.

        ``on_read(bev)`` when there is more input than the low watermark, ``on_write(bev)`` when
        there is no more output than it, ``on_event(bev, what)`` at the end, an error, a timeout or
        a connection. After each of them but a connection the direction that *what* tells, READING
        or WRITING, is disabled, as in C: after a timeout, `enable` it again to go on.
        Wraps ``bufferevent_setcb``.
        """
        callbacks = checked_callbacks(on_read, on_write, on_event)
        self._check_unmanaged()
        self._on_read, self._on_write, self._on_event = callbacks
        self._set_callbacks()

    def _check_unmanaged(self) -> None:
        """Raise `ValueError` where it belongs to what stands on it (F10)."""
        if self._managed_by is not None and not self._managed_by.closed:
            raise ValueError(
                f"this {type(self).__name__} is the underlying one of {self._managed_by!r}, which "
                "has its callbacks and its descriptor: use that, or close it first"
            )
        self._check_not_given()

    def _check_not_given(self) -> None:
        """Raise `ValueError` where it belongs to HTTP, which may end the process when misled."""
        if self._given_to is not None:
            raise ValueError(
                f"this {type(self).__name__} belongs to {self._given_to!r}, which has its "
                f"callbacks and its descriptor, and closes it: {INSTEAD}"
            )

    @contextlib.contextmanager
    def holding_tls(self) -> Iterator[None]:
        """Keep TLS that stands on this one, and what stands on that, out of reach meanwhile."""
        held: list[Stream] = []
        upper = self._managed_by
        while upper is not None:
            if (held or upper._tls is not None) and upper.hold():
                held.append(upper)
            upper = upper._managed_by
        try:
            yield
        finally:
            for upper in held:
                upper.let_go()

    def _set_callbacks(self) -> None:
        """Tell C whom to call, and how, unless what stands on it, or has it, is called."""
        if self._managed_by is not None or self._given_to is not None:
            return
        self.base.check_thread()
        pointer = self.pointer
        self._settle()
        wanted = self._on_read is not None, self._on_write is not None, self._on_event is not None
        if self._may_be_eager():
            lib.evpy_eager_setcb(pointer, *wanted[:2], self._made_eager())
        else:
            lib.evpy_eager_unhook(pointer)
            lib.evpy_bufferevent_setcb(pointer, *wanted, self.key)

    def expect_callbacks(self) -> None:
        """Go the way from now on where one of its buffers may call back."""
        self._calls_back = True
        for buffer in self.lent():
            buffer._plain = False
        self._set_callbacks()

    @property
    def on_read(self) -> DataCallback | None:
        """What is called as ``on_read(bev)`` when there is input to read, or None."""
        return self._on_read

    @on_read.setter
    def on_read(self, callback: DataCallback | None) -> None:
        self.setcb(callback, self._on_write, self._on_event)

    @property
    def on_write(self) -> DataCallback | None:
        """What is called as ``on_write(bev)`` when the output has been written, or None."""
        return self._on_write

    @on_write.setter
    def on_write(self, callback: DataCallback | None) -> None:
        self.setcb(self._on_read, callback, self._on_event)

    @property
    def on_event(self) -> EventCallback | None:
        """What is called as ``on_event(bev, what)`` when something happens, or None.

        *what* is of `BufferEventFlag`. After TIMEOUT, the direction that it tells is disabled until
        it is enabled again: see `set_timeouts`.
        """
        return self._on_event

    @on_event.setter
    def on_event(self, callback: EventCallback | None) -> None:
        self.setcb(self._on_read, self._on_write, callback)

    # Data.

    def read(self, size: int | None = None) -> bytes:
        """Take up to *size* bytes of the input, or with None all of it.

        Wraps ``bufferevent_read``.
        """
        base = self.base
        if base.thread != get_ident():
            base.check_thread()  # it is another's, or nobody's
        elif size is None and not self._calls_back:
            arena = base.arena
            pointer = self.pointer
            if arena.bev is self and arena.unread:
                length, arena.unread = arena.unread, 0
                return arena.input[:length]  # type: ignore[no-any-return]
            length = take(pointer, arena.pointer)
            if length >= 0:
                return arena.input[:length]  # type: ignore[no-any-return]
        return self.input.remove(size)

    def write(self, data: Any) -> None:
        """Append *data*, bytes or any object with the buffer protocol, to the output.

        Wraps ``bufferevent_write``.
        """
        base = self.base
        if base.thread != get_ident():
            base.check_thread()
        arena = base.arena
        if type(data) is bytes:
            size = len(data)
        else:
            data, size = convert.octets(data)
        pointer = self.pointer
        if arena.bev is self:
            unsent = arena.unsent
            end = unsent + size
            if end <= arena.room:
                arena.output[unsent:end] = data if type(data) is bytes else ffi.buffer(data)
                arena.unsent = end
                return
            self._spill(arena)
        if self._calls_back:
            base.call(lib.bufferevent_write, pointer, data, size)
        elif write(pointer, data, size):
            raise errors.failed(lib.bufferevent_write)

    def read_buffer(self, buffer: Buffer) -> None:
        """Move all of the input to the end of *buffer*. Wraps ``bufferevent_read_buffer``."""
        self.base.check_thread()
        self.reclaim()
        target = checked(buffer).pointer
        self.base.call(lib.bufferevent_read_buffer, self.pointer, target)

    def write_buffer(self, buffer: Buffer) -> None:
        """Move all of *buffer* to the end of the output. Wraps ``bufferevent_write_buffer``."""
        self.base.check_thread()
        self.reclaim()
        source = checked(buffer).pointer
        self.base.call(lib.bufferevent_write_buffer, self.pointer, source)

    @property
    def input(self) -> Buffer:
        """What has been read: a buffer that ends with the bufferevent, and can't be added to.

        Wraps ``bufferevent_get_input``.
        """
        base = self.base
        if base.thread != get_ident():
            base.check_thread()
        pointer, lent = self.pointer, self._lent_input
        buffer = None if lent is None else lent()
        if buffer is None:
            buffer = self._buffer_kind.borrowed(lib.bufferevent_get_input(pointer), self)
            self._lent_input = weakref.ref(buffer)
        return buffer

    @property
    def output(self) -> Buffer:
        """What is to be written: a buffer that ends with the bufferevent, and can't be taken from.

        Wraps ``bufferevent_get_output``.
        """
        base = self.base
        if base.thread != get_ident():
            base.check_thread()
        pointer, lent = self.pointer, self._lent_output
        buffer = None if lent is None else lent()
        if buffer is None:
            buffer = self._buffer_kind.borrowed(lib.bufferevent_get_output(pointer), self)
            self._lent_output = weakref.ref(buffer)
        return buffer

    @output.setter
    def output(self, buffer: Buffer) -> None:
        if buffer is not self.output:  # as after +=
            raise AttributeError("the output of a BufferEvent can't be replaced: add to it")

    def lent(self) -> list[Buffer]:  # type: ignore[override]
        """Return the buffers that have been borrowed and are still held."""
        refs = self._lent_input, self._lent_output
        return [buffer for ref in refs if ref is not None and (buffer := ref()) is not None]

    def _facts(self, ask: bool) -> Iterator[str]:
        if ask:
            pointer = self.pointer
            arena = self.base.arena
            unread, unsent = (arena.unread, arena.unsent) if arena.bev is self else (0, 0)
            size = lib.evbuffer_get_length
            yield f"fd {lib.bufferevent_getfd(pointer)}"
            yield f"enabled {EventFlag(lib.bufferevent_get_enabled(self.pointer)).names}"
            yield f"input {size(lib.bufferevent_get_input(self.pointer)) + unread} bytes"
            yield f"output {size(lib.bufferevent_get_output(self.pointer)) + unsent} bytes"
        if self._tls is not None:
            yield "TLS"
        if self._underlying is not None:
            yield "on another one"
        if self._managed_by is not None:
            yield "below another one"

    # What it waits for.

    def enable(self, what: int) -> None:
        """Read, write or both from now on, as *what* says.

        Unlike in C, `on_read` is told by the loop of input that is there already when reading
        begins, and a filter lets pass what waits below it. Wraps ``bufferevent_enable``.
        """
        what = self._directions(what)
        self.base.call(lib.evpy_bufferevent_enable, self.pointer, what)

    def disable(self, what: int) -> None:
        """Stop to read, write or both, as *what* says. Wraps ``bufferevent_disable``."""
        what = self._directions(what)
        errors.call(lib.bufferevent_disable, self.pointer, what)

    @property
    def enabled(self) -> EventFlag:
        """Which of READ and WRITE are enabled. Wraps ``bufferevent_get_enabled``."""
        self._settle()
        return EventFlag(lib.bufferevent_get_enabled(self.pointer))

    def setwatermark(self, what: int, low: int, high: int) -> None:
        """Set the watermarks in bytes of the input, the output or both, as *what* says.

        `on_read` waits for *low* bytes of input, and reading stops at *high*; `on_write` waits
        until no more than *low* bytes of output are left. 0 stands for no limit. While reading is
        enabled, `on_read` is called again and again until it leaves less than *high*. Unlike in C,
        the loop also calls it when *low* sinks to what there is already. Setting the marks of a
        filter may call back at once. Wraps ``bufferevent_setwatermark``.
        """
        what = self._directions(what)
        low = convert.integer(low, "low", 0, lib.EV_SSIZE_MAX)
        high = convert.integer(high, "high", 0, lib.EV_SSIZE_MAX)
        self.base.call(lib.evpy_bufferevent_setwatermark, self.pointer, what, low, high)
        if self.closed:  # by what has been called back
            return
        self._set_callbacks()

    def getwatermark(self, what: int) -> tuple[int, int]:
        """Return the watermarks ``(low, high)`` in bytes of the input, or of the output.

        Wraps ``bufferevent_getwatermark``.
        """
        what = self._directions(what)
        if what == _BOTH:
            raise ValueError(f"what must be READ or WRITE, not {what!r}")
        marks = ffi.new("size_t[2]")
        errors.call(lib.bufferevent_getwatermark, self.pointer, what, marks, marks + 1)
        return int(marks[0]), int(marks[1])

    def set_timeouts(self, read: Timeout, write: Timeout) -> None:
        """Have `on_event` called with TIMEOUT after *read* seconds without input, *write* of
        blocked output.

        None means never. With the timeout its direction is disabled, as in C: what the peer sends
        later, or what is to be written, waits until ``bev.enable(EventFlag.READ)``, or WRITE, which
        `on_event` may do, and which begins the timeout anew. Only TLS through a socket stays
        enabled, and is told of a timeout again and again. Unlike in C, 0 is the shortest time and
        not none. Wraps ``bufferevent_set_timeouts``.
        """
        self.base.check_thread()
        reading = convert.optional_seconds(read, "read")
        writing = convert.optional_seconds(write, "write")
        errors.call(lib.evpy_bufferevent_set_timeouts, self.pointer, reading, writing)
        self.look()

    def _directions(self, what: int) -> EventFlag:
        self.base.check_thread()
        self._settle()
        flags = convert.flags(EventFlag, what, "what")
        if not flags or flags & ~_BOTH:
            raise ValueError(f"what must be of READ and WRITE, not {flags!r}")
        return flags

    # What is asked of it.

    def flush(self, what: int, mode: int = FlushMode.NORMAL) -> bool:
        """Have what is held back pass on: by a filter, or to a pair's other half.

        *mode* is of `FlushMode`: FINISHED says that nothing more will come, and gives a pair's
        other half the end. Return whether there was anything to do: a socket has nothing to flush.
        Wraps ``bufferevent_flush``.
        """
        what = self._directions(what)
        mode = FlushMode(mode)
        return bool(self.base.call(lib.bufferevent_flush, self.pointer, what, mode))

    def trigger(self, what: int, options: int = TriggerOption(0)) -> None:
        """Call `on_read`, `on_write` or both, as *what* says, where the watermarks allow it.

        *options* are of `TriggerOption`. Without DEFER_CALLBACKS they are called at once.
        Wraps ``bufferevent_trigger``.
        """
        what = self._directions(what)
        options = convert.flags(TriggerOption, options, "options")
        self.base.call(lib.bufferevent_trigger, self.pointer, what, options)

    def trigger_event(self, what: int, options: int = TriggerOption(0)) -> None:
        """Call `on_event` with *what*, of `BufferEventFlag`.

        Without DEFER_CALLBACKS, here or among the bufferevent's options, it is called at once.
        Wraps ``bufferevent_trigger_event``.
        """
        self.base.check_thread()
        what = convert.flags(BufferEventFlag, what, "what")
        options = convert.flags(TriggerOption, options, "options")
        self.base.call(lib.bufferevent_trigger_event, self.pointer, what, options)

    @property
    def priority(self) -> int:
        """The level of its callbacks, 0 being the most urgent; pairs and filters have no other.

        Setting it raises `ValueError` for a level that the base doesn't have, `LibeventError` for a
        pair or a filter. Wraps ``bufferevent_get_priority``, ``bufferevent_priority_set``.
        """
        return int(lib.bufferevent_get_priority(self.pointer))

    @priority.setter
    def priority(self, level: int) -> None:
        self.base.check_thread()
        level = convert.integer(level, "priority", 0, self.base.n_priorities - 1)
        errors.call(lib.bufferevent_priority_set, self.pointer, level)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of a THREADSAFE bufferevent inside a ``with`` block.

        For calls by `libevent_py.lib` from several threads; the methods here are for the thread
        that runs the loop. The bufferevent may be closed inside, its base may not.
        Wraps ``bufferevent_lock``, ``bufferevent_unlock``.
        """
        self.base.check_thread()
        pointer, base, thread = self.pointer, self.base, get_ident()
        before = base.holds.get(thread, 0)
        try:
            base.holds[thread] = before + 1
            try:  # an interrupt comes after C's call, not before it
                lib.bufferevent_lock(pointer)
                yield
            finally:
                lib.bufferevent_unlock(pointer)
        finally:
            if before:
                base.holds[thread] = before
            else:
                del base.holds[thread]


def checked_callbacks(
    on_read: DataCallback | None, on_write: DataCallback | None, on_event: EventCallback | None
) -> Callbacks:
    """Return the callbacks, or raise `TypeError` if one of them is neither None nor callable."""
    for name, callback in (("on_read", on_read), ("on_write", on_write), ("on_event", on_event)):
        if callback is not None:
            convert.callback(callback, name)
    return on_read, on_write, on_event


def checked_options(options: int) -> BufferEventOption:
    """Return *options*, or raise an error for a combination that libevent can't do (F1)."""
    flags = convert.flags(BufferEventOption, options, "options")
    if flags & BufferEventOption.UNLOCK_CALLBACKS and not flags & BufferEventOption.DEFER_CALLBACKS:
        raise ValueError("options can have UNLOCK_CALLBACKS only with DEFER_CALLBACKS")
    return flags


@ffi.def_extern(onerror=errors.kept)
def evpy_bufferevent_read(key: int) -> None:
    bev = live.objects.get(key)
    if bev is not None:
        try:
            on_read = bev._on_read
            if on_read is not None:
                on_read(bev)
        except BaseException as error:
            bev.base.report(error, bev)


@ffi.def_extern(onerror=errors.kept)
def evpy_bufferevent_write(key: int) -> None:
    bev = live.objects.get(key)
    if bev is not None:
        try:
            on_write = bev._on_write
            if on_write is not None:
                on_write(bev)
        except BaseException as error:
            bev.base.report(error, bev)


@ffi.def_extern(onerror=errors.kept)
def evpy_bufferevent_event(key: int, what: int, error: int) -> None:
    for base in live.bases:
        bev = base.live.get(key)
        if bev is not None and bev._on_event is not None:
            bev.error = bev.why_failed(what, error)
            try:
                bev._on_event(bev, FLAGS[what])
            except BaseException as raised:
                base.report(raised, bev)
