"""The processes that a master has: how one is forked, what it does, and how it ends.

A worker and its master share a pair of sockets. The worker says on it that it serves; when the
master closes its end, or has died, the worker ends gracefully. Signals often come to master and
workers together, from a terminal or from systemd; so a worker takes SIGTERM for the same wish, and
leaves the others to the master.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from libevent_py import log
from libevent_py.enums import EventFlag
from libevent_py.event.event import Event
from libevent_py.serve import engines
from libevent_py.serve.config import Config
from libevent_py.serve.counters import Meter, Shared
from libevent_py.serve.engine import logger
from libevent_py.serve.errors import StartupError
from libevent_py.serve.loading import load
from libevent_py.serve.worker import Worker

#: The exit status of a worker whose application can't be served; trying again would not help.
UNFIT = 3

READY = b"ready"


def forked(work: Callable[[], int]) -> int:
    """Run *work* in a new process, whose exit status it returns; return the process's id.

    The child has the default signal handlers, and none of what the parent does at exit. Raises
    `OSError` if there can be no further process.
    """
    signals = signal.valid_signals()
    for stream in sys.stdout, sys.stderr:
        if stream is not None:
            stream.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        pid = os.fork()
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
    status = 1
    try:
        reset_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        atexit._clear()
        status = work()
    except SystemExit as end:  # of the application
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        logger.exception("process %d fails", os.getpid())
    finally:
        leave(status)


def reset_signals() -> None:
    """Have every signal handled as in a new program, but SIGPIPE as Python does it."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


def leave_to_master(number: int, _frame: object) -> None:
    """Do nothing at a signal for the master; unlike SIG_IGN, no program inherits this."""


def leave(status: int) -> NoReturn:
    """End this process, which the parent's stack is none of, with *status*."""
    try:
        atexit._run_exitfuncs()
        log.flush()
        logging.shutdown()
        for stream in sys.stdout, sys.stderr:
            if stream is not None:
                stream.flush()
    finally:
        os._exit(status)


def work(
    config: Config, sockets: Sequence[socket.socket], channel: socket.socket, shared: Shared | None
) -> int:
    """Serve *config* on *sockets* in this process, until the master closes its *channel*."""
    for number in signal.SIGINT, signal.SIGHUP, signal.SIGUSR1:
        signal.signal(number, leave_to_master)
    try:
        engine, runner = engines.load(config.http), load(config)
        worker = Worker(config, list(sockets), runner, engine, signals=())
        meters = []

        def ready() -> None:
            if shared is not None and worker.engine is not None:
                meters.append(Meter(worker.engine, shared))
            with contextlib.suppress(ConnectionError):  # the master has died: `end` is called soon
                channel.sendall(READY)

        def end(_event: Event, _fd: int, _what: int) -> None:
            config.shutdown.set()

        Event(runner.base, channel, EventFlag.READ, end).add()
        Event.signal(runner.base, signal.SIGTERM, end).add()
        worker.run(ready)
        for meter in meters:
            meter.write()
    except (StartupError, ImportError) as error:
        logger.error("%s", error, exc_info=error.__cause__)
        return UNFIT
    return 0


class Child:
    """A worker, as the master sees it."""

    def __init__(
        self,
        slot: int,
        generation: int,
        config: Config,
        sockets: Sequence[socket.socket],
        shared: Shared | None,
        close: Callable[[], None],
        now: float,
    ) -> None:
        """Fork a worker for *slot*; in the child, *close* closes what is the master's alone."""
        self.slot = slot
        self.generation = generation
        self.shared = shared
        self.began = now
        #: Whether it serves; whether it has been told to end; and when it is killed, then.
        self.ready: bool = False
        self.ending: bool = False
        self.deadline: float | None = None
        self.channel: socket.socket
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)

        def begin() -> int:
            close()
            self.channel.close()
            return work(config, sockets, theirs, shared)

        try:
            self.pid: int = forked(begin)
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()

    def heard(self) -> bool:
        """Note what the worker says; return whether it says any more."""
        try:
            said = self.channel.recv(64)
        except BlockingIOError:  # a process that the worker has left has it, too
            return True
        except ConnectionError:
            said = b""
        self.ready = self.ready or bool(said)
        return bool(said)

    def end(self, deadline: float) -> None:
        """Let the worker end gracefully; it is killed after *deadline*."""
        if not self.ending:
            self.ending, self.deadline = True, deadline
            with contextlib.suppress(OSError):  # it has just died
                self.channel.shutdown(socket.SHUT_WR)

    def send(self, number: int) -> None:
        """Send the signal *number*; the child hasn't been waited for, so its id is its own."""
        os.kill(self.pid, number)
