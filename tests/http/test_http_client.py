"""HTTP's client: requests, responses, and what keeps a request from one."""

from __future__ import annotations

import errno
import re
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventOption,
    ClosedError,
    DnsError,
    EventBase,
    FileSegment,
    HttpCommand,
    HttpConnection,
    HttpConnectionFlag,
    HttpError,
    HttpRequest,
    HttpRequestError,
)
from tests.kit.dns_peers import SILENCE, NameServer, client_of
from tests.kit.http_peers import (
    NOTHING,
    OK,
    Asked,
    Server,
    ask,
    chunked,
    client,
    response,
    then_close,
)
from tests.kit.peers import nobody_listens, run_until, settle
from tests.kit.select_limit import PRELUDE
from tests.kit.support import run_python

GET = HttpCommand.GET


def test_a_request_is_sent_and_its_response_is_read(base: EventBase) -> None:
    server = Server(base, response(b"a body", "X-One: 1", status="201 Made"))
    connection = client(base, server)
    asked = Asked()
    asked.request.output_headers.update({"Host": "server.test", "X-Two": "2"})
    asked.on(connection, "/path?query")
    run_until(base, lambda: asked.ended)
    assert server.requests == [b"GET /path?query HTTP/1.1\r\nHost: server.test\r\nX-Two: 2\r\n\r\n"]
    assert asked.error is None
    assert (asked.code, asked.body) == (201, b"a body")
    assert asked.headers == [("X-One", "1"), ("Content-Length", "6")]
    request = asked.request
    assert request.response_code_line == "Made"
    assert (request.uri, request.command, request.version) == ("/path?query", GET, (1, 1))
    assert connection.peer == ("127.0.0.1", server.port) == connection.address
    assert asked.ended == 1


def test_requests_go_one_after_the_other_over_one_connection(base: EventBase) -> None:
    server = Server(base, OK)
    connection = client(base, server)
    asked = [Asked().on(connection, f"/{number}") for number in range(5)]
    run_until(base, lambda: asked[-1].ended)
    assert [one.body for one in asked] == [b"hello"] * 5
    assert [one.split()[1] for one in server.requests] == [b"/%d" % n for n in range(5)]
    assert len(server.connections) == 1


def test_a_connection_that_the_server_ends_is_made_again(base: EventBase) -> None:
    closing = then_close(response(b"1", "Connection: close"))
    server = Server(base, closing, OK)
    connection = client(base, server)
    one, other = Asked().on(connection), Asked().on(connection)
    run_until(base, lambda: other.ended)
    assert (one.body, other.body) == (b"1", b"hello")
    assert len(server.connections) == 2


@pytest.mark.parametrize("command", list(HttpCommand), ids=lambda command: command.name)
def test_each_method_is_sent_by_its_name(base: EventBase, command: HttpCommand) -> None:
    server = Server(base, OK if command != HttpCommand.HEAD else response(b""))
    assert ask(client(base, server), command=command).error is None
    assert server.requests[0].startswith(f"{command.name} / HTTP/1.1\r\n".encode())


@pytest.mark.parametrize("command", [HttpCommand.POST, HttpCommand.PUT])
def test_a_body_is_sent_with_its_length(base: EventBase, command: HttpCommand) -> None:
    server = Server(base, OK)
    ask(client(base, server), command=command, body=b"x" * 100_000)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert b"Content-Length: 100000" in head
    assert body == b"x" * 100_000


