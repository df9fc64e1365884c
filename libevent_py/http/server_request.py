"""A server's request: how it is read, handled and answered, once.

C may free its request at any time once it has been answered, without notice (O3, O4). So every
reply takes the pointer out of the object first.
"""

from __future__ import annotations

import functools
import re
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.described import described
from libevent_py._core.dispatch import next_key
from libevent_py._core.frames import is_used
from libevent_py._core.handle import with_pointer, without_pointer
from libevent_py._core.owner import get_ident
from libevent_py._core.pointers import copied
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.buffer import Buffer
from libevent_py.buffer.failure import FRONT, failure
from libevent_py.errors import HttpError
from libevent_py.event.base import EventBase
from libevent_py.http.at_last import free_orphan, note_end, write_at_last
from libevent_py.http.end import GONE, Ending, ended_by, named
from libevent_py.http.framing import MISFRAMED, misframed
from libevent_py.http.headers import Headers, Pairs, Text
from libevent_py.http.packed import (
    MISNAMED,
    HttpRequestSnapshot,
    checked,
    packed,
    snapshot_of,
    texts_of,
)
from libevent_py.http.request import Body, Request
from libevent_py.http.server_connection import HttpServerConnection, address_of

if TYPE_CHECKING:
    from libevent_py._ffi import CData, Given
    from libevent_py.http.server import HttpServer

#: How far a reply has come; a request that is READING can't be answered yet.
UNANSWERED, STARTED, ANSWERED, READING = range(4)

#: What C returns for a request that has no connection any more, and that we have to free.
ORPHAN = lib.EVPY_ORPHAN

#: The reason phrases used so far, as C takes them; for None libevent chooses.
_reasons: dict[str | None, bytes | CData] = {None: ffi.NULL}

#: The largest chunk in bytes: libevent has 32 bits for its size.
LARGEST_CHUNK = 2**32 - 1

# Looked up once, for what is called for every request.
reply: Final = lib.evpy_http_reply
reply_with: Final = lib.evpy_http_reply_with


