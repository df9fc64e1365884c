""" "Hello, World!" by a bare ASGI application on uvicorn: ``asgi_hello LOOP [PEM]``.

With the file of a certificate and its key, over HTTPS.
"""

import socket
import sys

import uvicorn

from benchmarks.applications import asgi
from benchmarks.contender import say_port

pem = sys.argv[2] if len(sys.argv) > 2 else None
config = uvicorn.Config(
    asgi,
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
