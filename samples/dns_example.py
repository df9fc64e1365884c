"""Look names up in the loop, all at once; or with -T, be a name server that makes up its answers.

The IPv4 addresses of each name are looked up; with -g all addresses, by getaddrinfo; with -x each
argument is an address, and its name is looked up. The name servers are those of /etc/resolv.conf,
of the file after -c, or the one after -s, such as 127.0.0.1:10053, where -T serves by default.

Made of evdns_base_new, evdns_base_nameserver_ip_add, evdns_base_resolv_conf_parse,
evdns_base_resolve_ipv4, evdns_base_resolve_reverse, evdns_base_resolve_reverse_ipv6,
evdns_getaddrinfo, evutil_gai_strerror, evdns_err_to_string, evdns_base_free,
evdns_add_server_port_with_base, evdns_server_request_add_a_reply,
evdns_server_request_add_ptr_reply, evdns_server_request_respond, event_base_dispatch and
event_base_loopexit.

    python samples/dns_example.py [-x | -g] [-c resolv.conf | -s name server] name ...
    python samples/dns_example.py -T [port]
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from typing import Any

from libevent_py import (
    AddrInfoFlag,
    DnsBase,
    DnsBaseFlag,
    DnsError,
    DnsResult,
    DnsServer,
    DnsServerRequest,
    DnsType,
    Event,
    EventBase,
    dns,
    util,
)


def look_up(base: EventBase, resolver: DnsBase, names: list[str], how: str) -> None:
    left = len(names)

    def ended() -> None:
        nonlocal left
        left -= 1
        if not left:
            base.loopexit()

    def resolved(lookup: Any, result: DnsResult, ttl: int, addresses: list[str]) -> None:
        for address in addresses:
            print(f"{lookup.name}: {address}")
        if not addresses:
            print(f"{lookup.name}: no answer ({dns.err_to_string(result)})")
        ended()

    def found(lookup: Any, error: DnsError | None, addresses: list[Any]) -> None:
        for *_, canonical, address in addresses:
            print(f"{canonical or lookup.host}: {address[0]}")
        if error is not None:
            print(f"{lookup.host}: no answer ({util.gai_strerror(error.errno or 0)})")
        ended()

    for name in names:
        if how == "getaddrinfo":
            hints = {"type": socket.SOCK_STREAM, "flags": AddrInfoFlag.CANONNAME}
            resolver.getaddrinfo(name, None, found, **hints)
        elif how == "forward":
            resolver.resolve_ipv4(name, resolved)
        elif ":" in name:
            resolver.resolve_reverse_ipv6(name, resolved)
        else:
            resolver.resolve_reverse(name, resolved)


def answer(request: DnsServerRequest) -> None:
    for question in request.questions:
        if question.type == DnsType.A:
            request.add_a_reply(question.name, "192.168.11.11", 10)
        elif question.type == DnsType.PTR:
            request.add_ptr_reply(question.name, "foo.bar.example.com", 10)
        print(f"{question.name}, type {question.type:d}", flush=True)
    request.respond(DnsResult.NONE)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    for option in ("-x", "-g", "-T"):
        parser.add_argument(option, action="store_true")
    parser.add_argument("-c", default="/etc/resolv.conf")
    parser.add_argument("-s")
    parser.add_argument("names", nargs="*")
    given = parser.parse_args(arguments)
    with EventBase() as base, DnsBase(base, DnsBaseFlag.DISABLE_WHEN_INACTIVE) as resolver:
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        if given.T:
            server = DnsServer(base, ("127.0.0.1", int(*given.names or [10053])), answer)
            print("serving {}:{}, Ctrl-C to stop".format(*server.address), flush=True)
        elif given.s:
            resolver.nameserver_ip_add(given.s)
        else:
            resolver.resolv_conf_parse(given.c)
        if not given.T:
            how = "reverse" if given.x else "getaddrinfo" if given.g else "forward"
            look_up(base, resolver, given.names, how)
        base.dispatch()


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main(sys.argv[1:])
