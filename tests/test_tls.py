"""BufferEvents that speak TLS: handshakes, data, ends, and what can be asked of them."""

from __future__ import annotations

import errno
import gc
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    ClosedError,
    EventBase,
    EventFlag,
    LibeventError,
    Listener,
    LoopFlag,
    ThreadError,
    TlsContext,
    TlsError,
    TlsState,
    TlsVersion,
    ffi,
    lib,
)
from tests.certificates import HOST, PASSWORD, Authority
from tests.peers import (
    connected,
    exactly,
    is_open,
    nobody_listens,
    rest,
    run_until,
    settle,
    tcp_pair,
)
from tests.support import PATIENCE, ROOT, run_python
from tests.tls_peers import End, Relay, client_context, connected_ends, ends, server_context

Ends = tuple[End, End]
NONE = BufferEventOption(0)
DEFERRED = BufferEventOption.DEFER_CALLBACKS
OWNED = BufferEventOption.CLOSE_ON_FREE


@pytest.fixture
def both(base: EventBase, authority: Authority) -> Ends:
    """The two ends of a connection whose handshake is done."""
    return connected_ends(base, authority)


# Contexts.


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"server_side": True}, ValueError, "certfile must be given for a server"),
        ({"keyfile": "key.pem"}, ValueError, "certfile must be given"),
        ({"certfile": "/nowhere.pem"}, FileNotFoundError, "/nowhere.pem"),
        ({"cafile": "/nowhere.pem"}, FileNotFoundError, "/nowhere.pem"),
        ({"capath": "/nowhere"}, FileNotFoundError, "/nowhere"),
        ({"cafile": __file__}, TlsError, "cafile '.*test_tls.py'"),
        ({"ciphers": "NONSENSE"}, TlsError, "ciphers 'NONSENSE': .*no cipher match"),
        ({"ciphersuites": "NONSENSE"}, TlsError, "ciphersuites 'NONSENSE'"),
        ({"ciphers": 1}, TypeError, "ciphers must be text, not 1"),
        ({"ciphers": "A\0B"}, ValueError, "ciphers must be names"),
        ({"alpn_protocols": "h2"}, TypeError, "alpn_protocols must be a collection of names"),
        ({"alpn_protocols": [b"h2"]}, TypeError, "alpn_protocols must be text"),
        ({"alpn_protocols": [""]}, ValueError, "alpn_protocols must have 1 to 255 characters"),
        ({"alpn_protocols": ["x" * 256]}, ValueError, "alpn_protocols must have 1 to 255"),
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

            lib, built.lib = built.lib, Lib()
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
            """
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
    from libevent_py import tls

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
        ({"server_hostname": None}, ValueError, "server_hostname must say whom"),
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
    with pytest.raises(ValueError, match="this BufferEvent has no TLS"):
        bev.allow_dirty_shutdown = True


# Handshakes and data.


def test_both_ends_are_told_of_the_handshake_and_can_talk(
    base: EventBase, authority: Authority
) -> None:
    one, other = connected_ends(base, authority)
    one.bev.write(b"a question")
    other.bev.write(b"an answer")
    run_until(base, lambda: one.received and other.received)
    assert (other.received, one.received) == (b"a question", b"an answer")
    assert one.events == other.events == [BufferEventFlag.CONNECTED]


def test_what_is_written_before_the_handshake_comes_after_it(
    base: EventBase, authority: Authority
) -> None:
    one, other = ends(base, client_context(authority), server_context(authority))
    one.bev.write(b"early")
    run_until(base, lambda: other.received)
    assert other.received == b"early"


def test_megabytes_pass_both_ways_at_once(base: EventBase, both: Ends) -> None:
    data = os.urandom(4 * 2**20)
    for end in both:
        end.bev.write(data)
    run_until(base, lambda: all(len(end.received) == len(data) for end in both))
    assert both[0].received == both[1].received == data


def test_what_came_before_the_end_is_read_before_it_is_told(base: EventBase, both: Ends) -> None:
    one, other = both
    data = os.urandom(100_000)
    one.bev.write(data)
    run_until(base, lambda: not one.bev.output)
    other.bev.disable(EventFlag.READ)
    one.bev.shutdown()
    one.bev.close()
    settle(base)
    order: list[str] = []
    other.bev.on_event = lambda bev, what: order.append(f"{len(other.received)} before {what!r}")
    other.bev.enable(EventFlag.READ)
    run_until(base, lambda: order)
    assert order == [f"{len(data)} before {BufferEventFlag.READING | BufferEventFlag.EOF!r}"]


def test_each_end_can_be_asked_what_was_agreed_on(base: EventBase, both: Ends) -> None:
    for end in both:
        assert end.bev.tls_version == "TLSv1.3"
        name, version, bits = end.bev.cipher or ("", "", 0)
        assert (name.startswith("TLS_"), version, bits) == (True, "TLSv1.3", 256)
        assert end.bev.alpn_protocol is None
        assert end.bev.server_hostname == HOST
        assert not end.bev.session_reused
        assert not end.bev.allow_dirty_shutdown
        assert end.bev.tls_errors() == []
        assert ffi.typeof(end.bev.ssl).cname == "struct ssl_st *"


def test_nothing_is_agreed_on_before_the_handshake(base: EventBase, authority: Authority) -> None:
    for end in ends(base, client_context(authority), server_context(authority)):
        assert end.bev.tls_version is end.bev.cipher is end.bev.alpn_protocol is None
        assert end.bev.peer_certificate is None
        assert end.bev.peer_certificate_chain == []
        assert not end.bev.session_reused
        assert end.bev.shutdown() is False
        with pytest.raises(ValueError, match="must wait until the handshake is done"):
            end.bev.renegotiate()


def test_the_certificate_of_the_server_is_known_to_the_client(
    authority: Authority, both: Ends
) -> None:
    pem = authority.server.certfile.read_text()
    assert both[0].bev.peer_certificate == ssl.PEM_cert_to_DER_cert(pem)
    assert both[0].bev.peer_certificate_chain == [both[0].bev.peer_certificate]
    assert both[1].bev.peer_certificate is None


def test_the_whole_chain_is_known_to_both_sides(base: EventBase, authority: Authority) -> None:
    own = authority.chain("by-way", f"DNS:{HOST}")
    pems = re.findall(r"-----BEGIN.*?END CERTIFICATE-----\n", own.certfile.read_text(), re.DOTALL)
    files = {"certfile": own.certfile, "keyfile": own.keyfile}
    client = client_context(authority, **files)
    server = server_context(authority, **files, verify=True, cafile=authority.ca.certfile)
    both = ends(base, client, server)
    run_until(base, lambda: all(end.connected for end in both))
    for end in both:
        assert end.bev.peer_certificate_chain == [ssl.PEM_cert_to_DER_cert(pem) for pem in pems]


def test_the_older_versions_are_refused_unless_asked_for(
    base: EventBase, authority: Authority
) -> None:
    old = {"minimum_version": TlsVersion.TLSv1, "ciphers": "DEFAULT@SECLEVEL=0"}
    client = client_context(authority, maximum_version=TlsVersion.TLSv1_1, **old)
    one, other = ends(base, client, server_context(authority))
    run_until(base, lambda: one.over and other.over)
    assert isinstance(other.error, TlsError)
    assert other.error.reason == "UNSUPPORTED_PROTOCOL"
    assert isinstance(one.error, TlsError)
    assert "PROTOCOL_VERSION" in one.error.reason
    one, other = ends(base, client, server_context(authority, **old))
    run_until(base, lambda: one.connected and other.connected)
    assert one.bev.tls_version == "TLSv1.1"


def test_ciphers_can_be_chosen(base: EventBase, authority: Authority) -> None:
    client = client_context(
        authority, maximum_version=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"
    )
    one, _ = ends(base, client, server_context(authority))
    run_until(base, lambda: one.connected)
    assert one.bev.cipher == ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2", 128)
    client = client_context(authority, ciphersuites="TLS_CHACHA20_POLY1305_SHA256")
    one, _ = ends(base, client, server_context(authority))
    run_until(base, lambda: one.connected)
    assert one.bev.cipher == ("TLS_CHACHA20_POLY1305_SHA256", "TLSv1.3", 256)


@pytest.mark.parametrize(
    ("offered", "served", "agreed"),
    [
        (["h2", "http/1.1"], ["http/1.1", "h2"], "http/1.1"),
        (["a", "b", "c"], ["c"], "c"),
        ([], ["h2"], None),
        (["h2"], [], None),
    ],
)
def test_the_server_chooses_the_protocol(
    base: EventBase,
    authority: Authority,
    offered: list[str],
    served: list[str],
    agreed: str | None,
) -> None:
    client = client_context(authority, alpn_protocols=offered)
    one, other = ends(base, client, server_context(authority, alpn_protocols=served))
    run_until(base, lambda: one.connected and other.connected)
    assert (one.bev.alpn_protocol, other.bev.alpn_protocol) == (agreed, agreed)


def test_without_a_protocol_in_common_both_sides_are_told(
    base: EventBase, authority: Authority
) -> None:
    client = client_context(authority, alpn_protocols=["a"])
    one, other = ends(base, client, server_context(authority, alpn_protocols=["b"]))
    run_until(base, lambda: one.over and other.over)
    assert not one.connected
    assert not other.connected
    assert isinstance(other.error, TlsError)
    assert other.error.reason == "NO_APPLICATION_PROTOCOL"
    assert isinstance(one.error, TlsError)
    assert "NO_APPLICATION_PROTOCOL" in one.error.reason


def test_an_address_is_no_name_to_tell_the_server(base: EventBase, authority: Authority) -> None:
    for host in ("127.0.0.1", "::1"):
        client, server = client_context(authority), server_context(authority)
        one, other = ends(base, client, server, server_hostname=host)
        run_until(base, lambda: one.connected and other.connected)  # noqa: B023
        assert (one.bev.server_hostname, other.bev.server_hostname) == (host, None)


def test_a_subclass_makes_its_own_kind(base: EventBase, authority: Authority) -> None:
    class Mine(BufferEvent):
        pass

    assert type(Mine.tls(base, -1, server_context(authority))) is Mine


def test_eager_changes_nothing(base: EventBase, authority: Authority) -> None:
    eager = OWNED | DEFERRED | BufferEventOption.EAGER
    one, other = connected_ends(base, authority, options=eager)
    other.bev.on_read = lambda bev: bev.write(bev.read())
    one.bev.write(b"x" * 100_000)
    run_until(base, lambda: len(one.received) == 100_000)


# Real peers.


@contextmanager
def in_thread(function: Callable[..., Any], *arguments: Any) -> Iterator[list[Any]]:
    """Run *function* in a thread meanwhile; what it returns is in the list afterwards."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function(*arguments))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield results
    finally:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextmanager
