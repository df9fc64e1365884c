"""How fast the bytes of an HTTP connection come: paused reading, and limits.

evhttp enables reading again and again, even if its user has disabled it on the bufferevent. So a
pause uses libevent's own way to suspend reading, as watermarks and limits do, and works in every
state of the connection.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from libevent_py._core.handle import Handle, slot
from libevent_py._ffi import lib
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.limits import RateLimit, RateLimitGroup, checked_group
from libevent_py.event.base import EventBase

if TYPE_CHECKING:
    from libevent_py._ffi import CData


class Pace:
    """Whether a connection is paused, and the bufferevent that has its limits."""

    __slots__ = ("limited", "paused")

    def __init__(self) -> None:
        self.paused: bool = False
        #: The bufferevent, once it has had a limit.
        self.limited: BufferEvent | None = None

    def pause(self, bev: CData) -> None:
        """Read nothing more through C's *bev*."""
        if not self.paused:
            lib.evpy_http_suspend(bev)
            self.paused = True

    def resume(self, bev: CData) -> None:
        """Resume reading through C's *bev*."""
        if self.paused:
            self.paused = False
            lib.evpy_http_unsuspend(bev)

    def limit_by(self, bev: BufferEvent) -> BufferEvent:
        """Note that *bev* has the limits, and return it."""
        self.limited = bev
        return bev

    def forget_limits(self) -> None:
        """Leave the group before C frees the bufferevent."""
        limited, self.limited = self.limited, None
        if limited is None:
            return
        if limited._limits.group is not None:  # C first: the group may end with its last member
            with contextlib.suppress(AttributeError):  # it is closed, or the parent process's
                lib.bufferevent_remove_from_rate_limit_group(slot(limited))
        limited._taken_back()


class Flow(Handle):
    """The pauses and limits of a connection, a client's or a server's; each has a `Pace`."""

    __slots__ = ()

    #: The event base whose loop serves the connection.
    base: EventBase

    _pace: Pace

    @property
    def bufferevent(self) -> BufferEvent:
        """The bufferevent of the connection."""
        raise NotImplementedError

    def _below(self) -> CData:
        """Return C's bufferevent; raises `ClosedError`."""
        return lib.evhttp_connection_get_bufferevent(self.pointer)

    def _if_open(self, bev: BufferEvent) -> BufferEvent:
        """Return *bev*, just made for C's; raises `ClosedError`, and closes it, too.

        Whoever closes the connection while it is made doesn't find it.
        """
        if self.closed:
            bev._taken_back()
        self._check_usable()
        return bev

    # Pausing.

    def pause(self) -> None:
        """Stop reading from the peer until `resume`.

        This works in every state of the connection, and in every callback. What the peer sends
        meanwhile waits in the kernel, and then at the peer. Bytes that libevent has already read,
        at most those of one read, may still be delivered. Writing, connecting and the TLS handshake
        go on.

        While the connection is paused, reading has no timeout, and you don't learn that the peer
        has closed the connection unless there is something to send. A connection that only waits
        for `resume` doesn't keep the loop running. A second call does nothing. Raises
        `ClosedError`, and `ThreadError` in the wrong thread. C has no such function: evhttp reads
        on even if its bufferevent has been disabled.
        """
        self.base._check_thread()
        self._pace.pause(self._below())

    def resume(self) -> None:
        """Read again after `pause`, beginning with what has come meanwhile.

        The timeout for reading starts anew. The loop delivers what has come, not this call. Does
        nothing when the connection isn't paused. Raises `ClosedError`, and `ThreadError` in the
        wrong thread.
        """
        self.base._check_thread()
        self._pace.resume(self._below())

    @property
    def paused(self) -> bool:
        """Whether `pause` has stopped reading; False when the connection is closed."""
        return self._pace.paused and not self.closed

    # Limits.

    @property
    def rate_limit(self) -> RateLimit | None:
        """How fast the connection may read and write, or None for no limit. Default: None.

        All bytes on the wire count, including headers and TLS. Raises the errors of
        `BufferEvent.rate_limit`. Wraps ``bufferevent_set_rate_limit``.
        """
        self._check_usable()  # a closed connection has none
        limited = self._pace.limited
        return None if limited is None else limited.rate_limit

    @rate_limit.setter
    def rate_limit(self, limit: RateLimit | None) -> None:
        bev = self._limitable()
        bev._own_limits().set(bev, limit)

    @property
    def rate_limit_group(self) -> RateLimitGroup | None:
        """The `RateLimitGroup` whose limit the connection shares, or None. Default: None.

        Its own `rate_limit` applies as well. Raises the errors of
        `BufferEvent.add_to_rate_limit_group`.
        Wraps ``bufferevent_add_to_rate_limit_group``, ``bufferevent_remove_from_rate_limit_group``.
        """
        self._check_usable()  # a closed connection is in no group
        limited = self._pace.limited
        return None if limited is None else limited.rate_limit_group

    @rate_limit_group.setter
    def rate_limit_group(self, group: RateLimitGroup | None) -> None:
        bev = self._limitable()
        if group is None:
            bev._limits.leave(bev)
        elif checked_group(bev.base, group) is not bev.rate_limit_group:
            bev._own_limits().join(bev, group)

    def _limitable(self) -> BufferEvent:
        self.base._check_thread()
        self._check_usable()  # a closed connection can have no limit
        return self._pace.limit_by(self.bufferevent)
