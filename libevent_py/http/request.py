"""``struct evhttp_request``: what all requests have in common, and a client's requests.

libevent makes a server's requests, the user makes a client's. `Request` is the common base class;
`HttpServerRequest` has its own module. The headers and buffers that a request lends end with it
(P10).
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

from libevent_py import errors
from libevent_py._core import convert
from libevent_py._core.convert import Octets
from libevent_py._core.described import described, known_as
from libevent_py._core.dispatch import NOT_CALLED, from_c, keep_late, next_key
from libevent_py._core.frames import tells
from libevent_py._core.handle import Fresh, Handle
from libevent_py._core.owner import askable
from libevent_py._core.pointers import keep_for, new_owned
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.buffer import Buffer
from libevent_py.buffer.callbacks import BufferCallback, BufferInfo
from libevent_py.buffer.deferral import Attached
from libevent_py.buffer.failure import FRONT, failure, result_of
from libevent_py.buffer.owned import BorrowedBuffer
from libevent_py.enums import HttpCommand, HttpRequestError
from libevent_py.errors import HttpError
from libevent_py.event.base import EventBase
from libevent_py.http.framing import MISFRAMED, WHOLE, in_parts, misframed
from libevent_py.http.headers import Headers
from libevent_py.http.uri import Uri

if TYPE_CHECKING:
    from libevent_py._ffi import Arguments, CData, Result, Unpack
    from libevent_py.http.client import HttpConnection

#: What a request calls as it goes on, and once in the end: ``callback(request)``.
HttpRequestCallback: TypeAlias = Callable[["HttpRequest"], object]

#: What is told why a request has failed, as ``on_error(request, code)``.
HttpErrorCallback: TypeAlias = Callable[["HttpRequest", HttpRequestError], object]

#: What is told of 103 Early Hints and the like, as ``on_informational(request, code, headers)``.
HttpInformationalCallback: TypeAlias = Callable[["HttpRequest", int, Headers], object]

#: The methods, by C's number.
COMMANDS = {int(command): command for command in HttpCommand}
#: C's number for a CONNECT that is being refused.
COMMANDS[HttpCommand.CONNECT | HttpCommand.GET] = HttpCommand.CONNECT

#: How many informational responses (1xx) one request may get before its answer.
MOST_INFORMATIONAL = 100

#: Characters that would end the URI in the request line, or the line.
_FORBIDDEN = re.compile(rb"[\x00-\x20\x7f]")

# Looked up once, for code that runs for every request.
frame: Final = lib.evpy_client_frame
NO_BODY = lib.EVPY_NO_BODY


@known_as("Buffer")
class RequestBuffer(BorrowedBuffer):
    """A request's own buffer, which ends with the request."""

    __slots__ = ()

    pointer = Attached.pointer

    @property
    def closed(self) -> bool:
        """Whether the request has ended."""
        return self._owner is None or bool(self._owner.closed)

    def close(self) -> None:
        """Raise `ValueError`: the request frees it."""
        raise ValueError("a request's own buffer ends with the request")

    def freeze(self, at_front: bool) -> None:
        """Raise `ValueError`: libevent must be able to change the buffer."""
        raise ValueError("a request's own buffer can't be frozen")

    unfreeze = freeze

    def _watch(self, callbacks: tuple[BufferCallback, ...]) -> None:
        with self._callable():  # C's callback entry stays as long as the request does
            Buffer._watch(self, callbacks)

    def _changed(self, info: BufferInfo, left: list[BufferCallback]) -> None:
        Buffer._changed(self, info, left)

    _told_length = Buffer._told_length

    def _sends_files(self) -> bool:
        owner = self._owner
        if owner._sends_files is None:
            return False
        return bool(self.pointer == lib.evhttp_request_get_output_buffer(owner.pointer))

    lock = Buffer.lock


#: What may be given as a body, or a part of one: a `Buffer` is emptied.
Body: TypeAlias = Octets | Buffer


