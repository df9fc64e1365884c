"""The samples of pairs and filters: two ends in memory, and compression by zlib on both ends."""

from __future__ import annotations

import os
import select
import socket
import zlib

from tests.kit.peers import reset, rest
from tests.kit.samples import MOMENT, TOO_MUCH, Sample, Server, running

# pair

TALK = b"""\
client: hello, world
server: HELLO, WORLD
client: nobody else is listening
server: NOBODY ELSE IS LISTENING
client: goodbye
server: GOODBYE
server: the client has finished
stopped
"""


def test_the_two_ends_of_a_pair_talk(language: str) -> None:
    with Sample("pair", language=language) as sample:
        assert sample.ends() == TALK


def test_the_client_of_a_pair_says_what_it_is_told_to(language: str) -> None:
    with Sample("pair", "one", "", "three", language=language) as sample:
        said = sample.ends().splitlines()
    assert said[:6:2] == [b"client: one", b"client: ", b"client: three"]
    assert said[1:6:2] == [b"server: ONE", b"server: ", b"server: THREE"]


# filter_zlib


def unpacked(data: bytes) -> bytes:
    """Return what zlib makes of *data*, which must be all of it."""
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(data)
    assert unpacker.eof
    return unpacked


def test_the_client_gets_the_answer_to_what_it_sends(language: str) -> None:
    with running(Server("filter_zlib", language=language)) as server:
        for data in (b"", b"hello, world\n", os.urandom(1000), b"hello, world\n" * 300_000):
            with Sample(
                "filter_zlib", "127.0.0.1", server.port, "send", language=language
            ) as client:
                client.process.stdin.write(data)  # type: ignore[union-attr]
                client.process.stdin.close()  # type: ignore[union-attr]
                client.process.stdin = None
                assert client.ends() == data.upper()


def test_what_is_on_the_wire_is_compressed(language: str) -> None:
    text = b"hello, world\n" * 1000
    with running(Server("filter_zlib", language=language)) as server, server.connect() as sock:
        sock.sendall(zlib.compress(text))
        received = b""
        while not received.endswith(zlib.compress(text.upper())[-4:]):  # its checksum
            received += sock.recv(65536)
        assert unpacked(received) == text.upper()
        assert len(received) < len(text) / 10
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == b""


def test_each_message_is_answered_before_the_end(language: str) -> None:
    packer, unpacker = zlib.compressobj(), zlib.decompressobj()
    with running(Server("filter_zlib", language=language)) as server, server.connect() as sock:
        for number in range(20):
            text = b"this is message %d" % number
            sock.sendall(packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH))
            answer = b""
            while len(answer) < len(text):
                answer += unpacker.decompress(sock.recv(65536))
            assert answer == text.upper()


def test_what_is_no_zlib_ends_its_own_connection_only(language: str) -> None:
    packed = zlib.compress(b"hello, world")
    with Server("filter_zlib", language=language) as server, server.connect() as good:
        good.sendall(packed[:5])
        with server.connect() as bad:
            bad.sendall(b"this is not compressed")
            assert rest(bad) == b""
        with server.connect() as other:
            other.sendall(packed[:-1])
            reset(other)
        good.sendall(packed[5:])
        answer = b""
        while not answer.endswith(zlib.compress(b"HELLO, WORLD")[-4:]):
            answer += good.recv(100)
        assert unpacked(answer) == b"HELLO, WORLD"
        assert b"incorrect header check" in server.interrupt()


def test_a_client_that_never_reads_is_not_listened_to_for_ever(language: str) -> None:
    packer = zlib.compressobj(0)  # so that it takes as many bytes as it stands for
    with running(Server("filter_zlib", language=language)) as server, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.setblocking(False)
        sent = 0
        while select.select([], [sock], [], MOMENT)[1]:
            piece = os.urandom(32768)
            data = packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
            while data and select.select([], [sock], [], MOMENT)[1]:
                size = sock.send(data)
                data, sent = data[size:], sent + size
            assert sent < TOO_MUCH
        assert sent > 65536


def test_the_client_says_what_is_missing(language: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with Sample("filter_zlib", "127.0.0.1", port, "send", language=language) as client:
            client.process.stdin.close()  # type: ignore[union-attr]
            client.process.stdin = None
            sock, _ = listener.accept()
            with sock:
                while sock.recv(100)[-1:] == b"":
                    continue
            client.ends(1, "the answer is not complete: .*")