def test_a_file_is_sent(base: EventBase, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(bytes(range(256)) * 1000)
    server = Server(base, OK)
    connection = client(base, server)
    asked = Asked()
    with path.open("rb") as file, FileSegment(file) as segment:
        asked.request.output_buffer.add_file_segment(segment)
    asked.on(connection, command=HttpCommand.PUT)
    run_until(base, lambda: asked.ended)
    assert server.requests[0].endswith(b"\r\n\r\n" + path.read_bytes())


def test_what_waits_for_100_continue_is_sent_after_it(base: EventBase) -> None:
    def go_on(bev: BufferEvent) -> None:
        assert server.requests[-1].endswith(b"\r\n\r\n")
        bev.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        bev.on_read = lambda bev: bev.write(OK) if bev.read() == b"the body" else None

    codes = []
    server = Server(base, go_on)
    asked = Asked(on_header=lambda request: codes.append(request.response_code))
    asked.request.output_headers["Expect"] = "100-continue"
    asked.on(client(base, server), command=HttpCommand.POST, body=b"the body")
    run_until(base, lambda: asked.ended)
    assert (asked.code, asked.body, codes) == (200, b"hello", [200])


def test_a_chunked_body_is_put_together(base: EventBase) -> None:
    server = Server(base, chunked(b"one", b"two", b"three"))
    assert ask(client(base, server)).body == b"onetwothree"


def test_a_body_can_end_with_the_connection(base: EventBase) -> None:
    server = Server(base, then_close(b"HTTP/1.1 200 OK\r\n\r\nall of it"))
    asked = ask(client(base, server))
    assert (asked.error, asked.body) == (None, b"all of it")


def test_a_body_can_be_taken_chunk_by_chunk(base: EventBase) -> None:
    seen: list[Any] = []
    asked = Asked(
        on_header=lambda request: seen.append(request.response_code),
        on_chunk=lambda request: seen.append(bytes(request.input_buffer)),
    )
    asked.then = lambda request: seen.append(len(request.input_buffer))
    server = Server(base, chunked(b"one", b"two", b"three"))
    asked.on(client(base, server))
    run_until(base, lambda: asked.ended)
    assert seen == [200, b"one", b"two", b"three", 0]


def test_a_body_of_known_length_can_be_taken_part_by_part(base: EventBase) -> None:
    parts: list[int] = []
    asked = Asked(on_chunk=lambda request: parts.append(len(request.input_buffer.remove())))
    server = Server(base, response(b"x" * 1_000_000))
    asked.on(client(base, server))
    run_until(base, lambda: asked.ended)
    assert asked.error is None
    assert sum(parts) == 1_000_000
    assert max(parts) < 200_000


@pytest.mark.slow
def test_what_is_streamed_takes_no_memory(tmp_path: Path) -> None:
    size = 1 << 28
    path = tmp_path / "upload"
    with path.open("wb") as file:
        file.truncate(size)
    run_python(
        """
    import resource, socket, sys, threading
    from libevent_py import *
    from tests.kit.support import PATIENCE

    size, path = int(sys.argv[1]), sys.argv[2]

    def anonymous():
        with open("/proc/self/statm") as file:
            resident, shared = map(int, file.read().split()[1:3])
        return (resident - shared) * resource.getpagesize()

    def serve():
        peer = server.accept()[0]
        peer.settimeout(PATIENCE)
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
        chunk = b"10000\\r\\n%s\\r\\n" % bytes(65536)
        for _ in range(size // 65536):
            peer.sendall(chunk)
        peer.sendall(b"0\\r\\n\\r\\n")
        head = b"PUT / HTTP/1.1\\r\\nContent-Length: %d\\r\\n\\r\\n" % size
        got, space = -len(head), bytearray(1 << 20)
        while got < size:
            got += peer.recv_into(space)
        peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
        peer.close()
        totals.append(got)

    def ended(request):
        assert request.error is None, request.error
        totals.append(request.response_code)

    def on_chunk(request):
        global total, most
        total += len(request.input_buffer)
        most = max(most, anonymous())

    total, totals, most = 0, [], 0
    mapped = FileSegmentFlag(0)
    server = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    with EventBase() as base:
        connection = HttpConnection(base, *server.getsockname())
        before = anonymous()
        connection.make_request(HttpRequest(ended, on_chunk=on_chunk), HttpCommand.GET, "/")
        upload = HttpRequest(ended)
        with open(path, "rb") as file, FileSegment(file, flags=mapped) as segment:
            upload.output_buffer.add_file_segment(segment)
        connection.make_request(upload, HttpCommand.PUT, "/")
        timer = Event.timer(base, lambda *_: peak(), persist=True).add(0.01)

        def peak():
            global most
            most = max(most, anonymous())
            if len(totals) == 3:
                base.loopexit()

        base.loopexit(PATIENCE)
        base.dispatch()
    thread.join(PATIENCE)
    server.close()
    assert (total, totals) == (size, [200, size, 200]), (total, totals)
    assert most - before < 32 << 20, (most, before)
    """.replace("\\\\", "\\"),
        str(size),
        str(path),
    )


def test_duplicate_headers_keep_their_order(base: EventBase) -> None:
    server = Server(base, response(b"", "Set-Cookie: a=1", "set-cookie: b=2"))
    asked = ask(client(base, server))
    assert asked.headers[:2] == [("Set-Cookie", "a=1"), ("set-cookie", "b=2")]


def test_a_response_outlives_its_connection(base: EventBase) -> None:
    connection = client(base, Server(base, OK))
    asked = Asked()
    asked.then = lambda request: connection.close()
    asked.on(connection)
    run_until(base, lambda: asked.ended)
    settle(base)
    assert bytes(asked.request.input_buffer) == b"hello"
    assert asked.request.input_headers["content-length"] == "5"
    assert asked.request.connection is None


def test_connect_turns_the_connection_over_to_what_is_behind_the_proxy(base: EventBase) -> None:
    server = Server(base, b"HTTP/1.1 200 Connection established\r\n\r\n", OK)
    connection = client(base, server)
    through = Asked()
    asked = Asked()
    asked.then = lambda request: through.on(connection, "/behind")
    asked.on(connection, "behind.test:80", HttpCommand.CONNECT)
    run_until(base, lambda: through.ended)
    assert (asked.code, through.body) == (200, b"hello")
    assert server.requests[0].startswith(b"CONNECT behind.test:80 HTTP/1.1\r\n")
    assert len(server.connections) == 1


# What goes wrong.


def fails(asked: Asked, code: HttpRequestError | None) -> HttpError:
    """Check that the request has failed for that reason, and was told so once."""
    assert asked.ended == 1
    assert isinstance(asked.error, HttpError)
    assert asked.error.code == code
    assert "to 127.0.0.1:" in str(asked.error)
    return asked.error


def test_a_connection_that_is_refused_fails_what_waits_for_it(base: EventBase) -> None:
    host, port = nobody_listens()
    connection = HttpConnection(base, host, port)
    one, other = Asked().on(connection), Asked().on(connection)
    run_until(base, lambda: other.ended)
    for asked in one, other:
        error = fails(asked, None)
        assert isinstance(error.__cause__, ConnectionRefusedError)
        assert "Connection refused" in str(error)
        assert asked.code == 0


def test_a_name_that_is_not_found_says_so(base: EventBase) -> None:
    connection = HttpConnection(base, "no.such.name.invalid", 80)
    asked = ask(connection)
    assert isinstance(asked.error.__cause__, DnsError)
    assert "no.such.name.invalid" in str(asked.error)
    assert asked.ended == 1


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (None, HttpRequestError.EOF),
        (then_close(b"HTTP/1.1 200 OK\r\nContent-Le"), HttpRequestError.EOF),
        (then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfew"), HttpRequestError.EOF),
        (then_close(chunked(b"one")[:-3]), HttpRequestError.EOF),
        (b"what is this\r\n\r\n", HttpRequestError.INVALID_HEADER),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", HttpRequestError.INVALID_HEADER),
        (b"HTTP/1.1 0 Zero\r\n\r\n", HttpRequestError.INVALID_HEADER),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", HttpRequestError.INVALID_HEADER),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            HttpRequestError.DATA_TOO_LONG,
        ),
    ],
)
def test_a_response_that_is_none_is_an_error(
    base: EventBase, answer: Any, code: HttpRequestError
) -> None:
    told: list[int] = []
    connection = client(base, Server(base, answer, OK))
    asked = Asked(on_error=lambda request, code: told.append(code)).on(connection)
    run_until(base, lambda: asked.ended)
    fails(asked, code)
    assert told == [code]
    assert ask(connection).body == b"hello"


