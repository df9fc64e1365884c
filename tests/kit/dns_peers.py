"""Name servers that answer in tests of `DnsBase`: one of a few lines, and evdns's own."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from libevent_py import (
    DnsBase,
    DnsBaseFlag,
    DnsClass,
    DnsSection,
    DnsServer,
    DnsServerRequest,
    DnsType,
    Event,
    EventBase,
    EventFlag,
)
from tests.kit.peers import run_until

NXDOMAIN = 3
REFUSED = 5

Self = TypeVar("Self", bound="Zone")

#: Answers nothing at all.
SILENCE: Any = object()


class Question(NamedTuple):
    """What a client has asked, its name in small letters."""

    name: str
    type: int
    #: The whole packet, and who sent it.
    packet: bytes
    client: Any

    @property
    def spelling(self) -> str:
        """The name as the client has spelt it."""
        return read_name(self.packet, 12)[0]


def read_name(packet: bytes, at: int) -> tuple[str, int]:
    """Return the uncompressed name at *at*, and where it ends."""
    labels = []
    while packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode())
        at += 1 + packet[at]
    return ".".join(labels), at + 1


def name(text: str) -> bytes:
    """Return *text* as DNS writes a name."""
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def record(kind: int, data: bytes, ttl: int = 42) -> bytes:
    """Return a record of the name that was asked for."""
    return struct.pack(">HHHIH", 0xC00C, kind, 1, ttl, len(data)) + data


class Alias(NamedTuple):
    """An answer with addresses and the name that is the canonical one."""

    addresses: list[str]
    canonical: str


class Authority(NamedTuple):
    """An answer that says no, with an error's code, and for how many seconds that may be kept."""

    code: int
    ttl: int

    @property
    def data(self) -> bytes:
        """The bytes of the record that says by whose authority it is."""
        numbers = b"".join(number.to_bytes(4, "big") for number in (1, 2, 3, 4, self.ttl))
        return name("nil.example") + name("nil.example") + numbers


def reply(question: Question, answer: Any) -> bytes:
    """Return the packet that answers: with records from a list of text, or with an error's code."""
    if isinstance(answer, Authority):
        head = question.packet[:2] + bytes([0x81, 0x80 | answer.code]) + b"\0\1\0\0\0\1\0\0"
        soa = record(DnsType.SOA, answer.data, ttl=answer.ttl)
        return head + question.packet[12:] + soa
    if isinstance(answer, Alias):
        packet = reply(question, answer.addresses)
        count = packet[7] + 1
        alias = record(DnsType.CNAME, name(answer.canonical))
        return packet[:7] + bytes([count]) + packet[8:] + alias
    records = []
    code = answer if isinstance(answer, int) else 0
    for text in answer if isinstance(answer, list) else []:
        if question.type == DnsType.PTR:
            data = name(text)
        elif (question.type == DnsType.AAAA) == (":" in text):
            data = socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
        else:
            continue
        records.append(record(question.type, data))
    head = question.packet[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(records), 0, 0)
    return head + question.packet[12:] + b"".join(records)


