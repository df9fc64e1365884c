"""A C object as Python sees it: its pointer, and the class that a closed object becomes.

*The pointer is the state.* `Handle.pointer` is a plain slot, the fastest attribute that Python has.
Code that frees the object first empties the slot, and changes the object's class to a subclass in
which ``pointer`` is a property that raises `ClosedError`. So there is no flag to forget, no way to
C without a check, and the check costs nothing. (A ``__getattr__`` that raises would do the same,
but would slow down each attribute of the class.)

*Roles.* Other states work in the same way: while a buffer has memory reserved, once a loop runs its
callbacks, or once HTTP has a bufferevent, its class is a subclass that `subclass_of` makes from its
own class and a `Role`.

*Interrupts.* A signal handler may raise wherever CPython looks for signals: after each call, and
when a function begins. So code that gives up a C object clears its reference by a plain statement
and calls C right after that; and C itself stores a new pointer where it belongs (`errors.put`).
Thus at every moment a C object has exactly one owner. If an interrupt cuts a close short, the next
close finishes it.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, SupportsIndex, TypeAlias, TypeVar, final

from libevent_py import errors
from libevent_py._core.described import NOT_MADE, described
from libevent_py._core.frames import frames, handles, is_ours, mentions, outside
from libevent_py._core.pointers import ALONE
from libevent_py._ffi import ffi

if TYPE_CHECKING:
    from libevent_py._ffi import Arguments, CData, Unpack

Self = TypeVar("Self", bound="Handle")
H = TypeVar("H", bound="Handle")


class Handle:
    """A C object with one owner in Python; usable in ``with``, which closes it."""

    __slots__ = ("__weakref__", "pointer")

    #: The C object, for calling `libevent_py.lib` with it; raises `ClosedError` once it is closed.
    pointer: CData

    def __init__(self, pointer: CData) -> None:
        self.pointer = pointer

    def _check_unmade(self) -> None:
        """Raise `RuntimeError` if ``__init__`` runs twice: the first C object would be lost."""
        if hasattr(self, "pointer"):
            raise RuntimeError(f"this {type(self).__name__} has been made already")

    def _check_usable(self) -> None:
        """Raise what `_unusable` returns if the object has no pointer."""
        self.pointer  # noqa: B018

    def _unusable(self) -> Exception:
        return errors.ClosedError(f"this {type(self).__name__} is closed")

    def _is_in_use(self) -> bool:
        """Tell whether a method of this object, or one that got it as an argument, is under way."""
        outer = frames(outside(sys._getframe(1)))
        return any(is_ours(frame) and mentions(frame, self) for frame in outer)

    def _take(self) -> CData | None:
        """Empty the slot, and return the pointer or None; the caller has to free it."""
        try:
            while True:
                kind = type(self)  # other code may change the class, or take the pointer
                slot(self)
                bare = without_pointer(kind)
                pointer = slot(self)
                if self.__class__ is kind:  # no call from here on: must not be seen empty but open
                    del self.pointer
                    self.__class__ = bare
                    return pointer
        except AttributeError:  # it is empty, or another thread has just emptied it
            return None

    def _take_into(self, taken: list[CData]) -> None:
        """Move the pointer, if there is one, from its slot to *taken*: no interrupt loses it."""
        try:
            while not taken:
                kind = type(self)
                bare = without_pointer(kind)
                found = slot(self)
                if self.__class__ is kind:  # no call from here on
                    del self.pointer
                    self.__class__ = bare
                    taken.append(found)
        except AttributeError:  # it is empty, or other code has just emptied it
            return

    def _put(self, pointer: CData) -> None:
        """Put the pointer that `_take` returned back into the slot."""
        self.__class__ = with_pointer(type(self))
        fill(self, pointer)

    @property
    def closed(self) -> bool:
        """Whether the object, or the one that it belongs to, is closed."""
        return False

    def close(self) -> None:
        """Free the C object; a second time does nothing."""
        raise NotImplementedError

    def __init_subclass__(cls, **arguments: object) -> None:
        """Make a user's ``__del__`` be followed by the one that frees the C object."""
        super().__init_subclass__(**arguments)
        last = getattr(cls, "__del__", None)
        ours = next(
            (kind for kind in cls.__mro__ if "__del__" in vars(kind) and _is_ours(kind)), None
        )
        if ours is None or last is vars(ours)["__del__"] or hasattr(last, "_frees"):
            return

        def finalize(self: Handle) -> None:
            try:
                last(self)  # type: ignore[misc]
            finally:
                ours.__del__(self)  # type: ignore[attr-defined]

        finalize._frees = True  # type: ignore[attr-defined]
        cls.__del__ = finalize  # type: ignore[attr-defined]

    def __enter__(self: Self) -> Self:
        self.pointer  # noqa: B018  (a closed object can't be entered)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Raise `TypeError`: a copy would free the C object once more."""
        raise TypeError(f"{type(self).__name__} objects can't be copied or pickled")

    def __repr__(self) -> str:
        """Return the C object's address, or why there is none, and facts about it; never raise.

        C is not asked outside the base's owner thread, where the object could be freed meanwhile,
        nor in a forked child before `EventBase.reinit`.
        """
        told: list[str] = []
        try:
            absent = self._why_absent()
            told.append(absent or f"at {int(ffi.cast('uintptr_t', slot(self))):#x}")
            if absent != NOT_MADE:
                for fact in self._facts(not absent and self._may_ask()):
                    told.append(fact)
        except (AttributeError, errors.LibeventError):
            # It is being made, or a signal handler or the garbage collector has just closed it.
            told[:1] = [self._why_absent() or told[0]] if told else [NOT_MADE]
        return f"<{type(self).__name__} {', '.join(told)}>"

    def _why_absent(self) -> str | None:
        """Return why there is no C object, or None if there is one."""
        if not isinstance(self, WithoutPointer):
            try:
                slot(self)
            except AttributeError:
                return NOT_MADE
        if self.closed:
            return self._end_word()
        return "in a forked child" if isinstance(self, WithoutPointer) else None

    def _end_word(self) -> str:
        """Return the word for its state when it is closed."""
        return "closed"

    def _may_ask(self) -> bool:
        """Tell whether this thread may ask C about it now."""
        return True

    def _facts(self, ask: bool) -> Iterator[str]:
        """Yield facts for the repr: with *ask*, what C knows, else what Python knows."""
        return iter(())


