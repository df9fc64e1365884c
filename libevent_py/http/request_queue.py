"""How the requests on a client's connection are sent, one by one, and how each ends.

evhttp gets one request at a time; the others wait here. So it never has one that it forgets
(P3, P9), and one that is cancelled, or whose connection is closed, is never sent after all. That
evhttp itself would send them one by one, too, makes this the same to the server. For the same
reason it is here that a connection is tried again (P9).

A request is the binding's to free, whatever becomes of it (P2): its pointer is one that frees it
with the last who holds it, as `owner` tells, and the connection holds it while evhttp has it.
evhttp may be at work on a connection, or on a request, while it calls back (P5): so what frees them
waits for a clean moment of the loop.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libevent_py import errors, util
from libevent_py._core import convert
from libevent_py._core.dispatch import live
from libevent_py._core.frames import tells
from libevent_py._core.owner import Child, Rank
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.callbacks import why_failed
from libevent_py.enums import BufferEventFlag, HttpCommand, HttpRequestError
from libevent_py.errors import DnsError, HttpError
from libevent_py.event.event import Event
from libevent_py.http.flow import Flow
from libevent_py.http.headers import Headers

if TYPE_CHECKING:
    from libevent_py.http.request import HttpRequest

#: What libevent's own words for a failure mean.
REASONS = {
    HttpRequestError.TIMEOUT: "nothing came for too long",
    HttpRequestError.EOF: "the connection ended before the response did",
    HttpRequestError.INVALID_HEADER: "the response's headers are malformed or too long",
    HttpRequestError.BUFFER_ERROR: "the connection failed",
    HttpRequestError.REQUEST_CANCEL: "it was cancelled",
    HttpRequestError.DATA_TOO_LONG: "the response's body is malformed or too long",
}

#: How many informational responses (1xx) one request may get before its answer.
MOST_INFORMATIONAL = 100

#: The longest that libevent waits before it tries again to connect, in seconds.
LONGEST_WAIT = 3600.0


class Exchange(Flow, Child):
    """What `HttpConnection` does with its requests."""

    __slots__ = (
        "_address",
        "_current",
        "_defers",
        "_ends_itself",
        "_initial_retry",
        "_limited",
        "_link",
        "_on_close",
        "_paused",
        "_place",
        "_process",
        "_resolver",
        "_retries",
        "_sending",
        "_sent",
        "_settling",
        "_stale",
        "_timer",
        "_tls",
        "_tries",
        "_used",
        "_waiting",
    )

    rank = Rank.HTTP

    #: The host and the port.
    _address: tuple[str, int]
    #: The `DnsBase` that looks the host up, or None.
    _resolver: Any
    #: What it has of TLS, or None.
    _tls: Any
    #: Whether its bufferevent defers callbacks.
    _defers: bool

    def _begin(self) -> None:
        #: What is ours in C, and where C puts that together with the pointer.
        self._link: Any = None
        self._place: Any = None
        #: What evhttp has, and its pointer, or None.
        self._current: HttpRequest | None = None
        self._sent: Any = None
        self._waiting: deque[HttpRequest] = deque()
        self._sending = self._ends_itself = self._used = self._paused = False
        self._limited: BufferEvent | None = None
        #: Whether callbacks for a connection that has ended may be in line, and are waited for.
        self._stale = self._settling = False
        #: What waits to connect once more, or None.
        self._timer: Event | None = None
        self._tries = self._retries = 0
        self._initial_retry = 2.0
        self._on_close: Callable[[Any], object] | None = None
        #: The process that has made it.
        self._process = os.getpid()

    def _go_on(self) -> None:
        """Send what waits, unless something is under way."""
        if self._sending:
            return
        self._sending, waiting = True, self._waiting
        try:
            while self._may_send():
                if self._stale and lib.bufferevent_getfd(self._below()) < 0:
                    self._settle()
                elif (request := waiting[0] if waiting else None) is not None:
                    self._send(request)
        finally:
            self._sending = False
            if self._may_send():  # a callback has raised
                self.base.defer(self._go_on)

    def _may_send(self) -> bool:
        busy = self._current or self._timer or self._settling or not self._waiting
        return not busy and not self.closed

    def _settle(self) -> None:
        """Have what is in line for the connection before called first, if for nothing."""
        self._settling = True
        self.base.live[self.key] = self
        errors.call(lib.evpy_client_settle, self.pointer, self.key)

    def _settled(self) -> None:
        self.base.live.pop(self.key, None)
        self._settling = self._stale = False
        self._go_on()

    def _send(self, request: HttpRequest) -> None:
        base, sent, waiting = self.base, request.pointer, self._waiting
        failure: HttpError | None = None
        try:
            if self._resolver is not None and self._resolver.closed:  # in a forked child
                failure = self._error(request, "its DnsBase is closed")
            elif lib.bufferevent_getfd(self._below()) < 0:
                base.check_selectable(-1)
        except OSError as beyond:
            failure = self._error(request, "it can't be sent", beyond)
        assert request._asked is not None
        command, uri = request._asked
        called, key, defers = base.live, request.key, self._defers
        if not waiting or waiting[0] is not request:  # other code has ended it
            return
        del waiting[0]  # no call from here on: nobody finds it neither here nor there
        if failure is not None:
            self._conclude(request, failure)
            return
        self._current, self._sent = request, sent
        called[key] = request
        self._used, self._stale = True, defers
        make, body = lib.evpy_client_make_request, (request._framing, request._open)
        pointer, link = self.pointer, self._link
        if base.call(make, pointer, link, sent, int(command), uri, *body):
            error = errors.failed(lib.evhttp_make_request)
            _forget(link, sent)
            self._conclude(request, self._error(request, "it can't be sent", error))

    def _headers_came(self, request: HttpRequest) -> int:
        self._tries = 0
        try:
            if not request._cancelled and request._on_header(request) is not False:  # type: ignore[misc]
                return 0 if self._current is request else -1
        except BaseException as error:
            self.base.report(error, request)
        return -1

    def _informed(self, request: HttpRequest, code: int) -> int:
        """Tell the user of an informational response, of which there can't be any number."""
        request._informed += 1
        if request._informed > MOST_INFORMATIONAL:
            request._refused = f"more than {MOST_INFORMATIONAL} informational responses have come"
            return -1
        try:
            if not request._cancelled and request._on_informational is not None:
                headers = Headers(request.input_headers.items())
                request._on_informational(request, code, headers)
            return 0 if self._current is request else -1
        except BaseException as error:
            self.base.report(error, request)
        return -1

    def _ended(self, request: HttpRequest, answered: bool, why: int) -> None:
        """Take it that evhttp is finished with *request*, for the errno *why* if that is one."""
        sent, pointer = self._sent, self.pointer
        if answered:
            self.base.defer(_let_go, sent)  # evhttp still looks at it afterwards
            if sent.response_code and lib.evpy_client_is_spent(pointer, self._link, sent):
                lib.evpy_client_reset(self._below())
        _forget(self._link, sent)
        if answered and sent.response_code == 0:
            self._could_not_connect(request, why)
            return
        self._tries = 0
        if request._cancelled:
            self._conclude(request, self._cancelled(request))
        elif answered:
            self._conclude(request, None)
        elif request._refused:
            code = request._code = HttpRequestError.INVALID_HEADER
            self._conclude(request, self._error(request, request._refused, None, code))
        else:
            code = HttpRequestError(lib.EVREQ_HTTP_EOF if request._code is None else request._code)
            error = self._error(request, REASONS[code], self._cause(code, why), code)
            self._conclude(request, error)

    def _could_not_connect(self, request: HttpRequest, why: int) -> None:
        if not request._cancelled and (self._retries < 0 or self._tries < self._retries):
            wait = self._initial_retry * 2.0 ** min(self._tries, 64)
            self._tries += 1
            self._release(request)
            self._waiting.appendleft(request)
            self._timer = Event.timer(self.base, self._try_again).add(min(wait, LONGEST_WAIT))
            return
        self._tries = 0
        cause = self._cause(None, why)
        failed = [request, *self._waiting]
        self._waiting.clear()
        for each in failed:
            if self.base.parked is not None:  # the one before has forked, and this is the child
                return
            if each._cancelled:
                self._finish(each, self._cancelled(each))
            else:
                self._finish(each, self._error(each, "it can't connect", cause))
        self._afterwards()

    def _try_again(self, _event: Event, _fd: int, _what: int) -> None:
        self._timer = None
        self._go_on()

    def _conclude(self, request: HttpRequest, error: HttpError | None) -> None:
        self._finish(request, error)
        self._afterwards()

    def _afterwards(self) -> None:
        if self.base.parked is not None:  # a callback has forked, and this is the child
            return
        self._go_on()
        if self._ends_itself and not self.closed and self._current is None and not self._waiting:
            self.close()

    def _release(self, request: HttpRequest) -> None:
        """Let *request* be evhttp's no longer."""
        if request is self._current:
            self._current = self._sent = None
            self.base.live.pop(request.key, None)

    @tells
    def _finish(self, request: HttpRequest, error: HttpError | None) -> None:
        """Tell the user, once, how *request* has ended."""
        if request._connection is None:
            return
        self._release(request)
        if not request.closed:
            lib.evpy_client_freeze(request.pointer, False)
        request._connection = None
        request.error = error
        try:
            if error is not None and error.code is not None and request._on_error is not None:
                request._on_error(request, HttpRequestError(error.code))
        except BaseException as raised:
            self.base.report(raised, request)
        if self.base.parked is not None:  # that has forked, and this is the child
            return
        try:
            request._callback(request)
        except BaseException as raised:
            self.base.report(raised, request)

    def _error(
        self,
        request: HttpRequest,
        text: str,
        cause: BaseException | None = None,
        code: HttpRequestError | None = None,
    ) -> HttpError:
        command, uri = request._asked or (HttpCommand.GET, b"")
        name = "{} {} to {}:{}".format(command.name, uri.decode("latin-1"), *self._address)
        error = HttpError(f"{name}: {text if cause is None else cause}")
        error.code, error.__cause__ = code, cause
        return error

    def _cancelled(self, request: HttpRequest) -> HttpError:
        code = HttpRequestError.REQUEST_CANCEL
        return self._error(request, REASONS[code], None, code)

    def _cause(self, code: HttpRequestError | None, why: int) -> OSError | None:
        """Return what has kept evhttp from connecting or TLS from going on, or None."""
        unresolved = int(lib.bufferevent_socket_get_dns_error(self._below()))
        if unresolved:
            return DnsError(unresolved, f"{self._address[0]!r}: {util.gai_strerror(unresolved)}")
        if self._tls is not None and code in (None, HttpRequestError.EOF):
            bev = self.bufferevent
            failure = why_failed(bev, BufferEventFlag.ERROR, why)
            bev._forget_failure()
            return failure
        return OSError(why, os.strerror(why)) if why else None

    def cancel(self, request: HttpRequest) -> None:
        """Cancel *request*, as its own `HttpRequest.cancel` does."""
        base = self.base
        base.check_thread()
        if request._connection is not self:
            raise ValueError("request must be one of this connection's own")
        if not self.closed:
            self.pointer  # noqa: B018  (after a fork the request is the parent's)
        request._cancelled = True
        if self.closed:  # it is about to tell each of its requests
            return
        if request is self._current:
            if base.busy():
                base.defer(self._cancel_now, request)
                return
            with base.telling():
                self._cancel_now(request)
            return
        if request in self._waiting:
            self._waiting.remove(request)
        if not self._waiting and self._timer is not None:
            self._timer.close()
            self._timer = None
            self._tries = 0
        with base.telling():
            self._conclude(request, self._cancelled(request))

    def _cancel_now(self, request: HttpRequest) -> None:
        """Have evhttp forget the request that it has, with the connection made for it."""
        sent, begun = self._sent, False
        if request is not self._current or self.closed:
            return
        lib.evpy_lookup_cancel(self._below())  # with TLS, libevent doesn't

        def cancel() -> None:
            nonlocal begun
            begun = True  # an interrupt comes before this, or after C's call
            lib.evhttp_cancel_request(sent)

        try:
            self.base.call(cancel)
        finally:
            if begun:
                _forget(self._link, sent)
                self._conclude(request, self._cancelled(request))

    def _was_closed(self) -> None:
        if self._on_close is not None and not self.closed:
            try:
                self._on_close(self)
            except BaseException as error:
                self.base.report(error, self)

    def close(self) -> None:
        if self.closed:
            return
        self.base.check_thread()
        if self.base.parked is None:
            self._forget_limits()  # before the bufferevent is closed with the rest
        super().close()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.close()
        current = () if self._current is None else (self._current,)
        pending = [*current, *self._waiting]
        self._waiting.clear()
        if self.base.parked is not None:  # they are the parent process's to tell
            self._current = self._sent = None
            return
        with self.base.telling():
            for request in pending:
                if self.base.parked is not None:  # the one before has forked, and this is the child
                    return
                text = "its connection was closed"
                cancelled = request._cancelled
                error = self._cancelled(request) if cancelled else self._error(request, text)
                self._finish(request, error)

    @property
    def free(self) -> Callable[[Any], object]:  # type: ignore[override]
        """What frees the connection, and after it the request that it has, at a clean moment."""
        self._forget_limits()
        return functools.partial(free_soon, self.base, self._place[0], self._sent, self._process)


