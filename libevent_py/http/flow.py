"""How fast the bytes of an HTTP connection come: paused reading, and limits.

evhttp enables reading again and again, whatever its user has done to the bufferevent. So a pause is
one more reason for libevent itself to suspend reading, as its watermarks and limits are, and holds
in every state of the connection.
"""

from __future__ import annotations

import contextlib
from typing import Any

from libevent_py._core.handle import Handle, slot
from libevent_py._ffi import lib
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.limits import RateLimit, RateLimitGroup, checked_group
from libevent_py.event.base import EventBase


class Pace:
    """Whether a connection is paused, and what knows its limits."""

    __slots__ = ("limited", "paused")

    def __init__(self) -> None:
        self.paused = False
        #: The bufferevent, once it has had a limit.
        self.limited: BufferEvent | None = None

    def pause(self, bev: Any) -> None:
        """Read nothing more through C's *bev*."""
        if not self.paused:
            lib.evpy_http_suspend(bev)
            self.paused = True

    def resume(self, bev: Any) -> None:
        """Read again through C's *bev*."""
        if self.paused:
            self.paused = False
            lib.evpy_http_unsuspend(bev)

    def limit_by(self, bev: BufferEvent) -> BufferEvent:
        """Note that *bev* is what has the limits, and return it."""
        self.limited = bev
        return bev

    def forget_limits(self) -> None:
        """Leave the group, as C frees the bufferevent."""
        limited, self.limited = self.limited, None
        if limited is None:
            return
        if limited._limits.group is not None:  # first in C: the group may go with its last member
            with contextlib.suppress(AttributeError):  # closed, or the parent process's
                lib.bufferevent_remove_from_rate_limit_group(slot(limited))
        limited._taken_back()


class Flow(Handle):
    """The pauses and limits of a client's connection or a server's, each of which has a `Pace`."""

    __slots__ = ()

    #: The event base in whose loop it is served.
    base: EventBase

    _pace: Pace

    @property
    def bufferevent(self) -> BufferEvent:
        """The bufferevent of the connection."""
        raise NotImplementedError

    def _below(self) -> Any:
        """Return C's bufferevent; raises `ClosedError`."""
        return lib.evhttp_connection_get_bufferevent(self.pointer)

    # Pausing.

    def pause(self) -> None:
        """Stop reading from the peer until `resume`.

        This works in every state of the connection, and in every callback. What the peer sends
        meanwhile waits in the kernel, and in the end at the peer. What has been read before, at
        most what libevent reads at once, may still be handed out. Writing goes on, and so do
        connecting and the TLS handshake.

        While the connection is paused, reading has no timeout, and nobody learns that the peer has
        closed the connection unless there is something to send. A connection that only waits for
        `resume` doesn't keep the loop running. A second call does nothing. Raises `ClosedError`,
        and `ThreadError` in a wrong thread. C has nothing like it: evhttp reads on even if its
        bufferevent has been disabled.
        """
        self.base._check_thread()
        self._pace.pause(self._below())

    def resume(self) -> None:
        """Read again after `pause`, beginning with what has come meanwhile.

        The timeout of reading starts anew. The loop hands out what has come, not this call. Does
        nothing when the connection isn't paused. Raises `ClosedError`, and `ThreadError` in a
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

        All bytes on the wire count, those of headers and of TLS too. Raises the errors of
        `BufferEvent.set_rate_limit`. Wraps ``bufferevent_set_rate_limit``.
        """
        self._check_usable()  # what is closed has none
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
        self._check_usable()  # what is closed is a member of none
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
        self._check_usable()  # what is closed has no limit
        return self._pace.limit_by(self.bufferevent)
