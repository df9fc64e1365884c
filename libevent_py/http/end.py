"""How a server's request ends, and how its `on_end` is called: once, however it ends.

evhttp calls back when a reply has been written, and when it frees a connection with the request on
it; all other ends happen in Python. By then the user may have dropped the request. A dropped
request has to be answered, so what waits for its end must not keep it alive. In that case the
callback gets another object for the same request.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from libevent_py.errors import HttpError

if TYPE_CHECKING:
    from libevent_py.http.server_request import HttpHandler, HttpServerRequest

#: All that evhttp says about a lost client.
GONE = "its client has gone, or was idle for too long, before the answer was complete"


class Ending:
    """The `on_end` of a request that hasn't ended yet; the request's connection has it."""

    __slots__ = ("_another", "_callback", "_pointer", "_request", "_what", "error", "told")

    def __init__(
        self,
        request: HttpServerRequest,
        callback: HttpHandler,
        another: Callable[[], HttpServerRequest],
    ) -> None:
        """Call *callback* with *request* or, if it has been dropped, what *another* returns."""
        self._request = weakref.ref(request)
        self._callback = callback
        self._another = another
        self._pointer = request.pointer
        self._what = named(request)
        #: Why the user won't answer, if that is known before the end.
        self.error: HttpError | None = None
        #: Whether the callback has been called.
        self.told: bool = False

    def fails(self, text: str, cause: BaseException | None = None) -> None:
        """Note the reason *text* why the user won't answer; only the first reason counts."""
        if self.error is None:
            self.error = ended_by(self._what, text, cause)

    def failed(self, error: HttpError) -> None:
        """Note that *error* is why the user hasn't answered."""
        self.error = error

    def tell(self, text: str | None = None, *, last: bool = False) -> None:
        """Call `on_end`; *text* is the reason if there was no complete answer.

        The request is usable in `on_end`, and afterwards only if *last* is false.
        """
        if self.told:
            return
        if text is not None:
            self.fails(text)
        request = self._request()
        if request is None:
            request, last = self._another(), True
        request._ended_with(self.error)
        request._told(self._pointer, self._call, last=last)

    def _call(self, request: HttpServerRequest) -> None:
        self.told = True  # no call from here to the callback's own
        self._callback(request)

    def end(self, text: str) -> None:
        """Call `on_end` for a request that has been ended for the reason *text*."""
        self.tell(text, last=True)


def named(request: HttpServerRequest) -> str:
    """Return the text that names *request* in an error."""
    command = request.command
    host, port = request.peer
    method = getattr(command, "name", None) or str(command)
    return f"{method} {request.uri} from {host}:{port}"


def ended_by(what: str, text: str, cause: BaseException | None = None) -> HttpError:
    """Return the error of a request that ended before the user answered it."""
    error = HttpError(f"{what}: {text}")
    error.__cause__ = cause
    return error
