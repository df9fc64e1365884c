"""The two pipes that wake a loop from outside libevent: for Python's signals, and for the log.

libevent goes on waiting after EINTR, so a Python signal handler would have to wait for the next
event. While a loop runs in the main thread, `signal.set_wakeup_fd` makes each signal write a byte
to a socket pair whose other end the loop watches, with an event that doesn't keep the loop alive.
Waking the loop is enough: before any other Python code, the handlers run. Bytes meant for a wakeup
descriptor that was set before are passed on to it, and it is restored when the loop returns.

Both pairs belong to the process and stay open, so that nothing writes to a descriptor number that
has been reused. A forked child gets new pairs under the same numbers.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import threading
from contextlib import suppress

from libevent_py._ffi import lib


class Pipe:
    """A socket pair whose bytes only mean "wake up"."""

    def __init__(self) -> None:
        self.reader, self.writer = self._pair()

    @staticmethod
    def _pair() -> tuple[socket.socket, socket.socket]:
        pair = socket.socketpair()
        for end in pair:
            end.setblocking(False)
        return pair

    @property
    def fd(self) -> int:
        """The descriptor to wait on."""
        return self.reader.fileno()

    def take(self) -> bytes:
        """Return the bytes that have arrived."""
        taken = b""
        with suppress(BlockingIOError):
            while arrived := self.reader.recv(4096):
                taken += arrived
        return taken

    def close(self) -> None:
        """Close both ends."""
        self.reader.close()
        self.writer.close()

    def renew(self) -> None:
        """Replace the pair shared with the parent process, under the same descriptors."""
        for old, new in zip((self.reader, self.writer), self._pair(), strict=True):
            os.dup2(new.fileno(), old.fileno(), inheritable=False)
            new.close()


_write_signals_to = functools.partial(signal.set_wakeup_fd, warn_on_full_buffer=False)


class Wakeup:
    """The process's two pipes."""

    def __init__(self) -> None:
        self.signals = Pipe()
        self.log = Pipe()
        self.previous = -1
        #: Whether the log in C knows its pipe.
        self.known = False

    def close(self) -> None:
        """Close both pipes, which have not been used."""
        self.signals.close()
        self.log.close()

    def watch(self, before: list[int]) -> None:
        """Make each signal write to the `signals` pipe; for the main thread only.

        *before* gets what `unwatch` needs, even if an interrupt comes right after a step.
        """
        writer = self.signals.writer.fileno()
        before.append(self.previous)
        before.extend(map(_write_signals_to, (writer,)))
        if before[1] != writer:
            self.previous = before[1]

    def rewatch(self) -> None:
        """Do as `watch` again amid its loop, as somebody else has set the wakeup descriptor."""
        writer = self.signals.writer.fileno()
        found = _write_signals_to(writer)
        if found != writer:
            self.previous = found

    def unwatch(self, before: list[int]) -> None:
        """Undo `watch`, as far as it got; a second time does nothing else."""
        for number in before[1:]:
            try:
                signal.set_wakeup_fd(number)
            except (OSError, ValueError):  # its owner has closed it, or made it blocking
                signal.set_wakeup_fd(-1)
            self.signalled()  # passes on the signal that stopped the loop
        for number in before[:1]:
            self.previous = number

    def signalled(self) -> None:
        """Empty the `signals` pipe, and pass its bytes on to the descriptor that it replaces."""
        numbers = self.signals.take()
        if numbers and self.previous >= 0:
            with suppress(OSError):  # as Python's own signal handler does
                os.write(self.previous, numbers)


#: The process's `Wakeup`, once there is one. Two threads, or a signal handler and the code that it
#: interrupts, may each make one at the same time: the first one that is stored here counts.
_made: dict[str, Wakeup] = {}


def wakeup() -> Wakeup:
    """Return the process's `Wakeup`, made when it is first needed."""
    if not _made:
        new = Wakeup()
        if _made.setdefault("", new) is not new:
            new.close()
    made = _made[""]
    if not made.known:
        lib.evpy_log_poke(made.log.writer.fileno())
        made.known = True
    return made


def _after_fork() -> None:
    """Give a forked child its own pipes."""
    for made in _made.values():
        made.signals.renew()
        made.log.renew()


os.register_at_fork(after_in_child=_after_fork)


def in_main_thread() -> bool:
    """Tell whether Python runs its signal handlers in this thread."""
    return threading.current_thread() is threading.main_thread()
