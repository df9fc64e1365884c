"""BufferEvents that speak TLS: handshakes, data, what can be asked of them, and misuse."""

from __future__ import annotations

import os
import re
import socket
import ssl
from typing import Any

import pytest

from libevent_py import (
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    ClosedError,
    EventBase,
    EventFlag,
    RateLimit,
    ThreadError,
    TlsError,
    TlsState,
    TlsVersion,
    ffi,
    lib,
)
from tests.kit.certificates import HOST, Authority
from tests.kit.flags import READ
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import (
    is_open,
    run_until,
    settle,
)
from tests.kit.support import run_python
from tests.kit.tls_peers import (
    End,
    client_context,
    connected_ends,
    ends,
    in_thread,
    server_context,
)

Ends = tuple[End, End]
DEFERRED = BufferEventOption.DEFER_CALLBACKS
OWNED = BufferEventOption.CLOSE_ON_FREE
TIMED_OUT = BufferEventFlag.TIMEOUT | BufferEventFlag.READING


@pytest.fixture
def both(base: EventBase, authority: Authority) -> Ends:
    """The two ends of a connection whose handshake is done."""
    return connected_ends(base, authority)


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
        assert end.bev.tls_version is None
        assert end.bev.cipher is None
        assert end.bev.alpn_protocol is None
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
            end.bev.close()
            again.append(End(BufferEvent.tls, base, sock, raw, TlsState.OPEN, options=DEFERRED))
        settle(base)
        again[0].bev.write(b"as before")
        run_until(base, lambda: again[1].received)
        assert again[1].received == b"as before"
        assert again[0].bev.tls_version == "TLSv1.3"
        for end in again:
            end.bev.close()


def test_what_points_to_tls_keeps_it_though_the_bufferevent_is_closed() -> None:
    """Or who is about to ask OpenSSL, when a signal handler closes it, would ask what is freed."""
    run_python(
        """
        import gc, socket
        from libevent_py import *
        from libevent_py import lib

        with EventBase() as base:
            context = TlsContext(verify=False)
            for _ in range(10):
                here, there = socket.socketpair()
                bev = BufferEvent.tls(base, here, context)
                pair = BufferEvent.pair(base)
                upper = BufferEvent.tls_filter(pair[0], context)
                held = bev.ssl, upper.ssl
                bev.close()
                upper.close()
                base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)
                base.loop(LoopFlag.ONCE | LoopFlag.NONBLOCK)
                for ssl in held:
                    assert not lib.SSL_is_init_finished(ssl)
                    assert lib.SSL_get_version(ssl)
                    lib.SSL_get_shutdown(ssl)
                del held, ssl
                there.close()
        """,
        valgrind=True,
    )


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


def test_a_server_is_told_when_it_has_asked_its_client_to_renegotiate(
    base: EventBase, authority: Authority
) -> None:
    client = client_context(authority, maximum_version=TlsVersion.TLSv1_2)
    one, other = ends(base, client, server_context(authority))
    run_until(base, lambda: one.connected and other.connected)
    one.bev.disable(READ)  # it doesn't even learn of it
    other.bev.renegotiate()
    run_until(base, lambda: other.events == [BufferEventFlag.CONNECTED] * 2)
    assert not one.bev.closed and one.events == [BufferEventFlag.CONNECTED]


def test_data_amid_a_renegotiation_may_end_the_connection(
    base: EventBase, authority: Authority
) -> None:
    """As the documentation says; with OpenSSL there is no way around it."""
    client = client_context(authority, maximum_version=TlsVersion.TLSv1_2)
    one, other = ends(base, client, server_context(authority))
    run_until(base, lambda: one.connected and other.connected)
    other.bev.disable(READ)
    other.bev.renegotiate()
    settle(base)  # the client has begun
    one.bev.disable(READ)
    other.bev.write(b"data")
    settle(base)
    one.bev.write(b"data, too")
    run_until(base, lambda: one.events[1:])
    assert one.events[1] & BufferEventFlag.ERROR
    assert isinstance(one.bev.error, TlsError)


