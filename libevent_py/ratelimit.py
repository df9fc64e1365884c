"""``struct ev_token_bucket_cfg``: how much a bufferevent may read and write in a time."""

from __future__ import annotations

from libevent_py._lifetime import Child


class Limited(Child):
    """What `BufferEvent` has of limits."""

    __slots__ = ()
