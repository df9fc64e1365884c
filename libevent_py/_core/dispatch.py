"""What C may call, and how the trampolines find it.

*Keys.* libevent keeps a ``void *arg`` for each callback and passes it back, sometimes after the
object it was meant for has been freed. So libevent gets a key, a number that no other object ever
gets, and the trampolines look the object up by it. A late callback finds no object, and nothing
happens.

*Live means: C may call.* libevent calls back only while Python has entered it: through the base's
loop, or through a call that is documented to call back. Only for that time is the base in
`live.bases`. An object is in its base's ``_live`` from the moment C may call it (an event while
pending or active, a bufferevent or a listener until closed) until C no longer can. So a pending
timer fires even if nothing refers to it; an object that can't be called is freed with its last
reference; and a base that is dropped with everything on it is one unreachable cycle, which the
garbage collector frees. Users need not store anything to keep it alive.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections import ChainMap
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from libevent_py import errors
from libevent_py._core.for_c import extended, give
from libevent_py._core.frames import Function, came_within
from libevent_py._ffi import ffi, lib

if TYPE_CHECKING:
    from libevent_py._core.child import Child
    from libevent_py._core.owner import Root

#: A key for whatever C may call back: a number never used again.
next_key = itertools.count(1).__next__


class _Entered:
    __slots__ = ("bases",)


if TYPE_CHECKING:

    class LiveState(_Entered):
        """What C reads of `live`."""

        objects: MutableMapping[int, Any]

else:
    LiveState = extended("LiveState", _Entered)


class Live(LiveState):
    """The bases that have been entered: the trampolines look for objects there."""

    __slots__ = ()

    bases: tuple[Root, ...]

    def __init__(self) -> None:
        self.set(())

    def add(self, base: Root) -> None:
        """Look in *base* too; stop looking in bases that an interrupt has left there."""
        with _entering:
            others = [
                other
                for other in self.bases
                if (other._running or other._calls) and other is not base
            ]
            self.set((*others, base))

    def remove(self, base: Root) -> None:
        """Stop looking in *base*."""
        with _entering:
            self.set(tuple(other for other in self.bases if other is not base))

    def set(self, bases: tuple[Root, ...]) -> None:
        """Look in *bases* from now on."""
        #: The objects that C may call, by key; with one base, as nearly always, its own dict.
        self.objects = (
            bases[0]._live if len(bases) == 1 else ChainMap(*(base._live for base in bases))
        )
        #: Replaced, never changed, so that a trampoline in another thread can walk it meanwhile.
        self.bases = bases


live = Live()
_entering = threading.RLock()  # a signal handler may run a loop while its own thread holds it


#: All bases that there are.
roots: weakref.WeakSet[Root] = weakref.WeakSet()


def callable_here() -> list[object]:
    """Return the objects that C may call on all bases of this thread."""
    thread = threading.get_ident()
    here = [root for root in roots if root._thread == thread and root._parked is None]
    return [thing for root in here for thing in list(root._live.values())]


def not_closed(key: int) -> Child | None:
    """Return what has *key* of all that isn't closed on the `live.bases`, or None.

    For `from_c`, where C calls for what it doesn't keep alive.
    """
    for base in live.bases:
        if (child := base._ledger.get(key)) is not None:
            return child()
    return None


#: What C gets instead of a result if an interrupt has kept the user's function from being called:
#: it calls once more.
NOT_CALLED: Final = int(lib.EVPY_NOT_CALLED)


class _Call:
    """The default of `from_c`'s *forked*: call the function in a forked child, too."""


def keep_late(interrupt: BaseException, function: Callable[..., object]) -> None:
    """Keep *interrupt* if *function*, called where it is caught, had returned; else raise it again.

    For a *function* that raises only what comes before it has called the user's.
    """
    if came_within(interrupt, function):
        raise interrupt
    errors.keep(interrupt)


def from_c(
    *,
    find: Callable[[int], Any] | None = None,
    late: object = None,
    raised: object = None,
    forked: object = _Call,
) -> Callable[[Function], Function]:
    """Make C's ``extern "Python"`` function of the same name call the decorated function.

    C passes a key first; the function gets the object with that key instead: what *find* finds by
    it, or else what C may call. C gets the function's result; *late* if the object is gone, or the
    function has returned and an interrupt has come in place of its result; *raised* if the function
    raises, after the exception has gone to the object's base; and *forked* in a forked child that
    has not called `EventBase.reinit`.

    An interrupt may come before the user's function is called, be it where a function of ours
    begins. So with what is *raised* C knows that, and calls once more: it is 0, or `NOT_CALLED` for
    what has a result. What the user's function itself raises must not get out then, nor an
    interrupt that comes later: see `keep_late`. Reporting is written out in each of them, as a
    function for it would itself begin where an interrupt may come, outside its own ``try``.

    If a benchmark shows that one more frame is too slow, the trampoline is written out, below a
    comment that begins with "hot:".
    """

    def decorate(function: Function) -> Function:
        def called(key: int, *arguments: object) -> object:
            thing = live.objects.get(key) if find is None else find(key)
            if thing is None:
                return late
            if forked is not _Call and thing.base._parked is not None:
                return forked
            try:
                return function(thing, *arguments)
            except BaseException as error:
                try:
                    thing.base._report(error, thing)
                except BaseException as interrupt:
                    errors.keep(interrupt)
                return raised if came_within(error, function) else late

        ffi.def_extern(name=function.__name__, onerror=errors.kept, error=raised)(called)
        return function

    return decorate


def _kept(_: None, error: BaseException) -> None:
    errors.keep(error)


give(live=live, kept=_kept)


def _after_fork() -> None:
    global _entering
    _entering = threading.RLock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork)
