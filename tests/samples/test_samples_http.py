"""The samples that serve HTTP, each run as a process and talked to by curl, openssl and sockets."""

from __future__ import annotations

import html
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.certificates import Authority
from tests.kit.peers import exactly, reset, rest
from tests.kit.samples import MOMENT, Sample, Server, running
from tests.kit.samples_web import GET, answered, code, curl, peak
from tests.kit.support import PATIENCE

ODD = "näive & <odd> 'name' 100%?.txt"
SECRET = b"nobody is to see this"


# http_hello.py


def test_http_hello_says_hello_to_curl(language: str) -> None:
    with running(Server("http_hello", language=language)) as server:
        assert curl(server, "/") == b"Hello, World!\n"
        assert curl(server, "/whatever?it=is", "-d", "a body") == b"Hello, World!\n"


def test_http_hello_answers_again_and_again_on_one_connection_and_ctrl_c_ends_it(
    language: str,
) -> None:
    with Server("http_hello", language=language) as server, server.connect() as sock:
        for _ in range(100):
            sock.sendall(GET % b"/")
            assert answered(sock)[1] == b"Hello, World!\n"
        sock.sendall(GET % b"/" * 10)
        for _ in range(10):
            assert answered(sock)[1] == b"Hello, World!\n"
        server.interrupt()
        assert rest(sock) == b""


def test_http_hello_is_not_troubled_by_who_speaks_no_http_or_leaves(language: str) -> None:
    with running(Server("http_hello", language=language)) as server:
        for data in (b"", b"GET", b"\x00\xff" * 100, GET % b"/", b"\r\n" * 50):
            for end in (reset, lambda sock: sock.close()):
                sock = server.connect()
                sock.sendall(data)
                end(sock)
        assert curl(server, "/") == b"Hello, World!\n"


def test_http_hello_without_free_descriptors_rests_and_then_goes_on(language: str) -> None:
    with running(Server("http_hello", descriptors=20, language=language)) as server:
        socks = [server.connect() for _ in range(20)]
        before = server.processor_time()
        time.sleep(2 * MOMENT)
        assert server.processor_time() - before < 0.3
        for sock in socks:
            sock.close()
        assert curl(server, "/") == b"Hello, World!\n"


# http_server.py


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory to serve, beside a file that isn't in it."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret").write_bytes(SECRET)
    site = outside / "site"
    for name in ("", "sub", "sub/deeper", "empty.d"):
        (site / name).mkdir()
    for name in ("hello.txt", "page.html", "archive.tar.gz", "plain", "sub/inner.txt", ODD):
        (site / name).write_bytes(f"this is {name}\n".encode() * 1000)
    (site / "empty").touch()
    os.mkfifo(site / "fifo")
    (site / "inside").symlink_to("hello.txt")
    (site / "out").symlink_to(outside / "secret")
    (site / "linked").symlink_to(outside)
    (site / "around").symlink_to("around")
    with (site / "large").open("wb") as file:
        file.truncate(200 * 2**20)
    return site


@pytest.fixture(scope="module")
def files(language: str, site: Path) -> Iterator[Server]:
    with running(Server("http_server", site, language=language)) as server:
        yield server


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("hello.txt", "text/plain"),
        ("page.html", "text/html"),
        ("plain", "application/octet-stream"),
        ("archive.tar.gz", "application/octet-stream"),
        ("sub/inner.txt", "text/plain"),
        ("inside", "application/octet-stream"),
        ("empty", "application/octet-stream"),
    ],
)
def test_a_file_is_sent_with_its_type_and_length(
    files: Server, site: Path, name: str, kind: str
) -> None:
    content = (site / name).read_bytes()
    assert curl(files, f"/{name}") == content
    heads = curl(files, f"/{name}", "-D-", "-o/dev/null").decode()
    assert f"Content-Type: {kind}\r\n" in heads
    assert f"Content-Length: {len(content)}\r\n" in heads


def test_a_query_changes_nothing(files: Server, site: Path) -> None:
    content = (site / "hello.txt").read_bytes()
    assert curl(files, "/hello.txt?version=../../2") == content


def test_a_list_leads_to_everything_that_is_in_a_directory(files: Server, site: Path) -> None:
    page = curl(files, "/").decode()
    links = re.findall(r"<li><a href='([^']*)'>(.*?)</a></li>", page)
    assert [html.unescape(name) for _, name in links] == sorted(
        (path.name for path in site.iterdir()), key=os.fsencode
    )
    for link, name in links:
        path = site / html.unescape(name)
        if path.is_file() and path.name not in ("large", "out"):
            assert curl(files, f"/{link}") == path.read_bytes()
    assert "<odd>" not in page


