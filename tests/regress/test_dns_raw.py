"""Group ``dns`` through the raw layer: options, the end of a resolver, and evdns's own server.

`DnsBase` has code of its own for these functions of libevent, refuses what they take, or tells of
what they don't; so the tests of the same names in test_dns.py say less about them.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from libevent_py import EventBase, ffi, lib
from libevent_py._core import convert
from tests.kit.dns_peers import SILENCE
from tests.kit.peers import run_until
from tests.kit.raw import FromC
from tests.kit.raw_dns import Answers, reply, resolver, serve
from tests.kit.support import PATIENCE, run_python

NO_SEARCH = lib.DNS_QUERY_NO_SEARCH
INACTIVE = lib.EVDNS_BASE_DISABLE_WHEN_INACTIVE
STREAM, TCP = socket.SOCK_STREAM, socket.IPPROTO_TCP
V4, V6 = socket.AF_INET, socket.AF_INET6

FOOF = {"foof.example.com": ["240.15.240.15"]}


@pytest.fixture
def answers(from_c: FromC) -> Answers:
    return Answers(from_c)


# Options.


@pytest.mark.parametrize("colon", ["", ":"])
def test_set_options(base: EventBase, colon: str) -> None:
    """Each option takes what it should, with a colon after its name, too."""
    numbers = "ndots max-timeouts max-inflight attempts randomize-case so-rcvbuf so-sndbuf"
    times = "timeout getaddrinfo-allow-skew initial-probe-timeout"
    dns = resolver(base.pointer)

    def takes(option: str, value: str) -> bool:
        name = f"{option}{colon}".encode()
        return {0: True, -1: False}[lib.evdns_base_set_option(dns, name, value.encode())]

    for option in numbers.split():
        values = ("0", "1", "10000", "foo", "3.14", "1x")
        assert [value for value in values if takes(option, value)] == ["0", "1", "10000"]
    for option in times.split():
        values = ("1", "0.001", "3.14", "10000", "0", "foo")
        assert [value for value in values if takes(option, value)] == [*values[:4]]
    addresses = ("8.8.8.8:80", "1.2.3.4", "::1:82", "3::4", "3.14", "foo")
    assert [value for value in addresses if takes("bind-to", value)] == [*addresses[:4]]
    lib.evdns_base_free(dns, 0)


def test_set_SO_RCVBUF_SO_SNDBUF(base: EventBase) -> None:
    """A name server's socket has buffers of the sizes that are set before it is made."""
    dns = resolver(base.pointer, so_rcvbuf="10240", so_sndbuf="10240")
    before = sockets()
    assert lib.evdns_base_nameserver_ip_add(dns, b"127.0.0.1") == 0
    (fd,) = sockets() - before
    with socket.socket(fileno=fd) as sock:
        for option in socket.SO_RCVBUF, socket.SO_SNDBUF:  # Linux doubles what it is told
            assert sock.getsockopt(socket.SOL_SOCKET, option) == 2 * 10240
        sock.detach()
    lib.evdns_base_free(dns, 0)


def sockets() -> set[int]:
    """Return the descriptors that are sockets for packets."""
    found = set()
    for fd in range(1024):
        try:
            sock = socket.socket(fileno=fd)
        except OSError:
            continue
        if sock.type == socket.SOCK_DGRAM:
            found.add(fd)
        sock.detach()
    return found


def test_search_empty(base: EventBase, answers: Answers) -> None:
    """The empty name is refused by returning NULL, also where there is a domain to search it in."""
    dns = resolver(base.pointer)
    lib.evdns_base_search_add(dns, b"whatever.example.com")
    assert answers.resolve_ipv4(dns, b"", 0) == ffi.NULL
    lib.evdns_base_free(dns, 0)
    assert answers.told == {}


# evdns's own server.

ARPA = "11.11.168.192.in-addr.arpa"
IN6 = "f.e.f.e.0.0.0.0.0.0.0.0.1.1.1.1.a.a.a.a.0.0.0.0.0.0.0.0.0.f.f.f.ip6.arpa"


