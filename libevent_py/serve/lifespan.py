"""ASGI's lifespan: telling an application of startup and shutdown."""

from __future__ import annotations

import asyncio
from typing import Any

from libevent_py.serve.engine import logger
from libevent_py.serve.errors import StartupError

#: How long, in seconds, its task may take to be cancelled.
CANCELLING = 1.0

Message = dict[str, Any]


class Lifespan:
    """The task in which an application hears of startup and shutdown."""

    def __init__(self, application: Any, loop: asyncio.AbstractEventLoop, mode: str) -> None:
        """Prepare to tell *application*; *mode* is `Config.lifespan`."""
        self._application = application
        self._loop = loop
        self._mode = mode
        #: What the application shares with its requests, or None without lifespan.
        self.state: Message | None = None
        self._task: asyncio.Task[None] | None = None
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        #: What the application has answered, if anything, or None while it is asked.
        self._answer: asyncio.Future[Message] | None = None
        self._given_up = False
        #: What it was asked last.
        self._asked = ""
        #: Whether the application is asked something.
        self.is_asking: bool = False

    def start_up(self) -> None:
        """Tell of startup, and wait for the answer; raise `StartupError` for a failure."""
        if self._mode == "off" or self._given_up:
            return
        state: Message = {}
        self._task = self._loop.create_task(self._run(state))
        answer = self._ask("lifespan.startup")
        if self._given_up:
            return
        if answer is not None and answer["type"] == "lifespan.startup.failed":
            raise StartupError(
                f"the application has failed to start: {answer.get('message') or 'no reason given'}"
            )
        if answer is not None:
            self.state = state
            return
        task, self._task = self._task, None
        error = task.exception() if task.done() and not task.cancelled() else None
        if self._mode == "on":
            raise StartupError(
                f"the application doesn't take part in lifespan: {error!r}"
                if error is not None
                else "the application doesn't take part in lifespan: it has returned"
            ) from error
        if error is not None and not isinstance(error, Exception):
            raise error

    def shut_down(self) -> None:
        """Tell of shutdown, and wait for the answer; log a failure."""
        if self._task is None or self._given_up:
            return
        task = self._task
        answer = None if task.done() else self._ask("lifespan.shutdown")
        if answer is None:
            error = task.exception() if task.done() and not task.cancelled() else None
            if error is not None:
                logger.error("the application has failed to shut down", exc_info=error)
        elif answer["type"] == "lifespan.shutdown.failed":
            logger.error("the application has failed to shut down: %s", answer.get("message", ""))

    def cancel(self) -> None:
        """End the task if it still runs: it has been told all that it will be."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            self._loop.run_until_complete(asyncio.wait((task,), timeout=CANCELLING))

    def give_up(self) -> None:
        """Wait no longer for the application to start, if it is asked to."""
        self._given_up = self.is_asking or self._task is None

    def _ask(self, kind: str) -> Message | None:
        """Send the message *kind*; return the answer, or None if the application ends instead."""
        assert self._task is not None
        self._answer = self._loop.create_future()
        self._asked = kind
        self._inbox.put_nowait({"type": kind})
        waiting = asyncio.wait((self._task, self._answer), return_when=asyncio.FIRST_COMPLETED)
        waiter = self._loop.create_task(waiting)
        self.is_asking = True
        try:
            self._loop.run_until_complete(waiter)
        except RuntimeError:  # stopped before that
            if not self._given_up:
                raise
            waiter.cancel()
            return None
        finally:
            self.is_asking = False
            retrieve(self._task)
        if self._answer.done():
            return self._answer.result()
        return None

    async def _run(self, state: Message) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": state,
        }
        await self._application(scope, self._inbox.get, self._send)

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._answer is None or self._answer.done():
            raise RuntimeError(f"{kind!r} has been sent, but nothing was asked")
        answers = [f"{self._asked}.{result}" for result in ("complete", "failed")]
        if kind not in answers:
            raise RuntimeError(f"the answer must be {' or '.join(answers)}, not {kind!r}")
        self._answer.set_result(message)


def retrieve(task: asyncio.Task[Any]) -> None:
    """Keep asyncio from saying that nobody has seen what *task* raised: the loop raises it, too."""
    if task.done() and not task.cancelled():
        task.exception()
