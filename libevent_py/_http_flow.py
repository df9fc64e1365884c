"""How fast the bytes of an HTTP connection come: reading that is paused, limits, bodies in parts.

evhttp enables reading again and again, whatever its user has done to the bufferevent. So a pause is
one more reason for libevent itself to suspend reading, as its watermarks and limits are, and holds
in every state of the connection. Each of those has its own end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from libevent_py import _convert
from libevent_py._ffi import lib
from libevent_py._handle import Handle, slot
from libevent_py._octets import FRONT, failure
from libevent_py.buffer import Buffer
from libevent_py.bufferevent import BufferEvent
from libevent_py.enums import HttpCommand
from libevent_py.ratelimit import RateLimit, RateLimitGroup

#: How a request's body is framed that is sent in parts, by C's numbers; WHOLE is one that isn't.
WHOLE, LENGTH, CHUNKED = range(3)


class Flow(Handle):
    """What a client's connection and a server's have of pausing and of limits."""

    __slots__ = ()

    #: The event base in whose loop it is served.
    base: Any

    _paused: bool

    #: The bufferevent, once it has had a limit: it knows which.
    _limited: BufferEvent | None

    @property
    def bufferevent(self) -> BufferEvent:
        """The bufferevent that it goes through."""
        raise NotImplementedError

    def _below(self) -> Any:
        """Return C's bufferevent; raises `ClosedError`."""
        return lib.evhttp_connection_get_bufferevent(self.pointer)

    # Pausing.

    def pause(self) -> None:
        """Read no more from the peer until `resume`, in whatever state the connection is.

        What the peer sends then waits in the kernel, and at last with the peer. What has been read
        by then, which is no more than libevent reads at once, may still be handed out. Sending goes
        on, and so does a connection that is being made, with its TLS handshake. Meanwhile reading
        has no timeout, nobody learns that the peer has closed the connection unless there is
        something to send, and a connection that only waits for `resume` doesn't keep the loop
        going. A second time does nothing; any callback may do so. Raises `ClosedError`, and
        `ThreadError` in a wrong thread. C has nothing like it: evhttp goes on reading though its
        bufferevent has been disabled.
        """
        self.base.check_thread()
        bev = self._below()
        if not self._paused:
            lib.evpy_http_suspend(bev)
            self._paused = True  # type: ignore[misc]  # each of those has the slot

    def resume(self) -> None:
        """Read on after `pause`: what has come meanwhile, too, and the end of the connection.

        The timeout of reading begins anew. When it isn't paused, nothing happens. What has come is
        handed out by the loop, not inside this call. Raises `ClosedError`, and `ThreadError` in a
        wrong thread.
        """
        self.base.check_thread()
        bev = self._below()
        if self._paused:
            self._paused = False  # type: ignore[misc]
            lib.evpy_http_unsuspend(bev)

    @property
    def paused(self) -> bool:
        """Whether reading is paused, by `pause`; it is not when the connection is closed."""
        return self._paused and not self.closed

    # Limits.

    @property
    def rate_limit(self) -> RateLimit | None:
        """How fast it may read and write, as a `RateLimit`, or None, as at first, for any speed.

        Bytes are counted as on the wire: lines, headers and TLS's own, too. Raises as
        `BufferEvent.set_rate_limit` does. Wraps ``bufferevent_set_rate_limit``.
        """
        self.pointer  # noqa: B018  (what is closed has none)
        return None if self._limited is None else self._limited.rate_limit

    @rate_limit.setter
    def rate_limit(self, limit: RateLimit | None) -> None:
        self._limitable()._limit(limit)

    @property
    def rate_limit_group(self) -> RateLimitGroup | None:
        """The `RateLimitGroup` whose limit it shares with the other members, or None, as at first.

        A limit of its own counts, too. Raises as `BufferEvent.add_to_rate_limit_group` does.
        Wraps ``bufferevent_add_to_rate_limit_group``, ``bufferevent_remove_from_rate_limit_group``.
        """
        self.pointer  # noqa: B018  (what is closed is a member of none)
        return None if self._limited is None else self._limited.rate_limit_group

    @rate_limit_group.setter
    def rate_limit_group(self, group: RateLimitGroup | None) -> None:
        bev = self._limitable()
        if group is None:
            bev._quit()
            return
        bev._check_group(group)
        if group is not bev.rate_limit_group:
            bev._join(group)

    def _limitable(self) -> BufferEvent:
        self.base.check_thread()
        self.pointer  # noqa: B018  (what is closed has no limit)
        self._limited = self.bufferevent  # type: ignore[misc]
        return self._limited

    def _forget_limits(self) -> None:
        """Leave the group, as C frees the bufferevent."""
        limited, self._limited = self._limited, None  # type: ignore[misc]
        if limited is None:
            return
        if limited._group is not None:  # first in C: the group may go with its last member
            with contextlib.suppress(AttributeError):  # closed, or the parent process's
                lib.bufferevent_remove_from_rate_limit_group(slot(limited))
        limited.taken_back()


# A client's body, in parts.


def framed(request: Any, command: HttpCommand) -> tuple[int, int | None]:
    """Return how the body of *request* is framed, and how many bytes are to come, if that is known.

    Nobody else can add to it then. Raises `ValueError` for a method that has no body, and for
    headers that don't go with one that is sent in parts.
    """
    if command in (HttpCommand.CONNECT, HttpCommand.TRACE):
        raise ValueError(f"{command.name} must have no body: there is none in HTTP")
    framing = _framed(request)
    lib.evpy_client_freeze(request.pointer, True)
    return framing


def _framed(request: Any) -> tuple[int, int | None]:
    if request.output_buffer:
        raise ValueError("output_buffer must be empty where the body is sent in on_write")
    headers = request.output_headers
    if "Expect" in headers:
        raise ValueError("output_headers must have no Expect where the body is sent in on_write")
    lengths, codings = headers.get_all("Content-Length"), headers.get_all("Transfer-Encoding")
    if lengths and codings:
        raise ValueError("output_headers must not have Content-Length and Transfer-Encoding")
    if lengths:
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise ValueError(f"Content-Length must be one number of bytes, not {lengths!r}")
        return LENGTH, int(lengths[0])
    if not codings:
        headers["Transfer-Encoding"] = "chunked"
    elif [coding.lower() for coding in codings] != ["chunked"]:
        raise ValueError(f"Transfer-Encoding must be chunked, not {codings!r}")
    return CHUNKED, None


def sender(data: Any) -> tuple[Callable[..., Any], tuple[Any, ...], int]:
    """Return what sends *data*, what for, and how many bytes that are."""
    if isinstance(data, Buffer):
        return lib.evpy_client_send_buffer, (data.pointer,), len(data)
    octets = _convert.octets(data)
    return lib.evpy_client_send, octets, octets[1]


def result_of(function: Callable[..., Any], *arguments: Any) -> int:
    """Call *function*, and return -2 where it fails with -1: `errors.call` would ask errno why."""
    result = int(function(*arguments))
    return -2 if result == -1 else result


def unsent(data: Any) -> Exception:
    """Return the exception for a part of a body that C could not take."""
    ends = [(data, FRONT)] if isinstance(data, Buffer) else []
    return failure(lib.evbuffer_add_buffer, *ends)
