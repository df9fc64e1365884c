"""What keeps a loop from ending, as text: `EventBase.explain`.

C tells of every event there is (``_c/explain.c``). An event inside one of libevent's own objects is
recognized by what its callback gets: the address of that object. The nouns say where their objects
are, each by a function below `explains`, which yields `Holder`s. So this module knows none of them.

Nothing here changes anything, so that a signal handler may ask at any time.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import signal
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from libevent_py import errors
from libevent_py._core.handle import Handle
from libevent_py._ffi import ffi, lib
from libevent_py.enums import EventBaseCount, EventFlag, LoopFlag
from libevent_py.event.descriptor import what_is

if TYPE_CHECKING:
    from libevent_py._ffi import CData
    from libevent_py.event.base import EventBase
    from libevent_py.event.event import Event

#: How many functions given to `EventBase.defer` are named.
SOME = 5

#: How events wait, by the flags that say so.
WAYS = {
    EventFlag.PERSIST: "persistent",
    EventFlag.ET: "edge-triggered",
    EventFlag.FINALIZE: "final",
}

#: What events wait for, by the flags that say so.
AIMS = {EventFlag.READ: "read", EventFlag.WRITE: "write", EventFlag.CLOSED: "see the end of"}

#: The words for several things, where it isn't enough to add an s.
PLURALS = {
    "call of once()": "calls of once()",
    "function of defer()": "functions of defer()",
    "event of libevent's own": "events of libevent's own",
}

#: The signals that have names.
NAMED = frozenset(map(int, signal.Signals))

#: What the texts of this package's own callbacks begin with.
PACKAGE = __name__.partition(".")[0] + "."

#: The function that `EventBase.once` puts around one for a descriptor.
IN_ONCE = "EventBase.once.<locals>.ready"

Thing = TypeVar("Thing")


class Sight:
    """An event as C has seen it."""

    __slots__ = ("active", "arg", "due", "event", "fd", "internal", "kind", "priority", "what")

    def __init__(self, seen: CData) -> None:
        flags = int(seen.flags)
        self.event: int = int(seen.event)
        self.arg: int = int(seen.arg)
        self.kind: int = int(seen.kind)
        self.fd: int = int(seen.fd)
        self.what: int = int(seen.what)
        self.priority: int = int(seen.priority)
        self.due: float | None = float(seen.due) if flags & lib.EVLIST_TIMEOUT else None
        self.active: bool = bool(flags & (lib.EVLIST_ACTIVE | lib.EVLIST_ACTIVE_LATER))
        self.internal: bool = bool(flags & lib.EVLIST_INTERNAL)

    def aim(self, told: bool = True) -> str:
        """Return what it waits for; with *told*, also what the descriptor is."""
        if self.what & EventFlag.SIGNAL:
            return f"waits for {signal_name(self.fd)}"
        aims = " and ".join(word for flag, word in AIMS.items() if self.what & flag)
        if not aims:
            return "user event" if self.due is None and self.fd < 0 else "timer"
        return f"waits to {aims} fd {self.fd}" + (f", {what_is(self.fd)}" if told else "")

    def moment(self) -> str:
        """Return when it is due, or that it waits to run; "" if there is neither."""
        if self.active:
            return "; active: its callback waits to run"
        if self.due is None:
            return ""
        waits = self.what & (EventFlag.READ | EventFlag.WRITE | EventFlag.CLOSED | EventFlag.SIGNAL)
        return f"; {'times out' if waits else 'due'} {after(self.due)}"


class Holder:
    """An object that has events, or libevent has them inside it."""

    __slots__ = ("claims", "keys", "kind", "name", "notes", "places", "sights", "timer")

    def __init__(
        self,
        kind: str,
        name: str,
        *,
        places: Iterable[CData | None] = (),
        keys: Iterable[int] = (),
        notes: Iterable[str] = (),
        timer: str = "timer",
        claims: Claims | None = None,
    ) -> None:
        #: What it is called in a sum, such as "bufferevent", and in its own line.
        self.kind: str = kind
        self.name: str = name
        #: The addresses that the callbacks of its events in C get, or which they are at.
        self.places: list[int] = [address(place) for place in places if place]
        #: The keys of the `Event` objects that are its.
        self.keys: list[int] = list(keys)
        #: What else there is to say.
        self.notes: list[str] = list(notes)
        #: What its timer in C is for.
        self.timer: str = timer
        #: Finds out whose an event is that nobody has; returns the holder, which may be a new one.
        self.claims: Claims | None = claims
        #: Its events.
        self.sights: list[Sight] = []

    @property
    def keeps(self) -> bool:
        """Whether it keeps the loop alive."""
        return any(not sight.internal for sight in self.sights)

    def lines(self) -> Iterator[str]:
        """Yield what there is to say of it, a line for each thing."""
        yield self.name
        told: set[int] = set()
        for sight in self.sights:
            if sight.fd < 0:
                yield f"  {self.timer}{sight.moment()}"
                continue
            yield f"  {sight.aim(sight.fd not in told)}{sight.moment()}"
            told.add(sight.fd)
        for note in self.notes:
            yield f"  {note}"


#: What `Holder.claims` is.
Claims: TypeAlias = Callable[[Sight], "Holder | None"]

Explainer: TypeAlias = Callable[[Any], Iterator[Holder]]

#: The functions that explain the objects made on a base, by their classes.
_explainers: dict[type, Explainer] = {}


def explains(
    kind: type[Thing],
) -> Callable[[Callable[[Thing], Iterator[Holder]]], Callable[[Thing], Iterator[Holder]]]:
    """Note that the decorated function explains the objects of *kind*, which are made on a base."""

    def note(function: Callable[[Thing], Iterator[Holder]]) -> Callable[[Thing], Iterator[Holder]]:
        _explainers[kind] = function
        return function

    return note


# Words.


def address(pointer: CData) -> int:
    """Return the address of C's *pointer* as a number."""
    return int(ffi.cast("uintptr_t", pointer))


