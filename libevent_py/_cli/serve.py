"""``python -m libevent_py serve module:app``: serve a WSGI or ASGI application."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import socket
import sys
from collections.abc import Sequence

from libevent_py.serve import sockets
from libevent_py.serve.config import ENGINES, INTERFACES, LIFESPANS, Config
from libevent_py.serve.errors import StartupError
from libevent_py.serve.worker import serve

logger = logging.getLogger("libevent_py.serve")

#: Options that are named as the settings of `Config`, with their metavariables and help.
SETTINGS = {
    "threads": ("N", int, "threads for a WSGI application; 0 runs it inline (default: 4)"),
    "root_path": ("PATH", str, "the path that the application is mounted at"),
    "max_body": ("BYTES", int, "the most bytes of a request's body (default: no limit)"),
    "max_requests": ("N", int, "the most requests at the same time (default: 1000)"),
    "graceful_timeout": (
        "SECONDS",
        float,
        "how long requests in flight may take when it ends (default: 30)",
    ),
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m libevent_py serve", description="Serve a WSGI or ASGI application."
    )
    made.add_argument("app", metavar="module:app", help="where to import the application from")
    where = made.add_mutually_exclusive_group()
    where.add_argument("--bind", metavar="ADDR", default="127.0.0.1:8000", help="HOST:PORT")
    where.add_argument("--unix", metavar="PATH", help="the path of a UNIX socket")
    where.add_argument("--fd", metavar="N", type=int, help="a listening socket to inherit")
    for name, (metavar, kind, text) in SETTINGS.items():
        option = "--" + name.replace("_", "-")
        made.add_argument(option, dest=name, metavar=metavar, type=kind, help=text)
    made.add_argument("--tls-cert", metavar="FILE", help="serve HTTPS with this certificate")
    made.add_argument("--tls-key", metavar="FILE", help="its key, if it is in a file of its own")
    made.add_argument("--access-log", action="store_true", default=None, help="log each answer")
    made.add_argument("--http", choices=ENGINES, help="what speaks HTTP (default: httptools)")
    made.add_argument("--interface", choices=INTERFACES, help="what the application is")
    made.add_argument("--lifespan", choices=LIFESPANS, help="ASGI's startup and shutdown")
    return made


def config_of(given: argparse.Namespace) -> Config:
    """Return what the command line says."""
    names = [field.name for field in dataclasses.fields(Config)]
    settings = {
        name: value for name, value in vars(given).items() if name in names and value is not None
    }
    return Config(**settings)


def listening(given: argparse.Namespace) -> list[socket.socket]:
    """Return the sockets that the command line says."""
    if given.unix is not None:
        return [sockets.at_path(given.unix)]
    if given.fd is not None:
        return [sockets.inherited(given.fd)]
    return sockets.bound(*sockets.address_in(given.bind))


def main(arguments: Sequence[str]) -> int:
    """Run the command line, and return its exit status."""
    options = parser()
    given = options.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        config = config_of(given)
        made = listening(given)
    except (OSError, ValueError, TypeError) as error:
        options.error(str(error))
    scheme = "http" if config.tls_cert is None else "https"
    places = ", ".join(sockets.described(sock, scheme) for sock in made)

    def ready() -> None:
        logger.info("serving %s on %s", given.app, places)

    try:
        with sockets.removed_after(given.unix):
            serve(config, made, ready=ready)
    except (StartupError, ImportError, OSError) as error:
        print(f"{options.prog}: {error}", file=sys.stderr)
        if isinstance(error, StartupError) and error.__cause__ is not None:
            logger.error("%s", error, exc_info=error.__cause__)
        return 1
    return 0
