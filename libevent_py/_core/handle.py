"""An object of C's as Python sees it: its pointer, and what becomes of it without one.

*The pointer is the state.* `Handle.pointer` is a plain slot, as fast as Python has it. Whoever
frees the object first empties the slot, and the object becomes one of a subclass in which
``pointer`` is a property that raises `ClosedError`. So there is no flag to forget, no way to C that
does not ask, and nothing to pay for asking. (A ``__getattr__`` that raises would do the same, but
slow each attribute of the class down.)

*Roles.* Other states are told in the same way: while a buffer has memory reserved, once a loop
runs its callbacks, or once HTTP has a bufferevent, it is of a subclass that `subclass_of` makes of
its class and a `Role`.

*Interrupts.* A signal handler may raise wherever CPython looks for signals: after each call, and
where a function begins. So what owns a C object lets go of it by a plain statement and calls C
right after that, and C itself puts a new one where it belongs (`errors.put`): there is no moment
at which nobody has it, or two have. What a close has begun, another one ends.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, NoReturn, SupportsIndex, TypeVar

from libevent_py import errors
from libevent_py._core.described import described
from libevent_py._core.frames import frames, handles, is_ours, mentions, outside
from libevent_py._core.pointers import ALONE
from libevent_py._ffi import ffi

Self = TypeVar("Self", bound="Handle")


class Handle:
    """A C object with one owner in Python; usable in ``with``, which closes it."""

    __slots__ = ("__weakref__", "pointer")

    #: The C object, for calling `libevent_py.lib` with it; raises `ClosedError` once it is closed.
    pointer: Any

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer

    def _check_unmade(self) -> None:
        """Refuse to be made a second time: C's first object would be lost."""
        if hasattr(self, "pointer"):
            raise RuntimeError(f"this {type(self).__name__} has been made already")

    def _check_usable(self) -> None:
        """Raise what `_unusable` returns where the object has no pointer."""
        self.pointer  # noqa: B018

    def _unusable(self) -> Exception:
        return errors.ClosedError(f"this {type(self).__name__} is closed")

    def _is_in_use(self) -> bool:
        """Tell whether the caller runs inside a method of this object, or one that it is given."""
        outer = frames(outside(sys._getframe(1)))
        return any(is_ours(frame) and mentions(frame, self) for frame in outer)

    def _take(self) -> Any:
        """Empty the slot, and return what was in it or None: whoever gets it frees it."""
        try:
            while True:
                kind: Any = type(self)  # which other code may change, as it may take the pointer
                slot(self)
                bare = without_pointer(kind)
                pointer = slot(self)
                if self.__class__ is kind:  # no call from here on: nobody sees it empty and open
                    del self.pointer
                    self.__class__ = bare
                    return pointer
        except AttributeError:  # it is empty, or another thread has just emptied it
            return None

    def _put(self, pointer: Any) -> None:
        """Put back into the slot what `_take` has taken."""
        self.__class__ = with_pointer(type(self))
        fill(self, pointer)

    @property
    def closed(self) -> bool:
        """Whether the object, or what it belongs to, is closed."""
        return False

    def close(self) -> None:
        """Free the C object; a second time does nothing."""
        raise NotImplementedError

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Have a user's ``__del__`` followed by the one that frees the C object."""
        super().__init_subclass__(**arguments)
        last = getattr(cls, "__del__", None)
        ours = next(
            (kind for kind in cls.__mro__ if "__del__" in vars(kind) and _is_ours(kind)), None
        )
        if ours is None or last is vars(ours)["__del__"] or hasattr(last, "_frees"):
            return

        def finalize(self: Any) -> None:
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
        """Refuse to be copied or pickled: the copy would free the C object once more."""
        raise TypeError(f"{type(self).__name__} objects can't be copied or pickled")

    def __repr__(self) -> str:
        """Tell where the C object is, or why there is none, and what is known of it; never raise.

        C is asked only where it may be: not in another thread than the base's, where the object
        could be freed meanwhile, nor in a forked child before `EventBase.reinit`.
        """
        told: list[str] = []
        try:
            absent = self._why_absent()
            told.append(absent or f"at {int(ffi.cast('uintptr_t', slot(self))):#x}")
            if absent != NOT_MADE:
                for fact in self._facts(not absent and self._may_ask()):
                    told.append(fact)
        except (AttributeError, errors.LibeventError):
            # Being made, or closed by a signal handler or the collector: there is no more to tell.
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
        """Return what has become of it when it is closed."""
        return "closed"

    def _may_ask(self) -> bool:
        """Tell whether C may be asked about it in this thread."""
        return True

    def _facts(self, ask: bool) -> Iterator[str]:
        """Yield what there is to tell of it: with *ask* what C knows, else what Python does."""
        return iter(())


