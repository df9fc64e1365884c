"""Tools for tests of programs that use libevent, and the pytest plugin's inside.

With pytest, use the fixtures, which need no import: `event_base`, `until`, `bad_network` and the
others of the guide to testing. Each of them is an object of one of these classes, which you can use
with any other test framework, too.
"""

from __future__ import annotations

from libevent_py.testing.logged import LibeventLog, LogMessage
from libevent_py.testing.memory import AllocationFailure, Allocations
from libevent_py.testing.network import BadNetwork, Faults
from libevent_py.testing.peers import LocalDnsServer, LocalHttpServer, LocalListener, TlsAuthority
from libevent_py.testing.snapshots import Snapshot
from libevent_py.testing.traces import LibeventTrace, TracedCall
from libevent_py.testing.waiting import Settle, Until

__all__ = [
    "AllocationFailure",
    "Allocations",
    "BadNetwork",
    "Faults",
    "LibeventLog",
    "LibeventTrace",
    "LocalDnsServer",
    "LocalHttpServer",
    "LocalListener",
    "LogMessage",
    "Settle",
    "Snapshot",
    "TlsAuthority",
    "TracedCall",
    "Until",
]
