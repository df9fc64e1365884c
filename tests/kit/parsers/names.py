"""Targets of DNS: answers to a resolver, queries to a server, and the files that it reads."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

from libevent_py import (
    AddrInfoFlag,
    DnsBase,
    DnsBaseFlag,
    DnsError,
    DnsOption,
    DnsQueryFlag,
    DnsResult,
    DnsServer,
    DnsServerRequest,
    EventBase,
    LibeventError,
    LoopFlag,
)
from tests.kit.dns_packets import TC, read
from tests.kit.parsers.checked import Ends, Fault, based
from tests.kit.parsers.inputs import Choices

#: How many packets are sent at most to a resolver that keeps asking.
PACKETS = 12


def turn(base: EventBase) -> None:
    """Run the loop until it has done what there is to do."""
    for _ in range(3):
        base.loop(LoopFlag.NONBLOCK)


def udp() -> socket.socket:
    """Return a bound socket that does not wait."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def _resolve(resolver: DnsBase, kind: int, ends: Ends) -> None:
    """Begin a lookup of the *kind*."""

    def told() -> Callable[..., None]:
        end = ends.begin()

        def tell(_lookup: Any, result: Any, ttl: int, addresses: list[str]) -> None:
            end()
            if addresses and result != DnsResult.NONE:
                raise Fault(f"{result!r} with {addresses}")
            if not isinstance(ttl, int) or not all(isinstance(one, str) for one in addresses):
                raise Fault(f"a lookup gets {ttl!r}, {addresses!r}")

        return tell

    def found() -> Callable[..., None]:
        end = ends.begin()

        def tell(_lookup: Any, error: Any, addresses: list[Any]) -> None:
            end()
            if (error is None) != bool(addresses):
                raise Fault(f"{error!r} with {addresses}")

        return tell

    flags = DnsQueryFlag.NO_SEARCH
    if kind == 0:
        resolver.resolve_ipv4("www.a.example", told(), flags=flags)
    elif kind == 1:
        resolver.resolve_ipv6("www.a.example", told(), flags=flags)
    elif kind == 2:
        resolver.resolve_reverse("192.0.2.1", told(), flags=flags)
    elif kind == 3:
        resolver.resolve_reverse_ipv6("2001:db8::1", told(), flags=flags)
    elif kind == 4:
        resolver.getaddrinfo("www.a.example", 80, found(), flags=AddrInfoFlag.CANONNAME)
    elif kind == 5:
        resolver.getaddrinfo("www.a.example", None, found(), family=socket.AF_INET6)
    elif kind == 6:
        resolver.search_add("b.example")
        resolver.resolve_ipv4("www", told())
    else:
        resolver.resolve_ipv4("www.a.example", told(), flags=flags)
        resolver.resolve_ipv6("www.a.example", told(), flags=flags)


def answers(data: bytes) -> None:
    """Answer each question of a resolver by the next of some packets."""
    choices = Choices(data)
    mode = choices.byte()
    packets = choices.pieces()
    ends = Ends()
    with based() as base, udp() as server, DnsBase(base, DnsBaseFlag(0)) as resolver:
        if not mode & 32:  # so that the same input does the same
            resolver.set_option("randomize-case", 0)
        resolver.nameserver_sockaddr_add(server.getsockname())
        _resolve(resolver, mode & 7, ends)
        turn(base)
        for number in range(max(PACKETS, len(packets))):
            try:
                asked, client = server.recvfrom(2000)
            except BlockingIOError:
                break
            packet = packets[number % len(packets)]
            if not mode & 8:  # what comes is the answer to this
                packet = asked[:2] + packet[2:]
            if mode & 16:  # and repeats the question
                packet = packet[:12] + asked[12:] + packet[12:]
            server.sendto(packet, client)
            turn(base)
        resolver.close()
        turn(base)
    ends.check()


def questions(data: bytes) -> None:
    """Send queries to a server, which answers as the input says."""
    choices = Choices(data)
    mode = choices.byte()
    packets = choices.pieces()
    asked: list[DnsServerRequest] = []

    def handle(request: DnsServerRequest) -> None:
        _ = request.address, request.flags, repr(request)
        for question in request.questions:
            if not isinstance(question.name, str):
                raise Fault(f"a question for {question.name!r}")
            with contextlib.suppress(ValueError):
                _reply(request, question.name, mode & 7)
        if mode & 8:
            asked.append(request)
        else:
            _respond(request, mode)

    with based(LookupError) as base:
        server = DnsServer(base, ("127.0.0.1", 0), handle)
        with udp() as client:
            client.connect(server.address)
            for packet in packets:
                client.send(packet)
                turn(base)
            if mode & 64:
                server.close()
            for request in asked:
                if not request.closed:
                    _respond(request, mode)
            turn(base)
            got = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    _check_reply(client.recv(65536), packets)
                    got += 1
            if got > len(packets):
                raise Fault(f"{got} answers to {len(packets)} queries")
        server.close()
        turn(base)