def test_a_server_that_says_nothing_is_not_waited_for_longer_than_the_timeout(
    base: EventBase,
) -> None:
    connection = client(base, Server(base, NOTHING))
    connection.timeout = 0.05
    fails(ask(connection), HttpRequestError.TIMEOUT)


def test_responses_that_are_too_long_are_refused(base: EventBase) -> None:
    connection = client(
        base, Server(base, response(b"x" * 1000), OK, response(b"", f"A: {'b' * 999}"))
    )
    connection.max_body_size = 100
    fails(ask(connection), HttpRequestError.DATA_TOO_LONG)
    connection.max_headers_size = 100
    assert ask(connection).body == b"hello"
    fails(ask(connection), HttpRequestError.INVALID_HEADER)
    connection.max_headers_size = connection.max_body_size = None
    assert ask(connection).error is None


def test_headers_can_be_refused(base: EventBase) -> None:
    connection = client(base, Server(base, OK))
    asked = Asked(on_header=lambda request: False).on(connection)
    run_until(base, lambda: asked.ended)
    fails(asked, HttpRequestError.EOF)
    assert asked.code == 200


@pytest.mark.parametrize("where", ["on_header", "on_chunk", "on_error", "callback", "on_close"])
def test_what_a_callback_raises_comes_out_of_the_loop(base: EventBase, where: str) -> None:
    def fail(*arguments: object) -> None:
        raise KeyError(where)

    refuse = {"on_header": lambda request: False} if where == "on_error" else {}
    connection = client(base, Server(base, then_close(response(b"1", "Connection: close")), OK))
    asked = Asked(
        **refuse, **({where: fail} if where.startswith("on_") and where != "on_close" else {})
    )
    if where == "callback":
        asked.then = fail
    if where == "on_close":
        connection.on_close = fail
    asked.on(connection)
    with pytest.raises(KeyError, match=where):
        run_until(base, lambda: False)
    run_until(base, lambda: asked.ended)
    assert ask(connection).error is None
    assert asked.ended == 1


