"""Group ``dns`` of libevent's regression suite, but for ``server``.

The rows that ask the network ask a server on loopback here. The rows ``leak_…``, which count what
the library has allocated, are in test_memory.py.
"""

from __future__ import annotations

import functools
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libevent_py import (
    AddrInfoError,
    AddrInfoFlag,
    BufferEvent,
    BufferEventFlag,
    DnsBase,
    DnsBaseFlag,
    DnsError,
    DnsOption,
    DnsQueryFlag,
    DnsResult,
    DnsType,
    Event,
    EventBase,
    LibeventError,
    Listener,
    util,
)
from libevent_py._core import convert
from libevent_py._ffi import ffi, lib
from tests.kit.dns_peers import (
    NXDOMAIN,
    SILENCE,
    Alias,
    Authority,
    NameServer,
    OwnServer,
    Question,
    Told,
    Zone,
    client_of,
)
from tests.kit.peers import run_until
from tests.kit.support import PATIENCE, run_python

NO_FLAG, NO_SEARCH = DnsQueryFlag(0), DnsQueryFlag.NO_SEARCH
NO_BASE_FLAG, INACTIVE = DnsBaseFlag(0), DnsBaseFlag.DISABLE_WHEN_INACTIVE
CONNECTED, ERROR = BufferEventFlag.CONNECTED, BufferEventFlag.ERROR


#: What makes a name server on a base, from what it answers.
Peer = Callable[[EventBase, dict[str, Any]], Zone]


@pytest.fixture(params=[NameServer, OwnServer], ids=["handmade", "evdns"])
def peer(request: pytest.FixtureRequest) -> Peer:
    """A name server of a few lines, and evdns's own, which libevent's suite asks."""
    return request.param  # type: ignore[no-any-return]


def ended(base: EventBase, told: Told, count: int) -> list[Any]:
    """Run the loop until *told* has been told *count* times, and return what."""
    return told.wait(base, count)


# Live lookups, here of a server on loopback.

LIVE: dict[str, Any] = {
    "www.monkey.org": ["192.0.2.1"],
    "ipv6.example": ["2001:db8::1"],
    "1.0.0.127.in-addr.arpa": ["localhost"],
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa": ["localhost"],
}


def test_gethostbyname(base: EventBase, peer: Peer) -> None:
    """A name has an IPv4 address."""
    told = Told()
    with peer(base, LIVE) as server, client_of(server) as dns:
        dns.resolve_ipv4("www.monkey.org", told)
        assert ended(base, told, 1) == [(DnsResult.NONE, 42, ["192.0.2.1"])]


def test_gethostbyname6(base: EventBase, peer: Peer) -> None:
    """A name has an IPv6 address."""
    told = Told()
    with peer(base, LIVE) as server, client_of(server) as dns:
        dns.resolve_ipv6("ipv6.example", told)
        assert ended(base, told, 1) == [(DnsResult.NONE, 42, ["2001:db8::1"])]


def test_gethostbyaddr(base: EventBase, peer: Peer) -> None:
    """An IPv4 address has a name."""
    told = Told()
    with peer(base, LIVE) as server, client_of(server) as dns:
        dns.resolve_reverse("127.0.0.1", told)
        assert ended(base, told, 1) == [(DnsResult.NONE, 42, ["localhost"])]


def test_resolve_reverse(base: EventBase, peer: Peer) -> None:
    """Addresses of both families have a name."""
    told = Told()
    with peer(base, LIVE) as server, client_of(server) as dns:
        dns.resolve_reverse("127.0.0.1", told)
        dns.resolve_reverse_ipv6("::1", told)
        assert ended(base, told, 2) == [(DnsResult.NONE, 42, ["localhost"])] * 2


# Searching.


SEARCH: dict[str, Any] = {
    "host.c.example.com": ["11.22.33.44"],
    "host2.b.example.com": ["200.100.0.100"],
    "hostn.a.example.com": Authority(0, 42),
    "hostn.b.example.com": Authority(NXDOMAIN, 42),
    "hostn.c.example.com": [],
}


