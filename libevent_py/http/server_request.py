"""What a server does with a request: read it, have it handled, and answer it, once.

C's request may be freed as soon as it has been answered, at a time that nobody is told (O3, O4). So
by then its object has no way to it any more, and every reply takes the pointer away first.
"""

from __future__ import annotations

import functools
import os
import re
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.described import described
from libevent_py._core.dispatch import from_c, live, next_key
from libevent_py._core.handle import Handle, without_pointer
from libevent_py._core.owner import get_ident
from libevent_py._core.pointers import copied
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.buffer import Buffer
from libevent_py.buffer.failure import FRONT, failure, result_of
from libevent_py.errors import HttpError
from libevent_py.event.base import EventBase
from libevent_py.http.end import GONE, Ending, ended_by, named
from libevent_py.http.framing import MISFRAMED, misframed
from libevent_py.http.request import Request
from libevent_py.http.server_connection import (
    Connections,
    HttpServerConnection,
    address_of,
    taken_out,
)

if TYPE_CHECKING:
    from libevent_py.http.server import HttpServer

#: How far a reply has come; a request that is READING can't be answered yet.
UNANSWERED, STARTED, ANSWERED, READING = range(4)

#: What C returns for a request that nobody in C has any more.
ORPHAN = lib.EVPY_ORPHAN

#: The reason phrases that have been used, as C takes them; None has libevent choose.
_reasons: dict[str | None, Any] = {None: ffi.NULL}

#: The largest chunk in bytes: libevent has 32 bits for its size.
LARGEST_CHUNK = 2**32 - 1

# Looked up once, for what is called for every request.
reply = lib.evpy_http_reply


