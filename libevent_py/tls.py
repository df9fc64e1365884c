"""``bufferevent_ssl.h``: bufferevents that speak TLS."""

from __future__ import annotations

import os

from libevent_py.ratelimit import Limited


class Secured(Limited):
    """What `BufferEvent` has of TLS."""

    __slots__ = ()

    def why_failed(self, code: int) -> OSError | None:
        """Return what an ERROR event is about; *code* is the errno that came with it."""
        return OSError(code, os.strerror(code)) if code else None
