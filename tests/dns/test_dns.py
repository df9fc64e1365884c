"""DnsBase: name servers, options, lookups and what they are told."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import libevent_py
from libevent_py import (
    AddrInfoError,
    AddrInfoFlag,
    AddrInfoLookup,
    BufferEvent,
    ClosedError,
    DnsBase,
    DnsBaseFlag,
    DnsError,
    DnsLookup,
    DnsOption,
    DnsQueryFlag,
    DnsResult,
    DnsType,
    EventBase,
    HttpCommand,
    HttpConnection,
    HttpRequest,
    LibeventError,
)
from tests.kit.dns_peers import NXDOMAIN, SILENCE, NameServer, Told, client_of, record
from tests.kit.peers import run_until, settle

NO_FLAG = DnsQueryFlag(0)
INACTIVE = DnsBaseFlag.DISABLE_WHEN_INACTIVE

ZONE: dict[str, Any] = {
    "host.example": ["192.0.2.1", "192.0.2.2", "2001:db8::1"],
    "1.2.0.192.in-addr.arpa": ["host.example"],
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa": ["host6.example"],
    "nothing.example": [],
    "silent.example": SILENCE,
    "xn--bcher-kva.example": ["192.0.2.9"],
}


@pytest.fixture
def server(base: EventBase) -> Iterator[NameServer]:
    with NameServer(base, dict(ZONE)) as server:
        yield server


@pytest.fixture
def dns(server: NameServer) -> Iterator[DnsBase]:
    with client_of(server) as dns:
        yield dns


@pytest.fixture
def empty(base: EventBase) -> Iterator[DnsBase]:
    """A resolver that nobody is asked by."""
    with DnsBase(base, DnsBaseFlag(0)) as dns:
        yield dns


# Lookups.


def test_a_name_has_ipv4_addresses(base: EventBase, dns: DnsBase) -> None:
    told = Told()
    lookup = dns.resolve_ipv4("host.example", told)
    assert lookup.pending
    assert told.wait(base) == [(DnsResult.NONE, 42, ["192.0.2.1", "192.0.2.2"])]
    assert told._lookups == [lookup]
    assert isinstance(told.told[0][0], DnsResult)
    assert not lookup.pending
    assert (lookup.name, lookup.type, lookup.dns_base) == ("host.example", DnsType.A, dns)


def test_a_name_has_ipv6_addresses(base: EventBase, dns: DnsBase) -> None:
    told = Told()
    dns.resolve_ipv6(b"host.example", told)
    assert told.wait(base) == [(DnsResult.NONE, 42, ["2001:db8::1"])]


def test_an_address_has_a_name(base: EventBase, dns: DnsBase) -> None:
    told = Told()
    dns.resolve_reverse("192.0.2.1", told)
    assert told.wait(base) == [(DnsResult.NONE, 42, ["host.example"])]
    dns.resolve_reverse_ipv6("2001:db8::1", told)
    assert told.wait(base, 2)[1] == (DnsResult.NONE, 42, ["host6.example"])


@pytest.mark.parametrize(
    ("name", "result"),
    [("nowhere.example", DnsResult.NOTEXIST), ("nothing.example", DnsResult.NODATA)],
)
def test_what_is_not_found_has_a_result(
    base: EventBase, dns: DnsBase, name: str, result: DnsResult
) -> None:
    told = Told()
    dns.resolve_ipv4(name, told)
    assert told.wait(base) == [(result, 0, [])]


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (1, DnsResult.FORMAT),
        (4, DnsResult.NOTIMPL),
        (5, DnsResult.REFUSED),
        (9, DnsResult.UNKNOWN),
    ],
)
def test_what_the_server_fails_by_is_the_result(
    base: EventBase, server: NameServer, dns: DnsBase, code: int, result: DnsResult
) -> None:
    server.zone["host.example"] = code
    told = Told()
    dns.resolve_ipv4("host.example", told)
    assert told.wait(base) == [(result, 0, [])]


def test_who_never_answers_times_out(base: EventBase, server: NameServer) -> None:
    with client_of(server, timeout=0.01, attempts=2) as dns:
        told = Told()
        dns.resolve_ipv4("silent.example", told)
        assert told.wait(base) == [(DnsResult.TIMEOUT, 0, [])]
        assert server.names.count("silent.example") == 2


def test_a_name_outside_ascii_is_encoded(base: EventBase, dns: DnsBase) -> None:
    told = Told()
    lookup = dns.resolve_ipv4("bücher.example", told)
    assert told.wait(base) == [(DnsResult.NONE, 42, ["192.0.2.9"])]
    assert lookup.name == "bücher.example"


def test_at_most_32_addresses_are_told(base: EventBase, server: NameServer, dns: DnsBase) -> None:
    server.zone["many.example"] = [f"192.0.2.{number}" for number in range(40)]
    told = Told()
    dns.resolve_ipv4("many.example", told)
    assert told.wait(base)[0][2] == [f"192.0.2.{number}" for number in range(32)]


def test_a_time_to_live_beyond_what_c_can_say_is_none(
    base: EventBase, server: NameServer, dns: DnsBase
) -> None:
    def answer(question: Any) -> bytes:
        packet: bytes = question.packet
        head = packet[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
        return head + packet[12:] + record(DnsType.A, b"\1\2\3\4", ttl=2**31 + 5)

    server.zone["host.example"] = answer
    told = Told()
    dns.resolve_ipv4("host.example", told)
    assert told.wait(base) == [(DnsResult.NONE, 0, ["1.2.3.4"])]


@pytest.mark.parametrize(
    ("name", "error", "why"),
    [
        ("", ValueError, "name must have parts of 1 to 63 bytes, not ''"),
        ("a..b", ValueError, "name must have parts of 1 to 63 bytes"),
        ("x" * 64, ValueError, "name must have parts of 1 to 63 bytes"),
        (".".join(["x" * 60] * 5), ValueError, "name must have at most 255 bytes, not 304"),
        ("a\0b", ValueError, "host must not contain a NUL"),
        (None, TypeError, "host must be str or bytes, not None"),
    ],
)
def test_what_is_no_name_is_refused(dns: DnsBase, name: Any, error: Any, why: str) -> None:
    with pytest.raises(error, match=why):
        dns.resolve_ipv4(name, print)
    with pytest.raises(error, match=why):
        dns.resolve_ipv6(name, print)
    assert dns._lookups == {}


def test_a_name_too_long_with_its_domain_is_refused(empty: DnsBase) -> None:
    empty.search_add("y" * 60)
    empty.search_ndots_set(10)
    with pytest.raises(LibeventError, match="failed"):
        empty.resolve_ipv4(".".join(["x" * 60] * 4), print)
    assert empty._lookups == {}
    assert empty.base._live == {}


def test_arguments_are_checked(dns: DnsBase) -> None:
    with pytest.raises(ValueError, match="flags has bits that DnsQueryFlag does not know: 0x8"):
        dns.resolve_ipv4("host.example", print, flags=8)
    with pytest.raises(TypeError, match="callback must be callable, not None"):
        dns.resolve_ipv6("host.example", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="address must be an IPv4 address, not '::1'"):
        dns.resolve_reverse("::1", print)
    with pytest.raises(ValueError, match=r"address must be an IPv6 address, not '127\.0\.0\.1'"):
        dns.resolve_reverse_ipv6("127.0.0.1", print)
    with pytest.raises(ValueError, match="service must be from 0 to 65535, not 65536"):
        dns.getaddrinfo("host.example", 65536, print)
    with pytest.raises(TypeError, match="base must be an EventBase, not None"):
        DnsBase(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="flags has bits that DnsBaseFlag does not know: 0x10"):
        DnsBase(dns.base, 16)
    with pytest.raises(RuntimeError, match="this DnsBase has been made already"):
        dns.__init__(dns.base)  # type: ignore[misc]
    assert dns._lookups == {}


# getaddrinfo.


def test_a_host_has_both_kinds_of_addresses(base: EventBase, dns: DnsBase) -> None:
    told = Told()
    lookup = dns.getaddrinfo("host.example", 80, told, type=socket.SOCK_STREAM)
    assert lookup.pending
    ((error, addresses),) = told.wait(base)
    assert error is None
    assert [address[4] for address in addresses] == [
        ("192.0.2.1", 80),
        ("192.0.2.2", 80),
        ("2001:db8::1", 80, 0, 0),
    ]
    assert addresses[0][:3] == (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    assert (lookup.host, lookup.service, lookup.pending) == ("host.example", 80, False)


def test_one_family_is_enough(base: EventBase, server: NameServer, dns: DnsBase) -> None:
    told = Told()
    dns.getaddrinfo("host.example", "http", told, family=socket.AF_INET6)
    ((error, addresses),) = told.wait(base)
    assert error is None
    assert {address[4] for address in addresses} == {("2001:db8::1", 80, 0, 0)}
    assert [question.type for question in server.asked] == [DnsType.AAAA]


def test_a_numeric_address_is_told_at_once(dns: DnsBase) -> None:
    told = Told()
    lookup = dns.getaddrinfo("192.0.2.7", 53, told, type=socket.SOCK_DGRAM)
    expected = (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP, "", ("192.0.2.7", 53))
    assert told.told == [(None, [expected])]
    assert told._lookups == [lookup]
    assert not lookup.pending
    lookup.cancel()


def test_what_getaddrinfo_can_not_do_is_a_dns_error(dns: DnsBase) -> None:
    told = Told()
    dns.getaddrinfo("host.example", 80, told, flags=AddrInfoFlag.NUMERICHOST)
    ((error, addresses),) = told.told
    assert isinstance(error, DnsError)
    assert error.errno == AddrInfoError.NONAME
    assert "'host.example': " in str(error)
    assert addresses == []
    dns.getaddrinfo(None, None, told)
    assert told.told[1][0].errno == AddrInfoError.NONAME
    dns.getaddrinfo("host.example", 80, told, family=socket.AF_UNIX)
    assert told.told[2][0].errno == AddrInfoError.FAMILY


def test_a_host_that_does_not_exist_is_a_dns_error(base: EventBase, dns: DnsBase) -> None:
    told = Told()
    dns.getaddrinfo("nowhere.example", 80, told)
    ((error, _),) = told.wait(base)
    assert error.errno == AddrInfoError.NONAME


def test_an_exception_at_once_comes_out_of_getaddrinfo(base: EventBase, dns: DnsBase) -> None:
    def callback(*_: object) -> None:
        raise KeyError("at once")

    with pytest.raises(KeyError, match="at once"):
        dns.getaddrinfo("192.0.2.7", 53, callback)
    assert dns._lookups == {}
    taken: list[Any] = []
    base.on_error = lambda error, source: taken.append((str(error), type(source)))
    dns.getaddrinfo("192.0.2.7", 53, callback)
    assert taken == [("'at once'", AddrInfoLookup)]
    base.on_error = None


def test_an_exception_comes_out_of_the_loop(base: EventBase, dns: DnsBase) -> None:
    def callback(*_: object) -> None:
        raise KeyError("in the loop")

    dns.resolve_ipv4("host.example", callback)
    with pytest.raises(KeyError, match="in the loop"):
        base.dispatch()
    taken: list[Any] = []
    base.on_error = lambda error, source: (taken.append(type(source)), base.loopexit())
    dns.resolve_ipv4("host.example", callback)
    base.dispatch()
    assert taken == [DnsLookup]
    base.on_error = None


def test_a_late_second_answer_is_not_waited_for(base: EventBase, server: NameServer) -> None:
    server.zone["half.example"] = lambda question: (
        ["192.0.2.5"] if question.type == DnsType.A else SILENCE
    )
    with client_of(server, getaddrinfo_allow_skew=0.02) as dns:
        told = Told()
        dns.getaddrinfo("half.example", 80, told, type=socket.SOCK_STREAM)
        ((error, addresses),) = told.wait(base)
        assert error is None
        assert [address[4] for address in addresses] == [("192.0.2.5", 80)]
        settle(base)
        assert len(told.told) == 1


@pytest.mark.parametrize("domain", ["a..b", "a.b..", f"a.{'x' * 64}", "x" * 64 + ".b"])
def test_a_domain_in_which_no_name_can_be_asked_for_is_refused(empty: DnsBase, domain: str) -> None:
    with pytest.raises(ValueError, match="domain must have parts of 1 to 63 bytes"):
        empty.search_add(domain)
    empty.search_add(f".a.{'x' * 63}.")  # and others are not


def test_hosts_are_known_at_once(empty: DnsBase, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.8 known.example alias # comment\n2001:db8::8 known.example\n")
    empty.load_hosts(hosts)
    told = Told()
    empty.getaddrinfo("KNOWN.example", 80, told, type=socket.SOCK_STREAM)
    empty.getaddrinfo("alias", 80, told, type=socket.SOCK_STREAM)
    addresses = [[one[4] for one in answer[1]] for answer in told.told]
    assert addresses == [
        [("192.0.2.8", 80), ("2001:db8::8", 80, 0, 0)],
        [("192.0.2.8", 80)],
    ]
    empty.clear_host_addresses()
    lookup = empty.getaddrinfo("alias", 80, told)
    assert lookup.pending


def test_what_is_found_in_a_hosts_file_has_the_port_for_each_type(
    empty: DnsBase, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.8 known.example\n2001:db8::8 known.example\n")
    empty.load_hosts(hosts)
    told = Told()
    empty.getaddrinfo("known.example", 80, told)
    ((error, addresses),) = told.told
    assert error is None
    assert [(one[1], one[4][:2]) for one in addresses] == [
        (socket.SOCK_STREAM, ("192.0.2.8", 80)),
        (socket.SOCK_DGRAM, ("192.0.2.8", 80)),
        (socket.SOCK_STREAM, ("2001:db8::8", 80)),
        (socket.SOCK_DGRAM, ("2001:db8::8", 80)),
    ]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_host_without_addresses_of_a_family_has_no_data(
    empty: DnsBase, tmp_path: Path, family: int
) -> None:
    other = "2001:db8::8" if family == socket.AF_INET else "192.0.2.8"
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{other} known.example\n")
    empty.load_hosts(hosts)
    told = Told()
    empty.getaddrinfo("known.example", 80, told, family=family)
    ((error, addresses),) = told.told
    assert error.errno == AddrInfoError.NODATA
    assert addresses == []


def test_a_host_without_addresses_of_a_family_can_not_be_connected_to(
    base: EventBase, empty: DnsBase, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("2001:db8::8 known.example\n")
    empty.load_hosts(hosts)
    told: list[Any] = []
    with (
        BufferEvent(base) as bev,
        HttpConnection(base, "known.example", 80, dns_base=empty) as http,
    ):
        bev.setcb(None, None, lambda bev, what: told.append(bev.dns_error))
        bev.connect_hostname(empty, "known.example", 80, socket.AF_INET)
        run_until(base, lambda: told)
        http.family = socket.AF_INET
        request = HttpRequest(lambda request: told.append(request.error))
        http.make_request(request, HttpCommand.GET, "/")
        run_until(base, lambda: len(told) > 1)
        assert told[0].errno == AddrInfoError.NODATA
        assert told[1].__cause__.errno == AddrInfoError.NODATA


def test_without_a_hosts_file_there_is_localhost(empty: DnsBase, tmp_path: Path) -> None:
    told = Told()
    empty.load_hosts(None)
    empty.getaddrinfo("localhost", 80, told, family=socket.AF_INET, type=socket.SOCK_STREAM)
    assert told.told[0][1][0][4] == ("127.0.0.1", 80)
    with pytest.raises(FileNotFoundError, match="there_is_none"):
        empty.load_hosts(tmp_path / "there_is_none")
    with pytest.raises(IsADirectoryError):
        empty.load_hosts(tmp_path)
    with pytest.raises(ValueError, match="hosts_fname must not contain a NUL"):
        empty.load_hosts("a\0b")


# Cancelling.


def test_who_cancels_is_told_so_later(base: EventBase, dns: DnsBase) -> None:
    told = Told()
    lookups = [
        dns.resolve_ipv4("silent.example", told),
        dns.resolve_reverse("192.0.2.77", told),
        dns.getaddrinfo("silent.example", 80, told),
    ]
    for lookup in lookups:
        lookup.cancel()
        lookup.cancel()
        assert lookup.pending
    assert told.told == []
    told.wait(base, 3)
    assert told.told[:2] == [(DnsResult.CANCEL, 0, [])] * 2
    assert told.told[2][0].errno == AddrInfoError.CANCEL
    for lookup in lookups:
        assert not lookup.pending
        lookup.cancel()
    settle(base)
    assert len(told.told) == 3


def test_an_answer_on_its_way_is_not_cancelled(base: EventBase, dns: DnsBase) -> None:
    told = Told(lambda *_: [lookup.cancel() for lookup in lookups])
    lookups = [dns.resolve_ipv4("host.example", told) for _ in range(10)]
    told.wait(base, 10)
    assert {result for result, _, _ in told.told} <= {DnsResult.NONE, DnsResult.CANCEL}
    assert told.told[0][0] == DnsResult.NONE


def test_half_an_answer_can_be_cancelled(base: EventBase, server: NameServer) -> None:
    server.zone["half.example"] = lambda question: (
        ["192.0.2.5"] if question.type == DnsType.A else SILENCE
    )
    with client_of(server) as dns:
        told = Told()
        lookup = dns.getaddrinfo("half.example", 80, told)
        while len(server.asked) < 2:
            settle(base)
        settle(base)
        lookup.cancel()
        told.wait(base)
        assert told.told[0][0].errno == AddrInfoError.CANCEL


# Name servers.


def test_name_servers_are_listed(empty: DnsBase) -> None:
    assert empty.nameservers == []
    empty.nameserver_add("127.0.0.1")
    empty.nameserver_ip_add("127.0.0.2")
    empty.nameserver_ip_add(b"127.0.0.3:5353")
    empty.nameserver_ip_add("[::1]:5354")
    empty.nameserver_sockaddr_add(("127.0.0.4", 5355))
    empty.nameserver_sockaddr_add(("::1", 5356))
    assert len(empty.nameservers) == 6
    assert set(empty.nameservers) == {
        ("127.0.0.1", 53),
        ("127.0.0.2", 53),
        ("127.0.0.3", 5353),
        ("::1", 5354, 0, 0),
        ("127.0.0.4", 5355),
        ("::1", 5356, 0, 0),
    }
    empty.clear_nameservers_and_suspend()
    assert empty.nameservers == []


def test_a_name_server_is_added_once(empty: DnsBase) -> None:
    empty.nameserver_ip_add("127.0.0.1")
    for add in (empty.nameserver_ip_add, empty.nameserver_add):
        with pytest.raises(FileExistsError, match=r"'127\.0\.0\.1': it is a name server already"):
            add("127.0.0.1")
    with pytest.raises(FileExistsError, match="it is a name server already") as caught:
        empty.nameserver_sockaddr_add(("127.0.0.1", 53))
    assert caught.value.errno == errno.EEXIST


@pytest.mark.parametrize("wrong", ["", "localhost", "127.0.0.1:0", "127.0.0.1:x", "::1::", "a\0"])
def test_what_is_no_address_is_refused(empty: DnsBase, wrong: str) -> None:
    with pytest.raises(ValueError, match="address must"):
        empty.nameserver_ip_add(wrong)
    with pytest.raises(ValueError, match="address must"):
        empty.nameserver_add(wrong)
    with pytest.raises(ValueError, match="address must be"):
        empty.nameserver_sockaddr_add("/tmp/socket")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"val of bind-to must be an address|must not contain"):
        empty.set_option("bind-to", wrong)
    assert len(empty.nameservers) == 0


def test_a_server_that_can_not_be_bound_to_raises(empty: DnsBase) -> None:
    empty.set_option("bind-to", "192.0.2.1")
    with pytest.raises((OSError, LibeventError), match=r"192\.0\.2\.5"):
        empty.nameserver_ip_add("192.0.2.5")
    empty.nameserver_ip_add("127.0.0.1")


def test_without_servers_lookups_wait_for_some(base: EventBase, server: NameServer) -> None:
    with DnsBase(base, DnsBaseFlag(0)) as dns:
        told = Told()
        dns.resolve_ipv4("host.example", told)
        settle(base)
        assert told.told == []
        dns.nameserver_sockaddr_add(server.address)
        dns.resume()
        assert told.wait(base)[0][0] == DnsResult.NONE


def test_suspended_lookups_are_asked_of_other_servers(base: EventBase, server: NameServer) -> None:
    with NameServer(base, {"*": SILENCE}) as silent, client_of(silent) as dns:
        told = Told()
        dns.resolve_ipv4("host.example", told)
        dns.getaddrinfo("host.example", 80, told)
        settle(base)
        dns.clear_nameservers_and_suspend()
        settle(base)
        dns.nameserver_sockaddr_add(server.address)
        dns.resume()
        told.wait(base, 2)
        assert {answer[0] for answer in told.told} == {DnsResult.NONE, None}


def test_servers_can_be_changed_in_a_callback(base: EventBase, server: NameServer) -> None:
    with NameServer(base, {"*": NXDOMAIN}) as wrong, client_of(wrong, max_inflight=7) as dns:
        found = Told()

        def change(*_: object) -> None:
            if len(told.told) == 1:
                dns.clear_nameservers_and_suspend()
                dns.nameserver_sockaddr_add(server.address)
                dns.resume()
                dns.resolve_ipv4("host.example", found)

        told = Told(change)
        for number in range(20):
            dns.resolve_ipv4(f"x{number}.example", told)
        assert found.wait(base)[0][0] == DnsResult.NONE
        assert dns.nameservers == [server.address]
        told.wait(base, 20)


def test_what_fails_after_a_quiet_moment_is_the_callbacks_error(
    base: EventBase, server: NameServer, dns: DnsBase
) -> None:
    def change(*_: object) -> None:
        told.then = None
        dns.clear_nameservers_and_suspend()
        dns.nameserver_sockaddr_add(server.address)
        dns.nameserver_sockaddr_add(server.address)

    told = Told(change)
    for _ in range(2):
        dns.resolve_ipv4("host.example", told)
    with pytest.raises(FileExistsError):
        base.dispatch()


def test_the_server_is_not_asked_when_the_loop_may_end(base: EventBase, server: NameServer) -> None:
    told = Told()
    with DnsBase(base, INACTIVE) as dns:
        dns.nameserver_sockaddr_add(server.address)
        dns.resolve_ipv4("host.example", told)
        told.wait(base)
        server.event.delete()
        assert base.dispatch() is False
        server.event.add()


# Configuration.


def test_names_are_searched_in_domains(base: EventBase, server: NameServer, dns: DnsBase) -> None:
    dns.search_add("example")
    dns.search_add("first.example")
    told = Told()
    dns.resolve_ipv4("host", told)
    assert told.wait(base)[0][0] == DnsResult.NONE
    assert server.names == ["host.first.example", "host.example"]
    dns.resolve_ipv4("host", told, flags=DnsQueryFlag.NO_SEARCH)
    assert told.wait(base, 2)[1][0] == DnsResult.NOTEXIST
    assert server.names[2:] == ["host"]
    dns.search_clear()
    dns.resolve_ipv4("host", told)
    assert told.wait(base, 3)[2][0] == DnsResult.NOTEXIST
    assert server.names[3:] == ["host"]


def test_ndots_says_what_is_tried_as_it_is(
    base: EventBase, server: NameServer, dns: DnsBase
) -> None:
    dns.search_add("example")
    told = Told()
    for set_ndots in (dns.search_ndots_set, lambda ndots: dns.set_option("ndots", ndots)):
        for ndots, first in ((2, "a.b.example"), (1, "a.b")):
            server.asked.clear()
            set_ndots(ndots)
            dns.resolve_ipv4("a.b", told)
            told.wait(base, len(told.told) + 1)
            assert server.names[0] == first
    with pytest.raises(ValueError, match="ndots must be from 0 to 255, not -1"):
        dns.search_ndots_set(-1)


def test_names_are_spelt_at_random(base: EventBase, server: NameServer, dns: DnsBase) -> None:
    name = "a-name-of-many-letters.example"
    told = Told()
    dns.resolve_ipv4(name, told)
    told.wait(base)
    dns.set_option("randomize-case", 0)
    dns.resolve_ipv4(name, told)
    told.wait(base, 2)
    first, second = server.asked
    assert first.spelling != name == second.spelling


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("ndots", [0, 3, "2"]),
        ("timeout", [0.001, 5, "2.5", b"7", 100000]),
        ("attempts", [0, "3", 255]),
        ("max-timeouts", [1, 255]),
        ("max-inflight", [1, 65000, "10"]),
        ("randomize-case", [0, 1, True, "0"]),
        ("initial-probe-timeout", [0.5, 3600]),
        ("getaddrinfo-allow-skew", [0.25]),
        ("bind-to", ["127.0.0.1", "127.0.0.1:5353", "::1"]),
        ("so-rcvbuf", [0, 4096]),
        ("so-sndbuf", [4096]),
    ],
)
def test_each_option_takes_its_values(empty: DnsBase, option: str, values: list[Any]) -> None:
    for value in values:
        empty.set_option(option, value)
        empty.set_option(f"{option}:", value)  # as C spells them


def test_an_option_with_cs_colon_is_the_same(
    base: EventBase, server: NameServer, dns: DnsBase
) -> None:
    name = "a-name-of-many-letters.example"
    told = Told()
    dns.set_option("randomize-case:", 0)
    dns.resolve_ipv4(name, told)
    told.wait(base)
    assert server.asked[0].spelling == name
    dns.set_option("max-inflight:", 7)
    assert dns._max_inflight == b"7"


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_server_that_fails_ends_a_lookup_as_one_that_says_nothing_does(
    base: EventBase, server: NameServer, dns: DnsBase, attempts: int
) -> None:
    """SERVFAIL is asked again at once, and never a result; of other errors that comes as it is."""
    SERVFAIL = 2
    server.zone["broken.example"] = SERVFAIL
    dns.set_option("attempts", attempts)
    dns.set_option("timeout", 1000)
    told = Told()
    dns.resolve_ipv4("broken.example", told, flags=DnsQueryFlag.NO_SEARCH)
    told.wait(base)
    assert [result for result, _, _ in told.told] == [DnsResult.TIMEOUT]
    assert server.names == ["broken.example"] * attempts
    errors: list[Any] = []
    dns.getaddrinfo("broken.example", 80, lambda lookup, error, found: errors.append(error))
    run_until(base, lambda: errors)
    assert errors[0].errno == AddrInfoError.FAIL


@pytest.mark.parametrize(
    ("option", "value", "error", "why"),
    [
        ("nonsense", 1, ValueError, "option must be one of ndots, timeout, .*, not 'nonsense'"),
        ("timeout::", 1, ValueError, "option must be one of"),
        ("timeout:5", 1, ValueError, "option must be one of"),
        (":", 1, ValueError, "option must be one of"),
        (None, 1, ValueError, "option must be one of"),
        ("timeout", 0, ValueError, "val of timeout must be from 0.001 to"),
        ("timeout", -1, ValueError, "val of timeout must be from 0 to"),
        ("timeout", float("nan"), ValueError, "val of timeout must be from 0 to"),
        ("timeout", "soon", ValueError, "val of timeout must be a number of seconds"),
        ("timeout", ".", ValueError, "val of timeout must be a number of seconds"),
        ("timeout", None, TypeError, "val of timeout must be a number of seconds"),
        ("attempts", -1, ValueError, "val of attempts must be from 0 to 255, not -1"),
        ("attempts", 1.5, TypeError, "val of attempts must be an integer"),
        ("attempts", "1x", ValueError, "val of attempts must be a number"),
        ("max-inflight", 0, ValueError, "val of max-inflight must be from 1 to 65000, not 0"),
        ("randomize-case", 2, ValueError, "val of randomize-case must be from 0 to 1"),
        ("initial-probe-timeout", 3601, ValueError, "must be from 0.001 to 3600 seconds"),
        ("bind-to", 5, TypeError, "val of bind-to must be str or bytes"),
    ],
)
def test_what_is_no_option_is_refused(
    empty: DnsBase, option: str, value: Any, error: Any, why: str
) -> None:
    with pytest.raises(error, match=why):
        empty.set_option(option, value)


def test_a_resolv_conf_is_parsed(
    base: EventBase, server: NameServer, empty: DnsBase, tmp_path: Path
) -> None:
    conf = tmp_path / "resolv.conf"
    host, port = server.address
    conf.write_text(
        f"# comment\nnameserver {host}:{port}\nsearch first.example example\n"
        "options timeout:1 ndots:1 max-inflight:3\n"
    )
    empty.resolv_conf_parse(conf, flags=DnsOption.SEARCH)
    assert empty.nameservers == []
    empty.resolv_conf_parse(str(conf))
    assert empty.nameservers == [server.address]
    told = Told()
    empty.resolve_ipv4("host", told)
    assert told.wait(base)[0][0] == DnsResult.NONE
    assert server.names == ["host.first.example", "host.example"]


def test_a_resolv_conf_without_servers_has_a_default(empty: DnsBase, tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("search example\n")
    with pytest.raises(LibeventError, match=r"resolv\.conf names no name server"):
        empty.resolv_conf_parse(conf, flags=DnsOption.NAMESERVERS)
    assert empty.nameservers == [("127.0.0.1", 53)]


def test_a_missing_resolv_conf_raises(empty: DnsBase, tmp_path: Path) -> None:
    missing = tmp_path / "there_is_none"
    flags = DnsOption.ALL | DnsOption.NAMESERVERS_NO_DEFAULT
    with pytest.raises(FileNotFoundError, match="there_is_none"):
        empty.resolv_conf_parse(missing, flags=flags)
    assert empty.nameservers == []
    with pytest.raises(FileNotFoundError, match="there_is_none"):
        empty.resolv_conf_parse(os.fsencode(missing), flags=DnsOption.NAMESERVERS)
    assert empty.nameservers == [("127.0.0.1", 53)]
    empty.resolv_conf_parse(None)
    with pytest.raises(IsADirectoryError):
        empty.resolv_conf_parse(tmp_path)


def test_what_a_result_means() -> None:
    assert libevent_py.dns.err_to_string(DnsResult.NOTEXIST) == "name does not exist"
    assert libevent_py.dns.err_to_string(12345) == "[Unknown error code]"


def test_what_evdns_has_to_say_goes_to_the_log(
    base: EventBase, server: NameServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.zone["host.example"] = 4
    with client_of(server) as dns, caplog.at_level("DEBUG", "libevent"):
        told = Told()
        dns.resolve_ipv4("host.example", told)
        told.wait(base)
        settle(base)
    assert "has failed: Bad response 4" in caplog.text


def test_a_closed_one_says_so(base: EventBase, dns: DnsBase) -> None:
    dns.close()
    dns.close()
    assert dns.closed
    for use in (
        lambda: dns.resolve_ipv4("host.example", print),
        lambda: dns.getaddrinfo("192.0.2.1", 80, print),
        lambda: dns.nameserver_ip_add("127.0.0.1"),
        lambda: dns.nameservers,
        dns.clear_nameservers_and_suspend,
        dns.resume,
        dns.search_clear,
        lambda: dns.set_option("timeout", 1),
        lambda: dns.load_hosts(None),
    ):
        with pytest.raises(ClosedError, match="this DnsBase is closed"):
            use()
    with pytest.raises(ClosedError):
        dns.__enter__()