@described(
    error="Why the request has ended otherwise than with its complete answer, as an `HttpError`, "
    "or None; set before `on_end` is called.",
    server="The `HttpServer` whose handler has got it, which may be a virtual host.",
)
class HttpServerRequest(Request):
    """A request that a server has received: answer it in the handler or later.

    Answer with `send_reply`, or with `send_reply_start`, `send_reply_chunk` and `send_reply_end`.
    An answered request is closed, and so is whatever has been borrowed from it. If you drop a
    request without answering it, the client gets 500; if you drop it when its answer has begun,
    the connection is cut, so that the client sees that the answer isn't complete. `on_end` tells
    how a request has ended.
    """

    __slots__ = (
        "_key",
        "_on_chunk",
        "_on_complete",
        "_on_end",
        "_root",
        "_state",
        "error",
        "server",
    )

    server: HttpServer

    #: The one that has accepted the connection.
    _root: HttpServer

    #: How far the answer has come.
    _state: int

    error: HttpError | None

    #: What it is held by while it waits for an answer, or 0.
    _key: int

    _on_chunk: HttpHandler | None
    _on_complete: HttpHandler | None
    _on_end: HttpHandler | None

    def __init__(self) -> None:
        """Raise `TypeError`: an `HttpServer` makes them."""
        raise TypeError("an HttpServer makes its requests, and calls a handler with each")

    def _unusable(self) -> Exception:
        base, answered = self.base, self._state == ANSWERED
        if answered and base._why_unusable(self) is None:
            return errors.ClosedError("this HttpServerRequest has been answered")
        return super()._unusable()

    def _end_word(self) -> str:
        return "closed, answered" if self._state == ANSWERED else "closed"

    def _facts(self, ask: bool) -> Iterator[str]:
        yield from super()._facts(ask)
        if ask:
            host, port = self.peer
            yield f"from {host}:{port}"
        if self._state == STARTED:
            yield "reply begun"

    # Who asks.

    @property
    def peer(self) -> tuple[str, int]:
        """The client's address as libevent knows it: a numeric host and a port."""
        pointer = self.pointer
        return convert.text(pointer.remote_host), int(pointer.remote_port)

    @property
    def connection(self) -> HttpServerConnection | None:
        """The connection that the request came by, or None when that is gone.

        Without it nobody gets the answer. libevent notices that a client has gone only once the
        answer has begun. Wraps ``evhttp_request_get_connection``,
        ``evhttp_connection_get_server``.
        """
        self.base._check_thread()
        evcon = lib.evhttp_request_get_connection(self.pointer)
        if not evcon:
            return None
        root = self._root
        known = root._connections.known.get(address_of(evcon))
        connection = HttpServerConnection(root, evcon) if known is None else known
        self._check_usable()  # other code may have closed the server since
        return None if connection.closed else connection

    # The answer.

    def send_reply(self, code: int, reason: str | None = None, body: Any = b"") -> None:
        """Answer with the status *code*, from 200 to 999, its *reason* and *body*.

        With None for *reason* libevent chooses the phrase. *body* is bytes, any object with the
        buffer protocol, or a `Buffer`, which is emptied without copying. It follows what has been
        added to `output_buffer`. With the header Transfer-Encoding, which can only be "chunked",
        the body is sent as one chunk to a client that knows chunks.

        Unlike in C, no body is sent where a reply has none, as to HEAD: the client would take it
        for the next reply. It is told the length. When the client has gone, nothing happens.

        Requests that a client sends without waiting are answered one after the other, even if it
        has closed its half of the connection. But as in C, a client that closes its half while a
        reply is being written is taken to be gone: it gets only what its socket has taken.

        Raises `ClosedError` when the request has been answered, `RuntimeError` after
        `send_reply_start`, and `ValueError` for a *reason* that isn't one line of Latin-1, for a
        code below 200, which would be no answer, and for headers that don't fit the body, as a
        Content-Length of another length.
        Wraps ``evhttp_send_reply``.
        """
        base = self.base
        inside = base._thread == get_ident()
        if not inside:
            base._check_thread()
        if type(code) is not int or not 200 <= code <= 999:
            code = convert.integer(code, "code", 200, 999)
        text = _reasons[reason] if reason in _reasons else _phrase(reason)
        if type(body) is bytes and inside:
            self.pointer  # noqa: B018  (hot: `_check_unbegun`)
            if self._state:
                raise self._begun("send_reply")
            pointer = self._answered()
            if result := reply(pointer, code, text, body, len(body)):
                if result == ORPHAN:
                    free_orphan(base, pointer)
                    return
                self._unanswered(pointer)
                raise self._not_sent(result, lib.evhttp_send_reply, len(body))
            return
        function: Callable[..., Any] = lib.evpy_http_reply_buffer
        arguments: tuple[Any, ...]
        if isinstance(body, Buffer):
            body._check_changeable()
            size, arguments = len(body), (body.pointer,)
        else:
            function, arguments = reply, convert.octets(body, "body")
            size = arguments[1]
        self._check_unbegun("send_reply")
        pointer = self._answered()
        if result := base._call(self._sent, function, pointer, code, text, *arguments):
            self._unanswered(pointer)
            raise self._not_sent(result, lib.evhttp_send_reply, size, *_ends(body))

    def send_error(self, code: int, reason: str | None = None) -> None:
        """Answer with an error page made by libevent, and close the connection.

        *code* and *reason* are as for `send_reply`. The page contains *reason* as it is, so don't
        make it of what a client has sent. Headers that have been set, and what has been added to
        `output_buffer`, are dropped. Raises the same errors. Wraps ``evhttp_send_error``.
        """
        self.base._check_thread()
        code = convert.integer(code, "code", 200, 999)
        text = _reasons[reason] if reason in _reasons else _phrase(reason)
        self._check_unbegun("send_error")
        self.base._call(self._sent, lib.evpy_http_reply_error, self._answered(), code, text)

    def send_reply_start(self, code: int, reason: str | None = None) -> None:
        """Begin an answer with the status *code*; send the body with `send_reply_chunk`.

        `send_reply_end` completes it. *code* and *reason* are as for `send_reply`. What has been
        added to `output_buffer` is the first chunk. With the header Content-Length all chunks
        together must have that length. Without it, a client of HTTP/1.1 gets chunks. For any other
        client the end of the connection is the end of the body, even if it has asked to keep the
        connection. Raises the same errors as `send_reply`. Wraps ``evhttp_send_reply_start``.
        """
        self.base._check_thread()
        code = convert.integer(code, "code", 200, 999)
        text = _reasons[reason] if reason in _reasons else _phrase(reason)
        self._check_unbegun("send_reply_start")
        pointer = self.pointer
        result = self.base._call(self._sent, lib.evpy_http_reply_start, pointer, code, text)
        if result < 0:
            raise self._not_sent(result, lib.evhttp_send_reply_start, 0)
        self._state = STARTED

    def send_reply_chunk(self, data: Any, callback: HttpHandler | None = None) -> bool:
        """Send *data* as the next part of the body; return whether the client was still there.

        *data* is bytes, any object with the buffer protocol, or a `Buffer`, which is emptied. When
        the client has gone, nothing is sent, as in C. Nor is an empty chunk, which would mark the
        end, or a chunk of a reply that has no body.

        ``callback(request)`` is called when everything sent so far has been written. Send the next
        part then, and no more is in memory than the client takes. It isn't called if another chunk
        or the end is sent before that, or the client goes. Until then it keeps the request alive.

        Raises `RuntimeError` before `send_reply_start`, `ClosedError` after `send_reply_end`, and
        `ValueError` for more than the reply's Content-Length.
        Wraps ``evhttp_send_reply_chunk``, ``evhttp_send_reply_chunk_with_cb``.
        """
        self.base._check_thread()
        if callback is not None:
            convert.callback(callback)
        arguments: tuple[Any, ...]
        function: Callable[..., int]
        if isinstance(data, Buffer):
            data._check_changeable()
            function, size, arguments = lib.evpy_http_reply_chunk_buffer, len(data), (data.pointer,)
        else:
            function, arguments = lib.evpy_http_reply_chunk, convert.octets(data)
            size = arguments[1]
        if size > LARGEST_CHUNK:
            raise ValueError(f"data must have at most {LARGEST_CHUNK} bytes, not {size}")
        pointer = self.pointer
        if self._state != STARTED:
            raise self._not_begun("send_reply_chunk")
        connection = self._known() if callback is None else self.connection
        called = callback is not None and connection is not None
        key = connection._key if connection is not None else 0
        sent = self.base._call(result_of, function, pointer, *arguments, called, key)
        if sent == MISFRAMED:
            missing = lib.evpy_http_missing(pointer)
            raise ValueError(
                f"data must have at most the {missing} bytes that the reply's Content-Length has "
                f"left, not {size}"
            )
        if sent < 0:
            raise failure(lib.evhttp_send_reply_chunk, *_ends(data))
        if self.closed:  # a callback of one of the buffers has ended it
            return False
        if connection is not None and sent:
            connection._writing = None if callback is None else (callback, self)
        elif connection is not None and callback is not None:  # C has nothing to wait for
            self.base.defer(self._passed_over, callback)
        return bool(lib.evhttp_request_get_connection(pointer))

    def _passed_over(self, callback: HttpHandler) -> None:
        if not self.closed:
            callback(self)

    def _known(self) -> HttpServerConnection | None:
        """Return the connection if somebody has asked for it, else None."""
        known = self._root._connections.known
        if not known:
            return None
        evcon = lib.evhttp_request_get_connection(self.pointer)
        return known.get(address_of(evcon))

    def send_reply_end(self) -> None:
        """Complete the answer.

        Raises `RuntimeError` before `send_reply_start`, where C would send nothing at all, and
        `ValueError` when the body is shorter than its Content-Length: send the rest, or `close`
        the request. Wraps ``evhttp_send_reply_end``.
        """
        self.base._check_thread()
        pointer = self.pointer
        if self._state != STARTED:
            raise self._not_begun("send_reply_end")
        if missing := lib.evpy_http_missing(pointer):
            raise ValueError(f"the reply is {missing} bytes shorter than its Content-Length")
        connection = self._known()
        if connection is not None:
            connection._writing = None  # C doesn't tell any more
        self.base._call(self._sent, lib.evpy_http_reply_end, self._answered())

    @property
    def on_complete(self) -> HttpHandler | None:
        """Callback ``on_complete(request)`` for when the answer has been written, or None.

        Inside, the request can be asked once more, for a log for instance, but not answered. It
        isn't called when the client has gone before. Wraps ``evhttp_request_set_on_complete_cb``.
        """
        return self._on_complete

    @on_complete.setter
    def on_complete(self, callback: HttpHandler | None) -> None:
        self.base._check_thread()
        self._check_usable()  # once it has been answered, it is too late
        self._on_complete = None if callback is None else convert.callback(callback, "on_complete")

    # The body, in parts.

    @property
    def on_chunk(self) -> HttpHandler | None:
        """Callback ``on_chunk(request)`` for each part of the body, or None.

        Set it in `HttpServer.on_headers`; otherwise the body is collected in `input_buffer`, as in
        C. The part is in `input_buffer`, and is thrown away after the callback. Of a chunked body
        it is one chunk, or a part of a chunk that is longer than 64 KiB. The handler is called when
        the body is complete, without it. `HttpServerConnection.pause` makes the client wait.

        If the callback raises, the rest of the body is thrown away, and the client gets 500.
        Setting it raises `RuntimeError` once the body has come.
        Wraps ``evhttp_request_set_chunked_cb``.
        """
        return self._on_chunk

    @on_chunk.setter
    def on_chunk(self, callback: HttpHandler | None) -> None:
        self.base._check_thread()
        pointer = self.pointer
        if self._state != READING:
            raise RuntimeError("on_chunk must be set in on_headers: the body has come")
        self._on_chunk = None if callback is None else convert.callback(callback, "on_chunk")
        if callback is not None:
            lib.evpy_http_take_chunks(pointer)

    def _part_came(self) -> None:
        """Hand out what has come of the body; or throw it away, where nobody wants it."""
        if self._on_chunk is not None and self.error is None:
            try:
                self._on_chunk(self)
            except BaseException as error:
                self._cannot_read("on_chunk", error)

    def _cannot_read(self, who: str, error: BaseException) -> None:
        """Throw the rest of the body away and let the client get 500, as *who* has raised."""
        if not self.closed:
            self.error = self._ended_by(f"{who} raised {type(error).__name__}", error)
            lib.evpy_http_take_chunks(self.pointer)
        self.base._report(error, self)

    def _tell_headers(self) -> None:
        """Tell the server's `HttpServer.on_headers` of the request."""
        callback = self._root._on_headers
        if callback is not None:
            try:
                callback(self)
            except BaseException as error:
                self._cannot_read("on_headers", error)

    # How it ends.

    @property
    def on_end(self) -> HttpHandler | None:
        """Callback ``on_end(request)``, called once however the request ends, or None.

        When `error` is None, the whole answer has been written. Otherwise it says why not: the
        client has gone or was idle for too long; the connection, the server or the base was closed;
        the handler has raised; the request was closed or dropped; or libevent itself has answered,
        as with 413. libevent notices that a client has gone only while it reads from or writes to
        the connection, and not while that is paused.

        Inside, the request can be asked once more, for a log for instance, but not answered. If the
        request has been dropped, the callback gets another object for it. When the client has gone
        before the answer was complete, the request stays open afterwards for whoever still answers
        it, though nobody gets that answer.

        It isn't called where the garbage collector finds the base together with all that is made on
        it, nor in a forked child that has not called `EventBase.reinit`. For a request whose client
        has gone already, setting it calls it at once. Setting it raises `RuntimeError` inside this
        callback, and `ClosedError` once the request has ended.
        """
        return self._on_end

    @on_end.setter
    def on_end(self, callback: HttpHandler | None) -> None:
        self.base._check_thread()
        pointer = self.pointer
        if callback is not None:
            convert.callback(callback, "on_end")
        connection = self.connection
        if connection is None or self._state == ANSWERED:
            if self.error is not None or self._state == ANSWERED:
                raise RuntimeError("on_end can't be set for a request that has ended")
            self._on_end = callback
            if callback is not None:
                self.error = self._ended_by(GONE)
                callback(self)
            return
        self._on_end = callback
        connection._ending = None
        if callback is not None:
            another = functools.partial(made, self.base, self.server, self._root, pointer)
            connection._ending = Ending(self, callback, another)
            lib.evpy_http_await(pointer, connection._watch)

    def _ends(self, text: str, cause: BaseException | None = None) -> None:
        """Let `on_end` know why there is no answer by the user."""
        ending = self._ending()
        if ending is not None:
            ending.fails(text, cause)

    def _ending(self) -> Ending | None:
        connection = None if self._on_end is None else self._known()
        return None if connection is None else connection._ending

    def _ended_with(self, error: HttpError | None) -> None:
        """Note that *error* is why there is no answer by the user, or None if there is one."""
        self.error = error

    def _told(self, pointer: Any, callback: Callable[[Any], object], *, last: bool = False) -> None:
        """Call *callback*, and stand for C's *pointer* meanwhile.

        If it is the *last* of it, it can't be answered any more, nor asked afterwards.
        """
        requests, ended = self._root._requests, self.closed
        outer, requests.current = requests.current, self
        if ended:
            self._put(pointer)
        if last:
            self._state = ANSWERED
        try:
            callback(self)
        except BaseException as error:
            self.base._report(error, self)
        finally:
            requests.current = outer
            if ended or last:
                self._end()

    def close(self) -> None:
        """Give the request up, as if it were dropped; once it has been answered, do nothing.

        The client gets 500. If the answer has begun, the connection is cut, and if the body is
        still coming, the connection is closed. Wraps ``evhttp_send_error``.
        """
        if self.closed or self._state == ANSWERED:
            return
        self.base._check_thread()
        self._ends("it was closed before its answer was complete")
        if self._state == READING:
            connection = self.connection
            if connection is not None:  # or other code has closed it in between
                connection.close()
        else:
            self.base._call(self._sent, lib.evpy_http_abandon, self._answered())

    def _answered(self) -> Any:
        """Take the pointer away, for a reply that C is about to be told."""
        pointer = self.pointer
        if self._on_complete is not None:
            connection = self.connection
            if connection is not None:
                connection._awaiting = self
                lib.evpy_http_await(pointer, connection._watch)
        if self._input is not None or self._output is not None:
            for buffer in self._lent():
                buffer._take()
            self._input = self._output = None
        waiting, key = self._root._requests.waiting, self._key
        if self.__class__ is Answered:  # other code has ended it
            raise self._unusable()
        self._state = ANSWERED  # no call from here on: nobody sees the half of it
        if key in waiting:
            del waiting[key]
        self._key = 0
        del self.pointer  # hot: what `_take` does
        self.__class__ = Answered
        return pointer

    def _sent(self, function: Callable[..., Any], pointer: Any, *arguments: Any) -> int:
        """Call *function* as `result_of` does, and free *pointer* where libevent no longer will."""
        result = result_of(function, pointer, *arguments)
        if result != ORPHAN:
            return result
        free_orphan(self.base, pointer)
        return 0

    def _unanswered(self, pointer: Any) -> None:
        """Put the pointer back, as C could not take the reply."""
        self._state = UNANSWERED
        self._put(pointer)
        connection = self._known()
        if connection is not None:
            connection._awaiting = None
        if self._root._requests.current is not self:
            self._wait(pointer)

    def _wait(self, pointer: Any) -> None:
        """Wait for an answer, which is given by 500 if the user drops the request."""
        key, requests = next_key(), self._root._requests
        ref = weakref.ref(self, functools.partial(requests.dropped, key))
        requests.waiting[key] = ref, copied(pointer)  # which is nobody's on the way to C
        self._key = key

    def _not_sent(
        self, result: int, function: Any, size: int, *ends: tuple[Buffer, int]
    ) -> Exception:
        """Return why C's *function* could not send a reply with *size* bytes of body."""
        if result == MISFRAMED:
            return misframed(self.output_headers, len(self.output_buffer) + size)
        return failure(function, *ends)

    def _check_unbegun(self, function: str) -> None:
        """Raise an error if it has been answered, even in part; an argument may have done that."""
        self.pointer  # noqa: B018  (hot: it may have been answered)
        if self._state:
            raise self._begun(function)

    def _begun(self, function: str) -> RuntimeError:
        why = "after send_reply_start(): end that one"
        return RuntimeError(f"{function}() was called {self._too_early_or_late() or why}")

    def _not_begun(self, function: str) -> RuntimeError:
        why = "before send_reply_start()"
        return RuntimeError(f"{function}() was called {self._too_early_or_late() or why}")

    def _too_early_or_late(self) -> str | None:
        """Return why it can't be answered now in any way, or None."""
        if self._state == READING:
            return "before all of the body has come: answer in the handler, or later"
        return "after the request has ended" if self._state == ANSWERED else None

    def _is_waiting(self) -> bool:
        """Tell whether it still waits for an answer, and this process is the one to give it."""
        return not self.closed and not self.base._forked

    def _raised(self, error: BaseException, who: str = "its handler") -> None:
        """Report what *who* has raised, and answer for it unless `EventBase.on_error` has."""
        base = self.base
        base._report(error, self)
        if self._is_waiting():
            self._fail(self._ended_by(f"{who} raised {type(error).__name__}", error))

    def _fail(self, error: HttpError) -> None:
        """Answer for a handler that can't, for the reason *error*."""
        ending = self._ending()
        if ending is not None:
            ending.failed(error)
        if not self._state:
            write_at_last(self.base, lib.evhttp_request_get_connection(self.pointer))
        self._sent(lib.evpy_http_abandon, self._answered())

    def _ended_by(self, text: str, cause: BaseException | None = None) -> HttpError:
        """Return the error that tells why it has ended without an answer by the user."""
        return ended_by(named(self), text, cause)

    def _is_on(self, evcon: Any) -> bool:
        """Tell whether it came by C's connection *evcon*."""
        return bool(lib.evhttp_request_get_connection(self.pointer) == evcon)

    def _is_cut(self) -> bool:
        """Tell whether it can't be read any more, as its connection has been closed."""
        connection = None if self.closed else self._known()
        return self.closed or (connection is not None and connection.closed)


