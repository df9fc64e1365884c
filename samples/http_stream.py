"""An HTTP server whose answer never ends: it counts, for as long as the client listens.

The next numbers are made when the client has got the last ones, so a client that reads slowly, or
not at all, costs no memory. A client that takes nothing for ten seconds is disconnected.

Made of evhttp_new, evhttp_set_gencb, evhttp_set_timeout, evhttp_bind_socket_with_handle,
evhttp_send_reply_start, evhttp_send_reply_chunk_with_cb, evhttp_request_get_output_headers,
evhttp_free, evsignal_new, event_base_dispatch and event_base_loopexit.

    python samples/http_stream.py [host [port [timeout in seconds]]]
    curl -N http://127.0.0.1:8888/ | less
"""

from __future__ import annotations

import signal
import sys

from libevent_py import Event, EventBase, HttpCommand, HttpServer, HttpServerRequest

#: How many numbers are sent at once.
MANY = 10_000


def count(request: HttpServerRequest) -> None:
    first = 1

    def on_sent(request: object) -> None:
        send_more()

    def send_more() -> None:
        nonlocal first
        numbers = range(first, first + MANY)
        first += MANY
        request.send_reply_chunk("".join(f"{n}\n" for n in numbers).encode(), on_sent)

    request.output_headers["Content-Type"] = "text/plain"
    request.send_reply_start(200, "OK")
    if request.command == HttpCommand.HEAD:
        request.send_reply_end()
    else:
        send_more()


def main(host: str = "127.0.0.1", port: int | str = 8888, timeout: float | str = 10.0) -> None:
    with EventBase() as base:
        server = HttpServer(base)
        server.timeout = float(timeout)
        server.set_gencb(count)
        bound = server.bind_socket(host, int(port))
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        print("serving {}:{}, Ctrl-C to stop".format(*bound.address), flush=True)
        base.dispatch()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
