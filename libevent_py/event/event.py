"""``struct event``: a descriptor, timer, signal or user event, and its callback.

An event is in its base's ``live`` while C may call it. Python notes that in `_armed`, and asks C
only where the two can differ. libevent deletes a non-persistent event just before its callback
runs, so the event is disarmed afterwards unless the callback adds it or makes it active again. For
any other event, C is asked after each callback until it says that the event stays pending.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from libevent_py import debug, errors
from libevent_py._core import convert, for_c, signals
from libevent_py._core.called import ON_EVENT, explained_as
from libevent_py._core.child import UNUSED, Child, Rank
from libevent_py._core.convert import FileDescriptor, Seconds, Timeout
from libevent_py._core.dispatch import from_c, next_key
from libevent_py._core.frames import any_thread
from libevent_py._core.handle import without_pointer
from libevent_py._core.owner import get_ident, weak
from libevent_py._ffi import ffi, lib
from libevent_py.enums import EventFlag
from libevent_py.event.base import FLAGS, IO, EventBase
from libevent_py.event.common_timeout import CommonTimeout
from libevent_py.event.explain import callback_text

if TYPE_CHECKING:
    from libevent_py._ffi import CData

E = TypeVar("E", bound="Event")

#: What an event calls, as ``callback(event, fd, what)``: ``event_callback_fn``.
EventCallback: TypeAlias = Callable[["Event", int, EventFlag], object]

#: What `Event.close` has called in the end: ``event_finalize_callback_fn``.
FinalizeCallback: TypeAlias = Callable[["Event"], object]

_ALL = EventFlag.TIMEOUT | EventFlag.READ | EventFlag.WRITE | EventFlag.SIGNAL | EventFlag.CLOSED
_TIMEOUT = EventFlag.TIMEOUT
new_object: Callable[[type[E]], E] = object.__new__
event_active: Final = lib.evpy_event_active  # an attribute of lib costs as much as a short call
event_add: Final = lib.evpy_event_add
event_del: Final = lib.evpy_event_del
event_new: Final = lib.evpy_event_new
event_stays: Final = lib.evpy_event_stays
_MAX_SECONDS = convert.MAX_SECONDS
_MICROSECOND = 1e-6  # C may round a shorter timeout to 0


if TYPE_CHECKING:

    class EventState(Child):
        """What C reads and sets of an event."""

        #: Whether C may call the event. None while its callback runs and this may be the last call;
        #: UNUSED, which is false too, until the event is added or made active.
        _armed: bool | tuple[()] | None
        _then: bool | None  # what _armed becomes when it fires: True when it stays pending
        _callback: Callable[..., object]
        _fd: int  # or the signal number
        _what: int

else:
    EventState = for_c.extended("EventState", Child)


class Event(EventState):
    """Something to wait for on a base, and a callback for it; usable in ``with``, which closes it.

    A pending event stays alive by itself; any other is freed with the last reference to it. An
    event that was never added or made active causes a `ResourceWarning` when it is dropped, which
    ``python -X dev`` shows.
    """

    __slots__ = ("_file",)

    _file: FileDescriptor | None

    _rank = Rank.EVENT
    _free = staticmethod(lib.event_free)

    def __init__(
        self,
        base: EventBase,
        fd: FileDescriptor,
        what: int,
        callback: EventCallback,
        *,
        priority: int | None = None,
    ) -> None:
        """Make an event that calls ``callback(event, fd, what)``; `add` starts the wait.

        *fd* is a descriptor, or anything with a ``fileno``, which is kept alive but not closed;
        with SIGNAL it is a signal number; without READ, WRITE, CLOSED and SIGNAL it is -1. Delete
        the event before you close the descriptor. Raises `TypeError`, `ValueError` or `OSError`
        naming what is wrong with an argument; unlike in C, also for READ, WRITE or CLOSED with -1
        or a descriptor that is closed. Wraps ``event_new``.
        """
        self._check_unkeyed()
        what = convert.flags(EventFlag, what, "what")
        number = _checked(fd, what)
        self._check_unkeyed()  # the fileno() of *fd* may have made it meanwhile
        _make(self, base, number, int(what), callback)
        if fd is not number:
            self._file = fd
        if priority is not None:
            self._armed = False  # if this raises, nobody forgot to add the event: don't warn
            self.priority = priority
            self._armed = UNUSED

    def _check_unkeyed(self) -> None:
        """Raise `RuntimeError` if ``__init__`` has run before, even for an event that is closed."""
        if hasattr(self, "_key"):
            raise RuntimeError(f"this {type(self).__name__} has been made already")

    @classmethod
    def timer(
        cls: type[E], base: EventBase, callback: EventCallback, *, persist: bool = False
    ) -> E:
        """Make an event that fires after the timeout given to `add`; with *persist*, repeatedly.

        Wraps ``event_new``. Stands for ``evtimer_new``.
        """
        if cls is not Event:
            return cls(base, -1, lib_PERSIST if persist else 0, callback)
        return _make(new_object(cls), base, -1, lib_PERSIST if persist else 0, callback)

    @classmethod
    def signal(
        cls: type[E],
        base: EventBase,
        signum: int,
        callback: EventCallback,
        *,
        persist: bool = True,
    ) -> E:
        """Make an event that fires when the process gets *signum*, in place of Python's handler.

        Wraps ``event_new``. Stands for ``evsignal_new``.
        """
        what = EventFlag.SIGNAL | EventFlag.PERSIST if persist else EventFlag.SIGNAL
        return cls(base, signum, what, callback)

    @classmethod
    def user(cls: type[E], base: EventBase, callback: EventCallback) -> E:
        """Make an event that only `active` fires.

        Wraps ``event_new``. Stands for ``evuser_new``.
        """
        if cls is not Event:
            return cls(base, -1, 0, callback)
        return _make(new_object(cls), base, -1, 0, callback)

    # Waiting.

    def add(self: E, timeout: Timeout | CommonTimeout = None) -> E:
        """Wait for the event, for at most *timeout* seconds; return the event.

        On a pending event a new timeout replaces the old one, and None keeps it. With 0 the event
        fires in the loop's next turn. An event that is already active only gets the timeout. Raises
        `OSError` when the backend refuses the descriptor, as select does beyond FD_SETSIZE; in C a
        fortified libevent ends the process there. Unlike in C, raises `ThreadError` in another
        thread than the loop's. Wraps ``event_add``.
        """
        base = self.base
        if base._thread != get_ident():
            base._check_thread()
        what = self._what
        if not what and type(timeout) is float and _MICROSECOND <= timeout <= _MAX_SECONDS:
            if event_add(self.pointer, timeout):
                raise self._refused()
            self._armed = True
            base._live[self._key] = self  # hot: may_call()
            try:
                self.pointer  # noqa: B018  (hot: as below)
            except errors.ClosedError:
                self._disarm()
                raise
            return self
        if type(timeout) is float and 0.0 <= timeout <= _MAX_SECONDS:
            seconds = timeout
        elif isinstance(timeout, CommonTimeout):
            return self._add_common(timeout)
        else:
            seconds = -1.0 if timeout is None else self._converted(timeout)
        pointer = self.pointer
        if what & lib_SIGNAL:
            signals.claim(base)
        if event_add(pointer, seconds):
            raise self._refused()
        if seconds >= 0 or what & lib_WAITS:
            if seconds < _MICROSECOND:
                self._then = None  # libevent doesn't begin a timeout of 0 anew
            self._armed = True
            base._live[self._key] = self  # hot: may_call()
            if what & lib_SIGNAL:
                signals.added(self._fd, self._key)
            try:
                self.pointer  # noqa: B018  (hot: _check_usable())
            except errors.ClosedError:  # closed by a signal handler, freed when we drop the pointer
                self._disarm()
                raise
        return self

    def _add_common(self: E, timeout: CommonTimeout) -> E:
        if timeout.base is not self.base:
            raise ValueError("timeout must be a CommonTimeout of the event's own base")
        if self._what & lib_SIGNAL:
            signals.claim(self.base)
        tv, pointer = timeout.pointer, self.pointer  # held until `_check_open` has looked
        if lib.evpy_event_add_timeval(pointer, tv):
            raise self._refused()
        self._armed = True
        self.base._live[self._key] = self  # hot: may_call()
        if self._what & lib_SIGNAL:
            signals.added(self._fd, self._key)
        self._check_open()
        return self

    def _converted(self, timeout: Seconds) -> float:
        self._tried()
        return convert.seconds(timeout)

    def _tried(self) -> None:
        """Note that somebody tried to add the event, even if an error has prevented it."""
        if self._armed is UNUSED:
            self._armed = False

    def _refused(self) -> Exception:
        self._tried()
        if self._what & lib_SIGNAL:
            return errors.failed(lib.event_add, f"signal {self._fd} with {self.base.method}")
        return errors.failed(lib.event_add, convert.fd_with(self._fd, self.base.pointer))

    def delete(self, *, block: bool | None = None) -> None:
        """Stop waiting for the event; it won't fire even if it is already active.

        *block* chooses between C's variants, which differ only outside the loop's own thread. There
        this raises `ThreadError`, unlike in C.
        Wraps ``event_del``, ``event_del_block``, ``event_del_noblock``.
        """
        self.base._check_thread()
        pointer = self.pointer
        if self._what & lib_SIGNAL:
            signals.check_deletable(self._fd, self._key)
        if event_del(pointer, -1 if block is None else bool(block)):
            raise errors.failed(lib.event_del, f"fd {self._fd}")
        self._disarm()
        if event_stays(pointer):
            self._rearm(pointer)

    def remove_timer(self) -> None:
        """Remove the timeout, and wait on without it. Wraps ``event_remove_timer``."""
        self.base._check_thread()
        pointer = self.pointer
        if lib.evpy_event_remove_timer(pointer):
            raise errors.failed(lib.event_remove_timer)
        self._then = None
        if not event_stays(pointer):
            self._disarm()
            if event_stays(pointer):
                self._rearm(pointer)

    @any_thread
    def active(self, what: int = _TIMEOUT, ncalls: int = 1) -> None:
        """Fire the event for *what*, pending or not; may be called from any thread.

        The loop is woken, and runs the callback if the event has not been closed by then. A signal
        event's callback is called *ncalls* times. Don't make an event active in its own callback
        to go on with something: libevent would run it in the same turn, again and again, and look
        at no descriptor meanwhile. ``add(0.0)`` lets others run. Unlike in C, another thread's call
        takes effect only in the loop. Wraps ``event_active``.
        """
        base, pointer = self.base, self.pointer
        if base._thread != get_ident():  # the base's loop may begin at any time
            base.defer(self._active_here, *_activation(what, ncalls))
        elif what is _TIMEOUT and ncalls == 1:
            if self._armed is None and not self._what & lib_SIGNAL:
                self._armed = True
            elif not self._armed:
                self._arm_once()
            event_active(pointer)
            if self._armed is False:
                self._rearm(pointer)
        else:
            self._active_as(what, ncalls)

    def _active_here(self, what: int, ncalls: int) -> None:
        if not self.closed:
            self.active(what, ncalls)

    def _active_as(self, what: int, ncalls: int) -> None:
        activation = _activation(what, ncalls)
        pointer = self.pointer
        if not self._armed:
            self._arm_once()
        lib.evpy_event_active_as(pointer, *activation)
        if self._armed is False:
            self._rearm(pointer)

    def _arm_once(self) -> None:
        """Note that C will call the event, though it doesn't wait for anything."""
        if self._armed is not None:
            self._then = None
            self._armed = True
            self.base._live[self._key] = self  # hot: may_call()
            self._check_open()
        elif not self._what & lib_SIGNAL:
            self._armed = True
        # Else loopbreak() may cancel the calls that are left: _fired_last() asks C.

    def _check_open(self) -> None:
        """Disarm the event and raise `ClosedError` if a signal handler has closed it."""
        try:
            self.pointer  # noqa: B018  (hot: _check_usable())
        except errors.ClosedError:
            self._disarm()
            raise

    # Facts about the event.

    def _facts(self, ask: bool) -> Iterator[str]:
        if self._what & lib_SIGNAL:
            yield f"signal {self._fd}"
        else:
            yield "timer" if self._fd < 0 else f"fd {self._fd}"
        if self._what:
            yield EventFlag(self._what).names
        if ask:
            pending = EventFlag(lib.event_pending(self.pointer, _ALL, ffi.NULL))
            yield f"pending {pending.names}" if pending else "not pending"
        if not self.closed:
            yield f"calls {callback_text(self._callback)}"

    @property
    def pending(self) -> EventFlag:
        """What the event is waiting for or active with; ``EventFlag(0)`` if neither.

        Wraps ``event_pending``.
        """
        return EventFlag(lib.event_pending(self._pointer_here(), _ALL, ffi.NULL))

    @property
    def expires(self) -> float | None:
        """The Unix time in seconds when the timeout ends, or None without a timeout.

        Wraps ``event_pending``.
        """
        tv = ffi.new("struct timeval *")
        if not lib.event_pending(self._pointer_here(), _TIMEOUT, tv):
            return None
        return convert.from_unix_time(tv)

    @property
    def initialized(self) -> bool:
        """Whether libevent knows the event: always, until it is closed.

        Wraps ``event_initialized``.
        """
        return bool(lib.event_initialized(self._pointer_here()))

    @property
    def fd(self) -> int:
        """The descriptor, or -1. Wraps ``event_get_fd``."""
        return -1 if self._what & lib_SIGNAL else int(lib.event_get_fd(self._pointer_here()))

    @property
    def signum(self) -> int | None:
        """The signal number, or None. Wraps ``event_get_fd``. Stands for ``event_get_signal``."""
        return int(lib.event_get_fd(self._pointer_here())) if self._what & lib_SIGNAL else None

    @property
    def what(self) -> EventFlag:
        """The flags that the event was made with: what it waits for, and how.

        Wraps ``event_get_events``. Stands for ``event_get_assignment``.
        """
        return EventFlag(lib.event_get_events(self._pointer_here()))

    @property
    def callback(self) -> EventCallback:
        """The function called when the event fires: ``callback(event, fd, what)``; may be set."""
        return self._callback

    @callback.setter
    def callback(self, callback: EventCallback) -> None:
        self._check_usable()  # after close() the callback may be the finalizer
        self._callback = convert.callback(callback)

    @property
    def priority(self) -> int:
        """The event's priority, 0 being the most urgent; can't be changed while it is active.

        Wraps ``event_get_priority``, ``event_priority_set``.
        """
        return int(lib.event_get_priority(self._pointer_here()))

    @priority.setter
    def priority(self, priority: int) -> None:
        self.base._check_thread()
        priority = convert.integer(priority, "priority", 0, self.base.n_priorities - 1)
        errors.call(lib.event_priority_set, self.pointer, priority)

    # The end.

    def close(self, finalize: FinalizeCallback | None = None) -> None:
        """Delete and free the event; a second time does nothing.

        With *finalize*, the loop calls ``finalize(event)`` once the event's callback can't run any
        more, at the latest when the base is closed; in a forked child, after `EventBase.reinit`.
        Wraps ``event_free``, ``event_free_finalize``.
        """
        if finalize is not None:
            convert.callback(finalize, "finalize")
        if self.closed:
            return
        self.base._check_thread()
        if self._what & lib_SIGNAL:
            signals.check_deletable(self._fd, self._key)
        if finalize is None or self.base._forked:
            try:
                super().close()
                self._disarm()
                if self.base._closings:
                    self.base._note_closed(self._key)
            except BaseException:  # an interrupt
                if self.closed:
                    self.base._once_clean(Event._disarm, self)  # after it is freed
                raise
            finally:
                if finalize is not None and self.closed:
                    self.base._once_clean(self._tell_when_quiet, finalize)
            return
        taken: list[CData] = []
        try:
            self._take_into(taken)
        finally:  # even after an interrupt
            if taken:  # else other code has closed it in between
                try:
                    lib.evpy_finalize_event(taken[0])
                    self._await(finalize)
                except BaseException:  # an interrupt: C has done its part
                    self._await(finalize)
                    raise
                self.base._note_closed(self._key)

    def _await(self, finalize: FinalizeCallback) -> None:
        """Expect the loop to call *finalize*, as C knows nothing else of the event any longer."""
        base, key = self.base, self._key
        self._disarm()  # after C has put back the signal handler that it found
        base._forget(key)
        base._may_call(key, self)
        self._armed = True  # or the end of the event's own callback would disarm the finalizer
        self._callback = finalize

    def _tell_when_quiet(self, finalize: FinalizeCallback) -> None:
        """Have the loop call *finalize*, as the event that a forked child has closed is freed."""
        self.base._when_quiet(self._tell, finalize, now=False)

    def _tell(self, finalize: FinalizeCallback) -> None:
        try:
            finalize(self)
        except BaseException as error:
            self.base._report(error, self)

    def _what_to_do(self) -> str:
        if type(self).__init__ is not Event.__init__:
            return ""  # that __init__ may have raised, so that nobody ever had the event
        if self._may_ask() and lib.event_pending(self.pointer, _ALL, ffi.NULL):
            return ""  # somebody has added it through `libevent_py.lib`
        what = "call .add() or .active(), or .close() it where there is no need"
        return f"{self!r} has been dropped without ever having been added: {what}"

    def _disarm(self) -> None:
        """Note that C won't call the event any more."""
        self._armed = False
        self.base._may_not_call(self._key)
        if self._what & lib_SIGNAL:
            signals.removed(self._fd, self._key)

    def _rearm(self, pointer: CData) -> None:
        """Arm the event, which C may call although it has been disarmed.

        A signal handler has added it, or made it active, in the middle of what disarms it; or has
        deleted it in the middle of what makes it active.
        """
        if self.closed or self.base._forked:
            return
        self._then = None
        self._armed = True
        self.base._may_call(self._key, self)
        if self._what & lib_SIGNAL and lib.event_pending(pointer, lib_SIGNAL, ffi.NULL):
            signals.added(self._fd, self._key)
            signals.reclaim(self.base)  # Python's own handler has been set again
        if self.closed:
            self._disarm()

    def _stay(self) -> CData:
        """Return the pointer, and have C find the event until it is deleted, added or not.

        For an event of the package's own that is added again and again, by `event_add` itself.
        """
        pointer = self.pointer
        self._armed = self._then = True
        self.base._may_call(self._key, self)
        return pointer

    def _fired_last(self) -> None:
        """Disarm the event, unless libevent has more calls for it."""
        if self.base._forked:  # C can't be asked in a forked child
            self._armed = True
            return
        try:
            pointer = self.pointer
        except errors.ClosedError:
            self._disarm()
            return
        stays = event_stays(pointer)
        if stays:
            self._armed = True
            self._then = stays == lib_FOR_GOOD or None
            return
        self._disarm()
        if event_stays(pointer):
            self._rearm(pointer)