def openssl_server(*arguments: str) -> Iterator[tuple[str, int]]:
    """Run ``openssl s_server`` meanwhile, at the address given."""
    address = nobody_listens()
    command = ["openssl", "s_server", "-accept", "{}:{}".format(*address), *arguments]
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                connected(address).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < end
                time.sleep(0.01)
        yield address
    finally:
        server.kill()
        server.wait(PATIENCE)


@pytest.fixture
def echo(base: EventBase, authority: Authority) -> tuple[str, int]:
    """The address of a TLS server that echoes, and ends what the client ends."""
    context = server_context(authority, alpn_protocols=["echo"])

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        if what & (BufferEventFlag.EOF | BufferEventFlag.ERROR):
            if not bev.output:
                bev.shutdown()
            bev.close()

    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        bev = BufferEvent.tls(base, fd, context, on_event=on_event)
        bev.on_read = lambda bev: bev.write(bev.read())
        bev.enable(EventFlag.READ)

    host, port = Listener(base, ("127.0.0.1", 0), on_accept).address
    return str(host), int(port)


def test_pythons_client_is_served(
    base: EventBase, authority: Authority, echo: tuple[str, int]
) -> None:
    context = ssl.create_default_context(cafile=str(authority.ca.certfile))
    context.set_alpn_protocols(["other", "echo"])
    data = os.urandom(300_000)

    def talk() -> tuple[bytes, str | None, bytes]:
        with context.wrap_socket(connected(echo), server_hostname=HOST) as sock:
            sock.sendall(data)
            received = exactly(sock, len(data))
            chosen = sock.selected_alpn_protocol()
            raw = sock.unwrap()  # what it waits for is the server's own notice
            return received, chosen, raw.recv(1)

    with in_thread(talk) as results:
        run_until(base, lambda: results)
    assert results == [(data, "echo", b"")]