def test_a_local_port_that_is_taken_fails_the_request(base: EventBase) -> None:
    server = Server(base, OK)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        connection = client(base, server)
        connection.local_address = "127.0.0.1"
        connection.local_port = taken.getsockname()[1]
        one, other = Asked().on(connection), Asked().on(connection)
        run_until(base, lambda: other.ended)
    for asked in one, other:
        cause = fails(asked, None).__cause__
        assert isinstance(cause, OSError)
        assert cause.errno == errno.EADDRINUSE


@pytest.mark.parametrize("method", ["select", "epoll"])
def test_what_select_could_not_wait_for_fails_the_request(method: str) -> None:
    run_python(
        PRELUDE
        + """
from tests.kit.http_peers import OK, Asked, Server, client

with base() as base:
    server = Server(base, OK)
    connection = client(base, server)
    asked = Asked()
    with no_low_descriptors():
        asked.on(connection)
        run(base, lambda: asked.ended)
    assert (asked.error is None) is (method == "epoll"), asked.error
    if method == "select":
        assert "Invalid argument" in str(asked.error.__cause__)
""",
        method,
    )


def test_a_connection_comes_from_where_it_is_told_to(base: EventBase) -> None:
    server = Server(base, OK)
    host, port = nobody_listens()
    connection = client(base, server)
    connection.local_address, connection.local_port = host, port
    assert ask(connection).error is None
    with socket.socket(fileno=server.connections[0].fd) as peer:
        assert peer.getpeername() == (host, port)
        peer.detach()
    for setting in "local_address", "local_port":
        with pytest.raises(RuntimeError, match=f"{setting} must be set before"):
            setattr(connection, setting, getattr(connection, setting))


# Names that the loop looks up.


def test_the_loop_looks_a_host_up(base: EventBase) -> None:
    server = Server(base, then_close(response(b"1", "Connection: close")), OK)
    with NameServer(base, {"server.test": ["127.0.0.1"]}) as names, client_of(names) as dns:
        connection = HttpConnection(base, "server.test", server.port, dns_base=dns)
        connection.family = socket.AF_INET
        assert ask(connection).body == b"1"
        assert ask(connection).body == b"hello"
        assert names.names == ["server.test"] * 2
        assert connection.peer == ("server.test", server.port)
        assert connection.address == ("127.0.0.1", server.port)
        connection.close()


