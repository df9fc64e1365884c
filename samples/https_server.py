"""An HTTPS server that greets its clients, and says which TLS version and cipher they use.

Made of evhttp_new, evhttp_set_bevcb, evhttp_set_gencb, evhttp_bind_socket_with_handle,
evhttp_set_timeout, bufferevent_openssl_socket_new, evhttp_request_get_connection,
evhttp_connection_get_bufferevent, evhttp_send_reply, evhttp_free, evsignal_new,
event_base_dispatch and event_base_loopexit.

    python samples/https_server.py host port certificate.pem [key.pem]
    curl --cacert authority.pem https://localhost:8888/
"""

from __future__ import annotations

import signal
import sys

from libevent_py import Event, EventBase, HttpServer, HttpServerRequest, TlsContext


def greet(request: HttpServerRequest) -> None:
    if (connection := request.connection) and (cipher := connection.bufferevent.cipher):
        greeting = f"Hello, World, by {connection.bufferevent.tls_version} with {cipher[0]}!\n"
        request.send_reply(200, "OK", greeting.encode())


def main(
    host: str = "127.0.0.1",
    port: int | str = 8888,
    certfile: str | None = None,
    keyfile: str | None = None,
) -> None:
    if certfile is None:
        sys.exit(__doc__)
    context = TlsContext(server_side=True, certfile=certfile, keyfile=keyfile)
    with EventBase() as base:
        server = HttpServer(base)
        server.timeout = 10.0
        server.tls = context
        server.set_gencb(greet)
        bound = server.bind_socket(host, int(port))
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        print("serving {}:{}, Ctrl-C to stop".format(*bound.address), flush=True)
        base.dispatch()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
