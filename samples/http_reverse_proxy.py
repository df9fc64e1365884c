"""A reverse proxy: it forwards each request to another HTTP server, and returns that one's answer.

Bodies pass through in parts, in both directions. If one side sends faster than the other takes, it
is not read from until the rest is sent, so that a transfer of any size costs little memory. Each
client's connection has its own connection to the server, and both are used for as many requests as
either end likes. If the server can't be reached, the client gets 502; if it is silent for too long,
504. When an answer breaks off, the client's connection is cut; when a client goes away, its request
to the server is cancelled.

Made of evhttp_new, evhttp_set_gencb, evhttp_set_allowed_methods, evhttp_set_max_headers_size,
evhttp_bind_socket_with_handle, evhttp_connection_base_new, evhttp_connection_set_timeout,
evhttp_request_new, evhttp_request_set_header_cb, evhttp_request_set_chunked_cb,
evhttp_make_request, evhttp_cancel_request, evhttp_send_reply_start,
evhttp_send_reply_chunk_with_cb, evhttp_send_reply_end, evhttp_send_reply,
evhttp_request_get_connection, evhttp_connection_set_closecb, evsignal_new, event_base_dispatch and
event_base_loopexit.

    python samples/http_reverse_proxy.py [host [port [server's host [server's port [timeout]]]]]
    curl http://127.0.0.1:8888/
"""

from __future__ import annotations

import signal
import sys

from libevent_py import (
    Buffer,
    Event,
    EventBase,
    Headers,
    HttpCommand,
    HttpConnection,
    HttpError,
    HttpRequest,
    HttpRequestError,
    HttpServer,
    HttpServerConnection,
    HttpServerRequest,
)

#: The headers that are about a connection, and not for who is behind it.
HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",  # libevent has told the client to go on
}

METHODS = (
    HttpCommand.GET
    | HttpCommand.HEAD
    | HttpCommand.POST
    | HttpCommand.PUT
    | HttpCommand.DELETE
    | HttpCommand.OPTIONS
    | HttpCommand.PATCH
)

#: What may be asked once more, if a connection ends that has answered before.
REPEATABLE = HttpCommand.GET, HttpCommand.HEAD, HttpCommand.OPTIONS

#: How many bytes may come of a client that still has to take its last answer.
AHEAD = 64 * 1024


def pass_on(source: Headers, target: Headers) -> None:
    """Add to *target* the headers of *source* that are for both ends."""
    listed = ",".join(source.get_all("Connection")).lower().split(",")
    dropped = HOP_BY_HOP | {name.strip() for name in listed}
    for name, value in source.items():
        if name.lower() not in dropped:
            target.add(name, value)


def status_of(error: HttpError) -> int:
    late = error.code == HttpRequestError.TIMEOUT or isinstance(error.__cause__, TimeoutError)
    return 504 if late else 502


