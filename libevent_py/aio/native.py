"""The parts of a loop that are in C: its queue, its timers, its turns, and what transports use.

`_c/aio.c` and `_c/aio_stream.c` call Python by Python's own API. That costs a fifth of what cffi's
callbacks do, and they are called for each message, each step of a task and each timer.

`Core` is the first base class of `EventLoop`. In place of asyncio's attributes of the same names it
has members that C can reach: ``_ready``, ``_scheduled``, ``_debug``, ``_closed``, ``_stopping``. So
whatever asyncio does with them, C sees. `Handle` and `TimerHandle` are asyncio's own, likewise with
members in place of their slots; they are made in C, and run there. `Stream` is what a transport
reads and writes by.

An object of Python's is kept alive by Python, and has what is called. What libevent calls is in
memory of C's own, which refers to that object as long as it is there, and the other way round:
whichever is freed first is forgotten by the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libevent_py._core.child import Child
from libevent_py._core.dispatch import next_key
from libevent_py._core.handle import Making
from libevent_py._ffi import lib
from libevent_py.aio.watchers import READ, Watcher
from libevent_py.event.event import Event

if TYPE_CHECKING:
    import asyncio
    from collections import deque
    from collections.abc import Callable
    from contextvars import Context

    from libevent_py._ffi import CData
    from libevent_py.event.base import EventBase

READS = int(READ)

_classes: dict[str, Any] = {}
if lib.evpy_aio_classes(id(_classes)):  # it has printed why
    raise ImportError("libevent_py.aio could not make its classes")

if TYPE_CHECKING:

    class Core(asyncio.SelectorEventLoop):
        """The queue, the timers and the turns of an asyncio loop, in C."""

        _clock_resolution: float
        _closed: bool
        _debug: bool
        _idle: bool
        _ready: deque[asyncio.Handle]
        _scheduled: list[Any]
        _stopping: bool
        _timer_cancelled_count: int

        def _arm(self) -> None: ...
        def _begin(self) -> None: ...

    class Handle(asyncio.Handle):
        """What `call_soon` returns."""

        _args: tuple[Any, ...]
        _callback: Callable[..., object]
        _source_traceback: Any

    class TimerHandle(asyncio.TimerHandle):
        """What `call_later` and `call_at` return."""

    class Stream:
        """What a transport reads and writes by."""

        context: Context | None
        protocol: object
        transport: object
        open: bool
        held: int

        def __init__(self, loop: Core, fd: int, /) -> None: ...
        def write(self, data: Any, /) -> None: ...
        def flush(self) -> None: ...
        def end(self) -> None: ...
else:
    Core, Handle = _classes["Core"], _classes["Handle"]
    TimerHandle, Stream = _classes["TimerHandle"], _classes["Stream"]


class Stepper(Event):
    """The event by which libevent calls a loop that has something to do."""

    __slots__ = ()

    _free = staticmethod(lib.evpy_step_free)

    def __init__(self, base: EventBase, loop: Core) -> None:
        own(self, base, -1, 0, runs_what_is_ready, lib.evpy_step_new, base.pointer, id(loop))


class Reading(Watcher):
    """The event for a stream that reads, and is kept alive by it."""

    __slots__ = ("stream",)

    _free = staticmethod(lib.evpy_stream_free)

    def __init__(self, base: EventBase, fd: int, stream: Stream) -> None:
        self.stream: Stream = stream
        arguments = base.pointer, fd, id(stream)
        own(self, base, fd, READS, reads_for_a_transport, lib.evpy_stream_new, *arguments)


def own(
    event: Event,
    base: EventBase,
    fd: int,
    what: int,
    callback: Callable[..., object],
    function: Callable[..., CData],
    *arguments: Any,
) -> None:
    """Set up an *event* that *function* makes in C, and that C calls itself.

    *callback* only stands for that where the event is described.
    """
    base._check_thread()
    key = next_key()
    event._callback, event._fd, event._what = callback, fd, what
    event._armed, event._then = False, True
    making: Making = Making(function, *(*arguments, key))
    Child.__init__(event, base, key, making)


def runs_what_is_ready() -> None:
    """Stand for what a `Stepper` does."""


def reads_for_a_transport() -> None:
    """Stand for what a `Reading` does."""
