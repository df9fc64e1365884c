"""Contexts of TLS, and what is checked before libevent sees it."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventOption,
    ClosedError,
    EventBase,
    LibeventError,
    TlsContext,
    TlsError,
    TlsState,
    TlsVersion,
    ffi,
    lib,
)
from tests.kit.certificates import HOST, PASSWORD, Authority
from tests.kit.peers import (
    is_open,
    run_until,
)
from tests.kit.support import ROOT, run_python
from tests.kit.tls_peers import (
    client_context,
    ends,
    server_context,
)

# Contexts.


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"server_side": True}, ValueError, "certfile must be given for a server"),
        ({"keyfile": "key.pem"}, ValueError, "certfile must be given"),
        ({"certfile": "/nowhere.pem"}, FileNotFoundError, "/nowhere.pem"),
        ({"cafile": "/nowhere.pem"}, FileNotFoundError, "/nowhere.pem"),
        ({"capath": "/nowhere"}, FileNotFoundError, "/nowhere"),
        ({"cafile": __file__}, TlsError, "cafile '.*test_tls_context.py'"),
        ({"ciphers": "NONSENSE"}, TlsError, "ciphers 'NONSENSE': .*no cipher match"),
        ({"ciphersuites": "NONSENSE"}, TlsError, "ciphersuites 'NONSENSE'"),
        ({"ciphers": 1}, TypeError, "ciphers must be text, not 1"),
        ({"ciphers": "A\0B"}, ValueError, "ciphers must be names"),
        ({"alpn_protocols": "h2"}, TypeError, "alpn_protocols must be a collection of names"),
        ({"alpn_protocols": [b"h2"]}, TypeError, "alpn_protocols must be text"),
        ({"alpn_protocols": [""]}, ValueError, "alpn_protocols must have 1 to 255 characters"),
        ({"alpn_protocols": ["x" * 256]}, ValueError, "alpn_protocols must have 1 to 255"),
        ({"alpn_protocols": ["h2", "\u20ac"]}, ValueError, "alpn_protocols must be of Latin-1"),
        ({"minimum_version": 7}, ValueError, "7 is not a valid TlsVersion"),
        (
            {"minimum_version": TlsVersion.TLSv1_3, "maximum_version": TlsVersion.TLSv1_2},
            ValueError,
            "maximum_version must be at least TLSv1_3, the minimum, not TLSv1_2",
        ),
    ],
)
def test_a_context_refuses_by_name_what_it_can_not_use(
    arguments: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        TlsContext(**arguments)


@pytest.mark.parametrize("argument", ["certfile", "keyfile", "cafile", "capath"])
def test_a_descriptor_is_no_path_and_stays_open(argument: str) -> None:
    with open(__file__, "rb") as file:
        arguments: dict[str, Any] = {"certfile": __file__} if argument == "keyfile" else {}
        arguments[argument] = file.fileno()
        with pytest.raises((TypeError, NotADirectoryError)):
            TlsContext(**arguments)
        assert is_open(file.fileno())


def test_a_key_must_be_the_certificates_own(authority: Authority) -> None:
    with pytest.raises(TlsError, match=r"server.pem.*key values mismatch") as raised:
        server_context(authority, keyfile=authority.ca.keyfile)
    assert (raised.value.library, raised.value.reason) == ("X509", "KEY_VALUES_MISMATCH")
    assert raised.value.errno == lib.SSL_ERROR_SSL
    assert raised.value.code
    assert isinstance(raised.value, (LibeventError, ssl.SSLError))


def test_an_encrypted_key_takes_its_password_and_nothing_asks_for_it(authority: Authority) -> None:
    secret = authority.encrypted(authority.server, PASSWORD).keyfile
    server_context(authority, keyfile=secret, password=PASSWORD).close()
    server_context(authority, keyfile=secret, password=PASSWORD.encode()).close()
    for wrong in ("wrong", "", "x" * 5000, None):
        with pytest.raises(TlsError, match=re.escape(str(secret))):
            server_context(authority, keyfile=secret, password=wrong)
    with pytest.raises(TypeError, match="password must be text or bytes, not 7"):
        server_context(authority, keyfile=secret, password=7)


def test_openssls_queue_of_errors_is_left_empty(authority: Authority) -> None:
    with pytest.raises(TlsError):
        server_context(authority, keyfile=authority.ca.keyfile)
    assert lib.ERR_get_error() == 0


def test_a_context_tells_what_it_was_made_for(authority: Authority) -> None:
    with TlsContext() as client, server_context(authority) as server:
        assert (client.server_side, client.verify, client.check_hostname) == (False, True, True)
        assert (server.server_side, server.verify, server.check_hostname) == (True, False, False)
    with TlsContext(verify=False) as client:
        assert (client.verify, client.check_hostname) == (False, False)


def test_a_closed_context_makes_nothing_more(base: EventBase, authority: Authority) -> None:
    context = client_context(authority)
    context.close()
    context.close()
    with pytest.raises(ClosedError), socket.socket() as sock:
        BufferEvent.tls(base, sock, context, server_hostname=HOST)


def test_connections_go_on_when_their_contexts_are_closed(
    base: EventBase, authority: Authority
) -> None:
    client = client_context(authority, alpn_protocols=["two", "one"])
    server = server_context(authority, alpn_protocols=["one", "two"])
    one, other = ends(base, client, server)
    client.close()
    server.close()
    run_until(base, lambda: one.connected and other.connected)
    assert one.bev.alpn_protocol == other.bev.alpn_protocol == "one"


def test_without_libevent_openssl_the_package_works_and_a_context_says_what_is_missing() -> None:
    for hidden, built, said in [
        (
            r"bufferevent_(openssl|ssl|get_openssl)|BUFFEREVENT_SSL",
            "OPENSSL",
            "no libevent_openssl",
        ),
        ("(?!)", "TLS", "no development files of the OpenSSL"),
    ]:
        printed = run_python(
            f"""
            import importlib.util, re, sys
            found = importlib.util.find_spec("libevent_py").submodule_search_locations[0]
            path = found + "/_ffi.abi3.so"
            spec = importlib.util.spec_from_file_location("libevent_py._ffi", path)
            built = importlib.util.module_from_spec(spec)

            class Lib:
                LIBEVENT_PY_HAVE_TLS = 0
                LIBEVENT_PY_HAVE_OPENSSL = {int(built == "TLS")}

                def __getattr__(self, name):
                    if re.match(r"SSL_|TLS|X509|ERR_|evpy_tls|{hidden}", name):
                        raise AttributeError(name)
                    return getattr(lib, name)

            class Ffi:
                def addressof(self, of, *names):
                    return ffi.addressof(lib if of is built.lib else of, *names)

                def __getattr__(self, name):
                    return getattr(ffi, name)

            lib, built.lib = built.lib, Lib()
            ffi, built.ffi = built.ffi, Ffi()
            sys.modules["libevent_py._ffi"] = built

            import libevent_py
            from libevent_py import BufferEvent, EventBase, TlsContext, TlsState
            assert list(TlsState) == [0, 1, 2]
            with EventBase() as base:
                bev = BufferEvent(base)
                for make in (TlsContext, lambda: BufferEvent.tls(base, -1, None)):
                    try:
                        make()
                    except libevent_py.LibeventError as error:
                        print(error)
                try:
                    bev.cipher
                except ValueError as error:
                    print(error)
            """,
            fresh=True,
        ).splitlines()
        assert len(printed) == 3
        assert said in printed[0] and said in printed[1]
        assert "has no TLS" in printed[2]


def test_the_openssl_is_the_one_that_libevent_openssl_is_linked_with() -> None:
    assert lib.evpy_tls_linked() >> 28 == lib.OPENSSL_VERSION_NUMBER >> 28
    loaded = Path("/proc/self/maps").read_text().split()
    linked = {name for name in loaded if re.search(r"/libssl\.so", name)}
    ours = subprocess.check_output(["ldd", *(ROOT / "libevent_py").glob("_ffi*.so")], text=True)
    (libevents,) = {name for name in loaded if "/libevent_openssl" in name}
    theirs = subprocess.check_output(["ldd", libevents], text=True)
    (wanted,) = set(re.findall(r"=> (\S*/libssl\.so\S*)", theirs))
    assert wanted in ours
    assert os.path.realpath(wanted) in {os.path.realpath(name) for name in linked}


def test_another_openssl_below_libevent_openssl_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from libevent_py.bufferevent import tls

    class Lib:
        def __getattr__(self, name: str) -> Any:
            return (lambda: 0x1010117F) if name == "evpy_tls_linked" else getattr(lib, name)

    monkeypatch.setattr(tls, "lib", Lib())
    with pytest.raises(
        LibeventError, match=r"built with OpenSSL \d+, but .* linked with OpenSSL 1"
    ):
        TlsContext()


# What is checked before libevent sees it.


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"server_hostname": None}, ValueError, "server_hostname must name the host"),
        ({"server_hostname": ""}, ValueError, "server_hostname must be the name of a host"),
        ({"server_hostname": ".test"}, ValueError, "server_hostname must be the name of a host"),
        ({"server_hostname": "a\0b"}, ValueError, "server_hostname must be the name of a host"),
        ({"server_hostname": "x." * 150}, ValueError, "server_hostname must be the name of"),
        ({"server_hostname": b"host"}, TypeError, "server_hostname must be text"),
        ({"state": TlsState.ACCEPTING}, ValueError, "state can't be ACCEPTING with a client's"),
        ({"state": TlsState.OPEN}, ValueError, "state OPEN is for an SSL"),
        ({"state": 3}, ValueError, "3 is not a valid TlsState"),
        ({"options": BufferEventOption.UNLOCK_CALLBACKS}, ValueError, "only with DEFER_CALLBACKS"),
        ({"options": 1 << 20}, ValueError, "options has bits"),
        ({"context": None}, TypeError, "context must be a TlsContext or an SSL"),
        ({"context": ffi.NULL}, TypeError, "context must be a TlsContext or an SSL"),
        ({"context": ffi.cast("struct ssl_st *", 0)}, TypeError, "context must be a TlsContext"),
        ({"fd": 10**6}, OSError, "fd 1000000"),
        ({"fd": "x"}, TypeError, "fd must be a file descriptor"),
        ({"base": None}, TypeError, "base must be an EventBase"),
        ({"on_read": 1}, TypeError, "on_read must be callable"),
    ],
)
def test_what_libevent_would_crash_on_is_refused(
    base: EventBase, authority: Authority, arguments: dict[str, Any], error: Any, said: str
) -> None:
    given = {"base": base, "fd": -1, "context": client_context(authority), **arguments}
    with pytest.raises(error, match=said):
        BufferEvent.tls(**{"server_hostname": HOST, **given})


def test_a_server_has_no_server_hostname_and_does_not_connect(
    base: EventBase, authority: Authority
) -> None:
    server = server_context(authority)
    with pytest.raises(ValueError, match="server_hostname is for clients"):
        BufferEvent.tls(base, -1, server, server_hostname=HOST)
    with pytest.raises(ValueError, match="state can't be CONNECTING with a server's"):
        BufferEvent.tls(base, -1, server, TlsState.CONNECTING)


def test_a_refused_socket_is_still_its_owners(base: EventBase, authority: Authority) -> None:
    with socket.socket() as sock:
        with pytest.raises(ValueError, match="server_hostname"):
            BufferEvent.tls(base, sock, client_context(authority))
        assert sock.fileno() >= 0
        assert is_open(sock.fileno())


def test_what_has_no_tls_says_so(base: EventBase) -> None:
    names = ["ssl", "tls_version", "cipher", "peer_certificate", "peer_certificate_chain"]
    names += ["alpn_protocol", "server_hostname", "session_reused", "allow_dirty_shutdown"]
    bev = BufferEvent(base)
    for name in names:
        with pytest.raises(ValueError, match="this BufferEvent has no TLS"):
            getattr(bev, name)
    for method in (bev.renegotiate, bev.shutdown, bev.tls_errors):
        with pytest.raises(ValueError, match="this BufferEvent has no TLS"):
            method()
    with pytest.raises(ValueError, match=r"shut the socket down by .*os\.dup\(bev\.fd\)"):
        bev.shutdown()
    with pytest.raises(ValueError, match="this BufferEvent has no TLS"):
        bev.allow_dirty_shutdown = True
