"""The samples and their twins in C call the same of libevent, and the twins free all they make.

That they do the same for their clients is tested by the samples' own tests, which drive both.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.peers import exactly, reset, rest
from tests.kit.twins import Run, Scenario, check_alike, check_clean


def hello_world(run: Run) -> bytes:
    with run.server() as server:
        for _ in range(2):
            with server.connect() as sock:
                assert rest(sock) == b"Hello, World!\n"
        server.press_ctrl_c()
        return server.ends()


def methods(run: Run) -> bytes:
    with run.sample() as sample:
        return sample.ends()


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


SCENARIOS: dict[str, Scenario] = {
    each.__name__: each for each in (hello_world, methods, upper_listener)
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_sample_and_its_twin_call_the_same(name: str, tmp_path: Path) -> None:
    check_alike(name, SCENARIOS[name], tmp_path)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_twin_frees_all_that_it_makes(name: str) -> None:
    check_clean(name, SCENARIOS[name])