def test_a_directory_without_its_slash_is_somewhere_else(files: Server) -> None:
    assert code(files, "/sub/deeper") == 301
    answer = curl(files, "/sub", "-L", "-w%{url_effective}").decode()
    assert answer.endswith(f":{files.port}/sub/")
    assert "inner.txt" in answer
    assert "<li>" not in curl(files, "/empty.d/").decode()


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/../../../../../../../../../etc/passwd",
        "/%2e%2e/secret",
        "/.%2E/secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "//../secret",
        "/sub/../../secret",
        "/sub/deeper/%2e%2e/%2e%2e/%2e%2e/secret",
        "/sub/../hello.txt",
        "/out",
        "/linked",
        "/linked/",
        "/linked/secret",
        "/around",
        "/hello.txt%00",
        "/hello.txt%00.html",
        "/%00",
        "/hello.txt/",
        "/fifo",
        "/nothing",
        "/%ff%fe",
        "/" + "a" * 300,
        "/" + "sub/../" * 500,
    ],
)
def test_what_is_outside_or_no_file_is_not_found(files: Server, path: str) -> None:
    answer = curl(files, path, "-i")
    assert re.match(rb"HTTP/1\.1 40[04] ", answer)
    assert SECRET not in answer
    assert b"root:" not in answer


@pytest.mark.parametrize("path", [b"", b"..", b"../secret", b"*", b"http://localhost/../secret"])
def test_what_is_no_path_is_not_served_either(files: Server, path: bytes) -> None:
    answer = files.answer(GET % path)
    assert not answer or re.match(rb"HTTP/1\.[01] 40[04] ", answer)
    assert SECRET not in answer


