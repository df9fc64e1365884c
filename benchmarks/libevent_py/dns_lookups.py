"""Lookups of IPv4 addresses, 64 at a time, by a client and a server of DNS in one process."""

from benchmarks.contender import processor_time, serve
from libevent_py import (
    DnsBase,
    DnsLookup,
    DnsQueryFlag,
    DnsResult,
    DnsServer,
    DnsServerRequest,
    EventBase,
)

AT_ONCE = 64
left = unanswered = 0


def on_question(request: DnsServerRequest) -> None:
    for question in request.questions:
        request.add_a_reply(question.name, "127.0.0.1", 60)
    request.respond()


def on_answer(lookup: DnsLookup, result: DnsResult, ttl: int, addresses: list[str]) -> None:
    global unanswered
    assert result == DnsResult.NONE and len(addresses) == 1
    unanswered -= 1
    if left:
        look_up()
    elif not unanswered:
        base.loopbreak()


def look_up() -> None:
    global left, unanswered
    left -= 1
    unanswered += 1
    dns.resolve_ipv4("host.example", on_answer, flags=DnsQueryFlag.NO_SEARCH)


def sample(count: int) -> tuple[int, int]:
    global left
    start = processor_time()
    left = count
    for _ in range(min(AT_ONCE, count)):
        look_up()
    base.dispatch()
    return processor_time() - start, count


base = EventBase()
server = DnsServer(base, ("127.0.0.1", 0), on_question)
dns = DnsBase(base, 0)
dns.nameserver_sockaddr_add(server.address)
serve(sample)