HttpHandler: TypeAlias = Callable[[HttpServerRequest], object]

#: What a request's class is once it has been answered.
Answered: Any = without_pointer(HttpServerRequest)


class Guest(Protocol):
    """What serves requests of its own on a server, and has to end them before the server does."""

    def requests(self) -> list[Any]:
        """Return C's pointers to those that are not answered yet."""

    def end(self, evcon: Any) -> None:
        """End those of the connection *evcon*, which is about to be freed."""

    def free(self) -> None:
        """Free what it has, as the server is about to be freed."""


class Requests:
    """The requests of a server: the one that is being handled, and those that wait for an answer.

    The server doesn't keep the latter alive: their user does. The client of one that is dropped
    would wait for ever (O3), so it is answered then.
    """

    __slots__ = ("_base", "_connections", "current", "guests", "waiting")

    def __init__(self, base: EventBase, connections: Connections) -> None:
        self._base = base
        self._connections = connections
        #: The request whose handler, or another callback of it, runs, or None.
        self.current: HttpServerRequest | None = None
        #: What has requests of its own here, which must end before: RPC servers (R2).
        self.guests: list[Guest] = []
        #: Those that have been left unanswered for now, each with its pointer.
        self.waiting: dict[int, tuple[weakref.ref[HttpServerRequest], Any]] = {}

    def dropped(self, key: int, _ref: Any) -> None:
        """Answer the request *key*, which its user has dropped."""
        if key in self.waiting:
            self._base._bury(key, self._abandon, key)

    def _abandon(self, key: int) -> None:
        # Its connection may have been freed meanwhile; with the base, nobody can answer.
        if key in self.waiting and not self._base.closed:
            pointer = self.waiting.pop(key)[1]
            evcon = lib.evhttp_request_get_connection(pointer)
            connection = self._connections.known.get(address_of(evcon)) if evcon else None
            if connection is not None and connection._ending is not None:
                connection._ending.fails("it was dropped before its answer was complete")
            if lib.evpy_http_abandon(pointer) == ORPHAN:
                free_orphan(self._base, pointer)

    def _lent(self) -> list[Handle]:
        """Return those that somebody has, with what has been borrowed from them."""
        found = [ref() for ref, _ in list(self.waiting.values())]
        alive = [request for request in (*found, self.current) if request is not None]
        return [handle for request in alive for handle in (*request._lent(), request)]

    def end_current(self, evcon: Any) -> None:
        """End the one that is being handled if it is of the connection *evcon*."""
        current = self.current
        if current is not None and not current.closed and current._is_on(evcon):
            current._end()

    def end(self, evcon: Any) -> None:
        """End those of the connection *evcon*, which is about to be freed with them."""
        for guest in list(self.guests):
            guest.end(evcon)
        for key, (ref, pointer) in self.waiting.copy().items():
            if key not in self.waiting:  # other code has answered it meanwhile
                continue
            if lib.evhttp_request_get_connection(pointer) == evcon:
                self.waiting.pop(key, None)
                request = ref()
                if request is not None:
                    request._end()

    def mute(self) -> None:
        """Stop sending to the clients of those that are not answered."""
        pointers = [pointer for _, pointer in list(self.waiting.values())]
        if self.current is not None and not self.current.closed:
            pointers.append(self.current.pointer)
        for guest in self.guests:
            pointers += guest.requests()
        for pointer in pointers:
            evcon = lib.evhttp_request_get_connection(pointer)
            if evcon:
                lib.evpy_http_mute(evcon)

    def free_orphans(self) -> None:
        """Free those whose clients have gone, as the rest is freed with the server."""
        for guest in list(self.guests):
            guest.free()
        for _, (_, pointer) in taken_out(self.waiting):
            lib.evpy_http_free_orphan(pointer)