def with_ttl(ttl: int, *texts: str) -> Callable[..., int]:
    """Return an answer whose records are valid for *ttl* seconds."""

    def answer(request: Any, name: str, type: int) -> int:
        reply(request, name, type, [*texts], ttl)
        return 0

    return answer


def test_server(base: EventBase, from_c: FromC, answers: Answers) -> None:
    """A resolver finds what a server says, in all its words, and nothing of what is cancelled."""
    zone = {
        ("zz.example.com", lib.EVDNS_TYPE_A): with_ttl(12345, "192.168.11.11"),
        ("zz.example.com", lib.EVDNS_TYPE_AAAA): with_ttl(
            123, "6162:6364:6566:6768:696a:6b6c:6d6e:6f70"
        ),
        ARPA: with_ttl(54321, "ZZ.EXAMPLE.COM"),
        IN6: with_ttl(54322, "ZZ-INET6.EXAMPLE.COM"),
        "drop.example.com": SILENCE,
    }
    with serve(base.pointer, zone, from_c) as server:
        dns = lib.evdns_base_new(base.pointer, 0)
        address, size, _memory = convert.sockaddr(server.address)
        assert lib.evdns_base_nameserver_sockaddr_add(dns, address, size, 0) == 0
        assert lib.evdns_base_count_nameservers(dns) == 1
        told = ffi.new("struct sockaddr_storage *")
        sockaddr, room = ffi.cast("struct sockaddr *", told), ffi.sizeof("struct sockaddr_storage")
        # There is no room, so that only the size is told.
        assert lib.evdns_base_get_nameserver_addr(dns, 0, sockaddr, 3) == size
        assert told.ss_family == 0
        assert lib.evdns_base_get_nameserver_addr(dns, 0, sockaddr, room) == size
        assert convert.unpack_address(sockaddr, size) == server.address
        assert lib.evdns_base_get_nameserver_addr(dns, 1, sockaddr, room) == -1

        callback = answers.callback
        numbers = [ffi.cast("void *", number) for number in range(5)]
        for number, resolve in enumerate(
            (lib.evdns_base_resolve_ipv4, lib.evdns_base_resolve_ipv6)
        ):
            assert resolve(dns, b"zz.example.com", NO_SEARCH, callback, numbers[number])
        packed_v4 = ffi.new("char[]", socket.inet_pton(V4, "192.168.11.11"))
        packed_v6 = ffi.new("char[]", socket.inet_pton(V6, "fff0:0:0:aaaa:1111:0:0:efef"))
        v4 = ffi.cast("struct in_addr *", packed_v4)
        v6 = ffi.cast("struct in6_addr *", packed_v6)
        assert lib.evdns_base_resolve_reverse(dns, v4, 0, callback, numbers[2])
        assert lib.evdns_base_resolve_reverse_ipv6(dns, v6, 0, callback, numbers[3])
        dropped = answers.resolve_ipv4(dns, b"drop.example.com", 4, NO_SEARCH)
        lib.evdns_cancel_request(dns, dropped)
        run_until(base, lambda: len(answers.told) == 5)
        lib.evdns_base_free(dns, 0)
    assert answers.told == {
        0: (lib.DNS_ERR_NONE, 12345, ["192.168.11.11"]),
        1: (lib.DNS_ERR_NONE, 123, ["6162:6364:6566:6768:696a:6b6c:6d6e:6f70"]),
        2: (lib.DNS_ERR_NONE, 54321, ["ZZ.EXAMPLE.COM"]),
        3: (lib.DNS_ERR_NONE, 54322, ["ZZ-INET6.EXAMPLE.COM"]),
        4: (lib.DNS_ERR_CANCEL, 0, []),
    }


