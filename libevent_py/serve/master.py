"""The master: keeps workers running, each a process, which share the listening sockets.

The master itself loads no application, opens no connection and has no thread. So it doesn't fail
with a worker, and can fork at any time. It owns the listening sockets: while a worker is missing,
clients wait in the kernel's queue. On SIGHUP new workers begin; once all of them serve, the old
ones end gracefully.

All that it does is decided in one place, `Master._go_on`, after anything has happened.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import json
import math
import os
import selectors
import signal
import socket
import stat
import time
from collections.abc import Callable, Sequence
from typing import Any

from libevent_py._core.frames import tells
from libevent_py._core.wakeup import in_main_thread
from libevent_py.serve import sockets as listening
from libevent_py.serve.children import UNFIT, Child, forked
from libevent_py.serve.config import Config
from libevent_py.serve.counters import Counts, Shared
from libevent_py.serve.engine import logger
from libevent_py.serve.systemd import Supervisor
from libevent_py.serve.watching import times, watch

#: A worker that has lived so long has not crashed at its start; in seconds.
STABLE = 10.0
#: How long the slot of a worker that has crashed stays empty: first, and at most.
FIRST_DELAY, LAST_DELAY = 0.5, 30.0
#: After so many crashes in a row, none of which has served for long, the master gives up.
MOST_CRASHES = 10
#: How long a worker may take beyond `Config.graceful_timeout` until it is killed.
GRACE = 5.0

HANDLED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGCHLD,
)


@dataclasses.dataclass(frozen=True)
class Fleet:
    """How many workers a master has, and what it does besides."""

    #: How many processes serve.
    workers: int = 1
    #: Whether the workers are replaced when one of the application's files changes.
    reload: bool = False
    #: Where these files are; the current directory if there is none.
    reload_dirs: tuple[str, ...] = ()
    #: Whether the workers count what they do.
    stats: bool = False
    #: The path of a UNIX socket that tells the counters to whoever connects, or None.
    stats_path: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.workers, int) or isinstance(self.workers, bool):
            raise TypeError(f"workers must be an integer, not {self.workers!r}")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, not {self.workers}")
        for place in self.reload_dirs:
            if not os.path.isdir(place):
                raise ValueError(f"reload_dirs: there is no directory {place!r}")


@tells
def supervise(
    config: Config,
    fleet: Fleet,
    sockets: Sequence[Sequence[socket.socket]],
    *,
    ready: Callable[[], None] | None = None,
) -> int:
    """Serve *config* by worker processes until SIGTERM or SIGINT; return an exit status.

    *sockets* are those that all workers listen on, in a list of their own; or one such list for
    each worker, of sockets that share a port by SO_REUSEPORT. They are closed in the end. *ready*
    is called when all workers serve for the first time.

    SIGHUP replaces the workers, SIGUSR1 logs the counters, SIGTERM and SIGINT let the workers
    finish what they do, and a second one, or SIGQUIT, cuts that short. The status is 0 after these,
    and 1 if the application can't be served or its workers keep crashing. All child processes of
    this process are waited for. Raises `RuntimeError` outside the main thread, `ValueError` for
    another number of lists, and `OSError` if the path for the counters can't be bound.
    """
    if not in_main_thread():
        raise RuntimeError("a master needs the main thread, for its signals")
    if len(sockets) not in (1, fleet.workers) or not all(sockets):
        raise ValueError(
            f"sockets must be one list for all workers or {fleet.workers}, none empty, not "
            f"{len(sockets)} lists"
        )
    return Master(config, fleet, sockets, ready).run()


class Slot:
    """The place of one worker, which is filled again and again."""

    __slots__ = ("crashes", "due", "number", "unfit")

    def __init__(self, number: int) -> None:
        self.number: int = number
        #: When a worker begins here, if there is none; never after one that was unfit.
        self.due: float = 0.0
        #: How many have crashed here in a row.
        self.crashes: int = 0
        self.unfit: bool = False


class Master:
    """The processes of one server."""

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        sockets: Sequence[Sequence[socket.socket]],
        ready: Callable[[], None] | None,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._sockets = [list(group) for group in sockets]
        self._told_ready = ready
        self._supervisor = Supervisor()
        self._selector = selectors.DefaultSelector()
        #: Signals that have come, in order.
        self._signals: collections.deque[int] = collections.deque()
        self._waker, self._woken = socket.socketpair()
        self._children: dict[int, Child] = {}
        self._slots = [Slot(number) for number in range(fleet.workers)]
        #: What the workers of the present generation are; on SIGHUP the next one begins.
        self._generation = 1
        #: Whether the old generation still serves until the new one does.
        self._reloading = self._reload_again = False
        self._served = False
        self._ending = False
        #: The exit status.
        self._status = 0
        self._crashes = 0
        #: What workers that have ended have counted.
        self._gone = Counts()
        self._began = time.time()
        self._restarts = 0
        self._watcher: int | None = None
        self._changes: socket.socket | None = None
        self._stats: socket.socket | None = None

    # From start to end.

    def run(self) -> int:
        """Keep the workers running until they are told to end."""
        before = {number: signal.getsignal(number) for number in HANDLED}
        woken_before = -1
        try:
            with listening.removed_after(self._open_stats()):
                try:
                    woken_before = self._catch_signals()
                    if self._fleet.reload:
                        self._watch()
                    while self._go_on():
                        self._wait()
                finally:
                    self._kill_all()
        finally:
            signal.set_wakeup_fd(woken_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._close()
            for group in self._sockets:
                for sock in group:
                    sock.close()
        return self._status

    def _open_stats(self) -> str | None:
        path = self._fleet.stats_path
        if path is not None:
            self._stats = listening.at_path(path)
            os.chmod(path, stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IWGRP)
            self._stats.setblocking(False)
            self._selector.register(self._stats, selectors.EVENT_READ, self._tell_stats)
        return path

    def _catch_signals(self) -> int:
        """Handle signals; return the descriptor that they have woken before."""
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._wake)
        for number in HANDLED:
            signal.signal(number, lambda number, _frame: self._signals.append(number))
        return signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)

    def _wake(self) -> None:
        self._woken.recv(4096)

    def _close(self) -> None:
        """Close what is the master's alone: in the end, and in each child."""
        self._selector.close()
        for sock in (self._waker, self._woken, self._stats, self._changes):
            if sock is not None:
                sock.close()
        for child in self._children.values():
            child.channel.close()

    def _close_in_child(self, kept: Sequence[socket.socket] = ()) -> None:
        """Close all that a child must not have: of the sockets to listen on, all but *kept*."""
        self._close()
        for group in self._sockets:
            for sock in group:
                if sock not in kept:
                    sock.close()

    def _kill_all(self) -> None:
        """Kill what is left, for instance after an exception, and wait for it."""
        pids = [*self._children, *([] if self._watcher is None else [self._watcher])]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)

    def _wait(self) -> None:
        """Wait until something happens, or is due."""
        dues = [child.deadline for child in self._children.values() if child.deadline is not None]
        if not self._ending:
            dues += [slot.due for slot in self._slots if self._is_empty(slot)]
        left = min(dues, default=math.inf) - time.monotonic()
        timeout = None if left == math.inf else max(0.0, left)
        if self._signals:
            timeout = 0.0
        for key, _ in self._selector.select(timeout):
            key.data()

    def _go_on(self) -> bool:
        """Do all that there is to do now; return whether anything is left to wait for."""
        while self._signals:
            self._signalled(self._signals.popleft())
        self._reap()
        now = time.monotonic()
        for child in self._children.values():
            if child.deadline is not None and child.deadline <= now:
                logger.warning("worker %d is killed: it has not ended in time", child.pid)
                child.send(signal.SIGKILL)
                child.deadline = None
        if self._ending:
            return bool(self._children)
        for slot in self._slots:
            if self._is_empty(slot) and slot.due <= now:
                self._begin(slot, now)
        self._check_served(now)
        return not self._ending or bool(self._children)

    # Workers.

    def _present(self) -> list[Child]:
        """Return the workers of the present generation that are to stay."""
        return [
            child
            for child in self._children.values()
            if child.generation == self._generation and not child.ending
        ]

    def _is_empty(self, slot: Slot) -> bool:
        """Tell whether a worker is to begin in *slot*."""
        return not slot.unfit and all(child.slot != slot.number for child in self._present())

    def _begin(self, slot: Slot, now: float) -> None:
        """Start a worker in *slot*."""
        group = self._sockets[slot.number % len(self._sockets)]
        shared = Shared() if self._fleet.stats else None
        try:
            close = functools.partial(self._close_in_child, group)
            child = Child(slot.number, self._generation, self._config, group, shared, close, now)
        except OSError as error:  # no memory, or too many processes
            slot.due = now + LAST_DELAY
            logger.error("no worker can be started, again in %g s: %s", LAST_DELAY, error)
            return
        self._children[child.pid] = child

        def heard() -> None:
            if not child.heard():
                self._selector.unregister(child.channel)

        self._selector.register(child.channel, selectors.EVENT_READ, heard)
        logger.info("worker %d begins", child.pid)

    def _reap(self) -> None:
        """Take note of the processes that have ended; as pid 1, of orphans, too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            if pid == self._watcher:
                self._watcher = None
                logger.error("files are watched no longer: the process that does has %s", how(code))
            elif child := self._children.pop(pid, None):
                self._ended(child, code)

    def _ended(self, child: Child, code: int) -> None:
        """Act on the end of a worker."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(child.channel)
        child.heard()
        child.channel.close()
        if child.shared is not None:
            self._gone += child.shared.read().ended()
            child.shared.close()
        level = logger.info if child.ending and not code else logger.error
        level("worker %d has %s", child.pid, how(code))
        if child.ending or child.generation != self._generation or self._ending:
            return
        self._crashed(child, code)

    def _crashed(self, child: Child, code: int) -> None:
        """Decide when a worker that has ended by itself is replaced, if at all."""
        if self._reloading:
            if not child.ready:
                self._give_up_reload(child)
                return
        elif code == UNFIT and not self._served and not child.ready:
            if self._fleet.reload:
                self._slots[child.slot].unfit = True
                logger.error("waiting for one of the application's files to change")
            else:
                self._end(1)
            return
        slot, now = self._slots[child.slot], time.monotonic()
        self._restarts += 1
        if child.ready and now - child.began >= STABLE:
            slot.crashes = self._crashes = 0
            slot.due = now
            return
        slot.crashes += 1
        self._crashes += 1
        delay = min(FIRST_DELAY * 2 ** (slot.crashes - 1), LAST_DELAY)
        slot.due = now + delay
        if self._crashes >= MOST_CRASHES and not any(one.ready for one in self._present()):
            logger.critical("%d workers have crashed one after the other: giving up", self._crashes)
            self._end(1)
            return
        logger.error("the next worker in its place begins in %g s", delay)

    def _check_served(self, now: float) -> None:
        """Go on when all workers of the present generation serve."""
        present = self._present()
        if len(present) < len(self._slots) or not all(child.ready for child in present):
            return
        if all(now - child.began >= STABLE for child in present):
            self._crashes = 0
        first, self._served = not self._served, True
        if not self._reloading and not first:
            return
        if self._reloading:
            self._reloading = False
            for child in list(self._children.values()):
                if child.generation != self._generation:
                    child.end(now + self._limit())
            logger.info("%d new workers serve, the old ones end", len(present))
        else:
            logger.info("%d workers serve", len(present))
        self._tell("READY=1", f"STATUS={len(present)} workers")
        if first and self._told_ready is not None:
            self._told_ready()
        if self._reload_again:
            self._reload_again = False
            self._reload()

    def _limit(self) -> float:
        return self._config.graceful_timeout + GRACE

    # Reloading.

    def _reload(self) -> None:
        """Start the next generation; the present one serves until it does."""
        if self._ending:
            return
        if self._reloading:
            self._reload_again = True
            return
        logger.info("reloading")
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._reloading = True
        self._generation += 1
        for slot in self._slots:
            slot.due, slot.crashes, slot.unfit = 0.0, 0, False
        self._crashes = 0

    def _give_up_reload(self, child: Child) -> None:
        """End the new workers, since one of them can't serve, and keep the old ones."""
        old = [
            one
            for one in self._children.values()
            if one.generation != self._generation and not one.ending
        ]
        self._reloading = False
        limit = time.monotonic() + self._limit()
        for one in self._present():
            one.end(limit)
        if not old:  # none of them has ever served, or all have died meanwhile
            for slot in self._slots:
                slot.unfit = self._fleet.reload
            logger.error("worker %d can't serve, and there are no others", child.pid)
            if not self._fleet.reload:
                self._end(1)
        else:
            logger.error("reloading has failed, the %d old workers go on", len(old))
            for one in old:
                one.generation = self._generation
            self._tell("READY=1", "STATUS=reloading has failed, the old workers go on")
        if self._reload_again:
            self._reload_again = False
            self._reload()

    def _watch(self) -> None:
        """Start the process that watches the application's files."""
        places = [os.path.abspath(place) for place in self._fleet.reload_dirs or (os.curdir,)]
        before = times(places)
        ours, theirs = socket.socketpair()

        def begin() -> int:
            self._close_in_child()
            ours.close()
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the master's end ends it
            with contextlib.suppress(BrokenPipeError):
                watch(places, before, theirs.fileno())
            return 0

        self._watcher = forked(begin)
        theirs.close()
        ours.setblocking(False)
        self._changes = ours
        self._selector.register(ours, selectors.EVENT_READ, self._changed)

    def _changed(self) -> None:
        assert self._changes is not None
        try:
            said = self._changes.recv(65536)
        except ConnectionError:
            said = b""
        if not said:
            self._selector.unregister(self._changes)
            return
        changed = [os.fsdecode(line) for line in said.split(b"\n") if line]
        if changed:
            logger.info("%s has changed", ", ".join(changed[:3]))
            self._reload()
        else:
            logger.info("watching the application's files")

    # Signals.

    def _signalled(self, number: int) -> None:
        if number == signal.SIGCHLD:
            return
        name = signal.Signals(number).name
        if number == signal.SIGHUP:
            logger.info("%s", name)
            self._reload()
        elif number == signal.SIGUSR1:
            logger.info("stats %s", json.dumps(self._counted()))
        elif number == signal.SIGQUIT or self._ending:
            logger.info("%s: ending at once", name)
            self._end(self._status)
            for child in self._children.values():
                child.send(signal.SIGKILL)
        else:
            logger.info("%s: ending", name)
            self._end(0)

    def _end(self, status: int) -> None:
        """Let all workers end; the exit status will be *status*."""
        if self._ending:
            return
        self._ending, self._status = True, status
        self._tell("STOPPING=1")
        limit = time.monotonic() + self._limit()
        for child in self._children.values():
            child.end(limit)

    def _tell(self, *assignments: str) -> None:
        """Tell the supervisor; a service doesn't end because that fails."""
        try:
            self._supervisor.tell(*assignments)
        except OSError as error:
            logger.warning("NOTIFY_SOCKET can't be told %s: %s", assignments[0], error)

    # Counters.

    def _counted(self) -> dict[str, Any]:
        """Return what is told of the server."""
        workers = []
        whole = self._gone
        for child in self._children.values():
            counts = Counts() if child.shared is None else child.shared.read()
            whole += counts
            state = "ending" if child.ending else "serving" if child.ready else "starting"
            workers.append({"pid": child.pid, "state": state, **counts.now, **counts.totals})
        return {
            "pid": os.getpid(),
            "uptime": round(time.time() - self._began, 3),
            "generation": self._generation,
            "restarts": self._restarts,
            **whole.now,
            **whole.totals,
            "workers": workers,
        }

    def _tell_stats(self) -> None:
        """Tell the counters to whoever has connected."""
        assert self._stats is not None
        try:
            client, _ = self._stats.accept()
        except OSError:  # it has gone already
            return
        with client:
            client.setblocking(False)
            with contextlib.suppress(OSError):  # whoever doesn't read gets what fits
                client.sendall(json.dumps(self._counted(), indent=1).encode() + b"\n")


def how(code: int) -> str:
    """Say how a process has ended with *code*, as `os.waitstatus_to_exitcode` has it."""
    if code < 0:
        try:
            return f"been killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"been killed by signal {-code}"
    return "ended" if code == 0 else f"ended with status {code}"
