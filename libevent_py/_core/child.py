"""What is made on a base, and is freed before it: see `owner` for when, and why.

An object of C's is closed in two steps. First it is taken from its Python object, whose class
becomes another one without the pointer (`handle.WithoutPointer`), so that no method reaches it any
more. Then it is freed: at once, at a clean moment, or when no method on the stack uses it.
"""

from __future__ import annotations

import atexit
import functools
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from libevent_py._core import for_c
from libevent_py._core.described import described
from libevent_py._core.dispatch import roots
from libevent_py._core.handle import (
    Fresh,
    Handle,
    Made,
    Making,
    WithoutPointer,
    came_to_be,
    finalizers,
    left_alone,
    slot,
    take,
    without_pointer,
)
from libevent_py._core.owner import Root, askable, get_ident, getrefcount, weak
from libevent_py._core.pointers import ALONE, Countdown, copied, forget_all
from libevent_py._core.rank import Rank as Rank

if TYPE_CHECKING:
    from libevent_py._ffi import CData
    from libevent_py.event.base import EventBase


@for_c.finalizing
@described(
    base="The `EventBase` that the object is made on.",
)
class Child(Handle):
    """An object made on a base, which must be freed before the base."""

    __slots__ = ("_key", "base")

    _rank: ClassVar[Rank] = Rank.EVENT

    #: `UNUSED` as long as the object has not been used, so that dropping it deserves a warning.
    #: Only events set it, in a slot that they have anyway.
    _armed: bool | tuple[()] | None = None

    #: Whether the class defines `_lent`.
    _lends: ClassVar[bool] = False

    def __init_subclass__(cls, **arguments: object) -> None:
        super().__init_subclass__(**arguments)
        cls._lends = cls._lent is not Child._lent

    def __init__(self, base: EventBase, key: int, pointer: Made) -> None:
        self._check_unmade()  # an argument's own method may have made it meanwhile
        self.base: EventBase = base
        self._key = key
        ref = weak(self)
        if type(pointer) is not Making:
            base._ledger[key] = ref  # no call from here on: only a known child may have a pointer
            self.pointer = pointer
            return
        base._ledger[key] = ref
        try:
            pointer.into(self)
        finally:
            if not came_to_be(self):
                base._ledger.pop(key, None)

    if TYPE_CHECKING:

        def __del__(self) -> None:
            """Call `_finalize`."""

        @property
        def _free(self) -> Callable[[CData], object]:
            """The function that frees the C object."""

    def _unmade(self) -> None:
        """Have C call it no more, as an interrupt has cut its making short: let go, it is freed."""
        if came_to_be(self):
            self.base._may_not_call(self._key)

    def _unusable(self) -> Exception:
        return self.base._why_unusable(self) or super()._unusable()

    def _lent(self) -> list[Handle]:
        """Return the lent handles: parts of this object in C, which end with it."""
        return []

    def _take_lent(self) -> list[CData]:
        """Take the pointers of what is `_lent`; return those that `_free` must wait for."""
        return take(self._lent())

    def _do_without(self, other: Child) -> None:
        """Stop using *other*, which is on the same base and about to be closed."""

    def close(self) -> None:
        """Free the C object; a second time does nothing. Raises `ThreadError` in the wrong thread.

        If a method is just using the object, it is freed when that method returns.
        """
        base = self.base
        if self.closed:
            return
        base._check_thread()
        parked, name = base._parked, id(self)
        if parked is None or name not in parked:
            self._dispose()
        else:  # it belongs to the parent process until reinit()
            for handle in self._lent():
                parked.pop(id(handle), None)
            free = self._free
            if name not in parked:  # other code has closed it, or called that
                self.close()
                return
            base._graveyard += ((free, parked[name][1]),)  # no call from here on
            del parked[name]
            base._live.pop(self._key, None)
            base._ledger.pop(self._key, None)

    def _dispose(self) -> None:
        """Take the pointer from its slot, and free it: now, at a clean moment, or when not in use.

        A user's class may override `close`, but can't leave this part out.
        """
        base: Root = self.base
        free, kind = self._free, type(self)
        todo = False
        try:
            bare = kind.__dict__.get("_as_WithoutPointer") or without_pointer(kind)
            pointer = slot(self)
            if self.__class__ is kind:  # no call from here on: it must not be seen empty but open
                del self.pointer
                self.__class__ = bare
                todo = True
        except AttributeError:  # other code has closed it
            return
        if not todo:  # other code has changed its class
            self._dispose()
            return
        held: list[CData] = []
        grave = None
        try:
            base._live.pop(self._key, None)
            if getrefcount(pointer) > ALONE and self._is_in_use():
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

    def _pointer_here(self) -> CData:
        """Return the pointer, or raise `ThreadError` in another thread than the owner's."""
        self.base._check_thread()
        return self.pointer

    def _may_ask(self) -> bool:
        return askable(self.base)

    def _finalize(self) -> None:
        try:
            slot(self)
        except AttributeError:  # it is closed, or was never made
            return
        complaint: str | bool = False
        try:
            complaint = self._armed is UNUSED and self._complaint()
        finally:
            try:
                self._dispose()
            except BaseException:
                if not isinstance(self, WithoutPointer):
                    self._dispose()
                elif self.base._condemned is not None:  # it may have to free the base, too
                    self.base._has_buried()
                raise
        if complaint:
            warnings.warn(complaint, ResourceWarning, stacklevel=2, source=self)

    def _complaint(self) -> str:
        """Return the warning for an object dropped unused; "" if its base is dropped, too."""
        base: Root = self.base
        # In one cycle with the base, the garbage collector has cleared the weak references of
        # `roots` by now.
        if base.closed or base._condemned is not None or base not in roots:
            return ""
        # Every child refers to the base. Does anything else?
        if sys.getrefcount(self.base) - REFERENCES_HERE < len(base._ledger):
            return ""
        return self._what_to_do()

    def _what_to_do(self) -> str:
        """Return the warning that says what to do, or "" if there is nothing to warn of."""
        return ""


finalizers.add(Child.__del__)

#: The value of `Child._armed` until the object is used: a false one that nothing else has.
UNUSED: tuple[()] = ()

#: How many references to a base are `Child._complaint`'s own, and the object's.
REFERENCES_HERE = 3


@atexit.register
def _at_exit() -> None:
    """Leave the rest to the system: finalizers would run when what they need is already gone."""
    forget_all()
    for kind in (Root, Child, Fresh):
        kind.__del__ = left_alone  # type: ignore[assignment,method-assign]