def test_a_host_that_does_not_exist_says_so(base: EventBase) -> None:
    with NameServer(base) as names, client_of(names) as dns:
        connection = HttpConnection(base, "server.test", 80, dns_base=dns)
        one, other = Asked().on(connection), Asked().on(connection)
        run_until(base, lambda: other.ended)
        for asked in one, other:
            assert isinstance(asked.error.__cause__, DnsError)
            assert "server.test" in str(asked.error)
        connection.close()


@pytest.mark.parametrize("how", ["cancel", "close", "close the resolver"])
def test_a_lookup_can_be_ended(base: EventBase, how: str) -> None:
    with NameServer(base, {"server.test": SILENCE}) as names, client_of(names) as dns:
        connection = HttpConnection(base, "server.test", 80, dns_base=dns)
        one, other = Asked().on(connection), Asked().on(connection)
        run_until(base, lambda: names.asked)
        if how == "cancel":
            one.request.cancel()
            fails_with = HttpRequestError.REQUEST_CANCEL
            assert (one.error.code, one.ended, other.ended) == (fails_with, 1, 0)
            connection.close()
        elif how == "close":
            connection.close()
        else:
            dns.close()
            assert "was closed" in str(one.error)
            assert connection.closed
        assert one.ended == other.ended == 1
    settle(base)


# Trying again.


def test_a_connection_is_tried_again(base: EventBase) -> None:
    host, port = nobody_listens()
    connection = HttpConnection(base, host, port)
    connection.retries, connection.initial_retry = 100, 0.001
    one, other = Asked().on(connection), Asked().on(connection)
    run_until(base, lambda: connection._queue.tries > 3)
    server = Server(base, OK, port=port)
    run_until(base, lambda: other.ended)
    assert (one.body, other.body, one.ended) == (b"hello", b"hello", 1)
    assert len(server.connections) == 1


def test_a_request_after_the_last_retry_is_tried_too(base: EventBase) -> None:
    host, port = nobody_listens()
    connection = HttpConnection(base, host, port)
    connection.retries, connection.initial_retry = 2, 0.001
    for _ in range(3):
        fails(ask(connection), None)
    Server(base, OK, port=port)
    assert ask(connection).body == b"hello"


