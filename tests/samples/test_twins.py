"""The samples and their twins in C call the same of libevent, and the twins free all they make.

That they do the same for their clients is tested by the samples' own tests, which drive both.
"""

from __future__ import annotations

import re
import socket
import tempfile
import zlib
from pathlib import Path

import pytest

from tests.kit.peers import exactly, reset, rest
from tests.kit.samples import packet
from tests.kit.twins import Run, Scenario, check_alike, check_clean


def client(run: Run) -> bytes:
    """What a client does that joins stdin and a connection."""
    with run.sample("127.0.0.1", run.port) as sample, run.accepted() as sock:
        for text in (b"hello\n", b"world\n"):
            sample.say(text)
            assert exactly(sock, 6) == text
            sock.sendall(text.upper())
            sample.prints(text.upper().decode())
        sample.end_stdin()
        assert rest(sock) == b""
        sock.close()
        return sample.ends()


def event_read_fifo(run: Run) -> bytes:
    with tempfile.TemporaryDirectory() as place, run.sample(cwd=Path(place)) as sample:
        sample.prints("reading")
        for text in ("hello", "world"):
            Path(place, "event.fifo").write_text(f"{text}\n")
            sample.prints(f"read: {text}")
        return sample.interrupt()


def filter_zlib(run: Run) -> bytes:
    with run.server() as server, server.connect() as sock:
        packer, unpacker = zlib.compressobj(), zlib.decompressobj()
        sock.sendall(packer.compress(b"hello") + packer.flush(zlib.Z_SYNC_FLUSH))
        answer = b""
        while answer != b"HELLO":
            answer += unpacker.decompress(sock.recv(65536))
        sock.sendall(packer.flush())
        while not unpacker.eof:
            unpacker.decompress(sock.recv(65536))
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == b""
        return server.interrupt()


def hello_world(run: Run) -> bytes:
    with run.server() as server:
        for _ in range(2):
            with server.connect() as sock:
                assert rest(sock) == b"Hello, World!\n"
        server.press_ctrl_c()
        return server.ends()


def le_proxy(run: Run) -> bytes:
    with run.server("127.0.0.1", run.port) as proxy, proxy.connect() as sock:
        with run.accepted() as server:
            server.sendall(b"hello")  # only what is connected is read from
            assert exactly(sock, 5) == b"hello"
            sock.sendall(b"world")
            assert exactly(server, 5) == b"world"
            sock.shutdown(socket.SHUT_WR)
            assert rest(server) == b""
        assert rest(sock) == b""
        return proxy.interrupt()


def methods(run: Run) -> bytes:
    with run.sample() as sample:
        return sample.ends()


def pair(run: Run) -> bytes:
    with run.sample("hello", "world") as sample:
        return sample.ends()


def priorities(run: Run) -> bytes:
    with run.sample() as sample:
        return sample.ends()


def rate_limit(run: Run) -> bytes:
    with run.server(100_000_000, 100_000_000) as server:
        with server.connect() as sock:
            assert len(rest(sock)) == 2**20
        return server.interrupt()


def signal_test(run: Run) -> bytes:
    with run.sample() as sample:
        sample.prints("waiting")
        for left in (2, 1, 0):
            sample.press_ctrl_c()
            sample.prints(f"{left} to go")
        return sample.ends()


def time_test(run: Run) -> bytes:
    with run.sample(0.05) as sample:
        sample.prints("passed")
        return re.sub(rb"0\.\d+ seconds", b"SECONDS", sample.interrupt())


def upper_bufferevent(run: Run) -> bytes:
    with run.server() as server, server.connect() as sock:
        sock.sendall(b"hello, world")
        assert exactly(sock, 12) == b"HELLO, WORLD"
        sock.sendall(b"the end")
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == b"THE END"
        return server.interrupt()


def upper_delimited(run: Run) -> bytes:
    with run.server() as server, server.connect() as sock:
        sock.sendall(b"noise 1hello21world2 noise")
        assert exactly(sock, 14) == b"1HELLO21WORLD2"
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == b""
        return server.interrupt()


def upper_event(run: Run) -> bytes:
    with run.server() as server, server.connect() as sock, server.connect() as idle:
        sock.sendall(b"hello")
        assert exactly(sock, 5) == b"HELLO"
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == b""
        idle.sendall(b"world")
        assert exactly(idle, 5) == b"WORLD"
        return server.interrupt()


def upper_length_prefixed(run: Run) -> bytes:
    with run.server() as server, server.connect() as sock:
        sock.sendall(packet(b"hello") + packet(b"world")[:3])
        assert exactly(sock, 5) == b"HELLO"
        sock.sendall(packet(b"world")[3:])
        assert exactly(sock, 5) == b"WORLD"
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == b""
        return server.interrupt()


def upper_listener(run: Run) -> bytes:
    with run.server() as server, server.connect():
        server.prints("connected")
        with server.connect() as sock:
            sock.sendall(b"hello")
            assert exactly(sock, 5) == b"HELLO"
            reset(sock)
        server.prints("reset")
        with server.connect() as sock:
            sock.sendall(b"hello")
            assert exactly(sock, 5) == b"HELLO"
        server.prints("end of file")
        return server.interrupt()


def watermarks(run: Run) -> bytes:
    with run.server() as server, server.connect() as sock:
        sock.sendall(b"0123456789abcde\n")
        assert exactly(sock, 4096) == b"0123456789abcde\n" * 256
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == b""
        return server.interrupt()


SCENARIOS: dict[str, Scenario] = {
    "client_bufferevent": client,
    "client_event": client,
    "event_read_fifo": event_read_fifo,
    "filter_zlib": filter_zlib,
    "hello_world": hello_world,
    "le_proxy": le_proxy,
    "methods": methods,
    "pair": pair,
    "priorities": priorities,
    "rate_limit": rate_limit,
    "signal_test": signal_test,
    "time_test": time_test,
    "upper_bufferevent": upper_bufferevent,
    "upper_delimited": upper_delimited,
    "upper_event": upper_event,
    "upper_length_prefixed": upper_length_prefixed,
    "upper_listener": upper_listener,
    "watermarks": watermarks,
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_sample_and_its_twin_call_the_same(name: str, tmp_path: Path) -> None:
    check_alike(name, SCENARIOS[name], tmp_path)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_twin_frees_all_that_it_makes(name: str) -> None:
    check_clean(name, SCENARIOS[name])