def test_pythons_server_is_talked_to(base: EventBase, authority: Authority) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.server.certfile, authority.server.keyfile)

    def serve(server: socket.socket) -> bytes:
        with context.wrap_socket(server.accept()[0], server_side=True) as sock:
            data = sock.recv(100)
            sock.sendall(data.upper())
            sock.unwrap().close()
            return data

    with socket.create_server(("127.0.0.1", 0)) as server, in_thread(serve, server) as results:
        context_of_ours = client_context(authority)
        end = End(BufferEvent.tls, base, -1, context_of_ours, server_hostname=HOST)
        end.bev.connect(server.getsockname())
        end.bev.write(b"hello")
        run_until(base, lambda: end.over)
        end.bev.shutdown()
        end.bev.close()
        settle(base)
    assert results == [b"hello"]
    assert end.received == b"HELLO"
    assert end.events == [
        BufferEventFlag.CONNECTED,
        BufferEventFlag.READING | BufferEventFlag.EOF,
    ]


def test_openssls_client_is_served(
    base: EventBase, authority: Authority, echo: tuple[str, int]
) -> None:
    host, port = echo
    command = ["openssl", "s_client", "-connect", f"{host}:{port}", "-servername", HOST]
    command += ["-CAfile", str(authority.ca.certfile), "-verify_hostname", HOST]
    command += ["-verify_return_error", "-quiet", "-no_ign_eof", "-alpn", "echo"]

    def talk() -> str:
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert client.stdin is not None
        assert client.stdout is not None
        with client:
            client.stdin.write(b"to and fro\n")
            client.stdin.flush()
            return client.stdout.readline().decode()

    with in_thread(talk) as results:
        run_until(base, lambda: results)
        settle(base)
    assert results == ["to and fro\n"]


