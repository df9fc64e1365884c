"""What llhttp takes for a request, and is refused nevertheless."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libevent_py.serve.framing import ABSOLUTE, HOST

if TYPE_CHECKING:
    from libevent_py.serve.engines.llhttp_connection import Connection
    from libevent_py.serve.engines.llhttp_exchange import LlhttpExchange

#: The methods that are taken: of those that llhttp knows, not those of other protocols, nor
#: CONNECT, which is for proxies.
METHODS = {
    name.encode(): name
    for name in (
        *("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "QUERY"),
        *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "SEARCH", "REPORT"),
        *("BIND", "REBIND", "UNBIND", "ACL", "MKACTIVITY", "CHECKOUT", "MERGE", "MKCALENDAR"),
        *("LINK", "UNLINK", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "M-SEARCH", "PURGE"),
    )
}
#: The headers that `check` looks at.
NOTED = frozenset({b"host", b"expect", b"transfer-encoding", b"content-length", b"upgrade"})

REASONS = {
    400: b"Bad Request",
    408: b"Request Timeout",
    413: b"Content Too Large",
    417: b"Expectation Failed",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    503: b"Service Unavailable",
    505: b"HTTP Version Not Supported",
}


class RefusedError(Exception):
    """A request is refused; raised in the parser's callbacks."""

    def __init__(self, status: int) -> None:
        self.status = status


def check(connection: Connection, incoming: LlhttpExchange) -> None:
    """Refuse what llhttp takes, and would be ambiguous or unsafe.

    Most requests have only what `on_headers_complete` sees at once to be neither: a Host as in
    the request before, and a path.
    """
    config = connection._engine.config
    if incoming.version != "1.1" and incoming.version != "1.0":
        raise RefusedError(505)
    if len(connection._headers) > config.max_headers:
        raise RefusedError(431)
    if b" RTSP/" in connection._data:  # which llhttp takes, too
        line = b"%b %b RTSP/" % (incoming.method.encode(), incoming.target)
        if line in connection._data:
            raise RefusedError(505)
    if len(connection._data) + connection._silent > config.max_header_size:
        size = sum(len(name) + len(value) + 4 for name, value in connection._headers)
        if size + len(connection._url) > config.max_header_size:
            raise RefusedError(431)
    host = connection._host if connection._noted == () else None
    for name, value in connection._noted or ():
        if name == b"host":
            if host is not None:
                raise RefusedError(400)
            host = value
        elif name == b"content-length":
            if config.max_body is not None and int(value) > config.max_body:
                raise RefusedError(413)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise RefusedError(501)
            if incoming.version == "1.0":
                raise RefusedError(400)
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise RefusedError(417)
            incoming._waits = incoming.version == "1.1"
        elif value.lower() == b"websocket":
            incoming.upgrades = (
                incoming.method == "GET"
                and incoming.version == "1.1"
                and connection._parser.should_upgrade()
            )
    if host is None:
        if incoming.version == "1.1":
            raise RefusedError(400)
    elif host != connection._host:
        if HOST.fullmatch(host) is None:
            raise RefusedError(400)
        connection._host = host
    target = incoming.target
    if target[:1] != b"/" or b"#" in target:
        check_target(incoming, target)


def check_target(incoming: LlhttpExchange, target: bytes) -> None:
    """Refuse a target that isn't one, and take an absolute URI apart."""
    if target == b"*" and incoming.method == "OPTIONS":
        return
    match = ABSOLUTE.fullmatch(target)
    if match is None or HOST.fullmatch(match[1]) is None:
        raise RefusedError(400)
    path = match[2] or b""
    incoming.target = path if path.startswith(b"/") else b"/" + path
    # RFC 9112, 3.2.2: the authority of an absolute URI replaces Host.
    others = [item for item in incoming.headers if item[0] != b"host"]
    incoming.headers = [(b"host", match[1]), *others]
