"""``struct bufferevent``: a socket with an input and an output buffer, and callbacks for both.

A bufferevent has parts, each an object that owns its state: its layers (`layers`), its limits
(`limits`), TLS (`tls`), a fast path through Python and the kernel (`eager`), and where its socket
comes from (`connect`). As long as a part is not used, the bufferevent has None, or an object that
all bufferevents share, in its place. That keeps an idle one small.

libevent calls back with the bufferevent's key (see `dispatch`). Without DEFER_CALLBACKS it does so
inside the very call that makes something happen (F5). So methods that may call back enter C through
`Root._call`, and look again afterwards at whatever a callback may have closed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, TypeVar

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.child import Child, Rank
from libevent_py._core.convert import AddressLike, FileDescriptor, Octets, Timeout
from libevent_py._core.described import described
from libevent_py._core.dispatch import next_key
from libevent_py._core.handle import Handle, Made, Making, came_to_be
from libevent_py._core.locks import Held
from libevent_py._core.owner import get_ident, weak
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.buffer import Buffer, checked
from libevent_py.buffer.owned import BorrowedBuffer
from libevent_py.bufferevent import (
    callbacks,
    connect,
    eager,
    end,
    given,
    layers,
    limits,
    plans,
    tls,
)
from libevent_py.bufferevent.callbacks import (
    BufferEventCallback,
    BufferEventState,
    DataCallback,
    checked_callbacks,
)
from libevent_py.bufferevent.connect import UNCONNECTED, Connection, adopt, detach, set_fd, usable
from libevent_py.bufferevent.eager import Eager, OnData, OnDataCallback, read_arena, write_arena
from libevent_py.bufferevent.layers import ALONE, FilterCallback, Layers
from libevent_py.bufferevent.limits import UNLIMITED_YET, Limits, RateLimit, RateLimitGroup, level
from libevent_py.bufferevent.lock import locked
from libevent_py.bufferevent.plans import CLOSE_ON_FREE, DEFER_CALLBACKS, EAGER, LAYER_OPTIONS, Plan
from libevent_py.bufferevent.tls import MAKE_IT, Session, TlsContext
from libevent_py.enums import BufferEventFlag, EventFlag, FlushMode, TriggerOption
from libevent_py.event.base import EventBase

if TYPE_CHECKING:
    from libevent_py._ffi import CData
    from libevent_py.dns.base import DnsBase

# Looked up once, for code that runs for every message.
take: Final = lib.evpy_arena_take
write: Final = lib.evpy_bufferevent_write_data

Self = TypeVar("Self", bound="BufferEvent")


@described(error="The last error, an `OSError`, or None; set before `on_event` is called.")
class BufferEvent(BufferEventState):
    """A stream socket that libevent reads from and writes to; usable in ``with``, which closes it.

    It stays alive until it or its base is closed, even if nothing refers to it.
    """

    __slots__ = (
        "_calls_back",
        "_connection",
        "_eager",
        "_given_to",
        "_kept_by",
        "_layers",
        "_lent_input",
        "_lent_output",
        "_limits",
        "_on_event",
        "_options",
        "_sends_files",
        "_tls",
        "error",
    )

    _rank = Rank.BUFFEREVENT

    #: The class of its input and its output.
    _buffer_kind: type[Buffer] = BorrowedBuffer

    _lent_input: weak[Buffer] | None
    _lent_output: weak[Buffer] | None
    #: Whether `write` itself may call back: a filter, TLS, or a callback of one of its buffers.
    _calls_back: bool
    #: The HTTP connection or server whose C object uses and frees the bufferevent, or None.
    _given_to: Handle | None
    #: What has its callbacks and its watermarks, and alone may set them: an `aio.Stream`, or None.
    _kept_by: object | None
    #: Whether its output has had files to send; None if it sends only what is in memory.
    _sends_files: bool | None
    error: OSError | None

    # Making.

    def __init__(
        self,
        base: EventBase,
        fd: FileDescriptor = -1,
        options: int = CLOSE_ON_FREE,
        *,
        on_read: DataCallback | None = None,
        on_write: DataCallback | None = None,
        on_event: BufferEventCallback | None = None,
    ) -> None:
        """Make a bufferevent for the stream socket *fd*, or with -1 for one that `connect` makes.

        *fd* is a descriptor or a socket object, and becomes non-blocking. With CLOSE_ON_FREE the
        bufferevent owns the descriptor, and a socket object is detached from it. Without, a socket
        object is kept alive. Writing is enabled from the start, reading is not. The callbacks are
        as in `setcb`. Raises `OSError` when the backend can't wait for *fd*, as epoll can't for a
        regular file; in C nothing would ever be read or written. Wraps ``bufferevent_socket_new``.
        """
        self._check_unmade()
        plan = plans.on(base, options, on_read, on_write, on_event, eager=True)
        number = usable(base, fd, plan.options)
        arguments = base.pointer, number, plan.for_c
        self._check_unmade()  # an argument's own method may have made it meanwhile
        try:
            self._start(plan, next_key(), Making(lib.evpy_bufferevent_socket_new, *arguments))
            if EAGER in plan.options:
                lib.bufferevent_set_max_single_read(self.pointer, lib.EVPY_ARENA)
            self._sends_files = False
            adopt(self, fd)
        except BaseException:
            self._unmade()
            if isinstance(fd, int) or fd.fileno() >= 0:  # the caller still has to close it
                self._options = plan.alone
            raise

    @classmethod
    def pair(cls: type[Self], base: EventBase, options: int = DEFER_CALLBACKS) -> tuple[Self, Self]:
        """Make two bufferevents, each of which reads what the other writes, without a socket.

        Their callbacks are always deferred. The other half isn't notified when one is closed:
        `flush` with FINISHED first, so that it gets EOF. Wraps ``bufferevent_pair_new``.
        """
        plan = plans.on(base, options, deferred=True)
        pointers = ffi.new("struct bufferevent *[2]")
        one, other = cls.__new__(cls), cls.__new__(cls)
        try:
            errors.call(lib.evpy_bufferevent_pair_new, base.pointer, plan.options, pointers)
            for bev, pointer, partner in (one, pointers[0], other), (other, pointers[1], one):
                bev._start(plan, next_key(), pointer, Layers(partner=partner))
        except BaseException:
            for bev, pointer in zip((one, other), pointers, strict=True):
                bev._unmade()
                if pointer and not came_to_be(bev):
                    lib.evpy_bufferevent_free(pointer)
            raise
        return one, other

    @classmethod
    def filter(
        cls: type[Self],
        underlying: BufferEvent,
        input_filter: FilterCallback | None,
        output_filter: FilterCallback | None,
        options: int = LAYER_OPTIONS,
        *,
        on_read: DataCallback | None = None,
        on_write: DataCallback | None = None,
        on_event: BufferEventCallback | None = None,
    ) -> Self:
        """Make a bufferevent on top of *underlying* that passes bytes through two functions.

        Bytes read from *underlying* pass through *input_filter*, bytes written to it through
        *output_filter*; None leaves them unchanged. A filter is called as ``filter(source,
        destination, limit, mode)``: it takes bytes from the `Buffer` *source*, adds up to *limit*
        bytes (None: any number) to *destination*, and returns a `FilterResult`. OK means that it
        has done something, and wants to be called again for the rest. NEED_MORE means that it waits
        for more, ERROR stops. Unlike in C, OK counts as NEED_MORE if the filter has done nothing.
        *mode* is a `FlushMode`. What a filter raises comes out of the call or the loop that led to
        it, and libevent gets ERROR.

        Reading and writing are enabled on *underlying*. Its callbacks and its descriptor belong to
        the filter until that is closed; with CLOSE_ON_FREE, *underlying* is closed with it. Unlike
        in C, input that *underlying* already has, or gets while the filter's reading is disabled,
        passes through the filter when reading is enabled.
        Raises `ValueError` if another bufferevent is on top of *underlying* already.
        Wraps ``bufferevent_filter_new``.
        """
        plan = plans.above(underlying, BufferEvent, options, on_read, on_write, on_event)
        filtering = Layers.filtering(underlying, input_filter, output_filter)
        both = input_filter is not None, output_filter is not None
        below, key, bev = underlying._give_up(), next_key(), cls.__new__(cls)
        making = Making(lib.evpy_filter_new, below, *both, plan.alone, key)
        try:
            bev._start(plan, key, making, filtering)
        except BaseException:
            bev._unmade()
            raise
        return bev

    @classmethod
    def tls(
        cls: type[Self],
        base: EventBase,
        fd: FileDescriptor,
        context: TlsContext | CData,
        state: int | None = None,
        *,
        server_hostname: str | None = None,
        options: int = LAYER_OPTIONS,
        on_read: DataCallback | None = None,
        on_write: DataCallback | None = None,
        on_event: BufferEventCallback | None = None,
    ) -> Self:
        """Make a bufferevent that speaks TLS through the socket *fd*, or with -1 one to `connect`.

        *fd*, *options* and the callbacks are as for `BufferEvent`; EAGER is ignored. A client sends
        *server_hostname* to the server, whose certificate must be for that name if *context* checks
        it. *state* is a `TlsState`, by default the one that fits *context*. The loop begins the
        handshake once there is a connection; then `on_event` gets CONNECTED, or ERROR with a
        `TlsError` as `error`. When the peer sends TLS's closing notice, `on_event` gets EOF.
        libevent itself sends no such notice when it closes: see `shutdown`.

        *context* may also be an ``SSL *`` from `libevent_py.lib`, which nothing else may use
        meanwhile; state OPEN is for one whose handshake is done.

        Raises `TlsError`; `ValueError` when a server is to be verified but *server_hostname* is
        missing; `LibeventError` when this module was built without TLS. Wraps
        ``bufferevent_openssl_socket_new``.
        """
        plan = plans.on(base, options, on_read, on_write, on_event)
        number = usable(base, fd, plan.options)
        session = Session.of(context, state, server_hostname)
        bev = cls.__new__(cls)
        try:
            bev._speak(session, plan, number)
            adopt(bev, fd)
        except BaseException:  # an interrupt
            bev._unmade()
            connect.disown(bev, fd)
            raise
        return bev

    @classmethod
    def tls_filter(
        cls: type[Self],
        underlying: BufferEvent,
        context: TlsContext | CData,
        state: int | None = None,
        *,
        server_hostname: str | None = None,
        options: int = LAYER_OPTIONS,
        on_read: DataCallback | None = None,
        on_write: DataCallback | None = None,
        on_event: BufferEventCallback | None = None,
    ) -> Self:
        """Make a bufferevent that speaks TLS through *underlying*, a bufferevent of any kind.

        Use it, for example, after STARTTLS: when both peers have agreed to begin with TLS now.
        *underlying* is used as in `filter`, the other arguments are as in `tls`. When *underlying*
        ends without TLS's closing notice, `on_event` gets ERROR, unless `allow_dirty_shutdown` is
        set; when it ends after that notice, `on_event` gets ERROR, and `error` is None. Raises what
        `filter` and `tls` raise; `ValueError` for a filter made without DEFER_CALLBACKS, which
        would call OpenSSL inside OpenSSL's own call; and `ValueError` for THREADSAFE if
        *underlying* is not, which would be left with a lock that is gone. Unlike in C, a
        renegotiation doesn't wait for the high watermark for writing of *underlying*.
        Wraps ``bufferevent_openssl_filter_new``.
        """
        plan = plans.above(underlying, BufferEvent, options, on_read, on_write, on_event)
        underlying._give_up()
        below = underlying._options
        if underlying._layers.below is not None and not below & DEFER_CALLBACKS:
            raise ValueError("underlying must be made with DEFER_CALLBACKS if it is a filter")
        if plan.options & ~below & plans.THREADSAFE:
            raise ValueError("underlying must be THREADSAFE if TLS on top of it is THREADSAFE")
        session = Session.of(context, state, server_hostname)
        bev = cls.__new__(cls)
        try:
            bev._speak(session, plan, -1, Layers(underlying))
        except BaseException:
            bev._unmade()
            raise
        return bev

    def _speak(self, session: Session, plan: Plan, fd: int, layers: Layers = ALONE) -> None:
        """Make it for *session*, through the socket *fd* or the layer below."""
        try:
            try:
                making = session.making(plan, fd, layers.below)
                self._start(plan, next_key(), making, layers, session)
            finally:
                session.release()
        except BaseException:
            self._unmade()
            raise

    def _unmade(self) -> None:
        super()._unmade()
        if came_to_be(self) and self._layers.below is not None:  # which is the caller's again
            self._options &= ~CLOSE_ON_FREE
            BufferEvent._end(self, False)

    def _give_up(self) -> CData:
        """Return the pointer for C to put a layer on; raise `ValueError` if there is one."""
        pointer = self.pointer
        self.base._check_usable()  # nothing new is made while the base is closing
        self._check_unmanaged()
        self._settle()
        return pointer

    def _start(
        self, plan: Plan, key: int, made: Made, layers: Layers = ALONE, tls: Session | None = None
    ) -> None:
        """Set up the object: own C's object that is *made*, or make it, and let C call it."""
        base, self._options, callbacks, owner = plan
        self._on_read, self._on_write, self._on_event = callbacks
        self._layers, self._tls, self._eager = layers, tls, Eager.of(plan.options)
        self._limits: Limits = UNLIMITED_YET
        self._connection: Connection = UNCONNECTED
        self._given_to, self._kept_by = owner, None
        self._calls_back = owner is not None or tls is not None or layers is not ALONE
        self._lent_input = self._lent_output = self._sends_files = self.error = None
        try:
            layers.stand(self)  # before C puts its own there, as other code may do the same
            super().__init__(base, key, made)
        except BaseException:
            layers.step_down(self)
            raise
        if owner is not None:  # the owner frees it
            base._forget(key)
            return
        try:
            self._set_callbacks()
            base._may_call(key, self)
        except BaseException:
            self._unmade()
            raise

    #: Its own part, made when it is first needed, instead of the one that all bufferevents share.
    _own_layers = layers.own
    _own_limits = limits.own
    _own_connection = connect.own

    # The end.

    def close(self, *, flush: bool = False) -> None:
        """Free the bufferevent and, with CLOSE_ON_FREE, its descriptor or underlying bufferevent.

        Output that hasn't been written is lost. With *flush* the loop writes it first, and closes
        when that is done or has failed. Meanwhile nothing is read, and no callback is called. A
        peer that doesn't read can keep the descriptor open for as long as `set_timeouts` lets it. A
        filter can't prevent closing, whether it raises or holds bytes back when called with
        FINISHED.

        A second time does nothing. Without CLOSE_ON_FREE the underlying bufferevent gets its own
        callbacks back, and goes on reading. The other half of a pair gets EOF with *flush*, and
        nothing without. Raises `ValueError` when another bufferevent is on top of this one.
        Wraps ``bufferevent_free``.
        """
        if self.closed:
            return
        self._check_unmanaged()
        end.close(self, flush)

    def _end(self, flush: bool) -> None:
        """Close it, even with output left; with *flush*, the layer below writes its own first."""
        self._layers.check_within_reach(self)
        self._limits.leave_before_the_end(self)
        # It is freed by `_free`, and the buffers that it has lent are closed.
        errors.run(end.close_with_below, self, super().close, flush)

    @property
    def _free(self) -> Callable[[CData], object]:
        """The function that frees the bufferevent and what it owns."""
        return end.freed_by(self)

    def _lent(self) -> list[Buffer]:  # type: ignore[override]
        """Return the borrowed buffers that still exist."""
        refs = self._lent_input, self._lent_output
        return [buffer for ref in refs if ref is not None and (buffer := ref()) is not None]

    def _copied(self) -> BufferEvent:
        """Return a copy of this object, without the pointer and the buffers that it has lent."""
        copy = BufferEvent.__new__(BufferEvent)
        for name in ("base", "_key", "_on_read", "_on_write", *BufferEvent.__slots__):
            setattr(copy, name, getattr(self, name))
        copy._lent_input = copy._lent_output = copy._kept_by = None
        return copy

    def _inherit(self, pointer: CData) -> None:
        """Take over C's *pointer* from the object that this one was copied from."""
        super().__init__(self.base, self._key, pointer)
        self.base._may_call(self._key, self)
        self._layers.stand(self)
        self._limits.pass_to(self)

    def _unusable(self) -> Exception:
        return self._layers.unusable(self) or super()._unusable()

    def _check_unmanaged(self) -> None:
        """Raise `ValueError` if it belongs to HTTP, or to the layer on top of it."""
        given.check_may_act(self)
        self._layers.check_unmanaged(self)

    # Callbacks.

    def setcb(
        self,
        on_read: DataCallback | None,
        on_write: DataCallback | None,
        on_event: BufferEventCallback | None,
    ) -> None:
        """Set all three callbacks at once; None means that nothing is called.

        ``on_read(bev)`` is called when there is input, at least up to its low watermark;
        ``on_write(bev)`` when the output has fallen to its low watermark; ``on_event(bev, what)``
        on the end of the stream, an error, a timeout or a connection. All but a connection disable
        the direction in *what*, READING or WRITING, as in C: after a timeout, `enable` it again to
        go on. Wraps ``bufferevent_setcb``.
        """
        callbacks = checked_callbacks(on_read, on_write, on_event)
        self._check_unmanaged()
        given.check_not_kept(self)
        self._on_read, self._on_write, self._on_event = callbacks
        self._set_callbacks()

    @property
    def on_read(self) -> DataCallback | None:
        """The function called as ``on_read(bev)`` when there is input to read, or None.

        Wraps ``bufferevent_setcb``.
        """
        return self._on_read

    @on_read.setter
    def on_read(self, callback: DataCallback | None) -> None:
        self.setcb(callback, self._on_write, self._on_event)

    @property
    def on_data(self) -> OnDataCallback | None:
        """The function called as ``on_data(bev, data)`` with all input as `bytes`, or None.

        Bytes that it returns are written: ``bev.on_data = lambda bev, data: data`` echoes. It
        stands in the place of `on_read`, which is then what calls it, and it takes less time: with
        EAGER, C makes the bytes and sends the answer. It isn't called without input. It returns
        bytes, a bytearray, a memoryview or None; anything else is a `TypeError`, raised by the
        loop. C has nothing like it. Wraps ``bufferevent_setcb``, ``bufferevent_write``.
        Stands for ``bufferevent_read``.
        """
        return OnData.of(self._on_read)

    @on_data.setter
    def on_data(self, callback: OnDataCallback | None) -> None:
        self.setcb(OnData.calling(callback), self._on_write, self._on_event)

    @property
    def on_write(self) -> DataCallback | None:
        """The function called as ``on_write(bev)`` when the output has been written, or None.

        Wraps ``bufferevent_setcb``.
        """
        return self._on_write

    @on_write.setter
    def on_write(self, callback: DataCallback | None) -> None:
        self.setcb(self._on_read, callback, self._on_event)

    @property
    def on_event(self) -> BufferEventCallback | None:
        """The function called as ``on_event(bev, what)`` when something happens, or None.

        *what* is a set of `BufferEventFlag`. After TIMEOUT, the direction in *what* stays disabled
        until you enable it again: see `set_timeouts`. Wraps ``bufferevent_setcb``.
        """
        return self._on_event

    @on_event.setter
    def on_event(self, callback: BufferEventCallback | None) -> None:
        self.setcb(self._on_read, self._on_write, callback)

    #: Set the callbacks in C, and see to those of its buffers.
    _set_callbacks = callbacks.set_in_c
    _expect_callbacks = callbacks.expect

    #: Blocks uses of TLS that is on top of it inside a ``with`` block: see `layers`.
    _holding_tls = layers.holding_tls

    #: What it has in the arena, if anything.
    _reclaim = eager.reclaim
    _settle = eager.settle

    # Data.

    def read(self, size: int | None = None) -> bytes:
        """Remove and return up to *size* bytes of the input, or all of it for None.

        Wraps ``evbuffer_remove``. Stands for ``bufferevent_read``.
        """
        # hot: once for each message, from the arena or by a single call of C.
        if size is None:
            data = read_arena(self)
            if data is not None:
                return data
        base = self.base
        if base._thread != get_ident():
            base._check_thread()  # it belongs to another thread, or to none
        elif size is None and not self._calls_back:
            arena = base._arena
            length = take(self.pointer, arena.pointer)
            if length >= 0:
                return arena.input[:length]  # type: ignore[no-any-return]
        return self.input.remove(size)

    def write(self, data: Octets) -> None:
        """Append *data*, bytes or any object with the buffer protocol, to the output.

        Wraps ``bufferevent_write``.
        """
        # hot: once for each message, into the arena or by a single call of C.
        if write_arena(self, data):
            return
        base = self.base
        if base._thread != get_ident():
            base._check_thread()
        arena = base._arena
        if type(data) is bytes:
            size = len(data)
        else:
            data, size = convert.octets(data)
        pointer = self.pointer
        if arena.bev is self:
            arena.spill()
        if self._calls_back:
            given.check_not_given(self)
            base._call(lib.bufferevent_write, pointer, data, size)
        elif write(pointer, data, size):
            raise errors.failed(lib.bufferevent_write)

    def read_buffer(self, buffer: Buffer) -> None:
        """Move all of the input to the end of *buffer*. Wraps ``bufferevent_read_buffer``."""
        given.check_may_act(self)
        self._reclaim()
        target = checked(buffer).pointer
        self.base._call(lib.bufferevent_read_buffer, self.pointer, target)

    def write_buffer(self, buffer: Buffer) -> None:
        """Move all of *buffer* to the end of the output. Wraps ``bufferevent_write_buffer``."""
        given.check_may_act(self)
        self._reclaim()
        source = checked(buffer).pointer
        self.base._call(lib.bufferevent_write_buffer, self.pointer, source)

    @property
    def input(self) -> Buffer:
        """The bytes that have been read: a buffer to take from, which ends with the bufferevent.

        Wraps ``bufferevent_get_input``.
        """
        # hot: once for each message that is taken from the buffer.
        base = self.base
        if base._thread != get_ident():
            base._check_thread()
        pointer, lent = self.pointer, self._lent_input
        buffer = None if lent is None else lent()
        if buffer is None:
            buffer = self._buffer_kind._borrowed(lib.bufferevent_get_input(pointer), self)
            ref = weak(buffer)
            if self._lent_input is not lent:  # other code has made one meanwhile
                return self.input
            self._lent_input = ref
        return buffer

    @property
    def output(self) -> Buffer:
        """The bytes that are to be written: a buffer to add to, which ends with the bufferevent.

        Wraps ``bufferevent_get_output``.
        """
        # hot: as `input`.
        base = self.base
        if base._thread != get_ident():
            base._check_thread()
        pointer, lent = self.pointer, self._lent_output
        buffer = None if lent is None else lent()
        if buffer is None:
            buffer = self._buffer_kind._borrowed(lib.bufferevent_get_output(pointer), self)
            ref = weak(buffer)
            if self._lent_output is not lent:  # other code has made one meanwhile
                return self.output
            self._lent_output = ref
        return buffer

    @output.setter
    def output(self, buffer: Buffer) -> None:
        if buffer is not self.output:  # as after +=
            raise AttributeError("the output of a BufferEvent can't be replaced: add to it")

    def _facts(self, ask: bool) -> Iterator[str]:
        return layers.facts(self, ask)

    # Reading and writing.

    def enable(self, what: int) -> None:
        """Start reading, writing or both, as *what* says.

        Unlike in C, the loop calls `on_read` for input that is there already when reading begins,
        and a filter passes on what waits below it. Wraps ``bufferevent_enable``.
        """
        what = self._directions(what)
        self.base._call(lib.evpy_bufferevent_enable, self.pointer, what)

    def disable(self, what: int) -> None:
        """Stop reading, writing or both, as *what* says. Wraps ``bufferevent_disable``."""
        what = self._directions(what)
        errors.call(lib.bufferevent_disable, self.pointer, what)

    @property
    def enabled(self) -> EventFlag:
        """Which of READ and WRITE are enabled. Wraps ``bufferevent_get_enabled``."""
        self.base._check_thread()
        self._settle()
        return EventFlag(lib.bufferevent_get_enabled(self.pointer))

    def setwatermark(self, what: int, low: int, high: int) -> None:
        """Set the watermarks in bytes of the input, the output or both, as *what* says.

        `on_read` waits for *low* bytes of input, and reading stops at *high*: with a *high* below
        *low* it is never called. `on_write` waits until no more than *low* bytes of output are
        left. 0 means no limit. While reading is enabled, `on_read` is called again and again until
        it leaves less than *high*. Unlike in C, the loop also calls it if there is already enough
        input for a lowered *low*. Setting a filter's watermarks may call back at once. Wraps
        ``bufferevent_setwatermark``.
        """
        what = self._directions(what)
        given.check_not_kept(self)
        low = convert.integer(low, "low", 0, lib.EV_SSIZE_MAX)
        high = convert.integer(high, "high", 0, lib.EV_SSIZE_MAX)
        given.mark(self, what, low, high)

    def getwatermark(self, what: int) -> tuple[int, int]:
        """Return the watermarks ``(low, high)`` in bytes of the input, or of the output.

        Wraps ``bufferevent_getwatermark``.
        """
        self.base._check_thread()
        self._settle()
        what = callbacks.directions(what)
        if what == callbacks.BOTH:
            raise ValueError(f"what must be READ or WRITE, not {what!r}")
        marks = ffi.new("size_t[2]")
        errors.call(lib.bufferevent_getwatermark, self.pointer, what, marks, marks + 1)
        return int(marks[0]), int(marks[1])

    def set_timeouts(self, read: Timeout, write: Timeout) -> None:
        """Set after how many seconds without input, or of blocked output, `on_event` gets TIMEOUT.

        None means never. A timeout disables its direction, as in C: later input, or the rest of the
        output, waits until you call ``bev.enable(EventFlag.READ)``, or WRITE. `on_event` may call
        it, and it starts the timeout anew. Only TLS through a socket stays enabled, and gets
        TIMEOUT again and again. Unlike in C, 0 means the shortest timeout, not none.
        Wraps ``bufferevent_set_timeouts``.
        """
        given.check_may_act(self)
        reading = convert.optional_seconds(read, "read")
        writing = convert.optional_seconds(write, "write")
        errors.call(lib.evpy_bufferevent_set_timeouts, self.pointer, reading, writing)
        tls.look(self)

    def _directions(self, what: int) -> EventFlag:
        given.check_may_act(self)
        self._settle()
        return callbacks.directions(what)

    # Commands.

    def flush(self, what: int, mode: int = FlushMode.NORMAL) -> bool:
        """Pass on the bytes that a filter or a pair holds back.

        *mode* is a `FlushMode`: FINISHED says that nothing more will come, and the other half of a
        pair gets EOF. Return whether there was anything to do: a socket has nothing to flush.
        Wraps ``bufferevent_flush``.
        """
        what = self._directions(what)
        mode = FlushMode(mode)
        return bool(self.base._call(lib.bufferevent_flush, self.pointer, what, mode))

    def trigger(self, what: int, options: int = TriggerOption(0)) -> None:
        """Call `on_read`, `on_write` or both, as *what* says, if the watermarks allow it.

        *options* is a set of `TriggerOption`. Without DEFER_CALLBACKS they are called at once.
        Wraps ``bufferevent_trigger``.
        """
        what = self._directions(what)
        options = convert.flags(TriggerOption, options, "options")
        self.base._call(lib.bufferevent_trigger, self.pointer, what, options)

    def trigger_event(self, what: int, options: int = TriggerOption(0)) -> None:
        """Call `on_event` with *what*, a set of `BufferEventFlag`.

        Without DEFER_CALLBACKS, here or among the bufferevent's options, it is called at once.
        Unlike in C, *what* can't have any other flags.
        Wraps ``bufferevent_trigger_event``.
        """
        given.check_may_act(self)
        what = convert.flags(BufferEventFlag, what, "what")
        options = convert.flags(TriggerOption, options, "options")
        self.base._call(lib.bufferevent_trigger_event, self.pointer, what, options)

    @property
    def priority(self) -> int:
        """The priority of its callbacks, 0 being the most urgent; fixed for pairs and filters.

        Setting it raises `ValueError` for a level that the base doesn't have, `LibeventError` for a
        pair or a filter. Wraps ``bufferevent_get_priority``, ``bufferevent_priority_set``.
        """
        return int(lib.bufferevent_get_priority(self._pointer_here()))

    @priority.setter
    def priority(self, level: int) -> None:
        given.check_may_act(self)
        level = convert.integer(level, "priority", 0, self.base.n_priorities - 1)
        errors.call(lib.bufferevent_priority_set, self.pointer, level)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the lock of a THREADSAFE bufferevent inside a ``with`` block.

        Use it to call `libevent_py.lib` from several threads; the methods here are for the thread
        that runs the loop. You may close the bufferevent inside the block, but not its base.
        Wraps ``bufferevent_lock``, ``bufferevent_unlock``.
        """
        return Held(locked(self), "bufferevent")

    # The layer below, and the other half of a pair.

    @property
    def underlying(self) -> BufferEvent | None:
        """The `BufferEvent` that this one is on top of, or None.

        Wraps ``bufferevent_get_underlying``.
        """
        self._check_usable()
        return self._layers.below

    @property
    def partner(self) -> BufferEvent | None:
        """The other half of a pair; None without one, or once that half is closed.

        Stands for ``bufferevent_pair_get_partner``.
        """
        self._check_usable()
        return self._layers.partner()

    # The descriptor, and how it is connected.

    @property
    def fd(self) -> int:
        """The descriptor, or -1; for a filter, that of the lowest layer below it.

        Set it to another descriptor, or a socket object, to read and write that from now on. Who
        owns the new descriptor depends on CLOSE_ON_FREE, as when the bufferevent is made. The old
        one is closed if the bufferevent owned it; in C nobody would close it.
        Wraps ``bufferevent_getfd``, ``bufferevent_setfd``.
        """
        self.base._check_thread()
        self._check_usable()
        # For TLS on top of a filter, libevent doesn't find the descriptor below.
        return int(lib.bufferevent_getfd(layers.bottom(self).pointer))

    @fd.setter
    def fd(self, fd: FileDescriptor) -> None:
        self._check_unmanaged()
        set_fd(self, fd)

    def detach(self) -> int:
        """Give up the descriptor and return it, or -1; the caller closes it.

        The bufferevent goes on without a descriptor. Wraps ``bufferevent_setfd``.
        """
        self._check_unmanaged()
        self._settle()
        return detach(self)

    def connect(self, address: AddressLike) -> None:
        """Begin to connect to *address*; `on_event` gets CONNECTED or ERROR later.

        *address* is ``(host, port)``, or the path of a UNIX socket. Raises `ValueError` for an
        address that isn't numeric, as "127.0.0.1:80" is, and for a pair or a filter. Raises
        `OSError` when connecting fails at once, and for a socket that is already connected, which C
        would report as success. Wraps ``bufferevent_socket_connect``.
        """
        self.base._check_thread()
        self._settle()
        self._own_connection().connect(self, convert.sockaddr(address))

    def connect_hostname(
        self, dns_base: DnsBase | None, host: str | bytes, port: int, family: int = socket.AF_UNSPEC
    ) -> None:
        """Look *host* up and begin to connect to it; `on_event` gets CONNECTED or ERROR later.

        If the lookup failed, `on_event` gets ERROR, and both `dns_error` and `error` say why. With
        None for *dns_base* the lookup is over when this method returns, and `on_event` may have
        been called already; meanwhile the loop waits and other threads run. With a ``DnsBase`` the
        loop does the lookup. *host* is a name or a numeric address; a name outside ASCII is encoded
        by IDNA. *family* is AF_UNSPEC, AF_INET or AF_INET6. Only the first address found is tried.
        Raises `RuntimeError` while an earlier lookup goes on, which in C would be lost;
        `ValueError` for a pair or a filter. Wraps ``bufferevent_socket_connect_hostname``.
        """
        self.base._check_thread()
        self._settle()
        self._own_connection().connect_hostname(self, dns_base, host, port, family)

    @property
    def dns_error(self) -> errors.DnsError | None:
        """Why the lookup of the last `connect_hostname` failed, or None.

        Its ``errno`` is one of `AddrInfoError`. Wraps ``bufferevent_socket_get_dns_error``.
        """
        return self._connection.dns_error(self._pointer_here())

    def _do_without(self, other: Child) -> None:
        """Report an error if the lookup still needs *other*, which is about to be closed."""
        self._connection._do_without(self, other)

    # Rate limits.

    @property
    def rate_limit(self) -> RateLimit | None:
        """How fast the bufferevent may read and write, or None for as fast as possible.

        The first limit begins with one tick's worth of bytes; a later one takes over what is left.
        A limit overrides `max_single_read` and `max_single_write`. Setting one raises `ValueError`
        for TLS through another bufferevent until its handshake is done: libevent could loop for
        ever. Wraps ``bufferevent_set_rate_limit``, ``bufferevent_get_token_bucket_cfg``.
        """
        self._check_usable()
        return self._limits.own

    @rate_limit.setter
    def rate_limit(self, limit: RateLimit | None) -> None:
        given.check_may_act(self)
        self._check_usable()
        if limit is not None:
            limits.check_limitable(self)
        self._own_limits().set(self, limit)

    def add_to_rate_limit_group(self, group: RateLimitGroup) -> None:
        """Join *group*, to share its limit with the other members, and leave any other group.

        The bufferevent's own limit still applies. Raises `ValueError` for a group of another event
        base, and when setting `rate_limit` does.
        Wraps ``bufferevent_add_to_rate_limit_group``.
        """
        self.base._check_thread()
        if limits.checked_group(self.base, group) is self._limits.group:
            return
        limits.check_limitable(self)
        self._own_limits().join(self, group)

    def remove_from_rate_limit_group(self) -> None:
        """Leave its group, if it has one. Wraps ``bufferevent_remove_from_rate_limit_group``."""
        given.check_may_act(self)
        self._limits.leave(self)

    @property
    def rate_limit_group(self) -> RateLimitGroup | None:
        """The group that the bufferevent is a member of, or None."""
        self._check_usable()
        return self._limits.group

    @property
    def read_limit(self) -> int:
        """How many bytes its own limit lets it read in this tick; negative after reading more.

        Without a limit, the largest number there is. Wraps ``bufferevent_get_read_limit``.
        """
        return level(lib.bufferevent_get_read_limit(self._pointer_here()))

    @property
    def write_limit(self) -> int:
        """How many bytes its own limit lets it write in this tick; negative after writing more.

        Without a limit, the largest number there is. Wraps ``bufferevent_get_write_limit``.
        """
        return level(lib.bufferevent_get_write_limit(self._pointer_here()))

    def decrement_read_limit(self, n: int) -> None:
        """Count *n* bytes as read; a negative number gives bytes back.

        You can't give back more than the burst has room for. Raises `ValueError` if it has no limit
        of its own; C would end the process. Wraps ``bufferevent_decrement_read_limit``.
        """
        self._limits.take_from_reading(self, n)

    def decrement_write_limit(self, n: int) -> None:
        """Count *n* bytes as written; a negative number gives bytes back.

        You can't give back more than the burst has room for. Raises `ValueError` if it has no limit
        of its own; C would end the process. Wraps ``bufferevent_decrement_write_limit``.
        """
        self._limits.take_from_writing(self, n)

    @property
    def max_single_read(self) -> int:
        """The most bytes to read at once; set it to 0 for libevent's default.

        libevent 2.1 reads at most 4096 bytes from a socket at once, and TLS ignores the setting.
        Wraps ``bufferevent_get_max_single_read``, ``bufferevent_set_max_single_read``.
        """
        return int(lib.bufferevent_get_max_single_read(self._pointer_here()))

    @max_single_read.setter
    def max_single_read(self, size: int) -> None:
        limits.set_at_once(self, lib.bufferevent_set_max_single_read, size, "max_single_read")

    @property
    def max_single_write(self) -> int:
        """The most bytes to write at once; set it to 0 for libevent's default.

        Wraps ``bufferevent_get_max_single_write``, ``bufferevent_set_max_single_write``.
        """
        return int(lib.bufferevent_get_max_single_write(self._pointer_here()))

    @max_single_write.setter
    def max_single_write(self, size: int) -> None:
        limits.set_at_once(self, lib.bufferevent_set_max_single_write, size, "max_single_write")

    @property
    def max_to_read(self) -> int:
        """How many bytes may be read now, with all limits taken into account.

        Wraps ``bufferevent_get_max_to_read``.
        """
        return int(lib.bufferevent_get_max_to_read(self._pointer_here()))

    @property
    def max_to_write(self) -> int:
        """How many bytes may be written now, with all limits taken into account.

        Wraps ``bufferevent_get_max_to_write``.
        """
        return int(lib.bufferevent_get_max_to_write(self._pointer_here()))

    # TLS. What the handshake has agreed on is known from CONNECTED until a failure.

    def _session(self, instead: str = MAKE_IT) -> Session:
        """Return its TLS session, or raise `ValueError` with what to do *instead*."""
        self.base._check_thread()
        self._check_usable()
        return Session.only_of(self, instead)

    @property
    def ssl(self) -> CData:
        """The ``SSL *``, for calling `libevent_py.lib` with it while the bufferevent is open.

        The memory stays valid for as long as you hold the pointer. But once a bufferevent that is
        on top of another one is closed, its ``SSL *`` must not read or write any more.
        Wraps ``bufferevent_openssl_get_ssl``.
        """
        return self._session().ssl_of(self.pointer)

    @property
    def tls_version(self) -> str | None:
        """The version of TLS, such as "TLSv1.3", or None before the handshake is done."""
        return self._session().version(self.pointer)

    @property
    def cipher(self) -> tuple[str, str, int] | None:
        """The cipher's name, the version that defines it and its secret bits, or None before the
        handshake is done.
        """
        return self._session().cipher(self.pointer)

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's certificate as DER, or None if it sent none."""
        return next(iter(self._session().certificates(self.pointer, 1)), None)

    @property
    def peer_certificate_chain(self) -> list[bytes]:
        """The certificates that the peer sent, as DER, its own first; some may be untrusted.

        A resumed session has only the peer's own.
        """
        return self._session().certificates(self.pointer)

    @property
    def alpn_protocol(self) -> str | None:
        """The ALPN protocol that both sides have agreed on, or None."""
        return self._session().alpn_protocol(self.pointer)

    @property
    def server_hostname(self) -> str | None:
        """The host name that the client asks for, or None: as given here, or as the client sent."""
        return self._session().server_hostname(self.pointer)

    @property
    def session_reused(self) -> bool:
        """Whether the handshake resumed an earlier session."""
        return self._session().reused(self.pointer)

    @property
    def allow_dirty_shutdown(self) -> bool:
        """Whether a connection may end without TLS's closing notice; may be set.

        By default such an end is an ERROR, because an attacker could have cut the connection. When
        set it is EOF, with OpenSSL 3 too, where in C libevent 2.1 still reports an error.
        Wraps ``bufferevent_openssl_get_allow_dirty_shutdown``,
        ``bufferevent_openssl_set_allow_dirty_shutdown``.
        """
        self._session()
        return bool(lib.bufferevent_openssl_get_allow_dirty_shutdown(self.pointer))

    @allow_dirty_shutdown.setter
    def allow_dirty_shutdown(self, allow: bool) -> None:
        self._session().allow_dirty_shutdown(self.pointer, allow)

    def renegotiate(self) -> None:
        """Begin another handshake, with TLS 1.2 or older; `on_event` gets CONNECTED.

        A client gets it when that is done, a server once the client has been asked for one. Until
        it is done, both should write nothing: OpenSSL may end the connection when a side that
        writes finds the other's data amid the handshake.

        Raises `ValueError` with TLS 1.3, which can't renegotiate, and before the first handshake is
        done. Servers that use OpenSSL 3 refuse a client's request, unless their context has the
        option ``lib.SSL_OP_ALLOW_CLIENT_RENEGOTIATION``. Wraps ``bufferevent_ssl_renegotiate``.
        """
        given.check_may_act(self)
        self._session().renegotiate(self.base, self.pointer)
        tls.look(self)

    def shutdown(self) -> bool:
        """Send TLS's closing notice, which tells the peer that nothing more will come.

        libevent itself never sends it. You can still receive what the peer sends. Return whether
        the notice was sent: it isn't before the handshake is done, after a failure, or while the
        socket takes no more. Raises `ValueError` while there is output, which would be lost: wait
        until it is written. So it does without TLS: there, shut the socket itself down when
        `output` is empty, ``with socket.socket(fileno=os.dup(bev.fd)) as sock``. libevent has no
        function for that, either.
        """
        given.check_may_act(self)
        return self._session(tls.SHUTDOWN_INSTEAD).shut_down(self.base, self.pointer)

    def tls_errors(self) -> list[errors.TlsError]:
        """Return OpenSSL's errors, three at most, the cause first, and clear them.

        Wraps ``bufferevent_get_openssl_error``.
        """
        return self._session().take_errors(self.pointer)

    def _forget_failure(self) -> None:
        """Forget the last failure, to begin anew with another connection."""
        if self._tls is not None:
            self._tls.forget_failure()

    def _note_file(self) -> None:
        """Know that its output may have bytes that are not in memory from now on."""
        self._sends_files = True

    # Giving the bufferevent to HTTP, which frees it (F10, O11, P8).

    #: Let HTTP use and free C's object, and become closed when it has.
    _give = given.give
    _taken_back = given.taken_back

    @classmethod
    def _borrowed(
        cls, base: EventBase, pointer: CData, owner: Handle, tls: Session | None = None
    ) -> BufferEvent:
        """Make the Python object for a bufferevent that C has made for *owner*, which frees it."""
        bev: BufferEvent = cls.__new__(given.given(cls))
        plan = Plan(plans.with_arena(base), CLOSE_ON_FREE, owner=owner)
        bev._start(plan, next_key(), pointer, tls=tls)
        return bev
