"""Event bases with their loops, and events."""

from libevent_py.event import asked as asked  # sets a signal's handler if it is asked for
from libevent_py.event.base import EventBase as EventBase
from libevent_py.event.common_timeout import CommonTimeout as CommonTimeout
from libevent_py.event.config import EventConfig as EventConfig
from libevent_py.event.event import Event as Event

__all__ = [
    "CommonTimeout",
    "Event",
    "EventBase",
    "EventConfig",
]
