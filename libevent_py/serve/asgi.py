"""ASGI 3 on an `aio.EventLoop`: a task for each request.

A request's task takes its first step at once, in the callback that has read the request, and most
end with that: their answer then goes out with what else the callback writes, in one call of the
kernel's. This is what Python 3.12 calls an eager task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import CoroutineType
from typing import Any
from urllib.parse import unquote

from libevent_py.aio.loop import EventLoop
from libevent_py.event.base import EventBase
from libevent_py.serve.config import Config
from libevent_py.serve.engine import ClientDisconnected, Exchange, logger
from libevent_py.serve.framing import as_bytes
from libevent_py.serve.lifespan import Lifespan, retrieve
from libevent_py.serve.websocket import UNTOLD, WebSocket, wake

Message = dict[str, Any]

#: ASGI's versions: of the interface, and of the messages for HTTP.
ASGI = {"version": "3.0", "spec_version": "2.4"}

#: The headers of an answer for an application that fails.
FAILED = [(b"content-type", b"text/plain; charset=utf-8")]

#: What `AsgiRunner` knows of one request's answer.
UNSTARTED, STARTED, BODY, ENDED = range(4)


class AsgiRunner:
    """Runs an ASGI application."""

    def __init__(self, application: Any, config: Config) -> None:
        """Make a loop for *application*, on a base of its own."""
        self._application = application
        self._config = config
        self.loop: EventLoop = EventLoop()
        self.base: EventBase = self.loop.base
        self.base.on_error = tell
        self._lifespan = Lifespan(application, self.loop, config.lifespan)
        self._stopped = False
        self._tasks: set[asyncio.Task[object]] = set()
        self._done: Callable[[], object] | None = None
        self._root_path = config.root_path

    # From start to end.

    def start_up(self) -> None:
        asyncio.set_event_loop(self.loop)
        self._lifespan.start_up()

    def run(self) -> None:
        while not self._stopped:
            self.loop.run_forever()
            if not self._stopped:
                logger.warning("the application has stopped its loop, which goes on")

    def finish(self, done: Callable[[], object]) -> None:
        if self._tasks:
            self._done = done
        else:
            done()

    def stop(self) -> None:
        if not self._stopped or self._lifespan.is_asking:
            self._stopped = True
            self._lifespan.give_up()
            self.loop.stop()

    def shut_down(self) -> None:
        if self._usable():
            self._cancel(self._tasks)
            self._lifespan.shut_down()

    def _usable(self) -> bool:
        """Tell whether the loop can still run: the application can close what it likes."""
        return not self.loop.is_closed() and not self.base.closed

    def _cancel(self, tasks: set[asyncio.Task[object]]) -> None:
        """Cancel *tasks*, and wait for them, but not for long."""
        left = [task for task in tasks if not task.done()]
        if left:
            logger.warning("cancelling %d tasks", len(left))
            for task in left:
                task.cancel()
            waiting = asyncio.wait(left, timeout=self._config.graceful_timeout or 1.0)
            self.loop.run_until_complete(waiting)

    def close(self) -> None:
        try:
            if self._usable():
                self._lifespan.cancel()
                self._cancel(asyncio.all_tasks(self.loop))
                self.loop.run_until_complete(self.loop.shutdown_asyncgens())
                self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    # Requests.

    # hot: once for each request.
    def begin(self, exchange: Exchange) -> None:
        if exchange.upgrades:
            socket = WebSocket(exchange, self._config, self.loop)
            exchange.handler = socket
            subprotocols = socket.begin()
            if subprotocols is None:
                return
            cycle: Any = socket
        else:
            cycle = exchange.handler = Cycle(exchange)
        target = exchange.target
        raw_path, _, query = target.partition(b"?")
        path = raw_path.decode("ascii")
        root_path = self._root_path
        scope: Message = {
            "type": "http",
            "asgi": ASGI,
            "http_version": exchange.version,
            "method": exchange.method,
            "scheme": exchange.scheme,
            "path": root_path + (unquote(path) if "%" in path else path),
            "raw_path": root_path.encode() + raw_path if root_path else raw_path,
            "query_string": query,
            "root_path": root_path,
            "headers": exchange.headers,
            "client": exchange.client,
            "server": exchange.server,
        }
        if exchange.upgrades:
            scope["type"] = "websocket"
            scope["scheme"] = "wss" if exchange.scheme == "https" else "ws"
            scope["subprotocols"] = subprotocols
            scope["extensions"] = {"websocket.http.response": {}}
            del scope["method"]
        if self._lifespan.state is not None:
            scope["state"] = self._lifespan.state.copy()
        try:
            coroutine = self._application(scope, cycle.receive, cycle.send)
        except Exception as error:
            cycle.end(error)
            return
        self.start(coroutine, cycle)

    # hot: once for each request.
    def start(self, coroutine: Any, cycle: Any) -> None:
        """Run *coroutine* as a task, and its first step at once."""
        if type(coroutine) is not CoroutineType:
            coroutine = awaited(coroutine)
        loop = self.loop
        if asyncio.current_task(loop) is not None:  # its step can't be in the midst of another's
            self._watch(asyncio.Task(coroutine, loop=loop), cycle)
            return
        idle = loop._idle
        loop._idle = False  # so that it isn't roused for the step
        try:
            task = asyncio.Task(coroutine, loop=loop)
            step = loop._ready.pop()
        finally:
            loop._idle = idle
        try:
            step._context.run(step._callback)  # type: ignore[attr-defined]
        except BaseException:  # it interrupts, and is on its way out of the loop
            retrieve(task)
            raise
        if task.done():
            cycle.end(outcome(task))
        else:
            self._watch(task, cycle)

    def _watch(self, task: asyncio.Task[object], cycle: Any) -> None:
        """Tell *cycle* when *task* is done."""
        tasks = self._tasks
        tasks.add(task)

        def ended(task: asyncio.Task[object]) -> None:
            tasks.discard(task)
            cycle.end(outcome(task))
            if self._done is not None and not tasks:
                done, self._done = self._done, None
                done()

        task.add_done_callback(ended)


def outcome(task: asyncio.Task[object]) -> BaseException | None:
    """Return what *task* has raised, if anything."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()


