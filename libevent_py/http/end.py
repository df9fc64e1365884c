"""How a server's request ends: who is told, once, however it does.

evhttp tells when a reply has been written, and when it frees a connection with the request on it;
all other ends are the binding's own doing. By then the user may have dropped the request: one that
is dropped has to be answered, so what waits for its end must not keep it alive. Then another object
for the same request is made for the callback.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from libevent_py.errors import HttpError

if TYPE_CHECKING:
    from libevent_py.http.server_request import HttpHandler, HttpServerRequest

#: All that evhttp tells of it.
GONE = "its client has gone, or was idle for too long, before the answer was complete"


class Ending:
    """Who is told how a request has ended; the request's connection has it."""

    __slots__ = ("_another", "_callback", "_pointer", "_request", "_what", "error", "told")

    def __init__(
        self,
        request: HttpServerRequest,
        callback: HttpHandler,
        another: Callable[[], HttpServerRequest],
    ) -> None:
        """Call *callback* with *request* or, if that has been dropped, what *another* returns."""
        self._request = weakref.ref(request)
        self._callback = callback
        self._another = another
        self._pointer = request.pointer
        self._what = named(request)
        #: Why there will be no answer by the user, if that is known before the end.
        self.error: HttpError | None = None
        #: Whether the callback has been called.
        self.told = False

    def fails(self, text: str, cause: BaseException | None = None) -> None:
        """Note for the reason *text* that there will be no answer by the user; the first counts."""
        if self.error is None:
            self.error = ended_by(self._what, text, cause)

    def failed(self, error: HttpError) -> None:
        """Note that *error* is why there is no answer by the user."""
        self.error = error

    def tell(self, text: str | None = None, *, last: bool = False) -> None:
        """Tell that the request has ended: as it should, or with *text* why not.

        The request can be asked until then, and after that only if this isn't the *last* of it.
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
        """Tell that the request has been ended for the reason *text*."""
        self.tell(text, last=True)


def named(request: HttpServerRequest) -> str:
    """Return what names *request* in an error."""
    command = request.command
    host, port = request.peer
    method = getattr(command, "name", None) or str(command)
    return f"{method} {request.uri} from {host}:{port}"


def ended_by(what: str, text: str, cause: BaseException | None = None) -> HttpError:
    """Return the error of a request that has ended without an answer by the user."""
    error = HttpError(f"{what}: {text}")
    error.__cause__ = cause
    return error
