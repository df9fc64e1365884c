"""BufferEvent.connect_hostname, and connecting twice."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from libevent_py import (
    AddrInfoError,
    BufferEvent,
    BufferEventFlag,
    BufferEventOption,
    ClosedError,
    DnsError,
    EventBase,
    EventFlag,
    lib,
)
from tests.kit.flags import CLOSE, DEFER, NO_OPTION
from tests.kit.marks import VALGRIND_TAKES_LONG
from tests.kit.peers import nobody_accepts, nobody_listens, run_until, settle
from tests.kit.support import PATIENCE, run_python

CONNECTED, ERROR = BufferEventFlag.CONNECTED, BufferEventFlag.ERROR

#: No server is asked for it: a part of a name has 63 bytes at most.
IMPOSSIBLE = "x" * 64 + ".invalid"


class Story:
    """An `on_event` that keeps what it is told, and why."""

    def __init__(self) -> None:
        self.told: list[tuple[BufferEventFlag, OSError | None]] = []

    def __call__(self, bev: BufferEvent, what: BufferEventFlag) -> None:
        self.told.append((what, bev.error))


@pytest.fixture
def story() -> Story:
    return Story()


class Resolver:
    """What a `DnsBase` is to a bufferevent, with a name server that never answers."""

    def __init__(self, base: EventBase) -> None:
        self.base = base
        self.silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.silent.bind(("127.0.0.1", 0))
        self.silent.settimeout(PATIENCE)
        self.pointer = lib.evdns_base_new(base.pointer, 0)
        address = "{}:{}".format(*self.silent.getsockname())
        assert lib.evdns_base_nameserver_ip_add(self.pointer, address.encode()) == 0

    def asked(self) -> bytes:
        """Wait until the base has sent a question."""
        run_until(self.base, lambda: lib.evdns_base_count_nameservers(self.pointer))
        settle(self.base)
        return self.silent.recv(1000)

    def close(self) -> None:
        self.silent.close()
        lib.evdns_base_free(self.pointer, 1)
        settle(self.base)


@contextmanager
def resolver(base: EventBase) -> Iterator[Any]:
    # Of any type: it stands for a DnsBase, and is none.
    made = Resolver(base)
    try:
        yield made
    finally:
        made.close()


# By a lookup that is over when the call returns.


@pytest.mark.parametrize("options", [NO_OPTION, CLOSE, CLOSE | DEFER], ids=str)
@pytest.mark.parametrize(
    ("host", "family"),
    [
        ("localhost", socket.AF_INET),
        (b"localhost", socket.AF_INET),
        ("127.0.0.1", socket.AF_UNSPEC),
        ("::1", socket.AF_INET6),
        ("::1", socket.AF_UNSPEC),
    ],
)
def test_it_connects_to_a_host_by_its_name(
    base: EventBase,
    story: Story,
    host: str,
    family: socket.AddressFamily,
    options: BufferEventOption,
) -> None:
    address, kind = ("::1", socket.AF_INET6) if host == "::1" else ("127.0.0.1", socket.AF_INET)
    with socket.create_server((address, 0), family=kind) as server:
        bev = BufferEvent(base, -1, options, on_event=story)
        bev.write(b"hello")
        bev.connect_hostname(None, host, server.getsockname()[1], family)
        run_until(base, lambda: story.told)
        assert story.told == [(CONNECTED, None)]
        assert bev.dns_error is None
        sock, _ = server.accept()
        with sock:
            sock.settimeout(PATIENCE)
            assert sock.recv(100) == b"hello"
        bev.close()


@pytest.mark.parametrize("options", [NO_OPTION, CLOSE, CLOSE | DEFER], ids=str)
@pytest.mark.parametrize(
    ("host", "family", "codes"),
    [
        (IMPOSSIBLE, socket.AF_UNSPEC, {AddrInfoError.NONAME, AddrInfoError.FAIL}),
        ("::1", socket.AF_INET, {AddrInfoError.NONAME, AddrInfoError.ADDRFAMILY}),
        ("127.0.0.1", socket.AF_INET6, {AddrInfoError.NONAME, AddrInfoError.ADDRFAMILY}),
    ],
)
def test_on_event_is_told_why_a_name_could_not_be_looked_up(
    base: EventBase,
    story: Story,
    host: str,
    family: socket.AddressFamily,
    codes: set[AddrInfoError],
    options: BufferEventOption,
) -> None:
    bev = BufferEvent(base, -1, options, on_event=story)
    assert bev.dns_error is None
    bev.connect_hostname(None, host, 80, family)
    if not options & DEFER:
        assert story.told, "without DEFER_CALLBACKS it is called at once (F5)"
    run_until(base, lambda: story.told)
    [(what, error)] = story.told
    assert what == ERROR
    assert isinstance(error, DnsError)
    assert error.errno in codes
    assert host in str(error)
    assert str(bev.dns_error) == str(error)
    assert bev.fd == -1

    bev.connect(nobody_listens())  # an error of another kind
    run_until(base, lambda: len(story.told) == 2)
    assert isinstance(story.told[1][1], ConnectionRefusedError)
    assert bev.dns_error is None
    bev.close()


def test_who_refuses_the_connection_is_no_dns_error(base: EventBase, story: Story) -> None:
    bev = BufferEvent(base, on_event=story)
    bev.connect_hostname(None, IMPOSSIBLE, 80)
    bev.connect_hostname(None, *nobody_listens())
    run_until(base, lambda: len(story.told) == 2)
    assert [type(error) for _, error in story.told] == [DnsError, ConnectionRefusedError]
    assert bev.dns_error is None


def test_what_on_event_raises_comes_out_of_the_call(base: EventBase) -> None:
    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        bev.close()
        assert bev.error is not None
        raise bev.error

    bev = BufferEvent(base, on_event=on_event)
    with pytest.raises(DnsError, match="invalid"):
        bev.connect_hostname(None, IMPOSSIBLE, 80)
    assert bev.closed
    with pytest.raises(ClosedError):
        bev.connect_hostname(None, "localhost", 80)
    with pytest.raises(ClosedError):
        bev.dns_error  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, "localhost", 0), ValueError, "port must be from 1 to 65535"),
        ((None, "localhost", 65536), ValueError, "port must be from 1 to 65535"),
        ((None, "localhost", "http"), TypeError, "port must be an integer"),
        ((None, "local\0host", 80), ValueError, "host must not contain a NUL"),
        ((None, "\u2024" * 100, 80), ValueError, "host must be a name for IDNA"),
        ((None, None, 80), TypeError, "host must be str or bytes"),
        ((None, "localhost", 80, socket.AF_UNIX), ValueError, "family must be AF_UNSPEC, AF_INET"),
        ((None, "localhost", 80, "inet"), ValueError, "family must be AF_UNSPEC, AF_INET"),
        (("8.8.8.8", "localhost", 80), TypeError, "dns_base must be a DnsBase or None"),
    ],
)
def test_a_bad_argument_is_named(
    base: EventBase, arguments: Any, error: type[Exception], message: str
) -> None:
    bev = BufferEvent(base, on_event=lambda bev, what: pytest.fail("called"))
    with pytest.raises(error, match=f"^{message}"):
        bev.connect_hostname(*arguments)
    assert bev.fd == -1
    assert bev.dns_error is None


# By a lookup in the loop.


def test_a_second_lookup_waits_for_the_first(base: EventBase, story: Story) -> None:
    bev = BufferEvent(base, on_event=story)
    with resolver(base) as dns:
        bev.connect_hostname(dns, "slow.invalid", 80, socket.AF_INET)
        with pytest.raises(RuntimeError, match="an earlier lookup goes on"):
            bev.connect_hostname(dns, "localhost", 80)
        with pytest.raises(RuntimeError, match="an earlier lookup goes on"):
            bev.connect_hostname(None, "localhost", 80)
        assert b"slow" in dns.asked().lower()
        assert story.told == []
    # Now it has failed, and another may be begun.
    [(what, error)] = story.told
    assert (what, type(error)) == (ERROR, DnsError)
    with socket.create_server(("127.0.0.1", 0)) as server:
        bev.connect_hostname(None, *server.getsockname())
        run_until(base, lambda: len(story.told) == 2)
        assert story.told[1] == (CONNECTED, None)
        server.accept()[0].close()


def test_after_a_lookup_in_the_loop_it_connects(base: EventBase, story: Story) -> None:
    bev = BufferEvent(base, on_event=story)
    with resolver(base) as dns, socket.create_server(("127.0.0.1", 0)) as server:
        bev.connect_hostname(dns, *server.getsockname())  # numeric: nobody is asked
        run_until(base, lambda: story.told)
        assert story.told == [(CONNECTED, None)]
        server.accept()[0].close()
        bev.close()
        settle(base)


def test_a_name_server_is_of_the_same_base(base: EventBase) -> None:
    bev = BufferEvent(base)
    with (
        EventBase() as other,
        resolver(other) as dns,
        pytest.raises(ValueError, match=r"^dns_base must be of the bufferevent's own event base"),
    ):
        bev.connect_hostname(dns, "localhost", 80)


@pytest.mark.parametrize("options", [NO_OPTION, CLOSE], ids=str)
def test_closing_cancels_the_lookup(
    base: EventBase, story: Story, options: BufferEventOption
) -> None:
    with resolver(base) as dns:
        before = base.num_events(1 << 2)
        bev = BufferEvent(base, -1, options, on_event=story)
        bev.connect_hostname(dns, "slow.invalid", 80, socket.AF_INET)
        dns.asked()
        bev.close()
        settle(base)
        assert lib.evdns_base_count_nameservers(dns.pointer) == 1
        assert base.num_events(1 << 2) == before
    assert story.told == []


@VALGRIND_TAKES_LONG
def test_a_lookup_that_is_never_answered_touches_no_memory_that_is_freed(valgrind: bool) -> None:
    run_python(
        """
        import gc, socket, weakref
        from libevent_py import *
        from tests.bufferevent.test_connect import IMPOSSIBLE, Resolver
        from tests.kit.peers import settle

        def story(bev, what):
            told.append((what, type(bev.error)))
            if closing:
                bev.close()

        told = []
        for closing in True, False:
            for end in "closed", "dropped", "dns":
                for options in BufferEventOption(0), BufferEventOption.CLOSE_ON_FREE:
                    base = EventBase()
                    dns = Resolver(base)
                    bev = BufferEvent(base, -1, options, on_event=story)
                    bev.connect_hostname(dns, "slow.invalid", 80, socket.AF_INET)
                    dns.asked()
                    if end == "closed":
                        bev.close()
                    elif end == "dropped":
                        del bev
                        gc.collect()
                    if end != "dns":
                        settle(base)  # the resolver must outlive what is cancelled (L3)
                    dns.close()
                    told.clear()
                    base.close()
            with EventBase() as base:
                bev = BufferEvent(base, on_event=story)
                bev.connect_hostname(None, IMPOSSIBLE, 80)
                assert told.pop() == (BufferEventFlag.ERROR, DnsError)
                assert bev.closed == closing
                assert not told
        """,
        valgrind=valgrind,
    )


# Twice.


def test_who_is_connected_can_not_connect_again(base: EventBase, story: Story) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        bev = BufferEvent(base, on_event=story)
        bev.connect(server.getsockname())
        run_until(base, lambda: story.told)
        fd = bev.fd
        for connect in (
            lambda: bev.connect(nobody_listens()),
            lambda: bev.connect_hostname(None, *nobody_listens()),
        ):
            with pytest.raises(OSError, match=f"fd {fd}: .* already connected") as raised:
                connect()  # type: ignore[no-untyped-call]
            assert raised.value.errno == errno.EISCONN
        assert bev.fd == fd
        sock, _ = server.accept()
        with sock:
            sock.send(b"hello")
            bev.enable(EventFlag.READ)
            run_until(base, lambda: bev.input)
            assert bev.read() == b"hello"
        with pytest.raises(BlockingIOError):
            server.setblocking(False)
            server.accept()


def test_who_is_connecting_can_not_connect_to_somebody_else(base: EventBase, story: Story) -> None:
    with nobody_accepts() as address:
        bev = BufferEvent(base, on_event=story)
        bev.connect(address)
        fd = bev.fd
        with pytest.raises(OSError, match="bufferevent_socket_connect") as raised:
            bev.connect(address)
        assert raised.value.errno == errno.EALREADY
        assert bev.fd == fd
        settle(base)
        assert story.told == []
        bev.close()


def test_who_was_refused_may_try_again_with_the_same_socket(base: EventBase, story: Story) -> None:
    """Linux says once more that the first time was in vain."""
    bev = BufferEvent(base, -1, NO_OPTION, on_event=story)
    bev.connect(nobody_listens())
    run_until(base, lambda: story.told)
    fd = bev.fd
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(ConnectionAbortedError, match="bufferevent_socket_connect"):
            bev.connect(server.getsockname())
        bev.connect(server.getsockname())
        assert bev.fd == fd
        run_until(base, lambda: len(story.told) == 2)
        assert story.told[1] == (CONNECTED, None)
        server.accept()[0].close()
    bev.close()


@pytest.mark.parametrize("host", ["127.0.0.1:80", "localhost:80", "[::1]:80"])
def test_a_host_with_a_port_in_it_is_refused_before_it_is_looked_up(
    base: EventBase, host: str
) -> None:
    with BufferEvent(base) as bev, pytest.raises(ValueError, match="host must have no port in it"):
        bev.connect_hostname(None, host, 80)
