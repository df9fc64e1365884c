"""What a server does with a request: read it, and answer it, once, each whole or in parts.

C's request may be freed as soon as it has been answered, at a time that nobody is told (O3, O4). So
by then its object has no way to it any more, and every reply takes the pointer away first.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.described import described
from libevent_py._core.dispatch import live
from libevent_py._core.handle import without_pointer
from libevent_py._core.owner import get_ident
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.buffer import Buffer
from libevent_py.buffer.octets import FRONT, failure, result_of
from libevent_py.errors import HttpError
from libevent_py.http.end import GONE, Ending, ended_by, named
from libevent_py.http.framing import MISFRAMED, misframed
from libevent_py.http.request import Request
from libevent_py.http.server_connection import (
    ORPHAN,
    HttpServerConnection,
    address_of,
    free_orphan,
    write_at_last,
)

#: How far a reply has come; a request that is READING can't be answered yet.
UNANSWERED, STARTED, ANSWERED, READING = range(4)

#: The reason phrases that have been used, as C takes them; None has libevent choose.
_reasons: dict[str | None, Any] = {None: ffi.NULL}

#: What a chunk's size may be at most, for which libevent has 32 bits.
MOST = 2**32 - 1

# Looked up once, for what is called for every request.
reply = lib.evpy_http_reply


@described(
    error="Why it has ended otherwise than by its complete answer, as an `HttpError`, or None; set "
    "before `on_end` is called.",
    server="The `HttpServer` whose handler has got it, which may be a virtual host.",
)
class HttpServerRequest(Request):
    """A request that a server has got: answer it by `send_reply`, or by `send_reply_start` and so
    on, in the handler or later.

    Once answered it is closed, and so is what has been borrowed from it. One that is dropped
    without an answer is answered with 500; one whose answer has been begun has its connection cut,
    so that the client sees that it isn't complete. `on_end` tells how it has ended.
    """

    __slots__ = (
        "_on_chunk",
        "_on_complete",
        "_on_end",
        "_state",
        "error",
        "key",
        "root",
        "server",
    )

    server: Any

    #: The one that has accepted the connection.
    root: Any

    #: How far the answer has come.
    _state: int

    error: HttpError | None

    #: What it is held by while it waits for an answer, or 0.
    key: int

    def _unusable(self) -> Exception:
        base, answered = self.base, self._state == ANSWERED
        if answered and base.why_unusable(self) is None:
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

    def __init__(self) -> None:
        """Raise `TypeError`: an `HttpServer` makes them."""
        raise TypeError("an HttpServer makes its requests, and calls a handler with each")

    # Who asks.

    @property
    def peer(self) -> tuple[str, int]:
        """The client's address as libevent knows it: a numeric host, and a port."""
        pointer = self.pointer
        return convert.text(pointer.remote_host), int(pointer.remote_port)

    @property
    def connection(self) -> HttpServerConnection | None:
        """The connection that it came by, or None when that is gone: then nobody gets the answer.

        That a client has gone is noticed only once the answer has been begun (O5).
        Wraps ``evhttp_request_get_connection``, ``evhttp_connection_get_server``.
        """
        self.base.check_thread()
        evcon = lib.evhttp_request_get_connection(self.pointer)
        if not evcon:
            return None
        known: HttpServerConnection | None = self.root.connections.get(address_of(evcon))
        connection = HttpServerConnection(self.root, evcon) if known is None else known
        self.pointer  # noqa: B018  (other code may have closed the server since)
        return None if connection.closed else connection

    # The answer.

    def send_reply(self, code: int, reason: str | None = None, body: Any = b"") -> None:
        """Answer with the status *code*, from 200 to 999, its *reason* and *body*.

        None for *reason* stands for libevent's own phrase. *body* is bytes, or any object with the
        buffer protocol, and comes after what has been added to `output_buffer`; a `Buffer` is
        emptied, without copying. Unlike in C, nothing of it is sent where a reply has no body, as
        to HEAD, which is told its length: the client would take it for the next reply. With the
        header Transfer-Encoding, which can only be "chunked", it is sent as a chunk to a client
        that knows these. When the client has gone, nothing happens.

        Requests that a client has sent without waiting are answered one after the other, also when
        it has closed its half of the connection. But as in C, a client that closes its half while a
        reply is written to it is taken for gone, and gets no more of it than the socket has taken.

        Raises `ClosedError` when it has been answered, `RuntimeError` after `send_reply_start`,
        `ValueError` for a *reason* that isn't one line of Latin-1, for a code below 200, which
        would be no answer, and for headers that are wrong about the body, as a Content-Length of
        another length.
        Wraps ``evhttp_send_reply``.
        """
        base = self.base
        inside = base.thread == get_ident()
        if not inside:
            base.check_thread()
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
        if result := base.call(self._sent, function, pointer, code, text, *arguments):
            self._unanswered(pointer)
            raise self._not_sent(result, lib.evhttp_send_reply, size, *_ends(body))

    def send_error(self, code: int, reason: str | None = None) -> None:
        """Answer with an error page of libevent's own, and close the connection.

        *code* and *reason* are as for `send_reply`; the page contains *reason* as it is, so it must
        not be made of what a client has sent. Headers that have been set, and what has been added
        to `output_buffer`, are dropped. Raises the same errors. Wraps ``evhttp_send_error``.
        """
        self.base.check_thread()
        code = convert.integer(code, "code", 200, 999)
        text = _reasons[reason] if reason in _reasons else _phrase(reason)
        self._check_unbegun("send_error")
        self.base.call(self._sent, lib.evpy_http_reply_error, self._answered(), code, text)

    def send_reply_start(self, code: int, reason: str | None = None) -> None:
        """Begin to answer with the status *code*; `send_reply_chunk` and `send_reply_end` follow.

        *code* and *reason* are as for `send_reply`. What has been added to `output_buffer` is the
        first chunk. With the header Content-Length, all chunks together must have that length.
        Without it a client of HTTP/1.1 gets chunks, any other one the end of the connection as that
        of the body, also when it has asked to be kept. Raises the same errors as `send_reply`.
        Wraps ``evhttp_send_reply_start``.
        """
        self.base.check_thread()
        code = convert.integer(code, "code", 200, 999)
        text = _reasons[reason] if reason in _reasons else _phrase(reason)
        self._check_unbegun("send_reply_start")
        pointer = self.pointer
        result = self.base.call(self._sent, lib.evpy_http_reply_start, pointer, code, text)
        if result < 0:
            raise self._not_sent(result, lib.evhttp_send_reply_start, 0)
        self._state = STARTED

    def send_reply_chunk(
        self, data: Any, callback: Callable[[HttpServerRequest], object] | None = None
    ) -> bool:
        """Send *data*, bytes, any object with the buffer protocol or a `Buffer`, which is emptied.

        ``callback(request)`` is called when all that has been sent so far has been written, so that
        no more need be kept than the client takes; unless another chunk or the end comes before, or
        the client goes. Until then it keeps the request alive. Return whether the client was still
        there; when it has gone, nothing is sent, as in C. Nor is an empty chunk, which would be the
        end, or one where the reply has no body. Raises `RuntimeError` before `send_reply_start`,
        `ClosedError` after `send_reply_end`, `ValueError` for more than the reply's Content-Length.
        Wraps ``evhttp_send_reply_chunk``, ``evhttp_send_reply_chunk_with_cb``.
        """
        self.base.check_thread()
        if callback is not None:
            convert.callback(callback)
        arguments: tuple[Any, ...]
        if isinstance(data, Buffer):
            data._check_changeable()
            function, size, arguments = lib.evpy_http_reply_chunk_buffer, len(data), (data.pointer,)
        else:
            function, arguments = lib.evpy_http_reply_chunk, convert.octets(data)
            size = arguments[1]
        if size > MOST:
            raise ValueError(f"data must have at most {MOST} bytes, not {size}")
        pointer = self.pointer
        if self._state != STARTED:
            raise self._not_begun("send_reply_chunk")
        connection = self._known() if callback is None else self.connection
        called = callback is not None and connection is not None
        key = connection.key if connection is not None else 0
        sent = self.base.call(result_of, function, pointer, *arguments, called, key)
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
            connection.writing = None if callback is None else (callback, self)
        elif connection is not None and callback is not None:  # C has nothing to wait for
            self.base.defer(self._passed_over, callback)
        return bool(lib.evhttp_request_get_connection(pointer))

    def _passed_over(self, callback: Callable[[HttpServerRequest], object]) -> None:
        if not self.closed:
            callback(self)

    def _known(self) -> HttpServerConnection | None:
        """Return the connection if somebody has asked for it, else None."""
        known = self.root.connections
        if not known:
            return None
        evcon = lib.evhttp_request_get_connection(self.pointer)
        return known.get(address_of(evcon))  # type: ignore[no-any-return]

    def send_reply_end(self) -> None:
        """Say that the answer is complete.

        Raises `RuntimeError` before `send_reply_start`, for which C would send nothing at all, and
        `ValueError` when it has less than its Content-Length: send the rest, or `close` it.
        Wraps ``evhttp_send_reply_end``.
        """
        self.base.check_thread()
        pointer = self.pointer
        if self._state != STARTED:
            raise self._not_begun("send_reply_end")
        if missing := lib.evpy_http_missing(pointer):
            raise ValueError(f"the reply is {missing} bytes shorter than its Content-Length")
        connection = self._known()
        if connection is not None:
            connection.writing = None  # C doesn't tell any more
        self.base.call(self._sent, lib.evpy_http_reply_end, self._answered())

    @property
    def on_complete(self) -> Callable[[HttpServerRequest], object] | None:
        """What is called as ``on_complete(request)`` when the answer has been written, or None.

        Then the request can be asked once more, for a log for instance, but not answered. It isn't
        called when the client has gone before. Wraps ``evhttp_request_set_on_complete_cb``.
        """
        return self._on_complete

    @on_complete.setter
    def on_complete(self, callback: Callable[[HttpServerRequest], object] | None) -> None:
        self.base.check_thread()
        self.pointer  # noqa: B018  (once it has been answered, it is too late)
        self._on_complete = None if callback is None else convert.callback(callback, "on_complete")

    # The body, in parts.

    @property
    def on_chunk(self) -> Callable[[HttpServerRequest], object] | None:
        """What is called as ``on_chunk(request)`` for each part of the body, or None.

        Set it in `HttpServer.on_headers`: else the body is collected in `input_buffer`, as in C.
        The part is in `input_buffer`, and thrown away afterwards; of a chunked body it is a chunk,
        or part of one that is longer than 64 KiB. Its handler is called when the body is complete,
        without it. `HttpServerConnection.pause` has the client wait. When it raises, the rest of
        the body is thrown away, and the client gets 500. Setting it raises `RuntimeError` once the
        body has come.
        Wraps ``evhttp_request_set_chunked_cb``.
        """
        return self._on_chunk

    @on_chunk.setter
    def on_chunk(self, callback: Callable[[HttpServerRequest], object] | None) -> None:
        self.base.check_thread()
        pointer = self.pointer
        if self._state != READING:
            raise RuntimeError("on_chunk must be set in on_headers: the body has come")
        self._on_chunk = None if callback is None else convert.callback(callback, "on_chunk")
        if callback is not None:
            lib.evpy_http_take_chunks(pointer)

    def part_came(self) -> None:
        """Hand out what has come of the body; or throw it away, where nobody wants it."""
        if self._on_chunk is not None and self.error is None:
            try:
                self._on_chunk(self)
            except BaseException as error:
                self.cannot_read("on_chunk", error)

    def cannot_read(self, who: str, error: BaseException) -> None:
        """Have the rest of the body thrown away, as *who* has raised, and the client get 500."""
        if not self.closed:
            self.error = self.ended_by(f"{who} raised {type(error).__name__}", error)
            lib.evpy_http_take_chunks(self.pointer)
        self.base.report(error, self)

    # How it ends.

    @property
    def on_end(self) -> Callable[[HttpServerRequest], object] | None:
        """What is called once as ``on_end(request)`` when the request has ended, however; or None.

        When `error` is None, its answer has been written completely. Else that says why not: the
        client has gone or was idle for too long, the connection, the server or the base was closed,
        the handler has raised, the request was closed or dropped, or libevent has answered by
        itself, as with 413. That a client has gone is noticed only while the connection is being
        read or written, and not while it is paused. Inside, the request can be asked once
        more, for a log for instance, but not answered; if it has been dropped, it is another object
        for the same. When the client has gone before the answer was complete, the request goes on
        afterwards, for who still answers it, though nobody gets that.

        It isn't called where the garbage collector finds the base together with all that is made on
        it, nor in a forked child that has not called `EventBase.reinit`. Setting it for a request
        whose client has gone calls it at once. Setting it raises `RuntimeError` inside this
        callback, and `ClosedError` once the request has ended.
        """
        return self._on_end

    @on_end.setter
    def on_end(self, callback: Callable[[HttpServerRequest], object] | None) -> None:
        self.base.check_thread()
        pointer = self.pointer
        if callback is not None:
            convert.callback(callback, "on_end")
        connection = self.connection
        if connection is None or self._state == ANSWERED:
            if self.error is not None or self._state == ANSWERED:
                raise RuntimeError("on_end can't be set for a request that has ended")
            self._on_end = callback
            if callback is not None:
                self.error = self.ended_by(GONE)
                callback(self)
            return
        self._on_end = callback
        connection.ending = None
        if callback is not None:
            another = functools.partial(made, self.base, self.server, self.root, pointer)
            connection.ending = Ending(self, callback, another)
            lib.evpy_http_await(pointer, connection._flow)

    def _ends(self, text: str, cause: BaseException | None = None) -> None:
        """Have `on_end` know why there is no answer of its user's."""
        ending = self._ending()
        if ending is not None:
            ending.fails(text, cause)

    def _ending(self) -> Ending | None:
        connection = None if self._on_end is None else self._known()
        return None if connection is None else connection.ending

    def told(self, pointer: Any, callback: Callable[[Any], object], *, last: bool = False) -> None:
        """Have *callback* called, and be what C's *pointer* is for meanwhile.

        When it is the *last* of it, it can't be answered any more, nor asked afterwards.
        """
        root, ended = self.root, self.closed
        outer, root.current = root.current, self
        if ended:
            self._put(pointer)
        if last:
            self._state = ANSWERED
        try:
            callback(self)
        except BaseException as error:
            self.base.report(error, self)
        finally:
            root.current = outer
            if ended or last:
                self._end()

    def close(self) -> None:
        """Answer with 500, or cut the connection where the answer has been begun, as is done for
        a request that is dropped; or close the connection while the body is still coming.

        Once it has been answered, nothing happens. Wraps ``evhttp_send_error``.
        """
        if self.closed or self._state == ANSWERED:
            return
        self.base.check_thread()
        self._ends("it was closed before its answer was complete")
        if self._state == READING:
            connection = self.connection
            assert connection is not None
            connection.close()
        else:
            self.base.call(self._sent, lib.evpy_http_abandon, self._answered())

    def _answered(self) -> Any:
        """Take the pointer away, for a reply that C is about to be told."""
        pointer = self.pointer
        if self._on_complete is not None:
            connection = self.connection
            if connection is not None:
                connection.awaiting = self
                lib.evpy_http_await(pointer, connection._flow)
        if self._input is not None or self._output is not None:
            for buffer in self.lent():
                buffer._take()
            self._input = self._output = None
        requests, key = self.root.held.requests, self.key
        if self.__class__ is Answered:  # other code has ended it
            raise self._unusable()
        self._state = ANSWERED  # no call from here on: nobody sees the half of it
        if key in requests:
            del requests[key]
        self.key = 0
        del self.pointer  # what `_take` does, as fast as a request for each reply wants it
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
            connection.awaiting = None
        if self.root.current is not self:
            self.root.held.add(self, pointer)

    def _not_sent(
        self, result: int, function: Any, size: int, *ends: tuple[Buffer, int]
    ) -> Exception:
        """Return why C's *function* could not send a reply with *size* bytes of body."""
        if result == MISFRAMED:
            return misframed(self.output_headers, len(self.output_buffer) + size)
        return failure(function, *ends)

    def _check_unbegun(self, function: str) -> None:
        """Raise an error if it has been answered, even in part; an argument may have done that."""
        self.pointer  # noqa: B018  (it may have been answered)
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

    def unanswered(self) -> bool:
        """Tell whether it still waits for an answer, and this process is the one to give it."""
        return not self.closed and self.base.parked is None

    def raised(self, error: BaseException, who: str = "its handler") -> None:
        """Report what *who* has raised, and answer for it unless `EventBase.on_error` has."""
        base = self.base
        base.report(error, self)
        if self.unanswered():
            self.fail(self.ended_by(f"{who} raised {type(error).__name__}", error))

    def fail(self, error: HttpError) -> None:
        """Answer for a handler that can't, for the reason *error*."""
        ending = self._ending()
        if ending is not None:
            ending.error = error
        if not self._state:
            write_at_last(self.base, lib.evhttp_request_get_connection(self.pointer))
        self._sent(lib.evpy_http_abandon, self._answered())

    def ended_by(self, text: str, cause: BaseException | None = None) -> HttpError:
        """Return the error that tells why it has ended without an answer of its user's."""
        return ended_by(named(self), text, cause)

    def _is_on(self, evcon: Any) -> bool:
        """Tell whether it came by C's connection *evcon*."""
        return bool(lib.evhttp_request_get_connection(self.pointer) == evcon)

    def _is_cut(self) -> bool:
        """Tell whether it can't be read any more, as its connection has been closed."""
        connection = None if self.closed else self._known()
        return self.closed or (connection is not None and connection.closed)