class Zone:
    """What a name server answers by name, and what it has been asked."""

    def __init__(self, base: EventBase, zone: dict[str, Any] | None = None) -> None:
        self.base = base
        self.zone = zone or {}
        self.asked: list[Question] = []
        self.address: Any

    def _answer_to(self, question: Question) -> Any:
        """Note *question*, and return the answer to it."""
        self.asked.append(question)
        answer = self.zone.get(question.name, self.zone.get("*", NXDOMAIN))
        return answer(question) if callable(answer) else answer

    @property
    def names(self) -> list[str]:
        """The names that it has been asked for."""
        return [question.name for question in self.asked]

    def close(self) -> None:
        """Answer no more."""
        raise NotImplementedError

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NameServer(Zone):
    """Answers from a zone: a list of addresses, an error's code, SILENCE, or a packet.

    Or an `Alias`, an `Authority`, or a function that takes a `Question` and returns one of those. A
    name that isn't there doesn't exist. It runs in a base's loop.
    """

    def __init__(self, base: EventBase, zone: dict[str, Any] | None = None) -> None:
        super().__init__(base, zone)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.address = self.socket.getsockname()
        what = EventFlag.READ | EventFlag.PERSIST
        self.event = Event(base, self.socket.fileno(), what, self._ready).add()

    def _ready(self, _event: Event, _fd: int, _what: EventFlag) -> None:
        while True:
            try:
                packet, client = self.socket.recvfrom(2000)
            except BlockingIOError:
                return
            asked, end = read_name(packet, 12)
            (kind,) = struct.unpack_from(">H", packet, end)
            question = Question(asked.lower(), kind, packet, client)
            self.answer(question, self._answer_to(question))

    def answer(self, question: Question, answer: Any) -> None:
        """Send the answer to a question, perhaps of earlier."""
        if answer is SILENCE:
            return
        packet = answer if isinstance(answer, bytes) else reply(question, answer)
        self.socket.sendto(packet, question.client)

    def close(self) -> None:
        """Answer no more."""
        self.event.close()
        self.socket.close()


class OwnServer(Zone):
    """evdns's own server, which answers from a zone like a `NameServer`, but sends no packets."""

    def __init__(self, base: EventBase, zone: dict[str, Any] | None = None) -> None:
        super().__init__(base, zone)
        self.server = DnsServer(base, ("127.0.0.1", 0), self._asked)
        self.address = self.server.address

    def _asked(self, request: DnsServerRequest) -> None:
        ((asked, kind, dns_class),) = request.questions
        assert dns_class == DnsClass.INET
        packet = bytes(12) + name(asked) + struct.pack(">HH", kind, dns_class)
        answer = self._answer_to(Question(asked.lower(), kind, packet, request.address))
        if answer is SILENCE:
            request.drop()
            return
        code = answer if isinstance(answer, int) else 0
        if isinstance(answer, Authority):
            code = answer.code
            kinds = DnsType.SOA, DnsClass.INET
            request.add_reply(DnsSection.AUTHORITY, asked, *kinds, answer.ttl, answer.data)
        elif isinstance(answer, Alias):
            self._add(request, asked, kind, answer.addresses)
            request.add_cname_reply(asked, answer.canonical, 42)
        elif isinstance(answer, list):
            self._add(request, asked, kind, answer)
        if not self.server.closed:  # by what has answered
            request.respond(code)

    @staticmethod
    def _add(request: DnsServerRequest, asked: str, kind: int, texts: list[str]) -> None:
        if kind == DnsType.PTR:
            for text in texts:
                request.add_ptr_reply(asked, text, 42)
        elif kind == DnsType.AAAA:
            if addresses := [text for text in texts if ":" in text]:
                request.add_aaaa_reply(asked, addresses, 42)
        elif addresses := [text for text in texts if ":" not in text]:
            request.add_a_reply(asked, addresses, 42)

    def close(self) -> None:
        """Answer no more."""
        self.server.close()


def client_of(*servers: Zone, flags: int = DnsBaseFlag(0), **options: object) -> DnsBase:
    """Return a resolver that asks *servers*, in their base; `_` in an option's name means `-`."""
    dns = DnsBase(servers[0].base, flags)
    for option, value in options.items():
        dns.set_option(option.replace("_", "-"), value)
    for server in servers:
        dns.nameserver_sockaddr_add(server.address)
    return dns


class Told:
    """A callback that keeps what it is told: without the lookup, which is in `lookups`."""

    def __init__(self, then: Callable[..., object] | None = None) -> None:
        self.told: list[Any] = []
        self._lookups: list[Any] = []
        self.then = then

    def __call__(self, lookup: Any, *answer: Any) -> None:
        self._lookups.append(lookup)
        self.told.append(answer)
        if self.then is not None:
            self.then(lookup, *answer)

    def wait(self, base: EventBase, count: int = 1) -> list[Any]:
        """Run the loop until it has been told *count* times."""
        run_until(base, lambda: len(self.told) >= count)
        return self.told
