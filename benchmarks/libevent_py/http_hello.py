""" "Hello, World!" over HTTP: ``http_hello [changelist]``."""

import sys

from benchmarks.contender import HELLO
from benchmarks.libevent_py.http_server import listen
from libevent_py import EventBase, EventBaseFlag, EventConfig, HttpServerRequest


def hello(request: HttpServerRequest) -> None:
    request.send_reply(200, "OK", HELLO)


flags = EventBaseFlag.EPOLL_USE_CHANGELIST if "changelist" in sys.argv else EventBaseFlag(0)
base = EventBase(EventConfig(flags=flags))
server = listen(base, hello)
base.dispatch()