#: What a request's class is once it has been answered.
Answered: Any = without_pointer(HttpServerRequest)


def made(base: Any, server: Any, root: Any, pointer: Any) -> HttpServerRequest:
    """Return an object for C's *pointer*, of a request that *root* has got for *server*."""
    request = HttpServerRequest.__new__(HttpServerRequest)
    request.base = base
    request.server = server
    request.root = root
    request.key = request._state = UNANSWERED
    request._input = request._output = request.error = None
    request._on_complete = request._on_chunk = request._on_end = None
    request.sends_files = False if root.plain else None
    request.pointer = pointer
    return request


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


@ffi.def_extern(onerror=errors.kept)
def evpy_http_completed(key: int, pointer: Any) -> int:
    """Return 1 when it is told: with 0, which an interrupt returns, C calls once more."""
    for base in live.bases:
        connection = base.live.get(key)
        if connection is None:
            continue
        reading = connection.reading
        if reading is not None:  # no handler has got it
            code = int(pointer.response_code)
            reading._ends(f"libevent has answered it with {code}")
        if connection.awaiting is not None:
            request, connection.awaiting = connection.awaiting, None
            request.told(pointer, request._on_complete)
        ending = connection.ending
        if ending is not None:
            ending.tell(None)
            if connection.ending is ending:
                connection.ending = None
        if reading is not None:
            if connection.reading is reading:
                connection.reading = None
            reading._end()
        break
    return 1


@ffi.def_extern(onerror=errors.kept)
def evpy_http_part(key: int) -> None:
    for base in live.bases:
        connection = base.live.get(key)
        if connection is not None and connection.reading is not None:
            connection.reading.part_came()
            return
