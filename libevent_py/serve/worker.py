"""`serve`: one worker, which serves listening sockets in this process until it is told to end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from libevent_py._core.frames import tells
from libevent_py._core.wakeup import in_main_thread
from libevent_py.event.base import EventBase
from libevent_py.event.event import Event
from libevent_py.serve import access, engines
from libevent_py.serve.config import Config
from libevent_py.serve.engine import Application, Engine, logger
from libevent_py.serve.loading import load


class Runner(Application, Protocol):
    """What runs an application of one kind, and the base that it is served on."""

    base: EventBase

    def start_up(self) -> None:
        """Prepare the application; raise `StartupError` if it can't be."""

    def run(self) -> None:
        """Run the base until `stop` is called."""

    def finish(self, done: Callable[[], object]) -> None:
        """Call *done* once, when nothing of the application runs any more; perhaps at once."""

    def stop(self) -> None:
        """End `run`, or `start_up`; called in the base's thread."""

    def shut_down(self) -> None:
        """Let the application end, and what it still does; called once after `start_up`."""

    def close(self) -> None:
        """Close the base; nothing of the application is left, as far as it can be ended."""


@tells
def serve(
    config: Config,
    sockets: Sequence[socket.socket],
    *,
    ready: Callable[[], None] | None = None,
) -> None:
    """Serve *config* on *sockets* until SIGTERM, SIGINT or ``config.shutdown.set()``.

    The sockets listen already, and belong to the worker, which closes them: as soon as it ends, so
    that the kernel sends new connections elsewhere. *ready* is called once when the application has
    started and connections are accepted. When told to end, the worker finishes the requests in
    flight, within ``config.graceful_timeout``, closes what is left, and lets the application shut
    down; a second signal cuts that short. Signals are handled only in the main thread.

    Raises `StartupError` if the application can't be loaded or fails to start; `ImportError` if an
    extra is missing, saying which; `ValueError` if there is no socket. What *ready* raises, and
    SystemExit and KeyboardInterrupt from an application, come out after everything is closed.
    """
    try:
        if not sockets:
            raise ValueError("sockets is empty: there is nothing to listen on")
        engine = engines.load(config.http)
        runner = load(config)
        Worker(config, list(sockets), runner, engine).run(ready)
    finally:
        for sock in sockets:
            sock.close()


class Worker:
    """A runner and an engine, from start to end."""

    def __init__(
        self,
        config: Config,
        sockets: list[socket.socket],
        runner: Runner,
        engine: type[Engine],
        signals: Sequence[int] = (signal.SIGTERM, signal.SIGINT),
    ) -> None:
        """Prepare a worker that ends at *signals*, if it is in the main thread."""
        self._numbers = signals
        self._config = config
        self._sockets = sockets
        self._runner = runner
        self._engine_class = engine
        self._engine: Engine | None = None
        self._ending = self._listening = False
        self._signals: list[Event] = []
        self._limit: Event | None = None
        self._pid = os.getpid()

    @property
    def engine(self) -> Engine | None:
        """What speaks HTTP, once the application has started."""
        return self._engine

    @tells
    def run(self, ready: Callable[[], None] | None) -> None:
        """Serve, and close everything."""
        runner, shutdown = self._runner, self._config.shutdown
        try:
            engine = self._engine = self._engine_class(runner.base, self._config, runner)
            if self._config.access_log:
                engine.on_end = access.log
            if in_main_thread():
                for number in self._numbers:
                    self._signals.append(Event.signal(runner.base, number, self._signalled).add())
            shutdown._listen(self._end_soon)
            runner.start_up()
            try:
                if not self._ending:
                    for sock in self._sockets:
                        engine.listen(sock)
                    self._listening = True
                    if ready is not None:
                        ready()
                    runner.run()
            finally:
                if os.getpid() == self._pid:
                    self._close_engine()
                    runner.shut_down()
        finally:
            if os.getpid() == self._pid:  # else a child that the application has forked
                shutdown._forget(self._end_soon)
                self._close_engine()
                self._close_events()
                runner.close()

    def _close_events(self) -> None:
        for event in self._signals:
            event.close()
        if self._limit is not None:
            self._limit.close()

    def _close_engine(self) -> None:
        if self._engine is not None and not self._runner.base.closed:
            self._engine.close()

    # The end.

    def _signalled(self, _event: Event, number: int, _what: int) -> None:
        logger.info("%s: ending", signal.Signals(number).name)
        if self._ending:
            self._give_up()
        else:
            self._end()

    def _end_soon(self) -> None:
        """End; called in any thread."""
        self._runner.base.defer(self._end)

    def _end(self) -> None:
        """Begin to end: stop when what is in flight is done."""
        if self._ending:
            return
        self._ending = True
        if not self._listening:  # it is still starting
            self._runner.stop()
            return
        self._limit = Event.timer(self._runner.base, self._late)
        self._limit.add(self._config.graceful_timeout)
        # In the next turn, when the connections that wait now have been accepted.
        self._runner.base.once(self._refrain, timeout=0.0)

    def _refrain(self, _fd: int, _what: int) -> None:
        """Accept nothing more."""
        assert self._engine is not None
        self._engine.stop_listening()
        for sock in self._sockets:
            sock.close()
        self._engine.finish(self._finished)

    def _finished(self) -> None:
        """Stop when the application has ended what it does after its answers, too."""
        self._runner.finish(self._runner.stop)

    def _late(self, _event: Event, _fd: int, _what: int) -> None:
        self._give_up()

    def _give_up(self) -> None:
        """Stop now, whatever is in flight."""
        engine = self._engine
        if engine is not None and engine.connections:
            logger.warning(
                "closing %d connections with %d requests in flight",
                engine.connections,
                engine.in_flight,
            )
            engine.close()
        self._runner.stop()
