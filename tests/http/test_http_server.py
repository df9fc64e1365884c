"""HttpServer: where it listens, who answers, what it allows, and what connections go through."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    BoundSocket,
    BufferEvent,
    BufferEventOption,
    ClosedError,
    EventBase,
    HttpCommand,
    HttpServer,
    HttpServerFlag,
    HttpServerRequest,
    LibeventError,
    Listener,
    LoopFlag,
    TlsContext,
    lib,
)
from libevent_py.http import bound_socket
from libevent_py.vulnerabilities.known import Vulnerability
from libevent_py.vulnerabilities.probe import State
from tests.kit.certificates import Authority
from tests.kit.peers import connected, is_open, run_until
from tests.kit.web import Client, ask, curl, get, parsed

ANY = ("127.0.0.1", 0)


@pytest.fixture
def server(base: EventBase) -> HttpServer:
    """A server that listens, and answers with the path that was asked for."""
    server = HttpServer(base)
    server.bind_socket(*ANY)
    server.set_gencb(echo)
    return server


def echo(request: HttpServerRequest) -> None:
    request.send_reply(200, "OK", request.uri.encode())


def where(server: HttpServer) -> tuple[str, int]:
    address: tuple[str, int] = server.bound_sockets[0].address
    return address


# Where it listens.


def test_a_server_answers_where_it_is_bound(base: EventBase, server: HttpServer) -> None:
    status, headers, body = ask(base, where(server), get("/a?b"))
    assert (status, body) == ("HTTP/1.1 200 OK", b"/a?b")
    assert headers["Content-Length"] == "4"


def test_curl_is_answered(base: EventBase, server: HttpServer) -> None:
    host, port = where(server)
    url = f"http://{host}:{port}/from/curl"
    assert curl(base, url) == b"/from/curl"
    assert curl(base, url, url) == b"/from/curl" * 2  # by one connection


@pytest.mark.parametrize("bound", [True, False])
def test_programs_that_are_started_get_none_of_its_connections(
    base: EventBase, bound: bool
) -> None:
    def handler(request: HttpServerRequest) -> None:
        connection = request.connection
        assert connection is not None
        inheritable.append(os.get_inheritable(connection.bufferevent.fd))
        request.send_reply(200)

    inheritable: list[bool] = []
    server = HttpServer(base)
    server.set_gencb(handler)
    taken = server.bind_socket(*ANY) if bound else server.accept_socket(socket.create_server(ANY))
    ask(base, taken.address, get())
    assert [os.get_inheritable(taken.fd), *inheritable] == [False, False]


def test_a_bound_socket_knows_its_address(base: EventBase) -> None:
    server = HttpServer(base)
    bound = server.bind_socket("127.0.0.1", 0)
    assert bound.address == ("127.0.0.1", bound.port)
    assert bound.port > 0
    assert bound.fd == bound.listener.fd
    assert bound.server is server
    assert server.bound_sockets == [bound]
    assert lib.evhttp_bound_socket_get_listener(bound.pointer) == bound.listener.pointer


def test_a_name_is_looked_up_and_none_stands_for_all_addresses(base: EventBase) -> None:
    server = HttpServer(base)
    assert server.bind_socket("localhost", 0).address[0] in ("127.0.0.1", "::1")
    assert server.bind_socket(None, 0).address[0] == "0.0.0.0"
    assert server.bind_socket("::1", 0).address[0] == "::1"


def test_an_address_that_is_taken_is_an_os_error(base: EventBase, server: HttpServer) -> None:
    with socket.socket() as taken:
        taken.bind(ANY)
        with pytest.raises(OSError, match="Address already in use"):
            server.bind_socket(*taken.getsockname())
    with pytest.raises(ValueError, match="port"):
        server.bind_socket("127.0.0.1", 70000)
    assert len(server.bound_sockets) == 1


def test_a_socket_that_listens_already_is_accepted_on(base: EventBase) -> None:
    server = HttpServer(base)
    server.set_gencb(echo)
    listening = socket.create_server(ANY)
    address = listening.getsockname()
    bound = server.accept_socket(listening)
    assert listening.fileno() == -1  # it is the server's
    assert not os.get_blocking(bound.fd)
    assert ask(base, address, get())[0] == "HTTP/1.1 200 OK"
    fd = bound.fd
    server.close()
    assert not is_open(fd)


def test_a_listener_belongs_to_the_server_that_is_bound_to_it(base: EventBase) -> None:
    server = HttpServer(base)
    server.set_gencb(echo)
    listener = Listener(base, ANY, lambda *_: pytest.fail("it was called"))
    address = listener.address
    bound = server.bind_listener(listener)
    assert bound.listener is listener
    assert ask(base, address, get("/x"))[2] == b"/x"
    with pytest.raises(ValueError, match="belongs to <BoundSocket"):
        listener.callback = print
    with pytest.raises(ValueError, match="to a server already"):
        server.bind_listener(listener)
    listener.disable()
    listener.enable()
    assert ask(base, address, get("/y"))[2] == b"/y"
    listener.close()
    assert bound.closed
    assert listener.closed
    assert server.bound_sockets == []
    with pytest.raises(ConnectionRefusedError):
        connected(address)


def test_only_a_listener_of_the_same_base_can_be_bound(base: EventBase) -> None:
    server = HttpServer(base)
    with pytest.raises(TypeError, match="listener must be a Listener"):
        server.bind_listener(None)  # type: ignore[arg-type]
    with (
        EventBase() as other,
        Listener(other, ANY, None) as listener,
        pytest.raises(ValueError, match="own base"),
    ):
        server.bind_listener(listener)


def test_closing_a_bound_socket_ends_accepting_there_and_nothing_else(
    base: EventBase, server: HttpServer
) -> None:
    bound = server.bound_sockets[0]
    address = bound.address
    client = Client(base, address).send(b"GET /1 HTTP/1.1\r\n\r\n")
    client.until(lambda received: b"/1" in received)
    bound.close()
    bound.close()
    assert bound.closed
    with pytest.raises(ClosedError):
        _ = bound.fd
    with pytest.raises(ClosedError):
        _ = bound.listener
    with pytest.raises(ConnectionRefusedError):
        connected(address)
    client.send(b"GET /2 HTTP/1.1\r\n\r\n").until(lambda received: b"/2" in received)
    client.close()


def test_a_bound_socket_that_nobody_holds_goes_on(base: EventBase, server: HttpServer) -> None:
    assert isinstance(server.bound_sockets[0], BoundSocket)
    address = where(server)
    del server
    assert ask(base, address, get())[0] == "HTTP/1.1 200 OK"


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Let no further descriptor be opened."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as lowest:
        number = lowest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_socket_that_fails_to_accept_tells_so(base: EventBase, server: HttpServer) -> None:
    told: list[int | None] = []

    def failed(listener: Listener, error: OSError) -> None:
        told.append(error.errno)
        listener.disable()

    listener = server.bound_sockets[0].listener
    listener.on_error = failed
    client = Client(base, where(server))
    with no_descriptor_left():
        run_until(base, lambda: told)
    assert told == [errno.EMFILE]
    listener.enable()
    assert client.send(get()).rest().startswith(b"HTTP/1.1 200")


@pytest.mark.slow
def test_a_socket_that_fails_to_accept_rests(
    base: EventBase, server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(base, where(server))
    with no_descriptor_left():
        run_until(base, lambda: caplog.records)
    assert "rests for 1.0 s" in caplog.text
    assert client.send(get()).rest().startswith(b"HTTP/1.1 200")


def test_a_server_of_a_path_has_clients_of_any_address(
    base: EventBase, server: HttpServer, tmp_path: Path
) -> None:
    seen: list[Any] = []

    def handler(request: HttpServerRequest) -> None:
        connection = request.connection
        assert connection is not None
        seen.append((request.peer, connection.address))
        request.send_reply(200, body=request.uri.encode())

    server.set_gencb(handler)
    path = str(tmp_path / "server")
    bound = server.bind_listener(Listener(base, path, None))
    assert bound.address == path
    with pytest.raises(ValueError, match="has no port"):
        _ = bound.port
    assert curl(base, "--unix-socket", path, "http://localhost/unix") == b"/unix"
    with socket.socket(socket.AF_UNIX) as client:
        client.bind(str(tmp_path / "client").ljust(100, "x"))
        client.connect(path)
        client.sendall(get())
        run_until(base, lambda: len(seen) == 2)
    assert [address for _, address in seen] == ["", ""]


@pytest.mark.parametrize("state", ["vulnerable", "unknown"])
def test_a_path_is_refused_where_its_clients_could_end_the_process(
    base: EventBase,
    server: HttpServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: State,
) -> None:
    hole = Vulnerability("CVE-2026-63388", "a hole", state, "what was seen")
    monkeypatch.setattr(bound_socket, "known_vulnerabilities", lambda: [hole])
    with (
        Listener(base, str(tmp_path / "server"), None) as listener,
        pytest.raises(LibeventError, match=rf"{state} in it \(what was seen\)"),
    ):
        server.bind_listener(listener)
    assert len(server.bound_sockets) == 1


# Who answers.


def test_each_path_has_its_own_handler_and_the_rest_the_general_one(
    base: EventBase, server: HttpServer
) -> None:
    server.set_cb("/a b", lambda request: request.send_reply(200, body=b"its own"))
    assert ask(base, where(server), get("/a%20b?query"))[2] == b"its own"
    assert ask(base, where(server), get("/other"))[2] == b"/other"
    server.del_cb("/a b")
    assert ask(base, where(server), get("/a%20b"))[2] == b"/a%20b"


def test_without_a_handler_libevent_says_404(base: EventBase, server: HttpServer) -> None:
    server.set_gencb(None)
    assert ask(base, where(server), get("/<"))[0] == "HTTP/1.1 404 Not Found"
    server.set_gencb(echo)
    assert ask(base, where(server), get())[0] == "HTTP/1.1 200 OK"


def test_handlers_and_paths_are_checked(server: HttpServer) -> None:
    server.set_cb("/twice", echo)
    with pytest.raises(ValueError, match="path '/twice' has a handler already"):
        server.set_cb("/twice", echo)
    with pytest.raises(KeyError, match="path '/none' has no handler"):
        server.del_cb("/none")
    with pytest.raises(ValueError, match="path must not contain a NUL"):
        server.set_cb("/\0", echo)
    for use in (server.set_gencb, lambda handler: server.set_cb("/x", handler)):
        with pytest.raises(TypeError, match="handler must be callable"):
            use(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="base must be an EventBase"):
        HttpServer(None)  # type: ignore[arg-type]


def test_a_handler_can_be_replaced_inside_itself(base: EventBase, server: HttpServer) -> None:
    def once(request: HttpServerRequest) -> None:
        server.del_cb("/once")
        server.set_cb("/once", lambda later: later.send_reply(200, body=b"second"))
        request.send_reply(200, body=b"first")

    server.set_cb("/once", once)
    assert ask(base, where(server), get("/once"))[2] == b"first"
    assert ask(base, where(server), get("/once"))[2] == b"second"


# What a request tells.


def test_a_request_tells_what_was_asked(base: EventBase, server: HttpServer) -> None:
    seen: list[Any] = []

    def handler(request: HttpServerRequest) -> None:
        connection = request.connection
        assert connection is not None
        assert connection is request.connection
        assert connection.server is request.server is server
        assert connection.address == connection.peer == request.peer
        seen.extend((request.command, request.uri, request.host, request.version, request.peer))
        seen.append(request.input_headers["X-Thing"])
        seen.append(bytes(request.input_buffer))
        request.output_headers["X-Other"] = "yes"
        request.output_buffer.add(b"begun, ")
        request.send_reply(201, None, b"done")

    server.set_gencb(handler)
    client = Client(base, where(server))
    head = get("/p?q=1", method="POST", more="X-Thing: 1\r\nContent-Length: 4\r\n")
    status, headers, body = parsed(client.send(head + b"body").rest())
    assert seen[:4] == [HttpCommand.POST, "/p?q=1", "a.test", (1, 1)]
    assert seen[5:] == ["1", b"body"]
    assert status == "HTTP/1.1 201 Created"
    assert headers["X-Other"] == "yes"
    assert body == b"begun, done"


# Virtual hosts and aliases.


def named(name: str, path: str = "/") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()


def says(text: bytes) -> Any:
    return lambda request: request.send_reply(200, body=text)


def test_a_virtual_host_answers_for_the_names_of_its_pattern(
    base: EventBase, server: HttpServer
) -> None:
    vhost, inner = HttpServer(base), HttpServer(base)
    vhost.set_gencb(says(b"vhost"))
    inner.set_gencb(says(b"inner"))
    server.add_virtual_host("*.example", vhost)
    vhost.add_virtual_host("deep.example", inner)
    assert server.virtual_hosts == {vhost: "*.example"}
    assert ask(base, where(server), named("www.EXAMPLE"))[2] == b"vhost"
    assert ask(base, where(server), named("deep.example"))[2] == b"inner"
    assert ask(base, where(server), named("www.test"))[2] == b"/"
    inner.close()
    assert ask(base, where(server), named("deep.example"))[2] == b"vhost"
    server.remove_virtual_host(vhost)
    assert ask(base, where(server), named("www.example"))[2] == b"/"
    vhost.bind_socket(*ANY)
    assert ask(base, where(vhost), named("any"))[2] == b"vhost"


def test_an_alias_comes_before_patterns(base: EventBase, server: HttpServer) -> None:
    vhost = HttpServer(base)
    vhost.set_gencb(says(b"vhost"))
    server.add_virtual_host("*.test", vhost)
    server.add_server_alias("mine.test")
    assert ask(base, where(server), named("mine.test"))[2] == b"/"
    server.remove_server_alias("mine.test")
    assert ask(base, where(server), named("mine.test"))[2] == b"vhost"
    with pytest.raises(KeyError, match="this server has no alias"):
        server.remove_server_alias("mine.test")


def test_virtual_hosts_make_no_circles_and_belong_to_one_parent(
    base: EventBase, server: HttpServer
) -> None:
    vhost, inner = HttpServer(base), HttpServer(base)
    server.add_virtual_host("a", vhost)
    vhost.add_virtual_host("b", inner)
    with pytest.raises(ValueError, match="already"):
        server.add_virtual_host("c", inner)
    with pytest.raises(ValueError, match="listens itself"):
        inner.add_virtual_host("c", server)
    alone = HttpServer(base)
    with pytest.raises(ValueError, match="this server"):
        alone.add_virtual_host("c", alone)
    server.remove_virtual_host(vhost)
    with pytest.raises(ValueError, match="must not be this server or one of its parents"):
        inner.add_virtual_host("c", vhost)
    with pytest.raises(ValueError, match="no virtual host of this server"):
        server.remove_virtual_host(inner)
    with pytest.raises(ValueError, match="can't listen"):
        inner.bind_socket(*ANY)
    with EventBase() as other, pytest.raises(ValueError, match="own base"):
        server.add_virtual_host("c", HttpServer(other))
    with pytest.raises(TypeError, match="vhost must be an HttpServer"):
        server.add_virtual_host("c", None)  # type: ignore[arg-type]


def test_a_virtual_host_is_closed_with_its_parent(base: EventBase, server: HttpServer) -> None:
    vhost, inner = HttpServer(base), HttpServer(base)
    server.add_virtual_host("a", vhost)
    vhost.add_virtual_host("b", inner)
    server.close()
    assert vhost.closed
    assert inner.closed


# What it allows.


def test_only_allowed_methods_reach_a_handler(base: EventBase, server: HttpServer) -> None:
    assert HttpCommand.PATCH not in server.allowed_methods
    assert ask(base, where(server), get(method="PATCH"))[0] == "HTTP/1.1 501 Not Implemented"
    server.allowed_methods = HttpCommand.PATCH
    assert server.allowed_methods == HttpCommand.PATCH
    assert ask(base, where(server), get(method="PATCH"))[0] == "HTTP/1.1 200 OK"
    assert ask(base, where(server), get())[0] == "HTTP/1.1 501 Not Implemented"
    with pytest.raises(ValueError, match="allowed_methods"):
        server.allowed_methods = 1 << 15


def test_headers_and_bodies_that_are_too_long_are_refused(
    base: EventBase, server: HttpServer
) -> None:
    assert server.max_headers_size is None
    assert server.max_body_size is None
    server.max_headers_size, server.max_body_size = 200, 10
    assert (server.max_headers_size, server.max_body_size) == (200, 10)
    long = get(more="X: " + "x" * 200 + "\r\n")
    assert ask(base, where(server), long)[0] == "HTTP/1.1 400 Bad Request"
    body = get(method="POST", more="Content-Length: 11\r\n") + b"x" * 11
    assert ask(base, where(server), body)[0] == "HTTP/1.1 413 Request Entity Too Large"
    server.max_headers_size = server.max_body_size = None
    assert ask(base, where(server), long)[0] == "HTTP/1.1 200 OK"
    assert ask(base, where(server), body)[0] == "HTTP/1.1 200 OK"
    for name in ("max_headers_size", "max_body_size"):
        with pytest.raises(ValueError, match=name):
            setattr(server, name, -1)


@pytest.mark.parametrize("bevcb", [None, BufferEvent, lambda _: None])
def test_a_line_with_a_chunks_size_does_not_grow_for_ever(
    base: EventBase, server: HttpServer, bevcb: Any
) -> None:
    server.max_headers_size, server.max_body_size = 1000, 100_000
    server.set_bevcb(bevcb)
    client = Client(base, where(server))
    client.send(b"PUT / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent = 0
    while not client.ended:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            sent += client.sock.send(b"1" * 4096)
        base.loop(LoopFlag.NONBLOCK)
        client.poll()
        assert sent < 10_000_000  # it may have gone to the system's buffers
    client.close()
    for more in ("Transfer-Encoding: chunked\r\n", "Content-Length: 100000\r\n"):
        body = b"1" * 100_000
        text = b"186a0\r\n%s\r\n0\r\n\r\n" % body if "chunked" in more else body
        asking = Client(base, where(server)).send(get(method="PUT", more=more))
        while text:
            with contextlib.suppress(BlockingIOError):
                text = text[asking.sock.send(text) :]
            base.loop(LoopFlag.NONBLOCK)
        assert asking.rest().startswith(b"HTTP/1.1 200")


def test_an_idle_connection_is_closed_after_the_timeout(
    base: EventBase, server: HttpServer
) -> None:
    assert server.timeout is None
    server.timeout = 0.05
    assert server.timeout == 0.05
    assert Client(base, where(server)).rest() == b""
    server.timeout = 0  # the shortest
    assert Client(base, where(server)).rest() == b""
    with pytest.raises(ValueError, match="timeout"):
        server.timeout = -1
    server.timeout = None
    client = Client(base, where(server))
    end = time.monotonic() + 0.2
    run_until(base, lambda: time.monotonic() > end)
    client.send(get()).rest()
    assert client.received.startswith(b"HTTP/1.1 200")


def test_a_reply_without_a_type_gets_the_default_one(base: EventBase, server: HttpServer) -> None:
    assert server.default_content_type == "text/html; charset=ISO-8859-1"
    server.default_content_type = "text/" + "plain"
    for _ in range(100):
        bytearray(1000)  # what was freed would be overwritten
    assert ask(base, where(server), get())[1]["Content-Type"] == "text/plain"
    server.default_content_type = None
    assert "Content-Type" not in ask(base, where(server), get())[1]
    with pytest.raises(ValueError, match="one line"):
        server.default_content_type = "a\r\nb: c"


def test_flags_can_be_set(server: HttpServer) -> None:
    assert server.flags == HttpServerFlag(0)
    server.flags = HttpServerFlag.LINGERING_CLOSE
    assert server.flags == HttpServerFlag.LINGERING_CLOSE
    with pytest.raises(ValueError, match="flags"):
        server.flags = 1 << 20


# HTTPS, and other bufferevents.


@pytest.fixture
def secured(server: HttpServer, authority: Authority) -> Iterator[HttpServer]:
    """The same server by HTTPS."""
    with TlsContext(
        server_side=True,
        certfile=authority.server.certfile,
        keyfile=authority.server.keyfile,
    ) as context:
        server.tls = context
        assert server.tls is context
        yield server


def test_with_a_context_a_server_speaks_https(
    base: EventBase, secured: HttpServer, authority: Authority
) -> None:
    versions: list[str | None] = []

    def handler(request: HttpServerRequest) -> None:
        connection = request.connection
        assert connection is not None
        versions.append(connection.bufferevent.tls_version)
        request.send_reply(200, body=b"secret" * 50000)

    secured.set_gencb(handler)
    url = f"https://localhost:{where(secured)[1]}/"
    ca = ("--cacert", str(authority.directory / "ca.pem"), "-4")
    assert curl(base, *ca, url) == b"secret" * 50000
    assert curl(base, *ca, url, url) == b"secret" * 100000
    assert set(versions) == {"TLSv1.3"}


def test_who_speaks_no_tls_to_a_server_of_https_is_not_answered(
    base: EventBase, secured: HttpServer
) -> None:
    assert b"HTTP/1.1 200" not in Client(base, where(secured)).send(get()).rest()


def test_only_a_servers_context_will_do(server: HttpServer) -> None:
    with TlsContext(verify=False) as context, pytest.raises(ValueError, match="for servers"):
        server.tls = context
    with pytest.raises(TypeError, match="tls must be a TlsContext"):
        server.tls = "secret"  # type: ignore[assignment]


def test_a_connection_goes_through_the_bufferevent_it_is_given(
    base: EventBase, server: HttpServer
) -> None:
    made: list[BufferEvent | None] = []

    def make(base: EventBase) -> BufferEvent | None:
        made.append(BufferEvent(base) if len(made) != 1 else None)
        return made[-1]

    server.set_bevcb(make)
    for number in range(3):
        client = Client(base, where(server)).send(b"GET /x HTTP/1.1\r\n\r\n")
        client.until(lambda received: b"/x" in received)
        bev = made[number]
        if bev is not None:
            assert bev.fd >= 0
            with pytest.raises(ValueError, match="belongs to <HttpServer"):
                bev.close()
        client.close()
        run_until(base, lambda bev=bev: bev is None or bev.closed)  # type: ignore[misc]
    with pytest.raises(TypeError, match="callback must be callable"):
        server.set_bevcb(3)  # type: ignore[arg-type]
    server.set_bevcb(None)
    assert ask(base, where(server), get())[0] == "HTTP/1.1 200 OK"
    assert len(made) == 3


def test_what_is_no_fresh_bufferevent_is_refused_and_the_connection_closed(
    base: EventBase, server: HttpServer
) -> None:
    told: list[str] = []
    base.on_error = lambda error, source: told.append(f"{source is server} {error}")
    one, _other = BufferEvent.pair(base)
    left, right = socket.socketpair()
    used = BufferEvent(base, left)
    filtered = BufferEvent.filter(BufferEvent(base), None, None)
    loose = BufferEvent(base, -1, BufferEventOption(0))
    with EventBase() as foreign:
        wrong: list[Any] = ["text", one, used, filtered, loose, BufferEvent(foreign)]
        for thing in wrong:
            server.set_bevcb(lambda _base, thing=thing: thing)  # type: ignore[misc]
            assert Client(base, where(server)).send(get()).rest() == b""
            assert type(thing) is str or not thing.closed
    server.set_bevcb(lambda _base: 1 / 0)  # type: ignore[arg-type,return-value]
    assert Client(base, where(server)).send(get()).rest() == b""
    assert len(told) == 7
    assert all(text.startswith("True ") for text in told)
    right.close()


def test_a_context_that_is_closed_lets_nobody_in(base: EventBase, secured: HttpServer) -> None:
    told: list[Exception] = []
    base.on_error = lambda error, _source: told.append(error)
    assert secured.tls is not None
    secured.tls.close()
    assert Client(base, where(secured)).send(get()).rest() == b""
    assert [type(error) for error in told] == [ClosedError]


# Files.


def test_a_file_is_sent_without_being_read_into_memory(
    base: EventBase, server: HttpServer, tmp_path: Path
) -> None:
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(64 << 20)

    def handler(request: HttpServerRequest) -> None:
        with path.open("rb") as file:
            request.output_buffer.add_file(file)
        request.send_reply(200)

    server.set_gencb(handler)
    before = _peak()
    client = Client(base, where(server)).send(get())
    size = 0

    def drained() -> bool:
        nonlocal size
        client.poll()
        size += len(client.received)
        client.received = b""
        return client.ended

    run_until(base, drained)
    client.close()
    assert size > 64 << 20
    assert _peak() - before < 32 << 10  # in KiB


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"])
def test_a_host_with_a_port_in_it_is_not_looked_up_to_listen_on(base: EventBase, host: str) -> None:
    with HttpServer(base) as server, pytest.raises(ValueError, match="host must have no port in"):
        server.bind_socket(host, 0)