@described(
    base="The event base whose loop serves the request.",
)
class Request(Handle):
    """A request, made by a client or received by a server, and its response."""

    __slots__ = ("_input", "_output", "_sends_files", "base")

    base: EventBase

    #: Whether the output has had files in it; None if it can't be sent straight from a file.
    _sends_files: bool | None

    #: No buffer of a request calls back unless it is watched.
    _calls_back = False

    _input: weakref.ref[Buffer] | None
    _output: weakref.ref[Buffer] | None

    def _begin(self, base: EventBase, pointer: CData) -> None:
        """Become the object for C's *pointer*, a request that *base*'s loop serves."""
        self.base = base
        self._input = self._output = self._sends_files = None
        self.pointer = pointer

    def _note_file(self) -> None:
        """Know that what is sent may have bytes that are not in memory from now on."""
        self._sends_files = True

    def _may_ask(self) -> bool:
        return askable(self.base)

    def _facts(self, ask: bool) -> Iterator[str]:
        if ask:
            command = self.command
            if not isinstance(command, HttpCommand):
                yield "no command"
            else:
                yield f"{command.names} {self.uri!r}"

    def _unusable(self) -> Exception:
        base = self.base
        return (base and base._why_unusable(self)) or super()._unusable()

    def _lent(self) -> list[Handle]:
        """Return the borrowed buffers that still exist."""
        refs = self._input, self._output
        return [buffer for ref in refs if ref is not None and (buffer := ref()) is not None]

    def _end(self) -> CData | None:
        """Become closed, together with the borrowed buffers; return the pointer, or None."""
        if self._input is not None or self._output is not None:
            taken = [buffer._take() for buffer in self._lent()]
            pointer = self._take()
            keep_for(taken, pointer)
            return pointer
        return self._take()

    # The request line.

    @property
    def command(self) -> HttpCommand | int:
        """The method, such as GET. Wraps ``evhttp_request_get_command``."""
        self.base._check_thread()
        number = lib.evhttp_request_get_command(self.pointer)
        return COMMANDS.get(number) or int(number)

    @property
    def uri(self) -> str:
        """The URI of the request line, unchanged, as text in Latin-1; "" when there is none.

        Wraps ``evhttp_request_get_uri``.
        """
        self.base._check_thread()
        return _latin1(lib.evhttp_request_get_uri(self.pointer)) or ""

    @property
    def evhttp_uri(self) -> Uri | None:
        """A copy of the URI as a `Uri`, or None when there is none.

        Wraps ``evhttp_request_get_evhttp_uri``.
        """
        self.base._check_thread()
        pointer = lib.evhttp_request_get_evhttp_uri(self.pointer)
        return None if pointer == ffi.NULL else Uri._copied(pointer)

    @property
    def host(self) -> str | None:
        """The host, without a port, from the URI or else the header Host; or None.

        Wraps ``evhttp_request_get_host``.
        """
        self.base._check_thread()
        host = lib.evpy_http_host(self.pointer)
        if not host and ffi.errno:
            raise errors.failed(lib.evhttp_request_get_host)
        return _latin1(host)

    @property
    def version(self) -> tuple[int, int]:
        """The version of HTTP: major and minor."""
        self.base._check_thread()
        pointer = self.pointer
        return ord(pointer.major), ord(pointer.minor)

    # The response.

    @property
    def response_code(self) -> int:
        """The status code of the response, or 0 when there is none (yet).

        Wraps ``evhttp_request_get_response_code``.
        """
        self.base._check_thread()
        return int(lib.evhttp_request_get_response_code(self.pointer))

    @property
    def response_code_line(self) -> str | None:
        """The reason phrase of the response, in Latin-1, or None when there is none (yet).

        Wraps ``evhttp_request_get_response_code_line``.
        """
        self.base._check_thread()
        return _latin1(lib.evhttp_request_get_response_code_line(self.pointer))

    # Headers and bodies.

    @property
    def input_headers(self) -> Headers:
        """The headers that have been received; they end with the request.

        Wraps ``evhttp_request_get_input_headers``.
        """
        return Headers._borrowed(self, lib.evhttp_request_get_input_headers)

    @property
    def output_headers(self) -> Headers:
        """The headers to be sent; they end with the request.

        Wraps ``evhttp_request_get_output_headers``.
        """
        return Headers._borrowed(self, lib.evhttp_request_get_output_headers)

    @property
    def input_buffer(self) -> Buffer:
        """The body that has been received; it ends with the request.

        Wraps ``evhttp_request_get_input_buffer``.
        """
        self.base._check_thread()
        lent, pointer = self._input, self.pointer  # last, as it raises if the request is closed
        buffer = None if lent is None else lent()
        if buffer is None:
            buffer = self._lend(lib.evhttp_request_get_input_buffer(pointer))
            ref = weakref.ref(buffer)
            if self._input is not lent:  # other code has made one meanwhile
                return self.input_buffer
            self._input = ref
        return buffer

    @property
    def output_buffer(self) -> Buffer:
        """The body to be sent; it ends with the request.

        Wraps ``evhttp_request_get_output_buffer``.
        """
        self.base._check_thread()
        lent, pointer = self._output, self.pointer  # last, as it raises if the request is closed
        buffer = None if lent is None else lent()
        if buffer is None:
            buffer = self._lend(lib.evhttp_request_get_output_buffer(pointer))
            ref = weakref.ref(buffer)
            if self._output is not lent:  # other code has made one meanwhile
                return self.output_buffer
            self._output = ref
        return buffer

    @output_buffer.setter
    def output_buffer(self, buffer: Buffer) -> None:
        if buffer is not self.output_buffer:  # it is after +=
            if isinstance(buffer, Buffer):  # unless a signal handler has tried to answer amid that
                buffer._check_usable()
            raise AttributeError("the output of a request can't be replaced: add to it")

    def _lend(self, pointer: CData) -> Buffer:
        buffer = RequestBuffer._borrowed(pointer, self)
        assert isinstance(buffer, RequestBuffer)
        return buffer


