"""asyncio's loop on an event base.

*One run, one loop.* `EventLoop` is asyncio's own loop for Unix, with its transports, servers,
subprocesses and signals; only its waiting is libevent's. asyncio's `run_forever` calls `_run_once`
again and again, which polls the descriptors and runs what is ready. Here `_run_once` is a whole run
of the base's loop, which ends when somebody stops it, and an event of the loop's own runs what is
ready. So whatever else is on the base runs in between.

*When it runs.* The event is due at once as long as something is ready, by a timeout of 0: libevent
then polls the descriptors first. Otherwise it is due when the first of asyncio's own timers is, and
`_idle` says that whoever makes something ready has to rouse it. A descriptor's callback runs its
handle itself if nothing is ready before it. Otherwise it queues the handle, which then runs in the
same turn. All that is in C: see `native`, and `transports` for the sockets.

*Signals.* asyncio has Python write the signals' numbers to its own pipe, and so takes the wakeup
descriptor that the base's loop has set (`wakeup`). It is given back at once, and passes on to
asyncio's pipe what comes.
"""

from __future__ import annotations

import asyncio
import math
import signal
import socket
from asyncio import format_helpers
from collections.abc import Callable
from contextvars import Context
from heapq import heapify
from typing import TYPE_CHECKING, Any, Final

from libevent_py import errors
from libevent_py._core.convert import FileDescriptor
from libevent_py._core.owner import get_ident
from libevent_py._core.wakeup import in_main_thread, wakeup
from libevent_py._ffi import lib
from libevent_py.aio.lookups import getaddrinfo
from libevent_py.aio.native import Core, Handle, Reading, Stepper, Stream, reads_for_a_transport
from libevent_py.aio.transports import SocketTransport
from libevent_py.aio.watchers import READ, WRITE, Watched, Watcher, Watchers
from libevent_py.dns.base import DnsBase
from libevent_py.enums import EventFlag, LoopFlag
from libevent_py.event.base import EventBase
from libevent_py.event.event import Event

#: How many seconds to wait at most, as asyncio does.
LONGEST = 24 * 3600.0

#: As asyncio does: beyond so many cancelled timers, if they are the most, remove them all.
CANCELLED = 50

NO_EXIT_ON_EMPTY = LoopFlag.NO_EXIT_ON_EMPTY

# Looked up once: an attribute of lib costs as much as a short call.
event_active: Final = lib.evpy_event_active
rouse: Final = lib.evpy_event_rouse


