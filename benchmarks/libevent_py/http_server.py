"""What servers of HTTP share: every request goes to one handler."""

from collections.abc import Callable

from benchmarks.contender import say_port
from libevent_py import EventBase, HttpServer, HttpServerRequest


def listen(base: EventBase, handler: Callable[[HttpServerRequest], object]) -> HttpServer:
    """Return the server, which listens on an ephemeral loopback port, and say which."""
    server = HttpServer(base)
    server.set_gencb(handler)
    say_port(server.bind_socket("127.0.0.1", 0).port)
    return server