def test_openssls_server_is_talked_to(base: EventBase, authority: Authority) -> None:
    own = authority.server
    with openssl_server("-rev", "-cert", str(own.certfile), "-key", str(own.keyfile)) as address:
        end = End(BufferEvent.tls, base, -1, client_context(authority), server_hostname=HOST)
        end.bev.connect(address)
        end.bev.write(b"stressed\n")
        run_until(base, lambda: end.received or end.over)
        assert end.received == b"desserts\n"
        end.bev.write(b"CLOSE\n")
        run_until(base, lambda: end.over)
        end.bev.close()
        settle(base)
    assert end.error is None


def test_a_session_can_be_resumed(base: EventBase, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=str(authority.ca.certfile))
    context.load_cert_chain(authority.server.certfile, authority.server.keyfile)
    ours = server_context(authority, verify=True, cafile=authority.ca.certfile)
    seen: list[tuple[bool, bytes | None]] = []

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        if what & BufferEventFlag.CONNECTED:
            seen.append((bev.session_reused, bev.peer_certificate))
            bev.write(b"!")  # a ticket comes before it
        else:
            bev.close()

    def on_accept(listener: Listener, fd: int, address: Any) -> None:
        BufferEvent.tls(base, fd, ours, on_event=on_event).enable(EventFlag.READ)

    def twice(address: tuple[str, int]) -> bool:
        session = None
        for _ in range(2):
            sock = context.wrap_socket(connected(address), server_hostname=HOST, session=session)
            with sock:
                assert sock.recv(1) == b"!"
                session, reused = sock.session, sock.session_reused
        return bool(reused)

    host, port = Listener(base, ("127.0.0.1", 0), on_accept).address
    with in_thread(twice, (str(host), int(port))) as results:
        run_until(base, lambda: results)
    assert results == [True]
    assert [reused for reused, _ in seen] == [False, True]
    assert seen[1][1] == seen[0][1] is not None


def test_a_client_must_show_a_certificate_where_the_server_asks(
    base: EventBase, authority: Authority
) -> None:
    server = server_context(authority, verify=True, cafile=authority.ca.certfile)
    one, other = ends(base, client_context(authority), server)
    run_until(base, lambda: one.over and other.over)
    assert isinstance(other.error, TlsError)
    assert other.error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    assert not other.connected
    own = authority.certify("client")
    client = client_context(authority, certfile=own.certfile, keyfile=own.keyfile)
    one, other = ends(base, client, server)
    run_until(base, lambda: one.connected and other.connected)
    shown = ssl.PEM_cert_to_DER_cert(own.certfile.read_text())
    assert other.bev.peer_certificate == shown
    assert other.bev.peer_certificate_chain[0] == shown