def test_search_empty(base: EventBase) -> None:
    """The empty name is refused, also where there is a domain to search it in."""
    with DnsBase(base, NO_BASE_FLAG) as dns:
        dns.search_add("whatever.example.com")
        with pytest.raises(ValueError, match="name must have parts"):
            dns.resolve_ipv4("", print)


def search(base: EventBase, peer: Peer, **options: Any) -> None:
    """Look names up in three domains, and as they are."""
    questions = [
        ("host", NO_FLAG, (DnsResult.NONE, 42, ["11.22.33.44"])),
        ("host2", NO_FLAG, (DnsResult.NONE, 42, ["200.100.0.100"])),
        ("host", NO_SEARCH, (DnsResult.NOTEXIST, 0, [])),
        ("host2", NO_SEARCH, (DnsResult.NOTEXIST, 0, [])),
        ("host3", NO_FLAG, (DnsResult.NOTEXIST, 0, [])),
        ("hostn.a.example.com", NO_SEARCH, (DnsResult.NODATA, 42, [])),
        ("hostn.b.example.com", NO_SEARCH, (DnsResult.NOTEXIST, 42, [])),
        ("hostn.c.example.com", NO_SEARCH, (DnsResult.NODATA, 0, [])),
    ]
    with peer(base, SEARCH) as server, client_of(server, **options) as dns:
        for domain in ("a.example.com", "b.example.com", "c.example.com"):
            dns.search_add(domain)
        told = Told()
        lookups = [dns.resolve_ipv4(host, told, flags=flags) for host, flags, _ in questions]
        ended(base, told, len(questions))
        answers = dict(zip(told._lookups, told.told, strict=True))
        assert [answers[lookup] for lookup in lookups] == [answer for _, _, answer in questions]
        if options:
            assert all(question.spelling == question.name for question in server.asked)


def test_search(base: EventBase, peer: Peer) -> None:
    """Domains are searched in turn."""
    search(base, peer)


def test_search_lower(base: EventBase, peer: Peer) -> None:
    """The same with names spelt as they are."""
    search(base, peer, randomize_case=0)


def test_search_cancel(base: EventBase, peer: Peer) -> None:
    """A search is cancelled while the third of four domains is tried."""

    def answer(_question: Question) -> int:
        if len(server.asked) == 3:
            lookup.cancel()
        return NXDOMAIN

    told = Told()
    with peer(base, {"*": answer}) as server, client_of(server) as dns:
        for letter in "abcd":
            dns.search_add(f"{letter}.example.com")
        lookup = dns.resolve_ipv4("host", told)
        assert ended(base, told, 1) == [(DnsResult.CANCEL, 0, [])]
        assert len(server.asked) == 3


# Servers that fail.


def retry(base: EventBase, peer: Peer, flags: DnsBaseFlag) -> None:
    """Have a server say nothing twice, and then for so long that it is probed."""
    drops = 2

    def answer(question: Question) -> Any:
        nonlocal drops
        if drops:
            drops -= 1
            return SILENCE
        if question.name == "google.com":  # the probe
            probes.append(question)
        return ["16.32.64.128"]

    told, probes = Told(), list[Question]()
    found = (DnsResult.NONE, 42, ["16.32.64.128"])
    options = {"timeout": 0.2, "max_timeouts": 10, "initial_probe_timeout": 0.1}
    with (
        peer(base, {"*": answer}) as server,
        client_of(server, flags=flags, **options) as dns,
    ):
        dns.resolve_ipv4("host.example.com", told)
        assert ended(base, told, 1) == [found]
        assert drops == 0
        drops = 4
        dns.set_option("max-timeouts", 2)
        dns.set_option("attempts", 3)
        dns.resolve_ipv4("host.example.com", told)
        run_until(base, lambda: probes and len(told.told) == 2)
        assert told.told[1] == (DnsResult.TIMEOUT, 0, [])
        assert drops == 0
        dns.resolve_ipv4("host.example.com", told)
        assert ended(base, told, 3)[2] == found


