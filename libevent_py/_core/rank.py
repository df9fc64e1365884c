"""In what order a base closes what is made on it."""

from __future__ import annotations

import enum


class Rank(enum.IntEnum):
    """The order in which a base closes the objects made on it, by their class (B2)."""

    #: First, so that draining the loop runs none of their callbacks.
    EVENT = enum.auto()
    #: Then listeners, so that nobody connects while the rest is closed.
    LISTENER = enum.auto()
    #: Calls before the server that received them, which refuses those that are left.
    RPC = enum.auto()
    #: RPC servers and pools before the HTTP server or connections that carry them.
    RPC_END = enum.auto()
    #: HTTP before the bufferevents that were given to it, and before its resolvers.
    HTTP = enum.auto()
    BUFFEREVENT = enum.auto()
    #: Resolvers after everything that looks names up by them.
    DNS = enum.auto()
    #: Deferrals of buffers' callbacks after the bufferevents, which may still change buffers.
    DEFERRAL = enum.auto()
    #: Groups after the bufferevents, or each would have to be moved out of its group.
    GROUP = enum.auto()