def test_in_the_middle_of_a_renegotiation_it_keeps_its_socket(
    base: EventBase, authority: Authority
) -> None:
    client = client_context(authority, maximum_version=TlsVersion.TLSv1_2)
    one, other = ends(base, client, server_context(authority))
    run_until(base, lambda: one.connected and other.connected)
    fd = one.bev.fd
    one.bev.renegotiate()
    left, right = socket.socketpair()
    with left, right:
        with pytest.raises(RuntimeError, match="middle of a renegotiation"):
            one.bev.fd = left
        with pytest.raises(RuntimeError, match="middle of a renegotiation"):
            one.bev.detach()
        assert one.bev.fd == fd
        one.bev.close()
        settle(base)
        assert is_open(left.fileno())
        assert not is_open(fd)
    other.bev.close()


def test_limits_count_on_with_another_socket(base: EventBase, authority: Authority) -> None:
    one, other = connected_ends(base, authority)
    one.bev.rate_limit = RateLimit(write_rate=10**6, tick=1000)
    one.bev.write(b"x" * 1000)
    run_until(base, lambda: len(other.received) == 1000)
    before = one.bev.write_limit
    assert before <= 10**6 - 1000
    left, right = socket.socketpair()
    one.bev.fd = left
    second = End(BufferEvent.tls, base, right, server_context(authority))
    run_until(base, lambda: second.connected)
    assert one.bev.write_limit < before
    assert one.bev.read_limit > 10**6  # there is none
    one.bev.write(b"x" * 1000)
    run_until(base, lambda: len(second.received) == 1000)


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


@VALGRIND_TAKES_LONG
def test_closing_in_a_callback_of_its_buffers_touches_no_freed_memory(
    authority: Authority, valgrind: bool
) -> None:
    run_python(
        """
        import itertools, socket
        from libevent_py import BufferEventOption, EventBase
        from tests.kit.peers import settle
        from tests.kit.tls_peers import ends, tls_contexts

        (client, *_), server = tls_contexts()
        with EventBase() as base:
            for name, options in itertools.product(
                ("input", "output"), (BufferEventOption.CLOSE_ON_FREE, BufferEventOption(0))
            ):
                left, right = socket.socketpair()
                one, other = ends(base, client, server, (left, right), options=options)
                settle(base)
                getattr(one.bev, name).add_cb(lambda *_: one.bev.close())
                other.bev.write(b"to the input")
                one.bev.write(b"to the output")
                settle(base)
                assert one.bev.closed
                other.bev.close()
                left.close()
                right.close()
        """,
        valgrind=valgrind,
    )


@VALGRIND_TAKES_LONG
def test_closing_in_any_callback_at_any_moment_touches_no_freed_memory(
    authority: Authority, valgrind: bool
) -> None:
    run_python(
        f"""
        import gc, os, socket, itertools
        from pathlib import Path
        from libevent_py import *
        from tests.kit.peers import settle
        from tests.kit.tls_peers import Relay, ends
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
        valgrind=valgrind,
    )


def test_after_a_timeout_tls_through_a_socket_reads_on_and_is_told_again(both: Ends) -> None:
    """Unlike everything else, as in C; what TLS itself goes through another one does not."""
    one, other = both
    base = one.bev.base
    one.bev.set_timeouts(0.02, None)
    run_until(base, lambda: one.events.count(TIMED_OUT) >= 2)
    assert one.bev.enabled & EventFlag.READ
    one.bev.set_timeouts(None, None)
    other.bev.write(b"1")
    run_until(base, lambda: one.received)
    assert one.received == b"1"


def test_after_a_timeout_tls_through_another_one_waits_to_be_enabled(
    base: EventBase, authority: Authority
) -> None:
    left, right = BufferEvent.pair(base)
    client, server = client_context(authority), server_context(authority)
    one = End(BufferEvent.tls_filter, left, client, server_hostname=HOST)
    other = End(BufferEvent.tls_filter, right, server)
    run_until(base, lambda: one.connected and other.connected)
    one.bev.set_timeouts(0.02, None)
    run_until(base, lambda: TIMED_OUT in one.events)
    assert not one.bev.enabled & EventFlag.READ
    one.bev.set_timeouts(None, None)
    one.bev.enable(EventFlag.READ)
    other.bev.write(b"1")
    run_until(base, lambda: one.received)
    assert one.events.count(TIMED_OUT) == 1