@pytest.mark.slow
def test_retry(base: EventBase, peer: Peer) -> None:
    """What isn't answered is asked again; who fails is probed."""
    retry(base, peer, NO_BASE_FLAG)


@pytest.mark.slow
def test_retry_disable_when_inactive(base: EventBase, peer: Peer) -> None:
    """The same where the loop may end while nothing is looked up."""
    retry(base, peer, INACTIVE)


def reissue(base: EventBase, peer: Peer, flags: DnsBaseFlag) -> None:
    """Ask a server that can't answer, and have another."""
    told = Told()
    options = {"timeout": 0.3, "max_timeouts": 2, "attempts": 5}
    with (
        peer(base, {"foof.example.com": 4}) as one,
        peer(base, {"foof.example.com": ["240.15.240.15"]}) as other,
        client_of(one, flags=flags, **options) as dns,
    ):
        dns.resolve_ipv4("foof.example.com", told)
        dns.nameserver_sockaddr_add(other.address)
        assert ended(base, told, 1) == [(DnsResult.NONE, 42, ["240.15.240.15"])]
        assert one.asked


def test_reissue(base: EventBase, peer: Peer) -> None:
    """What a server can't answer is asked of the next."""
    reissue(base, peer, NO_BASE_FLAG)


def test_reissue_disable_when_inactive(base: EventBase, peer: Peer) -> None:
    """The same where the loop may end while nothing is looked up."""
    reissue(base, peer, INACTIVE)


FOOF = {"foof.example.com": ["240.15.240.15"]}


def inflight(base: EventBase, peer: Peer, flags: DnsBaseFlag) -> None:
    """Ask more than may be asked at once."""

    def last(*_: object) -> None:
        if len(told.told) == 20:
            server.close()
            watchdog.close()
            if not flags:
                base.loopexit()

    told = Told(last)
    watchdog = Event.timer(base, lambda *_: pytest.fail("it has not come to an end"))
    watchdog.add(PATIENCE)
    with peer(base, FOOF) as server:
        options = {"max_inflight": 3, "randomize_case": 0}
        with client_of(server, flags=flags, **options) as dns:
            for _ in range(20):
                dns.resolve_ipv4("foof.example.com", told)
            assert base.dispatch() is not bool(flags)
    assert told.told == [(DnsResult.NONE, 42, ["240.15.240.15"])] * 20


def test_inflight(base: EventBase, peer: Peer) -> None:
    """There may be more questions than are asked at once."""
    inflight(base, peer, NO_BASE_FLAG)


def test_disable_when_inactive(base: EventBase, peer: Peer) -> None:
    """The same, and the loop ends when all are answered."""
    inflight(base, peer, INACTIVE)


def test_disable_when_inactive_no_ns(base: EventBase, peer: Peer) -> None:
    """A server that never answers is given up, too."""
    told = Told(lambda *_: base.loopexit())
    with (
        EventBase() as elsewhere,
        peer(elsewhere, FOOF) as server,
        DnsBase(base, INACTIVE) as dns,
    ):
        dns.nameserver_sockaddr_add(server.address)
        dns.set_option("timeout", 0.1)
        dns.resolve_ipv4("foof.example.com", told)
        assert base.dispatch() is True
        assert told.told == [(DnsResult.TIMEOUT, 0, [])]


# resolv.conf.


def test_initialize_nameservers(base: EventBase) -> None:
    """INITIALIZE_NAMESERVERS has name servers from /etc/resolv.conf; where there are none, it says
    so (L1)."""
    with DnsBase(base, NO_BASE_FLAG) as dns:
        assert dns.nameservers == []
    try:
        text = Path("/etc/resolv.conf").read_text()
    except OSError:
        text = ""
    if any(line.startswith("nameserver") for line in text.splitlines()):
        with DnsBase(base) as dns:
            assert len(dns.nameservers) > 0
    else:
        with pytest.raises((OSError, LibeventError), match=r"resolv\.conf"):
            DnsBase(base)


