"""How fast the bytes of an HTTP connection come: reading that is paused, and limits.

evhttp enables reading again and again, whatever its user has done to the bufferevent. So a pause is
one more reason for libevent itself to suspend reading, as its watermarks and limits are, and holds
in every state of the connection. Each of those has its own end.
"""

from __future__ import annotations

import contextlib
from typing import Any

from libevent_py._core.handle import Handle, slot
from libevent_py._ffi import lib
from libevent_py.bufferevent.bufferevent import BufferEvent
from libevent_py.bufferevent.limits import RateLimit, RateLimitGroup, checked_group


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
        bev = self._limitable()
        bev._own_limits().set(bev, limit)

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
            bev._limits.leave(bev)
        elif checked_group(bev.base, group) is not bev.rate_limit_group:
            bev._own_limits().join(bev, group)

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
        if limited._limits.group is not None:  # first in C: the group may go with its last member
            with contextlib.suppress(AttributeError):  # closed, or the parent process's
                lib.bufferevent_remove_from_rate_limit_group(slot(limited))
        limited._taken_back()
