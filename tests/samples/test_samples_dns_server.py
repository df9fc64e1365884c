"""The sample of a name server, asked by dig."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.samples import Server, running
from tests.kit.support import PATIENCE

ZONE = [
    "www.example=192.0.2.1",
    "www.example=192.0.2.2",
    "www.example=2001:db8::1",
    "web.example=www.example",
    "here.example=there.example",
    "there.example=here.example",
]


@pytest.fixture(scope="module")
def server(language: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    hosts: Path = tmp_path_factory.mktemp("zone") / "hosts"
    hosts.write_text("# local\n127.0.0.1 localhost one two # three\n\n::1 localhost\n")
    with running(Server("dns_server", *ZONE, hosts, language=language)) as server:
        yield server


def dig(server: Server, *arguments: str) -> str:
    """Return what dig prints."""
    command = ["dig", "@127.0.0.1", "-p", str(server.port), "+tries=1", "+time=30", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout


def short(server: Server, *arguments: str) -> list[str]:
    return dig(server, "+short", *arguments).splitlines()


def test_addresses_are_answered(server: Server) -> None:
    assert short(server, "www.example") == ["192.0.2.1", "192.0.2.2"]
    assert short(server, "WWW.Example", "AAAA") == ["2001:db8::1"]
    assert short(server, "two") == ["127.0.0.1"]
    assert short(server, "localhost", "AAAA") == ["::1"]


def test_names_are_answered(server: Server) -> None:
    assert short(server, "-x", "192.0.2.2") == ["www.example."]
    assert short(server, "-x", "2001:db8::1") == ["www.example."]
    assert short(server, "-x", "127.0.0.1") == ["localhost.", "one.", "two."]


def test_an_alias_is_answered_with_what_it_stands_for(server: Server) -> None:
    assert short(server, "web.example") == ["www.example.", "192.0.2.1", "192.0.2.2"]
    assert short(server, "web.example", "CNAME") == ["www.example."]
    assert short(server, "here.example") == ["there.example.", "here.example."]


def test_what_is_not_there_is_said_not_to_be(server: Server) -> None:
    assert "status: NXDOMAIN" in dig(server, "nobody.example")
    none = dig(server, "two", "AAAA")
    assert "status: NOERROR" in none and "flags: qr aa rd; QUERY: 1, ANSWER: 0" in none


def test_what_it_does_not_know_it_refuses(server: Server) -> None:
    assert "status: REFUSED" in dig(server, "www.example", "TXT")
    assert "status: REFUSED" in dig(server, "www.example", "A", "-c", "CH")