async def awaited(awaitable: Any) -> Any:
    """Await what is no coroutine of Python's own."""
    return await awaitable


def tell(error: BaseException, source: object) -> None:
    """Log what a callback of libevent's has raised."""
    logger.error("in a callback of %r", source, exc_info=error)


class Cycle:
    """One request, as ASGI sees it: what `receive` and `send` do."""

    _state = UNSTARTED
    _status = 0
    _headers: Any = ()
    #: Whether the whole body has been received.
    _received = False
    #: What a `receive` and what a `send` wait for.
    _waiter: asyncio.Future[None] | None = None
    _writer: asyncio.Future[None] | None = None

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    # What the engine tells.

    def on_body(self) -> None:
        wake(self._waiter)

    def on_writable(self) -> None:
        wake(self._writer)

    def on_gone(self) -> None:
        wake(self._waiter)
        wake(self._writer)

    # What the application calls.

    async def receive(self) -> Message:
        """Return the next part of the body, or "http.disconnect"."""
        exchange = self._exchange
        while True:
            if self._state == ENDED or (
                exchange.gone and (self._received or not exchange.complete)
            ):
                return {"type": "http.disconnect"}
            if not self._received:
                body = exchange.take()
                if body or exchange.complete:
                    more = not exchange.complete
                    self._received = not more
                    return {"type": "http.request", "body": body, "more_body": more}
                exchange.want()
            if self._waiter is not None:
                raise RuntimeError("another coroutine waits for this request in receive() already")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def on_finish(self) -> None:
        """Only what is upgraded is told."""

    # hot: twice for each request.
    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        kind = message["type"]
        state = self._state
        exchange = self._exchange
        if state == UNSTARTED and kind == "http.response.start":
            self._status = message["status"]
            headers = message.get("headers", ())
            self._headers = headers if type(headers) is list else list(headers)
            self._state = STARTED
        elif kind == "http.response.body" and STARTED <= state <= BODY:
            if exchange.ended:
                raise ClientDisconnected("the client has left before the answer")
            body = message.get("body", b"")
            if type(body) is not bytes:
                body = as_bytes(body)
            if message.get("more_body", False):
                if state == STARTED:
                    exchange.start(self._status, self._headers)
                    self._state = BODY
                if not exchange.send(body, True):
                    await self._drain()
            else:
                if state == STARTED:
                    exchange.respond(self._status, self._headers, body)
                else:
                    exchange.send(body, False)
                self._state = ENDED  # only now: an application can go on after what those raise
                wake(self._waiter)
                wake(self._writer)  # of another task: nothing tells it any more
        else:
            self._refuse(kind)

    async def _drain(self) -> None:
        """Wait until the output is sent, or never will be."""
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._writer)

    def end(self, error: BaseException | None) -> None:
        """The application has returned, or raised *error*."""
        exchange, state = self._exchange, self._state
        self._state = ENDED
        if error is None and state == ENDED:
            return
        wake(self._waiter)  # of other tasks
        wake(self._writer)
        if exchange.gone and isinstance(error, (ClientDisconnected, asyncio.CancelledError)):
            exchange.abort()
            return
        if error is not None:
            if not isinstance(error, UNTOLD):
                logger.error("the application has raised an exception", exc_info=error)
        elif not exchange.ended:
            logger.error("the application has returned without a complete answer")
        if exchange.ended:
            return
        if exchange.started:
            exchange.abort()
        else:
            exchange.respond(500, FAILED, b"Internal Server Error")

    def _refuse(self, kind: str) -> None:
        """Raise for a message that can't come now."""
        expected = {
            UNSTARTED: "http.response.start",
            STARTED: "http.response.body",
            BODY: "http.response.body",
            ENDED: "nothing, as the answer is complete",
        }[self._state]
        raise RuntimeError(f"the message {kind!r} was sent, but expected is {expected}")
