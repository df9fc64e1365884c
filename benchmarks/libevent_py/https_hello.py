""" "Hello, World!" over HTTPS, on the certificate and the key of a file: ``https_hello PEM``."""

import sys

from benchmarks.contender import HELLO
from benchmarks.libevent_py.http_server import listen
from libevent_py import EventBase, HttpServerRequest, TlsContext


def hello(request: HttpServerRequest) -> None:
    request.send_reply(200, "OK", HELLO)


pem = sys.argv[1]
base = EventBase()
server = listen(base, hello)
server.tls = TlsContext(server_side=True, certfile=pem, keyfile=pem)
base.dispatch()
