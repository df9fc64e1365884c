"""A server that reads a whole request, and answers with four headers: ``http_headers [single]``.

With ``single`` each header and each part of the request takes a call of its own.
"""

import sys

from benchmarks.contender import HELLO
from benchmarks.libevent_py.http_server import listen
from libevent_py import EventBase, HttpServerRequest

HEADERS = [
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Content-Length", str(len(HELLO))),
    ("Cache-Control", "no-store"),
    ("Set-Cookie", "session=0123456789abcdef; Path=/; HttpOnly"),
]


def whole(request: HttpServerRequest) -> None:
    asked = request.snapshot()
    assert not asked.body and asked.headers
    request.send_reply(200, "OK", HELLO, HEADERS)


def single(request: HttpServerRequest) -> None:
    asked = (request.command, request.uri, request.version, request.peer)
    assert asked and request.input_headers.items() and not request.input_buffer.remove()
    headers = request.output_headers
    for name, value in HEADERS:
        headers.add(name, value)
    request.send_reply(200, "OK", HELLO)


base = EventBase()
server = listen(base, single if "single" in sys.argv else whole)
base.dispatch()