def test_retries_wait_twice_as_long_each_time(
    base: EventBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    host, port = nobody_listens()
    connection = HttpConnection(base, host, port)
    connection.retries, connection.initial_retry = 6, 900.0
    asked = Asked().on(connection)
    for _ in range(6):
        run_until(base, lambda: connection._queue.timer is not None)
        timer = connection._queue.timer
        assert timer is not None
        waits.append(round((timer.expires or 0) - base.gettimeofday_cached, -1))
        timer.active()
        connection_timer = timer
        run_until(base, lambda: connection._queue.timer is not connection_timer)  # noqa: B023
    run_until(base, lambda: asked.ended)
    assert waits == [900, 1800, 3600, 3600, 3600, 3600]


def test_cancelling_the_last_request_stops_the_retries(base: EventBase) -> None:
    host, port = nobody_listens()
    connection = HttpConnection(base, host, port)
    connection.retries, connection.initial_retry = None, 0.001
    one, other = Asked().on(connection), Asked().on(connection)
    run_until(base, lambda: connection._queue.timer is not None)
    one.request.cancel()
    assert (one.ended, other.ended) == (1, 0)
    run_until(base, lambda: connection._queue.timer is not None)
    other.request.cancel()
    for asked in one, other:
        fails(asked, HttpRequestError.REQUEST_CANCEL)
    assert connection._queue.timer is None
    assert base.dispatch() is False
    Server(base, OK, port=port)
    assert ask(connection).body == b"hello"


# Cancelling, from everywhere.

MOMENTS = ["on_header", "on_chunk", "on_error", "callback", "on_close", "a timer", "outside"]


def at(base: EventBase, moment: str, act: Callable[[HttpConnection, Asked], object]) -> Asked:
    """Act at *moment* of a request that others wait behind; return it when all have ended."""

    def do(*arguments: object) -> None:
        if not done:
            done.append(True)
            act(connection, asked)

    done: list[bool] = []
    keep: dict[str, Any] = {moment: do} if moment in ("on_header", "on_chunk", "on_error") else {}
    if moment == "on_error":
        keep["on_header"] = lambda request: False
    last: Any = then_close(response(b"last", "Connection: close"))
    first = NOTHING if moment in ("a timer", "outside") else chunked(b"one", b"two")
    server = Server(base, last if moment in ("callback", "on_close") else first, OK)
    connection = client(base, server)
    asked = Asked(**keep)
    if moment == "callback":
        asked.then = do
    if moment == "on_close":
        connection.on_close = do
    asked.on(connection)
    behind = [Asked().on(connection) for _ in range(2)]
    if moment == "a timer":
        base.once(do, timeout=0.01)
    if moment == "outside":
        run_until(base, lambda: server.requests)
        do()
    run_until(base, lambda: done and asked.ended and all(other.ended for other in behind))
    settle(base)
    assert asked.ended == 1
    assert [other.ended for other in behind] == [1, 1]
    asked.behind = behind  # type: ignore[attr-defined]
    return asked


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_request_can_be_cancelled_at_any_moment(base: EventBase, moment: str) -> None:
    asked = at(base, moment, lambda connection, asked: asked.request.cancel())
    if moment in ("callback", "on_close"):  # it has ended already
        assert asked.error is None
    else:
        assert asked.error.code in (HttpRequestError.REQUEST_CANCEL, HttpRequestError.EOF)
    assert [other.body for other in asked.behind] == [b"hello", b"hello"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_connection_can_be_closed_at_any_moment(base: EventBase, moment: str) -> None:
    asked = at(base, moment, lambda connection, asked: connection.close())
    if moment == "callback":
        assert asked.error is None
        for other in asked.behind:  # type: ignore[attr-defined]
            assert "was closed" in str(other.error)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_request_can_be_closed_at_any_moment(base: EventBase, moment: str) -> None:
    asked = at(base, moment, lambda connection, asked: asked.request.close())
    assert asked.request.closed
    with pytest.raises(ClosedError):
        asked.request.input_buffer  # noqa: B018
    assert [other.body for other in asked.behind] == [b"hello", b"hello"]  # type: ignore[attr-defined]


def test_a_request_can_be_made_in_any_callback(base: EventBase) -> None:
    server = Server(base, then_close(response(b"1", "Connection: close")), OK)
    connection = client(base, server)
    more = [Asked() for _ in range(4)]

    def make(number: int) -> Callable[..., object]:
        return lambda *arguments: (
            None if more[number].ended else more[number].on(connection) and None
        )

    asked = Asked(on_header=make(0), on_chunk=make(1))
    asked.then = make(2)
    connection.on_close = lambda connection: None if more[3].request._asked else make(3)()
    asked.on(connection)
    run_until(base, lambda: all(one.ended for one in more))
    assert [one.body for one in more] == [b"hello"] * 4


def test_nobody_is_called_for_what_has_been_cancelled(base: EventBase) -> None:
    chunks: list[bytes] = []

    def on_chunk(request: HttpRequest) -> None:
        chunks.append(bytes(request.input_buffer))
        request.cancel()
        request.cancel()

    asked = Asked(on_chunk=on_chunk).on(client(base, Server(base, chunked(b"one", b"two"))))
    run_until(base, lambda: asked.ended)
    fails(asked, HttpRequestError.REQUEST_CANCEL)
    assert chunks == [b"one"]
    asked.request.cancel()
    assert asked.ended == 1


def test_cancelling_one_that_waits_tells_it_at_once(base: EventBase) -> None:
    server = Server(base, OK)
    connection = client(base, server)
    one, other = Asked().on(connection, "/1"), Asked().on(connection, "/2")
    other.request.cancel()
    fails(other, HttpRequestError.REQUEST_CANCEL)
    run_until(base, lambda: one.ended)
    settle(base)
    assert one.body == b"hello"
    assert len(server.requests) == 1


def test_a_connection_closes_itself_after_its_last_request_when_asked_to(base: EventBase) -> None:
    connection = client(base, Server(base, OK))
    connection.free_on_completion()
    one, other = Asked().on(connection), Asked().on(connection)
    run_until(base, lambda: other.ended)
    assert (one.body, other.body) == (b"hello", b"hello")
    assert connection.closed


def test_a_connection_that_can_not_be_made_closes_itself_too(base: EventBase) -> None:
    connection = HttpConnection(base, *nobody_listens())
    connection.free_on_completion()
    ask(connection)
    assert connection.closed


def test_the_end_of_a_connection_is_told(base: EventBase) -> None:
    closed: list[HttpConnection] = []
    server = Server(base, OK)
    connection = client(base, server)
    connection.on_close = closed.append
    ask(connection)
    assert closed == []
    server.connections[0].close()
    run_until(base, lambda: closed)
    assert closed == [connection]
    assert connection.on_close is not None
    assert ask(connection).error is None
    connection.close()
    settle(base)
    assert closed == [connection]


# Arguments.


@pytest.mark.parametrize(
    "uri", ["", "/a b", "/a\r\nb", "/\n", "/\0", "/\t", b"/\x7f", "/ HTTP/1.1"]
)
def test_a_uri_that_would_split_the_request_line_is_refused(base: EventBase, uri: Any) -> None:
    connection = client(base, Server(base, OK))
    with pytest.raises(ValueError, match="uri must"):
        connection.make_request(HttpRequest(print), GET, uri)


@pytest.mark.parametrize("command", [0, GET | HttpCommand.POST, 1 << 12])
def test_a_command_must_be_one(base: EventBase, command: int) -> None:
    connection = client(base, Server(base, OK))
    with pytest.raises(ValueError, match="command"):
        connection.make_request(HttpRequest(print), command, "/")


def test_a_request_is_made_once(base: EventBase) -> None:
    connection = client(base, Server(base, OK))
    asked = ask(connection)
    with pytest.raises(RuntimeError, match="has been made already"):
        asked.on(connection)
    closed = HttpRequest(print)
    closed.close()
    with pytest.raises(ClosedError):
        connection.make_request(closed, GET, "/")
    with pytest.raises(TypeError, match="HttpRequest"):
        connection.make_request("GET", GET, "/")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        asked.request.__init__(print)  # type: ignore[misc]


def test_callbacks_must_be_callable() -> None:
    for name in "callback", "on_header", "on_chunk", "on_error":
        with pytest.raises(TypeError, match=name):
            HttpRequest(**{"callback": print, name: 5})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"base": None}, TypeError),
        ({"host": ""}, ValueError),
        ({"host": "a\0b"}, ValueError),
        ({"host": 5}, TypeError),
        ({"port": 0}, ValueError),
        ({"port": 65536}, ValueError),
        ({"dns_base": 5}, TypeError),
        ({"tls": 5}, TypeError),
        ({"bufferevent": 5}, TypeError),
        ({"server_hostname": "x"}, ValueError),
    ],
)
def test_wrong_arguments_of_a_connection_are_named(
    base: EventBase, arguments: dict[str, Any], error: type[Exception]
) -> None:
    given = {"base": base, "dns_base": None, "host": "127.0.0.1", "port": 80, **arguments}
    with pytest.raises(error, match=next(iter(arguments))):
        HttpConnection(**given)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("timeout", -1, ValueError),
        ("timeout", "1", TypeError),
        ("family", socket.AF_UNIX, ValueError),
        ("flags", 1 << 20, ValueError),
        ("flags", HttpConnectionFlag.LINGERING_CLOSE, ValueError),
        ("max_headers_size", -1, ValueError),
        ("max_body_size", 1.5, TypeError),
        ("local_address", "localhost", ValueError),
        ("local_port", 65536, ValueError),
        ("retries", -1, ValueError),
        ("initial_retry", -1, ValueError),
        ("on_close", 5, TypeError),
    ],
)
def test_wrong_settings_are_named(
    base: EventBase, name: str, value: Any, error: type[Exception]
) -> None:
    connection = HttpConnection(base, "127.0.0.1", 80)
    with pytest.raises(error, match=name.replace("local_address", "address")):
        setattr(connection, name, value)