# Ends.


def test_the_end_by_tls_own_notice_is_eof(base: EventBase, both: Ends) -> None:
    one, other = both
    assert one.bev.shutdown() is True
    run_until(base, lambda: other.over)
    assert other.events[1:] == [BufferEventFlag.READING | BufferEventFlag.EOF]
    assert other.error is None
    other.bev.write(b"still")  # the other direction is open
    run_until(base, lambda: one.received)
    assert other.bev.shutdown() is True
    run_until(base, lambda: one.over)
    assert one.events[1:] == [BufferEventFlag.READING | BufferEventFlag.EOF]


@pytest.mark.parametrize("sockets", [socket.socketpair, tcp_pair])
def test_an_end_without_notice_is_an_error_unless_allowed(
    base: EventBase, authority: Authority, sockets: Callable[[], Any]
) -> None:
    one, other = connected_ends(base, authority, sockets())
    one.bev.close()
    run_until(base, lambda: other.over)
    assert other.events[1:] == [BufferEventFlag.READING | BufferEventFlag.ERROR]
    assert isinstance(other.error, TlsError)
    assert other.error.reason == "UNEXPECTED_EOF_WHILE_READING"
    assert other.bev.error is other.error
    assert other.bev.tls_errors() == [other.error]
    assert other.bev.tls_errors() == []

    one, other = connected_ends(base, authority, sockets())
    other.bev.allow_dirty_shutdown = True
    assert other.bev.allow_dirty_shutdown is True
    one.bev.close()
    run_until(base, lambda: other.over)
    assert other.events[1:] == [BufferEventFlag.READING | BufferEventFlag.EOF]
    assert other.bev.error is None

    one, other = connected_ends(base, authority, sockets())
    other.bev.allow_dirty_shutdown = True
    other.bev.allow_dirty_shutdown = False
    assert other.bev.allow_dirty_shutdown is False
    one.bev.close()
    run_until(base, lambda: other.over)
    assert BufferEventFlag.ERROR in other.happened


def test_shutdown_waits_for_the_output(base: EventBase, both: Ends) -> None:
    one, other = both
    one.bev.write(b"x" * 2**20)
    with pytest.raises(ValueError, match="must wait until all output is written"):
        one.bev.shutdown()
    run_until(base, lambda: not one.bev.output)
    assert one.bev.shutdown() is True
    run_until(base, lambda: other.over)
    assert len(other.received) == 2**20
    assert other.error is None


def test_shutdown_after_a_failure_is_no_error(base: EventBase, both: Ends) -> None:
    one, other = both
    one.bev.close()
    run_until(base, lambda: other.over)
    other.bev.shutdown()
    assert lib.ERR_get_error() == 0


def test_a_reset_is_the_sockets_error(base: EventBase, authority: Authority) -> None:
    left, right = tcp_pair()
    one, other = connected_ends(base, authority, (left, right), options=OWNED | DEFERRED)
    linger = ffi.new("int[2]", (1, 0))
    duplicate = socket.socket(fileno=os.dup(one.bev.fd))
    duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes(ffi.buffer(linger)))
    one.bev.close()
    settle(base)
    duplicate.close()
    run_until(base, lambda: other.over)
    assert isinstance(other.error, ConnectionResetError)
    assert not isinstance(other.error, TlsError)


def test_what_is_no_tls_is_told_as_such(base: EventBase, authority: Authority) -> None:
    left, right = socket.socketpair()
    end = End(BufferEvent.tls, base, right, server_context(authority))
    with left:
        left.sendall(b"GET / HTTP/1.0\r\n\r\n")
        run_until(base, lambda: end.over)
    assert isinstance(end.error, TlsError)
    assert end.error.reason == "HTTP_REQUEST"


