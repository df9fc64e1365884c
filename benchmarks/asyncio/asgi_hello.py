""" "Hello, World!" by a bare ASGI application on uvicorn: ``asgi_hello LOOP [PEM]``.

With the file of a certificate and its key, over HTTPS.
"""

import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from benchmarks.contender import HELLO, say_port

HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(HELLO))]
START = {"type": "http.response.start", "status": 200, "headers": HEADERS}
BODY = {"type": "http.response.body", "body": HELLO}


async def hello(scope: object, receive: object, send: Callable[[Any], Awaitable[None]]) -> None:
    await send(START)
    await send(BODY)


pem = sys.argv[2] if len(sys.argv) > 2 else None
config = uvicorn.Config(
    hello,
    loop=sys.argv[1],
    http="httptools",
    lifespan="off",
    log_config=None,
    access_log=False,
    ssl_certfile=pem,
    ssl_keyfile=pem,
)
with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
    say_port(listener.getsockname()[1])
    uvicorn.Server(config).run(sockets=[listener])