def _latin1(pointer: CData) -> str | None:
    """Return C's *pointer* to characters as text, or None for NULL."""
    return None if pointer == ffi.NULL else bytes(ffi.string(pointer)).decode("latin-1")


class _Nowhere:
    """The event base of a request that has not been made on a connection yet."""

    closed = False
    _forked = False

    @staticmethod
    def _check_thread() -> None:
        """Do nothing: any thread may fill in a request."""

    @staticmethod
    def _may_call(_key: int, _thing: object) -> None:
        """Do nothing: C can't call it."""

    @staticmethod
    def _may_not_call(_key: int) -> None:
        """Do nothing: C can't call it."""

    @staticmethod
    def _why_unusable(_handle: Handle) -> None:
        """Return None: no fork has made it unusable."""

    @staticmethod
    def _call(
        function: Callable[[Unpack[Arguments]], Result], *arguments: Unpack[Arguments]
    ) -> Result:
        """Enter C by *function*."""
        return errors.call(function, *arguments)


@known_as("Buffer")
class ClientBuffer(RequestBuffer):
    """A buffer of a client's request, which its user may drop."""

    __slots__ = ()

    def _watch(self, callbacks: tuple[BufferCallback, ...]) -> None:
        self._owner._watched[self._key] = self
        Buffer._watch(self, callbacks)