def signal_name(number: int) -> str:
    """Return the name of the signal *number*, such as SIGINT."""
    return signal.Signals(number).name if number in NAMED else f"signal {number}"


def after(seconds: float) -> str:
    """Return *seconds* from now as text."""
    return "now" if seconds <= 0 else f"in {f'{seconds:.3f}'.rstrip('0').rstrip('.')} s"


def counted(number: int, kind: str) -> str:
    """Return *number* things of a *kind* as text."""
    return f"{number} {kind if number == 1 else PLURALS.get(kind, kind + 's')}"


def callback_text(callback: object) -> str:
    """Return the name of *callback* with its file and line, without running its own code."""
    kind: Any = type(callback)
    if issubclass(kind, functools.partial):
        inner = functools.partial.func.__get__(callback)
        return f"partial of {callback_text(inner)}"
    if issubclass(kind, MethodType):
        return callback_text(MethodType.__func__.__get__(callback))
    if issubclass(kind, FunctionType):
        assert isinstance(callback, FunctionType)
        return f"{callback.__qualname__} ({_place(callback.__code__)})"
    if issubclass(kind, BuiltinFunctionType):
        assert isinstance(callback, BuiltinFunctionType)
        return callback.__qualname__
    return _object_text(kind)


def _object_text(kind: Any) -> str:
    """Return the name of a callable object's class, and where its ``__call__`` is."""
    name = type.__dict__["__qualname__"].__get__(kind)
    for one in type.__dict__["__mro__"].__get__(kind):
        call = type.__dict__["__dict__"].__get__(one).get("__call__")
        if call is not None:
            where = f" ({_place(call.__code__)})" if type(call) is FunctionType else ""
            return f"an object of {name}{where}"
    return f"an object of {name}"


def _place(code: CodeType) -> str:
    return f"{code.co_filename}:{code.co_firstlineno}"


# The account.


def account(base: EventBase) -> str:
    """Return the text for *base*, which this thread may ask."""
    pointer = base.pointer
    sights, holders = _seen(pointer), _holders(base)
    unknown = _share_out(sights, holders)
    kept: list[tuple[str, list[str]]] = []
    others: list[list[str]] = []
    for kind, lines, keeps in itertools.chain(
        _of_base(base, unknown), ((one.kind, list(one.lines()), one.keeps) for one in holders)
    ):
        if keeps:
            kept.append((kind, lines))
        else:
            others.append(lines)
    deferred = _deferred(pointer, sights)
    kept += [("deferred callback", [])] * deferred
    text = [_sum(base, pointer, [kind for kind, _ in kept]), *_state(base, sights)]
    text += [f"  {line}" for _, lines in kept for line in lines]
    if deferred:
        waiting = counted(deferred, "deferred callback")
        text.append(f"  {waiting} of buffers and bufferevents, to be run in the loop's next turn")
    if others:
        text.append("these don't keep it alive:")
        text += [f"  {line}" for lines in others for line in lines]
    return "\n".join(text) + "\n"


