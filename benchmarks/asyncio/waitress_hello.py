""" "Hello, World!" by a bare WSGI application on waitress, with four threads."""

import logging
import socket

import waitress

from benchmarks.applications import wsgi
from benchmarks.contender import say_port

logging.getLogger("waitress.queue").setLevel(logging.ERROR)
listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
say_port(listener.getsockname()[1])
waitress.serve(wsgi, sockets=[listener], threads=4, _quiet=True)
