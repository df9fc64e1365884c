"""A client that gets a URL through a proxy, by CONNECT.

The proxy is asked to CONNECT to the URL's host. After that the proxy only relays bytes, and the
next request on the same connection reaches the server behind it.

Made of evhttp_uri_parse, evhttp_connection_base_new, evhttp_request_new,
evhttp_request_get_output_headers, evhttp_add_header, evhttp_make_request,
evhttp_request_get_response_code and evhttp_request_get_input_buffer.

    python samples/http_connect.py http://proxy:port http://host:port/path
"""

from __future__ import annotations

import contextlib
import sys

from libevent_py import EventBase, HttpCommand, HttpConnection, HttpRequest, Uri


def parsed(text: str) -> Uri:
    url = Uri.parse(text)
    if not url.host or not url.port:
        sys.exit(f"{text} must have a host and a port")
    return url


def main(*urls: str) -> None:
    def on_connect(request: HttpRequest) -> None:
        if request.error is not None:
            sys.exit(str(request.error))
        if not 200 <= request.response_code < 300:
            sys.exit(f"the proxy says {request.response_code} {request.response_code_line}")
        get = HttpRequest(on_get)
        get.output_headers["Connection"] = "close"
        get.output_headers["Host"] = where
        target = (location.path or "/") + (f"?{location.query}" if location.query else "")
        connection.make_request(get, HttpCommand.GET, target)

    def on_get(request: HttpRequest) -> None:
        if request.error is not None:
            sys.exit(str(request.error))
        sys.stdout.buffer.write(bytes(request.input_buffer))

    if len(urls) != 2:
        sys.exit(__doc__)
    proxy, location = map(parsed, urls)
    assert proxy.host and proxy.port
    where = f"{location.host}:{location.port}"
    with EventBase() as base, contextlib.suppress(KeyboardInterrupt):
        connection = HttpConnection(base, proxy.host.strip("[]"), proxy.port)
        request = HttpRequest(on_connect)
        request.output_headers["Connection"] = "keep-alive"
        request.output_headers["Host"] = where
        connection.make_request(request, HttpCommand.CONNECT, where)
        base.dispatch()
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
