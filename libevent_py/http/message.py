"""``struct evhttp_request``: what has been asked, and what is answered.

A server's requests are made by libevent, a client's by its user; this is what the two have in
common. Each ends at a moment of its own, and what has been borrowed from it, headers and buffers,
ends with it (P10).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from libevent_py import errors
from libevent_py._core.described import described, known_as
from libevent_py._core.handle import Handle
from libevent_py._core.owner import askable
from libevent_py._core.pointers import keep_for
from libevent_py._ffi import ffi, lib
from libevent_py.buffer.buffer import Buffer
from libevent_py.buffer.callbacks import BufferCallback, BufferInfo
from libevent_py.buffer.deferral import Attached
from libevent_py.buffer.owned import BorrowedBuffer
from libevent_py.enums import HttpCommand
from libevent_py.http.headers import Headers
from libevent_py.http.uri import Uri

#: The methods, by C's number.
COMMANDS = {int(command): command for command in HttpCommand}
#: What CONNECT is to C while it is being refused.
COMMANDS[HttpCommand.CONNECT | HttpCommand.GET] = HttpCommand.CONNECT


@known_as("Buffer")
class RequestBuffer(BorrowedBuffer):
    """A request's own buffer, which ends with it."""

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
        """Raise `ValueError`: libevent counts on changing it."""
        raise ValueError("a request's own buffer can't be frozen")

    unfreeze = freeze

    def _watch(self, callbacks: tuple[BufferCallback, ...]) -> None:
        with self._callable():  # C's entry stays for as long as the request
            Buffer._watch(self, callbacks)

    def _changed(self, info: BufferInfo) -> None:
        Buffer._changed(self, info)

    _told_length = Buffer._told_length

    def _sends_files(self) -> bool:
        owner = self._owner
        if owner._sends_files is None:
            return False
        return bool(self.pointer == lib.evhttp_request_get_output_buffer(owner.pointer))

    lock = Buffer.lock


@described(
    base="The event base in whose loop it is served.",
)
class Request(Handle):
    """What a server's request and a client's have in common."""

    __slots__ = ("_input", "_output", "_sends_files", "base")

    base: Any

    #: Whether what is sent has had files in it, or None where it can't be sent straight from one.
    _sends_files: bool | None

    #: No buffer of a request calls back unless it is watched.
    _calls_back = False

    _input: weakref.ref[RequestBuffer] | None
    _output: weakref.ref[RequestBuffer] | None

    def _begin(self, base: Any, pointer: Any) -> None:
        """Stand for C's *pointer*, of a request that *base*'s loop serves."""
        self.base = base
        self._input = self._output = self._sends_files = None
        self.pointer = pointer

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
        return (base and base.why_unusable(self)) or super()._unusable()

    def lent(self) -> list[Handle]:
        """Return the buffers that have been borrowed and are still held."""
        refs = self._input, self._output
        return [buffer for ref in refs if ref is not None and (buffer := ref()) is not None]

    def _end(self) -> Any:
        """Have no way to C from now on, nor what has been borrowed; return the pointer, or None."""
        if self._input is not None or self._output is not None:
            taken = [buffer._take() for buffer in self.lent()]
            pointer = self._take()
            keep_for(taken, pointer)
            return pointer
        return self._take()

    # What has been asked.

    @property
    def command(self) -> HttpCommand | int:
        """The method, such as GET. Wraps ``evhttp_request_get_command``."""
        number = lib.evhttp_request_get_command(self.pointer)
        return COMMANDS.get(number) or int(number)

    @property
    def uri(self) -> str:
        """What the request line asks for, as it stands there, in Latin-1; "" when there is none.

        Wraps ``evhttp_request_get_uri``.
        """
        return _latin1(lib.evhttp_request_get_uri(self.pointer)) or ""

    @property
    def evhttp_uri(self) -> Uri | None:
        """A copy of the URI in its parts, or None when there is none.

        Wraps ``evhttp_request_get_evhttp_uri``.
        """
        pointer = lib.evhttp_request_get_evhttp_uri(self.pointer)
        return None if pointer == ffi.NULL else Uri.copied(pointer)

    @property
    def host(self) -> str | None:
        """The host that is asked, of the URI or else the header Host, without a port; or None.

        Wraps ``evhttp_request_get_host``.
        """
        host = lib.evpy_http_host(self.pointer)
        if not host and ffi.errno:
            raise errors.failed(lib.evhttp_request_get_host)
        return _latin1(host)

    @property
    def version(self) -> tuple[int, int]:
        """The version of HTTP, major and minor."""
        pointer = self.pointer
        return ord(pointer.major), ord(pointer.minor)

    # What is answered.

    @property
    def response_code(self) -> int:
        """The status code of the response, or 0 when there is none (yet).

        Wraps ``evhttp_request_get_response_code``.
        """
        return int(lib.evhttp_request_get_response_code(self.pointer))

    @property
    def response_code_line(self) -> str | None:
        """The reason phrase of the response, in Latin-1, or None when there is none (yet).

        Wraps ``evhttp_request_get_response_code_line``.
        """
        return _latin1(lib.evhttp_request_get_response_code_line(self.pointer))

    # Both.

    @property
    def input_headers(self) -> Headers:
        """The headers that have come, for as long as the request lasts.

        Wraps ``evhttp_request_get_input_headers``.
        """
        return Headers.borrowed(self, lib.evhttp_request_get_input_headers)

    @property
    def output_headers(self) -> Headers:
        """The headers to be sent, for as long as the request lasts.

        Wraps ``evhttp_request_get_output_headers``.
        """
        return Headers.borrowed(self, lib.evhttp_request_get_output_headers)

    @property
    def input_buffer(self) -> RequestBuffer:
        """The body that has come; it ends with the request.

        Wraps ``evhttp_request_get_input_buffer``.
        """
        self.base.check_thread()
        pointer, lent = self.pointer, self._input
        buffer = None if lent is None else lent()
        if buffer is None:
            buffer = self._lend(lib.evhttp_request_get_input_buffer(pointer))
            self._input = weakref.ref(buffer)
        return buffer

    @property
    def output_buffer(self) -> RequestBuffer:
        """The body to be sent; it ends with the request.

        Wraps ``evhttp_request_get_output_buffer``.
        """
        self.base.check_thread()
        pointer, lent = self.pointer, self._output
        buffer = None if lent is None else lent()
        if buffer is None:
            buffer = self._lend(lib.evhttp_request_get_output_buffer(pointer))
            self._output = weakref.ref(buffer)
        return buffer

    @output_buffer.setter
    def output_buffer(self, buffer: Buffer) -> None:
        if buffer is not self.output_buffer:  # as after +=
            raise AttributeError("the output of a request can't be replaced: add to it")

    def _lend(self, pointer: Any) -> RequestBuffer:
        buffer = RequestBuffer.borrowed(pointer, self)
        assert isinstance(buffer, RequestBuffer)
        return buffer


def _latin1(pointer: Any) -> str | None:
    """Return C's *pointer* to characters as text, or None for NULL."""
    return None if pointer == ffi.NULL else bytes(ffi.string(pointer)).decode("latin-1")