def test_settings_can_be_asked_for(base: EventBase) -> None:
    connection = HttpConnection(base, "127.0.0.1", 80)
    at_first = {
        "timeout": None,
        "family": socket.AF_UNSPEC,
        "flags": HttpConnectionFlag(0),
        "max_headers_size": None,
        "max_body_size": None,
        "local_address": None,
        "local_port": 0,
        "retries": 0,
        "initial_retry": 2.0,
        "on_close": None,
        "address": None,
    }
    assert {name: getattr(connection, name) for name in at_first} == at_first
    settings = {
        "timeout": 0.5,
        "family": socket.AF_INET,
        "flags": HttpConnectionFlag.REUSE_CONNECTED_ADDR,
        "max_headers_size": 1,
        "max_body_size": 0,
        "local_address": "127.0.0.1",
        "local_port": 1,
        "retries": None,
        "initial_retry": 0.5,
        "on_close": print,
    }
    for name, value in settings.items():
        setattr(connection, name, value)
    assert {name: getattr(connection, name) for name in settings} == settings
    connection.initial_retry = None
    assert connection.initial_retry == 2.0


def test_an_address_can_be_used_again_without_a_lookup(base: EventBase) -> None:
    server = Server(base, then_close(response(b"1", "Connection: close")), OK)
    connection = HttpConnection(base, "localhost", server.port)
    connection.family = socket.AF_INET
    connection.flags = HttpConnectionFlag.REUSE_CONNECTED_ADDR
    assert ask(connection).body == b"1"
    assert ask(connection).body == b"hello"