def free_orphan(base: EventBase, pointer: Any) -> None:
    """Free C's request *pointer*, which is an `ORPHAN`, as soon as no method can be about it."""
    base._free_when_clean(lib.evpy_http_free_orphan, pointer)


def write_at_last(base: EventBase, evcon: Any) -> None:
    """Write what C's connection *evcon* is about to be given, even if the loop ends before.

    As far as its socket takes it, which is not waited for.
    """
    if evcon:
        bev = lib.evhttp_connection_get_bufferevent(evcon)
        lib.bufferevent_incref(bev)
        base._once_clean(functools.partial(_push, base, os.getpid()), bev)


def _push(base: EventBase, process: int, bev: Any) -> None:
    if process == os.getpid() and not base.closed:
        base._tell(lib.evpy_http_push, bev)
    else:  # it is the parent's to be written, or there is nothing left to write
        lib.bufferevent_decref(bev)


def _ends(body: Any) -> list[tuple[Buffer, int]]:
    """Return what may be frozen of *body*, and so be why it could not be taken."""
    return [(body, FRONT)] if isinstance(body, Buffer) else []


def _phrase(reason: str | None) -> Any:
    """Return a reason phrase as C takes it, or raise an error for what could end the line (Q4)."""
    if not isinstance(reason, str):
        raise TypeError(f"reason must be str, not {reason!r}")
    if re.fullmatch("[\t\x20-\x7e\xa0-\xff]*", reason) is None:
        raise ValueError(f"reason must be one line of Latin-1, not {reason!r}")
    encoded = reason.encode("latin-1")
    if len(_reasons) < 256:  # nobody has that many of their own
        _reasons[reason] = encoded
    return encoded


