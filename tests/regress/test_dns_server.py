"""Row ``server`` of group ``dns`` of libevent's regression suite."""

from __future__ import annotations

from typing import Any

from libevent_py import (
    DnsBase,
    DnsBaseFlag,
    DnsClass,
    DnsQueryFlag,
    DnsResult,
    DnsServer,
    DnsServerRequest,
    DnsType,
    EventBase,
)
from tests.kit.peers import run_until

NO_SEARCH, NO_FLAG = DnsQueryFlag.NO_SEARCH, DnsQueryFlag(0)
ARPA = "11.11.168.192.in-addr.arpa"
IN6 = "f.e.f.e.0.0.0.0.0.0.0.0.1.1.1.1.a.a.a.a.0.0.0.0.0.0.0.0.0.f.f.f.ip6.arpa"


def answer(request: DnsServerRequest) -> None:
    for name, type, dns_class in request.questions:
        assert dns_class == DnsClass.INET
        match name.lower(), type:
            case "zz.example.com", DnsType.A:
                request.add_a_reply(name, "192.168.11.11", 12345)
            case "zz.example.com", DnsType.AAAA:
                request.add_aaaa_reply(name, "6162:6364:6566:6768:696a:6b6c:6d6e:6f70", 123)
            case arpa, DnsType.PTR if arpa == ARPA:
                request.add_ptr_reply(name, "ZZ.EXAMPLE.COM", 54321)
            case in6, DnsType.PTR if in6 == IN6:
                request.add_ptr_reply(name, "ZZ-INET6.EXAMPLE.COM", 54322)
            case "drop.example.com", DnsType.A:
                request.drop()
                return
            case unexpected:
                raise AssertionError(unexpected)
    request.respond()


def test_server(base: EventBase) -> None:
    answers: dict[Any, Any] = {}

    def told(lookup: Any, result: DnsResult, ttl: int, addresses: list[str]) -> None:
        assert lookup not in answers
        answers[lookup] = result, ttl, addresses

    with (
        DnsServer(base, ("127.0.0.1", 0), answer) as server,
        DnsBase(base, DnsBaseFlag(0)) as dns,
    ):
        dns.nameserver_sockaddr_add(server.address)
        assert len(dns.nameservers) == 1
        assert dns.nameservers == [server.address]

        lookups = [
            dns.resolve_ipv4("zz.example.com", told, flags=NO_SEARCH),
            dns.resolve_ipv6("zz.example.com", told, flags=NO_SEARCH),
            dns.resolve_reverse("192.168.11.11", told),
            dns.resolve_reverse_ipv6("fff0:0:0:aaaa:1111:0:0:efef", told),
            dns.resolve_ipv4("drop.example.com", told, flags=NO_SEARCH),
        ]
        lookups[-1].cancel()
        run_until(base, lambda: len(answers) == len(lookups))
    none = DnsResult.NONE
    assert [answers[lookup] for lookup in lookups] == [
        (none, 12345, ["192.168.11.11"]),
        (none, 123, ["6162:6364:6566:6768:696a:6b6c:6d6e:6f70"]),
        (none, 54321, ["ZZ.EXAMPLE.COM"]),
        (none, 54322, ["ZZ-INET6.EXAMPLE.COM"]),
        (DnsResult.CANCEL, 0, []),
    ]
