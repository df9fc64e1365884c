"""`Config`: what a worker serves, how, and within what limits."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable
from typing import Any

INTERFACES = ("auto", "asgi", "wsgi")
ENGINES = ("httptools", "evhttp")
LIFESPANS = ("auto", "on", "off")


class Shutdown:
    """A way to end a worker from any thread, or from a signal handler; it can be used once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = False
        self._listeners: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'set' if self._wanted else 'not set'}>"

    def set(self) -> None:
        """End the worker: it finishes what is in flight, within `Config.graceful_timeout`.

        A second time does nothing.
        """
        with self._lock:
            if self._wanted:
                return
            self._wanted = True
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def is_set(self) -> bool:
        """Tell whether the worker is to end."""
        return self._wanted

    def _listen(self, listener: Callable[[], object]) -> None:
        """Have *listener* called by `set`, in its thread; at once if it has been called."""
        with self._lock:
            if not self._wanted:
                self._listeners.append(listener)
                return
        listener()

    def _forget(self, listener: Callable[[], object]) -> None:
        """Undo `_listen`."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)


@dataclasses.dataclass(frozen=True)
class Config:
    """What one worker serves. All times are seconds, all sizes bytes.

    Raises `ValueError` or `TypeError` for a value that can't be meant.
    """

    #: The application itself, or where to import it from, as "module:attribute".
    app: Any
    #: "asgi", "wsgi", or "auto" to find out by looking at the application.
    interface: str = "auto"
    #: The engine that speaks HTTP: "httptools" or "evhttp".
    http: str = "httptools"
    #: How many threads run a WSGI application; 0 for inline, in the thread that serves.
    threads: int = 4
    #: A PEM file with the certificate and its chain; None serves plain HTTP.
    tls_cert: str | None = None
    #: A PEM file with the private key; None if it is in `tls_cert`.
    tls_key: str | None = None
    #: The path that the application is mounted at: ASGI's root_path, WSGI's SCRIPT_NAME.
    root_path: str = ""
    #: Whether an ASGI application is told of startup and shutdown: "auto" if it takes part, "on"
    #: if it has to, "off" for never.
    lifespan: str = "auto"
    #: Whether each answer is logged, to the logger ``libevent_py.serve.access``.
    access_log: bool = False

    #: The most bytes of a request's head, and of the trailers of its body.
    max_header_size: int = 32768
    #: The most headers of a request.
    max_headers: int = 100
    #: The most bytes of a request's body; None for no limit.
    max_body: int | None = None
    #: The most requests that are answered at the same time; more get 503. None for no limit.
    max_requests: int | None = 1000
    #: How long a client may take for a request's head, from the connection or the first byte.
    header_timeout: float = 10.0
    #: How long a connection may wait for its next request.
    keep_alive_timeout: float = 15.0
    #: How long a client may send nothing of a body that the application waits for.
    body_timeout: float = 60.0
    #: How long a client may take nothing of an answer.
    write_timeout: float = 60.0
    #: How long what is in flight may take after the worker was told to end.
    graceful_timeout: float = 30.0
    #: The most bytes of a WebSocket message.
    ws_max_size: int = 16 * 1024 * 1024
    #: How often an idle WebSocket client is sent a ping; None for never.
    ws_ping_interval: float | None = 20.0
    #: How long it may take to answer one.
    ws_ping_timeout: float = 20.0

    #: Ends the worker when it is set, as SIGTERM does.
    shutdown: Shutdown = dataclasses.field(default_factory=Shutdown, compare=False)

    def __post_init__(self) -> None:
        self._check_choice("interface", INTERFACES)
        self._check_choice("http", ENGINES)
        self._check_choice("lifespan", LIFESPANS)
        if not isinstance(self.app, str) and not callable(self.app):
            raise TypeError(f'app must be callable, or "module:attribute", not {self.app!r}')
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key is given without tls_cert")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ValueError(
                f'root_path must begin with "/" and not end with it, not {self.root_path!r}'
            )
        for name, least in ("threads", 0), ("max_header_size", 256), ("max_headers", 1):
            self._check_count(name, least)
        self._check_count("ws_max_size", 1)
        for name in "max_body", "max_requests":
            if getattr(self, name) is not None:
                self._check_count(name, 0 if name == "max_body" else 1)
        for field in dataclasses.fields(self):
            if field.name.endswith(("_timeout", "_interval")):
                self._check_seconds(field.name)
        if not isinstance(self.shutdown, Shutdown):
            raise TypeError(f"shutdown must be a Shutdown, not {self.shutdown!r}")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")

    def _check_count(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer, not {value!r}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")

    def _check_seconds(self, name: str) -> None:
        value = getattr(self, name)
        if value is None and name == "ws_ping_interval":
            return
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"{name} must be a number of seconds, not {value!r}")
        if not (0 < value < math.inf) and not (name == "graceful_timeout" and value == 0):
            raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")
