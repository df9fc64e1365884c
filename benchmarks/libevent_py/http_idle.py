"""The memory of connections that have been answered and stay open: ``http_idle KIND``."""

import sys

from benchmarks.contender import HELLO, meter, serve
from benchmarks.libevent_py.http_server import listen
from libevent_py import EventBase, HttpServerRequest

left = 0


def answered(request: HttpServerRequest) -> None:
    global left
    left -= 1
    if not left:
        base.loopexit()


def hello(request: HttpServerRequest) -> None:
    request.on_complete = answered
    request.send_reply(200, "OK", HELLO)


def sample(count: int) -> tuple[int, int]:
    global left
    left = count
    before = used()
    base.dispatch()
    return used() - before, count


used = meter(sys.argv[1])
base = EventBase()
server = listen(base, hello)
serve(sample)