def free_soon(base: Any, link: Any, sent: Any, process: int, pointer: Any) -> None:
    """Free a connection that *process* has made, which has the request *sent*, when it may be."""
    if base.busy() and not base.closed:
        base.graveyard.append((functools.partial(_free, link, sent, process), pointer))
        base.defer(_let_go, sent)
    else:
        _free(link, sent, process, pointer)


def _free(link: Any, sent: Any, process: int, pointer: Any) -> None:
    lib.evpy_client_connection_free(pointer, link, process != os.getpid())
    if sent is not None:
        _forget(ffi.NULL, sent)


#: Have a request forget the connection that it was on, as evhttp often does not (P2).
_forget = lib.evpy_client_forget


def _let_go(_pointer: Any) -> None:
    """Hold a pointer no longer."""


def _asked(key: int) -> Any:
    """Return the request that evhttp tells of, or None if it has ended or is the parent's."""
    request = live.objects.get(key)
    return None if request is None or request.base.parked is not None else request


@ffi.def_extern(onerror=errors.kept)
def evpy_client_done(key: int, answered: int, why: int) -> None:
    request = _asked(key)
    if request is not None:
        request._connection._ended(request, bool(answered), why)


@ffi.def_extern(onerror=errors.kept, error=-1)
def evpy_client_header(key: int) -> int:
    request = live.objects.get(key)
    if request is None:
        return -1
    if request.base.parked is not None:  # to refuse it would shut the parent's connection down
        return 0
    return int(request._connection._headers_came(request))


