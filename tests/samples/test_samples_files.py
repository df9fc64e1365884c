"""The samples that send files, each run as a process and talked to by real clients."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack
from pathlib import Path

from tests.kit.peers import exactly, rest
from tests.kit.samples import TOO_MUCH, Server, running
from tests.kit.support import ROOT


def left(sock: socket.socket) -> int:
    """Return how many bytes come until the other end closes."""
    size = 0
    while part := sock.recv(2**20):
        size += len(part)
    return size


def test_sendfile_sends_itself_if_nothing_else(language: str) -> None:
    with Server("sendfile", language=language) as server:
        file = "sendfile.py" if language == "python" else "c/sendfile.c"
        expected = (ROOT / "samples" / file).read_bytes()
        for _ in range(2):
            assert server.answer(b"") == expected
        server.prints("has the file(?s:.)*has the file")
        server.interrupt()


def test_sendfile_sends_an_empty_file_too(language: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with (
        running(Server("sendfile", tmp_path / "empty", language=language)) as server,
        server.connect() as sock,
    ):
        assert rest(sock) == b""


def test_sendfile_needs_no_more_memory_and_descriptors_for_many_clients(
    language: str, tmp_path: Path
) -> None:
    size, clients = 50 * 2**20, 10
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)
    with (
        running(Server("sendfile", tmp_path / "large", language=language)) as server,
        ExitStack() as stack,
    ):
        opened = Path(f"/proc/{server.process.pid}/fd")
        socks, counts = [], []
        for _ in range(clients):
            socks.append(stack.enter_context(server.connect()))
            exactly(socks[-1], 1000)
            counts.append(len(list(opened.iterdir())))
        assert counts == list(range(counts[0], counts[0] + clients))
        for sock in socks:
            assert left(sock) == size - 1000
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        assert int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) * 1024 < size


def test_sendfile_says_who_did_not_get_the_file(language: str, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(TOO_MUCH)
        with running(Server("sendfile", path, language=language)) as server:
            with server.connect() as sock:
                exactly(sock, 1000)
            server.prints(r"Connection reset by peer|Broken pipe")
            with server.connect() as sock:
                exactly(sock, 1000)
                file.truncate(1000)
                assert left(sock) < TOO_MUCH - 1000
            server.prints("bytes are missing")