def test_head_answers_as_get_would_without_the_body(files: Server, site: Path) -> None:
    with files.connect() as sock:
        for name in ("hello.txt", "large", ""):
            sock.sendall(b"HEAD /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % name.encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += exactly(sock, 1)
            assert head.startswith(b"HTTP/1.1 200 ")
        sock.sendall(GET % b"/hello.txt")
        head, body = answered(sock)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert body == (site / "hello.txt").read_bytes()


def test_dump_prints_what_it_is_asked(files: Server) -> None:
    assert code(files, "/dump?a=b", "-H", "X-Name: value", "-d", "the body") == 200
    files.prints(r"POST /dump\?a=b\n(?s:.)*  X-Name: value\n(?s:.)*body: the body\n")
    assert code(files, "/hello.txt", "-X", "PUT", "-d", "another") == 200
    files.prints(r"PUT /hello.txt\n(?s:.)*body: another\n")


def test_a_body_that_is_too_large_is_refused(files: Server) -> None:
    head = b"POST /dump HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n"
    assert files.answer(head).startswith(b"HTTP/1.1 413 ")


def test_a_large_file_does_not_come_into_memory(files: Server, site: Path) -> None:
    curl(files, "/hello.txt")
    before = peak(files)
    size = int(curl(files, "/large", "-o/dev/null", "-w%{size_download}"))
    assert size == (site / "large").stat().st_size
    assert peak(files) - before < 10 * 2**20


def test_who_leaves_in_the_middle_of_a_file_does_no_harm(files: Server) -> None:
    opened = Path(f"/proc/{files.process.pid}/fd")
    assert code(files, "/hello.txt") == 200
    before = len(list(opened.iterdir()))
    for end in (reset, lambda sock: sock.close()) * 5:
        sock = files.connect()
        sock.sendall(GET % b"/large")
        exactly(sock, 100_000)
        end(sock)
    until = time.monotonic() + PATIENCE
    while len(list(opened.iterdir())) > before:
        assert time.monotonic() < until, "a connection or a file is still open"
        time.sleep(0.01)
    assert code(files, "/hello.txt") == 200


def test_a_file_that_becomes_shorter_ends_its_connection(language: str, tmp_path: Path) -> None:
    with (tmp_path / "shrinking").open("wb") as file:
        file.truncate(100 * 2**20)
        with (
            running(Server("http_server", tmp_path, language=language)) as server,
            server.connect() as sock,
        ):
            sock.sendall(GET % b"/shrinking")
            exactly(sock, 1000)
            file.truncate(1000)
            assert len(rest(sock)) < 99 * 2**20
            assert code(server, "/shrinking") == 200


def test_http_server_serves_a_unix_socket_too(language: str, site: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Sample("http_server", "-U", path, "127.0.0.1", 0, site, language=language) as server:
        server.prints(f"serving {path}, Ctrl-C to stop")
        content = (site / "hello.txt").read_bytes()
        for _ in range(2):
            assert curl(server, "/hello.txt", "--unix-socket", str(path)) == content
        server.interrupt()


# http_stream.py


def test_http_stream_counts_for_as_long_as_one_listens(language: str) -> None:
    with running(Server("http_stream", language=language)) as server:
        command = ["curl", "-sSN", "--noproxy", "*", f"http://127.0.0.1:{server.port}/"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as listening:
            assert listening.stdout is not None
            for n in range(1, 300_000):
                assert int(listening.stdout.readline()) == n
            listening.kill()
        with server.connect() as sock, server.connect() as other:
            for one in (sock, other):
                one.sendall(GET % b"/")
                assert b"\r\n1\n2\n3\n" in exactly(one, 500)


def test_http_stream_makes_no_more_numbers_than_are_taken(language: str) -> None:
    with (
        running(Server("http_stream", 3600, language=language)) as server,
        server.connect() as sock,
    ):
        sock.sendall(GET % b"/")
        exactly(sock, 10_000)
        until = time.monotonic() + PATIENCE  # the kernel takes some for the connection
        while True:
            busy = server.processor_time()
            time.sleep(2 * MOMENT)
            if server.processor_time() - busy < MOMENT / 4:
                break
            assert time.monotonic() < until, "it makes numbers that nobody takes"
        before = peak(server)
        for _ in range(20):
            exactly(sock, 1_000_000)
        assert peak(server) - before < 2 * 2**20


def test_http_stream_disconnects_who_takes_nothing(language: str) -> None:
    with running(Server("http_stream", 0.5, language=language)) as server, server.connect() as sock:
        sock.sendall(GET % b"/")
        exactly(sock, 1000)
        opened = Path(f"/proc/{server.process.pid}/fd")
        before = len(list(opened.iterdir()))
        until = time.monotonic() + PATIENCE
        while len(list(opened.iterdir())) == before:
            assert time.monotonic() < until
            time.sleep(0.05)


# https_server.py


def https(language: str, authority: Authority) -> Server:
    own = authority.server
    return Server("https_server", own.certfile, own.keyfile, language=language)


def test_https_server_greets_curl(language: str, authority: Authority) -> None:
    with running(https(language, authority)) as server:
        options = ("--cacert", str(authority.ca.certfile))
        greeting = rb"Hello, World, by TLSv1\.3 with TLS_\w+!\n"
        assert re.fullmatch(greeting, curl(server, "/", *options, scheme="https"))
        older = curl(server, "/", *options, "--tls-max", "1.2", scheme="https")
        assert b"by TLSv1.2 with " in older


def test_https_server_greets_openssl_again_and_again_on_one_connection(
    language: str,
    authority: Authority,
) -> None:
    with running(https(language, authority)) as server:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-quiet"]
        command += ["-CAfile", str(authority.ca.certfile), "-verify_return_error"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as talking:
            assert talking.stdin is not None
            assert talking.stdout is not None
            for _ in range(3):
                talking.stdin.write(GET % b"/")
                talking.stdin.flush()
                while not (line := talking.stdout.readline()).startswith(b"Hello, World, by TLS"):
                    assert line
            talking.kill()


def test_https_server_is_believed_by_nobody_who_has_not_its_authority(
    language: str,
    authority: Authority,
) -> None:
    with running(https(language, authority)) as server:
        with pytest.raises(AssertionError, match="certificate"):
            curl(server, "/", scheme="https")
        with pytest.raises(AssertionError):
            curl(server, "/")
        for data in (b"", GET % b"/", b"\x16\x03\x01\x02"):
            for end in (reset, lambda sock: sock.close()):
                sock = server.connect()
                sock.sendall(data)
                end(sock)
        assert curl(server, "/", "--cacert", str(authority.ca.certfile), scheme="https")


def test_https_server_without_a_certificate_says_how_it_is_used(language: str) -> None:
    with Sample("https_server", language=language) as sample:
        sample.ends(1, r"(?s).*samples/https_server(\.py)? host port certificate.pem.*")
