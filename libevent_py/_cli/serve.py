"""``python -m libevent_py serve module:app``: serve a WSGI or ASGI application."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import socket
import sys
from collections.abc import Sequence

from libevent_py._cli.program import program
from libevent_py.serve import sockets, systemd
from libevent_py.serve.config import ENGINES, INTERFACES, LIFESPANS, Config
from libevent_py.serve.errors import StartupError
from libevent_py.serve.master import Fleet, supervise
from libevent_py.serve.worker import serve

logger = logging.getLogger("libevent_py.serve")

#: Where it is served if nothing is said.
BIND = "127.0.0.1:8000"

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
        prog=program("serve"), description="Serve a WSGI or ASGI application."
    )
    made.add_argument("app", metavar="module:app", help="where to import the application from")
    where = made.add_mutually_exclusive_group()
    where.add_argument("--bind", metavar="ADDR", help=f"HOST:PORT (default: {BIND})")
    where.add_argument("--unix", metavar="PATH", help="the path of a UNIX socket")
    where.add_argument(
        "--fd", metavar="N", help="a listening socket to inherit: its number, or systemd's name"
    )
    for name, (metavar, kind, text) in SETTINGS.items():
        option = "--" + name.replace("_", "-")
        made.add_argument(option, dest=name, metavar=metavar, type=kind, help=text)
    made.add_argument("--workers", metavar="N", type=int, help="serve by so many processes")
    made.add_argument(
        "--reuse-port", action="store_true", help="give each worker a socket of its own"
    )
    made.add_argument(
        "--reload", action="store_true", help="replace the workers when a file changes"
    )
    made.add_argument(
        "--reload-dir",
        metavar="DIR",
        action="append",
        default=[],
        help="where these files are; may be repeated (default: the current directory)",
    )
    made.add_argument(
        "--stats",
        metavar="PATH",
        nargs="?",
        const="",
        help="count; tell on SIGUSR1, and at the path of a UNIX socket",
    )
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


def fleet_of(given: argparse.Namespace) -> Fleet:
    """Return how the command line wants it to be served by workers."""
    return Fleet(
        workers=1 if given.workers is None else given.workers,
        reload=given.reload or bool(given.reload_dir),
        reload_dirs=tuple(given.reload_dir),
        stats=given.stats is not None,
        stats_path=given.stats or None,
    )


def needs_master(given: argparse.Namespace, passed: dict[int, str]) -> bool:
    """Tell whether there has to be a master: for workers, as process 1, or below systemd."""
    wanted = given.workers is not None or given.reload or given.reload_dir or given.reuse_port
    wanted = wanted or given.stats is not None
    return bool(wanted or passed or os.getpid() == 1 or "NOTIFY_SOCKET" in os.environ)


def number_of(fd: str, passed: dict[int, str]) -> int:
    """Return the descriptor that *fd* is, or names."""
    if fd.isascii() and fd.isdigit():
        return int(fd)
    named = [number for number, name in passed.items() if name == fd]
    if len(named) != 1:
        raise ValueError(f"--fd: LISTEN_FDNAMES must have {fd!r} once, not {len(named)} times")
    return named[0]


def listening(
    given: argparse.Namespace, passed: dict[int, str], workers: int
) -> list[list[socket.socket]]:
    """Return the sockets that the command line or systemd says: for all workers, or for each."""
    if given.reuse_port and (given.unix is not None or given.fd is not None or passed):
        raise ValueError("--reuse-port goes with --bind alone")
    if given.unix is not None:
        return [[sockets.at_path(given.unix)]]
    if given.fd is not None:
        return [[sockets.inherited(number_of(given.fd, passed))]]
    if given.bind is None and passed:
        return [[sockets.inherited(fd) for fd in passed]]
    host, port = sockets.address_in(given.bind or BIND)
    made = [sockets.bound(host, port, reuse_port=given.reuse_port)]
    while given.reuse_port and len(made) < workers:
        made.append(sockets.bound(host, made[0][0].getsockname()[1], reuse_port=True))
    return made


def main(arguments: Sequence[str]) -> int:
    """Run the command line, and return its exit status."""
    options = parser()
    given = options.parse_args(arguments)
    try:
        config, fleet = config_of(given), fleet_of(given)
        passed = systemd.passed_on()
        made = listening(given, passed, fleet.workers)
    except (OSError, ValueError, TypeError) as error:
        options.error(str(error))
    mastered = needs_master(given, passed)
    process = "[%(process)d] " if mastered else ""
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s {process}%(levelname)s %(message)s"
    )
    scheme = "http" if config.tls_cert is None else "https"
    places = ", ".join(sockets.described(sock, scheme) for sock in made[0])

    def ready() -> None:
        logger.info("serving %s on %s", given.app, places)

    try:
        with sockets.removed_after(given.unix):
            if mastered:
                return supervise(config, fleet, made, ready=ready)
            serve(config, made[0], ready=ready)
    except (StartupError, ImportError, OSError) as error:
        print(f"{options.prog}: {error}", file=sys.stderr)
        if isinstance(error, StartupError) and error.__cause__ is not None:
            logger.error("%s", error, exc_info=error.__cause__)
        return 1
    return 0
