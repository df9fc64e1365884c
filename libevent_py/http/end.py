"""How a server's request ends, and who is told so, once, however it does.

evhttp tells of a reply that has been written, and of a connection that it frees with the request;
all other ends are the binding's own doing. By then the user may have dropped the request: one that
is dropped is to be answered, so what waits for its end must not hold it. Then another object stands
in for it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libevent_py.errors import HttpError

if TYPE_CHECKING:
    from libevent_py.http.server_request import HttpServerRequest

#: What evhttp doesn't tell any better.
GONE = "its client has gone, or was idle for too long, before the answer was complete"


class Ending:
    """Whom to tell how a request has ended; its connection has it."""

    __slots__ = ("_another", "_callback", "_pointer", "_request", "_what", "error", "told")

    def __init__(
        self,
        request: HttpServerRequest,
        callback: Callable[[Any], object],
        another: Callable[[], HttpServerRequest],
    ) -> None:
        """Call *callback* with *request*, or if it has been dropped with what *another* returns."""
        self._request = weakref.ref(request)
        self._callback = callback
        self._another = another
        self._pointer = request.pointer
        self._what = named(request)
        #: Why it will end otherwise than by its user's own answer, if that is known before.
        self.error: HttpError | None = None
        #: Whether the callback has been called.
        self.told = False

    def fails(self, text: str, cause: BaseException | None = None) -> None:
        """Know that it will end without an answer of its user's, and why."""
        if self.error is None:
            self.error = ended_by(self._what, text, cause)

    def tell(self, text: str | None = None, *, last: bool = False) -> None:
        """Tell that it has ended: as it should, or with *text* why not.

        Until then it can be asked, and when this is the *last* of it, not any more.
        """
        if self.told:
            return
        if text is not None:
            self.fails(text)
        request = self._request()
        if request is None:
            request, last = self._another(), True
        request.error = self.error
        request.told(self._pointer, self._call, last=last)

    def _call(self, request: HttpServerRequest) -> None:
        self.told = True  # no call from here to the callback's own
        self._callback(request)

    def end(self, text: str) -> None:
        """Tell that it has been ended, for the reason *text*."""
        self.tell(text, last=True)


def named(request: HttpServerRequest) -> str:
    """Return what names *request* in an error."""
    command = request.command
    host, port = request.peer
    method = getattr(command, "name", None) or str(command)
    return f"{method} {request.uri} from {host}:{port}"


def ended_by(what: str, text: str, cause: BaseException | None = None) -> HttpError:
    """Return the error of a request that has ended without an answer of its user's."""
    error = HttpError(f"{what}: {text}")
    error.__cause__ = cause
    return error