#: Members of EventFlag as plain ints, which combine ten times as fast.
lib_SIGNAL: Final = int(EventFlag.SIGNAL)
lib_PERSIST: Final = int(EventFlag.PERSIST)
lib_WAITS: Final = int(IO | EventFlag.SIGNAL)
lib_FOR_GOOD = 2


def _checked(fd: FileDescriptor, what: EventFlag) -> int:
    """Return *fd* as the descriptor or signal number that an event for *what* takes."""
    if what & EventFlag.SIGNAL:
        if what & (IO | EventFlag.ET):
            raise ValueError(f"what can't have SIGNAL beside READ, WRITE, CLOSED or ET: {what!r}")
        return signals.number(fd)  # type: ignore[arg-type]  # which refuses what is no number
    if not what & IO:
        what_for = "fd (without READ, WRITE and CLOSED)"
        return convert.integer(fd, what_for, -1, -1)  # type: ignore[arg-type]  # as above
    number = convert.descriptor(fd)
    if debug.enabled("debug_mode") and os.get_blocking(number):
        raise ValueError(f"fd {number} must not block when libevent's debug mode is on")
    return number


def _activation(what: int, ncalls: int) -> tuple[int, int]:
    """Return the arguments of `Event.active` as C takes them."""
    what = convert.flags(EventFlag, what, "what")
    if what & ~_ALL:
        raise ValueError(f"what must be of {_ALL!r}, not {what!r}")
    return what, convert.integer(ncalls, "ncalls", 1, 2**15 - 1)