def _reply(request: DnsServerRequest, name: str, kind: int) -> None:
    if kind == 1:
        request.add_aaaa_reply(name, ["2001:db8::1", "::"], 60)
    elif kind == 2:
        request.add_cname_reply(name, f"a.{name}", 60)
    elif kind == 3:
        request.add_ptr_reply(name, name, 60)
    elif kind == 4:
        request.add_a_reply(name, ["192.0.2.1"] * 40, 0)
    elif kind != 5:
        request.add_a_reply(name, "192.0.2.1", 60)


def _respond(request: DnsServerRequest, mode: int) -> None:
    how = mode >> 4 & 3
    if how == 1:
        request.drop()
    elif how == 2:
        request.respond(DnsResult.NOTEXIST)
    elif how == 3 and not mode & 8:
        raise LookupError("no answer")
    else:
        request.respond()


def _check_reply(reply: bytes, packets: list[bytes]) -> None:
    """Check that a *reply* is well-formed, and answers one of *packets*."""
    if reply[:2] not in [packet[:2] for packet in packets]:
        raise Fault(f"nobody has asked for {reply!r}")
    if int.from_bytes(reply[2:4], "big") & TC:
        return  # it is cut anywhere
    try:
        read(reply)
    except (IndexError, AssertionError) as error:
        raise Fault(f"a malformed reply: {reply!r}") from error


#: A file in memory, at a path that libevent can open.
FILE = os.memfd_create("parsed")
PATH = f"/proc/self/fd/{FILE}"


def written(data: bytes) -> str:
    """Return the path of a file with *data*."""
    os.ftruncate(FILE, 0)
    os.pwrite(FILE, data, 0)
    return PATH


def resolv_conf(data: bytes) -> None:
    """Read settings, and look up a name by them, asking nobody but ourselves."""
    choices = Choices(data)
    mode = choices.byte()
    ends = Ends()
    with based() as base, udp() as server, DnsBase(base, DnsBaseFlag(0)) as resolver:
        flags = DnsOption.ALL if mode & 1 else DnsOption.SEARCH | DnsOption.MISC
        if mode & 2:
            flags = DnsOption.NAMESERVERS
        if flags == DnsOption.ALL:
            flags &= ~DnsOption.HOSTSFILE  # which is /etc/hosts, and not given
        with contextlib.suppress(LibeventError, OSError):
            resolver.resolv_conf_parse(written(choices.left), flags=flags)
        _ = resolver.nameservers
        resolver.clear_nameservers_and_suspend()
        with contextlib.suppress(OSError):  # the file may say which address to bind to
            resolver.nameserver_sockaddr_add(server.getsockname())
        resolver.resume()
        for name in ("www", "www.a"):
            tell = ends.begin()
            try:
                resolver.resolve_ipv4(name, tell)
            except LibeventError:  # no question can be made of it and the search domain
                tell()
        turn(base)
        for _ in range(PACKETS):
            try:
                asked, client = server.recvfrom(2000)
            except BlockingIOError:
                break
            if len(asked) > 512:
                raise Fault(f"a question of {len(asked)} bytes")
            # There is no such name, so the next of the search list is tried.
            server.sendto(asked[:2] + b"\x81\x83" + asked[4:], client)
            turn(base)
        resolver.close()
        turn(base)
    ends.check()


def hosts(data: bytes) -> None:
    """Read a file of hosts, and look up all that is named there."""
    choices = Choices(data)
    mode = choices.byte()
    names = set(choices.left.split()[:12])
    ends = Ends()

    def found() -> Callable[..., None]:
        end = ends.begin()

        def tell(_lookup: Any, error: Any, addresses: list[Any]) -> None:
            end()
            if error is None and not addresses:
                raise Fault("neither addresses nor an error")

        return tell

    family = (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6)[mode % 3]
    with based() as base, DnsBase(base, DnsBaseFlag(0)) as resolver:
        with contextlib.suppress(OSError):
            resolver.load_hosts(written(choices.left))
        for name in names:
            tell = found()
            try:
                resolver.getaddrinfo(name, 80, tell, family=family)
            except (ValueError, DnsError):  # no name: nobody is told
                tell(None, True, [])
        turn(base)
        if mode & 8:
            resolver.clear_host_addresses()
        resolver.close()
        turn(base)
    ends.check()