def test_server_s_answers(base: EventBase, from_c: FromC, answers: Answers) -> None:
    """What a server adds to an answer is in the packet; an answer that is sent takes no more."""
    packets: list[Any] = []

    def answer(request: Any, name: str, _type: int) -> None:
        owner = name.encode()
        two = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2")
        assert lib.evdns_server_request_add_a_reply(request, owner, 2, two, 7) == 0
        assert lib.evdns_server_request_add_cname_reply(request, owner, b"other.example", 9) == 0
        soa = b"\4dns1\7example\0\4host\7example\0" + bytes(20)
        assert (
            lib.evdns_server_request_add_reply(
                request,
                lib.EVDNS_AUTHORITY_SECTION,
                b"example",
                lib.EVDNS_TYPE_SOA,
                lib.EVDNS_CLASS_INET,
                42,
                len(soa),
                0,
                soa,
            )
            == 0
        )
        assert lib.evdns_server_request_add_ptr_reply(request, ffi.NULL, ffi.NULL, b"x", 1) == -1
        client = ffi.new("struct sockaddr_in *")
        sockaddr = ffi.cast("struct sockaddr *", client)
        size = ffi.sizeof("struct sockaddr_in")
        assert lib.evdns_server_request_get_requesting_addr(request, sockaddr, size - 1) == -1
        assert lib.evdns_server_request_get_requesting_addr(request, sockaddr, size) == size
        packets.append(convert.unpack_address(sockaddr, size))
        lib.evdns_server_request_set_flags(request, lib.EVDNS_FLAGS_AA)
        assert lib.evdns_server_request_respond(request, 0) == 0

    with (
        serve(base.pointer, {"*": answer}, from_c) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.bind(("127.0.0.1", 0))
        client.settimeout(0)
        question = b"\3www\7example\0\0\1\0\1"
        client.sendto(b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + question, server.address)
        run_until(base, lambda: packets)
        packet = client.recv(1000)
        assert packets == [client.getsockname()]
    assert packet[:12] == b"\x12\x34\x85\0\0\1\0\2\0\1\0\0"
    assert packet[12:].startswith(question)
    records = packet[12 + len(question) :]
    # libevent writes several addresses into one record.
    both = b"\xc0\x0c\0\1\0\1\0\0\0\7\0\x08\xc0\0\2\1\xc0\0\2\2"
    assert records.startswith(both + b"\xc0\x0c\0\5\0\1\0\0\0\x09")
    assert b"\5other\xc0\x10" in records
    assert records.endswith(bytes(20))


# Lookups.


def at_once(
    answers: Answers, dns: Any, host: bytes | None, service: bytes | None, **hints: int
) -> tuple[int, list[Any]]:
    """Return what a lookup that asks no server has told before it returned."""
    number = 1000 + len(answers.told)
    assert answers.getaddrinfo(dns, host, service, number, **hints) == ffi.NULL
    result: tuple[int, list[Any]] = answers.told[number]
    return result


def test_getaddrinfo_async_at_once(base: EventBase, answers: Answers) -> None:
    """What needs no server is told before evdns_getaddrinfo() returns NULL."""
    dns = resolver(base.pointer)
    assert lib.evdns_base_load_hosts(dns, ffi.NULL) == 0
    dgram, udp = socket.SOCK_DGRAM, socket.IPPROTO_UDP

    assert at_once(answers, dns, b"1.2.3.4", b"80", socktype=STREAM) == (
        0,
        [(V4, STREAM, TCP, None, ("1.2.3.4", 80))],
    )
    numeric = lib.EVUTIL_AI_NUMERICHOST
    nothing: tuple[int, list[Any]] = (lib.EVUTIL_EAI_NONAME, [])
    assert at_once(answers, dns, b"www.google.com", b"80", flags=numeric) == nothing
    assert at_once(answers, dns, b"f::f", b"8008", protocol=TCP) == (
        0,
        [(V6, STREAM, TCP, None, ("f::f", 8008, 0, 0))],
    )
    error, found = at_once(answers, dns, b"5.6.7.8", None)
    assert error == 0
    assert {(V4, STREAM, TCP, None, ("5.6.7.8", 0)), (V4, dgram, udp, None, ("5.6.7.8", 0))} == {
        *found
    }
    passive = lib.EVUTIL_AI_PASSIVE
    error, found = at_once(answers, dns, None, b"9090", socktype=dgram, flags=passive)
    assert error == 0
    assert {*found} == {
        (V4, dgram, udp, None, ("0.0.0.0", 9090)),
        (V6, dgram, udp, None, ("::", 9090, 0, 0)),
    }
    error, found = at_once(answers, dns, None, b"2", socktype=STREAM)
    assert error == 0
    assert {*found} == {
        (V4, STREAM, TCP, None, ("127.0.0.1", 2)),
        (V6, STREAM, TCP, None, ("::1", 2, 0, 0)),
    }
    error, found = at_once(answers, dns, b"LOCALHOST", b"80", socktype=STREAM, family=V4)
    assert (error, found) == (0, [(V4, STREAM, TCP, None, ("127.0.0.1", 80))])
    lib.evdns_base_free(dns, 0)


def both(request: Any, name: str, type: int) -> int:
    """Answer with an alias as well."""
    texts = ["80.80.32.32", "80ff::bbbb"]
    reply(request, name, type, texts)
    canonical = b"both-canonical.example.com"
    assert lib.evdns_server_request_add_cname_reply(request, name.encode(), canonical, 1000) == 0
    return 0


A, AAAA = lib.EVDNS_TYPE_A, lib.EVDNS_TYPE_AAAA

ADDRESSES: dict[Any, Any] = {
    "both.example.com": both,
    ("v4only.example.com", A): ["18.52.86.120"],
    ("v4assert.example.com", A): ["18.52.86.120"],
    ("v6only.example.com", AAAA): ["b0b::f00d"],
    ("v6assert.example.com", AAAA): ["b0b::f00d"],
    ("v6timeout.example.com", A): ["171.205.239.1"],
    ("v6timeout.example.com", AAAA): SILENCE,
    ("v4timeout.example.com", A): SILENCE,
    ("v4timeout.example.com", AAAA): ["a0a::ff01"],
    ("v6timeout-nonexist.example.com", AAAA): SILENCE,
    "all-timeout.example.com": SILENCE,
}


def test_getaddrinfo_async(base: EventBase, from_c: FromC, answers: Answers) -> None:
    """Each family is asked for once, if it is wanted, and what isn't answered not waited for."""
    canonical, configured = lib.EVUTIL_AI_CANONNAME, lib.EVUTIL_AI_ADDRCONFIG
    questions: list[tuple[str, dict[str, int]]] = [
        ("both", {"flags": canonical}),
        ("v4only", {"flags": canonical}),
        ("v6only", {}),
        ("v4assert", {"family": V4}),
        ("v6assert", {"family": V6}),
        ("nosuchplace", {"family": V4}),
        ("nosuchplace", {}),
        ("v6timeout", {}),
        ("v6timeout-nonexist", {}),
        ("both", {"flags": configured}),
        ("v4timeout", {}),
        ("all-timeout", {}),
    ]
    with serve(base.pointer, ADDRESSES, from_c) as server:
        dns = resolver(base.pointer, server, timeout="0.3", getaddrinfo_allow_skew="0.2")
        lookups = []
        for number, (host, hints) in enumerate(questions):
            service = b"%d" % (8000 + number)
            name = f"{host}.example.com".encode()
            lookups.append(
                answers.getaddrinfo(dns, name, service, number, socktype=STREAM, **hints)
            )
            assert lookups[-1]
        base.once(lambda *_: lib.evdns_getaddrinfo_cancel(lookups[11]), timeout=0.1)
        run_until(base, lambda: len(answers.told) == len(questions))
        lib.evdns_base_free(dns, 0)
        asked = [name.lower() for name in server.asked]
    assert asked.count("v4assert.example.com") == asked.count("v6assert.example.com") == 1

    def v4(address: str, number: int, name: str | None = None) -> Any:
        return V4, STREAM, TCP, name, (address, 8000 + number)

    def v6(address: str, number: int, name: str | None = None) -> Any:
        return V6, STREAM, TCP, name, (address, 8000 + number, 0, 0)

    nothing: Any = lib.EVUTIL_EAI_NONAME, []
    error, found = answers.told.pop(9)  # what the host has addresses of itself
    assert error == 0
    assert found and {*found} <= {v4("80.80.32.32", 9), v6("80ff::bbbb", 9)}
    error, found = answers.told.pop(0)
    assert (error, len(found)) == (0, 2)
    assert found[0][3] == "both-canonical.example.com"
    assert {(*one[:3], None, one[4]) for one in found} == {
        v4("80.80.32.32", 0),
        v6("80ff::bbbb", 0),
    }
    assert answers.told == {
        1: (0, [v4("18.52.86.120", 1)]),
        2: (0, [v6("b0b::f00d", 2)]),
        3: (0, [v4("18.52.86.120", 3)]),
        4: (0, [v6("b0b::f00d", 4)]),
        5: nothing,
        6: nothing,
        7: (0, [v4("171.205.239.1", 7)]),
        8: nothing,
        10: (0, [v6("a0a::ff01", 10)]),
        11: (lib.EVUTIL_EAI_CANCEL, []),
    }


# Suspending.


def test_resume(base: EventBase, from_c: FromC, answers: Answers) -> None:
    """What was asked before all servers were cleared is asked once there are others."""
    with (
        serve(base.pointer, {"*": SILENCE}, from_c) as silent,
        serve(base.pointer, FOOF, from_c) as other,
    ):
        dns = resolver(base.pointer, silent)
        assert answers.resolve_ipv4(dns, b"foof.example.com", 0)
        run_until(base, lambda: silent.asked)
        assert lib.evdns_base_clear_nameservers_and_suspend(dns) == 0
        assert lib.evdns_base_count_nameservers(dns) == 0
        assert answers.resolve_ipv4(dns, b"foof.example.com", 1)
        text = f"127.0.0.1:{other.address[1]}".encode()
        assert lib.evdns_base_nameserver_ip_add(dns, text) == 0
        for _ in range(5):
            base.loop(lib.EVLOOP_NONBLOCK)
        assert other.asked == []
        assert lib.evdns_base_resume(dns) == 0
        run_until(base, lambda: len(answers.told) == 2)
        lib.evdns_base_free(dns, 0)
    assert len(silent.asked) == 1
    assert answers.told == {number: (0, 42, ["240.15.240.15"]) for number in range(2)}


# The end.


def fail_requests(
    base: EventBase, from_c: FromC, begin: Callable[[Any, int], Any], fail: int, **options: str
) -> None:
    """Free a resolver right after twenty questions, so that they *fail* or are forgotten."""
    with serve(base.pointer, FOOF, from_c) as server:
        dns = resolver(base.pointer, server, flags=INACTIVE, **options)
        for number in range(20):
            assert begin(dns, number)
        lib.evdns_base_free(dns, fail)
        # The server's event remains; what is deferred is run by then.
        for _ in range(5):
            base.loop(lib.EVLOOP_NONBLOCK)


@pytest.mark.parametrize("options", [{}, {"max_inflight": "11"}], ids=["", "waiting"])
def test_client_fail_requests(
    base: EventBase, from_c: FromC, answers: Answers, options: dict[str, str]
) -> None:
    """evdns_base_free() tells all that are pending, and those that wait, of SHUTDOWN if asked."""

    def begin(dns: Any, number: int) -> Any:
        return answers.resolve_ipv4(dns, b"foof.example.com", number)

    fail_requests(base, from_c, begin, 0, **options)
    assert answers.told == {}
    fail_requests(base, from_c, begin, 1, **options)
    assert answers.told == {number: (lib.DNS_ERR_SHUTDOWN, 0, []) for number in range(20)}


def test_client_fail_requests_getaddrinfo(base: EventBase, from_c: FromC, answers: Answers) -> None:
    """evdns_getaddrinfo() is told of FAIL."""

    def begin(dns: Any, number: int) -> Any:
        return answers.getaddrinfo(dns, b"foof.example.com", b"80", number)

    fail_requests(base, from_c, begin, 1)
    assert answers.told == {number: (lib.EVUTIL_EAI_FAIL, []) for number in range(20)}


@pytest.mark.slow
def test_getaddrinfo_race_gotresolve(base: EventBase, from_c: FromC) -> None:
    """Lookups may begin in another thread than the loop's, while others ask for name servers.

    As many as in C, where the loop begins once all are asked for here: Python would otherwise let
    one thread run and then the other.
    """
    count = 16384
    told = [0]
    failed: list[int] = []

    @from_c("evdns_getaddrinfo_cb")
    def found(result: int, addresses: Any, _arg: Any) -> None:
        told[0] += 1
        if addresses:
            lib.evutil_freeaddrinfo(addresses)
        if result:
            failed.append(result)
        if told[0] == count:
            lib.event_base_loopbreak(base.pointer)

    def run_loop() -> None:
        lib.event_base_loop(base.pointer, lib.EVLOOP_NO_EXIT_ON_EMPTY)

    def busy() -> None:
        storage = ffi.new("struct sockaddr_storage *")
        address, size = ffi.cast("struct sockaddr *", storage), ffi.sizeof(storage[0])
        while not stop.is_set():
            assert lib.evdns_base_get_nameserver_addr(dns, 0, address, size) == 16

    stop = threading.Event()
    with serve(base.pointer, FOOF, from_c) as server:
        dns = resolver(base.pointer, server)
        threads = [threading.Thread(target=target) for target in (run_loop, busy, busy)]
        for thread in threads:
            thread.start()
        try:
            for number in range(count):
                assert lib.evdns_getaddrinfo(
                    dns, b"foof.example.com", b"80", ffi.NULL, found, ffi.NULL
                )
                if number % 100 == 0:
                    time.sleep(0.001)
            threads[0].join(PATIENCE)
        finally:
            stop.set()
            lib.event_base_loopbreak(base.pointer)
            for thread in threads:
                thread.join()
        assert told[0] == count
        assert set(failed) <= {lib.EVUTIL_EAI_AGAIN, lib.EVUTIL_EAI_FAIL, lib.EVUTIL_EAI_NONAME}
        assert len(failed) < count / 2
        lib.evdns_base_free(dns, 1)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("gethostbyname", ["192.0.2.1"]),
        ("gethostbyname6", ["2001:db8::1"]),
        ("gethostbyaddr", ["localhost"]),
    ],
)
def test_global_base(how: str, expected: list[str]) -> None:
    """What libevent 1.x looks up in the one evdns base that evdns_init() makes is found.

    The rows of these names are of such functions, as is the server's, and each runs in a process of
    its own.
    """
    output = run_python(
        """
        import socket, sys
        from libevent_py import ffi, lib
        from tests.kit.raw import FromC
        from tests.kit.raw_dns import Answers, Server

        from_c = FromC()
        base = lib.event_init()
        answers = Answers(from_c)
        zone = {
            ("www.example", lib.EVDNS_TYPE_A): ["192.0.2.1"],
            ("www.example", lib.EVDNS_TYPE_AAAA): ["2001:db8::1"],
            "1.0.0.127.in-addr.arpa": ["localhost"],
        }
        server = Server(None, zone, from_c)
        assert lib.evdns_nameserver_ip_add(b"127.0.0.1:%d" % server.address[1]) == 0
        assert lib.evdns_count_nameservers() == 1
        arguments = answers.callback, ffi.cast("void *", 1)
        how = sys.argv[1]
        if how == "gethostbyaddr":
            packed = ffi.new("char[]", socket.inet_aton("127.0.0.1"))
            lib.evdns_resolve_reverse(ffi.cast("struct in_addr *", packed), 0, *arguments)
        elif how == "gethostbyname6":
            lib.evdns_resolve_ipv6(b"www.example", 0, *arguments)
        else:
            lib.evdns_resolve_ipv4(b"www.example", 0, *arguments)
        while not answers.told:
            lib.event_loop(lib.EVLOOP_ONCE)
        print(answers.told[1])
        lib.evdns_shutdown(0)
        server.close()
        from_c.check()
        lib.event_base_free(base)
        """,
        how,
    )
    assert output == f"(0, 42, {expected})\n"
