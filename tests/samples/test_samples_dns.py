"""The sample that looks names up, and answers what others look up."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.samples import Sample


@pytest.fixture
def server(language: str) -> Iterator[str]:
    """The address at which the sample serves."""
    with Sample("dns_example", "-T", 0, language=language) as sample:
        yield sample.prints(r"serving (\S+), Ctrl-C").group(1).decode()
        sample.process.send_signal(signal.SIGINT)
        sample.ends()


def looked_up(language: str, *arguments: object, status: int = 0, stderr: str = "") -> list[str]:
    with Sample("dns_example", *arguments, language=language) as sample:
        return sorted(sample.ends(status, stderr).decode().splitlines())


def test_names_are_looked_up(language: str, server: str) -> None:
    names = ["one.example", "two.example"]
    assert looked_up(language, "-s", server, *names) == [f"{name}: 192.168.11.11" for name in names]


def test_addresses_are_looked_up(language: str, server: str) -> None:
    addresses = ["192.0.2.1", "2001:db8::1"]
    assert looked_up(language, "-x", "-s", server, *addresses) == [
        f"{address}: foo.bar.example.com" for address in addresses
    ]


def test_all_addresses_are_looked_up(language: str, server: str) -> None:
    names = ["127.0.0.1", "::1", "one.example"]
    assert looked_up(language, "-g", "-s", server, *names) == [
        "127.0.0.1: 127.0.0.1",
        "::1: ::1",
        "one.example: 192.168.11.11",
    ]


def test_servers_are_read_from_a_file(language: str, server: str, tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"nameserver {server}\n")
    assert looked_up(language, "-c", conf, "one.example") == ["one.example: 192.168.11.11"]
    conf.write_text("")
    complaint = r"(?s)(Traceback.*LibeventError: )?.*resolv\.conf names no name server"
    assert looked_up(language, "-c", conf, "one.example", status=1, stderr=complaint) == []


def test_who_does_not_answer_is_given_up(language: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        conf = tmp_path / "resolv.conf"
        host, port = silent.getsockname()
        conf.write_text(f"nameserver {host}:{port}\noptions timeout:0.05 attempts:1\n")
        assert looked_up(language, "-c", conf, "x.example") == [
            "x.example: no answer (request timed out)"
        ]
        why = "non-recoverable failure in name resolution"
        assert looked_up(language, "-c", conf, "-g", "y.example") == [
            f"y.example: no answer ({why})"
        ]
