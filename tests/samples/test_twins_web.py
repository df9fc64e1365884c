"""The samples of HTTP, DNS and files call the same as their twins in C, which free all they make.

A scenario gets what it needs besides: a directory, an authority, or what the sample is a client of.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.kit.certificates import Authority
from tests.kit.peers import exactly, nobody_listens, rest
from tests.kit.samples import Sample, Server
from tests.kit.samples_web import GET, answered, connecting, secured, serving
from tests.kit.support import PATIENCE
from tests.kit.twins import Run, check_alike, check_clean, sampled


class Around(NamedTuple):
    """What is around a sample: a directory, and where servers and a proxy are, or nobody is."""

    place: Path
    web: int
    https: int
    proxy: int
    names: str
    nobody: int


def said(server: Server, *requests: bytes) -> list[bytes]:
    """Return what *requests* on one connection are answered with, each in turn."""
    with server.connect() as sock:
        heads = []
        for request in requests:
            sock.sendall(request)
            heads.append(answered(sock)[0])
        return heads


def asked(sock: socket.socket) -> None:
    """Read a request without a body."""
    sock.settimeout(PATIENCE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += exactly(sock, 1)


def http_hello(run: Run, around: Around) -> bytes:
    with run.server() as server:
        said(server, GET % b"/", GET % b"/")
        with server.connect() as sock:
            sock.sendall(b"GET /")
            said(server, GET % b"/")
            return server.interrupt()


def slow(server: Server) -> socket.socket:
    """Return a connection that has asked for /, and takes so little that it fills up at once."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sock.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536
    )  # so the server has little room, too
    sock.settimeout(PATIENCE)
    sock.connect(("127.0.0.1", server.port))
    sock.sendall(GET % b"/")
    return sock