def test_a_connection_that_is_refused_says_so(base: EventBase, authority: Authority) -> None:
    end = End(BufferEvent.tls, base, -1, client_context(authority), server_hostname=HOST)
    end.bev.connect(nobody_listens())
    run_until(base, lambda: end.over)
    assert isinstance(end.error, ConnectionRefusedError)
    assert end.error.errno == errno.ECONNREFUSED


def test_a_peer_that_says_nothing_times_out(base: EventBase, authority: Authority) -> None:
    left, right = socket.socketpair()
    end = End(BufferEvent.tls, base, left, client_context(authority), server_hostname=HOST)
    end.bev.set_timeouts(0.02, 0.02)
    with right:
        run_until(base, lambda: end.events)
    assert BufferEventFlag.TIMEOUT in end.happened
    assert end.error is None


@pytest.mark.parametrize("version", [TlsVersion.TLSv1_2, TlsVersion.TLSv1_3])
@pytest.mark.parametrize("dirty", [False, True])
def test_a_handshake_cut_off_at_any_moment_ends_both_sides(
    base: EventBase, authority: Authority, version: TlsVersion, dirty: bool
) -> None:
    client = client_context(authority, maximum_version=version)
    server = server_context(authority)
    relay = Relay(10**9)
    both = ends(base, client, server, relay.outer)
    run_until(base, lambda: relay.pump() or all(end.connected for end in both))
    relay.cut()
    for most in range(0, relay.passed - 20, 79):  # the length of a signature varies
        relay = Relay(most)
        both = ends(base, client, server, relay.outer)
        for end in both:
            end.bev.allow_dirty_shutdown = dirty

        turns = 0
        while not all(end.over for end in both):
            relay.pump()
            base.loop(LoopFlag.NONBLOCK)
            turns += 1
            assert turns < 1000
        for end in both:
            assert end.received == b""
            assert end.error is not None or dirty or BufferEventFlag.EOF in end.happened
            end.bev.close()


def test_a_failed_one_can_connect_again(base: EventBase, authority: Authority) -> None:
    one, other = connected_ends(base, authority)
    other.bev.close()
    run_until(base, lambda: one.over)
    left, right = socket.socketpair()
    again = End(BufferEvent.tls, base, right, server_context(authority))
    one.events.clear()
    one.bev.fd = left
    one.bev.write(b"once more")
    run_until(base, lambda: again.received)
    assert one.events == [BufferEventFlag.CONNECTED]
    assert again.received == b"once more"


# Descriptors.


def test_without_close_on_free_the_socket_stays_its_owners(
    base: EventBase, authority: Authority
) -> None:
    left, right = socket.socketpair()
    with left, right:
        one, other = connected_ends(base, authority, (left, right), options=DEFERRED)
        one.bev.close()
        other.bev.close()
        left.sendall(b"in the clear")  # at once, before libevent has freed anything
        assert right.recv(100) == b"in the clear"
        settle(base)
        left.sendall(b"and later")
        assert right.recv(100) == b"and later"