#: Why `Handle.__repr__` finds no C object where ``__init__`` has not been called, or has raised.
NOT_MADE = "not made"


def _is_ours(kind: type) -> bool:
    """Tell whether *kind* is a class of this package's."""
    return kind.__module__.partition(".")[0] == __name__.partition(".")[0]


described(
    pointer="The C object, for calling `libevent_py.lib` with it; raises `ClosedError` once closed."
)(Handle)

handles.append(Handle)

#: `Handle.pointer` as the slot that it is, even where the object's class hides it.
slot: Callable[[Handle], Any] = Handle.__dict__["pointer"].__get__
fill: Callable[[Handle, Any], None] = Handle.__dict__["pointer"].__set__
empty: Callable[[Handle], None] = Handle.__dict__["pointer"].__delete__


def take(handles: Iterable[Handle]) -> list[Any]:
    """Take the pointers of *handles*, and return those that a method is about to use."""
    held = []
    for handle in handles:
        pointer = handle._take()
        if pointer is not None and sys.getrefcount(pointer) > ALONE and handle._is_in_use():
            held.append(pointer)
    return held


#: What a `Role` stands before, as a type checker sees it: any class.
_Anything: Any = object


class Role(_Anything):  # type: ignore[misc]
    """What an object can do while its class is a subclass that `subclass_of` has made.

    At run time it derives from `object`, and it has no slots: an object of a user's class keeps its
    layout, and so can become one of the subclass.
    """

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        """Keep `subclass_of` from the ``__init_subclass__`` of a user's class."""


def subclass_of(kind: Any, role: type[Role], members: dict[str, Any] | None = None) -> Any:
    """Return the subclass of *kind* whose objects have *role*, made when first needed.

    *members* is what it has beside the role. A class that has the role already is returned itself.
    """
    name = f"_as_{role.__qualname__}"  # kept with *kind*, so that the two go together
    if name in vars(kind):
        return getattr(kind, name)
    if issubclass(kind, role):  # as where a fork comes inside a block of `Buffer.reserve`
        return kind
    own = {"__slots__": (), "__module__": kind.__module__, "__doc__": kind.__doc__}
    made = type(kind)(kind.__name__, (role, kind), own | (members or {}))
    setattr(kind, name, made)
    return made


class WithoutPointer(Role):
    """The role of an object whose pointer has been taken."""

    __slots__ = ()

    @property
    def pointer(self) -> Any:
        raise self._unusable()

    @pointer.deleter
    def pointer(self) -> None:
        raise AttributeError("pointer")

    @property
    def closed(self) -> bool:
        return isinstance(self._unusable(), errors.ClosedError)


def without_pointer(kind: Any) -> Any:
    """Return the subclass of *kind* whose objects have no pointer, made when first needed."""
    if "_as_WithoutPointer" in vars(kind):  # hot: asked for each object that is closed
        return kind._as_WithoutPointer
    members = {}
    if getattr(kind, "__del__", None) in finalizers:
        members["__del__"] = left_alone  # they would take some time to find nothing
    return subclass_of(kind, WithoutPointer, members)


def came_to_be(handle: Handle) -> bool:
    """Tell whether *handle* has, or has had, a pointer."""
    return isinstance(handle, WithoutPointer) or hasattr(handle, "pointer")


def with_pointer(kind: type[Handle]) -> type[Handle]:
    """Return the class that `without_pointer` made *kind* from."""
    return kind.__bases__[1]


class Fresh(Handle):
    """What is of no use until it has been given to C once: dropped before, it says so."""

    __slots__ = ()

    def _complaint(self) -> str:
        """Return what is to be said where it is dropped; "" when it has been of use."""
        raise NotImplementedError

    def __del__(self) -> None:
        try:
            slot(self)
        except AttributeError:  # it never came to be
            return
        if complaint := self._complaint():
            warnings.warn(complaint, ResourceWarning, stacklevel=2, source=self)


class Making:
    """A C object that is yet to be made: C puts its pointer into the slot of what is for it."""

    __slots__ = ("_arguments", "_enter", "_failure", "_function")

    def __init__(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        enter: Callable[..., Any] = errors.call,
        failure: Callable[[], Exception] | None = None,
    ) -> None:
        """Have *enter* call *function*; where that returns NULL, raise what *failure* returns."""
        self._function = function
        self._arguments = arguments
        self._enter = enter
        self._failure = failure

    def into(self, handle: Handle) -> None:
        """Make it, for *handle*, or raise why it can't be made."""
        store = functools.partial(fill, handle)
        if not self._enter(errors.handed, store, self._function, self._arguments):
            raise self._failure() if self._failure else errors.failed(self._function)


def left_alone(_handle: Handle) -> None:
    """Do nothing, in the place of a finalizer."""


#: What finalizes only what has a pointer.
finalizers: set[Any] = {Fresh.__del__}
