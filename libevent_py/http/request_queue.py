"""The queue of a client connection: it sends requests one by one, and calls back for each.

evhttp gets one request at a time; the others wait here. So evhttp never forgets a request that
waits (P3, P9), and never sends one after it was cancelled or its connection closed. To the server
it makes no difference, because evhttp itself sends them one by one too. Retries of a failed
connection are made here for the same reason (P9).

This package frees every request, however it ends (P2): the request's pointer frees it with the last
reference to it (see `pointers`), and the queue keeps one while evhttp has the request. evhttp may
be using a connection or a request while it calls back (P5), so they are freed only at a clean
moment of the loop.
"""

from __future__ import annotations

import functools
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from libevent_py import errors
from libevent_py._core.dispatch import NOT_CALLED, from_c, keep_late
from libevent_py._ffi import lib
from libevent_py.enums import HttpCommand, HttpRequestError
from libevent_py.errors import HttpError
from libevent_py.event.event import Event
from libevent_py.http.request import HttpRequest

if TYPE_CHECKING:
    from libevent_py._ffi import CData
    from libevent_py.http.client import HttpConnection

#: The text for each of libevent's codes for a failure.
REASONS = {
    HttpRequestError.TIMEOUT: "nothing came for too long",
    HttpRequestError.EOF: "the connection ended before the response did",
    HttpRequestError.INVALID_HEADER: "the response's headers are malformed or too long",
    HttpRequestError.BUFFER_ERROR: "the connection failed",
    HttpRequestError.REQUEST_CANCEL: "it was cancelled",
    HttpRequestError.DATA_TOO_LONG: "the response's body is malformed or too long",
}

#: The longest that libevent waits before it tries again to connect, in seconds.
LONGEST_WAIT = 3600.0

#: Makes a request forget the connection that it was on, which evhttp often fails to do (P2).
forget: Final = lib.evpy_client_forget