@ffi.def_extern(onerror=errors.kept, error=-1)
def evpy_client_informed(key: int, code: int) -> int:
    request = live.objects.get(key)
    if request is None:
        return -1
    if request.base.parked is not None:
        return 0
    return int(request._connection._informed(request, code))


@ffi.def_extern(onerror=errors.kept)
def evpy_client_refused(key: int, reason: Any) -> None:
    request = _asked(key)
    if request is not None:
        request._refused = convert.text(reason)


@ffi.def_extern(onerror=errors.kept)
def evpy_client_chunk(key: int) -> None:
    request = _asked(key)
    if request is not None and not request._cancelled:
        try:
            request._on_chunk(request)
        except BaseException as error:
            request.base.report(error, request)


@ffi.def_extern(onerror=errors.kept)
def evpy_client_ready(key: int) -> None:
    request = _asked(key)
    if request is not None and not request._cancelled:
        try:
            request._on_write(request)
        except BaseException as error:  # nobody would send the rest
            request.base.report(error, request)
            request.cancel()


@ffi.def_extern(onerror=errors.kept)
def evpy_client_error(key: int, code: int) -> None:
    request = _asked(key)
    if request is not None:
        request._code = code


@ffi.def_extern(onerror=errors.kept)
def evpy_client_closed(key: int) -> None:
    for base in live.bases:
        known = base.ledger.get(key)
        connection: Any = None if known is None else known()
        if connection is not None and connection._on_close is not None and base.parked is None:
            connection.base.defer(connection._was_closed)


@ffi.def_extern(onerror=errors.kept)
def evpy_client_settled(key: int) -> None:
    connection = live.objects.get(key)
    if connection is not None and connection.base.parked is None:
        connection._settled()