def test_nameservers_no_default(base: EventBase, tmp_path: Path) -> None:
    """Without a resolv.conf there is a default server, unless NAMESERVERS_NO_DEFAULT is given."""
    missing = tmp_path / "empty-resolv.conf"
    with DnsBase(base, NO_BASE_FLAG) as dns:
        with pytest.raises(FileNotFoundError):
            dns.resolv_conf_parse(missing, flags=DnsOption.ALL | DnsOption.NAMESERVERS_NO_DEFAULT)
        assert dns.nameservers == []
        with pytest.raises(FileNotFoundError):
            dns.resolv_conf_parse(missing)
        assert dns.nameservers == [("127.0.0.1", 53)]


# Connecting, and getaddrinfo.


def silent_about(*types: DnsType) -> Any:
    """Say nothing to questions of *types*, and to others that the name doesn't exist."""
    return lambda question: SILENCE if question.type in types else NXDOMAIN


def either(answer: str, silent: DnsType) -> Any:
    """Give *answer*, but say nothing to questions of the type *silent*."""
    return lambda question: SILENCE if question.type == silent else [answer]


def only(question: Question, answer: str) -> Any:
    """Answer, and fail where another type is asked for than *answer* is of."""
    wanted = DnsType.AAAA if ":" in answer else DnsType.A
    assert question.type == wanted, question
    return [answer]


ADDRESSES: dict[str, Any] = {
    "nobodaddy.example.com": ["127.0.0.1"],
    "both.example.com": Alias(["80.80.32.32", "80ff::bbbb"], "both-canonical.example.com"),
    "v4only.example.com": ["18.52.86.120"],
    "v4assert.example.com": lambda question: only(question, "18.52.86.120"),
    "v6only.example.com": ["b0b::f00d"],
    "v6assert.example.com": lambda question: only(question, "b0b::f00d"),
    "v6timeout.example.com": either("171.205.239.1", DnsType.AAAA),
    "v4timeout.example.com": either("a0a::ff01", DnsType.A),
    "v6timeout-nonexist.example.com": silent_about(DnsType.AAAA),
    "all-timeout.example.com": SILENCE,
}


def test_bufferevent_connect_hostname(base: EventBase, peer: Peer) -> None:
    """Connect by name: failures and successes, by evdns and by the system, numeric ones too."""
    accepted: list[int] = []
    outcomes: dict[BufferEvent, tuple[BufferEventFlag, int | None]] = {}

    def on_accept(_listener: Listener, fd: int, _address: Any) -> None:
        accepted.append(fd)

    def on_event(bev: BufferEvent, what: BufferEventFlag) -> None:
        assert bev not in outcomes
        outcomes[bev] = what, bev.dns_error.errno if bev.dns_error else 0

    with (
        Listener(base, ("127.0.0.1", 0), on_accept) as listener,
        peer(base, ADDRESSES) as server,
        client_of(server) as dns,
    ):
        port = listener.address[1]
        bevs = [BufferEvent(base, on_event=on_event) for _ in range(5)]
        bevs[3].connect_hostname(None, "localhost", port, socket.AF_INET)
        bevs[4].connect_hostname(None, "nonesuch.nowhere.invalid", 80, socket.AF_INET)
        bevs[0].connect_hostname(dns, "nosuchplace.example.com", port, socket.AF_INET)
        bevs[1].connect_hostname(dns, "127.0.0.1", port, socket.AF_INET)
        bevs[2].connect_hostname(dns, "nobodaddy.example.com", port, socket.AF_INET)
        try:
            util.getaddrinfo("nonesuch.nowhere.invalid", 80, socket.AF_INET, socket.SOCK_STREAM)
        except DnsError as error:
            expected = (ERROR, error.errno)
        run_until(base, lambda: len(outcomes) == 5 and len(accepted) == 3)
        assert [outcomes[bev] for bev in bevs] == [
            (ERROR, AddrInfoError.NONAME),
            (CONNECTED, 0),
            (CONNECTED, 0),
            (CONNECTED, 0),
            expected,
        ]
        assert len(server.asked) == 2
        for bev in bevs:
            bev.close()
        for fd in accepted:
            socket.socket(fileno=fd).close()


