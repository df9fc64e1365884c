"""A small name server: it knows the names in its arguments, and says that no others exist.

Each name is given as NAME=ADDRESS, IPv4 or IPv6, or as ALIAS=NAME; or by a file such as /etc/hosts.
It looks addresses up by names, and names by addresses. Its answers are authoritative; it refuses
questions that aren't about addresses and names.

Made of evdns_add_server_port_with_base, evdns_server_request_set_flags,
evdns_server_request_add_a_reply, evdns_server_request_add_aaaa_reply,
evdns_server_request_add_ptr_reply, evdns_server_request_add_cname_reply,
evdns_server_request_respond, evdns_close_server_port, evsignal_new, event_base_dispatch and
event_base_loopexit.

    python samples/dns_server.py [host [port [NAME=ADDRESS | ALIAS=NAME | hosts file] ...]]
    dig @127.0.0.1 -p 5353 www.example.com
"""

from __future__ import annotations

import ipaddress
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator

from libevent_py import (
    DnsClass,
    DnsFlag,
    DnsResult,
    DnsServer,
    DnsServerRequest,
    DnsType,
    Event,
    EventBase,
)

KNOWN = (DnsType.A, DnsType.AAAA, DnsType.CNAME, DnsType.PTR)

#: What a name has of each type.
Zone = dict[str, dict[DnsType, list[str]]]


def pairs(told: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each name with its address, or the name that it stands for."""
    for entry in told:
        if "=" in entry:
            name, _, value = entry.partition("=")
            yield name, value
            continue
        with open(entry) as hosts:
            for line in hosts:
                address, *names = line.partition("#")[0].split() or [""]
                yield from ((name, address) for name in names)


def read(told: Iterable[str]) -> Zone:
    zone: Zone = defaultdict(lambda: defaultdict(list))
    for name, value in pairs(told):
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            zone[name.lower()][DnsType.CNAME].append(value)
            continue
        zone[name.lower()][DnsType.A if address.version == 4 else DnsType.AAAA].append(value)
        zone[address.reverse_pointer][DnsType.PTR].append(name)
    return zone


def answer(zone: Zone, request: DnsServerRequest) -> DnsResult:
    """Add what is asked for, and return how it went."""
    (name, type, dns_class), *more = request.questions
    if more or dns_class != DnsClass.INET or type not in KNOWN:
        return DnsResult.REFUSED
    if name.lower() not in zone:
        return DnsResult.NOTEXIST
    request.flags |= DnsFlag.AA
    seen: set[str] = set()
    while (
        type != DnsType.CNAME and name not in seen and DnsType.CNAME in zone.get(name.lower(), ())
    ):
        seen.add(name)
        target = zone[name.lower()][DnsType.CNAME][0]
        request.add_cname_reply(name, target, 60)
        name = target
    found = zone.get(name.lower(), {}).get(DnsType(type), [])
    if type == DnsType.A and found:
        request.add_a_reply(name, found, 60)
    elif type == DnsType.AAAA and found:
        request.add_aaaa_reply(name, found, 60)
    for target in found:
        if type == DnsType.PTR:
            request.add_ptr_reply(name, target, 60)
        elif type == DnsType.CNAME:
            request.add_cname_reply(name, target, 60)
    return DnsResult.NONE


def main(host: str = "127.0.0.1", port: int | str = 5353, *told: str) -> None:
    zone = read(told or ["/etc/hosts"])
    with EventBase() as base:
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        with DnsServer(
            base, (host, int(port)), lambda request: request.respond(answer(zone, request))
        ) as server:
            print("serving {}:{}, Ctrl-C to stop".format(*server.address), flush=True)
            base.dispatch()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(*sys.argv[1:])