class RequestQueue:
    """The requests of a connection, which passes itself to each method.

    The queue keeps no reference to the connection: a cycle would not be freed with the last
    reference to it.
    """

    __slots__ = (
        "_sending",
        "_settling",
        "_stale",
        "current",
        "ending",
        "sent",
        "timer",
        "tries",
        "used",
        "waiting",
    )

    def __init__(self) -> None:
        #: The request that evhttp has, and its pointer, or None.
        self.current: HttpRequest | None = None
        self.sent: Any = None
        self.waiting: deque[HttpRequest] = deque()
        #: The requests whose end has begun: an interrupt leaves them to the end of the connection.
        self.ending: list[HttpRequest] = []
        #: Whether any request has ever been sent.
        self.used: bool = False
        #: The timer of the next retry, or None, and how often connecting has been retried.
        self.timer: Event | None = None
        self.tries: int = 0
        #: Whether `go_on` is running.
        self._sending = False
        #: Whether callbacks of an ended connection may still be queued; whether `_settle` waits.
        self._stale = self._settling = False

    def __len__(self) -> int:
        return len(self.waiting) + (self.current is not None)

    # Sending.

    def go_on(self, connection: HttpConnection) -> None:
        """Send the next waiting request, unless one is under way."""
        if self._sending:
            return
        self._sending, waiting = True, self.waiting
        try:
            while self._may_send(connection):
                if self._stale and lib.bufferevent_getfd(connection._below()) < 0:
                    self._settle(connection)
                elif (request := waiting[0] if waiting else None) is not None:
                    self._send(connection, request)
        finally:
            self._sending = False
            if self._may_send(connection):  # a callback has raised
                connection.base.defer(self.go_on, connection)

    def _may_send(self, connection: HttpConnection) -> bool:
        busy = self.current or self.timer or self._settling or not self.waiting
        return not busy and not connection.closed

    def _settle(self, connection: HttpConnection) -> None:
        """Wait until the queued callbacks of the previous connection have run; they do nothing."""
        self._settling = True
        connection.base._may_call(connection._key, connection)
        errors.call(lib.evpy_client_settle, connection.pointer, connection._key)

    def settled(self, connection: HttpConnection) -> None:
        """Go on when what `_settle` waits for is done."""
        if not self._settling:  # C tells of it once more after an interrupt
            return
        self._settling = self._stale = False
        try:
            connection.base._may_not_call(connection._key)
        except BaseException:  # an interrupt: see `_end_rest`
            connection.base.defer(self.go_on, connection)
            raise
        self.go_on(connection)

    def _send(self, connection: HttpConnection, request: HttpRequest) -> None:
        base, sent, waiting = connection.base, request.pointer, self.waiting
        failure: HttpError | None = None
        try:
            resolver = connection._resolver
            if resolver is not None and resolver.closed:  # in a forked child
                failure = self._error(connection, request, "its DnsBase is closed")
            elif lib.bufferevent_getfd(connection._below()) < 0:
                base._check_selectable(-1)
        except OSError as beyond:
            failure = self._error(connection, request, "it can't be sent", beyond)
        assert request._asked is not None
        command, uri = request._asked
        key, defers = request._key, connection._defers
        called = base._live  # hot: may_call(), and no call below
        if not waiting or waiting[0] is not request:  # other code has ended it
            return
        del waiting[0]  # no call from here on: it must be waiting or current
        if failure is not None:
            self._conclude(connection, request, failure)
            return
        self.current, self.sent = request, sent
        called[key] = request  # hot: as above
        self.used, self._stale = True, defers
        make, body = lib.evpy_client_make_request, (request._framing, request._open)
        pointer, link = connection.pointer, connection._link
        if base._call(make, pointer, link, sent, int(command), uri, *body):
            error = errors.failed(lib.evhttp_make_request)
            forget(link, sent)
            failure = self._error(connection, request, "it can't be sent", error)
            self._conclude(connection, request, failure)

    def used_by_others(self, defers: bool) -> None:
        """Note that evrpc sends on the connection; *defers* says if its callbacks are deferred."""
        self.used, self._stale = True, defers

    # How a request ends.

    def headers_came(self, request: HttpRequest, verdict: list[int]) -> None:
        """Call `on_header` for the headers that have come; unless that ends it, *verdict* is 0."""
        self.tries = 0
        try:
            if not request._cancelled and request._on_header(request) is not False:  # type: ignore[misc]
                verdict[0] = 0 if self.current is request else -1
        except BaseException as error:
            try:
                request.base._report(error, request)
            except BaseException as interrupt:
                errors.keep(interrupt)

    def ended(
        self, connection: HttpConnection, request: HttpRequest, answered: bool, why: int
    ) -> None:
        """End *request*, which evhttp is finished with; *why* is an errno or 0."""
        if request is not self.current:  # C tells of it once more after an interrupt
            return
        try:
            self._ended(connection, request, answered, why)
        except BaseException:  # an interrupt, as what callbacks raise has been reported
            if request is self.current:
                self._ended(connection, request, answered, why)
            self._end_rest(connection)
            raise

    def _end_rest(self, connection: HttpConnection) -> None:
        """Go on with what an interrupt has cut short, later.

        A request that connecting failed for is sent again, but not now: C, to which an interrupt
        looks as if it had told nobody, would tell once more, and end what it has only just begun.
        """
        for request in list(self.ending):
            if request is not self.current and request not in self.waiting:
                request._finish(request.error)
            self._forget_ending(request)
        connection.base.defer(self._afterwards, connection)

    def _ended(
        self, connection: HttpConnection, request: HttpRequest, answered: bool, why: int
    ) -> None:
        sent, pointer = self.sent, connection.pointer
        self.ending.append(request)
        if answered:
            connection.base.defer(let_go, sent)  # evhttp still reads it after this call
            if sent.response_code and lib.evpy_client_is_spent(pointer, connection._link, sent):
                lib.evpy_client_reset(connection._below())
        forget(connection._link, sent)
        if answered and sent.response_code == 0:
            self._could_not_connect(connection, request, why)
            return
        self.tries = 0
        if request._cancelled:
            self._conclude(connection, request, self._cancelled(connection, request))
        elif answered:
            self._conclude(connection, request, None)
        elif request._refused:
            code = HttpRequestError.INVALID_HEADER
            error = self._error(connection, request, request._refused, None, code)
            self._conclude(connection, request, error)
        else:
            code = HttpRequestError(lib.EVREQ_HTTP_EOF if request._code is None else request._code)
            cause = connection._cause(code, why)
            error = self._error(connection, request, REASONS[code], cause, code)
            self._conclude(connection, request, error)

    def _could_not_connect(
        self, connection: HttpConnection, request: HttpRequest, why: int
    ) -> None:
        base, retries = connection.base, connection._retries
        if not request._cancelled and (retries is None or self.tries < retries):
            wait = connection._initial_retry * 2.0 ** min(self.tries, 64)
            self.tries += 1
            again_waiting = self.waiting.appendleft
            self.current = self.sent = None  # no call from here to the next line
            again_waiting(request)
            base._may_not_call(request._key)
            self._forget_ending(request)
            again = functools.partial(self._try_again, connection)
            self.timer = Event.timer(base, again).add(min(wait, LONGEST_WAIT))
            return
        self.tries = 0
        cause = connection._cause(None, why)
        failed = [request, *self.waiting]
        for each in failed:
            if each._cancelled:
                each.error = self._cancelled(connection, each)
            else:
                each.error = self._error(connection, each, "it can't connect", cause)
        self.ending.extend(failed)
        self.waiting.clear()
        for each in failed:
            if base._forked:  # the last callback has forked, and this is the child
                return
            each._finish(each.error)
            self._forget_ending(each)
        self._afterwards(connection)

    def _try_again(self, connection: HttpConnection, _event: Event, _fd: int, _what: int) -> None:
        self.timer = None
        self.go_on(connection)

    def _conclude(
        self, connection: HttpConnection, request: HttpRequest, error: HttpError | None
    ) -> None:
        self.ending.append(request)
        request._finish(error)
        self._forget_ending(request)
        self._afterwards(connection)

    def _forget_ending(self, request: HttpRequest) -> None:
        self.ending[:] = [other for other in self.ending if other is not request]

    def _afterwards(self, connection: HttpConnection) -> None:
        if connection.base._forked:  # a callback has forked, and this is the child
            return
        self.go_on(connection)
        done = self.current is None and not self.waiting
        if connection._ends_itself and not connection.closed and done:
            connection.close()

    def release(self, request: HttpRequest) -> None:
        """Note that evhttp no longer has *request*."""
        if request is self.current:
            self.current = self.sent = None
            request.base._may_not_call(request._key)

    def _error(
        self,
        connection: HttpConnection,
        request: HttpRequest,
        text: str,
        cause: BaseException | None = None,
        code: HttpRequestError | None = None,
    ) -> HttpError:
        command, uri = request._asked or (HttpCommand.GET, b"")
        name = "{} {} to {}:{}".format(command.name, uri.decode("latin-1"), *connection._address)
        error = HttpError(f"{name}: {text if cause is None else cause}")
        error.code, error.__cause__ = code, cause
        return error

    def _cancelled(self, connection: HttpConnection, request: HttpRequest) -> HttpError:
        code = HttpRequestError.REQUEST_CANCEL
        return self._error(connection, request, REASONS[code], None, code)

    # Cancelling, and the end.

    def cancel(self, connection: HttpConnection, request: HttpRequest) -> None:
        """End *request*, which has been marked as cancelled."""
        base = connection.base
        if request is self.current:
            if base._busy():
                base.defer(self._cancel_now, connection, request)
                return
            with base._telling():
                self._cancel_now(connection, request)
            return
        with base._telling():
            try:
                self._leave(connection, request)
            except BaseException:  # an interrupt
                self._leave(connection, request)
                raise

    def _leave(self, connection: HttpConnection, request: HttpRequest) -> None:
        """End *request*, which waits, or has begun to end."""
        error = self._cancelled(connection, request)
        if request in self.waiting:
            self.ending.append(request)
            self.waiting.remove(request)
        if not self.waiting and self.timer is not None:
            self.timer.close()
            self.timer = None
            self.tries = 0
        self._conclude(connection, request, error)

    def _cancel_now(self, connection: HttpConnection, request: HttpRequest) -> None:
        """Make evhttp drop its current request, and the connection that was made for it."""
        sent, begun = self.sent, False
        if request is not self.current or connection.closed:
            return
        lib.evpy_lookup_cancel(connection._below())  # libevent doesn't do it with TLS

        def cancel() -> None:
            nonlocal begun
            begun = True  # an interrupt can come before this, or after the call of C
            lib.evhttp_cancel_request(sent)

        try:
            connection.base._call(cancel)
        finally:
            if begun:
                forget(connection._link, sent)
                try:
                    self._leave(connection, request)
                except BaseException:  # an interrupt
                    self._leave(connection, request)
                    raise

    def close(self, connection: HttpConnection) -> None:
        """End all requests, as *connection* has been closed; what an interrupt left, again."""
        base = connection.base
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.close()
        current = () if self.current is None else (self.current,)
        pending = [*current, *self.ending, *self.waiting]
        if base._forked:  # the parent process will end them
            self.current = self.sent = None
            self.waiting.clear()
            self.ending.clear()
            return
        self.ending[:] = pending
        self.waiting.clear()
        with base._telling():
            for request in pending:
                if base._forked:  # the last callback has forked, and this is the child
                    return
                text = "its connection was closed"
                if request._cancelled:
                    error = self._cancelled(connection, request)
                else:
                    error = self._error(connection, request, text)
                request._finish(error)
                self._forget_ending(request)


def let_go(_pointer: CData | None) -> None:
    """Do nothing; dropping the argument drops the reference to the pointer."""


@from_c(late=1, raised=0, forked=1)
def evpy_client_done(request: HttpRequest, answered: int, why: int) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    connection = request._connection
    if connection is not None:
        connection._queue.ended(connection, request, bool(answered), why)
    return 1


@from_c(
    late=-1, raised=NOT_CALLED, forked=0
)  # refusing the response would shut the parent's connection down
def evpy_client_header(request: HttpRequest) -> int:
    connection = request._connection
    verdict = [-1]
    if connection is not None:
        try:
            connection._queue.headers_came(request, verdict)
        except BaseException as interrupt:
            keep_late(interrupt, RequestQueue.headers_came)
    return verdict[0]


@from_c(late=1, raised=0, forked=1)
def evpy_client_settled(connection: HttpConnection) -> int:
    """Return 1 when done: with 0, which an interrupt returns, C calls once more."""
    connection._queue.settled(connection)
    return 1