def _is_ours(kind: type) -> bool:
    """Tell whether *kind* is a class of this package."""
    return kind.__module__.partition(".")[0] == __name__.partition(".")[0]


described(
    pointer="The C object, for calling `libevent_py.lib` with it; raises `ClosedError` once closed."
)(Handle)

handles.append(Handle)

#: The slot `Handle.pointer` itself, even if the object's class hides it by a property.
slot: Callable[[Handle], CData] = Handle.__dict__["pointer"].__get__
fill: Callable[[Handle, CData], None] = Handle.__dict__["pointer"].__set__
empty: Callable[[Handle], None] = Handle.__dict__["pointer"].__delete__


def take(handles: Iterable[Handle]) -> list[CData]:
    """Take the pointers of *handles*, and return those that a method is using."""
    held = []
    for handle in handles:
        pointer = handle._take()
        if pointer is not None and sys.getrefcount(pointer) > ALONE and handle._is_in_use():
            held.append(pointer)
    return held


#: What must be alike in two classes if an object is to go from one to the other.
LAYOUT = "__basicsize__", "__dictoffset__", "__weakrefoffset__"

#: The base class of a `Role` for type checkers: any class.
_Anything: Any = object


class Role(_Anything):  # type: ignore[misc]
    """What `subclass_of` adds to an object's class for as long as the object is in some state.

    A role derives from `object` at run time, and has no slots, so that even an object of a user's
    class keeps its layout when its class is changed.
    """

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        """Keep `subclass_of` from the ``__init_subclass__`` of a user's class."""


def subclass_of(
    kind: type[H], role: type[Role], members: dict[str, object] | None = None
) -> type[H]:
    """Return the subclass of *kind* whose objects have *role*, made when first needed.

    *members* are its own attributes. A class that has the role already is returned unchanged.
    """
    name = f"_as_{role.__qualname__}"  # stored in *kind*, so that both are freed together
    if name in vars(kind):
        found: type[H] = getattr(kind, name)
        return found
    if issubclass(kind, role):  # for instance after a fork inside a block of `Buffer.reserve`
        return kind
    own = {"__slots__": (), "__module__": kind.__module__, "__doc__": kind.__doc__}
    made = _subclass(kind, role, own | (members or {}))
    type.__setattr__(kind, name, made)
    return made