# What C calls.


class Route:
    """What C calls for a path, or for all others."""

    __slots__ = ("handler", "on_end", "server")

    def __init__(
        self, server: HttpServer, handler: HttpHandler, on_end: HttpHandler | None
    ) -> None:
        self.server = server
        self.handler = handler
        self.on_end = on_end


def made(base: EventBase, server: HttpServer, root: HttpServer, pointer: Any) -> HttpServerRequest:
    """Return an object for C's *pointer*, of a request that *root* has got for *server*."""
    request = HttpServerRequest.__new__(HttpServerRequest)
    request.base = base
    request.server = server
    request._root = root
    request._key = request._state = UNANSWERED
    request._input = request._output = request.error = None
    request._on_complete = request._on_chunk = request._on_end = None
    request._sends_files = False if root._plain else None
    request.pointer = pointer
    return request


def _all_read(root: HttpServer, server: HttpServer, pointer: Any) -> HttpServerRequest | None:
    """Return the request that C's *pointer* is of, if it is still to be handled by *server*.

    Its body has come; and if it could not tell of its headers before, it does so now.
    """
    where = address_of(lib.evhttp_request_get_connection(pointer))
    known = root._connections.known
    connection = known.get(where)
    request = None if connection is None else connection._reading
    if request is None and (connection is None or not connection.closed):
        request = _read_late(root, pointer)
        connection = known.get(where)
    if connection is not None:
        connection._reading = None
    if request is None or request.closed:
        return None
    if connection is not None and connection.closed:
        request._end()
        return None
    request._state = UNANSWERED
    request.server = server
    return request