def test_bufferevent_connect_hostname_emfile() -> None:
    """The same where the process may open no more: all fail."""
    run_python(
        """
        import resource, socket
        from libevent_py import *
        from tests.kit.dns_peers import *
        from tests.kit.peers import run_until
        from tests.regress.test_dns import ADDRESSES

        outcomes = {}

        def on_event(bev, what):
            assert bev not in outcomes
            outcomes[bev] = what, bev.dns_error and bev.dns_error.errno

        ERROR = BufferEventFlag.ERROR
        with EventBase() as base, NameServer(base, ADDRESSES) as server:
            listener = Listener(base, ("127.0.0.1", 0), lambda *_: 1 / 0)
            dns = client_of(server)
            base.loop(LoopFlag.NONBLOCK)
            port = listener.address[1]
            next_fd = socket.socket()
            limit = next_fd.fileno()
            next_fd.close()
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            bevs = [BufferEvent(base, on_event=on_event) for _ in range(5)]
            bevs[3].connect_hostname(None, "localhost", port, socket.AF_INET)
            bevs[4].connect_hostname(None, "nonesuch.nowhere.invalid", 80, socket.AF_INET)
            bevs[0].connect_hostname(dns, "nosuchplace.example.com", port, socket.AF_INET)
            bevs[1].connect_hostname(dns, "127.0.0.1", port, socket.AF_INET)
            bevs[2].connect_hostname(dns, "nobodaddy.example.com", port, socket.AF_INET)
            run_until(base, lambda: len(outcomes) == 5)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            assert outcomes[bevs[0]] == (ERROR, AddrInfoError.NONAME)
            assert outcomes[bevs[1]] == outcomes[bevs[2]] == (ERROR, None)
            assert outcomes[bevs[3]][0] == ERROR and outcomes[bevs[3]][1]
            assert outcomes[bevs[4]][0] == ERROR and outcomes[bevs[4]][1]
            assert len(server.asked) == 2
        """
    )


def found_at_once(dns: DnsBase, host: Any, service: Any, **keywords: Any) -> Any:
    """Return what the callback is told before `getaddrinfo` returns."""
    told = Told()
    assert not dns.getaddrinfo(host, service, told, **keywords).pending
    return told.told[0]


STREAM = {"type": socket.SOCK_STREAM}


def test_getaddrinfo_async(base: EventBase, peer: Peer) -> None:
    """All that getaddrinfo can be asked: at once and in the loop, of each family and both."""
    with peer(base, ADDRESSES) as server, client_of(server) as dns:
        dns.load_hosts(None)
        dns.set_option("timeout", 0.3)
        dns.set_option("getaddrinfo-allow-skew", 0.2)
        at_once(dns)
        assert server.asked == []
        in_the_loop(base, dns)


