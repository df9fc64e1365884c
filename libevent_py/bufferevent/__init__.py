"""Bufferevents: sockets, pairs, filters and TLS, with rate limits."""

from libevent_py.bufferevent import explain as explain  # registers what is said of them
from libevent_py.bufferevent.bufferevent import BufferEvent as BufferEvent
from libevent_py.bufferevent.limits import RateLimit as RateLimit
from libevent_py.bufferevent.limits import RateLimitGroup as RateLimitGroup
from libevent_py.bufferevent.tls import TlsContext as TlsContext

__all__ = [
    "BufferEvent",
    "RateLimit",
    "RateLimitGroup",
    "TlsContext",
]
