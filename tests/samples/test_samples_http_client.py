"""The samples that are HTTP's clients, with servers and a proxy that aren't ours."""

from __future__ import annotations

import hashlib
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit.certificates import Authority
from tests.kit.peers import nobody_listens
from tests.kit.samples import Sample
from tests.kit.samples_web import BIG, connecting, secured, serving
from tests.kit.support import PATIENCE


@pytest.fixture(scope="module")
def web() -> Iterator[int]:
    with serving() as port:
        yield port


# https_client.py.


def asked(language: str, url: str, *arguments: object, status: int = 0, stderr: str) -> bytes:
    """Return what the client prints."""
    with Sample("https_client", "-url", url, *arguments, language=language) as sample:
        return sample.ends(status, stderr)


def test_the_client_prints_a_body(language: str, web: int) -> None:
    line = "Response line: 200 OK"
    assert asked(language, f"http://localhost:{web}", stderr=line) == b"GET / HTTP/1.1"
    assert asked(language, f"http://localhost:{web}/a?b", stderr=line) == b"GET /a?b HTTP/1.1"
    assert asked(language, f"http://localhost:{web}/big", stderr=line) == BIG


def test_the_client_posts_a_file(language: str, web: int, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(BIG)
    printed = asked(
        language, f"http://localhost:{web}/", "-data", path, stderr="Response line: 200 OK"
    )
    assert printed.decode() == hashlib.sha256(BIG).hexdigest()


def test_the_client_believes_whom_it_should(language: str, authority: Authority) -> None:
    trusted = ("-crt", authority.ca.certfile)
    line, refused = "Response line: 200 OK", r"(?i).*certificate.verify.failed.*: {}"
    with secured(authority.server) as port:
        url = f"https://localhost:{port}/x"
        assert asked(language, url, *trusted, stderr=line) == b"GET /x HTTP/1.1"
        assert asked(language, f"https://127.0.0.1:{port}/big", *trusted, stderr=line) == BIG
        asked(language, url, status=1, stderr=refused.format(".*issuer certificate"))
        assert asked(language, url, "-ignore-cert", stderr=line) == b"GET /x HTTP/1.1"
    with secured(authority.certify("elsewhere", "DNS:other.test")) as port:
        url = f"https://localhost:{port}/x"
        asked(language, url, *trusted, status=1, stderr=refused.format("hostname mismatch"))
        assert asked(language, url, *trusted, "-ignore-cert", stderr=line) == b"GET /x HTTP/1.1"


def test_the_client_says_why_it_can_not(language: str, tmp_path: Path) -> None:
    port = nobody_listens()[1]
    asked(language, f"http://127.0.0.1:{port}", status=1, stderr=".*Connection refused")
    asked(language, "ftp://127.0.0.1/", status=1, stderr="-url must be http.*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = "http://{}:{}".format(*silent.getsockname())
        asked(language, url, "-timeout", 0.1, status=1, stderr=".*nothing came for too long")


def test_the_client_tries_again(language: str, authority: Authority) -> None:
    host, port = nobody_listens()
    with Sample(
        "https_client", "-url", f"http://{host}:{port}", "-retries", 5, language=language
    ) as sample:
        assert sample.process.stderr is not None
        assert not select.select([sample.process.stderr], [], [], 0.5)[0]
        with socket.create_server((host, port)) as server:
            server.settimeout(PATIENCE)
            peer = server.accept()[0]
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                assert sample.ends(stderr="Response line: 200 OK") == b"ok"


# http_connect.py.


@pytest.fixture
def proxy() -> Iterator[int]:
    with connecting() as port:
        yield port


@pytest.fixture
def through(language: str, proxy: int) -> Callable[..., bytes]:
    def get(url: str, status: int = 0, stderr: str = "") -> bytes:
        with Sample("http_connect", f"http://127.0.0.1:{proxy}", url, language=language) as sample:
            return sample.ends(status, stderr)

    return get


def test_a_url_is_fetched_through_a_proxy(web: int, through: Callable[..., bytes]) -> None:
    assert through(f"http://localhost:{web}/x?y") == b"GET /x?y HTTP/1.1"
    assert through(f"http://localhost:{web}/big") == BIG


def test_what_the_proxy_refuses_is_told(web: int, through: Callable[..., bytes]) -> None:
    through(f"http://other.test:{web}/", 1, "the proxy says 403 Forbidden")


def test_a_proxy_that_is_not_there_is_told(language: str, web: int) -> None:
    host, port = nobody_listens()
    with Sample(
        "http_connect", f"http://{host}:{port}", f"http://localhost:{web}/", language=language
    ) as sample:
        sample.ends(1, ".*Connection refused")
    with Sample(
        "http_connect", "http://localhost", f"http://localhost:{web}/", language=language
    ) as sample:
        sample.ends(1, "http://localhost must have a host and a port")