def at_once(dns: DnsBase) -> None:
    """Ask what is answered without asking any server."""
    tcp, udp = socket.IPPROTO_TCP, socket.IPPROTO_UDP
    v4, v6 = socket.AF_INET, socket.AF_INET6
    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    assert found_at_once(dns, "1.2.3.4", "http", **STREAM) == (
        None,
        [(v4, stream, tcp, "", ("1.2.3.4", 80))],
    )
    error, none = found_at_once(dns, "www.google.com", "80", flags=AddrInfoFlag.NUMERICHOST)
    assert (error.errno, none) == (AddrInfoError.NONAME, [])
    assert found_at_once(dns, "f::f", "8008", proto=tcp) == (
        None,
        [(v6, stream, tcp, "", ("f::f", 8008, 0, 0))],
    )
    assert found_at_once(dns, "5.6.7.8", None) == (
        None,
        [(v4, stream, tcp, "", ("5.6.7.8", 0)), (v4, datagram, udp, "", ("5.6.7.8", 0))],
    )
    error, found = found_at_once(dns, None, "9090", type=datagram, flags=AddrInfoFlag.PASSIVE)
    assert error is None
    assert set(found) == {
        (v4, datagram, udp, "", ("0.0.0.0", 9090)),
        (v6, datagram, udp, "", ("::", 9090, 0, 0)),
    }
    error, found = found_at_once(dns, None, "2", type=stream)
    assert error is None
    assert set(found) == {
        (v4, stream, tcp, "", ("127.0.0.1", 2)),
        (v6, stream, tcp, "", ("::1", 2, 0, 0)),
    }
    error, found = found_at_once(dns, "LOCALHOST", "80", proto=tcp, family=v4)
    assert (error, found) == (None, [(v4, stream, tcp, "", ("127.0.0.1", 80))])
    error, found = found_at_once(dns, "localhost", "80", proto=tcp, family=v6)
    assert (error, found) == (None, [(v6, stream, tcp, "", ("::1", 80, 0, 0))])


def in_the_loop(base: EventBase, dns: DnsBase) -> None:
    """Ask what the server is asked for."""
    v4, v6 = socket.AF_INET, socket.AF_INET6
    addrconfig, canonname = AddrInfoFlag.ADDRCONFIG, AddrInfoFlag.CANONNAME
    questions: list[tuple[str, dict[str, Any]]] = [
        ("both", {"flags": canonname}),
        ("v4only", {"flags": canonname}),
        ("v6only", {}),
        ("v4assert", {"family": v4}),
        ("v6assert", {"family": v6}),
        ("nosuchplace", {"family": v4}),
        ("nosuchplace", {}),
        ("v6timeout", {}),
        ("v6timeout-nonexist", {}),
        ("both", {"flags": addrconfig}),
        ("v4timeout", {}),
        ("all-timeout", {}),
    ]
    told = Told()
    lookups = [
        dns.getaddrinfo(f"{host}.example.com", 8000 + number, told, **STREAM, **keywords)
        for number, (host, keywords) in enumerate(questions)
    ]
    base.once(lambda *_: lookups[11].cancel(), timeout=0.1)
    ended(base, told, len(questions))
    answers = dict(zip(told._lookups, told.told, strict=True))
    outcomes: list[Any] = []
    for lookup in lookups:
        error, found = answers[lookup]
        assert {one[1:3] for one in found} <= {(socket.SOCK_STREAM, socket.IPPROTO_TCP)}
        outcomes.append(error.errno if error else [one[4][:2] for one in found])
    assert outcomes == [
        [("80.80.32.32", 8000), ("80ff::bbbb", 8000)],
        [("18.52.86.120", 8001)],
        [("b0b::f00d", 8002)],
        [("18.52.86.120", 8003)],
        [("b0b::f00d", 8004)],
        AddrInfoError.NONAME,
        AddrInfoError.NONAME,
        [("171.205.239.1", 8007)],
        AddrInfoError.NONAME,
        outcomes[9],  # what the host has addresses of itself
        [("a0a::ff01", 8010)],
        AddrInfoError.CANCEL,
    ]
    assert outcomes[9]
    assert set(outcomes[9]) <= {("80.80.32.32", 8009), ("80ff::bbbb", 8009)}
    assert answers[lookups[0]][1][0][3] == "both-canonical.example.com"
    assert answers[lookups[1]][1][0][3] == ""


