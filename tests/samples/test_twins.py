"""The samples and their twins in C call the same of libevent, and the twins free all they make.

That they do the same for their clients is tested by the samples' own tests, which drive both.
"""

from __future__ import annotations

import re
import socket
import ssl
import tempfile
import zlib
from pathlib import Path

import pytest

from tests.kit.certificates import HOST, Authority
from tests.kit.peers import exactly, reset, rest
from tests.kit.samples import packet
from tests.kit.twins import Run, Scenario, check_alike, check_clean, sampled


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


def filter_zlib_send(run: Run) -> bytes:
    with run.sample("127.0.0.1", run.port, "send") as sample, run.accepted() as sock:
        sample.say(b"hello")
        sample.end_stdin()
        unpacker, said = zlib.decompressobj(), b""
        while not unpacker.eof:
            said += unpacker.decompress(sock.recv(65536))
        sock.sendall(zlib.compress(said.upper()))
        return sample.ends()


def hello_world(run: Run) -> bytes:
    with run.server() as server:
        for _ in range(2):
            with server.connect() as sock:
                assert rest(sock) == b"Hello, World!\n"
        server.press_ctrl_c()
        return server.ends()


def le_proxy(run: Run) -> bytes:
    with run.server("127.0.0.1", run.port) as proxy:
        with proxy.connect() as sock, run.accepted() as server:
            relayed(sock, server)
            sock.shutdown(socket.SHUT_WR)
            assert rest(server) == b""
            server.close()
            assert rest(sock) == b""
        with proxy.connect() as sock, run.accepted() as server:
            relayed(sock, server)
            return proxy.interrupt()


def le_proxy_tls(run: Run) -> bytes:
    own = run.authority.server
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certfile, own.keyfile)
    trust = {"SSL_CERT_FILE": str(run.authority.ca.certfile)}
    with (
        run.server("--tls", "127.0.0.1", run.port, env=trust) as proxy,
        proxy.connect() as sock,
        context.wrap_socket(run.accepted(), server_side=True) as server,
    ):
        relayed(sock, server)
        sock.shutdown(socket.SHUT_WR)
        assert server.recv(100) == b""
        server.unwrap().close()
        assert rest(sock) == b""
        return proxy.interrupt()


def relayed(sock: socket.socket, server: socket.socket) -> None:
    """Send a word each way. The server's comes first: only what is connected is read from."""
    server.sendall(b"hello")
    assert exactly(sock, 5) == b"hello"
    sock.sendall(b"world")
    assert exactly(server, 5) == b"world"


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


def tls_echo(run: Run) -> bytes:
    own = run.authority.server
    context = ssl.create_default_context(cafile=str(run.authority.ca.certfile))
    with run.server("serve", own.certfile, own.keyfile) as server:
        with context.wrap_socket(server.connect(), server_hostname=HOST) as sock:
            sock.sendall(b"hello")
            assert exactly(sock, 5) == b"hello"
            sock.unwrap().close()
        server.prints("finished")
        return server.interrupt()


def tls_echo_talk(run: Run) -> bytes:
    own = run.authority.server
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certfile, own.keyfile)
    arguments = ("127.0.0.1", run.port, "talk", HOST, run.authority.ca.certfile)
    with (
        run.sample(*arguments) as sample,
        context.wrap_socket(run.accepted(), server_side=True) as sock,
    ):
        sample.say(b"hello\n")
        assert exactly(sock, 6) == b"hello\n"
        sock.sendall(b"world\n")
        sample.prints("world\n")
        sample.end_stdin()
        assert sock.recv(100) == b""
        sock.unwrap().close()
        return sample.ends()


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
    "filter_zlib send": filter_zlib_send,
    "hello_world": hello_world,
    "le_proxy": le_proxy,
    "le_proxy tls": le_proxy_tls,
    "methods": methods,
    "pair": pair,
    "priorities": priorities,
    "rate_limit": rate_limit,
    "signal_test": signal_test,
    "time_test": time_test,
    "tls_echo": tls_echo,
    "tls_echo talk": tls_echo_talk,
    "upper_bufferevent": upper_bufferevent,
    "upper_delimited": upper_delimited,
    "upper_event": upper_event,
    "upper_length_prefixed": upper_length_prefixed,
    "upper_listener": upper_listener,
    "watermarks": watermarks,
}


#: Those that are run under valgrind in ``make test``: with TLS each takes some seconds.
TRACED_ALWAYS = {"event_read_fifo", "filter_zlib", "hello_world", "rate_limit", "upper_listener"}
VALGRIND_ALWAYS = {"filter_zlib", "le_proxy", "upper_event", "upper_listener"}


@pytest.mark.parametrize("key", sampled(SCENARIOS, TRACED_ALWAYS))
def test_a_sample_and_its_twin_call_the_same(
    key: str, tmp_path: Path, authority: Authority
) -> None:
    check_alike(key, SCENARIOS[key], tmp_path, authority)


@pytest.mark.parametrize("key", sampled(SCENARIOS, VALGRIND_ALWAYS))
def test_a_twin_frees_all_that_it_makes(key: str, authority: Authority) -> None:
    check_clean(key, SCENARIOS[key], authority)
