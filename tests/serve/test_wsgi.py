"""WSGI: on threads, and inline."""

from __future__ import annotations

import array
import io
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from tests.kit.serving import GET, rest_of, serving, statuses, until, wait_until

CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"

THREADS = pytest.mark.parametrize("threads", [0, 2])


@validator
def echo(environ: Any, start_response: Any) -> Iterator[bytes]:
    """Send back the body, line by line, as `wsgiref.validate` watches."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter([line.upper() for line in environ["wsgi.input"]])


@THREADS
def test_a_validated_application_gets_and_sends_bodies(threads: int) -> None:
    lines = b"one\ntwo\nthree"
    with serving(echo, threads=threads) as site:
        for raw in (
            CLOSE,
            POST + b"Content-Length: 13\r\n\r\n" + lines,
            POST + b"Transfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n9\r\ntwo\nthree\r\n0\r\n\r\n",
        ):
            got = site.talk(raw)
            assert statuses(got) == [200]
            assert (b"TWO\n" in got) == raw.startswith(POST)
    if threads:
        with serving(echo, threads=threads) as site, site.connect() as sock:
            sock.sendall(POST + b"Content-Length: 13\r\n\r\n")
            for byte in lines:
                sock.sendall(bytes([byte]))
                time.sleep(0.001)
            assert b"THREE" in rest_of(sock)


@THREADS
def test_the_environment_says_what_was_asked(threads: int) -> None:
    seen: dict[str, Any] = {}

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.update(environ)
        start_response("200 OK", [])
        return [b""]

    with serving(app, threads=threads, root_path="/at") as site, site.connect() as sock:
        client = sock.getsockname()
        sock.sendall(
            b"PUT /caf%C3%A9?q=%20 HTTP/1.1\r\nHost: a\r\nContent-Type: text/x\r\nX-One: 1\r\n"
            b"Content-Length: 0\r\nX_One: forged\r\nx-one: 2\r\nCookie: a=b\r\nCookie: c=d\r\n"
            b"Proxy: p\r\nConnection: close\r\n\r\n"
        )
        assert statuses(rest_of(sock)) == [200]
    expected = {
        "REQUEST_METHOD": "PUT",
        "SCRIPT_NAME": "/at",
        "PATH_INFO": "/caf\xc3\xa9",
        "QUERY_STRING": "q=%20",
        "REQUEST_URI": "/caf%C3%A9?q=%20",
        "SERVER_NAME": site.host,
        "SERVER_PORT": str(site.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "0",
        "HTTP_HOST": "a",
        "HTTP_X_ONE": "1,2",
        "HTTP_COOKIE": "a=b; c=d",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": threads > 1,
        "wsgi.run_once": False,
        "wsgi.errors": sys.stderr,
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert "HTTP_CONTENT_LENGTH" not in seen


@THREADS
def test_a_header_proxy_is_not_taken_for_the_variable_of_cgi(threads: int) -> None:
    """httpoxy: what reads HTTP_PROXY as a variable of the process's would trust the client."""
    seen: dict[str, Any] = {}

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.update(environ)
        start_response("200 OK", [])
        return []

    with serving(app, threads=threads) as site:
        site.talk(CLOSE.replace(b"\r\n\r\n", b"\r\nProxy: http://evil\r\n\r\n"))
    assert "HTTP_PROXY" not in seen


@THREADS
def test_parts_are_sent_as_they_come_and_the_iterable_is_closed(threads: int) -> None:
    closed: list[str] = []
    go = threading.Event()

    class Parts:
        def __iter__(self) -> Iterator[bytes]:
            yield b"one"
            yield b""
            if threads:
                assert go.wait(20)
            yield b"two"

        def close(self) -> None:
            closed.append("closed")

    def app(environ: Any, start_response: Any) -> Parts:
        start_response("200 OK", [])
        return Parts()

    with serving(app, threads=threads) as site, site.connect() as sock:
        sock.sendall(CLOSE)
        if threads:
            assert until(sock, b"3\r\none\r\n")
            go.set()
        assert rest_of(sock).endswith(b"3\r\ntwo\r\n0\r\n\r\n")
        wait_until(lambda: closed)
    assert closed == ["closed"]


@THREADS
def test_write_sends_before_what_is_returned(threads: int) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("201 Made", [("Content-Length", "11")])
        write(b"one ")
        write(b"")
        write(b"two ")
        return [b"end"]

    with serving(app, threads=threads) as site:
        got = site.talk(CLOSE)
    assert got.startswith(b"HTTP/1.1 201 Made\r\n")
    assert got.endswith(b"\r\n\r\none two end")


