""" "Hello, World!" by a bare application on libevent_py.serve: ``serve_hello INTERFACE [PEM]``.

INTERFACE is "wsgi", which runs inline, or "asgi". With the file of a certificate and its key, over
HTTPS.
"""

import socket
import sys

from benchmarks.applications import APPLICATIONS
from benchmarks.contender import say_port
from libevent_py.serve import Config, serve

interface = sys.argv[1]
pem = sys.argv[2] if len(sys.argv) > 2 else None
config = Config(
    APPLICATIONS[interface],
    interface=interface,
    threads=0,
    lifespan="off",
    tls_cert=pem,
    tls_key=pem,
)
listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
port = listener.getsockname()[1]
serve(config, [listener], ready=lambda: say_port(port))