def left_over(base: EventBase) -> list[str]:
    """Return a line for each thing on *base* that somebody has made and not ended.

    These are objects, calls of `EventBase.once` and `EventBase.defer`, and events made by C.
    """
    sights = _seen(base.pointer)
    # A listener that a server has been given ends with the server.
    children = [
        child
        for child in base._children()
        if not isinstance(getattr(child, "_bound", None), Handle)
    ]
    lines = [repr(child) for child in sorted(children, key=lambda child: child._key)]
    in_c = (lib.EVPY_OF_OTHERS, lib.EVPY_OF_BUFFEREVENT)
    waker = None if base._waker is None else address(base._waker)
    for sight in _share_out(sights, _holders(base)):
        if sight.kind == lib.EVPY_OF_ONCE or (sight.event == waker and base._jobs):
            lines += next(_of_base(base, [sight]))[1]
        elif sight.kind in in_c and not (sight.internal or sight.active):
            lines += _of_c(sight)[1]
    return lines


def _seen(pointer: CData) -> list[Sight]:
    room = 64
    while True:
        seen = ffi.new("struct evpy_sight[]", room)
        found = lib.evpy_sights(pointer, seen, room)
        if found <= room:
            return [Sight(seen[number]) for number in range(found)]
        room = found


def _holders(base: EventBase) -> list[Holder]:
    found: list[Holder] = []
    for child in sorted(base._children(), key=lambda child: child._key):
        kind = next((kind for kind in type(child).__mro__ if kind in _explainers), None)
        if kind is not None:
            # It may be just being made, or closed by other code.
            with contextlib.suppress(AttributeError, errors.LibeventError):
                found += _explainers[kind](child)
    return found


def _share_out(sights: list[Sight], holders: list[Holder]) -> list[Sight]:
    """Give each holder its sights, and return the others."""
    by_place = {place: holder for holder in holders for place in holder.places}
    by_key = {key: holder for holder in holders for key in holder.keys}
    left: list[Sight] = []
    for sight in sights:
        if sight.kind in (lib.EVPY_OF_EVENT, lib.EVPY_OF_ONCE, lib.EVPY_OF_FINALIZER):
            holder = by_key.get(sight.arg)
        else:
            holder = by_place.get(sight.arg) or by_place.get(sight.event)
        if holder is None:
            claims = (one.claims(sight) for one in list(holders) if one.claims is not None)
            holder = next(filter(None, claims), None)
            if holder is not None and holder not in holders:
                holders.append(holder)
                by_place.update(dict.fromkeys(holder.places, holder))
        if holder is None:
            left.append(sight)
        else:
            holder.sights.append(sight)
    return left


def _sum(base: EventBase, pointer: CData, kinds: list[str]) -> str:
    """Return the first line: how many things of which *kinds* keep the loop alive."""
    virtual = int(lib.event_base_get_num_events(pointer, EventBaseCount.VIRTUAL))
    kinds = [*kinds, *["virtual event"] * virtual]
    if kinds:
        told = ", ".join(counted(kinds.count(kind), kind) for kind in dict.fromkeys(kinds))
        return f"the loop goes on: {told} {'keeps' if len(kinds) == 1 else 'keep'} it alive"
    if base._running and base._loop_flags & LoopFlag.NO_EXIT_ON_EMPTY:
        return "nothing keeps the loop alive, but NO_EXIT_ON_EMPTY: it goes on until it is stopped"
    return "nothing keeps the loop alive"


def _state(base: EventBase, sights: list[Sight]) -> Iterator[str]:
    """Yield lines about what the loop does now, and when it has something to do."""
    if base._running:
        flags = base._loop_flags
        yield f"it runs{f', with {flags.names}' if flags else ''}"
        if base.got_break:
            yield "it ends after this callback: loopbreak() was called, or a callback has raised"
        elif base.got_exit:
            yield "it ends after this round of callbacks: loopexit() was called"
        running = base.running_event
        if running is not None:
            yield f"the callback of Event #{running._key} runs"
    else:
        yield "it doesn't run"
    moments = [sight.due for sight in sights if sight.due is not None and not sight.active]
    if any(sight.active for sight in sights):
        yield "something is due now"
    elif moments:
        yield f"the next timeout is due {after(min(moments))}"


def _deferred(pointer: CData, sights: list[Sight]) -> int:
    """Return how many callbacks in C's queue are no events'."""
    active = int(lib.event_base_get_num_events(pointer, EventBaseCount.ACTIVE))
    return max(0, active - sum(sight.active for sight in sights))


