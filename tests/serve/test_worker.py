"""One worker from start to end: signals, sockets, TLS, forks, the command line."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libevent_py.__main__ import main
from libevent_py.serve import Config, Shutdown, StartupError, run, serve
from libevent_py.serve import sockets as listening
from libevent_py.serve.loading import found, is_asgi
from tests.kit.certificates import Authority
from tests.kit.serving import GET, Site, rest_of, serving, statuses, until
from tests.kit.support import PATIENCE, ROOT, WARNINGS

CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

APPS = """
import asyncio, os, sys, threading, time

async def hello(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        print("shut down", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/slow":
        print("begun", flush=True)
        await asyncio.sleep(0.5)
    if scope["path"] == "/never":
        print("begun", flush=True)
        await asyncio.sleep(1000)
    body = scope["scheme"].encode()
    if scope["path"] == "/fork":
        child = os.fork()
        if not child:
            try:
                await send({"type": "http.response.start", "status": 500})
                await send({"type": "http.response.body", "body": b"from the child"})
            finally:
                os._exit(0)
        body = b"%d" % os.waitpid(child, 0)[1]
    if scope["path"] == "/fork-on":
        child = os.fork()
        if child:
            body = b"%d" % (os.waitpid(child, 0)[1] != 0)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [threading.current_thread().name.encode()]

async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no luck"})

async def hanging(scope, receive, send):
    print("hanging", flush=True)
    await asyncio.sleep(1000)

class Place:
    app = wsgi

text = "no application"
"""


class Process(subprocess.Popen[str]):
    """``python -m libevent_py serve`` in a process of its own."""

    def __init__(self, place: Path, *arguments: str, **options: Any) -> None:
        (place / "apps.py").write_text(APPS)
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        super().__init__(
            [sys.executable, "-X", "dev", *WARNINGS, "-m", "libevent_py", "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=place,
            env={**os.environ, "PYTHONPATH": path},
            **options,
        )
        self.log = ""

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read its log until it has *pattern*."""
        assert self.stderr is not None
        while True:
            line = self.stderr.readline()
            self.log += line
            assert line, f"it has ended: {self.log}"
            if match := re.search(pattern, line):
                return match

    def site(self) -> Site:
        """Return where it serves, when it does."""
        match = self.wait_for(r"https?://(\S+):(\d+)")
        return Site(match[1], int(match[2]), Config("x:y"))

    def end(self, number: int = signal.SIGTERM) -> str:
        """Send it a signal, and return what it has printed; it must end well."""
        self.send_signal(number)
        printed, log = self.communicate(timeout=PATIENCE)
        self.log += log
        assert self.returncode == 0, self.log
        return printed


@contextlib.contextmanager
def process(place: Path, *arguments: str, **options: Any) -> Iterator[Process]:
    """Run a `Process` inside a ``with`` block."""
    with Process(place, *arguments, **options) as made:
        try:
            yield made
        finally:
            if made.poll() is None:
                made.kill()


ANY = ("--bind", "127.0.0.1:0")


# Signals.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_what_is_in_flight_is_finished(number: int, tmp_path: Path) -> None:
    with process(tmp_path, *ANY, "apps:hello") as server:
        site = server.site()
        with site.connect() as sock, site.connect() as idle:
            sock.sendall(GET.replace(b"/", b"/slow", 1))
            assert server.stdout is not None
            assert server.stdout.readline() == "begun\n"
            printed = server.end(number)
            got = rest_of(sock)
            assert rest_of(idle) == b""
        assert statuses(got) == [200]
        assert printed == "shut down\n"
        with pytest.raises(ConnectionRefusedError):
            site.connect()
        assert "Traceback" not in server.log


def test_a_second_signal_cuts_it_short(tmp_path: Path) -> None:
    with process(tmp_path, *ANY, "apps:hello") as server:
        with server.site().connect() as sock:
            sock.sendall(GET.replace(b"/", b"/never", 1))
            assert server.stdout is not None
            assert server.stdout.readline() == "begun\n"
            server.send_signal(signal.SIGTERM)
            server.wait_for("SIGTERM")
            assert server.end() == "shut down\n"
            assert rest_of(sock) == b""
        assert "closing 1 connections with 1 requests in flight" in server.log


def test_the_time_limit_ends_what_does_not(tmp_path: Path) -> None:
    arguments = (*ANY, "--graceful-timeout", "0.3", "apps:hello")
    with process(tmp_path, *arguments) as server, server.site().connect() as sock:
        sock.sendall(GET.replace(b"/", b"/never", 1))
        assert server.stdout is not None
        assert server.stdout.readline() == "begun\n"
        assert server.end() == "shut down\n"


def test_a_signal_ends_it_while_the_application_starts(tmp_path: Path) -> None:
    with process(tmp_path, *ANY, "apps:hanging") as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "hanging\n"
        server.end()
        assert "serving" not in server.log


# The command line.


def test_a_wsgi_application_is_served_inline_or_on_threads(tmp_path: Path) -> None:
    for threads, name in ("0", b"MainThread"), ("1", b"libevent_py-wsgi-0"):
        with process(
            tmp_path, *ANY, "--threads", threads, "--access-log", "apps:Place.app"
        ) as server:
            site = server.site()
            assert site.talk(CLOSE).endswith(name)
            server.end()
            assert '"GET / HTTP/1.1" 200' in server.log


def test_a_unix_socket_is_served_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    stale = listening.at_path(str(path))
    stale.close()  # leaves the file
    with process(tmp_path, "--unix", str(path), "--access-log", "apps:hello") as server:
        server.wait_for("serving apps:hello on http\\+unix:")
        with pytest.raises(OSError, match="in use"):
            listening.at_path(str(path))
        curl = ["curl", "-sS", "--unix-socket", str(path), "http://a/"]
        done = subprocess.run(curl, capture_output=True, text=True, timeout=PATIENCE, check=True)
        assert done.stdout == "http"
        server.end()
        assert not path.exists()
        assert '- "GET / HTTP/1.1" 200 4' in server.log


def test_a_listening_socket_is_inherited(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        fd = str(sock.fileno())
        with process(tmp_path, "--fd", fd, "apps:hello", pass_fds=[sock.fileno()]) as server:
            assert statuses(server.site().talk(CLOSE)) == [200]
            server.end()


def test_https_is_served(tmp_path: Path, authority: Authority) -> None:
    cert, key = str(authority.server.certfile), str(authority.server.keyfile)
    arguments = (*ANY, "--tls-cert", cert, "--tls-key", key)
    with process(tmp_path, *arguments, "apps:hello") as server:
        site = server.site()
        url = f"https://127.0.0.1:{site.port}"
        ca = str(authority.directory / "ca.pem")
        curl = ["curl", "-sS", "--cacert", ca, url + "/", url + "/slow", "-d", "x" * 100000]
        done = subprocess.run(curl, capture_output=True, text=True, timeout=PATIENCE, check=True)
        assert done.stdout == "httpshttps"
        with site.connect() as plain:  # no TLS
            plain.sendall(GET)
            assert b"HTTP" not in rest_of(plain)
        server.end()


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (["apps"], 1, '"module:attribute"'),
        (["apps:"], 1, '"module:attribute"'),
        (["nowhere:app"], 1, "there is no module 'nowhere'"),
        (["apps:nothing"], 1, "has no attribute 'nothing'"),
        (["apps:text"], 1, "is not callable"),
        (["apps:failing"], 1, "no luck"),
        (["--lifespan", "on", "--interface", "asgi", "apps:wsgi"], 1, "take part in lifespan"),
        (["--bind", "nonsense", "apps:hello"], 2, '"HOST:PORT"'),
        (["--bind", "::1:80", "apps:hello"], 2, "in brackets"),
        (["--bind", "192.0.2.1:80", "apps:hello"], 2, "192.0.2.1:80: Cannot assign"),
        (["--fd", "99999", "apps:hello"], 2, "fd 99999"),
        (["--threads", "-1", "apps:hello"], 2, "threads must be at least 0"),
        (["--tls-key", "x", "apps:hello"], 2, "without tls_cert"),
        (["--tls-cert", "nowhere.pem", "apps:hello"], 1, "nowhere.pem"),
    ],
)
def test_what_cannot_be_served_says_why(
    arguments: list[str],
    status: int,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "apps.py").write_text(APPS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "apps", raising=False)
    where = () if {"--bind", "--fd"} & {*arguments} else ANY
    ended: object
    try:
        ended = main(["serve", *where, *arguments])
    except SystemExit as end:  # argparse's
        ended = end.code
    printed, told = capfd.readouterr()
    assert (ended, printed) == (status, "")
    assert why in told


@pytest.mark.parametrize("module", ["httptools", "wsproto"])
def test_a_missing_extra_is_named(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text(
        f"raise ModuleNotFoundError('there is no {module}', name={module!r})"
    )
    with process(tmp_path, *ANY, "apps:hello") as server:
        _, log = server.communicate(timeout=PATIENCE)
    assert server.returncode == 1
    assert f"needs {module}: pip install 'libevent_py[serve]'" in log


# Forks.


def test_a_child_that_the_application_forks_cannot_answer(tmp_path: Path) -> None:
    with process(tmp_path, *ANY, "apps:hello") as server:
        site = server.site()
        with site.connect() as sock:
            sock.sendall(GET.replace(b"/", b"/fork", 1))
            assert until(sock, b"\r\n\r\n0").count(b"HTTP/1.1") == 1
        for _ in range(2):
            got = site.talk(CLOSE.replace(b"/", b"/fork-on", 1))
            assert statuses(got) == [200] and got.endswith(b"1")
        assert server.end() == "shut down\n"


# In a program.


def test_run_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"run"]

    path = str(tmp_path / "socket")
    shutdown = Shutdown()
    answers: list[bytes] = []

    def ask() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.sendall(CLOSE)
            answers.append(rest_of(sock))
        shutdown.set()

    asking = threading.Thread(target=ask)
    run(app, unix=path, threads=0, shutdown=shutdown, ready=asking.start)
    asking.join(PATIENCE)
    assert answers[0].endswith(b"\r\n\r\nrun")
    assert not os.path.exists(path)
    assert shutdown.is_set()


def test_what_ready_raises_comes_out_and_all_is_closed() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    sock = socket.create_server(("127.0.0.1", 0))
    with pytest.raises(ZeroDivisionError):
        serve(Config(lambda: None, interface="wsgi"), [sock], ready=fail)
    assert sock.fileno() == -1


def test_a_worker_that_was_told_to_end_before_it_began_ends() -> None:
    config = Config(lambda: None, interface="wsgi")
    config.shutdown.set()
    serve(config, [socket.create_server(("127.0.0.1", 0))])


def test_connections_that_wait_when_it_ends_are_served_or_refused_but_not_forgotten() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"hello"})

    for _ in range(5):
        with serving(app) as site:
            sock = site.connect()
            sock.sendall(CLOSE)
            site.config.shutdown.set()
        with sock:
            assert statuses(rest_of(sock)) in ([200], [])


