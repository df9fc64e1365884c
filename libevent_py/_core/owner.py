"""Who frees what, and when.

`dispatch` explains what C may call. `handle` explains why the pointer is an object's state, and how
interrupts are survived.

*The ledger.* A base knows everything made on it, by weak references. `Root.close` closes all of it
in the order of rule B2: events first, so that draining the loop runs none of their callbacks; then
listeners and bufferevents; then it drains the loop, because libevent frees these only there (B3,
F2); then it frees the base. The garbage collector, when it finds the whole cycle at once, finalizes
in any order. Then the base's finalizer only condemns it, and the last child to be freed frees it,
because an event uses its base when it is freed (C2).

*The graveyard.* A finalizer may run in a thread that doesn't own the base. Then the C object goes
into the base's graveyard, and the owner thread's loop frees it at its next clean moment.

*Shared pointers.* An object without a base, such as a buffer, belongs to no thread, and may be
closed while a call to it is under way: in one of its own callbacks (D2), or in another thread. So
its pointer frees it with the last reference to the pointer (`pointers`), and a method that calls C
has such a reference.

*In use.* Python may run other code in the middle of any method: a signal handler, a finalizer that
the garbage collector calls, an argument's own ``__index__``. That code may close an object whose
pointer the method is about to pass to C. So if a method on the stack uses the object and has a
reference to its pointer, the object is closed at once, but freed only when that reference is
dropped (`Child.close`). A base's loop does not run, and a base is not closed, inside a method that
uses the base or anything made on it (`in_the_middle`). So no method finds that C has freed, in the
loop, what it is using.

*Owner.* A base, with everything made on it, belongs to one thread at a time: the one that made it,
then whichever last ran its loop, closed it or called `Root.take_over`. Other threads are refused,
except by the few methods marked `any_thread`. A thread can't take a base over while its owner is in
the middle of a method that uses it, as the owner's frames show (`at_work`). A base whose owner
thread has ended goes to the next thread that uses it.

*Fork.* A child process shares its parent's epoll set: deleting an event in the child deletes it in
the parent, too (A8). So after a fork all pointers are taken out of their slots and parked.
`Root._unpark` puts them back after `event_reinit`, and only then frees what has been closed or
dropped meanwhile. A base or buffer that another thread was using at the time of the fork is lost in
the child for good.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from libevent_py import errors
from libevent_py._core import for_c
from libevent_py._core.dispatch import live, roots
from libevent_py._core.frames import (
    at_work,
    came_at_entry,
    in_the_middle,
    is_alive,
)
from libevent_py._core.handle import (
    Handle,
    Making,
    WithoutPointer,
    came_to_be,
    fill,
    slot,
    with_pointer,
    without_pointer,
)
from libevent_py._core.rank import Rank as Rank
from libevent_py._core.references import references, release_to
from libevent_py._ffi import lib

if TYPE_CHECKING:
    from libevent_py._core.child import Child
    from libevent_py._ffi import Arguments, CData, Result, Unpack

Thing = TypeVar("Thing")

_claiming = threading.RLock()  # held while a thread checks a base's owner and takes its place

# Looked up once, for code that runs for every event made and freed.
get_ident = threading.get_ident
getrefcount = sys.getrefcount
if TYPE_CHECKING:
    weak = weakref.ref
else:
    weak = for_c.functions(lib.evpy_python_functions)["weak"]

#: How many frames closing a base may need: with fewer left, it isn't begun.
HEADROOM = 60


def askable(base: Root) -> bool:
    """Tell whether this thread may ask C about objects on *base* now."""
    return base._parked is None and get_ident() == base._thread


if TYPE_CHECKING:

    class RootState(Handle):
        """What C reads of a base."""

        #: Everything made on this base and not closed, by key.
        _ledger: dict[int, weakref.ref[Child]]
        #: What C may call, by key.
        _live: dict[int, Any]
        #: After a fork, the pointers of this base and everything on it, by `id`; else None.
        _parked: dict[int, tuple[Handle, CData]] | None
        #: The owner thread, which alone may use this base.
        _thread: int

else:
    RootState = for_c.extended("RootState", Handle)


@for_c.finalizing
class Root(RootState):
    """An event base, as the owner of everything made on it."""

    __slots__ = (
        "_awaited",
        "_calls",
        "_closing",
        "_closings",
        "_collected",
        "_condemned",
        "_gate",
        "_graveyard",
        "_holds",
        "_lost",
        "_running",
    )

    if TYPE_CHECKING:

        def __del__(self) -> None:
            """Call `_finalize`."""

    def __init__(self, making: Making) -> None:
        self._live = {}
        self._ledger = {}
        #: What is called when an event or a bufferevent is closed, by its key.
        self._closings: dict[int, Callable[[], object]] = {}
        #: The keys of closed objects that are freed only when their pointers are dropped.
        self._awaited: set[int] = set()
        #: What is to be freed at the next clean moment: functions with their arguments.
        self._graveyard: deque[tuple[Callable[[Any], object], Any]] = deque()
        self._thread = get_ident()
        #: Whether the loop runs. There is no lock: between a test and a plain assignment, CPython
        #: runs neither another thread nor a signal handler; between a lock and its ``try``, it may.
        self._running = False
        #: Held while a thread other than the owner uses the pointer.
        self._gate = threading.RLock()  # a signal handler may call while its own thread holds it
        self._parked = None
        #: Whether another thread was using the base when this process was forked.
        self._lost = False
        #: How many calls that may call back are inside C, outside the loop.
        self._calls = 0
        #: How many `with` blocks of each thread hold the lock of a bufferevent on the base.
        self._holds: dict[int, int] = {}
        #: The pointer of a base that is closed, but not freed: it is being closed, or the garbage
        #: collector has finalized it before its children.
        self._condemned: CData | None = None
        #: Whether `close` or the last finalizer is freeing the condemned base, with all on it.
        self._closing = False
        #: Whether the garbage collector has found it, perhaps together with what its callbacks use.
        self._collected = False
        making.into(self)
        roots.add(self)

    def _unusable(self) -> Exception:
        return self._why_unusable(self) or super()._unusable()

    def _may_ask(self) -> bool:
        return askable(self)

    def _why_unusable(self, handle: Handle) -> Exception | None:
        """Return the exception for *handle* if a fork has made it unusable, else None."""
        parked = self._parked
        if parked is None or id(handle) not in parked:
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

        It may if it owns the base. If the owner has ended, this thread becomes the owner.
        """
        if self._thread != get_ident():
            with _claiming:
                if is_alive(self._thread):
                    raise self._wrong_thread()
                self._thread = get_ident()
            self._taken_over()

    def take_over(self) -> None:
        """Make this thread the owner, which alone may use the base and what is made on it.

        At first the owner is the thread that makes the base. `loop` and `close` take the base over
        by themselves. Raises `ThreadError` while another thread runs the loop, or is in the middle
        of a call that uses the base or anything made on it.
        """
        self._check_usable()  # a closed base, or the parent process's, can't be taken over
        self._claim()

    def _claim(self) -> None:
        """Make this thread the owner, or raise `ThreadError`."""
        if self._thread == get_ident():
            return
        with _claiming:
            owner = self._thread
            self._thread = get_ident()  # from here on the old owner's calls are refused
            busy = self._running or self._calls or self._holds
            if busy or at_work(self, sys._current_frames().get(owner)):
                self._thread = owner
                raise self._wrong_thread()
        self._taken_over()

    def _taken_over(self) -> None:
        """Do what is to be done as this thread has become the owner."""

    def _give(self, thread: int) -> None:
        """Make *thread* the owner, if this one is, which doesn't use the base any more."""
        if self._thread == get_ident():
            self._thread = thread

    def _wrong_thread(self) -> errors.ThreadError:
        """Return the exception for a call from a thread that doesn't own the base."""
        if self._running:
            return errors.ThreadError(
                "another thread runs this event base's loop: use base.defer(), event.active(), "
                "base.loopbreak() or base.loopexit() from here"
            )
        return errors.ThreadError(
            "this event base belongs to another thread: use base.defer() from here, or "
            "base.take_over() when that thread doesn't use it"
        )

    def _call(
        self, function: Callable[[Unpack[Arguments]], Result], *arguments: Unpack[Arguments]
    ) -> Result:
        """Enter C by *function*, which may call back at once; otherwise as `errors.call`."""
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
                except BaseException:  # an interrupt came before it was removed
                    live.remove(self)
                    raise

    def _tell(
        self, function: Callable[[Unpack[Arguments]], object], *arguments: Unpack[Arguments]
    ) -> None:
        """Enter C by *function*, which may call back; what callbacks raise is only kept."""
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
                except BaseException:  # an interrupt came before it was removed
                    live.remove(self)
                    raise

    def _busy(self) -> bool:
        """Tell whether C or a method may be using the base, or anything on it."""
        return self._running or self._calls > 0 or in_the_middle(self, sys._getframe(1))

    # What the nouns say and ask about the objects on the base; only _core looks these up itself.

    def _may_call(self, key: int, thing: object) -> None:
        """Make *thing* live: from now on C may call it by *key*."""
        self._live[key] = thing

    def _may_not_call(self, key: int) -> None:
        """Note that C can't call the object with *key* any more."""
        self._live.pop(key, None)

    def _silencer(self) -> Callable[[int], object]:
        """Return a function like `_may_not_call` that doesn't keep the base alive."""
        live = self._live
        return lambda key: live.pop(key, None)

    def _called_by(self, key: int) -> Any:
        """Return the live object with *key*, or None."""
        return self._live.get(key)

    def _begin_callbacks(self) -> None:
        """Have C's keys lead to what is on the base, as somebody enters C with it."""
        live.add(self)

    def _end_callbacks(self) -> None:
        """Have C's keys lead to nothing on the base, as nobody is in C with it any longer."""
        live.remove(self)

    def _when_closed(self, key: int, function: Callable[[], object] | None) -> None:
        """Call *function* once the event or bufferevent *key* is closed; None: don't any more."""
        if function is None:
            self._closings.pop(key, None)
        else:
            self._closings[key] = function

    def _note_closed(self, key: int) -> None:
        """Call what is to be called now that the child *key* is closed."""
        function = self._closings.pop(key, None)
        if function is not None:
            function()

    def _forget(self, key: int) -> None:
        """Don't close the child *key* with the base: C or another owner frees it."""
        self._live.pop(key, None)
        self._ledger.pop(key, None)

    def _know(self, child: Child) -> None:
        """Close *child* with the base, from now on."""
        self._ledger[child._key] = weak(child)

    def _knows(self, key: int) -> bool:
        """Tell whether the child *key* is made on the base, and not closed."""
        return key in self._ledger

    def _child(self, key: int) -> Child | None:
        """Return the child *key*, or None if it is being dropped."""
        return self._ledger[key]()

    def _children(self) -> list[Child]:
        """Return the objects made on the base that are neither closed nor dropped."""
        refs = list(self._ledger.copy().values())
        return [child for ref in refs if (child := ref()) is not None]

    @property
    def _forked(self) -> bool:
        """Whether this is a forked child that has not called `EventBase.reinit`."""
        return self._parked is not None

    def _pointer_though_forked(self) -> CData:
        """Return the base's pointer, even if it is parked."""
        parked = self._parked or {}
        return parked[id(self)][1] if id(self) in parked else self.pointer

    def _unpark_never(self, handle: Handle) -> None:
        """Make `_unpark` put nothing back for *handle*, which C has freed."""
        if self._parked is not None:
            self._parked.pop(id(handle), None)

    def _put_back(self, handle: Handle, pointer: CData) -> None:
        """Put *pointer* back into *handle*; after a fork, park it."""
        if self._parked is None:
            handle._put(pointer)
        else:
            self._parked[id(handle)] = handle, pointer

    def _put_back_from(self, handle: Handle, taken: list[CData]) -> None:
        """Do as `_put_back` with the pointer in *taken*, if it is still there: it can't be lost."""
        kind, name = type(handle), id(handle)
        before = with_pointer(kind) if issubclass(kind, WithoutPointer) else kind
        if not taken:  # it has been put back
            return
        pointer = taken[0]
        del taken[0]  # no call from here on
        if self._parked is None:
            handle.__class__ = before
            fill(handle, pointer)
        else:
            self._parked[name] = handle, pointer

    # Freeing.

    def _bury(self, key: int, free: Callable[[Thing], object], pointer: Thing) -> None:
        """Free a child's *pointer* with *free*, now or at a clean moment; from any thread."""
        begun = now = False
        try:
            now = (
                self._parked is None
                and (self._condemned is None or self._closing)
                and self._thread == get_ident()
            )
            if now:
                begun = True  # no call from here to free()
                free(pointer)
                return
            with self._gate:  # so that no other thread frees the base meanwhile
                now = self._frees_now()
                begun = True  # as above
                if now:
                    free(pointer)
                else:
                    self._graveyard.append((free, pointer))
                self._ledger.pop(key, None)
        except BaseException as error:
            if begun:
                self._bury_again(error, free, pointer)
            else:
                self._graveyard.append((free, pointer))
                self._has_buried()
            raise
        finally:
            self._ledger.pop(key, None)
            self._awaited.discard(key)
        if not now:
            try:
                self._has_buried()
            except BaseException:  # an interrupt must not keep the last child from freeing the base
                self._has_buried()
                raise

    def _bury_again(
        self, error: BaseException, free: Callable[[Thing], object], pointer: Thing
    ) -> None:
        """Call *free* later if the interrupt *error* came just before it did anything.

        Or if it goes on where it was, as its attribute ``goes_on`` says.
        """
        if came_at_entry(error) or getattr(free, "goes_on", False):
            self._graveyard.append((free, pointer))
        if self._graveyard and self._parked is None:
            self._wake()

    def _free_when_clean(
        self, free: Callable[[Thing], object], what: Thing, *, waits: bool = True
    ) -> None:
        """Free *what* by *free*: now, or at a clean moment if C or a method may be using it.

        An interrupt only delays that. Unless it *waits*, it is freed at once if the base is closed.
        """
        later = True
        try:
            later = (waits or not self.closed) and self._busy()
        finally:
            if later:
                self._graveyard.append((free, what))  # no call of Python's: it can't be lost
        if later:
            if self._parked is None:
                self._wake()
            return
        try:
            free(what)
        except BaseException as error:
            self._bury_again(error, free, what)
            raise

    def _free_later(self, free: Callable[[Thing], object], what: Thing) -> None:
        """Free *what* by *free* at the next clean moment; in a forked child, after `reinit`."""
        self._graveyard.append((free, what))
        if self._parked is None:
            self._wake()

    def _once_clean(self, function: Callable[[Any], object], what: Any) -> None:
        """Call *function* with *what* at the next clean moment, which others see to."""
        self._graveyard.append((function, what))

    def _notes_once_clean(
        self, function: Callable[[Thing], object], what: Thing
    ) -> Callable[[], object]:
        """Return what does as `_once_clean`, and is implemented in C: no interrupt comes before."""
        return functools.partial(self._graveyard.append, (function, what))

    def _is_clean(self) -> bool:
        """Tell whether nothing waits for a clean moment."""
        return not self._graveyard

    def _frees_now(self) -> bool:
        """Tell whether this thread, holding the gate, may free objects: the owner has ended."""
        if self._parked is not None or self.closed:  # a fork may come in the middle of closing it
            return False
        with _claiming:
            return not is_alive(self._thread)  # then no thread runs the loop, either

    def _has_buried(self) -> None:
        """Wake the loop to empty the graveyard; or free a condemned base after its last child."""
        if self._parked is not None:
            return
        with self._gate:
            last = self._condemned is not None and not self._closing and not self._ledger
        if last:
            self._free_condemned()
        else:
            self._wake()

    def _exhume(self) -> None:
        """Free what is in the graveyard; only when none of its callbacks is on the stack.

        Also release the references that libevent has dropped (D4).
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
        """Make the loop reach a clean moment soon; may be called from any thread."""
        raise NotImplementedError

    def _report(self, error: BaseException, source: object) -> None:
        """Handle the *error* that *source*'s callback raised."""
        raise NotImplementedError

    def close(self) -> None:
        """Close everything made on the base, then free the base itself: see `EventBase.close`."""
        if self.closed and (self._condemned is None or self._closing):
            return
        self._check_closable()  # comes first: a thread that is refused must not become the owner
        if self._thread != get_ident():
            self._claim()
        errors.headroom(HEADROOM)
        errors.run(self._close, sys._getframe(1))

    def _close(self, caller: FrameType) -> None:
        if self._running:
            raise RuntimeError("close() was called while the loop runs: call loopexit() first")
        if self._calls:
            raise RuntimeError("close() was called inside a callback")
        if self._holds:
            raise RuntimeError("close() was called while the lock of a bufferevent is held")
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
                    last = not self._ledger  # else the finalizer of a child is still to come
                if last:
                    self._free_condemned()
            if self._parked is not None:  # the process was forked, in a callback or before
                self._abandon()
        finally:
            self._running = self._closing = False
            try:
                live.remove(self)
            except BaseException:  # an interrupt came before it was removed
                live.remove(self)
                raise

    def _condemn(self) -> None:
        """Become closed, but keep the pointer in `_condemned` until the base is freed."""
        try:
            kind = type(self)
            slot(self)
            bare = without_pointer(kind)
            pointer = slot(self)
            self._condemned = pointer  # no call from here on: see `_take`
            del self.pointer
            self.__class__ = bare
        except AttributeError:
            return

    def _abandon(self) -> None:
        """Leave the C objects to the parent process."""
        self._parked = self._condemned = None
        self._ledger.clear()
        self._live.clear()
        self._graveyard.clear()

    def _check_closable(self) -> None:
        """Raise an error unless this thread can close everything made on the base."""

    def _close_children(self) -> None:
        known: set[int] = set()
        # A copy: making tuples may run the garbage collector, and finalizers change the ledger.
        while unknown := [item for item in self._ledger.copy().items() if item[0] not in known]:
            # Callbacks may make new objects, which the next round closes.
            known.update(key for key, _ in unknown)
            children = [child for _, ref in unknown if (child := ref()) is not None]
            children.reverse()  # a later bufferevent may be on top of an earlier one
            for child in sorted(children, key=lambda child: child._rank):
                if not came_to_be(child):  # an interrupt came before it was made
                    self._ledger.pop(child._key, None)
                    continue
                try:
                    child.close()
                except BaseException as error:  # perhaps from a user's close(): go on with the rest
                    errors.keep(error)
                # Not `closed`, which a user's class may have as it likes.
                if self._parked is None and not isinstance(child, WithoutPointer):
                    child._dispose()

    def _forget_orphans(self) -> None:
        """Remove dead children from the ledger, which an interrupt has left there.

        The interrupt may have come just when their finalizer began. A child may also look dead
        because the garbage collector has yet to call its finalizer: not after one more collection.
        A closed child may still be in use by a method that has led to this call.
        """
        known = [(key, ref()) for key, ref in self._ledger.copy().items()]
        dead = [
            key
            for key, child in known
            if key not in self._awaited
            and (child is None or (isinstance(child, WithoutPointer) and not child._is_in_use()))
        ]
        before = gc.get_stats()[-1]["collections"]
        gc.collect()
        if gc.get_stats()[-1]["collections"] > before:  # else a collection is under way already
            for key in dead:
                self._ledger.pop(key, None)

    def _free(self, pointer: CData) -> None:
        """Free the base's own C objects; its children are closed by now, or in the graveyard."""
        raise NotImplementedError

    def _free_condemned(self) -> None:
        """Free the condemned base; finalizers of its events still run."""
        pointer = self._condemned
        if pointer is None:  # in a forked child
            return
        self._running = self._closing = True
        try:
            live.add(self)
            errors.run(self._free, pointer)
        finally:
            self._running = self._closing = False
            try:
                self._live.clear()
                live.remove(self)
            except BaseException:  # an interrupt came before it was removed
                self._live.clear()
                live.remove(self)
                raise

    def _finalize(self) -> None:
        self._condemn()
        if getattr(self, "_condemned", None) is None or self._parked is not None:
            return  # it is freed, or was never made
        self._collected = True
        if not self._ledger:
            self._free_condemned()

    # Fork.

    def _park(self, lost: bool) -> None:
        """Take the pointers out of their slots, in a forked child; for good where it is *lost*."""
        self._gate = threading.RLock()  # another thread may have held it
        self._lost = self._lost or lost
        if self._thread != get_ident():  # the owner doesn't exist in this process
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
        if closing:  # in the child everything is closed, and nothing is freed
            parked.clear()
            self._live.clear()
            self._condemned = None
        # A handle without a pointer was being closed, by code that goes on in the child.
        self._parked = {
            key: (handle, pointer)
            for key, (handle, pointer) in parked.items()
            if pointer is not None
        }

    def _unpark(self) -> None:
        """Put the pointers back, and free what has been closed meanwhile.

        What an interrupt leaves is put back by the next `reinit`.
        """
        parked = self._parked or {}
        while parked:
            _, (handle, pointer) = parked.popitem()
            handle._put(pointer)
        self._parked = None
        if self._running or self._calls:  # reinit() may have been called in a callback
            self._wake()
        else:
            self._exhume()


def renew_locks() -> None:
    """Make new locks in a forked child, as another thread may have held the old ones."""
    global _claiming
    _claiming = threading.RLock()
