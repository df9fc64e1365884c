"""Who frees what, when, and what happens to those who come late.

*What C may call* is told in `dispatch`.

*The pointer is the state.* `handle` tells of it, and of interrupts.

*The ledger.* A base knows everything made on it, by weak references. `Root.close` closes all of it
in the order of rule B2: events first, so that draining the loop runs none of their callbacks; then
listeners and bufferevents; then the loop is drained, because libevent frees these only there (B3,
F2); then the base. Where the collector finds the whole cycle at once, it finalizes in any order.
Then the base's finalizer only condemns it, and the last of its children to go frees it (C2: an
event dereferences its base when it is freed).

*The graveyard.* A finalizer may run in another thread than the loop's. Then what it would free is
put into the base's graveyard, and freed in the loop's own thread at its next clean moment.

*Shared pointers.* What has no base, as a buffer, has no thread either, and may be closed while a
call to it is under way: in one of its own callbacks (D2), or in another thread. So its pointer is
one that frees it with the last who holds it (`pointers`), and who calls C with a pointer holds it.

*Held.* Python may run other code in the middle of any method: a signal handler, a finalizer that
the collector calls, an argument's own ``__index__``. That code may close the object whose pointer
is on its way to C already. So an object that a method on the stack is about, and whose pointer is
held, is closed at once but freed when the pointer is let go (`Child.close`). A base's loop does not
run, and a base is not closed, inside a method that is about the base or anything made on it
(`in_the_middle`): so nobody finds freed what C itself frees in the loop.

*Owner.* A base, with all that is made on it, belongs to one thread at a time: the one that made it,
and then whoever last ran its loop, closed it or called `Root.take_over`. The others are refused,
but for the few methods of `any_thread`. Nobody can take a base over while its owner is in the
middle of a method that is about it: the owner's frames tell (`at_work`). One whose owner has ended
goes to the next who uses it.

*Fork.* A child shares its parent's epoll set: to delete an event there deletes it from the
parent's (A8). So after a fork all pointers are taken out of their slots and parked; `Root._unpark`
puts them back, after `event_reinit`, and only then frees what has been closed or dropped meanwhile.
A base, or a buffer, that another thread was in the middle of using is lost in the child for good.
"""

from __future__ import annotations

import atexit
import enum
import functools
import gc
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar

from libevent_py import errors
from libevent_py._core.described import described
from libevent_py._core.dispatch import live
from libevent_py._core.frames import (
    at_work,
    came_at_entry,
    in_the_middle,
)
from libevent_py._core.handle import (
    Fresh,
    Handle,
    Making,
    WithoutPointer,
    came_to_be,
    finalizers,
    left_alone,
    slot,
    take,
    without_pointer,
)
from libevent_py._core.pointers import ALONE, Countdown, copied, forget_all
from libevent_py._core.references import references, release_to

_claiming = threading.RLock()  # held by who looks at a base's owner and becomes it

# Looked up once, for what is called for every event made and freed.
get_ident = threading.get_ident
weak = weakref.ref

#: How many calls deep the closing of a base may go: where there is no room, it isn't begun.
HEADROOM = 60


def askable(base: Any) -> bool:
    """Tell whether C may be asked here and now about what is on *base*: it is this thread's."""
    return base._parked is None and get_ident() == base._thread


class Rank(enum.IntEnum):
    """Where in the order in which a base closes what is made on it (B2) a class stands."""

    #: First, so that draining the loop runs none of their callbacks.
    EVENT = enum.auto()
    #: What lets others in: nobody comes while the rest is closed.
    LISTENER = enum.auto()
    #: Calls before the server that they came by, which refuses what is left.
    RPC = enum.auto()
    #: RPC servers and pools before the HTTP server or the connections that carry them.
    RPC_END = enum.auto()
    #: HTTP before the bufferevents that were given to it, and what it looks names up by.
    HTTP = enum.auto()
    BUFFEREVENT = enum.auto()
    #: After whatever looks names up by it.
    DNS = enum.auto()
    #: What defers a buffer's callbacks: after the bufferevents, which may still change buffers.
    DEFERRAL = enum.auto()
    #: After the bufferevents, or each would be moved out of it.
    GROUP = enum.auto()