@pytest.mark.parametrize(
    ("settings", "error", "why"),
    [
        ({"app": 5}, TypeError, "callable"),
        ({"interface": "cgi"}, ValueError, "auto, asgi, wsgi"),
        ({"http": "nginx"}, ValueError, "httptools, evhttp"),
        ({"lifespan": "maybe"}, ValueError, "auto, on, off"),
        ({"threads": True}, TypeError, "integer"),
        ({"threads": -1}, ValueError, "at least 0"),
        ({"max_headers": 0}, ValueError, "at least 1"),
        ({"max_body": -1}, ValueError, "at least 0"),
        ({"max_requests": 0}, ValueError, "at least 1"),
        ({"root_path": "at"}, ValueError, 'begin with "/"'),
        ({"root_path": "/at/"}, ValueError, "not end with it"),
        ({"header_timeout": 0}, ValueError, "positive"),
        ({"header_timeout": "1"}, TypeError, "seconds"),
        ({"keep_alive_timeout": float("inf")}, ValueError, "positive"),
        ({"tls_key": "key.pem"}, ValueError, "without tls_cert"),
        ({"shutdown": None}, TypeError, "Shutdown"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_an_error(
    settings: dict[str, Any], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        Config(**{"app": print, **settings})


def test_an_application_is_told_by_what_it_is() -> None:
    async def function(scope: Any, receive: Any, send: Any) -> None: ...

    class Instance:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    class Plain:
        def __call__(self, environ: Any, start_response: Any) -> Any: ...

    assert is_asgi(function) and is_asgi(Instance())
    assert not is_asgi(Plain()) and not is_asgi(lambda environ, start_response: [])
    assert found(function) is function
    with pytest.raises(StartupError, match="apps_that_are_nowhere"):
        found("apps_that_are_nowhere:app")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        (":8000", ("", 8000)),
        ("[::1]:0", ("::1", 0)),
        ("example.org:65535", ("example.org", 65535)),
    ],
)
def test_an_address_is_taken_apart(text: str, address: tuple[str, int]) -> None:
    assert listening.address_in(text) == address


@pytest.mark.parametrize("text", ["", "80", "a:", "a:b", "a:65536", "::1:80", "a:-1", "a:٣"])
def test_what_is_no_address_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="address must"):
        listening.address_in(text)


def test_nothing_is_left_open_after_a_thousand_connections() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"hello"})

    with serving(app) as site:
        for number in range(300):
            with site.connect() as sock:
                sock.sendall(CLOSE[: number % len(CLOSE)] if number % 3 else CLOSE)
                if not number % 3:
                    assert statuses(rest_of(sock)) == [200]
        time.sleep(0.05)
