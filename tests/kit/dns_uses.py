"""Each use of a DNS server's request."""

from __future__ import annotations

from collections.abc import Callable

from libevent_py import DnsFlag, DnsSection, DnsServerRequest
from tests.kit.dns_packets import IN, NS, A

ANSWER = DnsSection.ANSWER

Answer = Callable[[DnsServerRequest], object]

EVERYTHING: list[Answer] = [
    lambda request: request.respond(),
    lambda request: request.drop(),
    lambda request: request.flags,
    lambda request: setattr(request, "flags", DnsFlag.AA),
    lambda request: request.address,
    lambda request: request.pointer,
    lambda request: request.add_reply(ANSWER, "a", A, IN, 1, b"1234"),
    lambda request: request.add_reply(ANSWER, "a", NS, IN, 1, "b", is_name=True),
    lambda request: request.add_a_reply("a", "192.0.2.1", 1),
    lambda request: request.add_aaaa_reply("a", "::1", 1),
    lambda request: request.add_ptr_reply("192.0.2.1", "a", 1),
    lambda request: request.add_cname_reply("a", "b", 1),
]