def test_without_close_on_free_what_connect_makes_is_closed(
    base: EventBase, authority: Authority
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        context = client_context(authority)
        bev = BufferEvent.tls(base, -1, context, server_hostname=HOST, options=DEFERRED)
        bev.connect(server.getsockname())
        fd = bev.fd
        with server.accept()[0] as peer:
            settle(base)
            bev.close()
            assert not is_open(fd)
            assert rest(peer)[:1] == b"\x16"  # a handshake's first byte


def test_a_descriptor_can_be_taken_back(base: EventBase, both: Ends) -> None:
    one, other = both
    with socket.socket(fileno=one.bev.detach()) as sock:
        assert one.bev.fd == -1
        one.bev.close()
        settle(base)
        sock.sendall(b"no TLS record")
        run_until(base, lambda: other.over)
    assert isinstance(other.error, TlsError)


def test_a_thousand_handshakes_leave_no_descriptor_and_no_memory(authority: Authority) -> None:
    run_python(
        f"""
        import os, re
        from pathlib import Path
        from tests.certificates import Authority, Certificate
        from libevent_py import BufferEvent, BufferEventOption, EventBase, TlsContext
        from tests.peers import run_until, settle
        from tests.tls_peers import ends
        certificates = Path({str(authority.directory)!r})
        client = TlsContext(cafile=certificates / "ca.pem")
        own = certificates / "server.pem", certificates / "server.key"
        server = TlsContext(server_side=True, certfile=own[0], keyfile=own[1])

        def memory():
            rollup = Path("/proc/self/smaps_rollup").read_text()
            return int(re.search("Private_Dirty: *([0-9]+)", rollup)[1])

        with EventBase() as base:
            def handshakes(count):
                for number in range(count):
                    one, other = ends(base, client, server)
                    run_until(base, lambda: one.connected and other.connected)
                    if number % 2:
                        one.bev.shutdown()
                    one.bev.close()
                    other.bev.close()
                settle(base)

            handshakes(200)
            before, open_before = memory(), len(os.listdir("/proc/self/fd"))
            handshakes(1000)
            assert len(os.listdir("/proc/self/fd")) == open_before
            grown = memory() - before
            assert grown < 1024, f"{{grown}} KiB more"
        """
    )


# The raw layer.


def test_a_raw_connection_goes_on_in_another_bufferevent(
    base: EventBase, authority: Authority
) -> None:
    left, right = socket.socketpair()
    with left, right:
        both = connected_ends(base, authority, (left, right), options=DEFERRED)
        again = []
        for end, sock in zip(both, (left, right), strict=True):
            raw = end.bev.ssl
            lib.SSL_up_ref(raw)
            end.bev.close()
            again.append(End(BufferEvent.tls, base, sock, raw, TlsState.OPEN, options=DEFERRED))
            lib.SSL_free(raw)
        settle(base)
        again[0].bev.write(b"as before")
        run_until(base, lambda: again[1].received)
        assert again[1].received == b"as before"
        assert again[0].bev.tls_version == "TLSv1.3"
        for end in again:
            end.bev.close()


def test_a_raw_connection_needs_a_state_and_brings_its_own_host(
    base: EventBase, authority: Authority
) -> None:
    context = client_context(authority, check_hostname=False)
    raw = lib.SSL_new(context.pointer)
    with pytest.raises(ValueError, match="state must be given with an SSL"):
        BufferEvent.tls(base, -1, raw)
    with pytest.raises(ValueError, match="server_hostname must come with a TlsContext"):
        BufferEvent.tls(base, -1, raw, TlsState.CONNECTING, server_hostname=HOST)
    left, right = socket.socketpair()
    one = End(BufferEvent.tls, base, left, raw, TlsState.CONNECTING)
    lib.SSL_free(raw)
    other = End(BufferEvent.tls, base, right, server_context(authority))
    run_until(base, lambda: one.connected and other.connected)


# Renegotiation.


def test_up_to_tls_1_2_a_connection_can_be_renegotiated(
    base: EventBase, authority: Authority
) -> None:
    client = client_context(authority, maximum_version=TlsVersion.TLSv1_2)
    server = server_context(authority)
    lib.SSL_CTX_set_options(server.pointer, lib.SSL_OP_ALLOW_CLIENT_RENEGOTIATION)
    one, other = ends(base, client, server)
    run_until(base, lambda: one.connected and other.connected)
    one.bev.renegotiate()
    run_until(base, lambda: one.events == [BufferEventFlag.CONNECTED] * 2)
    one.bev.write(b"with new keys")
    run_until(base, lambda: other.received)
    assert other.received == b"with new keys"


def test_tls_1_3_does_not_renegotiate(base: EventBase, both: Ends) -> None:
    with pytest.raises(ValueError, match=r"TLS 1.3 can't renegotiate"):
        both[0].bev.renegotiate()


# Misuse.


def test_after_close_everything_says_so(base: EventBase, both: Ends) -> None:
    bev = both[0].bev
    bev.close()
    bev.close()
    for use in (
        lambda: bev.ssl,
        lambda: bev.cipher,
        lambda: bev.peer_certificate,
        lambda: bev.allow_dirty_shutdown,
        bev.shutdown,
        bev.renegotiate,
        bev.tls_errors,
    ):
        with pytest.raises(ClosedError):
            use()
    base.close()
    with pytest.raises(ClosedError):
        _ = both[1].bev.cipher


def test_another_thread_is_refused_while_the_loop_runs(base: EventBase, both: Ends) -> None:
    def use() -> Any:
        return both[0].bev.cipher

    def while_running(bev: BufferEvent) -> None:
        with in_thread(use) as results:
            pass
        refused.extend(results)

    refused: list[Any] = []
    both[0].bev.on_read = while_running
    both[1].bev.write(b"x")
    run_until(base, lambda: refused)
    assert isinstance(refused[0], ThreadError)


def test_what_a_callback_raises_comes_out(base: EventBase, authority: Authority) -> None:
    one, _ = ends(base, client_context(authority), server_context(authority))

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        raise LookupError("in on_event")

    one.bev.on_event = on_event
    with pytest.raises(LookupError, match="in on_event"):
        base.loop()


def test_closing_in_any_callback_at_any_moment_touches_no_freed_memory(
    authority: Authority,
) -> None:
    run_python(
        f"""
        import gc, os, socket, itertools
        from pathlib import Path
        from libevent_py import *
        from tests.peers import settle
        from tests.tls_peers import Relay, ends
        certificates = Path({str(authority.directory)!r})
        client = TlsContext(cafile=certificates / "ca.pem")
        own = certificates / "server.pem", certificates / "server.key"
        server = TlsContext(server_side=True, certfile=own[0], keyfile=own[1])
        OWNED, DEFERRED = BufferEventOption.CLOSE_ON_FREE, BufferEventOption.DEFER_CALLBACKS

        def closing(where, what_ends):
            def on_read(bev):
                bev.read()
                if where == "read":
                    bev.close()
            def on_write(bev):
                if where == "write":
                    bev.close()
            def on_event(bev, what):
                if where == "event" or what & (BufferEventFlag.EOF | BufferEventFlag.ERROR):
                    bev.close()
            return on_read, on_write, on_event

        with EventBase() as base:
            for where, options in itertools.product(
                ("read", "write", "event"), (OWNED, OWNED | DEFERRED, DEFERRED, 0)
            ):
                left, right = socket.socketpair()
                both = ends(base, client, server, (left, right), options=options)
                for end in both:
                    end.bev.setcb(*closing(where, None))
                    end.bev.write(b"x" * 1000)
                settle(base)
                for end in both:
                    end.bev.close()
                settle(base)
                left.close()
                right.close()

        for drop, most in itertools.product((False, True), (0, 300, 900, 10**6)):
            base = EventBase()
            relay = Relay(most)
            both = ends(base, client, server, relay.outer)
            for _ in range(6):
                settle(base)
                if relay.left.fileno() >= 0:
                    relay.pump()
            relay.cut()
            if drop:
                del base, both
                gc.collect()
            else:
                base.close()

        base = EventBase()
        one, other = ends(base, client, server)
        settle(base)
        if os.fork() == 0:
            for use in (lambda: one.bev.cipher, lambda: one.bev.shutdown()):
                try:
                    use()
                except ForkError:
                    pass
                else:
                    os._exit(1)
            one.bev.close()
            del other
            gc.collect()
            base.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        for _ in range(20):
            settle(base)
        assert one.connected and other.connected
        base.close()
        """,
        valgrind=True,
    )


def test_a_context_that_is_dropped_goes(authority: Authority) -> None:
    context = client_context(authority)
    del context
    gc.collect()


# Closing with what is left to write.


@pytest.mark.parametrize("through", ["socket", "pair"])
@pytest.mark.parametrize("when", ["before the handshake", "after it"])
def test_close_with_flush_writes_all_and_ends_as_tls_does(
    base: EventBase, authority: Authority, through: str, when: str
) -> None:
    client, server = client_context(authority), server_context(authority)
    if through == "socket":
        one, other = ends(base, client, server)
    else:
        below = BufferEvent.pair(base)
        one = End(BufferEvent.tls_filter, below[0], client, server_hostname=HOST)
        other = End(BufferEvent.tls_filter, below[1], server)
    if when == "after it":
        run_until(base, lambda: one.connected and other.connected)
    data = os.urandom(1_000_000)
    one.bev.write(data)
    one.bev.close(flush=True)
    assert one.bev.closed
    run_until(base, lambda: other.over)
    assert other.received == data
    assert other.error is None
    assert other.happened & BufferEventFlag.EOF
    other.bev.close()
    settle(base)
    assert not base.live