@described(
    error="Why there is no complete response, as an `HttpError`, or None.",
)
class HttpRequest(Request, Fresh):
    """A request that a client makes once, on one connection, and its response.

    Dropping a request that was never given to `HttpConnection.make_request` causes a
    `ResourceWarning`, which ``python -X dev`` shows.

    Unlike in C, extensions of the response's chunks, as in ``5;name=value``, are ignored. Trailer
    fields are dropped. A response whose headers leave it unclear where the body ends fails with
    INVALID_HEADER. If a response may have left unread bytes on the connection, the next request
    gets a new one.
    """

    __slots__ = (
        "_asked",
        "_callback",
        "_cancelled",
        "_code",
        "_connection",
        "_framing",
        "_informed",
        "_key",
        "_left",
        "_on_chunk",
        "_on_error",
        "_on_header",
        "_on_informational",
        "_on_write",
        "_open",
        "_refused",
        "_tried",
        "_untold",
        "_watched",
        "error",
    )

    base: EventBase
    error: HttpError | None

    def __init__(
        self,
        callback: HttpRequestCallback,
        *,
        on_header: HttpRequestCallback | None = None,
        on_chunk: HttpRequestCallback | None = None,
        on_error: HttpErrorCallback | None = None,
        on_informational: HttpInformationalCallback | None = None,
        on_write: HttpRequestCallback | None = None,
    ) -> None:
        """Make a request, to be filled in and given to `HttpConnection.make_request`.

        Whatever happens then, ``callback(request)`` is called once: with a response, or with
        `error` set. As in C, no header Host is added, although HTTP/1.1 requires one.

        ``on_header(request)`` is called when the response's headers have come. If it returns False
        or raises, the request fails with EOF.

        ``on_chunk(request)`` is called for each part of the body, which is in `input_buffer` and is
        discarded afterwards. For a chunked body a part is one complete chunk or, unlike in C, a
        part of a chunk that is longer than 64 KiB. `HttpConnection.pause` makes the server wait.

        ``on_error(request, code)`` is called before *callback* if libevent gives a reason.

        ``on_informational(request, code, headers)`` is called for each informational response that
        comes before the response itself, such as 100 Continue or 103 Early Hints. If it raises, the
        request fails. In C the header callback gets the code 100, and any other 1xx is taken for
        the response.

        With *on_write* you send the body in parts, so that only as much of it is in memory as the
        server can take. ``on_write(request)`` is called whenever all output has been written, first
        after the request's headers. Call `send_request_chunk` then, and `send_request_end` at the
        end. If it raises, the request is cancelled. The header Content-Length says how long the
        body will be; without it, chunks are sent. C has no such callback.
        Wraps ``evhttp_request_new``, ``evhttp_request_set_header_cb``,
        ``evhttp_request_set_chunked_cb``, ``evhttp_request_set_error_cb``.
        """
        self._check_unmade()
        self._callback = convert.callback(callback)
        given = {
            "on_header": on_header,
            "on_chunk": on_chunk,
            "on_error": on_error,
            "on_informational": on_informational,
            "on_write": on_write,
        }
        for name, other in given.items():
            if other is not None:
                convert.callback(other, name)
        self._on_header, self._on_chunk, self._on_error = on_header, on_chunk, on_error
        self._on_informational, self._on_write = on_informational, on_write
        #: How many informational responses have come, and why the response is refused, or "".
        self._informed, self._refused = 0, ""
        #: How the body is framed, whether more of it is to come, and how many bytes, or None.
        self._framing, self._open = WHOLE, on_write is not None
        self._left: int | None = None
        self._connection: HttpConnection | None = None
        #: How many callbacks are still to be called, as it has ended: `_finish` counts down.
        self._untold = 0
        self._asked: tuple[HttpCommand, bytes] | None = None
        self._cancelled = self._tried = False
        self._code: int | None = None
        self.error = None
        self._key = next_key()
        #: The buffers that have callbacks, by key, kept alive as long as the request.
        self._watched: dict[int, Buffer] = {}
        called = on_header is not None, on_chunk is not None
        free, make = lib.evhttp_request_free, lib.evpy_client_request_new
        made = new_owned(free, make, self._key, *called)
        self._begin(_Nowhere(), made)  # type: ignore[arg-type]  # until there is a base

    def _complaint(self) -> str:
        """Return the warning for a request that is dropped without an attempt to send it."""
        if self._tried or type(self).__init__ is not HttpRequest.__init__:
            return ""  # a subclass's __init__ may have raised, so that nobody ever had the request
        return f"{self!r} has been dropped: call HttpConnection.make_request() with it"

    def _may_ask(self) -> bool:
        return self._connection is None or super()._may_ask()

    def _facts(self, ask: bool) -> Iterator[str]:
        if self._asked is None:
            yield "never made"
            return
        command, uri = self._asked
        yield f"{command.names} {uri.decode('latin-1')!r}"
        if self._connection is not None:
            yield "to {}:{}, under way".format(*self._connection._address)
        elif self.error is not None:
            yield f"failed: {self.error}"
        elif ask:
            yield f"answered {lib.evhttp_request_get_response_code(self.pointer)}"

    @property
    def connection(self) -> HttpConnection | None:
        """The connection that the request was made on, until its callback is called; or None.

        Wraps ``evhttp_request_get_connection``.
        """
        return self._connection

    def _enqueue(self, connection: HttpConnection, command: int, uri: str | bytes) -> None:
        """Wait to be sent on *connection*, as `HttpConnection.make_request` says."""
        self._tried = True
        base = connection.base
        base._check_thread()
        connection.pointer  # noqa: B018  (hot: a closed connection can't send)
        base.pointer  # noqa: B018  (hot: nor one that is being closed with its base)
        self.pointer  # noqa: B018  (hot: a closed request can't be sent)
        if self._asked is not None:
            raise RuntimeError("this HttpRequest has been made already: make another one")
        asked = _command(command), _target(uri)
        if self._on_write is not None:
            self._frame_parts(asked[0])
        elif result := frame(self.pointer, asked[0]):
            raise self._unframed(result, asked[0])
        connection.pointer  # noqa: B018  (hot: the arguments' own code may have closed what it was)
        base.pointer  # noqa: B018  (hot: as above)
        self.pointer  # noqa: B018  (hot: as above)
        waiting = connection._queue.waiting
        if self._asked is not None:  # other code has made it meanwhile
            raise RuntimeError("this HttpRequest has been made already: make another one")
        self._asked, self._connection, self.base = asked, connection, base
        waiting.append(self)  # no call in between: a request with a connection is in its queue

    def _unframed(self, result: int, command: HttpCommand) -> Exception:
        """Return the exception that says why its body can't be framed."""
        if result == MISFRAMED:
            return misframed(self.output_headers, len(self.output_buffer))
        if result == NO_BODY:
            return ValueError(f"{command.name} must have no body: HTTP doesn't allow one")
        return MemoryError("evhttp_make_request: there is no memory for it")

    def _frame_parts(self, command: HttpCommand) -> None:
        """Note how its body, which is sent in parts, is framed, and freeze the output buffer."""
        if command in (HttpCommand.CONNECT, HttpCommand.TRACE):
            raise ValueError(f"{command.name} must have no body: HTTP doesn't allow one")
        if self.output_buffer:
            raise ValueError("output_buffer must be empty when the body is sent in on_write")
        framing, left = in_parts(self.output_headers)
        lib.evpy_client_freeze(self.pointer, True)
        self._framing, self._left = framing, left

    def cancel(self) -> None:
        """Cancel the request; unlike in C, its callback is called, with the code REQUEST_CANCEL.

        If the request is being sent or received already, its connection ends too, and the next
        request makes a new one. Inside a callback this happens soon afterwards, and none of the
        request's callbacks is called in between. Does nothing for a request that has ended or was
        never made. Wraps ``evhttp_cancel_request``.
        """
        connection = self._connection
        if connection is None:
            return
        connection.base._check_thread()
        if not connection.closed:
            connection._check_usable()  # after a fork the request is the parent's
        self._cancelled = True
        if not connection.closed:  # a closed one is about to end all of its requests
            connection._queue.cancel(connection, self)

    # A body in parts.

    def _check_open(self, function: str) -> None:
        """Raise `RuntimeError` if no part of the body can be sent now."""
        self.base._check_thread()
        if self._on_write is None:
            raise RuntimeError(f"{function}() is only for an HttpRequest made with on_write")
        if self._asked is None:
            raise RuntimeError(f"{function}() was called before make_request()")
        if not self._open:
            raise RuntimeError(f"{function}() was called after send_request_end()")

    def send_request_chunk(self, data: Body) -> bool:
        """Send *data*, the next part of the body; return whether it is being sent.

        The request must be made with ``on_write``. *data* is bytes, any object with the buffer
        protocol, or a `Buffer`, which is emptied. What the server doesn't take stays in memory, so
        wait for ``on_write`` before you send the next part.

        Nothing is sent when the request has ended, when *data* is empty, or when the server has
        already answered with a status of 300 or more. In the last case the rest of the body isn't
        sent, and the connection ends with the response. Any other answer is read once the body has
        been sent. The connection's timeout counts from the last byte that the server has taken,
        even while you have not sent the next part.

        Raises `RuntimeError` before `HttpConnection.make_request` and after `send_request_end`,
        `ValueError` for more than Content-Length says.
        """
        self._check_open("send_request_chunk")
        send, arguments, size = _sender(data)
        connection = self._connection
        if connection is None:
            return False
        _held, link = connection.pointer, connection._link  # the pointer keeps the link alive
        if self._left is not None and size > self._left:
            raise ValueError(f"data must have at most the {self._left} bytes left, not {size}")
        if size == 0:
            return False
        pointer = self.pointer
        sent = self.base._call(result_of, send, link, pointer, self._framing, *arguments)
        if sent < 0:
            raise _unsent(data)
        if self._left is not None and sent:
            self._left -= size
        return bool(sent)

    def send_request_end(self) -> None:
        """Complete the body; when the request has ended, do nothing.

        Raises `RuntimeError` before `HttpConnection.make_request` and a second time, `ValueError`
        when Content-Length says that more is to come: if you have no more, `cancel` the request.
        """
        self._check_open("send_request_end")
        connection = self._connection
        if connection is not None:
            _held, link = connection.pointer, connection._link  # the pointer keeps the link alive
            pointer = self.pointer
            if self._left and not lib.evpy_client_answered(link, pointer):
                raise ValueError(f"the body is {self._left} bytes shorter than its Content-Length")
            if lib.evpy_client_send_end(link, pointer, self._framing) < 0:
                raise _unsent(None)
        self._open = False

    # What its connection calls.

    def _has_informed(self, code: int, verdict: list[int]) -> None:
        """Call `on_informational`; *verdict* is 0 unless that, or too many of them, ends it."""
        if self._informed == MOST_INFORMATIONAL:
            self._refused = f"more than {MOST_INFORMATIONAL} informational responses have come"
            return
        told = not self._cancelled and self._on_informational is not None
        headers = Headers._received(self.input_headers) if told else None
        self._informed += 1  # no call from here to the callback's own
        try:
            if headers is not None:
                self._on_informational(self, code, headers)  # type: ignore[misc]
            connection = self._connection
            if connection is not None and connection._queue.current is self:
                verdict[0] = 0
        except BaseException as error:
            try:
                self.base._report(error, self)
            except BaseException as interrupt:
                errors.keep(interrupt)

    @tells
    def _finish(self, error: HttpError | None) -> None:
        """Call the user's callbacks, once, when the request has ended.

        After an interrupt it may be called again, and goes on where it was.
        """
        connection = self._connection
        if connection is not None:
            self.error = error
            connection._queue.release(self)
            if not self.closed:
                lib.evpy_client_freeze(self.pointer, False)
            self._untold = 2
            self._connection = None
        try:
            if self._untold == 2:
                self._untold = 1
                if error is not None and error.code is not None and self._on_error is not None:
                    self._on_error(self, HttpRequestError(error.code))
        except BaseException as raised:
            self.base._report(raised, self)
        if self.base._forked:  # the callback has forked, and this is the child
            return
        try:
            if self._untold == 1:
                self._untold = 0
                self._callback(self)
        except BaseException as raised:
            self.base._report(raised, self)

    def _lend(self, pointer: CData) -> Buffer:
        buffer = ClientBuffer._borrowed(pointer, self)
        assert isinstance(buffer, RequestBuffer)
        return buffer

    def close(self) -> None:
        """Cancel the request if it is under way, and free it; a second time does nothing.

        Without it, the last reference frees the request. Wraps ``evhttp_request_free``.
        """
        if not self.closed:
            self.base._check_thread()
            self.cancel()
            self._end()