class Root(Handle):
    """What an event base is to everything made on it."""

    __slots__ = (
        "_awaited",
        "_calls",
        "_closing",
        "_collected",
        "_condemned",
        "_gate",
        "_graveyard",
        "_holds",
        "_ledger",
        "_live",
        "_lost",
        "_parked",
        "_running",
        "_thread",
    )

    def __init__(self, making: Making) -> None:
        #: What C may call, by key.
        self._live: dict[int, Any] = {}
        #: Everything made on this base and not closed, by key.
        self._ledger: dict[int, weakref.ref[Child]] = {}
        #: The keys of what is closed, but freed only when its pointer is let go.
        self._awaited: set[int] = set()
        #: What is to be freed at the next clean moment.
        self._graveyard: deque[tuple[Callable[[Any], object], Any]] = deque()
        #: The thread that alone may use this base: that made it, or has taken it over since.
        self._thread = get_ident()
        #: Whether the loop runs. No lock: CPython lets neither another thread nor a signal handler
        #: in between a test and a plain assignment, but between a lock and its ``try``.
        self._running = False
        #: Held by whoever uses the pointer from another thread than the base's.
        self._gate = threading.RLock()  # a signal handler may call while its own thread holds it
        #: After a fork, what this base and everything on it had in their slots, by `id`; else None.
        self._parked: dict[int, tuple[Handle, Any]] | None = None
        #: Whether another thread was in the middle of using it when this process was forked.
        self._lost = False
        #: How many calls outside the loop have entered C that may call back.
        self._calls = 0
        #: How many `with` blocks of each thread hold the lock of something made on the base.
        self._holds: dict[int, int] = {}
        #: The pointer of a base that is closed, but not freed: it is being closed, or the collector
        #: has finalized it before its children.
        self._condemned: Any = None
        #: Whether what is condemned is being freed, by who sees to all that there is.
        self._closing = False
        #: Whether the collector has found it, perhaps with what its callbacks use.
        self._collected = False
        making.into(self)
        roots.add(self)

    def _unusable(self) -> Exception:
        return self._why_unusable(self) or super()._unusable()

    def _may_ask(self) -> bool:
        return askable(self)

    def _why_unusable(self, handle: Handle) -> Exception | None:
        """Return the exception for *handle* of this base if only the fork has made it unusable."""
        if self._parked is None or id(handle) not in self._parked:
            return None
        return (
            self._lost_error()
            if self._lost
            else errors.ForkError(
                "this process was forked from the one that owns the event base: call reinit() first"
            )
        )

    def _check_found(self) -> None:
        """Raise `ForkError` if another thread was using the base when this process was forked."""
        if self._lost:
            raise self._lost_error()

    @staticmethod
    def _lost_error() -> errors.ForkError:
        return errors.ForkError(
            "another thread ran this event base's loop, or was in the middle of a call to it, when "
            "the process was forked, so it can't be used here: make another one"
        )

    def _check_thread(self) -> None:
        """Raise `ThreadError` unless this thread may use the base now.

        It may if it is the base's owner, or if the owner has ended: then this one is from now on.
        """
        if self._thread != get_ident():
            with _claiming:
                if is_alive(self._thread):
                    raise self._wrong_thread()
                self._thread = get_ident()

    def take_over(self) -> None:
        """Make this thread the owner of the base: it alone may use it and what is made on it.

        At first the thread that makes the base is its owner. `loop` and `close` take it over by
        themselves. Raises `ThreadError` while another thread runs the loop, or is in the middle of
        a call that is about the base or anything made on it.
        """
        self._check_usable()  # a closed base, or the parent process's, can't be taken over
        self._claim()

    def _claim(self) -> None:
        """Make this thread the owner, or raise `ThreadError`."""
        if self._thread == get_ident():
            return
        with _claiming:
            owner = self._thread
            self._thread = get_ident()  # from here on the owner's calls are refused
            busy = self._running or self._calls or self._holds
            if busy or at_work(self, sys._current_frames().get(owner)):
                self._thread = owner
                raise self._wrong_thread()

    def _wrong_thread(self) -> errors.ThreadError:
        """Return the exception that tells of a call from another thread than the base's own."""
        if self._running:
            return errors.ThreadError(
                "another thread runs this event base's loop: use base.defer(), event.active(), "
                "base.loopbreak() or base.loopexit() from here"
            )
        return errors.ThreadError(
            "this event base belongs to another thread: use base.defer() from here, or "
            "base.take_over() when that thread doesn't use it"
        )

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Enter C by *function*, as `errors.call` does, where it may call back at once."""
        if self._running:
            return errors.call(function, *arguments)
        self._calls += 1
        try:
            live.add(self)
            return errors.call(function, *arguments)
        finally:
            self._calls -= 1
            if not self._calls:
                try:
                    live.remove(self)
                except BaseException:  # an interrupt has kept it from that
                    live.remove(self)
                    raise

    def _tell(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Enter C by *function*, which may call back; what that raises waits for who raises it."""
        if self._running:
            function(*arguments)
            return
        self._calls += 1
        try:
            live.add(self)
            errors.enter(None, function, *arguments)
        finally:
            self._calls -= 1
            if not self._calls:
                try:
                    live.remove(self)
                except BaseException:  # an interrupt has kept it from that
                    live.remove(self)
                    raise

    def _busy(self) -> bool:
        """Tell whether C, or a method, may be in the middle of using something of this base."""
        return self._running or self._calls > 0 or in_the_middle(self, sys._getframe(1))

    # What others say of what is made on the base: nobody but this package's core looks by itself.

    def _may_call(self, key: int, thing: Any) -> None:
        """Have C's *key* lead to *thing*, which it may call from now on."""
        self._live[key] = thing

    def _may_not_call(self, key: int) -> None:
        """Have C's *key* lead nowhere any more."""
        self._live.pop(key, None)

    def _silencer(self) -> Callable[[int], object]:
        """Return what does as `_may_not_call`, and doesn't hold the base."""
        live = self._live
        return lambda key: live.pop(key, None)

    def _called_by(self, key: int) -> Any:
        """Return what C's *key* leads to, or None."""
        return self._live.get(key)

    def _begin_callbacks(self) -> None:
        """Have C's keys lead to what is on the base, as somebody enters C with it."""
        live.add(self)

    def _end_callbacks(self) -> None:
        """Have C's keys lead to nothing on the base, as nobody is in C with it any longer."""
        live.remove(self)

    def _forget(self, key: int) -> None:
        """Close the child *key* no longer with the base: C has freed it, or somebody else will."""
        self._live.pop(key, None)
        self._ledger.pop(key, None)

    def _know(self, child: Child) -> None:
        """Close *child* with the base."""
        self._ledger[child._key] = weak(child)

    def _knows(self, key: int) -> bool:
        """Tell whether the child *key* is made on the base, and not closed."""
        return key in self._ledger

    def _child(self, key: int) -> Child | None:
        """Return the child *key*, or None where it is being dropped."""
        return self._ledger[key]()

    def _children(self) -> list[Child]:
        """Return what is made on the base, and neither closed nor dropped."""
        refs = list(self._ledger.copy().values())
        return [child for ref in refs if (child := ref()) is not None]

    @property
    def _forked(self) -> bool:
        """Whether this is a forked child that has not called `EventBase.reinit`."""
        return self._parked is not None

    def _pointer_though_forked(self) -> Any:
        """Return the base's pointer, be it parked."""
        parked = self._parked or {}
        return parked[id(self)][1] if id(self) in parked else self.pointer

    def _unpark_never(self, handle: Handle) -> None:
        """Have `_unpark` put nothing back for *handle*: C has freed it."""
        if self._parked is not None:
            self._parked.pop(id(handle), None)

    def _put_back(self, handle: Handle, pointer: Any) -> None:
        """Put back the *pointer* that *handle* has been without: here, or where a fork parks it."""
        if self._parked is None:
            handle._put(pointer)
        else:
            self._parked[id(handle)] = handle, pointer

    # Freeing.

    def _bury(self, key: int, free: Callable[[Any], object], pointer: Any) -> None:
        """Free a child's *pointer* with *free*, now or at a clean moment; from any thread."""
        self._awaited.discard(key)
        here = self._parked is None and (self._condemned is None or self._closing)
        if here and self._thread == get_ident():
            try:
                free(pointer)
            except BaseException as error:
                self._bury_again(error, free, pointer)
                raise
            finally:
                self._ledger.pop(key, None)
            return
        with self._gate:  # so that nobody frees the base meanwhile
            try:
                now = self._frees_now()
                if now:
                    free(pointer)
                else:
                    self._graveyard.append((free, pointer))
            except BaseException as error:
                self._bury_again(error, free, pointer)
                raise
            finally:
                self._ledger.pop(key, None)
        if not now:
            try:
                self._has_buried()
            except BaseException:  # an interrupt must not keep the last child from freeing the base
                self._has_buried()
                raise

    def _bury_again(
        self, error: BaseException, free: Callable[[Any], object], pointer: Any
    ) -> None:
        """Have *free* called later if *error*, an interrupt, has come just where it began."""
        if came_at_entry(error):
            self._graveyard.append((free, pointer))

    def _free_when_clean(self, free: Callable[[Any], object], what: Any) -> None:
        """Have *free* free *what*: here and now, unless C or a method may be about to use it."""
        if self._busy():
            self._free_later(free, what)
        else:
            free(what)

    def _free_later(self, free: Callable[[Any], object], what: Any) -> None:
        """Have *free* free *what* at the next clean moment; in a forked child, after `reinit`."""
        self._once_clean(free, what)
        if self._parked is None:
            self._wake()

    def _once_clean(self, function: Callable[[Any], object], what: Any) -> None:
        """Call *function* with *what* at the next clean moment, which others see to."""
        self._graveyard.append((function, what))

    def _is_clean(self) -> bool:
        """Tell whether nothing waits for a clean moment."""
        return not self._graveyard

    def _frees_now(self) -> bool:
        """Tell whether whoever holds the gate may free what is on the base: its owner has ended."""
        if self._parked is not None or self.closed:  # a fork may come in the middle of closing it
            return False
        with _claiming:
            return not is_alive(self._thread)  # nor does anybody run the loop

    def _has_buried(self) -> None:
        """Have what is in the graveyard freed: by the loop, or with the base by the last child."""
        if self._parked is not None:
            return
        with self._gate:
            last = self._condemned is not None and not self._closing and not self._ledger
        if last:
            self._free_condemned()
        else:
            self._wake()

    def _exhume(self) -> None:
        """Free what is in the graveyard; only where no callback of what it holds is below.

        Also release what libevent has let go of (D4).
        """
        graveyard = self._graveyard
        while graveyard:
            free, pointer = graveyard[0]
            del graveyard[0]  # no call from here to free(): nobody interrupts
            try:
                free(pointer)
            except BaseException as error:
                self._bury_again(error, free, pointer)
                raise
        if references:
            release_to(lambda error: self._report(error, self))

    def _wake(self) -> None:
        """Have the loop come to a clean moment soon; from any thread."""
        raise NotImplementedError

    def _report(self, error: BaseException, source: Any) -> None:
        """Take what *source*'s callback raised."""
        raise NotImplementedError

    def close(self) -> None:
        """Close everything made on the base, then free the base itself: see `EventBase.close`."""
        if self.closed and (self._condemned is None or self._closing):
            return
        self._check_closable()  # first: whoever is refused has not become the owner
        if self._thread != get_ident():
            self._claim()
        errors.headroom(HEADROOM)
        before = errors.waiting()
        errors.enter(None, self._close, sys._getframe(1))
        errors.settle(before)

    def _close(self, caller: FrameType) -> None:
        if self._running:
            raise RuntimeError("close() was called while the loop runs: call loopexit() first")
        if self._calls:
            raise RuntimeError("close() was called inside a callback")
        if self._holds:
            raise RuntimeError("close() was called where the lock of a bufferevent is held")
        if in_the_middle(self, caller):
            raise RuntimeError("close() was called in the middle of another call about the base")
        self._running = self._closing = True
        try:
            with self._gate:
                self._condemn()
            if self._parked is None and self._condemned is not None:
                live.add(self)
                self._close_children()
                if self._ledger:
                    self._forget_orphans()
                with self._gate:
                    self._closing = False
                    last = not self._ledger  # or another finalizer has yet to come for its child
                if last:
                    self._free_condemned()
            if self._parked is not None:  # since then or for long
                self._abandon()
        finally:
            self._running = self._closing = False
            try:
                live.remove(self)
            except BaseException:  # an interrupt has kept it from that
                live.remove(self)
                raise

    def _condemn(self) -> None:
        """Be closed, but have the pointer, until it is freed."""
        try:
            kind: Any = type(self)
            slot(self)
            bare = without_pointer(kind)
            pointer = slot(self)
            self._condemned = pointer  # no call from here on: see `_take`
            del self.pointer
            self.__class__ = bare
        except AttributeError:
            return

    def _abandon(self) -> None:
        """Leave what there is in C to the parent process."""
        self._parked = self._condemned = None
        self._ledger.clear()
        self._live.clear()
        self._graveyard.clear()

    def _check_closable(self) -> None:
        """Raise an error unless this thread can close everything made on the base."""

    def _close_children(self) -> None:
        known: set[int] = set()
        # A copy: to list tuples may run the collector, whose finalizers change the ledger.
        while unknown := [item for item in self._ledger.copy().items() if item[0] not in known]:
            # Those who are told may make something new, which is closed then.
            known.update(key for key, _ in unknown)
            children = [child for _, ref in unknown if (child := ref()) is not None]
            children.reverse()  # what was made later may stand on what was made earlier
            for child in sorted(children, key=lambda child: child._rank):
                if not came_to_be(child):  # an interrupt has kept it from that
                    self._ledger.pop(child._key, None)
                    continue
                try:
                    child.close()
                except BaseException as error:  # be it that of a user's class: the rest is closed
                    errors.keep(error)
                if self._parked is None and not child.closed:
                    child._dispose()

    def _forget_orphans(self) -> None:
        """Wait no longer for children that an interrupt has kept from saying that they are closed.

        Be it just where their finalizer began. A dead child may also be one whose finalizer
        the collector has yet to call: but not when it has run once more. And one that is closed may
        be so by a method that has called who closes the base.
        """
        known = [(key, ref()) for key, ref in self._ledger.copy().items()]
        dead = [
            key
            for key, child in known
            if key not in self._awaited
            and (child is None or (child.closed and not child._is_in_use()))
        ]
        before = gc.get_stats()[-1]["collections"]
        gc.collect()
        if gc.get_stats()[-1]["collections"] > before:  # else it is at work: below, or elsewhere
            for key in dead:
                self._ledger.pop(key, None)

    def _free(self, pointer: Any) -> None:
        """Free the base's own C objects; its children are closed by now, or in the graveyard."""
        raise NotImplementedError

    def _free_condemned(self) -> None:
        """Free the base in the collector's stead; finalizers of its events still run."""
        pointer = self._condemned
        if pointer is None:  # in a forked child
            return
        before = errors.waiting()
        self._running = self._closing = True
        try:
            live.add(self)
            errors.enter(None, self._free, pointer)
        finally:
            self._running = self._closing = False
            self._live.clear()
            try:
                live.remove(self)
            except BaseException:  # an interrupt has kept it from that
                live.remove(self)
                raise
        errors.settle(before)

    def __del__(self) -> None:
        try:
            self._finalize()
        except BaseException:  # an interrupt, which stays in here anyway
            self._finalize()
            raise

    def _finalize(self) -> None:
        self._condemn()
        if getattr(self, "_condemned", None) is None or self._parked is not None:
            return  # it is freed, or has never come to be
        self._collected = True
        if not self._ledger:
            self._free_condemned()

    # Fork.

    def _park(self, lost: bool) -> None:
        """Take the pointers out of their slots, in a forked child; for good where it is *lost*."""
        self._gate = threading.RLock()  # another thread may have held it
        self._lost = self._lost or lost
        if self._thread != get_ident():  # whoever ran the loop, or was inside a call, is gone
            self._lost = self._lost or self._running or self._calls > 0
            self._running = False
            self._calls = 0
            self._thread = get_ident()
        self._holds = {me: n for me, n in self._holds.items() if me == get_ident()}
        closing = self.closed
        if self._parked is not None or (closing and not self._ledger and not self._running):
            return
        handles: list[Handle] = [] if closing else [self]
        for ref in list(self._ledger.values()):
            if (child := ref()) is not None:
                handles += [child, *child._lent()]
        parked = {id(handle): (handle, handle._take()) for handle in handles}
        if closing:  # then here all is closed, and nothing is freed
            parked.clear()
            self._live.clear()
            self._condemned = None
        # What has no pointer was about to be closed, by whom the fork goes on.
        self._parked = {key: entry for key, entry in parked.items() if entry[1] is not None}

    def _unpark(self) -> None:
        """Put the pointers back, and free what has been closed meanwhile."""
        parked, self._parked = self._parked, None
        for handle, pointer in (parked or {}).values():
            handle._put(pointer)
        if self._running or self._calls:  # reinit() may have been called below what would be freed
            self._wake()
        else:
            self._exhume()


