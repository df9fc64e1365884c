"""The samples, each run as a process and talked to by real clients."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from libevent_py import BufferEvent, EventBase, EventFlag, LoopFlag, lib, libevent_version
from samples import upper_event, upper_length_prefixed
from tests.kit.peers import exactly, reset, rest
from tests.kit.samples import (
    MOMENT,
    TOO_MUCH,
    TWINS,
    Sample,
    Server,
    answered,
    framed,
    packet,
    running,
    silent,
)
from tests.kit.support import PATIENCE, ROOT

UPPER = ["upper_event", "upper_bufferevent", "upper_listener"]
FRAMED = ["upper_length_prefixed", "upper_delimited"]
SERVERS = [*UPPER, *FRAMED, "hello_world"]
CLIENTS = ["client_event", "client_bufferevent"]
OTHERS = ["event_read_fifo", "methods", "priorities", "signal_test", "time_test"]
LIMITS = ["rate_limit", "watermarks"]  # tested in test_samples_limits.py
CONNECTIONS = ["http_v0_client", "le_proxy"]  # tested in test_samples_connections.py
LAYERS = ["pair", "filter_zlib"]  # tested in test_samples_layers.py
FILES = ["sendfile"]  # tested in test_samples_files.py
TLS = ["tls_echo"]  # tested in test_samples_tls.py
DNS = ["dns_example", "dns_server"]  # in test_samples_dns.py, test_samples_dns_server.py
HTTP = ["http_hello", "http_server", "http_stream", "https_server"]  # in test_samples_http.py
HTTP_PROXIES = ["http_reverse_proxy"]  # tested in test_samples_http_proxy.py
HTTP_CLIENTS = ["https_client", "http_connect"]  # tested in test_samples_http_client.py
RPC = ["rpc_weather"]  # tested in test_samples_rpc.py
SAMPLES = [
    *SERVERS,
    *CLIENTS,
    *OTHERS,
    *LIMITS,
    *CONNECTIONS,
    *LAYERS,
    *FILES,
    *TLS,
    *DNS,
    *HTTP,
    *HTTP_PROXIES,
    *HTTP_CLIENTS,
    *RPC,
]

#: How long a sample may be that does more than show how something is done, in lines.
LONG = {
    "filter_zlib": 100,
    "tls_echo": 100,
    "le_proxy": 140,
    "dns_example": 120,
    "dns_server": 120,
    "http_server": 150,
    "http_reverse_proxy": 280,
}


def nc(port: int, data: bytes) -> bytes:
    """Return what netcat prints when it is told *data*."""
    command = ["nc", "-N", "127.0.0.1", str(port)]
    return subprocess.run(
        command, input=data, stdout=subprocess.PIPE, timeout=PATIENCE, check=True
    ).stdout


@pytest.fixture(scope="module", params=UPPER)
def upper(request: pytest.FixtureRequest, language: str) -> Iterator[Server]:
    """Each server that knows no packets, in turn."""
    with running(Server(request.param, language=language)) as server:
        yield server


@pytest.fixture(scope="module")
def listener(language: str) -> Iterator[Server]:
    with running(Server("upper_listener", language=language)) as server:
        yield server


@pytest.fixture(scope="module")
def length_prefixed(language: str) -> Iterator[Server]:
    with running(Server("upper_length_prefixed", language=language)) as server:
        yield server


@pytest.fixture(scope="module")
def delimited(language: str) -> Iterator[Server]:
    with running(Server("upper_delimited", language=language)) as server:
        yield server


# What they have in common.


def test_every_sample_is_tested() -> None:
    files = {file.stem for file in (ROOT / "samples").glob("*.py")}
    assert files == {*SAMPLES, "__init__"}


#: The samples that have no twin in C.
ALONE = {
    "rpc_weather": "in C, RPC needs generated code; tests/samples/rpc_weather.c is a client",
}


def test_every_sample_but_a_few_has_a_twin_which_is_compared() -> None:
    assert set(TWINS) == set(SAMPLES) - ALONE.keys()
    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("test_twins*.py"))
    assert {name for name in TWINS if not re.search(rf'"{name}( \w+)*":', tests)} == set()


def test_samples_are_short_and_use_only_public_names() -> None:
    private = r"libevent_py[\w.]*\._|from libevent_py\.|import _|[\w)]\._[a-z]"
    for name in SAMPLES:
        text = (ROOT / "samples" / f"{name}.py").read_text()
        assert 30 <= len(text.splitlines()) <= LONG.get(name, 90), name
        assert not re.search(private, text), name


#: Those of libevent's macros that samples are made of.
MACROS = {"evsignal_new", "evtimer_new", "evuser_new", "event_get_signal"}


def test_samples_say_which_functions_they_are_made_of() -> None:
    for name in SAMPLES:
        doc = importlib.import_module(f"samples.{name}").__doc__ or ""
        [made_of] = re.findall(r"\nMade of (.*?)\.\n", doc, re.DOTALL)
        functions = re.findall(r"\b(?:ev|bufferevent)[a-z]*_\w+\b(?!\.py)", made_of)
        assert functions, name
        for function in functions:
            assert function in MACROS or hasattr(lib, function), f"{name}: {function}"


def test_samples_say_what_they_are_when_asked() -> None:
    for name in SAMPLES:
        with Sample(name, "--help") as sample:
            text = sample.ends().decode()
        doc = importlib.import_module(f"samples.{name}").__doc__ or ""
        if name == "time_test":  # whose arguments argparse explains
            assert doc.split()[:9] == text[text.index("A timer") :].split()[:9]
        else:
            assert text == doc + "\n", name


@pytest.mark.more
def test_twins_take_the_same_arguments() -> None:
    for name in TWINS:
        doc = importlib.import_module(f"samples.{name}").__doc__ or ""
        told = re.findall(rf"python samples/{name}\.py *([^,\n]*(?:\n {{8}}[^,\n]*)?)", doc)
        with Sample(name, "--help", language="c") as sample:
            lines = sample.ends().decode().splitlines()
        assert [line.partition(f"/{name} ")[2] for line in lines] == [
            " ".join(each.split()) for each in told
        ], name


def test_main_takes_a_host_and_a_port() -> None:
    for name in (*SERVERS, *CLIENTS, *CONNECTIONS, *FILES, *HTTP):
        parameters = defaults_of_main(name)
        assert list(parameters)[:2] == ["host", "port"], name
        assert (parameters["host"], parameters["port"]) == ("127.0.0.1", 8888), name
    assert defaults_of_main("upper_listener")["read_timeout"] == 10.0
    assert defaults_of_main("client_bufferevent")["read_timeout"] == 10.0
    assert defaults_of_main("time_test")["seconds"] == 2.0


def defaults_of_main(name: str) -> dict[str, Any]:
    parameters = inspect.signature(importlib.import_module(f"samples.{name}").main).parameters
    return {parameter.name: parameter.default for parameter in parameters.values()}


def test_samples_are_modules_too() -> None:
    with ExitStack() as stack:
        for name in SERVERS:
            assert stack.enter_context(Server(name, as_module=True)).works()


@pytest.mark.parametrize("name", [*UPPER, *FRAMED])
def test_ctrl_c_ends_a_server_while_its_clients_are_connected(name: str, language: str) -> None:
    with (
        Server(name, language=language) as server,
        server.connect() as busy,
        server.connect() as idle,
    ):
        busy.sendall(framed(name, b"hello, world") + framed(name, b"he")[:-1])
        exactly(busy, 11)
        server.interrupt()
        assert rest(idle) == b""


def test_servers_without_free_descriptors_rest_and_then_go_on(language: str) -> None:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(Server(name, descriptors=20, language=language)) for name in SERVERS
        ]
        before = [server.processor_time() for server in servers]
        with ExitStack() as clients:
            for server in servers * 16:
                sock = clients.enter_context(server.connect())
                sock.sendall(framed(server.name, b"hello, world"))
            time.sleep(2 * MOMENT)
        assert all(server.works() for server in servers)
        for server, earlier in zip(servers, before, strict=True):
            assert server.processor_time() - earlier < 0.3


@pytest.mark.parametrize("name", [*UPPER, *FRAMED])
def test_a_client_that_never_reads_is_not_listened_to_for_ever(name: str, language: str) -> None:
    alphabet = b"abcdefghijklmnopqrstuvwxyz" * 100
    piece = framed(name, alphabet)
    with running(Server(name, language=language)) as server, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.setblocking(False)
        pieces = piece * 100
        sent = 0
        while select.select([], [sock], [], MOMENT)[1]:
            sent += sock.send(pieces[sent % len(piece) :])
            assert sent < TOO_MUCH

        # Nor does it keep the server busy, or others waiting.
        before = server.processor_time()
        assert server.works()
        time.sleep(MOMENT)
        assert server.processor_time() - before < MOMENT / 2

        # In the end it gets all its answers, though it says before that this was all.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        sock.settimeout(PATIENCE)
        sock.shutdown(socket.SHUT_WR)
        whole, part = divmod(sent, len(piece))
        answers = answered(name, alphabet) * whole
        if name in UPPER:
            answers += alphabet[:part].upper()
        assert len(answers) > 2**16
        assert rest(sock) == answers


# The upper-casing server at three heights.


def test_netcat_gets_what_it_sends_in_capitals(upper: Server) -> None:
    assert nc(upper.port, b"hello, world\n") == b"HELLO, WORLD\n"


def test_the_answer_to_the_last_bytes_comes_though_the_client_has_ended(upper: Server) -> None:
    for size in (1, 9, 10, 11, 4095, 4097, 300_000):
        data = (b"hello, world\n" * size)[:size]
        assert upper.answer(data) == data.upper()


def test_all_bytes_may_be_sent(upper: Server) -> None:
    data = bytes(range(256))
    assert upper.answer(data) == data.upper()


def test_a_client_may_send_one_byte_at_a_time(upper: Server) -> None:
    text = b"hello, world\n" * 5
    with upper.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(len(text)):
            sock.sendall(text[number : number + 1])
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == text.upper()


def test_a_conversation_goes_on_for_as_long_as_the_client_likes(upper: Server) -> None:
    with upper.connect() as sock:
        for number in range(100):
            line = f"this is line {number}\n".encode()
            sock.sendall(line)
            assert exactly(sock, len(line)) == line.upper()


def test_several_clients_are_served_at_once(upper: Server) -> None:
    with ExitStack() as stack:
        socks = [stack.enter_context(upper.connect()) for _ in range(20)]
        for number, sock in enumerate(socks):
            sock.sendall(f"hello from {number:2}".encode())
        for number, sock in reversed(list(enumerate(socks))):
            assert exactly(sock, 13) == f"HELLO FROM {number:2}".encode()
        for sock in socks:
            sock.sendall(b"and good-bye")
            sock.shutdown(socket.SHUT_WR)
        for sock in socks:
            assert rest(sock) == b"AND GOOD-BYE"


def test_a_client_that_reads_slowly_gets_everything(upper: Server) -> None:
    data = os.urandom(2**20) * 4
    with upper.connect() as sock, upper.connect() as other:
        pid = os.fork()
        if not pid:  # a child sends while this process reads
            try:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            finally:
                os._exit(0)
        time.sleep(MOMENT)
        other.sendall(b"hello, world")
        assert exactly(other, 12) == b"HELLO, WORLD"
        assert rest(sock) == data.upper()
        os.waitpid(pid, 0)


def test_a_client_that_says_nothing_or_resets_troubles_nobody(upper: Server) -> None:
    with upper.connect() as other:
        upper.connect().close()
        reset(upper.connect())
        for _ in range(10):
            sock = upper.connect()
            sock.sendall(b"hello, world" * 1000)
            reset(sock)
        other.sendall(b"still there?")
        assert exactly(other, 12) == b"STILL THERE?"


def test_upper_event_waits_when_a_socket_takes_nothing_at_all(
    base: EventBase, pair: tuple[socket.socket, socket.socket]
) -> None:
    client, server = pair
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += server.send(b"." * 4096)
    serving = upper_event.Client(base, server)
    client.send(b"hello")
    base.loop(LoopFlag.NONBLOCK)
    while filled:
        filled -= len(client.recv(filled))
    base.loop(LoopFlag.NONBLOCK)
    assert client.recv(100) == b"HELLO"
    serving.close()
    assert not upper_event.clients


def test_the_low_watermark_of_upper_bufferevent_is_ten_bytes(language: str) -> None:
    with (
        running(Server("upper_bufferevent", language=language)) as server,
        server.connect() as sock,
    ):
        sock.sendall(b"123456789")
        assert silent(sock)
        sock.sendall(b"a")
        assert exactly(sock, 10) == b"123456789A"
        sock.sendall(b"b")
        assert silent(sock)
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == b"B"


def test_upper_listener_says_what_it_runs_on_and_what_to_type(language: str) -> None:
    with running(Server("upper_listener", language=language)) as server:
        server.prints(
            rf"libevent {re.escape(libevent_version)} with \w+, serving 127.0.0.1:{server.port}\n"
        )
        server.prints(rf"nc 127\.0\.0\.1 {server.port}\b")


def test_upper_listener_reports_how_each_connection_ends(language: str) -> None:
    with running(Server("upper_listener", 0.3, language=language)) as server:
        with server.connect() as sock:
            client = f"127.0.0.1:{sock.getsockname()[1]}"
            server.prints(f"{client}: connected\n")
            sock.shutdown(socket.SHUT_WR)
            server.prints(f"{client}: end of file\n")
            assert rest(sock) == b""
        with server.connect() as sock:
            client = f"127.0.0.1:{sock.getsockname()[1]}"
            server.prints(f"{client}: connected\n")
            reset(sock)
            server.prints(f"{client}: .*Connection reset by peer\n")
        with server.connect() as sock:
            client = f"127.0.0.1:{sock.getsockname()[1]}"
            begun = time.monotonic()
            assert rest(sock) == b""
            assert time.monotonic() - begun > 0.25
            server.prints(f"{client}: timed out after 0.3 s\n")


def test_the_read_timeout_of_upper_listener_begins_anew_with_each_byte(language: str) -> None:
    with (
        running(Server("upper_listener", 1.0, language=language)) as server,
        server.connect() as sock,
    ):
        for _ in range(6):
            time.sleep(0.25)
            sock.sendall(b"a")
            assert exactly(sock, 1) == b"A"


def test_upper_listener_disconnects_who_never_reads(language: str) -> None:
    with (
        running(Server("upper_listener", 0.3, language=language)) as server,
        server.connect() as sock,
    ):
        sock.setblocking(False)
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            while select.select([], [sock], [], PATIENCE)[1]:
                sock.send(b"a" * 65536)
        server.prints("timed out")


def test_upper_listener_serves_ipv6_too(language: str) -> None:
    with Sample("upper_listener", "::1", 0, language=language) as server:
        port = int(server.prints(r"serving ::1:(\d+)")[1])
        with socket.create_connection(("::1", port), timeout=PATIENCE) as sock:
            sock.sendall(b"hello")
            assert exactly(sock, 5) == b"HELLO"
        server.prints("end of file")
        server.interrupt()


# Framings.


def test_each_packet_is_answered_with_its_payload(length_prefixed: Server) -> None:
    assert nc(length_prefixed.port, packet(b"hello")) == b"HELLO"
    payloads = [b"hello", b"", b"a", b"b" * 255, b"c" * 256, b"d" * 65535, b"e"]
    data = b"".join(map(packet, payloads))
    assert length_prefixed.answer(data) == b"".join(payloads).upper()


def test_a_packet_may_come_byte_by_byte(length_prefixed: Server) -> None:
    with length_prefixed.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(3):
            for byte in packet(b"hello"):
                assert not select.select([sock], [], [], 0)[0]
                sock.sendall(bytes([byte]))
            assert exactly(sock, 5) == b"HELLO"


def test_after_a_long_packet_a_short_one_is_answered_at_once(length_prefixed: Server) -> None:
    with length_prefixed.connect() as sock:
        sock.sendall(packet(b"a" * 65535)[:-1])
        assert silent(sock)
        sock.sendall(b"a" + packet(b"b"))
        assert exactly(sock, 65536) == b"A" * 65535 + b"B"
        sock.sendall(packet(b"c"))
        assert exactly(sock, 1) == b"C"


@pytest.mark.parametrize("size", [0, 1, 2, 3, 60_000])
def test_who_ends_in_the_middle_of_a_packet_gets_the_answers_before_it(
    length_prefixed: Server, size: int
) -> None:
    assert length_prefixed.answer(packet(b"hello") + packet(b"a" * 65535)[:size]) == b"HELLO"
    sock = length_prefixed.connect()
    sock.sendall(packet(b"hello") + packet(b"a" * 65535)[:size])
    reset(sock)
    assert length_prefixed.answer(packet(b"world")) == b"WORLD"


def test_many_packets_at_once_are_all_answered(length_prefixed: Server) -> None:
    data = packet(b"hello") * 10_000
    with length_prefixed.connect() as sock:
        pid = os.fork()
        if not pid:
            try:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            finally:
                os._exit(0)
        assert rest(sock) == b"HELLO" * 10_000
        os.waitpid(pid, 0)


def test_an_incomplete_packet_raises_the_low_watermark(
    base: EventBase, pair: tuple[socket.socket, socket.socket]
) -> None:
    client, server = pair
    calls: list[tuple[int, int]] = []

    def on_read(bev: BufferEvent) -> None:
        upper_length_prefixed.on_read(bev)
        calls.append(bev.getwatermark(EventFlag.READ))

    bev = BufferEvent(base, server, on_read=on_read)
    bev.setwatermark(EventFlag.READ, low=2, high=0)
    bev.enable(EventFlag.READ)
    data = packet(b"hello") + packet(b"ab")
    for number in range(len(data)):
        client.send(data[number : number + 1])
        base.loop(LoopFlag.ONCE)
    assert calls == [(7, 0), (2, 0), (4, 0), (2, 0)]
    base.loop(LoopFlag.NONBLOCK)
    assert client.recv(100) == b"HELLOAB"


def test_a_packet_is_answered_whole_with_its_delimiters(delimited: Server) -> None:
    assert nc(delimited.port, b"noise 1hello2 noise 1, 21world2") == b"1HELLO21, 21WORLD2"


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"hello", b""),
        (b"2hello1", b""),
        (b"1abc2", b"1ABC2"),
        (b"12", b"12"),
        (b"122", b"12"),
        (b"1a12b2", b"1A12"),
        (b"22221a21b2111c2", b"1A21B2111C2"),
        (b"1a21b", b"1A2"),
        (b"\0\xff1\0\xff\n2\0", b"1\0\xff\n2"),
        (b"1" + b"a" * 65535 + b"2", b"1" + b"A" * 65535 + b"2"),
        (b"x" * 300_000 + b"1a2" + b"x" * 300_000, b"1A2"),
    ],
)
def test_bytes_outside_of_packets_are_dropped(
    delimited: Server, sent: bytes, answer: bytes
) -> None:
    assert delimited.answer(sent) == answer
    if len(sent) < 100:
        with delimited.connect() as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in sent:
                sock.sendall(bytes([byte]))
            sock.shutdown(socket.SHUT_WR)
            assert rest(sock) == answer


def test_a_packet_without_an_end_disconnects_its_client(delimited: Server) -> None:
    with delimited.connect() as sock:
        sock.sendall(b"1hello2")
        assert exactly(sock, 7) == b"1HELLO2"
        sock.sendall(b"1" + b"a" * 65536)
        delimited.prints("a packet is too long")
        assert rest(sock) == b""
    assert delimited.answer(b"1world2") == b"1WORLD2"


def test_who_resets_in_the_middle_of_a_delimited_packet_troubles_nobody(
    delimited: Server,
) -> None:
    sock = delimited.connect()
    sock.sendall(b"1hello21wor")
    reset(sock)
    assert delimited.answer(b"1world2") == b"1WORLD2"


# Clients.


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_joins_stdin_and_the_socket(listener: Server, name: str, language: str) -> None:
    with Sample(name, "127.0.0.1", listener.port, language=language) as client:
        client.say(b"hello, world\n")
        client.prints("HELLO, WORLD\n")
        client.say(b"good-bye then\n")
        client.prints("GOOD-BYE THEN\n")
        client.ends()


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_stdin_may_be_a_file(listener: Server, name: str, size: int, language: str) -> None:
    with tempfile.TemporaryFile() as file:
        data = (bytes(range(256)) * (size // 256 + 1))[:size]
        file.write(data)
        file.flush()
        file.seek(0)
        with Sample(name, "127.0.0.1", listener.port, stdin=file, language=language) as client:
            assert client.ends() == data.upper()


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_prints_what_the_server_says_after_the_end_of_stdin(
    name: str, language: str
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Sample(
            name,
            "127.0.0.1",
            listener.getsockname()[1],
            stdin=subprocess.DEVNULL,
            language=language,
        ) as client,
    ):
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(PATIENCE)
            assert rest(sock) == b""
            sock.sendall(b"all this\n")
            client.prints("all this\n")
            sock.sendall(b"and that\n")
        assert client.ends() == b"all this\nand that\n"


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_ends_when_the_server_closes(name: str, language: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Sample(name, "127.0.0.1", listener.getsockname()[1], language=language) as client,
    ):
        listener.accept()[0].close()
        client.process.wait(PATIENCE)
        assert client.ends() == b""


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("http_v0_client", []),
        ("filter_zlib", ["send"]),
        ("tls_echo", ["talk", "localhost"]),
    ],
)
def test_ctrl_c_ends_a_client_that_waits(name: str, arguments: list[str], language: str) -> None:
    if language == "c" and name not in TWINS:
        pytest.skip("it has no twin yet")
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Sample(
            name, "127.0.0.1", listener.getsockname()[1], *arguments, language=language
        ) as client,
    ):
        if name == "filter_zlib":  # which takes all of stdin first
            assert client.process.stdin is not None
            client.process.stdin.close()
            client.process.stdin = None
        sock, _ = listener.accept()
        with sock:
            client.waits()  # before, it may be on the way to its loop, and not take Ctrl-C well
            assert client.interrupt() == b""


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_names_the_error(name: str, language: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with Sample(name, "127.0.0.1", port, language=language) as client:
            reset(listener.accept()[0])
            client.process.wait(PATIENCE)
            client.ends(1, f"127.0.0.1:{port}: .*Connection reset by peer")
    with Sample(name, "127.0.0.1", port, language=language) as client:
        client.process.wait(PATIENCE)
        client.ends(1, f"127.0.0.1:{port}: .*Connection refused")


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_waits_for_a_server_that_does_not_read(name: str, language: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        tempfile.TemporaryFile() as file,
    ):
        file.truncate(32 * 2**20)
        with Sample(
            name, "127.0.0.1", listener.getsockname()[1], stdin=file, language=language
        ) as client:
            sock, _ = listener.accept()
            with sock:
                time.sleep(MOMENT)
                before = client.processor_time()
                sock.sendall(b"hello\n")
                client.prints("hello\n")
                time.sleep(MOMENT)
                assert client.processor_time() - before < MOMENT / 2
                sock.settimeout(PATIENCE)
                received = 0
                while data := sock.recv(2**20):
                    received += len(data)
                assert received == 32 * 2**20
            client.ends()


@pytest.mark.parametrize("name", CLIENTS)
def test_ctrl_c_ends_a_client(listener: Server, name: str, language: str) -> None:
    with Sample(name, "127.0.0.1", listener.port, language=language) as client:
        client.say(b"hello, world\n")
        client.prints("HELLO, WORLD\n")
        client.interrupt()


def test_the_client_of_a_bufferevent_gives_up_after_its_read_timeout(language: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        begun = time.monotonic()
        with Sample("client_bufferevent", "127.0.0.1", port, 0.4, language=language) as client:
            client.process.wait(PATIENCE)
            assert time.monotonic() - begun > 0.35
            client.ends(1, f"127.0.0.1:{port}: nothing came for 0.4 s")


# The others.


def test_hello_world_greets_and_closes(language: str) -> None:
    with Server("hello_world", language=language) as server:
        assert nc(server.port, b"") == b"Hello, World!\n"
        with ExitStack() as stack:
            socks = [stack.enter_context(server.connect()) for _ in range(20)]
            assert {rest(sock) for sock in socks} == {b"Hello, World!\n"}
        reset(server.connect())
        begun = time.monotonic()
        server.press_ctrl_c()
        server.prints("interrupted")
        assert server.answer(b"") == b"Hello, World!\n"
        printed = server.ends()
        assert 1.9 < time.monotonic() - begun < PATIENCE
        assert printed.count(b"sent the line") >= 22
        assert printed.endswith(b"done\n")


def test_signal_test_counts_to_three(language: str) -> None:
    with Sample("signal_test", language=language) as sample:
        sample.prints("waiting for SIGINT, 3 times")
        for left in (2, 1):
            sample.process.send_signal(signal.SIGINT)
            sample.prints(f"got SIGINT, {left} to go")
        assert sample.process.poll() is None
        assert sample.interrupt().endswith(b"got SIGINT, 0 to go\n")


@pytest.mark.parametrize("options", [[], ["-p"]])
def test_time_test_tells_the_time_that_has_passed(options: list[str], language: str) -> None:
    with Sample("time_test", *options, 0.1, language=language) as sample:
        pattern = r"every 0\.1 seconds.*\n" + r"(\d\.\d+) seconds have passed\n" * 3
        times = [float(seconds) for seconds in sample.prints(pattern).groups()]
        assert sum(times) > 0.29
        sample.interrupt()


def test_event_read_fifo_reads_what_one_writer_after_the_other_writes(
    tmp_path: Path, language: str
) -> None:
    with Sample("event_read_fifo", cwd=tmp_path, language=language) as sample:
        sample.prints("reading event.fifo")
        for text in ("hello", "world"):
            (tmp_path / "event.fifo").write_text(f"{text}\n")
            sample.prints(f"read: {text}\n")
        printed = sample.interrupt()
    assert re.findall(rb"read: (.*\n)", printed) == [b"hello\n", b"world\n"]
    assert list(tmp_path.iterdir()) == []


def test_event_read_fifo_leaves_a_file_alone_that_is_there(tmp_path: Path, language: str) -> None:
    file = tmp_path / "mine"
    file.write_text("precious")
    with Sample("event_read_fifo", file, language=language) as sample:
        sample.process.wait(PATIENCE)
        sample.ends(1, f"{file}: File exists")
    assert file.read_text() == "precious"


def test_priorities_calls_the_urgent_first(language: str) -> None:
    with Sample("priorities", language=language) as sample:
        lines = sample.ends().decode().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["urgent", "normal", "urgent", "idle"]


def test_methods_tells_the_version_and_the_backends(language: str) -> None:
    with Sample("methods", language=language) as sample:
        printed = sample.ends().decode()
    assert re.search(r"^libevent 2\.1\.\d+", printed)
    assert f"backends: {', '.join(EventBase.supported_methods())}\n" in printed
    with EventBase() as base:
        assert f"in use: {base.method}\n" in printed
        assert len(re.findall(r"^  yes ", printed, re.MULTILINE)) == bin(base.features).count("1")