def _command(command: int) -> HttpCommand:
    known = convert.flags(HttpCommand, command, "command")
    if known not in tuple(HttpCommand):
        raise ValueError(f"command must be one of HttpCommand, not {known!r}")
    return known


def _target(uri: str | bytes) -> bytes:
    """Return *uri* encoded for the request line, or raise an error that says what is wrong (Q4)."""
    target = convert.string(uri, "uri")
    if not target or _FORBIDDEN.search(target):
        raise ValueError(f"uri must have no spaces or control characters, not {uri!r}")
    return target


def _sender(data: Body) -> tuple[Callable[..., int], tuple[object, ...], int]:
    """Return the C function that sends *data*, its arguments, and the number of bytes."""
    if isinstance(data, Buffer):
        data._check_changeable()
        return lib.evpy_client_send_buffer, (data.pointer,), len(data)
    octets = convert.octets(data)
    return lib.evpy_client_send, octets, octets[1]


def _unsent(data: Body | None) -> Exception:
    """Return the exception for a part of a body that C could not take."""
    ends = [(data, FRONT)] if isinstance(data, Buffer) else []
    return failure(lib.evbuffer_add_buffer, *ends)


# What C calls.


@from_c(late=-1, raised=NOT_CALLED, forked=0)
def evpy_client_informed(request: HttpRequest, code: int) -> int:
    verdict = [-1]
    try:
        request._has_informed(code, verdict)
    except BaseException as interrupt:
        keep_late(interrupt, HttpRequest._has_informed)
    return verdict[0]


# These return 1 when they are done: with 0, which an interrupt returns, C calls once more.


@from_c(late=1, raised=0, forked=1)
def evpy_client_refused(request: HttpRequest, reason: CData) -> int:
    request._refused = convert.text(reason)
    return 1


@from_c(late=1, raised=0, forked=1)
def evpy_client_chunk(request: HttpRequest) -> int:
    on_chunk = request._on_chunk
    if not request._cancelled and on_chunk is not None:
        try:
            on_chunk(request)
        except BaseException as error:
            try:
                request.base._report(error, request)
            except BaseException as interrupt:
                errors.keep(interrupt)
    return 1


@from_c(late=1, raised=0, forked=1)
def evpy_client_ready(request: HttpRequest) -> int:
    on_write = request._on_write
    if not request._cancelled and on_write is not None:
        try:
            on_write(request)
        except BaseException as error:  # nobody will send the rest
            try:
                request.base._report(error, request)
                request.cancel()
            except BaseException as interrupt:
                errors.keep(interrupt)
                request.cancel()
    return 1


@from_c(late=1, raised=0, forked=1)
def evpy_client_error(request: HttpRequest, code: int) -> int:
    request._code = code
    return 1