@described(
    error="Why the request has ended without its complete answer, as an `HttpError`, or None; "
    "set before `on_end` is called.",
    server="The `HttpServer` whose handler got the request, which may be a virtual host.",
)
class HttpServerRequest(Request):
    """A request that a server has received: answer it in the handler or later.

    Answer with `send_reply`, or with `send_reply_start`, `send_reply_chunk` and `send_reply_end`.
    An answered request is closed, and so are the headers and buffers borrowed from it. If you drop
    a request without answering it, the client gets 500; if you drop it when its answer has begun,
    the connection is cut, so that the client sees that the answer isn't complete. `on_end` is
    called when a request ends.
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

    #: The server that has accepted the connection.
    _root: HttpServer

    #: How far the answer has come.
    _state: int

    error: HttpError | None

    #: Its key in `Requests.waiting` while it waits for an answer, or 0.
    _key: int

    _on_chunk: HttpHandler | None
    _on_complete: HttpHandler | None
    _on_end: HttpHandler | None

    def __init__(self) -> None:
        """Raise `TypeError`: only an `HttpServer` makes requests."""
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

    # The client.

    @property
    def peer(self) -> tuple[str, int]:
        """The client's address as libevent knows it: a numeric host and a port."""
        self.base._check_thread()
        pointer = self.pointer
        return convert.text(pointer.remote_host), int(pointer.remote_port)

    @property
    def connection(self) -> HttpServerConnection | None:
        """The connection that the request came by, or None when it has ended.

        Without a connection nobody gets the answer. libevent notices that a client has gone only
        once the answer has begun. Wraps ``evhttp_request_get_connection``. Stands for
        ``evhttp_connection_get_server``.
        """
        self.base._check_thread()
        evcon = lib.evhttp_request_get_connection(self.pointer)
        if not evcon:
            return None
        connection = self._root._connections.at(self._root, evcon)
        self._check_usable()  # other code may have closed the server since
        return connection

    def snapshot(self) -> HttpRequestSnapshot:
        """Return all that the client has sent, copied in one call of C.

        It stays valid after the answer. The body is what `input_buffer` has, which keeps it: with
        `on_chunk`, a part or nothing. Where you need most of it, this is faster than asking for
        each. Wraps ``evhttp_request_get_input_headers``.
        """
        self.base._check_thread()
        return snapshot_of(self.pointer)

    # The answer.

    def send_reply(
        self, code: int, reason: str | None = None, body: Body = b"", headers: Pairs = ()
    ) -> None:
        """Answer with the status *code*, from 200 to 999, its *reason*, *body* and *headers*.

        With None for *reason* libevent chooses the phrase. *body* is bytes, any object with the
        buffer protocol, or a `Buffer`, which is emptied without copying. It follows what has been
        added to `output_buffer`. With the header Transfer-Encoding, which can only be "chunked",
        the body is sent as one chunk to a client that knows chunks. *headers*, a mapping or pairs,
        are added to `output_headers` as if by `Headers.add`, all in one call of C, and only if the
        answer can be sent.

        Unlike in C, the body is not sent if the reply must have none, for instance to HEAD: the
        client would take it for the next reply. The headers still say its length. When the client
        has gone, nothing happens.

        Requests that a client sends without waiting are answered one after the other, even if it
        has closed its half of the connection. But as in C, a client that closes its half while a
        reply is being written counts as gone: it gets only what its socket has taken.

        Raises `ClosedError` when the request has been answered, `RuntimeError` after
        `send_reply_start`, and `ValueError` for a *reason* that isn't one line of Latin-1, for a
        code below 200, which would be no answer, for a header that `Headers.add` would refuse, and
        for headers that don't fit the body, such as a wrong Content-Length.
        Wraps ``evhttp_send_reply``.
        """
        base = self.base
        inside = base._thread == get_ident()
        if not inside:
            base._check_thread()
        if type(code) is not int or not 200 <= code <= 999:
            code = convert.integer(code, "code", 200, 999)
        text = _reasons[reason] if reason in _reasons else _phrase(reason)
        texts: list[Text] = []
        octets, room, pairs = b"", 0, 0
        if headers:
            texts = texts_of(headers)
            octets = packed(texts)
            room, pairs = len(octets), len(texts) // 2
        if type(body) is bytes and inside:
            self.pointer  # noqa: B018  (hot: `_check_unbegun`)
            if self._state:
                raise self._begun("send_reply")
            pointer, size, result = self.pointer, len(body), 0
            waiting = self._settled()
            if self.__class__ is Answered:  # other code has ended it
                raise self._unusable()
            if self._state:  # or begun
                raise self._begun("send_reply")
            try:  # hot: as in `_sent`
                self._state = ANSWERED  # no call from here to C's
                if self._key in waiting:
                    del waiting[self._key]
                self._key = 0
                del self.pointer
                self.__class__ = Answered
                if pairs:
                    result = reply_with(pointer, code, text, body, size, octets, room, pairs)
                else:
                    result = reply(pointer, code, text, body, size)
                if result:
                    self._unsent(pointer, UNANSWERED)
            except (AttributeError, KeyError):  # other code has just ended it, and C has freed it
                raise self._unusable() from None
            except BaseException:  # an interrupt
                self._unsent(pointer, UNANSWERED)
                raise
            if result and result != ORPHAN:
                raise self._not_sent(result, texts, size)
            return
        function: Callable[..., int] = lib.evpy_http_reply_buffer
        arguments: tuple[object, ...]
        if isinstance(body, Buffer):
            body._check_changeable()
            size, arguments = len(body), (body.pointer,)
        else:
            function, arguments = reply_with, convert.octets(body, "body")
            size = arguments[1]
        arguments += octets, room, pairs
        self._check_unbegun("send_reply")
        if result := base._call(self._sent, UNANSWERED, function, code, text, *arguments):
            raise self._not_sent(result, texts, size, *_ends(body))

    def send_error(self, code: int, reason: str | None = None) -> None:
        """Answer with an error page made by libevent, and close the connection.

        *code* and *reason* are as for `send_reply`. The page contains *reason* unescaped, so never
        put a client's input into it. Headers that have been set, and what has been added to
        `output_buffer`, are dropped. Raises the same errors. Wraps ``evhttp_send_error``.
        """
        self.base._check_thread()
        code = convert.integer(code, "code", 200, 999)
        text = _reasons[reason] if reason in _reasons else _phrase(reason)
        self._check_unbegun("send_error")
        self.base._call(self._sent, UNANSWERED, lib.evpy_http_reply_error, code, text)

    def send_reply_start(self, code: int, reason: str | None = None) -> None:
        """Begin an answer with the status *code*; send the body with `send_reply_chunk`.

        `send_reply_end` completes it. *code* and *reason* are as for `send_reply`. What has been
        added to `output_buffer` is the first chunk. With the header Content-Length all chunks
        together must have that length. Without it, an HTTP/1.1 client gets chunks; for any other
        client the body ends when the connection is closed, even if it has asked to keep the
        connection open. Raises the same errors as `send_reply`. Wraps ``evhttp_send_reply_start``.
        """
        self.base._check_thread()
        code = convert.integer(code, "code", 200, 999)
        text = _reasons[reason] if reason in _reasons else _phrase(reason)
        self._check_unbegun("send_reply_start")
        result = self.base._call(self._start, self.pointer, code, text)
        if result:
            raise self._not_sent(result, [], 0, function=lib.evhttp_send_reply_start)

    def _start(self, pointer: CData, code: int, text: Given) -> int:
        """Begin the reply, as `_sent` ends it."""
        start = lib.evpy_http_reply_start
        if self.__class__ is Answered:  # other code has ended it
            raise self._unusable()
        if self._state:  # or begun
            raise self._begun("send_reply_start")
        try:
            self._state = STARTED  # no call from here to the next line
            result = int(start(pointer, code, text))
        finally:
            if lib.evpy_http_outcome(pointer):
                self._state = UNANSWERED
        return -2 if result == -1 else result

    def send_reply_chunk(self, data: Body, callback: HttpHandler | None = None) -> bool:
        """Send *data* as the next part of the body; return whether the client was still there.

        *data* is bytes, any object with the buffer protocol, or a `Buffer`, which is emptied.
        Nothing is sent when the client has gone, as in C; when *data* is empty, which would mark
        the end; and when the reply must have no body.

        ``callback(request)`` is called when everything sent so far has been written. If you send
        the next part then, only as much is in memory as the client can take. It isn't called if
        another chunk or the end is sent before that, or if the client goes. Until then it keeps the
        request alive.

        Raises `RuntimeError` before `send_reply_start`, `ClosedError` after `send_reply_end`, and
        `ValueError` for more than the reply's Content-Length. Wraps
        ``evhttp_send_reply_chunk_with_cb``. Stands for ``evhttp_send_reply_chunk``.
        """
        self.base._check_thread()
        if callback is not None:
            convert.callback(callback)
        arguments: tuple[object, ...]
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
        sent = self.base._call(self._add, function, pointer, *arguments, called, key)
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
        elif connection is not None and callback is not None:  # nothing was sent, so C won't call
            self.base.defer(self._passed_over, callback)
        return bool(lib.evhttp_request_get_connection(pointer))

    def _add(self, function: Callable[..., int], *arguments: object) -> int:
        """Send a part by *function*, unless other code has ended the reply since it was asked."""
        if self._state == STARTED:  # no call from here to the next line
            result = function(*arguments)
            return -2 if result == -1 else result  # for which `errors.call` would look at errno
        self._check_usable()
        raise self._not_begun("send_reply_chunk")

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

        Raises `RuntimeError` before `send_reply_start`, when C would send nothing at all, and
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
            connection._writing = None  # C won't call it any more
        if lib.evpy_http_ends_at_once(pointer) and self._is_used():
            self._end_when_clean(copied(pointer))
        else:
            self.base._call(self._sent, STARTED, lib.evpy_http_reply_end)

    def _is_used(self) -> bool:
        """Tell whether a signal handler, or a finalizer, has come in the middle of a method."""
        things: list[object] = [self, self._root, *self._lent()]
        connection = self._known()
        if connection is not None:
            things += [connection, *connection._lent()]
        return is_used(things, sys._getframe(1))

    def _end_when_clean(self, pointer: CData) -> None:
        """End the reply where no method can be using the connection, which C may free (O4)."""
        base, kept = self.base, [pointer]
        note = note_end(base, kept)
        try:
            note()
            base._call(self._sent, STARTED, lib.evpy_http_keep)
        except BaseException as error:  # other code has ended it, or an interrupt came before
            if isinstance(error, errors.ClosedError) or self.__class__ is not Answered:
                kept.clear()
            raise
        finally:
            base._wake()

    @property
    def on_complete(self) -> HttpHandler | None:
        """The function called as ``on_complete(request)`` when the answer is written, or None.

        Inside it the request can be asked once more, for instance for a log, but not answered. It
        isn't called if the client has gone before. Wraps ``evhttp_request_set_on_complete_cb``.
        """
        return self._on_complete

    @on_complete.setter
    def on_complete(self, callback: HttpHandler | None) -> None:
        self.base._check_thread()
        self._check_usable()  # raises if the request is answered
        self._on_complete = None if callback is None else convert.callback(callback, "on_complete")

    # The body, in parts.

    @property
    def on_chunk(self) -> HttpHandler | None:
        """The function called as ``on_chunk(request)`` for each part of the body, or None.

        Set it in `HttpServer.on_headers`; otherwise the body is collected in `input_buffer`, as in
        C. The part is in `input_buffer`, and is discarded after the callback. For a chunked body a
        part is one chunk, or a part of a chunk that is longer than 64 KiB. The handler is called
        when the whole body has come; the input buffer is empty then. `HttpServerConnection.pause`
        makes the client wait.

        If the callback raises, the rest of the body is discarded, and the client gets 500. Setting
        it raises `RuntimeError` once the body has come.
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
        """Call `on_chunk` for a part of the body, which is discarded afterwards in any case."""
        if self._on_chunk is not None and self.error is None:
            try:
                self._on_chunk(self)
            except BaseException as error:
                try:
                    self._cannot_read("on_chunk", error)
                except BaseException as interrupt:
                    self._interrupted("on_chunk", interrupt)

    def _cannot_read(self, who: str, error: BaseException) -> None:
        """Discard the rest of the body and let the client get 500, as *who* has raised."""
        if not self.closed:
            self.error = self._ended_by(f"{who} raised {type(error).__name__}", error)
            lib.evpy_http_take_chunks(self.pointer)
        self.base._report(error, self)

    def _interrupted(self, who: str, interrupt: BaseException) -> None:
        """Go on with `_cannot_read` after an *interrupt*, which must not have C call once more."""
        if self.error is None:
            self._cannot_read(who, interrupt)
        else:
            errors.keep(interrupt)

    def _tell_headers(self) -> None:
        """Call the server's `HttpServer.on_headers` for the request."""
        callback = self._root._on_headers
        if callback is not None:
            try:
                callback(self)
            except BaseException as error:
                try:
                    self._cannot_read("on_headers", error)
                except BaseException as interrupt:
                    self._interrupted("on_headers", interrupt)

    # How it ends.

    @property
    def on_end(self) -> HttpHandler | None:
        """The function called as ``on_end(request)``, once, however the request ends; or None.

        If `error` is None, the whole answer has been written. Otherwise `error` says why not: the
        client has gone or was idle for too long; the connection, the server or the base was closed;
        the handler has raised; the request was closed or dropped; or libevent itself has answered,
        for instance with 413. libevent notices that a client has gone only while it reads from or
        writes to the connection, and not while the connection is paused.

        Inside it the request can be asked once more, for instance for a log, but not answered. If
        the request has been dropped, the callback gets another object for it. If the client has
        gone before the answer was complete, the request stays open afterwards, and may still be
        answered, though nobody gets that answer.

        It isn't called when the garbage collector frees the base together with everything made on
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
            lib.evpy_http_await(pointer, connection._watched())

    def _ends(self, text: str, cause: BaseException | None = None) -> None:
        """Note for `on_end` why the user won't answer."""
        ending = self._ending()
        if ending is not None:
            ending.fails(text, cause)

    def _ending(self) -> Ending | None:
        connection = None if self._on_end is None else self._known()
        return None if connection is None else connection._ending

    def _ended_with(self, error: HttpError | None) -> None:
        """Note that *error* is why the user hasn't answered; None if the answer is complete."""
        self.error = error

    def _told(self, pointer: CData, callback: HttpHandler, *, last: bool = False) -> None:
        """Call *callback*, with C's *pointer* in the slot meanwhile.

        With *last*, the request can't be answered any more, nor asked afterwards.
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
        """Give the request up as if it were dropped; if it has been answered, do nothing.

        The client gets 500. If the answer has begun, the connection is cut; if the body is still
        coming, the connection is closed. Wraps ``evhttp_send_error``.
        """
        if self.closed or self._state == ANSWERED:
            return
        self.base._check_thread()
        self._ends("it was closed before its answer was complete")
        if self._state == READING:
            connection = self.connection
            if connection is not None:  # None if other code has closed it in between
                connection.close()
        else:
            self.base._call(self._sent, None, lib.evpy_http_abandon)

    def _settled(self) -> dict[int, Any]:
        """Prepare for a reply that C is about to send; return the requests that wait for one."""
        pointer = self.pointer
        if self._on_complete is not None:
            connection = self.connection
            if connection is not None:
                connection._awaiting = self
                lib.evpy_http_await(pointer, connection._watched())
        if self._input is not None or self._output is not None:
            for buffer in self._lent():
                buffer._take()
            self._input = self._output = None
        return self._root._requests.waiting

    def _sent(self, state: int | None, function: Callable[..., int], *arguments: object) -> int:
        """Become closed as C's *function* ends the request; return 0, or below 0 if it can't.

        It must be in *state*, if that isn't None: other code may have begun its answer since.
        """
        pointer, waiting = self.pointer, self._settled()
        if self.__class__ is Answered:  # other code has ended it
            raise self._unusable()
        if state is None:
            state = self._state
        elif state != self._state:
            raise self._begun("send_reply")
        key, entry = self._key, None
        try:
            self._state = ANSWERED  # no call from here to C's: without it, nobody would answer
            if key in waiting:
                entry = waiting[key]
                del waiting[key]
            del self.pointer  # what `_take` does
            self.__class__ = Answered
            self._key = 0
            result = function(pointer, *arguments)
            if result:
                self._unsent(pointer, state)
        except (AttributeError, KeyError):  # other code has just ended it
            if entry is not None and self._key:  # and has closed the server, which frees it
                waiting[key] = entry
            raise self._unusable() from None
        except BaseException:  # an interrupt
            self._unsent(pointer, state)
            raise
        if result == ORPHAN:
            return 0
        return -2 if result == -1 else result  # for which `errors.call` would look at errno

    def _unsent(self, pointer: CData, state: int) -> None:
        """Free what libevent won't, or put back what it could not send, to *state*.

        After what it could send, or once more after an interrupt, it does nothing.
        """
        outcome = lib.evpy_http_outcome(pointer)
        if outcome == ORPHAN:
            free_orphan(self.base, pointer)
        if outcome == ORPHAN or not outcome:
            return
        if self.__class__ is Answered:
            open_again: Any = with_pointer(Answered)
            waiting, key = self._root._requests.waiting, 0
            if not self._key and self._root._requests.current is not self:
                key, entry = self._entry(pointer)
            try:  # a server that other code has closed meanwhile has freed it
                self._root.pointer  # noqa: B018  (hot: not by a call, which may be interrupted)
            except errors.ClosedError:
                return
            if key:  # no call from here on
                waiting[key] = entry
                self._key = key
            self._state = state
            self.__class__ = open_again
            self.pointer = pointer
        connection = self._known()
        if connection is not None:
            connection._awaiting = None

    def _entry(self, pointer: CData) -> tuple[int, tuple[weakref.ref[HttpServerRequest], CData]]:
        """Return a key, and what `Requests.waiting` has by it while it waits for its answer."""
        key = next_key()
        ref = weakref.ref(self, functools.partial(self._root._requests.dropped, key))
        return key, (ref, copied(pointer))  # a copy, so that it doesn't count as in use

    def _wait(self, pointer: CData) -> None:
        """Wait for the user's answer; if the user drops the request, it is answered with 500."""
        key, entry = self._entry(pointer)
        self._root._requests.waiting[key] = entry
        self._key = key

    def _not_sent(
        self,
        result: int,
        texts: list[Text],
        size: int,
        *ends: tuple[Buffer, int],
        function: Callable[..., object] = lib.evhttp_send_reply,
    ) -> Exception:
        """Return why *function* could not send *size* bytes of body and the headers *texts*."""
        if result == MISNAMED:
            checked(texts)  # raises the error
        if result == MISFRAMED:
            headers = Headers([*self.output_headers.items(), *checked(texts)])
            return misframed(headers, len(self.output_buffer) + size)
        return failure(function, *ends)

    def _check_unbegun(self, function: str) -> None:
        """Raise an error if it has been answered, even in part, as an argument's code may do."""
        self.pointer  # noqa: B018  (hot: raises if it has been answered)
        if self._state:
            raise self._begun(function)

    def _begun(self, function: str) -> RuntimeError:
        why = "after send_reply_start(): end that one"
        return RuntimeError(f"{function}() was called {self._too_early_or_late() or why}")

    def _not_begun(self, function: str) -> RuntimeError:
        why = "before send_reply_start()"
        return RuntimeError(f"{function}() was called {self._too_early_or_late() or why}")

    def _too_early_or_late(self) -> str | None:
        """Return why it can't be answered now at all, or None."""
        if self._state == READING:
            return "before the whole body has come: answer in the handler, or later"
        return "after the request has ended" if self._state == ANSWERED else None

    def _is_waiting(self) -> bool:
        """Tell whether it still waits for an answer that this process has to give."""
        return not self.closed and not self.base._forked

    def _raised(self, error: BaseException, who: str = "its handler") -> None:
        """Report what *who* has raised, and answer unless `EventBase.on_error` has answered."""
        base = self.base
        base._report(error, self)
        if self._is_waiting():
            self._fail(self._ended_by(f"{who} raised {type(error).__name__}", error))

    def _fail(self, error: HttpError) -> None:
        """Answer with 500 for a handler that failed with *error*."""
        ending = self._ending()
        if ending is not None:
            ending.failed(error)
        if not self._state:
            write_at_last(self.base, lib.evhttp_request_get_connection(self.pointer))
        self._sent(None, lib.evpy_http_abandon)

    def _ended_by(self, text: str, cause: BaseException | None = None) -> HttpError:
        """Return the error that says why it has ended without an answer by the user."""
        return ended_by(named(self), text, cause)

    def _is_on(self, evcon: CData) -> bool:
        """Tell whether it came by C's connection *evcon*."""
        return bool(lib.evhttp_request_get_connection(self.pointer) == evcon)

    def _is_cut(self) -> bool:
        """Tell whether its connection has been closed, so that it can't be read any more."""
        connection = None if self.closed else self._known()
        return self.closed or (connection is not None and connection.closed)


#: What a server has called for a request, or as it goes on: ``callback(request)``.
HttpHandler: TypeAlias = Callable[[HttpServerRequest], object]

#: The class that a request gets once it has been answered.
Answered: Final = without_pointer(HttpServerRequest)


def made(
    base: EventBase, server: HttpServer, root: HttpServer, pointer: CData
) -> HttpServerRequest:
    """Return an object for C's request *pointer*, which *root* received for *server*."""
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


def _ends(body: Body) -> list[tuple[Buffer, int]]:
    """Return the end of *body* that may be frozen, for `failure`."""
    return [(body, FRONT)] if isinstance(body, Buffer) else []


def _phrase(reason: str | None) -> bytes:
    """Return a reason phrase for C, or raise an error if it could end the line (Q4)."""
    if not isinstance(reason, str):
        raise TypeError(f"reason must be str, not {reason!r}")
    if re.fullmatch("[\t\x20-\x7e\xa0-\xff]*", reason) is None:
        raise ValueError(f"reason must be one line of Latin-1, not {reason!r}")
    encoded = reason.encode("latin-1")
    if len(_reasons) < 256:  # few programs have more phrases than that
        _reasons[reason] = encoded
    return encoded
