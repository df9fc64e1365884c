"""An HTTP server that answers every request with hello.

Made of evhttp_new, evhttp_set_gencb, evhttp_bind_socket_with_handle, evhttp_send_reply,
evhttp_free, evsignal_new, event_base_dispatch and event_base_loopexit.

    python samples/http_hello.py [host [port]]
    curl http://127.0.0.1:8888/
"""

from __future__ import annotations

import signal
import sys

from libevent_py import Event, EventBase, HttpServer, HttpServerRequest


def hello(request: HttpServerRequest) -> None:
    request.send_reply(200, "OK", b"Hello, World!\n")


def main(host: str = "127.0.0.1", port: int | str = 8888) -> None:
    with EventBase() as base:
        server = HttpServer(base)
        server.set_gencb(hello)
        bound = server.bind_socket(host, int(port))
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        print("serving {}:{}, Ctrl-C to stop".format(*bound.address), flush=True)
        base.dispatch()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
