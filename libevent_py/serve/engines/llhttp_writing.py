"""What a connection of the default engine sends: answers, refusals, and its end.

*Writing.* Inside the callback that reads, output is only kept: it is sent when the callback
returns, the answers to pipelined requests together, the last of them as what it returns. Elsewhere,
as an application answers late, the socket is tried at once, and libevent gets what the kernel
doesn't take. TLS always goes through libevent.

*Room.* `_unsent` is at least as much as there is unsent: it is only counted when it seems too much,
or before the socket is tried. A client that doesn't read its answers is sent no more of them, nor
is anything more parsed, and an application that sends is told by `Exchange.send`. Both go on when
all is sent, and a client that takes nothing for as long as `write_timeout` is given up.

*Upgrades.* After the answer to an upgrade both sides send what they like: `go_raw` says so to
whoever reads.

*Ends.* An answer is sent before the connection is closed. If the client may still be sending, its
input is read and dropped for a while, as the kernel would otherwise reset the connection, and the
client might lose the answer.
"""

from __future__ import annotations

import contextlib
import os
import socket
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from libevent_py._core.sockets import lent
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.serve.engines.llhttp_checks import REASONS
from libevent_py.serve.framing import head

if TYPE_CHECKING:
    from collections import deque
    from typing import Any

    from libevent_py.serve.engines.llhttp import LlhttpEngine
    from libevent_py.serve.engines.llhttp_exchange import LlhttpExchange

#: How much output is kept before `Exchange.send` returns False.
UNSENT = 65536
#: How long, in seconds, a connection is read that is only waiting for the client to close it.
LINGER = 2.0
#: How long a client may take for its first request when the worker ends.
FIRST = 0.5


class Writing(ABC):
    """The half of a `Connection` that sends. The other half, which reads, makes all its state."""

    _engine: LlhttpEngine
    _bev: BufferEvent
    fd: int
    scheme: str
    deadline: float
    _current: LlhttpExchange | None
    _queue: deque[LlhttpExchange]
    _incoming: LlhttpExchange | None
    _rest: Any
    _refusal: int
    _in_head: bool
    _answer: bytes | None
    _unsent: int
    _closed: bool
    _inside: bool
    _advancing: bool
    _draining: bool
    _lingering: bool
    _paused: bool
    _ended: bool
    _torn: bool
    _raw: bool

    @abstractmethod
    def advance(self) -> None:
        """Do what can be done next."""

    @abstractmethod
    def set_deadline(self) -> None:
        """Note when the client has to have done what it is to do next."""

    @abstractmethod
    def _pause(self, wanted: bool) -> None:
        """Stop reading, or go on."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection at once."""

    # Output.

    def write(self, data: bytes) -> None:
        """Send *data*, now or soon."""
        if self._closed:
            return
        size = len(data)
        if self._inside:
            self._unsent += size
            if self._answer is not None:
                self._send_answer()
            self._answer = data
            return
        if self.scheme == "http":
            if self._unsent:
                self._unsent = len(self._bev.output)
            if not self._unsent:
                try:
                    done = os.write(self.fd, data)
                except OSError:  # libevent gets the same error, and tells
                    done = 0
                if done == size:
                    return
                data = data[done:]
                size -= done
        self._unsent += size
        self._bev.write(data)

    def _send_answer(self) -> None:
        """Have libevent send what `_on_data` would have returned."""
        if self._answer is not None:
            answer, self._answer = self._answer, None
            self._bev.write(answer)

    def has_room(self) -> bool:
        """Tell whether more may be written now; otherwise `on_writable` will be called."""
        if self._unsent <= UNSENT or self._closed:
            return True
        self._send_answer()
        self._unsent = len(self._bev.output)
        if self._unsent <= UNSENT:
            return True
        self._draining = True
        self._bev.on_write = self._on_write
        self.set_deadline()
        return False

    def _on_write(self, bev: BufferEvent) -> None:
        """Go on when all output is sent."""
        self._unsent = 0
        if self._lingering:
            self._part()
            return
        current = self._current
        if self._draining:
            self._draining = False
            bev.on_write = None
            self.set_deadline()
            if current is None:
                self.advance()
            elif current._begun:
                current.handler.on_writable()

    def _refuse(self, status: int) -> None:
        """Answer with an error, and close."""
        text = b"%d %b\n" % (status, REASONS.get(status, b"Refused"))
        headers = [(b"Content-Type", b"text/plain")]
        data, *_ = head("GET", "1.1", False, status, headers, None, len(text))
        self.write(data + text)
        self._shut()

    def go_raw(self, data: bytes) -> None:
        """Pass on what comes as it is, from now on, after sending *data*."""
        self._raw = True
        self.write(data)
        self.set_deadline()
        if not self._advancing:
            self.advance()

    # The end.

    def finish(self) -> None:
        """Close when what is in flight is done, as the worker ends."""
        current = self._current
        if current is not None:
            current._keep_alive = False
            if self._raw:
                current.handler.on_finish()
        elif self._lingering or self._in_head:
            pass
        elif self._incoming is None:  # its first request may be on the way
            self.deadline = min(self.deadline, self._engine.now + FIRST)
        else:
            self._shut()

    def _shut(self) -> None:
        """Close when all output is sent."""
        if self._closed or self._lingering:
            return
        self._lingering = True
        self._torn = self._torn or bool(self._rest)
        self._rest = b""
        self._refusal = 0
        self._send_answer()
        self._unsent = len(self._bev.output)
        if self._unsent:
            self._draining = True
            self.deadline = self._engine.now + self._engine.config.write_timeout
            self._bev.on_write = self._on_write
        else:
            self._part()

    def _part(self) -> None:
        """Close, if need be after the client has."""
        self._draining = False
        incoming = self._incoming
        torn = self._torn or self._in_head or (incoming is not None and not incoming.complete)
        if self._ended or not torn:
            if self._engine.tls is not None and not len(self._bev.output):
                self._bev.shutdown()
            self.close()
            return
        self.deadline = self._engine.now + LINGER
        self._bev.on_write = None
        if self._engine.tls is not None:
            self._bev.shutdown()
        with contextlib.suppress(OSError):  # the client has gone
            half_close(self.fd)
        if self._paused:
            self._pause(False)


def half_close(fd: int) -> None:
    """Tell the peer of the socket *fd* that nothing more will be sent."""
    with lent(fd) as sock:
        sock.shutdown(socket.SHUT_WR)
