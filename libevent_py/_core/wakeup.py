"""The two pipes that wake a loop from outside libevent: for Python's signals, and for the log.

libevent goes on waiting after EINTR, so a Python signal handler would wait for the next event.
While a loop runs in the main thread, `signal.set_wakeup_fd` has each signal write a byte to a
socket pair whose other end the loop watches, with an event that does not keep the loop alive. The
byte is all that is needed: any Python code that runs then runs the handlers first. A wakeup
descriptor that was there before is given what arrived in its stead, and is put back when the loop
returns.

Both pairs are the process's and stay open: so nobody can write to a number that meanwhile belongs
to something else. A forked child gets pairs of its own under the same numbers.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from libevent_py._ffi import lib


class Pipe:
    """A socket pair that carries bytes which say nothing but "wake up"."""

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
        """Stop sharing the pair with the parent process, under the same descriptors."""
        for old, new in zip((self.reader, self.writer), self._pair(), strict=True):
            os.dup2(new.fileno(), old.fileno(), inheritable=False)
            new.close()


class Wakeup:
    """The process's two pipes."""

    def __init__(self) -> None:
        self.signals = Pipe()
        self.log = Pipe()
        self.previous = -1
        #: Whether the log is told of its pipe.
        self.known = False

    def close(self) -> None:
        """Close both pipes, which nobody has used."""
        self.signals.close()
        self.log.close()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Have each signal write to the `signals` pipe; for the main thread."""
        writer = self.signals.writer.fileno()
        outer = self.previous
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        if before != writer:
            self.previous = before
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            self.signalled()  # what stopped the loop before it could pass it on
            self.previous = outer

    def signalled(self) -> None:
        """Empty the `signals` pipe, and pass on what belongs to the descriptor it stands in for."""
        numbers = self.signals.take()
        if numbers and self.previous >= 0:
            with suppress(OSError):  # as from the signal handler: nobody to tell, nothing to do
                os.write(self.previous, numbers)


#: The process's `Wakeup`, once there is one. Two threads, or a signal handler and what it has
#: interrupted, may make one each at a time: the first to put it here has made the process's.
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
    """Give a forked child pipes of its own."""
    for made in _made.values():
        made.signals.renew()
        made.log.renew()


os.register_at_fork(after_in_child=_after_fork)


def in_main_thread() -> bool:
    """Tell whether Python runs its signal handlers in this thread."""
    return threading.current_thread() is threading.main_thread()
