"""A client that sends one request to an HTTP or HTTPS server, and prints the answer.

It trusts only a server whose certificate is for the URL's host and signed by a trusted authority:
one of the system's, or of those in a file. The response line goes to stderr, the body to stdout,
part by part, as it comes. With -data, the file is sent by POST.

Made of evhttp_uri_parse, evhttp_connection_base_bufferevent_new, evhttp_connection_set_retries,
evhttp_connection_set_timeout, evhttp_request_new, evhttp_request_set_header_cb,
evhttp_request_set_chunked_cb, evhttp_request_get_output_headers, evhttp_add_header,
evbuffer_add_file and evhttp_make_request.

    python samples/https_client.py -url URL [-data file] [-crt authorities.pem] [-ignore-cert]
        [-retries number] [-timeout seconds]
"""

from __future__ import annotations

import argparse
import contextlib
import sys

from libevent_py import EventBase, HttpCommand, HttpConnection, HttpRequest, TlsContext, Uri


def on_header(request: HttpRequest) -> None:
    print(f"Response line: {request.response_code} {request.response_code_line}", file=sys.stderr)


def on_chunk(request: HttpRequest) -> None:
    sys.stdout.buffer.write(request.input_buffer.remove())


def on_done(request: HttpRequest) -> None:
    if request.error is not None:
        sys.exit(str(request.error))


def main(*arguments: str) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-url", required=True)
    parser.add_argument("-data")
    parser.add_argument("-crt")
    parser.add_argument("-ignore-cert", action="store_true")
    parser.add_argument("-retries", type=int, default=0)
    parser.add_argument("-timeout", type=float)
    options = parser.parse_args(arguments)
    url = Uri.parse(options.url)
    if url.scheme not in ("http", "https") or not url.host:
        sys.exit("-url must be http:// or https:// and a host")
    secure, host = url.scheme == "https", url.host.strip("[]")
    tls = None
    if secure and options.ignore_cert:
        tls = TlsContext(verify=False)
    elif secure:
        tls = TlsContext(cafile=options.crt)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")

    with EventBase() as base, contextlib.suppress(KeyboardInterrupt):
        connection = HttpConnection(base, host, url.port or (443 if secure else 80), tls=tls)
        connection.retries, connection.timeout = options.retries, options.timeout
        request = HttpRequest(on_done, on_header=on_header, on_chunk=on_chunk)
        request.output_headers["Host"] = url.host
        request.output_headers["Connection"] = "close"
        if options.data:
            with open(options.data, "rb") as file:
                request.output_buffer.add_file(file)
        connection.make_request(
            request, HttpCommand.POST if options.data else HttpCommand.GET, target
        )
        base.dispatch()
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
