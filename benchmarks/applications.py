"""The bare applications for WSGI and ASGI that servers run."""

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.contender import HELLO

HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(HELLO)))]

START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(HELLO))],
}
BODY = {"type": "http.response.body", "body": HELLO}


def wsgi(environ: object, start_response: Callable[[str, Any], object]) -> list[bytes]:
    start_response("200 OK", [*HEADERS])
    return [HELLO]


async def asgi(scope: object, receive: object, send: Callable[[Any], Awaitable[None]]) -> None:
    await send(START)
    await send(BODY)


APPLICATIONS: dict[str, Any] = {"wsgi": wsgi, "asgi": asgi}