def _read_late(root: HttpServer, pointer: Any) -> HttpServerRequest:
    """Tell of C's request *pointer*, all of which has come already."""
    request = root._requests.current = made(root.base, root, root, pointer)
    request._state = READING
    request._tell_headers()
    if request._on_chunk is not None and not request._is_cut():
        request._part_came()
        if not request._is_cut():
            request.input_buffer.drain(len(request.input_buffer))
    return request


# hot: called for every request; and of a `Route`, which has no base to tell.
@ffi.def_extern(onerror=errors.kept)
def evpy_http_request(key: int, pointer: Any, begun: Any) -> None:
    """Note in *begun* that the request is somebody's: else C answers it, after an interrupt."""
    route = live.objects.get(key)
    if route is None:  # the server is closed, and about to be freed with its requests
        begun[0] = True
        return
    server = root = route.server
    while root._parent is not None:
        root = root._parent
    doomed, requests = root._connections.doomed, root._requests
    if doomed and address_of(lib.evhttp_request_get_connection(pointer)) in doomed:
        begun[0] = True
        return  # so is the connection
    if root._streams:
        request = _all_read(root, server, pointer)
        begun[0] = True
        if request is None:  # what has been told of its headers has closed the connection
            return
    else:
        request = made(server.base, server, root, pointer)
        begun[0] = True  # no call from here to what answers for a handler that raises
    requests.current = request
    try:
        if request.error is not None:
            request._fail(request.error)
            return
        if route.on_end is not None:
            request.on_end = route.on_end
        route.handler(request)
        if request._state != ANSWERED and request._is_waiting():
            request._wait(pointer)
    except BaseException as error:
        request._raised(error)
    finally:
        requests.current = None


@from_c()
def evpy_http_headers(connection: HttpServerConnection, pointer: Any) -> None:
    if not connection.closed:
        server = connection.server
        request = connection._reading = made(server.base, server, server, pointer)
        request._state = READING
        request._tell_headers()


@from_c()
def evpy_http_part(connection: HttpServerConnection) -> None:
    if connection._reading is not None:
        connection._reading._part_came()


# hot: called for every request whose end somebody is told of.
@ffi.def_extern(onerror=errors.kept)
def evpy_http_completed(key: int, pointer: Any) -> int:
    """Return 1 when it is told: with 0, which an interrupt returns, C calls once more."""
    connection = live.objects.get(key)
    if connection is None:
        return 1
    reading = connection._reading
    if reading is not None:  # no handler has got it
        code = int(pointer.response_code)
        reading._ends(f"libevent has answered it with {code}")
    if connection._awaiting is not None:
        request, connection._awaiting = connection._awaiting, None
        request._told(pointer, request._on_complete)
    ending = connection._ending
    if ending is not None:
        ending.tell(None)
        if connection._ending is ending:
            connection._ending = None
    if reading is not None:
        if connection._reading is reading:
            connection._reading = None
        reading._end()
    return 1