def _subclass(kind: type[H], role: type[Role], members: dict[str, object]) -> type[H]:
    """Return a new subclass of *kind*, whose objects can become ones of it.

    A user's metaclass may need arguments of its own, refuse subclasses, or make another class than
    it is asked for; then it is passed by, or an object could never be closed.
    """
    metaclass: type = type(kind)
    arguments = kind.__name__, (role, kind), members
    try:
        made: type[H] = metaclass(*arguments)
        if made.__bases__ == arguments[1] and all(
            getattr(made, size) == getattr(kind, size) for size in LAYOUT
        ):
            return made
    except Exception:
        pass  # it has been asked, but it need not agree
    return type.__new__(metaclass, *arguments)


class WithoutPointer(Role):
    """The role of an object whose pointer has been taken."""

    __slots__ = ()

    @property
    def pointer(self) -> CData:
        raise self._unusable()

    @pointer.deleter
    def pointer(self) -> None:
        raise AttributeError("pointer")

    @property
    def closed(self) -> bool:
        why = self._unusable()
        # In the middle, other code in a forked child may have put the pointer back.
        return isinstance(why, errors.ClosedError) and isinstance(self, WithoutPointer)


def without_pointer(kind: type[H]) -> type[H]:
    """Return the subclass of *kind* whose objects have no pointer, made when first needed."""
    if "_as_WithoutPointer" in vars(kind):  # hot: called for each object that is closed
        return kind._as_WithoutPointer  # type: ignore[attr-defined,no-any-return]  # made below
    members: dict[str, object] = {}
    if getattr(kind, "__del__", None) in finalizers:
        members["__del__"] = left_alone  # the finalizer would only waste time
    return subclass_of(kind, WithoutPointer, members)


def came_to_be(handle: Handle) -> bool:
    """Tell whether *handle* has, or has had, a pointer."""
    return isinstance(handle, WithoutPointer) or hasattr(handle, "pointer")


def with_pointer(kind: type[Handle]) -> type[Handle]:
    """Return the class that `without_pointer` made *kind* from."""
    return kind.__bases__[1]


class Fresh(Handle):
    """An object that is useless until it is given to C: dropping it before causes a warning."""

    __slots__ = ()

    def _complaint(self) -> str:
        """Return the warning for dropping it; "" when it has been used."""
        raise NotImplementedError

    def __del__(self) -> None:
        try:
            slot(self)
        except AttributeError:  # it was never made
            return
        if complaint := self._complaint():
            warnings.warn(complaint, ResourceWarning, stacklevel=2, source=self)


@final
class Making:
    """A C object that is yet to be made; C stores its pointer in the handle's slot."""

    __slots__ = ("_arguments", "_enter", "_failure", "_function")

    def __init__(
        self,
        function: Callable[[Unpack[Arguments]], CData],
        *arguments: Unpack[Arguments],
        enter: Callable[..., object] = errors.call,
        failure: Callable[[], Exception] | None = None,
    ) -> None:
        """Note to call *function* by *enter*, and to raise what *failure* returns if it is NULL."""
        self._function = function
        self._arguments = arguments
        self._enter = enter
        self._failure = failure

    def into(self, handle: Handle) -> None:
        """Make the C object for *handle*, or raise why it can't be made."""
        store = functools.partial(fill, handle)
        if not self._enter(errors.handed, store, self._function, self._arguments):
            raise self._failure() if self._failure else errors.failed(self._function)


#: A new C object for Python: its pointer, or how it is made.
Made: TypeAlias = "CData | Making"


#: Does nothing, in place of a finalizer. It is implemented in C: an interrupt may come where a
#: function of Python's begins, and in a finalizer Python would only print it.
left_alone: Final[Callable[..., object]] = bool


#: Finalizers that have nothing to do without a pointer.
finalizers: set[object] = {Fresh.__del__}