#: What there is to say of an event: its kind, its lines, and whether it keeps the loop alive.
Said: TypeAlias = "tuple[str, list[str], bool]"


def _of_base(base: EventBase, sights: list[Sight]) -> Iterator[Said]:
    """Yield what there is to say of the events that belong to no other object."""
    levels = base.n_priorities
    for sight in sights:
        if sight.kind in (lib.EVPY_OF_EVENT, lib.EVPY_OF_FINALIZER):
            yield _event(base._called_by(sight.arg), sight, levels)
        elif sight.kind == lib.EVPY_OF_ONCE:
            callback = _given_to_once(base._once_callbacks.get(sight.arg))
            own = _is_ours(callback)
            name = "event of this package's own" if own else "call of once()"
            calls = f"; calls {callback_text(callback)}"
            aim = "in the loop's next turn" if sight.active else sight.aim() + sight.moment()
            yield name, [f"once(): {aim}{calls}"], True
        elif sight.kind == lib.EVPY_OF_BASE:
            yield _own(base, sight)
        else:
            yield _of_c(sight)


def _event(event: Event | None, sight: Sight, levels: int) -> Said:
    if event is None:  # other code has just closed it
        return "event", [f"an Event that is closed: {sight.aim()}{sight.moment()}"], True
    name, calls = f"Event #{event._key}", f"; calls {callback_text(event._callback)}"
    if sight.kind == lib.EVPY_OF_FINALIZER:
        return "event", [f"{name} is closed; its finalizer waits to run{calls}"], True
    ways = [word for flag, word in WAYS.items() if sight.what & flag]
    if levels > 1:
        ways.append(f"priority {sight.priority}")
    way = f" ({', '.join(ways)})" if ways else ""
    own = ", of this package's own" if _is_ours(event._callback) else ""
    aim = sight.aim()
    joined = f"{name}{own} {aim}" if aim.startswith("waits") else f"{name}{own}, {aim}"
    return "event", [f"{joined}{way}{sight.moment()}{calls}"], True


def _own(base: EventBase, sight: Sight) -> Said:
    """Return what there is to say of an event that each base has."""
    kind = "event of this package's own"
    if base._waker is not None and sight.event == address(base._waker):
        jobs = [callback_text(function) for function, _ in list(base._jobs)]
        if not jobs:
            return (
                kind,
                [f"this package's own: frees what others have dropped{sight.moment()}"],
                True,
            )
        more = [f"and {len(jobs) - SOME} more"] if len(jobs) > SOME else []
        named = ", ".join(jobs[:SOME] + more)
        return "function of defer()", [f"defer(): {len(jobs)} wait to run: {named}"], True
    if base._exiter is not None and sight.event == address(base._exiter):
        return "timer of loopexit()", [f"loopexit(): stops the loop{sight.moment()}"], True
    name = next((name for name, (_, ev) in base._pipes.items() if sight.event == address(ev)), None)
    whose = "for signals" if name == "signals" else "for the log"
    return kind, [f"this package's own, {whose}: {sight.aim()}"], not sight.internal


def _of_c(sight: Sight) -> Said:
    """Return what there is to say of an event that Python knows nothing of."""
    what = f"{sight.aim()}{sight.moment()}"
    if sight.internal:
        return "", [f"libevent's own: {what}"], False
    if sight.kind == lib.EVPY_OF_CORE and sight.active and sight.fd < 0:
        return "call of loopexit()", ["loopexit(): stops the loop in its next turn"], True
    if sight.kind == lib.EVPY_OF_OTHERS:
        return "event made in C", [f"an event made in C, at {sight.event:#x}: {what}"], True
    return "event of libevent's own", [f"libevent's own: {what}"], True


def _given_to_once(callback: Any) -> Any:
    """Return the function given to `EventBase.once`, which has wrapped it for a descriptor."""
    if type(callback) is FunctionType and callback.__qualname__ == IN_ONCE and _is_ours(callback):
        cells = dict(zip(callback.__code__.co_freevars, callback.__closure__ or (), strict=True))
        return cells["callback"].cell_contents
    return callback


def _is_ours(callback: object) -> bool:
    """Tell whether *callback* is a function of this package."""
    kind: Any = type(callback)
    if issubclass(kind, functools.partial):
        return _is_ours(functools.partial.func.__get__(callback))
    if issubclass(kind, MethodType):
        return _is_ours(MethodType.__func__.__get__(callback))
    if kind is not FunctionType:
        return False
    module = callback.__module__
    return type(module) is str and module.startswith(PACKAGE)