# The bufferevent below.


def test_a_bufferevent_can_be_given(base: EventBase) -> None:
    bev = BufferEvent(base, on_read=print)
    connection = client(base, Server(base, OK), bufferevent=bev)
    assert connection.bufferevent is bev
    assert ask(connection).body == b"hello"
    with pytest.raises(ValueError, match="belongs to"):
        bev.close()
    connection.close()
    assert bev.closed


def test_the_connections_own_bufferevent_ends_with_it(base: EventBase) -> None:
    connection = client(base, Server(base, OK))
    ask(connection)
    bev = connection.bufferevent
    assert bev.fd >= 0
    assert connection.bufferevent is bev
    buffer = bev.input
    connection.close()
    assert bev.closed
    with pytest.raises(ClosedError):
        len(buffer)


def test_what_evhttp_could_not_use_is_refused(base: EventBase) -> None:
    server = Server(base, OK)
    left, right = socket.socketpair()
    with right, BufferEvent(base, left) as connected, pytest.raises(ValueError, match="descriptor"):
        client(base, server, bufferevent=connected)
    half, other = BufferEvent.pair(base)
    with half, other, pytest.raises(ValueError, match="pair"):
        client(base, server, bufferevent=half)
    with (
        BufferEvent(base) as below,
        BufferEvent.filter(below, None, None) as above,
        pytest.raises(ValueError, match="stand on"),
    ):
        client(base, server, bufferevent=above)
    with (
        BufferEvent(base, options=BufferEventOption(0)) as kept,
        pytest.raises(ValueError, match="CLOSE_ON_FREE"),
    ):
        client(base, server, bufferevent=kept)
    with (
        EventBase() as foreign,
        BufferEvent(foreign) as bev,
        pytest.raises(ValueError, match="own event base"),
    ):
        client(base, server, bufferevent=bev)


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"])
def test_a_host_with_a_port_in_it_is_refused(base: EventBase, host: str) -> None:
    with pytest.raises(ValueError, match=r"host must have no port in it, not .*8080 as port"):
        HttpConnection(base, host, 80)


def test_a_request_that_is_dropped_and_nobody_has_wanted_to_send_is_told_of(
    base: EventBase,
) -> None:
    """Its callback is never called; where an error has kept it from being sent, that was said."""

    def refused() -> None:
        with HttpConnection(base, "127.0.0.1", 80) as connection, pytest.raises(ValueError):
            connection.make_request(HttpRequest(print), HttpCommand.GET, "/ /")

    def never_whole() -> None:
        with pytest.raises(TypeError):
            HttpRequest(None)  # type: ignore[arg-type]

    def said(function: Callable[[], object]) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function()
        return [str(warning.message) for warning in caught]

    [text] = said(lambda: HttpRequest(print) and None)
    assert re.fullmatch(
        r"<HttpRequest at 0x\w+, never made> has been dropped: call "
        r"HttpConnection\.make_request\(\) with it",
        text,
    )
    assert said(refused) == said(never_whole) == []
    assert said(lambda: HttpRequest(print).close()) == []