@THREADS
def test_a_second_start_response_needs_exc_info_and_a_sent_head_is_final(
    threads: int, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [("X", "first")])
        if environ["PATH_INFO"] == "/twice":
            start_response("200 OK", [])
        if environ["PATH_INFO"] == "/late":
            write(b"sent")
        try:
            raise ZeroDivisionError("oh")
        except ZeroDivisionError:
            start_response("503 Sorry", [("X", "second")], sys.exc_info())
        return [b"sorry"]

    with serving(app, threads=threads) as site:
        got = site.talk(CLOSE)
        assert statuses(got) == [503]
        assert b"X: second" in got and b"first" not in got
        assert statuses(site.talk(CLOSE.replace(b"/", b"/twice", 1))) == [500]
        late = site.talk(CLOSE.replace(b"/", b"/late", 1))
        assert statuses(late) == [200] and not late.endswith(b"0\r\n\r\n")
    assert "without exc_info" in caplog.text
    assert "ZeroDivisionError: oh" in caplog.text


def raising(environ: Any, start_response: Any) -> list[bytes]:
    raise ZeroDivisionError


def silent(environ: Any, start_response: Any) -> list[bytes]:
    return [b"no head"]


def of_str(environ: Any, start_response: Any) -> list[Any]:
    start_response("200 OK", [])
    return ["a", "b"]


def of_one_str(environ: Any, start_response: Any) -> list[Any]:
    start_response("200 OK", [])
    return ["a"]


def nothing(environ: Any, start_response: Any) -> None:
    start_response("200 OK", [])


def forging(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("X", "a\r\nforged: yes")])
    return [b""]


def forging_reason(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK\r\nforged: yes", [])
    return [b""]


def bad_status(environ: Any, start_response: Any) -> list[bytes]:
    start_response("fine", [])
    return [b""]


def misfit(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "3")])
    return [b"four"]


def raising_iterator(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [])
    raise ZeroDivisionError
    yield b""