class Relayed:
    """A client's request, and the one of the server that goes with it."""

    asked: HttpRequest
    begun = complete = False

    def __init__(
        self, request: HttpServerRequest, client: HttpServerConnection, server: HttpConnection
    ) -> None:
        headers = request.input_headers
        self.request, self.client, self.server = request, client, server
        self.has_body = "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"
        #: What has come of the answer before the client can be answered.
        self.early = Buffer()

    # From the client to the server.

    def ask(self) -> None:
        """Ask the server, though the body may not have come yet."""
        on_write = self.on_server_ready if self.has_body else None
        self.reused = self.server.address is not None
        self.asked = HttpRequest(
            self.on_answered, on_header=self.on_head, on_chunk=self.on_part, on_write=on_write
        )
        pass_on(self.request.input_headers, self.asked.output_headers)
        self.asked.output_headers.add("X-Forwarded-For", self.request.peer[0])
        self.asked.output_headers.add("Via", "1.1 proxy")
        self.server.make_request(self.asked, self.request.command, self.request.uri)

    def on_client_part(self, request: HttpServerRequest) -> None:
        if self.asked.send_request_chunk(request.input_buffer):  # else nobody wants the rest
            self.client.pause()

    def on_server_ready(self, asked: HttpRequest) -> None:
        self.client.resume()

    def on_client_complete(self) -> None:
        """Let the server know all; only from now on can the client be answered."""
        self.complete = True
        self.client.resume()
        if not self.has_body:
            self.ask()
            return
        self.asked.send_request_end()
        self.server.resume()
        if self.asked.response_code >= 200:
            self.begin(self.asked)
        if self.asked.connection is None:
            self.on_answered(self.asked)

    # From the server to the client.

    def on_head(self, asked: HttpRequest) -> None:
        if asked.response_code < 200:  # the answer is yet to come
            return
        self.client.resume()
        if self.complete:
            self.begin(asked)
        else:  # the client is to say all before, which nobody wants any more
            self.server.pause()

    def begin(self, asked: HttpRequest) -> None:
        pass_on(asked.input_headers, self.request.output_headers)
        self.request.send_reply_start(asked.response_code, asked.response_code_line)
        self.begun = True
        self.send(self.early)

    def on_part(self, asked: HttpRequest) -> None:
        if self.begun:
            self.send(asked.input_buffer)
        else:
            self.early.add_buffer(asked.input_buffer)

    def send(self, data: Buffer) -> None:
        self.server.pause()
        if not self.request.send_reply_chunk(data, self.on_client_ready):
            self.asked.cancel()
        elif len(self.client.bufferevent.input) > AHEAD:  # it says more, before it has the answer
            self.client.pause()

    def on_client_ready(self, request: HttpServerRequest) -> None:
        self.server.resume()

    def on_answered(self, asked: HttpRequest) -> None:
        error, request = asked.error, self.request
        if self.client.closed or request.closed:
            return
        if not self.complete:
            self.client.resume()
        elif error is None:
            request.send_reply_end()
        elif self.begun:
            request.close()
        elif error.code == HttpRequestError.EOF and self.reused and self.is_repeatable():
            self.ask()
        else:
            request.send_reply(status_of(error))

    def is_repeatable(self) -> bool:
        return not self.has_body and self.request.command in REPEATABLE

    def on_end(self, request: HttpServerRequest) -> None:
        """Leave both connections as the next request wants them."""
        if not self.client.closed:
            self.client.resume()
        if not self.server.closed:
            self.server.resume()
            if self.has_body or self.complete:
                self.asked.cancel()


class Proxy:
    """A server that has another one answer."""

    def __init__(self, base: EventBase, host: str, port: int, timeout: float) -> None:
        self.base, self.where, self.timeout = base, (host, port), timeout
        self.servers: dict[HttpServerConnection, HttpConnection] = {}
        self.relayed: dict[HttpServerRequest, Relayed] = {}
        self.http = HttpServer(base)
        self.http.allowed_methods = METHODS
        self.http.default_content_type = None
        self.http.max_headers_size = 64 * 1024
        self.http.timeout = timeout
        self.http.on_headers = self.on_headers
        self.http.set_gencb(self.on_request)

    def server_for(self, client: HttpServerConnection) -> HttpConnection:
        """Return the connection to the server that goes with the client's."""
        if client not in self.servers:
            self.servers[client] = HttpConnection(self.base, *self.where)
            self.servers[client].timeout = self.timeout
            self.servers[client].max_headers_size = 64 * 1024
            client.on_close = self.on_client_close
        return self.servers[client]

    def on_client_close(self, client: HttpServerConnection) -> None:
        self.servers.pop(client).close()

    def on_headers(self, request: HttpServerRequest) -> None:
        client = request.connection
        assert client is not None
        relayed = self.relayed[request] = Relayed(request, client, self.server_for(client))
        request.on_end = self.on_end
        if relayed.has_body:
            request.on_chunk = relayed.on_client_part
            client.pause()
            relayed.ask()

    def on_request(self, request: HttpServerRequest) -> None:
        self.relayed[request].on_client_complete()

    def on_end(self, request: HttpServerRequest) -> None:
        self.relayed.pop(request).on_end(request)


def main(
    host: str = "127.0.0.1",
    port: int | str = 8888,
    to_host: str = "127.0.0.1",
    to_port: int | str = 80,
    timeout: float | str = 30.0,
) -> None:
    with EventBase() as base:
        proxy = Proxy(base, to_host, int(to_port), float(timeout))
        bound = proxy.http.bind_socket(host, int(port))
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        host, port = bound.address[:2]
        print(f"serving {host}:{port} by {to_host}:{to_port}, Ctrl-C to stop", flush=True)
        base.dispatch()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