def http_stream(run: Run, around: Around) -> bytes:
    with run.server() as server, slow(server):
        with slow(server) as sock:
            exactly(sock, 1000)
        with server.connect() as sock:
            sock.sendall(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            rest(sock)
        return server.interrupt()


def http_stream_on(run: Run, around: Around) -> bytes:
    """Numbers are made anew, for one who stays and one who leaves."""
    with run.server() as server, server.connect() as staying:
        staying.sendall(GET % b"/")
        exactly(staying, 100_000)
        with server.connect() as leaving:
            leaving.sendall(GET % b"/")
            exactly(leaving, 100_000)
        return server.interrupt()


def http_server(run: Run, around: Around) -> bytes:
    (around.place / "sub").mkdir(exist_ok=True)
    (around.place / "hello.txt").write_bytes(b"hello")
    with run.server(around.place) as server:
        paths = b"/", b"/sub", b"/hello.txt", b"/../x", b"/hello.txt%00", b"/no"
        for path in paths:
            said(server, GET % path)
        said(server, b"PUT /dump HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\n\0x")
        said(server, b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
        for path in b"/hello.txt", b"/no":
            with server.connect() as sock:
                sock.sendall(b"HEAD %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path)
                rest(sock)
        return server.interrupt()


def https_server(run: Run, around: Around) -> bytes:
    own, trusted = run.authority.server, run.authority.ca.certfile
    with run.server(own.certfile, own.keyfile) as server:
        command = ["curl", "-sS", "--noproxy", "*", "--cacert", str(trusted)]
        url = f"https://localhost:{server.port}/"
        subprocess.run([*command, url], check=True, capture_output=True, timeout=PATIENCE)
        return server.interrupt()


def https_client(run: Run, around: Around) -> bytes:
    with run.sample("-url", f"http://localhost:{around.web}/x?y", "-retries", 1) as sample:
        return sample.ends(stderr="Response line: 200 OK")


def https_client_with_tls(run: Run, around: Around) -> bytes:
    data = around.place / "data"
    data.write_bytes(b"data")
    trusted = ("-crt", run.authority.ca.certfile)
    url = f"https://localhost:{around.https}"
    with run.sample("-url", url, *trusted, "-data", data) as sample:
        return sample.ends(stderr="Response line: 200 OK")


def https_client_of_nobody(run: Run, around: Around) -> bytes:
    with run.sample("-url", f"http://127.0.0.1:{around.nobody}") as sample:
        return sample.ends(1, ".*Connection refused")


def http_connect(run: Run, around: Around) -> bytes:
    proxy, url = f"http://127.0.0.1:{around.proxy}", f"http://localhost:{around.web}/x?y"
    with run.sample(proxy, url) as sample:
        return sample.ends()


def http_connect_refused(run: Run, around: Around) -> bytes:
    with run.sample(f"http://127.0.0.1:{around.proxy}", "http://other.test:80/") as sample:
        return sample.ends(1, "the proxy says 403 Forbidden")


def http_v0_client(run: Run, around: Around) -> bytes:
    with run.sample("127.0.0.1", run.port, "/x") as sample:
        with run.accepted() as sock:
            asked(sock)
            sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
            sample.prints("hello")
        return sample.ends()


def http_reverse_proxy(run: Run, around: Around) -> bytes:
    with run.server("127.0.0.1", run.port) as server, server.connect() as client:
        client.sendall(GET % b"/x")
        with run.accepted() as sock:
            for answer in (b"one", b"two"):
                asked(sock)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + answer)
                assert answered(client)[1] == answer
                client.sendall(GET % b"/y" if answer == b"one" else b"")
            return server.interrupt()


def http_reverse_proxy_left(run: Run, around: Around) -> bytes:
    """The server leaves before its answer and in it, the client in it; both are left at the end."""
    part = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart"
    with run.server("127.0.0.1", run.port) as server:
        with server.connect() as client:
            client.sendall(GET % b"/")
            with run.accepted() as sock:
                asked(sock)
            assert answered(client)[0].startswith(b"HTTP/1.1 502 ")
        for server_leaves in (True, False):
            with server.connect() as client:
                client.sendall(GET % b"/")
                with run.accepted() as sock:
                    asked(sock)
                    sock.sendall(part)
                    exactly(client, len(part))
                    if server_leaves:
                        sock.close()
                        rest(client)
                    else:
                        client.close()
                        rest(sock)
        with server.connect() as client:
            client.sendall(GET % b"/")
            with run.accepted() as sock:
                asked(sock)
                return server.interrupt()


def dns_example(run: Run, around: Around) -> bytes:
    with run.sample("-s", around.names, "one.example") as sample:
        return sample.ends()


def dns_example_all(run: Run, around: Around) -> bytes:
    with run.sample("-g", "-s", around.names, "127.0.0.1", "one.example") as sample:
        return sample.ends()


def dns_example_reverse(run: Run, around: Around) -> bytes:
    with run.sample("-x", "-s", around.names, "192.0.2.1") as sample:
        return sample.ends()


def dns_example_given_up(run: Run, around: Around) -> bytes:
    """Ctrl-C ends it while it waits for answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(PATIENCE)
        address = "{}:{}".format(*silent.getsockname())
        with run.sample("-g", "-s", address, "one.example") as sample:
            silent.recv(512)
            return sample.interrupt()


def dig(port: int, *arguments: str) -> None:
    command = ["dig", "@127.0.0.1", "-p", str(port), "+tries=1", "+time=30", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)


def dns_example_serves(run: Run, around: Around) -> bytes:
    with run.sample("-T", 0) as server:
        port = int(server.prints(r"serving 127\.0\.0\.1:(\d+)")[1])
        dig(port, "one.example")
        dig(port, "-x", "192.0.2.1")
        return server.interrupt()


def dns_server(run: Run, around: Around) -> bytes:
    told = "www.example=192.0.2.1", "www.example=192.0.2.2", "web.example=www.example"
    with run.server(*told, "www.example=2001:db8::1") as server:
        for asked in ("www.example", "web.example", "no.example"):
            dig(server.port, asked)
        for asked in ("AAAA", "TXT"):
            dig(server.port, "www.example", asked)
        dig(server.port, "web.example", "CNAME")
        dig(server.port, "-x", "192.0.2.2")
        dig(server.port, "-x", "2001:db8::1")
        return server.interrupt()


def sendfile(run: Run, around: Around) -> bytes:
    file = around.place / "file"
    file.write_bytes(b"hello" * 1000)
    with run.server(file) as server:
        with server.connect() as sock:
            assert rest(sock) == b"hello" * 1000
        server.prints("has the file")
        return server.interrupt()


def sendfile_to_who_waits(run: Run, around: Around) -> bytes:
    file = around.place / "large"
    with file.open("wb") as large:
        os.truncate(large.fileno(), 2**27)
    with run.server(file) as server, server.connect() as sock:
        exactly(sock, 1000)
        return server.interrupt()


SCENARIOS: dict[str, Callable[[Run, Around], bytes]] = {
    "dns_example": dns_example,
    "dns_example all": dns_example_all,
    "dns_example given up": dns_example_given_up,
    "dns_example reverse": dns_example_reverse,
    "dns_example serves": dns_example_serves,
    "dns_server": dns_server,
    "http_connect": http_connect,
    "http_connect refused": http_connect_refused,
    "http_hello": http_hello,
    "http_reverse_proxy": http_reverse_proxy,
    "http_reverse_proxy left": http_reverse_proxy_left,
    "http_server": http_server,
    "http_stream": http_stream,
    "http_stream on": http_stream_on,
    "http_v0_client": http_v0_client,
    "https_client": https_client,
    "https_client nobody": https_client_of_nobody,
    "https_client tls": https_client_with_tls,
    "https_server": https_server,
    "sendfile": sendfile,
    "sendfile large": sendfile_to_who_waits,
}

#: Where no two traces need be alike: what happens depends on the time, or is an error.
VARYING = {
    *("dns_example given up", "http_connect refused", "http_reverse_proxy left"),
    *("http_stream on", "https_client nobody", "sendfile large"),
}

#: Those that are traced in ``make test``, and those that are run under valgrind there.
TRACED_ALWAYS = {
    *("dns_example serves", "dns_server", "http_connect", "http_reverse_proxy", "http_server"),
    *("https_client tls", "sendfile"),
}
VALGRIND_ALWAYS = {"dns_example given up", "http_reverse_proxy left", "http_stream on"}


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Around]:
    with (
        serving() as web,
        secured(authority.server) as https,
        connecting() as proxy,
        Sample("dns_example", "-T", 0) as server,
    ):
        names = server.prints(r"serving (\S+), Ctrl-C")[1].decode()
        place = tmp_path_factory.mktemp("around")
        yield Around(place, web, https, proxy, names, nobody_listens()[1])
        server.interrupt()


@pytest.mark.parametrize("key", sampled(sorted(SCENARIOS.keys() - VARYING), TRACED_ALWAYS))
def test_a_sample_and_its_twin_call_the_same(
    key: str, tmp_path: Path, authority: Authority, around: Around
) -> None:
    check_alike(key, lambda run: SCENARIOS[key](run, around), tmp_path, authority)


@pytest.mark.parametrize("key", sampled(SCENARIOS, VALGRIND_ALWAYS))
def test_a_twin_frees_all_that_it_makes(key: str, authority: Authority, around: Around) -> None:
    check_clean(key, lambda run: SCENARIOS[key](run, around), authority)