@THREADS
@pytest.mark.parametrize(
    "app",
    [
        *(raising, silent, of_str, of_one_str, nothing, forging, forging_reason, bad_status),
        *(misfit, raising_iterator),
    ],
)
def test_an_application_that_fails_is_500_and_the_next_request_is_served(
    app: Callable[..., Any], threads: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(app, threads=threads) as site:
        got = site.talk(GET + CLOSE)
    assert statuses(got) == [500, 500]
    assert b"forged" not in got
    assert caplog.text.count("the application has raised an exception") == 2


@THREADS
def test_files_are_sent_and_closed(threads: int) -> None:
    files: list[io.BytesIO] = []
    content = bytes(range(256)) * 2000

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", str(len(content)))])
        files.append(io.BytesIO(content))
        return environ["wsgi.file_wrapper"](files[-1])

    with serving(app, threads=threads) as site:
        assert site.talk(CLOSE).partition(b"\r\n\r\n")[2] == content
        wait_until(lambda: files[0].closed)


@THREADS
def test_a_client_that_does_not_read_holds_the_application_back(threads: int) -> None:
    sent = 0
    closed: list[bool] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        nonlocal sent
        start_response("200 OK", [])
        try:
            while True:
                sent += 65536
                yield bytes(65536)
        finally:
            closed.append(True)

    with serving(app, threads=threads) as site:
        with site.connect() as sock:
            sock.sendall(CLOSE)
            before = -1
            while before != sent:
                before = sent
                time.sleep(0.1)
            assert 0 < sent < 20e6
        wait_until(lambda: closed)


@THREADS
def test_a_large_body_is_read_in_parts(threads: int) -> None:
    size = 5_000_000

    def app(environ: Any, start_response: Any) -> list[bytes]:
        total, file = 0, environ["wsgi.input"]
        while part := file.read(100000):
            total += len(part)
        assert file.read(10) == b""
        start_response("200 OK", [])
        return [b"%d bytes" % total]

    with serving(app, threads=threads) as site:
        raw = POST + b"Content-Length: %d\r\n\r\n" % size + bytes(size)
        assert site.talk(raw).endswith(b"%d bytes" % size)


def test_reading_the_body_of_a_client_that_leaves_raises() -> None:
    raised: list[BaseException] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            raised.append(error)
        start_response("200 OK", [])
        return [b""]

    with serving(app, threads=1) as site:
        with site.connect() as sock:
            sock.sendall(POST + b"Content-Length: 10\r\n\r\nhalf")
            time.sleep(0.05)
        wait_until(lambda: raised)


def test_threads_run_side_by_side_and_more_requests_wait() -> None:
    barrier = threading.Barrier(3)

    def app(environ: Any, start_response: Any) -> list[bytes]:
        barrier.wait(20)
        start_response("200 OK", [])
        return [threading.current_thread().name.encode()]

    with serving(app, threads=3) as site:
        socks = [site.connect() for _ in range(6)]
        for sock in socks:
            sock.sendall(CLOSE)
        names = []
        for sock in socks:
            names.append(rest_of(sock).rpartition(b"\r\n")[2])
            sock.close()
    assert len(set(names)) == 3


@THREADS
def test_what_is_in_flight_is_finished_when_the_worker_ends(threads: int) -> None:
    begun = threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        begun.set()
        time.sleep(0.3)
        start_response("200 OK", [])
        return [b"finished"]

    with serving(app, threads=threads) as site, site.connect() as sock:
        sock.sendall(GET)
        assert begun.wait(20)
        site.config.shutdown.set()
        got = rest_of(sock)
    assert got.endswith(b"finished")


def test_threads_that_do_not_end_are_left(caplog: pytest.LogCaptureFixture) -> None:
    go = threading.Event()
    begun = threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        begun.set()
        go.wait(30)
        start_response("200 OK", [])
        return [b"late"]

    with serving(app, threads=1, graceful_timeout=0.2) as site, site.connect() as sock:
        sock.sendall(GET)
        assert begun.wait(20)
        site.config.shutdown.set()
        assert rest_of(sock) == b""
    go.set()
    assert "leaving 1 threads" in caplog.text


def test_pairs_of_headers_may_be_lists_and_change_from_answer_to_answer() -> None:
    numbers = iter(range(1000))

    def app(environ: Any, start_response: Any) -> list[bytes]:
        headers: list[Any] = [("X-Same", "always"), ["X-List", "yes"]]
        if environ["PATH_INFO"] == "/many":
            headers = [("X-Same", "always"), ("X-Number", str(next(numbers)))]
        start_response("200 OK", headers)
        return [b"."]

    many = b"GET /many HTTP/1.1\r\nHost: a\r\n\r\n"
    with serving(app, threads=0) as site:
        got = site.talk(GET + many * 600 + CLOSE)
    assert (got.count(b"X-Same: always\r\n"), got.count(b"X-List: yes\r\n")) == (602, 2)
    assert [f"X-Number: {number}\r\n".encode() in got for number in range(600)] == [True] * 600


def test_answers_before_one_that_exits_are_sent() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/exit":
            raise SystemExit(3)
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    end = b"GET /exit HTTP/1.1\r\nHost: a\r\n\r\n"
    with pytest.raises(SystemExit, match="3"), serving(app, threads=0) as site:
        assert statuses(site.talk(GET * 3 + end + GET)) == [200, 200, 200]


class Giving:
    """An answer in parts, each asked for."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts = iter(parts)
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        return self.parts

    def close(self) -> None:
        self.closed += 1


@THREADS
@pytest.mark.parametrize("http", ["httptools", "evhttp"])
@pytest.mark.parametrize("headers", [[], [("Content-Length", "6")]], ids=["", "length"])
@pytest.mark.parametrize("part", ["def", None, 3, [1, 2, 3]], ids=repr)
def test_a_part_that_is_no_bytes_is_an_error_whenever_it_comes(
    threads: int, http: str, headers: list[Any], part: Any, caplog: pytest.LogCaptureFixture
) -> None:
    given: list[Giving] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", headers)
        whole = environ["PATH_INFO"] == "/whole"
        given.append(Giving([part] if environ["PATH_INFO"] == "/first" else [b"abc", part, b"def"]))
        return [part] if whole else given[-1]

    with serving(app, threads=threads, http=http) as site:
        for path in "/whole", "/first":
            got = site.talk(CLOSE.replace(b"/", path.encode(), 1))
            assert statuses(got) == [500]
        caplog.clear()
        got = site.talk(CLOSE)  # it is closed, and isn't complete
        assert b"def" not in got
        assert not got.endswith(b"0\r\n\r\n")
        wait_until(lambda: all(one.closed for one in given[1:]))
    assert f"the body must be bytes, not {part!r}" in caplog.text


@THREADS
def test_a_part_may_be_memory_of_larger_items(threads: int) -> None:
    part = memoryview(array.array("i", [1, 2]))

    def app(environ: Any, start_response: Any) -> list[Any]:
        start_response("200 OK", [])
        return [part]

    with serving(app, threads=threads) as site:
        head, _, body = site.talk(GET + CLOSE).partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % part.nbytes in head
        assert body[: part.nbytes] == body[-part.nbytes :] == part.tobytes()
        assert statuses(body[part.nbytes :]) == [200]


@THREADS
def test_an_answer_is_closed_when_a_client_leaves_that_had_ended_its_output(threads: int) -> None:
    given = Giving([b"x" * 65536] * 1000)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return given

    with serving(app, threads=threads) as site:
        with site.connect() as sock:
            sock.sendall(GET)
            sock.shutdown(socket.SHUT_WR)
            until(sock, b"x")
            time.sleep(0.1)  # until there is no room
        wait_until(lambda: given.closed)
        assert given.closed == 1
        assert len(list(given.parts)) > 100  # not all were asked for
