"""What C may call, and how that is found.

*Ids.* libevent keeps a ``void *arg`` for each callback and hands it back, sometimes after the
object it was made for has been freed. So what it gets is a key, a number that no other object ever
gets, and the trampolines look the object up by it. A late callback finds nothing, and nothing
happens.

*Live means: C may call.* libevent calls back only while somebody has entered it: through the base's
loop, or through a call that is documented to call back. Only for that time is the base among
`live.bases`. And an object is in its base's ``live`` from the moment C may call it (an event while
pending or active, a bufferevent or a listener until closed) until it no longer can. So a pending
timer that nobody holds fires; an object that can't be called goes with its last reference; and a
base that is dropped with everything on it is one unreachable cycle, which the collector frees.
Nobody has to store anything to keep it alive.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import ChainMap
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from libevent_py import errors
from libevent_py._ffi import ffi

if TYPE_CHECKING:
    from libevent_py._core.owner import Child, Root

#: A key for whatever C may call back: a number never used again.
next_key = itertools.count(1).__next__


class Live:
    """The bases that somebody has entered C with: where the trampolines look for what C calls."""

    __slots__ = ("bases", "objects")

    def __init__(self) -> None:
        self.set(())

    def add(self, base: Root) -> None:
        """Look in *base* too, but not where an interrupt has kept `remove` from being called."""
        with _entering:
            others = [
                other
                for other in self.bases
                if (other._running or other._calls) and other is not base
            ]
            self.set((*others, base))

    def remove(self, base: Root) -> None:
        """Look no longer in *base*."""
        with _entering:
            self.set(tuple(other for other in self.bases if other is not base))

    def set(self, bases: tuple[Root, ...]) -> None:
        """Look in *bases* from now on."""
        #: What C may call, by key; with one base, as nearly always, its own dict.
        self.objects: MutableMapping[int, Any] = (
            bases[0]._live if len(bases) == 1 else ChainMap(*(base._live for base in bases))
        )
        #: Replaced and never changed, so that a trampoline in another thread can walk it meanwhile.
        self.bases = bases


live = Live()
_entering = threading.RLock()  # a signal handler may run a loop while its own thread holds it


def not_closed(key: int) -> Child | None:
    """Return what has *key* of all that isn't closed on the `live.bases`, or None.

    For `from_c`, where C calls for what it doesn't keep alive.
    """
    for base in live.bases:
        if (child := base._ledger.get(key)) is not None:
            return child()
    return None


class _Call:
    """What stands for the default of `from_c`'s *forked*: call it in a forked child, too."""


def from_c(
    *,
    find: Callable[[int], Any] | None = None,
    late: Any = None,
    raised: Any = None,
    forked: Any = _Call,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Have C call the decorated function, of the same name as the ``extern "Python"`` one.

    C gives a key first; the function gets the object that it stands for instead: what *find* finds
    by it, or else what C may call. C gets what the function returns; *late* where the object is
    gone; *raised* when it raises, after the object's base has been told; and *forked* in a forked
    child that has not called `EventBase.reinit`.

    Where a benchmark says that one frame more is too much, this is written out, below a comment
    that begins with "hot:".
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(key: int, *arguments: Any) -> Any:
            thing = live.objects.get(key) if find is None else find(key)
            if thing is None:
                return late
            if forked is not _Call and thing.base._parked is not None:
                return forked
            try:
                return function(thing, *arguments)
            except BaseException as error:
                thing.base._report(error, thing)
                return raised

        ffi.def_extern(name=function.__name__, onerror=errors.kept, error=raised)(called)
        return function

    return decorate


def _after_fork() -> None:
    global _entering
    _entering = threading.RLock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork)