class EventLoop(Core, asyncio.SelectorEventLoop):
    """An asyncio loop on a base, whose other events, bufferevents and servers run in between.

    Give the class itself to ``asyncio.Runner(loop_factory=…)`` or ``asyncio.run``, or use
    `aio.run`. Everything of asyncio's works on it: tasks, streams, transports, subprocesses,
    signals, debug mode. What the callbacks of the base's other objects raise comes out of
    `run_forever`, after which the loop can be run again. `EventBase.loopbreak` or ``loopexit``
    stops it, as `stop` does. An object's callback may use the loop as a coroutine may: no
    `call_soon_threadsafe` is needed.
    """

    if TYPE_CHECKING:  # what asyncio has, and its stubs don't
        _csock: Any
        _signal_handlers: dict[int, asyncio.Handle]
        _thread_id: int | None

        def _check_closed(self) -> None: ...

        def _ensure_fd_no_transport(self, sock: object) -> None: ...

        def _write_to_self(self) -> None: ...

    def __init__(self, base: EventBase | None = None, *, dns_base: DnsBase | None = None) -> None:
        """Make a loop on *base*; without, on a base of its own, which is closed with the loop.

        A user's base stays open, and whoever closes it first leaves a loop that can only be closed.
        A base has one asyncio loop running at a time. With a *dns_base*, made on *base*, the loop
        looks names up by evdns, for `create_connection` as well; without, by the system's functions
        in a thread, as asyncio does. Raises `ValueError` for a *dns_base* on another base.
        """
        if base is not None and not isinstance(base, EventBase):
            raise TypeError(f"base must be an EventBase, not {base!r}")
        if dns_base is not None and not isinstance(dns_base, DnsBase):
            raise TypeError(f"dns_base must be a DnsBase, not {dns_base!r}")
        if dns_base is not None and dns_base.base is not base:
            raise ValueError(f"dns_base must be made on {base!r}, and {dns_base!r} is not")
        self._dns_base = dns_base
        self._owns_base = base is None
        self._base = EventBase() if base is None else base
        self._readers = Watchers(self._base, READ, self._descriptor_ready)
        self._writers = Watchers(self._base, WRITE, self._descriptor_ready)
        self._stepper = Stepper(self._base, self)
        #: Ends a run in its turn. `loopexit` would end the next one, if an exception comes first.
        self._breaker = Event.user(self._base, lambda event, *_: event.base.loopbreak())
        try:
            super().__init__(Watched(self._readers, self._writers))
            self._begin()
        except BaseException:
            self._closed = True
            self._end()
            raise

    @property
    def base(self) -> EventBase:
        """The base that the loop runs on."""
        return self._base

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Look *host* and *port* up, by the loop's `DnsBase` if it has one.

        Raises `socket.gaierror`, of which evdns's `DnsError` is a kind.
        """
        asked = {"family": family, "type": type, "proto": proto, "flags": flags}
        if self._dns_base is None:
            return await super().getaddrinfo(host, port, **asked)
        service = port.decode("latin-1") if isinstance(port, bytes) else port
        found = await getaddrinfo(self._dns_base, host, service, **asked)
        return [
            (socket.AddressFamily(family), socket.SocketKind(type), *rest)
            for family, type, *rest in found
        ]

    # Running.

    def _run_once(self) -> None:
        """Run the base's loop until somebody stops it: asyncio's `run_forever` calls this once."""
        base = self._base
        self._claim()
        handles_signals = bool(self._signal_handlers)
        if handles_signals and in_main_thread():  # the base's loop passes on what comes there
            signal.set_wakeup_fd(self._csock.fileno())
        try:
            self._stepper._stay()
            self._readers.begin()
            self._writers.begin()
            self._arm()
            base.loop(NO_EXIT_ON_EMPTY)
        finally:
            try:
                self._rest(handles_signals)
            except BaseException:  # an interrupt
                self._rest(handles_signals)
                raise
        self._stopping = True

    def _rest(self, handled_signals: bool) -> None:
        """Have nothing of the loop's own pending on the base until the next run."""
        self._idle = False
        if not self._base.closed and not self._base._forked:
            self._stepper.delete()
            self._breaker.delete()
            self._readers.end()
            self._writers.end()
        if (handled_signals or self._signal_handlers) and in_main_thread():
            signal.set_wakeup_fd(self._csock.fileno() if self._signal_handlers else -1)
            self._wake_by_signals()

    # What `Core` asks for in its turns.

    def _step_slowly(self) -> None:
        """Run what is ready now in debug mode."""
        super(Core, self)._run_once()  # type: ignore[misc]

    def _break(self) -> None:
        """End the run at once."""
        self._base.loopbreak()

    def _exit(self) -> None:
        """End the run after this turn's callbacks."""
        self._breaker.active()

    def _report(self, error: BaseException) -> None:
        """Have the run raise *error*."""
        try:
            self._base._report(error, self._stepper)
        except BaseException as interrupt:
            errors.keep(interrupt)

    def _handle_failed(self, handle: Handle, error: BaseException) -> None:
        """Tell asyncio's exception handler what a handle's callback has raised, as asyncio does."""
        source = format_helpers._format_callback_source(handle._callback, handle._args)
        context = {
            "message": f"Exception in callback {source}",
            "exception": error,
            "handle": handle,
        }
        if handle._source_traceback:
            context["source_traceback"] = handle._source_traceback
        self.call_exception_handler(context)

    def set_debug(self, enabled: bool) -> None:
        """Switch debug mode on or off."""
        super().set_debug(bool(enabled))

    def _remove_cancelled(self) -> None:
        """Remove the cancelled timers from the heap if they are the most."""
        scheduled = self._scheduled
        if 2 * self._timer_cancelled_count <= len(scheduled):
            return
        for timer in scheduled:
            timer._scheduled = not timer._cancelled
        scheduled[:] = [timer for timer in scheduled if not timer._cancelled]
        heapify(scheduled)
        self._timer_cancelled_count = 0

    def _rouse(self) -> None:
        """Have what is ready run in the next turn."""
        if self._thread_id == get_ident():
            rouse(self._stepper.pointer, 0.0)
            self._idle = False  # only now: a signal handler that raises must not leave it asleep
        else:
            self._write_to_self()

    # hot: called for each descriptor that is ready.
    def _descriptor_ready(self, watcher: Watcher, fd: int, what: EventFlag) -> None:
        """Run a descriptor's handle: now if nothing else is ready, else in its turn."""
        handle = watcher.handle
        if handle._cancelled:
            watcher.watchers.remove(fd)
        elif self._idle and not self._debug:
            handle._run()
            if self._stopping:
                self._breaker.active()  # after the other descriptors' callbacks
        else:
            self._ready.append(handle)
            if self._idle:
                event_active(self._stepper.pointer)
                self._idle = False

    def _read_from_self(self) -> None:
        """Read asyncio's pipe: another thread has made something ready, or a signal has."""
        super()._read_from_self()  # type: ignore[misc]
        if self._idle:
            event_active(self._stepper.pointer)
            self._idle = False

    def stop(self) -> None:
        """Stop the loop after what is ready now; may be called in any callback of the base's."""
        super().stop()
        if self._idle:
            self._rouse()

    # What is called soon, or later: `Core` does that, but in debug mode or when it is closed.

    def _call_soon_slowly(
        self, callback: Callable[..., object], args: tuple[object, ...], context: Context | None
    ) -> asyncio.Handle:
        handle = super(Core, self).call_soon(callback, *args, context=context)
        if handle._source_traceback:  # type: ignore[attr-defined]
            del handle._source_traceback[-1]  # type: ignore[attr-defined]
        if self._idle:
            self._rouse()
        return handle

    def _call_later_slowly(
        self,
        delay: float,
        callback: Callable[..., object],
        args: tuple[object, ...],
        context: Context | None,
    ) -> asyncio.TimerHandle:
        if delay is None:
            raise TypeError("delay must not be None")
        timer = self._call_at_slowly(self.time() + delay, callback, args, context)
        if timer._source_traceback:  # type: ignore[attr-defined]
            del timer._source_traceback[-1]  # type: ignore[attr-defined]
        return timer

    def _call_at_slowly(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[object, ...],
        context: Context | None,
    ) -> asyncio.TimerHandle:
        if when is None:  # Python 3.10 only asserts that it isn't
            raise TypeError("when cannot be None")
        self._check_closed()
        math.fabs(when)  # raises now: in the heap it would make each turn of the loop fail
        timer = super(Core, self).call_at(when, callback, *args, context=context)
        if timer._source_traceback:  # type: ignore[attr-defined]
            del timer._source_traceback[-1]  # type: ignore[attr-defined]
        if self._idle and self._scheduled[0] is timer:
            self._sooner()
        return timer

    def _sooner(self) -> None:
        """Have the loop look when the first timer is due, which has been added in a callback."""
        if self._thread_id == get_ident():
            self._arm()
        else:
            self._write_to_self()

    # Descriptors.

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, object] | None = None,
        server: object = None,
    ) -> SocketTransport:
        self._ensure_fd_no_transport(sock)
        return SocketTransport(self, sock, protocol, waiter, extra, server)

    def _add_stream(self, sock: socket.socket, stream: Stream) -> None:
        """Have *stream* read what comes by *sock*."""
        self._check_closed()
        number = sock.fileno()
        reading = Reading(self._base, number, stream)
        reading.handle = asyncio.Handle(reads_for_a_transport, (), self, stream.context)
        self._readers.put(number, sock, reading, self._thread_id is not None)

    def _add_reader(
        self, fd: FileDescriptor, callback: Callable[..., object], *args: object
    ) -> asyncio.Handle:
        self._check_closed()
        handle = asyncio.Handle(callback, args, self, None)
        self._readers.add(fd, handle, self._thread_id is not None)
        return handle

    def _add_writer(
        self, fd: FileDescriptor, callback: Callable[..., object], *args: object
    ) -> asyncio.Handle:
        self._check_closed()
        handle = asyncio.Handle(callback, args, self, None)
        self._writers.add(fd, handle, self._thread_id is not None)
        return handle

    def _remove_reader(self, fd: FileDescriptor) -> bool:
        return not self._closed and self._readers.remove(fd)

    def _remove_writer(self, fd: FileDescriptor) -> bool:
        return not self._closed and self._writers.remove(fd)

    # Signals.

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: object) -> None:
        """Have ``callback(*args)`` called in the loop when the process gets the signal *sig*."""
        try:
            super().add_signal_handler(sig, callback, *args)
        finally:
            self._wake_by_signals()

    def remove_signal_handler(self, sig: int) -> bool:
        """Undo `add_signal_handler`; return whether there was a handler."""
        try:
            return super().remove_signal_handler(sig)
        finally:
            self._wake_by_signals()

    def _wake_by_signals(self) -> None:
        """Let signals wake the base's loop again, as asyncio has set a wakeup descriptor.

        Or its turns, if this is in a block of them.
        """
        base = self._base
        waits = base._running if base._opened is None else base._opened._waits
        if waits and base._thread == get_ident() and in_main_thread():
            wakeup().rewatch()

    # The end.

    def close(self) -> None:
        """Close the loop, and its base if it has one of its own; a second time does nothing.

        Raises `RuntimeError` while it runs, `ThreadError` while another thread uses the base.
        """
        done = self._closed
        if not done and not self.is_running():
            self._claim()
        super().close()
        if not done:
            self._end()

    def _claim(self) -> None:
        """Make this thread the owner of the base, if the base is there."""
        base = self._base
        if base._thread != get_ident() and not base.closed and not base._forked:
            base.take_over()

    def _end(self) -> None:
        self._readers.close()
        self._writers.close()
        self._stepper.close()
        self._breaker.close()
        del self._stepper  # it refers to this, which is to be freed with the last reference
        if self._owns_base:
            self._base.close()
