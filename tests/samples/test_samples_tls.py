"""The sample of TLS: its server and its client, with each other and with openssl's."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.kit.certificates import HOST, Authority
from tests.kit.peers import reset
from tests.kit.samples import Sample, Server, running
from tests.kit.support import PATIENCE
from tests.kit.tls_peers import openssl_server


def server(authority: Authority, language: str) -> Server:
    own = authority.server
    return Server("tls_echo", "serve", own.certfile, own.keyfile, language=language)


def client(port: int, name: str, authority: Authority, language: str) -> Sample:
    return Sample(
        "tls_echo", "127.0.0.1", port, "talk", name, authority.ca.certfile, language=language
    )


def said(sample: Sample, data: bytes) -> bytes:
    """Return what the client prints that is told *data*."""
    assert sample.process.stdin is not None
    printed, complaints = sample.process.communicate(data, PATIENCE)
    assert (sample.process.returncode, complaints) == (0, b"")
    return printed


@pytest.mark.parametrize("size", [0, 1, 100, 2_000_000])
def test_the_client_gets_back_what_it_sends(authority: Authority, size: int, language: str) -> None:
    data = os.urandom(size)
    with (
        running(server(authority, language=language)) as echo,
        client(echo.port, HOST, authority, language=language) as sample,
    ):
        assert said(sample, data) == data
        echo.prints("TLSv1.3 TLS_")
        assert b"rror" not in echo.printed


def test_openssls_client_gets_back_what_it_sends(authority: Authority, language: str) -> None:
    with running(server(authority, language=language)) as echo:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{echo.port}", "-quiet"]
        command += ["-CAfile", str(authority.ca.certfile), "-verify_return_error"]
        command += ["-verify_hostname", HOST, "-servername", HOST, "-no_ign_eof"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as talking:
            assert talking.stdin is not None
            assert talking.stdout is not None
            for line in (b"to and fro\n", b"and once more\n"):
                talking.stdin.write(line)
                talking.stdin.flush()
                assert talking.stdout.readline() == line
            talking.stdin.close()
            assert talking.wait(PATIENCE) == 0
        assert b"rror" not in echo.interrupt()


def test_the_client_talks_to_openssls_server(authority: Authority, language: str) -> None:
    own = authority.server
    arguments = ("-rev", "-cert", str(own.certfile), "-key", str(own.keyfile))
    with (
        openssl_server(*arguments) as address,
        client(address[1], HOST, authority, language=language) as sample,
    ):
        sample.say(b"stressed\n")
        sample.prints("desserts\n")


@pytest.mark.parametrize("name", ["other.test", "127.0.0.2"])
def test_a_wrong_name_is_refused_by_the_client_and_told_to_the_server(
    authority: Authority, name: str, language: str
) -> None:
    with (
        running(server(authority, language=language)) as echo,
        client(echo.port, name, authority, language=language) as sample,
    ):
        sample.ends(1, r".*certificate verify failed: (hostname|IP address) mismatch")
        echo.prints("alert bad certificate")


def test_by_default_the_client_does_not_believe_the_tests_authority(
    authority: Authority, language: str
) -> None:
    said = r".*certificate verify failed: unable to get local issuer certificate"
    with (
        running(server(authority, language=language)) as echo,
        Sample("tls_echo", "127.0.0.1", echo.port, "talk", HOST, language=language) as sample,
    ):
        sample.ends(1, said)


def test_clients_that_know_no_tls_or_leave_do_no_harm(authority: Authority, language: str) -> None:
    with running(server(authority, language=language)) as echo:
        for data in (b"", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02"):
            for end in (reset, lambda sock: sock.close()):
                sock = echo.connect()
                sock.sendall(data)
                end(sock)
        with client(echo.port, HOST, authority, language=language) as sample:
            assert said(sample, b"still there?") == b"still there?"


def test_without_a_certificate_it_says_how_it_is_used(language: str) -> None:
    with Sample("tls_echo", language=language) as sample:
        sample.ends(1, r"(?s).*/tls_echo(\.py)? 127.0.0.1 8888 serve certificate.pem.*")