def _make(event: E, base: EventBase, fd: int, what: int, callback: EventCallback) -> E:
    if not callable(callback):
        raise TypeError(f"callback must be callable, not {callback!r}")
    if not isinstance(base, EventBase):
        raise TypeError(f"base must be an EventBase, not {base!r}")
    if base._thread != get_ident():
        base._check_thread()
    key = next_key()
    event._callback = callback
    event._fd = fd
    event._what = what
    event._armed = UNUSED
    event._then = None
    # As Child.__init__ does, but faster: some programs make an event for each request.
    event.base = base
    event._key = key
    base._ledger[key] = weak(event)  # hot: know()
    try:
        pointer = event_new(base.pointer, fd, what, key)
        if not pointer:
            raise errors.failed(lib.event_new)
    except BaseException:  # perhaps an interrupt, just after C has made it
        lib.evpy_event_unmake(key)
        base._forget(key)
        raise
    event.pointer = pointer
    return event


@from_c(late=1, raised=0)
def evpy_finalize(event: Event) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    if event._armed:
        event._armed = False  # no call from here to the callback's own
        try:
            event._callback(event)
        except BaseException as error:
            try:
                event.base._report(error, event)
            except BaseException as interrupt:
                errors.keep(interrupt)
    event._disarm()
    return 1


# C calls these, too: it calls an event's callback itself (`evpy_event` in ``_c/event.c``).


def _raised(event: Event, error: BaseException) -> None:
    """Report what *event*'s callback has raised."""
    event.base._report(explained_as(error, ON_EVENT), event)


for_c.give(
    Event=Event,
    closed_event=without_pointer(Event),
    event_flags=FLAGS,
    event_raised=_raised,
    event_fired_last=Event._fired_last,
)
