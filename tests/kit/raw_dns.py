"""What tests of DNS through the raw layer share: libevent's own server, and lookups' answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from libevent_py import ffi, lib
from libevent_py._core import convert
from tests.kit.dns_peers import SILENCE
from tests.kit.raw import FromC

LOOPBACK = "127.0.0.1"
FAMILIES = {lib.EVDNS_TYPE_A: socket.AF_INET, lib.EVDNS_TYPE_AAAA: socket.AF_INET6}


class Server:
    """evdns's own server, with a *zone* of what it answers, by name, or by name and type.

    An answer is a list of texts, an error's code, SILENCE, or a function that takes the request and
    the question, and returns an answer, or None if it has answered. With None as the base, it runs
    on the one that event_init() has made.
    """

    def __init__(self, base: Any, zone: dict[Any, Any], from_c: FromC) -> None:
        self.zone = zone
        self.asked: list[str] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((LOOPBACK, 0))
        self.socket.setblocking(False)
        self.address: tuple[str, int] = self.socket.getsockname()
        callback = from_c("evdns_request_callback_fn_type")(self._request)
        arguments = self.socket.fileno(), 0, callback, ffi.NULL
        self.port = (
            lib.evdns_add_server_port(*arguments)
            if base is None
            else lib.evdns_add_server_port_with_base(base, *arguments)
        )
        assert self.port

    def _request(self, request: Any, _arg: Any) -> None:
        (question,) = request.questions[0 : request.nquestions]
        name = ffi.addressof(question, "name")
        spelt = ffi.string(ffi.cast("char *", name)).decode()
        self.asked.append(spelt)
        assert question.dns_question_class == lib.EVDNS_CLASS_INET
        key = spelt.lower(), question.type
        answer = self.zone.get(key, self.zone.get(key[0], self.zone.get("*", 3)))
        answer = answer(request, spelt, question.type) if callable(answer) else answer
        if answer is SILENCE:
            assert lib.evdns_server_request_drop(request) == 0
        elif isinstance(answer, int):
            assert lib.evdns_server_request_respond(request, answer) == 0
        elif answer is not None:
            reply(request, spelt, question.type, answer)
            assert lib.evdns_server_request_respond(request, 0) == 0

    def close(self) -> None:
        """Answer no more; libevent closes the socket."""
        self.socket.detach()
        lib.evdns_close_server_port(self.port)


def reply(request: Any, name: str, type: int, texts: list[str], ttl: int = 42) -> None:
    """Add *texts* to an answer, those of the family that is asked for, or names."""
    owner = name.encode()
    if type == lib.EVDNS_TYPE_PTR:
        for text in texts:
            assert (
                lib.evdns_server_request_add_ptr_reply(request, ffi.NULL, owner, text.encode(), ttl)
                == 0
            )
        return
    family = FAMILIES[type]
    packed = [
        socket.inet_pton(family, text)
        for text in texts
        if (":" in text) == (family == socket.AF_INET6)
    ]
    add = (
        lib.evdns_server_request_add_a_reply
        if type == lib.EVDNS_TYPE_A
        else lib.evdns_server_request_add_aaaa_reply
    )
    if packed:
        assert add(request, owner, len(packed), b"".join(packed), ttl) == 0


@contextmanager
def serve(base: Any, zone: dict[Any, Any], from_c: FromC) -> Iterator[Server]:
    """Have a `Server` for as long as the context lasts."""
    server = Server(base, zone, from_c)
    try:
        yield server
    finally:
        server.close()


def resolver(base: Any, *servers: Server, flags: int = 0, **options: str) -> Any:
    """Return a ``struct evdns_base *`` that asks *servers*; `_` in an option's name means `-`."""
    dns = lib.evdns_base_new(base, flags)
    assert dns
    for option, value in options.items():
        name = option.replace("_", "-").encode()
        assert lib.evdns_base_set_option(dns, name, value.encode()) == 0
    for server in servers:
        text = f"{server.address[0]}:{server.address[1]}"
        assert lib.evdns_base_nameserver_ip_add(dns, text.encode()) == 0
    return dns


class Answers:
    """What lookups are told, each by the number that it was begun with."""

    def __init__(self, from_c: FromC) -> None:
        self.told: dict[int, Any] = {}
        self.callback = from_c("evdns_callback_type")(self._resolved)
        self.getaddrinfo_callback = from_c("evdns_getaddrinfo_cb")(self._found)

    def _keep(self, arg: Any, answer: Any) -> None:
        number = int(ffi.cast("intptr_t", arg))
        assert number not in self.told
        self.told[number] = answer

    def _resolved(self, result: int, type: Any, count: int, ttl: int, data: Any, arg: Any) -> None:
        kind = type[0] if isinstance(type, bytes) else type
        texts: list[str] = []
        if kind == lib.DNS_PTR and result == 0:
            names = ffi.cast("char **", data)
            texts = [ffi.string(names[number]).decode() for number in range(count)]
        elif result == 0:
            family, size = (socket.AF_INET, 4) if kind == lib.DNS_IPv4_A else (socket.AF_INET6, 16)
            packed = bytes(ffi.buffer(data, size * count))
            texts = [
                socket.inet_ntop(family, packed[at : at + size])
                for at in range(0, len(packed), size)
            ]
        self._keep(arg, (result, ttl, texts))

    def _found(self, result: int, found: Any, arg: Any) -> None:
        addresses = []
        each = found
        while each:
            canonical = ffi.string(each.ai_canonname).decode() if each.ai_canonname else None
            address = convert.unpack_address(each.ai_addr, each.ai_addrlen)
            addresses.append(
                (each.ai_family, each.ai_socktype, each.ai_protocol, canonical, address)
            )
            each = each.ai_next
        if found:
            lib.evutil_freeaddrinfo(found)
        self._keep(arg, (result, addresses))

    def resolve_ipv4(self, dns: Any, name: bytes, number: int, flags: int = 0) -> Any:
        """Begin a lookup and return it, or NULL."""
        arg = ffi.cast("void *", number)
        return lib.evdns_base_resolve_ipv4(dns, name, flags, self.callback, arg)

    def getaddrinfo(
        self, dns: Any, host: bytes | None, service: bytes | None, number: int, **hints: int
    ) -> Any:
        """Begin a lookup and return it; NULL if it has been answered at once."""
        given = ffi.new("struct evutil_addrinfo *", {f"ai_{name}": hints[name] for name in hints})
        return lib.evdns_getaddrinfo(
            dns,
            ffi.NULL if host is None else host,
            ffi.NULL if service is None else service,
            given,
            self.getaddrinfo_callback,
            ffi.cast("void *", number),
        )