@described(
    base="The `EventBase` that it is made on.",
)
class Child(Handle):
    """Something made on a base, which must be freed before it."""

    __slots__ = ("_key", "base")

    _rank: ClassVar[Rank] = Rank.EVENT

    #: `UNUSED` where nothing has ever been done with it, and so something has been forgotten. Where
    #: that can be is a slot which is there for something else: to keep it costs nothing.
    _armed: Any = None

    #: Whether it has anything `_lent`.
    _lends: ClassVar[bool] = False

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls._lends = cls._lent is not Child._lent

    def __init__(self, base: Root, key: int, pointer: Any) -> None:
        self.base: Any = base
        self._key = key
        ref = weak(self)
        base._ledger[key] = ref  # no call from here on: it has a pointer only where its base knows
        if type(pointer) is not Making:
            self.pointer = pointer
            return
        try:
            pointer.into(self)
        finally:
            if not came_to_be(self):
                base._ledger.pop(key, None)

    #: Frees the C object.
    _free: Callable[[Any], object]

    def _unusable(self) -> Exception:
        return self.base._why_unusable(self) or super()._unusable()

    def _lent(self) -> list[Handle]:
        """Return the handles of what C made as parts of this object, which end with it."""
        return []

    def _take_lent(self) -> list[Any]:
        """Take the pointers of what is `_lent`; return those that must be let go before `_free`."""
        return take(self._lent())

    def _do_without(self, other: Child) -> None:
        """Use *other* no longer, which is of the same base and about to be closed."""

    def close(self) -> None:
        """Free the C object; a second time does nothing. Raises `ThreadError` in a wrong thread.

        In the middle of a method that is on its way to C with it, it is freed when that returns.
        """
        base = self.base
        if self.closed:
            return
        base._check_thread()
        if base._parked is None:
            self._dispose()
        elif id(self) in base._parked:  # it is the parent process's, unless reinit() shares it
            base._live.pop(self._key, None)
            base._ledger.pop(self._key, None)
            for handle in self._lent():
                base._parked.pop(id(handle), None)
            base._graveyard.append((self._free, base._parked.pop(id(self))[1]))

    def _dispose(self) -> None:
        """Take the pointer from its slot, and free it: now, at a clean moment, or when let go.

        The part of `close` that no class of a user's can leave out.
        """
        base: Root = self.base
        free, kind = self._free, type(self)
        todo = False
        try:
            slot(self)
            bare: Any = without_pointer(kind)
            pointer = slot(self)
            if self.__class__ is kind:  # no call from here on: nobody sees it empty and open
                del self.pointer
                self.__class__ = bare
                todo = True
        except AttributeError:  # other code has closed it
            return
        if not todo:  # other code has had it become of another class
            self._dispose()
            return
        held: list[Any] = []
        grave = None
        try:
            base._live.pop(self._key, None)
            if sys.getrefcount(pointer) > ALONE and self._is_in_use():
                held = [pointer]
            if self._lends:
                held += self._take_lent()
            if held:
                grave = Countdown(functools.partial(base._bury, self._key, free, copied(pointer)))
                base._awaited.add(self._key)
                grave.begin(held)
                return
            owned = base._thread == get_ident()
            todo = False  # no call from here on: nobody interrupts
            if owned and base._parked is None and (base._condemned is None or base._closing):
                free(pointer)
            else:
                base._bury(self._key, free, pointer)
        except BaseException as error:
            if todo and not (grave and grave.began):
                take(self._lent())
                base._awaited.discard(self._key)
                base._graveyard.append((free, pointer))
                held.clear()
            elif not todo:
                base._bury_again(error, free, pointer)
            raise
        finally:
            if not held:
                base._ledger.pop(self._key, None)

    def _may_ask(self) -> bool:
        return askable(self.base)

    def __del__(self) -> None:
        try:
            slot(self)
        except AttributeError:  # it is closed, or never came to be
            return
        except BaseException:  # an interrupt, which stays in here anyway
            self._dispose()
            raise
        complaint: str | bool = False
        try:
            complaint = self._armed is UNUSED and self._complaint()
        finally:
            try:
                self._dispose()
            except BaseException:
                if not isinstance(self, WithoutPointer):
                    self._dispose()
                raise
        if complaint:
            warnings.warn(complaint, ResourceWarning, stacklevel=2, source=self)

    def _complaint(self) -> str:
        """Return what is to be said where it is dropped unused; "" where its base goes, too."""
        base: Root = self.base
        # In one cycle with it the collector has cleared the references of `roots` by now.
        if base.closed or base._condemned is not None or base not in roots:
            return ""
        # Each that is made on it has it, too: is there anybody else?
        if sys.getrefcount(self.base) - REFERENCES_HERE < len(base._ledger):
            return ""
        return self._what_to_do()

    def _what_to_do(self) -> str:
        """Return the text that says what has been forgotten, or "" if nothing has been."""
        return ""


finalizers.add(Child.__del__)

#: What `Child._armed` is until there has been any use of it: false, and nothing else's value.
UNUSED: tuple[()] = ()

#: How many of a base's references `Child._complaint` sees that are its own, and the object's.
REFERENCES_HERE = 3


@atexit.register
def _at_exit() -> None:
    """Leave the rest to the system: finalizers come when what they need has been taken down."""
    forget_all()
    for kind in (Root, Child, Fresh):
        kind.__del__ = left_alone  # type: ignore[method-assign]


def renew_locks() -> None:
    """Make anew, in a forked child, what another thread may have held."""
    global _claiming
    _claiming = threading.RLock()


def callable_here() -> list[Any]:
    """Return what C may call in this thread, on all of its bases."""
    here = [root for root in roots if root._thread == get_ident() and root._parked is None]
    return [thing for root in here for thing in list(root._live.values())]


def is_alive(thread: int) -> bool:
    """Tell whether the thread that has, or had, this number runs."""
    return thread in sys._current_frames()


#: Every base there is, for the fork.
roots: weakref.WeakSet[Root] = weakref.WeakSet()
