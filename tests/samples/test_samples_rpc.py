"""The sample of RPCs: its server and its clients, and a client in C."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.peers import nobody_listens
from tests.kit.samples import Sample, Server, running
from tests.kit.support import PATIENCE


@pytest.fixture
def weather() -> Iterator[Server]:
    """The server."""
    with running(Server("rpc_weather", "serve")) as server:
        yield server


def said(port: int, *arguments: object) -> str:
    """Return what the client prints."""
    with Sample("rpc_weather", "127.0.0.1", port, *arguments) as client:
        return client.ends().decode()


def test_the_server_answers_what_it_has_been_told(weather: Server) -> None:
    oslo = "Oslo: -3 C, 0 C, 4 C (a little snow)\n"
    assert said(weather.port, "tell", "Oslo", "a little snow", -3, 0, 4) == oslo
    assert said(weather.port, "tell", "Troms\u00f8", "", -9) == "Troms\u00f8: -9 C\n"
    assert said(weather.port, "ask", "Oslo") == oslo
    assert said(weather.port, "ask", "Rome") == "Rome: unknown\n"


def test_a_client_in_c_is_answered(weather: Server, tmp_path: Path) -> None:
    said(weather.port, "tell", "Oslo", "a little snow", -3, 0)
    program = str(tmp_path / "client")
    source = str(Path(__file__).parent / "rpc_weather.c")
    libraries = ["-levent_extra", "-levent_core"]
    subprocess.run(["cc", "-Wall", "-o", program, source, *libraries], check=True, timeout=PATIENCE)
    asked = [program, str(weather.port), "Oslo"]
    printed = subprocess.run(asked, stdout=subprocess.PIPE, check=True, timeout=PATIENCE).stdout
    assert printed == b"Oslo\n-3 C\n0 C\na little snow\n"


def test_a_client_says_that_there_is_no_server() -> None:
    host, port = nobody_listens()
    with Sample("rpc_weather", host, port, "ask", "Oslo") as client:
        _, complaints = client.process.communicate(timeout=PATIENCE)
        assert complaints.decode() == f"{host}:{port}: BADPAYLOAD\n"
        assert client.process.returncode == 1


@pytest.mark.parametrize("arguments", [["ask"], ["tell", "Oslo"], ["wait"]])
def test_a_client_that_is_told_nonsense_says_what_it_takes(arguments: list[str]) -> None:
    with Sample("rpc_weather", "127.0.0.1", 1, *arguments) as client:
        _, complaints = client.process.communicate(timeout=PATIENCE)
        assert b"python samples/rpc_weather.py 127.0.0.1 8888 ask Oslo" in complaints