def test_getaddrinfo_cancel_stress(base: EventBase, peer: Peer) -> None:
    """Of a thousand lookups some are cancelled, each is told once."""

    def cancelled(lookup: Any, _fd: int, _what: object) -> None:
        lookup.cancel()

    told = Told()
    with peer(base, {"*": ["127.0.0.1"]}) as server, client_of(server) as dns:
        for _ in range(1000):
            lookup = dns.getaddrinfo("foobar.bazquux.example.com", 80, told)
            base.once(functools.partial(cancelled, lookup), timeout=0.01)
        ended(base, told, 1000)
    codes = {error.errno if error else None for error, _ in told.told}
    assert len(set(told._lookups)) == 1000
    assert codes <= {None, AddrInfoError.CANCEL}
    assert AddrInfoError.CANCEL in codes


# The end.


def client_fail_requests(base: EventBase, peer: Peer, **options: object) -> None:
    """Close a resolver at once after its questions."""
    told = Told()
    with peer(base, FOOF) as server:
        dns = client_of(server, flags=INACTIVE, **options)
        for _ in range(20):
            dns.resolve_ipv4("foof.example.com", told)
        dns.close()
        assert told.told == []
        assert ended(base, told, 20) == [(DnsResult.SHUTDOWN, 0, [])] * 20


def test_client_fail_requests(base: EventBase, peer: Peer) -> None:
    """Closing tells all that are pending of SHUTDOWN, later."""
    client_fail_requests(base, peer)


def test_client_fail_waiting_requests(base: EventBase, peer: Peer) -> None:
    """The same with those that wait for their turn."""
    client_fail_requests(base, peer, max_inflight=11)


def test_client_fail_requests_getaddrinfo(base: EventBase, peer: Peer) -> None:
    """The same with getaddrinfo, which is told of FAIL."""
    told = Told()
    with peer(base, FOOF) as server:
        dns = client_of(server, flags=INACTIVE)
        for _ in range(20):
            dns.getaddrinfo("foof.example.com", 80, told)
        dns.close()
        assert told.told == []
        ended(base, told, 20)
        assert [error.errno for error, _ in told.told] == [AddrInfoError.FAIL] * 20


def test_getaddrinfo_race_gotresolve(base: EventBase, peer: Peer) -> None:
    """Threads that ask for the name servers all the while disturb no lookup.

    In C they also begin the lookups, which here only the loop's own thread may; and it alone may
    ask for `nameservers`, so that they ask as in C.
    """

    def busy() -> None:
        storage = ffi.new("struct sockaddr_storage *")
        address, size = ffi.cast("struct sockaddr *", storage), ffi.sizeof(storage[0])
        while not stop.is_set():
            length = lib.evdns_base_get_nameserver_addr(pointer, 0, address, size)
            assert convert.unpack_address(address, length) == server.address
            assert lib.evdns_base_count_nameservers(pointer) == 1

    told, stop = Told(), threading.Event()
    with peer(base, FOOF) as server, client_of(server) as dns:
        pointer = dns.pointer
        threads = [threading.Thread(target=busy) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(300):
                dns.getaddrinfo("foof.example.com", 80, told)
            ended(base, told, 300)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert all(error is None for error, _ in told.told)


def test_set_so_rcvbuf_so_sndbuf(base: EventBase) -> None:
    """The sizes of a socket's buffers are options."""
    with DnsBase(base, NO_BASE_FLAG) as dns:
        dns.set_option("so-rcvbuf", "10240")
        dns.set_option("so-sndbuf", "10240")
        dns.nameserver_ip_add("127.0.0.1")


@pytest.mark.parametrize(
    "option",
    [
        "ndots",
        "timeout",
        "getaddrinfo-allow-skew",
        "max-timeouts",
        "max-inflight",
        "attempts",
        "randomize-case",
        "initial-probe-timeout",
        "so-rcvbuf",
        "so-sndbuf",
    ],
)
def test_set_options(base: EventBase, option: str) -> None:
    """Each option takes a number, and nothing else."""
    with DnsBase(base, NO_BASE_FLAG) as dns:
        dns.set_option(option, "1")
        for wrong in ("foo", "3foo", ""):
            with pytest.raises(ValueError, match=f"val of {option} must be"):
                dns.set_option(option, wrong)
