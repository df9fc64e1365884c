"""Whom a TLS connection believes: a peer that can't show who it is gets no data, and is told."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    EventBase,
    LibeventError,
    TlsContext,
    TlsError,
    TlsVersion,
    lib,
)
from libevent_py.bufferevent import tls
from tests.kit.certificates import HOST, Authority, Certificate
from tests.kit.peers import run_until, settle
from tests.kit.support import run_python
from tests.kit.tls_peers import End, client_context, ends, server_context

BOTH_VERSIONS = pytest.mark.parametrize("version", [TlsVersion.TLSv1_2, TlsVersion.TLSv1_3])


@pytest.fixture(scope="module")
def bad(authority: Authority) -> dict[str, Certificate]:
    """Certificates for `HOST`, each with something wrong."""
    return {
        "wrong host": authority.certify("wrong", "DNS:other.test"),
        "expired": authority.certify("expired", f"DNS:{HOST}", days=("-days", "-1")),
        "self-signed": authority.self_signed("self", f"DNS:{HOST}"),
        "no host": authority.certify("anonymous"),
    }


def talk(base: EventBase, client: TlsContext, server: TlsContext, **named: Any) -> tuple[End, End]:
    """Have both sides send data, until the handshake is done or has failed on both sides."""
    one, other = ends(base, client, server, **named)
    one.bev.write(b"the client's secret")
    other.bev.write(b"the server's secret")
    run_until(base, lambda: (one.over and other.over) or (one.received and other.received))
    return one, other


def refused(one: End, other: End) -> TlsError:
    """Return why *one* has refused *other*, which has been told, and neither has got any data."""
    assert one.received == other.received == b""
    assert not one.connected
    assert one.happened & BufferEventFlag.ERROR
    assert isinstance(one.error, TlsError)
    assert (one.error.library, one.error.reason) == ("SSL", "CERTIFICATE_VERIFY_FAILED")
    assert one.error.verify_code
    assert one.error.verify_message
    assert str(one.error).endswith(f"certificate verify failed: {one.error.verify_message}")
    assert isinstance(other.error, TlsError)
    assert "ALERT" in other.error.reason
    assert one.bev.peer_certificate is None
    return one.error


@BOTH_VERSIONS
@pytest.mark.parametrize(
    ("flaw", "said"),
    [
        ("wrong host", "hostname mismatch"),
        ("no host", "hostname mismatch"),
        ("expired", "certificate has expired"),
        ("self-signed", "self-signed certificate"),
    ],
)
def test_a_server_that_is_not_who_it_should_be_is_refused_by_name(
    base: EventBase,
    authority: Authority,
    bad: dict[str, Certificate],
    version: TlsVersion,
    flaw: str,
    said: str,
) -> None:
    client = client_context(authority, maximum_version=version)
    own = bad[flaw]
    server = server_context(authority, certfile=own.certfile, keyfile=own.keyfile)
    error = refused(*talk(base, client, server))
    assert error.verify_message.lower().replace("self signed", "self-signed") == said


def test_an_authority_that_nobody_knows_is_not_believed(
    base: EventBase, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    own = stranger.server
    server = server_context(authority, certfile=own.certfile, keyfile=own.keyfile)
    error = refused(*talk(base, client_context(authority), server))
    assert error.verify_message == "unable to get local issuer certificate"
    one, _ = talk(base, TlsContext(cafile=stranger.ca.certfile), server)
    assert one.connected


def test_a_certificate_for_an_address_is_for_that_address_only(
    base: EventBase, authority: Authority
) -> None:
    client, server = client_context(authority), server_context(authority)
    for host in ("127.0.0.1", "::1"):
        assert talk(base, client, server, server_hostname=host)[0].connected
    for host in ("127.0.0.2", "::2", "10.0.0.1"):
        error = refused(*talk(base, client, server, server_hostname=host))
        assert error.verify_message == "IP address mismatch"


@pytest.mark.parametrize(
    ("hosts", "host", "believed"),
    [
        ("DNS:*.server.test", "a.server.test", True),
        ("DNS:*.server.test", "a.b.server.test", False),
        ("DNS:*.server.test", "server.test", False),
        ("DNS:a*.server.test", "ab.server.test", False),
        ("DNS:server.test", "SERVER.test.", True),
        ("DNS:server.test", "server.test.evil.test", False),
        ("DNS:server.test", "xserver.test", False),
        ("DNS:xn--bcher-kva.test", "bücher.test", True),
        ("IP:127.0.0.1", "server.test", False),
        ("DNS:127.0.0.1", "127.0.0.1", False),
    ],
)
def test_the_host_is_compared_as_certificates_mean_it(
    base: EventBase, authority: Authority, hosts: str, host: str, believed: bool
) -> None:
    own = authority.certify("compared", hosts)
    server = server_context(authority, certfile=own.certfile, keyfile=own.keyfile)
    one, other = talk(base, client_context(authority), server, server_hostname=host)
    if believed:
        assert one.connected
        assert other.bev.server_hostname == host.rstrip(".").encode("idna").decode()
    else:
        assert "mismatch" in refused(one, other).verify_message


def test_another_authority_in_between_is_believed_for_the_one_above(
    base: EventBase, authority: Authority
) -> None:
    own = authority.chain("between", f"DNS:{HOST}")
    server = server_context(authority, certfile=own.certfile, keyfile=own.keyfile)
    assert talk(base, client_context(authority), server)[0].connected


def test_a_certificate_is_no_authority(base: EventBase, authority: Authority) -> None:
    """A server must not be able to certify others, as long as nobody has said that it may."""
    false = Authority.__new__(Authority)
    false.directory = authority.directory / "false"
    false.directory.mkdir()
    for suffix in ("pem", "key"):
        content = (authority.directory / f"server.{suffix}").read_bytes()
        (false.directory / f"ca.{suffix}").write_bytes(content)
    own = false.certify("forged", f"DNS:{HOST}")
    own.certfile.write_text(own.certfile.read_text() + authority.server.certfile.read_text())
    server = server_context(authority, certfile=own.certfile, keyfile=own.keyfile)
    assert "invalid CA certificate" in refused(
        *talk(base, client_context(authority), server)
    ).verify_message.replace("non-CA", "CA")


def test_the_name_need_not_be_checked_but_the_certificate_then_still_is(
    base: EventBase, authority: Authority, bad: dict[str, Certificate]
) -> None:
    client = client_context(authority, check_hostname=False)
    for flaw, believed in {"wrong host": True, "expired": False, "self-signed": False}.items():
        server = server_context(authority, certfile=bad[flaw].certfile, keyfile=bad[flaw].keyfile)
        for host in (None, HOST):
            one, other = talk(base, client, server, server_hostname=host)
            assert one.connected is believed
            if not believed:
                refused(one, other)


def test_only_verify_false_believes_everybody(
    base: EventBase, authority: Authority, bad: dict[str, Certificate]
) -> None:
    client = TlsContext(verify=False)
    for own in bad.values():
        server = server_context(authority, certfile=own.certfile, keyfile=own.keyfile)
        assert talk(base, client, server, server_hostname=None)[0].connected


def test_an_expired_client_is_refused(
    base: EventBase, authority: Authority, bad: dict[str, Certificate]
) -> None:
    own = bad["expired"]
    client = client_context(
        authority,
        certfile=own.certfile,
        keyfile=own.keyfile,
        maximum_version=TlsVersion.TLSv1_2,  # or the client is done before the server looks
    )
    server = server_context(authority, verify=True, cafile=authority.ca.certfile)
    one, other = talk(base, client, server)
    assert refused(other, one).verify_message == "certificate has expired"


def test_authorities_can_be_in_a_directory(
    base: EventBase, authority: Authority, tmp_path: Path
) -> None:
    authority._openssl("x509", "-in", "ca.pem", "-noout", "-subject_hash", "-out", "hash")
    name = (authority.directory / "hash").read_text().strip()
    (tmp_path / f"{name}.0").write_bytes(authority.ca.certfile.read_bytes())
    server = server_context(authority)
    assert talk(base, TlsContext(capath=tmp_path), server)[0].connected
    (tmp_path / f"{name}.0").unlink()
    refused(*talk(base, TlsContext(capath=tmp_path), server))


@pytest.mark.slow
def test_by_default_those_are_believed_that_the_system_trusts(authority: Authority) -> None:
    for trusted, expected in ((authority.ca.certfile, "True"), (Path("/dev/null"), "False")):
        printed = run_python(
            """
            import sys
            from libevent_py import EventBase, TlsContext
            from tests.kit.peers import run_until
            from tests.kit.tls_peers import ends
            server = TlsContext(server_side=True, certfile=sys.argv[1], keyfile=sys.argv[2])
            with EventBase() as base:
                one, other = ends(base, TlsContext(), server)
                run_until(base, lambda: one.connected or one.over)
                print(one.connected)
            """,
            str(authority.server.certfile),
            str(authority.server.keyfile),
            env={"SSL_CERT_FILE": str(trusted), "SSL_CERT_DIR": "/nowhere"},
        )
        assert printed.strip() == expected


def test_through_another_bufferevent_the_same_is_verified(
    base: EventBase, authority: Authority, bad: dict[str, Certificate]
) -> None:
    own = bad["wrong host"]
    left, right = socket.socketpair()
    server = server_context(authority, certfile=own.certfile, keyfile=own.keyfile)
    other = End(BufferEvent.tls, base, right, server)
    below = BufferEvent(base, left)
    one = End(BufferEvent.tls_filter, below, client_context(authority), server_hostname=HOST)
    run_until(base, lambda: one.over and other.over)
    assert refused(one, other).verify_message.lower() == "hostname mismatch"


def test_what_was_refused_once_is_refused_again(
    base: EventBase, authority: Authority, bad: dict[str, Certificate]
) -> None:
    own = bad["wrong host"]
    server = server_context(authority, certfile=own.certfile, keyfile=own.keyfile)
    one, other = talk(base, client_context(authority), server)
    refused(one, other)
    for _ in range(3):
        left, right = socket.socketpair()
        other = End(BufferEvent.tls, base, right, server)
        one.events.clear()
        one.bev.fd = left
        run_until(base, lambda: one.over and other.over)  # noqa: B023
        refused(one, other)
    settle(base)


def test_what_can_not_be_checked_is_not_made(
    base: EventBase, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*arguments: Any) -> int:
        lib.SSL_CTX_set_ciphersuites(context.pointer, b"NONSENSE")  # leaves an error behind
        return 0

    class Lib:
        def __getattr__(self, name: str) -> Any:
            return out_of_memory if name == failing else getattr(lib, name)

    context = client_context(authority)
    monkeypatch.setattr(tls, "lib", Lib())
    for host, kind in ((HOST, "host"), ("127.0.0.1", "ip"), ("::1", "ip")):
        failing = f"X509_VERIFY_PARAM_set1_{kind}"
        with pytest.raises(LibeventError):
            BufferEvent.tls(base, -1, context, server_hostname=host)
