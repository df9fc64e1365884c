"""The real libevent 2.1, in Python."""

from libevent_py import _load  # first: it switches libevent's locks on
from libevent_py._ffi import ffi, lib
from libevent_py._load import version, version_number
from libevent_py.base import CommonTimeout, EventBase, EventConfig
from libevent_py.enums import *
from libevent_py.errors import (
    ClosedError,
    ForkError,
    LibeventError,
    ThreadError,
)
from libevent_py.event import Event
from libevent_py.buffer import Buffer
from libevent_py.bufferevent import BufferEvent
from libevent_py.listener import Listener
